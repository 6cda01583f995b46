"""Every command as a real process, and every way in which real peers go wrong: a sentence, and nothing booked wrongly."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.certificates import Authority
from tests.collector.batches import EPOCH, SECOND, WATT, column, enveloped, hello, payload
from tests.system.programs import AGENT, COLLECTOR, Program, free_ports, get, metric, run, wait_until

from wattledger_agent.clock import HostClock
from wattledger_agent.config import CollectorConfig
from wattledger_agent.counters import Instant
from wattledger_agent.sampler import Cadence, OpenSource, Sampler
from wattledger_agent.session import Identity
from wattledger_agent.shipper import Shipper
from wattledger_agent.sources.fake import FakeSource
from wattledger_agent.spool import Spool
from wattledger_collector.store import open_store
from wattledger_collector.wire import catalog_hash_of
from wattledger_protos.v1 import telemetry_pb2 as pb

HOUR_SECONDS = 3600
ANSWER_SECONDS_MAX = 20.0


class Collector:
    """`serve` in a folder of its own."""

    def __init__(self, folder: Path, tls: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.ledger = folder / "ledger.sqlite"
        self.grpc, self.http = free_ports(2)
        self.config = folder / "collector.toml"
        self.config.write_text(
            f'[server]\nport = {self.grpc}\n{tls}[http]\nport = {self.http}\n[store]\npath = "{self.ledger}"\n'
            '[[site]]\nname = "hall"\nzone = "DE"\npue = 1.5\n'
        )
        self.program = Program(COLLECTOR, ["serve", "--config", str(self.config)], folder / "collector.log")
        wait_until(lambda: get(f"http://127.0.0.1:{self.http}/readyz") is not None, "the collector")

    def metrics(self) -> str:
        """What `/metrics` shows."""
        return get(f"http://127.0.0.1:{self.http}/metrics") or ""

    def of(self, family: str, host: str) -> float | None:
        """A family's sum over one host's series."""
        return metric(self.metrics(), family, {"host": host})

    def hosts(self) -> set[str]:
        """All hosts that a Hello of which was accepted."""
        with closing(open_store(self.ledger, create=False)) as store:
            return {host.host for host in store.hosts()}

    def booked(self, host: str) -> int:
        """Microjoules in a host's rows."""
        with closing(open_store(self.ledger, create=False)) as store:
            return sum(row.energy_microjoules for row in store.host_energy(0, 2**40, host))


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A plain collector on loopback."""
    collector = Collector(tmp_path_factory.mktemp("plain"))
    with collector.program:
        yield collector


def agent_config(
    folder: Path, port: int, *, host: str = "", tls: str = "", address: str = "127.0.0.1", period_seconds: float = 0.1
) -> Path:
    """A simulated host; returns the path of its configuration."""
    folder.mkdir(exist_ok=True)
    path = folder / "agent.toml"
    path.write_text(
        (f'host = "{host}"\n' if host else "")
        + f'state_dir = "{folder}/state"\nperiod_seconds = {period_seconds}\nflush_seconds = 0.3\nlive_seconds = 0.5\n'
        f'[collector]\naddress = "{address}:{port}"\n{tls}[sources.fake]\npackages = 1\n'
    )
    return path


def start_agent(config: Path) -> Program:
    """`run` with this configuration; it says what it says in the folder's agent.log."""
    return Program(AGENT, ["run", "--config", str(config)], config.parent / "agent.log")


def wait_for_word(program: Program, sentence: str) -> None:
    """Wait until a program has said this."""
    wait_until(lambda: sentence in program.said, f"{sentence!r} in {program.log}")


def wait_for_host(collector: Collector, host: str) -> None:
    """Wait until an agent's Hello was accepted."""
    wait_until(lambda: collector.of("wattledger_host_info", host) == 1.0, host)


