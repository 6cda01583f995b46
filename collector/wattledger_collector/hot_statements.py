"""The statements of the hot writes, each prepared for a few numbers of rows.

Opens nothing and begins nothing.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

# Rows in one statement: any number of rows takes few statements. The largest stays below SQLite's least limit of 32,766
# values for the widest table.
_ROWS_IN_STATEMENT: Final = (1024, 256, 64, 16, 4, 1)

# The values of one row.
Values = tuple[int | str | bytes | float | None, ...]


class Statement:
    """One statement over any number of rows, as a few prepared ones of fixed sizes."""

    def __init__(self, before: str, columns: int, after: str) -> None:
        row = "(" + ", ".join("?" * columns) + ")"
        self._sql = {rows: before + ", ".join([row] * rows) + after for rows in _ROWS_IN_STATEMENT}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> int:
        """How many rows of the database were changed."""
        changed = 0
        at = 0
        for size in _ROWS_IN_STATEMENT:
            while len(rows) - at >= size:
                values = list(chain.from_iterable(rows[at : at + size]))
                changed += connection.execute(self._sql[size], values).rowcount
                at += size
        return changed

    def fetch(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> list[tuple[Any, ...]]:
        """The same, for a statement that ends in RETURNING: what it returns, in no particular order."""
        returned: list[tuple[Any, ...]] = []
        at = 0
        for size in _ROWS_IN_STATEMENT:
            while len(rows) - at >= size:
                values = list(chain.from_iterable(rows[at : at + size]))
                returned += connection.execute(self._sql[size], values).fetchall()
                at += size
        return returned


INSERT_HOSTS = Statement("INSERT INTO host (id, host, packed) VALUES ", 3, " ON CONFLICT DO NOTHING")
UPDATE_HOSTS = Statement(
    "UPDATE host SET packed = v.column3 FROM (VALUES ",
    3,
    ") AS v WHERE host.id = v.column1 AND host.packed = v.column2",
)
INSERT_CURSORS = Statement(
    "INSERT INTO epoch_cursor (id, host_id, epoch, recorded, packed) VALUES ", 5, " ON CONFLICT DO NOTHING"
)
UPDATE_CURSORS = Statement(
    "UPDATE epoch_cursor SET packed = v.column3 FROM (VALUES ",
    3,
    ") AS v WHERE epoch_cursor.id = v.column1 AND epoch_cursor.packed = v.column2",
)
# A channel's band stands in the leaves of statements, which have to be made again with the same bytes.
_UNLESS_STATED: Final = "CASE WHEN EXISTS (SELECT 1 FROM closure) THEN channel.{0} ELSE excluded.{0} END"
UPSERT_CHANNELS = Statement(
    "INSERT INTO channel (id, cursor_id, channel, device, component, domain, source, method, role, parent_channel, "
    "opening_boot_id, opening_boottime_nanoseconds, opening_realtime_nanoseconds, opening_synchronised, closed, "
    "power_bound_milliwatts, uncertainty_lower_ratio, uncertainty_upper_ratio, model) VALUES ",
    19,
    " ON CONFLICT (id) DO UPDATE SET closed = excluded.closed, power_bound_milliwatts = excluded.power_bound_milliwatts, "
    f"uncertainty_lower_ratio = {_UNLESS_STATED.format('uncertainty_lower_ratio')}, "
    f"uncertainty_upper_ratio = {_UNLESS_STATED.format('uncertainty_upper_ratio')}, "
    "parent_channel = excluded.parent_channel, role = excluded.role, method = excluded.method, model = excluded.model",
)
ADD_ENERGY = Statement(
    "INSERT INTO energy (interval_start_seconds, channel_id, quality, edition, energy_microjoules, covered_nanoseconds) "
    "VALUES ",
    6,
    " ON CONFLICT (interval_start_seconds, channel_id, quality, edition) DO UPDATE SET "
    "energy_microjoules = energy_microjoules + excluded.energy_microjoules, "
    "covered_nanoseconds = covered_nanoseconds + excluded.covered_nanoseconds",
)
ADD_ROLLUPS = Statement(
    "INSERT INTO rollup (interval_start_seconds, site, component, quality, recorded, edition, energy_microjoules, "
    "covered_nanoseconds) VALUES ",
    8,
    " ON CONFLICT (interval_start_seconds, site, component, quality, recorded, edition) DO UPDATE SET "
    "energy_microjoules = energy_microjoules + excluded.energy_microjoules, "
    "covered_nanoseconds = covered_nanoseconds + excluded.covered_nanoseconds",
)
ADD_UTILIZATION = Statement(
    "INSERT INTO utilization (interval_start_seconds, host_id, device, kind, busy_nanoseconds) VALUES ",
    5,
    " ON CONFLICT (interval_start_seconds, host_id, device, kind) DO UPDATE SET "
    "busy_nanoseconds = busy_nanoseconds + excluded.busy_nanoseconds",
)
INSERT_GAPS = Statement(
    "INSERT INTO gap (cursor_id, channel, from_utc_nanoseconds, to_utc_nanoseconds, reason, lower_microjoules, "
    "upper_microjoules) VALUES ",
    7,
    "",
)
INSERT_EVIDENCE = Statement(
    "INSERT INTO evidence (cursor_id, first_sequence, last_sequence, channel, reason, microjoules, payload) VALUES ", 7, ""
)

# Never more values than for the widest table above.
UPSERT_WORKLOADS = Statement(
    "INSERT INTO workload (host_id, recorded, kind, namespace, shown, idle_policy, workload, name, cpu_nanoseconds, "
    "last_seen_utc_nanoseconds) VALUES ",
    10,
    " ON CONFLICT (host_id, recorded, kind, namespace, shown, idle_policy, workload, name) DO UPDATE SET "
    "cpu_nanoseconds = cpu_nanoseconds + excluded.cpu_nanoseconds, "
    "last_seen_utc_nanoseconds = max(last_seen_utc_nanoseconds, excluded.last_seen_utc_nanoseconds) "
    "RETURNING id, host_id, recorded, kind, workload, namespace, name, idle_policy",
)
ADD_WORKLOAD_ENERGY = Statement(
    "INSERT INTO workload_energy (interval_start_seconds, workload_id, component, method, energy_microjoules) VALUES ",
    5,
    " ON CONFLICT (interval_start_seconds, workload_id, component, method) DO UPDATE SET "
    "energy_microjoules = energy_microjoules + excluded.energy_microjoules",
)
ADD_WORKLOAD_TIME = Statement(
    "INSERT INTO workload_time (interval_start_seconds, workload_id, cpu_nanoseconds) VALUES ",
    3,
    " ON CONFLICT (interval_start_seconds, workload_id) DO UPDATE SET "
    "cpu_nanoseconds = cpu_nanoseconds + excluded.cpu_nanoseconds",
)
ADD_WORKLOAD_TOTALS = Statement(
    "INSERT INTO workload_total (workload_id, component, method, energy_microjoules) VALUES ",
    4,
    " ON CONFLICT (workload_id, component, method) DO UPDATE SET "
    "energy_microjoules = energy_microjoules + excluded.energy_microjoules",
)
SET_WORKLOAD_CURSORS = Statement(
    "INSERT INTO workload_cursor (cursor_id, packed) VALUES ",
    2,
    " ON CONFLICT (cursor_id) DO UPDATE SET packed = excluded.packed",
)
