"""The server's certificates from files, taken up again when they change, and the host that a client's certificate names.

Makes no connection. An agent's host id is in its certificate's subject alternative names: `wattledger://host/<id>` as URI,
or else the first DNS name.
"""

import logging
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from urllib.parse import unquote

import grpc

URI_PREFIX: Final = "wattledger://host/"

_log = logging.getLogger(__name__)


class TlsError(Exception):
    """The certificate files can't be used; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files. ca: the authority that signed the agents' certificates; None: agents are not asked for any."""

    certificate: Path
    key: Path
    ca: Path | None


def hosts_of_peer(auth_context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The host ids that a verified certificate names; empty if it names none.

    auth_context: gRPC's, of a connection on which the client's certificate was asked for.
    """
    uris = [unquote(uri.decode("utf-8", "replace")) for uri in auth_context.get("peer_uri", ())]
    ids = frozenset(uri.removeprefix(URI_PREFIX) for uri in uris if uri.startswith(URI_PREFIX) and uri != URI_PREFIX)
    if ids:
        return ids
    names = [name.decode("utf-8", "replace") for name in auth_context.get("peer_dns", ())]
    return frozenset(names[:1])


class Certificates:
    """Certificate files behind gRPC's credentials: read again at a handshake if they have changed since."""

    def __init__(self, tls: ServerTls) -> None:
        """TlsError if the files can't be used."""
        self._tls = tls
        self._lock = threading.Lock()
        self._stamp = self._stamps()
        self._current = self._load()
        self.reload_error = ""

    def credentials(self) -> grpc.ServerCredentials:
        """Server credentials that follow the files."""
        # None means "as before", which the published types leave out.
        changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)
        return grpc.dynamic_ssl_server_credentials(
            self._current, changed, require_client_authentication=self._tls.ca is not None
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC's threads at each handshake; None: as before. Never raises: the old ones go on."""
        with self._lock:
            try:
                stamp = self._stamps()
                if stamp == self._stamp:
                    return None
                self._current = self._load()
            except TlsError as error:
                if self.reload_error != str(error):
                    _log.error("changed certificates are not taken up: %s", error)
                self.reload_error = str(error)
                return None
            self._stamp = stamp
            self.reload_error = ""
            _log.info("certificates were read again")
            return self._current

    def _files(self) -> list[Path]:
        return [file for file in (self._tls.certificate, self._tls.key, self._tls.ca) if file is not None]

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for file in self._files():
            try:
                status = file.stat()
            except OSError as error:
                raise TlsError(
                    f"cannot read {file} ({error.strerror}): correct its path or the rights of the folder"
                ) from error
            stamps.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(stamps)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        contents = []
        for file in self._files():
            try:
                contents.append(file.read_bytes())
            except OSError as error:
                raise TlsError(f"cannot read {file} ({error.strerror}): let the collector's user read it") from error
        # gRPC takes any bytes and fails only at handshakes; OpenSSL says at once what is wrong, as in a half-replaced pair.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._tls.certificate, self._tls.key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TlsError(
                f"{self._tls.certificate} and {self._tls.key} are no certificate with its key ({error}): give PEM files "
                "that belong together, the key without a password"
            ) from error
        if self._tls.ca is not None:
            try:
                context.load_verify_locations(self._tls.ca)
            except (ssl.SSLError, OSError) as error:
                raise TlsError(f"{self._tls.ca} holds no certificates ({error}): give the authority's PEM file") from error
        certificate, key, *ca = contents
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca[0] if ca else None)


def _no_password() -> str:
    raise ValueError("the key has a password")
