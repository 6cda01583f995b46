"""Accounts of workloads become rows: each step of a cumulative account is booked once, over the ledger's intervals.

No clock, no store. What an account says is booked from the cursor's own point, as channels are; an account that was frozen
is settled with its last value, and what still comes of it was booked. Refused accounts are evidence and move no point.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from wattledger_collector.intervals import interval_of, split
from wattledger_collector.records import ENERGY_MICROJOULES_LIMIT, NANOSECONDS_PER_SECOND, Component, EvidenceRow, Method
from wattledger_collector.wire import NAME_CHARACTERS_MAX, NANOSECONDS_LIMIT, CheckedBatch
from wattledger_collector.workload_records import (
    AccountPoint,
    IdlePolicy,
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadEnergyRow,
    WorkloadKind,
    WorkloadTimeRow,
)
from wattledger_protos.v1 import telemetry_pb2 as pb

# As many as a payload may hold by the protocol.
ACCOUNTS_MAX: Final = 1024

# Accounts that are neither frozen nor booked whole. An agent has at most 1024; more are left where records were lost.
OPEN_ACCOUNTS_MAX: Final = 4 * ACCOUNTS_MAX

# Between settled accounts lie open ones and those that never came; twice the open ones leaves room for the latter.
SETTLED_RANGES_MAX: Final = 2 * OPEN_ACCOUNTS_MAX

_COMPONENTS: Final[Mapping[int, Component]] = {int(each): each for each in Component}
_METHODS: Final[Mapping[int, Method]] = {int(each): each for each in Method}
_KINDS: Final[Mapping[int, WorkloadKind]] = {int(each): each for each in WorkloadKind}
_POLICIES: Final[Mapping[int, IdlePolicy]] = {int(each): each for each in IdlePolicy}

_NOTHING: Final = AccountPoint((), 0)

# (from boot, its boottime, boottime in the payload's boot): whether another epoch has booked some of it.
IsOverlapped = Callable[[bytes, int, int], bool]

# (component, from, to), a half-open span of UTC in nanoseconds: whether an import has booked some of it.
IsImported = Callable[[Component, int, int], bool]


class _RefusedError(Exception):
    """An account can't be believed; the text says why."""


@dataclass(slots=True)
class _Sums:
    """What is added up of one workload, whichever of its accounts it came with."""

    energies: dict[tuple[int, int], int] = field(default_factory=dict)
    cpu_nanoseconds: int = 0


def book_accounts(
    batch: CheckedBatch,
    payload: pb.Payload,
    before: WorkloadCursor | None,
    *,
    offset_nanoseconds: int,
    is_overlapped: IsOverlapped,
    interval_seconds: int,
    is_imported: IsImported | None = None,
) -> tuple[WorkloadBooking | None, str]:
    """Book a payload's accounts; the second value says why some were refused, empty if none was.

    offset_nanoseconds: what the payload's boot adds to boottime. is_imported: None if the host has no
    imports. No booking where nothing can be booked at all.
    """
    accounts = payload.workload_accounts
    if len(accounts) > ACCOUNTS_MAX:
        return None, f"the payload has {len(accounts)} workload accounts, more than {ACCOUNTS_MAX}: attribute to fewer"
    first, last = payload.first_boottime_nanoseconds, batch.last_boottime_nanoseconds
    cursor = before or WorkloadCursor(payload.boot_id, first, first + offset_nanoseconds, {}, (), 0, 0)
    is_old = before is not None and before.boot_id == payload.boot_id and last <= before.boottime_nanoseconds
    page = _Page(cursor, is_old=is_old)
    for account in accounts:
        page.add(account)
    # A sum of steps stays below the limit with every account, so that no total of the epoch can pass it.
    end_utc, start_utc = last + offset_nanoseconds, first + offset_nanoseconds
    if cursor.boot_id == payload.boot_id:
        # Where the offset has grown meanwhile, the time that it skipped was not metered.
        start_utc = max(cursor.utc_nanoseconds, end_utc - (last - cursor.boottime_nanoseconds))
    is_booked = not is_overlapped(cursor.boot_id, cursor.boottime_nanoseconds, last)
    sums = page.sums if is_booked else {}
    # What an import has booked is not told again by workload; the time that they ran is in no import.
    kept_out = {
        component
        for component in _COMPONENTS
        if is_imported is not None and is_imported(_COMPONENTS[component], start_utc, end_utc)
    }
    energy = [
        WorkloadEnergyRow(workload, start, _COMPONENTS[component], _METHODS[method], share)
        for workload, each in sums.items()
        for (component, method), step in each.energies.items()
        if component not in kept_out
        for start, share in _cut(step, start_utc, end_utc, interval_seconds)
    ]
    time = [
        WorkloadTimeRow(workload, start, share)
        for workload, each in sums.items()
        for start, share in _cut(each.cpu_nanoseconds, start_utc, end_utc, interval_seconds)
    ]
    after = WorkloadCursor(
        boot_id=cursor.boot_id if is_old else payload.boot_id,
        boottime_nanoseconds=cursor.boottime_nanoseconds if is_old else last,
        utc_nanoseconds=cursor.utc_nanoseconds if is_old else end_utc,
        accounts=page.points,
        settled=_bounded(page.settled, page.points),
        booked_microjoules=cursor.booked_microjoules + sum(row.energy_microjoules for row in energy),
        booked_cpu_nanoseconds=cursor.booked_cpu_nanoseconds + sum(row.cpu_nanoseconds for row in time),
    )
    return WorkloadBooking(after, tuple(page.seen), end_utc, tuple(energy), tuple(time)), page.refused


