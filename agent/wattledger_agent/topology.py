"""Decides what is summed, so that every joule counts once: leaves, and one signed residual for each node or module meter.

Reads nothing and keeps nothing; it turns specs into specs, and joint readings into residuals. Source of truth: the README's
rules of the accounted cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from wattledger_agent.containment import NODE, ancestors, containers, without_rings
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

_BOOKED = (Role.LEAF, Role.METER)

# By device: what is booked of it, its meter first.
_Primaries = dict[str, list[ChannelSpec]]


def resolve(offered: Iterable[ChannelSpec], incumbents: Iterable[ChannelSpec] = ()) -> list[ChannelSpec]:
    """Return the offered specs with the roles and parents that make their sum count each joule once; see resolve_all."""
    offered = list(offered)
    resolved = resolve_all(offered, incumbents)
    return [resolved[key] for key in {spec.key: None for spec in offered}]


def resolve_all(
    offered: Iterable[ChannelSpec], incumbents: Iterable[ChannelSpec] = (), absent: Iterable[ChannelSpec] = ()
) -> dict[ChannelKey, ChannelSpec]:
    """Return the offered specs and those that are away, with the roles and parents that make each joule count once.

    Where several sources meter one device, one is primary and the others are shown: the source with the better method
    (counter, integral, model), then the incumbent, then the first offered. incumbents: booked channels that were already
    read in this boot; they keep their device even while their source is away, because a counter recovers what it missed.
    absent: meters of an earlier boot whose source is not there yet; they keep their parts where no other is offered, so that
    a slow source that opens late does not move all channels twice.

    A part belongs to the meter of the nearest device around it that does not exclude its component, whichever source
    meters that; the node is around every device. What lies within a leaf is shown. A meter that lies in one which excludes
    what this one includes can't be taken apart, and is shown. A modelled node stands in for measured CPUs, never beside
    them, since its model is one of their load.
    """
    specs = {spec.key: spec for spec in offered}
    before = {spec.key: spec if spec.key in specs else _as_offered(spec) for spec in incumbents}
    waiting = {spec.key: spec for spec in absent if spec.key not in specs and spec.key not in before}
    ranked = [specs.get(key, spec) for key, spec in before.items()]
    ranked += [spec for key, spec in specs.items() if key not in before]
    primary = _primaries(ranked, before)
    for spec in waiting.values():
        primary.setdefault(spec.key.device, [spec])
    known = before | waiting | specs
    found = containers(known.values())
    while True:
        resolved = {key: _placed(spec, known, primary, found) for key, spec in known.items()}
        for key in without_rings({key: spec for key, spec in resolved.items() if spec.role in _BOOKED}):
            resolved[key] = replace(resolved[key], parent=None)
        inseparable = _inseparable(resolved)
        if inseparable is None:
            break
        primary[inseparable.device] = []
    resolved = {key: _within_leaf(spec, resolved) for key, spec in resolved.items()}
    if any(_measures_cpu(spec) for key, spec in resolved.items() if key not in waiting):
        resolved = {key: _beside_cpu(spec) for key, spec in resolved.items()}
    return resolved


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
        cadence_seconds=max(meter.cadence_seconds, *(part.cadence_seconds for part in parts), 0.0),
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
    state: ChannelState, meter: Rule, parts: Iterable[Rule], now: Instant, *, ahead_microjoules: int = 0
) -> tuple[ChannelState, list[GapDetail]]:
    """Begin at the first joint reading; if the opening lies before it, nothing is known of the time between.

    ahead_microjoules: the most that parts which were last read before this moment have used since. They will book it, the
    residual will be reckoned without it, and so may lack it.
    """
    elapsed = elapsed_nanoseconds(state, now)
    if elapsed == 0 and not ahead_microjoules:
        return _joined(state, now, 0), []
    lower = -sum(part.bound_microjoules(elapsed or 0) for part in parts)
    upper = meter.bound_microjoules(elapsed or 0) + ahead_microjoules
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


def _as_offered(spec: ChannelSpec) -> ChannelSpec:
    """Return the spec of a channel as its source offered it: parents that sources state are channels of their own."""
    foreign = spec.parent is not None and spec.parent.source != spec.key.source
    return replace(spec, parent=None) if foreign else spec


def _primaries(specs: Sequence[ChannelSpec], incumbents: Mapping[ChannelKey, ChannelSpec]) -> _Primaries:
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
        found[device] = best if meter is None else [meter, *(spec for spec in best if _is_part(spec, meter))]
    return found


def _is_part(spec: ChannelSpec, meter: ChannelSpec) -> bool:
    """Say whether a source states of a spec of the meter's own device that it is a part of the meter."""
    return spec.parent == meter.key or (spec.parent is None and spec.within == meter.key.device and spec.key != meter.key)


