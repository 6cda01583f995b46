"""Fixture machines as a whole: what the agent makes of each, where each is from, and that the list is complete."""

import re
from pathlib import Path

import pytest
from tests.agent.machines import FIXTURES
from tests.fixtures_golden import golden, machines

README = FIXTURES.parent / "README.md"

# Where a fixture is from: its first sentence says so, or that of each of its parts.
ORIGINS = re.compile(r"recorded|built from|published (?:capture|report)s?|capture of", re.I)

MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.I)
ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
# Redfish's own properties (Members@odata.count) and instances of units (getty@tty1.service) look like one.
MAIL = re.compile(r"[\w.]+@(?!odata\b)[\w-]+\.(?!service\b)[a-z]{2,}", re.I)
UUID = re.compile(r"\b[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}\b", re.I)
# What numbers are given to what was scrubbed: examples, this machine itself, and nothing.
WRITTEN_BY_HAND = {
    "0c0c0c0c-1212-4343-8565-787878787878",
    "1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6",
    "2a4c6e80-1111-4222-8333-444455556666",
}
MADE_UP_ADDRESS = re.compile(r"192\.0\.2\.|127\.0\.0\.1|0\.0\.0\.0")


@pytest.mark.parametrize("name", machines())
def test_the_agent_makes_of_a_machine_what_is_written_beside_it(tmp_path: Path, name: str) -> None:
    """Sources and remedies, the tree with roles and methods, energies, notes; rewrite: python -m tests.fixtures_golden."""
    assert golden(name, tmp_path / "machine") == (FIXTURES / name / "golden.txt").read_text()


@pytest.mark.parametrize("name", machines())
def test_a_machine_says_where_it_is_from(name: str) -> None:
    """Recorded, a published capture, or built from documents, and what was made up."""
    text = (FIXTURES / name / "PROVENANCE.md").read_text()
    assert ORIGINS.search(text)


@pytest.mark.parametrize("name", machines())
def test_a_machine_names_nobody(name: str) -> None:
    """No hardware or network address, no mail, and no identifier but made-up ones: theirs repeat one digit or count."""
    for path in (FIXTURES / name).rglob("*"):
        if not path.is_file() or path.is_symlink() or path.name == "gpu_metrics":
            continue
        for text in (path.read_text(), str(path.relative_to(FIXTURES))):
            assert not MAC.search(text), path
            assert not MAIL.search(text), path
            assert all(MADE_UP_ADDRESS.match(found) for found in ADDRESS.findall(text)), path
            for found in UUID.findall(text):
                assert is_made_up(found), (path, found)


def is_made_up(uuid: str) -> bool:
    """Whether an identifier was plainly written by hand: mostly zeros, or few different digits."""
    digits = re.sub(r"[-_]", "", uuid.lower())
    if uuid.replace("_", "-") in WRITTEN_BY_HAND:
        return True
    return digits.count("0") >= 16 or len(set(digits)) <= 8


def test_the_list_of_machines_is_complete() -> None:
    """Each kind of machine that the agent promises to meter has a fixture that stands for it, and each is in the list."""
    block = README.read_text().partition("## Machines")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in block.splitlines() if line.startswith("| ") and "---" not in line][1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert len(rows) >= 25
    assert named == set(machines())
