"""One running collector: store, writer, gRPC server, fleet view and HTTP side, started and stopped in the right order.

Decides nothing about energy. gRPC has the event loop; HTTP has a thread and a loop of its own, so that a slow scrape does
not delay an acknowledgement.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from wattledger_collector.config import Configuration, Http
from wattledger_collector.configuration import HostPlacer, apply_configuration
from wattledger_collector.declared import Declared, parse_declared
from wattledger_collector.emission_terms import DeclaredTerms
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_fetch import Fetch, fetch
from wattledger_collector.factor_live import RENEWAL_SECONDS as FACTORS_RENEWAL_SECONDS
from wattledger_collector.factor_live import LiveFactors
from wattledger_collector.factor_refresh import FactorRefresh, SourceHealth
from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_sharing import FleetSharing
from wattledger_collector.inventory import InventoryError
from wattledger_collector.lease import RENEWAL_SECONDS
from wattledger_collector.records import StoreError
from wattledger_collector.self_metrics import make_registry
from wattledger_collector.server import TelemetryServer, tune_interpreter
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.tls import ServerTls
from wattledger_collector.web.app import make_app
from wattledger_collector.writer import Writer

log = logging.getLogger("wattledger.collector")

# Connections that wait to be accepted; more scrapes and pages than that at one moment are turned away.
HTTP_BACKLOG = 128

# systemd's watchdog waits for minutes; a word every ten seconds is enough.
WATCHDOG_SECONDS = 10.0


class ServiceError(Exception):
    """The collector can't start; the text says what happened, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a started collector listens, as host:port."""

    http: str
    grpc: str


class Service:
    """A collector from `start` to `stop`.

    time_zone: IANA name, where the page's day begins. assumed: the zones were proposed, not given by an operator.
    notice: a sentence on top of the page. fetch: asks providers of factors.
    """

    def __init__(
        self,
        configuration: Configuration,
        catalog: FactorCatalog,
        *,
        time_zone: str = "UTC",
        assumed: bool = False,
        notice: str = "",
        fetch: Fetch = fetch,
    ) -> None:
        self._configuration = configuration
        self._catalog = catalog
        self._time_zone = time_zone
        self._assumed = assumed
        self._notice = notice
        self._fetch = fetch
        self._store: SqliteStore | None = None
        self._writer: Writer | None = None
        self._server: TelemetryServer | None = None
        self._sharing: FleetSharing | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._live: LiveFactors | None = None
        self._refresh: FactorRefresh | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._listener: socket.socket | None = None
        self._http: uvicorn.Server | None = None
        self._http_thread: threading.Thread | None = None

    async def start(self) -> Addresses:
        """Open the ledger and listen. Raises ServiceError, StoreError, ServerError or TlsError."""
        configuration = self._configuration
        # The port is taken first: a second collector by mistake must not touch the ledger.
        listener = self._listener = _listen(configuration.http)
        store = self._store = _open(configuration)
        name = configuration.server.name or socket.gethostname()
        declared = _declared(configuration.inventory.file)
        apply_configuration(configuration, store, int(time.time()), assumed=self._assumed)
        view = FleetView(
            collector=name,
            interval_seconds=store.interval_seconds,
            staleness_seconds=configuration.silence.staleness_seconds,
        )
        sharing = FleetSharing(view, store)
        sharing.start(time.time())
        self._sharing = sharing
        live = self._live = LiveFactors(store, self._catalog)
        view.load(store, live.finder, time.time(), DeclaredTerms(declared, lambda: live.catalog))
        self._writer = Writer(
            store, collector=name, listeners=[view.on_committed], place_hosts=HostPlacer(configuration, store)
        )
        self._writer.start()
        self._server = TelemetryServer(
            self._writer, address=_grpc_address(configuration), tls=_server_tls(configuration), on_live=view.on_live
        )
        port = await self._server.start()
        tune_interpreter()
        self._renewing = asyncio.create_task(self._renew(sharing))
        renew_factors = partial(_renew_factors, live, view)
        self._watching = asyncio.create_task(self._watch_factors(renew_factors))
        self._refresh = FactorRefresh(
            configuration.factors.source,
            store,
            names=self._catalog.zones,
            is_asking=lambda: view.is_site_exposer(time.time()),
            on_recorded=renew_factors,
            fetch=self._fetch,
        )
        self._refresh.start()
        addresses = Addresses(_address(listener), f"{configuration.server.address}:{port}")
        self._serve_http(listener, view, addresses)
        return addresses

    async def stop(self) -> None:
        """Drain the agents, finish the commit under way, and close the ledger."""
        if self._server is not None:
            await self._server.stop()
        if self._writer is not None:
            await self._writer.stop()
        await self._leave()
        if self._http is not None and self._http_thread is not None:
            self._http.should_exit = True
            await asyncio.to_thread(self._http_thread.join, 5.0)
        if self._listener is not None:
            self._listener.close()
        if self._store is not None:
            self._store.close()

    async def _renew(self, sharing: FleetSharing) -> None:
        """Until it stops; a store that can't be used is the writer's to tell of, here it only ends the lease."""
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), RENEWAL_SECONDS)
            except TimeoutError:
                try:
                    await asyncio.to_thread(sharing.renew, time.time())
                except StoreError as error:
                    log.warning("the lease on the sites' metrics was not renewed: %s", error)

    async def _watch_factors(self, renew: Callable[[], bool]) -> None:
        """Until it stops, see what was recorded here, by a command, or by another collector."""
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), FACTORS_RENEWAL_SECONDS)
            except TimeoutError:
                try:
                    if await asyncio.to_thread(renew):
                        log.info("grid factors were renewed")
                except StoreError as error:
                    log.warning("grid factors were not read again: %s", error)

    async def _leave(self) -> None:
        self._stopping.set()
        if self._refresh is not None:
            await asyncio.to_thread(self._refresh.stop)
        if self._watching is not None:
            await self._watching
        if self._renewing is not None:
            await self._renewing
        if self._sharing is not None:
            try:
                await asyncio.to_thread(self._sharing.stop)
            except StoreError as error:
                log.warning("the lease on the sites' metrics was not given back, it ends by itself: %s", error)

    @property
    def streams(self) -> int:
        """How many agents are connected."""
        return self._server.streams if self._server is not None else 0

    def _factor_health(self) -> list[SourceHealth]:
        return self._refresh.health() if self._refresh is not None else []

    def _serve_http(self, listener: socket.socket, view: FleetView, addresses: Addresses) -> None:
        writer, http = self._writer, self._configuration.http
        assert writer is not None
        app = make_app(
            view,
            store=self._store,
            catalog=self._live,
            registry=make_registry(writer, lambda: self.streams, self._factor_health),
            time_zone=self._time_zone,
            insecure_transport=self._configuration.server.insecure,
            readiness=lambda: "" if writer.healthy else f"{writer.last_error}\n",
            agent_address=addresses.grpc,
            notice=self._notice,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ssl_certfile=http.tls.certificate if http.tls else None,
            ssl_keyfile=http.tls.key if http.tls else None,
            ssl_ca_certs=(http.tls.ca or None) if http.tls else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if http.tls and http.tls.ca else ssl.CERT_NONE,
            timeout_graceful_shutdown=2,
        )
        self._http = uvicorn.Server(config)
        # In a thread uvicorn leaves the signals to us.
        self._http_thread = threading.Thread(target=self._http.run, args=([listener],), name="http", daemon=True)
        self._http_thread.start()


