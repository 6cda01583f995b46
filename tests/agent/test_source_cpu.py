"""Utilization of CPUs and memory: exact shares on fixture machines, and agreement with psutil."""

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.agent.machines import Machine, machine

from wattledger_agent.readings import Reading, SourceUnavailableError, UtilizationReading
from wattledger_agent.sources.cpu import IDLE, IOWAIT, RECOUNT_READS, STATES, CpuSource


def source_of(host: Machine) -> CpuSource:
    """A source on this machine."""
    return CpuSource(host.proc, opener=host.opener, pread=host.pread)


def set_times(host: Machine, *ticks: int) -> None:
    """Write the sums of /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice."""
    path = host.proc / "stat"
    rest = path.read_text().partition("\n")[2]
    path.write_text(f"cpu  {' '.join(map(str, ticks))}\n{rest}")


@contextmanager
def psutil_on(host: Machine) -> Iterator[None]:
    """Let psutil read this machine, by the setting it has for that."""
    before, psutil.PROCFS_PATH = psutil.PROCFS_PATH, str(host.proc)
    try:
        yield
    finally:
        psutil.PROCFS_PATH = before


def shares(readings: object) -> dict[tuple[str, str], float]:
    """Ratios by device and kind."""
    assert isinstance(readings, list)
    found: dict[tuple[str, str], float] = {}
    for reading in readings:
        assert isinstance(reading, UtilizationReading)
        found[reading.device, reading.kind.name] = reading.ratio
    return found


def test_shares_are_those_of_the_time_between_two_reads(tmp_path: Path) -> None:
    """Idle, waiting and stolen time are not busy; guest time is contained in user time and not counted twice."""
    host = machine("virtual_machine", tmp_path)
    set_times(host, 100, 0, 100, 1000, 0, 0, 0, 0, 0, 0)
    source = source_of(host)
    assert source.open() == []
    set_times(host, 130, 5, 110, 1030, 10, 2, 3, 10, 20, 5)
    readings = source.read(1)
    assert shares(readings)["cpu", "BUSY"] == 0.5
    assert shares(readings)["cpu", "STEAL"] == 0.1
    assert {
        reading.units for reading in readings if isinstance(reading, UtilizationReading) and reading.device == "cpu"
    } == {2}


def test_shares_are_psutils(tmp_path: Path) -> None:
    """On the same two moments psutil has the same shares, but that it takes stolen time for busy."""
    host = machine("virtual_machine", tmp_path)
    set_times(host, 8000, 3, 4000, 200000, 600, 0, 100, 80, 0, 0)
    source = source_of(host)
    source.open()
    with psutil_on(host):
        before = psutil.cpu_times()
        set_times(host, 9000, 5, 4110, 250030, 700, 2, 110, 99, 0, 0)
        after = psutil.cpu_times()
        memory_ratio = psutil.virtual_memory().percent / 100
    deltas = [now - then for now, then in zip(after, before, strict=True)][:STATES]
    busy_ratio = 1 - (deltas[IDLE] + deltas[IOWAIT]) / sum(deltas)
    found = shares(source.read(1))
    assert found["cpu", "BUSY"] + found["cpu", "STEAL"] == pytest.approx(busy_ratio)
    assert found["memory", "MEMORY"] == pytest.approx(memory_ratio, abs=0.0006)


def test_this_machine_can_be_read() -> None:
    """The kernel that runs the tests has what the source needs."""
    source = CpuSource()
    source.open()
    assert 0 < shares(source.read(1))["memory", "MEMORY"] < 1
    source.close()


def test_a_tick_costs_two_system_calls(tmp_path: Path) -> None:
    """However many CPUs there are: one read for their sums, one for the memory, and no open."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    source = source_of(host)
    source.open()
    host.preads = host.opens = 0
    for now in range(10):
        source.read(now)
    assert host.preads == 20
    assert host.opens == 0


def test_no_time_passed_is_no_reading(tmp_path: Path) -> None:
    """An unknown share is left out; it is not zero."""
    source = source_of(machine("xeon_two_sockets", tmp_path))
    source.open()
    assert shares(source.read(1)) == {("memory", "MEMORY"): pytest.approx(1 - 381203344 / 527953708)}


def test_a_state_that_fell_counts_as_not_advanced(tmp_path: Path) -> None:
    """The kernel lets iowait fall; the share stays within 0 and 1."""
    host = machine("virtual_machine", tmp_path)
    set_times(host, 100, 0, 100, 1000, 500, 0, 0, 0, 0, 0)
    source = source_of(host)
    source.open()
    set_times(host, 150, 0, 100, 1050, 100, 0, 0, 0, 0, 0)
    assert shares(source.read(1))["cpu", "BUSY"] == 0.5


@pytest.mark.parametrize("content", ["", "cpu 1 2\n", "cpu  1 2 3 4 5 6 7 x 9 10\n", "intr 1\n"])
def test_a_stat_file_that_makes_no_sense_fails_the_source_and_no_more(tmp_path: Path, content: str) -> None:
    """The sampler hears an OSError that names the file; at the start it is the source's absence."""
    host = machine("virtual_machine", tmp_path)
    source = source_of(host)
    source.open()
    (host.proc / "stat").write_text(content)
    with pytest.raises(OSError, match="stat"):
        source.read(1)
    with pytest.raises(SourceUnavailableError, match="stat"):
        source_of(host).open()


