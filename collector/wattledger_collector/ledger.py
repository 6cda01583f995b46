"""The ledger's arithmetic: a batch and the cursor it meets become rows, each joule in one of them.

No clock, no store, no network: values in, a Booking out. Energy is booked from the cursor's own point of each channel.
"""

from collections.abc import Mapping, Sequence

import msgspec

from wattledger_collector.channel_ends import settle
from wattledger_collector.clocks import boots_after_batch
from wattledger_collector.columns import Page
from wattledger_collector.hello import Refused, open_stream
from wattledger_collector.imported_time import ImportedTime
from wattledger_collector.intervals import split
from wattledger_collector.records import (
    SPANS_MAX,
    Booking,
    Boot,
    BootedSpan,
    ChannelInfo,
    ChannelPoint,
    Cursor,
    EvidenceRow,
    Host,
    UtilizationRow,
)
from wattledger_collector.tally import BRIDGED_SPAN_NANOSECONDS
from wattledger_collector.wire import CheckedBatch, Clock
from wattledger_collector.workload_ledger import book_accounts, evidence_of
from wattledger_collector.workload_records import WorkloadBooking, WorkloadCursor
from wattledger_protos.v1 import telemetry_pb2 as pb

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
    workloads: WorkloadCursor | None = None,
) -> Booking:
    """Book a batch; never raises for its content.

    workloads: how far the epoch's workloads are committed; looked at only where the payload has accounts.
    A batch that is not next (repeated, or first_sequence > committed_sequence + 1) changes nothing: cursor_after and
    host_after of the Booking are then cursor and host themselves.
    """
    if not batch.first_sequence <= cursor.committed_sequence + 1 <= batch.last_sequence:
        return Booking(host_before=host, host_after=host, cursor_before=cursor, cursor_after=cursor)
    payload = batch.payload
    if payload is None:
        return _quarantined(batch, host, cursor, collector, new_channels, batch.undecodable)
    for column in payload.columns:
        if column.channel not in channels:
            reason = f"channel {column.channel} is not in the catalog that the payload names"
            return _quarantined(batch, host, cursor, collector, new_channels, reason)
    boots, boot = _boots(payload, host, cursor)
    others = _foreign_spans(host, cursor, payload, channels, workloads)
    imported = ImportedTime(host.imported, channels) if host.imported else None
    page = Page(batch, payload, boot, boots, others, interval_seconds, imported)
    points = cursor.points.copy()
    for column in payload.columns:
        points[column.channel] = page.add(column, channels[column.channel], points.get(column.channel))
    _settle_ends(batch, host, cursor, page, points, new_channels, boots, imported, interval_seconds)
    if len(points) != len(cursor.points):
        points = dict(sorted(points.items()))
    spans = _spans_after(host, cursor, page.booked_spans)
    accounts = None
    if payload.workload_accounts:
        accounts = _workloads(batch, payload, page, workloads, imported, interval_seconds)
    return Booking(
        host_before=host,
        host_after=_host_after(batch, host, cursor.epoch, boots, spans),
        cursor_before=cursor,
        cursor_after=_cursor_after(batch, cursor, collector, points),
        channels=tuple(new_channels),
        energy=tuple(page.energy),
        gaps=tuple(page.gaps),
        evidence=tuple(page.evidence),
        utilization=_utilization(batch, payload, page, cursor, interval_seconds),
        workloads=accounts,
    )


def _settle_ends(
    batch: CheckedBatch,
    host: Host,
    cursor: Cursor,
    page: Page,
    points: dict[int, ChannelPoint],
    new_channels: Sequence[ChannelInfo],
    boots: tuple[Boot, ...],
    imported: ImportedTime | None,
    interval_seconds: int,
) -> None:
    """Add what the catalog's closed channels had left when they ended, after what the batch itself says of them."""
    closed = [info for info in new_channels if info.end is not None]
    if not closed:
        return
    others = tuple(span for span in host.spans if span.epoch != cursor.epoch)
    settled = settle(
        batch,
        closed,
        points,
        boots,
        others,
        recorded=cursor.recorded,
        interval_seconds=interval_seconds,
        imported=imported,
    )
    for channel, point, ending in settled:
        points[channel] = point
        page.merge(ending)


def _quarantined(
    batch: CheckedBatch, host: Host, cursor: Cursor, collector: str, new_channels: Sequence[ChannelInfo], reason: str
) -> Booking:
    """The batch as evidence: the sequence moves on, no point does, and the next batch bridges what this one told.

    Channels that have ended wait for that one too: they are settled with the first batch that is booked.
    """
    evidence = EvidenceRow(batch.first_sequence, batch.last_sequence, 0, reason, None, batch.payload_bytes)
    return Booking(
        host_before=host,
        host_after=_host_after(batch, host, cursor.epoch, host.boots, host.spans),
        cursor_before=cursor,
        cursor_after=_cursor_after(batch, cursor, collector, cursor.points),
        channels=tuple(info for info in new_channels if info.end is None),
        evidence=(evidence,),
    )


