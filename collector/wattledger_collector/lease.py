"""Which collector shows the sites' metrics, where several share a database, and which collectors there are.

Decides nothing about bookings: any collector may take any agent. A lease is a row; it is taken, kept and given back by
compare and set in one transaction. Reads no clock; times are seconds since 1970-01-01 UTC.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import sqlite as sqlite_dialect

from wattledger_collector import schema
from wattledger_collector.database import connect, explain
from wattledger_collector.records import Component, Cursor, Host, Piece, Quality, RollupRow
from wattledger_collector.store import SqliteStore
from wattledger_collector.store_rows import ROLLUP_BEGIN, ROLLUP_SUMS_ONLY, ROLLUP_SUMS_WITHOUT, read_sum

# After a collector's death its sites' metrics are missing for this long and a renewal more: 40 s, under three scrapes of the
# usual 15 s. Shorter would hand over whenever a commit made a renewal wait for the database, which is given up after 10 s
# (database.BUSY_SECONDS_MAX): two renewals may fail so before the third must succeed.
LEASE_SECONDS: Final = 30.0

# A third, so that two may fail. One small transaction in ten seconds, where a busy ledger has forty a second.
RENEWAL_SECONDS: Final = LEASE_SECONDS / 3

# No right clock writes a lease that ends later; one that was set back must not leave the sites without metrics for an hour.
_LEASE_SECONDS_MAX: Final = 2 * LEASE_SECONDS

_SITES: Final = "sites"
_PRESENCE: Final = "collector/"

_decode_host = msgspec.msgpack.Decoder(Host).decode
_decode_cursor = msgspec.msgpack.Decoder(Cursor).decode


@dataclass(frozen=True, slots=True)
class Standing:
    """What a collector is among those that share a database.

    is_site_exposer: it shows the sites' metrics, until until_seconds. collectors: the names of all that are alive.
    """

    is_site_exposer: bool
    until_seconds: float
    collectors: frozenset[str]


NO_STANDING: Final = Standing(is_site_exposer=False, until_seconds=0.0, collectors=frozenset())


def renew(store: SqliteStore, collector: str, now_seconds: float) -> Standing:
    """Take or keep the sites' lease where it is free or ours, and say that we are alive. StoreError."""
    table, until = schema.leases.c, now_seconds + LEASE_SECONDS
    with store.writing() as connection:
        _clear(connection, now_seconds)
        _put(connection, f"{_PRESENCE}{collector}", collector, until)
        mine = update(schema.leases).where(table.name == _SITES, table.collector == collector)
        if not connection.execute(mine.values(until_seconds=until)).rowcount:
            free = sqlite_dialect.insert(schema.leases).on_conflict_do_nothing()
            connection.execute(free.values(name=_SITES, collector=collector, until_seconds=until))
        rows = connection.execute(select(table.name, table.collector)).all()
    names = frozenset(name for key, name in rows if key != _SITES)
    return Standing((_SITES, collector) in [(key, name) for key, name in rows], until, names)


def release(store: SqliteStore, collector: str) -> None:
    """Give back what we have, so that another collector need not wait for its end. StoreError."""
    with store.writing() as connection:
        connection.execute(delete(schema.leases).where(schema.leases.c.collector == collector))


def _clear(connection: Connection, now_seconds: float) -> None:
    """Delete leases that have ended, or that only a wrong clock can have written."""
    until = schema.leases.c.until_seconds
    connection.execute(delete(schema.leases).where((until <= now_seconds) | (until > now_seconds + _LEASE_SECONDS_MAX)))


def _put(connection: Connection, name: str, collector: str, until_seconds: float) -> None:
    values = {"name": name, "collector": collector, "until_seconds": until_seconds}
    insert = sqlite_dialect.insert(schema.leases).values(values)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"until_seconds": until_seconds}))


class Snapshot:
    """The ledger as it is at one instant; rows that belong together are read together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hosts(self) -> Iterator[Host]:
        """All hosts."""
        for (packed,) in self._connection.execute("SELECT packed FROM host"):
            yield _decode_host(packed)

    def cursors(self) -> Iterator[Cursor]:
        """All cursors, in the order in which they were made."""
        for (packed,) in self._connection.execute("SELECT packed FROM epoch_cursor ORDER BY id"):
            yield _decode_cursor(packed)

    def rollup_begin(self) -> int | None:
        """As in the store."""
        begin: int | None = self._connection.execute(ROLLUP_BEGIN).fetchone()[0]
        return begin

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """Rows whose interval starts in [from, to)."""
        for name, start, component, quality, recorded, energy, covered in self._connection.execute(
            "SELECT site, interval_start_seconds, component, quality, recorded, energy_microjoules, covered_nanoseconds "
            "FROM rollup WHERE interval_start_seconds >= ? AND interval_start_seconds < ? AND (? IS NULL OR site = ?)",
            (from_seconds, to_seconds, site, site),
        ):
            yield RollupRow(name, start, Component(component), Quality(quality), bool(recorded), energy, covered)

    def rollup_sums(
        self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> Iterator[RollupRow]:
        """As in the store."""
        query, sites = (ROLLUP_SUMS_WITHOUT, without) if only is None else (ROLLUP_SUMS_ONLY, only)
        names = json.dumps(list(sites))
        for piece in pieces:
            own = {"sites": names, "from_seconds": piece.from_seconds, "to_seconds": piece.to_seconds}
            for row in self._connection.execute(query, own).fetchall():
                yield read_sum(piece, row)


@contextmanager
def read_snapshot(path: Path) -> Iterator[Snapshot]:
    """One read transaction; writers go on beside it. StoreError."""
    try:
        with closing(connect(path, read_only=True)) as connection:
            connection.execute("BEGIN")
            # A transaction begins to see with its first statement.
            connection.execute("SELECT id FROM database_info").fetchone()
            yield Snapshot(connection)
    except sqlite3.Error as error:
        raise explain(error, path) from error
