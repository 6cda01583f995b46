"""Finding control groups and reading them: what comes and goes, and how many system calls it takes."""

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wattledger_agent.cgroups import Cgroups, CgroupsUnavailableError, cpus_of, find_hierarchy
from wattledger_agent.readings import WorkloadKind

ALL = frozenset(WorkloadKind)
ID = "0123456789abcdef" * 4


@dataclass
class Tree:
    """A v2 hierarchy in a folder. gone: groups whose files the kernel answers with ENODEV."""

    root: Path
    gone: set[str] = field(default_factory=set)
    preads: int = 0
    opens: int = 0
    _paths: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "cgroup.controllers").write_text("cpu\n")

    def add(self, path: str, microseconds: int = 0) -> Path:
        """Make a group, or let its CPU time be this."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.stat").write_text(f"usage_usec {microseconds}\nuser_usec 0\nsystem_usec 0\n")
        return folder

    def remove(self, path: str) -> None:
        """As the kernel does: the folder goes, and open files of it fail."""
        shutil.rmtree(self.root / path)
        self.gone.add(path)

    def opener(self, path: Path) -> int:
        """Opens a file."""
        descriptor = os.open(path, os.O_RDONLY)
        self.opens += 1
        self._paths[descriptor] = str(path.parent.relative_to(self.root))
        return descriptor

    def pread(self, descriptor: int, count: int, offset: int) -> bytes:
        """Reads a file, unless its group is gone."""
        self.preads += 1
        if self._paths.get(descriptor) in self.gone:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return os.pread(descriptor, count, offset)

    def groups(self, *, files_max: int | None = None, with_reservations: bool = False) -> Cgroups:
        """What reads it, after a first scan."""
        groups = Cgroups(
            find_hierarchy(self.root),
            ALL,
            files_max=files_max,
            with_reservations=with_reservations,
            opener=self.opener,
            pread=self.pread,
        )
        groups.scan()
        return groups


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty host."""
    return Tree(tmp_path / "cgroup")


