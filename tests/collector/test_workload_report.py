"""Reports by workload and namespace: worked out by hand, divided to the microjoule, with the policy on every line."""

import csv
import io
import json
from datetime import date
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console
from tests.collector.fake_store import FakeStore

from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factors import seconds_of_day
from wattledger_collector.records import (
    AssignmentRow,
    Component,
    Method,
    Quality,
    RollupRow,
    SiteRow,
)
from wattledger_collector.report import ReportError, make_period
from wattledger_collector.workload_records import HostWorkloadRow, IdlePolicy, Workload, WorkloadKind
from wattledger_collector.workload_report import By, WorkloadLine, WorkloadReport, make_workload_report
from wattledger_collector.workload_report_output import (
    CSV_COLUMNS,
    LINES_SHOWN_MAX,
    write_workload_csv,
    write_workload_json,
    write_workload_table,
)

CATALOG = load_catalog()
UTC = ZoneInfo("UTC")
KWH = 3_600_000_000_000
OLD_YEAR = seconds_of_day(date(2023, 12, 31))
NEW_YEAR = seconds_of_day(date(2024, 1, 1))
END = seconds_of_day(date(2024, 1, 2))
DB = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.BY_USAGE)
DB_AGAIN = DB._replace(id="uid-2")
WEB = Workload(WorkloadKind.KUBERNETES_POD, "uid-3", "shop", "web", IdlePolicy.BY_USAGE)
JOB = Workload(WorkloadKind.SLURM_JOB, "4711", "physics", "train", IdlePolicy.NODE_ONLY)
IDLE = Workload(WorkloadKind.IDLE, "", "", "", IdlePolicy.NODE_ONLY)


