"""One tree over all sources: what lies in what, who sees what, and no joule in two places."""

import zlib
from dataclasses import replace

import msgspec
from tests.agent.metering import GAP_SECONDS, Book, at, counter, spec

from wattledger_agent.channels import unpack
from wattledger_agent.containment import ancestors, containers
from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Gone, Method, PowerReading, Role
from wattledger_agent.topology import parts_of, resolve, resolve_all

BMC = replace(
    spec(
        "node", source="ipmi", domain="dcmi", role=Role.METER, method=Method.INTEGRAL, component=Component.OTHER, bound=9e3
    ),
    cadence_seconds=10.0,
)
REDFISH = replace(BMC, key=ChannelKey("node", "chassis", "redfish"))
PSYS = spec("node", domain="psys", role=Role.METER, component=Component.OTHER, bound=2e3)
PACKAGE = spec("cpu/0", bound=500.0)
DRAM = spec("memory/0", domain="dram", component=Component.MEMORY)
GPU = spec("gpu/GPU-1", source="nvidia", domain="board", component=Component.GPU, bound=700.0)
ESTIMATE = spec("node", source="estimate", domain="estimate", method=Method.MODEL, component=Component.OTHER)

# A superchip: its module's meter holds the chip's, that the CPU's; the GPU is in the module, and another source's.
MODULE = replace(BMC, key=ChannelKey("module/0", "module", "hwmon"), cadence_seconds=0.0)
GRACE = replace(MODULE, key=ChannelKey("grace/0", "grace", "hwmon"), within="module/0")
GRACE_CPU = replace(
    spec("cpu/0", source="hwmon", domain="cpu", method=Method.INTEGRAL), within="grace/0", component=Component.CPU
)
MODULE_GPU = replace(GPU, within="module/0")


def parents(specs: list[ChannelSpec]) -> dict[str, str]:
    """By device of what is booked: the device of the meter that it is a part of; empty for none."""
    booked = [spec for spec in specs if spec.role in (Role.LEAF, Role.METER)]
    return {spec.key.device: "" if spec.parent is None else spec.parent.device for spec in booked}


def test_parts_of_other_sources_belong_to_the_node_meter() -> None:
    """A management controller states nothing of RAPL or NVML, but whatever is in the node is in its meter."""
    found = resolve([PACKAGE, DRAM, GPU, BMC])
    assert [spec.parent for spec in found] == [BMC.key, BMC.key, BMC.key, None]
    assert len(parts_of(BMC.key, found)) == 3


def test_a_superchip_is_a_tree_of_meters() -> None:
    """Node > module > chip > CPU, and the GPU right in the module, in whatever order the sources come."""
    expected = {"node": "", "module/0": "node", "grace/0": "module/0", "cpu/0": "grace/0", "gpu/GPU-1": "module/0"}
    specs = [BMC, MODULE, GRACE, GRACE_CPU, MODULE_GPU]
    assert parents(resolve(specs)) == expected
    assert parents(resolve(reversed(specs))) == expected


def test_a_container_without_a_meter_is_passed_over() -> None:
    """A part lies in the next meter around it."""
    assert parents(resolve([BMC, GRACE_CPU, GRACE])) == {"node": "", "grace/0": "node", "cpu/0": "grace/0"}
    assert parents(resolve([BMC, GRACE_CPU])) == {"node": "", "cpu/0": "node"}
    assert parents(resolve([MODULE, GRACE_CPU, replace(GRACE, role=Role.SHOWN)])) == {"module/0": "", "cpu/0": "module/0"}


def test_what_a_meter_excludes_is_summed_beside_it() -> None:
    """Or within the next meter that sees it."""
    blind = replace(BMC, excludes=frozenset({Component.GPU}))
    assert parents(resolve([blind, PACKAGE, GPU])) == {"node": "", "cpu/0": "node", "gpu/GPU-1": ""}
    module = replace(MODULE, excludes=frozenset({Component.GPU}))
    assert parents(resolve([BMC, module, MODULE_GPU])) == {"node": "", "module/0": "node", "gpu/GPU-1": "node"}


def test_a_stated_parent_that_excludes_the_part_is_not_its_meter() -> None:
    """What the meter is known not to see can't be taken from what it saw."""
    blind = replace(PSYS, excludes=frozenset({Component.MEMORY}))
    found = resolve([blind, replace(PACKAGE, parent=PSYS.key), replace(DRAM, parent=PSYS.key)])
    assert [spec.parent for spec in found] == [None, PSYS.key, None]


def test_a_meter_that_can_not_be_taken_apart_is_shown() -> None:
    """The node lacks the GPUs that the module holds: as its part, the module would take from it what it never saw."""
    blind = replace(BMC, excludes=frozenset({Component.GPU}))
    found = {spec.key: spec for spec in resolve([blind, MODULE, GRACE, GRACE_CPU, MODULE_GPU])}
    assert found[MODULE.key].role is Role.SHOWN
    assert parents(list(found.values())) == {"node": "", "grace/0": "node", "cpu/0": "grace/0", "gpu/GPU-1": ""}


