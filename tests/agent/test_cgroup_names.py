"""Which control group is which workload, for every way in which they are laid."""

import pytest

from wattledger_agent.cgroup_names import group_of, may_contain, recognise
from wattledger_agent.readings import Workload, WorkloadKind

POD, JOB, UNIT = WorkloadKind.KUBERNETES_POD, WorkloadKind.SLURM_JOB, WorkloadKind.SYSTEMD_UNIT
CONTAINER, MACHINE = WorkloadKind.CONTAINER, WorkloadKind.VIRTUAL_MACHINE
UID = "1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6"
UNDERSCORED = UID.replace("-", "_")
HASH = "9f86d081884c7d659a2feaa0c55ad015"
ID = "0123456789abcdef" * 4


def found(path: str) -> tuple[WorkloadKind, str] | None:
    """Kind and id of the group at a path."""
    workload = recognise(path.split("/"))
    return None if workload is None else (workload.kind, workload.id)


def test_pods_of_the_systemd_driver_are_found() -> None:
    """With their quality of service, and without: guaranteed pods stand right below kubepods.slice (kepler#2354)."""
    root = "kubepods.slice"
    assert found(f"{root}/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice") == (POD, UID)
    assert found(f"{root}/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice") == (POD, UID)
    assert found(f"{root}/kubepods-pod{UNDERSCORED}.slice") == (POD, UID)


def test_pods_of_the_cgroupfs_driver_are_found() -> None:
    """The same three, with dashes."""
    assert found(f"kubepods/burstable/pod{UID}") == (POD, UID)
    assert found(f"kubepods/besteffort/pod{UID}") == (POD, UID)
    assert found(f"kubepods/pod{UID}") == (POD, UID)


