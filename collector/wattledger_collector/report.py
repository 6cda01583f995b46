"""A report: energy, emissions, gaps and coverage of a period, from the store's rows and the factor tables.

Reads the store and rounds nothing; `report_output.py` shows it. Recorded hosts are in it, marked. Sources of truth: the
rows of the store, `accounting.py` for the arithmetic.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from wattledger_collector.accounting import (
    BasisFinder,
    Emissions,
    GapSummary,
    Line,
    account,
    coverage,
    summarise_gaps,
    total_emissions,
)
from wattledger_collector.bands import Estimate
from wattledger_collector.certificates import Certificate
from wattledger_collector.closures import Closure, closed_by, is_late
from wattledger_collector.declared_files import Declaration
from wattledger_collector.declared_pue import DeclaredPue, declared_pues
from wattledger_collector.facility import MeasuredPue
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Factor, FactorKind
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.market import Instruments, MarketBased, reckon
from wattledger_collector.market_bands import MarketEstimates
from wattledger_collector.market_load import MarketReckoning
from wattledger_collector.pieces import plan_readings
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    NANOSECONDS_PER_SECOND,
    SITE_UNASSIGNED,
    ChannelCount,
    Component,
    HostGapRow,
    HostState,
    Piece,
    Quality,
    RollupRow,
    SiteRow,
    Store,
)
from wattledger_collector.residual_mixes import Mixes

# Times outside are slips of the keyboard, and datetime cannot show all of them.
YEAR_MIN, YEAR_MAX = 1970, 2200


class ReportError(ValueError):
    """A report can't be made as asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open span of whole intervals, and the time zone in which people read it."""

    from_seconds: int
    to_seconds: int
    time_zone: ZoneInfo

    def show(self, seconds: int) -> str:
        """An instant as ISO text in the period's zone."""
        return datetime.fromtimestamp(seconds, self.time_zone).isoformat()


@dataclass(frozen=True, slots=True)
class SilentHost:
    """An active host of which nothing is booked since an instant: its energy may still come, or is lost."""

    host: str
    site: str
    since_seconds: int
    missing_nanoseconds: int


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What one site used in the period. gap_rows: what gaps sums up, by time."""

    site: str
    lines: tuple[Line, ...]
    gaps: GapSummary
    gap_rows: tuple[HostGapRow, ...]
    silent: tuple[SilentHost, ...]

    @property
    def energy_microjoules(self) -> int:
        """IT energy; signed sum of all lines."""
        return sum(line.energy_microjoules for line in self.lines)

    @property
    def energy_bounds_microjoules(self) -> tuple[int, int | None]:
        """Where the true energy lies, gaps included; upper None: unknown. Silent hosts are not in it."""
        upper = self.gaps.upper_microjoules
        energy = self.energy_microjoules
        return energy + self.gaps.lower_microjoules, None if upper is None else energy + upper

    @property
    def uncovered_microjoules(self) -> int:
        """Energy for which there is no emissions figure."""
        return sum(line.energy_microjoules for line in self.lines if line.emissions is None)

    @property
    def emissions(self) -> dict[FactorKind, Emissions]:
        """Exact sums by type of factor; unlike ones are never added."""
        return total_emissions(part for line in self.lines if (part := line.emissions) is not None)

    @property
    def coverage(self) -> Fraction | None:
        """Share of channel time with a figure; None if nothing was metered."""
        return coverage(self.covered_nanoseconds, self.missing_nanoseconds)

    @property
    def covered_nanoseconds(self) -> int:
        """Channel time with a figure."""
        return sum(line.covered_nanoseconds for line in self.lines)

    @property
    def missing_nanoseconds(self) -> int:
        """Channel time without a figure."""
        return self.gaps.missing_nanoseconds + sum(host.missing_nanoseconds for host in self.silent)

    def by_component(self) -> dict[Component, int]:
        """Microjoules by component."""
        sums: dict[Component, int] = {}
        for line in self.lines:
            sums[line.component] = sums.get(line.component, 0) + line.energy_microjoules
        return dict(sorted(sums.items()))

    def by_quality(self) -> dict[Quality, int]:
        """Microjoules by what they are made of."""
        sums: dict[Quality, int] = {}
        for line in self.lines:
            sums[line.quality] = sums.get(line.quality, 0) + line.energy_microjoules
        return dict(sorted(sums.items()))


@dataclass(frozen=True, slots=True)
class Report:
    """A report of one or all sites.

    reasons: why it is provisional; empty if the period is closed and nothing has come since. closures: the statements that
    hold the whole period; empty if some of it is open. late: energy by site that came after the statement of its interval.
    measured: the PUE of sites that have a meter of their own. pues: what sites declare, by time. market: scope 2, market
    based; declared: the names and digests of the files in which instruments stand, empty without any. intervals,
    site_intervals: how far emissions may be off, of all sites and of each; market_intervals: the same market based, None for
    all sites; empty where nobody asked.
    """

    period: Period
    interval_seconds: int
    made_at_seconds: int
    sites: tuple[SiteReport, ...]
    reasons: tuple[str, ...]
    closures: tuple[Closure, ...] = ()
    late: tuple[tuple[str, int], ...] = ()
    measured: Mapping[str, MeasuredPue] = field(default_factory=dict)
    pues: Mapping[str, tuple[DeclaredPue, ...]] = field(default_factory=dict)
    market: MarketBased = field(default_factory=lambda: reckon((), Instruments(), Mixes(), from_seconds=0, to_seconds=0))
    declared: tuple[tuple[str, str], ...] = ()
    intervals: Mapping[FactorKind, Estimate] = field(default_factory=dict)
    site_intervals: Mapping[str, Mapping[FactorKind, Estimate]] = field(default_factory=dict)
    market_intervals: MarketEstimates = field(default_factory=dict)

    @property
    def energy_microjoules(self) -> int:
        """IT energy of all sites; signed."""
        return sum(site.energy_microjoules for site in self.sites)

    @property
    def emissions(self) -> dict[FactorKind, Emissions]:
        """Exact sums of all sites by type of factor."""
        return total_emissions(part for site in self.sites for part in site.emissions.values())

    @property
    def factors(self) -> list[Factor]:
        """All factors used, each once, by id."""
        # Lines of one basis share one tuple; a year of hours is named once, and not for each component.
        shared = {id(line.factors): line.factors for site in self.sites for line in site.lines}
        used = {factor.id: factor for factors in shared.values() for factor in factors}
        return [used[name] for name in sorted(used)]


def parse_time_zone(name: str) -> ZoneInfo:
    """An IANA time zone by its name. Raises ReportError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ReportError(f"there is no time zone {name!r}: use an IANA name such as Europe/Berlin or UTC") from error


