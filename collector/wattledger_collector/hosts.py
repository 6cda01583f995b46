"""What operators do with hosts: list, rename, replace, retire, drain and take back; each is one transaction and one event.

History is kept: no energy moves, no row is deleted. A running collector notices at the host's next booking: its row changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection, select, update

from wattledger_collector import schema
from wattledger_collector.records import NANOSECONDS_PER_SECOND, AssignmentRow, Host, HostState, StoreError
from wattledger_collector.store import SqliteStore, insert_assignments
from wattledger_collector.store_rows import SitesOfHosts

# A name is a label value in every metric of the host.
NAME_CHARACTERS_MAX: Final = 256


class HostError(Exception):
    """The host can't be changed so; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class HostEvent:
    """What was done with a host, and when (nanoseconds since 1970-01-01 UTC)."""

    host: str
    at_utc_nanoseconds: int
    event: str
    detail: str


def host_events(store: SqliteStore, host: str) -> list[HostEvent]:
    """What was done with a host, oldest first."""
    table = schema.host_events.c
    query = (
        select(table.host, table.at_utc_nanoseconds, table.event, table.detail).where(table.host == host).order_by(table.id)
    )
    return [HostEvent(*row) for row in store.rows(query)]


def host_rename(store: SqliteStore, host: str, name: str, *, now_utc_nanoseconds: int) -> Host:
    """Call a host by another name; its id, which is in its certificate, and its history stay. Empty: its id again."""
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise HostError(f"{name!r} is no name: use at most {NAME_CHARACTERS_MAX} printable characters")

    def change(row: Host) -> Host:
        return msgspec.structs.replace(row, name=name)

    return _change(store, host, change, "rename", name, now_utc_nanoseconds)


def host_retire(store: SqliteStore, host: str, *, now_utc_nanoseconds: int) -> Host:
    """The host is gone for good: its agent is refused, its silence alarms nobody, its energy stays in all totals."""

    def change(row: Host) -> Host:
        return msgspec.structs.replace(row, state=HostState.RETIRED)

    return _change(store, host, change, "retire", "", now_utc_nanoseconds)


def host_drain(store: SqliteStore, host: str, *, now_utc_nanoseconds: int) -> Host:
    """The host is expected to be silent for a while; what its agent sends is booked as ever."""

    def change(row: Host) -> Host:
        if row.state == HostState.RETIRED:
            raise HostError(f"host {host} is retired: take it back with `host activate` first")
        return msgspec.structs.replace(row, state=HostState.DRAINED)

    return _change(store, host, change, "drain", "", now_utc_nanoseconds)


def host_activate(store: SqliteStore, host: str, *, now_utc_nanoseconds: int) -> Host:
    """Take a drained or retired host back, and settle a conflict of two machines with one id."""

    def change(row: Host) -> Host:
        return msgspec.structs.replace(row, state=HostState.ACTIVE, conflict="")

    return _change(store, host, change, "activate", "", now_utc_nanoseconds)


def host_replace(store: SqliteStore, host: str, successor: str, *, now_utc_nanoseconds: int) -> Host:
    """Another machine takes a host's place: it gets its name and, from the next interval on, its site; the old one retires.

    successor: id of a host that has reported already. Returns the successor.
    """
    if host == successor:
        raise HostError(f"{host} can't replace itself: a new machine with the old id needs `host activate`, if anything")
    interval = store.interval_seconds
    start = (now_utc_nanoseconds // NANOSECONDS_PER_SECOND // interval + 1) * interval
    site = SitesOfHosts(store.assignments()).at(host, start)
    with store.writing() as connection:
        old = _load(connection, host)
        new = _load(connection, successor)
        if old.state == HostState.RETIRED:
            raise HostError(f"host {host} is retired already: rename {successor} instead")
        retired = msgspec.structs.replace(old, version=old.version + 1, state=HostState.RETIRED, name="")
        named = msgspec.structs.replace(new, version=new.version + 1, state=HostState.ACTIVE, name=old.name or old.host)
        _save(connection, retired, "replaced", successor, now_utc_nanoseconds)
        _save(connection, named, "replaces", host, now_utc_nanoseconds)
        row = AssignmentRow(successor, start, site, now_utc_nanoseconds // NANOSECONDS_PER_SECOND)
        insert_assignments(connection, [row])
    return named


def _change(
    store: SqliteStore, host: str, change: Callable[[Host], Host], event: str, detail: str, now_utc_nanoseconds: int
) -> Host:
    with store.writing() as connection:
        before = _load(connection, host)
        after = change(before)
        if after == before:
            return before
        after = msgspec.structs.replace(after, version=before.version + 1)
        _save(connection, after, event, detail, now_utc_nanoseconds)
    return after


def _load(connection: Connection, host: str) -> Host:
    packed = connection.scalar(select(schema.hosts.c.packed).where(schema.hosts.c.host == host))
    if packed is None:
        raise HostError(f"there is no host {host!r}: `host list` shows all")
    try:
        return msgspec.msgpack.decode(packed, type=Host)
    except msgspec.DecodeError as error:
        raise StoreError(f"the row of host {host} can't be read ({error}): restore the latest backup") from error


def _save(connection: Connection, host: Host, event: str, detail: str, now_utc_nanoseconds: int) -> None:
    table = schema.hosts
    connection.execute(update(table).where(table.c.host == host.host).values(packed=msgspec.msgpack.encode(host)))
    connection.execute(
        schema.host_events.insert().values(
            host=host.host, at_utc_nanoseconds=now_utc_nanoseconds, event=event, detail=detail
        )
    )
