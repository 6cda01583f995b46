"""Writes what shows one host's day of a statement, and nothing of another host: its leaf, and proofs that lead to the log.

Checks nothing but that the ledger's rows still give the leaf that was closed; `verify_leaf.py` does the rest. Sources of
truth: the frozen rows, RFC 6962. Hashes of other leaves tell nothing, since leaves are salted.
"""

from datetime import date
from pathlib import Path
from typing import Final

from wattledger_collector.bundle import (
    TIME_STAMPS_MAX,
    BundleError,
    check_place,
    log_json,
    log_texts,
    named_stamps,
    write_files,
)
from wattledger_collector.closing import leaves_of
from wattledger_collector.leaves import Leaf
from wattledger_collector.log_border import split_hashes
from wattledger_collector.merkle import inclusion_proof, leaf_hash
from wattledger_collector.statement import canonical
from wattledger_collector.statement_store import Stored, checkpoints, log_leaves, time_stamps
from wattledger_collector.store import SqliteStore

FORMAT: Final = "wattledger disclosure 1"


def write_disclosure(store: SqliteStore, statement: Stored, host: str, day: str, out: Path) -> int:
    """Write the leaf of a host and day (UTC, ISO) with its proofs; returns the bytes. out: as for a bundle.

    Raises BundleError and StoreError; then nothing is left behind.
    """
    check_place(out)
    leaf = _leaf(store, statement, host, day)
    digest = leaf_hash(leaf.entry)
    hashes = split_hashes(statement.log_hashes)
    if digest not in hashes[:-1]:
        raise BundleError(
            f"the ledger's rows of host {host} on {day} are not those that were closed: restore a backup that holds them"
        )
    place = hashes.index(digest)
    signed = checkpoints(store)
    leaves = log_leaves(store, statement.log_size)
    tree = statement.tree
    told = {
        "host": host,
        "day": day,
        "index": place,
        "statement": {
            "number": statement.number,
            "sha256": statement.sha256,
            "leaf_hash": hashes[-1].hex(),
            "leaves": tree["leaves"],
            "log": tree["log"],
        },
        "in_statement": [each.hex() for each in inclusion_proof(hashes[:-1], place)],
        "in_log": [each.hex() for each in inclusion_proof(leaves, statement.log_first + place)],
        "statement_in_log": [each.hex() for each in inclusion_proof(leaves, statement.log_size - 1)],
    }
    stamps = time_stamps(store, statement.log_size)[:TIME_STAMPS_MAX]
    files = {
        **log_texts(store, statement, signed),
        "disclosure.json": canonical(told),
        "leaf.bin": leaf.entry,
        "log.json": log_json(store, statement, signed, stamps),
    }
    return write_files(out, FORMAT, sorted(files.items()), named_stamps(stamps))


def _leaf(store: SqliteStore, statement: Stored, host: str, day: str) -> Leaf:
    try:
        asked = date.fromisoformat(day)
    except ValueError as error:
        raise BundleError(f"{day!r} is no day: write it as 2026-01-31 (UTC)") from error
    for leaves in leaves_of(store, statement, only=asked):
        for leaf in leaves:
            if leaf.host == host:
                return leaf
    raise BundleError(
        f"statement {statement.number} has no leaf of host {host} on {day}: nothing was booked for it there; "
        "`wattledger-collector host list` shows the hosts' names"
    )
