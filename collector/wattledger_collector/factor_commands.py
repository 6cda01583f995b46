"""The commands of grid factors: `factors list`, `show`, `import`, `export` and `check`.

No policy: arguments in, text out; data goes to stdout, complaints to stderr. Exit status 0: done, 1: refused, or something
was found. Sources of truth: `factors.py` for the schema, `factor_store.py` for what is recorded, `factor_checks.py`.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.markup import escape
from rich.table import Table

from wattledger_collector.command_setup import add_store_arguments, console, guarded, load_configured, open_named, print_json
from wattledger_collector.factor_catalog import FactorCatalog, UnknownZoneError
from wattledger_collector.factor_checks import check_factors, compare_labels, count_hours
from wattledger_collector.factor_claims import Claim, check_claim, claim_lines
from wattledger_collector.factor_files import bundled_tables, read_factor_text
from wattledger_collector.factor_live import newest_factors
from wattledger_collector.factor_store import load_factors, record_factors
from wattledger_collector.factor_units import UnitError, grams_per_kwh
from wattledger_collector.factors import COLUMNS, OPTIONAL_COLUMNS, Factor, FactorFileError, parse_factors, text_of_instant
from wattledger_collector.report import parse_instant, parse_time_zone
from wattledger_collector.report_output import factor_tree

if TYPE_CHECKING:
    from wattledger_collector.command_setup import Run, Subparsers

# Of a series of hours `show` prints a day to people.
_SHOWN_HOURS = 24

# More MWh than the world has used, and more digits than any meter has.
_NUMBER_END = Decimal(10) ** 15
_FRACTION_DIGITS_MAX = 30

_AS_OF_HELP = "as known at an ISO date or datetime (UTC), without what was recorded later"


def add_factors(subparsers: "Subparsers") -> None:
    """Add the commands."""
    parser = subparsers.add_parser("factors", help="grid emission factors and where they come from")
    actions = parser.add_subparsers(required=True, metavar="list|show|import|export|check")
    listed = actions.add_parser("list", help="all zones with their newest factor")
    listed.add_argument("text", nargs="?", default="", help="only zones whose id or name contains this")
    shown = actions.add_parser("show", help="all factors of a zone, with document and licence")
    shown.add_argument("zone")
    for action, run in ((listed, _list), (shown, _show)):
        action.add_argument("--json", action="store_true", help="a JSON list")
        action.add_argument("--as-of", metavar="TIME", help=_AS_OF_HELP)
        _finish(action, run)
    _add_import(actions)
    _add_export(actions)
    _add_check(actions)


def _add_import(actions: "Subparsers") -> None:
    action = actions.add_parser("import", help="record the factors of CSV files in the ledger, all or none")
    action.add_argument("files", nargs="+", type=Path, metavar="FILE", help="CSV; the README has its columns")
    action.add_argument("--dry-run", action="store_true", help="tell what would be recorded, and record nothing")
    action.add_argument(
        "--keep-recorded", action="store_true", help="take over the recorded times of another ledger's export"
    )
    _finish(action, _import)


def _add_export(actions: "Subparsers") -> None:
    action = actions.add_parser("export", help="write the recorded factors as CSV, corrected ones too")
    action.add_argument("--zone", help="this zone alone")
    action.add_argument("--as-of", metavar="TIME", help=_AS_OF_HELP)
    action.add_argument("--out", type=Path, metavar="FILE", help="a file (default: standard output)")
    _finish(action, _export)


def _add_check(actions: "Subparsers") -> None:
    action = actions.add_parser("check", help="missing hours, shifted labels, slips of the unit, and claims of a value")
    action.add_argument("files", nargs="*", type=Path, metavar="FILE", help="CSV files (default: what the ledger recorded)")
    action.add_argument("--zone", help="this zone alone")
    action.add_argument("--year", type=int, help="count the hours of this whole year (UTC)")
    action.add_argument("--against", metavar="SOURCE", help="compare the labels of all other sources with this one's")
    action.add_argument("--document", metavar="TEXT", help="with --value: a part of the document's title, or its numbers")
    action.add_argument("--value", metavar="NUMBER", help="refuse unless the document has a row with this value")
    action.add_argument("--unit", default="kg/kWh", help="of --value (default: kg/kWh)")
    action.add_argument("--energy-mwh", metavar="NUMBER", help="with --value: what this energy emits by it, and by the rows")
    action.add_argument("--other-tonnes", metavar="NUMBER", help="with --energy-mwh: other emissions in the same sum")
    _finish(action, _check)


def _finish(action: argparse.ArgumentParser, run: "Run") -> None:
    add_store_arguments(action)
    action.set_defaults(run=guarded(run))


def _as_of(arguments: argparse.Namespace) -> int | None:
    return None if arguments.as_of is None else parse_instant(arguments.as_of, parse_time_zone("UTC"))


def _catalog(arguments: argparse.Namespace, as_of_seconds: int | None) -> FactorCatalog:
    """All factors: of files, of the ledger if there is one, and the bundled ones."""
    configured, catalog = load_configured(arguments)
    recorded: list[Factor] = []
    if arguments.store or (configured and Path(configured).exists()):
        with closing(open_named(arguments, configured)) as store:
            recorded = load_factors(store)
    return catalog.with_recorded(recorded, as_of_seconds=as_of_seconds)


def _list(arguments: argparse.Namespace) -> int:
    catalog = _catalog(arguments, _as_of(arguments))
    wanted = arguments.text.casefold()
    zones = [zone for zone, name in catalog.zones.items() if wanted in zone.casefold() or wanted in name.casefold()]
    if not zones:
        near = catalog.near_zones(arguments.text)
        raise UnknownZoneError(
            f"no zone contains {arguments.text!r}" + (f": did you mean {', '.join(near)}?" if near else "")
        )
    newest = [series[-1] for zone in zones if (series := catalog.default_series(zone))]
    if arguments.json:
        print_json([_tree(factor) for factor in newest])
        return 0
    _print_factors(newest, "newest")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    catalog = _catalog(arguments, _as_of(arguments))
    factors = catalog.factors(arguments.zone)
    if arguments.json:
        print_json([_tree(factor) for factor in factors])
        return 0
    shown = newest_factors(factors, _SHOWN_HOURS)
    _print_factors(shown, "valid")
    screen = console()
    if len(shown) < len(factors):
        screen.print(f"{len(factors) - len(shown)} older values of hours are not shown; --json has them.", highlight=False)
    for source, document, licence, attribution in sorted(
        {(factor.source, factor.document, factor.licence, factor.attribution) for factor in factors}
    ):
        screen.print(f"{source}: {document}; {licence}; {attribution}", markup=False, highlight=False, soft_wrap=True)
    for number, series in enumerate(catalog.series(arguments.zone)):
        use = "use" if number == 0 else "where that has nothing, use"
        screen.print(
            f"Figures of zone {arguments.zone} {use}: {series[0].kind}, {series[0].source}.", markup=False, highlight=False
        )
    return 0


def _tree(factor: Factor) -> dict[str, object]:
    return {
        **factor_tree(factor),
        "tier": factor.tier,
        "recorded": text_of_instant(factor.recorded_at_seconds),
        "supersedes": factor.supersedes or None,
        "document_sha256": factor.document_sha256 or None,
        "uncertainty_ratio": None if factor.uncertainty_ratio is None else f"{factor.uncertainty_ratio:f}",
    }


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
    console().print(table)


def _import(arguments: argparse.Namespace) -> int:
    factors: list[Factor] = []
    for path in arguments.files:
        factors += _parse(path)
    configured, _ = load_configured(arguments)
    with closing(open_named(arguments, configured)) as store:
        recorded = record_factors(
            store,
            factors,
            now_seconds=int(time.time()),
            keep_recorded=arguments.keep_recorded,
            dry_run=arguments.dry_run,
        )
    for finding in check_factors(factors):
        print(f"wattledger-collector: {finding}", file=sys.stderr)
    done = "would be recorded" if arguments.dry_run else "recorded"
    new = len(recorded.added) - recorded.superseding
    print(f"{new} new factors and {recorded.superseding} corrections {done}, {recorded.unchanged} were known")
    return 0


def _parse(path: Path) -> list[Factor]:
    return parse_factors(read_factor_text(path, "name a CSV file"), str(path), any_unit=True)


def _export(arguments: argparse.Namespace) -> int:
    as_of = _as_of(arguments)
    configured, _ = load_configured(arguments)
    with closing(open_named(arguments, configured)) as store:
        factors = load_factors(store, zone=arguments.zone, as_of_seconds=as_of)
    if arguments.zone is not None and not factors:
        raise UnknownZoneError(f"the ledger has recorded no factor of a zone {arguments.zone!r}: see `factors list`")
    if arguments.out is None:
        write_factors(factors, sys.stdout)
        return 0
    try:
        with arguments.out.open("w", encoding="utf-8", newline="") as out:
            write_factors(factors, out)
    except OSError as error:
        raise FactorFileError(f"cannot write {arguments.out}: {error.strerror}: name another file") from error
    return 0


def write_factors(factors: Iterable[Factor], out: TextIO) -> None:
    """Write factors in the schema of `factors.py`, so that an import has the same rows again, to the last digit."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*COLUMNS, *OPTIONAL_COLUMNS))
    for factor in sorted(factors, key=_order):
        writer.writerow(_cells(factor))


