"""The shipper against a small real gRPC server on loopback, plain and with mutual TLS."""

import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from tests.agent.test_threads import no_threads
from tests.certificates import Authority, Pair

from wattledger_agent.config import CollectorConfig
from wattledger_agent.counters import Instant
from wattledger_agent.meter import Cut
from wattledger_agent.session import Identity, Settings
from wattledger_agent.shipper import Shipper, ShipperError
from wattledger_agent.spool import Record, Spool
from wattledger_protos.v1 import telemetry_pb2 as pb
from wattledger_protos.v1 import telemetry_pb2_grpc as rpc

BOOT = b"b" * 16
NOW = Instant(BOOT, 5, 7, True, 0)
WAIT_SECONDS = 10.0


class Collector(rpc.TelemetryServicer):
    """Commits every batch that fits, in memory.

    silent: never answers. extra: sent once after Welcome. began, ended: streams, and those that ended in good order.
    """

    realtime_nanoseconds = 0

    def __init__(self) -> None:
        self.committed = 0
        self.payloads: list[bytes] = []
        self.hellos: list[pb.Hello] = []
        self.lives: list[pb.Live] = []
        self.catalogs: list[pb.Catalog] = []
        self.peers: list[str] = []
        self.silent = False
        self.began = self.ended = 0
        self.extra: list[pb.CollectorMessage] = []

    def Stream(  # noqa: N802 - the name is the wire's.
        self, request_iterator: Iterator[pb.AgentMessage] | AsyncIterator[pb.AgentMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.CollectorMessage]:
        """One agent's stream."""
        assert isinstance(request_iterator, Iterator)
        names: object = context.auth_context().get("x509_subject_alternative_name")
        if isinstance(names, list | tuple):
            self.peers.extend(name.decode() for name in names)
        self.began += 1
        for message in request_iterator:
            if not self.silent:
                yield from self._answer(message)
        self.ended += 1

    def _answer(self, message: pb.AgentMessage) -> Iterator[pb.CollectorMessage]:
        kind = message.WhichOneof("message")
        if kind == "hello":
            self.hellos.append(message.hello)
            yield pb.CollectorMessage(
                welcome=pb.Welcome(committed_sequence=self.committed, server_realtime_nanoseconds=self.realtime_nanoseconds)
            )
            while self.extra:
                yield self.extra.pop()
        elif kind == "batch":
            assert message.batch.first_sequence <= self.committed + 1 <= message.batch.last_sequence
            self.committed = message.batch.last_sequence
            self.payloads.append(message.batch.payload)
            yield pb.CollectorMessage(ack=pb.Ack(committed_sequence=self.committed))
        elif kind == "live":
            self.lives.append(message.live)
        else:
            self.catalogs.append(message.catalog)


def serve(collector: Collector, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> tuple[grpc.Server, int]:
    """A real server of this collector on loopback."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    rpc.add_TelemetryServicer_to_server(collector, server)
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, bound


def wait_for(condition: Callable[[], bool]) -> None:
    """Until the condition holds, in real time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def open_spool(folder: Path) -> Spool:
    """A spool on the real disk."""
    numbers = itertools.count(1)
    return Spool.open(folder, machine_id="m", dmi_uuid="d", opening=NOW, new_epoch=lambda: next(numbers).to_bytes(16, "big"))


def cut(number: int) -> Cut:
    """A record's content."""
    catalog = pb.Catalog(catalog_hash=9).SerializeToString()
    return Cut(payload=b"payload %d" % number, state=b"s", catalog=catalog, catalog_hash=9, samples=1)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool, closed afterwards."""
    spool = open_spool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def made() -> Iterator[Callable[..., Shipper]]:
    """Makes shippers without back-off, and stops them afterwards."""
    shippers: list[Shipper] = []

    def make(spool: Spool, collector: CollectorConfig, check_seconds: float = 60.0) -> Shipper:
        identity = Identity("host-1", "0.1.0", "m", BOOT)
        shipper = Shipper(
            spool, identity, collector, lambda: NOW, jitter=lambda: 0.01, certificate_check_seconds=check_seconds
        )
        shippers.append(shipper)
        return shipper

    yield make
    for shipper in shippers:
        shipper.stop()


def plain(port: int) -> CollectorConfig:
    """A collector on loopback."""
    return CollectorConfig(address=f"127.0.0.1:{port}")


def test_the_spool_is_drained_and_followed(spool: Spool, made: Callable[..., Shipper]) -> None:
    """A backlog goes first, then each new record as it is appended, with Live values between."""
    collector = Collector()
    server, port = serve(collector)
    for number in range(1, 51):
        spool.append(cut(number))
    shipper = made(spool, plain(port))
    before = time.time()
    shipper.start()
    wait_for(lambda: spool.acknowledged_sequence == 50)
    spool.append(cut(51))
    shipper.appended()
    wait_for(lambda: spool.acknowledged_sequence == 51)
    shipper.live(pb.Live(spool_bytes=7))
    wait_for(lambda: len(collector.lives) == 1)
    assert collector.payloads == [b"payload %d" % number for number in range(1, 52)]
    assert [hello.host for hello in collector.hellos] == ["host-1"]
    assert len(collector.catalogs) == 1
    status = shipper.status()
    assert (status.connected, status.encrypted, status.streams, status.reconnects) == (True, False, 1, 0)
    assert (status.batches, status.acks, status.acknowledged_sequence, status.error) == (51, 51, 51, "")
    assert status.last_ack_seconds is not None
    assert status.last_ack_seconds >= before
    server.stop(None).wait()


def test_a_shipper_without_a_thread_begins_with_a_later_record(spool: Spool, made: Callable[..., Shipper]) -> None:
    """Where the system refuses it one, the spool keeps everything until it may have one."""
    collector = Collector()
    server, port = serve(collector)
    spool.append(cut(1))
    shipper = made(spool, plain(port))
    with no_threads():
        shipper.start()
        shipper.appended()
    assert "TasksMax" in shipper.status().error
    spool.append(cut(2))
    shipper.appended()
    wait_for(lambda: spool.acknowledged_sequence == 2)
    assert shipper.status().error == ""
    server.stop(None).wait()


def test_a_collector_that_comes_back_is_found_again(spool: Spool, made: Callable[..., Shipper]) -> None:
    """Records made while it was away are sent then; the reason of the outage can be read meanwhile."""
    collector = Collector()
    server, port = serve(collector)
    spool.append(cut(1))
    shipper = made(spool, plain(port))
    shipper.start()
    wait_for(lambda: spool.acknowledged_sequence == 1)
    server.stop(None).wait()
    wait_for(lambda: not shipper.status().connected and shipper.status().error != "")
    assert "UNAVAILABLE" in shipper.status().error
    spool.append(cut(2))
    shipper.appended()
    server, _ = serve(collector, port)
    wait_for(lambda: spool.acknowledged_sequence == 2)
    assert collector.payloads == [b"payload 1", b"payload 2"]
    assert shipper.status().reconnects >= 1
    server.stop(None).wait()


def test_stopping_is_quick_and_clean(spool: Spool, made: Callable[..., Shipper]) -> None:
    """With a stream open, waiting for an answer, or with nobody there; the collector sees a good end of the stream."""
    collector = Collector()
    server, port = serve(collector)
    spool.append(cut(1))
    for silent in (False, True):
        collector.silent = silent
        shipper = made(spool, plain(port))
        shipper.start()
        if silent:
            wait_for(lambda: collector.began == 2)
        else:
            wait_for(lambda: spool.acknowledged_sequence == 1)
        before = time.monotonic()
        shipper.stop()
        assert time.monotonic() - before < 2.0
        shipper.appended()
        shipper.live(pb.Live())
    wait_for(lambda: collector.ended == 2)
    server.stop(None).wait()
    shipper = made(spool, plain(port))
    shipper.start()
    wait_for(lambda: shipper.status().error != "")
    shipper.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "shipper"]


def test_a_spool_older_than_the_collector_asks_for_a_new_epoch(spool: Spool, made: Callable[..., Shipper]) -> None:
    """Delivery waits until the sampler has renewed spool and meter, then begins at 1."""
    collector = Collector()
    collector.committed = 5
    server, port = serve(collector)
    spool.append(cut(1))
    shipper = made(spool, plain(port))
    asked = threading.Event()
    shipper.on_new_epoch = asked.set
    shipper.start()
    assert asked.wait(WAIT_SECONDS)
    assert collector.payloads == []
    collector.committed = 0
    spool.renew(NOW)
    spool.append(cut(9))
    shipper.appended()
    wait_for(lambda: spool.acknowledged_sequence == 1)
    assert collector.payloads == [b"payload 9"]
    assert collector.hellos[0].epoch != collector.hellos[-1].epoch
    server.stop(None).wait()


def test_settings_are_passed_on(spool: Spool, made: Callable[..., Shipper]) -> None:
    """What the collector sets for its fleet reaches the sampler once."""
    collector = Collector()
    collector.extra = [pb.CollectorMessage(settings=pb.Settings(flush_milliseconds=5000))]
    server, port = serve(collector)
    shipper = made(spool, plain(port))
    seen: list[Settings] = []
    shipper.on_settings = seen.append
    shipper.start()
    wait_for(lambda: bool(seen))
    assert seen == [Settings(5.0, None)]
    server.stop(None).wait()


def test_how_far_the_collectors_clock_is_off_is_known_from_its_welcome(spool: Spool, made: Callable[..., Shipper]) -> None:
    """For people: energy is dated by the ledger's own rules."""
    collector = Collector()
    collector.realtime_nanoseconds = NOW.realtime_nanoseconds - 61_500_000_000
    server, port = serve(collector)
    shipper = made(spool, plain(port))
    assert shipper.status().collector_clock_seconds is None
    shipper.start()
    wait_for(lambda: shipper.status().connected)
    assert shipper.status().collector_clock_seconds == -61.5
    server.stop(None).wait()


def test_a_refusal_is_shown_and_metering_goes_on(spool: Spool, made: Callable[..., Shipper]) -> None:
    """The stream ends, its reason stands in the status, and the spool takes further records."""
    collector = Collector()
    collector.extra = [pb.CollectorMessage(refusal=pb.Refusal(message="this host was retired", retry_milliseconds=60_000))]
    server, port = serve(collector)
    shipper = made(spool, plain(port))
    shipper.start()
    wait_for(lambda: shipper.status().refusal != "")
    wait_for(lambda: shipper.status().state == "waiting")
    assert shipper.status().refusal == "this host was retired"
    spool.append(cut(1))
    shipper.appended()
    server.stop(None).wait()


class FaultySpool(Spool):
    """A spool with a bug that shows once."""

    faults = 1

    def find(self, sequence: int) -> Record | None:
        """As a spool, or what nobody expects."""
        if self.faults:
            self.faults -= 1
            raise ValueError("nobody thought of this")
        return super().find(sequence)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_bug_ends_the_stream_and_not_delivery(
    tmp_path: Path, made: Callable[..., Shipper], caplog: pytest.LogCaptureFixture, waiting: int
) -> None:
    """Whether it shows at a message of the collector's or at a new record: it is told, and the next stream goes on."""
    spool = FaultySpool.open(tmp_path / "spool", machine_id="m", dmi_uuid="d", opening=NOW, new_epoch=lambda: b"1" * 16)
    for number in range(waiting):
        spool.append(cut(number))
    collector = Collector()
    server, port = serve(collector)
    shipper = made(spool, plain(port))
    shipper.start()
    wait_for(lambda: collector.began > 0)
    spool.append(cut(9))
    shipper.appended()
    wait_for(lambda: collector.committed == waiting + 1)
    assert "nobody thought of this" in caplog.text
    shipper.stop()
    server.stop(None).wait()
    spool.close()


def test_an_address_beyond_loopback_demands_certificates(spool: Spool) -> None:
    """Unless the configuration says in so many words that it may be plain."""
    identity = Identity("host-1", "0.1.0", "m", BOOT)
    with pytest.raises(ShipperError, match=r"10\.0\.0\.5:9791 is not loopback .*insecure = true"):
        Shipper(spool, identity, CollectorConfig(address="10.0.0.5:9791"), lambda: NOW)
    shipper = Shipper(spool, identity, CollectorConfig(address="10.0.0.5:9791", insecure=True), lambda: NOW)
    assert not shipper.status().encrypted
    shipper.stop()


def issue(authority: Authority, name: str) -> Pair:
    """Certificate and key for a host of this name, at 127.0.0.1."""
    return authority.sign(dns=(name,), ips=("127.0.0.1",))


def server_credentials(authority: Authority) -> grpc.ServerCredentials:
    """A collector's certificate, and the demand for one of the same authority."""
    pair = issue(authority, "collector-1")
    return grpc.ssl_server_credentials([(pair.key, pair.certificate)], authority.certificate, require_client_auth=True)


def with_tls(folder: Path, port: int) -> CollectorConfig:
    """A collector by mutual TLS, with the files in this folder."""
    return CollectorConfig(
        address=f"127.0.0.1:{port}",
        ca_file=str(folder / "ca.pem"),
        certificate_file=str(folder / "a.pem"),
        key_file=str(folder / "a.key"),
    )


def test_mutual_tls_with_renewed_certificates(tmp_path: Path, spool: Spool, made: Callable[..., Shipper]) -> None:
    """The certificate's name reaches the collector; new files are used without a restart; nothing is lost or doubled."""
    authority = Authority()
    authority.write(tmp_path)
    collector = Collector()
    server, port = serve(collector, credentials=server_credentials(authority))
    config = with_tls(tmp_path, port)

    issue(authority, "host-1").write(tmp_path, "a")
    spool.append(cut(1))
    shipper = made(spool, config, 0.05)
    shipper.start()
    wait_for(lambda: spool.acknowledged_sequence == 1)
    assert shipper.status().encrypted
    issue(authority, "host-1-renewed").write(tmp_path, "a")
    wait_for(lambda: "host-1-renewed" in collector.peers)
    spool.append(cut(2))
    shipper.appended()
    wait_for(lambda: spool.acknowledged_sequence == 2)
    assert collector.payloads == [b"payload 1", b"payload 2"]
    assert "host-1" in collector.peers
    server.stop(None).wait()


def test_a_missing_or_foreign_certificate_is_an_error_that_heals(
    tmp_path: Path, spool: Spool, made: Callable[..., Shipper]
) -> None:
    """The status says what is wrong; when the files are there, delivery goes on."""
    authority = Authority()
    authority.write(tmp_path)
    collector = Collector()
    server, port = serve(collector, credentials=server_credentials(authority))
    config = with_tls(tmp_path, port)
    spool.append(cut(1))
    shipper = made(spool, config)
    shipper.start()
    wait_for(lambda: "a.pem: No such file" in shipper.status().error)
    issue(Authority("another"), "host-1").write(tmp_path, "a")
    wait_for(lambda: "UNAVAILABLE" in shipper.status().error)
    assert spool.acknowledged_sequence == 0
    issue(authority, "host-1").write(tmp_path, "a")
    wait_for(lambda: spool.acknowledged_sequence == 1)
    server.stop(None).wait()
