"""Checks a bundle without network and database: every byte, every sum, the log and its signatures.

Trusts nothing that made the bundle, and reckons anew; all it imports of ours are readers of forms and proofs. Needs numpy,
rfc8785 and cryptography alone: `python -m wattledger_collector.verify BUNDLE`. Sources of truth: the README, which says what
is in a bundle; RFC 6962, RFC 8785 and C2SP signed-note for its forms.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import rfc8785

from wattledger_collector.bundle_files import open_files
from wattledger_collector.merkle import ProofError, leaf_hash, node_hash
from wattledger_collector.signed_note import NoteError
from wattledger_collector.strict_zip import ZipError
from wattledger_collector.time_stamps import TimeStampError
from wattledger_collector.verdict import PROBLEMS_MAX, Verdict, shown
from wattledger_collector.verify_arguments import add_arguments
from wattledger_collector.verify_bytes import CheckedFiles
from wattledger_collector.verify_figures import FIRST_FORMAT, LeafSums, figure_problems
from wattledger_collector.verify_leaf import DISCLOSURE_FILES, DISCLOSURE_FORMAT, check_disclosure
from wattledger_collector.verify_log import LogCheck, Trust
from wattledger_collector.verify_together import contradictions, read_claim

BUNDLE_FORMAT: Final = "wattledger bundle 1"
STATEMENT_FORMATS: Final = (FIRST_FORMAT, "wattledger statement 2")
FILES: Final = ("checkpoint.txt", "gaps.json", "keys.txt", "latest.txt", "leaves.json", "log.json", "statement.json")
_STAMP: Final = r"time-stamp-\d{2}\.tsr"
# By form, the files that are needed, and the names of those that may be there.
FORMS: Final = {
    BUNDLE_FORMAT: (FILES, re.compile(rf"leaves-\d{{4}}-\d\d-\d\d\.bin|{_STAMP}")),
    DISCLOSURE_FORMAT: (DISCLOSURE_FILES, re.compile(_STAMP)),
}

Tree = dict[str, Any]


def verify(
    path: Path,
    *,
    earlier: str | None = None,
    trusted: Sequence[str] = (),
    witnesses: Sequence[str] = (),
    authorities: Sequence[bytes] = (),
    statement: bytes | None = None,
    progress: Callable[[str], None] = lambda day: None,
) -> Verdict:
    """Check a bundle, or what was disclosed of one host and day.

    earlier: a checkpoint of the same log that was published before; the log may only have grown since. trusted: keys of the
    log that the reader knows from elsewhere, `name+id+key`; without one the bundle's own first key is believed, and said.
    witnesses: keys of witnesses, all of which must have signed. authorities: certificates (PEM) of time-stamping authorities
    or their roots, to one of which a time stamp must lead. statement: that which a disclosed leaf is said to be of, as
    `statement show --json` or a bundle has it. progress: is told of each day's leaves. Never raises.
    """
    verdict = Verdict()
    try:
        checked = CheckedFiles(open_files(path), verdict)
        trust = Trust(earlier, trusted, witnesses, authorities)
        if checked.check_manifest(FORMS) == DISCLOSURE_FORMAT:
            check_disclosure(checked, trust, statement)
        else:
            if statement is not None:
                raise ValueError("a statement was given beside a bundle, which has its own")
            _Check(checked, progress).run(trust)
    except (OSError, ZipError, NoteError, ProofError, TimeStampError) as error:
        verdict.problems.append(str(error))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError,
            MemoryError) as error:  # fmt: skip
        verdict.problems.append(f"the bundle can't be read on: {type(error).__name__}: {error}")
    del verdict.problems[PROBLEMS_MAX:]
    return verdict


class _Check:
    """The steps of a check; each adds to the verdict what it finds."""

    def __init__(self, checked: CheckedFiles, progress: Callable[[str], None]) -> None:
        self._checked = checked
        self._files = checked.files
        self._verdict = checked.verdict
        self._progress = progress

    def run(self, trust: Trust) -> None:
        statement = self._canonical("statement.json")
        if statement["format"] not in STATEMENT_FORMATS:
            known = " and ".join(map(repr, STATEMENT_FORMATS))
            raise ValueError(f"a statement of the form {statement['format']!r:.80}; this program knows {known}")
        text = self._files.read("statement.json")
        self._verdict.facts.append(
            f"statement {statement['number']} of ledger {statement['database']}, {statement['period']['from']} to "
            f"{statement['period']['to']}, sha256 {sha256(text).hexdigest()}"
        )
        gaps = self._canonical("gaps.json")
        self._check_digests(statement, gaps)
        sums = LeafSums(statement)
        hashes = self._check_leaves(statement, sums)
        for problem in islice(figure_problems(statement, gaps, sums), PROBLEMS_MAX):
            self._problem(problem)
        self._check_log(statement, [*hashes, leaf_hash(text)], trust)

    def _problem(self, text: str) -> None:
        self._verdict.complain(text)

    def _canonical(self, name: str) -> Any:
        return self._checked.canonical(name)

    def _check_digests(self, statement: Tree, gaps: list[Tree]) -> None:
        for name in ("factors", "instruments"):
            part = statement[name]
            if sha256(rfc8785.dumps(part["rows"])).hexdigest() != part["sha256"]:
                self._problem(f"the statement's {name} are not those of their digest")
        own = {"count": len(gaps), "sha256": sha256(self._files.read("gaps.json")).hexdigest()}
        if statement["gaps"] != own:
            self._problem("gaps.json is not what the statement was made with")

    def _check_leaves(self, statement: Tree, sums: LeafSums) -> list[bytes]:
        """Add all leaves up; returns their hashes as they are."""
        index: list[list[str]] = self._canonical("leaves.json")
        root = _tree_root([bytes.fromhex(digest) for _, _, digest in index])
        # An index that gives the statement's root is true, so that a leaf that differs from it is false.
        if root.hex() != statement["leaves"]["root"] or len(index) != statement["leaves"]["count"]:
            self._problem("leaves.json does not have the leaves of the statement: leaves were changed, moved or removed")
        places = [(day, host) for day, host, _ in index]
        if any(one >= other for one, other in pairwise(places)):
            self._problem("leaves.json has a host and day twice, or not in their order")
        days = {f"leaves-{day}.bin" for day, _ in places}
        for name in sorted(each for each in self._files.names if each.startswith("leaves-") and each not in days):
            self._problem(f"{name} is of a day of which leaves.json has no leaf")
        hashes = []
        at = 0
        for day in sorted({day for day, _, _ in index}):
            own = [row for row in index if row[0] == day]
            if index[at : at + len(own)] != own:
                self._problem(f"leaves.json has the leaves of {day} in several places")
            at += len(own)
            for place, entry in enumerate(_entries(self._files.read(f"leaves-{day}.bin"))):
                if place >= len(own):
                    self._problem(f"leaves-{day}.bin has more leaves than leaves.json")
                    break
                digest = leaf_hash(entry)
                hashes.append(digest)
                self._check_leaf(own[place], digest, entry, sums)
            else:
                if place + 1 != len(own):
                    self._problem(f"leaves-{day}.bin lacks the leaf of host {own[place + 1][1]} and what comes after it")
            sums.end_day()
            self._progress(day)
        self._verdict.facts.append(f"the leaves of {len(hashes)} host-days were added up")
        return hashes

    def _check_leaf(self, row: list[str], digest: bytes, entry: bytes, sums: LeafSums) -> None:
        day, host, expected = row
        if digest.hex() != expected:
            self._problem(f"the leaf of host {host} on {day} was changed")
        try:
            told = sums.add(entry)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            self._problem(f"the leaf of host {host} on {day} can't be read: {error}")
            return
        if told != (day, host):
            self._problem(f"the leaf of host {host} on {day} says that it is of {told[1]} on {told[0]}")

    def _check_log(self, statement: Tree, hashes: Sequence[bytes], trust: Trust) -> None:
        log = self._canonical("log.json")
        check = LogCheck(self._files, self._verdict, trust, log)
        own = check.own.checkpoint
        first = statement["log"]["first"]
        if own.size != first + len(hashes):
            self._problem(f"the checkpoint is of {own.size} leaves, the statement ends at {first + len(hashes)}")
        border = [bytes.fromhex(each) for each in log["border"]]
        if _grown_root(first, border, hashes) != own.root:
            self._problem("the leaves and the statement do not give the root of the signed checkpoint")
        check.run(statement["log"]["origin"])
        digest = sha256(self._files.read("statement.json")).hexdigest()
        self._verdict.claim = read_claim(statement, digest, own.size, own.root)


def _entries(data: bytes) -> Iterator[bytes]:
    """The leaves of a day's file; of what does not end as it should, the last one is short."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _tree_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a tree, as RFC 6962 defines it: of the two halves, the left one being the largest power of two."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return node_hash(_tree_root(hashes[:half]), _tree_root(hashes[half:]))


