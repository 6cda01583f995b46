"""Accounts of workloads become rows, each microjoule of them in one."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collector.batches import (
    BOOT,
    EPOCH,
    INTERVAL_SECONDS,
    NEXT_BOOT,
    OTHER_EPOCH,
    SECOND,
    UTC,
    account,
    batch,
    column,
    info,
    opened,
    payload,
)

from wattledger_collector.ledger import book
from wattledger_collector.records import Booking, BootedSpan, Cursor, Host
from wattledger_collector.wire import CheckedBatch
from wattledger_collector.workload_ledger import ACCOUNTS_MAX, OPEN_ACCOUNTS_MAX, SETTLED_RANGES_MAX
from wattledger_collector.workload_records import AccountPoint, IdlePolicy, WorkloadCursor, WorkloadKind
from wattledger_protos.v1 import telemetry_pb2 as pb

START = UTC // SECOND


class Book:
    """A host with one epoch and one channel; batches go in, energy of workloads is added up by their name."""

    def __init__(self) -> None:
        first = opened()
        self.host: Host = first.host_after
        self.cursor: Cursor = first.cursor_after
        self.workloads: WorkloadCursor | None = None
        self.sums: dict[str, int] = {}
        self.cpu_nanoseconds = 0
        self.evidence: list[str] = []

    def book(self, checked: CheckedBatch) -> Booking:
        """Book and commit."""
        booking = book(
            checked,
            self.host,
            self.cursor,
            {1: info()},
            interval_seconds=INTERVAL_SECONDS,
            collector="c1",
            workloads=self.workloads,
        )
        self.host, self.cursor = booking.host_after, booking.cursor_after
        self.evidence += [row.reason for row in booking.evidence]
        if booking.workloads is not None:
            self.workloads = booking.workloads.cursor_after
            for row in booking.workloads.energy:
                name = row.workload.shown_name
                self.sums[name] = self.sums.get(name, 0) + row.energy_microjoules
            self.cpu_nanoseconds += sum(row.cpu_nanoseconds for row in booking.workloads.time)
        return booking

    def send(
        self, sequence: int, times: Sequence[int], *accounts: pb.WorkloadAccount, boot: bytes = BOOT, first: int = 0
    ) -> Booking:
        """Book a batch; times in seconds of boottime, at which the channel has as many microjoules."""
        content = payload([time * SECOND for time in times], [column(1, times)], boot=boot, accounts=accounts)
        return self.book(batch(content, first or sequence, sequence))


def test_an_account_begins_at_zero() -> None:
    """All that the first value says was used since the account began, and belongs to the payload's samples."""
    ledger = Book()
    booking = ledger.send(1, [10, 20], account(1, 7, cpu_nanoseconds=3))
    assert booking.workloads is not None
    (row,) = booking.workloads.energy
    assert (row.workload.kind, row.workload.id, row.workload.name) == (WorkloadKind.CONTAINER, "id-1", "name-1")
    assert row.workload.idle_policy is IdlePolicy.NODE_ONLY
    assert (row.interval_start_seconds, row.energy_microjoules) == (START, 7)
    assert [each.cpu_nanoseconds for each in booking.workloads.time] == [3]
    assert booking.workloads.seen_utc_nanoseconds == UTC + 20 * SECOND
    assert ledger.evidence == []


def test_a_batch_without_accounts_changes_nothing_of_workloads() -> None:
    """Most batches have none, and cost nothing."""
    ledger = Book()
    assert ledger.send(1, [10]).workloads is None


def test_steps_are_split_over_the_intervals_since_the_last_workload_point() -> None:
    """Accounts are not in every payload: a step spans all that came between, cut at the edges, exact."""
    ledger = Book()
    ledger.send(1, [800], account(1, 10))
    ledger.send(2, [860])
    booking = ledger.send(3, [910, 1000], account(1, 10 + 201))
    assert booking.workloads is not None
    # 100 s before the edge at 900 s, and 100 s after it.
    assert [(row.interval_start_seconds - START, row.energy_microjoules) for row in booking.workloads.energy] == [
        (0, 100),
        (900, 101),
    ]


def test_a_changed_offset_does_not_stretch_a_step() -> None:
    """Where the host's clock was set forward, the time that it skipped is not the workload's."""
    ledger = Book()
    ledger.send(1, [800], account(1, 10))
    content = payload([900 * SECOND], [], offset=UTC + 900 * SECOND, accounts=[account(1, 110)])
    booking = ledger.book(batch(content, 2))
    assert booking.workloads is not None
    assert [(row.interval_start_seconds - START, row.energy_microjoules) for row in booking.workloads.energy] == [(900, 100)]


