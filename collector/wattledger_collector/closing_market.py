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
from wattledger_collector.statement_load import Energy, loads_of, spans_of
from wattledger_collector.statement_market import Identity, MarketFacts, UsedBefore, mixes_of, tenures_of, used_of_tree
from wattledger_collector.statement_store import statement_headers
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
