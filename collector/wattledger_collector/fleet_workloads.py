"""The workloads of one host as the fleet view sees them: committed lifetime totals of those that were seen lately.

No database and no clock. Totals are the store's, plus each booking committed since they were read; a booking that does not
follow what is known is answered by reading anew. Times are seconds since 1970-01-01 UTC. What others read is replaced as a
whole, so that a reader needs no lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

from wattledger_collector.fleet_live import SeriesKey, series_key
from wattledger_collector.records import NANOSECONDS_PER_SECOND, Booking, Component, Method
from wattledger_collector.workload_records import HostWorkloads, WorkloadBooking, WorkloadKey

# How long a workload is shown after it was last named: an agent names one whenever it has used energy, and a frozen one
# until it was acknowledged. Three scrapes of five minutes then see its last value.
WORKLOAD_STALENESS_SECONDS: Final = 900.0

# As many as an agent may have accounts of. With three flows each that is 3,000 series of a host.
WORKLOADS_SHOWN_MAX: Final = 1024


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadSeries:
    """One energy counter. There is one object of each in a host for as long as it is shown, compared by identity."""

    key: WorkloadKey
    flow: SeriesKey


@dataclass(frozen=True, slots=True)
class WorkloadFigures:
    """One workload's committed lifetime totals. series and microjoules are columns."""

    key: WorkloadKey
    seen_seconds: float
    cpu_nanoseconds: int
    series: tuple[WorkloadSeries, ...]
    microjoules: tuple[int, ...]

    @property
    def total_microjoules(self) -> int:
        """Energy of all components."""
        return sum(self.microjoules)


@dataclass(frozen=True, slots=True)
class ShownWorkloads:
    """What is shown of a host at a moment; left_out: how many others were seen as lately."""

    workloads: Sequence[WorkloadFigures]
    left_out: int


@dataclass(slots=True)
class _Known:
    seen_seconds: float
    cpu_nanoseconds: int = 0
    energies: dict[tuple[Component, Method], int] = field(default_factory=dict)
    series: dict[tuple[Component, Method], WorkloadSeries] = field(default_factory=dict)

    def figures(self, key: WorkloadKey) -> WorkloadFigures:
        for flow in self.energies.keys() - self.series.keys():
            self.series[flow] = WorkloadSeries(key, series_key(*flow))
        series = tuple(self.series[flow] for flow in self.energies)
        return WorkloadFigures(key, self.seen_seconds, self.cpu_nanoseconds, series, tuple(self.energies.values()))


class HostWorkloadView:
    """One host's workloads. Changed by whoever feeds the fleet view, read by anyone."""

    def __init__(self) -> None:
        self._known: dict[WorkloadKey, _Known] = {}
        self._version = 0
        self._figures: tuple[WorkloadFigures, ...] = ()

    def shown(self, now_seconds: float) -> ShownWorkloads:
        """Those that were seen within the staleness window; of too many the largest."""
        oldest = now_seconds - WORKLOAD_STALENESS_SECONDS
        recent: Sequence[WorkloadFigures] = self._figures
        if any(each.seen_seconds < oldest for each in recent):
            recent = [each for each in recent if each.seen_seconds >= oldest]
        left_out = max(0, len(recent) - WORKLOADS_SHOWN_MAX)
        if left_out:
            recent = nlargest(WORKLOADS_SHOWN_MAX, recent, key=lambda each: each.total_microjoules)
        return ShownWorkloads(recent, left_out)

    def follow(self, booking: Booking, now_seconds: float) -> bool:
        """Take over a committed booking; false where the host's totals must be read anew, with `read`."""
        change = booking.workloads if not booking.cursor_after.recorded else None
        if booking.host_after.version <= self._version:
            # It was read since it was committed.
            return True
        is_next = self._version == (booking.host_before.version if booking.host_before else 0)
        if change is None:
            # Nothing to take over; where bookings were missed before, the next one with accounts will tell.
            self._version = booking.host_after.version if is_next else self._version
            return True
        if not is_next or any(each.key not in self._known for each in change.seen):
            return False
        self.add(change, now_seconds)
        self._version = booking.host_after.version
        return True

    def add(self, change: WorkloadBooking, now_seconds: float) -> None:
        """Add what a booking says, whatever was known before."""
        self._see(change, now_seconds)
        for row in change.energy:
            energies = self._known[row.workload.key].energies
            flow = (row.component, row.method)
            energies[flow] = energies.get(flow, 0) + row.energy_microjoules
        for each in change.time:
            self._known[each.workload.key].cpu_nanoseconds += each.cpu_nanoseconds
        self._publish(now_seconds)

    def read(self, stored: HostWorkloads, now_seconds: float, change: WorkloadBooking | None = None) -> None:
        """Take over totals as they stand in the store; change: the booking that made it necessary."""
        known: dict[WorkloadKey, _Known] = {}
        for total in stored.totals:
            before = self._known.get(total.key)
            # By the sample's clock, which may be ahead of ours.
            seen = min(now_seconds, total.last_seen_utc_nanoseconds / NANOSECONDS_PER_SECOND)
            known[total.key] = _Known(
                max(seen, before.seen_seconds) if before else seen,
                total.cpu_nanoseconds,
                dict(total.energies),
                before.series if before else {},
            )
        self._known, self._version = known, stored.version
        if change is not None:
            self._see(change, now_seconds)
        self._publish(now_seconds)

    def _see(self, change: WorkloadBooking, now_seconds: float) -> None:
        for workload in change.seen:
            known = self._known.get(workload.key)
            if known is None:
                known = self._known[workload.key] = _Known(now_seconds)
            known.seen_seconds = now_seconds

    def _publish(self, now_seconds: float) -> None:
        oldest = now_seconds - WORKLOAD_STALENESS_SECONDS
        self._known = {key: known for key, known in self._known.items() if known.seen_seconds >= oldest}
        self._figures = tuple(known.figures(key) for key, known in self._known.items())


def by_component(figures: WorkloadFigures) -> Mapping[Component, int]:
    """Microjoules of a workload by component, whatever they were made by."""
    sums: dict[Component, int] = {}
    for series, microjoules in zip(figures.series, figures.microjoules, strict=True):
        sums[series.flow.component] = sums.get(series.flow.component, 0) + microjoules
    return sums
