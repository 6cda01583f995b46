"""Shows a report to programs, as JSON and CSV; the table for people is in `report_table.py`.

Reckons nothing but the rounding (half up, on display alone). Microjoules are text; exact grams and coverage are fractions,
so that nothing is lost on the way. Source of truth: `report.py`.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, TextIO

import msgspec

from wattledger_collector.accounting import Emissions, Line, SiteBasis
from wattledger_collector.bands import Estimate
from wattledger_collector.declared_pue import DeclaredPue
from wattledger_collector.facility import MeasuredPue
from wattledger_collector.factors import Factor, FactorKind
from wattledger_collector.market import Figure
from wattledger_collector.records import NANOSECONDS_PER_SECOND, HostGapRow
from wattledger_collector.report import Period, Report, SiteReport
from wattledger_collector.report_market import (
    MARKET_COLUMNS,
    certificate_rows,
    instruments_tree,
    interval_tree,
    scope_two_tree,
    site_rows,
)
from wattledger_collector.rounding import kwh, rounded

# Digits after the point: a microjoule is 2.8e-13 kWh, and a microgram of CO2e concerns nobody.
KWH_DIGITS = 9
GRAM_DIGITS = 6
RATIO_DIGITS = 6

CSV_COLUMNS = (
    "record",
    "site",
    "from",
    "to",
    "component",
    "quality",
    "recorded",
    "energy_microjoules",
    "energy_kwh",
    "pue",
    "facility_kwh",
    "zone",
    "zone_assumed",
    "factor_g_per_kwh",
    "signal",
    "boundary",
    "gas",
    "basis",
    "factor_source",
    "factor_vintage",
    "factor_provisional",
    "factor_tier",
    "emissions_grams",
    "emissions_grams_exact",
    "uncovered_reason",
    "coverage_ratio",
    "gap_count",
    "lower_microjoules",
    "upper_microjoules",
    "coverage_exact",
    "gap_host",
    "gap_device",
    "gap_reason",
    *MARKET_COLUMNS,
)


def write_json(report: Report, out: TextIO) -> None:
    """Write the report as one JSON object."""
    # The standard library indents a value at a time, which takes longer than all the rest of a fleet's year.
    out.write(msgspec.json.format(msgspec.json.encode(_report_tree(report)), indent=2).decode())
    out.write("\n")


def _report_tree(report: Report) -> dict[str, Any]:
    period = report.period
    # Lines of one basis share their factors, which for a year of hours are named once.
    shared = {id(line.factors): line.factors for site in report.sites for line in site.lines}
    names = {key: [factor.id for factor in factors] for key, factors in shared.items()}
    return {
        "from": period.show(period.from_seconds),
        "to": period.show(period.to_seconds),
        "time_zone": period.time_zone.key,
        "interval_seconds": report.interval_seconds,
        "made_at": period.show(report.made_at_seconds),
        "provisional": bool(report.reasons),
        "provisional_reasons": list(report.reasons),
        "statements": [closure.statement for closure in report.closures],
        "late_energy": [{"site": site, "energy_microjoules": str(energy)} for site, energy in report.late],
        "energy_microjoules": str(report.energy_microjoules),
        "emissions": _emission_trees(report.emissions, report.intervals),
        "scope_2": {
            **scope_two_tree(report.market.total, report.market_intervals.get(None, {})),
            **instruments_tree(report.market, report.declared),
        },
        "sites": [_site_tree(report, site, names) for site in report.sites],
        "factors": [factor_tree(factor) for factor in report.factors],
    }


def _site_tree(report: Report, site: SiteReport, names: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    lower, upper = site.energy_bounds_microjoules
    period = report.period
    return {
        "site": site.site,
        "energy_microjoules": str(site.energy_microjoules),
        "energy_kwh": rounded(kwh(site.energy_microjoules), KWH_DIGITS),
        "energy_lower_microjoules": str(lower),
        "energy_upper_microjoules": None if upper is None else str(upper),
        "uncovered_microjoules": str(site.uncovered_microjoules),
        "uncovered": [{"reason": reason, "energy_microjoules": str(energy)} for reason, energy in uncovered(site)],
        "by_component": {component.name.lower(): str(energy) for component, energy in site.by_component().items()},
        "by_quality": {quality.name.lower(): str(energy) for quality, energy in site.by_quality().items()},
        "emissions": _emission_trees(site.emissions, report.site_intervals.get(site.site, {})),
        "scope_2": scope_two_tree(report.market.sites.get(site.site, Figure()), report.market_intervals.get(site.site, {})),
        "pue_declared": [_declared_tree(period, pue) for pue in report.pues.get(site.site, ())],
        "coverage_ratio": _ratio(site.coverage),
        "coverage_exact": _exact(site.coverage),
        "gaps": _gap_tree(report.period, site),
        "silent_hosts": [{"host": host.host, "since": period.show(host.since_seconds)} for host in site.silent],
        "lines": [_line_tree(report, line, names[id(line.factors)]) for line in site.lines],
        **({"pue_measured": _pue_tree(report.period, report.measured[site.site])} if site.site in report.measured else {}),
    }


def _declared_tree(period: Period, pue: DeclaredPue) -> dict[str, Any]:
    return {
        "ratio": f"{pue.ratio:f}",
        "name": pue.name,
        "valid_from": period.show(pue.valid_from_seconds),
        "valid_to": period.show(pue.valid_to_seconds),
        "determined_from": pue.from_day or None,
        "determined_to": pue.to_day or None,
        "category": None if pue.category is None else int(pue.category),
        "evidence": pue.evidence or None,
        "declared_without_evidence": pue.lacks_evidence,
    }


def _pue_tree(period: Period, measured: MeasuredPue) -> dict[str, Any]:
    """A measured PUE; each host's part of the overhead adds up to all of it."""
    pue = measured.pue
    return {
        "ratio": None if pue is None else rounded(pue.ratio, RATIO_DIGITS),
        "ratio_exact": None if pue is None else str(pue.ratio),
        "name": None if pue is None else pue.name,
        "category": None if pue is None else int(pue.category),
        "evidence": None if pue is None else pue.evidence,
        "from": None if pue is None else period.show(pue.from_seconds),
        "to": None if pue is None else period.show(pue.to_seconds),
        "measured_seconds": measured.measured_seconds,
        "meters": list(measured.meters),
        "facility_microjoules": str(measured.facility_microjoules),
        "it_microjoules": str(measured.it_microjoules),
        "overhead_microjoules": {host: str(part) for host, part in sorted(measured.overhead.items())},
        "missing": measured.reason or None,
    }


