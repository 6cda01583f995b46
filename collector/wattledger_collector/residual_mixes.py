"""Residual mixes: what electricity counts, market based, that no certificate covers; and what the grams of a rate count.

Values in, exact values out; no clock, no file. Sources of truth: the GHG Protocol Scope 2 Guidance (2015); a declared mix
stands before that of a factor table, whose rows with basis residual serve here alone and never location based.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Factor, FactorKind, Gas

ALWAYS_FROM_SECONDS, ALWAYS_TO_SECONDS = -(2**62), 2**62


@dataclass(frozen=True, slots=True, order=True)
class Counted:
    """What grams are grams of, in the words of factors; each is empty where it is not stated."""

    boundary: str = ""
    gas: str = ""
    gwp: str = ""

    def __str__(self) -> str:
        gas = f"{self.gas} ({self.gwp})" if self.gwp else self.gas
        return " ".join(filter(None, (self.boundary, gas))) or "of a type that is not stated"

    def beside(self, other: "Counted | None") -> "Counted":
        """The same, with what is not stated taken from another."""
        if other is None or (self.boundary and self.gas):
            return self
        gas = self.gas or other.gas
        gwp = "" if gas == Gas.CO2 else self.gwp or (other.gwp if gas == other.gas else "")
        return Counted(self.boundary or other.boundary, gas, gwp)


def counted(kind: FactorKind) -> Counted:
    """What the grams of a factor count; its basis and signal are no part of it."""
    return Counted(kind.boundary, kind.gas, kind.gwp)


@dataclass(frozen=True, slots=True)
class DeclaredMix:
    """A residual mix as an organisation declares it, for a half-open time; seconds since 1970-01-01 UTC."""

    market: str
    grams_per_kwh: Decimal
    evidence: str
    from_seconds: int = ALWAYS_FROM_SECONDS
    to_seconds: int = ALWAYS_TO_SECONDS
    counted: Counted = Counted()


@dataclass(frozen=True, slots=True)
class Mix:
    """The residual mix of a market in [from_seconds, to_seconds), or why there is none.

    grams_per_kwh None: the grid average stands in. factor: the row of a factor table; None if declared. provisional: the
    table's row is of an earlier time. source, evidence: who says so, and where.
    """

    market: str
    grams_per_kwh: Decimal | None
    counted: Counted
    source: str
    evidence: str
    from_seconds: int
    to_seconds: int
    factor: Factor | None = None
    provisional: bool = False
    missing: str = ""


class Mixes:
    """The residual mixes of all markets: declared ones, and where none is declared those of the factor tables."""

    def __init__(self, declared: Iterable[DeclaredMix] = (), catalog: FactorCatalog | None = None) -> None:
        """declared: those of a market don't overlap. catalog: None where factor tables are not to be asked."""
        self._catalog = catalog
        self._declared: dict[str, list[DeclaredMix]] = {}
        for row in sorted(declared, key=lambda row: row.from_seconds):
            self._declared.setdefault(row.market, []).append(row)
        self._latest: dict[str, Mix] = {}

    def at(self, market: str, seconds: int) -> Mix:
        """The mix that holds at an instant; fast while times ascend."""
        latest = self._latest.get(market)
        if latest is None or not latest.from_seconds <= seconds < latest.to_seconds:
            latest = self._latest[market] = self._find(market, seconds)
        return latest

    def edges(self, markets: Iterable[str], from_seconds: int, to_seconds: int) -> set[int]:
        """The instants within a period at which some market has another mix."""
        edges: set[int] = set()
        for market in markets:
            end = self.at(market, from_seconds).to_seconds
            while end < to_seconds:
                edges.add(end)
                end = self.at(market, end).to_seconds
        return edges

    def _find(self, market: str, seconds: int) -> Mix:
        begin, end = ALWAYS_FROM_SECONDS, ALWAYS_TO_SECONDS
        for row in self._declared.get(market, ()):
            if row.from_seconds <= seconds < row.to_seconds:
                span = (row.from_seconds, row.to_seconds)
                return Mix(market, row.grams_per_kwh, row.counted, "declared", row.evidence, *span)
            if row.to_seconds <= seconds:
                begin = max(begin, row.to_seconds)
            else:
                end = min(end, row.from_seconds)
        if self._catalog is None:
            return Mix(market, None, Counted(), "", "", begin, end, missing=f"no residual mix of {market} is declared")
        choice = self._catalog.residual_at(market, seconds)
        span = (max(begin, choice.from_seconds), end if choice.to_seconds is None else min(end, choice.to_seconds))
        factor = choice.factor
        if factor is None:
            return Mix(market, None, Counted(), "", "", *span, missing=choice.missing)
        told = (factor.source, factor.document)
        return Mix(market, factor.value, counted(factor.kind), *told, *span, factor, choice.provisional)
