"""One channel's account: what it is, how far it is, and the samples that wait for the next record.

Does no arithmetic of energy (see counters) and no choosing (see topology); it also packs accounts into the state that a
spool record carries. The packed form is positional: fields are only ever added at the end, with a default, so that older
states load; STATE_VERSION is raised where that would be wrong.
"""

import zlib
from collections.abc import Sequence
from math import isfinite

import msgspec

from wattledger_agent.counters import RAW_LIMIT, ChannelState, Instant, Rule
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    Component,
    Method,
    Role,
)
from wattledger_agent.topology import RESIDUAL_DOMAIN, Base
from wattledger_agent.wire import NAME_CHARACTERS_MAX, milliwatts
from wattledger_agent.workload_accounts import SavedAccounts

STATE_VERSION = 1

# A gigawatt is a power station; a larger bound is a fault of its source, and would make every gap's bound meaningless.
POWER_BOUND_WATTS_MAX = 1e9

# As with the sampler's own period: trapezoids over more than this many hide what happened between.
INTEGRAL_GAP_CADENCES_MAX = 3.0

# Nothing that is read less often than each hour is a meter; a longer cadence is a fault of its source.
CADENCE_SECONDS_MAX = 3600.0


class MeterStateError(Exception):
    """A record's state can't be gone on from; the text says why and what to do."""


class Channel:
    """One open or closed channel; see its fields.

    number: on the wire, never re-used. is_fresh: no row has come yet, so that the opening still moves to the first one.
    is_offered: its source runs. parent_number: as in the catalog; closed channels keep theirs.
    values, mask: cumulative microjoules of the rows since the last cut, and in which rows they are.
    serial, opened_serial: the last row with a value, and the row in which the channel opened.
    before: energy and boottime of the reading before the last one; None if a gap lies between.
    reported: the gap sums of the last cut. bases: for a residual, what it has taken in, by channel number.
    """

    __slots__ = (
        "bases",
        "before",
        "is_closed",
        "is_fresh",
        "is_offered",
        "mask",
        "number",
        "opened_serial",
        "opening",
        "parent_number",
        "reported",
        "rule",
        "serial",
        "spec",
        "state",
        "values",
    )

    def __init__(
        self, number: int, spec: ChannelSpec, opening: Instant, state: ChannelState, rule: Rule, *, is_fresh: bool
    ) -> None:
        self.number = number
        self.spec = spec
        self.opening = opening
        self.state = state
        self.rule = rule
        self.is_fresh = is_fresh
        self.is_closed = False
        self.is_offered = False
        self.parent_number = 0
        self.values: list[int] = []
        self.mask = 0
        self.serial = 0
        self.opened_serial = 0
        self.before: tuple[int, int] | None = None
        self.bases: dict[int, Base] = {}
        self.reported = self.gap_sums()

    def open(self, at: Instant, state: ChannelState, serial: int) -> None:
        """Fix the opening: the first row has come."""
        self.opening = at
        self.state = state
        self.is_fresh = False
        self.opened_serial = serial

    def take(self, state: ChannelState, serial: int, bit: int, *, has_gap: bool) -> None:
        """Keep what a row made of the channel. bit: that of the row in masks."""
        last = self.state
        self.before = None if has_gap else (last.energy_microjoules, last.boottime_nanoseconds)
        self.state = state
        self.serial = serial
        self.mask |= bit
        self.values.append(state.energy_microjoules)

    def power_milliwatts(self) -> int | None:
        """Return the mean power between the last two readings; None if there is none."""
        if self.before is None:
            return None
        energy, boottime = self.before
        elapsed = self.state.boottime_nanoseconds - boottime
        # A microjoule a nanosecond is a million milliwatts.
        return (self.state.energy_microjoules - energy) * 1_000_000 // elapsed if elapsed > 0 else None

    def gap_sums(self) -> tuple[int, int, int]:
        """Return the cumulative bounds (microjoules) and the count of unbounded gaps."""
        state = self.state
        return state.gap_lower_microjoules, state.gap_upper_microjoules, state.gap_unbounded_count


