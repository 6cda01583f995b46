"""Three books that are never mixed: what was avoided, what was substituted, what was compensated.

Text in, exact values out; no clock, no file, no rounding. Sources of truth: the GHG Protocol (avoided emissions are told
beside an inventory and never taken from it; Scope 2 Guidance for claims) and ESRS E1-7 (removals and carbon credits stand
apart from gross emissions). The inventory's gross figure is an input of all three and a result of none.

- Reductions: avoided emissions against a declared baseline. They explain a figure; they change none.
- Substitution: renewable electricity. It leads from the location-based to the market-based figure.
- Compensation: retired credits, set against what remains. Gross figures stay as they are.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal

import msgspec

# A hundred years of a hundred entries; more is no book but a mistake.
ENTRIES_MAX = 10_000


class BooksError(ValueError):
    """The books can't be reckoned; the text says which entry has which value, and what to write instead."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Reduction(_Strict, frozen=True):
    """Avoided emissions: `avoided_tonnes` as evidenced, or a baseline and what it became. Both in tonnes CO2e.

    scope: of the emissions that were avoided. published_base_tonnes: a rounded figure of the year before, from which the
    source reckons its own growth; both growths are shown then. saved_megawatt_hours: energy that was not used, where the
    source tells it: the factor that it used follows from both.
    """

    name: str
    scope: Literal["1", "2", "1+2", "3"]
    evidence: str
    avoided_tonnes: Decimal | None = None
    baseline_tonnes: Decimal | None = None
    actual_tonnes: Decimal | None = None
    published_base_tonnes: Decimal | None = None
    saved_megawatt_hours: Decimal | None = None

    @property
    def implied_tonnes_per_megawatt_hour(self) -> Fraction | None:
        """The factor by which energy became emissions, to be held against those of a grid; None without energy."""
        return None if self.saved_megawatt_hours is None else self.tonnes / Fraction(self.saved_megawatt_hours)

    @property
    def tonnes(self) -> Fraction:
        """What was avoided; may be below 0, where emissions rose over the baseline."""
        if self.avoided_tonnes is not None:
            return Fraction(self.avoided_tonnes)
        return Fraction(self.baseline_tonnes or 0) - Fraction(self.actual_tonnes or 0)


class Substitution(_Strict, frozen=True):
    """Renewable electricity in place of the grid's: emissions that the market-based figure does not have; tonnes CO2e."""

    name: str
    tonnes: Decimal
    evidence: str


class Offset(_Strict, frozen=True):
    """Credits retired against what remains; tonnes CO2e. project: the registry's id. retired: only then they count."""

    registry: str
    tonnes: Decimal
    evidence: str
    project: str = ""
    vintage: int | None = None
    serials: str = ""
    retired: bool = True


class Year(_Strict, frozen=True):
    """One year's inventory of scopes 1 and 2 before any claim (location based), and its entries."""

    year: Annotated[int, msgspec.Meta(ge=1990, le=2199)]
    scope_1_2_location_tonnes: Decimal
    evidence: str
    reduction: tuple[Reduction, ...] = ()
    substitution: tuple[Substitution, ...] = ()
    offset: tuple[Offset, ...] = ()


