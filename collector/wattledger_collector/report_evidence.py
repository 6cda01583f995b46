"""The parts of a report's page that say how good its figures are: uncertainty, gaps, workloads, comparisons and factors.

Reckons nothing but the rounding. Source of truth: `report.py`.
"""

from fractions import Fraction
from xml.etree.ElementTree import Element, SubElement

from wattledger_collector.accounting import Emissions, Line
from wattledger_collector.bands import FactorBands, assumed_text
from wattledger_collector.books import Equivalence
from wattledger_collector.factors import Gas
from wattledger_collector.html_parts import Cell, Page, add, add_table, percent, section_of, short_kind, span_text
from wattledger_collector.report import Report
from wattledger_collector.report_completeness import completeness, hours_text
from wattledger_collector.report_output import exact_instant, span_of, vintage_of
from wattledger_collector.report_svg import Bar, column_chart, row_bar
from wattledger_collector.report_table import kwh_text
from wattledger_collector.rounding import kwh, mass_text, rounded
from wattledger_collector.workload_report import WorkloadLine
from wattledger_collector.workload_report_output import policy_name

GAPS_SHOWN_MAX = 40
WORKLOADS_SHOWN_MAX = 20
# So many fit a page beside the rest; more are folded, and left out on paper.
GAPS_OPEN_MAX = 12


def uncertainty_part(main: Element, page: Page) -> None:
    """The totals' intervals, and which bands they are made of."""
    section = section_of(main, "uncertainty", "Uncertainty")
    rows = []
    totals = [(str(kind), estimate) for kind, estimate in sorted(page.intervals.items())]
    totals += [
        (f"market based, {counted}", estimate) for counted, estimate in page.report.market_intervals.get(None, {}).items()
    ]
    for name, estimate in totals:
        interval, is_open = estimate.interval, estimate.is_open
        lower, upper = interval.lower_ratio, interval.upper_ratio
        rows.append(
            [
                name,
                mass_text(interval.grams),
                mass_text(interval.grams - Fraction(interval.lower_grams)),
                "no known bound" if is_open else mass_text(interval.grams + Fraction(interval.upper_grams)),
                "–" if lower is None or upper is None else f"-{lower:.1%} / " + ("open" if is_open else f"+{upper:.1%}"),
                assumed_text(estimate),
            ]
        )
    heads = [("total", ""), ("emissions", "n"), ("95 % from", "n"), ("to", "n"), ("relative", "n"), ("rests on", "")]
    add_table(section, heads, rows, "uncertainty-table")
    told = add(section, "ul", class_="note")
    seen = {
        (each.name, each.lower_ratio, each.upper_ratio, each.is_stated) for parts in page.sensors.values() for each in parts
    }
    for name, low, high, is_stated in sorted(seen):
        origin = "as its source states" if is_stated else "assumed, as its source states none"
        add(told, "li", f"Sensors {name}: -{low:.1%} / +{high:.1%}, {origin}; all of one source are off together.")
    for label, ratio, stated in sorted(_factor_bands(page.report)):
        origin = "as its source states" if stated else "assumed for its tier, as its source states none"
        add(told, "li", f"Factors {label}: ±{ratio:.1%}, {origin}; all that is under one factor is off together.")
    add(
        told,
        "li",
        "Terms are combined as in IPCC 2006, volume 1, chapter 3; bounds of gaps are added whole. What is assumed are the "
        "classes of the GHG Protocol's uncertainty tool (5, 15, 30 % and poor), put to sensors and tiers by this program. A "
        "PUE is taken as it was declared.",
    )


def _factor_bands(report: Report) -> set[tuple[str, float, bool]]:
    known = FactorBands(report.factors)
    bands = set()
    for site in report.sites:
        for line in site.lines:
            if line.factors:
                factor, tier = line.factors[0], line.basis.tier
                ratio, is_stated = known.band_of(factor, tier)
                bands.add((f"{factor.zone} {factor.source} ({tier})", ratio, is_stated))
    return bands


