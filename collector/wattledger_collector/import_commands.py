"""The commands `import energy`, which takes another meter's series into the ledger, `import remove`, and `import list`.

No policy: arguments in, text out. Sources of truth: `import_series.py` for the file, `imports.py` and `import_store.py` for
what becomes of it.
"""

import argparse
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from wattledger_collector.command_setup import (
    CONFIGURATION_PATH_DEFAULT,
    add_store_arguments,
    console,
    guarded,
    load_configured,
    open_named,
    print_json,
)
from wattledger_collector.config import site_of_host
from wattledger_collector.configuration import load_configuration
from wattledger_collector.facility import Point
from wattledger_collector.import_series import Form, Format, Label, SpanLength, parse_series, utc_text
from wattledger_collector.import_store import DIGEST_DIGITS_MIN, find_import, import_series, imports, remove_import
from wattledger_collector.imports import TEXT_CHARACTERS_MAX, EnergyImport, Meter, MeterImportError, Place, make_import
from wattledger_collector.progress import working
from wattledger_collector.records import MICROJOULES_PER_KWH, SITE_UNASSIGNED, Component
from wattledger_collector.report import parse_instant, parse_time_zone
from wattledger_collector.rounding import rounded
from wattledger_collector.store import SqliteStore

if TYPE_CHECKING:
    from wattledger_collector.command_setup import Subparsers

# Two years of minutes with twenty columns; more is no meter's export.
FILE_BYTES_MAX = 512 * 1024 * 1024

# What tells imports apart in a table.
DIGEST_DIGITS_SHOWN = 12

PLACE_WORDS = {
    Place.BOOKED: "booked as recorded energy of host {host}: in reports, and in no live counter",
    Place.BESIDE: "kept beside what host {host} has booked already: shown, and in no sum; no residual is reckoned from it",
    Place.FACILITY: "kept as the meter of all of site {site}: reports measure its PUE with it",
}


