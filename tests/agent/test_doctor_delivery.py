"""`doctor` on certificates and the collector: each fault is made with real files and real servers on loopback."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from tests.agent.doctoring import QUICK, USER, fault, faults, host_config, of_host
from tests.certificates import Authority

from wattledger_agent.commands import Answer
from wattledger_agent.config import CollectorConfig
from wattledger_agent.delivery_text import delivery_text
from wattledger_agent.doctor import Finding, Means, exit_status

YEAR_HOURS = 365 * 24
HOUR_SECONDS = 3600.0

KEPT = "Until then the spool keeps everything."

# A plain connection, as doctor makes it by itself.
REAL = Means(sleep=QUICK.sleep, run=QUICK.run)

Serve = Callable[[Authority | None], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts gRPC servers that demand a certificate of an authority, or none at all; returns their ports."""
    servers: list[grpc.Server] = []

    def start(authority: Authority | None) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        if authority is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            pair = authority.sign(dns=("localhost",))
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


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """Starts servers that answer whatever they get with some bytes; returns their ports."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port

    yield start
    for listener in listeners:
        listener.close()


def secure(
    folder: Path,
    *,
    trusted: Authority,
    own: Authority,
    port: int = 1,
    host: str = "localhost",
    ids: tuple[str, ...] = ("a",),
) -> CollectorConfig:
    """Mutual TLS with a certificate of `own`, trusting `trusted`."""
    certificate, key = own.sign(uris=tuple(f"wattledger://host/{one}" for one in ids)).write(folder, "agent")
    key.chmod(0o600)
    return CollectorConfig(
        address=f"{host}:{port}",
        ca_file=str(trusted.write(folder)),
        certificate_file=str(certificate),
        key_file=str(key),
    )


def issue(host: str) -> str:
    """How a host's certificate is made anew."""
    return (
        "issue it anew where the authority is: openssl req -x509 -CA ca.pem -CAkey ca.key -newkey ec -pkeyopt "
        f"ec_paramgen_curve:P-256 -noenc -days 365 -subj /CN={host} -addext basicConstraints=critical,CA:FALSE -addext "
        f"extendedKeyUsage=clientAuth -addext subjectAltName=URI:wattledger://host/{host} -keyout host.key -out host.pem"
    )


def later(seconds: float) -> Means:
    """A host whose clock is ahead by so much, or behind."""
    return Means(QUICK.connect, sleep=QUICK.sleep, utc_seconds=lambda: time.time() + seconds)


# The collector.


def test_a_collector_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    """Nothing is lost: the spool keeps everything."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    findings = of_host(tmp_path, host_config(tmp_path, collector=CollectorConfig(f"127.0.0.1:{port}")), REAL)

    finding = fault(findings, "collector-refused")
    assert finding.found == f"127.0.0.1:{port} does not answer: Connection refused"
    assert finding.remedy == f"Start the collector, or correct the port in `collector.address`. {KEPT}"
    assert exit_status(findings) == 0


def test_an_unknown_name_is_told_apart_from_a_closed_firewall(tmp_path: Path) -> None:
    """Both look alike from afar, and are mended elsewhere."""

    def unknown(address: tuple[str, int], timeout: float) -> socket.socket:
        raise socket.gaierror(-2, "Name or service not known")

    findings = of_host(tmp_path, means=Means(unknown, sleep=QUICK.sleep))

    finding = fault(findings, "collector-name-unknown")
    assert finding.found == "127.0.0.1:9791 does not answer: Name or service not known"
    assert finding.remedy == f"Correct the name in `collector.address`, or this host's DNS. {KEPT}"


def test_a_collector_behind_a_closed_firewall_is_silent(tmp_path: Path) -> None:
    """No packet comes back."""

    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        raise TimeoutError("timed out")

    finding = fault(of_host(tmp_path, means=Means(silent, sleep=QUICK.sleep)), "collector-silent")

    assert finding.found == "127.0.0.1:9791 does not answer: timed out"
    assert finding.remedy == f"Correct `collector.address`, or open the firewall for it. {KEPT}"


def test_an_impossible_name_of_a_collector_is_a_finding(tmp_path: Path) -> None:
    """It fails before anything is asked of the network, and not as an error of the system."""
    wrong = host_config(tmp_path, collector=CollectorConfig("collector..example:9791", insecure=True))

    finding = fault(of_host(tmp_path, wrong, REAL), "collector-name-impossible")

    assert finding.found == "'collector..example' is no host name: a part of it is empty or too long"
    assert (finding.verdict, finding.remedy) == ("failure", "Correct the name in `collector.address`.")


def test_a_collector_that_answers_is_all_well(tmp_path: Path, serve: Serve) -> None:
    """Without TLS, on this machine."""
    address = f"127.0.0.1:{serve(None)}"

    findings = of_host(tmp_path, host_config(tmp_path, collector=CollectorConfig(address)), REAL)

    assert Finding("collector", "ok", f"{address} answers") in findings


def test_a_collector_that_expects_tls_is_told_to_an_agent_without(tmp_path: Path, serve: Serve) -> None:
    """From the agent's log alone it looks like a collector that hangs up."""
    address = f"127.0.0.1:{serve(Authority())}"

    finding = fault(
        of_host(tmp_path, host_config(tmp_path, collector=CollectorConfig(address)), REAL), "collector-wants-tls"
    )

    assert finding.found == f"{address} expects TLS, and this agent speaks without it"
    assert finding.remedy == f"Give `ca_file`, `certificate_file` and `key_file` under [collector]. {KEPT}"


