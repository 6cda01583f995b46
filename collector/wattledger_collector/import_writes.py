"""Writes where imported energy comes from, and series that are kept beside the ledger, inside of a transaction.

Begins and ends none. Source of truth: the tables `energy_import` and `meter_energy` in `schema.py`.
"""

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from wattledger_collector.hot_statements import Statement

if TYPE_CHECKING:
    from wattledger_collector.imports import EnergyImport

IMPORT_COLUMNS: Final = (
    "digest, place, host, site, component, meter, point, uncertainty_ratio, evidence, file, sha256, rows, "
    "imported_at_seconds, version, form, label, time_zone, value_column, from_seconds, to_seconds, energy_microjoules, "
    "missing_seconds"
)
_INSERT_IMPORT: Final = (
    f"INSERT INTO energy_import ({IMPORT_COLUMNS}) VALUES ({', '.join('?' * len(IMPORT_COLUMNS.split(',')))}) RETURNING id"
)
_INSERT_ROWS: Final = Statement(
    "INSERT INTO meter_energy (import_id, interval_start_seconds, quality, energy_microjoules, covered_nanoseconds) VALUES ",
    5,
    "",
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
