"""Editions: what a closing freezes stays as it was, and what comes later opens the next one."""

import sqlite3
from pathlib import Path

import pytest
from tests.collector.bookings import INTERVAL, energy, following, opening
from tests.collector.fake_store import FakeStore

from wattledger_collector import database
from wattledger_collector.closures import EDITION_OPEN, Closure, Editions, closed_by, is_late, next_edition
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.freezing import freeze
from wattledger_collector.records import AssignmentRow, Component, Quality, RollupRow, SiteRow
from wattledger_collector.report import Report, make_period, make_report, parse_time_zone
from wattledger_collector.store import SqliteStore, open_store

DAY = INTERVAL // 86_400 * 86_400
NOW = DAY + 30 * 86_400
Opened = tuple[SqliteStore, list[str]]


@pytest.fixture
def traced(tmp_path: Path) -> Opened:
    """A store, and the statements that its hot connection runs."""
    connection = database.open_database(tmp_path / "ledger.db", create=True, interval_seconds=900)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    return SqliteStore(tmp_path / "ledger.db", connection), statements


def editions_of(path: Path) -> list[tuple[int, int]]:
    """(edition, microjoules) of all energy, as roll-ups have it, which must agree with the rows of channels."""
    with sqlite3.connect(path) as connection:
        sums = [
            connection.execute(
                f"SELECT edition, sum(energy_microjoules) FROM {table} GROUP BY edition ORDER BY edition"
            ).fetchall()
            for table in ("energy", "rollup")
        ]
    connection.close()
    assert sums[0] == sums[1]
    return sums[0]


def test_late_energy_opens_the_next_edition(traced: Opened) -> None:
    """What was booked before the closing is frozen; what comes after it is beside it, and the sum is of both."""
    store, _ = traced
    start = opening()
    first = following(start, [energy(5)])
    second = following(first, [energy(7)])
    for booking in (start, first):
        store.commit([booking])
    closure = freeze(store, DAY, DAY + 86_400, None, now_seconds=NOW)
    store.commit([second])
    assert closure.edition == EDITION_OPEN
    assert editions_of(store.path) == [(0, 5), (1, 7)]
    assert sum(row.energy_microjoules for row in store.rollups(DAY, DAY + 86_400)) == 12
    freeze(store, DAY, DAY + 86_400, None, now_seconds=NOW)
    store.commit([following(second, [energy(11)])])
    assert editions_of(store.path) == [(0, 5), (1, 7), (2, 11)]
    store.close()


def test_intervals_outside_of_a_closing_stay_open(traced: Opened) -> None:
    """A day is closed for one site: the next day is of the first edition still, the same day elsewhere is frozen too."""
    store, _ = traced
    store.add_assignments([AssignmentRow("a", 0, "hall", 0), AssignmentRow("b", 0, "cellar", 0)])
    starts = [opening("a"), opening("b")]
    store.commit(starts)
    freeze(store, DAY, DAY + 86_400, "hall", now_seconds=NOW)
    rows = [energy(1), energy(2, start=DAY + 86_400)]
    store.commit([following(start, rows) for start in starts])
    assert editions_of(store.path) == [(0, 2 + 2), (1, 1 + 1)]
    store.close()


def test_another_collector_learns_of_a_closing_at_its_next_commit(traced: Opened) -> None:
    """The editions that a collector keeps are compared within the transaction that books."""
    store, _ = traced
    other = open_store(store.path, create=False)
    start = opening()
    booked = following(start, [energy(5)])
    other.commit([start])
    other.commit([booked])
    freeze(store, DAY, DAY + 86_400, None, now_seconds=NOW)
    other.commit([following(booked, [energy(7)])])
    assert editions_of(store.path) == [(0, 5), (1, 7)]
    other.close()
    store.close()


def test_closed_periods_cost_a_commit_no_statement(traced: Opened) -> None:
    """Closures are read once after each closing, and never where none was made."""
    store, statements = traced
    start = opening(channels=12)
    booked = following(start, [energy(number, channel=number) for number in range(1, 13)])
    store.commit([start])
    statements.clear()
    store.commit([booked])
    open_cost = len(statements)
    freeze(store, DAY, DAY + 86_400, None, now_seconds=NOW)
    again = following(booked, [energy(number, channel=number) for number in range(1, 13)])
    store.commit([again])
    statements.clear()
    store.commit([following(again, [energy(number, channel=number) for number in range(1, 13)])])
    assert len(statements) == open_cost
    assert not any("closure" in statement for statement in statements)
    store.close()


def test_a_new_closing_freezes_whatever_is_open_in_its_period() -> None:
    """A month that was closed twice and a year over it: the year's edition is above all of the month's."""
    month = [Closure(1, 100, 200, None, 0, 0), Closure(2, 100, 200, "hall", 1, 0)]
    assert next_edition(month, 0, 1000) == 2
    assert next_edition(month, 200, 1000) == EDITION_OPEN
    editions = Editions([*month, Closure(3, 0, 1000, None, 2, 0)])
    assert [editions.open_at(at) for at in (0, 150, 999, 1000)] == [3, 3, 3, 0]
    assert Editions(month).open_at(150) == 2


def test_a_period_is_closed_where_statements_hold_all_of_it() -> None:
    """Two months make a quarter's two thirds; a closure without a statement, or of another site, closes nothing."""
    one, two = Closure(1, 0, 10, None, 0, 0, 1), Closure(2, 10, 20, None, 0, 0, 2)
    newer = Closure(3, 0, 10, None, 1, 0, 3)
    assert closed_by([one, two], 0, 20, None) == (one, two)
    assert closed_by([one, two, newer], 0, 20, "hall") == (newer, two)
    assert closed_by([one], 0, 20, None) == ()
    assert closed_by([Closure(1, 0, 20, None, 0, 0)], 0, 20, None) == ()
    assert closed_by([Closure(1, 0, 20, "hall", 0, 0, 1)], 0, 20, None) == ()
    assert closed_by([Closure(1, 0, 20, "hall", 0, 0, 1)], 0, 20, "hall") != ()
    assert [is_late([one, newer], "hall", 5, edition) for edition in (0, 1, 2)] == [False, False, True]
    assert not is_late([one], "hall", 15, 3)


def report_of(store: FakeStore) -> Report:
    """The report of the day."""
    period = make_period(DAY, DAY + 86_400, parse_time_zone("UTC"), 900)
    return make_report(store, load_catalog(), period, now_seconds=NOW)


def test_a_report_of_a_closed_period_says_so_and_tells_what_is_late() -> None:
    """Closed: no reason to be provisional. Late energy: its site and amount, in the total and not in the statement."""
    store = FakeStore(site_rows=[SiteRow("hall", 0, None, "1.2", False, 0)])
    store.rollup_rows = [RollupRow("hall", DAY, Component.CPU, Quality.COUNTER, False, 5, 1)]
    assert report_of(store).reasons == ("the period is not closed: energy that arrives later still enters it",)
    store.closure_rows = [Closure(1, DAY, DAY + 86_400, None, 0, NOW, 9)]
    assert report_of(store).reasons == ()
    assert [closure.statement for closure in report_of(store).closures] == [9]
    late = RollupRow("hall", DAY, Component.CPU, Quality.COUNTER, False, 1_800_000_000_000, 1, 1)
    store.rollup_rows.append(late)
    report = report_of(store)
    assert report.late == (("hall", 1_800_000_000_000),)
    assert report.energy_microjoules == 1_800_000_000_005
    assert report.reasons == (
        "0.500 kWh of site hall came after the statement of their time: close the period again to state them",
    )
