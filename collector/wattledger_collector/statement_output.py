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
    if (market := tree.get("market")) is not None:
        _write_market(market, console)
        for sentence in _market_sentences(market):
            say(sentence)
    for each in tree["uncertainty"]:
        for sentence in _interval_sentences(each):
            say(sentence)
    for each in tree.get("market", {}).get("uncertainty", ()):
        for sentence in _interval_sentences({**each, "kind": f"market based, {_counted(each)}"}):
            say(sentence)
    for row in tree.get("imports", {}).get("rows", ()):
        what = row["host"] or f"site {row['site']}"
        say(f"Imported {row['file']} of {what} ({row['point']}, {row['form']}, {row['place']}), sha256 {row['sha256']}")
    for site in tree["sites"]:
        share = "nothing was metered" if site["coverage"] is None else site["coverage"]["rounded"]
        say(f"Coverage of site {site['site']}: {share}; {site['gaps']['count']} gaps, {len(site['silent'])} silent hosts")
    _write_replaced(tree, console)


def _write_market(market: Tree, console: Console) -> None:
    """Scope 2 market based, by what it is made of, and both methods' totals."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("Scope 2")
    table.add_column("kWh", justify="right")
    table.add_column("t", justify="right")
    table.add_column("of")
    for part in market["all"]["parts"]:
        kwh = rounded(Fraction(part["microjoules"]) / MICROJOULES_PER_KWH, 3)
        for place, grams in enumerate(part["grams"] or [None]):
            table.add_row(
                part["part"].replace("_", " ") if place == 0 else "",
                kwh if place == 0 else "",
                "" if grams is None else _tonnes(grams["grams"]["exact"]),
                "" if grams is None else _counted(grams),
            )
    for name, words in (("market_based", "market based"), ("location_based", "location based")):
        for grams in market["all"][name]:
            table.add_row(words, "", _tonnes(grams["grams"]["exact"]), _counted(grams))
    console.print(table)


def _counted(row: Tree) -> str:
    gas = f"{row['gas']} ({row['gwp']})" if row["gwp"] else row["gas"]
    return " ".join(filter(None, (row["boundary"], gas))) or "a type that is not stated"


def _market_sentences(market: Tree) -> Iterable[str]:
    """What the market-based figure rests on."""
    for remark in market["remarks"]:
        yield f"Market based: {remark}"
    claimed: dict[str, Fraction] = {}
    for each in market["claimed"]:
        claimed[each["certificate"]] = claimed.get(each["certificate"], Fraction(0)) + Fraction(each["microjoules"])
    for name, energy in sorted(claimed.items()):
        yield f"  certificate {name} covers {rounded(energy / MICROJOULES_PER_KWH, 3)} kWh"
    for each in market["used_before"]:
        kwh = rounded(Fraction(each["microjoules"]) / MICROJOULES_PER_KWH, 3)
        numbers = ", ".join(map(str, each["statements"]))
        yield f"  of certificate {each['certificate']} {kwh} kWh were used by statement {numbers}"
    for each in market["refused"]:
        yield f"  certificate {each['certificate']} counts for nothing, {each['code']}: {each['text']}"
    for each in market["mixes"]:
        if each["grams_per_kwh"] is not None:
            yield f"  residual mix of {each['market']}: {each['grams_per_kwh']} g/kWh, {each['source']} ({each['evidence']})"


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
    if not replaced.get("market"):
        return
    console.print("Market based:", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("of")
    names = ("activity", "factor", "boundary", "method", "instruments")
    for name in ("before", "after", "difference", *names):
        table.add_column(name, justify="right")
    for each in replaced["market"]:
        figures = [_tonnes(each[name]["exact"]) for name in ("before", "after", "difference")]
        table.add_row(_counted(each), *figures, *(_tonnes(each["causes"][name]["exact"]) for name in names))
    console.print(table)


def _kwh(microjoules: str) -> str:
    return rounded(Fraction(int(microjoules), MICROJOULES_PER_KWH), 3)


def _tonnes(grams: str) -> str:
    return rounded(Fraction(grams) / _GRAMS_PER_TONNE, _TONNES_DIGITS)


def day_of(seconds: int) -> str:
    """The date of an instant, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
