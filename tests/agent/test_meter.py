"""The account of a host: rows in, records out, and nothing lost or doubled however it is cut and restarted."""

import pytest
from tests.agent.metering import BOOT, GAP_SECONDS, OTHER_BOOT, SECOND, Book, at, counter, spec

from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gone,
    Method,
    PowerReading,
    Role,
    SpanReading,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.rows import GAP_DETAILS_MAX, PENDING_VALUES_MAX
from wattledger_protos.v1 import telemetry_pb2 as pb

CPU = spec("cpu/0", wrap=1_000_000_000)
GPU = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU)
NODE = spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=1000.0)
CPU_PART = spec("cpu/0", parent=NODE.key)
GPU_PART = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, parent=NODE.key)
POWER = spec("gpu/1", source="nvidia", domain="board", component=Component.GPU, method=Method.INTEGRAL)


def meter(*specs: ChannelSpec, state: bytes | None = None, seconds: float = 0, boot: bytes = BOOT) -> Meter:
    """A meter with these channels."""
    made = Meter(state=state, integral_gap_seconds_max=GAP_SECONDS)
    made.offer(specs, at(seconds, boot=boot))
    return made


def test_nothing_observed_is_no_record() -> None:
    """Neither an offer nor a row of failures makes a record."""
    under_test = meter(CPU)
    assert under_test.cut(at(1)) is None
    under_test.observe([TryAgain(CPU.key, "gone fishing")], at(1))
    assert under_test.cut(at(1)) is None
    assert under_test.failed_reads == 1


def test_a_record_says_when_what_and_how_much() -> None:
    """Times, cumulative values, clocks and catalog go together."""
    under_test, book = meter(CPU, GPU), Book()
    for second, raw in ((1, 10), (2, 30), (4, 35)):
        under_test.observe([counter(CPU, raw), counter(GPU, 2 * raw)], at(second))
    book.add(under_test.cut(at(4.5)))
    assert book.account("cpu/0").values == {1 * SECOND: 0, 2 * SECOND: 20, 4 * SECOND: 25}
    assert book.account("gpu/0").energy == 50
    assert book.payloads[0].boot_id == BOOT
    assert book.payloads[0].clock.boottime_nanoseconds == at(4.5).boottime_nanoseconds
    assert all(not column.present_mask for column in book.payloads[0].columns)
    assert under_test.cut(at(5)) is None
    under_test.observe([counter(CPU, 100)], at(5))
    book.add(under_test.cut(at(5)))
    assert [column.channel for column in book.payloads[1].columns] == book.numbers("cpu/0")
    assert book.account("cpu/0").energy == 90


def test_a_channel_opens_in_its_first_row() -> None:
    """A channel is at 0 where it was first read, or first asked in vain; what passes until it answers is a gap."""
    under_test, book = meter(CPU, GPU), Book()
    under_test.observe([counter(CPU, 7), TryAgain(GPU.key, "asleep")], at(3))
    under_test.observe([counter(CPU, 7), counter(GPU, 7)], at(5))
    book.add(under_test.cut(at(5)))
    assert [channel.opening.clock.boottime_nanoseconds for channel in book.catalog.channels] == [3 * SECOND] * 2
    assert book.account("cpu/0").details == []
    [gap] = book.account("gpu/0").details
    assert (gap.reason, gap.upper_microjoules) == (pb.GAP_REASON_NOT_MEASURED, 200_000_000)


def test_a_failed_read_is_absent_and_its_energy_comes_with_the_next() -> None:
    """A failed read changes the total by exactly 0, and no sample says that it was 0."""
    under_test, book = meter(CPU, GPU), Book()
    under_test.observe([counter(CPU, 0), counter(GPU, 0)], at(1))
    under_test.observe([TryAgain(CPU.key, "EIO"), counter(GPU, 5)], at(2))
    book.add(under_test.cut(at(2)))
    assert book.account("cpu/0").values == {1 * SECOND: 0}
    assert book.account("gpu/0").energy == 5
    under_test.observe([counter(CPU, 80), counter(GPU, 9)], at(3))
    book.add(under_test.cut(at(3)))
    assert book.account("cpu/0").energy == 80
    assert book.account("cpu/0").gap_upper == 0


