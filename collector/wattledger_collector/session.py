"""The collector's half of the protocol, sans IO: messages in, actions out.

No sockets, no clock, no store: the server does what the actions say and tells what became of it. One session per stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from wattledger_collector.hello import Refused
from wattledger_collector.records import Booking, ChannelInfo, CommitOutcome, Cursor
from wattledger_collector.wire import (
    PROTOCOL_MINOR,
    CheckedBatch,
    CheckedCatalog,
    CheckedHello,
    WireError,
    check_batch,
    check_catalog,
    check_hello,
    check_live,
)
from wattledger_protos.v1 import telemetry_pb2 as pb


@dataclass(frozen=True, slots=True)
class Send:
    """Send this to the agent."""

    message: pb.CollectorMessage


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Load the host's rows, call ledger.open_stream, commit, and answer with `opened`.

    received_utc_nanoseconds: when the Hello came; it is `now_utc_nanoseconds` of open_stream, also on a later attempt.
    """

    hello: CheckedHello
    received_utc_nanoseconds: int


@dataclass(frozen=True, slots=True)
class Book:
    """Load the rows of (host, epoch), call ledger.book, commit, and answer with `booked`."""

    host: str
    epoch: bytes
    batch: CheckedBatch
    channels: Mapping[int, ChannelInfo]
    new_channels: tuple[ChannelInfo, ...]


