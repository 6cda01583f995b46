"""Emissions as a collector shows them: both methods, by scope and quality, whoever scrapes, restarts, fails or shares."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.collector.fake_store import FakeStore
from tests.collector.fleets import (
    COLLECTOR,
    MEASURED,
    MODELLED,
    Part,
    SimulatedFleet,
    SimulatedHost,
    assignments,
    site_rows,
)

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.database import open_database
from wattledger_collector.declared import parse_declared
from wattledger_collector.emission_counters import Metering, Superseded
from wattledger_collector.emission_terms import DeclaredTerms
from wattledger_collector.exposition import Exposition
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_live import LiveFinder
from wattledger_collector.factors import parse_factors
from wattledger_collector.fleet import FleetView
from wattledger_collector.records import Component, EmissionBasis, Method, Role, StoreError
from wattledger_collector.store import SqliteStore, open_store

T = 1_700_000_100 // 900 * 900 + 60
LOCATION = "wattledger_site_emissions_grams"
MARKET = "wattledger_site_market_based_emissions_grams"
TIERS = "wattledger_site_quality_energy_joules"
UNCOVERED = "wattledger_site_uncovered_energy_joules"
RESIDUAL = Part("node", Component.OTHER, Method.INTEGRAL, 5_000, Role.RESIDUAL, "residual", "hwmon")
HEADER = (
    "zone,name,value,unit,signal,boundary,gas,basis,includes_td,valid_from,valid_to,published,source,document,"
    "licence,attribution\n"
)
DECLARED = parse_declared(
    """
    organisation = "O"
    approach = "operational_control"

    [[holding]]
    site = "hall"
    situation = "colocated"
    has_control = true
    evidence = "contract 7"

    [[residual]]
    market = "XX"
    grams_per_kwh = 600
    evidence = "decree"
    """,
    "inventory.toml",
)


def catalog(*values: tuple[int, str]) -> FactorCatalog:
    """Yearly factors of zone XX."""
    rows = [
        f"XX,Nowhere,{value},g/kWh,average,direct,CO2e,production,false,{year}-01-01,{year + 1}-01-01,{year + 1}-06-01,"
        "T,d,l,a\n"
        for year, value in values
    ]
    return FactorCatalog([parse_factors(HEADER + "".join(rows), "f")] if rows else [])


KNOWN = catalog((2023, "300"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A real ledger."""
    store = open_store(tmp_path / "ledger.db", create=True)
    yield store
    store.close()


def a_view(store: FakeStore | SqliteStore, finder: BasisFinder | None = None, *, name: str = COLLECTOR) -> FleetView:
    """A collector's view, loaded, with the declaration."""
    view = FleetView(collector=name, interval_seconds=900)
    view.load(store, finder or BasisFinder(store.sites(), KNOWN), T, DeclaredTerms(DECLARED, lambda: KNOWN))
    return view


def a_fleet(
    store: FakeStore | SqliteStore, hosts: Sequence[SimulatedHost], finder: BasisFinder | None = None
) -> SimulatedFleet:
    """Hosts in one site of zone XX with a PUE of 1.25, opened."""
    store.add_sites(site_rows(zone="XX"))
    store.add_assignments(assignments(hosts))
    fleet = SimulatedFleet(a_view(store, finder), list(hosts), store if isinstance(store, SqliteStore) else None)
    fleet.open(T)
    return fleet


