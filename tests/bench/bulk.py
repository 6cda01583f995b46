"""A fleet's year of energy, made by bulk load: the rows that booking would leave, without the booking.

Measures nothing. Hosts, cursors, channels, gaps, sites and factors go through the store; energy and roll-ups are generated.
The figures are made up and differ by interval, host and channel, so that sums would show a slip;
`test_bulk.py` compares a small fleet with one that was booked.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from wattledger_collector.factor_store import record_factors
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    AssignmentRow,
    Booking,
    ChannelInfo,
    ChannelPoint,
    Component,
    Cursor,
    GapReason,
    GapRow,
    Host,
    HostState,
    Method,
    Quality,
    Role,
    SiteRow,
)
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_records import (
    AccountPoint,
    IdlePolicy,
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadKind,
)

# 2025-01-01 UTC: a year that is over, of 35,040 intervals.
BEGIN_SECONDS = 1_735_689_600
DAY_SECONDS = 86_400
INTERVAL_SECONDS = 900
COVERED_NANOSECONDS = INTERVAL_SECONDS * NANOSECONDS_PER_SECOND
CHANNELS = 10
# Two of them in zones with a factor for each hour, and one of those without one for some hours in between.
SITES = (("hall-a", "DE", "1.18"), ("hall-b", "FR", "1.31"), ("hall-c", "US-CAMX", "1.24"), ("hall-d", "HOUR-1", "1.09"),
         ("hall-e", "HOUR-2", "1.4"), ("hall-f", "GB", "1.27"))  # fmt: skip
# Component, method and role by channel: two packages with their memory, four GPUs, an estimate, and a signed residual.
PARTS = (
    (Component.CPU, Method.COUNTER, Role.LEAF),
    (Component.CPU, Method.COUNTER, Role.LEAF),
    (Component.MEMORY, Method.COUNTER, Role.LEAF),
    (Component.MEMORY, Method.COUNTER, Role.LEAF),
    (Component.GPU, Method.COUNTER, Role.LEAF),
    (Component.GPU, Method.COUNTER, Role.LEAF),
    (Component.GPU, Method.COUNTER, Role.LEAF),
    (Component.GPU, Method.COUNTER, Role.LEAF),
    (Component.OTHER, Method.MODEL, Role.LEAF),
    (Component.OTHER, Method.INTEGRAL, Role.RESIDUAL),
)
# Every interval of the year another host's counters bridge a hole, and no host's often.
BRIDGED_EVERY = 97
# Of so many hosts one moves to the next site in the middle, and one falls silent a day before the end.
MOVES_EVERY, SILENT_EVERY = 25, 50
REBOOT_DAYS = 30
WORKLOADS = 20
WORKLOAD_COMPONENTS = (Component.CPU, Component.GPU)
CPU_NANOSECONDS = 40 * NANOSECONDS_PER_SECOND
_BOOT = b"b" * 16
_HOSTS_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Fleet:
    """How large a ledger is: servers with ten channels each, days of 15 minutes, the last ones of them with workloads."""

    hosts: int
    days: int
    workload_days: int = 0

    @property
    def end_seconds(self) -> int:
        """The first instant after all energy."""
        return BEGIN_SECONDS + self.days * DAY_SECONDS

    @property
    def starts(self) -> range:
        """Beginnings of all intervals."""
        return range(BEGIN_SECONDS, self.end_seconds, INTERVAL_SECONDS)

    @property
    def middle_seconds(self) -> int:
        """When some hosts change their site: within a day, as it happens."""
        return BEGIN_SECONDS + self.days * DAY_SECONDS // 2

    @property
    def workload_from_seconds(self) -> int:
        """Since when energy is divided over workloads."""
        return self.end_seconds - self.workload_days * DAY_SECONDS

    def until_seconds(self, number: int) -> int:
        """The first instant of which nothing is booked of a host."""
        return self.end_seconds - (DAY_SECONDS if number % SILENT_EVERY == 0 else 0)

    def site_place(self, number: int, start_seconds: int) -> int:
        """Which of SITES the host belongs to."""
        moved = number % MOVES_EVERY == 0 and start_seconds >= self.middle_seconds
        return (number + moved) % len(SITES)


def host_name(number: int) -> str:
    """The id of a host; the first has number 1."""
    return f"server-{number:05d}"


def energy_microjoules(start_seconds: int, number: int, channel: int) -> int:
    """What a channel of a host used in an interval: 100 to 144 W, a residual up to 33 W on either side of 0."""
    varied = (start_seconds // INTERVAL_SECONDS * 7919 + number * 104_729 + channel * 1_299_709) % 40_000_000_000
    return varied - 10_000_000_000 if PARTS[channel - 1][2] is Role.RESIDUAL else varied + 90_000_000_000


def quality(start_seconds: int, number: int, channel: int) -> Quality:
    """What the row is made of."""
    own = Quality(int(PARTS[channel - 1][1]))
    is_bridged = (start_seconds // INTERVAL_SECONDS + number) % BRIDGED_EVERY == 0
    return Quality.BRIDGED if own is Quality.COUNTER and is_bridged else own


def workload_microjoules(start_seconds: int, number: int, place: int, component: Component) -> int:
    """What a workload of a host used in an interval."""
    varied = start_seconds // INTERVAL_SECONDS * 7907 + number * 15_485_863 + place * 104_723 + component * 611_953
    return 2_000_000_000 + varied % 3_000_000_000


def workload(number: int, place: int) -> Workload:
    """A workload of a host: what is idle, what is nobody's, units of the system, and pods of some namespaces."""
    if place < 2:
        return Workload((WorkloadKind.IDLE, WorkloadKind.UNATTRIBUTED)[place], "", "", "", IdlePolicy.NODE_ONLY)
    if place < 6:
        return Workload(WorkloadKind.SYSTEMD_UNIT, f"unit-{place}.service", "", "", IdlePolicy.NODE_ONLY)
    team = f"team-{(number + place) % 12}"
    uid = f"uid-{number}-{place}"
    return Workload(WorkloadKind.KUBERNETES_POD, uid, team, f"service-{place}-{number}", IdlePolicy.NODE_ONLY)


