"""What a kWh of a site counts as in the emission counters, interval by interval, fixed when its first energy comes.

No clock, no database, no sums of energy. An interval has one basis: a factor for the location-based figure, one for the
market-based one, a PUE, and the scopes of IT electricity and of overhead. Sources of truth: the store's emission bases; for
what is used first the site's rows, the factor catalog and what the organisation declares; GHG Protocol Scope 2 Guidance.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from wattledger_collector.accounting import BasisFinder, SiteBasis
from wattledger_collector.factors import Factor, FactorKind, kind_of_id
from wattledger_collector.inventory import Scope
from wattledger_collector.records import MICROJOULES_PER_KWH, EmissionBasis

# Of a site that a declaration does not name: its electricity is in no scope of the inventory.
SCOPE_UNDECLARED: Final = "undeclared"

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ResidualMix:
    """What electricity without a certificate counts as in a market. factor: its id, as of a factor row."""

    grams_per_kwh: Decimal
    factor: str


@dataclass(frozen=True, slots=True)
class Terms:
    """How a site's electricity is had: the scopes of IT and of overhead, and its market's residual mix.

    residual None: the market has none, so that the grid's factor stands in.
    """

    scope: str
    overhead_scope: str
    residual: ResidualMix | None


class SiteTerms(Protocol):
    """What an organisation says of its sites."""

    def at(self, site: str, zone: str, at_seconds: int, beside: FactorKind) -> Terms:
        """How a site in a grid zone is had at an instant. beside: what the grid's factor there counts."""


class PlainTerms:
    """Nothing is declared: all electricity is bought, and the grid's factor stands in for a residual mix."""

    def at(self, site: str, zone: str, at_seconds: int, beside: FactorKind) -> Terms:
        """The same for all."""
        return Terms(Scope.TWO, Scope.TWO, None)


class Share(NamedTuple):
    """A part of what energy counts as: grams = microjoules x numerator / denominator."""

    is_market: bool
    scope: str
    kind: FactorKind
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class Multiplier:
    """What one kWh of a site counts as. Numbers are texts, as in EmissionBasis, and so is what is empty."""

    factor: str
    grams_per_kwh: str
    pue: str
    market_factor: str
    market_grams_per_kwh: str
    scope: str
    overhead_scope: str
    tier: str

    @classmethod
    def of(cls, basis: EmissionBasis) -> "Multiplier":
        """That of a row."""
        return cls(
            basis.factor,
            basis.factor_grams_per_kwh,
            basis.pue,
            basis.market_factor,
            basis.market_grams_per_kwh,
            basis.scope or Scope.TWO,
            basis.overhead_scope or Scope.TWO,
            basis.factor_tier,
        )

    def shares(self) -> list[Share]:
        """All parts. Only scope 2 is told by contracts: elsewhere the market-based figure is the location-based one."""
        grid = (kind_of_id(self.factor), Fraction(self.grams_per_kwh))
        market = grid
        if self.market_factor:
            market = (kind_of_id(self.market_factor), Fraction(self.market_grams_per_kwh))
        parts: dict[tuple[bool, str, FactorKind], Fraction] = {}
        for scope, amount in ((self.scope, Fraction(1)), (self.overhead_scope, Fraction(self.pue) - 1)):
            for is_market, (kind, grams) in ((False, grid), (True, market if scope == Scope.TWO else grid)):
                if amount:
                    key = (is_market, scope, kind)
                    parts[key] = parts.get(key, Fraction(0)) + grams * amount
        return [Share(*key, *(per_kwh / MICROJOULES_PER_KWH).as_integer_ratio()) for key, per_kwh in parts.items()]


@dataclass(slots=True)
class Run(Generic[_Value]):
    """Adjacent intervals with one value, half-open [from, to): a site that is always on is one run a year."""

    from_seconds: int
    to_seconds: int
    value: _Value


