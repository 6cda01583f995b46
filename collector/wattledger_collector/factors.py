"""Grid emission factors: one CSV schema, typed values, and which factor holds for a zone at an instant.

No clock, no files: text in, values out; `factor_files.py` reads the files. Sources of truth: the GHG Protocol Scope 2
Guidance for the types, and for the figures the documents that each row names.

The schema. UTF-8 CSV with a header; columns may stand in any order; all are needed, and no others are allowed:

==================  ==============================================================================================
zone                id of the grid area: ISO 3166-1 alpha-2 (`DE`), or with a suffix (`US-CAMX`, `CN-GRID-NORTH`, `CN-GD`)
name                the zone's name for people
value               decimal, at least 0, never rounded on import
unit                `g/kWh`; a source's other units are converted exactly before (1 lb = 453.59237 g)
signal              `average` or `marginal`
boundary            `direct` (at the stack) or `lifecycle` (fuel supply and plants included)
gas                 `CO2` or `CO2e`
basis               `production`, `consumption`, `residual` or `supplier`
includes_td         `true` if losses of transmission and distribution are in the value, else `false`
valid_from          first day of validity (UTC), ISO date
valid_to            first day after it (UTC), ISO date
published           day on which the value was published; where unknown, the day on which it was first seen
source              short name of the publisher's series
document            address or title of the document
licence             terms under which the figure may be carried
attribution         the words in which the source asks to be named
==================  ==============================================================================================

Which factor holds. A zone has one default series (zone, type, source), so that a figure never changes its meaning
within a report: of the series with signal average and basis consumption or production, the one whose table comes first
(the operator's own files, then official national tables, then the international one; so CN is the ministry's figure,
direct CO2, and not the international one, lifecycle CO2e). In the series the factor valid at the instant holds; if
several are, the latest published. After the last one, or in a hole, the latest earlier one holds provisionally. Before
the first there is no factor, and kWh are uncovered.
"""

import difflib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from wattledger_collector.csv_table import Row, TableError, read_table

# No grid and no fuel emits as much; what lies above is a slip of the unit (oil shale, the dirtiest, is below 1,600).
GRAMS_PER_KWH_MAX = Decimal(5000)

# A year of factors for every zone in the world at one row a day, twice over; more is not a factor file.
FACTOR_ROWS_MAX = 500_000

COLUMNS = (
    "zone",
    "name",
    "value",
    "unit",
    "signal",
    "boundary",
    "gas",
    "basis",
    "includes_td",
    "valid_from",
    "valid_to",
    "published",
    "source",
    "document",
    "licence",
    "attribution",
)

_CONVERSIONS = {
    "kg/kWh": "multiply by 1000",
    "t/MWh": "multiply by 1000",
    "kg/MWh": "the same number is in g/kWh",
    "lb/MWh": "multiply by 0.45359237",
    "g/MWh": "divide by 1000",
}


class Signal(StrEnum):
    """Whether a factor is the mean of all generation or of the generation that a change of load would move."""

    AVERAGE = "average"
    MARGINAL = "marginal"


class Boundary(StrEnum):
    """What a factor counts: the stack alone, or fuel supply and plants too."""

    DIRECT = "direct"
    LIFECYCLE = "lifecycle"


class Gas(StrEnum):
    """What a factor's grams are grams of."""

    CO2 = "CO2"
    CO2E = "CO2e"


class Basis(StrEnum):
    """Which electricity a factor describes."""

    PRODUCTION = "production"
    CONSUMPTION = "consumption"
    RESIDUAL = "residual"
    SUPPLIER = "supplier"


@dataclass(frozen=True, slots=True, order=True)
class FactorKind:
    """The type of a factor. Figures of different types are never added."""

    signal: Signal
    boundary: Boundary
    gas: Gas
    basis: Basis

    def __str__(self) -> str:
        return f"{self.signal} {self.boundary} {self.gas}, {self.basis}"

    @property
    def is_location_based(self) -> bool:
        """Whether the type may stand for the grid at a place."""
        return self.signal is Signal.AVERAGE and self.basis in (Basis.PRODUCTION, Basis.CONSUMPTION)


@dataclass(frozen=True, slots=True)
class Factor:
    """One published value. value: g/kWh. Valid in the half-open span of UTC days [valid_from, valid_to)."""

    zone: str
    name: str
    value: Decimal
    kind: FactorKind
    includes_td: bool
    valid_from: date
    valid_to: date
    published: date
    source: str
    document: str
    licence: str
    attribution: str

    @property
    def id(self) -> str:
        """Names the row: zone, first day, type, source and day of publication."""
        kind = f"{self.kind.signal}-{self.kind.boundary}-{self.kind.gas}-{self.kind.basis}"
        return f"{self.zone}/{self.valid_from}/{kind}/{self.source}/{self.published}"

    @property
    def vintage(self) -> str:
        """The span it describes: `2023` for a calendar year, else both days."""
        if self.valid_from == date(self.valid_from.year, 1, 1) and self.valid_to == date(self.valid_from.year + 1, 1, 1):
            return str(self.valid_from.year)
        return f"{self.valid_from}..{self.valid_to}"