def years_part(main: Element, page: Page) -> None:
    """The same period a year before, if anything was booked in it."""
    if page.before is None:
        return
    before = page.before
    section = section_of(main, "years", "Year on year")
    rows = [_change("IT energy, kWh", kwh(before.energy_microjoules), kwh(page.report.energy_microjoules))]
    for kind in sorted(before.emissions.keys() & page.report.emissions.keys()):
        rows.append(
            _change(f"{short_kind(kind)}, kg", before.emissions[kind].grams / 1000, page.report.emissions[kind].grams / 1000)
        )
    bars = [
        Bar(
            span_text(before.period)[:7], kwh(before.energy_microjoules), f"{span_text(before.period)}: {rows[0][1]} kWh", 1
        ),
        Bar(
            span_text(page.report.period)[:7],
            kwh(page.report.energy_microjoules),
            f"{span_text(page.report.period)}: {rows[0][2]} kWh",
        ),
    ]
    frame = add(section, "div", class_="frame")
    frame.append(column_chart(bars, name="years-chart", title="IT energy, a year before and now", unit="kWh"))
    heads = [("", ""), (span_text(before.period), "n"), (span_text(page.report.period), "n"), ("change", "n")]
    add_table(section, heads, rows, "years-table")
    words = [completeness(each)[1] for each in (before, page.report)]
    add(
        section,
        "p",
        f"Before: {words[0]}. Now: {words[1]}. Nothing is scaled to make up for what is missing.",
        class_="note",
    )


def _change(name: str, before: Fraction, now: Fraction) -> list[str]:
    change = f"{rounded((now / before - 1) * 100, 1)} %" if before else "–"
    return [name, rounded(before, 3), rounded(now, 3), change]


def coverage_part(main: Element, page: Page) -> None:
    """What is missing, by site and gap."""
    report = page.report
    section = section_of(main, "coverage", "Gaps and coverage")
    rows = []
    for site in report.sites:
        lower, upper = site.energy_bounds_microjoules
        rows.append(
            [
                site.site,
                hours_text(site.covered_nanoseconds),
                hours_text(site.missing_nanoseconds),
                percent(site.coverage),
                str(site.gaps.count),
                f"{kwh_text(lower)} to " + ("no known bound" if upper is None else kwh_text(upper)),
            ]
        )
    heads = [("site", ""), ("hours with a figure", "n"), ("without", "n"), ("coverage", "n"), ("gaps", "n")]
    add_table(section, [*heads, ("IT kWh with what they may hide", "n")], rows, "coverage-table")
    for site in report.sites:
        for host in site.silent:
            since = report.period.show(host.since_seconds)
            add(section, "p", f"Host {host.host} of {site.site} has reported nothing since {since}.", class_="note")
    gaps = [(site.site, row) for site in report.sites for row in site.gap_rows]
    if not gaps:
        add(section, "p", "There is no gap.", class_="note")
        return
    longest = sorted(gaps, key=lambda each: each[1].gap.from_utc_nanoseconds - each[1].gap.to_utc_nanoseconds)[
        :GAPS_SHOWN_MAX
    ]
    shown = sorted(longest, key=lambda each: (each[1].gap.from_utc_nanoseconds, each[1].host))
    details = SubElement(section, "details")
    if len(shown) <= GAPS_OPEN_MAX:
        details.set("open", "open")
    told = f"The {len(shown)} longest of {len(gaps)} gaps" if len(gaps) > len(shown) else "All gaps"
    add(details, "summary", told)
    add_table(
        details,
        [("from", ""), ("to", ""), ("site", ""), ("host", ""), ("device", ""), ("why", ""), ("may hide kWh", "n")],
        (
            [
                exact_instant(report.period, row.gap.from_utc_nanoseconds),
                exact_instant(report.period, row.gap.to_utc_nanoseconds),
                site_name,
                row.host,
                row.channel.device if row.channel else "all",
                str(row.gap.reason).replace("_", " "),
                f"{kwh_text(row.gap.lower_microjoules)} to "
                + ("unknown" if row.gap.upper_microjoules is None else kwh_text(row.gap.upper_microjoules)),
            ]
            for site_name, row in shown
        ),
        "gaps-table",
    )


