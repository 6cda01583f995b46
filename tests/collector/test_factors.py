"""Factor files, the catalog's choice of a factor, and near matches of zones."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from wattledger_collector.factor_catalog import FactorCatalog, UnknownZoneError
from wattledger_collector.factor_files import bundled_tables, load_catalog, propose_zone
from wattledger_collector.factors import (
    COLUMNS,
    Basis,
    Boundary,
    FactorFileError,
    FactorKind,
    Gas,
    Signal,
    kind_of_id,
    parse_factors,
    seconds_of_day,
)

GOOD = {
    "zone": "XX",
    "name": "Nowhere",
    "value": "100.5",
    "unit": "g/kWh",
    "signal": "average",
    "boundary": "direct",
    "gas": "CO2e",
    "basis": "production",
    "includes_td": "false",
    "valid_from": "2023-01-01",
    "valid_to": "2024-01-01",
    "published": "2024-06-01",
    "source": "Test",
    "document": "a book",
    "licence": "CC0",
    "attribution": "nobody",
}


def table(*changes: dict[str, str]) -> str:
    """A factor file with a row for each set of changes to a good row."""
    lines = [",".join(COLUMNS)]
    lines += [",".join({**GOOD, **change}[name] for name in COLUMNS) for change in changes]
    return "\n".join(lines) + "\n"


def test_a_good_file_is_read_exactly() -> None:
    """Values stay decimals with all their digits, columns may be in any order, and a byte order mark is harmless."""
    names = list(reversed(COLUMNS))
    text = "\ufeff" + ",".join(names) + "\n" + ",".join({**GOOD, "value": "0.10000000000000000001"}[name] for name in names)

    (factor,) = parse_factors(text, "f.csv")

    assert factor.value == Decimal("0.10000000000000000001")
    assert factor.vintage == "2023"
    assert kind_of_id(factor.id) == factor.kind


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "f.csv is empty: its first line has to name the columns"),
        ("\0", "f.csv contains a NUL character"),
        (table(), "f.csv has a header but no factor"),
        (table({}).replace("gas,", "gass,"), "f.csv has a column 'gass' that is not in the schema: did you mean 'gas'?"),
        (table({}).replace("gas,", "unit,"), "f.csv has the column 'unit' twice: take one out"),
        (table({}).replace(",attribution", "").replace(",nobody", ""), "f.csv lacks the column 'attribution'"),
        (table({"name": "A,B"}), "f.csv line 2 has 17 cells where the header has 16"),
        (table({"name": '"A'}), "is not CSV"),
        (table({"zone": ""}), "f.csv line 2 has no zone: every row needs one"),
        (table({"zone": "A B"}), "f.csv line 2 has zone 'A B': use letters, digits and hyphens"),
        (table({"value": "about 3"}), "f.csv line 2 has value 'about 3': write a decimal number with a point"),
        (table({"value": "-1"}), "f.csv line 2 has value -1: write a number of at least 0"),
        (table({"value": "nan"}), "f.csv line 2 has value nan: write a number of at least 0"),
        (table({"value": "5001"}), "f.csv line 2 has value 5001: above 5000 g/kWh no grid is known, check the unit"),
        (table({"unit": "kg/kWh"}), "f.csv line 2 has unit 'kg/kWh': multiply by 1000 and write g/kWh"),
        (table({"unit": "lb/MWh"}), "f.csv line 2 has unit 'lb/MWh': multiply by 0.45359237 and write g/kWh"),
        (table({"signal": "mean"}), "f.csv line 2 has signal 'mean': write average or marginal"),
        (table({"boundary": "x"}), "f.csv line 2 has boundary 'x': write direct or lifecycle"),
        (table({"gas": "co2"}), "f.csv line 2 has gas 'co2': write CO2 or CO2e"),
        (table({"basis": "mix"}), "f.csv line 2 has basis 'mix': write production or consumption or residual or supplier"),
        (table({"includes_td": "no"}), "f.csv line 2 has includes_td 'no': write true or false"),
        (table({"valid_from": "1.1.23"}), "f.csv line 2 has valid_from '1.1.23': write an ISO date, such as 2023-01-01"),
        (table({"valid_to": "2023-01-01"}), "valid_to is the first instant after, so it has to be later"),
        (table({}, {}), "f.csv lines 2 and 3 both give XX a value for 2023-01-01: keep one"),
        (table({}, {"valid_from": "2023-06-01"}), "f.csv lines 2 and 3 both give XX a value for 2023-06-01: keep one"),
    ],
)
def test_each_mistake_in_a_file_is_one_sentence(text: str, sentence: str) -> None:
    """A bad file names itself, the line, the value and the remedy."""
    with pytest.raises(FactorFileError) as caught:
        parse_factors(text, "f.csv")

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are named."""
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"zone\xe9")

    with pytest.raises(FactorFileError, match=r"No such file or directory: correct factors\.files"):
        load_catalog([tmp_path / "none.csv"])
    with pytest.raises(FactorFileError, match=r"is not UTF-8 text \(byte 4\)"):
        load_catalog([latin])