class Runs(Generic[_Value]):
    """A value for each interval of each site that has one."""

    def __init__(self) -> None:
        self._runs: dict[str, list[Run[_Value]]] = {}
        # Their beginnings: a search that asks each run for it takes ten times as long.
        self._begins: dict[str, list[int]] = {}

    def at(self, site: str, at_seconds: int) -> _Value | None:
        """The value of an interval; None if it has none."""
        begins = self._begins.get(site)
        if begins is None:
            return None
        run = self._runs[site][bisect_right(begins, at_seconds) - 1]
        return run.value if run.from_seconds <= at_seconds < run.to_seconds else None

    def put(self, site: str, from_seconds: int, to_seconds: int, value: _Value) -> None:
        """Give intervals that have none a value."""
        runs, begins = self._runs.setdefault(site, []), self._begins.setdefault(site, [])
        index = bisect_right(begins, from_seconds)
        if index > 0 and runs[index - 1].to_seconds == from_seconds and runs[index - 1].value == value:
            runs[index - 1].to_seconds = to_seconds
        else:
            runs.insert(index, Run(from_seconds, to_seconds, value))
            begins.insert(index, from_seconds)

    def by_site(self) -> Mapping[str, Sequence[Run[_Value]]]:
        """All runs of each site, in order of time."""
        return self._runs


class _Part(NamedTuple):
    """A part of an interval that has a factor."""

    factor: Factor
    pue: Decimal
    tier: str
    terms: Terms
    seconds: int

    @property
    def market(self) -> tuple[Decimal, str]:
        """What a kWh counts as market based, and by which factor."""
        mix = self.terms.residual
        return (self.factor.value, self.factor.id) if mix is None else (mix.grams_per_kwh, mix.factor)


def first_basis(
    finder: BasisFinder, site_terms: SiteTerms, site: str, from_seconds: int, interval_seconds: int
) -> EmissionBasis | None:
    """The basis of an interval as it is known now; None if no factor holds in it.

    Where several factors share the interval, each counts for its part of the time; what none covers, or one of another type
    than the first, counts for nothing. Scopes are those of its beginning: holdings change with days, and so with intervals.
    """
    parts = list(_parts(finder, site_terms, site, from_seconds, from_seconds + interval_seconds))
    if not parts:
        return None
    first = parts[0]
    grid = [part for part in parts if part.factor.kind == first.factor.kind]
    market_kind = kind_of_id(first.market[1])
    grams, pue = f"{first.factor.value:f}", f"{first.pue:f}"
    market_value, market_factor = first.market
    market_grams = f"{market_value:f}"
    if first.seconds < interval_seconds:
        total = _mean([(part.factor.value, part) for part in grid], interval_seconds)
        bare = sum((Fraction(part.factor.value) * part.seconds for part in grid), Fraction(0)) / interval_seconds
        ratio = total / bare if bare else _mean([(Decimal(1), part) for part in grid], sum(part.seconds for part in grid))
        told = [(part.market[0], part) for part in grid if kind_of_id(part.market[1]) == market_kind]
        grams = str(bare)
        # The grams of both figures are exact; of the overhead's part of the market-based one, if the PUE changes within the
        # interval, the ratio is that of the location-based one.
        pue = pue if ratio == Fraction(first.pue) else str(ratio)
        market_grams = str(_mean(told, interval_seconds) / ratio)
    is_stand_in = all(part.terms.residual is None for part in grid)
    return EmissionBasis(
        site,
        from_seconds,
        grams,
        first.factor.id,
        pue,
        "" if is_stand_in else market_grams,
        "" if is_stand_in else market_factor,
        str(first.terms.scope),
        str(first.terms.overhead_scope),
        str(max(part.tier for part in grid)),
    )


def _mean(values: Sequence[tuple[Decimal, _Part]], seconds: int) -> Fraction:
    """The mean of values x PUE over so many seconds."""
    products = (Fraction(value) * Fraction(part.pue) * part.seconds for value, part in values)
    return sum(products, Fraction(0)) / seconds


def _parts(finder: BasisFinder, site_terms: SiteTerms, site: str, from_seconds: int, to_seconds: int) -> Iterator[_Part]:
    at = from_seconds
    for basis, seconds in finder.split(site, from_seconds, to_seconds):
        if basis.factor is not None and basis.pue is not None:
            terms = site_terms.at(site, basis.zone or "", at, basis.factor.kind)
            yield _Part(basis.factor, basis.pue, basis.tier, terms, seconds)
        at += seconds


def first_factor(finder: BasisFinder, site: str, from_seconds: int, to_seconds: int) -> SiteBasis | None:
    """The first basis in a span that has a factor; None if none has."""
    parts = finder.split(site, from_seconds, to_seconds)
    return next((basis for basis, _ in parts if basis.factor is not None and basis.pue is not None), None)
