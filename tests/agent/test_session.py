"""The agent's session, message by message: no network, time is a number."""

import zlib
from dataclasses import dataclass, field

import pytest

from wattledger_agent.counters import Instant
from wattledger_agent.session import (
    ANSWER_SECONDS_MAX,
    BACKOFF_SECONDS_BASE,
    BACKOFF_SECONDS_MAX,
    REWINDS_MAX,
    AgentSession,
    Identity,
    Settings,
    State,
)
from wattledger_agent.spool import Record
from wattledger_protos.v1 import telemetry_pb2 as pb

BOOT = b"b" * 16
CLOCK = pb.ClockPair(boottime_nanoseconds=1, realtime_nanoseconds=2, synchronised=True)


@dataclass
class FakeSpool:
    """Records in memory. next_sequence is one above the newest, whether or not it is still held."""

    held: list[Record] = field(default_factory=list)
    epoch: bytes = b"1" * 16
    epoch_opening: Instant = field(default_factory=lambda: Instant(BOOT, 5, 7, True, 0))
    next_sequence: int = 1
    acknowledged_sequence: int = 0
    recovered_sequence: int = 0

    @property
    def oldest_sequence(self) -> int:
        """Lowest sequence held."""
        return self.held[0].first_sequence if self.held else self.next_sequence

    def add(self, first: int, last: int | None = None, catalog_hash: int = 9) -> None:
        """Hold one more record."""
        last = first if last is None else last
        self.held.append(Record(first, last, b"payload %d" % last, catalog_hash))
        self.next_sequence = last + 1

    def find(self, sequence: int) -> Record | None:
        """See Outbox."""
        return next((record for record in self.held if record.last_sequence >= sequence), None)

    def catalog(self, catalog_hash: int) -> bytes | None:
        """Every catalog but 404 is there."""
        return pb.Catalog(catalog_hash=catalog_hash).SerializeToString() if catalog_hash != 404 else None

    def acknowledge(self, sequence: int) -> None:
        """See Outbox."""
        self.acknowledged_sequence = sequence


def spool_of(count: int) -> FakeSpool:
    """A spool opened with `count` records of one sequence each."""
    spool = FakeSpool()
    for sequence in range(1, count + 1):
        spool.add(sequence)
    spool.recovered_sequence = count
    return spool


def session_of(spool: FakeSpool, jitter: float = 0.5) -> AgentSession:
    """A session whose chance is a fixed number."""
    return AgentSession(spool, Identity("host-1", "0.1.0", "m1", BOOT, {"name": "n1"}), lambda: jitter)


def welcome(committed: int, **settings: int) -> pb.CollectorMessage:
    """The collector's greeting."""
    return pb.CollectorMessage(welcome=pb.Welcome(committed_sequence=committed, settings=pb.Settings(**settings)))


def ack(committed: int) -> pb.CollectorMessage:
    """The collector's answer to a batch."""
    return pb.CollectorMessage(ack=pb.Ack(committed_sequence=committed))


def kinds(messages: list[pb.AgentMessage]) -> list[str | None]:
    """What was sent."""
    return [message.WhichOneof("message") for message in messages]


def greeted(spool: FakeSpool, committed: int, now: float = 0.0) -> tuple[AgentSession, list[pb.AgentMessage]]:
    """A session that was welcomed, and what it sent then."""
    session = session_of(spool)
    session.connected(now, CLOCK)
    return session, session.received(welcome(committed), now)


def test_hello_says_who_speaks_and_what_is_held() -> None:
    """Every field of Hello comes from identity, spool and clock."""
    spool = spool_of(3)
    spool.acknowledge(2)
    session = session_of(spool)
    assert session.wants_connection(0.0)
    (message,) = session.connected(0.0, CLOCK)
    hello = message.hello
    assert (hello.host, hello.agent_version, hello.machine_id, dict(hello.labels)) == (
        "host-1",
        "0.1.0",
        "m1",
        {"name": "n1"},
    )
    assert (hello.epoch, hello.boot_id, hello.clock) == (spool.epoch, BOOT, CLOCK)
    assert (hello.epoch_opening.boot_id, hello.epoch_opening.clock.boottime_nanoseconds) == (BOOT, 5)
    assert (hello.oldest_retained_sequence, hello.next_sequence, hello.acknowledged_sequence) == (1, 4, 2)
    assert hello.time_source == pb.TIME_SOURCE_CLOCK
    assert hello.protocol_minor == 1
    assert session.state is State.GREETING


