"""Pieces of a period: added up and accounted as one each, they give what their intervals give, to the last digit."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.collector.fake_store import FakeStore

from wattledger_collector.accounting import BasisFinder, account
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factors import Factor, Tier, seconds_of_day
from wattledger_collector.pieces import PIECE_SECONDS_MAX, basis_edges, cut_pieces, plan_readings
from wattledger_collector.records import Component, Piece, Quality, RollupRow, SiteRow

INTERVAL = 900
DAY = 86_400
START = seconds_of_day(date(2023, 6, 1))
MODEL = load_catalog().default_series("DE")[-1]


def factor(begin: int, end: int, value: str) -> Factor:
    """A factor of DE between two instants, in seconds after START."""
    return replace(
        MODEL,
        value=Decimal(value),
        valid_from_seconds=START + begin,
        valid_to_seconds=START + end,
        tier=Tier.F0_MEASURED,
    )


@st.composite
def factors(draw: st.DrawFn) -> list[Factor]:
    """A series of any lengths, with holes."""
    edges = sorted(draw(st.sets(st.integers(-3000, 2 * DAY), min_size=2, max_size=12)))
    spans = [span for span in pairwise(edges) if draw(st.booleans())]
    return [factor(*span, draw(st.sampled_from(["0", "12.5", "371.31064"]))) for span in spans] or [factor(0, 60, "1")]


def rows(energies: list[int]) -> Iterator[RollupRow]:
    """Energy of two components and a residual's site, interval by interval."""
    for place, energy in enumerate(energies):
        for part in (Component.CPU, Component.OTHER):
            yield RollupRow("hall", START + place * INTERVAL, part, Quality.COUNTER, False, energy * part, energy % 7)


@given(
    factors(),
    st.lists(st.integers(0, DAY), max_size=3),
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=120),
)
def test_pieces_account_like_their_intervals(series: list[Factor], changes: list[int], energies: list[int]) -> None:
    """Any edges of factors, sites and PUE, on intervals and within: the same lines, grams and microjoules included."""
    sites = [SiteRow("hall", 0, "DE", "1.2", False, 0)]
    sites += [SiteRow("hall", START + at, "DE", f"1.{place}3", False, 0) for place, at in enumerate(changes)]
    catalog = FactorCatalog([series])
    store = FakeStore(rollup_rows=list(rows(energies)))
    end = START + len(energies) * INTERVAL

    readings = plan_readings(BasisFinder(sites, catalog), ["hall"], Piece(START, end), [], INTERVAL)
    sums = [row for reading in readings for row in store.rollup_sums(*reading)]

    whole = account(store.rollups(START, end), BasisFinder(sites, catalog), INTERVAL)
    assert account(sums, BasisFinder(sites, catalog), INTERVAL) == whole
    for pieces, _, _ in readings:
        assert [piece.from_seconds for piece in pieces] == [START, *(piece.to_seconds for piece in pieces[:-1])]
        assert pieces[-1].to_seconds == end


def test_only_what_changes_makes_pieces() -> None:
    """Days where nothing does; an interval by itself where an edge lies within it; nothing outside of the period."""
    days = cut_pieces(START, START + 3 * DAY, [], INTERVAL)
    assert [piece.to_seconds - piece.from_seconds for piece in days] == [PIECE_SECONDS_MAX] * 3
    cut = cut_pieces(START, START + 7200, [START - 1, START + 1800, START + 4000, START + 9000], INTERVAL)
    assert [(piece.from_seconds - START, piece.to_seconds - START) for piece in cut] == [
        (0, 1800),
        (1800, 3600),
        (3600, 4500),
        (4500, 7200),
    ]


def test_sites_with_a_factor_for_each_hour_are_read_apart() -> None:
    """The others are added up a day at a time; each site is in one reading, and so is one that has no row."""
    hours = [replace(factor(hour * 3600, hour * 3600 + 3600, "1"), zone="HOUR") for hour in range(72)]
    catalog = FactorCatalog([hours, [MODEL]])
    sites = [SiteRow("hourly", 0, "HOUR", "1", False, 0), SiteRow("yearly", 0, "DE", "1", False, 0)]
    span = Piece(START, START + 3 * DAY)
    yearly, hourly = plan_readings(BasisFinder(sites, catalog), ["hourly", "yearly"], span, [START + 1800], INTERVAL)
    assert (len(yearly.pieces), yearly.only, list(yearly.without)) == (4, None, ["hourly"])
    assert (len(hourly.pieces), hourly.only) == (73, ["hourly"])

    names = ("hourly", "yearly", "unassigned")
    rows = [RollupRow(name, START, Component.CPU, Quality.COUNTER, False, 1, 0) for name in names]
    store = FakeStore(rollup_rows=rows)
    assert [row.site for row in store.rollup_sums(*yearly)] == ["unassigned", "yearly"]
    assert [row.site for row in store.rollup_sums(*hourly)] == ["hourly"]


def test_an_edge_is_where_some_site_has_another_basis() -> None:
    """A factor's end, its carrying, and a site's own row; what lies outside of the period is none."""
    catalog = FactorCatalog([[factor(0, 3600, "1"), factor(3600, 7200, "2")]])
    sites = [SiteRow("hall", 0, "DE", "1", False, 0), SiteRow("dark", 0, None, "1", False, 0)]
    sites.append(SiteRow("dark", START + 100, None, "2", False, 0))
    finder = BasisFinder(sites, catalog)
    edges = basis_edges(finder, ["dark", "hall"], START, START + DAY)
    assert {edge - START for edge in edges} == {100, 3600, 7200, 7200 + 6 * 3600}
    assert basis_edges(finder, ["dark", "hall"], START + 3600, START + 7200) == set()
