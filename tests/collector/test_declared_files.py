"""Declarations with their registries: what is read, what it is known by, and each slip as one sentence."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from wattledger_collector.config import ConfigurationError, parse_configuration
from wattledger_collector.configuration import declaration_of, load_configuration
from wattledger_collector.csv_table import TableError
from wattledger_collector.declared_files import check_declaration, load_declaration
from wattledger_collector.inventory import InventoryError

DECLARED = """
organisation = "Example Ltd"
approach = "operational_control"
[[holding]]
site = "hall"
situation = "owned"
evidence = "land register"
[[residual]]
market = "DE"
grams_per_kwh = 700
from = 2024-01-01
to = 2025-01-01
gas = "CO2"
boundary = "direct"
evidence = "AIB"
[certificates]
beneficiary = "Example Ltd"
files = ["one.csv", "two.csv"]
matching = "hourly"
vintage_before_days = 2
"""
REGISTRY = """certificate,kind,registry,market,from,to,volume_wh,grams_per_kwh,retired_for
{},PPA,contract,DE,2024-06-01T12:00+00:00,2024-06-01T13:00+00:00,1000,0,Example Ltd
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A declaration with two registries."""
    (tmp_path / "inventory.toml").write_text(DECLARED)
    (tmp_path / "one.csv").write_text(REGISTRY.format("c1"))
    (tmp_path / "two.csv").write_text(REGISTRY.format("c2"))
    (tmp_path / "collector.toml").write_text('[inventory]\nfile = "inventory.toml"\n')
    return tmp_path


def test_a_declaration_is_read_with_its_registries(folder: Path) -> None:
    """Files are named relative to it, and each is known by the digest of its bytes."""
    found = load_declaration(folder / "inventory.toml")
    instruments = found.instruments
    assert [each.certificate for each in instruments.certificates] == ["c1", "c2"]
    assert (instruments.beneficiary, instruments.is_hourly, instruments.vintage_before_seconds) == (
        "Example Ltd",
        True,
        172_800,
    )
    (mix,) = instruments.mixes
    assert (mix.from_seconds, mix.to_seconds) == (1_704_067_200, 1_735_689_600)
    assert (mix.counted.boundary, mix.counted.gas) == ("direct", "CO2")
    names = ("inventory.toml", "one.csv", "two.csv")
    assert found.files == tuple((name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in names)


def test_the_digest_changes_with_each_file(folder: Path) -> None:
    """A byte in any of them makes another digest."""
    digests = {load_declaration(folder / "inventory.toml").sha256}
    for name in ("inventory.toml", "one.csv", "two.csv"):
        with (folder / name).open("a") as file:
            file.write("\n")
        digests.add(load_declaration(folder / "inventory.toml").sha256)
    assert len(digests) == 4


def test_the_configuration_names_it(folder: Path) -> None:
    """Relative to the configuration's folder; without a file there is no declaration."""
    configuration, _ = load_configuration(folder / "collector.toml")
    found = declaration_of(configuration)
    assert found is not None
    assert found.declared.organisation == "Example Ltd"
    assert declaration_of(parse_configuration("")) is None


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("inventory.toml", lambda text: text.replace("Example", "\udcff"), "cannot read"),
        ("inventory.toml", lambda text: text.replace('"hourly"', '"daily"'), "daily"),
        ("one.csv", lambda text: text.replace("1000", "0"), "line 2 has volume_wh 0"),
        ("two.csv", lambda text: text.replace("c2", "c1"), "has the certificate 'c1', which"),
        ("two.csv", lambda _: None, "cannot read"),
    ],
)
def test_each_slip_is_one_sentence_with_its_file(
    folder: Path, name: str, change: Callable[[str], str | None], says: str
) -> None:
    """Nothing half read is handed out."""
    path = folder / name
    text = change(path.read_text())
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises((InventoryError, TableError), match=says) as caught:
        load_declaration(folder / "inventory.toml")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_with_a_wrong_declaration_is_refused(folder: Path) -> None:
    """The key is named, and the file; also a registry that is not there, which is found without reading all of them."""
    check_declaration(folder / "inventory.toml")
    (folder / "two.csv").unlink()
    with pytest.raises(ConfigurationError, match=r"collector\.toml: inventory\.file: .*'two\.csv'"):
        load_configuration(folder / "collector.toml")
    (folder / "inventory.toml").unlink()
    with pytest.raises(ConfigurationError, match=r"inventory\.file: cannot read .*inventory\.toml"):
        load_configuration(folder / "collector.toml")
