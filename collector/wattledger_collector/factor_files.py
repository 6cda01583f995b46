"""Reads factor tables and the time zone table from files; what they mean is said in `factors.py`.

No network and no state. Sources of truth: the CSV files in bundled_factors/, made by build_factors.py, and tzdata.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from wattledger_collector.factor_catalog import FactorCatalog, zone_of_time_zone
from wattledger_collector.factors import Factor, FactorFileError, parse_factors

# Official national tables before the international one: see "Which factor holds" in factors.py.
BUNDLED_FILES = ("china.csv", "us_egrid.csv", "countries.csv")


def bundled_tables() -> list[list[Factor]]:
    """The tables that come with the product, in order of preference."""
    folder = files("wattledger_collector") / "bundled_factors"
    return [parse_factors((folder / name).read_text(encoding="utf-8"), name) for name in BUNDLED_FILES]


def load_catalog(paths: Iterable[Path] = (), ladders: Mapping[str, Sequence[str]] | None = None) -> FactorCatalog:
    """The bundled tables, and before them the operator's own files. ladders: by zone. Raises FactorFileError."""
    own = [parse_factors(read_factor_text(path), str(path)) for path in paths]
    return FactorCatalog([*own, *bundled_tables()], ladders=ladders, own_tables=len(own))


def read_factor_text(path: Path, remedy: str = "correct factors.files") -> str:
    """The text of a factor file. Raises FactorFileError, with the remedy if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FactorFileError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8 CSV") from error
    except OSError as error:
        raise FactorFileError(f"cannot read factor file {path}: {error.strerror}: {remedy}") from error


def system_time_zone() -> str | None:
    """The IANA name of this machine's time zone, from TZ, /etc/timezone or /etc/localtime; None if it has none."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        return named
    try:
        text = Path("/etc/timezone").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        text = ""
    if text:
        return text
    target = os.path.realpath("/etc/localtime")
    _, found, name = target.partition("/zoneinfo/")
    return name if found else None


def propose_zone(time_zone: str | None, catalog: FactorCatalog) -> str | None:
    """A grid zone for an IANA time zone; None if its country is unknown or has no factor."""
    if time_zone is None:
        return None
    folder = files("tzdata") / "zoneinfo"
    zone_table = (folder / "zone.tab").read_text(encoding="utf-8")
    links = (folder / "tzdata.zi").read_text(encoding="utf-8")
    return zone_of_time_zone(time_zone, zone_table, links, catalog)
