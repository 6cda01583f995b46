"""What the API and the page show of single hosts, as plain JSON trees.

Reads no clock and no database. Source of truth: the fleet view's entries.
"""

from collections.abc import Mapping
from datetime import tzinfo

from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_host import HostEntry
from wattledger_collector.fleet_live import LiveReading, PowerSum
from wattledger_collector.records import MICROJOULES_PER_KWH, NANOSECONDS_PER_SECOND, Method
from wattledger_collector.web.figures import Tree, iso, power
from wattledger_collector.web.workload_figures import workload_row
from wattledger_protos.v1 import telemetry_pb2 as pb

_UTILIZATION_KINDS = {1: "busy", 2: "memory", 3: "steal", 4: "sm_active", 5: "tensor_active"}


def host_row(view: FleetView, entry: HostEntry, now_seconds: float, zone: tzinfo) -> Tree:
    """One host in a list."""
    live = entry.fresh_live(now_seconds, view.staleness_seconds)
    total = PowerSum()
    if live is not None:
        total.add(live)
    microjoules = sum(entry.energy.microjoules)
    methods: Mapping[Method, int] = _by_method(entry)
    return {
        "host": entry.host,
        "name": entry.record.shown_name,
        "hostname": entry.labels.get("hostname", ""),
        "labels": dict(entry.labels),
        "site": entry.site,
        "state": view.state(entry, now_seconds),
        "power": power(total),
        "energy_microjoules": str(microjoules),
        "energy_kwh": microjoules / MICROJOULES_PER_KWH,
        "energy_microjoules_by_method": {method.name.lower(): str(value) for method, value in methods.items()},
        "recorded_microjoules": str(entry.recorded_microjoules),
        "recorded": entry.is_recorded,
        "simulated": entry.is_simulated,
        "withheld": entry.is_withheld,
        "conflict": entry.record.conflict,
        "since": iso(entry.created_utc_nanoseconds / NANOSECONDS_PER_SECOND, zone)
        if entry.created_utc_nanoseconds
        else None,
        "last_sample": _moment(entry.last_sample_utc_nanoseconds, zone),
        "last_sample_age_seconds": _age(entry, now_seconds),
        "utilizations": _utilizations(live),
        "workload_count": len(entry.workloads.shown(now_seconds).workloads),
        "spool_bytes": None if live is None else live.spool_bytes,
        "errors": [] if live is None else _errors(live),
    }


def _moment(utc_nanoseconds: int, zone: tzinfo) -> str | None:
    return iso(utc_nanoseconds / NANOSECONDS_PER_SECOND, zone) if utc_nanoseconds else None


def _age(entry: HostEntry, now_seconds: float) -> float | None:
    last = entry.last_sample_utc_nanoseconds
    return round(max(0.0, now_seconds - last / NANOSECONDS_PER_SECOND), 1) if last else None


def _by_method(entry: HostEntry) -> dict[Method, int]:
    methods: dict[Method, int] = {}
    for key, microjoules in entry.energy:
        methods[key.method] = methods.get(key.method, 0) + microjoules
    return methods


def _utilizations(live: LiveReading | None) -> list[Tree]:
    if live is None:
        return []
    return [
        {"device": device, "kind": _UTILIZATION_KINDS.get(kind, "unknown"), "ratio": ppm / 1_000_000}
        for kind, column in live.utilizations.items()
        for device, ppm in zip(column.devices, column.ppm, strict=True)
    ]


def _errors(live: LiveReading) -> list[str]:
    health = live.sources
    return [f"{source}: {error}" for source, error in zip(health.sources, health.last_errors, strict=True) if error]


def _sources(live: LiveReading | None) -> list[Tree]:
    if live is None:
        return []
    health = live.sources
    columns = zip(health.sources, health.reads, health.failures, health.deadline_misses, health.last_errors, strict=True)
    return [
        {"source": source, "reads": reads, "failures": failures, "deadline_misses": misses, "last_error": error}
        for source, reads, failures, misses, error in columns
    ]


def _gauges(live: LiveReading | None) -> list[Tree]:
    """Temperatures, clocks and the like; throttle reasons are a list of names."""
    if live is None:
        return []
    rows: list[Tree] = [
        {"device": device, "gauge": pb.Gauge.Name(pb.Gauge.ValueType(kind)).removeprefix("GAUGE_").lower(), "value": value}
        for kind, column in live.details.gauges.items()
        for device, value in zip(column.devices, column.values, strict=True)
    ]
    return rows + [
        {"device": device, "gauge": "throttle_reason", "value": reason} for device, reason in live.details.throttles
    ]


def _cross_checks(live: LiveReading | None) -> list[Tree]:
    if live is None:
        return []
    details = live.details
    return [
        {
            "device": name.device,
            "source": name.source,
            "domain": name.domain,
            "reference_source": name.reference_source,
            "reference_domain": name.reference_domain,
            "disagreement_ratio": ratio,
        }
        for name, ratio in zip(details.cross_checks, details.disagreement_ratios, strict=True)
    ]


def host(view: FleetView, entry: HostEntry, now_seconds: float, zone: tzinfo) -> Tree:
    """One host with its channels, flows, sources and workloads, of these the largest first."""
    live = entry.fresh_live(now_seconds, view.staleness_seconds)
    totals = [
        {
            "device": name.device,
            "domain": name.domain,
            "source": name.source,
            "component": name.series.component.name.lower(),
            "method": name.series.method.name.lower(),
            "role": name.role.name.lower(),
            "energy_microjoules": str(microjoules),
        }
        for totals_of_role in (entry.channel_totals, entry.meter_totals, entry.shown_totals)
        for name, microjoules in totals_of_role
    ]
    workloads = entry.workloads.shown(now_seconds)
    largest = sorted(workloads.workloads, key=lambda each: (-each.total_microjoules, each.key))
    return {
        **host_row(view, entry, now_seconds, zone),
        "totals": totals,
        "workloads": [workload_row(each, now_seconds) for each in largest],
        "workloads_left_out": workloads.left_out,
        "channels": [
            {
                "channel": info.channel,
                "parent_channel": info.parent_channel,
                "device": info.device,
                "domain": info.domain,
                "source": info.source,
                "component": info.component.name.lower(),
                "method": info.method.name.lower(),
                "role": info.role.name.lower(),
                "model": info.model,
                "power_bound_watts": info.power_bound_milliwatts / 1000,
                "uncertainty_lower_ratio": info.uncertainty_lower_ratio,
                "uncertainty_upper_ratio": info.uncertainty_upper_ratio,
            }
            for info in entry.channels()
        ],
        "live": []
        if live is None
        else [
            {
                "device": channel.device,
                "domain": channel.domain,
                "component": channel.component.name.lower(),
                "method": channel.method.name.lower(),
                "role": channel.role.name.lower(),
                "watts": channel.milliwatts / 1000,
                "lower_ratio": channel.lower_ratio,
                "upper_ratio": channel.upper_ratio,
            }
            for channel in live.channels
        ],
        "sources": _sources(live),
        "gauges": _gauges(live),
        "cross_checks": _cross_checks(live),
    }
