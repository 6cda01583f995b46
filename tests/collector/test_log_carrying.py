"""Restores of backups that are older than the log of statements: the log never goes back, unless somebody says so."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.collector.closed_ledgers import BEGIN, CATALOG, DAY, END, MWH, Ledger, row
from tests.collector.test_store import LATER_COLUMNS, LATER_TABLES

from wattledger_collector.backup import Restored, backup, restore
from wattledger_collector.bundle import BundleError
from wattledger_collector.cli import main
from wattledger_collector.closing import Closed
from wattledger_collector.merkle import consistency_proof
from wattledger_collector.records import StoreError
from wattledger_collector.signed_note import cosign
from wattledger_collector.statement_store import (
    checkpoints,
    keep_cosignatures,
    load_statement,
    log_keys,
    log_leaves,
    statement_headers,
)
from wattledger_collector.store import open_store
from wattledger_collector.verify import verify
from wattledger_collector.witness import Request, Seen, WitnessError, witness


class Restorable(Ledger):
    """A ledger whose database can be put back to an earlier copy of it."""

    def backup(self) -> Path:
        """Copy the database."""
        copy = self.folder / "backup.sqlite"
        backup(self.store.path, copy)
        return copy

    def restore(self, copy: Path, *, forget: bool = False) -> Restored:
        """Put the copy in the database's place; hosts go on from what it has, as agents do."""
        path = self.store.path
        self.store.close()
        try:
            return restore(copy, path, force=True, forget_statements=forget)
        finally:
            self.store = open_store(path, create=False)
            hosts = {host.host: host for host in self.store.hosts()}
            cursors = {cursor.host: cursor for cursor in self.store.cursors()}
            self._last = {
                name: type(each)(**{**fields(each), "host_after": hosts[name], "cursor_after": cursors[name]})
                for name, each in self._last.items()
            }

    def state_day(self, number: int) -> Closed:
        """Close one of the days."""
        return self.close(CATALOG, BEGIN + number * DAY, BEGIN + (number + 1) * DAY)


def fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields by name."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Restorable]:
    """A ledger with energy on three days, of which the first is stated."""
    made = Restorable(tmp_path)
    made.book("a", [row(MWH, BEGIN + day * DAY) for day in range(3)])
    made.state_day(0)
    yield made
    made.store.close()


def make_older(connection: sqlite3.Connection, revision: str) -> None:
    """Take out of a database what came with later steps of the schema."""
    dropped = {table for older, tables in LATER_TABLES.items() if older >= revision for table in tables}
    for table in dropped:
        connection.execute(f"DROP TABLE {table}")
    for older, additions in LATER_COLUMNS.items():
        for table, columns in additions.items() if older >= revision else ():
            for column in columns if table not in dropped else ():
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def seen_by_witness(ledger: Ledger) -> Seen:
    """What a witness keeps who saw the log as it is now."""
    newest = checkpoints(ledger.store)[-1]
    return Seen(log_keys(ledger.store)[-1], newest.checkpoint.size, newest.checkpoint.root)


def ask(ledger: Ledger, seen: Seen) -> Seen:
    """Ask the witness for its signature under the newest checkpoint."""
    newest = checkpoints(ledger.store)[-1]
    leaves = log_leaves(ledger.store, newest.checkpoint.size)
    proof = tuple(consistency_proof(leaves, min(seen.size, len(leaves))))
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return witness(Request(seen.size, proof, newest), seen, [], "w.example", key, 1000)[1]


def test_statements_made_since_the_backup_stay_in_the_log(ledger: Restorable) -> None:
    """Numbers, hashes, checkpoints and their signatures; later statements lead on, and no witness cries."""
    copy = ledger.backup()
    second = ledger.state_day(1)
    first, newest = checkpoints(ledger.store)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for signed in (first, newest):
        assert keep_cosignatures(ledger.store, cosign(signed, "w.example", key, 7)) == 1
    before = [str(each) for each in checkpoints(ledger.store)]
    seen = seen_by_witness(ledger)
    done = ledger.restore(copy)
    assert (done.carried, done.log_size, done.is_log_unknown) == ((2,), newest.checkpoint.size, False)
    assert [str(each) for each in checkpoints(ledger.store)] == before
    assert load_statement(ledger.store, 2) == second.statement
    third = ledger.state_day(2)
    assert third.statement.number == 3
    assert ask(ledger, seen).size == third.statement.log_size
    assert verify(ledger.bundle(third), earlier=str(newest)).problems == []


