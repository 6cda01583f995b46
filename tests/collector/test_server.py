"""The real server on loopback: messages reach the ledger, identities are those of certificates, and a stop is orderly."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from tests.certificates import Authority, Pair
from tests.collector import batches
from tests.collector.batches import WATT, clock, column, enveloped, hello, payload

from wattledger_collector.database import open_database
from wattledger_collector.records import CommitOutcome, StoreError
from wattledger_collector.server import MESSAGE_BYTES_MAX, SERVER_OPTIONS, ServerError, TelemetryServer
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.tls import Certificates, ServerTls, TlsError, hosts_of_peer
from wattledger_collector.wire import catalog_hash_of
from wattledger_collector.writer import Writer
from wattledger_protos.v1 import telemetry_pb2 as pb

SECOND = batches.SECOND
METHOD = "/wattledger_protos.v1.Telemetry/Stream"
# What a loopback answer may take on a busy machine.
PATIENCE_SECONDS = 20.0


class FailingStore(SqliteStore):
    """A store whose commits fail for as long as a test says."""

    error: StoreError | None = None

    def commit(self, bookings: Any) -> list[CommitOutcome]:
        """As the store, or the error."""
        if self.error is not None:
            raise self.error
        return super().commit(bookings)


@dataclass
class Collector:
    """A running server with its store and writer."""

    store: SqliteStore
    writer: Writer
    server: TelemetryServer
    port: int
    live: list[tuple[str, int]] = field(default_factory=list)

    def energy(self) -> int:
        """All energy in the rows."""
        return sum(row.energy_microjoules for row in self.store.host_energy(0, 2**40))


class Agent:
    """An agent's end of one stream."""

    def __init__(self, channel: aio.Channel) -> None:
        self._call: Any = channel.stream_stream(
            METHOD,
            request_serializer=pb.AgentMessage.SerializeToString,
            response_deserializer=pb.CollectorMessage.FromString,
        )()

    async def send(self, **message: Any) -> None:
        """Send one message."""
        await asyncio.wait_for(self._call.write(pb.AgentMessage(**message)), PATIENCE_SECONDS)

    async def receive(self) -> pb.CollectorMessage | None:
        """The next message; None at the end of the stream."""
        message = await asyncio.wait_for(self._call.read(), PATIENCE_SECONDS)
        return message if isinstance(message, pb.CollectorMessage) else None

    async def code(self) -> grpc.StatusCode:
        """How the stream ended."""
        code = await asyncio.wait_for(self._call.code(), PATIENCE_SECONDS)
        assert isinstance(code, grpc.StatusCode)
        return code

    async def finish(self) -> None:
        """Send no more."""
        await self._call.done_writing()

    async def open(self, message: pb.Hello | None = None) -> int:
        """Say Hello; returns the committed sequence of the Welcome."""
        await self.send(hello=message or hello())
        answer = await self.receive()
        assert answer is not None
        assert answer.WhichOneof("message") == "welcome", answer
        return answer.welcome.committed_sequence

    async def book(self, sequence: int, joules: int) -> int:
        """Send the catalog and a batch; returns the acknowledged sequence."""
        await self.send(catalog=catalog())
        await self.send(batch=batch(sequence, joules))
        answer = await self.receive()
        assert answer is not None
        assert answer.WhichOneof("message") == "ack", answer
        return answer.ack.committed_sequence


def catalog() -> pb.Catalog:
    """One CPU package."""
    channel = pb.Channel(
        channel=1,
        device="cpu/0",
        component=pb.COMPONENT_CPU,
        domain="package",
        source="rapl",
        method=pb.METHOD_COUNTER,
        role=pb.ROLE_LEAF,
        opening=pb.Opening(boot_id=batches.BOOT, clock=clock(0)),
        power_bound_milliwatts=1_000_000,
    )
    made = pb.Catalog(channels=[channel])
    made.catalog_hash = catalog_hash_of(made)
    return made


def batch(sequence: int, joules: int) -> pb.Batch:
    """One sample, taken in the second of its sequence."""
    content = payload([sequence * SECOND], [column(1, [joules * WATT])], catalog_hash=catalog().catalog_hash)
    return enveloped(content, sequence)