def channel_info(channel: int) -> ChannelInfo:
    """A channel of any host."""
    component, method, role = PARTS[channel - 1]
    source = ("rapl", "replay", "estimate")[int(method) - 1]
    device = f"{component.name.lower()}/{channel}"
    return ChannelInfo(
        channel, device, component, "", source, method, role, 0, _BOOT, 0, BEGIN_SECONDS * NANOSECONDS_PER_SECOND, True,
        False, 700_000, 0.02, 0.03, "",
    )  # fmt: skip


def gaps_of(fleet: Fleet, number: int) -> tuple[GapRow, ...]:
    """A reboot of each month, which every counter missed, and one time of which the whole host told nothing."""
    second = NANOSECONDS_PER_SECOND
    rows = [
        GapRow(channel, at * second, (at + 240) * second, GapReason.REBOOT, 0, 700 * 240 * 1_000_000)
        for day in range(1, fleet.days, REBOOT_DAYS)
        for at in (BEGIN_SECONDS + day * DAY_SECONDS + number % 1000 * 60,)
        for channel in range(1, CHANNELS + 1)
        if PARTS[channel - 1][1] is Method.COUNTER
    ]
    at = BEGIN_SECONDS + number % 1000
    return (*rows, GapRow(0, at * second, (at + 60) * second, GapReason.EPOCH, 0, None))


def host_after(number: int, version: int) -> Host:
    """A host's row after so many bookings."""
    name = host_name(number)
    labels = {"hostname": name, "vendor": "made up"}
    return Host(name, version, f"machine-{number}", HostState.ACTIVE, labels, (), (), (_epoch(number),), False, {}, "")


def cursor_after(number: int, sequence: int, until_seconds: int, totals: Sequence[int]) -> Cursor:
    """A cursor's row after so many batches, all booked up to an instant; totals: microjoules by channel."""
    boottime = (until_seconds - BEGIN_SECONDS) * NANOSECONDS_PER_SECOND
    utc = until_seconds * NANOSECONDS_PER_SECOND
    points = {
        channel: ChannelPoint(_BOOT, boottime, utc, total, 0, 0, 0, total, total) for channel, total in enumerate(totals, 1)
    }
    created = BEGIN_SECONDS * NANOSECONDS_PER_SECOND
    return Cursor(host_name(number), _epoch(number), sequence, created, False, "bench", points)