def shown(view: FleetView, now: int) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by family and labels, as a scrape gets them."""
    text = Exposition(view, registry=CollectorRegistry(), insecure_transport=False, version="t").render(now).decode()
    return {
        family.name: {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


def of(values: dict[tuple[tuple[str, str], ...], float], *labels: str) -> dict[tuple[str, ...], float]:
    """Values by some labels alone."""
    return {tuple(dict(key)[label] for label in labels): value for key, value in values.items()}


def test_each_method_has_a_family_that_is_safe_to_sum(store: SqliteStore) -> None:
    """Summed over all labels one is location based, the other market based; scope 3 is the same in both."""
    fleet = a_fleet(store, [SimulatedHost("a", MEASURED, T)])
    fleet.step(T + 800)
    kwh = 138.5 * 800 / 3.6e6
    found = shown(fleet.view, T + 800)
    located, told = of(found[LOCATION], "scope", "method", "basis"), of(found[MARKET], "scope", "method", "basis")
    assert located == pytest.approx(
        {("2", "location", "production"): kwh * 300, ("3.8", "location", "production"): kwh * 75}
    )
    assert told == pytest.approx({("2", "market", "residual"): kwh * 600, ("3.8", "market", "production"): kwh * 75})


def test_totals_do_not_depend_on_who_scrapes(store: SqliteStore) -> None:
    """Scraped at each step, once at the end, or first after a restart, the ledger's totals are the same to the last digit.

    A residual falls between scrapes, so that marks which readers take would differ.
    """
    host, modelled = SimulatedHost("a", (*MEASURED, RESIDUAL), T), SimulatedHost("b", (*MODELLED, RESIDUAL), T)
    fleet = a_fleet(store, [host, modelled])
    quiet = a_view(store)
    for step, milliwatts in enumerate((5_000, -3_000, -1_000, 9_000, -2_000)):
        for each in (host, modelled):
            each.parts = (*each.parts[:-1], replace(RESIDUAL, milliwatts=milliwatts))
        bookings = [each.batch(T + 500 * (step + 1)) for each in (host, modelled)]
        fleet.commit(bookings, T)
        quiet.on_committed(bookings, T)
        shown(fleet.view, T)
    families = (LOCATION, MARKET, TIERS, UNCOVERED, "wattledger_site_energy_joules")
    often, once, restarted = (shown(view, T) for view in (fleet.view, quiet, a_view(store)))
    for family in families:
        assert often[family] == once[family] == restarted[family], family
    joules = sum(row.energy_microjoules for row in store.rollups(0, 2**40)) / 10**6
    assert sum(often[TIERS].values()) == pytest.approx(joules, rel=1e-12)


def test_a_withheld_site_shows_neither_method_nor_quality() -> None:
    """After a restore all that is summed over hosts waits, the energy without a factor too."""
    host = SimulatedHost("a", MEASURED, T)
    fleet = a_fleet(FakeStore(), [host])
    fleet.step(T + 10)
    assert host.host is not None
    host.host = msgspec.structs.replace(host.host, withheld_until={host.epoch: 3})
    fleet.step(T + 20)
    assert not shown(fleet.view, T + 20).keys() & {LOCATION, MARKET, TIERS, UNCOVERED}


class FailingStore(SqliteStore):
    """A ledger that can't keep bases while it is broken."""

    is_broken = False
    failures = 0

    def add_emission_bases(self, rows: Iterable[EmissionBasis]) -> Sequence[EmissionBasis]:
        """As ever, or not."""
        if self.is_broken:
            self.failures += 1
            raise StoreError("the disk is full")
        return super().add_emission_bases(rows)


def test_sites_are_hidden_while_a_basis_cannot_be_kept(tmp_path: Path) -> None:
    """Figures that a restart might not show again are not shown; once the store works all of them are.

    All is not read again at each commit: the second one only tries to keep its own basis.
    """
    path = tmp_path / "ledger.db"
    store = FailingStore(path, open_database(path, create=True, interval_seconds=900))
    fleet = a_fleet(store, [SimulatedHost("a", MEASURED, T)])
    store.is_broken = True
    fleet.step(T + 10)
    assert not shown(fleet.view, T + 10).keys() & {LOCATION, MARKET, "wattledger_site_energy_joules"}
    before = store.failures
    fleet.step(T + 12)
    assert store.failures == before + 1
    store.is_broken = False
    fleet.step(T + 20)
    found = shown(fleet.view, T + 20)
    assert sum(found[LOCATION].values()) == pytest.approx(138.5 * 20 / 3.6e6 * 375)
    assert sum(found["wattledger_site_energy_joules"].values()) == pytest.approx(138.5 * 20)
    store.close()


def test_energy_without_a_factor_counts_once_one_comes(store: SqliteStore) -> None:
    """It is told as uncovered, and after the next booking the counters are those of a collector that starts now."""
    finder = LiveFinder(BasisFinder(site_rows(zone="XX"), catalog()))
    fleet = a_fleet(store, [SimulatedHost("a", MEASURED, T)], finder)
    fleet.step(T + 10)
    before = shown(fleet.view, T + 10)
    assert LOCATION not in before
    assert of(before[UNCOVERED], "metering") == {("measured",): 1385.0, ("bridged",): 0.0, ("modelled",): 0.0}
    finder.replace(BasisFinder(site_rows(zone="XX"), KNOWN))
    fleet.view.factors_changed()
    fleet.step(T + 20)
    after, restarted = shown(fleet.view, T + 20), shown(a_view(store), T + 20)
    assert sum(after[UNCOVERED].values()) == 0
    assert sum(after[LOCATION].values()) == pytest.approx(138.5 * 20 / 3.6e6 * 375)
    assert (after[LOCATION], after[MARKET], after[TIERS]) == (restarted[LOCATION], restarted[MARKET], restarted[TIERS])


def test_a_factor_that_comes_in_an_interval_covers_all_of_it(store: SqliteStore) -> None:
    """Without word of it the next booking sees that what came before in its interval has a factor, too."""
    finder = LiveFinder(BasisFinder(site_rows(zone="XX"), catalog()))
    fleet = a_fleet(store, [SimulatedHost("a", MEASURED, T)], finder)
    fleet.step(T + 10)
    finder.replace(BasisFinder(site_rows(zone="XX"), KNOWN))
    fleet.step(T + 20)
    assert dict(fleet.view.emission_counters()) == dict(a_view(store).emission_counters())