def test_another_boot_begins_at_its_first_sample() -> None:
    """The time in which a host was off is no workload's."""
    ledger = Book()
    ledger.send(1, [10], account(1, 10))
    content = payload([5 * SECOND, 25 * SECOND], [], boot=NEXT_BOOT, offset=UTC + 890 * SECOND, accounts=[account(1, 110)])
    booking = ledger.book(batch(content, 2))
    assert booking.workloads is not None
    # From 895 s to 915 s: a quarter before the edge.
    assert [(row.interval_start_seconds - START, row.energy_microjoules) for row in booking.workloads.energy] == [
        (0, 25),
        (900, 75),
    ]


def test_a_frozen_account_is_settled_for_good() -> None:
    """Its last value is repeated until acknowledged, also in a record that was merged from older ones, and counts once."""
    ledger = Book()
    ledger.send(1, [10], account(1, 5), account(2, 1))
    ledger.send(2, [20], account(1, 8, frozen=True))
    ledger.send(3, [30], account(1, 8, frozen=True))
    ledger.send(4, [40], account(2, 2))
    ledger.send(5, [50], account(1, 8, frozen=True), first=2)
    assert ledger.sums == {"name-1": 8, "name-2": 2}
    assert ledger.workloads is not None
    assert list(ledger.workloads.accounts) == [2]
    assert ledger.workloads.settled == ((1, 1),)


def test_a_workload_that_is_admitted_again_goes_on() -> None:
    """Its new account adds to the sum of the old one; both may come in one payload."""
    ledger = Book()
    ledger.send(1, [10], account(1, 5))
    again = account(2, 4, name="name-1")
    again.id = "id-1"
    ledger.send(2, [20], account(1, 8, frozen=True), again)
    again.energies[0].energy_microjoules = 6
    booking = ledger.send(3, [30], again)
    assert ledger.sums == {"name-1": 14}
    assert booking.workloads is not None
    assert len(booking.workloads.seen) == 1


def test_settled_accounts_take_little_room() -> None:
    """A thousand workloads that came and went are one range beside those that are there."""
    ledger = Book()
    for number in range(1, 300):
        accounts = [account(1, number), account(number * 3 + 1, 5, frozen=True), account(number * 3 + 2, 5, frozen=True)]
        ledger.send(number, [number * 10], *accounts, account(number * 3, 5, frozen=True))
    assert ledger.workloads is not None
    assert ledger.workloads.settled == ((3, 3 * 299 + 2),)
    assert sum(ledger.sums.values()) == 299 + 15 * 299


def test_ranges_are_bounded() -> None:
    """Where numbers never came, the oldest ranges become one; an open account is never taken for settled."""
    many = tuple((number * 4, number * 4) for number in range(1, SETTLED_RANGES_MAX + 1))
    ledger = Book()
    ledger.workloads = WorkloadCursor(BOOT, 0, UTC, {6: AccountPoint(((1, 1, 5),), 0)}, many, 0, 0)
    ledger.send(1, [10], account(6, 9), account(SETTLED_RANGES_MAX * 4 + 9, 1, frozen=True))
    assert len(ledger.workloads.settled) == SETTLED_RANGES_MAX
    assert ledger.workloads.settled[:3] == ((4, 4), (8, 12), (16, 16))
    ledger.send(2, [20], account(6, 10))
    assert ledger.sums["name-6"] == 5


def test_what_another_epoch_has_booked_is_not_booked_again() -> None:
    """Two agents on one host share its workloads' energy too: the points move, and nothing is booked."""
    ledger = Book()
    span = BootedSpan(OTHER_EPOCH, BOOT, 5 * SECOND, 15 * SECOND)
    ledger.host = msgspec.structs.replace(ledger.host, spans=(span,))
    booking = ledger.send(1, [10, 20], account(1, 7), account(2, 9, frozen=True))
    assert booking.workloads is not None
    assert (booking.workloads.energy, booking.workloads.time) == ((), ())
    ledger.send(2, [30], account(1, 8), account(2, 9, frozen=True))
    assert ledger.sums == {"name-1": 1}


