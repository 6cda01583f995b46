"""What a channel may have missed: the difference of its running sums becomes gap rows, with reasons where they add up.

No clock, no store. The sums are what is booked; details only explain them, so that a lost detail loses no gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wattledger_collector.records import ENERGY_MICROJOULES_LIMIT, ChannelPoint, GapReason, GapRow
from wattledger_protos.v1 import telemetry_pb2 as pb

REASONS: dict[int, GapReason] = {
    pb.GAP_REASON_NOT_MEASURED: GapReason.NOT_MEASURED,
    pb.GAP_REASON_WRAP_AMBIGUOUS: GapReason.WRAP_AMBIGUOUS,
    pb.GAP_REASON_RESET: GapReason.RESET,
    pb.GAP_REASON_REBOOT: GapReason.REBOOT,
    pb.GAP_REASON_SUSPEND: GapReason.SUSPEND,
    pb.GAP_REASON_MISSING_IN_RECORDING: GapReason.MISSING_IN_RECORDING,
    pb.GAP_REASON_IMPLAUSIBLE: GapReason.IMPLAUSIBLE,
}


@dataclass(frozen=True, slots=True)
class GapSums:
    """A channel's running gap bounds at the end of a payload; microjoules, and how many gaps had no upper bound."""

    lower_microjoules: int
    upper_microjoules: int
    unbounded_count: int

    @staticmethod
    def of(column: pb.Column) -> "GapSums":
        """The sums of a column, each brought into the range that can be kept."""
        return GapSums(
            clamped(column.gap_lower_microjoules), clamped(column.gap_upper_microjoules), column.gap_unbounded_count
        )


@dataclass(frozen=True, slots=True)
class BookedGaps:
    """Rows whose bounds add up to the difference of the sums. is_complete: the details beside them explain all of it."""

    rows: tuple[GapRow, ...]
    is_complete: bool


def clamped(microjoules: int) -> int:
    """The value, or the nearest one that may be kept: differences of two then fit a signed 64-bit column."""
    limit = ENERGY_MICROJOULES_LIMIT - 1
    return max(-limit, min(limit, microjoules))


def details_by_channel(payload: pb.Payload) -> dict[int, list[pb.GapDetail]]:
    """The payload's gap details, by channel."""
    details: dict[int, list[pb.GapDetail]] = {}
    for detail in payload.gap_details:
        details.setdefault(detail.channel, []).append(detail)
    return details


def detail_row(detail: pb.GapDetail, from_utc_nanoseconds: int, to_utc_nanoseconds: int) -> GapRow:
    """A detail as a row, with its ends in UTC. A reason that a newer agent knows alone stays unreported."""
    return GapRow(
        detail.channel,
        min(from_utc_nanoseconds, to_utc_nanoseconds),
        to_utc_nanoseconds,
        REASONS.get(detail.reason, GapReason.UNREPORTED),
        clamped(detail.lower_microjoules),
        None if detail.unbounded else clamped(detail.upper_microjoules),
    )


def booked_gaps(
    channel: int, point: ChannelPoint, sums: GapSums, details: Sequence[GapRow], end_utc_nanoseconds: int
) -> BookedGaps:
    """Rows for the difference between the cursor's sums and the payload's.

    Details are kept where what they leave of the difference is a possible gap by itself; the rest, or all, is unreported,
    from the cursor's point to the payload's end.
    """
    lower = sums.lower_microjoules - point.gap_lower_microjoules
    upper = sums.upper_microjoules - point.gap_upper_microjoules
    unbounded = sums.unbounded_count - point.gap_unbounded_count
    rest_lower = lower - sum(row.lower_microjoules for row in details)
    rest_upper = upper - sum(row.upper_microjoules or 0 for row in details)
    rest_unbounded = unbounded - sum(row.upper_microjoules is None for row in details)
    if rest_unbounded < 0 or (rest_unbounded == 0 and rest_lower > rest_upper):
        details, rest_lower, rest_upper, rest_unbounded = (), lower, upper, unbounded
    if not (rest_lower or rest_upper or rest_unbounded):
        return BookedGaps(tuple(details), True)
    start = min(point.utc_nanoseconds, end_utc_nanoseconds)
    # Sums never run backwards in an honest agent; where they do, the bounds still enclose what was said.
    bounds = (min(rest_lower, rest_upper), max(rest_lower, rest_upper))
    upper_or_unknown = None if rest_unbounded > 0 else clamped(bounds[1])
    rest = GapRow(channel, start, end_utc_nanoseconds, GapReason.UNREPORTED, clamped(bounds[0]), upper_or_unknown)
    return BookedGaps((*details, rest), False)
