"""The commands that join meters and declarations: `inventory`, `sci`; and `books`, which reads a file alone.

No policy: arguments in, text out; data goes to stdout, complaints to stderr. Sources of truth: `inventory_report.py`,
`sci.py`, `books.py`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.books import BooksError, parse_books, reckon
from wattledger_collector.books_output import show_books, write_books
from wattledger_collector.closing_market import used_before
from wattledger_collector.command_setup import (
    add_store_arguments,
    guarded,
    load_configured,
    load_declared,
    open_named,
    print_json,
)
from wattledger_collector.factor_store import load_factors
from wattledger_collector.inventory import InventoryError, parse_activities
from wattledger_collector.inventory_output import show_inventory, write_inventory
from wattledger_collector.inventory_report import draw_up
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.report import (
    make_period,
    market_reckoning,
    parse_instant,
    parse_time_zone,
    read_sums,
    zones_of,
)
from wattledger_collector.rounding import rounded
from wattledger_collector.sci import SciError, Score
from wattledger_collector.workload_report import WorkloadLine, make_workload_report

if TYPE_CHECKING:
    from wattledger_collector.command_setup import Subparsers

EXAMPLE_BOOKS = "two_published_years.toml"
EXAMPLE_INVENTORY = "inventory.toml"

# A nanogram is below any figure that a score is compared by.
SCORE_DIGITS = 9


def add_declared_commands(subparsers: "Subparsers") -> None:
    """Add the commands."""
    _add_inventory(subparsers)
    _add_sci(subparsers)
    _add_books(subparsers)


def _add_period(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    parser.add_argument("--from", dest="from_", required=is_required, metavar="TIME", help="ISO date or datetime, included")
    parser.add_argument("--to", required=is_required, metavar="TIME", help="ISO date or datetime, not included")
    parser.add_argument("--time-zone", default="UTC", metavar="NAME", help="IANA time zone of the times (default: UTC)")


def _add_inventory(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("inventory", help="scopes 1, 2 and 3 of a period, location and market based")
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument(
        "inventory",
        nargs="?",
        type=Path,
        help="a TOML file of holdings, activities, hardware, certificates (default: inventory.file of collector.toml)",
    )
    origin.add_argument("--example", action="store_true", help="write such a file, to begin with, and do nothing else")
    _add_period(parser, is_required=False)
    parser.add_argument("--json", action="store_true", help="one JSON object, exact grams as text")
    add_store_arguments(parser)
    parser.set_defaults(run=guarded(_inventory))


def _add_sci(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("sci", help="Software Carbon Intensity of a workload or namespace (ISO/IEC 21031)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workload", help="its name, as `report --by workload` shows it")
    what.add_argument("--namespace", help="all workloads of a namespace together")
    _add_period(parser)
    parser.add_argument("--work", required=True, help="how many units of work were done in the period; above 0")
    parser.add_argument("--unit", required=True, help="what a unit is: request, user, training run")
    parser.add_argument("--embodied-grams", default="0", help="embodied emissions of the hardware that it reserved")
    parser.add_argument("--json", action="store_true", help="one JSON object, exact figures as text")
    add_store_arguments(parser)
    parser.set_defaults(run=guarded(_sci))


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
    parser.set_defaults(run=guarded(_books))


def _inventory(arguments: argparse.Namespace) -> int:
    if arguments.example:
        sys.stdout.write(_example(EXAMPLE_INVENTORY))
        return 0
    if arguments.from_ is None or arguments.to is None:
        raise InventoryError("an inventory is of a period: give --from and --to")
    activities = parse_activities(
        (files("wattledger_collector") / "bundled_factors" / "activities.csv").read_text(encoding="utf-8"), "activities.csv"
    )
    time_zone = parse_time_zone(arguments.time_zone)
    begin, end = parse_instant(arguments.from_, time_zone), parse_instant(arguments.to, time_zone)
    configured, catalog = load_configured(arguments)
    declaration = load_declared(arguments)
    if declaration is None:
        raise InventoryError("which declaration? Name its file, or write it as file under [inventory] into collector.toml")
    with closing(open_named(arguments, configured)) as store:
        catalog = catalog.with_recorded(load_factors(store))
        period = make_period(begin, end, time_zone, store.interval_seconds)
        finder = BasisFinder(store.sites(), catalog)
        reckoning = market_reckoning(declaration, finder, catalog, store.interval_seconds)
        edges = reckoning.edges(begin, end, zones_of(store.sites()))
        report = draw_up(
            declaration.declared,
            declaration.certificates,
            activities,
            read_sums(store, finder, period, edges=edges),
            finder,
            from_seconds=begin,
            to_seconds=end,
            interval_seconds=store.interval_seconds,
            catalog=catalog,
            used=used_before(store, begin, end, None).microjoules,
        )
    (write_inventory if arguments.json else show_inventory)(report, sys.stdout)
    return 0


def _sci(arguments: argparse.Namespace) -> int:
    work, embodied = _number(arguments.work, "--work"), _number(arguments.embodied_grams, "--embodied-grams")
    time_zone = parse_time_zone(arguments.time_zone)
    begin, end = parse_instant(arguments.from_, time_zone), parse_instant(arguments.to, time_zone)
    configured, catalog = load_configured(arguments)
    by = "workload" if arguments.workload is not None else "namespace"
    with closing(open_named(arguments, configured)) as store:
        catalog = catalog.with_recorded(load_factors(store))
        period = make_period(begin, end, time_zone, store.interval_seconds)
        report = make_workload_report(
            store, catalog, period, by="workload" if by == "workload" else "namespace", now_seconds=int(time.time())
        )
    name = arguments.workload if by == "workload" else arguments.namespace
    lines = [line for site in report.sites for line in site.lines if name == getattr(line.group, by)]
    score = _score(lines, name, work, arguments.unit, embodied)
    _show_score(score, name, lines, is_json=arguments.json)
    return 0


def _score(lines: Sequence[WorkloadLine], name: str, work: Fraction, unit: str, embodied: Fraction) -> Score:
    """The score of some lines of a report. Energy is IT energy; the intensity holds the site's PUE."""
    energy = sum(line.energy_microjoules for line in lines)
    if not energy:
        raise SciError(f"no score: {name!r} used no energy in the period; `report --by workload` lists who did")
    if any(line.uncovered_microjoules for line in lines):
        raise SciError(f"no score: energy of {name!r} has no emission factor; `report` says which and why")
    kinds = {kind for line in lines for kind in line.emissions}
    if len(kinds) != 1:
        raise SciError(f"no score: factors of unlike types can't be added ({'; '.join(sorted(map(str, kinds)))})")
    (kind,) = kinds
    grams = sum((part.grams for line in lines for part in line.emissions.values()), Fraction(0))
    kwh = Fraction(energy, MICROJOULES_PER_KWH)
    return Score(kwh, grams / kwh, kind, embodied, work, unit)


