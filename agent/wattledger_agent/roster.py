"""Knows which channels a host has: numbers them, goes on with those of the last record, closes and re-opens them.

Takes no readings; it decides when energy may stand in the same channel as before, and lays the catalog. What is summed is
topology's choice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from wattledger_agent import wire
from wattledger_agent.channels import Channel, can_go_on, is_same_account, problem_of, rule_of
from wattledger_agent.containment import NODE
from wattledger_agent.counters import ChannelState, Instant, continue_anew, open_state
from wattledger_agent.cross_checks import Pair, find_pairs
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, Role
from wattledger_agent.topology import parts_of, residual_spec, resolve_all
from wattledger_protos.v1 import telemetry_pb2 as pb

# A channel closes and goes on under a new number here, so that no value comes near the 2^62 that the wire refuses. At 10 kW
# that is after seven years; one step can't leap over the rest, because counters refuses it.
REOPEN_MICROJOULES = 2**61

_BOOKED = (Role.LEAF, Role.METER)


@dataclass(frozen=True, slots=True)
class Joint:
    """A residual with its meter, all open parts, and those of them whose source runs."""

    residual: Channel
    meter: Channel
    parts: list[Channel]
    present: list[Channel]


class Roster:
    """The channels of one epoch.

    channels: all so far, by number from 1. open: those not closed, by key. joints: the residuals that can be reckoned.
    pairs: channels of one quantity, to be compared. refused: why a spec is not metered, by key.
    """

    def __init__(self, channels: list[Channel], integral_gap_seconds_max: float) -> None:
        self.channels = channels
        self.open = {channel.spec.key: channel for channel in channels if not channel.is_closed}
        self.joints: list[Joint] = []
        self.pairs: list[Pair] = []
        self.refused: dict[ChannelKey, str] = {}
        self._ended = {channel.spec.key: channel.state for channel in channels if channel.is_closed}
        self._integral_gap_seconds_max = integral_gap_seconds_max
        self._offered: dict[ChannelKey, ChannelSpec] = {}
        self._offered_at: Instant | None = None
        self._returned: set[ChannelKey] = set()
        self._catalog: tuple[pb.Catalog, bytes] | None = None

    def offer(self, specs: Iterable[ChannelSpec], now: Instant, returned: Iterable[ChannelKey] = ()) -> None:
        """Note what a source offers. Several calls add up; a key's last spec counts. returned: see Offer."""
        self._returned |= set(returned)
        for spec in specs:
            problem = problem_of(spec)
            if problem is None:
                self._offered[spec.key] = spec
                self.refused.pop(spec.key, None)
            else:
                self.refused[spec.key] = problem
        # Arranged only when it is needed: half of a topology would close channels that the other half keeps.
        self._offered_at = now

    def withdraw(self, keys: Iterable[ChannelKey], now: Instant) -> None:
        """Note that the source of these channels is away: they stay open, and no residual waits for them."""
        self.arrange()
        for key in keys:
            if self._offered.pop(key, None) is not None and key in self.open:
                self.open[key].is_offered = False
                self._offered_at = now

    def remove(self, key: ChannelKey, now: Instant) -> bool:
        """Close the channel of a part that is gone, and its residual if it was a meter; False if there is none."""
        self.arrange()
        channel = self.open.get(key)
        self._offered.pop(key, None)
        if channel is None:
            return False
        self._close(channel)
        self._offered_at = now
        self.arrange()
        return True

    def arrange(self) -> None:
        """Bring the channels in line with what is offered, if that has changed."""
        now, self._offered_at = self._offered_at, None
        if now is None:
            return
        incumbents = [
            channel.spec
            for channel in self.open.values()
            if channel.spec.role in _BOOKED and channel.state.value is not None and channel.state.boot_id == now.boot_id
        ]
        absent = [
            channel.spec
            for key, channel in self.open.items()
            if key not in self._offered and channel.spec.role is Role.METER and channel.spec not in incumbents
        ]
        found = resolve_all(self._offered.values(), incumbents, absent)
        resolved = [found[key] for key in self._offered]
        away = [key for key in self.open if key not in self._offered]
        for key in away:
            self._move_absent(self.open[key], found.get(key))
        parts = [*resolved, *(self.open[key].spec for key in away if key in self.open)]
        residuals = [residual_spec(spec, parts_of(spec.key, parts)) for spec in resolved if spec.role is Role.METER]
        for spec in (*resolved, *residuals):
            self._register(spec, now)
        wanted = {spec.key for spec in residuals}
        for channel in [channel for channel in self.open.values() if channel.spec.role is Role.RESIDUAL]:
            meter = channel.spec.parent
            # The residual of a meter that is only away goes on when the meter does.
            if channel.spec.key not in wanted and (meter in self._offered or meter not in self.open):
                self._close(channel)
        self._link()

    def reopen_large(self) -> None:
        """Let channels whose sums have grown large go on under new numbers, at 0."""
        large = [
            channel
            for channel in self.open.values()
            if max(map(abs, (channel.state.energy_microjoules, *channel.gap_sums()[:2]))) >= REOPEN_MICROJOULES
        ]
        # Without room for more numbers the large ones go on: counters lets no value leave the wire's range.
        for channel in large[: wire.CHANNELS_MAX - len(self.channels)]:
            self._replace(channel, channel.spec, None)
        if large:
            self._link()

    def start(self, channel: Channel, at: Instant, serial: int) -> None:
        """Fix a channel's opening at its first row. A recorded span may begin before, but not before a predecessor's end."""
        state = open_state(at)
        ended = self._ended.get(channel.spec.key)
        if ended is not None and ended.boot_id == at.boot_id and ended.boottime_nanoseconds > at.boottime_nanoseconds:
            state = continue_anew(ended)
            at = _point(ended)
        channel.open(at, state, serial)
        self._catalog = None

    def catalog(self) -> tuple[pb.Catalog, bytes]:
        """Return the catalog of all channels so far, and its bytes."""
        if self._catalog is None:
            catalog = wire.catalog(
                [
                    wire.channel(
                        channel.number,
                        channel.spec,
                        parent=channel.parent_number,
                        opened=channel.opening,
                        ended=channel.state if channel.is_closed else None,
                    )
                    for channel in self.channels
                ]
            )
            self._catalog = catalog, catalog.SerializeToString(deterministic=True)
        return self._catalog

    def _register(self, spec: ChannelSpec, now: Instant) -> None:
        channel = self.open.get(spec.key)
        if channel is None:
            if not self._take_up(spec, now):
                self._add(spec, now, open_state(now), is_fresh=True)
            return
        channel.is_offered = True
        if channel.spec == spec:
            return
        if channel.is_fresh or is_same_account(channel.spec, spec):
            channel.spec = spec
            channel.rule = rule_of(spec, self._integral_gap_seconds_max)
            self._catalog = None
        else:
            self._replace(channel, spec, now)

    def _take_up(self, spec: ChannelSpec, now: Instant) -> bool:
        """Let a part that is back go on, under a new number, from its last reading; False if it is none.

        What its counter then says of the time between, or does not, is what it says after any other silence.
        """
        ended = self._ended.get(spec.key) if spec.key in self._returned else None
        self._returned.discard(spec.key)
        if ended is None or ended.value is None or ended.boot_id != now.boot_id:
            return False
        before = next(one.spec for one in reversed(self.channels) if one.is_closed and one.spec.key == spec.key)
        point = _point(ended)
        self._add(spec, point, continue_anew(ended) if can_go_on(before, spec) else open_state(point), is_fresh=False)
        return True

    def _move_absent(self, channel: Channel, found: ChannelSpec | None) -> None:
        """Let a channel whose source is away go on under the meter that now contains it."""
        if found is not None and found.role is channel.spec.role and found.parent != channel.spec.parent:
            self._replace(channel, replace(channel.spec, parent=found.parent), None)
            self.open[channel.spec.key].is_offered = False

    def _replace(self, channel: Channel, spec: ChannelSpec, now: Instant | None) -> None:
        """Close a channel and open its successor. now: None where the spec is the same."""
        if len(self.channels) >= wire.CHANNELS_MAX:
            self._refuse(spec)
            return
        self._close(channel)
        if now is not None and not can_go_on(channel.spec, spec):
            if spec.role is Role.LEAF and self._stood_back_for_nothing(channel, now):
                # Its first reading then has a gap from there on: what it showed is in no sum.
                self._add(spec, channel.opening, open_state(channel.opening), is_fresh=False)
            else:
                self._add(spec, now, open_state(now), is_fresh=True)
            return
        successor = self._add(spec, _point(channel.state), continue_anew(channel.state), is_fresh=False)
        if successor is not None:
            # A residual goes on from its last joint reading.
            successor.bases = channel.bases

    def _stood_back_for_nothing(self, channel: Channel, now: Instant) -> bool:
        """Say whether a model of the node was only shown while nothing that it stands in for has told anything."""
        spec, opening = channel.spec, channel.opening
        if spec.key.device != NODE or spec.method is not Method.MODEL or channel.is_fresh or opening.boot_id != now.boot_id:
            return False
        return not any(
            _has_told_since(other.state, opening)
            for other in self.channels
            if other.spec.method is not Method.MODEL
            and (other.spec.key.device == NODE or other.spec.component is Component.CPU)
        )

    def _add(self, spec: ChannelSpec, opening: Instant, state: ChannelState, *, is_fresh: bool) -> Channel | None:
        if len(self.channels) >= wire.CHANNELS_MAX:
            self._refuse(spec)
            return None
        rule = rule_of(spec, self._integral_gap_seconds_max)
        channel = Channel(len(self.channels) + 1, spec, opening, state, rule, is_fresh=is_fresh)
        channel.is_offered = True
        self.channels.append(channel)
        self.open[spec.key] = channel
        self._catalog = None
        return channel

    def _refuse(self, spec: ChannelSpec) -> None:
        self.refused[spec.key] = (
            f"{spec.key.device}: this account already has {wire.CHANNELS_MAX} channels, the most that the wire takes: "
            "move the spool folder aside, then a new account begins"
        )

    def _close(self, channel: Channel) -> None:
        channel.is_closed = True
        channel.is_offered = False
        del self.open[channel.spec.key]
        self._ended[channel.spec.key] = channel.state
        self._catalog = None

    def _link(self) -> None:
        """Find each channel's parent, each residual's meter and parts, and what is compared."""
        children: dict[ChannelKey, list[Channel]] = {}
        for channel in self.open.values():
            parent = None if channel.spec.parent is None else self.open.get(channel.spec.parent)
            number = 0 if parent is None else parent.number
            if channel.parent_number != number:
                channel.parent_number = number
                self._catalog = None
            if parent is not None and channel.spec.role in _BOOKED:
                children.setdefault(parent.spec.key, []).append(channel)
        self.joints = []
        for channel in self.open.values():
            meter = channel.spec.parent
            # Also while the meter is away: its silence is a gap of the residual too.
            is_reckoned = channel.is_offered or bool(channel.bases)
            if channel.spec.role is Role.RESIDUAL and is_reckoned and meter in self.open:
                parts = children.get(meter, [])
                present = [part for part in parts if part.is_offered]
                self.joints.append(Joint(channel, self.open[meter], parts, present))
        self.pairs = find_pairs(self.open.values(), self._offered)


def _has_told_since(state: ChannelState, moment: Instant) -> bool:
    is_later = state.boot_id == moment.boot_id and state.boottime_nanoseconds > moment.boottime_nanoseconds
    return state.value is not None and is_later


def _point(state: ChannelState) -> Instant:
    return Instant(
        state.boot_id,
        state.boottime_nanoseconds,
        state.realtime_nanoseconds,
        state.synchronised,
        state.suspended_nanoseconds,
    )
