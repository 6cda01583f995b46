"""How sites are had, for the emission counters: scopes of the declared holdings, and the residual mix of their market.

No clock, no file. Sources of truth: the inventory file (`declared.py`), `residual_mixes.py` for which mix holds, the GHG
Protocol's Scope 2 Guidance. Certificates have no part in it: they are retired after the energy was used.
"""

from collections.abc import Callable

from wattledger_collector.declared import Declared, Holding
from wattledger_collector.emission_bases import SCOPE_UNDECLARED, ResidualMix, Terms
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Gwp, Signal, text_of_instant
from wattledger_collector.inventory import Scope, Stream
from wattledger_collector.residual_mixes import ALWAYS_FROM_SECONDS, Mix, Mixes, counted


class DeclaredTerms:
    """What is declared of all sites; an emission_bases.SiteTerms.

    declared None: all electricity is in scope 2, of the market that is its zone. catalog: asked for the factors as they are
    now, whose residual mixes stand where none is declared.
    """

    def __init__(self, declared: Declared | None, catalog: Callable[[], FactorCatalog]) -> None:
        self._declared = declared
        self._holdings = () if declared is None else declared.holding
        self._own_mixes = () if declared is None else tuple(residual.mix for residual in declared.residual)
        self._catalog = catalog
        self._known = catalog()
        self._mixes = Mixes(self._own_mixes, self._known)

    def at(self, site: str, zone: str, at_seconds: int, beside: FactorKind) -> Terms:
        """How a site in a grid zone is had at an instant. beside: what the grid's factor there counts."""
        if self._declared is None:
            return Terms(Scope.TWO, Scope.TWO, self._residual(zone, at_seconds, beside))
        holding = self._holding(site, at_seconds)
        if holding is None:
            return Terms(SCOPE_UNDECLARED, SCOPE_UNDECLARED, None)
        asset, approach = holding.asset, self._declared.approach
        return Terms(
            asset.scope(approach, Stream.IT_ELECTRICITY),
            asset.scope(approach, Stream.OVERHEAD_ELECTRICITY),
            self._residual(holding.market or zone, at_seconds, beside),
        )

    def _holding(self, site: str, at_seconds: int) -> Holding | None:
        for holding in self._holdings:
            if holding.site == site and holding.asset.from_seconds <= at_seconds < holding.asset.to_seconds:
                return holding
        return None

    def _residual(self, market: str, at_seconds: int, beside: FactorKind) -> ResidualMix | None:
        catalog = self._catalog()
        if catalog is not self._known:
            self._known, self._mixes = catalog, Mixes(self._own_mixes, catalog)
        mix = self._mixes.at(market, at_seconds)
        if mix.grams_per_kwh is None:
            return None
        return ResidualMix(mix.grams_per_kwh, _declared_id(mix, beside) if mix.factor is None else mix.factor.id)


def _declared_id(mix: Mix, beside: FactorKind) -> str:
    """An id like that of a factor row, which has parts between slashes; what it counts is that of the factor beside it."""
    told = mix.counted.beside(counted(beside))
    kind = FactorKind(Signal.AVERAGE, Boundary(told.boundary), Gas(told.gas), Basis.RESIDUAL, Gwp(told.gwp))
    begin = "always" if mix.from_seconds == ALWAYS_FROM_SECONDS else text_of_instant(mix.from_seconds)
    return f"{mix.market.replace('/', '_')}/{begin}/{kind.slug}/declared"
