"""What a fleet draws at present: Live messages as values, and a bounded ring of the last hour's power.

Holds no totals and books nothing: a Live value is a gauge that is forgotten when its host falls silent. Source of truth
for the fields is protos/wattledger_protos/v1/telemetry.proto. Times are seconds since 1970-01-01 UTC, power is milliwatts.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wattledger_collector.live_details import NO_DETAILS, LiveDetails, read_details
from wattledger_collector.records import NANOSECONDS_PER_SECOND, Component, Method, Role
from wattledger_protos.v1 import telemetry_pb2 as pb

# What is kept of one Live message. A server with 16 GPUs and 8 sockets sends fewer than 100 of each; the rest is cut.
LIVE_ENTRIES_MAX = 512
LIVE_TEXT_CHARACTERS_MAX = 512

# One point in five seconds for an hour: 720 points, about 200 kB.
HISTORY_SECONDS = 3600
HISTORY_STEP_SECONDS = 5
# After so long without a value from any host the fleet comes back one by one, which is no step of its power.
PAUSE_SECONDS = 60


@dataclass(frozen=True, slots=True, eq=False)
class SeriesKey:
    """What a host's series are told apart by: a component, and how its energy is made.

    There is one object of each; they are compared by identity, since hashing two enum members is what costs most here.
    """

    component: Component
    method: Method


_KEYS = {(int(component), int(method)): SeriesKey(component, method) for component in Component for method in Method}
_ROLES = {int(role): role for role in Role}

# What is summed; see records.ChannelInfo.is_booked.
BOOKED_ROLES = (Role.LEAF, Role.RESIDUAL)


def series_key(component: Component, method: Method) -> SeriesKey:
    """The one key of a component and method."""
    return _KEYS[component, method]


@dataclass(frozen=True, slots=True)
class LiveChannel:
    """Present power of one channel, for people who look at one host."""

    device: str
    domain: str
    component: Component
    method: Method
    role: Role
    milliwatts: int
    lower_ratio: float
    upper_ratio: float


@dataclass(frozen=True, slots=True)
class Utilizations:
    """Present utilization of some devices; millionths, in [0, 1000000]."""

    devices: tuple[str, ...]
    ppm: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How the sources of an agent fare since the agent's start; a column each."""

    sources: tuple[str, ...]
    reads: tuple[int, ...]
    failures: tuple[int, ...]
    deadline_misses: tuple[int, ...]
    last_errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LiveReading:
    """One Live message, checked and summed over the accounted cut.

    keys, milliwatts: power by component and method, in columns. utilizations: by the number of the kind on the wire.
    agent_cpu_nanoseconds, agent_memory_bytes: 0 where the agent does not tell.
    clock_offset_seconds: how far the host's clock is ahead of the collector's, the way of the message included; None where
    the agent does not tell.
    lower, upper: ends of the 95 % band of the sum; errors are added linearly, since those of models are alike from host to
    host and do not cancel out.
    """

    received_seconds: float
    keys: tuple[SeriesKey, ...]
    milliwatts: tuple[int, ...]
    lower_milliwatts: float
    upper_milliwatts: float
    channels: tuple[LiveChannel, ...]
    utilizations: Mapping[int, Utilizations]
    sources: SourceHealth
    spool_bytes: int
    spool_unacknowledged_records: int
    spool_thinned_samples: int
    agent_cpu_nanoseconds: int = 0
    agent_memory_bytes: int = 0
    clock_offset_seconds: float | None = None
    details: LiveDetails = NO_DETAILS


def read_live(live: pb.Live, received_seconds: float) -> LiveReading:
    """Take over a Live message. What this release does not know (a component, a role) is left out, never guessed."""
    channels: list[LiveChannel] = []
    sums: dict[SeriesKey, int] = {}
    lower = upper = 0.0
    for power in live.powers[:LIVE_ENTRIES_MAX]:
        key = _KEYS.get((power.component, power.method))
        role = _ROLES.get(power.role)
        if key is None or role is None:
            continue
        milliwatts = power.power_milliwatts
        channel = LiveChannel(
            power.device[:LIVE_TEXT_CHARACTERS_MAX],
            power.domain[:LIVE_TEXT_CHARACTERS_MAX],
            key.component,
            key.method,
            role,
            milliwatts,
            power.uncertainty_lower_ratio,
            power.uncertainty_upper_ratio,
        )
        channels.append(channel)
        if role in BOOKED_ROLES:
            sums[key] = sums.get(key, 0) + milliwatts
            lower += milliwatts - abs(milliwatts) * channel.lower_ratio
            upper += milliwatts + abs(milliwatts) * channel.upper_ratio
    return LiveReading(
        received_seconds=received_seconds,
        keys=tuple(sums),
        milliwatts=tuple(sums.values()),
        lower_milliwatts=lower,
        upper_milliwatts=upper,
        channels=tuple(channels),
        utilizations=_utilizations(live.utilizations[:LIVE_ENTRIES_MAX]),
        sources=_sources(live.sources[:LIVE_ENTRIES_MAX]),
        spool_bytes=live.spool_bytes,
        spool_unacknowledged_records=live.spool_unacknowledged_records,
        spool_thinned_samples=live.spool_thinned_samples,
        agent_cpu_nanoseconds=live.agent_cpu_nanoseconds,
        agent_memory_bytes=live.agent_memory_bytes,
        clock_offset_seconds=_clock_offset_seconds(live.clock, received_seconds),
        details=read_details(live),
    )


