"""Panels of what energy was spent on, for whichever hosts a selector takes: used by several dashboards.

Adds nothing up that the ledger keeps apart: measured or modelled, and each figure with its idle policy. Metrics:
wattledger_workload_* of collector/wattledger_collector/metrics.py.
"""

from grafana_foundation_sdk.builders import bargauge, timeseries

from grafana.panels import GREY, KWH, ORANGE, PURPLE, TO_KWH, VERMILION, WATTS, Frame, Query, bar_panel, time_panel
from grafana.shapes import ratio_over_time

ENERGY = "wattledger_workload_energy_joules_total"
CPU_TIME = "wattledger_workload_cpu_seconds_total"

# What belongs to a workload with a name; the rest is one line each on a host.
NAMED = 'kind!~"idle|unattributed|other"'
UNNAMED = 'kind=~"idle|unattributed|other"'

NO_WORKLOADS = "No energy was divided here: see [workloads] in agent.toml, and wattledger-agent doctor"

# Agents account for workloads once a minute: over less than four minutes a rate would jump between nothing and twice itself.
LEAST_STEP = "1m"

_KIND_COLOURS = {"idle": GREY, "unattributed": VERMILION, "other": PURPLE, "kubernetes_pod": ORANGE}


def power_by_kind(selector: str, *, width: int) -> timeseries.Panel:
    """Power over time by what it was spent on, stacked: all of it together is what was divided."""
    frame = Frame(
        "Power by what it was spent on",
        "Rate of the energy that was divided: CPU packages, memory and GPUs, without what a meter of the node saw beyond "
        "them. idle: hardware that waited, unless the idle policy gives it to workloads. unattributed: busy for no known "
        "workload. other: workloads beyond workloads.accounts_max.",
        WATTS,
        NO_WORKLOADS,
        width,
        colours=_KIND_COLOURS,
        least_step=LEAST_STEP,
    )
    query = Query(f"sum by (kind) (rate({ENERGY}{{{selector}}}[$__rate_interval]))", "{{kind}}")
    return time_panel(frame, query, stacked=True)


def power_of_largest(title: str, selector: str, by: str, legend: str, *, width: int, count: int = 10) -> timeseries.Panel:
    """Power over time of those that used most energy in the range shown. by: the labels that tell them apart."""
    frame = Frame(
        title,
        f"The {count} that used most energy in the time range, whenever in it that was; the same ones at every instant. The "
        "name ends with the idle policy: with any but node_only, idle hardware is in the figure.",
        WATTS,
        NO_WORKLOADS,
        width,
        min_value=0,
        least_step=LEAST_STEP,
    )
    power = f"sum by ({by}) (rate({ENERGY}{{{selector}}}[$__rate_interval]))"
    energy = f"sum by ({by}) (increase({ENERGY}{{{selector}}}[$__range] @ end()))"
    return time_panel(frame, Query(f"{power} and on ({by}) topk({count}, {energy})", legend))


def unnamed_shares(selector: str, *, width: int) -> timeseries.Panel:
    """Shares of the divided energy that no workload has, over time."""
    part, whole = (
        f"sum{by} (rate({ENERGY}{{{selector}{kinds}}}[$__rate_interval]))"
        for by, kinds in ((" by (kind)", f", {UNNAMED}"), ("", ""))
    )
    return ratio_over_time(
        "Idle, unattributed and other, as shares",
        "Of the energy that was divided. Much that is idle: machines wait, or the idle policy is node-only and they are "
        "little used. Much that is unattributed: see WattledgerUnattributedHigh in deploy/RUNBOOK.md.",
        NO_WORKLOADS,
        Query(f"{part} / on () group_left () ({whole} > 0)", "{{kind}}"),
        width=width,
        least_step=LEAST_STEP,
    )


def energy_by_namespace(selector: str, *, width: int, count: int = 20) -> bargauge.Panel:
    """Energy of namespaces in the range."""
    frame = Frame(
        "Energy by namespace",
        f"The {count} Kubernetes namespaces, or Slurm users or accounts, with most energy in the time range, and the idle "
        "policy of the figure. Workloads without a namespace (units, containers, machines) are not in it.",
        KWH,
        NO_WORKLOADS,
        width,
    )
    energy = f'sum by (namespace, idle_policy) (increase({ENERGY}{{{selector}, namespace!=""}}[$__range]))'
    return bar_panel(frame, Query(f"topk({count}, {energy}) {TO_KWH}", "{{namespace}}, {{idle_policy}}"))
