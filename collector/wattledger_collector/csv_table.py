"""Reads CSV tables whose columns are fixed: each row as a mapping, each slip as one sentence with file, line and column.

Opens no file; text in, rows out. Source of truth: RFC 4180, in UTF-8; what a table's columns mean is said where it is used.
"""

import csv
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar


class TableError(ValueError):
    """A table can't be used; the text names file, line, column, value and remedy."""


_EnumT = TypeVar("_EnumT", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Row:
    """One row; its cells, stripped, by column, and where it stands: `prices.csv line 7`."""

    cells: Mapping[str, str]
    line: int
    place: str

    def text(self, column: str) -> str:
        """A cell that may not be empty."""
        if not self.cells[column]:
            raise TableError(f"{self.place} has no {column}: every row needs one")
        return self.cells[column]

    def decimal(self, column: str) -> Decimal:
        """A finite number of at least 0, with a decimal point. An empty cell is no number: 0 is a value."""
        text = self.text(column)
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise TableError(
                f"{self.place} has {column} {text!r}: write a decimal number with a point, such as 355.6595"
            ) from None
        if not value.is_finite() or value < 0:
            raise TableError(f"{self.place} has {column} {text}: write a number of at least 0")
        return value

    def whole(self, column: str) -> int:
        """A whole number of at least 0."""
        if not self.text(column).isdecimal() or len(self.cells[column]) > 18:
            raise TableError(f"{self.place} has {column} {self.cells[column]!r}: write a whole number of at least 0")
        return int(self.cells[column])

    def day(self, column: str) -> date:
        """An ISO date."""
        try:
            return date.fromisoformat(self.text(column))
        except ValueError as error:
            if isinstance(error, TableError):
                raise
            raise TableError(
                f"{self.place} has {column} {self.cells[column]!r}: write an ISO date, such as 2023-01-01"
            ) from None

    def instant(self, column: str) -> int:
        """Seconds since 1970 UTC of an ISO datetime that states its offset from UTC."""
        text = self.text(column)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None or moment.microsecond:
            raise TableError(
                f"{self.place} has {column} {text!r}: write a time in whole seconds with its offset, such as "
                "2023-01-01T00:00+01:00"
            )
        return int(moment.timestamp())

    def choice(self, column: str, enum: type[_EnumT]) -> _EnumT:
        """One of an enumeration's words."""
        try:
            return enum(self.cells[column])
        except ValueError:
            raise TableError(f"{self.place} has {column} {self.cells[column]!r}: write {' or '.join(enum)}") from None


def read_table(
    text: str,
    where: str,
    columns: Sequence[str],
    rows_max: int,
    optional: Sequence[str] = (),
    *,
    others: bool = False,
    delimiter: str = ",",
) -> Iterator[Row]:
    """Yield the rows of a table; empty lines are left out.

    text: the file's contents. where: its name, for messages. columns: all are needed, in any order, and no others but the
    optional ones, which are empty where they are left out. others: other columns may stand beside them, and are not read.
    Raises TableError at the first thing that is wrong.
    """
    if "\0" in text:
        raise TableError(f"{where} contains a NUL character: save it as UTF-8 CSV text")
    reader = csv.reader((line + "\n" for line in text.removeprefix("\ufeff").split("\n")), strict=True, delimiter=delimiter)
    count = 0
    try:
        header = next(reader, [])
        positions = _check_header(header, where, columns, optional, others=others)
        for cells in reader:
            if not cells:
                continue
            place = f"{where} line {reader.line_num}"
            if len(cells) != len(header):
                raise TableError(
                    f"{place} has {len(cells)} cells where the header has {len(header)}: "
                    f"give each column a cell, and put quotes around text with commas"
                )
            count += 1
            if count > rows_max:
                raise TableError(f"{where} has more than {rows_max} rows: split it into several files")
            found = dict.fromkeys(optional, "") | {name: cells[at].strip() for name, at in positions.items()}
            yield Row(found, reader.line_num, place)
    except csv.Error as error:
        raise TableError(f"{where} line {reader.line_num} is not CSV ({error}): check its quotes") from error


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ": take it out"


def _check_header(
    header: Sequence[str], where: str, columns: Sequence[str], optional: Sequence[str], *, others: bool
) -> dict[str, int]:
    names = [name.strip() for name in header]
    allowed = (*columns, *optional)
    if not any(names):
        raise TableError(f"{where} is empty: its first line has to name the columns {', '.join(columns)}")
    for name in names:
        if name not in allowed:
            if others:
                continue
            raise TableError(f"{where} has a column {name!r} that is not in the schema{nearest(name, allowed)}")
        if names.count(name) > 1:
            raise TableError(f"{where} has the column {name!r} twice: take one out")
    missing = [name for name in columns if name not in names]
    if missing:
        remedy = nearest(missing[0], names).replace(": take it out", ": add it") if others else ": add it"
        raise TableError(f"{where} lacks the column {missing[0]!r}{remedy}")
    return {name: at for at, name in enumerate(names) if name in allowed}
