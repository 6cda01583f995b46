"""Emissions are exact, unlike ones never add up, and what is missing is bounded and never zero."""

import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.collector.fake_store import channel_info

from wattledger_collector.accounting import (
    BasisFinder,
    UnlikeEmissionsError,
    account,
    coverage,
    emissions,
    summarise_gaps,
    total_emissions,
)
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import bundled_tables, load_catalog
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Gwp, Signal, Tier, seconds_of_day
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    NANOSECONDS_PER_SECOND,
    SITE_UNASSIGNED,
    Component,
    GapReason,
    GapRow,
    HostGapRow,
    Quality,
    Role,
    RollupRow,
    SiteRow,
)

CATALOG = load_catalog()
ZONES = sorted(CATALOG.zones)
# Every bundled value as the file has it, parsed apart from the code under test.
NEWEST = {zone: CATALOG.default_series(zone)[-1] for zone in ZONES}
START = seconds_of_day(date(2023, 6, 1))
INTERVAL = 900
MINUTE = 60


def site_row(site: str = "hall", since: int = 0, zone: str | None = "DE", pue: str = "1", recorded_at: int = 0) -> SiteRow:
    """A site's dated row."""
    return SiteRow(site, since, zone, pue, False, recorded_at)


def rollup(start: int, energy: int, *, site: str = "hall", component: Component = Component.CPU) -> RollupRow:
    """Counted energy of one interval."""
    return RollupRow(site, start, component, Quality.COUNTER, False, energy, 900 * NANOSECONDS_PER_SECOND)


def german_factor(year: int) -> Factor:
    """The bundled factor of one year."""
    factor = CATALOG.factor_at("DE", seconds_of_day(date(year, 1, 1))).factor
    assert factor is not None
    return factor


@pytest.mark.parametrize("zone", ZONES)
def test_one_kwh_is_the_factor_in_each_bundled_zone(zone: str) -> None:
    """1 kWh at PUE 1 gives exactly the published grams, digit for digit."""
    start = NEWEST[zone].valid_from_seconds
    finder = BasisFinder([site_row(zone=zone)], CATALOG)

    (line,) = account([rollup(start, MICROJOULES_PER_KWH)], finder, INTERVAL)

    assert line.emissions is not None
    assert line.emissions.grams == Fraction(NEWEST[zone].value)
    assert line.emissions.kind == NEWEST[zone].kind
    assert not line.basis.provisional


def test_camx_is_exact_from_pounds() -> None:
    """429.983 lb/MWh are 195.03700802971 g/kWh, and a year of a rack multiplies without a rounding."""
    factor = NEWEST["US-CAMX"]

    assert factor.value == Decimal("195.03700802971")
    assert emissions(8_760 * MICROJOULES_PER_KWH, factor, Decimal("1.25")).grams == Fraction("2135655.2379253245")


def test_every_bundled_factor_counts_exactly_one_kwh() -> None:
    """The same for all years and series, residual ones too."""
    for table in bundled_tables():
        for factor in table:
            assert emissions(MICROJOULES_PER_KWH, factor, Decimal(1)).grams == Fraction(factor.value)


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from(["a", "b"]),
            st.sampled_from(list(Component)),
            st.integers(-(2**61), 2**62 - 1),
        ),
        max_size=30,
    ),
    parts=st.integers(1, 5),
    pue=st.decimals("1", "3", places=7),
)
def test_sums_over_any_split_agree_to_the_last_digit(
    rows: list[tuple[int, str, Component, int]], parts: int, pue: Decimal
) -> None:
    """However energy is split over hosts and rows, and in whatever order, the grams are the same fraction."""
    # Days apart, so that years and with them factors change.
    sites = [site_row("a", zone="DE", pue=str(pue)), site_row("b", zone="US-CAMX", pue="1.1")]
    whole = [rollup(START + 86_400 * day, energy, site=site, component=part) for day, site, part, energy in rows]
    split: list[RollupRow] = []
    for row in whole:
        rest = row.energy_microjoules
        for _ in range(parts - 1):
            taken = rest // 3
            split.append(rollup(row.interval_start_seconds, taken, site=row.site, component=row.component))
            rest -= taken
        split.append(rollup(row.interval_start_seconds, rest, site=row.site, component=row.component))
    split.reverse()

    together = total_emissions(
        part for line in account(whole, BasisFinder(sites, CATALOG), INTERVAL) if (part := line.emissions) is not None
    )
    apart = total_emissions(
        part
        for row in split
        for line in account([row], BasisFinder(sites, CATALOG), INTERVAL)
        if (part := line.emissions) is not None
    )

    assert together == apart
    independent = sum(
        Fraction(energy, MICROJOULES_PER_KWH)
        * (Fraction(pue) * Fraction(german_factor(2023 if day < 214 else 2024).value) if site == "a" else 0)
        for day, site, _, energy in rows
    )
    assert (
        sum((part.grams for part in together.values() if part.kind == german_factor(2023).kind), Fraction(0)) == independent
    )


