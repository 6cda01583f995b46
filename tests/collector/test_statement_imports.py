"""Statements name the files that imported energy came from, and what a PUE rests on; and a lie of either is noticed."""

import argparse
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.collector.closed_ledgers import BEGIN, DAY, KWH, MWH, Ledger, hall, row

from wattledger_collector.cli import _parser
from wattledger_collector.closing import Closed
from wattledger_collector.log_border import split_hashes
from wattledger_collector.statement_store import Draft, append
from wattledger_collector.verify import verify

METER = "time,kwh\n" + "".join(f"2023-04-01T{hour:02}:00:00,{hour + 1}\n" for hour in range(4))
OPTIONS = (
    "--form",
    "interval_kwh",
    "--time-column",
    "time",
    "--value-column",
    "kwh",
    "--label",
    "start",
    "--time-zone",
    "UTC",
)


def imported(folder: Path, name: str, *options: str) -> Path:
    """A meter's file, imported into the ledger of a folder as an operator does."""
    path = folder / name
    path.write_text(METER)
    words = ["import", "energy", str(path), "--store", str(folder / "ledger.sqlite"), *OPTIONS, *options]
    parsed: argparse.Namespace = _parser().parse_args(words)
    assert parsed.run(parsed) == 0
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger with an agent's energy and a meter's file of a day."""
    made = Ledger(tmp_path)
    made.book("a", [row(MWH)])
    imported(tmp_path, "rack.csv", "--host", "rack", "--site", "hall", "--component", "other", "--point", "node",
             "--uncertainty-ratio", "0.01", "--meter", "M7", "--evidence", "calibration 2023")  # fmt: skip
    return made


def test_each_imported_joule_has_a_file(ledger: Ledger) -> None:
    """File, digest, meter, point, evidence, form, time zone, span and energy stand there; the sum is that of the leaves."""
    closed = ledger.close(begin=BEGIN, end=BEGIN + DAY)
    section = closed.statement.tree["imports"]
    assert section["booked"] == [{"host": "rack", "component": "other", "energy_microjoules": str(10 * KWH)}]
    (named,) = section["rows"]
    assert named["sha256"] == sha256(METER.encode()).hexdigest()
    told = ("file", "place", "meter", "point", "evidence", "form", "time_zone", "uncertainty_ratio", "energy_microjoules")
    assert [named[name] for name in told] == [
        "rack.csv", "booked", "M7", "node", "calibration 2023", "interval_kwh", "UTC", "0.01", str(10 * KWH)
    ]  # fmt: skip
    assert (named["from_seconds"], named["to_seconds"]) == (BEGIN, BEGIN + 4 * 3600)
    assert verify(ledger.bundle(closed)).problems == []
    # A day later, nothing of it is told.
    later = ledger.close(begin=BEGIN + DAY, end=BEGIN + 2 * DAY)
    assert later.statement.tree["imports"] == {"booked": [], "rows": []}


def test_a_sites_own_meter_is_named_beside(ledger: Ledger) -> None:
    """It is in no sum; what it measured in the period stands with it."""
    imported(ledger.folder, "site.csv", "--site", "hall", "--point", "facility", "--meter", "F1")
    closed = ledger.close(begin=BEGIN, end=BEGIN + 2 * 3600)
    beside = [each for each in closed.statement.tree["imports"]["rows"] if each["place"] == "facility"]
    assert [each["in_period_microjoules"] for each in beside] == [str(3 * KWH)]
    assert verify(ledger.bundle(closed)).problems == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["imports"]["booked"][0].update(energy_microjoules="1"), "of host rack, other, is"),
        (lambda tree: tree["imports"]["booked"].clear(), "the imported energy of host rack, other, is"),
        (lambda tree: tree["imports"]["rows"].clear(), "is from no file that is named"),
        (lambda tree: tree["imports"]["rows"][0].update(sha256="?"), "is named without its digest"),
        (lambda tree: tree["imports"]["rows"][0].update(to_seconds=BEGIN), "has no time in the period"),
    ],
)  # fmt: skip
def test_a_false_provenance_is_noticed_even_if_the_log_itself_signed_it(
    ledger: Ledger, change: Callable[[Any], None], words: str
) -> None:
    """A statement that was changed and properly signed."""
    honest = ledger.close(begin=BEGIN, end=BEGIN + DAY).statement
    tree = honest.tree
    change(tree)
    root = bytes.fromhex(tree["leaves"]["root"])
    hashes = split_hashes(honest.log_hashes)[:-1]
    draft = Draft(tree, honest.closure, honest.gaps, honest.assignments_last_id, hashes, root)
    with ledger.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM statement")
        connection.exec_driver_sql("DELETE FROM log_checkpoint")
    problems = verify(ledger.bundle(Closed(append(ledger.store, draft, ledger.key), is_new=True))).problems
    assert any(words in problem for problem in problems), problems


def test_what_a_pue_rests_on_stands_with_its_site(tmp_path: Path) -> None:
    """Period, category and evidence of a declared PUE; and the statement verifies."""
    evidence = replace(hall("1.4"), pue_from="2022-01-01", pue_to="2023-01-01", pue_category="2", pue_evidence="report 7")
    made = Ledger(tmp_path, [evidence])
    with closing(made.store):
        made.book("a", [row(MWH)])
        closed = made.close()
        (site,) = closed.statement.tree["sites"]
        told = ("pue_from", "pue_to", "pue_category", "pue_evidence")
        assert [site["rows"][0][name] for name in told] == ["2022-01-01", "2023-01-01", "2", "report 7"]
        assert verify(made.bundle(closed)).problems == []
