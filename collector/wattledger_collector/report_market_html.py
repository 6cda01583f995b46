"""Scope 2 on a report's page: the cards, the chart of location against market, and what the market-based figure rests on.

Reckons nothing but the rounding. Source of truth: `market.py`.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from xml.etree.ElementTree import Element

from wattledger_collector.html_parts import Cell, Page, add, add_table, section_of
from wattledger_collector.market import Figure, MarketBased, Part
from wattledger_collector.market_words import (
    certificate_sentences,
    kinds_text,
    kwh_words,
    market_remarks,
    shares_text,
    totals_text,
)
from wattledger_collector.report_market_table import HEADS
from wattledger_collector.report_svg import Bar, column_chart
from wattledger_collector.residual_mixes import Counted
from wattledger_collector.rounding import mass_text

# All sites together and the five that emit most: as many as have room for their names.
PAIRS_MAX = 6
NAME_CHARACTERS_MAX = 14
REFUSED_SHOWN_MAX = 20
SENTENCES_MAX = 8


def market_cards(market: MarketBased) -> Iterator[tuple[str, str, str, str]]:
    """Name, figure, unit and words of each card: one for each thing that grams count."""
    told = shares_text(market.total)
    if market.is_location_based:
        told = "the same as location based: no certificate counts and there is no residual mix"
    for counted, grams in market.total.totals.items():
        mass, unit = mass_text(grams).split(" ")
        yield f"Scope 2, market based, {counted.gas}", mass, unit, f"{told}. {counted}"
    if not market.total.totals:
        yield "Scope 2, market based", "–", "", "no electricity has a rate"


def market_part(main: Element, page: Page) -> None:
    """Both figures of each site, and what the market-based one rests on."""
    market = page.report.market
    section = section_of(main, "market", "Scope 2: location against market")
    for place, counted in enumerate(market.total.location_totals | market.total.totals):
        _chart(section, market, counted, f"market-chart{place or ''}")
    _sites_table(section, market)
    notes = add(section, "ul", class_="reasons")
    if market.total.totals:
        add(notes, "li", f"Both figures count {kinds_text(market.total.location_totals | market.total.totals)}.")
    refused = len(market.matching.refused)
    sentences = [*market_remarks(market), *certificate_sentences(market)]
    for sentence in sentences[: len(sentences) - refused][:SENTENCES_MAX]:
        add(notes, "li", f"{sentence[:1].upper()}{sentence[1:]}.")
    if market.mixes:
        _mixes_table(section, market)
    if refused:
        _refused_table(section, market)


def _chart(section: Element, market: MarketBased, counted: Counted, name: str) -> None:
    """A pair of bars for all sites and for those that emit most: location based, then market based."""

    def most(item: tuple[str, Figure]) -> tuple[Fraction, str]:
        return -item[1].location_totals.get(counted, Fraction(0)), item[0]

    figures = [(site, figure) for site, figure in market.sites.items() if counted in figure.location_totals | figure.totals]
    shown = sorted(figures, key=most)
    if len(figures) > 1:
        shown = [("all sites", market.total), *shown]
    shown = shown[:PAIRS_MAX]
    highest = max((max(_grams(figure, counted)) for _, figure in shown), default=Fraction(0))
    size, unit = next(((size, unit) for unit, size in (("t", 10**6), ("kg", 1000)) if highest >= size), (1, "g"))
    bars = [
        Bar(
            _short(site),
            grams / size,
            f"{site}, {way} based: {mass_text(grams)} {counted.gas}",
            series=series,
        )
        for site, figure in shown
        for series, (way, grams) in enumerate(zip(("location", "market"), _grams(figure, counted), strict=True))
    ]
    if not bars:
        return
    frame = add(section, "div", class_="frame")
    title = f"Scope 2, location and market based, {counted}"
    frame.append(column_chart(bars, name=name, title=title, unit=f"{unit} {counted.gas}", group=2))
    note = "Of each pair the left bar is location based, the right, grey one market based."
    if len(figures) > len(shown):
        note += " The sites that emit most are shown; the table has all."
    add(section, "p", note, class_="note")


def _grams(figure: Figure, counted: Counted) -> tuple[Fraction, Fraction]:
    return figure.location_totals.get(counted, Fraction(0)), figure.totals.get(counted, Fraction(0))


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS_MAX else f"{name[: NAME_CHARACTERS_MAX - 1]}…"


def _sites_table(section: Element, market: MarketBased) -> None:
    parts = [part for part in Part if part in market.total.energy]
    heads = [("site", ""), ("kWh of the site", "n"), *((HEADS[part], "n") for part in parts)]
    heads += [("location based", "n"), ("market based", "n")]
    rows: list[Sequence[Cell]] = [_row(site, figure, parts) for site, figure in market.sites.items()]
    if len(market.sites) > 1:
        rows.append(_row("all sites", market.total, parts))
    add_table(section, heads, rows, "market-table")


def _row(name: str, figure: Figure, parts: Sequence[Part]) -> list[Cell]:
    energy = (kwh_words(figure.microjoules(part)) if part in figure.energy else "–" for part in parts)
    both = (totals_text(figure.location_totals), totals_text(figure.totals))
    return [name, kwh_words(figure.microjoules()), *energy, *both]


def _mixes_table(section: Element, market: MarketBased) -> None:
    heads = [("residual mix of", ""), ("g/kWh", "n"), ("counts", ""), ("source", ""), ("kWh", "n")]
    rows = [
        [
            mix.market,
            "–" if mix.grams_per_kwh is None else f"{mix.grams_per_kwh:f}",
            "as the grid factor" if mix.counted == Counted() else str(mix.counted),
            f"{mix.source}{'' if mix.factor is None else f' {mix.factor.vintage}'}: {mix.evidence}",
            kwh_words(energy),
        ]
        for mix, energy in market.mixes
    ]
    add_table(section, heads, rows, "mixes-table")


def _refused_table(section: Element, market: MarketBased) -> None:
    refused = market.matching.refused
    heads = [("refused certificate", ""), ("reason", ""), ("why", "")]
    rows = [[each.certificate.certificate, each.refusal, each.text] for each in refused[:REFUSED_SHOWN_MAX]]
    add_table(section, heads, rows, "refused-table")
    if len(refused) > REFUSED_SHOWN_MAX:
        rest = len(refused) - REFUSED_SHOWN_MAX
        add(section, "p", f"{rest} more are refused; the report as JSON or CSV names them.", class_="note")
