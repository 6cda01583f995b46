"""A batch and the cursor it meets become rows, each joule in one of them."""

from collections.abc import Mapping, Sequence

import msgspec
import pytest
from tests.collector.batches import (
    BOOT,
    EPOCH,
    INTERVAL_SECONDS,
    NEXT_BOOT,
    OTHER_EPOCH,
    SECOND,
    UTC,
    WATT,
    batch,
    column,
    hello,
    info,
    opened,
    payload,
)

from wattledger_collector.ledger import book
from wattledger_collector.records import (
    Booking,
    Boot,
    BootedSpan,
    ChannelInfo,
    Cursor,
    EnergyRow,
    GapReason,
    GapRow,
    Host,
    Method,
    Quality,
    Role,
    UtilizationRow,
)
from wattledger_collector.wire import CheckedBatch
from wattledger_protos.v1 import telemetry_pb2 as pb

START = UTC // SECOND  # The interval in which the boot began; its edge.


class Book:
    """A host with one epoch; batches go in, rows are added up."""

    def __init__(self, *channels: ChannelInfo, opening: Booking | None = None) -> None:
        first = opening or opened()
        self.channels: Mapping[int, ChannelInfo] = {channel.channel: channel for channel in channels or (info(),)}
        self.host: Host = first.host_after
        self.cursor: Cursor = first.cursor_after

    def book(self, checked: CheckedBatch) -> Booking:
        """Book and commit."""
        booking = book(checked, self.host, self.cursor, self.channels, interval_seconds=INTERVAL_SECONDS, collector="c1")
        self.host, self.cursor = booking.host_after, booking.cursor_after
        return booking

    def send(self, sequence: int, times: Sequence[int], *columns: pb.Column, boot: bytes = BOOT) -> Booking:
        """Book a plain batch; times in seconds of boottime."""
        return self.book(batch(payload([time * SECOND for time in times], columns, boot=boot), sequence))


def row(energy: int, covered_seconds: int, start: int = START, quality: Quality = Quality.COUNTER) -> EnergyRow:
    """A row of channel 1."""
    return EnergyRow(1, start, quality, energy, covered_seconds * SECOND)


def test_first_batch_is_booked_from_the_opening() -> None:
    """A channel that the cursor does not know begins at its opening with value 0, so that nothing before is lost."""
    ledger = Book()

    booking = ledger.send(1, [10, 20], column(1, [5, 9]))

    assert booking.energy == (row(9, 20),)
    point = ledger.cursor.points[1]
    assert (point.energy_microjoules, point.booked_microjoules, point.booked_high_microjoules) == (9, 9, 9)
    assert (point.boottime_nanoseconds, point.utc_nanoseconds) == (20 * SECOND, UTC + 20 * SECOND)
    assert (ledger.cursor.committed_sequence, ledger.cursor.collector) == (1, "c1")
    assert booking.host_after.version == 2


def test_next_batch_is_booked_from_the_cursor() -> None:
    """Only what lies beyond the cursor's own point is booked."""
    ledger = Book()
    ledger.send(1, [10], column(1, [5]))

    assert ledger.send(2, [20, 30], column(1, [7, 9])).energy == (row(4, 20),)


def test_repeated_batch_changes_nothing() -> None:
    """A batch that the cursor has passed books nothing and leaves both rows as they are."""
    ledger = Book()
    ledger.send(1, [10], column(1, [5]))
    host, cursor = ledger.host, ledger.cursor

    booking = ledger.send(1, [10], column(1, [5]))

    assert booking.energy == ()
    assert (booking.host_after, booking.cursor_after) == (host, cursor)
    assert booking.host_after is host


def test_batch_from_beyond_changes_nothing() -> None:
    """Without what lies between, a batch is not next."""
    ledger = Book()

    assert ledger.send(2, [10], column(1, [5])).cursor_after.committed_sequence == 0


def test_merged_batch_books_what_is_new() -> None:
    """Samples at or before the cursor are ignored in a batch that overlaps it."""
    ledger = Book()
    ledger.send(1, [10, 20], column(1, [5, 9]))

    booking = ledger.book(batch(payload([10 * SECOND, 20 * SECOND, 30 * SECOND], [column(1, [5, 9, 11])]), 1, 3))

    assert booking.energy == (row(2, 10),)
    assert ledger.cursor.committed_sequence == 3


