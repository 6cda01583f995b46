"""The part of a commit that is about workloads; it costs nothing where no batch has accounts.

Begins no transaction and compares nothing: it runs after the cursors of the same bookings were compared and set.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from wattledger_collector.hot_statements import (
    ADD_WORKLOAD_ENERGY,
    ADD_WORKLOAD_TIME,
    ADD_WORKLOAD_TOTALS,
    SET_WORKLOAD_CURSORS,
    UPSERT_WORKLOADS,
    Values,
)
from wattledger_collector.records import Booking
from wattledger_collector.workload_records import Workload, WorkloadBooking

_encode: Final = msgspec.msgpack.Encoder().encode

# (host's key, recorded, kind, id, namespace, name, idle policy): what the database tells workloads apart by.
_Identity = tuple[int, int, int, str, str, str, int]


class Written(Protocol):
    """A booking with the keys of its host and epoch."""

    @property
    def booking(self) -> Booking:
        """The booking."""

    @property
    def host_id(self) -> int:
        """Key of its host."""

    @property
    def cursor_id(self) -> int:
        """Key of its epoch."""


def write_workloads(connection: sqlite3.Connection, items: Sequence[Written]) -> None:
    """Write what these bookings change of workloads: a handful of statements for any number of hosts."""
    touched = [(item, item.booking.workloads) for item in items if item.booking.workloads is not None]
    if not touched:
        return
    upserts: list[Values] = []
    for item, change in touched:
        upserts += _workload_rows(item, change)
    keys = {tuple(row[1:]): row[0] for row in UPSERT_WORKLOADS.fetch(connection, upserts)}
    energy: list[Values] = []
    times: list[Values] = []
    totals: dict[tuple[int, int, int], int] = {}
    for item, change in touched:
        for row in change.energy:
            key = keys[_identity(item, row.workload)]
            component, method = int(row.component), int(row.method)
            energy.append((row.interval_start_seconds, key, component, method, row.energy_microjoules))
            flow = (key, component, method)
            totals[flow] = totals.get(flow, 0) + row.energy_microjoules
        for each in change.time:
            times.append((each.interval_start_seconds, keys[_identity(item, each.workload)], each.cpu_nanoseconds))
    ADD_WORKLOAD_ENERGY.run(connection, energy)
    ADD_WORKLOAD_TIME.run(connection, times)
    ADD_WORKLOAD_TOTALS.run(connection, [(*flow, total) for flow, total in totals.items()])
    SET_WORKLOAD_CURSORS.run(connection, [(item.cursor_id, _encode(change.cursor_after)) for item, change in touched])


def _workload_rows(item: Written, change: WorkloadBooking) -> list[Values]:
    spent: dict[Workload, int] = {}
    for row in change.time:
        spent[row.workload] = spent.get(row.workload, 0) + row.cpu_nanoseconds
    recorded = item.booking.cursor_after.recorded
    return [
        (
            item.host_id,
            recorded,
            int(each.kind),
            each.namespace,
            each.shown_name,
            int(each.idle_policy),
            each.id,
            each.name,
            spent.get(each, 0),
            change.seen_utc_nanoseconds,
        )
        for each in change.seen
    ]


def _identity(item: Written, workload: Workload) -> _Identity:
    recorded = int(item.booking.cursor_after.recorded)
    kind, name, namespace, label, policy = workload
    return (item.host_id, recorded, int(kind), name, namespace, label, int(policy))
