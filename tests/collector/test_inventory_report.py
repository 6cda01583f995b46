"""Inventories of metered energy and declarations, in both ways, to the last digit; and what can't be added."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files

import pytest

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.certificates import Certificate, Kind
from wattledger_collector.declared import parse_declared
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier, seconds_of_day
from wattledger_collector.inventory import ActivityFactor, InventoryError, Scope, parse_activities
from wattledger_collector.inventory_report import InventoryReport, draw_up
from wattledger_collector.records import MICROJOULES_PER_KWH, Component, Quality, RollupRow, SiteRow

TABLE = (files("wattledger_collector") / "bundled_factors" / "activities.csv").read_text()
ACTIVITIES = parse_activities(TABLE, "activities.csv")
YEAR = (seconds_of_day(date(2024, 1, 1)), seconds_of_day(date(2025, 1, 1)))
NOON = int(datetime(2024, 6, 1, 12, tzinfo=UTC).timestamp())
LOCATED = FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION)

OWNED = """
organisation = "Example Ltd"
approach = "operational_control"
[[holding]]
site = "hall"
situation = "owned"
evidence = "land register"
"""
COLOCATED = OWNED.replace('"owned"', '"colocated"\nhas_control = true')


def factor(value: str = "400", zone: str = "DE", *, gas: Gas = Gas.CO2E, includes_td: bool = False) -> Factor:
    """A zone's factor of 2024."""
    return Factor(
        zone=zone,
        name="somewhere",
        value=Decimal(value),
        kind=replace(LOCATED, gas=gas),
        includes_td=includes_td,
        valid_from_seconds=YEAR[0],
        valid_to_seconds=YEAR[1],
        published=date(2025, 1, 1),
        source="T",
        document="d",
        licence="l",
        attribution="a",
        recorded_at_seconds=YEAR[1],
        tier=Tier.F5_ANNUAL_COUNTRY,
    )


def solar(kwh: int, hour: int = 12) -> Certificate:
    """A certificate of an hour on 1 June."""
    begin = NOON + (hour - 12) * 3600
    return Certificate(
        f"c{hour}", Kind.GO, "HKN", "", hour, hour, "DE", begin, begin + 3600, kwh * 1000, Decimal(0), "Example Ltd", ""
    )


def used(kwh: int, site: str = "hall", start: int = NOON) -> RollupRow:
    """IT energy of one interval."""
    return RollupRow(site, start, Component.CPU, Quality.COUNTER, False, kwh * MICROJOULES_PER_KWH, 1)


def report(
    declared: str,
    rows: list[RollupRow],
    *,
    certificates: tuple[Certificate, ...] = (),
    factors: tuple[Factor, ...] | None = None,
    sites: tuple[SiteRow, ...] = (SiteRow("hall", 0, "DE", "1.5", False, 0),),
    activities: list[ActivityFactor] = ACTIVITIES,
) -> InventoryReport:
    """An inventory of 2024."""
    finder = BasisFinder(sites, FactorCatalog([factors if factors is not None else (factor(),)]))
    return draw_up(
        parse_declared(declared, "declared.toml"),
        certificates,
        activities,
        rows,
        finder,
        from_seconds=YEAR[0],
        to_seconds=YEAR[1],
        interval_seconds=900,
    )


def by_scope(made: InventoryReport) -> dict[Scope, Fraction]:
    """Location-based grams by scope."""
    return dict(made.totals.by_scope)


def test_own_electricity_is_scope_two_with_its_overhead() -> None:
    """10 kWh of IT at PUE 1.5 and 400 g are 6,000 g; without instruments both ways are the same, and it is said."""
    made = report(OWNED, [used(10)])
    assert by_scope(made) == {Scope.TWO: 6000}
    assert made.totals.market_grams == made.totals.location_grams == 6000
    assert "the market-based figure is the location-based one" in made.remarks[0]


def test_a_tenants_overhead_is_the_landlords() -> None:
    """With control over the racks IT electricity is scope 2, cooling is scope 3.8; certificates cover the first alone."""
    made = report(COLOCATED, [used(10)])
    assert by_scope(made) == {Scope.TWO: 4000, Scope.LEASED_ASSETS: 2000}
    assert made.matching.load_microjoules == 10 * MICROJOULES_PER_KWH


def test_certificates_and_a_residual_mix_make_the_market_based_figure() -> None:
    """Of 15 kWh 5 are solar at 0 g, 10 are residual mix at 700 g; location based stays 6,000 g."""
    claimed = OWNED + '[[residual]]\nmarket = "DE"\ngrams_per_kwh = 700\nevidence = "AIB"\n'
    claimed += '[certificates]\nbeneficiary = "Example Ltd"\nfiles = []\n'
    made = report(claimed, [used(10)], certificates=(solar(5),))
    assert made.totals.location_grams == 6000
    assert made.totals.scope_two_market_grams == 7000
    assert made.matching.covered_ratio == Fraction(1, 3)


