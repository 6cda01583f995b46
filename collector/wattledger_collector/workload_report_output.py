"""Shows a report by workload or namespace, to people as a table and to programs as JSON and CSV.

Reckons nothing but the rounding (half up, on display alone). Microjoules are text; exact grams are fractions. Source of
truth: `workload_report.py`.
"""

import csv
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector.accounting import Emissions
from wattledger_collector.factors import FactorKind
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.report_output import GRAM_DIGITS, KWH_DIGITS
from wattledger_collector.report_table import kwh_text
from wattledger_collector.rounding import kwh, mass_text, rounded
from wattledger_collector.workload_records import IdlePolicy
from wattledger_collector.workload_report import SiteWorkloads, WorkloadLine, WorkloadReport

CSV_COLUMNS: Final = (
    "site",
    "from",
    "to",
    "kind",
    "namespace",
    "workload",
    "idle_policy",
    "method",
    "recorded",
    "energy_microjoules",
    "energy_kwh",
    "uncovered_microjoules",
    "signal",
    "boundary",
    "gas",
    "basis",
    "emissions_grams",
    "emissions_grams_exact",
)

# Lines that fill a screen; all are in JSON and CSV.
LINES_SHOWN_MAX: Final = 100

POLICY_WORDS: Final[Mapping[IdlePolicy, str]] = {
    IdlePolicy.NODE_ONLY: "node-only: energy of idling hardware stays with the host, as idle",
    IdlePolicy.EQUAL: "equal: energy of idling hardware is given to all workloads in equal parts",
    IdlePolicy.BY_USAGE: "by-usage: energy of idling hardware is given to workloads by the CPU time that they used",
    IdlePolicy.BY_RESERVATION: "by-reservation: energy of idling hardware is given to workloads by what they have reserved",
}


def policy_name(policy: IdlePolicy) -> str:
    """As it is called in the agent's configuration."""
    return policy.name.lower().replace("_", "-")


def write_workload_json(report: WorkloadReport, out: TextIO) -> None:
    """Write the report as one JSON object."""
    period = report.period
    tree = {
        "from": period.show(period.from_seconds),
        "to": period.show(period.to_seconds),
        "time_zone": period.time_zone.key,
        "made_at": period.show(report.made_at_seconds),
        "by": report.by,
        "provisional": True,
        "sites": [
            {
                "site": site.site,
                "energy_microjoules": str(site.energy_microjoules),
                "divided_microjoules": str(site.divided_microjoules),
                "lines": [_line_tree(line) for line in site.lines],
            }
            for site in report.sites
        ],
    }
    json.dump(tree, out, indent=2, ensure_ascii=False)
    out.write("\n")


def write_workload_csv(report: WorkloadReport, out: TextIO) -> None:
    """Write a row for each line and type of factor; a line without emissions has one row too."""
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    period = report.period
    span = {"from": period.show(period.from_seconds), "to": period.show(period.to_seconds)}
    for site in report.sites:
        for line in site.lines:
            common = {"site": site.site, **span, **_names(line)}
            common["recorded"] = str(line.group.recorded).lower()
            common["energy_microjoules"] = str(line.energy_microjoules)
            common["energy_kwh"] = rounded(kwh(line.energy_microjoules), KWH_DIGITS)
            common["uncovered_microjoules"] = str(line.uncovered_microjoules)
            parts: list[tuple[FactorKind, Emissions] | None] = [*sorted(line.emissions.items())]
            for part in parts or [None]:
                writer.writerow(common if part is None else common | _csv_emissions(*part))


