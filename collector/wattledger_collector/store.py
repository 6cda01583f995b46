"""The ledger's database in one SQLite file: the records.Store that collectors on one machine share.

Reckons nothing: what is stored comes in bookings, what is asked comes out as rows. Hot writes are in hot_writes.py, tables
in schema.py, operators' changes of hosts in hosts.py.
"""

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Executable, Row, select, text, update
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError

from wattledger_collector import schema, workload_rows
from wattledger_collector.closures import Closure
from wattledger_collector.database import connect, database_path, explain, make_engine, open_database
from wattledger_collector.hot_writes import DATA_ERRORS, HotWrites, Prepared, StaleBookings
from wattledger_collector.read_ahead import reading_ahead
from wattledger_collector.records import (
    INTERVAL_SECONDS_DEFAULT,
    NANOSECONDS_PER_SECOND,
    AssignmentRow,
    Booking,
    ChannelCount,
    ChannelInfo,
    CommitOutcome,
    Component,
    Cursor,
    EmissionBasis,
    EmissionRun,
    Host,
    HostEnergyRow,
    HostGapRow,
    Piece,
    Quality,
    RollupRow,
    SiteRow,
    StoreError,
    UtilizationRow,
)
from wattledger_collector.store_rows import (
    CHANNEL_COLUMNS,
    CHANNEL_COUNTS,
    EMISSION_BASES,
    ENERGY_OF_ALL,
    ENERGY_OF_HOST,
    GAPS,
    GAPS_AHEAD,
    ROLLUP_BEGIN,
    ROLLUP_SUMS_ONLY,
    ROLLUP_SUMS_WITHOUT,
    ROLLUPS_AHEAD,
    SitesOfHosts,
    read_channel,
    read_energy,
    read_gap,
    read_sum,
)
from wattledger_collector.workload_records import HostWorkloadRow, HostWorkloads, WorkloadCursor, WorkloadSum

# Rows read from the database at a time.
_ROWS_AT_ONCE: Final = 2_000

_EMISSION_BASES: Final = select(*(schema.emission_bases.c[each.name] for each in fields(EmissionBasis))).order_by(
    schema.emission_bases.c.site, schema.emission_bases.c.interval_start_seconds
)

_log = logging.getLogger(__name__)

_decode_host = msgspec.msgpack.Decoder(Host).decode
_decode_cursor = msgspec.msgpack.Decoder(Cursor).decode


def open_store(url_or_path: str | Path, *, create: bool, interval_seconds: int = INTERVAL_SECONDS_DEFAULT) -> "SqliteStore":
    """Open the database, after checks of damage and durability and after migrations.

    create: make it if there is none. interval_seconds: of a new database; an existing one keeps its own. StoreError with a
    remedy if it can't be used.
    """
    path = database_path(url_or_path)
    connection = open_database(path, create=create, interval_seconds=interval_seconds)
    return SqliteStore(path, connection)


