"""The commands that read the ledger and keep its hosts: `report` and `host`.

No policy: arguments in, text out; data goes to stdout, complaints to stderr. Exit status 0: done, 1: refused.
Sources of truth: `report.py`, `hosts.py`. Those of factors are in `factor_commands.py`, those that join declarations in
`declared_commands.py`.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from wattledger_collector import hosts
from wattledger_collector.certificates import Certificate
from wattledger_collector.command_setup import (
    add_inventory_argument,
    add_store_arguments,
    console,
    guarded,
    keeping_all,
    load_configured,
    load_declared,
    open_named,
    print_json,
)
from wattledger_collector.declared_commands import add_declared_commands
from wattledger_collector.factor_commands import add_factors
from wattledger_collector.factor_store import load_factors
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.html_parts import Page
from wattledger_collector.progress import working
from wattledger_collector.records import NANOSECONDS_PER_SECOND, Host
from wattledger_collector.report import ReportError, make_period, make_report, parse_instant, parse_time_zone
from wattledger_collector.report_completeness import require_complete
from wattledger_collector.report_figures import measured_pues
from wattledger_collector.report_html import render_page
from wattledger_collector.report_output import write_csv, write_json
from wattledger_collector.report_pages import make_page, write_whole
from wattledger_collector.report_table import write_table
from wattledger_collector.report_uncertainty import intervals_of, market_intervals_of, sensors_of, site_intervals_of
from wattledger_collector.statement_commands import add_statements, add_verify
from wattledger_collector.store import SqliteStore
from wattledger_collector.workload_report import WorkloadReport, make_workload_report
from wattledger_collector.workload_report_output import write_workload_csv, write_workload_json, write_workload_table

if TYPE_CHECKING:
    from wattledger_collector.command_setup import Subparsers


def add_commands(subparsers: "Subparsers") -> None:
    """Add the commands; after parsing, `arguments.run(arguments)` does the work and returns the exit status."""
    _add_report(subparsers)
    add_factors(subparsers)
    _add_host(subparsers)
    add_declared_commands(subparsers)
    add_statements(subparsers)
    add_verify(subparsers)


def _add_report(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("report", help="energy, emissions, gaps and coverage of a period")
    parser.add_argument("--from", dest="from_", required=True, metavar="TIME", help="ISO date or datetime, included")
    parser.add_argument("--to", required=True, metavar="TIME", help="ISO date or datetime, not included")
    parser.add_argument("--time-zone", default="UTC", metavar="NAME", help="IANA time zone of the times (default: UTC)")
    parser.add_argument("--site", help="this site alone")
    parser.add_argument(
        "--by", choices=("workload", "namespace"), help="what energy was spent on, instead of components and gaps"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object, microjoules as text")
    form.add_argument("--csv", action="store_true", help="CSV: a row for each site, component, quality and factor")
    form.add_argument("--html", action="store_true", help="one page with charts, whole in itself, to read and to print")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where --html writes to (default: standard output)")
    parser.add_argument("--complete", action="store_true", help="refuse to report if anything is missing in the period")
    add_inventory_argument(parser)
    add_store_arguments(parser)
    parser.set_defaults(run=guarded(_report))


def _add_host(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("host", help="list hosts, and say which are drained, replaced or retired")
    actions = parser.add_subparsers(required=True, metavar="list|rename|replace|retire|drain|activate")
    texts = {
        "list": ("all hosts", _host_list),
        "rename": ("call a host by another name; its id stays", _host_change),
        "replace": ("another machine takes a host's place, name and site", _host_change),
        "retire": ("a host is gone for good: its agent is refused, its history stays", _host_change),
        "drain": ("a host is expected to be silent: no alert", _host_change),
        "activate": ("take a drained or retired host back, or settle a conflict", _host_change),
    }
    for name, (text, run) in texts.items():
        action = actions.add_parser(name, help=text)
        if name == "list":
            action.add_argument("--json", action="store_true", help="a JSON list")
        else:
            action.add_argument("host", help="id of the host, as `host list` shows it")
        if name == "rename":
            action.add_argument("name", help="the new name; empty: the id again")
        if name == "replace":
            action.add_argument("successor", help="id of the machine that takes its place; it has reported already")
        add_store_arguments(action)
        action.set_defaults(run=guarded(run), action=name)


def _report(arguments: argparse.Namespace) -> int:
    time_zone = parse_time_zone(arguments.time_zone)
    begin, end = parse_instant(arguments.from_, time_zone), parse_instant(arguments.to, time_zone)
    if arguments.out is not None and not arguments.html:
        raise ReportError("--out is for --html: the other forms go to standard output, send that into a file")
    if arguments.by is not None and (arguments.html or arguments.complete):
        raise ReportError("--by is a table, JSON or CSV: leave it out with --complete, and with --html, which has workloads")
    configured, catalog = load_configured(arguments)
    declaration = load_declared(arguments)
    with closing(open_named(arguments, configured)) as store, keeping_all():
        catalog = catalog.with_recorded(load_factors(store))
        period = make_period(begin, end, time_zone, store.interval_seconds)
        now = int(time.time())
        if arguments.by is not None:
            by_workload = make_workload_report(store, catalog, period, by=arguments.by, now_seconds=now, site=arguments.site)
            return _show_workloads(by_workload, arguments)
        with working() as work:
            report = work.do(
                "sums",
                lambda: make_report(
                    store,
                    catalog,
                    period,
                    now_seconds=now,
                    site=arguments.site,
                    declaration=declaration,
                    # A report of one site tells its part of what covers all, so that claims of other sites count for it.
                    used=_used_before(store, begin, end) if declaration is not None and declaration.certificates else None,
                ),
            )
            sensors = work.do("sensors", lambda: sensors_of(store, begin))
            report = replace(
                report,
                measured=measured_pues(report, store),
                intervals=intervals_of(report, sensors),
                site_intervals=site_intervals_of(report, sensors),
                market_intervals=market_intervals_of(report, sensors),
            )
            if arguments.complete:
                require_complete(report)
            page = make_page(store, catalog, report, site=arguments.site, work=work) if arguments.html else None
    if page is not None:
        _write_page(page, arguments.out)
    elif arguments.json:
        write_json(report, sys.stdout)
    elif arguments.csv:
        write_csv(report, sys.stdout)
    else:
        write_table(report, console())
    return 0


def _write_page(page: Page, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(render_page(page))
    else:
        write_whole(out, render_page(page))
        print(f"{out}: written; open it in a browser, or print it")


def _used_before(store: SqliteStore, begin: int, end: int) -> Mapping[Certificate, Fraction]:
    """What statements of other periods have used of certificates."""
    # Imported here: a collector that only runs needs no cryptography of statements.
    from wattledger_collector.closing_market import used_before

    return used_before(store, begin, end, None).microjoules


def _show_workloads(report: WorkloadReport, arguments: argparse.Namespace) -> int:
    if arguments.json:
        write_workload_json(report, sys.stdout)
    elif arguments.csv:
        write_workload_csv(report, sys.stdout)
    else:
        write_workload_table(report, console())
    return 0


def _host_list(arguments: argparse.Namespace) -> int:
    configured = None if arguments.store else load_configured(arguments)[0]
    now = int(time.time())
    with closing(open_named(arguments, configured)) as store:
        plan = SitePlan()
        plan.replace(store.sites(), store.assignments())
        latest: dict[str, int] = {}
        for cursor in store.cursors():
            points = [point.utc_nanoseconds for point in cursor.points.values()]
            latest[cursor.host] = max([latest.get(cursor.host, 0), *points])
        rows = [
            _host_tree(host, plan.site_of(host.host, now), latest.get(host.host, 0), hosts.host_events(store, host.host))
            for host in store.hosts()
        ]
    if arguments.json:
        print_json(rows)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("host", "name", "site", "state", "booked until", "conflict"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(escape(str(row[name] or "")) for name in ("host", "name", "site", "state", "booked_until", "conflict"))
        )
    console().print(table if rows else "No host has reported yet: start an agent, and see `wattledger-agent doctor`.")
    return 0


def _host_tree(host: Host, site: str, booked_until_nanoseconds: int, events: Sequence[hosts.HostEvent]) -> dict[str, object]:
    return {
        "host": host.host,
        "name": host.shown_name,
        "site": site,
        "state": host.state,
        "booked_until": _iso(booked_until_nanoseconds) if booked_until_nanoseconds else None,
        "conflict": host.conflict or None,
        "labels": host.labels,
        "history": [
            {"at": _iso(event.at_utc_nanoseconds), "event": event.event, "detail": event.detail} for event in events
        ],
    }


def _iso(utc_nanoseconds: int) -> str:
    return datetime.fromtimestamp(utc_nanoseconds // NANOSECONDS_PER_SECOND, UTC).isoformat()


def _host_change(arguments: argparse.Namespace) -> int:
    configured = None if arguments.store else load_configured(arguments)[0]
    now = time.time_ns()
    with closing(open_named(arguments, configured)) as store:
        match arguments.action:
            case "rename":
                after = hosts.host_rename(store, arguments.host, arguments.name, now_utc_nanoseconds=now)
            case "replace":
                after = hosts.host_replace(store, arguments.host, arguments.successor, now_utc_nanoseconds=now)
            case "retire":
                after = hosts.host_retire(store, arguments.host, now_utc_nanoseconds=now)
            case "drain":
                after = hosts.host_drain(store, arguments.host, now_utc_nanoseconds=now)
            case _:
                after = hosts.host_activate(store, arguments.host, now_utc_nanoseconds=now)
    called = f" (called {after.name})" if after.name else ""
    print(f"host {after.host}{called} is {after.state}")
    return 0
