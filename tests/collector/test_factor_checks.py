"""What is looked for in series of factors: missing hours, labels and units."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from wattledger_collector.factor_checks import check_factors, compare_labels, count_hours
from wattledger_collector.factor_units import UnitError, grams_per_kwh
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier

HOUR = 3600
KIND = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.PRODUCTION)


def instant(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """Seconds of a time in UTC."""
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp())


def factor(at: int, value: str = "100", *, seconds: int = HOUR, source: str = "one", gas: Gas = Gas.CO2) -> Factor:
    """A factor of an hour."""
    return Factor(
        zone="XX",
        name="Nowhere",
        value=Decimal(value),
        kind=replace(KIND, gas=gas),
        includes_td=False,
        valid_from_seconds=at,
        valid_to_seconds=at + seconds,
        published=date(2025, 1, 1),
        source=source,
        document="a book",
        licence="CC0",
        attribution="nobody",
        recorded_at_seconds=0,
        tier=Tier.F0_MEASURED,
    )


def year_of_hours(year: int) -> list[Factor]:
    """A factor for each hour of a year."""
    return [factor(at) for at in range(instant(year, 1, 1), instant(year + 1, 1, 1), HOUR)]


def test_a_leap_year_has_24_hours_more() -> None:
    """2024 is whole with 8,784 rows, and 2023 with 8,760."""
    assert [count.text for count in count_hours(year_of_hours(2024))] == ["XX one 2024: 8784 of 8784 hours"]
    assert [count.text for count in count_hours(year_of_hours(2023))] == ["XX one 2023: 8760 of 8760 hours"]
    assert check_factors(year_of_hours(2024)) == []


def test_a_year_of_8760_rows_is_not_a_whole_leap_year() -> None:
    """A table that left out February 29 lacks that day, and says so."""
    rows = [
        each for each in year_of_hours(2024) if not instant(2024, 2, 29) <= each.valid_from_seconds < instant(2024, 3, 1)
    ]

    assert check_factors(rows, 2024) == ["XX one 2024: 8760 of 8784 hours, missing from 2024-02-29 (24 h)"]


def test_missing_hours_at_the_ends_are_told_of_a_whole_year_alone() -> None:
    """A series that began in the year is whole as far as it goes; of the year it is not."""
    rows = year_of_hours(2023)[1:]

    assert check_factors(rows) == []
    assert check_factors(rows, 2023) == ["XX one 2023: 8759 of 8760 hours, missing from 2023-01-01 (1 h)"]


def test_a_year_that_breaks_off_lacks_its_end() -> None:
    """A feed that stopped in the last days of December."""
    rows = [row for row in year_of_hours(2023) if row.valid_from_seconds < instant(2023, 12, 30)]

    assert check_factors(rows, 2023) == ["XX one 2023: 8712 of 8760 hours, missing from 2023-12-30 (48 h)"]


def test_many_holes_are_counted_after_twenty() -> None:
    """A finding stays a sentence."""
    rows = [each for number, each in enumerate(year_of_hours(2023)) if number % 2 == 0]

    (finding,) = check_factors(rows)
    assert finding.startswith("XX one 2023: 4380 of 8759 hours, missing from 2023-01-01T01:00:00Z (1 h), ")
    assert finding.endswith(" and 4359 more")


def test_an_hour_given_twice_by_spans_of_two_lengths_is_found() -> None:
    """As when local time's doubled hour was written with one offset, or a resolution changed within it."""
    rows = [factor(instant(2023, 1, 1)), factor(instant(2023, 1, 1, 0, 30), seconds=1800)]

    assert check_factors(rows) == [
        "XX one has two values for 2023-01-01T00:30:00Z: an hour that local time has twice, or a change of resolution"
    ]


def test_a_correction_is_not_a_second_value() -> None:
    """Of one row the newest recorded counts."""
    first = factor(instant(2023, 1, 1))

    assert check_factors([first, replace(first, value=Decimal(7), recorded_at_seconds=9)]) == []


def test_spans_beside_the_clock_are_found() -> None:
    """Hours that begin at half past were labelled by their middle."""
    (finding,) = check_factors([factor(instant(2023, 1, 1, 0, 30))])

    assert finding.startswith("XX one has 1 spans that begin beside the clock, the first at 2023-01-01T00:30:00Z")


def wave(hour: int) -> str:
    """An intensity with a daily and a weekly rhythm."""
    return str(round(300 + 100 * math.sin(hour * math.tau / 24) + 30 * math.sin(hour * math.tau / 168), 3))