def test_lost_batch_is_bridged() -> None:
    """What a lost batch counted is in the next cumulative value."""
    ledger = Book()
    ledger.send(1, [10], column(1, [5]))

    booking = ledger.book(batch(payload([40 * SECOND], [column(1, [50])]), 2, 4))

    assert booking.energy == (row(45, 30),)


def test_long_span_of_a_counter_is_called_bridged() -> None:
    """Beyond five minutes a counter's spread over time is an assumption, and has a row of its own."""
    ledger = Book()

    booking = ledger.send(1, [10, 320], column(1, [5, 315]))

    assert booking.energy == (row(5, 10), row(310, 310, quality=Quality.BRIDGED))


def test_long_span_of_an_integral_stays_an_integral() -> None:
    """Only counters are bridged: an integral was measured all the time."""
    ledger = Book(info(method=Method.INTEGRAL))

    assert ledger.send(1, [600], column(1, [6])).energy == (row(6, 600, quality=Quality.INTEGRAL),)


def test_energy_is_cut_at_edges() -> None:
    """A batch over an edge is split by its samples, the remainder in the later interval."""
    ledger = Book()

    ledger.send(1, [300, 600, 890], column(1, [3, 6, 10]))
    booking = ledger.send(2, [905, 910], column(1, [14, 20]))

    assert booking.energy == (row(2, 10), row(8, 10, START + 900))


def test_masked_sample_is_no_zero() -> None:
    """Where a channel was not read, the next value books the energy of both spans."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))

    booking = ledger.send(2, [20, 30, 40], column(1, [None, 130, None]))

    assert booking.energy == (row(30, 20),)
    assert ledger.cursor.points[1].boottime_nanoseconds == 30 * SECOND


def test_channel_without_any_value_keeps_its_point() -> None:
    """A column with an empty mask moves gap sums alone."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))

    booking = ledger.send(2, [20], column(1, [None], gap=(0, 40, 0)))

    assert booking.energy == ()
    assert ledger.cursor.points[1].energy_microjoules == 100
    assert booking.gaps == (GapRow(1, UTC + 10 * SECOND, UTC + 20 * SECOND, GapReason.UNREPORTED, 0, 40),)


def test_residual_may_fall() -> None:
    """A residual is signed; what counters show of it is the highest it ever was."""
    ledger = Book(info(role=Role.RESIDUAL))
    ledger.send(1, [10], column(1, [100]))

    booking = ledger.send(2, [20], column(1, [-50]))

    assert booking.energy == (row(-150, 10),)
    point = ledger.cursor.points[1]
    assert (point.booked_microjoules, point.booked_high_microjoules) == (-50, 100)


@pytest.mark.parametrize("role", [Role.METER, Role.SHOWN])
def test_what_is_not_in_the_cut_has_no_rows(role: Role) -> None:
    """Meters and shown channels only move their lifetime total."""
    ledger = Book(info(role=role))

    booking = ledger.send(1, [10, 1000], column(1, [100, 900], gap=(0, 9, 0)))

    assert (booking.energy, booking.gaps) == ((), ())
    assert ledger.cursor.points[1].booked_microjoules == 900
    assert ledger.cursor.points[1].gap_upper_microjoules == 9


def test_points_stay_in_order_of_channel() -> None:
    """The packed cursor is compared byte by byte, so a late channel with a low number is sorted in."""
    ledger = Book(info(1), info(2))
    ledger.send(1, [10], column(2, [1]))
    ledger.send(2, [20], column(1, [1]))

    assert list(ledger.cursor.points) == [1, 2]


# Gaps


def detail(reason: "pb.GapReason.ValueType", start: int, end: int, upper: int, **fields: bytes) -> pb.GapDetail:
    """A gap of channel 1; seconds of boottime."""
    return pb.GapDetail(
        channel=1,
        reason=reason,
        from_boottime_nanoseconds=start * SECOND,
        to_boottime_nanoseconds=end * SECOND,
        upper_microjoules=upper,
        from_boot_id=fields.get("from_boot_id", b""),
    )


