"""`wattledger-agent replay`: the agent's sources and meter on a recorded machine, as fast as they go, and what they booked.

Sends nothing and keeps nothing; nothing of the host that it runs on is read. What an agent would do in the recorded time is
done: failed sources are looked for again, and sources that come late are taken in.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from wattledger_agent.counters import GapReason, Instant
from wattledger_agent.inventory import Inventory, find_sources, sensor_named, without_name
from wattledger_agent.late import LateSources
from wattledger_agent.machine import RecordedMachine
from wattledger_agent.meter import Meter
from wattledger_agent.once import METHOD_WORDS, ROLE_WORDS
from wattledger_agent.readers import Readers
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    Component,
    Gone,
    IdlePolicy,
    Method,
    Reading,
    Role,
    TryAgain,
)
from wattledger_agent.sampler import Cadence
from wattledger_agent.worker import InlineReader
from wattledger_agent.workload_lines import WorkloadLine, policy_name, workload_lines
from wattledger_agent.workload_lines import as_text as workloads_text
from wattledger_agent.workload_setup import open_workloads
from wattledger_protos.v1 import telemetry_pb2 as pb

# Rows in one cut: the gaps of so many are told one by one.
ROWS_PER_CUT = 60

# As many gaps are printed; all of them are in the sums.
GAPS_SHOWN_MAX = 40

# A folder that was recorded at a single moment is played for this long, so that powers have two readings.
MOMENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """One channel's account over the replay. parent: the channel that contains it. problem: why its last read failed."""

    key: ChannelKey
    component: Component
    method: Method
    role: Role
    parent: ChannelKey | None
    model: str
    closed: bool
    energy_microjoules: int
    gap_lower_microjoules: int
    gap_upper_microjoules: int
    gap_unbounded_count: int
    problem: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A span in which a channel may have missed energy; seconds since the beginning, bounds in microjoules."""

    key: ChannelKey
    reason: GapReason
    from_seconds: float
    to_seconds: float
    lower_microjoules: int
    upper_microjoules: int
    unbounded: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay came to. opened: sources and their channels. missing: source, reason, remedy. notes: source, sentence.

    Paths are those of the recorded machine.
    """

    seconds: float
    rows: int
    opened: list[tuple[str, int]]
    missing: list[tuple[str, str, str]]
    notes: list[tuple[str, str]]
    accounts: list[Account]
    gaps: list[Gap]
    workloads: list[WorkloadLine] = field(default_factory=list)
    idle_policy: IdlePolicy | None = None

    @property
    def booked_microjoules(self) -> int:
        """Energy of the accounted cut: leaves and residuals."""
        return sum(account.energy_microjoules for account in self.accounts if account.role in (Role.LEAF, Role.RESIDUAL))


class Replay:
    """The agent on a machine: `step` makes one row, `outcome` tells what has been booked so far.

    period_seconds: time between two samples; decides how far powers may lie apart. readings, now: those of the last row.
    """

    def __init__(self, machine: RecordedMachine, *, period_seconds: float) -> None:
        config, roots = machine.config, machine.roots
        self.machine = machine
        self.inventory = find_sources(config.sources, roots, processes=config.workloads.enabled)
        self.settings = open_workloads(config, roots, self.inventory)
        self._period_seconds = period_seconds
        self._begun = machine.time.now_nanoseconds
        late = LateSources(
            lambda name: sensor_named(name, config.sources, roots, processes=config.workloads.enabled),
            beside=lambda run, name: run(),
        )
        for missing in self.inventory.missing:
            late.watch(missing.source, self._begun)
        # Nothing of a recording can hang, so that no threads are needed and each replay is as the one before.
        self._readers = Readers(self.inventory.opened, late, make_reader=InlineReader)
        gap_seconds = Cadence(period_seconds, period_seconds, period_seconds).integral_gap_seconds_max
        self.meter = Meter(state=None, integral_gap_seconds_max=gap_seconds, workloads=self.settings)
        self.meter.offer(self.inventory.specs, machine.instant())
        self._ledger = _Ledger(self._begun)
        self._problems: dict[ChannelKey, str] = {}
        self.rows = 0
        self.now = machine.instant()
        self.readings: list[Reading] = []

    @property
    def seconds(self) -> float:
        """Time from the beginning to the last row."""
        return (self.now.boottime_nanoseconds - self._begun) / NANOSECONDS_PER_SECOND

    def step(self, seconds: float) -> None:
        """Let time pass, and make a row. The first row is made at the beginning: 0 seconds."""
        if seconds > 0:
            self.machine.advance(seconds)
        gone = self._readers.take_in(self.meter, self.machine.instant())
        self.now = now = self.machine.instant()
        readings, behind = self._readers.read(self.meter, now, self._period_seconds)
        self.readings = [*gone, *readings]
        self.meter.observe(self.readings, now, behind)
        self._readers.mind(self.meter, now)
        _note(self._problems, self.readings)
        self.rows += 1
        if self.rows % ROWS_PER_CUT == 0:
            self._ledger.add(self.meter, now)

    def outcome(self) -> Outcome:
        """What has been booked, what may be missing, and what there is to say of it."""
        self._ledger.add(self.meter, self.now)
        told, accounts = self._told, self.meter.workloads
        return Outcome(
            self.seconds,
            self.rows,
            [(opened.source.name, len(opened.specs)) for opened in self.inventory.opened],
            [(one.source, told(without_name(one.source, one.reason)), told(one.remedy)) for one in self.inventory.missing],
            [(source, told(note)) for source, note in _notes(self.inventory, self.meter)],
            self._ledger.accounts(self.meter, {key: told(problem) for key, problem in self._problems.items()}),
            self._ledger.gaps,
            [] if accounts is None else workload_lines(accounts.all(), self.seconds),
            None if self.settings is None else self.settings.policy,
        )

    def close(self) -> None:
        """Close all sources."""
        self._readers.close()

    def _told(self, text: str) -> str:
        """A sentence with the paths that the recorded machine had."""
        return text.replace(str(self.machine.root), "")