def parse_instant(text: str, time_zone: ZoneInfo) -> int:
    """Seconds since 1970-01-01 UTC of an ISO date (its beginning) or datetime in the zone. Raises ReportError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ReportError(
            f"{text!r} is no time: write an ISO date or datetime such as 2024-01-31 or 2024-01-31T06:15"
        ) from error
    if not YEAR_MIN <= moment.year <= YEAR_MAX:
        raise ReportError(f"{text!r} lies outside the years {YEAR_MIN} to {YEAR_MAX}: correct the year")
    if moment.tzinfo is None:
        early, late = (moment.replace(tzinfo=time_zone, fold=fold) for fold in (0, 1))
        if early.utcoffset() != late.utcoffset():
            # In autumn an hour of local time comes twice, in spring one never comes.
            options = " or ".join(each.isoformat() for each in (early, late))
            raise ReportError(f"{text!r} is not one instant in {time_zone.key}, as its clocks change: write {options}")
        moment = early
    if moment.microsecond:
        raise ReportError(f"{text!r} has a fraction of a second: intervals begin at whole ones, leave it out")
    return int(moment.timestamp())


def make_period(from_seconds: int, to_seconds: int, time_zone: ZoneInfo, interval_seconds: int) -> Period:
    """Check a period. Raises ReportError, naming the nearest instants at which intervals begin."""
    period = Period(from_seconds, to_seconds, time_zone)
    for option, seconds in (("--from", from_seconds), ("--to", to_seconds)):
        before = seconds - seconds % interval_seconds
        if before != seconds:
            raise ReportError(
                f"{option} {period.show(seconds)} lies within an interval of {interval_seconds} s: "
                f"use {period.show(before)} or {period.show(before + interval_seconds)}"
            )
    if to_seconds <= from_seconds:
        raise ReportError(
            f"the period from {period.show(from_seconds)} to {period.show(to_seconds)} is empty: "
            f"--to is the first instant after it, so it has to be later"
        )
    return period


def check_site(sites: Iterable[SiteRow], site: str | None) -> None:
    """Raises ReportError for a site that the store does not have; None is all of them."""
    known = {row.site for row in sites} | {SITE_UNASSIGNED}
    if site is not None and site not in known:
        near = difflib.get_close_matches(site, sorted(known), n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else f"the sites are {', '.join(sorted(known))}"
        raise ReportError(f"there is no site {site!r}: {remedy}")


def make_report(
    store: Store,
    catalog: FactorCatalog,
    period: Period,
    *,
    now_seconds: int,
    site: str | None = None,
    declaration: Declaration | None = None,
    used: Mapping[Certificate, Fraction] | None = None,
) -> Report:
    """Reckon a period's report. site: that one alone. Raises ReportError if the store has no such site.

    declaration: of certificates and residual mixes, for the market-based figure; used: what statements of other periods have
    taken of the certificates, in microjoules.
    """
    sites = store.sites()
    plan = SitePlan()
    plan.replace(sites, store.assignments())
    check_site(sites, site)
    closures = store.closures()
    closed = closed_by(closures, period.from_seconds, period.to_seconds, site)
    late: dict[str, int] = {}
    reckoning = market_reckoning(declaration, BasisFinder(sites, catalog), catalog, store.interval_seconds)
    # What a certificate covers is divided among all sites of its market, so that one of them alone can't be reckoned.
    read = None if declaration is not None and declaration.certificates else site
    edges = reckoning.edges(period.from_seconds, period.to_seconds, zones_of(sites))
    sums = reckoning.sums.noting(read_sums(store, BasisFinder(sites, catalog), period, read, edges))
    rollups = noting_late((row for row in sums if site is None or row.site == site), closures, late)
    lines = account(rollups, BasisFinder(sites, catalog), store.interval_seconds)
    market = reckoning.reckon(period.from_seconds, period.to_seconds, used)
    gaps = [row for row in store.gaps(period.from_seconds, period.to_seconds) if site is None or row.site == site]
    # What is shown and not booked has no part in the sums, so that its gaps leave nothing open.
    gaps = [row for row in gaps if row.channel is None or row.channel.is_booked]
    gaps.sort(key=lambda row: (row.gap.from_utc_nanoseconds, row.host, row.gap.channel))
    counts = channel_counts(store, gaps)
    silent = [host for host in _silent_hosts(store, plan, period, now_seconds) if site is None or host.site == site]
    gaps_of: dict[str, list[HostGapRow]] = {}
    for row in gaps:
        gaps_of.setdefault(row.site, []).append(row)
    names = {line.basis.site for line in lines} | gaps_of.keys() | {host.site for host in silent}
    reports = tuple(
        SiteReport(
            site=name,
            lines=tuple(line for line in lines if line.basis.site == name),
            gaps=summarise_gaps(gaps_of.get(name, ()), period.from_seconds, period.to_seconds, counts),
            gap_rows=tuple(gaps_of.get(name, ())),
            silent=tuple(host for host in silent if host.site == name),
        )
        for name in sorted(names)
    )
    reasons = (*reasons_of_closing(closed, late), *_reasons(reports, period, now_seconds))
    return Report(
        period=period,
        interval_seconds=store.interval_seconds,
        made_at_seconds=now_seconds,
        sites=reports,
        reasons=reasons,
        closures=closed,
        late=tuple(sorted(late.items())),
        pues=declared_pues(sites, period.from_seconds, period.to_seconds),
        market=market if site is None else market.of(site),
        declared=() if declaration is None else declaration.files,
    )


def market_reckoning(
    declaration: Declaration | None, finder: BasisFinder, catalog: FactorCatalog, interval_seconds: int
) -> MarketReckoning:
    """What makes the market-based figure; without a declaration there are no instruments, and only published mixes."""
    declared = None if declaration is None else declaration.declared
    instruments = Instruments() if declaration is None else declaration.instruments
    return MarketReckoning(declared, instruments, finder, catalog, interval_seconds)


def zones_of(sites: Iterable[SiteRow]) -> set[str]:
    """All grid zones that sites are or were in."""
    return {row.zone for row in sites if row.zone is not None}


def read_sums(
    store: Store, finder: BasisFinder, period: Period, site: str | None = None, edges: Collection[int] = ()
) -> Iterator[RollupRow]:
    """The roll-ups of the period, added up by pieces in which no basis changes and no closure begins or ends.

    site: that one alone. edges: further instants at which pieces end.
    """
    edges = {edge for closure in store.closures() for edge in (closure.from_seconds, closure.to_seconds)}.union(edges)
    span = Piece(period.from_seconds, period.to_seconds)
    names = {row.site for row in store.sites()} if site is None else {site}
    with store.reading_ahead(*span):
        for reading in plan_readings(finder, names, span, edges, store.interval_seconds):
            if site is None:
                yield from store.rollup_sums(reading.pieces, reading.only, reading.without)
            elif reading.only is not None or site not in reading.without:
                yield from store.rollup_sums(reading.pieces, [site])


def noting_late(rows: Iterable[RollupRow], closures: Sequence[Closure], late: dict[str, int]) -> Iterator[RollupRow]:
    """The rows as they are; adds the energy of those that came after a statement to its site's sum."""
    for row in rows:
        # What no closure has frozen is of the first edition, so that the search is for the few late rows alone.
        if row.edition and is_late(closures, row.site, row.interval_start_seconds, row.edition):
            late[row.site] = late.get(row.site, 0) + row.energy_microjoules
        yield row