def test_by_hour_a_certificate_covers_its_hour_alone() -> None:
    """Solar of noon against load of midnight: all of it by year, nothing by hour."""
    claimed = OWNED + '[certificates]\nbeneficiary = "Example Ltd"\nfiles = []\nmatching = "MATCHING"\n'
    midnight = used(10, start=NOON - 12 * 3600)
    ratios = [
        report(claimed.replace("MATCHING", matching), [midnight], certificates=(solar(15),)).matching.covered_ratio
        for matching in ("yearly", "hourly")
    ]
    assert ratios == [1, 0]


def test_a_refused_certificate_is_named_with_its_reason() -> None:
    """One of another beneficiary covers nothing, and the remark says why."""
    claimed = OWNED + '[certificates]\nbeneficiary = "Another Ltd"\nfiles = []\n'
    made = report(claimed, [used(10)], certificates=(solar(5),))
    assert made.totals.market_grams == 6000
    assert any("c12 refused, other_beneficiary" in remark for remark in made.remarks)


def test_network_losses_fuel_and_hardware_stand_in_their_scopes() -> None:
    """4 % of what was generated, 10 l of diesel and a server bought in the year; amortised it is told beside, not added."""
    declared = (
        OWNED
        + '[[network]]\nzone = "DE"\nratio = 0.04\nof = "generated"\nevidence = "statistics"\n'
        + '[[activity]]\nsite = "hall"\nactivity = "diesel_mineral"\namount = 10\non = 2024-05-05\nevidence = "note 7"\n'
        + '[[activity]]\nsite = "hall"\nactivity = "diesel_mineral"\namount = 99\non = 2023-05-05\nevidence = "note 6"\n'
        + '[[hardware]]\nsite = "hall"\nname = "server"\nkilograms_each = 1000\ncount = 2\nin_service = 2024-01-01\n'
        + 'service_years = 4\nevidence = "vendor"\n'
    )
    made = report(declared, [used(10)])
    assert by_scope(made) == {
        Scope.ONE: Fraction("27055.3"),
        Scope.TWO: 6000,
        Scope.CAPITAL_GOODS: 2_000_000,
        Scope.FUEL_AND_ENERGY: 6000 * Fraction(4, 96),
    }
    # 2024 has 366 days, a year of service 365.
    assert made.amortised_grams == Fraction(2_000_000 * 366, 4 * 365)


def test_a_site_has_its_ratios() -> None:
    """10 kWh of IT, 15 of the site and 9.9 of a litre of diesel: PUE 2.49; CUE of both; 18 l of water are a WUE of 1.8."""
    litre = ACTIVITY.replace("amount = 10", "amount = 1")
    water = ACTIVITY.replace("diesel_mineral", "water_supply").replace("amount = 10", "amount = 0.018")
    (ratios,) = report(OWNED + litre + water, [used(10)]).ratios
    assert ratios.pue == Fraction("2.49")
    assert ratios.cue_grams_per_kwh == (6000 + Fraction("2705.53")) / 10
    assert ratios.wue_litres_per_kwh == Fraction("1.8")
    (dry,) = report(OWNED, [used(10)]).ratios
    assert dry.wue_litres_per_kwh is None
    assert dry.cue_grams_per_kwh == 600
    # Of energy without a factor, or no energy, there is no ratio.
    assert report(OWNED, [used(10)], sites=(SiteRow("hall", 0, None, "1.5", False, 0),)).ratios == ()
    assert report(OWNED, []).ratios == ()


def test_losses_that_the_factor_holds_are_refused() -> None:
    """A factor with network losses and declared ones would count them twice."""
    declared = OWNED + '[[network]]\nzone = "DE"\nratio = 0.04\nof = "generated"\nevidence = "s"\n'
    with pytest.raises(InventoryError, match="count them twice"):
        report(declared, [used(1)], factors=(factor(includes_td=True),))


def test_a_site_that_moves_from_lease_to_ownership_changes_its_scope_with_it() -> None:
    """Each interval stands where the site stood at its time."""
    moved = (
        OWNED + "to = 2024-06-01\n" + OWNED[OWNED.index("[[holding]]") :].replace("owned", "leased") + "from = 2024-06-01\n"
    )
    made = report(moved, [used(10, start=NOON - 86_400), used(1)])
    assert by_scope(made) == {Scope.TWO: 6000, Scope.LEASED_ASSETS: 600}


