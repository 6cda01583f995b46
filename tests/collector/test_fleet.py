"""The fleet view: committed totals that never fall, present values that vanish, and what is withheld."""

from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

import msgspec
import pytest
from tests.collector.fake_store import FakeStore
from tests.collector.fleets import (
    COLLECTOR,
    GPUS,
    MEASURED,
    MODELLED,
    Part,
    SimulatedFleet,
    SimulatedHost,
    assignments,
    load,
    site_rows,
)

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_live import LiveFinder
from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_live import HISTORY_SECONDS, HISTORY_STEP_SECONDS, PowerHistory, PowerSum, read_live
from wattledger_collector.fleet_sites import RECENT_SECONDS
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    AssignmentRow,
    Booking,
    Component,
    EmissionBasis,
    GapReason,
    HostState,
    Method,
    Role,
    RollupRow,
)
from wattledger_protos.v1 import telemetry_pb2 as pb

_T = TypeVar("_T")

T = 1_700_000_100 // 900 * 900 + 60
RESIDUAL = Part("node", Component.OTHER, Method.INTEGRAL, 5_000, Role.RESIDUAL, "residual", "hwmon")


def fleet_of(*hosts: SimulatedHost, store: FakeStore | None = None) -> SimulatedFleet:
    """A view whose hosts stand in one site of zone DE, opened."""
    store = store or FakeStore()
    store.add_sites(site_rows())
    store.add_assignments(assignments(hosts))
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(view, store, T)
    fleet = SimulatedFleet(view, list(hosts))
    fleet.open(T)
    return fleet


def site_total(view: FleetView) -> int:
    """Sum of all site counters."""
    return sum(microjoules for _, microjoules in view.site_counters())


def host_total(view: FleetView) -> int:
    """Sum of all exposed host counters."""
    return sum(sum(entry.energy.microjoules) for entry in view.hosts() if entry.is_exposed)


def test_host_and_site_totals_equal_what_was_booked() -> None:
    """The sum over hosts and the sum over sites are the committed microjoules, to the last one."""
    fleet = fleet_of(SimulatedHost("a", GPUS, T), SimulatedHost("b", MODELLED, T))
    for second in range(T + 7, T + 1500, 7):
        fleet.step(second)
    assert host_total(fleet.view) == site_total(fleet.view) == fleet.booked_microjoules > 0


def test_modelled_energy_is_in_a_series_of_its_own() -> None:
    """No series holds both measured and modelled energy."""
    fleet = fleet_of(SimulatedHost("a", (*MEASURED, *MODELLED), T))
    fleet.step(T + 10)
    entry = fleet.view.host("a")
    assert entry is not None
    assert {key.method: value for key, value in entry.energy if key.method is Method.MODEL} == {Method.MODEL: 2_100_000_000}
    modelled = [value for series, value in fleet.view.site_counters() if series.method is Method.MODEL]
    assert modelled == [2_100_000_000]


def test_a_host_is_the_sum_of_all_its_epochs() -> None:
    """A new epoch adds to the host's counters; they do not begin again."""
    host = SimulatedHost("a", MEASURED, T)
    fleet = fleet_of(host)
    fleet.step(T + 10)
    before = host_total(fleet.view)
    host.epoch = b"second-epoch-000"
    fleet.open(T + 20)
    assert host_total(fleet.view) == before
    fleet.step(T + 30)
    assert host_total(fleet.view) == site_total(fleet.view) == fleet.booked_microjoules > before


