"""Reads the frozen rows of a period once, a day at a time, and adds up all that a statement is made of.

Decides no figure. Source of truth: the frozen rows and the assignments that were known at some time, both of which nothing
changes any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select

from wattledger_collector import schema
from wattledger_collector.database import connect
from wattledger_collector.energy_columns import ColumnsReader, Span
from wattledger_collector.imports import SOURCE
from wattledger_collector.leaves import DayColumns, exact_sums, make_leaves, sums_by_interval
from wattledger_collector.merkle import leaf_hash
from wattledger_collector.records import AssignmentRow, Component
from wattledger_collector.statement_store import leaf_secret
from wattledger_collector.statement_uncertainty import SensorKey
from wattledger_collector.store import SqliteStore

Progress = Callable[[int], None]


@dataclass(slots=True)
class Sums:
    """What one reading of the frozen rows adds up to; editions are apart, since a restatement asks what was late."""

    leaf_hashes: list[bytes]
    # (site, beginning of interval, component, quality, recorded, edition): microjoules and nanoseconds.
    cells: dict[tuple[Any, ...], tuple[int, int]]
    sensors: dict[SensorKey, int]
    # (host, component): microjoules that came from other meters' files.
    imported: dict[tuple[str, Component], int]

    def energy_until(self, edition: int) -> int:
        """Microjoules of the editions up to this one."""
        return sum(energy for (*_, own), (energy, _) in self.cells.items() if own <= edition)


class Reading:
    """Reads a span, under the assignments that were known at some time."""

    def __init__(self, store: SqliteStore, span: Span, progress: Progress) -> None:
        self.store = store
        self.span = span
        self._progress = progress

    def days(self, assignments_last_id: int) -> Iterator[DayColumns]:
        """The rows, a day at a time. assignments_last_id: the newest assignment that is known."""
        rows = _assignments_until(self.store, assignments_last_id)
        reader = ColumnsReader(partial(connect, self.store.path), self.store.interval_seconds, rows)
        for columns in reader.days(self.span):
            yield columns
            self._progress(columns.first_seconds)

    def sums(self, assignments_last_id: int) -> Sums:
        """All days added up, with the hashes of their leaves."""
        sums = Sums([], {}, {}, {})
        secret = leaf_secret(self.store)
        for columns in self.days(assignments_last_id):
            sums.leaf_hashes.extend(leaf_hash(leaf.entry) for leaf in make_leaves(columns, secret))
            _add_cells(sums, columns)
            _add_sensors(sums, columns)
            _add_imported(sums, columns)
        return sums


def _add_cells(sums: Sums, columns: DayColumns) -> None:
    names = ("site", "component", "quality", "recorded", "edition")
    for (site, *rest), energy, covered in sums_by_interval(columns, names):
        start = columns.first_seconds
        for microjoules, nanoseconds in zip(energy, covered, strict=True):
            if microjoules or nanoseconds:
                sums.cells[site, start, *rest] = (microjoules, nanoseconds)
            start += columns.interval_seconds


def _add_sensors(sums: Sums, columns: DayColumns) -> None:
    names = ("site", "component", "quality", "recorded", "sensor", "lower_ratio", "upper_ratio")
    for (site, component, quality, recorded, sensor, lower, upper), energy, _ in sums_by_interval(columns, names):
        key = (site, component, quality, recorded, sensor, lower, upper)
        sums.sensors[key] = sums.sensors.get(key, 0) + sum(energy)


def _add_imported(sums: Sums, columns: DayColumns) -> None:
    for place, series in enumerate(columns.series):
        if series.sensor == SOURCE:
            key = (series.host, series.component)
            energy = sum(exact_sums(columns.energy_microjoules[place : place + 1]))
            sums.imported[key] = sums.imported.get(key, 0) + energy


def _assignments_until(store: SqliteStore, last_id: int) -> list[AssignmentRow]:
    table = schema.assignments.c
    query = (
        select(table.host, table.valid_from_seconds, table.site, table.recorded_at_seconds)
        .where(table.id <= last_id)
        .order_by(table.host, table.valid_from_seconds, table.recorded_at_seconds, table.id)
    )
    return [AssignmentRow(*row) for row in store.rows(query)]
