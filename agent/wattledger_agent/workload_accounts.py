"""Keeps the cumulative accounts of workloads: the largest have their own, the others share one, and no counter ever falls.

Divides no energy (see attribution) and reads nothing. Source of truth for what the collector is told: WorkloadAccount in
protos/wattledger_protos/v1/telemetry.proto.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from wattledger_agent.readings import Component, IdlePolicy, Method, Workload, WorkloadKind
from wattledger_agent.wire import NAME_CHARACTERS_MAX
from wattledger_protos.v1 import telemetry_pb2 as pb

# A workload takes another's place if it has half as much again, so that two that are near each other do not take turns.
CHALLENGE_NUMERATOR, CHALLENGE_DENOMINATOR = 3, 2

# Accounts in one payload, serialised: with as many rows, columns and details as there may be it stays below a mebibyte. At
# some 120 bytes an account these are 500; what has no room goes with the next record.
ACCOUNT_BYTES_MAX = 64 * 1024

# The collector takes no more accounts in a payload.
PAYLOAD_ACCOUNTS_MAX = 1024

_SPECIAL = (WorkloadKind.IDLE, WorkloadKind.UNATTRIBUTED, WorkloadKind.OTHER)

# What energy of one account is told apart by.
Flow = tuple[Component, Method]


class SavedAccount(msgspec.Struct, frozen=True, array_like=True):
    """An account as packed into a record's state. energies: component, method, microjoules."""

    number: int
    kind: int
    id: str
    namespace: str
    name: str
    energies: list[tuple[int, int, int]]
    cpu_nanoseconds: int
    frozen: bool


class SavedAccounts(msgspec.Struct, frozen=True, array_like=True):
    """All accounts of a record's state. next_number: the first that was never used."""

    policy: int
    next_number: int
    accounts: list[SavedAccount]


@dataclass(slots=True)
class Account:
    """One account; see WorkloadAccount in the proto.

    is_told: its present values went into a record. held_sequence: of a frozen one, the first record that holds it.
    """

    number: int
    workload: Workload
    policy: IdlePolicy
    energies: dict[Flow, int] = field(default_factory=dict)
    cpu_nanoseconds: int = 0
    frozen: bool = False
    is_told: bool = False
    held_sequence: int | None = None

    def add(self, flow: Flow, microjoules: int) -> None:
        """Book energy."""
        self.energies[flow] = self.energies.get(flow, 0) + microjoules
        self.is_told = False

    def message(self) -> pb.WorkloadAccount:
        """Return the account as it stands."""
        workload = self.workload
        return pb.WorkloadAccount(
            account=self.number,
            kind=pb.WorkloadKind.ValueType(int(workload.kind)),
            id=workload.id,
            namespace=workload.namespace,
            name=workload.name,
            idle_policy=pb.IdlePolicy.ValueType(int(self.policy)),
            energies=[
                pb.WorkloadEnergy(
                    component=pb.Component.ValueType(int(component)),
                    method=pb.Method.ValueType(int(method)),
                    energy_microjoules=energy,
                )
                for (component, method), energy in self.energies.items()
            ],
            cpu_nanoseconds=self.cpu_nanoseconds,
            frozen=self.frozen,
        )


@dataclass(slots=True)
class _Member:
    """A workload that is there. recent: microjoules since the last review and, halved each time, before; its rank."""

    workload: Workload
    account: Account | None = None
    recent: int = 0


