"""From booked energy to emissions: integer microjoules x PUE x factor, exact, for each site and interval.

No clock, no database, no rounding: what is shown is rounded where it is shown. Sources of truth: GHG Protocol Scope 2
Guidance (location based), ISO/IEC 30134-2 (PUE), 1 kWh = 3.6e12 microjoules.

Results are fractions, since 1/3.6e12 has no end in decimals; sums over any split of hosts and intervals agree to the last
digit. Where a factor, zone or PUE changes within an interval, its energy is joined with each by overlap, as if power had
been even: e = E x |overlap| / |interval|. Rows of factors are never averaged. What has no factor has no figure: its energy
is uncovered.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction

from wattledger_collector.factor_catalog import BEGINNING_SECONDS, FactorCatalog, UnknownZoneError
from wattledger_collector.factors import Factor, FactorKind, Tier
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    NANOSECONDS_PER_SECOND,
    SITE_UNASSIGNED,
    Component,
    GapReason,
    HostGapRow,
    Quality,
    RollupRow,
    SiteRow,
)

PUE_MIN = Decimal(1)


class UnlikeEmissionsError(TypeError):
    """Emissions of different types were added: a bug in the caller, never a figure."""


@dataclass(frozen=True, slots=True)
class Emissions:
    """Grams of the gas that the kind names, exact."""

    grams: Fraction
    kind: FactorKind

    def __add__(self, other: "Emissions") -> "Emissions":
        if self.kind != other.kind:
            raise UnlikeEmissionsError(f"cannot add {other.kind} to {self.kind}: they count different things")
        return Emissions(self.grams + other.grams, self.kind)


def emissions(energy_microjoules: int | Fraction, factor: Factor, pue: Decimal) -> Emissions:
    """Emissions of IT energy at a site.

    energy_microjoules: signed; a fraction where an interval was cut. pue: facility energy / IT energy, >= 1.
    """
    if pue < PUE_MIN:
        raise ValueError(f"a PUE is at least 1, not {pue}")
    return Emissions(_grams(energy_microjoules, factor.value, pue), factor.kind)


def total_emissions(parts: Iterable[Emissions]) -> dict[FactorKind, Emissions]:
    """Sums by type; unlike ones stay apart."""
    totals: dict[FactorKind, Emissions] = {}
    for part in parts:
        before = totals.get(part.kind)
        totals[part.kind] = part if before is None else before + part
    return totals


def _grams(energy_microjoules: int | Fraction, grams_per_kwh: Decimal, pue: Decimal) -> Fraction:
    return energy_microjoules * Fraction(pue) * Fraction(grams_per_kwh) / MICROJOULES_PER_KWH


@dataclass(frozen=True, slots=True)
class SiteBasis:
    """What turns a site's energy into emissions in [from_seconds, to_seconds); to_seconds None: from then on.

    pue None: the site has no row at that time. factor None: the energy is uncovered, and missing says why.
    provisional: the factor is of an earlier period than the energy. assumed: the zone was proposed, not configured.
    tier: how good the factor is for this time.
    """

    site: str
    zone: str | None
    pue: Decimal | None
    assumed: bool
    factor: Factor | None
    provisional: bool
    missing: str
    from_seconds: int
    to_seconds: int | None
    tier: Tier = Tier.F9_NONE

    def holds_at(self, at_seconds: int) -> bool:
        """Whether the instant lies in its span."""
        return self.from_seconds <= at_seconds and (self.to_seconds is None or at_seconds < self.to_seconds)

    @property
    def group(self) -> tuple[object, ...]:
        """What energy is summed by: a factor of months or years by itself, those of a series of hours together."""
        if self.factor is None or not self.factor.is_long:
            series = (self.factor.source, self.factor.kind) if self.factor else None
            return (self.site, self.zone, self.pue, self.assumed, self.provisional, self.missing, self.tier, series)
        return (self.site, self.from_seconds)


class BasisFinder:
    """Finds the basis of a site at an instant, from dated site rows and a factor catalog."""

    def __init__(self, sites: Iterable[SiteRow], catalog: FactorCatalog) -> None:
        self._catalog = catalog
        self._rows: dict[str, list[SiteRow]] = {}
        # Of rows valid from the same instant, the one recorded last holds.
        for row in sorted(sites, key=lambda row: (row.valid_from_seconds, row.recorded_at_seconds)):
            rows = self._rows.setdefault(row.site, [])
            if rows and rows[-1].valid_from_seconds == row.valid_from_seconds:
                rows.pop()
            rows.append(row)
        self._latest: dict[str, SiteBasis] = {}

    def find(self, site: str, at_seconds: int) -> SiteBasis:
        """The basis at an instant, in seconds since 1970-01-01 UTC; fast while times ascend."""
        latest = self._latest.get(site)
        if latest is not None and latest.holds_at(at_seconds):
            return latest
        basis = self._latest[site] = self._find(site, at_seconds)
        return basis

    def split(self, site: str, from_seconds: int, to_seconds: int) -> list[tuple[SiteBasis, int]]:
        """The bases that hold in a span, in order, each with the seconds of the span that it holds for."""
        parts = []
        while from_seconds < to_seconds:
            basis = self.find(site, from_seconds)
            end = to_seconds if basis.to_seconds is None else min(to_seconds, basis.to_seconds)
            parts.append((basis, end - from_seconds))
            from_seconds = end
        return parts

    def _find(self, site: str, at_seconds: int) -> SiteBasis:
        rows = self._rows.get(site, [])
        index = bisect_right(rows, at_seconds, key=lambda row: row.valid_from_seconds)
        until = rows[index].valid_from_seconds if index < len(rows) else None
        if index == 0:
            missing = "no rule assigns these hosts to a site" if site == SITE_UNASSIGNED else f"site {site} has no zone yet"
            return SiteBasis(site, None, None, False, None, False, missing, BEGINNING_SECONDS, until)
        row = rows[index - 1]
        pue = Decimal(row.pue)
        if row.zone is None:
            missing = f"site {site} has no zone"
            return SiteBasis(site, None, pue, row.assumed, None, False, missing, row.valid_from_seconds, until)
        try:
            choice = self._catalog.factor_at(row.zone, at_seconds)
        except UnknownZoneError as error:
            # The zone came from a factor file that is no longer configured.
            return SiteBasis(site, row.zone, pue, row.assumed, None, False, str(error), row.valid_from_seconds, until)
        ends = [end for end in (until, choice.to_seconds) if end is not None]
        return SiteBasis(
            site=site,
            zone=row.zone,
            pue=pue,
            assumed=row.assumed,
            factor=choice.factor,
            provisional=choice.provisional,
            missing=choice.missing,
            from_seconds=max(row.valid_from_seconds, choice.from_seconds),
            to_seconds=min(ends) if ends else None,
            tier=choice.tier,
        )


@dataclass(frozen=True, slots=True)
class Line:
    """Energy of one site, component and quality under one basis: the finest part of a report.

    basis: with a series of hours, its first one, from the first's beginning to the last's end. grams: exact; None where no
    factor holds. factors: all that were used, each once, by time.
    """

    basis: SiteBasis
    component: Component
    quality: Quality
    recorded: bool
    energy_microjoules: int
    covered_nanoseconds: int
    grams: Fraction | None
    factors: tuple[Factor, ...]

    @property
    def emissions(self) -> Emissions | None:
        """Exact emissions; None where no factor holds."""
        if self.basis.factor is None or self.grams is None:
            return None
        return Emissions(self.grams, self.basis.factor.kind)


@dataclass(slots=True)
class _Group:
    """The bases that are told as one, and the factors among them by id."""

    first: SiteBasis
    last: SiteBasis
    factors: dict[str, Factor]

    def add(self, basis: SiteBasis) -> None:
        if basis.from_seconds < self.first.from_seconds:
            self.first = basis
        if basis.from_seconds > self.last.from_seconds:
            self.last = basis
        if basis.factor is not None:
            self.factors.setdefault(basis.factor.id, basis.factor)

    @property
    def basis(self) -> SiteBasis:
        return replace(self.first, to_seconds=self.last.to_seconds)


@dataclass(slots=True)
class _Sum:
    """What is summed in whole numbers: energy, covered time, and energy x seconds by basis, for the exact grams."""

    energy_microjoules: int = 0
    covered_nanoseconds: int = 0
    microjoule_seconds: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Known:
    """A basis that rows have met: the name of its group, and its factor's value as a quotient, or None."""

    group: tuple[object, ...]
    quotient: tuple[int, int] | None


