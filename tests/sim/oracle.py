"""What an honest ledger must hold, reckoned from the simulated truth alone, by other means than the meter's.

It sees every successful read with the sensor's true energy, and knows which spans a counter can't tell. It knows nothing of
batches, spools, cursors or intervals.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tests.sim.hardware import Truth

from wattledger_agent.counters import Instant
from wattledger_agent.readings import ChannelKey, ChannelSpec, Role

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Account:
    """One channel's unambiguous energy since its epoch's opening, what it missed, and the last read that counts."""

    counted_microjoules: int = 0
    missed_microjoules: int = 0
    gaps: int = 0
    truth: Truth = field(default_factory=lambda: Truth(0, 0, 0, 0))
    at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Joint:
    """The totals when a meter and all its parts were last read together."""

    meter: int
    parts: int
    meter_gaps: int


@dataclass(slots=True)
class Oracle:
    """One lineage of one epoch: the reads that a spool's account is made of."""

    specs: list[ChannelSpec]
    accounts: dict[ChannelKey, Account] = field(default_factory=dict)
    joint: Joint | None = None
    residual_microjoules: int = 0
    last_boottime: tuple[bytes, int] = (b"", -1)
    # What records told of workloads so far: microjoules by account, for ever, and what the leaves had counted then.
    told: dict[int, int] = field(default_factory=dict)
    divided_microjoules: int = 0

    def copy(self) -> "Oracle":
        """A snapshot; accounts are immutable."""
        return replace(self, accounts=dict(self.accounts), told=dict(self.told))

    def hear(self, accounts: Iterable[tuple[int, int]]) -> None:
        """A record tells the microjoules of some accounts: those that have changed."""
        found = dict(accounts)
        if found:
            self.told |= found
            leaves = (spec.key for spec in self.specs if spec.role is Role.LEAF)
            self.divided_microjoules = sum(self.accounts[key].counted_microjoules for key in leaves if key in self.accounts)

    def observe(self, truth: dict[ChannelKey, Truth], now: Instant) -> None:
        """One sample: the truth of each sensor that could be read."""
        if self.last_boottime[0] == now.boot_id and now.boottime_nanoseconds <= self.last_boottime[1]:
            return
        self.last_boottime = (now.boot_id, now.boottime_nanoseconds)
        for spec in self.specs:
            if spec.key in truth:
                self._account(spec, truth[spec.key], now)
        meter = next((spec for spec in self.specs if spec.role is Role.METER), None)
        if meter is not None and len(truth) == len(self.specs):
            self._joint(meter)

    def _account(self, spec: ChannelSpec, truth: Truth, now: Instant) -> None:
        before = self.accounts.get(spec.key)
        if before is None or before.at is None:
            self.accounts[spec.key] = Account(truth=truth, at=now)
            return
        delta = truth.energy_microjoules - before.truth.energy_microjoules
        if _is_ambiguous(spec, before, truth, now):
            after = replace(before, missed_microjoules=before.missed_microjoules + delta, gaps=before.gaps + 1)
        else:
            # A register that started anew unseen and has passed its old value: nobody can tell, its word is all there is.
            told = delta if before.truth.resets == truth.resets else truth.raw_microjoules - before.truth.raw_microjoules
            after = replace(before, counted_microjoules=before.counted_microjoules + told)
        self.accounts[spec.key] = replace(after, truth=truth, at=now)

    def _joint(self, meter: ChannelSpec) -> None:
        account = self.accounts[meter.key]
        parts = sum(a.counted_microjoules for key, a in self.accounts.items() if key != meter.key)
        if self.joint is not None and self.joint.meter_gaps == account.gaps:
            self.residual_microjoules += account.counted_microjoules - self.joint.meter - (parts - self.joint.parts)
        self.joint = Joint(account.counted_microjoules, parts, account.gaps)

    def expected(self) -> dict[tuple[str, str], int]:
        """What must be booked, by (device, domain)."""
        found = {
            (spec.key.device, spec.key.domain): self.accounts[spec.key].counted_microjoules
            for spec in self.specs
            if spec.role is Role.LEAF and spec.key in self.accounts
        }
        if any(spec.role is Role.METER for spec in self.specs):
            found["node", "residual"] = self.residual_microjoules
        return found


def _is_ambiguous(spec: ChannelSpec, before: Account, truth: Truth, now: Instant) -> bool:
    at = before.at
    assert at is not None
    if at.boot_id != now.boot_id or truth.generation != before.truth.generation:
        return True
    if before.truth.resets != truth.resets and truth.raw_microjoules < before.truth.raw_microjoules:
        return True
    if abs(now.suspended_nanoseconds - at.suspended_nanoseconds) > SECOND:
        return True
    wrap = spec.counter_range_microjoules
    elapsed = now.boottime_nanoseconds - at.boottime_nanoseconds
    return wrap is not None and round(spec.power_bound_watts * 1_000_000) * elapsed // SECOND >= wrap
