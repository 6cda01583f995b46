"""Booked energy as load: whole sites, by market and time, the same from intervals and from sums of pieces."""

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.accounting import BasisFinder, account
from wattledger_collector.declared import Declared, parse_declared
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier, seconds_of_day
from wattledger_collector.market import Instruments, Load, MarketBased, Part
from wattledger_collector.market_load import LoadSums, MarketReckoning, Tenures
from wattledger_collector.pieces import cut_pieces
from wattledger_collector.records import MICROJOULES_PER_KWH, Component, Quality, RollupRow, SiteRow
from wattledger_collector.residual_mixes import DeclaredMix, Mixes

LENGTH = 900
DAY = seconds_of_day(date(2024, 6, 1))
END = DAY + 2 * 86_400
LOCATED = FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION)
HOLDING = '[[holding]]\nsite = "hall"\nsituation = "{}"\nevidence = "e"\n'
HEAD = 'organisation = "Example Ltd"\napproach = "operational_control"\n'


def factor(value: str, begin: int, end: int, zone: str = "DE") -> Factor:
    """A value for some time."""
    return Factor(
        zone, "n", Decimal(value), LOCATED, False, begin, end, date(2025, 1, 1), "T", "d", "l", "a", 0,
        Tier.F5_ANNUAL_COUNTRY,
    )  # fmt: skip


CATALOG = FactorCatalog([[factor("400", DAY - 10**8, DAY + 5000), factor("100", DAY + 5000, END + 10**8)]])
SITES = [
    SiteRow("hall", 0, "DE", "1.3", False, 0),
    SiteRow("hall", DAY + 90_000, "DE", "1.1", False, 0),
    SiteRow("shed", 0, "DE", "1", False, 0),
]


def row(site: str, start: int, microjoules: int, quality: Quality = Quality.COUNTER) -> RollupRow:
    """IT energy of an interval."""
    return RollupRow(site, start, Component.CPU, quality, False, microjoules, 1)


def declared(text: str) -> Declared:
    """A declaration."""
    return parse_declared(HEAD + text, "declared.toml")


def sums(text: str | None = None, *, is_hourly: bool = False, mixes: Mixes | None = None) -> LoadSums:
    """Sums of the two sites."""
    tenures = Tenures(None if text is None else declared(text))
    return LoadSums(BasisFinder(SITES, CATALOG), tenures, mixes or Mixes(), LENGTH, is_hourly=is_hourly)


def loads(made: LoadSums, *rows: RollupRow) -> list[Load]:
    """The load of some rows."""
    for each in rows:
        made.add(each)
    return sorted(made.loads(), key=lambda load: (load.site, load.at_seconds, load.is_outside))


def test_load_is_that_of_the_whole_site() -> None:
    """10 kWh of IT at PUE 1.3 are 13 kWh, at the grid factor of its time; a microjoule keeps its fraction."""
    (load,) = loads(sums(), row("hall", DAY, 10 * MICROJOULES_PER_KWH + 1))
    assert load.microjoules == (10 * MICROJOULES_PER_KWH + 1) * Fraction("1.3")
    assert (load.market, load.grams_per_kwh, load.kind) == ("DE", Fraction(400), LOCATED)


def test_a_factor_that_changes_within_an_interval_divides_its_load() -> None:
    """500 of 900 seconds at the one, 400 at the other; nothing is rounded away."""
    start = DAY + 4500
    one, other = loads(sums(), row("shed", start, 10))
    assert (one.microjoules, one.grams_per_kwh) == (Fraction(50, 9), Fraction(400))
    assert (other.microjoules, other.grams_per_kwh) == (Fraction(40, 9), Fraction(100))


def test_by_hour_hours_are_apart_and_by_year_they_are_one() -> None:
    """Four quarters are an hour."""
    rows = [row("shed", DAY + 7200 + quarter * 900, 1) for quarter in range(6)]
    assert [load.microjoules for load in loads(sums(is_hourly=True), *rows)] == [4, 2]
    assert [load.at_seconds for load in loads(sums(is_hourly=True), *rows)] == [DAY + 7200, DAY + 10_800]
    assert [load.microjoules for load in loads(sums(), *rows)] == [6]


@pytest.mark.parametrize(
    ("situation", "inside", "outside"),
    [("owned", "1.3", None), ("leased", None, "1.3"), ('colocated"\nhas_control = true\n#', "1", "0.3")],
)
def test_what_is_outside_of_scope_2_is_told_apart(situation: str, inside: str | None, outside: str | None) -> None:
    """All of an owned site is load, nothing of a leased one, and of a tenant's racks what IT uses."""
    found = {load.is_outside: load.microjoules for load in loads(sums(HOLDING.format(situation)), row("hall", DAY, 10))}
    assert found.get(False) == (None if inside is None else 10 * Fraction(inside))
    assert found.get(True) == (None if outside is None else 10 * Fraction(outside))