def test_of_two_node_meters_one_has_all_parts() -> None:
    """A counter goes before an integral, the first of equals before the second, and the incumbent before both."""
    found = resolve([BMC, REDFISH, PSYS, replace(PACKAGE, parent=PSYS.key), GPU])
    assert [spec.role for spec in found] == [Role.SHOWN, Role.SHOWN, Role.METER, Role.LEAF, Role.LEAF]
    assert {spec.parent for spec in found[3:]} == {PSYS.key}
    assert [spec.parent for spec in resolve([BMC, REDFISH, GPU])][-1] == BMC.key
    assert [spec.parent for spec in resolve([BMC, REDFISH, GPU], [REDFISH])][-1] == REDFISH.key


def test_parts_of_a_meter_that_is_gone_belong_to_the_other_sources_meter() -> None:
    """Their stated parent is no more; beside the other meter they would count twice."""
    assert [spec.parent for spec in resolve([BMC, replace(PACKAGE, parent=PSYS.key)])] == [None, BMC.key]


def test_a_part_of_a_meter_that_is_only_shown_lies_in_the_node() -> None:
    """A platform domain that is not trusted as the node's meter keeps nothing from the one that is."""
    shown = replace(PSYS, role=Role.SHOWN)
    assert [spec.parent for spec in resolve([shown, replace(PACKAGE, parent=PSYS.key), BMC])][1] == BMC.key
    assert [spec.parent for spec in resolve([shown, replace(PACKAGE, parent=PSYS.key)])][1] == PSYS.key


def test_what_lies_in_a_measured_leaf_of_another_source_is_shown() -> None:
    """An instance of a GPU has its energy in the GPU's board."""
    instance = replace(GPU, key=ChannelKey("gpu/GPU-1/0", "instance", "other"), within="gpu/GPU-1")
    assert [spec.role for spec in resolve([GPU, instance])] == [Role.LEAF, Role.SHOWN]
    assert [spec.role for spec in resolve([replace(GPU, method=Method.MODEL), instance])] == [Role.LEAF, Role.LEAF]


def test_a_leaf_of_the_meters_own_device_is_its_part_if_its_source_says_so() -> None:
    """One label of a chip may stand for a piece that has no other name."""
    io = replace(GRACE, key=ChannelKey("grace/0", "sysio", "hwmon"), role=Role.LEAF, within="grace/0")
    found = resolve([GRACE, io, GRACE_CPU])
    assert [(spec.role, spec.parent) for spec in found[1:]] == [(Role.LEAF, GRACE.key), (Role.LEAF, GRACE.key)]
    assert resolve([GRACE, replace(io, within="")])[1].role is Role.SHOWN


def test_a_modelled_node_stands_aside_for_a_meter_of_what_holds_the_cpus() -> None:
    """Whatever its device; a meter of GPU boards alone, or one that excludes the CPUs, leaves it where it is."""
    assert [spec.role for spec in resolve([ESTIMATE, BMC])] == [Role.SHOWN, Role.METER]
    assert [spec.role for spec in resolve([ESTIMATE, MODULE])] == [Role.SHOWN, Role.METER]
    tray = replace(MODULE, component=Component.GPU)
    assert resolve([ESTIMATE, tray])[0].role is Role.LEAF
    assert resolve([ESTIMATE, replace(MODULE, excludes=frozenset({Component.CPU}))])[0].role is Role.LEAF


def test_devices_that_contain_each_other_lie_in_the_node() -> None:
    """Sources' nonsense must neither hang the agent nor empty its sums."""
    one = replace(MODULE, within="grace/0")
    found = parents(resolve([BMC, one, GRACE, GRACE_CPU]))
    assert found == {"node": "", "grace/0": "node", "module/0": "grace/0", "cpu/0": "grace/0"}
    ring = [replace(MODULE, parent=GRACE.key), replace(GRACE, parent=MODULE.key)]
    assert sum(spec.parent is None for spec in resolve(ring)) == 1


def test_ways_upwards_end() -> None:
    """At the node, which nothing contains, and where a ring would close."""
    found = containers([MODULE, GRACE, replace(BMC, within="module/0"), replace(GRACE_CPU, within="cpu/0")])
    assert found == {"grace/0": "module/0"}
    assert list(ancestors("grace/0", found)) == ["grace/0", "module/0", "node"]
    assert list(ancestors("a", {"a": "b", "b": "a"})) == ["a", "b"]


def test_parts_of_a_meter_that_is_late_after_a_boot_stay_its_own() -> None:
    """A management controller is found seconds after the packages; they must not change their numbers twice a boot."""
    found = resolve_all([PACKAGE, GPU], (), [BMC])
    assert found[PACKAGE.key].parent == found[GPU.key].parent == BMC.key
    assert resolve_all([PACKAGE, REDFISH], (), [BMC])[PACKAGE.key].parent == REDFISH.key
    assert resolve_all([ESTIMATE], (), [BMC])[ESTIMATE.key].role is Role.LEAF