class SqliteStore:
    """See records.Store. Made by open_store. May be used from several threads."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        # Where the statements between BEGIN and COMMIT are run; a writer lends its event loop.
        self.run_statements: Callable[[Callable[[], None]], None] = run_at_once
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = connection
        # Reads have a connection of their own, so that nobody waits for a commit to learn what was committed.
        self._reader_lock = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._hot = HotWrites()
        self._engine = make_engine(path)
        row = connection.execute(
            "SELECT interval_seconds, database_id, created_utc_nanoseconds FROM database_info"
        ).fetchone()
        self._interval_seconds: int = row[0]
        self.database_id: str = row[1]
        self.created_utc_nanoseconds: int = row[2]

    @property
    def interval_seconds(self) -> int:
        """Length of the ledger's intervals in seconds, fixed when the database was created."""
        return self._interval_seconds

    def load_host(self, host: str) -> Host | None:
        """The host's row as committed; None if never seen."""
        rows = self._read("SELECT packed FROM host WHERE host = ?", (host,))
        return _decode_host(rows[0][0]) if rows else None

    def load_cursor(self, host: str, epoch: bytes) -> Cursor | None:
        """The epoch's row as committed; None if never seen."""
        rows = self._read(
            "SELECT c.packed FROM epoch_cursor AS c JOIN host AS h ON h.id = c.host_id WHERE h.host = ? AND c.epoch = ?",
            (host, epoch),
        )
        return _decode_cursor(rows[0][0]) if rows else None

    def load_channels(self, host: str, epoch: bytes) -> dict[int, ChannelInfo]:
        """The epoch's catalog, by channel number."""
        rows = self._read(
            f"SELECT {CHANNEL_COLUMNS} FROM host AS h JOIN epoch_cursor AS c ON c.host_id = h.id "
            "JOIN channel AS n ON n.id BETWEEN (c.id << 32) AND (c.id << 32) + 4294967295 "
            "WHERE h.host = ? AND c.epoch = ? ORDER BY n.id",
            (host, epoch),
        )
        return {info.channel: info for info in map(read_channel, rows)}

    def load_peer_cursors(self, host: str, epoch: bytes) -> Sequence[Cursor]:
        """The cursors of the host's other epochs, oldest first."""
        rows = self._read(
            "SELECT c.packed FROM epoch_cursor AS c JOIN host AS h ON h.id = c.host_id "
            "WHERE h.host = ? AND c.epoch != ? ORDER BY c.id",
            (host, epoch),
        )
        return [_decode_cursor(packed) for (packed,) in rows]

    def load_workload_cursor(self, host: str, epoch: bytes) -> WorkloadCursor | None:
        """How far the epoch's workloads are committed; None if it never had any. To be read after the cursor."""
        rows = self._read(workload_rows.CURSOR, (host, epoch))
        return workload_rows.decode_cursor(rows[0][0]) if rows else None

    def host_workloads(self, host: str, seen_since_utc_nanoseconds: int) -> HostWorkloads:
        """Lifetime totals under the keys of all workloads that were seen since then, and the host's version with them."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                return workload_rows.read_host_workloads(connection, host, seen_since_utc_nanoseconds)
            finally:
                connection.execute("ROLLBACK")

    def workload_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostWorkloadRow]:
        """Energy of workloads in intervals that start in [from, to), by interval and host."""
        values = {"from_seconds": from_seconds, "to_seconds": to_seconds, "host": host}
        for row in self.rows(text(workload_rows.ENERGY), values):
            yield workload_rows.read_workload_energy(row)

    def workload_sums(self, pieces: Iterable[Piece]) -> Iterator[WorkloadSum]:
        """For each piece, in order, the energy of workloads in its intervals, added up; all of one state of the ledger."""
        # Imported here: numpy starts threads of its own, which a collector that only runs has no use and no rights for.
        from wattledger_collector.workload_columns import read_workload_sums

        try:
            with self._engine.connect() as connection, connection.begin():
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                yield from read_workload_sums(driver, pieces)
        except DBAPIError as error:
            raise self._explained(error) from error
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def commit(self, bookings: Sequence[Booking]) -> list[CommitOutcome]:
        """Commit all bookings in one transaction, durable on return. At most one for each host.

        Stale ones and ones that can't be stored are left out, and the others committed all the same. StoreError: nothing
        was committed, as far as is known; read again before the next booking.
        """
        if len({booking.host_after.host for booking in bookings}) != len(bookings):
            raise ValueError("a commit takes at most one booking of each host")
        outcomes = [CommitOutcome.REJECTED] * len(bookings)
        items: dict[int, Prepared] = {}
        with self._lock:
            for place, booking in enumerate(bookings):
                try:
                    items[place] = self._hot.prepare(booking)
                except DATA_ERRORS as error:
                    _log.error("a booking of host %s can't be packed: %s", booking.host_after.host, error)
            if items:
                for place, outcome in zip(items, self._commit_all(list(items.values())), strict=True):
                    outcomes[place] = outcome
        return outcomes

    def cursors(self) -> Iterator[Cursor]:
        """All cursors, in the order in which they were made."""
        for (packed,) in self.rows(select(schema.cursors.c.packed).order_by(schema.cursors.c.id)):
            yield _decode_cursor(packed)

    def hosts(self) -> Iterator[Host]:
        """All hosts, by name."""
        for (packed,) in self.rows(select(schema.hosts.c.packed).order_by(schema.hosts.c.host)):
            yield _decode_host(packed)

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """Roll-up rows whose interval starts in [from, to), in order of site and interval; one for each edition."""
        table = schema.rollups.c
        query = (
            select(
                table.site,
                table.interval_start_seconds,
                table.component,
                table.quality,
                table.recorded,
                table.energy_microjoules,
                table.covered_nanoseconds,
                table.edition,
            )
            .where(table.interval_start_seconds >= from_seconds, table.interval_start_seconds < to_seconds)
            .order_by(table.site, table.interval_start_seconds, table.component, table.quality, table.recorded)
        )
        if site is not None:
            query = query.where(table.site == site)
        for name, start, component, quality, recorded, energy, covered, edition in self.rows(query):
            yield RollupRow(name, start, Component(component), Quality(quality), recorded, energy, covered, edition)

    def rollup_begin(self) -> int | None:
        """The earliest interval that has a row; None if none has."""
        with self._reading() as connection:
            begin: int | None = connection.execute(ROLLUP_BEGIN).fetchone()[0]
            return begin

    def rollup_sums(
        self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> Iterator[RollupRow]:
        """For each piece, in order, its roll-up rows added up, dated by its beginning; all of one state of the ledger.

        only: of these sites; None: of all but those of `without`.
        """
        query, sites = (ROLLUP_SUMS_WITHOUT, without) if only is None else (ROLLUP_SUMS_ONLY, only)
        for piece, rows in self._pieces(query, pieces, {"sites": json.dumps(list(sites))}):
            for row in rows:
                yield read_sum(piece, row)

    def reading_ahead(self, from_seconds: int, to_seconds: int) -> AbstractContextManager[None]:
        """While the block runs, a period's roll-ups and gaps are brought into the system's page cache, if it is long."""
        return reading_ahead(
            partial(connect, self.path, read_only=True), (ROLLUPS_AHEAD, GAPS_AHEAD), from_seconds, to_seconds
        )

    def channel_counts(self) -> Mapping[tuple[str, bytes], ChannelCount]:
        """How many channels are booked, by (host, epoch); one query for all."""
        rows = self.rows(text(CHANNEL_COUNTS))
        return {(host, epoch): ChannelCount(booked, still_open) for host, epoch, booked, still_open in rows}

    def host_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostEnergyRow]:
        """Energy rows whose interval starts in [from, to), by interval and host; one for each edition."""
        channels: dict[int, ChannelInfo] = {}
        values = {"from_seconds": from_seconds, "to_seconds": to_seconds}
        if host is None:
            rows = self.rows(text(ENERGY_OF_ALL), values)
        else:
            rows = self.rows(text(ENERGY_OF_HOST), {**values, "host": host, "interval_seconds": self._interval_seconds})
        for row in rows:
            yield read_energy(row, channels)

    def gaps(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostGapRow]:
        """Gaps that overlap [from, to), by beginning."""
        sites = SitesOfHosts(self.assignments())
        values = {
            "from_nanoseconds": from_seconds * NANOSECONDS_PER_SECOND,
            # A far year is as good as the last that 64 bits hold.
            "to_nanoseconds": min(to_seconds * NANOSECONDS_PER_SECOND, 2**63 - 1),
            "host": host,
        }
        channels: dict[tuple[Any, ...], ChannelInfo] = {}
        for row in self.rows(text(GAPS), values):
            yield read_gap(row, sites, channels)

    def utilization(
        self, from_seconds: int, to_seconds: int, host: str | None = None
    ) -> Iterator[tuple[str, UtilizationRow]]:
        """Host and busy time of each device, for intervals that start in [from, to)."""
        table = schema.utilization.c
        query = (
            select(schema.hosts.c.host, table.device, table.kind, table.interval_start_seconds, table.busy_nanoseconds)
            .join(schema.hosts, schema.hosts.c.id == table.host_id)
            .where(table.interval_start_seconds >= from_seconds, table.interval_start_seconds < to_seconds)
            .order_by(table.interval_start_seconds, table.host_id, table.device, table.kind)
        )
        if host is not None:
            query = query.where(schema.hosts.c.host == host)
        for name, *values in self.rows(query):
            yield name, UtilizationRow(*values)

    def add_sites(self, rows: Iterable[SiteRow]) -> None:
        """Add dated site rows; rows are never changed."""
        values = [asdict(row) for row in rows]
        with self.writing() as connection:
            if values:
                connection.execute(schema.sites.insert(), values)

    def sites(self) -> Sequence[SiteRow]:
        """All site rows, by site and time; of two for one time the later recorded is the last."""
        table = schema.sites.c
        query = select(*(table[each.name] for each in fields(SiteRow))).order_by(
            table.site, table.valid_from_seconds, table.recorded_at_seconds, table.id
        )
        return [SiteRow(*row) for row in self.rows(query)]

    def add_assignments(self, rows: Iterable[AssignmentRow]) -> None:
        """Add dated assignments; rows are never changed. Later bookings follow them, earlier ones stay where they are."""
        with self.writing() as connection:
            insert_assignments(connection, rows)

    def assignments(self) -> Sequence[AssignmentRow]:
        """All assignments, by host and time; of two for one time the later recorded is the last."""
        table = schema.assignments.c
        query = select(table.host, table.valid_from_seconds, table.site, table.recorded_at_seconds).order_by(
            table.host, table.valid_from_seconds, table.recorded_at_seconds, table.id
        )
        return [AssignmentRow(*row) for row in self.rows(query)]

    def closures(self) -> Sequence[Closure]:
        """All closures, in the order in which they were made."""
        table, statement = schema.closures.c, schema.statements.c
        query = (
            select(
                table.id,
                table.from_seconds,
                table.to_seconds,
                table.site,
                table.edition,
                table.closed_at_seconds,
                statement.id,
            )
            .join(schema.statements, statement.closure_id == table.id, isouter=True)
            .order_by(table.id)
        )
        return [Closure(*row) for row in self.rows(query)]

    def add_emission_bases(self, rows: Iterable[EmissionBasis]) -> Sequence[EmissionBasis]:
        """Keep the basis of intervals that have none yet; an existing one stays. Returns what now stands for each."""
        values = [asdict(row) for row in rows]
        if not values:
            return []
        wanted = {(row["site"], row["interval_start_seconds"]) for row in values}
        starts = [start for _, start in wanted]
        table = schema.emission_bases.c
        query = _EMISSION_BASES.where(
            table.site.in_({site for site, _ in wanted}), table.interval_start_seconds.between(min(starts), max(starts))
        )
        with self.writing() as connection:
            connection.execute(sqlite_dialect.insert(schema.emission_bases).on_conflict_do_nothing(), values)
            stands = [EmissionBasis(*row) for row in connection.execute(query)]
        return [row for row in stands if (row.site, row.interval_start_seconds) in wanted]

    def emission_bases(self) -> Iterator[EmissionBasis]:
        """All bases, by site and interval."""
        for row in self.rows(_EMISSION_BASES):
            yield EmissionBasis(*row)

    def emission_runs(self) -> Iterator[EmissionRun]:
        """All bases, by site and time, as few runs as they make."""
        first: tuple[Any, ...] = ()
        end, said = 0, ()
        # There is a row for each interval of each site since the beginning: they are compared as the driver gives them.
        for row in self._driver_rows(EMISSION_BASES):
            if row[1] != end or row[2:] != said or row[0] != first[0]:
                if first:
                    yield EmissionRun(EmissionBasis(*first), end)
                first, said = row, row[2:]
            end = row[1] + self._interval_seconds
        if first:
            yield EmissionRun(EmissionBasis(*first), end)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        with self._reader_lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One writing transaction by SQLAlchemy, for rare changes. StoreError if it can't be done."""
        try:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            raise self._explained(error) from error
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _commit_all(self, items: list[Prepared]) -> list[CommitOutcome]:
        try:
            return self._commit_together(items)
        except DATA_ERRORS as error:
            if len(items) == 1:
                _log.error("a booking of host %s can't be stored: %s", items[0].booking.host_after.host, error)
                return [CommitOutcome.REJECTED]
        # One transaction each finds the culprit, and the others do not suffer from it.
        return [outcome for item in items for outcome in self._commit_all([item])]

    def _commit_together(self, items: list[Prepared]) -> list[CommitOutcome]:
        """One transaction. Raises one of DATA_ERRORS, with nothing changed, if some value can't be stored."""
        connection = self._usable()
        outcomes = [CommitOutcome.COMMITTED] * len(items)
        fresh = items
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                self.run_statements(partial(self._hot.write, connection, items))
            except StaleBookings:
                # The write lock is taken again at once, and under it the answer of the check can't change any more.
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                stale = self._hot.stale(connection, items)
                self._hot.forget(item for item, is_stale in zip(items, stale, strict=True) if is_stale)
                outcomes = [CommitOutcome.STALE if is_stale else CommitOutcome.COMMITTED for is_stale in stale]
                fresh = [item for item, is_stale in zip(items, stale, strict=True) if not is_stale]
                self._hot.write(connection, fresh)
            self._hot.remember(connection, fresh)
        except DATA_ERRORS:
            self._undo(connection)
            self._hot.forget(items)
            raise
        except (sqlite3.Error, StaleBookings) as error:
            self._undo(connection)
            self._hot.forget(items)
            raise explain(error, self.path) from error
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._start_over(error, items)
            return [CommitOutcome.STALE] * len(items)
        return outcomes

    def _undo(self, connection: sqlite3.Connection) -> None:
        """Roll back; a connection that can't even do that is given up."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._give_up()

    def _start_over(self, error: sqlite3.Error, items: Iterable[Prepared]) -> None:
        """After a COMMIT whose answer is an error, whether it was done is not known: all have to be read again.

        If the database can't be written now, that is a StoreError, so that callers wait instead of starting over at once.
        """
        if self._connection is not None:
            self._undo(self._connection)
        self._give_up()
        self._hot.forget(items)
        try:
            connection = self._usable()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE database_info SET id = id")
            connection.execute("COMMIT")
        except sqlite3.Error as still:
            self._give_up()
            raise explain(still, self.path) from error

    def _usable(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = connect(self.path)
            except sqlite3.Error as error:
                raise explain(error, self.path) from error
        return self._connection

    def _give_up(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _read(self, sql: str, values: tuple[str | bytes, ...]) -> list[tuple[bytes, ...]]:
        with self._reading() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for reads; one that failed is given up. StoreError."""
        with self._reader_lock:
            try:
                if self._reader is None:
                    self._reader = connect(self.path)
                yield self._reader
            except sqlite3.Error as error:
                if self._reader is not None:
                    self._reader.close()
                    self._reader = None
                raise explain(error, self.path) from error

    def rows(self, query: Executable, values: Mapping[str, int | str | None] | None = None) -> Iterator[Row[Any]]:
        """The rows of one query, read a part at a time from one state of the database."""
        try:
            with self._engine.connect() as connection:
                for part in (
                    connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query, values).partitions(_ROWS_AT_ONCE)
                ):
                    yield from part
        except DBAPIError as error:
            raise self._explained(error) from error
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _pieces(
        self, sql: str, pieces: Iterable[Piece], values: Mapping[str, int | str | None]
    ) -> Iterator[tuple[Piece, list[tuple[Any, ...]]]]:
        """The rows of one query for each piece, read from one state of the database, by the driver's prepared statement."""
        try:
            with self._engine.connect() as connection, connection.begin():
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                for piece in pieces:
                    own = {**values, "from_seconds": piece.from_seconds, "to_seconds": piece.to_seconds}
                    yield piece, driver.execute(sql, own).fetchall()
        except DBAPIError as error:
            raise self._explained(error) from error
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _driver_rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """The rows of one query as the driver gives them, from one state of the database."""
        try:
            with self._engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                yield from driver.execute(sql)
        except DBAPIError as error:
            raise self._explained(error) from error
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _explained(self, error: DBAPIError) -> StoreError:
        return explain(error.orig or error, self.path)


def run_at_once(statements: Callable[[], None]) -> None:
    """Run them here and now."""
    statements()


def insert_assignments(connection: Connection, rows: Iterable[AssignmentRow]) -> None:
    """Add assignments inside of a transaction, and tell collectors that there are some."""
    values = [
        {
            "host": row.host,
            "valid_from_seconds": row.valid_from_seconds,
            "site": row.site,
            "recorded_at_seconds": row.recorded_at_seconds,
        }
        for row in rows
    ]
    if values:
        connection.execute(schema.assignments.insert(), values)
        raise_revision(connection)


def raise_revision(connection: Connection) -> None:
    """Tell collectors, inside of a transaction, that there are new assignments or closures."""
    info = schema.database_info
    connection.execute(update(info).values(assignments_revision=info.c.assignments_revision + 1))
