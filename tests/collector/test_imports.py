"""Imports into a ledger: booked exactly and once, beside other energy only if that is said, all or nothing."""

import argparse
import csv
import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.collector.bookings import INTERVAL, energy, following, opening

from wattledger_collector.cli import _parser
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import COLUMNS, parse_factors
from wattledger_collector.import_store import imports, meter_rows
from wattledger_collector.imports import Place
from wattledger_collector.records import CommitOutcome, Quality, Role, SiteRow
from wattledger_collector.report import Report, make_period, make_report
from wattledger_collector.store import SqliteStore, open_store

FIXTURES = Path(__file__).parent.parent / "fixtures"
NEW_YORK = ZoneInfo("America/New_York")
YEAR = gzip.decompress((FIXTURES / "replay/gpu_server_2024.csv.gz").read_bytes()).decode().splitlines()
WATTS = ("--form", "average_watts", "--time-column", "timestamp", "--value-column", "power_watts", "--label", "start")
LOCAL = ("--time-zone", "America/New_York")
FACTOR_HEADER = ",".join(COLUMNS)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with a site."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    with closing(open_store(path, create=True)) as store:
        store.add_sites([SiteRow("ithaca", 0, "US-PJM", "1.3", False, 0)])
    return path


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> Path:
    """A database of its own for each test."""
    return Path(shutil.copy(template, tmp_path / "ledger.sqlite"))


@pytest.fixture
def store(ledger: Path) -> Iterator[SqliteStore]:
    """The database, open."""
    with closing(open_store(ledger, create=False)) as opened:
        yield opened


def run(ledger: Path, file: Path, *options: str) -> int:
    """`import energy` as an operator types it."""
    parsed: argparse.Namespace = _parser().parse_args(["import", "energy", str(file), "--store", str(ledger), *options])
    status: int = parsed.run(parsed)
    return status


def write(folder: Path, rows: list[str], header: str = YEAR[0], name: str = "meter.csv") -> Path:
    """A meter's export."""
    path = folder / name
    path.write_text("\n".join([header, *rows, ""]))
    return path


def days(first: str, last: str) -> list[str]:
    """The GPU server's rows of some local days, last included."""
    return [row for row in YEAR[1:] if first <= row[:10] <= last]


def gpu(ledger: Path, file: Path, *options: str) -> int:
    """Import rows of the GPU server."""
    return run(ledger, file, *WATTS, *LOCAL, "--host", "gpu05", "--component", "gpu", "--site", "ithaca", *options)


def second(text: str) -> int:
    """Seconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp())


def report(store: SqliteStore, first: str, to: str, catalog: FactorCatalog | None = None) -> Report:
    """A report of local days."""
    period = make_period(second(first), second(to), NEW_YORK, 900)
    return make_report(store, catalog or FactorCatalog([]), period, now_seconds=second("2026-01-01"))


def intensities(years_later: int) -> dict[int, Decimal]:
    """PJM's hours, moved by whole years; an hour without a value is left out."""
    with (FIXTURES / "meters/pjm_intensity_2022.csv").open() as file:
        rows = [(datetime.fromisoformat(row["time"]), row["grams_per_kwh"]) for row in csv.DictReader(file)]
    moved = [(time.replace(year=time.year + years_later), value) for time, value in rows if value]
    return {int(time.timestamp()): Decimal(value) for time, value in moved}


def hourly_catalog(values: dict[int, Decimal]) -> FactorCatalog:
    """Factors of single hours, as a file has them."""
    lines = [FACTOR_HEADER]
    for start, value in values.items():
        begin, end = (datetime.fromtimestamp(at, UTC).isoformat() for at in (start, start + 3600))
        lines.append(
            f"US-PJM,PJM,{value},g/kWh,average,direct,CO2,production,false,{begin},{end},2024-12-01,EIA-930,x,MIT,dc-rl"
        )
    return FactorCatalog([parse_factors("\n".join([*lines, ""]), "pjm.csv")])


