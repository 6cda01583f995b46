"""Dashboard Host: one host's power by component and channel, what it does for it, and how far its figures can be trusted.

Opens no file. Metrics: collector/wattledger_collector/metrics.py. Measured and modelled figures never share a series.
"""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.panels import (
    BLUE,
    BYTES,
    COUNT,
    GREEN,
    HOST_UID,
    JOULES,
    KWH,
    RATIO,
    SECONDS,
    STATE_COLOURS,
    TO_KWH,
    WATTS,
    Board,
    Frame,
    Query,
    as_baseline,
    bar_panel,
    on_right_axis,
    time_panel,
)
from grafana.sensor_panels import (
    agent_power,
    agent_work,
    disagreement,
    estimate_bias,
    gpu_activity,
    gpu_clocks,
    gpu_temperature,
    power_against_limit,
    power_by_window,
    reading_age,
    throttle_reasons,
    unused_values,
)
from grafana.shapes import (
    MEASURED,
    energy_in_range,
    failing_reads,
    over_time,
    power_by_component,
    power_now,
    ratio_over_time,
    tile,
)
from grafana.workload_panels import NAMED, power_by_kind, power_of_largest, unnamed_shares

_HOST = 'host="$host"'
_AGE = f"time() - max(wattledger_host_last_sample_timestamp_seconds{{{_HOST}}})"
_SILENT = "The host is silent in this range: run wattledger-agent doctor on it"
_NO_MODEL = "Nothing is modelled on this host"
_NO_MEASURE = "Nothing is measured on this host: wattledger-agent doctor says how to get sensors"
_NO_GPU = "No GPU agent source on this host: wattledger-agent doctor says why"
_NO_ENERGY = "No energy was booked in this range"


def host() -> Dashboard:
    """The dashboard."""
    board = Board("Wattledger / Host", HOST_UID, "Power, energy and utilization of one host, and the health of its sensors.")
    board.variable("site", "Site", "label_values(wattledger_site_info, site)", multi=True)
    board.variable("host", "Host", 'label_values(wattledger_host_info{site=~"$site"}, host)', multi=False)
    _add_strip(board)
    _add_power(board)
    _add_utilization(board)
    _add_gpus(board)
    _add_workloads(board)
    _add_efficiency(board)
    _add_quality(board)
    return board.build()


def _add_strip(board: Board) -> None:
    board.add(
        tile(
            "State and name",
            "How the operator sees the host (active, drained), and its host name. Whether it reports is in the age of "
            "its newest sample.",
            COUNT,
            "Unknown host: choose one above",
            [
                Query(f"max by (state, hostname) (wattledger_host_info{{{_HOST}}})", "{{state}}: {{hostname}}"),
            ],
            width=5,
            shows_name=True,
        ),
        tile(
            "Power now",
            "Present power over leaves and residuals. Modelled power is an estimate and stands apart.",
            WATTS,
            _SILENT,
            power_now(_HOST),
            width=5,
        ),
        tile(
            "Energy",
            "Energy booked in the time range: increase of the ledger's counters / 3.6e6.",
            KWH,
            _NO_ENERGY,
            energy_in_range("wattledger_host_energy_joules_total", _HOST),
            width=5,
        ),
        tile(
            "Age of the newest sample",
            "Time since the newest committed sample. Above a minute the host is silent, or delivers a backlog.",
            SECONDS,
            "Nothing was ever booked for this host",
            [
                Query(_AGE),
            ],
            width=4,
        ),
        tile(
            "Fresh in this range",
            "Share of the time range in which the newest committed sample was less than a minute old. What was missing "
            "then may have been delivered later; gaps with their bounds are in `wattledger-collector report`.",
            RATIO,
            "Nothing was ever booked for this host",
            [
                Query(f"avg_over_time(({_AGE} < bool 60)[$__range:1m])"),
            ],
            width=5,
            decimals=1,
        ),
    )


