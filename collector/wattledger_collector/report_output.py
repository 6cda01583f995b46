"""Shows a report: a table for people, JSON and CSV for programs.

Reckons nothing but the rounding (half up, on display alone). JSON and CSV carry microjoules as text and exact grams as
fractions, so that nothing is lost on the way. Source of truth: `report.py`.
"""

import csv
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector.accounting import GapSummary, Line, SiteBasis
from wattledger_collector.factors import Factor, FactorKind
from wattledger_collector.records import MICROJOULES_PER_KWH, NANOSECONDS_PER_SECOND, Component, Quality
from wattledger_collector.report import Report, SiteReport

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
    "emissions_grams",
    "emissions_grams_exact",
    "uncovered_reason",
    "coverage_ratio",
    "gap_count",
    "lower_microjoules",
    "upper_microjoules",
)


def rounded(value: Fraction, digits: int) -> str:
    """A fraction as decimal text, rounded half up (away from zero), with exactly so many digits after the point."""
    scaled = (abs(value) * 10**digits * 2 + 1) // 2
    whole, part = divmod(scaled, 10**digits)
    sign = "-" if value < 0 and scaled else ""
    return f"{sign}{whole}.{part:0{digits}d}" if digits else f"{sign}{whole}"


def kwh(microjoules: int) -> Fraction:
    """Exact kilowatt-hours."""
    return Fraction(microjoules, MICROJOULES_PER_KWH)


def write_json(report: Report, out: TextIO) -> None:
    """Write the report as one JSON object."""
    json.dump(_report_tree(report), out, indent=2, ensure_ascii=False)
    out.write("\n")


def _report_tree(report: Report) -> dict[str, Any]:
    period = report.period
    return {
        "from": period.show(period.from_seconds),
        "to": period.show(period.to_seconds),
        "time_zone": period.time_zone.key,
        "interval_seconds": report.interval_seconds,
        "made_at": period.show(report.made_at_seconds),
        "provisional": bool(report.reasons),
        "provisional_reasons": list(report.reasons),
        "energy_microjoules": str(sum(site.energy_microjoules for site in report.sites)),
        "sites": [_site_tree(report, site) for site in report.sites],
        "factors": [factor_tree(factor) for factor in _factors(report)],
    }


def _site_tree(report: Report, site: SiteReport) -> dict[str, Any]:
    lower, upper = site.energy_bounds_microjoules
    period = report.period
    return {
        "site": site.site,
        "energy_microjoules": str(site.energy_microjoules),
        "energy_kwh": rounded(kwh(site.energy_microjoules), KWH_DIGITS),
        "energy_lower_microjoules": str(lower),
        "energy_upper_microjoules": None if upper is None else str(upper),
        "uncovered_microjoules": str(site.uncovered_microjoules),
        "uncovered": [{"reason": reason, "energy_microjoules": str(energy)} for reason, energy in _uncovered(site)],
        "by_component": {component.name.lower(): str(energy) for component, energy in site.by_component().items()},
        "by_quality": {quality.name.lower(): str(energy) for quality, energy in site.by_quality().items()},
        "emissions": [
            {**_kind_tree(kind), "grams": rounded(part.grams, GRAM_DIGITS), "grams_exact": str(part.grams)}
            for kind, part in sorted(site.emissions.items())
        ],
        "coverage_ratio": _ratio(site.coverage),
        "gaps": _gap_tree(site.gaps),
        "silent_hosts": [{"host": host.host, "since": period.show(host.since_seconds)} for host in site.silent],
        "lines": [_line_tree(report, line) for line in site.lines],
    }


def _gap_tree(gaps: GapSummary) -> dict[str, Any]:
    return {
        "count": gaps.count,
        "lower_microjoules": str(gaps.lower_microjoules),
        "upper_microjoules": None if gaps.upper_microjoules is None else str(gaps.upper_microjoules),
        "missing_channel_seconds": rounded(Fraction(gaps.missing_nanoseconds, NANOSECONDS_PER_SECOND), 3),
        "reasons": {str(reason): count for reason, count in gaps.reasons.items()},
    }


