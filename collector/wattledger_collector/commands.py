"""The commands that read the ledger and keep its hosts: `report`, `factors`, `host`; and `books`, which reads a file alone.

No policy: arguments in, text out; data goes to stdout, complaints to stderr. Exit status 0: done, 1: refused.
Sources of truth: `report.py`, `factors.py`, `hosts.py`.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector import hosts
from wattledger_collector.books import BooksError, parse_books, reckon
from wattledger_collector.books_output import show_books, write_books
from wattledger_collector.config import ConfigurationError
from wattledger_collector.configuration import load_configuration
from wattledger_collector.factor_catalog import FactorCatalog, UnknownZoneError
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factors import Factor, FactorFileError
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.records import NANOSECONDS_PER_SECOND, Host, StoreError
from wattledger_collector.report import ReportError, make_period, make_report, parse_instant, parse_time_zone
from wattledger_collector.report_output import factor_tree, write_csv, write_json
from wattledger_collector.report_table import write_table
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_report import WorkloadReport, make_workload_report
from wattledger_collector.workload_report_output import write_workload_csv, write_workload_json, write_workload_table

EXAMPLE_BOOKS = "two_published_years.toml"

CONFIGURATION_PATH_DEFAULT = Path("/etc/wattledger/collector.toml")

# Where stdout is no terminal, rich would fold tables at 80 characters, and factors with their types need more.
_WIDTH_NOT_A_TERMINAL = 150

# What a user can mend: one sentence says how.
_MENDABLE = (ReportError, StoreError, ConfigurationError, FactorFileError, UnknownZoneError, hosts.HostError, BooksError)

Run = Callable[[argparse.Namespace], int]
# argparse's own type for the result of add_subparsers() has no public name.
if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(subparsers: "Subparsers") -> None:
    """Add the commands; after parsing, `arguments.run(arguments)` does the work and returns the exit status."""
    _add_report(subparsers)
    _add_factors(subparsers)
    _add_host(subparsers)
    _add_books(subparsers)


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
    _add_store_arguments(parser)
    parser.set_defaults(run=_guarded(_report))


def _add_factors(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("factors", help="grid emission factors and where they come from")
    actions = parser.add_subparsers(required=True, metavar="list|show")
    listed = actions.add_parser("list", help="all zones with their newest factor")
    listed.add_argument("text", nargs="?", default="", help="only zones whose id or name contains this")
    shown = actions.add_parser("show", help="all factors of a zone, with document and licence")
    shown.add_argument("zone")
    for action, run in ((listed, _factors_list), (shown, _factors_show)):
        action.add_argument("--json", action="store_true", help="a JSON list")
        action.add_argument("--config", type=Path, metavar="FILE", help="collector.toml that names further factor files")
        action.set_defaults(run=_guarded(run))


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
        _add_store_arguments(action)
        action.set_defaults(run=_guarded(run), action=name)


def _add_books(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "books", help="reductions, substitution and compensation, from a file of declared figures"
    )
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("file", nargs="?", type=Path, help="a TOML file; write --example --source for one to begin with")
    origin.add_argument(
        "--example", action="store_true", help="two published years of a company, which come with Wattledger"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object, tonnes as text")
    form.add_argument("--source", action="store_true", help="the file itself")
    parser.set_defaults(run=_guarded(_books))


def _add_store_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="FILE", help="the ledger's database (default: the one that --config names)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"collector.toml (default: {CONFIGURATION_PATH_DEFAULT}, if it is there)"
    )


def _guarded(run: Run) -> Run:
    """Errors that a user can mend become one sentence on stderr and exit status 1."""

    def guarded(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except (
            ReportError,
            StoreError,
            ConfigurationError,
            FactorFileError,
            UnknownZoneError,
            hosts.HostError,
            BooksError,
        ) as error:
            print(f"wattledger-collector: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            # The reader (`head`, say) has seen enough; what is left goes nowhere, so that the flush at exit is silent.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return guarded


def _configured(arguments: argparse.Namespace) -> tuple[str | None, FactorCatalog]:
    """The database that the configuration names, if there is one, and the factors with the operator's own."""
    path: Path | None = arguments.config
    if path is None and CONFIGURATION_PATH_DEFAULT.exists():
        path = CONFIGURATION_PATH_DEFAULT
    if path is None:
        return None, load_catalog()
    configuration, catalog = load_configuration(path)
    return configuration.store.path, catalog


