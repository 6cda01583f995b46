"""Recorded power: exact watts, local times, gaps that stay gaps, and refusals that name line and column."""

import gzip
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Meter
from wattledger_agent.readings import Component, Method, Role, SourceUnavailableError, SpanReading
from wattledger_agent.recording import Format, RecordingError, Span, parse_recording
from wattledger_agent.sources.replay import ReplaySource
from wattledger_protos.v1 import telemetry_pb2 as pb

FIXTURES = Path(__file__).parents[1] / "fixtures" / "replay"
SPRING = FIXTURES / "gpu_server_2025_spring.tsv"
AUTUMN = FIXTURES / "gpu_server_2024_autumn.tsv"

HOUR = 3600 * 10**9
HOURLY = Format()
NEW_YORK = Format(time_zone="America/New_York")


def utc(text: str) -> int:
    """Return nanoseconds since 1970 of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def parse(*rows: str, form: Format = HOURLY, header: str = "timestamp,power_watts") -> tuple[Span, ...]:
    """Parse rows under a header."""
    return parse_recording("\n".join([header, *rows]), form, origin="r.csv").spans


def source(path: Path) -> ReplaySource:
    """Return the fixture's channel, its trailing lines left out."""
    return ReplaySource(
        path,
        power_column="powerave",
        time_zone="America/New_York",
        device="gpu/0",
        component=Component.GPU,
        power_bound_watts=300.0,
        skip_invalid_rows=True,
    )


def test_watts_are_exact_decimals() -> None:
    """72.99625 W are 72996250 microwatts for the whole span."""
    (span,) = parse("2025-10-31 08:00,72.99625")
    assert span == Span(utc("2025-10-31 08:00"), utc("2025-10-31 09:00"), 72_996_250, utc("2025-10-31 08:00"))


def test_a_mean_finer_than_a_microwatt_keeps_its_energy() -> None:
    """The rest of a microwatt becomes one microwatt more for that share of the span."""
    (span,) = parse("2025-10-31 08:00,0.00000125")
    assert (span.microwatts, span.finer_until_nanoseconds - span.from_nanoseconds) == (1, HOUR // 4)


def test_the_label_says_which_end_of_the_span_a_time_is() -> None:
    """With label `end` the span lies before the time."""
    (span,) = parse("2025-10-31 08:00,5", form=Format(label="end", span_seconds=900))
    assert (span.from_nanoseconds, span.to_nanoseconds) == (utc("2025-10-31 07:45"), utc("2025-10-31 08:00"))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("power_watts\ttimestamp", "5.5\t2025-10-31T08:00:00"),
        ("a;timestamp;power_watts", "x;2025-10-31 08:00;5.5"),
        ('timestamp,"power_watts",b', '"2025-10-31 08:00:00.000","5.5",'),
        ("timestamp,power_watts", "2025-10-31 10:00+02:00,5.5"),
        ("timestamp,power_watts", "2025-10-31T08:00Z,55e-1"),
    ],
)
def test_tables_in_use_are_read(header: str, row: str) -> None:
    """Comma, semicolon or tab, quoted or not, columns in any place, with or without an offset."""
    (span,) = parse(row, header=header)
    assert (span.from_nanoseconds, span.microwatts) == (utc("2025-10-31 08:00"), 5_500_000)


def test_either_order_of_time_gives_the_same_spans() -> None:
    """A file with the newest row first is the same recording."""
    rows = [f"2025-10-31 {hour:02}:00,{hour}" for hour in range(24)]
    assert parse(*reversed(rows)) == parse(*rows)
    assert [span.microwatts for span in parse(*rows)] == [hour * 10**6 for hour in range(24)]


