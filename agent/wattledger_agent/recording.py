"""Parses recorded power: rows of a time and a mean power become exact spans on UTC.

Opens no file and reads no clock (time zones are looked up in the system's table). The format is in sources/replay.py.
Source of truth for local times: PEP 495; for time zones: the IANA table.
"""

import csv
import difflib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from wattledger_agent.readings import NANOSECONDS_PER_SECOND

MICROWATTS_PER_WATT = 1_000_000

# More than the largest data hall; it keeps typing errors, and powers of ten, out of the sums.
POWER_WATTS_MAX = 1_000_000_000

SPAN_SECONDS_MAX = 86_400

# A year outside is a typing error; nanoseconds since 1970 stay within 63 bits.
YEAR_MIN, YEAR_MAX = 1970, 2199

# So many skipped rows are told one by one; of the others only the number.
SKIPPED_TOLD_MAX = 3

_DECIMAL = re.compile(r"[+-]?(\d{1,12}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordingError(Exception):
    """The recording can't be used; the text says where, with which value, and what to do."""


@dataclass(frozen=True, slots=True)
class Format:
    """How to read a recording.

    time_column, power_column: their names in the header. time_zone: IANA name for times without an offset.
    label: whether a row's time is the start or the end of its span. span_seconds: its length; in [1, SPAN_SECONDS_MAX].
    skip_invalid_rows: leave out rows that can't be read, instead of refusing the recording.
    """

    time_column: str = "timestamp"
    power_column: str = "power_watts"
    time_zone: str = "UTC"
    label: Literal["start", "end"] = "start"
    span_seconds: int = 3600
    skip_invalid_rows: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A recorded mean power and when it held; nanoseconds since 1970-01-01 UTC.

    The power is `microwatts` + 1 up to `finer_until_nanoseconds`, and `microwatts` from there on: so that a mean finer than
    a microwatt keeps its energy to the microjoule, in whole microwatts.
    """

    from_nanoseconds: int
    to_nanoseconds: int
    microwatts: int
    finer_until_nanoseconds: int


@dataclass(frozen=True, slots=True)
class Recording:
    """Spans in the order of time, none overlapping; the rows left out; and how many rows had no power, which are gaps."""

    spans: tuple[Span, ...]
    skipped: tuple[str, ...]
    rows_without_power: int


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    time: datetime
    power: Decimal | None


def parse_recording(text: str, form: Format, *, origin: str) -> Recording:
    """Parse the text of a recording; `origin` names it in errors. Raises RecordingError."""
    if not 1 <= form.span_seconds <= SPAN_SECONDS_MAX:
        raise RecordingError(f"{origin}: span_seconds is {form.span_seconds}; use a number in [1, {SPAN_SECONDS_MAX}].")
    zone = _find_zone(form.time_zone, origin)
    faults = _Faults(origin, skips=form.skip_invalid_rows)
    rows = list(_read_rows(text, form, faults))
    spans = list(_place(rows, zone, form, faults))
    if not spans:
        raise RecordingError(f"{origin}: there is no row with a time and a power; the recording must have at least one.")
    return Recording(tuple(spans), tuple(faults.skipped), sum(row.power is None for row in rows))


class _Faults:
    """Refuses the recording at the first fault, or collects the faults of skipped rows."""

    def __init__(self, origin: str, *, skips: bool) -> None:
        self.origin = origin
        self.skipped: list[str] = []
        self._skips = skips

    def add(self, line: int, what: str) -> None:
        message = f"{self.origin}, line {line}: {what}"
        if not self._skips:
            raise RecordingError(f"{message} Correct the line, or set skip_invalid_rows to leave such rows out.")
        self.skipped.append(message)


def _read_rows(text: str, form: Format, faults: _Faults) -> Iterator[_Row]:
    """Yield the rows in the file's order."""
    header_line = text.partition("\n")[0]
    delimiter = next((mark for mark in "\t;" if mark in header_line), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [""])]
        time_index = _find_column(header, form.time_column, faults.origin)
        power_index = _find_column(header, form.power_column, faults.origin)
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            row = _read_row(line, cells, header, (time_index, power_index), faults)
            if row is not None:
                yield row
    except csv.Error as error:
        raise RecordingError(f"{faults.origin}, line {line + 1}: this is no table: {error}.") from error


