"""Adds up rows of workloads by workload and method, a piece of a period at a time, as columns.

Writes nothing and knows no factor. Source of truth: the table `workload_energy`. A week of twenty workloads on each of a
thousand hosts is 27 million rows: an interval's come as two texts, since a Python object for each would take minutes.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wattledger_collector.records import Method, Piece
from wattledger_collector.workload_records import HostWorkload, IdlePolicy, Workload, WorkloadKind, WorkloadSum

# Workload and method come as one number.
_METHOD_BITS: Final = 4
_ROWS: Final = (
    f"SELECT group_concat(workload_id << {_METHOD_BITS} | method), group_concat(energy_microjoules) FROM workload_energy "
    "WHERE interval_start_seconds >= ? AND interval_start_seconds < ? GROUP BY interval_start_seconds"
)
_WORKLOADS: Final = (
    "SELECT w.id, h.host, w.recorded, w.kind, w.workload, w.namespace, w.name, w.idle_policy FROM workload AS w "
    "JOIN host AS h ON h.id = w.host_id WHERE w.id IN (SELECT value FROM json_each(?))"
)

# Rows that are held before they are added up: 64 MB of them, and as much again while they are sorted.
_ROWS_AT_ONCE: Final = 2**22

_METHODS: Final = {int(each): each for each in Method}

_Integers = NDArray[np.int64]
# Keys in order, each once, with the upper and the lower 32 bits of energies added apart: a sum may pass 64 bits.
_Sums = tuple[_Integers, _Integers, _Integers]


def read_workload_sums(
    connection: sqlite3.Connection, pieces: Iterable[Piece], rows_at_once: int = _ROWS_AT_ONCE
) -> Iterator[WorkloadSum]:
    """The sums of each piece, in order; inside of the caller's transaction, so that all are of one state."""
    known: dict[int, HostWorkload] = {}
    for piece in pieces:
        keys, high, low = _piece(connection, piece, rows_at_once)
        _learn(connection, known, np.unique(keys >> _METHOD_BITS).tolist())
        for key, above, below in zip(keys.tolist(), high.tolist(), low.tolist(), strict=True):
            method = _METHODS[key & (1 << _METHOD_BITS) - 1]
            yield WorkloadSum(known[key >> _METHOD_BITS], method, piece.from_seconds, (above << 32) + below)


def _piece(connection: sqlite3.Connection, piece: Piece, rows_at_once: int) -> _Sums:
    parts: list[_Sums] = []
    rows = 0
    for texts in connection.execute(_ROWS, piece):
        # Both are gathered in one walk over the rows, so that their places agree.
        keys, energies = (np.fromstring(text, np.int64, sep=",") for text in texts)
        parts.append((keys, energies >> 32, energies & 0xFFFFFFFF))
        rows += len(keys)
        if rows > rows_at_once:
            parts = [_added(parts)]
            rows = len(parts[0][0])
    return _added(parts)


def _added(parts: list[_Sums]) -> _Sums:
    if not parts:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    keys, high, low = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return keys[firsts], np.add.reduceat(high[order], firsts), np.add.reduceat(low[order], firsts)


def _learn(connection: sqlite3.Connection, known: dict[int, HostWorkload], keys: list[int]) -> None:
    """Read the workloads that were not met yet."""
    new = [key for key in keys if key not in known]
    if not new:
        return
    for key, host, recorded, kind, name, namespace, label, policy in connection.execute(_WORKLOADS, (json.dumps(new),)):
        workload = Workload(WorkloadKind(kind), name, namespace, label, IdlePolicy(policy))
        known[key] = HostWorkload(host, bool(recorded), workload)
