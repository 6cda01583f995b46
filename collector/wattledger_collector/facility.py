"""The figures of a whole site: PUE and its sisters, and the overhead that each host bears.

Values in, exact values out; no clock. Sources of truth: ISO/IEC 30134-2 (PUE), -3 (REF), -6 (ERF), -8 (CUE), -9 (WUE), and
EN 50600-4 for the energy in fuels. A PUE is of a year; over a shorter time it is interim, of a part of the site partial.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from fractions import Fraction

# Energy in what a site burns, kWh: a litre of diesel, a cubic metre of gas, a kilogram of hydrogen, a litre of bioethanol.
# EN 50600-4 as told by the factsheets of ictfootprint.eu.
KWH_IN_FUEL: Mapping[str, Fraction] = {
    "diesel_litres": Fraction("9.9"),
    "natural_gas_cubic_metres": Fraction("10.5"),
    "hydrogen_kilograms": Fraction("38.9"),
    "bioethanol_litres": Fraction(6),
}


class FacilityError(ValueError):
    """A site's figures can't be reckoned; the text says which value forbids it."""


class Point(StrEnum):
    """Where energy was measured. At the facility it holds all overhead already."""

    COMPONENT = "component"
    NODE = "node"
    RACK = "rack"
    FACILITY = "facility"


class Category(IntEnum):
    """Where a PUE takes IT energy from: the output of the UPS, of the PDU, or the IT equipment's input."""

    UPS_OUTPUT = 1
    PDU_OUTPUT = 2
    IT_INPUT = 3


@dataclass(frozen=True, slots=True)
class Pue:
    """A declared or measured PUE: ratio >= 1, the half-open time that it describes, and the document that says so."""

    ratio: Fraction
    from_seconds: int
    to_seconds: int
    category: Category
    evidence: str
    is_partial: bool = False

    def __post_init__(self) -> None:
        if self.ratio < 1:
            raise FacilityError(f"a PUE of {float(self.ratio):g} is impossible: a site uses at least what its IT uses")
        if self.to_seconds <= self.from_seconds:
            raise FacilityError("the time that a PUE describes has to end after it begins")

    @property
    def name(self) -> str:
        """`PUE` over twelve months or more, else `interim PUE`; with a `p` before it, of a part of the site."""
        begin = datetime.fromtimestamp(self.from_seconds, UTC)
        # A year from a 29 February ends on the 28th.
        year_later = begin.replace(year=begin.year + 1, day=28 if (begin.month, begin.day) == (2, 29) else begin.day)
        word = "pPUE" if self.is_partial else "PUE"
        return word if self.to_seconds >= year_later.timestamp() else f"interim {word}"


@dataclass(frozen=True, slots=True)
class MeasuredPue:
    """A site's PUE by its own meter, over the intervals in which that was whole; else why there is none (reason).

    overhead: what each host bears of the site's overhead, in microjoules; it sums up exactly.
    """

    site: str
    pue: Pue | None
    facility_microjoules: int
    it_microjoules: int
    measured_seconds: int
    meters: tuple[str, ...]
    overhead: Mapping[str, int]
    it: Mapping[str, int]
    reason: str


@dataclass(frozen=True, slots=True)
class Facility:
    """What a site used in a period; microjoules >= 0. fuels: amounts by the names of KWH_IN_FUEL, burnt on the site."""

    electricity_microjoules: int
    it_microjoules: int
    fuels: Mapping[str, Fraction]
    renewable_microjoules: int = 0
    reused_microjoules: int = 0
    water_litres: Fraction = Fraction(0)

    @property
    def total_microjoules(self) -> Fraction:
        """E_DC: electricity, and the energy in the fuels. Raises FacilityError for a fuel that has no figure."""
        total = Fraction(self.electricity_microjoules)
        for fuel, amount in self.fuels.items():
            if fuel not in KWH_IN_FUEL:
                raise FacilityError(f"there is no energy content for {fuel!r}: use {', '.join(sorted(KWH_IN_FUEL))}")
            total += amount * KWH_IN_FUEL[fuel] * 3_600_000_000_000
        return total

    @property
    def pue(self) -> Fraction:
        """E_DC / E_IT. Raises FacilityError without IT energy, or where IT used more than the site."""
        if self.it_microjoules <= 0:
            raise FacilityError("no PUE: the site's IT used no energy in the period")
        ratio = self.total_microjoules / self.it_microjoules
        if ratio < 1:
            raise FacilityError(
                f"no PUE: the IT used {self.it_microjoules} microjoules and the whole site {int(self.total_microjoules)}; "
                "look for a meter that sees a part of the site only"
            )
        return ratio

    def cue_grams_per_kwh(self, grams: Fraction) -> Fraction:
        """CUE: emissions of all of the site's energy for each kWh of IT energy."""
        return grams / self._it_kwh

    @property
    def wue_litres_per_kwh(self) -> Fraction:
        """WUE: water for each kWh of IT energy."""
        return self.water_litres / self._it_kwh

    @property
    def renewable_ratio(self) -> Fraction:
        """REF: renewable energy in all of the site's."""
        return self.renewable_microjoules / self.total_microjoules

    @property
    def reused_ratio(self) -> Fraction:
        """ERF: energy that is used again outside, in all of the site's."""
        return self.reused_microjoules / self.total_microjoules

    @property
    def _it_kwh(self) -> Fraction:
        if self.it_microjoules <= 0:
            raise FacilityError("the site's IT used no energy in the period, and nothing can be divided by it")
        return Fraction(self.it_microjoules, 3_600_000_000_000)


def facility_microjoules(energy_microjoules: int, point: Point, pue: Pue) -> Fraction:
    """Energy of the whole site for energy that was measured at a point. Raises FacilityError where it is whole already."""
    if point is Point.FACILITY:
        raise FacilityError("the energy was measured at the facility: its overhead is in it, and a PUE would count it twice")
    return energy_microjoules * pue.ratio


def allocate_overhead(facility: int, it: Mapping[str, int]) -> dict[str, int]:
    """Divide what a site used beyond its IT over hosts, by their IT energy; microjoules.

    Whole microjoules, by largest remainders and then by name, so that the parts sum to the overhead exactly. Raises
    FacilityError where the facility used less than its IT, or no host used anything.
    """
    whole = sum(it.values())
    overhead = facility - whole
    if overhead < 0:
        raise FacilityError(f"the site used {facility} microjoules and its hosts {whole}: look for hosts of another site")
    if whole <= 0 or any(part < 0 for part in it.values()):
        raise FacilityError("overhead is divided by IT energy, and the hosts used none, or less than none")
    shares = {host: overhead * part // whole for host, part in it.items()}
    rest = overhead - sum(shares.values())
    # The largest remainders first; names decide between equal ones, so that the order of hosts does not.
    for host in sorted(it, key=lambda name: (-(overhead * it[name] % whole), name))[:rest]:
        shares[host] += 1
    return shares
