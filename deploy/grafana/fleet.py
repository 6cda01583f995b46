"""Dashboard Fleet: what all hosts of the chosen sites draw and emit, and how far the figures can be trusted.

Opens no file. Metrics: collector/wattledger_collector/metrics.py. Measured and modelled figures never share a series.
"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.panels import (
    BYTES,
    COUNT,
    FLEET_UID,
    GRAMS_PER_HOUR,
    GRAMS_PER_KWH,
    KILOGRAMS,
    KWH,
    RATIO,
    SECONDS,
    STATE_COLOURS,
    TO_KWH,
    WATTS,
    Board,
    Frame,
    Query,
    bar_panel,
    table_panel,
    time_panel,
)
from grafana.sensor_panels import disagreement, reading_age, throttle_reasons
from grafana.shapes import (
    MEASURED,
    both,
    energy_in_range,
    failing_reads,
    over_time,
    power_by_component,
    power_now,
    ratio_over_time,
    tile,
    top_hosts,
)
from grafana.workload_panels import NAMED, energy_by_namespace, power_by_kind, unnamed_shares

_SITES = 'site=~"$site"'
_NO_HOSTS = "No host reports: run wattledger-agent doctor on one"
_NO_FACTOR = "No factor holds: give the site a zone in collector.toml"
_LOCATION = "wattledger_site_emissions_grams_total"
_MARKET = "wattledger_site_market_based_emissions_grams_total"
_GRAMS_PER_HOUR = f"sum by (site, metering) (rate(%s{{{_SITES}}}[$__rate_interval])) * 3600"
_NO_MODEL = "Nothing is modelled here"
_NO_MEASURE = "Nothing is measured here: wattledger-agent doctor says how to get sensors"
# Each of these is 0 or more where the collector is scraped at all, so that an empty answer is told from "none".
_PROBLEMS = f"""(sum(wattledger_agents{{{_SITES}, state=~"silent|conflict"}}) or 0 * sum(wattledger_agents{{{_SITES}}}))
+ sum(wattledger_site_factor_missing{{{_SITES}}})
+ sum(wattledger_hosts_withheld{{{_SITES}}})
+ sum(wattledger_insecure_transport)"""


def fleet() -> Dashboard:
    """The dashboard."""
    board = Board(
        "Wattledger / Fleet",
        FLEET_UID,
        "Power, energy and emissions of all hosts, by site and component, with the quality of the figures.",
    )
    board.variable("site", "Site", "label_values(wattledger_site_info, site)", multi=True)
    _add_strip(board)
    _add_power(board)
    _add_carbon(board)
    _add_hosts(board)
    _add_workloads(board)
    _add_quality(board)
    return board.build()


def _add_strip(board: Board) -> None:
    grams = _LOCATION
    board.add(
        tile(
            "Power now",
            "Sum of the present power of all hosts that report, over leaves and residuals, so that nothing is counted "
            "twice. Modelled power is an estimate and stands apart.",
            WATTS,
            _NO_HOSTS,
            power_now(_SITES),
            width=5,
        ),
        tile(
            "Energy",
            "Energy booked in the time range: increase of the ledger's counters / 3.6e6. Prometheus extrapolates to the "
            "ends of the range; exact figures come from `wattledger-collector report`.",
            KWH,
            "No energy was booked in this range",
            energy_in_range("wattledger_site_energy_joules_total", _SITES),
            width=5,
        ),
        tile(
            "Emissions (CO2e)",
            "Location based, over all scopes: energy x PUE x the grid factor known when each interval was first booked. "
            "Provisional: factors that were corrected later show in `wattledger-collector report`.",
            KILOGRAMS,
            _NO_FACTOR,
            [
                Query(f'sum(increase({grams}{{{_SITES}, metering="measured"}}[$__range])) / 1000', "measured"),
                Query(f'sum(increase({grams}{{{_SITES}, metering="modelled"}}[$__range])) / 1000', "modelled"),
            ],
            width=5,
            decimals=3,
        ),
        tile(
            "Coverage",
            "Channel time of the last hour with a figure / channel time that hosts without gaps would have covered. "
            "Below 95 % totals are too low by about the rest.",
            RATIO,
            "No host is expected to report",
            [
                Query(f"sum(wattledger_covered_seconds{{{_SITES}}}) / sum(wattledger_expected_seconds{{{_SITES}}})"),
            ],
            width=3,
            decimals=1,
        ),
        tile(
            "Agents",
            "Hosts that report, and hosts that should: reporting, silent or in conflict. Drained, retired and recorded "
            "hosts are not expected.",
            COUNT,
            "No agent has connected yet: see Add your fleet in README.md",
            [
                Query(
                    f'sum(wattledger_agents{{{_SITES}, state="reporting"}}) or 0 * sum(wattledger_agents{{{_SITES}}})',
                    "reporting",
                ),
                Query(f'sum(wattledger_agents{{{_SITES}, state=~"reporting|silent|conflict"}})', "expected"),
            ],
            width=3,
        ),
        tile(
            "Open problems",
            "Silent agents, id conflicts, sites without a factor, hosts withheld after a restore, and collectors "
            "without TLS. Counted from the metrics, so it needs no alert rules. The list is at the end of this page.",
            COUNT,
            "No collector is scraped: see deploy/prometheus",
            [
                Query(_PROBLEMS),
            ],
            width=3,
        ),
    )


def _add_power(board: Board) -> None:
    board.add(
        *power_by_component(
            _SITES,
            (
                "From counters and sensors. A hole is a time without a figure, not a zero.",
                "Estimated from CPU model and load, for hosts without sensors; the collector's page shows the 95 % band.",
            ),
            (_NO_MEASURE, _NO_MODEL),
            (16, 8),
            height=9,
        ),
    )


def _add_carbon(board: Board) -> None:
    intensity = f"max by (site, gas) (wattledger_grid_carbon_intensity_grams_per_kwh{{{_SITES}}})"
    info = f"max by (site, zone, pue, factor, assumed) (wattledger_site_info{{{_SITES}}})"
    energy = f"sum by (site) (increase(wattledger_site_energy_joules_total{{{_SITES}, %s}}[$__range])) {TO_KWH}"
    board.row("Carbon").add(
        time_panel(
            Frame(
                "Emissions by site, location based (CO2e)",
                "Rate of the emission counters x 3600, by the grid's factor. Measured and modelled energy of a site are two "
                "lines.",
                GRAMS_PER_HOUR,
                _NO_FACTOR,
                width=12,
                decimals=1,
                min_value=0,
            ),
            Query(_GRAMS_PER_HOUR % _LOCATION, "{{site}}, {{metering}}"),
        ),
        time_panel(
            Frame(
                "Emissions by site, market based (CO2e)",
                "The same energy by the residual mix of its market where it stands in scope 2; without one the grid's "
                "factor stands in. Certificates are retired later: they are in `wattledger-collector report`, never here.",
                GRAMS_PER_HOUR,
                _NO_FACTOR,
                width=12,
                decimals=1,
                min_value=0,
            ),
            Query(_GRAMS_PER_HOUR % _MARKET, "{{site}}, {{metering}}"),
        ),
        bar_panel(
            Frame(
                "Emissions by scope, location and market based (CO2e)",
                "Both figures of the time range, of the same energy: report both, never add them. Scopes are those declared "
                "when the energy came (2 where nothing is); 3.1 and 3.8 are a provider's and a lessor's electricity.",
                KILOGRAMS,
                _NO_FACTOR,
                width=12,
                decimals=3,
            ),
            *(
                Query(
                    f"sum by (scope, metering) (increase({grams}{{{_SITES}}}[$__range])) / 1000",
                    f"scope {{{{scope}}}}, {method} based, {{{{metering}}}}",
                )
                for grams, method in ((_LOCATION, "location"), (_MARKET, "market"))
            ),
        ),
        time_panel(
            Frame(
                "Grid carbon intensity (CO2e)",
                "The factor in use at each site. An intensity: weigh it by energy, never add it up. Its source is in the "
                "table below.",
                GRAMS_PER_KWH,
                _NO_FACTOR,
                width=12,
                decimals=0,
                min_value=0,
            ),
            Query(intensity, "{{site}}, {{gas}}"),
        ),
        table_panel(
            Frame(
                "Factor and its source",
                "Zone, PUE and emission factor in use at each site; the factor's name leads to document and licence by "
                "`wattledger-collector factors show ZONE`. assumed: the zone was proposed by the program.",
                GRAMS_PER_KWH,
                "No site has a factor: give it a zone in collector.toml",
                width=14,
                decimals=1,
            ),
            [Query(f"{intensity} * on (site) group_left (zone, pue, factor, assumed) {info}")],
            {
                "site": "Site",
                "zone": "Zone",
                "pue": "PUE",
                "factor": "Factor",
                "gas": "Gas",
                "assumed": "Assumed",
                "Value": "g CO2e / kWh",
            },
            sort_by="g CO2e / kWh",
        ),
        bar_panel(
            Frame(
                "Energy by site",
                "Energy booked in the time range, without PUE. Measured and modelled energy of a site are two bars.",
                KWH,
                "No energy was booked in this range",
                width=10,
            ),
            Query(energy % 'method!="model"', "{{site}}, measured"),
            Query(energy % 'method="model"', "{{site}}, modelled"),
        ),
        bar_panel(
            Frame(
                "Energy by quality",
                "Energy of the time range that is in the emission counters, by how it was metered (bridged: the amount was "
                "counted, its place in time was not) and by the tier of its factor; F0 and F1 are the grid's own hours, F4 "
                "and F5 a year's mean.",
                KWH,
                _NO_FACTOR,
                width=12,
            ),
            Query(
                "sum by (metering, factor_tier) "
                f"(increase(wattledger_site_quality_energy_joules_total{{{_SITES}}}[$__range])) {TO_KWH}",
                "{{metering}}, {{factor_tier}}",
            ),
        ),
        over_time(
            "Energy without a factor",
            "All energy of a site so far that is in no emission counter, since no factor covers it (tier F9). Unknown, and "
            "not zero. It falls when a factor comes.",
            KWH,
            "No collector is scraped: see deploy/prometheus",
            Query(
                f"sum by (site, metering) (wattledger_site_uncovered_energy_joules{{{_SITES}}}) {TO_KWH}",
                "{{site}}, {{metering}}",
            ),
            width=12,
        ),
        over_time(
            "Age of factors in use",
            "Time since the end of the period that a site's factor describes. A yearly table is one to three years old "
            "until the next one is published; its figures are provisional.",
            SECONDS,
            _NO_FACTOR,
            Query(f"max by (site) (wattledger_site_factor_age_seconds{{{_SITES}}})", "{{site}}"),
            width=12,
        ),
        over_time(
            "Time with superseded factors",
            "Time whose energy is in the emission counters with a factor for which another holds now. Counters stay; "
            "reports use the new one, and a closed period is restated by closing it again.",
            SECONDS,
            "No collector is scraped: see deploy/prometheus",
            Query(f"max by (site, resolution) (wattledger_site_superseded_seconds{{{_SITES}}})", "{{site}}, {{resolution}}"),
            width=12,
        ),
        over_time(
            "Age of factors that are asked for",
            "Time since the end of the newest grid factor by a source that is asked live. Hourly ones are some hours old at "
            "best. One that climbs has stopped: until it goes on, the site's next source of factors stands in.",
            SECONDS,
            "No source is asked for factors: see [[factors.source]] in collector.toml",
            Query("max by (source, zone) (wattledger_factor_age_seconds)", "{{zone}}, {{source}}"),
            width=24,
        ),
    )


def _add_hosts(board: Board) -> None:
    top = "topk(20, sum by (host, site) (increase(wattledger_host_energy_joules_total{%s}[$__range]))) " + TO_KWH
    in_range = "The 20 hosts with most %s energy in the time range. A host's name leads to its own dashboard."
    measured, modelled = both(top, _SITES)
    board.row("Hosts").add(
        top_hosts("measured", in_range % "measured", measured.expr, _NO_MEASURE),
        top_hosts("modelled", in_range % "estimated", modelled.expr, _NO_MODEL),
    )


def _add_workloads(board: Board) -> None:
    measured = f"{_SITES}, {MEASURED}"
    board.row("What it was spent on, by measured energy").add(
        energy_by_namespace(f"{measured}, {NAMED}", width=8),
        power_by_kind(measured, width=8),
        unnamed_shares(measured, width=8),
    )


def _add_quality(board: Board) -> None:
    board.row("Data quality").add(
        time_panel(
            Frame(
                "Agents by state",
                "reporting: a fresh value. silent: none within the staleness window. conflict: two machines with one id. "
                "drained, retired: by `wattledger-collector host`. recorded: a recording, never live.",
                COUNT,
                "No agent has connected yet: see Add your fleet in README.md",
                width=8,
                colours=STATE_COLOURS,
                min_value=0,
            ),
            Query(f"sum by (state) (wattledger_agents{{{_SITES}}})", "{{state}}"),
            stacked=True,
        ),
        ratio_over_time(
            "Coverage by site",
            "Channel time with a figure / channel time expected, of the trailing hour.",
            "No host is expected to report",
            Query(
                f"sum by (site) (wattledger_covered_seconds{{{_SITES}}})"
                f" / sum by (site) (wattledger_expected_seconds{{{_SITES}}})",
                "{{site}}",
            ),
            width=8,
        ),
        over_time(
            "Spools, waiting for acknowledgement",
            "Bytes on the hosts' disks that the collector has not acknowledged. Only of agents that are connected.",
            BYTES,
            _NO_HOSTS,
            Query(f"sum by (site) (wattledger_agent_spool_bytes{{{_SITES}}})", "{{site}}"),
            width=8,
        ),
        time_panel(
            Frame(
                "Failing reads by source",
                "Reads that failed or hung / reads, over all hosts.",
                RATIO,
                _NO_HOSTS,
                width=8,
                decimals=2,
                min_value=0,
            ),
            failing_reads(_SITES, "sum by (source) "),
        ),
        over_time(
            "Largest clock difference",
            "How far the clock of any host is from the collector's, ahead or behind. Energy is exact all the same, its "
            "interval may not be.",
            SECONDS,
            _NO_HOSTS,
            Query(f"max by (site) (abs(wattledger_agent_clock_offset_seconds{{{_SITES}}}))", "{{site}}"),
            width=8,
        ),
        over_time(
            "Withheld hosts and missing factors",
            "Hosts whose counters wait after a restore, and sites whose emissions are unknown.",
            COUNT,
            "No collector is scraped: see deploy/prometheus",
            Query(f"sum(wattledger_hosts_withheld{{{_SITES}}})", "hosts withheld"),
            Query(f"sum(wattledger_site_factor_missing{{{_SITES}}})", "sites without a factor"),
            width=8,
        ),
        disagreement(_SITES, width=8),
        reading_age(_SITES, width=8),
        throttle_reasons(_SITES, width=8),
        table_panel(
            Frame(
                "Firing alerts",
                "Alerts of deploy/prometheus/rules that fire now; deploy/RUNBOOK.md has a section for each. Empty, too, if "
                "the rules are not loaded.",
                COUNT,
                "No alert fires (or Prometheus does not load deploy/prometheus/rules)",
                width=24,
            ),
            [
                Query(
                    "count by (alertname, severity, site, host, source, instance) "
                    '(ALERTS{alertname=~"Wattledger.+", alertstate="firing"})'
                )
            ],
            {
                "alertname": "Alert",
                "severity": "Severity",
                "site": "site",
                "host": "host",
                "source": "Source",
                "instance": "Collector",
            },
            sort_by="Severity",
            links_to_host=True,
        ),
    )
