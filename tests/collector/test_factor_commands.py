"""`factors import`, `export`, `list`, `show` and `check` as an operator types them."""

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wattledger_collector.commands import add_commands
from wattledger_collector.factor_store import load_factors
from wattledger_collector.store import open_store

HEADER = (
    "zone,name,value,unit,signal,boundary,gas,basis,includes_td,valid_from,valid_to,published,source,document,licence,"
    "attribution,recorded"
)
V20 = (
    "IN,India,0.727,t/MWh,average,direct,CO2,production,false,2023-04-01,2024-04-01,2024-12-01,CEA,Database v20.0,facts,"
    "CEA,2024-12-15T00:00:00Z"
)
V21 = V20.replace("0.727", "0.7290").replace("2024-12-01", "2025-11-01").replace("v20.0", "v21.0")
V21 = V21.replace("2024-12-15T00", "2025-11-20T06")
METHANE = (
    "US-CAMX,California,23,lb/GWh,average,direct,CH4,production,false,2023-01-01,2024-01-01,2025-06-12,EPA,eGRID2023,"
    "public domain,EPA,"
)


def run(*arguments: str) -> int:
    """What the program does with a command line."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    parsed = parser.parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


def table(path: Path, *rows: str) -> str:
    """A CSV file of factors."""
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[str]:
    """An empty ledger."""
    path = tmp_path / "ledger.sqlite"
    with closing(open_store(path, create=True)):
        yield str(path)


def test_an_export_is_imported_again_to_the_same_bytes(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows, corrected ones and both times included, survive the way through a file into another ledger."""
    both = table(tmp_path / "both.csv", V21, V20, METHANE)
    assert run("factors", "import", both, "--store", ledger, "--keep-recorded") == 0
    assert capsys.readouterr().out == "2 new factors and 1 corrections recorded, 0 were known\n"
    first, second, other = tmp_path / "first.csv", tmp_path / "second.csv", tmp_path / "other.sqlite"
    open_store(other, create=True).close()

    assert run("factors", "export", "--store", ledger, "--out", str(first)) == 0
    assert run("factors", "import", str(first), "--store", str(other), "--keep-recorded") == 0
    assert run("factors", "export", "--store", str(other), "--out", str(second)) == 0

    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_text().splitlines()) == 4
    assert "729.0000" in first.read_text()
    assert "0.01043262451" in first.read_text()