def evidence_of(batch: CheckedBatch, reason: str, *, with_payload: bool) -> EvidenceRow:
    """Refused accounts as evidence; the bytes are kept once for the batch."""
    data = batch.payload_bytes if with_payload else b""
    return EvidenceRow(batch.first_sequence, batch.last_sequence, 0, reason, None, data)


class _Page:
    """The accounts of one payload while they are read. seen: workloads in order of their first account."""

    def __init__(self, cursor: WorkloadCursor, *, is_old: bool) -> None:
        self.points = cursor.accounts.copy()
        self.settled = list(cursor.settled)
        self.sums: dict[Workload, _Sums] = {}
        self.seen: dict[Workload, None] = {}
        self._numbers: set[int] = set()
        self._is_old = is_old
        self._microjoules = cursor.booked_microjoules
        self._nanoseconds = cursor.booked_cpu_nanoseconds
        self._reason = ""
        self._refused_count = 0

    @property
    def refused(self) -> str:
        """Why accounts were refused: the first reason, and how many others."""
        more = self._refused_count - 1
        return f"{self._reason}; and {more} more accounts" if more > 0 else self._reason

    def add(self, account: pb.WorkloadAccount) -> None:
        """Take one account up, or refuse it whole."""
        try:
            workload = _workload_of(account)
            if account.account in self._numbers:
                raise _RefusedError(f"account {account.account} comes twice in one payload")
            self._numbers.add(account.account)
            self._take(account, workload)
        except _RefusedError as error:
            self._reason = self._reason or str(error)
            self._refused_count += 1

    def _take(self, account: pb.WorkloadAccount, workload: Workload) -> None:
        number = account.account
        if _is_settled(self.settled, number):
            self.seen[workload] = None
            return
        point = self.points.get(number, _NOTHING)
        if point is _NOTHING and len(self.points) >= OPEN_ACCOUNTS_MAX and not account.frozen:
            raise _RefusedError(f"account {number} is one more than {OPEN_ACCOUNTS_MAX} open ones: attribute to fewer")
        after, steps, cpu_step = self._steps(account, point)
        self.seen[workload] = None
        if account.frozen:
            self.points.pop(number, None)
            _settle(self.settled, number)
        else:
            self.points[number] = after
        self._microjoules += sum(steps.values())
        self._nanoseconds += cpu_step
        if not (steps or cpu_step):
            return
        sums = self.sums.setdefault(workload, _Sums())
        sums.cpu_nanoseconds += cpu_step
        for flow, step in steps.items():
            sums.energies[flow] = sums.energies.get(flow, 0) + step

    def _steps(
        self, account: pb.WorkloadAccount, point: AccountPoint
    ) -> tuple[AccountPoint, dict[tuple[int, int], int], int]:
        """The point after an account, and what it rose by. A flow that it does not name stands still."""
        where = f"account {account.account}"
        values = {(component, method): value for component, method, value in point.energies}
        steps: dict[tuple[int, int], int] = {}
        named: set[tuple[int, int]] = set()
        for energy in account.energies:
            flow, value = (energy.component, energy.method), energy.energy_microjoules
            if flow[0] not in _COMPONENTS or flow[1] not in _METHODS:
                raise _RefusedError(f"{where} has component {flow[0]} and method {flow[1]}: upgrade the collector")
            if flow in named:
                raise _RefusedError(f"{where} has component {flow[0]} and method {flow[1]} twice")
            named.add(flow)
            step = self._step(f"{where}, component {flow[0]}, method {flow[1]}", values.get(flow, 0), value)
            if step:
                steps[flow] = step
                values[flow] = value
        cpu_step = self._step(f"the CPU time of {where}", point.cpu_nanoseconds, account.cpu_nanoseconds)
        if self._microjoules + sum(steps.values()) >= ENERGY_MICROJOULES_LIMIT:
            raise _RefusedError(f"{where} would bring the epoch's workloads beyond all that can be kept")
        if self._nanoseconds + cpu_step >= NANOSECONDS_LIMIT:
            raise _RefusedError(f"{where} would bring the CPU time of the epoch's workloads beyond all that can be kept")
        energies = tuple((*flow, value) for flow, value in sorted(values.items()))
        return AccountPoint(energies, max(point.cpu_nanoseconds, account.cpu_nanoseconds)), steps, cpu_step

    def _step(self, where: str, before: int, value: int) -> int:
        if value >= ENERGY_MICROJOULES_LIMIT:
            raise _RefusedError(f"{where} says {value}, beyond all that can be kept: move its agent's spool aside")
        if value < before:
            if self._is_old:
                # Told at or before the sample that the point is of: it was passed.
                return 0
            raise _RefusedError(f"{where} fell from {before} to {value}, which a cumulative value never does")
        return value - before


