"""Energy over time, cut at the ledger's interval edges, exact in integers.

No clock; nothing here knows of channels or cursors.
"""


def split(
    energy_microjoules: int, from_utc_nanoseconds: int, to_utc_nanoseconds: int, interval_seconds: int
) -> list[tuple[int, int, int]]:
    """Spread energy evenly over the half-open span (from, to] and cut it at the edges of the intervals.

    Returns (interval_start_seconds, microjoules, covered_nanoseconds) for each interval met, in order. The sum is exact; an
    edge's fraction of a microjoule goes to the later interval. An empty or negative span gives all to the interval of `to`.
    """
    raise NotImplementedError