def _read_row(line: int, cells: list[str], header: list[str], places: tuple[int, int], faults: _Faults) -> _Row | None:
    """Return a row, or None for one that was skipped."""
    if len(cells) <= max(places):
        faults.add(line, f"{_short(cells[0])} has {len(cells)} of the header's {len(header)} columns.")
        return None
    time_text, power_text = (cells[place].strip() for place in places)
    time_name, power_name = (header[place] for place in places)
    try:
        time: datetime | None = datetime.fromisoformat(time_text)
    except ValueError:
        time = None
    if time is None or not YEAR_MIN <= time.year <= YEAR_MAX:
        faults.add(
            line,
            f"column {time_name} has {_short(time_text)}, no time like 2025-03-09 14:00 of {YEAR_MIN} to {YEAR_MAX}.",
        )
        return None
    if not power_text:
        return _Row(line, time, None)
    power = Decimal(power_text) if _DECIMAL.fullmatch(power_text) else None
    if power is None or not 0 <= power <= POWER_WATTS_MAX:
        faults.add(
            line, f"column {power_name} has {_short(power_text)}, which is no power in watts in [0, {POWER_WATTS_MAX}]."
        )
        return None
    return _Row(line, time, power)


def _place(rows: list[_Row], zone: tzinfo, form: Format, faults: _Faults) -> Iterator[Span]:
    """Yield the rows' spans on UTC; a descending file is read from its end."""
    if rows and _to_utc(rows[0].time, zone, 0) > _to_utc(rows[-1].time, zone, 0):
        rows = rows[::-1]
    length = timedelta(seconds=form.span_seconds)
    before: _Row | None = None
    end = datetime.min.replace(tzinfo=UTC)
    for row in rows:
        at = _to_utc(row.time, zone, 0)
        if row.time.tzinfo is None and at.astimezone(zone).replace(tzinfo=None) != row.time:
            faults.add(row.line, f"{row.time} does not exist in {form.time_zone}: clocks were put forward over it.")
            continue
        start = at if form.label == "start" else at - length
        if start < end and row.time.tzinfo is None:
            # Clocks were put back: the local hour comes twice, and this row is not the first to claim it.
            again = _to_utc(row.time, zone, 1)
            start = again if form.label == "start" else again - length
        if start < end and before is not None:
            faults.add(
                row.line,
                f"the {form.span_seconds} s of {row.time} overlap those of {before.time} in line {before.line}; "
                "span_seconds may be too long, or the rows not in order.",
            )
            continue
        if start < _EPOCH:
            faults.add(row.line, f"{row.time} is before 1970.")
            continue
        before, end = row, start + length
        if row.power is not None:
            yield _span(_nanoseconds(start), form.span_seconds * NANOSECONDS_PER_SECOND, row.power)


def _span(start: int, length: int, watts: Decimal) -> Span:
    """Return the span of a row; nanoseconds."""
    numerator, denominator = watts.as_integer_ratio()
    microwatts, rest = divmod(numerator * MICROWATTS_PER_WATT, denominator)
    # The rest, a share of a microwatt, is a whole microwatt for that share of the span; the error is below 1e-9 microjoules.
    finer = (2 * rest * length + denominator) // (2 * denominator)
    return Span(start, start + length, microwatts, start + finer)


def _to_utc(time: datetime, zone: tzinfo, fold: int) -> datetime:
    if time.tzinfo is not None:
        return time.astimezone(UTC)
    return time.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def _find_zone(name: str, origin: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # A ZoneInfoNotFoundError is a KeyError.
        raise RecordingError(
            f"{origin}: time_zone {name!r} is not in this system's time zone table; use a name like America/New_York, "
            "or install the package tzdata."
        ) from error


def _find_column(header: list[str], name: str, origin: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise RecordingError(f"{origin}, line 1: there is more than one column {name}; name each column once.")
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise RecordingError(f"{origin}, line 1: there is no column {name} among {', '.join(map(_short, header[:12]))}{hint}")


def _short(text: str) -> str:
    """Return a cell as it may stand in a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
