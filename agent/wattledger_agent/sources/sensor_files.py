"""Sensors of the hwmon class: finding chips, and files that stay open and are found again under another number.

Decides nothing about what a sensor measures. A chip is known by its device's folder and its name, for hwmon numbers are
given in the order in which drivers load. Source of truth: Documentation/hwmon/sysfs-interface.rst.
"""

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.readings import ChannelKey, Gone, TryAgain
from wattledger_agent.sources.cpu import Opener, Pread

READ_BYTES = 32  # A 64-bit number has at most 20 digits.
GENERATION_MASK = 2**63 - 1

# PCI classes of display controllers and processing accelerators, and the bus on which the processor's own parts are.
GPU_CLASSES = ("0x03", "0x1200")
PROCESSOR_BUS = "0000:00:"

# The driver took its files away; the next read looks whether it has come back.
DRIVER_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOENT)

# So many reads in a row must find the device's folder missing: a driver that is loaded anew takes it away for a moment.
GONE_READS = 3


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip of the hwmon class.

    name: what its driver calls it. folder: its hwmon folder as found. device: its device's folder, which stays.
    ordinal: its place among the chips of the same name on the same device, in the order in which they were registered.
    """

    name: str
    folder: Path
    device: Path
    ordinal: int

    def locate(self, file: str) -> Path:
        """Where a file of the chip is now; old drivers keep theirs in the device's folder."""
        for folder in (self.folder, *self._again(), self.device):
            if (folder / file).exists():
                return folder / file
        return self.folder / file

    def text(self, file: str) -> str:
        """A file's text without its line end; empty if there is none that can be read."""
        return read_text(self.locate(file))

    def numbers(self, pattern: str) -> list[int]:
        """The numbers N of the files that match a pattern such as `power(\\d+)_input`, smallest first."""
        names = {path.name for folder in (self.folder, self.device) if folder.is_dir() for path in folder.iterdir()}
        return sorted(int(match[1]) for name in names if (match := re.fullmatch(pattern, name)))

    def _again(self) -> Sequence[Path]:
        """The folder that the chip has after its driver was loaded anew, if there is one."""
        found = [folder for folder in natural(self.device / "hwmon") if read_text(folder / "name") == self.name]
        return found[self.ordinal : self.ordinal + 1]


def find_chips(sysfs_root: Path) -> list[Chip]:
    """All chips, in the order of their numbers. What has no name can't be known again, and is left out."""
    chips: list[Chip] = []
    for entry in natural(sysfs_root / "class" / "hwmon"):
        folder, device = entry.resolve(), entry / "device"
        device = device.resolve() if device.exists() else folder
        name = read_text(folder / "name") or read_text(device / "name")
        if name:
            ordinal = sum(chip.device == device and chip.name == name for chip in chips)
            chips.append(Chip(name, folder, device, ordinal))
    return chips


def gpus_without_chip(sysfs_root: Path, vendor: str, chips: Sequence[Chip]) -> list[str]:
    """PCI addresses of a vendor's (`0x1002`) GPUs of which none of these chips is; graphics in a processor do not count."""
    metered = {chip.device.name for chip in chips}
    return [
        folder.name
        for folder in natural(sysfs_root / "bus/pci/devices")
        if folder.name not in metered
        and not folder.name.startswith(PROCESSOR_BUS)
        and read_text(folder / "vendor") == vendor
        and read_text(folder / "class").startswith(GPU_CLASSES)
    ]


class SensorFile:
    """A chip's file that stays open: one system call a read.

    generation: another one each time that the driver has made the file anew, so that a counter's new life is not a wrap.
    """

    __slots__ = ("_descriptor", "_name", "_opener", "_pread", "_without_device", "chip", "generation")

    def __init__(self, chip: Chip, name: str, opener: Opener, pread: Pread) -> None:
        self.chip = chip
        self.generation = 0
        self._name = name
        self._opener = opener
        self._pread = pread
        self._descriptor = -1
        self._without_device = 0

    def __str__(self) -> str:
        return str(self.chip.locate(self._name))

    def read(self, size: int = READ_BYTES) -> bytes:
        """The file's bytes. Raises OSError."""
        try:
            if self._descriptor < 0:
                self._descriptor = self._opener(self.chip.locate(self._name))
                self.generation = os.fstat(self._descriptor).st_ino & GENERATION_MASK
            data = self._pread(self._descriptor, size, 0)
        except OSError as error:
            if error.errno in DRIVER_GONE:
                self.close()
                self._without_device = 0 if self.chip.device.exists() else self._without_device + 1
            raise
        self._without_device = 0
        return data

    def number(self) -> int:
        """The file's whole number. Raises OSError, or ValueError where it is none."""
        return int(self.read())

    def failed(self, key: ChannelKey, error: Exception) -> TryAgain | Gone:
        """What to say of a channel whose file could not be read."""
        if self._without_device >= GONE_READS:
            return Gone(key, f"{key.source}: {self.chip.device} is gone: the part was removed")
        if isinstance(error, PermissionError):
            remedy = "; run the agent with CAP_DAC_READ_SEARCH, or let its group read the file"
        else:
            remedy = "; if this stays, see the kernel's log for its driver"
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return TryAgain(key, f"{key.source}: {self} can't be read: {why}{remedy}")

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SleepWatch:
    """Tells whether a device sleeps, without waking it: what sysfs says of runtime power management."""

    __slots__ = ("_file",)

    def __init__(self, chip: Chip, opener: Opener, pread: Pread) -> None:
        may_sleep = read_text(chip.device / "power" / "control") == "auto"
        self._file = SensorFile(chip, "power/runtime_status", opener, pread) if may_sleep else None

    def sleeps(self) -> bool:
        """Whether the device is suspended now. What can't be told is awake."""
        try:
            return self._file is not None and self._file.read().startswith(b"suspend")
        except OSError:
            return False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def natural(folder: Path) -> list[Path]:
    """A folder's entries with 10 after 9; empty if it can't be listed."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    return sorted(entries, key=lambda entry: _with_numbers(entry.name))


def read_text(path: Path) -> str:
    """A small file's text without surrounding space; empty if it can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _with_numbers(name: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
