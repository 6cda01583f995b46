"""The commands as an operator types them, on a real database: output on stdout, complaints on stderr, an exit status."""

import argparse
import csv
import gc
import inspect
import io
import json
import shutil
from contextlib import closing
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from tests.collector.bookings import EPOCH, INTERVAL, energy, following, opening

from wattledger_collector.commands import add_commands
from wattledger_collector.records import AssignmentRow, Booking, CommitOutcome, Component, Method, SiteRow
from wattledger_collector.store import open_store
from wattledger_collector.workload_records import (
    IdlePolicy,
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadEnergyRow,
    WorkloadKind,
)

BEGIN = datetime.fromtimestamp(INTERVAL, UTC).isoformat()
END = datetime.fromtimestamp(INTERVAL + 900, UTC).isoformat()


def run(*arguments: str) -> int:
    """What the program does with a command line."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    parsed = parser.parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> str:
    """A database of its own for each test: making one anew takes most of a second."""
    return str(shutil.copy(template, tmp_path / "ledger.sqlite"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which host `a` of site hall, in Germany, used 3.6 MJ and a microjoule."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    store = open_store(path, create=True)
    store.add_sites([SiteRow("hall", 0, "DE", "1.2", False, 0)])
    store.add_assignments([AssignmentRow("a", 0, "hall", 0)])
    first = opening()
    for booking in (first, following(first, [energy(3_600_000_000_001)]), opening("b")):
        assert store.commit([booking]) == [CommitOutcome.COMMITTED]
    store.close()
    return path


def test_report_as_json_is_the_ledger_times_the_factor(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """1 kWh and a microjoule at PUE 1.2 with Germany's factor of 2023, exactly."""
    assert run("report", "--from", BEGIN, "--to", END, "--store", ledger, "--json") == 0

    (site,) = json.loads(capsys.readouterr().out)["sites"]
    assert site["energy_microjoules"] == "3600000000001"
    exact = Fraction(3_600_000_000_001, 3_600_000_000_000) * Fraction("1.2") * Fraction("371.31064")
    assert Fraction(site["emissions"][0]["grams_exact"]) == exact


def test_no_garbage_is_looked_for_while_a_report_is_made(ledger: str) -> None:
    """A long one keeps millions of objects to its end, and walking through them finds nothing; then all is as before."""
    seen: set[str] = set()

    def note(phase: str, info: dict[str, int]) -> None:
        frame = inspect.currentframe()
        while frame is not None:
            seen.add(frame.f_code.co_name)
            frame = frame.f_back

    threshold = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1)
    try:
        assert run("report", "--from", BEGIN, "--to", END, "--store", ledger, "--json") == 0
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(note)
    assert "_report" in seen
    assert "make_report" not in seen
    assert gc.isenabled()


def test_report_as_table_and_csv(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both name the site; the CSV parses."""
    assert run("report", "--from", BEGIN, "--to", END, "--store", ledger) == 0
    assert "Site hall  1.000 kWh of IT energy" in capsys.readouterr().out

    assert run("report", "--from", BEGIN, "--to", END, "--store", ledger, "--csv", "--site", "hall") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["record"] for row in rows] == ["energy", "site", "market", "scope2_location", "scope2_market"]
    assert rows[-1]["emissions_grams_exact"] == rows[-2]["emissions_grams_exact"] == rows[0]["emissions_grams_exact"]


def book_pod(ledger: str) -> None:
    """Divide half of the ledger's energy over a pod."""
    with closing(open_store(Path(ledger), create=False)) as store:
        host, cursor = store.load_host("a"), store.load_cursor("a", EPOCH)
        assert host is not None
        assert cursor is not None
        pod = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.EQUAL)
        rows = (WorkloadEnergyRow(pod, INTERVAL, Component.CPU, Method.COUNTER, 1_800_000_000_000),)
        workloads = WorkloadBooking(WorkloadCursor(b"", 0, 0, {}, (), 0, 0), (pod,), 0, rows, ())
        assert store.commit([Booking(host, host, cursor, cursor, workloads=workloads)]) == [CommitOutcome.COMMITTED]


