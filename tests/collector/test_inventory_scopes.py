"""The inventory: each stream in one scope, published examples to the gram, both totals side by side."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files

import pytest

from wattledger_collector.csv_table import TableError
from wattledger_collector.factors import Gwp
from wattledger_collector.inventory import (
    ActivityFactor,
    Approach,
    Asset,
    Entry,
    InventoryError,
    Losses,
    Scope,
    Situation,
    Stream,
    activity_entry,
    check_assets,
    leased_amount,
    leased_share,
    losses_of,
    network_losses_grams,
    parse_activities,
    total,
)

TABLE = (files("wattledger_collector") / "bundled_factors" / "activities.csv").read_text()
FACTORS = {(factor.activity, factor.gwp): factor for factor in parse_activities(TABLE, "activities.csv")}
OPERATIONAL, FINANCIAL = Approach.OPERATIONAL_CONTROL, Approach.FINANCIAL_CONTROL


def asset(situation: Situation = Situation.OWNED, *, control: bool = False, begin: int = 0, end: int = 100) -> Asset:
    """A hall."""
    return Asset("hall", situation, control, begin, end, "a contract")


def factor(activity: str, gwp: Gwp = Gwp.AR4) -> ActivityFactor:
    """A bundled factor."""
    return FACTORS[activity, gwp]


def entry(scope: Scope, location: int, market: int, gwp: Gwp = Gwp.UNSTATED) -> Entry:
    """A line of the inventory."""
    return Entry("hall", scope, "x", Fraction(location), Fraction(market), gwp, "made up")


@pytest.mark.parametrize(
    ("approach", "situation", "control", "scopes"),
    [
        (OPERATIONAL, Situation.OWNED, False, "2 2 1 1"),
        (OPERATIONAL, Situation.COLOCATED, True, "2 3.8 3.8 3.8"),
        (OPERATIONAL, Situation.COLOCATED, False, "3.8 3.8 3.8 3.8"),
        (OPERATIONAL, Situation.LEASED, True, "2 2 1 1"),
        (OPERATIONAL, Situation.LEASED, False, "3.8 3.8 3.8 3.8"),
        (OPERATIONAL, Situation.CLOUD, False, "3.1 3.1 3.1 3.1"),
        (FINANCIAL, Situation.OWNED, False, "2 2 1 1"),
        (FINANCIAL, Situation.COLOCATED, True, "3.8 3.8 3.8 3.8"),
        (FINANCIAL, Situation.LEASED, True, "2 2 1 1"),
        (FINANCIAL, Situation.LEASED, False, "3.8 3.8 3.8 3.8"),
        (FINANCIAL, Situation.CLOUD, True, "3.1 3.1 3.1 3.1"),
    ],
)
def test_each_stream_stands_in_one_scope(approach: Approach, situation: Situation, control: bool, scopes: str) -> None:
    """IT electricity, overhead, fuel and refrigerants, by how the servers are had and the boundary is drawn."""
    made = asset(situation, control=control)
    assert " ".join(made.scope(approach, stream) for stream in Stream) == scopes


def test_an_asset_is_had_in_one_way_at_a_time() -> None:
    """Two situations at once are refused; one after the other is a move."""
    first, second = asset(end=50), asset(Situation.LEASED, begin=50)
    check_assets([first, second])
    with pytest.raises(InventoryError, match="both owned and leased"):
        check_assets([first, replace(second, from_seconds=49)])
    with pytest.raises(InventoryError, match="name the contract"):
        check_assets([replace(asset(Situation.LEASED, control=True), evidence="")])
    with pytest.raises(InventoryError, match="end after it begins"):
        check_assets([asset(begin=5, end=5)])


def test_a_lease_for_part_of_a_year_counts_for_its_months() -> None:
    """From 1 April to 30 September of a leap year: 183 of 366 days."""
    begin, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2024, 2025))
    held = asset(
        begin=int(datetime(2024, 4, 1, tzinfo=UTC).timestamp()), end=int(datetime(2024, 10, 1, tzinfo=UTC).timestamp())
    )
    assert held.share_of(begin, end) == Fraction(1, 2)
    assert held.share_of(end, end + 100) == 0


def test_fuel_and_refrigerants_are_scope_one_by_published_factors() -> None:
    """1,000 litres of mineral diesel are 2,705.53 kg; a kilogram of R410A is 2,088 kg by AR4 and 1,924 kg by AR5."""
    diesel = activity_entry(asset(), Fraction(1000), factor("diesel_mineral"), OPERATIONAL)
    assert diesel.location_grams == 2_705_530
    assert diesel.scope is Scope.ONE
    assert activity_entry(asset(), Fraction(1), factor("r410a"), OPERATIONAL).location_grams == 2_088_000
    assert activity_entry(asset(), Fraction(1), factor("r410a", Gwp.AR5), OPERATIONAL).location_grams == 1_924_000
    leased = activity_entry(asset(Situation.COLOCATED), Fraction(1000), factor("diesel_mineral"), OPERATIONAL)
    assert leased.scope is Scope.LEASED_ASSETS
    with pytest.raises(InventoryError, match="below 0"):
        activity_entry(asset(), Fraction(-1), factor("r410a"), OPERATIONAL)


def test_a_hundred_thousand_kilowatt_hours_in_britain() -> None:
    """2021: scope 2 21,233 kg, losses 1,879 kg, upstream 5,529 kg and 489 kg; losses of 8.13 % lead to the same 1,879 kg."""
    kwh = Fraction(100_000)
    names = ("uk_electricity", "uk_electricity_td", "wtt_uk_electricity", "wtt_uk_electricity_td")
    entries = [activity_entry(asset(), kwh, factor(name), OPERATIONAL) for name in names]
    assert [each.location_grams for each in entries] == [21_233_000, 1_879_000, 5_529_000, 489_000]
    assert [each.scope for each in entries] == [
        Scope.TWO,
        Scope.FUEL_AND_ENERGY,
        Scope.FUEL_AND_ENERGY,
        Scope.FUEL_AND_ENERGY,
    ]
    losses = losses_of(Fraction("212.33"), Fraction("18.79"))
    assert round(float(losses) * 100, 4) == 8.13
    assert network_losses_grams(kwh, Fraction("212.33"), losses, Losses.GENERATED, includes_td=False) == 1_879_000
    delivered = Fraction("18.79") / Fraction("212.33")
    assert network_losses_grams(kwh, Fraction("212.33"), delivered, Losses.DELIVERED, includes_td=False) == 1_879_000


def test_losses_are_not_counted_twice() -> None:
    """A factor that includes them blocks a second row; losses of everything, or less than nothing, are none."""
    with pytest.raises(InventoryError, match="count them twice"):
        network_losses_grams(Fraction(1), Fraction(1), Fraction(0), Losses.GENERATED, includes_td=True)
    for ratio in (Fraction(1), Fraction(-1, 100)):
        with pytest.raises(InventoryError, match="no share of the whole"):
            network_losses_grams(Fraction(1), Fraction(1), ratio, Losses.GENERATED, includes_td=False)


def test_the_example_of_a_leased_floor_is_reproduced_exactly_and_as_published() -> None:
    """200 of 2,000 at 75 % let: exact 1,320.00 kg; with the guidance's own rounding of the leak to 0.67 kg, 1,325.00 kg."""
    share = leased_share(Fraction(200), Fraction(2000), Fraction(3, 4))
    floor = asset(Situation.LEASED)

    def kilograms(published_digits: int | None) -> Fraction:
        """1,500 kWh of gas, 3,000 kWh of electricity and 5 kg of refrigerant of the whole building."""
        entries = [
            activity_entry(
                floor,
                leased_amount(Fraction(amount), share, published_digits),
                replace(factor("r410a"), activity=name, grams_per_unit=Decimal(grams)),
                OPERATIONAL,
            )
            for name, amount, grams in (("gas", 1500, 200), ("electricity", 3000, 700), ("leak", 5, 1_500_000))
        ]
        assert {each.scope for each in entries} == {Scope.LEASED_ASSETS}
        return total(entries).location_grams / 1000

    assert kilograms(None) == 1320
    assert kilograms(2) == 1325
    assert leased_amount(Fraction("0.025"), Fraction(1, 5), 2) == Fraction("0.01")
    with pytest.raises(InventoryError, match="no part of"):
        leased_share(Fraction(1501), Fraction(2000), Fraction(3, 4))


