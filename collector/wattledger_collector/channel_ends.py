"""Closed channels are settled with the end that their catalog tells, so that a lost last record loses no energy.

No clock, no store. An end is one more sample: it is booked from the cursor's own point by the same rules as any other, so
that told again, or beside the records that have the same values, it changes nothing. One that lies before what is booked
already is of an account that forked: evidence is kept of it, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from wattledger_collector.clocks import boot_index
from wattledger_collector.columns import Page
from wattledger_collector.imported_time import ImportedTime
from wattledger_collector.records import Boot, BootedSpan, ChannelEnd, ChannelInfo, ChannelPoint, EvidenceRow, Role
from wattledger_collector.wire import CheckedBatch
from wattledger_protos.v1 import telemetry_pb2 as pb


def settle(
    batch: CheckedBatch,
    channels: Sequence[ChannelInfo],
    points: Mapping[int, ChannelPoint],
    boots: tuple[Boot, ...],
    others: tuple[BootedSpan, ...],
    *,
    recorded: bool,
    interval_seconds: int,
    imported: ImportedTime | None = None,
) -> list[tuple[int, ChannelPoint, Page]]:
    """Those of the channels that have an end which the cursor has not reached: number, point there, and what is booked.

    batch: the one that is booked with them, for evidence. points: by channel, after that batch. others: spans of the host's
    other epochs. imported: what imports have booked of it, None if there is none.
    """
    settled: list[tuple[int, ChannelPoint, Page]] = []
    for info in channels:
        end, point = info.end, points.get(info.channel)
        if end is None:
            continue
        page = _page_of(batch, end, boots, others, imported, recorded=recorded, interval_seconds=interval_seconds)
        if point is not None and _is_reached(point, end, boots):
            if end.energy_microjoules < point.energy_microjoules and info.role is not Role.RESIDUAL:
                page.evidence.append(_forked(batch, info, point, end))
                settled.append((info.channel, _returned(point, end), page))
            continue
        column = pb.Column(
            channel=info.channel,
            first_energy_microjoules=end.energy_microjoules,
            gap_lower_microjoules=end.gap_lower_microjoules,
            gap_upper_microjoules=end.gap_upper_microjoules,
            gap_unbounded_count=end.gap_unbounded_count,
        )
        settled.append((info.channel, page.add(column, info, point), page))
    return settled


def _forked(batch: CheckedBatch, info: ChannelInfo, point: ChannelPoint, end: ChannelEnd) -> EvidenceRow:
    """That a channel has told more than it ended with, as where a spool went back in time. What is booked was counted."""
    before, value = point.energy_microjoules, end.energy_microjoules
    reason = f"{info.device} {info.domain} fell from {before} µJ, which are booked, to {value} at its end: an older spool"
    return EvidenceRow(batch.first_sequence, batch.last_sequence, info.channel, reason, value - before, b"")


def _returned(point: ChannelPoint, end: ChannelEnd) -> ChannelPoint:
    """The point at the end, so that this is told once; what was booked stays booked."""
    return msgspec.structs.replace(
        point,
        boot_id=end.boot_id,
        boottime_nanoseconds=end.boottime_nanoseconds,
        energy_microjoules=end.energy_microjoules,
        gap_lower_microjoules=end.gap_lower_microjoules,
        gap_upper_microjoules=end.gap_upper_microjoules,
        gap_unbounded_count=end.gap_unbounded_count,
    )


def _is_reached(point: ChannelPoint, end: ChannelEnd, boots: tuple[Boot, ...]) -> bool:
    """Whether the cursor stands at the end or beyond: nothing is left of the channel then."""
    if point.boot_id == end.boot_id:
        if point.boottime_nanoseconds != end.boottime_nanoseconds:
            return point.boottime_nanoseconds > end.boottime_nanoseconds
        return (point.gap_lower_microjoules, point.gap_upper_microjoules, point.gap_unbounded_count) == (
            end.gap_lower_microjoules,
            end.gap_upper_microjoules,
            end.gap_unbounded_count,
        )
    at_point, at_end = boot_index(boots, point.boot_id), boot_index(boots, end.boot_id)
    return at_point is not None and at_end is not None and at_point > at_end


def _page_of(
    batch: CheckedBatch,
    end: ChannelEnd,
    boots: tuple[Boot, ...],
    others: tuple[BootedSpan, ...],
    imported: ImportedTime | None,
    *,
    recorded: bool,
    interval_seconds: int,
) -> Page:
    """A page for a payload of one sample, at the end. Its clock pair may be old, and changes no boot's offset."""
    payload = pb.Payload(boot_id=end.boot_id, first_boottime_nanoseconds=end.boottime_nanoseconds)
    # What is refused of an end does not stand in the batch's bytes.
    at = replace(batch, last_boottime_nanoseconds=end.boottime_nanoseconds, longest_step_nanoseconds=0, payload_bytes=b"")
    index = boot_index(boots, end.boot_id)
    if recorded:
        boot = Boot(end.boot_id, 0, True)
    elif index is not None:
        boot = boots[index]
    else:
        boot = Boot(end.boot_id, end.realtime_nanoseconds - end.boottime_nanoseconds, end.synchronised)
    return Page(at, payload, boot, boots, others, interval_seconds, imported)