@dataclass(frozen=True, slots=True)
class ShowLive:
    """Hand present values to the fleet view; they are never booked."""

    host: str
    live: pb.Live


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream after what was sent before. reason: for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A catalog that could not be believed: what names it is kept as evidence."""

    reason: str


Action = Send | OpenStream | Book | ShowLive | Close


# A rewinding agent sends each catalog again, and a catalog changes when a channel is added or closed: a handful a year.
CATALOGS_MAX = 256

# Another collector may book for the same host between our read and our commit; it can't do so for long without an agent.
STALE_ATTEMPTS_MAX = 8


class State(Enum):
    """Where a stream stands."""

    NEW = "new"  # No Hello yet.
    OPENING = "opening"  # The Hello is being committed.
    READY = "ready"
    BOOKING = "booking"  # One batch is being committed.
    CLOSED = "closed"


class CollectorSession:
    """One agent's stream. Every method returns what the server must do now, in order.

    peer_hosts: the host ids in the peer's certificate; None where the connection is plain (then Hello is believed).
    settings, durability: handed on in Welcome. retry_milliseconds: handed on in each Refusal, and
    reconnect_delay_milliseconds_max in Drain.
    """

    def __init__(
        self,
        *,
        peer_hosts: frozenset[str] | None,
        settings: pb.Settings,
        durability: "pb.Durability.ValueType",
        retry_milliseconds: int = 60_000,
        reconnect_delay_milliseconds_max: int = 30_000,
    ) -> None:
        self.state = State.NEW
        self._peer_hosts = peer_hosts
        self._settings = settings
        self._durability = durability
        self._retry_milliseconds = retry_milliseconds
        self._reconnect_delay_milliseconds_max = reconnect_delay_milliseconds_max
        self._now_utc_nanoseconds = 0
        self._opening: OpenStream | None = None
        self._booking: Book | None = None
        self._attempts = 0
        self._is_welcome = False
        self._committed_sequence = 0
        self._committed_checksum = 0
        self._catalogs: dict[int, CheckedCatalog | _Unknown] = {}
        self._identities: dict[int, tuple[object, ...]] = {}
        self._stored: dict[int, ChannelInfo] = {}

    @property
    def host(self) -> str | None:
        """The host, once its Hello was accepted."""
        return self._opening.hello.host if self._opening is not None and self._is_welcome else None

    def received(self, message: pb.AgentMessage, now_utc_nanoseconds: int) -> list[Action]:
        """A message came."""
        self._now_utc_nanoseconds = now_utc_nanoseconds
        if self.state is State.CLOSED:
            return []
        kind = message.WhichOneof("message")
        try:
            if kind == "hello":
                return self._hello(message.hello)
            if kind is None:
                return []  # A message that a newer agent knows alone.
            if kind == "live" and self.state is State.OPENING:
                return []  # Present values need no Welcome, but the host is not known to be served yet.
            if self.state in (State.NEW, State.OPENING):
                raise WireError(f"{kind} came before the Welcome: send Hello first, and wait for its answer")
            if kind == "catalog":
                return self._catalog(message.catalog)
            if kind == "batch":
                return self._batch(check_batch(message.batch))
            check_live(message.live)
        except WireError as error:
            return self._refuse(error.refusal, error.reason)
        return [ShowLive(self._opened.hello.host, message.live)]

    def undecodable(self) -> list[Action]:
        """What came is no AgentMessage."""
        if self.state is State.CLOSED:
            return []
        return self._refuse(
            pb.REFUSAL_REASON_MALFORMED,
            "what came is no message of Wattledger's: connect agents to this port, and nothing else",
        )

    def opened(self, result: Booking | Refused, outcome: CommitOutcome) -> list[Action]:
        """OpenStream was done. outcome: that of the booking (COMMITTED for a Refused without one)."""
        if self.state is not State.OPENING:
            return []
        if outcome is CommitOutcome.STALE:
            return self._again(self._opened)
        if isinstance(result, Refused):
            return self._refuse(result.reason, result.message)
        if outcome is CommitOutcome.REJECTED:
            return self._refuse(
                pb.REFUSAL_REASON_MALFORMED, "the database could not keep this Hello: see the collector's log"
            )
        self.state = State.READY
        self._attempts = 0
        self._is_welcome = True
        return [self._welcome(result.cursor_after)]

    def booked(self, booking: Booking, outcome: CommitOutcome) -> list[Action]:
        """Book was done.

        Where the booking was stale it is computed anew from the rows as they are now: what was committed meanwhile, here or
        by another collector, then makes it a repetition or shows that the agent must rewind.
        """
        work = self._booking
        if self.state is not State.BOOKING or work is None:
            return []
        if outcome is CommitOutcome.STALE:
            return self._again(work)
        if outcome is CommitOutcome.REJECTED:
            return self._set_aside(work)
        self._attempts = 0
        self._booking = None
        self.state = State.READY
        committed = booking.cursor_after.committed_sequence
        if committed < work.batch.last_sequence:
            return [self._welcome(booking.cursor_after)]
        self._stored.update((info.channel, info) for info in booking.channels)
        self._committed_sequence, self._committed_checksum = committed, booking.cursor_after.committed_checksum
        return [self._ack()]

    def drain(self) -> list[Action]:
        """The collector is about to stop: a batch under way is still answered."""
        if self.state is State.CLOSED:
            return []
        drain = pb.Drain(reconnect_delay_milliseconds_max=self._reconnect_delay_milliseconds_max)
        return [Send(pb.CollectorMessage(drain=drain))]

    @property
    def _opened(self) -> OpenStream:
        assert self._opening is not None
        return self._opening

    def _hello(self, message: pb.Hello) -> list[Action]:
        if self.state is not State.NEW:
            raise WireError("a second Hello came on one stream: open a new stream instead")
        hello = check_hello(self._named(message))
        if self._peer_hosts is not None and hello.host not in self._peer_hosts:
            names = ", ".join(sorted(self._peer_hosts)) or "no host"
            raise WireError(
                f"Hello says host {hello.host}, but the certificate names {names}: set `host` to the certificate's name, or "
                "give the agent its own certificate",
                pb.REFUSAL_REASON_IDENTITY,
            )
        self.state = State.OPENING
        self._opening = OpenStream(hello, self._now_utc_nanoseconds)
        return [self._opening]

    def _named(self, message: pb.Hello) -> pb.Hello:
        """The Hello; of an agent that leaves its name to its certificate, with that name. Raises WireError."""
        if message.host or self._peer_hosts is None:
            return message
        if len(self._peer_hosts) != 1:
            names = ", ".join(sorted(self._peer_hosts))
            raise WireError(
                f"Hello names no host, and the certificate names several ({names}): set `host` to one of them"
                if names
                else "Hello names no host, and neither does the certificate: give the agent one with the URI "
                "wattledger://host/<id>, or a DNS name, among its subject alternative names",
                pb.REFUSAL_REASON_IDENTITY,
            )
        named = pb.Hello(host=next(iter(self._peer_hosts)))
        named.MergeFrom(message)
        return named

    def _catalog(self, message: pb.Catalog) -> list[Action]:
        """Keep a catalog. A wrong one does not end the stream, as the agent would only send it again."""
        if len(self._catalogs) >= CATALOGS_MAX and message.catalog_hash not in self._catalogs:
            raise WireError(f"the stream has sent more than {CATALOGS_MAX} catalogs: connect again")
        try:
            catalog = check_catalog(message)
            self._check_identities(catalog)
        except WireError as error:
            self._catalogs.setdefault(message.catalog_hash, _Unknown(error.reason))
        else:
            self._catalogs[catalog.catalog_hash] = catalog
        return []

    def _check_identities(self, catalog: CheckedCatalog) -> None:
        """A channel's number stands for one flow for as long as the epoch lasts. Raises WireError."""
        for info in catalog.channels.values():
            before = self._identities.setdefault(info.channel, _identity(info))
            if before != _identity(info):
                raise WireError(f"channel {info.channel} was {before[0]} {before[1]} and is now {info.device} {info.domain}")

    def _batch(self, batch: CheckedBatch) -> list[Action]:
        if self.state is State.BOOKING:
            raise WireError(f"batch {batch.first_sequence} came before the Ack of the one before: send one at a time")
        if batch.last_sequence <= self._committed_sequence:
            return [self._ack()]
        if batch.first_sequence > self._committed_sequence + 1:
            return [self._rewind()]
        channels: Mapping[int, ChannelInfo] = {}
        if batch.payload is not None:
            catalog = self._catalogs.get(batch.payload.catalog_hash, _Unknown("it was not sent on this stream"))
            if isinstance(catalog, _Unknown):
                reason = f"catalog {batch.payload.catalog_hash:016x} is not known: {catalog.reason}"
                batch = replace(batch, payload=None, undecodable=reason)
            else:
                channels = catalog.channels
        stored = self._stored
        new_channels = tuple(
            info for info in channels.values() if (known := stored.get(info.channel)) is not info and known != info
        )
        hello = self._opened.hello
        self.state = State.BOOKING
        self._booking = Book(hello.host, hello.epoch, batch, channels, new_channels)
        return [self._booking]

    def _again(self, work: OpenStream | Book) -> list[Action]:
        self._attempts += 1
        if self._attempts < STALE_ATTEMPTS_MAX:
            return [work]
        return self._close(f"the rows of {self._opened.hello.host} changed {self._attempts} times under our commits")

    def _set_aside(self, work: Book) -> list[Action]:
        """The database can't keep what a batch says: keep the batch as evidence instead, and let the next one bridge it."""
        if work.batch.payload is None:
            return self._refuse(pb.REFUSAL_REASON_MALFORMED, "the database could not keep a batch: see the collector's log")
        batch = replace(work.batch, payload=None, undecodable="the database could not keep its rows")
        self._booking = replace(work, batch=batch, new_channels=())
        return [self._booking]

    def _welcome(self, cursor: Cursor) -> Send:
        self._committed_sequence, self._committed_checksum = cursor.committed_sequence, cursor.committed_checksum
        return self._rewind()

    def _rewind(self) -> Send:
        welcome = pb.Welcome(
            protocol_minor=PROTOCOL_MINOR,
            committed_sequence=self._committed_sequence,
            server_realtime_nanoseconds=self._now_utc_nanoseconds,
            settings=self._settings,
            durability=self._durability,
            committed_checksum=self._committed_checksum,
        )
        return Send(pb.CollectorMessage(welcome=welcome))

    def _ack(self) -> Send:
        return Send(pb.CollectorMessage(ack=pb.Ack(committed_sequence=self._committed_sequence)))

    def _refuse(self, reason: "pb.RefusalReason.ValueType", message: str) -> list[Action]:
        refusal = pb.Refusal(reason=reason, message=message, retry_milliseconds=self._retry_milliseconds)
        return [Send(pb.CollectorMessage(refusal=refusal)), *self._close(message)]

    def _close(self, reason: str) -> list[Action]:
        self.state = State.CLOSED
        return [Close(reason)]


def _identity(info: ChannelInfo) -> tuple[object, ...]:
    """What never changes of a channel."""
    return (
        info.device,
        info.domain,
        info.source,
        info.component,
        info.method,
        info.role,
        info.opening_boot_id,
        info.opening_boottime_nanoseconds,
    )