def test_the_market_is_that_of_the_holding_for_its_time() -> None:
    """Before and after the holding's days it is the zone; a site that no row knows has no market and no rate."""
    text = HOLDING.format("owned") + 'market = "EU"\nfrom = 2024-06-01\nto = 2024-06-02\n'
    rows = [row("hall", DAY - 900, 1), row("hall", DAY, 2), row("hall", DAY + 86_400, 4), row("attic", DAY, 8)]
    found = [(load.site, load.market, load.grams_per_kwh is None) for load in loads(sums(text), *rows)]
    assert found == [("attic", "", True), ("hall", "DE", False), ("hall", "EU", False), ("hall", "DE", False)]


def test_residual_mixes_cut_the_load() -> None:
    """Each part lies within the time of one mix."""
    early = DeclaredMix("DE", Decimal(7), "e", to_seconds=DAY + 7200)
    mixes = Mixes([early, DeclaredMix("DE", Decimal(9), "e", DAY + 7200)])
    found = loads(sums(mixes=mixes), row("shed", DAY + 6300, 1), row("shed", DAY + 7200, 2))
    assert [mixes.at("DE", load.at_seconds).grams_per_kwh for load in found] == [7, 9]


def test_a_mix_that_changes_within_an_interval_divides_its_load() -> None:
    """Half of the interval lies before the change."""
    early = DeclaredMix("DE", Decimal(7), "e", to_seconds=DAY + 6750)
    mixes = Mixes([early, DeclaredMix("DE", Decimal(9), "e", DAY + 6750)])
    found = loads(sums(mixes=mixes), row("shed", DAY + 6300, 3))
    assert [load.microjoules for load in found] == [Fraction(3, 2), Fraction(3, 2)]
    assert [mixes.at("DE", load.at_seconds).grams_per_kwh for load in found] == [7, 9]


EVENTS = st.lists(
    st.tuples(st.sampled_from(["hall", "shed", "attic"]), st.integers(0, 191), st.integers(-(10**12), 10**15)), max_size=25
)
TEXT = (
    HOLDING.format("colocated") + "has_control = true\nto = 2024-06-02\n" + HOLDING.format("owned") + "from = 2024-06-02\n"
)


def reckoned(rows: list[RollupRow], reckoning: MarketReckoning) -> MarketBased:
    """The figure of some rows."""
    for each in rows:
        reckoning.sums.add(each)
    return reckoning.reckon(DAY, END)


@given(EVENTS, st.booleans())
def test_sums_of_pieces_make_the_figures_of_their_intervals(events: list[tuple[str, int, int]], is_hourly: bool) -> None:
    """Pieces end where the load says; then a piece is reckoned as one interval, to the last digit."""
    mixes = (DeclaredMix("DE", Decimal(700), "e", DAY + 40_500, DAY + 100_000),)
    instruments = Instruments(is_hourly=is_hourly, mixes=mixes)
    finder = BasisFinder(SITES, CATALOG)

    def made() -> MarketReckoning:
        return MarketReckoning(declared(TEXT), instruments, finder, CATALOG, LENGTH)

    rows = [row(site, DAY + place * LENGTH, energy) for site, place, energy in events]
    bases = {DAY + 5000, DAY + 90_000}
    pieces = cut_pieces(DAY, END, made().edges(DAY, END, {"DE"}) | bases, LENGTH)
    added: dict[tuple[int, str], int] = {}
    for each in rows:
        begin = max(piece.from_seconds for piece in pieces if piece.from_seconds <= each.interval_start_seconds)
        added[begin, each.site] = added.get((begin, each.site), 0) + each.energy_microjoules
    by_piece = [row(site, begin, energy) for (begin, site), energy in sorted(added.items())]
    assert reckoned(rows, made()) == reckoned(by_piece, made())


@given(EVENTS)
def test_its_location_based_side_is_the_reports(events: list[tuple[str, int, int]]) -> None:
    """The grams beside it are those of the lines of a report, to the last digit; unknown energy is uncovered in both."""
    rows = [row(site, DAY + place * LENGTH, energy) for site, place, energy in events]
    made = reckoned(rows, MarketReckoning(None, Instruments(), BasisFinder(SITES, CATALOG), CATALOG, LENGTH))
    lines = account(rows, BasisFinder(SITES, CATALOG), LENGTH)
    assert sum(made.total.location.values(), Fraction(0)) == sum((line.grams or 0 for line in lines), Fraction(0))
    bare = sum(energy for site, _, energy in events if site == "attic")
    assert made.total.microjoules(Part.UNCOVERED) == bare
    located = {name: grams for name, grams in made.total.location_totals.items() if grams}
    assert {name: grams for name, grams in made.total.totals.items() if grams} == located