def _order(factor: Factor) -> tuple[object, ...]:
    """Corrections after what they correct; all else by place and time."""
    key = (factor.zone, factor.source, factor.kind, factor.valid_from_seconds, factor.valid_to_seconds)
    return (factor.recorded_at_seconds, factor.published, *key)


def _cells(factor: Factor) -> tuple[str, ...]:
    kind = factor.kind
    recorded = text_of_instant(factor.recorded_at_seconds)
    cells = {
        "zone": factor.zone,
        "name": factor.name,
        "value": f"{factor.value:f}",
        "unit": "g/kWh",
        "signal": kind.signal,
        "boundary": kind.boundary,
        "gas": kind.gas,
        "basis": kind.basis,
        "includes_td": "true" if factor.includes_td else "false",
        "valid_from": factor.valid_from,
        "valid_to": factor.valid_to,
        "published": factor.published.isoformat(),
        "source": factor.source,
        "document": factor.document,
        "licence": factor.licence,
        "attribution": factor.attribution,
        "recorded": recorded if "T" in recorded else f"{recorded}T00:00:00Z",
        "supersedes": factor.supersedes,
        "document_sha256": factor.document_sha256,
        "gwp": kind.gwp,
        "uncertainty_ratio": "" if factor.uncertainty_ratio is None else f"{factor.uncertainty_ratio:f}",
        "tier": factor.tier,
    }
    return tuple(cells[name] for name in (*COLUMNS, *OPTIONAL_COLUMNS))