def test_report_by_workload(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In all three forms; what was not divided is said."""
    common = ("report", "--from", BEGIN, "--to", END, "--store", ledger, "--by")
    assert run(*common, "workload") == 0
    assert "No energy was divided over workloads" in capsys.readouterr().out
    book_pod(ledger)
    assert run(*common, "workload") == 0
    out = capsys.readouterr().out
    assert "db-0" in out
    assert "Not divided: 0.500 kWh" in out
    assert run(*common, "namespace", "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)["sites"][0]["lines"]
    assert (line["namespace"], line["energy_microjoules"], line["idle_policy"]) == ("shop", "1800000000000", "equal")
    assert run(*common, "namespace", "--csv", "--site", "hall") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["energy_kwh"] == "0.500000000"


def test_sci_of_a_workload(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a kWh at PUE 1.2 and 371.31064 g, and 100 g embodied, over 1,000 requests; no work and no energy are refused."""
    book_pod(ledger)
    common = ("sci", "--from", BEGIN, "--to", END, "--store", ledger, "--unit", "request")
    assert run(*common, "--workload", "db-0", "--work", "1000", "--embodied-grams", "100", "--json") == 0
    score = json.loads(capsys.readouterr().out)
    assert (
        Fraction(score["grams_per_unit_exact"]) == (Fraction("0.5") * Fraction("1.2") * Fraction("371.31064") + 100) / 1000
    )
    assert (score["idle_policies"], score["methods"]) == (["equal"], ["counter"])
    assert run(*common, "--namespace", "shop", "--work", "1000") == 0
    out = capsys.readouterr().out
    assert "0.222786384 g for each request" in out
    assert "give them with --embodied-grams" in out
    for arguments, says in (
        (("--workload", "db-0", "--work", "0"), "stands at 0 request"),
        (("--workload", "db-1", "--work", "1"), "'db-1' used no energy"),
        (("--workload", "db-0", "--work", "many"), "--work is 'many'"),
    ):
        assert run(*common, *arguments) == 1
        assert says in capsys.readouterr().err


def test_inventory_of_a_file(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Table and JSON have both totals; certificates are looked for beside the declaring file."""
    path = Path(ledger).with_name("declared.toml")
    path.write_text(
        'organisation = "Example Ltd"\napproach = "operational_control"\n[[holding]]\nsite = "hall"\nsituation = "owned"\n'
        'evidence = "land register"\n[certificates]\nbeneficiary = "Example Ltd"\nfiles = ["registry.csv"]\n'
    )
    common = ("inventory", str(path), "--from", BEGIN, "--to", END, "--store", ledger)
    assert run(*common) == 1
    assert "registry.csv" in capsys.readouterr().err
    path.with_name("registry.csv").write_text(
        "certificate,kind,registry,market,from,to,volume_wh,grams_per_kwh,retired_for\n"
        f"c1,GO,HKN,DE,{BEGIN},{END},600,0,Example Ltd\n"
    )
    assert run(*common, "--json") == 0
    tree = json.loads(capsys.readouterr().out)
    located = Fraction(3_600_000_000_001, 3_600_000_000_000) * Fraction("1.2") * Fraction("371.31064")
    assert Fraction(tree["total_location_grams"]) == located
    assert round(float(Fraction(tree["certificates"]["covered_ratio"])), 6) == 0.5
    assert round(float(Fraction(tree["total_market_grams"]) / located), 6) == 0.5
    assert run(*common) == 0
    out = capsys.readouterr().out
    assert "Covered by certificates: 50.0 % of scope 2 electricity" in out
    assert "DE: the grid average stands in for it" in out
    residual = '[[residual]]\nmarket = "DE"\ngrams_per_kwh = 700\nevidence = "AIB"\n[certificates]'
    bare = path.read_text()
    path.write_text(bare.replace("[certificates]", residual))
    assert run(*common) == 0
    assert "- residual mix of DE: 700 g/kWh, declared (AIB); it counts 0.600000 kWh" in capsys.readouterr().out
    assert run(*common, "--json") == 0
    (mix,) = json.loads(capsys.readouterr().out)["residual_mixes"]
    assert (mix["source"], mix["evidence"]) == ("declared", "AIB")
    assert Fraction(mix["energy_microjoules"]) == Fraction("2160000000001.2")
    path.write_text(bare)
    configuration = path.with_name("collector.toml")
    configuration.write_text(f'[store]\npath = "{ledger}"\n[inventory]\nfile = "declared.toml"\n')
    assert run("inventory", "--from", BEGIN, "--to", END, "--config", str(configuration)) == 0
    assert capsys.readouterr().out == out
    assert run("inventory", "--from", BEGIN, "--to", END, "--store", ledger) == 1
    assert "which declaration?" in capsys.readouterr().err
    path.write_text(path.read_text().replace('"hall"', '"[bold]"').replace("Example Ltd", "[b]Ltd"))
    assert run(*common) == 0
    out = capsys.readouterr().out
    assert "site hall has no [[holding]]" in out
    assert "[b]Ltd" in out


def test_the_example_of_an_inventory_is_one(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What --example writes is taken as it is; without a period there is no inventory."""
    assert run("inventory", "--example") == 0
    path = Path(ledger).with_name("declared.toml")
    path.write_text(capsys.readouterr().out.replace('"here"', '"hall"').replace("from = 2026-01-01\n", ""))
    assert run("inventory", str(path), "--from", BEGIN, "--to", END, "--store", ledger) == 0
    assert "scope 2" in capsys.readouterr().out
    assert run("inventory", str(path), "--store", ledger) == 1
    assert "give --from and --to" in capsys.readouterr().err


def test_the_configuration_names_the_database(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --config the store's path and the operator's own factors are those of the file."""
    path = Path(ledger).with_name("collector.toml")
    path.write_text("[store]\npath = 'ledger.sqlite'\n", encoding="utf-8")

    assert run("report", "--from", BEGIN, "--to", END, "--config", str(path)) == 0
    assert "371.31064 g/kWh" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["report", "--from", "x", "--to", END], "wattledger-collector: 'x' is no time: write an ISO date"),
        (["report", "--from", BEGIN, "--to", END, "--site", "hal"], "there is no site 'hal': did you mean 'hall'?"),
        (["report", "--from", BEGIN, "--to", END, "--time-zone", "Q"], "there is no time zone 'Q': use an IANA name"),
        (["report", "--from", END, "--to", BEGIN], "is empty: --to is the first instant after it"),
        (["report", "--from", BEGIN, "--to", END, "--config", "/none.toml"], "cannot read /none.toml: No such file"),
        (["host", "retire", "c"], "there is no host 'c'"),
    ],
)
def test_each_refusal_is_one_sentence_on_stderr(
    ledger: str, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    """Nothing but the sentence is printed, and the exit status is 1."""
    assert run(*arguments, "--store", ledger) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_a_database_has_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reading command never makes a database, and says which one it looked for."""
    assert run("host", "list", "--store", str(tmp_path / "none.sqlite")) == 1

    assert "none.sqlite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_hosts_are_listed_renamed_drained_and_taken_back(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each change is told, and stands in the next list."""
    assert run("host", "rename", "a", "web-1", "--store", ledger) == 0
    assert run("host", "drain", "a", "--store", ledger) == 0
    assert capsys.readouterr().out == "host a (called web-1) is active\nhost a (called web-1) is drained\n"

    assert run("host", "list", "--store", ledger, "--json") == 0
    (row, other) = json.loads(capsys.readouterr().out)
    assert (row["host"], row["name"], row["site"], row["state"]) == ("a", "web-1", "hall", "drained")
    assert other["site"] == "unassigned"

    assert run("host", "activate", "a", "--store", ledger) == 0
    assert run("host", "list", "--store", ledger) == 0
    assert "web-1" in capsys.readouterr().out


def test_a_replaced_host_retires_and_its_successor_takes_its_place(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Name and site go to the successor; what the old one used stays in the report."""
    assert run("host", "replace", "a", "b", "--store", ledger) == 0
    assert run("host", "list", "--store", ledger, "--json") == 0

    out = capsys.readouterr().out
    rows = json.loads(out[out.index("[") :])
    assert [(row["host"], row["state"], row["name"]) for row in rows] == [("a", "retired", "a"), ("b", "active", "a")]
    assert run("report", "--from", BEGIN, "--to", END, "--store", ledger) == 0
    assert "Site hall  1.000 kWh" in capsys.readouterr().out


def test_factors_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The list gives each zone's newest figure, a zone all of its own with document, licence and the series in use."""
    assert run("factors", "list", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 278

    assert run("factors", "list", "camx") == 0
    assert "195.03700802971" in capsys.readouterr().out

    assert run("factors", "show", "CN") == 0
    out = capsys.readouterr().out
    assert "Figures of zone CN use: average direct CO2, consumption, MEE-NBS." in out
    assert "CC BY 4.0" in out
    assert "530.6" in out
    # The words in which a source asks to be named are not folded.
    named = {line for line in out.splitlines() if line.startswith("OWID-Ember: ")}
    assert all(line.endswith("with major processing by Our World in Data") for line in named)
    assert named


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "Germani"], "no zone contains 'Germani': did you mean DE (Germany)"),
        (["show", "Germany"], "no factor table has a zone 'Germany': did you mean DE (Germany)"),
    ],
)
def test_an_unknown_zone_is_refused(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Near matches are offered."""
    assert run("factors", *arguments) == 1
    assert sentence in capsys.readouterr().err
