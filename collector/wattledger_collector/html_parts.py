"""What all parts of a report's page are made of: the page's figures, and elements for headings, tables and texts.

No figure is reckoned here but by rounding. Source of truth: `report.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from xml.etree.ElementTree import Element, SubElement

from wattledger_collector.accounting import Line
from wattledger_collector.bands import Estimate, Sensors
from wattledger_collector.books import Equivalence
from wattledger_collector.factors import FactorKind
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.report import Period, Report
from wattledger_collector.report_figures import Day
from wattledger_collector.rounding import kwh, rounded
from wattledger_collector.workload_report import WorkloadReport

Cell = str | Element


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page shows. before: the same period a year earlier, if anything was booked in it."""

    report: Report
    days: Sequence[Day]
    intervals: Mapping[FactorKind, Estimate]
    sensors: Sensors
    workloads: WorkloadReport
    before: Report | None
    equivalences: Sequence[Equivalence]
    version: str


def add(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    """A child element with text; names of attributes end in `_` where Python has the word for itself."""
    element = SubElement(parent, tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    element.text = text
    return element


def section_of(main: Element, name: str, heading: str) -> Element:
    """A part of the page under a heading."""
    section = SubElement(main, "section", {"id": name, "aria-labelledby": f"{name}-heading"})
    add(section, "h2", heading, id=f"{name}-heading")
    return section


def add_table(parent: Element, heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]], name: str) -> Element:
    """A table; heads: each with the class of its column (`n`: numbers)."""
    frame = add(parent, "div", class_="frame")
    table = add(frame, "table", id=name)
    head = SubElement(SubElement(table, "thead"), "tr")
    for text, kind in heads:
        add(head, "th", text, scope="col", class_=kind)
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


def span_text(period: Period) -> str:
    """A period by its first and last day, or by its ends where they are no midnights."""
    begin, end = period.show(period.from_seconds), period.show(period.to_seconds)
    if begin[11:19] == end[11:19] == "00:00:00":
        last = datetime.fromtimestamp(period.to_seconds - 1, period.time_zone).date().isoformat()
        return begin[:10] if begin[:10] == last else f"{begin[:10]} to {last}"
    return f"{begin} to {end}"


def percent(share: Fraction | None) -> str:
    """A share with one digit."""
    return "–" if share is None else f"{rounded(share * 100, 1)} %"


def short_kind(kind: FactorKind) -> str:
    """A type of factor in a column's head."""
    return f"{kind.gas}, {kind.boundary}"


def facility_kwh(line: Line) -> Fraction:
    """kWh of a line with its site's declared overhead."""
    return kwh(line.energy_microjoules) * Fraction(line.basis.pue or 1)


def overhead_text(value: Fraction, report: Report) -> str:
    """kWh with as many digits as the whole report has."""
    return rounded(value, 3 if abs(report.energy_microjoules) >= MICROJOULES_PER_KWH else 6)
