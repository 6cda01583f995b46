"""The agent's side of the stream as a machine of states: what was received goes in, what to send comes out.

No clock, no socket, no thread and no chance: time is monotonic seconds as an argument, chance a function given. One batch is
under way at a time and the collector's word on what it has committed is the only cursor, so that nothing is lost or doubled
whatever happens between. The source of truth for the messages is telemetry.proto.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from wattledger_agent.wire import opening
from wattledger_protos.v1 import telemetry_pb2 as pb

if TYPE_CHECKING:
    from wattledger_agent.counters import Instant

PROTOCOL_MINOR = 1

# A collector answers after its commit, which waits for others' and for the disk; a minute without is no commit at all.
ANSWER_SECONDS_MAX = 30.0

# Full jitter: a random delay up to base, twice the base and so on; the mean of the highest spreads 100,000 agents over a
# minute each. The first reconnect is random too, or all agents of a restarted collector would come in one second.
BACKOFF_SECONDS_BASE = 2.0
BACKOFF_SECONDS_MAX = 120.0

# A stream that lived so long without a batch was sound; the next failure starts from the base again.
SOUND_SECONDS = 30.0

# A collector's word on delays is followed within these.
RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 3600.0
DRAIN_SECONDS_MIN = 1.0  # A collector that drains each stream at once would be called again and again without a pause.
DRAIN_SECONDS_MAX = 600.0

# Rewinds in a row without one batch accepted: more is a misunderstanding that a new stream and its delay may end.
REWINDS_MAX = 8

# Safe limits of what a collector may set, in milliseconds.
FLUSH_MILLISECONDS_MIN, FLUSH_MILLISECONDS_MAX = 1_000, 600_000
LIVE_MILLISECONDS_MIN, LIVE_MILLISECONDS_MAX = 500, 600_000


class Stored(Protocol):
    """A spooled record, as the session sees it."""

    @property
    def first_sequence(self) -> int:
        """Its first sequence."""

    @property
    def last_sequence(self) -> int:
        """Its last sequence."""

    @property
    def payload(self) -> bytes:
        """A serialised Payload."""

    @property
    def catalog_hash(self) -> int:
        """Names the catalog of its channels."""

    @property
    def is_thinned(self) -> bool:
        """Whether its payload may have fewer samples than when it was first sent."""


class Outbox(Protocol):
    """What the session needs of the spool; see spool.Spool."""

    @property
    def epoch(self) -> bytes:
        """The epoch's id."""

    @property
    def epoch_opening(self) -> "Instant":
        """When the epoch began."""

    @property
    def oldest_sequence(self) -> int:
        """Lowest sequence held."""

    @property
    def next_sequence(self) -> int:
        """The sequence to come."""

    @property
    def acknowledged_sequence(self) -> int:
        """Highest sequence known as committed."""

    @property
    def recovered_sequence(self) -> int:
        """Highest sequence that was found when the spool was opened; 0 in an epoch begun since."""

    def find(self, sequence: int) -> Stored | None:
        """The record with the smallest last sequence that is `sequence` or more."""

    def catalog(self, catalog_hash: int) -> bytes | None:
        """A catalog, serialised."""

    def acknowledge(self, sequence: int) -> None:
        """All up to `sequence` is committed, and nothing above it is known to be."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks. boot_id: the boot that runs, 16 bytes. labels: at most 32, keys and values at most 256 characters."""

    host: str
    agent_version: str
    machine_id: str
    boot_id: bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    time_source: pb.TimeSource.ValueType = pb.TIME_SOURCE_CLOCK


@dataclass(frozen=True, slots=True)
class Settings:
    """What the collector sets for its fleet; None leaves the agent's own."""

    flush_seconds: float | None = None
    live_seconds: float | None = None


class State(Enum):
    """Where the stream stands."""

    WAITING = "waiting"  # No stream; one is wanted when the delay is over.
    GREETING = "greeting"  # Hello is sent, Welcome awaited.
    IDLE = "idle"  # All that is spooled is committed.
    IN_FLIGHT = "in_flight"  # A batch is sent, its Ack awaited.
    CLOSING = "closing"  # The stream is to be closed.