def add_imports(subparsers: "Subparsers") -> None:
    """Add the commands."""
    parser = subparsers.add_parser("import", help="take other meters' series into the ledger, take them back, and list them")
    actions = parser.add_subparsers(required=True, metavar="energy|remove|list")
    energy = actions.add_parser("energy", help="a host's or a site's meter, as a CSV file")
    energy.add_argument(
        "file", type=Path, help="the meter's export: CSV with a header; commas, semicolons or tabs between cells"
    )
    energy.add_argument("--form", required=True, choices=[each.value for each in Form], help="what the values are")
    energy.add_argument("--time-column", default="time", metavar="NAME", help="column of the times (default: time)")
    energy.add_argument("--value-column", required=True, metavar="NAME", help="column of the values")
    energy.add_argument(
        "--time-zone", default="UTC", metavar="NAME", help="IANA zone of times that state no offset (default: UTC)"
    )
    energy.add_argument("--label", choices=[each.value for each in Label], help="what a row's time is of its span")
    energy.add_argument(
        "--span-seconds",
        action="append",
        default=[],
        metavar="N[@TIME]",
        help="how long a row's span is, and since when; once for each length (default: as the rows lie, if all are alike)",
    )
    energy.add_argument("--rollover", type=_decimal, metavar="KWH", help="where the counter begins at 0 again")
    energy.add_argument("--partial-days", action="store_true", help="the file begins and ends within a day")
    energy.add_argument("--host", default="", metavar="ID", help="what the meter measures; a new id makes a new host")
    energy.add_argument("--site", default="", metavar="NAME", help="the site that it measures, or where a new host stands")
    energy.add_argument(
        "--component", choices=[each.name.lower() for each in Component], default="other", help="(default: other)"
    )
    energy.add_argument("--meter", default="", metavar="ID", help="the meter's id or serial number")
    energy.add_argument("--point", choices=[each.value for each in Point], default="node", help="where (default: node)")
    energy.add_argument(
        "--uncertainty-ratio", type=_decimal, metavar="RATIO", help="half-width of its 95 %% interval: 0.01 for 1 %%"
    )
    energy.add_argument(
        "--power-bound-watts", type=_decimal, metavar="W", help="the most that it can measure: bounds what holes may hide"
    )
    energy.add_argument("--evidence", default="", metavar="TEXT", help="what proves it: a calibration, a contract, a bill")
    energy.add_argument("--beside", action="store_true", help="the host is booked already: keep the series apart, in no sum")
    energy.add_argument(
        "--another-feed", action="store_true", help="the site's other meters do not measure this: their energy adds up"
    )
    energy.add_argument(
        "--replaces", default="", metavar="DIGEST", help="take this import back in the same step, as `import remove` does"
    )
    energy.add_argument("--reason", default="", metavar="TEXT", help="why it is replaced")
    energy.add_argument("--dry-run", action="store_true", help="check everything and change nothing")
    add_store_arguments(energy)
    energy.set_defaults(run=guarded(_energy))
    remove = actions.add_parser("remove", help="take an import back: what it booked is undone exactly, and it stays listed")
    remove.add_argument("digest", help=f"of the import, as `import list` shows it; {DIGEST_DIGITS_MIN} digits at least")
    remove.add_argument("--reason", required=True, metavar="TEXT", help="why")
    remove.add_argument("--dry-run", action="store_true", help="check everything and change nothing")
    add_store_arguments(remove)
    remove.set_defaults(run=guarded(_remove))
    listed = actions.add_parser("list", help="all imports, with where each comes from")
    listed.add_argument("--json", action="store_true", help="a JSON list")
    add_store_arguments(listed)
    listed.set_defaults(run=guarded(_list))


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def _energy(arguments: argparse.Namespace) -> int:
    zone = parse_time_zone(arguments.time_zone)
    form = _format(arguments, zone)
    meter = Meter(
        host=arguments.host,
        site=arguments.site,
        component=Component[arguments.component.upper()],
        meter=arguments.meter,
        point=Point(arguments.point),
        uncertainty_ratio=arguments.uncertainty_ratio,
        evidence=arguments.evidence,
        power_bound_milliwatts=int((arguments.power_bound_watts or 0) * 1000),
    )
    if bool(arguments.replaces) != bool(arguments.reason):
        raise MeterImportError("--replaces and --reason go together: say which import is replaced, and why")
    _check_reason(arguments.reason)
    content = _content(arguments.file)
    configured, _ = load_configured(arguments)
    with closing(open_named(arguments, configured)) as store, working() as work:
        text = _decoded(content, arguments.file)
        series = work.do("reading the file", lambda: parse_series(text, arguments.file.name, form))
        if meter.host and not meter.site:
            meter = replace(meter, site=_site_by_rules(arguments, store, meter.host))
        made = make_import(
            series,
            form,
            meter,
            file=arguments.file.name,
            content=content,
            now_seconds=int(time.time()),
            version=version("wattledger"),
            beside=arguments.beside,
            interval_seconds=store.interval_seconds,
        )
        replaces = (find_import(store, arguments.replaces), arguments.reason) if arguments.replaces else None
        is_new = work.do(
            "booking",
            lambda: import_series(
                store,
                made,
                series,
                dry_run=arguments.dry_run,
                replaces=replaces,
                is_another_feed=arguments.another_feed,
            ),
        )
    source = made.provenance
    if not is_new:
        print(f"{source.file} is imported already, and nothing was changed: it has the same bytes and the same options")
        return 0
    done = "would be " if arguments.dry_run else ""
    print(
        f"{source.file}: {source.rows} rows, {_kwh(source.energy_microjoules)} kWh from {utc_text(source.from_seconds)} to "
        f"{utc_text(source.to_seconds)}, {len(series.holes)} holes of {source.missing_seconds} s together; "
        f"{done}{PLACE_WORDS[made.place].format(host=meter.host, site=meter.site)}"
    )
    if replaces is not None:
        print(_taken_back(replaces[0], done))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    _check_reason(arguments.reason)
    configured = None if arguments.store else load_configured(arguments)[0]
    with closing(open_named(arguments, configured)) as store, working() as work:
        made = find_import(store, arguments.digest)
        now_seconds = int(time.time())
        work.do(
            "taking back",
            lambda: remove_import(store, made, arguments.reason, now_seconds=now_seconds, dry_run=arguments.dry_run),
        )
    print(_taken_back(made, "would be " if arguments.dry_run else ""))
    return 0


def _check_reason(reason: str) -> None:
    if len(reason) > TEXT_CHARACTERS_MAX or not reason.isprintable():
        raise MeterImportError(f"--reason {reason[:40]!r}: use at most {TEXT_CHARACTERS_MAX} printable characters")


