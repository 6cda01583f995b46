"""What every store of the ledger must do, and what SQLite must do beyond that."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from tests.collector.bookings import BOOT, EPOCH, INTERVAL, energy, following, make_channel, make_cursor, opening

from wattledger_collector import database, migrations, schema
from wattledger_collector.hot_writes import EVIDENCE_PAYLOADS_MAX
from wattledger_collector.records import (
    AssignmentRow,
    Booking,
    CommitOutcome,
    Component,
    EmissionBasis,
    EmissionRun,
    EvidenceRow,
    GapReason,
    GapRow,
    Method,
    Quality,
    SiteRow,
    Store,
    StoreError,
    UtilizationRow,
)
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_records import (
    AccountPoint,
    HostWorkloads,
    IdlePolicy,
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadEnergyRow,
    WorkloadKind,
    WorkloadTimeRow,
)

COMMITTED, STALE, REJECTED = CommitOutcome.COMMITTED, CommitOutcome.STALE, CommitOutcome.REJECTED
ALL_TIME = (0, 2**40)
WORKLOAD_TABLES = ["workload", "workload_energy", "workload_time", "workload_total", "workload_cursor"]

OpenStore = Callable[[], Store]


@pytest.fixture(params=["sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens one database as often as asked: each call is another collector on it."""
    stores: list[Store] = []

    def open_again() -> Store:
        assert request.param == "sqlite"
        stores.append(open_store(tmp_path / "ledger.db", create=True))
        return stores[-1]

    yield open_again
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: OpenStore) -> Store:
    """One collector's store on an empty database."""
    return opened()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty SQLite store, for what is said of SQLite alone."""
    store = open_store(tmp_path / "ledger.db", create=True)
    yield store
    store.close()


def sum_of(store: Store, *, host: str | None = None) -> int:
    """All energy in the rows."""
    return sum(row.energy_microjoules for row in store.host_energy(*ALL_TIME, host))


def sum_of_rollups(store: Store) -> int:
    """All energy in the roll-up."""
    return sum(row.energy_microjoules for row in store.rollups(*ALL_TIME))


def test_what_was_committed_is_loaded_again_equal(store: Store) -> None:
    """Host, cursor and channels come back as they went in."""
    booking = opening(channels=3)
    assert store.commit([booking]) == [COMMITTED]
    assert store.load_host("a") == booking.host_after
    assert store.load_cursor("a", EPOCH) == booking.cursor_after
    assert store.load_channels("a", EPOCH) == {info.channel: info for info in booking.channels}
    assert [store.load_host("b"), store.load_cursor("a", b"other"), store.load_cursor("b", EPOCH)] == [None, None, None]
    assert store.load_channels("b", EPOCH) == {}


def test_what_was_committed_survives_the_store(opened: OpenStore) -> None:
    """A store opened later sees all of it."""
    first = opened()
    booking = following(opening(), [energy(5)])
    first.commit([opening()])
    first.commit([booking])
    first.close()
    second = opened()
    assert second.load_cursor("a", EPOCH) == booking.cursor_after
    assert (sum_of(second), sum_of_rollups(second)) == (5, 5)


def test_energy_is_added_per_channel_interval_and_quality(store: Store) -> None:
    """Rows of one key add up; other qualities and intervals have rows of their own."""
    start = opening(channels=2)
    first = following(start, [energy(1), energy(10, channel=2), energy(100, quality=Quality.BRIDGED)])
    second = following(first, [energy(2), energy(1000, start=INTERVAL + 900)])
    for booking in (start, first, second):
        assert store.commit([booking]) == [COMMITTED]
    rows = {
        (row.channel.channel, row.interval_start_seconds, row.quality): (row.energy_microjoules, row.covered_nanoseconds)
        for row in store.host_energy(*ALL_TIME)
    }
    second_of_time = 1_000_000_000
    assert rows == {
        (1, INTERVAL, Quality.COUNTER): (3, 2 * second_of_time),
        (1, INTERVAL, Quality.BRIDGED): (100, second_of_time),
        (2, INTERVAL, Quality.COUNTER): (10, second_of_time),
        (1, INTERVAL + 900, Quality.COUNTER): (1000, second_of_time),
    }
    assert sum_of_rollups(store) == 1113


def test_a_signed_residual_is_stored_with_its_sign(store: Store) -> None:
    """Energy below zero is a value like any other."""
    start = opening()
    store.commit([start])
    store.commit([following(start, [energy(-7)])])
    assert (sum_of(store), sum_of_rollups(store)) == (-7, -7)


def test_many_hosts_in_one_commit(store: Store) -> None:
    """As many hosts as a group holds, new and known ones, all in one commit."""
    starts = [opening(f"h{number}", channels=12) for number in range(150)]
    assert store.commit(starts) == [COMMITTED] * 150
    rows = [energy(number, channel=number) for number in range(1, 13)]
    more = [following(start, rows) for start in starts] + [opening("new")]
    assert store.commit(more) == [COMMITTED] * 151
    assert sum_of(store) == sum_of_rollups(store) == 150 * 78
    assert sum_of(store, host="h149") == 78
    assert [row.covered_nanoseconds for row in store.rollups(*ALL_TIME)] == [150 * 12 * 1_000_000_000]


def test_a_zombie_is_stale_and_changes_nothing(opened: OpenStore) -> None:
    """Of two collectors that compute from one cursor, the second to commit is told so, and none of its rows stay."""
    one, other = opened(), opened()
    start = opening()
    one.commit([start])
    assert other.load_host("a") == start.host_after
    ours, zombies = following(start, [energy(5)]), following(start, [energy(3)])
    assert one.commit([ours]) == [COMMITTED]
    neighbour = opening("b")
    assert other.commit([zombies, neighbour]) == [STALE, COMMITTED]
    assert (sum_of(one), sum_of_rollups(other)) == (5, 5)
    assert other.load_cursor("a", EPOCH) == ours.cursor_after
    again = following(ours, [energy(3)])
    assert other.commit([again]) == [COMMITTED]
    assert sum_of(one) == 8


def test_a_booking_is_stale_if_only_its_host_changed(store: Store) -> None:
    """Another epoch of the host booked meanwhile: the cursor is the same, the host is not."""
    start = opening()
    store.commit([start])
    moved = replace(following(start), cursor_before=None, cursor_after=make_cursor("a", b"another-epoch-16"))
    assert store.commit([moved]) == [COMMITTED]
    assert store.commit([following(start, [energy(5)])]) == [STALE]
    assert sum_of(store) == 0


def test_a_booking_is_stale_if_only_its_cursor_changed(store: Store) -> None:
    """The host's row is as it was, the cursor's is not: nothing of the booking stays, not even its host."""
    start = opening()
    store.commit([start])
    wrong = replace(following(start), cursor_before=msgspec.structs.replace(start.cursor_after, collector="other"))
    assert store.commit([wrong]) == [STALE]
    assert store.load_host("a") == start.host_after
    assert store.commit([following(start)]) == [COMMITTED]


@pytest.mark.parametrize("which", ["host", "cursor", "both"])
def test_what_should_be_new_but_is_stored_is_stale(store: Store, which: str) -> None:
    """Two collectors get the first Hello of one host: the second is stale."""
    start = opening()
    store.commit([start])
    again = following(start)
    if which in ("host", "both"):
        again = replace(again, host_before=None)
    if which in ("cursor", "both"):
        again = replace(again, cursor_before=None)
    assert store.commit([again]) == [STALE]
    assert store.load_host("a") == start.host_after


def test_what_should_be_stored_but_is_not_is_stale(store: Store) -> None:
    """After a restore of an older copy, bookings from rows that are gone are stale."""
    assert store.commit([following(opening())]) == [STALE]
    assert store.load_host("a") is None


def test_a_booking_that_changes_nothing_is_compared_all_the_same(opened: OpenStore) -> None:
    """A repeated batch is acknowledged only if what its stream knows is still true."""
    one, other = opened(), opened()
    start = opening()
    one.commit([start])
    repeated = replace(following(start), host_after=start.host_after, cursor_after=start.cursor_after)
    assert one.commit([repeated]) == [COMMITTED]
    other.commit([following(start)])
    assert one.commit([repeated]) == [STALE]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda booking: replace(booking, energy=(energy(2**63),)),
        lambda booking: replace(booking, energy=(energy(1, channel=99),)),
        lambda booking: replace(booking, energy=(energy(2**63 - 1), energy(2**63 - 1))),
        lambda booking: replace(booking, energy=(energy(-(2**63) + 1), energy(-5))),
        lambda booking: replace(booking, channels=(replace(make_channel(2), model="\ud800"),)),
        lambda booking: replace(booking, channels=(replace(make_channel(2), power_bound_milliwatts=2**63),)),
        lambda booking: replace(booking, channels=(replace(make_channel(2), channel=2**32),)),
        lambda booking: replace(booking, gaps=(GapRow(1, 0, 2**64, GapReason.RESET, 0, None),)),
        lambda booking: replace(
            booking, cursor_after=msgspec.structs.replace(booking.cursor_after, committed_sequence=2**70)
        ),
    ],
)
def test_what_cannot_be_stored_is_rejected_alone(store: Store, spoil: Callable[[Booking], Booking]) -> None:
    """The culprit is rejected, with nothing of it left, and the others of its commit are committed."""
    starts = [opening(name) for name in ("a", "b", "c")]
    store.commit(starts)
    good_a, bad_b, good_c = (following(start, [energy(5)]) for start in starts)
    assert store.commit([good_a, spoil(bad_b), good_c]) == [COMMITTED, REJECTED, COMMITTED]
    assert (sum_of(store), sum_of(store, host="b"), sum_of_rollups(store)) == (10, 0, 10)
    assert store.load_cursor("b", EPOCH) == starts[1].cursor_after
    assert set(store.load_channels("b", EPOCH)) == {1}
    assert store.commit([bad_b]) == [COMMITTED]


def test_a_sum_that_would_pass_64_bits_is_rejected_and_not_rounded(store: Store) -> None:
    """SQLite would turn such a sum into a floating point number."""
    start = opening()
    first = following(start, [energy(2**62)])
    second = following(first, [energy(2**62 - 1)])
    third = following(second, [energy(1)])
    assert [store.commit([booking]) for booking in (start, first, second, third)] == [
        [COMMITTED],
        [COMMITTED],
        [COMMITTED],
        [REJECTED],
    ]
    assert sum_of(store) == 2**63 - 1


def test_two_bookings_of_one_host_are_refused(store: Store) -> None:
    """The second would be computed from rows that the first changes."""
    with pytest.raises(ValueError, match="one booking of each host"):
        store.commit([opening(), opening()])


def test_an_empty_commit_does_nothing(store: Store) -> None:
    """No booking, no transaction."""
    assert store.commit([]) == []


def test_channels_are_updated(store: Store) -> None:
    """A channel that is closed later is stored as closed."""
    start = opening()
    store.commit([start])
    closed = replace(start.channels[0], closed=True)
    store.commit([replace(following(start), channels=(closed, make_channel(2, Component.GPU)))])
    assert store.load_channels("a", EPOCH) == {1: closed, 2: make_channel(2, Component.GPU)}


def test_energy_of_a_channel_added_by_the_same_booking(store: Store) -> None:
    """Catalog and energy may come together, for a known epoch too; the roll-up gets the channel's component."""
    start = opening()
    store.commit([start])
    grown = following(start, [energy(5), energy(7, channel=2)])
    store.commit([replace(grown, channels=(make_channel(2, Component.GPU),))])
    store.commit([following(grown, [energy(1, channel=2)])])
    found = {row.component: row.energy_microjoules for row in store.rollups(*ALL_TIME)}
    assert found == {Component.CPU: 5, Component.GPU: 8}