def test_a_port_that_is_no_collectors_is_told(tmp_path: Path, answering: Callable[[bytes], int]) -> None:
    """The page of the collector is the usual one."""
    address = f"127.0.0.1:{answering(b'HTTP/1.1 400 Bad Request')}"

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=CollectorConfig(address)), REAL), "collector-no-grpc")

    assert finding.remedy == (
        f"Write the collector's gRPC port (9791 if it was not changed) into `collector.address`. {KEPT}"
    )


def test_sound_certificates_are_accepted(tmp_path: Path, serve: Serve) -> None:
    """The handshake is that of a stream."""
    authority = Authority(hours=YEAR_HOURS)
    collector = secure(tmp_path, port=serve(authority), trusted=authority, own=authority)

    findings = of_host(tmp_path, host_config(tmp_path, collector=collector), REAL)

    assert Finding("collector", "ok", f"{collector.address} answers") in findings
    assert not [one for one in findings if one.check == "certificates" and one.verdict != "ok"]


def test_a_collector_of_a_stranger_is_not_trusted(tmp_path: Path, serve: Serve) -> None:
    """Another authority signed its certificate."""
    ours, theirs = Authority(), Authority("another")
    collector = secure(tmp_path, port=serve(theirs), trusted=ours, own=ours)

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=collector), REAL), "collector-untrusted")

    assert "its certificate is not accepted (" in finding.found
    assert finding.remedy == f"Give the authority that signed it as `ca_file`. {KEPT}"


def test_a_collector_of_another_name_is_told(tmp_path: Path, serve: Serve) -> None:
    """Its certificate is for localhost, and it is called by its address."""
    authority = Authority()
    collector = secure(tmp_path, port=serve(authority), trusted=authority, own=authority, host="127.0.0.1")

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=collector), REAL), "collector-other-name")

    assert "IP address mismatch" in finding.found
    assert finding.remedy == (f"Give the name that is in it as `server_name`, or as host in `collector.address`. {KEPT}")


def test_a_collector_that_refuses_our_certificate_is_told(tmp_path: Path, serve: Serve) -> None:
    """It trusts another authority than the one that signed ours."""
    ours, theirs = Authority(), Authority("another")
    collector = secure(tmp_path, port=serve(ours), trusted=ours, own=theirs)

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=collector), REAL), "certificate-refused")

    assert finding.found == f"{collector.address} does not answer: it does not accept this agent's certificate"
    assert finding.remedy == (
        f"Have the authority that the collector trusts sign this agent's certificate, and look at its dates. {KEPT}"
    )


def test_a_collector_without_tls_is_told_to_an_agent_with(tmp_path: Path, answering: Callable[[bytes], int]) -> None:
    """What comes back is no TLS."""
    authority = Authority()
    port = answering(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    collector = secure(tmp_path, port=port, trusted=authority, own=authority)

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=collector), REAL), "collector-without-tls")

    assert finding.remedy == f"Use TLS on both sides, and the collector's gRPC port in `collector.address`. {KEPT}"