def _clock_offset_seconds(clock: pb.ClockPair, received_seconds: float) -> float | None:
    if not clock.realtime_nanoseconds:
        return None
    return clock.realtime_nanoseconds / NANOSECONDS_PER_SECOND - received_seconds


def _utilizations(entries: Iterable[pb.LiveUtilization]) -> Mapping[int, Utilizations]:
    # Dicts, so that a device named twice can't make two series of one name.
    kinds: dict[int, dict[str, int]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, {})[entry.device[:LIVE_TEXT_CHARACTERS_MAX]] = min(entry.ppm, 1_000_000)
    return {kind: Utilizations(tuple(devices), tuple(devices.values())) for kind, devices in kinds.items()}


def _sources(entries: Iterable[pb.LiveSource]) -> SourceHealth:
    by_name = {entry.source[:LIVE_TEXT_CHARACTERS_MAX]: entry for entry in entries}
    rows = by_name.values()
    return SourceHealth(
        sources=tuple(by_name),
        reads=tuple(entry.reads for entry in rows),
        failures=tuple(entry.failures for entry in rows),
        deadline_misses=tuple(entry.deadline_misses for entry in rows),
        last_errors=tuple(entry.last_error[:LIVE_TEXT_CHARACTERS_MAX] for entry in rows),
    )


@dataclass(slots=True)
class PowerSum:
    """Power of several hosts. hosts: how many gave a value; with none the power is unknown, not zero."""

    hosts: int = 0
    by_series: dict[SeriesKey, int] = field(default_factory=dict)
    lower_milliwatts: float = 0.0
    upper_milliwatts: float = 0.0

    def add(self, reading: LiveReading) -> None:
        """Add the reading of one more host."""
        if not reading.keys:
            return
        self.hosts += 1
        for key, milliwatts in zip(reading.keys, reading.milliwatts, strict=True):
            self.by_series[key] = self.by_series.get(key, 0) + milliwatts
        self.lower_milliwatts += reading.lower_milliwatts
        self.upper_milliwatts += reading.upper_milliwatts

    def merge(self, other: "PowerSum") -> None:
        """Add the power of other hosts."""
        self.hosts += other.hosts
        for key, milliwatts in other.by_series.items():
            self.by_series[key] = self.by_series.get(key, 0) + milliwatts
        self.lower_milliwatts += other.lower_milliwatts
        self.upper_milliwatts += other.upper_milliwatts

    @property
    def milliwatts(self) -> int:
        """Power of all."""
        return sum(self.by_series.values())

    @property
    def modelled_milliwatts(self) -> int:
        """The part that is estimated."""
        return sum(value for key, value in self.by_series.items() if key.method is Method.MODEL)


@dataclass(frozen=True, slots=True)
class PowerPoint:
    """The fleet's power at one moment."""

    at_seconds: float
    power: PowerSum


class PowerHistory:
    """The last hour, one point in five seconds. While no host reports, no point is made: a hole, never a zero."""

    def __init__(self) -> None:
        self._points: deque[PowerPoint] = deque(maxlen=HISTORY_SECONDS // HISTORY_STEP_SECONDS)
        self._step_began_seconds: float | None = None

    def is_due(self, now_seconds: float) -> bool:
        """Whether it is time for another point. A clock that stepped back makes one due as well.

        The first one, and that after a pause, waits a step: by then all hosts that are there have sent a value.
        """
        began = self._step_began_seconds
        if began is None or now_seconds - began > PAUSE_SECONDS:
            self._step_began_seconds = now_seconds
            return False
        return not 0 <= now_seconds - began < HISTORY_STEP_SECONDS

    def add(self, now_seconds: float, power: PowerSum) -> None:
        """Append a point; points that a clock step put into the future go."""
        self._step_began_seconds = now_seconds
        while self._points and self._points[-1].at_seconds >= now_seconds:
            self._points.pop()
        if power.hosts:
            self._points.append(PowerPoint(now_seconds, power))

    def points(self, now_seconds: float) -> Sequence[PowerPoint]:
        """The points of the last hour, oldest first."""
        return [point for point in list(self._points) if point.at_seconds > now_seconds - HISTORY_SECONDS]
