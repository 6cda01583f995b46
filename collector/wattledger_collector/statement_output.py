"""Statements for people: the list of all, and one with its totals and what it replaces.

Reckons nothing; the figures are those of the statement. Source of truth: `statement.py`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.statement_store import Stored
from wattledger_collector.statement_values import Tree, rounded

_TONNES_DIGITS = 6
_GRAMS_PER_TONNE = 10**6


def write_list(statements: Iterable[Stored], console: Console) -> None:
    """A row for each statement."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("number", "from (UTC)", "to (UTC)", "site", "closed at (UTC)", "replaces", "sha256"):
        table.add_column(name, no_wrap=True)
    for stored in statements:
        tree = stored.tree
        replaced = tree["replaces"]
        table.add_row(
            str(stored.number),
            tree["period"]["from"][:16],
            tree["period"]["to"][:16],
            escape(tree["boundary"]["site"] or "all"),
            tree["closed_at"][:16],
            str(replaced["number"]) if replaced else "",
            stored.sha256,
        )
    console.print(table)


def write_statement(stored: Stored, console: Console) -> None:
    """One statement: what it says, and how it can be checked."""
    tree = stored.tree
    period = tree["period"]

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"Statement {stored.number}, sha256 {stored.sha256}")
    say(f"Period   {period['from']} to {period['to']} ({period['time_zone']}), edition {tree['edition']}")
    say(f"Boundary {tree['boundary']['text']}; site: {tree['boundary']['site'] or 'all'}")
    say(f"Closed   {tree['closed_at']} by {tree['software']}")
    say(f"Leaves   {tree['leaves']['count']} host-days, root {tree['leaves']['root']}")
    for heading, name in (("All", "all"), ("Site", "by_site"), ("Component", "by_component"), ("Made of", "by_quality"),
                          ("Factor tier", "by_tier")):  # fmt: skip
        _write_totals(heading, tree["totals"][name], console)
    for each in tree["uncertainty"]:
        for sentence in _interval_sentences(each):
            say(sentence)
    for site in tree["sites"]:
        share = "nothing was metered" if site["coverage"] is None else site["coverage"]["rounded"]
        say(f"Coverage of site {site['site']}: {share}; {site['gaps']['count']} gaps, {len(site['silent'])} silent hosts")
    _write_replaced(tree, console)


def _interval_sentences(each: Tree) -> Iterable[str]:
    """How far a total may be off, and what of it is assumed; the first form has less."""
    site = "" if each.get("site") is None else f", site {each['site']}"
    recorded = " (recorded)" if each.get("recorded") else ""
    yield (
        f"95 % interval{site}, {each['kind']}{recorded}: {_tonnes(each['grams']['exact'])} t "
        f"-{_tonnes(each['lower_grams'])} +{_tonnes(each['upper_grams'])} t"
    )
    if unstated := each.get("factors_without_uncertainty"):
        yield f"  without the factors' own, which are not stated: {', '.join(unstated)}"
    for what in ("sensor", "factor"):
        if names := each.get("assumed", {}).get(f"{what}s"):
            amount = _tonnes(each["assumed"][f"{what}_grams"])
            yield f"  with assumed bands, as none are stated, for {amount} t of the {what}s {', '.join(names)}"
    if unbounded := each.get("gaps_without_upper_bound") or each.get("without_upper_bound"):
        yield f"  without what nobody knows the size of, at {', '.join(unbounded)}"


def _write_totals(heading: str, totals: Iterable[Tree], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(heading)
    for name in ("kWh", "t", "uncovered kWh"):
        table.add_column(name, justify="right")
    table.add_column("type")
    for total in totals:
        kinds = total["emissions"] or [None]
        for place, emission in enumerate(kinds):
            table.add_row(
                (escape(total["name"]) + (" (recorded)" if total["recorded"] else "")) if place == 0 else "",
                _kwh(total["energy_microjoules"]) if place == 0 else "",
                "" if emission is None else _tonnes(emission["grams"]["exact"]),
                _kwh(total["uncovered_microjoules"]) if place == 0 else "",
                "" if emission is None else emission["kind"],
            )
    console.print(table)


def _write_replaced(tree: Tree, console: Console) -> None:
    replaced = tree["replaces"]
    if replaced is None:
        return
    console.print(f"It replaces statement {replaced['number']}. The difference in tonnes, by cause:", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("type")
    for name in ("before", "after", "difference", "activity", "factor", "boundary", "method"):
        table.add_column(name, justify="right")
    for each in replaced["differences"]:
        causes = [_tonnes(each["causes"][name]["exact"]) for name in ("activity", "factor", "boundary", "method")]
        figures = [_tonnes(each[name]["exact"]) for name in ("before", "after", "difference")]
        table.add_row(each["kind"] + (" (recorded)" if each["recorded"] else ""), *figures, *causes)
    console.print(table)


def _kwh(microjoules: str) -> str:
    return rounded(Fraction(int(microjoules), MICROJOULES_PER_KWH), 3)


def _tonnes(grams: str) -> str:
    return rounded(Fraction(grams) / _GRAMS_PER_TONNE, _TONNES_DIGITS)


def day_of(seconds: int) -> str:
    """The date of an instant, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
