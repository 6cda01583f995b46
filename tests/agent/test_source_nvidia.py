"""GPUs by a fake NVML: which channel, which readings, and what every failure becomes."""

import importlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.agent.fake_nvml import (
    GPU_IS_LOST,
    LIBRARY_NOT_FOUND,
    NOT_SUPPORTED,
    PATIENCE_SECONDS,
    UNKNOWN,
    FakeGpu,
    FakeNvml,
    eight_gpus,
)
from tests.agent.metering import Book, at

from wattledger_agent.meter import Meter
from wattledger_agent.readers import Readers
from wattledger_agent.readings import (
    ChannelKey,
    CounterReading,
    Gauge,
    GaugeReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sampler import OpenSource
from wattledger_agent.sources.nvidia import LOST_READS_MAX, NvidiaSource
from wattledger_agent.sources.nvidia_gpu import POWER_BOUND_WATTS_DEFAULT
from wattledger_agent.sources.nvml_recorded import RecordedNvml
from wattledger_agent.worker import InlineReader

NO_SYSFS = Path("/nonexistent")
SECOND = 1_000_000_000
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


def source_of(nvml: FakeNvml, sysfs_root: Path = NO_SYSFS) -> NvidiaSource:
    """A source on this fake, without the running host's sysfs."""
    return NvidiaSource(sysfs_root, patience_seconds=PATIENCE_SECONDS, nvml=nvml)


def key_of(uuid: str) -> ChannelKey:
    """The channel of a GPU."""
    return ChannelKey(f"gpu/{uuid}", "board", "nvidia")


def test_eight_gpus_are_eight_counters_keyed_by_uuid() -> None:
    """Each GPU is one leaf, its counter in microjoules, and its utilization comes with it."""
    nvml = eight_gpus()
    source = source_of(nvml)
    specs = source.open()
    assert len(specs) == 8
    assert {spec.role for spec in specs} == {Role.LEAF}
    assert {spec.method for spec in specs} == {Method.COUNTER}
    assert {spec.power_bound_watts for spec in specs} == {1400.0}
    assert all(spec.counter_range_microjoules is None for spec in specs)
    readings = source.read(1)
    counters = {reading.key: reading for reading in readings if isinstance(reading, CounterReading)}
    assert counters[key_of("GPU-00000002-fake")].counter_microjoules == 3 * 10**9 * 1000
    assert UtilizationReading("gpu/GPU-00000002-fake", UtilizationKind.BUSY, 0.6) in readings
    assert UtilizationReading("gpu/GPU-00000002-fake", UtilizationKind.MEMORY, 0.25) in readings
    source.close()
    assert nvml.calls["nvmlShutdown"] == 1


def test_a_read_makes_three_calls_for_each_gpu() -> None:
    """The cost of a tick is counted: energy, utilization and memory; gauges come later, and not for all GPUs at once."""
    nvml = eight_gpus()
    source = source_of(nvml)
    source.open()
    source.read(1)
    calls = []
    for tick in range(1, 21):
        before = sum(nvml.calls.values())
        source.read(1 + tick * SECOND)
        calls.append(sum(nvml.calls.values()) - before)
    # Of eight GPUs at most two have their gauges in one second: temperature, two clocks, limit, reasons, processes, power,
    # and whether they are cut by MIG.
    assert (min(calls), max(calls)) == (24 + 8, 24 + 2 * 8)
    assert sum(calls) == 20 * 24 + 4 * 8 * 8


def test_power_is_read_where_there_is_no_energy_counter() -> None:
    """A GPU before Volta gives its power in microwatts, for the meter to integrate."""
    source = source_of(FakeNvml([FakeGpu("GPU-a", energy_millijoules=None)]))
    (spec,) = source.open()
    assert spec.method is Method.INTEGRAL
    assert source.read(1)[0] == PowerReading(key_of("GPU-a"), 350_000_000)


def test_a_passing_error_at_the_start_does_not_change_the_method() -> None:
    """Only 'not supported' means that there is no counter; anything else is tried again."""
    nvml = FakeNvml([FakeGpu("GPU-a")], fail={ENERGY: lambda number: UNKNOWN if number == 1 else 0})
    source = source_of(nvml)
    assert source.open()[0].method is Method.COUNTER


def test_a_gpu_without_any_energy_is_noted_and_has_no_channel() -> None:
    """What can't be metered is not zero: it has no channel, and its utilization is still shown."""
    source = source_of(FakeNvml([FakeGpu("GPU-a", energy_millijoules=None, power_milliwatts=None)]))
    assert source.open() == []
    assert "neither an energy counter nor a power sensor" in source.notes()[0]
    assert {type(reading) for reading in source.read(1)} == {UtilizationReading, GaugeReading}


def test_a_gpu_cut_by_mig_is_metered_once_and_unsupported_fields_are_asked_once() -> None:
    """MIG leaves one channel; its busy share is unsupported, which is remembered."""
    nvml = FakeNvml([FakeGpu("GPU-a", mig=True, busy_percent=None)])
    source = source_of(nvml)
    assert len(source.open()) == 1
    for now in range(1, 4):
        readings = [reading for reading in source.read(now) if not isinstance(reading, GaugeReading)]
        assert [type(reading) for reading in readings] == [CounterReading, UtilizationReading]
    assert nvml.calls["nvmlDeviceGetUtilizationRates"] == 1
    assert any("MIG" in note for note in source.notes())
    assert any("no busy utilization" in note for note in source.notes())


def test_a_failed_read_is_a_try_again_and_does_not_touch_the_other_gpus() -> None:
    """The second energy read of the third tick fails: one GPU tries again, the other is read."""
    nvml = FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b")], fail={ENERGY: lambda number: UNKNOWN if number == 4 else 0})
    source = source_of(nvml)
    source.open()
    readings = source.read(1)
    assert isinstance(readings[0], CounterReading)
    (failure,) = (reading for reading in readings if isinstance(reading, TryAgain))
    assert failure.key == key_of("GPU-b")
    assert "nvidia-smi" in failure.reason
    assert not any(isinstance(reading, UtilizationReading) and reading.device == "gpu/GPU-b" for reading in readings)
    later = [reading for reading in source.read(2) if isinstance(reading, CounterReading)]
    assert [reading.key for reading in later] == [key_of("GPU-a"), key_of("GPU-b")]


def test_a_lost_gpu_tries_again_then_is_gone_and_is_left_alone() -> None:
    """NVML says 'lost' a few times before the channel is closed; after that no call is made of it."""
    nvml = FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b")])
    source = source_of(nvml)
    source.open()
    nvml.gpus[0].lost = True
    outcomes = [type(source.read(now)[0]) for now in range(1, LOST_READS_MAX + 1)]
    assert outcomes == [TryAgain] * (LOST_READS_MAX - 1) + [Gone]
    calls = nvml.calls[ENERGY]
    assert all(not isinstance(reading, TryAgain | Gone) for reading in source.read(9))
    assert nvml.calls[ENERGY] == calls + 1


def test_a_gpu_that_comes_back_in_time_is_not_gone() -> None:
    """Lost reads are counted in a row."""
    nvml = FakeNvml([FakeGpu("GPU-a")])
    source = source_of(nvml)
    source.open()
    outcomes = []
    for lost in (True, True, False, True, True):
        nvml.gpus[0].lost = lost
        outcomes.append(type(source.read(1)[0]))
    assert outcomes == [TryAgain, TryAgain, CounterReading, TryAgain, TryAgain]


def test_the_generation_changes_with_the_load_of_the_driver(tmp_path: Path) -> None:
    """A driver that was loaded anew has another folder in sysfs; the same one keeps its generation over agent starts."""
    module = tmp_path / "module" / "nvidia"
    module.mkdir(parents=True)

    def generation(now: int, persistent: bool = True) -> int:
        source = source_of(FakeNvml([FakeGpu("GPU-a", persistent=persistent)]), tmp_path)
        source.open()
        reading = source.read(now)[0]
        assert isinstance(reading, CounterReading)
        return reading.generation

    first = generation(1)
    assert first == generation(2) == module.stat().st_ino
    # Without persistence mode the counter may have started anew while no agent ran.
    assert generation(1, persistent=False) != generation(2, persistent=False)
    module.rename(tmp_path / "old")
    module.mkdir()
    assert generation(1) != first


def test_a_generation_holds_for_the_whole_run() -> None:
    """Also without persistence mode all reads of one run have one generation: the agent holds the driver."""
    source = source_of(FakeNvml([FakeGpu("GPU-a", persistent=False)]))
    source.open()
    generations = {
        reading.generation for now in (5, 6, 7) for reading in source.read(now) if isinstance(reading, CounterReading)
    }
    assert generations == {5}


def test_a_sleeping_gpu_is_not_woken(tmp_path: Path) -> None:
    """While sysfs says suspended no call is made of NVML; awake again, the counter is read."""
    power = tmp_path / "bus/pci/devices/0000:3b:00.0/power"
    power.mkdir(parents=True)
    (power / "control").write_text("auto\n")
    (power / "runtime_status").write_text("suspended\n")
    nvml = FakeNvml([FakeGpu("GPU-a")])
    source = source_of(nvml, tmp_path)
    source.open()
    before = dict(nvml.calls)
    (reading,) = source.read(1)
    assert isinstance(reading, TryAgain)
    assert "sleeps" in reading.reason
    assert nvml.calls == before
    (power / "runtime_status").write_text("active\n")
    assert isinstance(source.read(2)[0], CounterReading)
    source.close()


def test_runtime_power_management_that_is_off_costs_no_system_call(tmp_path: Path) -> None:
    """On servers power/control is `on`: the GPU never sleeps, and its status is not read."""
    power = tmp_path / "bus/pci/devices/0000:3b:00.0/power"
    power.mkdir(parents=True)
    (power / "control").write_text("on\n")
    (power / "runtime_status").write_text("active\n")
    preads: list[int] = []

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        preads.append(descriptor)
        return os.pread(descriptor, count, offset)

    source = NvidiaSource(tmp_path, patience_seconds=PATIENCE_SECONDS, nvml=FakeNvml([FakeGpu("GPU-a")]), pread=pread)
    source.open()
    source.read(1)
    assert preads == []


def test_names_may_be_bytes_and_limits_unknown() -> None:
    """Older modules return bytes; a GPU without a limit has the largest bound."""
    source = source_of(FakeNvml([FakeGpu(b"GPU-a", name=b"NVIDIA GH200 480GB", limit_milliwatts=None)]))
    spec = source.open()[0]
    assert spec.key == key_of("GPU-a")
    assert spec.model == "NVIDIA GH200 480GB"
    assert spec.power_bound_watts == POWER_BOUND_WATTS_DEFAULT
    assert any("Grace" in note for note in source.notes())


def test_one_gpu_that_cannot_be_opened_leaves_the_others() -> None:
    """A GPU that is lost at the start is noted by its number."""
    nvml = FakeNvml([FakeGpu("GPU-a", lost=True), FakeGpu("GPU-b")])
    source = source_of(nvml)
    assert [spec.key for spec in source.open()] == [key_of("GPU-b")]
    assert "GPU number 0" in source.notes()[0]


@pytest.mark.parametrize(
    ("nvml", "remedy"),
    [
        (FakeNvml([], fail={"nvmlInit": lambda number: LIBRARY_NOT_FOUND}), "install its driver"),
        (FakeNvml([], fail={"nvmlInit": lambda number: 9}), "modprobe nvidia"),
        (FakeNvml([], fail={"nvmlInit": lambda number: 18}), "boot the host anew"),
        (FakeNvml([], fail={"nvmlInit": lambda number: 4}), "/dev/nvidiactl"),
        (FakeNvml([]), "nvidia-smi"),
        (FakeNvml([FakeGpu("GPU-a")], fail={"nvmlDeviceGetCount": lambda number: UNKNOWN}), "nvidia-smi"),
        (FakeNvml([FakeGpu("GPU-a", lost=True)]), "nvidia-smi"),
    ],
)
def test_an_unavailable_nvml_says_what_to_do(nvml: FakeNvml, remedy: str) -> None:
    """Each way not to have NVML has its own remedy, and nothing stays open."""
    source = source_of(nvml)
    with pytest.raises(SourceUnavailableError) as caught:
        source.open()
    assert remedy in caught.value.remedy
    assert nvml.calls.get("nvmlShutdown", 0) == (0 if "nvmlInit" in nvml.fail else 1)


def test_the_real_module_has_what_the_source_calls() -> None:
    """Every call of the protocol exists in pynvml, and its errors have the values that the source knows."""
    pynvml = importlib.import_module("pynvml")
    calls = [name for name in vars(RecordedNvml) if name.startswith("nvml")]
    assert len(calls) == 37
    assert all(callable(getattr(pynvml, name)) for name in calls)
    assert pynvml.NVML_ERROR_NOT_SUPPORTED == NOT_SUPPORTED
    assert pynvml.NVML_ERROR_GPU_IS_LOST == GPU_IS_LOST
    assert pynvml.NVMLError(LIBRARY_NOT_FOUND).value == LIBRARY_NOT_FOUND


def test_a_counter_that_fell_is_a_reset_and_loses_no_more_than_its_gap() -> None:
    """After a reset of the GPU it counts from 0: what it shows then is booked, nothing of 2^64, and the rest is a gap."""
    nvml = FakeNvml([FakeGpu("GPU-a", energy_millijoules=9_000_000)])
    source = source_of(nvml)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(source.open(), at(0))
    for second, millijoules in ((1, 9_000_000), (2, 9_350_000), (3, 120_000), (4, 470_000)):
        nvml.gpus[0].energy_millijoules = millijoules
        meter.observe(source.read(second * SECOND), at(second))
    book = Book()
    book.add(meter.cut(at(5)))
    (account,) = book.accounts.values()
    truth_millijoules = 350_000 + 700_000 + 350_000
    assert account.energy in (700_000_000, 820_000_000)
    assert account.gap_lower <= truth_millijoules * 1000 - account.energy <= account.gap_upper
    assert account.gap_upper <= 1_400 * 1_000_000


def test_a_gpu_without_counter_is_not_metered_as_nothing() -> None:
    """Its power is integrated: ten seconds at 350 W are 3500 J."""
    source = source_of(FakeNvml([FakeGpu("GPU-a", energy_millijoules=None)]))
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(source.open(), at(0))
    for second in range(1, 12):
        meter.observe(source.read(second * SECOND), at(second))
    book = Book()
    book.add(meter.cut(at(12)))
    assert [account.energy for account in book.accounts.values()] == [3_500_000_000]


def test_zero_watts_are_no_power() -> None:
    """A GPU that answers draws something: 0 W is tried again, never integrated."""
    nvml = FakeNvml([FakeGpu("GPU-a", energy_millijoules=None)])
    source = source_of(nvml)
    source.open()
    nvml.gpus[0].power_milliwatts = 0
    reading = source.read(1)[0]
    assert isinstance(reading, TryAgain)
    assert "0 W" in reading.reason


def test_a_register_without_a_value_is_no_power_and_no_energy() -> None:
    """0xFFFFFFFF mW and counters beyond 2^63 are refused; at the start such a field is one that the board does not have."""
    nvml = FakeNvml([FakeGpu("GPU-a", energy_millijoules=None, fields={"185/2": 0xFFFF_FFFF}), FakeGpu("GPU-b")])
    source = source_of(nvml)
    assert len(source.open()) == 2
    nvml.gpus[0].power_milliwatts = 0xFFFF_FFFF
    nvml.gpus[1].energy_millijoules = 2**64 - 1
    refused = [reading for reading in source.read(1) if isinstance(reading, TryAgain)]
    assert [reading.key for reading in refused] == [key_of("GPU-a"), key_of("GPU-b")]


def test_fields_that_fail_leave_the_counter_alone() -> None:
    """Memory power tries again; the GPU's energy was read before."""
    nvml = FakeNvml([FakeGpu("GPU-a", fields={"185/2": 33_000})])
    source = source_of(nvml)
    leaf, memory = source.open()
    nvml.fail["nvmlDeviceGetFieldValues"] = lambda number: UNKNOWN if number == 2 else 0
    first = [reading for reading in source.read(1) if not isinstance(reading, UtilizationReading | GaugeReading)]
    assert [type(reading) for reading in first] == [CounterReading, TryAgain]
    assert source.read(2)[1] == PowerReading(memory.key, 33_000_000)
    assert leaf.key == key_of("GPU-a")
    assert memory.role is Role.SHOWN
    assert memory.parent == leaf.key


def test_a_field_that_fails_in_passing_at_the_start_is_asked_again() -> None:
    """A board is not taken for one without memory power because one call failed; one that keeps failing is noted."""
    nvml = FakeNvml([FakeGpu("GPU-a", fields={"185/2": 33_000})])
    nvml.fail["nvmlDeviceGetFieldValues"] = lambda number: UNKNOWN if number == 1 else 0
    assert len(source_of(nvml).open()) == 2
    nvml.gpus[0].fields["185/1"] = {"error": UNKNOWN}
    source = source_of(nvml)
    assert len(source.open()) == 2
    assert any("185/1" in note for note in source.notes())


def test_unsupported_fields_are_never_asked_again() -> None:
    """An H100 has no module; after the start only its memory is asked for, and its powers with the gauges."""
    nvml = FakeNvml([FakeGpu("GPU-a", fields={"185/0": 68_570, "186/0": 68_920, "185/2": 32_980})])
    source = source_of(nvml)
    source.open()
    nvml.asked.clear()
    source.read(SECOND)
    source.read(2 * SECOND)
    assert nvml.asked == [[(185, 2), (185, 0), (186, 0)], [(185, 2)]]


class HangingNvml(FakeNvml):
    """A driver that does not return from a call for one GPU until it is let go."""

    def __init__(self, gpus: list[FakeGpu], uuid: str) -> None:
        super().__init__(gpus)
        self.hanging_uuid = uuid
        self.hangs = False
        self.released = threading.Event()

    def _answer(self, handle: Any, call: str, argument: str | None = None, *, whole: bool = False) -> Any:
        if self.hangs and handle is not None and handle.uuid == self.hanging_uuid:
            self.released.wait()
        return super()._answer(handle, call, argument, whole=whole)


def test_a_gpu_in_a_hung_driver_costs_its_own_channel_alone() -> None:
    """The others are read in the same sample; let go, it is read again, and its counter has lost nothing."""
    nvml = HangingNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b"), FakeGpu("GPU-c")], "GPU-b")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.25)
    source.open()
    source.read(SECOND)
    nvml.hangs = True
    for second in (2, 3):
        nvml.advance(1.0)
        readings = source.read(second * SECOND)
        counters = [reading.key for reading in readings if isinstance(reading, CounterReading)]
        assert counters == [key_of("GPU-a"), key_of("GPU-c")]
        (failure,) = [reading for reading in readings if isinstance(reading, TryAgain)]
        assert failure.key == key_of("GPU-b")
        assert "dmesg" in failure.reason
    nvml.hangs = False
    nvml.released.set()
    seen: list[CounterReading] = []
    for second in range(4, 2000):
        seen = [one for one in source.read(second * SECOND) if isinstance(one, CounterReading)]
        if len(seen) == 3:
            break
        threading.Event().wait(0.005)
    assert {one.counter_microjoules for one in seen} == {10**12 + 700_000_000}
    source.close()
    assert nvml.calls["nvmlShutdown"] == 1


def test_nvml_is_not_shut_down_under_a_call_that_hangs() -> None:
    """That would hang too: the process ends without it."""
    nvml = HangingNvml([FakeGpu("GPU-a")], "GPU-a")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.25)
    source.open()
    nvml.hangs = True
    source.read(SECOND)
    source.close()
    assert "nvmlShutdown" not in nvml.calls
    nvml.released.set()


