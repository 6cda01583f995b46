"""What the kernel says that a process costs: wake-ups, memory, threads and CPU time, from outside of it.

Measures Linux processes alone. Source of truth: Documentation/filesystems/proc.rst; a context switch, voluntary or not, ends
with a wake-up of the thread.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KIBIBYTE = 1024
MEGABYTE = 1_000_000
NANOSECONDS_PER_MICROSECOND = 1000

# What a program that does nothing once a second costs: the floor for an agent that is written in Python.
SLEEPER = (sys.executable, "-c", "import time\nwhile True: time.sleep(1)")


@dataclass(frozen=True, slots=True)
class Reading:
    """A process and its children at one moment, or their difference. cpu_microseconds: of all threads."""

    switches: int
    cpu_microseconds: float
    at_seconds: float

    def since(self, earlier: "Reading") -> "Reading":
        """What came in between."""
        return Reading(
            self.switches - earlier.switches,
            self.cpu_microseconds - earlier.cpu_microseconds,
            self.at_seconds - earlier.at_seconds,
        )


def look(pid: int) -> Reading:
    """Read all threads of a process and its children."""
    switches, nanoseconds = 0, 0
    for task in _tasks(pid):
        status = (task / "status").read_text()
        switches += sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        nanoseconds += int((task / "schedstat").read_text().split()[0])
    return Reading(switches, nanoseconds / NANOSECONDS_PER_MICROSECOND, time.monotonic())


def threads(pid: int) -> int:
    """Number of threads of a process and its children."""
    return len(_tasks(pid))


def memory_megabytes(pid: int, kind: str) -> float:
    """Memory of a process and its children. kind: `Pss` (shared pages count in part), or `Rss` (they count in full)."""
    kibibytes = 0
    for process in _tree(pid):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        kibibytes += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
    return kibibytes * KIBIBYTE / MEGABYTE


def start_sleeper() -> "subprocess.Popen[bytes]":
    """A bare loop that sleeps for a second at a time."""
    return subprocess.Popen(SLEEPER)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").iterdir():
            found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def _tasks(pid: int) -> list[Path]:
    return [task for process in _tree(pid) for task in Path(f"/proc/{process}/task").iterdir()]
