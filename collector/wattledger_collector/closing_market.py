"""Reckons the market-based section of a statement: from the cells that were frozen and what the organisation declares.

Reads statements and nothing else of the ledger; `market.py` reckons, `statement_market.py` writes down. Source of truth: the
declaration as it is at the closing, and the statements that stand.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from wattledger_collector.accounting import SiteBasis
from wattledger_collector.certificates import Certificate
from wattledger_collector.declared_files import Declaration
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.market import Instruments, reckon, used_by_others
from wattledger_collector.market_load import Tenures
from wattledger_collector.residual_mixes import Mixes
from wattledger_collector.restating_market import State, grams_of_state, split_market, stated_grams
from wattledger_collector.statement_load import Energy, Span, loads_of, spans_of, spans_of_tree
from wattledger_collector.statement_market import (
    Identity,
    MarketFacts,
    UsedBefore,
    instruments_of_tree,
    mixes_of,
    tenures_of,
    tenures_of_tree,
    used_before_of_tree,
    used_of_tree,
)
from wattledger_collector.statement_store import statement_headers
from wattledger_collector.statement_values import Tree
from wattledger_collector.store import SqliteStore

Bases = Mapping[str, Sequence[tuple[SiteBasis, int]]]


def used_before(store: SqliteStore, from_seconds: int, to_seconds: int, site: str | None) -> UsedBefore:
    """What statements that stand used of certificates; those of the same energy, whose place is taken, took nothing."""
    statements = [(stored.number, stored.tree) for stored in statement_headers(store)]
    replaced = {tree["replaces"]["number"] for _, tree in statements if tree["replaces"]}
    standing = [(number, used_of_tree(tree)) for number, tree in statements if number not in replaced]
    sums: dict[Certificate, Fraction] = {}
    by: dict[Identity, list[int]] = {}
    for number, used in standing:
        for certificate, microjoules in used_by_others([used], from_seconds, to_seconds, site).items():
            sums[certificate] = sums.get(certificate, Fraction(0)) + microjoules
            by.setdefault(certificate.identity, []).append(number)
    return UsedBefore(sums, by, max((number for number, _ in statements), default=0))


def market_facts(
    declaration: Declaration | None,
    catalog: FactorCatalog,
    energy: Energy,
    bases: Bases,
    before: UsedBefore,
    *,
    from_seconds: int,
    to_seconds: int,
    interval_seconds: int,
) -> MarketFacts:
    """The section of a period. energy: IT energy by site and interval; bases: of each site. Raises InventoryError."""
    instruments = Instruments() if declaration is None else declaration.instruments
    declared = Tenures(None if declaration is None else declaration.declared)
    mixes = Mixes(instruments.mixes, catalog)
    spans = {site: spans_of(own, from_seconds) for site, own in bases.items()}
    tenures = {site: tenures_of(site, own, declared) for site, own in spans.items()}
    loads = loads_of(energy, spans, tenures, mixes, interval_seconds, is_hourly=instruments.is_hourly)
    market = reckon(loads, instruments, mixes, from_seconds=from_seconds, to_seconds=to_seconds, used=before.microjoules)
    markets = {tenure.market for own in tenures.values() for tenure in own}
    return MarketFacts(
        market,
        () if declaration is None else declaration.files,
        tenures,
        mixes_of(markets, mixes, from_seconds, to_seconds),
        before,
    )


def market_differences(
    old: Tree,
    new: Tree,
    energies: Sequence[Energy],
    factor_spans: Mapping[str, Sequence[Span]],
    catalog: FactorCatalog,
    interval_seconds: int,
    *,
    is_whole: bool,
) -> list[Tree]:
    """What the market-based total differs by from the statement before, by cause.

    energies: what was stated then; with what came later; as assignments have it now. factor_spans: sites as they were then,
    with the factors that are known now. is_whole: the ledger has all that was stated then; else it comes again as activity.
    """
    begin, end = old["period"]["from_seconds"], old["period"]["to_seconds"]
    stated, known, assigned = energies
    new_spans = {site["site"]: spans_of_tree(site) for site in new["sites"]}
    new_tenures = tenures_of_tree(new)
    # Sites that the old statement does not have are as they are now.
    old_spans = {**new_spans, **{site["site"]: spans_of_tree(site) for site in old["sites"]}}
    tenures = {**new_tenures, **tenures_of_tree(old)}
    instruments, used = instruments_of_tree(old), used_before_of_tree(old)
    published = {(row["market"], row["from_seconds"]) for row in old["market"]["mixes"] if row["factor"] is not None}
    declared = [mix for mix in instruments.mixes if (mix.market, mix.from_seconds) not in published]
    mixes, mixes_now = Mixes(instruments.mixes), Mixes(declared, catalog)
    states = (
        State(stated, old_spans, tenures, mixes, instruments, used),
        State(known, old_spans, tenures, mixes, instruments, used),
        State(known, {**new_spans, **factor_spans}, tenures, mixes_now, instruments, used),
        State(assigned, new_spans, new_tenures, mixes_now, instruments, used),
    )
    steps = [grams_of_state(state, begin, end, interval_seconds) for state in states]
    if not is_whole:
        steps[0] = stated_grams(old)
    return split_market(stated_grams(old), [*steps, stated_grams(new)])
