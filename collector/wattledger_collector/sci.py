"""The Software Carbon Intensity score: operational and embodied emissions for each unit of useful work.

Values in, an exact score out; no clock, no rounding. Source of truth: SCI specification 1.1 (ISO/IEC 21031),
SCI = ((E x I) + M) per R. The standard counts emissions, never claims: certificates, contracts and offsets have no place in
it, so that I is always the location-based intensity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from wattledger_collector.factors import Basis, FactorKind, Signal


class SciError(ValueError):
    """A score can't be reckoned; the text says which value forbids it."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score with what it was made of.

    energy_kwh: E >= 0. intensity_grams_per_kwh: I >= 0, energy weighted. kind: the type of I. embodied_grams: M >= 0.
    work: R > 0, in `unit`.
    """

    energy_kwh: Fraction
    intensity_grams_per_kwh: Fraction
    kind: FactorKind
    embodied_grams: Fraction
    work: Fraction
    unit: str

    def __post_init__(self) -> None:
        if self.work <= 0:
            # Some tools return the emissions themselves then; a rate of nothing is no number.
            raise SciError(f"no score: the work counter stands at {self.work} {self.unit}, and nothing can be divided by it")
        for name, value in (("energy", self.energy_kwh), ("embodied emissions", self.embodied_grams)):
            if value < 0:
                raise SciError(f"no score: the {name} are {value}, below 0")
        if self.kind.basis in (Basis.RESIDUAL, Basis.SUPPLIER):
            raise SciError(f"no score: {self.kind} is a market-based factor, which the standard forbids")

    @property
    def operational_grams(self) -> Fraction:
        """O = E x I."""
        return self.energy_kwh * self.intensity_grams_per_kwh

    @property
    def grams_per_unit(self) -> Fraction:
        """The score: grams for each unit of work."""
        return (self.operational_grams + self.embodied_grams) / self.work

    @property
    def is_marginal(self) -> bool:
        """Whether I is a marginal intensity, which the standard allows and a report has to say."""
        return self.kind.signal is not Signal.AVERAGE


def total(parts: Sequence[Score]) -> Fraction:
    """The score of a whole from its components: they add up only where unit, amount of work and type of I are the same."""
    first = parts[0] if parts else None
    if first is None:
        raise SciError("no score: there are no components")
    for part in parts[1:]:
        if (part.work, part.unit, part.kind) != (first.work, first.unit, first.kind):
            raise SciError(
                f"no score: components for {first.work} {first.unit} ({first.kind}) and for {part.work} {part.unit} "
                f"({part.kind}) can't be added"
            )
    return sum((part.grams_per_unit for part in parts), Fraction(0))