def test_the_commands_from_the_first_sample_to_the_restored_ledger(tmp_path: Path) -> None:
    """run, serve, report, host, backup and restore do what they say, one after another, on one ledger."""
    collector = Collector(tmp_path / "collector")
    config = agent_config(tmp_path / "agent", collector.grpc, host="web-1")
    store = ("--store", str(collector.ledger))
    with ExitStack() as stack:
        stack.enter_context(collector.program)
        agent = stack.enter_context(start_agent(config))
        wait_until(lambda: (collector.of("wattledger_host_energy_joules_total", "web-1") or 0.0) > 0.0, "energy")

        # While both run: a second agent on this spool, and a second collector on these ports.
        status, _, told = run(AGENT, "run", "--config", str(config))
        assert status == 1
        assert "is in use by another agent. Stop that one, or give this one a state folder of its own." in told
        status, _, told = run(COLLECTOR, "serve", "--config", str(collector.config))
        assert status == 1
        assert f"cannot listen on 127.0.0.1:{collector.http} for HTTP: Address already in use. End the program" in told
        status, _, told = run(COLLECTOR, "restore", str(collector.ledger), *store, "--force")
        assert status == 1
        assert "Traceback" not in told
        assert agent.is_running
        assert collector.program.is_running

        copy = tmp_path / "copy"
        assert run(COLLECTOR, "backup", str(copy), *store)[0] == 0
        assert agent.stop() == 0, agent.said
        assert collector.program.stop() == 0, collector.program.said
    assert "Traceback" not in agent.said + collector.program.said

    status, out, _ = run(COLLECTOR, "report", "--from", "2020-01-01", "--to", "2100-01-01", "--json", *store)
    assert status == 0
    assert str(collector.booked("web-1")) in out
    status, out, _ = run(COLLECTOR, "host", "list", "--json", *store)
    assert (status, [row["host"] for row in json.loads(out)]) == (0, ["web-1"])
    status, out, _ = run(COLLECTOR, "restore", str(copy), *store, "--force")
    assert status == 0
    assert "the counters of 1 hosts are withheld" in out


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the certificates of collector and agents."""
    authority = Authority()
    authority.write(tmp_path)
    authority.sign(dns=("localhost",)).write(tmp_path, "server")
    return authority


def test_the_certificate_says_which_host_it_is(tmp_path: Path, authority: Authority) -> None:
    """Its host is served without a configured id; other names, other authorities and no file at all say what is wrong."""
    server = (
        f'[server.tls]\ncertificate = "{tmp_path}/server.pem"\nkey = "{tmp_path}/server.key"\nca = "{tmp_path}/ca.pem"\n'
    )
    foreign = Authority("another")
    collector = Collector(tmp_path / "collector", server)

    def configure(name: str, host: str = "") -> Path:
        own = tmp_path / name
        files = f'ca_file = "{tmp_path}/ca.pem"\ncertificate_file = "{own}.pem"\nkey_file = "{own}.key"\n'
        return agent_config(tmp_path / name, collector.grpc, host=host, tls=files, address="localhost")

    authority.sign(dns=("web-1",)).write(tmp_path, "named")
    authority.sign(dns=("web-2",)).write(tmp_path, "misnamed")
    authority.sign(uris=("wattledger://host/web-3", "wattledger://host/web-4")).write(tmp_path, "twice")
    authority.sign().write(tmp_path, "nameless")
    foreign.sign(dns=("web-5",)).write(tmp_path, "foreign")
    expected = {
        "misnamed": "Hello says host web-9, but the certificate names web-2: set `host` to the certificate's name",
        "twice": "the certificate names several (web-3, web-4): set `host` to one of them",
        "nameless": "neither does the certificate: give the agent one with the URI wattledger://host/<id>",
        "foreign": "the spool keeps everything, and `wattledger-agent doctor` says more",
        "missing": f"cannot read {tmp_path}/missing.pem: No such file or directory; let the agent's user read it",
    }
    with ExitStack() as stack:
        stack.enter_context(collector.program)
        named = stack.enter_context(start_agent(configure("named")))
        others = {
            name: stack.enter_context(start_agent(configure(name, "web-9" if name == "misnamed" else "")))
            for name in expected
        }
        wait_until(lambda: (collector.of("wattledger_host_energy_joules_total", "web-1") or 0.0) > 0.0, "web-1's energy")
        for name, sentence in expected.items():
            wait_for_word(others[name], sentence)
            assert others[name].is_running, "an agent that is refused goes on metering"
        assert collector.hosts() == {"web-1"}

        # Retired, the same agent is told so at its next start.
        assert named.stop() == 0
        assert run(COLLECTOR, "host", "retire", "web-1", "--store", str(collector.ledger))[0] == 0
        named = stack.enter_context(start_agent(tmp_path / "named" / "agent.toml"))
        wait_until(lambda: "host web-1 was retired: stop its agent, or take it back with" in named.said, "the refusal")
        for program in (named, *others.values()):
            assert program.stop() == 0, program.said
            assert "Traceback" not in program.said
        assert collector.program.stop() == 0
        assert "Traceback" not in collector.program.said


def test_an_agent_that_finds_nobody_says_so_and_meters_on(tmp_path: Path) -> None:
    """A wrong address is one line, not one for each attempt, and the spool grows meanwhile."""
    (port,) = free_ports(1)
    with start_agent(agent_config(tmp_path / "agent", port, host="lonely")) as agent:
        wait_until(lambda: "no stream to the collector" in agent.said, "a word")
        assert f"127.0.0.1:{port}: UNAVAILABLE" in agent.said
        assert "the spool keeps everything" in agent.said
        assert agent.stop() == 0
        assert agent.said.count("no stream") == 1
        assert any((tmp_path / "agent/state/spool").glob("*.segment"))


class AheadClock:
    """This host's clocks, but for a realtime clock that is an hour ahead, and not synchronised."""

    def __init__(self) -> None:
        self._clock = HostClock()
        self.boot_id = self._clock.boot_id

    def instant(self) -> Instant:
        """Now, as this host believes."""
        now = self._clock.instant()
        ahead = now.realtime_nanoseconds + HOUR_SECONDS * SECOND
        return Instant(now.boot_id, now.boottime_nanoseconds, ahead, False, now.suspended_nanoseconds)


