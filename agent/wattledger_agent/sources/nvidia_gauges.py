"""What is shown of a GPU and never booked: temperature, clocks, limit, reasons for throttling, powers, processes.

Asked every few seconds and not at each sample: a call of the driver may take a tenth of a millisecond, and these change
slowly or are shown by the energy already. Source of truth: nvml.h.
"""

from collections.abc import Mapping
from typing import Any

from wattledger_agent.readings import Gauge, GaugeReading
from wattledger_agent.sources.nvidia_gpu import GPU_AVERAGE, GPU_INSTANT, Gpu
from wattledger_agent.sources.nvml import CLOCK_MEMORY, CLOCK_SM, TEMPERATURE_GPU, Field, Nvml

# Shown values older than ten seconds are not shown.
GAUGES_SECONDS = 5

HERTZ_PER_MEGAHERTZ = 1_000_000
MILLIWATTS_PER_WATT = 1000


def read_gauges(nvml: Nvml, gpu: Gpu, answers: Mapping[Field, int | Exception | None]) -> list[GaugeReading]:
    """The gauges that the GPU has: six calls, less those that are unsupported. answers: its power fields, as just read."""
    megahertz = HERTZ_PER_MEGAHERTZ
    values: dict[Gauge, Any] = {
        Gauge.TEMPERATURE_CELSIUS: gpu.ask(nvml, "nvmlDeviceGetTemperature", TEMPERATURE_GPU),
        Gauge.CLOCK_HERTZ: _times(gpu.ask(nvml, "nvmlDeviceGetClockInfo", CLOCK_SM), megahertz),
        Gauge.MEMORY_CLOCK_HERTZ: _times(gpu.ask(nvml, "nvmlDeviceGetClockInfo", CLOCK_MEMORY), megahertz),
        Gauge.POWER_LIMIT_WATTS: _watts(gpu.ask(nvml, "nvmlDeviceGetEnforcedPowerLimit")),
        Gauge.THROTTLE_REASONS_MASK: _throttle_reasons(nvml, gpu),
        Gauge.PROCESSES_COUNT: _count(gpu.ask(nvml, "nvmlDeviceGetComputeRunningProcesses")),
        Gauge.AVERAGE_POWER_WATTS: _watts(answers.get(GPU_AVERAGE)),
        Gauge.INSTANT_POWER_WATTS: _watts(answers.get(GPU_INSTANT)),
    }
    if not gpu.power_fields:
        own = Gauge.AVERAGE_POWER_WATTS if gpu.averages_power else Gauge.INSTANT_POWER_WATTS
        values[own] = _watts(gpu.ask(nvml, "nvmlDeviceGetPowerUsage"))
    return [GaugeReading(gpu.device, gauge, float(value)) for gauge, value in values.items() if value is not None]


def _throttle_reasons(nvml: Nvml, gpu: Gpu) -> Any:
    """The reasons under their present name; drivers before 535 know them under the old one."""
    reasons = gpu.ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons")
    return gpu.ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons") if reasons is None else reasons


def _watts(milliwatts: Any) -> float | None:
    return milliwatts / MILLIWATTS_PER_WATT if isinstance(milliwatts, int) else None


def _times(value: Any, factor: int) -> int | None:
    return value * factor if isinstance(value, int) else None


def _count(processes: Any) -> int | None:
    return None if processes is None else len(processes)
