"""What a report shows beyond its sums: days, and the PUE that a site's own meter measured.

Reads the store and rounds nothing. Sources of truth: `report.py` for the sums, `facility.py` for the arithmetic of a PUE.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import groupby, pairwise

from sqlalchemy import text

from wattledger_collector.accounting import BasisFinder, account, coverage
from wattledger_collector.facility import Category, Facility, FacilityError, MeasuredPue, Pue, allocate_overhead
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import FactorKind
from wattledger_collector.import_store import imports, meter_rows
from wattledger_collector.imports import EnergyImport, Place
from wattledger_collector.pieces import basis_edges, cut_pieces
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    GapReason,
)
from wattledger_collector.report import Period, Report, SiteReport, channel_counts
from wattledger_collector.store import SqliteStore
from wattledger_collector.store_rows import SitesOfHosts

# More bars than these are a smear; longer periods are shown by months.
DAYS_MAX = 400


@dataclass(slots=True)
class Day:
    """A civil day (or month) of a report's time zone, as far as it is in the period; half-open."""

    from_seconds: int
    to_seconds: int
    energy_microjoules: int
    covered_nanoseconds: int
    missing_nanoseconds: int
    grams: dict[FactorKind, Fraction]

    @property
    def coverage(self) -> Fraction | None:
        """Share of channel time with a figure."""
        return coverage(self.covered_nanoseconds, self.missing_nanoseconds)


def days_of(report: Report, store: SqliteStore, catalog: FactorCatalog, site: str | None = None) -> list[Day]:
    """The period's days, or its months if those are too many; their sums are the report's to the last digit."""
    edges = day_edges(report.period)
    days = [Day(begin, end, 0, 0, 0, {}) for begin, end in pairwise(edges)]
    sites, period, length = store.sites(), report.period, report.interval_seconds
    finder = BasisFinder(sites, catalog)
    changes = basis_edges(finder, {row.site for row in sites}, period.from_seconds, period.to_seconds)
    pieces = cut_pieces(period.from_seconds, period.to_seconds, changes.union(edges), length)
    # An interval that midnight cuts (in zones that were once minutes off) is of the day in which it begins.
    sums = groupby(store.rollup_sums(pieces, site), lambda row: bisect_right(edges, row.interval_start_seconds) - 1)
    for place, rows in sums:
        for line in account(rows, BasisFinder(sites, catalog), length):
            day = days[place]
            day.energy_microjoules += line.energy_microjoules
            day.covered_nanoseconds += line.covered_nanoseconds
            if (part := line.emissions) is not None:
                day.grams[part.kind] = day.grams.get(part.kind, Fraction(0)) + part.grams
    counts = channel_counts(store, (row for reported in report.sites for row in reported.gap_rows))
    for reported in report.sites:
        _add_missing(days, edges, reported, report, counts)
    return days


def day_edges(period: Period) -> list[int]:
    """The beginnings of the period's civil days (or months) and its end; a day has 23 or 25 hours where clocks change."""
    days = _edges(period, months=False)
    return days if len(days) <= DAYS_MAX + 1 else _edges(period, months=True)


def _edges(period: Period, *, months: bool) -> list[int]:
    day = datetime.fromtimestamp(period.from_seconds, period.time_zone).date()
    edges = [period.from_seconds]
    while True:
        day = (day.replace(day=28) + timedelta(days=4)).replace(day=1) if months else day + timedelta(days=1)
        edge = int(datetime(day.year, day.month, day.day, tzinfo=period.time_zone).timestamp())
        if edge >= period.to_seconds:
            return [*edges, period.to_seconds]
        edges.append(edge)


def _add_missing(
    days: Sequence[Day], edges: Sequence[int], site: SiteReport, report: Report, counts: Mapping[tuple[str, bytes], int]
) -> None:
    """Channel time without a figure, by day; what spans of one channel share is counted once."""
    reached: dict[tuple[str, bytes, int], int] = {}
    for row in site.gap_rows:
        gap = row.gap
        if gap.reason is GapReason.OVERLAP:
            continue
        key = (row.host, row.epoch, gap.channel)
        # Rows come by beginning.
        begin = max(gap.from_utc_nanoseconds, reached.get(key, 0), edges[0] * NANOSECONDS_PER_SECOND)
        reached[key] = max(reached.get(key, 0), gap.to_utc_nanoseconds)
        channels = counts.get((row.host, row.epoch), 1) if gap.channel == 0 else 1
        _spread(days, edges, begin, gap.to_utc_nanoseconds, channels)
    end = min(report.period.to_seconds, report.made_at_seconds)
    for host in site.silent:
        length = (end - host.since_seconds) * NANOSECONDS_PER_SECOND
        channels = host.missing_nanoseconds // length if length > 0 else 0
        _spread(days, edges, host.since_seconds * NANOSECONDS_PER_SECOND, end * NANOSECONDS_PER_SECOND, channels)


