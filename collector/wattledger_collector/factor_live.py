"""The factors as a running collector knows them: what it began with, and what the ledger has recorded since, by whomever.

Records nothing. Source of truth: the ledger's rows; their revision says when to read on.
"""

import threading
from collections.abc import Sequence

from wattledger_collector.accounting import BasisFinder, SiteBasis
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_store import StoredFactors
from wattledger_collector.factors import Factor, FactorKind
from wattledger_collector.store import SqliteStore

# An import or another collector's refresh is seen after this long; asking costs one row.
RENEWAL_SECONDS = 10.0

# A week of quarters; a year of them would be 10 MB of an answer to a page.
HOURLY_FACTORS_MAX = 672


class LiveFinder(BasisFinder):
    """A finder that can be given another one to ask; who holds it sees the new factors at the next question."""

    def __init__(self, finder: BasisFinder) -> None:
        super().__init__((), FactorCatalog(()))
        self._current = finder

    def replace(self, finder: BasisFinder) -> None:
        """Ask this one from now on. One reference is set, so that no question sees half of each."""
        self._current = finder

    def find(self, site: str, at_seconds: int) -> SiteBasis:
        """The basis at an instant."""
        return self._current.find(site, at_seconds)


class LiveFactors:
    """Catalog and finder that follow the ledger. `renew` every RENEWAL_SECONDS."""

    def __init__(self, store: SqliteStore, catalog: FactorCatalog) -> None:
        """catalog: of files and bundled tables. Raises StoreError."""
        self._store = store
        self._base = catalog
        # Two may ask at once: the service, and a source that has just recorded.
        self._lock = threading.Lock()
        self._stored = StoredFactors(store)
        self._stored.renew()
        self.catalog = catalog.with_recorded(self._stored.rows)
        self.finder = LiveFinder(BasisFinder(store.sites(), self.catalog))

    def renew(self) -> bool:
        """Read on, if there is something new; whether there was. StoreError."""
        with self._lock:
            if not self._stored.renew():
                return False
            self.catalog = self._base.with_recorded(self._stored.rows)
            self.finder.replace(BasisFinder(self._store.sites(), self.catalog))
            return True

    def factors(self, zone: str) -> Sequence[Factor]:
        """Factors of a zone: of months and years all, of each series of hours the newest. Raises UnknownZoneError."""
        return newest_factors(self.catalog.factors(zone))


def newest_factors(factors: Sequence[Factor], hourly_max: int = HOURLY_FACTORS_MAX) -> list[Factor]:
    """All factors of months and years, and of each series of hours the newest ones, in the order given."""
    left: dict[tuple[str, FactorKind], int] = {}
    kept = []
    for factor in sorted(factors, key=lambda factor: -factor.valid_from_seconds):
        if not factor.is_long:
            key = (factor.source, factor.kind)
            left[key] = left.get(key, hourly_max) - 1
            if left[key] < 0:
                continue
        kept.append(factor)
    shown = set(map(id, kept))
    return [factor for factor in factors if id(factor) in shown]
