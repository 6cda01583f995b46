"""Carries the session's messages over gRPC, in one thread of its own; the only module of the agent that imports gRPC.

Decides nothing about delivery (session.py). gRPC's asyncio side is used because it costs less than the blocking one: about
0.2 ms of CPU a batch against 0.3 back to back, two thirds of the wake-ups at rest, and no more memory.
Settings of the transport are those that the collector's keepalive rules allow (grpc/doc/keepalive.md).
"""

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from wattledger_agent.config import CollectorConfig, is_loopback, split_address
from wattledger_agent.counters import Instant
from wattledger_agent.readings import NANOSECONDS_PER_SECOND
from wattledger_agent.session import AgentSession, Identity, Outbox, Settings, State
from wattledger_agent.threads import NoThreadError, start
from wattledger_agent.wire import clock_pair
from wattledger_protos.v1 import telemetry_pb2 as pb
from wattledger_protos.v1 import telemetry_pb2_grpc as rpc

log = logging.getLogger("wattledger.agent")

# Live messages that may wait behind a slow stream; older ones than these are of no use to a gauge.
LIVE_WAITING_MAX = 4

# How long a stream may take to end by itself before it is cut.
CLOSE_SECONDS_MAX = 0.5

# Certificates are renewed hours before they end; a look a minute is three system calls.
CERTIFICATE_CHECK_SECONDS = 60.0

_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.AgentMessage, pb.CollectorMessage]"

# What gRPC raises where a call has ended before what is asked of it; BaseError where it fell between two of its own steps.
_OVER = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)

_OPTIONS: tuple[tuple[str, int], ...] = (
    # The collector's shortest allowed interval is half of this, so that a late clock is no offence.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A ping after each message, to find how much a link can carry: both sides' pings are half of all wake-ups, and the
    # first window of 64 kB holds minutes of samples. The collector does the same.
    ("grpc.http2.bdp_probe", 0),
    # The session decides on retries; a second one below it would send twice.
    ("grpc.enable_retries", 0),
    # Each stream has a connection of its own: with shared ones a renewed certificate would not be used.
    ("grpc.use_local_subchannel_pool", 1),
    # An agent speaks to its collector alone; a proxy in the environment is meant for other programs.
    ("grpc.enable_http_proxy", 0),
    # The longest message of a collector is a refusal of one sentence.
    ("grpc.max_receive_message_length", 64 * 1024),
    # A payload is at most 1 MiB (telemetry.proto), a catalog of 4096 channels less than two.
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
)