def test_both_totals_are_told() -> None:
    """Location and market differ by scope 2 alone."""
    totals = total([entry(Scope.ONE, 5, 5), entry(Scope.TWO, 100, 30), entry(Scope.LEASED_ASSETS, 7, 7)])
    assert totals.location_grams == 112
    assert totals.market_grams == 42
    assert totals.scope_two_market_grams == 30
    assert totals.by_scope == {Scope.ONE: 5, Scope.TWO: 100, Scope.LEASED_ASSETS: 7}
    assert Scope.LEASED_ASSETS.is_three
    with pytest.raises(InventoryError, match="only scope 2"):
        total([entry(Scope.ONE, 5, 4)])


def test_unlike_warming_potentials_are_not_added() -> None:
    """AR4 and AR5 in one total are an error; what states none goes with either."""
    total([entry(Scope.ONE, 1, 1, Gwp.AR4), entry(Scope.TWO, 1, 1)])
    with pytest.raises(InventoryError, match="AR4, AR5"):
        total([entry(Scope.ONE, 1, 1, Gwp.AR4), entry(Scope.ONE, 1, 1, Gwp.AR5)])


def test_the_bundled_activities_are_those_published() -> None:
    """Spot checks, in grams; each row names its document and licence."""
    values = {name: FACTORS[name, Gwp.AR4].grams_per_unit for name in ("diesel_average_blend", "sf6", "hfc_134a")}
    assert values == {"diesel_average_blend": Decimal("2512.33"), "sf6": Decimal(22_800_000), "hfc_134a": Decimal(1_430_000)}
    assert FACTORS["hfc_134a", Gwp.AR5].grams_per_unit == 1_300_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("2705.53", "< 1"), "grams_per_unit '< 1'"),
        (lambda text: text.replace("2705.53", ""), "has no grams_per_unit"),
        (lambda text: text.replace(",1,CO2e", ",4,CO2e", 1), "scope '4'"),
        (lambda text: text.replace("CO2e,AR4", "CH4,AR4", 1), "gas 'CH4'"),
        (lambda text: text.replace(",2021,", ",MMXXI,", 1), "year 'MMXXI'"),
    ],
)
def test_a_wrong_table_is_one_sentence(change: Callable[[str], str], says: str) -> None:
    """A published "< 1" is no number; nothing is taken from a table with a slip."""
    with pytest.raises(TableError, match=r"t\.csv line 2") as caught:
        parse_activities(change(TABLE), "t.csv")
    assert says in str(caught.value)