def test_peer_cursors_are_those_of_other_epochs(store: Store) -> None:
    """Only of the same host, and never the epoch itself."""
    start = opening()
    other = make_cursor("a", b"another-epoch-16")
    store.commit([start, opening("b")])
    store.commit([replace(following(start), cursor_before=None, cursor_after=other)])
    assert store.load_peer_cursors("a", EPOCH) == [other]
    assert store.load_peer_cursors("a", other.epoch) == [start.cursor_after]
    assert [cursor.host for cursor in store.cursors()] == ["a", "b", "a"]
    assert [host.host for host in store.hosts()] == ["a", "b"]


def test_energy_goes_to_the_site_that_the_host_has_at_the_interval(store: Store) -> None:
    """Assignments are dated; a time before the first one has no site; of two for one time the later recorded holds."""
    start = opening()
    store.commit([start])
    store.add_assignments([AssignmentRow("a", INTERVAL, "hall", 1), AssignmentRow("a", INTERVAL + 900, "oops", 2)])
    store.add_assignments([AssignmentRow("a", INTERVAL + 900, "other", 3), AssignmentRow("b", 0, "wrong", 3)])
    rows = [energy(1, start=INTERVAL - 900), energy(2), energy(4, start=INTERVAL + 900), energy(8, start=INTERVAL + 1800)]
    store.commit([following(start, rows)])
    found = [(row.site, row.interval_start_seconds - INTERVAL, row.energy_microjoules) for row in store.rollups(*ALL_TIME)]
    assert found == [("hall", 0, 2), ("other", 900, 4), ("other", 1800, 8), ("unassigned", -900, 1)]
    assert [row.energy_microjoules for row in store.rollups(*ALL_TIME, "other")] == [4, 8]
    assert [row.energy_microjoules for row in store.rollups(INTERVAL, INTERVAL + 900)] == [2]


