"""AMD GPUs by the driver's files: boards counted once, accumulators believed only if they move, sleepers left asleep."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.agent.chips import Files, add_pci_device, chip, write
from tests.agent.gpu_machines import accumulate, let_gpus_work, tables
from tests.agent.machines import Machine, machine
from tests.agent.metering import Book, at

from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    CounterReading,
    Gauge,
    GaugeReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sources.amd_gpu import GAUGE_PERIOD_NANOSECONDS, TRIAL_SECONDS, AmdGpuSource
from wattledger_agent.sources.amd_smi import AmdSmi, load_amdsmi
from wattledger_agent.sources.sensor_files import GONE_READS

SECOND = 1_000_000_000
FIRST = "gpu/6f0a1c3e00001000"


def still(seconds: float) -> None:
    """No energy passes while the source waits."""


def source_of(
    host: Machine,
    files: Files | None = None,
    *,
    settle: Callable[[float], None] = still,
    smi: Callable[[], AmdSmi | None] = lambda: None,
) -> AmdGpuSource:
    """A source on this machine, not open."""
    files = files or Files()
    return AmdGpuSource(host.sys, smi=smi, opener=files.opener, pread=files.pread, settle=settle)


def working(host: Machine, files: Files | None = None, factor: float = 1.0) -> AmdGpuSource:
    """A source on a machine whose accumulators go on by `factor` times what power says."""
    return source_of(host, files, settle=lambda seconds: let_gpus_work(host, seconds, factor))


class FakeSmiError(Exception):
    """The library's own."""


class FakeSmi:
    """The maker's library. steps: by address, each GPU's accumulator; error: the call that fails."""

    AmdSmiException: type[Exception] = FakeSmiError

    def __init__(self, steps: dict[str, int], resolution: float = 15.259, error: str = "") -> None:
        self.steps = steps
        self.resolution = resolution
        self.error = error
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.error:
            raise FakeSmiError("not supported")

    def amdsmi_init(self) -> None:
        """Starts."""
        self._call("init")

    def amdsmi_shut_down(self) -> None:
        """Ends."""
        self._call("shut_down")

    def amdsmi_get_processor_handles(self) -> Sequence[str]:
        """Addresses stand for handles."""
        return list(self.steps)

    def amdsmi_get_gpu_device_bdf(self, handle: str) -> str:
        """As the library writes it."""
        return handle.upper()

    def amdsmi_get_energy_count(self, handle: str) -> dict[str, object]:
        """The accumulator."""
        self._call("energy")
        return {"energy_accumulator": self.steps[handle], "counter_resolution": self.resolution, "timestamp": 1}


def with_unknown_tables(host: Machine) -> dict[str, int]:
    """Give every GPU a table of a revision to come; returns the library's accumulators."""
    for table in tables(host):
        data = bytearray(table.read_bytes())
        data[3] = 99
        table.write_bytes(bytes(data))
    return {table.parent.name: 1_000_000_000 for table in tables(host)}


def of(readings: Sequence[Reading], device: str) -> list[Reading]:
    """The readings of a device."""
    return [r for r in readings if (r.key.device if hasattr(r, "key") else getattr(r, "device", "")) == device]


def test_an_accumulator_that_moves_as_power_does_is_the_counter(tmp_path: Path) -> None:
    """Its unit is 2^-16 J: after the trial, one second at 141 W adds 141 J, to the unit."""
    host = machine("mi300x", tmp_path)
    source = working(host)
    assert {spec.method for spec in source.open()} == {Method.COUNTER}
    before = of(source.read(1), FIRST)[0]
    let_gpus_work(host, 1.0)
    after = of(source.read(SECOND), FIRST)[0]
    assert isinstance(before, CounterReading)
    assert isinstance(after, CounterReading)
    assert after.counter_microjoules - before.counter_microjoules == pytest.approx(141_000_000, abs=16)
    assert after.generation == before.generation
    assert source.notes() == []


