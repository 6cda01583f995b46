"""Writes a statement with all that is needed to check it, into a folder or a zip file.

Checks nothing but that the ledger's rows still give the leaves that were closed; `verify.py` does the rest. Source of truth:
the statement as it is kept, and the table of files in the README.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from wattledger_collector.closing import Progress, leaves_of
from wattledger_collector.leaves import Leaf
from wattledger_collector.log_border import split_hashes
from wattledger_collector.merkle import consistency_proof, leaf_hash
from wattledger_collector.records import StoreError
from wattledger_collector.signed_note import SignedCheckpoint
from wattledger_collector.statement import canonical
from wattledger_collector.statement_store import (
    Stored,
    border_at,
    checkpoints,
    log_keys,
    log_leaves,
    time_stamps,
)
from wattledger_collector.store import SqliteStore
from wattledger_collector.strict_zip import ZipError, ZipWriter

FORMAT: Final = "wattledger bundle 1"

# From so many checkpoints, the newest, a bundle shows that the log only grew: five years of monthly statements.
PROOFS_MAX: Final = 60

# The first that came after a statement say the most.
TIME_STAMPS_MAX: Final = 12

Add = Callable[[str, bytes], None]


class BundleError(ValueError):
    """A bundle can't be written; the text says why and what to do."""


def write_bundle(store: SqliteStore, statement: Stored, out: Path, progress: Progress = lambda seconds: None) -> int:
    """Write the bundle; returns its bytes. out: a folder or, by its suffix, a zip file; neither may be there yet.

    Raises BundleError and StoreError; then nothing is left behind.
    """
    check_place(out)
    stamps = time_stamps(store, statement.log_size)[:TIME_STAMPS_MAX]
    last = [("statement.json", statement.canonical), *named_stamps(stamps)]
    return write_files(out, FORMAT, _files(store, statement, stamps, progress), last)


def check_place(out: Path) -> None:
    """Raises BundleError if nothing can be written there."""
    if out.exists():
        raise BundleError(f"{out} is there already: name another place, or remove it")
    if not out.parent.is_dir():
        raise BundleError(f"there is no folder {out.parent}: make it first")


def write_files(out: Path, form: str, before: Iterable[tuple[str, bytes]], after: Iterable[tuple[str, bytes]]) -> int:
    """Write files and their manifest; returns the bytes.

    before, after: the files whose names come before and after the manifest's, in order, as a zip file has them. Raises
    BundleError, and what making the files raises; then nothing is left behind.
    """
    files: dict[str, dict[str, int | str]] = {}
    last = list(after)
    try:
        with _sink(out) as add:
            for name, data in before:
                files[name] = _told(data)
                add(name, data)
            files |= {name: _told(data) for name, data in last}
            manifest = canonical({"format": form, "files": files})
            for name, data in [("manifest.json", manifest), *last]:
                add(name, data)
    except OSError as error:
        raise BundleError(f"cannot write {out} ({error.strerror}): check the folder and its free space") from error
    except ZipError as error:
        raise BundleError(f"cannot write {out}: {error}") from error
    return sum(int(each["bytes"]) for each in files.values()) + len(manifest)


def log_texts(store: SqliteStore, statement: Stored, signed: Sequence[SignedCheckpoint]) -> dict[str, bytes]:
    """The checkpoint with the statement, the newest one, and the log's keys, by their files' names."""
    own = next(each for each in signed if each.checkpoint.size == statement.log_size)
    return {
        "checkpoint.txt": str(own).encode(),
        "keys.txt": "".join(f"{key}\n" for key in log_keys(store)).encode(),
        "latest.txt": str(signed[-1]).encode(),
    }


def named_stamps(stamps: Iterable[tuple[SignedCheckpoint, bytes]]) -> list[tuple[str, bytes]]:
    """Time stamps with their files' names."""
    return [(_stamp_name(place), answer) for place, (_, answer) in enumerate(stamps)]


def _told(data: bytes) -> dict[str, int | str]:
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def _stamp_name(place: int) -> str:
    return f"time-stamp-{place + 1:02}.tsr"


def _files(
    store: SqliteStore, statement: Stored, stamps: Sequence[tuple[SignedCheckpoint, bytes]], progress: Progress
) -> Iterator[tuple[str, bytes]]:
    """All files up to the manifest, in order of their names."""
    signed = checkpoints(store)
    texts = log_texts(store, statement, signed)
    yield "checkpoint.txt", texts["checkpoint.txt"]
    yield "gaps.json", statement.gaps
    yield "keys.txt", texts["keys.txt"]
    yield "latest.txt", texts["latest.txt"]
    index: list[list[str]] = []
    expected = iter(split_hashes(statement.log_hashes))
    for day in leaves_of(store, statement, progress):
        for leaf in day:
            digest = leaf_hash(leaf.entry)
            if digest != next(expected, None):
                raise BundleError(
                    f"the ledger's rows of host {leaf.host} on {leaf.day} are not those that were closed: "
                    f"the database was changed, restore a backup that holds them"
                )
            index.append([leaf.day, leaf.host, digest.hex()])
        yield f"leaves-{day[0].day}.bin", b"".join(_framed(day))
    if len(index) != statement.leaf_count:
        raise BundleError(
            f"the ledger has rows for {len(index)} host-days of {statement.leaf_count} that were closed: "
            f"restore a backup that holds them"
        )
    yield "leaves.json", canonical(index)
    yield "log.json", log_json(store, statement, signed, stamps)


def _framed(leaves: Iterable[Leaf]) -> Iterator[bytes]:
    for leaf in leaves:
        yield len(leaf.entry).to_bytes(4, "big")
        yield leaf.entry


def log_json(
    store: SqliteStore,
    statement: Stored,
    signed: Sequence[SignedCheckpoint],
    stamps: Sequence[tuple[SignedCheckpoint, bytes]],
) -> bytes:
    """The log's state before the statement, and proofs that it only grew since each of its checkpoints."""
    latest = signed[-1].checkpoint.size
    leaves = log_leaves(store, latest)
    if len(leaves) != latest:
        raise StoreError(f"the log has {len(leaves)} leaves of {latest}: restore the latest backup")
    stamped = {each.checkpoint.size for each, _ in stamps}
    sizes = sorted({each.checkpoint.size for each in signed[-PROOFS_MAX:]} | {statement.log_size} | stamped)
    return canonical(
        {
            "border": [each.hex() for each in border_at(store, statement.log_first).hashes],
            "proofs": [
                {"from": size, "to": latest, "hashes": [each.hex() for each in consistency_proof(leaves, size)]}
                for size in sizes
            ],
            # By them each key is vouched for by the one before it.
            "rotations": [str(each) for each in signed if each.checkpoint.next_key],
            # Which file is of which checkpoint.
            "time_stamps": {_stamp_name(place): str(each) for place, (each, _) in enumerate(stamps)},
        }
    )


@contextmanager
def _sink(out: Path) -> Iterator[Add]:
    """Where files go; the place appears with its name once it is whole."""
    partial = out.with_name(out.name + ".partial")
    try:
        if out.suffix == ".zip":
            with partial.open("wb") as file:
                writer = ZipWriter(file)
                yield writer.add
                writer.close()
        else:
            partial.mkdir()

            def add(name: str, data: bytes) -> None:
                (partial / name).write_bytes(data)

            yield add
        partial.rename(out)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
