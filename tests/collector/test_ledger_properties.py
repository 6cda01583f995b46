"""What must hold of the ledger for any agent, any losses and any clocks: every increment ends in exactly one place."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.collector.batches import (
    EPOCH,
    INTERVAL_SECONDS,
    OTHER_EPOCH,
    SECOND,
    UTC,
    batch,
    column,
    hello,
    info,
    opened,
    payload,
)

from wattledger_collector.clocks import is_left_behind
from wattledger_collector.imported_time import imported_spans
from wattledger_collector.ledger import book
from wattledger_collector.records import (
    Booking,
    BootedSpan,
    ChannelInfo,
    Cursor,
    GapReason,
    Host,
    ImportedSpan,
    Quality,
    Role,
)
from wattledger_collector.wire import CheckedBatch

LEAF, RESIDUAL = 1, 2


def boot_id(number: int) -> bytes:
    """The id of a host's nth boot."""
    return bytes([number + 1]) * 16


CHANNELS = {LEAF: info(LEAF, boot=boot_id(0)), RESIDUAL: info(RESIDUAL, Role.RESIDUAL, boot=boot_id(0))}


@dataclass
class Totals:
    """All rows that a ledger has ever made."""

    host: Host
    cursor: Cursor
    channels: dict[int, ChannelInfo]
    energy: dict[tuple[int, int, Quality], int] = field(default_factory=lambda: defaultdict(int))
    covered: dict[tuple[int, int, Quality], int] = field(default_factory=lambda: defaultdict(int))
    refused: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    left: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    gap_lower: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    gap_upper: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def book(self, checked: CheckedBatch) -> Booking:
        """Book, commit, and add up."""
        booking = book(checked, self.host, self.cursor, self.channels, interval_seconds=INTERVAL_SECONDS, collector="c1")
        self.host, self.cursor = booking.host_after, booking.cursor_after
        for row in booking.energy:
            key = (row.channel, row.interval_start_seconds, row.quality)
            self.energy[key] += row.energy_microjoules
            self.covered[key] += row.covered_nanoseconds
        for evidence in booking.evidence:
            self.refused[evidence.channel] += evidence.microjoules or 0
        for gap in booking.gaps:
            bounds = gap.lower_microjoules + (gap.upper_microjoules or 0)
            if gap.reason is GapReason.OVERLAP:
                self.left[gap.channel] += bounds
            elif gap.reason is not GapReason.IMPLAUSIBLE:
                self.gap_lower[gap.channel] += gap.lower_microjoules
                self.gap_upper[gap.channel] += gap.upper_microjoules or 0
        return booking

    def booked(self, channel: int) -> int:
        """Sum of the channel's rows."""
        return sum(energy for (number, _, _), energy in self.energy.items() if number == channel)


def ledger(channels: dict[int, ChannelInfo]) -> Totals:
    """A host whose first boot runs."""
    opening = opened(hello(boot=boot_id(0)))
    return Totals(opening.host_after, opening.cursor_after, channels)


@dataclass(frozen=True)
class Record:
    """One batch as spooled."""

    boot: int
    times: list[int]
    leaf: list[int | None]
    residual: list[int | None]
    gaps: tuple[int, int]
    offset: int
    synchronised: bool


@st.composite
def accounts(draw: st.DrawFn) -> list[Record]:
    """An epoch's records: several boots, failed reads, leaps in value and gap, clocks that step."""
    records = []
    boot = boottime = leaf = residual = lower = upper = 0
    leap = st.sampled_from([1, 7, 1_000_000, 10**14, -3])
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 4)) == 0:
            boot, boottime = boot + 1, 0
        times: list[int] = []
        leaves: list[int | None] = []
        residuals: list[int | None] = []
        for _ in range(draw(st.integers(1, 4))):
            boottime += draw(st.sampled_from([1, SECOND, 59 * SECOND + 3, 901 * SECOND, 4000 * SECOND]))
            leaf += draw(leap)
            residual += draw(st.integers(-(10**9), 10**9))
            times.append(boottime)
            leaves.append(leaf if draw(st.integers(0, 3)) else None)
            residuals.append(residual if draw(st.integers(0, 3)) else None)
        lower += draw(st.integers(0, 5))
        upper = max(lower, upper + draw(st.integers(5, 9)))
        offset = UTC + boot * 10**13 + draw(st.sampled_from([0, 0, 3, -3600 * SECOND, 3600 * SECOND]))
        records.append(Record(boot, times, leaves, residuals, (lower, upper), offset, draw(st.booleans())))
    return records


def content(record: Record) -> bytes:
    """The record's payload."""
    columns = [
        column(LEAF, record.leaf, gap=(*record.gaps, 0)),
        column(RESIDUAL, record.residual, gap=(*record.gaps, 0)),
    ]
    return payload(
        record.times, columns, boot=boot_id(record.boot), offset=record.offset, synchronised=record.synchronised
    ).SerializeToString()


