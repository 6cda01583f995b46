"""Makes the source of workloads, and how they are accounted, from the configuration.

Reads nothing itself. Where workloads can't be read, everything else is metered as ever.
"""

from collections.abc import Iterable

from wattledger_agent.config import AgentConfig, WorkloadsConfig
from wattledger_agent.inventory import Inventory, Played, Roots, open_source
from wattledger_agent.readings import IdlePolicy, WorkloadKind
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workloads import PodNames, WorkloadsSource


def open_workloads(config: AgentConfig, roots: Roots, inventory: Inventory) -> WorkloadSettings | None:
    """Add the workloads to what was found; None if they are off or can't be read, or there is no energy to divide.

    They divide what this host metered, not what is simulated. Never raises.
    """
    wanted = config.workloads
    if not wanted.enabled or not inventory.specs or config.sources.fake is not None:
        return None
    policy = IdlePolicy[_constant(wanted.idle_policy)]
    source = WorkloadsSource(
        roots.sysfs / "fs/cgroup",
        roots.procfs,
        roots.sysfs,
        kinds=_kinds(wanted.kinds),
        with_memory=wanted.memory,
        with_reservations=policy is IdlePolicy.BY_RESERVATION,
        names=_names(wanted, roots.played),
        **roots.files,
    )
    before = len(inventory.opened)
    open_source(source, inventory)
    if len(inventory.opened) == before:
        return None
    return WorkloadSettings(policy, wanted.accounts_max, wanted.flush_seconds, source.owner_of)


def _kinds(names: Iterable[str]) -> frozenset[WorkloadKind]:
    return frozenset(WorkloadKind[_constant(name)] for name in names)


def _constant(name: str) -> str:
    return name.upper().replace("-", "_")


def _names(config: WorkloadsConfig, played: Played | None) -> PodNames | None:
    if played is not None:
        if not played.kubelet.exists():
            return None
        from wattledger_agent.kubelet import KubeletNames

        return KubeletNames(played.kubelet.read_bytes, is_recorded=True)
    if not config.kubelet_url:
        return None
    # Imported where it is wanted: TLS and HTTP take two megabytes.
    from wattledger_agent.kubelet import KubeletNames, https_fetch

    return KubeletNames(https_fetch(config.kubelet_url, config.kubelet_token_file, config.kubelet_ca_file))
