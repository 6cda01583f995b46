"""Shows a report as one page of HTML: figures, charts and what each is made of, to read, to print and to keep.

Reckons nothing but the rounding. The page is whole in itself: no script, no font, nothing that is asked of a network. All
text goes through a tree of elements, so that no name of a host or a site can become markup. Source of truth: `report.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from importlib.resources import files
from xml.etree.ElementTree import Element, SubElement, tostring

from wattledger_collector.accounting import Emissions, Line
from wattledger_collector.books import Equivalence
from wattledger_collector.facility import MeasuredPue
from wattledger_collector.factors import FactorKind, Gas
from wattledger_collector.records import MICROJOULES_PER_KWH, NANOSECONDS_PER_SECOND
from wattledger_collector.report import Period, Report, SiteReport
from wattledger_collector.report_completeness import completeness, hours_text, measured_sentence, pue_figure
from wattledger_collector.report_figures import Day
from wattledger_collector.report_output import exact_instant, kwh, rounded, span_of, uncovered, vintage_of
from wattledger_collector.report_svg import Bar, column_chart, row_bar
from wattledger_collector.report_table import QUALITY_WORDS, RECORDED_WORDS, kwh_text, mass_text
from wattledger_collector.report_uncertainty import FACTOR_RATIO_DEFAULT, Sensor, Sensors, factor_ratio_of
from wattledger_collector.uncertainty import Interval
from wattledger_collector.workload_report import WorkloadLine, WorkloadReport
from wattledger_collector.workload_report_output import policy_name

GAPS_SHOWN_MAX = 40
WORKLOADS_SHOWN_MAX = 20
HOSTS_SHOWN_MAX = 20

TIER_WORDS: Mapping[str, str] = {
    "F0": "measured, for the hour or less",
    "F1": "estimated by the provider",
    "F2": "carried over from a neighbouring hour, at most six",
    "F3": "a profile by hour and month",
    "F4": "official year of a zone",
    "F5": "year of a country",
    "F6": "a region or the world",
    "F9": "none: no emissions figure",
}


LabelOf = Callable[[Line], str]
Cell = str | Element


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page shows. before: the same period a year earlier, if anything was booked in it."""

    report: Report
    days: Sequence[Day]
    intervals: Mapping[FactorKind, tuple[Interval, bool]]
    sensors: Sensors
    workloads: WorkloadReport
    before: Report | None
    equivalences: Sequence[Equivalence]
    version: str