def test_a_new_assignment_reaches_other_collectors_and_moves_nothing_booked(opened: OpenStore) -> None:
    """A collector that has booked already follows an assignment that another process adds."""
    one, other = opened(), opened()
    start = opening()
    first = following(start, [energy(1)])
    one.commit([start])
    one.commit([first])
    other.add_assignments([AssignmentRow("a", 0, "hall", 1)])
    one.commit([following(first, [energy(2)])])
    assert [(row.site, row.energy_microjoules) for row in one.rollups(*ALL_TIME)] == [("hall", 2), ("unassigned", 1)]


def test_recorded_energy_has_rows_of_its_own(store: Store) -> None:
    """A replayed host never shares a roll-up row with a live one."""
    starts = [opening("a"), opening("b", recorded=True)]
    store.commit(starts)
    store.commit([following(start, [energy(5)]) for start in starts])
    assert [(row.recorded, row.energy_microjoules) for row in store.rollups(*ALL_TIME)] == [(False, 5), (True, 5)]
    assert {row.host: row.recorded for row in store.host_energy(*ALL_TIME)} == {"a": False, "b": True}


def test_host_energy_of_a_time_and_a_host(store: Store) -> None:
    """The interval's start decides, from inclusive, to exclusive; unaligned limits are limits all the same."""
    starts = [opening("a"), opening("b")]
    store.commit(starts)
    rows = [energy(1), energy(2, start=INTERVAL + 900), energy(4, start=INTERVAL + 1800)]
    store.commit([following(start, rows) for start in starts])

    def found(from_seconds: int, to_seconds: int, host: str | None = None) -> list[int]:
        return [row.energy_microjoules for row in store.host_energy(from_seconds, to_seconds, host)]

    assert found(INTERVAL + 900, INTERVAL + 1800) == [2, 2]
    for host in ("a", "b"):
        assert found(INTERVAL + 900, INTERVAL + 1800, host) == [2]
        assert found(INTERVAL + 1, INTERVAL + 1801, host) == [2, 4]
        assert found(INTERVAL - 10_000, INTERVAL + 1, host) == [1]
        assert found(*ALL_TIME, host) == [1, 2, 4]
    assert found(*ALL_TIME, "c") == found(INTERVAL, INTERVAL, "a") == found(INTERVAL + 9000, 2**60, "a") == []


