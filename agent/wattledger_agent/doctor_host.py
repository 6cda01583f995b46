"""What `doctor` must know of the machine around the sensors: guest or not, container or not, mounts, PCI devices, ACPI.

Reads small files of sysfs and procfs, and judges nothing. Source of truth: proc_pid_mountinfo(5), kernel_lockdown(7), the
ACPI identifiers that the kernel's drivers match.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.cpus import CpuInfo, is_virtual, parse_cpuinfo

NVIDIA = "0x10de"
_DISPLAY = "0x03"
_OCTAL = re.compile(r"\\([0-7]{3})")

# What a container's own root lies on.
_LAYERS = frozenset({"overlay", "fuse-overlayfs", "aufs", "zfs-container"})

# Names by which hypervisors are known, by a word in the DMI table; those of QEMU can be given virtual RAPL.
_HYPERVISORS = (
    ("qemu", "QEMU"), ("red hat", "QEMU (oVirt, OpenShift)"), ("openstack", "QEMU (OpenStack)"), ("kvm", "QEMU (KVM)"),
    ("vmware", "VMware"), ("microsoft", "Hyper-V"), ("amazon", "Amazon EC2"), ("google", "Google Compute Engine"),
    ("xen", "Xen"), ("innotek", "VirtualBox"), ("parallels", "Parallels"), ("nutanix", "Nutanix AHV"),
    ("alibaba", "Alibaba Cloud"), ("tencent", "Tencent Cloud"), ("digitalocean", "DigitalOcean"),
)  # fmt: skip
_QEMU = "QEMU"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. options: of this mount and of its file system, together."""

    place: Path
    kind: str
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One device on the bus."""

    address: str
    vendor: str
    kind: str
    has_driver: bool
    sleeps: bool


@dataclass(frozen=True, slots=True)
class Host:
    """One machine, by its folders of sysfs and procfs."""

    sysfs: Path
    procfs: Path

    @property
    def cpu(self) -> CpuInfo | None:
        """What /proc/cpuinfo says; None where it can't be used."""
        try:
            return parse_cpuinfo(read_text(self.procfs / "cpuinfo"))
        except ValueError:
            return None

    @property
    def is_guest(self) -> bool:
        """Whether this is a virtual machine: by a CPU flag, or, as on ARM, by the names in its DMI table."""
        cpu = self.cpu
        return (cpu is not None and cpu.is_guest) or is_virtual(*self._dmi)

    @property
    def hypervisor(self) -> str:
        """Who runs this virtual machine, in words."""
        names = f"{' '.join(self._dmi)} {read_text(self.sysfs / 'hypervisor/type')}".lower()
        return next((name for word, name in _HYPERVISORS if word in names), "an unnamed hypervisor")

    @property
    def is_qemu(self) -> bool:
        """Whether QEMU runs this virtual machine."""
        return self.hypervisor.startswith(_QEMU)

    @property
    def is_container(self) -> bool:
        """Whether this process sees a container's root."""
        root = mount_of(Path("/"), self.mounts())
        return root is not None and root.kind in _LAYERS

    @property
    def lockdown(self) -> str:
        """The kernel's lockdown, as Secure Boot switches it on; empty for none."""
        found = re.search(r"\[(\w+)\]", read_text(self.sysfs / "kernel/security/lockdown"))
        return "" if found is None or found[1] == "none" else found[1]

    def mounts(self) -> list[Mount]:
        """What is mounted, in the order of mounting; empty where it can't be told."""
        return [mount for line in read_text(self.procfs / "self/mountinfo").splitlines() if (mount := _mount(line))]

    def pci(self) -> Iterator[PciDevice]:
        """The devices on the PCI bus."""
        folder = self.sysfs / "bus/pci/devices"
        for device in sorted(folder.iterdir()) if folder.is_dir() else ():
            vendor, kind = read_text(device / "vendor"), read_text(device / "class")
            sleeps = read_text(device / "power/runtime_status") == "suspended"
            yield PciDevice(device.name, vendor, kind, (device / "driver").exists(), sleeps)

    def nvidia_gpus(self) -> list[PciDevice]:
        """The GPUs of NVIDIA, with driver or without."""
        return [one for one in self.pci() if one.vendor == NVIDIA and one.kind.startswith(_DISPLAY)]

    def acpi(self, identifier: str) -> list[str]:
        """Names of the ACPI devices with an identifier (`ACPI000D`) that the firmware says are there."""
        folder = self.sysfs / "bus/acpi/devices"
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        return [name for name in names if name.startswith(f"{identifier}:") and read_text(folder / name / "status") != "0"]

    @property
    def _dmi(self) -> tuple[str, str]:
        folder = self.sysfs / "class/dmi/id"
        return read_text(folder / "sys_vendor"), read_text(folder / "product_name")


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return what a path lies on; None if nothing is known of it."""
    around = [mount for mount in mounts if path.is_relative_to(mount.place)]
    # Of two at one place the later one hides the other.
    return max(reversed(around), key=lambda mount: len(mount.place.parts), default=None)


def read_text(path: Path) -> str:
    """A small file's text without the blanks around it; empty where there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _mount(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, kinds = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(kinds) < 3:
        return None
    place = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4])
    return Mount(Path(place), kinds[0], frozenset(fields[5].split(",")) | frozenset(kinds[2].split(",")))
