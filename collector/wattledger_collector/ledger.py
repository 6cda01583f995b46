"""The ledger's arithmetic: a batch and the cursor it meets become rows, each joule in one of them.

No clock, no store, no network: values in, a Booking out. Energy is booked from the cursor's own point of each channel.
"""

from collections.abc import Mapping, Sequence

from wattledger_collector.hello import Refused, open_stream
from wattledger_collector.intervals import split
from wattledger_collector.records import Booking, ChannelInfo, Cursor, Host
from wattledger_collector.wire import CheckedBatch

__all__ = ["Refused", "book", "open_stream", "split"]


def book(
    batch: CheckedBatch,
    host: Host,
    cursor: Cursor,
    channels: Mapping[int, ChannelInfo],
    *,
    interval_seconds: int,
    collector: str,
    new_channels: Sequence[ChannelInfo] = (),
) -> Booking:
    """Book a batch; never raises for its content.

    A batch that is not next (repeated, or first_sequence > committed_sequence + 1) changes nothing: cursor_after and
    host_after of the Booking are then cursor and host themselves.
    """
    raise NotImplementedError