def test_gaps_that_overlap_a_time(store: Store) -> None:
    """With bounds, host, channel and the site at the gap's beginning; a gap of the whole host has no channel."""
    start = opening()
    store.commit([start])
    store.add_assignments([AssignmentRow("a", 10, "hall", 0)])
    whole = GapRow(0, 5_000_000_000, 10_000_000_000, GapReason.EPOCH, 0, None)
    part = GapRow(1, 10_000_000_000, 20_000_000_000, GapReason.RESET, -3, 7)
    store.commit([replace(following(start), gaps=(whole, part))])
    first, second = store.gaps(*ALL_TIME)
    assert (first.gap, first.channel, first.site, first.host, first.epoch) == (whole, None, "unassigned", "a", EPOCH)
    assert (second.gap, second.channel, second.site, second.recorded) == (part, make_channel(1), "hall", False)
    assert [row.gap for row in store.gaps(10, 20)] == [part]
    assert [row.gap for row in store.gaps(9, 10)] == [whole]
    assert list(store.gaps(20, 2**62)) == list(store.gaps(*ALL_TIME, "b")) == []


def test_bases_are_read_as_runs(store: Store) -> None:
    """Adjacent intervals that differ in nothing but time are one run; a hole, another value or another site begins one."""
    assert list(store.emission_runs()) == []
    alike = EmissionBasis("hall", INTERVAL, "380.1", "factor-1", "1.2", "0.5", "factor-3", "2", "3.8", "F4")
    intervals = [replace(alike, interval_start_seconds=INTERVAL + 900 * index) for index in (0, 1, 2, 4, 5)]
    changed = [replace(intervals[-1], interval_start_seconds=INTERVAL + 900 * 6, factor_tier="F5")]
    elsewhere = [replace(changed[0], site="hallway", interval_start_seconds=INTERVAL + 900 * 7)]
    store.add_emission_bases([*intervals, *changed, *elsewhere])
    runs = [(intervals[0], 3), (intervals[3], 6), (changed[0], 7), (elsewhere[0], 8)]
    assert list(store.emission_runs()) == [EmissionRun(basis, INTERVAL + 900 * end) for basis, end in runs]


def test_sites_and_bases_are_kept(store: Store) -> None:
    """Site rows are listed by site and time; an emission basis, once kept, stays."""
    late = SiteRow("hall", 20, "DE", "1.2", False, 30, "2023-01-01", "2024-01-01", "2", "audit 7")
    early = SiteRow("hall", 10, None, "1.5", True, 30)
    store.add_sites([late])
    store.add_sites([early])
    assert store.sites() == [early, late]
    first = EmissionBasis("hall", INTERVAL, "380.1", "factor-1", "1.2")
    store.add_emission_bases([first])
    later = EmissionBasis("hall", INTERVAL + 900, "1", "factor-2", "1.2", "0.5", "factor-3", "2", "3.8", "F4")
    other = EmissionBasis("annex", INTERVAL, "7", "factor-2", "1")
    store.add_emission_bases([other])
    stands = store.add_emission_bases([EmissionBasis("hall", INTERVAL, "9", "factor-2", "1.2"), later])
    assert stands == [first, later]
    assert list(store.emission_bases()) == [other, first, later]
    assert [run.basis for run in store.emission_runs()] == [other, first, later]
    store.add_sites([])
    store.add_assignments([])
    store.add_emission_bases([])


POD = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.NODE_ONLY)
POD_AGAIN = POD._replace(id="uid-2")
SEEN = INTERVAL * 1_000_000_000


def spending(
    before: Booking, *spent: tuple[Workload, int], start: int = INTERVAL, cpu_nanoseconds: int = 0, seen: int = SEEN
) -> Booking:
    """The next booking: these workloads used this much CPU energy, and all of them this CPU time."""
    return replace(
        following(before),
        workloads=WorkloadBooking(
            WorkloadCursor(BOOT, 5, 6, {1: AccountPoint(((1, 1, spent[0][1]),), 0)}, ((3, 4),), spent[0][1], 0),
            tuple(workload for workload, _ in spent),
            seen,
            tuple(WorkloadEnergyRow(each, start, Component.CPU, Method.COUNTER, value) for each, value in spent),
            tuple(WorkloadTimeRow(each, start, cpu_nanoseconds) for each, _ in spent),
        ),
    )