def test_gap_has_its_reason_and_no_coverage() -> None:
    """A gap that its detail explains is a row with the reason, and its time is not covered."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    details = [detail(pb.GAP_REASON_RESET, 10, 20, 77)]

    booking = ledger.book(
        batch(payload([20 * SECOND, 30 * SECOND], [column(1, [100, 105], gap=(0, 77, 0))], details=details), 2)
    )

    assert booking.energy == (row(5, 10),)
    assert booking.gaps == (GapRow(1, UTC + 10 * SECOND, UTC + 20 * SECOND, GapReason.RESET, 0, 77),)


def test_residual_of_a_part_with_a_gap_is_spread() -> None:
    """Its energy was measured though its gap spans all of the time, which is not claimed as covered."""
    ledger = Book(info(role=Role.RESIDUAL))
    ledger.send(1, [890], column(1, [0]))
    details = [detail(pb.GAP_REASON_RESET, 890, 910, 0)]

    booking = ledger.book(batch(payload([910 * SECOND], [column(1, [20], gap=(-5, 0, 0))], details=details), 2))

    assert booking.energy == (row(10, 0), row(10, 0, START + 900))


def test_gap_whose_detail_was_lost_is_unreported() -> None:
    """The sums carry a gap over a lost batch; the time between is not claimed as covered."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100], gap=(1, 2, 0)))

    booking = ledger.book(batch(payload([60 * SECOND], [column(1, [130], gap=(11, 42, 0))]), 2, 4))

    assert booking.energy == (row(30, 0),)
    assert booking.gaps == (GapRow(1, UTC + 10 * SECOND, UTC + 60 * SECOND, GapReason.UNREPORTED, 10, 40),)


def test_gap_beyond_its_details_is_split() -> None:
    """What the details leave of the sums is unreported."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    details = [detail(pb.GAP_REASON_SUSPEND, 15, 20, 70)]

    booking = ledger.book(batch(payload([20 * SECOND], [column(1, [100], gap=(0, 90, 1))], details=details), 2))

    assert [(gap.reason, gap.lower_microjoules, gap.upper_microjoules) for gap in booking.gaps] == [
        (GapReason.SUSPEND, 0, 70),
        (GapReason.UNREPORTED, 0, None),
    ]


def test_details_that_exceed_the_sums_are_not_believed() -> None:
    """The sums are what is booked."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    details = [detail(pb.GAP_REASON_SUSPEND, 15, 20, 700)]

    booking = ledger.book(batch(payload([20 * SECOND], [column(1, [100], gap=(0, 90, 0))], details=details), 2))

    assert [(gap.reason, gap.upper_microjoules) for gap in booking.gaps] == [(GapReason.UNREPORTED, 90)]


def test_detail_that_was_booked_is_not_booked_again() -> None:
    """A merged batch repeats details; the cursor's sums know them already."""
    ledger = Book()
    details = [detail(pb.GAP_REASON_RESET, 0, 10, 77)]
    ledger.book(batch(payload([10 * SECOND], [column(1, [0], gap=(0, 77, 0))], details=details), 1))

    times = [10 * SECOND, 20 * SECOND]
    booking = ledger.book(batch(payload(times, [column(1, [0, 6], gap=(0, 77, 0))], details=details), 1, 2))

    assert booking.gaps == ()
    assert booking.energy == (row(6, 10),)


def test_reboot_is_a_gap_between_two_boots() -> None:
    """Energy that a lost batch counted belongs before the reboot, where the detail says the earlier boot ended."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    reopened = opened(hello(boot=NEXT_BOOT, now=SECOND, offset=UTC + 60 * SECOND), ledger.host, ledger.cursor)
    ledger.host, ledger.cursor = reopened.host_after, reopened.cursor_after
    details = [detail(pb.GAP_REASON_REBOOT, 30, 5, 900, from_boot_id=BOOT)]
    content = payload(
        [5 * SECOND, 6 * SECOND],
        [column(1, [140, 141], gap=(0, 900, 0))],
        boot=NEXT_BOOT,
        offset=UTC + 60 * SECOND,
        details=details,
    )

    booking = ledger.book(batch(content, 2, 3))

    assert booking.energy == (row(41, 21),)
    assert booking.gaps == (GapRow(1, UTC + 30 * SECOND, UTC + 65 * SECOND, GapReason.REBOOT, 0, 900),)
    assert booking.host_after.spans == (
        BootedSpan(EPOCH, BOOT, 0, 30 * SECOND),
        BootedSpan(EPOCH, NEXT_BOOT, 5 * SECOND, 6 * SECOND),
    )


def test_energy_over_boots_is_believed_whatever_the_clock_says() -> None:
    """A clock that was set back by an hour between two boots says that no time passed; the counted energy is booked."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    earlier = UTC - 3600 * SECOND
    reopened = opened(hello(boot=NEXT_BOOT, now=SECOND, offset=earlier), ledger.host, ledger.cursor)
    ledger.host, ledger.cursor = reopened.host_after, reopened.cursor_after
    content = payload([5 * SECOND], [column(1, [900_000 * WATT])], boot=NEXT_BOOT, offset=earlier)

    booking = ledger.book(batch(content, 2, 9))

    assert sum(each.energy_microjoules for each in booking.energy) == 900_000 * WATT - 100
    assert booking.evidence == ()