def _grown_root(first: int, border: Sequence[bytes], hashes: Sequence[bytes]) -> bytes:
    """The root of a tree whose first leaves are known by the roots of their complete subtrees, largest first."""
    if len(border) != bin(first).count("1"):
        raise ProofError(f"{len(border)} subtrees do not make {first} leaves")
    sizes = [1 << bit for bit in reversed(range(first.bit_length())) if first >> bit & 1]
    nodes = list(zip(sizes, border, strict=True))
    for digest in hashes:
        nodes.append((1, digest))
        while len(nodes) > 1 and nodes[-1][0] == nodes[-2][0]:
            size, right = nodes.pop()
            nodes[-1] = (2 * size, node_hash(nodes[-1][1], right))
    root = nodes.pop()[1]
    while nodes:
        root = node_hash(nodes.pop()[1], root)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0 all is as it was signed, 1 it is not."""
    parser = argparse.ArgumentParser(prog="wattledger-collector verify", description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Check and tell."""
    try:
        earlier = None if arguments.checkpoint is None else arguments.checkpoint.read_text(encoding="utf-8")
        authorities = [path.read_bytes() for path in arguments.tsa_certificate]
        statement = None if arguments.statement is None else arguments.statement.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        print(f"wattledger-collector: cannot read what the bundle is to be compared with: {error}", file=sys.stderr)
        return 1
    claims = []
    is_good = True
    for path in arguments.bundle:
        verdict = verify(
            path,
            earlier=earlier,
            trusted=arguments.key,
            witnesses=arguments.witness,
            authorities=authorities,
            statement=statement,
        )
        if len(arguments.bundle) > 1:
            print(f"{shown(str(path))}:")
        _tell(verdict)
        is_good = is_good and verdict.is_good
        if verdict.is_good and verdict.claim is not None:
            claims.append(verdict.claim)
    if len(arguments.bundle) > 1:
        together = Verdict(list(contradictions(claims)), [], f"{len(claims)} statements do not contradict each other")
        print("together:")
        _tell(together)
        is_good = is_good and together.is_good
    return 0 if is_good else 1


def _tell(verdict: Verdict) -> None:
    for fact in verdict.facts:
        print(shown(fact))
    for problem in verdict.problems:
        print(f"FAILED: {shown(problem)}")
    print(f"verified: {verdict.conclusion}" if verdict.is_good else "NOT verified")


if __name__ == "__main__":
    sys.exit(main())
