"""Reads what the workloads of this host use: a source without channels, whose readings divide the energy of the others.

Divides nothing itself (see attribution). Sources of truth: the control groups (cgroups.py), /proc/stat for the CPUs of each
package, and /proc/<pid>/cgroup for processes that hold a GPU.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from wattledger_agent.cgroup_names import PodName, group_of
from wattledger_agent.cgroups import (
    Cgroups,
    CgroupsUnavailableError,
    Opener,
    Pread,
    cpus_of,
    find_hierarchy,
    open_for_reading,
)
from wattledger_agent.cpu_times import CpuTimes
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelSpec,
    Reading,
    SourceUnavailableError,
    Workload,
    WorkloadKind,
    WorkloadsReading,
)

NAME = "workloads"

# Groups are looked for this often; what lives between two looks is unattributed.
SCAN_SECONDS = 5.0

# What a tick's scan may find gone is looked at no more often than this, so that a host that ends a group in every tick does
# not pay for a scan in each.
RESCAN_SECONDS = 1.0

# Processes that hold a GPU: 16 GPUs with 16 processes each. Each has one open file.
PROCESSES_MAX = 256

# A process that ended just now is not seen either; where so many were not, and none was, something hides them.
UNSEEN_MIN = 10

# Sockets of the largest servers, several times over; a number beyond it is no package.
PACKAGES_MAX = 64

# What /proc/self/ns/pid of the host's own PID namespace leads to (PROC_PID_INIT_INO in the kernel).
HOST_PID_NAMESPACE = "pid:[4026531836]"


class PodNames(Protocol):
    """Names of pods by uid; see KubeletNames."""

    @property
    def names(self) -> Mapping[str, PodName]:
        """All that is known; the same object as long as nothing changed."""

    @property
    def problem(self) -> str:
        """Why names are missing; empty if none are."""

    def look(self, now_nanoseconds: int, *, has_unknown: bool) -> None:
        """Ask if it is time to; returns at once."""


class WorkloadsSource:
    """The workloads of one host.

    cgroup_root, procfs_root, sysfs_root: where they are mounted. kinds: which workloads are wanted.
    with_memory, with_reservations: whether to read these too. names: of pods, if the kubelet tells them.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        cgroup_root: Path = Path("/sys/fs/cgroup"),
        procfs_root: Path = Path("/proc"),
        sysfs_root: Path = Path("/sys"),
        *,
        kinds: frozenset[WorkloadKind] = frozenset(WorkloadKind),
        with_memory: bool = False,
        with_reservations: bool = False,
        names: PodNames | None = None,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
    ) -> None:
        self._cgroup_root = cgroup_root
        self._procfs_root = procfs_root
        self._sysfs_root = sysfs_root
        self._kinds = kinds
        self._with_memory = with_memory
        self._with_reservations = with_reservations
        self._names = names
        self._opener = opener
        self._pread = pread
        self._cgroups: Cgroups | None = None
        self._stat = self._meminfo = -1
        self._package_of: dict[int, int] = {}
        self._cpu_times = CpuTimes({})
        self._nanoseconds_per_tick = NANOSECONDS_PER_SECOND // os.sysconf("SC_CLK_TCK")
        self._scanned_nanoseconds = 0
        self._processes: dict[int, int] = {}
        self._unseen = 0
        self._seen = False
        self._shown: Mapping[int, Workload] = {}
        self._shown_of: tuple[object, object] = (None, None)

    def open(self) -> Sequence[ChannelSpec]:
        """Find the groups. It has no channels: what it reads divides those of other sources."""
        try:
            hierarchy = find_hierarchy(self._cgroup_root)
            self._stat = self._opener(self._procfs_root / "stat")
            text = self._pread(self._stat, 1 << 20, 0)
            self._package_of = self._find_packages(text)
            self._cpu_times = CpuTimes(self._package_of)
            self._cpu_times.of(text)
            if self._with_memory:
                self._meminfo = self._opener(self._procfs_root / "meminfo")
        except CgroupsUnavailableError as error:
            self.close()
            raise SourceUnavailableError(f"workloads: {error}.", "Until then no energy is told by workload.") from error
        except (OSError, ValueError) as error:
            self.close()
            raise SourceUnavailableError(
                f"workloads: {self._procfs_root / 'stat'} can't be used: {error}.",
                "Mount procfs there, or name its place with --procfs-root.",
            ) from error
        self._cgroups = Cgroups(
            hierarchy,
            self._kinds,
            packages_of=self._packages_of if self._cpu_times.packages > 1 else None,
            with_memory=self._with_memory,
            with_reservations=self._with_reservations,
            opener=self._opener,
            pread=self._pread,
        )
        self._cgroups.scan()
        return []

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Return one WorkloadsReading. Raises OSError if /proc/stat can't be read."""
        groups = self._cgroups
        if groups is None:
            return []
        since = (now_nanoseconds - self._scanned_nanoseconds) / NANOSECONDS_PER_SECOND
        if not 0 <= since < (RESCAN_SECONDS if groups.is_stale else SCAN_SECONDS):
            self._scanned_nanoseconds = now_nanoseconds
            groups.scan()
        try:
            busy, idle = self._times(self._pread(self._stat, self._cpu_times.bytes_max, 0))
        except ValueError as error:
            raise OSError(f"{self._procfs_root / 'stat'}: {error}") from error
        times = groups.cpu_nanoseconds()
        workloads = self._named(now_nanoseconds, groups.workloads)
        if len(times) != len(workloads):
            # One went in this very tick; the scan that its read asked for will say which.
            workloads = {number: workload for number, workload in workloads.items() if number in times}
        memory = groups.memory_bytes() if self._with_memory else {}
        used = self._memory_used() if self._with_memory else 0
        return [
            WorkloadsReading(busy, idle, workloads, times, groups.within, groups.packages, groups.reservations, memory, used)
        ]

    def owner_of(self, process: int) -> int | None:
        """Return the number of the workload of a process; None if it has none or can't be seen.

        One read for a process that is known: its file stays open, belongs to that very process, and fails once it has ended.
        """
        if self._cgroups is None:
            return None
        for _ in range(2):
            descriptor = self._processes.get(process, -1)
            try:
                if descriptor < 0:
                    descriptor = self._open_process(process)
                text = self._pread(descriptor, 4096, 0).decode(errors="replace")
            except OSError:
                # It has ended; its number may be another process's by now.
                if self._processes.pop(process, -1) >= 0:
                    os.close(descriptor)
                    continue
                self._unseen += 1
                return None
            self._seen = True
            return self._cgroups.owner_of(group_of(text, self._cgroups.hierarchy.controller))
        return None

    def notes(self) -> Sequence[str]:
        """Say what keeps workloads or their processes from being seen."""
        groups = self._cgroups
        if groups is None:
            return []
        notes = []
        if groups.hierarchy.is_namespaced:
            notes.append(
                f"workloads: {self._cgroup_root} shows only this container's groups: mount the host's folder there, or run "
                "the container with the host's cgroup namespace (docker: --cgroupns=host)."
            )
        if self._is_in_pid_namespace():
            notes.append(
                "workloads: this is another PID namespace than the host's, so that processes on GPUs can't be told apart: "
                "run with the host's (docker: --pid=host; Kubernetes: hostPID), or give the host's /proc as --procfs-root."
            )
        elif self._unseen >= UNSEEN_MIN and not self._seen:
            notes.append(
                f"workloads: no process on a GPU can be seen in {self._procfs_root}, so that GPUs' energy is unattributed: "
                "set ProtectProc=default in the agent's unit, mount /proc without hidepid, or give the host's with "
                "--procfs-root."
            )
        if groups.unheld:
            notes.append(
                f"workloads: {groups.unheld} groups are opened for each read, since no more files may stay open: raise "
                "LimitNOFILE."
            )
        if groups.ignored:
            notes.append(f"workloads: {groups.ignored} groups beyond the most that are read stay unattributed.")
        if self._names is not None and self._names.problem:
            notes.append(self._names.problem)
        return notes

    def close(self) -> None:
        """Close all files."""
        if self._cgroups is not None:
            self._cgroups.close()
            self._cgroups = None
        for descriptor in (self._stat, self._meminfo, *self._processes.values()):
            if descriptor >= 0:
                os.close(descriptor)
        self._stat = self._meminfo = -1
        self._processes.clear()

    def _times(self, text: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Busy and idle time of each package; nanoseconds. Time given to others by a hypervisor is in neither."""
        busy, idle = self._cpu_times.of(text)
        scale = self._nanoseconds_per_tick
        return tuple(time * scale for time in busy), tuple(time * scale for time in idle)

    def _find_packages(self, text: bytes) -> dict[int, int]:
        """The package of each CPU that /proc/stat lists, as devices are numbered."""
        packages = {}
        for line in text.split(b"\n"):
            name = line.partition(b" ")[0]
            if name.startswith(b"cpu") and name[3:].isdigit():
                cpu = int(name[3:])
                path = self._sysfs_root / f"devices/system/cpu/cpu{cpu}/topology/physical_package_id"
                try:
                    packages[cpu] = int(path.read_text())
                except (OSError, ValueError):
                    packages[cpu] = -1
        known = sorted({package for package in packages.values() if package >= 0})
        if self._is_arm() or (known and known[-1] >= PACKAGES_MAX):
            # There ids are offsets in a firmware table, and sensors count sockets; RAPL's zones have the ids of x86.
            packages = {cpu: known.index(package) if package >= 0 else -1 for cpu, package in packages.items()}
        # Kernels that don't know say -1.
        return {cpu: package if 0 <= package < PACKAGES_MAX else 0 for cpu, package in packages.items()}

    def _is_arm(self) -> bool:
        try:
            return b"CPU implementer" in (self._procfs_root / "cpuinfo").read_bytes()
        except OSError:
            return False

    def _packages_of(self, cpus: str) -> set[int]:
        try:
            return {self._package_of[cpu] for cpu in cpus_of(cpus) if cpu in self._package_of}
        except ValueError:
            return set()

    def _named(self, now_nanoseconds: int, workloads: Mapping[int, Workload]) -> Mapping[int, Workload]:
        """The workloads with the names that the kubelet told; the same object as long as nothing changed."""
        if self._names is None:
            return workloads
        names = self._names.names
        if self._shown_of[0] is not workloads or self._shown_of[1] is not names:
            self._shown_of = workloads, names
            self._shown = {number: _with_name(workload, self._names) for number, workload in workloads.items()}
        pods = (workload.id for workload in workloads.values() if workload.kind is WorkloadKind.KUBERNETES_POD)
        self._names.look(now_nanoseconds, has_unknown=any(pod not in names for pod in pods))
        return self._shown

    def _memory_used(self) -> int:
        """Memory of the host that is in use, page cache included, as in the groups' own counters; bytes."""
        try:
            text = self._pread(self._meminfo, 256, 0)
            total, free = (int(text.split(label, 1)[1].split(None, 1)[0]) for label in (b"MemTotal:", b"MemFree:"))
        except (OSError, ValueError, IndexError):
            return 0
        return max(0, total - free) * 1024

    def _open_process(self, process: int) -> int:
        descriptor = self._opener(self._procfs_root / str(process) / "cgroup")
        while len(self._processes) >= PROCESSES_MAX:
            os.close(self._processes.pop(next(iter(self._processes))))
        self._processes[process] = descriptor
        return descriptor

    def _is_in_pid_namespace(self) -> bool:
        try:
            status = (self._procfs_root / "self/status").read_text()
            # With a procfs of the host, a process in a namespace has a number in each.
            inner = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
            return len(inner) == 1 and os.readlink(self._procfs_root / "self/ns/pid") != HOST_PID_NAMESPACE
        except OSError:
            return False


def _with_name(workload: Workload, names: PodNames) -> Workload:
    pod = names.names.get(workload.id) if workload.kind is WorkloadKind.KUBERNETES_POD else None
    return workload if pod is None else Workload(workload.kind, workload.id, pod.namespace, pod.name)
