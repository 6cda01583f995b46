"""`doctor` names what stands in the way of a host's figures, and for each fault the remedy that mends it."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from tests.certificates import Authority

from wattledger_agent.config import AgentConfig, CollectorConfig, EstimateConfig, FakeConfig, SourcesConfig
from wattledger_agent.doctor import Finding, as_json, as_text, examine, exit_status
from wattledger_agent.inventory import Roots

FAKE = SourcesConfig(fake=FakeConfig(packages=1))


@pytest.fixture
def refusing_port() -> int:
    """A port of loopback on which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


@pytest.fixture
def config(tmp_path: Path, refusing_port: int) -> AgentConfig:
    """A simulated host without a collector."""
    return AgentConfig(
        state_dir=str(tmp_path / "state"), sources=FAKE, collector=CollectorConfig(address=f"127.0.0.1:{refusing_port}")
    )


def find(findings: list[Finding], check: str) -> list[Finding]:
    """All findings of a check."""
    found = [finding for finding in findings if finding.check == check]
    assert found, f"{check} is not in {[finding.check for finding in findings]}"
    return found


def test_a_host_without_sensors_learns_how_to_get_them(tmp_path: Path, config: AgentConfig) -> None:
    """Each source is named once, with its own remedy, and the estimate says that it is one."""
    findings = examine(_with(config, SourcesConfig()), Roots(tmp_path / "sys"))

    for finding in findings:
        assert not finding.found.startswith(f"{finding.check}:")
    for check in ("rapl", "nvidia"):
        (finding,) = find(findings, check)
        assert (finding.verdict, bool(finding.remedy)) == ("warning", True)
    assert "MODELLED" in find(findings, "estimate")[0].found


def test_nothing_to_meter_is_a_failure(tmp_path: Path, config: AgentConfig) -> None:
    """The only fault besides those of folder, certificates and clock that makes the exit status 1."""
    nothing = SourcesConfig(estimate=EstimateConfig(enabled=False))
    findings = examine(_with(config, nothing), Roots(tmp_path / "sys", tmp_path / "proc"))

    (finding,) = find(findings, "sources")
    assert (finding.verdict, finding.found) == ("failure", "nothing can be metered")
    assert "enable `sources.estimate`" in finding.remedy
    assert exit_status(findings) == 1


def test_a_host_in_order_has_status_0(config: AgentConfig) -> None:
    """A collector that is away is a warning: the spool keeps everything."""
    findings = examine(config, Roots())

    (finding,) = find(findings, "collector")
    assert finding.verdict == "warning"
    assert finding.found == f"{config.collector.address} does not answer: Connection refused"
    assert finding.remedy.startswith("Start the collector, or correct the port in `collector.address`.")
    assert exit_status(findings) == 0


def test_a_clock_without_a_boot_is_a_failure(tmp_path: Path, config: AgentConfig) -> None:
    """Without procfs no energy can be dated."""
    (finding,) = find(examine(config, Roots(procfs=tmp_path)), "clock")

    assert finding.verdict == "failure"
    assert finding.found == f"cannot read the boot id at {tmp_path}/sys/kernel/random/boot_id: No such file or directory"
    assert "--procfs-root" in finding.remedy


@pytest.mark.parametrize("below", ["", "deeper/state"])
def test_a_file_in_place_of_the_state_folder_is_named(tmp_path: Path, config: AgentConfig, below: str) -> None:
    """At the folder itself, or above it."""
    (tmp_path / "state").write_text("")
    (finding,) = find(examine(_with(config, FAKE, tmp_path / "state" / below), Roots()), "spool")

    assert (finding.verdict, finding.found) == ("failure", f"{tmp_path}/state is a file, no folder")
    assert finding.remedy == "Move it away, or set `state_dir` to another folder."


def test_a_state_folder_that_takes_no_file_is_named(config: AgentConfig) -> None:
    """/proc takes none, whoever asks."""
    (finding,) = find(examine(_with(config, FAKE, Path("/proc/wattledger")), Roots()), "spool")

    assert finding.verdict == "failure"
    assert finding.found.startswith("cannot write to /proc: ")
    assert finding.remedy == f"Let user id {os.getuid()} write there, or set `state_dir` to another folder."


def test_an_unencrypted_stream_is_a_warning(config: AgentConfig) -> None:
    """Also where it was allowed in so many words."""
    insecure = CollectorConfig(address="192.0.2.1:1", insecure=True)
    (finding,) = find(examine(_with(config, FAKE, collector=insecure), Roots(), _no_connection), "certificates")

    assert finding.verdict == "warning"
    assert "NOT ENCRYPTED" in finding.found


