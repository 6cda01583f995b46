"""The 95 % intervals of a report's totals: sensors by kind, factors by source, gaps by their bounds.

Reads which sensors there are and rounds nothing. Where a source states no band, a default holds, and says so. Source of
truth: `uncertainty.py` for the arithmetic.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from wattledger_collector.accounting import Line
from wattledger_collector.factors import FactorKind, Tier
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.records import Component, Method, Quality
from wattledger_collector.report import Report
from wattledger_collector.store import SqliteStore
from wattledger_collector.uncertainty import Gap, Interval, Term, combine

# Half-widths of 95 % where a sensor's source states none: what is measured is put into the best class of the GHG Protocol's
# uncertainty tool (5 %), by a convention of this program; an estimate without a band of its own is poor.
SENSOR_RATIO_DEFAULT: Mapping[Method, float] = {Method.COUNTER: 0.05, Method.INTEGRAL: 0.05, Method.MODEL: 0.5}

# Half-widths where a factor's source states none: the classes of the GHG Protocol's uncertainty tool (high 5 %, good 15 %,
# fair 30 %), put to tiers by this program: measured hours are high, official years good, what stands in for another fair.
FACTOR_RATIO_DEFAULT: Mapping[Tier, float] = {
    Tier.F0_MEASURED: 0.05,
    Tier.F1_PROVIDER_ESTIMATED: 0.15,
    Tier.F2_CARRIED: 0.3,
    Tier.F3_PROFILE: 0.3,
    Tier.F4_ANNUAL_ZONE: 0.15,
    Tier.F5_ANNUAL_COUNTRY: 0.15,
    Tier.F6_REGION: 0.3,
    Tier.F9_NONE: 0.0,
}

_METHOD_OF = {
    Quality.COUNTER: Method.COUNTER,
    Quality.BRIDGED: Method.COUNTER,
    Quality.INTEGRAL: Method.INTEGRAL,
    Quality.MODEL: Method.MODEL,
}


@dataclass(frozen=True, slots=True)
class Sensor:
    """Sensors of one kind, and how much of a component's energy is theirs. is_stated: their source gave the band."""

    name: str
    lower_ratio: float
    upper_ratio: float
    share: Fraction
    is_stated: bool


Sensors = Mapping[tuple[str, Component, Method], Sequence[Sensor]]


def sensors_of(store: SqliteStore, at_seconds: int) -> Sensors:
    """Which sensors the energy of each site, component and method is from, by what each has booked in its lifetime."""
    plan = SitePlan()
    plan.replace(store.sites(), store.assignments())
    sums: dict[tuple[str, Component, Method], dict[tuple[str, float, float, bool], int]] = {}
    for cursor in store.cursors():
        site = plan.site_of(cursor.host, at_seconds)
        channels = store.load_channels(cursor.host, cursor.epoch)
        for number, point in cursor.points.items():
            info = channels.get(number)
            if info is None or not info.is_booked or not point.booked_microjoules:
                continue
            lower, upper = info.uncertainty_lower_ratio, info.uncertainty_upper_ratio
            is_stated = lower > 0 or upper > 0
            if not is_stated:
                lower = upper = SENSOR_RATIO_DEFAULT[info.method]
            sensor = (f"{info.source} {info.model}".strip(), lower, upper, is_stated)
            weights = sums.setdefault((site, info.component, info.method), {})
            weights[sensor] = weights.get(sensor, 0) + abs(point.booked_microjoules)
    return {
        key: [Sensor(*sensor[:3], Fraction(part, sum(parts.values())), sensor[3]) for sensor, part in sorted(parts.items())]
        for key, parts in sums.items()
    }


def intervals_of(report: Report, sensors: Sensors) -> dict[FactorKind, tuple[Interval, bool]]:
    """Totals with their 95 % intervals, by type of factor; and whether the upper end is open, as a gap has no bound."""
    terms: dict[FactorKind, list[Term]] = {}
    gaps: dict[FactorKind, list[Gap]] = {}
    is_unbounded: dict[FactorKind, bool] = {}
    for site in report.sites:
        for line in site.lines:
            if (part := line.emissions) is not None:
                terms.setdefault(part.kind, []).extend(_terms(site.site, line, sensors))
        for kind, total in site.emissions.items():
            covered = sum(line.energy_microjoules for line in site.lines if line.emissions and line.emissions.kind == kind)
            rate = total.grams / covered if covered else Fraction(0)
            upper = site.gaps.upper_microjoules
            gaps.setdefault(kind, []).append(Gap(site.gaps.lower_microjoules * rate, (upper or 0) * rate))
            is_unbounded[kind] = is_unbounded.get(kind, False) or upper is None or bool(site.silent)
    return {kind: (combine(each, gaps.get(kind, [])), is_unbounded.get(kind, False)) for kind, each in terms.items()}


def _terms(site: str, line: Line, sensors: Sensors) -> Iterable[Term]:
    """One line's parts by sensor and factor."""
    component, quality = line.component, line.quality
    method = _METHOD_OF[quality]
    found = sensors.get((site, component, method)) or (
        sensors.get((site, component, Method.INTEGRAL)) if quality is Quality.BRIDGED else None
    )
    ratio = SENSOR_RATIO_DEFAULT[method]
    parts = found or [Sensor(f"{component.name} {method.name}", ratio, ratio, Fraction(1), False)]
    factor_ratio, factor = factor_ratio_of(line), _factor_name(line)
    for sensor in parts:
        grams = (line.grams or Fraction(0)) * sensor.share
        yield Term(grams, sensor.name, sensor.lower_ratio, sensor.upper_ratio, factor, factor_ratio)


def _factor_name(line: Line) -> str:
    factor = line.factors[0]
    return f"{factor.zone} {factor.source} {factor.kind}"


def factor_ratio_of(line: Line) -> float:
    """Half-width of a line's factors: as their source states it, the largest of several, else the tier's."""
    stated = [float(factor.uncertainty_ratio) for factor in line.factors if factor.uncertainty_ratio is not None]
    return max(stated) if stated else FACTOR_RATIO_DEFAULT[line.basis.tier]
