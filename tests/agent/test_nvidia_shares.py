"""Which processes used a GPU: sampled where NVML tells, by ownership where not, and never more than all of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.fake_nvml import NOT_FOUND, PATIENCE_SECONDS, UNKNOWN, FakeGpu, FakeNvml, samples

from wattledger_agent.readings import ProcessShares
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.nvidia_shares import busy_shares, owned_shares

UTILIZATION = "nvmlDeviceGetProcessUtilization"
PROCESSES = "nvmlDeviceGetComputeRunningProcesses"
SECOND = 1_000_000_000


def source_of(*gpus: FakeGpu) -> tuple[FakeNvml, NvidiaSource]:
    """A source that tells processes apart."""
    nvml = FakeNvml(list(gpus))
    source = NvidiaSource(Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=nvml, processes=True)
    source.open()
    return nvml, source


def shares_of(nvml: FakeNvml, source: NvidiaSource, second: int) -> list[dict[int, float]]:
    """What a read a second later says."""
    nvml.seconds += 1.0
    return [dict(one.shares) for one in source.read(second * SECOND) if isinstance(one, ProcessShares)]


def test_time_sliced_processes_have_the_time_that_each_one_ran() -> None:
    """45 % and 30 % of the time, and the GPU was busy for 78 %: the rest of it is nobody's."""
    assert busy_shares({1: 45, 2: 30}, 0.78) == {1: pytest.approx(0.45), 2: pytest.approx(0.30)}


def test_processes_side_by_side_under_mps_share_what_the_gpu_was_busy() -> None:
    """80 % and 70 % overlap; together they can't have worked longer than the 90 % that the GPU did."""
    assert busy_shares({1: 80, 2: 70}, 0.9) == {1: pytest.approx(0.48), 2: pytest.approx(0.42)}


def test_a_gpu_that_says_idle_while_processes_worked_was_looked_at_over_another_span() -> None:
    """Its 0 % is not believed; the processes' own shares stand."""
    assert busy_shares({1: 40}, 0.0) == {1: pytest.approx(0.4)}
    assert busy_shares({1: 40}, None) == {1: pytest.approx(0.4)}


PERCENTS = st.integers(0, 100)


@given(st.dictionaries(st.integers(1, 9), PERCENTS, max_size=9), st.none() | PERCENTS.map(lambda percent: percent / 100))
def test_shares_never_exceed_the_whole(percents: dict[int, float], busy_ratio: float | None) -> None:
    """Whatever the driver says, a GPU is divided at most once, and no process has less than nothing."""
    shares = busy_shares(percents, busy_ratio)
    assert sum(shares.values()) <= 1.0 + 1e-9
    assert all(share > 0 for share in shares.values())


def test_owners_share_equally_and_nobody_owns_an_empty_gpu() -> None:
    """A process that is listed twice counts once."""
    assert owned_shares([3, 4, 4], 0.5) == {3: 0.25, 4: 0.25}
    assert owned_shares([], 1.0) == {}


def test_what_the_driver_kept_from_before_the_start_is_nobodys() -> None:
    """The first answer may be minutes old: it only says from when on to ask."""
    nvml, source = source_of(FakeGpu("GPU-a", more={UTILIZATION: samples((7, 40))}))
    assert shares_of(nvml, source, 1) == []
    assert shares_of(nvml, source, 2) == [{7: pytest.approx(0.4)}]


def test_no_newer_sample_means_that_no_process_worked() -> None:
    """NVML says 'not found' then: all of the GPU's energy is idle, which is an answer and not a failure."""
    nvml, source = source_of(FakeGpu("GPU-a", more={UTILIZATION: samples((7, 40))}))
    shares_of(nvml, source, 1)
    nvml.gpus[0].more[UTILIZATION] = {"error": NOT_FOUND}
    assert shares_of(nvml, source, 2) == [{}]


def test_entries_that_are_none_are_left_out() -> None:
    """Drivers fill their answer up with zeroes and with percents of 2147483632."""
    filled = [*samples((7, 40)), *samples((9, 2_147_483_632)), {"pid": 0, "timeStamp": 0, "smUtil": 0}]
    nvml, source = source_of(FakeGpu("GPU-a", more={UTILIZATION: filled}))
    shares_of(nvml, source, 1)
    assert shares_of(nvml, source, 2) == [{7: pytest.approx(0.4)}]


def test_the_newest_sample_of_a_process_counts() -> None:
    """Two samples since the last read are not two processes."""
    both = [*samples((7, 10)), *samples((7, 50), at_microseconds=1_400_000)]
    nvml, source = source_of(FakeGpu("GPU-a", more={UTILIZATION: both}))
    shares_of(nvml, source, 1)
    assert shares_of(nvml, source, 2) == [{7: pytest.approx(0.5)}]


def test_a_passing_error_says_nothing_and_is_asked_again() -> None:
    """No shares are not empty shares: what is unknown stays unattributed."""
    nvml, source = source_of(FakeGpu("GPU-a", more={UTILIZATION: samples((7, 40))}))
    shares_of(nvml, source, 1)
    nvml.fail[UTILIZATION] = lambda number: UNKNOWN if number == 2 else 0
    assert shares_of(nvml, source, 2) == []
    assert shares_of(nvml, source, 3) == [{7: pytest.approx(0.4)}]


def test_where_processes_are_not_told_apart_they_share_the_busy_time() -> None:
    """'Not supported' is remembered, and the processes that hold the GPU share what it was busy."""
    nvml, source = source_of(FakeGpu("GPU-a", busy_percent=60, more={PROCESSES: [{"pid": 7}, {"pid": 8}]}))
    assert shares_of(nvml, source, 1) == [{7: pytest.approx(0.3), 8: pytest.approx(0.3)}]
    shares_of(nvml, source, 2)
    assert nvml.calls[UTILIZATION] == 1
    assert any("does not tell its processes apart" in note for note in source.notes())


def test_where_not_even_the_busy_time_is_known_a_gpu_is_its_owners() -> None:
    """One process on a GPU without utilization has all of it."""
    nvml, source = source_of(FakeGpu("GPU-a", busy_percent=None, more={PROCESSES: [{"pid": 7}]}))
    assert shares_of(nvml, source, 1) == [{7: 1.0}]


def test_processes_are_not_asked_for_unless_wanted() -> None:
    """Workloads switched off, the call is not made."""
    nvml = FakeNvml([FakeGpu("GPU-a", more={UTILIZATION: samples((7, 40))})])
    source = NvidiaSource(Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=nvml)
    source.open()
    assert not [one for second in (1, 2) for one in source.read(second * SECOND) if isinstance(one, ProcessShares)]
    assert UTILIZATION not in nvml.calls