def test_an_impossible_name_of_a_collector_is_a_finding(config: AgentConfig) -> None:
    """It fails before anything is asked of the network, and not as an error of the system."""
    wrong = CollectorConfig(address="collector..example:9791", insecure=True)
    (finding,) = find(examine(_with(config, FAKE, collector=wrong), Roots()), "collector")

    assert finding.verdict == "failure"
    assert finding.remedy == "Correct the name in `collector.address`."


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Correct the name in `collector.address`, or this host's DNS."),
        (TimeoutError("timed out"), "Correct `collector.address`, or open the firewall for it."),
    ],
)
def test_each_way_not_to_reach_a_collector_has_its_remedy(config: AgentConfig, error: OSError, remedy: str) -> None:
    """A wrong name and a closed firewall look alike from afar, and are mended elsewhere."""

    def fail(address: tuple[str, int], timeout: float) -> socket.socket:
        raise error

    (finding,) = find(examine(config, Roots(), fail), "collector")
    assert finding.remedy == f"{remedy} Until then the spool keeps everything."


Serve = Callable[[Authority], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts gRPC servers that demand a certificate of an authority; returns their ports."""
    servers: list[grpc.Server] = []

    def start(authority: Authority) -> int:
        pair = authority.sign(dns=("localhost",))
        server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        credentials = grpc.ssl_server_credentials(
            [(pair.key, pair.certificate)], authority.certificate, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return port

    yield start
    for server in servers:
        server.stop(None).wait()


def secure(folder: Path, port: int, *, trusted: Authority, own: Authority, host: str = "localhost") -> CollectorConfig:
    """Mutual TLS with a certificate of `own`, trusting `trusted`."""
    certificate, key = own.sign(dns=("a",)).write(folder, "agent")
    return CollectorConfig(
        address=f"{host}:{port}",
        ca_file=str(trusted.write(folder)),
        certificate_file=str(certificate),
        key_file=str(key),
    )


def test_sound_certificates_are_accepted(tmp_path: Path, config: AgentConfig, serve: Serve) -> None:
    """The handshake is that of a stream."""
    authority = Authority()
    collector = secure(tmp_path, serve(authority), trusted=authority, own=authority)
    findings = examine(_with(config, FAKE, collector=collector), Roots())

    assert find(findings, "collector") == [Finding("collector", "ok", f"{collector.address} answers")]
    assert find(findings, "certificates")[0].verdict == "ok"


def test_each_way_to_fail_a_handshake_has_its_remedy(tmp_path: Path, config: AgentConfig, serve: Serve) -> None:
    """A collector that is not trusted, one of another name, and one that does not trust us."""
    ours, theirs = Authority(), Authority("another")
    port = serve(ours)
    for trusted, own, host, found, remedy in (
        (theirs, ours, "localhost", "its certificate is not accepted", "as `ca_file`"),
        (ours, ours, "127.0.0.1", "IP address mismatch", "as `server_name`"),
        (ours, theirs, "localhost", "it does not accept this agent's certificate", "sign this agent's certificate"),
    ):
        collector = secure(tmp_path, port, trusted=trusted, own=own, host=host)
        (finding,) = find(examine(_with(config, FAKE, collector=collector), Roots()), "collector")
        assert finding.verdict == "warning"
        assert found in finding.found
        assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: (folder / "agent.key").unlink(), "cannot read {}/agent.key: No such file or directory"),
        (lambda folder: (folder / "ca.pem").write_text("no PEM"), "{}/ca.pem holds no certificate"),
        (
            lambda folder: (folder / "agent.key").write_bytes(Authority().sign().key),
            "{0}/agent.pem and {0}/agent.key are no certificate with its key",
        ),
    ],
)
def test_unusable_certificate_files_are_named(
    tmp_path: Path, config: AgentConfig, refusing_port: int, spoil: Callable[[Path], object], found: str
) -> None:
    """Before anything is sent, with the remedy."""
    authority = Authority()
    collector = secure(tmp_path, refusing_port, trusted=authority, own=authority)
    spoil(tmp_path)
    findings = examine(_with(config, FAKE, collector=collector), Roots())

    (finding,) = find(findings, "certificates")
    assert (finding.verdict, finding.found) == ("failure", found.format(tmp_path))
    assert finding.remedy
    assert exit_status(findings) == 1


def test_both_forms_have_the_same_facts() -> None:
    """A line for each finding and its remedy for people, an object for programs."""
    findings = [Finding("cpu", "ok", "utilization"), Finding("rapl", "warning", "no folder", "Load the module.")]

    assert as_text(findings) == "ok      cpu: utilization\nWARNING rapl: no folder\n        -> Load the module."
    assert json.loads(as_json(findings))[1] == {
        "check": "rapl",
        "verdict": "warning",
        "found": "no folder",
        "remedy": "Load the module.",
    }


def _no_connection(address: tuple[str, int], timeout: float) -> socket.socket:
    raise ConnectionRefusedError(111, "Connection refused")


def _with(
    config: AgentConfig,
    sources: SourcesConfig,
    state_dir: Path | None = None,
    collector: CollectorConfig | None = None,
) -> AgentConfig:
    return AgentConfig(
        state_dir=str(state_dir or config.state_dir), sources=sources, collector=collector or config.collector
    )
