"""collector.toml: each mistake is one sentence with its remedy; what is right is applied as dated rows."""

import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from tests.collector.bookings import make_host
from tests.collector.fake_store import FakeStore

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.config import (
    Configuration,
    ConfigurationError,
    check_zones,
    parse_configuration,
    site_of_host,
)
from wattledger_collector.configuration import HostPlacer, apply_configuration, assign_hosts, load_configuration
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.records import SITE_UNASSIGNED, AssignmentRow

CATALOG = load_catalog()
FULL = """
[server]
name = "c1"
address = "0.0.0.0"
port = 9791
[server.tls]
ca = "ca.pem"
certificate = "server.pem"
key = "server.key"
[http]
address = "::1"
port = 9790
[store]
path = "ledger.sqlite"
[silence]
staleness_seconds = 90
[factors]
files = []
[[site]]
name = "berlin"
zone = "DE"
pue = 1.30000000000000000001
[[site]]
name = "gd"
zone = "CN-GD"
pue = "1.25"
valid_from = 2024-01-01
[[host]]
site = "gd"
labels = { rack = "r1*" }
[[host]]
site = "berlin"
name = "web-*"
"""
NOW = 1_700_000_000


def test_a_whole_configuration_is_read_exactly() -> None:
    """A PUE written as a TOML float is that decimal and no other, however many digits it has."""
    configuration = parse_configuration(FULL)
    check_zones(configuration, CATALOG)

    assert configuration.server.port == 9791
    assert [site.pue for site in configuration.site] == [Decimal("1.30000000000000000001"), Decimal("1.25")]
    assert parse_configuration("") == Configuration()


