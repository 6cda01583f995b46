"""One session with a management controller by Redfish: log in once, ask, log out.

Understands no resource; the controller is asked for one at a time, over one kept connection. Source of truth: Redfish
Specification (DSP0266), sections on authentication and session management.
"""

import base64
import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

import msgspec

from wattledger_agent.slow import LOCKOUT_SECONDS, PollError

ROOT = "/redfish/v1/"
SESSIONS = "/redfish/v1/SessionService/Sessions"

# Controllers were seen to need 25 to 55 s for one answer under load.
REQUEST_SECONDS_MAX = 60.0

# The largest resources (logs) are not asked for; a chassis with all its sensors has some 50 kB.
BODY_BYTES_MAX = 2 * 1024 * 1024
CHUNK_BYTES = 65_536

FAREWELL_SECONDS_MAX = 2.0

# A controller that has no session left is asked again for one after this; until then each request carries the password.
SESSION_RETRY_SECONDS = 600.0

# HTTP statuses.
UNAUTHORIZED, FORBIDDEN, UNAVAILABLE = 401, 403, 503
NO_SESSION_SERVICE = frozenset({404, 405, 501})

# As controllers say that all sessions are taken (iDRAC: RAC0218, "The maximum number of user sessions is reached").
_EXHAUSTED = re.compile(
    r"RAC0218|SessionLimitExceeded|(?:maximum|limit|exceed)[^.]{0,60}session|session[^.]{0,60}limit", re.I
)

# A connection that was kept open is closed by the controller when it likes; that is no failure.
_LOST = (http.client.RemoteDisconnected, http.client.BadStatusLine, ConnectionResetError, BrokenPipeError)


class RedfishError(PollError):
    """The controller gave no answer, or a refusal.

    status: its HTTP status; 0: none.
    """

    def __init__(self, reason: str, *, status: int = 0, pause_seconds: float = 0.0) -> None:
        super().__init__(reason, pause_seconds)
        self.status = status


class Fetch(Protocol):
    """Where Redfish resources come from."""

    def begin(self, seconds_max: float) -> None:
        """A poll begins, which has this long for all its requests."""

    def get(self, path: str) -> Mapping[str, Any]:
        """The resource at a path (`/redfish/v1/Chassis/1`). Raises RedfishError."""

    def close(self) -> None:
        """End the session."""