def test_unlike_emissions_do_not_add() -> None:
    """Direct CO2 and lifecycle CO2e in one sum is an error, and totals keep them apart."""
    one = emissions(1, NEWEST["CN"], Decimal(1))
    other = emissions(1, NEWEST["DE"], Decimal(1))

    with pytest.raises(UnlikeEmissionsError, match=r"cannot add average lifecycle CO2e, production to average direct CO2, "):
        _ = one + other
    assert set(total_emissions([one, other, one])) == {one.kind, other.kind}


# China in 2023, as its ministry has it: 0.5306 kg of CO2 a kWh.
OFFICIAL = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.CONSUMPTION)


@pytest.mark.parametrize(
    ("one", "other", "grams", "sentence"),
    [
        (
            replace(OFFICIAL, signal=Signal.MARGINAL),
            OFFICIAL,
            "700",
            "average direct CO2, consumption to marginal direct CO2",
        ),
        (replace(OFFICIAL, gas=Gas.CO2E), OFFICIAL, "531", "average direct CO2, consumption to average direct CO2e"),
        (
            replace(OFFICIAL, boundary=Boundary.LIFECYCLE),
            OFFICIAL,
            "582",
            "direct CO2, consumption to average lifecycle CO2",
        ),
        (
            replace(OFFICIAL, gas=Gas.CO2E, gwp=Gwp.AR4),
            replace(OFFICIAL, gas=Gas.CO2E, gwp=Gwp.AR6),
            "531",
            "direct CO2e (AR6), consumption to average direct CO2e (AR4)",
        ),
        (
            replace(OFFICIAL, boundary=Boundary.FOOTPRINT, gas=Gas.CO2E),
            OFFICIAL,
            "620.5",
            "average direct CO2, consumption to average footprint CO2e",
        ),
    ],
)
def test_what_counts_different_things_has_no_sum(one: FactorKind, other: FactorKind, grams: str, sentence: str) -> None:
    """Each part of a factor's type keeps its sums apart, as 0.5306 and the footprint of 0.6205; by type both are told."""
    china = next(factor for factor in load_catalog().factors("CN") if factor.value == Decimal("530.6"))
    assert china.kind == OFFICIAL
    first = emissions(MICROJOULES_PER_KWH, replace(china, kind=one, value=Decimal(grams)), Decimal(1))
    second = emissions(MICROJOULES_PER_KWH, replace(china, kind=other), Decimal(1))

    with pytest.raises(UnlikeEmissionsError, match=re.escape(sentence)):
        _ = first + second
    assert total_emissions([first, second, first]) == {one: first + first, other: second}


def test_a_pue_below_one_is_refused() -> None:
    """Energy does not come back from the cooling."""
    with pytest.raises(ValueError, match=r"a PUE is at least 1, not 0\.99"):
        emissions(1, NEWEST["DE"], Decimal("0.99"))


def test_a_year_that_is_not_published_yet_uses_the_latest_and_says_so() -> None:
    """2031 is reckoned with 2024, provisionally."""
    (line,) = account([rollup(seconds_of_day(date(2031, 1, 1)), 5)], BasisFinder([site_row()], CATALOG), INTERVAL)

    assert line.basis.provisional
    assert line.basis.factor == german_factor(2024)


@pytest.mark.parametrize(
    ("sites", "site", "missing"),
    [
        ([], SITE_UNASSIGNED, "no rule assigns these hosts to a site"),
        ([], "hall", "site hall has no zone yet"),
        ([site_row(since=START + INTERVAL)], "hall", "site hall has no zone yet"),
        ([site_row(zone=None)], "hall", "site hall has no zone"),
        ([site_row(zone="CN")], "hall", "zone CN has no factor before 2021-01-01"),
        ([site_row(zone="GONE")], "hall", "no factor table has a zone 'GONE': "),
    ],
)
def test_energy_without_a_factor_has_no_figure(sites: list[SiteRow], site: str, missing: str) -> None:
    """No factor gives no emissions, never zero ones, and the reason is stated."""
    start = seconds_of_day(date(2020, 6, 1)) if "2021" in missing else START

    (line,) = account([rollup(start, 7, site=site)], BasisFinder(sites, CATALOG), INTERVAL)

    assert line.emissions is None
    assert line.energy_microjoules == 7
    assert line.basis.missing.startswith(missing)


