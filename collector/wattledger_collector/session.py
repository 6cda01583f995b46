"""The collector's half of the protocol, sans IO: messages in, actions out.

No sockets, no clock, no store: the server does what the actions say and tells what became of it. One session per stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wattledger_collector.hello import Refused
from wattledger_collector.records import Booking, ChannelInfo, CommitOutcome
from wattledger_collector.wire import CheckedBatch, CheckedHello
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


Action = Send | OpenStream | Book | ShowLive | Close


class CollectorSession:
    """One agent's stream. Every method returns what the server must do now, in order.

    peer_hosts: the host ids in the peer's certificate; None where the connection is plain (then Hello is believed).
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
        raise NotImplementedError

    @property
    def host(self) -> str | None:
        """The host, once its Hello was accepted."""
        raise NotImplementedError

    def received(self, message: pb.AgentMessage, now_utc_nanoseconds: int) -> list[Action]:
        """A message came."""
        raise NotImplementedError

    def opened(self, result: Booking | Refused, outcome: CommitOutcome) -> list[Action]:
        """OpenStream was done. outcome: that of the booking (COMMITTED for a Refused without one)."""
        raise NotImplementedError

    def booked(self, booking: Booking, outcome: CommitOutcome) -> list[Action]:
        """Book was done."""
        raise NotImplementedError

    def drain(self) -> list[Action]:
        """The collector is about to stop."""
        raise NotImplementedError