def reasons_of_closing(closed: Sequence[Closure], late: Mapping[str, int]) -> Iterable[str]:
    """Why a period is provisional, as far as statements go; nothing if they hold all of it."""
    if not closed:
        yield "the period is not closed: energy that arrives later still enters it"
    for site, microjoules in sorted(late.items()):
        yield (
            f"{microjoules / MICROJOULES_PER_KWH:,.3f} kWh of site {site} came after the statement of their time: "
            f"close the period again to state them"
        )


def channel_counts(store: Store, gaps: Iterable[HostGapRow]) -> dict[tuple[str, bytes], int]:
    """Booked channels of the epochs that have a gap of the whole host."""
    epochs = {(row.host, row.epoch) for row in gaps if row.channel is None}
    if not epochs:
        return {}
    counts = store.channel_counts()
    return {epoch: counts[epoch].booked if epoch in counts else 0 for epoch in epochs}


def _silent_hosts(store: Store, plan: SitePlan, period: Period, now_seconds: int) -> list[SilentHost]:
    """Active hosts whose newest epoch has nothing for the period's last interval or more, although its time has come."""
    end = min(period.to_seconds, now_seconds) * NANOSECONDS_PER_SECOND
    newest = {host.host: host.epochs[-1] for host in store.hosts() if host.state == HostState.ACTIVE and host.epochs}
    silent: list[SilentHost] = []
    counts: Mapping[tuple[str, bytes], ChannelCount] | None = None
    for cursor in store.cursors():
        if cursor.recorded or newest.get(cursor.host) != cursor.epoch or not cursor.points:
            continue
        since = max(point.utc_nanoseconds for point in cursor.points.values())
        since = max(since, period.from_seconds * NANOSECONDS_PER_SECOND)
        if end - since < store.interval_seconds * NANOSECONDS_PER_SECOND:
            continue
        if counts is None:
            counts = store.channel_counts()
        count = counts.get((cursor.host, cursor.epoch))
        missing = (count.still_open if count else 0) * (end - since)
        site = plan.site_of(cursor.host, since // NANOSECONDS_PER_SECOND)
        silent.append(SilentHost(cursor.host, site, since // NANOSECONDS_PER_SECOND, missing))
    return sorted(silent, key=lambda host: (host.site, host.host))


def _reasons(sites: Sequence[SiteReport], period: Period, now_seconds: int) -> Iterable[str]:
    if period.to_seconds > now_seconds:
        yield f"the period ends after this report was made, {datetime.fromtimestamp(now_seconds, UTC).isoformat()}"
    lines = [line for site in sites for line in site.lines]
    vintages = {
        (line.basis.zone or "", line.basis.factor.vintage) for line in lines if line.basis.provisional and line.basis.factor
    }
    for zone, vintage in sorted(vintages):
        yield f"zone {zone} has no factor for all of the period yet: that of {vintage} stands in"
    for zone in sorted({line.basis.zone or "" for line in lines if line.basis.assumed}):
        yield f"the zone {zone} is assumed from the system's time zone, not configured"
    silent = sum(len(site.silent) for site in sites)
    if silent:
        yield f"{silent} active host{'' if silent == 1 else 's'} reported nothing up to the period's end"
