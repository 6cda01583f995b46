"""Reports: figures worked out by hand, bounds and coverage, times and intervals, and the three ways to show them."""

import csv
import dataclasses
import io
import json
from datetime import date
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from rich.console import Console
from tests.collector.bookings import EPOCH, make_cursor, make_host
from tests.collector.fake_store import FakeStore, channel_info

from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factors import seconds_of_day
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    AssignmentRow,
    ChannelPoint,
    Component,
    GapReason,
    GapRow,
    HostGapRow,
    HostState,
    Quality,
    Role,
    RollupRow,
    SiteRow,
)
from wattledger_collector.report import Report, ReportError, make_period, make_report, parse_instant, parse_time_zone
from wattledger_collector.report_output import write_csv, write_json
from wattledger_collector.report_table import write_table
from wattledger_collector.rounding import mass_text, rounded

CATALOG = load_catalog()
UTC = ZoneInfo("UTC")
KWH = 3_600_000_000_000
OLD_YEAR = seconds_of_day(date(2023, 12, 31))
NEW_YEAR = seconds_of_day(date(2024, 1, 1))
END = seconds_of_day(date(2024, 1, 2))
GOLDEN = Path(__file__).parent.parent / "golden"
COVERED = 900 * NANOSECONDS_PER_SECOND


