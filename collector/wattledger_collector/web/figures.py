"""What the API and the page show, as plain JSON trees: present power, today's energy and emissions, hosts, sites.

Reads no clock and no database: the fleet view and a time go in. Microjoules are text, since JSON numbers lose digits beyond
2^53; watts, kWh and grams are rounded only here, at the edge of the screen.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from fractions import Fraction
from typing import Any

from wattledger_collector.accounting import Line, SiteBasis, account
from wattledger_collector.factors import Factor
from wattledger_collector.fleet import FleetView, RecentGap
from wattledger_collector.fleet_live import PowerSum
from wattledger_collector.fleet_sites import Amount, RecentKey
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    NANOSECONDS_PER_SECOND,
    Component,
    Method,
    Quality,
    RollupRow,
)

Tree = dict[str, Any]


def iso(seconds: float, zone: tzinfo) -> str:
    """An instant as ISO 8601 with its offset, to the second."""
    return datetime.fromtimestamp(seconds, zone).isoformat(timespec="seconds")


def day_start_seconds(now_seconds: float, zone: tzinfo) -> float:
    """When the present day began in a time zone."""
    today = datetime.fromtimestamp(now_seconds, zone)
    return today.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def fleet(view: FleetView, now_seconds: float, zone: tzinfo) -> Tree:
    """The page's figures for the whole fleet."""
    start = day_start_seconds(now_seconds, zone)
    lines = account(_rollups(view.recent_energy(start)), view.finder, view.interval_seconds)
    lines_by_site: dict[str, list[Line]] = {}
    for line in lines:
        lines_by_site.setdefault(line.basis.site, []).append(line)
    by_site = view.power_by_site(now_seconds)
    lower, upper = view.model_band()
    agents: dict[str, int] = {}
    for (_, state), count in view.agents(now_seconds).items():
        agents[state] = agents.get(state, 0) + count
    return {
        "now": iso(now_seconds, zone),
        "now_seconds": round(now_seconds, 3),
        "power": power(view.power(now_seconds)),
        "today": {
            "from": iso(start, zone),
            "model_band": {"lower_ratio": lower, "upper_ratio": upper},
            **energy(lines),
        },
        "sites": [
            {
                **basis(view.basis(site, now_seconds)),
                "power": power(by_site.get(site, PowerSum())),
                "today": energy(lines_by_site.get(site, [])),
            }
            for site in view.sites()
        ],
        "agents": agents,
        "simulated_hosts": sum(entry.is_simulated for entry in view.hosts()),
        "quality": _quality(view, now_seconds, start),
    }


def _rollups(recent: Iterable[tuple[int, RecentKey, Amount]]) -> Iterable[RollupRow]:
    for start, key, amount in recent:
        yield RollupRow(key.site, start, key.component, key.quality, False, amount.microjoules, amount.covered_nanoseconds)


def power(total: PowerSum) -> Tree:
    """Present power; null where no host reports, since unknown is not zero."""
    if not total.hosts:
        return {"watts": None, "hosts": 0, "components": {}}
    return {
        "watts": total.milliwatts / 1000,
        "lower_watts": round(total.lower_milliwatts / 1000, 3),
        "upper_watts": round(total.upper_milliwatts / 1000, 3),
        "modelled_watts": total.modelled_milliwatts / 1000,
        "hosts": total.hosts,
        "components": {
            name: {"measured_watts": measured / 1000, "modelled_watts": modelled / 1000}
            for name, (measured, modelled) in components(total).items()
        },
    }


def components(total: PowerSum) -> dict[str, tuple[int, int]]:
    """Milliwatts by component: (measured, modelled)."""
    parts: dict[str, tuple[int, int]] = {}
    for component in Component:
        pairs = [(key.method, value) for key, value in total.by_series.items() if key.component is component]
        if pairs:
            modelled = sum(value for method, value in pairs if method is Method.MODEL)
            parts[component.name.lower()] = (sum(value for _, value in pairs) - modelled, modelled)
    return parts


