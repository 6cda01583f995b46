"""Statements: figures by hand, restatements by cause, and bundles in which no bit can change unseen."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.collector.bookings import following, opening
from tests.collector.closed_ledgers import (
    BEGIN,
    DAY,
    END,
    INTERVAL,
    KWH,
    NOW,
    REVISED,
    V20,
    Ledger,
    factor,
    hall,
    make_template,
    row,
)

from wattledger_collector.bundle import BundleError
from wattledger_collector.closing import Closed, ClosingError, Maker, close_period
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Tier
from wattledger_collector.leaves import exact_sums
from wattledger_collector.log_border import split_hashes
from wattledger_collector.merkle import leaf_hash
from wattledger_collector.records import AssignmentRow, GapReason, GapRow, Quality
from wattledger_collector.report import make_period, parse_time_zone
from wattledger_collector.signed_note import SignedCheckpoint, parse_checkpoint, sign
from wattledger_collector.statement_store import Draft, append, checkpoints, log_keys, sign_again
from wattledger_collector.statement_values import rounded
from wattledger_collector.verdict import Verdict
from wattledger_collector.verify import verify

MWH = 1000 * KWH
TONNE = 10**6
# How many bits are flipped in a test; tests/bench/statements.py flips a thousand.
BITS = 60


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> Iterator[Ledger]:
    """An empty ledger with one site in India, PUE 1."""
    made = Ledger(tmp_path, template=template)
    yield made
    made.store.close()


def causes(statement: Any) -> dict[str, Fraction]:
    """Tonnes by cause of a restatement under one type of factor, which must add up to the difference."""
    (difference,) = statement.tree["replaces"]["differences"]
    parts = {cause: Fraction(each["exact"]) / TONNE for cause, each in difference["causes"].items()}
    assert sum(parts.values()) * TONNE == Fraction(difference["difference"]["exact"])
    return parts


def tonnes(statement: Any) -> Fraction:
    """The statement's whole emissions under one type of factor."""
    (total,) = statement.tree["totals"]["all"]
    (emission,) = total["emissions"]
    return Fraction(emission["grams"]["exact"]) / TONNE


def test_a_revised_factor_is_a_restatement_whose_difference_is_the_factors(ledger: Ledger) -> None:
    """India 2023-24, 1,000 MWh: 727.00 t as known in 2024, 729.00 t as known now; both statements stand."""
    for day in range(10):
        ledger.book(f"server-{day % 3}", [row(100 * MWH, BEGIN + day * DAY)])
    first = ledger.close()
    assert tonnes(first.statement) == 727
    old = ledger.bundle(first, "old")
    second = ledger.close(REVISED)
    assert second.is_new
    assert tonnes(second.statement) == 729
    assert second.statement.tree["replaces"]["sha256"] == first.statement.sha256
    assert causes(second.statement) == {"activity": 0, "factor": 2, "boundary": 0, "method": 0}
    assert verify(old).problems == []
    assert verify(ledger.bundle(second, "new")).problems == []
    # The old one can be handed out again, byte for byte.
    again = ledger.bundle(first, "again")
    assert (again / "statement.json").read_bytes() == (old / "statement.json").read_bytes()
    assert verify(again, earlier=(old / "checkpoint.txt").read_text()).problems == []


def test_each_cause_of_a_difference_is_told_apart_and_all_add_up(ledger: Ledger) -> None:
    """Late energy, a revised factor, a PUE and an assignment of then: one restatement, four exact parts."""
    ledger.store.add_sites([hall("1.5", site="other")])
    ledger.book("a", [row(100 * MWH)])
    ledger.book("b", [row(10 * MWH)])
    first = ledger.close()
    ledger.book("a", [row(5 * MWH)])
    ledger.store.add_sites([hall("1.1", valid_from=1)])
    ledger.store.add_assignments([AssignmentRow("b", 0, "other", NOW)])
    second = ledger.close(REVISED)
    assert tonnes(first.statement) == Fraction("0.727") * 110
    assert tonnes(second.statement) == Fraction("0.729") * (Fraction("1.1") * 105 + Fraction("1.5") * 10)
    assert causes(second.statement) == {
        "activity": Fraction("0.727") * 5,
        "factor": Fraction("0.002") * 115,
        "boundary": Fraction("0.729") * (Fraction("0.1") * 105 + Fraction("0.5") * 10),
        "method": 0,
    }
    # Host b's energy was booked for the hall; the statement says what its assignment of later moved.
    moved = {each["site"]: int(each["energy_microjoules"]) for each in second.statement.tree["reallocated"]}
    assert moved == {"hall": -10 * MWH, "other": 10 * MWH}
    assert verify(ledger.bundle(second)).problems == []


