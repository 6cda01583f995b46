"""Compares what several bundles of one log say of each other's statements.

Reads no file: what each bundle's own check found goes in, sentences come out. Source of truth: the statements' `number`,
`previous_sha256` and `replaces`. A bundle alone can't show that its log gave one number to two statements.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement as its bundle has it. size, root: of its checkpoint."""

    origin: str
    number: int
    sha256: str
    previous_sha256: str | None
    replaces: tuple[int, str] | None
    size: int
    root: bytes


def read_claim(statement: Mapping[str, Any], sha256: str, size: int, root: bytes) -> Claim:
    """What a statement says of itself. Raises ValueError and KeyError for what no statement says."""
    number, previous, replaced = statement["number"], statement["previous_sha256"], statement["replaces"]
    origin = statement["log"]["origin"]
    replaces = None if replaced is None else (replaced["number"], replaced["sha256"])
    texts = [origin, *([] if previous is None else [previous]), *([] if replaces is None else [replaces[1]])]
    numbers = [number, *([] if replaces is None else [replaces[0]])]
    if any(type(each) is not str for each in texts) or any(type(each) is not int for each in numbers):
        raise ValueError("the statement's number, and what it follows or replaces, are not what they have to be")
    return Claim(origin, number, sha256, previous, replaces, size, root)


def contradictions(claims: Iterable[Claim]) -> Iterator[str]:
    """What can't all be true of statements of one log."""
    logs: dict[str, dict[str, Claim]] = {}
    for claim in claims:
        logs.setdefault(claim.origin, {})[claim.sha256] = claim
    for origin, found in logs.items():
        yield from _of_log(origin, list(found.values()))


def _of_log(origin: str, claims: list[Claim]) -> Iterator[str]:
    numbers: dict[int, str] = {}
    replaced: dict[str, int] = {}
    roots: dict[int, bytes] = {}
    for claim in sorted(claims, key=lambda claim: (claim.number, claim.sha256)):
        if numbers.setdefault(claim.number, claim.sha256) != claim.sha256:
            yield f"the log {origin} has two statements {claim.number}: history was rewritten"
        if roots.setdefault(claim.size, claim.root) != claim.root:
            yield f"the log {origin} has two states of {claim.size} leaves: history was rewritten"
        if claim.replaces is not None:
            other = replaced.setdefault(claim.replaces[1], claim.number)
            if other != claim.number:
                yield (
                    f"statements {other} and {claim.number} of the log {origin} both replace statement "
                    f"{claim.replaces[0]}: the newest one of a period has to be one"
                )
    for claim in claims:
        before = numbers.get(claim.number - 1)
        if before is not None and claim.previous_sha256 != before:
            yield f"statement {claim.number} of the log {origin} follows another one than statement {claim.number - 1}"
        if claim.replaces is not None:
            number, digest = claim.replaces
            if numbers.get(number, digest) != digest:
                yield f"statement {claim.number} of the log {origin} replaces another statement {number}"
