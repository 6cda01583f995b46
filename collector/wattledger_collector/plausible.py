"""Whether an increment can be true: what is beyond a channel's power bound was read from something else.

No clock. When in doubt an increment is believed: what a sensor counted must not be lost to a check.
"""

from wattledger_collector.hello import MILLIWATT_NANOSECONDS_PER_MICROJOULE
from wattledger_collector.records import ENERGY_MICROJOULES_LIMIT, NANOSECONDS_PER_SECOND, ChannelInfo, ChannelPoint, Role

# Some counters move in lumps of up to a minute (management controllers), and a hung one is read at its deadline. What is
# to be caught here, a value from another counter or a broken account, is larger by far.
PLAUSIBLE_SLACK_NANOSECONDS = 60 * NANOSECONDS_PER_SECOND


def doubt(info: ChannelInfo, before: int, value: int, elapsed_nanoseconds: int | None, falls: bool) -> str:
    """Why a channel can't have come from one cumulative value to another in this time; empty if it can."""
    if not -ENERGY_MICROJOULES_LIMIT < value < ENERGY_MICROJOULES_LIMIT:
        return f"{info.device} {info.domain} says {value} µJ, beyond all that can be kept: move its agent's spool aside"
    if falls and info.role is not Role.RESIDUAL:
        return f"{info.device} {info.domain} fell from {before} to {value} µJ, which a cumulative value never does"
    bound = info.power_bound_milliwatts
    if bound and elapsed_nanoseconds is not None:
        possible = bound * (elapsed_nanoseconds + PLAUSIBLE_SLACK_NANOSECONDS)
        if abs(value - before) * MILLIWATT_NANOSECONDS_PER_MICROJOULE > possible:
            seconds = elapsed_nanoseconds / NANOSECONDS_PER_SECOND
            return f"{info.device} {info.domain} rose by {value - before} µJ in {seconds:.3f} s, but its bound is {bound} mW"
    return ""


def overflow(info: ChannelInfo, point: ChannelPoint, value: int) -> str:
    """Why the lifetime total can't be kept; empty if it can. Only a channel without a power bound gets here."""
    booked = point.booked_microjoules + value - point.energy_microjoules
    if -ENERGY_MICROJOULES_LIMIT < booked < ENERGY_MICROJOULES_LIMIT:
        return ""
    return f"{info.device} {info.domain} would have booked {booked} µJ in its lifetime, beyond all that can be kept"
