"""`wattledger-agent once`: one reading of every source, as a tree of channels.

Books nothing and touches no spool: a few reads and the differences between them, through the same meter as a running agent.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from wattledger_agent.counters import Instant
from wattledger_agent.folding import why_shown
from wattledger_agent.inventory import Inventory, without_name
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    Component,
    Gone,
    IdlePolicy,
    Method,
    PowerReading,
    Reading,
    Role,
    TryAgain,
    UtilizationReading,
)
from wattledger_agent.worker import Reader, reader_for
from wattledger_agent.workload_lines import WorkloadLine, policy_name, workload_lines
from wattledger_agent.workload_lines import as_text as workloads_text
from wattledger_agent.workload_meter import WorkloadSettings

# A power needs two values, and an estimate has its first value when a load was seen between two reads.
READS = 3

# Long enough that a counter which is refreshed every millisecond has moved, and the kernel's CPU times too.
PAUSE_SECONDS = 0.5

# A driver that has not answered by then hangs; all reads of a look together.
DEADLINE_SECONDS = 4.0

# What is well is read in milliseconds, also when the deadline was used up by another source.
READ_SECONDS_MIN = 0.5

# Each source is opened by then, or left out: somebody waits for the answer.
OPEN_SECONDS_MAX = 6.0

# For sources to close; what hangs is left behind.
CLOSE_SECONDS_MAX = 1.0

METHOD_WORDS = {Method.COUNTER: "counter", Method.INTEGRAL: "integral of measured power", Method.MODEL: "MODELLED"}
ROLE_WORDS = {Role.LEAF: "booked", Role.RESIDUAL: "booked, signed", Role.METER: "meter", Role.SHOWN: "shown only"}


@dataclass(frozen=True, slots=True)
class Line:
    """One channel as shown. power_watts None: it has no value, and `problem` says why.

    parent: the channel that contains it. lower_ratio, upper_ratio: 95 % band; 0: unknown. model: the part's name.
    why_shown: why it is not booked though its source offered it for that; empty if it is booked, or was never offered so.
    """

    key: ChannelKey
    component: Component
    method: Method
    role: Role
    parent: ChannelKey | None
    lower_ratio: float
    upper_ratio: float
    model: str
    power_watts: float | None
    problem: str
    why_shown: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two channels of one quantity. ratio: energy of the first over that of the booked one, less 1; None: not known yet."""

    subject: ChannelKey
    reference: ChannelKey
    ratio: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything. notes: source and sentence. missing: source, reason, remedy.

    workloads: the largest, under the idle policy; None: they are not read. comparisons: what two sources say of one
    quantity. silent: sources that did not answer in time, and what is said of them.
    """

    lines: list[Line]
    utilizations: list[UtilizationReading]
    notes: list[tuple[str, str]]
    missing: list[tuple[str, str, str]]
    workloads: list[WorkloadLine] = field(default_factory=list)
    idle_policy: IdlePolicy | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    silent: list[tuple[str, str]] = field(default_factory=list)

    @property
    def booked_watts(self) -> float | None:
        """Power of the accounted cut; None where no channel of it has a value."""
        powers = [line.power_watts for line in self.lines if line.role in (Role.LEAF, Role.RESIDUAL)]
        known = [power for power in powers if power is not None]
        return sum(known) if known else None


def look(
    inventory: Inventory,
    instant: Callable[[], Instant],
    sleep: Callable[[float], None] = time.sleep,
    workloads: WorkloadSettings | None = None,
) -> Snapshot:
    """Read every source a few times within a second, and close it. Never raises for what a source does."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0, workloads=workloads)
    now = instant()
    meter.offer(inventory.specs, now)
    readers = [reader_for(source.source) for source in inventory.opened]
    readings: list[Reading] = []
    slow = {spec.key for spec in inventory.specs if spec.cadence_seconds > 0}
    told: dict[ChannelKey, PowerReading] = {}
    begun: dict[ChannelKey, tuple[int, int]] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        for remaining in range(READS - 1, -1, -1):
            now = instant()
            readings = _with_told(_read(readers, now, deadline), slow, told)
            meter.observe(readings, now)
            for channel in meter.open_channels:
                if channel.before is not None:
                    begun.setdefault(channel.spec.key, channel.before)
            if remaining:
                sleep(PAUSE_SECONDS)
                deadline += PAUSE_SECONDS
        # What a source finds while it is open: closed, it would miss everything.
        notes = _notes(inventory)
        silent = [(reader.source.name, reader.health.last_error) for reader in readers if reader.health.deadline_misses]
    finally:
        _close(readers)
    return Snapshot(
        _lines(meter, readers, readings, inventory.specs, begun),
        [reading for reading in readings if isinstance(reading, UtilizationReading)],
        [*((name, without_name(name, note)) for name, note in notes), *_refusals(meter)],
        [(missing.source, without_name(missing.source, missing.reason), missing.remedy) for missing in inventory.missing],
        [] if meter.workloads is None else workload_lines(meter.workloads.all(), _seconds(now, begun)),
        None if workloads is None else workloads.policy,
        _comparisons(meter),
        [(name, without_name(name, error)) for name, error in silent],
    )


