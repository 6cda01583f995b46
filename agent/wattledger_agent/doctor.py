"""`wattledger-agent doctor`: what this host can measure, what stands in the way, and the exact remedy.

Changes nothing. Each check is a small function that returns one finding or more.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from wattledger_agent.clock import ClockError, HostClock, machine_id
from wattledger_agent.config import AgentConfig, CollectorConfig, is_loopback, split_address
from wattledger_agent.inventory import Inventory, Roots, close_all, find_sources, has_node_meter, without_name
from wattledger_agent.readings import Method, WorkloadsReading
from wattledger_agent.workload_lines import found_text
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workload_setup import open_workloads
from wattledger_agent.workloads import WorkloadsSource
from wattledger_agent.wraps import shortest_wrap

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


class Connect(Protocol):
    """Opens a connection to (host, port), as socket.create_connection does."""

    def __call__(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """Raises OSError."""


def examine(config: AgentConfig, roots: Roots, connect: Connect = socket.create_connection) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    inventory = find_sources(config.sources, roots, processes=config.workloads.enabled)
    workloads = open_workloads(config, roots, inventory)
    try:
        return [
            *_platform(roots),
            *_sources(inventory, workloads),
            *_period(config.period_seconds, inventory),
            *_clock(roots),
            *_identity(config),
            *_state_folder(config),
            *_certificates(config),
            *_collector(config, connect),
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


def _sources(inventory: Inventory, workloads: WorkloadSettings | None) -> Iterator[Finding]:
    for source in inventory.opened:
        if isinstance(source.source, WorkloadsSource) and workloads is not None:
            found = [reading for reading in source.source.read(0) if isinstance(reading, WorkloadsReading)]
            yield from (Finding("workloads", "ok", found_text(reading, workloads.policy)) for reading in found)
            yield from (Finding("workloads", "warning", without_name("workloads", n)) for n in source.source.notes())
            continue
        methods = {spec.method for spec in source.specs}
        if Method.MODEL in methods and has_node_meter(inventory.specs):
            yield Finding(source.source.name, "ok", "1 channel, modelled: shown beside the node's meter, never booked")
            continue
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
            yield Finding(source.source.name, "warning", without_name(source.source.name, note))
    for missing in inventory.missing:
        yield Finding(missing.source, "warning", without_name(missing.source, missing.reason), missing.remedy)
    if not inventory.specs:
        yield Finding("sources", "failure", "nothing can be metered", "Follow a remedy above, or enable `sources.estimate`.")


def _period(period_seconds: float, inventory: Inventory) -> Iterator[Finding]:
    """Whether every counter is read often enough, and how long the agent may be away."""
    wrap = shortest_wrap(inventory.specs)
    if wrap is None:
        return
    remedy = f"Set `period_seconds` to at most {wrap.period_seconds_max:.1f}."
    found = f"`period_seconds` is {period_seconds:g}, and {wrap.sentence()}"
    if wrap.is_hopeless(period_seconds):
        yield Finding("period", "failure", f"{found}: no reading could be booked", remedy)
    elif wrap.is_risky(period_seconds):
        yield Finding("period", "warning", f"{found}: a few failed reads leave a gap", remedy)
    else:
        yield Finding("period", "ok", f"{found}; an agent that is away for longer leaves a gap with bounds")


def _clock(roots: Roots) -> Iterator[Finding]:
    try:
        now = HostClock(roots.procfs).instant()
    except ClockError as error:
        found, _, remedy = str(error).partition(". ")
        yield Finding("clock", "failure", found, remedy)
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
    # os.path: a folder that may not be looked into is no error there, but one that does not exist.
    existing = next(path for path in (folder, *folder.resolve().parents) if os.path.lexists(path))
    if not os.path.isdir(existing):
        yield Finding(
            "spool", "failure", f"{existing} is a file, no folder", "Move it away, or set `state_dir` to another folder."
        )
        return
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        yield Finding(
            "spool",
            "failure",
            f"cannot write to {existing}: {error.strerror}",
            f"Let user id {os.getuid()} write there, or set `state_dir` to another folder.",
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
    try:
        _tls(collector)
    except TlsProblemError as problem:
        yield Finding("certificates", "failure", problem.found, problem.remedy)
    else:
        yield Finding("certificates", "ok", f"{collector.certificate_file} and its key belong together")


class TlsProblemError(Exception):
    """Certificate files that can't be used."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy


def _tls(collector: CollectorConfig) -> ssl.SSLContext:
    """TLS with the configured files, as gRPC will use them. Raises TlsProblemError."""
    for name in (collector.ca_file, collector.certificate_file, collector.key_file):
        try:
            Path(name).read_bytes()
        except OSError as error:
            raise TlsProblemError(
                f"cannot read {name}: {error.strerror}", f"Put it there, or let user id {os.getuid()} read it."
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(collector.ca_file)
    except ssl.SSLError as error:
        raise TlsProblemError(
            f"{collector.ca_file} holds no certificate", "Give the authority's certificate as PEM (-----BEGIN CERTIFICATE)."
        ) from error
    try:
        context.load_cert_chain(collector.certificate_file, collector.key_file, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise TlsProblemError(
            f"{collector.certificate_file} and {collector.key_file} are no certificate with its key",
            "Give two PEM files that were made together, the key without a password.",
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def _collector(config: AgentConfig, connect: Connect) -> Iterator[Finding]:
    collector = config.collector
    host, port = split_address(collector.address, "configuration")
    try:
        with connect((host, port), timeout=CONNECT_SECONDS_MAX) as connection:
            if collector.uses_tls:
                with contextlib.suppress(TlsProblemError):  # Told above.
                    _greet(_tls(collector), connection, collector.server_name or host)
            yield Finding("collector", "ok", f"{collector.address} answers")
    except UnicodeError:
        yield Finding(
            "collector",
            "failure",
            f"{host!r} is no host name: a part of it is empty or too long",
            "Correct the name in `collector.address`.",
        )
    except OSError as error:
        yield Finding(
            "collector",
            "warning",
            f"{collector.address} does not answer: {_reason(error)}",
            f"{_collector_remedy(error)} Until then the spool keeps everything.",
        )


class RejectedError(OSError):
    """The collector ended the connection when it had seen our certificate."""


def _greet(context: ssl.SSLContext, connection: socket.socket, name: str) -> None:
    """Shake hands as a stream does. Raises OSError."""
    with context.wrap_socket(connection, server_hostname=name) as wrapped:
        # With TLS 1.3 a certificate is refused after the handshake, in place of the server's first words.
        try:
            is_welcome = bool(wrapped.recv(1))
        except (ssl.SSLError, ConnectionError):
            is_welcome = False
    if not is_welcome:
        raise RejectedError(errno.ECONNRESET, "it does not accept this agent's certificate")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    return error.strerror or str(error)


def _collector_remedy(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Give the authority that signed it as `ca_file`, and the name in it as `server_name`."
    if isinstance(error, RejectedError):
        return "Have the authority that the collector trusts sign this agent's certificate, and look at its dates."
    if isinstance(error, ssl.SSLError):
        return "Use TLS on both sides, and the collector's gRPC port in `collector.address`."
    if isinstance(error, socket.gaierror):
        return "Correct the name in `collector.address`, or this host's DNS."
    if isinstance(error, ConnectionRefusedError):
        return "Start the collector, or correct the port in `collector.address`."
    return "Correct `collector.address`, or open the firewall for it."