def _workload_of(account: pb.WorkloadAccount) -> Workload:
    where = f"account {account.account}"
    if not account.account:
        raise _RefusedError("an account has number 0: numbers begin at 1")
    kind, policy = _KINDS.get(account.kind), _POLICIES.get(account.idle_policy)
    if kind is None or policy is None:
        raise _RefusedError(f"{where} has kind {account.kind} and idle policy {account.idle_policy}: upgrade the collector")
    for name, value in (("id", account.id), ("namespace", account.namespace), ("name", account.name)):
        if len(value) > NAME_CHARACTERS_MAX:
            raise _RefusedError(f"the {name} of {where} has {len(value)} characters, more than {NAME_CHARACTERS_MAX}")
        if not value.isprintable():
            raise _RefusedError(f"the {name} of {where} is {value!r}: control characters are not allowed")
    if kind.is_named and not account.id:
        raise _RefusedError(f"{where} is a {kind.name.lower()} without an id")
    return Workload(kind, account.id, account.namespace, account.name, policy)


def _cut(amount: int, from_utc: int, to_utc: int, interval_seconds: int) -> list[tuple[int, int]]:
    """An amount over the intervals, as (start, share); most spans lie within one, and are not looked at further."""
    last = interval_of(to_utc, interval_seconds)
    if from_utc >= last * interval_seconds * NANOSECONDS_PER_SECOND:
        return [(last * interval_seconds, amount)] if amount else []
    return [(start, share) for start, share, _ in split(amount, from_utc, to_utc, interval_seconds) if share]


def _is_settled(ranges: list[tuple[int, int]], number: int) -> bool:
    place = bisect_right(ranges, (number, 1 << 32)) - 1
    return place >= 0 and ranges[place][1] >= number


def _settle(ranges: list[tuple[int, int]], number: int) -> None:
    """Add a number, which is in no range yet, and join what touches it."""
    place = bisect_right(ranges, (number, 0))
    first = last = number
    if place < len(ranges) and ranges[place][0] == number + 1:
        last = ranges.pop(place)[1]
    if place and ranges[place - 1][1] == number - 1:
        place -= 1
        first = ranges.pop(place)[0]
    ranges.insert(place, (first, last))


def _bounded(ranges: list[tuple[int, int]], open_accounts: Mapping[int, AccountPoint]) -> tuple[tuple[int, int], ...]:
    """The ranges; where they are too many, the oldest that no open account lies between become one.

    What lay between them never came while thousands of later ones did.
    """
    if len(ranges) <= SETTLED_RANGES_MAX:
        return tuple(ranges)
    numbers = sorted(open_accounts)
    joined: list[tuple[int, int]] = []
    excess = len(ranges) - SETTLED_RANGES_MAX
    for first, last in ranges:
        if joined and excess:
            place = bisect_right(numbers, joined[-1][1])
            if place == len(numbers) or numbers[place] > last:
                joined[-1] = (joined[-1][0], last)
                excess -= 1
                continue
        joined.append((first, last))
    return tuple(joined)