def _open(arguments: argparse.Namespace, configured: str | None) -> SqliteStore:
    path = arguments.store or configured
    if path is None:
        raise StoreError("which database? Name it with --store FILE, or the collector's configuration with --config FILE")
    return open_store(path, create=False)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_NOT_A_TERMINAL)


def _report(arguments: argparse.Namespace) -> int:
    time_zone = parse_time_zone(arguments.time_zone)
    begin, end = parse_instant(arguments.from_, time_zone), parse_instant(arguments.to, time_zone)
    configured, catalog = _configured(arguments)
    with closing(_open(arguments, configured)) as store:
        period = make_period(begin, end, time_zone, store.interval_seconds)
        now = int(time.time())
        if arguments.by is not None:
            by_workload = make_workload_report(store, catalog, period, by=arguments.by, now_seconds=now, site=arguments.site)
            return _show_workloads(by_workload, arguments)
        report = make_report(store, catalog, period, now_seconds=now, site=arguments.site)
    if arguments.json:
        write_json(report, sys.stdout)
    elif arguments.csv:
        write_csv(report, sys.stdout)
    else:
        write_table(report, _console())
    return 0


def _show_workloads(report: WorkloadReport, arguments: argparse.Namespace) -> int:
    if arguments.json:
        write_workload_json(report, sys.stdout)
    elif arguments.csv:
        write_workload_csv(report, sys.stdout)
    else:
        write_workload_table(report, _console())
    return 0


def _factors_list(arguments: argparse.Namespace) -> int:
    _, catalog = _configured(arguments)
    wanted = arguments.text.casefold()
    zones = [zone for zone, name in catalog.zones.items() if wanted in zone.casefold() or wanted in name.casefold()]
    if not zones:
        near = catalog.near_zones(arguments.text)
        raise UnknownZoneError(
            f"no zone contains {arguments.text!r}" + (f": did you mean {', '.join(near)}?" if near else "")
        )
    newest = [series[-1] for zone in zones if (series := catalog.default_series(zone))]
    if arguments.json:
        _print_json([factor_tree(factor) for factor in newest])
        return 0
    _print_factors(newest, "newest")
    return 0


def _factors_show(arguments: argparse.Namespace) -> int:
    _, catalog = _configured(arguments)
    factors = catalog.factors(arguments.zone)
    if arguments.json:
        _print_json([factor_tree(factor) for factor in factors])
        return 0
    _print_factors(factors, "valid")
    default = {(factor.kind, factor.source) for factor in catalog.default_series(arguments.zone)}
    console = _console()
    for source, document, licence, attribution in sorted(
        {(factor.source, factor.document, factor.licence, factor.attribution) for factor in factors}
    ):
        console.print(f"{source}: {document}; {licence}; {attribution}", markup=False, highlight=False, soft_wrap=True)
    for kind, source in sorted(default):
        console.print(f"Figures of zone {arguments.zone} use: {kind}, {source}.", markup=False, highlight=False)
    return 0


def _print_factors(factors: Sequence[Factor], when: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("zone", "name", when):
        table.add_column(name, no_wrap=True)
    table.add_column("g/kWh", justify="right", no_wrap=True)
    for name in ("type", "source", "published"):
        table.add_column(name, no_wrap=True)
    for factor in factors:
        table.add_row(
            escape(factor.zone),
            escape(factor.name),
            factor.vintage,
            f"{factor.value:f}",
            str(factor.kind),
            escape(factor.source),
            factor.published.isoformat(),
        )
    _console().print(table)


def _host_list(arguments: argparse.Namespace) -> int:
    configured = None if arguments.store else _configured(arguments)[0]
    now = int(time.time())
    with closing(_open(arguments, configured)) as store:
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
        _print_json(rows)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("host", "name", "site", "state", "booked until", "conflict"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(escape(str(row[name] or "")) for name in ("host", "name", "site", "state", "booked_until", "conflict"))
        )
    _console().print(table if rows else "No host has reported yet: start an agent, and see `wattledger-agent doctor`.")
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
    configured = None if arguments.store else _configured(arguments)[0]
    now = time.time_ns()
    with closing(_open(arguments, configured)) as store:
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


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def _books(arguments: argparse.Namespace) -> int:
    path = files("wattledger_collector") / "examples" / EXAMPLE_BOOKS if arguments.example else arguments.file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BooksError(f"cannot read {path}: {error}; name a TOML file in UTF-8") from error
    if arguments.source:
        sys.stdout.write(text)
        return 0
    books = parse_books(text, str(path))
    write = write_books if arguments.json else show_books
    write(books, reckon(books), sys.stdout)
    return 0
