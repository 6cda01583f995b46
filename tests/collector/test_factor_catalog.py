"""Which factor holds: series of hours with holes and corrections, what was known when, and ladders of sources."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.factor_catalog import CARRY_SECONDS_MAX, FactorCatalog, FactorChoice
from wattledger_collector.factors import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    Basis,
    Boundary,
    Factor,
    FactorFileError,
    FactorKind,
    Gas,
    Gwp,
    Signal,
    Tier,
    kind_of_id,
    parse_factors,
    seconds_of_day,
)

NOON = int(datetime(2024, 6, 1, 12, tzinfo=UTC).timestamp())
HOUR = 3600
LOCATED = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2E, Basis.PRODUCTION)


def factor(
    value: str, begin: int, end: int, source: str = "grid", recorded: int = 0, tier: Tier = Tier.F0_MEASURED
) -> Factor:
    """A factor of the zone XX."""
    return Factor(
        zone="XX",
        name="Nowhere",
        value=Decimal(value),
        kind=LOCATED,
        includes_td=False,
        valid_from_seconds=begin,
        valid_to_seconds=end,
        published=date(2024, 1, 1),
        source=source,
        document="a book",
        licence="CC0",
        attribution="nobody",
        recorded_at_seconds=recorded or seconds_of_day(date(2024, 1, 1)),
        tier=tier,
    )


def year(value: str, number: int, published: date, source: str = "table") -> Factor:
    """A yearly factor, recorded when it was published."""
    begin, end = seconds_of_day(date(number, 1, 1)), seconds_of_day(date(number + 1, 1, 1))
    made = factor(value, begin, end, source, seconds_of_day(published), Tier.F5_ANNUAL_COUNTRY)
    return replace(made, published=published)


def value_at(catalog: FactorCatalog, at: int) -> tuple[str | None, Tier, bool]:
    """Value, tier and whether it stands in, at an instant."""
    choice = catalog.factor_at("XX", at)
    return (None if choice.factor is None else str(choice.factor.value)), choice.tier, choice.provisional


def test_hours_hold_for_their_hour_and_are_carried_for_six() -> None:
    """After the last hour its value stands in for six hours, marked; then there is nothing."""
    catalog = FactorCatalog([[factor("100", NOON, NOON + HOUR)]])
    assert value_at(catalog, NOON) == ("100", Tier.F0_MEASURED, False)
    assert value_at(catalog, NOON + HOUR) == ("100", Tier.F2_CARRIED, True)
    assert value_at(catalog, NOON + HOUR + CARRY_SECONDS_MAX - 1) == ("100", Tier.F2_CARRIED, True)
    assert value_at(catalog, NOON + HOUR + CARRY_SECONDS_MAX) == (None, Tier.F9_NONE, False)
    assert value_at(catalog, NOON - 1) == (None, Tier.F9_NONE, False)
    assert "no factor between 2024-06-01T13:00:00Z" in catalog.factor_at("XX", NOON + 10 * HOUR).missing


def test_a_hole_within_a_series_is_carried_over_and_no_further() -> None:
    """Two missing quarters of an hour are carried over; of a missing day the first six hours."""
    quarter = 900
    catalog = FactorCatalog([[factor("1", NOON, NOON + quarter), factor("2", NOON + 3 * quarter, NOON + HOUR)]])
    assert value_at(catalog, NOON + quarter) == ("1", Tier.F2_CARRIED, True)
    assert value_at(catalog, NOON + 3 * quarter) == ("2", Tier.F0_MEASURED, False)
    day = FactorCatalog([[factor("1", NOON, NOON + HOUR), factor("2", NOON + 24 * HOUR, NOON + 25 * HOUR)]])
    assert value_at(day, NOON + 6 * HOUR)[0] == "1"
    assert value_at(day, NOON + 7 * HOUR)[0] is None
    assert value_at(day, NOON + 24 * HOUR)[0] == "2"


def test_a_factor_of_zero_is_used_as_zero() -> None:
    """An hour of wind is 0 g, and the hour before does not stand in for it."""
    catalog = FactorCatalog([[factor("5", NOON, NOON + HOUR), factor("0", NOON + HOUR, NOON + 2 * HOUR)]])
    assert value_at(catalog, NOON + HOUR) == ("0", Tier.F0_MEASURED, False)


def test_a_correction_holds_from_when_it_was_recorded() -> None:
    """India's 2023-24: 0.727 until version 21 is known, 0.7290 from then on; the earlier answer can be asked for again."""
    begin, end = seconds_of_day(date(2023, 4, 1)), seconds_of_day(date(2024, 4, 1))
    first = factor("727", begin, end, "CEA", seconds_of_day(date(2024, 12, 1)))
    second = factor("729.0", begin, end, "CEA", seconds_of_day(date(2025, 11, 1)))
    assert first.id != second.id
    for order in ([first, second], [second, first]):
        as_of = {
            day: value_at(FactorCatalog([order], as_of_seconds=seconds_of_day(day)), begin)[0]
            for day in (date(2025, 1, 1), date(2026, 1, 1))
        }
        assert as_of == {date(2025, 1, 1): "727", date(2026, 1, 1): "729.0"}
    with pytest.raises(KeyError, match="no factor table"):
        FactorCatalog([[first, second]], as_of_seconds=seconds_of_day(date(2024, 11, 1))).factor_at("XX", begin)