def play(machine: RecordedMachine, seconds: float | None = None, *, period_seconds: float | None = None) -> Outcome:
    """Run the agent on a machine. seconds: None: as long as was recorded. period_seconds: None: as the agent has it."""
    period = machine.config.period_seconds if period_seconds is None else period_seconds
    if seconds is None:
        seconds = machine.recorded_seconds or MOMENT_SECONDS
    replay = Replay(machine, period_seconds=period)
    try:
        replay.step(0.0)
        while seconds - replay.seconds > 1e-9:
            replay.step(min(period, seconds - replay.seconds))
        return replay.outcome()
    finally:
        replay.close()


def as_text(outcome: Outcome) -> str:
    """For people: sources, the tree with each channel's energy, the sum, gaps, and notes."""
    lines = [f"played {outcome.seconds:g} s in {outcome.rows} rows"]
    lines += [f"{name}: {_channels(count)}" for name, count in outcome.opened]
    for source, reason, remedy in outcome.missing:
        lines += [f"{source}: not read: {reason}", f"  -> {remedy}"]
    known = {account.key for account in outcome.accounts}
    for account in outcome.accounts:
        if account.parent not in known:
            _branch(account, outcome.accounts, 0, lines)
    lines.append(f"{'booked in all':<44} {'':<10} {_joules(outcome.booked_microjoules):>16}")
    for gap in outcome.gaps[:GAPS_SHOWN_MAX]:
        lines.append(f"gap: {_gap_text(gap)}")
    if len(outcome.gaps) > GAPS_SHOWN_MAX:
        lines.append(f"gap: {len(outcome.gaps) - GAPS_SHOWN_MAX} more; --json has them all")
    if outcome.idle_policy is not None and outcome.workloads:
        lines += workloads_text(outcome.workloads, outcome.idle_policy)
    lines += [f"{source}: {note}" for source, note in outcome.notes]
    return "\n".join(lines)


def as_json(outcome: Outcome) -> str:
    """For programs; the same facts. Energy in microjoules, as text, since it may pass what JSON's numbers can hold."""
    return json.dumps(
        {
            "seconds": outcome.seconds,
            "rows": outcome.rows,
            "booked_energy_microjoules": str(outcome.booked_microjoules),
            "sources": [{"source": name, "channels": count} for name, count in outcome.opened],
            "channels": [_account_json(account) for account in outcome.accounts],
            "gaps": [
                {
                    "device": gap.key.device,
                    "domain": gap.key.domain,
                    "source": gap.key.source,
                    "reason": gap.reason.name.lower(),
                    "from_seconds": gap.from_seconds,
                    "to_seconds": gap.to_seconds,
                    "lower_microjoules": str(gap.lower_microjoules),
                    "upper_microjoules": None if gap.unbounded else str(gap.upper_microjoules),
                }
                for gap in outcome.gaps
            ],
            "idle_policy": None if outcome.idle_policy is None else policy_name(outcome.idle_policy),
            "workloads": [asdict(line) for line in outcome.workloads],
            "notes": [{"source": source, "note": note} for source, note in outcome.notes],
            "missing": [
                {"source": source, "reason": reason, "remedy": remedy} for source, reason, remedy in outcome.missing
            ],
        },
        indent=2,
    )


