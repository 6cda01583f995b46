"""The bulk load: a ledger made by it is the one that bookings would have made, and so is its report."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.bench.bulk import (
    BEGIN_SECONDS,
    CHANNELS,
    COVERED_NANOSECONDS,
    CPU_NANOSECONDS,
    DAY_SECONDS,
    INTERVAL_SECONDS,
    WORKLOAD_COMPONENTS,
    WORKLOADS,
    Fleet,
    add_sites_and_factors,
    build_ledger,
    cursor_after,
    energy_microjoules,
    host_after,
    last_booking,
    quality,
    workload,
    workload_microjoules,
)

from wattledger_collector.records import Booking, CommitOutcome, EnergyRow, Method
from wattledger_collector.store import open_store
from wattledger_collector.workload_records import WorkloadBooking, WorkloadEnergyRow, WorkloadTimeRow

# Hosts that move, that fall silent, and all sites; two days, the second with workloads.
FLEET = Fleet(hosts=50, days=2, workload_days=1)


def book(path: Path, fleet: Fleet) -> None:
    """Make the same ledger by committing a day of a host at a time, as a collector would."""
    with closing(open_store(path, create=True, interval_seconds=INTERVAL_SECONDS)) as store:
        add_sites_and_factors(store, fleet)
        totals = {number: [0] * CHANNELS for number in range(1, fleet.hosts + 1)}
        before: dict[int, Booking] = {}
        for day in range(fleet.days):
            begin = BEGIN_SECONDS + day * DAY_SECONDS
            numbers = [number for number in totals if begin < fleet.until_seconds(number)]
            bookings = {number: day_of(fleet, number, day, totals[number], before.get(number)) for number in numbers}
            assert set(store.commit(list(bookings.values()))) == {CommitOutcome.COMMITTED}
            before |= bookings


def day_of(fleet: Fleet, number: int, day: int, totals: list[int], before: Booking | None) -> Booking:
    """One day of a host; adds its energy to totals."""
    begin = BEGIN_SECONDS + day * DAY_SECONDS
    rows = []
    for start in range(begin, begin + DAY_SECONDS, INTERVAL_SECONDS):
        for channel in range(1, CHANNELS + 1):
            energy = energy_microjoules(start, number, channel)
            totals[channel - 1] += energy
            rows.append(EnergyRow(channel, start, quality(start, number, channel), energy, COVERED_NANOSECONDS))
    whole = last_booking(fleet, number, totals, day + 1)
    spent = whole.workloads
    if spent is not None and begin >= fleet.workload_from_seconds:
        spent = with_energy(number, begin, spent)
    return Booking(
        host_before=None if before is None else before.host_after,
        host_after=host_after(number, day + 1),
        cursor_before=None if before is None else before.cursor_after,
        cursor_after=cursor_after(number, day + 1, begin + DAY_SECONDS, totals),
        channels=whole.channels if before is None else (),
        energy=tuple(rows),
        gaps=whole.gaps if before is None else (),
        workloads=spent,
    )


def with_energy(number: int, begin: int, spent: WorkloadBooking) -> WorkloadBooking:
    """The same with what a day's workloads used."""
    energy, times = [], []
    for start in range(begin, begin + DAY_SECONDS, INTERVAL_SECONDS):
        for place in range(WORKLOADS):
            own = workload(number, place)
            times.append(WorkloadTimeRow(own, start, CPU_NANOSECONDS))
            for component in WORKLOAD_COMPONENTS:
                used = workload_microjoules(start, number, place, component)
                energy.append(WorkloadEnergyRow(own, start, component, Method.COUNTER, used))
    return WorkloadBooking(spent.cursor_after, spent.seen, spent.seen_utc_nanoseconds, tuple(energy), tuple(times))


def test_the_bulk_load_leaves_what_bookings_leave(tmp_path: Path) -> None:
    """Every row of every table but the database's own id and time of making, packed rows and checks included."""
    loaded, booked = tmp_path / "loaded.sqlite", tmp_path / "booked.sqlite"
    assert build_ledger(loaded, FLEET) == (FLEET.hosts * FLEET.days - 1) * 96 * CHANNELS
    book(booked, FLEET)
    with closing(sqlite3.connect(loaded)) as one, closing(sqlite3.connect(booked)) as other:
        found, expected = rows_of(one), rows_of(other)
        assert found.keys() == expected.keys()
        for table, rows in expected.items():
            assert found[table] == rows, table
        filled = {table for table, rows in expected.items() if rows}
        assert {"energy", "rollup", "gap", "channel", "workload_energy", "workload_time", "factor"} < filled
        assert one.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def rows_of(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows by table."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    rows = {}
    for table in tables:
        if table != "database_info":
            rows[table] = sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    return rows