def test_energy_of_workloads_is_added_and_their_cursor_kept(store: Store) -> None:
    """Rows of one key add up; what the next batch is computed from comes back as it went in."""
    start = opening()
    first = spending(start, (POD, 5), cpu_nanoseconds=7)
    second = spending(first, (POD, 2), (POD_AGAIN, 10))
    third = spending(second, (POD, 100), start=INTERVAL + 900)
    assert store.load_workload_cursor("a", EPOCH) is None
    for booking in (start, first, second, third):
        assert store.commit([booking]) == [COMMITTED]
    rows = {(row.workload, row.interval_start_seconds): row.energy_microjoules for row in store.workload_energy(*ALL_TIME)}
    assert rows == {(POD, INTERVAL): 7, (POD_AGAIN, INTERVAL): 10, (POD, INTERVAL + 900): 100}
    assert third.workloads is not None
    assert store.load_workload_cursor("a", EPOCH) == third.workloads.cursor_after
    assert store.load_workload_cursor("a", b"other") is None
    assert [row.energy_microjoules for row in store.workload_energy(INTERVAL + 900, INTERVAL + 901, "a")] == [100]
    assert list(store.workload_energy(*ALL_TIME, "b")) == []


def test_totals_of_workloads_are_those_of_their_lifetime(store: Store) -> None:
    """Two pods that followed one another under a name are shown as one; what was not seen for long is not read."""
    start = opening()
    first = spending(start, (POD, 5), (POD._replace(name="old"), 9), cpu_nanoseconds=7)
    second = spending(first, (POD_AGAIN, 10), cpu_nanoseconds=1, seen=SEEN + 9)
    for booking in (start, first, second):
        assert store.commit([booking]) == [COMMITTED]
    known = store.host_workloads("a", SEEN + 9)
    assert known.version == second.host_after.version
    (total,) = known.totals
    assert (total.key, dict(total.energies)) == (POD.key, {(Component.CPU, Method.COUNTER): 15})
    assert (total.cpu_nanoseconds, total.last_seen_utc_nanoseconds) == (8, SEEN + 9)
    assert {each.key.workload for each in store.host_workloads("a", SEEN).totals} == {"db-0", "old"}
    assert store.host_workloads("b", 0) == HostWorkloads(0, ())


def test_totals_of_workloads_count_each_row_once(store: Store) -> None:
    """CPU time is no flow's, the latest time is that of any row, and what a recording had under the name is apart."""
    start = opening()
    first = spending(start, (POD_AGAIN, 10), cpu_nanoseconds=1)
    assert first.workloads is not None
    memory = WorkloadEnergyRow(POD_AGAIN, INTERVAL, Component.MEMORY, Method.MODEL, 4)
    first = replace(first, workloads=replace(first.workloads, energy=(*first.workloads.energy, memory)))
    second = spending(first, (POD, 5), cpu_nanoseconds=7)
    third = spending(second, (POD, 20), seen=SEEN + 9)
    for booking in (start, first, second, third):
        assert store.commit([booking]) == [COMMITTED]
    recording = replace(
        opening(epoch=b"recording-------", recorded=True),
        host_before=third.host_after,
        host_after=msgspec.structs.replace(third.host_after, version=third.host_after.version + 1),
    )
    played = spending(recording, (POD, 1000), (POD._replace(namespace="lab"), 1), cpu_nanoseconds=1000, seen=SEEN + 20)
    for booking in (recording, played):
        assert store.commit([booking]) == [COMMITTED]
    assert store.host_workloads("a", SEEN + 10).totals == ()
    (total,) = store.host_workloads("a", SEEN).totals
    assert dict(total.energies) == {(Component.CPU, Method.COUNTER): 35, (Component.MEMORY, Method.MODEL): 4}
    assert (total.cpu_nanoseconds, total.last_seen_utc_nanoseconds) == (8, SEEN + 9)


def test_recorded_workloads_have_no_totals(store: Store) -> None:
    """A recording is no part of live totals, and its rows are apart from those of the host's own agent."""
    start = opening(recorded=True)
    for booking in (start, spending(start, (POD, 5))):
        store.commit([booking])
    assert store.host_workloads("a", 0).totals == ()
    assert [(row.recorded, row.energy_microjoules) for row in store.workload_energy(*ALL_TIME)] == [(True, 5)]


def test_a_stale_booking_leaves_nothing_of_workloads(store: Store) -> None:
    """Workloads are under the same comparison as the epoch's cursor."""
    start = opening()
    store.commit([start])
    store.commit([following(start)])
    assert store.commit([spending(start, (POD, 5))]) == [STALE]
    assert store.load_workload_cursor("a", EPOCH) is None
    assert list(store.workload_energy(*ALL_TIME)) == []


def test_workloads_of_many_hosts_in_one_commit(store: Store) -> None:
    """Workloads of one name on different hosts are different ones."""
    starts = [opening(f"h{number}") for number in range(30)]
    store.commit(starts)
    pods = [POD._replace(id=f"uid-{number}", name=f"pod-{number}") for number in range(40)]
    bookings = [spending(start, *((pod, 1 + place) for pod in pods)) for place, start in enumerate(starts)]
    assert store.commit(bookings) == [COMMITTED] * 30
    sums = {f"h{place}": 40 * (1 + place) for place in range(30)}
    for name, expected in sums.items():
        assert sum(row.energy_microjoules for row in store.workload_energy(*ALL_TIME, name)) == expected
        assert sum(sum(each.energies.values()) for each in store.host_workloads(name, 0).totals) == expected


