"""Scope 2 of a report in both ways: with and without instruments, as table, JSON and CSV, from a real database."""

import argparse
import csv
import io
import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.collector.two_sites import FROM, KWH, NASTY, TO, make_ledger

from wattledger_collector.commands import add_commands

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
evidence = "AIB 2024"
[certificates]
beneficiary = "Example Ltd"
files = ["registry.csv"]
matching = "MATCHING"
"""
REGISTRY = """certificate,kind,registry,market,from,to,volume_wh,grams_per_kwh,retired_for
noon,GO,HKN,DE,2024-03-29T11:00+00:00,2024-03-29T12:00+00:00,50000,0,Example Ltd
other,GO,HKN,DE,2024-03-29T11:00+00:00,2024-03-29T12:00+00:00,50000,0,Another Ltd
"""
PERIOD = ("--from", FROM, "--to", TO, "--time-zone", "Europe/Berlin")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of two sites."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    make_ledger(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, template: Path) -> Path:
    """A folder with ledger, declaration and registry, and a configuration that names them."""
    shutil.copy(template, tmp_path / "ledger.sqlite")
    (tmp_path / "inventory.toml").write_text(DECLARED.replace("MATCHING", "yearly"))
    (tmp_path / "registry.csv").write_text(REGISTRY)
    (tmp_path / "collector.toml").write_text('[store]\npath = "ledger.sqlite"\n[inventory]\nfile = "inventory.toml"\n')
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    parsed = parser.parse_args(("report", *PERIOD, *arguments))
    assert parsed.run(parsed) == 0
    return capsys.readouterr().out


def tree(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The report as JSON."""
    return json.loads(report(capsys, *arguments, "--json"))


def configured(folder: Path) -> tuple[str, str]:
    """The options that name the configuration."""
    return "--config", str(folder / "collector.toml")


def test_without_a_declaration_both_figures_are_the_same_to_the_last_digit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Per site and in total, and it is said that there is nothing that could make a difference."""
    made = tree(capsys, "--store", str(folder / "ledger.sqlite"))
    for part in (made, *made["sites"]):
        two = part["scope_2"]
        located, counted = ([each["grams_exact"] for each in two[way]] for way in ("location_based", "market_based"))
        assert located == counted
        assert two["market_equals_location"]
    assert made["scope_2"]["location_based"][0]["grams_exact"] == made["emissions"][0]["grams_exact"]
    assert made["scope_2"]["remarks"] == [
        "no instruments and no residual mix: the market-based figure is the location-based one"
    ]
    out = report(capsys, "--store", str(folder / "ledger.sqlite"))
    assert "- no instruments and no residual mix: the market-based figure is the location-based one" in out


def hall(made: Any) -> Any:
    """Scope 2 of the site hall."""
    (site,) = (site for site in made["sites"] if site["site"] == "hall")
    return site["scope_2"]


def test_certificates_and_the_residual_mix_make_the_market_based_figure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """50 kWh are covered at 0 g, the rest of the site's electricity has 700 g; what is refused says why."""
    made = tree(capsys, *configured(folder))
    two = hall(made)
    parts = {part["part"]: Fraction(part["energy_microjoules"]) for part in two["parts"]}
    whole = Fraction(next(site for site in made["sites"] if site["site"] == "hall")["energy_microjoules"]) * Fraction("1.2")
    assert parts == {"certificates": 50 * KWH, "residual_mix": whole - 50 * KWH}
    assert Fraction(two["market_based"][0]["grams_exact"]) == (whole / KWH - 50) * 700
    assert Fraction(two["covered_ratio_exact"]) == 50 * KWH / whole
    told = made["scope_2"]
    assert [(mix["market"], mix["grams_per_kwh"], mix["evidence"]) for mix in told["residual_mixes"]] == [
        ("DE", "700", "AIB 2024")
    ]
    assert [(each["certificate"], each["reason"]) for each in told["certificates"]["refused"]] == [
        ("other", "other_beneficiary")
    ]
    assert [each["file"] for each in told["declared_in"]] == ["inventory.toml", "registry.csv"]
    assert not told["market_equals_location"]
    # Location based nothing has changed.
    bare = tree(capsys, "--store", str(folder / "ledger.sqlite"))
    assert two["location_based"] == hall(bare)["location_based"]
    assert made["emissions"] == bare["emissions"]