def ledger() -> FakeStore:
    """Two hosts at a German site of PUE 1.5 over a new year, one at a site without zone."""

    def row(host: str, workload: Workload, start: int, energy: int, method: Method = Method.COUNTER) -> HostWorkloadRow:
        return HostWorkloadRow(host, False, workload, start, Component.CPU, method, energy)

    return FakeStore(
        site_rows=[SiteRow("hall", 0, "DE", "1.5", False, 0), SiteRow("dark", 0, None, "1.2", False, 0)],
        assignment_rows=[
            AssignmentRow("a", 0, "hall", 0),
            AssignmentRow("b", 0, "hall", 0),
            AssignmentRow("c", 0, "dark", 0),
        ],
        rollup_rows=[
            RollupRow("hall", OLD_YEAR, Component.CPU, Quality.COUNTER, False, 10 * KWH, 0),
            RollupRow("dark", NEW_YEAR, Component.CPU, Quality.COUNTER, False, 5 * KWH, 0),
        ],
        workload_energy_rows=[
            row("a", DB, OLD_YEAR - 900, 99 * KWH),
            row("a", DB, OLD_YEAR, 2 * KWH),
            row("b", DB_AGAIN, NEW_YEAR, KWH),
            row("a", WEB, NEW_YEAR, KWH // 2),
            row("a", WEB, NEW_YEAR, KWH // 4, Method.MODEL),
            row("b", IDLE, NEW_YEAR, KWH // 8),
            row("c", JOB, NEW_YEAR, 3 * KWH + 1),
            row("a", DB, END, 99 * KWH),
        ],
    )


def report_of(by: By = "workload", site: str | None = None, store: FakeStore | None = None) -> WorkloadReport:
    """The report of the two days."""
    period = make_period(OLD_YEAR, END, UTC, 900)
    return make_workload_report(store or ledger(), CATALOG, period, by=by, now_seconds=END + 86_400, site=site)


def grams(line: WorkloadLine) -> Fraction:
    """Emissions of a line with one type of factor."""
    (part,) = line.emissions.values()
    return part.grams


def test_workloads_equal_what_a_hand_works_out() -> None:
    """2 kWh x 371.31064 of 2023 and 1 kWh x 344.13992 of 2024, x PUE 1.5; pods of one name are one, methods are not."""
    dark, hall = report_of().sites
    lines = [(line.group.workload, line.group.method, line.energy_microjoules) for line in hall.lines]
    assert lines == [
        ("db-0", Method.COUNTER, 3 * KWH),
        ("web", Method.COUNTER, KWH // 2),
        ("web", Method.MODEL, KWH // 4),
        ("idle", Method.COUNTER, KWH // 8),
    ]
    assert grams(hall.lines[0]) == Fraction("1.5") * (2 * Fraction("371.31064") + Fraction("344.13992"))
    assert (hall.energy_microjoules, hall.divided_microjoules) == (10 * KWH, 3 * KWH + KWH * 7 // 8)
    (job,) = dark.lines
    assert (job.group.workload, job.emissions, job.uncovered_microjoules) == ("4711", {}, 3 * KWH + 1)


def test_namespaces_are_sums_of_their_workloads() -> None:
    """Idle energy keeps a line of its own; nothing is lost between the two views."""
    _, hall = report_of("namespace").sites
    lines = [(line.group.kind, line.group.namespace, line.group.method, line.energy_microjoules) for line in hall.lines]
    assert lines == [
        (None, "shop", Method.COUNTER, 3 * KWH + KWH // 2),
        (None, "shop", Method.MODEL, KWH // 4),
        (WorkloadKind.IDLE, "", Method.COUNTER, KWH // 8),
    ]
    assert hall.divided_microjoules == report_of().sites[1].divided_microjoules
    (physics,) = report_of("namespace", "dark").sites[0].lines
    assert (physics.group.namespace, physics.group.workload) == ("physics", "")


def test_an_unknown_site_is_refused() -> None:
    """As in any report."""
    with pytest.raises(ReportError, match="did you mean 'hall'"):
        report_of(site="hal")


def test_energy_belongs_to_the_site_of_its_interval() -> None:
    """A host that moved within the period left what it used before where it was."""
    store = ledger()
    store.assignment_rows.append(AssignmentRow("a", NEW_YEAR, "dark", 1))
    dark, hall = report_of(store=store).sites
    assert {(line.group.workload, line.energy_microjoules) for line in hall.lines} == {("db-0", 3 * KWH), ("idle", KWH // 8)}
    assert {line.group.workload for line in dark.lines} == {"4711", "web"}


def test_policies_never_share_a_line() -> None:
    """A figure has one idle policy."""
    store = ledger()
    other = HostWorkloadRow(
        "a", False, DB._replace(idle_policy=IdlePolicy.EQUAL), OLD_YEAR, Component.CPU, Method.COUNTER, 7
    )
    store.workload_energy_rows.append(other)
    lines = report_of("namespace", "hall", store).sites[0].lines
    assert {(line.group.idle_policy, line.energy_microjoules) for line in lines} >= {
        (IdlePolicy.EQUAL, 7),
        (IdlePolicy.BY_USAGE, 3 * KWH + KWH // 2),
    }


def test_json_is_exact() -> None:
    """Microjoules and exact grams are text."""
    out = io.StringIO()
    write_workload_json(report_of(), out)
    tree = json.loads(out.getvalue())
    dark, hall = tree["sites"]
    assert (tree["by"], hall["energy_microjoules"], hall["divided_microjoules"]) == (
        "workload", str(10 * KWH), str(3 * KWH + KWH * 7 // 8)
    )  # fmt: skip
    line = hall["lines"][0]
    assert (line["kind"], line["namespace"], line["workload"]) == ("kubernetes_pod", "shop", "db-0")
    assert (line["idle_policy"], line["method"], line["energy_kwh"]) == ("by-usage", "counter", "3.000000000")
    assert Fraction(line["emissions"][0]["grams_exact"]) == grams(report_of().sites[1].lines[0])
    assert dark["lines"][0]["energy_microjoules"] == str(3 * KWH + 1)
    assert dark["lines"][0]["emissions"] == []


def test_csv_has_a_row_for_each_line() -> None:
    """Sums over rows are those of the report."""
    out = io.StringIO()
    write_workload_csv(report_of(), out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert len(rows) == 5
    assert sum(int(row["energy_microjoules"]) for row in rows) == 3 * KWH + KWH * 7 // 8 + 3 * KWH + 1
    assert [row["emissions_grams"] for row in rows if row["site"] == "dark"] == [""]


def printed(report: WorkloadReport) -> str:
    """The table for people."""
    console = Console(file=io.StringIO(), width=160, no_color=True)
    write_workload_table(report, console)
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def test_the_table_says_what_figures_are() -> None:
    """Policy, method, share, what was not divided, and what has no factor."""
    text = printed(report_of())
    assert "db-0" in text
    assert "30.0 %" in text
    assert "by-usage: energy of idling hardware is given to workloads by the CPU time that they used" in text
    assert "Not divided: 6.125 kWh" in text
    assert "Uncovered: 3.000 kWh" in text
    assert "unknown" in text
    assert "Provisional" in text
    assert "by namespace" in printed(report_of("namespace"))


def test_a_long_table_is_cut_and_says_so() -> None:
    """JSON and CSV have all."""
    store = ledger()
    store.workload_energy_rows += [
        HostWorkloadRow("a", False, WEB._replace(name=f"pod-{number}"), OLD_YEAR, Component.CPU, Method.COUNTER, number)
        for number in range(1, LINES_SHOWN_MAX + 1)
    ]
    text = printed(report_of(store=store))
    assert "list the other 4, too" in text
    assert "pod-1 " not in text


def test_a_period_without_workloads_says_what_to_do() -> None:
    """No empty table."""
    store = ledger()
    store.workload_energy_rows = []
    assert "see `[workloads]` in the agents' configuration" in printed(report_of(store=store))
