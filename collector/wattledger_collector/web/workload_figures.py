"""What the API and the page show of one host's workloads, as plain JSON trees.

Reads no clock and no database. Source of truth: the fleet view's committed totals; microjoules are text.
"""

from wattledger_collector.fleet_workloads import WorkloadFigures
from wattledger_collector.records import MICROJOULES_PER_KWH, NANOSECONDS_PER_SECOND
from wattledger_collector.web.figures import Tree


def workload_row(figures: WorkloadFigures, now_seconds: float) -> Tree:
    """One workload with its lifetime energy on the host, and the policy by which idle energy was given to it or not."""
    key, total = figures.key, figures.total_microjoules
    components: dict[str, int] = {}
    methods: dict[str, int] = {}
    for series, microjoules in zip(figures.series, figures.microjoules, strict=True):
        component, method = series.flow.component.name.lower(), series.flow.method.name.lower()
        components[component] = components.get(component, 0) + microjoules
        methods[method] = methods.get(method, 0) + microjoules
    return {
        "kind": key.kind.name.lower(),
        "namespace": key.namespace,
        "workload": key.workload,
        "idle_policy": key.idle_policy.name.lower(),
        "energy_microjoules": str(total),
        "energy_kwh": total / MICROJOULES_PER_KWH,
        "energy_microjoules_by_component": {name: str(value) for name, value in components.items()},
        "energy_microjoules_by_method": {name: str(value) for name, value in methods.items()},
        "cpu_seconds": figures.cpu_nanoseconds / NANOSECONDS_PER_SECOND,
        "last_seen_age_seconds": round(max(0.0, now_seconds - figures.seen_seconds), 1),
    }
