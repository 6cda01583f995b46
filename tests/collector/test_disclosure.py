"""One host's day of a statement, shown alone: it verifies, tells nothing of others, and no bit of it can change."""

import json
import random
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from tests.collector.authorities import Authority
from tests.collector.closed_ledgers import BEGIN, DAY, INTERVAL, KWH, Ledger, row

from wattledger_collector.bundle import BundleError
from wattledger_collector.closing import Closed
from wattledger_collector.disclosure import write_disclosure
from wattledger_collector.merkle import leaf_hash
from wattledger_collector.records import Quality
from wattledger_collector.statement_store import checkpoints, keep_time_stamp, log_keys
from wattledger_collector.verify import main, verify

TOLD = "2023-04-02"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with three hosts on two days, before and after a statement of an earlier day."""
    made = Ledger(tmp_path)
    made.book("early", [row(KWH)])
    made.close(begin=BEGIN, end=BEGIN + DAY)
    for host in ("secret-one", "shown", "secret-two"):
        starts = [BEGIN + day * DAY + 7 * INTERVAL for day in (1, 2)]
        made.book(host, [row(5 * KWH + 1, start) for start in starts])
    made.book("shown", [row(KWH, BEGIN + DAY, 2, Quality.MODEL)])
    yield made
    made.store.close()


def closed(ledger: Ledger) -> Closed:
    """The statement of the later days."""
    return ledger.close(begin=BEGIN + DAY, end=BEGIN + 3 * DAY)


def disclose(ledger: Ledger, statement: Closed, name: str = "leaf", day: str = TOLD) -> Path:
    """What is shown of the host."""
    out = ledger.folder / name
    write_disclosure(ledger.store, statement.statement, "shown", day, out)
    return out


def forge(folder: Path, change: Callable[[Any], None]) -> None:
    """Change what is told as somebody who knows the form would: canonical again, and the manifest with it."""
    tree = json.loads((folder / "disclosure.json").read_bytes())
    change(tree)
    put(folder, "disclosure.json", rfc8785.dumps(tree))


def put(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and make the manifest fit."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    (folder / "manifest.json").write_bytes(rfc8785.dumps(manifest))


def test_one_hosts_day_verifies_alone(ledger: Ledger) -> None:
    """Folder and zip file, without and with the statement, the log's key, a later checkpoint and a time stamp."""
    stated = closed(ledger)
    (key,) = log_keys(ledger.store)
    signed = checkpoints(ledger.store)[-1]
    authority = Authority()
    keep_time_stamp(ledger.store, signed, authority.answer(sha256(signed.checkpoint.text.encode()).digest(), 1))
    ledger.book("shown", [row(1, BEGIN + 5 * DAY)])
    ledger.close(begin=BEGIN + 5 * DAY, end=BEGIN + 6 * DAY)
    folder = disclose(ledger, stated)
    verdict = verify(folder, trusted=[str(key)], earlier=str(checkpoints(ledger.store)[0]))
    assert verdict.problems == []
    told = f"host shown on {TOLD} at hall: cpu"
    assert f"{told} 5.000000 kWh (counter, {5 * KWH + 1} microjoules, 0.25 channel hours)" in verdict.facts
    assert f"{told} 1.000000 kWh (model, {KWH} microjoules, 0.25 channel hours)" in verdict.facts
    assert any("is shown where the statement itself is given" in fact for fact in verdict.facts)
    assert any("time stamp 77 of CN=Clock" in fact for fact in verdict.facts)
    zipped = disclose(ledger, stated, "leaf.zip")
    with_statement = verify(zipped, statement=stated.statement.canonical)
    assert with_statement.problems == []
    assert "the leaf is one of the 6 of statement 2, which was given" in with_statement.facts


def test_nothing_of_another_host_is_in_it(ledger: Ledger) -> None:
    """No name, no salt and no figure; the other hosts' hashes are all that stands for them."""
    folder = disclose(ledger, closed(ledger))
    assert sorted(each.name for each in folder.iterdir()) == [
        "checkpoint.txt", "disclosure.json", "keys.txt", "latest.txt", "leaf.bin", "log.json", "manifest.json",
    ]  # fmt: skip
    for path in folder.iterdir():
        assert b"secret" not in path.read_bytes()
        assert b"early" not in path.read_bytes()