def _line_tree(report: Report, line: Line) -> dict[str, Any]:
    basis, part = line.basis, line.emissions
    begin, end = _span(report, basis)
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
        "grams": None if part is None else rounded(part.grams, GRAM_DIGITS),
        "grams_exact": None if part is None else str(part.grams),
        "uncovered_reason": basis.missing or None,
    }


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
        "valid_from": factor.valid_from.isoformat(),
        "valid_to": factor.valid_to.isoformat(),
        "published": factor.published.isoformat(),
        "source": factor.source,
        "document": factor.document,
        "licence": factor.licence,
        "attribution": factor.attribution,
    }


def _factors(report: Report) -> list[Factor]:
    """All factors used, each once, by id."""
    used = {line.basis.factor.id: line.basis.factor for site in report.sites for line in site.lines if line.basis.factor}
    return [used[name] for name in sorted(used)]


def _uncovered(site: SiteReport) -> list[tuple[str, int]]:
    sums: dict[str, int] = {}
    for line in site.lines:
        if line.emissions is None:
            sums[line.basis.missing] = sums.get(line.basis.missing, 0) + line.energy_microjoules
    return sorted(sums.items())


def _span(report: Report, basis: SiteBasis) -> tuple[str, str]:
    """The part of the period in which a basis holds."""
    period = report.period
    end = period.to_seconds if basis.to_seconds is None else min(basis.to_seconds, period.to_seconds)
    return period.show(max(basis.from_seconds, period.from_seconds)), period.show(end)


def _ratio(value: Fraction | None) -> str | None:
    return None if value is None else rounded(value, RATIO_DIGITS)


def write_csv(report: Report, out: TextIO) -> None:
    """Write one row for each line (record `energy`), and one for each site (record `site`)."""
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for site in report.sites:
        writer.writerows(_csv_line(report, site.site, line) for line in site.lines)
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
            }
        )


def _csv_line(report: Report, site: str, line: Line) -> dict[str, object]:
    basis, part = line.basis, line.emissions
    begin, end = _span(report, basis)
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
        row["factor_g_per_kwh"] = f"{basis.factor.value:f}"
        row["factor_source"] = basis.factor.source
        row["factor_vintage"] = basis.factor.vintage
        row["factor_provisional"] = str(basis.provisional).lower()
        row["emissions_grams"] = rounded(part.grams, GRAM_DIGITS)
        row["emissions_grams_exact"] = str(part.grams)
    return row


def write_table(report: Report, console: Console) -> None:
    """Print the report for people."""
    period = report.period
    console.print(
        f"[bold]Energy and emissions[/bold]  {period.show(period.from_seconds)} to {period.show(period.to_seconds)} "
        f"({escape(period.time_zone.key)}, the end not included)"
    )
    if not report.sites:
        console.print("Nothing is booked in this period: ask for another, or see `wattledger-collector host list`.")
    for site in report.sites:
        _print_site(report, site, console)
    console.print("\n[bold]Provisional[/bold]")
    for reason in report.reasons:
        console.print(f"- {escape(reason)}")
    attributions = sorted({f"{factor.source}: {factor.attribution} ({factor.licence})" for factor in _factors(report)})
    for attribution in attributions:
        console.print(f"[dim]{escape(attribution)}[/dim]")


def _print_site(report: Report, site: SiteReport, console: Console) -> None:
    console.print(f"\n[bold]Site {escape(site.site)}[/bold]  {kwh_text(site.energy_microjoules)} kWh of IT energy")
    energy = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("component", "made of"):
        energy.add_column(name)
    energy.add_column("kWh", justify="right")
    energy.add_column("share", justify="right")
    for label, made_of, microjoules in _component_rows(site):
        energy.add_row(
            label, made_of, kwh_text(microjoules, site.energy_microjoules), _percent(microjoules, site.energy_microjoules)
        )
    console.print(energy)
    if any(line.basis.factor for line in site.lines):
        console.print(_emission_table(report, site))
    for sentence in _site_sentences(site):
        console.print(escape(sentence))