def test_a_value_that_is_not_believed_is_absent() -> None:
    """A counter beyond its range is as good as a failed read."""
    under_test, book = meter(CPU), Book()
    for second, raw in ((1, 0), (2, 2_000_000_000), (3, -5), (4, 40)):
        under_test.observe([counter(CPU, raw)], at(second))
    book.add(under_test.cut(at(4)))
    assert book.account("cpu/0").values == {1 * SECOND: 0, 4 * SECOND: 40}
    assert under_test.unbelieved_readings == 2


def test_readings_of_no_channel_and_second_readings_are_ignored() -> None:
    """A source can't book under a key that it did not offer, nor twice in a row."""
    under_test, book = meter(GPU), Book()
    under_test.observe([counter(GPU, 0)], at(1))
    under_test.observe([counter(GPU, 9), counter(GPU, 12), counter(CPU, 5), Gone(CPU.key, "never was")], at(2))
    book.add(under_test.cut(at(2)))
    assert book.account("gpu/0").energy == 9
    assert under_test.ignored_readings == 3


def test_rows_that_are_not_later_are_ignored() -> None:
    """Time of one boot goes forward only, over restarts too."""
    under_test, book = meter(GPU), Book()
    under_test.observe([counter(GPU, 0)], at(5))
    under_test.observe([counter(GPU, 7)], at(5))
    cut = under_test.cut(at(5))
    book.add(cut)
    assert cut is not None
    again = meter(GPU, state=cut.state, seconds=4)
    again.observe([counter(GPU, 8)], at(4))
    assert again.cut(at(4)) is None
    assert (under_test.ignored_rows, again.ignored_rows) == (1, 1)


def test_energy_during_a_restart_comes_from_the_counter() -> None:
    """Within one boot the state and the hardware's counter leave no hole, under the same channel numbers."""
    first, book = meter(CPU, GPU), Book()
    first.observe([counter(CPU, 10), counter(GPU, 10)], at(1))
    cut = first.cut(at(1))
    book.add(cut)
    assert cut is not None
    second = meter(GPU, CPU, state=cut.state, seconds=6)
    second.observe([counter(CPU, 510), counter(GPU, 3010)], at(7))
    book.add(second.cut(at(7)))
    assert len(book.catalog.channels) == 2
    assert (book.account("cpu/0").energy, book.account("gpu/0").energy) == (500, 3000)
    assert book.account("cpu/0").details == []


def test_a_reboot_is_a_gap_that_names_the_boot_before() -> None:
    """Its bounds come from the realtime clocks; the account goes on."""
    first, book = meter(GPU), Book()
    first.observe([counter(GPU, 10)], at(1))
    cut = first.cut(at(1))
    book.add(cut)
    assert cut is not None
    second = meter(GPU, state=cut.state, boot=OTHER_BOOT)
    second.observe([counter(GPU, 5)], at(0.5, boot=OTHER_BOOT, realtime=61))
    second.observe([counter(GPU, 8)], at(1, boot=OTHER_BOOT, realtime=61.5))
    book.add(second.cut(at(1, boot=OTHER_BOOT, realtime=61.5)))
    account = book.account("gpu/0")
    [gap] = account.details
    assert (gap.reason, gap.from_boot_id, gap.from_boottime_nanoseconds) == (pb.GAP_REASON_REBOOT, BOOT, SECOND)
    assert (account.energy, account.gap_lower, account.gap_upper) == (3, 0, 6_000_000_000)
    assert book.payloads[1].boot_id == OTHER_BOOT