def render_page(page: Page) -> str:
    """The page as text."""
    html = Element("html", {"lang": "en"})
    head = SubElement(html, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    SubElement(head, "meta", {"name": "color-scheme", "content": "light dark"})
    SubElement(head, "meta", {"name": "generator", "content": f"Wattledger {page.version}"})
    _add(head, "title", f"Energy and emissions, {_span(page.report.period)}")
    SubElement(head, "style").text = (files("wattledger_collector") / "report.css").read_text(encoding="utf-8")
    body = SubElement(html, "body")
    _header(body, page)
    main = SubElement(body, "main")
    if not page.report.sites:
        _add(main, "p", "Nothing is booked in this period.")
    else:
        for section in (
            _totals, _days, _sites, _components, _qualities, _tiers, _uncertainty, _year_on_year, _coverage, _workloads,
            _equivalences, _factors,
        ):  # fmt: skip
            section(main, page)
    _footer(body, page)
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _add(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    element = SubElement(parent, tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    element.text = text
    return element


def _section(main: Element, name: str, heading: str) -> Element:
    section = SubElement(main, "section", {"id": name, "aria-labelledby": f"{name}-heading"})
    _add(section, "h2", heading, id=f"{name}-heading")
    return section


def _table(parent: Element, heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]], name: str) -> Element:
    """A table; heads: each with the class of its column (`n`: numbers)."""
    frame = _add(parent, "div", class_="frame")
    table = _add(frame, "table", id=name)
    head = SubElement(SubElement(table, "thead"), "tr")
    for text, kind in heads:
        _add(head, "th", text, scope="col", class_=kind)
    body = SubElement(table, "tbody")
    for row in rows:
        line = SubElement(body, "tr")
        for place, ((_, kind), cell) in enumerate(zip(heads, row, strict=True)):
            made = SubElement(line, "th" if place == 0 else "td", {"class": kind})
            if place == 0:
                made.set("scope", "row")
            if isinstance(cell, str):
                made.text = cell
            else:
                made.append(cell)
    return table


def _span(period: Period) -> str:
    begin, end = period.show(period.from_seconds), period.show(period.to_seconds)
    if begin[11:19] == end[11:19] == "00:00:00":
        last = datetime.fromtimestamp(period.to_seconds - 1, period.time_zone).date().isoformat()
        return begin[:10] if begin[:10] == last else f"{begin[:10]} to {last}"
    return f"{begin} to {end}"


def _header(body: Element, page: Page) -> None:
    report = page.report
    header = SubElement(body, "header")
    _add(header, "h1", "Energy and emissions")
    _add(header, "p", f"{_span(report.period)} ({report.period.time_zone.key})", class_="period")
    marks = _add(header, "p", class_="marks")
    word, why = completeness(report)
    _add(marks, "span", f"{word}: {why}", class_="mark good" if word == "complete" else "mark warn", id="completeness")
    _add(marks, "span", "provisional" if report.reasons else "closed", class_="mark warn" if report.reasons else "mark good")
    if report.reasons:
        reasons = _add(header, "ul", class_="reasons")
        for reason in report.reasons:
            _add(reasons, "li", reason)


def _totals(main: Element, page: Page) -> None:
    report = page.report
    section = _section(main, "totals", "Totals")
    cards = _add(section, "div", class_="cards")
    _card(cards, "IT energy", kwh_text(report.energy_microjoules), "kWh", "as booked, before any PUE")
    facility = sum((_facility(line) for site in report.sites for line in site.lines), Fraction(0))
    _card(cards, "With the site's overhead", _kwh(facility, report), "kWh", "IT energy x the declared PUE of each site")
    for kind, part in sorted(report.emissions.items()):
        mass, unit = mass_text(part.grams).split(" ")
        _card(cards, f"Scope 2, location based, {kind.gas}", mass, unit, _interval_text(page, kind))
    _card(cards, "Scope 2, market based", "not stated", "", "no certificate or contract was declared to this report")
    bare = sum(site.uncovered_microjoules for site in report.sites)
    if bare:
        _card(cards, "Without a factor", kwh_text(bare), "kWh", "they have no emissions figure, and none is assumed")


def _card(cards: Element, name: str, value: str, unit: str, told: str) -> None:
    card = _add(cards, "div", class_="card")
    _add(card, "h3", name)
    figure = _add(card, "p", class_="figure")
    _add(figure, "b", value)
    if unit:
        _add(figure, "span", f" {unit}")
    _add(card, "p", told, class_="told")


def _facility(line: Line) -> Fraction:
    return kwh(line.energy_microjoules) * Fraction(line.basis.pue or 1)


def _kwh(value: Fraction, report: Report) -> str:
    return rounded(value, 3 if abs(report.energy_microjoules) >= MICROJOULES_PER_KWH else 6)


def _interval_text(page: Page, kind: FactorKind) -> str:
    found = page.intervals.get(kind)
    if found is None:
        return str(kind)
    interval, is_open = found
    lower = mass_text(interval.grams - Fraction(interval.lower_grams))
    upper = "no known bound" if is_open else mass_text(interval.grams + Fraction(interval.upper_grams))
    return f"95 % interval: {lower} to {upper}. {kind}"


def _days(main: Element, page: Page) -> None:
    report, days = page.report, page.days
    is_monthly = any(day.to_seconds - day.from_seconds > 26 * 3600 for day in days)
    word = "month" if is_monthly else "day"
    section = _section(main, "days", f"Energy by {word}")
    bars = [
        Bar(
            _day_label(day, report.period, is_monthly=is_monthly),
            kwh(day.energy_microjoules),
            f"{_day_name(day, report.period)}: {kwh_text(day.energy_microjoules)} kWh, coverage {_percent(day.coverage)}",
            is_partial=day.coverage is not None and day.coverage < 1,
        )
        for day in days
    ]
    frame = _add(section, "div", class_="frame")
    frame.append(column_chart(bars, name="days-chart", title=f"IT energy by {word}", unit="kWh"))
    note = f"Days are those of {report.period.time_zone.key}; a day on which clocks change has 23 or 25 hours."
    if any(bar.is_partial for bar in bars):
        note += " Pale bars: not all channel time of it has a figure."
    _add(section, "p", note, class_="note")
    kinds = sorted(report.emissions)
    heads = [(word, ""), ("hours", "n"), ("IT kWh", "n"), *((_short(kind), "n") for kind in kinds), ("coverage", "n")]
    details = SubElement(section, "details")
    if len(days) <= 31:
        details.set("open", "open")
    _add(details, "summary", "Figures")
    rows = (
        [
            _day_name(day, report.period),
            hours_text((day.to_seconds - day.from_seconds) * NANOSECONDS_PER_SECOND),
            kwh_text(day.energy_microjoules, report.energy_microjoules),
            *(mass_text(day.grams[kind]) if kind in day.grams else "–" for kind in kinds),
            _percent(day.coverage),
        ]
        for day in days
    )
    _table(details, heads, rows, "days-table")


def _day_name(day: Day, period: Period) -> str:
    begin = datetime.fromtimestamp(day.from_seconds, period.time_zone)
    if day.to_seconds - day.from_seconds > 26 * 3600:
        return begin.strftime("%Y-%m")
    return begin.date().isoformat()


def _day_label(day: Day, period: Period, *, is_monthly: bool) -> str:
    begin = datetime.fromtimestamp(day.from_seconds, period.time_zone)
    return begin.strftime("%Y-%m" if is_monthly else "%m-%d")


def _percent(share: Fraction | None) -> str:
    return "–" if share is None else f"{rounded(share * 100, 1)} %"


def _short(kind: FactorKind) -> str:
    return f"{kind.gas}, {kind.boundary}"


def _sites(main: Element, page: Page) -> None:
    report = page.report
    section = _section(main, "sites", "By site")
    kinds = sorted(report.emissions)
    longest = max((kwh(abs(site.energy_microjoules)) for site in report.sites), default=Fraction(0))
    heads = [
        ("site", ""), ("", "bar"), ("IT kWh", "n"), ("PUE", ""), ("overhead included kWh", "n"),
        *((_short(kind), "n") for kind in kinds), ("uncovered kWh", "n"), ("coverage", "n"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for site in report.sites:
        energy = site.energy_microjoules
        rows.append(
            [
                site.site,
                row_bar(kwh(abs(energy)), longest, f"{kwh_text(energy)} kWh"),
                kwh_text(energy, report.energy_microjoules),
                _pue_text(site, page.report.measured.get(site.site)),
                _kwh(sum((_facility(line) for line in site.lines), Fraction(0)), report),
                *(mass_text(site.emissions[kind].grams) if kind in site.emissions else "–" for kind in kinds),
                kwh_text(site.uncovered_microjoules, report.energy_microjoules),
                _percent(site.coverage),
            ]
        )
    _table(section, heads, rows, "sites-table")
    for site in report.sites:
        for reason, microjoules in uncovered(site):
            _add(section, "p", f"{kwh_text(microjoules)} kWh of {site.site} are uncovered, as {reason}.", class_="note")
    for measured in page.report.measured.values():
        _measured(section, measured)


def _pue_text(site: SiteReport, measured: MeasuredPue | None) -> str:
    declared = sorted({line.basis.pue for line in site.lines if line.basis.pue is not None})
    told = [" and ".join(f"{pue:f}" for pue in declared) + " declared"] if declared else []
    if measured is not None and measured.pue is not None:
        told.append(f"{pue_figure(measured.pue)} measured")
    return ", ".join(told) or "–"


def _measured(section: Element, measured: MeasuredPue) -> None:
    _add(section, "p", measured_sentence(measured), class_="note", id=f"pue-{measured.site}")
    if not measured.overhead:
        return
    details = SubElement(section, "details")
    _add(details, "summary", f"What each host of {measured.site} bears of the measured overhead")
    shown = sorted(measured.overhead.items(), key=lambda item: (-item[1], item[0]))
    rows = [[host, kwh_text(measured.it[host]), kwh_text(part)] for host, part in shown[:HOSTS_SHOWN_MAX]]
    _table(details, [("host", ""), ("IT kWh", "n"), ("overhead kWh", "n")], rows, f"overhead-{measured.site}")
    if len(shown) > HOSTS_SHOWN_MAX:
        rest = sum(part for _, part in shown[HOSTS_SHOWN_MAX:])
        _add(details, "p", f"The other {len(shown) - HOSTS_SHOWN_MAX} hosts bear {kwh_text(rest)} kWh.", class_="note")


def _shares(section: Element, name: str, head: str, sums: Mapping[str, tuple[int, Fraction | None]], page: Page) -> None:
    """A table with bars of parts of the energy, each with its emissions."""
    whole = page.report.energy_microjoules
    longest = max((kwh(abs(energy)) for energy, _ in sums.values()), default=Fraction(0))
    rows: list[list[Cell]] = [
        [
            label,
            row_bar(kwh(abs(energy)), longest, f"{kwh_text(energy)} kWh"),
            kwh_text(energy, whole),
            _percent(Fraction(energy, whole)) if whole else "–",
            "–" if grams is None else mass_text(grams),
        ]
        for label, (energy, grams) in sums.items()
    ]
    heads = [(head, ""), ("", "bar"), ("IT kWh", "n"), ("share", "n"), ("emissions", "n")]
    _table(section, heads, rows, name)
    if len(page.report.emissions) > 1:
        _add(section, "p", "Emissions of different types are not added: see the table by site.", class_="note")


def _sums(page: Page, label_of: LabelOf) -> dict[str, tuple[int, Fraction | None]]:
    is_one_kind = len(page.report.emissions) <= 1
    sums: dict[str, tuple[int, Fraction | None]] = {}
    for site in page.report.sites:
        for line in site.lines:
            energy, grams = sums.get(label_of(line), (0, None))
            if line.grams is not None and is_one_kind:
                grams = (grams or Fraction(0)) + line.grams
            sums[label_of(line)] = (energy + line.energy_microjoules, grams)
    return dict(sorted(sums.items()))


def _components(main: Element, page: Page) -> None:
    section = _section(main, "components", "By component")
    sums = _sums(page, lambda line: f"{int(line.component)} {line.component.name.lower()}")
    named = {name.partition(" ")[2]: parts for name, parts in sums.items()}
    _shares(section, "components-table", "component", named, page)


def _qualities(main: Element, page: Page) -> None:
    section = _section(main, "qualities", "What the energy is made of")

    def label(line: Line) -> str:
        return QUALITY_WORDS[line.quality].partition(":")[0] + (", recorded" if line.recorded else "")

    _shares(section, "qualities-table", "made of", _sums(page, label), page)
    words = _add(section, "ul", class_="note")
    lines = [line for site in page.report.sites for line in site.lines]
    for quality in sorted({line.quality for line in lines}):
        _add(words, "li", QUALITY_WORDS[quality])
    if any(line.recorded for line in lines):
        _add(words, "li", RECORDED_WORDS)


def _tiers(main: Element, page: Page) -> None:
    section = _section(main, "tiers", "How good the factors are")
    sums = _sums(page, lambda line: f"{line.basis.tier}: {TIER_WORDS[line.basis.tier]}")
    _shares(section, "tiers-table", "tier", sums, page)


def _uncertainty(main: Element, page: Page) -> None:
    section = _section(main, "uncertainty", "Uncertainty")
    rows = []
    for kind, (interval, is_open) in sorted(page.intervals.items()):
        lower, upper = interval.lower_ratio, interval.upper_ratio
        rows.append(
            [
                str(kind),
                mass_text(interval.grams),
                mass_text(interval.grams - Fraction(interval.lower_grams)),
                "no known bound" if is_open else mass_text(interval.grams + Fraction(interval.upper_grams)),
                "–" if lower is None or upper is None else f"-{lower:.1%} / " + ("open" if is_open else f"+{upper:.1%}"),
            ]
        )
    heads = [("total", ""), ("emissions", "n"), ("95 % from", "n"), ("to", "n"), ("relative", "n")]
    _table(section, heads, rows, "uncertainty-table")
    told = _add(section, "ul", class_="note")
    seen = {
        (each.name, each.lower_ratio, each.upper_ratio, each.is_stated) for parts in page.sensors.values() for each in parts
    }
    for name, low, high, is_stated in sorted(seen):
        origin = "as its source states" if is_stated else "by default, as its source states none"
        _add(told, "li", f"Sensors {name}: -{low:.1%} / +{high:.1%}, {origin}; all of one kind are off together.")
    for label, ratio, stated in sorted(_factor_bands(page.report)):
        origin = "as its source states" if stated else "by default for its tier, as its source states none"
        _add(told, "li", f"Factors {label}: ±{ratio:.1%}, {origin}; all that is under one factor is off together.")
    _add(
        told,
        "li",
        "Terms are combined as in IPCC 2006, volume 1, chapter 3; bounds of gaps are added whole. Defaults are the "
        "classes of the GHG Protocol's uncertainty tool (5, 15 and 30 %), put to tiers by this program.",
    )


def _sensor_sentence(sensor: Sensor) -> str:
    origin = "as its source states" if sensor.is_stated else "by default, as its source states none"
    band = f"-{sensor.lower_ratio:.1%} / +{sensor.upper_ratio:.1%}"
    return f"Sensors {sensor.name}: {band}, {origin}; all of one kind are off together."


def _factor_bands(report: Report) -> set[tuple[str, float, bool]]:
    bands = set()
    for site in report.sites:
        for line in site.lines:
            if line.factors:
                is_stated = any(factor.uncertainty_ratio is not None for factor in line.factors)
                name = f"{line.factors[0].zone} {line.factors[0].source} ({line.basis.tier})"
                bands.add((name, factor_ratio_of(line) if is_stated else FACTOR_RATIO_DEFAULT[line.basis.tier], is_stated))
    return bands


def _year_on_year(main: Element, page: Page) -> None:
    if page.before is None:
        return
    before = page.before
    section = _section(main, "years", "Year on year")
    rows = [_change("IT energy, kWh", kwh(before.energy_microjoules), kwh(page.report.energy_microjoules))]
    for kind in sorted(before.emissions.keys() & page.report.emissions.keys()):
        rows.append(
            _change(f"{_short(kind)}, kg", before.emissions[kind].grams / 1000, page.report.emissions[kind].grams / 1000)
        )
    bars = [
        Bar(_span(before.period)[:7], kwh(before.energy_microjoules), f"{_span(before.period)}: {rows[0][1]} kWh", 1),
        Bar(
            _span(page.report.period)[:7],
            kwh(page.report.energy_microjoules),
            f"{_span(page.report.period)}: {rows[0][2]} kWh",
        ),
    ]
    frame = _add(section, "div", class_="frame")
    frame.append(column_chart(bars, name="years-chart", title="IT energy, a year before and now", unit="kWh"))
    heads = [("", ""), (_span(before.period), "n"), (_span(page.report.period), "n"), ("change", "n")]
    _table(section, heads, rows, "years-table")
    words = [completeness(each)[1] for each in (before, page.report)]
    _add(
        section,
        "p",
        f"Before: {words[0]}. Now: {words[1]}. Nothing is scaled to make up for what is missing.",
        class_="note",
    )


def _change(name: str, before: Fraction, now: Fraction) -> list[str]:
    change = f"{rounded((now / before - 1) * 100, 1)} %" if before else "–"
    return [name, rounded(before, 3), rounded(now, 3), change]


def _coverage(main: Element, page: Page) -> None:
    report = page.report
    section = _section(main, "coverage", "Gaps and coverage")
    rows = []
    for site in report.sites:
        lower, upper = site.energy_bounds_microjoules
        rows.append(
            [
                site.site,
                hours_text(site.covered_nanoseconds),
                hours_text(site.missing_nanoseconds),
                _percent(site.coverage),
                str(site.gaps.count),
                f"{kwh_text(lower)} to " + ("no known bound" if upper is None else kwh_text(upper)),
            ]
        )
    heads = [("site", ""), ("hours with a figure", "n"), ("without", "n"), ("coverage", "n"), ("gaps", "n")]
    _table(section, [*heads, ("IT kWh with what they may hide", "n")], rows, "coverage-table")
    for site in report.sites:
        for host in site.silent:
            since = report.period.show(host.since_seconds)
            _add(section, "p", f"Host {host.host} of {site.site} has reported nothing since {since}.", class_="note")
    gaps = [(site.site, row) for site in report.sites for row in site.gap_rows]
    if not gaps:
        _add(section, "p", "There is no gap.", class_="note")
        return
    longest = sorted(gaps, key=lambda each: each[1].gap.from_utc_nanoseconds - each[1].gap.to_utc_nanoseconds)[
        :GAPS_SHOWN_MAX
    ]
    shown = sorted(longest, key=lambda each: (each[1].gap.from_utc_nanoseconds, each[1].host))
    details = SubElement(section, "details")
    _add(details, "summary", f"The {'longest ' if len(gaps) > len(shown) else ''}{len(shown)} of {len(gaps)} gaps")
    _table(
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


def _workloads(main: Element, page: Page) -> None:
    lines = sorted((line for site in page.workloads.sites for line in site.lines), key=lambda line: -line.energy_microjoules)
    if not lines:
        return
    section = _section(main, "workloads", "What the energy was spent on")
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
    _table(section, heads, rows, "workloads-table")
    rest = lines[WORKLOADS_SHOWN_MAX:]
    told = f"The other {len(rest)} used {kwh_text(sum(line.energy_microjoules for line in rest))} kWh. " if rest else ""
    divided = sum(site.divided_microjoules for site in page.workloads.sites)
    told += f"{kwh_text(divided)} of {kwh_text(page.report.energy_microjoules)} kWh were divided over workloads."
    _add(section, "p", told, class_="note")


def _workload_mass(line: WorkloadLine) -> str:
    return "; ".join(f"{mass_text(part.grams)} {kind.gas}" for kind, part in sorted(line.emissions.items())) or "–"


def _equivalences(main: Element, page: Page) -> None:
    rows = []
    for kind, part in sorted(page.report.emissions.items()):
        if kind.gas not in (Gas.CO2, Gas.CO2E):
            continue
        # Nobody learns from a comparison with nothing.
        rows += [_equivalence_row(each, part) for each in page.equivalences if each.floored(part.grams / 1_000_000)]
    if not rows:
        return
    section = _section(main, "equivalences", "For comparison")
    _table(section, [("emissions", "n"), ("are those of", ""), ("by", "")], rows, "equivalences-table")
    _add(section, "p", "Rounded down, so that a comparison never claims more than there is.", class_="note")


def _equivalence_row(equivalence: Equivalence, part: Emissions) -> list[str]:
    count = equivalence.floored(part.grams / 1_000_000)
    return [f"{mass_text(part.grams)} {part.kind.gas}", f"{count} {equivalence.unit}", equivalence.evidence]


def _factors(main: Element, page: Page) -> None:
    report = page.report
    if not report.factors:
        return
    section = _section(main, "factors", "Factors")
    seen: dict[tuple[object, ...], Line] = {}
    for site in report.sites:
        for line in site.lines:
            if line.factors:
                seen.setdefault((site.site, line.basis.group), line)
    heads = [("site, from", ""), ("zone", ""), ("g/kWh", "n"), ("type", ""), ("of", ""), ("source", "")]
    rows = [_factor_row(report, line) for line in seen.values()]
    _table(section, heads, rows, "factors-table")
    sources = {(each.source, each.attribution, each.licence, each.document) for each in report.factors}
    told = _add(section, "ul", class_="note")
    for source, attribution, licence, document in sorted(sources):
        _add(told, "li", f"{source}: {attribution} ({licence}). {document}")


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


def _footer(body: Element, page: Page) -> None:
    footer = SubElement(body, "footer")
    made = page.report.period.show(page.report.made_at_seconds)
    _add(
        footer,
        "p",
        f"Made by Wattledger {page.version} on {made} from its ledger. Energy is whole microjoules, emissions are exact "
        "fractions of energy x PUE x factor, and figures are rounded half up where they are shown. Scope 2, GHG Protocol.",
    )
