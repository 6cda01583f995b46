"""What the kernel says that a process costs: wake-ups, memory, threads and CPU time, from outside of it.

Measures Linux processes alone. Source of truth: Documentation/filesystems/proc.rst; a context switch, voluntary or not, ends
with a wake-up of the thread.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KIBIBYTE = 1024
MEGABYTE = 1_000_000
NANOSECONDS_PER_MICROSECOND = 1000

# strace says that it is attached within moments.
ATTACH_SECONDS = 1.0
FAREWELL_SECONDS_MAX = 20.0

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


class SystemCallsError(Exception):
    """System calls can't be counted here; the text says why."""


def system_calls(pid: int, during: Callable[[], None]) -> int:
    """Count the system calls of all threads of a process while something is done. Raises SystemCallsError."""
    program = shutil.which("strace")
    if program is None:
        raise SystemCallsError("strace is not installed: apt install strace")
    with tempfile.NamedTemporaryFile("r") as table:
        command = [program, "-f", "-c", "-qq", "-U", "name,calls", "-o", table.name, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            time.sleep(ATTACH_SECONDS)
            if tracer.poll() is not None:
                raise SystemCallsError(
                    f"strace can't be attached to another process here: it ended with {tracer.returncode}"
                )
            try:
                during()
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait(FAREWELL_SECONDS_MAX)
        totals = [int(line.split()[1]) for line in table.read().splitlines() if line.startswith("total ")]
    if not totals:
        raise SystemCallsError("strace has counted nothing")
    return totals[-1]


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
