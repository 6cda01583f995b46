"""The fleet in memory: committed totals and present values, fed by the writer and by Live messages, read by the HTTP side.

Holds nothing that the database does not: after a restart `load` has the same counters as before. Reads no clock; every time
is an argument, in seconds since 1970-01-01 UTC. Bookings come from the writer's thread, Live messages and readers from
others: site totals are behind a lock, hosts are replaced as a whole.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction

from wattledger_collector.accounting import BasisFinder, SiteBasis
from wattledger_collector.emission_bases import SiteTerms
from wattledger_collector.emission_counters import EmissionCounters, EmissionSeries, Metering, Superseded, TierSeries
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.fleet_host import HostEntry
from wattledger_collector.fleet_live import PowerHistory, PowerPoint, PowerSum, read_live
from wattledger_collector.fleet_sites import Amount, RecentKey, SitePlan, SiteSeries, SiteTotals
from wattledger_collector.fleet_totals import Rollups, read_rollups
from wattledger_collector.fleet_workloads import WORKLOAD_STALENESS_SECONDS
from wattledger_collector.lease import Snapshot, Standing
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    SITE_UNASSIGNED,
    AssignmentRow,
    Booking,
    ChannelInfo,
    Cursor,
    EmissionRun,
    GapRow,
    Host,
    HostState,
    Quality,
    SiteRow,
    Store,
    StoreError,
)
from wattledger_protos.v1 import telemetry_pb2 as pb

log = logging.getLogger("wattledger.collector")

# A host that gave no value for this long is silent: six Live messages of the default period, or three of Prometheus'.
STALENESS_SECONDS_DEFAULT = 60.0

# What the page lists of the newest gaps; the store has all.
RECENT_GAPS_MAX = 200

# Coverage looks at whole intervals that reach back at least this long.
COVERAGE_SECONDS = 3600

# Hosts that no rule assigns book often; their rows are looked for no more than six times a minute.
_PLAN_READ_SECONDS_MIN = 10.0

# When a whole fleet comes over from another collector, the roll-ups are read again no more often than this.
_TOTALS_READ_SECONDS_MIN = 5.0


@dataclass(frozen=True, slots=True)
class RecentGap:
    """A gap that was just booked. channel None: the whole host."""

    host: str
    site: str
    channel: ChannelInfo | None
    gap: GapRow


@dataclass(frozen=True, slots=True)
class Coverage:
    """Channel time with a figure, and what a fleet without holes would have covered; seconds.

    estimated_ratio: the part of the energy that is modelled, or whose place in time is; in [0, 1], None without energy.
    """

    covered_seconds: float
    expected_seconds: float
    estimated_ratio: float | None = None

    @property
    def ratio(self) -> float | None:
        """In [0, 1]; None where nothing was expected."""
        if self.expected_seconds <= 0:
            return None
        return min(1.0, self.covered_seconds / self.expected_seconds)


class FleetView:
    """What `/metrics`, the API and the page show.

    collector: id of this collector; it exposes the hosts whose newest cursor names it. staleness_seconds: how long a
    host's gauges outlive its last message. Without a standing among others it is the only collector.
    """

    def __init__(
        self,
        *,
        collector: str,
        interval_seconds: int,
        staleness_seconds: float = STALENESS_SECONDS_DEFAULT,
    ) -> None:
        self.collector = collector
        self.interval_seconds = interval_seconds
        self.staleness_seconds = staleness_seconds
        self.plan = SitePlan()
        self._finder = BasisFinder((), FactorCatalog(()))
        self._site_terms: SiteTerms | None = None
        self._emissions = self._new_emissions(())
        self._superseded: Mapping[Superseded, int] = {}
        self._hosts: dict[str, HostEntry] = {}
        # Sorted when a host was added; hosts are never removed.
        self._ordered: list[HostEntry] = []
        self._totals = SiteTotals()
        self._history = PowerHistory()
        self._gaps: deque[RecentGap] = deque(maxlen=RECENT_GAPS_MAX)
        self._store: Store | None = None
        self._plan_read_seconds = 0.0
        self._totals_read_seconds = 0.0
        self._is_behind = False
        self._standing: Standing | None = None
        # By host: the version up to which the totals that were read have its bookings.
        self._counted_versions: dict[str, int] = {}
        # Held by whoever changes hosts or totals; readers need only the second.
        self._feeding = threading.Lock()
        self._lock = threading.Lock()

    # What feeds it.

    def load(self, store: Store, finder: BasisFinder, now_seconds: float, site_terms: SiteTerms | None = None) -> None:
        """Take over what is committed; at start, before the first booking, or again after another writer was at work.

        finder: zones, PUE and factors, for the emission counters and the page. site_terms: how the sites are had.
        """
        self._store = store
        self._finder = finder
        self._site_terms = site_terms
        self.set_plan(store.sites(), store.assignments())
        cursors = _by_host(store.cursors())
        for record in store.hosts():
            self._read_entry(store, record, cursors.get(record.host, ()), now_seconds)
        self._load_totals(store, store, now_seconds)

    def set_plan(self, sites: Iterable[SiteRow], assignments: Iterable[AssignmentRow]) -> None:
        """Take over all dated rows of sites and hosts as they stand in the store."""
        self.plan.replace(sites, assignments)

    def on_committed(self, bookings: Sequence[Booking], now_seconds: float) -> None:
        """Bookings were committed, in this order. Called by the writer's thread."""
        with self._feeding:
            self._take(bookings, now_seconds)

    def factors_changed(self) -> None:
        """The finder knows other factors than before. Called by any thread."""
        with self._feeding:
            self._emissions.factors_changed()
            self._superseded = self._emissions.superseded_seconds()

    def set_standing(self, standing: Standing) -> None:
        """What this collector is among those that share the database, until the next call."""
        self._standing = standing

    def refresh(self, read: Callable[[], AbstractContextManager[Snapshot]], now_seconds: float, *, whole: bool) -> None:
        """Take over what other collectors did: which hosts they serve now and, if whole, all that they booked.

        Called by any thread while bookings come. Without effect before `load`.
        """
        store = self._store
        if store is None:
            return
        with self._feeding, read() as ledger:
            # Within the lock a booking is either in the snapshot, or comes after it and has a later version.
            if whole:
                self.set_plan(store.sites(), store.assignments())
            cursors = _by_host(ledger.cursors())
            versions: dict[str, int] = {}
            for record in ledger.hosts():
                versions[record.host] = record.version
                rows = cursors.get(record.host, [])
                if self._has_changed(record, rows, whole=whole):
                    self._read_entry(store, record, rows, now_seconds)
            if whole:
                self._load_totals(store, ledger, now_seconds)
                self._counted_versions = versions

    def _take(self, bookings: Sequence[Booking], now_seconds: float) -> None:
        self._refresh_plan(bookings, now_seconds)
        self._keep_bases(bookings)
        for booking in bookings:
            entry = self._take_over(booking, now_seconds)
            site = self.plan.site_of(booking.host_after.host, now_seconds)
            entry.site = site
            self._take_workloads(booking, entry, now_seconds)
            is_counted = booking.host_after.version <= self._counted_versions.get(entry.host, 0)
            if not booking.cursor_after.recorded and not is_counted:
                self._count(booking, entry)
            for gap in booking.gaps:
                channel = entry.channel(booking.cursor_after.epoch, gap.channel)
                self._gaps.append(RecentGap(entry.host, site, channel, gap))
        if any(self._came_from_another(booking) for booking in bookings):
            self._is_behind = True
        is_owed = self._is_behind or self._emissions.is_outdated
        is_due = not 0 <= now_seconds - self._totals_read_seconds < _TOTALS_READ_SECONDS_MIN
        if is_owed and is_due and self._store is not None:
            self._read_totals_again(self._store, now_seconds)
        with self._lock:
            self._totals.prune(now_seconds)
            self._emissions.settle()

    def on_live(self, host: str, live: pb.Live, now_seconds: float) -> None:
        """Present values of a host came. A host whose Hello is not committed yet is not shown."""
        entry = self._hosts.get(host)
        if entry is None:
            return
        entry.show_live(read_live(live, now_seconds))
        if self._history.is_due(now_seconds):
            self._history.add(now_seconds, self.power(now_seconds))

    # What reads it.

    def hosts(self) -> Sequence[HostEntry]:
        """All hosts ever seen, in order of their ids."""
        if len(self._ordered) != len(self._hosts):
            self._ordered = [entry for _, entry in sorted(self._hosts.items())]
        return self._ordered

    def host(self, host: str) -> HostEntry | None:
        """One host; None if it was never seen."""
        return self._hosts.get(host)

    def is_site_exposer(self, now_seconds: float) -> bool:
        """Whether this collector shows what is summed over hosts; at any time at most one does."""
        standing = self._standing
        return standing is None or (standing.is_site_exposer and now_seconds < standing.until_seconds)

    def is_shown(self, entry: HostEntry, now_seconds: float) -> bool:
        """Whether this collector shows a host: its own ones, and those of collectors that are gone if it shows the sites."""
        standing = self._standing
        if standing is None or entry.collector == self.collector:
            return True
        return entry.collector not in standing.collectors and self.is_site_exposer(now_seconds)

    @property
    def finder(self) -> BasisFinder:
        """Zones, PUE and factors as they were at the last load."""
        return self._finder

    def power(self, now_seconds: float) -> PowerSum:
        """Present power of all hosts that are not silent and not recorded."""
        total = PowerSum()
        for part in self.power_by_site(now_seconds).values():
            total.merge(part)
        return total

    def power_by_site(self, now_seconds: float) -> dict[str, PowerSum]:
        """The same by site; sites without a value are left out."""
        sums: dict[str, PowerSum] = {}
        for entry in list(self._hosts.values()):
            live = entry.fresh_live(now_seconds, self.staleness_seconds)
            if live is not None and live.keys and not entry.is_recorded and self.is_shown(entry, now_seconds):
                sums.setdefault(entry.site, PowerSum()).add(live)
        return sums

    def history(self, now_seconds: float) -> Sequence[PowerPoint]:
        """The fleet's power of the last hour, oldest first."""
        return self._history.points(now_seconds)

    def recent_energy(self, from_seconds: float) -> Sequence[tuple[int, RecentKey, Amount]]:
        """Committed energy of the intervals that start at or after an instant, at most two days ago."""
        with self._lock:
            return self._totals.recent(from_seconds)

    def recent_gaps(self) -> list[RecentGap]:
        """The newest gaps that were booked since the start, newest first."""
        return list(self._gaps)[::-1]

    def basis(self, site: str, at_seconds: float) -> SiteBasis:
        """Zone, PUE and factor of a site at an instant."""
        return self._finder.find(site, int(at_seconds))

    def sites(self) -> list[str]:
        """All sites that are configured or have hosts or energy."""
        with self._lock:
            counted = {series.site for series, _ in self._totals.counters({})}
        return sorted(counted | set(self.plan.names()) | {entry.site for entry in list(self._hosts.values())})

    def withheld(self) -> dict[str, int]:
        """How many withheld hosts each site's totals wait for, after a restore. A retired host is not waited for."""
        counts: dict[str, int] = {}
        for entry in list(self._hosts.values()):
            if entry.is_withheld and entry.state is not HostState.RETIRED:
                for site in self.plan.sites_ever_of(entry.host):
                    counts[site] = counts.get(site, 0) + 1
        return counts

    def site_counters(self) -> list[tuple[SiteSeries, int]]:
        """Lifetime microjoules of each site, component and method; sites with a withheld host are left out."""
        withheld = self.withheld()
        slack: dict[SiteSeries, int] = {}
        for entry in list(self._hosts.values()):
            for key, microjoules in entry.slack.items():
                series = SiteSeries(entry.site, key.component, key.method)
                slack[series] = slack.get(series, 0) + microjoules
        with self._lock:
            counters = self._totals.counters(slack)
        return [(series, microjoules) for series, microjoules in counters if self._is_whole(series.site, withheld)]

    def emission_counters(self) -> list[tuple[EmissionSeries, Fraction]]:
        """Lifetime grams of each site, method, scope and type; sites with a withheld host are left out."""
        withheld = self.withheld()
        with self._lock:
            counters = self._emissions.counters()
        return [(series, grams) for series, grams in sorted(counters.items()) if self._is_whole(series.site, withheld)]

    def energy_by_tier(self) -> list[tuple[TierSeries, int]]:
        """Lifetime microjoules that are in the emission counters, by quality; likewise."""
        withheld = self.withheld()
        with self._lock:
            counters = self._emissions.energy_by_tier()
        return [(series, energy) for series, energy in sorted(counters.items()) if self._is_whole(series.site, withheld)]

    def uncovered_energy(self) -> list[tuple[str, Metering, int]]:
        """Microjoules that are in no emission counter since no factor covers them, by site; likewise."""
        withheld = self.withheld()
        with self._lock:
            amounts = dict(self._emissions.uncovered_microjoules())
        sites = [site for site in self.sites() if self._is_whole(site, withheld)]
        return [(site, metering, amounts.get((site, metering), 0)) for site in sites for metering in Metering]

    def superseded_seconds(self) -> Mapping[Superseded, int]:
        """Time that is in the emission counters by factors for which others hold now."""
        return self._superseded

    def _is_whole(self, site: str, withheld: Mapping[str, int]) -> bool:
        """Whether a site's totals hold all that the ledger has of it, and the ledger all that it once had."""
        return site not in withheld and not self._is_behind

    def coverage(self, now_seconds: float) -> dict[str, Coverage]:
        """By site, over the last hour in whole intervals. Drained and retired hosts count while they report."""
        begin = int(now_seconds - COVERAGE_SECONDS) // self.interval_seconds * self.interval_seconds
        expected: dict[str, int] = {}
        for entry in list(self._hosts.values()):
            if entry.is_recorded:
                continue
            end = entry.last_sample_utc_nanoseconds
            if not entry.is_reporting(now_seconds, self.staleness_seconds):
                if entry.state is not HostState.ACTIVE:
                    continue
                end = int(now_seconds * NANOSECONDS_PER_SECOND)
            channel_time = entry.expected_nanoseconds(begin * NANOSECONDS_PER_SECOND, end)
            expected[entry.site] = expected.get(entry.site, 0) + channel_time
        covered: dict[str, int] = {}
        energy: dict[str, int] = {}
        estimated: dict[str, int] = {}
        for _, key, amount in self.recent_energy(begin):
            covered[key.site] = covered.get(key.site, 0) + amount.covered_nanoseconds
            # A residual may be negative; what it is made of is told by its size.
            energy[key.site] = energy.get(key.site, 0) + abs(amount.microjoules)
            if key.quality in (Quality.MODEL, Quality.BRIDGED):
                estimated[key.site] = estimated.get(key.site, 0) + abs(amount.microjoules)
        return {
            site: Coverage(
                covered.get(site, 0) / NANOSECONDS_PER_SECOND,
                total / NANOSECONDS_PER_SECOND,
                estimated.get(site, 0) / energy[site] if energy.get(site) else None,
            )
            for site, total in sorted(expected.items())
            if total > 0
        }

    def agents(self, now_seconds: float) -> dict[tuple[str, str], int]:
        """Hosts by (site, state); each host is counted once, and by one collector."""
        counts: dict[tuple[str, str], int] = {}
        for entry in list(self._hosts.values()):
            if self.is_shown(entry, now_seconds):
                key = (entry.site, self.state(entry, now_seconds))
                counts[key] = counts.get(key, 0) + 1
        return counts

    def state(self, entry: HostEntry, now_seconds: float) -> str:
        """One word for a host: retired, drained, recorded, conflict, reporting or silent."""
        if entry.state is not HostState.ACTIVE:
            return entry.state.value
        if entry.is_recorded:
            return "recorded"
        if entry.record.conflict:
            return "conflict"
        return "reporting" if entry.is_reporting(now_seconds, self.staleness_seconds) else "silent"

    def model_band(self) -> tuple[float, float]:
        """95 % band of the fleet's modelled energy, as ratios (lower, upper), weighed by each channel's lifetime energy."""
        weights = lower = upper = 0.0
        for entry in list(self._hosts.values()):
            if not entry.is_recorded:
                for info, microjoules in entry.bands():
                    weights += microjoules
                    lower += microjoules * info.uncertainty_lower_ratio
                    upper += microjoules * info.uncertainty_upper_ratio
        return (lower / weights, upper / weights) if weights else (0.0, 0.0)

    # How it is fed.

    def _entry(self, record: Host, now_seconds: float) -> HostEntry:
        entry = self._hosts.get(record.host)
        if entry is None:
            entry = HostEntry(record, self.plan.site_of(record.host, now_seconds))
            self._hosts[record.host] = entry
        return entry

    def _has_changed(self, record: Host, cursors: Sequence[Cursor], *, whole: bool) -> bool:
        """Whether a host's rows say more than we know: if not whole, whether another collector serves it than we thought."""
        entry = self._hosts.get(record.host)
        if entry is None:
            return whole
        newest = record.epochs[-1] if record.epochs else None
        collector = next((cursor.collector for cursor in cursors if cursor.epoch == newest), "")
        return record.version > entry.record.version and (whole or collector != entry.collector)

    def _read_entry(self, store: Store, record: Host, cursors: Iterable[Cursor], now_seconds: float) -> None:
        entry = self._entry(record, now_seconds)
        entry.update(record, [(c, store.load_channels(c.host, c.epoch).values()) for c in cursors], self.collector)
        entry.site = self.plan.site_of(record.host, now_seconds)
        if entry.collector == self.collector:
            entry.workloads.read(store.host_workloads(entry.host, _workloads_since(now_seconds)), now_seconds)

    def _load_totals(self, store: Store, ledger: Rollups, now_seconds: float) -> None:
        """Take over the sites' energy as it stands in the ledger, whoever booked it. ledger: the store, or a state of it."""
        emissions = self._new_emissions(store.emission_runs())
        with self._lock:
            self._totals.load(read_rollups(ledger, emissions, now_seconds, self.interval_seconds), now_seconds)
            emissions.count_passed(store.add_emission_bases)
            emissions.keep_marks(self._emissions)
            self._emissions = emissions
        self._superseded = emissions.superseded_seconds()
        self._is_behind = False
        self._totals_read_seconds = now_seconds

    def _read_totals_again(self, store: Store, now_seconds: float) -> None:
        """Try it; without success sites are hidden until the next try."""
        self._is_behind = True
        self._totals_read_seconds = now_seconds
        try:
            self._load_totals(store, store, now_seconds)
        except StoreError as error:
            log.warning("the sites' totals can't be read and are not shown: %s", error)

    def _new_emissions(self, runs: Iterable[EmissionRun]) -> EmissionCounters:
        return EmissionCounters(self._finder, runs, interval_seconds=self.interval_seconds, site_terms=self._site_terms)

    def _came_from_another(self, booking: Booking) -> bool:
        """Whether another collector has booked for the host since we last did: our totals lack what it booked."""
        before = booking.cursor_before
        return self._store is not None and before is not None and before.collector != self.collector

    def _refresh_plan(self, bookings: Sequence[Booking], now_seconds: float) -> None:
        """Read the dated rows again where a host is new or has no site, which a row added just now may give it."""
        if self._store is None:
            return
        hosts = [booking.host_after.host for booking in bookings]
        is_new = any(host not in self._hosts for host in hosts)
        is_due = not 0 <= now_seconds - self._plan_read_seconds < _PLAN_READ_SECONDS_MIN
        if is_new or (is_due and any(self.plan.site_of(host, now_seconds) == SITE_UNASSIGNED for host in hosts)):
            self._plan_read_seconds = now_seconds
            self.set_plan(self._store.sites(), self._store.assignments())

    def _take_over(self, booking: Booking, now_seconds: float) -> HostEntry:
        after, cursor = booking.host_after, booking.cursor_after
        rows: list[tuple[Cursor, Iterable[ChannelInfo]]] = [(cursor, booking.channels)]
        known = self._hosts.get(after.host)
        if known is not None and known.record.version > after.version:
            # It was read from the ledger since it was committed.
            return known
        is_strange = known is None or booking.cursor_before is None or self._came_from_another(booking)
        if is_strange and self._store is not None:
            # Another collector may have served it until now.
            peers = self._store.load_peer_cursors(after.host, cursor.epoch)
            rows = [(peer, self._store.load_channels(peer.host, peer.epoch).values()) for peer in peers] + rows
        if self._store is not None and (
            self._came_from_another(booking) or not self._has_catalog(known, cursor, booking.channels)
        ):
            rows[-1] = (cursor, self._store.load_channels(cursor.host, cursor.epoch).values())
        entry = self._entry(after, now_seconds)
        entry.update(after, rows, self.collector)
        return entry

    def _take_workloads(self, booking: Booking, entry: HostEntry, now_seconds: float) -> None:
        """Add what a booking says of workloads; where one comes back, or others have booked, all are read as they stand."""
        change = booking.workloads
        if entry.workloads.follow(booking, now_seconds) or change is None:
            return
        if self._store is None:
            entry.workloads.add(change, now_seconds)
            return
        since = min(change.seen_utc_nanoseconds, _workloads_since(now_seconds))
        entry.workloads.read(self._store.host_workloads(entry.host, since), now_seconds, change)

    def _has_catalog(self, entry: HostEntry | None, cursor: Cursor, new: Sequence[ChannelInfo]) -> bool:
        numbers = {info.channel for info in new}
        return all(
            number in numbers or (entry is not None and entry.channel(cursor.epoch, number) is not None)
            for number in cursor.points
        )

    def _count(self, booking: Booking, entry: HostEntry) -> None:
        with self._lock:
            for row in booking.energy:
                channel = entry.channel(booking.cursor_after.epoch, row.channel)
                if channel is None:
                    continue
                start = row.interval_start_seconds
                site = self.plan.site_of(entry.host, start)
                self._totals.add(
                    site, channel.component, row.quality, start, Amount(row.energy_microjoules, row.covered_nanoseconds)
                )
                self._emissions.add_energy(site, start, row.quality, row.energy_microjoules)

    def _keep_bases(self, bookings: Sequence[Booking]) -> None:
        """Store which factors are used first before anything is counted with them: another collector may have others."""
        intervals = {
            (self.plan.site_of(booking.host_after.host, row.interval_start_seconds), row.interval_start_seconds)
            for booking in bookings
            if not booking.cursor_after.recorded
            for row in booking.energy
        }
        new = self._emissions.first_bases(sorted(intervals))
        if not new:
            return
        try:
            self._emissions.remember(new if self._store is None else self._store.add_emission_bases(new))
        except StoreError as error:
            # All is read again, and these bases with it, before the sites are shown.
            self._is_behind = True
            log.warning("what the sites emit is not shown until it can be stored: %s", error)


def _workloads_since(now_seconds: float) -> int:
    """From when on a workload was seen lately; nanoseconds."""
    return int((now_seconds - WORKLOAD_STALENESS_SECONDS) * NANOSECONDS_PER_SECOND)


def _by_host(cursors: Iterable[Cursor]) -> dict[str, list[Cursor]]:
    by_host: dict[str, list[Cursor]] = {}
    for cursor in cursors:
        by_host.setdefault(cursor.host, []).append(cursor)
    return by_host