@pytest.mark.parametrize("newest_first", [False, True])
def test_an_hour_that_comes_twice_is_the_first_unless_that_is_taken(newest_first: bool) -> None:
    """Clocks are put back: two rows of 01:00 are two hours, one is the first of them and leaves a gap."""
    once = ["2024-11-03 00:00,1", "2024-11-03 01:00,2", "2024-11-03 02:00,4"]
    twice = [*once[:2], "2024-11-03 01:00,3", once[2]]
    step = -1 if newest_first else 1
    first, both = parse(*once[::step], form=NEW_YORK), parse(*twice[::step], form=NEW_YORK)
    assert [span.from_nanoseconds - utc("2024-11-03 04:00") for span in first] == [0, HOUR, 3 * HOUR]
    assert [span.from_nanoseconds - utc("2024-11-03 04:00") for span in both] == [0, HOUR, 2 * HOUR, 3 * HOUR]


def test_quarter_hours_that_come_twice_follow_each_other() -> None:
    """The rule holds where several rows lie within the repeated hour."""
    times = [f"{hour:02}:{minute:02}" for hour in (0, 1, 1, 2) for minute in (0, 15, 30, 45)]
    form = Format(time_zone="America/New_York", span_seconds=900)
    spans = parse(*(f"2024-11-03 {time},1" for time in times), form=form)
    assert [span.from_nanoseconds for span in spans] == [utc("2024-11-03 04:00") + i * HOUR // 4 for i in range(16)]


def test_a_local_time_that_does_not_exist_is_refused() -> None:
    """Clocks are put forward: 02:00 is an error that names line and zone."""
    with pytest.raises(RecordingError, match=r"r\.csv, line 3: 2025-03-09 02:00:00 does not exist in America/New_York"):
        parse("2025-03-09 01:00,1", "2025-03-09 02:00,2", form=NEW_YORK)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["2025-10-31 08:00,1", "nonsense,1"], "r.csv, line 3: column timestamp has 'nonsense', no time"),
        (["0001-01-01 00:00,1"], "r.csv, line 2: column timestamp has '0001-01-01 00:00', no time"),
        (
            ["2025-10-31 08:00,NaN"],
            "r.csv, line 2: column power_watts has 'NaN', which is no power in watts in [0, 1000000000]",
        ),
        (["2025-10-31 08:00,-1"], "r.csv, line 2: column power_watts has '-1', which is no power"),
        (["2025-10-31 08:00,1e99"], "r.csv, line 2: column power_watts has '1e99', which is no power"),
        (["2025-10-31 08:00,7e999999999"], "r.csv, line 2: column power_watts has '7e999999999', which is no power"),
        (["", "", "(2 rows affected)"], "r.csv, line 4: '(2 rows affected)' has 1 of the header's 2 columns"),
        (["2025-10-31 08:00,1", "2025-10-31 08:30,1"], "r.csv, line 3: the 3600 s of 2025-10-31 08:30:00 overlap those of"),
        ([], "r.csv: there is no row with a time and a power"),
    ],
)
def test_a_malformed_row_is_one_sentence_with_line_and_column(rows: list[str], expected: str) -> None:
    """What, where, with which value."""
    with pytest.raises(RecordingError, match=re.escape(expected)):
        parse(*rows)


@pytest.mark.parametrize(
    ("form", "header", "expected"),
    [
        (
            Format(power_column="powerave"),
            "timestamp,power_ave",
            "no column powerave among 'timestamp', 'power_ave'; did you mean",
        ),
        (Format(), "timestamp,power_watts,power_watts", "there is more than one column power_watts"),
        (Format(time_zone="Europe/Berlim"), "timestamp,power_watts", "time_zone 'Europe/Berlim' is not in this system's"),
        (Format(time_zone="/etc/passwd"), "timestamp,power_watts", "time_zone '/etc/passwd' is not in this system's"),
        (Format(span_seconds=0), "timestamp,power_watts", "span_seconds is 0; use a number in [1, 86400]"),
    ],
)
def test_wrong_options_are_named(form: Format, header: str, expected: str) -> None:
    """An option that does not fit the table is named with its value."""
    with pytest.raises(RecordingError, match=re.escape(expected)):
        parse("2025-10-31 08:00,1", form=form, header=header)


