"""Utilization of the CPUs and of the memory, from /proc/stat and /proc/meminfo.

Meters no energy. Only the sums over all CPUs are parsed, and the two files stay open and cost one system call each; psutil,
whose arithmetic this is (but that it takes stolen time for busy), opens and parses them anew each time, at three times the
cost. Source of truth: Documentation/filesystems/proc.rst.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from wattledger_agent.readings import (
    ChannelSpec,
    Reading,
    SourceUnavailableError,
    UtilizationKind,
    UtilizationReading,
)

NAME = "cpu"

Opener = Callable[[Path], int]
Pread = Callable[[int, int, int], bytes]

# CPUs come and go while the agent runs; each so many reads the one read of /proc/stat takes the whole list in.
RECOUNT_READS = 60
# A line of at most 128 characters for each of a thousand CPUs.
LIST_BYTES = 128 * 1024

# The first line of /proc/stat holds ten numbers of at most 20 digits; MemTotal and MemAvailable stand in the first three
# lines of /proc/meminfo, of 28 characters each.
READ_BYTES = 256

# Places in the first line of /proc/stat. `guest` and `guest_nice` follow; they are contained in `user` and `nice`.
IDLE, IOWAIT, STEAL = 3, 4, 7
STATES = 8


def open_for_reading(path: Path) -> int:
    """Open a file of sysfs or procfs; returns a descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class CpuSource:
    """Busy and stolen share of all CPUs, and the share of the memory in use.

    procfs_root: where procfs is mounted. memory: say too how much of the memory is in use. opener, pread: how files are
    opened and read; replaced by tests. latest: what the last read returned; None if it failed.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        procfs_root: Path = Path("/proc"),
        *,
        memory: bool = True,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
    ) -> None:
        self.latest: Sequence[Reading] | None = None
        self._procfs_root = procfs_root
        self._memory = memory
        self._opener = opener
        self._pread = pread
        self._stat = -1
        self._meminfo = -1
        self._cpus = 0
        self._reads = 0
        self._is_container_view = False
        self._last: list[int] = []

    def open(self) -> Sequence[ChannelSpec]:
        """Open both files and take the first CPU times, so that the first read already has a share."""
        stat = self._procfs_root / "stat"
        try:
            self._cpus = _count_cpus(stat.read_text())
            if self._cpus == 0:
                raise ValueError("it lists no CPU")
            self._stat = self._opener(stat)
            self._last = _cpu_times(self._pread(self._stat, READ_BYTES, 0))
        except (OSError, ValueError) as error:
            self.close()
            raise SourceUnavailableError(
                f"cpu: {stat} can't be used: {error}.", "Mount procfs there, or name its place with --procfs-root."
            ) from error
        self._is_container_view = self._is_of_lxcfs()
        # Some sandboxes hide it; the CPUs' shares are worth having alone.
        if self._memory:
            with contextlib.suppress(OSError):
                self._meminfo = self._opener(self._procfs_root / "meminfo")
        return []

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return the shares since the last read (of the memory: now). What can't be read or reckoned is left out.

        Raises OSError if /proc/stat, which the source stands on, can't be read.
        """
        self.latest = None
        readings = self._cpu_readings()
        if self._meminfo >= 0:
            ratio = self._memory_ratio()
            if ratio is not None:
                readings.append(UtilizationReading("memory", UtilizationKind.MEMORY, ratio))
        self.latest = readings
        return readings

    def notes(self) -> Sequence[str]:
        """Say so if the memory's share is missing, or if what is seen is a container's share."""
        notes = []
        if self._memory and self._meminfo < 0:
            notes.append(f"cpu: {self._procfs_root / 'meminfo'} can't be opened; memory utilization is not shown.")
        if self._is_container_view:
            notes.append(
                "cpu: lxcfs stands in for /proc/stat, which then tells of this container's CPUs alone; "
                "run the agent on the container's host for the host's."
            )
        return notes

    def close(self) -> None:
        """Close both files."""
        for descriptor in (self._stat, self._meminfo):
            if descriptor >= 0:
                os.close(descriptor)
        self._stat = self._meminfo = -1

    def _is_of_lxcfs(self) -> bool:
        try:
            lines = (self._procfs_root / "self/mountinfo").read_text(errors="replace").splitlines()
        except OSError:
            return False
        # Mount point is the fifth field; what it is of follows a lone hyphen.
        return any(" /proc/stat " in line and "lxcfs" in line for line in lines)

    def _cpu_readings(self) -> list[Reading]:
        self._reads += 1
        is_recount = self._reads % RECOUNT_READS == 0
        try:
            text = self._pread(self._stat, LIST_BYTES if is_recount else READ_BYTES, 0)
            times = _cpu_times(text)
        except ValueError as error:
            raise OSError(f"{self._procfs_root / 'stat'}: {error}") from error
        # Where the list did not fit, the count of before is nearer to the truth.
        if is_recount and b"\nintr " in text:
            self._cpus = _count_cpus(text.decode("ascii", "replace")) or self._cpus
        # The kernel's documentation says that iowait may fall, and a container's view may start anew: such a state counts
        # as not having advanced.
        deltas = [max(0, now - before) for now, before in zip(times, self._last, strict=True)]
        self._last = times
        total = sum(deltas)
        if total == 0:
            return []
        # Stolen time is not this host's work, and waiting for a disk is idling.
        busy = total - deltas[IDLE] - deltas[IOWAIT] - deltas[STEAL]
        return [
            UtilizationReading("cpu", UtilizationKind.BUSY, busy / total, self._cpus),
            UtilizationReading("cpu", UtilizationKind.STEAL, deltas[STEAL] / total, self._cpus),
        ]

    def _memory_ratio(self) -> float | None:
        """Share of the memory that is not available to new work without swapping, or None."""
        try:
            text = self._pread(self._meminfo, READ_BYTES, 0)
            total = _kibibytes(text, b"MemTotal:")
            available = _kibibytes(text, b"MemAvailable:")
        except (OSError, ValueError):
            return None
        if total <= 0 or not 0 <= available <= total:
            return None
        return 1.0 - available / total


def _cpu_times(text: bytes) -> list[int]:
    """Ticks in each of the eight states, summed over all CPUs."""
    fields = text.split(b"\n", 1)[0].split()
    if len(fields) < STATES + 1 or fields[0] != b"cpu":
        raise ValueError(f"the first line is {text[:40]!r}, not the CPUs' times")
    return [int(field) for field in fields[1 : STATES + 1]]


def _count_cpus(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit())


def _kibibytes(text: bytes, label: bytes) -> int:
    start = text.find(label)
    if start < 0:
        raise ValueError(f"{label.decode()} is missing")
    return int(text[start + len(label) :].split(None, 1)[0])
