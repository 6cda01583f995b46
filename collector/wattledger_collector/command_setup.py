"""What the commands share: errors as sentences, the configuration and the ledger that the arguments name, and the terminal.

No command. Data goes to stdout, complaints to stderr; exit status 0: done, 1: refused.
"""

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from wattledger_collector import hosts
from wattledger_collector.books import BooksError
from wattledger_collector.config import Configuration, ConfigurationError, parse_configuration
from wattledger_collector.configuration import load_configuration
from wattledger_collector.csv_table import TableError
from wattledger_collector.declared_files import Declaration, load_declaration
from wattledger_collector.embodied import EmbodiedError
from wattledger_collector.factor_catalog import FactorCatalog, UnknownZoneError
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_store import FactorOrderError
from wattledger_collector.factors import FactorFileError
from wattledger_collector.imports import MeterImportError
from wattledger_collector.inventory import InventoryError
from wattledger_collector.records import StoreError
from wattledger_collector.report import ReportError
from wattledger_collector.sci import SciError
from wattledger_collector.store import SqliteStore, open_store

CONFIGURATION_PATH_DEFAULT = Path("/etc/wattledger/collector.toml")

# Where stdout is no terminal, rich would fold tables at 80 characters, and factors with their types need more.
_WIDTH_NOT_A_TERMINAL = 150

# What a user can mend: one sentence says how.
_MENDABLE = (
    ReportError,
    MeterImportError,
    StoreError,
    ConfigurationError,
    FactorFileError,
    FactorOrderError,
    UnknownZoneError,
    hosts.HostError,
    BooksError,
    InventoryError,
    SciError,
    EmbodiedError,
    TableError,
)

Run = Callable[[argparse.Namespace], int]
# argparse's own type for the result of add_subparsers() has no public name.
if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


@contextmanager
def keeping_all() -> Iterator[None]:
    """While the block runs, Python looks for no garbage in cycles.

    A long report makes millions of objects that it keeps to its end; walking through them again and again takes a fifth of
    its time, and finds nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def guarded(run: Run) -> Run:
    """Errors that a user can mend become one sentence on stderr and exit status 1."""

    def guard(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except _MENDABLE as error:
            print(f"wattledger-collector: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            # The reader (`head`, say) has seen enough; what is left goes nowhere, so that the flush at exit is silent.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return guard


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a ledger."""
    parser.add_argument("--store", metavar="FILE", help="the ledger's database (default: the one that --config names)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"collector.toml (default: {CONFIGURATION_PATH_DEFAULT}, if it is there)"
    )


def load_configured(arguments: argparse.Namespace) -> tuple[str | None, FactorCatalog]:
    """The database that the configuration names, if there is one, and the factors with the operator's own."""
    configuration, catalog = load_named(arguments)
    return None if configuration is None else configuration.store.path, catalog


def load_named(arguments: argparse.Namespace) -> tuple[Configuration | None, FactorCatalog]:
    """The configuration that the arguments name, or the one in its usual place; and the factors with the operator's own."""
    path: Path | None = arguments.config
    if path is None and CONFIGURATION_PATH_DEFAULT.exists():
        path = CONFIGURATION_PATH_DEFAULT
    return (None, load_catalog()) if path is None else load_configuration(path)


def load_declared(arguments: argparse.Namespace) -> Declaration | None:
    """What the organisation declares: by `--inventory`, else by the configuration; None if neither names a file.

    Raises InventoryError and TableError; the configuration is one that load_configured has found good.
    """
    named: Path | None = arguments.inventory
    if named is not None:
        return load_declaration(named)
    path: Path | None = arguments.config
    if path is None and CONFIGURATION_PATH_DEFAULT.exists():
        path = CONFIGURATION_PATH_DEFAULT
    if path is None:
        return None
    file = parse_configuration(path.read_text(encoding="utf-8")).inventory.file
    return load_declaration(path.resolve().parent / file) if file else None


def add_inventory_argument(parser: argparse.ArgumentParser) -> None:
    """The option that names a declaration."""
    parser.add_argument(
        "--inventory",
        type=Path,
        metavar="FILE",
        help="what the organisation declares, as `inventory` takes it (default: inventory.file of collector.toml)",
    )


def open_named(arguments: argparse.Namespace, configured: str | None) -> SqliteStore:
    """The ledger that the arguments or the configuration name. Raises StoreError."""
    path = arguments.store or configured
    if path is None:
        raise StoreError("which database? Name it with --store FILE, or the collector's configuration with --config FILE")
    return open_store(path, create=False)


def console() -> Console:
    """Where tables for people go."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_NOT_A_TERMINAL)


def print_json(value: object) -> None:
    """Write a value to stdout as JSON."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
