"""Imports other meters' series into a ledger, takes them back, and tells which there are; each in one transaction.

Reads no file. The same file, with the same said of it, changes nothing. What covers time of a host that is booked already,
by its agent or by another import, is refused, with the first such time; and what an import has booked stands in the host's
row, in the way of all that its agents send later. Sources of truth: `imports.py`, and the rows.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection, select, text

from wattledger_collector import schema
from wattledger_collector.facility import Point
from wattledger_collector.hot_writes import DATA_ERRORS, HotWrites
from wattledger_collector.import_checks import check_alike, check_host, check_imports, check_site
from wattledger_collector.import_series import Form, Label, Series
from wattledger_collector.import_writes import IMPORT_COLUMNS, booked_times, take_back, write_imports, write_removal
from wattledger_collector.imported_time import imported_spans
from wattledger_collector.imports import (
    CHANNEL,
    EnergyImport,
    Meter,
    MeterImportError,
    Place,
    Provenance,
    Removal,
    book_import,
    named_anew,
    on_host,
    series_spans,
)
from wattledger_collector.records import (
    SITE_UNASSIGNED,
    AssignmentRow,
    Booking,
    Component,
    EnergyRow,
    Host,
    Quality,
    StoreError,
)
from wattledger_collector.store import SqliteStore, insert_assignments
from wattledger_collector.store_rows import SitesOfHosts

# Each attempt fails only if the host was booked since it began, and the checks of a long series take a second or two.
_ATTEMPTS_MAX = 100

# From when the first assignment of a host holds.
_ALL_TIME_SECONDS = 0

# Fewer digits of a digest might name two imports.
DIGEST_DIGITS_MIN = 8


@dataclass(frozen=True, slots=True)
class _Old:
    """An import that is to be taken back, and what it booked."""

    made: EnergyImport
    removal: Removal
    booked: list[EnergyRow]


class _DryRunDone(Exception):  # noqa: N818 - it is no error: it undoes a transaction in which all went well.
    """All was written, and nothing of it is to be kept."""


def import_series(
    store: SqliteStore,
    made: EnergyImport,
    series: Series,
    *,
    dry_run: bool = False,
    replaces: tuple[EnergyImport, str] | None = None,
    is_another_feed: bool = False,
) -> bool:
    """Keep a series. Returns False if it is kept already, and nothing was changed.

    dry_run: do all and keep nothing. replaces: an import that is taken back in the same transaction, and why.
    is_another_feed: of a meter of a whole site, that its energy adds to what the site's other meters measure at that time.
    Raises MeterImportError where it can't be, and StoreError.
    """
    named = named_anew(made, imports(store))
    if named is None:
        return False
    check_site(store, named)
    source = named.provenance
    old = None
    if replaces is not None:
        wrong, reason = replaces
        check_alike(wrong, named)
        old = _Old(wrong, Removal(source.imported_at_seconds, reason, source.digest), _booked(store, wrong))
    # Reckoned before the lock, which bookings wait for.
    booking = None if named.place is Place.FACILITY else book_import(named, series, store.interval_seconds)
    for _ in range(_ATTEMPTS_MAX):
        # Read before the checks: what is booked after it makes them void.
        host = store.load_host(named.meter.host)
        if named.place is not Place.FACILITY:
            check_host(store, imports(store), named, series, host)
        try:
            with store.writing() as connection:
                if store.load_host(named.meter.host) != host:
                    continue
                check_imports(
                    _driver(connection),
                    imports(store),
                    named,
                    series,
                    replaced="" if old is None else old.made.provenance.digest,
                    is_another_feed=is_another_feed,
                )
                _write(store, connection, named, series, booking, old)
                if dry_run:
                    raise _DryRunDone
        except _DryRunDone:
            return True
        except MeterImportError:
            raise
        except DATA_ERRORS as error:
            raise StoreError(
                f"{source.file} could not be stored, and nothing of it was ({error!r}): check its values"
            ) from error
        return True
    raise StoreError(f"host {named.meter.host} is booked without a pause: try again")


def remove_import(store: SqliteStore, made: EnergyImport, reason: str, *, now_seconds: int, dry_run: bool = False) -> None:
    """Take an import back: what it booked is undone exactly, and it stays in the list, with why. Raises StoreError."""
    old = _Old(made, Removal(now_seconds, reason), _booked(store, made))
    try:
        with store.writing() as connection:
            _remove(connection, old)
            if dry_run:
                raise _DryRunDone
    except _DryRunDone:
        return


def find_import(store: SqliteStore, digest: str) -> EnergyImport:
    """The import that counts and whose digest begins so. Raises MeterImportError."""
    found = [each for each in imports(store) if each.provenance.digest.startswith(digest)]
    counting = [each for each in found if each.removal is None]
    if len(digest) < DIGEST_DIGITS_MIN or len(counting) > 1:
        raise MeterImportError(
            f"digest {digest!r} may name several imports: give at least {DIGEST_DIGITS_MIN} digits of it, and as many as "
            "tell it apart in `import list`"
        )
    if not counting:
        what = "was taken back already" if found else "is of no import"
        raise MeterImportError(f"digest {digest!r} {what}: see `import list`")
    return counting[0]


def imports(store: SqliteStore) -> list[EnergyImport]:
    """All imports, oldest first, those taken back among them, without their rows."""
    query = (
        f"SELECT {', '.join(f'i.{name.strip()}' for name in IMPORT_COLUMNS.split(','))}, r.removed_at_seconds, r.reason, "
        "r.replacement FROM energy_import AS i LEFT JOIN import_removal AS r ON r.import_id = i.id ORDER BY i.id"
    )
    return [_read(row) for row in store.rows(text(query))]


def meter_rows(store: SqliteStore, digest: str, from_seconds: int, to_seconds: int) -> Iterator[EnergyRow]:
    """Rows of a series that is kept beside the ledger, for intervals that start in [from, to), in order."""
    table, of = schema.meter_energy.c, schema.energy_imports.c
    query = (
        select(table.interval_start_seconds, table.quality, table.energy_microjoules, table.covered_nanoseconds)
        .join(schema.energy_imports, of.id == table.import_id)
        .where(of.digest == digest, table.interval_start_seconds >= from_seconds, table.interval_start_seconds < to_seconds)
        .order_by(table.interval_start_seconds, table.quality)
    )
    for start, quality, energy, covered in store.rows(query):
        yield EnergyRow(CHANNEL, start, Quality(quality), energy, covered)


def _write(
    store: SqliteStore,
    connection: Connection,
    made: EnergyImport,
    series: Series,
    booking: Booking | None,
    old: _Old | None,
) -> None:
    """All of an import, and that another one was taken back."""
    driver = _driver(connection)
    if old is not None:
        _remove(connection, old)
    if booking is None:
        write_imports(driver, [made])
        return
    insert_assignments(connection, _assignments(store, made))
    times = [(kept, spans) for kept, _, spans in booked_times(driver, made.meter.host)]
    if made.place is Place.BOOKED:
        times.append((made.meter.kept_component, series_spans(series)))
    row = driver.execute("SELECT packed FROM host WHERE host = ?", (made.meter.host,)).fetchone()
    host = None if row is None else msgspec.msgpack.decode(row[0], type=Host)
    # Its own: what it keeps of rows does not hold once a transaction is rolled back.
    hot = HotWrites()
    hot.write(driver, [hot.prepare(on_host(booking, host, imported_spans(times)))])


def _remove(connection: Connection, old: _Old) -> None:
    driver = _driver(connection)
    write_removal(driver, old.made, old.removal)
    if old.made.place is Place.BOOKED:
        take_back(driver, old.made, old.booked)


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _booked(store: SqliteStore, made: EnergyImport) -> list[EnergyRow]:
    """What an import booked, over all editions; nothing but its removal ever adds to it."""
    if made.place is not Place.BOOKED:
        return []
    source, length = made.provenance, store.interval_seconds
    sums: dict[tuple[int, Quality], tuple[int, int]] = {}
    for row in store.host_energy(source.from_seconds // length * length, source.to_seconds, made.meter.host):
        if row.epoch == made.epoch:
            key = (row.interval_start_seconds, row.quality)
            energy, covered = sums.get(key, (0, 0))
            sums[key] = (energy + row.energy_microjoules, covered + row.covered_nanoseconds)
    return [EnergyRow(CHANNEL, start, quality, *amounts) for (start, quality), amounts in sorted(sums.items())]


def _assignments(store: SqliteStore, made: EnergyImport) -> list[AssignmentRow]:
    """The site of a host that has none yet, as the meter has it. Raises MeterImportError if it stands elsewhere."""
    name, site, source = made.meter.host, made.meter.site, made.provenance
    if not site:
        return []
    rows = [row for row in store.assignments() if row.host == name]
    if not rows or all(row.site == SITE_UNASSIGNED for row in rows):
        return [AssignmentRow(name, _ALL_TIME_SECONDS, site, source.imported_at_seconds)]
    held = SitesOfHosts(rows).at(name, source.from_seconds)
    if held != site:
        raise MeterImportError(f"host {name} stands in site {held} and not in {site}: leave out --site, or correct it")
    return []


def _read(values: Sequence[Any]) -> EnergyImport:
    (
        digest, place, host, site, component, meter, point, ratio, evidence, file, sha256, rows, imported_at, version, form,
        label, time_zone, value_column, from_seconds, to_seconds, energy, missing, removed_at, reason, replacement,
    ) = values  # fmt: skip
    return EnergyImport(
        meter=Meter(
            host=host,
            site=site,
            component=Component(component),
            meter=meter,
            point=Point(point),
            uncertainty_ratio=None if ratio is None else Decimal(ratio),
            evidence=evidence,
        ),
        place=Place(place),
        provenance=Provenance(
            digest=digest,
            file=file,
            sha256=sha256,
            rows=rows,
            imported_at_seconds=imported_at,
            version=version,
            form=Form(form),
            label=Label(label),
            time_zone=time_zone,
            value_column=value_column,
            from_seconds=from_seconds,
            to_seconds=to_seconds,
            energy_microjoules=int(energy),
            missing_seconds=missing,
        ),
        removal=None if removed_at is None else Removal(removed_at, reason, replacement),
    )