def test_an_accumulator_that_stands_still_is_not_believed(tmp_path: Path) -> None:
    """rocm_smi_lib's issue 180: it would book nothing while the GPU works."""
    source = source_of(machine("mi300x", tmp_path))
    specs = source.open()
    assert {spec.method for spec in specs} == {Method.INTEGRAL}
    assert f"that of {FIRST} went on by 0.0 J where power says {141 * TRIAL_SECONDS:.1f} J" in source.notes()[0]
    reading = of(source.read(1), FIRST)[0]
    assert reading == PowerReading(specs[0].key, 141_000_000)


@pytest.mark.parametrize("factor", [0.1, 15.259])
def test_an_accumulator_in_another_unit_is_not_believed(tmp_path: Path, factor: float) -> None:
    """amdsmi's issue 38: a wrong counter."""
    source = working(machine("mi300x", tmp_path), factor=factor)
    assert {spec.method for spec in source.open()} == {Method.INTEGRAL}


def test_one_doubtful_accumulator_leaves_the_others_their_counters(tmp_path: Path) -> None:
    """Each GPU stands alone."""
    host = machine("mi300x", tmp_path)
    stuck = tables(host)[2]

    def settle(seconds: float) -> None:
        kept = stuck.read_bytes()
        let_gpus_work(host, seconds)
        stuck.write_bytes(kept)

    methods = [spec.method for spec in source_of(host, settle=settle).open()]
    assert methods.count(Method.INTEGRAL) == 1
    assert methods[2] is Method.INTEGRAL


def test_an_accumulator_that_starts_anew_books_nothing_wrong(tmp_path: Path) -> None:
    """alumet books 1.8e19 mJ then, codecarbon a negative energy: here it is a gap, and the energy after it counts."""
    host = machine("mi300x", tmp_path)
    source = working(host)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(source.open(), at(0))
    for second in range(6):
        if second == 3:
            accumulate(tables(host)[0], -7_000_000_000_000 * 15.3)  # The GPU was reset: it is near 0 again.
        elif second:
            let_gpus_work(host, 1.0)
        meter.observe(source.read(second * SECOND), at(second))
    book = Book()
    book.add(meter.cut(at(5)))
    account = book.account(FIRST)
    assert account.energy == pytest.approx(4 * 141_000_000, abs=64)
    assert [detail.lower_microjoules for detail in account.details] == [0]


def test_a_board_of_two_dies_is_metered_once(tmp_path: Path) -> None:
    """One die reports for the board, the other 0 (rocm_smi_lib's issue 160): a channel of it would be 0 W for ever."""
    source = source_of(machine("mi250_dual_die", tmp_path))
    specs = source.open()
    assert [spec.key.device for spec in specs] == ["gpu/2b7d41c900000a00", "gpu/2b7d41c900000c02"]
    said = "\n".join(source.notes())
    assert "gpu/2b7d41c900000b01 reports no power: it is a second die; gpu/2b7d41c900000a00 reports for the board." in said
    assert "gpu/2b7d41c900000d03 reports no power: it is a second die; gpu/2b7d41c900000c02 reports for the board." in said


def test_both_dies_show_their_load(tmp_path: Path) -> None:
    """Work is by die, energy by board."""
    source = source_of(machine("mi250_dual_die", tmp_path))
    source.open()
    busy = {
        r.device: r.ratio for r in source.read(1) if isinstance(r, UtilizationReading) and r.kind is UtilizationKind.BUSY
    }
    assert busy["gpu/2b7d41c900000a00"] == 0.64
    assert busy["gpu/2b7d41c900000b01"] == 0.58


def test_a_second_dies_limit_of_0_is_not_shown(tmp_path: Path) -> None:
    """The board has one limit."""
    source = source_of(machine("mi250_dual_die", tmp_path))
    source.open()
    limits = [r for r in source.read(1) if isinstance(r, GaugeReading) and r.gauge is Gauge.POWER_LIMIT_WATTS]
    assert [(r.device, r.value) for r in limits] == [("gpu/2b7d41c900000a00", 560.0), ("gpu/2b7d41c900000c02", 560.0)]


