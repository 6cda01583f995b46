"""Counters, integrals and spans: exact where the sensor is unambiguous, bounded everywhere else."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.metering import BOOT, GAP_SECONDS, OTHER_BOOT, SECOND, at, counter, spec

from wattledger_agent.channels import rule_of
from wattledger_agent.counters import (
    ChannelState,
    GapDetail,
    GapReason,
    Instant,
    Rule,
    advance,
    is_believable,
    open_state,
    skip_to,
)
from wattledger_agent.readings import (
    ENERGY_MICROJOULES_LIMIT,
    ChannelSpec,
    CounterReading,
    Method,
    PowerReading,
    SpanReading,
)

WRAP = 1_000_000_000  # 10 s at the bound of 100 W.
WRAPPING = spec(wrap=WRAP)
ENDLESS = spec("gpu/0")
POWER = spec("node", method=Method.INTEGRAL)


def rule(of: ChannelSpec) -> Rule:
    """The rule of a spec."""
    return rule_of(of, GAP_SECONDS)


def after(of: ChannelSpec, *steps: tuple[CounterReading | PowerReading | SpanReading, Instant]) -> ChannelState:
    """The state after readings, opened at the first one."""
    state = open_state(steps[0][1])
    for reading, now in steps:
        state, _ = advance(rule(of), state, reading, now)
    return state


def test_a_first_counter_value_is_a_baseline() -> None:
    """A counter's value at the opening says nothing of the energy since."""
    state, gap = advance(rule(WRAPPING), open_state(at(5)), counter(WRAPPING, 77), at(5))
    assert (state.energy_microjoules, state.value, gap) == (0, 77, None)


def test_a_first_value_after_the_opening_is_a_gap() -> None:
    """What a part used between opening and first reading is unknown, not zero."""
    state, gap = advance(rule(WRAPPING), open_state(at(5)), counter(WRAPPING, 77), at(8))
    assert gap == GapDetail(GapReason.NOT_MEASURED, BOOT, 5 * SECOND, 8 * SECOND, 0, 300_000_000, False)
    assert (state.energy_microjoules, state.gap_upper_microjoules) == (0, 300_000_000)


def test_an_increase_is_booked() -> None:
    """Within one boot the difference is the energy."""
    state = after(WRAPPING, (counter(WRAPPING, 10), at(0)), (counter(WRAPPING, 90_000_010), at(1)))
    assert (state.energy_microjoules, state.gap_upper_microjoules) == (90_000_000, 0)


@pytest.mark.parametrize(("raw", "energy"), [(0, 1), (5, 6), (WRAP - 1, 0)])
def test_a_decrease_is_one_wrap(raw: int, energy: int) -> None:
    """A counter that counts modulo its range, read in time, tells its wrap exactly."""
    state = after(WRAPPING, (counter(WRAPPING, WRAP - 1), at(0)), (counter(WRAPPING, raw), at(9.9)))
    assert state.energy_microjoules == energy


def test_a_counter_that_shows_its_range_as_last_step_wraps_exactly() -> None:
    """The range itself is the value 0 of the next round."""
    state = after(
        WRAPPING, (counter(WRAPPING, 5), at(0)), (counter(WRAPPING, WRAP), at(9.99)), (counter(WRAPPING, 3), at(11))
    )
    assert state.energy_microjoules == WRAP - 2


@pytest.mark.parametrize(
    ("raw", "seconds", "lower", "upper"),
    [
        (30, 10, 20, 20),  # A range fits exactly into the time; one more does not.
        (10, 10, 0, WRAP),
        (30, 25, 20, 2 * WRAP + 20),
        (5, 35, WRAP - 5, 3 * WRAP - 5),
    ],
)
def test_an_ambiguous_wrap_books_nothing_and_carries_its_bounds(raw: int, seconds: float, lower: int, upper: int) -> None:
    """From a whole range of possible energy on, what passed is one of several numbers."""
    first = after(WRAPPING, (counter(WRAPPING, 10), at(0)))
    state, gap = advance(rule(WRAPPING), first, counter(WRAPPING, raw), at(seconds))
    assert gap == GapDetail(GapReason.WRAP_AMBIGUOUS, BOOT, 0, round(seconds * SECOND), lower, upper, False)
    assert (state.energy_microjoules, state.value) == (0, raw)
    assert (state.gap_lower_microjoules, state.gap_upper_microjoules) == (lower, upper)


