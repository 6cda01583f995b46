"""The estimate: what it knows of a machine, what it says of itself, and power by load."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.agent.machines import FIXTURES
from tests.agent.metering import at

from wattledger_agent.config import NvidiaConfig, SourcesConfig
from wattledger_agent.cpus import CpuInfo, parse_cpuinfo
from wattledger_agent.curves import CurveModel, read_table, read_tdps, read_weights
from wattledger_agent.estimates import BAND_OUTSIDE, Estimate, estimate, own_curve
from wattledger_agent.inventory import Roots, close_all, find_sources
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelSpec,
    Component,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sources.cpu import CpuSource
from wattledger_agent.sources.estimate import EstimateSource, SharedLoad
from wattledger_protos.v1 import telemetry_pb2 as pb

EPYC = "AMD EPYC 7742 64-Core Processor"


class FakeLoad:
    """Returns the given busy shares one after the other; None: no CPU time has passed."""

    def __init__(self, *ratios: float | None) -> None:
        self._ratios = list(ratios)
        self.is_open = False

    def open(self) -> Sequence[ChannelSpec]:
        """Do nothing."""
        self.is_open = True
        return []

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return the next share, among what a source of utilization also says."""
        ratio = self._ratios.pop(0)
        others: list[Reading] = [
            UtilizationReading("cpu", UtilizationKind.STEAL, 0.5),
            UtilizationReading("memory", UtilizationKind.BUSY, 1.0),
        ]
        return others if ratio is None else [*others, UtilizationReading("cpu", UtilizationKind.BUSY, ratio)]

    def close(self) -> None:
        """Note it."""
        self.is_open = False


def procfs(root: Path, model_name: str = EPYC, *, chips: int = 2, cores: int = 64, flags: str = "fpu") -> Path:
    """Make the files of /proc that the source reads; two threads a core."""
    blocks = [
        f"processor\t: {number}\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 49\nmodel name\t: {model_name}\n"
        f"physical id\t: {number % chips}\ncpu cores\t: {cores}\nflags\t\t: {flags}\n"
        for number in range(2 * chips * cores)
    ]
    (root / "cpuinfo").write_text("\n".join(blocks))
    (root / "meminfo").write_text(f"MemTotal:       {256 * 1024 * 1024} kB\nMemAvailable:   1000 kB\n")
    (root / "stat").write_text("cpu  100 0 0 900 0 0 0 0 0 0\ncpu0 100 0 0 900 0 0 0 0 0 0\n")
    return root


def of(model_name: str, *, chips: int = 2, cores: int = 64, guest: bool = False) -> CpuInfo:
    """Return a machine."""
    return CpuInfo(model_name, None, chips, cores, 2 * cores, guest)


@pytest.fixture(scope="module")
def model() -> CurveModel:
    """Return the packaged model."""
    return CurveModel(read_table(), read_weights())


def test_one_modelled_channel_for_the_node(tmp_path: Path) -> None:
    """It is a leaf of component other and method model, with a band and a bound above its full power."""
    source = EstimateSource(procfs(tmp_path), load=FakeLoad())
    (spec,) = source.open()
    assert (spec.key.device, spec.key.domain, spec.key.source) == ("node", "estimate", "estimate")
    assert (spec.component, spec.method, spec.role) == (Component.OTHER, Method.MODEL, Role.LEAF)
    band = read_weights().bands["model"]
    assert (spec.uncertainty_lower_ratio, spec.uncertainty_upper_ratio) == (band.lower_ratio, band.upper_ratio)
    assert spec.model == EPYC
    assert 600 < spec.power_bound_watts < 1200


def test_power_follows_the_load(tmp_path: Path) -> None:
    """Two EPYC 7742 draw, idle and full, what lies within the results published of such servers."""
    source = EstimateSource(procfs(tmp_path), load=FakeLoad(0.0, 0.5, 1.0))
    source.open()
    powers = [item.power_microwatts / 1e6 for _ in range(3) for item in source.read(0) if isinstance(item, PowerReading)]
    assert 82 < powers[0] < 133
    assert 265 < powers[1] < 364
    assert 391 < powers[2] < 492


def test_without_a_load_there_is_no_power_and_later_the_last_one(tmp_path: Path) -> None:
    """An unknown load is not an idle one; between two kernel ticks it is what it was."""
    source = EstimateSource(procfs(tmp_path), load=FakeLoad(None, 0.5, None))
    source.open()
    first, second, third = source.read(0), source.read(1), source.read(2)
    assert isinstance(first[0], TryAgain)
    assert isinstance(second[0], PowerReading)
    assert third == second


