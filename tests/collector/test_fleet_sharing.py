"""Two collectors on one store: what they show adds up to the ledger, whoever serves a host and whoever dies."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.collector.fleets import MEASURED, MODELLED, Part, SimulatedHost, assignments, load, site_rows

from wattledger_collector.exposition import Exposition
from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_sharing import FleetSharing
from wattledger_collector.lease import LEASE_SECONDS, RENEWAL_SECONDS, Snapshot, release, renew
from wattledger_collector.records import MICROJOULES_PER_JOULE, Booking, CommitOutcome, Component, Method, Role
from wattledger_collector.store import SqliteStore, open_store

Read = Callable[[], AbstractContextManager[Snapshot]]

T = 1_700_000_100 // 900 * 900 + 60
RESIDUAL = Part("node", Component.OTHER, Method.INTEGRAL, 5_000, Role.RESIDUAL, "residual", "hwmon")
SITE_FAMILIES = {
    "wattledger_site_energy_joules",
    "wattledger_site_emissions_grams",
    "wattledger_site_market_based_emissions_grams",
    "wattledger_site_quality_energy_joules",
    "wattledger_site_uncovered_energy_joules",
    "wattledger_site_superseded_seconds",
    "wattledger_site_factor_age_seconds",
    "wattledger_site_info",
    "wattledger_site_factor_missing",
    "wattledger_grid_carbon_intensity_grams_per_kwh",
    "wattledger_hosts_withheld",
    "wattledger_covered_seconds",
    "wattledger_expected_seconds",
    "wattledger_coverage_ratio",
}


class Collector:
    """One collector's view of a shared database, with a store of its own; `clock` is what reading takes its time from."""

    def __init__(self, name: str, path: Path, now: int) -> None:
        self.name = name
        self.store: SqliteStore = open_store(path, create=True)
        self.view = FleetView(collector=name, interval_seconds=900)
        self.sharing = FleetSharing(self.view, self.store, clock=lambda: 0.0)
        self.sharing.start(now)
        load(self.view, self.store, now)
        self.exposition = Exposition(self.view, registry=CollectorRegistry(), insecure_transport=False, version="t")

    def commit(self, booking: Booking, now: int, *, told: bool = True) -> Booking:
        """Commit in this collector's name. told: whether the view hears of it at once."""
        cursor = msgspec.structs.replace(booking.cursor_after, collector=self.name)
        booking = replace(booking, cursor_after=cursor)
        assert self.store.commit([booking]) == [CommitOutcome.COMMITTED]
        if told:
            self.view.on_committed([booking], now)
        return booking

    def serve(self, host: SimulatedHost, now: int) -> None:
        """Take a batch and present values of a host; its first one opens the epoch."""
        if host.host is None:
            host.cursor = self.commit(host.hello(), now).cursor_after
        host.cursor = self.commit(host.batch(now), now).cursor_after
        self.view.on_live(host.name, host.live(), now)

    def shown(self, now: int) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Values by family and labels, as a scrape gets them."""
        text = self.exposition.render(now).decode()
        return {
            family.name: {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
            for family in text_string_to_metric_families(text)
        }


class Pair:
    """Two collectors, three hosts of which two are the first's."""

    def __init__(self, path: Path) -> None:
        self.hosts = [SimulatedHost(name, (*MEASURED, *MODELLED, RESIDUAL), T) for name in "abc"]
        store = open_store(path, create=True)
        store.add_sites(site_rows())
        store.add_assignments(assignments(self.hosts))
        store.close()
        self.path = path
        self.now = T
        self.one, self.two = Collector("one", path, T), Collector("two", path, T)
        self.alive = [self.one, self.two]
        self.servers = {"a": self.one, "b": self.one, "c": self.two}

    def step(self, seconds: int = round(RENEWAL_SECONDS), *, renew: bool = True) -> None:
        """Each host sends a batch, then each collector looks at the lease."""
        self.now += seconds
        for host in self.hosts:
            if self.servers[host.name] in self.alive:
                self.servers[host.name].serve(host, self.now)
        for collector in self.alive if renew else ():
            collector.sharing.renew(self.now)

    def sum(self, family: str) -> float:
        """Over all labels and all collectors, as `sum(family)` in Prometheus."""
        return sum(sum(collector.shown(self.now).get(family, {}).values()) for collector in self.alive)

    def ledger_joules(self) -> float:
        """What the store holds."""
        return sum(row.energy_microjoules for row in self.one.store.rollups(0, 2**40)) / MICROJOULES_PER_JOULE


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two collectors that know of each other and have all that was committed."""
    pair = Pair(tmp_path / "ledger.db")
    for _ in range(3):
        pair.step()
    yield pair
    for collector in (pair.one, pair.two):
        collector.store.close()


def assert_adds_up(pair: Pair) -> None:
    """Every sum over both collectors is what one collector alone would show."""
    assert pair.sum("wattledger_site_energy_joules") == pytest.approx(pair.ledger_joules(), abs=1e-6)
    assert pair.sum("wattledger_host_energy_joules") == pytest.approx(pair.ledger_joules(), abs=1e-6)
    assert pair.sum("wattledger_agents") == len(pair.hosts)
    assert pair.sum("wattledger_site_info") == 1
    assert pair.sum("wattledger_host_info") == len(pair.hosts)


def test_sums_over_two_collectors_are_the_ledger(pair: Pair) -> None:
    """Sites are shown by one of them, each host by the one that serves it."""
    assert_adds_up(pair)
    assert pair.one.shown(pair.now).keys() >= SITE_FAMILIES
    assert not pair.two.shown(pair.now).keys() & SITE_FAMILIES
    states = [dict(collector.view.agents(pair.now)) for collector in pair.alive]
    assert states == [{("hall", "reporting"): 2}, {("hall", "reporting"): 1}]


def test_sums_are_the_ledger_after_a_host_has_moved_there_and_back(pair: Pair) -> None:
    """The collector that it left drops all its series, and counts it neither as silent nor at all."""
    for server in (pair.two, pair.one, pair.two):
        pair.servers["a"] = server
        pair.step()
        assert_adds_up(pair)
    left = [labels for series in pair.one.shown(pair.now).values() for labels in series if ("host", "a") in labels]
    assert left == []
    assert pair.one.view.power(pair.now).hosts == 1
    assert pair.two.view.power(pair.now).hosts == 2


def test_a_host_that_moved_with_a_new_epoch_brings_all_its_energy(pair: Pair) -> None:
    """What the collector that it comes to has not seen of older epochs, it reads."""
    host = pair.hosts[0]
    pair.servers["a"] = pair.two
    pair.step(2, renew=False)
    pair.servers["a"] = pair.one
    pair.step(2, renew=False)
    host.epoch = b"second-epoch-000"
    host.cursor = pair.two.commit(host.hello(), pair.now).cursor_after
    pair.servers["a"] = pair.two
    pair.step()
    assert_adds_up(pair)


def test_the_lease_passes_on_after_its_holders_death_and_nothing_falls(pair: Pair) -> None:
    """Another shows the sites once the lease has ended, with all that the dead one had committed."""
    pair.step(renew=False)
    before = {family: pair.one.shown(pair.now)[family] for family in SITE_FAMILIES}
    pair.alive = [pair.two]
    for _ in range(round(LEASE_SECONDS / RENEWAL_SECONDS) + 1):
        pair.step()
    assert pair.two.view.is_site_exposer(pair.now)
    after = pair.two.shown(pair.now)
    for family in ("wattledger_site_energy_joules", "wattledger_site_emissions_grams"):
        assert before[family].keys() == after[family].keys()
        assert all(after[family][labels] >= value for labels, value in before[family].items())
    assert sum(after["wattledger_site_energy_joules"].values()) == pytest.approx(pair.ledger_joules(), abs=1e-6)


def test_hosts_of_a_collector_that_is_gone_are_counted(pair: Pair) -> None:
    """Whoever shows the sites counts them as silent, so that a lost collector hides no silent host."""
    pair.alive = [pair.two]
    for _ in range(10):
        pair.step()
    assert pair.two.view.agents(pair.now) == {("hall", "reporting"): 1, ("hall", "silent"): 2}
    assert pair.sum("wattledger_host_info") == 3


def test_a_lease_that_was_given_back_is_taken_at_the_next_renewal(pair: Pair) -> None:
    """A stop in order costs one renewal, and the one that stopped shows nothing of the sites any more."""
    pair.one.sharing.stop()
    assert not pair.one.view.is_site_exposer(pair.now)
    pair.alive = [pair.two]
    pair.servers = dict.fromkeys("abc", pair.two)
    pair.step()
    assert_adds_up(pair)


def test_a_lease_that_could_not_be_renewed_ends_by_itself(pair: Pair) -> None:
    """A collector that slept does not show the sites beside its successor."""
    late = pair.now + round(LEASE_SECONDS)
    assert pair.one.view.is_site_exposer(late - 1)
    assert not pair.one.view.is_site_exposer(late)
    assert not pair.one.shown(late).keys() & SITE_FAMILIES


def test_what_is_read_before_the_view_is_told_is_counted_once(pair: Pair) -> None:
    """Totals may be read between a commit and the word of it."""
    host = pair.hosts[0]
    booking = pair.one.commit(host.batch(pair.now + 5), pair.now, told=False)
    host.cursor = booking.cursor_after
    pair.one.sharing.renew(pair.now)
    pair.one.view.on_committed([booking], pair.now)
    assert_adds_up(pair)
    pair.step()
    assert_adds_up(pair)


def test_a_word_that_comes_late_does_not_undo_what_was_read(pair: Pair) -> None:
    """Bookings that were read from the ledger already change no host when the view is told of them."""
    host = pair.hosts[0]
    first = pair.one.commit(host.batch(pair.now + 3), pair.now, told=False)
    host.cursor = first.cursor_after
    second = pair.one.commit(host.batch(pair.now + 6), pair.now, told=False)
    host.cursor = second.cursor_after
    pair.one.sharing.renew(pair.now)
    pair.one.view.on_committed([first], pair.now)
    assert_adds_up(pair)
    pair.one.view.on_committed([second], pair.now)
    assert_adds_up(pair)


class CountingView(FleetView):
    """Counts how often other collectors' work is read, and how often all of it."""

    reads = 0
    whole_reads = 0

    def refresh(self, read: Read, now_seconds: float, *, whole: bool) -> None:
        """As ever."""
        self.reads += 1
        self.whole_reads += whole
        super().refresh(read, now_seconds, whole=whole)


