"""Estimates the wall power of a host without sensors from its CPU model and load.

Measures nothing, and knows of no GPU: accelerators are in none of the published servers. Sources of truth: /proc/cpuinfo,
/proc/meminfo and /proc/stat (Documentation/filesystems/proc.rst), and the curves of curves.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wattledger_agent.cpus import CpuInfo, parse_cpuinfo
from wattledger_agent.curves import CurveModel, interpolate, read_table, read_tdps, read_weights
from wattledger_agent.estimates import Estimate, estimate
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


class EstimateSource:
    """One modelled channel for the whole node.

    procfs_root: where procfs is mounted. cpu_model: take this CPU for the one in /proc/cpuinfo; empty: as found.
    load: where the load comes from; None: from /proc/stat.
    """

    name = NAME
    may_block = False

    def __init__(self, procfs_root: Path = Path("/proc"), *, cpu_model: str = "", load: LoadReader | None = None) -> None:
        self._procfs_root = procfs_root
        self._cpu_model = cpu_model
        self._load: LoadReader = load or CpuSource(procfs_root)
        self._info: CpuInfo | None = None
        self._estimate: Estimate | None = None
        self._microwatts: int | None = None

    def open(self) -> Sequence[ChannelSpec]:
        """Learn the CPUs and the memory, and return the node's channel. Raises SourceUnavailableError."""
        info = self._read_cpuinfo()
        memory_gb = self._read_memory_gb()
        model = CurveModel(read_table(), read_weights())
        self._info = info
        self._estimate = estimate(info, memory_gb, model, read_tdps())
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
            )
        ]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return the power at the load since the last read. Raises OSError if the load can't be read at all."""
        if self._estimate is None:
            return []
        for reading in self._load.read(now_nanoseconds):
            if isinstance(reading, UtilizationReading) and (reading.device, reading.kind) == ("cpu", UtilizationKind.BUSY):
                self._microwatts = round(interpolate(self._estimate.watts, reading.ratio) * MICROWATTS_PER_WATT)
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
        band, watts = self._estimate.band, self._estimate.watts
        name = self._info.model_name or "an unnamed CPU"
        notes = [
            f"estimate: power is modelled from {name} and its load, not measured; it stands on {self._estimate.ground}.",
            f"estimate: {watts[0]:.0f} W idle to {watts[-1]:.0f} W at full load; the 95 % band is "
            f"{-band.lower_ratio:+.0%} to {band.upper_ratio:+.0%}.",
            "estimate: GPUs are not in it, nor more disks and network cards than a plain server has.",
        ]
        if self._info.is_guest:
            notes.append(
                "estimate: this is a virtual machine, and a guest cannot see what its host draws; "
                "for measured figures run the agent on the host."
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

    def _read_cpuinfo(self) -> CpuInfo:
        path = self._procfs_root / "cpuinfo"
        try:
            info = parse_cpuinfo(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError) as error:
            raise SourceUnavailableError(
                f"estimate: {path} can't be used: {error}.", "Mount procfs there, or name its place with --procfs-root."
            ) from error
        if not self._cpu_model:
            return info
        return CpuInfo(self._cpu_model, None, info.chips, info.cores, info.threads, info.is_guest)

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
