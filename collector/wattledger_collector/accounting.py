"""From booked energy to emissions: integer microjoules x PUE x factor, exact, for each site and interval.

No clock, no database, no rounding: what is shown is rounded where it is shown. Sources of truth: GHG Protocol Scope 2
Guidance (location based), ISO/IEC 30134-2 (PUE), 1 kWh = 3.6e12 microjoules.

Results are fractions, since 1/3.6e12 has no end in decimals; sums over any split of hosts and intervals agree to the last
digit. The factor and PUE are those of the interval's start. What has no factor has no figure: its energy is uncovered.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from wattledger_collector.factor_catalog import BEGINNING_SECONDS, FactorCatalog, UnknownZoneError
from wattledger_collector.factors import Factor, FactorKind
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


def emissions(energy_microjoules: int, factor: Factor, pue: Decimal) -> Emissions:
    """Emissions of IT energy at a site. energy_microjoules: signed. pue: facility energy / IT energy, >= 1."""
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


def _grams(energy_microjoules: int, grams_per_kwh: Decimal, pue: Decimal) -> Fraction:
    return energy_microjoules * Fraction(pue) * Fraction(grams_per_kwh) / MICROJOULES_PER_KWH


@dataclass(frozen=True, slots=True)
class SiteBasis:
    """What turns a site's energy into emissions in [from_seconds, to_seconds); to_seconds None: from then on.

    pue None: the site has no row at that time. factor None: the energy is uncovered, and missing says why.
    provisional: the factor is of an earlier period than the energy. assumed: the zone was proposed, not configured.
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
        if (
            latest is not None
            and latest.from_seconds <= at_seconds
            and (latest.to_seconds is None or at_seconds < latest.to_seconds)
        ):
            return latest
        basis = self._latest[site] = self._find(site, at_seconds)
        return basis

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
        )


@dataclass(frozen=True, slots=True)
class Line:
    """Energy of one site, component and quality under one basis: the finest part of a report."""

    basis: SiteBasis
    component: Component
    quality: Quality
    recorded: bool
    energy_microjoules: int
    covered_nanoseconds: int

    @property
    def emissions(self) -> Emissions | None:
        """Exact emissions; None where no factor holds."""
        if self.basis.factor is None or self.basis.pue is None:
            return None
        return emissions(self.energy_microjoules, self.basis.factor, self.basis.pue)


def account(rollups: Iterable[RollupRow], finder: BasisFinder) -> list[Line]:
    """Sum roll-up rows by site, basis, component and quality.

    Summing first and multiplying once is exact: in whole numbers and fractions the distributive law holds.
    """
    bases: dict[tuple[str, int], SiteBasis] = {}
    sums: dict[tuple[str, int, bool, Component, Quality], list[int]] = {}
    for row in rollups:
        basis = finder.find(row.site, row.interval_start_seconds)
        # A site has one basis at any instant, so that site and beginning name it; hashing it whole would be slow.
        bases[row.site, basis.from_seconds] = basis
        pair = sums.setdefault((row.site, basis.from_seconds, row.recorded, row.component, row.quality), [0, 0])
        pair[0] += row.energy_microjoules
        pair[1] += row.covered_nanoseconds
    return [
        Line(bases[site, begin], component, quality, recorded, energy, covered)
        for (site, begin, recorded, component, quality), (energy, covered) in sorted(sums.items())
    ]


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
