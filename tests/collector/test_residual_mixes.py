"""Residual mixes: declared ones before those of the tables, each for its time, and none of them location based."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier, seconds_of_day
from wattledger_collector.residual_mixes import Counted, DeclaredMix, Mixes

RESIDUAL = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.RESIDUAL)


def day(year: int, month: int = 1) -> int:
    """The first of a month."""
    return seconds_of_day(date(year, month, 1))


def factor(value: str, year: int, kind: FactorKind = RESIDUAL, zone: str = "DE") -> Factor:
    """A value of a year."""
    return Factor(
        zone, "Germany", Decimal(value), kind, False, day(year), day(year + 1), date(year + 1, 6, 1), "AIB", "d", "l", "a",
        day(year + 1), Tier.F5_ANNUAL_COUNTRY,
    )  # fmt: skip


def test_chinas_figure_without_traded_green_power_is_the_residual_mix_of_its_time() -> None:
    """0.5856 kg of 2022, 0.6096 of 2023, direct CO2; later the last one, which is said, and before none."""
    mixes = Mixes((), load_catalog())
    assert mixes.at("CN", day(2022, 7)).grams_per_kwh == Decimal("585.6")
    found = mixes.at("CN", day(2023, 7))
    assert (found.grams_per_kwh, found.counted) == (Decimal("609.6"), Counted("direct", "CO2"))
    assert (found.source, found.provisional) == ("MEE-NBS", False)
    assert "公告2025年第47号" in found.evidence
    later = mixes.at("CN", day(2025, 7))
    assert (later.grams_per_kwh, later.provisional) == (Decimal("609.6"), True)
    before = mixes.at("CN", day(2021, 7))
    assert before.grams_per_kwh is None
    assert "no factor before 2022-01-01" in before.missing


def test_residual_mixes_and_suppliers_rates_are_never_location_based() -> None:
    """A zone of which the tables have only those has no grid factor; a supplier's rate is no residual mix either."""
    supplier = replace(RESIDUAL, basis=Basis.SUPPLIER)
    catalog = FactorCatalog([[factor("700", 2024), factor("20", 2024, supplier), factor("9", 2024, supplier, "FR")]])
    assert catalog.factor_at("DE", day(2024, 6)).factor is None
    assert catalog.series("DE") == []
    assert catalog.residual_at("DE", day(2024, 6)).factor == factor("700", 2024)
    assert catalog.residual_at("FR", day(2024, 6)).factor is None
    marginal = replace(RESIDUAL, signal=Signal.MARGINAL)
    assert FactorCatalog([[factor("1", 2024, marginal)]]).residual_at("DE", day(2024, 6)).factor is None


def test_the_location_based_figure_of_china_is_not_its_residual_mix() -> None:
    """The tables have both for 2023, and each serves its own figure."""
    catalog = load_catalog()
    located = catalog.factor_at("CN", day(2023, 7)).factor
    assert located is not None
    assert located.kind.basis is not Basis.RESIDUAL
    assert located.value != Decimal("609.6")


def test_a_declared_mix_stands_before_that_of_a_table_for_its_own_time_alone() -> None:
    """Declared for the first half of 2024; then the table's; a market of no table has none."""
    catalog = FactorCatalog([[factor("700", 2024)]])
    mixes = Mixes([DeclaredMix("DE", Decimal(650), "contract", day(2024), day(2024, 7))], catalog)
    assert mixes.at("DE", day(2024, 3)).grams_per_kwh == 650
    assert mixes.at("DE", day(2024, 7)).grams_per_kwh == 700
    assert mixes.at("DE", day(2024, 7)).from_seconds == day(2024, 7)
    assert mixes.at("DE", day(2024, 3)).to_seconds == day(2024, 7)
    assert mixes.at("EU", day(2024, 3)).missing == "no table has a residual mix of EU"
    assert mixes.edges(["DE", "EU"], day(2024), day(2025)) == {day(2024, 7)}
    assert mixes.edges(["DE"], day(2023), day(2025, 2)) == {day(2024), day(2024, 7), day(2025)}


def test_a_mix_that_is_asked_for_again_is_the_one_of_the_instant() -> None:
    """Times need not ascend."""
    mixes = Mixes([DeclaredMix("DE", Decimal(1), "e", day(2024), day(2025))])
    assert [mixes.at("DE", day(year)).grams_per_kwh for year in (2024, 2025, 2023, 2024)] == [1, None, None, 1]


def test_what_a_rate_counts_is_completed_by_the_grid_factor_beside_it() -> None:
    """Only what is not stated is taken; warming potentials belong to CO2e alone, and to the same gas."""
    grid = Counted("lifecycle", "CO2e", "AR5")
    assert Counted().beside(grid) == grid
    assert Counted(gas="CO2").beside(grid) == Counted("lifecycle", "CO2")
    assert Counted("direct").beside(grid) == Counted("direct", "CO2e", "AR5")
    assert Counted("direct", "CO2e").beside(grid) == Counted("direct", "CO2e")
    assert Counted().beside(None) == Counted()
    assert str(Counted("direct", "CO2e", "AR5")) == "direct CO2e (AR5)"
    assert str(Counted()) == "of a type that is not stated"