def test_labels_shifted_by_an_hour_are_found_by_a_second_source() -> None:
    """A series whose hours were labelled by their ends fits another one an hour earlier, and one that is right fits."""
    begin = instant(2022, 6, 1)
    right = [factor(begin + hour * HOUR, wave(hour), source="right") for hour in range(200)]
    late = [factor(begin + (hour + 1) * HOUR, wave(hour), source="late") for hour in range(200)]

    finding = compare_labels(late, right)
    assert finding is not None
    assert finding.startswith("XX late is 1 h late against right (correlation 1.000 there, 0.9")
    assert "is 1 h early against late" in (compare_labels(right, late) or "")
    assert compare_labels(right, [replace(each, source="other") for each in right]) is None


def test_labels_of_too_few_hours_are_not_judged() -> None:
    """A day agrees by chance."""
    rows = [factor(hour * HOUR, wave(hour)) for hour in range(24)]

    assert "fewer than 48 hours" in (compare_labels(rows, rows) or "")


def test_a_year_below_any_grid_is_a_slip_of_the_unit_and_zero_is_not() -> None:
    """0.5306 g/kWh were kg/kWh; an hour may be so low, and a year of 0 may be true."""
    year = 365 * 24 * HOUR

    (finding,) = check_factors([factor(0, "0.5306", seconds=year)])
    assert finding.endswith("is it kg/kWh called g/kWh?")
    assert check_factors([factor(0, "0", seconds=year)]) == []
    assert check_factors([factor(0, "0.5306")]) == []


def test_methane_a_thousand_times_too_low_is_told() -> None:
    """lb/MWh that were taken for lb/GWh."""
    (finding,) = check_factors([factor(0, "0.00001", gas=Gas.CH4)])

    assert finding.endswith("is it lb/MWh called lb/GWh?")


@pytest.mark.parametrize(
    ("value", "unit", "grams"),
    [
        # eGRID2023: California, RFC East and the nation, in pounds.
        ("429.983", "lb/MWh", "195.03700802971"),
        ("599.170", "lb/MWh", "271.7789403329"),
        ("770.884", "lb/MWh", "349.66710055508"),
        ("0.5366", "t/MWh", "536.6"),
        ("0.5366", "kg/kWh", "536.6"),
        ("536.6", "kg/MWh", "536.6"),
        ("536.6", "g/kWh", "536.6"),
        ("0", "lb/MWh", "0"),
    ],
)
def test_units_are_converted_exactly(value: str, unit: str, grams: str) -> None:
    """No digit is rounded, and a pound is 0.45359237 kg."""
    assert grams_per_kwh(Decimal(value), unit, "CO2e") == Decimal(grams)


def test_methane_in_pounds_a_gigawatt_hour_is_a_thousandth() -> None:
    """The column of eGRID's summary tables."""
    assert grams_per_kwh(Decimal(23), "lb/GWh", "CH4") == Decimal("0.01043262451")


@pytest.mark.parametrize(
    ("value", "unit", "gas", "sentence"),
    [
        ("23", "lb/MWh", "CH4", "has 23 lb/MWh of CH4, a thousand times what grids emit: is it in lb/GWh?"),
        ("430", "lb/GWh", "CO2e", "has unit 'lb/GWh' for CO2e: only CH4 and N2O are published so"),
        ("1", "Mt/MWh", "CO2", "has unit 'Mt/MWh': Mt is a million tonnes, and a tonne is t: write t/MWh"),
        ("1", "mt/MWh", "CO2", "has unit 'mt/MWh': mt is no unit of mass, and a tonne is t: write t/MWh"),
        ("1", "KG/KWH", "CO2", "has unit 'KG/KWH': write kg/kWh, with small and capital letters"),
        ("1", "g/MJ", "CO2", "has unit 'g/MJ': write g/kWh, kg/MWh, kg/kWh, t/MWh, lb/MWh, or lb/GWh for CH4 and N2O"),
        (f"0.{'1' * 60}", "lb/MWh", "CO2", "with more digits than can be kept"),
    ],
)
def test_units_that_may_mean_something_else_are_refused(value: str, unit: str, gas: str, sentence: str) -> None:
    """A thousand and a million are not guessed."""
    with pytest.raises(UnitError) as caught:
        grams_per_kwh(Decimal(value), unit, gas)
    assert sentence in str(caught.value)
