"""Whether what is metered can be delivered: certificates, and the collector at the other end. Part of `doctor`.

Sends nothing of this host: it connects, shakes hands as a stream does, and goes. What the running agent was told by the
collector, it told systemd, and is asked of it. Source of truth: RFC 5280 for certificates,
RFC 9113 section 3.4 for the first frame of a gRPC server.
"""

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from wattledger_agent.certificate_dates import Certificate, CertificateError, read_pem
from wattledger_agent.commands import CommandError, Runner
from wattledger_agent.config import AgentConfig, CollectorConfig, is_loopback, split_address
from wattledger_agent.delivery_text import clock_seconds_in, refusal_in
from wattledger_agent.doctor_faults import FAULTS, Finding

CONNECT_SECONDS_MAX = 3.0

# A certificate is renewed by people, who are away for a week or two.
EXPIRING_DAYS = 21

# Two clocks that are set by anything are within some milliseconds; energy is dated by the quarter of an hour.
CLOCK_SECONDS_MAX = 5.0

STATUS_COMMAND = ("systemctl", "show", "wattledger-agent", "--property=StatusText", "--value")
STATUS_SECONDS_MAX = 2.0

HOST_PREFIX = "wattledger://host/"

# A client's first words in HTTP/2, with empty SETTINGS; a server answers with SETTINGS (type 4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL.
_OTHER_NAME = (62, 64)