def test_overlap_with_the_boot_of_the_last_point_counts_too() -> None:
    """A step from an earlier boot is not booked where the other epoch has booked the end of that boot."""
    ledger = Book()
    ledger.send(1, [10], account(1, 7))
    span = BootedSpan(OTHER_EPOCH, BOOT, 15 * SECOND, 25 * SECOND)
    ledger.host = msgspec.structs.replace(ledger.host, spans=(*ledger.host.spans, span))
    # No column has a point in the old boot any more.
    ledger.cursor = msgspec.structs.replace(ledger.cursor, points={})
    ledger.book(batch(payload([5 * SECOND], [], boot=NEXT_BOOT, accounts=[account(1, 9)]), 2))
    assert ledger.sums == {"name-1": 7}


def spoilt(number: int = 1, **changes: object) -> pb.WorkloadAccount:
    """An account with fields that it should not have."""
    message = account(number, 50)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def flows(*values: tuple[int, int, int]) -> pb.WorkloadAccount:
    """An account with these (component, method, microjoules)."""
    energies = [pb.WorkloadEnergy(component=pb.Component.ValueType(c), method=pb.Method.ValueType(m), energy_microjoules=v)
                for c, m, v in values]  # fmt: skip
    message = account(1, 0)
    del message.energies[:]
    message.energies.extend(energies)
    return message


