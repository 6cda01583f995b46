"""Statements that come into the log at once, or are cut off on their way there."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.collector.closed_ledgers import BEGIN, CATALOG, DAY, END, INTERVAL, MWH, NOW, REVISED, Ledger, row

from wattledger_collector.closing import CLOSINGS_MAX, Closed, Maker, close_period
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.freezing import freeze
from wattledger_collector.records import StoreError
from wattledger_collector.report import make_period, parse_time_zone
from wattledger_collector.signed_note import verifier_key
from wattledger_collector.statement_store import (
    OvertakenError,
    checkpoints,
    log_keys,
    origin_of,
    sign_again,
    statement_headers,
)
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.verify import verify


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with one day of a host."""
    made = Ledger(tmp_path)
    made.book("a", [row(MWH)])
    yield made
    made.store.close()


def close(
    ledger: Ledger,
    store: SqliteStore,
    meanwhile: Callable[[], object],
    catalog: FactorCatalog = CATALOG,
    site: str | None = None,
) -> Closed:
    """Close the period over a connection of its own; meanwhile: done each time that its frozen rows have been read."""
    period = make_period(BEGIN, END, parse_time_zone("UTC"), INTERVAL)
    maker = Maker(ledger.key, "wattledger test")

    def progress(seconds: int) -> None:
        meanwhile()

    return close_period(store, catalog, period, maker, now_seconds=NOW, site=site, progress=progress)


def once(act: Callable[[], object]) -> Callable[[], object]:
    """Does it at the first call alone."""
    left = [act]
    return lambda: left.pop()() if left else None


def test_of_two_closings_at_once_the_second_finds_the_first(ledger: Ledger) -> None:
    """Both began with no statement; one is the first, and the other finds that nothing has changed since."""
    with closing(open_store(ledger.store.path, create=False)) as other:
        closed = close(ledger, other, once(lambda: ledger.close()))
    assert (closed.is_new, closed.statement.number) == (False, 1)
    assert [each.tree["replaces"] for each in statement_headers(ledger.store)] == [None]
    assert len(checkpoints(ledger.store)) == 1


def test_a_closing_that_was_overtaken_replaces_what_came_in_between(ledger: Ledger) -> None:
    """It knows another factor: its statement is the second, names the first, and its difference is the factor's."""
    with closing(open_store(ledger.store.path, create=False)) as other:
        closed = close(ledger, other, once(lambda: ledger.close()), REVISED)
    replaced = closed.statement.tree["replaces"]
    assert (closed.is_new, closed.statement.number, replaced["number"]) == (True, 2, 1)
    assert replaced["sha256"] == statement_headers(ledger.store)[0].sha256
    assert verify(ledger.bundle(closed)).problems == []


def test_energy_that_the_first_of_two_closings_had_is_not_taken_out_by_the_second(ledger: Ledger) -> None:
    """What came after the second's freezing, and before the first's, stays in the newest statement."""

    def book_and_close() -> None:
        ledger.book("a", [row(7)])
        ledger.close()

    with closing(open_store(ledger.store.path, create=False)) as other:
        closed = close(ledger, other, once(book_and_close))
    assert closed.statement.tree["totals"]["all"][0]["energy_microjoules"] == str(MWH + 7)


def test_two_sites_are_closed_at_once_without_minding_each_other(ledger: Ledger) -> None:
    """Statements of one period of all sites and of one site stand beside each other."""
    with closing(open_store(ledger.store.path, create=False)) as other:
        closed = close(ledger, other, once(lambda: ledger.close()), site="hall")
    assert (closed.is_new, closed.statement.number, closed.statement.tree["replaces"]) == (True, 2, None)
    assert verify(ledger.bundle(closed)).problems == []


def test_a_closing_that_is_always_overtaken_gives_up_in_a_sentence(ledger: Ledger) -> None:
    """Somebody who restates a period in a loop does not make others wait for ever; the log stays whole."""
    late = iter(range(1, 100))

    def restate() -> None:
        ledger.book("a", [row(next(late))])
        ledger.close()

    told = f"statement {CLOSINGS_MAX} of this period was made meanwhile"
    with closing(open_store(ledger.store.path, create=False)) as other, pytest.raises(OvertakenError, match=told):
        close(ledger, other, restate, REVISED)
    assert [each.number for each in statement_headers(ledger.store)] == list(range(1, CLOSINGS_MAX + 1))


def test_a_closing_that_was_cut_off_leaves_nothing_that_a_later_one_minds(ledger: Ledger) -> None:
    """Frozen and never stated: what was booked since is in the statement, and the rows give it again."""
    freeze(ledger.store, BEGIN, END, None, now_seconds=NOW)
    ledger.book("a", [row(5), row(MWH, BEGIN + DAY)])
    closed = ledger.close()
    assert (closed.statement.number, closed.statement.tree["replaces"]) == (1, None)
    assert closed.statement.tree["totals"]["all"][0]["energy_microjoules"] == str(2 * MWH + 5)
    assert verify(ledger.bundle(closed)).problems == []


def test_a_key_that_was_replaced_meanwhile_signs_nothing_more(ledger: Ledger) -> None:
    """Who knows the log by its new key would not believe what the old one signs."""
    ledger.close()
    old, new = ledger.key, Ed25519PrivateKey.generate()
    sign_again(ledger.store, [old, new])
    ledger.book("a", [row(5)])
    with pytest.raises(StoreError, match="signing key was replaced by"):
        ledger.close()
    with pytest.raises(StoreError, match="signing key was replaced by"):
        sign_again(ledger.store, [old, Ed25519PrivateKey.generate()])
    assert log_keys(ledger.store)[-1] == verifier_key(new, origin_of(ledger.store))
    ledger.key = new
    assert ledger.close().statement.number == 2