def test_an_integral_goes_on_over_a_quick_restart_only() -> None:
    """The last power is in the state; too long a stop is a gap."""
    first, book = meter(POWER), Book()
    first.observe([PowerReading(POWER.key, 10_000_000)], at(0))
    cut = first.cut(at(0))
    assert cut is not None
    for stop, energy, upper in ((60.0, 900_000_000, 0), (61.0, 0, 6_100_000_000)):
        second = meter(POWER, state=cut.state, seconds=stop)
        second.observe([PowerReading(POWER.key, 20_000_000)], at(stop))
        book.add(second.cut(at(stop)))
        assert (book.account("gpu/1").energy, book.account("gpu/1").gap_upper) == (energy, upper)


def test_a_part_that_is_gone_is_closed_and_comes_back_under_a_new_number() -> None:
    """Numbers are never used again; a new channel is at 0 and has its own baseline."""
    under_test, book = meter(CPU, GPU), Book()
    under_test.observe([counter(CPU, 0), counter(GPU, 0)], at(1))
    under_test.observe([counter(CPU, 5), Gone(GPU.key, "fell off the bus")], at(2))
    book.add(under_test.cut(at(2)))
    assert [channel.closed for channel in book.catalog.channels] == [False, True]
    under_test.observe([counter(CPU, 6), counter(GPU, 50)], at(3))
    assert under_test.ignored_readings == 1
    under_test.offer([GPU], at(3.5))
    under_test.observe([counter(GPU, 70)], at(4))
    under_test.observe([counter(GPU, 75)], at(5))
    book.add(under_test.cut(at(5)))
    assert book.numbers("gpu/0") == [2, 3]
    assert book.account("gpu/0").energy == 5
    assert book.accounts[2].energy == 0


def test_a_new_bound_or_model_is_only_told() -> None:
    """What does not change the accounting keeps the channel; the catalog's hash tells of it."""
    first, book = meter(GPU), Book()
    first.observe([counter(GPU, 0)], at(1))
    cut = first.cut(at(1))
    book.add(cut)
    assert cut is not None
    wider = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, bound=999.0)
    second = meter(wider, state=cut.state, seconds=2)
    second.observe([counter(GPU, 9)], at(3))
    other = second.cut(at(3))
    book.add(other)
    assert other is not None
    assert other.catalog_hash != cut.catalog_hash
    assert [channel.power_bound_milliwatts for channel in book.catalog.channels] == [999_000]
    assert book.account("gpu/0").energy == 9


@pytest.mark.parametrize(
    ("changed", "energy"),
    [
        # The same counter under another parent goes on from its last reading.
        (GPU_PART, 900),
        # Another method or range can't.
        (spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, wrap=10**9), 100),
    ],
)
def test_changed_accounting_closes_and_opens_anew(changed: ChannelSpec, energy: int) -> None:
    """Energy of two kinds never stands in one channel."""
    first, book = meter(GPU), Book()
    first.observe([counter(GPU, 100)], at(1))
    first.observe([counter(GPU, 200)], at(2))
    cut = first.cut(at(2))
    book.add(cut)
    assert cut is not None
    second = meter(changed, state=cut.state, seconds=3)
    second.observe([counter(GPU, 1000)], at(4))
    second.observe([counter(GPU, 1100)], at(5))
    book.add(second.cut(at(5)))
    assert book.numbers("gpu/0") == [1, 2]
    assert [channel.closed for channel in book.catalog.channels] == [True, False]
    assert (book.accounts[1].energy, book.accounts[2].energy) == (100, energy)


def test_a_channel_that_enters_the_sum_begins_anew() -> None:
    """What it showed of the time before was booked by another source."""
    shown = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, role=Role.SHOWN)
    first, book = meter(shown), Book()
    first.observe([counter(GPU, 0)], at(1))
    cut = first.cut(at(1))
    book.add(cut)
    assert cut is not None
    second = meter(GPU, state=cut.state, seconds=3)
    second.observe([counter(GPU, 1000)], at(4))
    book.add(second.cut(at(4)))
    assert book.account("gpu/0").energy == 0


