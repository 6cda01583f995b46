"""Imports other meters' series into a ledger, and tells which there are; each is one transaction, all of it or nothing.

Reads no file. The same file, with the same said of it, changes nothing. What covers time of a host that is booked already,
by its agent or by another import, is refused, with the first such time. Sources of truth: `imports.py`, and the rows.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text

from wattledger_collector import schema
from wattledger_collector.facility import Point
from wattledger_collector.import_series import Form, Label, Series, utc_text
from wattledger_collector.import_writes import IMPORT_COLUMNS, write_imports
from wattledger_collector.imports import (
    CHANNEL,
    EnergyImport,
    Meter,
    MeterImportError,
    Place,
    Provenance,
    book_import,
    first_overlap,
    interval_rows,
)
from wattledger_collector.records import (
    SITE_UNASSIGNED,
    AssignmentRow,
    CommitOutcome,
    Component,
    EnergyRow,
    HostState,
    Quality,
    StoreError,
)
from wattledger_collector.store import SqliteStore
from wattledger_collector.store_rows import SitesOfHosts

# Each attempt fails only if the host's agent was booked since it began.
_ATTEMPTS_MAX = 20

# From when the first assignment of a host holds.
_ALL_TIME_SECONDS = 0


def import_series(store: SqliteStore, made: EnergyImport, series: Series, *, dry_run: bool = False) -> bool:
    """Keep a series. Returns False if it is kept already, and nothing was changed.

    dry_run: check all and change nothing. Raises MeterImportError where it can't be, and StoreError.
    """
    if any(known.provenance.digest == made.provenance.digest for known in imports(store)):
        return False
    known_sites = {row.site for row in store.sites()}
    if made.meter.site and made.meter.site not in known_sites:
        raise MeterImportError(
            f"there is no site {made.meter.site!r}: the sites are {', '.join(sorted(known_sites)) or 'none yet'}; "
            "a collector makes those of its configuration when it starts"
        )
    if made.place is Place.FACILITY:
        _import_facility(store, made, dry_run=dry_run)
        return True
    for _ in range(_ATTEMPTS_MAX):
        # The host's row is read first: what is booked after that makes the booking stale.
        host = store.load_host(made.meter.host)
        if host is not None and host.state == HostState.RETIRED:
            raise MeterImportError(f"host {made.meter.host} is retired: take it back with `host activate` first")
        rows = interval_rows(series, made.provenance.form, store.interval_seconds)
        if made.place is Place.BOOKED:
            _check_overlap(store, made, rows)
        new_assignments = _assignments(store, made)
        if dry_run:
            return True
        store.add_assignments(new_assignments)
        (outcome,) = store.commit([book_import(made, series, host, store.interval_seconds)])
        if outcome is CommitOutcome.COMMITTED:
            return True
        if outcome is CommitOutcome.REJECTED:
            raise StoreError(f"{made.provenance.file} could not be stored, and nothing of it was; the log above says why")
    raise StoreError(f"host {made.meter.host} is booked without a pause: try again")


def imports(store: SqliteStore) -> list[EnergyImport]:
    """All imports, oldest first, without their rows."""
    return [_read(row) for row in store.rows(text(f"SELECT {IMPORT_COLUMNS} FROM energy_import ORDER BY id"))]


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


def _import_facility(store: SqliteStore, made: EnergyImport, *, dry_run: bool) -> None:
    source = made.provenance
    with store.writing() as connection:
        # Asked under the write lock, so that two imports at once can't both find nothing.
        table = schema.energy_imports.c
        query = select(table.file, table.from_seconds, table.to_seconds).where(
            table.place == Place.FACILITY,
            table.site == made.meter.site,
            table.meter == made.meter.meter,
            table.from_seconds < source.to_seconds,
            table.to_seconds > source.from_seconds,
        )
        other = connection.execute(query.order_by(table.from_seconds)).first()
        if other is not None:
            raise MeterImportError(
                f"{source.file} overlaps {other.file}, which is of the same meter of site {made.meter.site}, from "
                f"{utc_text(max(other.from_seconds, source.from_seconds))} on: cut the file there, or name the "
                "other meter with --meter"
            )
        if not dry_run:
            driver = connection.connection.driver_connection
            assert driver is not None
            write_imports(driver, [made])


def _check_overlap(store: SqliteStore, made: EnergyImport, rows: tuple[EnergyRow, ...]) -> None:
    """Refuse what the host has booked already."""
    source, name, others = made.provenance, made.meter.host, imports(store)
    # An import whose times all lie elsewhere may end within the very interval in which this one begins.
    elsewhere = {
        bytes.fromhex(other.provenance.digest)[:16]
        for other in others
        if other.provenance.to_seconds <= source.from_seconds or other.provenance.from_seconds >= source.to_seconds
    }
    files = {bytes.fromhex(each.provenance.digest)[:16]: each.provenance.file for each in others}
    end = rows[-1].interval_start_seconds + store.interval_seconds
    booked = [
        (row.interval_start_seconds, f"import {files[row.epoch]}" if row.epoch in files else "its agent")
        for row in store.host_energy(rows[0].interval_start_seconds, end, name)
        if row.channel.is_booked and row.epoch not in elsewhere
    ]
    overlap = first_overlap(booked, rows)
    if overlap is not None:
        raise MeterImportError(
            f"{source.file} covers time of host {name} that is booked already, by {overlap[1]}, first at "
            f"{utc_text(overlap[0])}: cut the file there, or say --beside to keep it apart, in no sum"
        )


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
        label, time_zone, value_column, from_seconds, to_seconds, energy, missing,
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
    )