class OldModule:
    """A module like pynvml of years ago: without the present name for reasons of throttling."""

    def __init__(self, nvml: FakeNvml) -> None:
        self._nvml = nvml

    def __getattr__(self, name: str) -> Any:
        if name == "nvmlDeviceGetCurrentClocksEventReasons":
            raise AttributeError(name)
        return getattr(self._nvml, name)


def test_a_function_that_an_older_module_lacks_is_one_that_is_not_supported() -> None:
    """The GPU is metered, and its other gauges are shown."""
    old: Any = OldModule(FakeNvml([FakeGpu("GPU-a")]))
    source = NvidiaSource(NO_SYSFS, patience_seconds=PATIENCE_SECONDS, nvml=old)
    source.open()
    readings = source.read(SECOND)
    assert isinstance(readings[0], CounterReading)
    shown = {reading.gauge for reading in readings if isinstance(reading, GaugeReading)}
    assert Gauge.TEMPERATURE_CELSIUS in shown
    assert Gauge.THROTTLE_REASONS_MASK not in shown


def test_the_sibling_reports_a_module_while_one_gpu_hangs() -> None:
    """Both are on one board; the module goes on, and is told of once when the one that hung answers late."""
    fields = {"185/0": 166_000, "185/1": 467_000}
    serial = {"nvmlDeviceGetSerial": "1650000000001"}
    gpus = [FakeGpu(name, name="NVIDIA GB200", fields=dict(fields), more=serial) for name in ("GPU-a", "GPU-b")]
    nvml = HangingNvml(gpus, "GPU-a")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.25)
    module = ChannelKey("module/1650000000001", "module", "nvidia")
    assert module in {spec.key for spec in source.open()}
    source.read(SECOND)
    nvml.hangs = True
    source.read(2 * SECOND)
    assert PowerReading(module, 467_000_000) in source.read(3 * SECOND)
    nvml.hangs = False
    nvml.released.set()
    for second in range(4, 2000):
        readings = source.read(second * SECOND)
        assert [one for one in readings if isinstance(one, PowerReading) and one.key == module] == [
            PowerReading(module, 467_000_000)
        ]
        if not [one for one in readings if isinstance(one, TryAgain)]:
            break
        threading.Event().wait(0.005)
    source.close()


