"""One channel's energy of one batch, added up by interval and quality.

No clock; which increments may be booked at all was decided before.
"""

from wattledger_collector.intervals import split_pieces
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    ChannelInfo,
    EnergyRow,
    GapReason,
    GapRow,
    Method,
    Quality,
)

# A counter's increment over a longer span is exact, but how it spread over the span is assumed to be even. Agents sample
# every 1 to 60 seconds, so at 300 at least four samples in a row are missing; and 300 is a third of the usual interval, so
# that what is called exact is off by a third of an interval's energy at worst.
BRIDGED_SPAN_NANOSECONDS = 300 * NANOSECONDS_PER_SECOND

QUALITY = {Method.COUNTER: Quality.COUNTER, Method.INTEGRAL: Quality.INTEGRAL, Method.MODEL: Quality.MODEL}


class Tally:
    """One channel's rows of one batch while they are added up. left: gaps for what another epoch or an import has booked."""

    def __init__(self, info: ChannelInfo, interval_seconds: int) -> None:
        self.left: list[GapRow] = []
        self.booked_microjoules = 0
        self._info = info
        self._interval_seconds = interval_seconds
        self._sums: dict[tuple[int, Quality], tuple[int, int]] = {}

    def book(self, microjoules: int, pieces: list[tuple[int, int]], to_utc: int, *, is_covered: bool) -> None:
        """Add an increment that was metered over these pieces of time."""
        quality = QUALITY[self._info.method]
        if quality is Quality.COUNTER and sum(end - start for start, end in pieces) > BRIDGED_SPAN_NANOSECONDS:
            quality = Quality.BRIDGED
        for start, share, nanoseconds in split_pieces(microjoules, pieces, to_utc, self._interval_seconds):
            energy, covered = self._sums.get((start, quality), (0, 0))
            self._sums[start, quality] = (energy + share, covered + (nanoseconds if is_covered else 0))
        self.booked_microjoules += microjoules

    def leave(self, microjoules: int, from_utc: int, to_utc: int) -> None:
        """Do not book an increment that was or was not booked by another epoch, or by an import: [0, d] may be missing."""
        if not microjoules:
            return
        lower, upper, start = min(0, microjoules), max(0, microjoules), min(from_utc, to_utc)
        if self.left and self.left[-1].to_utc_nanoseconds == start:
            last = self.left.pop()
            start = last.from_utc_nanoseconds
            lower += last.lower_microjoules
            upper += last.upper_microjoules or 0
        self.left.append(GapRow(self._info.channel, start, to_utc, GapReason.OVERLAP, lower, upper))

    def rows(self) -> list[EnergyRow]:
        """The rows that say anything."""
        return [
            EnergyRow(self._info.channel, start, quality, energy, covered)
            for (start, quality), (energy, covered) in self._sums.items()
            if energy or covered
        ]


def without(holes: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """What is left of the half-open span (start, end] beside the holes."""
    pieces = [(start, end)]
    for hole_start, hole_end in holes:
        if hole_start < end and hole_end > start:
            pieces = [
                piece
                for left, right in pieces
                for piece in ((left, min(right, hole_start)), (max(left, hole_end), right))
                if piece[0] < piece[1]
            ]
    return pieces