def test_power_between_levels_lies_on_a_line() -> None:
    """Levels are met exactly, loads outside [0, 1] are taken as its ends, and levels need not be evenly apart."""
    curve = own_curve([(0.0, 100.0), (0.2, 160.0), (1.0, 200.0)], [])
    assert [curve.watts_at(load) for load in (0.0, 0.2, 1.0)] == [100.0, 160.0, 200.0]
    assert [curve.watts_at(load) for load in (0.1, 0.6)] == pytest.approx([130.0, 180.0])
    assert (curve.watts_at(-1.0), curve.watts_at(7.0)) == (100.0, 200.0)


def test_a_guests_share_is_by_the_threads_of_its_cpu_where_they_are_known(model: CurveModel) -> None:
    """A Platinum 8280 has 28 cores, whatever its family's middle; of a CPU without results the family is all there is."""
    known = estimate(of("Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz", cores=2, guest=True), 16.0, model, {})
    related = estimate(of("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", cores=2, guest=True), 16.0, model, {})
    unknown = estimate(of("QEMU Virtual CPU version 2.5+", cores=2, guest=True), 16.0, model, {})
    assert "4 of 112 threads, of a usual server with this CPU" in known.ground
    assert "of a usual Cascade Lake server" in related.ground
    assert "4 of 128 threads, of a usual server of unknown kind" in unknown.ground


def test_a_users_curve_counts_in_place_of_any_model(tmp_path: Path) -> None:
    """Its points are met, its band is the channel's, its method stays that of a model, and the notes say so."""
    source = EstimateSource(
        procfs(tmp_path), curve_watts=[(0.0, 90.0), (0.5, 210.0), (1.0, 330.0)], curve_band=[0.1, 0.2], load=FakeLoad(0.25)
    )
    (spec,) = source.open()
    assert source.read(0) == [PowerReading(spec.key, 150_000_000)]
    assert (spec.method, spec.uncertainty_lower_ratio, spec.uncertainty_upper_ratio) == (Method.MODEL, 0.1, 0.2)
    assert spec.power_bound_watts == pytest.approx(396.0)
    assert "it stands on the configured curve of 3 points; its band is configured too." in " ".join(source.notes())


def test_a_users_curve_without_a_band_has_a_wide_one(tmp_path: Path) -> None:
    """What nobody states is unknown, and unknown is not exact."""
    source = EstimateSource(procfs(tmp_path), curve_watts=[(0.0, 90.0), (1.0, 330.0)], load=FakeLoad())
    (spec,) = source.open()
    assert (spec.uncertainty_lower_ratio, spec.uncertainty_upper_ratio) == (
        BAND_OUTSIDE.lower_ratio, BAND_OUTSIDE.upper_ratio,
    )  # fmt: skip
    assert "its band is unknown and taken as wide" in " ".join(source.notes())


def test_stolen_time_is_not_the_guests_work(tmp_path: Path) -> None:
    """Half of the time ran, half was given to others: half a load, as if the guest had idled meanwhile."""
    root = procfs(tmp_path, chips=1, cores=2, flags="fpu hypervisor")
    source = EstimateSource(root)
    source.open()
    (root / "stat").write_text("cpu  200 0 0 900 0 0 0 100 0 0\ncpu0 200 0 0 900 0 0 0 100 0 0\n")
    stolen = source.read(0)
    source.close()
    told = EstimateSource(root, load=FakeLoad(0.5))
    told.open()
    assert stolen == told.read(0)


def test_the_load_of_another_source_is_taken_with_it(tmp_path: Path) -> None:
    """What the utilization source has just read is not read again; where it failed, there is no load and no power."""
    root = procfs(tmp_path)
    cpu = CpuSource(root)
    cpu.open()
    source = EstimateSource(root, load=SharedLoad(cpu))
    source.open()
    with pytest.raises(OSError, match="see the source `cpu`"):
        source.read(0)
    (root / "stat").write_text("cpu  150 0 0 950 0 0 0 0 0 0\ncpu0 150 0 0 950 0 0 0 0 0 0\n")
    cpu.read(1)
    (reading,) = source.read(1)
    assert isinstance(reading, PowerReading)
    (root / "stat").write_text("nonsense\n")
    with pytest.raises(OSError, match="not the CPUs' times"):
        cpu.read(2)
    with pytest.raises(OSError, match="see the source `cpu`"):
        source.read(2)
    source.close()
    assert cpu.latest is None
    cpu.close()


def test_beside_a_meter_it_says_that_nothing_of_it_is_booked(tmp_path: Path) -> None:
    """No remedy is told for what is no fault."""
    source = EstimateSource(procfs(tmp_path), beside_meter=True, load=FakeLoad())
    source.open()
    text = " ".join(source.notes())
    assert "none of the estimate is booked, and its bias is told" in text
    assert "intel_rapl_common" not in text


