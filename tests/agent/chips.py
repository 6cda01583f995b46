"""Chips of the hwmon class on a fixture machine: found by name, changed, broken, and moved to another number."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.agent.machines import Machine


def chip(host: Machine, device: str) -> Path:
    """The hwmon folder of the device whose folder has this name."""
    (found,) = (path for path in (host.sys / "devices").rglob("hwmon/hwmon*") if path.parent.parent.name == device)
    return found


def write(folder: Path, files: Mapping[str, object]) -> None:
    """Write files in place, as a driver's values change: open files stay those of the chip."""
    for name, value in files.items():
        path = folder / name if (folder / name).exists() else folder.parent.parent / name
        (path if path.exists() else folder / name).write_text(f"{value}\n")


def renumber(host: Machine, device: str, number: int) -> None:
    """Load the device's driver anew: its chip comes back with this number, and all its files are new ones."""
    old = chip(host, device)
    new = old.with_name(f"hwmon{number}")
    shutil.copytree(old, new, symlinks=True)
    (host.sys / "class/hwmon" / new.name).symlink_to(new)
    (host.sys / "class/hwmon" / old.name).unlink()
    shutil.rmtree(old)


def add_chip(host: Machine, device: str, number: int, files: Mapping[str, object]) -> Path:
    """Put in a further chip, with a device's folder of this name."""
    folder = host.sys / "devices/platform" / device / f"hwmon/hwmon{number}"
    folder.mkdir(parents=True)
    write(folder, files)
    (folder / "device").symlink_to(folder.parent.parent)
    (host.sys / "class/hwmon").mkdir(parents=True, exist_ok=True)
    (host.sys / "class/hwmon" / folder.name).symlink_to(folder)
    return folder


def add_pci_device(host: Machine, address: str, vendor: str, kind: str = "0x038000") -> Path:
    """Put a device on the PCI bus that no driver has."""
    folder = host.sys / "devices/pci0000:f0" / address
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("class", kind)):
        (folder / name).write_text(f"{value}\n")
    bus = host.sys / "bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(folder)
    return folder


@dataclass
class Files:
    """Opens and reads as the kernel would, by the file's path below a device: counts reads, and fails where told.

    failing: name of a device's folder -> errno of its reads. gone: devices whose driver took its files away.
    """

    reads: Counter[str] = field(default_factory=Counter)
    failing: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    _paths: dict[int, Path] = field(default_factory=dict)

    def opener(self, path: Path) -> int:
        """Opens a file."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._paths[descriptor] = path
        return descriptor

    def pread(self, descriptor: int, count: int, offset: int) -> bytes:
        """Reads a file."""
        path = self._paths[descriptor]
        self.reads[path.name] += 1
        for device in path.parts:
            if device in self.gone:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            if device in self.failing:
                raise OSError(self.failing[device], os.strerror(self.failing[device]))
        return os.pread(descriptor, count, offset)
