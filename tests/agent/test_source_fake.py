"""The simulated counters: exact, seeded, outliving the agent, and true to what they say."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    CounterReading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationReading,
)
from wattledger_agent.sources.fake import FakeSource, FakeTruth

HOUR = 3600 * NANOSECONDS_PER_SECOND
boottimes = st.integers(min_value=0, max_value=400 * 24 * HOUR)


def counters(source: FakeSource, now: int) -> dict[ChannelKey, int]:
    """Return the raw counters of one read."""
    return {item.key: item.counter_microjoules for item in source.read(now) if isinstance(item, CounterReading)}


@given(seed=st.integers(0, 99), first=boottimes, second=boottimes)
def test_energy_never_falls_and_stays_within_its_power_bound(seed: int, first: int, second: int) -> None:
    """Between any two moments each channel gains something in [0, bound x time], regression included."""
    source = FakeSource(
        seed, packages=2, gpus=1, node_meter=True, regression_from_nanoseconds=50 * 24 * HOUR, regression_ratio=0.25
    )
    low, high = sorted((first, second))
    for spec in source.open():
        gained = source.truth_microjoules(spec.key, high) - source.truth_microjoules(spec.key, low)
        # A microjoule either way is the rounding of each end, for each of the node's parts.
        assert 0 <= gained <= spec.power_bound_watts * (high - low) / 1000 + 8


@given(seed=st.integers(0, 99), first=boottimes, elapsed=st.integers(1, 100 * NANOSECONDS_PER_SECOND))
def test_a_restarted_agent_finds_the_counter_where_the_hardware_brought_it(seed: int, first: int, elapsed: int) -> None:
    """Two sources of one seed read one counter, whose rise is the truth's modulo its range."""
    before, after = FakeSource(seed, gpus=1), FakeSource(seed, gpus=1)
    specs = before.open()
    after.open()
    raw_before, raw_after = counters(before, first), counters(after, first + elapsed)
    for spec in specs:
        truth = after.truth_microjoules(spec.key, first + elapsed) - before.truth_microjoules(spec.key, first)
        rise = raw_after[spec.key] - raw_before[spec.key]
        if spec.counter_range_microjoules is None:
            assert rise == truth
        else:
            assert 0 <= raw_after[spec.key] < spec.counter_range_microjoules
            assert rise % spec.counter_range_microjoules == truth


