"""Which files of sysfs and procfs the sources read, and a walk over them that never leaves the tree.

Reads only what matches a pattern below, and knows nothing of what is in it. Source of truth: the sources themselves; a test
records every fixture machine and compares what the agent makes of the recording.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Links that a path may lead over: deeper ones are rings.
LINKS_MAX = 20

FILE_BYTES_MAX = 256 * 1024

# Patterns below /sys, as glob takes them. A folder or a link alone says that something is there.
_HWMON = (
    "name", "power*_input", "power*_average", "power*_average_interval", "power*_label", "power*_oem_info", "power*_enable",
    "power*_is_battery", "power*_model_number", "power*_cap", "power*_cap_max", "power*_max", "power*_rated_max",
    "energy*_input", "energy*_label", "energy*_enable", "in*_input", "in*_label", "in*_enable", "curr*_input", "temp1_input",
    "temp2_input", "freq1_input", "freq2_input",
)  # fmt: skip
_DEVICE = (
    "vendor", "device", "class", "unique_id", "product_name", "numa_node", "gpu_metrics", "gpu_busy_percent",
    "mem_info_vram_total", "mem_info_vram_used", "power/control", "power/runtime_status", "uid", "firmware_node/uid",
)  # fmt: skip
SYS = (
    "class/powercap",
    "class/powercap/intel-rapl*",
    *(f"class/powercap/intel-rapl*/{name}" for name in ("name", "energy_uj", "max_energy_range_uj", "enabled")),
    "class/powercap/intel-rapl*/constraint_*_name",
    "class/powercap/intel-rapl*/constraint_*_power_limit_uw",
    "class/powercap/intel-rapl*/constraint_*_max_power_uw",
    "class/hwmon",
    "class/hwmon/hwmon*",
    *(f"class/hwmon/hwmon*/{name}" for name in _HWMON),
    "class/hwmon/hwmon*/device",
    *(f"class/hwmon/hwmon*/device/{name}" for name in (*_HWMON, *_DEVICE)),
    "class/hwmon/hwmon*/device/measures/*",
    "class/misc/sgx_enclave",
    "class/dmi/id/sys_vendor",
    "class/dmi/id/product_name",
    "devices/system/cpu/cpu*/topology/physical_package_id",
    "devices/system/node/node*/cpulist",
    "module/nvidia",
)
# Of these, only devices whose class is that of a display controller or a processing accelerator.
PCI = "bus/pci/devices/*"
PCI_CLASSES = ("0x03", "0x12")
PCI_FILES = ("vendor", "device", "class", "numa_node", "power/control", "power/runtime_status", "driver")
PROC = ("cpuinfo", "stat", "meminfo", "sys/kernel/osrelease", "driver/nvidia/gpus/*/information")
# Of control groups, in each folder below these roots.
CGROUP = "fs/cgroup"
CGROUP_FILES = frozenset(
    {"cgroup.controllers", "cgroup.events", "cpu.stat", "memory.current", "cpuset.cpus.effective", "cpu.weight",
     "cpuacct.usage", "memory.usage_in_bytes", "cpuset.effective_cpus", "cpuset.cpus", "cpu.shares"}
)  # fmt: skip
CGROUP_CONTROLLERS = ("cpu,cpuacct", "cpuacct,cpu", "cpuacct", "cpu", "memory", "cpuset")
CGROUP_FOLDERS_MAX = 5000

# What does not change while a machine is recorded, by the end of its path.
STILL = (
    "_label", "_name", "_uw", "/name", "/vendor", "/device", "/class", "/unique_id", "/product_name", "/sys_vendor",
    "/numa_node", "/physical_package_id", "/cpulist", "cpuinfo", "osrelease", "/max_energy_range_uj", "_max",
    "mem_info_vram_total", "/information", "/cgroup.controllers", "/uid", "_model_number", "_oem_info",
)  # fmt: skip


@dataclass(slots=True)
class Found:
    """What a walk found, by the path below the root. files: raw content; None: it can't be read. links: where they lead."""

    files: dict[str, bytes | None] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


class Tree:
    """One tree (/sys, /proc) of the recorded host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found = Found()

    def take(self, path: str) -> None:
        """Take a file, with the links over which its path leads. A link that leaves the tree is refused."""
        place = self._place(path)
        if place is None:
            return
        full = self.root / place
        if full.is_dir():
            self.found.folders.add(place)
        elif place not in self.found.files and (full.is_file() or full.is_symlink()):
            self.found.files[place] = read_raw(full)

    def again(self) -> dict[str, bytes | None]:
        """Read once more what may have changed; a file that is gone is not in it."""
        paths = (path for path in self.found.files if not path.endswith(STILL))
        return {path: read_raw(self.root / path) for path in paths if (self.root / path).exists()}

    def glob(self, pattern: str) -> Iterator[str]:
        """Paths that match."""
        for path in sorted(self.root.glob(pattern)):
            yield str(path.relative_to(self.root))

    def _place(self, path: str) -> str | None:
        """Where a path leads within the tree; None if it leads out or nowhere. Notes the links on its way."""
        done: list[str] = []
        rest = path.split("/")
        for _ in range(LINKS_MAX * 20):
            if not rest:
                return "/".join(done)
            name = rest.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                if not done:
                    self.found.refused.add(path)
                    return None
                done.pop()
                continue
            here = "/".join([*done, name])
            full = self.root / here
            if not full.is_symlink():
                if not full.exists():
                    return None
                done.append(name)
                continue
            target = os.readlink(full)
            if target.startswith("/"):
                self.found.refused.add(here)
                return None
            self.found.links[here] = target
            rest = [*target.split("/"), *rest]
        self.found.refused.add(path)
        return None


def read_raw(path: Path) -> bytes | None:
    """A file's content, as much as any that is known has; None if it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        parts = []
        size = 0
        while size < FILE_BYTES_MAX and (part := os.read(descriptor, 65_536)):
            parts.append(part)
            size += len(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def take_sysfs(tree: Tree) -> None:
    """Take all files of sysfs that sources read."""
    for pattern in SYS:
        for path in tree.glob(pattern):
            tree.take(path)
    for device in tree.glob(PCI):
        kind = read_raw((tree.root / device / "class").resolve())
        if kind is not None and kind.decode(errors="replace").startswith(PCI_CLASSES):
            for name in PCI_FILES:
                tree.take(f"{device}/{name}")


def take_shared(tree: Tree) -> None:
    """Take the zones of a folder that a virtual machine's host writes."""
    for name in ("name", "energy_uj", "max_energy_range_uj"):
        for path in tree.glob(f"intel-rapl*/{name}"):
            tree.take(path)


def take_procfs(tree: Tree) -> None:
    """Take all files of procfs that sources read."""
    for pattern in PROC:
        for path in tree.glob(pattern):
            tree.take(path)


def take_groups(tree: Tree) -> None:
    """Take what is read of control groups, folder by folder. Call it again for those that came."""
    base = tree.root / CGROUP
    roots = [base] if (base / "cgroup.controllers").exists() else [base / name for name in CGROUP_CONTROLLERS]
    count = 0
    for root in roots:
        place = str(root.relative_to(tree.root))
        if root.is_symlink():
            tree.take(place)
            continue
        for folder, folders, files in os.walk(root):
            count += 1
            if count > CGROUP_FOLDERS_MAX:
                return
            folders.sort()
            for name in sorted(CGROUP_FILES.intersection(files)):
                tree.take(str(Path(folder, name).relative_to(tree.root)))