def write_workload_table(report: WorkloadReport, console: Console) -> None:
    """Print the report for people."""
    period = report.period
    console.print(
        f"[bold]Energy and emissions by {report.by}[/bold]  {period.show(period.from_seconds)} to "
        f"{period.show(period.to_seconds)} ({escape(period.time_zone.key)}, the end not included)"
    )
    if not any(site.lines for site in report.sites):
        console.print(
            "No energy was divided over workloads in this period: see `[workloads]` in the agents' configuration.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for site in report.sites:
        if site.lines:
            _print_site(site, console)
    policies = sorted({line.group.idle_policy for site in report.sites for line in site.lines})
    if policies:
        console.print("\n[bold]Idle energy[/bold]")
        for policy in policies:
            console.print(f"- {POLICY_WORDS[policy]}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\n[bold]Provisional[/bold], as of {period.show(report.made_at_seconds)}: the period is not closed")


def _print_site(site: SiteWorkloads, console: Console) -> None:
    whole, divided = site.energy_microjoules, site.divided_microjoules
    console.print(f"\n[bold]Site {escape(site.site)}[/bold]  {kwh_text(whole)} kWh of IT energy")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("kind", "namespace", "workload", "idle energy", "made of"):
        table.add_column(name)
    for name in ("IT kWh", "share", "emissions"):
        table.add_column(name, justify="right")
    for line in site.lines[:LINES_SHOWN_MAX]:
        names = _names(line)
        made_of = names["method"] + (", recorded" if line.group.recorded else "")
        share = f"{rounded(Fraction(line.energy_microjoules * 100, whole), 1)} %" if whole else ""
        table.add_row(
            names["kind"] or "all",
            escape(names["namespace"]),
            escape(names["workload"]),
            names["idle_policy"],
            made_of,
            kwh_text(line.energy_microjoules, whole),
            share,
            _emission_text(line),
        )
    console.print(table)
    hidden = len(site.lines) - LINES_SHOWN_MAX
    more = [f"These are the largest; --json and --csv list the other {hidden}, too."] if hidden > 0 else []
    for sentence in (*more, *_sentences(site, whole - divided)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _sentences(site: SiteWorkloads, rest_microjoules: int) -> list[str]:
    told = [
        f"Not divided: {kwh_text(rest_microjoules, site.energy_microjoules)} kWh, of meters' residuals and of hosts that do "
        "not tell of workloads."
    ]
    uncovered = sum(line.uncovered_microjoules for line in site.lines)
    if uncovered:
        told.append(f"Uncovered: {kwh_text(uncovered, site.energy_microjoules)} kWh have no emissions figure.")
    return told


def _emission_text(line: WorkloadLine) -> str:
    """Unlike types are never added."""
    parts = [f"{mass_text(part.grams)} {kind.gas}" for kind, part in sorted(line.emissions.items())]
    return " + ".join(parts) or "unknown"


def _names(line: WorkloadLine) -> dict[str, str]:
    group = line.group
    return {
        "kind": group.kind.name.lower() if group.kind is not None else "",
        "namespace": group.namespace,
        "workload": group.workload,
        "idle_policy": policy_name(group.idle_policy),
        "method": group.method.name.lower(),
    }


def _line_tree(line: WorkloadLine) -> dict[str, Any]:
    return {
        **_names(line),
        "recorded": line.group.recorded,
        "energy_microjoules": str(line.energy_microjoules),
        "energy_kwh": rounded(Fraction(line.energy_microjoules, MICROJOULES_PER_KWH), KWH_DIGITS),
        "uncovered_microjoules": str(line.uncovered_microjoules),
        "emissions": [
            {
                "signal": kind.signal,
                "boundary": kind.boundary,
                "gas": kind.gas,
                "basis": kind.basis,
                "grams": rounded(part.grams, GRAM_DIGITS),
                "grams_exact": str(part.grams),
            }
            for kind, part in sorted(line.emissions.items())
        ],
    }


def _csv_emissions(kind: FactorKind, part: Emissions) -> dict[str, str]:
    return {
        "signal": kind.signal,
        "boundary": kind.boundary,
        "gas": kind.gas,
        "basis": kind.basis,
        "emissions_grams": rounded(part.grams, GRAM_DIGITS),
        "emissions_grams_exact": str(part.grams),
    }
