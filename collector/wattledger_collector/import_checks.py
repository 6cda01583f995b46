"""What forbids an import: a site that nobody declared, a host that is gone, and time that somebody has booked already.

Writes nothing; each refusal is one sentence with the first such time and what to do. Sources of truth: `imports.py`, and the
rows.
"""

import sqlite3
from collections.abc import Iterable

from wattledger_collector.import_series import Series, utc_text
from wattledger_collector.import_writes import booked_times
from wattledger_collector.imports import (
    EnergyImport,
    MeterImportError,
    Place,
    interval_rows,
    overlap_with_agent,
    overlap_with_import,
    series_spans,
)
from wattledger_collector.records import Host, HostState
from wattledger_collector.store import SqliteStore


def check_site(store: SqliteStore, made: EnergyImport) -> None:
    """Refuse a site that nobody declared."""
    known = {row.site for row in store.sites()}
    if made.meter.site and made.meter.site not in known:
        raise MeterImportError(
            f"there is no site {made.meter.site!r}: the sites are {', '.join(sorted(known)) or 'none yet'}; "
            "a collector makes those of its configuration when it starts"
        )


def check_alike(wrong: EnergyImport, made: EnergyImport) -> None:
    """Refuse to replace an import by one of something else."""
    theirs, ours = (each.meter.host or each.meter.site for each in (wrong, made))
    if (theirs, wrong.place) != (ours, made.place):
        raise MeterImportError(
            f"{wrong.provenance.file} is {wrong.place} of {theirs}, and {made.provenance.file} would be {made.place} of "
            f"{ours}: use `import remove`, and then `import energy`"
        )


def check_host(
    store: SqliteStore, known: Iterable[EnergyImport], made: EnergyImport, series: Series, host: Host | None
) -> None:
    """Refuse hosts that are gone, and time that an agent or a recording has booked."""
    if host is None:
        return
    source, name = made.provenance, made.meter.host
    if host.state == HostState.RETIRED:
        raise MeterImportError(f"host {name} is retired: take it back with `host activate` first")
    if made.place is Place.BESIDE:
        return
    length = store.interval_seconds
    rows = interval_rows(series, source.form, length)
    epochs = {each.epoch for each in known}
    booked = store.host_energy(rows[0].interval_start_seconds, rows[-1].interval_start_seconds + length, name)
    first = overlap_with_agent(made.meter, rows, (row for row in booked if row.epoch not in epochs))
    if first is not None:
        raise MeterImportError(
            f"{source.file} covers time of host {name} that is booked already, by its agent, first at {utc_text(first)}: "
            "cut the file there, or say --beside to keep it apart, in no sum"
        )


def check_imports(
    connection: sqlite3.Connection,
    known: Iterable[EnergyImport],
    made: EnergyImport,
    series: Series,
    *,
    replaced: str,
    is_another_feed: bool,
) -> None:
    """Refuse time that other imports have; under the lock, so that two imports at once can't both find nothing.

    known: all imports. replaced: the digest of one that is to be taken back; empty: none.
    """
    others = {each.provenance.digest: each for each in known if each.removal is None and each.provenance.digest != replaced}
    if made.place is Place.FACILITY:
        _check_feeds(others.values(), made, is_another_feed=is_another_feed)
    elif is_another_feed:
        raise MeterImportError("--another-feed is of meters of a whole site: leave it out for a host")
    if made.place is not Place.BOOKED:
        return
    times = [
        (others[digest].provenance.file, kept, spans)
        for kept, digest, spans in booked_times(connection, made.meter.host)
        if digest != replaced
    ]
    overlap = overlap_with_import(made.meter, series_spans(series), times)
    if overlap is not None:
        raise MeterImportError(
            f"{made.provenance.file} covers time of host {made.meter.host} that is booked already, by import {overlap[1]}, "
            f"first at {utc_text(overlap[0])}: cut the file there, say --beside to keep it apart, in no sum, or --replaces "
            "if the other one was wrong"
        )


def _check_feeds(others: Iterable[EnergyImport], made: EnergyImport, *, is_another_feed: bool) -> None:
    """Refuse time for which the site's meter, or another one of the site, was imported."""
    source = made.provenance
    for other in others:
        theirs = other.provenance
        if (
            other.place is not Place.FACILITY
            or other.meter.site != made.meter.site
            or theirs.from_seconds >= source.to_seconds
            or theirs.to_seconds <= source.from_seconds
        ):
            continue
        first = utc_text(max(theirs.from_seconds, source.from_seconds))
        if other.meter.meter == made.meter.meter:
            raise MeterImportError(
                f"{source.file} overlaps {theirs.file}, which is of the same meter of site {made.meter.site}, from {first} "
                "on: cut the file there, or name the other meter with --meter"
            )
        if not is_another_feed:
            raise MeterImportError(
                f"{source.file} overlaps {theirs.file}, of another meter of site {made.meter.site}, from {first} on: say "
                "--another-feed if the site has both feeds and uses their sum; one that lies behind the other counts twice"
            )