def test_utilization_is_added(sqlite_store: SqliteStore) -> None:
    """Busy time of a device adds up in its interval."""
    start = opening()
    sqlite_store.commit([start])
    busy = UtilizationRow("cpu", 1, INTERVAL, 7)
    first = replace(following(start), utilization=(busy, UtilizationRow("gpu/0", 1, INTERVAL, 1)))
    sqlite_store.commit([first])
    sqlite_store.commit([replace(following(first), utilization=(busy,))])
    assert list(sqlite_store.utilization(*ALL_TIME)) == [
        ("a", UtilizationRow("cpu", 1, INTERVAL, 14)),
        ("a", UtilizationRow("gpu/0", 1, INTERVAL, 1)),
    ]
    assert list(sqlite_store.utilization(*ALL_TIME, "b")) == []


def test_evidence_keeps_a_bounded_number_of_payloads(sqlite_store: SqliteStore) -> None:
    """Every refusal is a row; of an agent that sends nothing readable, only the first payloads are kept."""
    before = opening()
    sqlite_store.commit([before])
    many = tuple(EvidenceRow(n, n, 0, "undecodable", None, b"\0\1") for n in range(1, EVIDENCE_PAYLOADS_MAX + 11))
    after = replace(following(before), evidence=many)
    sqlite_store.commit([after])
    sqlite_store.commit([replace(following(after), evidence=(EvidenceRow(99, 99, 1, "implausible", -5, b"x"),))])
    with sqlite3.connect(sqlite_store.path) as connection:
        rows = connection.execute("SELECT microjoules, payload FROM evidence ORDER BY id").fetchall()
    connection.close()
    assert len(rows) == EVIDENCE_PAYLOADS_MAX + 11
    assert sum(bool(payload) for _, payload in rows) == EVIDENCE_PAYLOADS_MAX
    assert rows[-1] == (-5, b"")


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[SqliteStore, list[str], sqlite3.Connection]]:
    """A store, the statements that its hot connection runs, and that connection."""
    connection = database.open_database(tmp_path / "ledger.db", create=True, interval_seconds=900)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    store = SqliteStore(tmp_path / "ledger.db", connection)
    yield store, statements, connection
    store.close()


Traced = tuple[SqliteStore, list[str], sqlite3.Connection]


def test_a_commit_of_many_hosts_costs_few_statements(traced: Traced) -> None:
    """Two hundred hosts of twelve channels cost a few dozen statements, not thousands."""
    store, statements, _ = traced
    starts = [opening(f"h{number}", channels=12) for number in range(200)]
    store.commit(starts)
    rows = [energy(number, channel=number) for number in range(1, 13)]
    bookings = [following(start, rows) for start in starts]
    statements.clear()
    store.commit(bookings)
    assert statements[0].startswith("BEGIN IMMEDIATE")
    assert statements[-1] == "COMMIT"
    # Begin, revision, 200 = 3 x 64 + 2 x 4 hosts and as many cursors, 2400 = 2 x 1024 + 256 + 64 + 2 x 16 rows, roll-up,
    # commit.
    assert len(statements) == 2 + 5 + 5 + 6 + 1 + 1


def test_a_commit_of_one_host_costs_few_statements(traced: Traced) -> None:
    """A small fleet pays little as well."""
    store, statements, _ = traced
    start = opening(channels=12)
    store.commit([start])
    statements.clear()
    store.commit([following(start, [energy(number, channel=number) for number in range(1, 13)])])
    # Begin, revision, host, cursor, 12 = 3 x 4 rows, roll-up, commit.
    assert len(statements) == 2 + 2 + 3 + 1 + 1


def test_workloads_cost_few_statements_and_only_where_there_are_some(traced: Traced) -> None:
    """A batch with 300 accounts adds a dozen statements to the commit; one without adds none."""
    store, statements, _ = traced
    starts = [opening("a"), opening("b")]
    store.commit(starts)
    pods = [POD._replace(id=f"uid-{number}", name=f"pod-{number}") for number in range(300)]
    statements.clear()
    store.commit([spending(starts[0], *((pod, 1) for pod in pods)), following(starts[1])])
    about_workloads = [each for each in statements if "workload" in each]
    # 300 = 256 + 2 x 16 + 3 x 4 rows of each of four tables, and the cursor.
    assert len(about_workloads) == 4 * 6 + 1
    # Begin, revision, two hosts and cursors one by one, commit.
    assert len(statements) - len(about_workloads) == 2 + 2 + 2 + 1


def test_every_connection_waits_for_the_disk(traced: Traced) -> None:
    """A commit returns after the write-ahead log was synced; so it is on connections made later too."""
    _, _, connection = traced
    again = database.connect(traced[0].path)
    for each in (connection, again):
        assert each.execute("PRAGMA synchronous").fetchone() == (2,)
        assert each.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert each.execute("PRAGMA foreign_keys").fetchone() == (1,)
    again.close()


def test_lazy_settings_are_refused(traced: Traced) -> None:
    """A connection that would not wait for the disk is not used."""
    store, _, connection = traced
    connection.execute("PRAGMA synchronous = NORMAL")
    with pytest.raises(StoreError, match=r"would acknowledge before data is on the disk .*synchronous = 1"):
        database.check_durability(connection, store.path)


def deny(connection: sqlite3.Connection, action: int, name: str) -> None:
    """Let the driver fail from now on where it is told to do this."""

    def authorize(code: int, first: str | None, *_: str | None) -> int:
        return sqlite3.SQLITE_DENY if (code, first) == (action, name) else sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)