class _Ledger:
    """What the meter's records say, as a collector would read them: each channel's last sums, and all gaps."""

    def __init__(self, begun_nanoseconds: int) -> None:
        self._begun_nanoseconds = begun_nanoseconds
        self._columns: dict[int, tuple[int, int, int, int]] = {}
        self._details: list[pb.GapDetail] = []
        self._keys: dict[int, ChannelKey] = {}

    @property
    def gaps(self) -> list[Gap]:
        """All gaps, in the order in which they were found."""
        return [
            Gap(
                self._keys[detail.channel],
                GapReason(detail.reason),
                self._seconds(detail.from_boottime_nanoseconds),
                self._seconds(detail.to_boottime_nanoseconds),
                detail.lower_microjoules,
                detail.upper_microjoules,
                detail.unbounded,
            )
            for detail in self._details
        ]

    def add(self, meter: Meter, now: Instant) -> None:
        """Take what was metered since the last time."""
        cut = meter.cut(now)
        if cut is None:
            return
        payload = pb.Payload.FromString(cut.payload)
        self._keys = _keys(meter.catalog())
        for column in payload.columns:
            self._columns[column.channel] = (
                column.first_energy_microjoules + sum(column.energy_delta_microjoules),
                column.gap_lower_microjoules,
                column.gap_upper_microjoules,
                column.gap_unbounded_count,
            )
        self._details += payload.gap_details

    def accounts(self, meter: Meter, problems: dict[ChannelKey, str]) -> list[Account]:
        """All channels with their sums."""
        catalog = meter.catalog()
        keys = _keys(catalog)
        accounts = []
        for channel in catalog.channels:
            key = keys[channel.channel]
            energy, lower, upper, unbounded = self._columns.get(channel.channel, (0, 0, 0, 0))
            accounts.append(
                Account(
                    key,
                    Component(channel.component),
                    Method(channel.method),
                    Role(channel.role),
                    keys.get(channel.parent_channel),
                    channel.model,
                    channel.closed,
                    energy,
                    lower,
                    upper,
                    unbounded,
                    without_name(key.source, problems.get(key, "")),
                )
            )
        return accounts

    def _seconds(self, boottime_nanoseconds: int) -> float:
        return (boottime_nanoseconds - self._begun_nanoseconds) / NANOSECONDS_PER_SECOND


def _keys(catalog: pb.Catalog) -> dict[int, ChannelKey]:
    return {channel.channel: ChannelKey(channel.device, channel.domain, channel.source) for channel in catalog.channels}


def _note(problems: dict[ChannelKey, str], readings: Iterable[Reading]) -> None:
    """Keep why a channel could not be read, until it can."""
    for reading in readings:
        if isinstance(reading, TryAgain | Gone):
            problems[reading.key] = reading.reason
        else:
            key = getattr(reading, "key", None)
            if isinstance(key, ChannelKey):
                problems.pop(key, None)


def _notes(inventory: Inventory, meter: Meter) -> list[tuple[str, str]]:
    told = [(opened.source.name, note) for opened in inventory.opened for note in opened.source.notes()]
    notes = [(name, without_name(name, note)) for name, note in told]
    return notes + [(key.source, f"not metered: {reason}") for key, reason in meter.refused.items()]


def _channels(count: int) -> str:
    return "utilization" if count == 0 else f"{count} channel{'s' if count > 1 else ''}"


def _joules(microjoules: int) -> str:
    sign, whole = ("-" if microjoules < 0 else ""), abs(microjoules)
    return f"{sign}{whole // 1_000_000}.{whole % 1_000_000:06d} J"


def _gap_text(gap: Gap) -> str:
    bounds = "no bound" if gap.unbounded else f"{_joules(gap.lower_microjoules)} to {_joules(gap.upper_microjoules)}"
    span = f"{gap.from_seconds:g} s to {gap.to_seconds:g} s"
    return f"{gap.key.device} {gap.key.domain} {span}: {gap.reason.name.lower().replace('_', ' ')}, {bounds}"


def _branch(account: Account, every: list[Account], depth: int, out: list[str]) -> None:
    name = "  " * depth + f"{account.key.device} {account.key.domain}"
    closed = ", closed" if account.closed else ""
    what = f"{METHOD_WORDS[account.method]}, {ROLE_WORDS[account.role]}{closed}"
    problem = f"{account.problem}" if account.problem else account.model
    out.append(f"{name:<44} {account.key.source:<10} {_joules(account.energy_microjoules):>16}  ({what}) {problem}".rstrip())
    for other in every:
        if other.parent == account.key:
            _branch(other, every, depth + 1, out)


def _account_json(account: Account) -> dict[str, object]:
    return {
        "device": account.key.device,
        "domain": account.key.domain,
        "source": account.key.source,
        "component": account.component.name.lower(),
        "method": account.method.name.lower(),
        "role": account.role.name.lower(),
        "parent": f"{account.parent.device}/{account.parent.domain}" if account.parent else None,
        "model": account.model,
        "closed": account.closed,
        "energy_microjoules": str(account.energy_microjoules),
        "gap_lower_microjoules": str(account.gap_lower_microjoules),
        "gap_upper_microjoules": str(account.gap_upper_microjoules),
        "gap_unbounded_count": account.gap_unbounded_count,
        "problem": account.problem or None,
    }
