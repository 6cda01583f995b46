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
gas                 `CO2` or `CO2e`; `CH4` and `N2O` are kept, and no figure is made with them alone
basis               `production`, `consumption`, `residual` or `supplier`
includes_td         `true` if losses of transmission and distribution are in the value, else `false`
valid_from          beginning of validity: an ISO date (UTC), or a time with its offset from UTC
valid_to            first instant after it, likewise
published           day on which the value was published; where unknown, the day on which it was first seen
source              short name of the publisher's series
document            address or title of the document
licence             terms under which the figure may be carried
attribution         the words in which the source asks to be named
==================  ==============================================================================================

These may be left out:

==================  ==============================================================================================
recorded            when this ledger came to know it, a time with its offset; else the beginning of `published`
supersedes          id of the row that this one corrects
document_sha256     digest of the document, 64 hexadecimal digits
gwp                 for CO2e, the set of warming potentials: `AR4`, `AR5` or `AR6`
uncertainty_ratio   half-width of the 95 % interval relative to the value
tier                how good it is: see `Tier`; else by its length and zone
==================  ==============================================================================================

A value has two times: when it holds (valid), and when it was known (recorded). A later correction is a row of its own, so
that what was known at any time can be asked for again. Which factor holds is said in `factor_catalog.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from wattledger_collector.csv_table import Row, TableError, read_table
from wattledger_collector.factor_units import UnitError, grams_per_kwh

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

OPTIONAL_COLUMNS = ("recorded", "supersedes", "document_sha256", "gwp", "uncertainty_ratio", "tier")

# A factor that holds for less than this is one of a series of hours or days, and not of a yearly table.
LONG_SECONDS_MIN = 28 * 86_400

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
    # Of the plants that would be built or not.
    BUILD_MARGINAL = "build_marginal"


class Boundary(StrEnum):
    """What a factor counts: the stack alone, or fuel supply and plants too."""

    DIRECT = "direct"
    LIFECYCLE = "lifecycle"
    # A product's carbon footprint, as official Chinese tables state beside the direct figure.
    FOOTPRINT = "footprint"


class Gas(StrEnum):
    """What a factor's grams are grams of."""

    CO2 = "CO2"
    CO2E = "CO2e"
    # Single gases, kept as they are published; no figure is made with them alone.
    CH4 = "CH4"
    N2O = "N2O"


class Basis(StrEnum):
    """Which electricity a factor describes."""

    PRODUCTION = "production"
    CONSUMPTION = "consumption"
    RESIDUAL = "residual"
    SUPPLIER = "supplier"


class Gwp(StrEnum):
    """The IPCC report whose warming potentials make CO2e of other gases; empty: not stated, or CO2 alone."""

    UNSTATED = ""
    AR4 = "AR4"
    AR5 = "AR5"
    AR6 = "AR6"


class Tier(StrEnum):
    """How good a factor is for the time it is used for, best first. F6, a region or the world, is never used by itself."""

    F0_MEASURED = "F0"
    F1_PROVIDER_ESTIMATED = "F1"
    F2_CARRIED = "F2"
    F3_PROFILE = "F3"
    F4_ANNUAL_ZONE = "F4"
    F5_ANNUAL_COUNTRY = "F5"
    F6_REGION = "F6"
    F9_NONE = "F9"


@dataclass(frozen=True, slots=True, order=True)
class FactorKind:
    """The type of a factor. Figures of different types are never added."""

    signal: Signal
    boundary: Boundary
    gas: Gas
    basis: Basis
    gwp: Gwp = Gwp.UNSTATED

    def __str__(self) -> str:
        gas = f"{self.gas} ({self.gwp})" if self.gwp else self.gas
        return f"{self.signal} {self.boundary} {gas}, {self.basis}"

    @property
    def slug(self) -> str:
        """One word, for ids."""
        return "-".join(filter(None, (self.signal, self.boundary, self.gas, self.basis, self.gwp)))

    @property
    def is_location_based(self) -> bool:
        """Whether the type may stand for the grid at a place."""
        return (
            self.signal is Signal.AVERAGE
            and self.basis in (Basis.PRODUCTION, Basis.CONSUMPTION)
            and self.gas in (Gas.CO2, Gas.CO2E)
        )

    @property
    def is_residual_mix(self) -> bool:
        """Whether the type may stand, market based, for electricity that no certificate covers."""
        return self.signal is Signal.AVERAGE and self.basis is Basis.RESIDUAL and self.gas in (Gas.CO2, Gas.CO2E)


@dataclass(frozen=True, slots=True)
class Factor:
    """One published value. value: g/kWh. Valid in the half-open span [valid_from_seconds, valid_to_seconds) of UTC.

    recorded_at_seconds: when the ledger came to know it. uncertainty_ratio: None where the source states none.
    """

    zone: str
    name: str
    value: Decimal
    kind: FactorKind
    includes_td: bool
    valid_from_seconds: int
    valid_to_seconds: int
    published: date
    source: str
    document: str
    licence: str
    attribution: str
    recorded_at_seconds: int
    tier: Tier
    supersedes: str = ""
    document_sha256: str = ""
    uncertainty_ratio: Decimal | None = None

    @property
    def id(self) -> str:
        """Names the row: zone, beginning, type, source, and day of publication; a later correction has a mark of its own."""
        published = seconds_of_day(self.published)
        recorded = "" if self.recorded_at_seconds == published else f"@{self.recorded_at_seconds}"
        return f"{self.zone}/{self.valid_from}/{self.kind.slug}/{self.source}/{self.published}{recorded}"

    @property
    def valid_from(self) -> str:
        """The beginning of validity as ISO text: a date where it begins with a day of UTC."""
        return text_of_instant(self.valid_from_seconds)

    @property
    def valid_to(self) -> str:
        """The end of validity, likewise; not included."""
        return text_of_instant(self.valid_to_seconds)

    @property
    def is_long(self) -> bool:
        """Whether it is of a table of months or years, and not one of a series of hours."""
        return self.valid_to_seconds - self.valid_from_seconds >= LONG_SECONDS_MIN

    @property
    def vintage(self) -> str:
        """The span it describes: `2023` for a calendar year, else both ends."""
        year = datetime.fromtimestamp(self.valid_from_seconds, UTC).year
        if (self.valid_from, self.valid_to) == (f"{year}-01-01", f"{year + 1}-01-01"):
            return str(year)
        return f"{self.valid_from}..{self.valid_to}"


def kind_of_id(factor_id: str) -> FactorKind:
    """The type that a factor's id names. Raises ValueError for what is no id."""
    signal, boundary, gas, basis, *gwp = factor_id.split("/")[2].split("-")
    return FactorKind(Signal(signal), Boundary(boundary), Gas(gas), Basis(basis), Gwp("".join(gwp)))


# A series of hours is named by its ends many times in one report; some years of them are 10 MB.
@lru_cache(maxsize=2**16)
def text_of_instant(seconds: int) -> str:
    """ISO text of an instant in UTC: a date alone at the beginning of a day."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.date().isoformat() if seconds % 86_400 == 0 else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class FactorFileError(ValueError):
    """A factor file can't be used; the text names file, line, value and remedy."""


@lru_cache(maxsize=2**12)
def seconds_of_day(day: date) -> int:
    """Seconds from 1970-01-01 UTC to the day's beginning in UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def parse_factors(text: str, where: str, *, any_unit: bool = False) -> list[Factor]:
    """Read one factor file.

    text: its contents. where: its name, for error messages. any_unit: take those of `factor_units.py`, converted exactly.
    Raises FactorFileError at the first thing that is wrong.
    """
    factors: list[Factor] = []
    lines: list[int] = []
    try:
        for row in read_table(text, where, COLUMNS, FACTOR_ROWS_MAX, OPTIONAL_COLUMNS):
            factors.append(_parse_row(row, any_unit=any_unit))
            lines.append(row.line)
    except TableError as error:
        raise FactorFileError(str(error)) from error
    if not factors:
        raise FactorFileError(f"{where} has a header but no factor: add a row, or take the file out of the configuration")
    _check_overlaps(factors, lines, where)
    return factors


def _parse_row(row: Row, *, any_unit: bool) -> Factor:
    for name in ("zone", "name", "source", "document", "licence", "attribution"):
        row.text(name)
    cells, place = row.cells, row.place
    if any(character.isspace() or character == "/" for character in cells["zone"]):
        raise FactorFileError(f"{place} has zone {cells['zone']!r}: use letters, digits and hyphens, such as DE or US-CAMX")
    if cells["unit"] != "g/kWh" and not any_unit:
        remedy = _CONVERSIONS.get(cells["unit"], "convert it")
        raise FactorFileError(f"{place} has unit {cells['unit']!r}: {remedy} and write g/kWh")
    if cells["includes_td"] not in ("true", "false"):
        raise FactorFileError(f"{place} has includes_td {cells['includes_td']!r}: write true or false")
    valid_from, valid_to = _instant(row, "valid_from"), _instant(row, "valid_to")
    if valid_to <= valid_from:
        raise FactorFileError(
            f"{place} is valid from {cells['valid_from']} to {cells['valid_to']}: "
            "valid_to is the first instant after, so it has to be later"
        )
    published = row.day("published")
    return Factor(
        zone=cells["zone"],
        name=cells["name"],
        value=_value(row),
        kind=_kind(row),
        includes_td=cells["includes_td"] == "true",
        valid_from_seconds=valid_from,
        valid_to_seconds=valid_to,
        published=published,
        source=cells["source"],
        document=cells["document"],
        licence=cells["licence"],
        attribution=cells["attribution"],
        recorded_at_seconds=row.instant("recorded") if cells["recorded"] else seconds_of_day(published),
        tier=row.choice("tier", Tier) if cells["tier"] else default_tier(cells["zone"], valid_to - valid_from),
        supersedes=cells["supersedes"],
        document_sha256=_digest(row),
        uncertainty_ratio=row.decimal("uncertainty_ratio") if cells["uncertainty_ratio"] else None,
    )


def default_tier(zone: str, length_seconds: int) -> Tier:
    """The tier of a value of which nothing else is said: by how long it holds, and whether its zone is a whole country."""
    if length_seconds < LONG_SECONDS_MIN:
        return Tier.F0_MEASURED
    return Tier.F4_ANNUAL_ZONE if "-" in zone else Tier.F5_ANNUAL_COUNTRY


def _instant(row: Row, column: str) -> int:
    return row.instant(column) if "T" in row.cells[column] else seconds_of_day(row.day(column))


def _value(row: Row) -> Decimal:
    try:
        value = grams_per_kwh(row.decimal("value"), row.cells["unit"], row.cells["gas"])
    except UnitError as error:
        raise FactorFileError(f"{row.place} {error}") from None
    if value > GRAMS_PER_KWH_MAX:
        raise FactorFileError(
            f"{row.place} has value {value}: above {GRAMS_PER_KWH_MAX} g/kWh no grid is known, check the unit"
        )
    return value


def _kind(row: Row) -> FactorKind:
    gas, gwp = row.choice("gas", Gas), row.choice("gwp", Gwp)
    if gwp and gas is Gas.CO2:
        raise FactorFileError(
            f"{row.place} has gwp {gwp} for CO2 alone: warming potentials are for other gases, leave it out"
        )
    return FactorKind(row.choice("signal", Signal), row.choice("boundary", Boundary), gas, row.choice("basis", Basis), gwp)


def _digest(row: Row) -> str:
    digest = row.cells["document_sha256"]
    if digest and not (len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        raise FactorFileError(f"{row.place} has document_sha256 {digest[:20]!r}: write 64 hexadecimal digits, or nothing")
    return digest


def _check_overlaps(factors: Sequence[Factor], lines: Sequence[int], where: str) -> None:
    """Within a series, what became known at one time has one value at any instant."""
    places = sorted(
        (
            (factor.zone, factor.kind, factor.source, factor.published, factor.recorded_at_seconds),
            factor.valid_from_seconds,
            factor.valid_to_seconds,
            line,
        )
        for factor, line in zip(factors, lines, strict=True)
    )
    for one, other in pairwise(places):
        if one[0] == other[0] and other[1] < one[2]:
            raise FactorFileError(
                f"{where} lines {one[3]} and {other[3]} both give {one[0][0]} a value for {text_of_instant(other[1])}: "
                f"keep one, or give the corrected one its own day of publication"
            )
