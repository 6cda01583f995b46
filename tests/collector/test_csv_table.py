"""Tables in CSV: each slip is one sentence with its place, and what is well-formed is read as RFC 4180 has it."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import StrEnum

import pytest

from wattledger_collector.csv_table import Row, TableError, nearest, read_table


class Colour(StrEnum):
    """Words of a column."""

    RED = "red"
    BLUE = "blue"


def rows(text: str, columns: tuple[str, ...] = ("a", "b"), rows_max: int = 3, *, others: bool = False) -> list[Row]:
    """All rows of a table with an optional column `c`."""
    return list(read_table(text, "t.csv", columns, rows_max, ("c",), others=others))


def cell(text: str) -> Row:
    """A row whose cell `a` is this."""
    (row,) = rows(f'a,b\n"{text}",2\n')
    return row


def test_a_table_is_read_with_its_lines() -> None:
    """Quotes, commas and line breaks within cells, a byte order mark, empty lines, columns in any order."""
    first, second = rows('\ufeffb,a\n"1,5\nx", 2 \n\n3,4\n')
    assert (dict(first.cells), first.line, first.place) == ({"a": "2", "b": "1,5\nx", "c": ""}, 3, "t.csv line 3")
    assert (second.cells["a"], second.line) == ("4", 5)


def test_other_columns_may_stand_beside_those_that_are_read() -> None:
    """A meter's export has what its maker wants."""
    (row,) = rows("serial,a,b\nx,1,2\n", others=True)
    assert dict(row.cells) == {"a": "1", "b": "2", "c": ""}


def test_cells_are_what_they_say() -> None:
    """Numbers to the last digit, days, instants with their offset, words."""
    assert cell("0.10000000000000000000000001").decimal("a") == Decimal("0.10000000000000000000000001")
    assert cell("0").decimal("a") == 0
    assert cell("007").whole("a") == 7
    assert cell("2024-02-29").day("a") == date(2024, 2, 29)
    assert cell("2024-02-29T01:00+01:00").instant("a") == cell("2024-02-29T00:00Z").instant("a") == 1_709_164_800
    assert cell("blue").choice("a", Colour) is Colour.BLUE


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        (lambda: rows(""), "t.csv is empty: its first line has to name the columns a, b"),
        (lambda: rows("\n"), "t.csv is empty"),
        (lambda: rows("a,b\n1,\0\n"), "t.csv contains a NUL character: save it as UTF-8 CSV text"),
        (lambda: rows("a,b,column\n"), "t.csv has a column 'column' that is not in the schema: take it out"),
        (lambda: rows("a,b,b\n"), "t.csv has the column 'b' twice: take one out"),
        (lambda: rows("a\n"), "t.csv lacks the column 'b': add it"),
        (lambda: rows("power,a\n", ("powers",), others=True), "t.csv lacks the column 'powers': did you mean 'power'?"),
        (lambda: rows("x,y\n", ("powers",), others=True), "t.csv lacks the column 'powers': add it"),
        (lambda: rows("a,b\n1\n"), "t.csv line 2 has 1 cells where the header has 2: give each column a cell"),
        (lambda: rows("a,b\n" + "1,2\n" * 4), "t.csv has more than 3 rows: split it into several files"),
        (lambda: rows('a,b\n1,"2\n'), "t.csv line 3 is not CSV (unexpected end of data): check its quotes"),
        (lambda: rows('a,b\n1,"2"x\n'), "t.csv line 2 is not CSV ("),
        (lambda: cell("").text("a"), "t.csv line 2 has no a: every row needs one"),
        (lambda: cell("").day("a"), "t.csv line 2 has no a: every row needs one"),
        (lambda: cell("1,5").decimal("a"), "t.csv line 2 has a '1,5': write a decimal number with a point"),
        (lambda: cell("Infinity").decimal("a"), "t.csv line 2 has a Infinity: write a number of at least 0"),
        (lambda: cell("-1").decimal("a"), "t.csv line 2 has a -1: write a number of at least 0"),
        (lambda: cell("1.0").whole("a"), "t.csv line 2 has a '1.0': write a whole number of at least 0"),
        (lambda: cell("9" * 19).whole("a"), "write a whole number of at least 0"),
        (lambda: cell("2023-02-29").day("a"), "t.csv line 2 has a '2023-02-29': write an ISO date, such as 2023-01-01"),
        (lambda: cell("2024-01-01T00:00").instant("a"), "write a time in whole seconds with its offset"),
        (lambda: cell("2024-01-01T00:00:00.5Z").instant("a"), "write a time in whole seconds with its offset"),
        (lambda: cell("noon").instant("a"), "t.csv line 2 has a 'noon': write a time in whole seconds with its offset"),
        (lambda: cell("green").choice("a", Colour), "t.csv line 2 has a 'green': write red or blue"),
    ],
)
def test_each_slip_is_one_sentence(read: Callable[[], object], sentence: str) -> None:
    """File, line, column and value, and what to write instead."""
    with pytest.raises(TableError) as caught:
        read()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_that_is_like_none_is_to_be_taken_out() -> None:
    """A near one is named."""
    assert nearest("zon", ["zone", "name"]) == ": did you mean 'zone'?"
    assert nearest("xyzzy", ["zone", "name"]) == ": take it out"