def energy(lines: Sequence[Line]) -> Tree:
    """Energy and emissions of account lines. Emissions of unlike types stay apart; what has no factor is uncovered."""
    by_quality: dict[str, int] = {}
    by_component: dict[str, int] = {}
    uncovered = 0
    grams: dict[str, Tree] = {}
    for line in lines:
        quality, component = line.quality.name.lower(), line.component.name.lower()
        by_quality[quality] = by_quality.get(quality, 0) + line.energy_microjoules
        by_component[component] = by_component.get(component, 0) + line.energy_microjoules
        emissions = line.emissions
        if emissions is None:
            uncovered += line.energy_microjoules
            continue
        kind = emissions.kind
        total = grams.setdefault(
            str(kind), {"gas": kind.gas, "boundary": kind.boundary, "grams": Fraction(0), "modelled_grams": Fraction(0)}
        )
        total["grams"] += emissions.grams
        if line.quality is Quality.MODEL:
            total["modelled_grams"] += emissions.grams
    total_microjoules = sum(by_quality.values())
    return {
        "energy_microjoules": str(total_microjoules),
        "energy_kwh": total_microjoules / MICROJOULES_PER_KWH,
        "energy_microjoules_by_quality": {name: str(value) for name, value in sorted(by_quality.items())},
        "energy_microjoules_by_component": {name: str(value) for name, value in sorted(by_component.items())},
        "uncovered_microjoules": str(uncovered),
        "emissions": [
            {
                "kind": kind,
                **total,
                "grams": float(total["grams"]),
                "modelled_grams": float(total["modelled_grams"]),
            }
            for kind, total in sorted(grams.items())
        ],
    }


def factor(value: Factor) -> Tree:
    """A factor with all that a reader needs to judge it."""
    return {
        "id": value.id,
        "zone": value.zone,
        "zone_name": value.name,
        "grams_per_kwh": str(value.value),
        "kind": str(value.kind),
        "gas": value.kind.gas,
        "boundary": value.kind.boundary,
        "includes_transmission_losses": value.includes_td,
        "vintage": value.vintage,
        "published": value.published.isoformat(),
        "source": value.source,
        "document": value.document,
        "licence": value.licence,
        "attribution": value.attribution,
    }


def basis(value: SiteBasis) -> Tree:
    """What turns a site's energy into emissions now, or why nothing does."""
    return {
        "site": value.site,
        "zone": value.zone,
        "pue": None if value.pue is None else str(value.pue),
        "assumed": value.assumed,
        "provisional": value.provisional,
        "missing": value.missing,
        "factor": None if value.factor is None else factor(value.factor),
    }


def _quality(view: FleetView, now_seconds: float, day_seconds: float) -> Tree:
    coverage = view.coverage(now_seconds).values()
    covered = sum(part.covered_seconds for part in coverage)
    expected = sum(part.expected_seconds for part in coverage)
    gaps = [gap for gap in view.recent_gaps() if gap.gap.to_utc_nanoseconds >= day_seconds * NANOSECONDS_PER_SECOND]
    failing = sum(
        1
        for entry in view.hosts()
        if (live := entry.fresh_live(now_seconds, view.staleness_seconds)) and any(live.sources.last_errors)
    )
    return {
        "covered_seconds": round(covered, 3),
        "expected_seconds": round(expected, 3),
        "coverage_ratio": min(1.0, covered / expected) if expected > 0 else None,
        "recent_gaps": len(gaps),
        "withheld_hosts": sum(entry.is_withheld for entry in view.hosts()),
        "hosts_with_failing_sources": failing,
    }


def history(view: FleetView, now_seconds: float, after_seconds: float) -> Tree:
    """Fleet power by columns, for points later than `after_seconds`."""
    points = [point for point in view.history(now_seconds) if point.at_seconds > after_seconds]
    split = [components(point.power) for point in points]
    names = [c.name.lower() for c in Component if any(c.name.lower() in parts for parts in split)]
    return {
        "now_seconds": round(now_seconds, 3),
        "seconds": [round(point.at_seconds, 3) for point in points],
        "hosts": [point.power.hosts for point in points],
        "lower_watts": [round(point.power.lower_milliwatts / 1000, 1) for point in points],
        "upper_watts": [round(point.power.upper_milliwatts / 1000, 1) for point in points],
        "components": {
            name: {
                "measured_watts": [parts.get(name, (0, 0))[0] / 1000 for parts in split],
                "modelled_watts": [parts.get(name, (0, 0))[1] / 1000 for parts in split],
            }
            for name in names
        },
    }


def recent_gap(item: RecentGap, zone: tzinfo) -> Tree:
    """A gap, with bounds of what may be missing; upper null: unknown."""
    gap = item.gap
    return {
        "host": item.host,
        "site": item.site,
        "device": None if item.channel is None else item.channel.device,
        "domain": None if item.channel is None else item.channel.domain,
        "from": iso(gap.from_utc_nanoseconds / NANOSECONDS_PER_SECOND, zone),
        "to": iso(gap.to_utc_nanoseconds / NANOSECONDS_PER_SECOND, zone),
        "reason": gap.reason.value,
        "lower_microjoules": str(gap.lower_microjoules),
        "upper_microjoules": None if gap.upper_microjoules is None else str(gap.upper_microjoules),
    }
