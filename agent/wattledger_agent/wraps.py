"""How long a counter may go unread before nobody can tell how often it wrapped; the poll floor that follows.

Pure. Source of truth: the meter's own rule (counters.py): a fall is one wrap while power bound times elapsed time is below
the counter's range. An AMD package of 15.3 uJ steps holds 65.5 kJ: 131 s at 500 W, 65 s at the bound of 1000 W.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wattledger_agent.readings import MICROJOULES_PER_JOULE, ChannelKey, ChannelSpec, Role

# Some reads fail, and some ticks are late: within a wrap there should be this many reads.
READS_A_WRAP_MIN = 4


@dataclass(frozen=True, slots=True)
class Wrap:
    """The booked counter that wraps first. seconds: from the last read, at the most power that is possible."""

    key: ChannelKey
    seconds: float
    range_joules: float
    power_bound_watts: float

    @property
    def period_seconds_max(self) -> float:
        """The longest period that keeps to the poll floor."""
        return self.seconds / READS_A_WRAP_MIN

    def is_hopeless(self, period_seconds: float) -> bool:
        """Whether at this period every fall would be ambiguous, so that much of the channel's energy was never booked."""
        return period_seconds >= self.seconds

    def is_risky(self, period_seconds: float) -> bool:
        """Whether the period is above the poll floor: some failed reads in a row make the energy a gap."""
        return period_seconds > self.period_seconds_max

    def sentence(self) -> str:
        """What was reckoned; without the name of the source."""
        return (
            f"{self.key.device} {self.key.domain} holds {self.range_joules:.0f} J, and may wrap in {self.seconds:.1f} s at "
            f"{self.power_bound_watts:.0f} W"
        )


def shortest_wrap(specs: Iterable[ChannelSpec]) -> Wrap | None:
    """Return the wrap of the booked counter that has the shortest; None if no booked counter wraps."""
    wraps = [
        Wrap(spec.key, _joules(spec.counter_range_microjoules) / spec.power_bound_watts,
             _joules(spec.counter_range_microjoules), spec.power_bound_watts)
        for spec in specs
        if spec.counter_range_microjoules is not None and spec.role in (Role.LEAF, Role.METER)
    ]  # fmt: skip
    return min(wraps, key=lambda wrap: (wrap.seconds, wrap.key), default=None)


def _joules(microjoules: int) -> float:
    return microjoules / MICROJOULES_PER_JOULE