def test_static_pods_are_found_by_their_hash() -> None:
    """Their groups bear the hash of the manifest, without dashes."""
    assert found(f"kubepods/burstable/pod{HASH}") == (POD, HASH)
    assert found(f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice") == (POD, HASH)


def test_pods_inside_of_a_container_that_plays_a_node_are_found() -> None:
    """As kind and minikube nest them (kepler#107, #153, #923)."""
    node = f"system.slice/docker-{ID}.scope"
    path = f"{node}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UNDERSCORED}.slice"
    assert found(path) == (POD, UID)
    assert found(f"docker/{ID}/kubelet/kubepods/besteffort/pod{UID}") == (POD, UID)


def test_a_folder_that_looks_like_a_pod_elsewhere_is_none() -> None:
    """Only below kubepods, and only with a whole uid."""
    assert found(f"system.slice/pod{UID}") is None
    assert found("kubepods/podman") is None
    assert found("kubepods.slice/kubepods-burstable.slice") is None


def test_slurm_jobs_are_found() -> None:
    """v1 by user and job under each controller; v2 below slurmstepd's scope, which several daemons of a host name apart."""
    assert found("slurm/uid_1000/job_4711") == (JOB, "4711")
    assert found("slurm_node7/uid_1000/job_4711") == (JOB, "4711")
    assert found("system.slice/slurmstepd.scope/job_4711") == (JOB, "4711")
    assert found("system.slice/node7_slurmstepd.scope/job_4711") == (JOB, "4711")
    workload = recognise(["slurm", "uid_1000", "job_4711"])
    assert workload is not None
    assert workload.namespace == "uid 1000"


def test_slurms_own_groups_are_no_workload() -> None:
    """The scope of all steps would hold every job a second time."""
    assert found("system.slice/slurmstepd.scope") is None
    assert found("slurm/uid_1000") is None
    assert found("backup/job_4711") is None


def test_containers_are_found() -> None:
    """Docker, Podman, nerdctl and LXC, by either driver."""
    assert found(f"system.slice/docker-{ID}.scope") == (CONTAINER, ID)
    assert found(f"docker/{ID}") == (CONTAINER, ID)
    assert found(f"machine.slice/libpod-{ID}.scope") == (CONTAINER, ID)
    assert found(f"libpod_parent/libpod-{ID}") == (CONTAINER, ID)
    assert found(f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope") == (CONTAINER, ID)
    assert found(f"system.slice/web.service/libpod-payload-{ID}") == (CONTAINER, ID)
    assert found(f"system.slice/nerdctl-{ID}.scope") == (CONTAINER, ID)
    assert found("lxc.payload.web") == (CONTAINER, "web")
    assert found("lxc/web") == (CONTAINER, "web")


def test_a_containers_monitor_is_no_container() -> None:
    """Podman's conmon has a scope of its own beside the container's."""
    assert found(f"machine.slice/libpod-conmon-{ID}.scope") is None


def test_virtual_machines_are_found() -> None:
    """libvirt by systemd, whose scope's name is escaped, and without it; the number of the start is none of the name."""
    assert found(r"machine.slice/machine-qemu\x2d3\x2dweb\x2d1.scope") == (MACHINE, "web-1")
    assert found("machine/qemu-3-web-1.libvirt-qemu") == (MACHINE, "web-1")
    assert found("machine/web.libvirt-qemu") == (MACHINE, "web")
    assert found(r"machine.slice/machine-lxc\x2d3\x2dbox.scope") == (CONTAINER, "box")
    assert found("machine.slice/machine-debian.scope") == (CONTAINER, "debian")


def test_units_are_found() -> None:
    """Services and scopes in slices, also nested ones, and each user's sessions as one."""
    assert found("system.slice/ssh.service") == (UNIT, "ssh.service")
    assert found("system.slice/system-getty.slice/getty@tty1.service") == (UNIT, "getty@tty1.service")
    assert found(r"batch.slice/a\x2db.service") == (UNIT, "a-b.service")
    assert found("system.slice/run-u7.scope") == (UNIT, "run-u7.scope")
    assert found("init.scope") == (UNIT, "init.scope")
    assert found("user.slice/user-1000.slice") == (UNIT, "user-1000.slice")


def test_slices_and_mounts_are_no_workload() -> None:
    """They hold workloads, or nothing."""
    for path in ("system.slice", "user.slice", "machine.slice", "system.slice/var-lib.mount", "system.slice/dbus.socket"):
        assert found(path) is None


def test_a_service_inside_of_anything_else_is_part_of_it() -> None:
    """A container that plays a node runs services of its own."""
    assert found(f"docker/{ID}/system.slice/containerd.service") is None


@pytest.mark.parametrize("outer", WorkloadKind)
@pytest.mark.parametrize("inner", WorkloadKind)
def test_only_units_and_containers_hold_workloads(outer: WorkloadKind, inner: WorkloadKind) -> None:
    """A user's sessions may hold containers, a container pods; a pod's containers are the pod's."""
    allowed = may_contain(Workload(outer, "o"), Workload(inner, "i"))
    assert allowed == ((outer is UNIT and inner is not UNIT) or (outer is CONTAINER and inner is POD))


def test_the_unified_hierarchys_line_is_read() -> None:
    """The line of v2 has number 0 and no controller (scaphandre#420)."""
    assert group_of("0::/system.slice/ssh.service\n", "") == "system.slice/ssh.service"
    assert group_of("0::/\n", "") == ""


def test_the_line_of_a_controller_is_read() -> None:
    """v1 names several controllers in one line, and v2's line beside them is another group."""
    text = "12:memory:/a\n5:cpu,cpuacct:/slurm/uid_1000/job_7\n1:name=systemd:/b\n0::/c\n"
    assert group_of(text, "cpuacct") == "slurm/uid_1000/job_7"
    assert group_of(text, "") == "c"
    assert group_of("12:memory:/a\n", "cpuacct") == ""


def test_a_deleted_group_is_named_as_it_was() -> None:
    """The kernel says so behind the name of a group that went while the process lived."""
    assert group_of("0::/a/b (deleted)\n", "") == "a/b"