def kind_of_id(factor_id: str) -> FactorKind:
    """The type that a factor's id names. Raises ValueError for what is no id."""
    signal, boundary, gas, basis = factor_id.split("/")[2].split("-")
    return FactorKind(Signal(signal), Boundary(boundary), Gas(gas), Basis(basis))


@dataclass(frozen=True, slots=True)
class FactorChoice:
    """The factor that holds for a zone in [from_seconds, to_seconds), or why there is none.

    provisional: a later period uses the latest earlier value, until its own is published.
    to_seconds None: until a factor is added. missing: a sentence without its full stop; empty if there is a factor.
    """

    factor: Factor | None
    provisional: bool
    from_seconds: int
    to_seconds: int | None
    missing: str


class FactorFileError(ValueError):
    """A factor file can't be used; the text names file, line, value and remedy."""


class UnknownZoneError(KeyError):
    """No factor table has the zone; the text lists near matches."""

    def __str__(self) -> str:
        return str(self.args[0])


def seconds_of_day(day: date) -> int:
    """Seconds from 1970-01-01 UTC to the day's beginning in UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def parse_factors(text: str, where: str) -> list[Factor]:
    """Read one factor file.

    text: its contents. where: its name, for error messages.
    Raises FactorFileError at the first thing that is wrong.
    """
    factors: list[Factor] = []
    lines: list[int] = []
    try:
        for row in read_table(text, where, COLUMNS, FACTOR_ROWS_MAX):
            factors.append(_parse_row(row))
            lines.append(row.line)
    except TableError as error:
        raise FactorFileError(str(error)) from error
    if not factors:
        raise FactorFileError(f"{where} has a header but no factor: add a row, or take the file out of the configuration")
    _check_overlaps(factors, lines, where)
    return factors


def _parse_row(row: Row) -> Factor:
    for name in ("zone", "name", "source", "document", "licence", "attribution"):
        row.text(name)
    cells, place = row.cells, row.place
    if any(character.isspace() or character == "/" for character in cells["zone"]):
        raise FactorFileError(f"{place} has zone {cells['zone']!r}: use letters, digits and hyphens, such as DE or US-CAMX")
    if cells["unit"] != "g/kWh":
        remedy = _CONVERSIONS.get(cells["unit"], "convert it")
        raise FactorFileError(f"{place} has unit {cells['unit']!r}: {remedy} and write g/kWh")
    if cells["includes_td"] not in ("true", "false"):
        raise FactorFileError(f"{place} has includes_td {cells['includes_td']!r}: write true or false")
    valid_from, valid_to = row.day("valid_from"), row.day("valid_to")
    if valid_to <= valid_from:
        raise FactorFileError(
            f"{place} is valid from {valid_from} to {valid_to}: valid_to is the first day after, so it has to be later"
        )
    kind = FactorKind(
        row.choice("signal", Signal), row.choice("boundary", Boundary), row.choice("gas", Gas), row.choice("basis", Basis)
    )
    value = row.decimal("value")
    if value > GRAMS_PER_KWH_MAX:
        raise FactorFileError(f"{place} has value {value}: above {GRAMS_PER_KWH_MAX} g/kWh no grid is known, check the unit")
    return Factor(
        zone=cells["zone"],
        name=cells["name"],
        value=value,
        kind=kind,
        includes_td=cells["includes_td"] == "true",
        valid_from=valid_from,
        valid_to=valid_to,
        published=row.day("published"),
        source=cells["source"],
        document=cells["document"],
        licence=cells["licence"],
        attribution=cells["attribution"],
    )


def _check_overlaps(factors: Sequence[Factor], lines: Sequence[int], where: str) -> None:
    """Within a series, what was published on one day has one value at any instant."""
    places = sorted(
        (factor.zone, factor.kind, factor.source, factor.published, factor.valid_from, factor.valid_to, line)
        for factor, line in zip(factors, lines, strict=True)
    )
    for one, other in pairwise(places):
        if one[:4] == other[:4] and other[4] < one[5]:
            raise FactorFileError(
                f"{where} lines {one[6]} and {other[6]} both give {one[0]} a value for {other[4]}: "
                f"keep one, or give the corrected one its own day of publication"
            )


class FactorCatalog:
    """All factors of some tables; a table that comes first wins where several have a series for a zone."""

    def __init__(self, tables: Iterable[Sequence[Factor]]) -> None:
        self._by_zone: dict[str, list[Factor]] = {}
        self._names: dict[str, str] = {}
        for table in tables:
            for factor in table:
                self._by_zone.setdefault(factor.zone, []).append(factor)
                self._names.setdefault(factor.zone, factor.name)
        self._segments: dict[str, list[FactorChoice]] = {}

    @property
    def attributions(self) -> Sequence[tuple[str, str, str]]:
        """(source, licence, attribution) of all factors, each once, in order."""
        rows = (factor for factors in self._by_zone.values() for factor in factors)
        return sorted({(factor.source, factor.licence, factor.attribution) for factor in rows})

    @property
    def zones(self) -> Mapping[str, str]:
        """Names by id, in the order of ids."""
        return dict(sorted(self._names.items()))

    def factors(self, zone: str) -> Sequence[Factor]:
        """All factors of a zone, of every series. Raises UnknownZoneError."""
        self.require(zone)
        return sorted(
            self._by_zone[zone], key=lambda factor: (factor.source, factor.kind, factor.valid_from, factor.published)
        )

    def default_series(self, zone: str) -> Sequence[Factor]:
        """The factors from which figures of the zone are made, by time; empty if none is location based."""
        self.require(zone)
        located = [factor for factor in self._by_zone[zone] if factor.kind.is_location_based]
        if not located:
            return []
        first = located[0]
        series = [factor for factor in located if factor.kind == first.kind and factor.source == first.source]
        return sorted(series, key=lambda factor: (factor.valid_from, factor.published))

    def factor_at(self, zone: str, at_seconds: int) -> FactorChoice:
        """The factor for an instant, in seconds since 1970-01-01 UTC. Raises UnknownZoneError."""
        segments = self._segments.get(zone)
        if segments is None:
            segments = self._segments[zone] = _segments(zone, self.default_series(zone))
        index = bisect_right(segments, at_seconds, key=lambda choice: choice.from_seconds)
        return segments[max(index - 1, 0)]

    def require(self, zone: str) -> None:
        """Raise UnknownZoneError, with near matches in its text, unless some table has the zone."""
        if zone not in self._by_zone:
            near = self.near_zones(zone)
            hint = f"did you mean {_either(near)}?" if near else "see `wattledger-collector factors list`"
            raise UnknownZoneError(f"no factor table has a zone {zone!r}: {hint}")

    def near_zones(self, text: str, limit: int = 4) -> list[str]:
        """Zones whose id or name is close to the text, nearest first, as `DE (Germany)`."""
        wanted = _HABITS.get(text.casefold(), text.casefold())
        country = wanted.partition("-")[0]
        scores: list[tuple[float, str]] = []
        for zone, name in self._names.items():
            lowered = name.casefold()
            score = max(
                difflib.SequenceMatcher(None, wanted, zone.casefold()).ratio(),
                difflib.SequenceMatcher(None, wanted, lowered).ratio(),
                # A part of a name ("Korea") is a better hint than a few letters in common.
                0.9 if len(wanted) >= 4 and wanted in lowered else 0.0,
                # An area that no table has, in a country that one has.
                0.7 if country == zone.casefold() else 0.0,
            )
            if score >= 0.6:
                scores.append((-score, zone))
        return [f"{zone} ({self._names[zone]})" for _, zone in sorted(scores)[:limit]]


# What people write for a country whose id is another.
_HABITS = {"uk": "gb", "great britain": "gb", "england": "gb", "usa": "us", "america": "us", "eire": "ie", "prc": "cn"}

# Before any time that is metered.
BEGINNING_SECONDS = -(2**62)


def _segments(zone: str, series: Sequence[Factor]) -> list[FactorChoice]:
    """The choices of all time, in order, the first from the beginning."""
    if not series:
        missing = f"zone {zone} has no average factor by production or consumption"
        return [FactorChoice(None, False, BEGINNING_SECONDS, None, missing)]
    days = sorted({day for factor in series for day in (factor.valid_from, factor.valid_to)})
    missing = f"zone {zone} has no factor before {days[0]}"
    choices = [FactorChoice(None, False, BEGINNING_SECONDS, seconds_of_day(days[0]), missing)]
    for index, day in enumerate(days):
        valid = [factor for factor in series if factor.valid_from <= day < factor.valid_to]
        earlier = [factor for factor in series if factor.valid_to <= day]
        if valid:
            factor = max(valid, key=lambda factor: factor.published)
        else:
            factor = max(earlier, key=lambda factor: (factor.valid_to, factor.published))
        until = seconds_of_day(days[index + 1]) if index + 1 < len(days) else None
        choices.append(FactorChoice(factor, not valid, seconds_of_day(day), until, ""))
    return choices


def _either(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def zone_of_time_zone(time_zone: str, zone_table: str, links: str, catalog: FactorCatalog) -> str | None:
    """Propose a grid zone for an IANA time zone: its country, if the catalog has it; else None.

    zone_table: text of tzdata's zone.tab. links: text of tzdata.zi, whose lines `L target name` give old names.
    """
    countries: dict[str, str] = {}
    for line in zone_table.splitlines():
        cells = line.split("\t")
        if not line.startswith("#") and len(cells) >= 3:
            countries.setdefault(cells[2], cells[0])
    targets: dict[str, str] = {}
    for line in links.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "L":
            targets[words[2]] = words[1]
    country = countries.get(time_zone) or countries.get(targets.get(time_zone, ""))
    return country if country in catalog.zones else None
