"""Adds up what /proc/stat says of each CPU to the busy and idle time of each package.

Reads no file. Every column is summed at once, for hundreds of CPUs have ten numbers each, every second. Source of truth:
Documentation/filesystems/proc.rst of the Linux kernel; `guest` times, which follow the ones used here, are in the first two.
"""

from collections.abc import Mapping, Sequence
from itertools import compress

# The states in their order, after the CPU's name: user, nice, system, idle, iowait, irq, softirq, steal. What a hypervisor
# gave to others is neither busy nor idle.
_BUSY = (1, 2, 3, 6, 7)
_IDLE = (4, 5)
STATES = 8

# The first line of /proc/stat holds ten numbers of at most 20 digits; each CPU has one as long.
LINE_BYTES = 256

Times = tuple[tuple[int, ...], tuple[int, ...]]


class CpuTimes:
    """Busy and idle times by package, in the kernel's ticks.

    package_of: of each CPU by its number, from 0 on; a CPU that is not in it is in package 0. Where all are in package 0,
    the first line, of all CPUs together, is enough.
    """

    def __init__(self, package_of: Mapping[int, int]) -> None:
        self.packages = 1 + max(package_of.values(), default=0)
        self._package_of = package_of
        self._names: list[bytes] = []
        self._members: list[list[bool]] = []

    @property
    def bytes_max(self) -> int:
        """As many bytes of /proc/stat hold all that is needed."""
        return LINE_BYTES * (1 if self.packages == 1 else 1 + len(self._package_of))

    def of(self, text: bytes) -> Times:
        """Add up. Raises ValueError for a text that does not begin as /proc/stat."""
        fields = text.partition(b"\n")[0].split()
        if len(fields) <= STATES or fields[0] != b"cpu":
            raise ValueError(f"the first line is {text[:40]!r}, not the CPUs' times")
        if self.packages == 1:
            return (sum(int(fields[state]) for state in _BUSY),), (sum(int(fields[state]) for state in _IDLE),)
        width = len(fields)
        # What follows the CPUs begins with the number of interrupts, which may be of thousands of kinds.
        end = text.find(b"\nintr")
        fields = text[: end if end >= 0 else text.rfind(b"\n") + 1].split()
        names = fields[width::width]
        if names != self._names:
            self._look_at(names)
        columns = [fields[width + state :: width] for state in range(STATES)]
        return self._sums(columns, _BUSY), self._sums(columns, _IDLE)

    def _sums(self, columns: Sequence[Sequence[bytes]], states: Sequence[int]) -> tuple[int, ...]:
        return tuple(sum(sum(map(int, compress(columns[state], members))) for state in states) for members in self._members)

    def _look_at(self, names: list[bytes]) -> None:
        """Learn the order of the CPUs anew: one came or went."""
        if not all(name.startswith(b"cpu") and name[3:].isdigit() for name in names):
            raise ValueError(f"the lines of the CPUs differ in length, or one is none: {names[:3]!r}")
        packages = [self._package_of.get(int(name[3:]), 0) for name in names]
        self._members = [[package == each for package in packages] for each in range(self.packages)]
        self._names = names