def answered_late(source: NvidiaSource, nvml: HangingNvml, second: int) -> tuple[int, list[Reading]]:
    """Let the driver go, and read each second until the answer of the GPU that hung has come; when, and what was read."""
    nvml.hangs = False
    nvml.released.set()
    while second < 2000:
        readings = list(source.read(second * SECOND))
        if not any(isinstance(one, TryAgain) and "has not returned" in one.reason for one in readings):
            return second, readings
        threading.Event().wait(0.005)
        second += 1
    raise AssertionError("it never answered")


def test_a_late_answer_says_how_late_it_is_and_shows_nothing_of_now() -> None:
    """Its energy is of when it was asked for; its load and temperature of then are none of this sample."""
    nvml = HangingNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b")], "GPU-b")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.1)
    source.open()
    source.read(SECOND)
    nvml.hangs = True
    nvml.advance(1.0)
    source.read(7 * SECOND)
    second, readings = answered_late(source, nvml, 8)
    counters = {one.key: one for one in readings if isinstance(one, CounterReading)}
    assert counters[key_of("GPU-a")].late_nanoseconds == 0
    assert counters[key_of("GPU-b")].late_nanoseconds == (second - 7) * SECOND
    shown = {one.device for one in readings if isinstance(one, UtilizationReading | GaugeReading)}
    assert shown == {"gpu/GPU-a"}
    # Asked anew, it is in time again.
    fresh = [one for one in source.read((second + 1) * SECOND) if isinstance(one, CounterReading)]
    assert [one.late_nanoseconds for one in fresh] == [0, 0]
    source.close()