def test_a_period_in_which_nothing_changed_is_not_stated_again(ledger: Ledger) -> None:
    """Closing twice leaves one statement, and the log as it was."""
    ledger.book("a", [row(MWH)])
    first = ledger.close()
    again = ledger.close()
    assert (again.is_new, again.statement.number) == (False, first.statement.number)
    assert len(checkpoints(ledger.store)) == 1


def test_late_energy_is_in_no_statement_until_the_period_is_closed_again(ledger: Ledger) -> None:
    """The frozen edition stays; the second statement has both editions, and both bundles verify."""
    ledger.book("a", [row(3 * MWH)])
    first = ledger.close()
    ledger.book("a", [row(2 * MWH), row(4 * MWH, BEGIN + DAY)])
    assert verify(ledger.bundle(first, "first")).problems == []
    second = ledger.close()
    assert causes(second.statement)["activity"] == Fraction("0.727") * 6
    assert verify(ledger.bundle(second, "second")).problems == []


def test_a_period_that_has_not_ended_is_not_closed(ledger: Ledger) -> None:
    """Energy of the future can't be frozen."""
    with pytest.raises(ClosingError, match="still to come"):
        ledger.close(now=END - 1)


def test_a_basis_that_changes_within_an_interval_is_joined_by_overlap(ledger: Ledger) -> None:
    """A PUE from 00:05 on holds for two thirds of the quarter of an hour; the verifier reckons it likewise."""
    ledger.store.add_sites([hall("1.3", valid_from=BEGIN + 300)])
    ledger.book("a", [row(3 * MWH + 1)])
    closed = ledger.close()
    facility = Fraction(3 * MWH + 1, KWH) * (Fraction(1, 3) + Fraction(2, 3) * Fraction("1.3"))
    assert tonnes(closed.statement) * 1000 == facility * Fraction("0.727")
    assert verify(ledger.bundle(closed)).problems == []


def test_energy_without_a_factor_is_stated_as_uncovered(ledger: Ledger) -> None:
    """No factor, no figure: kWh are listed, beside those that have one, and recorded or modelled ones apart."""
    ledger.store.add_sites([hall(zone="IN", site="dark")])
    ledger.book("a", [row(2 * MWH), row(MWH, quality=Quality.MODEL, channel=2)])
    catalog = FactorCatalog([[factor("5", date(2024, 1, 1), zone="XX")]])
    closed = ledger.close(catalog)
    (total,) = closed.statement.tree["totals"]["all"]
    assert (total["uncovered_microjoules"], total["emissions"]) == (str(3 * MWH), [])
    assert {each["name"] for each in closed.statement.tree["totals"]["by_quality"]} == {"counter", "model"}
    assert verify(ledger.bundle(closed)).problems == []


def test_the_uncertainty_of_sensors_and_factor_is_reckoned_again(ledger: Ledger) -> None:
    """Sensors -2 % +3 % under a factor of 10 %: the interval is theirs, and a false one is noticed."""
    ledger.book("a", [row(100 * MWH)])
    ledger.book("b", [row(100 * MWH)])
    closed = ledger.close(FactorCatalog([[factor("500", date(2024, 1, 1), uncertainty="0.10")]]))
    stated, of_hall = closed.statement.tree["uncertainty"]
    assert float(stated["lower_grams"]) == pytest.approx(1e8 * (0.02**2 + 0.1**2) ** 0.5)
    assert float(stated["upper_grams"]) == pytest.approx(1e8 * (0.03**2 + 0.1**2) ** 0.5)
    assert stated["assumed"] == {"sensors": [], "sensor_grams": "0.000000", "factors": [], "factor_grams": "0.000000"}
    assert {**of_hall, "site": None} == stated
    assert verify(ledger.bundle(closed)).problems == []