def test_a_clock_an_hour_ahead_is_seen_and_not_believed(tmp_path: Path, collector: Collector) -> None:
    """The collector's clock dates the energy, and a metric says how far the host's is off."""
    clock, stopping = AheadClock(), threading.Event()
    spool = Spool.open(
        tmp_path / "spool", machine_id="m", dmi_uuid="", opening=clock.instant(), new_epoch=lambda: os.urandom(16)
    )
    source = FakeSource(3, packages=1)
    identity = Identity("ahead", "1", "m", clock.boot_id)
    shipper = Shipper(spool, identity, CollectorConfig(address=f"127.0.0.1:{collector.grpc}"), clock.instant)
    sampler = Sampler([OpenSource(source, source.open())], spool, shipper, clock, Cadence(0.1, 0.2, 0.2), stopping=stopping)
    shipper.start()
    thread = threading.Thread(target=sampler.run)
    thread.start()
    try:
        wait_until(lambda: (collector.of("wattledger_host_energy_joules_total", "ahead") or 0.0) > 0.0, "energy")
        offset = collector.of("wattledger_agent_clock_offset_seconds", "ahead")
        booked_until = collector.of("wattledger_host_last_sample_timestamp_seconds", "ahead")
    finally:
        stopping.set()
        thread.join()
        shipper.stop()
        spool.close()
    assert offset is not None
    assert abs(offset - HOUR_SECONDS) < 30.0
    assert booked_until is not None
    assert abs(booked_until - time.time()) < 30.0