@pytest.mark.parametrize(
    "content", ["", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "MemTotal: 5 kB\n", "MemTotal: 5 kB\nMemAvailable: 6 kB\n"]
)
def test_memory_that_makes_no_sense_is_left_out(tmp_path: Path, content: str) -> None:
    """The CPUs are still read."""
    host = machine("virtual_machine", tmp_path)
    set_times(host, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    source = source_of(host)
    source.open()
    (host.proc / "meminfo").write_text(content)
    set_times(host, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    assert set(shares(source.read(1))) == {("cpu", "BUSY"), ("cpu", "STEAL")}


def test_without_meminfo_the_cpus_are_still_read(tmp_path: Path) -> None:
    """A sandbox that hides the memory's size is noted."""
    host = machine("virtual_machine", tmp_path)
    (host.proc / "meminfo").unlink()
    source = source_of(host)
    source.open()
    assert any("meminfo" in note for note in source.notes())
    readings: list[Reading] = list(source.read(1))
    assert readings == []
    source.close()


def test_a_read_that_fails_is_an_os_error_that_names_the_file(tmp_path: Path) -> None:
    """/proc/stat is what the source stands on: the sampler counts the failure."""
    host = machine("virtual_machine", tmp_path)
    source = source_of(host)
    source.open()
    host.failing["proc"] = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        source.read(1)
    with pytest.raises(SourceUnavailableError, match="stat"):
        source_of(host).open()


def test_without_procfs_the_remedy_names_the_option(tmp_path: Path) -> None:
    """A wrong root is told apart from a machine without CPUs."""
    with pytest.raises(SourceUnavailableError) as caught:
        CpuSource(tmp_path).open()
    assert str(tmp_path / "stat") in caught.value.reason
    assert "--procfs-root" in caught.value.remedy


def test_hot_plugged_cpus_are_counted_within_a_minute(tmp_path: Path) -> None:
    """Busy time is a share times the CPUs there are; a list that was cut off is not counted."""
    host = machine("virtual_machine", tmp_path)
    source = source_of(host)
    source.open()
    times = "1 0 1 9 0 0 0 0 0 0"
    lists = {3: f"cpu0 {times}\ncpu1 {times}\ncpu5 {times}\nintr 1 2\n", 1: f"cpu0 {times}\n"}
    units: list[int] = []
    for cpus in (3, 1):
        for read in range(1, RECOUNT_READS + 1):
            (host.proc / "stat").write_text(f"cpu  {read} 0 0 {cpus * 100 + 9 * read} 0 0 0 0 0 0\n{lists[cpus]}")
            found = [item.units for item in source.read(read) if isinstance(item, UtilizationReading)]
        units.append(found[0])
    assert units == [3, 3]
    source.close()


def test_one_pread_a_file_a_tick(tmp_path: Path) -> None:
    """A minute of ticks is 60 system calls for each of the two files, a recount included."""
    host = machine("virtual_machine", tmp_path)
    reads: list[int] = []

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        reads.append(descriptor)
        return host.pread(descriptor, count, offset)

    source = CpuSource(host.proc, opener=host.opener, pread=pread)
    source.open()
    reads.clear()
    for second in range(60):
        source.read(second)
    assert sorted(Counter(reads).values()) == [60, 60]
    source.close()


def test_without_memory_its_file_is_not_read(tmp_path: Path) -> None:
    """The estimate asks for the load alone; that is no lack to tell of."""
    host = machine("virtual_machine", tmp_path)
    source = CpuSource(host.proc, memory=False)
    source.open()
    set_times(host, 10**9, 0, 0, 10**9, 0, 0, 0, 0, 0, 0)
    assert {reading.device for reading in source.read(1) if isinstance(reading, UtilizationReading)} == {"cpu"}
    assert source.notes() == []
    source.close()


def test_a_containers_view_by_lxcfs_is_told(tmp_path: Path) -> None:
    """There /proc/stat tells of the container's CPUs alone: what is shown is not the host's."""
    host = machine("virtual_machine", tmp_path)
    (host.proc / "self").mkdir(exist_ok=True)
    mounts = "22 1 0:20 / /proc rw - proc proc rw\n"
    for line, told in (("", []), ("99 22 0:43 /proc/stat /proc/stat rw - fuse.lxcfs lxcfs rw\n", ["lxcfs"])):
        (host.proc / "self/mountinfo").write_text(mounts + line)
        source = source_of(host)
        source.open()
        assert [word for note in source.notes() for word in ("lxcfs",) if word in note] == told
        source.close()
