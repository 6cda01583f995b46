"""Leases: one collector shows the sites, whoever dies or has a wrong clock."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collector.bookings import energy, following, opening

from wattledger_collector.lease import LEASE_SECONDS, RENEWAL_SECONDS, read_snapshot, release, renew
from wattledger_collector.records import StoreError
from wattledger_collector.store import SqliteStore, open_store

T = 1_790_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty store."""
    store = open_store(tmp_path / "ledger.db", create=True)
    yield store
    store.close()


def test_the_first_collector_has_the_lease_and_keeps_it(store: SqliteStore) -> None:
    """As long as it renews, nobody else gets it; both know of each other."""
    for step in range(20):
        now = T + step * RENEWAL_SECONDS
        first, second = renew(store, "first", now), renew(store, "second", now + 1)
        assert (first.is_site_exposer, second.is_site_exposer) == (True, False)
        assert first.until_seconds == now + LEASE_SECONDS
        assert second.collectors == {"first", "second"}


def test_the_lease_of_a_dead_collector_passes_on_when_it_has_ended(store: SqliteStore) -> None:
    """Not a moment before, so that no two have it."""
    until = renew(store, "first", T).until_seconds
    assert not renew(store, "second", until - 0.001).is_site_exposer
    standing = renew(store, "second", until)
    assert standing.is_site_exposer
    assert standing.collectors == {"second"}
    assert not renew(store, "first", until + 1).is_site_exposer


def test_a_collector_that_restarts_has_its_lease_again_at_once(store: SqliteStore) -> None:
    """The name is what counts: a crash of the only collector hides nothing."""
    renew(store, "first", T)
    assert renew(store, "first", T + 1).is_site_exposer


def test_a_lease_that_was_given_back_is_free(store: SqliteStore) -> None:
    """Only what the collector has itself."""
    renew(store, "first", T)
    renew(store, "second", T)
    release(store, "first")
    standing = renew(store, "second", T + 1)
    assert standing.is_site_exposer
    assert standing.collectors == {"second"}
    release(store, "first")
    assert not renew(store, "third", T + 1).is_site_exposer


def test_a_clock_that_was_set_back_does_not_hold_the_lease_for_ever(store: SqliteStore) -> None:
    """A lease that ends later than any right clock would write is none; one of a clock a little ahead is one."""
    renew(store, "first", T)
    assert not renew(store, "second", T - LEASE_SECONDS / 2).is_site_exposer
    assert renew(store, "second", T - 3600).is_site_exposer


def test_a_snapshot_is_of_one_instant(store: SqliteStore) -> None:
    """What is committed while it is read is in none of its rows."""
    start = opening("a")
    booked = following(start, [energy(5)])
    store.commit([start])
    with read_snapshot(store.path) as ledger:
        store.commit([booked])
        assert [host.version for host in ledger.hosts()] == [start.host_after.version]
        assert list(ledger.cursors()) == [start.cursor_after]
        assert list(ledger.rollups(0, 2**40)) == []
    with read_snapshot(store.path) as ledger:
        assert list(ledger.hosts()) == [booked.host_after]
        assert list(ledger.rollups(0, 2**40)) == list(store.rollups(0, 2**40))


def test_a_store_that_is_gone_is_told(store: SqliteStore, tmp_path: Path) -> None:
    """In the store's own words."""
    with pytest.raises(StoreError, match="cannot"), read_snapshot(tmp_path / "gone" / "ledger.db"):
        pass
