"""Operators' changes of hosts: each is one event, and no energy moves."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.collector.bookings import EPOCH, INTERVAL, energy, following, opening

from wattledger_collector.hosts import (
    HostError,
    host_activate,
    host_drain,
    host_events,
    host_rename,
    host_replace,
    host_retire,
)
from wattledger_collector.records import AssignmentRow, Booking, CommitOutcome, Host
from wattledger_collector.store import SqliteStore, open_store

NOW = (INTERVAL + 10) * 1_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with hosts `a` and `b`, `a` with 5 microjoules at site `hall`."""
    store = open_store(tmp_path / "ledger.db", create=True)
    store.add_assignments([AssignmentRow("a", 0, "hall", 0)])
    store.commit([opening("a"), opening("b")])
    store.commit([booked()])
    yield store
    store.close()


def booked() -> Booking:
    """What host `a` has booked."""
    return following(opening("a"), [energy(5)])


def loaded(store: SqliteStore, host: str) -> Host:
    """A host's row as stored."""
    row = store.load_host(host)
    assert row is not None
    return row


def test_a_host_is_retired_drained_and_taken_back(store: SqliteStore) -> None:
    """The state changes and nothing else; a stream of the host is stale and reads again."""
    assert host_drain(store, "a", now_utc_nanoseconds=NOW).state == "drained"
    assert host_retire(store, "a", now_utc_nanoseconds=NOW + 1).state == "retired"
    assert store.commit([following(booked())]) == [CommitOutcome.STALE]
    with pytest.raises(HostError, match=r"is retired: take it back with `host activate` first"):
        host_drain(store, "a", now_utc_nanoseconds=NOW + 2)
    back = host_activate(store, "a", now_utc_nanoseconds=NOW + 3)
    before = booked().host_after
    assert back == loaded(store, "a") == msgspec.structs.replace(before, version=before.version + 3)
    assert store.load_cursor("a", EPOCH) == booked().cursor_after
    assert [(event.event, event.at_utc_nanoseconds - NOW) for event in host_events(store, "a")] == [
        ("drain", 0),
        ("retire", 1),
        ("activate", 3),
    ]
    assert [row.host for row in store.hosts()] == ["a", "b"]


def test_a_change_that_changes_nothing_leaves_no_event(store: SqliteStore) -> None:
    """A script that runs daily does not fill the history."""
    assert host_activate(store, "a", now_utc_nanoseconds=NOW) == booked().host_after
    assert host_events(store, "a") == []
    assert store.commit([following(booked())]) == [CommitOutcome.COMMITTED]


def test_taking_a_host_back_settles_a_conflict(store: SqliteStore) -> None:
    """The operator has looked: the alert ends."""
    before = booked()
    marked = msgspec.structs.replace(before.host_after, version=9, conflict="two machines use host id a")
    store.commit([Booking(before.host_after, marked, before.cursor_after, before.cursor_after)])
    assert host_activate(store, "a", now_utc_nanoseconds=NOW).conflict == ""


def test_a_host_is_renamed_for_people(store: SqliteStore) -> None:
    """Its id and with it all history stay; an empty name is the id again."""
    assert host_rename(store, "a", "rack 7, unit 3", now_utc_nanoseconds=NOW).name == "rack 7, unit 3"
    assert loaded(store, "a").host == "a"
    assert [event.detail for event in host_events(store, "a")] == ["rack 7, unit 3"]
    assert host_rename(store, "a", "", now_utc_nanoseconds=NOW).name == ""
    for name in ("x" * 257, "two\nlines"):
        with pytest.raises(HostError, match="is no name"):
            host_rename(store, "a", name, now_utc_nanoseconds=NOW)


def test_a_host_is_replaced(store: SqliteStore) -> None:
    """The successor has its name at once and its site from the next interval; the old one is retired, its energy stays."""
    host_rename(store, "a", "front", now_utc_nanoseconds=NOW)
    successor = host_replace(store, "a", "b", now_utc_nanoseconds=NOW)
    assert (successor.host, successor.name, successor.state) == ("b", "front", "active")
    assert (loaded(store, "a").state, loaded(store, "a").name) == ("retired", "")
    assert store.assignments()[-1] == AssignmentRow("b", INTERVAL + 900, "hall", NOW // 1_000_000_000)
    rows = [energy(1), energy(2, start=INTERVAL + 900)]
    start = opening("b")
    moved = following(Booking(None, successor, None, start.cursor_after), rows)
    assert store.commit([moved]) == [CommitOutcome.COMMITTED]
    found = [(row.site, row.energy_microjoules) for row in store.rollups(0, 2**40)]
    assert found == [("hall", 5), ("hall", 2), ("unassigned", 1)]
    with pytest.raises(HostError, match="retired already"):
        host_replace(store, "a", "b", now_utc_nanoseconds=NOW)


def test_the_successor_of_a_host_without_a_name_is_called_by_its_id(store: SqliteStore) -> None:
    """A place in the hall keeps what people call it."""
    assert host_replace(store, "a", "b", now_utc_nanoseconds=NOW).name == "a"


def test_what_cannot_be_done_says_why(store: SqliteStore) -> None:
    """One sentence, and nothing is changed."""
    with pytest.raises(HostError, match=r"no host 'c': `host list` shows all"):
        host_retire(store, "c", now_utc_nanoseconds=NOW)
    with pytest.raises(HostError, match=r"no host 'c'"):
        host_replace(store, "a", "c", now_utc_nanoseconds=NOW)
    with pytest.raises(HostError, match="can't replace itself"):
        host_replace(store, "a", "a", now_utc_nanoseconds=NOW)
    assert loaded(store, "a") == booked().host_after
