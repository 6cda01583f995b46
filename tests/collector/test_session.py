"""The collector's half of the protocol: messages in, actions out."""

from dataclasses import replace

import msgspec
import pytest
from tests.collector.batches import BOOT, EPOCH, SECOND, UTC, clock, column, enveloped, hello, opened, payload

from wattledger_collector.hello import Refused
from wattledger_collector.ledger import book
from wattledger_collector.records import Booking, CommitOutcome
from wattledger_collector.session import (
    CATALOGS_MAX,
    STALE_ATTEMPTS_MAX,
    Action,
    Book,
    Close,
    CollectorSession,
    OpenStream,
    Send,
    ShowLive,
    State,
)
from wattledger_collector.wire import catalog_hash_of
from wattledger_protos.v1 import telemetry_pb2 as pb

NOW = UTC + SECOND


def catalog(device: str = "cpu/0", *, closed: bool = False) -> pb.Catalog:
    """A catalog of one channel."""
    channel = pb.Channel(
        channel=1,
        device=device,
        component=pb.COMPONENT_CPU,
        domain="package",
        source="rapl",
        method=pb.METHOD_COUNTER,
        role=pb.ROLE_LEAF,
        opening=pb.Opening(boot_id=BOOT, clock=clock(0)),
        closed=closed,
        power_bound_milliwatts=400_000,
    )
    message = pb.Catalog(channels=[channel])
    message.catalog_hash = catalog_hash_of(message)
    return message


class Stream:
    """A session with a server that commits at once."""

    def __init__(self, *, peer_hosts: frozenset[str] | None = None, committed: int = 0) -> None:
        self.session = CollectorSession(
            peer_hosts=peer_hosts, settings=pb.Settings(flush_milliseconds=5000), durability=pb.DURABILITY_LOCAL
        )
        first = opened()
        self.opening = replace(
            first,
            cursor_after=msgspec.structs.replace(
                first.cursor_after, committed_sequence=committed, committed_checksum=committed * 11
            ),
        )

    def say(self, **message: pb.Hello | pb.Catalog | pb.Batch | pb.Live) -> list[Action]:
        """Hand a message to the session."""
        envelope = pb.AgentMessage()
        for name, content in message.items():
            getattr(envelope, name).CopyFrom(content)
        return self.session.received(envelope, NOW)

    def open(self) -> "Stream":
        """Say Hello, be welcomed, and send a catalog."""
        self.say(hello=hello())
        self.session.opened(self.opening, CommitOutcome.COMMITTED)
        assert self.say(catalog=catalog()) == []
        return self

    def batch(self, first: int, last: int | None = None, *, catalog_hash: int | None = None) -> list[Action]:
        """Send a batch of one sample."""
        value = catalog().catalog_hash if catalog_hash is None else catalog_hash
        sequence = last or first
        content = payload([sequence * SECOND], [column(1, [sequence])], catalog_hash=value)
        return self.say(batch=enveloped(content, first, last))

    def booking(self, action: Action) -> Booking:
        """What the ledger makes of a Book."""
        assert isinstance(action, Book)
        return book(
            action.batch,
            self.opening.host_after,
            self.opening.cursor_after,
            action.channels,
            interval_seconds=900,
            collector="c1",
            new_channels=action.new_channels,
        )


def sent(actions: list[Action]) -> pb.CollectorMessage:
    """The message of the first action."""
    assert isinstance(actions[0], Send)
    return actions[0].message


def refusal(actions: list[Action]) -> pb.Refusal:
    """The refusal that ends a stream."""
    assert isinstance(actions[-1], Close)
    message = sent(actions)
    assert message.HasField("refusal")
    assert message.refusal.retry_milliseconds > 0
    return message.refusal


def test_hello_is_committed_before_the_welcome() -> None:
    """A Hello opens the stream in the ledger; only then the agent learns where it stands."""
    stream = Stream(committed=4)

    actions = stream.say(hello=hello())
    assert isinstance(actions[0], OpenStream)
    assert (actions[0].hello.epoch, actions[0].received_utc_nanoseconds) == (EPOCH, NOW)
    assert stream.session.host is None

    welcome = sent(stream.session.opened(stream.opening, CommitOutcome.COMMITTED)).welcome
    assert (welcome.committed_sequence, welcome.committed_checksum) == (4, 44)
    assert (welcome.server_realtime_nanoseconds, welcome.durability) == (NOW, pb.DURABILITY_LOCAL)
    assert welcome.settings.flush_milliseconds == 5000
    assert stream.session.host == "a"


@pytest.mark.parametrize("peer_hosts", [frozenset({"b"}), frozenset[str]()])
def test_host_must_be_that_of_the_certificate(peer_hosts: frozenset[str]) -> None:
    """A Hello for another host than the certificate's is refused with both names."""
    answer = refusal(Stream(peer_hosts=peer_hosts).say(hello=hello()))

    assert answer.reason == pb.REFUSAL_REASON_IDENTITY
    assert "Hello says host a" in answer.message


def test_certificate_for_the_host_is_served() -> None:
    """One of the certificate's names suffices."""
    assert isinstance(Stream(peer_hosts=frozenset({"a", "b"})).say(hello=hello())[0], OpenStream)