def _add_power(board: Board) -> None:
    board.add(
        *power_by_component(
            _HOST,
            (
                "From counters and sensors. A hole is a time without a figure, not a zero.",
                "Estimated from CPU model and load; the collector's page shows the 95 % band.",
            ),
            (_NO_MEASURE, _NO_MODEL),
            (12, 12),
        ),
        time_panel(
            Frame(
                "Power by channel",
                "Rate of each channel's energy as booked, leaves and residuals. The name ends with the method: counter, "
                "integral or model.",
                WATTS,
                _NO_ENERGY,
                width=12,
            ),
            Query(
                f"rate(wattledger_channel_energy_joules_total{{{_HOST}}}[$__rate_interval])",
                "{{device}} {{domain}}, {{source}}, {{method}}",
            ),
        ),
        time_panel(
            Frame(
                "Node meter and its parts",
                "What a meter of the whole node saw, and the sum of what is booked: parts and residual. The two agree but "
                "for the counters' rounding; nothing is added twice.",
                WATTS,
                "No meter sees this whole node",
                width=6,
            ),
            Query(
                f"rate(wattledger_meter_energy_joules_total{{{_HOST}}}[$__rate_interval])",
                "meter: {{device}} {{domain}}, {{source}}, {{method}}",
            ),
            Query(
                f'sum(rate(wattledger_host_energy_joules_total{{{_HOST}, method!="model"}}[$__rate_interval]))',
                "booked, measured",
            ),
        ),
        bar_panel(
            Frame(
                "Energy by component",
                "Energy booked in the time range. The name ends with the method: counter, integral or model.",
                KWH,
                _NO_ENERGY,
                width=6,
            ),
            Query(
                f"sum by (component, method) (increase(wattledger_host_energy_joules_total{{{_HOST}}}[$__range])) {TO_KWH}",
                "{{component}}, {{method}}",
            ),
        ),
    )


def _add_utilization(board: Board) -> None:
    cpu_power = time_panel(
        Frame(
            "CPU power and utilization",
            "Measured power of the CPU packages on the left, share of busy CPU time on the right.",
            WATTS,
            _NO_MEASURE,
            width=12,
            colours={"power": BLUE},
            min_value=0,
        ),
        Query(f'sum(wattledger_host_power_watts{{{_HOST}, component="cpu", method!="model"}})', "power"),
        Query(f'avg(wattledger_utilization_ratio{{{_HOST}, device="cpu"}})', "utilization"),
    )
    board.row("Utilization").add(
        on_right_axis(cpu_power, "utilization", RATIO, GREEN),
        ratio_over_time(
            "CPU, memory and steal",
            "Share of busy CPU time, of memory in use, and of time that a hypervisor gave to others.",
            _SILENT,
            Query(f'wattledger_utilization_ratio{{{_HOST}, device!~"gpu/.+"}}', "{{device}} busy"),
            Query(f'wattledger_memory_utilization_ratio{{{_HOST}, device!~"gpu/.+"}}', "{{device}} memory"),
            Query(f"wattledger_steal_ratio{{{_HOST}}}", "{{device}} steal"),
            width=12,
        ),
        over_time(
            "GPU power",
            "Rate of each GPU's energy. Method counter comes from the GPU's own energy counter, integral from samples "
            "of its power.",
            WATTS,
            _NO_GPU,
            Query(
                "sum by (device, method) "
                f'(rate(wattledger_channel_energy_joules_total{{{_HOST}, component="gpu"}}[$__rate_interval]))',
                "{{device}}, {{method}}",
            ),
            width=12,
        ),
        ratio_over_time(
            "GPU utilization",
            "Share of time in which a kernel ran, however small: 100 % can be one of 132 multiprocessors. Read it with "
            "the power beside it. A GPU split by MIG has none.",
            _NO_GPU,
            Query(f'wattledger_utilization_ratio{{{_HOST}, device=~"gpu/.+"}}', "{{device}} busy"),
            Query(f'wattledger_memory_utilization_ratio{{{_HOST}, device=~"gpu/.+"}}', "{{device}} memory"),
            width=12,
        ),
    )


def _add_gpus(board: Board) -> None:
    board.row("GPUs").add(
        gpu_activity(_HOST, width=8),
        power_against_limit(_HOST, width=8, name=""),
        throttle_reasons(_HOST, width=8),
        gpu_clocks(_HOST, width=8),
        gpu_temperature(_HOST, width=8, name=""),
        power_by_window(_HOST, width=8),
    )


def _add_workloads(board: Board) -> None:
    measured = f"{_HOST}, {MEASURED}"
    board.row("Workloads, by measured energy").add(
        power_of_largest(
            "Largest workloads",
            f"{measured}, {NAMED}",
            "kind, namespace, workload, idle_policy",
            "{{kind}} {{workload}}, {{idle_policy}}",
            width=10,
        ),
        power_by_kind(measured, width=7),
        unnamed_shares(measured, width=7),
    )