class Equivalence(_Strict, frozen=True):
    """A comparison for people: so many `unit` emit as much as was avoided, floored to a multiple of `step`."""

    unit: str
    kilometres: Decimal
    kilograms_per_kilometre: Decimal
    step: Annotated[int, msgspec.Meta(ge=1)]
    evidence: str

    @property
    def tonnes_each(self) -> Fraction:
        """Emissions of one unit."""
        return Fraction(self.kilometres) * Fraction(self.kilograms_per_kilometre) / 1000

    def units(self, tonnes: Fraction) -> Fraction:
        """How many units emit as much, exactly."""
        return tonnes / self.tonnes_each

    def floored(self, tonnes: Fraction) -> int:
        """How many units, never more than there are: a comparison that was rounded up would claim too much."""
        return int(self.units(tonnes) // self.step) * self.step


class Books(_Strict, frozen=True):
    """A file of books: whose they are, where the figures come from, and the years in order."""

    organisation: str
    source: str
    year: tuple[Year, ...]
    equivalence: tuple[Equivalence, ...] = ()


@dataclass(frozen=True, slots=True)
class Growth:
    """How a figure changed from the year before; ratio: this over that, less 1. base_tonnes: what it is reckoned from."""

    name: str
    base_tonnes: Fraction
    tonnes: Fraction
    is_published_base: bool = False

    @property
    def ratio(self) -> Fraction:
        """Relative change."""
        return self.tonnes / self.base_tonnes - 1


@dataclass(frozen=True, slots=True)
class Account:
    """A year's three books, reckoned; tonnes CO2e, exact.

    shares: of each named reduction in all of its scope. growths: against the year before; empty for the first.
    """

    year: Year
    shares: tuple[tuple[str, str, Fraction], ...]
    growths: tuple[Growth, ...]

    @property
    def gross_tonnes(self) -> Fraction:
        """Scopes 1 and 2, location based: no reduction, certificate or credit changes it."""
        return Fraction(self.year.scope_1_2_location_tonnes)

    @property
    def reduced_tonnes(self) -> Fraction:
        """The book of reductions: all avoided emissions of the year."""
        return _sum(entry.tonnes for entry in self.year.reduction)

    @property
    def substituted_tonnes(self) -> Fraction:
        """The book of substitution."""
        return _sum(Fraction(entry.tonnes) for entry in self.year.substitution)

    @property
    def remaining_tonnes(self) -> Fraction:
        """Scopes 1 and 2, market based: what is left to compensate."""
        return self.gross_tonnes - self.substituted_tonnes

    @property
    def compensated_tonnes(self) -> Fraction:
        """The book of compensation: retired credits."""
        return _sum(Fraction(entry.tonnes) for entry in self.year.offset if entry.retired)

    @property
    def net_tonnes(self) -> Fraction:
        """What remains less what was compensated."""
        return self.remaining_tonnes - self.compensated_tonnes

    @property
    def is_neutral(self) -> bool:
        """Whether credits cover what remains, to the last digit."""
        return self.net_tonnes <= 0

    def reduced_in(self, scope: str) -> Fraction:
        """Avoided emissions of one scope."""
        return _sum(entry.tonnes for entry in self.year.reduction if entry.scope == scope)


def parse_books(text: str, where: str) -> Books:
    """Check a TOML text whole. where: its name, for messages. Raises BooksError."""
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
        books = msgspec.convert(tables, Books)
    except tomllib.TOMLDecodeError as error:
        raise BooksError(f"{where} is not valid TOML: {error}; mend that line") from error
    except msgspec.ValidationError as error:
        raise BooksError(f"{where}: {error}; see the example, `wattledger-collector books --example --source`") from error
    _check(books, where)
    return books


def reckon(books: Books) -> list[Account]:
    """The accounts of all years, in order."""
    accounts: list[Account] = []
    for year in books.year:
        before = accounts[-1] if accounts else None
        account = Account(year, tuple(_shares(year)), ())
        growths = () if before is None else tuple(_growths(before, account))
        accounts.append(Account(year, account.shares, growths))
    return accounts


def _shares(year: Year) -> Iterable[tuple[str, str, Fraction]]:
    totals: dict[str, Fraction] = {}
    for entry in year.reduction:
        totals[entry.scope] = totals.get(entry.scope, Fraction(0)) + entry.tonnes
    for entry in year.reduction:
        if totals[entry.scope]:
            yield entry.name, entry.scope, entry.tonnes / totals[entry.scope]


def _growths(before: Account, now: Account) -> Iterable[Growth]:
    totals = [
        ("all reductions", before.reduced_tonnes, now.reduced_tonnes),
        ("scopes 1 and 2 that remain", before.remaining_tonnes, now.remaining_tonnes),
    ]
    for name, base, tonnes in totals:
        if base:
            yield Growth(name, base, tonnes)
    earlier = {entry.name: entry.tonnes for entry in before.year.reduction}
    for entry in now.year.reduction:
        if own_base := earlier.get(entry.name):
            yield Growth(entry.name, own_base, entry.tonnes)
        if entry.published_base_tonnes is not None:
            yield Growth(entry.name, Fraction(entry.published_base_tonnes), entry.tonnes, is_published_base=True)


def _check(books: Books, where: str) -> None:
    if not books.year:
        raise BooksError(f"{where} has no year: add a table [[year]]")
    if sum(len(year.reduction) + len(year.substitution) + len(year.offset) for year in books.year) > ENTRIES_MAX:
        raise BooksError(f"{where} has more than {ENTRIES_MAX} entries: split it by organisation")
    numbers = [year.year for year in books.year]
    if numbers != sorted(set(numbers)):
        raise BooksError(f"{where} has the years {numbers}: put each in once, in order")
    for equivalence in books.equivalence:
        if equivalence.tonnes_each <= 0:
            raise BooksError(f"{where}: one {equivalence.unit} has to emit more than 0, or everything is worth endless ones")
    for year in books.year:
        _check_year(year, f"{where}, {year.year}")


def _check_year(year: Year, where: str) -> None:
    _at_least_zero(year.scope_1_2_location_tonnes, f"{where}: scope_1_2_location_tonnes")
    names = [entry.name for entry in year.reduction]
    for name in names:
        if names.count(name) > 1:
            raise BooksError(f"{where}: the reduction {name!r} is there twice; merge the two, or name them apart")
    for entry in year.reduction:
        told = (entry.avoided_tonnes is not None, entry.baseline_tonnes is not None, entry.actual_tonnes is not None)
        if told not in ((True, False, False), (False, True, True)):
            raise BooksError(
                f"{where}: the reduction {entry.name!r} needs avoided_tonnes, or both baseline_tonnes and actual_tonnes"
            )
        if entry.published_base_tonnes is not None and entry.published_base_tonnes <= 0:
            raise BooksError(f"{where}: the reduction {entry.name!r} can't have grown from {entry.published_base_tonnes} t")
        saved = entry.saved_megawatt_hours
        if saved is not None and not (saved.is_finite() and saved > 0):
            raise BooksError(
                f"{where}: the reduction {entry.name!r} can't come of {saved} MWh; write more than 0, or leave it out"
            )
    for substitution in year.substitution:
        _at_least_zero(substitution.tonnes, f"{where}: the substitution {substitution.name!r}")
    for offset in year.offset:
        _at_least_zero(offset.tonnes, f"{where}: the offset of {offset.registry}")
    if _sum(Fraction(entry.tonnes) for entry in year.substitution) > Fraction(year.scope_1_2_location_tonnes):
        raise BooksError(f"{where}: more is substituted than was emitted; claims beyond that have no meaning")
    serials = [(offset.registry, offset.serials) for offset in year.offset if offset.serials]
    for one in serials:
        if serials.count(one) > 1:
            raise BooksError(f"{where}: the serials {one[1]} of {one[0]} are retired twice; a credit counts once")


def _at_least_zero(tonnes: Decimal, where: str) -> None:
    if not tonnes.is_finite() or tonnes < 0:
        raise BooksError(f"{where} is {tonnes}: write tonnes of at least 0")


def _sum(parts: Iterable[Fraction]) -> Fraction:
    return sum(parts, Fraction(0))
