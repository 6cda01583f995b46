"""Whether energy can be told by workload on this host, and the remedy where it can't. Part of `doctor`.

Changes nothing. Sources of truth: the workloads' source; cgroup.controllers (cgroup-v2.rst), proc(5) for hidepid.
"""

import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

from wattledger_agent.config import AgentConfig, WorkloadsConfig
from wattledger_agent.doctor_faults import FAULTS, Finding
from wattledger_agent.doctor_host import Host, mount_of, read_text
from wattledger_agent.doctor_sensors import explain_workloads
from wattledger_agent.inventory import Inventory, Roots, without_name
from wattledger_agent.readings import WorkloadsReading
from wattledger_agent.workload_lines import found_text
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workloads import WorkloadsSource

# Asks a kubelet for its pods. Raises OSError or ValueError.
Fetch = Callable[[], bytes]

_REFUSALS = (401, 403)


def workload_findings(
    config: AgentConfig, roots: Roots, inventory: Inventory, settings: WorkloadSettings | None
) -> Iterator[Finding]:
    """Look at control groups, namespaces and limits."""
    if settings is None:
        return
    for source in (opened.source for opened in inventory.opened if isinstance(opened.source, WorkloadsSource)):
        found = [reading for reading in source.read(0) if isinstance(reading, WorkloadsReading)]
        yield from (Finding("workloads", "ok", found_text(reading, settings.policy)) for reading in found)
        for note in source.notes():
            if "kubelet" not in note:
                told = without_name("workloads", note)
                yield explain_workloads(told) or Finding("workloads", "note", told)
    yield from _controllers(config.workloads, roots.sysfs / "fs/cgroup")
    yield from _hidden(Host(roots.sysfs, roots.procfs))


def kubelet_findings(config: WorkloadsConfig, fetch: Fetch) -> Iterator[Finding]:
    """Ask the kubelet once, if one is configured."""
    if not config.enabled or not config.kubelet_url:
        return
    url = config.kubelet_url
    try:
        fetch()
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _REFUSALS:
                yield FAULTS["kubelet-forbidden"].finding(url=url, status=error.code)
            else:
                yield FAULTS["kubelet-silent"].finding(url=url, reason=f"HTTP {error.code}")
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        yield FAULTS["kubelet-silent"].finding(url=url, reason=reason)
    else:
        yield Finding("workloads", "ok", f"the kubelet at {url} tells the names of its pods")


def _controllers(config: WorkloadsConfig, root: Path) -> Iterator[Finding]:
    """What the unified hierarchy lacks for what is configured; CPU time itself is told without any controller."""
    if not (root / "cgroup.controllers").exists():
        return
    there = read_text(root / "cgroup.subtree_control").split()
    if config.idle_policy == "by-reservation" and "cpu" not in there:
        yield FAULTS["cgroup-without-cpu"].finding(path=root)
    if config.memory and "memory" not in there:
        yield FAULTS["cgroup-without-memory"].finding(path=root)


def _hidden(host: Host) -> Iterator[Finding]:
    mount = mount_of(Path("/proc"), host.mounts())
    option = next((one for one in sorted(mount.options) if one.startswith("hidepid=")), "") if mount is not None else ""
    if option and option not in ("hidepid=0", "hidepid=off"):
        yield FAULTS["processes-hidden"].finding(path="/proc", option=option)