class Accounts:
    """The accounts of one epoch.

    accounts_max: as many workloads have their own. saved: of the state to go on from. Accounts of another idle policy are
    frozen at once, for a figure has one policy.
    """

    def __init__(self, policy: IdlePolicy, accounts_max: int, saved: SavedAccounts | None = None) -> None:
        self._policy = policy
        self._max = accounts_max
        self._next_number = 1
        self._special: dict[WorkloadKind, Account] = {}
        self._own: dict[tuple[WorkloadKind, str], Account] = {}
        self._frozen: list[Account] = []
        self._members: dict[int, _Member] = {}
        self._absent: set[tuple[WorkloadKind, str]] = set()
        self._held: list[Account] = []
        self._dropped_records = self._acknowledged = 0
        self._known: Mapping[int, Workload] = {}
        if saved is not None:
            self._restore(saved)

    def present(self, workloads: Mapping[int, Workload]) -> None:
        """Take which workloads are there now, by number; the same object again costs nothing."""
        if workloads is self._known:
            return
        self._known = workloads
        for number in [number for number in self._members if number not in workloads]:
            del self._members[number]
        for number, workload in workloads.items():
            member = self._members.get(number)
            if member is None:
                workload = _tidy(workload)
                member = self._members[number] = _Member(workload, self._own.get((workload.kind, workload.id)))
            elif (member.workload.namespace, member.workload.name) != (workload.namespace, workload.name):
                member.workload = _tidy(workload)
            if member.account is not None and member.account.workload != member.workload:
                member.account.workload = member.workload
                member.account.is_told = False
        there = {(member.workload.kind, member.workload.id) for member in self._members.values()}
        self._absent &= self._own.keys() - there

    def book(self, flow: Flow, parts: Mapping[int, int], idle_microjoules: int, unattributed_microjoules: int) -> None:
        """Book one divided step. What was a workload's that is gone is unattributed."""
        members = self._members
        has_room = len(self._frozen) < self._max and (len(self._own) < self._max or bool(self._absent))
        other = 0
        for number, part in parts.items():
            member = members.get(number)
            if member is None:
                unattributed_microjoules += part
                continue
            member.recent += part
            account = member.account
            if account is None and has_room:
                account = self._admit(member)
            if account is None:
                other += part
            else:
                energies = account.energies
                energies[flow] = energies.get(flow, 0) + part
                account.is_told = False
        for kind, energy in zip(_SPECIAL, (idle_microjoules, unattributed_microjoules, other), strict=True):
            if energy:
                self._shared(kind).add(flow, energy)

    def use(self, cpu_nanoseconds: Mapping[int, int], busy_nanoseconds: int) -> None:
        """Add the CPU time of one row: of each workload, and of the host."""
        other = 0
        for number, time in cpu_nanoseconds.items():
            member = self._members.get(number) if time else None
            if member is None:
                continue
            busy_nanoseconds -= time
            if member.account is None:
                other += time
            else:
                member.account.cpu_nanoseconds += time
                member.account.is_told = False
        if other:
            self._shared(WorkloadKind.OTHER).cpu_nanoseconds += other
        if busy_nanoseconds > 0:
            self._shared(WorkloadKind.UNATTRIBUTED).cpu_nanoseconds += busy_nanoseconds

    def review(self) -> None:
        """Let the largest workloads have the accounts: freeze those of workloads long gone, and let greater ones in.

        Called at an even pace. A workload that is gone for a whole pace is gone for good; one that was only started anew
        within it goes on in its account.
        """
        for key in tuple(self._absent):
            self._freeze(key)
        there = {(member.workload.kind, member.workload.id) for member in self._members.values()}
        challengers = sorted((m for m in self._members.values() if m.account is None), key=lambda m: -m.recent)
        holders = sorted((m for m in self._members.values() if m.account is not None), key=lambda m: -m.recent)
        while len(self._own) > self._max and holders:
            # The setting was lowered.
            least = holders.pop()
            if least.account is not None:
                self._freeze((least.workload.kind, least.workload.id))
        for challenger in challengers:
            if not challenger.recent:
                break
            if self._admit(challenger) is not None:
                continue
            while holders and holders[-1].account is None:
                holders.pop()  # Of an account that two shared, and that is frozen now.
            if not holders or len(self._frozen) >= self._max:
                break
            least = holders[-1]
            if challenger.recent * CHALLENGE_DENOMINATOR <= least.recent * CHALLENGE_NUMERATOR:
                break
            holders.pop()
            self._freeze((least.workload.kind, least.workload.id))
            self._give_account(challenger)
        self._absent = set(self._own.keys() - there)
        for member in self._members.values():
            member.recent //= 2

    def messages(self) -> list[pb.WorkloadAccount]:
        """Return what the next record must hold: frozen accounts that nobody has acknowledged, and what has changed."""
        new = [account for account in self._frozen if account.held_sequence is None]
        changed = [account for account in (*self._special.values(), *self._own.values()) if not account.is_told]
        again = [account for account in self._frozen if account.held_sequence is not None]
        messages: list[pb.WorkloadAccount] = []
        room = ACCOUNT_BYTES_MAX
        self._held = []
        for account in (*new, *changed, *again):
            message = account.message()
            room -= message.ByteSize()
            if room < 0 or len(messages) >= PAYLOAD_ACCOUNTS_MAX:
                break
            messages.append(message)
            account.is_told = True
            if account.frozen:
                self._held.append(account)
        return messages

    def spooled(self, sequence: int) -> None:
        """Take that the record with the last messages is durable under this sequence."""
        for account in self._held:
            if account.held_sequence is None:
                account.held_sequence = sequence
        self._held = []

    def acknowledged(self, sequence: int, dropped_records: int = 0) -> None:
        """Forget frozen accounts that the collector has; their numbers are never used again.

        dropped_records: how many records were given up unsent since the start. What they told is told again, and so is what
        a collector that was restored, and therefore acknowledges less than before, may lack.
        """
        if dropped_records != self._dropped_records or sequence < self._acknowledged:
            for account in self.all():
                account.is_told, account.held_sequence = False, None
        self._dropped_records, self._acknowledged = dropped_records, sequence
        if any(account.held_sequence is not None for account in self._frozen):
            self._frozen = [a for a in self._frozen if a.held_sequence is None or a.held_sequence > sequence]

    def save(self) -> SavedAccounts:
        """Return what another `Accounts` goes on from."""
        return SavedAccounts(
            self._policy,
            self._next_number,
            [
                SavedAccount(
                    account.number,
                    account.workload.kind,
                    account.workload.id,
                    account.workload.namespace,
                    account.workload.name,
                    [(component, method, energy) for (component, method), energy in account.energies.items()],
                    account.cpu_nanoseconds,
                    account.frozen,
                )
                for account in self.all()
            ],
        )

    def all(self) -> list[Account]:
        """Return every account that is not forgotten: the three shared ones, workloads' own, frozen ones."""
        return [*self._special.values(), *self._own.values(), *self._frozen]

    def _restore(self, saved: SavedAccounts) -> None:
        self._next_number = saved.next_number
        policy = IdlePolicy(saved.policy)
        for one in saved.accounts:
            energies = {(Component(component), Method(method)): energy for component, method, energy in one.energies}
            workload = Workload(WorkloadKind(one.kind), one.id, one.namespace, one.name)
            account = Account(one.number, workload, policy, energies, one.cpu_nanoseconds, one.frozen)
            if one.frozen or policy is not self._policy:
                account.frozen = True
                self._frozen.append(account)
            elif workload.kind in _SPECIAL:
                self._special[workload.kind] = account
            else:
                self._own[workload.kind, workload.id] = account

    def _shared(self, kind: WorkloadKind) -> Account:
        account = self._special.get(kind)
        if account is None:
            account = self._special[kind] = self._open(Workload(kind, ""))
        account.is_told = False
        return account

    def _open(self, workload: Workload) -> Account:
        account = Account(self._next_number, workload, self._policy)
        self._next_number += 1
        return account

    def _admit(self, member: _Member) -> Account | None:
        """Give a workload its own account if there is room, or one is held by a workload that is gone."""
        if (member.workload.kind, member.workload.id) not in self._own:
            # While the collector is away, frozen accounts gather; their number is bounded by letting nobody in: those that
            # wait then are as many as may be live, and as many again as were live when they went.
            if len(self._frozen) >= self._max:
                return None
            if len(self._own) >= self._max and not self._make_room():
                return None
        return self._give_account(member)

    def _give_account(self, member: _Member) -> Account:
        key = (member.workload.kind, member.workload.id)
        account = self._own.get(key)
        if account is None:
            account = self._own[key] = self._open(member.workload)
        member.account = account
        return account

    def _make_room(self) -> bool:
        if not self._absent:
            return False
        self._freeze(min(self._absent, key=lambda key: self._own[key].number))
        return True

    def _freeze(self, key: tuple[WorkloadKind, str]) -> None:
        account = self._own.pop(key)
        account.frozen, account.is_told = True, False
        self._frozen.append(account)
        self._absent.discard(key)
        for member in self._members.values():
            if member.account is account:
                member.account = None


def _tidy(workload: Workload) -> Workload:
    """Return the names as the wire takes them."""
    names = (workload.id, workload.namespace, workload.name)
    return Workload(workload.kind, *("".join(filter(str.isprintable, name))[:NAME_CHARACTERS_MAX] for name in names))


def largest(accounts: Iterable[Account], count: int) -> list[Account]:
    """Return the workloads' own accounts with the most energy, the largest first."""
    own = [account for account in accounts if account.workload.kind not in _SPECIAL]
    return sorted(own, key=lambda account: -sum(account.energies.values()))[:count]
