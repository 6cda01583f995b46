"""Reading ahead: every part once, while the block runs; nothing for short periods, and no error of its own."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

from tests.collector.fake_store import FakeStore

from wattledger_collector.database import connect
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.read_ahead import reading_ahead
from wattledger_collector.report import make_period, make_report
from wattledger_collector.store import open_store
from wattledger_collector.store_rows import GAPS_AHEAD, ROLLUPS_AHEAD

DAY = 86_400
NOTES = ("SELECT note('rollup', :from_seconds, :to_seconds)", "SELECT note('gap', :from_seconds, :to_seconds)")
READERS = 8
# Far more than a loaded machine needs; a part that never comes ends the test.
PATIENCE_SECONDS = 60.0


class Noting:
    """Opens connections whose queries are noted."""

    def __init__(self) -> None:
        self.made: list[sqlite3.Connection] = []
        self.noted: list[tuple[str, int, int]] = []
        self._come = threading.Semaphore(0)
        # Shut: queries begin, and wait with their answers.
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> sqlite3.Connection:
        """One more."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.create_function("note", 3, self._note)
        self.made.append(connection)
        return connection

    def _note(self, what: str, begin: int, end: int) -> None:
        self.noted.append((what, begin, end))
        self._come.release()
        self.gate.wait(PATIENCE_SECONDS)

    def wait(self, count: int) -> None:
        """Until so many more have come."""
        for _ in range(count):
            assert self._come.acquire(timeout=PATIENCE_SECONDS)


def test_every_part_is_read_once_while_the_block_runs() -> None:
    """Days, the last one cut off at the period's end, with one query after the other; then all threads have ended."""
    opened, before = Noting(), threading.active_count()
    with reading_ahead(opened, NOTES, DAY, 10 * DAY + 900):
        opened.wait(2 * 10)
    assert threading.active_count() == before
    spans = [(begin * DAY, min((begin + 1) * DAY, 10 * DAY + 900)) for begin in range(1, 11)]
    assert sorted(opened.noted) == sorted((what, *span) for what in ("rollup", "gap") for span in spans)
    assert {what for what, _, _ in opened.noted[:3]} == {"rollup"}


def test_a_block_that_ends_early_waits_for_no_more_than_what_has_begun() -> None:
    """Each thread ends after the part that it was at, and none outlives the block."""
    opened, before = Noting(), threading.active_count()
    opened.gate.clear()
    # The disk answers when the block has long ended.
    answer = threading.Timer(0.5, opened.gate.set)
    with reading_ahead(opened, NOTES, 0, 7_300 * DAY):
        opened.wait(READERS)
        answer.start()
    answer.join()
    assert threading.active_count() == before
    assert len(opened.noted) == READERS


def test_short_periods_and_all_of_time_are_not_read_ahead() -> None:
    """They open no connection: who reads days is done sooner, and most of "all of time" is empty."""
    opened = Noting()
    for span in ((0, 6 * DAY), (0, 2**40), (5 * DAY, 5 * DAY)):
        with reading_ahead(opened, NOTES, *span):
            assert threading.active_count() >= 1
    assert opened.made == []


def test_what_can_not_be_read_ahead_is_left_to_the_reader() -> None:
    """A database that can't be opened, or a query that fails, ends the thread alone."""

    def refused() -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    with reading_ahead(refused, NOTES, 0, 30 * DAY):
        pass
    with reading_ahead(Noting(), ("SELECT none FROM nowhere",), 0, 30 * DAY):
        pass


def test_where_no_thread_can_be_had_the_block_runs_all_the_same() -> None:
    """Those that were started do what they can, and end with the block."""
    opened, before = Noting(), threading.active_count()
    started: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        thread.start()
        started.append(thread)

    with reading_ahead(opened, NOTES, 0, 10 * DAY, start):
        opened.wait(2 * 10)
    assert (len(started), threading.active_count()) == (2, before)


def test_the_queries_reach_the_rows_by_their_keys(tmp_path: Path) -> None:
    """Roll-ups by their key, gaps themselves and not only their index: else pages would stay unread, or all be read."""
    with closing(open_store(tmp_path / "ledger.sqlite", create=True)), closing(connect(tmp_path / "ledger.sqlite")) as own:
        values = {"from_seconds": 0, "to_seconds": DAY}
        plans = [own.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall() for query in (ROLLUPS_AHEAD, GAPS_AHEAD)]
    rollups, gaps = (" ".join(step[3] for step in plan) for plan in plans)
    assert rollups.startswith("SEARCH rollup USING PRIMARY KEY (interval_start_seconds>? AND interval_start_seconds<?)")
    assert gaps.startswith("SEARCH gap USING INDEX gap_by_time (from_utc_nanoseconds>? AND from_utc_nanoseconds<?)")


class Ahead(FakeStore):
    """A store that notes what is read ahead, and whether roll-ups are read meanwhile."""

    spans: tuple[tuple[int, int], ...] = ()

    def reading_ahead(self, from_seconds: int, to_seconds: int) -> AbstractContextManager[None]:
        """Noted."""
        return self._noting(from_seconds, to_seconds)

    @contextmanager
    def _noting(self, from_seconds: int, to_seconds: int) -> Iterator[None]:
        self.spans = (*self.spans, (from_seconds, to_seconds))
        yield


def test_a_report_reads_its_period_ahead() -> None:
    """The whole of it, once, however many readings it is cut into."""
    store = Ahead()
    period = make_period(0, 365 * DAY, ZoneInfo("UTC"), 900)
    make_report(store, FactorCatalog([]), period, now_seconds=366 * DAY)
    assert store.spans == ((0, 365 * DAY),)