SITE = '[[site]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[server", "the configuration is not TOML: "),
        ("[sever]\n", "unknown key sever: did you mean server?"),
        ("[server]\nprot = 1\n", "unknown key server.prot: did you mean server.port?"),
        ("[server.tls]\ncert = 'x'\n", "unknown key server.tls.cert: did you mean server.tls.certificate?"),
        (SITE + "[[site]]\nname = 'b'\nzon = 'DE'\n", "unknown key site[1].zon: did you mean site[1].zone?"),
        ("[[host]]\nsite = 'a'\nlabel = {}\n", "unknown key host[0].label: did you mean host[0].labels?"),
        ("[server]\nport = 'x'\n", "server.port: expected `int`, got `str`; correct the value"),
        ("[[site]]\nzone = 'DE'\n", "site[0]: object missing required field `name`; correct the value"),
        ("[site]\nname = 'a'\n", "site is a table of its own: write [[site]] with two brackets"),
        ("server = 1\n", "server: expected `object`, got `int`; correct the value"),
        ("[[site]]\nname = 'a'\npue = 'low'\n", "site[0].pue: invalid decimal string; correct the value"),
        ("[server]\nport = 65536\n", "server.port is 65536: choose 1 to 65535, or 0 for any free one"),
        ("[http]\nport = -1\n", "http.port is -1: choose 1 to 65535, or 0 for any free one"),
        ("[http]\nport = 9791\n", "server.port and http.port are both 9791: give each its own"),
        ("[http]\naddress = ''\n", "http.address is empty: write 127.0.0.1"),
        ("[http]\naddress = '1.2.3.400'\n", "http.address '1.2.3.400' is no IP address: write it as in 192.0.2.7"),
        (
            "[http]\naddress = '0.0.0.0'\n",
            "http.address 0.0.0.0 can be reached from other machines without TLS: add [http.tls]",
        ),
        ("[server]\naddress = 'a.example'\n", "server.address a.example can be reached from other machines without TLS"),
        ("[server.tls]\ncertificate = 'c'\nkey = 'k'\n", "server.tls.ca is missing or empty: name its PEM file"),
        ("[store]\npath = ''\n", "store.path is empty: name the database's file"),
        ("[silence]\nstaleness_seconds = 0\n", "silence.staleness_seconds is 0: choose 1 to 86400"),
        (SITE + "valid_from = 2024-01-01T00:15:00\n", "site[0].valid_from: "),
        (SITE + "pue = 0.9\n", "site[0].pue of site 'a' is 0.9: facility energy / IT energy is 1 to 10"),
        (SITE + "pue = 130\n", "site[0].pue of site 'a' is 130: facility energy / IT energy is 1 to 10, write 1.3 for 30 %"),
        (SITE + "pue = nan\n", "site[0].pue of site 'a' is NaN"),
        (SITE + "pue_from = 2024-01-01\n", "site[0].pue_from of site 'a' has no pue_to: a PUE describes a time"),
        (SITE + "pue_to = 2024-01-01\n", "site[0].pue_to of site 'a' has no pue_from: a PUE describes a time"),
        (
            SITE + "pue_from = 2024-01-01\npue_to = 2024-01-01\n",
            "site[0].pue_to of site 'a' is 2024-01-01, not after pue_from 2024-01-01: it is the first day after",
        ),
        (
            SITE + "pue_category = 4\n",
            "site[0].pue_category of site 'a' is 4: choose 1 (IT energy at the output of the UPS)",
        ),
        (SITE + "pue_category = 'two'\n", "site[0].pue_category: expected `int | null`, got `str`"),
        (SITE + "pue_evidence = 'a\\nb'\n".replace("'", '"'), "site[0].pue_evidence of site 'a' is no single line of text"),
        ("[inventory]\nfiles = 'a'\n", "unknown key inventory.files: did you mean inventory.file?"),
        (SITE + SITE, "site[1] repeats site[0] 'a': keep one, or give each its own valid_from"),
        ("[[site]]\nname = ''\n", "site[0].name '' is no name: write letters, digits and hyphens"),
        ("[[site]]\nname = 'unassigned'\n", "site[0].name 'unassigned' is kept for hosts that no rule assigns"),
        (SITE + "[[host]]\nsite = 'b'\nname = '*'\n", "host[0].site 'b' is no site: add a [[site]] of that name"),
        (
            "[[site]]\nname = 'hall'\n[[host]]\nsite = 'hal'\nname = '*'\n",
            "host[0].site 'hal' is no site: did you mean 'hall'?",
        ),
        (SITE + "[[host]]\nsite = 'a'\n", "host[0] matches nothing: give it a name pattern"),
    ],
)
def test_each_mistake_is_one_sentence(text: str, sentence: str) -> None:
    """A wrong configuration names the key, the value and the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(text)

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(sentence)


def test_all_mistakes_are_named_at_once() -> None:
    """Whoever corrects the file sees all that is to be corrected."""
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration("[server]\nport = 70000\n[[site]]\nname = 'a'\npue = 0.5\n[[host]]\nsite = 'a'\n")

    assert len(caught.value.problems) == 3


def test_insecure_has_to_be_said() -> None:
    """With insecure = true any address may be plain."""
    configuration = parse_configuration("[server]\naddress = '0.0.0.0'\ninsecure = true\n")

    assert configuration.server.insecure


def test_an_unknown_zone_names_its_site_and_near_matches() -> None:
    """A zone that no table has is an error at start, not an uncovered figure later."""
    with pytest.raises(
        ConfigurationError, match=re.escape("site[0].zone of site 'a': no factor table has a zone 'Germany'")
    ):
        check_zones(parse_configuration(SITE + "zone = 'Germany'\n"), CATALOG)


@pytest.mark.parametrize(
    ("host", "labels", "site"),
    [
        ("web-1", {}, "berlin"),
        ("id7", {"hostname": "web-2"}, "berlin"),
        ("web-1", {"rack": "r17"}, "gd"),
        ("db-1", {"rack": "r2"}, SITE_UNASSIGNED),
        ("WEB-1", {}, SITE_UNASSIGNED),
    ],
)
def test_the_first_matching_rule_gives_the_site(host: str, labels: dict[str, str], site: str) -> None:
    """Patterns are matched against id, hostname and labels, in the order of the file, with case."""
    assert site_of_host(parse_configuration(FULL), host, labels) == site


def test_a_single_site_without_rules_has_all_hosts() -> None:
    """Only then; with two sites and no rules a host is unassigned."""
    assert site_of_host(parse_configuration(SITE), "any", {}) == "a"
    assert site_of_host(parse_configuration(SITE + "[[site]]\nname = 'b'\n"), "any", {}) == SITE_UNASSIGNED


def write(tmp_path: Path, text: str) -> Path:
    """A configuration file."""
    path = tmp_path / "collector.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_loading_makes_paths_absolute_and_checks_files(tmp_path: Path) -> None:
    """Files are taken from the configuration's folder, and must be there."""
    path = write(tmp_path, FULL)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    assert caught.value.problems[0] == (
        f"{path}: cannot read server.tls.certificate {tmp_path}/server.pem: No such file or directory: "
        "correct its path or rights"
    )
    for name in ("ca.pem", "server.pem", "server.key"):
        (tmp_path / name).write_text("x")

    configuration, catalog = load_configuration(path)

    assert configuration.store.path == f"{tmp_path}/ledger.sqlite"
    assert "DE" in catalog.zones