def test_by_hour_a_certificate_covers_its_hour_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At noon the hall used 3 kWh of IT at PUE 1.2: 3.6 kWh are covered, the rest of the certificate is lost."""
    (folder / "inventory.toml").write_text(DECLARED.replace("MATCHING", "hourly"))
    made = tree(capsys, *configured(folder))
    (allocated,) = made["scope_2"]["certificates"]["allocated"]
    assert Fraction(allocated["energy_microjoules"]) == Fraction("3.6") * KWH
    (over,) = made["scope_2"]["certificates"]["surplus"]
    assert Fraction(over["energy_microjoules"]) == Fraction("46.4") * KWH


def test_a_report_of_one_site_has_its_part_of_the_certificates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The site's figures are those that it has in the report of all, where another site of its market has its part."""
    other = f'[[holding]]\nsite = {json.dumps(NASTY)}\nmarket = "DE"\nsituation = "owned"\nevidence = "e"\n'
    declared = DECLARED.replace("MATCHING", "yearly").replace("[[residual]]", other + "[[residual]]")
    (folder / "inventory.toml").write_text(declared)
    whole = tree(capsys, *configured(folder))
    alone = tree(capsys, *configured(folder), "--site", "hall")
    assert hall(alone) == hall(whole)
    assert alone["scope_2"]["parts"] == hall(whole)["parts"]
    assert 0 < Fraction(hall(alone)["parts"][0]["energy_microjoules"]) < 50 * KWH
    assert [site["site"] for site in alone["sites"]] == ["hall"]
    assert alone["energy_microjoules"] == next(s for s in whole["sites"] if s["site"] == "hall")["energy_microjoules"]


def test_another_declaration_may_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--inventory` stands before the configured file."""
    other = folder / "other.toml"
    other.write_text(DECLARED[: DECLARED.index("[certificates]")].replace("700", "10"))
    made = tree(capsys, *configured(folder), "--inventory", str(other))
    assert made["scope_2"]["residual_mixes"][0]["grams_per_kwh"] == "10"
    assert made["scope_2"]["certificates"]["allocated"] == []


def test_the_table_has_both_figures_of_each_site_and_what_they_rest_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Energy by part, the mix with its source, what is over, and each refused certificate with its code."""
    out = report(capsys, *configured(folder))
    (heads,) = (line for line in out.splitlines() if line.startswith("site ") and "market based" in line)
    assert heads.split("  ")[0] == "site"
    assert "residual mix of DE: 700 g/kWh, declared (AIB 2024)" in out
    assert "1 of 2 certificates, retired for Example Ltd and matched by year, cover 50.000 kWh" in out
    assert "certificate other refused, other_beneficiary: it was retired for Another Ltd" in out
    assert "PUE 1.2 declared without evidence." in out


def test_csv_has_a_row_for_each_part_sum_and_certificate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Facility energy of the parts adds up to the site's; sums and refusals stand in rows of their own."""
    rows = list(csv.DictReader(io.StringIO(report(capsys, *configured(folder), "--csv"))))
    made = tree(capsys, *configured(folder))
    parts = [row for row in rows if row["record"] == "market" and row["site"] == "hall"]
    assert {row["market_part"]: row["facility_microjoules"] for row in parts} == {
        part["part"]: part["energy_microjoules"] for part in hall(made)["parts"]
    }
    (counted,) = (row for row in rows if row["record"] == "scope2_market")
    assert counted["emissions_grams_exact"] == hall(made)["market_based"][0]["grams_exact"]
    assert (counted["gas"], counted["boundary"]) == ("CO2e", "lifecycle")
    assert [(row["certificate"], row["refusal"]) for row in rows if row["record"] == "refused"] == [
        ("other", "other_beneficiary")
    ]
    assert [row["facility_microjoules"] for row in rows if row["record"] == "certificate"] == [str(50 * KWH)]


def test_energy_outside_of_scope_2_is_told_and_not_covered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A leased hall is scope 3.8: no certificate covers it, and its figure stays location based."""
    (folder / "inventory.toml").write_text(DECLARED.replace('"owned"', '"leased"').replace("MATCHING", "yearly"))
    two = hall(tree(capsys, *configured(folder)))
    assert [part["part"] for part in two["parts"]] == ["outside_scope_2"]
    assert two["market_based"][0]["grams_exact"] == two["location_based"][0]["grams_exact"]


def test_what_a_statement_of_another_time_used_is_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A day's statement takes what covers the day; the days after it have the rest, and the day itself is as it was."""
    (folder / "inventory.toml").write_text(DECLARED.replace("MATCHING", "yearly") + "vintage_before_days = 3\n")
    (folder / "registry.csv").write_text(REGISTRY.replace("50000,0,Example", "100000,0,Example"))
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    words = ("statement", "close", "--from", FROM, "--to", "2024-03-30", "--time-zone", "Europe/Berlin", *configured(folder))
    parsed = parser.parse_args(words)
    assert parsed.run(parsed) == 0
    capsys.readouterr()
    (used,) = tree(capsys, *configured(folder), "--to", "2024-03-30")["scope_2"]["certificates"]["allocated"]
    (rest,) = tree(capsys, "--from", "2024-03-30", *configured(folder))["scope_2"]["certificates"]["allocated"]
    taken = Fraction(used["energy_microjoules"])
    assert 0 < taken < 100 * KWH
    assert Fraction(rest["energy_microjoules"]) == 100 * KWH - taken
