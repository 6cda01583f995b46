"""A meter's exported series becomes exact spans of energy on UTC, and the holes between them.

Text in, values out: no file, no clock, no ledger (time zones are looked up in the system's table). What a span is booked as
is said in `imports.py`. Sources of truth: PEP 495 for local times that come twice, the IANA table for time zones.

Three forms. `cumulative_kwh`: readings of a counter; the energy between two is their difference. `interval_kwh` and
`average_watts`: each row is of a span of time, whose beginning or end its time is (`label`); `average_watts` may also be
powers at instants, of which two neighbours' mean holds between them. Nothing is guessed that would change a figure: lengths
of spans follow from the rows only where all rows agree, and a label that would cut off a part of the first day is refused.
A counter's readings are cut to whole microjoules, and their differences telescope; what rows say is summed as fractions and
cut once, so that a remainder goes to the later span. Cutting a series into files makes no difference: energies of up to 11
decimals of a kWh, and powers of up to 6 of a watt, are whole microjoules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from zoneinfo import ZoneInfo

from wattledger_collector.csv_table import Row, TableError, read_table
from wattledger_collector.records import MICROJOULES_PER_JOULE, MICROJOULES_PER_KWH

# Two years of minutes; a longer series is imported in parts.
ROWS_MAX = 1_100_000

# More than all of the world's electricity in a year, in kWh: what lies above is a slip, as are more digits than these.
VALUE_MAX = Decimal(10) ** 14
FRACTION_DIGITS_MAX = 30

# A year outside is a slip of the keyboard.
YEAR_MIN, YEAR_MAX = 1970, 2199

# A counter that nobody read for more than a year tells nothing about when its energy was used.
SPAN_SECONDS_MAX = 366 * 86_400


class Form(StrEnum):
    """What the values of a series are."""

    CUMULATIVE_KWH = "cumulative_kwh"
    INTERVAL_KWH = "interval_kwh"
    AVERAGE_WATTS = "average_watts"


class Label(StrEnum):
    """What a row's time is of its span: its start, its end, or an instant between two spans."""

    START = "start"
    END = "end"
    INSTANT = "instant"


@dataclass(frozen=True, slots=True)
class SpanLength:
    """How long rows are, from an instant on; seconds."""

    from_seconds: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Format:
    """How to read a series.

    time_zone: of times without an offset. lengths: of spans, by the instant from which each holds; empty: all rows alike, as
    they lie. With instants the one length is the longest time between two rows that leaves no hole.
    rollover_kwh: where a counter begins at 0 again. partial_days: the file may begin and end within a day.
    """

    form: Form
    time_column: str
    value_column: str
    time_zone: ZoneInfo
    label: Label
    lengths: tuple[SpanLength, ...] = ()
    rollover_kwh: Decimal | None = None
    partial_days: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Energy of a half-open span of UTC; seconds. is_bridged: readings are missing in it, and the energy is exact."""

    from_seconds: int
    to_seconds: int
    microjoules: int
    is_bridged: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A whole series: spans and holes in the order of time, none overlapping; rows: those with a value."""

    spans: tuple[Span, ...]
    holes: tuple[tuple[int, int], ...]
    rows: int

    @property
    def from_seconds(self) -> int:
        """Beginning of the first span or hole."""
        return min(self.spans[0].from_seconds, *(start for start, _ in self.holes[:1]), self.spans[0].from_seconds)

    @property
    def to_seconds(self) -> int:
        """End of the last span or hole."""
        return max(self.spans[-1].to_seconds, *(end for _, end in self.holes[-1:]), self.spans[-1].to_seconds)

    @property
    def energy_microjoules(self) -> int:
        """All of it."""
        return sum(span.microjoules for span in self.spans)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A row on UTC; value None: its cell is empty."""

    seconds: int
    value: Decimal | None
    row: Row

    def shown(self, zone: ZoneInfo) -> str:
        return datetime.fromtimestamp(self.seconds, zone).isoformat()


def parse_series(text: str, where: str, form: Format) -> Series:
    """Read a file's text. where: its name, for messages. Raises TableError at the first thing that is wrong."""
    _check_format(form, where)
    readings = list(_readings(text, where, form))
    if form.label is Label.INSTANT:
        series = _between_instants(readings, where, form)
    else:
        series = _labelled(readings, where, form)
    if not series.spans:
        raise TableError(f"{where} has no span of time with a value: a series needs one at least")
    return series


def _check_format(form: Format, where: str) -> None:
    if form.form is Form.CUMULATIVE_KWH and form.label is not Label.INSTANT:
        raise TableError(f"{where}: readings of a counter are of an instant and not of a span: use --label instant")
    if form.form is Form.INTERVAL_KWH and form.label is Label.INSTANT:
        raise TableError(
            f"{where}: energy of an interval has no instant: use --label start or end, as the meter's maker says"
        )
    if form.rollover_kwh is not None and form.form is not Form.CUMULATIVE_KWH:
        raise TableError(f"{where}: only a counter rolls over: leave out --rollover, or use --form cumulative_kwh")


