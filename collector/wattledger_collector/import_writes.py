"""Writes where imported energy comes from, series that are kept beside the ledger, and that imports were taken back.

Inside of a transaction; begins and ends none. Source of truth: the tables `energy_import`, `meter_energy` and
`import_removal` in `schema.py`.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from wattledger_collector.closures import Closure, Editions
from wattledger_collector.hot_statements import ADD_ENERGY, ADD_ROLLUPS, Statement
from wattledger_collector.imported_time import imported_spans, without_holes
from wattledger_collector.records import (
    IMPORTED_COMPONENT_ALL,
    NANOSECONDS_PER_SECOND,
    AssignmentRow,
    Cursor,
    EnergyRow,
    GapReason,
    Host,
    StoreError,
)
from wattledger_collector.store_rows import SitesOfHosts

if TYPE_CHECKING:
    from wattledger_collector.imports import EnergyImport, Removal

IMPORT_COLUMNS: Final = (
    "digest, place, host, site, component, meter, point, uncertainty_ratio, evidence, file, sha256, rows, "
    "imported_at_seconds, version, form, label, time_zone, value_column, from_seconds, to_seconds, energy_microjoules, "
    "missing_seconds"
)
# With the assignments that were known: by them its energy went to sites, and by them it is taken back.
_INSERT_IMPORT: Final = (
    f"INSERT INTO energy_import ({IMPORT_COLUMNS}, assignments_last_id) "
    f"VALUES ({', '.join('?' * len(IMPORT_COLUMNS.split(',')))}, (SELECT coalesce(max(id), 0) FROM assignment)) RETURNING id"
)
_INSERT_ROWS: Final = Statement(
    "INSERT INTO meter_energy (import_id, interval_start_seconds, quality, energy_microjoules, covered_nanoseconds) VALUES ",
    5,
    "",
)
_DELETE_EMPTY: Final = (
    "DELETE FROM {} WHERE interval_start_seconds = ? AND {} AND energy_microjoules = 0 AND covered_nanoseconds = 0"
)
_DELETE_EMPTY_ENERGY: Final = _DELETE_EMPTY.format("energy", "channel_id = ? AND quality = ? AND edition = ?")
_DELETE_EMPTY_ROLLUPS: Final = _DELETE_EMPTY.format(
    "rollup", "site = ? AND component = ? AND quality = ? AND recorded = ? AND edition = ?"
)


def write_imports(connection: sqlite3.Connection, imports: "Iterable[EnergyImport]") -> None:
    """Add each. Raises sqlite3.IntegrityError if one is there already."""
    for made in imports:
        meter, source = made.meter, made.provenance
        ratio = None if meter.uncertainty_ratio is None else f"{meter.uncertainty_ratio:f}"
        values = (
            source.digest, made.place, meter.host, meter.site, int(meter.component), meter.meter, meter.point, ratio,
            meter.evidence, source.file, source.sha256, source.rows, source.imported_at_seconds, source.version,
            source.form, source.label, source.time_zone, source.value_column, source.from_seconds, source.to_seconds,
            str(source.energy_microjoules), source.missing_seconds,
        )  # fmt: skip
        (key,) = connection.execute(_INSERT_IMPORT, values).fetchone()
        _INSERT_ROWS.run(
            connection,
            [
                (key, row.interval_start_seconds, int(row.quality), row.energy_microjoules, row.covered_nanoseconds)
                for row in made.rows
            ],
        )


def booked_times(connection: sqlite3.Connection, host: str) -> list[tuple[int, str, list[tuple[int, int]]]]:
    """What imports have booked of a host: component, digest and spans of each, those taken back left out.

    A series lies between its first and its last instant, but for its holes, which are the gaps of its epoch.
    """
    found = connection.execute(
        "SELECT i.digest, i.component, i.point, i.from_seconds, i.to_seconds FROM energy_import AS i WHERE i.host = ? AND "
        "i.place = 'booked' AND NOT EXISTS (SELECT 1 FROM import_removal AS r WHERE r.import_id = i.id) ORDER BY i.id",
        (host,),
    ).fetchall()
    times = []
    for digest, component, point, from_seconds, to_seconds in found:
        holes = connection.execute(
            "SELECT g.from_utc_nanoseconds, g.to_utc_nanoseconds FROM gap AS g JOIN epoch_cursor AS c ON c.id = g.cursor_id "
            "JOIN host AS h ON h.id = c.host_id WHERE h.host = ? AND c.epoch = ? AND g.reason = ?",
            (host, bytes.fromhex(digest)[:16], str(GapReason.MISSING_IN_RECORDING)),
        ).fetchall()
        seconds = [(start // NANOSECONDS_PER_SECOND, end // NANOSECONDS_PER_SECOND) for start, end in holes]
        kept = component if point == "component" else IMPORTED_COMPONENT_ALL
        times.append((kept, digest, without_holes(from_seconds, to_seconds, seconds)))
    return times


def write_removal(connection: sqlite3.Connection, made: "EnergyImport", removal: "Removal") -> None:
    """Say that an import counts nowhere any more. Raises StoreError if that was said before."""
    inserted = connection.execute(
        "INSERT INTO import_removal (import_id, removed_at_seconds, reason, replacement) "
        "SELECT id, ?, ?, ? FROM energy_import AS i WHERE digest = ? "
        "AND NOT EXISTS (SELECT 1 FROM import_removal AS r WHERE r.import_id = i.id)",
        (removal.removed_at_seconds, removal.reason, removal.replacement, made.provenance.digest),
    )
    if inserted.rowcount != 1:
        raise StoreError(f"import {made.provenance.digest[:12]} was taken back meanwhile: see `import list`")


def take_back(connection: sqlite3.Connection, made: "EnergyImport", booked: Sequence[EnergyRow]) -> None:
    """Book the exact opposite of what an import booked, drop its gaps, and let go of its time.

    booked: its energy, over all editions. Where a period is closed the opposite opens the next edition, and what was stated
    stays; elsewhere nothing is left. Each row goes to the site to which the import's went. To be called after
    write_removal.
    """
    name = made.meter.host
    host_id, host_packed = connection.execute("SELECT id, packed FROM host WHERE host = ?", (name,)).fetchone()
    cursor_id, cursor_packed = connection.execute(
        "SELECT id, packed FROM epoch_cursor WHERE host_id = ? AND epoch = ?", (host_id, made.epoch)
    ).fetchone()
    closures = connection.execute("SELECT id, from_seconds, to_seconds, site, edition, closed_at_seconds FROM closure")
    editions = Editions(Closure(*row) for row in closures.fetchall())
    sites = _sites_then(connection, made)
    channel, component = cursor_id << 32 | 1, int(made.meter.component)
    rows, rollups = [], []
    for row in booked:
        start, quality = row.interval_start_seconds, int(row.quality)
        edition = editions.open_at(start)
        opposite = (-row.energy_microjoules, -row.covered_nanoseconds)
        rows.append((start, channel, quality, edition, *opposite))
        rollups.append((start, sites.at(name, start), component, quality, True, edition, *opposite))
    ADD_ENERGY.run(connection, rows)
    ADD_ROLLUPS.run(connection, rollups)
    connection.executemany(_DELETE_EMPTY_ENERGY, [row[:4] for row in rows])
    connection.executemany(_DELETE_EMPTY_ROLLUPS, [row[:6] for row in rollups])
    connection.execute("DELETE FROM gap WHERE cursor_id = ?", (cursor_id,))
    cursor = msgspec.msgpack.decode(cursor_packed, type=Cursor)
    points = {
        number: msgspec.structs.replace(point, booked_microjoules=0, booked_high_microjoules=0)
        for number, point in cursor.points.items()
    }
    cursor = msgspec.structs.replace(cursor, committed_sequence=cursor.committed_sequence + 1, points=points)
    connection.execute("UPDATE epoch_cursor SET packed = ? WHERE id = ?", (msgspec.msgpack.encode(cursor), cursor_id))
    host = msgspec.msgpack.decode(host_packed, type=Host)
    imported = imported_spans((kept, times) for kept, _, times in booked_times(connection, name))
    host = msgspec.structs.replace(host, version=host.version + 1, imported=imported)
    connection.execute("UPDATE host SET packed = ? WHERE id = ?", (msgspec.msgpack.encode(host), host_id))


def _sites_then(connection: sqlite3.Connection, made: "EnergyImport") -> SitesOfHosts:
    """Where the host stood as far as it was known when the import was booked."""
    (last,) = connection.execute(
        "SELECT assignments_last_id FROM energy_import WHERE digest = ?", (made.provenance.digest,)
    ).fetchone()
    rows = connection.execute(
        "SELECT host, valid_from_seconds, site, recorded_at_seconds FROM assignment "
        "WHERE host = ? AND (id <= ? OR (? IS NULL AND recorded_at_seconds <= ?)) ORDER BY 1, 2, 4, id",
        (made.meter.host, last, last, made.provenance.imported_at_seconds),
    )
    return SitesOfHosts(AssignmentRow(*row) for row in rows.fetchall())
