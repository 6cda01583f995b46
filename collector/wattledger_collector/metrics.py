"""The table of all metrics of the fleet view: name, type, labels and what a sum over all labels means.

Holds no value; `exposition.py` renders, and the documentation's metric table is tested against this one. Every metric is
safe to sum over all its labels, and over all collectors, or says in its help what to do instead.
"""

from typing import Literal, NamedTuple


class Family(NamedTuple):
    """One metric. help: one line, without backslash or line feed."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str


_HOST = ("host", "site")
# gwp: figures by other warming potentials are other figures, and series that differ in nothing else would be one.
_EMISSIONS = ("site", "scope", "method", "gas", "gwp", "boundary", "basis", "metering")
_FLOW = ("host", "site", "component", "method")

FAMILIES: tuple[Family, ...] = (
    Family(
        "wattledger_site_energy_joules_total",
        "counter",
        ("site", "component", "method"),
        "Energy of all hosts of a site since its first booking, as committed; shown by one collector of those that share a "
        "ledger, as are all metrics of sites. method: counter, integral or model.",
    ),
    Family(
        "wattledger_host_energy_joules_total",
        "counter",
        _FLOW,
        "Energy of a host over the accounted cut (leaves and residuals), as committed to the ledger; shown by the collector "
        "that serves the host.",
    ),
    Family(
        "wattledger_channel_energy_joules_total",
        "counter",
        (*_HOST, "device", "domain", "source", "component", "method"),
        "Diagnostic: the same energy as wattledger_host_energy_joules_total by channel. Do not add the two.",
    ),
    Family(
        "wattledger_meter_energy_joules_total",
        "counter",
        (*_HOST, "device", "domain", "source", "method"),
        "Diagnostic: energy that a node or module meter saw; the accounted cut has it as parts and residual.",
    ),
    Family(
        "wattledger_workload_energy_joules_total",
        "counter",
        (*_HOST, "kind", "namespace", "workload", "idle_policy", "component", "method"),
        "The same energy by what it was spent on, idle, unattributed and other included, since a workload was first seen. "
        "One that was not seen for 15 minutes is not shown; it goes on from its total. Do not add it to the host's.",
    ),
    Family(
        "wattledger_workload_cpu_seconds_total",
        "counter",
        (*_HOST, "kind", "namespace", "workload", "idle_policy"),
        "CPU time of a workload that its energy was divided by, since it was first seen.",
    ),
    Family(
        "wattledger_workloads_left_out",
        "gauge",
        _HOST,
        "Workloads of a host beyond the 1,024 with the most energy, which alone are shown; the ledger has all.",
    ),
    Family(
        "wattledger_host_created_timestamp_seconds",
        "gauge",
        _HOST,
        "When the host's counters began. A time: take the minimum, not the sum.",
    ),
    Family(
        "wattledger_host_power_watts",
        "gauge",
        _FLOW,
        "Present power of a host over the accounted cut; absent while the host is silent.",
    ),
    Family(
        "wattledger_utilization_ratio",
        "gauge",
        (*_HOST, "device"),
        "Share of time in which a device worked. A sum counts fully busy devices.",
    ),
    Family(
        "wattledger_memory_utilization_ratio",
        "gauge",
        (*_HOST, "device"),
        "Share of a device's memory in use. A sum counts full memories.",
    ),
    Family(
        "wattledger_steal_ratio",
        "gauge",
        (*_HOST, "device"),
        "Share of time that a hypervisor gave to others. A sum counts lost devices.",
    ),
    Family(
        "wattledger_sm_active_ratio",
        "gauge",
        (*_HOST, "device"),
        "Share of time in which a GPU's multiprocessors had work, mean over all of them. A sum counts fully busy GPUs.",
    ),
    Family(
        "wattledger_tensor_active_ratio",
        "gauge",
        (*_HOST, "device"),
        "Share of time in which a GPU's tensor units worked. A sum counts fully busy GPUs.",
    ),
    Family(
        "wattledger_device_temperature_celsius",
        "gauge",
        (*_HOST, "device"),
        "Temperature of a device. Take the maximum, not the sum.",
    ),
    Family(
        "wattledger_device_clock_hertz",
        "gauge",
        (*_HOST, "device", "clock"),
        "Clock of a GPU's multiprocessors (compute) or memory. Take the mean, not the sum.",
    ),
    Family(
        "wattledger_device_power_limit_watts",
        "gauge",
        (*_HOST, "device"),
        "Most power that a device may draw at present. A sum is the most that all may draw.",
    ),
    Family(
        "wattledger_device_power_watts",
        "gauge",
        (*_HOST, "device", "window"),
        "Diagnostic: what a device itself calls its average or instant power. Choose one window; the accounted power is "
        "wattledger_host_power_watts.",
    ),
    Family(
        "wattledger_device_throttle_reasons",
        "gauge",
        (*_HOST, "device", "reason"),
        "1 for each reason that holds a device's clocks down at present, by NVML's names; absent for the others. A sum "
        "counts reasons.",
    ),
    Family(
        "wattledger_device_processes",
        "gauge",
        (*_HOST, "device"),
        "Processes that use a device. A process on two devices is counted on each.",
    ),
    Family(
        "wattledger_source_reading_age_seconds",
        "gauge",
        (*_HOST, "device"),
        "Age of the last value of a slow source, such as a management controller. Take the maximum, not the sum.",
    ),
    Family(
        "wattledger_cross_check_disagreement_ratio",
        "gauge",
        (*_HOST, "device", "source", "domain", "reference_source", "reference_domain"),
        "Energy by a source that is not booked over that by the booked one, less 1. Take the largest of the absolute "
        "values, not the sum.",
    ),
    Family(
        "wattledger_host_last_sample_timestamp_seconds",
        "gauge",
        _HOST,
        "Time of the newest committed sample. A time: take the minimum or maximum, not the sum.",
    ),
    Family(
        "wattledger_host_info",
        "gauge",
        (*_HOST, "state", "hostname"),
        "1 for each host that is not retired.",
    ),
    Family(
        "wattledger_agent_spool_bytes",
        "gauge",
        _HOST,
        "Bytes in the agent's spool that wait for their acknowledgement.",
    ),
    Family(
        "wattledger_agent_spool_unacknowledged_records",
        "gauge",
        _HOST,
        "Records in the agent's spool that wait for their acknowledgement.",
    ),
    Family(
        "wattledger_agent_spool_thinned_samples_total",
        "counter",
        _HOST,
        "Samples that a full disk made the agent drop since its start; their energy is in the samples kept.",
    ),
    Family(
        "wattledger_agent_cpu_seconds_total",
        "counter",
        _HOST,
        "CPU time that the agent took since its start.",
    ),
    Family(
        "wattledger_agent_memory_bytes",
        "gauge",
        _HOST,
        "Resident memory of the agent.",
    ),
    Family(
        "wattledger_agent_energy_joules_total",
        "counter",
        _HOST,
        "Estimate of what the agent itself used since its start, by its share of the CPU time. It is within the host's "
        "energy: do not add the two.",
    ),
    Family(
        "wattledger_agent_wakeups_total",
        "counter",
        _HOST,
        "Times that the agent woke up, since its start.",
    ),
    Family(
        "wattledger_agent_failed_reads_total",
        "counter",
        _HOST,
        "Values that a sensor did not give when it was read, since the agent's start; a counter has them in its next one.",
    ),
    Family(
        "wattledger_agent_unbelieved_readings_total",
        "counter",
        _HOST,
        "Values that could not be true and were not used, since the agent's start.",
    ),
    Family(
        "wattledger_agent_ignored_readings_total",
        "counter",
        _HOST,
        "Values of channels that were never offered, since the agent's start: a fault of a source.",
    ),
    Family(
        "wattledger_agent_ignored_rows_total",
        "counter",
        _HOST,
        "Samples at or before the one before them, since the agent's start; their energy is in the next one.",
    ),
    Family(
        "wattledger_agent_thinned_rows_total",
        "counter",
        _HOST,
        "Samples left out since a record would have been too large, since the agent's start; their energy is in those kept.",
    ),
    Family(
        "wattledger_live_values_ignored_total",
        "counter",
        _HOST,
        "Present values of an agent that could not be true, or were too many, since the collector's start.",
    ),
    Family(
        "wattledger_agent_clock_offset_seconds",
        "gauge",
        _HOST,
        "How far a host's clock is ahead of the collector's. A difference: take the largest, not the sum.",
    ),
    Family(
        "wattledger_agent_source_reads_total",
        "counter",
        (*_HOST, "source"),
        "Reads of a source since the agent's start.",
    ),
    Family(
        "wattledger_agent_source_failures_total",
        "counter",
        (*_HOST, "source"),
        "Failed reads of a source since the agent's start.",
    ),
    Family(
        "wattledger_agent_source_deadline_misses_total",
        "counter",
        (*_HOST, "source"),
        "Reads of a source that took too long, since the agent's start.",
    ),
    Family(
        "wattledger_site_emissions_grams_total",
        "counter",
        _EMISSIONS,
        "Location-based emissions of a site: energy x PUE x the grid factor known when first used, in the scope declared "
        "then. Provisional: corrections appear in reports and statements.",
    ),
    Family(
        "wattledger_site_market_based_emissions_grams_total",
        "counter",
        _EMISSIONS,
        "The same emissions with the market's residual mix in scope 2 (basis residual; where there is none the grid factor "
        "stands in). Certificates enter reports and statements, never this. Do not add it to the location-based ones.",
    ),
    Family(
        "wattledger_site_quality_energy_joules_total",
        "counter",
        ("site", "metering", "factor_tier"),
        "The energy that is in the emission counters, by how it was metered (measured, bridged, modelled) and by the tier "
        "of the factor first used. Do not add it to the site's energy.",
    ),
    Family(
        "wattledger_site_uncovered_energy_joules",
        "gauge",
        ("site", "metering"),
        "Energy since a site's first booking that is in no emission counter, since no factor covers it (tier F9). Falls "
        "when one comes. Do not add it to the site's energy.",
    ),
    Family(
        "wattledger_site_superseded_seconds",
        "gauge",
        ("site", "resolution"),
        "Time that is in the emission counters with a factor for which another holds now; reports use the new one. "
        "resolution: of the new one; yearly: of four weeks or more, hourly: of less.",
    ),
    Family(
        "wattledger_grid_carbon_intensity_grams_per_kwh",
        "gauge",
        ("site", "signal", "gas", "boundary", "basis"),
        "Grid factor in use. An intensity: weigh it by energy, do not sum it over sites.",
    ),
    Family(
        "wattledger_site_info",
        "gauge",
        ("site", "zone", "pue", "factor", "tier", "provisional", "assumed"),
        "1 for each site, with its zone, PUE and the factor in use. tier: how good it is, F0 to F5; provisional: that of an "
        "earlier time stands in. assumed: the zone was proposed, not configured.",
    ),
    Family(
        "wattledger_site_factor_age_seconds",
        "gauge",
        ("site",),
        "Time since the end of the period that the factor in use describes; 0 within it. Take the maximum, not the sum.",
    ),
    Family(
        "wattledger_site_factor_missing",
        "gauge",
        ("site",),
        "1 where no factor holds: the energy is metered, its emissions are unknown. A sum counts such sites.",
    ),
    Family(
        "wattledger_covered_seconds",
        "gauge",
        ("site",),
        "Channel time of the last hour with a figure.",
    ),
    Family(
        "wattledger_expected_seconds",
        "gauge",
        ("site",),
        "Channel time of the last hour that hosts without gaps would have covered.",
    ),
    Family(
        "wattledger_coverage_ratio",
        "gauge",
        ("site",),
        "wattledger_covered_seconds / wattledger_expected_seconds. For several sites divide the sums of the two instead.",
    ),
    Family(
        "wattledger_estimated_ratio",
        "gauge",
        ("site",),
        "Part of the last hour's energy that is modelled, or whose place in time is (bridged). Do not sum it over sites.",
    ),
    Family(
        "wattledger_agents",
        "gauge",
        ("site", "state"),
        "Hosts by state: reporting, silent, drained, retired, conflict, recorded; each by the collector that serves it. A "
        "sum counts all hosts ever seen.",
    ),
    Family(
        "wattledger_hosts_withheld",
        "gauge",
        ("site",),
        "Hosts whose counters, and their site's, wait after a restore until their agents have caught up.",
    ),
    Family(
        "wattledger_insecure_transport",
        "gauge",
        (),
        "1 where agents may connect from other machines without TLS.",
    ),
    Family(
        "wattledger_collector_info",
        "gauge",
        ("collector", "version"),
        "1 for each collector.",
    ),
)