def test_rows_that_cannot_be_read_are_left_out_only_on_request() -> None:
    """The real table's trailing lines are refused, and with skip_invalid_rows left out and told."""
    text = SPRING.read_text(encoding="utf-8-sig")
    form = Format(power_column="powerave", time_zone="America/New_York")
    with pytest.raises(RecordingError, match=r"line 7\d\d: '\(7\d\d rows affected\)' has 1 of the header's 3 columns"):
        parse_recording(text, form, origin="r.csv")
    form = Format(power_column="powerave", time_zone="America/New_York", skip_invalid_rows=True)
    recording = parse_recording(text, form, origin="r.csv")
    assert len(recording.skipped) == 2
    assert len(recording.spans) == text.count("cbsugpu05")


def test_an_empty_power_is_a_gap_and_not_a_zero() -> None:
    """A row without power has no span, and is counted."""
    recording = parse_recording("timestamp,power_watts\n2025-10-31 08:00,\n2025-10-31 09:00,0\n", Format(), origin="r")
    assert [span.from_nanoseconds for span in recording.spans] == [utc("2025-10-31 09:00")]
    assert recording.rows_without_power == 1


def test_the_channel_is_what_it_was_said_to_be() -> None:
    """Method integral, role leaf, and instants that are recorded UTC in one boot of the recording's own."""
    replay = source(SPRING)
    (spec,) = replay.open()
    assert (spec.key.device, spec.component, spec.method, spec.role) == ("gpu/0", Component.GPU, Method.INTEGRAL, Role.LEAF)
    opening = replay.opening()
    assert opening.boottime_nanoseconds == utc("2025-02-08 05:00")
    again = source(SPRING)
    again.open()
    assert again.opening() == opening
    assert opening == Instant(opening.boot_id, opening.realtime_nanoseconds, opening.boottime_nanoseconds, True, 0)
    assert all("line 7" in note for note in replay.notes())


def test_a_packed_recording_is_the_same(tmp_path: Path) -> None:
    """A gzip file is read as the table in it; one cut short is refused in one sentence."""
    packed = tmp_path / "r.csv.gz"
    packed.write_bytes(gzip.compress(SPRING.read_bytes()))
    plain, unpacked = source(SPRING), source(packed)
    assert plain.open()[0].key == unpacked.open()[0].key
    assert list(plain.rows()) == list(unpacked.rows())

    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(SourceUnavailableError, match=r"r\.csv\.gz is no whole gzip file"):
        source(packed).open()


def test_a_longer_recording_goes_on_where_the_shorter_one_ended(tmp_path: Path) -> None:
    """A device's recorded time is one: what a first file told of is not metered again from a longer one."""
    meter = Meter(state=None, integral_gap_seconds_max=0.0)
    path = tmp_path / "r.csv"
    column = (0, 0, 0)
    for hours in (2, 3):
        path.write_text("timestamp,power_watts\n" + "".join(f"2025-10-31 {hour:02}:00,100\n" for hour in range(hours)))
        replay = ReplaySource(path)
        meter.offer(replay.open(), replay.opening())
        for now, readings in replay.rows():
            assert meter.is_past(now) is (hours == 3 and now.boottime_nanoseconds <= utc("2025-10-31 02:00"))
            meter.observe(readings, now)
        cut = meter.cut(now)
        assert cut is not None
        (column,) = meter_columns(cut.payload)
    assert column == (3 * 100 * 3600 * 10**6, 0, 0)


def test_without_a_bound_the_highest_mean_makes_one(tmp_path: Path) -> None:
    """The bound is half as much again as the highest value, and a note says so."""
    path = tmp_path / "r.csv"
    path.write_text("timestamp,power_watts\n2025-10-31 08:00,40\n2025-10-31 09:00,60\n")
    replay = ReplaySource(path)
    (spec,) = replay.open()
    assert spec.power_bound_watts == pytest.approx(90.0, rel=1e-6)
    assert "bounded by 90 W" in replay.notes()[0]