def test_energy_without_a_factor_or_a_holding_is_in_no_figure_and_told() -> None:
    """Neither is zero: the one is listed as uncovered, the other as undeclared."""
    sites = (SiteRow("hall", 0, None, "1.5", False, 0), SiteRow("shed", 0, "DE", "1", False, 0))
    made = report(OWNED, [used(10), used(3, "shed")], sites=sites)
    assert made.uncovered_microjoules == 10 * MICROJOULES_PER_KWH
    assert made.undeclared == {"shed": 3 * MICROJOULES_PER_KWH}
    assert made.totals.location_grams == 0
    assert any("site shed has no [[holding]]" in remark for remark in made.remarks)


def test_a_factor_that_changes_within_an_interval_counts_by_its_time() -> None:
    """Ten minutes at 400 g and five at 100 g: 300 g/kWh for an interval of fifteen."""
    cut = NOON + 600
    factors = (replace(factor(), valid_to_seconds=cut), replace(factor("100"), valid_from_seconds=cut))
    assert report(OWNED, [used(10)], factors=factors).totals.location_grams == 10 * 300 * Fraction("1.5")


def test_unlike_factors_are_not_added() -> None:
    """CO2 alone beside CO2e needs a word of the organisation; lifecycle and direct have none."""
    only = (factor(gas=Gas.CO2),)
    with pytest.raises(InventoryError, match="co2_as_co2e"):
        report(OWNED, [used(1)], factors=only)
    made = report("co2_as_co2e = true\n" + OWNED, [used(1)], factors=only)
    assert "CO2 alone stand for CO2e, as declared" in made.remarks[-1]
    sites = (SiteRow("hall", 0, "DE", "1", False, 0), SiteRow("hall", NOON + 900, "FR", "1", False, 0))
    direct = factor(zone="FR")
    unlike = (factor(), replace(direct, kind=replace(direct.kind, boundary=Boundary.DIRECT)))
    with pytest.raises(InventoryError, match="unlike types"):
        report(OWNED, [used(1), used(1, start=NOON + 900)], factors=unlike, sites=sites)


ACTIVITY = '[[activity]]\nsite = "hall"\nactivity = "diesel_mineral"\namount = 10\non = 2024-05-05\nevidence = "note 7"\n'
FLOOR = "building = { own_area = 200, whole_area = 2000, let_ratio = 0.75 }\n"
HARDWARE = (
    '[[hardware]]\nsite = "hall"\nname = "server"\nkilograms_each = 1000\ncount = 2\nin_service = 2024-01-01\n'
    'service_years = 4\nevidence = "vendor"\n'
)
NETWORK = '[[network]]\nzone = "DE"\nratio = 0.04\nof = "generated"\nevidence = "s"\n'


RESIDUAL = '[[residual]]\nmarket = "DE"\ngrams_per_kwh = 700\nevidence = "AIB"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("organisation = ", "not valid TOML"),
        (OWNED.replace("owned", "rented"), "rented"),
        (OWNED.replace("organisation", "organization"), "organization"),
        ('organisation = "a"\napproach = "operational_control"\nholding = []\n', r"no \[\[holding\]\]"),
        (OWNED + OWNED[OWNED.index("[[holding]]") :], "at one time"),
        (OWNED.replace('"land register"', '""').replace('"owned"', '"leased"\nhas_control = true'), "name the contract"),
        (OWNED + ACTIVITY.replace('"hall"', '"shed"'), "'shed' has no"),
        (OWNED + ACTIVITY.replace("10", "-10", 1), "at least 0"),
        (OWNED + ACTIVITY * 10_000, "more than 10000 entries: split it by organisation"),
        (OWNED + ACTIVITY + FLOOR.replace("= 200,", "= 1501,"), "1501 is no part of the 1500 that are let"),
        (OWNED + ACTIVITY + FLOOR.replace("0.75", "0"), "200 is no part of the 0 that are let"),
        (OWNED + ACTIVITY + FLOOR.replace("0.75", "1.5"), "no more than all of a building is let"),
        (OWNED + ACTIVITY + FLOOR.replace("2000", "nan"), "whole_area is NaN: write a number of at least 0"),
        (OWNED + HARDWARE.replace("service_years = 4", "service_years = 0"), "more than 0, up to 50"),
        (OWNED + HARDWARE.replace("count = 2", "count = 0"), "count"),
        (OWNED + NETWORK.replace("0.04", "1"), "share in"),
        (OWNED + NETWORK + NETWORK, "declared twice"),
        (OWNED + '[[residual]]\nmarket = "DE"\ngrams_per_kwh = nan\nevidence = "AIB"\n', "at least 0"),
        (OWNED + RESIDUAL + RESIDUAL, "the residual mix of DE is declared twice for one time"),
        (OWNED + RESIDUAL + "to = 2024-06-02\n" + RESIDUAL + "from = 2024-06-01\n", "twice for one time"),
        (OWNED + RESIDUAL + "from = 2024-06-01\nto = 2024-06-01\n", "its time has to end after it begins"),
        (OWNED + RESIDUAL + 'gas = "methane"\n', "methane"),
    ],
)
def test_a_wrong_declaration_is_one_sentence(text: str, says: str) -> None:
    """Each slip is named with its place, and nothing is reckoned."""
    with pytest.raises(InventoryError, match=says) as caught:
        parse_declared(text, "declared.toml")
    assert str(caught.value).startswith("declared.toml")
    assert "\n" not in str(caught.value)


