"""One RAPL counter's file, kept open: one system call a read.

Knows nothing of channels: it gives the raw counter, or says why there is none. Source of truth:
Documentation/ABI/testing/sysfs-class-powercap.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.known_faults import energy_sentinel
from wattledger_agent.sources.cpu import Opener, Pread
from wattledger_agent.sources.powercap import Zone

READ_BYTES = 32  # A 64-bit number has at most 20 digits.

PERMISSION_REMEDY = (
    "Only root may read it since CVE-2020-8694: install the udev rule deploy/systemd/70-wattledger.rules and run the agent "
    "in the group wattledger, or give it CAP_DAC_READ_SEARCH."
)


@dataclass(slots=True)
class Counter:
    """A zone's counter. descriptor: -1 while it is not open; the next read opens it."""

    zone: Zone
    opener: Opener
    pread: Pread
    descriptor: int = -1

    def probe(self) -> None:
        """Open it and read once. Raises OSError, then closed; what was read is not looked at."""
        try:
            self.descriptor = self.opener(self.zone.energy_path)
            self.pread(self.descriptor, READ_BYTES, 0)
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, str(self.zone.energy_path)) from error

    def value(self) -> int:
        """The counter in microjoules, in [0, range]. Raises OSError, or ValueError for a value that can't be."""
        if self.descriptor < 0:
            self.descriptor = self.opener(self.zone.energy_path)
        try:
            text = self.pread(self.descriptor, READ_BYTES, 0)
        except OSError as error:
            if error.errno == errno.ENODEV:
                # The driver was unloaded; its next life has a new file at the same place, which the next read opens.
                self.close()
            raise
        value = int(text)
        limit = self.zone.range_microjoules
        if value < 0 or (limit is not None and value > limit):
            raise ValueError(f"{value} is not within 0 and max_energy_range_uj ({limit})")
        if limit is None and (fault := energy_sentinel("rapl", value)) is not None:
            raise ValueError(f"{value}: {fault.sentence}")
        return value

    def close(self) -> None:
        """Close the file; harmless if it is closed."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def why(path: Path, error: OSError | ValueError) -> str:
    """A sentence on a failed read, with the remedy where it has one."""
    if isinstance(error, ValueError):
        return f"rapl: {path} is not believed: {error}."
    remedy = f" {PERMISSION_REMEDY}" if isinstance(error, PermissionError) else ""
    return f"rapl: {path} can't be read: {error.strerror or error}.{remedy}"
