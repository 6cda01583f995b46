"""One host as the fleet view sees it: its committed totals over all epochs, and its newest live reading.

No database and no clock. Totals are those of the cursors, which the ledger wrote: nothing is added up here that was not
committed. What others read is replaced as a whole, never changed in place, so that a reader needs no lock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from wattledger_collector.fleet_live import BOOKED_ROLES, LiveReading, SeriesKey, series_key
from wattledger_collector.fleet_workloads import HostWorkloadView
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    ChannelInfo,
    ChannelPoint,
    Cursor,
    Host,
    HostState,
    Method,
    Role,
)

KeyT = TypeVar("KeyT")

# The agent's source whose counters are made up.
SIMULATED_SOURCE = "fake"


@dataclass(frozen=True, slots=True, eq=False)
class ChannelName:
    """Names one metered flow of a host over all its epochs. One object of each in a host, compared by identity.

    is_nested: a meter inside another meter; it is not exposed, the outer one has seen its energy.
    """

    device: str
    domain: str
    source: str
    series: SeriesKey
    role: Role
    is_nested: bool

    @property
    def is_booked(self) -> bool:
        """Whether the flow is in the accounted cut."""
        return self.role in BOOKED_ROLES


class _Epoch:
    """One epoch's cursor and catalog, and what follows from them."""

    __slots__ = ("channels", "cursor", "last_opening_utc_nanoseconds", "names", "openings_utc_nanoseconds")

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.channels: dict[int, ChannelInfo] = {}
        self.names: dict[int, ChannelName] = {}
        # By booked channel; what a channel may have covered begins there.
        self.openings_utc_nanoseconds: dict[int, int] = {}
        # Of all booked channels; beyond any span if one of them is closed.
        self.last_opening_utc_nanoseconds = 0

    def learn(self, channels: Iterable[ChannelInfo], names: dict[tuple[str, ...], ChannelName]) -> None:
        for info in channels:
            self.channels[info.channel] = info
        for number, info in self.channels.items():
            parent = self.channels.get(info.parent_channel)
            nested = info.role is Role.METER and parent is not None and parent.role is Role.METER
            series = series_key(info.component, info.method)
            name = ChannelName(info.device, info.domain, info.source, series, info.role, nested)
            # Labels tell series apart, so two channels that differ in nothing else are one flow.
            same = (info.device, info.domain, info.source, info.component.name, info.method.name, info.role.name)
            self.names[number] = names.setdefault((*same, str(nested)), name)
            if info.is_booked:
                self.openings_utc_nanoseconds[number] = info.opening_realtime_nanoseconds
        is_any_closed = any(self.channels[number].closed for number in self.openings_utc_nanoseconds)
        latest = max(self.openings_utc_nanoseconds.values(), default=0)
        self.last_opening_utc_nanoseconds = 2**63 if is_any_closed else latest

    def add_totals(self, totals: dict[ChannelName, int], slack: dict[SeriesKey, int]) -> None:
        for number, point in self.cursor.points.items():
            name = self.names.get(number)
            if name is None:
                continue
            exposed = _exposed_microjoules(name, point)
            totals[name] = totals.get(name, 0) + exposed
            if exposed != point.booked_microjoules:
                slack[name.series] = slack.get(name.series, 0) + exposed - point.booked_microjoules

    def expected_nanoseconds(self, begin: int, end: int, *, is_newest: bool) -> int:
        total = 0
        for number, opening in self.openings_utc_nanoseconds.items():
            last = end
            if not is_newest or self.channels[number].closed:
                point = self.cursor.points.get(number)
                last = min(end, opening if point is None else point.utc_nanoseconds)
            total += max(0, last - max(opening, begin))
        return total

    def booked_microjoules(self) -> int:
        points = self.cursor.points
        return sum(points[number].booked_microjoules for number in self.openings_utc_nanoseconds if number in points)

    def last_utc_nanoseconds(self) -> int:
        return max((point.utc_nanoseconds for point in self.cursor.points.values()), default=0)


@dataclass(frozen=True, slots=True)
class Totals(Generic[KeyT]):
    """Committed lifetime microjoules by key. While the keys stay the same, so does the object that holds them."""

    keys: tuple[KeyT, ...]
    microjoules: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[KeyT, int]]:
        return zip(self.keys, self.microjoules, strict=True)

    def following(self, totals: Mapping[KeyT, int]) -> "Totals[KeyT]":
        """New totals."""
        keys = tuple(totals)
        return Totals(self.keys if self.keys == keys else keys, tuple(totals.values()))