def test_the_energy_is_the_integral_of_the_load() -> None:
    """Over an hour the closed form agrees with a sum of small steps of idle + busy x load."""
    truth = FakeTruth(7, packages=1, gpus=0, period_seconds=60.0)
    step = NANOSECONDS_PER_SECOND // 10
    loads = [truth.load_ratio("cpu/0", step * i + step // 2) for i in range(36_000)]
    mean_load = sum(loads) / len(loads)
    idle_watts, full_watts = 60, 270
    # Power is scaled by one seeded number, which an idle-to-full ratio does not know: so it is taken out of the mean.
    mean_watts = truth.microjoules("cpu/0", HOUR) / 3600e6
    scale = mean_watts / (idle_watts + (full_watts - idle_watts) * mean_load)
    assert 0.9 <= scale <= 1.1
    for start in range(0, 3600, 97):
        middle = start * NANOSECONDS_PER_SECOND + step // 2
        joules = truth.microjoules("cpu/0", middle + step // 2) - truth.microjoules("cpu/0", middle - step // 2)
        expected = scale * (idle_watts + (full_watts - idle_watts) * truth.load_ratio("cpu/0", middle)) * 1e5
        assert joules == pytest.approx(expected, rel=2e-3)


def test_the_node_meter_counts_its_parts_and_its_own_losses() -> None:
    """The node's truth less that of its parts rises by the fans and losses alone."""
    source = FakeSource(3, packages=2, gpus=2, node_meter=True)
    specs = source.open()
    node = next(spec for spec in specs if spec.role is Role.METER)
    parts = [spec for spec in specs if spec.role is Role.LEAF]
    assert all(part.parent == node.key for part in parts)
    overhead = source.truth_microjoules(node.key, HOUR) - sum(source.truth_microjoules(part.key, HOUR) for part in parts)
    assert 100e6 * 3600 < overhead < 200e6 * 3600


def test_each_read_writes_one_line_of_truth(tmp_path: Path) -> None:
    """The truth file has the boottime and the exact energy of each read, and is appended to by the next agent."""
    path = tmp_path / "truth"
    for now in (5, HOUR):
        source = FakeSource(1, packages=1, truth_path=path)
        specs = source.open()
        source.read(now)
        source.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["boottime_nanoseconds"] for line in lines] == [5, HOUR]
    assert lines[1]["microjoules"] == {
        f"{s.key.device}/{s.key.domain}": source.truth_microjoules(s.key, HOUR) for s in specs
    }


def test_an_unwritable_truth_file_is_one_sentence_with_its_remedy(tmp_path: Path) -> None:
    """The path and the reason are named."""
    source = FakeSource(1, truth_path=tmp_path / "missing" / "truth")
    with pytest.raises(SourceUnavailableError, match=r"missing/truth can't be opened: No such file"):
        source.open()


def test_a_machine_without_parts_is_unavailable() -> None:
    """Nothing to simulate is said at opening, with the remedy."""
    with pytest.raises(SourceUnavailableError, match="packages and gpus are both 0"):
        FakeSource(1, packages=0).open()


def test_faults_are_seeded_and_leave_the_counter_alone() -> None:
    """About the asked share of reads fails, the same ones each time, and the others show the truth."""
    source, same, sound = (FakeSource(5, failure_ratio=ratio) for ratio in (0.2, 0.2, 0.0))
    for item in (source, same, sound):
        item.open()
    failed = 0
    for now in range(0, 1000 * NANOSECONDS_PER_SECOND, NANOSECONDS_PER_SECOND):
        readings = source.read(now)
        assert readings == same.read(now)
        failed += sum(isinstance(item, TryAgain) for item in readings)
        truth = counters(sound, now)
        assert all(truth[item.key] == item.counter_microjoules for item in readings if isinstance(item, CounterReading))
    assert 0.17 < failed / 4000 < 0.23


def test_a_regression_costs_more_for_the_same_load() -> None:
    """From its moment on a regression raises the energy, and not the utilization."""
    plain, worse = (
        FakeSource(2, packages=1),
        FakeSource(2, packages=1, regression_from_nanoseconds=HOUR, regression_ratio=0.2),
    )
    key = plain.open()[0].key
    worse.open()
    assert worse.truth_microjoules(key, HOUR) == plain.truth_microjoules(key, HOUR)
    ratio = (worse.truth_microjoules(key, 2 * HOUR) - worse.truth_microjoules(key, HOUR)) / (
        plain.truth_microjoules(key, 2 * HOUR) - plain.truth_microjoules(key, HOUR)
    )
    assert 1.05 < ratio < 1.2
    busy = [[item for item in source.read(2 * HOUR) if isinstance(item, UtilizationReading)] for source in (plain, worse)]
    assert busy[0] == busy[1]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: FakeSource(1, packages=-1), "packages"),
        (lambda: FakeSource(1, gpus=65), "gpus"),
        (lambda: FakeSource(1, failure_ratio=1.5), "failure_ratio"),
        (lambda: FakeSource(1, counter_range_microjoules=0), "counter_range"),
        (lambda: FakeSource(1, period_seconds=0.0), "period_seconds"),
        (lambda: FakeSource(1, regression_ratio=0.5), "regression_ratio"),
    ],
)
def test_arguments_outside_their_range_are_refused_by_name(make: Callable[[], FakeSource], word: str) -> None:
    """A wrong argument is named with its value."""
    with pytest.raises(ValueError, match=word):
        make()
