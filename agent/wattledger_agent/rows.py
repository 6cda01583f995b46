"""Keeps the rows that wait for a record: their times, the places of their values in masks, the details of their gaps.

Reckons no energy. What waits is bounded: where nothing is cut for long, rows are thinned to each channel's last value, since
energy is cumulative and nothing but times is lost by that.
"""

from collections.abc import Iterable, Sequence

from wattledger_agent.channels import Channel
from wattledger_agent.counters import GapDetail, Instant, is_suspended

# Values that wait for a cut. At 10 bytes at most each, with columns and details they stay below a payload's mebibyte.
PENDING_VALUES_MAX = 65_536

# Details of gaps in one payload, at 64 bytes at most; the sums in the columns hold the gaps of all the others.
GAP_DETAILS_MAX = 1024


class Rows:
    """The rows since the last cut; boot_id and boottime are those of the last row ever, that of a saved state included.

    times: their boottimes in nanoseconds. details: gaps by channel number. last: the last row of this run, None before it.
    serial: of the last row; 0 before the first. settled_nanoseconds: since when the host has run without an interruption.
    thinned: rows whose times were lost since the start.
    """

    def __init__(self, boot_id: bytes, boottime_nanoseconds: int) -> None:
        self.boot_id = boot_id
        self.boottime_nanoseconds = boottime_nanoseconds
        self.times: list[int] = []
        self.details: list[tuple[int, GapDetail]] = []
        self.last: Instant | None = None
        self.serial = 0
        self.settled_nanoseconds = 0
        self.thinned = 0

    def is_past(self, now: Instant) -> bool:
        """Say whether a row of this time would be ignored: it is not after the last one of its boot."""
        return now.boot_id == self.boot_id and now.boottime_nanoseconds <= self.boottime_nanoseconds

    def begin(self, now: Instant, channels: Sequence[Channel], open_count: int) -> int:
        """Add a row, and return its bit in masks. channels: all of the epoch; open_count: how many may have a value."""
        if self.times and now.boot_id != self.boot_id:
            # A payload is of one boot. The sums go on; only the times of these rows are lost.
            self.thinned += len(self.times)
            self.forget(channels)
        elif len(self.times) * open_count >= PENDING_VALUES_MAX:
            self._thin(channels)
        self.serial += 1
        if self.last is None or self.last.boot_id != now.boot_id or is_suspended(self.last, now):
            self.settled_nanoseconds = now.boottime_nanoseconds
        self.last = now
        self.boot_id, self.boottime_nanoseconds = now.boot_id, now.boottime_nanoseconds
        self.times.append(now.boottime_nanoseconds)
        return 1 << (len(self.times) - 1)

    def drop_last(self) -> None:
        """Take the last row back: nothing was read in it."""
        self.times.pop()

    def note(self, number: int, gaps: Iterable[GapDetail]) -> None:
        """Keep the details of gaps of a channel, as long as there is room."""
        for gap in gaps:
            if len(self.details) < GAP_DETAILS_MAX:
                self.details.append((number, gap))

    def forget(self, channels: Iterable[Channel]) -> None:
        """Let go of all rows, and of the values of these channels in them."""
        self.times = []
        self.details = []
        for channel in channels:
            if channel.values:
                channel.values = []
                channel.mask = 0

    def _thin(self, channels: Iterable[Channel]) -> None:
        """Keep only each channel's last value."""
        valued = [channel for channel in channels if channel.values]
        kept = sorted({channel.mask.bit_length() - 1 for channel in valued})
        place = {row: index for index, row in enumerate(kept)}
        for channel in valued:
            channel.mask = 1 << place[channel.mask.bit_length() - 1]
            channel.values = channel.values[-1:]
        self.thinned += len(self.times) - len(kept)
        self.times = [self.times[row] for row in kept]