def _readings(text: str, where: str, form: Format) -> Iterator[_Reading]:
    """The rows in order of time; a file whose newest row comes first is read from its end."""
    delimiter = next((mark for mark in "\t;" if mark in text.partition("\n")[0]), ",")
    columns = (form.time_column, form.value_column)
    rows = list(read_table(text, where, columns, ROWS_MAX, others=True, delimiter=delimiter))
    moments = [_moment(row, form.time_column) for row in rows]
    if len(rows) > 1 and _utc(moments[0], form.time_zone, 0) > _utc(moments[-1], form.time_zone, 0):
        rows.reverse()
        moments.reverse()
    before: _Reading | None = None
    for row, moment in zip(rows, moments, strict=True):
        seconds = _place(row, moment, before, form)
        before = _Reading(seconds, _value(row, form.value_column), row)
        yield before


def _moment(row: Row, column: str) -> datetime:
    text = row.text(column)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.microsecond or not YEAR_MIN < moment.year < YEAR_MAX:
        raise TableError(
            f"{row.place} has {column} {text!r}: write a time in whole seconds, such as 2025-03-09 14:00, "
            f"of {YEAR_MIN + 1} to {YEAR_MAX - 1}"
        )
    return moment


def _value(row: Row, column: str) -> Decimal | None:
    if not row.cells[column]:
        return None
    value = row.decimal(column)
    exponent = value.as_tuple().exponent
    if value > VALUE_MAX or not isinstance(exponent, int) or exponent < -FRACTION_DIGITS_MAX:
        raise TableError(f"{row.place} has {column} {row.cells[column]!r}, which no meter tells: check its unit and digits")
    return value


def _utc(moment: datetime, zone: ZoneInfo, fold: int) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone, fold=fold)
    return int(moment.timestamp())


def _place(row: Row, moment: datetime, before: _Reading | None, form: Format) -> int:
    """The row's instant; of a local time that comes twice, the second where the first is taken already."""
    zone = form.time_zone
    seconds = _utc(moment, zone, 0)
    if moment.tzinfo is None and datetime.fromtimestamp(seconds, zone).replace(tzinfo=None, fold=0) != moment:
        raise TableError(
            f"{row.place} has {form.time_column} {moment.isoformat(' ')}, which never was in {zone.key}: clocks were put "
            "forward over it; check --time-zone"
        )
    if before is not None and seconds <= before.seconds:
        again = _utc(moment, zone, 1)
        if again <= before.seconds:
            raise TableError(
                f"{row.place} has {form.time_column} {row.cells[form.time_column]}, not later than "
                f"{before.row.cells[form.time_column]} in line {before.row.line}: put the rows in order of time, each once"
            )
        seconds = again
    return seconds


def _labelled(readings: Sequence[_Reading], where: str, form: Format) -> Series:
    """Rows that are of a span each."""
    lengths = form.lengths or (SpanLength(0, _even_length(readings, where)),)
    spans: list[Span] = []
    holes: list[tuple[int, int]] = []
    sums = _Sums()
    before: _Reading | None = None
    end = begin = 0
    for reading in readings:
        start, stop = _span_of(reading, form.label, lengths)
        if before is None:
            begin = start
        elif start < end:
            raise TableError(
                f"{reading.row.place} has {form.time_column} {reading.row.cells[form.time_column]}, whose {stop - start} s "
                f"overlap those of line {before.row.line}: state how long rows are with --span-seconds"
            )
        elif start > end:
            _add_hole(holes, end, start)
        if reading.value is None:
            _add_hole(holes, start, stop)
        else:
            per_unit = MICROJOULES_PER_JOULE * (stop - start) if form.form is Form.AVERAGE_WATTS else MICROJOULES_PER_KWH
            spans.append(Span(start, stop, sums.add(Fraction(reading.value) * per_unit)))
        before, end = reading, stop
    if before is not None and not form.partial_days:
        _check_label(begin, end, where, form, lengths)
    return Series(tuple(spans), tuple(holes), len(spans))


class _Sums:
    """Cuts a running sum to whole microjoules: what a part lacks, a later one has."""

    def __init__(self) -> None:
        self._exact = Fraction(0)
        self._told = 0

    def add(self, microjoules: Fraction) -> int:
        self._exact += microjoules
        part = int(self._exact) - self._told
        self._told += part
        return part


def _add_hole(holes: list[tuple[int, int]], start: int, stop: int) -> None:
    if holes and holes[-1][1] == start:
        start = holes.pop()[0]
    holes.append((start, stop))


def _span_of(reading: _Reading, label: Label, lengths: Sequence[SpanLength]) -> tuple[int, int]:
    if label is Label.START:
        length = _length_at(lengths, reading.seconds)
        return reading.seconds, reading.seconds + length
    # The length is that of the time before, which the row is of.
    length = _length_at(lengths, reading.seconds - 1)
    return reading.seconds - length, reading.seconds


def _length_at(lengths: Sequence[SpanLength], seconds: int) -> int:
    held = [length for length in lengths if length.from_seconds <= seconds]
    return (held[-1] if held else lengths[0]).seconds