def _boots(payload: pb.Payload, host: Host, cursor: Cursor) -> tuple[tuple[Boot, ...], Boot]:
    """The host's boots, and the payload's with the offset that holds for its samples."""
    if cursor.recorded:
        # Times of a recording are taken as they are, and its boots are none of the host's.
        return host.boots, Boot(payload.boot_id, 0, True)
    pair = payload.clock
    clock = Clock(pair.boottime_nanoseconds, pair.realtime_nanoseconds, pair.synchronised)
    return boots_after_batch(host.boots, payload.boot_id, clock)


def _foreign_spans(
    host: Host,
    cursor: Cursor,
    payload: pb.Payload,
    channels: Mapping[int, ChannelInfo],
    workloads: WorkloadCursor | None,
) -> tuple[BootedSpan, ...]:
    """Spans of other epochs in any boot that this batch's energy may come from."""
    foreign = [span for span in host.spans if span.epoch != cursor.epoch]
    if not foreign:
        return ()
    boots = {payload.boot_id, workloads.boot_id if workloads else b""}
    boots.update(point.boot_id for point in cursor.points.values())
    boots.update(channels[each.channel].opening_boot_id for each in payload.columns if each.channel not in cursor.points)
    return tuple(span for span in foreign if span.boot_id in boots)


def _cursor_after(batch: CheckedBatch, cursor: Cursor, collector: str, points: dict[int, ChannelPoint]) -> Cursor:
    return msgspec.structs.replace(
        cursor,
        committed_sequence=batch.last_sequence,
        committed_checksum=batch.checksum,
        collector=collector,
        points=points,
    )


def _host_after(
    batch: CheckedBatch, host: Host, epoch: bytes, boots: tuple[Boot, ...], spans: tuple[BootedSpan, ...]
) -> Host:
    """The host's row after a batch; its counters are shown again once a rewound agent has come up to where it was."""
    withheld_until = host.withheld_until
    if epoch in withheld_until and batch.last_sequence >= withheld_until[epoch]:
        withheld_until = {each: until for each, until in withheld_until.items() if each != epoch}
    return msgspec.structs.replace(host, version=host.version + 1, boots=boots, spans=spans, withheld_until=withheld_until)


def _spans_after(host: Host, cursor: Cursor, booked: Mapping[bytes, tuple[int, int]]) -> tuple[BootedSpan, ...]:
    """The host's spans with what this batch booked; each epoch has one per boot, which only grows."""
    if not booked:
        return host.spans
    spans = list(host.spans)
    places = {span.boot_id: index for index, span in enumerate(spans) if span.epoch == cursor.epoch}
    for boot_id, (start, end) in booked.items():
        index = places.get(boot_id)
        if index is None:
            spans.append(BootedSpan(cursor.epoch, boot_id, start, end))
            continue
        old = spans[index]
        spans[index] = BootedSpan(
            cursor.epoch, boot_id, min(start, old.from_boottime_nanoseconds), max(end, old.to_boottime_nanoseconds)
        )
    return tuple(spans[-SPANS_MAX:])


def _workloads(
    batch: CheckedBatch,
    payload: pb.Payload,
    page: Page,
    before: WorkloadCursor | None,
    imported: ImportedTime | None,
    interval_seconds: int,
) -> WorkloadBooking | None:
    """Book the payload's accounts; what is refused of them is evidence."""
    booking, refused = book_accounts(
        batch,
        payload,
        before,
        offset_nanoseconds=page.boot.offset_nanoseconds,
        is_overlapped=page.is_overlapped,
        is_imported=imported.holds_component if imported is not None else None,
        interval_seconds=interval_seconds,
    )
    if refused:
        page.evidence.append(evidence_of(batch, refused, with_payload=not page.evidence))
    return booking


def _utilization(
    batch: CheckedBatch, payload: pb.Payload, page: Page, cursor: Cursor, interval_seconds: int
) -> tuple[UtilizationRow, ...]:
    """Busy time of the payload over the intervals. It is no cumulative value: what is lost with a batch is not recovered.

    It belongs to the time since the last point, or since the first sample where there is none in this boot.
    """
    if not payload.utilizations:
        return ()
    first, last = payload.first_boottime_nanoseconds, batch.last_boottime_nanoseconds
    latest = page.latest_boottime_nanoseconds
    # A point far back says that batches between were lost; their busy time was lost with them.
    start = first if latest is None or first - latest > BRIDGED_SPAN_NANOSECONDS else min(latest, last)
    if batch.first_sequence <= cursor.committed_sequence:
        # Part of the payload was counted with an earlier batch: what lies after the last point is new.
        new, whole = last - start, last - first
    else:
        new = whole = 1
    if page.is_overlapped(payload.boot_id, start, last):
        return ()
    offset = page.boot.offset_nanoseconds
    rows = []
    for column in payload.utilizations:
        busy = column.busy_nanoseconds * new // whole if new < whole else column.busy_nanoseconds
        for interval_start, share, _ in split(busy, start + offset, last + offset, interval_seconds):
            if share:
                rows.append(UtilizationRow(column.device, column.kind, interval_start, share))
    return tuple(rows)
