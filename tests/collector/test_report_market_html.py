"""Scope 2 on a report's page: both figures, the chart's pairs, and what the market-based one rests on."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from tests.collector.test_market import RESIDUAL, figure, load, solar
from tests.collector.test_report_html import Reader
from tests.collector.two_sites import FROM, TO, make_ledger

from wattledger_collector.cli import _parser
from wattledger_collector.market import Load
from wattledger_collector.report_market_html import market_cards
from wattledger_collector.report_svg import Bar, column_chart
from wattledger_collector.residual_mixes import Counted, DeclaredMix

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
evidence = "AIB <2024>"
[certificates]
beneficiary = "Example Ltd"
files = ["registry.csv"]
"""
REGISTRY = """certificate,kind,registry,market,from,to,volume_wh,grams_per_kwh,retired_for
noon,GO,HKN,DE,2024-03-29T11:00+00:00,2024-03-29T12:00+00:00,50000,0,Example Ltd
<b>,GO,HKN,DE,2024-03-29T11:00+00:00,2024-03-29T12:00+00:00,50000,0,Another Ltd
"""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of two sites, with a declaration beside it."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    make_ledger(path)
    path.with_name("inventory.toml").write_text(DECLARED)
    path.with_name("registry.csv").write_text(REGISTRY)
    return path


def page(ledger: Path, *options: str) -> Reader:
    """The page that the command writes."""
    out = ledger.with_name("report.html")
    words = ["report", "--store", str(ledger), "--from", FROM, "--to", TO, "--time-zone", "Europe/Berlin", "--html"]
    parsed = _parser().parse_args([*words, *options, "--out", str(out)])
    assert parsed.run(parsed) == 0
    return Reader(out.read_text(encoding="utf-8"))


def bars(reader: Reader) -> list[str]:
    """What the bars of both figures say."""
    return [text for text in reader.text if text.startswith(("hall, location based: ", "hall, market based: "))]


def test_without_a_declaration_the_page_says_that_both_are_the_same(ledger: Path) -> None:
    """The card is no gap any more: it has the figure, and why it is that of the grid."""
    made = page(ledger)
    assert "the same as location based: no certificate counts and there is no residual mix. lifecycle CO2e" in made.text
    remark = "No instruments and no residual mix: the market-based figure is the location-based one."
    assert remark in made.text
    hall = next(row for row in made.tables["market-table"] if row[0] == "hall")
    assert hall[-1] == hall[-2]
    assert bars(made) == [f"hall, location based: {hall[-1]}", f"hall, market based: {hall[-1]}"]
    assert "mixes-table" not in made.tables


def test_instruments_mixes_and_refusals_are_on_the_page(ledger: Path) -> None:
    """283 kWh at PUE 1.2 are 339.6 kWh: 50 covered at 0 g and 289.6 at 700 g are 202.720 kg; names stay names."""
    made = page(ledger, "--inventory", str(ledger.with_name("inventory.toml")))
    hall = next(row for row in made.tables["market-table"] if row[0] == "hall")
    assert hall[1:4] == ["339.600", "50.000", "289.600"]
    assert hall[-1] == "202.720 kg CO2e"
    assert made.tables["mixes-table"][1:] == [["DE", "700", "as the grid factor", "declared: AIB <2024>", "289.600"]]
    assert made.tables["refused-table"][1:] == [
        ["<b>", "other_beneficiary", "it was retired for Another Ltd, not for Example Ltd"]
    ]
    assert bars(made)[1] == "hall, market based: 202.720 kg CO2e"


def cards(*loads: Load, mixes: Sequence[DeclaredMix] = ()) -> list[tuple[str, str, str, str]]:
    """The cards of some loads with one certificate of 4 kWh."""
    return list(market_cards(figure(loads, solar(4), mixes=mixes)))


def test_each_thing_that_is_counted_has_its_card() -> None:
    """Unlike grams are two figures; energy without any rate has none, which is not zero."""
    (card,) = cards(load(10), mixes=[RESIDUAL])
    assert card == (
        "Scope 2, market based, CO2e", "4.200", "kg",
        "40.0 % covered by certificates, 60.0 % at the residual mix. lifecycle CO2e (AR5)",
    )  # fmt: skip
    typed = replace(RESIDUAL, market="FR", grams_per_kwh=Decimal(50), counted=Counted("direct", "CO2"))
    both = cards(load(4), load(10, "b", market="FR"), mixes=[typed])
    assert [(name, mass) for name, mass, _, _ in both] == [
        ("Scope 2, market based, CO2", "500.000"),
        ("Scope 2, market based, CO2e", "0.000"),
    ]
    (bare,) = cards(load(10, market="FR", rate=None, kind=None))
    assert bare[1:] == ("–", "", "no electricity has a rate")


def rects(chart: Element) -> list[tuple[float, float]]:
    """Where each bar begins and ends from left to right."""
    found = [(float(bar.get("x", "")), float(bar.get("width", ""))) for bar in chart.iter("rect")]
    return [(left, left + width) for left, width in found]


def test_bars_of_a_pair_touch_and_pairs_do_not() -> None:
    """Two sites: each pair under one label in its middle."""
    made = [Bar(name, Fraction(value), "", series) for name, value in (("a", 2), ("b", 3)) for series in (0, 1)]
    chart = column_chart(made, name="c", title="t", unit="kg", group=2)
    first, second, third, _ = rects(chart)
    assert first[1] == pytest.approx(second[0])
    assert second[1] < third[0]
    labels = [text for text in chart.iter("text") if text.text in ("a", "b")]
    assert [text.text for text in labels] == ["a", "b"]
    assert float(labels[0].get("x", "")) == pytest.approx(first[1])