class ShipperError(Exception):
    """The collector's address and certificates don't go together; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Status:
    """How delivery stands, for metrics and people.

    state: the session's. encrypted: whether TLS is used. streams, reconnects: opened since the start, and all but the first
    of them. last_ack_seconds: UTC of the last Ack, None if there was none. refusal: the collector's last word if it refused.
    error: why the last stream ended; empty while one is open. collector_clock_seconds: the collector's clock less this
    host's, at the last Welcome; None before the first.
    """

    state: str
    connected: bool
    encrypted: bool
    streams: int
    reconnects: int
    batches: int
    acks: int
    rewinds: int
    acknowledged_sequence: int
    last_ack_seconds: float | None
    refusal: str
    error: str
    collector_clock_seconds: float | None = None


class Shipper:
    """Keeps a stream to the collector open and the spool drained, from `start` to `stop`.

    clock: gives the present. on_new_epoch: set it to what has spool and meter renewed; called from the shipper's thread when
    the spool turns out to be older than what the collector holds; delivery waits until the spool's epoch is another.
    on_settings: called from the shipper's thread when the collector sets something. Raises ShipperError.
    """

    def __init__(
        self,
        spool: Outbox,
        identity: Identity,
        collector: CollectorConfig,
        clock: Callable[[], Instant],
        *,
        jitter: Callable[[], float] = random.random,
        certificate_check_seconds: float = CERTIFICATE_CHECK_SECONDS,
    ) -> None:
        _check_privacy(collector)
        self.on_new_epoch: Callable[[], None] = lambda: None
        self.on_settings: Callable[[Settings], None] = lambda settings: None
        self._spool = spool
        self._collector = collector
        self._clock = clock
        self._certificate_check_seconds = certificate_check_seconds
        self._session = AgentSession(spool, identity, jitter)
        self._settings = self._session.settings
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._wants_thread = False
        self._changed = asyncio.Event()  # The stream, or the wait for one, may be over.
        self._writable = asyncio.Event()  # There is something to write.
        self._outgoing: deque[pb.AgentMessage] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._certificates: tuple[tuple[int, int, int], ...] = ()
        self._streams = 0
        self._last_ack_seconds: float | None = None
        self._collector_clock_seconds: float | None = None
        self._error = ""

    def start(self) -> None:
        """Begin; returns at once. Where no thread can be started, each record tries again: the spool keeps everything."""
        self._wants_thread = True
        try:
            self._thread = start(self._run, "shipper")
        except NoThreadError as error:
            self._error = str(error)
        else:
            self._wants_thread, self._error = False, ""

    def stop(self, seconds_max: float = 3.0) -> None:
        """End the stream and the thread. What is not acknowledged stays in the spool."""
        self._stopping = True
        self._wants_thread = False
        if self._thread is not None and self._thread.is_alive():
            self._call(self._changed.set)
            self._thread.join(seconds_max)
        elif not self._loop.is_closed():
            self._loop.close()

    def appended(self) -> None:
        """A record was added to the spool. From the thread that called `start`."""
        if self._wants_thread:
            self.start()
        self._call(lambda: self._step(self._session.appended))

    def live(self, live: pb.Live) -> None:
        """Present values, sent if a stream is open, else dropped. From any thread."""
        if self._session.state in (State.IDLE, State.IN_FLIGHT):
            self._call(lambda: self._show(live))

    def status(self) -> Status:
        """How delivery stands now. From any thread."""
        session = self._session
        return Status(
            state=session.state.value,
            connected=session.state in (State.IDLE, State.IN_FLIGHT),
            encrypted=self._collector.uses_tls,
            streams=self._streams,
            reconnects=max(0, self._streams - 1),
            batches=session.batches,
            acks=session.acks,
            rewinds=session.rewinds,
            acknowledged_sequence=self._spool.acknowledged_sequence,
            last_ack_seconds=self._last_ack_seconds,
            refusal=session.refusal,
            error=self._error,
            collector_clock_seconds=self._collector_clock_seconds,
        )

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: the shipper has stopped.
            self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._deliver())
        finally:
            self._loop.close()

    async def _deliver(self) -> None:
        while not self._stopping:
            if self._session.wants_connection(time.monotonic()):
                try:
                    await self._stream()
                except Exception as error:  # A bug, or a state of gRPC that nobody knew: never the end of delivery.
                    log.exception("the stream failed")
                    self._ended(f"{type(error).__name__}: {error}")
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Wait until a stream is wanted, or something happened."""
        deadline = self._session.deadline()
        self._changed.clear()
        if self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):  # The loop's clock is time.monotonic, as the session's.
                await self._changed.wait()

    async def _stream(self) -> None:
        """One stream, from opening to end."""
        self._changed.clear()
        self._outgoing.clear()
        try:
            channel = self._open_channel()
        except OSError as error:
            self._ended(f"cannot read {error.filename}: {error.strerror}; let the agent's user read it")
            return
        self._streams += 1
        try:
            call = rpc.TelemetryStub(channel).Stream()
            self._step(lambda now: self._session.connected(now, clock_pair(self._clock())))
            reader = asyncio.create_task(self._read(call))
            others = [asyncio.create_task(self._write(call)), asyncio.create_task(self._check_certificates())]
            try:
                if not self._stopping:
                    await self._changed.wait()
                if not reader.done():
                    await self._finish(call, reader)
            finally:
                await _cancel([reader, *others])
            status = f"{(await call.code()).name}: {await call.details()}"
        finally:
            await channel.close()
        self._ended(self._session.reason or status)

    async def _read(self, call: _Call) -> None:
        """Hand the session all that comes, until the stream ends."""
        try:
            async for message in call:
                self._received(message)
        except grpc.aio.AioRpcError:
            pass  # The call has a code, and says the same by it.
        finally:
            self._changed.set()

    async def _write(self, call: _Call) -> None:
        """Write all that is to be sent, in order, as fast as the stream takes it."""
        with contextlib.suppress(*_OVER):  # Then the reader ends as well.
            while True:
                while self._outgoing:
                    await call.write(self._outgoing.popleft())
                self._writable.clear()
                await self._writable.wait()

    async def _finish(self, call: _Call, reader: "asyncio.Task[None]") -> None:
        """End a stream in good order if the collector does so too, else cut it."""
        with contextlib.suppress(*_OVER, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await call.done_writing()
                await asyncio.wait([reader])
        call.cancel()

    async def _check_certificates(self) -> None:
        """Reconnect when the certificate files are others than those the stream was opened with."""
        while self._collector.uses_tls:
            await asyncio.sleep(self._certificate_check_seconds)
            with contextlib.suppress(OSError):  # In the middle of a renewal; the next look finds them.
                if self._fingerprint() != self._certificates:
                    log.info("the certificate files changed; connecting anew")
                    self._step(self._reconnect)

    def _reconnect(self, now: float) -> list[pb.AgentMessage]:
        self._certificates = self._fingerprint()
        self._session.reconnect()
        return []

    def _received(self, message: pb.CollectorMessage) -> None:
        if message.WhichOneof("message") == "welcome" and message.welcome.server_realtime_nanoseconds:
            ahead = message.welcome.server_realtime_nanoseconds - self._clock().realtime_nanoseconds
            self._collector_clock_seconds = ahead / NANOSECONDS_PER_SECOND
        acks = self._session.acks
        self._step(lambda now: self._session.received(message, now))
        if self._session.acks != acks:
            self._last_ack_seconds = time.time()
        if self._session.settings != self._settings:
            self._settings = self._session.settings
            self.on_settings(self._settings)

    def _show(self, live: pb.Live) -> None:
        if len(self._outgoing) < LIVE_WAITING_MAX:
            self._step(lambda now: self._session.live(live, now))

    def _step(self, act: Callable[[float], list[pb.AgentMessage]]) -> None:
        """Let something happen to the session, and see to what it wants afterwards."""
        try:
            self._outgoing.extend(act(time.monotonic()))
        except OSError as error:
            self._session.abort(f"the spool can't be read: {error}")
        except Exception as error:  # A bug: the stream ends, and with a delay the next one begins where this one was.
            log.exception("delivery failed")
            self._session.abort(f"{type(error).__name__}: {error}")
        if self._outgoing:
            self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._session.wants_disconnect or self._session.state is State.WAITING:
            self._changed.set()
        elif (deadline := self._session.deadline()) is not None:
            self._timer = self._loop.call_at(deadline, lambda: self._step(self._session.tick))

    def _ended(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if reason != self._error and not self._stopping:
            level = logging.INFO if self._session.is_draining else logging.WARNING
            # A refusal has its remedy; what gRPC says has none.
            remedy = "" if self._session.reason else "; the spool keeps everything, and `wattledger-agent doctor` says more"
            log.log(level, "no stream to the collector at %s: %s%s", self._collector.address, reason, remedy)
        self._error = reason
        self._session.disconnected(time.monotonic())
        if self._session.wants_new_epoch:
            self.on_new_epoch()

    def _fingerprint(self) -> tuple[tuple[int, int, int], ...]:
        """What changes with the certificate files. Raises OSError."""
        files = (os.stat(path) for path in _certificate_files(self._collector))
        return tuple((file.st_mtime_ns, file.st_size, file.st_ino) for file in files)

    def _open_channel(self) -> grpc.aio.Channel:
        """A channel of its own for each stream, with the certificates as they are now. Raises OSError."""
        collector = self._collector
        if not collector.uses_tls:
            return grpc.aio.insecure_channel(collector.address, options=_OPTIONS)
        self._certificates = self._fingerprint()
        authorities, certificate, key = (Path(path).read_bytes() for path in _certificate_files(collector))
        credentials = grpc.ssl_channel_credentials(authorities, key, certificate)
        names = [("grpc.ssl_target_name_override", collector.server_name)] if collector.server_name else []
        return grpc.aio.secure_channel(collector.address, credentials, options=(*_OPTIONS, *names))


def _certificate_files(collector: CollectorConfig) -> tuple[str, str, str]:
    return collector.ca_file, collector.certificate_file, collector.key_file


async def _cancel(tasks: Iterable["asyncio.Task[None]"]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _check_privacy(collector: CollectorConfig) -> None:
    host, port = split_address(collector.address, "configuration")
    if collector.uses_tls or is_loopback(host):
        return
    if not collector.insecure:
        raise ShipperError(
            f"{host}:{port} is not loopback and no certificates are given. Give `ca_file`, `certificate_file` and "
            "`key_file`, or write `insecure = true` to send unencrypted."
        )
    log.warning(
        "the stream to %s:%s is not encrypted (`insecure = true`): anyone on the way can read and change it", host, port
    )