def _exposed_microjoules(name: ChannelName, point: ChannelPoint) -> int:
    if name.role is Role.RESIDUAL:
        return max(point.booked_high_microjoules, point.booked_microjoules)
    return point.booked_microjoules


class HostEntry:
    """One host. Attributes without underscore are replaced as a whole and may be read without a lock.

    energy: microjoules by component and method, over the accounted cut of all epochs but recorded ones, which are summed
    in recorded_microjoules. channel_totals: the same by flow; meter_totals, shown_totals: what is not booked, by flow.
    slack: by how much the residuals in energy stand above their present value. last_sample_utc_nanoseconds: 0 if nothing
    was ever booked. collector: the one that the newest epoch's cursor names. ignored_live_values: how many present values
    could not be true since the collector's start.
    """

    __slots__ = (
        "_epochs",
        "_names",
        "_steady_channels",
        "_steady_since_utc_nanoseconds",
        "channel_totals",
        "collector",
        "created_utc_nanoseconds",
        "energy",
        "host",
        "ignored_live_values",
        "is_exposed",
        "is_recorded",
        "is_withheld",
        "labels",
        "last_sample_utc_nanoseconds",
        "live",
        "meter_totals",
        "record",
        "recorded_microjoules",
        "shown_totals",
        "site",
        "slack",
        "state",
        "workloads",
    )

    def __init__(self, record: Host, site: str) -> None:
        self.record = record
        self.host = record.host
        self.labels: Mapping[str, str] = record.labels
        self.state = HostState(record.state)
        self.site = site
        self.live: LiveReading | None = None
        self.ignored_live_values = 0
        self.workloads = HostWorkloadView()
        self.energy: Totals[SeriesKey] = Totals((), ())
        self.slack: Mapping[SeriesKey, int] = {}
        self.channel_totals: Totals[ChannelName] = Totals((), ())
        self.meter_totals: Totals[ChannelName] = Totals((), ())
        self.shown_totals: Totals[ChannelName] = Totals((), ())
        self.last_sample_utc_nanoseconds = 0
        self.created_utc_nanoseconds = 0
        self.recorded_microjoules = 0
        self.is_recorded = False
        self.is_withheld = record.withheld
        self.is_exposed = False
        self.collector = ""
        self._epochs: dict[bytes, _Epoch] = {}
        self._names: dict[tuple[str, ...], ChannelName] = {}
        self._steady_since_utc_nanoseconds = self._steady_channels = 0

    def show_live(self, reading: LiveReading) -> None:
        """Take over present values."""
        self.live = reading
        self.ignored_live_values += reading.details.ignored

    def update(self, record: Host, cursors: Sequence[tuple[Cursor, Iterable[ChannelInfo]]], collector: str) -> None:
        """Take over committed rows: the host, and cursors with the catalog rows that are new.

        collector: id of this collector; only the one that the newest epoch's cursor names exposes the host's counters.
        """
        self.record = record
        self.labels = record.labels
        self.state = HostState(record.state)
        for cursor, channels in cursors:
            epoch = self._epochs.get(cursor.epoch)
            if epoch is None:
                epoch = self._epochs[cursor.epoch] = _Epoch(cursor)
            epoch.cursor = cursor
            new = tuple(channels)
            if new:
                epoch.learn(new, self._names)
        if self._epochs:
            self._sum_up()
        self._judge(collector)
        self._steady_since_utc_nanoseconds, self._steady_channels = self._steadiness()

    @property
    def is_simulated(self) -> bool:
        """Whether any of its energy comes from the agent's source of made-up counters."""
        return any(name.source == SIMULATED_SOURCE for name in self._names.values())

    def channel(self, epoch: bytes, channel: int) -> ChannelInfo | None:
        """A channel of one of the host's epochs, if its catalog row was seen."""
        entry = self._epochs.get(epoch)
        return None if entry is None else entry.channels.get(channel)

    def channels(self) -> list[ChannelInfo]:
        """The newest epoch's catalog, closed channels left out."""
        newest = self._newest()
        return [] if newest is None else [info for info in newest.channels.values() if not info.closed]

    def bands(self) -> Iterable[tuple[ChannelInfo, int]]:
        """Each modelled booked channel with its committed microjoules, which weigh its band in that of a sum."""
        for epoch in list(self._epochs.values()):
            for number, point in epoch.cursor.points.items():
                info = epoch.channels.get(number)
                if info is not None and info.is_booked and info.method is Method.MODEL:
                    yield info, point.booked_microjoules

    def expected_nanoseconds(self, from_utc_nanoseconds: int, to_utc_nanoseconds: int) -> int:
        """Channel time that a host without gaps would have covered in the span: from each booked channel's opening.

        The newest epoch's open channels are expected up to the span's end, all others up to their last point.
        """
        if self._steady_since_utc_nanoseconds <= from_utc_nanoseconds:
            return self._steady_channels * max(0, to_utc_nanoseconds - from_utc_nanoseconds)
        newest = self._newest()
        return sum(
            epoch.expected_nanoseconds(from_utc_nanoseconds, to_utc_nanoseconds, is_newest=epoch is newest)
            for epoch in list(self._epochs.values())
        )

    def is_reporting(self, now_seconds: float, staleness_seconds: float) -> bool:
        """Whether a live value or a booked sample is fresh enough to count as the present."""
        live = self.live
        if live is not None and now_seconds - live.received_seconds <= staleness_seconds:
            return True
        return now_seconds - self.last_sample_utc_nanoseconds / NANOSECONDS_PER_SECOND <= staleness_seconds

    def fresh_live(self, now_seconds: float, staleness_seconds: float) -> LiveReading | None:
        """The newest live reading, unless it is older than the staleness window."""
        live = self.live
        return live if live is not None and now_seconds - live.received_seconds <= staleness_seconds else None

    def _steadiness(self) -> tuple[int, int]:
        """Since when the same booked channels were open, and how many: spares most hosts a look at every channel."""
        newest = self._newest()
        if newest is None:
            return 0, 0
        ends = [epoch.last_utc_nanoseconds() for epoch in self._epochs.values() if epoch is not newest]
        return max(newest.last_opening_utc_nanoseconds, *ends, 0), len(newest.openings_utc_nanoseconds)

    def _newest(self) -> _Epoch | None:
        return self._epochs.get(self.record.epochs[-1]) if self.record.epochs else None

    def _sum_up(self) -> None:
        totals: dict[ChannelName, int] = {}
        slack: dict[SeriesKey, int] = {}
        recorded = 0
        for epoch in self._epochs.values():
            if epoch.cursor.recorded:
                recorded += epoch.booked_microjoules()
            else:
                epoch.add_totals(totals, slack)
        # The mark in the cursor is the lasting one; a cursor of an older release has none, so the highest seen counts too.
        for name, microjoules in self.channel_totals:
            if name.role is Role.RESIDUAL and microjoules > totals.get(name, 0):
                slack[name.series] = slack.get(name.series, 0) + microjoules - totals.get(name, 0)
                totals[name] = microjoules
        energy: dict[SeriesKey, int] = {}
        for name, microjoules in totals.items():
            if name.is_booked:
                energy[name.series] = energy.get(name.series, 0) + microjoules
        self.channel_totals = self.channel_totals.following({n: m for n, m in totals.items() if n.is_booked})
        self.meter_totals = self.meter_totals.following(
            {n: m for n, m in totals.items() if n.role is Role.METER and not n.is_nested}
        )
        self.shown_totals = self.shown_totals.following(
            {n: m for n, m in totals.items() if n.role is Role.SHOWN or n.is_nested}
        )
        self.energy = self.energy.following(energy)
        self.slack = slack
        self.recorded_microjoules = recorded
        self.created_utc_nanoseconds = min(epoch.cursor.created_utc_nanoseconds for epoch in self._epochs.values())
        self.last_sample_utc_nanoseconds = max(epoch.last_utc_nanoseconds() for epoch in self._epochs.values())

    def _judge(self, collector: str) -> None:
        newest = self._newest()
        self.is_recorded = newest is not None and newest.cursor.recorded
        self.is_withheld = self.record.withheld or any(
            self._committed(epoch) < until for epoch, until in self.record.withheld_until.items()
        )
        self.collector = "" if newest is None else newest.cursor.collector
        self.is_exposed = newest is not None and self.collector == collector and not self.is_withheld

    def _committed(self, epoch: bytes) -> int:
        entry = self._epochs.get(epoch)
        return 0 if entry is None else entry.cursor.committed_sequence
