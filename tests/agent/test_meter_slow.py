"""Meters that have a new value now and then: joined over their own cadence, and no row waited for that never comes."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agent.metering import SECOND, Book, at, counter, spec

from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, PowerReading, Reading, Role, TryAgain

GAP_SECONDS = 10.0
NODE = replace(
    spec(
        "node",
        source="ipmi",
        domain="dcmi",
        role=Role.METER,
        method=Method.INTEGRAL,
        component=Component.OTHER,
        bound=2000.0,
    ),
    cadence_seconds=20.0,
)
PACKAGE = spec()
# A second controller's meter, in the first one's, with a cadence of its own.
SLED = replace(NODE, key=ChannelKey("module/0", "sled", "redfish"), cadence_seconds=15.0)


def meter(*specs: ChannelSpec, state: bytes | None = None) -> Meter:
    """A meter as the sampler makes it."""
    made = Meter(state=state, integral_gap_seconds_max=GAP_SECONDS)
    made.offer(specs, at(0))
    return made


def watts(of: ChannelSpec, power: float) -> PowerReading:
    """A reading of power."""
    return PowerReading(of.key, round(power * 1_000_000))


def booked_of(*meters: Meter) -> Book:
    """What the meters' records say."""
    book = Book()
    for made in meters:
        book.add(made.cut(at(10_000)))
    return book


def test_values_within_three_cadences_are_joined_and_others_are_not() -> None:
    """The sampler's own limit would leave every second of a slow meter in a gap."""
    slow = meter(NODE)
    for second in (0, 20, 80, 141):
        slow.observe([watts(NODE, 100)], at(second))
    account = booked_of(slow).account("node", "dcmi")
    assert account.energy == 80 * 100_000_000
    assert [gap.from_boottime_nanoseconds for gap in account.details] == [80 * SECOND]


def test_a_short_cadence_leaves_the_samplers_own_limit() -> None:
    """A source of a second's cadence may miss as much as one that is read at each sample."""
    quick = replace(NODE, cadence_seconds=1.0)
    made = meter(quick)
    for second in (0, 10, 21):
        made.observe([watts(quick, 100)], at(second))
    assert booked_of(made).account("node", "dcmi").energy == 10 * 100_000_000


def test_a_restart_keeps_the_cadence() -> None:
    """The value before it is joined with the one after."""
    first = meter(NODE)
    first.observe([watts(NODE, 100)], at(0))
    cut = first.cut(at(0))
    assert cut is not None
    second = meter(NODE, state=cut.state)
    second.observe([watts(NODE, 100)], at(40))
    account = booked_of(second).account("node", "dcmi")
    assert (account.energy, account.details) == (40 * 100_000_000, [])


def test_power_of_a_slow_meter_and_of_its_residual_stays_live_as_long() -> None:
    """It is the present until three cadences have passed without another."""
    made = meter(NODE, PACKAGE)
    for second in range(82):
        readings: list[Reading] = [counter(PACKAGE, 60_000_000 * second)]
        made.observe([*readings, watts(NODE, 100)] if second in (0, 20) else readings, at(second))
        live = {power.domain: power.power_milliwatts for power in made.live()}
        if 20 <= second <= 80:
            assert live == {"package": 60_000, "dcmi": 100_000, "residual": 40_000}
    assert live == {"package": 60_000}


def test_a_failed_part_is_waited_for_until_the_next_joint_row() -> None:
    """The residual then has all of the time between, exactly."""
    made = meter(NODE, PACKAGE)
    for second in range(61):
        readings: list[Reading] = [counter(PACKAGE, 60_000_000 * second)]
        if second == 40:
            readings = [TryAgain(PACKAGE.key, "made to fail")]
        made.observe([*readings, watts(NODE, 100)] if second % 20 == 0 else readings, at(second))
    account = booked_of(made).account("node", "residual")
    assert account.energy == 60 * 40_000_000
    assert list(account.values) == [0, 20 * SECOND, 60 * SECOND]


@settings(max_examples=100, deadline=None)
@given(phase=st.integers(1, 14), seconds=st.integers(150, 300))
def test_two_slow_meters_that_are_never_read_together_make_one_sum(phase: int, seconds: int) -> None:
    """The residual takes the lesser one as it was last read, and so the sum is the greater one's at each of its values."""
    made = meter(NODE, SLED, PACKAGE)
    readings: list[Reading]
    for second in range(seconds):
        readings = [counter(PACKAGE, 60_000_000 * second)]
        if second % 20 == 0:
            readings.append(watts(NODE, 500))
        if second % 15 == phase:
            readings.append(watts(SLED, 200))
        made.observe(readings, at(second))
    book = booked_of(made)
    top, node = book.account("node", "dcmi").values, book.account("node", "residual").values
    sled, leaf = book.account("module/0", "sled").values, book.account("cpu/0").values

    def summed(time: int) -> int:
        """The residual and all below it; the inner meter as last read."""
        return node[time] + leaf[time] + sled[max(read for read in sled if read <= time)]

    assert len(node) > 5
    for one, other in pairwise(sorted(node)):
        assert summed(other) - summed(one) == top[other] - top[one]


@settings(max_examples=100, deadline=None)
@given(changes=st.integers(0, 19), before=st.integers(0, 1000), after=st.integers(0, 1000))
def test_a_step_between_two_values_errs_by_half_a_cadence_at_most(changes: int, before: int, after: int) -> None:
    """What the README says of it: the step's power times the cadence, halved, in either direction."""
    made = meter(NODE)
    for second in range(0, 101, 20):
        made.observe([watts(NODE, before if second <= 40 + changes else after)], at(second))
    truth = before * (40 + changes) + after * (60 - changes)
    error = booked_of(made).account("node", "dcmi").energy / 1e6 - truth
    assert abs(error) <= abs(after - before) * NODE.cadence_seconds / 2


def test_a_ramp_between_two_values_errs_by_nothing() -> None:
    """A trapezoid is exact where power changes evenly."""
    made = meter(NODE)
    for second in range(0, 101, 20):
        made.observe([watts(NODE, 3 * second)], at(second))
    assert booked_of(made).account("node", "dcmi").energy == 3 * 100 * 100 // 2 * 1_000_000
