"""Says in gaps, while it lasts, what a meter of power does not tell: a management controller may be silent till the reboot.

Reckons no residual (joining) and reads nothing. A counter tells after its silence what it was, and needs none of this; what
a silent integral missed nobody will ever know. Source of truth: the README's rule that an unknown is never zero.
"""

from collections.abc import Container

from msgspec import structs

from wattledger_agent.channels import Channel
from wattledger_agent.counters import ChannelState, GapDetail, GapReason, Instant, Rule, is_suspended, miss
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, Method, Role

# A gap of its own for each so long: 288 rows a day of a controller that is broken, and its silence is told within minutes.
LAPSE_NANOSECONDS = 300 * NANOSECONDS_PER_SECOND


def has_lapsed(channel: Channel, sources: Container[str], now: Instant) -> bool:
    """Say whether it is time to tell of a meter's silence. sources: those that this host is to read, present or not."""
    state, spec = channel.state, channel.spec
    if spec.role is not Role.METER or spec.method is not Method.INTEGRAL or spec.key.source not in sources:
        return False
    # What was told in an earlier boot has no place in this one.
    if state.value is None or state.boot_id != now.boot_id:
        return False
    silent_nanoseconds = now.boottime_nanoseconds - state.boottime_nanoseconds
    return silent_nanoseconds > max(LAPSE_NANOSECONDS, channel.rule.integral_gap_nanoseconds)


def lapse(rule: Rule, state: ChannelState, now: Instant) -> tuple[ChannelState, GapDetail | None]:
    """Return the state with a gap up to now, from where the next one goes on; its next power will be a baseline."""
    reason = GapReason.SUSPEND if is_suspended(state, now) else GapReason.NOT_MEASURED
    state, gap = miss(rule, state, now, reason, state.value)
    # The value stays, because what was read in this boot keeps its place in the tree; it is integrated over no more.
    return structs.replace(state, has_lapsed=True), gap
