"""Busy and idle time of each package, from /proc/stat: any order of CPUs, any that come and go, any end of the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_agent.cpu_times import CpuTimes

HEAD = b"cpu  1 2 4 8 16 32 64 128 1 0\n"
TAIL = b"intr 12345 0 9 0 0\nctxt 7\nbtime 1700000000\n"


def line(cpu: int, *states: int) -> bytes:
    """A CPU's line with ten states."""
    return f"cpu{cpu} {' '.join(map(str, (*states, *(0,) * (10 - len(states)))))}\n".encode()


def test_each_state_is_busy_or_idle_or_neither() -> None:
    """In the order of proc.rst: waiting for a disk is idling, and what a hypervisor took is neither."""
    assert CpuTimes({0: 0, 1: 0}).of(HEAD + TAIL) == ((103,), (24,))
    two = HEAD + line(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512) + line(1, *(1000,) * 10) + TAIL
    assert CpuTimes({0: 0, 1: 1}).of(two) == ((103, 5000), (24, 2000))


def test_threads_of_one_core_may_be_numbered_apart() -> None:
    """On many servers 0-31 and 64-95 are in package 0."""
    text = HEAD + b"".join(line(cpu, 10**cpu) for cpu in range(4)) + TAIL
    assert CpuTimes({0: 0, 1: 1, 2: 0, 3: 1}).of(text)[0] == (101, 1010)


def test_a_cpu_that_goes_offline_is_left_out_and_its_neighbours_keep_their_package() -> None:
    """The kernel leaves out its line; one that nobody knew is in package 0."""
    times = CpuTimes({0: 0, 1: 1, 2: 0, 3: 1})
    times.of(HEAD + b"".join(line(cpu, 1) for cpu in range(4)) + TAIL)
    assert times.of(HEAD + line(0, 1) + line(2, 10) + line(3, 100) + TAIL)[0] == (11, 100)
    assert times.of(HEAD + line(0, 1) + line(3, 100) + line(9, 1000) + TAIL)[0] == (1001, 100)


def test_a_package_without_a_cpu_online_has_not_advanced() -> None:
    """It keeps its place, so that the others keep theirs."""
    assert CpuTimes({0: 0, 1: 1, 2: 2}).of(HEAD + line(0, 1) + line(2, 5) + TAIL)[0] == (1, 0, 5)


def test_a_text_that_was_cut_ends_with_its_last_whole_line() -> None:
    """A read holds as many bytes as the CPUs may need, and the line after them may not fit."""
    whole = HEAD + line(0, 1) + line(1, 2)
    assert CpuTimes({0: 0, 1: 1}).of(whole + b"in")[0] == CpuTimes({0: 0, 1: 1}).of(whole + TAIL)[0] == (1, 2)
    assert CpuTimes({0: 0}).of(HEAD[:-1]) == ((103,), (24,))


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"intr 5\n", b"cpu  1 2 3\n", b"cpu0 1 2 3 4 5 6 7 8 9 10\n", b"cpu x 1 1 1 1 1 1 1 1 1\n"]
)
def test_what_is_no_stat_is_said(text: bytes) -> None:
    """A number from elsewhere is none."""
    with pytest.raises(ValueError, match=r"CPU|invalid"):
        CpuTimes({0: 0}).of(text)


def test_lines_of_differing_length_are_said() -> None:
    """Columns would be of other states."""
    with pytest.raises(ValueError, match="differ"):
        CpuTimes({0: 0, 1: 1}).of(HEAD + b"cpu0 1 2 3 4 5 6 7\n" + line(1, 1) + TAIL)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2**60), min_size=10, max_size=10)), min_size=1))
def test_all_packages_together_are_all_cpus(cpus: list[tuple[int, list[int]]]) -> None:
    """Any packages, any times."""
    text = HEAD + b"".join(line(number, *states) for number, (_, states) in enumerate(cpus)) + TAIL
    times = CpuTimes({**{number: package for number, (package, _) in enumerate(cpus)}, 999: 3})
    busy, idle = times.of(text)
    assert len(text) <= times.bytes_max + len(TAIL)
    for package in range(4):
        own = [states for each, states in cpus if each == package]
        assert busy[package] == sum(s[0] + s[1] + s[2] + s[5] + s[6] for s in own)
        assert idle[package] == sum(s[3] + s[4] for s in own)
