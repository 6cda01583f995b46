"""The report as a page: its figures are the ledger's, its days add up, nothing of it is a script, and names stay names."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from tests.collector.two_sites import BERLIN, FROM, KWH, NASTY, TO, hours, make_ledger, second

from wattledger_collector.cli import _parser
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.hosts import host_drain
from wattledger_collector.import_store import imports, remove_import
from wattledger_collector.progress import Work
from wattledger_collector.report import Report, make_period, make_report
from wattledger_collector.report_completeness import completeness
from wattledger_collector.report_figures import days_of, measured_pues
from wattledger_collector.report_html import render_page
from wattledger_collector.report_pages import make_page
from wattledger_collector.report_svg import nice_step, tick_text
from wattledger_collector.report_uncertainty import intervals_of, sensors_of
from wattledger_collector.store import SqliteStore, open_store

CATALOG = load_catalog()
BERLIN_OPTION = ("--time-zone", "Europe/Berlin")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of two sites, made once."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    make_ledger(path)
    return path


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> Path:
    """A ledger of its own for each test."""
    return Path(shutil.copy(template, tmp_path / "ledger.sqlite"))


@pytest.fixture
def store(ledger: Path) -> Iterator[SqliteStore]:
    """The ledger, open."""
    with closing(open_store(ledger, create=False)) as opened:
        yield opened


def report(store: SqliteStore, first: str = FROM, to: str = TO) -> Report:
    """A report of local days."""
    period = make_period(second(first), second(to), BERLIN, 900)
    return make_report(store, CATALOG, period, now_seconds=second("2024-04-02"))


class Reader(HTMLParser):
    """What a page has: its elements with their attributes, and the cells of its tables by their ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._table = dict(attrs)["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """A table ends."""
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        """Note text, of a cell in its cell."""
        self.text.append(data)
        if self._table and self.tables[self._table] and self.tables[self._table][-1]:
            self.tables[self._table][-1][-1] += data


def page(store: SqliteStore) -> Reader:
    """The page of the ledger's days."""
    with Progress(console=Console(quiet=True)) as bars:
        made = make_page(store, CATALOG, report(store), site=None, work=Work(bars))
    return Reader(render_page(made))


def test_days_add_up_to_the_report(store: SqliteStore) -> None:
    """Energy, grams, covered and missing time of the days are the whole period's, exactly; one day has 23 hours."""
    made = report(store)

    days = days_of(made, store, CATALOG)

    assert [(day.to_seconds - day.from_seconds) // 3600 for day in days] == [24, 24, 23, 24]
    assert sum(day.energy_microjoules for day in days) == made.energy_microjoules
    for kind, part in made.emissions.items():
        assert sum((day.grams.get(kind, Fraction(0)) for day in days), Fraction(0)) == part.grams
    assert sum(day.covered_nanoseconds for day in days) == sum(site.covered_nanoseconds for site in made.sites)
    assert sum(day.missing_nanoseconds for day in days) == sum(site.missing_nanoseconds for site in made.sites)
    # Three hosts for 23 hours, of which one lacks two.
    assert days[2].coverage == Fraction(67, 69)


def test_tables_have_the_reports_figures(store: SqliteStore) -> None:
    """Rows by site, by component and of the year before, against sums by hand."""
    tables = page(store).tables

    site = next(row for row in tables["sites-table"] if row[0] == "hall")
    # 93 h of 1 kW and 95 h of 2 kW.
    assert site[2] == "283.000"
    assert site[3] == "1.2 declared (no evidence)"
    assert site[4] == "339.600"
    assert {row[0]: row[2] for row in tables["components-table"][1:]} == {"cpu": "116.750", "gpu": "190.000"}
    assert tables["years-table"][1] == ["IT energy, kWh", "142.500", "306.750", "115.3 %"]
    assert [(row[2], row[4], row[5]) for row in tables["workloads-table"][1:]] == [
        ("physics", "equal", "50.000"),
        ("shop", "by-usage", "20.000"),
    ]
    assert tables["tiers-table"][-1][0] == "F9: none: no emissions figure"


def test_no_name_becomes_markup_and_nothing_is_asked_of_a_network(store: SqliteStore) -> None:
    """A site's name with a script in it is text; no element loads anything."""
    read = page(store)

    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "use", "image"}
    assert not {name for _, attributes in read.tags for name in attributes} & {"src", "href", "onload", "xlink:href"}
    assert any(NASTY in text for text in read.text)


def test_charts_speak(store: SqliteStore) -> None:
    """Each chart has a title, a description and its unit; a bar says its figure; ids are there once."""
    read = page(store)

    charts = [attributes for tag, attributes in read.tags if tag == "svg"]
    assert all(attributes.get("aria-label") or attributes.get("aria-labelledby") for attributes in charts)
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "2024-03-31: 72.750 kWh, coverage 97.1 %" in read.text


def test_a_week_with_four_missing_hours_is_not_complete(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """164 of 168 hours: the report says partial, and --complete refuses it."""
    rows = [f"{datetime.fromtimestamp(second('2024-06-03') + 3600 * hour, UTC).isoformat()},100" for hour in range(168)]
    file = ledger.parent / "week.csv"
    file.write_text(
        "\n".join(["time,watts", *(row for number, row in enumerate(rows) if number not in (9, 10, 11, 77)), ""])
    )
    words = ["import", "energy", str(file), "--store", str(ledger), "--form", "average_watts", "--value-column", "watts"]
    parsed = _parser().parse_args(
        [*words, "--label", "start", "--host", "week", "--site", "hall", "--time-zone", "Europe/Berlin"]
    )
    assert parsed.run(parsed) == 0
    with closing(open_store(ledger, create=False)) as store:
        for host in "abc":
            # They had nothing to say in June, and are not expected to.
            host_drain(store, host, now_utc_nanoseconds=0)
        made = report(store, "2024-06-03", "2024-06-10")
    assert made.sites[0].coverage == Fraction(164, 168)
    assert completeness(made)[0] == "partial"
    capsys.readouterr()

    asked = ["report", "--store", str(ledger), "--from", "2024-06-03", "--to", "2024-06-10", *BERLIN_OPTION]
    parsed = _parser().parse_args([*asked, "--site", "hall", "--complete"])

    assert parsed.run(parsed) == 1
    out = capsys.readouterr()
    assert "the report is partial: 164 of 168 h of channel time have a figure" in out.err
    assert out.out == ""


def test_a_whole_period_is_complete(store: SqliteStore) -> None:
    """A day of which nothing is missing, at a site that has a factor."""
    period = make_period(second("2024-03-29"), second("2024-03-30"), BERLIN, 900)
    made = make_report(store, CATALOG, period, now_seconds=second("2024-04-02"), site="hall")

    assert completeness(made) == ("complete", "48 of 48 h of channel time have a figure")


def facility(ledger: Path, watts: int, *options: str, day: str = "2024-03-29", count: int = 24, meter: str = "main") -> int:
    """Import a site's meter."""
    begin = second(day)
    rows = [f"{datetime.fromtimestamp(begin + hour * 3600, UTC).isoformat()},{watts}" for hour in range(count)]
    file = ledger.parent / f"{'site' if meter == 'main' else meter}-{day[:10]}.csv"
    file.write_text("\n".join(["time,watts", *rows, ""]))
    words = ["import", "energy", str(file), "--store", str(ledger), "--form", "average_watts", "--value-column", "watts"]
    parsed = _parser().parse_args(
        [*words, "--label", "start", "--site", "hall", "--point", "facility", "--meter", meter, "--partial-days", *options]
    )
    status: int = parsed.run(parsed)
    return status


def test_a_sites_own_meter_measures_its_pue(ledger: Path, store: SqliteStore, capsys: pytest.CaptureFixture[str]) -> None:
    """3.93 kW of the site for 3 kW of IT are 1.31, interim; each host's part adds up to all of the overhead."""
    assert facility(ledger, 3930) == 0
    before = report(store).energy_microjoules

    measured = measured_pues(report(store), store)["hall"]

    assert measured.pue is not None
    assert (measured.pue.ratio, measured.pue.name) == (Fraction("1.31"), "interim PUE")
    assert measured.measured_seconds == 24 * 3600
    assert measured.overhead == {"a": 24 * 310 * 3_600_000_000, "b": 24 * 620 * 3_600_000_000}
    assert sum(measured.overhead.values()) == measured.facility_microjoules - measured.it_microjoules
    assert report(store).energy_microjoules == before
    capsys.readouterr()
    parsed = _parser().parse_args(
        ["report", "--store", str(ledger), "--from", FROM, "--to", TO, "--time-zone", "Europe/Berlin"]
    )
    assert parsed.run(parsed) == 0
    out = capsys.readouterr().out
    assert "PUE of hall measured 1.31 (interim)" in out
    assert "category 3 (IT energy at the IT's input)" in out


def test_intervals_that_the_sites_meter_covers_in_part_have_no_part_in_the_pue(ledger: Path, store: SqliteStore) -> None:
    """A file that begins and ends within an interval: the PUE is of the whole intervals in between."""
    assert facility(ledger, 3930, day="2024-03-29T00:10", count=23) == 0

    measured = measured_pues(report(store), store)["hall"]

    assert measured.pue is not None
    assert measured.pue.ratio == Fraction("1.31")
    assert measured.measured_seconds == 23 * 3600 - 900


def test_a_new_meter_goes_on_where_the_old_one_ended(ledger: Path, store: SqliteStore) -> None:
    """A site whose meter was replaced at noon has one of them at a time, and a PUE of the whole day."""
    assert facility(ledger, 3930, count=12) == 0
    assert facility(ledger, 3930, day="2024-03-29T12:00", count=12, meter="new") == 0

    measured = measured_pues(report(store), store)["hall"]

    assert measured.pue is not None
    assert (measured.pue.ratio, measured.measured_seconds) == (Fraction("1.31"), 24 * 3600)
    assert measured.meters == ("main", "new")


def test_a_feed_whose_file_is_missing_leaves_no_pue_of_the_other(ledger: Path, store: SqliteStore) -> None:
    """Of two feeds one was not imported for the period: what the other tells is half of the site."""
    assert facility(ledger, 2000, day="2024-03-28", count=24) == 0
    assert facility(ledger, 3930, "--another-feed", day="2024-03-28", count=48, meter="second") == 0

    assert measured_pues(report(store), store)["hall"].pue is None

    assert facility(ledger, 2000, "--another-feed") == 0
    measured = measured_pues(report(store), store)["hall"]
    assert measured.pue is not None
    assert measured.facility_microjoules == 24 * 5930 * 3_600_000_000


def test_a_meter_that_sees_less_than_the_it_tells_no_pue(ledger: Path, store: SqliteStore) -> None:
    """A PUE below 1 is a meter of a part of the site, and is told as that."""
    assert facility(ledger, 2000) == 0

    measured = measured_pues(report(store), store)["hall"]

    assert measured.pue is None
    assert "look for a meter that sees a part of the site only" in measured.reason


def test_a_second_file_of_the_same_site_meter_may_not_overlap(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the site's meter counted is counted once."""
    assert facility(ledger, 3930) == 0
    assert facility(ledger, 3930, day="2024-03-30") == 0
    assert facility(ledger, 3000, count=12) == 1
    assert "overlaps site-2024-03-29.csv" in capsys.readouterr().err


def test_a_sites_meter_that_was_taken_back_measures_nothing(ledger: Path, store: SqliteStore) -> None:
    """What was imported by mistake makes no PUE."""
    assert facility(ledger, 3930) == 0
    (made,) = imports(store)

    remove_import(store, made, "another site's", now_seconds=second("2024-04-02"))

    assert measured_pues(report(store), store) == {}


def test_the_interval_holds_sensors_factors_and_gaps(store: SqliteStore) -> None:
    """By hand: one kind of sensor at -2 % and +3 %, a factor at 15 % by its tier, and a gap of a kWh, added whole."""
    made = report(store)

    (found,) = intervals_of(made, sensors_of(store, made.period.from_seconds)).values()
    interval = found.interval

    (part,) = made.emissions.values()
    hall = next(site for site in made.sites if site.site == "hall")
    gap = float(part.grams / hall.energy_microjoules * KWH)
    grams = float(part.grams)
    assert interval.grams == part.grams
    assert interval.lower_grams == pytest.approx(grams * (0.02**2 + 0.15**2) ** 0.5)
    assert interval.upper_grams == pytest.approx(grams * (0.03**2 + 0.15**2) ** 0.5 + gap)
    assert not found.is_open
    assert (found.sensors_assumed, found.factors_assumed) == ((), ("DE OWID-Ember",))


def test_ticks_are_round(store: SqliteStore) -> None:
    """A step is 1, 2 or 5 times a power of ten."""
    spans = ("0.0031", "7", "8", "39", "1234567")
    assert [tick_text(nice_step(Fraction(span))) for span in spans] == ["0.001", "2", "2", "10", "500 000"]


def test_the_command_writes_a_whole_file(ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--out names the file; a folder that is not there is told in a sentence."""
    words = ["report", "--store", str(ledger), "--from", FROM, "--to", TO, *BERLIN_OPTION, "--html", "--out"]
    for folder, status in ((tmp_path, 0), (tmp_path / "nowhere", 1)):
        parsed = _parser().parse_args([*words, str(folder / "report.html")])
        assert parsed.run(parsed) == status
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>\n<html")
    assert "cannot write" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_hours_are_easy_to_add() -> None:
    """The ledger of these tests: an hour of a kilowatt is a kilowatt-hour."""
    assert sum(row.energy_microjoules for row in hours("2024-03-29", 1, 1000)) == KWH
