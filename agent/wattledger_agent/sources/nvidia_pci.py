"""What the kernel knows of an NVIDIA GPU: whether it sleeps, which driver load it belongs to, which module it sits on.

Calls nothing of NVML, so that asking wakes no GPU and can't hang in the driver. Source of truth: Documentation/ABI/testing/
sysfs-bus-pci, sysfs-devices-power and sysfs-devices-node; /proc/driver/nvidia/gpus as in NVIDIA's driver README.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.sources.cpu import Opener, Pread
from wattledger_agent.sources.cpu_packages import package_rank

VENDOR_NVIDIA = "0x10de"
CLASS_DISPLAY = "0x03"

GENERATION_MASK = 2**63 - 1
# Inode numbers of sysfs are small; those of module and binding are put side by side.
BINDING_SHIFT = 31

READ_BYTES = 16

SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Identity:
    """What the driver tells of a GPU in procfs, asleep or not. uuid: as NVML has it."""

    uuid: str
    model: str


def find_gpus(sysfs_root: Path) -> list[str]:
    """Addresses of all NVIDIA display devices on PCI, as `0000:3b:00.0`, in their order; empty where sysfs shows none."""
    try:
        addresses = sorted(os.listdir(sysfs_root / "bus/pci/devices"))
    except OSError:
        return []
    return [address for address in addresses if _is_gpu(sysfs_root / "bus/pci/devices" / address)]


def address_of(bus_id: str) -> str:
    """NVML's bus id (`00000000:3B:00.0`) as sysfs writes it; empty if it is none."""
    domain, colon, rest = bus_id.lower().partition(":")
    try:
        return f"{int(domain, 16):04x}:{rest}" if colon else ""
    except ValueError:
        return ""


class PciDevice:
    """A GPU's folder in sysfs. address: as `0000:3b:00.0`; empty if unknown, then nothing is known of it."""

    def __init__(self, sysfs_root: Path, address: str, opener: Opener, pread: Pread) -> None:
        self.address = address
        self._sysfs_root = sysfs_root
        self._path = sysfs_root / "bus/pci/devices" / (address or "none")
        self._pread = pread
        self._runtime_status = self._open_runtime_status(opener)

    def close(self) -> None:
        """Close the file that is kept open."""
        if self._runtime_status >= 0:
            os.close(self._runtime_status)
        self._runtime_status = -1

    def sleeps(self) -> bool:
        """Whether runtime power management has put it to sleep. Costs a system call where that may be, else none."""
        if self._runtime_status < 0:
            return False
        try:
            return self._pread(self._runtime_status, READ_BYTES, 0).startswith(SUSPENDED.encode())
        except OSError:
            return False

    def generation(self) -> int:
        """A number that is another after each load of the driver, and after each binding of the GPU to it; 0 if unknown.

        The kernel gives each node in sysfs a new inode number; its times are those of the first look at it.
        """
        return (_inode(self._sysfs_root / "module/nvidia") ^ self.binding() << BINDING_SHIFT) & GENERATION_MASK

    def binding(self) -> int:
        """A number that is another after the GPU was bound to its driver anew; 0 while it is not bound."""
        return _inode(self._path / "driver")

    def package(self) -> int | None:
        """The package of the nearest CPUs, counted from 0: on a superchip the one on its module. None if unknown."""
        node = _number(self._path / "numa_node")
        if node is None or node < 0:
            return None
        try:
            cpus = (self._sysfs_root / f"devices/system/node/node{node}/cpulist").read_text().strip()
        except OSError:
            return None
        first = cpus.partition(",")[0].partition("-")[0]
        return package_rank(self._sysfs_root, first)

    def _open_runtime_status(self, opener: Opener) -> int:
        """The file that says whether it sleeps, or -1 if runtime power management is off for it, as on most servers."""
        if not self.address:
            return -1
        power = self._path / "power"
        try:
            if (power / "control").read_text().strip() != "auto":
                return -1
            return opener(power / "runtime_status")
        except OSError:
            return -1


def identity(procfs_root: Path, address: str) -> Identity | None:
    """Who a GPU is, without waking it. None if the driver does not say, as before the GPU's first use."""
    try:
        lines = (procfs_root / "driver/nvidia/gpus" / address / "information").read_text().splitlines()
    except OSError:
        return None
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    uuid = fields.get("GPU UUID", "")
    # A GPU that was never used since the driver was loaded has question marks here.
    if not uuid.startswith("GPU-") or "?" in uuid:
        return None
    return Identity(uuid, fields.get("Model", ""))


def asleep(devices: Sequence[PciDevice]) -> list[PciDevice]:
    """Those of the devices that sleep now."""
    return [device for device in devices if device.sleeps()]


def _is_gpu(path: Path) -> bool:
    try:
        vendor, kind = (path / "vendor").read_text(), (path / "class").read_text()
    except OSError:
        return False
    return vendor.strip() == VENDOR_NVIDIA and kind.startswith(CLASS_DISPLAY)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _inode(path: Path) -> int:
    """The inode number of a node in sysfs itself, not of what a link leads to; 0 if there is none."""
    try:
        return path.lstat().st_ino
    except OSError:
        return 0