def test_a_changed_pue_holds_from_its_instant() -> None:
    """Rows before and after a site's change have their own PUE; of two for one instant the later recorded holds."""
    change = START + 900
    sites = [
        site_row(pue="1.5"),
        site_row(since=change, pue="9", recorded_at=1),
        site_row(since=change, pue="1.2", recorded_at=2),
    ]
    finder = BasisFinder(sites, CATALOG)

    lines = account([rollup(START, 10), rollup(change, 20), rollup(change + 900, 30)], finder, INTERVAL)

    assert [(line.basis.pue, line.energy_microjoules) for line in lines] == [(Decimal("1.5"), 10), (Decimal("1.2"), 50)]


def test_qualities_components_and_recordings_stay_apart() -> None:
    """Modelled or recorded energy never shares a line with measured energy."""
    rows = [
        RollupRow("hall", START, component, quality, recorded, 1, 1)
        for component in Component
        for quality in Quality
        for recorded in (False, True)
    ]

    lines = account(rows + rows, BasisFinder([site_row()], CATALOG), INTERVAL)

    assert len(lines) == len(rows)
    assert {line.energy_microjoules for line in lines} == {2}


def gap(
    begin: int,
    end: int,
    lower: int = 0,
    upper: int | None = 10,
    *,
    reason: GapReason = GapReason.REBOOT,
    channel: int = 1,
    role: Role = Role.LEAF,
) -> HostGapRow:
    """A gap between two seconds; channel 0: the whole host."""
    row = GapRow(channel, begin * NANOSECONDS_PER_SECOND, end * NANOSECONDS_PER_SECOND, reason, lower, upper)
    info = channel_info(channel, role=role) if channel else None
    return HostGapRow("h", "hall", b"e", info, False, row)


def test_gaps_add_up_their_bounds_and_their_time_once() -> None:
    """Bounds are summed; time that two gaps of one channel share is counted once, of two channels twice."""
    summary = summarise_gaps([gap(10, 20, -3, 5), gap(15, 30, 1, 7), gap(10, 20, channel=2)], 0, 900)

    assert (summary.count, summary.lower_microjoules, summary.upper_microjoules) == (3, -2, 22)
    assert summary.missing_nanoseconds == (20 + 10) * NANOSECONDS_PER_SECOND
    assert summary.reasons == {GapReason.REBOOT: 3}


def test_a_gap_that_reaches_beyond_the_period_may_lie_wholly_outside() -> None:
    """Of its bounds only the side that can't be excluded is taken, and only its time within."""
    summary = summarise_gaps([gap(-100, 20, 4, 9), gap(890, 1000, -4, -2)], 0, 900)

    assert (summary.lower_microjoules, summary.upper_microjoules) == (-4, 9)
    assert summary.missing_nanoseconds == 30 * NANOSECONDS_PER_SECOND


def test_one_unbounded_gap_leaves_the_upper_bound_unknown() -> None:
    """Unknown is no number."""
    assert summarise_gaps([gap(0, 1), gap(1, 2, upper=None)], 0, 900).upper_microjoules is None


def test_gaps_of_what_is_not_booked_do_not_count() -> None:
    """A meter's own gap stands in its residual; an overlap's time was booked by the other epoch."""
    summary = summarise_gaps([gap(0, 9, role=Role.METER), gap(0, 9, reason=GapReason.OVERLAP)], 0, 900)

    assert summary.count == 1
    assert summary.missing_nanoseconds == 0


def test_a_gap_of_a_whole_host_lacks_all_its_channels() -> None:
    """An epoch's gap weighs as many channels as the epoch has."""
    summary = summarise_gaps([gap(0, 9, channel=0)], 0, 900, {("h", b"e"): 4})

    assert summary.missing_nanoseconds == 36 * NANOSECONDS_PER_SECOND


def test_coverage_is_a_share_or_unknown() -> None:
    """164 of 168 hours are covered; nothing metered is no coverage."""
    assert coverage(164, 4) == Fraction(164, 168)
    assert coverage(0, 0) is None


def test_an_empty_catalog_covers_nothing() -> None:
    """Without tables every zone is unknown, and nothing crashes."""
    (line,) = account([rollup(START, 1)], BasisFinder([site_row()], FactorCatalog([])), INTERVAL)

    assert line.emissions is None


def series(values: list[tuple[float, float, str]]) -> FactorCatalog:
    """Factors of the zone DE, by minutes from START on: begin, end, g/kWh."""
    model = NEWEST["DE"]
    rows = [
        replace(
            model,
            value=Decimal(value),
            valid_from_seconds=START + round(begin * MINUTE),
            valid_to_seconds=START + round(end * MINUTE),
            tier=Tier.F0_MEASURED,
        )
        for begin, end, value in values
    ]
    return FactorCatalog([rows])


