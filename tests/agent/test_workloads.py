"""The source of workloads on whole machines, and their energy through real RAPL and meter."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.agent.machines import Machine, machine

from wattledger_agent.cgroup_names import PodName
from wattledger_agent.counters import Instant
from wattledger_agent.kubelet import pod_names
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    IdlePolicy,
    Reading,
    SourceUnavailableError,
    WorkloadKind,
    WorkloadsReading,
)
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workloads import WorkloadsSource

SECOND = 1_000_000_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
GUARANTEED = "1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6"
BURSTABLE = "2a4c6e80-1111-4222-8333-444455556666"
BURSTABLE_PATH = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2a4c6e80_1111_4222_8333_444455556666.slice"
GUARANTEED_PATH = "kubepods.slice/kubepods-pod1f3e5a7c_0b2d_4c6e_8f10_a1b2c3d4e5f6.slice"


def source_of(host: Machine, names: "Names | None" = None, *, with_memory: bool = False) -> WorkloadsSource:
    """The source on a machine, opened."""
    source = WorkloadsSource(host.sys / "fs/cgroup", host.proc, host.sys, with_memory=with_memory, names=names)
    source.open()
    return source


def read(source: WorkloadsSource, second: float = 1.0) -> WorkloadsReading:
    """One reading."""
    (reading,) = source.read(round(second * SECOND))
    assert isinstance(reading, WorkloadsReading)
    return reading


@dataclass
class Names:
    """What a kubelet said."""

    names: Mapping[str, PodName] = field(default_factory=dict)
    problem: str = ""
    unknown: list[bool] = field(default_factory=list)

    def look(self, now_nanoseconds: int, *, has_unknown: bool) -> None:
        """See PodNames."""
        self.unknown.append(has_unknown)


@dataclass
class Running:
    """A machine whose clocks, counters and groups go on by hand; two CPUs in each of two packages."""

    host: Machine
    seconds: int = 0

    def use(self, path: str, seconds: float) -> None:
        """Let a group of v2 use CPU time."""
        file = self.host.sys / "fs/cgroup" / path / "cpu.stat"
        name, used, *rest = file.read_text().split(maxsplit=2)
        file.write_text(f"{name} {int(used) + round(seconds * 1e6)}\n{' '.join(rest)}")

    def use_v1(self, path: str, seconds: float) -> None:
        """Let a group of v1 use CPU time."""
        file = self.host.sys / "fs/cgroup/cpuacct" / path / "cpuacct.usage"
        file.write_text(f"{int(file.read_text()) + round(seconds * SECOND)}\n")

    def work(self, *busy: float) -> None:
        """A second passes in which each CPU is busy for this part of it."""
        self.seconds += 1
        path = self.host.proc / "stat"
        lines = path.read_text().splitlines()
        for cpu, part in enumerate(busy):
            fields = lines[1 + cpu].split()
            fields[1] = str(int(fields[1]) + round(part * TICKS_PER_SECOND))
            fields[4] = str(int(fields[4]) + round((1 - part) * TICKS_PER_SECOND))
            lines[1 + cpu] = " ".join(fields)
        path.write_text("\n".join(lines) + "\n")


def test_every_pod_of_a_kubernetes_node_is_found(tmp_path: Path) -> None:
    """Guaranteed (kepler#2354), burstable, best effort and static ones, each once, and the node's own units."""
    source = source_of(machine("kubernetes_cgroup_v2", tmp_path))
    reading = read(source)
    kinds = Counter(workload.kind for workload in reading.workloads.values())
    assert kinds == {WorkloadKind.KUBERNETES_POD: 4, WorkloadKind.SYSTEMD_UNIT: 6}
    times = {workload.id: reading.cpu_nanoseconds[number] for number, workload in reading.workloads.items()}
    assert times[GUARANTEED] == 3_000_000_000_000
    assert {reading.workloads[number].id: package for number, package in reading.packages.items()} == {GUARANTEED: 1}
    assert source.notes() == []
    source.close()


def test_every_job_of_a_slurm_node_is_found(tmp_path: Path) -> None:
    """In v1's cpuacct, beside a unified hierarchy without controllers; with the packages that they are bound to."""
    source = source_of(machine("slurm_cgroup_v1", tmp_path))
    reading = read(source)
    jobs = {w.id: number for number, w in reading.workloads.items() if w.kind is WorkloadKind.SLURM_JOB}
    assert {job: reading.cpu_nanoseconds[number] // SECOND for job, number in jobs.items()} == {
        "4711": 5000,
        "4712": 1000,
        "4800": 3000,
    }
    assert {job: reading.packages.get(number) for job, number in jobs.items()} == {"4711": 0, "4712": None, "4800": 1}
    assert source.owner_of(5001) == jobs["4711"]
    source.close()


def metered(
    host: Machine,
    step: Callable[[Running, int], None],
    *,
    idle: IdlePolicy = IdlePolicy.NODE_ONLY,
    seconds: int = 3,
) -> dict[str, float]:
    """Joules by id (by kind where there is none) after some seconds of 100 W in each package and 10 W in its memory."""
    running = Running(host)
    workloads, rapl = (
        source_of(host),
        RaplSource(host.sys, host.proc, opener=host.opener, pread=host.pread, settle=host.settle),
    )
    meter = Meter(state=None, integral_gap_seconds_max=10.0, workloads=WorkloadSettings(idle, 50, 60.0, workloads.owner_of))
    meter.offer(rapl.open(), Instant(b"b" * 16, 0, 0, True, 0))
    for second in range(seconds + 1):
        if second:
            for package in ("intel-rapl:0", "intel-rapl:1"):
                host.add_energy(package, 100_000_000)
                host.add_energy(f"{package}:0", 10_000_000)
            step(running, second)
        now = Instant(b"b" * 16, (second + 1) * SECOND, (second + 1) * SECOND, True, 0)
        readings: list[Reading] = [*workloads.read(now.boottime_nanoseconds), *rapl.read(now.boottime_nanoseconds)]
        meter.observe(readings, now)
    assert meter.workloads is not None
    joules: Counter[str] = Counter()
    for account in meter.workloads.all():
        joules[account.workload.id or account.workload.kind.name] += sum(account.energies.values())
    workloads.close()
    rapl.close()
    assert sum(joules.values()) == 220_000_000 * seconds
    return {name: round(energy / 1e6, 1) for name, energy in joules.items() if energy}


def test_a_pods_energy_is_its_part_of_the_package_that_it_is_bound_to(tmp_path: Path) -> None:
    """The guaranteed pod works on the second package alone; a burstable one has half of the first; the kernel the rest."""

    def step(running: Running, _: int) -> None:
        running.use(GUARANTEED_PATH, 2.0)
        running.use(BURSTABLE_PATH, 0.5)
        running.work(1.0, 0.0, 1.0, 1.0)

    joules = metered(machine("kubernetes_cgroup_v2", tmp_path), step)
    assert joules == {GUARANTEED: 330, BURSTABLE: 82.5, "UNATTRIBUTED": 82.5, "IDLE": 165}


def test_packages_of_arm_are_counted_as_its_sensors_count_them(tmp_path: Path) -> None:
    """Their ids are offsets in a firmware table: 36 and 3180 are the first and the second."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    ids = sorted((host.sys / "devices/system/cpu").glob("cpu[0-9]*/topology/physical_package_id"))
    plain = source_of(host)
    expected = read(plain)
    plain.close()
    assert len(expected.busy_nanoseconds) == 2
    for path in ids:
        path.write_text({"0": "36\n", "1": "3180\n"}[path.read_text().strip()])
    source = source_of(host)
    reading = read(source)
    assert (reading.busy_nanoseconds, reading.idle_nanoseconds) == (expected.busy_nanoseconds, expected.idle_nanoseconds)
    assert [reading.workloads[number].id for number in reading.packages] == [GUARANTEED]
    assert set(reading.packages.values()) == {1}
    source.close()


def test_the_one_package_of_an_arm_is_the_first_whatever_its_id(tmp_path: Path) -> None:
    """Else there would be packages before it of which nothing is known, and their sensor's energy would be nobody's."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    (host.proc / "cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n")
    for path in (host.sys / "devices/system/cpu").glob("cpu[0-9]*/topology/physical_package_id"):
        path.write_text("36\n")
    source = source_of(host)
    assert len(read(source).busy_nanoseconds) == 1
    source.close()


def test_a_package_of_x86_keeps_its_number(tmp_path: Path) -> None:
    """RAPL's zone is called package-3 there, though there is no second one."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    for path in (host.sys / "devices/system/cpu").glob("cpu[0-9]*/topology/physical_package_id"):
        path.write_text({"0": "0\n", "1": "3\n"}[path.read_text().strip()])
    source = source_of(host)
    assert set(read(source).packages.values()) == {3}
    source.close()


def test_a_jobs_energy_is_its_part_of_its_package(tmp_path: Path) -> None:
    """One job on each package: the first has all of what is busy there, the second half of it."""

    def step(running: Running, _: int) -> None:
        running.use_v1("slurm/uid_1000/job_4711", 2.0)
        running.use_v1("slurm/uid_1001/job_4800", 1.0)
        running.work(1.0, 1.0, 1.0, 1.0)

    joules = metered(machine("slurm_cgroup_v1", tmp_path), step)
    assert joules == {"4711": 330, "4800": 165, "UNATTRIBUTED": 165}


def test_idle_energy_goes_by_the_policy(tmp_path: Path) -> None:
    """A host that idles all the time: nobody's under `node-only`, a fifth each of five under `equal`."""

    def step(running: Running, _: int) -> None:
        running.work(0.0, 0.0, 0.0, 0.0)

    assert metered(machine("slurm_cgroup_v1", tmp_path / "a"), step) == {"IDLE": 660}
    equal = metered(machine("slurm_cgroup_v1", tmp_path / "b"), step, idle=IdlePolicy.EQUAL)
    assert equal == dict.fromkeys(["4711", "4712", "4800", "slurmd.service", "sshd.service"], 132)


def test_a_group_that_goes_takes_no_other_with_it(tmp_path: Path) -> None:
    """Its last seconds are nobody's; the others' go on, and all is accounted for."""

    def step(running: Running, second: int) -> None:
        running.use(GUARANTEED_PATH, 1.0)
        running.work(0.0, 0.0, 1.0, 0.0)
        if second == 2:
            (running.host.sys / "fs/cgroup/system.slice/ssh.service/cpu.stat").write_text("")

    joules = metered(machine("kubernetes_cgroup_v2", tmp_path), step)
    assert joules[GUARANTEED] == 165


def test_waiting_for_a_disk_is_idling_and_stolen_time_is_neither(tmp_path: Path) -> None:
    """In the order of proc.rst: user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user's."""
    host = machine("virtual_machine", tmp_path)
    (host.proc / "stat").write_text("cpu  1 2 4 8 16 32 64 128 1 0\ncpu0 1 2 4 8 16 32 64 128 1 0\nintr 5\n")
    groups = host.sys / "fs/cgroup"
    groups.mkdir(parents=True)
    (groups / "cgroup.controllers").write_text("")
    source = source_of(host)
    reading = read(source)
    tick = SECOND // TICKS_PER_SECOND
    assert (reading.busy_nanoseconds, reading.idle_nanoseconds) == ((103 * tick,), (24 * tick,))
    source.close()


def test_a_group_that_goes_between_two_scans_is_in_no_reading(tmp_path: Path) -> None:
    """Neither as a workload without a time, nor as a time without a workload."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    source = source_of(host)
    before = read(source)
    (host.sys / "fs/cgroup/system.slice/ssh.service/cpu.stat").write_text("")
    after = read(source, 1.5)
    assert after.workloads.keys() == after.cpu_nanoseconds.keys() < before.workloads.keys()
    source.close()


def test_pods_have_the_names_that_the_kubelet_tells(tmp_path: Path) -> None:
    """And are asked for while one is unknown; without a name the uid is one."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    names = Names()
    source = source_of(host, names)
    first = read(source)
    assert {w.name for w in first.workloads.values() if w.kind is WorkloadKind.KUBERNETES_POD} >= {GUARANTEED}
    names.names = pod_names((host.root / "kubelet/pods.json").read_bytes())
    second = read(source, 2.0)
    named = {(w.namespace, w.name) for w in second.workloads.values() if w.kind is WorkloadKind.KUBERNETES_POD}
    assert named == {("ml", "train-0"), ("shop", "web-5d9"), ("kube-system", "kube-proxy-node1"), ("ml", "batch-x")}
    assert names.unknown == [True, False]
    assert read(source, 3.0).workloads is second.workloads
    source.close()


def test_processes_are_found_by_one_read_each(tmp_path: Path) -> None:
    """The file stays open: it belongs to that process, and tells where it is now."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    opened: Counter[str] = Counter()

    def opener(path: Path) -> int:
        opened[str(path)] += 1
        return os.open(path, os.O_RDONLY)

    source = WorkloadsSource(host.sys / "fs/cgroup", host.proc, host.sys, opener=opener)
    source.open()
    workloads = read(source).workloads
    for _ in range(3):
        number = source.owner_of(4001)
        assert number is not None
        assert workloads[number].id == GUARANTEED
    assert opened[str(host.proc / "4001/cgroup")] == 1
    (host.proc / "4001/cgroup").write_text("0::/system.slice/kubelet.service\n")
    moved = source.owner_of(4001)
    assert moved is not None
    assert workloads[moved].id == "kubelet.service"
    assert source.owner_of(4003) is None
    source.close()


def test_a_process_that_can_not_be_seen_is_nobodys(tmp_path: Path) -> None:
    """In another PID namespace its number means nothing here (nvidia-docker#1483): unattributed, and told."""
    source = source_of(machine("kubernetes_cgroup_v2", tmp_path))
    assert source.owner_of(999_999) is None
    source.close()


def test_a_process_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    """The open file fails once its process has ended; then the number is looked up anew."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    ended: set[int] = set()

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if descriptor in ended:
            ended.discard(descriptor)  # Closed now; another file may get its number.
            raise ProcessLookupError
        return os.pread(descriptor, count, offset)

    source = WorkloadsSource(host.sys / "fs/cgroup", host.proc, host.sys, pread=pread)
    source.open()
    assert source.owner_of(4001) is not None
    ended.update(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
                 and os.readlink(f"/proc/self/fd/{name}").endswith("4001/cgroup"))  # fmt: skip
    workloads = read(source).workloads
    (host.proc / "4001/cgroup").write_text("0::/system.slice/kubelet.service\n")
    number = source.owner_of(4001)
    assert number is not None
    assert workloads[number].id == "kubelet.service"
    source.close()


def test_another_pid_namespace_is_told(tmp_path: Path) -> None:
    """With the remedy; not where /proc is the host's, in which a process has a number for each namespace."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    own = host.proc / "self/ns"
    own.mkdir(parents=True)
    (own / "pid").symlink_to("pid:[4026532201]")
    (host.proc / "self/status").write_text("Name:\tagent\nNSpid:\t7\n")
    source = source_of(host)
    assert any("--pid=host" in note for note in source.notes())
    (host.proc / "self/status").write_text("Name:\tagent\nNSpid:\t4242\t7\n")
    assert source.notes() == []
    source.close()


def test_processes_that_are_hidden_are_told(tmp_path: Path) -> None:
    """By hidepid or a sandbox; one that only ended is not seen either, so that it takes some, and none that is seen."""
    source = source_of(machine("kubernetes_cgroup_v2", tmp_path))
    for process in range(900_000, 900_009):
        source.owner_of(process)
    assert source.notes() == []
    source.owner_of(900_009)
    assert any("ProtectProc=default" in note for note in source.notes())
    source.owner_of(4001)
    assert source.notes() == []
    source.close()


def test_a_container_that_sees_only_its_own_groups_is_told(tmp_path: Path) -> None:
    """With the remedy."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    (host.sys / "fs/cgroup/cgroup.events").write_text("populated 1\n")
    source = source_of(host)
    assert any("--cgroupns=host" in note for note in source.notes())
    source.close()


def test_memory_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    """v1 and v2 name the file differently; what the host uses is told beside it."""
    for name in ("kubernetes_cgroup_v2", "slurm_cgroup_v1"):
        source = source_of(machine(name, tmp_path), with_memory=True)
        reading = read(source)
        assert reading.memory_bytes.keys() == reading.workloads.keys()
        assert reading.memory_used_bytes > max(reading.memory_bytes.values())
        source.close()


def test_a_host_without_groups_is_told_with_its_remedy(tmp_path: Path) -> None:
    """Everything else is metered as ever."""
    host = machine("xeon_two_sockets", tmp_path)
    with pytest.raises(SourceUnavailableError, match="mount cgroup2"):
        WorkloadsSource(host.sys / "fs/cgroup", host.proc, host.sys).open()


def test_a_tick_reads_each_file_once_and_opens_none(tmp_path: Path) -> None:
    """Ten groups and /proc/stat: eleven reads."""
    host = machine("kubernetes_cgroup_v2", tmp_path)
    calls: Counter[str] = Counter()

    def opener(path: Path) -> int:
        calls["open"] += 1
        return os.open(path, os.O_RDONLY)

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        calls["pread"] += 1
        return os.pread(descriptor, count, offset)

    source = WorkloadsSource(host.sys / "fs/cgroup", host.proc, host.sys, opener=opener, pread=pread)
    source.open()
    read(source, 10.0)
    calls.clear()
    for tick in range(1, 5):
        read(source, 10.0 + tick)
    assert calls == {"pread": 4 * 11}
    source.close()