class FolderFetch:
    """Plays resources from a folder: `/redfish/v1/Chassis/1` is `v1/Chassis/1.json` in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, seconds_max: float) -> None:
        """Nothing to do."""

    def get(self, path: str) -> Mapping[str, Any]:
        """Read one file; see Fetch."""
        place = self._folder / f"{path.strip('/').removeprefix('redfish/')}.json"
        try:
            return _object(place.read_bytes(), path)
        except OSError as error:
            raise RedfishError(f"redfish: {path} is not in the recording", status=404) from error

    def close(self) -> None:
        """Nothing to do."""


def tls_context(ca_file: str = "", *, insecure: bool = False) -> ssl.SSLContext:
    """How the controller's certificate is judged. insecure: not at all. Raises OSError if ca_file can't be read."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class RedfishSession:
    """At most one session with one controller; used by one thread.

    url: `https://address[:port]`. user: empty: no authentication. password: read anew at each login, so that it can be
    rotated. Where the controller has no sessions, or none left, requests carry user and password instead.
    """

    # Until when (monotonic seconds) refused credentials are not tried again; a password is known by its hash alone.
    _refused_until: ClassVar[dict[tuple[str, str, int], float]] = {}

    def __init__(
        self,
        url: str,
        user: str,
        password: Callable[[], str],
        *,
        context: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._is_tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self._url = url
        self._user = user
        self._password = password
        self._context = context
        self._monotonic = monotonic
        self._connection: http.client.HTTPConnection | None = None
        self._deadline = 0.0
        self._token = ""
        self._session_path = ""
        self._has_no_sessions = False
        self._no_login_before = float("-inf")

    def begin(self, seconds_max: float) -> None:
        """A poll begins; see Fetch."""
        self._deadline = self._monotonic() + seconds_max

    def get(self, path: str) -> Mapping[str, Any]:
        """Ask for a resource, logging in where that is needed; see Fetch."""
        if not path.startswith("/"):
            raise RedfishError(f"redfish: the controller links to {path[:80]!r}, which is no path on it; report it")
        status, _, body = self._request("GET", path, self._authorization(path))
        if status == UNAUTHORIZED and self._token:
            # The controller forgot the session: it was idle, somebody ended it, or the controller restarted.
            self._end_session()
            status, _, body = self._request("GET", path, self._authorization(path))
        if status != 200:
            raise self._refusal(path, status, body)
        return _object(body, path)

    def close(self) -> None:
        """Log out, so that no session is left behind on the controller, and close the connection."""
        self.begin(FAREWELL_SECONDS_MAX)
        self._end_session()
        self._disconnect()

    def _authorization(self, path: str) -> dict[str, str]:
        if not self._user or path == ROOT:
            return {}
        if self._token:
            return {"X-Auth-Token": self._token}
        password = self._password()
        # Sources are closed and opened anew, so that this is known to the whole agent and not to one session.
        if self._monotonic() < self._refused_until.get((self._url, self._user, hash(password)), float("-inf")):
            raise self._wrong_credentials(UNAUTHORIZED, password)
        if not self._has_no_sessions and self._monotonic() >= self._no_login_before:
            self._log_in(password)
        if self._token:
            return {"X-Auth-Token": self._token}
        pair = base64.b64encode(f"{self._user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def _log_in(self, password: str) -> None:
        # Over a connection of its own: this request is never sent twice, for each makes a session.
        self._disconnect()
        body = msgspec.json.encode({"UserName": self._user, "Password": password})
        status, headers, answer = self._request("POST", SESSIONS, {"Content-Type": "application/json"}, body)
        text = answer.decode(errors="replace")
        token = headers.get("X-Auth-Token")
        if status in (200, 201) and token:
            self._token, self._session_path = token, urlsplit(headers.get("Location") or "").path
        elif status in NO_SESSION_SERVICE:
            self._has_no_sessions = True
        elif status == UNAVAILABLE or _EXHAUSTED.search(text):
            self._no_login_before = self._monotonic() + SESSION_RETRY_SECONDS
        elif status in (400, UNAUTHORIZED, FORBIDDEN):
            raise self._wrong_credentials(status, password)
        else:
            raise self._refusal(SESSIONS, status, answer)

    def _end_session(self) -> None:
        """Delete the session, also where the controller seems to have forgotten it: never are there two."""
        token, path = self._token, self._session_path
        self._token = self._session_path = ""
        if token and path.startswith("/"):
            with contextlib.suppress(RedfishError):
                self._request("DELETE", path, {"X-Auth-Token": token})

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request; again over a new connection where a kept one was lost. Raises RedfishError."""
        was_kept = self._connection is not None
        try:
            return self._exchange(method, path, headers, body)
        except _LOST as error:
            self._disconnect()
            if not was_kept:
                raise RedfishError(f"redfish: {self._url} hung up at {path}; restart the controller if it stays") from error
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise self._failure(path, error) from error
        try:
            return self._exchange(method, path, headers, body)
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise self._failure(path, error) from error

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connect()
        connection.request(method, path, body, {"Accept": "application/json", "OData-Version": "4.0", **headers})
        response = connection.getresponse()
        parts: list[bytes] = []
        size = 0
        while part := response.read1(CHUNK_BYTES):
            size += len(part)
            if size > BODY_BYTES_MAX:
                raise http.client.HTTPException(f"the answer is longer than {BODY_BYTES_MAX} bytes")
            parts.append(part)
            self._set_timeout(connection)
        # Read to its end, but told so only by this; the connection stays.
        response.close()
        if response.will_close:
            self._disconnect()
        return response.status, response.headers, b"".join(parts)

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._is_tls:
                context = self._context or tls_context()
                self._connection = http.client.HTTPSConnection(self._host, self._port, context=context)
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port)
        self._set_timeout(self._connection)
        return self._connection

    def _set_timeout(self, connection: http.client.HTTPConnection) -> None:
        remaining = self._deadline - self._monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.timeout = min(remaining, REQUEST_SECONDS_MAX)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _failure(self, path: str, error: Exception) -> RedfishError:
        where = f"redfish: {self._url}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return RedfishError(
                f"{where}: its certificate is not trusted ({error.verify_message}); name the authority that signed it in "
                "`sources.redfish.ca_file`, or the address that is in it",
            )
        if isinstance(error, TimeoutError):
            return RedfishError(f"{where} has not answered in time to {path}; look at the controller's load, or restart it")
        if isinstance(error, socket.gaierror):
            return RedfishError(f"{where}: the name can't be resolved ({error.strerror}); mend `sources.redfish.address`")
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            return RedfishError(f"{where} can't be reached: {reason}; see whether the controller and its network are up")
        return RedfishError(f"{where}: the answer to {path} is no HTTP ({error!r}); see what listens there")

    def _wrong_credentials(self, status: int, password: str) -> RedfishError:
        account = (self._url, self._user, hash(password))
        if self._monotonic() >= self._refused_until.get(account, float("-inf")):
            self._refused_until[account] = self._monotonic() + LOCKOUT_SECONDS
        return RedfishError(
            f"redfish: {self._url} refuses user `{self._user}` (HTTP {status}); mend `sources.redfish.user` and its "
            f"password file. It is tried again after {LOCKOUT_SECONDS / 60:.0f} minutes at the earliest, so as not to lock "
            "the account",
            status=status,
            pause_seconds=LOCKOUT_SECONDS,
        )

    def _refusal(self, path: str, status: int, body: bytes) -> RedfishError:
        if status == UNAUTHORIZED:
            return self._wrong_credentials(status, self._password())
        if status == FORBIDDEN:
            return RedfishError(
                f"redfish: user `{self._user}` may not read {path} (HTTP 403); give the account the role ReadOnly",
                status=status,
            )
        said = " ".join(body.decode(errors="replace").split())[:160]
        return RedfishError(f"redfish: {self._url} answers HTTP {status} to {path}: `{said}`", status=status)


def _object(body: bytes, path: str) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise RedfishError(f"redfish: the answer to {path} is no JSON ({error}); update its firmware") from error
    if not isinstance(value, dict):
        raise RedfishError(f"redfish: the answer to {path} is no JSON object; update its firmware")
    return value
