"""Decides what is summed, so that every joule counts once: leaves, and one signed residual for each node or module meter.

Reads nothing and keeps nothing; it turns specs into specs, and joint readings into residuals. Source of truth: the README's
rules of the accounted cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from wattledger_agent.counters import ChannelState, GapDetail, GapReason, Instant, Rule, add_gap, elapsed_nanoseconds
from wattledger_agent.readings import (
    ENERGY_MICROJOULES_LIMIT,
    ChannelKey,
    ChannelSpec,
    Component,
    Method,
    Role,
)

RESIDUAL_DOMAIN = "residual"

# The device that is the whole host.
NODE = "node"

_BOOKED = (Role.LEAF, Role.METER)


def resolve(offered: Iterable[ChannelSpec], incumbents: Iterable[ChannelSpec] = ()) -> list[ChannelSpec]:
    """Return the offered specs with the roles and parents that make their sum count each joule once.

    Where several sources meter one device, one is primary and the others are shown: the source with the better method
    (counter, integral, model), then the incumbent, then the first offered. incumbents: booked channels that were already
    read in this boot; they keep their device even while their source is away, because a counter recovers what it missed.
    What lies within a leaf is shown. The parts of a meter that is only shown belong to the primary one of its device. A
    modelled node stands in for measured CPUs, never beside them, since its model is one of their load.
    """
    specs = {spec.key: spec for spec in offered}
    before = {spec.key: spec for spec in incumbents}
    ranked = [specs.get(key, spec) for key, spec in before.items()]
    ranked += [spec for key, spec in specs.items() if key not in before]
    primary = _primaries(ranked, before)
    moved = {key: _booked_as(spec, primary) for key, spec in specs.items() if spec.role in _BOOKED}
    resolved = {}
    for key, spec in specs.items():
        if moved.get(key, key) != key:
            spec = replace(spec, role=Role.SHOWN)
        if spec.parent is not None and (heir := moved.get(spec.parent, key)) not in (spec.parent, key):
            spec = replace(spec, parent=heir)
        resolved[key] = spec
    known = before | resolved
    has_measured_cpu = any(
        spec.component is Component.CPU and spec.method is not Method.MODEL and spec.role in _BOOKED
        for spec in known.values()
    )
    return [_beside_cpu(_within_leaf(spec, known), has_measured_cpu) for spec in resolved.values()]


def parts_of(meter: ChannelKey, specs: Iterable[ChannelSpec]) -> list[ChannelSpec]:
    """Return what the meter's residual is reckoned without: the leaves and the lesser meters right below it."""
    return [spec for spec in specs if spec.parent == meter and spec.role in _BOOKED]


def residual_spec(meter: ChannelSpec, parts: Sequence[ChannelSpec]) -> ChannelSpec:
    """Return the spec of a meter's residual. It is no better made than the worst of what it is reckoned from."""
    return ChannelSpec(
        key=ChannelKey(meter.key.device, RESIDUAL_DOMAIN, meter.key.source),
        component=Component.OTHER,
        method=max(meter.method, *(part.method for part in parts)) if parts else meter.method,
        role=Role.RESIDUAL,
        power_bound_watts=meter.power_bound_watts + sum(part.power_bound_watts for part in parts),
        parent=meter.key,
    )


class Base(msgspec.Struct, frozen=True, array_like=True):
    """What a residual has already taken in of one channel: the channel's sums at the last joint reading."""

    energy_microjoules: int = 0
    gap_lower_microjoules: int = 0
    gap_upper_microjoules: int = 0
    gap_unbounded_count: int = 0


def base_of(state: ChannelState) -> Base:
    """Return the channel's sums as they are now."""
    return Base(
        state.energy_microjoules, state.gap_lower_microjoules, state.gap_upper_microjoules, state.gap_unbounded_count
    )


# A channel that opened after the last joint reading did so at 0.
ZERO = Base()


def advance_residual(
    state: ChannelState,
    meter: Mapping[int, ChannelState],
    parts: Mapping[int, ChannelState],
    bases: Mapping[int, Base],
    now: Instant,
) -> tuple[ChannelState, list[GapDetail]]:
    """Book what the meter saw beyond its parts between the last joint reading and this one.

    meter, parts: by channel number, closed predecessors with a base included. bases: those of the last joint reading.
    A gap of a part is, negated, one of the residual: the leaf lacks what the residual then has too much of. A gap of the
    meter leaves nothing to book: the residual starts anew, and its gap is what the meter may have seen less what the parts
    may have used.
    """
    meter_steps = [_step(channel, bases.get(number, ZERO)) for number, channel in meter.items()]
    part_steps = [_step(channel, bases.get(number, ZERO)) for number, channel in parts.items()]
    energy = sum(step.energy_microjoules for step in meter_steps) - sum(step.energy_microjoules for step in part_steps)
    to = now.boottime_nanoseconds
    details: list[GapDetail] = []
    if any(_has_gap(step) for step in meter_steps) or abs(state.energy_microjoules + energy) >= ENERGY_MICROJOULES_LIMIT:
        reason = _reason(max((channel.gap_reason for channel in meter.values()), default=0))
        lower = sum(step.gap_lower_microjoules for step in meter_steps)
        upper = sum(step.gap_upper_microjoules for step in meter_steps)
        lower += energy - sum(step.gap_upper_microjoules for step in part_steps)
        upper += energy - sum(step.gap_lower_microjoules for step in part_steps)
        unbounded = any(step.gap_unbounded_count for step in (*meter_steps, *part_steps))
        state, detail = _add(state, to, reason, lower, upper, unbounded)
        return _joined(state, now, 0), [detail]
    for step, channel in zip(part_steps, parts.values(), strict=True):
        if _has_gap(step):
            lower, upper = -step.gap_upper_microjoules, -step.gap_lower_microjoules
            unbounded = step.gap_unbounded_count > 0
            state, detail = _add(state, to, _reason(channel.gap_reason), lower, upper, unbounded)
            details.append(detail)
    return _joined(state, now, energy), details