def test_energy_that_was_stated_and_comes_again_is_late(ledger: Restorable) -> None:
    """The frozen rows are gone: no bundle of the old statement, and a new one whose difference is activity, not method."""
    copy = ledger.backup()
    ledger.book("a", [row(5 * MWH, BEGIN + DAY)])
    second = ledger.state_day(1)
    ledger.restore(copy)
    with pytest.raises(BundleError, match="are not those that were closed"):
        ledger.bundle(second)
    ledger.book("a", [row(5 * MWH, BEGIN + DAY), row(7, BEGIN + DAY)])
    again = ledger.state_day(1)
    (difference,) = again.statement.tree["replaces"]["differences"]
    exact = {cause: Fraction(each["exact"]) for cause, each in difference["causes"].items()}
    assert exact["activity"] == Fraction(difference["difference"]["exact"]) > 0
    assert exact["method"] == 0
    assert verify(ledger.bundle(again)).problems == []


def test_an_older_schema_takes_a_log_that_it_had_no_tables_for(ledger: Restorable, tmp_path: Path) -> None:
    """A backup from before an upgrade is upgraded, and then given the log."""
    path = ledger.store.path
    copy = tmp_path / "backup.sqlite"
    with closing(sqlite3.connect(copy)) as old, closing(sqlite3.connect(path)) as now:
        now.backup(old)
        make_older(old, "0004")
        old.commit()
    assert ledger.restore(copy).carried == (1,)
    assert ledger.state_day(1).statement.number == 2


def test_a_ledger_whose_log_cannot_be_carried_is_not_replaced(ledger: Restorable, tmp_path: Path) -> None:
    """A fork of it, and another ledger: the statements are named; given up in so many words, they are gone."""
    copy = ledger.backup()
    ledger.state_day(1)
    fork = ledger.folder / "fork.sqlite"
    backup(ledger.store.path, fork)
    ledger.restore(copy)
    ledger.store.close()
    copy.replace(ledger.store.path)
    ledger.store = open_store(ledger.store.path, create=False)
    ledger.close()
    with pytest.raises(StoreError, match=r"has statement 2 \(2023-04-01 to 2024-04-01\) that the backup lacks.*--forget"):
        ledger.restore(fork)
    assert load_statement(ledger.store, None).tree["period"]["to_seconds"] == END
    done = ledger.restore(fork, forget=True)
    assert (done.carried, len(statement_headers(ledger.store))) == ((), 2)
    other = tmp_path / "other"
    other.mkdir()
    Ledger(other).store.close()
    with pytest.raises(StoreError, match=r"has statements 1 \(.*\), 2 \(.*\) that the backup lacks"):
        ledger.restore(other / "ledger.sqlite")


def test_a_log_that_was_lost_and_goes_on_is_found_out(ledger: Restorable, tmp_path: Path) -> None:
    """With the disk gone nothing could be carried: numbers come again, and verifier and witness both say so."""
    copy = ledger.backup()
    ledger.state_day(1)
    published, seen = str(checkpoints(ledger.store)[-1]), seen_by_witness(ledger)
    ledger.store.close()
    ledger.store.path.unlink()
    assert ledger.restore(copy).carried == ()
    ledger.book("a", [row(7, BEGIN + DAY)])
    forked = ledger.state_day(1)
    assert forked.statement.number == 2
    problems = verify(ledger.bundle(forked), earlier=published).problems
    assert any("history was rewritten" in problem for problem in problems)
    with pytest.raises(WitnessError, match="history was rewritten"):
        ask(ledger, seen)


def test_a_backup_that_lacks_nothing_is_restored_as_ever(ledger: Restorable) -> None:
    """Nothing is carried, and the log goes on."""
    done = ledger.restore(ledger.backup())
    assert (done.hosts, done.carried) == (1, ())
    assert ledger.state_day(1).statement.number == 2


def test_the_command_says_what_became_of_the_log(ledger: Restorable, capsys: pytest.CaptureFixture[str]) -> None:
    """Which statements were carried; from where the log goes on; that nobody can know what a ruin had."""

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["restore", str(copy), "--store", str(path), "--force", *words])
        out, complaints = capsys.readouterr()
        return (1 if ended.value.code else 0), out + complaints + str(ended.value.code or "")

    copy, path = ledger.backup(), ledger.store.path
    ledger.state_day(1)
    ledger.store.close()
    status, told = run()
    assert (status, "statements made since the backup stay in the log: 2;" in told) == (0, True)
    path.unlink()
    status, told = run()
    assert (status, "the log of statements goes on after 2 leaves: " in told) == (0, True)
    path.write_bytes(b"no database" * 1000)
    status, told = run()
    assert (status, "could not be read: compare its newest checkpoint" in told) == (0, True)
    other = ledger.folder / "other"
    other.mkdir()
    Ledger(other).store.close()
    copy = other / "ledger.sqlite"
    status, told = run()
    assert (status, "--forget-statements" in told) == (1, True)
    assert run("--forget-statements")[0] == 0
    ledger.store = open_store(path, create=False)