def test_one_batch_is_under_way_at_a_time() -> None:
    """Each Ack lets the next batch go, until the spool is drained; the catalog goes once."""
    spool = spool_of(3)
    session, sent = greeted(spool, 0)
    assert kinds(sent) == ["catalog", "batch"]
    batch = sent[1].batch
    assert (batch.first_sequence, batch.last_sequence, batch.payload) == (1, 1, b"payload 1")
    assert batch.checksum == zlib.crc32(b"payload 1")
    assert session.appended(1.0) == []
    assert [message.batch.last_sequence for message in session.received(ack(1), 1.0)] == [2]
    assert [message.batch.last_sequence for message in session.received(ack(2), 1.0)] == [3]
    assert session.received(ack(3), 1.0) == []
    assert (session.state, spool.acknowledged_sequence, session.batches, session.acks) == (State.IDLE, 3, 3, 3)
    assert session.deadline() is None
    spool.add(4)
    assert kinds(session.appended(2.0)) == ["batch"]


def test_a_new_catalog_goes_before_the_first_batch_that_names_it() -> None:
    """On each stream anew; a catalog that is lost holds nothing up."""
    spool = FakeSpool()
    for sequence, catalog_hash in ((1, 5), (2, 6), (3, 6), (4, 404)):
        spool.add(sequence, catalog_hash=catalog_hash)
    session, sent = greeted(spool, 0)
    for sequence in (1, 2, 3):
        sent += session.received(ack(sequence), 0.0)
    assert kinds(sent) == ["catalog", "batch", "catalog", "batch", "batch", "batch"]
    session.disconnected(0.0)
    session.connected(5.0, CLOCK)
    assert kinds(session.received(welcome(2), 5.0)) == ["catalog", "batch"]


def test_the_envelope_spans_what_was_lost() -> None:
    """The collector accepts a batch that begins at or before its next sequence, so a hole is part of the next envelope."""
    spool = FakeSpool()
    spool.add(7, 9)
    spool.add(12)
    spool.recovered_sequence = 12
    session, sent = greeted(spool, 2)
    assert (sent[1].batch.first_sequence, sent[1].batch.last_sequence) == (3, 9)
    (following,) = session.received(ack(9), 0.0)
    assert (following.batch.first_sequence, following.batch.last_sequence) == (10, 12)


def test_a_merged_record_keeps_its_own_first_sequence() -> None:
    """A record thinned over what is committed already may overlap it."""
    spool = FakeSpool()
    spool.add(3, 9)
    spool.recovered_sequence = 9
    _, sent = greeted(spool, 5)
    assert (sent[1].batch.first_sequence, sent[1].batch.last_sequence) == (3, 9)


def test_the_collectors_word_is_the_only_cursor() -> None:
    """A collector that was restored gets again what it lost, and the spool learns that it is not acknowledged."""
    spool = spool_of(5)
    spool.acknowledge(5)
    _, sent = greeted(spool, 2)
    assert sent[1].batch.last_sequence == 3
    assert spool.acknowledged_sequence == 2


def test_a_welcome_within_the_stream_is_a_rewind() -> None:
    """The batch under way is forgotten, and sending goes on where the collector says."""
    session, _ = greeted(spool_of(5), 3)
    (message,) = session.received(welcome(1), 1.0)
    assert message.batch.last_sequence == 2
    assert session.rewinds == 1


def test_endless_rewinds_end_the_stream() -> None:
    """A collector that takes nothing is asked again after a delay, not in a hot loop."""
    session, _ = greeted(spool_of(5), 3)
    for _ in range(REWINDS_MAX):
        assert not session.wants_disconnect
        session.received(welcome(3), 1.0)
    assert session.received(welcome(3), 1.0) == []
    assert session.wants_disconnect
    assert "asked 9 times" in session.reason


def test_a_disk_that_went_back_in_time_needs_a_new_epoch() -> None:
    """A committed sequence that was never sent is another history's: nothing is sent until the spool is renewed."""
    spool = spool_of(3)
    session, sent = greeted(spool, 4)
    assert sent == []
    assert session.wants_disconnect
    assert session.wants_new_epoch
    session.disconnected(1.0)
    assert not session.wants_connection(1000.0)
    assert session.deadline() is None
    spool.held, spool.epoch, spool.next_sequence, spool.recovered_sequence = [], b"2" * 16, 1, 0
    assert not session.wants_new_epoch
    assert session.wants_connection(1.0)
    spool.add(1)
    session.connected(1.0, CLOCK)
    assert kinds(session.received(welcome(0), 1.0)) == ["catalog", "batch"]


