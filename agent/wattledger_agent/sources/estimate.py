"""Estimates the wall power of a host without sensors from its CPU model and load.

Measures nothing, and knows of no GPU: accelerators are in none of the published servers. Beside a meter of the node it is
read too, so that its bias is known; the topology then books none of it. Sources of truth: /proc/cpuinfo, /proc/meminfo and
/proc/stat (Documentation/filesystems/proc.rst), the DMI names in sysfs, and the curves of curves.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from wattledger_agent.cpus import CpuInfo, is_virtual, parse_cpuinfo
from wattledger_agent.curves import LEVELS, CurveModel, read_table, read_tdps, read_weights
from wattledger_agent.estimates import Estimate, estimate, own_curve
from wattledger_agent.readings import (
    ChannelKey,
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

NAME = "estimate"
KEY = ChannelKey("node", "estimate", NAME)

# What published servers don't have.
EXCLUDED = frozenset({Component.GPU, Component.ACCELERATOR})

# Power rises steeply up to here and less so from here on: the knee of the published curves.
KNEE_LOAD = LEVELS[1]

MICROWATTS_PER_WATT = 1_000_000
KIBIBYTES_PER_GB = 1024 * 1024


class LoadReader(Protocol):
    """Returns, among other readings, the busy share of device `cpu` since the last read."""

    def open(self) -> Sequence[ChannelSpec]:
        """Take the first CPU times. Raises SourceUnavailableError."""

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return the shares. Raises OSError."""

    def close(self) -> None:
        """Let go of what `open` opened."""


class SharedLoad:
    """The load that a source which is read anyway has just found: the kernel sums all CPUs up once a tick, not twice."""

    def __init__(self, cpu: CpuSource) -> None:
        self._cpu = cpu

    def open(self) -> Sequence[ChannelSpec]:
        """Do nothing: the source is open."""
        return []

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return what the source's last read returned. Raises OSError if that failed."""
        if self._cpu.latest is None:
            raise OSError("estimate: the load of the CPUs could not be read; see the source `cpu`.")
        return self._cpu.latest

    def close(self) -> None:
        """Do nothing: who opened the source closes it."""


