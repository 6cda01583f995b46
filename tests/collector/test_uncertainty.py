"""Uncertainty: what is shared does not average out."""

from collections.abc import Iterable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.uncertainty import Gap, Interval, Term, combine

MEGAWATT_HOUR_GRAMS = 1000 * Fraction("530.6")


def term(grams: Fraction, sensor: str, sensor_ratio: float, factor: str, factor_ratio: float) -> Term:
    """A term with a symmetric sensor."""
    return Term(float(grams), sensor, sensor_ratio, sensor_ratio, factor, factor_ratio)


def interval_of(terms: Iterable[Term], gaps: Iterable[Gap] = ()) -> Interval:
    """The interval of the sum of terms."""
    parts = list(terms)
    return combine(Fraction(sum(part.grams for part in parts)), parts, gaps)


def test_ten_thousand_servers_do_not_make_a_grid_factor_better() -> None:
    """A shared 10 % stays 10 %, where root-sum-square over all servers would tell 0.1 %."""
    terms = [term(MEGAWATT_HOUR_GRAMS, f"sensor {number}", 0.02, "CN", 0.10) for number in range(10_000)]
    total = interval_of(terms)
    assert total.upper_ratio == pytest.approx(0.100000, abs=1e-5)
    apart = interval_of(term(MEGAWATT_HOUR_GRAMS, f"s {number}", 0.02, f"f {number}", 0.10) for number in range(10_000))
    assert apart.upper_ratio == pytest.approx(0.00102, abs=1e-5)


def test_a_sensor_and_a_factor_multiply() -> None:
    """5 % and 10 % make 11.1803 %."""
    assert interval_of([term(Fraction(100), "s", 0.05, "f", 0.10)]).upper_ratio == pytest.approx(0.111803, abs=5e-7)


def test_two_independent_equal_sources_are_better_than_one() -> None:
    """11.1803 % each, 7.9057 % together."""
    terms = [term(Fraction(100), name, 0.05, name, 0.10) for name in ("one", "two")]
    assert interval_of(terms).upper_ratio == pytest.approx(0.079057, abs=5e-7)


def test_sensors_of_one_model_are_off_together() -> None:
    """A bias of a model line is shared by all its sensors."""
    terms = [term(Fraction(100), "rapl", 0.05, f"f {number}", 0.0) for number in range(100)]
    assert interval_of(terms).upper_ratio == pytest.approx(0.05)


def test_a_band_may_be_wider_above() -> None:
    """An estimate that is low more often than high keeps both ends apart."""
    total = interval_of([Term(100.0, "model", 0.1, 0.3, "f", 0.0)])
    assert total.lower_grams == pytest.approx(10.0)
    assert total.upper_grams == pytest.approx(30.0)


def test_gaps_are_added_whole() -> None:
    """A bound is no distribution: missing energy widens the interval by all of it, and only to its own side."""
    total = interval_of(
        [term(Fraction(100), "s", 0.05, "f", 0.0)], [Gap(Fraction(0), Fraction(7)), Gap(Fraction(-2), Fraction(3))]
    )
    assert total.lower_grams == pytest.approx(5.0 + 2.0)
    assert total.upper_grams == pytest.approx(5.0 + 10.0)
    assert total.grams == 100


def test_nothing_has_no_relative_uncertainty() -> None:
    """A total of 0 has no ratio, rather than an error or an infinity."""
    total = interval_of([])
    assert total.grams == 0
    assert total.lower_ratio is None
    assert total.upper_ratio is None


@given(st.lists(st.integers(-1000, 1000), max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_splitting_a_source_changes_nothing(grams: list[int], sensor: float, factor: float) -> None:
    """However finely one sensor's energy is cut under one factor, the interval is that of its sum."""
    whole = interval_of([term(Fraction(sum(grams)), "s", sensor, "f", factor)])
    split = interval_of([term(Fraction(part), "s", sensor, "f", factor) for part in grams])
    assert split.upper_grams == pytest.approx(whole.upper_grams, abs=1e-6)