def start_residual(
    state: ChannelState, meter: Rule, parts: Iterable[Rule], now: Instant
) -> tuple[ChannelState, list[GapDetail]]:
    """Begin at the first joint reading; if the opening lies before it, nothing is known of the time between."""
    elapsed = elapsed_nanoseconds(state, now)
    if elapsed == 0:
        return _joined(state, now, 0), []
    lower = -sum(part.bound_microjoules(elapsed or 0) for part in parts)
    upper = meter.bound_microjoules(elapsed or 0)
    state, detail = _add(state, now.boottime_nanoseconds, GapReason.NOT_MEASURED, lower, upper, elapsed is None)
    return _joined(state, now, 0), [detail]


def _add(
    state: ChannelState, to: int, reason: GapReason, lower: int, upper: int, unbounded: bool
) -> tuple[ChannelState, GapDetail]:
    return add_gap(state, to, reason, lower, None if unbounded else upper)


def _step(channel: ChannelState, base: Base) -> Base:
    return Base(
        channel.energy_microjoules - base.energy_microjoules,
        channel.gap_lower_microjoules - base.gap_lower_microjoules,
        channel.gap_upper_microjoules - base.gap_upper_microjoules,
        channel.gap_unbounded_count - base.gap_unbounded_count,
    )


def _has_gap(step: Base) -> bool:
    # A gap's upper bound is above 0 unless it has none, so that no gap can hide in sums that stand still.
    return step.gap_upper_microjoules != 0 or step.gap_unbounded_count != 0


def _reason(number: int) -> GapReason:
    return GapReason(number) if number else GapReason.NOT_MEASURED


def _joined(state: ChannelState, now: Instant, energy: int) -> ChannelState:
    return msgspec.structs.replace(
        state,
        boot_id=now.boot_id,
        boottime_nanoseconds=now.boottime_nanoseconds,
        realtime_nanoseconds=now.realtime_nanoseconds,
        synchronised=now.synchronised,
        suspended_nanoseconds=now.suspended_nanoseconds,
        energy_microjoules=state.energy_microjoules + energy,
    )


def _primaries(specs: Sequence[ChannelSpec], incumbents: Mapping[ChannelKey, ChannelSpec]) -> dict[str, list[ChannelSpec]]:
    """Return, by device, the booked specs of the source that is primary there, at most one meter among them."""
    devices: dict[str, dict[str, list[ChannelSpec]]] = {}
    for spec in specs:
        if spec.role in _BOOKED:
            devices.setdefault(spec.key.device, {}).setdefault(spec.key.source, []).append(spec)
    found = {}
    for device, sources in devices.items():
        # `min` keeps the first of equals: incumbents come first, then the order of the offers.
        best = min(sources.values(), key=lambda own: (min(s.method for s in own), own[0].key not in incumbents))
        meter = next((spec for spec in best if spec.role is Role.METER), None)
        # Beside a meter of the device, a second one, or a leaf that is no part of it, would count the device twice.
        found[device] = best if meter is None else [meter, *(spec for spec in best if spec.parent == meter.key)]
    return found


def _booked_as(spec: ChannelSpec, primary: Mapping[str, list[ChannelSpec]]) -> ChannelKey:
    """Return the key at which this spec's energy is booked: its own if it is primary, else the primary's."""
    booked = [own.key for own in primary[spec.key.device]]
    return spec.key if spec.key in booked else booked[0]


def _within_leaf(spec: ChannelSpec, known: Mapping[ChannelKey, ChannelSpec]) -> ChannelSpec:
    """Return the spec as shown only, if any channel above it is a leaf."""
    seen = {spec.key}
    above = spec.parent
    while spec.role in _BOOKED and above is not None and above not in seen and above in known:
        if known[above].role is Role.LEAF:
            return replace(spec, role=Role.SHOWN)
        seen.add(above)
        above = known[above].parent
    return spec


def _beside_cpu(spec: ChannelSpec, has_measured_cpu: bool) -> ChannelSpec:
    if has_measured_cpu and spec.key.device == NODE and spec.method is Method.MODEL and spec.role in _BOOKED:
        return replace(spec, role=Role.SHOWN)
    return spec