def ledger() -> FakeStore:
    """Two days over a new year at a German site of PUE 1.5, and a site without zone."""

    def row(site: str, start: int, part: Component, quality: Quality, energy: int, recorded: bool = False) -> RollupRow:
        return RollupRow(site, start, part, quality, recorded, energy, COVERED)

    noon = 12 * 3600
    gap = GapRow(1, NEW_YEAR * 10**9, (NEW_YEAR + 1800) * 10**9, GapReason.REBOOT, 0, KWH // 10)
    return FakeStore(
        site_rows=[SiteRow("hall", 0, "DE", "1.5", False, 0), SiteRow("dark", 0, None, "1.2", False, 0)],
        rollup_rows=[
            row("hall", OLD_YEAR - 900, Component.CPU, Quality.COUNTER, 99 * KWH),
            row("hall", OLD_YEAR + noon, Component.CPU, Quality.COUNTER, 2 * KWH),
            row("hall", OLD_YEAR + noon, Component.GPU, Quality.INTEGRAL, KWH // 4, recorded=True),
            row("hall", NEW_YEAR + noon, Component.GPU, Quality.BRIDGED, KWH),
            row("hall", NEW_YEAR + noon, Component.GPU, Quality.MODEL, KWH // 2),
            row("hall", END, Component.CPU, Quality.COUNTER, 99 * KWH),
            row("dark", NEW_YEAR, Component.CPU, Quality.COUNTER, 3 * KWH + 1),
        ],
        gap_rows=[HostGapRow("h", "hall", EPOCH, channel_info(), False, gap)],
    )


def report_of(store: FakeStore, *, site: str | None = None, now: int = END + 86_400) -> Report:
    """The report of the two days."""
    return make_report(store, CATALOG, make_period(OLD_YEAR, END, UTC, 900), now_seconds=now, site=site)


def test_a_report_equals_what_a_hand_works_out() -> None:
    """2 kWh and 1/4 kWh x 371.31064 of 2023, 1.5 kWh x 344.13992 of 2024, all x PUE 1.5; not a microjoule beside it."""
    dark, hall = report_of(ledger()).sites

    # 2.25 x 1.5 x 371.31064 = 1253.17341; 1.5 x 1.5 x 344.13992 = 774.31482.
    (part,) = hall.emissions.values()
    assert part.grams == Fraction("1253.17341") + Fraction("774.31482")
    assert hall.energy_microjoules == 13_500_000_000_000
    assert hall.energy_bounds_microjoules == (13_500_000_000_000, 13_860_000_000_000)
    assert hall.by_component() == {Component.CPU: 2 * KWH, Component.GPU: 7 * KWH // 4}
    assert hall.by_quality() == {
        Quality.COUNTER: 2 * KWH,
        Quality.INTEGRAL: KWH // 4,
        Quality.MODEL: KWH // 2,
        Quality.BRIDGED: KWH,
    }
    # Four rows of 900 s, and 1800 s missing.
    assert hall.coverage == Fraction(2, 3)
    assert (dark.emissions, dark.uncovered_microjoules) == ({}, 3 * KWH + 1)


def test_the_table_is_as_agreed() -> None:
    """What people see, compared as text; figures rounded half up, nothing else lost."""
    out = io.StringIO()

    write_table(report_of(ledger()), Console(file=out, width=150))

    text = "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())
    assert text == (GOLDEN / "report.txt").read_text(encoding="utf-8")


def test_json_carries_microjoules_as_text_and_exact_grams() -> None:
    """A program can recompute each figure from the JSON alone."""
    out = io.StringIO()
    write_json(report_of(ledger()), out)

    tree = json.loads(out.getvalue())

    hall = tree["sites"][1]
    factors = {factor["factor"]: Fraction(factor["grams_per_kwh"]) for factor in tree["factors"]}
    for line in hall["lines"]:
        exact = int(line["energy_microjoules"]) * Fraction(line["pue"]) * factors[line["factor"]] / KWH
        assert Fraction(line["grams_exact"]) == exact
    assert hall["emissions"] == [
        {
            "signal": "average",
            "boundary": "lifecycle",
            "gas": "CO2e",
            "basis": "production",
            "grams": "2027.488230",
            "grams_exact": "202748823/100000",
        }
    ]
    assert tree["sites"][0]["uncovered"] == [{"reason": "site dark has no zone", "energy_microjoules": "10800000000001"}]
    assert tree["provisional"] is True


def test_each_gap_is_listed_with_its_bounds() -> None:
    """JSON and CSV list every gap with host, device, span, reason and bounds; a fraction of a second is kept."""
    store = ledger()
    odd = GapRow(1, NEW_YEAR * 10**9 + 1, (NEW_YEAR + 60) * 10**9, GapReason.RESET, -5, None)
    store.gap_rows.append(HostGapRow("h", "hall", EPOCH, None, False, odd))
    out, sheet = io.StringIO(), io.StringIO()
    write_json(report_of(store), out)
    write_csv(report_of(store), sheet)

    first, second = json.loads(out.getvalue())["sites"][1]["gaps"]["rows"]
    listed = [row for row in csv.DictReader(io.StringIO(sheet.getvalue())) if row["record"] == "gap"]

    assert first == {
        "host": "h",
        "device": channel_info().device,
        "recorded": False,
        "from": "2024-01-01T00:00:00+00:00",
        "to": "2024-01-01T00:30:00+00:00",
        "reason": "reboot",
        "lower_microjoules": "0",
        "upper_microjoules": "360000000000",
    }
    assert (second["from"], second["device"]) == ("2024-01-01T00:00:00.000000001+00:00", None)
    assert (second["lower_microjoules"], second["upper_microjoules"]) == ("-5", None)
    assert [(row["gap_host"], row["gap_reason"], row["from"], row["upper_microjoules"]) for row in listed] == [
        ("h", "reboot", first["from"], "360000000000"),
        ("h", "reset", second["from"], "unknown"),
    ]


def test_the_table_shows_the_longest_gaps() -> None:
    """Beyond a screen's worth the shortest are left to JSON and CSV, and the table says so."""
    store = ledger()
    for index in range(20):
        gap = GapRow(1, (NEW_YEAR + index * 900) * 10**9, (NEW_YEAR + index * 901) * 10**9, GapReason.RESET, 0, index)
        store.gap_rows.append(HostGapRow(f"host{index}", "hall", EPOCH, channel_info(), False, gap))
    out = io.StringIO()

    write_table(report_of(store), Console(file=out, width=150))

    assert [f"host{index} " in out.getvalue() for index in (8, 9, 19)] == [False, True, True]
    assert "list the other 9, too" in out.getvalue()


def test_csv_has_a_row_for_each_line_and_site() -> None:
    """Energy rows add up to the site's row, and recorded ones are marked."""
    out = io.StringIO()
    write_csv(report_of(ledger()), out)

    rows = list(csv.DictReader(io.StringIO(out.getvalue())))

    hall = [row for row in rows if row["site"] == "hall" and row["record"] == "energy"]
    (total,) = [row for row in rows if row["site"] == "hall" and row["record"] == "site"]
    assert sum(int(row["energy_microjoules"]) for row in hall) == int(total["energy_microjoules"])
    assert [row["recorded"] for row in hall] == ["false", "true", "false", "false"]
    assert {row["factor_vintage"] for row in hall} == {"2023", "2024"}
    assert total["upper_microjoules"] == "13860000000000"
    (dark,) = [row for row in rows if row["site"] == "dark" and row["record"] == "energy"]
    assert (dark["emissions_grams"], dark["uncovered_reason"]) == ("", "site dark has no zone")


def test_one_site_alone() -> None:
    """Rows, gaps and emissions of others are left out; an unknown site names the nearest."""
    (dark,) = report_of(ledger(), site="dark").sites
    assert (dark.site, dark.gaps.count) == ("dark", 0)

    with pytest.raises(ReportError, match=r"there is no site 'hal': did you mean 'hall'\?"):
        report_of(ledger(), site="hal")


def test_a_host_that_fell_silent_lowers_the_coverage() -> None:
    """From its last point to the period's end its channels count as missing; drained and recorded hosts do not."""
    point = ChannelPoint(bytes(16), 0, (END - 9_000) * NANOSECONDS_PER_SECOND, 1, 0, 0, 0, 1)
    store = ledger()
    store.assignment_rows = [AssignmentRow(name, 0, "dark", 0) for name in ("a", "b", "c", "d")]
    for name in ("a", "b", "c", "d"):
        state = HostState.DRAINED if name == "b" else HostState.ACTIVE
        store.host_rows.append(msgspec.structs.replace(make_host(name), state=state))
        utc = END * NANOSECONDS_PER_SECOND if name == "d" else point.utc_nanoseconds
        points = {1: msgspec.structs.replace(point, utc_nanoseconds=utc)}
        store.cursor_rows.append(msgspec.structs.replace(make_cursor(name, recorded=name == "c"), points=points))
        store.channel_rows[name, EPOCH] = {1: channel_info(1), 2: channel_info(2), 3: channel_info(3, closed=True)}

    report = report_of(store)

    dark = report.sites[0]
    assert [(host.host, host.missing_nanoseconds) for host in dark.silent] == [("a", 18_000 * NANOSECONDS_PER_SECOND)]
    assert dark.coverage == Fraction(900, 18_900)
    assert "1 active host reported nothing up to the period's end" in report.reasons
    out = io.StringIO()
    write_table(report, Console(file=out, width=150))
    assert "nothing since 2024-01-01T21:30:00+00:00: 5.000 h of channel time are missing.\n" in out.getvalue()


def test_a_host_that_was_silent_before_the_period_is_missing_in_all_of_it() -> None:
    """And not for longer: what lies before the period is another report's."""
    store = ledger()
    store.assignment_rows = [AssignmentRow("a", 0, "dark", 0)]
    store.host_rows.append(make_host("a"))
    points = {1: ChannelPoint(bytes(16), 0, (OLD_YEAR - 9_000) * NANOSECONDS_PER_SECOND, 1, 0, 0, 0, 1)}
    store.cursor_rows.append(msgspec.structs.replace(make_cursor("a"), points=points))
    store.channel_rows["a", EPOCH] = {1: channel_info(1)}

    (silent,) = report_of(store).sites[0].silent

    assert (silent.since_seconds, silent.missing_nanoseconds) == (OLD_YEAR, (END - OLD_YEAR) * NANOSECONDS_PER_SECOND)


def test_gaps_of_what_is_shown_and_not_booked_are_not_listed() -> None:
    """They leave nothing open in the sums."""
    store = ledger()
    (row,) = store.gap_rows
    shown = dataclasses.replace(channel_info(), role=Role.SHOWN)
    store.gap_rows.append(dataclasses.replace(row, channel=shown))

    assert report_of(store).sites[1].gap_rows == (row,)


def test_a_report_says_why_it_is_provisional() -> None:
    """A future end, a factor of an earlier year and an assumed zone are named, each once."""
    store = ledger()
    store.site_rows = [SiteRow("hall", 0, "US-CAMX", "1", True, 0)]

    reasons = report_of(store, now=END - 900).reasons

    assert reasons[0].startswith("the period is not closed")
    assert reasons[1] == "the period ends after this report was made, 2024-01-01T23:45:00+00:00"
    assert reasons[2] == "zone US-CAMX has no factor for all of the period yet: that of 2023 stands in"
    assert reasons[3] == "the zone US-CAMX is assumed from the system's time zone, not configured"


def test_an_empty_period_says_what_to_do() -> None:
    """Nothing booked is said in words, and no total of zero stands there."""
    out = io.StringIO()

    write_table(report_of(FakeStore()), Console(file=out, width=150))

    assert "Nothing is booked in this period" in out.getvalue()
    assert "kWh" not in out.getvalue()


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2024-01-01", UTC, "2024-01-01T00:00:00+00:00"),
        ("2024-01-01", BERLIN, "2023-12-31T23:00:00+00:00"),
        ("2024-07-01T06:15", BERLIN, "2024-07-01T04:15:00+00:00"),
        ("2024-07-01T06:15+05:30", BERLIN, "2024-07-01T00:45:00+00:00"),
        ("2024-10-27T02:30+01:00", BERLIN, "2024-10-27T01:30:00+00:00"),
    ],
)
def test_times_are_read_in_the_zone(text: str, zone: ZoneInfo, utc: str) -> None:
    """Dates begin at local midnight; a stated offset wins over the zone."""
    assert parse_instant(text, zone) == parse_instant(utc, UTC)


def test_a_day_of_changed_clocks_has_23_or_25_hours() -> None:
    """Local days are as long as they are."""
    york = parse_time_zone("America/New_York")

    assert parse_instant("2024-03-11", york) - parse_instant("2024-03-10", york) == 23 * 3600
    assert parse_instant("2024-11-04", york) - parse_instant("2024-11-03", york) == 25 * 3600


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("yesterday", "'yesterday' is no time: write an ISO date or datetime such as 2024-01-31 or 2024-01-31T06:15"),
        ("0001-01-01", "'0001-01-01' lies outside the years 1970 to 2200: correct the year"),
        ("2024-01-01T00:00:00.5", "'2024-01-01T00:00:00.5' has a fraction of a second"),
        ("2024-10-27T02:30", "'2024-10-27T02:30' is not one instant in Europe/Berlin, as its clocks change: write "),
        ("2024-03-31T02:30", "'2024-03-31T02:30' is not one instant in Europe/Berlin, as its clocks change: write "),
    ],
)
def test_each_wrong_time_is_one_sentence(text: str, sentence: str) -> None:
    """What can't be read as one instant is refused with the remedy."""
    with pytest.raises(ReportError) as caught:
        parse_instant(text, BERLIN)

    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("begin", "end", "sentence"),
    [
        (
            NEW_YEAR + 60,
            END,
            "--from 2024-01-01T01:01:00+01:00 lies within an interval of 900 s: "
            "use 2024-01-01T01:00:00+01:00 or 2024-01-01T01:15:00+01:00",
        ),
        (NEW_YEAR, NEW_YEAR + 899, "--to 2024-01-01T01:14:59+01:00 lies within an interval of 900 s"),
        (NEW_YEAR, NEW_YEAR, "the period from 2024-01-01T01:00:00+01:00 to 2024-01-01T01:00:00+01:00 is empty"),
    ],
)
def test_each_wrong_period_is_one_sentence(begin: int, end: int, sentence: str) -> None:
    """A period is whole intervals; the nearest instants that are possible are named in its own zone."""
    with pytest.raises(ReportError) as caught:
        make_period(begin, end, BERLIN, 900)

    assert str(caught.value).startswith(sentence)


def test_an_unknown_time_zone_is_refused() -> None:
    """Also one that would lead out of the zone folder."""
    for name in ("Europe/Berlim", "../etc/passwd", ""):
        with pytest.raises(ReportError, match="there is no time zone"):
            parse_time_zone(name)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        ("0.5", 0, "1"),
        ("2.5", 0, "3"),
        ("-2.5", 0, "-3"),
        ("0.0005", 3, "0.001"),
        ("-0.0004", 3, "0.000"),
        ("1234.5675", 3, "1234.568"),
    ],
)
def test_rounding_is_half_up_and_has_no_negative_zero(value: str, digits: int, text: str) -> None:
    """The one place where digits are lost loses them as people expect."""
    assert rounded(Fraction(value), digits) == text


def test_masses_choose_their_unit() -> None:
    """g below 1 kg, kg below 1 t."""
    assert [mass_text(Fraction(value)) for value in ("999.9", "1000", "2500000")] == ["999.900 g", "1.000 kg", "2.500 t"]