def test_the_factor_of_the_interval_is_used_else_the_latest_earlier_one() -> None:
    """In a year with a value that one holds; later and in holes the one before, provisionally; earlier none."""
    catalog = FactorCatalog(
        [
            parse_factors(
                table(
                    {"value": "1", "valid_from": "2020-01-01", "valid_to": "2021-01-01"},
                    {"value": "3", "valid_from": "2022-01-01", "valid_to": "2023-01-01"},
                ),
                "f",
            )
        ]
    )

    def at(day: date) -> tuple[Decimal | None, bool]:
        choice = catalog.factor_at("XX", seconds_of_day(day))
        assert choice.from_seconds <= seconds_of_day(day)
        assert choice.to_seconds is None or seconds_of_day(day) < choice.to_seconds
        return (choice.factor.value if choice.factor else None), choice.provisional

    assert at(date(2019, 12, 31)) == (None, False)
    assert at(date(2020, 1, 1)) == (Decimal(1), False)
    assert at(date(2020, 12, 31)) == (Decimal(1), False)
    assert at(date(2021, 1, 1)) == (Decimal(1), True)
    assert at(date(2022, 6, 1)) == (Decimal(3), False)
    assert at(date(2031, 1, 1)) == (Decimal(3), True)
    assert catalog.factor_at("XX", 0).missing == "zone XX has no factor before 2020-01-01"


def test_of_two_publications_the_later_one_holds() -> None:
    """A restated value wins by its day of publication, not by its place in the file."""
    catalog = FactorCatalog(
        [parse_factors(table({"value": "729", "published": "2025-11-01"}, {"value": "727", "published": "2024-12-01"}), "f")]
    )

    choice = catalog.factor_at("XX", seconds_of_day(date(2023, 5, 1)))

    assert choice.factor is not None
    assert choice.factor.value == Decimal(729)


def test_a_factor_of_zero_is_a_factor() -> None:
    """0 g/kWh is a figure and not a missing one."""
    choice = FactorCatalog([parse_factors(table({"value": "0"}), "f")]).factor_at("XX", seconds_of_day(date(2023, 1, 1)))

    assert choice.factor is not None
    assert choice.missing == ""


def test_residual_and_marginal_factors_never_stand_for_the_grid() -> None:
    """A zone that has only such has no location based factor."""
    catalog = FactorCatalog([parse_factors(table({"basis": "residual"}, {"signal": "marginal"}), "f")])

    choice = catalog.factor_at("XX", seconds_of_day(date(2023, 1, 1)))

    assert choice.factor is None
    assert choice.missing == "zone XX has no average factor by production or consumption"


def test_an_operators_file_wins_over_the_bundled_tables(tmp_path: Path) -> None:
    """A zone's series is the operator's, whole, if there is one."""
    path = tmp_path / "own.csv"
    path.write_text(table({"zone": "DE", "value": "7"}), encoding="utf-8")
    catalog = load_catalog([path])

    assert [factor.source for factor in catalog.default_series("DE")] == ["Test"]
    assert catalog.factor_at("DE", seconds_of_day(date(2022, 1, 1))).factor is None


