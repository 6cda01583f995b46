"""Compares continuously what two sources say of one quantity: energy of the shown one over energy of the booked one.

Books nothing and reads nothing; a disagreement is a figure to look at, and moves no joule. The sums are the meter's own
cumulative microjoules, so that a compared span is one in which both channels were read at its two ends, without a gap
between. Which channels stand for one quantity follows from their specs: see `find_pairs`.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wattledger_agent.channels import Channel
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, ChannelKey, ChannelSpec, Component, Role
from wattledger_protos.v1 import telemetry_pb2 as pb

# Long enough for a management controller that answers each half minute, short enough to follow a fault.
WINDOW_SECONDS = 300
# Less says more of the sensors' delays than of their scale.
WINDOW_SECONDS_MIN = 60
# The window moves on in steps of this; it bounds what is kept of a pair to some thirty sums.
BUCKET_SECONDS = 10

# Two sources that both meter 64 GPUs and their modules; the collector takes no more in one message.
PAIRS_MAX = 256

_BOOKED = (Role.LEAF, Role.METER)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two channels of one quantity.

    subject: the one that is not booked. reference: the booked one. added, taken: booked leaves by which the reference's
    extent differs from the subject's: what it is known not to see, and what it sees beyond the subject.
    """

    subject: Channel
    reference: Channel
    added: tuple[Channel, ...] = ()
    taken: tuple[Channel, ...] = ()

    @property
    def keys(self) -> tuple[ChannelKey, ChannelKey]:
        """What names the pair for as long as the host exists."""
        return self.subject.spec.key, self.reference.spec.key

    @property
    def members(self) -> tuple[Channel, ...]:
        """All channels of which the comparison is made."""
        return (self.subject, self.reference, *self.added, *self.taken)


def find_pairs(channels: Iterable[Channel], offered: Mapping[ChannelKey, ChannelSpec]) -> list[Pair]:
    """Return the pairs among the open channels. offered: the specs as their sources offered them, before any demotion.

    A channel that is shown, not booked, is compared with the one booked channel of its device where its spec says that it
    contains the same: it was offered as a leaf or a meter and another stands for its device; or its own source offers it
    beside its booked channel of the same device, by another method, within no other channel and with no larger bound (a
    GPU's power beside its energy counter). Parts are never compared with a whole: not where either side has several
    channels of the device without a meter of it, and not a domain within a package.
    """
    present = [channel for channel in channels if channel.is_offered and channel.spec.key in offered]
    booked: dict[str, list[Channel]] = {}
    for channel in present:
        if channel.spec.role in _BOOKED:
            booked.setdefault(channel.spec.key.device, []).append(channel)
    leaves = [channel for channel in present if channel.spec.role is Role.LEAF]
    pairs = []
    for channel in present:
        reference = _whole(booked.get(channel.spec.key.device, []))
        if channel.spec.role is Role.SHOWN and reference is not None and _is_same(channel, reference, offered):
            pairs.append(_pair(channel, reference, leaves))
    return pairs[:PAIRS_MAX]


def sentence(check: pb.LiveCrossCheck) -> str:
    """Say for people how far the two are apart."""
    return (
        f"{check.device}: {check.source} {check.domain} is {check.disagreement_ratio:+.1%} beside {check.reference_source} "
        f"{check.reference_domain}, over {check.window_seconds:.0f} s."
    )


class CrossChecks:
    """The comparisons of one host. window_seconds: how far back energy is compared."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_nanoseconds = round(window_seconds * NANOSECONDS_PER_SECOND)
        self._windows: dict[tuple[ChannelKey, ChannelKey], _Window] = {}

    def observe(self, pairs: Sequence[Pair], serial: int) -> None:
        """Take a row: each pair of which all channels have a value in the row of this serial is compared up to it."""
        for pair in pairs:
            if pair.subject.serial == serial and all(channel.serial == serial for channel in pair.members):
                window = self._windows.setdefault(pair.keys, _Window())
                window.observe(pair)
                # Where nobody asks, as without a stream, the oldest go all the same.
                window.forget_before(pair.subject.state.boottime_nanoseconds - self._window_nanoseconds)

    def live(
        self, pairs: Sequence[Pair], boottime_nanoseconds: int, least_seconds: float = WINDOW_SECONDS_MIN
    ) -> list[pb.LiveCrossCheck]:
        """Return the disagreement of each pair that was compared for long enough in the window before this moment."""
        current = {pair.keys for pair in pairs}
        self._windows = {keys: window for keys, window in self._windows.items() if keys in current}
        checks = []
        for (subject, reference), window in self._windows.items():
            window.forget_before(boottime_nanoseconds - self._window_nanoseconds)
            compared, energy, of = window.sums()
            # A part that drew nothing, or whose reference did, is not comparable: there is no ratio to zero.
            if compared < least_seconds * NANOSECONDS_PER_SECOND or energy < 0 or of <= 0:
                continue
            checks.append(
                pb.LiveCrossCheck(
                    device=subject.device,
                    source=subject.source,
                    domain=subject.domain,
                    reference_source=reference.source,
                    reference_domain=reference.domain,
                    disagreement_ratio=energy / of - 1.0,
                    window_seconds=compared / NANOSECONDS_PER_SECOND,
                )
            )
        return checks


@dataclass(slots=True)
class _Bucket:
    """Compared spans: when the first began, how much time they are, and both energies in it (microjoules)."""

    from_nanoseconds: int
    to_nanoseconds: int
    compared_nanoseconds: int = 0
    energy: int = 0
    reference_energy: int = 0


@dataclass(slots=True)
class _Point:
    """The channels' sums at one joint reading. marks: what changes when a channel has a gap or is another one."""

    boottime_nanoseconds: int
    energy: int
    reference_energy: int
    marks: tuple[object, ...]