def test_an_agent_may_leave_its_name_to_its_certificate() -> None:
    """A Hello without a host is that of the certificate's only one; with two names, or none, it is refused."""
    unnamed = hello()
    unnamed.host = ""

    action = Stream(peer_hosts=frozenset({"a"})).say(hello=unnamed)[0]
    assert isinstance(action, OpenStream)
    assert action.hello.host == "a"
    for peer_hosts in (frozenset({"a", "b"}), frozenset[str](), None):
        assert "names no host" in refusal(Stream(peer_hosts=peer_hosts).say(hello=unnamed)).message


def test_what_is_no_message_ends_the_stream_with_a_reason() -> None:
    """Some other program's bytes, once: a closed stream has nothing more to say."""
    stream = Stream().open()

    assert "no message of Wattledger's" in refusal(stream.session.undecodable()).message
    assert stream.session.undecodable() == []


def test_refused_hello_ends_the_stream() -> None:
    """What the ledger refuses, the agent is told."""
    stream = Stream()
    stream.say(hello=hello())

    answer = refusal(stream.session.opened(Refused(pb.REFUSAL_REASON_RETIRED, "retired"), CommitOutcome.COMMITTED))

    assert (answer.reason, answer.message) == (pb.REFUSAL_REASON_RETIRED, "retired")
    assert stream.batch(1) == []


def test_messages_out_of_order_are_refused() -> None:
    """Hello comes first and once, and nothing but present values before the Welcome."""
    assert "Hello first" in refusal(Stream().say(catalog=catalog())).message
    assert "Hello first" in refusal(Stream().batch(1)).message
    assert "Hello first" in refusal(Stream().say(live=pb.Live())).message
    assert "second Hello" in refusal(Stream().open().say(hello=hello())).message
    stream = Stream()
    stream.say(hello=hello())
    assert stream.say(live=pb.Live()) == []
    assert "before the Welcome" in refusal(stream.batch(1)).message


def test_malformed_hello_is_refused() -> None:
    """A Hello that can't be served is answered with what is wrong."""
    answer = refusal(Stream().say(hello=pb.Hello()))

    assert answer.reason == pb.REFUSAL_REASON_MALFORMED


def test_unknown_message_is_ignored() -> None:
    """What a newer agent says is no fault."""
    assert Stream().say() == []


def test_ack_comes_after_the_commit() -> None:
    """A batch is booked, and acknowledged when the commit is done."""
    stream = Stream().open()

    actions = stream.batch(1)
    assert [type(action) for action in actions] == [Book]
    booking = stream.booking(actions[0])
    answer = stream.session.booked(booking, CommitOutcome.COMMITTED)

    assert sent(answer).ack.committed_sequence == 1
    assert booking.cursor_after.committed_checksum != 0


def test_channels_are_stored_once() -> None:
    """The first booking brings the catalog, later ones only what has changed."""
    stream = Stream().open()
    for sequence, expected in ((1, 1), (2, 0)):
        action = stream.batch(sequence)[0]
        assert isinstance(action, Book)
        assert len(action.new_channels) == expected
        booking = stream.booking(action)
        stream.opening = replace(stream.opening, cursor_after=booking.cursor_after)
        stream.session.booked(booking, CommitOutcome.COMMITTED)

    closed = catalog(closed=True)
    stream.say(catalog=closed)
    action = stream.batch(3, catalog_hash=closed.catalog_hash)[0]
    assert isinstance(action, Book)
    assert [channel.closed for channel in action.new_channels] == [True]


def test_repeated_batch_is_acknowledged_again() -> None:
    """A lost Ack costs nothing: what is committed is not booked again."""
    stream = Stream(committed=5).open()

    assert sent(stream.batch(4, 5)).ack.committed_sequence == 5


def test_batch_from_beyond_is_answered_with_a_welcome() -> None:
    """An agent that is ahead of the ledger rewinds."""
    stream = Stream(committed=5).open()

    assert sent(stream.batch(7)).welcome.committed_sequence == 5


def test_one_batch_is_under_way_at_a_time() -> None:
    """A second batch before the Ack breaks the protocol."""
    stream = Stream().open()
    stream.batch(1)

    assert "one at a time" in refusal(stream.batch(2)).message


def test_stale_booking_is_computed_anew() -> None:
    """The batch is booked on the rows as they are now; if they have passed it, it is acknowledged."""
    stream = Stream().open()
    action = stream.batch(1)[0]
    assert stream.session.booked(stream.booking(action), CommitOutcome.STALE) == [action]

    cursor = msgspec.structs.replace(stream.opening.cursor_after, committed_sequence=3)
    stream.opening = replace(stream.opening, cursor_after=cursor)

    answer = sent(stream.session.booked(stream.booking(action), CommitOutcome.COMMITTED))
    assert answer.ack.committed_sequence == 3


