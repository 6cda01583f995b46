"""Bundles that somebody changed who knows their form: each ends in sentences and exit status 1, and never in a crash."""

import copy
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.collector.closed_ledgers import BEGIN, DAY, INTERVAL, KWH, REVISED, Ledger, row

from wattledger_collector.closing import Closed
from wattledger_collector.log_border import split_hashes
from wattledger_collector.signed_note import cosign, parse_checkpoint, verifier_key
from wattledger_collector.statement_store import Draft, append, checkpoints, keep_cosignatures
from wattledger_collector.strict_zip import ENTRIES_MAX
from wattledger_collector.verdict import LINE_MAX, PROBLEMS_MAX, shown
from wattledger_collector.verify import main

Capture = pytest.CaptureFixture[str]

MUTATIONS = 250
# What stands where something else belongs.
JUNK: list[Any] = [
    None, True, -1, 0, 2**53 - 1, 0.5, 1e300, "", "x", "9" * 5000, "-0", "1e999999", "1/0", "nan", "\u202e", "\x1b[2J",
    [], {}, [[]], {"a": None}, [None] * 3,
]  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two statements of one period and one of another, each as a folder and the last also as a zip file."""
    folder = tmp_path_factory.mktemp("originals")
    ledger = Ledger(folder)
    for host in ("one", "two"):
        starts = [BEGIN + day * DAY + 7 * INTERVAL for day in range(2)]
        ledger.book(host, [row(7 * KWH + start, start, channel) for start in starts for channel in (1, 2)])
    ledger.bundle(ledger.close(), "first")
    ledger.bundle(ledger.close(REVISED), "second")
    ledger.book("one", [row(5, BEGIN)])
    last = ledger.close(REVISED, end=BEGIN + DAY)
    ledger.bundle(last, "third")
    ledger.bundle(last, "third.zip")
    ledger.store.close()
    return folder


@pytest.fixture
def bundle(originals: Path, tmp_path: Path) -> Path:
    """A copy of a bundle in a folder, to be changed."""
    return Path(shutil.copytree(originals / "second", tmp_path / "bundle"))


@pytest.fixture
def zipped(originals: Path, tmp_path: Path) -> Path:
    """A copy of a bundle in a zip file, to be changed."""
    return Path(shutil.copy(originals / "third.zip", tmp_path / "bundle.zip"))


def told(capsys: Capture, *places: Path) -> list[str]:
    """What the command says to something that was changed: lines that any terminal shows, and status 1."""
    status = main([str(place) for place in places])
    out, complaints = capsys.readouterr()
    assert (status, complaints) == (1, "")
    *lines, last = out.splitlines()
    assert last == "NOT verified"
    failed = [line.removeprefix("FAILED: ") for line in lines if line.startswith("FAILED: ")]
    assert 0 < len(failed) <= PROBLEMS_MAX * len(places)
    assert all(line.isprintable() and len(line) < LINE_MAX + 20 for line in lines)
    return failed


def put(bundle: Path, name: str, data: bytes) -> None:
    """Replace a file, and make the manifest fit."""
    (bundle / name).write_bytes(data)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    (bundle / "manifest.json").write_bytes(rfc8785.dumps(manifest))


def change(bundle: Path, name: str, how: Callable[[Any], object]) -> None:
    """Change what a file says, canonical again, and make the manifest fit."""
    tree = json.loads((bundle / name).read_bytes())
    how(tree)
    put(bundle, name, rfc8785.dumps(tree))


# -- Bytes that are no text of a bundle


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[1]", b"{}", b'"text"', b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"1" * 5000 + b"]",
        b"[9007199254740993]", b'{"format":NaN}', b'{"format":1e999}', b'{"format":"\\ud800"}', b"\xff\xfe",
        b"\xef\xbb\xbf{}", bytes(1000),
    ],
    ids=["empty", "null", "list", "object", "text", "deep list", "deep object", "digits", "integer", "nan", "infinite",
         "surrogate", "encoding", "mark", "zeros"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["manifest.json", "statement.json", "log.json", "gaps.json", "leaves.json"])
def test_what_is_no_text_of_a_bundle_is_told(bundle: Path, capsys: Capture, name: str, data: bytes) -> None:
    """Each file, with each kind of nonsense, which the manifest vouches for."""
    if name == "manifest.json":
        (bundle / name).write_bytes(data)
    else:
        put(bundle, name, data)
    assert told(capsys, bundle)


@pytest.mark.parametrize("name", ["statement.json", "log.json", "gaps.json", "leaves.json"])
def test_a_text_has_one_form(bundle: Path, capsys: Capture, name: str) -> None:
    """A key that comes twice, a space, an order of keys, another way to write a sign or a number."""
    data = (bundle / name).read_bytes()
    tree = json.loads(data)
    forms = [json.dumps(tree).encode(), data + b"\n", b" " + data]
    if data.startswith(b"{"):
        key = next(iter(tree))
        forms += [b'{"' + key.encode() + b'":0,' + data[1:], rfc8785.dumps(dict(reversed(tree.items())))[:-1] + b" }"]
    for form in forms if tree else forms[1:]:
        put(bundle, name, form)
        assert any(f"{name} is not in its canonical form" in line for line in told(capsys, bundle))


def test_what_stands_where_something_else_belongs_is_told(bundle: Path, capsys: Capture) -> None:
    """Hundreds of places of all files, each with some nonsense, the manifest made to fit; or a part left out or doubled."""
    chance = random.Random(22)
    texts = {name: (bundle / name).read_bytes() for name in ("statement.json", "leaves.json", "gaps.json", "log.json")}
    manifest = (bundle / "manifest.json").read_bytes()
    for number in range(MUTATIONS):
        name = chance.choice(["statement.json"] * 3 + ["leaves.json", "log.json"])
        tree = json.loads(texts[name])
        spoil(tree, chance)
        try:
            data = rfc8785.dumps(tree)
        except ValueError:
            continue
        if data == texts[name]:
            continue
        put(bundle, name, data)
        # Proofs of what nobody asks for may say what they like.
        if name != "log.json":
            told(capsys, bundle)
        else:
            assert main([str(bundle)]) in (0, 1), number
        (bundle / name).write_bytes(texts[name])
        (bundle / "manifest.json").write_bytes(manifest)
    assert main([str(bundle)]) == 0


def spoil(tree: Any, chance: random.Random) -> None:
    """Change one place of a tree."""
    places = [(holder, key) for holder in holders(tree) for key in keys_of(holder)]
    holder, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case 2 if isinstance(holder, list) and len(holder) > 1:
            chance.shuffle(holder)
        case _:
            holder[key] = copy.deepcopy(chance.choice(JUNK))


def keys_of(holder: Any) -> Any:
    """Where the parts of an object or list are."""
    return list(holder) if isinstance(holder, dict) else range(len(holder))


def holders(tree: Any) -> Iterator[Any]:
    """All objects and lists of a tree that have something in them."""
    if isinstance(tree, dict | list) and tree:
        yield tree
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from holders(each)


# -- The container


def entries(path: Path) -> list[tuple[str, bytes]]:
    """The files of a zip file."""
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def pack(path: Path, files: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> None:
    """Write a zip file as other programs do."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, method)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_file_of_another_form_is_refused(zipped: Path, capsys: Capture) -> None:
    """The same files packed by another program, compressed, in another order, twice, without one, or with another."""
    files = entries(zipped)
    for others, method in (
        (files, zipfile.ZIP_STORED),
        (files, zipfile.ZIP_DEFLATED),
        (files, zipfile.ZIP_LZMA),
        (files[::-1], zipfile.ZIP_STORED),
        ([*files, files[0]], zipfile.ZIP_STORED),
        ([], zipfile.ZIP_STORED),
        ([("../../etc/passwd", b"x"), *files], zipfile.ZIP_STORED),
        ([("/etc/passwd", b"x"), *files], zipfile.ZIP_STORED),
    ):
        pack(zipped, others, method)
        told(capsys, zipped)