def test_what_states_no_band_has_an_assumed_one_that_is_named(ledger: Ledger) -> None:
    """A counter without a band at 5 %, one with its own, an estimate at 50 %, a country at 15 %; the grams of each."""
    ledger.book("bare", [row(100 * MWH)], source="nvml", band=(0.0, 0.0))
    ledger.book("told", [row(100 * MWH)])
    ledger.book("guessed", [row(10 * MWH, quality=Quality.MODEL)], source="estimate", band=(0.0, 0.0))
    ledger.book("imported", [row(MWH)], source="replay", band=(0.01, 0.01), recorded=True)
    closed = ledger.close()
    stated = {(each["recorded"], each["site"]): each for each in closed.statement.tree["uncertainty"]}
    assert set(stated) == {(False, None), (False, "hall"), (True, None), (True, "hall")}
    live, recorded = stated[False, None], stated[True, None]
    parts = ((100 * 0.05) ** 2 + (100 * 0.02) ** 2 + (10 * 0.5) ** 2 + (210 * 0.15) ** 2) ** 0.5
    assert float(live["lower_grams"]) == pytest.approx(727_000 * parts)
    assert (live["assumed"]["sensors"], live["assumed"]["factors"]) == (["estimate", "nvml"], ["IN CEA"])
    assert float(live["assumed"]["sensor_grams"]) == pytest.approx(110 * 727_000)
    assert float(live["assumed"]["factor_grams"]) == pytest.approx(210 * 727_000)
    assert float(recorded["upper_grams"]) == pytest.approx(727_000 * (0.01**2 + 0.15**2) ** 0.5)
    assert recorded["assumed"]["sensors"] == []
    assert verify(ledger.bundle(closed)).problems == []


def test_one_source_is_off_together_whatever_it_measures(ledger: Ledger) -> None:
    """What a counter bridged and what it counted are of the same sensor, so that they do not average out."""
    ledger.book("a", [row(50 * MWH), row(50 * MWH, quality=Quality.BRIDGED)], band=(0.04, 0.04))
    closed = ledger.close(FactorCatalog([[factor("500", date(2024, 1, 1), uncertainty="0.10")]]))
    assert float(closed.statement.tree["uncertainty"][0]["upper_grams"]) == pytest.approx(5e7 * (0.04**2 + 0.1**2) ** 0.5)
    assert verify(ledger.bundle(closed)).problems == []


# -- What a bundle shows to be changed


def world(ledger: Ledger) -> Path:
    """A bundle of two hosts and three days, some of it late, after another statement."""
    ledger.book("first", [row(KWH, BEGIN - DAY)])
    ledger.close(begin=BEGIN - 2 * DAY, end=BEGIN)
    for host in ("one", "two"):
        starts = [BEGIN + day * DAY + 7 * INTERVAL for day in range(3)]
        ledger.book(host, [row(7 * KWH + start, start, channel) for start in starts for channel in (1, 2)])
    ledger.close()
    ledger.book("one", [row(5, BEGIN)])
    return ledger.bundle(ledger.close(REVISED))


