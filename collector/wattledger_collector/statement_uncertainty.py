"""The part of a statement that says how far its totals may be off, and what of it rests on assumed bands.

Values in, trees out; no clock, no database. Sources of truth: `bands.py` and `market_bands.py`; `verify_uncertainty.py` and
`verify_market_bands.py` reckon it anew.
"""

from collections.abc import Iterable, Mapping, Sequence

from wattledger_collector.accounting import GapSummary, Line
from wattledger_collector.bands import (
    FACTOR_RATIO_ASSUMED,
    SENSOR_RATIO_ASSUMED,
    Estimate,
    FactorBands,
    Sensor,
    Sensors,
    SensorsKey,
    SiteGaps,
    by_kind,
    estimate,
    gaps_of_kind,
    sensor_of,
)
from wattledger_collector.market import MarketBased
from wattledger_collector.market_bands import market_estimates
from wattledger_collector.records import Component, Quality
from wattledger_collector.statement_values import Tree, grams_tree

# (site, component, quality, recorded, sensor, lower band, upper band): microjoules.
SensorKey = tuple[str, Component, Quality, bool, str, float, float]

# (site, recorded): what its gaps leave open.
Gaps = Mapping[tuple[str, bool], GapSummary]


def assumed_tree() -> Tree:
    """The half-widths that hold where none is stated, so that who reckons anew needs no table but the statement."""
    return {
        "sensors": {quality.name.lower(): ratio for quality, ratio in SENSOR_RATIO_ASSUMED.items()},
        "factors": {str(tier): ratio for tier, ratio in FACTOR_RATIO_ASSUMED.items()},
    }


def uncertainty_trees(
    lines: Sequence[Line], sensors: Mapping[SensorKey, int], gaps: Gaps, silent: Iterable[str]
) -> list[Tree]:
    """The 95 % interval of each total: of a type of factor, of all sites and of each; recorded energy apart.

    silent: sites with hosts that tell nothing.
    """
    known = sensors_of(sensors)
    bands = FactorBands(factor for line in lines for factor in line.factors)
    silent = set(silent)
    trees = []
    for recorded in (False, True):
        own = [line for line in lines if line.recorded == recorded]
        left_open = [
            SiteGaps(site, summary.lower_microjoules, summary.upper_microjoules, site in silent and not recorded)
            for (site, is_recorded), summary in sorted(gaps.items())
            if is_recorded == recorded
        ]
        kinds = by_kind(own)
        for kind, of_kind in kinds.items():
            total = estimate(of_kind, known, bands, gaps_of_kind(left_open, kind, kinds))
            trees.append(_tree(str(kind), recorded, None, total))
            for site in sorted({line.basis.site for line in of_kind}):
                of_site = [line for line in of_kind if line.basis.site == site]
                part = estimate(of_site, known, bands, [each for each in left_open if each.site == site])
                trees.append(_tree(str(kind), recorded, site, part))
    return trees


def market_uncertainty_trees(
    market: MarketBased, lines: Sequence[Line], sensors: Mapping[SensorKey, int], gaps: Gaps, silent: Iterable[str]
) -> list[Tree]:
    """The 95 % interval of each market-based total: of what its grams count, of all sites and of each.

    Recorded energy is in them, as in the totals.
    """
    bands = FactorBands(factor for line in lines for factor in line.factors)
    silent = set(silent)
    left_open: dict[str, SiteGaps] = {}
    for (site, _), summary in sorted(gaps.items()):
        before = left_open.get(site, SiteGaps(site, 0, 0))
        is_open = before.upper_microjoules is None or summary.upper_microjoules is None
        above = None if is_open else (before.upper_microjoules or 0) + (summary.upper_microjoules or 0)
        left_open[site] = SiteGaps(site, before.lower_microjoules + summary.lower_microjoules, above, site in silent)
    estimates = market_estimates(market, lines, sensors_of(sensors), bands, left_open.values())
    return [
        {"site": site, "boundary": str(counted.boundary), "gas": str(counted.gas), "gwp": str(counted.gwp), **_told(part)}
        for site, parts in sorted(estimates.items(), key=lambda each: (each[0] is not None, each[0] or ""))
        for counted, part in parts.items()
    ]


def sensors_of(sensors: Mapping[SensorKey, int]) -> Sensors:
    """Which sensors each part of the energy is from, by what they booked in the period."""
    grouped: dict[SensorsKey, list[tuple[SensorKey, int]]] = {}
    for key, energy in sorted(sensors.items()):
        grouped.setdefault(key[:4], []).append((key, energy))
    found: dict[SensorsKey, list[Sensor]] = {}
    for group, parts in grouped.items():
        whole = sum(energy for _, energy in parts)
        if whole:
            found[group] = [sensor_of(key[4], key[4], key[2], (key[5], key[6]), energy / whole) for key, energy in parts]
    return found


def _tree(kind: str, recorded: bool, site: str | None, part: Estimate) -> Tree:
    return {"kind": kind, "recorded": recorded, "site": site, **_told(part)}


def _told(part: Estimate) -> Tree:
    interval = part.interval
    return {
        "grams": grams_tree(interval.grams),
        "lower_grams": f"{interval.lower_grams:.6f}",
        "upper_grams": f"{interval.upper_grams:.6f}",
        "assumed": {
            "sensors": list(part.sensors_assumed),
            "sensor_grams": f"{part.sensors_assumed_grams:.6f}",
            "factors": list(part.factors_assumed),
            "factor_grams": f"{part.factors_assumed_grams:.6f}",
        },
        "without_upper_bound": list(part.open_sites),
    }