def test_a_falling_residual_never_lowers_a_counter() -> None:
    """A component with a signed residual is shown as its high-water mark, for hosts and for sites."""
    host = SimulatedHost("a", (*MEASURED, RESIDUAL), T)
    fleet = fleet_of(host)
    sites, hosts = [], []
    for second, milliwatts in ((T + 10, 5_000), (T + 20, -3_000), (T + 30, -1_000), (T + 40, 9_000)):
        host.parts = (*MEASURED, replace(RESIDUAL, milliwatts=milliwatts))
        fleet.step(second)
        entry = fleet.view.host("a")
        assert entry is not None
        hosts.append(next(value for key, value in entry.energy if key.component is Component.OTHER))
        sites.append(next(value for key, value in fleet.view.site_counters() if key.component is Component.OTHER))
    # 50 J, then 20 and 10 J, then 100 J: the mark stays until the sum has passed it.
    assert sites == hosts == [50_000_000, 50_000_000, 50_000_000, 100_000_000]


def test_a_restart_resets_no_counter() -> None:
    """A view that is loaded from the store has the counters of the one before, high-water marks included."""
    host = SimulatedHost("a", (*MEASURED, RESIDUAL), T)
    store = FakeStore()
    fleet = fleet_of(host, store=store)
    fleet.step(T + 10)
    shown = dict(fleet.view.site_counters())
    host.parts = (*MEASURED, replace(RESIDUAL, milliwatts=-3_000))
    fleet.step(T + 20)
    store.host_rows, store.cursor_rows = [defined(host.host)], [defined(host.cursor)]
    store.channel_rows = {("a", host.epoch): {info.channel: info for info in host.channels()}}
    store.rollup_rows = rollups_of(fleet.view)
    after = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(after, store, T + 30)
    assert after.site_counters() == fleet.view.site_counters()
    assert all(value >= shown[series] for series, value in after.site_counters())
    assert host_total(after) == host_total(fleet.view)
    assert after.emission_counters() == fleet.view.emission_counters()


def rollups_of(view: FleetView) -> list[RollupRow]:
    """What the store would have rolled up."""
    return [
        RollupRow(key.site, start, key.component, key.quality, False, amount.microjoules, amount.covered_nanoseconds)
        for start, key, amount in view.recent_energy(0)
    ]


def defined(value: _T | None) -> _T:
    """The value, which is there."""
    assert value is not None
    return value


def test_a_withheld_host_hides_its_site_until_released() -> None:
    """After a restore neither the host nor totals that contain it are shown, until its agent has caught up."""
    host = SimulatedHost("a", MEASURED, T)
    other = SimulatedHost("b", MEASURED, T)
    store = FakeStore()
    fleet = fleet_of(host, other, store=store)
    fleet.step(T + 10)
    host.host = msgspec.structs.replace(defined(host.host), withheld_until={host.epoch: 3})
    fleet.step(T + 20)
    assert fleet.view.withheld() == {"hall": 1}
    assert fleet.view.site_counters() == []
    assert fleet.view.emission_counters() == []
    assert [entry.host for entry in fleet.view.hosts() if entry.is_exposed] == ["b"]
    fleet.step(T + 30)
    assert fleet.view.withheld() == {}
    assert host_total(fleet.view) == site_total(fleet.view) == fleet.booked_microjoules


def test_a_retired_host_is_not_waited_for() -> None:
    """A withheld host that never comes back does not hide its site for ever: an operator retires it."""
    host = SimulatedHost("a", MEASURED, T)
    fleet = fleet_of(host)
    fleet.step(T + 10)
    host.host = msgspec.structs.replace(defined(host.host), withheld=True, state=HostState.RETIRED)
    fleet.commit([host.batch(T + 20)], T + 20)
    assert fleet.view.withheld() == {}
    assert site_total(fleet.view) > 0


def test_a_recorded_host_is_in_no_live_total() -> None:
    """A replayed recording is listed with its energy, and is in no counter, power or emission."""
    fleet = fleet_of(SimulatedHost("old", MEASURED, T, recorded=True))
    fleet.step(T + 10)
    entry = defined(fleet.view.host("old"))
    assert entry.recorded_microjoules == 1_385_000_000
    assert entry.energy.keys == ()
    assert fleet.view.site_counters() == []
    assert fleet.view.emission_counters() == []
    assert fleet.view.power(T + 10).hosts == 0
    assert fleet.view.agents(T + 10) == {("hall", "recorded"): 1}


