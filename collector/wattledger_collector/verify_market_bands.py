"""Reckons the 95 % intervals of a statement's market-based totals anew, with the bands that it states and assumed.

No file and nothing of what made the statement: numbers in, sentences out. Sources of truth: as for location based
(`verify_uncertainty.py`); a certificate's rate is taken as its contract has it, a residual mix has its row's band, else the
ratio that the statement assumed for official years, and what neither counts has its grid factor's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from wattledger_collector.verify_uncertainty import Sums, add_terms, bounds_of, half_widths, sums_of
from wattledger_collector.verify_values import Tree, grams_tree, is_near

# Official years, whose ratio a residual mix has that states none.
_MIX_TIER: Final = "F4"

# Boundary, gas and warming potentials.
Counted = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class SiteGrams:
    """A site's grams by what they count: in all, at certificates' rates, at grid factors, and at each residual mix."""

    totals: Mapping[Counted, Fraction]
    certified: Mapping[Counted, Fraction]
    grid: Mapping[Counted, Fraction]
    mixes: Mapping[tuple[str, int], Mapping[Counted, Fraction]]


def market_interval_problems(
    statement: Tree, lines: Sequence[Tree], gaps: Sequence[Tree], sites: Mapping[str, SiteGrams]
) -> Iterator[str]:
    """Whether each market-based total has the interval that follows. lines: as they were reckoned; sites: their grams."""
    rows = statement["market"].get("uncertainty", [])
    stated = {(row["site"], (row["boundary"], row["gas"], row["gwp"])): row for row in rows}
    wanted: dict[tuple[str | None, Counted], list[str]] = {}
    for site, grams in sorted(sites.items()):
        for counted in grams.totals:
            for name in (None, site):
                wanted.setdefault((name, counted), []).append(site)
    if set(stated) != set(wanted) or len(stated) != len(rows):
        yield "the uncertainties of market-based totals are not of the sites that have them and of what they count"
        return
    missing = _missing(statement, gaps)
    for (only, counted), names in sorted(wanted.items(), key=str):
        own = {site: sites[site] for site in names}
        told = {site for site, grams in sites.items() if grams.totals}
        left_open = {
            site: each
            for site, each in missing.items()
            if (site == only if only is not None else site in own or site not in told)
        }
        yield from _problems(statement, counted, own, lines, left_open, stated[only, counted])


_Missing = tuple[int, int | None, bool]


def _missing(statement: Tree, gaps: Sequence[Tree]) -> dict[str, _Missing]:
    """Of each site what gaps leave open below and above, of recordings or not, and whether hosts tell nothing."""
    found: dict[str, _Missing] = {}
    silent = {site["site"] for site in statement["sites"] if site["silent"]}
    for (site, _), (lower, upper) in bounds_of(statement, gaps).items():
        below, above, _ = found.get(site, (0, 0, False))
        found[site] = (below + lower, None if above is None or upper is None else above + upper, site in silent)
    return found


def _problems(
    statement: Tree,
    counted: Counted,
    sites: Mapping[str, SiteGrams],
    lines: Sequence[Tree],
    missing: Mapping[str, _Missing],
    stated: Tree,
) -> Iterator[str]:
    types = {row["kind"]: row["type"] for row in statement["factors"]["rows"]}
    sums, total = sums_of(statement), Fraction(0)
    rates: dict[str, Fraction] = {}
    for site, grams in sites.items():
        own = [line for line in lines if line["site"] == site]
        alike = [line for line in own if line["kind"] is not None and _counted(types[line["kind"]]) == counted]
        _add_site(statement, sums, counted, grams, own, alike)
        total += grams.totals[counted]
        if energy := sum(int(line["energy_microjoules"]) for line in alike or own):
            rates[site] = grams.totals[counted] / energy
    below, above, open_sites = 0.0, 0.0, set()
    for site, (lower, upper, is_silent) in missing.items():
        if upper is None or is_silent or (site not in rates and (lower or upper)):
            open_sites.add(site)
        rate = rates.get(site, Fraction(0))
        below -= min(0.0, float(lower * rate))
        above += max(0.0, float((upper or 0) * rate))
    of = ("all sites" if stated["site"] is None else f"site {stated['site']}") + ", market based"
    if stated["grams"] != grams_tree(total):
        yield f"the total of {of} beside its uncertainty is another one"
    spread_below, spread_above = half_widths(sums)
    for what, value in (("lower_grams", spread_below + below), ("upper_grams", spread_above + above)):
        if not is_near(stated[what], value):
            yield f"{what} of {of} is {value:.6f}, and not {stated[what]}"
    yield from _assumed_problems(of, stated, sums)
    if stated["without_upper_bound"] != sorted(open_sites):
        yield f"of {of}, nobody knows what is missing at {', '.join(sorted(open_sites)) or 'no site'}"


def _assumed_problems(of: str, stated: Tree, sums: Sums) -> Iterator[str]:
    for what, found in (("sensor", sums.assumed_sensors), ("factor", sums.assumed_factors)):
        amount, told = sum(found.values()), stated["assumed"]
        if told[f"{what}s"] != sorted(found) or not is_near(told[f"{what}_grams"], amount):
            yield f"of {of}, {what}s without a stated band are {', '.join(sorted(found)) or 'none'}, for {amount:.6f} g"


def _add_site(
    statement: Tree, sums: Sums, counted: Counted, grams: SiteGrams, own: Sequence[Tree], alike: Sequence[Tree]
) -> None:
    """A site's terms: at grid factors by the grams of its lines, all others by their energy."""
    weights = [Fraction(line["grams"]["exact"]) for line in alike]
    for line, part in _divided(grams.grid.get(counted, Fraction(0)), alike, weights):
        add_terms(statement, sums, line, part)
    energies = [Fraction(line["energy_microjoules"]) for line in own]
    for line, part in _divided(grams.certified.get(counted, Fraction(0)), own, energies):
        add_terms(statement, sums, line, part, ("certificates", 0.0, ""))
    rows = {(row["market"], row["from_seconds"]): row for row in statement["market"]["mixes"]}
    factors = {row["id"]: row for row in statement["factors"]["rows"]}
    for key, of_mix in grams.mixes.items():
        mix = rows[key]
        ratio = None if mix["factor"] is None else factors[mix["factor"]]["uncertainty_ratio"]
        name = f"{mix['market']} residual mix {mix['source']}"
        assumed = statement["assumed_ratios"]["factors"][_MIX_TIER]
        band = (f"{name} {key[1]}", float(assumed if ratio is None else ratio), name if ratio is None else "")
        for line, part in _divided(of_mix.get(counted, Fraction(0)), own, energies):
            add_terms(statement, sums, line, part, band)


def _counted(kind: Tree) -> Counted:
    return kind["boundary"], kind["gas"], kind["gwp"]


def _divided(amount: Fraction, lines: Iterable[Tree], weights: Sequence[Fraction]) -> Iterator[tuple[Tree, float]]:
    """What each line has of an amount; by the sizes of weights where they sum to nothing."""
    if sum(weights) == 0:
        weights = [abs(weight) for weight in weights]
    whole = sum(weights, Fraction(0))
    if amount and whole:
        for line, weight in zip(lines, weights, strict=True):
            yield line, float(amount / whole * weight)
