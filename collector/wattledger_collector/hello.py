"""What a Hello changes in the ledger: hosts, epochs, boots and their clocks are registered, or the agent is refused.

Nothing is booked here but the gap before a new epoch. No clock, no store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wattledger_collector.records import Booking, ChannelInfo, Cursor, Host
from wattledger_collector.wire import CheckedHello
from wattledger_protos.v1 import telemetry_pb2 as pb


@dataclass(frozen=True, slots=True)
class Refused:
    """A Hello that is not served. message: one sentence with the remedy.

    booking: what is to be committed all the same (a conflict that people must see), or None.
    """

    reason: "pb.RefusalReason.ValueType"
    message: str
    booking: Booking | None = None


def open_stream(
    hello: CheckedHello,
    host: Host | None,
    cursor: Cursor | None,
    peers: Sequence[Cursor],
    *,
    now_utc_nanoseconds: int,
    collector: str,
    peer_channels: Mapping[bytes, Mapping[int, ChannelInfo]] | None = None,
) -> Booking | Refused:
    """Register what a Hello says, or refuse it.

    host, cursor: as stored, None if never seen. peers: cursors of the host's other epochs; peer_channels: their catalogs by
    epoch, read for a new epoch only (cursor None): without them the gap before the epoch has no upper bound.
    now_utc_nanoseconds: the collector's time when the Hello came. A gap before a new epoch has channel 0: the whole host.
    """
    raise NotImplementedError
