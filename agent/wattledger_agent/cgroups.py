"""Finds the control groups of workloads and reads their CPU times and memory: one pread each, through files that stay open.

Decides nothing about energy. Handles the unified hierarchy (v2), v1, and both together (then v1's cpuacct counts). Source of
truth: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cpuacct.rst of the Linux kernel.
"""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wattledger_agent.cgroup_names import CLOSED_KINDS, may_contain, recognise
from wattledger_agent.readings import Workload, WorkloadKind

Opener = Callable[[Path], int]
Pread = Callable[[int, int, int], bytes]

# More workloads than any server runs: 250 pods and 500 units, five times over. What is beyond stays unattributed.
GROUPS_MAX = 4096

# Deeper than rootless containers inside of a container that plays a node.
DEPTH_MAX = 16

# Files that the rest of the agent needs: sensors, spool, streams.
FILES_RESERVED = 256

# Folders are listed anew at every so many scans even if nothing seems to have changed: a folder in which one group replaced
# another between two looks has as many as before.
ROUTINE_SCANS = 12

# In so many of these rounds each group's CPUs are looked at again.
PACKAGE_TURNS = 8

# A counter's text is at most 20 digits after a name; of cpu.stat the first line is wanted, usage_usec.
COUNTER_BYTES = 64
_USAGE = b"usage_usec "

# Parts of the CPUs are given in billionths of them.
RESERVATION_UNITS = 1_000_000_000
WEIGHT_DEFAULT_V2, WEIGHT_DEFAULT_V1 = 100, 1024


def open_for_reading(path: Path) -> int:
    """Open a file of cgroupfs; returns a descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class CgroupsUnavailableError(Exception):
    """No hierarchy of control groups can be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where what is read: folders of the controllers, and the names of their files.

    is_namespaced: only a part of the host's groups is seen, since this is a container with a cgroup namespace.
    """

    version: int
    cpu: Path
    memory: Path
    cpuset: Path
    weight: Path
    is_namespaced: bool

    @property
    def controller(self) -> str:
        """The controller that names groups in /proc/<pid>/cgroup; empty for v2."""
        return "" if self.version == 2 else "cpuacct"


@dataclass(slots=True)
class Group:
    """A workload's group. memory: descriptor of its memory file, -1 if none. outer: the workload that it is inside of."""

    number: int
    workload: Workload
    path: str
    inode: int
    descriptor: int
    memory: int = -1
    outer: int = 0
    package: int = -1
    reservation: int = 0


@dataclass(frozen=True, slots=True)
class _Child:
    path: str
    parts: tuple[str, ...]
    inode: int
    workload: Workload | None


@dataclass(slots=True)
class _Folder:
    links: int
    children: list[_Child] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)


def find_hierarchy(root: Path) -> Hierarchy:
    """Look at what is mounted at /sys/fs/cgroup. Raises CgroupsUnavailableError."""
    if (root / "cgroup.controllers").exists():
        # Only a group that is not the root has events.
        return Hierarchy(2, root, root, root, root, (root / "cgroup.events").exists())
    for name in ("cpu,cpuacct", "cpuacct,cpu", "cpuacct"):
        if (root / name / "cpuacct.usage").exists():
            weight = root / name if (root / name / "cpu.shares").exists() else root / "cpu"
            return Hierarchy(1, root / name, root / "memory", root / "cpuset", weight, False)
    raise CgroupsUnavailableError(
        f"{root} holds neither the unified hierarchy nor cpuacct: mount cgroup2 there (mount -t cgroup2 none {root}), "
        "or give the container the host's folder"
    )


