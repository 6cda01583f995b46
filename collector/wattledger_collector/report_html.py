"""Shows a report as one page of HTML: figures, charts and what each is made of, to read, to print and to keep.

Reckons nothing but the rounding. The page is whole in itself: no script, no font, nothing that is asked of a network. All
text goes through a tree of elements, so that no name of a host or a site can become markup. Source of truth: `report.py`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from fractions import Fraction
from importlib.resources import files
from xml.etree.ElementTree import Element, SubElement, tostring

from wattledger_collector.accounting import Line
from wattledger_collector.bands import assumed_text
from wattledger_collector.facility import MeasuredPue
from wattledger_collector.factors import FactorKind
from wattledger_collector.html_parts import (
    Cell,
    Page,
    add,
    add_table,
    facility_kwh,
    overhead_text,
    percent,
    section_of,
    short_kind,
    span_text,
)
from wattledger_collector.records import NANOSECONDS_PER_SECOND
from wattledger_collector.report import Period, Report, SiteReport
from wattledger_collector.report_completeness import completeness, hours_text, measured_sentence, pue_figure
from wattledger_collector.report_evidence import (
    coverage_part,
    equivalences_part,
    factors_part,
    uncertainty_part,
    workloads_part,
    years_part,
)
from wattledger_collector.report_figures import Day
from wattledger_collector.report_market_html import market_cards, market_part
from wattledger_collector.report_output import uncovered
from wattledger_collector.report_svg import Bar, column_chart, row_bar
from wattledger_collector.report_table import QUALITY_WORDS, RECORDED_WORDS, kwh_text
from wattledger_collector.rounding import kwh, mass_text

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


def render_page(page: Page) -> str:
    """The page as text."""
    html = Element("html", {"lang": "en"})
    head = SubElement(html, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    SubElement(head, "meta", {"name": "color-scheme", "content": "light dark"})
    SubElement(head, "meta", {"name": "generator", "content": f"Wattledger {page.version}"})
    add(head, "title", f"Energy and emissions, {span_text(page.report.period)}")
    SubElement(head, "style").text = (files("wattledger_collector") / "report.css").read_text(encoding="utf-8")
    body = SubElement(html, "body")
    _header(body, page)
    main = SubElement(body, "main")
    if not page.report.sites:
        add(main, "p", "Nothing is booked in this period.")
    else:
        for section in (
            _totals, market_part, _days, _sites, _components, _qualities, _tiers, uncertainty_part, years_part,
            coverage_part, workloads_part, equivalences_part, factors_part,
        ):  # fmt: skip
            section(main, page)
    _footer(body, page)
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _header(body: Element, page: Page) -> None:
    report = page.report
    header = SubElement(body, "header")
    add(header, "h1", "Energy and emissions")
    add(header, "p", f"{span_text(report.period)} ({report.period.time_zone.key})", class_="period")
    marks = add(header, "p", class_="marks")
    word, why = completeness(report)
    add(marks, "span", f"{word}: {why}", class_="mark good" if word == "complete" else "mark warn", id="completeness")
    add(marks, "span", "provisional" if report.reasons else "closed", class_="mark warn" if report.reasons else "mark good")
    if report.reasons:
        reasons = add(header, "ul", class_="reasons")
        for reason in report.reasons:
            add(reasons, "li", reason)


def _totals(main: Element, page: Page) -> None:
    report = page.report
    section = section_of(main, "totals", "Totals")
    cards = add(section, "div", class_="cards")
    _card(cards, "IT energy", kwh_text(report.energy_microjoules), "kWh", "as booked, before any PUE")
    facility = sum((facility_kwh(line) for site in report.sites for line in site.lines), Fraction(0))
    _card(
        cards,
        "With the site's overhead",
        overhead_text(facility, report),
        "kWh",
        "IT energy x the declared PUE of each site",
    )
    for kind, part in sorted(report.emissions.items()):
        mass, unit = mass_text(part.grams).split(" ")
        _card(cards, f"Scope 2, location based, {kind.gas}", mass, unit, _interval_text(page, kind))
    for name, figure, unit, told in market_cards(report.market):
        _card(cards, name, figure, unit, told)
    bare = sum(site.uncovered_microjoules for site in report.sites)
    if bare:
        _card(cards, "Without a factor", kwh_text(bare), "kWh", "they have no emissions figure, and none is assumed")


def _card(cards: Element, name: str, value: str, unit: str, told: str) -> None:
    card = add(cards, "div", class_="card")
    add(card, "h3", name)
    figure = add(card, "p", class_="figure")
    add(figure, "b", value)
    if unit:
        add(figure, "span", f" {unit}")
    add(card, "p", told, class_="told")


def _interval_text(page: Page, kind: FactorKind) -> str:
    found = page.intervals.get(kind)
    if found is None:
        return str(kind)
    interval = found.interval
    lower = mass_text(interval.grams - Fraction(interval.lower_grams))
    upper = "no known bound" if found.is_open else mass_text(interval.grams + Fraction(interval.upper_grams))
    return f"95 % interval: {lower} to {upper} ({assumed_text(found)}). {kind}"


def _days(main: Element, page: Page) -> None:
    report, days = page.report, page.days
    is_monthly = any(day.to_seconds - day.from_seconds > 26 * 3600 for day in days)
    word = "month" if is_monthly else "day"
    section = section_of(main, "days", f"Energy by {word}")
    bars = [
        Bar(
            _day_label(day, report.period, is_monthly=is_monthly),
            kwh(day.energy_microjoules),
            f"{_day_name(day, report.period)}: {kwh_text(day.energy_microjoules)} kWh, coverage {percent(day.coverage)}",
            is_partial=day.coverage is not None and day.coverage < 1,
        )
        for day in days
    ]
    frame = add(section, "div", class_="frame")
    frame.append(column_chart(bars, name="days-chart", title=f"IT energy by {word}", unit="kWh"))
    note = f"Days are those of {report.period.time_zone.key}; a day on which clocks change has 23 or 25 hours."
    if any(bar.is_partial for bar in bars):
        note += " Pale bars: not all channel time of it has a figure."
    add(section, "p", note, class_="note")
    kinds = sorted(report.emissions)
    heads = [(word, ""), ("hours", "n"), ("IT kWh", "n"), *((short_kind(kind), "n") for kind in kinds), ("coverage", "n")]
    details = SubElement(section, "details")
    if len(days) <= 31:
        details.set("open", "open")
    add(details, "summary", "Figures")
    rows = (
        [
            _day_name(day, report.period),
            hours_text((day.to_seconds - day.from_seconds) * NANOSECONDS_PER_SECOND),
            kwh_text(day.energy_microjoules, report.energy_microjoules),
            *(mass_text(day.grams[kind]) if kind in day.grams else "–" for kind in kinds),
            percent(day.coverage),
        ]
        for day in days
    )
    add_table(details, heads, rows, "days-table")


def _day_name(day: Day, period: Period) -> str:
    begin = datetime.fromtimestamp(day.from_seconds, period.time_zone)
    if day.to_seconds - day.from_seconds > 26 * 3600:
        return begin.strftime("%Y-%m")
    return begin.date().isoformat()


def _day_label(day: Day, period: Period, *, is_monthly: bool) -> str:
    begin = datetime.fromtimestamp(day.from_seconds, period.time_zone)
    return begin.strftime("%Y-%m" if is_monthly else "%m-%d")


def _sites(main: Element, page: Page) -> None:
    report = page.report
    section = section_of(main, "sites", "By site")
    kinds = sorted(report.emissions)
    longest = max((kwh(abs(site.energy_microjoules)) for site in report.sites), default=Fraction(0))
    heads = [
        ("site", ""), ("", "bar"), ("IT kWh", "n"), ("PUE", ""), ("overhead included kWh", "n"),
        *((short_kind(kind), "n") for kind in kinds), ("uncovered kWh", "n"), ("coverage", "n"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for site in report.sites:
        energy = site.energy_microjoules
        rows.append(
            [
                site.site,
                row_bar(kwh(abs(energy)), longest, f"{kwh_text(energy)} kWh"),
                kwh_text(energy, report.energy_microjoules),
                _pue_text(site, report),
                overhead_text(sum((facility_kwh(line) for line in site.lines), Fraction(0)), report),
                *(mass_text(site.emissions[kind].grams) if kind in site.emissions else "–" for kind in kinds),
                kwh_text(site.uncovered_microjoules, report.energy_microjoules),
                percent(site.coverage),
            ]
        )
    add_table(section, heads, rows, "sites-table")
    for site in report.sites:
        for reason, microjoules in uncovered(site):
            add(section, "p", f"{kwh_text(microjoules)} kWh of {site.site} are uncovered, as {reason}.", class_="note")
        for pue in report.pues.get(site.site, ()):
            if pue.is_told:
                add(section, "p", f"{site.site}: {pue.sentence}.", class_="note")
    for measured in page.report.measured.values():
        _measured(section, measured)


def _pue_text(site: SiteReport, report: Report) -> str:
    """Each PUE that was declared, marked if it is interim or has no evidence, and the measured one."""
    told = []
    for pue in report.pues.get(site.site, ()):
        marks = [*(["interim"] if pue.is_interim else []), *(["no evidence"] if pue.lacks_evidence else [])]
        extra = f" ({', '.join(marks)})" if marks else ""
        told.append(f"{pue.ratio:f} declared{extra}")
    measured = report.measured.get(site.site)
    if measured is not None and measured.pue is not None:
        told.append(f"{pue_figure(measured.pue)} measured")
    return ", ".join(told) or "–"


def _measured(section: Element, measured: MeasuredPue) -> None:
    add(section, "p", measured_sentence(measured), class_="note", id=f"pue-{measured.site}")
    if not measured.overhead:
        return
    details = SubElement(section, "details")
    add(details, "summary", f"What each host of {measured.site} bears of the measured overhead")
    shown = sorted(measured.overhead.items(), key=lambda item: (-item[1], item[0]))
    rows = [[host, kwh_text(measured.it[host]), kwh_text(part)] for host, part in shown[:HOSTS_SHOWN_MAX]]
    add_table(details, [("host", ""), ("IT kWh", "n"), ("overhead kWh", "n")], rows, f"overhead-{measured.site}")
    if len(shown) > HOSTS_SHOWN_MAX:
        rest = sum(part for _, part in shown[HOSTS_SHOWN_MAX:])
        add(details, "p", f"The other {len(shown) - HOSTS_SHOWN_MAX} hosts bear {kwh_text(rest)} kWh.", class_="note")


def _shares(section: Element, name: str, head: str, sums: Mapping[str, tuple[int, Fraction | None]], page: Page) -> None:
    """A table with bars of parts of the energy, each with its emissions."""
    whole = page.report.energy_microjoules
    longest = max((kwh(abs(energy)) for energy, _ in sums.values()), default=Fraction(0))
    rows: list[list[Cell]] = [
        [
            label,
            row_bar(kwh(abs(energy)), longest, f"{kwh_text(energy)} kWh"),
            kwh_text(energy, whole),
            percent(Fraction(energy, whole)) if whole else "–",
            "–" if grams is None else mass_text(grams),
        ]
        for label, (energy, grams) in sums.items()
    ]
    heads = [(head, ""), ("", "bar"), ("IT kWh", "n"), ("share", "n"), ("emissions", "n")]
    add_table(section, heads, rows, name)
    if len(page.report.emissions) > 1:
        add(section, "p", "Emissions of different types are not added: see the table by site.", class_="note")


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
    section = section_of(main, "components", "By component")
    sums = _sums(page, lambda line: f"{int(line.component)} {line.component.name.lower()}")
    named = {name.partition(" ")[2]: parts for name, parts in sums.items()}
    _shares(section, "components-table", "component", named, page)


def _qualities(main: Element, page: Page) -> None:
    section = section_of(main, "qualities", "What the energy is made of")

    def label(line: Line) -> str:
        return QUALITY_WORDS[line.quality].partition(":")[0] + (", recorded" if line.recorded else "")

    _shares(section, "qualities-table", "made of", _sums(page, label), page)
    words = add(section, "ul", class_="note")
    lines = [line for site in page.report.sites for line in site.lines]
    for quality in sorted({line.quality for line in lines}):
        add(words, "li", QUALITY_WORDS[quality])
    if any(line.recorded for line in lines):
        add(words, "li", RECORDED_WORDS)


def _tiers(main: Element, page: Page) -> None:
    section = section_of(main, "tiers", "How good the factors are")
    sums = _sums(page, lambda line: f"{line.basis.tier}: {TIER_WORDS[line.basis.tier]}")
    _shares(section, "tiers-table", "tier", sums, page)


def _footer(body: Element, page: Page) -> None:
    footer = SubElement(body, "footer")
    made = page.report.period.show(page.report.made_at_seconds)
    add(
        footer,
        "p",
        f"Made by Wattledger {page.version} on {made} from its ledger. Energy is whole microjoules, emissions are exact "
        "fractions of energy x PUE x factor, and figures are rounded half up where they are shown. Scope 2, GHG Protocol.",
    )
