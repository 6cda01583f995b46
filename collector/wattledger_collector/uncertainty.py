"""How far a total may be off: sensors, factors and gaps, with what they share counted as shared.

Values in, half-widths of 95 % intervals out. Source of truth: IPCC 2006 Guidelines, volume 1, chapter 3, equations 3.1 and
3.2, as in the GHG Protocol's uncertainty tool; they hold for independent terms. Everything under one factor is off by the
same share of it, so such terms are added before they are squared: a thousand servers do not make a grid factor better.
Ratios and results are floats: an uncertainty of an uncertainty has no use for more digits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import fsum, sqrt


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a total.

    grams: signed. sensor, factor: what is off by a common share; equal names are fully correlated, others independent.
    sensor_lower_ratio, sensor_upper_ratio, factor_ratio: half-widths of 95 % relative to the value; >= 0.
    """

    grams: float
    sensor: str
    sensor_lower_ratio: float
    sensor_upper_ratio: float
    factor: str
    factor_ratio: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Energy that may be missing, as grams: the truth is the total plus something in [lower, upper]."""

    lower_grams: Fraction
    upper_grams: Fraction


@dataclass(frozen=True, slots=True)
class Interval:
    """A total with its 95 % interval: [grams - lower, grams + upper]; grams exact, half-widths >= 0."""

    grams: Fraction
    lower_grams: float
    upper_grams: float

    @property
    def lower_ratio(self) -> float | None:
        """The lower half-width relative to the total; None for a total of 0."""
        return self.lower_grams / abs(float(self.grams)) if self.grams else None

    @property
    def upper_ratio(self) -> float | None:
        """The upper half-width relative to the total; None for a total of 0."""
        return self.upper_grams / abs(float(self.grams)) if self.grams else None


def combine(grams: Fraction, terms: Iterable[Term], gaps: Iterable[Gap] = ()) -> Interval:
    """The interval of a sum; grams: the sum itself, which is exact, where terms are not.

    Gaps are bounds and no distribution: they are added whole to the half-widths, never in squares.
    """
    lower: dict[str, list[float]] = {}
    upper: dict[str, list[float]] = {}
    factors: dict[str, list[float]] = {}
    for term in terms:
        lower.setdefault(term.sensor, []).append(term.grams * term.sensor_lower_ratio)
        upper.setdefault(term.sensor, []).append(term.grams * term.sensor_upper_ratio)
        factors.setdefault(term.factor, []).append(term.grams * term.factor_ratio)
    of_factors = _squares(factors)
    missing_below, missing_above = 0.0, 0.0
    for gap in gaps:
        missing_below -= min(0.0, float(gap.lower_grams))
        missing_above += max(0.0, float(gap.upper_grams))
    return Interval(
        grams, sqrt(_squares(lower) + of_factors) + missing_below, sqrt(_squares(upper) + of_factors) + missing_above
    )


def _squares(groups: dict[str, list[float]]) -> float:
    """The variance of independent groups, each of fully correlated terms."""
    return fsum(fsum(terms) ** 2 for terms in groups.values())