def as_text(snapshot: Snapshot) -> str:
    """For people: the tree, what is summed, what is missing."""
    lines = [tree_text(snapshot)]
    lines += [f"{source}: {note}" for source, note in snapshot.notes]
    lines += [f"{source}: not read: {reason} {remedy}" for source, reason, remedy in snapshot.missing]
    return "\n".join(lines)


def tree_text(snapshot: Snapshot) -> str:
    """For people: the tree with what is booked and what is folded, what is summed, what is compared, who did not answer."""
    lines: list[str] = []
    known = {line.key for line in snapshot.lines}
    for line in snapshot.lines:
        if line.parent not in known:
            _branch(line, snapshot.lines, 0, lines)
    for reading in snapshot.utilizations:
        lines.append(f"{reading.device:<44} {reading.kind.name.lower():<8} {reading.ratio:>10.1%}")
    lines.append(f"{'booked in all':<44} {'':<8} {_watts(snapshot.booked_watts):>10}")
    if snapshot.idle_policy is not None and snapshot.workloads:
        lines += workloads_text(snapshot.workloads, snapshot.idle_policy)
    lines += [comparison_text(one) for one in snapshot.comparisons]
    lines += [f"{source}: left out: {told}" for source, told in snapshot.silent]
    return "\n".join(lines)


def as_json(snapshot: Snapshot) -> str:
    """For programs; the same facts. Power in watts, null where a channel has no value."""
    notes = [{"source": source, "note": note} for source, note in snapshot.notes]
    missing = [{"source": source, "reason": reason, "remedy": remedy} for source, reason, remedy in snapshot.missing]
    return json.dumps({**tree_json(snapshot), "notes": notes, "missing": missing}, indent=2)


def tree_json(snapshot: Snapshot) -> dict[str, object]:
    """The tree for programs."""
    return {
        "channels": [
            {
                "device": line.key.device,
                "domain": line.key.domain,
                "source": line.key.source,
                "component": line.component.name.lower(),
                "method": line.method.name.lower(),
                "role": line.role.name.lower(),
                "parent": f"{line.parent.device}/{line.parent.domain}" if line.parent else None,
                "power_watts": line.power_watts,
                "uncertainty_lower_ratio": line.lower_ratio,
                "uncertainty_upper_ratio": line.upper_ratio,
                "model": line.model,
                "problem": line.problem or None,
                "not_booked_because": line.why_shown or None,
            }
            for line in snapshot.lines
        ],
        "utilizations": [
            {"device": reading.device, "kind": reading.kind.name.lower(), "ratio": reading.ratio}
            for reading in snapshot.utilizations
        ],
        "booked_power_watts": snapshot.booked_watts,
        "idle_policy": None if snapshot.idle_policy is None else policy_name(snapshot.idle_policy),
        "workloads": [asdict(line) for line in snapshot.workloads],
        "comparisons": _comparisons_json(snapshot.comparisons),
        "silent": [{"source": source, "problem": told} for source, told in snapshot.silent],
    }


def _comparisons_json(comparisons: Sequence[Comparison]) -> list[dict[str, object]]:
    """The comparisons for programs. disagreement_ratio: null where it is not known yet."""
    return [
        {
            "device": one.subject.device,
            "source": one.subject.source,
            "domain": one.subject.domain,
            "reference_source": one.reference.source,
            "reference_domain": one.reference.domain,
            "disagreement_ratio": one.ratio,
            "window_seconds": one.seconds,
        }
        for one in comparisons
    ]


def comparison_text(one: Comparison) -> str:
    """Say for people how far the two are apart."""
    pair = f"{one.subject.device}: {one.subject.source} {one.subject.domain}"
    beside = f"beside {one.reference.source} {one.reference.domain}"
    if one.ratio is None:
        return f"{pair} is compared {beside}; this look was too short to tell how far they are apart"
    return f"{pair} is {one.ratio:+.1%} {beside}, over {one.seconds:.1f} s"


def _seconds(end: Instant, begun: Mapping[ChannelKey, tuple[int, int]]) -> float:
    """How long there has been energy to divide: since the first step of any channel."""
    begin = min((boottime for _, boottime in begun.values()), default=end.boottime_nanoseconds)
    return (end.boottime_nanoseconds - begin) / NANOSECONDS_PER_SECOND


def _read(readers: Sequence[Reader], now: Instant, deadline: float) -> list[Reading]:
    """deadline: of all sources together, on the monotonic clock."""
    for reader in readers:
        reader.begin(now.boottime_nanoseconds)
    return [reading for reader in readers for reading in reader.finish(max(READ_SECONDS_MIN, deadline - time.monotonic()))]


