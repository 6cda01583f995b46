"""Readings that come a row late: counters lose nothing by it, and what may have happened meanwhile is in the bounds."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agent.metering import GAP_SECONDS, SECOND, Book, at, counter, spec

from wattledger_agent.channels import unpack
from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelSpec, Component, Method, PowerReading, Role, TryAgain
from wattledger_protos.v1 import telemetry_pb2 as pb

NODE = spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=1000.0)
# Ten seconds at the bound are a range.
CPU = spec("cpu/0", wrap=1_000_000_000)
GPU = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, parent=NODE.key)
POWER = replace(GPU, method=Method.INTEGRAL, parent=None)


def begin(*specs: ChannelSpec) -> Meter:
    """A meter to which these are offered."""
    meter = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS)
    meter.offer(specs, at(0))
    return meter


def booked(meter: Meter) -> Book:
    """What its records say."""
    book = Book()
    book.add(meter.cut(at(1000)))
    return book


def test_a_source_that_is_always_late_loses_nothing() -> None:
    """Its values stand a row behind, the residual is reckoned with them, and the sum is the meter's."""
    meter = begin(NODE, GPU)
    meter.observe([counter(NODE, 0), counter(GPU, 0)], at(0))
    for second in range(1, 11):
        behind = counter(GPU, 300_000_000 * (second - 1))
        meter.observe([counter(NODE, 500_000_000 * second), behind], at(second), {GPU.key: SECOND})
    book = booked(meter)
    gpu, residual = book.account("gpu/0"), book.account("node", "residual")
    assert (gpu.energy, residual.energy) == (9 * 300_000_000, 10 * 500_000_000 - 9 * 300_000_000)
    assert not gpu.details
    assert not residual.details


def test_a_wrap_is_ambiguous_if_the_value_before_may_be_old() -> None:
    """The rows are a second apart, but the counter may have run for eleven."""
    meter = begin(CPU)
    meter.observe([counter(CPU, 0)], at(1))
    meter.observe([counter(CPU, 10)], at(20), {CPU.key: 10 * SECOND})
    meter.observe([counter(CPU, 20)], at(21))
    meter.observe([counter(CPU, 30)], at(22))
    account = booked(meter).account("cpu/0")
    assert [gap.reason for gap in account.details] == [pb.GAP_REASON_WRAP_AMBIGUOUS, pb.GAP_REASON_WRAP_AMBIGUOUS]
    assert account.energy == 10
    assert account.details[1].upper_microjoules == 10 + 1_000_000_000


def test_a_gap_after_a_late_value_begins_where_that_may_have_been_taken() -> None:
    """What a reset lost is bounded by the time since the read was asked for."""
    meter = begin(GPU)
    meter.observe([counter(GPU, 0)], at(1))
    meter.observe([counter(GPU, 500)], at(6), {GPU.key: 5 * SECOND})
    meter.observe([counter(GPU, 0)], at(7))
    (gap,) = booked(meter).account("gpu/0").details
    assert (gap.reason, gap.upper_microjoules) == (pb.GAP_REASON_RESET, 6 * 100_000_000)


def test_lateness_is_kept_over_a_restart() -> None:
    """The next agent's first reading is measured from the same moment."""
    meter = begin(GPU)
    meter.observe([counter(GPU, 0)], at(1))
    meter.observe([counter(GPU, 0)], at(6), {GPU.key: 5 * SECOND})
    cut = meter.cut(at(6))
    assert cut is not None
    (channel,) = unpack(cut.state, GAP_SECONDS)[2]
    assert channel.state.late_nanoseconds == 5 * SECOND


def test_a_late_value_from_before_a_suspend_is_not_taken() -> None:
    """The counter may have begun anew in the sleep: its value of before would pass for one of after."""
    meter = begin(GPU)
    meter.observe([counter(GPU, 1_000)], at(1))
    meter.observe([counter(GPU, 2_000)], at(30, suspended=20), {GPU.key: 29 * SECOND})
    assert meter.unbelieved_readings == 1
    meter.observe([counter(GPU, 100)], at(31, suspended=20), {GPU.key: SECOND})
    meter.observe([counter(GPU, 600)], at(32, suspended=20))
    account = booked(meter).account("gpu/0")
    assert account.energy == 500
    assert [gap.reason for gap in account.details] == [pb.GAP_REASON_SUSPEND]


@dataclass(frozen=True)
class Row:
    """elapsed: since the row before. power: of the part in between. asked: how long before the row its read was asked for;
    None: it failed. taken: where in that time the value was taken, in thousandths."""

    elapsed: int
    power: int
    asked: int | None
    taken: int