def test_a_late_power_of_a_module_does_not_come_after_a_newer_one() -> None:
    """Its sibling was asked meanwhile: what the one that hung says of their module is older than what was booked."""
    fields = {"185/0": 166_000, "185/1": 467_000}
    serial = {"nvmlDeviceGetSerial": "1650000000001"}
    gpus = [FakeGpu(name, name="NVIDIA GB200", fields=dict(fields), more=serial) for name in ("GPU-a", "GPU-b")]
    nvml = HangingNvml(gpus, "GPU-a")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.1)
    source.open()
    source.read(SECOND)
    nvml.hangs = True
    source.read(2 * SECOND)
    gpus[1].answers["nvmlDeviceGetFieldValues"]["185/1"] = 900_000
    source.read(3 * SECOND)
    second, readings = answered_late(source, nvml, 4)
    module = ChannelKey("module/1650000000001", "module", "nvidia")
    assert [one for one in readings if isinstance(one, PowerReading) and one.key == module] == [
        PowerReading(module, 900_000_000)
    ]
    own = [one for one in readings if isinstance(one, PowerReading) and one.key == key_of("GPU-a")]
    assert [one.late_nanoseconds for one in own] == [(second - 2) * SECOND]
    source.close()


def test_the_energy_of_a_gpu_that_hung_is_dated_and_bounded_by_when_it_was_asked() -> None:
    """Through the readers: what one part of a source had to wait for is told to the meter for that part alone."""
    nvml = HangingNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b")], "GPU-b")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.1)
    readers = Readers([OpenSource(source, source.open())], None, make_reader=InlineReader)
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer(readers.specs, at(0))

    def row(second: int) -> dict[ChannelKey, int]:
        nvml.advance(1.0)
        readings, late = readers.read(meter, at(second), 60.0)
        meter.observe(readings, at(second), late)
        return late

    assert row(1) == {}
    nvml.hangs = True
    row(2)
    nvml.hangs = False
    nvml.released.set()
    late: dict[ChannelKey, int] = {}
    second = 2
    while not late and second < 2000:
        second += 1
        late = row(second)
        threading.Event().wait(0.005)
    assert late == {key_of("GPU-b"): (second - 2) * SECOND}
    states = {channel.spec.key: channel.state for channel in meter.open_channels}
    assert states[key_of("GPU-b")].late_nanoseconds == (second - 2) * SECOND
    assert states[key_of("GPU-a")].late_nanoseconds == 0
    source.close()


def test_a_gpu_that_is_lost_after_it_hung_is_gone_all_the_same() -> None:
    """Each call of a GPU off the bus may take its time to fail; the last word on it comes late, and is told once."""
    nvml = HangingNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b")], "GPU-a")
    source = NvidiaSource(NO_SYSFS, nvml=nvml, patience_seconds=0.25)
    source.open()
    nvml.gpus[0].lost = True
    for second in range(1, LOST_READS_MAX):
        source.read(second * SECOND)
    nvml.hangs = True
    assert not [one for one in source.read(9 * SECOND) if isinstance(one, Gone)]
    nvml.hangs = False
    nvml.released.set()
    gone: list[Gone] = []
    for second in range(10, 2000):
        gone = [one for one in source.read(second * SECOND) if isinstance(one, Gone)]
        if gone:
            break
        threading.Event().wait(0.005)
    assert [one.key for one in gone] == [key_of("GPU-a")]
    assert not [one for one in source.read(3000 * SECOND) if isinstance(one, Gone | TryAgain)]
    source.close()
