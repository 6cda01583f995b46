"""Reckons a residual in the rows in which its meter and all its present parts were read together.

Says nothing of how bounds and differences are made (see topology), nor of which joints there are (see roster).
"""

from wattledger_agent.channels import Channel
from wattledger_agent.counters import ChannelState, GapDetail, Instant
from wattledger_agent.roster import Joint, Roster
from wattledger_agent.topology import ZERO, advance_residual, base_of, start_residual


def join(joint: Joint, roster: Roster, now: Instant, serial: int) -> tuple[ChannelState, list[GapDetail]] | None:
    """Return a residual's new state with its gaps; None where the row of this serial has no joint reading of it.

    A slow part need only have been read since the joint reading before: it may never come in a row of the meter's. What it
    used since then stands in the residual until the next joint reading, and in no sum twice.
    """
    residual, meter = joint.residual, joint.meter
    since = residual.serial
    if meter.serial != serial or any(
        part.serial <= since if part.spec.cadence_seconds else part.serial != serial for part in joint.present
    ):
        if residual.is_fresh:
            roster.start(residual, now, serial)
        return None
    gaps: list[GapDetail] = []
    state = residual.state
    if not residual.bases:
        members = (meter, *joint.parts)
        # Where all begin in this row, what recorded spans already hold of it counts.
        together = residual.is_fresh and all(member.opened_serial == serial for member in members)
        if residual.is_fresh:
            roster.start(residual, meter.opening if together else now, serial)
            state = residual.state
        if not together:
            rules = [part.rule for part in joint.parts]
            ahead = sum(_ahead_microjoules(part, now) for part in joint.parts)
            state, gaps = start_residual(state, meter.rule, rules, now, ahead_microjoules=ahead)
        residual.bases = {member.number: ZERO if together else base_of(member.state) for member in members}
    meters = {meter.number: meter.state}
    parts = {part.number: part.state for part in joint.parts}
    for number in residual.bases:
        if number != meter.number and number not in parts:
            closed = roster.channels[number - 1]
            (meters if closed.spec.key == meter.spec.key else parts)[number] = closed.state
    state, more = advance_residual(state, meters, parts, residual.bases, now)
    residual.bases = {member.number: base_of(member.state) for member in (meter, *joint.parts)}
    return state, gaps + more


def _ahead_microjoules(part: Channel, now: Instant) -> int:
    """Return the most that a part has used since its last reading, where its next one will still tell."""
    state = part.state
    if state.value is None or state.boot_id != now.boot_id:
        return 0
    return part.rule.bound_microjoules(max(0, now.boottime_nanoseconds - state.boottime_nanoseconds))