async def run(service: Service, stopping: asyncio.Event, *, started: "asyncio.Future[Addresses] | None" = None) -> None:
    """Start a collector, tell systemd (man sd_notify(3)) where there is one, and stop it when `stopping` is set."""
    try:
        addresses = await service.start()
        if started is not None:
            started.set_result(addresses)
        supervisor = os.environ.get("NOTIFY_SOCKET", "")
        notify("READY=1", supervisor)
        log.info("agents: %s, page and metrics: http://%s/", addresses.grpc, addresses.http)
        while not stopping.is_set():
            notify("WATCHDOG=1", supervisor)
            try:
                await asyncio.wait_for(stopping.wait(), WATCHDOG_SECONDS)
            except TimeoutError:
                continue
        notify("STOPPING=1", supervisor)
    finally:
        await service.stop()


def notify(state: str, address: str) -> None:
    """Tell systemd a state; address: what it put into NOTIFY_SOCKET, empty without it."""
    if not address:
        return
    # A supervisor that does not listen is no reason not to serve; if it is there, its watchdog decides.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _declared(file: str) -> Declared | None:
    """What the organisation declares; None without a file. Its certificates are not read: counters have none."""
    if not file:
        return None
    try:
        return parse_declared(Path(file).read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"cannot read {file}: {error}; correct `inventory.file`") from error
    except InventoryError as error:
        raise ServiceError(str(error)) from error


def _renew_factors(live: LiveFactors, view: FleetView) -> bool:
    """Read what was recorded since; whether there was something. StoreError."""
    if not live.renew():
        return False
    view.factors_changed()
    return True


def _open(configuration: Configuration) -> SqliteStore:
    path = Path(configuration.store.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(
            f"cannot make the folder {path.parent}: a file is in its place: move it away, or set `store.path`"
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {path.parent}: {error.strerror}: let the collector's user write there, or set "
            "`store.path`"
        ) from error
    return open_store(path, create=True)


def _listen(http: Http) -> socket.socket:
    family = socket.AF_INET6 if ":" in http.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((http.address, http.port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"cannot listen on {http.address}:{http.port} for HTTP: {error.strerror}. {_listen_remedy(error)}"
        ) from error
    listener.listen(HTTP_BACKLOG)
    return listener


def _listen_remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "End the program that uses the port, or choose another one (`http.port`, or --http-port with quickstart)."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Choose a port from 1024 on (`http.port`, or --http-port with quickstart)."
    return "Give `http.address` an address of this machine."


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _grpc_address(configuration: Configuration) -> str:
    host = configuration.server.address
    return f"[{host}]:{configuration.server.port}" if ":" in host else f"{host}:{configuration.server.port}"


def _server_tls(configuration: Configuration) -> ServerTls | None:
    tls = configuration.server.tls
    if tls is None:
        return None
    return ServerTls(certificate=Path(tls.certificate), key=Path(tls.key), ca=Path(tls.ca) if tls.ca else None)