def told(text: str) -> Means:
    """A host whose agent has told systemd this."""

    def run(argv: Sequence[str], seconds_max: float) -> Answer:
        assert argv == ("systemctl", "show", "wattledger-agent", "--property=StatusText", "--value")
        return Answer(0, f"{text}\n", "")

    return Means(QUICK.connect, sleep=QUICK.sleep, run=run)


def test_a_host_that_the_collector_refuses_is_told_what_to_do(tmp_path: Path) -> None:
    """Two machines use one id: the running agent was told, and tells systemd."""
    text = delivery_text(connected=False, refusal="two machines use host id a", error="", collector_clock_seconds=0.1)

    finding = fault(of_host(tmp_path, means=told(text)), "collector-refuses-host")

    assert finding.found == "the running agent is refused: two machines use host id a"
    assert finding.remedy == (
        "If another machine has this id, as after a copied disk: on the copy systemctl stop wattledger-agent && rm -r "
        f"{tmp_path}/state/spool {tmp_path}/state/host-id, and give it a certificate or `host` of its own; if this one "
        "took another's place: wattledger-collector host replace <host> <successor>."
    )


def test_a_clock_far_off_the_collectors_is_told(tmp_path: Path) -> None:
    """By how much, and in which direction."""
    text = delivery_text(connected=True, refusal="", error="", collector_clock_seconds=-61.04)

    finding = fault(of_host(tmp_path, means=told(text)), "collector-clock")

    assert finding.found == "the collector's clock is -61.0 s from this one"
    assert finding.remedy == (
        "chronyc tracking (or timedatectl timesync-status) on both; where they trust no common server, write the same one "
        "into /etc/chrony/chrony.conf."
    )


def test_an_agent_that_delivers_with_a_good_clock_has_no_fault(tmp_path: Path) -> None:
    """What it tells is for people."""
    text = delivery_text(connected=True, refusal="", error="", collector_clock_seconds=4.9)

    assert text == "metering and delivering; the collector's clock is +4.9 s from this one"
    assert not faults(of_host(tmp_path, means=told(text))) & {"collector-clock", "collector-refuses-host"}


# Certificates.


def test_an_unencrypted_stream_is_a_warning(tmp_path: Path) -> None:
    """Also where it was allowed in so many words."""
    insecure = CollectorConfig("192.0.2.1:9791", insecure=True)

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=insecure)), "stream-unencrypted")

    assert finding.found == "the stream to 192.0.2.1:9791 is NOT ENCRYPTED (insecure = true)"
    assert finding.remedy == "Give `ca_file`, `certificate_file` and `key_file` under [collector]."


def certificate_faults(folder: Path, spoil: Callable[[Path], object], means: Means = QUICK) -> list[Finding]:
    """The findings on certificates that were good for a year and then spoilt."""
    authority = Authority(hours=YEAR_HOURS)
    config = host_config(folder, collector=secure(folder, trusted=authority, own=authority))
    spoil(folder)
    return of_host(folder, config, means)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """Before anything is sent."""
    findings = certificate_faults(tmp_path, lambda folder: (folder / "agent.key").unlink())

    finding = fault(findings, "certificate-unreadable")
    assert finding.found == f"cannot read {tmp_path}/agent.key: No such file or directory"
    assert finding.remedy == f"Put it there, or let user id {USER} read it."
    assert exit_status(findings) == 1


def test_an_authority_that_is_no_pem_is_named(tmp_path: Path) -> None:
    """A DER file, or a page that a browser saved."""
    finding = fault(certificate_faults(tmp_path, lambda folder: (folder / "ca.pem").write_text("no PEM")), "ca-not-pem")

    assert finding.found == f"{tmp_path}/ca.pem holds no certificate"
    assert finding.remedy == "Give the authority's certificate as PEM (-----BEGIN CERTIFICATE)."


def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    """As after a renewal of which one file was copied."""
    other = Authority().sign().key

    finding = fault(certificate_faults(tmp_path, lambda folder: (folder / "agent.key").write_bytes(other)), "key-mismatch")

    assert finding.found == f"{tmp_path}/agent.pem and {tmp_path}/agent.key are no certificate with its key"
    assert finding.remedy == "Give two PEM files that were made together, the key without a password."


