"""Energy is cut at interval edges, exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.intervals import INTERVALS_PER_SPAN_MAX, split, split_pieces

SECOND = 1_000_000_000
QUARTER = 900 * SECOND


@pytest.mark.parametrize(
    ("energy", "start", "end", "expected"),
    [
        pytest.param(10, 0, 10 * SECOND, [(0, 10, 10 * SECOND)], id="within one interval"),
        pytest.param(10, 0, QUARTER, [(0, 10, QUARTER)], id="up to an edge"),
        pytest.param(10, QUARTER, QUARTER + 1, [(900, 10, 1)], id="from an edge"),
        pytest.param(3, QUARTER - 1, QUARTER + 1, [(0, 1, 1), (900, 2, 1)], id="remainder to the later interval"),
        pytest.param(-3, QUARTER - 1, QUARTER + 1, [(0, -1, 1), (900, -2, 1)], id="a negative residual likewise"),
        pytest.param(7, QUARTER, QUARTER, [(0, 7, 0)], id="empty span"),
        pytest.param(7, 2 * QUARTER, QUARTER + 5, [(900, 7, 0)], id="negative span"),
        pytest.param(
            8, 0, 4 * QUARTER, [(0, 2, QUARTER), (900, 2, QUARTER), (1800, 2, QUARTER), (2700, 2, QUARTER)], id="several"
        ),
    ],
)
def test_split(energy: int, start: int, end: int, expected: list[tuple[int, int, int]]) -> None:
    """Each interval gets its share of time, and the later one the fraction of a microjoule."""
    assert split(energy, start, end, 900) == expected


def test_a_span_of_years_goes_to_its_end() -> None:
    """A clock that jumps by decades can't fill the ledger with rows."""
    end = (INTERVALS_PER_SPAN_MAX + 2) * QUARTER

    assert split(5, 0, end, 900) == [((INTERVALS_PER_SPAN_MAX + 1) * 900, 5, 0)]


def test_pieces_leave_out_what_lies_between() -> None:
    """Energy is spread over the pieces alone, and two pieces in one interval make one row."""
    pieces = [(0, 10), (20, 30), (QUARTER, QUARTER + 20)]

    assert split_pieces(40, pieces, QUARTER + 20, 900) == [(0, 20, 20), (900, 20, 20)]


@given(
    energy=st.integers(-(2**62), 2**62),
    start=st.integers(0, 2**61),
    length=st.integers(1, 50 * QUARTER),
    interval=st.sampled_from([60, 300, 900, 3600]),
)
def test_split_is_exact(energy: int, start: int, length: int, interval: int) -> None:
    """No microjoule and no nanosecond is lost, shares are even to a microjoule, and a negated span is the negation."""
    rows = split(energy, start, start + length, interval)

    assert sum(row[1] for row in rows) == energy
    assert sum(row[2] for row in rows) == length
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    for interval_start, microjoules, nanoseconds in rows:
        assert interval_start % interval == 0
        assert 0 < nanoseconds <= interval * SECOND
        assert abs(microjoules * length - energy * nanoseconds) <= length
    assert [(s, -e, n) for s, e, n in split(-energy, start, start + length, interval)] == rows