def test_a_large_account_goes_on_under_a_new_number() -> None:
    """No value comes near what the wire refuses, and nothing is lost at the seam."""
    huge = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, bound=1e9)
    under_test, book, raw = meter(huge, CPU), Book(), 0
    truth = 0
    for step in range(1, 8):
        raw += 2**59
        truth = raw - 2**59
        under_test.observe([counter(GPU, raw), counter(CPU, 0)], at(1000 * step))
        book.add(under_test.cut(at(1000 * step)))
    assert len(book.numbers("gpu/0")) > 1
    assert sum(book.accounts[number].energy for number in book.numbers("gpu/0")) == truth
    assert all(account.energy < 2**62 for account in book.accounts.values())


def test_residual_and_parts_are_the_meter_exactly() -> None:
    """Joint rows only: where a part failed, the residual waits for it."""
    under_test, book = meter(NODE, CPU_PART, GPU_PART), Book()
    rows = [(100, 10, 20), (210, 40, 45), (330, None, 60), (400, 90, 65)]
    for second, (node, cpu, gpu) in enumerate(rows, start=1):
        read = TryAgain(CPU_PART.key, "EIO") if cpu is None else counter(CPU_PART, cpu)
        under_test.observe([counter(NODE, node), read, counter(GPU_PART, gpu)], at(second))
    book.add(under_test.cut(at(4)))
    residual = book.account("node", "residual")
    assert residual.values == {1 * SECOND: 0, 2 * SECOND: 110 - 30 - 25, 4 * SECOND: 300 - 80 - 45}
    [row] = [channel for channel in book.catalog.channels if channel.domain == "residual"]
    assert (row.role, row.component, row.parent_channel) == (
        pb.ROLE_RESIDUAL,
        pb.COMPONENT_OTHER,
        book.numbers("node", "board")[0],
    )
    assert {channel.device: channel.parent_channel for channel in book.catalog.channels}["cpu/0"] == row.parent_channel


def test_a_part_that_is_gone_leaves_the_sum_and_what_it_used_stays_out_of_the_residual() -> None:
    """Leaves and residual are the meter's total before, during and after."""
    under_test, book = meter(NODE, CPU_PART, GPU_PART), Book()
    under_test.observe([counter(NODE, 0), counter(CPU_PART, 0), counter(GPU_PART, 0)], at(1))
    under_test.observe([TryAgain(NODE.key, "busy"), counter(CPU_PART, 10), counter(GPU_PART, 30)], at(2))
    under_test.observe([counter(NODE, 200), counter(CPU_PART, 15), Gone(GPU_PART.key, "lost")], at(3))
    book.add(under_test.cut(at(3)))
    assert book.account("node", "residual").energy == 200 - 15 - 30
    under_test.offer([GPU_PART], at(4))
    under_test.observe([counter(NODE, 300), counter(CPU_PART, 20), counter(GPU_PART, 1000)], at(5))
    under_test.observe([counter(NODE, 400), counter(CPU_PART, 25), counter(GPU_PART, 1020)], at(6))
    book.add(under_test.cut(at(6)))
    assert book.account("node", "residual").energy == 400 - 25 - (30 + 20)


def test_energy_of_a_part_that_was_away_moves_from_the_residual_to_its_leaf() -> None:
    """While its source did not run the residual held it; the counter gives it back."""
    first, book = meter(NODE, CPU_PART, GPU_PART), Book()
    first.observe([counter(NODE, 0), counter(CPU_PART, 0), counter(GPU_PART, 0)], at(1))
    cut = first.cut(at(1))
    book.add(cut)
    assert cut is not None
    second = meter(NODE, CPU_PART, state=cut.state, seconds=2)
    second.observe([counter(NODE, 100), counter(CPU_PART, 10)], at(3))
    cut = second.cut(at(3))
    book.add(cut)
    assert cut is not None
    assert book.account("node", "residual").energy == 90
    third = meter(NODE, CPU_PART, GPU_PART, state=cut.state, seconds=4)
    third.observe([counter(NODE, 110), counter(CPU_PART, 12), counter(GPU_PART, 60)], at(5))
    book.add(third.cut(at(5)))
    assert book.account("node", "residual").energy == 110 - 12 - 60


