"""Estimates what the agent's own work draws: its part of the host's busy CPU time, of the energy of the host's CPUs.

Measures nothing and books nothing; the figure is a model, though the energy that it divides is measured. Idle power is in
it, by the same part, so that the agent never looks cheaper than it is; memory, disk and network are not. Without measured
CPUs there is no figure.
"""

from collections.abc import Iterable

from wattledger_agent.channels import Channel
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, Component, Method, Role

# The kernel counts the host's busy time in ticks of up to 10 ms: over this much time they are no longer most of a small sum.
SPAN_NANOSECONDS_MIN = 10 * NANOSECONDS_PER_SECOND


class OwnEnergy:
    """The agent's own energy since its start. microjoules: cumulative, never falls; 0 where no CPU is measured."""

    def __init__(self) -> None:
        self.microjoules = 0
        self._boottime_nanoseconds = 0
        self._own_cpu_nanoseconds = 0
        self._busy_nanoseconds: int | None = None
        self._energies: list[tuple[Channel, int]] = []

    def observe(
        self, channels: Iterable[Channel], busy_nanoseconds: int, own_cpu_nanoseconds: int, boottime_nanoseconds: int
    ) -> int:
        """Return the energy, brought up to this moment.

        busy_nanoseconds: work of all CPUs together since some moment; own_cpu_nanoseconds: of the agent, of which it is a
        part. Where either is less than before, it began anew, and the span between is left out.
        """
        if self._busy_nanoseconds is None:
            self._begin(channels, busy_nanoseconds, own_cpu_nanoseconds, boottime_nanoseconds)
        if boottime_nanoseconds - self._boottime_nanoseconds < SPAN_NANOSECONDS_MIN:
            return self.microjoules
        busy = busy_nanoseconds - (self._busy_nanoseconds or 0)
        own = own_cpu_nanoseconds - self._own_cpu_nanoseconds
        # Of a channel that has closed since, the last value counts.
        energy = sum(channel.state.energy_microjoules - before for channel, before in self._energies)
        if own >= 0 and energy >= 0 and busy >= 0:
            # Ticks may miss what sleeps between them; the agent's own time is exact, and was certainly busy.
            whole = max(busy, own, 1)
            # An estimate: what rounding takes of each span, less than a microjoule, is not carried.
            self.microjoules += energy * own // whole
        self._begin(channels, busy_nanoseconds, own_cpu_nanoseconds, boottime_nanoseconds)
        return self.microjoules

    def _begin(
        self, channels: Iterable[Channel], busy_nanoseconds: int, own_cpu_nanoseconds: int, boottime_nanoseconds: int
    ) -> None:
        self._energies = [(channel, channel.state.energy_microjoules) for channel in channels if _is_measured_cpu(channel)]
        self._busy_nanoseconds = busy_nanoseconds
        self._own_cpu_nanoseconds = own_cpu_nanoseconds
        self._boottime_nanoseconds = boottime_nanoseconds


def _is_measured_cpu(channel: Channel) -> bool:
    spec = channel.spec
    return spec.component is Component.CPU and spec.role is Role.LEAF and spec.method is not Method.MODEL
