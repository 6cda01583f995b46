"""The Software Carbon Intensity: a published example, and what the standard forbids."""

from fractions import Fraction

import pytest

from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Signal
from wattledger_collector.sci import SciError, Score, total

LOCATED = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2E, Basis.PRODUCTION)


def score(energy: str, embodied: str, work: int = 1, kind: FactorKind = LOCATED, unit: str = "user") -> Score:
    """A score at the published example's 951 g/kWh."""
    return Score(Fraction(energy), Fraction(951), kind, Fraction(embodied), Fraction(work), unit)


def test_the_published_web_shop_is_reproduced() -> None:
    """Application 26.178 g, database 14.2416 g, together 40.4196 g for each unit of work, exactly."""
    shop, database = score("0.023", "4.305"), score("0.0096", "5.112")
    assert shop.grams_per_unit == Fraction("26.178")
    assert database.grams_per_unit == Fraction("14.2416")
    assert total([shop, database]) == Fraction("40.4196")


def test_the_energy_that_the_publication_also_names_is_not_the_one_of_its_result() -> None:
    """0.02394 kWh, found on the same page, gives 27.07194 g: the page's own result was made with 0.023."""
    assert score("0.02394", "4.305").grams_per_unit == Fraction("27.07194")


def test_no_work_is_no_score() -> None:
    """Emissions divided by nothing are no rate, and are not passed off as one."""
    with pytest.raises(SciError, match="stands at 0 user"):
        score("1", "1", work=0)


def test_more_work_is_a_lower_score() -> None:
    """R divides operational and embodied emissions alike."""
    assert score("1", "49", work=10).grams_per_unit == 100


@pytest.mark.parametrize("basis", [Basis.RESIDUAL, Basis.SUPPLIER])
def test_claims_have_no_place_in_it(basis: Basis) -> None:
    """A residual mix or a supplier's factor is market-based, which the standard forbids."""
    with pytest.raises(SciError, match="the standard forbids"):
        score("1", "1", kind=FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2E, basis))


def test_a_marginal_intensity_is_allowed_and_told() -> None:
    """The standard allows it; whoever shows the score can see it."""
    assert score("1", "1", kind=FactorKind(Signal.MARGINAL, Boundary.DIRECT, Gas.CO2E, Basis.CONSUMPTION)).is_marginal
    assert not score("1", "1").is_marginal


def test_components_of_unlike_work_or_type_are_not_added() -> None:
    """Grams a user and grams a request, or of CO2 and CO2e, have no sum."""
    for other in (
        score("1", "1", unit="request"),
        score("1", "1", work=2),
        score("1", "1", kind=FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.PRODUCTION)),
    ):
        with pytest.raises(SciError, match="can't be added"):
            total([score("1", "1"), other])
    with pytest.raises(SciError, match="no components"):
        total([])


def test_amounts_below_nothing_are_refused() -> None:
    """Negative energy or embodied emissions would lower the score of something else."""
    with pytest.raises(SciError, match="energy"):
        score("-1", "1")
    with pytest.raises(SciError, match="embodied"):
        score("1", "-1")
