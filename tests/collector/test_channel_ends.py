"""A closed channel's end is booked once, whatever became of the records that had its last values."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collector.batches import (
    BOOT,
    INTERVAL_SECONDS,
    NEXT_BOOT,
    OTHER_EPOCH,
    SECOND,
    UTC,
    batch,
    clock,
    column,
    enveloped,
    hello,
    info,
    opened,
    payload,
)

from wattledger_collector.ledger import book
from wattledger_collector.records import (
    Booking,
    BootedSpan,
    ChannelEnd,
    ChannelInfo,
    CommitOutcome,
    Cursor,
    GapReason,
    Host,
    Role,
)
from wattledger_collector.session import Book as BookAction
from wattledger_collector.session import CollectorSession, OpenStream
from wattledger_collector.wire import catalog_hash_of, check_catalog
from wattledger_protos.v1 import telemetry_pb2 as pb


def end(
    seconds: int, microjoules: int, *, boot: bytes = BOOT, gap: tuple[int, int, int] = (0, 0, 0), offset: int = UTC
) -> ChannelEnd:
    """An end at this boottime."""
    return ChannelEnd(boot, seconds * SECOND, seconds * SECOND + offset, True, microjoules, *gap)


def closed(at: ChannelEnd, channel: int = 1, role: Role = Role.LEAF) -> ChannelInfo:
    """The channel as a later catalog shows it."""
    return replace(info(channel, role), closed=True, end=at)


class Book:
    """A host with two channels, of which the first goes; rows of it are added up."""

    def __init__(self) -> None:
        first = opened()
        self.host: Host = first.host_after
        self.cursor: Cursor = first.cursor_after
        self.energy: dict[int, int] = {}
        self.evidence: list[str] = []
        self.gaps: list[tuple[GapReason, int, int | None]] = []

    def send(
        self,
        sequence: int,
        times: Sequence[int],
        *columns: pb.Column,
        ends: Sequence[ChannelInfo] = (),
        boot: bytes = BOOT,
        offset: int = UTC,
    ) -> Booking:
        """Book a batch whose catalog is new and shows these channels closed; times in seconds of boottime."""
        channels = {1: info(1), 2: info(2)} | {each.channel: each for each in ends}
        content = payload([time * SECOND for time in times], columns, boot=boot, offset=offset)
        booking = book(
            batch(content, sequence),
            self.host,
            self.cursor,
            channels,
            interval_seconds=INTERVAL_SECONDS,
            collector="c1",
            new_channels=ends,
        )
        self.host, self.cursor = booking.host_after, booking.cursor_after
        for row in booking.energy:
            self.energy[row.channel] = self.energy.get(row.channel, 0) + row.energy_microjoules
        self.evidence += [row.reason for row in booking.evidence]
        self.gaps += [(gap.reason, gap.lower_microjoules, gap.upper_microjoules) for gap in booking.gaps]
        return booking


def test_an_end_gives_back_what_a_lost_record_had() -> None:
    """The record with the channel's last samples never came: the end has their energy, and its time is covered."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]), column(2, [50]))
    booking = ledger.send(2, [40], column(2, [80]), ends=[closed(end(30, 170))])
    assert ledger.energy == {1: 170, 2: 80}
    (row,) = (row for row in booking.energy if row.channel == 1)
    assert row.covered_nanoseconds == 20 * SECOND
    assert ledger.cursor.points[1].booked_microjoules == 170
    assert ledger.cursor.points[1].utc_nanoseconds == UTC + 30 * SECOND


def test_an_end_before_what_is_booked_is_evidence_once() -> None:
    """A spool that went on from an older copy says that the channel ended with less than the ledger has."""
    ledger = Book()
    ledger.send(1, [10, 30], column(1, [100, 170]), column(2, [50, 60]))
    earlier = closed(end(20, 130))
    ledger.send(2, [40], column(2, [80]), ends=[earlier])
    ledger.send(3, [50], column(2, [90]), ends=[earlier])
    assert (ledger.energy, ledger.gaps) == ({1: 170, 2: 90}, [])
    (reason,) = ledger.evidence
    assert "fell from 170 µJ, which are booked, to 130 at its end" in reason
    assert (ledger.cursor.points[1].booked_microjoules, ledger.cursor.points[1].energy_microjoules) == (170, 130)