def workload_cursor(fleet: Fleet, number: int, until_seconds: int) -> WorkloadCursor:
    """How far a host's workloads are booked at an instant; the sums are not kept true, as no report reads them."""
    boottime = (until_seconds - BEGIN_SECONDS) * NANOSECONDS_PER_SECOND
    accounts = {place: AccountPoint((), 0) for place in range(1, WORKLOADS + 1)}
    return WorkloadCursor(_BOOT, boottime, until_seconds * NANOSECONDS_PER_SECOND, accounts, (), fleet.hosts + number, 0)


def add_sites_and_factors(store: SqliteStore, fleet: Fleet) -> None:
    """What is known beside the meters."""
    store.add_sites([SiteRow(site, 0, zone, pue, False, BEGIN_SECONDS) for site, zone, pue in SITES])
    assignments = []
    for number in range(1, fleet.hosts + 1):
        name = host_name(number)
        assignments.append(AssignmentRow(name, 0, SITES[fleet.site_place(number, 0)][0], BEGIN_SECONDS))
        if number % MOVES_EVERY == 0:
            at = fleet.middle_seconds
            assignments.append(AssignmentRow(name, at, SITES[fleet.site_place(number, at)][0], at))
    store.add_assignments(assignments)
    for zone in ("HOUR-1", "HOUR-2"):
        record_factors(store, list(_hourly_factors(fleet, zone)), now_seconds=fleet.end_seconds + DAY_SECONDS)


def _hourly_factors(fleet: Fleet, zone: str) -> Iterator[Factor]:
    kind = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2E, Basis.CONSUMPTION)
    for hour in range(fleet.days * 24):
        if zone == "HOUR-2" and hour % 1000 in range(500, 508):
            # Eight hours without a figure: six of them carried, two uncovered.
            continue
        start = BEGIN_SECONDS + hour * 3600
        value = Decimal(300 + (hour * 37 + len(zone)) % 211) + Decimal(hour % 1000) / 1000
        yield Factor(
            zone=zone,
            name=f"made up, {zone}",
            value=value,
            kind=kind,
            includes_td=False,
            valid_from_seconds=start,
            valid_to_seconds=start + 3600,
            published=date(2026, 1, 2),
            source="made up",
            document="tests/bench/bulk.py",
            licence="none",
            attribution="made up",
            recorded_at_seconds=fleet.end_seconds + DAY_SECONDS,
            tier=Tier.F0_MEASURED,
        )


def build_ledger(path: Path, fleet: Fleet) -> int:
    """Make a ledger at `path` as booking a day at a time would leave it; returns how many rows of energy it has."""
    totals = np.zeros((fleet.hosts, CHANNELS), dtype=np.int64)
    rollups = _Rollups(fleet, totals)
    with closing(open_store(path, create=True, interval_seconds=INTERVAL_SECONDS)) as store:
        add_sites_and_factors(store, fleet)
    rows = _load_energy(path, fleet, rollups)
    with closing(open_store(path, create=False)) as store:
        _commit_hosts(store, fleet, totals)
    if fleet.workload_days:
        _load_workloads(path, fleet)
    return rows


def last_booking(fleet: Fleet, number: int, totals: Sequence[int], sequence: int) -> Booking:
    """A host's rows after its last batch, as if it were the first, without energy."""
    until = fleet.until_seconds(number)
    spent = None
    if fleet.workload_days:
        seen = tuple(workload(number, place) for place in range(WORKLOADS))
        after = workload_cursor(fleet, number, until)
        spent = WorkloadBooking(after, seen, until * NANOSECONDS_PER_SECOND, (), ())
    return Booking(
        host_before=None,
        host_after=host_after(number, sequence),
        cursor_before=None,
        cursor_after=cursor_after(number, sequence, until, totals),
        channels=tuple(channel_info(channel) for channel in range(1, CHANNELS + 1)),
        gaps=gaps_of(fleet, number),
        workloads=spent,
    )