def test_a_recorded_trace_and_a_recorded_intensity_agree_with_a_hand(
    ledger: Path, store: SqliteStore, tmp_path: Path
) -> None:
    """Real hours of a GPU server x real hours of PJM x PUE, against sums over the very files in binary floating point."""
    assert gpu(ledger, write(tmp_path, days("2024-11-01", "2024-11-06"))) == 0
    values = intensities(2)

    made = report(store, "2024-11-01", "2024-11-07", hourly_catalog(values))

    # The hour of 01:00 on 2024-11-03 is the first of the two; the code under test has no part in these sums.
    by_hand = 0.0
    for row in days("2024-11-01", "2024-11-06"):
        time, watts = row.split(",")
        by_hand += float(watts) / 1000 * 1.3 * float(values[second(time)])
    (part,) = made.emissions.values()
    assert abs(float(part.grams) / by_hand - 1) < 1e-9
    assert made.energy_microjoules == sum(
        Fraction(row.split(",")[1]) * 3_600_000_000 for row in days("2024-11-01", "2024-11-06")
    )


def test_hours_without_a_factor_are_carried_for_six_hours_and_then_uncovered(
    ledger: Path, store: SqliteStore, tmp_path: Path
) -> None:
    """PJM has no value for 22 hours in a row: 6 are carried and say so, 16 have no figure; none counts as 0."""
    assert gpu(ledger, write(tmp_path, days("2024-03-11", "2024-03-14"))) == 0

    made = report(store, "2024-03-13", "2024-03-14", hourly_catalog(intensities(2)))

    hours = days("2024-03-13", "2024-03-13")
    watts = {second(row[:16]): Fraction(row.split(",")[1]) for row in hours}
    known = intensities(2)
    first_missing = min(start for start in watts if start not in known)
    uncovered = [start for start in watts if start not in known and start >= first_missing + 6 * 3600]
    assert made.sites[0].uncovered_microjoules == sum(watts[start] for start in uncovered) * 3_600_000_000
    assert len(uncovered) == 15
    tiers = {line.basis.tier for line in made.sites[0].lines}
    assert tiers == {"F0", "F2", "F9"}


