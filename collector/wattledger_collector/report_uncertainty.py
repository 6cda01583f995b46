"""The 95 % intervals of a report's totals, location and market based, by site; and which sensors the energy is from.

Reads which sensors there are, and rounds nothing. Sources of truth: `bands.py` and `market_bands.py`, which statements
share. A report is of the moment: how a component's energy divides among its sensors is told by what each has booked in its
lifetime, where a statement takes what each has booked in its period.
"""

from collections.abc import Sequence

from sqlalchemy import select

from wattledger_collector import schema
from wattledger_collector.bands import (
    Estimate,
    FactorBands,
    Sensors,
    SensorsKey,
    SiteGaps,
    by_kind,
    estimate,
    gaps_of_kind,
    sensor_of,
)
from wattledger_collector.factors import FactorKind
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.market_bands import MarketEstimates, market_estimates
from wattledger_collector.records import Component, Method, Quality, Role
from wattledger_collector.report import Report, SiteReport
from wattledger_collector.store import SqliteStore

# What energy of a channel may be, by its method; an integral is never bridged but where an import was.
_QUALITIES = {
    Method.COUNTER: (Quality.COUNTER, Quality.BRIDGED),
    Method.INTEGRAL: (Quality.INTEGRAL, Quality.BRIDGED),
    Method.MODEL: (Quality.MODEL,),
}

# (source, model, lower band, upper band): microjoules.
_Weights = dict[tuple[str, str, float, float], int]


def sensors_of(store: SqliteStore, at_seconds: int) -> Sensors:
    """Which sensors the energy of each site, component and quality is from, by what each has booked in its lifetime."""
    plan = SitePlan()
    plan.replace(store.sites(), store.assignments())
    channels = _channels(store)
    sums: dict[SensorsKey, _Weights] = {}
    for cursor in store.cursors():
        site = plan.site_of(cursor.host, at_seconds)
        of_epoch = channels.get((cursor.host, cursor.epoch), {})
        for number, point in cursor.points.items():
            channel = of_epoch.get(number)
            if channel is None or not point.booked_microjoules:
                continue
            component, method, sensor = channel
            for quality in _QUALITIES[method]:
                weights = sums.setdefault((site, component, quality, cursor.recorded), {})
                weights[sensor] = weights.get(sensor, 0) + point.booked_microjoules
    return {
        key: [
            sensor_of(source, f"{source} {model}".strip(), key[2], (lower, upper), energy / whole)
            for (source, model, lower, upper), energy in sorted(weights.items())
        ]
        for key, weights in sums.items()
        if (whole := sum(weights.values()))
    }


def _channels(
    store: SqliteStore,
) -> dict[tuple[str, bytes], dict[int, tuple[Component, Method, tuple[str, str, float, float]]]]:
    """All channels that are booked, by epoch and number; one query for a thousand hosts."""
    channel, cursor, host = schema.channels.c, schema.cursors.c, schema.hosts.c
    query = (
        select(
            host.host, cursor.epoch, channel.channel, channel.component, channel.method, channel.source, channel.model,
            channel.uncertainty_lower_ratio, channel.uncertainty_upper_ratio,
        )
        .join(schema.cursors, cursor.id == channel.cursor_id)
        .join(schema.hosts, host.id == cursor.host_id)
        .where(channel.role.in_([Role.LEAF, Role.RESIDUAL]))
    )  # fmt: skip
    found: dict[tuple[str, bytes], dict[int, tuple[Component, Method, tuple[str, str, float, float]]]] = {}
    for name, epoch, number, component, method, *sensor in store.rows(query):
        source, model, lower, upper = sensor
        found.setdefault((name, epoch), {})[number] = (
            Component(component), Method(method), (source, model, lower, upper),
        )  # fmt: skip
    return found


def intervals_of(report: Report, sensors: Sensors) -> dict[FactorKind, Estimate]:
    """The intervals of the report's totals, by type of factor."""
    return _estimates(report.sites, sensors, FactorBands(report.factors))


def site_intervals_of(report: Report, sensors: Sensors) -> dict[str, dict[FactorKind, Estimate]]:
    """The intervals of each site's totals, by type of factor."""
    bands = FactorBands(report.factors)
    return {site.site: _estimates([site], sensors, bands) for site in report.sites}


def market_intervals_of(report: Report, sensors: Sensors) -> MarketEstimates:
    """The intervals of the market-based totals, of all sites (None) and of each."""
    lines = (line for site in report.sites for line in site.lines)
    return market_estimates(report.market, lines, sensors, FactorBands(report.factors), _gaps(report.sites))


def _gaps(sites: Sequence[SiteReport]) -> list[SiteGaps]:
    return [
        SiteGaps(site.site, site.gaps.lower_microjoules, site.gaps.upper_microjoules, bool(site.silent)) for site in sites
    ]


def _estimates(sites: Sequence[SiteReport], sensors: Sensors, bands: FactorBands) -> dict[FactorKind, Estimate]:
    kinds = by_kind(line for site in sites for line in site.lines)
    gaps = _gaps(sites)
    return {kind: estimate(lines, sensors, bands, gaps_of_kind(gaps, kind, kinds)) for kind, lines in kinds.items()}