def grams_over(catalog: FactorCatalog, begin: float, end: float) -> Fraction:
    """Grams of 1 kWh that is used evenly from one minute after START to another."""
    start, length = START + round(begin * MINUTE), round((end - begin) * MINUTE)
    (line,) = account([rollup(start, MICROJOULES_PER_KWH)], BasisFinder([site_row()], catalog), length)
    assert line.grams is not None
    return line.grams


@pytest.mark.parametrize(
    ("begin", "end", "grams"), [(0, 20, "25"), (4, 20, "28.75"), (0, 16, "21.25"), (2.5, 17.5, "25"), (2, 3, "10")]
)
def test_factors_are_joined_by_overlap(begin: float, end: float, grams: str) -> None:
    """Five-minute values 10, 20, 30, 40 over spans that begin and end within them: the Carbon Aware SDK's own figures."""
    catalog = series([(0, 5, "10"), (5, 10, "20"), (10, 15, "30"), (15, 20, "40")])
    assert grams_over(catalog, begin, end) == Fraction(grams)


def test_a_resolution_that_changes_weighs_by_time_and_not_by_rows() -> None:
    """One value of 30 minutes and two of 15: the mean of the hour, where a mean of rows would be too high."""
    catalog = series([(0, 30, "100"), (30, 45, "300"), (45, 60, "400")])
    assert grams_over(catalog, 0, 60) == 225
    assert grams_over(catalog, 15, 45) == 200


def test_energy_is_whole_and_grams_are_exact_where_an_interval_is_cut() -> None:
    """The odd microjoule goes to the later part; grams are those of the exact thirds, and the sum is all energy."""
    factor = german_factor(2023)
    catalog = FactorCatalog([[factor]])
    first, second = START + 300, START + 600
    sites = [site_row(), site_row(since=first, pue="2"), site_row(since=second, zone=None)]
    lines = account([rollup(START, 100)], BasisFinder(sites, catalog), INTERVAL)
    assert [line.energy_microjoules for line in lines] == [33, 33, 34]
    assert sum(line.covered_nanoseconds for line in lines) == 900 * NANOSECONDS_PER_SECOND
    per_microjoule = Fraction(factor.value) / MICROJOULES_PER_KWH
    assert [line.grams for line in lines] == [
        Fraction(100, 3) * per_microjoule,
        Fraction(200, 3) * per_microjoule,
        None,
    ]


def test_a_series_of_hours_is_one_line_with_all_its_factors() -> None:
    """A year of hours is told as one series, from its first to its last; carried hours are a line of their own."""
    catalog = series([(0, 15, "100"), (15, 30, "0"), (30, 45, "50")])
    rows = [rollup(START + 900 * index, MICROJOULES_PER_KWH) for index in range(4)]
    measured, carried = account(rows, BasisFinder([site_row()], catalog), INTERVAL)
    assert measured.grams == 150
    assert [str(factor.value) for factor in measured.factors] == ["100", "0", "50"]
    assert (measured.basis.from_seconds, measured.basis.to_seconds) == (START, START + 45 * MINUTE)
    assert carried.grams == 50
    assert carried.basis.tier is Tier.F2_CARRIED
    assert carried.basis.provisional


def test_what_a_hole_leaves_uncovered_is_listed_and_never_zero() -> None:
    """Of two days of hourly values that stop at noon: six carried hours, and after them kWh without a figure."""
    catalog = series([(0, 60, "100")])
    rows = [rollup(START + 3600 * hour, MICROJOULES_PER_KWH) for hour in range(10)]
    lines = account(rows, BasisFinder([site_row()], catalog), 3600)
    assert [(line.energy_microjoules // MICROJOULES_PER_KWH, line.grams) for line in lines] == [
        (1, 100),
        (6, 600),
        (3, None),
    ]
    assert "no factor between" in lines[-1].basis.missing


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 7), st.integers(0, 2**62 - 1))
def test_finer_intervals_give_the_same_grams(lengths: list[int], pieces: int, energy: int) -> None:
    """Energy that is even over a span has the same grams as one interval and as several, whatever the factors' lengths."""
    edges = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    values = [(edges[index], edges[index + 1], str(37 * index % 11)) for index in range(len(lengths))]
    finder = BasisFinder([site_row()], series([(float(a), float(b), value) for a, b, value in values]))
    whole = sum(lengths) * MINUTE * pieces
    energy -= energy % pieces
    begin = START - whole // 2
    one = account([rollup(begin, energy)], finder, whole)
    rows = [rollup(begin + index * whole // pieces, energy // pieces) for index in range(pieces)]
    many = account(rows, finder, whole // pieces)
    assert sum(line.grams or 0 for line in one) == sum(line.grams or 0 for line in many)
