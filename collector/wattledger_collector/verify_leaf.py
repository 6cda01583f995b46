"""Checks what was disclosed of one host and day: its leaf, and that it stands in the log at its place in a statement.

Reckons nothing but the leaf's own sums; nothing of another host is in it. Sources of truth: RFC 6962 for the proofs,
`leaves.py` for the form of a leaf, which is read here with code of its own.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import numpy as np
import rfc8785

from wattledger_collector.merkle import ProofError, check_inclusion, leaf_hash
from wattledger_collector.verdict import Verdict
from wattledger_collector.verify_bytes import CheckedFiles
from wattledger_collector.verify_log import LogCheck, Trust

DISCLOSURE_FORMAT: Final = "wattledger disclosure 1"
DISCLOSURE_FILES: Final = ("checkpoint.txt", "disclosure.json", "keys.txt", "latest.txt", "leaf.bin", "log.json")
SALT_BYTES: Final = 16
MICROJOULES_PER_KWH: Final = 3_600_000_000_000
NANOSECONDS_PER_HOUR: Final = 3_600 * 10**9

Tree = Mapping[str, Any]


def check_disclosure(checked: CheckedFiles, trust: Trust, statement: bytes | None) -> None:
    """Add to the verdict what is found. statement: the bytes of the statement, if the reader has it.

    Raises OSError, NoteError, ProofError, ValueError, KeyError, TypeError and IndexError for what can't be read on.
    """
    verdict, files = checked.verdict, checked.files
    verdict.conclusion = "the leaf is in the log as it was signed"
    told = checked.canonical("disclosure.json")
    entry = files.read("leaf.bin")
    host, day = told["host"], told["day"]
    problem = leaf_problem(entry, host, day)
    if problem:
        verdict.complain(f"the leaf of host {host} on {day} {problem}")
    digest = leaf_hash(entry)
    place, of = told["index"], told["statement"]
    count, root = of["leaves"]["count"], bytes.fromhex(of["leaves"]["root"])
    name = f"the leaf of host {host} on {day}"
    _check_in(verdict, f"{name} is not in statement {of['number']}", digest, place, count, told["in_statement"], root)
    log = LogCheck(files, verdict, trust, checked.canonical("log.json"))
    own = log.own.checkpoint
    at = of["log"]["first"] + place
    _check_in(verdict, f"{name} is not in the log", digest, at, own.size, told["in_log"], own.root)
    if own.size != of["log"]["first"] + count + 1:
        verdict.complain(f"the checkpoint is of {own.size} leaves, statement {of['number']} ends elsewhere")
    stated = bytes.fromhex(of["leaf_hash"])
    what = f"statement {of['number']} is not in the log"
    _check_in(verdict, what, stated, own.size - 1, own.size, told["statement_in_log"], own.root)
    log.run(of["log"]["origin"])
    if statement is None:
        verdict.tell(
            f"the log has this leaf; that it is one of statement {of['number']}, with sha256 {of['sha256']}, is shown "
            "where the statement itself is given with --statement"
        )
    else:
        _check_statement(verdict, of, stated, statement)
    if not problem:
        for line in leaf_lines(entry):
            verdict.tell(line)


def leaf_problem(entry: bytes, host: str, day: str) -> str:
    """What is wrong with a leaf's form; empty: nothing."""
    try:
        length = int.from_bytes(entry[:4], "big")
        header = json.loads(entry[4 : 4 + length])
        if rfc8785.dumps(header) != entry[4 : 4 + length]:
            return "is not in its canonical form: it was changed"
        if (header["host"], header["day"]) != (host, day):
            return f"says that it is of {header['host']} on {header['day']}"
        if len(bytes.fromhex(header["salt"])) != SALT_BYTES:
            return "has no salt, so that anybody could guess it"
        _values(entry)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        return f"can't be read ({type(error).__name__}: {error})"
    return ""


def leaf_lines(entry: bytes) -> list[str]:
    """What a leaf says, a line for each site, component and kind of figure."""
    header, values = _values(entry)
    sums: dict[tuple[str, str, str], list[int]] = {}
    for series, (energy, covered) in zip(header["series"], values, strict=True):
        total = sums.setdefault((series["site"], series["component"], series["quality"]), [0, 0])
        total[0] += sum(energy.tolist())
        total[1] += sum(covered.tolist())
    return [
        f"host {header['host']} on {header['day']} at {site}: {component} {energy / MICROJOULES_PER_KWH:.6f} kWh "
        f"({quality}, {energy} microjoules, {covered / NANOSECONDS_PER_HOUR:.2f} channel hours)"
        for (site, component, quality), (energy, covered) in sorted(sums.items())
    ]


def _values(entry: bytes) -> tuple[Tree, "np.ndarray[Any, np.dtype[np.int64]]"]:
    begin = 4 + int.from_bytes(entry[:4], "big")
    header = json.loads(entry[4:begin])
    intervals = header["intervals"]
    if type(intervals) is not int or intervals < 1:
        raise ValueError("it has no intervals")
    values = np.frombuffer(entry, ">i8", offset=begin).astype(np.int64)
    return header, values.reshape(len(header["series"]), 2, intervals)


def _check_in(verdict: Verdict, what: str, digest: bytes, place: int, size: int, proof: list[str], root: bytes) -> None:
    try:
        if type(place) is not int or type(size) is not int:
            raise ProofError("its place is no whole number")
        check_inclusion(digest, place, size, [bytes.fromhex(each) for each in proof], root)
    except ProofError as error:
        verdict.complain(f"{what}: {error}")


def _check_statement(verdict: Verdict, told: Tree, stated: bytes, text: bytes) -> None:
    """Whether the statement that the reader has is the one that the leaf is said to be of."""
    if leaf_hash(text) != stated or sha256(text).hexdigest() != told["sha256"]:
        verdict.complain(f"the statement that was given is not statement {told['number']} of the disclosure")
        return
    tree = json.loads(text)
    own = {name: tree[name] for name in ("number", "leaves", "log")}
    if own != {name: told[name] for name in own}:
        verdict.complain(f"the disclosure tells of statement {told['number']} what it does not say")
        return
    verdict.tell(f"the leaf is one of the {tree['leaves']['count']} of statement {tree['number']}, which was given")