@pytest.mark.parametrize(
    ("day", "after", "covered", "hours", "missing"),
    [
        ("2024-03-10", "2024-03-11", 22, 23, "2024-03-10T06:00:00+00:00"),
        ("2024-11-03", "2024-11-04", 24, 25, "2024-11-03T06:00:00+00:00"),
    ],
)
def test_days_of_23_and_25_hours_are_reported_with_their_missing_hours(
    ledger: Path, store: SqliteStore, tmp_path: Path, day: str, after: str, covered: int, hours: int, missing: str
) -> None:
    """Coverage is of the hours that the day had, and the missing one is listed by its time in UTC."""
    assert gpu(ledger, write(tmp_path, days(day, day))) == 0

    (site,) = report(store, day, after).sites

    assert site.coverage == Fraction(covered, hours)
    (gap,) = site.gap_rows
    assert datetime.fromtimestamp(gap.gap.from_utc_nanoseconds // 10**9, UTC).isoformat() == missing
    assert gap.gap.to_utc_nanoseconds - gap.gap.from_utc_nanoseconds == 3600 * 10**9


def test_the_same_file_again_changes_nothing(
    ledger: Path, store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An import is known by the file's bytes and what was said of it."""
    file = write(tmp_path, days("2024-05-01", "2024-05-02"))
    assert gpu(ledger, file) == 0
    before = list(store.rollups(0, 2**40)), list(store.hosts()), list(store.cursors())
    capsys.readouterr()

    assert gpu(ledger, file) == 0

    assert "imported already, and nothing was changed" in capsys.readouterr().out
    assert (list(store.rollups(0, 2**40)), list(store.hosts()), list(store.cursors())) == before


def test_where_it_comes_from_is_kept(ledger: Path, store: SqliteStore, tmp_path: Path) -> None:
    """File, digest, rows, span, meter and evidence stand in the ledger, and the epoch is a recorded one."""
    file = write(tmp_path, days("2024-05-01", "2024-05-02"))
    assert gpu(ledger, file, "--meter", "pdu 7", "--uncertainty-ratio", "0.02", "--evidence", "calibrated in 2023") == 0

    (made,) = imports(store)

    assert made.place is Place.BOOKED
    assert (made.provenance.file, made.provenance.rows) == ("meter.csv", 48)
    assert (made.meter.meter, made.meter.uncertainty_ratio, made.meter.evidence) == (
        "pdu 7", Decimal("0.02"), "calibrated in 2023",
    )  # fmt: skip
    (cursor,) = store.cursors()
    assert cursor.recorded
    channel = store.load_channels("gpu05", cursor.epoch)[1]
    assert (channel.role, channel.device, channel.uncertainty_upper_ratio) == (Role.LEAF, "meter/pdu 7", 0.02)


def agent_hour(store: SqliteStore) -> None:
    """An agent's second of energy at INTERVAL on host gpu05."""
    first = opening("gpu05")
    for booking in (first, following(first, [energy(5)])):
        assert store.commit([booking]) == [CommitOutcome.COMMITTED]


def around(tmp_path: Path) -> Path:
    """Four hours around INTERVAL."""
    begin = INTERVAL // 3600 * 3600 - 7200
    times = [datetime.fromtimestamp(begin + hour * 3600, UTC).isoformat() for hour in range(4)]
    return write(tmp_path, [f"{time},100" for time in times])


def test_time_that_an_agent_has_booked_is_refused(
    ledger: Path, store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first such time is named, and nothing of the file is there."""
    agent_hour(store)
    before = list(store.rollups(0, 2**40)), list(store.hosts())

    assert gpu(ledger, around(tmp_path), "--partial-days") == 1

    first = datetime.fromtimestamp(INTERVAL, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"booked already, by its agent, first at {first}" in capsys.readouterr().err
    assert (list(store.rollups(0, 2**40)), list(store.hosts())) == before
    assert imports(store) == []


def test_a_declared_overlap_enters_no_sum(ledger: Path, store: SqliteStore, tmp_path: Path) -> None:
    """With --beside the series is kept, as a meter, and all totals stay as they were."""
    agent_hour(store)
    before = list(store.rollups(0, 2**40)), list(store.host_energy(0, 2**40)), list(store.gaps(0, 2**40))

    assert gpu(ledger, around(tmp_path), "--partial-days", "--beside") == 0

    assert (list(store.rollups(0, 2**40)), list(store.host_energy(0, 2**40)), list(store.gaps(0, 2**40))) == before
    (made,) = imports(store)
    assert made.place is Place.BESIDE
    rows = list(meter_rows(store, made.provenance.digest, 0, 2**40))
    assert (len(rows), {row.quality for row in rows}) == (16, {Quality.INTEGRAL})
    assert sum(row.energy_microjoules for row in rows) == 400 * 3600 * 10**6
    cursor = next(each for each in store.cursors() if each.recorded)
    assert store.load_channels("gpu05", cursor.epoch)[1].role is Role.METER
    record = store.load_host("gpu05")
    assert record is not None
    # The agent's epoch stays the newest: it is the one that is live.
    assert record.epochs == opening("gpu05").host_after.epochs


def test_two_files_that_meet_are_booked_and_two_that_overlap_are_not(
    ledger: Path, store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A counter's readings go on in the next file within an interval; an hour that is in both files is refused."""
    counter = ("--form", "cumulative_kwh", "--value-column", "kwh", "--host", "m", "--partial-days")
    header = "time,kwh"
    first = write(tmp_path, ["2024-05-01T00:00,1", "2024-05-01T01:07,2"], header, "one.csv")
    second_file = write(tmp_path, ["2024-05-01T01:07,2", "2024-05-01T03:00,5"], header, "two.csv")
    third = write(tmp_path, ["2024-05-01T02:00,0", "2024-05-01T03:00,5"], header, "three.csv")

    assert run(ledger, first, *counter) == 0
    assert run(ledger, second_file, *counter) == 0
    assert run(ledger, third, *counter) == 1

    assert "by import two.csv, first at 2024-05-01T02:00:00Z" in capsys.readouterr().err
    assert sum(row.energy_microjoules for row in store.rollups(0, 2**40)) == 4 * 3_600_000_000_000


def test_a_dry_run_checks_all_and_changes_nothing(ledger: Path, store: SqliteStore, tmp_path: Path) -> None:
    """It says what would be done; a later run does it."""
    file = write(tmp_path, days("2024-05-01", "2024-05-01"))

    assert gpu(ledger, file, "--dry-run") == 0

    assert (list(store.hosts()), imports(store), store.assignments()) == ([], [], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--point", "rack"), "give --host with an id"),
        (("--point", "facility", "--site", "ithaca", "--host", "h"), "of a site and not of a host"),
        (("--point", "facility", "--site", "ithaca", "--beside"), "leave out --beside"),
        (("--point", "facility", "--site", "elsewhere"), "there is no site 'elsewhere': the sites are ithaca"),
        (("--host", "h", "--uncertainty-ratio", "2"), "--uncertainty-ratio 2"),
        (("--host", "h", "--span-seconds", "an hour"), "write whole seconds, such as 3600"),
        (("--host", "h", "--time-zone", "Mars/Here"), "there is no time zone"),
    ],
)
def test_options_that_contradict_are_refused(
    ledger: Path,
    store: SqliteStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    """One sentence each, and an untouched ledger."""
    assert run(ledger, write(tmp_path, days("2024-05-01", "2024-05-01")), *WATTS, *LOCAL, *options) == 1

    assert message in capsys.readouterr().err
    assert (list(store.hosts()), imports(store)) == ([], [])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["2199-01-01 00:00,1", "2199-01-01 01:00,1"], (), "'2199-01-01 00:00': write a time"),
        (["2198-01-01 00:00,1", "2198-01-01 01:00,1"], (), "meter.csv ends at 2198-01-01T07:00:00Z, and it is "),
        (
            ["2024-05-01 00:00,1e13", "2024-05-01 01:00,1"],
            (),
            "meter.csv holds 10000000000 kWh for one host: check the unit",
        ),
        (["2024-05-01 00:00,1", "2024-05-01 01:00,1"], ("--evidence", "a\tb"), "--evidence 'a\\tb': use at most "),
        (["2024-05-01 00:00,1", "2024-05-01 01:00,1"], ("--meter", "m" * 2000), "--meter 'mmmm"),
    ],
)
def test_series_that_cannot_be_are_refused(
    ledger: Path,
    store: SqliteStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    """Times to come, and more energy than a host can use, are slips of a zone or a unit; nothing of them is booked."""
    assert gpu(ledger, write(tmp_path, rows), "--partial-days", *options) == 1

    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert (list(store.hosts()), imports(store)) == ([], [])


def test_a_facility_cannot_use_a_gigawatt_hour_in_an_interval(
    ledger: Path, store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Watts that were kilowatts, or kilowatt-hours that were watt-hours, are told with their time."""
    file = write(tmp_path, ["2024-05-01 00:00,1", "2024-05-01 01:00,6e9"])

    assert run(ledger, file, *WATTS, *LOCAL, "--point", "facility", "--site", "ithaca", "--partial-days") == 1

    assert "meter.csv has more than a GWh in an interval, at 2024-05-01T05:00:00Z: check the unit" in capsys.readouterr().err
    assert imports(store) == []


def test_a_new_host_stands_where_the_rules_put_it(ledger: Path, store: SqliteStore, tmp_path: Path) -> None:
    """Without --site the configuration's rules say the site, from the beginning on; the file again changes nothing."""
    config = tmp_path / "collector.toml"
    config.write_text(
        f'[store]\npath = "{ledger}"\n[[site]]\nname = "ithaca"\nzone = "US-NYUP"\n'
        '[[host]]\nname = "gpu*"\nsite = "ithaca"\n'
    )
    file = write(tmp_path, days("2024-05-01", "2024-05-01"))
    for _ in range(2):
        assert run(ledger, file, *WATTS, *LOCAL, "--host", "gpu05", "--component", "gpu", "--config", str(config)) == 0

    assert [(row.host, row.site) for row in store.assignments()] == [("gpu05", "ithaca")]
    assert {row.site for row in store.rollups(0, 2**40)} == {"ithaca"}
    assert len(imports(store)) == 1


def test_a_slip_in_the_last_line_leaves_nothing_behind(
    ledger: Path, store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is imported whole or not at all."""
    assert gpu(ledger, write(tmp_path, [*days("2024-05-01", "2024-05-01"), "2024-05-02 00:00,x"])) == 1

    assert "meter.csv line 26 has power_watts 'x'" in capsys.readouterr().err
    assert (list(store.hosts()), list(store.rollups(0, 2**40)), imports(store)) == ([], [], [])


def test_the_list_tells_all(ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for programs."""
    assert gpu(ledger, write(tmp_path, days("2024-05-01", "2024-05-01"))) == 0
    capsys.readouterr()
    for options in ((), ("--json",)):
        parsed = _parser().parse_args(["import", "list", "--store", str(ledger), *options])
        assert parsed.run(parsed) == 0
    table, _, tree = capsys.readouterr().out.partition("[")
    assert "meter.csv" in table
    assert json.loads("[" + tree)[0]["sha256"]