def test_store_that_lost_its_place_rewinds_the_agent() -> None:
    """Where a restored store is behind the stream, the batch is not booked and the agent goes back."""
    stream = Stream(committed=5).open()
    action = stream.batch(6)[0]
    cursor = msgspec.structs.replace(stream.opening.cursor_after, committed_sequence=2, committed_checksum=22)
    stream.opening = replace(stream.opening, cursor_after=cursor)

    welcome = sent(stream.session.booked(stream.booking(action), CommitOutcome.COMMITTED)).welcome

    assert (welcome.committed_sequence, welcome.committed_checksum) == (2, 22)


def test_endless_staleness_ends_the_stream() -> None:
    """Attempts are bounded; the agent connects again."""
    stream = Stream().open()
    action = stream.batch(1)[0]
    answers = [stream.session.booked(stream.booking(action), CommitOutcome.STALE) for _ in range(STALE_ATTEMPTS_MAX)]

    assert all(answer == [action] for answer in answers[:-1])
    assert isinstance(answers[-1][0], Close)


def test_rows_that_cannot_be_kept_become_evidence() -> None:
    """Content never closes a stream: the batch is kept as evidence, and the next one bridges it."""
    stream = Stream().open()
    action = stream.batch(1)[0]

    again = stream.session.booked(stream.booking(action), CommitOutcome.REJECTED)[0]

    assert isinstance(again, Book)
    assert again.batch.payload is None
    booking = stream.booking(again)
    assert [each.channel for each in booking.evidence] == [0]
    assert sent(stream.session.booked(booking, CommitOutcome.COMMITTED)).ack.committed_sequence == 1


def test_evidence_that_cannot_be_kept_ends_the_stream() -> None:
    """Without any way to keep a batch, the agent keeps it."""
    stream = Stream().open()
    action = stream.batch(1)[0]
    again = stream.session.booked(stream.booking(action), CommitOutcome.REJECTED)[0]

    assert "could not keep" in refusal(stream.session.booked(stream.booking(again), CommitOutcome.REJECTED)).message


def test_rejected_or_stale_hello() -> None:
    """A Hello is tried again where it was stale, and refused where it can't be kept."""
    stream = Stream()
    action = stream.say(hello=hello())[0]

    assert stream.session.opened(stream.opening, CommitOutcome.STALE) == [action]
    assert "database" in refusal(stream.session.opened(stream.opening, CommitOutcome.REJECTED)).message


def test_unknown_or_damaged_catalog_makes_evidence() -> None:
    """A batch that names no known catalog is kept with the reason; the stream goes on."""
    stream = Stream().open()
    action = stream.batch(1, catalog_hash=99)[0]
    assert isinstance(action, Book)
    assert "not sent on this stream" in action.batch.undecodable
    stream.session.booked(stream.booking(action), CommitOutcome.COMMITTED)

    damaged = catalog("cpu/1")
    damaged.catalog_hash = 77
    assert stream.say(catalog=damaged) == []
    action = stream.batch(2, catalog_hash=77)[0]
    assert isinstance(action, Book)
    assert "damaged" in action.batch.undecodable


def test_channel_number_is_never_used_again() -> None:
    """A catalog in which a number stands for another part is not believed."""
    stream = Stream().open()
    other = catalog("cpu/1")
    stream.say(catalog=other)

    action = stream.batch(1, catalog_hash=other.catalog_hash)[0]

    assert isinstance(action, Book)
    assert "channel 1 was cpu/0 package and is now cpu/1 package" in action.batch.undecodable


def test_catalogs_are_bounded() -> None:
    """A stream keeps so many catalogs and no more; a known one may come again."""
    stream = Stream().open()
    for number in range(1, CATALOGS_MAX):
        assert stream.say(catalog=pb.Catalog(catalog_hash=number)) == []
    assert stream.say(catalog=catalog()) == []

    assert "more than 256 catalogs" in refusal(stream.say(catalog=pb.Catalog(catalog_hash=9999))).message


def test_envelope_without_a_place_ends_the_stream() -> None:
    """What has no sequence can't be kept in its place."""
    assert "sequences 0 to 0" in refusal(Stream().open().say(batch=pb.Batch())).message


def test_live_values_are_shown() -> None:
    """Present values go to the fleet view, also while a batch is under way."""
    stream = Stream().open()
    stream.batch(1)
    live = pb.Live(spool_bytes=5)

    assert stream.say(live=live) == [ShowLive("a", live)]


def test_drain_lets_a_batch_end() -> None:
    """The agent is asked to connect again, and what is under way is still acknowledged."""
    stream = Stream().open()
    action = stream.batch(1)[0]

    assert sent(stream.session.drain()).drain.reconnect_delay_milliseconds_max > 0
    assert sent(stream.session.booked(stream.booking(action), CommitOutcome.COMMITTED)).ack.committed_sequence == 1


def test_closed_session_is_silent() -> None:
    """After the end nothing is answered, whatever still comes."""
    stream = Stream()
    refusal(stream.say(hello=pb.Hello()))

    assert stream.session.state is State.CLOSED
    assert stream.say(hello=hello()) == []
    assert stream.session.drain() == []
    assert stream.session.opened(stream.opening, CommitOutcome.COMMITTED) == []
    assert stream.session.booked(stream.opening, CommitOutcome.COMMITTED) == []
