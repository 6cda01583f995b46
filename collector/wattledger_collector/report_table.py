"""Shows a report to people: what was used, what it emitted, what is missing, and what each figure is made of.

Reckons nothing but the rounding. Whatever is rounded here stands exact in JSON and CSV (`report_output.py`).
Source of truth: `report.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector.accounting import Emissions, Line, SiteBasis
from wattledger_collector.bands import Estimate
from wattledger_collector.factors import Factor, FactorKind
from wattledger_collector.market_words import interval_text
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    NANOSECONDS_PER_SECOND,
    Component,
    HostGapRow,
    Quality,
)
from wattledger_collector.report import Period, Report, SiteReport
from wattledger_collector.report_completeness import measured_sentence
from wattledger_collector.report_market_table import market_sentences, market_table
from wattledger_collector.report_output import span_of, uncovered, vintage_of
from wattledger_collector.rounding import kwh, mass_text, rounded

# More gaps than these fill a screen; the longest are shown, all are in JSON and CSV.
GAPS_SHOWN_MAX = 12

SECONDS_PER_HOUR = 3600

QUALITY_WORDS: Mapping[Quality, str] = {
    Quality.COUNTER: "counter: from a hardware energy counter",
    Quality.INTEGRAL: "integral: power over time",
    Quality.MODEL: "model: an estimate, not measured",
    Quality.BRIDGED: "bridged: from a counter, over a time that was not recorded; exact in sum, spread evenly",
}
RECORDED_WORDS = "recorded: replayed, in no live total"


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
    if len(report.sites) > 1:
        console.print(f"\n[bold]All sites[/bold]  {kwh_text(report.energy_microjoules)} kWh of IT energy")
        _print_sentences(_emission_sentences(report.emissions, report.intervals), console)
    if report.sites:
        console.print("\n[bold]Scope 2, location and market based[/bold]")
        console.print(market_table(report.market))
        _print_sentences(market_sentences(report.market, report.market_intervals), console)
    _print_legend(report, console)
    _print_factors(report.factors, console)
    _print_closing(report, console)


def _print_closing(report: Report, console: Console) -> None:
    """Whether it stands, and if not, why not."""
    numbers = ", ".join(str(closure.statement) for closure in report.closures)
    closed = f"closed by statement{'s' if len(report.closures) > 1 else ''} {numbers}" if numbers else ""
    if not report.reasons:
        console.print(f"\n[bold]Closed[/bold]: the period is {closed}, and nothing has come since")
        return
    console.print(f"\n[bold]Provisional[/bold], as of {report.period.show(report.made_at_seconds)}")
    if closed:
        _print_sentences([f"The period is {closed}; what follows is not in it, or not final."], console)
    _print_sentences((f"- {reason}" for reason in report.reasons), console)


def _print_site(report: Report, site: SiteReport, console: Console) -> None:
    console.print(f"\n[bold]Site {escape(site.site)}[/bold]  {kwh_text(site.energy_microjoules)} kWh of IT energy")
    if site.lines:
        console.print(_energy_table(site))
    if any(line.basis.factor for line in site.lines):
        console.print()
        console.print(_emission_table(report, site))
    _print_sentences(_emission_sentences(site.emissions, report.site_intervals.get(site.site, {})), console)
    _print_sentences(_site_sentences(report.period, site), console)
    _print_sentences((f"{pue.sentence}." for pue in report.pues.get(site.site, ()) if pue.is_told), console)
    if (measured := report.measured.get(site.site)) is not None:
        _print_sentences([measured_sentence(measured)], console)
    if site.gap_rows:
        console.print(_gap_table(report.period, site.gap_rows))
        hidden = len(site.gap_rows) - GAPS_SHOWN_MAX
        if hidden > 0:
            _print_sentences([f"These are the longest; --json and --csv list the other {hidden}, too."], console)


def _print_sentences(sentences: Iterable[str], console: Console) -> None:
    """Print lines as they are: not folded, so that they can be searched, and with no figure coloured."""
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _table(left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def _energy_table(site: SiteReport) -> Table:
    table = _table(("component", "made of"), ("IT kWh", "share"))
    sums: dict[tuple[Component, Quality, bool], int] = {}
    for line in site.lines:
        key = (line.component, line.quality, line.recorded)
        sums[key] = sums.get(key, 0) + line.energy_microjoules
    whole = site.energy_microjoules
    for (component, quality, recorded), microjoules in sorted(sums.items()):
        made_of = quality.name.lower() + (", recorded" if recorded else "")
        table.add_row(component.name.lower(), made_of, kwh_text(microjoules, whole), _percent(microjoules, whole))
    return table


def _print_legend(report: Report, console: Console) -> None:
    """What the words under "made of" say."""
    lines = [line for site in report.sites for line in site.lines]
    words = [QUALITY_WORDS[quality] for quality in sorted({line.quality for line in lines})]
    if any(line.recorded for line in lines):
        words.append(RECORDED_WORDS)
    if words:
        console.print("\n[bold]Made of[/bold]")
        _print_sentences([f"- {word}" for word in words], console)


def _emission_table(report: Report, site: SiteReport) -> Table:
    """A row for each basis, in the order of the reckoning: energy x PUE x factor."""
    table = _table(("from", "zone"), ("IT kWh", "PUE", "facility kWh", "g/kWh"))
    for name in ("factor", "of"):
        table.add_column(name)
    table.add_column("emissions", justify="right")
    for basis, factors, microjoules, grams in _basis_rows(site):
        factor, pue = basis.factor, basis.pue
        assert factor is not None  # _basis_rows gives none without.
        assert pue is not None
        table.add_row(
            span_of(report, basis)[0][:10],
            escape(f"{basis.zone}{' assumed' if basis.assumed else ''}"),
            kwh_text(microjoules, site.energy_microjoules),
            f"{pue:f}",
            _kwh_text(kwh(microjoules) * Fraction(pue), site.energy_microjoules),
            rounded(_intensity(factors, basis, microjoules, grams), 3),
            str(factor.kind),
            f"{vintage_of(factors)}{' provisional' if basis.provisional else ''}",
            mass_text(grams),
        )
    return table


def _basis_rows(site: SiteReport) -> Iterator[tuple[SiteBasis, Sequence[Factor], int, Fraction]]:
    sums: dict[tuple[object, ...], tuple[Line, int, Fraction]] = {}
    for line in site.lines:
        if (part := line.emissions) is not None:
            first, energy, grams = sums.get(line.basis.group, (line, 0, Fraction(0)))
            sums[line.basis.group] = (first, energy + line.energy_microjoules, grams + part.grams)
    for line, energy, grams in sums.values():
        yield line.basis, line.factors, energy, grams


def _intensity(factors: Sequence[Factor], basis: SiteBasis, microjoules: int, grams: Fraction) -> Fraction:
    """The factor, or of a series of hours the mean weighted by energy."""
    if len(factors) == 1 or not microjoules or basis.pue is None:
        return Fraction(factors[0].value)
    return grams / (kwh(microjoules) * Fraction(basis.pue))


def _emission_sentences(
    emissions: Mapping[FactorKind, Emissions], intervals: Mapping[FactorKind, Estimate]
) -> Iterator[str]:
    for kind, part in sorted(emissions.items()):
        yield f"Emissions: {mass_text(part.grams)} {kind.gas} (location based; {kind})."
        if kind in intervals:
            yield f"95 % interval: {interval_text(intervals[kind])}."


def _site_sentences(period: Period, site: SiteReport) -> Iterator[str]:
    for reason, microjoules in uncovered(site):
        yield f"Uncovered: {kwh_text(microjoules, site.energy_microjoules)} kWh have no emissions figure, as {reason}."
    if site.coverage is not None:
        covered, whole = site.covered_nanoseconds, site.covered_nanoseconds + site.missing_nanoseconds
        yield f"Coverage: {rounded(site.coverage * 100, 3)} % of channel time ({_hours(covered)} of {_hours(whole)} h)."
    for host in site.silent:
        since = f"{period.show(host.since_seconds)}: {_hours(host.missing_nanoseconds)} h of channel time are missing"
        yield f"Silent: host {host.host} has reported nothing since {since}."
    if site.gaps.count:
        lower, upper = site.energy_bounds_microjoules
        reasons = ", ".join(f"{count} {_words(reason)}" for reason, count in site.gaps.reasons.items())
        above = "no known bound" if upper is None else f"{kwh_text(upper)} kWh"
        yield f"Gaps: {reasons}. With what they may hide the IT energy lies between {kwh_text(lower)} kWh and {above}."


def _gap_table(period: Period, rows: tuple[HostGapRow, ...]) -> Table:
    """The longest gaps, by time."""
    table = _table(("gap from", "to", "host", "device", "why"), ("hours", "may hide kWh"))
    longest = sorted(rows, key=lambda row: row.gap.from_utc_nanoseconds - row.gap.to_utc_nanoseconds)[:GAPS_SHOWN_MAX]
    for row in sorted(longest, key=lambda row: (row.gap.from_utc_nanoseconds, row.host, row.gap.channel)):
        gap = row.gap
        lower = kwh_text(gap.lower_microjoules) if gap.lower_microjoules else "0"
        upper = "unknown" if gap.upper_microjoules is None else kwh_text(gap.upper_microjoules)
        table.add_row(
            period.show(gap.from_utc_nanoseconds // NANOSECONDS_PER_SECOND),
            period.show(gap.to_utc_nanoseconds // NANOSECONDS_PER_SECOND),
            escape(row.host),
            escape(row.channel.device) if row.channel else "all",
            _words(gap.reason),
            _hours(gap.to_utc_nanoseconds - gap.from_utc_nanoseconds),
            f"{lower} to {upper}",
        )
    return table


def _print_factors(factors: list[Factor], console: Console) -> None:
    if not factors:
        return
    console.print("\n[bold]Factors[/bold]")
    for series in _series(factors):
        first, last = series[0], series[-1]
        losses = "with" if first.includes_td else "without"
        value = f"{first.value:f} g/kWh" if len(series) == 1 else f"{len(series)} values up to {last.valid_to}"
        what = f"{value}, {first.kind}, {losses} grid losses; {first.source}"
        _print_sentences([f"- {first.zone} {first.vintage} ({first.name}): {what}"], console)
    sources = {(factor.source, factor.published, factor.attribution, factor.licence, factor.document) for factor in factors}
    for source, published, attribution, licence, document in sorted(sources):
        told = f"- {source}, published {published.isoformat()}: {attribution} ({licence})"
        _print_sentences([told, f"  {document}"], console)


def _series(factors: Sequence[Factor]) -> list[list[Factor]]:
    """Factors of months or years each by itself, those of hours by their series, in order."""
    found: dict[tuple[object, ...], list[Factor]] = {}
    for factor in factors:
        key = (factor.id,) if factor.is_long else (factor.zone, factor.source, factor.kind, factor.includes_td)
        found.setdefault(key, []).append(factor)
    return [sorted(each, key=lambda factor: factor.valid_from_seconds) for each in found.values()]


def kwh_text(microjoules: int, whole: int | None = None) -> str:
    """Kilowatt-hours for people: three digits after the point, six where the whole that they are part of is below 1 kWh."""
    return _kwh_text(kwh(microjoules), microjoules if whole is None else whole)


def _kwh_text(value: Fraction, whole_microjoules: int) -> str:
    return rounded(value, 3 if abs(whole_microjoules) >= MICROJOULES_PER_KWH else 6)


def _hours(nanoseconds: int) -> str:
    hours = Fraction(nanoseconds, SECONDS_PER_HOUR * NANOSECONDS_PER_SECOND)
    return rounded(hours, 3 if hours >= 1 else 6)


def _words(reason: str) -> str:
    return str(reason).replace("_", " ")


def _percent(part: int, whole: int) -> str:
    return f"{rounded(Fraction(part * 100, whole), 1)} %" if whole else ""
