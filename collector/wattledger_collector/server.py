"""The gRPC server: moves messages between streams, sessions and the writer.

Decides nothing: CollectorSession says what to send, what to commit and when to close. Source of truth for the settings:
https://grpc.github.io/grpc/core/group__grpc__arg__keys.html.
"""

import asyncio
import gc
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, cast

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from wattledger_collector.ledger import Refused
from wattledger_collector.session import Action, Book, Close, CollectorSession, OpenStream, Send, ShowLive
from wattledger_collector.tls import Certificates, ServerTls, hosts_of_peer
from wattledger_collector.writer import WORKS_MAX, Failed, Writer
from wattledger_protos.v1 import telemetry_pb2 as pb

# Streams of one collector, at about 100 kB each with TLS: 2 GB. Larger fleets have more collectors.
STREAMS_MAX: Final = WORKS_MAX

# A payload is at most 1 MiB, a catalog of 4096 channels about as much.
MESSAGE_BYTES_MAX: Final = 4 * 2**20

# A connection that says nothing else is not kept; a Hello is the first thing that an agent sends.
HELLO_SECONDS_MAX: Final = 30.0

# Agents ping every 60 s at most; half of that is the least interval that is not taken for an attack.
_PING_INTERVAL_MILLISECONDS_MIN: Final = 30_000

# A host that lost its power says no goodbye: its stream ends after these.
_KEEPALIVE_MILLISECONDS: Final = 60_000
_KEEPALIVE_TIMEOUT_MILLISECONDS: Final = 20_000

SERVER_OPTIONS: Final = (
    # Two collectors on one port would share the agents unnoticed.
    ("grpc.so_reuseport", 0),
    # By default gRPC cancels the calls of a fleet that comes back at once, beyond the first thousand.
    ("grpc.server.max_pending_requests", STREAMS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", STREAMS_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MILLISECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_INTERVAL_MILLISECONDS_MIN),
    # A ping after each message, to find how much a link can carry, would wake every agent once more; messages are small.
    ("grpc.http2.bdp_probe", 0),
)

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Telemetry"].full_name

# Told of present values: host, values, and the time in seconds since 1970-01-01 UTC; runs in the event loop.
LiveListener = Callable[[str, pb.Live, float], None]
_Context = aio.ServicerContext[pb.AgentMessage, pb.CollectorMessage]

_log = logging.getLogger(__name__)


class ServerError(Exception):
    """The server can't listen; the text says why and what to do."""


def tune_interpreter() -> None:
    """To be called once by a collector's process, after its imports; without it ingest is slower, and else the same.

    Messages and bookings hold no cycles and are freed by counting; with Python's defaults the search for cycles goes through
    the rows of all hosts again and again. And the writer's thread needs the interpreter for a moment after each statement:
    with the default of 5 ms it would wait a hundred times longer than it works.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    sys.setswitchinterval(0.0005)


class TelemetryServer:
    """Serves agents on one address until it is stopped.

    address: host:port, port 0 for any free one. tls: None: plain, and whatever host a Hello names is believed. settings:
    sent to agents in each Welcome. on_live: told of present values.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        address: str,
        tls: ServerTls | None,
        settings: pb.Settings | None = None,
        on_live: LiveListener | None = None,
        now_nanoseconds: Callable[[], int] = time.time_ns,
    ) -> None:
        self._writer = writer
        self._address = address
        self._tls = tls
        self._settings = settings or pb.Settings()
        self._on_live = on_live
        self._now_nanoseconds = now_nanoseconds
        self._server: aio.Server | None = None
        self._streams: set[_Stream] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self.certificates: Certificates | None = None

    @property
    def streams(self) -> int:
        """How many agents are connected."""
        return len(self._streams)

    async def start(self) -> int:
        """Listen; returns the port. ServerError or TlsError with the remedy."""
        server = aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=STREAMS_MAX)
        server.add_generic_rpc_handlers((self._handler(),))
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._address)
            else:
                self.certificates = Certificates(self._tls)
                port = server.add_secure_port(self._address, self.certificates.credentials())
        except RuntimeError as error:
            # gRPC says no more than that it failed.
            raise ServerError(
                f"cannot listen on {self._address} for agents: the port is in use, or the address is not of this machine: "
                "end the program that uses it, or choose another one (`server.port`, or --grpc-port with quickstart)"
            ) from error
        await server.start()
        self._server = server
        return port

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Tell agents to go, let batches under way be committed and acknowledged, then end all streams.

        The writer has to be stopped after this, not before.
        """
        self._draining = True
        if self._server is None:
            return
        await asyncio.gather(*(stream.drain() for stream in list(self._streams)))
        if self._streams:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), grace_seconds)
            except TimeoutError:
                _log.info("%d agents did not leave within %.1f s", len(self._streams), grace_seconds)
        await self._server.stop(None)

    def _handler(self) -> grpc.GenericRpcHandler:
        # The generated servicer is typed for generators alone; a coroutine may also be told to send by another task.
        stream = grpc.stream_stream_rpc_method_handler(
            cast("Any", self._serve),
            request_deserializer=_decoded,
            response_serializer=pb.CollectorMessage.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"Stream": stream})

    async def _serve(self, _: AsyncIterator[pb.AgentMessage], context: _Context) -> None:
        """One agent's stream, from its first message to its last."""
        peer_hosts = None
        if self._tls is not None and self._tls.ca is not None:
            peer_hosts = hosts_of_peer(context.auth_context())
        session = CollectorSession(peer_hosts=peer_hosts, settings=self._settings, durability=pb.DURABILITY_LOCAL)
        stream = _Stream(session, context, self._writer, self._on_live, self._now_nanoseconds)
        if self._draining:
            await stream.drain()
            return
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._empty.set()