class EstimateSource:
    """One modelled channel for the whole node.

    procfs_root: where procfs is mounted. sysfs_root: where the DMI names are; None: not asked. cpu_model: take this CPU for
    the one in /proc/cpuinfo; empty: as found. curve_watts: loads and watts in place of any model; empty: none; curve_band:
    its lower and upper ratio; empty: unknown. beside_meter: a sensor meters the node, and this is for comparison.
    load: where the load comes from; None: from /proc/stat.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        procfs_root: Path = Path("/proc"),
        *,
        sysfs_root: Path | None = None,
        cpu_model: str = "",
        curve_watts: Sequence[tuple[float, float]] = (),
        curve_band: Sequence[float] = (),
        beside_meter: bool = False,
        load: LoadReader | None = None,
    ) -> None:
        self._procfs_root = procfs_root
        self._sysfs_root = sysfs_root
        self._cpu_model = cpu_model
        self._curve_watts = curve_watts
        self._curve_band = curve_band
        self._beside_meter = beside_meter
        self._load: LoadReader = load or CpuSource(procfs_root, memory=False)
        self._info: CpuInfo | None = None
        self._estimate: Estimate | None = None
        self._microwatts: int | None = None

    def open(self) -> Sequence[ChannelSpec]:
        """Learn the CPUs and the memory, and return the node's channel. Raises SourceUnavailableError."""
        info = self._read_cpuinfo()
        self._info = info
        self._estimate = self._make_estimate(info)
        self._microwatts = None
        self._load.open()
        band = self._estimate.band
        return [
            ChannelSpec(
                KEY,
                Component.OTHER,
                Method.MODEL,
                Role.LEAF,
                max(self._estimate.watts) * (1.0 + band.upper_ratio),
                uncertainty_lower_ratio=band.lower_ratio,
                uncertainty_upper_ratio=band.upper_ratio,
                model=info.model_name or "unknown CPU",
                excludes=EXCLUDED,
            )
        ]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return the power at the load since the last read. Raises OSError if the load can't be read at all."""
        if self._estimate is None:
            return []
        for reading in self._load.read(now_nanoseconds):
            if isinstance(reading, UtilizationReading) and (reading.device, reading.kind) == ("cpu", UtilizationKind.BUSY):
                self._microwatts = round(self._estimate.watts_at(reading.ratio) * MICROWATTS_PER_WATT)
        if self._microwatts is None:
            return [
                TryAgain(
                    KEY, "estimate: no CPU time has passed since the source was opened; the next read will have a load."
                )
            ]
        # Between two ticks of the kernel's CPU times the load is what it was.
        return [PowerReading(KEY, self._microwatts)]

    def notes(self) -> Sequence[str]:
        """Say on what the figures stand, what is not in them, and how to get measured ones."""
        if self._info is None or self._estimate is None:
            return []
        found, band = self._estimate, self._estimate.band
        name = self._info.model_name or "an unnamed CPU"
        notes = [
            f"estimate: power is modelled from {name} and its load, not measured; it stands on {found.ground}.",
            f"estimate: {found.watts[0]:.0f} W idle, {found.watts_at(KNEE_LOAD):.0f} W at {KNEE_LOAD:.0%} load and "
            f"{found.watts[-1]:.0f} W at full load; the 95 % band is {-band.lower_ratio:+.0%} to {band.upper_ratio:+.0%}.",
            "estimate: GPUs are not in it, nor more disks and network cards than a plain server has.",
        ]
        if self._beside_meter:
            notes.append("estimate: a sensor meters the node; none of the estimate is booked, and its bias is told.")
        elif self._info.is_guest:
            notes.append(
                "estimate: this is a virtual machine, and a guest cannot see what its host draws; "
                "for measured figures run the agent on the host."
            )
        elif self._info.parts:
            notes.append(
                "estimate: for measured figures let the agent read the machine's own sensors (hwmon, a management "
                "controller), or state its curve in `sources.estimate.curve_watts`."
            )
        else:
            notes.append(
                "estimate: for measured figures load the kernel module intel_rapl_common and let the agent read "
                "/sys/class/powercap (wattledger-agent doctor says how)."
            )
        return notes

    def close(self) -> None:
        """Close the load reader."""
        self._load.close()

    def _make_estimate(self, info: CpuInfo) -> Estimate:
        if self._curve_watts:
            return own_curve(self._curve_watts, self._curve_band)
        memory_gb = self._read_memory_gb()
        # The tables are let go of at once: a thousand numbers for one machine's eleven.
        return estimate(info, memory_gb, CurveModel(read_table(), read_weights()), read_tdps())

    def _read_cpuinfo(self) -> CpuInfo:
        path = self._procfs_root / "cpuinfo"
        try:
            info = parse_cpuinfo(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError) as error:
            raise SourceUnavailableError(
                f"estimate: {path} can't be used: {error}.", "Mount procfs there, or name its place with --procfs-root."
            ) from error
        info = replace(info, is_guest=info.is_guest or is_virtual(self._dmi("sys_vendor"), self._dmi("product_name")))
        if not self._cpu_model:
            return info
        return replace(info, model_name=self._cpu_model, cpuid=None, parts=())

    def _dmi(self, name: str) -> str:
        if self._sysfs_root is None:
            return ""
        try:
            return (self._sysfs_root / "class/dmi/id" / name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def _read_memory_gb(self) -> float:
        path = self._procfs_root / "meminfo"
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition(":")
                if name == "MemTotal":
                    return int(value.split()[0]) / KIBIBYTES_PER_GB
            raise ValueError("MemTotal is missing")
        except (OSError, ValueError, IndexError) as error:
            raise SourceUnavailableError(
                f"estimate: {path} can't be used: {error}.", "Mount procfs there, or name its place with --procfs-root."
            ) from error
