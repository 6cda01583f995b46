"""What an import has booked is booked by nobody else: which channels it keeps out, over which time, down to the edge."""

from dataclasses import replace
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.collector.batches import BOOT, SECOND, UTC, WATT, account, batch, column, hello, info, opened, payload

from wattledger_collector.imported_time import IMPORTED_SPANS_MAX, ImportedTime, imported_spans, is_kept_out, without_holes
from wattledger_collector.ledger import book
from wattledger_collector.records import (
    IMPORTED_COMPONENT_ALL,
    Booking,
    ChannelEnd,
    ChannelInfo,
    Component,
    GapReason,
    GapRow,
    ImportedSpan,
    Method,
    Role,
)
from wattledger_collector.workload_records import WorkloadBooking

ALL = IMPORTED_COMPONENT_ALL
BEGIN = UTC // SECOND
CPU = info(1)
GPU = replace(info(2), component=Component.GPU, device="gpu/0")
RESIDUAL = replace(info(3, Role.RESIDUAL), component=Component.OTHER, device="node")
CHANNELS = {1: CPU, 2: GPU, 3: RESIDUAL}


def booked(
    imported: tuple[ImportedSpan, ...],
    times: list[int],
    *,
    channels: dict[int, ChannelInfo] = CHANNELS,
    steps: dict[int, int] | None = None,
    accounts: int = 0,
) -> Booking:
    """The booking of samples at these seconds, in each of which each channel rose by as many watts as it has steps."""
    start = opened(hello())
    host = msgspec.structs.replace(start.host_after, imported=imported)
    watts = steps or dict.fromkeys(channels, 10)
    columns = [column(number, [each * watts[number] * WATT for each in times]) for number in sorted(channels)]
    told = [account(1, accounts)] if accounts else []
    content = payload([each * SECOND for each in times], columns, accounts=told)
    return book(batch(content, 1), host, start.cursor_after, channels, interval_seconds=900, collector="c")


def sums(booking: Booking, channel: int) -> int:
    """What was booked of a channel, in microjoules."""
    return sum(row.energy_microjoules for row in booking.energy if row.channel == channel)


def test_what_an_import_has_booked_is_left_in_a_gap() -> None:
    """Of ten seconds the import has three: the agent's energy of these is a gap, and the rest is booked."""
    booking = booked((ImportedSpan(ALL, BEGIN + 3, BEGIN + 6),), list(range(11)), channels={1: CPU})

    assert sums(booking, 1) == 7 * 10 * WATT
    assert booking.gaps == (GapRow(1, UTC + 3 * SECOND, UTC + 6 * SECOND, GapReason.OVERLAP, 0, 30 * WATT),)
    assert booking.cursor_after.points[1].energy_microjoules == 100 * WATT
    assert booking.cursor_after.points[1].booked_microjoules == 70 * WATT
    assert sum(row.covered_nanoseconds for row in booking.energy) == 7 * SECOND


def test_the_common_way_of_a_batch_looks_at_imports_too() -> None:
    """A second batch within one interval is booked without a look at its samples, but not over imported time."""
    first = booked((ImportedSpan(ALL, BEGIN + 60, BEGIN + 70),), [0, 10], channels={1: CPU})

    for seconds, energy in ((20, 100), (65, 0)):
        content = payload([seconds * SECOND], [column(1, [seconds * 10 * WATT])])
        after = book(batch(content, 2), first.host_after, first.cursor_after, {1: CPU}, interval_seconds=900, collector="c")
        assert sums(after, 1) == energy * WATT
        assert len(after.gaps) == (0 if energy else 1)


def test_the_end_of_a_closed_channel_is_kept_out_like_any_sample() -> None:
    """What a catalog tells of a channel that ended within imported time is a gap."""
    end = ChannelEnd(BOOT, 10 * SECOND, UTC + 10 * SECOND, True, 100 * WATT, 0, 0, 0)
    closed = replace(GPU, closed=True, end=end)
    start = opened(hello())
    for spans, energy in (((), 100), ((ImportedSpan(ALL, BEGIN, BEGIN + 60),), 0)):
        after = book(
            batch(payload([20 * SECOND], [column(1, [0])]), 1),
            msgspec.structs.replace(start.host_after, imported=spans),
            start.cursor_after,
            {1: CPU, 2: closed},
            interval_seconds=900,
            collector="c",
            new_channels=[CPU, closed],
        )
        assert sums(after, 2) == energy * WATT
        assert after.cursor_after.points[2].energy_microjoules == 100 * WATT


def test_an_increment_that_reaches_into_imported_time_is_left_whole() -> None:
    """How much of it lies outside nobody counted: all of it is the gap's upper bound. Times that meet share nothing."""
    inside = booked((ImportedSpan(ALL, BEGIN + 599, BEGIN + 900),), [0, 600], channels={1: CPU})
    beside = booked((ImportedSpan(ALL, BEGIN + 600, BEGIN + 900),), [0, 600], channels={1: CPU})

    assert (sums(inside, 1), [gap.upper_microjoules for gap in inside.gaps]) == (0, [6000 * WATT])
    assert (sums(beside, 1), beside.gaps) == (6000 * WATT, ())


def test_a_residual_that_fell_is_left_with_both_bounds() -> None:
    """A residual is signed: what was left of it lies between what it was and nothing."""
    booking = booked((ImportedSpan(ALL, BEGIN, BEGIN + 60),), [0, 10], channels={3: RESIDUAL}, steps={3: -5})

    assert [(gap.lower_microjoules, gap.upper_microjoules) for gap in booking.gaps] == [(-50 * WATT, 0)]


