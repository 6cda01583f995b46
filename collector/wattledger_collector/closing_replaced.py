"""Tells which statement another replaces, and what it differs by, by cause and by both methods.

Decides no figure. Sources of truth: the statement before, as it was signed; `restating.py` and `restating_market.py` for the
causes.
"""

from fractions import Fraction

from wattledger_collector.accounting import BasisFinder, SiteBasis
from wattledger_collector.closing_market import market_differences
from wattledger_collector.closing_sums import Reading, Sums
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.records import SiteRow
from wattledger_collector.restating import CAUSES, Difference, Grams, Segments, grams_of, segments_of, split
from wattledger_collector.statement import FORMAT, basis_trees, canonical
from wattledger_collector.statement_load import energy_of, spans_of
from wattledger_collector.statement_store import Stored
from wattledger_collector.statement_values import Tree, grams_tree

# What two statements of one period have in common if nothing has changed.
_COMPARED = ("lines", "sites", "sensors", "factors", "instruments", "gaps", "reallocated", "assumed_ratios", "imports")
# What other statements used of certificates meanwhile took nothing from this one, so that it alone changes nothing.
_COMPARED_MARKET = ("claim", "tenures", "mixes", "load", "claimed", "stand_ins", "all", "sites")


def is_same(before: Stored, tree: Tree, root: bytes) -> bool:
    """Whether a new statement would say what the one before says. root: of the new one's leaves."""
    own = before.tree
    # One of an earlier form says less: it is stated anew.
    return (
        own["format"] == FORMAT
        and own["leaves"]["root"] == root.hex()
        and all(canonical(own[name]) == canonical(tree[name]) for name in _COMPARED)
        and all(canonical(own["market"][name]) == canonical(tree["market"][name]) for name in _COMPARED_MARKET)
    )


def replaced_tree(before: Stored, reading: Reading, last_id: int, sums: Sums, catalog: FactorCatalog, tree: Tree) -> Tree:
    """Which statement is replaced, and the difference by cause."""
    old = before.tree
    seconds = reading.store.interval_seconds
    then = sums if before.assignments_last_id == last_id else reading.sums(before.assignments_last_id)
    bases_of_then = _bases_of_then(old, catalog)
    old_bases = {site["site"]: segments_of(site["bases"]) for site in old["sites"]}
    new_bases = {site["site"]: segments_of(site["bases"]) for site in tree["sites"]}
    begin, edition = old["period"]["from_seconds"], tree["edition"]
    factor_bases = {site: segments_of(basis_trees(bases, begin)) for site, bases in bases_of_then.items()}

    def grams(cells: dict[tuple[str, int, bool], int], segments: Segments) -> Grams:
        return grams_of(cells, segments, new_bases, seconds)

    energies = (_cells(then, old["edition"]), _cells(then, edition), _cells(sums, edition))
    # After a restore of a backup from before it, what it stated comes again, late: that is activity.
    is_whole = then.energy_until(old["edition"]) == int(_energy(old))
    differences = split(
        _stated(old),
        grams(energies[0], old_bases) if is_whole else _stated(old),
        grams(energies[1], old_bases),
        grams(energies[1], factor_bases),
        grams(energies[2], new_bases),
    )
    market = None
    if "market" in old:
        spans = {site: spans_of(bases, begin) for site, bases in bases_of_then.items()}
        parts = [energy_of(each.items()) for each in energies]
        market = market_differences(old, tree, parts, spans, catalog, seconds, is_whole=is_whole)
    return {
        "number": before.number,
        "sha256": before.sha256,
        "energy_microjoules": {"before": _energy(old), "after": _energy(tree)},
        "differences": [_difference_tree(each) for each in differences],
        # None: the statement before was of the first form, which had none.
        "market": market,
    }


def _cells(part: Sums, edition: int) -> dict[tuple[str, int, bool], int]:
    """Energy by site, interval and whether it is recorded, of editions up to one."""
    cells: dict[tuple[str, int, bool], int] = {}
    for (site, start, _, _, recorded, own), (energy, _) in part.cells.items():
        if own <= edition:
            cells[site, start, recorded] = cells.get((site, start, recorded), 0) + energy
    return cells


def _bases_of_then(old: Tree, catalog: FactorCatalog) -> dict[str, list[tuple[SiteBasis, int]]]:
    """The bases of the sites as the old statement has them, with the factors that are known now."""
    rows = [SiteRow(**row) for site in old["sites"] for row in site["rows"]]
    finder = BasisFinder(rows, catalog)
    begin, end = old["period"]["from_seconds"], old["period"]["to_seconds"]
    return {site["site"]: finder.split(site["site"], begin, end) for site in old["sites"]}


def _stated(tree: Tree) -> Grams:
    return {
        (emission["kind"], total["recorded"]): Fraction(emission["grams"]["exact"])
        for total in tree["totals"]["all"]
        for emission in total["emissions"]
    }


def _energy(tree: Tree) -> str:
    return str(sum(int(total["energy_microjoules"]) for total in tree["totals"]["all"]))


def _difference_tree(difference: Difference) -> Tree:
    whole = difference.after - difference.before
    return {
        "kind": difference.kind,
        "recorded": difference.recorded,
        "before": grams_tree(difference.before),
        "after": grams_tree(difference.after),
        "difference": grams_tree(whole),
        "causes": {cause: grams_tree(difference.parts[cause]) for cause in CAUSES},
    }