def test_bundled_tables_have_what_the_readme_says() -> None:
    """Over 210 countries with ten years, 27 subregions and the nation of eGRID, China, 7 grids and 30 provinces."""
    china, egrid, countries = bundled_tables()

    assert len({factor.zone for factor in countries}) == 213
    assert {int(factor.valid_from[:4]) for factor in countries} == set(range(2015, 2025))
    assert len(egrid) == 28
    assert len({factor.zone for factor in china}) == 38
    assert {int(factor.valid_from[:4]) for factor in china} == {2021, 2022, 2023}
    kinds = {factor.kind for factor in china if factor.kind.is_location_based}
    assert kinds == {FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.CONSUMPTION)}
    assert {factor.kind for factor in countries} == {
        FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION)
    }


@pytest.mark.parametrize(
    ("zone", "year", "value"),
    [
        ("US-CAMX", 2023, "195.03700802971"),
        ("US-RFCE", 2023, "271.7789403329"),
        ("US-EGRID", 2023, "349.66710055508"),
        ("DE", 2023, "371.31064"),
        ("DE", 2024, "344.13992"),
        ("SE", 2020, "38.71047"),
        ("CN", 2022, "536.6"),
        ("CN", 2023, "530.6"),
        ("CN-GRID-NORTH", 2021, "712"),
        ("CN-GD", 2022, "440.3"),
        ("CN-YN", 2023, "133.3"),
    ],
)
def test_bundled_values_are_those_published(zone: str, year: int, value: str) -> None:
    """Known figures, converted exactly; pounds are 0.45359237 kg."""
    choice = load_catalog().factor_at(zone, seconds_of_day(date(year, 7, 1)))

    assert choice.factor is not None
    assert choice.factor.value == Decimal(value)
    assert not choice.provisional


def test_the_ministry_wins_for_china_and_both_series_are_shown() -> None:
    """CN is the official direct CO2 figure; the lifecycle series is listed, never used beside it."""
    catalog = load_catalog()

    assert {factor.source for factor in catalog.default_series("CN")} == {"MEE-NBS"}
    assert {factor.source for factor in catalog.factors("CN")} == {"MEE-NBS", "OWID-Ember"}
    assert catalog.factor_at("CN", seconds_of_day(date(2020, 1, 1))).factor is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Germany", "DE (Germany)"),
        ("DEU", "DE (Germany)"),
        ("de", "DE (Germany)"),
        ("UK", "GB (United Kingdom)"),
        ("US-CAM", "US-CAMX (WECC California)"),
        ("US-CAL-CISO", "US (United States)"),
        ("Korea", "KR (South Korea)"),
        ("Guangdong", "CN-GD (Guangdong (广东))"),
    ],
)
def test_an_unknown_zone_lists_near_matches(written: str, meant: str) -> None:
    """What people write for a zone leads them to its id."""
    with pytest.raises(UnknownZoneError) as caught:
        load_catalog().require(written)

    assert str(caught.value).startswith(f"no factor table has a zone '{written}': did you mean ")
    assert meant in str(caught.value)


def test_a_zone_like_none_points_to_the_list() -> None:
    """Where nothing is near, the command that lists all is named."""
    with pytest.raises(UnknownZoneError, match="see `wattledger-collector factors list`"):
        load_catalog().require("qqqqqqqq")


@pytest.mark.parametrize(
    ("time_zone", "zone"),
    [
        ("Europe/Berlin", "DE"),
        ("Europe/Stockholm", "SE"),
        ("America/Los_Angeles", "US"),
        ("US/Pacific", "US"),
        ("Asia/Shanghai", "CN"),
        ("PRC", "CN"),
        ("Asia/Calcutta", "IN"),
        ("Europe/Kiev", "UA"),
        ("UTC", None),
        ("Etc/UTC", None),
        ("Antarctica/Vostok", None),
        ("no/such", None),
        (None, None),
    ],
)
def test_a_time_zone_proposes_its_country(time_zone: str | None, zone: str | None) -> None:
    """The proposal is the country of the time zone, old names included, or nothing."""
    assert propose_zone(time_zone, load_catalog()) == zone
