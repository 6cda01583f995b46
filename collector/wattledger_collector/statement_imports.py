"""The part of a statement that says which energy came from other meters' files, and what was said of each.

Values in, trees out; no clock, no database. Sources of truth: `imports.py`; the leaves, whose series of imports have the
sensor `import`, so that what imports booked of a host is summed from them again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wattledger_collector.imports import EnergyImport, Place
from wattledger_collector.records import Component
from wattledger_collector.statement_values import Tree, plain

# (host, component): microjoules of the period.
Booked = Mapping[tuple[str, Component], int]


def named(
    made: Iterable[EnergyImport], booked: Booked, from_seconds: int, to_seconds: int, site: str | None
) -> list[EnergyImport]:
    """The imports that a statement names: of its period, and of its hosts or site."""
    hosts = {host for host, _ in booked}
    return [
        each
        for each in made
        if each.provenance.from_seconds < to_seconds
        and from_seconds < each.provenance.to_seconds
        and (each.meter.host in hosts or (each.place is not Place.BOOKED and site in (None, each.meter.site)))
    ]


def imports_tree(made: Sequence[EnergyImport], booked: Booked, beside: Mapping[str, int]) -> Tree:
    """The section. beside: microjoules of the period, by digest, of series that are in no sum."""
    return {
        "booked": [
            {"host": host, "component": component.name.lower(), "energy_microjoules": str(energy)}
            for (host, component), energy in sorted(booked.items())
        ],
        "rows": [_row(each, beside.get(each.provenance.digest)) for each in made],
    }


def _row(made: EnergyImport, beside_microjoules: int | None) -> Tree:
    """One file. energy_microjoules: of all of it; in_period_microjoules: of a series that is in no sum."""
    meter, source = made.meter, made.provenance
    removal: dict[str, Any] | None = None
    if made.removal is not None:
        removal = {"removed_at_seconds": made.removal.removed_at_seconds, "reason": made.removal.reason}
    return {
        "file": source.file,
        "sha256": source.sha256,
        "rows": source.rows,
        "digest": source.digest,
        "place": str(made.place),
        "host": meter.host or None,
        "site": meter.site or None,
        "component": meter.component.name.lower(),
        "meter": meter.meter,
        "point": str(meter.point),
        "uncertainty_ratio": plain(meter.uncertainty_ratio),
        "evidence": meter.evidence,
        "form": str(source.form),
        "label": str(source.label),
        "time_zone": source.time_zone,
        "value_column": source.value_column,
        "from_seconds": source.from_seconds,
        "to_seconds": source.to_seconds,
        "energy_microjoules": str(source.energy_microjoules),
        "missing_seconds": source.missing_seconds,
        "in_period_microjoules": None if beside_microjoules is None else str(beside_microjoules),
        "imported_at_seconds": source.imported_at_seconds,
        "version": source.version,
        "removal": removal,
    }