def workloads_part(main: Element, page: Page) -> None:
    """The largest workloads, with the policy for idle energy."""
    lines = sorted((line for site in page.workloads.sites for line in site.lines), key=lambda line: -line.energy_microjoules)
    if not lines:
        return
    section = section_of(main, "workloads", "What the energy was spent on")
    longest = kwh(max(lines[0].energy_microjoules, 0))
    heads = [
        ("workload", ""), ("", "bar"), ("namespace", ""), ("site", ""), ("idle energy", ""), ("kWh", "n"),
        ("emissions", "n"),
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            line.group.workload or (line.group.kind.name.lower() if line.group.kind else "all"),
            row_bar(kwh(max(line.energy_microjoules, 0)), longest, f"{kwh_text(line.energy_microjoules)} kWh"),
            line.group.namespace,
            line.group.site,
            policy_name(line.group.idle_policy),
            kwh_text(line.energy_microjoules, page.report.energy_microjoules),
            _workload_mass(line),
        ]
        for line in lines[:WORKLOADS_SHOWN_MAX]
    ]
    add_table(section, heads, rows, "workloads-table")
    rest = lines[WORKLOADS_SHOWN_MAX:]
    told = f"The other {len(rest)} used {kwh_text(sum(line.energy_microjoules for line in rest))} kWh. " if rest else ""
    divided = sum(site.divided_microjoules for site in page.workloads.sites)
    told += f"{kwh_text(divided)} of {kwh_text(page.report.energy_microjoules)} kWh were divided over workloads."
    add(section, "p", told, class_="note")


def _workload_mass(line: WorkloadLine) -> str:
    return "; ".join(f"{mass_text(part.grams)} {kind.gas}" for kind, part in sorted(line.emissions.items())) or "–"


def equivalences_part(main: Element, page: Page) -> None:
    """Comparisons with their constants."""
    rows = []
    for kind, part in sorted(page.report.emissions.items()):
        if kind.gas not in (Gas.CO2, Gas.CO2E):
            continue
        # Nobody learns from a comparison with nothing.
        rows += [_equivalence_row(each, part) for each in page.equivalences if each.floored(part.grams / 1_000_000)]
    if not rows:
        return
    section = section_of(main, "equivalences", "For comparison")
    add_table(section, [("emissions", "n"), ("are those of", ""), ("by", "")], rows, "equivalences-table")
    add(section, "p", "Rounded down, so that a comparison never claims more than there is.", class_="note")


def _equivalence_row(equivalence: Equivalence, part: Emissions) -> list[str]:
    count = equivalence.floored(part.grams / 1_000_000)
    return [f"{mass_text(part.grams)} {part.kind.gas}", f"{count} {equivalence.unit}", equivalence.evidence]


def factors_part(main: Element, page: Page) -> None:
    """Every factor that was used, and who wants to be named."""
    report = page.report
    if not report.factors:
        return
    section = section_of(main, "factors", "Factors")
    seen: dict[tuple[object, ...], Line] = {}
    for site in report.sites:
        for line in site.lines:
            if line.factors:
                seen.setdefault((site.site, line.basis.group), line)
    heads = [("site, from", ""), ("zone", ""), ("g/kWh", "n"), ("type", ""), ("of", ""), ("source", "")]
    rows = [_factor_row(report, line) for line in seen.values()]
    add_table(section, heads, rows, "factors-table")
    sources = {(each.source, each.attribution, each.licence, each.document) for each in report.factors}
    told = add(section, "ul", class_="note")
    for source, attribution, licence, document in sorted(sources):
        add(told, "li", f"{source}: {attribution} ({licence}). {document}")


def _factor_row(report: Report, line: Line) -> list[str]:
    values = [factor.value for factor in line.factors]
    value = f"{values[0]:f}" if len(values) == 1 else f"{min(values):f} to {max(values):f}"
    factor, provisional = line.factors[0], " provisional" if line.basis.provisional else ""
    return [
        f"{line.basis.site}, {span_of(report, line.basis)[0][:10]}",
        f"{factor.zone} ({factor.name}){' assumed' if line.basis.assumed else ''}",
        value,
        str(factor.kind),
        vintage_of(line.factors) + provisional,
        f"{factor.source}, published {factor.published.isoformat()}",
    ]
