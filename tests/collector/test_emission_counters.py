"""Emission counters keep the factor that was known when an interval's first energy came."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

from tests.collector.fake_store import FakeStore

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.emission_bases import ResidualMix, SiteTerms, Terms
from wattledger_collector.emission_counters import EmissionCounters, Metering, Superseded, TierSeries
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_live import LiveFinder
from wattledger_collector.factors import FactorKind, parse_factors, seconds_of_day
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    Component,
    EmissionBasis,
    Quality,
    RollupRow,
    SiteRow,
)

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


def counters(store: FakeStore, factors: FactorCatalog, site_terms: SiteTerms | None = None) -> EmissionCounters:
    """Counters as a collector makes them at its start."""
    made = EmissionCounters(
        BasisFinder(store.sites(), factors), store.emission_runs(), interval_seconds=900, site_terms=site_terms
    )
    add(made, store, store.rollups(0, 2**40))
    return made


def add(made: EmissionCounters, store: FakeStore, rows: Iterable[RollupRow]) -> None:
    """Count rows, their bases kept first."""
    deque(made.passing(rows), maxlen=0)
    made.count_passed(store.add_emission_bases)


def rollup(start: int, kwh: int, *, recorded: bool = False) -> RollupRow:
    """Whole kWh of one interval."""
    return RollupRow("hall", start, Component.GPU, Quality.COUNTER, recorded, kwh * MICROJOULES_PER_KWH, 1)


def total(made: EmissionCounters) -> Fraction:
    """Location-based grams of the only site, scope and type."""
    (grams,) = (grams for series, grams in made.grams().items() if not series.is_market)
    return grams


def by_scope(made: EmissionCounters, *, is_market: bool) -> dict[str, Fraction]:
    """Grams of one method, by scope and the factor's basis."""
    return {
        f"{series.scope} {series.kind.basis}": grams
        for series, grams in sorted(made.counters().items())
        if series.is_market is is_market
    }


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
        add(live, store, [row])
        store.rollup_rows.append(row)

    assert counters(store, factors).grams() == live.grams()
    assert len(store.basis_rows) == 6


def test_late_energy_of_the_new_year_has_the_new_years_factor() -> None:
    """Intervals on both sides of the turn lie side by side, and each keeps its own factor, after a restart too."""
    factors = catalog((2023, "100", "2024-01-01"), (2024, "40", "2025-01-01"))
    store = FakeStore(
        site_rows=[SiteRow("hall", 0, "XX", "1", False, 0)], rollup_rows=[rollup(START - 900, 1), rollup(START, 1)]
    )
    made = counters(store, factors)
    add(made, store, [rollup(START, 1), rollup(START - 900, 1)])
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


@dataclass
class Declared:
    """A declaration that says the same of all sites at all times."""

    told: Terms

    def at(self, site: str, zone: str, at_seconds: int, beside: FactorKind) -> Terms:
        """What it says."""
        return self.told


MIX = ResidualMix(Decimal("600.5"), "XX/2024-01-01/average-direct-CO2e-residual/declared/2024-01-01")
FACTORS = ((2024, "100", "2025-01-01"),)
HALL = SiteRow("hall", 0, "XX", "1.5", False, 0)


def test_without_a_declaration_both_figures_are_the_grids_in_scope_2() -> None:
    """The grid's factor stands in for the residual mix that nobody named."""
    made = counters(FakeStore(site_rows=[HALL], rollup_rows=[rollup(START, 2)]), catalog(*FACTORS))
    assert by_scope(made, is_market=False) == by_scope(made, is_market=True) == {"2 production": Fraction(300)}


def test_the_residual_mix_counts_market_based_alone() -> None:
    """2 kWh x 1.5 are 300 g by the grid and 1801.5 g by the residual mix, and no series holds both."""
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(START, 2)])
    made = counters(store, catalog(*FACTORS), Declared(Terms("2", "2", MIX)))
    assert by_scope(made, is_market=False) == {"2 production": Fraction(300)}
    assert by_scope(made, is_market=True) == {"2 residual": Fraction("1801.5")}