def _component_rows(site: SiteReport) -> Iterator[tuple[str, str, int]]:
    sums: dict[tuple[Component, Quality, bool], int] = {}
    names: dict[tuple[Component, Quality, bool], tuple[str, str]] = {}
    for line in site.lines:
        key = (line.component, line.quality, line.recorded)
        sums[key] = sums.get(key, 0) + line.energy_microjoules
        made_of = line.quality.name.lower() + (", recorded" if line.recorded else "")
        names[key] = (line.component.name.lower(), made_of)
    for key, microjoules in sorted(sums.items()):
        yield (*names[key], microjoules)


def _emission_table(report: Report, site: SiteReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("from", "zone", "factor", "type", "source"):
        table.add_column(name)
    for name in ("kWh", "PUE", "emissions"):
        table.add_column(name, justify="right")
    for basis, microjoules, grams in _basis_rows(site):
        factor = basis.factor
        assert factor is not None  # _basis_rows gives none without.
        vintage = f"{factor.source} {factor.vintage}" + (" provisional" if basis.provisional else "")
        table.add_row(
            _span(report, basis)[0][:10],
            escape(f"{basis.zone}{' assumed' if basis.assumed else ''}"),
            f"{factor.value:f} g/kWh",
            str(factor.kind),
            escape(vintage),
            kwh_text(microjoules, site.energy_microjoules),
            f"{basis.pue:f}",
            f"{mass_text(grams)} {factor.kind.gas}",
        )
    return table


def _basis_rows(site: SiteReport) -> Iterator[tuple[SiteBasis, int, Fraction]]:
    sums: dict[SiteBasis, tuple[int, Fraction]] = {}
    for line in site.lines:
        if (part := line.emissions) is not None:
            energy, grams = sums.get(line.basis, (0, Fraction(0)))
            sums[line.basis] = (energy + line.energy_microjoules, grams + part.grams)
    for basis, (energy, grams) in sums.items():
        yield basis, energy, grams


def _site_sentences(site: SiteReport) -> Iterator[str]:
    for kind, part in sorted(site.emissions.items()):
        yield f"Emissions: {mass_text(part.grams)} {kind.gas} (location based; {kind})."
    for reason, microjoules in _uncovered(site):
        yield f"Uncovered: {kwh_text(microjoules, site.energy_microjoules)} kWh have no emissions figure, as {reason}."
    if site.coverage is not None:
        yield f"Coverage: {rounded(site.coverage * 100, 3)} % of channel time."
    if site.gaps.count:
        lower, upper = site.energy_bounds_microjoules
        reasons = ", ".join(f"{reason} {count}" for reason, count in site.gaps.reasons.items())
        above = "unknown" if upper is None else f"{kwh_text(upper)} kWh"
        yield (
            f"Gaps: {site.gaps.count} ({reasons}). With what they may hide the energy lies between "
            f"{kwh_text(lower)} kWh and {above}."
        )
    for host in site.silent:
        since = f"{host.missing_nanoseconds // NANOSECONDS_PER_SECOND} channel seconds"
        yield f"Silent: host {host.host} has reported nothing for the last {since} of the period."


def kwh_text(microjoules: int, whole: int | None = None) -> str:
    """Kilowatt-hours for people: three digits after the point, six where the whole that they are part of is below 1 kWh."""
    size = abs(microjoules if whole is None else whole)
    return rounded(kwh(microjoules), 3 if size >= MICROJOULES_PER_KWH else 6)


def mass_text(grams: Fraction) -> str:
    """A mass for people: in g, kg or t, with three digits after the point."""
    for unit, size in (("t", 1_000_000), ("kg", 1_000)):
        if abs(grams) >= size:
            return f"{rounded(grams / size, 3)} {unit}"
    return f"{rounded(grams, 3)} g"


def _percent(part: int, whole: int) -> str:
    return f"{rounded(Fraction(part * 100, whole), 1)} %" if whole else ""
