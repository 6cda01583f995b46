"""Sources of factors and ladders in collector.toml: what is accepted, and each mistake in a sentence."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.collector.test_factor_store import DECEMBER, V20

from wattledger_collector.config import ConfigurationError, ladders, parse_configuration
from wattledger_collector.configuration import load_configuration
from wattledger_collector.factor_store import record_factors
from wattledger_collector.store import open_store

GOOD = """
[store]
path = "ledger.sqlite"

[[site]]
name = "paris"
zone = "FR"
factors = ["rte-eco2mix", "OWID-Ember"]

[[site]]
name = "lyon"
zone = "FR"
factors = ["rte-eco2mix", "OWID-Ember"]

[[factors.source]]
provider = "rte-eco2mix"
zones = ["FR"]

[[factors.source]]
provider = "watttime"
zones = ["US-CAL-CISO"]
areas = { US-CAL-CISO = "CAISO_NORTH" }
key_file = "key"
every_seconds = 300
"""


def write(folder: Path, text: str) -> Path:
    """A configuration, with a key beside it."""
    (folder / "key").write_text("anna:pass")
    path = folder / "collector.toml"
    path.write_text(text)
    return path


def test_a_ladder_is_the_zones_and_paths_are_the_configurations(tmp_path: Path) -> None:
    """Sources by zone in the order given; key files beside the configuration."""
    configuration, catalog = load_configuration(write(tmp_path, GOOD))

    assert ladders(configuration) == {"FR": ("rte-eco2mix", "OWID-Ember")}
    assert configuration.factors.source[1].key_file == str(tmp_path / "key")
    assert [series[0].source for series in catalog.series("FR")] == ["OWID-Ember"]


def test_a_file_of_a_csv_source_is_beside_the_configuration_too(tmp_path: Path) -> None:
    """Unless it is an address."""
    text = '[[factors.source]]\nprovider = "csv"\nzones = ["FR"]\naddress = "{}"\n'
    for address, meant in (("own.csv", str(tmp_path / "own.csv")), ("https://a.example/x", "https://a.example/x")):
        configuration, _ = load_configuration(write(tmp_path, text.format(address)))
        assert configuration.factors.source[0].address == meant


def test_zones_and_sources_of_the_ledger_may_be_named(tmp_path: Path) -> None:
    """What was imported needs no file; without it the zone is unknown."""
    text = '[store]\npath = "ledger.sqlite"\n[[site]]\nname = "a"\nzone = "IN-HALL"\nfactors = ["CEA"]\n'
    with pytest.raises(ConfigurationError, match="no factor table has a zone 'IN-HALL'"):
        load_configuration(write(tmp_path, text))
    with closing(open_store(tmp_path / "ledger.sqlite", create=True)) as store:
        record_factors(store, [replace(V20, zone="IN-HALL")], now_seconds=DECEMBER)

    configuration, _ = load_configuration(write(tmp_path, text))
    assert configuration.site[0].zone == "IN-HALL"


def test_a_ledger_that_cannot_be_read_does_not_hide_the_configuration(tmp_path: Path) -> None:
    """`restore` needs the configuration to find what it is to replace."""
    (tmp_path / "ledger.sqlite").write_bytes(b"no database")

    configuration, _ = load_configuration(write(tmp_path, GOOD))
    assert configuration.store.path == str(tmp_path / "ledger.sqlite")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            ('"rte-eco2mix"\nzones', '"rte-eco2mx"\nzones'),
            "provider 'rte-eco2mx' is unknown: did you mean 'rte-",
        ),
        (('"rte-eco2mix"\nzones', '"zz"\nzones'), "factors.source[0].provider 'zz' is unknown: there are electricitymaps, "),
        (('key_file = "key"', ""), "factors.source[1] of 'watttime' needs a key: name a file that holds it in key_file"),
        (('key_file = "key"', 'key_file = "none"'), "cannot read factors.source[1].key_file"),
        (
            ('key_file = "key"', 'key = "secret"'),
            "key factors.source[1].key: did you mean factors.source[1].key_file?",
        ),
        (('zones = ["FR"]', "zones = []"), "factors.source[0].zones of 'rte-eco2mix' is empty: name at least one zone"),
        (('zones = ["FR"]', 'zones = ["F R"]'), "factors.source[0].zones has 'F R': use letters, digits and hyphens"),
        (('provider = "watttime"', 'provider = "csv"'), "factors.source[1] of 'csv' has no address: name the file"),
        (("every_seconds = 300", "every_seconds = 1"), "factors.source[1].every_seconds is 1: choose 60 to 604800"),
        (("every_seconds = 300", "history_seconds = 1"), "factors.source[1].history_seconds is 1: choose 3600 to 5356800"),
        (("{ US-CAL-CISO", "{ US-CAL"), "factors.source[1].areas names 'US-CAL', which is not in its zones"),
        (('"OWID-Ember"]', '"OWID-Embr"]'), "of site 'paris' names no source with 'OWID-Embr': did you mean 'OWID-Ember'?"),
        (('"OWID-Ember"]', '"rte-eco2mix"]'), "site[0].factors of site 'paris' names a source twice: keep the first"),
        (('["rte-eco2mix", "OWID-Ember"]', '["OWID-Ember"]'), "differs from that of site 'paris' in the same zone FR"),
        (
            ('factors = ["rte-eco2mix", "OWID-Ember"]', ""),
            "factors.source[0] is asked for the zone of site 'paris', which does not say what to use before and between",
        ),
        (('zone = "FR"', ""), "site[0].factors of site 'paris' is of no use without a zone"),
    ],
)
def test_each_mistake_is_a_sentence(change: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    """With the key's path, its value and the remedy."""
    assert change[0] in GOOD
    text = GOOD.replace(*change, 1)
    if sentence.startswith("of site 'paris' names no source"):
        text = GOOD.replace(*change)

    with pytest.raises(ConfigurationError) as caught:
        load_configuration(write(tmp_path, text))
    assert any(sentence in problem for problem in caught.value.problems), caught.value.problems


def test_a_zone_that_is_asked_for_twice_is_refused() -> None:
    """Two threads would fetch the same."""
    twice = '[[factors.source]]\nprovider = "rte-eco2mix"\nzones = ["FR"]\n'

    with pytest.raises(ConfigurationError, match=r"asks 'rte-eco2mix' for zone 'FR', as factors.source\[0\] does: keep one"):
        parse_configuration(twice + twice)
