"""The present values of one host as text of /metrics.

Holds no value; what a host does not tell is absent, never zero.
"""

from collections.abc import Mapping
from typing import Final

from wattledger_collector.fleet_live import LiveReading, SeriesKey
from wattledger_collector.host_text import HostText
from wattledger_collector.live_details import CrossCheckName, LiveDetails
from wattledger_collector.records import MICROJOULES_PER_JOULE, NANOSECONDS_PER_SECOND
from wattledger_protos.v1 import telemetry_pb2 as pb

# Lines by family.
Lines = Mapping[str, list[str]]

# Families with one series a host.
SINGLE_FAMILIES: Final = (
    "wattledger_agent_spool_bytes",
    "wattledger_agent_spool_unacknowledged_records",
    "wattledger_agent_spool_thinned_samples_total",
    "wattledger_agent_cpu_seconds_total",
    "wattledger_agent_memory_bytes",
    "wattledger_agent_energy_joules_total",
    "wattledger_agent_wakeups_total",
    "wattledger_agent_failed_reads_total",
    "wattledger_agent_unbelieved_readings_total",
    "wattledger_agent_ignored_readings_total",
    "wattledger_agent_ignored_rows_total",
    "wattledger_agent_thinned_rows_total",
    "wattledger_agent_clock_offset_seconds",
    "wattledger_live_values_ignored_total",
)

_UTILIZATION_FAMILIES: Final[Mapping[int, str]] = {
    pb.UTILIZATION_KIND_BUSY: "wattledger_utilization_ratio",
    pb.UTILIZATION_KIND_MEMORY: "wattledger_memory_utilization_ratio",
    pb.UTILIZATION_KIND_STEAL: "wattledger_steal_ratio",
    pb.UTILIZATION_KIND_SM_ACTIVE: "wattledger_sm_active_ratio",
    pb.UTILIZATION_KIND_TENSOR_ACTIVE: "wattledger_tensor_active_ratio",
}

# Family, and the label that tells gauges of one family apart.
_GAUGE_FAMILIES: Final[Mapping[int, tuple[str, dict[str, str]]]] = {
    pb.GAUGE_TEMPERATURE_CELSIUS: ("wattledger_device_temperature_celsius", {}),
    pb.GAUGE_CLOCK_HERTZ: ("wattledger_device_clock_hertz", {"clock": "compute"}),
    pb.GAUGE_MEMORY_CLOCK_HERTZ: ("wattledger_device_clock_hertz", {"clock": "memory"}),
    pb.GAUGE_POWER_LIMIT_WATTS: ("wattledger_device_power_limit_watts", {}),
    pb.GAUGE_AVERAGE_POWER_WATTS: ("wattledger_device_power_watts", {"window": "average"}),
    pb.GAUGE_INSTANT_POWER_WATTS: ("wattledger_device_power_watts", {"window": "instant"}),
    pb.GAUGE_PROCESSES_COUNT: ("wattledger_device_processes", {}),
    pb.GAUGE_READING_AGE_SECONDS: ("wattledger_source_reading_age_seconds", {}),
}


def render_live(live: LiveReading, ignored_values: int, text: HostText, lines: Lines) -> None:
    """Add a host's present values. ignored_values: how many could not be true since the collector's start."""
    if live.keys:
        family = "wattledger_host_power_watts"
        template = text.template(family, live.keys, series_labels)
        lines[family].append(template % tuple([value / 1000 for value in live.milliwatts]))
    for kind, column in live.utilizations.items():
        utilization = _UTILIZATION_FAMILIES.get(kind)
        if utilization is not None:
            template = text.template(utilization, column.devices, _device_label)
            lines[utilization].append(template % tuple([ppm / 1_000_000 for ppm in column.ppm]))
    health = live.sources
    if health.sources:
        for family, counts in (
            ("wattledger_agent_source_reads_total", health.reads),
            ("wattledger_agent_source_failures_total", health.failures),
            ("wattledger_agent_source_deadline_misses_total", health.deadline_misses),
        ):
            lines[family].append(text.template(family, health.sources, _source_label) % counts)
    for family, value in (*_agent_values(live), ("wattledger_live_values_ignored_total", ignored_values)):
        lines[family].append(f"{text.singles[family]}{value}")
    _render_details(live.details, text, lines)


def _agent_values(live: LiveReading) -> list[tuple[str, float]]:
    details, meter = live.details, live.details.meter
    values: list[tuple[str, float]] = [
        ("wattledger_agent_spool_bytes", live.spool_bytes),
        ("wattledger_agent_spool_unacknowledged_records", live.spool_unacknowledged_records),
        ("wattledger_agent_spool_thinned_samples_total", live.spool_thinned_samples),
    ]
    # Agents that share a process, and old ones, do not tell what they cost: that is unknown, not zero.
    if live.agent_cpu_nanoseconds:
        values.append(("wattledger_agent_cpu_seconds_total", live.agent_cpu_nanoseconds / NANOSECONDS_PER_SECOND))
    if live.agent_memory_bytes:
        values.append(("wattledger_agent_memory_bytes", live.agent_memory_bytes))
    if details.agent_energy_microjoules:
        values.append(("wattledger_agent_energy_joules_total", details.agent_energy_microjoules / MICROJOULES_PER_JOULE))
    if details.agent_wakeups:
        values.append(("wattledger_agent_wakeups_total", details.agent_wakeups))
    if live.clock_offset_seconds is not None:
        values.append(("wattledger_agent_clock_offset_seconds", live.clock_offset_seconds))
    if meter is not None:
        values += [
            ("wattledger_agent_failed_reads_total", meter.failed_reads),
            ("wattledger_agent_unbelieved_readings_total", meter.unbelieved_readings),
            ("wattledger_agent_ignored_readings_total", meter.ignored_readings),
            ("wattledger_agent_ignored_rows_total", meter.ignored_rows),
            ("wattledger_agent_thinned_rows_total", meter.thinned_rows),
        ]
    return values


def _render_details(details: LiveDetails, text: HostText, lines: Lines) -> None:
    for kind, column in details.gauges.items():
        family, more = _GAUGE_FAMILIES[kind]

        def labels(device: str, more: dict[str, str] = more) -> dict[str, str]:
            return {"device": device, **more}

        lines[family].append(text.template(family, column.devices, labels, part=str(kind)) % column.values)
    if details.throttles:
        family = "wattledger_device_throttle_reasons"
        template = text.template(family, details.throttles, _throttle_labels)
        lines[family].append(template % ((1,) * len(details.throttles)))
    if details.cross_checks:
        family = "wattledger_cross_check_disagreement_ratio"
        template = text.template(family, details.cross_checks, _check_labels)
        lines[family].append(template % details.disagreement_ratios)


def series_labels(key: SeriesKey) -> dict[str, str]:
    """Labels of a component whose energy is made by one method."""
    return {"component": key.component.name.lower(), "method": key.method.name.lower()}


def _device_label(device: str) -> dict[str, str]:
    return {"device": device}


def _source_label(source: str) -> dict[str, str]:
    return {"source": source}


def _throttle_labels(throttle: tuple[str, str]) -> dict[str, str]:
    return {"device": throttle[0], "reason": throttle[1]}


def _check_labels(name: CrossCheckName) -> dict[str, str]:
    return {
        "device": name.device,
        "source": name.source,
        "domain": name.domain,
        "reference_source": name.reference_source,
        "reference_domain": name.reference_domain,
    }
