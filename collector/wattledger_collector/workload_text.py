"""The workloads of one host as text of /metrics.

Holds no value.
"""

from typing import Final

from wattledger_collector.fleet_workloads import ShownWorkloads, WorkloadSeries
from wattledger_collector.host_text import HostText
from wattledger_collector.live_text import Lines, series_labels
from wattledger_collector.records import MICROJOULES_PER_JOULE, NANOSECONDS_PER_SECOND
from wattledger_collector.workload_records import WorkloadKey

# Families with one series a host.
SINGLE_FAMILIES: Final = ("wattledger_workloads_left_out",)


def render_workloads(shown: ShownWorkloads, text: HostText, lines: Lines) -> None:
    """Add a host's workloads: energy, CPU time, and how many are left out. Nothing for a host without any."""
    if not shown.workloads:
        return
    energy = "wattledger_workload_energy_joules_total"
    series = tuple(each for workload in shown.workloads for each in workload.series)
    if series:
        values = [value / MICROJOULES_PER_JOULE for workload in shown.workloads for value in workload.microjoules]
        lines[energy].append(text.template(energy, series, _energy_labels) % tuple(values))
    cpu = "wattledger_workload_cpu_seconds_total"
    worked = [workload for workload in shown.workloads if workload.cpu_nanoseconds]
    if worked:
        template = text.template(cpu, tuple(workload.key for workload in worked), _labels)
        lines[cpu].append(template % tuple([each.cpu_nanoseconds / NANOSECONDS_PER_SECOND for each in worked]))
    (left_out,) = SINGLE_FAMILIES
    lines[left_out].append(f"{text.singles[left_out]}{shown.left_out}")


def _labels(key: WorkloadKey) -> dict[str, str]:
    return {
        "kind": key.kind.name.lower(),
        "namespace": key.namespace,
        "workload": key.workload,
        "idle_policy": key.idle_policy.name.lower(),
    }


def _energy_labels(series: WorkloadSeries) -> dict[str, str]:
    return {**_labels(series.key), **series_labels(series.flow)}
