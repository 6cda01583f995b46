"""Backups taken beside a running collector, and restores that know that they are old."""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.collector.bookings import BOOT, EPOCH, INTERVAL, energy, following, opening

from wattledger_collector.backup import backup, restore
from wattledger_collector.records import Booking, CommitOutcome, Component, Method, StoreError
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_records import (
    AccountPoint,
    IdlePolicy,
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadEnergyRow,
    WorkloadKind,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A collector's store with a host that has booked 5 microjoules."""
    store = open_store(tmp_path / "ledger.db", create=True)
    store.commit([opening()])
    store.commit([booked()])
    yield store
    store.close()


def booked() -> Booking:
    """The booking that the store of these tests holds."""
    return following(opening(), [energy(5)])


def test_a_backup_holds_what_is_committed(store: SqliteStore, tmp_path: Path) -> None:
    """One file, without a log beside it, while the collector has the database open."""
    target = tmp_path / "copies" / "backup.db"
    target.parent.mkdir()
    assert backup(store.path, target) == target.stat().st_size
    assert [file.name for file in target.parent.iterdir()] == ["backup.db"]
    copy = open_store(target, create=False)
    assert copy.load_cursor("a", EPOCH) == booked().cursor_after
    assert copy.database_id == store.database_id
    copy.close()


def test_a_backup_beside_commits_is_of_one_instant(store: SqliteStore, tmp_path: Path) -> None:
    """Rows, roll-up and cursors of the copy agree, however many commits run meanwhile."""
    stop = threading.Event()

    def book_on() -> None:
        last = booked()
        while not stop.is_set():
            last = following(last, [energy(1)])
            assert store.commit([last]) == [CommitOutcome.COMMITTED]

    thread = threading.Thread(target=book_on)
    thread.start()
    try:
        for number in range(5):
            backup(store.path, tmp_path / f"backup-{number}.db")
    finally:
        stop.set()
        thread.join()
    for number in range(5):
        copy = open_store(tmp_path / f"backup-{number}.db", create=False)
        (cursor,) = copy.cursors()
        booked_microjoules = sum(point.booked_microjoules for point in cursor.points.values())
        assert sum(row.energy_microjoules for row in copy.host_energy(0, 2**40)) == booked_microjoules
        assert sum(row.energy_microjoules for row in copy.rollups(0, 2**40)) == booked_microjoules
        copy.close()


def test_a_failed_backup_leaves_the_older_one(store: SqliteStore, tmp_path: Path) -> None:
    """A backup is replaced by a whole one or not at all."""
    target = tmp_path / "backup.db"
    backup(store.path, target)
    before = target.read_bytes()
    with pytest.raises(StoreError, match="no database at"):
        backup(tmp_path / "missing.db", target)
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(before[:8192] + b"\x5a" * 20_480 + before[28_672:])
    with pytest.raises(StoreError, match="damaged"):
        backup(damaged, target)
    assert target.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(StoreError, match="is the database itself"):
        backup(store.path, store.path)
    with pytest.raises(StoreError, match=r"no folder .*missing: make it"):
        backup(store.path, tmp_path / "missing" / "backup.db")


def test_a_restored_database_withholds_every_host(store: SqliteStore, tmp_path: Path) -> None:
    """Each host waits for its agent; bookings computed from what was there before are stale."""
    backup(store.path, tmp_path / "backup.db")
    assert restore(tmp_path / "backup.db", tmp_path / "new.db").hosts == 1
    new = open_store(tmp_path / "new.db", create=False)
    host = new.load_host("a")
    before = booked().host_after
    assert host == msgspec.structs.replace(before, version=before.version + 1, withheld=True)
    assert new.commit([following(booked(), [energy(1)])]) == [CommitOutcome.STALE]
    assert sum(row.energy_microjoules for row in new.rollups(0, 2**40)) == 5
    new.close()


def test_a_restored_database_goes_on_with_its_workloads(store: SqliteStore, tmp_path: Path) -> None:
    """Accounts are booked from the copy's points, so that what it lacks is booked once more, and what it has is not."""
    pod = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.NODE_ONLY)
    points = WorkloadCursor(BOOT, 1, 2, {7: AccountPoint(((1, 1, 40),), 0)}, (), 40, 0)
    rows = (WorkloadEnergyRow(pod, INTERVAL, Component.CPU, Method.COUNTER, 40),)
    first = replace(following(booked()), workloads=WorkloadBooking(points, (pod,), 5, rows, ()))
    assert store.commit([first]) == [CommitOutcome.COMMITTED]
    backup(store.path, tmp_path / "backup.db")
    assert store.commit([replace(following(first), workloads=first.workloads)]) == [CommitOutcome.COMMITTED]
    restore(tmp_path / "backup.db", tmp_path / "new.db")
    new = open_store(tmp_path / "new.db", create=False)
    assert new.load_workload_cursor("a", EPOCH) == points
    assert [row.energy_microjoules for row in new.workload_energy(0, 2**40)] == [40]
    (total,) = new.host_workloads("a", 0).totals
    assert sum(total.energies.values()) == 40
    new.close()