def test_a_residual_whose_method_changes_goes_on_from_its_last_joint_reading() -> None:
    """A part that is only integrated makes another kind of residual; no energy is missed at the seam."""
    integrated = spec("gpu/1", source="nvidia", domain="board", method=Method.INTEGRAL, parent=NODE.key)
    first, book = meter(NODE, CPU_PART), Book()
    first.observe([counter(NODE, 0), counter(CPU_PART, 0)], at(1))
    first.observe([counter(NODE, 100), counter(CPU_PART, 30)], at(2))
    cut = first.cut(at(2))
    book.add(cut)
    assert cut is not None
    second = meter(NODE, CPU_PART, integrated, state=cut.state, seconds=3)
    second.observe([counter(NODE, 250), counter(CPU_PART, 50), PowerReading(integrated.key, 10)], at(4))
    second.observe([counter(NODE, 350), counter(CPU_PART, 80), PowerReading(integrated.key, 10)], at(5))
    book.add(second.cut(at(5)))
    old, new = book.numbers("node", "residual")
    assert [book.catalog.channels[number - 1].method for number in (old, new)] == [pb.METHOD_COUNTER, pb.METHOD_INTEGRAL]
    assert (book.accounts[old].energy, book.accounts[new].energy) == (70, 350 - 80 - 10 - 70)
    assert book.accounts[new].gap_upper == 0


def test_a_gap_of_the_meter_starts_the_residual_anew() -> None:
    """What the leaves counted stays counted; the residual's gap holds the rest."""
    under_test, book = meter(NODE, CPU_PART), Book()
    under_test.observe([counter(NODE, 1000), counter(CPU_PART, 0)], at(1))
    under_test.observe([counter(NODE, 5), counter(CPU_PART, 40)], at(2))
    under_test.observe([counter(NODE, 105), counter(CPU_PART, 50)], at(3))
    book.add(under_test.cut(at(3)))
    residual = book.account("node", "residual")
    assert residual.values == {1 * SECOND: 0, 2 * SECOND: 0, 3 * SECOND: 90}
    assert (residual.gap_lower, residual.gap_upper) == (-40, 1_000_000_000 - 40)
    assert [gap.reason for gap in residual.details] == [pb.GAP_REASON_RESET]


def test_a_meter_that_is_gone_closes_its_residual() -> None:
    """Its parts are still booked as leaves."""
    under_test, book = meter(NODE, CPU_PART), Book()
    under_test.observe([counter(NODE, 0), counter(CPU_PART, 0)], at(1))
    under_test.observe([Gone(NODE.key, "unplugged"), counter(CPU_PART, 5)], at(2))
    under_test.observe([counter(CPU_PART, 9)], at(3))
    book.add(under_test.cut(at(3)))
    assert {channel.domain: channel.closed for channel in book.catalog.channels} == {
        "board": True,
        "package": False,
        "residual": True,
    }
    assert book.account("cpu/0").energy == 9


def test_a_hole_in_a_recording_gets_a_row_at_its_end() -> None:
    """What comes after the hole is not spread over it, and the opening lies where the recording begins."""
    under_test, book = meter(POWER, seconds=100), Book()
    under_test.observe([SpanReading(POWER.key, 0, 1_000_000)], at(100))
    under_test.observe([SpanReading(POWER.key, 300 * SECOND, 2_000_000)], at(400))
    book.add(under_test.cut(at(400)))
    account = book.account("gpu/1")
    assert account.values == {100 * SECOND: 100_000_000, 300 * SECOND: 100_000_000, 400 * SECOND: 300_000_000}
    [gap] = account.details
    assert gap.reason == pb.GAP_REASON_MISSING_IN_RECORDING
    assert (gap.from_boottime_nanoseconds, gap.to_boottime_nanoseconds) == (100 * SECOND, 300 * SECOND)
    assert book.catalog.channels[0].opening.clock.boottime_nanoseconds == 0


