"""What is looked for in series of factors: hours that are missing, values given twice, labels that are shifted, and slips of
the unit. Whether a document has a value that somebody claims of it is asked in `factor_claims.py`.

No files, no database; each finding is a sentence. Source of truth: a year has 8,760 hours, a leap year 8,784, in UTC.
"""

import calendar
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from statistics import correlation

from wattledger_collector.factor_units import TRACE_GASES
from wattledger_collector.factors import Factor, FactorKind, text_of_instant

_HOUR = 3_600

# Runs of missing hours that are told one by one; a series with more has another interval, or is not whole at all.
MISSING_RUNS_MAX = 20

# No grid emits so little in a whole year but none at all: below it kg/kWh were called g/kWh.
YEARLY_GRAMS_MIN = Decimal(2)

# The cleanest region of eGRID has 1e-2 g/kWh; a thousandth of it is lb/MWh that was called lb/GWh.
TRACE_GRAMS_MIN = Decimal("1e-4")

# How far labels are looked for, and how much better another place has to fit before it is told.
_LAG_HOURS_MAX = 3
_LAG_GAIN_MIN = 0.005
# Two days: fewer hours agree by chance.
_LAG_HOURS_NEEDED = 48

SeriesKey = tuple[str, str, FactorKind]


@dataclass(frozen=True, slots=True)
class HourCount:
    """How many hours of a year a series covers, and the spans [from, to) in which it has nothing."""

    zone: str
    source: str
    year: int
    covered_seconds: int
    whole_seconds: int
    missing: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """`DE entsoe 2024: 8784 of 8784 hours`."""
        return f"{self.zone} {self.source} {self.year}: {_hours(self.covered_seconds)} of {_hours(self.whole_seconds)} hours"


def newest(factors: Iterable[Factor]) -> list[Factor]:
    """Of each row (zone, type, source, span) the one recorded last."""
    found: dict[tuple[object, ...], Factor] = {}
    for factor in sorted(factors, key=lambda factor: factor.recorded_at_seconds):
        key = (factor.zone, factor.kind, factor.source, factor.valid_from_seconds, factor.valid_to_seconds)
        found[key] = factor
    return list(found.values())


def count_hours(factors: Iterable[Factor], year: int | None = None) -> list[HourCount]:
    """Count the hours of each series of hours. year: the whole of it; None: every year, as far as the series reaches."""
    counts = []
    for (zone, source, _), series in _series(factor for factor in factors if not factor.is_long).items():
        begin, end = series[0].valid_from_seconds, max(factor.valid_to_seconds for factor in series)
        first = datetime.fromtimestamp(begin, UTC).year if year is None else year
        last = datetime.fromtimestamp(end - 1, UTC).year if year is None else year
        for each in range(first, last + 1):
            begin_of_year, end_of_year = _year_span(each)
            span = (begin_of_year, end_of_year) if year is not None else (max(begin_of_year, begin), min(end_of_year, end))
            missing = _holes(series, *span)
            whole = span[1] - span[0]
            covered = whole - sum(until - since for since, until in missing)
            counts.append(HourCount(zone, source, each, covered, whole, tuple(missing)))
    return counts


def check_factors(factors: Sequence[Factor], year: int | None = None) -> list[str]:
    """All findings in some factors, of which only the newest of each row count."""
    rows = newest(factors)
    findings = []
    for count in count_hours(rows, year):
        findings += _missing(count)
    for key, series in _series(rows).items():
        findings += _doubled(key, series)
        findings += _shifted_labels(key, series)
        findings += check_units(series)
    return findings


def check_units(series: Iterable[Factor]) -> list[str]:
    """Values of one series that look like another unit; 0 is a value like others."""
    small = [factor for factor in series if factor.value and _is_small(factor)]
    if not small:
        return []
    first = small[0]
    unit = "lb/MWh called lb/GWh" if first.kind.gas in TRACE_GASES else "kg/kWh called g/kWh"
    return [
        f"{first.zone} {first.source} from {first.valid_from}: {first.value:f} g/kWh of {first.kind.gas} is less than any "
        f"grid has in a year; is it {unit}?"
    ]


def _is_small(factor: Factor) -> bool:
    if factor.kind.gas in TRACE_GASES:
        return factor.value < TRACE_GRAMS_MIN
    return factor.is_long and factor.value < YEARLY_GRAMS_MIN