def times(groups: Cgroups) -> dict[str, int]:
    """CPU time by id; microseconds."""
    return {groups.workloads[number].id: time // 1000 for number, time in groups.cpu_nanoseconds().items()}


def test_three_hundred_groups_take_one_read_each(tree: Tree) -> None:
    """No file is opened in a tick, and none is read twice."""
    for number in range(300):
        tree.add(f"kubepods/burstable/pod{number:08x}-1111-4222-8333-{number:012x}", number)
    groups = tree.groups()
    tree.preads = tree.opens = 0
    assert len(groups.cpu_nanoseconds()) == 300
    groups.scan()
    assert (tree.preads, tree.opens) == (300, 0)
    groups.close()


def test_a_scan_of_an_unchanged_host_lists_no_folder(tree: Tree) -> None:
    """The number of a folder's subfolders tells that nothing changed: the same objects, so that nobody looks at them."""
    tree.add("system.slice/a.service")
    groups = tree.groups()
    before = groups.workloads
    groups.scan()
    assert groups.workloads is before
    groups.close()


def test_groups_that_come_are_found_by_the_next_scan(tree: Tree) -> None:
    """And keep those that were there under their numbers."""
    tree.add("system.slice/a.service", 5)
    groups = tree.groups()
    numbers = set(groups.workloads)
    tree.add("system.slice/b.service", 7)
    groups.scan()
    assert times(groups) == {"a.service": 5, "b.service": 7}
    assert numbers < set(groups.workloads)
    groups.close()


def test_a_group_that_goes_is_left_out_at_once(tree: Tree) -> None:
    """Its file says so at the next read; it is never read as 0, and the others are read as ever."""
    tree.add("system.slice/a.service", 5)
    tree.add("system.slice/b.service", 7)
    groups = tree.groups()
    tree.remove("system.slice/a.service")
    assert times(groups) == {"b.service": 7}
    assert groups.is_stale
    groups.scan()
    assert not groups.is_stale
    assert [workload.id for workload in groups.workloads.values()] == ["b.service"]
    groups.close()


def test_a_group_made_anew_is_another_life(tree: Tree) -> None:
    """Between two scans a unit was started anew: the same name, another folder, another number."""
    tree.add("system.slice/a.service", 500)
    groups = tree.groups()
    (before,) = groups.workloads
    tree.remove("system.slice/a.service")
    (tree.root / "system.slice" / "keep.inode.mount").mkdir()
    tree.add("system.slice/a.service", 3)
    assert times(groups) == {}
    groups.scan()
    tree.gone.clear()
    assert times(groups) == {"a.service": 3}
    assert set(groups.workloads) != {before}
    groups.close()


def test_a_pods_containers_are_not_looked_at(tree: Tree) -> None:
    """Their time is in the pod's counter already."""
    pod = "kubepods/pod1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6"
    tree.add(pod, 10)
    tree.add(f"{pod}/{ID}", 9)
    groups = tree.groups()
    assert times(groups) == {"1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6": 10}
    assert groups.folders == 2
    groups.close()


def test_pods_of_a_container_that_plays_a_node_are_inside_of_it(tree: Tree) -> None:
    """Both are workloads; which is inside of which is told, so that no time counts twice (kepler#29, #766)."""
    node = f"docker/{ID}"
    tree.add(node, 100)
    tree.add(f"{node}/system.slice/containerd.service", 20)
    tree.add(f"{node}/kubelet/kubepods/pod1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6", 60)
    groups = tree.groups()
    kinds = {workload.kind: number for number, workload in groups.workloads.items()}
    assert set(kinds) == {WorkloadKind.CONTAINER, WorkloadKind.KUBERNETES_POD}
    assert groups.within == {kinds[WorkloadKind.KUBERNETES_POD]: kinds[WorkloadKind.CONTAINER]}
    groups.close()


def test_rootless_containers_are_inside_of_their_users_sessions(tree: Tree) -> None:
    """Podman as a user."""
    user = "user.slice/user-1000.slice"
    tree.add(user, 100)
    tree.add(f"{user}/user@1000.service/user.slice/libpod-{ID}.scope", 60)
    groups = tree.groups()
    assert times(groups) == {"user-1000.slice": 100, ID: 60}
    assert len(groups.within) == 1
    groups.close()


def test_kinds_that_are_not_wanted_are_not_opened(tree: Tree) -> None:
    """What they use is unattributed."""
    tree.add("system.slice/a.service", 1)
    tree.add(f"system.slice/docker-{ID}.scope", 2)
    groups = Cgroups(find_hierarchy(tree.root), frozenset({WorkloadKind.CONTAINER}), opener=tree.opener, pread=tree.pread)
    groups.scan()
    assert (times(groups), tree.opens) == ({ID: 2}, 1)
    groups.close()


def test_groups_beyond_the_files_that_may_be_open_are_read_all_the_same(tree: Tree) -> None:
    """At three system calls each, and told."""
    for name in "abc":
        tree.add(f"system.slice/{name}.service", 1)
    groups = tree.groups(files_max=2)
    tree.opens = 0
    assert len(groups.cpu_nanoseconds()) == 3
    assert (groups.unheld, tree.opens) == (1, 1)
    groups.close()


def test_a_text_that_is_no_counter_is_no_zero(tree: Tree) -> None:
    """The group is left out."""
    (tree.add("system.slice/a.service") / "cpu.stat").write_text("usage_usec\n")
    groups = tree.groups()
    assert groups.cpu_nanoseconds() == {}
    groups.close()


def test_reservations_are_what_each_would_have_if_all_wanted_the_cpus(tree: Tree) -> None:
    """Weights count among siblings: a quarter of the half that its slice has."""
    for path, weight in {
        "system.slice": 100,
        "machine.slice": 100,
        "system.slice/a.service": 100,
        "system.slice/b.service": 300,
    }.items():
        (tree.add(path) / "cpu.weight").write_text(f"{weight}\n")
    groups = tree.groups(with_reservations=True)
    parts = {groups.workloads[number].id: part for number, part in groups.reservations.items()}
    assert parts == {"a.service": 125_000_000, "b.service": 375_000_000}
    groups.close()


def test_a_process_is_found_in_the_group_above_its_own(tree: Tree) -> None:
    """A container's process is the pod's; what is in no workload is nobody's."""
    pod = "kubepods/pod1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6"
    tree.add(f"{pod}/{ID}")
    tree.add(pod)
    groups = tree.groups()
    (number,) = groups.workloads
    assert groups.owner_of(f"{pod}/{ID}") == number
    assert groups.owner_of("system.slice") is None
    assert groups.owner_of("") is None
    assert groups.owner_of("../../other") is None
    groups.close()


def test_the_hierarchy_is_known_by_its_files(tmp_path: Path) -> None:
    """v2 by its controllers, v1 by cpuacct, whatever it is mounted with; anything else is told with its remedy."""
    v2, v1, none = tmp_path / "v2", tmp_path / "v1", tmp_path / "none"
    for folder in (v2, v1 / "cpuacct", none):
        folder.mkdir(parents=True)
    (v2 / "cgroup.controllers").write_text("")
    (v1 / "cpuacct/cpuacct.usage").write_text("0\n")
    assert find_hierarchy(v2).version == 2
    assert (find_hierarchy(v1).version, find_hierarchy(v1).controller) == (1, "cpuacct")
    with pytest.raises(CgroupsUnavailableError, match="mount cgroup2 there"):
        find_hierarchy(none)


def test_a_containers_own_view_is_told_from_the_hosts(tree: Tree) -> None:
    """Only a group that is not the root has events: then this is a cgroup namespace."""
    assert not find_hierarchy(tree.root).is_namespaced
    (tree.root / "cgroup.events").write_text("populated 1\n")
    assert find_hierarchy(tree.root).is_namespaced


def test_lists_of_cpus_are_read() -> None:
    """As the kernel writes them."""
    assert list(cpus_of("0-2,8,10-11\n")) == [0, 1, 2, 8, 10, 11]