def test_a_gpu_of_one_die_that_shows_0_is_not_taken_for_a_second_die(tmp_path: Path) -> None:
    """A controller that hangs at the start: its channel stays, as one that can't be read."""
    host = machine("mi300x", tmp_path)
    write(chip(host, "0000:22:00.0"), {"power1_input": 0})
    source = source_of(host)
    assert len(source.open()) == 8
    (reading,) = [r for r in source.read(1) if isinstance(r, TryAgain)]
    assert reading.key.device == "gpu/6f0a1c3e00002111"
    assert "0 W is what a board's second die shows, or a controller that hangs" in reading.reason
    write(chip(host, "0000:22:00.0"), {"power1_input": 144_000_000})
    assert PowerReading(reading.key, 144_000_000) in source.read(2)


def test_a_failing_read_at_the_start_is_no_proof_of_a_second_die(tmp_path: Path) -> None:
    """What can't be read now may be read later; 0 is another thing."""
    files = Files(failing={"0000:32:00.0": errno.EIO})
    assert len(source_of(machine("mi250_dual_die", tmp_path), files).open()) == 3


def test_a_sleeping_gpu_is_not_touched(tmp_path: Path) -> None:
    """Any read of the driver's files wakes it: only what sysfs says of its sleep is read."""
    host, files = machine("mi300x", tmp_path), Files()
    device = chip(host, "0000:0c:00.0").parent.parent
    write(device / "power", {"control": "auto", "runtime_status": "suspended"})
    source = source_of(host, files)
    specs = source.open()
    files.reads.clear()
    (asleep,) = of(source.read(1), FIRST)
    assert isinstance(asleep, TryAgain)
    assert "sleeps (runtime power management); left asleep" in asleep.reason
    assert files.reads["power1_input"] == files.reads["gpu_busy_percent"] == 7
    write(device / "power", {"runtime_status": "active"})
    assert of(source.read(2), FIRST)[0] == PowerReading(specs[0].key, 141_000_000)


def test_the_trial_does_not_wake_a_sleeping_gpu(tmp_path: Path) -> None:
    """Nor does the start of the agent."""
    host, files = machine("mi300x", tmp_path), Files()
    for table in tables(host):
        write(table.parent / "power", {"control": "auto", "runtime_status": "suspended"})
    assert len(source_of(host, files).open()) == 8
    assert set(files.reads) == {"runtime_status"}


def test_a_gpu_that_fails_is_alone_in_that_and_is_not_asked_more(tmp_path: Path) -> None:
    """Each further call of a GPU that does not answer takes its time to fail."""
    host, files = machine("mi300x", tmp_path), Files()
    source = source_of(host, files)
    source.open()
    files.failing["0000:0c:00.0"] = errno.EIO
    files.reads.clear()
    readings = source.read(1)
    assert [type(r) for r in of(readings, FIRST)] == [TryAgain]
    assert sum(isinstance(r, PowerReading) for r in readings) == 7
    assert files.reads["gpu_busy_percent"] == 7


def test_a_gpu_that_is_removed_is_gone_after_a_few_reads(tmp_path: Path) -> None:
    """A driver that is loaded anew takes its files away for a moment; a GPU off the bus its device."""
    host, files = machine("mi300x", tmp_path), Files()
    source = source_of(host, files)
    source.open()
    source.read(1)
    files.gone.add("0000:0c:00.0")
    device = chip(host, "0000:0c:00.0").parent.parent
    device.rename(device.with_name("removed"))
    outcomes = [of(source.read(tick), FIRST)[0] for tick in range(GONE_READS)]
    assert [type(outcome) for outcome in outcomes] == [TryAgain] * (GONE_READS - 1) + [Gone]
    assert of(source.read(9), FIRST) == []