def _decoded(data: bytes) -> "pb.AgentMessage | _Noise":
    try:
        return pb.AgentMessage.FromString(data)
    except DecodeError:
        # Raised here, gRPC would write a traceback into the log for whatever a peer sends.
        return _Noise()


class _Noise:
    """What came is no message."""


class _Stream:
    """One agent: does what its session says."""

    def __init__(
        self,
        session: CollectorSession,
        context: _Context,
        writer: Writer,
        on_live: LiveListener | None,
        now_nanoseconds: Callable[[], int],
    ) -> None:
        self._session = session
        self._context = context
        self._writer = writer
        self._on_live = on_live
        self._now_nanoseconds = now_nanoseconds
        # gRPC takes one message at a time, and Drain comes from another task.
        self._sending = asyncio.Lock()
        self._open = True

    async def run(self) -> None:
        read = self._context.read
        try:
            message = await asyncio.wait_for(read(), HELLO_SECONDS_MAX)
        except TimeoutError:
            _log.info("a stream ends: no Hello came within %.0f s", HELLO_SECONDS_MAX)
            return
        while isinstance(message, pb.AgentMessage):
            await self._perform(self._session.received(message, self._now_nanoseconds()))
            if not self._open:
                return
            message = await read()
        if isinstance(message, _Noise):
            await self._perform(self._session.undecodable())

    async def drain(self) -> None:
        """Send what the session says when the collector stops; an agent that is gone already does not mind."""
        try:
            await self._perform(self._session.drain())
        except (asyncio.InvalidStateError, aio.UsageError, aio.InternalError, grpc.RpcError):
            _log.debug("an agent left while it was told to", exc_info=True)

    async def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, (Book, OpenStream)):
                # What follows from a commit may be another attempt; the session bounds their number.
                await self._perform(await self._commit(action))
            elif isinstance(action, Send):
                async with self._sending:
                    await self._context.write(action.message)
            elif isinstance(action, ShowLive):
                if self._on_live is not None:
                    self._on_live(action.host, action.live, self._now_nanoseconds() / 1e9)
            else:
                assert isinstance(action, Close)
                _log.info("stream of %s ends: %s", self._session.host or "an unknown host", action.reason)
                self._open = False

    async def _commit(self, work: Book | OpenStream) -> list[Action]:
        answer = await self._writer.submit(work)
        if isinstance(answer, Failed):
            return [*self._session.drain(), Close(answer.reason)]
        if isinstance(work, OpenStream):
            return self._session.opened(answer.result, answer.outcome)
        assert not isinstance(answer.result, Refused)
        return self._session.booked(answer.result, answer.outcome)