def _add_efficiency(board: Board) -> None:
    board.row("Efficiency").add(
        _busy_energy(
            "CPU", "cpu", f'avg_over_time(wattledger_utilization_ratio{{{_HOST}, device="cpu"}}[$__rate_interval])'
        ),
        _busy_energy(
            "GPU", "gpu", f'avg_over_time(wattledger_utilization_ratio{{{_HOST}, device=~"gpu/.+"}}[$__rate_interval])'
        ),
    )


def _busy_energy(name: str, component: str, load: str) -> timeseries.Panel:
    flow = f'{_HOST}, component="{component}", method!="model"'
    panel = time_panel(
        Frame(
            f"Energy per busy second, {name}",
            f"Measured {name} power / busy {name}s (all CPUs of the host count as one device). It falls as load rises, "
            "since idle power is shared by more work. baseline: the host's own last week at the same load, hourly. It knows "
            "no work: see deploy/RUNBOOK.md for what it can't see.",
            JOULES,
            f"No measured {name} power, or busy for less than 5 %",
            width=12,
            min_value=0,
        ),
        Query(
            f"sum(rate(wattledger_host_energy_joules_total{{{flow}}}[$__rate_interval])) / (sum({load}) >= 0.05)",
            "energy per busy second",
        ),
        Query(
            f'max(host_component:wattledger_busy_energy_joules:expected1h{{{_HOST}, component="{component}"}})', "baseline"
        ),
    )
    return as_baseline(panel, "baseline")


def _add_quality(board: Board) -> None:
    board.row("Data quality").add(
        over_time(
            "Age of the newest sample over time",
            "It stays below a minute while all is well, and climbs during an outage. A fall back means that the backlog "
            "has arrived; what stays missing is a gap with bounds in `wattledger-collector report`.",
            SECONDS,
            "Nothing was ever booked for this host",
            Query(_AGE, "age"),
            width=8,
        ),
        ratio_over_time(
            "Coverage of its site",
            "Channel time with a figure / channel time expected, of the trailing hour, over all hosts of its site.",
            "No host of the site is expected to report",
            Query(
                f"max by (site) (wattledger_coverage_ratio and on (site) group by (site) (wattledger_host_info{{{_HOST}}}))",
                "{{site}}",
            ),
            width=8,
        ),
        time_panel(
            Frame(
                "Failing reads by source",
                "Reads that failed or hung / reads. A hardware counter makes up for missed reads; an integral does not.",
                RATIO,
                _SILENT,
                width=8,
                decimals=2,
                min_value=0,
            ),
            failing_reads(_HOST, ""),
        ),
        over_time(
            "Spool, waiting for acknowledgement",
            "Bytes on the host's disk that the collector has not acknowledged. Only while the agent is connected.",
            BYTES,
            _SILENT,
            Query(f"wattledger_agent_spool_bytes{{{_HOST}}}", "waiting"),
            width=8,
        ),
        time_panel(
            Frame(
                "Clock difference",
                "How far the host's clock is ahead of the collector's.",
                SECONDS,
                _SILENT,
                width=8,
            ),
            Query(f"wattledger_agent_clock_offset_seconds{{{_HOST}}}", "ahead"),
        ),
        on_right_axis(
            time_panel(
                Frame(
                    "What the agent costs",
                    "Resident memory of the agent on the left, its share of one CPU on the right.",
                    BYTES,
                    "The agent does not tell what it costs: upgrade it",
                    width=8,
                    colours={"memory": STATE_COLOURS["recorded"]},
                    min_value=0,
                ),
                Query(f"wattledger_agent_memory_bytes{{{_HOST}}}", "memory"),
                Query(f"rate(wattledger_agent_cpu_seconds_total{{{_HOST}}}[$__rate_interval])", "CPU"),
            ),
            "CPU",
            RATIO,
            GREEN,
        ),
        disagreement(_HOST, width=8, name=""),
        estimate_bias(_HOST, width=8, name=""),
        reading_age(_HOST, width=8, name=""),
        unused_values(_HOST, width=8),
        agent_power(_HOST, width=8),
        agent_work(_HOST, width=8),
    )
