"""Bookings for tests of the store and what stands on it, made without the ledger.

Knows no database.
"""

from collections.abc import Sequence

import msgspec

from wattledger_collector.records import (
    Booking,
    ChannelInfo,
    ChannelPoint,
    Component,
    Cursor,
    EnergyRow,
    Host,
    HostState,
    Method,
    Quality,
    Role,
)

EPOCH = b"epoch-0123456789"
BOOT = b"boot--0123456789"
INTERVAL = 1_700_000_100 // 900 * 900


def make_host(name: str = "a", *, epochs: tuple[bytes, ...] = (EPOCH,)) -> Host:
    """A host that nothing is known of but its epochs."""
    return Host(
        host=name,
        version=1,
        machine_id="machine",
        state=HostState.ACTIVE,
        labels={"hostname": name},
        boots=(),
        spans=(),
        epochs=epochs,
        withheld=False,
        withheld_until={},
        conflict="",
    )


def make_cursor(host: str = "a", epoch: bytes = EPOCH, *, recorded: bool = False) -> Cursor:
    """The cursor of an epoch that has just begun."""
    return Cursor(host, epoch, 0, 1, recorded, "collector", {})


def make_channel(number: int = 1, component: Component = Component.CPU) -> ChannelInfo:
    """A leaf with a hardware counter."""
    return ChannelInfo(
        channel=number,
        device=f"cpu/{number}",
        component=component,
        domain="package",
        source="rapl",
        method=Method.COUNTER,
        role=Role.LEAF,
        parent_channel=0,
        opening_boot_id=BOOT,
        opening_boottime_nanoseconds=5,
        opening_realtime_nanoseconds=6,
        opening_synchronised=True,
        closed=False,
        power_bound_milliwatts=400_000,
        uncertainty_lower_ratio=0.02,
        uncertainty_upper_ratio=0.03,
        model="A CPU",
    )


def opening(name: str = "a", epoch: bytes = EPOCH, channels: int = 1, *, recorded: bool = False) -> Booking:
    """What the first Hello of a host and its catalog change."""
    return Booking(
        host_before=None,
        host_after=make_host(name, epochs=(epoch,)),
        cursor_before=None,
        cursor_after=make_cursor(name, epoch, recorded=recorded),
        channels=tuple(make_channel(number) for number in range(1, channels + 1)),
    )


def energy(microjoules: int, channel: int = 1, start: int = INTERVAL, quality: Quality = Quality.COUNTER) -> EnergyRow:
    """Energy of one second."""
    return EnergyRow(channel, start, quality, microjoules, 1_000_000_000)


def following(before: Booking, rows: Sequence[EnergyRow] = ()) -> Booking:
    """The booking of the batch after another booking."""
    cursor = before.cursor_after
    points = dict(cursor.points)
    for row in rows:
        old = points.get(row.channel, ChannelPoint(BOOT, 0, 0, 0, 0, 0, 0, 0))
        points[row.channel] = msgspec.structs.replace(
            old,
            energy_microjoules=old.energy_microjoules + row.energy_microjoules,
            booked_microjoules=old.booked_microjoules + row.energy_microjoules,
        )
    return Booking(
        host_before=before.host_after,
        host_after=msgspec.structs.replace(before.host_after, version=before.host_after.version + 1),
        cursor_before=cursor,
        cursor_after=msgspec.structs.replace(cursor, committed_sequence=cursor.committed_sequence + 1, points=points),
        energy=tuple(rows),
    )