def test_records_made_since_the_start_do_not_hide_that_the_disk_went_back() -> None:
    """What this process added but never sent can't be what the collector has."""
    spool = spool_of(3)
    session = session_of(spool)
    for sequence in (4, 5, 6):
        spool.add(sequence)
    session.connected(0.0, CLOCK)
    session.received(welcome(4), 0.0)
    assert session.wants_new_epoch


def test_a_fork_that_went_on_past_the_committed_sequence_is_found_by_its_checksum() -> None:
    """Another record in the committed place means another history; the same record, or a thinned one, does not."""
    spool = spool_of(5)
    same = zlib.crc32(spool.held[2].payload)
    for checksum, is_fork in ((same, False), (same ^ 1, True), (0, False)):
        session = session_of(spool)
        session.connected(0.0, CLOCK)
        message = pb.CollectorMessage(welcome=pb.Welcome(committed_sequence=3, committed_checksum=checksum))
        sent = session.received(message, 0.0)
        assert session.wants_new_epoch is is_fork
        assert bool(sent) is not is_fork
    for thinned in (Record(2, 3, b"thinned", 1), Record(3, 3, b"thinned", 1, is_thinned=True)):
        spool.held[2] = thinned
        session = session_of(spool)
        session.connected(0.0, CLOCK)
        session.received(pb.CollectorMessage(welcome=pb.Welcome(committed_sequence=3, committed_checksum=same)), 0.0)
        assert not session.wants_new_epoch


def test_a_drain_without_a_delay_is_no_invitation_to_call_at_once() -> None:
    """A collector that drains every stream as it comes would else be met by a storm."""
    session, _ = greeted(spool_of(0), 0)
    session.received(pb.CollectorMessage(drain=pb.Drain()), 5.0)
    session.disconnected(5.0)
    assert session.deadline() == 5.5


def test_what_was_sent_may_be_committed_without_an_ack() -> None:
    """An Ack lost with its stream is made up for by the next Welcome."""
    spool = spool_of(3)
    spool.recovered_sequence = 0
    session, _ = greeted(spool, 0)
    session.received(ack(1), 0.0)
    session.disconnected(0.0)
    session.connected(9.0, CLOCK)
    assert session.received(welcome(2), 9.0)[1].batch.last_sequence == 3
    assert not session.wants_new_epoch


def test_a_collector_that_does_not_answer_is_left() -> None:
    """Hello and batches have a deadline each."""
    session = session_of(spool_of(1))
    session.connected(100.0, CLOCK)
    assert session.deadline() == 100.0 + ANSWER_SECONDS_MAX
    session.tick(100.0 + ANSWER_SECONDS_MAX - 0.1)
    assert not session.wants_disconnect
    session.received(welcome(0), 110.0)
    assert session.deadline() == 110.0 + ANSWER_SECONDS_MAX
    session.tick(110.0 + ANSWER_SECONDS_MAX)
    assert session.wants_disconnect
    assert "did not answer a batch" in session.reason


def test_reconnects_back_off_with_full_jitter() -> None:
    """Also the first; each ceiling is twice the one before, up to the maximum; chance decides below it."""
    session = session_of(FakeSpool(), jitter=0.5)
    delays = []
    now = 0.0
    for _ in range(10):
        session.connected(now, CLOCK)
        session.disconnected(now)
        deadline = session.deadline()
        assert deadline is not None
        delays.append(deadline - now)
        assert not session.wants_connection(deadline - 0.01)
        assert session.wants_connection(deadline)
        now = deadline
    assert delays == [min(BACKOFF_SECONDS_BASE * 2**n, BACKOFF_SECONDS_MAX) / 2 for n in range(10)]


@pytest.mark.parametrize("by", ["ack", "time"])
def test_a_sound_stream_ends_the_back_off(by: str) -> None:
    """A batch committed, or half a minute of a welcomed stream, and the next failure waits briefly again."""
    spool = spool_of(1)
    session = session_of(spool)
    for _ in range(6):
        session.connected(0.0, CLOCK)
        session.disconnected(0.0)
    session.connected(0.0, CLOCK)
    session.received(welcome(0), 0.0)
    if by == "ack":
        session.received(ack(1), 1.0)
    end = 1.0 if by == "ack" else 31.0
    session.disconnected(end)
    assert session.deadline() == end + BACKOFF_SECONDS_BASE / 2