def test_an_end_is_booked_once() -> None:
    """A stream that begins anew shows all closed channels again."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    for sequence in (2, 3, 4):
        ledger.send(sequence, [sequence * 20], column(2, [sequence * 10]), ends=[closed(end(30, 170, gap=(1, 5, 1)))])
    assert ledger.energy == {1: 170, 2: 40}
    assert ledger.gaps == [(GapReason.UNREPORTED, 1, None)]


def test_an_end_beside_its_own_samples_adds_nothing() -> None:
    """Usually the last samples are there, and the end says the same."""
    ledger = Book()
    booking = ledger.send(1, [10, 30], column(1, [100, 170]), ends=[closed(end(30, 170))])
    assert ledger.energy == {1: 170}
    assert len(booking.energy) == 1


def test_older_values_after_the_end_are_passed_by() -> None:
    """Energy and gap sums of records from before the end are in it; they come as neither energy, gap nor fault."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]), ends=[closed(end(30, 170, gap=(0, 9, 0)))])
    ledger.send(2, [20], column(1, [140], gap=(0, 3, 0)))
    ledger.send(3, [30], column(1, [165], gap=(0, 3, 0)))
    assert ledger.energy == {1: 170}
    assert (ledger.evidence, ledger.gaps) == ([], [(GapReason.UNREPORTED, 0, 9)])
    assert ledger.cursor.points[1].gap_upper_microjoules == 9


def test_a_gap_that_ended_the_channel_is_booked_without_energy() -> None:
    """Between the last sample and the end the agent may have noticed that something was missed."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    ledger.send(2, [20], ends=[closed(end(10, 100, gap=(0, 7, 0)))])
    ledger.send(3, [30], ends=[closed(end(10, 100, gap=(0, 7, 0)))])
    assert (ledger.energy, ledger.gaps) == ({1: 100}, [(GapReason.UNREPORTED, 0, 7)])


def test_a_channel_that_no_record_told_of_is_booked_from_its_opening() -> None:
    """A device that came and went between two records that arrived."""
    ledger = Book()
    ledger.send(1, [40], column(2, [80]), ends=[closed(end(30, 170))])
    assert ledger.energy == {1: 170, 2: 80}
    assert list(ledger.cursor.points) == [1, 2]


def test_an_end_in_an_earlier_boot_is_booked_there() -> None:
    """The device went before the host was booted anew; the end's own old clock moves no boot."""
    ledger = Book()
    ledger.send(1, [890], column(1, [100]))
    boots = ledger.host.boots
    at = end(910, 120, offset=UTC + 77 * SECOND)
    ledger.send(2, [5], column(2, [1]), ends=[closed(at)], boot=NEXT_BOOT, offset=UTC + 2000 * SECOND)
    assert ledger.energy == {1: 120, 2: 1}
    assert ledger.cursor.points[1].utc_nanoseconds == UTC + 910 * SECOND
    assert [boot for boot in ledger.host.boots if boot.boot_id == BOOT] == list(boots)


def test_an_end_in_a_boot_that_the_cursor_has_left_behind_is_old() -> None:
    """A point in a later boot is beyond any end in an earlier one: nothing is booked, and the contradiction is kept."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    first = opened(hello(boot=NEXT_BOOT), ledger.host, ledger.cursor)
    ledger.host, ledger.cursor = first.host_after, first.cursor_after
    ledger.send(2, [5], column(1, [130]), boot=NEXT_BOOT)
    ledger.send(3, [6], ends=[closed(end(30, 110))], boot=NEXT_BOOT)
    assert (ledger.energy, len(ledger.evidence)) == ({1: 130}, 1)


def test_an_end_is_split_over_intervals() -> None:
    """As any other sample."""
    ledger = Book()
    ledger.send(1, [800], column(1, [100]))
    booking = ledger.send(2, [2000], ends=[closed(end(1000, 300))])
    assert [row.energy_microjoules for row in booking.energy] == [100, 100]


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (end(30, 99), "fell from 100 to 99"),
        (end(30, 1 << 62), "beyond all that can be kept"),
        (end(30, 10**15), "but its bound is"),
    ],
    ids=["fell", "too large", "too much"],
)
def test_an_implausible_end_is_evidence(at: ChannelEnd, words: str) -> None:
    """It is refused once; its place is a gap with the channel's bound, and other channels do not suffer."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    ledger.send(2, [40], column(2, [80]), ends=[closed(at)])
    ledger.send(3, [50], ends=[closed(at)])
    assert ledger.energy == {1: 100, 2: 80}
    (reason,) = ledger.evidence
    assert words in reason
    # 1000 W for 20 s.
    assert ledger.gaps == [(GapReason.IMPLAUSIBLE, 0, 20_000 * 1_000_000)]