def test_a_superseded_factor_is_told_when_it_is_known(store: SqliteStore) -> None:
    """A year's own factor comes: the interval that had the last known one is told, and its counters stay."""
    finder = LiveFinder(BasisFinder(site_rows(zone="XX"), catalog((2022, "400"))))
    fleet = a_fleet(store, [SimulatedHost("a", MEASURED, T)], finder)
    fleet.step(T + 10)
    superseded = ("wattledger_site_superseded_seconds", "resolution")
    before = shown(fleet.view, T + 10)
    assert of(before[superseded[0]], superseded[1]) == {("yearly",): 0.0, ("hourly",): 0.0}
    finder.replace(BasisFinder(site_rows(zone="XX"), catalog((2022, "400"), (2023, "300"))))
    fleet.view.factors_changed()
    after = shown(fleet.view, T + 10)
    assert of(after[superseded[0]], superseded[1]) == {("yearly",): 900.0, ("hourly",): 0.0}
    assert after[LOCATION] == before[LOCATION]
    restarted = a_view(store, finder)
    assert restarted.superseded_seconds() == fleet.view.superseded_seconds() == {Superseded("hall", True): 900}


def test_the_age_of_a_factor_is_that_of_what_it_describes() -> None:
    """Within its year it is 0; a year that stands in for a later one is as old as the time since its end."""
    view = a_fleet(FakeStore(), [SimulatedHost("a", MEASURED, T)]).view
    end_of_2023 = 1_704_067_200
    ages = [shown(view, now)["wattledger_site_factor_age_seconds"] for now in (T, end_of_2023 + 86_400)]
    assert [list(age.values()) for age in ages] == [[0.0], [86_400.0]]


def test_collectors_with_other_factors_count_alike_at_once(store: SqliteStore) -> None:
    """Whoever is first to book an interval decides what it counts as, for both, without a restart."""
    own, others = SimulatedHost("a", MEASURED, T), SimulatedHost("b", MODELLED, T)
    fleet = a_fleet(store, [own])
    store.add_assignments(assignments([others]))
    other = a_view(store, BasisFinder(store.sites(), catalog((2023, "1"))), name="other")
    hello = others.hello()
    others.cursor = msgspec.structs.replace(hello.cursor_after, collector="other")
    bookings = [replace(hello, cursor_after=others.cursor), others.batch(T + 10)]
    for booking in bookings[:1]:
        store.commit([booking])
        other.on_committed([booking], T)
    fleet.step(T + 10)
    store.commit(bookings[1:])
    other.on_committed(bookings[1:], T + 10)
    grams = [grams for series, grams in other.emission_counters() if not series.is_market]
    assert float(sum(grams)) == pytest.approx(210.0 * 10 / 3.6e6 * 375)
    assert len(list(store.emission_bases())) == 1


def test_factors_by_other_warming_potentials_are_other_series(store: SqliteStore) -> None:
    """A site whose zone's factors go over to newer ones has no two series with one set of labels."""
    header = HEADER.replace("attribution", "attribution,gwp")
    rows = "".join(
        f"{zone},Nowhere,300,g/kWh,average,direct,CO2e,production,false,2023-01-01,2024-01-01,2024-06-01,T,d,l,a,{gwp}\n"
        for zone, gwp in (("XX", "AR4"), ("YY", "AR5"))
    )
    change = T - 60 + 900
    sites = [*site_rows(zone="XX"), replace(site_rows(zone="YY")[0], valid_from_seconds=change)]
    finder = BasisFinder(sites, FactorCatalog([parse_factors(header + rows, "f")]))
    fleet = a_fleet(store, [SimulatedHost("a", MEASURED, T)], finder)
    for now in (change, change + 900):
        fleet.step(now)
    exposition = Exposition(fleet.view, registry=CollectorRegistry(), insecure_transport=False, version="t")
    lines = exposition.render(now).decode().splitlines()
    names = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(names) == len(set(names))
    assert set(of(shown(fleet.view, now)[LOCATION], "gwp")) == {("AR4",), ("AR5",)}


def test_an_unassigned_host_is_uncovered_and_in_no_counter() -> None:
    """It has no zone: its energy is told by how it was metered."""
    store = FakeStore()
    fleet = SimulatedFleet(a_view(store), [SimulatedHost("a", MODELLED, T)])
    fleet.open(T)
    fleet.step(T + 10)
    assert fleet.view.emission_counters() == []
    told = {metering: energy for site, metering, energy in fleet.view.uncovered_energy() if site == "unassigned"}
    assert told == {Metering.MEASURED: 0, Metering.BRIDGED: 0, Metering.MODELLED: 2_100_000_000}