def talk(port: int, messages: Sequence[pb.AgentMessage | bytes]) -> tuple[list[pb.CollectorMessage], grpc.StatusCode]:
    """Send these on one stream, sent bytes as they are; returns all answers, and how it ended."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        open_stream: Any = channel.stream_stream(
            "/wattledger_protos.v1.Telemetry/Stream", response_deserializer=pb.CollectorMessage.FromString
        )
        sent = [message if isinstance(message, bytes) else message.SerializeToString() for message in messages]
        call = open_stream(iter(sent), timeout=ANSWER_SECONDS_MAX)
        answers = []
        try:
            for answer in call:
                answers.append(answer)
        except grpc.RpcError:
            pass
        return answers, call.code()


def say(**content: pb.Hello | pb.Catalog | pb.Batch | pb.Live) -> pb.AgentMessage:
    """A message."""
    message = pb.AgentMessage()
    for name, value in content.items():
        getattr(message, name).CopyFrom(value)
    return message


def greeting(host: str, **changes: object) -> pb.AgentMessage:
    """A Hello of this host; changes: its fields."""
    message = hello(epoch=EPOCH)
    message.host = host
    for name, value in changes.items():
        setattr(message, name, value)
    return say(hello=message)


def catalog(channels: int = 1) -> pb.Catalog:
    """So many CPU packages, each of at most 1 kW."""
    made = pb.Catalog()
    for number in range(1, channels + 1):
        opening = pb.Opening(boot_id=hello().boot_id, clock=hello(now=0).clock)
        made.channels.add(
            channel=number,
            device=f"cpu/{number - 1}",
            component=pb.COMPONENT_CPU,
            domain="package",
            source="rapl",
            method=pb.METHOD_COUNTER,
            role=pb.ROLE_LEAF,
            opening=opening,
            power_bound_milliwatts=1_000_000,
        )
    made.catalog_hash = catalog_hash_of(made)
    return made


def reading(sequence: int, microjoules: int, *, of: pb.Catalog | None = None) -> pb.Batch:
    """One sample in the second of its sequence."""
    values = [column(1, [microjoules])]
    return enveloped(payload([sequence * SECOND], values, catalog_hash=(of or catalog()).catalog_hash), sequence)


def damaged() -> pb.Batch:
    """A batch of which a bit flipped on the way."""
    batch = reading(1, WATT)
    batch.checksum ^= 1
    return batch


def far_ahead() -> pb.Batch:
    """A sample that is a century ahead of its own clock."""
    content = payload([SECOND], [column(1, [WATT])], catalog_hash=catalog().catalog_hash)
    content.boottime_delta_nanoseconds.append(100 * 365 * 86_400 * SECOND)
    content.columns[0].energy_delta_microjoules.append(1)
    return enveloped(content, 1)


OVERSIZED = catalog(5000)

# What is said after Hello and a good catalog, and what the answer must be: an Ack (kept as evidence) or a Refusal.
NONSENSE: dict[str, tuple[list[pb.AgentMessage], str]] = {
    "a damaged batch": ([say(batch=damaged())], "ack"),
    "no payload at all": ([say(batch=enveloped(b"\xff" * 100, 1))], "ack"),
    "energy of 2^63 - 1": ([say(batch=reading(1, 2**63 - 1))], "ack"),
    "energy of -2^63": ([say(batch=reading(1, -(2**63)))], "ack"),
    "a million kilowatts": ([say(batch=reading(1, 10**15))], "ack"),
    "energy that falls": ([say(batch=reading(1, -5 * WATT))], "ack"),
    "a sample a century ahead": ([say(batch=far_ahead())], "ack"),
    "5000 channels": ([say(catalog=OVERSIZED), say(batch=reading(1, WATT, of=OVERSIZED))], "ack"),
    "an unknown catalog": ([say(batch=enveloped(payload([SECOND], [column(1, [WATT])], catalog_hash=99), 1))], "ack"),
    "sequences that fall": ([say(batch=pb.Batch(first_sequence=7, last_sequence=3))], "refusal"),
    "sequence 2^64 - 1": ([say(batch=pb.Batch(first_sequence=1, last_sequence=2**64 - 1))], "refusal"),
    "a second Hello": ([greeting("x")], "refusal"),
    "5000 present values": ([say(live=pb.Live(powers=[pb.LivePower()] * 5000))], "refusal"),
}

# What is said in place of a Hello; all are refused.
NO_HELLO: dict[str, pb.AgentMessage] = {
    "a batch first": say(batch=reading(1, WATT)),
    "live values first": say(live=pb.Live()),
    "no host": greeting(""),
    "a host of 10,000 characters": greeting("x" * 10_000),
    "a short epoch": greeting("rude", epoch=b"short"),
    "no boot": greeting("rude", boot_id=b""),
    "sequence 2^64 - 1 next": greeting("rude", next_sequence=2**64 - 1),
    "a time source of tomorrow": greeting("rude", time_source=77),
    "a protocol of the far future": greeting("rude", protocol_minor=4_000_000_000),
}


def test_nonsense_is_answered_and_never_booked(collector: Collector) -> None:
    """Whatever a peer says: the server lives, others are served, and the ledger holds only what is possible."""
    for number, (what, (messages, answer)) in enumerate(NONSENSE.items()):
        host = f"rude-{number}"
        answers, _ = talk(collector.grpc, [greeting(host), say(catalog=catalog()), *messages])
        assert [each.WhichOneof("message") for each in answers] == ["welcome", answer], what
        if answer == "refusal":
            assert len(answers[1].refusal.message) > 20, what
        assert collector.booked(host) == 0, what
    for what, message in NO_HELLO.items():
        answers, _ = talk(collector.grpc, [message, say(batch=reading(1, WATT))])
        assert [each.WhichOneof("message") for each in answers] == ["refusal"], what
        assert len(answers[0].refusal.message) > 20, what
    for noise in (b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"):
        answers, code = talk(collector.grpc, [noise])
        assert code is grpc.StatusCode.OK
        assert "is no message of Wattledger's" in answers[0].refusal.message

    # The next batch bridges what could not be read, up to what is possible.
    answers, _ = talk(
        collector.grpc, [greeting("rude-0", next_sequence=3), say(catalog=catalog()), say(batch=reading(2, 300 * WATT))]
    )
    assert answers[-1].ack.committed_sequence == 2
    assert collector.booked("rude-0") == 300 * WATT
    assert collector.program.is_running
    assert "Traceback" not in collector.program.said
    assert "rude" not in collector.hosts()


def test_a_stop_by_any_signal_is_clean(tmp_path: Path) -> None:
    """SIGINT and SIGTERM end `serve` with status 0, with an agent connected."""
    for number in (signal.SIGINT, signal.SIGTERM):
        collector = Collector(tmp_path / number.name)
        with collector.program, start_agent(agent_config(tmp_path / f"agent-{number}", collector.grpc, host="h")) as agent:
            wait_for_host(collector, "h")
            assert collector.program.stop(number) == 0, collector.program.said
            assert "Traceback" not in collector.program.said
            assert agent.stop() == 0