def test_another_collectors_host_is_not_exposed() -> None:
    """Only the collector that the newest epoch's cursor names exposes a host."""
    host = SimulatedHost("a", MEASURED, T)
    fleet = fleet_of(host)
    fleet.step(T + 10)
    assert defined(fleet.view.host("a")).is_exposed
    host.cursor = msgspec.structs.replace(defined(host.cursor), collector="another")
    fleet.step(T + 20)
    assert not defined(fleet.view.host("a")).is_exposed


def test_a_silent_hosts_power_vanishes_and_its_counters_stay() -> None:
    """Beyond the staleness window the present is unknown; what was booked stays booked."""
    fleet = fleet_of(SimulatedHost("a", MEASURED, T))
    fleet.step(T + 10)
    assert fleet.view.power(T + 70).milliwatts == 138_500
    assert fleet.view.power(T + 71).hosts == 0
    assert fleet.view.agents(T + 71) == {("hall", "silent"): 1}
    assert host_total(fleet.view) == fleet.booked_microjoules


def test_energy_goes_to_the_site_that_held_when_the_interval_began() -> None:
    """A host that moves leaves its past where it was: no site counter falls."""
    host = SimulatedHost("a", MEASURED, T)
    store = FakeStore()
    fleet = fleet_of(host, store=store)
    fleet.step(T + 10)
    before = dict(fleet.view.site_counters())
    store.add_sites(site_rows("annex", "FR"))
    store.add_assignments([AssignmentRow("a", T - 60 + 900, "annex", T)])
    fleet.view.set_plan(store.sites(), store.assignments())
    late = fleet.booked_microjoules
    fleet.step(T + 1000)
    late = fleet.booked_microjoules - late
    after = dict(fleet.view.site_counters())
    assert sum(after.values()) == sum(before.values()) + late
    assert {series.site for series in after} == {"hall"}
    before = after
    fleet.step(T + 1010)
    after = dict(fleet.view.site_counters())
    assert all(after[series] == value for series, value in before.items())
    assert {series.site for series in after} == {"hall", "annex"}
    assert site_total(fleet.view) == host_total(fleet.view)


def test_a_new_hosts_assignment_is_read_when_it_comes() -> None:
    """A host that was assigned just now is counted in its site from its first booking on."""
    store = FakeStore()
    fleet = fleet_of(store=store)
    host = SimulatedHost("new", MEASURED, T)
    store.add_assignments([AssignmentRow("new", 0, "hall", T)])
    fleet.hosts.append(host)
    fleet.open(T)
    fleet.step(T + 10)
    assert {series.site for series, _ in fleet.view.site_counters()} == {"hall"}


def test_a_catalog_that_was_missed_is_read_from_the_store() -> None:
    """Where another collector opened the epoch, its channels come from the store, and nothing is left out."""
    host = SimulatedHost("a", MEASURED, T)
    store = FakeStore()
    fleet = fleet_of(store=store)
    host.hello()
    store.channel_rows = {("a", host.epoch): {info.channel: info for info in host.channels()}}
    store.add_assignments(assignments([host]))
    fleet.commit([host.batch(T + 10)], T + 10)
    assert host_total(fleet.view) == site_total(fleet.view) == 1_385_000_000


def test_emissions_are_energy_times_pue_times_the_factor_first_used() -> None:
    """Counters keep the basis of the store, whatever the factors say later, and apart by how energy was made."""
    store = FakeStore()
    kind = "average-lifecycle-CO2e-production"
    factor = f"DE/2024-01-01/{kind}/OWID-Ember/2025-08-07"
    store.basis_rows = [EmissionBasis("hall", T - 60, "100", factor, "2")]
    fleet = fleet_of(SimulatedHost("a", (*MEASURED, *MODELLED), T), store=store)
    fleet.step(T + 10)
    totals = {each.is_modelled: grams for each, grams in fleet.view.emission_counters() if not each.is_market}
    assert totals == {
        False: Fraction(1_385_000_000 * 200, MICROJOULES_PER_KWH),
        True: Fraction(2_100_000_000 * 200, MICROJOULES_PER_KWH),
    }