def _show_score(score: Score, name: str, lines: Sequence[WorkloadLine], *, is_json: bool) -> None:
    policies = sorted({line.group.idle_policy.name.lower() for line in lines})
    methods = sorted({line.group.method.name.lower() for line in lines})
    if is_json:
        print_json(
            {
                "of": name,
                "unit": score.unit,
                "work": str(score.work),
                "grams_per_unit": rounded(score.grams_per_unit, SCORE_DIGITS),
                "grams_per_unit_exact": str(score.grams_per_unit),
                "energy_kwh": str(score.energy_kwh),
                "intensity_grams_per_kwh": str(score.intensity_grams_per_kwh),
                "embodied_grams": str(score.embodied_grams),
                "factor_type": str(score.kind),
                "idle_policies": policies,
                "methods": methods,
            }
        )
        return
    print(f"{name}: {rounded(score.grams_per_unit, SCORE_DIGITS)} g for each {score.unit}")
    intensity = f"{rounded(score.intensity_grams_per_kwh, 3)} g/kWh ({score.kind}; with PUE)"
    parts = f"E {rounded(score.energy_kwh, 6)} kWh x I {intensity} + M {rounded(score.embodied_grams, 3)} g"
    print(f"  {parts}, per {score.work} {score.unit}")
    print(f"  energy by {', '.join(methods)}; idle energy: {', '.join(policies)}")
    if not score.embodied_grams:
        print("  M is 0: the standard asks for embodied emissions; give them with --embodied-grams")


def _books(arguments: argparse.Namespace) -> int:
    if arguments.example:
        where, text = EXAMPLE_BOOKS, _example(EXAMPLE_BOOKS)
    else:
        where, text = str(arguments.file), _text(arguments.file, BooksError)
    if arguments.source:
        sys.stdout.write(text)
        return 0
    books = parse_books(text, where)
    (write_books if arguments.json else show_books)(books, reckon(books), sys.stdout)
    return 0


def _example(name: str) -> str:
    return (files("wattledger_collector") / "examples" / name).read_text(encoding="utf-8")


def _text(path: Path, error_type: type[ValueError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise error_type(f"cannot read {path}: {error}; name a text file in UTF-8") from error


def _number(text: str, option: str) -> Fraction:
    try:
        return Fraction(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError):
        raise SciError(f"{option} is {text!r}: write a number with a point, such as 1200 or 0.5") from None
