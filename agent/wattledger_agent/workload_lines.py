"""Says in words which workloads there are and what they draw, for the commands that people run.

Reads nothing and books nothing. Every figure stands under the name of its method and of its idle policy.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from wattledger_agent.attribution import METHOD_NAME
from wattledger_agent.readings import MICROJOULES_PER_JOULE, IdlePolicy, Method, WorkloadKind, WorkloadsReading
from wattledger_agent.workload_accounts import Account, largest

# As many are shown; the agent itself keeps `workloads.accounts_max`.
SHOWN_MAX = 10

_SHARED = (WorkloadKind.OTHER, WorkloadKind.UNATTRIBUTED, WorkloadKind.IDLE)


@dataclass(frozen=True, slots=True)
class WorkloadLine:
    """One workload as shown. kind: as the configuration names it, or idle, unattributed, other. is_modelled: in any part."""

    kind: str
    id: str
    namespace: str
    name: str
    power_watts: float
    is_modelled: bool


def policy_name(policy: IdlePolicy) -> str:
    """A policy as the configuration names it."""
    return policy.name.lower().replace("_", "-")


def kind_name(kind: WorkloadKind) -> str:
    """A kind as the configuration names it."""
    return kind.name.lower().replace("_", "-")


def workload_lines(accounts: Iterable[Account], seconds: float) -> list[WorkloadLine]:
    """Return the largest workloads' mean power in this time, then what is left: other workloads, nobody's, idle."""
    accounts = list(accounts)
    if seconds <= 0:
        return []
    ranked = largest(accounts, len(accounts))
    lines = [_line(account, seconds) for account in ranked[:SHOWN_MAX]]
    rest = {kind: [account for account in accounts if account.workload.kind is kind] for kind in _SHARED}
    rest[WorkloadKind.OTHER] += ranked[SHOWN_MAX:]
    for kind, members in rest.items():
        if members:
            watts = sum(_watts(account, seconds) for account in members)
            lines.append(WorkloadLine(kind_name(kind), "", "", "", watts, any(map(_is_modelled, members))))
    return lines


def as_text(lines: Iterable[WorkloadLine], policy: IdlePolicy) -> list[str]:
    """For people; the first line says what the figures are."""
    text = [f"by workload ({METHOD_NAME}; idle energy: {policy_name(policy)})"]
    for line in lines:
        name = "/".join(part for part in (line.namespace, line.name or line.id) if part)
        modelled = "  (MODELLED)" if line.is_modelled else ""
        text.append(f"{'  ' + line.kind:<18} {name[:60]:<34} {line.power_watts:>10.1f} W{modelled}".rstrip())
    return text


def found_text(reading: WorkloadsReading, policy: IdlePolicy) -> str:
    """Say in a sentence which workloads there are, and which used the CPUs most since they began."""
    counts = Counter(kind_name(workload.kind) for workload in reading.workloads.values())
    found = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(counts.items())) or "no workload"
    ranked = sorted(reading.workloads, key=lambda number: -reading.cpu_nanoseconds.get(number, 0))[:3]
    names = ", ".join(reading.workloads[number].name or reading.workloads[number].id for number in ranked)
    most = f"; most CPU time: {names}" if names else ""
    return f"{found} ({METHOD_NAME}; idle energy: {policy_name(policy)}){most}"


def _line(account: Account, seconds: float) -> WorkloadLine:
    workload = account.workload
    return WorkloadLine(
        kind_name(workload.kind),
        workload.id,
        workload.namespace,
        workload.name,
        _watts(account, seconds),
        _is_modelled(account),
    )


def _watts(account: Account, seconds: float) -> float:
    return sum(account.energies.values()) / MICROJOULES_PER_JOULE / seconds


def _is_modelled(account: Account) -> bool:
    return any(method is Method.MODEL for _, method in account.energies)