def test_a_guest_of_a_cloud_is_told_by_its_dmi_names(tmp_path: Path) -> None:
    """ARM has no flag for it; a cloud's bare metal is none."""
    root, dmi = tmp_path / "proc", tmp_path / "sys/class/dmi/id"
    root.mkdir()
    dmi.mkdir(parents=True)
    procfs(root)
    (root / "cpuinfo").write_text(arm(0x41, 0xD40, 4))
    (dmi / "sys_vendor").write_text("Amazon EC2\n")
    texts = []
    for product in ("c7g.xlarge", "c7g.metal"):
        (dmi / "product_name").write_text(f"{product}\n")
        source = EstimateSource(root, sysfs_root=tmp_path / "sys", load=FakeLoad())
        source.open()
        texts.append(" ".join(source.notes()))
    assert "this is a virtual machine" in texts[0]
    assert "this guest's share of a server with 4 cores of Neoverse-V1 (Graviton 3)" in texts[0]
    assert "a machine with 4 cores of Neoverse-V1" in texts[1]
    assert "virtual machine" not in texts[1]


def arm(implementer: int, part: int, cores: int) -> str:
    """Return /proc/cpuinfo of an ARM machine."""
    return "\n".join(
        f"processor\t: {number}\nBogoMIPS\t: 50\nCPU implementer\t: {implementer:#04x}\nCPU part\t: {part:#05x}\n"
        for number in range(cores)
    )


def watts_of_arm(model: CurveModel, implementer: int, part: int, cores: int) -> Estimate:
    """Return the estimate of an ARM machine."""
    return estimate(parse_cpuinfo(arm(implementer, part, cores)), 8.0, model, {})


def test_an_arm_server_is_known_by_its_part_numbers(model: CurveModel) -> None:
    """An Ampere Altra of 80 cores is one of its class; the band stays wide, and the ground says that it is a guess."""
    found = watts_of_arm(model, 0x41, 0xD0C, 80)
    assert "80 cores of Neoverse-N1 (Ampere Altra, Graviton 2)" in found.ground
    assert "a guess" in found.ground
    assert found.band == BAND_OUTSIDE
    # A Mt. Jade class server of one such chip: 210 W of design power, and what is around it.
    assert 50 < found.watts[0] < 120
    assert 180 < found.watts[-1] < 350


def test_an_unknown_arm_core_is_named_by_its_numbers(model: CurveModel) -> None:
    """No name is made up for a design that is not in the list, and the band is wide."""
    found = watts_of_arm(model, 0x70, 0x663, 64)
    assert "64 cores of ARM implementer 0x70 part 0x663" in found.ground
    assert found.band == BAND_OUTSIDE


def test_a_small_board_is_not_taken_for_a_server(model: CurveModel) -> None:
    """A Raspberry Pi 4 draws 2.7 W idle and 6.4 W busy by its maker: within half of it, and within the band.

    Agents that take its cores for a server's are told of at three times what a meter says.
    """
    found = watts_of_arm(model, 0x41, 0xD08, 4)
    for ours, theirs in ((found.watts[0], 2.7), (found.watts[-1], 6.4)):
        assert abs(ours / theirs - 1) < 0.5
        assert ours * (1 - found.band.lower_ratio) < theirs < ours * (1 + found.band.upper_ratio)


def test_an_estimate_never_passes_for_a_measurement(tmp_path: Path) -> None:
    """On an Ampere server without a sensor the figures are the estimate's by source, domain and method, up to the wire.

    Agents are known that publish such figures under the name of the sensor that is missing.
    """
    machine = FIXTURES / "ampere_altra"
    roots = Roots(tmp_path, machine / "proc")
    inventory = find_sources(SourcesConfig(nvidia=NvidiaConfig(enabled=False)), roots)
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer(inventory.specs, at(0))
    close_all(inventory)
    (channel,) = meter.catalog().channels
    assert (channel.source, channel.domain) == ("estimate", "estimate")
    assert channel.method == pb.METHOD_MODEL
    assert (channel.uncertainty_lower_ratio, channel.uncertainty_upper_ratio) == (0.7, 2.0)


def test_no_load_is_no_figure_and_never_a_zero(tmp_path: Path) -> None:
    """Until a load was seen there is no value at all: neither a row nor a live power, and the reason is told."""
    source = EstimateSource(procfs(tmp_path), load=FakeLoad(None, None))
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer(source.open(), at(0))
    for second in (1, 2):
        readings = source.read(second)
        assert all(isinstance(reading, TryAgain) for reading in readings)
        meter.observe(readings, at(second))
    assert meter.failed_reads == 2
    assert meter.live() == []
    assert meter.cut(at(3)) is None


def test_the_load_is_that_of_proc_stat(tmp_path: Path) -> None:
    """The busy share between two reads of the real format decides; waiting for a disk is idling."""
    root = procfs(tmp_path)
    source = EstimateSource(root)
    source.open()
    (root / "stat").write_text("cpu  150 0 0 925 25 0 0 0 0 0\ncpu0 150 0 0 925 25 0 0 0 0 0\n")
    half = source.read(0)
    source.close()
    told = EstimateSource(root, load=FakeLoad(0.5))
    told.open()
    assert half == told.read(0)