@pytest.mark.parametrize("table", ["host", "epoch_cursor", "channel", "energy", "rollup", "gap", *WORKLOAD_TABLES])
def test_an_error_within_a_commit_leaves_nothing(traced: Traced, table: str) -> None:
    """Whatever statement fails, no part of the booking is stored, and the next attempt works."""
    store, _, connection = traced
    start = opening()
    booking = replace(following(opening(), [energy(5)]), host_before=None, cursor_before=None)
    workloads = spending(start, (POD, 3), cpu_nanoseconds=1).workloads
    gaps = (GapRow(1, 0, 1, GapReason.RESET, 0, 1),)
    booking = replace(booking, channels=start.channels, gaps=gaps, workloads=workloads)
    deny(connection, sqlite3.SQLITE_INSERT, table)
    with pytest.raises(StoreError):
        store.commit([booking])
    connection.set_authorizer(None)
    assert store.load_host("a") is None
    assert sum_of(store) == 0
    assert list(store.workload_energy(*ALL_TIME)) == []
    assert store.commit([booking]) == [COMMITTED]
    assert (sum_of(store), sum_of_rollups(store)) == (5, 5)
    assert [row.energy_microjoules for row in store.workload_energy(*ALL_TIME)] == [3]


def test_a_lost_answer_to_commit_makes_all_stale(traced: Traced) -> None:
    """Whether it was done is not known: all callers read again, on a new connection, and go on from there."""
    store, _, connection = traced
    start = opening()
    store.commit([start])
    booking = following(start, [energy(5)])
    deny(connection, sqlite3.SQLITE_TRANSACTION, "COMMIT")
    assert store.commit([booking, opening("b")]) == [STALE, STALE]
    assert store.load_cursor("a", EPOCH) == start.cursor_after
    assert store.commit([booking, opening("b")]) == [COMMITTED, COMMITTED]
    assert sum_of(store) == 5


def test_a_full_disk_is_an_error_and_commits_nothing(traced: Traced) -> None:
    """Nothing is acknowledged, the text says what to do, and with room again all goes on."""
    store, _, connection = traced
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [opening(f"h{number}", channels=50) for number in range(100)]
    with pytest.raises(StoreError, match=r"disk that holds .*ledger.db is full: free space there"):
        store.commit(many)
    assert list(store.hosts()) == []
    connection.execute("PRAGMA max_page_count = 1000000")
    assert store.commit(many) == [COMMITTED] * 100


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.collector.bookings import energy, following, opening
from wattledger_collector.database import open_database
from wattledger_collector.store import SqliteStore

path = Path(sys.argv[1])
connection = open_database(path, create=True, interval_seconds=900)
store = SqliteStore(path, connection)
start = opening(channels=12)
store.commit([start])
booking = following(start, [energy(1, channel=number) for number in range(1, 13)])

def die(sql):
    if sql.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