# What is not believed


@pytest.mark.parametrize(
    ("values", "amount", "words"),
    [
        pytest.param([100 + 200_000 * WATT], 200_000 * WATT, "rose by", id="beyond the bound"),
        pytest.param([40], -60, "fell", id="a counter that fell"),
        pytest.param([200, 150], 50, "fell", id="a counter that fell within"),
        pytest.param([2**62], 2**62 - 101, "beyond all", id="beyond the limit"),
        pytest.param([-(2**63)], -(2**62) - 99, "beyond all", id="far below the limit"),
    ],
)
def test_implausible_values_are_evidence(values: list[int], amount: int, words: str) -> None:
    """The cursor moves unbooked, the signed amount is evidence, and what it should have been is a gap."""
    ledger = Book()
    ledger.send(1, [10], column(1, [100]))
    times = [20, 30][: len(values)]

    booking = ledger.send(2, times, column(1, values))

    assert booking.energy == ()
    evidence = booking.evidence[0]
    assert (evidence.channel, evidence.microjoules) == (1, amount)
    assert words in evidence.reason
    seconds = times[-1] - 10
    assert booking.gaps == (
        GapRow(1, UTC + 10 * SECOND, UTC + times[-1] * SECOND, GapReason.IMPLAUSIBLE, 0, seconds * 1000 * WATT),
    )
    point = ledger.cursor.points[1]
    assert (point.energy_microjoules, point.booked_microjoules) == (100 + amount, 100)
    # The account goes on from the new point.
    following = ledger.send(3, [40], column(1, [point.energy_microjoules + 5]))
    assert sum(each.energy_microjoules for each in following.energy) == (0 if following.evidence else 5)


def test_implausible_channel_stands_alone() -> None:
    """The other channels of the batch are booked."""
    ledger = Book(info(1), info(2))
    ledger.send(1, [10], column(1, [100]), column(2, [100]))

    booking = ledger.send(2, [20], column(1, [0]), column(2, [101]))

    assert booking.energy == (EnergyRow(2, START, Quality.COUNTER, 1, 10 * SECOND),)
    assert [each.channel for each in booking.evidence] == [1]


def test_lumps_of_a_minute_are_believed() -> None:
    """A counter that moves once a minute is no fault, though a second's share of it would be."""
    ledger = Book(info(bound_watts=100))
    ledger.send(1, [60], column(1, [0]))

    booking = ledger.send(2, [61], column(1, [60 * 90 * WATT]))

    assert booking.evidence == ()


def test_channel_without_a_bound_is_believed() -> None:
    """Without a power bound only what is impossible for any counter is refused, and then the gap has no upper bound."""
    ledger = Book(info(bound_watts=0))

    assert ledger.send(1, [1], column(1, [2**61])).evidence == ()
    assert ledger.send(2, [2], column(1, [0])).gaps[0].upper_microjoules is None


@pytest.mark.parametrize(
    "checked",
    [
        pytest.param(batch(b"\xff", 2), id="not a payload"),
        pytest.param(batch(payload([20 * SECOND], [column(1, [7]), column(9, [1])]), 2), id="channel not in the catalog"),
    ],
)
def test_undecodable_batch_is_evidence(checked: CheckedBatch) -> None:
    """It is kept whole, the sequence moves on, no point does, and the next batch bridges it."""
    ledger = Book()
    ledger.send(1, [10], column(1, [5]))
    points = ledger.cursor.points

    booking = ledger.book(checked)

    assert (booking.energy, booking.gaps) == ((), ())
    assert [(each.channel, each.microjoules, each.payload) for each in booking.evidence] == [
        (0, None, checked.payload_bytes)
    ]
    assert ledger.cursor.points == points
    assert ledger.cursor.committed_sequence == 2
    assert ledger.send(3, [30], column(1, [9])).energy == (row(4, 20),)