def _spread(days: Sequence[Day], edges: Sequence[int], begin: int, end: int, channels: int) -> None:
    place = max(0, bisect_right(edges, begin // NANOSECONDS_PER_SECOND) - 1)
    for day in days[place:]:
        start, stop = day.from_seconds * NANOSECONDS_PER_SECOND, day.to_seconds * NANOSECONDS_PER_SECOND
        if start >= end:
            return
        day.missing_nanoseconds += max(0, min(end, stop) - max(begin, start)) * channels


def measured_pues(report: Report, store: SqliteStore) -> dict[str, MeasuredPue]:
    """The measured PUE of each site that has a meter of its own in the period."""
    period = report.period
    found: dict[str, list[EnergyImport]] = {}
    for made in imports(store):
        if made.place is Place.FACILITY and made.removal is None:
            found.setdefault(made.meter.site, []).append(made)
    names = {site.site for site in report.sites}
    pues: dict[str, MeasuredPue] = {}
    for site, meters in sorted(found.items()):
        feeds = [
            one for one in _feeds(meters) if one.from_seconds < period.to_seconds and one.to_seconds > period.from_seconds
        ]
        if feeds and site in names:
            pues[site] = _measure(report, store, site, feeds)
    return pues


@dataclass(frozen=True, slots=True)
class _Feeds:
    """Meters of a site that were read beside each other, between the first and the last that any of them told."""

    from_seconds: int
    to_seconds: int
    made: tuple[EnergyImport, ...]


def _feeds(made: Sequence[EnergyImport]) -> list[_Feeds]:
    """A site's meters by time: those whose times overlap are one set of feeds, a meter that follows another is the next."""
    meters: dict[str, list[EnergyImport]] = {}
    for each in made:
        meters.setdefault(each.meter.meter, []).append(each)
    served = [
        _Feeds(
            min(each.provenance.from_seconds for each in imported),
            max(each.provenance.to_seconds for each in imported),
            tuple(imported),
        )
        for imported in meters.values()
    ]
    feeds: list[_Feeds] = []
    for own in sorted(served, key=lambda one: one.from_seconds):
        joined = own
        if feeds and own.from_seconds < feeds[-1].to_seconds:
            before = feeds.pop()
            joined = _Feeds(before.from_seconds, max(before.to_seconds, own.to_seconds), (*before.made, *own.made))
        feeds.append(joined)
    return feeds


def _measure(report: Report, store: SqliteStore, site: str, feeds: Sequence[_Feeds]) -> MeasuredPue:
    """PUE over the intervals that all of the site's meters of that time cover whole."""
    period, length = report.period, report.interval_seconds
    names = tuple(sorted({made.meter.meter or made.provenance.file for each in feeds for made in each.made}))
    whole: dict[int, int] = {}
    for each in feeds:
        whole |= _whole_intervals(store, period, each, length)
    it: dict[int, int] = {}
    for row in store.rollups(period.from_seconds, period.to_seconds, site):
        if row.interval_start_seconds in whole:
            it[row.interval_start_seconds] = it.get(row.interval_start_seconds, 0) + row.energy_microjoules
    both = sorted(it)
    facility, used = sum(whole[start] for start in both), sum(it.values())
    if not both:
        return MeasuredPue(site, None, 0, 0, 0, names, {}, {}, "no interval has energy of both the site's meter and its IT")
    try:
        ratio = Facility(facility, used, {}).pue
        begin, end = both[0], both[-1] + length
        pue = Pue(ratio, begin, end, Category.IT_INPUT, ", ".join(names))
        hosts = _host_energy(store, site, both, length)
        overhead = allocate_overhead(facility, hosts)
    except FacilityError as error:
        return MeasuredPue(site, None, facility, used, len(both) * length, names, {}, {}, str(error))
    return MeasuredPue(site, pue, facility, used, len(both) * length, names, overhead, hosts, "")


def _whole_intervals(store: SqliteStore, period: Period, feeds: _Feeds, length: int) -> dict[int, int]:
    """Energy of all meters together, for the intervals in which none of them lacks a second."""
    meters: dict[str, dict[int, tuple[int, int]]] = {each.meter.meter: {} for each in feeds.made}
    for each in feeds.made:
        of_meter = meters[each.meter.meter]
        for row in meter_rows(store, each.provenance.digest, period.from_seconds, period.to_seconds):
            energy, covered = of_meter.get(row.interval_start_seconds, (0, 0))
            sums = (energy + row.energy_microjoules, covered + row.covered_nanoseconds)
            of_meter[row.interval_start_seconds] = sums
    first, *others = meters.values()
    full = length * NANOSECONDS_PER_SECOND
    return {
        start: sum(meter[start][0] for meter in meters.values())
        for start, (_, covered) in first.items()
        if covered == full and all(start in meter and meter[start][1] == full for meter in others)
    }


_HOSTS = text(
    "SELECT h.host, sum(e.energy_microjoules) FROM energy AS e JOIN channel AS n ON n.id = e.channel_id "
    "JOIN epoch_cursor AS c ON c.id = n.cursor_id JOIN host AS h ON h.id = c.host_id "
    "WHERE e.interval_start_seconds >= :from_seconds AND e.interval_start_seconds < :to_seconds GROUP BY h.host"
)


def _host_energy(store: SqliteStore, site: str, starts: Sequence[int], length: int) -> dict[str, int]:
    """IT energy of the site's hosts in some intervals; the database adds up whole stretches of them."""
    sites = SitesOfHosts(store.assignments())
    moves = {row.valid_from_seconds for row in store.assignments()}
    sums: dict[str, int] = {}
    begin = before = starts[0]
    for start in [*starts[1:], starts[-1] + 2 * length]:
        # A stretch ends at a hole, and where a host may have come or gone.
        if start != before + length or any(before < move <= start for move in moves):
            values = {"from_seconds": begin, "to_seconds": before + length}
            for host, energy in store.rows(_HOSTS, values):
                if sites.at(host, begin) == site:
                    sums[host] = sums.get(host, 0) + energy
            begin = start
        before = start
    return {host: energy for host, energy in sorted(sums.items()) if energy}