ROWS = st.lists(
    st.builds(
        Row,
        st.one_of(st.just(8 * SECOND), st.integers(1, 8 * SECOND)),
        st.sampled_from([100, 100, 90, 10, 0]),
        st.one_of(st.none(), st.just(0), st.just(30 * SECOND), st.integers(1, 30 * SECOND)),
        st.sampled_from([0, 0, 500, 1000]),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(rows=ROWS)
def test_late_values_are_exact_or_within_the_gaps(rows: list[Row]) -> None:
    """The truth at the moment at which the last value was taken, whatever wrapped meanwhile."""
    wrap = 1_000_000_000
    # Energy at each row; power is constant in between.
    times, energies = [0], [0]
    meter, taken_at = begin(CPU), 0
    meter.observe([counter(CPU, 0)], at(0))

    def energy_at(moment: int) -> int:
        last = max(index for index, time in enumerate(times) if time <= moment)
        if last == len(times) - 1:
            return energies[last]
        span, used = times[last + 1] - times[last], energies[last + 1] - energies[last]
        return energies[last] + used * (moment - times[last]) // span

    asked_before = 0
    for row in rows:
        now = times[-1] + row.elapsed
        energies.append(energies[-1] + row.elapsed * row.power // 1000)
        times.append(now)
        if row.asked is None:
            meter.observe([TryAgain(CPU.key, "made to fail")], at(now / SECOND))
            continue
        # One read at a time: a read is asked for after the one before has returned its value.
        asked = max(now - row.asked, asked_before)
        asked_before = now
        moment = max(taken_at, asked + (now - asked) * row.taken // 1000) if asked < now else now
        taken_at = moment
        late = {CPU.key: now - asked} if asked < now else {}
        meter.observe([counter(CPU, energy_at(moment) % wrap)], at(now / SECOND), late)
    account = booked(meter).account("cpu/0")
    truth = energy_at(taken_at)
    assert account.energy + account.gap_lower <= truth <= account.energy + account.gap_upper
    assert account.energy == truth or account.details


def test_a_power_of_long_ago_is_none_of_the_present() -> None:
    """A counter tells the same later, a power does not."""
    meter = begin(POWER)
    meter.observe([PowerReading(POWER.key, 50_000_000)], at(1))
    meter.observe([PowerReading(POWER.key, 50_000_000)], at(3), {POWER.key: SECOND})
    meter.observe([PowerReading(POWER.key, 90_000_000)], at(70), {POWER.key: 61 * SECOND})
    account = booked(meter).account("gpu/0")
    # Up to the second for which the late one was asked.
    assert (account.energy, meter.unbelieved_readings) == (50_000_000, 1)


def test_a_late_power_is_integrated_up_to_when_it_was_asked_for() -> None:
    """At the row in which it came it would stand for seconds of which it says nothing; the next one tells of those."""
    meter = begin(POWER)
    meter.observe([PowerReading(POWER.key, 10_000_000)], at(1))
    meter.observe([PowerReading(POWER.key, 100_000_000)], at(5), {POWER.key: 3 * SECOND})
    assert booked(meter).account("gpu/0").energy == 55_000_000
    meter.observe([PowerReading(POWER.key, 20_000_000)], at(6))
    account = booked(meter).account("gpu/0")
    assert (account.energy, account.details) == (55_000_000 + 4 * 60_000_000, [])


def test_a_power_from_before_the_last_one_is_no_news() -> None:
    """Answers that overtake one another would have time run backwards."""
    meter = begin(POWER)
    meter.observe([PowerReading(POWER.key, 10_000_000)], at(1))
    meter.observe([PowerReading(POWER.key, 10_000_000)], at(4))
    meter.observe([PowerReading(POWER.key, 90_000_000)], at(5), {POWER.key: 2 * SECOND})
    meter.observe([PowerReading(POWER.key, 10_000_000)], at(6))
    account = booked(meter).account("gpu/0")
    assert (account.energy, account.details, meter.unbelieved_readings) == (50_000_000, [], 1)


def test_a_first_power_that_is_late_is_one_of_the_row_that_asked_for_it() -> None:
    """A source that is always late is metered from there on, without a gap at its beginning."""
    meter = begin(POWER)
    meter.observe([], at(1))
    meter.observe([PowerReading(POWER.key, 30_000_000)], at(2), {POWER.key: SECOND})
    meter.observe([PowerReading(POWER.key, 30_000_000)], at(3), {POWER.key: SECOND})
    account = booked(meter).account("gpu/0")
    assert (account.energy, account.details) == (30_000_000, [])