def account(rollups: Iterable[RollupRow], finder: BasisFinder, interval_seconds: int) -> list[Line]:
    """Sum up energy by site, basis, component and quality, and multiply each factor's share once.

    Summing first and multiplying once is exact: in whole numbers and fractions the distributive law holds. Of an interval
    that several bases share, a later one has the odd microjoule; the grams are those of the exact shares. A row may be the
    sum of a piece of intervals, if all of them have the basis of its beginning (`pieces.py`).
    """
    groups: dict[tuple[object, ...], _Group] = {}
    # A site has one basis at any instant, so that site and beginning name it; hashing it whole would be slow.
    known: dict[tuple[str, int], _Known] = {}
    sums: dict[tuple[tuple[object, ...], bool, Component, Quality], _Sum] = {}
    where: tuple[str, int] | None = None
    parts: list[tuple[_Known, int, int]] = []
    for row in rollups:
        # Rows of one site and beginning come together.
        if where != (row.site, row.interval_start_seconds):
            where = (row.site, row.interval_start_seconds)
            parts = _meet(finder, where, interval_seconds, known, groups)
        elapsed = 0
        for met, begin, seconds in parts:
            key = (met.group, row.recorded, row.component, row.quality)
            part = sums.get(key)
            if part is None:
                part = sums[key] = _Sum()
            part.energy_microjoules += _share(row.energy_microjoules, elapsed, seconds, interval_seconds)
            part.covered_nanoseconds += _share(row.covered_nanoseconds, elapsed, seconds, interval_seconds)
            if met.quotient is not None:
                shares = part.microjoule_seconds
                shares[begin] = shares.get(begin, 0) + row.energy_microjoules * seconds
            elapsed += seconds
    bases = {name: (group.basis, tuple(sorted(group.factors.values(), key=_by_time))) for name, group in groups.items()}
    lines = [
        Line(
            bases[name][0],
            component,
            quality,
            recorded,
            part.energy_microjoules,
            part.covered_nanoseconds,
            _grams_of(part, groups[name], known, interval_seconds),
            bases[name][1],
        )
        for (name, recorded, component, quality), part in sums.items()
    ]
    return sorted(lines, key=_order)