def _taken_back(made: EnergyImport, done: str) -> str:
    source, meter = made.provenance, made.meter
    return (
        f"{source.file}, imported {datetime.fromtimestamp(source.imported_at_seconds, UTC).date()} for "
        f"{meter.host or meter.site}: {done}taken back, {_kwh(source.energy_microjoules)} kWh from "
        f"{utc_text(source.from_seconds)} to {utc_text(source.to_seconds)}"
    )


def _site_by_rules(arguments: argparse.Namespace, store: SqliteStore, host: str) -> str:
    """Where the configuration's rules put a host that has no site yet; empty if nothing says so."""
    path = arguments.config or (CONFIGURATION_PATH_DEFAULT if CONFIGURATION_PATH_DEFAULT.exists() else None)
    if path is None or any(row.host == host for row in store.assignments()):
        return ""
    site = site_of_host(load_configuration(path)[0], host, {})
    return "" if site == SITE_UNASSIGNED else site


def _format(arguments: argparse.Namespace, zone: ZoneInfo) -> Format:
    form = Form(arguments.form)
    label = arguments.label or (Label.INSTANT if form is Form.CUMULATIVE_KWH else None)
    if label is None:
        raise MeterImportError(
            f"--label is needed with --form {form}: say whether a row's time is the start or the end of its span"
        )
    return Format(
        form=form,
        time_column=arguments.time_column,
        value_column=arguments.value_column,
        time_zone=zone,
        label=Label(label),
        lengths=tuple(sorted((_length(text, zone) for text in arguments.span_seconds), key=lambda each: each.from_seconds)),
        rollover_kwh=arguments.rollover,
        partial_days=arguments.partial_days,
    )


def _length(text: str, zone: ZoneInfo) -> SpanLength:
    number, _, since = text.partition("@")
    if not number.isascii() or not number.isdecimal() or not 1 <= int(number) <= 366 * 86_400:
        raise MeterImportError(f"--span-seconds {text!r}: write whole seconds, such as 3600, or 900@2024-03-01")
    return SpanLength(parse_instant(since, zone) if since else 0, int(number))


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise MeterImportError(f"{path} is larger than {FILE_BYTES_MAX // 2**20} MiB: split it into several files")
        return path.read_bytes()
    except OSError as error:
        raise MeterImportError(f"cannot read {path}: {error.strerror}; correct its path or rights") from error


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MeterImportError(
            f"{path.name} line {line} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error


def _list(arguments: argparse.Namespace) -> int:
    configured = None if arguments.store else load_configured(arguments)[0]
    with closing(open_named(arguments, configured)) as store:
        rows = [_tree(made) for made in imports(store)]
    if arguments.json:
        print_json(rows)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = ("digest", "imported_at", "file", "place", "host", "site", "meter", "point", "from", "to", "kwh", "removed_at")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right" if name == "kwh" else "left")
    for row in rows:
        shown = {**row, "digest": str(row["digest"])[:DIGEST_DIGITS_SHOWN]}
        table.add_row(*(escape(str(shown[name] or "")) for name in names))
    console().print(table if rows else "Nothing was imported yet: see `wattledger-collector import energy --help`.")
    return 0


def _tree(made: EnergyImport) -> dict[str, object]:
    meter, source, removal = made.meter, made.provenance, made.removal
    return {
        "imported_at": datetime.fromtimestamp(source.imported_at_seconds, UTC).isoformat(),
        "file": source.file,
        "place": made.place,
        "host": meter.host or None,
        "site": meter.site or None,
        "component": meter.component.name.lower(),
        "meter": meter.meter or None,
        "point": meter.point,
        "from": utc_text(source.from_seconds),
        "to": utc_text(source.to_seconds),
        "kwh": _kwh(source.energy_microjoules),
        "energy_microjoules": str(source.energy_microjoules),
        "missing_seconds": source.missing_seconds,
        "rows": source.rows,
        "form": source.form,
        "label": source.label,
        "time_zone": source.time_zone,
        "value_column": source.value_column,
        "uncertainty_ratio": None if meter.uncertainty_ratio is None else f"{meter.uncertainty_ratio:f}",
        "evidence": meter.evidence or None,
        "sha256": source.sha256,
        "version": source.version,
        "digest": source.digest,
        "removed_at": None if removal is None else datetime.fromtimestamp(removal.removed_at_seconds, UTC).isoformat(),
        "removed_because": None if removal is None else removal.reason,
        "replaced_by": (removal.replacement or None) if removal is not None else None,
    }


def _kwh(microjoules: int) -> str:
    return rounded(Fraction(microjoules, MICROJOULES_PER_KWH), 6)