def test_a_bound_below_the_recording_is_refused(tmp_path: Path) -> None:
    """A bound that a row goes beyond would turn that row into a gap; it is named with the row's power."""
    path = tmp_path / "r.csv"
    path.write_text("timestamp,power_watts\n2025-10-31 08:00,40\n2025-10-31 09:00,60\n")
    assert ReplaySource(path, power_bound_watts=60.0).open()
    with pytest.raises(SourceUnavailableError, match=r"the highest mean is 60 W, above power_bound_watts 59\.5"):
        ReplaySource(path, power_bound_watts=59.5).open()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "can't be read: No such file or directory"),
        (b"timestamp,power_watts\n\xff\n", "line 2: byte 22 is not UTF-8"),
        (b"", "there is no column timestamp among ''"),
        (b'timestamp,power_watts\n"' + b"x" * 200_000, "this is no table: field larger than field limit"),
    ],
)
def test_a_file_that_is_no_recording_is_one_sentence(tmp_path: Path, content: bytes | None, expected: str) -> None:
    """The path and the fault are named, and nothing but SourceUnavailableError is raised."""
    path = tmp_path / "r.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceUnavailableError, match=re.escape(expected)) as caught:
        ReplaySource(path).open()
    assert str(path) in str(caught.value)


def test_the_hour_that_comes_twice_but_was_recorded_once_leaves_a_gap() -> None:
    """The real autumn trace has 72 rows, one hour short of the three local days' 73."""
    replay = source(AUTUMN)
    replay.open()
    starts = [
        reading.from_nanoseconds for _, readings in replay.rows() for reading in readings if isinstance(reading, SpanReading)
    ]
    assert (starts[-1] - starts[0]) // HOUR == 72
    assert utc("2024-11-03 05:00") in starts
    assert utc("2024-11-03 06:00") not in starts


# In spring 31 days less the hour that does not exist are 743 hours, of which 730 were recorded; in autumn 72 of 73.
@pytest.mark.parametrize(("path", "missing_hours"), [(SPRING, 13), (AUTUMN, 1)])
def test_the_meter_books_the_trace_to_the_microjoule(path: Path, missing_hours: int) -> None:
    """What the meter books is the decimal sum of the file's watts x hours; each missing hour is a gap of bound x hour."""
    powers = [Decimal(line.split("\t")[2]) for line in path.read_text().splitlines() if line.startswith("cbsugpu05")]
    expected = int(sum(powers) * 3600 * 10**6)
    replay = source(path)
    specs = replay.open()
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(specs, replay.opening())
    last = replay.opening()
    for now, readings in replay.rows():
        meter.observe(readings, now)
        last = now
    cut = meter.cut(last)
    assert cut is not None
    (column,) = meter_columns(cut.payload)
    hours = (last.boottime_nanoseconds - replay.opening().boottime_nanoseconds) // HOUR
    missing = hours - len(powers)
    assert missing == missing_hours
    assert column == (expected, 0, missing * 300 * 3600 * 10**6)


def meter_columns(payload: bytes) -> list[tuple[int, int, int]]:
    """Return the last energy and the gap bounds of each channel; microjoules."""
    message = pb.Payload.FromString(payload)
    return [
        (
            column.first_energy_microjoules + sum(column.energy_delta_microjoules),
            column.gap_lower_microjoules,
            column.gap_upper_microjoules,
        )
        for column in message.columns
    ]


def test_rows_are_contiguous_within_a_span() -> None:
    """A span of a finer mean is two rows that join; time never goes back."""
    replay = source(SPRING)
    replay.open()
    before = 0
    parts = 0
    for now, readings in replay.rows():
        (reading,) = readings
        assert isinstance(reading, SpanReading)
        assert before <= reading.from_nanoseconds < now.boottime_nanoseconds
        parts += now.boottime_nanoseconds - reading.from_nanoseconds < HOUR
        before = now.boottime_nanoseconds
    assert parts > 0