def _meet(
    finder: BasisFinder,
    where: tuple[str, int],
    interval_seconds: int,
    known: dict[tuple[str, int], _Known],
    groups: dict[tuple[object, ...], _Group],
) -> list[tuple[_Known, int, int]]:
    """The bases of an interval, each with its beginning and the seconds that it holds for; new ones become known."""
    site, begin = where
    parts = []
    for basis, seconds in finder.split(site, begin, begin + interval_seconds):
        met = known.get((site, basis.from_seconds))
        if met is None:
            quotient = None if basis.factor is None else basis.factor.value.as_integer_ratio()
            met = known[site, basis.from_seconds] = _Known(basis.group, quotient)
            groups.setdefault(met.group, _Group(basis, basis, {})).add(basis)
        parts.append((met, basis.from_seconds, seconds))
    return parts


def _share(amount: int, elapsed: int, seconds: int, whole: int) -> int:
    """The part of an amount that falls on so many seconds after those that have elapsed, in whole numbers."""
    if seconds == whole:
        return amount
    return amount * (elapsed + seconds) // whole - amount * elapsed // whole


def _grams_of(part: _Sum, group: _Group, known: Mapping[tuple[str, int], _Known], interval_seconds: int) -> Fraction | None:
    pue = group.first.pue
    if not group.factors or pue is None:
        return None
    # Values of thousands of hours have a handful of denominators: sums of whole numbers by those, and few fractions.
    by_denominator: dict[int, int] = {}
    for begin, share in part.microjoule_seconds.items():
        quotient = known[group.first.site, begin].quotient
        if quotient is not None:
            by_denominator[quotient[1]] = by_denominator.get(quotient[1], 0) + share * quotient[0]
    grams = sum((Fraction(total, denominator) for denominator, total in by_denominator.items()), Fraction(0))
    return grams * Fraction(pue) / (MICROJOULES_PER_KWH * interval_seconds)


