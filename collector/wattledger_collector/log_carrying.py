"""Carries the log of statements from the ledger that a restore replaces into the copy that takes its place.

Reads no energy and signs nothing. A log that others have seen can't go back: with its numbers used once more for something
else, every witness would cry. Source of truth: the tables below, to which rows are only added; a checkpoint's note alone may
gain signatures.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from wattledger_collector.records import StoreError

# By table, the columns of which a row never changes; in the order in which rows refer to each other.
_UNCHANGED: Final = {
    "leaf_secret": "id, secret",
    "closure": "id, from_seconds, to_seconds, site, edition",
    "statement": "id, sha256",
    "log_checkpoint": "id, size, border",
    "log_key": "id, verifier_key",
    "log_time_stamp": "id, checkpoint_id, answer",
}
# Of more, the first and the last tell enough.
_NAMED_MAX: Final = 5


def is_ahead(old: sqlite3.Connection, new: sqlite3.Connection) -> bool:
    """Whether the ledger that is replaced has statements, checkpoints, or signatures under them, that the copy lacks."""
    if any(_extra(old, new, table) for table in ("statement", "log_checkpoint", "log_time_stamp")):
        return True
    return _rows(old, "log_checkpoint", "id, note") != _rows(new, "log_checkpoint", "id, note")


def carry_log(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[int, ...]:
    """Add to the copy what it lacks of the log; returns the numbers of the statements that it lacked.

    Raises StoreError, with nothing changed, if the copy's log is not the beginning of the other one.
    """
    missing = _extra(old, new, "statement")
    same = _rows(old, "database_info", "database_id") == _rows(new, "database_info", "database_id")
    if not same or any(_rows(old, table)[: len(_rows(new, table))] != _rows(new, table) for table in _UNCHANGED):
        raise StoreError(
            f"the ledger that would be replaced has {_named(old, missing)} that the backup lacks, and its log is not the "
            "one that the backup's goes on as: move it away and keep it, or give these statements up with "
            "--forget-statements; their bundles stay valid, and this log can't lead on from them"
        )
    with new:
        for table in _UNCHANGED:
            # What came with a later schema has no place in an older one.
            columns = ", ".join(each for each in _columns(new, table) if each in _columns(old, table))
            if columns:
                rows = old.execute(f"SELECT {columns} FROM {table}").fetchall()
                places = ", ".join("?" * (columns.count(",") + 1))
                new.executemany(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})", rows)
    return tuple(number for number, _ in missing)


def _extra(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    there = set(_rows(new, table))
    return [row for row in _rows(old, table) if row not in there]


def _rows(connection: sqlite3.Connection, table: str, columns: str = "") -> list[tuple[Any, ...]]:
    """The rows of a table, as far as they never change; none where there is no such table yet."""
    if not _columns(connection, table):
        return []
    return connection.execute(f"SELECT {columns or _UNCHANGED[table]} FROM {table} ORDER BY 1").fetchall()


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]


def _named(old: sqlite3.Connection, missing: Sequence[tuple[Any, ...]]) -> str:
    """Statements by number and period."""
    if not missing:
        return "checkpoints"
    query = (
        "SELECT s.id, date(c.from_seconds, 'unixepoch'), date(c.to_seconds, 'unixepoch') "
        "FROM statement AS s JOIN closure AS c ON c.id = s.closure_id"
    )
    periods = {number: f"{number} ({begin} to {end})" for number, begin, end in old.execute(query)}
    names = [periods.get(number, str(number)) for number, _ in missing]
    if len(names) > _NAMED_MAX:
        names = [*names[: _NAMED_MAX - 1], f"... {names[-1]}"]
    return f"{'statement' if len(missing) == 1 else 'statements'} {', '.join(names)}"