def test_a_gpu_without_a_number_is_known_by_its_place(tmp_path: Path) -> None:
    """As on guests; and two of the same number would be one channel."""
    host = machine("mi300x", tmp_path)
    write(chip(host, "0000:0c:00.0"), {"unique_id": "0000000000000000"})
    write(chip(host, "0000:38:00.0"), {"unique_id": "6f0a1c3e00002111"})
    devices = [spec.key.device for spec in source_of(host).open()]
    assert devices[:3] == ["gpu/0000:0c:00.0", "gpu/6f0a1c3e00002111", "gpu/0000:38:00.0"]


def test_power_above_twice_the_limit_is_not_believed(tmp_path: Path) -> None:
    """The limit is the board's own, 750 W."""
    host = machine("mi300x", tmp_path)
    write(chip(host, "0000:0c:00.0"), {"power1_input": 1_600_000_000})
    source = source_of(host)
    assert source.open()[0].power_bound_watts == 1500
    assert isinstance(of(source.read(1), FIRST)[0], TryAgain)


def test_a_table_that_lost_its_accumulator_is_a_failed_read(tmp_path: Path) -> None:
    """All ones are a field that is not filled: not 2.8e14 J."""
    host = machine("mi300x", tmp_path)
    source = working(host)
    source.open()
    table = tables(host)[0]
    data = bytearray(table.read_bytes())
    data[24:32] = b"\xff" * 8
    table.write_bytes(bytes(data))
    reading = of(source.read(1), FIRST)[0]
    assert isinstance(reading, TryAgain)
    assert "no energy accumulator now" in reading.reason


def test_gauges_and_memory_are_shown(tmp_path: Path) -> None:
    """In the gauges' units; this model has no edge temperature, so that of the junction is shown."""
    source = source_of(machine("mi300x", tmp_path))
    source.open()
    first = of(source.read(1), FIRST)
    gauges = {r.gauge: r.value for r in first if isinstance(r, GaugeReading)}
    assert gauges == {
        Gauge.TEMPERATURE_CELSIUS: 41.0,
        Gauge.CLOCK_HERTZ: 132e6,
        Gauge.MEMORY_CLOCK_HERTZ: 900e6,
        Gauge.POWER_LIMIT_WATTS: 750.0,
    }
    (memory,) = [r.ratio for r in first if isinstance(r, UtilizationReading) and r.kind is UtilizationKind.MEMORY]
    assert memory == 297_123_840 / 206_141_652_992


def test_gauges_cost_a_read_only_each_few_seconds(tmp_path: Path) -> None:
    """Three system calls a GPU and second: energy, load, memory."""
    files = Files()
    source = source_of(machine("mi300x", tmp_path), files)
    source.open()
    counts = []
    for now in (0, SECOND, GAUGE_PERIOD_NANOSECONDS):
        files.reads.clear()
        source.read(now)
        counts.append(files.reads.total())
    assert counts == [8 * 7, 8 * 3, 8 * 7]


def test_a_value_that_is_no_share_is_left_out(tmp_path: Path) -> None:
    """A driver that answers 65535 percent, or more memory than there is."""
    host = machine("mi300x", tmp_path)
    write(chip(host, "0000:0c:00.0"), {"gpu_busy_percent": 65535, "mem_info_vram_used": 2**64 - 1})
    source = source_of(host)
    source.open()
    assert not any(isinstance(r, UtilizationReading) for r in of(source.read(1), FIRST))


def test_a_gpu_without_energy_and_power_is_told(tmp_path: Path) -> None:
    """Utilization alone is no reason to book a channel."""
    host = machine("mi300x", tmp_path)
    (chip(host, "0000:0c:00.0") / "power1_input").unlink()
    source = source_of(host)
    assert len(source.open()) == 7
    assert f"amd_gpu: {FIRST} has neither an energy accumulator nor power; it is not metered." in source.notes()


