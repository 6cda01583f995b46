"""Reads frozen energy rows a day at a time into columns, summed over the channels of a host that are alike.

Books and closes nothing. Source of truth: the table `energy`, whose rows of a closed edition nothing changes any more. A day
of a thousand hosts with ten channels is a million rows; they are read in the order in which they lie, few columns of each.
Days are read ahead by threads of their own, which SQLite and numpy let run beside the one that hashes what was read.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattledger_collector.leaves import DayColumns, Series
from wattledger_collector.records import AssignmentRow, Component, Quality, StoreError
from wattledger_collector.store_rows import SitesOfHosts

DAY_SECONDS: Final = 86_400

# Quality and edition come as one number, so that a row is four and not six. A column of an interval comes as one text: to
# make a Python number of each of thirty million values takes twice as long as to read them.
_EDITION_BITS: Final = 8
_VALUES: Final = ("channel_id", f"edition << {_EDITION_BITS} | quality", "energy_microjoules", "covered_nanoseconds")
_ROWS: Final = (
    f"SELECT {', '.join(f'group_concat({value})' for value in _VALUES)} FROM energy "
    "WHERE interval_start_seconds = ? AND edition <= ?"
)
_CHANNELS: Final = (
    "SELECT n.id, h.host, n.component, n.source, n.uncertainty_lower_ratio, n.uncertainty_upper_ratio, c.recorded "
    "FROM channel AS n JOIN epoch_cursor AS c ON c.id = n.cursor_id JOIN host AS h ON h.id = c.host_id ORDER BY n.id"
)

_Integers = NDArray[np.int64]

# A table of 128 MB.
_TABLE_MAX: Final = 2**24

# Days that are being read at a time. Each holds about 150 bytes for each of its rows while it is added up: 300 MB for two
# days of a thousand hosts with ten channels.
_READERS: Final = 2

# Days that were read and wait for their turn: 16 bytes for each series and interval, 6 MB for a day of a thousand hosts.
_DAYS_AHEAD_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Span:
    """What to read: intervals that start in [from, to), editions up to one, of one site or of all."""

    from_seconds: int
    to_seconds: int
    edition: int
    site: str | None


class ColumnsReader:
    """Reads a span's days.

    open_connection: makes one for each of the threads that read. assignments: those by which hosts belong to sites; by host
    and time, the later recorded last.
    """

    def __init__(
        self,
        open_connection: Callable[[], sqlite3.Connection],
        interval_seconds: int,
        assignments: Sequence[AssignmentRow],
    ) -> None:
        self._open = open_connection
        self._interval_seconds = interval_seconds
        self._sites = SitesOfHosts(assignments)
        self._changes = {row.valid_from_seconds for row in assignments}
        with closing(open_connection()) as connection:
            rows = connection.execute(_CHANNELS).fetchall()
        self._channel_ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        # Channels of a host that are alike are one group; groups in order, so that hosts are.
        alike = [tuple(row[1:]) for row in rows]
        self._groups = sorted(set(alike))
        numbers = {group: number for number, group in enumerate(self._groups)}
        self._group_of_channel = np.fromiter((numbers[each] for each in alike), np.int64, len(alike))
        self._hosts = sorted({group[0] for group in self._groups})
        places = {host: place for place, host in enumerate(self._hosts)}
        self._host_of_group = np.fromiter((places[group[0]] for group in self._groups), np.int64, len(self._groups))
        self._latest: tuple[_Cells, _Order] | None = None

    def days(self, span: Span) -> Generator[DayColumns, None, None]:
        """The days of UTC that have any energy in the span, in order. Raises StoreError for rows that can't be added."""
        with ExitStack() as stack:
            idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
            for _ in range(_READERS):
                idle.put(stack.enter_context(closing(self._open())))
            # It ends before the connections are closed: what was begun is read to its end, and is a few days at most.
            pool = stack.enter_context(ThreadPoolExecutor(_READERS, thread_name_prefix="columns"))
            ahead: deque[Future[DayColumns | None]] = deque()
            begin = span.from_seconds
            while ahead or begin < span.to_seconds:
                while begin < span.to_seconds and len(ahead) < _DAYS_AHEAD_MAX:
                    end = min((begin // DAY_SECONDS + 1) * DAY_SECONDS, span.to_seconds)
                    ahead.append(pool.submit(self._day_by, idle, span, begin, end))
                    begin = end
                columns = ahead.popleft().result()
                if columns is not None:
                    yield columns

    def _day_by(self, idle: "SimpleQueue[sqlite3.Connection]", span: Span, begin: int, end: int) -> DayColumns | None:
        """A day, read by a connection that nobody else uses meanwhile."""
        connection = idle.get()
        try:
            return self._day(connection, span, begin, end)
        finally:
            idle.put(connection)

    def _day(self, connection: sqlite3.Connection, span: Span, begin: int, end: int) -> DayColumns | None:
        starts = range(begin, end, self._interval_seconds)
        parts = [_interval(connection, start, span.edition) for start in starts]
        rows = np.concatenate(parts)
        if not len(rows):
            return None
        interval = np.repeat(np.arange(len(starts)), [len(part) for part in parts])
        channel = np.searchsorted(self._channel_ids, rows[:, 0])
        if channel.max() >= len(self._channel_ids) or (self._channel_ids[channel] != rows[:, 0]).any():
            raise StoreError("energy of a channel that the ledger has no row of: restore the latest backup")
        group = self._group_of_channel[channel]
        names, sites = self._sites_at(starts)
        site = sites[self._host_of_group[group], interval]
        if span.site is not None:
            wanted = site == (names.index(span.site) if span.site in names else -1)
            rows, interval, group, site = rows[wanted], interval[wanted], group[wanted], site[wanted]
            if not len(rows):
                return None
        return self._summed(begin, len(starts), rows, interval, group, site, names)

    def _sites_at(self, starts: range) -> tuple[list[str], _Integers]:
        """Names of sites in order, and which of them each host belongs to in each interval."""
        changing = any(starts[0] < at <= starts[-1] for at in self._changes)
        firsts = [self._sites.at(host, starts[0]) for host in self._hosts]
        if not changing:
            names = sorted(set(firsts))
            places = {name: place for place, name in enumerate(names)}
            column = np.fromiter((places[name] for name in firsts), np.int64, len(firsts))
            return names, np.repeat(column[:, None], len(starts), axis=1)
        table = [[self._sites.at(host, start) for start in starts] for host in self._hosts]
        names = sorted({name for row in table for name in row})
        places = {name: place for place, name in enumerate(names)}
        return names, np.array([[places[name] for name in row] for row in table], np.int64)

    def _summed(
        self,
        begin: int,
        intervals: int,
        rows: _Integers,
        interval: _Integers,
        group: _Integers,
        site: _Integers,
        names: list[str],
    ) -> DayColumns:
        # Groups are of a host and sorted, so that series come out sorted by host; within it they are sorted below.
        kinds, kind = _distinct(rows[:, 1])
        codes, place = _distinct((group * len(names) + site) * len(kinds) + kind)
        order = self._order(_Cells(codes.tobytes(), kinds.tobytes(), tuple(names)))
        cell = order.rank[place] * intervals + interval
        shape = (len(codes), intervals)
        return DayColumns(
            first_seconds=begin,
            interval_seconds=self._interval_seconds,
            series=order.series,
            energy_microjoules=_added(cell, rows[:, 2], shape),
            covered_nanoseconds=_added(cell, rows[:, 3], shape),
        )

    def _order(self, cells: "_Cells") -> "_Order":
        """The series of these cells. Mostly they are those of the day before, so that they are not made and sorted again."""
        latest = self._latest
        if latest is not None and latest[0] == cells:
            return latest[1]
        kinds = np.frombuffer(cells.kinds, np.int64).tolist()
        series = [self._series(code, cells.names, kinds) for code in np.frombuffer(cells.codes, np.int64).tolist()]
        order = sorted(range(len(series)), key=series.__getitem__)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        made = _Order(tuple(series[each] for each in order), rank)
        self._latest = cells, made
        return made

    def _series(self, code: int, names: Sequence[str], kinds: Sequence[int]) -> Series:
        rest, kind = divmod(code, len(kinds))
        group, site = divmod(rest, len(names))
        host, component, source, lower, upper, recorded = self._groups[group]
        edition, quality = divmod(kinds[kind], 1 << _EDITION_BITS)
        return Series(
            host, names[site], Component(component), Quality(quality), bool(recorded), edition, source, lower, upper
        )


class _Cells(NamedTuple):
    """What a day's rows are of: codes of group, site and kind in order, as bytes; the kinds, likewise; names of sites."""

    codes: bytes
    kinds: bytes
    names: tuple[str, ...]


class _Order(NamedTuple):
    """The series of a day, sorted, and the place of each code among them."""

    series: tuple[Series, ...]
    rank: _Integers


def _interval(connection: sqlite3.Connection, start: int, edition: int) -> _Integers:
    texts = connection.execute(_ROWS, (start, edition)).fetchone()
    if texts[0] is None:
        return np.empty((0, len(_VALUES)), np.int64)
    # All four are gathered in one walk over the rows, so that their places agree.
    return np.stack([np.fromstring(text, np.int64, sep=",") for text in texts], axis=1)


def _distinct(values: _Integers) -> tuple[_Integers, _Integers]:
    """The distinct values (>= 0) in order, and which of them each value is."""
    highest = int(values.max())
    if highest > _TABLE_MAX:
        distinct, places = np.unique(values, return_inverse=True)
        return distinct, places
    # A table of marks takes one walk, where sorting a day's million values takes twenty.
    marks = np.zeros(highest + 1, np.int64)
    marks[values] = 1
    return np.flatnonzero(marks), (np.cumsum(marks) - 1)[values]


def _added(cell: _Integers, values: _Integers, shape: tuple[int, int]) -> _Integers:
    sums = np.zeros(shape[0] * shape[1], np.int64)
    np.add.at(sums, cell, values)
    # Added as floating point as well, whose error is far below what a sum that passed 64 bits is off by.
    rough = np.bincount(cell, weights=values.astype(np.float64), minlength=len(sums))
    if (np.abs(rough - sums) > 2.0**62).any():
        raise StoreError("the energy of a host in one interval passes 64 bits: look for a false value in `report --json`")
    return sums.reshape(shape)