# Clocks


def test_changed_offset_moves_later_samples_only() -> None:
    """Where a clock steps back the span is empty, and all goes to the later sample's interval."""
    ledger = Book()
    ledger.send(1, [910], column(1, [91]))

    content = payload([915 * SECOND, 920 * SECOND], [column(1, [95, 97])], offset=UTC - 100 * SECOND)
    booking = ledger.book(batch(content, 2))

    assert booking.energy == (row(6, 5),)
    assert ledger.cursor.points[1].utc_nanoseconds == UTC + 820 * SECOND
    assert booking.host_after.boots == (Boot(BOOT, UTC - 100 * SECOND, True),)


def test_small_step_back_covers_no_time_twice() -> None:
    """Within one interval too, only the span between the batch's own samples is left."""
    ledger = Book()
    ledger.send(1, [100], column(1, [10]))

    content = payload([105 * SECOND, 110 * SECOND], [column(1, [15, 17])], offset=UTC - 50 * SECOND)

    assert ledger.book(batch(content, 2)).energy == (row(7, 5),)


def test_time_that_a_clock_skipped_is_not_covered() -> None:
    """Where a clock steps ahead, the energy lies in the time that was metered, before the sample."""
    ledger = Book()
    ledger.send(1, [10], column(1, [10]))

    booking = ledger.book(batch(payload([20 * SECOND], [column(1, [20])], offset=UTC + 3600 * SECOND), 2))

    assert booking.energy == (row(10, 10, START + 3600),)


def test_clock_that_is_not_synchronised_is_not_trusted() -> None:
    """The server's time at Hello decides until the kernel calls the clock synchronised."""
    message = hello(synchronised=False, offset=5)
    ledger = Book(opening=opened(message, now_utc=UTC + SECOND))
    assert ledger.host.boots == (Boot(BOOT, UTC, False),)

    first = ledger.book(batch(payload([10 * SECOND], [column(1, [10])], offset=5, synchronised=False), 1))
    second = ledger.book(batch(payload([20 * SECOND], [column(1, [20])], offset=UTC + 7), 2))

    assert first.energy == (row(10, 10),)
    assert second.cursor_after.points[1].utc_nanoseconds == UTC + 20 * SECOND + 7
    assert second.host_after.boots == (Boot(BOOT, UTC + 7, True),)


def test_boot_that_no_hello_named_lies_before_the_running_one() -> None:
    """A backlog from a boot without any connection brings its own clock pair."""
    ledger = Book(info(opening_boottime=0, boot=BOOT), opening=opened(hello(boot=NEXT_BOOT, opening_boot=BOOT)))

    ledger.send(1, [10], column(1, [10]), boot=BOOT)

    assert [boot.boot_id for boot in ledger.host.boots] == [BOOT, NEXT_BOOT]