def _close(readers: Sequence[Reader]) -> None:
    """Close all sources side by side; a management controller that hangs is not waited for."""
    closers = [threading.Thread(target=reader.close, name=f"close-{reader.source.name}", daemon=True) for reader in readers]
    for closer in closers:
        closer.start()
    deadline = time.monotonic() + CLOSE_SECONDS_MAX
    for closer in closers:
        closer.join(max(0.0, deadline - time.monotonic()))


def _comparisons(meter: Meter) -> list[Comparison]:
    """What is compared, and how far the two were apart in this look, where both told their energy."""
    known = {
        (check.device, check.source, check.domain): check
        for check in meter.live_cross_checks(least_seconds=READ_SECONDS_MIN)
    }
    comparisons = []
    for subject, reference in meter.compared():
        check = known.get((subject.device, subject.source, subject.domain))
        ratio, seconds = (None, 0.0) if check is None else (check.disagreement_ratio, check.window_seconds)
        comparisons.append(Comparison(subject, reference, ratio, seconds))
    return comparisons


def _with_told(readings: list[Reading], slow: Collection[ChannelKey], told: dict[ChannelKey, PowerReading]) -> list[Reading]:
    """A slow source tells one power in a look; it stands for the next reads too, since a power needs two values."""
    told |= {reading.key: reading for reading in readings if isinstance(reading, PowerReading) and reading.key in slow}
    spoken = {reading.key for reading in readings if isinstance(reading, PowerReading | TryAgain | Gone)}
    return [*readings, *(reading for key, reading in told.items() if key not in spoken)]


def _lines(
    meter: Meter,
    readers: Sequence[Reader],
    readings: Sequence[Reading],
    offered: Sequence[ChannelSpec],
    begun: Mapping[ChannelKey, tuple[int, int]],
) -> list[Line]:
    """All channels as the meter took them: with their place in the sum, and with the residuals that it reckons."""
    powers = _powers(meter, begun)
    failures = {reader.source.name: reader.health.last_error for reader in readers}
    reasons = {reading.key: reading.reason for reading in readings if isinstance(reading, TryAgain | Gone)}
    channels = meter.catalog().channels
    keys = {channel.channel: ChannelKey(channel.device, channel.domain, channel.source) for channel in channels}
    roles = {keys[channel.channel]: Role(channel.role) for channel in channels if not channel.closed}
    reasons_shown = why_shown(offered, roles)
    lines = []
    for channel in channels:
        key = keys[channel.channel]
        power = None if channel.closed else powers.get(key)
        problem = reasons.get(key, "") or (failures.get(key.source, "") if power is None else "")
        lines.append(
            Line(
                key,
                Component(channel.component),
                Method(channel.method),
                Role(channel.role),
                keys.get(channel.parent_channel),
                channel.uncertainty_lower_ratio,
                channel.uncertainty_upper_ratio,
                channel.model,
                power,
                without_name(key.source, problem),
                reasons_shown.get(key, ""),
            )
        )
    return lines


def _powers(meter: Meter, begun: Mapping[ChannelKey, tuple[int, int]]) -> dict[ChannelKey, float]:
    """The mean power of each channel since its first step without a gap: what workloads are shown over, too."""
    means = {}
    for channel in meter.open_channels:
        energy, boottime = begun.get(channel.spec.key, (0, channel.state.boottime_nanoseconds))
        elapsed = channel.state.boottime_nanoseconds - boottime
        if elapsed > 0 and channel.power_milliwatts() is not None:
            means[channel.spec.key] = (channel.state.energy_microjoules - energy) * 1000 / elapsed
    return means


def _notes(inventory: Inventory) -> list[tuple[str, str]]:
    return [(source.source.name, note) for source in inventory.opened for note in source.source.notes()]


def _refusals(meter: Meter) -> list[tuple[str, str]]:
    return [(key.source, f"not metered: {reason}") for key, reason in meter.refused.items()]


def _watts(watts: float | None) -> str:
    return "unread" if watts is None else f"{watts:.1f} W"


def _branch(line: Line, every: list[Line], depth: int, out: list[str]) -> None:
    name = "  " * depth + f"{line.key.device} {line.key.domain}"
    band = f", 95 % band -{line.lower_ratio:.0%} +{line.upper_ratio:.0%}" if line.upper_ratio else ""
    what = f"{METHOD_WORDS[line.method]}, {ROLE_WORDS[line.role]}{band}"
    out.append(
        f"{name:<44} {line.key.source:<8} {_watts(line.power_watts):>10}  ({what}) {line.problem or line.model}".rstrip()
    )
    if line.why_shown:
        out.append(f"{'  ' * depth}    not booked: {line.why_shown}")
    for other in every:
        if other.parent == line.key:
            _branch(other, every, depth + 1, out)
