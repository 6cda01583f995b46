"""Workloads as the fleet view sees them: committed totals, never lower than before, only of those seen lately."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collector.fleets import COLLECTOR, GPUS, SimulatedFleet, SimulatedHost, assignments, load, site_rows

from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_workloads import (
    WORKLOAD_STALENESS_SECONDS,
    WORKLOADS_SHOWN_MAX,
    HostWorkloadView,
    by_component,
)
from wattledger_collector.records import Component, Method
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_records import HostWorkloads, IdlePolicy, Workload, WorkloadKind, WorkloadTotal

T = 1_700_000_100 // 900 * 900 + 60
POD = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.NODE_ONLY)
OTHER_POD = Workload(WorkloadKind.KUBERNETES_POD, "uid-9", "shop", "web", IdlePolicy.NODE_ONLY)
WINDOW = int(WORKLOAD_STALENESS_SECONDS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A real store."""
    store = open_store(tmp_path / "ledger.db", create=True)
    yield store
    store.close()


def fleet_of(host: SimulatedHost, store: SqliteStore) -> SimulatedFleet:
    """One host on a store, opened."""
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    store.add_sites(site_rows())
    store.add_assignments(assignments([host]))
    load(view, store, T)
    fleet = SimulatedFleet(view, [host], store)
    fleet.open(T)
    return fleet


def shown(fleet: SimulatedFleet, now: float, view: FleetView | None = None) -> dict[str, int]:
    """Microjoules by workload."""
    entry = (view or fleet.view).host("a")
    assert entry is not None
    return {each.key.workload: each.total_microjoules for each in entry.workloads.shown(now).workloads}


def watt_seconds(number: int) -> int:
    """In microjoules."""
    return number * 1_000_000


def test_totals_are_those_of_the_ledger(store: SqliteStore) -> None:
    """Read for what is new, added for what is known: after any booking they are the sums of all rows."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000})
    fleet = fleet_of(host, store)
    for second in range(10, 60, 10):
        if second == 30:
            host.workloads = {POD: 1000, OTHER_POD: 500}
        fleet.step(T + second)
        sums: dict[str, int] = {}
        for row in store.workload_energy(0, 2**40):
            name = row.workload.shown_name
            sums[name] = sums.get(name, 0) + row.energy_microjoules
        assert shown(fleet, T + second) == sums
    assert shown(fleet, T + 60) == {"db-0": watt_seconds(50), "web": watt_seconds(15)}
    (entry,) = fleet.view.hosts()
    pod = entry.workloads.shown(T + 60).workloads[0]
    assert by_component(pod) == {Component.CPU: watt_seconds(50)}
    assert pod.cpu_nanoseconds == 50 * 10**9 // 4


def test_series_stay_the_same_objects(store: SqliteStore) -> None:
    """Text around values is kept for as long as they do, also where totals are read anew."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000})
    fleet = fleet_of(host, store)
    fleet.step(T + 10)
    (entry,) = fleet.view.hosts()
    before = entry.workloads.shown(T + 10).workloads[0].series
    fleet.step(T + 20)
    assert entry.workloads.shown(T + 20).workloads[0].series[0] is before[0]
    host.workloads = {POD: 1000, OTHER_POD: 1000}
    fleet.step(T + 30)
    (again,) = (each for each in entry.workloads.shown(T + 30).workloads if each.key == POD.key)
    assert again.series[0] is before[0]