def test_a_tenants_overhead_stands_in_scope_3_and_no_contract_tells_it() -> None:
    """IT in scope 2 has the residual mix; the landlord's cooling counts by the grid in both figures."""
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(START, 2)])
    made = counters(store, catalog(*FACTORS), Declared(Terms("2", "3.8", MIX)))
    assert by_scope(made, is_market=False) == {"2 production": Fraction(200), "3.8 production": Fraction(100)}
    assert by_scope(made, is_market=True) == {"2 residual": Fraction(1201), "3.8 production": Fraction(100)}


def test_an_edited_declaration_counts_from_the_next_interval_on() -> None:
    """Scopes and residual mix of an interval are those of its first use, for its late energy and after a restart too."""
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(START, 2)])
    first = counters(store, catalog(*FACTORS), Declared(Terms("2", "3.8", MIX)))
    store.rollup_rows += [rollup(START, 1), rollup(START + 900, 1)]
    edited = Declared(Terms("3.1", "3.1", None))
    second = counters(store, catalog(*FACTORS), edited)
    assert by_scope(second, is_market=False) == {
        "2 production": Fraction(300), "3.1 production": Fraction(150), "3.8 production": Fraction(150)
    }  # fmt: skip
    assert by_scope(second, is_market=True)["2 residual"] == Fraction("1801.5")
    assert all(second.counters()[series] >= grams for series, grams in first.counters().items())
    assert counters(store, catalog(*FACTORS)).counters() == second.counters()


def test_what_another_collector_kept_first_counts_here_too() -> None:
    """Of two collectors with other factors and declarations one basis stands in the store, and both count with it."""
    store = FakeStore(site_rows=[HALL])
    one = counters(store, catalog(*FACTORS), Declared(Terms("2", "3.8", MIX)))
    other = counters(store, catalog((2024, "7", "2025-01-01")))
    add(one, store, [rollup(START, 1)])
    add(other, store, [rollup(START, 1)])
    assert other.counters() == one.counters()


def test_rows_from_before_scopes_were_kept_are_in_scope_2() -> None:
    """Their tier is not known, and their market-based figure is the location-based one."""
    factor = "XX/2024-01-01/average-direct-CO2e-production/T/2025-01-01"
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(START, 2)])
    store.basis_rows = [EmissionBasis("hall", START, "100", factor, "1.5")]
    made = counters(store, catalog(*FACTORS), Declared(Terms("3.1", "3.1", MIX)))
    assert by_scope(made, is_market=False) == by_scope(made, is_market=True) == {"2 production": Fraction(300)}
    assert made.energy_by_tier() == {TierSeries("hall", Metering.MEASURED, ""): 2 * MICROJOULES_PER_KWH}


def test_an_interval_in_which_pue_and_factors_change_has_exact_grams() -> None:
    """Each third by its own factor x PUE, location and market based; together with the landlord's part they are the sum."""
    text = HEADER + "".join(
        f"XX,Nowhere,{value},g/kWh,average,direct,CO2e,production,false,2024-01-01T00:{begin:02}Z,2024-01-01T00:{end:02}Z,"
        "2024-01-01,T,d,l,a\n"
        for begin, end, value in ((0, 5, "10"), (5, 15, "20"))
    )
    rows = [HALL, SiteRow("hall", START + 600, "XX", "2", False, 0)]
    factors = FactorCatalog([parse_factors(text, "f")])
    for overhead in ("2", "3.8"):
        store = FakeStore(site_rows=rows, rollup_rows=[rollup(START, 3)])
        made = counters(store, factors, Declared(Terms("2", overhead, MIX)))
        located, told = (sum(by_scope(made, is_market=is_market).values()) for is_market in (False, True))
        assert located == Fraction(10) * Fraction(3, 2) + 20 * Fraction(3, 2) + 20 * 2
        if overhead == "2":
            assert told == Fraction("600.5") * (Fraction(3, 2) * 2 + 2)
        assert by_scope(made, is_market=False).get("2 production", located) in (located, Fraction(50))
        assert counters(store, factors).counters() == made.counters()


