"""Dashboard Workloads: what energy was spent on, by pod, job, unit and namespace, and what no workload has.

Opens no file. Metrics: collector/wattledger_collector/metrics.py. Measured or modelled: chosen above, never mixed.
"""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.panels import (
    ALL_OR_NONE,
    COUNT,
    CPU_SECONDS_PER_KWH,
    KWH,
    RATIO,
    TO_KWH,
    WATTS,
    WORKLOADS_UID,
    Board,
    Frame,
    Query,
    bar_panel,
    table_panel,
    time_panel,
)
from grafana.shapes import tile
from grafana.workload_panels import (
    CPU_TIME,
    ENERGY,
    LEAST_STEP,
    NAMED,
    NO_WORKLOADS,
    energy_by_namespace,
    power_by_kind,
    power_of_largest,
    unnamed_shares,
)

_HOSTS = 'site=~"$site", host=~"$host"'
_ALL = f'{_HOSTS}, method=~"$method"'
_WHOSE = 'kind=~"$kind", namespace=~"$namespace"'
_CHOSEN = f"{_ALL}, {NAMED}, {_WHOSE}"
_PODS = 'kind="kubernetes_pod"'
_JOBS = 'kind="slurm_job"'
_OTHERS = 'kind!~"kubernetes_pod|slurm_job"'
_ROWS = 30
_BOOKED = "wattledger_host_energy_joules_total"


def workloads() -> Dashboard:
    """The dashboard."""
    board = Board(
        "Wattledger / Workloads",
        WORKLOADS_UID,
        "Energy by pod, job, unit and namespace, with the idle policy of each figure, and the energy that no workload has.",
    )
    board.variable("site", "Site", "label_values(wattledger_site_info, site)", multi=True)
    board.variable("host", "Host", 'label_values(wattledger_host_info{site=~"$site"}, host)', multi=True)
    kinds, namespaces = (f'label_values({ENERGY}{{site=~"$site", {NAMED}}}, {label})' for label in ("kind", "namespace"))
    board.variable("kind", "Kind", kinds, multi=True)
    board.variable("namespace", "Namespace", namespaces, multi=True, all_value=ALL_OR_NONE)
    board.choice("method", "Figures", {"Measured": "counter|integral", "Modelled": "model"})
    _add_strip(board)
    _add_power(board)
    _add_tables(board)
    _add_efficiency(board)
    _add_trust(board)
    return board.build()


def _add_strip(board: Board) -> None:
    def share(kind: str) -> list[Query]:
        part, whole = (f"sum(increase({ENERGY}{{{_ALL}{k}}}[$__range]))" for k in (f', kind="{kind}"', ""))
        return [Query(f"{part} / ({whole} > 0)")]

    energy = f"sum(increase({ENERGY}{{{_CHOSEN}}}[$__range])) {TO_KWH}"
    board.add(
        tile(
            "Energy of workloads",
            "What the chosen workloads used in the time range, without idle, unattributed and other. Prometheus does not "
            "see what a workload used before its first scrape, nor one that lived for less than two: exact figures come "
            "from `wattledger-collector report --by workload`.",
            KWH,
            NO_WORKLOADS,
            [Query(energy)],
            width=5,
        ),
        tile(
            "Energy a day",
            "The same energy, as kWh for each day of the time range.",
            KWH,
            NO_WORKLOADS,
            [Query(f"{energy} * 86400 / $__range_s")],
            width=4,
        ),
        tile(
            "Idle",
            "Share of all divided energy of the chosen hosts that was taken by hardware that waited. Under another policy "
            "than node_only it is given to workloads, and only what nobody could take is left here.",
            RATIO,
            "Nothing was left idle here, or nothing divided: the idle policy is beside this",
            share("idle"),
            width=4,
            decimals=1,
        ),
        tile(
            "Unattributed",
            "Share of all divided energy of the chosen hosts that was used, but by no known workload: the kernel, processes "
            "outside of any group, a GPU whose driver tells of no processes.",
            RATIO,
            NO_WORKLOADS,
            share("unattributed"),
            width=4,
            decimals=1,
        ),
        tile(
            "Idle policy",
            "To whom the energy of waiting hardware is given on these hosts (workloads.idle_policy in agent.toml), and the "
            "hosts where it holds. Figures of different policies do not compare.",
            COUNT,
            NO_WORKLOADS,
            [
                Query(
                    f'count by (idle_policy) (count by (host, idle_policy) ({ENERGY}{{{_ALL}, kind="unattributed"}}))',
                    "{{idle_policy}}",
                )
            ],
            width=4,
            shows_name=True,
        ),
        tile(
            "Workloads shown",
            "Chosen workloads that were seen in the last 15 minutes, and those that the 1,024 largest of a host leave out "
            "of Prometheus; the ledger has all.",
            COUNT,
            NO_WORKLOADS,
            [
                Query(f"count(count by (host, kind, namespace, workload) ({ENERGY}{{{_CHOSEN}}}))", "shown"),
                Query(f"sum(wattledger_workloads_left_out{{{_HOSTS}}})", "left out"),
            ],
            width=3,
        ),
    )


def _add_power(board: Board) -> None:
    board.add(
        power_by_kind(_ALL, width=12),
        unnamed_shares(_ALL, width=12),
        power_of_largest(
            "Largest pods",
            f"{_CHOSEN}, {_PODS}",
            "namespace, workload, idle_policy",
            "{{namespace}}/{{workload}}, {{idle_policy}}",
            width=12,
        ),
        power_of_largest(
            "Largest jobs, units, containers and machines",
            f'{_CHOSEN}, kind!="kubernetes_pod"',
            "host, kind, workload, idle_policy",
            "{{kind}} {{workload}} on {{host}}, {{idle_policy}}",
            width=12,
        ),
    )