@asynccontextmanager
async def collecting(
    folder: Path, *, tls: ServerTls | None = None, store: SqliteStore | None = None, address: str = "127.0.0.1:0"
) -> AsyncIterator[Collector]:
    """A collector on a free port."""
    store = store or open_store(folder / "ledger.db", create=True)
    writer = Writer(store, collector="c1")
    writer.start()
    live: list[tuple[str, int]] = []

    def on_live(host: str, values: pb.Live, now_seconds: float) -> None:
        assert now_seconds > 1.7e9
        live.append((host, values.powers[0].power_milliwatts))

    server = TelemetryServer(writer, address=address, tls=tls, settings=pb.Settings(flush_milliseconds=7), on_live=on_live)
    try:
        port = await server.start()
        yield Collector(store, writer, server, port, live)
    finally:
        await server.stop(0.1)
        await writer.stop()
        store.close()


def test_batches_are_acknowledged_and_in_the_ledger(tmp_path: Path) -> None:
    """Hello, catalog, batches and live values go the whole way; a repeated batch is acknowledged and not booked again."""

    async def scene() -> None:
        async with collecting(tmp_path) as collector, aio.insecure_channel(f"127.0.0.1:{collector.port}") as channel:
            agent = Agent(channel)
            await agent.send(hello=hello())
            welcome = await agent.receive()
            assert welcome is not None
            assert welcome.welcome.durability == pb.DURABILITY_LOCAL
            assert (welcome.welcome.committed_sequence, welcome.welcome.settings.flush_milliseconds) == (0, 7)
            assert await agent.book(1, 10) == 1
            assert collector.energy() == 10 * WATT
            await agent.send(live=pb.Live(powers=[pb.LivePower(power_milliwatts=4321)]))
            assert await agent.book(2, 30) == 2
            assert await agent.book(2, 30) == 2
            assert await agent.book(1, 10) == 2
            assert collector.energy() == 30 * WATT
            assert collector.live == [("a", 4321)]
            assert collector.server.streams == 1
            await agent.finish()
            assert await agent.receive() is None
            assert await agent.code() is grpc.StatusCode.OK

    asyncio.run(scene())


def test_a_stream_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """Another collector on the same database takes the agent over."""

    async def scene() -> None:
        async with collecting(tmp_path) as one, aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
            agent = Agent(channel)
            await agent.open()
            await agent.book(1, 10)
            async with collecting(tmp_path) as other, aio.insecure_channel(f"127.0.0.1:{other.port}") as other_channel:
                again = Agent(other_channel)
                assert await again.open(hello(next_sequence=3)) == 1
                assert await again.book(2, 25) == 2
                # The first stream is a zombie now: what it sends again is acknowledged from the ledger as it is.
                assert await agent.book(2, 25) == 2
                assert other.energy() == 25 * WATT

    asyncio.run(scene())


def test_a_wrong_message_is_answered_and_not_fatal(tmp_path: Path) -> None:
    """A batch before Hello is refused with a reason; the server goes on with others."""

    async def scene() -> None:
        async with collecting(tmp_path) as collector, aio.insecure_channel(f"127.0.0.1:{collector.port}") as channel:
            rude = Agent(channel)
            await rude.send(batch=batch(1, 10))
            answer = await rude.receive()
            assert answer is not None
            assert "send Hello first" in answer.refusal.message
            assert await rude.receive() is None
            large = Agent(channel)
            await large.send(batch=pb.Batch(first_sequence=1, last_sequence=1, payload=bytes(MESSAGE_BYTES_MAX + 1)))
            assert await large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            polite = Agent(channel)
            assert await polite.open() == 0
            assert await polite.book(1, 10) == 1

    asyncio.run(scene())


def test_a_failing_database_sends_agents_away_unacknowledged(tmp_path: Path) -> None:
    """They get Drain instead of an Ack, and find everything as it was when they come again."""

    async def scene() -> None:
        path = tmp_path / "ledger.db"
        store = FailingStore(path, open_database(path, create=True, interval_seconds=900))
        async with (
            collecting(tmp_path, store=store) as collector,
            aio.insecure_channel(f"127.0.0.1:{collector.port}") as channel,
        ):
            agent = Agent(channel)
            await agent.open()
            store.error = StoreError("the disk is full")
            await agent.send(catalog=catalog())
            await agent.send(batch=batch(1, 10))
            answer = await agent.receive()
            assert answer is not None
            assert answer.drain.reconnect_delay_milliseconds_max > 0
            assert await agent.receive() is None
            assert not collector.writer.healthy
            store.error = None
            again = Agent(channel)
            assert await again.open(hello(next_sequence=2)) == 0
            assert await again.book(1, 10) == 1
            assert collector.energy() == 10 * WATT

    asyncio.run(scene())