def rule_of(spec: ChannelSpec, integral_gap_seconds_max: float) -> Rule:
    """Return what is possible on a channel of this spec. integral_gap_seconds_max: for what is read at each sample."""
    wrap = spec.counter_range_microjoules if spec.method is Method.COUNTER else None
    # Two values that a slow source missed in a row are bridged; more are a gap.
    gap_seconds = max(integral_gap_seconds_max, INTEGRAL_GAP_CADENCES_MAX * spec.cadence_seconds)
    return Rule(spec.method, milliwatts(spec.power_bound_watts), wrap, round(gap_seconds * NANOSECONDS_PER_SECOND))


def problem_of(spec: ChannelSpec) -> str | None:
    """Say in a sentence why a spec can't be metered; None if it can."""
    for name, value in (("device", spec.key.device), ("domain", spec.key.domain), ("source", spec.key.source)):
        if not value or len(value) > NAME_CHARACTERS_MAX or not value.isprintable():
            return f"the {name} {value[:40]!r} must be one line of 1 to {NAME_CHARACTERS_MAX} printable characters"
    if spec.role is Role.RESIDUAL or spec.key.domain == RESIDUAL_DOMAIN:
        return f"{spec.key.device}: residuals are reckoned by the agent, no source may offer one: choose another domain"
    if not (isfinite(spec.power_bound_watts) and 0 < spec.power_bound_watts <= POWER_BOUND_WATTS_MAX):
        return f"{spec.key.device}: the power bound {spec.power_bound_watts} W must be above 0 and at most 1e9"
    wrap = spec.counter_range_microjoules
    if wrap is not None and not 0 < wrap < RAW_LIMIT:
        return f"{spec.key.device}: the counter range {wrap} must be above 0 and below 2^63 microjoules, or none"
    for ratio in (spec.uncertainty_lower_ratio, spec.uncertainty_upper_ratio):
        if not (isfinite(ratio) and ratio >= 0):
            return f"{spec.key.device}: the uncertainty {ratio} must be 0 or more"
    if not 0 <= spec.cadence_seconds <= CADENCE_SECONDS_MAX:
        return f"{spec.key.device}: the cadence {spec.cadence_seconds} s must be 0 to {CADENCE_SECONDS_MAX:.0f}"
    return None


def is_same_account(one: ChannelSpec, other: ChannelSpec) -> bool:
    """Say whether energy of both specs can stand in one channel."""
    return _account(one) == _account(other)


def can_go_on(before: ChannelSpec, after: ChannelSpec) -> bool:
    """Say whether a channel under the new spec may begin at the old one's last reading, so that nothing is missed.

    Not where it enters the sum only now: what it shows of the time before was booked elsewhere.
    """
    if before.role is Role.RESIDUAL:
        return True
    is_new_in_sum = after.role is not Role.SHOWN and before.role is Role.SHOWN
    same = before.method is after.method and before.counter_range_microjoules == after.counter_range_microjoules
    return same and not is_new_in_sum


class SavedChannel(msgspec.Struct, frozen=True, array_like=True):
    """A channel as packed into a record's state."""

    number: int
    device: str
    domain: str
    source: str
    component: int
    method: int
    role: int
    parent: tuple[str, str, str] | None
    parent_number: int
    power_bound_watts: float
    counter_range_microjoules: int | None
    uncertainty_lower_ratio: float
    uncertainty_upper_ratio: float
    model: str
    opening: tuple[bytes, int, int, bool, int]
    is_closed: bool
    state: ChannelState
    bases: dict[int, Base]
    within: str = ""
    excludes: tuple[int, ...] = ()
    cadence_seconds: float = 0.0


