"""`wattledger-agent doctor`: what this host can measure, what stands in the way, and the exact remedy.

Changes nothing and ends within seconds, whatever hangs. Faults are data (doctor_faults); who looks for them are the modules
beside this one, each for its part: doctor_sensors, doctor_workloads, doctor_clock, doctor_spool, doctor_delivery.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from wattledger_agent import once
from wattledger_agent.clock import ClockError, HostClock
from wattledger_agent.commands import Runner, SystemRunner
from wattledger_agent.config import AgentConfig, WorkloadsConfig
from wattledger_agent.counters import Instant
from wattledger_agent.doctor_clock import clock_findings, identity_findings
from wattledger_agent.doctor_delivery import Connect, certificate_findings, collector_findings, running_findings
from wattledger_agent.doctor_faults import FAULTS, Finding, Verdict
from wattledger_agent.doctor_host import Host
from wattledger_agent.doctor_sensors import period_findings, sensor_findings
from wattledger_agent.doctor_spool import spool_findings
from wattledger_agent.doctor_workloads import Fetch, kubelet_findings, workload_findings
from wattledger_agent.inventory import Roots, close_all, find_sources
from wattledger_agent.threads import NoThreadError, start
from wattledger_agent.workload_setup import open_workloads

__all__ = ["Finding", "Means", "Report", "Verdict", "as_json", "as_text", "diagnose", "examine", "exit_status"]

# What asks over the network goes on beside the sensors, and is waited for so long when they are done.
NETWORK_SECONDS_MAX = 6.0

MARKS = {"ok": "ok     ", "note": "note   ", "warning": "WARNING", "failure": "FAILURE"}


def _kubelet(config: WorkloadsConfig) -> Fetch:
    # Imported where it is wanted: TLS and HTTP take two megabytes.
    from wattledger_agent.kubelet import https_fetch

    return https_fetch(config.kubelet_url, config.kubelet_token_file, config.kubelet_ca_file)


@dataclass(frozen=True, slots=True)
class Means:
    """How time passes and the network is reached; tests and recorded machines put their own in the place of each.

    instant: the host's clocks; None: this host's. sleep: lets seconds pass between reads. run: runs commands.
    open_seconds_max: sources that take longer are left out.
    """

    connect: Connect = socket.create_connection
    instant: Callable[[], Instant] | None = None
    sleep: Callable[[float], None] = time.sleep
    utc_seconds: Callable[[], float] = time.time
    kubelet: Callable[[WorkloadsConfig], Fetch] = _kubelet
    run: Runner = field(default_factory=SystemRunner)
    open_seconds_max: float = once.OPEN_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. look: what the sources told in a short run; None if nothing could be dated."""

    findings: list[Finding]
    look: once.Snapshot | None = None


@dataclass(slots=True)
class _Asked:
    """Findings that come from a thread of their own."""

    ask: Callable[[], list[Finding]]
    findings: list[Finding] = field(default_factory=list)

    def begin(self) -> threading.Thread | None:
        """Ask in a daemon thread, which is left behind if it never ends; without one where none can be started."""
        try:
            return start(lambda: self.findings.extend(self.ask()), "doctor-network")
        except NoThreadError:
            self.findings.extend(self.ask())
            return None


def diagnose(config: AgentConfig, roots: Roots, means: Means | None = None) -> Report:
    """Look at everything; never raises for what it finds."""
    means = Means() if means is None else means
    host = Host(roots.sysfs, roots.procfs)
    collector = _Asked(lambda: list(collector_findings(config, means.connect)))
    kubelet = _Asked(lambda: list(kubelet_findings(config.workloads, means.kubelet(config.workloads))))
    running = _Asked(lambda: list(running_findings(config, means.run)))
    threads = [collector.begin(), kubelet.begin(), running.begin()]
    instant, clock = _clock(roots, means, host)
    inventory = find_sources(config.sources, roots, processes=config.workloads.enabled, seconds_max=means.open_seconds_max)
    workloads = open_workloads(config, roots, inventory)
    looked: once.Snapshot | None = None
    try:
        grouped = list(workload_findings(config, roots, inventory, workloads))
        period = list(period_findings(config.period_seconds, inventory))
        if instant is not None and inventory.opened:
            looked = once.look(inventory, instant, means.sleep, workloads)
        sensors = sensor_findings(config, roots, inventory, looked)
    finally:
        if looked is None:
            close_all(inventory)
    deadline = time.monotonic() + NETWORK_SECONDS_MAX
    for thread in threads:
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
    if not collector.findings:
        late = "it has not answered in time"
        collector.findings.append(FAULTS["collector-silent"].finding(address=config.collector.address, reason=late))
    findings = [
        *sensors,
        *grouped,
        *kubelet.findings,
        *period,
        *clock,
        *identity_findings(config),
        *spool_findings(config, host, means.utc_seconds()),
        *certificate_findings(config, means.utc_seconds()),
        *collector.findings,
        *running.findings,
    ]
    return Report(findings, looked)


def examine(config: AgentConfig, roots: Roots, means: Means | None = None) -> list[Finding]:
    """Return the findings alone; see diagnose."""
    return diagnose(config, roots, means).findings


def exit_status(findings: list[Finding]) -> int:
    """0 if nothing failed, else 1."""
    return int(any(finding.verdict == "failure" for finding in findings))


def as_text(report: Report) -> str:
    """For people: one finding a line, its remedy below; then the tree of channels."""
    lines = []
    for finding in report.findings:
        name = f" [{finding.id}]" if finding.id else ""
        lines.append(f"{MARKS[finding.verdict]} {finding.check}: {finding.found}{name}")
        if finding.remedy:
            lines.append(f"        -> {finding.remedy}")
    if report.look is not None:
        lines += ["", once.tree_text(report.look)]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """For programs; the same facts. tree: null if nothing could be dated."""
    tree = None if report.look is None else once.tree_json(report.look)
    return json.dumps({"findings": [asdict(finding) for finding in report.findings], "tree": tree}, indent=2)


def _clock(roots: Roots, means: Means, host: Host) -> tuple[Callable[[], Instant] | None, list[Finding]]:
    """What tells the time, if anything does, and what is to be said of it."""
    instant = means.instant
    if instant is None:
        try:
            instant = HostClock(roots.procfs).instant
        except ClockError as error:
            reason = str(error).partition(". ")[0].removeprefix("cannot read the boot id at ")
            return None, [FAULTS["boot-id"].finding(reason=reason)]
    return instant, list(clock_findings(instant(), host))
