"""Recognises workloads by the names of their control groups: pods, Slurm jobs, units, containers and machines.

Reads nothing: a path in, a workload out. Sources of truth: the kubelet's cgroup manager (both drivers), Slurm's plugins for
cgroups (v1 and v2), systemd.slice(5) and systemd.unit(5) for names and their escapes, and what Docker, Podman, LXC and
libvirt name their groups.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wattledger_agent.readings import Workload, WorkloadKind

# Below these nothing else is a workload, so that their folders need not be listed. Inside of a unit there may be anything
# (user sessions hold rootless containers), inside of a container pods (a container that plays a node).
CLOSED_KINDS = (WorkloadKind.KUBERNETES_POD, WorkloadKind.SLURM_JOB, WorkloadKind.VIRTUAL_MACHINE)

# A pod's uid, with dashes, with underscores where systemd names it, or as the plain hash of a static pod. The quality of
# service may be missing: guaranteed pods stand right below kubepods.
_POD_UID = r"([0-9a-f]{8}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{12})"
_POD_SLICE = re.compile(rf"(?:[a-z0-9]+-)*kubepods(?:-[a-z]+)?-pod{_POD_UID}\.slice")
_POD_FOLDER = re.compile(rf"pod{_POD_UID}")
_CONTAINER_ID = r"([0-9a-f]{64})"
_CONTAINER_SCOPE = re.compile(rf"(?:docker|libpod|libpod-payload|nerdctl|crio|cri-containerd)-{_CONTAINER_ID}(?:\.scope)?")
_CONTAINER_FOLDER = re.compile(_CONTAINER_ID)
_LXC = re.compile(r"lxc\.payload\.(.+)")
_SLURM_JOB = re.compile(r"job_([0-9]+)")
_SLURM_USER = re.compile(r"uid_([0-9]+)")
_SLURM_ROOT = re.compile(r"slurm(?:_.*)?")
_SLURM_SCOPE = re.compile(r"(?:.*_)?slurmstepd\.scope")
_MACHINE_SCOPE = re.compile(r"machine-(qemu|lxc)-[0-9]+-(.+)\.scope")
_MACHINE_FOLDER = re.compile(r"(?:qemu-[0-9]+-)?(.+)\.libvirt-qemu")
_NSPAWN_SCOPE = re.compile(r"machine-(.+)\.scope")
_USER_SLICE = re.compile(r"user-[0-9]+\.slice")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")

_CONTAINER_PARENTS = ("docker", "libpod_parent", "containerd", "nerdctl")


@dataclass(frozen=True, slots=True)
class PodName:
    """What a pod is called."""

    namespace: str
    name: str


def recognise(path: Sequence[str]) -> Workload | None:
    """Return the workload that is this very group; None if it is none. path: folders below the root of the hierarchy."""
    name = path[-1]
    above = path[-2] if len(path) > 1 else ""
    return _pod(path, name) or _job(path, name, above) or _container(name, above) or _machine(name, above) or _unit(path)


def may_contain(outer: Workload, inner: Workload) -> bool:
    """Whether a workload counts by itself inside of another one."""
    if outer.kind is WorkloadKind.SYSTEMD_UNIT:
        return inner.kind is not WorkloadKind.SYSTEMD_UNIT
    return outer.kind is WorkloadKind.CONTAINER and inner.kind is WorkloadKind.KUBERNETES_POD


def group_of(cgroup_file: str, controller: str) -> str:
    """Return the group that /proc/<pid>/cgroup names for a v1 controller, or for v2 (empty); empty if it names none."""
    for line in cgroup_file.splitlines():
        # The unified hierarchy is the line with number 0 and no controller: `0::/system.slice/...`.
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and (controller in controllers.split(",") if controller else not controllers):
            return path.removesuffix(" (deleted)").strip("/")
    return ""


def _pod(path: Sequence[str], name: str) -> Workload | None:
    match = _POD_SLICE.fullmatch(name)
    if match is None and any("kubepods" in folder for folder in path[:-1]):
        match = _POD_FOLDER.fullmatch(name)
    if match is None:
        return None
    uid = match[1].replace("_", "-")
    return Workload(WorkloadKind.KUBERNETES_POD, uid, "", uid)


def _job(path: Sequence[str], name: str, above: str) -> Workload | None:
    match = _SLURM_JOB.fullmatch(name)
    if match is None:
        return None
    user = _SLURM_USER.fullmatch(above)
    if user is not None and len(path) > 2 and _SLURM_ROOT.fullmatch(path[-3]):
        return Workload(WorkloadKind.SLURM_JOB, match[1], f"uid {user[1]}")
    if _SLURM_SCOPE.fullmatch(above):
        return Workload(WorkloadKind.SLURM_JOB, match[1])
    return None


def _container(name: str, above: str) -> Workload | None:
    match = _CONTAINER_SCOPE.fullmatch(name)
    if match is None and above in _CONTAINER_PARENTS:
        match = _CONTAINER_FOLDER.fullmatch(name)
    if match is not None:
        return Workload(WorkloadKind.CONTAINER, match[1], "", match[1][:12])
    if (lxc := _LXC.fullmatch(name)) is not None:
        return Workload(WorkloadKind.CONTAINER, lxc[1], "", lxc[1])
    if above == "lxc" and not name.startswith("lxc."):
        return Workload(WorkloadKind.CONTAINER, name, "", name)
    return None


def _machine(name: str, above: str) -> Workload | None:
    plain = _unescaped(name)
    if (match := _MACHINE_SCOPE.fullmatch(plain)) is not None:
        kind = WorkloadKind.VIRTUAL_MACHINE if match[1] == "qemu" else WorkloadKind.CONTAINER
        return Workload(kind, match[2], "", match[2])
    if above == "machine" and (match := _MACHINE_FOLDER.fullmatch(plain)) is not None:
        return Workload(WorkloadKind.VIRTUAL_MACHINE, match[1], "", match[1])
    if above == "machine.slice" and (match := _NSPAWN_SCOPE.fullmatch(plain)) is not None:
        return Workload(WorkloadKind.CONTAINER, match[1], "", match[1])
    return None


def _unit(path: Sequence[str]) -> Workload | None:
    """A service or scope that stands in slices alone, or all of one user's sessions."""
    name = path[-1]
    if _USER_SLICE.fullmatch(name):
        return Workload(WorkloadKind.SYSTEMD_UNIT, name, "", name)
    if not name.endswith((".service", ".scope")) or not all(folder.endswith(".slice") for folder in path[:-1]):
        return None
    # Slurm's steps and Podman's monitors belong to jobs and containers that stand elsewhere.
    if _SLURM_SCOPE.fullmatch(name) or name.startswith("libpod-conmon-"):
        return None
    plain = _unescaped(name)
    return Workload(WorkloadKind.SYSTEMD_UNIT, plain, "", plain)


def _unescaped(name: str) -> str:
    """Undo systemd's escapes (systemd.unit(5)), as in machine-qemu\\x2d1\\x2dweb.scope."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
