"""Published and recorded series through import, join and check: years, clocks, holes, lengths and labels as they really are.

The sums that results are compared with are taken from the very files, without the code under test.
"""

import csv
import gzip
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from wattledger_collector.accounting import BasisFinder, Line, account
from wattledger_collector.cli import _parser
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_checks import check_factors, count_hours
from wattledger_collector.factors import COLUMNS, Factor, FactorFileError, Tier, parse_factors
from wattledger_collector.records import MICROJOULES_PER_KWH, Component, Quality, RollupRow, SiteRow
from wattledger_collector.report import Report, make_period, make_report, parse_instant, parse_time_zone
from wattledger_collector.rounding import rounded
from wattledger_collector.store import SqliteStore, open_store

METERS = Path(__file__).parent.parent / "fixtures/meters"
HOUR, QUARTER = 3600, 900
NEW_YORK = ZoneInfo("America/New_York")
ROW = "{zone},{zone},{value},g/kWh,average,direct,CO2,production,false,{begin},{end},2024-12-01,{zone},a table,MIT,dc-rl"


def at(text: str) -> int:
    """Seconds of an ISO time."""
    return int(datetime.fromisoformat(text).timestamp())


def year_2022() -> list[dict[str, str]]:
    """The hours of 2022 of two US grids."""
    text = gzip.decompress((METERS / "us_intensity_2022.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(text.splitlines()))


def factor_file(rows: list[tuple[int, int, str]], zone: str, local: ZoneInfo | None = None) -> str:
    """A file of factors, with times in UTC or with a zone's offsets."""
    lines = [",".join(COLUMNS)]
    for begin, end, value in rows:
        told = [datetime.fromtimestamp(moment, local or UTC).isoformat() for moment in (begin, end)]
        lines.append(ROW.format(zone=zone, value=value, begin=told[0], end=told[1]))
    return "\n".join([*lines, ""])


def hours_of(zone: str) -> list[tuple[int, int, str]]:
    """All hours of a grid that have a value."""
    return [
        (at(row["time"]), at(row["time"]) + HOUR, row[f"{zone}_grams_per_kwh"])
        for row in year_2022()
        if row[f"{zone}_grams_per_kwh"]
    ]


def test_a_real_year_of_california_lacks_three_hours() -> None:
    """8,757 values of 8,760 hours: each missing one is told by its time, and 8,784 would be a leap year's."""
    rows = parse_factors(factor_file(hours_of("ciso"), "US-CAL-CISO"), "ciso.csv")

    assert len(rows) == 8757
    assert check_factors(rows, 2022) == [
        "US-CAL-CISO US-CAL-CISO 2022: 8757 of 8760 hours, missing from 2022-01-05T10:00:00Z (1 h), "
        "2022-05-17T18:00:00Z (1 h), 2022-06-13T18:00:00Z (1 h)"
    ]


def test_a_real_year_of_pjm_lacks_a_day_and_an_hour() -> None:
    """23 hours have no value: 22 from the night on which clocks went forward, and one more in November."""
    rows = parse_factors(factor_file(hours_of("pjm"), "US-PJM"), "pjm.csv")

    assert [count.text for count in count_hours(rows, 2022)] == ["US-PJM US-PJM 2022: 8737 of 8760 hours"]
    (finding,) = check_factors(rows)
    assert finding.endswith("missing from 2022-03-13T07:00:00Z (22 h), 2022-11-07T05:00:00Z (1 h)")


def test_an_import_of_a_real_year_tells_its_missing_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there is recorded; what is not is said, where the operator looks."""
    file = tmp_path / "pjm.csv"
    file.write_text(factor_file(hours_of("pjm")[1500:2000], "US-PJM"))
    with closing(open_store(tmp_path / "ledger.sqlite", create=True)):
        pass

    parsed = _parser().parse_args(["factors", "import", str(file), "--store", str(tmp_path / "ledger.sqlite")])
    assert parsed.run(parsed) == 0

    shown = capsys.readouterr()
    assert shown.out.startswith("500 new factors")
    assert "500 of 522 hours, missing from 2022-03-13T07:00:00Z (22 h)" in shown.err


def test_labels_that_name_the_end_are_found_beside_a_second_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A month of real hours by their beginning, and again, of another source, by their end: that one is an hour late."""
    month = hours_of("pjm")[4000:4744]
    late = [(begin + HOUR, end + HOUR, str(Decimal(value).quantize(Decimal(1)))) for begin, end, value in month]
    right, wrong = tmp_path / "right.csv", tmp_path / "wrong.csv"
    right.write_text(factor_file(month, "US-PJM").replace("US-PJM,a table", "market,a table"))
    wrong.write_text(factor_file(late, "US-PJM").replace("US-PJM,a table", "copy,a table"))

    def check(*files: Path) -> int:
        """What the command says of files, with the market's own as the second source."""
        parsed = _parser().parse_args(["factors", "check", *map(str, files), "--against", "market"])
        status: int = parsed.run(parsed)
        return status

    assert check(right, wrong) == 1
    assert "US-PJM copy is 1 h late against market" in capsys.readouterr().err
    wrong.write_text(right.read_text().replace("market,a table", "copy,a table"))
    assert check(right, wrong) == 0


@pytest.mark.parametrize(
    ("first", "after", "hours"),
    [("2022-11-06", "2022-11-07", 25), ("2022-11-05", "2022-11-06", 24), ("2022-06-15", "2022-06-16", 24)],
)
def test_a_real_day_is_the_same_in_local_time(first: str, after: str, hours: int) -> None:
    """Written with the offsets of New York, the hour that comes twice in November is two hours, as it is in UTC."""
    begin, end = (int(datetime.fromisoformat(day).replace(tzinfo=NEW_YORK).timestamp()) for day in (first, after))
    day = [row for row in hours_of("pjm") if begin <= row[0] < end]

    local = factor_file(day, "US-PJM", NEW_YORK)

    assert len(day) == hours
    assert parse_factors(local, "f.csv") == parse_factors(factor_file(day, "US-PJM"), "f.csv")
    if hours == 25:
        # With one offset all day the first of the two hours would end where it begins: nothing of the file is taken.
        with pytest.raises(
            FactorFileError, match=r"f\.csv line 3 is valid from 2022-11-06T01:00:00-04:00 to 2022-11-06T01:00"
        ):
            parse_factors(local.replace("-05:00", "-04:00"), "f.csv")


def test_a_day_in_china_always_has_24_hours() -> None:
    """There is no summer time: 366 days of 2024, each of 24 hours, also where others change their clocks."""
    shanghai = parse_time_zone("Asia/Shanghai")
    edges = [
        parse_instant(text, shanghai) for text in ("2024-01-01", "2024-03-10", "2024-03-11", "2024-11-03", "2024-11-04")
    ]
    assert edges[2] - edges[1] == edges[4] - edges[3] == 24 * HOUR
    assert parse_instant("2025-01-01", shanghai) - edges[0] == 8784 * HOUR


def french_day() -> list[tuple[int, Fraction, str]]:
    """The quarters of a real day: beginning, consumption in MW, g/kWh."""
    with (METERS / "fr_consumption_2023_09_21.csv").open() as file:
        return [(at(row["time"]), Fraction(row["megawatts"]), row["grams_per_kwh"]) for row in csv.DictReader(file)][:96]


def joined(factors: list[Factor], energy: list[tuple[int, int]], seconds: int = QUARTER) -> list[Line]:
    """Energy by interval, at a PUE of 1."""
    rows = [
        RollupRow("hall", begin, Component.CPU, Quality.COUNTER, False, microjoules, seconds * 10**9)
        for begin, microjoules in energy
    ]
    return list(account(rows, BasisFinder([SiteRow("hall", 0, "FR", "1", False, 0)], FactorCatalog([factors])), seconds))


def test_a_real_series_that_becomes_finer_at_noon_is_weighed_by_time() -> None:
    """Half-hours until noon and quarters after it, as Britain and France changed: a mean over rows would be another."""
    quarters = french_day()
    halves = [
        (first[0], first[0] + 2 * QUARTER, str((Decimal(first[2]) + Decimal(second[2])) / 2))
        for first, second in zip(quarters[:48:2], quarters[1:48:2], strict=True)
    ]
    rows = [*halves, *((begin, begin + QUARTER, value) for begin, _, value in quarters[48:])]
    factors = parse_factors(factor_file(rows, "FR"), "fr.csv")

    (line,) = joined(factors, [(begin, MICROJOULES_PER_KWH) for begin, _, _ in quarters])

    by_hand = sum(Fraction(value) for _, _, value in quarters)
    assert line.grams == by_hand
    mean_of_rows = sum(Fraction(value) for _, _, value in rows) / len(rows)
    assert mean_of_rows * 96 != by_hand


def test_energy_of_hours_meets_quarters_that_are_weighed_by_consumption_only_where_it_is_known() -> None:
    """Real consumption by quarter x real intensity by quarter: an hour's energy is even within the hour, and no finer."""
    quarters = french_day()
    factors = parse_factors(factor_file([(begin, begin + QUARTER, value) for begin, _, value in quarters], "FR"), "fr.csv")
    fine = [(begin, int(megawatts * QUARTER * 10**12)) for begin, megawatts, _ in quarters]
    coarse = [(fine[index][0], sum(energy for _, energy in fine[index : index + 4])) for index in range(0, 96, 4)]

    (by_quarter,) = joined(factors, fine)
    (by_hour,) = joined(factors, coarse, HOUR)

    grams = [Fraction(value) for _, _, value in quarters]
    exact = sum(Fraction(energy, MICROJOULES_PER_KWH) * value for (_, energy), value in zip(fine, grams, strict=True))
    even = sum(
        Fraction(energy, MICROJOULES_PER_KWH) * sum(grams[4 * hour : 4 * hour + 4]) / 4
        for hour, (_, energy) in enumerate(coarse)
    )
    assert (by_quarter.grams, by_hour.grams) == (exact, even)
    assert exact != even


def test_of_an_hour_that_lacks_two_quarters_half_is_carried_and_told() -> None:
    """50 % of the energy has a measured factor, 50 % the one before, carried (F2); a later value is not taken early."""
    quarters = french_day()
    lacking = [
        (begin, begin + QUARTER, value) for number, (begin, _, value) in enumerate(quarters) if number not in (41, 42)
    ]
    factors = parse_factors(factor_file(lacking, "FR"), "fr.csv")

    lines = joined(factors, [(quarters[40][0], MICROJOULES_PER_KWH)], HOUR)

    by_tier = {line.basis.tier: line for line in lines}
    half = MICROJOULES_PER_KWH // 2
    assert {tier: line.energy_microjoules for tier, line in by_tier.items()} == {
        Tier.F0_MEASURED: half,
        Tier.F2_CARRIED: half,
    }
    assert by_tier[Tier.F2_CARRIED].grams == Fraction(quarters[40][2]) / 2
    assert by_tier[Tier.F0_MEASURED].grams == Fraction(int(quarters[40][2]) + int(quarters[43][2])) / 4


def test_of_an_hour_whose_first_two_quarters_nobody_published_half_is_uncovered() -> None:
    """Before the first value there is nothing to carry: the covered half alone has grams, and the rest is listed."""
    quarters = french_day()
    factors = parse_factors(
        factor_file([(begin, begin + QUARTER, value) for begin, _, value in quarters[2:]], "FR"), "fr.csv"
    )

    lines = joined(factors, [(quarters[0][0], MICROJOULES_PER_KWH)], HOUR)

    assert sorted((line.energy_microjoules, line.grams) for line in lines if line.grams is not None) == [
        (MICROJOULES_PER_KWH // 2, Fraction(int(quarters[2][2]) + int(quarters[3][2])) / 4)
    ]
    (uncovered,) = (line for line in lines if line.grams is None)
    assert uncovered.energy_microjoules == MICROJOULES_PER_KWH // 2
    assert uncovered.basis.tier is Tier.F9_NONE


def test_a_quarter_at_nothing_counts_as_nothing_and_is_covered() -> None:
    """0 g/kWh is a value: its energy is covered, with a measured factor, and adds no grams."""
    quarters = french_day()
    rows = [(begin, begin + QUARTER, "0" if number == 8 else value) for number, (begin, _, value) in enumerate(quarters)]

    (line,) = joined(parse_factors(factor_file(rows, "FR"), "fr.csv"), [(quarters[8][0], MICROJOULES_PER_KWH)])

    assert line.grams == 0
    assert line.basis.tier is Tier.F0_MEASURED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty ledger with one site."""
    with closing(open_store(tmp_path / "ledger.sqlite", create=True)) as opened:
        opened.add_sites([SiteRow("ithaca", 0, "US-PJM", "1", False, 0)])
        yield opened


def real_week() -> list[tuple[datetime, Fraction]]:
    """168 recorded hours of a GPU server, a week in May without a hole: beginning and mean watts."""
    text = gzip.decompress((METERS.parent / "replay/gpu_server_2024.csv.gz").read_bytes()).decode()
    rows = [row.split(",") for row in text.splitlines()[1:]]
    week = [
        (datetime.fromisoformat(time).replace(tzinfo=NEW_YORK), Fraction(watts))
        for time, watts in rows
        if "2024-05-06" <= time[:10] < "2024-05-13"
    ]
    assert len(week) == 168
    return week


def imported(store: SqliteStore, folder: Path, lines: list[str], *options: str) -> Report:
    """Import a week of a host, and report it."""
    file = folder / "week.csv"
    file.write_text("\n".join(["time,value", *lines, ""]))
    words = ["import", "energy", str(file), "--store", str(folder / "ledger.sqlite"), "--host", "gpu05", "--site", "ithaca"]
    columns = ["--time-column", "time", "--value-column", "value", "--time-zone", "America/New_York"]
    parsed = _parser().parse_args([*words, *columns, *options])
    assert parsed.run(parsed) == 0
    begin, end = (int(datetime(2024, 5, day, tzinfo=NEW_YORK).timestamp()) for day in (6, 13))
    return make_report(
        store, FactorCatalog([]), make_period(begin, end, NEW_YORK, QUARTER), now_seconds=at("2026-01-01T00Z")
    )


MISSING = (9, 10, 11, 77)


def test_a_real_week_with_four_missing_hours_says_which(store: SqliteStore, tmp_path: Path) -> None:
    """164 of 168 hours, 97.619 %; the missing ones stand with their times in UTC, and count as no energy and not as 0."""
    week = real_week()
    lines = [
        f"{time.replace(tzinfo=None).isoformat()},{float(watts)}"
        for number, (time, watts) in enumerate(week)
        if number not in MISSING
    ]

    (site,) = imported(store, tmp_path, lines, "--form", "average_watts", "--label", "start").sites

    assert site.coverage == Fraction(164, 168)
    assert rounded(Fraction(site.coverage) * 100, 3) == "97.619"
    assert site.energy_microjoules == int(
        sum(watts for number, (_, watts) in enumerate(week) if number not in MISSING) * HOUR * 10**6
    )
    gaps = [(gap.gap.from_utc_nanoseconds // 10**9, gap.gap.to_utc_nanoseconds // 10**9) for gap in site.gap_rows]
    assert sorted(gaps) == [
        (int(week[first][0].timestamp()), int(week[last][0].timestamp()) + HOUR) for first, last in ((9, 11), (77, 77))
    ]


def test_a_counter_that_went_on_knows_the_energy_of_the_missing_hours(store: SqliteStore, tmp_path: Path) -> None:
    """The same week as readings of a counter, four of them lost: all energy is there, part of it bridged (E1), no gap."""
    week = real_week()
    total, lines = Fraction(0), [f"{week[0][0].isoformat()},0"]
    for number, (time, watts) in enumerate(week):
        total += watts / 1000
        if number not in MISSING:
            end = datetime.fromtimestamp(time.timestamp() + HOUR, UTC)
            lines.append(f"{end.isoformat()},{float(total)!r}")

    (site,) = imported(store, tmp_path, lines, "--form", "cumulative_kwh", "--label", "instant").sites

    assert site.coverage == 1
    assert site.gap_rows == ()
    assert abs(site.energy_microjoules - total * MICROJOULES_PER_KWH) < 10**6
    bridged = sum(line.energy_microjoules for line in site.lines if line.quality is Quality.BRIDGED)
    spans = [(8, 11), (76, 77)]
    whole = sum((watts for first, last in spans for _, watts in week[first + 1 : last + 2]), Fraction(0))
    assert abs(bridged - whole * HOUR * 10**6) < 10**6
