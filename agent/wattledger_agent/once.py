"""`wattledger-agent once`: one reading of every source, as a tree of channels.

Books nothing and touches no spool: two reads and the difference between them, through the same meter as a running agent.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from wattledger_agent.counters import Instant
from wattledger_agent.inventory import Inventory
from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, ChannelSpec, Method, Reading, Role, TryAgain, UtilizationReading

# Long enough that a counter which is refreshed every millisecond, and a sensor that shows the mean of a second, have moved.
SPAN_SECONDS = 1.0

METHOD_WORDS = {Method.COUNTER: "counter", Method.INTEGRAL: "integral of measured power", Method.MODEL: "MODELLED"}
ROLE_WORDS = {Role.LEAF: "booked", Role.RESIDUAL: "booked, signed", Role.METER: "meter", Role.SHOWN: "shown only"}


@dataclass(frozen=True, slots=True)
class Line:
    """One channel as shown. power_watts None: it could not be read, and `problem` says why."""

    key: ChannelKey
    spec: ChannelSpec
    power_watts: float | None
    problem: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything. missing: source, reason, remedy."""

    lines: list[Line]
    utilizations: list[UtilizationReading]
    notes: list[str]
    missing: list[tuple[str, str, str]]

    @property
    def booked_watts(self) -> float:
        """Power of the accounted cut."""
        return sum(line.power_watts or 0.0 for line in self.lines if line.spec.role in (Role.LEAF, Role.RESIDUAL))


def look(inventory: Inventory, instant: Callable[[], Instant], sleep: Callable[[float], None] = time.sleep) -> Snapshot:
    """Read every source twice, a second apart."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer(inventory.specs, instant())
    readings: list[Reading] = []
    for remaining in (1, 0):
        now = instant()
        readings = [reading for source in inventory.opened for reading in source.source.read(now.boottime_nanoseconds)]
        meter.observe(readings, now)
        if remaining:
            sleep(SPAN_SECONDS)
    powers = {(power.device, power.domain): power.power_milliwatts / 1000 for power in meter.live()}
    problems = {reading.key: reading.reason for reading in readings if isinstance(reading, TryAgain)}
    return Snapshot(
        [
            Line(spec.key, spec, powers.get((spec.key.device, spec.key.domain)), problems.get(spec.key, ""))
            for spec in inventory.specs
        ],
        [reading for reading in readings if isinstance(reading, UtilizationReading)],
        [note for source in inventory.opened for note in source.source.notes()],
        [(missing.source, missing.reason, missing.remedy) for missing in inventory.missing],
    )


def as_text(snapshot: Snapshot) -> str:
    """For people: the tree, what is summed, what is missing."""
    lines: list[str] = []
    known = {line.key for line in snapshot.lines}
    for line in snapshot.lines:
        if line.spec.parent not in known:
            _branch(line, snapshot.lines, 0, lines)
    for reading in snapshot.utilizations:
        lines.append(f"{reading.device:<34} {reading.kind.name.lower():<8} {reading.ratio:8.1%}")
    lines.append(f"{'booked in all':<34} {'':<8} {snapshot.booked_watts:8.1f} W")
    lines += [f"note: {note}" for note in snapshot.notes]
    lines += [f"{source}: not read. {reason} {remedy}" for source, reason, remedy in snapshot.missing]
    return "\n".join(lines)


def as_json(snapshot: Snapshot) -> str:
    """For programs; the same facts. Power in watts, null where a channel could not be read."""
    return json.dumps(
        {
            "channels": [
                {
                    "device": line.key.device,
                    "domain": line.key.domain,
                    "source": line.key.source,
                    "component": line.spec.component.name.lower(),
                    "method": line.spec.method.name.lower(),
                    "role": line.spec.role.name.lower(),
                    "parent": f"{line.spec.parent.device}/{line.spec.parent.domain}" if line.spec.parent else None,
                    "power_watts": line.power_watts,
                    "uncertainty_lower_ratio": line.spec.uncertainty_lower_ratio,
                    "uncertainty_upper_ratio": line.spec.uncertainty_upper_ratio,
                    "model": line.spec.model,
                    "problem": line.problem or None,
                }
                for line in snapshot.lines
            ],
            "utilizations": [
                {"device": reading.device, "kind": reading.kind.name.lower(), "ratio": reading.ratio}
                for reading in snapshot.utilizations
            ],
            "booked_power_watts": snapshot.booked_watts,
            "notes": snapshot.notes,
            "missing": [
                {"source": source, "reason": reason, "remedy": remedy} for source, reason, remedy in snapshot.missing
            ],
        },
        indent=2,
    )


def _branch(line: Line, every: list[Line], depth: int, out: list[str]) -> None:
    name = "  " * depth + f"{line.key.device} {line.key.domain}"
    value = "unread" if line.power_watts is None else f"{line.power_watts:.1f} W"
    spec = line.spec
    band = ""
    if spec.uncertainty_upper_ratio:
        band = f", 95 % band -{spec.uncertainty_lower_ratio:.0%} +{spec.uncertainty_upper_ratio:.0%}"
    what = f"{METHOD_WORDS[spec.method]}, {ROLE_WORDS[spec.role]}{band}"
    out.append(f"{name:<34} {line.key.source:<8} {value:>10}  ({what}) {line.problem or spec.model}".rstrip())
    for other in every:
        if other.spec.parent == line.key:
            _branch(other, every, depth + 1, out)