def _by_time(factor: Factor) -> tuple[int, str]:
    return factor.valid_from_seconds, factor.id


def _order(line: Line) -> tuple[object, ...]:
    return line.basis.site, line.basis.from_seconds, line.basis.tier, line.recorded, line.component, line.quality


@dataclass(frozen=True, slots=True)
class GapSummary:
    """What gaps leave open in a span: the truth lies in [booked + lower, booked + upper].

    upper_microjoules None: at least one gap has no known upper bound. reasons: gaps counted by reason.
    missing_nanoseconds: channel time without a figure.
    """

    count: int
    lower_microjoules: int
    upper_microjoules: int | None
    missing_nanoseconds: int
    reasons: Mapping[GapReason, int]


def summarise_gaps(
    gaps: Iterable[HostGapRow],
    from_seconds: int,
    to_seconds: int,
    channel_counts: Mapping[tuple[str, bytes], int] | None = None,
) -> GapSummary:
    """Sum up the gaps of booked channels in [from, to).

    channel_counts: booked channels by (host, epoch), for gaps of a whole host, whose channel is None; 1 if not given.
    Of a gap that reaches beyond the span it is unknown which part lies within, so that 0 enters its bounds.
    """
    begin, end = from_seconds * NANOSECONDS_PER_SECOND, to_seconds * NANOSECONDS_PER_SECOND
    lower, upper, count = 0, 0, 0
    is_bounded = True
    reasons: dict[GapReason, int] = {}
    spans: dict[tuple[str, bytes, int], list[tuple[int, int]]] = {}
    for row in gaps:
        gap = row.gap
        if row.channel is not None and not row.channel.is_booked:
            continue
        is_within = begin <= gap.from_utc_nanoseconds and gap.to_utc_nanoseconds <= end
        count += 1
        reasons[gap.reason] = reasons.get(gap.reason, 0) + 1
        lower += gap.lower_microjoules if is_within else min(0, gap.lower_microjoules)
        if gap.upper_microjoules is None:
            is_bounded = False
        else:
            upper += gap.upper_microjoules if is_within else max(0, gap.upper_microjoules)
        # An overlap was booked by another epoch, so that its time is not missing.
        if gap.reason is not GapReason.OVERLAP:
            span = (max(begin, gap.from_utc_nanoseconds), min(end, gap.to_utc_nanoseconds))
            spans.setdefault((row.host, row.epoch, gap.channel), []).append(span)
    counts = channel_counts or {}
    missing = 0
    for (host, epoch, channel), of_channel in spans.items():
        missing += _union_length(of_channel) * (counts.get((host, epoch), 1) if channel == 0 else 1)
    return GapSummary(count, lower, upper if is_bounded else None, missing, dict(sorted(reasons.items())))


def _union_length(spans: Sequence[tuple[int, int]]) -> int:
    """Length of all spans together, what they share counted once."""
    length, reached = 0, 0
    for begin, end in sorted(spans):
        begin = max(begin, reached)
        if end > begin:
            length += end - begin
            reached = end
    return length


def coverage(covered_nanoseconds: int, missing_nanoseconds: int) -> Fraction | None:
    """Share of channel time with a figure, in [0, 1]; None if there was nothing to meter."""
    whole = covered_nanoseconds + missing_nanoseconds
    return Fraction(covered_nanoseconds, whole) if whole > 0 else None
