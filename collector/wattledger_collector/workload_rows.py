"""The queries of the store about workloads and how their rows become records.

Opens nothing; begins and ends no transaction.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from wattledger_collector.records import Component, Host, Method
from wattledger_collector.workload_records import (
    HostWorkloadRow,
    HostWorkloads,
    IdlePolicy,
    Workload,
    WorkloadCursor,
    WorkloadKey,
    WorkloadKind,
    WorkloadTotal,
)

CURSOR: Final = (
    "SELECT w.packed FROM workload_cursor AS w JOIN epoch_cursor AS c ON c.id = w.cursor_id "
    "JOIN host AS h ON h.id = c.host_id WHERE h.host = ? AND c.epoch = ?"
)

# All that is shown under a key counts, however long ago it was seen; that one of them was seen lately decides for all.
# The index by time finds those in a history of any length.
_TOTALS: Final = (
    "WITH recent AS (SELECT DISTINCT kind, namespace, shown, idle_policy FROM workload INDEXED BY workload_by_time "
    "WHERE host_id = :host_id AND last_seen_utc_nanoseconds >= :since AND NOT recorded) "
    "SELECT w.id, w.kind, w.namespace, w.shown, w.idle_policy, w.last_seen_utc_nanoseconds, w.cpu_nanoseconds, t.component, "
    "t.method, t.energy_microjoules FROM recent AS r CROSS JOIN workload AS w ON w.host_id = :host_id AND w.recorded = 0 "
    "AND w.kind = r.kind AND w.namespace = r.namespace AND w.shown = r.shown AND w.idle_policy = r.idle_policy "
    "LEFT JOIN workload_total AS t ON t.workload_id = w.id"
)

_ENERGY_COLUMNS: Final = (
    "h.host, w.recorded, w.kind, w.workload, w.namespace, w.name, w.idle_policy, e.interval_start_seconds, e.component, "
    "e.method, e.energy_microjoules"
)
ENERGY: Final = (
    f"SELECT {_ENERGY_COLUMNS} FROM workload_energy AS e JOIN workload AS w ON w.id = e.workload_id "
    "JOIN host AS h ON h.id = w.host_id "
    "WHERE e.interval_start_seconds >= :from_seconds AND e.interval_start_seconds < :to_seconds "
    "AND (:host IS NULL OR h.host = :host) ORDER BY e.interval_start_seconds, h.host, e.workload_id, e.component, e.method"
)

decode_cursor = msgspec.msgpack.Decoder(WorkloadCursor).decode
_decode_host = msgspec.msgpack.Decoder(Host).decode


def read_host_workloads(connection: sqlite3.Connection, host: str, seen_since_utc_nanoseconds: int) -> HostWorkloads:
    """One host's totals and version; inside of a transaction, so that they are of one state."""
    row = connection.execute("SELECT id, packed FROM host WHERE host = ?", (host,)).fetchone()
    if row is None:
        return HostWorkloads(0, ())
    values = {"host_id": row[0], "since": seen_since_utc_nanoseconds}
    sums: dict[WorkloadKey, _Sum] = {}
    for key, kind, namespace, shown, policy, seen, cpu, *flow in connection.execute(_TOTALS, values).fetchall():
        name = WorkloadKey(WorkloadKind(kind), namespace, shown, IdlePolicy(policy))
        sums.setdefault(name, _Sum()).add(key, seen, cpu, flow)
    return HostWorkloads(
        _decode_host(row[1]).version,
        tuple(
            WorkloadTotal(name, each.seen, sum(each.cpu_nanoseconds.values()), each.energies) for name, each in sums.items()
        ),
    )


@dataclass(slots=True)
class _Sum:
    """What is added up under one key; cpu_nanoseconds by the workload's row, which comes once for each flow."""

    seen: int = 0
    cpu_nanoseconds: dict[int, int] = field(default_factory=dict)
    energies: dict[tuple[Component, Method], int] = field(default_factory=dict)

    def add(self, key: int, seen: int, cpu_nanoseconds: int, values: Sequence[int | None]) -> None:
        self.seen = max(self.seen, seen)
        self.cpu_nanoseconds[key] = cpu_nanoseconds
        component, method, microjoules = values
        # A workload that only CPU time is known of has no flow.
        if component is not None and method is not None and microjoules is not None:
            flow = (Component(component), Method(method))
            self.energies[flow] = self.energies.get(flow, 0) + microjoules


def read_workload_energy(values: Sequence[Any]) -> HostWorkloadRow:
    """A row of ENERGY as a record."""
    host, recorded, kind, name, namespace, label, policy, start, component, method, microjoules = values
    workload = Workload(WorkloadKind(kind), name, namespace, label, IdlePolicy(policy))
    return HostWorkloadRow(host, bool(recorded), workload, start, Component(component), Method(method), microjoules)