def test_recorded_meters_have_residuals_from_their_first_span_on() -> None:
    """Where meter and parts begin together, their first spans count."""
    node = spec("node", role=Role.METER, method=Method.INTEGRAL, source="replay", domain="board")
    part = spec("gpu/1", method=Method.INTEGRAL, source="replay", domain="board", parent=node.key)
    under_test, book = meter(node, part, seconds=10), Book()
    under_test.observe([SpanReading(node.key, 0, 9_000_000), SpanReading(part.key, 0, 4_000_000)], at(10))
    book.add(under_test.cut(at(10)))
    assert book.account("node", "residual").energy == 50_000_000
    assert book.account("node", "residual").gap_upper == 0


def test_a_reopened_recording_never_counts_a_span_twice() -> None:
    """A span may begin before the opening of its channel, but not before the end of the one before it."""
    under_test, book = meter(POWER, seconds=10), Book()
    under_test.observe([SpanReading(POWER.key, 0, 1_000_000)], at(10))
    under_test.observe([Gone(POWER.key, "closed")], at(11))
    under_test.offer([POWER], at(11))
    under_test.observe([SpanReading(POWER.key, 5 * SECOND, 1_000_000)], at(12))
    book.add(under_test.cut(at(12)))
    assert [book.accounts[number].energy for number in book.numbers("gpu/1")] == [10_000_000, 2_000_000]


def test_several_offers_add_up_before_the_first_row() -> None:
    """Sources open one after the other: half a topology must not close what the other half keeps."""
    modelled = spec("cpu/0", source="estimate", method=Method.MODEL)
    under_test = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS)
    for offered in (modelled, CPU, GPU):
        under_test.offer([offered], at(0))
    assert {(row.source, row.role, row.closed) for row in under_test.catalog().channels} == {
        ("estimate", pb.ROLE_SHOWN, False),
        ("rapl", pb.ROLE_LEAF, False),
        ("nvidia", pb.ROLE_LEAF, False),
    }


@pytest.mark.parametrize(
    "bad",
    [
        spec("", bound=1.0),
        spec("cpu/\n"),
        spec(bound=0.0),
        spec(bound=float("nan")),
        spec(bound=1e10),
        spec(wrap=0),
        spec(role=Role.RESIDUAL),
        spec(domain="residual"),
    ],
)
def test_a_spec_that_can_not_be_metered_is_refused_alone(bad: ChannelSpec) -> None:
    """One broken sensor costs the host no other, and the reason is told."""
    under_test = meter(bad, GPU)
    assert [row.device for row in under_test.catalog().channels] == ["gpu/0"]
    assert list(under_test.refused) == [bad.key]


def test_live_power_is_the_mean_since_the_value_before() -> None:
    """A gauge shows what was just measured; over a gap, or long after, nothing."""
    under_test = meter(NODE, CPU_PART, GPU_PART)
    under_test.observe([counter(NODE, 0), counter(CPU_PART, 0), counter(GPU_PART, 0)], at(1))
    assert under_test.live() == []
    under_test.observe([counter(NODE, 10**7), counter(CPU_PART, 10**7), counter(GPU_PART, 10**6)], at(3))
    powers = {(row.device, row.domain): row.power_milliwatts for row in under_test.live()}
    assert powers == {
        ("node", "board"): 5000,
        ("cpu/0", "package"): 5000,
        ("gpu/0", "board"): 500,
        ("node", "residual"): -500,
    }
    under_test.observe([counter(CPU_PART, 0)], at(4))
    assert ("cpu/0", "package") not in {(row.device, row.domain) for row in under_test.live()}
    under_test.observe([counter(CPU_PART, 10)], at(70))
    assert [(row.device, row.power_milliwatts) for row in under_test.live()] == [("cpu/0", 0)]