def test_measured_and_modelled_energy_of_an_interval_have_one_basis() -> None:
    """Modelled energy comes after the basis was replaced: it counts as the measured one did, as after a restart."""
    measured, modelled = SimulatedHost("a", MEASURED, T), SimulatedHost("b", MODELLED, T)
    store = FakeStore()
    fleet = fleet_of(measured, modelled, store=store)
    finder = LiveFinder(BasisFinder(store.sites(), load_catalog()))
    fleet.view.load(store, finder, T)
    fleet.commit([measured.batch(T + 10)], T + 10)
    finder.replace(BasisFinder(site_rows(pue="2"), load_catalog()))
    fleet.commit([modelled.batch(T + 10)], T + 10)
    totals = {each.is_modelled: grams for each, grams in fleet.view.emission_counters() if not each.is_market}
    assert totals[True] / 2_100_000_000 == totals[False] / 1_385_000_000


def test_the_estimated_part_is_told_by_energy() -> None:
    """Measured hosts have none, modelled ones all; a site with both has the model's part of the energy."""
    ratios = []
    for parts in (MEASURED, MODELLED, (*MEASURED, *MODELLED)):
        fleet = fleet_of(SimulatedHost("a", parts, T))
        for second in range(T + 60, T + 601, 60):
            fleet.step(second)
        ratios.append(fleet.view.coverage(T + 600)["hall"].estimated_ratio)
    model, rest = (sum(part.milliwatts for part in parts) for parts in (MODELLED, MEASURED))
    assert ratios == [0.0, 1.0, pytest.approx(model / (model + rest))]


def test_a_basis_is_in_the_store_before_it_is_shown() -> None:
    """What a counter was made with survives the collector."""
    store = FakeStore()
    fleet = fleet_of(SimulatedHost("a", MEASURED, T), store=store)
    fleet.step(T + 10)
    assert [(basis.site, basis.interval_start_seconds) for basis in store.basis_rows] == [("hall", T - 60)]


def test_coverage_is_whole_without_gaps_and_falls_with_silence() -> None:
    """Covered over expected channel time: 1 while all report, less once a host is silent; drained hosts are not expected."""
    hosts = [SimulatedHost("a", MEASURED, T), SimulatedHost("b", MEASURED, T)]
    fleet = fleet_of(*hosts)
    for second in range(T + 60, T + 601, 60):
        fleet.step(second)
    assert fleet.view.coverage(T + 600)["hall"].ratio == 1.0
    for second in range(T + 660, T + 1201, 60):
        fleet.commit([hosts[0].batch(second)], second)
    coverage = fleet.view.coverage(T + 1200)["hall"]
    assert coverage.ratio == pytest.approx(0.75)
    assert (coverage.covered_seconds, coverage.expected_seconds) == (3600.0, 4800.0)
    drained = msgspec.structs.replace(defined(hosts[1].host), state=HostState.DRAINED)
    fleet.commit([Booking(hosts[1].host, drained, hosts[1].cursor, defined(hosts[1].cursor))], T + 1200)
    assert fleet.view.coverage(T + 1200)["hall"].expected_seconds == 2400.0


def test_gaps_are_listed_newest_first() -> None:
    """A gap is shown with its host, site and channel."""
    host = SimulatedHost("a", MEASURED, T)
    fleet = fleet_of(host)
    fleet.commit([host.batch(T + 10, gap=True)], T + 10)
    (gap,) = fleet.view.recent_gaps()
    assert (gap.host, gap.site, gap.gap.reason) == ("a", "hall", GapReason.REBOOT)
    assert defined(gap.channel).device == "cpu/0"