@dataclass(slots=True)
class _Window:
    last: _Point | None = None
    buckets: deque[_Bucket] = field(default_factory=deque)

    def observe(self, pair: Pair) -> None:
        """Compare from the joint reading before up to this one, unless something was missed between."""
        point = _point(pair)
        last, self.last = self.last, point
        if last is None or last.marks != point.marks:
            return
        elapsed = point.boottime_nanoseconds - last.boottime_nanoseconds
        energy = point.energy - last.energy
        reference_energy = point.reference_energy - last.reference_energy
        if elapsed <= 0:
            return
        bucket_nanoseconds = BUCKET_SECONDS * NANOSECONDS_PER_SECOND
        if not self.buckets or point.boottime_nanoseconds - self.buckets[-1].from_nanoseconds > bucket_nanoseconds:
            self.buckets.append(_Bucket(last.boottime_nanoseconds, point.boottime_nanoseconds))
        bucket = self.buckets[-1]
        bucket.to_nanoseconds = point.boottime_nanoseconds
        bucket.compared_nanoseconds += elapsed
        bucket.energy += energy
        bucket.reference_energy += reference_energy

    def forget_before(self, boottime_nanoseconds: int) -> None:
        """Drop what ended before this moment."""
        while self.buckets and self.buckets[0].to_nanoseconds <= boottime_nanoseconds:
            self.buckets.popleft()

    def sums(self) -> tuple[int, int, int]:
        """Return compared time and both energies."""
        return (
            sum(bucket.compared_nanoseconds for bucket in self.buckets),
            sum(bucket.energy for bucket in self.buckets),
            sum(bucket.reference_energy for bucket in self.buckets),
        )


def _point(pair: Pair) -> _Point:
    reference_energy = pair.reference.state.energy_microjoules
    reference_energy += sum(channel.state.energy_microjoules for channel in pair.added)
    reference_energy -= sum(channel.state.energy_microjoules for channel in pair.taken)
    marks = tuple((channel.number, channel.state.boot_id, channel.gap_sums()) for channel in pair.members)
    return _Point(pair.subject.state.boottime_nanoseconds, pair.subject.state.energy_microjoules, reference_energy, marks)


def _whole(booked: Sequence[Channel]) -> Channel | None:
    """Return the booked channel that stands for a whole device: its meter, or its only leaf."""
    meters = [channel for channel in booked if channel.spec.role is Role.METER]
    if len(meters) == 1:
        return meters[0]
    return booked[0] if len(booked) == 1 else None


def _is_same(channel: Channel, reference: Channel, offered: Mapping[ChannelKey, ChannelSpec]) -> bool:
    key, spec = channel.spec.key, offered[channel.spec.key]
    if spec.role is Role.METER:
        return True
    if spec.role is Role.LEAF:
        # One of several leaves of its source is a part of the device.
        siblings = [
            other for other in offered.values()
            if (other.key.device, other.key.source) == (key.device, key.source) and other.role in _BOOKED
        ]  # fmt: skip
        return len(siblings) == 1
    beside = reference.spec
    is_second_view = spec.parent is None and spec.method is not beside.method and spec.component is beside.component
    # What may draw more contains more: a superchip's counter that covers its CPU too is no second view of the GPU.
    is_larger = spec.power_bound_watts > beside.power_bound_watts
    return is_second_view and not is_larger and beside.key.source == key.source


def _pair(subject: Channel, reference: Channel, leaves: Sequence[Channel]) -> Pair:
    unseen = subject.spec.excludes - reference.spec.excludes
    beyond = reference.spec.excludes - subject.spec.excludes
    if reference.spec.role is not Role.METER or not unseen | beyond:
        return Pair(subject, reference)
    return Pair(subject, reference, added=_of(beyond, leaves), taken=_of(unseen, leaves))


def _of(components: frozenset[Component], leaves: Sequence[Channel]) -> tuple[Channel, ...]:
    return tuple(channel for channel in leaves if channel.spec.component in components)
