"""A management controller on 127.0.0.1: serves a fixture's resources, and is slow, full, forgetful or gone when told to."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

SESSIONS = "/redfish/v1/SessionService/Sessions"
LONG_SECONDS = 30.0


class Closable(Protocol):
    """What a test opened."""

    def close(self) -> None:
        """Close it."""


@dataclass
class Controller:
    """What it does, and what it saw. All fields may be set while it runs.

    sessions_max: more are refused. has_sessions: whether there is a session service. hang_up: drop connections without an
    answer. denials: so many requests are denied although their session is open. before: called at each request, in the
    server's thread. overrides: resources in place of the folder's.
    open_sessions: tokens by path. sessions_most: the most that were open at once. requests: method and path. clients: what
    is closed at the end of the test, before the server.
    """

    folder: Path
    user: str = "reader"
    password: str = "secret"
    sessions_max: int = 4
    has_sessions: bool = True
    hang_up: bool = False
    close_each: bool = False
    denials: int = 0
    before: Callable[[str], None] = lambda path: None
    overrides: dict[str, Any] = field(default_factory=dict)
    open_sessions: dict[str, str] = field(default_factory=dict)
    sessions_most: int = 0
    logins: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    passwords_seen: int = 0
    url: str = ""
    clients: list[Closable] = field(default_factory=list)

    def resource(self, path: str) -> Any:
        """What is at a path; None if there is nothing."""
        path = path.rstrip("/")
        if path in self.overrides:
            return self.overrides[path]
        place = self.folder / f"{path.strip('/').removeprefix('redfish/')}.json"
        return json.loads(place.read_text()) if place.exists() else None


@contextmanager
def serving(controller: Controller, certificate: tuple[Path, Path] | None = None) -> Iterator[Controller]:
    """Run it on a free port, with TLS if there is a certificate and its key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536

        def do_GET(self) -> None:
            if not self._begin():
                return None
            if self.path.rstrip("/") != "/redfish/v1" and not self._is_allowed():
                return self._answer(401, {"error": {"message": "no valid session"}})
            resource = controller.resource(self.path)
            return self._answer(404, {"error": {}}) if resource is None else self._answer(200, resource)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._begin():
                return None
            if not controller.has_sessions or self.path != SESSIONS:
                return self._answer(404, {"error": {}})
            controller.logins += 1
            if (body["UserName"], body["Password"]) != (controller.user, controller.password):
                return self._answer(401, {"error": {"message": "wrong"}})
            if len(controller.open_sessions) >= controller.sessions_max:
                message = "The maximum number of user sessions is reached."
                return self._answer(503, {"error": {"@Message.ExtendedInfo": [{"Message": message}]}})
            path, token = f"{SESSIONS}/{controller.logins}", f"token-{controller.logins}"
            controller.open_sessions[path] = token
            controller.sessions_most = max(controller.sessions_most, len(controller.open_sessions))
            return self._answer(201, {}, {"X-Auth-Token": token, "Location": path})

        def do_DELETE(self) -> None:
            if not self._begin():
                return None
            known = controller.open_sessions.get(self.path)
            if known is None or known != self.headers.get("X-Auth-Token"):
                return self._answer(401, {"error": {}})
            del controller.open_sessions[self.path]
            return self._answer(204, None)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _begin(self) -> bool:
            controller.requests.append((self.command, self.path))
            controller.before(self.path)
            if controller.hang_up:
                self.close_connection = True
            return not controller.hang_up

        def _is_allowed(self) -> bool:
            if self.headers.get("Authorization", "").startswith("Basic "):
                controller.passwords_seen += 1
                return True
            if controller.denials > 0:
                controller.denials -= 1
                return False
            return self.headers.get("X-Auth-Token") in controller.open_sessions.values()

        def _answer(self, status: int, resource: Any, headers: dict[str, str] | None = None) -> None:
            body = b"" if resource is None else json.dumps(resource).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if controller.close_each:
                self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    controller.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield controller
    finally:
        for client in controller.clients:
            client.close()
        server.shutdown()
        server.server_close()
        thread.join(LONG_SECONDS)
