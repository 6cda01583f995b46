"""Energy over time, cut at the ledger's interval edges, exact in integers.

No clock; nothing here knows of channels or cursors.
"""

from collections.abc import Sequence

from wattledger_collector.records import NANOSECONDS_PER_SECOND

# A year of quarters of an hour. A longer span is a wrong clock or a host that slept for years; its energy all goes to the
# later end instead of into rows without end.
INTERVALS_PER_SPAN_MAX = 366 * 96


def interval_of(utc_nanoseconds: int, interval_seconds: int) -> int:
    """Number of the interval that contains the instants just before this time, as energy is of the span (from, to]."""
    return (utc_nanoseconds - 1) // (interval_seconds * NANOSECONDS_PER_SECOND)


def split(
    energy_microjoules: int, from_utc_nanoseconds: int, to_utc_nanoseconds: int, interval_seconds: int
) -> list[tuple[int, int, int]]:
    """Spread energy evenly over the half-open span (from, to] and cut it at the edges of the intervals.

    Returns (interval_start_seconds, microjoules, covered_nanoseconds) for each interval met, in order. The sum is exact; an
    edge's fraction of a microjoule goes to the later interval. An empty or negative span gives all to the interval of `to`.
    """
    return split_pieces(
        energy_microjoules, [(from_utc_nanoseconds, to_utc_nanoseconds)], to_utc_nanoseconds, interval_seconds
    )


def split_pieces(
    energy_microjoules: int, pieces: Sequence[tuple[int, int]], to_utc_nanoseconds: int, interval_seconds: int
) -> list[tuple[int, int, int]]:
    """As `split`, over several half-open spans in rising order: what lies between them has no share.

    Without a piece of positive length all goes to the interval of `to`.
    """
    width = interval_seconds * NANOSECONDS_PER_SECOND
    pieces = [piece for piece in pieces if piece[1] > piece[0]]
    last = interval_of(to_utc_nanoseconds, interval_seconds)
    total = sum(to - start for start, to in pieces)
    if not pieces or pieces[-1][1] // width - pieces[0][0] // width > INTERVALS_PER_SPAN_MAX:
        return [(last * interval_seconds, energy_microjoules, 0)]
    rows: list[tuple[int, int, int]] = []
    done_microjoules = done_nanoseconds = 0
    for start, to in pieces:
        while start < to:
            edge = min(to, (start // width + 1) * width)
            done_nanoseconds += edge - start
            # Towards zero for either sign, so that a residual is cut exactly as the leaves it is made of.
            share = abs(energy_microjoules) * done_nanoseconds // total
            share = share if energy_microjoules >= 0 else -share
            _add(rows, start // width * interval_seconds, share - done_microjoules, edge - start)
            done_microjoules = share
            start = edge
    return rows


def _add(rows: list[tuple[int, int, int]], interval_start_seconds: int, microjoules: int, nanoseconds: int) -> None:
    """Add to the last row where two pieces meet in one interval."""
    if rows and rows[-1][0] == interval_start_seconds:
        _, before_microjoules, before_nanoseconds = rows.pop()
        microjoules += before_microjoules
        nanoseconds += before_nanoseconds
    rows.append((interval_start_seconds, microjoules, nanoseconds))