def test_a_ladder_takes_the_next_source_where_one_has_nothing() -> None:
    """Hours where there are hours, the yearly table elsewhere; without a ladder the first series alone."""
    hourly = [factor("50", NOON, NOON + HOUR, "hourly")]
    yearly = [year("400", 2023, date(2024, 6, 1))]
    ladder = FactorCatalog([hourly, yearly], ladders={"XX": ["hourly", "table"]})
    assert value_at(ladder, NOON) == ("50", Tier.F0_MEASURED, False)
    assert value_at(ladder, NOON + 5 * HOUR) == ("50", Tier.F2_CARRIED, True)
    assert value_at(ladder, NOON + 7 * HOUR) == ("400", Tier.F5_ANNUAL_COUNTRY, True)
    assert value_at(ladder, seconds_of_day(date(2023, 7, 1))) == ("400", Tier.F5_ANNUAL_COUNTRY, False)
    assert value_at(ladder, seconds_of_day(date(2022, 7, 1)))[0] is None
    assert value_at(FactorCatalog([hourly, yearly]), NOON + 7 * HOUR)[0] is None


def test_the_policy_of_the_latest_published_uses_one_value() -> None:
    """By 2024-12-31 the newest published is that of 2022: it holds for all of 2024, and stands in for nothing."""
    table = [year("581", 2022, date(2024, 12, 20)), year("530", 2023, date(2025, 12, 31))]
    catalog = FactorCatalog([table], latest_published_by=date(2024, 12, 31))
    assert value_at(catalog, NOON) == ("581", Tier.F5_ANNUAL_COUNTRY, False)
    assert value_at(catalog, seconds_of_day(date(2023, 7, 1))) == ("581", Tier.F5_ANNUAL_COUNTRY, False)
    assert value_at(FactorCatalog([table]), NOON) == ("530", Tier.F5_ANNUAL_COUNTRY, True)


def test_a_region_never_stands_in_by_itself() -> None:
    """A factor of a continent or the world is no factor of a zone."""
    catalog = FactorCatalog([[factor("475", NOON, NOON + HOUR, tier=Tier.F6_REGION)]])
    assert value_at(catalog, NOON)[0] is None


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.integers(1, 5)), min_size=1, max_size=12),
    st.integers(-5, 60),
)
def test_every_instant_has_the_choice_that_a_search_finds(spans: list[tuple[int, int, int]], hour: int) -> None:
    """Overlapping, nested and repeated rows: the one recorded last among those that hold; choices join without a seam."""
    rows = [
        factor(str(index), NOON + begin * HOUR, NOON + (begin + length) * HOUR, recorded=1_000 + recorded * 100 + index)
        for index, (begin, length, recorded) in enumerate(spans)
    ]
    catalog = FactorCatalog([rows])
    at = NOON + hour * HOUR + 1
    holding = [row for row in rows if row.valid_from_seconds <= at < row.valid_to_seconds]
    choice = catalog.factor_at("XX", at)
    if holding:
        assert choice.factor is max(holding, key=lambda row: row.recorded_at_seconds)
        assert not choice.provisional
    else:
        assert choice.factor is None or choice.provisional
    seen: list[FactorChoice] = [catalog.factor_at("XX", -(2**62))]
    while (end := seen[-1].to_seconds) is not None:
        seen.append(catalog.factor_at("XX", end))
        assert seen[-1].from_seconds == end


HEADER = ",".join((*COLUMNS, *OPTIONAL_COLUMNS))
ROW = (
    "XX,Nowhere,100,g/kWh,average,lifecycle,CO2e,production,false,2024-06-01T12:00+02:00,2024-06-01T13:00+02:00,2024-06-01,"
    "Test,a book,CC0,nobody,2024-06-02T00:00+00:00,,,AR5,0.05,F1"
)


def test_a_file_may_state_times_and_what_is_known_of_them() -> None:
    """An hour with an offset, when it was recorded, warming potentials, uncertainty, tier; its id leads to its type."""
    (row,) = parse_factors(f"{HEADER}\n{ROW}\n", "f.csv")
    assert (row.valid_from_seconds, row.valid_to_seconds) == (NOON - 2 * HOUR, NOON - HOUR)
    assert row.recorded_at_seconds == seconds_of_day(date(2024, 6, 2))
    assert row.kind.gwp is Gwp.AR5
    assert row.tier is Tier.F1_PROVIDER_ESTIMATED
    assert row.uncertainty_ratio == Decimal("0.05")
    assert row.valid_from == "2024-06-01T10:00:00Z"
    assert kind_of_id(row.id) == row.kind


def test_warming_potentials_are_part_of_the_type() -> None:
    """CO2e by AR4 and by AR6 are different things, which no sum joins."""
    assert FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2E, Basis.PRODUCTION, Gwp.AR4) != FactorKind(
        Signal.AVERAGE, Boundary.DIRECT, Gas.CO2E, Basis.PRODUCTION, Gwp.AR6
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("CO2e,production", "CO2,production"), "gwp AR5 for CO2 alone"),
        (("T12:00+02:00", "T12:00"), "a time in whole seconds with its offset"),
        (("T13:00+02:00", "T12:00+02:00"), "first instant after"),
        ((",,,AR5", ",,abc,AR5"), "64 hexadecimal digits"),
        (("AR5", "AR7"), "gwp 'AR7'"),
        ((",F1", ",F7"), "tier 'F7'"),
        (("0.05", "-0.05"), "uncertainty_ratio -0.05"),
    ],
)
def test_each_slip_in_the_optional_columns_is_one_sentence(change: tuple[str, str], says: str) -> None:
    """File, line, column and value are named."""
    with pytest.raises(FactorFileError, match=r"f\.csv line 2") as caught:
        parse_factors(f"{HEADER}\n{ROW.replace(*change)}\n", "f.csv")
    assert says in str(caught.value)
