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
        ("site", "scope", "method", "gas", "boundary", "basis", "metering"),
        "Emissions of a site: energy x PUE x the grid factor known when first used. Corrections appear in reports.",
    ),
    Family(
        "wattledger_grid_carbon_intensity_grams_per_kwh",
        "gauge",
        ("site", "gas"),
        "Grid factor in use. An intensity: weigh it by energy, do not sum it over sites.",
    ),
    Family(
        "wattledger_site_info",
        "gauge",
        ("site", "zone", "pue", "factor", "assumed"),
        "1 for each site, with its zone, PUE and the factor in use. assumed: the zone was proposed, not configured.",
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
