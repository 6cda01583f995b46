"""Joins what channels booked in a row with what workloads did in it, so that each joule of a leaf is in one account.

Reads nothing. Division is attribution's, spans are usage's, accounts are workload_accounts'; here is their order in a row.
Energy of which nothing is known (the first step after a start, a step beside a gap, a row without CPU times) is
unattributed; residuals are not divided. So all accounts together hold what the leaves booked since the accounts began.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wattledger_agent.attribution import Divider, Division, Usage
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelSpec,
    Component,
    IdlePolicy,
    ProcessShares,
    WorkloadsReading,
)
from wattledger_agent.usage import Usages
from wattledger_agent.workload_accounts import Account, Accounts, SavedAccounts
from wattledger_protos.v1 import telemetry_pb2 as pb

_ACCELERATORS = (Component.GPU, Component.ACCELERATOR)
_NODE = "node"

# Part of the flush time after which the next flush is due.
PACE = 0.95


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """How workloads are accounted: see WorkloadsConfig.

    owner_of: the number of the workload that a process of the root PID namespace belongs to; None for none.
    """

    policy: IdlePolicy
    accounts_max: int
    flush_seconds: float
    owner_of: Callable[[int], int | None]


@dataclass(frozen=True, slots=True)
class _Step:
    channel: int
    spec: ChannelSpec
    microjoules: int
    is_whole: bool


def workload_meter(settings: WorkloadSettings, saved: SavedAccounts | None) -> "WorkloadMeter":
    """Return one that goes on from a saved state. Raises ValueError, with the remedy, where it can't be understood."""
    try:
        return WorkloadMeter(settings, saved)
    except ValueError as error:
        raise ValueError(
            f"the accounts of workloads can't go on from the spool's last record ({error}): "
            "move the spool folder aside, then a new account begins"
        ) from error


class WorkloadMeter:
    """The workloads' side of one meter. saved: of the state to go on from."""

    def __init__(self, settings: WorkloadSettings, saved: SavedAccounts | None) -> None:
        self._settings = settings
        self.accounts = Accounts(settings.policy, settings.accounts_max, saved)
        self._usages = Usages()
        self._reading: WorkloadsReading | None = None
        self._shares: dict[str, ProcessShares] = {}
        self._steps: list[_Step] = []
        self._due_nanoseconds = 0

    def take(self, reading: WorkloadsReading | ProcessShares) -> None:
        """Take a reading of this row."""
        if isinstance(reading, ProcessShares):
            self._shares[reading.device] = reading
        else:
            self._reading = reading

    def step(self, channel: int, spec: ChannelSpec, microjoules: int, *, has_gap: bool) -> None:
        """Take what a leaf booked in this row; its energy never falls."""
        self._steps.append(_Step(channel, spec, microjoules, not has_gap))

    def end_row(self) -> None:
        """Divide the row's steps by what the workloads did meanwhile."""
        reading, usage = self._reading, None
        if reading is not None:
            self.accounts.present(reading.workloads)
            usage = self._usages.advance(reading)
        dividers: dict[int, Divider] = {}
        for step in self._steps:
            span = self._usages.span(step.channel)
            if not step.microjoules:
                continue
            flow = (step.spec.component, step.spec.method)
            division = self._divide(step, span, dividers)
            self.accounts.book(flow, division.parts, division.idle_microjoules, division.unattributed_microjoules)
        if usage is not None:
            # After the energy, with which a workload may just have got its account.
            self.accounts.use(usage.cpu_nanoseconds, sum(usage.busy_nanoseconds))
        if self._steps:
            self._usages.forget()
        self._reading = None
        self._shares.clear()
        self._steps.clear()

    def messages(self, boottime_nanoseconds: int, *, is_last: bool) -> list[pb.WorkloadAccount]:
        """Return what the record that is cut now must hold: nothing until a flush is due."""
        if boottime_nanoseconds >= self._due_nanoseconds:
            # Rows waver by milliseconds: a record that is a little early is the one that was meant.
            pace = self._settings.flush_seconds * PACE
            self._due_nanoseconds = boottime_nanoseconds + round(pace * NANOSECONDS_PER_SECOND)
            self.accounts.review()
        elif not is_last:
            return []
        return self.accounts.messages()

    def all(self) -> list[Account]:
        """Return all accounts."""
        return self.accounts.all()

    def _divide(self, step: _Step, span: Usage | None, dividers: dict[int, Divider]) -> Division:
        if span is None or not step.is_whole:
            return Division({}, 0, step.microjoules)
        divider = dividers.get(id(span))
        if divider is None:
            divider = dividers[id(span)] = Divider(span, self._settings.policy)
        component, device = step.spec.component, step.spec.key.device
        if component in _ACCELERATORS:
            shares = self._shares.get(device)
            if shares is not None:
                return divider.shares(step.microjoules, shares.shares, self._settings.owner_of)
        elif component is Component.CPU:
            return divider.cpu(step.microjoules, _package(device))
        elif component is Component.MEMORY:
            return divider.memory(step.microjoules, _package(device))
        elif device == _NODE:
            # The model of a whole server is one of its CPUs' load.
            return divider.cpu(step.microjoules, None)
        return Division({}, 0, step.microjoules)


def _package(device: str) -> int | None:
    """Return the package that a device is of or at: cpu/0, memory/1; None where its name doesn't say."""
    number = device.partition("/")[2]
    return int(number) if number.isascii() and number.isdigit() else None