def test_reading_is_bounded(tmp_path: Path) -> None:
    """Alone nothing is read; beside others all totals take at most a twentieth of the time."""
    clock = [0.0]

    def slow_clock() -> float:
        clock[0] += 3.0
        return clock[0]

    store = open_store(tmp_path / "ledger.db", create=True)
    view = CountingView(collector="one", interval_seconds=900)
    sharing = FleetSharing(view, store, clock=slow_clock)
    sharing.start(T)
    load(view, store, T)
    for step in range(1, 10):
        sharing.renew(T + 10 * step)
    assert view.reads == 0
    for step in range(10, 100):
        clock[0] += RENEWAL_SECONDS
        renew(store, "two", T + 10 * step)
        sharing.renew(T + 10 * step)
    assert view.reads == 90
    assert 5 <= view.whole_reads <= 20
    store.close()


def test_who_gets_the_lease_back_reads_all_first(tmp_path: Path) -> None:
    """However lately it has read: another collector had the lease, and may have booked."""
    store = open_store(tmp_path / "ledger.db", create=True)
    view = CountingView(collector="one", interval_seconds=900)
    sharing = FleetSharing(view, store)
    renew(store, "two", T)
    sharing.start(T)
    load(view, store, T)
    release(store, "two")
    for step in range(3):
        now = T + 1 + 100 * step
        sharing.renew(now)
        assert (view.is_site_exposer(now), view.whole_reads) == (True, step + 1)
        renew(store, "two", now + 99)
        release(store, "two")
    store.close()
