"""A ledger of two sites and three hosts over days on which clocks change, with the year before: for tests of reports.

The figures are made up and easy to add: whole kilowatt-hours an hour. One name is markup, as names come from outside.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from tests.collector.bookings import energy, following, make_channel, opening

from wattledger_collector.records import (
    AssignmentRow,
    CommitOutcome,
    Component,
    EnergyRow,
    GapReason,
    GapRow,
    Method,
    SiteRow,
)
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_records import (
    IdlePolicy,
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadEnergyRow,
    WorkloadKind,
)

BERLIN = ZoneInfo("Europe/Berlin")
KWH = 3_600_000_000_000
NASTY = "<script>alert('x')</script> & \"co\""

FROM, TO = "2024-03-29", "2024-04-02"


def second(text: str) -> int:
    """Seconds of a time in Berlin."""
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp())


def hours(first: str, count: int, watts: int, channel: int = 1) -> list[EnergyRow]:
    """Energy of some hours, each in its four quarters."""
    begin = second(first)
    return [replace_covered(energy(watts * 900 * 10**6, channel, begin + quarter * 900)) for quarter in range(count * 4)]


def replace_covered(row: EnergyRow) -> EnergyRow:
    """The row, metered for all of its interval."""
    return EnergyRow(row.channel, row.interval_start_seconds, row.quality, row.energy_microjoules, 900 * 10**9)


def make_ledger(path: Path) -> None:
    """Write the ledger; 2024-03-31 has 23 hours in Berlin, of which host `a` lacks two."""
    with closing(open_store(path, create=True)) as store:
        store.add_sites([SiteRow("hall", 0, "DE", "1.2", False, 0), SiteRow(NASTY, 0, None, "1", False, 0)])
        store.add_assignments(
            [AssignmentRow(host, 0, site, 0) for host, site in zip("abc", ("hall", "hall", NASTY), strict=True)]
        )
        missing = GapRow(1, second("2024-03-31T10:00") * 10**9, second("2024-03-31T12:00") * 10**9, GapReason.RESET, 0, KWH)
        a = [*hours("2024-03-29", 58 - 1, 1000), *hours("2024-03-31T12:00", 36, 1000)]
        job = Workload(WorkloadKind.SLURM_JOB, "17", "physics", NASTY, IdlePolicy.EQUAL)
        pod = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.BY_USAGE)
        parts = tuple(
            WorkloadEnergyRow(each, second("2024-03-30"), Component.GPU, Method.COUNTER, amount * KWH)
            for each, amount in ((job, 50), (pod, 20))
        )
        spent = WorkloadBooking(WorkloadCursor(b"", 0, 0, {}, (), 0, 0), (job, pod), 0, parts, ())
        _book(store, "a", a, (missing,), None)
        _book(store, "b", [*hours("2023-03-29", 95, 1500, 2), *hours("2024-03-29", 95, 2000, 2)], (), spent)
        _book(store, "c", hours("2024-03-29", 95, 250), (), None)


def _book(
    store: SqliteStore, name: str, rows: Sequence[EnergyRow], gaps: tuple[GapRow, ...], spent: WorkloadBooking | None
) -> None:
    first = replace(opening(name), channels=(make_channel(1), make_channel(2, Component.GPU)))
    last = replace(following(first, rows), gaps=gaps, workloads=spent)
    # All that the host had to say of the days is said.
    points = {
        channel: msgspec.structs.replace(point, utc_nanoseconds=second(TO) * 10**9)
        for channel, point in last.cursor_after.points.items()
    }
    last = replace(last, cursor_after=msgspec.structs.replace(last.cursor_after, points=points))
    for booking in (first, last):
        assert store.commit([booking]) == [CommitOutcome.COMMITTED]
