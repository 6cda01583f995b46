"""Reads this host's clocks and identity; decides nothing.

Time is CLOCK_BOOTTIME for measuring and CLOCK_REALTIME for dating (man clock_gettime(2)); whether the latter is
synchronised is the kernel's own word (man adjtimex(2)).
"""

import ctypes
import time
import uuid
from pathlib import Path

from wattledger_agent.counters import Instant

_TIME_ERROR = 5  # adjtimex's return value for a clock that is not synchronised.
# struct timex is 208 bytes on 64-bit Linux and smaller elsewhere; all zero means "only read".
_TIMEX_BYTES = 256
# Synchronisation changes over minutes, so one system call in this many seconds is enough.
_SYNCHRONISED_SECONDS = 10
# Both clocks take a microsecond together. A host that pauses this process in each of three looks is hardly awake.
_TOGETHER_NANOSECONDS = 1_000_000
_LOOKS_MAX = 3
# What an image's machine-id says until its first boot: no id, and the same on every copy.
_UNINITIALIZED = "uninitialized"


class ClockError(Exception):
    """The host's boot can't be told; the text says what happened, where, and what to do."""


class HostClock:
    """The clocks of one boot of this host. Raises ClockError if the boot id can't be read."""

    def __init__(self, procfs_root: Path = Path("/proc")) -> None:
        path = procfs_root / "sys/kernel/random/boot_id"
        try:
            self.boot_id = uuid.UUID(path.read_text().strip()).bytes
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ClockError(
                f"cannot read the boot id at {path}: {reason}. The agent needs Linux with procfs; in a container mount it "
                "and name its place with --procfs-root."
            ) from error
        self._adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
        self._synchronised = False
        self._asked_nanoseconds = -(10**18)

    def instant(self) -> Instant:
        """Now, on all clocks."""
        boottime, suspended = _boottime_and_suspended()
        if boottime - self._asked_nanoseconds >= _SYNCHRONISED_SECONDS * 1_000_000_000:
            self._asked_nanoseconds = boottime
            self._synchronised = self._adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) not in (-1, _TIME_ERROR)
        return Instant(
            boot_id=self.boot_id,
            boottime_nanoseconds=boottime,
            realtime_nanoseconds=time.clock_gettime_ns(time.CLOCK_REALTIME),
            synchronised=self._synchronised,
            suspended_nanoseconds=suspended,
        )


def _boottime_and_suspended() -> tuple[int, int]:
    """Boottime, and how much of it monotonic time lacks; nanoseconds.

    A pause of this process between the two clocks would look like a suspend, over which nothing is booked.
    """
    for _ in range(_LOOKS_MAX):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if after - before <= _TOGETHER_NANOSECONDS:
            break
    return boottime, max(0, boottime - after)


def machine_id(root: Path = Path("/")) -> str:
    """Contents of /etc/machine-id (man machine-id(5)); empty if there is none, or none yet."""
    try:
        text = (root / "etc/machine-id").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if text == _UNINITIALIZED else text


def dmi_uuid(sysfs_root: Path = Path("/sys")) -> str:
    """The mainboard's UUID, which tells a copied disk from its original; empty where it is not readable."""
    try:
        return (sysfs_root / "class/dmi/id/product_uuid").read_text().strip()
    except OSError:
        return ""