def _placed(
    spec: ChannelSpec, known: Mapping[ChannelKey, ChannelSpec], primary: _Primaries, found: Mapping[str, str]
) -> ChannelSpec:
    """Return the spec with its role, and under the meter or leaf that contains it."""
    if spec.role not in _BOOKED:
        heir = _heir(spec.parent, known, primary)
        return spec if spec.parent is None or heir is None else replace(spec, parent=heir)
    if spec.key not in [own.key for own in primary[spec.key.device]]:
        spec = replace(spec, role=Role.SHOWN)
        heir = _heir(spec.parent, known, primary)
        return spec if heir in (None, spec.key) else replace(spec, parent=heir)
    parent = _container(spec, known, primary, found)
    return spec if parent == spec.parent else replace(spec, parent=parent)


def _heir(parent: ChannelKey | None, known: Mapping[ChannelKey, ChannelSpec], primary: _Primaries) -> ChannelKey | None:
    """Return the channel at which a stated parent's energy is booked: itself if it is primary, else the primary."""
    if parent is None or parent not in known:
        return None
    if known[parent].role not in _BOOKED:
        return parent
    booked = [own.key for own in primary.get(parent.device, ())]
    return parent if parent in booked else next(iter(booked), None)


def _container(
    spec: ChannelSpec, known: Mapping[ChannelKey, ChannelSpec], primary: _Primaries, found: Mapping[str, str]
) -> ChannelKey | None:
    """Return the nearest meter or leaf around a booked spec that sees it."""
    own = spec.key.device
    device = own if spec.within == own else found.get(own, NODE)
    stated, seen = spec.parent, {spec.key}
    while stated is not None and stated not in seen:
        seen.add(stated)
        device = stated.device
        heir = _heir(stated, known, primary)
        if heir is None or heir == spec.key or spec.component in known[heir].excludes:
            break
        if known[heir].role in _BOOKED:
            return heir
        # What is only shown holds nothing, but what is around it may.
        stated = known[heir].parent
    for around in ancestors(device, found):
        for whole in primary.get(around, ())[:1]:
            holds = whole.role is Role.METER or (whole.method is not Method.MODEL and around != own)
            if holds and whole.key != spec.key and spec.component not in whole.excludes:
                return whole.key
    # A stated parent that is not there yet may still come, and one that is only shown is told to people.
    return spec.parent if spec.parent is None or spec.parent not in known or known[spec.parent].role not in _BOOKED else None


def _inseparable(resolved: Mapping[ChannelKey, ChannelSpec]) -> ChannelKey | None:
    """Return a meter that includes a part which the meter above it excludes; None if there is none."""
    for spec in resolved.values():
        if spec.role is not Role.LEAF:
            continue
        below, above = None, spec.parent
        while above is not None and above in resolved and resolved[above].role is Role.METER:
            if below is not None and spec.component in resolved[above].excludes:
                return below
            below, above = above, resolved[above].parent
    return None


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


def _measures_cpu(spec: ChannelSpec) -> bool:
    """Say whether the CPUs' energy is measured here: by a leaf of their own, or within a meter of more."""
    if spec.method is Method.MODEL or spec.role not in _BOOKED:
        return False
    is_meter = spec.role is Role.METER and spec.component is Component.OTHER and Component.CPU not in spec.excludes
    return is_meter or spec.component is Component.CPU


def _beside_cpu(spec: ChannelSpec) -> ChannelSpec:
    if spec.key.device == NODE and spec.method is Method.MODEL and spec.role in _BOOKED:
        return replace(spec, role=Role.SHOWN)
    return spec