def test_utilization_is_a_mean_and_busy_time() -> None:
    """Busy time counts from the reading before, over all units; memory in use is no busy time."""
    under_test = meter(GPU)
    for second, ratio in ((1, 0.5), (3, 1.0), (100, 0.25)):
        under_test.observe(
            [
                UtilizationReading("cpu", UtilizationKind.BUSY, ratio, units=4),
                UtilizationReading("gpu/0", UtilizationKind.MEMORY, ratio),
                UtilizationReading("gpu/0", UtilizationKind.BUSY, 1.5),
            ],
            at(second),
        )
    cut = under_test.cut(at(100))
    assert cut is not None
    columns = {column.device: column for column in pb.Payload.FromString(cut.payload).utilizations}
    assert (columns["cpu"].mean_ppm, columns["cpu"].busy_nanoseconds) == (583_333, 2 * SECOND * 4)
    assert (columns["gpu/0"].kind, columns["gpu/0"].busy_nanoseconds) == (pb.UTILIZATION_KIND_MEMORY, 0)
    assert {row.device: row.ppm for row in under_test.live_utilizations()} == {"cpu": 250_000, "gpu/0": 250_000}
    assert under_test.unbelieved_readings == 3


def test_what_waits_for_a_cut_is_bounded_and_thinning_loses_no_energy() -> None:
    """Without cuts, only times are lost: each channel's last value stays."""
    specs = [spec(f"gpu/{index}") for index in range(1024)]
    under_test, book = meter(*specs), Book()
    rows = PENDING_VALUES_MAX // len(specs)
    under_test.observe([counter(specs[0], 0), counter(specs[1], 0)], at(0.5))
    for row in range(1, rows + 1):
        under_test.observe([counter(specs[1], row)], at(row))
    book.add(under_test.cut(at(rows)))
    assert under_test.thinned_rows == rows - 2
    assert book.account("gpu/0").values == {SECOND // 2: 0}
    assert book.account("gpu/1").values == {(rows - 1) * SECOND: rows - 1, rows * SECOND: rows}


def test_the_largest_record_fits_the_wire() -> None:
    """The most channels, values and details at once stay below a payload's mebibyte."""
    specs = [spec(f"gpu/GPU-00000000-0000-0000-0000-{index:012}", bound=1e9) for index in range(4096)]
    under_test = meter(*specs)
    raws = [2**60 * (row % 2) for row in range(16)]
    for row, raw in enumerate(raws):
        shares = [UtilizationReading(of.key.device, UtilizationKind.BUSY, 1.0, units=1000) for of in specs]
        under_test.observe([*(CounterReading(of.key, raw) for of in specs), *shares], at(1000 * row + 1))
    cut = under_test.cut(at(16_000))
    assert cut is not None
    assert cut.samples == 16
    assert len(pb.Payload.FromString(cut.payload).gap_details) == GAP_DETAILS_MAX
    assert len(cut.payload) < 1 << 20
    under_test.offer([spec("gpu/one-too-many")], at(16_001))
    assert len(under_test.catalog().channels) == 4096
    assert list(under_test.refused) == [ChannelKey("gpu/one-too-many", "package", "rapl")]


def test_a_boot_within_a_run_makes_no_payload_of_two_boots() -> None:
    """A simulated host may reboot under a running meter: the sums go on."""
    under_test, book = meter(GPU), Book()
    under_test.observe([counter(GPU, 0)], at(1))
    under_test.observe([counter(GPU, 50)], at(2))
    under_test.observe([counter(GPU, 0)], at(1, boot=OTHER_BOOT, realtime=3))
    book.add(under_test.cut(at(1, boot=OTHER_BOOT, realtime=3)))
    assert book.payloads[0].boot_id == OTHER_BOOT
    assert (book.account("gpu/0").energy, book.account("gpu/0").gap_upper) == (50, 100_000_000)