def test_a_key_that_everybody_may_read_is_named(tmp_path: Path) -> None:
    """Whoever has it can book in this host's name."""
    finding = fault(certificate_faults(tmp_path, lambda folder: (folder / "agent.key").chmod(0o644)), "key-open")

    assert finding.found == f"the key {tmp_path}/agent.key can be read by everybody (mode 0644)"
    assert finding.remedy == (
        f"chmod 0640 {tmp_path}/agent.key, and issue the certificate anew: others may have copied the key."
    )


def test_an_expired_certificate_has_the_command_that_renews_it(tmp_path: Path) -> None:
    """With this host's own id in it."""
    own = Authority()
    config = host_config(tmp_path, collector=secure(tmp_path, trusted=Authority(hours=YEAR_HOURS), own=own, ids=("rack-7",)))

    findings = of_host(tmp_path, config, later(2 * HOUR_SECONDS))

    finding = fault(findings, "certificate-expired")
    assert finding.found.startswith(f"{tmp_path}/agent.pem expired at 20")
    assert finding.remedy == f"{issue('rack-7')}; put both in the old ones' place, without a restart."
    assert exit_status(findings) == 1


def test_a_certificate_of_tomorrow_points_at_the_clock(tmp_path: Path) -> None:
    """A host whose clock is a day behind refuses everybody, and is refused."""
    findings = certificate_faults(tmp_path, lambda folder: None, later(-24 * HOUR_SECONDS))

    told = [one for one in findings if one.id == "certificate-early"]
    assert [one.found.split()[0] for one in told] == [f"{tmp_path}/agent.pem", f"{tmp_path}/ca.pem"]
    assert told[0].remedy == "Set the clock: timedatectl set-ntp true; if it is right, issue the certificate anew."


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    """Three weeks before, which is time to be away and back."""
    own = Authority(hours=20 * 24)
    config = host_config(tmp_path, collector=secure(tmp_path, trusted=Authority(hours=YEAR_HOURS), own=own))

    findings = of_host(tmp_path, config)

    finding = fault(findings, "certificate-expiring")
    assert finding.found.startswith(f"{tmp_path}/agent.pem expires in 19 days, at 20")
    assert finding.remedy == f"Before then {issue('a')}; put both in the old ones' place, without a restart."
    assert exit_status(findings) == 0


def test_a_certificate_that_names_nobody_is_named(tmp_path: Path) -> None:
    """The collector can't tell whose energy it is, and refuses it."""
    authority = Authority(hours=YEAR_HOURS)
    config = host_config(tmp_path, collector=secure(tmp_path, trusted=authority, own=authority, ids=()), host="rack-7")

    finding = fault(of_host(tmp_path, config), "certificate-nameless")

    assert finding.remedy == issue("rack-7")


def test_a_certificate_of_another_host_is_told(tmp_path: Path) -> None:
    """The certificate counts, and the setting misleads whoever reads it."""
    authority = Authority(hours=YEAR_HOURS)
    config = host_config(tmp_path, collector=secure(tmp_path, trusted=authority, own=authority), host="b")

    finding = fault(of_host(tmp_path, config), "certificate-other-host")

    assert finding.found == f"`host` is b, but {tmp_path}/agent.pem is for a, and the certificate counts"
    assert finding.remedy == 'Write `host = "a"`, or issue a certificate for b.'


def test_a_certificate_of_another_authority_is_told(tmp_path: Path) -> None:
    """It may be meant so; most often the wrong authority signed."""
    collector = secure(tmp_path, trusted=Authority(hours=YEAR_HOURS), own=Authority("another", hours=YEAR_HOURS))

    finding = fault(of_host(tmp_path, host_config(tmp_path, collector=collector)), "certificate-other-ca")

    assert finding.remedy == "Have the same authority sign both, unless the collector trusts another for its agents."


def test_certificates_in_order_have_no_fault(tmp_path: Path) -> None:
    """The same files that the faults above were made of."""
    found = faults(certificate_faults(tmp_path, lambda folder: None))

    assert not found & {"certificate-other-ca", "certificate-other-host", "certificate-nameless", "key-open"}
    assert not {one for one in found if one.startswith(("certificate", "key", "ca-"))}


def _answer(listener: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