def test_no_bit_of_a_disclosed_leaf_can_change(ledger: Ledger) -> None:
    """Random bits of every file; one of the leaf is told as the leaf's."""
    folder = disclose(ledger, closed(ledger))
    chance = random.Random(5)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for _ in range(12):
            bit = chance.randrange(8 * len(data))
            spoiled = bytearray(data)
            spoiled[bit // 8] ^= 1 << bit % 8
            path.write_bytes(spoiled)
            problems = verify(folder).problems
            assert problems, (path.name, bit)
            if path.name == "leaf.bin":
                assert any(problem.startswith(f"the leaf of host shown on {TOLD} is not in the log") for problem in problems)
        path.write_bytes(data)
    assert verify(folder).is_good


def test_the_leaf_of_another_statement_is_refused(ledger: Ledger) -> None:
    """A restatement has another leaf of the same host and day: each proves its own statement alone."""
    first = closed(ledger)
    ledger.book("shown", [row(9 * KWH, BEGIN + DAY)])
    second = closed(ledger)
    one, two = disclose(ledger, first, "one"), disclose(ledger, second, "two")
    told = json.loads((two / "disclosure.json").read_bytes())
    problems = verify(one, statement=second.statement.canonical).problems
    assert problems == ["the statement that was given is not statement 2 of the disclosure"]
    # The leaf of the first under the proofs of the second, and said to be one of the second.
    put(two, "leaf.bin", (one / "leaf.bin").read_bytes())
    assert f"the leaf of host shown on {TOLD} is not in statement 3: leaf 2 is not in the tree" in verify(two).problems[0]
    forge(one, lambda tree: tree.update(statement=told["statement"]))
    problems = verify(one, statement=second.statement.canonical).problems
    assert any("is not in the log" in problem for problem in problems)
    assert any("statement 3 ends elsewhere" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.update(index=1), "is not in statement 2"),
        (lambda tree: tree.update(index=99), "leaf 99 can't be in a tree of 6"),
        (lambda tree: tree.update(index=True), "no whole number"),
        (lambda tree: tree.update(host="secret-one"), "says that it is of shown"),
        (lambda tree: tree.update(day="2023-04-03"), "says that it is of shown on 2023-04-02"),
        (lambda tree: tree["statement"]["leaves"].update(root="00" * 32), "is not in the tree with root 0000"),
        (lambda tree: tree["statement"].update(leaf_hash="00" * 32), "statement 2 is not in the log"),
        (lambda tree: tree.update(in_log=["00" * 32] * 65), "a proof has at most 64"),
        (lambda tree: tree["statement"]["log"].update(first="9" * 5000), "can't be read on"),
    ],
    ids=["place", "no place", "type", "host", "day", "root", "statement", "long", "text"],
)
def test_what_is_told_falsely_of_a_leaf_is_named(ledger: Ledger, change: Callable[[Any], None], words: str) -> None:
    """Also where whoever changed it made the manifest fit."""
    folder = disclose(ledger, closed(ledger))
    forge(folder, change)
    assert any(words in problem for problem in verify(folder).problems)


def test_a_disclosure_says_of_its_statement_what_that_says(ledger: Ledger) -> None:
    """A number that the statement does not have is noticed where the statement is given."""
    stated = closed(ledger)
    folder = disclose(ledger, stated)
    forge(folder, lambda tree: tree["statement"].update(number=7))
    problems = verify(folder, statement=stated.statement.canonical).problems
    assert problems == ["the disclosure tells of statement 7 what it does not say"]


def test_a_leaf_without_its_salt_fails(ledger: Ledger) -> None:
    """Left out, or another one: nobody can put a leaf together that was not signed."""
    folder = disclose(ledger, closed(ledger))
    entry = (folder / "leaf.bin").read_bytes()
    length = int.from_bytes(entry[:4], "big")
    header = json.loads(entry[4 : 4 + length])
    for salt, words in (("", "has no salt"), ("00" * 16, "is not in the log")):
        data = rfc8785.dumps({**header, "salt": salt})
        put(folder, "leaf.bin", len(data).to_bytes(4, "big") + data + entry[4 + length :])
        assert any(words in problem for problem in verify(folder).problems)
    del header["salt"]
    data = rfc8785.dumps(header)
    put(folder, "leaf.bin", len(data).to_bytes(4, "big") + data + entry[4 + length :])
    assert any("can't be read (KeyError: 'salt')" in problem for problem in verify(folder).problems)


def test_what_cannot_be_disclosed_is_one_sentence(ledger: Ledger) -> None:
    """A host or day that the statement does not have, a place that is taken, and rows that were changed."""
    stated = closed(ledger)
    for host, day, words in (
        ("nobody", TOLD, "has no leaf of host nobody"),
        ("early", TOLD, "has no leaf of host early"),
        ("shown", "2023-04-09", "has no leaf of host shown on 2023-04-09"),
        ("shown", "soon", "is no day"),
    ):
        with pytest.raises(BundleError, match=words):
            write_disclosure(ledger.store, stated.statement, host, day, ledger.folder / "leaf")
    disclose(ledger, stated)
    with pytest.raises(BundleError, match="is there already"):
        disclose(ledger, stated)
    with ledger.store.writing() as connection:
        connection.exec_driver_sql("UPDATE energy SET energy_microjoules = energy_microjoules + 1")
    with pytest.raises(BundleError, match="not those that were closed"):
        disclose(ledger, stated, "changed")
    assert sorted(each.name for each in ledger.folder.iterdir() if "leaf" in each.name or "changed" in each.name) == ["leaf"]


def test_a_leaf_of_a_part_of_a_day_is_the_one_that_was_closed(ledger: Ledger) -> None:
    """A period that begins within a day of UTC has a leaf of the rest of it."""
    noon = BEGIN + DAY + 6 * INTERVAL
    stated = ledger.close(begin=noon, end=noon + DAY)
    folder = disclose(ledger, stated)
    assert verify(folder).problems == []
    entry = (folder / "leaf.bin").read_bytes()
    told = json.loads((folder / "disclosure.json").read_bytes())
    assert leaf_hash(entry).hex() != told["statement"]["leaf_hash"]
    assert json.loads(entry[4 : 4 + int.from_bytes(entry[:4], "big")])["first_interval_seconds"] == noon


def test_the_command_ends_with_what_was_shown(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0 and a line that says no more than that; a statement beside a bundle is refused."""
    stated = closed(ledger)
    statement = tmp_path / "statement.json"
    statement.write_bytes(stated.statement.canonical)
    assert main([str(disclose(ledger, stated)), "--statement", str(statement)]) == 0
    assert capsys.readouterr().out.endswith("verified: the leaf is in the log as it was signed\n")
    assert main([str(ledger.bundle(stated)), "--statement", str(statement)]) == 1
    assert "FAILED: the bundle can't be read on: ValueError: a statement was given" in capsys.readouterr().out