def flipped(path: Path, bit: int, check: Callable[[], Verdict]) -> Verdict:
    """What a check finds with one bit of a file flipped; the file is as before afterwards."""
    data = path.read_bytes()
    spoiled = bytearray(data)
    spoiled[bit // 8] ^= 1 << bit % 8
    path.write_bytes(spoiled)
    try:
        return check()
    finally:
        path.write_bytes(data)


def test_no_bit_of_a_bundle_can_change_unseen(ledger: Ledger) -> None:
    """Random bits of all files, with a seed; each file has its share, however small it is."""
    bundle = world(ledger)
    assert verify(bundle).problems == []
    chance = random.Random(20_240_401)
    files = sorted(bundle.iterdir())
    for number in range(BITS):
        path = files[number % len(files)]
        bit = chance.randrange(8 * path.stat().st_size)
        assert not flipped(path, bit, lambda: verify(bundle)).is_good, (path.name, bit)


def test_no_bit_of_a_zipped_bundle_can_change_unseen(ledger: Ledger) -> None:
    """The container's own bytes, too: headers, directory and what a reader of zip files would skip."""
    world(ledger)
    bundle = ledger.bundle(ledger.close(REVISED), "bundle.zip")
    assert verify(bundle).problems == []
    size = 8 * bundle.stat().st_size
    chance = random.Random(1)
    bits = [chance.randrange(size) for _ in range(BITS // 2)]
    # The directory at the end.
    bits += [size - 1 - chance.randrange(8 * 900) for _ in range(BITS // 2)]
    for bit in bits:
        assert not flipped(bundle, bit, lambda: verify(bundle)).is_good, bit
    with bundle.open("ab") as file:
        file.write(b"\0")
    assert not verify(bundle).is_good


def test_a_changed_bit_of_a_leaf_names_its_host_and_day(ledger: Ledger) -> None:
    """The auditor learns where to look."""
    bundle = world(ledger)
    path = bundle / "leaves-2023-04-02.bin"
    length = int.from_bytes(path.read_bytes()[:4], "big")
    for bit in (8 * 200, 8 * (4 + length - 3)):
        problems = flipped(path, bit, lambda: verify(bundle)).problems
        assert "the leaf of host one on 2023-04-02 was changed" in problems
    problems = flipped(path, 8 * (12 + length) + 77, lambda: verify(bundle)).problems
    assert "the leaf of host two on 2023-04-02 was changed" in problems


def test_what_is_missing_or_too_much_is_noticed(ledger: Ledger) -> None:
    """A file, a leaf or a link."""
    bundle = world(ledger)
    (bundle / "note.txt").write_text("hello")
    assert verify(bundle).problems == ["note.txt does not belong to the bundle"]
    (bundle / "note.txt").unlink()
    (bundle / "folder").mkdir()
    assert verify(bundle).problems == ["folder/ does not belong to the bundle"]
    (bundle / "folder").rmdir()
    (bundle / "leaves-2023-04-01.bin").unlink()
    assert "leaves-2023-04-01.bin is missing" in verify(bundle).problems
    assert not verify(bundle / "nowhere").is_good


def forge(bundle: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change a file as somebody who knows the form would: canonical again, and the manifest with it."""
    tree = json.loads((bundle / name).read_bytes())
    change(tree)
    data = rfc8785.dumps(tree)
    (bundle / name).write_bytes(data)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    (bundle / "manifest.json").write_bytes(rfc8785.dumps(manifest))


def test_a_removed_factor_row_is_noticed_by_digest_figures_and_log(ledger: Ledger) -> None:
    """Also where the manifest was made to fit."""
    bundle = world(ledger)
    forge(bundle, "statement.json", lambda tree: tree["factors"]["rows"].pop())
    problems = " ".join(verify(bundle).problems)
    assert "the statement's factors are not those of their digest" in problems
    assert "is not among the statement's rows" in problems
    assert "do not give the root of the signed checkpoint" in problems


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["totals"]["all"][0].update(energy_microjoules="1"), "total all"),
        (lambda tree: tree["lines"][0]["grams"].update(exact="1"), "line"),
        (lambda tree: tree["uncertainty"][0].update(lower_grams="0.000000"), "lower_grams"),
        (lambda tree: tree["uncertainty"][0]["assumed"].update(factors=[]), "factors without a stated band are IN CEA"),
        (lambda tree: tree["uncertainty"].pop(), "the uncertainties are not of the types"),
        (lambda tree: tree["assumed_ratios"]["factors"].update(F5=0.0), "is no band"),
        (lambda tree: tree["assumed_ratios"]["factors"].update(F5=0.01), "lower_grams"),
        (lambda tree: tree["sites"][0]["coverage"].update(rounded="1.000001"), "the coverage of site hall"),
        (lambda tree: tree["sites"][0]["gaps"].update(count=1), "the gaps of site hall"),
        (lambda tree: tree["sites"][0]["bases"][0].update(grams_per_kwh="1"), "another value"),
        (lambda tree: tree["sites"][0]["bases"][0].update(to_seconds=END - 1), "do not fill the period"),
        (lambda tree: tree["sensors"][0].update(energy_microjoules="1"), "energy of a sensor"),
    ],
    ids=[
        "total",
        "line",
        "uncertainty",
        "assumed",
        "no interval",
        "no band",
        "narrow band",
        "coverage",
        "gaps",
        "factor",
        "period",
        "sensor",
    ],
)
def test_a_false_figure_is_noticed_even_if_the_log_itself_signed_it(
    ledger: Ledger, change: Callable[[Any], None], words: str
) -> None:
    """A maker that reckons falsely, or lies, can sign what it likes; the arithmetic is done anew."""
    ledger.book("a", [row(MWH, BEGIN + day * DAY) for day in range(2)])
    honest = ledger.close().statement
    tree = honest.tree
    change(tree)
    hashes = split_hashes(honest.log_hashes)[:-1]
    root = bytes.fromhex(tree["leaves"]["root"])
    draft = Draft(tree, honest.closure, honest.gaps, honest.assignments_last_id, hashes, root)
    with ledger.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM statement")
        connection.exec_driver_sql("DELETE FROM log_checkpoint")
    lie = append(ledger.store, draft, ledger.key)
    problems = verify(ledger.bundle(Closed(lie, is_new=True))).problems
    assert problems
    assert any(words in problem for problem in problems)
    assert not any("checkpoint" in problem for problem in problems)


def test_rows_that_were_changed_after_the_closing_are_named(ledger: Ledger) -> None:
    """The ledger itself does not hand out what it did not close."""
    ledger.book("a", [row(MWH), row(MWH, BEGIN + DAY)])
    closed = ledger.close()
    with closing(sqlite3.connect(ledger.store.path)) as connection, connection:
        connection.execute(
            "UPDATE energy SET energy_microjoules = energy_microjoules + 1 WHERE interval_start_seconds = ?", (BEGIN + DAY,)
        )
    with pytest.raises(BundleError, match="host a on 2023-04-02 are not those that were closed"):
        ledger.bundle(closed)
    assert not list(ledger.folder.glob("bundle*"))
    with closing(sqlite3.connect(ledger.store.path)) as connection, connection:
        connection.execute("DELETE FROM energy WHERE interval_start_seconds = ?", (BEGIN + DAY,))
    with pytest.raises(BundleError, match="1 host-days of 2"):
        ledger.bundle(closed)


def test_a_rewritten_history_does_not_lead_on_from_an_earlier_checkpoint(tmp_path: Path) -> None:
    """Two ledgers with one identity and key that differ in a past statement: the later bundle fails against the other."""
    key = Ed25519PrivateKey.generate()
    notes: list[str] = []
    bundles = []
    for name, energy in (("true", MWH), ("false", MWH - 1)):
        folder = tmp_path / name
        folder.mkdir()
        ledger = Ledger(folder)
        with ledger.store.writing() as connection:
            connection.exec_driver_sql("UPDATE database_info SET database_id = 'same'")
        ledger.store.database_id = "same"
        ledger.key = key
        ledger.book("a", [row(energy, BEGIN - DAY), row(MWH)])
        past = ledger.close(begin=BEGIN - DAY, end=BEGIN)
        notes.append((ledger.bundle(past, "past") / "checkpoint.txt").read_text())
        bundles.append(ledger.bundle(ledger.close()))
        ledger.store.close()
    assert verify(bundles[0], earlier=notes[0]).problems == []
    assert any("history was rewritten" in problem for problem in verify(bundles[0], earlier=notes[1]).problems)


def test_a_new_key_is_believed_because_the_old_one_vouches_for_it(ledger: Ledger) -> None:
    """Who knows the first key checks what the second signed; a key that nobody vouched for is refused."""
    ledger.book("a", [row(MWH, BEGIN - DAY), row(MWH)])
    ledger.close(begin=BEGIN - DAY, end=BEGIN)
    (first,) = log_keys(ledger.store)
    old = ledger.key
    ledger.key = Ed25519PrivateKey.generate()
    sign_again(ledger.store, [old, ledger.key])
    vouched = ledger.bundle(ledger.close(), "vouched")
    assert verify(vouched, trusted=[str(first)]).problems == []
    ledger.key = Ed25519PrivateKey.generate()
    ledger.book("a", [row(1)])
    stranger = ledger.bundle(ledger.close(), "stranger")
    assert any("by no key that is known" in problem for problem in verify(stranger, trusted=[str(first)]).problems)


def test_a_signature_that_anybody_adds_makes_no_key_the_logs(tmp_path: Path) -> None:
    """A stranger signs the log's own published checkpoint too, and shows it as if the log had vouched for the key."""
    bundles = []
    for name, energy in (("true", MWH), ("false", MWH - 1)):
        folder = tmp_path / name
        folder.mkdir()
        ledger = Ledger(folder)
        with ledger.store.writing() as connection:
            connection.exec_driver_sql("UPDATE database_info SET database_id = 'same'")
        ledger.store.database_id = "same"
        ledger.book("a", [row(energy)])
        bundles.append(ledger.bundle(ledger.close()))
        ledger.store.close()
    true, false = bundles
    published = parse_checkpoint((true / "checkpoint.txt").read_text())
    added = sign(published.checkpoint, [(published.checkpoint.origin, ledger.key)])
    both = SignedCheckpoint(published.checkpoint, (*published.signatures, *added.signatures))
    keys = (true / "keys.txt").read_text()
    (false / "keys.txt").write_text(keys + (false / "keys.txt").read_text())
    forge(false, "log.json", lambda tree: tree.update(rotations=[str(both)]))
    manifest = json.loads((false / "manifest.json").read_bytes())
    data = (false / "keys.txt").read_bytes()
    manifest["files"]["keys.txt"] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    (false / "manifest.json").write_bytes(rfc8785.dumps(manifest))
    problems = verify(false, trusted=[keys.strip()]).problems
    assert problems
    assert all("by no key that is known" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["sites"][0]["bases"][0].update(pue="1e99999999"), "power of ten"),
        (lambda tree: tree["period"].update(to_seconds="9" * 20), "whole number"),
        (lambda tree: tree["uncertainty"][0].update(upper_grams="nan"), "upper_grams"),
    ],
    ids=["exponent", "text", "no number"],
)
def test_nonsense_in_a_statement_is_told_at_once(ledger: Ledger, change: Callable[[Any], None], words: str) -> None:
    """Neither an hour's arithmetic, nor all memory, nor a figure that is equal to any."""
    bundle = world(ledger)
    forge(bundle, "statement.json", change)
    assert any(words in problem for problem in verify(bundle).problems)


def test_a_file_larger_than_memory_is_refused_unread(tmp_path: Path) -> None:
    """A disk image, say, in the place of a bundle."""
    path = tmp_path / "image.zip"
    with path.open("wb") as file:
        file.truncate(2**42)
    (problem,) = verify(path).problems
    assert "the directory of" in problem


def test_a_link_in_a_bundle_is_not_followed(ledger: Ledger) -> None:
    """It could lead to a file that never ends, or out of the bundle."""
    bundle = world(ledger)
    (bundle / "statement.json").rename(bundle.parent / "statement.json")
    (bundle / "statement.json").symlink_to(bundle.parent / "statement.json")
    assert "statement.json is no plain file of the bundle" in verify(bundle).problems[-1]
    fifo = bundle.parent / "bundle.zip"
    os.mkfifo(fifo)
    assert verify(fifo).problems == [f"{fifo} is no file and no folder"]


def test_verifying_needs_neither_database_nor_wire(ledger: Ledger) -> None:
    """The verifier runs where only numpy, rfc8785 and cryptography are."""
    bundle = world(ledger)
    program = (
        "import sys\n"
        "for name in ('sqlalchemy', 'grpc', 'msgspec', 'alembic', 'starlette', 'rich', 'google', 'sqlite3'):\n"
        "    sys.modules[name] = None\n"
        "from wattledger_collector.verify import main\n"
        f"sys.exit(main([{str(bundle)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("verified: every figure follows from the leaves\n")


# -- Exactness


def test_sums_are_exact_beyond_64_bits() -> None:
    """A million hosts at the ledger's limit for one value pass 2^63, in both directions."""
    values = np.array([[2**62 - 1, -(2**62) + 1]] * 9, np.int64)
    assert exact_sums(values) == [9 * (2**62 - 1), -9 * (2**62 - 1)]


def test_rounding_for_people_is_half_to_even() -> None:
    """Six digits, exact fractions beside them."""
    assert [rounded(Fraction(each), 1) for each in ("0.25", "0.35", "-0.25", "-1/99")] == ["0.2", "0.4", "-0.2", "0.0"]


# Host, channel, part, and whether the period is closed after it.
PART = st.tuples(st.sampled_from("abcd"), st.integers(1, 4), st.integers(-(2**50), 2**50), st.booleans())


# Without shrinking, which would take minutes: an example is a few dozen transactions.
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=(Phase.explicit, Phase.generate)
)
@given(
    amounts=st.dictionaries(st.integers(0, 200), st.integers(-(2**55), 2**55), min_size=1, max_size=4),
    split=st.lists(PART, min_size=1, max_size=5),
)
def test_totals_are_the_same_for_any_hosts_order_and_editions(
    template: Path, tmp_path_factory: pytest.TempPathFactory, amounts: dict[int, int], split: list[Any]
) -> None:
    """What arrives whole on one host, or in parts on many, before and after a closing, is stated to the same last digit."""
    sites = [hall("1.07"), hall("1.31", valid_from=BEGIN + 100 * INTERVAL + 137)]
    catalog = FactorCatalog([[factor("703.5131", date(2024, 1, 1))]])
    whole = Ledger(tmp_path_factory.mktemp("whole"), sites, template=template)
    whole.book("a", [row(energy, BEGIN + place * INTERVAL) for place, energy in amounts.items()])
    one = whole.close(catalog)
    whole.store.close()
    parted = Ledger(tmp_path_factory.mktemp("parted"), sites, template=template)
    rest = dict(amounts)
    for host, channel, amount, closes in split:
        place = sorted(amounts)[amount % len(amounts)]
        parted.book(host, [row(amount, BEGIN + place * INTERVAL, channel)])
        rest[place] -= amount
        if closes:
            parted.close(catalog)
    parted.book("z", [row(energy, BEGIN + place * INTERVAL) for place, energy in rest.items()])
    two = parted.close(catalog)
    for statement in (one.statement, two.statement):
        (total,) = statement.tree["totals"]["all"]
        assert total["energy_microjoules"] == str(sum(amounts.values()))
    assert tonnes(one.statement) == tonnes(two.statement)
    assert verify(parted.bundle(two)).problems == []
    parted.store.close()


def test_a_leaf_is_told_by_its_salt_alone_from_a_guess(ledger: Ledger) -> None:
    """Who knows a host's figures but not the salt can't find its leaf among the hashes."""
    ledger.book("a", [row(MWH)])
    bundle = ledger.bundle(ledger.close())
    entry = (bundle / "leaves-2023-04-01.bin").read_bytes()[4:]
    header = json.loads(entry[4 : 4 + int.from_bytes(entry[:4], "big")])
    assert len(bytes.fromhex(header["salt"])) == 16
    ((_, _, digest),) = json.loads((bundle / "leaves.json").read_bytes())
    assert leaf_hash(entry).hex() == digest
    assert leaf_hash(entry.replace(header["salt"].encode(), b"0" * 32)).hex() != digest


# -- What is not known


def test_gaps_and_coverage_are_reckoned_again(ledger: Ledger) -> None:
    """A gap within, one that reaches out, one of a whole host, one without a bound, and an overlap: bounds and time."""
    ledger.book("a", [row(MWH, channel=channel) for channel in (1, 2)], channels=2)
    second = 10**9
    begin, end = BEGIN * second, END * second
    ledger.gaps(
        "a",
        [
            GapRow(1, begin, begin + 60 * second, GapReason.REBOOT, -5, 50),
            GapRow(1, begin + 30 * second, begin + 90 * second, GapReason.RESET, 0, 7),
            GapRow(2, begin - 60 * second, begin + 10 * second, GapReason.NOT_MEASURED, 3, 40),
            GapRow(0, end - 20 * second, end, GapReason.EPOCH, 0, 1_000),
            GapRow(1, begin, end, GapReason.OVERLAP, -2, 2),
        ],
    )
    closed = ledger.close()
    (site,) = closed.statement.tree["sites"]
    assert site["gaps"]["lower_microjoules"] == str(-5 - 2)
    assert site["gaps"]["upper_microjoules"] == str(50 + 7 + 40 + 1_000 + 2)
    # 90 s of one channel, 10 s of the other, 20 s of both.
    assert site["gaps"]["missing_nanoseconds"] == str((90 + 10 + 2 * 20) * second)
    assert verify(ledger.bundle(closed)).problems == []
    ledger.gaps("a", [GapRow(2, begin, begin + 1, GapReason.SUSPEND, 0, None)])
    unknown = ledger.close()
    (site,) = unknown.statement.tree["sites"]
    assert site["gaps"]["upper_microjoules"] is None
    assert unknown.statement.tree["uncertainty"][0]["without_upper_bound"] == ["hall"]
    assert verify(ledger.bundle(unknown, "unknown")).problems == []


def test_hours_of_factors_with_a_hole_are_reckoned_again(ledger: Ledger) -> None:
    """Hourly values, one carried for six hours, then none: three tiers, exact grams, and kWh that are uncovered."""
    hour = 3600
    series = [
        replace(
            factor(str(100 + number), date(2024, 1, 1)),
            valid_from_seconds=BEGIN + number * hour,
            valid_to_seconds=BEGIN + (number + 1) * hour,
            tier=Tier.F0_MEASURED,
        )
        for number in (0, 1, 2, 20)
    ]
    ledger.book("a", [row(KWH, BEGIN + number * hour) for number in range(21)])
    closed = ledger.close(FactorCatalog([series]), BEGIN, BEGIN + DAY)
    by_tier = {each["name"]: each for each in closed.statement.tree["totals"]["by_tier"]}
    assert tonnes(closed.statement) * TONNE == 100 + 101 + 102 + 6 * 102 + 120
    assert {name: int(each["energy_microjoules"]) // KWH for name, each in by_tier.items()} == {"F0": 4, "F2": 6, "F9": 11}
    assert verify(ledger.bundle(closed)).problems == []


def test_a_host_said_later_to_have_stood_elsewhere_changes_nothing_of_a_sites_statement(ledger: Ledger) -> None:
    """Its late energy is booked for the other site, which is not closed, and yet beside the rows that were frozen."""
    ledger.store.add_sites([hall(site="cellar")])
    ledger.book("a", [row(MWH)])
    period = make_period(BEGIN, END, parse_time_zone("UTC"), INTERVAL)
    maker = Maker(ledger.key, "wattledger test")
    closed = close_period(ledger.store, FactorCatalog([[V20]]), period, maker, now_seconds=NOW, site="hall")
    ledger.store.add_assignments([AssignmentRow("a", BEGIN, "cellar", NOW)])
    ledger.book("a", [row(7)])
    assert verify(ledger.bundle(closed)).problems == []
    assert sum(each.energy_microjoules for each in ledger.store.rollups(BEGIN, END)) == MWH + 7


def test_a_sensors_band_that_its_agent_tells_anew_changes_nothing_of_a_statement(ledger: Ledger) -> None:
    """Bands stand in the leaves: once a period is closed, a channel keeps the one that it has."""
    before = opening("a", channels=1)
    ledger.store.add_assignments([AssignmentRow("a", 0, "hall", 0)])
    ledger.store.commit([before])
    booked = following(before, [row(MWH)])
    ledger.store.commit([booked])
    closed = ledger.close()
    told = replace(before.channels[0], uncertainty_upper_ratio=0.5, closed=True)
    ledger.store.commit([replace(following(booked), channels=(told,))])
    assert verify(ledger.bundle(closed)).problems == []
    host, epoch = before.host_after.host, before.cursor_after.epoch
    assert ledger.store.load_channels(host, epoch)[1].closed