@given(records=accounts(), data=st.data())
def test_every_increment_ends_in_one_place(records: list[Record], data: st.DataObject) -> None:
    """Booked + refused + left to others = the last value, whatever is lost, damaged, repeated or stepped."""
    totals = ledger(CHANNELS)
    overlap = st.tuples(st.integers(0, 1), st.integers(0, 5000), st.integers(1, 3000))
    spans = [
        BootedSpan(OTHER_EPOCH, boot_id(boot), start * SECOND, (start + length) * SECOND)
        for boot, start, length in data.draw(st.lists(overlap, max_size=2))
    ]
    imported = imported_spans(
        (component, [(begin, begin + length)])
        for component, begin, length in data.draw(
            st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(-4000, 12_000), st.integers(1, 3000)), max_size=3)
        )
    )
    imported = tuple(
        ImportedSpan(each.component, UTC // SECOND + each.from_seconds, UTC // SECOND + each.to_seconds) for each in imported
    )
    totals.host = msgspec.structs.replace(totals.host, spans=tuple(spans), imported=imported)
    sent: list[CheckedBatch] = []
    for sequence, record in enumerate(records, 1):
        fate = data.draw(st.sampled_from(["arrives", "arrives", "arrives", "lost", "damaged"]))
        if fate == "lost" and sequence < len(records):
            continue
        if data.draw(st.booleans()):
            # The agent connects anew, so that the ledger learns of its boot and clock; backlogs come without.
            message = hello(boot=boot_id(record.boot), opening_boot=boot_id(0), offset=record.offset)
            if not is_left_behind(totals.host, boot_id(record.boot)):
                totals.host = opened(message, totals.host, totals.cursor).host_after
        first = totals.cursor.committed_sequence + 1
        bytes_sent = b"\xff" if fate == "damaged" and sequence < len(records) else content(record)
        sent.append(batch(bytes_sent, first, sequence))
        totals.book(sent[-1])
        for repeated in data.draw(st.lists(st.sampled_from(sent), max_size=2)):
            before = totals.cursor
            assert totals.book(repeated).cursor_after is before

    for channel, column_values in ((LEAF, "leaf"), (RESIDUAL, "residual")):
        point = totals.cursor.points[channel]
        booked = totals.booked(channel)
        assert booked == point.booked_microjoules
        assert booked + totals.refused[channel] + totals.left[channel] == point.energy_microjoules
        last = getattr(records[-1], column_values)[-1]
        if last is not None:
            assert point.energy_microjoules == last
        assert totals.gap_lower[channel] == records[-1].gaps[0]
        assert totals.gap_upper[channel] == records[-1].gaps[1]


@given(
    steps=st.lists(st.tuples(st.integers(1, 400 * SECOND), st.integers(0, 10**8)), min_size=1, max_size=30),
    data=st.data(),
)
def test_cuts_make_no_difference(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """The same samples give the same rows however they are cut into batches, down to each interval's microjoules."""
    times = list(accumulate(step for step, _ in steps))
    leaves = list(accumulate(energy for _, energy in steps))
    residuals = [leaf % 1000 - 500 for leaf in leaves]

    def booked(cuts: list[int]) -> Totals:
        totals = ledger(CHANNELS)
        edges = [0, *cuts, len(times)]
        for sequence, (start, end) in enumerate(pairwise(edges), 1):
            columns = [column(LEAF, leaves[start:end]), column(RESIDUAL, residuals[start:end])]
            totals.book(batch(payload(times[start:end], columns, boot=boot_id(0)), sequence))
        return totals

    whole = booked([])
    cut = booked(sorted(data.draw(st.sets(st.integers(1, len(times) - 1)))) if len(times) > 1 else [])

    assert cut.energy == whole.energy
    assert cut.covered == whole.covered
    assert [each.booked_microjoules for each in cut.cursor.points.values()] == [leaves[-1], residuals[-1]]
    assert not cut.refused


@given(
    steps=st.lists(st.tuples(st.integers(1, 400 * SECOND), st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1),
)
def test_leaves_and_residual_are_the_meter(steps: list[tuple[int, int, int]]) -> None:
    """In total exactly; in each interval within one microjoule per channel and edge."""
    meter = 3
    totals = ledger({**CHANNELS, meter: info(meter, boot=boot_id(0))})  # Booked like a leaf, to have rows to compare with.
    times = list(accumulate(step for step, _, _ in steps))
    leaves = list(accumulate(leaf for _, leaf, _ in steps))
    meters = list(accumulate(value for _, _, value in steps))
    residuals = [whole - leaf for whole, leaf in zip(meters, leaves, strict=True)]

    columns = [column(LEAF, leaves), column(RESIDUAL, residuals), column(meter, meters)]
    totals.book(batch(payload(times, columns, boot=boot_id(0)), 1))

    by_interval: dict[int, int] = defaultdict(int)
    for (channel, start, _), energy in totals.energy.items():
        by_interval[start] += -energy if channel == meter else energy
    assert sum(by_interval.values()) == 0
    # Two edges of an interval, three channels.
    assert all(abs(difference) <= 6 for difference in by_interval.values())
    assert totals.host.spans == (BootedSpan(EPOCH, boot_id(0), 0, times[-1]),)
