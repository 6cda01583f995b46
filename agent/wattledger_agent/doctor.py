"""`wattledger-agent doctor`: what this host can measure, what stands in the way, and the exact remedy.

Changes nothing. Each check is a small function that returns one finding or more.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from wattledger_agent.clock import HostClock, machine_id
from wattledger_agent.config import AgentConfig, is_loopback, split_address
from wattledger_agent.inventory import Inventory, Roots, close_all, find_sources
from wattledger_agent.readings import Method

Verdict = Literal["ok", "warning", "failure"]

CONNECT_SECONDS_MAX = 3.0
DISK_FREE_BYTES_MIN = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. remedy: empty if all is well."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(config: AgentConfig, roots: Roots) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    inventory = find_sources(config.sources, roots)
    try:
        return [
            *_platform(roots),
            *_sources(inventory),
            *_clock(roots),
            *_identity(config),
            *_state_folder(config),
            *_certificates(config),
            *_collector(config),
        ]
    finally:
        close_all(inventory)


def exit_status(findings: list[Finding]) -> int:
    """0 if nothing failed, else 1."""
    return int(any(finding.verdict == "failure" for finding in findings))


def as_text(findings: list[Finding]) -> str:
    """For people: one finding a line, its remedy below."""
    marks = {"ok": "ok     ", "warning": "WARNING", "failure": "FAILURE"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.verdict]} {finding.check}: {finding.found}")
        if finding.remedy:
            lines.append(f"        -> {finding.remedy}")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """For programs; the same facts."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _platform(roots: Roots) -> Iterator[Finding]:
    if not sys.platform.startswith("linux"):
        yield Finding("system", "failure", f"this is {sys.platform}", "Run the agent on Linux; its sensors are Linux'.")
        return
    flags = ""
    with contextlib.suppress(OSError):
        flags = next((line for line in (roots.procfs / "cpuinfo").read_text().splitlines() if "flags" in line), "")
    if " hypervisor" in flags:
        yield Finding(
            "system",
            "warning",
            "this is a virtual machine: its host's energy sensors are mostly hidden",
            "For measured figures run the agent on the virtual machine's host; here the guest's share is estimated.",
        )
    else:
        yield Finding("system", "ok", "Linux on hardware")


def _sources(inventory: Inventory) -> Iterator[Finding]:
    for source in inventory.opened:
        methods = {spec.method for spec in source.specs}
        if Method.MODEL in methods:
            yield Finding(
                source.source.name,
                "warning",
                f"{len(source.specs)} channel, MODELLED: no sensor measures this host's CPUs",
                "See the remedies of the sources that were not found; with one of them the estimate ends by itself.",
            )
        else:
            what = f"{len(source.specs)} channels" if source.specs else "utilization"
            yield Finding(source.source.name, "ok", what)
        for note in source.source.notes():
            yield Finding(source.source.name, "warning", note)
    for missing in inventory.missing:
        yield Finding(missing.source, "warning", missing.reason, missing.remedy)
    if not inventory.specs:
        yield Finding("sources", "failure", "nothing can be metered", "Follow a remedy above, or enable `sources.estimate`.")


def _clock(roots: Roots) -> Iterator[Finding]:
    try:
        now = HostClock(roots.procfs).instant()
    except (OSError, ValueError) as error:
        yield Finding("clock", "failure", f"no boot id: {error}", "Mount procfs and name its place with --procfs-root.")
        return
    if now.synchronised:
        yield Finding("clock", "ok", "synchronised, says the kernel")
    else:
        yield Finding(
            "clock",
            "warning",
            "not synchronised: the collector's clock dates this host's energy",
            "Run chrony or systemd-timesyncd: systemctl enable --now systemd-timesyncd",
        )


def _identity(config: AgentConfig) -> Iterator[Finding]:
    if config.collector.uses_tls:
        yield Finding("identity", "ok", "the host's id is the one in its certificate")
    elif machine_id():
        yield Finding("identity", "ok", config.host or "an id made at first start and kept in the state folder")
    else:
        yield Finding(
            "identity",
            "warning",
            "/etc/machine-id is missing: a copied disk can't be told from its original",
            "Run systemd-machine-id-setup.",
        )


def _state_folder(config: AgentConfig) -> Iterator[Finding]:
    folder = Path(config.state_dir)
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        yield Finding(
            "spool",
            "failure",
            f"cannot write to {existing}: {error.strerror}",
            f"Let user id {os.getuid()} write there, or set `state_dir`.",
        )
        return
    if free < DISK_FREE_BYTES_MIN:
        yield Finding(
            "spool",
            "warning",
            f"{free // 2**20} MiB free at {existing}",
            "Make room: a full disk costs time resolution first, and then the oldest records.",
        )
    else:
        yield Finding("spool", "ok", f"{folder} can be written, {free // 2**20} MiB free")


def _certificates(config: AgentConfig) -> Iterator[Finding]:
    collector = config.collector
    if not collector.uses_tls:
        host, _ = split_address(collector.address, "configuration")
        if is_loopback(host):
            yield Finding("certificates", "ok", "none needed: the collector is on this machine")
        else:
            yield Finding(
                "certificates",
                "warning",
                f"the stream to {collector.address} is NOT ENCRYPTED (insecure = true)",
                "Give `ca_file`, `certificate_file` and `key_file` under [collector].",
            )
        return
    for name in (collector.ca_file, collector.certificate_file, collector.key_file):
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            yield Finding("certificates", "failure", f"cannot read {name}: {error}", "Let the agent's user read it.")
            continue
        if "-----BEGIN" in text:
            yield Finding("certificates", "ok", name)
        else:
            yield Finding("certificates", "failure", f"{name} is not PEM", "Convert it: openssl x509 -in FILE -out FILE.pem")


def _collector(config: AgentConfig) -> Iterator[Finding]:
    host, port = split_address(config.collector.address, "configuration")
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS_MAX):
            yield Finding("collector", "ok", f"{config.collector.address} answers")
    except OSError as error:
        yield Finding(
            "collector",
            "warning",
            f"{config.collector.address} does not answer: {error}",
            "Start it, or mend the address or the firewall; until then the spool keeps everything.",
        )
