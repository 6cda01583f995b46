"""What is shown of a GPU: which powers are averages and which of an instant, and how often it is asked."""

from pathlib import Path

from tests.agent.fake_nvml import PATIENCE_SECONDS, FakeGpu, FakeNvml
from tests.agent.nvidia_machines import gpu_machine

from wattledger_agent.readings import Gauge, GaugeReading, Reading
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.nvidia_gauges import GAUGES_SECONDS

SECOND = 1_000_000_000
FIRST = "gpu/GPU-00000000-0000-0000-0000-000000000000"


def gauges_of(readings: object, device: str) -> dict[Gauge, float]:
    """The gauges of a device."""
    assert isinstance(readings, list)
    found: list[Reading] = readings
    return {one.gauge: one.value for one in found if isinstance(one, GaugeReading) and one.device == device}


def test_an_h100_tells_average_and_instant_power_apart(tmp_path: Path) -> None:
    """As its published capture shows them, with what else nvidia-smi says of it."""
    machine = gpu_machine("dgx_h100", tmp_path)
    assert gauges_of(machine.source.read(SECOND), FIRST) == {
        Gauge.TEMPERATURE_CELSIUS: 29,
        Gauge.CLOCK_HERTZ: 345_000_000,
        Gauge.MEMORY_CLOCK_HERTZ: 2_619_000_000,
        Gauge.POWER_LIMIT_WATTS: 700,
        Gauge.THROTTLE_REASONS_MASK: 1,
        Gauge.PROCESSES_COUNT: 0,
        Gauge.AVERAGE_POWER_WATTS: 68.57,
        Gauge.INSTANT_POWER_WATTS: 68.92,
    }


def test_an_a100_and_a_t4_have_no_average(tmp_path: Path) -> None:
    """Their average is N/A, and is not made up from the instant's."""
    for name, watts in (("dgx_a100_mig", 214.0), ("t4_server", 33.51)):
        shown = gauges_of(gpu_machine(name, tmp_path).source.read(SECOND), FIRST)
        assert shown[Gauge.INSTANT_POWER_WATTS] == watts
        assert Gauge.AVERAGE_POWER_WATTS not in shown


def test_without_fields_the_architecture_says_what_the_power_is() -> None:
    """nvmlDeviceGetPowerUsage is a mean over a second on Ampere and newer, but for GA100, and of the instant before."""
    named = {
        "NVIDIA H100 80GB HBM3": (9, Gauge.AVERAGE_POWER_WATTS),
        "NVIDIA A10": (7, Gauge.AVERAGE_POWER_WATTS),
        "NVIDIA A100-SXM4-40GB": (7, Gauge.INSTANT_POWER_WATTS),
        "NVIDIA A30": (7, Gauge.INSTANT_POWER_WATTS),
        "Tesla V100-SXM2-16GB": (5, Gauge.INSTANT_POWER_WATTS),
    }
    for name, (architecture, gauge) in named.items():
        nvml = FakeNvml([FakeGpu("GPU-a", name=name, more={"nvmlDeviceGetArchitecture": architecture})])
        source = NvidiaSource(Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=nvml)
        source.open()
        shown = gauges_of(source.read(SECOND), "gpu/GPU-a")
        assert {one for one in shown if "POWER_WATTS" in one.name} == {gauge}, name


def test_gauges_come_every_five_seconds() -> None:
    """And what a GPU does not have is asked once, under both names that throttling has had."""
    nvml = FakeNvml([FakeGpu("GPU-a", more={"nvmlDeviceGetCurrentClocksEventReasons": None})])
    source = NvidiaSource(Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=nvml)
    source.open()
    shown = [bool(gauges_of(source.read(second * SECOND), "gpu/GPU-a")) for second in range(1, 12)]
    assert [second for second, one in enumerate(shown, start=1) if one] == [1, 1 + GAUGES_SECONDS, 1 + 2 * GAUGES_SECONDS]
    assert nvml.calls["nvmlDeviceGetCurrentClocksEventReasons"] == 1
    assert nvml.calls["nvmlDeviceGetCurrentClocksThrottleReasons"] == 1


def test_an_old_driver_tells_throttling_by_its_old_name() -> None:
    """Drivers before 535 know nvmlDeviceGetCurrentClocksThrottleReasons alone."""
    more = {"nvmlDeviceGetCurrentClocksEventReasons": {"error": 13}, "nvmlDeviceGetCurrentClocksThrottleReasons": 8}
    source = NvidiaSource(
        Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=FakeNvml([FakeGpu("GPU-a", more=more)])
    )
    source.open()
    assert gauges_of(source.read(SECOND), "gpu/GPU-a")[Gauge.THROTTLE_REASONS_MASK] == 8