class Cgroups:
    """The workloads' groups of one host.

    kinds: which workloads are wanted. packages_of: the packages that a list of CPUs (`0-3,8`) lies in; None where all CPUs
    are in one package. with_memory, with_reservations: whether these are wanted. files_max: descriptors that may be held
    open; None: what the process may have, less a reserve.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        kinds: frozenset[WorkloadKind],
        *,
        packages_of: Callable[[str], set[int]] | None = None,
        with_memory: bool = False,
        with_reservations: bool = False,
        files_max: int | None = None,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
    ) -> None:
        self.hierarchy = hierarchy
        self.groups: dict[str, Group] = {}
        self.workloads: dict[int, Workload] = {}
        self.within: dict[int, int] = {}
        self.packages: dict[int, int] = {}
        self.reservations: dict[int, int] = {}
        self.ignored = 0
        self._kinds = kinds
        self._packages_of = packages_of
        self._with_memory = with_memory
        self._with_reservations = with_reservations
        self._files_max = _files_max() if files_max is None else files_max
        self._opener = opener
        self._pread = pread
        self._folders: dict[str, _Folder] = {}
        self._root = str(hierarchy.cpu)
        self._scans = 0
        self._last_number = 0
        self._files = 0
        self._lost = False

    @property
    def unheld(self) -> int:
        """Groups whose file is opened for each read, since no more may stay open."""
        return sum(group.descriptor < 0 for group in self.groups.values())

    @property
    def folders(self) -> int:
        """Folders that are looked at in each scan: those that hold groups of workloads."""
        return len(self._folders)

    def scan(self) -> None:
        """Find groups that came, let go of those that went. Cheap where nothing changed: one stat a folder."""
        everything = self._lost or self._scans % ROUTINE_SCANS == 0
        self._scans += 1
        if not everything and all(folder.links == _links(path) > 1 for path, folder in self._folders.items()):
            return
        self._lost = False
        self.ignored = 0
        found: dict[str, Group] = {}
        folders: dict[str, _Folder] = {}
        self._walk(self._root, (), None, RESERVATION_UNITS, everything, found, folders)
        for path, group in self.groups.items():
            if found.get(path) is not group:
                self._close(group)
        self._folders = folders
        if found.keys() != self.groups.keys() or any(found[path] is not group for path, group in self.groups.items()):
            # Made anew only when it changed: the same object tells the accounts that nothing did.
            self.workloads = {group.number: group.workload for group in found.values()}
            self.within = {group.number: group.outer for group in found.values() if group.outer}
        self.groups = found
        if everything:
            # CPUs are seldom moved; a part of the groups at a time costs no tick much.
            turn = self._scans // ROUTINE_SCANS % PACKAGE_TURNS
            for group in found.values():
                if group.number % PACKAGE_TURNS == turn:
                    self._look_at_package(group)
        self.packages = {group.number: group.package for group in found.values() if group.package >= 0}
        self.reservations = {group.number: group.reservation for group in found.values()} if self._with_reservations else {}

    def cpu_nanoseconds(self) -> dict[int, int]:
        """Return each workload's CPU time since its group was made. A group that went is left out, and scanned for soon."""
        times = {}
        pread, scale = self._pread, 1000 if self.hierarchy.version == 2 else 1
        for group in self.groups.values():
            try:
                # The loop that every tick of a large host is made of: no call in it but the read.
                if group.descriptor >= 0:
                    text = pread(group.descriptor, COUNTER_BYTES, 0)
                else:
                    text = self._text(-1, group.path, self._cpu_file)
                if text.startswith(_USAGE):
                    text = text[len(_USAGE) : text.index(b"\n")]
                times[group.number] = int(text) * scale
            except (OSError, ValueError):
                self._lost = True
        return times

    def memory_bytes(self) -> dict[int, int]:
        """Return the memory of each workload, page cache included; those without a readable counter are left out."""
        sizes = {}
        for group in self.groups.values():
            if group.memory >= 0:
                text = self._text(group.memory, group.path, "")
                if text.strip().isdigit():
                    sizes[group.number] = int(text)
        return sizes

    @property
    def is_stale(self) -> bool:
        """Whether a group went since the last scan."""
        return self._lost

    def owner_of(self, group: str) -> int | None:
        """Return the workload of a group (as /proc/<pid>/cgroup names it, without the first slash), or of one above it."""
        path = f"{self._root}/{group}"
        while path not in self.groups:
            if len(path) <= len(self._root):
                return None
            path = path.rpartition("/")[0]
        return self.groups[path].number

    def close(self) -> None:
        """Close all files."""
        for group in self.groups.values():
            self._close(group)
        self.groups = {}

    @property
    def _cpu_file(self) -> str:
        return "cpu.stat" if self.hierarchy.version == 2 else "cpuacct.usage"

    def _text(self, descriptor: int, path: str, name: str) -> bytes:
        """What a counter holds now; empty if its group went."""
        try:
            if descriptor >= 0:
                return self._pread(descriptor, COUNTER_BYTES, 0)
            descriptor = self._opener(Path(path, name))
        except OSError:
            self._lost = True
            return b""
        try:
            return self._pread(descriptor, COUNTER_BYTES, 0)
        except OSError:
            self._lost = True
            return b""
        finally:
            os.close(descriptor)

    def _walk(
        self,
        path: str,
        parts: tuple[str, ...],
        outer: Group | None,
        share: int,
        everything: bool,
        found: dict[str, Group],
        folders: dict[str, _Folder],
    ) -> None:
        folder = self._folder(path, parts, everything)
        if folder is None:
            return
        folders[path] = folder
        whole = sum(folder.weights) or 1
        for index, child in enumerate(folder.children):
            part = share * folder.weights[index] // whole if folder.weights else 0
            inside, below, workload = child.path, child.parts, child.workload
            if workload is not None and (outer is None or may_contain(outer.workload, workload)):
                group = self._group(inside, child.inode, workload, outer, found)
                if group is not None:
                    group.reservation = part
                    if outer is not None:
                        outer.reservation = max(0, outer.reservation - part)
                if workload.kind not in CLOSED_KINDS and len(below) < DEPTH_MAX and _links(inside) != 2:
                    self._walk(inside, below, group or outer, part, everything, found, folders)
            elif len(below) < DEPTH_MAX:
                self._walk(inside, below, outer, part, everything, found, folders)

    def _folder(self, path: str, parts: tuple[str, ...], everything: bool) -> _Folder | None:
        """A folder's groups, from memory where the number of its subfolders (its links less two) is as before."""
        try:
            links = _links(path)
            known = self._folders.get(path)
            if known is not None and known.links == links > 1 and not everything:
                return known
            with os.scandir(path) as entries:
                listed = sorted((entry.name, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            return None
        before = {child.path: child for child in known.children} if known is not None else {}
        children = []
        for name, inode in listed:
            child = before.get(inside := f"{path}/{name}")
            if child is None or child.inode != inode:
                below = (*parts, name)
                child = _Child(inside, below, inode, recognise(below))
            children.append(child)
        weights = [self._weight(child.path) for child in children] if self._with_reservations else []
        return _Folder(links, children, weights)

    def _group(
        self, path: str, inode: int, workload: Workload, outer: Group | None, found: dict[str, Group]
    ) -> Group | None:
        if workload.kind not in self._kinds:
            return None
        group = self.groups.get(path)
        if group is None or group.inode != inode:
            if len(found) >= GROUPS_MAX:
                self.ignored += 1
                return None
            group = self._open(path, inode, workload)
            if group is None:
                return None
        group.outer = 0 if outer is None else outer.number
        found[path] = group
        return group

    def _open(self, path: str, inode: int, workload: Workload) -> Group | None:
        descriptor = self._held(Path(path, self._cpu_file))
        if descriptor < 0 and self._files < self._files_max:
            # It went before it could be opened, or counts no CPU time.
            return None
        self._last_number += 1
        group = Group(self._last_number, workload, path, inode, descriptor)
        if self._with_memory:
            v2 = self.hierarchy.version == 2
            folder = self._beside(self.hierarchy.memory, path)
            group.memory = self._held(folder / ("memory.current" if v2 else "memory.usage_in_bytes"))
        self._look_at_package(group)
        return group

    def _held(self, path: Path) -> int:
        """A descriptor that stays open; -1 if there is no such file or no more may stay open."""
        if self._files >= self._files_max:
            return -1
        try:
            descriptor = self._opener(path)
        except OSError:
            return -1
        self._files += 1
        return descriptor

    def _close(self, group: Group) -> None:
        for descriptor in (group.descriptor, group.memory):
            if descriptor >= 0:
                os.close(descriptor)
                self._files -= 1
        group.descriptor = group.memory = -1

    def _look_at_package(self, group: Group) -> None:
        """Note the package in which all of the group's CPUs are, if there is one."""
        if self._packages_of is None:
            return
        folder = self._beside(self.hierarchy.cpuset, group.path)
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            text = _small_text(folder / name)
            if text:
                packages = self._packages_of(text)
                group.package = packages.pop() if len(packages) == 1 else -1
                break
        else:
            group.package = -1

    def _beside(self, controller: Path, path: str) -> Path:
        """The folder of a group under another controller."""
        return controller / path[len(self._root) + 1 :]

    def _weight(self, path: str) -> int:
        v2 = self.hierarchy.version == 2
        folder = self._beside(self.hierarchy.weight, path)
        text = _small_text(folder / ("cpu.weight" if v2 else "cpu.shares"))
        return int(text) if text.isdigit() else WEIGHT_DEFAULT_V2 if v2 else WEIGHT_DEFAULT_V1


def cpus_of(text: str) -> Iterator[int]:
    """The CPUs of a kernel's list (`0-3,8`). Raises ValueError."""
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        yield from range(int(first), int(last if dash else first) + 1)


def _files_max() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * GROUPS_MAX + FILES_RESERVED
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        # A sandbox may refuse; then there are as many as there are.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
    return max(0, soft - FILES_RESERVED)


def _links(path: str) -> int:
    """A folder's subfolders and two, as kernfs counts; 1 where a file system doesn't count them, 0 if it is gone."""
    try:
        return os.stat(path).st_nlink
    except OSError:
        return 0


def _small_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