def test_a_zip_file_with_something_around_it_is_refused(zipped: Path, capsys: Capture) -> None:
    """A comment, bytes before, after and between, a second archive, and an end that is missing."""
    data = zipped.read_bytes()
    comment = struct.pack("<H", 5) + b"hello"
    for spoiled in (
        data[:-2] + comment, b"MZ" + data, data + b"\0", data + data, data[:-1], data[: len(data) // 2],
        data[:40], data[:3], b"",
    ):  # fmt: skip
        zipped.write_bytes(spoiled)
        told(capsys, zipped)


def test_a_zip_file_that_claims_what_it_does_not_have_is_refused(zipped: Path, capsys: Capture) -> None:
    """A size of 4 GiB, names of 64 KiB that are no text, and more files than any bundle."""
    data = bytearray(zipped.read_bytes())
    struct.pack_into("<2I", data, 18, 2**32 - 1, 2**32 - 1)
    zipped.write_bytes(data)
    told(capsys, zipped)
    header = struct.Struct("<4s5H3I2H")
    name = b"\xff" * 65_535
    zipped.write_bytes(header.pack(b"PK\x03\x04", 20, 0x0800, 0, 0, 0x21, 0, 0, 0, len(name), 0) + name)
    assert "is not UTF-8" in told(capsys, zipped)[0]
    with zipped.open("wb") as file:
        for number in range(ENTRIES_MAX + 2):
            name = f"{number:08}".encode()
            file.write(header.pack(b"PK\x03\x04", 20, 0x0800, 0, 0, 0x21, 0, 0, 0, len(name), 0) + name)
    assert f"more than {ENTRIES_MAX} files" in told(capsys, zipped)[0]


def test_a_file_beyond_all_bounds_is_not_read(bundle: Path, capsys: Capture) -> None:
    """A terabyte of nothing, which a folder shows as a file like any other."""
    for name in ("leaves-2023-04-01.bin", "statement.json", "manifest.json"):
        data = (bundle / name).read_bytes()
        with (bundle / name).open("r+b") as file:
            file.truncate(2**40)
        assert f"{name} has more than" in told(capsys, bundle)[-1]
        (bundle / name).write_bytes(data)


def test_what_a_bundle_does_not_need_is_refused(bundle: Path, capsys: Capture) -> None:
    """Also where the manifest vouches for it: a program, a day without leaves, a stamp that the log's file does not name."""
    for name, words in (
        ("setup.exe", "setup.exe does not belong to the bundle"),
        ("leaves-2023-05-01.bin", "leaves-2023-05-01.bin is of a day of which leaves.json has no leaf"),
        ("time-stamp-01.tsr", "time-stamp-01.tsr and log.json do not know each other"),
    ):
        put(bundle, name, b"")
        assert words in told(capsys, bundle)
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        del manifest["files"][name]
        (bundle / "manifest.json").write_bytes(rfc8785.dumps(manifest))
        (bundle / name).unlink()
        assert main([str(bundle)]) == 0
        capsys.readouterr()


def test_names_in_a_bundle_do_not_steer_a_terminal(bundle: Path, capsys: Capture) -> None:
    """Control signs, turned writing and look-alikes are written out, also in names of files that are no text."""
    (bundle / "\x1b[2Jverified\n").write_bytes(b"")
    (Path(os.fsdecode(os.fsencode(bundle) + b"/\xff"))).write_bytes(b"")
    lines = told(capsys, bundle)
    assert "\\x1b[2Jverified\\n does not belong to the bundle" in lines
    assert "\\udcff does not belong to the bundle" in lines
    assert shown("sеrver") == "sеrver (in ASCII: s\\u0435rver)"
    assert shown("a\u202eb") == "a\\u202eb"


# -- Leaves


def test_a_host_of_another_name_with_the_same_letters_is_told_apart(bundle: Path, capsys: Capture) -> None:
    """Names are not in the index's root, and in the leaf itself."""
    change(bundle, "leaves.json", lambda tree: tree[0].__setitem__(1, "оne"))
    lines = told(capsys, bundle)
    assert any("the leaf of host оne on 2023-04-01 says that it is of one" in line for line in lines)
    assert any("\\u043ene" in line for line in lines)


def test_leaves_in_another_order_are_told(bundle: Path, capsys: Capture) -> None:
    """Two swapped, one doubled, one taken out: in the index alone, and in the index and the day's file."""
    path = bundle / "leaves-2023-04-01.bin"
    data = path.read_bytes()
    length = 4 + int.from_bytes(data[:4], "big")
    one, two = data[:length], data[length:]
    index = (bundle / "leaves.json").read_bytes()
    for places, leaves in (((1, 0), two + one), ((0, 0, 1), one + one + two), ((1,), two)):
        tree = json.loads(index)
        put(bundle, "leaves.json", rfc8785.dumps([*(tree[place] for place in places), *tree[2:]]))
        assert "leaves.json does not have the leaves of the statement" in " ".join(told(capsys, bundle))
        put(bundle, "leaves-2023-04-01.bin", leaves)
        lines = " ".join(told(capsys, bundle))
        assert "do not give the root of the signed checkpoint" in lines
        put(bundle, "leaves-2023-04-01.bin", data)
    put(bundle, "leaves.json", index)
    assert main([str(bundle)]) == 0


def test_a_host_and_day_that_a_log_signed_twice_is_told(tmp_path: Path, capsys: Capture) -> None:
    """A maker that counts a leaf twice can sign it; the index has to have each once, in order."""
    ledger = Ledger(tmp_path)
    ledger.book("a", [row(KWH)])
    bundle = ledger.bundle(ledger.close())
    entry = (bundle / "leaves-2023-04-01.bin").read_bytes()
    put(bundle, "leaves-2023-04-01.bin", entry + entry)
    change(bundle, "leaves.json", lambda tree: tree.append(tree[0]))
    assert "leaves.json has a host and day twice, or not in their order" in told(capsys, bundle)
    ledger.store.close()


# -- The log


def test_a_proof_of_another_log_is_told(bundle: Path, capsys: Capture, tmp_path: Path) -> None:
    """Its hashes lead elsewhere, and its checkpoints are signed by somebody else."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = Ledger(folder)
    other.book("x", [row(KWH), row(KWH, BEGIN + DAY), row(KWH, BEGIN + 2 * DAY), row(KWH, BEGIN + 3 * DAY)])
    other.close()
    foreign = other.bundle(other.close(REVISED))
    own = {name: (bundle / name).read_bytes() for name in ("log.json", "latest.txt", "checkpoint.txt", "keys.txt")}
    for names in (("log.json",), ("latest.txt",), ("checkpoint.txt",), ("keys.txt",), tuple(own)):
        for name in names:
            put(bundle, name, (foreign / name).read_bytes())
        assert told(capsys, bundle)
        for name in names:
            put(bundle, name, own[name])
    assert main([str(bundle)]) == 0
    other.store.close()


def test_a_checkpoint_that_a_witness_saw_before_is_not_the_statements(tmp_path: Path, capsys: Capture) -> None:
    """An older state of the log, truly signed by log and witness, in the place of the newest, or of the statement's own."""
    ledger = Ledger(tmp_path)
    ledger.book("a", [row(KWH)])
    ledger.close()
    witness = Ed25519PrivateKey.from_private_bytes(bytes(32))
    (old,) = checkpoints(ledger.store)
    keep_cosignatures(ledger.store, cosign(old, "w.example", witness, 1000))
    (seen,) = checkpoints(ledger.store)
    bundle = ledger.bundle(ledger.close(REVISED))
    key = str(verifier_key(witness, "w.example", 4))
    assert main([str(bundle), "--witness", key]) == 1
    assert "the witness w.example did not sign the checkpoint" in capsys.readouterr().out
    for name in ("latest.txt", "checkpoint.txt"):
        own = (bundle / name).read_bytes()
        put(bundle, name, str(seen).encode())
        assert main([str(bundle), "--witness", key]) == 1
        assert "FAILED" in capsys.readouterr().out
        put(bundle, name, own)
    ledger.store.close()


def test_a_history_that_forks_is_told_where_both_ends_are_shown(tmp_path: Path, capsys: Capture) -> None:
    """Two bundles, each good alone: numbers that come twice, two statements that replace one, and states that differ."""
    key = Ed25519PrivateKey.generate()
    bundles = []
    for name, catalog in (("true", None), ("false", REVISED)):
        folder = tmp_path / name
        folder.mkdir()
        ledger = Ledger(folder)
        with ledger.store.writing() as connection:
            connection.exec_driver_sql("UPDATE database_info SET database_id = 'same'")
            connection.exec_driver_sql("INSERT INTO leaf_secret VALUES (1, zeroblob(32))")
        ledger.store.database_id, ledger.key = "same", key
        ledger.book("a", [row(KWH)])
        first = ledger.close()
        if catalog is None:
            ledger.book("a", [row(5)])
            bundles += [ledger.bundle(first, "first"), ledger.bundle(ledger.close())]
        else:
            bundles.append(ledger.bundle(ledger.close(catalog)))
        ledger.store.close()
    assert all(main([str(bundle)]) == 0 for bundle in bundles)
    assert main([str(bundle) for bundle in bundles[:2]]) == 0
    out = capsys.readouterr().out
    assert out.endswith("verified: 2 statements do not contradict each other\n")
    lines = " ".join(told(capsys, *bundles))
    assert "has two statements 2: history was rewritten" in lines


def test_two_statements_that_replace_one_are_told(tmp_path: Path, capsys: Capture) -> None:
    """A log that signs both: the newest statement of a period would be two."""
    ledger = Ledger(tmp_path)
    ledger.book("a", [row(KWH)])
    ledger.close()
    second = ledger.close(REVISED).statement
    tree = second.tree
    hashes = split_hashes(second.log_hashes)[:-1]
    root = bytes.fromhex(tree["leaves"]["root"])
    draft = Draft(tree, second.closure, second.gaps, second.assignments_last_id, hashes, root)
    with ledger.store.writing() as connection:
        connection.exec_driver_sql("UPDATE closure SET from_seconds = from_seconds - 1 WHERE id = 2")
    third = append(ledger.store, draft, ledger.key)
    bundles = [ledger.bundle(Closed(each, is_new=True), f"bundle-{each.number}") for each in (second, third)]
    (line,) = told(capsys, *bundles)
    assert line.endswith("both replace statement 1: the newest one of a period has to be one")
    assert parse_checkpoint((bundles[1] / "checkpoint.txt").read_text()).checkpoint.size == third.log_size
    ledger.store.close()
