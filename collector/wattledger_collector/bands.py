"""The 95 % interval of any sum of lines: with the bands that sensors and factors state, else with assumed ones.

Values in, values out; no clock, no database, no rounding. Statements, pages and reports share it; `verify` has code of its
own and reads the assumed ratios in the statement. Sources of truth: `uncertainty.py` for the arithmetic; the classes of the
GHG Protocol's uncertainty tool (high 5 %, good 15 %, fair 30 %, poor above) for what is assumed, put to sensors and tiers by
this program.

All sensors of one source are off by a common share, whatever component they are of; a factor series of a zone is, too. A PUE
is taken as it was declared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from wattledger_collector.accounting import Line
from wattledger_collector.factors import Factor, FactorKind, Tier
from wattledger_collector.records import Component, Quality
from wattledger_collector.uncertainty import Gap, Interval, Term, combine

# Half-widths of 95 % where a sensor's source states none: what is measured is put into the best class, an estimate without
# a band of its own is poor. What was bridged is measured as a counter is; only its time is spread.
SENSOR_RATIO_ASSUMED: Mapping[Quality, float] = {
    Quality.COUNTER: 0.05,
    Quality.INTEGRAL: 0.05,
    Quality.MODEL: 0.5,
    Quality.BRIDGED: 0.05,
}

# Half-widths where a factor's source states none: measured hours are high, official years good, what stands in for
# another fair.
FACTOR_RATIO_ASSUMED: Mapping[Tier, float] = {
    Tier.F0_MEASURED: 0.05,
    Tier.F1_PROVIDER_ESTIMATED: 0.15,
    Tier.F2_CARRIED: 0.3,
    Tier.F3_PROFILE: 0.3,
    Tier.F4_ANNUAL_ZONE: 0.15,
    Tier.F5_ANNUAL_COUNTRY: 0.15,
    Tier.F6_REGION: 0.3,
    Tier.F9_NONE: 0.3,
}


@dataclass(frozen=True, slots=True)
class Sensor:
    """Sensors of one kind. share: of a component's energy; name: for people; is_stated: their source gave the band."""

    source: str
    name: str
    lower_ratio: float
    upper_ratio: float
    share: float
    is_stated: bool


# By site, component, quality and whether it is recorded; shares of one key sum to 1.
SensorsKey = tuple[str, Component, Quality, bool]
Sensors = Mapping[SensorsKey, Sequence[Sensor]]


@dataclass(frozen=True, slots=True)
class SiteGaps:
    """What may be missing at a site; microjoules. upper None: it has no known bound. is_silent: hosts that tell nothing."""

    site: str
    lower_microjoules: int
    upper_microjoules: int | None
    is_silent: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nobody knows how much is missing."""
        return self.upper_microjoules is None or self.is_silent


@dataclass(frozen=True, slots=True)
class Estimate:
    """A total with its interval, and what of it rests on an assumption.

    sensors_assumed, factors_assumed: names of those that state no band; with the grams that they are part of.
    open_sites: where nobody knows how much is missing, so that the upper end is open.
    """

    interval: Interval
    sensors_assumed: tuple[str, ...]
    sensors_assumed_grams: float
    factors_assumed: tuple[str, ...]
    factors_assumed_grams: float
    open_sites: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether the upper end has no known bound."""
        return bool(self.open_sites)


def sensor_of(source: str, name: str, quality: Quality, band: tuple[float, float], share: float) -> Sensor:
    """A sensor with the band that its source states, or the assumed one. band: lower and upper; both 0: unstated."""
    if band[0] > 0 or band[1] > 0:
        return Sensor(source, name, *band, share, is_stated=True)
    ratio = SENSOR_RATIO_ASSUMED[quality]
    return Sensor(source, name, ratio, ratio, share, is_stated=False)


class FactorBands:
    """The bands of factor series, from all rows that were used.

    Of a series with several, the largest holds; where a row states none, the assumed one of the line's tier is among them.
    """

    def __init__(self, factors: Iterable[Factor]) -> None:
        self._stated: dict[tuple[str, str, FactorKind], float] = {}
        self._unstated: set[tuple[str, str, FactorKind]] = set()
        for factor in factors:
            key = (factor.zone, factor.source, factor.kind)
            if factor.uncertainty_ratio is None:
                self._unstated.add(key)
            else:
                self._stated[key] = max(self._stated.get(key, 0.0), float(factor.uncertainty_ratio))

    def band_of(self, factor: Factor, tier: Tier) -> tuple[float, bool]:
        """Half-width of 95 %, relative; and whether the source states it."""
        key = (factor.zone, factor.source, factor.kind)
        assumed = FACTOR_RATIO_ASSUMED[tier] if key in self._unstated else 0.0
        return max(self._stated.get(key, 0.0), assumed), key not in self._unstated


