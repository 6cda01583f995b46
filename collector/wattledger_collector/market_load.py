"""Adds up booked energy as the load of the market-based figure: whole sites, by site, market, time and grid factor.

Values in, exact values out; no clock, no database. Sources of truth: `accounting.py` for the bases of a site's energy,
`declared.py` for how sites are had, `market.py` for what load is. Rows may be sums of pieces (`pieces.py`) that end at the
edges that `LoadSums.edges` gives.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from wattledger_collector.accounting import BasisFinder, SiteBasis
from wattledger_collector.certificates import SECONDS_PER_HOUR, Certificate
from wattledger_collector.declared import Declared, Holding
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.inventory import Asset, Scope, Stream
from wattledger_collector.market import Instruments, Load, MarketBased, reckon
from wattledger_collector.records import RollupRow
from wattledger_collector.residual_mixes import Mixes

# What of a site's IT energy and of its overhead is in scope 2 where nothing is declared: all.
_ALL = (Fraction(1), Fraction(1))


class Tenures:
    """How sites are had in time; without a declaration all electricity is scope 2, in the market that is the zone."""

    def __init__(self, declared: Declared | None) -> None:
        self._declared = declared
        self._held: dict[str, list[tuple[Asset, Holding]]] = {}
        for holding in () if declared is None else declared.holding:
            self._held.setdefault(holding.site, []).append((holding.asset, holding))

    def at(self, site: str, seconds: int) -> Holding | None:
        """The holding of a site at an instant; None if there is none."""
        for asset, holding in self._held.get(site, ()):
            if asset.from_seconds <= seconds < asset.to_seconds:
                return holding
        return None

    def edges(self) -> set[int]:
        """The instants at which some site is had otherwise."""
        return {edge for held in self._held.values() for asset, _ in held for edge in (asset.from_seconds, asset.to_seconds)}

    def market(self, holding: Holding | None, zone: str | None) -> str:
        """The electricity market; empty if it is unknown."""
        return (holding.market if holding is not None else "") or zone or ""

    def markets(self) -> set[str]:
        """All that are named."""
        return {holding.market for held in self._held.values() for _, holding in held if holding.market}

    def shares(self, holding: Holding | None) -> tuple[Fraction, Fraction]:
        """How much of IT energy and of overhead is in scope 2, each 0 or 1."""
        if holding is None or self._declared is None:
            return _ALL
        asset, approach = holding.asset, self._declared.approach
        it, overhead = (
            Fraction(asset.scope(approach, stream) is Scope.TWO)
            for stream in (Stream.IT_ELECTRICITY, Stream.OVERHEAD_ELECTRICITY)
        )
        return it, overhead


@dataclass(frozen=True, slots=True)
class _Span:
    """A part of an interval in which nothing changes, and where its energy is summed."""

    key: tuple[str, int, int]
    basis: SiteBasis
    holding: Holding | None
    seconds: int


class LoadSums:
    """Sums of load in whole numbers, from rows of energy; exact."""

    def __init__(
        self, finder: BasisFinder, tenures: Tenures, mixes: Mixes, interval_seconds: int, *, is_hourly: bool
    ) -> None:
        """interval_seconds: of the ledger. is_hourly: keep hours apart."""
        self._finder, self._tenures, self._mixes = finder, tenures, mixes
        self._interval_seconds, self._is_hourly = interval_seconds, is_hourly
        # By site, beginning of the time in which nothing changes, and hour: microjoules x seconds.
        self._sums: dict[tuple[str, int, int], int] = {}
        self._edges = sorted(tenures.edges())
        self._spans: dict[tuple[str, int, int], _Span] = {}
        self._where: tuple[str, int] | None = None
        self._parts: list[_Span] = []
        # IT energy of sites whose PUE is unknown, microjoules x seconds.
        self._unknown: dict[str, int] = {}

    def edges(self, from_seconds: int, to_seconds: int, zones: Iterable[str]) -> set[int]:
        """The instants of a period at which load changes its market, mix or hour; zones: of all sites."""
        edges = {edge for edge in self._edges if from_seconds < edge < to_seconds}
        edges |= self._mixes.edges(self._tenures.markets().union(zones), from_seconds, to_seconds)
        if self._is_hourly:
            edges.update(range(from_seconds - from_seconds % SECONDS_PER_HOUR, to_seconds, SECONDS_PER_HOUR))
        return edges

    def noting(self, rows: Iterable[RollupRow]) -> Iterator[RollupRow]:
        """The rows as they are, while each is added."""
        for row in rows:
            self.add(row)
            yield row

    def add(self, row: RollupRow) -> None:
        """Add a row; those of one site and beginning come together."""
        where = (row.site, row.interval_start_seconds)
        if where != self._where:
            self._where, self._parts = where, list(self._cut(*where))
        for span in self._parts:
            if span.basis.pue is None:
                self._unknown[row.site] = self._unknown.get(row.site, 0) + row.energy_microjoules * span.seconds
                continue
            self._sums[span.key] = self._sums.get(span.key, 0) + row.energy_microjoules * span.seconds

    def _cut(self, site: str, begin: int) -> Iterator[_Span]:
        """An interval in spans in which site, basis, holding, mix and hour stay."""
        for basis, seconds in self._finder.split(site, begin, begin + self._interval_seconds):
            end = begin + seconds
            while begin < end:
                holding = self._tenures.at(site, begin)
                mix = self._mixes.at(self._tenures.market(holding, basis.zone), begin)
                hour = begin - begin % SECONDS_PER_HOUR
                until = min(end, mix.to_seconds, next((edge for edge in self._edges if edge > begin), end))
                if self._is_hourly:
                    until = min(until, hour + SECONDS_PER_HOUR)
                asset = None if holding is None else holding.asset
                since = max(basis.from_seconds, mix.from_seconds, *(() if asset is None else (asset.from_seconds,)))
                key = (site, since, hour if self._is_hourly else 0)
                span = _Span(key, basis, holding, until - begin)
                self._spans.setdefault(key, span)
                yield span
                begin = until

    def loads(self) -> Iterator[Load]:
        """The load, what is outside of scope 2 apart; of sites whose PUE is unknown their IT energy, without a rate."""
        for site, total in self._unknown.items():
            yield Load(site, "", 0, Fraction(total, self._interval_seconds), None, None)
        for (site, since, hour), total in self._sums.items():
            span = self._spans[site, since, hour]
            basis = span.basis
            assert basis.pue is not None  # What has none is not summed.
            energy, pue = Fraction(total, self._interval_seconds), Fraction(basis.pue)
            it, overhead = self._tenures.shares(span.holding)
            inside = it + (pue - 1) * overhead
            factor, market = basis.factor, self._tenures.market(span.holding, basis.zone)
            rate = None if factor is None else Fraction(factor.value)
            kind = None if factor is None else factor.kind
            at = max(since, hour)
            if inside:
                yield Load(site, market, at, energy * inside, rate, kind)
            if inside != pue:
                yield Load(site, market, at, energy * (pue - inside), rate, kind, is_outside=True)


class MarketReckoning:
    """Makes the market-based figure of a period while its rows are read for something else."""

    def __init__(
        self,
        declared: Declared | None,
        instruments: Instruments,
        finder: BasisFinder,
        catalog: FactorCatalog | None,
        interval_seconds: int,
    ) -> None:
        """declared: how sites are had; None: all electricity is scope 2. catalog: where residual mixes are looked up."""
        self._instruments, self._mixes = instruments, Mixes(instruments.mixes, catalog)
        self.sums = LoadSums(finder, Tenures(declared), self._mixes, interval_seconds, is_hourly=instruments.is_hourly)

    def edges(self, from_seconds: int, to_seconds: int, zones: Iterable[str]) -> set[int]:
        """Where pieces have to end, so that their sums can be noted. zones: of all sites."""
        return self.sums.edges(from_seconds, to_seconds, zones)

    def reckon(self, from_seconds: int, to_seconds: int, used: Mapping[Certificate, Fraction] | None = None) -> MarketBased:
        """The figure of the rows that were noted. used: what claims for other periods have taken of certificates."""
        return reckon(
            self.sums.loads(),
            self._instruments,
            self._mixes,
            from_seconds=from_seconds,
            to_seconds=to_seconds,
            used=used,
        )
