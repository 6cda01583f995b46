"""Totals that the database added up are those of single rows, to the last microjoule and gram."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collector.fake_store import FakeStore

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.emission_counters import EmissionCounters
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import parse_factors, seconds_of_day
from wattledger_collector.fleet_sites import RECENT_SECONDS, SiteTotals
from wattledger_collector.fleet_totals import read_rollups
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    Component,
    EmissionBasis,
    Piece,
    Quality,
    RollupRow,
    SiteRow,
)

START = seconds_of_day(date(2024, 1, 1))
STEP = 900
# Five days before what is recent.
SLOTS = 5 * 96
NOW = START + SLOTS * STEP + RECENT_SECONDS
HEADER = (
    "zone,name,value,unit,signal,boundary,gas,basis,includes_td,valid_from,valid_to,published,source,document,"
    "licence,attribution\n"
)
ROW = "XX,Nowhere,{},g/kWh,average,direct,CO2e,production,false,{},{},2025-06-01,T,d,l,a\n"
# A factor that comes on the third day: before there is none.
CATALOG = FactorCatalog([parse_factors(HEADER + ROW.format("123.4", "2024-01-03", "2025-01-01"), "f")])
FACTOR = "XX/2024-01-01/average-direct-CO2e-production/T/2025-06-01"
SITES = [SiteRow("hall", 0, "XX", "1.25", False, 0), SiteRow("fine", 0, "XX", "1.5", False, 0)]

Totals = tuple[object, ...]


class WatchedStore(FakeStore):
    """Notes which rows were read one by one, and how many sums."""

    def __init__(self, rows: Iterable[RollupRow], bases: Iterable[EmissionBasis]) -> None:
        super().__init__(site_rows=list(SITES), rollup_rows=list(rows), basis_rows=list(bases))
        self.single: list[tuple[int, int, str | None]] = []
        self.sums = 0

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """As ever."""
        self.single.append((from_seconds, to_seconds, site))
        return super().rollups(from_seconds, to_seconds, site)

    def rollup_sums(
        self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> Iterator[RollupRow]:
        """As ever, by the rows themselves."""
        plain = FakeStore(rollup_rows=self.rollup_rows)
        for row in plain.rollup_sums(pieces, only, without):
            self.sums += 1
            yield row


def emissions(store: FakeStore) -> EmissionCounters:
    """Counters that know the store's bases."""
    return EmissionCounters(BasisFinder(SITES, CATALOG), store.emission_runs(), interval_seconds=STEP)


def told(totals: SiteTotals, counters: EmissionCounters, store: FakeStore) -> Totals:
    """All that a view has of it, and the bases that are kept."""
    bases = sorted(store.basis_rows, key=lambda basis: (basis.site, basis.interval_start_seconds))
    return (
        totals.counters({}),
        totals.recent(0),
        sorted(counters.counters().items()),
        sorted(counters.energy_by_tier().items()),
        {key: energy for key, energy in counters.uncovered_microjoules().items() if energy},
        bases,
        counters.superseded_seconds(),
    )


def read_singly(rows: Sequence[RollupRow], bases: Sequence[EmissionBasis]) -> Totals:
    """Row by row."""
    store, totals = FakeStore(rollup_rows=list(rows), basis_rows=list(bases)), SiteTotals()
    counters = emissions(store)
    totals.load(counters.passing(store.rollups(0, 2**40)), NOW)
    counters.count_passed(store.add_emission_bases)
    return told(totals, counters, store)


def read_in_pieces(store: WatchedStore) -> Totals:
    """As the view does."""
    totals, counters = SiteTotals(), emissions(store)
    totals.load(read_rollups(store, counters, NOW, STEP), NOW)
    counters.count_passed(store.add_emission_bases)
    return told(totals, counters, store)


def row(slot: int, energy: int, *, site: str = "hall", quality: Quality = Quality.COUNTER) -> RollupRow:
    """Energy of an interval."""
    return RollupRow(site, START + slot * STEP, Component.CPU, quality, False, energy, 900)


def basis(slot: int, grams: str = "380.5", site: str = "hall") -> EmissionBasis:
    """What an interval counts as."""
    return EmissionBasis(site, START + slot * STEP, grams, FACTOR, "1.25")


@given(
    rows=st.lists(
        st.builds(
            RollupRow,
            st.sampled_from(["hall", "fine", "dark"]),
            st.integers(-40, SLOTS + 96).map(lambda slot: START + slot * STEP),
            st.sampled_from([Component.CPU, Component.OTHER]),
            st.sampled_from(list(Quality)),
            st.booleans(),
            st.integers(-(10**9), 10**12),
            st.integers(0, 900),
        ),
        max_size=60,
    ),
    known=st.dictionaries(st.integers(-40, SLOTS + 96), st.sampled_from(["380.5", "12", "65/3"]), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_single_rows(rows: list[RollupRow], known: dict[int, str]) -> None:
    """Whatever is booked, whatever has a basis already, a factor or none: totals, bases and counters are the same."""
    bases = [basis(slot, grams) for slot, grams in sorted(known.items())]
    # A site whose factor changes each hour.
    bases += [basis(slot, str(Fraction(300 + slot // 4, 7)), "fine") for slot in range(0, SLOTS, 3)]
    assert read_in_pieces(WatchedStore(rows, bases)) == read_singly(rows, bases)


def test_what_is_old_and_known_is_not_read_row_by_row() -> None:
    """A site that is always on is one sum a day; only the last two days are read as they are."""
    rows = [row(slot, MICROJOULES_PER_KWH) for slot in range(SLOTS)]
    store = WatchedStore(rows, [basis(slot) for slot in range(SLOTS)])
    found = read_in_pieces(store)
    assert store.sums == 5
    assert [(begin, site) for begin, _, site in store.single] == [(START + SLOTS * STEP, None)]
    assert found == read_singly(rows, store.basis_rows)


def test_a_site_without_a_factor_is_not_read_row_by_row() -> None:
    """None of its intervals can get a basis; once a factor comes, the counters know that they are outdated."""
    store = WatchedStore([row(slot, 5, site="dark") for slot in range(SLOTS)], [])
    counters = emissions(store)
    deque(read_rollups(store, counters, NOW, STEP), maxlen=0)
    counters.count_passed(store.add_emission_bases)
    assert sum(counters.uncovered_microjoules().values()) == 5 * SLOTS
    assert [site for _, _, site in store.single] == [None]


def test_a_recording_is_not_read_row_by_row() -> None:
    """It needs no basis, though a factor holds."""
    store = WatchedStore([replace(row(slot, 5), recorded=True) for slot in range(2 * 96, SLOTS)], [])
    assert read_in_pieces(store)[:6] == ([], [], [], [], {}, [])
    assert [site for _, _, site in store.single] == [None]


def test_an_empty_ledger_has_no_rows() -> None:
    """There is no earliest one."""
    assert list(read_rollups(FakeStore(), emissions(FakeStore()), NOW, STEP)) == []
