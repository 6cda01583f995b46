"""The commit of many bookings in one transaction, by prepared driver statements that carry many rows each.

Decides nothing about energy: a booking says what is to change. Each SQLite call gives the interpreter's lock away and must
win it back from the threads that serve agents, so calls are what is saved here: a few dozen a commit of hundreds of hosts.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from wattledger_collector.closures import EDITION_OPEN, Closure, Editions
from wattledger_collector.hot_statements import (
    ADD_ENERGY,
    ADD_ROLLUPS,
    ADD_UTILIZATION,
    INSERT_CURSORS,
    INSERT_EVIDENCE,
    INSERT_GAPS,
    INSERT_HOSTS,
    UPDATE_CURSORS,
    UPDATE_HOSTS,
    UPSERT_CHANNELS,
    Values,
)
from wattledger_collector.import_writes import write_imports
from wattledger_collector.records import (
    SITE_UNASSIGNED,
    AssignmentRow,
    Booking,
    ChannelInfo,
    Cursor,
    Host,
)
from wattledger_collector.store_rows import SitesOfHosts
from wattledger_collector.workload_writes import write_workloads

# A host that sends what cannot be read leaves its bytes this many times for each epoch; after that only the fact.
EVIDENCE_PAYLOADS_MAX: Final = 64

# About 4 kB each with twelve channels: 160 MB. Twice the largest fleet of one collector.
_KNOWN_EPOCHS_MAX: Final = 40_000

_CHANNEL_BITS: Final = 32

# What SQLite or its driver raise for a value that cannot be stored, as opposed to a database that cannot be used.
DATA_ERRORS: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
    KeyError,
)

_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Prepared:
    """A booking with its rows packed and the keys of its host and epoch, known or given in this transaction."""

    booking: Booking
    host_before: bytes | None
    host_after: bytes
    cursor_before: bytes | None
    cursor_after: bytes
    host_id: int = 0
    cursor_id: int = 0


@dataclass(slots=True)
class _Epoch:
    """What is known of an epoch: its keys, components by channel number, and its rows as they were packed last."""

    host_id: int
    cursor_id: int
    components: dict[int, int]
    host: Host
    host_packed: bytes
    cursor: Cursor
    cursor_packed: bytes


class StaleBookings(Exception):  # noqa: N818 - it is an answer, not an error.
    """Some bookings' rows have changed meanwhile; nothing of the transaction may be committed."""


def channel_id(cursor_id: int, channel: int) -> int:
    """The key of a channel. ValueError if its number is outside [1, 2^32 - 1]."""
    if not 0 < channel < 1 << _CHANNEL_BITS:
        raise ValueError(f"channel {channel} is outside [1, 2^32 - 1]")
    return cursor_id << _CHANNEL_BITS | channel


