"""Bundles of earlier forms verify for ever, as they were made then; and a changed bit of them is noticed as then."""

import shutil
from pathlib import Path

import pytest

from wattledger_collector.verify import verify

BUNDLES = sorted((Path(__file__).parent.parent / "fixtures" / "statements").glob("form-1-*.zip"))


def test_there_are_bundles_of_the_first_form() -> None:
    """One of a first statement, one of a restatement."""
    assert [path.name for path in BUNDLES] == ["form-1-first.zip", "form-1-restated.zip"]


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_a_statement_of_the_first_form_verifies(path: Path) -> None:
    """Every figure of it follows from its leaves by the rules of its form."""
    assert verify(path).problems == []


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_a_changed_bit_of_the_first_form_is_noticed(path: Path, tmp_path: Path) -> None:
    """The figures are still reckoned, and not only the form's name read."""
    data = bytearray(path.read_bytes())
    at = data.index(b'"lower_grams"') + len(b'"lower_grams":"')
    data[at] ^= 1
    copy = tmp_path / path.name
    shutil.copyfile(path, copy)
    copy.write_bytes(data)
    assert any("lower_grams" in problem for problem in verify(copy).problems)