def _table(title: str, what: str, only: str, columns: dict[str, str], *, links_to_host: bool = False) -> table.Panel:
    """Energy, power and CPU seconds per kWh of the largest. columns: the labels that tell them apart, and their headings."""
    by = ", ".join(columns)
    chosen = f"{_CHOSEN}, {only}"
    largest = f"topk({_ROWS}, sum by ({by}) (increase({ENERGY}{{{chosen}}}[$__range])))"
    power = f"sum by ({by}) (rate({ENERGY}{{{chosen}}}[$__rate_interval]))"
    worked = f"sum by ({by}) (increase({CPU_TIME}{{{_HOSTS}, {NAMED}, {_WHOSE}, {only}}}[$__range]))"
    of_cpus = f'(sum by ({by}) (increase({ENERGY}{{{chosen}, component="cpu"}}[$__range])) > 0)'
    return table_panel(
        Frame(
            title,
            f"The {_ROWS} {what} with most energy in the time range. Power: mean of the last minutes. CPU seconds per kWh: "
            "CPU time / energy of the CPUs; a workload on a busier or a newer machine has more of them. It "
            "knows no work done.",
            KWH,
            NO_WORKLOADS,
            width=24,
            height=9,
            least_step=LEAST_STEP,
        ),
        [
            Query(f"{largest} {TO_KWH}"),
            Query(f"{power} and on ({by}) {largest}"),
            Query(f"{worked} / on ({by}) {of_cpus} * 3.6e6 and on ({by}) {largest}"),
        ],
        {**columns, "Value #A": "Energy", "Value #B": "Power", "Value #C": "CPU seconds per kWh"},
        sort_by="Energy",
        units={"Power": (WATTS, 1), "CPU seconds per kWh": (CPU_SECONDS_PER_KWH, 0)},
        links_to_host=links_to_host,
    )


def _add_tables(board: Board) -> None:
    policy = {"idle_policy": "Idle policy"}
    board.row("Who used it").add(
        _table("Top pods", "pods", _PODS, {"namespace": "Namespace", "workload": "Pod", **policy}),
        _table("Top jobs", "Slurm jobs", _JOBS, {"namespace": "User or account", "workload": "Job", **policy}),
        _table(
            "Top units, containers and machines",
            "systemd units, containers and virtual machines of single hosts",
            _OTHERS,
            {"site": "site", "host": "host", "kind": "Kind", "workload": "Workload", **policy},
            links_to_host=True,
        ),
    )


def _add_efficiency(board: Board) -> None:
    per_day = f'sum by (namespace) (rate({ENERGY}{{{_CHOSEN}, namespace!=""}}[$__rate_interval])) * 86400 {TO_KWH}'
    largest = f'topk(10, sum by (namespace) (increase({ENERGY}{{{_CHOSEN}, namespace!=""}}[$__range] @ end())))'
    worked = f"sum by (kind) (rate({CPU_TIME}{{{_HOSTS}, {NAMED}, {_WHOSE}}}[$__rate_interval]))"
    of_cpus = f'(sum by (kind) (rate({ENERGY}{{{_CHOSEN}, component="cpu"}}[$__rate_interval])) > 0)'
    board.row("Namespaces and efficiency").add(
        energy_by_namespace(_CHOSEN, width=8),
        time_panel(
            Frame(
                "kWh a day by namespace",
                "The present power of each of the 10 largest namespaces, as kWh if it went on for a day.",
                KWH,
                NO_WORKLOADS,
                width=8,
                min_value=0,
                least_step=LEAST_STEP,
            ),
            Query(f"{per_day} and on (namespace) {largest}", "{{namespace}}"),
        ),
        time_panel(
            Frame(
                "CPU seconds per kWh",
                "CPU time / energy of the CPUs, by kind of workload. It rises with load, and by new machines; it knows no "
                "work done: a program that waits less or spins more has more of them.",
                CPU_SECONDS_PER_KWH,
                "No CPU of these hosts is metered by itself: a model has a whole server's power in one",
                width=8,
                decimals=0,
                min_value=0,
                least_step=LEAST_STEP,
            ),
            Query(f"{worked} / on (kind) {of_cpus} * 3.6e6", "{{kind}}"),
        ),
    )


def _add_trust(board: Board) -> None:
    unattributed, used = (
        f"sum by (host, site) (increase({ENERGY}{{{_ALL}, {kinds}}}[$__range]))"
        for kinds in ('kind="unattributed"', 'kind!="idle"')
    )
    board.row("How far to trust it").add(
        time_panel(
            Frame(
                "Divided, and booked",
                "All that was divided, idle and unattributed included, and what is booked for CPUs, memory and GPUs of the "
                "same hosts. They agree to the microjoule; here they differ by when the two were told, and by hosts that "
                "divide nothing.",
                WATTS,
                NO_WORKLOADS,
                width=12,
                min_value=0,
                least_step=LEAST_STEP,
            ),
            Query(f"sum(rate({ENERGY}{{{_ALL}}}[$__rate_interval]))", "divided"),
            # A model has a whole server's power in one, which is of no component.
            Query(
                f'sum(rate({_BOOKED}{{{_ALL}, component!="other"}}[$__rate_interval]))'
                f' or sum(rate({_BOOKED}{{{_ALL}, method="model"}}[$__rate_interval]))',
                "booked",
            ),
        ),
        bar_panel(
            Frame(
                "Unattributed share by host",
                "The 20 hosts where most of what was used, idle left out, belongs to no workload in the time range.",
                RATIO,
                NO_WORKLOADS,
                width=12,
            ),
            Query(f"topk(20, {unattributed} / ({used} > 0))", "{{host}}"),
        ),
    )
