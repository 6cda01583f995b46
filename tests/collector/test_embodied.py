"""Embodied emissions: published examples to the last digit, and nothing lost or counted twice over a life."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.embodied import (
    SECONDS_PER_SERVICE_YEAR,
    Asset,
    EmbodiedError,
    Part,
    divide,
    total_grams,
)

FOUR_YEARS = 4 * SECONDS_PER_SERVICE_YEAR
HOUR = 3600


def test_a_tonne_over_four_years_is_the_published_figure_an_hour() -> None:
    """1,000 kg over four years of 365 days is 28.538812785388128 g an hour, as the Impact Framework's example has it."""
    server = Asset("a", Fraction(1_000_000), 0, FOUR_YEARS)
    assert float(server.amortised(10 * HOUR, 11 * HOUR)) == 28.538812785388128


def test_two_disks_add_theirs() -> None:
    """A server of 1,000 kg with two disks of 100 kg each is 34.24657534246575 g an hour."""
    parts = [Part("server", Fraction(1_000_000)), Part("disk", Fraction(100_000), 2)]
    assert float(Asset("a", total_grams(parts), 0, FOUR_YEARS).amortised(0, HOUR)) == 34.24657534246575


def test_eight_gpus_count_eight_times() -> None:
    """A node with eight GPUs has the emissions of eight, and not of one."""
    assert total_grams([Part("gpu", Fraction(150_000), 8), Part("node", Fraction(1))]) == 1_200_001


def test_a_workload_has_the_part_that_it_reserved() -> None:
    """2 of 16 vCPUs of a server of 1,205.52 kg for an hour are 4.3005137 g; a published case study rounds it to 4.305."""
    hour = Asset("a", Fraction("1205520"), 0, FOUR_YEARS).amortised(0, HOUR)
    parts = divide(hour, {"shop": Fraction(2)}, Fraction(16))
    assert round(float(parts["shop"]), 7) == 4.3005137
    assert parts[""] == hour * 14 / 16
    assert sum(parts.values()) == hour


@given(st.dictionaries(st.text(min_size=1), st.fractions(0, 1), max_size=6), st.fractions(0, 10**6))
def test_parts_and_what_nobody_reserved_are_the_whole(weights: dict[str, Fraction], grams: Fraction) -> None:
    """However it is divided, no gram is lost or made."""
    assert sum(divide(grams, weights, Fraction(6)).values()) == grams


@given(st.lists(st.integers(-10, 120), min_size=1, max_size=6), st.booleans())
def test_a_life_in_pieces_is_the_whole_life(cuts: list[int], extended: bool) -> None:
    """Over any spans that cover it, extended or not, a life amounts to all grams, and before and after it to none."""
    asset = Asset("a", Fraction(1000), 0, 60, 30 if extended else None, 90 if extended else None)
    edges = sorted([-20, *cuts, 130])
    assert sum(asset.amortised(a, b) for a, b in pairwise(edges)) == 1000
    assert asset.amortised(-20, 0) == 0
    assert asset.amortised(90 if extended else 60, 130) == 0


def test_an_extension_spreads_what_is_left() -> None:
    """Half a life in, twice the time is left for the other half: the rate halves, and the past stays as it was reported."""
    asset = Asset("a", Fraction(1000), 0, 100, 50, 150)
    assert asset.amortised(0, 50) == 500
    assert asset.amortised(50, 60) == 50


def test_the_inventory_books_a_purchase_whole_and_once() -> None:
    """Category 2 knows no depreciation: all of it in the year of purchase, nothing in the next."""
    asset = Asset("a", Fraction(1000), 100, 60)
    assert asset.purchased(0, 101) == 1000
    assert asset.purchased(101, 200) == 0
    assert asset.purchased(0, 100) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Asset("a", Fraction(-1), 0, 1), "at least 0"),
        (lambda: Asset("a", Fraction(1), 0, 0), "is none"),
        (lambda: Asset("a", Fraction(1), 0, 10, 5), "needs both"),
        (lambda: Asset("a", Fraction(1), 0, 10, 5, 10), "ends after it"),
        (lambda: Asset("a", Fraction(1), 0, 10, 11, 20), "declared during service"),
        (lambda: Part("gpu", Fraction(1), 0), "no amount"),
        (lambda: divide(Fraction(1), {"a": Fraction(2)}, Fraction(1)), "reserve more"),
        (lambda: divide(Fraction(1), {"a": Fraction(-1)}, Fraction(1)), "less than nothing"),
        (lambda: divide(Fraction(1), {}, Fraction(0)), "can't be divided"),
    ],
)
def test_impossible_values_are_refused(make: object, says: str) -> None:
    """Each names what is wrong with it."""
    assert callable(make)
    with pytest.raises(EmbodiedError, match=says):
        make()