class SavedMeter(msgspec.Struct, frozen=True, array_like=True):
    """A record's state. boot_id, boottime_nanoseconds: of the last row."""

    version: int
    boot_id: bytes
    boottime_nanoseconds: int
    channels: list[SavedChannel]
    workloads: SavedAccounts | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(SavedMeter)


def pack(
    boot_id: bytes, boottime_nanoseconds: int, channels: Sequence[Channel], workloads: SavedAccounts | None = None
) -> bytes:
    """Return the state from which `unpack` makes the same channels, and `unpack_workloads` the same accounts."""
    saved = SavedMeter(STATE_VERSION, boot_id, boottime_nanoseconds, [_saved(channel) for channel in channels], workloads)
    # Names and boot ids repeat: the fastest level makes a third of it, for a few microseconds a tick.
    return zlib.compress(_ENCODER.encode(saved), 1)


def unpack(state: bytes, integral_gap_seconds_max: float) -> tuple[bytes, int, list[Channel]]:
    """Return boot id and boottime of the last row, and all channels by number. Raises MeterStateError."""
    try:
        saved = _DECODER.decode(zlib.decompress(state))
        if saved.version != STATE_VERSION:
            raise ValueError(f"version {saved.version} is not {STATE_VERSION}")
        channels = [_restored(channel, integral_gap_seconds_max) for channel in saved.channels]
    except (zlib.error, msgspec.DecodeError, ValueError) as error:
        raise MeterStateError(
            f"the meter can't go on from the spool's last record ({error}): "
            "move the spool folder aside, then a new account begins"
        ) from error
    return saved.boot_id, saved.boottime_nanoseconds, channels


def unpack_workloads(state: bytes) -> SavedAccounts | None:
    """Return the accounts of workloads in a state that `unpack` has taken; None if there are none."""
    return _DECODER.decode(zlib.decompress(state)).workloads


def _account(spec: ChannelSpec) -> tuple[object, ...]:
    return spec.component, spec.method, spec.role, spec.parent, spec.counter_range_microjoules


def _saved(channel: Channel) -> SavedChannel:
    spec, opening = channel.spec, channel.opening
    parent = spec.parent
    return SavedChannel(
        channel.number,
        spec.key.device,
        spec.key.domain,
        spec.key.source,
        spec.component,
        spec.method,
        spec.role,
        None if parent is None else (parent.device, parent.domain, parent.source),
        channel.parent_number,
        spec.power_bound_watts,
        spec.counter_range_microjoules,
        spec.uncertainty_lower_ratio,
        spec.uncertainty_upper_ratio,
        spec.model,
        (
            opening.boot_id,
            opening.boottime_nanoseconds,
            opening.realtime_nanoseconds,
            opening.synchronised,
            opening.suspended_nanoseconds,
        ),
        channel.is_closed,
        channel.state,
        channel.bases,
        spec.within,
        tuple(sorted(spec.excludes)),
        spec.cadence_seconds,
    )


def _restored(saved: SavedChannel, integral_gap_seconds_max: float) -> Channel:
    spec = ChannelSpec(
        key=ChannelKey(saved.device, saved.domain, saved.source),
        component=Component(saved.component),
        method=Method(saved.method),
        role=Role(saved.role),
        power_bound_watts=saved.power_bound_watts,
        parent=None if saved.parent is None else ChannelKey(*saved.parent),
        counter_range_microjoules=saved.counter_range_microjoules,
        uncertainty_lower_ratio=saved.uncertainty_lower_ratio,
        uncertainty_upper_ratio=saved.uncertainty_upper_ratio,
        model=saved.model,
        within=saved.within,
        excludes=frozenset(map(Component, saved.excludes)),
        cadence_seconds=saved.cadence_seconds,
    )
    rule = rule_of(spec, integral_gap_seconds_max)
    channel = Channel(saved.number, spec, Instant(*saved.opening), saved.state, rule, is_fresh=False)
    channel.parent_number = saved.parent_number
    channel.is_closed = saved.is_closed
    channel.bases = saved.bases
    return channel
