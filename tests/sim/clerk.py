"""Somebody who imports what a meter beside a simulated machine has read, for times that its agent has or has not booked.

Knows nothing of machines: a meter's figure is its own. Every import is refused or stands in the way of the agent.
"""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from wattledger_collector.facility import Point
from wattledger_collector.import_series import Form, Format, Label, SpanLength, parse_series
from wattledger_collector.import_store import import_series, imports, remove_import
from wattledger_collector.imports import COLLECTOR, EnergyImport, Meter, MeterImportError, make_import
from wattledger_collector.records import Component, Cursor, Host
from wattledger_collector.store import SqliteStore, open_store


def bring(database: Path, host: str, from_seconds: int, length_seconds: int) -> bool:
    """Import a row of 100 W; False if it was refused, as somebody has booked of that time."""
    lengths = (SpanLength(0, length_seconds),)
    form = Format(Form.AVERAGE_WATTS, "time", "watts", ZoneInfo("UTC"), Label.START, lengths, partial_days=True)
    text = f"time,watts\n{datetime.fromtimestamp(from_seconds, UTC).isoformat()},100\n"
    series = parse_series(text, "meter.csv", form)
    with closing(open_store(database, create=False)) as store:
        made = make_import(
            series,
            form,
            Meter(host, "", Component.OTHER, "", Point.NODE, None, ""),
            file="meter.csv",
            content=text.encode(),
            now_seconds=from_seconds + length_seconds,
            version="simulation",
            beside=False,
            interval_seconds=store.interval_seconds,
        )
        try:
            return import_series(store, made, series)
        except MeterImportError:
            return False


def take_back(database: Path, host: str, now_seconds: int) -> bool:
    """Take the host's newest import back; False if it has none."""
    with closing(open_store(database, create=False)) as store:
        found = _counting(store, host)
        if found:
            remove_import(store, found[-1], "a mistake", now_seconds=now_seconds)
        return bool(found)


def is_imported(cursor: Cursor) -> bool:
    """Whether an epoch is an import's, which no agent spooled."""
    return cursor.recorded and cursor.collector == COLLECTOR


def problems(store: SqliteStore, *, are_clocks_even: bool) -> list[str]:
    """Where the ledger has time twice: rows of agents beside what imports have booked; and what does not add up.

    are_clocks_even: no clock went back, so that an agent's quarter of an hour has 900 s at most.
    """
    found: list[str] = []
    for host in store.hosts():
        counting = _counting(store, host.host)
        spans = sorted((each.provenance.from_seconds, each.provenance.to_seconds) for each in counting)
        if sum(end - start for start, end in spans) != sum(each.to_seconds - each.from_seconds for each in host.imported):
            found.append(f"{host.host}: its row has {host.imported}, imports have {spans}")
        found += _doubled(store, host, counting) if are_clocks_even and counting else []
    return found


def _doubled(store: SqliteStore, host: Host, counting: list[EnergyImport]) -> list[str]:
    length, epochs = store.interval_seconds, {each.epoch for each in counting}
    covered: dict[tuple[bytes, int, int], int] = {}
    for row in store.host_energy(0, 2**40, host.host):
        if row.epoch not in epochs:
            key = (row.epoch, row.channel.channel, row.interval_start_seconds)
            covered[key] = covered.get(key, 0) + row.covered_nanoseconds
    found = []
    for (_, channel, start), nanoseconds in covered.items():
        taken = sum(max(0, min(each.to_seconds, start + length) - max(each.from_seconds, start)) for each in host.imported)
        if nanoseconds > (length - taken) * 10**9:
            found.append(f"{host.host} channel {channel}: {nanoseconds} ns at {start}, and imports have {taken} s of it")
    return found


def _counting(store: SqliteStore, host: str) -> list[EnergyImport]:
    return [each for each in imports(store) if each.meter.host == host and each.removal is None]