def test_the_load_reader_is_closed(tmp_path: Path) -> None:
    """Closing the source lets go of what it opened."""
    load = FakeLoad()
    source = EstimateSource(procfs(tmp_path), load=load)
    source.open()
    assert load.is_open
    source.close()
    assert not load.is_open


def test_a_configured_cpu_model_counts_in_place_of_the_one_found(tmp_path: Path) -> None:
    """The curve is the named CPU's."""
    specs = [
        EstimateSource(procfs(tmp_path), cpu_model=name, load=FakeLoad()).open()[0]
        for name in ("", "Intel(R) Xeon(R) Gold 6330")
    ]
    assert specs[0].power_bound_watts != specs[1].power_bound_watts
    assert specs[1].model == "Intel(R) Xeon(R) Gold 6330"


def test_it_says_on_what_it_stands_and_how_to_measure(tmp_path: Path) -> None:
    """The notes name the CPU, the ground, the band, what is left out, and the remedy."""
    source = EstimateSource(procfs(tmp_path), load=FakeLoad())
    source.open()
    text = " ".join(source.notes())
    assert "modelled from AMD EPYC 7742 64-Core Processor and its load, not measured" in text
    assert "11 published results of servers with this CPU" in text
    assert "-27% to +48%" in text
    assert "GPUs are not in it" in text
    assert "for measured figures load the kernel module intel_rapl_common" in text


def test_a_guest_gets_its_share_and_says_so(tmp_path: Path) -> None:
    """A guest with 4 of a usual Rome server's 256 threads is estimated at its share, and told to look at the host."""
    source = EstimateSource(procfs(tmp_path, chips=1, cores=2, flags="fpu hypervisor"), load=FakeLoad(1.0))
    (spec,) = source.open()
    (reading,) = source.read(0)
    assert isinstance(reading, PowerReading)
    assert 4 < reading.power_microwatts / 1e6 < 12
    assert (spec.uncertainty_lower_ratio, spec.uncertainty_upper_ratio) == (0.704, 0.705)
    text = " ".join(source.notes())
    assert "this guest's share, 4 of 256 threads, of a usual server with this CPU" in text
    assert "this is a virtual machine" in text
    assert "run the agent on the host" in text


@pytest.mark.parametrize(
    ("info", "band", "words"),
    [
        (of(EPYC, cores=128), "model", "published results of servers with this CPU"),
        (of("Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz", cores=40), "family", "servers with Cascade Lake CPUs"),
        (of("Intel(R) Xeon(R) Platinum 8480+", cores=112), "server", "older or other CPUs"),
        (of("Intel(R) Xeon(R) D-2796TE", chips=1, cores=20), "server", "older or other CPUs"),
        (of("QEMU Virtual CPU version 2.5+", cores=2, guest=True), "guest", "usual server of unknown kind"),
    ],
)
def test_the_band_follows_from_what_is_known(model: CurveModel, info: CpuInfo, band: str, words: str) -> None:
    """A model with curves, a family with curves, a server at large, and a guest of whatever."""
    found = estimate(info, 256.0, model, read_tdps())
    assert found.band == model.band(band)
    assert words in found.ground


@pytest.mark.parametrize(
    ("info", "words", "low", "high"),
    [
        (of("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", chips=1, cores=4), "a laptop", 2.0, 140.0),
        (of("AMD Ryzen 9 5950X 16-Core Processor", chips=1, cores=16), "a personal computer", 10.0, 450.0),
        (of("", chips=1, cores=4), "a machine with 4 cores of an unknown kind", 1.0, 50.0),
    ],
)
def test_outside_server_families_the_range_is_wide_and_said(
    model: CurveModel, info: CpuInfo, words: str, low: float, high: float
) -> None:
    """The band is judged, from less than a third to three times, and the ground says that it is a guess."""
    found = estimate(info, 16.0, model, {})
    assert found.band == BAND_OUTSIDE
    assert words in found.ground
    assert "a guess" in found.ground
    assert low < found.watts[0] < found.watts[-1] < high
    assert list(found.watts) == sorted(found.watts)


@pytest.mark.parametrize("name", ["cpuinfo", "meminfo"])
@pytest.mark.parametrize("content", [None, "", "nonsense\n"])
def test_an_unusable_procfs_is_one_sentence_with_its_remedy(tmp_path: Path, name: str, content: str | None) -> None:
    """The file is named, and what to do."""
    path = procfs(tmp_path) / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(SourceUnavailableError, match=f"{name} can't be used") as caught:
        EstimateSource(tmp_path, load=FakeLoad()).open()
    assert "--procfs-root" in caught.value.remedy