class HotWrites:
    """Writes bookings inside of transactions that its caller begins and ends; keeps keys that can't change.

    Not thread-safe: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, bytes], _Epoch] = {}
        self._sites = SitesOfHosts([])
        self._editions = Editions()
        # Of assignments and closures.
        self._revision = -1

    def prepare(self, booking: Booking) -> Prepared:
        """Pack a booking's rows. Raises one of DATA_ERRORS if a value does not fit."""
        host_before = cursor_before = None
        known = self._epochs.get((booking.host_after.host, booking.cursor_after.epoch))
        if booking.host_before is not None:
            is_known = known is not None and known.host is booking.host_before
            host_before = known.host_packed if known and is_known else _encode(booking.host_before)
        if booking.cursor_before is not None:
            is_known = known is not None and known.cursor is booking.cursor_before
            cursor_before = known.cursor_packed if known and is_known else _encode(booking.cursor_before)
        return Prepared(booking, host_before, _encode(booking.host_after), cursor_before, _encode(booking.cursor_after))

    def forget(self, items: Iterable[Prepared]) -> None:
        """Drop what is known of these bookings' hosts, after they were stale."""
        for item in items:
            self._epochs.pop((item.booking.host_after.host, item.booking.cursor_after.epoch), None)

    def write(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> None:
        """Compare and set all hosts and cursors, then write all rows. Raises StaleBookings or one of DATA_ERRORS."""
        self._read_dated_rows(connection)
        self._find_keys(connection, items)
        self._compare_and_set(connection, items)
        added = self._write_channels(connection, items)
        self._write_energy(connection, items, added)
        self._write_details(connection, items)
        write_workloads(connection, items)
        write_imports(connection, (item.booking.imported for item in items if item.booking.imported is not None))

    def remember(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> None:
        """Keep the keys of committed bookings."""
        if len(self._epochs) > _KNOWN_EPOCHS_MAX:
            self._epochs.clear()
        for item in items:
            booking = item.booking
            known = self._epochs.get(_key(item))
            if known is None:
                components = _read_components(connection, item.cursor_id)
                known = _Epoch(
                    item.host_id,
                    item.cursor_id,
                    components,
                    booking.host_after,
                    item.host_after,
                    booking.cursor_after,
                    item.cursor_after,
                )
                self._epochs[_key(item)] = known
            elif booking.channels:
                known.components = known.components | {info.channel: int(info.component) for info in booking.channels}
            known.host, known.host_packed = booking.host_after, item.host_after
            known.cursor, known.cursor_packed = booking.cursor_after, item.cursor_after

    def stale(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> list[bool]:
        """Which bookings were computed from rows that are no longer the stored ones. For the rare case that some are."""
        return [self._is_stale(connection, item.booking, item) for item in items]

    def _is_stale(self, connection: sqlite3.Connection, booking: Booking, item: Prepared) -> bool:
        name = booking.host_after.host
        host = connection.execute("SELECT id, packed FROM host WHERE host = ?", (name,)).fetchone()
        if (host[1] if host else None) != item.host_before:
            return True
        if host is None:
            return item.cursor_before is not None
        cursor = connection.execute(
            "SELECT packed FROM epoch_cursor WHERE host_id = ? AND epoch = ?", (host[0], booking.cursor_after.epoch)
        ).fetchone()
        return bool((cursor[0] if cursor else None) != item.cursor_before)

    def _find_keys(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> None:
        next_host = next_cursor = 0
        for item in items:
            known = self._epochs.get(_key(item))
            if known is not None and item.cursor_before is not None:
                item.host_id, item.cursor_id = known.host_id, known.cursor_id
                continue
            host_id, cursor_id = _read_keys(connection, item.booking)
            if host_id is None:
                next_host = next_host or _next_id(connection, "host")
                host_id, next_host = next_host, next_host + 1
            if cursor_id is None:
                next_cursor = next_cursor or _next_id(connection, "epoch_cursor")
                cursor_id, next_cursor = next_cursor, next_cursor + 1
            item.host_id, item.cursor_id = host_id, cursor_id

    def _compare_and_set(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> None:
        new_hosts: list[Values] = []
        old_hosts: list[Values] = []
        new_cursors: list[Values] = []
        old_cursors: list[Values] = []
        for item in items:
            if item.host_before is None:
                new_hosts.append((item.host_id, item.booking.host_after.host, item.host_after))
            else:
                old_hosts.append((item.host_id, item.host_before, item.host_after))
            if item.cursor_before is None:
                after = item.booking.cursor_after
                new_cursors.append((item.cursor_id, item.host_id, after.epoch, after.recorded, item.cursor_after))
            else:
                old_cursors.append((item.cursor_id, item.cursor_before, item.cursor_after))
        for statement, rows in (
            (INSERT_HOSTS, new_hosts),
            (UPDATE_HOSTS, old_hosts),
            (INSERT_CURSORS, new_cursors),
            (UPDATE_CURSORS, old_cursors),
        ):
            if statement.run(connection, rows) != len(rows):
                raise StaleBookings

    def _write_channels(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> dict[int, dict[int, int]]:
        """Components of the channels that this transaction adds, by cursor key."""
        rows: list[Values] = []
        added: dict[int, dict[int, int]] = {}
        for item in items:
            if item.booking.channels:
                rows.extend(_channel_row(item.cursor_id, info) for info in item.booking.channels)
                added[item.cursor_id] = {info.channel: int(info.component) for info in item.booking.channels}
        UPSERT_CHANNELS.run(connection, rows)
        return added

    def _write_energy(
        self, connection: sqlite3.Connection, items: Sequence[Prepared], added: dict[int, dict[int, int]]
    ) -> None:
        rows: list[Values] = []
        sums: dict[tuple[int, str, int, int, bool, int], list[int]] = {}
        editions = self._editions
        for item in items:
            if not item.booking.energy:
                continue
            host, recorded = item.booking.host_after.host, item.booking.cursor_after.recorded
            base = item.cursor_id << _CHANNEL_BITS
            components = self._components(connection, item, added.get(item.cursor_id))
            start, site, edition = -1, SITE_UNASSIGNED, EDITION_OPEN
            for row in item.booking.energy:
                if row.interval_start_seconds != start:
                    start = row.interval_start_seconds
                    site = self._sites.at(host, start)
                    if editions:
                        edition = editions.open_at(start)
                component, quality = components[row.channel], int(row.quality)
                rows.append((start, base | row.channel, quality, edition, row.energy_microjoules, row.covered_nanoseconds))
                key = (start, site, component, quality, recorded, edition)
                total = sums.get(key)
                if total is None:
                    sums[key] = [row.energy_microjoules, row.covered_nanoseconds]
                else:
                    total[0] += row.energy_microjoules
                    total[1] += row.covered_nanoseconds
        ADD_ENERGY.run(connection, rows)
        ADD_ROLLUPS.run(connection, [(*key, *total) for key, total in sums.items()])

    def _write_details(self, connection: sqlite3.Connection, items: Sequence[Prepared]) -> None:
        gaps: list[Values] = []
        busy: list[Values] = []
        evidence: list[Values] = []
        for item in items:
            booking = item.booking
            for gap in booking.gaps:
                span = (gap.from_utc_nanoseconds, gap.to_utc_nanoseconds)
                bounds = (gap.lower_microjoules, gap.upper_microjoules)
                gaps.append((item.cursor_id, gap.channel, *span, str(gap.reason), *bounds))
            for used in booking.utilization:
                start = used.interval_start_seconds
                busy.append((start, item.host_id, used.device, used.kind, used.busy_nanoseconds))
            if booking.evidence:
                evidence.extend(_evidence_rows(connection, item))
        INSERT_GAPS.run(connection, gaps)
        ADD_UTILIZATION.run(connection, busy)
        INSERT_EVIDENCE.run(connection, evidence)

    def _components(self, connection: sqlite3.Connection, item: Prepared, added: dict[int, int] | None) -> dict[int, int]:
        known = self._epochs.get(_key(item))
        components = known.components if known else _read_components(connection, item.cursor_id)
        return components if added is None else components | added

    def _read_dated_rows(self, connection: sqlite3.Connection) -> None:
        """Assignments and closures, if there are newer ones. A closing is a transaction of its own, before or after this."""
        (revision,) = connection.execute("SELECT assignments_revision FROM database_info").fetchone()
        if revision == self._revision:
            return
        rows = connection.execute(
            "SELECT host, valid_from_seconds, site, recorded_at_seconds FROM assignment ORDER BY 1, 2, 4, id"
        )
        self._sites = SitesOfHosts(AssignmentRow(*row) for row in rows.fetchall())
        closures = connection.execute("SELECT id, from_seconds, to_seconds, site, edition, closed_at_seconds FROM closure")
        self._editions = Editions(Closure(*row) for row in closures.fetchall())
        self._revision = revision


def _key(item: Prepared) -> tuple[str, bytes]:
    return item.booking.host_after.host, item.booking.cursor_after.epoch


def _read_keys(connection: sqlite3.Connection, booking: Booking) -> tuple[int | None, int | None]:
    host = connection.execute("SELECT id FROM host WHERE host = ?", (booking.host_after.host,)).fetchone()
    if host is None:
        return None, None
    cursor = connection.execute(
        "SELECT id FROM epoch_cursor WHERE host_id = ? AND epoch = ?", (host[0], booking.cursor_after.epoch)
    ).fetchone()
    return host[0], None if cursor is None else cursor[0]


def _next_id(connection: sqlite3.Connection, table: str) -> int:
    (last,) = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
    return int(last) + 1


def _read_components(connection: sqlite3.Connection, cursor_id: int) -> dict[int, int]:
    rows = connection.execute(
        "SELECT channel, component FROM channel WHERE id BETWEEN ? AND ?",
        (cursor_id << _CHANNEL_BITS, (cursor_id + 1 << _CHANNEL_BITS) - 1),
    )
    return dict(rows.fetchall())


def _channel_row(cursor_id: int, info: ChannelInfo) -> Values:
    return (
        channel_id(cursor_id, info.channel),
        cursor_id,
        info.channel,
        info.device,
        int(info.component),
        info.domain,
        info.source,
        int(info.method),
        int(info.role),
        info.parent_channel,
        info.opening_boot_id,
        info.opening_boottime_nanoseconds,
        info.opening_realtime_nanoseconds,
        info.opening_synchronised,
        info.closed,
        info.power_bound_milliwatts,
        info.uncertainty_lower_ratio,
        info.uncertainty_upper_ratio,
        info.model,
    )


def _evidence_rows(connection: sqlite3.Connection, item: Prepared) -> list[Values]:
    (kept,) = connection.execute(
        "SELECT count(*) FROM evidence WHERE cursor_id = ? AND length(payload) > 0", (item.cursor_id,)
    ).fetchone()
    rows: list[Values] = []
    for row in item.booking.evidence:
        payload = row.payload if kept < EVIDENCE_PAYLOADS_MAX else b""
        kept += 1 if payload else 0
        span = (row.first_sequence, row.last_sequence, row.channel)
        rows.append((item.cursor_id, *span, row.reason, row.microjoules, payload))
    return rows