REFUSED = {
    "it fell": (account(1, 4), "fell from 5 to 4"),
    "its CPU time fell": (account(1, 6, cpu_nanoseconds=2), "CPU time of account 1 fell from 3 to 2"),
    "too large": (account(1, 1 << 62), "beyond all that can be kept"),
    "too much CPU time": (account(1, 6, cpu_nanoseconds=1 << 62), "beyond all that can be kept"),
    "an unknown kind": (spoilt(kind=99), "kind 99"),
    "no kind": (spoilt(kind=0), "kind 0"),
    "no idle policy": (spoilt(idle_policy=0), "idle policy 0"),
    "number 0": (account(0, 6), "number 0"),
    "no id": (spoilt(id=""), "without an id"),
    "a long name": (spoilt(name="x" * 257), "257 characters"),
    "a long id": (spoilt(id="x" * 257), "257 characters"),
    "a long namespace": (spoilt(namespace="x" * 257), "257 characters"),
    "a line feed": (spoilt(namespace="a\nb"), "control characters"),
    "an unknown component": (flows((9, 1, 50)), "component 9"),
    "an unknown method": (flows((1, 0, 50)), "method 0"),
    "a flow twice": (flows((1, 1, 50), (1, 1, 60)), "twice"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_with_evidence(what: str) -> None:
    """The account is refused whole and its point stays; the other accounts and the channels are booked."""
    wrong, words = REFUSED[what]
    ledger = Book()
    ledger.send(1, [10], account(1, 5, cpu_nanoseconds=3))
    booking = ledger.send(2, [20], wrong, account(2, 7))
    (row,) = booking.evidence
    assert words in row.reason
    assert row.payload
    assert ledger.sums == {"name-1": 5, "name-2": 7}
    assert booking.energy[0].energy_microjoules == 10
    ledger.send(3, [30], account(1, 6, cpu_nanoseconds=4))
    assert (ledger.sums["name-1"], ledger.cpu_nanoseconds) == (6, 4)


def test_an_account_twice_in_a_payload_is_refused() -> None:
    """The first one counts; how many were refused is told with the first reason."""
    ledger = Book()
    ledger.send(1, [10], account(1, 5), account(1, 6), account(1, 7), account(0, 1))
    assert ledger.sums == {"name-1": 5}
    assert ledger.evidence == ["account 1 comes twice in one payload; and 2 more accounts"]


def test_too_many_accounts_are_refused_whole() -> None:
    """A payload holds 1024 at most; its channels are booked all the same."""
    ledger = Book()
    booking = ledger.send(1, [10], *(account(number, 1) for number in range(1, ACCOUNTS_MAX + 2)))
    assert (booking.workloads, ledger.sums) == (None, {})
    assert "1025 workload accounts" in ledger.evidence[0]
    assert booking.energy[0].energy_microjoules == 10


def test_open_accounts_are_bounded() -> None:
    """An agent that never freezes one can't fill the database's row; one that comes frozen needs no room."""
    ledger = Book()
    sequence = 0
    for sequence in range(1, OPEN_ACCOUNTS_MAX // ACCOUNTS_MAX + 1):
        first = (sequence - 1) * ACCOUNTS_MAX + 1
        ledger.send(sequence, [sequence * 10], *(account(first + more, 1) for more in range(ACCOUNTS_MAX)))
    ledger.send(sequence + 1, [500], account(90_000, 1), account(90_001, 1, frozen=True), account(1, 2))
    assert ledger.evidence == [f"account 90000 is one more than {OPEN_ACCOUNTS_MAX} open ones: attribute to fewer"]
    assert sum(ledger.sums.values()) == OPEN_ACCOUNTS_MAX + 2


def test_all_workloads_of_an_epoch_stay_below_the_limit() -> None:
    """Two accounts of one workload can't add up to more than a database's integer."""
    ledger = Book()
    ledger.send(1, [10], account(1, 1 << 61, cpu_nanoseconds=1 << 61), account(2, 1 << 61))
    ledger.send(2, [20], account(3, 1, cpu_nanoseconds=1 << 61))
    assert ledger.sums == {"name-1": 1 << 61}
    assert ["beyond all that can be kept" in reason for reason in ledger.evidence] == [True, True]


def test_values_at_or_before_the_point_are_passed_by() -> None:
    """A record that tells of an earlier instant than the point is no falling counter."""
    ledger = Book()
    ledger.send(1, [10, 30], account(1, 9, cpu_nanoseconds=5))
    ledger.send(2, [20], account(1, 6, cpu_nanoseconds=4))
    ledger.send(3, [40], account(1, 10, cpu_nanoseconds=5))
    assert (ledger.sums, ledger.evidence, ledger.cpu_nanoseconds) == ({"name-1": 10}, [], 5)
    assert ledger.workloads is not None
    assert ledger.workloads.boottime_nanoseconds == 40 * SECOND


def test_a_flow_that_is_not_named_stands_still() -> None:
    """An account names what it has; a component that comes later begins at 0, one that is left out keeps its point."""
    ledger = Book()
    ledger.send(1, [10], flows((1, 1, 50)))
    ledger.send(2, [20], flows((3, 2, 7)))
    booking = ledger.send(3, [30], flows((1, 1, 51), (3, 2, 9)))
    assert booking.workloads is not None
    assert [(row.component, row.method, row.energy_microjoules) for row in booking.workloads.energy] == [
        (1, 1, 1),
        (3, 2, 2),
    ]
    assert sum(ledger.sums.values()) == 51 + 9


def test_workloads_of_a_quarantined_batch_come_with_the_next() -> None:
    """Accounts are cumulative: what a lost batch told is in the one after it."""
    ledger = Book()
    ledger.send(1, [10], account(1, 5))
    broken = pb.Payload.FromString(payload([20 * SECOND], [], accounts=[account(1, 7)]).SerializeToString())
    broken.boot_id = b"short"
    assert ledger.book(batch(broken, 2)).workloads is None
    ledger.send(3, [30], account(1, 9))
    assert ledger.sums == {"name-1": 9}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_way_of_delivery_books_what_the_accounts_say(data: st.DataObject) -> None:
    """Records repeated, rewound, lost and merged, accounts that come and go: at the end the sums are the agent's own."""
    ledger = Book()
    records: list[list[pb.WorkloadAccount]] = []
    truth: dict[int, int] = {1: 0}
    frozen: set[int] = set()
    for _ in range(data.draw(st.integers(2, 12))):
        if data.draw(st.booleans()):
            truth[len(truth) + 1] = 0
        for number in truth:
            if number not in frozen:
                truth[number] += data.draw(st.integers(0, 1000))
                if data.draw(st.integers(0, 4)) == 0:
                    frozen.add(number)
        records.append([account(number, value, frozen=number in frozen) for number, value in truth.items()])
    committed = 0
    while committed < len(records):
        if committed and data.draw(st.booleans()):
            # An Ack was lost: the batch comes once more, and changes nothing.
            assert ledger.send(committed, [committed * 400], *records[committed - 1]).workloads is None
        # A merged record tells what its last one told, and what its others told of frozen accounts.
        last = data.draw(st.integers(committed + 1, min(len(records), committed + 4)))
        first = data.draw(st.integers(max(1, committed - 2), committed + 1))
        ledger.send(last, [committed * 400 + 1, last * 400], *records[last - 1], first=first)
        committed = last
    assert sum(ledger.sums.values()) == sum(truth.values())
    assert {name: value for name, value in ledger.sums.items() if value} == {
        f"name-{number}": value for number, value in truth.items() if value
    }
    assert ledger.workloads is not None
    assert ledger.workloads.booked_microjoules == sum(truth.values())
    assert set(ledger.workloads.accounts) == set(truth) - frozen
    assert ledger.evidence == []
    assert ledger.cursor.epoch == EPOCH