def _commit_hosts(store: SqliteStore, fleet: Fleet, totals: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    bookings = []
    for number in range(1, fleet.hosts + 1):
        days = (fleet.until_seconds(number) - BEGIN_SECONDS) // DAY_SECONDS
        bookings.append(last_booking(fleet, number, totals[number - 1].tolist(), days))
    for begin in range(0, len(bookings), _HOSTS_AT_ONCE):
        store.commit(bookings[begin : begin + _HOSTS_AT_ONCE])


def _epoch(number: int) -> bytes:
    return number.to_bytes(16, "big")


class _Rollups:
    """The roll-ups of one interval after the other, reckoned in whole numbers; adds what each channel used to totals."""

    def __init__(self, fleet: Fleet, totals: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self._fleet = fleet
        self._totals = totals
        self._numbers = np.arange(1, fleet.hosts + 1, dtype=np.int64)
        channels = np.arange(1, CHANNELS + 1, dtype=np.int64)
        self._own = self._numbers[:, None] * 104_729 + channels[None, :] * 1_299_709
        self._shift = np.array([-10_000_000_000 if role is Role.RESIDUAL else 90_000_000_000 for _, _, role in PARTS])
        self._untils = np.array([fleet.until_seconds(number) for number in self._numbers.tolist()])
        # Cells of one site: (component, quality), those of counters and their bridged twins.
        self._kinds = sorted(
            {(part, Quality(int(method))) for part, method, _ in PARTS}
            | {(part, Quality.BRIDGED) for part, method, _ in PARTS if method is Method.COUNTER}
        )
        self._plain = np.array([self._kinds.index((part, Quality(int(method)))) for part, method, _ in PARTS])
        self._bridged = np.array(
            [
                self._kinds.index((part, Quality.BRIDGED if method is Method.COUNTER else Quality(int(method))))
                for part, method, _ in PARTS
            ]
        )
        self._places: dict[bool, np.ndarray[Any, np.dtype[np.int64]]] = {
            later: np.array(
                [fleet.site_place(number, fleet.middle_seconds if later else 0) for number in self._numbers.tolist()]
            )
            for later in (False, True)
        }

    def rows(self, starts: range) -> Iterator[tuple[int, str, int, int, int, int, int, int]]:
        """Rows of the table, in order of its key."""
        cells = len(SITES) * len(self._kinds)
        for start in starts:
            number = start // INTERVAL_SECONDS
            energy = (number * 7919 + self._own) % 40_000_000_000 + self._shift
            is_bridged = (number + self._numbers) % BRIDGED_EVERY == 0
            kind = np.where(is_bridged[:, None], self._bridged[None, :], self._plain[None, :])
            cell = self._places[start >= self._fleet.middle_seconds][:, None] * len(self._kinds) + kind
            told = start < self._untils
            if not told.all():
                energy, cell = energy[told], cell[told]
            self._totals[told] += energy
            sums = np.zeros(cells, dtype=np.int64)
            np.add.at(sums, cell.ravel(), energy.ravel())
            counts = np.bincount(cell.ravel(), minlength=cells)
            for place, (total, count) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True)):
                if count:
                    site, (component, kept) = SITES[place // len(self._kinds)][0], self._kinds[place % len(self._kinds)]
                    yield start, site, int(component), int(kept), 0, 0, total, count * COVERED_NANOSECONDS


def _load_energy(path: Path, fleet: Fleet, rollups: _Rollups) -> int:
    with closing(_careless(path)) as connection:
        connection.execute("CREATE TEMP TABLE machine (id INTEGER PRIMARY KEY, own INTEGER, until INTEGER)")
        machines = ((number, number * 104_729, fleet.until_seconds(number)) for number in range(1, fleet.hosts + 1))
        connection.executemany("INSERT INTO machine VALUES (?, ?, ?)", machines)
        connection.execute("CREATE TEMP TABLE part (channel INTEGER PRIMARY KEY, own, shift, quality, bridged)")
        for channel, (_, method, role) in enumerate(PARTS, 1):
            shift = -10_000_000_000 if role is Role.RESIDUAL else 90_000_000_000
            bridged = int(Quality.BRIDGED) if method is Method.COUNTER else int(method)
            connection.execute(
                "INSERT INTO part VALUES (?, ?, ?, ?, ?)", (channel, channel * 1_299_709, shift, int(method), bridged)
            )
        rows = 0
        for day in range(fleet.days):
            begin = BEGIN_SECONDS + day * DAY_SECONDS
            connection.execute("BEGIN")
            for start in range(begin, begin + DAY_SECONDS, INTERVAL_SECONDS):
                rows += connection.execute(_ENERGY_OF_INTERVAL, {"start": start}).rowcount
            starts = range(begin, begin + DAY_SECONDS, INTERVAL_SECONDS)
            connection.executemany("INSERT INTO rollup VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rollups.rows(starts))
            connection.execute("COMMIT")
    return rows


# In order of the key, so that each row is put behind the last.
_ENERGY_OF_INTERVAL = (
    f"INSERT INTO energy SELECT :start, m.id << 32 | p.channel, "
    f"CASE WHEN (:start / {INTERVAL_SECONDS} + m.id) % {BRIDGED_EVERY} = 0 THEN p.bridged ELSE p.quality END, 0, "
    f"(:start / {INTERVAL_SECONDS} * 7919 + m.own + p.own) % 40000000000 + p.shift, {COVERED_NANOSECONDS} "
    "FROM machine AS m CROSS JOIN part AS p WHERE :start < m.until"
)


def _load_workloads(path: Path, fleet: Fleet) -> None:
    """Energy of workloads; their own rows were committed with their hosts, twenty for each, in order."""
    cpu, gpu = (int(component) for component in WORKLOAD_COMPONENTS)
    with closing(_careless(path)) as connection:
        connection.execute("CREATE TEMP TABLE task (id INTEGER PRIMARY KEY, own INTEGER, until INTEGER)")
        keys = connection.execute("SELECT w.id, host_id, workload, name, kind FROM workload AS w ORDER BY w.id").fetchall()
        places = {
            (number, each.kind, each.id): place
            for number in range(1, fleet.hosts + 1)
            for place in range(WORKLOADS)
            for each in (workload(number, place),)
        }
        for key, number, name, _, kind in keys:
            own = number * 15_485_863 + places[number, WorkloadKind(kind), name] * 104_723
            connection.execute("INSERT INTO task VALUES (?, ?, ?)", (key, own, fleet.until_seconds(number)))
        for begin in range(fleet.workload_from_seconds, fleet.end_seconds, DAY_SECONDS):
            connection.execute("BEGIN")
            for start in range(begin, begin + DAY_SECONDS, INTERVAL_SECONDS):
                values = {"start": start}
                connection.execute(
                    f"INSERT INTO workload_energy SELECT :start, t.id, p.column1, {int(Method.COUNTER)}, 2000000000 + "
                    f"(:start / {INTERVAL_SECONDS} * 7907 + t.own + p.column1 * 611953) % 3000000000 "
                    f"FROM task AS t CROSS JOIN (VALUES ({cpu}), ({gpu})) AS p WHERE :start < t.until",
                    values,
                )
                connection.execute(
                    f"INSERT INTO workload_time SELECT :start, id, {CPU_NANOSECONDS} FROM task WHERE :start < until", values
                )
            connection.execute("COMMIT")
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO workload_total SELECT workload_id, component, method, sum(energy_microjoules) FROM workload_energy "
            "GROUP BY 1, 2, 3"
        )
        connection.execute(
            f"UPDATE workload SET cpu_nanoseconds = {CPU_NANOSECONDS} * (SELECT max(0, t.until - "
            f"{fleet.workload_from_seconds}) / {INTERVAL_SECONDS} FROM task AS t WHERE t.id = workload.id)"
        )
        connection.execute("COMMIT")


def _careless(path: Path) -> sqlite3.Connection:
    """A connection for the load alone: what a crash would leave is thrown away."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("PRAGMA cache_size = -65536")
    return connection
