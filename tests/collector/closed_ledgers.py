"""Small ledgers with a period that can be closed: hosts, sites and energy whose sums a test can reckon by hand.

Checks nothing.
"""

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.collector.bookings import following, opening

from wattledger_collector.bundle import write_bundle
from wattledger_collector.certificate_table import parse_certificates
from wattledger_collector.closing import Closed, Maker, close_period
from wattledger_collector.declared import parse_declared
from wattledger_collector.declared_files import Declaration
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier, seconds_of_day
from wattledger_collector.records import MICROJOULES_PER_KWH, AssignmentRow, Booking, EnergyRow, GapRow, Quality, SiteRow
from wattledger_collector.report import make_period, parse_time_zone
from wattledger_collector.store import SqliteStore, open_store

KWH = MICROJOULES_PER_KWH
MWH = 1000 * KWH
INTERVAL = 900
DAY = 86_400
# India's fiscal year 2023-24.
BEGIN, END = seconds_of_day(date(2023, 4, 1)), seconds_of_day(date(2024, 4, 1))
NOW = seconds_of_day(date(2026, 1, 2))
KIND = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.PRODUCTION)


def factor(value: str, published: date, zone: str = "IN", uncertainty: str | None = None) -> Factor:
    """A zone's factor of the fiscal year, known since its publication."""
    return Factor(
        zone=zone,
        name=zone,
        value=Decimal(value),
        kind=KIND,
        includes_td=False,
        valid_from_seconds=BEGIN,
        valid_to_seconds=END,
        published=published,
        source="CEA",
        document="CO2 Baseline Database",
        licence="facts",
        attribution="Central Electricity Authority",
        recorded_at_seconds=seconds_of_day(published),
        tier=Tier.F5_ANNUAL_COUNTRY,
        uncertainty_ratio=None if uncertainty is None else Decimal(uncertainty),
    )


V20 = factor("727.0", date(2024, 12, 1))
V21 = factor("729.0", date(2025, 11, 1))
CATALOG = FactorCatalog([[V20]])
REVISED = FactorCatalog([[V20, V21]])


COLUMNS = (
    "certificate,kind,registry,market,from,to,volume_wh,grams_per_kwh,retired_for,serial_prefix,serial_first,serial_last\n"
)


def declare(certificates: str = "", more: str = "", matching: str = "yearly", holdings: str = "") -> Declaration:
    """What an organisation declares: rows of certificates in the order of COLUMNS, and more of the declaration."""
    text = (
        'organisation = "Example"\napproach = "operational_control"\n'
        + (holdings or '[[holding]]\nsite = "hall"\nsituation = "owned"\nevidence = "deed"\n')
        + f'[certificates]\nbeneficiary = "Example"\nfiles = ["certificates.csv"]\nmatching = "{matching}"\n'
        + more
    )
    rows = tuple(parse_certificates(COLUMNS + certificates, "certificates.csv"))
    return Declaration(parse_declared(text, "inventory.toml"), rows, (("inventory.toml", "0" * 64),))


def hall(pue: str = "1", valid_from: int = 0, zone: str = "IN", site: str = "hall") -> SiteRow:
    """A row of a site."""
    return SiteRow(site, valid_from, zone, pue, False, valid_from)


def row(microjoules: int, start: int = BEGIN, channel: int = 1, quality: Quality = Quality.COUNTER) -> EnergyRow:
    """Energy that covers its interval."""
    return EnergyRow(channel, start, quality, microjoules, INTERVAL * 10**9)


class Ledger:
    """A ledger in a folder, to which hosts are added with all that they used."""

    def __init__(self, folder: Path, sites: Iterable[SiteRow] = (hall(),), *, template: Path | None = None) -> None:
        self.folder = folder
        path = folder / "ledger.sqlite"
        if template is not None:
            # Making the tables takes longer than all that a property's example does.
            shutil.copyfile(template, path)
        self.store: SqliteStore = open_store(path, create=template is None)
        self.store.add_sites(sites)
        self.key = Ed25519PrivateKey.generate()
        self._last: dict[str, Booking] = {}

    def book(
        self,
        host: str,
        rows: Sequence[EnergyRow],
        site: str = "hall",
        channels: int = 4,
        *,
        source: str = "rapl",
        band: tuple[float, float] = (0.02, 0.03),
        recorded: bool = False,
    ) -> None:
        """Energy of a host, which is made with its first. source, band: of its sensors; (0, 0): none is stated."""
        before = self._last.get(host)
        if before is None:
            self.store.add_assignments([AssignmentRow(host, 0, site, 0)])
            before = opening(host, channels=channels, recorded=recorded)
            lower, upper = band
            told = (
                replace(each, source=source, uncertainty_lower_ratio=lower, uncertainty_upper_ratio=upper)
                for each in before.channels
            )
            before = replace(before, channels=tuple(told))
            self.store.commit([before])
        booking = following(before, rows)
        self.store.commit([booking])
        self._last[host] = booking

    def gaps(self, host: str, rows: Sequence[GapRow]) -> None:
        """Gaps of a host that has booked something."""
        booking = replace(following(self._last[host]), gaps=tuple(rows))
        self.store.commit([booking])
        self._last[host] = booking

    def close(
        self,
        catalog: FactorCatalog = CATALOG,
        begin: int = BEGIN,
        end: int = END,
        now: int = NOW,
        declaration: Declaration | None = None,
        site: str | None = None,
    ) -> Closed:
        """Close a period, in India's fiscal year if none is said."""
        period = make_period(begin, end, parse_time_zone("UTC"), INTERVAL)
        maker = Maker(self.key, "wattledger test", declaration)
        return close_period(self.store, catalog, period, maker, now_seconds=now, site=site)

    def bundle(self, closed: Closed, name: str = "bundle") -> Path:
        """The statement's bundle."""
        out = self.folder / name
        write_bundle(self.store, closed.statement, out)
        return out


def make_template(folder: Path) -> Path:
    """An empty database that tests copy, all of it in one file."""
    Ledger(folder, ()).store.close()
    path = folder / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path
