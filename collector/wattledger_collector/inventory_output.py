"""Shows an inventory, as a table for people and as JSON for programs.

Reckons nothing but the rounding, half up and on display alone. Source of truth: `inventory_report.py`.
"""

import json
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector.inventory import Scope
from wattledger_collector.inventory_report import InventoryReport
from wattledger_collector.market_words import mix_sentences
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.report_market import instruments_tree
from wattledger_collector.rounding import rounded

KILOGRAM_DIGITS = 3

SCOPE_WORDS = {
    Scope.ONE: "scope 1",
    Scope.TWO: "scope 2",
    Scope.PURCHASED_SERVICES: "scope 3.1, purchased goods and services",
    Scope.CAPITAL_GOODS: "scope 3.2, capital goods",
    Scope.FUEL_AND_ENERGY: "scope 3.3, fuel and energy",
    Scope.LEASED_ASSETS: "scope 3.8, leased assets",
}


def show_inventory(report: InventoryReport, out: TextIO) -> None:
    """Write the inventory for people."""
    console = Console(file=out, highlight=False, width=None if out.isatty() else 120)
    begin, end = (datetime.fromtimestamp(at, UTC).date() for at in (report.from_seconds, report.to_seconds))
    console.print(
        f"[bold]Inventory[/bold]  {escape(report.declared.organisation)}, {begin} to {end} (UTC, the end not included), "
        f"by {report.declared.approach.replace('_', ' ')}",
        soft_wrap=True,
    )
    console.print(_table(report))
    console.print(f"Covered by certificates: {_ratio(report.matching.covered_ratio)} of scope 2 electricity.")
    for each in report.ratios:
        water = "" if each.wue_litres_per_kwh is None else f", WUE {rounded(each.wue_litres_per_kwh, 3)} l/kWh"
        figures = f"PUE {rounded(each.pue, 3)}, CUE {rounded(each.cue_grams_per_kwh / 1000, 3)} kg/kWh{water}"
        console.print(f"Site {each.site}: {figures}, for each kWh of IT energy.", markup=False)
    if report.amortised_grams:
        console.print(f"Hardware over its service life, beside the total: {_kilograms(report.amortised_grams)} kg.")
    if report.uncovered_microjoules:
        console.print(f"Without a factor, in no figure: {_kwh(report.uncovered_microjoules)} kWh.")
    for remark in (*report.remarks, *mix_sentences(report.market)):
        console.print(f"- {remark}", soft_wrap=True, markup=False)


def write_inventory(report: InventoryReport, out: TextIO) -> None:
    """Write one JSON object; grams are exact fractions as text."""
    json.dump(_tree(report), out, indent=2, ensure_ascii=False)
    out.write("\n")


def _table(report: InventoryReport) -> Table:
    table = Table()
    for name in ("scope", "site", "of"):
        table.add_column(name)
    for name in ("location based, kg", "market based, kg"):
        table.add_column(name, justify="right")
    for entry in sorted(report.entries, key=lambda entry: (entry.scope, entry.asset, entry.stream)):
        words = (SCOPE_WORDS[entry.scope], escape(entry.asset), escape(entry.stream.replace("_", " ")))
        table.add_row(*words, _kilograms(entry.location_grams), _kilograms(entry.market_grams))
    table.add_section()
    for scope, grams in report.totals.by_scope.items():
        market = report.totals.scope_two_market_grams if scope is Scope.TWO else grams
        table.add_row(SCOPE_WORDS[scope], "all", "", _kilograms(grams), _kilograms(market))
    totals = report.totals
    table.add_row("all scopes", "all", "", _kilograms(totals.location_grams), _kilograms(totals.market_grams), style="bold")
    return table


def _tree(report: InventoryReport) -> dict[str, Any]:
    totals = report.totals
    return {
        "organisation": report.declared.organisation,
        "approach": report.declared.approach,
        "from_seconds": report.from_seconds,
        "to_seconds": report.to_seconds,
        "entries": [
            {
                "scope": entry.scope,
                "site": entry.asset,
                "stream": entry.stream,
                "location_grams": str(entry.location_grams),
                "market_grams": str(entry.market_grams),
                "how": entry.how,
            }
            for entry in report.entries
        ],
        "by_scope_location_grams": {scope: str(grams) for scope, grams in totals.by_scope.items()},
        "scope_2_market_grams": str(totals.scope_two_market_grams),
        "total_location_grams": str(totals.location_grams),
        "total_market_grams": str(totals.market_grams),
        "certificates": {
            "covered_ratio": None if report.matching.covered_ratio is None else str(report.matching.covered_ratio),
            "allocated": [
                {
                    "certificate": each.certificate.certificate,
                    "hour_seconds": each.hour_seconds,
                    "energy_microjoules": str(each.microjoules),
                }
                for each in report.matching.allocated
            ],
            "refused": [
                {"certificate": each.certificate.certificate, "reason": each.refusal, "text": each.text}
                for each in report.matching.refused
            ],
            "surplus": [
                {"certificate": certificate.certificate, "energy_microjoules": str(over)}
                for certificate, over in report.matching.surplus
            ],
        },
        "residual_mixes": instruments_tree(report.market, ())["residual_mixes"],
        "sites": [
            {
                "site": each.site,
                "pue": str(each.pue),
                "cue_grams_per_kwh": str(each.cue_grams_per_kwh),
                "wue_litres_per_kwh": None if each.wue_litres_per_kwh is None else str(each.wue_litres_per_kwh),
            }
            for each in report.ratios
        ],
        "renewable_ratio": None if report.renewable_ratio is None else str(report.renewable_ratio),
        "uncovered_microjoules": str(report.uncovered_microjoules),
        "undeclared_microjoules": {site: str(energy) for site, energy in report.undeclared.items()},
        "hardware_amortised_grams": str(report.amortised_grams),
        "factor_types": [str(kind) for kind in report.kinds],
        "remarks": list(report.remarks),
    }


def _kilograms(grams: Fraction) -> str:
    return rounded(grams / 1000, KILOGRAM_DIGITS)


def _kwh(microjoules: Fraction) -> str:
    return rounded(microjoules / MICROJOULES_PER_KWH, 3)


def _ratio(ratio: Fraction | None) -> str:
    return "nothing" if ratio is None else f"{rounded(ratio * 100, 1)} %"
