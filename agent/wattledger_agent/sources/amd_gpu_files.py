"""One AMD GPU's files of the driver amdgpu, kept open, and what is shown of it: load, memory in use, gauges.

Decides nothing about energy. Source of truth: drivers/gpu/drm/amd/pm/amdgpu_pm.c and amdgpu_vram_mgr.c.
"""

from collections.abc import Sequence

from wattledger_agent.readings import (
    ChannelSpec,
    Gauge,
    GaugeReading,
    Reading,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sources.cpu import Opener, Pread
from wattledger_agent.sources.sensor_files import Chip, SensorFile, SleepWatch, read_text

MICROWATTS_PER_WATT = 1_000_000

# Files, gauge, and units of the file in one unit of the gauge. Junction is what an OAM module has in place of edge.
GAUGES = (
    (("temp1_input", "temp2_input"), Gauge.TEMPERATURE_CELSIUS, 1000),
    (("freq1_input",), Gauge.CLOCK_HERTZ, 1),
    (("freq2_input",), Gauge.MEMORY_CLOCK_HERTZ, 1),
    (("power1_cap",), Gauge.POWER_LIMIT_WATTS, MICROWATTS_PER_WATT),
)


class AmdGpu:
    """One die with its files. spec: its channel; None where another die reports for it, or nothing does.

    table: the driver's table of metrics. power: None where the driver shows none. gone: it was removed.
    """

    def __init__(self, chip: Chip, device: str, opener: Opener, pread: Pread) -> None:
        def file(name: str) -> SensorFile:
            return SensorFile(chip, name, opener, pread)

        power = next((name for name in ("power1_average", "power1_input") if (chip.folder / name).exists()), None)
        total = read_text(chip.device / "mem_info_vram_total")
        self.chip = chip
        self.device = device
        self.spec: ChannelSpec | None = None
        self.gone = False
        self.sleep = SleepWatch(chip, opener, pread)
        self.table = file("gpu_metrics")
        self.power = None if power is None else file(power)
        self._busy = file("gpu_busy_percent")
        self._vram_used = file("mem_info_vram_used")
        self._vram_total_bytes = int(total) if total.isdecimal() else 0
        self._gauges: list[tuple[SensorFile, Gauge, int]] = []
        for names, gauge, scale in GAUGES:
            self._gauges += [(file(name), gauge, scale) for name in names if (chip.folder / name).exists()][:1]

    @property
    def model(self) -> str:
        """Its number as a PCI device, as `0x74a1`."""
        return read_text(self.chip.device / "device")

    def power_microwatts(self) -> int | None:
        """Its power now, or None where it can't be had."""
        return None if self.power is None else _value(self.power)

    def shown(self, *, with_gauges: bool) -> Sequence[Reading]:
        """Its load and memory in use, and its gauges; what can't be had or believed is left out."""
        readings: list[Reading] = []
        busy, used = _value(self._busy), _value(self._vram_used)
        if busy is not None and 0 <= busy <= 100:
            readings.append(UtilizationReading(self.device, UtilizationKind.BUSY, busy / 100))
        if used is not None and 0 <= used <= self._vram_total_bytes > 0:
            ratio = used / self._vram_total_bytes
            readings.append(UtilizationReading(self.device, UtilizationKind.MEMORY, ratio))
        for file, gauge, scale in self._gauges if with_gauges else []:
            value = _value(file)
            # A limit of 0 is that of a second die, whose board has one limit.
            if value is not None and (value or gauge is not Gauge.POWER_LIMIT_WATTS):
                readings.append(GaugeReading(self.device, gauge, value / scale))
        return readings

    def close(self) -> None:
        """Close all its files."""
        self.sleep.close()
        for file in (self.table, self.power, self._busy, self._vram_used, *(file for file, _, _ in self._gauges)):
            if file is not None:
                file.close()


def _value(file: SensorFile) -> int | None:
    try:
        return file.number()
    except (OSError, ValueError):
        return None