def test_a_restore_replaces_a_database_only_by_force(store: SqliteStore, tmp_path: Path) -> None:
    """What was booked since the backup is gone then, its log included."""
    backup(store.path, tmp_path / "backup.db")
    store.commit([following(booked(), [energy(7)])])
    store.close()
    with pytest.raises(StoreError, match=r"there is a database at .* --force"):
        restore(tmp_path / "backup.db", store.path)
    assert restore(tmp_path / "backup.db", store.path, force=True).hosts == 1
    again = open_store(store.path, create=False)
    assert sum(row.energy_microjoules for row in again.rollups(0, 2**40)) == 5
    again.close()


def test_a_database_in_use_is_never_replaced(store: SqliteStore, tmp_path: Path) -> None:
    """Not even by force: the collector would go on writing into a file that nobody sees."""
    backup(store.path, tmp_path / "backup.db")
    with pytest.raises(StoreError, match="in use: stop the collector first"):
        restore(tmp_path / "backup.db", store.path, force=True)
    assert store.commit([following(booked(), [energy(7)])]) == [CommitOutcome.COMMITTED]
    assert not list(tmp_path.glob("*.partial"))


def test_a_restore_over_a_damaged_database_works(store: SqliteStore, tmp_path: Path) -> None:
    """That is what backups are for."""
    backup(store.path, tmp_path / "backup.db")
    ruin = tmp_path / "ruin.db"
    ruin.write_bytes(b"no database at all" * 1000)
    log = tmp_path / "ruin.db-wal"
    log.write_bytes(b"what belonged to it")
    done = restore(tmp_path / "backup.db", ruin, force=True)
    assert (done.hosts, done.is_log_unknown) == (1, True)
    assert not log.exists()
    again = open_store(ruin, create=False)
    assert again.load_cursor("a", EPOCH) == booked().cursor_after
    again.close()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    """The target stays as it was."""
    target = tmp_path / "new.db"
    with pytest.raises(StoreError, match="no backup at"):
        restore(tmp_path / "missing.db", target)
    with pytest.raises(StoreError, match="no backup at"):
        restore(tmp_path, target)
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"noise" * 5000)
    with pytest.raises(StoreError, match="damaged"):
        restore(noise, target)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE songs (title)")
    with pytest.raises(StoreError, match="no backup of a Wattledger database"):
        restore(other, target)
    connection.execute("CREATE TABLE host (id, packed)")
    for packed in (b"\0", "text", None):
        connection.execute("DELETE FROM host")
        connection.execute("INSERT INTO host VALUES (1, ?)", (packed,))
        connection.commit()
        with pytest.raises(StoreError, match="no backup of a Wattledger database"):
            restore(other, target)
    connection.close()
    with pytest.raises(StoreError, match="is the backup itself"):
        restore(other, other, force=True)
    assert not target.exists()
