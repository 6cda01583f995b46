"""Scope 2 of a report for people, location and market based side by side: a table, and what the figures rest on.

Reckons nothing but the rounding; all is exact in JSON and CSV. Source of truth: `market.py`.
"""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from wattledger_collector.market import Figure, MarketBased, Part
from wattledger_collector.market_bands import MarketEstimates
from wattledger_collector.market_words import (
    certificate_sentences,
    interval_text,
    kinds_text,
    kwh_words,
    market_remarks,
    mix_sentences,
    totals_text,
)

HEADS = {
    Part.CERTIFICATES: "certificates",
    Part.RESIDUAL_MIX: "residual mix",
    Part.STAND_IN: "grid average",
    Part.OUTSIDE_SCOPE_2: "outside",
    Part.UNCOVERED: "no rate",
}

# More refused certificates than these fill a screen; all are in JSON and CSV.
SENTENCES_MAX = 24


def market_table(market: MarketBased) -> Table:
    """A row for each site and one for all: energy by part, and both figures."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("site")
    parts = [part for part in Part if part in market.total.energy]
    for name in ("kWh of the site", *(HEADS[part] for part in parts), "location based", "market based"):
        table.add_column(name, justify="right")
    for site, figure in market.sites.items():
        table.add_row(escape(site), *_cells(figure, parts))
    if len(market.sites) > 1:
        table.add_row("all", *_cells(market.total, parts), style="bold")
    return table


def _cells(figure: Figure, parts: list[Part]) -> list[str]:
    return [
        kwh_words(figure.microjoules()),
        *(kwh_words(figure.microjoules(part)) if part in figure.energy else "–" for part in parts),
        totals_text(figure.location_totals),
        totals_text(figure.totals),
    ]


def market_sentences(market: MarketBased, intervals: MarketEstimates) -> Iterator[str]:
    """What the table's figures count and rest on, and how far the market-based ones may be off."""
    if market.total.totals:
        yield f"Both count {kinds_text(market.total.location_totals | market.total.totals)}."
    sites = list(market.sites)
    for site in (*sites, None) if len(sites) > 1 else sites:
        of = "all sites" if site is None else f"site {site}"
        for counted, each in intervals.get(site, {}).items():
            yield f"95 % interval of {of}, market based, {counted}: {interval_text(each)}."
    told = [*market_remarks(market), *mix_sentences(market), *certificate_sentences(market)]
    for sentence in told[:SENTENCES_MAX]:
        yield f"- {sentence}"
    if len(told) > SENTENCES_MAX:
        yield f"- and {len(told) - SENTENCES_MAX} more, which --json and --csv tell"
