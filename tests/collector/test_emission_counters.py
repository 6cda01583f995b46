"""Emission counters keep the factor that was known when an interval's first energy came."""

from datetime import date
from fractions import Fraction

from tests.collector.fake_store import FakeStore

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.emission_counters import EmissionCounters
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import parse_factors, seconds_of_day
from wattledger_collector.records import MICROJOULES_PER_KWH, Component, Quality, RollupRow, SiteRow

START = seconds_of_day(date(2024, 1, 1))
HEADER = (
    "zone,name,value,unit,signal,boundary,gas,basis,includes_td,valid_from,valid_to,published,source,document,"
    "licence,attribution\n"
)


def catalog(*values: tuple[int, str, str]) -> FactorCatalog:
    """A catalog of zone XX: year, g/kWh and day of publication."""
    rows = [
        f"XX,Nowhere,{value},g/kWh,average,direct,CO2e,production,false,{year}-01-01,{year + 1}-01-01,{published},T,d,l,a\n"
        for year, value, published in values
    ]
    return FactorCatalog([parse_factors(HEADER + "".join(rows), "f")])


def counters(store: FakeStore, factors: FactorCatalog) -> EmissionCounters:
    """Counters as a collector makes them at its start."""
    made = EmissionCounters(BasisFinder(store.sites(), factors), store.emission_bases(), interval_seconds=900)
    made.add(store.rollups(0, 2**40))
    store.add_emission_bases(made.take_new_bases())
    return made


def rollup(start: int, kwh: int, *, recorded: bool = False) -> RollupRow:
    """Whole kWh of one interval."""
    return RollupRow("hall", start, Component.GPU, Quality.COUNTER, recorded, kwh * MICROJOULES_PER_KWH, 1)


def total(made: EmissionCounters) -> Fraction:
    """Grams of the only site and type."""
    (grams,) = made.grams().values()
    return grams


def test_counters_are_not_restated_by_a_new_factor() -> None:
    """When a new factor appears, old intervals keep theirs, their late energy too; new intervals use the new one."""
    store = FakeStore(site_rows=[SiteRow("hall", 0, "XX", "1.5", False, 0)], rollup_rows=[rollup(START, 2)])
    first = counters(store, catalog((2023, "100", "2024-01-01")))
    assert total(first) == 2 * 150

    store.rollup_rows += [rollup(START, 1), rollup(START + 900, 1)]
    second = counters(store, catalog((2023, "100", "2024-01-01"), (2024, "40", "2025-01-01")))

    assert total(second) == 3 * 150 + 60
    assert [row.factor_grams_per_kwh for row in store.emission_bases()] == ["100", "40"]


def test_energy_counts_the_same_at_once_and_after_a_restart() -> None:
    """What commits add one by one equals what a restarted collector reads from the store."""
    store = FakeStore(site_rows=[SiteRow("hall", 0, "XX", "1.25", False, 0)])
    factors = catalog((2024, "333.3333333", "2025-01-01"))
    live = counters(store, factors)
    for index in (0, 1, 2, 7, 5, 6, 1, 0):
        row = rollup(START + 900 * index, 3)
        live.add([row])
        store.rollup_rows.append(row)
    store.add_emission_bases(live.take_new_bases())

    assert live.take_new_bases() == []
    assert counters(store, factors).grams() == live.grams()
    assert len(store.basis_rows) == 6


def test_late_energy_of_the_new_year_has_the_new_years_factor() -> None:
    """Intervals on both sides of the turn lie side by side, and each keeps its own factor, after a restart too."""
    factors = catalog((2023, "100", "2024-01-01"), (2024, "40", "2025-01-01"))
    store = FakeStore(
        site_rows=[SiteRow("hall", 0, "XX", "1", False, 0)], rollup_rows=[rollup(START - 900, 1), rollup(START, 1)]
    )
    made = counters(store, factors)
    made.add([rollup(START, 1), rollup(START - 900, 1)])
    store.rollup_rows += [rollup(START, 1), rollup(START - 900, 1)]

    assert total(made) == 2 * 100 + 2 * 40
    assert counters(store, factors).grams() == made.grams()


def test_energy_without_a_factor_and_recordings_never_count() -> None:
    """Without a factor nothing is counted, and no basis is kept that would hold when a factor comes."""
    store = FakeStore(site_rows=[SiteRow("hall", 0, None, "1", False, 0)], rollup_rows=[rollup(START, 2)])
    store.rollup_rows.append(rollup(START, 5, recorded=True))

    made = counters(store, catalog((2024, "1", "2025-01-01")))

    assert made.grams() == {}
    assert store.basis_rows == []


def test_factors_that_share_an_interval_count_by_their_time() -> None:
    """Five minutes each of 10, 20 and 35 g are 65/3 g/kWh, after a restart too; minutes without any count as nothing."""
    rows = [(0, 5, "10"), (5, 10, "20"), (10, 15, "35")]
    text = HEADER + "".join(
        f"XX,Nowhere,{value},g/kWh,average,direct,CO2e,production,false,2024-01-01T00:{begin:02}Z,2024-01-01T00:{end:02}Z,"
        "2024-01-01,T,d,l,a\n"
        for begin, end, value in rows
    )
    store = FakeStore(site_rows=[SiteRow("hall", 0, "XX", "1.5", False, 0)], rollup_rows=[rollup(START, 3)])
    factors = FactorCatalog([parse_factors(text, "f")])
    made = counters(store, factors)
    assert total(made) == Fraction(65, 3) * 3 * Fraction("1.5")
    assert total(counters(store, factors)) == total(made)
    # From 00:15 on the last value is carried for six hours, and then there is none.
    late = rollup(START + 6 * 3600 - 900 + 900 * 2, 1)
    store.rollup_rows.append(late)
    assert total(counters(store, factors)) == total(made)
