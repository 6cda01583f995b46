"""Frozen rows as columns: read ahead by several threads, they are in order, bounded, and equal to the rows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from tests.bench.bulk import BEGIN_SECONDS, DAY_SECONDS, INTERVAL_SECONDS, Fleet, build_ledger

from wattledger_collector.database import connect
from wattledger_collector.energy_columns import ColumnsReader, Span
from wattledger_collector.leaves import DayColumns
from wattledger_collector.records import AssignmentRow, StoreError
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.store_rows import SitesOfHosts

DAYS = 8
INTERVALS_OF_A_DAY = DAY_SECONDS // INTERVAL_SECONDS

Cell = tuple[object, ...]


class Connections:
    """Makes connections to a ledger, and counts what is asked of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.made: list[sqlite3.Connection] = []
        self.intervals_read: list[str] = []

    def __call__(self) -> sqlite3.Connection:
        """One more connection."""
        connection = connect(self._path)
        connection.set_trace_callback(self._note)
        self.made.append(connection)
        return connection

    def _note(self, sql: str) -> None:
        if "group_concat" in sql:
            self.intervals_read.append(sql)

    @property
    def still_open(self) -> int:
        """How many of them were not closed."""
        found = 0
        for connection in self.made:
            try:
                connection.execute("SELECT 1")
                found += 1
            except sqlite3.ProgrammingError:
                continue
        return found


def whole(fleet: Fleet) -> Span:
    """All of a fleet's time."""
    return Span(BEGIN_SECONDS, fleet.end_seconds, 0, None)


def cells_of_columns(days: Iterator[DayColumns]) -> dict[Cell, tuple[int, int]]:
    """Energy and time of each series and interval that has any."""
    cells: dict[Cell, tuple[int, int]] = {}
    for day in days:
        for place, series in enumerate(day.series):
            energies, times = day.energy_microjoules[place].tolist(), day.covered_nanoseconds[place].tolist()
            for number, (energy, covered) in enumerate(zip(energies, times, strict=True)):
                if covered:
                    key = (day.first_seconds + number * INTERVAL_SECONDS, *series[:5], series.sensor)
                    assert key not in cells, "an interval came twice"
                    cells[key] = (energy, covered)
    return cells


def cells_of_rows(store: SqliteStore, fleet: Fleet) -> dict[Cell, tuple[int, int]]:
    """The same from the store's rows, one by one."""
    sites = SitesOfHosts(store.assignments())
    cells: dict[Cell, tuple[int, int]] = {}
    for row in store.host_energy(BEGIN_SECONDS, fleet.end_seconds):
        start, channel = row.interval_start_seconds, row.channel
        key = (start, row.host, sites.at(row.host, start), channel.component, row.quality, row.recorded, channel.source)
        energy, covered = cells.get(key, (0, 0))
        cells[key] = (energy + row.energy_microjoules, covered + row.covered_nanoseconds)
    return cells


def test_columns_hold_what_the_rows_hold(tmp_path: Path) -> None:
    """Of days whose series differ too: a host that moves within a day, one that falls silent, bridged energy at times."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(50, 3)
    build_ledger(path, fleet)
    with closing(open_store(path, create=False)) as store:
        rows = cells_of_rows(store, fleet)
        reader = ColumnsReader(partial(connect, path), INTERVAL_SECONDS, store.assignments())
        days = list(reader.days(whole(fleet)))
    assert [day.first_seconds for day in days] == [BEGIN_SECONDS + number * DAY_SECONDS for number in range(3)]
    assert len({day.series for day in days}) == 3, "the days are to differ"
    assert cells_of_columns(iter(days)) == rows


def test_a_day_after_a_move_has_series_of_its_own(tmp_path: Path) -> None:
    """Also where it has as many of them as the day before, and alike but for the site."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(1, 2)
    build_ledger(path, fleet)
    moved = [AssignmentRow("server-00001", at, site, 0) for at, site in ((0, "old"), (BEGIN_SECONDS + DAY_SECONDS, "new"))]
    days = list(ColumnsReader(partial(connect, path), INTERVAL_SECONDS, moved).days(whole(fleet)))
    assert [{series.site for series in day.series} for day in days] == [{"old"}, {"new"}]
    assert len(days[0].series) == len(days[1].series)


def test_no_more_than_a_few_days_are_read_ahead(tmp_path: Path) -> None:
    """Who takes one day and stops has had three read and not all of them, and no connection stays open."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(2, DAYS)
    build_ledger(path, fleet)
    connections = Connections(path)
    days = ColumnsReader(connections, INTERVAL_SECONDS, []).days(whole(fleet))
    assert next(days).first_seconds == BEGIN_SECONDS
    days.close()
    assert len(connections.intervals_read) <= 3 * INTERVALS_OF_A_DAY < DAYS * INTERVALS_OF_A_DAY
    assert connections.still_open == 0


def test_each_interval_is_read_once(tmp_path: Path) -> None:
    """However many threads share them."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(2, DAYS)
    build_ledger(path, fleet)
    connections = Connections(path)
    assert len(list(ColumnsReader(connections, INTERVAL_SECONDS, []).days(whole(fleet)))) == DAYS
    assert len(connections.intervals_read) == len(set(connections.intervals_read)) == DAYS * INTERVALS_OF_A_DAY
    assert connections.still_open == 0


def test_what_a_thread_can_not_read_ends_the_reading(tmp_path: Path) -> None:
    """A row of a channel that is not known is an error at its day, after the days before it; nothing is left open."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(2, DAYS)
    build_ledger(path, fleet)
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        values = (BEGIN_SECONDS + DAY_SECONDS, 2**40, 1, 0, 5, 5)
        connection.execute("INSERT INTO energy VALUES (?, ?, ?, ?, ?, ?)", values)
    connections = Connections(path)
    days = ColumnsReader(connections, INTERVAL_SECONDS, []).days(whole(fleet))
    assert next(days).first_seconds == BEGIN_SECONDS
    with pytest.raises(StoreError, match="a channel that the ledger has no row of"):
        next(days)
    assert connections.still_open == 0