@dataclass(frozen=True)
class Case:
    """A second counter reading that is a baseline, and the gap that it leaves; the first is 1,000 at 10 s."""

    reading: CounterReading
    now: Instant
    reason: GapReason
    upper: int | None
    synchronised_before: bool = True


CASES = {
    "a fall without a range": Case(counter(ENDLESS, 999), at(12), GapReason.RESET, 200_000_000),
    "a new generation": Case(counter(ENDLESS, 1001, 7), at(12), GapReason.RESET, 200_000_000),
    "a suspend": Case(counter(ENDLESS, 1001), at(12, suspended=1.5), GapReason.SUSPEND, 200_000_000),
    "a reboot": Case(counter(ENDLESS, 1001), at(1, boot=OTHER_BOOT, realtime=13), GapReason.REBOOT, 300_000_000),
    "a reboot to an unset clock": Case(
        counter(ENDLESS, 1001), at(1, boot=OTHER_BOOT, realtime=13, synchronised=False), GapReason.REBOOT, None
    ),
    "a reboot from an unset clock": Case(
        counter(ENDLESS, 1001), at(1, boot=OTHER_BOOT, realtime=13), GapReason.REBOOT, None, synchronised_before=False
    ),
    "a reboot into the past": Case(counter(ENDLESS, 1001), at(1, boot=OTHER_BOOT, realtime=9), GapReason.REBOOT, None),
    "an impossible step": Case(counter(ENDLESS, 6_200_001_001), at(12), GapReason.IMPLAUSIBLE, 200_000_000),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_an_interruption_books_nothing_and_is_bounded_by_power_and_time(case: Case) -> None:
    """Each reason for a new baseline leaves [0, bound x time], or no upper bound where no clock can tell the time."""
    first = after(ENDLESS, (counter(ENDLESS, 1000), at(10, synchronised=case.synchronised_before)))
    state, gap = advance(rule(ENDLESS), first, case.reading, case.now)
    assert gap is not None
    assert (gap.reason, gap.from_boot_id, gap.from_boottime_nanoseconds) == (case.reason, BOOT, 10 * SECOND)
    assert (gap.lower_microjoules, gap.upper_microjoules, gap.unbounded) == (0, case.upper or 0, case.upper is None)
    assert state.energy_microjoules == 0
    assert state.gap_unbounded_count == (case.upper is None)
    again, gap = advance(
        rule(ENDLESS),
        state,
        counter(ENDLESS, case.reading.counter_microjoules + 5, case.reading.generation),
        Instant(
            case.now.boot_id,
            case.now.boottime_nanoseconds + SECOND,
            case.now.realtime_nanoseconds + SECOND,
            True,
            case.now.suspended_nanoseconds,
        ),
    )
    assert (again.energy_microjoules, gap) == (5, None)


def test_a_waver_of_the_clocks_is_no_suspend() -> None:
    """Boottime less monotonic time is read from two clocks, one after the other."""
    state = after(ENDLESS, (counter(ENDLESS, 0), at(0)), (counter(ENDLESS, 9), at(1, suspended=0.9)))
    assert state.energy_microjoules == 9


def test_a_late_read_may_show_a_little_more_than_its_rows_time_allows() -> None:
    """A driver that hung, or a counter that moves in lumps, shows the energy of a whole minute at once."""
    state = after(ENDLESS, (counter(ENDLESS, 0), at(0)), (counter(ENDLESS, 6_100_000_000), at(1)))
    assert state.energy_microjoules == 6_100_000_000


def test_a_long_outage_of_the_agent_is_recovered_from_a_counter_that_never_wraps() -> None:
    """A day without an agent loses nothing within one boot."""
    state = after(ENDLESS, (counter(ENDLESS, 0), at(0)), (counter(ENDLESS, 86_400_000_000), at(86_400)))
    assert (state.energy_microjoules, state.gap_upper_microjoules) == (86_400_000_000, 0)


@pytest.mark.parametrize(
    ("of", "reading", "believable"),
    [
        (WRAPPING, CounterReading(WRAPPING.key, WRAP), True),
        (WRAPPING, CounterReading(WRAPPING.key, WRAP + 1), False),
        (WRAPPING, CounterReading(WRAPPING.key, -1), False),
        (ENDLESS, CounterReading(ENDLESS.key, 2**63 - 1), True),
        (ENDLESS, CounterReading(ENDLESS.key, (2**64 - 1) * 1000), False),
        (ENDLESS, PowerReading(ENDLESS.key, 5), False),
        (POWER, CounterReading(POWER.key, 5), False),
        (POWER, PowerReading(POWER.key, 100_000_000), True),
        (POWER, PowerReading(POWER.key, 100_000_001), False),
        (POWER, PowerReading(POWER.key, -1), False),
        (POWER, SpanReading(POWER.key, 9 * SECOND, 5), True),
        (POWER, SpanReading(POWER.key, 10 * SECOND, 5), False),
        (POWER, SpanReading(POWER.key, 9 * SECOND, -5), False),
    ],
)
def test_impossible_values_are_not_believed(
    of: ChannelSpec, reading: CounterReading | PowerReading | SpanReading, believable: bool
) -> None:
    """What no sensor of this kind can show is as good as a failed read."""
    assert is_believable(rule(of), reading, at(10)) is believable


def test_power_is_integrated_by_trapezoids_and_the_remainder_is_carried() -> None:
    """Three nanoseconds at odd powers lose nothing: what is less than a microjoule waits for the rest."""
    readings = [
        (PowerReading(POWER.key, power), Instant(BOOT, time, 0, True, 0)) for power, time in ((1, 0), (2, 1), (4, 2))
    ]
    state = after(POWER, *readings)
    assert (state.energy_microjoules, state.remainder) == (0, 3 + 6)
    state, _ = advance(rule(POWER), state, PowerReading(POWER.key, 4), Instant(BOOT, 2 + SECOND, 0, True, 0))
    assert (state.energy_microjoules, state.remainder) == (4, 9)


@pytest.mark.parametrize(
    ("now", "reason", "upper"),
    [
        (at(60.5), GapReason.NOT_MEASURED, 6_050_000_000),
        (at(5, suspended=2), GapReason.SUSPEND, 500_000_000),
        (at(1, boot=OTHER_BOOT, realtime=30), GapReason.REBOOT, 3_000_000_000),
    ],
)
def test_integrals_never_bridge_what_they_did_not_see(now: Instant, reason: GapReason, upper: int) -> None:
    """Too long a time, a suspend or a boot between two powers is a gap."""
    first = after(POWER, (PowerReading(POWER.key, 50_000_000), at(0)))
    state, gap = advance(rule(POWER), first, PowerReading(POWER.key, 60_000_000), now)
    assert gap is not None
    assert (gap.reason, gap.lower_microjoules, gap.upper_microjoules) == (reason, 0, upper)
    assert (state.energy_microjoules, state.value) == (0, 60_000_000)


def test_integrals_bridge_up_to_the_largest_gap() -> None:
    """At the limit itself the two powers are still joined."""
    state = after(POWER, (PowerReading(POWER.key, 50_000_000), at(0)), (PowerReading(POWER.key, 70_000_000), at(60)))
    assert state.energy_microjoules == 60 * 60_000_000


def test_spans_hold_for_their_whole_time() -> None:
    """A recorded mean is exact over its span, whatever came before."""
    first = open_state(at(0))
    state, gap = advance(rule(POWER), first, SpanReading(POWER.key, 0, 7_000_000), at(3600))
    assert (state.energy_microjoules, gap) == (7_000_000 * 3600, None)
    state, gap = advance(rule(POWER), state, SpanReading(POWER.key, 3600 * SECOND, 1), at(3601))
    assert (state.energy_microjoules, gap) == (7_000_000 * 3600 + 1, None)


def test_a_hole_in_a_recording_is_a_gap_and_its_span_is_booked() -> None:
    """What the recording lacks is bounded; what it has is exact."""
    state, gap = advance(rule(POWER), open_state(at(0)), SpanReading(POWER.key, 5 * SECOND, 2_000_000), at(8))
    assert gap == GapDetail(GapReason.MISSING_IN_RECORDING, BOOT, 0, 5 * SECOND, 0, 500_000_000, False)
    assert state.energy_microjoules == 6_000_000


def test_overlapping_spans_count_once() -> None:
    """Only what lies after the last reading is new."""
    state, _ = advance(rule(POWER), open_state(at(0)), SpanReading(POWER.key, 0, 2_000_000), at(8))
    state, gap = advance(rule(POWER), state, SpanReading(POWER.key, 6 * SECOND, 1_000_000), at(10))
    assert (state.energy_microjoules, gap) == (18_000_000, None)


def test_a_span_above_the_bound_is_a_gap() -> None:
    """A recording's impossible value never comes again, so that the gap is written at once."""
    state, gap = advance(rule(POWER), open_state(at(0)), SpanReading(POWER.key, 0, 100_000_001), at(2))
    assert gap is not None
    assert (gap.reason, gap.upper_microjoules, state.energy_microjoules) == (GapReason.IMPLAUSIBLE, 200_000_000, 0)


def test_skipping_to_the_past_changes_nothing() -> None:
    """A hole lies ahead or not at all."""
    state = open_state(at(5))
    assert skip_to(rule(POWER), state, at(5)) == (state, None)


def test_sums_that_would_leave_the_wires_range_become_unbounded() -> None:
    """An absurd bound or clock never makes a record that the collector must refuse."""
    huge = spec("gpu/0", bound=1e9)
    first = after(huge, (counter(huge, 0), at(0)))
    state, gap = advance(rule(huge), first, counter(huge, 1), at(1, boot=OTHER_BOOT, realtime=1e9))
    assert gap is not None
    assert (gap.unbounded, gap.upper_microjoules) == (True, 0)
    assert (state.gap_unbounded_count, state.gap_upper_microjoules) == (1, 0)
    state, gap = advance(rule(huge), state, counter(huge, ENERGY_MICROJOULES_LIMIT + 1), at(10**7, boot=OTHER_BOOT))
    assert gap is not None
    assert (gap.reason, state.energy_microjoules) == (GapReason.IMPLAUSIBLE, 0)


@given(
    wrap=st.one_of(st.none(), st.integers(1, 2**48)),
    start=st.integers(0, 2**48),
    steps=st.lists(st.tuples(st.integers(1, 100 * SECOND), st.integers(0, 1000), st.booleans()), max_size=30),
)
def test_booked_plus_gap_bounds_hold_the_truth(wrap: int | None, start: int, steps: list[tuple[int, int, bool]]) -> None:
    """For any increments, range and failed reads: exact where unambiguous, within the bounds elsewhere."""
    of = spec(wrap=wrap)
    limits = rule(of)
    truth, now = start, 0
    state = after(of, (counter(of, truth if wrap is None else truth % wrap), at(0)))
    booked, missed, seen_truth, seen_time = 0, 0, truth, 0
    for elapsed, per_mille, fails in steps:
        now += elapsed
        truth += limits.possible_microjoules(elapsed) * per_mille // 1000
        if fails:
            continue
        instant = Instant(BOOT, now, now, True, 0)
        state, gap = advance(limits, state, counter(of, truth if wrap is None else truth % wrap), instant)
        ambiguous = wrap is not None and limits.possible_microjoules(now - seen_time) >= wrap
        assert (gap is not None) is ambiguous
        if ambiguous:
            missed += truth - seen_truth
        else:
            booked += truth - seen_truth
        seen_truth, seen_time = truth, now
        assert state.energy_microjoules == booked
        assert state.gap_lower_microjoules <= missed <= state.gap_upper_microjoules


@given(powers=st.lists(st.tuples(st.integers(0, 100_000_000), st.integers(1, 60 * SECOND)), min_size=1, max_size=30))
def test_integrals_lose_nothing_to_rounding(powers: list[tuple[int, int]]) -> None:
    """However it is cut into readings, energy and remainder are the whole work."""
    state = after(POWER, (PowerReading(POWER.key, powers[0][0]), Instant(BOOT, 0, 0, True, 0)))
    work, now, last = 0, 0, powers[0][0]
    for power, elapsed in powers:
        now += elapsed
        work += (last + power) * elapsed
        last = power
        state, gap = advance(rule(POWER), state, PowerReading(POWER.key, power), Instant(BOOT, now, 0, True, 0))
        assert gap is None
    assert state.energy_microjoules * 2 * SECOND + state.remainder == work