def test_a_stream_that_is_never_welcomed_does_not_end_the_back_off() -> None:
    """However long a collector holds its breath."""
    session = session_of(FakeSpool())
    for now in (0.0, 1000.0):
        session.connected(now, CLOCK)
        session.disconnected(now + 100.0)
    assert session.deadline() == 1100.0 + BACKOFF_SECONDS_BASE


def test_drain_finishes_the_batch_under_way() -> None:
    """Then the stream ends, and the next comes after a random part of the delay that the collector named."""
    session, _ = greeted(spool_of(3), 0)
    session.received(pb.CollectorMessage(drain=pb.Drain(reconnect_delay_milliseconds_max=60_000)), 1.0)
    assert not session.wants_disconnect
    assert session.received(ack(1), 2.0) == []
    assert session.wants_disconnect
    session.disconnected(2.0)
    assert session.deadline() == 2.0 + 30.0


def test_an_idle_stream_drains_at_once() -> None:
    """Nothing is under way that could be waited for."""
    session, _ = greeted(FakeSpool(), 0)
    session.received(pb.CollectorMessage(drain=pb.Drain(reconnect_delay_milliseconds_max=1000)), 1.0)
    assert session.wants_disconnect


def test_a_refused_agent_waits_as_told() -> None:
    """The reason is kept for people, metering goes on, and each further refusal waits longer."""
    session = session_of(spool_of(1))
    refusal = pb.CollectorMessage(
        refusal=pb.Refusal(reason=pb.REFUSAL_REASON_RETIRED, message="gone", retry_milliseconds=9000)
    )
    session.connected(0.0, CLOCK)
    session.received(refusal, 0.0)
    assert (session.wants_disconnect, session.refusal) == (True, "gone")
    session.disconnected(0.0)
    assert session.deadline() == 9.0 + BACKOFF_SECONDS_BASE / 2
    session.connected(20.0, CLOCK)
    session.received(welcome(0), 20.0)
    assert session.refusal == ""


def test_settings_are_taken_within_their_limits() -> None:
    """0 leaves the agent's own; senseless values become the nearest that makes sense."""
    session = session_of(FakeSpool())
    session.connected(0.0, CLOCK)
    session.received(welcome(0, flush_milliseconds=5000), 0.0)
    assert session.settings == Settings(5.0, None)
    session.received(pb.CollectorMessage(settings=pb.Settings(flush_milliseconds=1, live_milliseconds=2**32 - 1)), 0.0)
    assert session.settings == Settings(1.0, 600.0)


def test_live_values_pass_while_a_stream_is_ready() -> None:
    """Between batches too, so that a backlog does not hide the present; never before Welcome."""
    spool = spool_of(2)
    session = session_of(spool)
    live = pb.Live(spool_bytes=3)
    assert session.live(live, 0.0) == []
    session.connected(0.0, CLOCK)
    assert session.live(live, 0.0) == []
    session.received(welcome(0), 0.0)
    assert session.state is State.IN_FLIGHT
    assert [message.live.spool_bytes for message in session.live(live, 0.0)] == [3]


def test_senseless_messages_do_no_harm() -> None:
    """Unknown ones, repeated Acks and Acks out of place are ignored; an Ack of what was never sent ends the stream."""
    session, _ = greeted(spool_of(3), 1)
    assert session.received(pb.CollectorMessage(), 0.0) == []
    assert session.received(ack(1), 0.0) == []
    assert session.received(ack(0), 0.0) == []
    assert session.state is State.IN_FLIGHT
    assert session.received(ack(2**63), 0.0) == []
    assert session.wants_disconnect
    assert session.received(welcome(0), 0.0) == []


def test_an_ack_before_any_batch_is_ignored() -> None:
    """It can't be an answer."""
    spool = FakeSpool()
    session, _ = greeted(spool, 0)
    assert session.received(ack(5), 0.0) == []
    assert spool.acknowledged_sequence == 0
    assert not session.wants_disconnect


def test_reconnect_waits_for_the_batch_under_way() -> None:
    """Then the next stream is wanted at once."""
    session, _ = greeted(spool_of(2), 0)
    session.reconnect()
    assert not session.wants_disconnect
    session.received(ack(1), 1.0)
    assert session.wants_disconnect
    session.disconnected(1.0)
    assert session.wants_connection(1.0)