connection.set_trace_callback(die)
store.commit([booking])
"""


@pytest.mark.parametrize("before", ["UPDATE epoch_cursor", "INSERT INTO energy", "INSERT INTO rollup", "COMMIT"])
def test_a_collector_killed_within_a_commit_leaves_no_part_of_it(tmp_path: Path, before: str) -> None:
    """The database holds the commit before, whole, and the batch can be booked as if nothing had been."""
    path = tmp_path / "ledger.db"
    run = subprocess.run([sys.executable, "-c", KILLED, str(path), before], check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == -9
    store = open_store(path, create=False)
    start = opening(channels=12)
    assert store.load_cursor("a", EPOCH) == start.cursor_after
    assert (sum_of(store), sum_of_rollups(store)) == (0, 0)
    assert store.commit([following(start, [energy(1)])]) == [COMMITTED]
    store.close()


def test_the_migrations_make_the_schema(sqlite_store: SqliteStore) -> None:
    """What the migrations made is what the program declares, up to the revision that it names."""
    engine = database.make_engine(sqlite_store.path)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_an_interval_that_does_not_divide_a_day_is_refused(tmp_path: Path) -> None:
    """Nothing is made then; an empty file, as a crash in the first start leaves it, becomes a database."""
    path = tmp_path / "ledger.db"
    with pytest.raises(StoreError, match="interval of 7 s"):
        open_store(path, create=True, interval_seconds=7)
    assert not path.exists()
    path.touch()
    store = open_store(path, create=True)
    assert store.commit([opening()]) == [COMMITTED]
    store.close()


def test_an_interval_belongs_to_its_database(tmp_path: Path) -> None:
    """The length is fixed when the database is made; so is its id."""
    first = open_store(tmp_path / "ledger.db", create=True, interval_seconds=3600)
    second = open_store(f"sqlite:///{tmp_path}/ledger.db", create=False, interval_seconds=900)
    assert (first.interval_seconds, second.interval_seconds) == (3600, 3600)
    assert first.database_id == second.database_id != ""
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (":memory:", "in memory is lost"),
        ("", "in memory is lost"),
        ("postgresql://db/ledger", "keeps its ledger in SQLite"),
        ("sqlite:////var/ledger.db?synchronous=OFF", "can undo durability"),
        ("sqlite:ledger.db", "write sqlite:///path"),
        ("/nowhere/at/all/ledger.db", "no folder /nowhere/at/all"),
    ],
)
def test_what_is_no_durable_database_is_refused(name: str, words: str) -> None:
    """One sentence says why."""
    with pytest.raises(StoreError, match=words):
        open_store(name, create=True)


def test_a_missing_database_is_made_only_on_demand(tmp_path: Path) -> None:
    """A report from a mistyped path must not find an empty ledger."""
    with pytest.raises(StoreError, match=r"no database at .*: start the collector once"):
        open_store(tmp_path / "ledger.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """The remedy is named, the file is left as it is."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is not a database" * 1000)
    with pytest.raises(StoreError, match=r"damaged .*restore the latest backup"):
        open_store(path, create=True)
    assert path.read_bytes() == b"this is not a database" * 1000


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    """A page overwritten in the middle is found at start."""
    path = tmp_path / "ledger.db"
    store = open_store(path, create=True)
    store.commit([opening(f"h{number}", channels=20) for number in range(50)])
    store.close()
    content = bytearray(path.read_bytes())
    content[40_960:81_920] = b"\x5a" * 40_960
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged .*restore the latest backup"):
        open_store(path, create=True)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """Tables are never added to a file that holds others."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title)")
    connection.close()
    with pytest.raises(StoreError, match="database of another program"):
        open_store(path, create=True)


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    """An older program must not write what it does not understand."""
    path = tmp_path / "ledger.db"
    open_store(path, create=True).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"newer Wattledger \(schema 9999, this one knows .*install that version"):
        open_store(path, create=False)


# What each release's schema lacks of the next one's.
LATER_TABLES = {
    "0001": ["lease"],
    "0002": ["workload_cursor", "workload_total", "workload_time", "workload_energy", "workload"],
    "0003": ["factor", "factor_document", "factor_revision"],
    "0004": ["statement", "closure", "log_checkpoint", "log_key", "leaf_secret"],
    "0005": ["meter_energy", "energy_import"],
    "0006": [],
    "0007": [],
    "0008": ["import_removal"],
    "0009": ["log_time_stamp"],
}


# What the step after each revision added to tables that were there.
LATER_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "0006": {
        "site": ("pue_from", "pue_to", "pue_category", "pue_evidence"),
        "emission_basis": ("market_grams_per_kwh", "market_factor"),
    },
    "0007": {"emission_basis": ("scope", "overhead_scope", "factor_tier")},
    "0008": {"energy_import": ("assignments_last_id",)},
}


def downgrade(path: Path, revision: str) -> None:
    """Take away what later steps added."""
    with closing(sqlite3.connect(path)) as connection, connection:
        dropped = {table for older, tables in LATER_TABLES.items() if older >= revision for table in tables}
        for table in dropped:
            connection.execute(f"DROP TABLE {table}")
        for older, additions in LATER_COLUMNS.items():
            for table, columns in additions.items() if older >= revision else ():
                for column in columns if table not in dropped else ():
                    connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


@pytest.mark.parametrize("revision", LATER_TABLES)
def test_a_database_of_an_older_schema_is_upgraded_in_place(tmp_path: Path, revision: str) -> None:
    """What an older program booked stays as it was, and the tables are those of a new database."""
    path = tmp_path / "ledger.db"
    store = open_store(path, create=True)
    start = opening()
    booked = following(start, [energy(5)])
    store.commit([start])
    store.commit([booked])
    identity = store.database_id
    store.close()
    downgrade(path, revision)
    store = open_store(path, create=False)
    assert (store.database_id, store.load_cursor("a", EPOCH), sum_of(store)) == (identity, booked.cursor_after, 5)
    store.close()
    engine = database.make_engine(path)
    with engine.connect() as upgraded:
        assert compare_metadata(MigrationContext.configure(upgraded), schema.metadata) == []
        assert MigrationContext.configure(upgraded).get_current_revision() == schema.REVISION
    engine.dispose()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("SQLITE_READONLY_DBMOVED", "write access to the file and its folder"),
        ("SQLITE_CANTOPEN", "cannot make a database in"),
        ("SQLITE_BUSY", "locked for 10 s by another program"),
        ("SQLITE_IOERR_FSYNC", "check the disk"),
        ("SQLITE_FULL", "is full: free space there"),
        ("SQLITE_MISUSE", "cannot be used"),
    ],
)
def test_each_failure_of_the_driver_has_its_remedy(code: str, words: str) -> None:
    """What SQLite says becomes what to do."""
    error = sqlite3.OperationalError("text")
    error.sqlite_errorname = code
    assert words in str(database.explain(error, Path("/nowhere/ledger.db")))


def test_an_uncommitted_reader_does_not_stop_a_commit(sqlite_store: SqliteStore) -> None:
    """A report that is being read sees one state of the ledger, and bookings go on meanwhile."""
    starts = [opening(f"h{number}") for number in range(3)]
    sqlite_store.commit(starts)
    reading = sqlite_store.hosts()
    assert next(reading).host == "h0"
    assert sqlite_store.commit([following(starts[0], [energy(5)])]) == [COMMITTED]
    assert [host.version for host in reading] == [1, 1]
    assert sum_of(sqlite_store) == 5