class AgentSession:
    """One agent's session, over all its streams.

    jitter: gives a random number in [0, 1). After each call the caller looks at `wants_disconnect`, `wants_new_epoch` and
    `deadline`, and sends what was returned, in order.
    """

    def __init__(self, outbox: Outbox, identity: Identity, jitter: Callable[[], float]) -> None:
        self._outbox = outbox
        self._identity = identity
        self._jitter = jitter
        self._epoch = outbox.epoch
        # Nothing above this was ever sent; more on the collector's side means that the disk went back in time.
        self._sent_sequence = outbox.recovered_sequence
        self._stale_epoch: bytes | None = None
        self._committed = 0
        self._in_flight: Stored | None = None
        self._catalogs: set[int] = set()
        self._delay_seconds: float | None = None  # Before the next stream, where it is not for the back-off to decide.
        self._draining = False
        self._rewinds = 0
        self._failures = 0
        self._connected_at = 0.0
        self._connect_at = 0.0  # The first stream of a process needs no delay: machines don't start at once.
        self._answer_by: float | None = None
        self.state = State.WAITING
        self.settings = Settings()
        self.durability: pb.Durability.ValueType = pb.DURABILITY_UNSPECIFIED
        self.refusal = ""
        self.reason = ""
        self.batches = self.rewinds = self.acks = 0

    @property
    def wants_disconnect(self) -> bool:
        """Whether the stream is to be closed; `reason` says why."""
        return self.state is State.CLOSING

    @property
    def is_draining(self) -> bool:
        """Whether the stream ends, or ended, in good order."""
        return self._draining

    @property
    def wants_new_epoch(self) -> bool:
        """Whether the spool must be renewed before the session goes on: the collector has more than was ever sent."""
        return self._stale_epoch is not None and self._stale_epoch == self._outbox.epoch

    def wants_connection(self, now: float) -> bool:
        """Whether a stream should be opened now."""
        return self.state is State.WAITING and now >= self._connect_at and not self.wants_new_epoch

    def deadline(self) -> float | None:
        """When `tick` or `wants_connection` should be asked next, if nothing happens before; None: never."""
        if self.state is State.WAITING:
            return None if self.wants_new_epoch else self._connect_at
        return self._answer_by

    def connected(self, now: float, clock: pb.ClockPair) -> list[pb.AgentMessage]:
        """A stream is open. clock: the present on the host's clocks."""
        if self._outbox.epoch != self._epoch:
            self._epoch, self._sent_sequence = self._outbox.epoch, self._outbox.recovered_sequence
        self._stale_epoch = None
        self._catalogs.clear()
        self._in_flight = None
        self._delay_seconds, self._draining = None, False
        self._rewinds = 0
        self._connected_at = now
        self._answer_by = now + ANSWER_SECONDS_MAX
        self.state = State.GREETING
        self.reason = ""
        return [pb.AgentMessage(hello=self._hello(clock))]

    def received(self, message: pb.CollectorMessage, now: float) -> list[pb.AgentMessage]:
        """A message came from the collector. Unknown ones are ignored; senseless ones close the stream."""
        if self.state in (State.WAITING, State.CLOSING):
            return []
        kind = message.WhichOneof("message")
        if kind == "welcome":
            return self._welcomed(message.welcome, now)
        if kind == "ack":
            return self._acknowledged(message.ack.committed_sequence, now)
        if kind == "settings":
            self._set(message.settings)
        elif kind == "drain":
            asked = message.drain.reconnect_delay_milliseconds_max / 1000
            self._drain(min(max(asked, DRAIN_SECONDS_MIN), DRAIN_SECONDS_MAX))
        elif kind == "refusal":
            self._refused(message.refusal)
        return []

    def appended(self, now: float) -> list[pb.AgentMessage]:
        """The spool has a new record."""
        return self._send_next(now) if self.state is State.IDLE else []

    def live(self, live: pb.Live, now: float) -> list[pb.AgentMessage]:
        """Present values, sent between batches; dropped while no stream is ready."""
        ready = self.state in (State.IDLE, State.IN_FLIGHT)
        return [pb.AgentMessage(live=live)] if ready else []

    def tick(self, now: float) -> list[pb.AgentMessage]:
        """Time has passed."""
        if self._answer_by is not None and now >= self._answer_by and self.state in (State.GREETING, State.IN_FLIGHT):
            awaited = "Hello" if self.state is State.GREETING else "a batch"
            self._close(f"the collector did not answer {awaited} within {ANSWER_SECONDS_MAX:.0f} s")
        return []

    def reconnect(self) -> None:
        """Close the stream when the batch under way is answered, and open another at once: its certificates changed."""
        if self.state is not State.WAITING:
            self._drain(0.0)

    def abort(self, reason: str) -> None:
        """Close the stream: what the session needs of this host failed."""
        if self.state is not State.WAITING:
            self._close(reason)

    def disconnected(self, now: float) -> None:
        """The stream ended, or could not be opened."""
        if self.state in (State.IDLE, State.IN_FLIGHT, State.CLOSING) and now - self._connected_at >= SOUND_SECONDS:
            self._failures = 0
        delay, self._delay_seconds = self._delay_seconds, None
        self._connect_at = now + (self._backoff() if delay is None else delay)
        self.state = State.WAITING
        self._in_flight = None
        self._answer_by = None

    def _hello(self, clock: pb.ClockPair) -> pb.Hello:
        identity, outbox = self._identity, self._outbox
        return pb.Hello(
            protocol_minor=PROTOCOL_MINOR,
            agent_version=identity.agent_version,
            host=identity.host,
            machine_id=identity.machine_id,
            epoch=self._epoch,
            epoch_opening=opening(outbox.epoch_opening),
            boot_id=identity.boot_id,
            oldest_retained_sequence=outbox.oldest_sequence,
            next_sequence=outbox.next_sequence,
            acknowledged_sequence=outbox.acknowledged_sequence,
            labels=dict(identity.labels),
            time_source=identity.time_source,
            clock=clock,
        )

    def _welcomed(self, welcome: pb.Welcome, now: float) -> list[pb.AgentMessage]:
        """Go on after what the collector has committed, at the start of a stream or, as a rewind, within it."""
        committed = welcome.committed_sequence
        if self.state is not State.GREETING:
            self.rewinds += 1
            self._rewinds += 1
            if self._rewinds > REWINDS_MAX:
                self._close(f"the collector asked {self._rewinds} times for sequence {committed + 1} and took no batch")
                return []
        if committed > self._sent_sequence:
            self._begin_anew(f"has sequence {committed}, but only {self._sent_sequence} were ever sent from this spool")
            return []
        if self._is_forked(committed, welcome.committed_checksum):
            self._begin_anew(f"has another record than this spool at sequence {committed}")
            return []
        self._set(welcome.settings)
        self.durability = welcome.durability
        self.refusal = ""
        self._committed = committed
        self._outbox.acknowledge(committed)
        return self._settled(now)

    def _is_forked(self, committed: int, checksum: int) -> bool:
        """Whether the spool was copied back from an older disk and has since gone on by itself past what is committed.

        The checksum of a record that was thinned after it was sent says nothing.
        """
        if not committed or not checksum:
            return False
        record = self._outbox.find(committed)
        if record is None or record.is_thinned or not record.first_sequence == record.last_sequence == committed:
            return False
        return zlib.crc32(record.payload) != checksum

    def _begin_anew(self, what: str) -> None:
        """The disk went back in time: nothing more of this epoch can be told from what the collector holds."""
        self._stale_epoch, self._delay_seconds = self._epoch, 0.0
        self._close(f"the collector {what}")

    def _acknowledged(self, committed: int, now: float) -> list[pb.AgentMessage]:
        if self._in_flight is None or committed < self._in_flight.last_sequence:
            return []  # Of an earlier batch, repeated.
        if committed > self._sent_sequence:
            self._close(f"the collector acknowledged sequence {committed}, but only {self._sent_sequence} were sent")
            return []
        self.acks += 1
        self._failures = self._rewinds = 0
        self._committed = committed
        self._outbox.acknowledge(committed)
        return self._settled(now)

    def _settled(self, now: float) -> list[pb.AgentMessage]:
        """Nothing is under way: end the stream if it drains, else go on."""
        self._in_flight = None
        self._answer_by = None
        self.state = State.IDLE
        if self._draining:
            self._close("the stream was drained")
            return []
        return self._send_next(now)

    def _send_next(self, now: float) -> list[pb.AgentMessage]:
        record = self._outbox.find(self._committed + 1)
        if record is None:
            return []
        messages = self._unsent_catalog(record.catalog_hash)
        batch = pb.Batch(
            # Where records between were lost, the envelope spans them: their energy is in this one's cumulative values.
            first_sequence=min(record.first_sequence, self._committed + 1),
            last_sequence=record.last_sequence,
            checksum=zlib.crc32(record.payload),
            payload=record.payload,
        )
        messages.append(pb.AgentMessage(batch=batch))
        self._in_flight = record
        self._sent_sequence = max(self._sent_sequence, record.last_sequence)
        self._answer_by = now + ANSWER_SECONDS_MAX
        self.state = State.IN_FLIGHT
        self.batches += 1
        return messages

    def _unsent_catalog(self, catalog_hash: int) -> list[pb.AgentMessage]:
        if catalog_hash in self._catalogs:
            return []
        catalog = self._outbox.catalog(catalog_hash)
        if catalog is None:
            return []  # Lost to damage; the collector may have it from an earlier stream.
        self._catalogs.add(catalog_hash)
        return [pb.AgentMessage(catalog=pb.Catalog.FromString(catalog))]

    def _set(self, settings: pb.Settings) -> None:
        flush, live = settings.flush_milliseconds, settings.live_milliseconds
        self.settings = Settings(
            min(max(flush, FLUSH_MILLISECONDS_MIN), FLUSH_MILLISECONDS_MAX) / 1000 if flush else None,
            min(max(live, LIVE_MILLISECONDS_MIN), LIVE_MILLISECONDS_MAX) / 1000 if live else None,
        )

    def _drain(self, seconds_max: float) -> None:
        self._draining = True
        self._delay_seconds = self._jitter() * seconds_max
        if self.state is not State.IN_FLIGHT:
            self._close("the stream was drained")

    def _refused(self, refusal: pb.Refusal) -> None:
        self.refusal = refusal.message or f"reason {refusal.reason}"
        asked = min(max(refusal.retry_milliseconds / 1000, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
        self._delay_seconds = asked + self._backoff()
        self._close(f"the collector refused the stream: {self.refusal}")

    def _backoff(self) -> float:
        ceiling = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_BASE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._jitter() * ceiling

    def _close(self, reason: str) -> None:
        self.reason = reason
        self._answer_by = None
        self.state = State.CLOSING