def test_the_library_counts_where_the_table_is_of_a_kind_to_come(tmp_path: Path) -> None:
    """In its own resolution, which is reckoned in whole numbers."""
    host = machine("mi300x", tmp_path)
    smi = FakeSmi(with_unknown_tables(host))

    def settle(seconds: float) -> None:
        for address in smi.steps:
            smi.steps[address] += round(150_000_000 * seconds / 15.259)

    source = source_of(host, settle=settle, smi=lambda: smi)
    assert {spec.method for spec in source.open()} == {Method.COUNTER}
    reading = of(source.read(1), FIRST)[0]
    assert isinstance(reading, CounterReading)
    assert reading.counter_microjoules == smi.steps["0000:0c:00.0"] * 15_259 // 1000
    source.close()
    assert smi.calls[-1] == "shut_down"


def test_the_library_is_not_loaded_where_the_table_says_all(tmp_path: Path) -> None:
    """It takes memory, and its calls may hang."""
    host = machine("mi300x", tmp_path)
    loaded: list[bool] = []
    source = source_of(host, smi=lambda: loaded.append(True))
    source.open()
    assert loaded == []


@pytest.mark.parametrize("error", ["init", "energy"])
def test_a_library_that_fails_leaves_power(tmp_path: Path, error: str) -> None:
    """As on a guest, where it says that it is not supported."""
    host = machine("mi300x", tmp_path)
    smi = FakeSmi(with_unknown_tables(host), error=error)
    source = source_of(host, smi=lambda: smi)
    assert {spec.method for spec in source.open()} == {Method.INTEGRAL}
    assert sum(isinstance(r, PowerReading) for r in source.read(1)) == 8
    told = "the library amdsmi is installed, but does not start (not supported); it is not used."
    assert (told in "\n".join(source.notes())) == (error == "init")
    source.close()


def test_a_library_that_fails_later_is_a_failed_read(tmp_path: Path) -> None:
    """The channel stays a counter: what it missed comes with the next value."""
    host = machine("mi300x", tmp_path)
    smi = FakeSmi(with_unknown_tables(host))

    def settle(seconds: float) -> None:
        for address in smi.steps:
            smi.steps[address] += round(150_000_000 * seconds / 15.259)

    source = source_of(host, settle=settle, smi=lambda: smi)
    source.open()
    smi.error = "energy"
    assert isinstance(of(source.read(1), FIRST)[0], TryAgain)
    smi.error = "shut_down"
    source.close()


def test_without_the_library_nothing_is_missing(tmp_path: Path) -> None:
    """It is no dependency of the agent."""
    assert load_amdsmi("amdsmi_not_installed") is None


def test_a_gpu_without_its_driver_is_told(tmp_path: Path) -> None:
    """Another sentence than for a host that has none: here something can be done."""
    host = machine("virtual_machine", tmp_path)
    with pytest.raises(SourceUnavailableError, match=r"no AMD GPU is on this host's PCI bus\."):
        source_of(host).open()
    add_pci_device(host, "0000:f1:00.0", "0x1002", "0x120000")
    add_pci_device(host, "0000:f1:00.1", "0x1002", "0x040300")  # Its sound.
    add_pci_device(host, "0000:f2:00.0", "0x1a03", "0x030000")  # The management controller's screen.
    with pytest.raises(SourceUnavailableError, match=r"sensors of the AMD GPU at 0000:f1:00\.0\. Load it: modprobe amdgpu"):
        source_of(host).open()


def test_a_gpu_that_a_guest_has_is_told_beside_the_others(tmp_path: Path) -> None:
    """Seven of eight are metered, and nobody should think that they are all."""
    host = machine("mi300x", tmp_path)
    add_pci_device(host, "0000:f1:00.0", "0x1002")
    source = source_of(host)
    assert len(source.open()) == 8
    assert len(list((host.sys / "bus/pci/devices").iterdir())) == 9
    assert "amd_gpu: no driver shows sensors of the AMD GPU at 0000:f1:00.0; it is not metered." in source.notes()