def _check(arguments: argparse.Namespace) -> int:
    factors = _to_check(arguments)
    if arguments.value is not None or arguments.document is not None:
        return _check_claim(arguments, factors)
    rows = [factor for factor in factors if arguments.zone in (None, factor.zone)]
    if not rows:
        of_zone = "" if arguments.zone is None else f" of zone {arguments.zone}"
        raise FactorFileError(f"there is no factor{of_zone} to check: name a file, or a ledger that has recorded some")
    findings = check_factors(rows, arguments.year)
    if arguments.against is not None:
        findings += _compare(rows, arguments.against)
    for count in count_hours(rows, arguments.year):
        print(count.text)
    for finding in findings:
        print(f"wattledger-collector: {finding}", file=sys.stderr)
    print(f"{len(rows)} factors, {len(findings)} findings")
    return 1 if findings else 0


def _to_check(arguments: argparse.Namespace) -> list[Factor]:
    if arguments.files:
        return [factor for path in arguments.files for factor in _parse(path)]
    configured, _ = load_configured(arguments)
    factors: list[Factor] = []
    if arguments.store or (configured and Path(configured).exists()):
        with closing(open_named(arguments, configured)) as store:
            factors = load_factors(store)
    # A claim is often of a table that comes with the product.
    return factors if arguments.value is None else [*factors, *(row for table in bundled_tables() for row in table)]


def _check_claim(arguments: argparse.Namespace, factors: Sequence[Factor]) -> int:
    if arguments.value is None or arguments.document is None:
        raise FactorFileError("a claim has a --document and a --value: give both")
    try:
        grams = grams_per_kwh(_number(arguments.value, "--value"), arguments.unit, "CO2")
    except UnitError as error:
        raise FactorFileError(f"--value {error}") from None
    energy = None if arguments.energy_mwh is None else _number(arguments.energy_mwh, "--energy-mwh")
    others = Decimal(0) if arguments.other_tonnes is None else _number(arguments.other_tonnes, "--other-tonnes")
    finding = check_claim(factors, Claim(arguments.document, grams, arguments.zone, energy, others))
    for line in claim_lines(finding):
        print(line)
    if finding.refusal is None:
        return 0
    print(f"wattledger-collector: {finding.refusal}", file=sys.stderr)
    return 1


def _number(text: str, option: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise FactorFileError(f"{option} {text!r} is no number: write one with a point, such as 0.5366") from None
    if not value.is_finite() or not 0 <= value < _NUMBER_END or -value.adjusted() > _FRACTION_DIGITS_MAX:
        raise FactorFileError(f"{option} {text}: write a number of at least 0, of a size that a meter has")
    return value


def _compare(rows: Sequence[Factor], against: str) -> list[str]:
    findings = []
    if against not in {factor.source for factor in rows}:
        raise FactorFileError(f"no factor to check is of a source {against!r}: give its file too")
    for zone in sorted({factor.zone for factor in rows}):
        of_zone = [factor for factor in rows if factor.zone == zone and not factor.is_long and factor.kind.is_location_based]
        other = [factor for factor in of_zone if factor.source == against]
        for source in sorted({factor.source for factor in of_zone} - {against}):
            finding = compare_labels([factor for factor in of_zone if factor.source == source], other) if other else None
            findings += [finding] if finding else []
    return findings
