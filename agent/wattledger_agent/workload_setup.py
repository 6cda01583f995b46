"""Makes the source of workloads, and how they are accounted, from the configuration.

Reads nothing itself. Where workloads can't be read, everything else is metered as ever.
"""

from collections.abc import Iterable

from wattledger_agent.config import WorkloadsConfig
from wattledger_agent.inventory import Inventory, Roots, open_source
from wattledger_agent.readings import IdlePolicy, WorkloadKind
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workloads import PodNames, WorkloadsSource


def open_workloads(config: WorkloadsConfig, roots: Roots, inventory: Inventory) -> WorkloadSettings | None:
    """Add the workloads to what was found; None if they are off or unreadable, or there is no energy. Never raises."""
    if not config.enabled or not inventory.specs:
        return None
    policy = IdlePolicy[_constant(config.idle_policy)]
    source = WorkloadsSource(
        roots.sysfs / "fs/cgroup",
        roots.procfs,
        roots.sysfs,
        kinds=_kinds(config.kinds),
        with_memory=config.memory,
        with_reservations=policy is IdlePolicy.BY_RESERVATION,
        names=_names(config),
    )
    before = len(inventory.opened)
    open_source(source, inventory)
    if len(inventory.opened) == before:
        return None
    return WorkloadSettings(policy, config.accounts_max, config.flush_seconds, source.owner_of)


def policy_name(policy: IdlePolicy) -> str:
    """A policy as the configuration names it."""
    return policy.name.lower().replace("_", "-")


def _kinds(names: Iterable[str]) -> frozenset[WorkloadKind]:
    return frozenset(WorkloadKind[_constant(name)] for name in names)


def _constant(name: str) -> str:
    return name.upper().replace("-", "_")


def _names(config: WorkloadsConfig) -> PodNames | None:
    if not config.kubelet_url:
        return None
    # Imported where it is wanted: TLS and HTTP take two megabytes.
    from wattledger_agent.kubelet import KubeletNames, https_fetch

    return KubeletNames(https_fetch(config.kubelet_url, config.kubelet_token_file, config.kubelet_ca_file))