def test_a_tenants_part_of_a_buildings_fuel_and_refrigerant_counts() -> None:
    """The GHG Protocol's example of a leased floor, declared: 1,320.00 kg, and 1,325.00 kg rounded as it was published."""
    table = [
        replace(ACTIVITIES[0], activity=name, grams_per_unit=Decimal(grams))
        for name, grams in (("gas", 200), ("power", 700), ("leak", 1_500_000))
    ]
    building = "".join(
        ACTIVITY.replace("diesel_mineral", name).replace("amount = 10", f"amount = {amount}") + FLOOR
        for name, amount in (("gas", 1500), ("power", 3000), ("leak", 5))
    )

    made = report(OWNED + building, [], activities=table)
    rounded = report(OWNED + building.replace("0.75 }", "0.75, rounded_digits = 2 }"), [], activities=table)

    assert made.totals.location_grams == 1_320_000
    assert rounded.totals.location_grams == 1_325_000


def test_activities_need_a_factor_and_a_site_that_was_held() -> None:
    """An unknown activity and a day outside of the holding are refused."""
    with pytest.raises(InventoryError, match="no factor for the activity 'coal'"):
        report(OWNED + ACTIVITY.replace("diesel_mineral", "coal"), [])
    with pytest.raises(InventoryError, match="was not held on that day"):
        report(OWNED + "from = 2024-06-01\n" + ACTIVITY, [])


def test_residual_mixes_that_follow_each_other_are_no_overlap() -> None:
    """One ends where the next begins."""
    parse_declared(OWNED + RESIDUAL + "to = 2024-06-01\n" + RESIDUAL + "from = 2024-06-01\n", "declared.toml")


def test_the_market_based_figure_loses_no_part_of_a_microjoule() -> None:
    """At a PUE of 1.3 a microjoule of IT is 1.3 of the site: without instruments both figures are the same fraction."""
    odd = RollupRow("hall", NOON, Component.CPU, Quality.COUNTER, False, 10 * MICROJOULES_PER_KWH + 1, 1)
    made = report(OWNED, [odd], sites=(SiteRow("hall", 0, "DE", "1.3", False, 0),))
    assert made.totals.scope_two_market_grams == made.totals.by_scope[Scope.TWO]
    assert made.matching.load_microjoules == (10 * MICROJOULES_PER_KWH + 1) * Fraction("1.3")


def test_a_published_residual_mix_is_used_and_of_another_type_refused() -> None:
    """Without a declared one the table's is taken; one that counts other things than the grid factor can't be added."""
    residual = replace(factor("700"), kind=replace(LOCATED, basis=Basis.RESIDUAL))
    finder_rows = [used(10)]
    sites = [SiteRow("hall", 0, "DE", "1.5", False, 0)]

    def drawn(mix: Factor, text: str = OWNED) -> InventoryReport:
        catalog = FactorCatalog([(factor(), mix)])
        return draw_up(
            parse_declared(text, "d"), (), ACTIVITIES, finder_rows, BasisFinder(sites, catalog),
            from_seconds=YEAR[0], to_seconds=YEAR[1], interval_seconds=900, catalog=catalog,
        )  # fmt: skip

    assert drawn(residual).totals.scope_two_market_grams == 15 * 700
    assert drawn(residual).totals.location_grams == 6000
    direct = replace(residual, kind=replace(residual.kind, boundary=Boundary.DIRECT))
    with pytest.raises(InventoryError, match="unlike types"):
        drawn(direct)
    assert drawn(direct, OWNED + RESIDUAL.replace("700", "500")).totals.scope_two_market_grams == 15 * 500


def test_market_based_grams_of_a_site_are_divided_by_its_location_based_ones() -> None:
    """A site that moved from one holding to another has its figure in both; energy without a factor may be covered."""
    moved = OWNED + "to = 2024-06-01\n" + OWNED[OWNED.index("[[holding]]") :] + "from = 2024-06-01\n"
    claimed = moved + RESIDUAL
    made = report(claimed, [used(10, start=NOON - 86_400), used(30)])
    assert [entry.market_grams for entry in made.entries if entry.stream == "it_electricity"] == [7000, 21_000]
    bare = report(claimed, [used(10)], factors=(factor(zone="FR"),))
    assert bare.uncovered_microjoules == 10 * MICROJOULES_PER_KWH
    assert bare.totals.location_grams == 0
    assert bare.totals.scope_two_market_grams == 15 * 700
    assert [entry.market_grams for entry in bare.entries] == [7000, 3500]