class Connect(Protocol):
    """Opens a connection to (host, port), as socket.create_connection does."""

    def __call__(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """Raises OSError."""


class TlsProblemError(Exception):
    """Certificate files that can't be used."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


class RejectedError(OSError):
    """The collector ended the connection when it had seen our certificate."""


def certificate_findings(config: AgentConfig, utc_seconds: float) -> Iterator[Finding]:
    """Look at the files for mutual TLS. utc_seconds: this host's clock."""
    collector = config.collector
    if not collector.uses_tls:
        host, _ = split_address(collector.address, "configuration")
        if is_loopback(host):
            yield Finding("certificates", "ok", "none needed: the collector is on this machine")
        else:
            yield FAULTS["stream-unencrypted"].finding(address=collector.address)
        return
    mode = _mode(collector.key_file)
    if mode & 0o007:
        yield FAULTS["key-open"].finding(path=collector.key_file, mode=f"{mode:04o}")
    try:
        tls_context(collector)
        own, authorities = _read(collector.certificate_file), _read(collector.ca_file)
    except TlsProblemError as problem:
        yield problem.finding
        return
    now = datetime.fromtimestamp(utc_seconds, UTC)
    host = _host_of(own[0]) or config.host or "<host>"
    faults = [
        *_dates(collector.certificate_file, own[0], now, host),
        *(fault for one in authorities for fault in _dates(collector.ca_file, one, now, host)),
        *_names(config, own[0], authorities),
    ]
    yield from faults
    if not faults:
        yield Finding(
            "certificates", "ok", f"{collector.certificate_file} and its key belong together, until {_day(own[0])}"
        )


def collector_findings(config: AgentConfig, connect: Connect = socket.create_connection) -> Iterator[Finding]:
    """Connect to the collector as a stream does, and go."""
    collector = config.collector
    address = collector.address
    host, port = split_address(address, "configuration")
    try:
        with connect((host, port), timeout=CONNECT_SECONDS_MAX) as connection:
            if collector.uses_tls:
                with contextlib.suppress(TlsProblemError):  # Told beside the certificates.
                    _greet(tls_context(collector), connection, collector.server_name or host)
                yield Finding("collector", "ok", f"{address} answers")
                return
            is_grpc = _speaks_grpc(connection)
        if is_grpc:
            yield Finding("collector", "ok", f"{address} answers")
            return
        with connect((host, port), timeout=CONNECT_SECONDS_MAX) as connection:
            fault = "collector-wants-tls" if _speaks_tls(connection) else "collector-no-grpc"
        yield FAULTS[fault].finding(address=address)
    except UnicodeError:
        yield FAULTS["collector-name-impossible"].finding(host=repr(host))
    except OSError as error:
        yield FAULTS[_fault_of(error)].finding(address=address, reason=_reason(error))


def running_findings(config: AgentConfig, run: Runner) -> Iterator[Finding]:
    """Ask systemd what the running agent said last, if there is one. run: runs the command."""
    try:
        text = run(STATUS_COMMAND, STATUS_SECONDS_MAX).stdout
    except CommandError:
        return
    refusal, seconds = refusal_in(text), clock_seconds_in(text)
    if refusal:
        yield FAULTS["collector-refuses-host"].finding(refusal=refusal, path=config.state_dir)
    if seconds is not None and abs(seconds) > CLOCK_SECONDS_MAX:
        yield FAULTS["collector-clock"].finding(seconds=f"{seconds:+.1f}")


def tls_context(collector: CollectorConfig) -> ssl.SSLContext:
    """TLS with the configured files, as gRPC will use them. Raises TlsProblemError."""
    for name in (collector.ca_file, collector.certificate_file, collector.key_file):
        try:
            Path(name).read_bytes()
        except OSError as error:
            fault = FAULTS["certificate-unreadable"]
            raise TlsProblemError(fault.finding(path=name, reason=error.strerror, user=os.getuid())) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(collector.ca_file)
    except ssl.SSLError as error:
        raise TlsProblemError(FAULTS["ca-not-pem"].finding(path=collector.ca_file)) from error
    try:
        context.load_cert_chain(collector.certificate_file, collector.key_file, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        fault = FAULTS["key-mismatch"]
        raise TlsProblemError(fault.finding(certificate=collector.certificate_file, key=collector.key_file)) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def _mode(path: str) -> int:
    try:
        return Path(path).stat().st_mode & 0o777
    except OSError:
        return 0


def _read(path: str) -> list[Certificate]:
    try:
        found = read_pem(Path(path).read_text(errors="replace"))
    except (OSError, CertificateError) as error:
        raise TlsProblemError(FAULTS["ca-not-pem"].finding(path=path)) from error
    if not found:
        raise TlsProblemError(FAULTS["ca-not-pem"].finding(path=path))
    return found


def _dates(path: str, certificate: Certificate, now: datetime, host: str) -> Iterator[Finding]:
    if now < certificate.since:
        yield FAULTS["certificate-early"].finding(path=path, since=_minute(certificate.since), now=_minute(now))
    elif now >= certificate.until:
        yield FAULTS["certificate-expired"].finding(path=path, until=_minute(certificate.until), host=host)
    elif (certificate.until - now).days < EXPIRING_DAYS:
        days, until = (certificate.until - now).days, _minute(certificate.until)
        yield FAULTS["certificate-expiring"].finding(path=path, days=days, until=until, host=host)


def _names(config: AgentConfig, own: Certificate, authorities: list[Certificate]) -> Iterator[Finding]:
    collector = config.collector
    if not own.names:
        yield FAULTS["certificate-nameless"].finding(path=collector.certificate_file, host=config.host or "<host>")
    elif config.host and config.host not in (ids := [name.removeprefix(HOST_PREFIX) for name in own.names]):
        names = ", ".join(ids)
        yield FAULTS["certificate-other-host"].finding(
            host=config.host, path=collector.certificate_file, names=names, first=ids[0]
        )
    if own.issuer not in [authority.subject for authority in authorities]:
        yield FAULTS["certificate-other-ca"].finding(path=collector.certificate_file, ca=collector.ca_file)


def _host_of(certificate: Certificate) -> str:
    return next((name.removeprefix(HOST_PREFIX) for name in certificate.names), "")


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ")


def _day(certificate: Certificate) -> str:
    return certificate.until.strftime("%Y-%m-%d")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether HTTP/2 without TLS is answered as gRPC servers do. Raises TimeoutError if nothing is."""
    connection.sendall(_PREFACE)
    try:
        answer = connection.recv(9)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, "it takes connections, but says nothing") from None
    except ConnectionError:
        return False
    return len(answer) >= 4 and answer[3] == _SETTINGS and not answer.startswith(b"HTTP")


def _speaks_tls(connection: socket.socket) -> bool:
    """Whether a TLS handshake is answered by one, whatever it comes to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        return error.reason is not None and "ALERT" in error.reason
    except OSError:
        return False


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
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    return error.strerror or str(error)


def _fault_of(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "collector-other-name" if error.verify_code in _OTHER_NAME else "collector-untrusted"
    if isinstance(error, RejectedError):
        return "certificate-refused"
    if isinstance(error, ssl.SSLError):
        return "collector-without-tls"
    if isinstance(error, socket.gaierror):
        return "collector-name-unknown"
    if isinstance(error, ConnectionRefusedError):
        return "collector-refused"
    return "collector-silent"