def test_a_stopping_server_drains(tmp_path: Path) -> None:
    """Connected agents are told, and a batch under way is still committed and acknowledged."""

    async def scene() -> None:
        async with collecting(tmp_path) as collector, aio.insecure_channel(f"127.0.0.1:{collector.port}") as channel:
            agent = Agent(channel)
            await agent.open()
            await agent.book(1, 10)
            stopping = asyncio.create_task(collector.server.stop(PATIENCE_SECONDS))
            told = await agent.receive()
            assert told is not None
            assert told.WhichOneof("message") == "drain"
            assert await agent.book(2, 25) == 2
            late = Agent(channel)
            answer = await late.receive()
            assert answer is not None
            assert answer.WhichOneof("message") == "drain"
            await agent.finish()
            await asyncio.wait_for(stopping, PATIENCE_SECONDS)
            assert collector.energy() == 25 * WATT
            assert collector.server.streams == 0

    asyncio.run(scene())


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    """An agent that stays in spite of Drain is cut off; it has lost nothing."""

    async def scene() -> None:
        async with collecting(tmp_path) as collector, aio.insecure_channel(f"127.0.0.1:{collector.port}") as channel:
            agent = Agent(channel)
            await agent.open()
            stopping = asyncio.create_task(collector.server.stop(0.5))
            told = await agent.receive()
            assert told is not None
            assert told.WhichOneof("message") == "drain"
            await asyncio.wait_for(stopping, PATIENCE_SECONDS)
            assert await agent.code() is not grpc.StatusCode.OK

    asyncio.run(scene())


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Two collectors on one port would share the agents unnoticed."""

    async def scene() -> None:
        async with collecting(tmp_path) as collector:
            second = TelemetryServer(collector.writer, address=f"127.0.0.1:{collector.port}", tls=None)
            with pytest.raises(ServerError, match=rf"cannot listen on 127.0.0.1:{collector.port} .*in use.*choose another"):
                await second.start()

    asyncio.run(scene())


def test_a_fleet_that_comes_back_at_once_is_served(tmp_path: Path) -> None:
    """More calls than gRPC lets wait by default: after a collector's restart all agents come in one moment."""

    async def scene() -> None:
        async with collecting(tmp_path) as collector, aio.insecure_channel(f"127.0.0.1:{collector.port}") as channel:
            agents = [Agent(channel) for _ in range(1500)]
            await agents[0].open()
            for agent in agents[1:]:
                await agent.finish()
            codes = await asyncio.gather(*(agent.code() for agent in agents[1:]))
            assert set(codes) == {grpc.StatusCode.OK}

    asyncio.run(scene())


def test_keepalive_of_agents_is_not_taken_for_an_attack() -> None:
    """An agent pings every 60 s at most; half of that must be allowed, also between messages."""
    options = dict(SERVER_OPTIONS)
    assert options["grpc.http2.min_recv_ping_interval_without_data_ms"] <= 30_000
    assert options["grpc.keepalive_permit_without_calls"] == 1


@dataclass
class Tls:
    """Files of a server that asks for certificates, and their authority."""

    authority: Authority
    files: ServerTls

    def channel(self, port: int, pair: Pair | None) -> aio.Channel:
        """A client's channel with this certificate."""
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate, pair.key if pair else None, pair.certificate if pair else None
        )
        return aio.secure_channel(f"localhost:{port}", credentials)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """An authority with a server certificate for localhost."""
    authority = Authority()
    certificate, key = authority.sign(dns=("localhost",)).write(tmp_path, "server")
    return Tls(authority, ServerTls(certificate, key, authority.write(tmp_path)))