def test_energy_is_told_by_metering_and_tier() -> None:
    """Measured, bridged and modelled energy apart, by the tier of the factor first used; what has none is uncovered."""
    rows = [
        replace(rollup(START, kwh), quality=quality)
        for kwh, quality in ((1, Quality.COUNTER), (2, Quality.INTEGRAL), (4, Quality.BRIDGED), (8, Quality.MODEL))
    ]
    store = FakeStore(site_rows=[HALL], rollup_rows=[*rows, replace(rollup(START, 16), site="unassigned")])
    made = counters(store, catalog(*FACTORS))
    assert {key: energy // MICROJOULES_PER_KWH for key, energy in made.energy_by_tier().items()} == {
        TierSeries("hall", Metering.MEASURED, "F5"): 3,
        TierSeries("hall", Metering.BRIDGED, "F5"): 4,
        TierSeries("hall", Metering.MODELLED, "F5"): 8,
    }
    assert made.uncovered_microjoules() == {("unassigned", Metering.MEASURED): 16 * MICROJOULES_PER_KWH}


def test_a_superseded_vintage_is_told_in_the_time_that_it_counted() -> None:
    """A provisional factor of an earlier year is superseded when the year's own appears; what comes later is not."""
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(START + 900 * index, 1) for index in range(4)])
    assert counters(store, catalog((2023, "100", "2024-01-01"))).superseded_seconds() == {}
    store.rollup_rows.append(rollup(START + 3600, 1))
    later = counters(store, catalog((2023, "100", "2024-01-01"), (2024, "40", "2025-01-01")))
    assert later.superseded_seconds() == {Superseded("hall", True): 3600}


def test_superseded_time_ends_with_what_replaced_it() -> None:
    """Of a run over two years, one whose factor stays, only the other is superseded."""
    turn = seconds_of_day(date(2025, 1, 1))
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(turn + 900 * index, 1) for index in range(-3, 5)])
    known = ((2024, "100", "2025-01-01"),)
    assert counters(store, catalog(*known)).superseded_seconds() == {}
    corrected = catalog(*known, (2024, "101", "2025-06-01"), (2025, "90", "2026-01-01"))
    assert counters(store, corrected).superseded_seconds() == {Superseded("hall", True): 8 * 900}
    added = catalog(*known, (2025, "90", "2026-01-01"))
    assert counters(store, added).superseded_seconds() == {Superseded("hall", True): 5 * 900}


def test_energy_that_a_new_factor_covers_has_to_be_counted_anew() -> None:
    """Nothing is restated in place: the counters say that they are outdated, once a factor holds for what was uncovered."""
    store = FakeStore(site_rows=[HALL, SiteRow("dark", 0, None, "1", False, 0)])
    store.rollup_rows = [rollup(START, 2), replace(rollup(START, 2), site="dark")]
    finder = LiveFinder(BasisFinder(store.sites(), catalog((2025, "1", "2026-01-01"))))
    made = EmissionCounters(finder, (), interval_seconds=900)
    add(made, store, store.rollup_rows)
    made.factors_changed()
    assert not made.is_outdated
    finder.replace(BasisFinder(store.sites(), catalog(*FACTORS)))
    made.factors_changed()
    assert made.is_outdated
    assert total(counters(store, catalog(*FACTORS))) == 300


def test_a_mark_is_taken_when_all_of_a_commit_is_counted() -> None:
    """A residual that lowers its parts comes after them: what stood in between was never the sum."""
    store = FakeStore(site_rows=[HALL])
    made = counters(store, catalog(*FACTORS))
    add(made, store, [rollup(START, 5), replace(rollup(START, -2), quality=Quality.BRIDGED)])
    assert by_scope(made, is_market=False) == {"2 production": Fraction(450)}


def test_a_counter_goes_on_from_what_was_shown() -> None:
    """Counters that were read anew, when a residual has lowered a sum, show no less than those before."""
    store = FakeStore(site_rows=[HALL], rollup_rows=[rollup(START, 5)])
    before = counters(store, catalog(*FACTORS))
    store.rollup_rows.append(rollup(START, -2))
    after = counters(store, catalog(*FACTORS))
    assert total(after) == 450
    after.keep_marks(before)
    assert after.counters() == before.counters()
    assert after.energy_by_tier() == before.energy_by_tier()
