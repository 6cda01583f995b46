"""Embodied emissions of hardware: spread over its service life for workloads, or booked whole in the year of purchase.

Values in, exact fractions out; no clock, no rounding. Sources of truth: the SCI specification (ISO/IEC 21031) for
M = TE x (TiR / EL) x (RR / ToR); for the inventory the GHG Protocol's scope 3 standard, category 2 (capital goods), which
counts the whole in the year in which the thing was bought. The two views are never added.

A year of service is 365 days here, as in the SCI's own examples; with 365.25 figures would be 0.07 % lower.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

SECONDS_PER_SERVICE_YEAR = 365 * 86_400


class EmbodiedError(ValueError):
    """Embodied emissions can't be reckoned from these values; the text says which one and why."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a machine is built of: `count` parts of one kind with this much CO2e each; grams >= 0, count >= 1."""

    name: str
    grams_each: Fraction
    count: int = 1

    def __post_init__(self) -> None:
        if self.grams_each < 0 or self.count < 1:
            raise EmbodiedError(f"part {self.name}: {self.count} x {self.grams_each} g is no amount")

    @property
    def grams(self) -> Fraction:
        """CO2e of all parts of this kind."""
        return self.grams_each * self.count


@dataclass(frozen=True, slots=True)
class Asset:
    """A machine with its embodied emissions, and when it is in service.

    grams: CO2e of making it (TE). from_seconds: start of service, seconds since 1970 UTC. service_seconds: its expected
    length (EL).
    extended_at_seconds, extended_to_seconds: a declared extension: what is left at the first is spread to the second.
    """

    asset: str
    grams: Fraction
    from_seconds: int
    service_seconds: int
    extended_at_seconds: int | None = None
    extended_to_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.grams < 0:
            raise EmbodiedError(f"asset {self.asset}: embodied emissions are at least 0, not {self.grams} g")
        if self.service_seconds <= 0:
            raise EmbodiedError(f"asset {self.asset}: a service life of {self.service_seconds} s is none")
        at, to = self.extended_at_seconds, self.extended_to_seconds
        if (at is None) != (to is None):
            raise EmbodiedError(f"asset {self.asset}: an extension needs both, when it was declared and to when")
        if at is not None and to is not None and not self.from_seconds <= at < self.ends_seconds < to:
            raise EmbodiedError(
                f"asset {self.asset}: an extension is declared during service and ends after it; "
                f"service is from {self.from_seconds} to {self.ends_seconds}, the extension from {at} to {to}"
            )

    @property
    def ends_seconds(self) -> int:
        """When the expected life ends; an extension not counted."""
        return self.from_seconds + self.service_seconds

    def amortised(self, from_seconds: int, to_seconds: int) -> Fraction:
        """Grams that fall on the half-open span; 0 before and after service, so that over its life they sum to `grams`."""
        return self._until(to_seconds) - self._until(from_seconds)

    def purchased(self, from_seconds: int, to_seconds: int) -> Fraction:
        """Grams for the inventory of the span: all of them if service began in it, else none."""
        return self.grams if from_seconds <= self.from_seconds < to_seconds else Fraction(0)

    def _until(self, at_seconds: int) -> Fraction:
        """Grams from the start of service to an instant."""
        at, to = self.extended_at_seconds, self.extended_to_seconds
        if at is None or to is None or at_seconds <= at:
            return self.grams * _share(at_seconds - self.from_seconds, self.service_seconds)
        spent = self.grams * _share(at - self.from_seconds, self.service_seconds)
        return spent + (self.grams - spent) * _share(at_seconds - at, to - at)


def total_grams(parts: Iterable[Part]) -> Fraction:
    """CO2e of a machine from its parts."""
    return sum((part.grams for part in parts), Fraction(0))


def divide(grams: Fraction, reserved: Mapping[str, Fraction], whole: Fraction) -> dict[str, Fraction]:
    """Divide amortised grams by reserved resources (RR / ToR); what nobody reserved stands under the empty name.

    reserved: by workload, in the unit of `whole` (vCPUs, seconds of a GPU). The parts sum to `grams` exactly.
    """
    if whole <= 0:
        raise EmbodiedError(f"a machine with {whole} resources can't be divided")
    if any(part < 0 for part in reserved.values()) or (taken := sum(reserved.values(), Fraction(0))) > whole:
        raise EmbodiedError(f"the workloads reserve more, or less than nothing, of the {whole} there are: {dict(reserved)}")
    parts = {name: grams * part / whole for name, part in reserved.items()}
    parts[""] = parts.get("", Fraction(0)) + grams * (whole - taken) / whole
    return parts


def _share(elapsed: int, whole: int) -> Fraction:
    return Fraction(min(max(elapsed, 0), whole), whole)
