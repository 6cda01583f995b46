"""Dashboard Sensors: which source measures what, where two disagree, what sensors fail to tell, and how GPUs are held down.

Opens no file. Metrics: collector/wattledger_collector/metrics.py. Nothing here is added to what is booked.
"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.panels import COUNT, RATIO, SECONDS, SENSORS_UID, WATTS, Board, Frame, Query, table_panel, time_panel
from grafana.sensor_panels import (
    FAULTY_THROTTLE,
    agent_cpu,
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
from grafana.shapes import failing_reads, tile

_HOSTS = 'site=~"$site", host=~"$host"'
_CHECK = "wattledger_cross_check_disagreement_ratio"
_MEASURED_CHECK = f'{_CHECK}{{{_HOSTS}, source!="estimate"}}'
_ESTIMATE_CHECK = f'{_CHECK}{{{_HOSTS}, source="estimate"}}'
_NO_CHANNEL = "Nothing is metered here: wattledger-agent doctor says how to get sensors"


def sensors() -> Dashboard:
    """The dashboard."""
    board = Board(
        "Wattledger / Sensors",
        SENSORS_UID,
        "What measures what, where sources disagree, what they fail to tell, and the clocks and temperatures of GPUs.",
    )
    board.variable("site", "Site", "label_values(wattledger_site_info, site)", multi=True)
    board.variable("host", "Host", 'label_values(wattledger_host_info{site=~"$site"}, host)', multi=True)
    _add_strip(board)
    _add_sources(board)
    _add_disagreement(board)
    _add_failures(board)
    _add_gpus(board)
    _add_agents(board)
    return board.build()


def _add_strip(board: Board) -> None:
    board.add(
        tile(
            "Largest disagreement",
            "Between two sources of one quantity, of all chosen hosts, in either direction; the estimate left out. Beyond "
            "15 % one of them is wrong, or they do not measure the same thing.",
            RATIO,
            "No quantity is metered by two sources here (or for less than a minute)",
            [Query(f"max(abs({_MEASURED_CHECK}))")],
            width=5,
            decimals=1,
        ),
        tile(
            "Mean bias of the estimate",
            "Mean over the hosts that have a meter: estimated / metered energy, less 1.",
            RATIO,
            "No metered host here is estimated beside its meter",
            [Query(f"avg({_ESTIMATE_CHECK})")],
            width=5,
            decimals=1,
        ),
        tile(
            "Oldest value",
            "Age of the oldest value of a management controller, or of an accelerator that is asked by a command.",
            SECONDS,
            "No source here is asked in the background",
            [Query(f"max(wattledger_source_reading_age_seconds{{{_HOSTS}}})")],
            width=4,
        ),
        tile(
            "Values a sensor did not give",
            "In the time range, over all chosen hosts. How many that is of all reads is further below.",
            COUNT,
            "The agents do not tell this: upgrade them",
            [Query(f"sum(increase(wattledger_agent_failed_reads_total{{{_HOSTS}}}[$__range]))")],
            width=5,
            decimals=0,
        ),
        tile(
            "GPUs held down",
            "GPUs whose clocks are lowered at present by heat or by too little power from board or machine. A power limit "
            "and rest are not counted.",
            COUNT,
            "No GPU is held down by a fault, or none tells",
            [Query(f"count(count by (host, device) (wattledger_device_throttle_reasons{{{_HOSTS}, {FAULTY_THROTTLE}}}))")],
            width=5,
        ),
    )


def _add_sources(board: Board) -> None:
    booked, seen = (f"wattledger_{name}_energy_joules_total{{{_HOSTS}}}[$__rate_interval]" for name in ("channel", "meter"))
    by = "source, domain, component, method"
    board.row("What measures what").add(
        table_panel(
            Frame(
                "Booked channels",
                "The leaves and residuals that are summed: how many there are of each source, and their present power. "
                "counter: by the hardware; integral: power over time; model: an estimate. Choose one host to see its own.",
                WATTS,
                _NO_CHANNEL,
                width=14,
                height=9,
            ),
            [Query(f"sum by ({by}) (rate({booked}))"), Query(f"count by ({by}) (rate({booked}))")],
            {
                "source": "Source",
                "domain": "Domain",
                "component": "Component",
                "method": "Method",
                "Value #A": "Power",
                "Value #B": "Channels",
            },
            sort_by="Power",
            units={"Channels": (COUNT, 0)},
        ),
        table_panel(
            Frame(
                "Meters of nodes and modules",
                "What meters saw: their parts and residuals are booked in place of them. Power is shown to compare, never "
                "to add.",
                WATTS,
                "No meter sees a whole node or module here",
                width=10,
                height=9,
            ),
            [
                Query(f"sum by (source, domain, method) (rate({seen}))"),
                Query(f"count by (source, domain, method) (rate({seen}))"),
            ],
            {"source": "Source", "domain": "Domain", "method": "Method", "Value #A": "Power", "Value #B": "Meters"},
            sort_by="Power",
            units={"Meters": (COUNT, 0)},
        ),
    )


def _add_disagreement(board: Board) -> None:
    board.row("Do they agree?").add(disagreement(_HOSTS, width=12), estimate_bias(_HOSTS, width=12))


def _add_failures(board: Board) -> None:
    board.row("What sensors fail to tell").add(
        time_panel(
            Frame(
                "Failing reads by source",
                "Reads that failed or hung / reads, over the chosen hosts.",
                RATIO,
                "No chosen host reports",
                width=8,
                decimals=2,
                min_value=0,
            ),
            failing_reads(_HOSTS, "sum by (source) "),
        ),
        unused_values(_HOSTS, width=8),
        reading_age(_HOSTS, width=8),
    )


def _add_gpus(board: Board) -> None:
    board.row("GPUs and accelerators").add(
        gpu_activity(_HOSTS, width=12),
        power_against_limit(_HOSTS, width=12),
        throttle_reasons(_HOSTS, width=12),
        gpu_clocks(_HOSTS, width=12),
        gpu_temperature(_HOSTS, width=12),
        power_by_window(_HOSTS, width=12),
    )


def _add_agents(board: Board) -> None:
    board.row("What metering costs").add(
        agent_cpu(_HOSTS, width=8), agent_power(_HOSTS, width=8), agent_work(_HOSTS, width=8)
    )
