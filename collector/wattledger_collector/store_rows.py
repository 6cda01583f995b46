"""The longer queries of the store and how their rows become records.

Opens nothing and runs nothing.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from wattledger_collector import schema
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    SITE_UNASSIGNED,
    AssignmentRow,
    ChannelInfo,
    Component,
    EmissionBasis,
    GapReason,
    GapRow,
    HostEnergyRow,
    HostGapRow,
    Method,
    Piece,
    Quality,
    Role,
    RollupRow,
)

# The columns of ChannelInfo, in its order; `n` is the channel table.
_CHANNEL_FIELDS: Final = tuple(schema.channels.c.keys())[2:]
CHANNEL_COLUMNS: Final = ", ".join(f"n.{name}" for name in _CHANNEL_FIELDS)

_ENERGY_COLUMNS: Final = (
    "h.host, c.epoch, c.recorded, e.channel_id, e.interval_start_seconds, e.quality, e.energy_microjoules, "
    f"e.covered_nanoseconds, {CHANNEL_COLUMNS}"
)
_ENERGY_JOINS: Final = (
    "JOIN channel AS n ON n.id = e.channel_id "
    "JOIN epoch_cursor AS c ON c.id = n.cursor_id "
    "JOIN host AS h ON h.id = c.host_id "
)
_ENERGY_ORDER: Final = "ORDER BY e.interval_start_seconds, e.channel_id, e.quality, e.edition"

ENERGY_OF_ALL: Final = (
    f"SELECT {_ENERGY_COLUMNS} FROM energy AS e {_ENERGY_JOINS}"
    f"WHERE e.interval_start_seconds >= :from_seconds AND e.interval_start_seconds < :to_seconds {_ENERGY_ORDER}"
)

# The energy of one host lies in one short range in each interval; without the list of intervals every host's rows would be
# read. The list ends where the stored rows do, so that "all times" is no endless list.
ENERGY_OF_HOST: Final = (
    "WITH RECURSIVE span (first, last) AS (SELECT "
    "max((:from_seconds + :interval_seconds - 1) / :interval_seconds * :interval_seconds, "
    "(SELECT min(interval_start_seconds) FROM energy)), "
    "min(:to_seconds - 1, (SELECT max(interval_start_seconds) FROM energy))), "
    "times (start) AS (SELECT first FROM span WHERE first <= last UNION ALL "
    "SELECT start + :interval_seconds FROM times, span WHERE start + :interval_seconds <= last) "
    f"SELECT {_ENERGY_COLUMNS} FROM host AS h CROSS JOIN times CROSS JOIN epoch_cursor AS c ON c.host_id = h.id "
    "CROSS JOIN energy AS e ON e.interval_start_seconds = times.start "
    "AND e.channel_id BETWEEN (c.id << 32) AND (c.id << 32) + 4294967295 "
    "CROSS JOIN channel AS n ON n.id = e.channel_id "
    f"WHERE h.host = :host {_ENERGY_ORDER}"
)

# A sum may pass 2^63; those of upper and of lower halves can't with fewer than 2^31 rows. `>>` rounds down, so that
# upper x 2^32 + lower is the value, of negative ones too.
_SUMS: Final = (
    "sum(energy_microjoules >> 32), sum(energy_microjoules & 4294967295), "
    "sum(covered_nanoseconds >> 32), sum(covered_nanoseconds & 4294967295)"
)
_SUMS_OF: Final = (
    f"SELECT site, component, quality, recorded, edition, {_SUMS} FROM rollup "
    "WHERE interval_start_seconds >= :from_seconds AND interval_start_seconds < :to_seconds {}"
    "GROUP BY site, component, quality, recorded, edition ORDER BY site, component, quality, recorded, edition"
)
ROLLUP_SUMS_ONLY: Final = _SUMS_OF.format("AND site IN (SELECT value FROM json_each(:sites)) ")
ROLLUP_SUMS_WITHOUT: Final = _SUMS_OF.format("AND site NOT IN (SELECT value FROM json_each(:sites)) ")

ROLLUP_BEGIN: Final = "SELECT min(interval_start_seconds) FROM rollup"

_BASIS_COLUMNS: Final = ", ".join(each.name for each in fields(EmissionBasis))
EMISSION_BASES: Final = f"SELECT {_BASIS_COLUMNS} FROM emission_basis ORDER BY site, interval_start_seconds"

# Each reaches every page that holds roll-ups or gaps of a part, and returns one row.
ROLLUPS_AHEAD: Final = (
    "SELECT count(*) FROM rollup WHERE interval_start_seconds >= :from_seconds AND interval_start_seconds < :to_seconds"
)
GAPS_AHEAD: Final = (
    "SELECT max(upper_microjoules) FROM gap WHERE from_utc_nanoseconds >= :from_seconds * 1000000000 "
    "AND from_utc_nanoseconds < :to_seconds * 1000000000"
)

CHANNEL_COUNTS: Final = (
    f"SELECT h.host, c.epoch, count(*), sum(NOT n.closed) FROM epoch_cursor AS c JOIN host AS h ON h.id = c.host_id "
    "JOIN channel AS n ON n.id BETWEEN (c.id << 32) AND (c.id << 32) + 4294967295 "
    f"WHERE n.role IN ({int(Role.LEAF)}, {int(Role.RESIDUAL)}) GROUP BY c.id"
)

_GAP_COLUMNS: Final = (
    "h.host, c.epoch, c.recorded, g.channel, g.from_utc_nanoseconds, g.to_utc_nanoseconds, g.reason, g.lower_microjoules, "
    f"g.upper_microjoules, {CHANNEL_COLUMNS}"
)
GAPS: Final = (
    f"SELECT {_GAP_COLUMNS} FROM gap AS g JOIN epoch_cursor AS c ON c.id = g.cursor_id JOIN host AS h ON h.id = c.host_id "
    "LEFT JOIN channel AS n ON n.id = (c.id << 32) + g.channel "
    "WHERE g.from_utc_nanoseconds < :to_nanoseconds AND g.to_utc_nanoseconds > :from_nanoseconds "
    "AND (:host IS NULL OR h.host = :host) ORDER BY g.from_utc_nanoseconds, g.id"
)


class SitesOfHosts:
    """The dated sites of hosts: which site a host belonged to at an instant."""

    def __init__(self, rows: Iterable[AssignmentRow]) -> None:
        """rows: by host and time, of two for one time the later recorded last."""
        self._dated: dict[str, tuple[list[int], list[str]]] = {}
        for row in rows:
            times, sites = self._dated.setdefault(row.host, ([], []))
            times.append(row.valid_from_seconds)
            sites.append(row.site)

    def at(self, host: str, seconds: int) -> str:
        """The site; `unassigned` if none was stated for that time."""
        dated = self._dated.get(host)
        if dated is None:
            return SITE_UNASSIGNED
        place = bisect_right(dated[0], seconds)
        return dated[1][place - 1] if place else SITE_UNASSIGNED


def read_channel(values: Sequence[Any]) -> ChannelInfo:
    """A channel from the columns of CHANNEL_COLUMNS."""
    info = ChannelInfo(*values)
    return ChannelInfo(
        channel=info.channel,
        device=info.device,
        component=Component(info.component),
        domain=info.domain,
        source=info.source,
        method=Method(info.method),
        role=Role(info.role),
        parent_channel=info.parent_channel,
        opening_boot_id=info.opening_boot_id,
        opening_boottime_nanoseconds=info.opening_boottime_nanoseconds,
        opening_realtime_nanoseconds=info.opening_realtime_nanoseconds,
        opening_synchronised=bool(info.opening_synchronised),
        closed=bool(info.closed),
        power_bound_milliwatts=info.power_bound_milliwatts,
        uncertainty_lower_ratio=info.uncertainty_lower_ratio,
        uncertainty_upper_ratio=info.uncertainty_upper_ratio,
        model=info.model,
    )


def read_energy(values: Sequence[Any], channels: dict[int, ChannelInfo]) -> HostEnergyRow:
    """An energy row; channels: those read already, by key, so that each is made once."""
    host, epoch, recorded, channel_id, start, quality, energy, covered = values[:8]
    info = channels.get(channel_id)
    if info is None:
        info = channels[channel_id] = read_channel(values[8:])
    return HostEnergyRow(host, epoch, start, info, Quality(quality), bool(recorded), energy, covered)


def read_gap(values: Sequence[Any], sites: SitesOfHosts, channels: dict[tuple[Any, ...], ChannelInfo]) -> HostGapRow:
    """A gap with its host's site at its beginning; channels: those read already, by their values: a fleet's are alike."""
    info = None
    if values[9] is not None:
        own = tuple(values[9:])
        info = channels.get(own)
        if info is None:
            info = channels[own] = read_channel(own)
    host, epoch, recorded, channel, from_utc, to_utc, reason, lower, upper = values[:9]
    return HostGapRow(
        host=host,
        site=sites.at(host, from_utc // NANOSECONDS_PER_SECOND),
        epoch=epoch,
        channel=info,
        recorded=bool(recorded),
        gap=GapRow(channel, from_utc, to_utc, _REASONS[reason], lower, upper),
    )


_COMPONENTS: Final = {int(each): each for each in Component}
_QUALITIES: Final = {int(each): each for each in Quality}
_REASONS: Final = {str(each): each for each in GapReason}


def read_sum(piece: Piece, row: Sequence[Any]) -> RollupRow:
    """A row of ROLLUP_SUMS, dated by the piece's beginning."""
    name, component, quality, recorded, edition, high, low, covered_high, covered_low = row
    return RollupRow(
        name,
        piece.from_seconds,
        _COMPONENTS[component],
        _QUALITIES[quality],
        bool(recorded),
        (high << 32) + low,
        (covered_high << 32) + covered_low,
        edition,
    )
