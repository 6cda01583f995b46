"""What a Hello changes in the ledger: hosts, epochs, boots and their clocks are registered, or the agent is refused.

Nothing is booked here but the gap before a new epoch. No clock, no store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from wattledger_collector.clocks import boot_index, boots_after_hello, is_left_behind, offset_of
from wattledger_collector.records import (
    EPOCHS_MAX,
    Booking,
    ChannelInfo,
    ChannelPoint,
    Cursor,
    GapReason,
    GapRow,
    Host,
    HostState,
)
from wattledger_collector.wire import CheckedHello
from wattledger_protos.v1 import telemetry_pb2 as pb

# Milliwatts x nanoseconds in one microjoule.
MILLIWATT_NANOSECONDS_PER_MICROJOULE = 1_000_000


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
    if host is not None and host.state == HostState.RETIRED:
        return Refused(
            pb.REFUSAL_REASON_RETIRED,
            f"host {hello.host} was retired: stop its agent, or take it back with `wattledger-collector host`",
        )
    after = _opened_cursor(hello, cursor, now_utc_nanoseconds, collector)
    # A recording names the boots of its own past, in any order.
    if host is not None and not hello.recorded and is_left_behind(host, hello.boot_id):
        return _second_machine(hello, host, cursor, after)
    host_after = _opened_host(hello, host, after, now_utc_nanoseconds)
    gaps: tuple[GapRow, ...] = ()
    if host is not None and cursor is None and not hello.recorded:
        gaps = _gap_before_epoch(hello, host_after, peers, peer_channels or {})
    return Booking(host_before=host, host_after=host_after, cursor_before=cursor, cursor_after=after, gaps=gaps)


def _opened_cursor(hello: CheckedHello, cursor: Cursor | None, now_utc_nanoseconds: int, collector: str) -> Cursor:
    if cursor is not None:
        return msgspec.structs.replace(cursor, collector=collector)
    return Cursor(
        host=hello.host,
        epoch=hello.epoch,
        committed_sequence=0,
        created_utc_nanoseconds=now_utc_nanoseconds,
        recorded=hello.recorded,
        collector=collector,
        points={},
    )


def _opened_host(hello: CheckedHello, host: Host | None, cursor: Cursor, now_utc_nanoseconds: int) -> Host:
    """The host's row after this Hello. A recording leaves the host's boots alone."""
    boots = host.boots if host is not None else ()
    if not hello.recorded:
        boots = boots_after_hello(boots, hello, now_utc_nanoseconds)
    if host is None:
        return Host(
            host=hello.host,
            version=1,
            machine_id=hello.machine_id,
            state=HostState.ACTIVE,
            labels=hello.labels,
            boots=boots,
            spans=(),
            epochs=(hello.epoch,),
            withheld=False,
            withheld_until=_withheld_until(hello, None, cursor),
            conflict="",
        )
    return msgspec.structs.replace(
        host,
        version=host.version + 1,
        machine_id=hello.machine_id,
        labels=hello.labels,
        boots=boots,
        epochs=(*(epoch for epoch in host.epochs if epoch != hello.epoch), hello.epoch)[-EPOCHS_MAX:],
        withheld=False,
        withheld_until=_withheld_until(hello, host, cursor),
    )


def _withheld_until(hello: CheckedHello, host: Host | None, cursor: Cursor) -> dict[bytes, int]:
    """By epoch, what an agent must reach before the host's counters are shown again after a restore.

    An agent that had more acknowledged than is committed tells of a restore too, also where the copy is so old that it lacks
    the host. The agent's next sequence at its first Hello is beyond all that it ever had acknowledged. A wholly new epoch
    means that the spool is gone: what an older epoch lacks will never come, and waiting would hide the host for ever.
    """
    target = hello.next_sequence - 1
    is_behind = hello.acknowledged_sequence > cursor.committed_sequence and not hello.recorded
    if is_behind or (host is not None and host.withheld):
        return {hello.epoch: target} if cursor.committed_sequence < target else {}
    return host.withheld_until if host is not None and hello.epoch in host.epochs else {}


def _second_machine(hello: CheckedHello, host: Host, cursor: Cursor | None, after: Cursor) -> Refused:
    message = (
        f"two machines use host id {hello.host}: boot {hello.boot_id.hex()} was already followed by boot "
        f"{host.boots[-1].boot_id.hex()}: give one of them its own id and certificate"
    )
    booking = None
    if host.conflict != message:
        marked = msgspec.structs.replace(host, version=host.version + 1, conflict=message)
        booking = Booking(host_before=host, host_after=marked, cursor_before=cursor, cursor_after=cursor or after)
    return Refused(pb.REFUSAL_REASON_SECOND_MACHINE, message, booking)


def _gap_before_epoch(
    hello: CheckedHello, host: Host, peers: Sequence[Cursor], peer_channels: Mapping[bytes, Mapping[int, ChannelInfo]]
) -> tuple[GapRow, ...]:
    """One gap of the whole host, from its latest point in any epoch to this epoch's opening.

    Channels have no identity across epochs, so the bound is the sum of those of the epoch that ended last.
    """
    points = [(point, peer.epoch) for peer in peers if not peer.recorded for point in peer.points.values()]
    if not points:
        return ()
    latest, epoch = max(points, key=lambda each: each[0].utc_nanoseconds)
    opening = hello.opening_clock
    if latest.boot_id == hello.opening_boot_id:
        elapsed: int | None = opening.boottime_nanoseconds - latest.boottime_nanoseconds
        to_utc = latest.utc_nanoseconds + (opening.boottime_nanoseconds - latest.boottime_nanoseconds)
    else:
        to_utc = _opening_utc(hello, host)
        elapsed = to_utc - latest.utc_nanoseconds
        if not (opening.synchronised and _is_trusted(host, latest)):
            elapsed = None
    if to_utc <= latest.utc_nanoseconds:
        return ()  # The epochs ran beside each other.
    bound = _booked_bound_milliwatts(peer_channels.get(epoch, {}))
    upper = None
    if elapsed is not None and bound is not None:
        upper = energy_bound_microjoules(bound, elapsed)
    return (GapRow(0, latest.utc_nanoseconds, to_utc, GapReason.EPOCH, 0, upper),)


def _opening_utc(hello: CheckedHello, host: Host) -> int:
    opening = hello.opening_clock
    if opening.synchronised:
        return opening.realtime_nanoseconds
    index = boot_index(host.boots, hello.opening_boot_id)
    offset = offset_of(opening) if index is None else host.boots[index].offset_nanoseconds
    return opening.boottime_nanoseconds + offset


def _is_trusted(host: Host, point: ChannelPoint) -> bool:
    index = boot_index(host.boots, point.boot_id)
    return index is not None and host.boots[index].trusted


def _booked_bound_milliwatts(channels: Mapping[int, ChannelInfo]) -> int | None:
    """Most power that the booked channels can have together; None if one of them has no bound, or there is none."""
    bounds = [info.power_bound_milliwatts for info in channels.values() if info.is_booked]
    return sum(bounds) if bounds and all(bounds) else None


def energy_bound_microjoules(power_bound_milliwatts: int, nanoseconds: int) -> int:
    """Most energy in this time, rounded up to a whole microjoule."""
    return -(-power_bound_milliwatts * max(nanoseconds, 0) // MILLIWATT_NANOSECONDS_PER_MICROJOULE)
