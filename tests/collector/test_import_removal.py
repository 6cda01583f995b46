"""Imports that were wrong: taken back by the exact opposite, replaced in one step, and never out of what was stated."""

import argparse
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.collector.closed_ledgers import BEGIN, CATALOG, DAY, END, INTERVAL, KWH, NOW, Ledger, row
from tests.collector.test_store import downgrade

from wattledger_collector.cli import _parser
from wattledger_collector.import_store import imports, meter_rows
from wattledger_collector.records import AssignmentRow, GapReason, ImportedSpan, SiteRow
from wattledger_collector.report import make_period, make_report, parse_time_zone
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.verify import verify

WATTS = ("--form", "average_watts", "--value-column", "watts", "--label", "start", "--span-seconds", "3600")
HOUR = 3600


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database."""
    folder = tmp_path_factory.mktemp("template")
    made = Ledger(folder, ())
    made.store.close()
    return folder / "ledger.sqlite"


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> Iterator[Ledger]:
    """A ledger with a hall."""
    made = Ledger(tmp_path, template=template)
    yield made
    made.store.close()


def command(ledger: Ledger, *options: str) -> int:
    """A command as an operator types it."""
    parsed: argparse.Namespace = _parser().parse_args([*options, "--store", str(ledger.store.path)])
    status: int = parsed.run(parsed)
    return status


def write(ledger: Ledger, watts: list[str], *, first: int = BEGIN, name: str = "meter.csv", step: int = HOUR) -> Path:
    """A meter's export of hours; empty: a missing value."""
    times = [datetime.fromtimestamp(first + step * place, UTC).isoformat() for place in range(len(watts))]
    path = ledger.folder / name
    path.write_text("\n".join(["time,watts", *(f"{time},{each}" for time, each in zip(times, watts, strict=True)), ""]))
    return path


def imported(ledger: Ledger, file: Path, *options: str, host: str = "m") -> int:
    """Import powers of a host."""
    return command(ledger, "import", "energy", str(file), *WATTS, "--partial-days", "--host", host, *options)


def removed(ledger: Ledger, *options: str) -> int:
    """Take the newest import back."""
    return command(
        ledger, "import", "remove", imports(ledger.store)[-1].provenance.digest, "--reason", "wrong meter", *options
    )


def all_rows(store: SqliteStore) -> tuple[Any, ...]:
    """All that sums are made of."""
    return (
        list(store.rollups(0, 2**40)),
        [(each.host, each.interval_start_seconds, each.energy_microjoules) for each in store.host_energy(0, 2**40)],
        list(store.gaps(0, 2**40)),
    )


def total(ledger: Ledger) -> int:
    """All energy, in microjoules."""
    return sum(each.energy_microjoules for each in ledger.store.rollups(0, 2**40))


def spans(ledger: Ledger, host: str = "m") -> tuple[ImportedSpan, ...]:
    """What the host's row keeps of imports."""
    record = ledger.store.load_host(host)
    assert record is not None
    return record.imported