def test_loading_names_the_file_that_is_wrong(tmp_path: Path) -> None:
    """A missing configuration, one that is no text, a missing factor table and an unknown zone are named with their file."""
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.toml: No such file or directory: name the file"):
        load_configuration(tmp_path / "none.toml")
    path = tmp_path / "collector.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"is not UTF-8 text \(byte 0\)"):
        load_configuration(path)
    with pytest.raises(ConfigurationError, match=r"cannot read factor file .*/own\.csv"):
        load_configuration(write(tmp_path, "[factors]\nfiles = ['own.csv']\n"))
    with pytest.raises(ConfigurationError, match=r"collector\.toml: site\[0\]\.zone"):
        load_configuration(write(tmp_path, SITE + "zone = 'Q'\n"))


def test_rows_are_added_only_where_something_changed() -> None:
    """New sites and hosts hold for all time, a change from the next interval, and a second start adds nothing."""
    store = FakeStore(host_rows=[make_host("web-1")])
    one = parse_configuration("[[site]]\nname = 'berlin'\nzone = 'DE'\npue = 1.3\n")
    apply_configuration(one, store, NOW)
    apply_configuration(one, store, NOW + 5)
    assert [(row.valid_from_seconds, row.zone, row.pue) for row in store.sites()] == [(0, "DE", "1.3")]
    assert store.assignments() == [AssignmentRow("web-1", 0, "berlin", NOW)]

    two = parse_configuration(
        "[[site]]\nname = 'berlin'\nzone = 'DE'\npue = 1.25\n[[site]]\nname = 'oslo'\n[[host]]\nsite = 'oslo'\nname = '*'\n"
    )
    apply_configuration(two, store, NOW + 7)

    later = (NOW // 900 + 1) * 900
    assert [(row.site, row.valid_from_seconds, row.pue) for row in store.sites()] == [
        ("berlin", 0, "1.3"),
        ("berlin", later, "1.25"),
        ("oslo", 0, "1"),
    ]
    assert store.assignments()[-1] == AssignmentRow("web-1", later, "oslo", NOW + 7)


def test_a_change_of_evidence_alone_adds_a_row() -> None:
    """Its figure is the same; period, category and document are kept with the day from which they were stated."""
    store = FakeStore()
    bare = "[[site]]\nname = 'a'\nzone = 'DE'\npue = 1.3\n"
    told = bare + "pue_from = 2024-01-01\npue_to = 2025-01-01\npue_category = 2\npue_evidence = 'audit 7'\n"
    for text in (bare, told, told, told.replace("audit 7", "audit 8"), told.replace("= 2\n", "= 3\n")):
        apply_configuration(parse_configuration(text), store, NOW)
    facts = [(row.pue, row.pue_from, row.pue_to, row.pue_category, row.pue_evidence) for row in store.sites()]
    assert facts == [
        ("1.3", "", "", "", ""),
        ("1.3", "2024-01-01", "2025-01-01", "2", "audit 7"),
        ("1.3", "2024-01-01", "2025-01-01", "2", "audit 8"),
        ("1.3", "2024-01-01", "2025-01-01", "3", "audit 7"),
    ]


def test_a_stated_instant_dates_the_row() -> None:
    """valid_from adds a row there, once, and a corrected value for it another that is recorded later."""
    store = FakeStore()
    text = "[[site]]\nname = 'a'\nzone = 'DE'\n[[site]]\nname = 'a'\nzone = 'DE'\npue = {pue}\nvalid_from = 2024-01-01\n"
    for pue in ("1.2", "1.2", "1.4"):
        apply_configuration(parse_configuration(text.replace("{pue}", pue)), store, NOW)

    assert [(row.valid_from_seconds, row.pue) for row in store.sites()] == [
        (0, "1"),
        (1_704_067_200, "1.2"),
        (1_704_067_200, "1.4"),
    ]


UNDATED, CHANGED, DATED, DATED_LATER = (
    "[[site]]\nname = 'a'\npue = 1.3\n",
    "[[site]]\nname = 'a'\npue = 1.4\n",
    "[[site]]\nname = 'a'\npue = 1.5\nvalid_from = 2022-01-01\n",
    "[[site]]\nname = 'a'\npue = 1.2\nvalid_from = 2030-01-01\n",
)
DAY_2022, DAY_2030 = 1_640_995_200, 1_893_456_000


@pytest.mark.parametrize(
    ("texts", "pues"),
    [
        # A dated row beside the undated one takes nothing from what held before.
        ((UNDATED, CHANGED, CHANGED + DATED_LATER), {0: "1.3", NOW: "1.3", NOW + 900: "1.4", DAY_2030: "1.2"}),
        # What is no longer planned does not come.
        ((UNDATED + DATED_LATER, UNDATED), {0: "1.3", NOW + 900: "1.3", DAY_2030: "1.3"}),
        # What is stated for the past holds from there on, whatever was said meanwhile.
        ((UNDATED, CHANGED, CHANGED + DATED), {0: "1.3", DAY_2022: "1.5", NOW + 900: "1.5", DAY_2030: "1.5"}),
        # Beside a planned row the undated one is that of the present.
        ((UNDATED + DATED_LATER, CHANGED + DATED_LATER), {0: "1.3", NOW: "1.3", NOW + 900: "1.4", DAY_2030: "1.2"}),
        # Beside one that holds, it is that of the past, which stays as it was booked.
        ((UNDATED + DATED, CHANGED + DATED), {0: "1.3", DAY_2022: "1.5", NOW + 900: "1.5"}),
    ],
)
def test_stored_rows_follow_the_configuration_and_keep_the_past(texts: tuple[str, ...], pues: dict[int, str]) -> None:
    """After any change the PUE at each instant is the one stated for it; starting again adds nothing."""
    store = FakeStore()
    for text in texts:
        apply_configuration(parse_configuration(text), store, NOW)
    rows = len(store.sites())
    apply_configuration(parse_configuration(texts[-1]), store, NOW + 900)

    finder = BasisFinder(store.sites(), FactorCatalog([]))
    assert {at: str(finder.find("a", at).pue) for at in pues} == pues
    assert len(store.sites()) == rows


def test_a_new_host_is_assigned_before_its_first_energy() -> None:
    """One host alone can be assigned; one that is where it belongs gets no row."""
    store = FakeStore()
    configuration = parse_configuration(FULL)

    assert [row.site for row in assign_hosts(configuration, store, [("web-9", {})], NOW)] == ["berlin"]
    assert assign_hosts(configuration, store, [("web-9", {})], NOW) == []


def test_a_host_is_placed_when_it_opens_a_stream() -> None:
    """A placer asks the store once for each host; a changed label moves the host from the next interval."""
    store = FakeStore()
    place = HostPlacer(parse_configuration(FULL), store, clock=lambda: NOW + 0.5)
    place([make_host("web-1"), make_host("other")])
    place([make_host("web-1")])

    assert {row.host: row.site for row in store.assignments()} == {"web-1": "berlin", "other": SITE_UNASSIGNED}

    place([msgspec.structs.replace(make_host("web-1"), labels={"rack": "r1"})])
    assert store.assignments()[-1] == AssignmentRow("web-1", (NOW // 900 + 1) * 900, "gd", NOW)


def test_a_host_that_no_rule_matches_keeps_its_site() -> None:
    """What an operator assigned stands where the rules say nothing."""
    store = FakeStore(assignment_rows=[AssignmentRow("db-1", 0, "berlin", 0)])

    assert assign_hosts(parse_configuration(FULL), store, [("db-1", {})], NOW) == []