def test_an_end_that_another_epoch_has_booked_is_a_gap() -> None:
    """Two epochs of a host never book one boottime."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    span = BootedSpan(OTHER_EPOCH, BOOT, 15 * SECOND, 25 * SECOND)
    ledger.host = msgspec.structs.replace(ledger.host, spans=(*ledger.host.spans, span))
    ledger.send(2, [40], ends=[closed(end(30, 170))])
    assert (ledger.energy, ledger.gaps) == ({1: 100}, [(GapReason.OVERLAP, 0, 70)])


def test_the_end_of_a_meter_is_kept_but_not_booked() -> None:
    """What is only shown has no rows."""
    ledger = Book()
    ledger.send(1, [10], ends=[closed(end(30, 170), role=Role.METER)])
    assert ledger.energy == {}
    assert ledger.cursor.points[1].booked_microjoules == 170


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_whatever_is_lost_the_sum_is_the_end(data: st.DataObject) -> None:
    """Any records of a device that went may be lost or come late: its energy and gap sums are those of its end."""
    steps = data.draw(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 1000)), min_size=1, max_size=8))
    values, gaps = [], []
    energy = gap = 0
    for more, missed in steps:
        energy, gap = energy + more, gap + missed
        values.append(energy)
        gaps.append(gap)
    last = len(steps)
    at = closed(end(last * 400, energy, gap=(0, gap, 0)))
    shown = data.draw(st.integers(1, last + 1))
    ledger = Book()
    for place in range(1, last + 1):
        lost = data.draw(st.booleans())
        columns = [] if lost else [column(1, [values[place - 1]], gap=(0, gaps[place - 1], 0))]
        ledger.send(place, [place * 400], *columns, ends=[at] if place >= shown else [])
    ledger.send(last + 1, [last * 400 + 5], column(2, [1]), ends=[at])
    assert ledger.energy.get(1, 0) == energy
    assert sum(upper or 0 for _, _, upper in ledger.gaps) == gap
    assert ledger.evidence == []


def wire_channel(*, is_closed: bool = True) -> pb.Channel:
    """A closed channel as an agent sends it."""
    return pb.Channel(
        channel=1,
        device="gpu/1",
        component=pb.COMPONENT_GPU,
        domain="board",
        source="nvidia",
        method=pb.METHOD_COUNTER,
        role=pb.ROLE_LEAF,
        opening=pb.Opening(boot_id=BOOT, clock=clock(0)),
        closed=is_closed,
        power_bound_milliwatts=10**6,
        end=pb.ChannelEnd(
            boot_id=BOOT, clock=clock(30 * SECOND), energy_microjoules=170, gap_upper_microjoules=4, gap_unbounded_count=1
        ),
    )


def checked(channel: pb.Channel) -> ChannelInfo:
    """The channel after the wire's checks."""
    catalog = pb.Catalog(channels=[channel])
    catalog.catalog_hash = catalog_hash_of(catalog)
    return check_catalog(catalog).channels[1]


def test_an_end_is_read_from_the_catalog() -> None:
    """One of a channel that is not closed, or that is at no time, is left out, and the catalog is used all the same."""
    assert checked(wire_channel()).end == end(30, 170, gap=(0, 4, 1))
    assert checked(wire_channel(is_closed=False)).end is None
    without = wire_channel()
    without.ClearField("end")
    assert checked(without).end is None
    short, late = wire_channel(), wire_channel()
    short.end.boot_id = b"short"
    late.end.clock.realtime_nanoseconds = -1
    assert (checked(short).end, checked(late).end) == (None, None)


def test_an_end_waits_for_the_first_batch_that_is_booked() -> None:
    """A batch that had to be set aside settles nothing, so the session hands the closed channel on with the next one."""
    session = CollectorSession(peer_hosts=None, settings=pb.Settings(), durability=pb.DURABILITY_LOCAL)
    (opening,) = session.received(pb.AgentMessage(hello=hello()), UTC)
    assert isinstance(opening, OpenStream)
    first = opened()
    session.opened(first, CommitOutcome.COMMITTED)
    catalog = pb.Catalog(channels=[wire_channel()])
    catalog.catalog_hash = catalog_hash_of(catalog)
    session.received(pb.AgentMessage(catalog=catalog), UTC)
    host, cursor = first.host_after, first.cursor_after
    booked = 0
    for sequence, columns in ((1, [column(9, [1])]), (2, []), (3, [])):
        content = payload([sequence * 100 * SECOND], columns, catalog_hash=catalog.catalog_hash)
        (work,) = session.received(pb.AgentMessage(batch=enveloped(content, sequence)), UTC)
        assert isinstance(work, BookAction)
        assert bool(work.new_channels) == (sequence < 3)
        booking = book(
            work.batch,
            host,
            cursor,
            work.channels,
            interval_seconds=INTERVAL_SECONDS,
            collector="c1",
            new_channels=work.new_channels,
        )
        host, cursor = booking.host_after, booking.cursor_after
        booked += sum(row.energy_microjoules for row in booking.energy)
        session.booked(booking, CommitOutcome.COMMITTED)
    assert booked == 170
