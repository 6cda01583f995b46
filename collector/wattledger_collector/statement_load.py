"""The load of a statement's market-based figure: energy of its cells by site, market, time and grid factor, exact.

Values in, exact values out; no clock, no database. Sources of truth: `market.py` for what load is, the statement's own bases
and tenures for what held when. A restatement reckons with those of the statement before, too, so that they are read from
either.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from wattledger_collector.accounting import SiteBasis
from wattledger_collector.certificates import SECONDS_PER_HOUR
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Gwp, Signal
from wattledger_collector.market import Load
from wattledger_collector.residual_mixes import Mixes
from wattledger_collector.statement_values import Tree

# (site, beginning of the interval): microjoules of IT energy.
Energy = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Span:
    """What turns a site's IT energy into load in [from_seconds, to_seconds); pue, grams_per_kwh, kind None: unknown."""

    from_seconds: int
    to_seconds: int
    zone: str | None
    pue: Fraction | None
    grams_per_kwh: Fraction | None
    kind: FactorKind | None


@dataclass(frozen=True, slots=True)
class Tenure:
    """How a site is had in [from_seconds, to_seconds). it, overhead: what of each is in scope 2, 0 or 1."""

    site: str
    from_seconds: int
    to_seconds: int
    market: str
    it: int
    overhead: int
    situation: str
    evidence: str


def spans_of(bases: Iterable[tuple[SiteBasis, int]], from_seconds: int) -> list[Span]:
    """The spans of a site's bases, each of which holds for so many seconds."""
    spans = []
    for basis, seconds in bases:
        pue = None if basis.pue is None else Fraction(basis.pue)
        grams = None if basis.factor is None else Fraction(basis.factor.value)
        kind = None if basis.factor is None else basis.factor.kind
        spans.append(Span(from_seconds, from_seconds + seconds, basis.zone, pue, grams, kind))
        from_seconds += seconds
    return spans


def spans_of_tree(site: Tree) -> list[Span]:
    """The spans of a site of a statement."""
    return [
        Span(
            base["from_seconds"],
            base["to_seconds"],
            base["zone"],
            None if base["pue"] is None else Fraction(base["pue"]),
            None if base["grams_per_kwh"] is None else Fraction(base["grams_per_kwh"]),
            None if base["kind"] is None else _KINDS[base["kind"]],
        )
        for base in site["bases"]
    ]


# A statement names types in words, also of factors that no energy met.
_KINDS = {str(kind): kind for kind in (FactorKind(*each) for each in product(Signal, Boundary, Gas, Basis, Gwp))}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the period in which nothing of a site changes."""

    from_seconds: int
    to_seconds: int
    span: Span
    tenure: Tenure


def loads_of(
    energy: Energy,
    spans: Mapping[str, Sequence[Span]],
    tenures: Mapping[str, Sequence[Tenure]],
    mixes: Mixes,
    interval_seconds: int,
    *,
    is_hourly: bool,
) -> Iterator[Load]:
    """The load of all cells. spans, tenures: of each site, without holes over the period. is_hourly: keep hours apart.

    A site that they lack was not known at that time: its energy has no figure yet.
    """
    sums: dict[tuple[str, int, int], int] = {}
    pieces = {site: _pieces(spans[site], tenures[site], mixes) for site in {site for site, _ in energy} & spans.keys()}
    for (site, start), microjoules in energy.items():
        own = pieces.get(site)
        if own is None:
            continue
        place = bisect_right(own, start, key=lambda piece: piece.from_seconds) - 1
        begin, end = start, start + interval_seconds
        while begin < end:
            hour = begin - begin % SECONDS_PER_HOUR if is_hourly else 0
            until = min(end, own[place].to_seconds, hour + SECONDS_PER_HOUR if is_hourly else end)
            key = (site, place, hour)
            sums[key] = sums.get(key, 0) + microjoules * (until - begin)
            begin = until
            place += until == own[place].to_seconds
    for (site, place, hour), total in sorted(sums.items()):
        piece = pieces[site][place]
        yield from _loads(site, piece, max(piece.from_seconds, hour), Fraction(total, interval_seconds))


def _pieces(spans: Sequence[Span], tenures: Sequence[Tenure], mixes: Mixes) -> list[_Piece]:
    pieces = []
    for tenure in tenures:
        for span in spans:
            begin, end = max(span.from_seconds, tenure.from_seconds), min(span.to_seconds, tenure.to_seconds)
            while begin < end:
                until = min(end, mixes.at(tenure.market, begin).to_seconds)
                pieces.append(_Piece(begin, until, span, tenure))
                begin = until
    return sorted(pieces, key=lambda piece: piece.from_seconds)


def _loads(site: str, piece: _Piece, at_seconds: int, energy: Fraction) -> Iterator[Load]:
    span, tenure = piece.span, piece.tenure
    if span.pue is None:
        yield Load(site, "", 0, energy, None, None)
        return
    inside = tenure.it + (span.pue - 1) * tenure.overhead
    if inside:
        yield Load(site, tenure.market, at_seconds, energy * inside, span.grams_per_kwh, span.kind)
    if inside != span.pue:
        rest = energy * (span.pue - inside)
        yield Load(site, tenure.market, at_seconds, rest, span.grams_per_kwh, span.kind, is_outside=True)


def energy_of(cells: Iterable[tuple[tuple[Any, ...], int]]) -> dict[tuple[str, int], int]:
    """Energy by site and interval. cells: keys that begin with both, and microjoules."""
    sums: dict[tuple[str, int], int] = {}
    for (site, start, *_), microjoules in cells:
        sums[site, start] = sums.get((site, start), 0) + microjoules
    return sums