def test_what_was_taken_back_leaves_nothing_but_its_story(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Energy, coverage, gaps and imported time are as before; the list has when and why."""
    ledger.book("a", [row(7)])
    assert imported(ledger, write(ledger, ["100"], first=BEGIN + DAY, name="other.csv"), "--site", "hall") == 0
    before = all_rows(ledger.store)
    assert imported(ledger, write(ledger, ["100", "", "300"])) == 0
    assert total(ledger) == 7 + 500 * HOUR * 10**6
    assert spans(ledger) == (
        ImportedSpan(0, BEGIN, BEGIN + HOUR),
        ImportedSpan(0, BEGIN + 2 * HOUR, BEGIN + 3 * HOUR),
        ImportedSpan(0, BEGIN + DAY, BEGIN + DAY + HOUR),
    )
    capsys.readouterr()

    assert removed(ledger) == 0

    assert "taken back, 0.400000 kWh from 2023-04-01T00:00:00Z to 2023-04-01T03:00:00Z" in capsys.readouterr().out
    assert all_rows(ledger.store) == before
    assert spans(ledger) == (ImportedSpan(0, BEGIN + DAY, BEGIN + DAY + HOUR),)
    assert command(ledger, "import", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["file"], each["removed_because"]) for each in listed] == [
        ("other.csv", None),
        ("meter.csv", "wrong meter"),
    ]
    assert listed[1]["removed_at"] is not None
    assert all(each.points[1].booked_microjoules == 0 for each in ledger.store.cursors() if each.committed_sequence == 2)


def test_the_same_file_can_be_imported_again(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """After it was taken back it is new; while it counts, it is there already. Any number of times."""
    file = write(ledger, ["100"])
    for _ in range(3):
        assert imported(ledger, file) == 0
        assert total(ledger) == 100 * HOUR * 10**6
        assert removed(ledger) == 0
        assert total(ledger) == 0
    assert imported(ledger, file) == 0
    capsys.readouterr()
    assert imported(ledger, file) == 0
    assert "imported already" in capsys.readouterr().out
    assert len({each.epoch for each in imports(ledger.store)}) == 4


def test_a_corrected_file_replaces_the_wrong_one_in_one_step(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused without --replaces; with it the sums are those of the new file, and the list says what replaced what."""
    assert imported(ledger, write(ledger, ["100", "200"])) == 0
    wrong = imports(ledger.store)[0].provenance.digest
    corrected = write(ledger, ["100", "250", "50"], name="corrected.csv")
    assert imported(ledger, corrected) == 1
    assert "--replaces if the other one was wrong" in capsys.readouterr().err

    assert imported(ledger, corrected, "--replaces", wrong[:12], "--reason", "a typing error") == 0

    assert total(ledger) == 400 * HOUR * 10**6
    first, second = imports(ledger.store)
    assert first.removal is not None
    assert (first.removal.reason, first.removal.replacement) == ("a typing error", second.provenance.digest)
    assert spans(ledger) == (ImportedSpan(0, BEGIN, BEGIN + 3 * HOUR),)


def test_a_replacement_that_is_refused_takes_nothing_back(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The new file overlaps a third one: all stays as it was. So it does in a dry run."""
    assert imported(ledger, write(ledger, ["100"])) == 0
    wrong = imports(ledger.store)[0].provenance.digest
    assert imported(ledger, write(ledger, ["100"], first=BEGIN + HOUR, name="next.csv")) == 0
    before = all_rows(ledger.store), imports(ledger.store), spans(ledger)
    replaces = ("--replaces", wrong, "--reason", "x")

    assert imported(ledger, write(ledger, ["1", "2"], name="both.csv"), *replaces) == 1
    assert "by import next.csv, first at 2023-04-01T01:00:00Z" in capsys.readouterr().err
    assert imported(ledger, write(ledger, ["1"], name="one.csv"), *replaces, "--dry-run") == 0
    assert removed(ledger, "--dry-run") == 0

    assert (all_rows(ledger.store), imports(ledger.store), spans(ledger)) == before


def test_a_closed_period_stands_and_is_restated_by_activity(ledger: Ledger) -> None:
    """An import, a closing, its removal: the old bundle verifies, the difference is what it had booked, to the digit."""
    ledger.book("a", [row(3 * KWH)])
    assert imported(ledger, write(ledger, ["1000000"]), "--site", "hall") == 0
    first = ledger.close()
    frozen = [each for each in ledger.store.rollups(0, 2**40) if each.edition == 0]
    old = ledger.bundle(first, "old")

    assert removed(ledger) == 0

    rollups = list(ledger.store.rollups(0, 2**40))
    assert [each for each in rollups if each.edition == 0] == frozen
    assert sum(each.energy_microjoules for each in rollups if each.edition == 1) == -1000 * KWH
    assert total(ledger) == 3 * KWH
    assert verify(old).problems == []
    assert verify(ledger.bundle(first, "again")).problems == []
    second = ledger.close()
    differences = second.statement.tree["replaces"]["differences"]
    changed = {each["recorded"]: each for each in differences if each["difference"]["exact"] != "0"}
    assert set(changed) == {True}
    for cause, part in changed[True]["causes"].items():
        assert Fraction(part["exact"]) == (-1000 * 727 if cause == "activity" else 0), cause
    assert verify(ledger.bundle(second, "new")).problems == []


def test_an_import_into_a_closed_period_is_late(ledger: Ledger) -> None:
    """It opens the next edition: the statement stands until the period is closed again, and then says activity."""
    ledger.book("a", [row(3 * KWH)])
    ledger.store.add_assignments([AssignmentRow("m", 0, "hall", 0)])
    first = ledger.close()

    assert imported(ledger, write(ledger, ["1000000"]), "--site", "hall") == 0

    assert {each.edition for each in ledger.store.rollups(0, 2**40) if each.recorded} == {1}
    period = make_period(BEGIN, END, parse_time_zone("UTC"), INTERVAL)
    assert make_report(ledger.store, CATALOG, period, now_seconds=NOW).late == (("hall", 1000 * KWH),)
    assert verify(ledger.bundle(first, "first")).problems == []
    second = ledger.close()
    added = [each for each in second.statement.tree["replaces"]["differences"] if each["recorded"]]
    assert [Fraction(each["causes"]["activity"]["exact"]) for each in added] == [1000 * 727]
    assert verify(ledger.bundle(second, "second")).problems == []


def test_energy_goes_back_to_the_site_that_had_it(ledger: Ledger) -> None:
    """A host said later to have stood elsewhere: the hall that its import was booked for gets the opposite."""
    ledger.store.add_sites([SiteRow("other", 0, "IN", "1", False, 0)])
    assert imported(ledger, write(ledger, ["100"]), "--site", "hall") == 0
    ledger.store.add_assignments([AssignmentRow("m", 0, "other", imports(ledger.store)[0].provenance.imported_at_seconds)])

    assert removed(ledger) == 0

    assert list(ledger.store.rollups(0, 2**40)) == []


def test_a_series_beside_and_a_sites_meter_count_no_more(ledger: Ledger) -> None:
    """Their rows stay, as what was imported; overlapping ones can take their place."""
    facility = ("import", "energy", str(write(ledger, ["100"])), *WATTS, "--partial-days", "--point", "facility", "--site")
    assert command(ledger, *facility, "hall") == 0
    assert removed(ledger) == 0
    assert command(ledger, *facility, "hall") == 0
    ledger.book("a", [row(7)])
    assert imported(ledger, write(ledger, ["5"], name="beside.csv"), "--beside", host="a") == 0
    assert removed(ledger) == 0

    assert [each.removal is None for each in imports(ledger.store)] == [False, True, False]
    digest = imports(ledger.store)[0].provenance.digest
    assert sum(each.energy_microjoules for each in meter_rows(ledger.store, digest, 0, 2**40)) == 100 * HOUR * 10**6
    assert total(ledger) == 7


def test_a_refused_commit_leaves_no_assignment(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """What the database can't keep is rolled back with all that belongs to it: host, site, rows."""
    with closing(sqlite3.connect(ledger.store.path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON energy_import BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
        )

    assert imported(ledger, write(ledger, ["100"]), "--site", "hall") == 1

    assert "refused by a test" in capsys.readouterr().err
    assert (ledger.store.assignments(), list(ledger.store.hosts()), total(ledger)) == ([], [], 0)


def test_slips_of_taking_back_are_refused(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each, and an untouched ledger."""
    assert imported(ledger, write(ledger, ["100"])) == 0
    digest = imports(ledger.store)[0].provenance.digest
    before = all_rows(ledger.store)
    other = write(ledger, ["1"], name="other.csv")
    for options, words in (
        (("import", "remove", digest[:7], "--reason", "x"), "give at least 8 digits"),
        (("import", "remove", "0123456789", "--reason", "x"), "is of no import"),
        (("import", "remove", digest, "--reason", "a\nb"), "printable characters"),
        (("import", "energy", str(other), *WATTS, "--partial-days", "--host", "m", "--replaces", digest), "go together"),
        (
            ("import", "energy", str(other), *WATTS, "--partial-days", "--host", "n", "--replaces", digest, "--reason", "x"),
            "meter.csv is booked of m, and other.csv would be booked of n",
        ),
    ):
        assert command(ledger, *options) == 1
        assert words in capsys.readouterr().err
    assert all_rows(ledger.store) == before
    assert command(ledger, "import", "remove", digest, "--reason", "x") == 0
    assert command(ledger, "import", "remove", digest, "--reason", "x") == 1
    assert "was taken back already" in capsys.readouterr().err


def test_an_older_database_learns_what_was_imported(ledger: Ledger) -> None:
    """Rows of hosts from before say nothing of imports: the upgrade reads it from the imports and their holes."""
    ledger.book("a", [row(7)])
    assert imported(ledger, write(ledger, ["100", "", "300", "1"])) == 0
    part = ("--point", "component", "--component", "gpu")
    assert imported(ledger, write(ledger, ["9"], first=BEGIN + DAY, name="gpu.csv"), *part) == 0
    assert imported(ledger, write(ledger, ["9"], name="b.csv"), "--beside", host="b") == 0
    assert any(each.gap.reason is GapReason.MISSING_IN_RECORDING for each in ledger.store.gaps(0, 2**40))
    hosts, path = list(ledger.store.hosts()), ledger.store.path
    ledger.store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        for key, packed in connection.execute("SELECT id, packed FROM host").fetchall():
            fields = msgspec.msgpack.decode(packed)
            assert len(fields) == 13
            connection.execute("UPDATE host SET packed = ? WHERE id = ?", (msgspec.msgpack.encode(fields[:12]), key))
    downgrade(path, "0008")
    ledger.store = open_store(path, create=False)

    assert list(ledger.store.hosts()) == hosts
    assert spans(ledger) == (
        ImportedSpan(0, BEGIN, BEGIN + HOUR),
        ImportedSpan(0, BEGIN + 2 * HOUR, BEGIN + 4 * HOUR),
        ImportedSpan(3, BEGIN + DAY, BEGIN + DAY + HOUR),
    )
    # What was booked before compares as it is stored.
    ledger.book("a", [row(7, BEGIN + INTERVAL)])
    assert total(ledger) == 14 + (401 + 9) * HOUR * 10**6
    assert command(ledger, "import", "remove", imports(ledger.store)[0].provenance.digest, "--reason", "x") == 0
    assert total(ledger) == 14 + 9 * HOUR * 10**6
