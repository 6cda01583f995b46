"""Series of meters: days of 23 and 25 hours, labels, lengths, holes and counters, on recorded series and made-up slips."""

import csv
import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.csv_table import TableError
from wattledger_collector.import_series import Form, Format, Label, Series, SpanLength, parse_series

FIXTURES = Path(__file__).parent.parent / "fixtures"
NEW_YORK = ZoneInfo("America/New_York")
HOUR = 3600
HEADER, *YEAR = gzip.decompress((FIXTURES / "replay/gpu_server_2024.csv.gz").read_bytes()).decode().splitlines()


def recorded(first: str, last: str) -> list[str]:
    """The GPU server's rows of some local days, last included."""
    return [row for row in YEAR if first <= row[:10] <= last]


FORMAT = Format(Form.AVERAGE_WATTS, "timestamp", "power_watts", NEW_YORK, Label.START)


def parse(rows: list[str], *, header: str = HEADER, **changes: Any) -> Series:
    """Read rows as hourly means in New York, by their start, unless the changes say otherwise."""
    return parse_series("\n".join([header, *rows, ""]), "m.csv", replace(FORMAT, **changes))


def instant(text: str) -> int:
    """Seconds of an ISO time; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def microwatt_hours(rows: list[str]) -> Fraction:
    """What hourly means in watts add up to, in microjoules, without the code under test."""
    return sum((Fraction(row.split(",")[1]) for row in rows), Fraction(0)) * 3600 * 1_000_000


def test_the_day_on_which_clocks_go_forward_has_23_hours() -> None:
    """2024-03-10 lacks the rows of 01:00 (not recorded) and 02:00 (which never was): one hour of UTC is a hole."""
    rows = recorded("2024-03-10", "2024-03-10")

    series = parse(rows)

    assert len(rows) == series.rows == 22
    assert series.to_seconds - series.from_seconds == 23 * HOUR
    assert series.holes == ((instant("2024-03-10T06:00"), instant("2024-03-10T07:00")),)
    assert series.energy_microjoules == int(microwatt_hours(rows))


def test_the_day_on_which_clocks_go_back_has_25_hours() -> None:
    """2024-11-03 has one row for the two hours called 01:00: it is the first, and the second is a hole."""
    rows = recorded("2024-11-03", "2024-11-03")

    series = parse(rows)

    assert len(rows) == series.rows == 24
    assert series.to_seconds - series.from_seconds == 25 * HOUR
    assert series.holes == ((instant("2024-11-03T06:00"), instant("2024-11-03T07:00")),)


def test_an_hour_that_comes_twice_is_told_apart_by_order() -> None:
    """With a row for each of the two hours called 01:00 nothing is missing, also where the newest row comes first."""
    rows = recorded("2024-11-03", "2024-11-03")
    rows.insert(2, "2024-11-03 01:00,50")

    series = parse(rows)

    assert (series.rows, series.holes) == (25, ())
    assert series.spans[2].from_seconds == instant("2024-11-03T06:00")
    assert series.spans[2].microjoules == 50 * HOUR * 1_000_000
    assert parse(rows[::-1]) == series


def test_a_leap_year_has_8784_hours() -> None:
    """The whole of 2024: 8,775 rows and 9 missing hours, and the energy of the rows to the microjoule."""
    series = parse(YEAR)

    assert (series.to_seconds - series.from_seconds) // HOUR == 8784
    assert (series.rows, sum(end - start for start, end in series.holes) // HOUR) == (8775, 9)
    assert series.energy_microjoules == int(microwatt_hours(YEAR)) == 2_199_013_156_500_000


def test_start_and_end_labels_tell_of_other_hours() -> None:
    """The same rows, stamped with the ends of their hours, are the same series."""
    rows = recorded("2024-11-02", "2024-11-04")
    ends = [f"{(datetime.fromisoformat(row[:16]).replace(tzinfo=NEW_YORK)).isoformat()}{row[16:]}" for row in rows]
    shifted = [datetime.fromtimestamp(instant(row.split(",")[0]) + HOUR, UTC).isoformat() + row[25:] for row in ends]

    assert parse(shifted, label=Label.END) == parse(rows)


@pytest.mark.parametrize("label", [Label.END, Label.START])
def test_a_wrong_label_is_caught_by_the_days_that_lack_rows(label: Label) -> None:
    """A file of whole days under one label lacks an hour of its first or last day under the other."""
    rows = recorded("2024-05-01", "2024-05-03")
    if label is Label.START:
        rows = [f"{datetime.fromtimestamp(instant(row[:16]) + HOUR, UTC).strftime('%Y-%m-%d %H:%M')},1" for row in rows]

    with pytest.raises(TableError, match=rf"with --label {label} .* first or last day lacks rows"):
        parse(rows, label=label)
    assert parse(rows, label=label, partial_days=True).rows == 72


def test_a_length_that_changes_in_mid_series_is_declared() -> None:
    """Hourly means up to noon and quarters of an hour after it are the same energy as quarters all day."""
    with (FIXTURES / "meters/fr_consumption_2023_09_21.csv").open() as file:
        quarters = [(row["time"], Decimal(row["megawatts"])) for row in csv.DictReader(file)][:96]
    hours = [(quarters[at][0], sum(value for _, value in quarters[at : at + 4]) / 4) for at in range(0, 40, 4)]
    columns: dict[str, Any] = {"time_column": "time", "value_column": "megawatts", "partial_days": True}
    changed = [f"{time},{value}" for time, value in [*hours, *quarters[40:]]]
    noon = SpanLength(instant("2023-09-21T12:00+02:00"), 900)

    with pytest.raises(TableError, match=r"line 2 .*overlap|rows are missing|begins rows that are 3600 s apart"):
        parse(changed, header="time,megawatts", **columns)
    mixed = parse(changed, header="time,megawatts", lengths=(SpanLength(0, 3600), noon), **columns)

    even = parse([f"{time},{value}" for time, value in quarters], header="time,megawatts", **columns)
    assert mixed.holes == even.holes == ()
    assert (mixed.from_seconds, mixed.to_seconds) == (even.from_seconds, even.to_seconds)
    assert mixed.energy_microjoules == even.energy_microjoules == sum(value for _, value in quarters) * 900 * 1_000_000


def test_an_empty_cell_is_a_hole_and_0_a_value() -> None:
    """What was not told is unknown; what was told as 0 is 0."""
    series = parse(["2024-05-01 00:00,1", "2024-05-01 01:00,", "2024-05-01 02:00,0"], partial_days=True)

    assert series.holes == ((instant("2024-05-01T05:00"), instant("2024-05-01T06:00")),)
    assert [span.microjoules for span in series.spans] == [3_600_000_000, 0]


def counter(values: list[str], **changes: Any) -> Series:
    """Hourly readings of a counter in kWh; an empty one is left out."""
    rows = [f"2024-05-01 {hour:02d}:00,{value}" for hour, value in enumerate(values)]
    return parse(rows, form=Form.CUMULATIVE_KWH, label=Label.INSTANT, **changes)


def test_a_counter_knows_the_energy_of_hours_that_nobody_read() -> None:
    """The difference over missing readings is exact and called bridged; there is no hole."""
    series = counter(["100.5", "101", "", "103", "103.25"])

    assert [(span.microjoules, span.is_bridged) for span in series.spans] == [
        (1_800_000_000_000, False),
        (7_200_000_000_000, True),
        (900_000_000_000, False),
    ]
    assert series.holes == ()


def test_a_counter_that_falls_is_refused_or_rolls_over_as_declared() -> None:
    """A reset and a rollover look alike: only what is declared is booked, and only if it is plausible."""
    with pytest.raises(TableError, match=r"m\.csv line 4 has power_watts 2, less than 999 in line 3: .*--rollover"):
        counter(["998", "999", "2"])
    assert counter(["998", "999", "2"], rollover_kwh=Decimal(1000)).energy_microjoules == 4 * 3_600_000_000_000
    with pytest.raises(TableError, match="more than half of its range"):
        counter(["300", "2"], rollover_kwh=Decimal(1000))
    with pytest.raises(TableError, match="not below --rollover 900"):
        counter(["998", "2"], rollover_kwh=Decimal(900))


def test_powers_at_instants_are_integrated_up_to_a_hole() -> None:
    """Between two neighbours holds their mean; where a row is missing, nothing is known."""
    series = parse([f"2024-05-01 00:{minute:02d},{minute}" for minute in (0, 1, 2, 5, 6)], label=Label.INSTANT)

    assert [span.microjoules for span in series.spans] == [30_000_000, 90_000_000, 330_000_000]
    assert [end - start for start, end in series.holes] == [180]


@given(st.lists(st.decimals(0, 1000, places=15), min_size=1, max_size=30))
def test_no_microjoule_is_lost_by_cutting(kwh: list[Decimal]) -> None:
    """The sum over the spans is the sum of the values, cut to whole microjoules once, however fine they are."""
    rows = [
        f"{datetime.fromtimestamp(10**9 + HOUR * number, UTC).isoformat()},{value:f}" for number, value in enumerate(kwh)
    ]
    lengths = (SpanLength(0, HOUR),)

    series = parse(rows, form=Form.INTERVAL_KWH, lengths=lengths, partial_days=True)

    assert series.energy_microjoules == int(sum(map(Fraction, kwh), Fraction(0)) * 3_600_000_000_000)


ONE, TWO = "2024-05-01 00:00,1", "2024-05-01 01:00,2"

SLIPS: list[tuple[str, Callable[[], object], str]] = [
    (
        "no column",
        lambda: parse([ONE], value_column="powerwatts"),
        "m.csv lacks the column 'powerwatts': did you mean 'power_w",
    ),
    ("a cell too few", lambda: parse([ONE, "2024-05-01 01:00"]), "m.csv line 3 has 1 cells where the header has 2"),
    ("no time", lambda: parse([ONE, ",2"]), "m.csv line 3 has no timestamp"),
    ("no such time", lambda: parse([ONE, "2024-05-32 00:00,2"]), "m.csv line 3 has timestamp '2024-05-32 00:00'"),
    ("a year of a slip", lambda: parse(["0024-05-01 00:00,2"]), "m.csv line 2 has timestamp '0024-05-01 00:00'"),
    ("half a second", lambda: parse(["2024-05-01T00:00:00.5,2"]), "line 2 has timestamp .* whole seconds"),
    ("no number", lambda: parse([ONE, "2024-05-01 01:00,1k"]), "m.csv line 3 has power_watts '1k'"),
    ("a comma", lambda: parse(["2024-05-01 00:00;1,5"], header="timestamp;power_watts"), "power_watts '1,5'"),
    ("below 0", lambda: parse([ONE, "2024-05-01 01:00,-1"]), "m.csv line 3 has power_watts -1"),
    ("not a number", lambda: parse([ONE, "2024-05-01 01:00,NaN"]), "m.csv line 3 has power_watts NaN"),
    ("too much", lambda: parse([ONE, "2024-05-01 01:00,1e20"]), "'1e20', which no meter tells"),
    ("never was", lambda: parse(["2024-03-10 02:30,1"]), "line 2 .*02:30:00, which never was in America/New_York"),
    ("a row twice", lambda: parse([ONE, TWO, TWO]), "m.csv line 4 .* not later than 2024-05-01 01:00 in line 3"),
    ("out of order", lambda: parse([ONE, TWO, ONE, "2024-05-01 05:00,1"]), "m.csv line 4 .* put the rows in order"),
    ("one row", lambda: parse([ONE]), "too few rows to tell how long one is"),
    ("no row", lambda: parse([]), "m.csv has"),
    ("odd step", lambda: parse([ONE, TWO, "2024-05-01 02:30,1"]), "line 4 comes 5400 s after .* no multiple of 3600 s"),
    ("rows too long", lambda: parse([ONE, TWO], lengths=(SpanLength(0, 7200),)), "m.csv line 3 .* whose 7200 s overlap"),
    ("no values", lambda: parse(["2024-05-01 00:00,", "2024-05-01 01:00,"], partial_days=True), "no span of time with a"),
    ("a counter's label", lambda: parse([ONE], form=Form.CUMULATIVE_KWH), "readings of a counter are of an instant"),
    ("an interval's label", lambda: parse([ONE], form=Form.INTERVAL_KWH, label=Label.INSTANT), "use --label start or end"),
    ("no counter", lambda: parse([ONE], rollover_kwh=Decimal(1)), "only a counter rolls over"),
    ("one reading", lambda: parse([ONE], label=Label.INSTANT), "fewer than two values"),
    ("a year unread", lambda: counter_over_two_years(), "line 3 is read more than a year after line 2"),
]


def counter_over_two_years() -> Series:
    """Two readings that are too far apart."""
    rows = ["2022-05-01 00:00,1", "2024-05-01 00:00,2"]
    return parse(rows, form=Form.CUMULATIVE_KWH, label=Label.INSTANT)


@pytest.mark.parametrize(("slip", "message"), [each[1:] for each in SLIPS], ids=[each[0] for each in SLIPS])
def test_each_slip_is_one_sentence_with_its_place(slip: Callable[[], object], message: str) -> None:
    """File, line, column and value are named, and what to write instead."""
    with pytest.raises(TableError, match=message) as caught:
        slip()
    assert "\n" not in str(caught.value)