def test_an_imported_component_keeps_out_that_component_alone() -> None:
    """The GPUs' meter stands for the agent's GPU; its CPU, and the residual that is without GPUs, are booked."""
    booking = booked((ImportedSpan(int(Component.GPU), BEGIN, BEGIN + 60),), [0, 10])

    assert [sums(booking, channel) for channel in (1, 2, 3)] == [100 * WATT, 0, 100 * WATT]


def test_a_residual_holds_what_no_leaf_tells() -> None:
    """Without a GPU of its own the agent's residual has the GPUs' energy, and so has a closed one's."""
    imported = (ImportedSpan(int(Component.GPU), BEGIN, BEGIN + 60),)
    for gone in ({}, {2: replace(GPU, closed=True)}):
        booking = booked(imported, [0, 10], channels={1: CPU, 3: RESIDUAL, **gone}, steps={1: 10, 2: 0, 3: 10})

        assert [sums(booking, channel) for channel in (1, 3)] == [100 * WATT, 0]


def test_what_stands_for_a_whole_node_holds_its_parts() -> None:
    """An estimate of a node has its CPUs, but no GPUs; a channel that is not booked is never kept out."""
    model = replace(info(4, method=Method.MODEL), component=Component.OTHER)
    node = replace(model, method=Method.COUNTER)
    nothing: frozenset[Component] = frozenset()

    assert is_kept_out(int(Component.CPU), model, nothing)
    assert not is_kept_out(int(Component.GPU), model, nothing)
    assert is_kept_out(int(Component.GPU), node, nothing)
    assert not is_kept_out(int(Component.GPU), CPU, nothing)
    assert not is_kept_out(ALL, info(5, Role.METER), nothing)


def test_workloads_are_kept_out_with_their_component() -> None:
    """What a container used of the CPUs is not told again where an import has the host; the time it ran is."""

    def told(*spans: ImportedSpan) -> WorkloadBooking:
        accounts = booked(spans, [0, 10], accounts=7).workloads
        assert accounts is not None
        return accounts

    assert [row.energy_microjoules for row in told().energy] == [7]
    assert told(ImportedSpan(ALL, BEGIN, BEGIN + 60)).energy == ()
    assert told(ImportedSpan(int(Component.CPU), BEGIN, BEGIN + 60)).energy == ()
    assert [row.energy_microjoules for row in told(ImportedSpan(int(Component.GPU), BEGIN, BEGIN + 60)).energy] == [7]


def test_a_span_that_runs_backwards_is_its_end() -> None:
    """Where a clock was put back all goes to the later instant, and that instant decides."""
    time = ImportedTime((ImportedSpan(ALL, 100, 200),), {})

    assert time.holds(CPU, [(300 * SECOND, 150 * SECOND)])
    assert not time.holds(CPU, [(300 * SECOND, 250 * SECOND)])
    assert time.holds(CPU, [(0, 100 * SECOND + 1)])
    assert not time.holds(CPU, [(0, 100 * SECOND)])
    assert not time.holds(CPU, [(200 * SECOND, 300 * SECOND)])
    assert time.holds(CPU, [(0, 50 * SECOND), (199 * SECOND, 300 * SECOND)])


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 3]), st.integers(0, 60), st.integers(1, 9)), max_size=12),
    st.integers(-5, 70),
    st.integers(1, 40),
)
def test_spans_hold_what_their_seconds_hold(drawn: list[tuple[int, int, int]], start: int, length: int) -> None:
    """Against a set of single seconds: spans that touch or overlap are one, and no component hides another's."""
    spans = imported_spans([(component, [(begin, begin + size)]) for component, begin, size in drawn])
    seconds = {(component, each) for component, begin, size in drawn for each in range(begin, begin + size)}
    asked = range(start, start + length)
    time = ImportedTime(spans, CHANNELS)

    assert time.holds(CPU, [(start * SECOND, (start + length) * SECOND)]) == any(
        (component, each) in seconds for component in (ALL, int(Component.CPU)) for each in asked
    )
    assert all(
        before.component < after.component or before.to_seconds < after.from_seconds for before, after in pairwise(spans)
    )


def test_too_many_spans_are_joined_over_the_least_time() -> None:
    """The row stays bounded, and what is joined is kept out as well: booked twice is nothing."""
    times = [(each * 100, each * 100 + (99 if each % 2 else 50)) for each in range(2 * IMPORTED_SPANS_MAX)]

    spans = imported_spans([(ALL, times)])

    assert len(spans) == IMPORTED_SPANS_MAX
    assert sum(span.to_seconds - span.from_seconds for span in spans) == sum(end - begin for begin, end in times) + sum(
        1 for begin, end in times[:-1] if end - begin == 99
    ) + 50 * (IMPORTED_SPANS_MAX - sum(1 for begin, end in times[:-1] if end - begin == 99))
    time = ImportedTime(spans, {})
    assert all(time.holds(CPU, [(begin * SECOND, end * SECOND)]) for begin, end in times)


def test_a_series_lies_between_its_holes() -> None:
    """Holes at both ends and in the middle."""
    assert without_holes(0, 10, [(8, 10), (0, 1), (4, 5)]) == [(1, 4), (5, 8)]
    assert without_holes(0, 10, []) == [(0, 10)]
    assert without_holes(0, 10, [(0, 10)]) == []