def _gap_tree(period: Period, site: SiteReport) -> dict[str, Any]:
    gaps = site.gaps
    return {
        "count": gaps.count,
        "lower_microjoules": str(gaps.lower_microjoules),
        "upper_microjoules": None if gaps.upper_microjoules is None else str(gaps.upper_microjoules),
        "missing_channel_seconds": rounded(Fraction(gaps.missing_nanoseconds, NANOSECONDS_PER_SECOND), 3),
        "reasons": {str(reason): count for reason, count in gaps.reasons.items()},
        "rows": [_gap_row_tree(period, row) for row in site.gap_rows],
    }


def _gap_row_tree(period: Period, row: HostGapRow) -> dict[str, Any]:
    gap = row.gap
    return {
        "host": row.host,
        "device": row.channel.device if row.channel else None,
        "recorded": row.recorded,
        "from": exact_instant(period, gap.from_utc_nanoseconds),
        "to": exact_instant(period, gap.to_utc_nanoseconds),
        "reason": str(gap.reason),
        "lower_microjoules": str(gap.lower_microjoules),
        "upper_microjoules": None if gap.upper_microjoules is None else str(gap.upper_microjoules),
    }


def exact_instant(period: Period, nanoseconds: int) -> str:
    """An instant as ISO text in the period's zone; with nine digits of a second where it is not a whole one."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    text = period.show(seconds)
    whole = len("2024-01-01T00:00:00")
    return f"{text[:whole]}.{rest:09d}{text[whole:]}" if rest else text


def _line_tree(report: Report, line: Line, factors: Sequence[str]) -> dict[str, Any]:
    basis, part = line.basis, line.emissions
    begin, end = span_of(report, basis)
    return {
        "from": begin,
        "to": end,
        "component": line.component.name.lower(),
        "quality": line.quality.name.lower(),
        "recorded": line.recorded,
        "energy_microjoules": str(line.energy_microjoules),
        "zone": basis.zone,
        "zone_assumed": basis.assumed,
        "pue": None if basis.pue is None else f"{basis.pue:f}",
        "factor": None if basis.factor is None else basis.factor.id,
        "factor_provisional": basis.provisional,
        "factor_tier": basis.tier,
        "factors": factors,
        "grams_per_kwh": None if (intensity := intensity_of(line)) is None else rounded(intensity, GRAM_DIGITS),
        "grams": None if part is None else rounded(part.grams, GRAM_DIGITS),
        "grams_exact": None if part is None else str(part.grams),
        "uncovered_reason": basis.missing or None,
    }


def _emission_trees(
    emissions: Mapping[FactorKind, Emissions], intervals: Mapping[FactorKind, Estimate]
) -> list[dict[str, Any]]:
    return [
        {
            **_kind_tree(kind),
            "grams": rounded(part.grams, GRAM_DIGITS),
            "grams_exact": str(part.grams),
            **({"interval": interval_tree(intervals[kind])} if kind in intervals else {}),
        }
        for kind, part in sorted(emissions.items())
    ]


def _kind_tree(kind: FactorKind) -> dict[str, str]:
    return {"signal": kind.signal, "boundary": kind.boundary, "gas": kind.gas, "basis": kind.basis}


def factor_tree(factor: Factor) -> dict[str, Any]:
    """A factor for JSON."""
    return {
        "factor": factor.id,
        "zone": factor.zone,
        "zone_name": factor.name,
        "grams_per_kwh": f"{factor.value:f}",
        **_kind_tree(factor.kind),
        "includes_td": factor.includes_td,
        "valid_from": factor.valid_from,
        "valid_to": factor.valid_to,
        "published": factor.published.isoformat(),
        "source": factor.source,
        "document": factor.document,
        "licence": factor.licence,
        "attribution": factor.attribution,
    }


def intensity_of(line: Line) -> Fraction | None:
    """What a kWh of the line counts as: its factor, or of a series of hours the energy-weighted mean; None without any."""
    if line.grams is None or line.basis.pue is None or not line.factors:
        return None
    if len(line.factors) == 1 or not line.energy_microjoules:
        return Fraction(line.factors[0].value)
    return line.grams / (kwh(line.energy_microjoules) * Fraction(line.basis.pue))


def vintage_of(factors: Sequence[Factor]) -> str:
    """What the factors of a line describe: the vintage of one, or how many there are and for when."""
    if len(factors) == 1:
        return factors[0].vintage
    return f"{len(factors)} values {factors[0].valid_from}..{factors[-1].valid_to}"


def uncovered(site: SiteReport) -> list[tuple[str, int]]:
    """Why energy has no emissions figure, and how much; microjoules."""
    sums: dict[str, int] = {}
    for line in site.lines:
        if line.emissions is None:
            sums[line.basis.missing] = sums.get(line.basis.missing, 0) + line.energy_microjoules
    return sorted(sums.items())


def span_of(report: Report, basis: SiteBasis) -> tuple[str, str]:
    """The part of the period in which a basis holds."""
    period = report.period
    end = period.to_seconds if basis.to_seconds is None else min(basis.to_seconds, period.to_seconds)
    return period.show(max(basis.from_seconds, period.from_seconds)), period.show(end)


def _exact(value: Fraction | None) -> str | None:
    return None if value is None else str(value)


def _ratio(value: Fraction | None) -> str | None:
    return None if value is None else rounded(value, RATIO_DIGITS)


def write_csv(report: Report, out: TextIO) -> None:
    """Write rows by site: one for each line (record `energy`), one for each gap (`gap`), and one of the sums (`site`).

    Then scope 2: parts of the market-based figure (`market`), both sums (`scope2_location`, `scope2_market`), and at the end
    the certificates (`certificate`, `surplus`, `refused`).
    """
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for site in report.sites:
        writer.writerows(_csv_line(report, site.site, line) for line in site.lines)
        writer.writerows(_csv_gap(report, site.site, row) for row in site.gap_rows)
        lower, upper = site.energy_bounds_microjoules
        writer.writerow(
            {
                "record": "site",
                "site": site.site,
                "from": report.period.show(report.period.from_seconds),
                "to": report.period.show(report.period.to_seconds),
                "energy_microjoules": site.energy_microjoules,
                "energy_kwh": rounded(kwh(site.energy_microjoules), KWH_DIGITS),
                "coverage_ratio": _ratio(site.coverage) or "",
                "gap_count": site.gaps.count,
                "lower_microjoules": lower,
                "upper_microjoules": "unknown" if upper is None else upper,
                "coverage_exact": _exact(site.coverage) or "",
            }
        )
        writer.writerows(_csv_market(report, site.site))
    writer.writerows(certificate_rows(report.market))


def _csv_market(report: Report, site: str) -> Iterator[dict[str, object]]:
    period = report.period
    span = {"site": site, "from": period.show(period.from_seconds), "to": period.show(period.to_seconds)}
    for row in site_rows(report.market.sites.get(site, Figure())):
        yield {**span, **row}


def _csv_gap(report: Report, site: str, row: HostGapRow) -> dict[str, object]:
    gap = row.gap
    return {
        "record": "gap",
        "site": site,
        "from": exact_instant(report.period, gap.from_utc_nanoseconds),
        "to": exact_instant(report.period, gap.to_utc_nanoseconds),
        "component": row.channel.component.name.lower() if row.channel else "",
        "recorded": str(row.recorded).lower(),
        "lower_microjoules": gap.lower_microjoules,
        "upper_microjoules": "unknown" if gap.upper_microjoules is None else gap.upper_microjoules,
        "gap_host": row.host,
        "gap_device": row.channel.device if row.channel else "",
        "gap_reason": str(gap.reason),
    }


def _csv_line(report: Report, site: str, line: Line) -> dict[str, object]:
    basis, part = line.basis, line.emissions
    begin, end = span_of(report, basis)
    row: dict[str, object] = {
        "record": "energy",
        "site": site,
        "from": begin,
        "to": end,
        "component": line.component.name.lower(),
        "quality": line.quality.name.lower(),
        "recorded": str(line.recorded).lower(),
        "energy_microjoules": line.energy_microjoules,
        "energy_kwh": rounded(kwh(line.energy_microjoules), KWH_DIGITS),
        "zone": basis.zone or "",
        "zone_assumed": str(basis.assumed).lower(),
        "uncovered_reason": basis.missing,
    }
    if basis.pue is not None:
        row["pue"] = f"{basis.pue:f}"
        row["facility_kwh"] = rounded(kwh(line.energy_microjoules) * Fraction(basis.pue), KWH_DIGITS)
    if basis.factor is not None and part is not None:
        row |= _kind_tree(basis.factor.kind)
        intensity = intensity_of(line) or Fraction(0)
        row["factor_g_per_kwh"] = f"{basis.factor.value:f}" if len(line.factors) == 1 else rounded(intensity, GRAM_DIGITS)
        row["factor_source"] = basis.factor.source
        row["factor_vintage"] = vintage_of(line.factors)
        row["factor_provisional"] = str(basis.provisional).lower()
        row["factor_tier"] = basis.tier
        row["emissions_grams"] = rounded(part.grams, GRAM_DIGITS)
        row["emissions_grams_exact"] = str(part.grams)
    return row