def _missing(count: HourCount) -> list[str]:
    runs = [f"{text_of_instant(since)} ({_hours(until - since)} h)" for since, until in count.missing]
    if not runs:
        return []
    more = f" and {len(runs) - MISSING_RUNS_MAX} more" if len(runs) > MISSING_RUNS_MAX else ""
    return [f"{count.text}, missing from {', '.join(runs[:MISSING_RUNS_MAX])}{more}"]


def _doubled(key: SeriesKey, series: Sequence[Factor]) -> list[str]:
    twice = [other for one, other in pairwise(series) if other.valid_from_seconds < one.valid_to_seconds]
    if not twice:
        return []
    return [
        f"{key[0]} {key[1]} has two values for {text_of_instant(twice[0].valid_from_seconds)}"
        + (f", and {len(twice) - 1} times more" if len(twice) > 1 else "")
        + ": an hour that local time has twice, or a change of resolution"
    ]


def _shifted_labels(key: SeriesKey, series: Sequence[Factor]) -> list[str]:
    odd = [
        factor
        for factor in series
        if not factor.is_long and factor.valid_from_seconds % (factor.valid_to_seconds - factor.valid_from_seconds)
    ]
    if not odd:
        return []
    return [
        f"{key[0]} {key[1]} has {len(odd)} spans that begin beside the clock, the first at "
        f"{text_of_instant(odd[0].valid_from_seconds)}: the middle or a time of local midnight may have been taken for it"
    ]


def compare_labels(one: Sequence[Factor], other: Sequence[Factor]) -> str | None:
    """A finding if a series fits a second one of the same zone better when it is moved by whole hours; None if it fits."""
    ours, theirs = _by_hour(newest(one)), _by_hour(newest(other))
    fits: dict[int, float] = {}
    for lag in range(-_LAG_HOURS_MAX, _LAG_HOURS_MAX + 1):
        pairs = [(value, theirs[hour - lag]) for hour, value in ours.items() if hour - lag in theirs]
        if len(pairs) >= _LAG_HOURS_NEEDED and all(len(set(column)) > 1 for column in zip(*pairs, strict=True)):
            fits[lag] = correlation(*zip(*pairs, strict=True))
    if 0 not in fits:
        return f"the two series share fewer than {_LAG_HOURS_NEEDED} hours that vary, too few to compare their labels"
    best = max(fits, key=lambda lag: (fits[lag], -abs(lag)))
    if best == 0 or fits[best] - fits[0] < _LAG_GAIN_MIN:
        return None
    side = "late" if best > 0 else "early"
    return (
        f"{one[0].zone} {one[0].source} is {abs(best)} h {side} against {other[0].source} (correlation {fits[best]:.3f} "
        f"there, {fits[0]:.3f} as labelled): is the label the end of the interval, or local time?"
    )


def _series(factors: Iterable[Factor]) -> Mapping[SeriesKey, list[Factor]]:
    found: dict[SeriesKey, list[Factor]] = defaultdict(list)
    for factor in sorted(factors, key=lambda factor: (factor.valid_from_seconds, factor.valid_to_seconds)):
        found[factor.zone, factor.source, factor.kind].append(factor)
    return found


def _year_span(year: int) -> tuple[int, int]:
    hours = 8_784 if calendar.isleap(year) else 8_760
    begin = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    return begin, begin + hours * _HOUR


def _holes(series: Sequence[Factor], begin: int, end: int) -> list[tuple[int, int]]:
    """The spans within [begin, end) in which nothing holds. series: by time."""
    holes, reached = [], begin
    for factor in series:
        if factor.valid_to_seconds <= begin or factor.valid_from_seconds >= end:
            continue
        if factor.valid_from_seconds > reached:
            holes.append((reached, factor.valid_from_seconds))
        reached = max(reached, min(end, factor.valid_to_seconds))
    if reached < end:
        holes.append((reached, end))
    return holes


def _by_hour(factors: Iterable[Factor]) -> dict[int, float]:
    """Mean by hour, of values of any length up to one."""
    sums: dict[int, list[float]] = defaultdict(list)
    for factor in factors:
        if not factor.is_long:
            sums[factor.valid_from_seconds // _HOUR].append(float(factor.value))
    return {hour: sum(values) / len(values) for hour, values in sums.items()}


def _hours(seconds: int) -> str:
    return f"{seconds / _HOUR:g}" if seconds % _HOUR else str(seconds // _HOUR)