def test_recent_intervals_are_forgotten_and_totals_kept() -> None:
    """Memory does not grow with time: two days of intervals stay, lifetime totals are sums."""
    host = SimulatedHost("a", MEASURED, T)
    fleet = fleet_of(host)
    fleet.step(T + 10)
    host.at_seconds = T + RECENT_SECONDS + 900
    fleet.step(T + RECENT_SECONDS + 910)
    assert len({start for start, _, _ in fleet.view.recent_energy(0)}) == 1
    assert site_total(fleet.view) == fleet.booked_microjoules


def test_a_live_value_of_an_unknown_host_is_not_shown() -> None:
    """Before a host's Hello is committed nothing of it is shown."""
    fleet = fleet_of()
    fleet.view.on_live("ghost", SimulatedHost("ghost", MEASURED, T).live(), T)
    assert fleet.view.hosts() == []
    assert fleet.view.power(T).hosts == 0


def test_a_live_message_of_a_newer_agent_is_read_as_far_as_known() -> None:
    """Unknown components, methods and roles are left out; doubled devices don't make two series; lists are bounded."""
    # Field 2 (powers): component 99, 1 mW.
    live = pb.Live.FromString(bytes((0x12, 4, 0x18, 99, 0x30, 2)))
    live.powers.extend(SimulatedHost("a", MEASURED[:1], T).live().powers)
    for ppm in (1, 2_000_000):
        live.utilizations.add(device="cpu", ppm=ppm)
    for _ in range(600):
        live.powers.add()
        live.sources.add(source="s", last_error="e" * 1000)
    reading = read_live(live, T)
    assert reading.milliwatts == (120_000,)
    assert reading.utilizations[0].ppm == (1_000_000,)
    assert reading.sources.sources == ("s",)
    assert len(reading.sources.last_errors[0]) == 512


def test_a_meter_is_shown_and_not_summed() -> None:
    """Power of a node meter is already in its parts and residual."""
    meter = Part("node", Component.OTHER, Method.INTEGRAL, 400_000, Role.METER, "power", "hwmon")
    fleet = fleet_of(SimulatedHost("a", (*MEASURED, meter), T))
    fleet.step(T + 10)
    entry = defined(fleet.view.host("a"))
    assert fleet.view.power(T + 10).milliwatts == 138_500
    assert [name.device for name in entry.meter_totals.keys] == ["node"]
    assert sum(entry.energy.microjoules) == 1_385_000_000


def test_a_simulated_host_is_known_as_one() -> None:
    """Counters that the agent makes up are never taken for measured ones."""
    fleet = fleet_of(SimulatedHost("a", [replace(MEASURED[0], source="fake")], T), SimulatedHost("b", MEASURED, T))
    assert [entry.is_simulated for entry in fleet.view.hosts()] == [True, False]


def test_history_is_bounded_and_has_holes_instead_of_zeros() -> None:
    """One point a step, at most an hour; no point while no host reports; a clock that steps back starts over."""
    history = PowerHistory()
    for second in range(3 * HISTORY_SECONDS):
        if history.is_due(second):
            history.add(second, PowerSum(hosts=1) if second % 600 < 300 else PowerSum())
    points = history.points(3 * HISTORY_SECONDS)
    assert 0 < len(points) <= HISTORY_SECONDS // HISTORY_STEP_SECONDS
    assert all(point.at_seconds % 600 < 300 for point in points)
    assert history.is_due(100)
    history.add(100, PowerSum(hosts=1))
    assert [point.at_seconds for point in history.points(101)] == [100]


def test_the_band_adds_errors_linearly() -> None:
    """Models of like hosts err alike, so their bands are added, not averaged out."""
    fleet = fleet_of(*(SimulatedHost(name, MODELLED, T) for name in "abcd"))
    fleet.step(T + 10)
    power = fleet.view.power(T + 10)
    assert power.milliwatts == power.modelled_milliwatts == 840_000
    assert (power.lower_milliwatts, power.upper_milliwatts) == pytest.approx((714_000, 966_000))
    assert fleet.view.model_band() == pytest.approx((0.15, 0.15))