class Tally:
    """Collects the terms of one total, and what of them rests on an assumption."""

    def __init__(self) -> None:
        self._terms: list[Term] = []
        self._sensors: dict[str, float] = {}
        self._factors: dict[str, float] = {}

    def add(self, grams: float, sensors: Sequence[Sensor], factor: str, ratio: float, assumed: str = "") -> None:
        """Add grams of some sensors under one factor. assumed: the name of the factor if its ratio is an assumed one."""
        if assumed:
            self._factors[assumed] = self._factors.get(assumed, 0.0) + grams
        for sensor in sensors:
            part = grams * sensor.share
            self._terms.append(Term(part, sensor.source, sensor.lower_ratio, sensor.upper_ratio, factor, ratio))
            if not sensor.is_stated:
                self._sensors[sensor.source] = self._sensors.get(sensor.source, 0.0) + part

    def add_line(self, grams: float, line: Line, sensors: Sensors, bands: FactorBands) -> None:
        """Add grams that a line's energy has under its grid factor."""
        factor = line.factors[0]
        ratio, is_stated = bands.band_of(factor, line.basis.tier)
        name = f"{factor.zone} {factor.source}"
        self.add(grams, sensors_of_line(line, sensors), name, ratio, "" if is_stated else name)

    def estimate(self, total: Fraction, rates: Mapping[str, Fraction], gaps: Iterable[SiteGaps]) -> Estimate:
        """The interval. total: the sum, which is exact; rates: grams for each microjoule that is missing, by site."""
        bounds, open_sites = _bounds(rates, gaps)
        return Estimate(
            combine(total, self._terms, bounds),
            tuple(sorted(self._sensors)),
            sum(self._sensors.values()),
            tuple(sorted(self._factors)),
            sum(self._factors.values()),
            open_sites,
        )


def estimate(lines: Sequence[Line], sensors: Sensors, bands: FactorBands, gaps: Iterable[SiteGaps]) -> Estimate:
    """The interval of the sum of lines of one kind. gaps: of all sites that the total is of."""
    tally = Tally()
    sums: dict[str, tuple[int, Fraction]] = {}
    for line in lines:
        tally.add_line(float(line.grams or 0), line, sensors, bands)
        energy, grams = sums.get(line.basis.site, (0, Fraction(0)))
        sums[line.basis.site] = (energy + line.energy_microjoules, grams + (line.grams or 0))
    total = sum((grams for _, grams in sums.values()), Fraction(0))
    return tally.estimate(total, {site: grams / energy for site, (energy, grams) in sums.items() if energy}, gaps)


def assumed_text(estimate: Estimate) -> str:
    """Which part of an interval rests on an assumption, for people."""
    parts = []
    for what, names, grams in (
        ("sensors", estimate.sensors_assumed, estimate.sensors_assumed_grams),
        ("factors", estimate.factors_assumed, estimate.factors_assumed_grams),
    ):
        if names:
            whole = float(estimate.interval.grams)
            share = f" for {100 * grams / whole:.0f} %" if whole else ""
            parts.append(f"assumed bands of {what} {', '.join(names)}{share}")
    return "; ".join(parts) or "stated bands alone"


def by_kind(lines: Iterable[Line]) -> dict[FactorKind, list[Line]]:
    """Lines that have a figure, by the type of their factor, in order."""
    kinds: dict[FactorKind, list[Line]] = {}
    for line in lines:
        if (part := line.emissions) is not None and line.factors:
            kinds.setdefault(part.kind, []).append(line)
    return dict(sorted(kinds.items()))


def gaps_of_kind(gaps: Iterable[SiteGaps], kind: FactorKind, kinds: Mapping[FactorKind, Sequence[Line]]) -> list[SiteGaps]:
    """The gaps that a total of a kind has: of the sites with a figure of it, and of those that have no figure at all."""
    sites = {each: {line.basis.site for line in lines} for each, lines in kinds.items()}
    told = {site for names in sites.values() for site in names}
    return [each for each in gaps if each.site in sites.get(kind, ()) or each.site not in told]


def sensors_of_line(line: Line, sensors: Sensors) -> Sequence[Sensor]:
    """The sensors that a line's energy is from; one of its own where none is known."""
    found = sensors.get((line.basis.site, line.component, line.quality, line.recorded))
    if found is not None:
        return found
    name = f"{line.component.name.lower()} {line.quality.name.lower()}"
    return [sensor_of(name, name, line.quality, (0.0, 0.0), 1.0)]


def _bounds(rates: Mapping[str, Fraction], gaps: Iterable[SiteGaps]) -> tuple[list[Gap], tuple[str, ...]]:
    """Gaps in grams, at their site's mean intensity; and the sites where that is unknown."""
    bounds, open_sites = [], set()
    for each in gaps:
        if each.is_open:
            open_sites.add(each.site)
        if (rate := rates.get(each.site)) is not None:
            bounds.append(Gap(each.lower_microjoules * rate, (each.upper_microjoules or 0) * rate))
        elif each.lower_microjoules or each.upper_microjoules:
            # Nothing says what a kWh of it counts as.
            open_sites.add(each.site)
    return bounds, tuple(sorted(open_sites))