def test_one_that_comes_back_goes_on_from_its_total(store: SqliteStore) -> None:
    """While it is away it is not shown; a pod made again under its name goes on in its series."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000, OTHER_POD: 1000})
    fleet = fleet_of(host, store)
    fleet.step(T + 10)
    host.workloads = {OTHER_POD: 1000}
    fleet.step(T + WINDOW + 9)
    assert set(shown(fleet, T + WINDOW + 10)) == {"db-0", "web"}
    assert set(shown(fleet, T + WINDOW + 11)) == {"web"}
    fleet.step(T + WINDOW + 20)
    host.workloads = {OTHER_POD: 1000, POD._replace(id="uid-2"): 1000}
    fleet.step(T + WINDOW + 30)
    assert shown(fleet, T + WINDOW + 30) == {"db-0": watt_seconds(20), "web": watt_seconds(WINDOW + 30)}


def test_a_restart_lowers_no_counter(store: SqliteStore) -> None:
    """Another view that is loaded from the store shows what this one does, and counts on."""
    fleet = fleet_of(SimulatedHost("a", GPUS, T, workloads={POD: 1000}), store)
    fleet.step(T + 10)
    fleet.step(T + 20)
    again = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(again, store, T + 25)
    assert shown(fleet, T + 25, again) == shown(fleet, T + 25) == {"db-0": watt_seconds(20)}
    fleet.view = again
    fleet.step(T + 30)
    assert shown(fleet, T + 30) == {"db-0": watt_seconds(30)}


def test_what_was_read_with_a_booking_is_not_added_again(store: SqliteStore) -> None:
    """A view that was loaded after the commit and told of it then counts it once."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000})
    fleet = fleet_of(host, store)
    fleet.step(T + 10)
    booking = host.batch(T + 20)
    store.commit([booking])
    again = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(again, store, T + 20)
    again.on_committed([booking], T + 20)
    assert shown(fleet, T + 20, again) == {"db-0": watt_seconds(20)}


def test_bookings_of_another_collector_are_read(store: SqliteStore) -> None:
    """A view that missed some reads the totals as they stand instead of adding to old ones."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000})
    fleet = fleet_of(host, store)
    fleet.step(T + 10)
    store.commit([host.batch(T + 20)])
    fleet.step(T + 30)
    assert shown(fleet, T + 30) == {"db-0": watt_seconds(30)}


def test_a_booking_without_accounts_is_followed(store: SqliteStore) -> None:
    """Most bookings have none: the next one with accounts is added all the same, and one that was missed is noticed."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000})
    view = HostWorkloadView()
    bookings = [host.hello(), host.batch(T + 10)]
    view.read(HostWorkloads(2, (WorkloadTotal(POD.key, T * 10**9, 0, {(Component.CPU, Method.COUNTER): 5}),)), T + 10)
    assert view.follow(bookings[1], T + 10)
    host.workloads = {}
    assert view.follow(host.batch(T + 20), T + 20)
    host.workloads = {POD: 1000}
    assert view.follow(host.batch(T + 30), T + 30)
    assert view.shown(T + 30).workloads[0].total_microjoules == 5 + watt_seconds(10)
    host.workloads = {}
    host.batch(T + 40)
    assert view.follow(host.batch(T + 50), T + 50)
    host.workloads = {POD: 1000}
    assert not view.follow(host.batch(T + 60), T + 60)


def test_a_recording_is_not_shown(store: SqliteStore) -> None:
    """Its workloads are in the ledger, and in no live series."""
    fleet = fleet_of(SimulatedHost("a", GPUS, T, recorded=True, workloads={POD: 1000}), store)
    fleet.step(T + 10)
    assert shown(fleet, T + 10) == {}


def test_without_a_store_bookings_are_added(store: SqliteStore) -> None:
    """A view that was never loaded shows what it was told."""
    host = SimulatedHost("a", GPUS, T, workloads={POD: 1000})
    fleet = SimulatedFleet(FleetView(collector=COLLECTOR, interval_seconds=900), [host])
    fleet.open(T)
    fleet.step(T + 10)
    fleet.step(T + 20)
    assert shown(fleet, T + 20) == {"db-0": watt_seconds(20)}


def test_of_too_many_the_largest_are_shown(store: SqliteStore) -> None:
    """And how many are left out is told."""
    many = {POD._replace(id=f"uid-{number}", name=f"pod-{number}"): 1000 + number for number in range(WORKLOADS_SHOWN_MAX)}
    host = SimulatedHost("a", GPUS, T, workloads=many)
    fleet = fleet_of(host, store)
    fleet.step(T + 10)
    host.workloads = {OTHER_POD: 1, POD: 5000}
    fleet.step(T + 20)
    (entry,) = fleet.view.hosts()
    found = entry.workloads.shown(T + 20)
    assert (len(found.workloads), found.left_out) == (WORKLOADS_SHOWN_MAX, 2)
    names = {each.key.workload for each in found.workloads}
    assert {"web", "pod-0"}.isdisjoint(names)
    assert {"db-0", "pod-1"} <= names