def begin(*specs: ChannelSpec, state: bytes | None = None, seconds: float = 0) -> Meter:
    """A meter to which these are offered."""
    meter = Meter(state=state, integral_gap_seconds_max=GAP_SECONDS)
    meter.offer(specs, at(seconds))
    return meter


def booked(book: Book) -> int:
    """The sum of all leaves and residuals, closed ones too; microjoules."""
    roles = {channel.channel: channel.role for channel in book.catalog.channels}
    return sum(
        account.energy for number, account in book.accounts.items() if roles[number] in (int(Role.LEAF), int(Role.RESIDUAL))
    )


def watts(of: ChannelSpec, power: int) -> PowerReading:
    """A reading of power."""
    return PowerReading(of.key, power * 1_000_000)


def test_a_node_meter_that_comes_late_takes_over_without_a_joule_twice() -> None:
    """The leaf goes on under a new number; the residual begins where meter and part are read together."""
    node = replace(BMC, cadence_seconds=0.0)
    meter, book = begin(PACKAGE), Book()
    for second in range(3):
        meter.observe([counter(PACKAGE, 100_000_000 * second)], at(second))
    meter.offer([node], at(2))
    for second in range(3, 6):
        meter.observe([counter(PACKAGE, 100_000_000 * second), watts(node, 300)], at(second))
    book.add(meter.cut(at(5)))
    # Two seconds of the leaf alone, one of the leaf before the meter's first value, two of the whole.
    assert booked(book) == 3 * 100_000_000 + 2 * 300_000_000
    assert book.account("node", "residual").energy == 2 * 200_000_000
    assert book.numbers("cpu/0") == [1, 2]


def test_a_part_that_goes_and_comes_again_leaves_and_enters_the_sum() -> None:
    """While it is gone the residual holds what it used; the sum is the meter all the time."""
    node = replace(BMC, cadence_seconds=0.0)
    meter, book = begin(node, GPU), Book()
    for second in range(10):
        if second == 3:
            meter.observe([watts(node, 900), Gone(GPU.key, "off the bus")], at(second))
        elif 3 < second < 6:
            meter.observe([watts(node, 900)], at(second))
        else:
            if second == 6:
                meter.offer([GPU], at(second))
            meter.observe([watts(node, 900), counter(GPU, 500_000_000 * second)], at(second))
    book.add(meter.cut(at(9)))
    assert booked(book) == 9 * 900_000_000
    assert [book.accounts[number].energy for number in book.numbers("gpu/GPU-1")] == [1_000_000_000, 1_500_000_000]


def test_a_part_that_is_away_moves_with_its_meter() -> None:
    """Its counter tells later what it used: under the meter of before that would be booked beside the new one's residual."""
    node = replace(BMC, cadence_seconds=0.0)
    meter, book = begin(node, PACKAGE, GPU), Book()
    for second in range(2):
        meter.observe([watts(node, 900), counter(PACKAGE, 0), counter(GPU, 500_000_000 * second)], at(second))
    cut = meter.cut(at(1))
    book.add(cut)
    assert cut is not None
    # The driver is not loaded yet, and a better meter of the node is.
    meter = begin(PSYS, PACKAGE, state=cut.state, seconds=2)
    for second in (2, 3, 4):
        meter.observe([counter(PSYS, 900_000_000 * second), counter(PACKAGE, 0)], at(second))
    meter.offer([GPU], at(4))
    meter.observe([counter(PSYS, 4_500_000_000), counter(PACKAGE, 0), counter(GPU, 2_500_000_000)], at(5))
    book.add(meter.cut(at(5)))
    # The new meter's residual began at 2 s; what the GPU used from 1 s to there, 0 to 700 J, is what it may lack.
    residual = book.account("node", "residual")
    assert booked(book) == 900_000_000 + 3 * 900_000_000
    assert (residual.gap_lower, residual.gap_upper) == (0, 700_000_000)


def test_what_a_source_said_of_the_tree_is_in_the_state() -> None:
    """After a restart it holds for what is away; states of before, which lack it, load all the same."""
    meter = begin(replace(BMC, excludes=frozenset({Component.GPU})), GRACE)
    meter.observe([watts(BMC, 900), watts(GRACE, 100)], at(1))
    cut = meter.cut(at(1))
    assert cut is not None
    bmc, grace = (channel.spec for channel in unpack(cut.state, GAP_SECONDS)[2][:2])
    assert (bmc.excludes, bmc.cadence_seconds, grace.within) == (frozenset({Component.GPU}), 10.0, "module/0")
    version, boot_id, boottime, saved, *_ = msgspec.msgpack.decode(zlib.decompress(cut.state))
    older = [version, boot_id, boottime, [channel[:18] for channel in saved]]
    again = Meter(state=zlib.compress(msgspec.msgpack.encode(older)), integral_gap_seconds_max=GAP_SECONDS)
    assert again.catalog().SerializeToString(deterministic=True) == cut.catalog
