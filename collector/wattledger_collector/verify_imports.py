"""Checks what a statement says of energy that came from other meters' files: each joule of it has a file.

No file and nothing of what made the statement: numbers in, sentences out. Source of truth: the leaves, in which series of
imports have the sensor `import`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from wattledger_collector.verify_values import Tree, integer

SENSOR: Final = "import"
DIGEST_DIGITS: Final = 64


def import_problems(statement: Tree, imported: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """What does not follow. imported: microjoules by host and component, from the leaves."""
    period, section = statement["period"], statement["imports"]
    stated = {(row["host"], row["component"]): int(row["energy_microjoules"]) for row in section["booked"]}
    for key in sorted(stated.keys() | imported.keys()):
        if stated.get(key) != imported.get(key) or len(stated) != len(section["booked"]):
            yield f"the imported energy of host {key[0]}, {key[1]}, is {imported.get(key, 0)} microjoules by the leaves"
    files: set[tuple[Any, ...]] = set()
    for row in section["rows"]:
        begins, ends = integer(row["from_seconds"]), integer(row["to_seconds"])
        if not begins < period["to_seconds"] or not period["from_seconds"] < ends:
            yield f"the file {row['file']} has no time in the period"
        if not _is_digest(row["sha256"]) or not _is_digest(row["digest"]):
            yield f"the file {row['file']} is named without its digest"
        if row["place"] == "booked":
            files.add((row["host"], row["component"]))
    for host, component in sorted(imported.keys() - files):
        yield f"the imported energy of host {host}, {component}, is from no file that is named"


def _is_digest(text: str) -> bool:
    return len(text) == DIGEST_DIGITS and set(text) <= set("0123456789abcdef")