def _even_length(readings: Sequence[_Reading], where: str) -> int:
    """How long each row is, where all are alike: the least distance; others are multiples of it, where rows are missing."""
    steps = [(after.seconds - before.seconds, after) for before, after in pairwise(readings)]
    if not steps:
        raise TableError(f"{where} has too few rows to tell how long one is: state it with --span-seconds")
    length = min(step for step, _ in steps)
    for (step, after), (following, _) in pairwise([*steps, (0, steps[-1][1])]):
        if step % length:
            raise TableError(
                f"{after.row.place} comes {step} s after the row before, which is no multiple of {length} s as elsewhere: "
                "state how long rows are with --span-seconds"
            )
        if step == following != length:
            raise TableError(
                f"{after.row.place} begins rows that are {step} s apart, and others {length} s apart: rows are missing, "
                f"or are longer from there on; state which with --span-seconds {length}, or also --span-seconds {step}@TIME"
            )
    return length


def _check_label(begin: int, end: int, where: str, form: Format, lengths: Sequence[SpanLength]) -> None:
    """Refuse a label by which days lose rows, where the other one makes all days whole."""
    zone = form.time_zone
    if form.label is Label.START:
        other, shift_first, shift_last = Label.END, _length_at(lengths, begin), _length_at(lengths, end - 1)
        begin_other, end_other = begin - shift_first, end - shift_last
    else:
        other, shift_first, shift_last = Label.START, _length_at(lengths, begin), _length_at(lengths, end - 1)
        begin_other, end_other = begin + shift_first, end + shift_last
    is_whole = _is_midnight(begin, zone) and _is_midnight(end, zone)
    if is_whole or not (_is_midnight(begin_other, zone) and _is_midnight(end_other, zone)):
        return
    raise TableError(
        f"{where}: with --label {form.label} its rows are of {_local(begin, zone)} to {_local(end, zone)}, so that the "
        f"first or last day lacks rows; with --label {other} all its days are whole: correct it, or say --partial-days"
    )


def _is_midnight(seconds: int, zone: ZoneInfo) -> bool:
    moment = datetime.fromtimestamp(seconds, zone)
    return (moment.hour, moment.minute, moment.second) == (0, 0, 0)


def _local(seconds: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(seconds, zone).isoformat(timespec="minutes")


def _between_instants(readings: Sequence[_Reading], where: str, form: Format) -> Series:
    """Values at instants: the energy between two neighbours."""
    told = [reading for reading in readings if reading.value is not None]
    if len(told) < 2:
        raise TableError(f"{where} has fewer than two values: energy lies between two of them")
    steps = [after.seconds - before.seconds for before, after in pairwise(told)]
    # Readings come at about even times; at twice the usual distance one is missing.
    longest = form.lengths[0].seconds if form.lengths else 2 * median_low(steps) - 1
    spans: list[Span] = []
    holes: list[tuple[int, int]] = []
    sums = _Sums()
    for before, after in pairwise(told):
        is_hole = after.seconds - before.seconds > longest
        if form.form is Form.CUMULATIVE_KWH:
            if after.seconds - before.seconds > SPAN_SECONDS_MAX:
                raise TableError(
                    f"{after.row.place} is read more than a year after line {before.row.line}: import the parts one by one"
                )
            energy = _counted(before, after, form)
            spans.append(Span(before.seconds, after.seconds, energy, is_bridged=is_hole))
        elif is_hole:
            _add_hole(holes, before.seconds, after.seconds)
        else:
            watts = (Fraction(before.value or 0) + Fraction(after.value or 0)) / 2
            energy = sums.add(watts * MICROJOULES_PER_JOULE * (after.seconds - before.seconds))
            spans.append(Span(before.seconds, after.seconds, energy))
    return Series(tuple(spans), tuple(holes), len(told))


def _counted(before: _Reading, after: _Reading, form: Format) -> int:
    """Microjoules between two readings of a counter, each cut to whole ones."""
    first, second = Fraction(before.value or 0), Fraction(after.value or 0)
    counted = int(second * MICROJOULES_PER_KWH) - int(first * MICROJOULES_PER_KWH)
    if second >= first:
        return counted
    column, place = form.value_column, after.row.place
    told = f"{place} has {column} {after.value}, less than {before.value} in line {before.row.line}"
    if form.rollover_kwh is None:
        raise TableError(
            f"{told}: the counter was reset or rolled over; split the file there, or declare with --rollover KWH where it "
            "begins at 0 again"
        )
    rollover = Fraction(form.rollover_kwh)
    if first >= rollover:
        raise TableError(
            f"{told}, and that is not below --rollover {form.rollover_kwh}: check where the counter begins again"
        )
    if 2 * (rollover - first + second) >= rollover:
        raise TableError(
            f"{told}: by --rollover {form.rollover_kwh} more than half of its range was counted between the two, "
            "so that it was rather reset; split the file there"
        )
    return counted + int(rollover * MICROJOULES_PER_KWH)


def utc_text(seconds: int) -> str:
    """An instant as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