def test_what_was_known_then_is_shown_then(ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--as-of` shows the value of the year as it was known, in list, show and export."""
    run("factors", "import", table(tmp_path / "in.csv", V20, V21), "--store", ledger, "--keep-recorded")
    capsys.readouterr()

    def values(*arguments: str) -> list[str]:
        assert run("factors", *arguments, "--json", "--store", ledger) == 0
        return [row["grams_per_kwh"] for row in json.loads(capsys.readouterr().out) if row["source"] == "CEA"]

    assert values("list", "india", "--as-of", "2025-01-01") == ["727.000"]
    assert values("list", "india") == ["729.0000"]
    assert values("show", "IN") == ["727.000", "729.0000"]
    assert run("factors", "export", "--store", ledger, "--as-of", "2025-01-01", "--zone", "IN") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run("factors", "show", "IN", "--store", ledger) == 0
    assert "Figures of zone IN use: average direct CO2, production, CEA." in capsys.readouterr().out


def test_without_keeping_recorded_times_now_counts(ledger: str, tmp_path: Path) -> None:
    """A file's own claim of when this ledger knew something is not believed unless it is asked for."""
    run("factors", "import", table(tmp_path / "in.csv", V20), "--store", ledger)

    with closing(open_store(ledger, create=False)) as store:
        (row,) = load_factors(store)
    assert row.recorded_at_seconds > 1_734_220_800


def test_a_dry_run_records_nothing(ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells what would be."""
    assert run("factors", "import", table(tmp_path / "in.csv", V20, V21), "--store", ledger, "--dry-run") == 0
    assert capsys.readouterr().out == "1 new factors and 1 corrections would be recorded, 0 were known\n"
    with closing(open_store(ledger, create=False)) as store:
        assert load_factors(store) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("t/MWh", "Mt/MWh"), "bad.csv line 3 has unit 'Mt/MWh': Mt is a million tonnes"),
        (("t/MWh", "lb/GWh"), "bad.csv line 3 has unit 'lb/GWh' for CO2: only CH4 and N2O"),
        (("0.7290", ""), "bad.csv line 3 has no value: every row needs one"),
        (("0.7290", "0,729"), "bad.csv line 3 has 18 cells where the header has 17"),
        (("0.7290", "n/a"), "bad.csv line 3 has value 'n/a': write a decimal number"),
        (("0.7290", "-0.1"), "bad.csv line 3 has value -0.1: write a number of at least 0"),
        (("0.7290", "729"), "bad.csv line 3 has value 729000: above 5000 g/kWh no grid is known, check the unit"),
        (
            ("2023-04-01", "2023-04-01T00:00"),
            "has valid_from '2023-04-01T00:00': write a time in whole seconds",
        ),
        (("2024-04-01", "2023-04-01"), "valid_to is the first instant after, so it has to be later"),
        (("direct", "stack"), "bad.csv line 3 has boundary 'stack': write direct or lifecycle"),
        (("average", "mean"), "bad.csv line 3 has signal 'mean': write average or marginal"),
        (("production", "mix"), "bad.csv line 3 has basis 'mix': write production or consumption"),
        (("2025-11-20T06:00:00Z", "2999-01-01T00:00:00Z"), "recorded at 2999-01-01, which is later than now"),
    ],
)
def test_of_a_malformed_file_nothing_is_recorded(
    change: tuple[str, str], sentence: str, ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with line, column, value and remedy; the good rows and the good file beside it stay out too."""
    good = table(tmp_path / "good.csv", METHANE)
    bad = table(tmp_path / "bad.csv", V20, V21.replace(*change, 1))

    assert run("factors", "import", good, bad, "--store", ledger, "--keep-recorded") == 1

    complaint = capsys.readouterr().err
    assert sentence in complaint
    assert complaint.count("\n") == 1
    with closing(open_store(ledger, create=False)) as store:
        assert load_factors(store) == []


def test_two_files_that_contradict_each_other_are_refused(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which of two values of one edition is right is not for the order of arguments to say."""
    one = table(tmp_path / "one.csv", V20)
    other = table(tmp_path / "other.csv", V20.replace("0.727", "0.728"))

    assert run("factors", "import", one, other, "--store", ledger) == 1
    assert "zone IN has two values from 2023-04-01 of CEA, published on 2024-12-01: keep one" in capsys.readouterr().err


def test_an_import_tells_of_what_looks_like_another_unit(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning, for the value may be true."""
    slip = table(tmp_path / "slip.csv", V20.replace("0.727,t/MWh", "0.727,g/kWh"))

    assert run("factors", "import", slip, "--store", ledger) == 0
    assert "is it kg/kWh called g/kWh?" in capsys.readouterr().err


def test_a_check_tells_counts_and_findings(ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with a hole is refused with the hours that it lacks; what is whole passes."""
    hours = [
        V20.replace("2023-04-01", f"2023-01-01T0{hour}:00Z").replace("2024-04-01", f"2023-01-01T0{hour + 1}:00Z")
        for hour in (0, 1, 3)
    ]
    path = table(tmp_path / "hours.csv", *hours)

    assert run("factors", "check", path) == 1
    shown = capsys.readouterr()
    assert shown.out == "IN CEA 2023: 3 of 4 hours\n3 factors, 1 findings\n"
    assert "missing from 2023-01-01T02:00:00Z (1 h)" in shown.err
    assert run("factors", "check", table(tmp_path / "two.csv", *hours[:2])) == 0


def test_a_check_of_nothing_is_no_pass(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty ledger, or a zone that is not there."""
    assert run("factors", "check", "--store", ledger) == 1
    assert "there is no factor to check: name a file" in capsys.readouterr().err
    assert run("factors", "check", "--store", ledger, "--zone", "FR") == 1
    assert "there is no factor of zone FR to check" in capsys.readouterr().err


def test_a_claim_is_checked_against_its_document(capsys: pytest.CaptureFixture[str]) -> None:
    """0.5633 is not in the announcement, 0.5366 is; half a claim is none."""
    assert run("factors", "check", "--document", "2024-33", "--value", "0.5633") == 1
    assert "has no row with 563.3 g/kWh" in capsys.readouterr().err
    assert run("factors", "check", "--document", "2024-33", "--value", "0.5366") == 0
    assert capsys.readouterr().out.startswith("CN 2022: 536.6000 g/kWh, average direct CO2, consumption")
    assert run("factors", "check", "--document", "2024-33") == 1
    assert "give both" in capsys.readouterr().err
    assert run("factors", "check", "--document", "2024-33", "--value", "much") == 1
    assert "--value 'much' is no number" in capsys.readouterr().err


def test_a_claim_may_name_the_energy_that_it_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """8,157 MWh are worked out by the claim and by the rows of the auditor's own file; the exit status refuses."""
    shanghai = table(tmp_path / "regions.csv", V20.replace("IN,", "CN-EAST,").replace("0.727", "0.7035"))
    asked = ("factors", "check", shanghai, "--document", "v20.0", "--value", "0.7921")

    assert run(*asked, "--energy-mwh", "8157", "--other-tonnes", "10") == 1
    shown = capsys.readouterr()
    assert "as claimed: 8157 MWh x 0.7921 t/MWh + 10 t = 6471.16 t" in shown.out
    assert "8157 MWh x 0.7035 t/MWh + 10 t = 5748.45 t, 722.71 t less" in shown.out
    assert shown.err.count("\n") == 1
    for number in ("NaN", "1e99", "1e-99", "-1", "many"):
        assert run(*asked, "--energy-mwh", number) == 1
        assert f"--energy-mwh {number}" in capsys.readouterr().err.replace("'", "")


def test_each_question_that_has_no_answer_is_one_sentence(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zones that are none, files that can't be written, sources and units that are not there."""
    year = table(tmp_path / "year.csv", V20)
    assert run("factors", "import", year, "--store", ledger) == 0
    claim = ("factors", "check", year, "--document", "v20.0", "--value", "0.727")
    asked: list[tuple[tuple[str, ...], str]] = [
        (("factors", "list", "Atlantis"), "no zone contains 'Atlantis'"),
        (("factors", "export", "--zone", "FR", "--store", ledger), "the ledger has recorded no factor of a zone 'FR'"),
        (
            ("factors", "export", "--store", ledger, "--out", str(tmp_path / "none/x.csv")),
            "x.csv: No such file or directory",
        ),
        (("factors", "check", year, "--against", "EPA"), "no factor to check is of a source 'EPA': give its file too"),
        ((*claim, "--unit", "Mt/MWh"), "--value has unit 'Mt/MWh': Mt is a million tonnes"),
    ]
    capsys.readouterr()

    for words, sentence in asked:
        assert run(*words) == 1
        shown = capsys.readouterr()
        assert sentence in shown.err
        assert (shown.out, shown.err.count("\n")) == ("", 1)