@pytest.mark.parametrize(
    ("dns", "uris"),
    [
        ((), ("wattledger://host/a",)),
        (("a",), ()),
        (("a", "b"), ("spiffe://example.org/other",)),
        (("b",), ("wattledger://host/a",)),
    ],
)
def test_the_host_is_the_one_in_the_certificate(
    tmp_path: Path, tls: Tls, dns: tuple[str, ...], uris: tuple[str, ...]
) -> None:
    """Its URI counts, or without one the first DNS name."""

    async def scene() -> None:
        pair = tls.authority.sign(dns=dns, uris=uris)
        async with collecting(tmp_path, tls=tls.files) as collector, tls.channel(collector.port, pair) as channel:
            agent = Agent(channel)
            assert await agent.open() == 0
            assert await agent.book(1, 10) == 1

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("dns", "uris", "names"),
    [
        (("b", "a"), (), "names b"),
        ((), ("wattledger://host/b",), "names b"),
        (("a",), ("wattledger://host/b",), "names b"),
        ((), (), "names no host"),
        ((), ("spiffe://example.org/a",), "names no host"),
    ],
)
def test_another_hosts_certificate_is_refused(
    tmp_path: Path, tls: Tls, dns: tuple[str, ...], uris: tuple[str, ...], names: str
) -> None:
    """Hello says a host that the certificate does not: refused with the reason, and nothing is stored."""

    async def scene() -> None:
        pair = tls.authority.sign(dns=dns, uris=uris)
        async with collecting(tmp_path, tls=tls.files) as collector, tls.channel(collector.port, pair) as channel:
            agent = Agent(channel)
            await agent.send(hello=hello())
            answer = await agent.receive()
            assert answer is not None
            assert answer.refusal.reason == pb.REFUSAL_REASON_IDENTITY
            assert names in answer.refusal.message
            assert list(collector.store.hosts()) == []

    asyncio.run(scene())


def test_without_a_certificate_of_the_authority_there_is_no_stream(tmp_path: Path, tls: Tls) -> None:
    """No certificate, and one that another authority signed."""

    async def scene() -> None:
        async with collecting(tmp_path, tls=tls.files) as collector:
            for pair in (None, Authority("another").sign(dns=("a",))):
                async with tls.channel(collector.port, pair) as channel:
                    agent = Agent(channel)
                    assert await agent.code() is grpc.StatusCode.UNAVAILABLE
            assert list(collector.store.hosts()) == []

    asyncio.run(scene())


def test_changed_certificates_are_taken_up_without_a_restart(tmp_path: Path, tls: Tls) -> None:
    """New connections see the new one, running streams go on; a half-replaced pair is not taken up, and said."""
    client = tls.authority.sign(dns=("a",)).write(tmp_path, "client")

    def seen(port: int) -> bytes:
        context = ssl.create_default_context(cadata=tls.authority.certificate.decode())
        context.load_cert_chain(*client)
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as wrapped,
        ):
            found = wrapped.getpeercert(binary_form=True)
        assert found is not None
        return found

    async def scene() -> None:
        pair = tls.authority.sign(uris=("wattledger://host/a",))
        async with collecting(tmp_path, tls=tls.files) as collector, tls.channel(collector.port, pair) as channel:
            agent = Agent(channel)
            await agent.open()
            first = await asyncio.to_thread(seen, collector.port)
            new = tls.authority.sign(dns=("localhost",))
            tls.files.certificate.write_bytes(new.certificate)
            assert await asyncio.to_thread(seen, collector.port) == first
            certificates = collector.server.certificates
            assert certificates is not None
            assert "no certificate with its key" in certificates.reload_error
            tls.files.key.write_bytes(new.key)
            assert await asyncio.to_thread(seen, collector.port) == ssl.PEM_cert_to_DER_cert(new.certificate.decode())
            assert certificates.reload_error == ""
            assert await agent.book(1, 10) == 1

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tls: tls.certificate.unlink(), r"cannot read .*server.pem \(No such file or directory\)"),
        (lambda tls: tls.key.write_bytes(b"no key"), r"are no certificate with its key"),
        (lambda tls: tls.certificate.write_bytes(b""), r"are no certificate with its key"),
        (lambda tls: tls.ca.write_bytes(b"nothing"), r"ca.pem holds no certificates"),
    ],
)
def test_unusable_certificate_files_are_named(tls: Tls, spoil: Callable[[ServerTls], object], words: str) -> None:
    """At the start, with the remedy; not at the first agent's handshake."""
    spoil(tls.files)
    with pytest.raises(TlsError, match=words):
        Certificates(tls.files)


def test_an_id_in_a_uri_may_be_escaped() -> None:
    """What a URI cannot hold as it is; an empty id is none."""
    assert hosts_of_peer({"peer_uri": [b"wattledger://host/rack%207"]}) == {"rack 7"}
    assert hosts_of_peer({"peer_uri": [b"wattledger://host/"], "peer_dns": [b"a", b"b"]}) == {"a"}
    assert hosts_of_peer({}) == frozenset()
