"""The three books: the published example to the last kilogram, and what keeps the books apart."""

import io
import json
from collections.abc import Sequence
from fractions import Fraction
from importlib.resources import files

import pytest

from wattledger_collector.books import Account, BooksError, parse_books, reckon
from wattledger_collector.books_output import show_books, write_books
from wattledger_collector.cli import main

EXAMPLE = (files("wattledger_collector") / "examples" / "two_published_years.toml").read_text()
YEAR = """
organisation = "a"
source = "b"
[[year]]
year = 2024
scope_1_2_location_tonnes = 100
evidence = "c"
"""


def example() -> list[Account]:
    """Both years of the example."""
    return reckon(parse_books(EXAMPLE, "example"))


def growths(account: Account) -> dict[str, list[Fraction]]:
    """Relative changes by name."""
    found: dict[str, list[Fraction]] = {}
    for growth in account.growths:
        found.setdefault(growth.name, []).append(growth.ratio)
    return found


def test_the_published_sums_are_those_of_their_parts() -> None:
    """37,909.87 t are 1,668.60 t and 36,241.27 t; 68,665.35 t a year later."""
    first, second = example()
    assert first.reduced_in("1+2") == Fraction("1668.60")
    assert first.reduced_in("3") == Fraction("36241.27")
    assert first.reduced_tonnes == Fraction("37909.87")
    assert second.reduced_tonnes == Fraction("68665.35")


def test_the_published_shares_and_growths_are_reached() -> None:
    """29,591.48 of 36,241.27 is 82 %; 68,665.35 is up 81 %; 62,000 is up 110 %, or 107 % on the base that was rounded."""
    first, second = example()
    shares = {name: share for name, _, share in first.shares}
    assert round(float(shares["green computing"]) * 100, 2) == 81.65
    changes = growths(second)
    assert [round(float(ratio) * 100, 2) for ratio in changes["all reductions"]] == [81.13]
    assert [round(float(ratio) * 100, 2) for ratio in changes["green computing"]] == [109.52, 106.67]
    out = io.StringIO()
    show_books(parse_books(EXAMPLE, "example"), [first, second], out)
    for told in (
        "82 % of the reductions in scope 3",
        "up 81 %",
        "up 110 % on 29591.48 t",
        "up 107 % on 30000.00 t, as rounded",
    ):
        assert told in out.getvalue()


def test_what_remains_falls_as_published() -> None:
    """21,087.93 t after 23,159.54 t are 8.94 % less, cut and not rounded, as the source has it."""
    ratio = growths(example()[1])["scopes 1 and 2 that remain"][0]
    assert Fraction("-0.0895") < ratio < Fraction("-0.0894")


def test_credits_cover_what_remains_and_change_no_gross_figure() -> None:
    """23,159.54 t of CCER against 23,159.54 t, and 21,087.93 t of VCS 728 against as much: net 0, gross as before."""
    first, second = example()
    assert (first.remaining_tonnes, first.compensated_tonnes) == (Fraction("23159.54"), Fraction("23159.54"))
    assert first.substituted_tonnes == Fraction("21883.63")
    assert first.net_tonnes == 0
    assert first.is_neutral
    assert first.gross_tonnes == Fraction("45043.17")
    assert second.compensated_tonnes == Fraction("21087.93")
    assert second.net_tonnes == 0
    assert second.year.offset[0].project == "728"


def test_ten_kilograms_short_is_not_neutral() -> None:
    """23,159.53 t retired leave 0.01 t."""
    short = parse_books(EXAMPLE.replace("tonnes = 23159.54\nvintage", "tonnes = 23159.53\nvintage"), "example")
    account = reckon(short)[0]
    assert not account.is_neutral
    assert account.gross_tonnes == Fraction("45043.17")
    out = io.StringIO()
    show_books(short, [account], out)
    assert "Not neutral: 0.01 t short." in out.getvalue()


def test_credits_that_are_not_retired_cover_nothing() -> None:
    """What could still be sold is not used."""
    held = EXAMPLE.replace('registry = "CCER"', 'registry = "CCER"\nretired = false')
    assert reckon(parse_books(held, "example"))[0].compensated_tonnes == 0


def test_cars_are_floored() -> None:
    """2.436 t a car: 37,909.87 t are 15,562 cars, told as 15,000; 68,665.35 t are told as more than 28,000."""
    books = parse_books(EXAMPLE, "example")
    (cars,) = books.equivalence
    assert cars.tonnes_each == Fraction("2.436")
    assert [cars.floored(account.reduced_tonnes) for account in reckon(books)] == [15_000, 28_000]
    assert cars.floored(16_000 * Fraction("2.436")) == 16_000
    assert cars.floored(16_000 * Fraction("2.436") - Fraction("0.01")) == 15_000


def test_cars_are_told_exactly_too_and_never_rounded_up() -> None:
    """15,562.34 and 28,187.75 cars: the step is 1,000, and 16,000 would claim too much."""
    books = parse_books(EXAMPLE, "example")
    (cars,) = books.equivalence
    first, second = (cars.units(account.reduced_tonnes) for account in reckon(books))
    assert (round(float(first), 2), round(float(second), 2)) == (15_562.34, 28_187.75)
    assert cars.floored(Fraction("37909.87")) == 15_000
    out = io.StringIO()
    write_books(books, reckon(books), out)
    told = [year["equivalences"][0]["units"] for year in json.loads(out.getvalue())["years"]]
    assert told == ["15562.34", "28187.75"]


def test_growth_on_the_exact_base_is_110_percent_from_the_larger_figure_too() -> None:
    """62,100 t are up 109.9 % on 29,591.48 t, which is told as 110 %."""
    second = reckon(parse_books(EXAMPLE.replace("= 62000", "= 62100"), "example"))[1]
    exact, on_rounded = growths(second)["green computing"]
    assert round(float(exact) * 100, 1) == 109.9
    assert round(float(on_rounded) * 100) == 107