def test_recording_is_taken_as_it_is() -> None:
    """Times of a recording are UTC whatever its clock pair says, and leave the host's boots alone."""
    start = UTC - 365 * 86_400 * SECOND
    ledger = Book(info(opening_boottime=start), opening=opened(hello(recorded=True)))

    content = payload([start + 60 * SECOND], [column(1, [7])], offset=5)
    booking = ledger.book(batch(content, 1))

    assert booking.energy == (row(7, 60, start // SECOND),)
    assert booking.host_after.boots == ()


# Several epochs of one host


def other_span(start: int, end: int, boot: bytes = BOOT) -> BootedSpan:
    """What another epoch has booked; seconds of boottime."""
    return BootedSpan(OTHER_EPOCH, boot, start * SECOND, end * SECOND)


def test_what_another_epoch_booked_is_left_to_it() -> None:
    """Overlapping increments move the cursor, are not booked, and are gaps from 0 to what they were."""
    ledger = Book(info(1), info(2, Role.RESIDUAL))
    ledger.host = msgspec.structs.replace(ledger.host, spans=(other_span(15, 35),))

    booking = ledger.send(1, [10, 20, 30, 40, 50], column(1, [1, 3, 6, 10, 15]), column(2, [-1, -3, -6, -10, -15]))

    assert [(each.channel, each.energy_microjoules, each.covered_nanoseconds) for each in booking.energy] == [
        (1, 6, 20 * SECOND),
        (2, -6, 20 * SECOND),
    ]
    start, end = UTC + 10 * SECOND, UTC + 40 * SECOND
    assert booking.gaps == (
        GapRow(1, start, end, GapReason.OVERLAP, 0, 9),
        GapRow(2, start, end, GapReason.OVERLAP, -9, 0),
    )
    assert ledger.cursor.points[1].energy_microjoules == 15
    assert ledger.cursor.points[1].booked_microjoules == 6


def test_what_lies_between_two_overlaps_is_no_gap() -> None:
    """Each overlap has its own span and bounds."""
    ledger = Book(info(1))
    ledger.host = msgspec.structs.replace(ledger.host, spans=(other_span(12, 15), other_span(32, 35)))

    booking = ledger.send(1, [10, 20, 30, 40], column(1, [1, 3, 6, 10]))

    assert [each.energy_microjoules for each in booking.energy] == [4]
    assert booking.gaps == (
        GapRow(1, UTC + 10 * SECOND, UTC + 20 * SECOND, GapReason.OVERLAP, 0, 2),
        GapRow(1, UTC + 30 * SECOND, UTC + 40 * SECOND, GapReason.OVERLAP, 0, 4),
    )


def test_epochs_that_follow_each_other_do_not_overlap() -> None:
    """A span that ends where the next begins takes nothing from it, and another boot's takes nothing at all."""
    ledger = Book(info(opening_boottime=10 * SECOND))
    ledger.host = msgspec.structs.replace(ledger.host, spans=(other_span(0, 10), other_span(0, 99, NEXT_BOOT)))

    assert ledger.send(1, [20], column(1, [5])).energy == (row(5, 10),)


def test_booked_boottime_is_kept_for_other_epochs() -> None:
    """Each epoch has one span per boot, which grows."""
    ledger = Book(info(opening_boottime=5 * SECOND))
    ledger.send(1, [20], column(1, [5]))

    booking = ledger.send(2, [30, 40], column(1, [None, 9]))

    assert booking.host_after.spans == (BootedSpan(EPOCH, BOOT, 5 * SECOND, 40 * SECOND),)


# Beside energy


def test_busy_time_is_cut_at_edges() -> None:
    """Utilization is spread over the time since the last point, and cut as energy is."""
    ledger = Book()
    ledger.send(1, [890], column(1, [5]))
    busy = [pb.UtilizationColumn(device="cpu", kind=pb.UTILIZATION_KIND_BUSY, busy_nanoseconds=10 * SECOND)]

    content = payload([900 * SECOND, 910 * SECOND], [column(1, [6, 7])], utilizations=busy)
    booking = ledger.book(batch(content, 2))

    assert booking.utilization == (
        UtilizationRow("cpu", 1, START, 5 * SECOND),
        UtilizationRow("cpu", 1, START + 900, 5 * SECOND),
    )


def test_busy_time_of_an_overlap_counts_once() -> None:
    """Of a merged batch only the share of time beyond the cursor is new."""
    ledger = Book()
    ledger.send(1, [10, 20], column(1, [5, 6]))
    busy = [pb.UtilizationColumn(device="cpu", kind=pb.UTILIZATION_KIND_BUSY, busy_nanoseconds=20 * SECOND)]

    content = payload([10 * SECOND, 20 * SECOND, 30 * SECOND], [column(1, [5, 6, 7])], utilizations=busy)
    booking = ledger.book(batch(content, 1, 2))

    assert booking.utilization == (UtilizationRow("cpu", 1, START, 10 * SECOND),)


def test_withheld_host_is_shown_again_at_its_target() -> None:
    """After a restore the target is reached by the batch whose last sequence is the target."""
    ledger = Book()
    ledger.host = msgspec.structs.replace(ledger.host, withheld_until={EPOCH: 2, OTHER_EPOCH: 1})

    assert ledger.send(1, [10], column(1, [5])).host_after.withheld_until == {EPOCH: 2, OTHER_EPOCH: 1}
    assert ledger.send(2, [20], column(1, [6])).host_after.withheld_until == {OTHER_EPOCH: 1}
