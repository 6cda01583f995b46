"""What the ledger keeps of workloads, as types: accounts as agents send them, cursors, rows and totals.

No clock, no database. Energy is integer microjoules. Structs that are packed into one database column are msgspec structs;
their encoding is by position, so fields are only added at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import msgspec

from wattledger_collector.records import Component, Method


class WorkloadKind(IntEnum):
    """What energy was spent on. The numbers are those of the wire."""

    IDLE = 1
    UNATTRIBUTED = 2
    OTHER = 3
    KUBERNETES_POD = 4
    SLURM_JOB = 5
    SYSTEMD_UNIT = 6
    CONTAINER = 7
    VIRTUAL_MACHINE = 8

    @property
    def is_named(self) -> bool:
        """Whether a workload of this kind has an id; the others are one of each on a host."""
        return self > WorkloadKind.OTHER


class IdlePolicy(IntEnum):
    """To whom the energy of idling hardware is given. The numbers are those of the wire."""

    NODE_ONLY = 1
    EQUAL = 2
    BY_USAGE = 3
    BY_RESERVATION = 4


class Workload(NamedTuple):
    """What tells the workloads of one host apart. One whose name or idle policy changes is another from then on.

    So rows are only ever added to, and the figures of the past keep the words that they were made with.
    """

    kind: WorkloadKind
    id: str
    namespace: str
    name: str
    idle_policy: IdlePolicy

    @property
    def shown_name(self) -> str:
        """What people call it: its name, else its id; a job has its number, since names of jobs are not unique."""
        if not self.kind.is_named:
            return self.kind.name.lower()
        return self.id if self.kind is WorkloadKind.SLURM_JOB else self.name or self.id

    @property
    def key(self) -> "WorkloadKey":
        """What its figures are shown under."""
        return WorkloadKey(self.kind, self.namespace, self.shown_name, self.idle_policy)


class WorkloadKey(NamedTuple):
    """What tells the series of one host's workloads apart: a pod that is made again under its name goes on in its series."""

    kind: WorkloadKind
    namespace: str
    workload: str
    idle_policy: IdlePolicy


class AccountPoint(msgspec.Struct, array_like=True, frozen=True):
    """A cursor's own point on one account: the agent's cumulative values that are committed.

    energies: (component, method, microjoules), in ascending order.
    """

    energies: tuple[tuple[int, int, int], ...]
    cpu_nanoseconds: int


class WorkloadCursor(msgspec.Struct, array_like=True, frozen=True):
    """How far the workloads of one epoch are committed. One packed row beside the epoch's cursor.

    boot_id, boottime_nanoseconds, utc_nanoseconds: the last sample that accounts came with. accounts: points by account.
    settled: ranges (first, last) of accounts that were frozen and are booked whole, ascending; what still comes of them
    was booked. booked_microjoules, booked_cpu_nanoseconds: what all bookings of the epoch added up to.
    """

    boot_id: bytes
    boottime_nanoseconds: int
    utc_nanoseconds: int
    accounts: dict[int, AccountPoint]
    settled: tuple[tuple[int, int], ...]
    booked_microjoules: int
    booked_cpu_nanoseconds: int


class WorkloadEnergyRow(NamedTuple):
    """Energy to be added to (workload, interval, component, method)."""

    workload: Workload
    interval_start_seconds: int
    component: Component
    method: Method
    energy_microjoules: int


class WorkloadTimeRow(NamedTuple):
    """CPU time to be added to (workload, interval)."""

    workload: Workload
    interval_start_seconds: int
    cpu_nanoseconds: int


@dataclass(frozen=True, slots=True)
class WorkloadBooking:
    """What one batch changes of workloads, committed with the rest of its booking.

    cursor_after replaces what the batch was computed from. seen: the workloads that it named, each once.
    """

    cursor_after: WorkloadCursor
    seen: tuple[Workload, ...]
    seen_utc_nanoseconds: int
    energy: tuple[WorkloadEnergyRow, ...]
    time: tuple[WorkloadTimeRow, ...]


@dataclass(frozen=True, slots=True)
class WorkloadTotal:
    """Committed lifetime totals of all workloads of a host that are shown under one key; recorded ones left out."""

    key: WorkloadKey
    last_seen_utc_nanoseconds: int
    cpu_nanoseconds: int
    energies: Mapping[tuple[Component, Method], int]


@dataclass(frozen=True, slots=True)
class HostWorkloads:
    """Totals of one host as they were when its row had this version; 0 if the host is not known."""

    version: int
    totals: tuple[WorkloadTotal, ...]


@dataclass(frozen=True, slots=True, eq=False)
class HostWorkload:
    """A workload of a host. A reading hands out one object for each, which is a quick key."""

    host: str
    recorded: bool
    workload: Workload


class WorkloadSum(NamedTuple):
    """Energy of a workload in a piece of time, its components together; dated by the piece's beginning."""

    source: HostWorkload
    method: Method
    from_seconds: int
    energy_microjoules: int


@dataclass(frozen=True, slots=True)
class HostWorkloadRow:
    """Energy of one workload of one host in one interval."""

    host: str
    recorded: bool
    workload: Workload
    interval_start_seconds: int
    component: Component
    method: Method
    energy_microjoules: int