def test_energy_that_was_saved_tells_the_factor_behind_a_reduction() -> None:
    """394 t over 640 MWh are 0.615625 t/MWh: a figure that a reader can hold against a grid's."""
    text = YEAR + REDUCTION + "avoided_tonnes = 394\nsaved_megawatt_hours = 640\n"
    books = parse_books(text, "file")
    (account,) = reckon(books)
    assert account.year.reduction[0].implied_tonnes_per_megawatt_hour == Fraction("0.615625")
    shown, written = io.StringIO(), io.StringIO()
    show_books(books, [account], shown)
    write_books(books, [account], written)
    assert "x: 394.00 t over 640 MWh are 0.615625 t/MWh." in shown.getvalue()
    assert json.loads(written.getvalue())["years"][0]["implied_factors"] == [
        {"reduction": "x", "tonnes_per_megawatt_hour": "0.615625"}
    ]
    assert reckon(parse_books(YEAR + REDUCTION + "avoided_tonnes = 394\n", "file"))[0].gross_tonnes == account.gross_tonnes


def test_reductions_change_neither_gross_nor_net() -> None:
    """A book of avoided emissions, however large, is told beside the inventory."""
    without = reckon(parse_books(YEAR, "file"))[0]
    entry = '[[year.reduction]]\nname = "x"\nscope = "3"\nbaseline_tonnes = 90\nactual_tonnes = 30\nevidence = "e"\n'
    account = reckon(parse_books(YEAR + entry, "file"))[0]
    assert account.reduced_tonnes == 60
    assert account.gross_tonnes == without.gross_tonnes == 100
    assert account.net_tonnes == without.net_tonnes == 100


def test_json_tells_the_same() -> None:
    """A program finds the table's figures, tonnes as text."""
    books = parse_books(EXAMPLE, "example")
    out = io.StringIO()
    write_books(books, reckon(books), out)
    first, second = json.loads(out.getvalue())["years"]
    assert (first["gross_tonnes"], first["net_tonnes"], first["reduced_tonnes"]) == ("45043.17", "0.00", "37909.87")
    assert [each["more_than"] for each in first["equivalences"] + second["equivalences"]] == [15_000, 28_000]
    assert second["growths"][0] == {
        "of": "all reductions",
        "base_tonnes": "37909.87",
        "base_rounded_by_source": False,
        "ratio": "0.811279",
    }


def run(arguments: Sequence[str]) -> int | str | None:
    """What the command exits with."""
    with pytest.raises(SystemExit) as caught:
        main(["books", *arguments])
    return caught.value.code


def test_the_command_shows_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """The example comes with the product; its source is a file to begin with."""
    assert run(["--example"]) == 0
    assert "37909.87" in capsys.readouterr().out
    assert run(["--example", "--source"]) == 0
    assert capsys.readouterr().out == EXAMPLE
    assert run(["/nowhere.toml"]) == 1
    assert "cannot read /nowhere.toml" in capsys.readouterr().err


REDUCTION = '[[year.reduction]]\nname = "x"\nscope = "3"\nevidence = "e"\n'
OFFSET = '[[year.offset]]\nregistry = "r"\ntonnes = 1\nserials = "1-9"\nevidence = "e"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("organisation = ", "not valid TOML"),
        (YEAR.replace('source = "b"', ""), "source"),
        (YEAR.replace("source", "sauce"), "sauce"),
        ('organisation = "a"\nsource = "b"\nyear = []\n', "no year"),
        (YEAR + YEAR[YEAR.index("[[year]]") :], "once, in order"),
        (YEAR.replace("= 100", "= -1"), "at least 0"),
        (YEAR.replace("= 100", "= nan"), "at least 0"),
        (YEAR + REDUCTION, "needs avoided_tonnes"),
        (YEAR + REDUCTION + "avoided_tonnes = 1\nactual_tonnes = 1\n", "needs avoided_tonnes"),
        (YEAR + 2 * (REDUCTION + "avoided_tonnes = 1\n"), "there twice"),
        (YEAR + REDUCTION + "avoided_tonnes = 1\npublished_base_tonnes = 0\n", "can't have grown from 0"),
        (YEAR + REDUCTION + "avoided_tonnes = 1\nsaved_megawatt_hours = 0\n", "can't come of 0 MWh"),
        (YEAR + REDUCTION + "avoided_tonnes = 1\nsaved_megawatt_hours = inf\n", "can't come of Infinity MWh"),
        (YEAR + OFFSET.replace('serials = "1-9"\n', "") * 10_001, "more than 10000 entries: split it by organisation"),
        (YEAR + REDUCTION.replace('"3"', '"4"') + "avoided_tonnes = 1\n", "scope"),
        (YEAR + '[[year.substitution]]\nname = "x"\ntonnes = 101\nevidence = "e"\n', "more is substituted"),
        (YEAR + '[[year.substitution]]\nname = "x"\ntonnes = -1\nevidence = "e"\n', "at least 0"),
        (YEAR + 2 * OFFSET, "retired twice"),
        (YEAR + OFFSET.replace("= 1\n", "= inf\n"), "at least 0"),
        (
            YEAR + '[[equivalence]]\nunit = "u"\nkilometres = 0\nkilograms_per_kilometre = 1\nstep = 1\nevidence = "e"\n',
            "more than 0",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, says: str) -> None:
    """Each slip is named with its place."""
    with pytest.raises(BooksError, match=says) as caught:
        parse_books(text, "file.toml")
    assert str(caught.value).startswith("file.toml")
    assert "\n" not in str(caught.value)
