"""What a report reads: by counting, as its time must not grow with the fleet but with what is to be told."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Executable, Row
from tests.bench.bulk import BEGIN_SECONDS, INTERVAL_SECONDS, SITES, Fleet, build_ledger

from wattledger_collector.database import connect
from wattledger_collector.declared import parse_declared
from wattledger_collector.declared_files import Declaration
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_store import load_factors
from wattledger_collector.records import Component, Piece, Quality
from wattledger_collector.report import Report, make_period, make_report
from wattledger_collector.store import SqliteStore, open_store

# Enough hours that sites with a factor for each are read apart.
DAYS = 3
# Component and quality that a site of the bulk load can have.
KINDS = 8


class CountingStore(SqliteStore):
    """A store that counts what is asked of its database, and the sums that it hands out."""

    statements = 0
    sums = 0

    def rows(self, query: Executable, values: Mapping[str, int | str | None] | None = None) -> Iterator[Row[Any]]:
        """One statement."""
        self.statements += 1
        return super().rows(query, values)

    def _read(self, sql: str, values: tuple[str | bytes, ...]) -> list[tuple[bytes, ...]]:
        self.statements += 1
        return super()._read(sql, values)

    def _pieces(
        self, sql: str, pieces: Iterable[Piece], values: Mapping[str, int | str | None]
    ) -> Iterator[tuple[Piece, list[tuple[Any, ...]]]]:
        for piece, rows in super()._pieces(sql, pieces, values):
            self.statements += 1
            self.sums += len(rows)
            yield piece, rows


def counted(path: Path, fleet: Fleet) -> tuple[Report, CountingStore]:
    """A report of all time of a fleet, and what was asked for it; made at its end."""
    build_ledger(path, fleet)
    with closing(CountingStore(path, connect(path))) as store:
        catalog: FactorCatalog = load_catalog().with_recorded(load_factors(store))
        period = make_period(BEGIN_SECONDS, fleet.end_seconds, ZoneInfo("UTC"), INTERVAL_SECONDS)
        store.statements = store.sums = 0
        return make_report(store, catalog, period, now_seconds=fleet.end_seconds), store


def test_twice_the_hosts_need_no_more_statements(tmp_path: Path) -> None:
    """Silent hosts and gaps of whole hosts included; sums are of sites and pieces, however many hosts there are."""
    small, few = counted(tmp_path / "small.sqlite", Fleet(50, DAYS))
    large, many = counted(tmp_path / "large.sqlite", Fleet(100, DAYS))
    assert [sum(len(site.silent) for site in report.sites) for report in (small, large)] == [1, 2]
    assert {row.gap.channel for site in large.sites for row in site.gap_rows} >= {0, 1}
    assert many.statements == few.statements
    # Two sites with a factor for each hour, the others by the day; one time of no factor begins a piece, too.
    hours = DAYS * 24
    assert many.sums <= (2 * hours + (len(SITES) - 2) * DAYS) * KINDS
    # Some dozen statements beside one for each piece.
    assert many.statements <= hours + DAYS + 20


DECLARED = """
organisation = "Example Ltd"
approach = "operational_control"
[[holding]]
site = "nowhere"
situation = "owned"
evidence = "e"
[certificates]
beneficiary = "Example Ltd"
files = []
matching = "{}"
"""


def test_certificates_are_matched_without_a_second_reading(tmp_path: Path) -> None:
    """By year not one sum more is read than without a declaration; by hour there is one for each hour, and no interval."""
    fleet = Fleet(20, DAYS)
    build_ledger(tmp_path / "ledger.sqlite", fleet)
    asked: list[tuple[int, int]] = []
    reports = []
    with closing(CountingStore(tmp_path / "ledger.sqlite", connect(tmp_path / "ledger.sqlite"))) as store:
        catalog = load_catalog().with_recorded(load_factors(store))
        period = make_period(BEGIN_SECONDS, fleet.end_seconds, ZoneInfo("UTC"), INTERVAL_SECONDS)
        for text in ("", DECLARED.format("yearly"), DECLARED.format("hourly")):
            store.statements = store.sums = 0
            declaration = Declaration(parse_declared(text, "d"), (), ()) if text else None
            made = make_report(store, catalog, period, now_seconds=fleet.end_seconds, declaration=declaration)
            asked.append((store.statements, store.sums))
            reports.append(made)
    assert asked[0] == asked[1]
    assert asked[1][1] < asked[2][1] <= DAYS * 24 * len(SITES) * KINDS
    for made in reports:
        assert made.market.total == reports[0].market.total
        located = sum((part.grams for part in made.emissions.values()), Fraction(0))
        assert sum(made.market.total.location.values(), Fraction(0)) == located


def test_sums_may_pass_sixty_three_bits_and_be_negative(tmp_path: Path) -> None:
    """A day of one site adds up exactly where no single column could hold it."""
    path = tmp_path / "ledger.sqlite"
    with closing(open_store(path, create=True)) as store:
        with closing(connect(path)) as connection:
            for place, energy in enumerate((2**63 - 1, 2**63 - 1, 2**62 + 1)):
                for component, sign in ((1, 1), (5, -1)):
                    values = (place * 900, "hall", component, 1, 0, 0, sign * energy, 2**63 - 1)
                    connection.execute("INSERT INTO rollup VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        rows = list(store.rollup_sums([Piece(0, 1800), Piece(1800, 86_400)]))
    assert [
        (row.interval_start_seconds, row.component, row.energy_microjoules, row.covered_nanoseconds) for row in rows
    ] == [
        (0, Component.CPU, 2 * (2**63 - 1), 2 * (2**63 - 1)),
        (0, Component.OTHER, -2 * (2**63 - 1), 2 * (2**63 - 1)),
        (1800, Component.CPU, 2**62 + 1, 2**63 - 1),
        (1800, Component.OTHER, -(2**62) - 1, 2**63 - 1),
    ]
    assert {row.quality for row in rows} == {Quality.COUNTER}


def test_channels_are_counted_in_one_statement(tmp_path: Path) -> None:
    """Of each epoch as its own catalog says."""
    path = tmp_path / "ledger.sqlite"
    build_ledger(path, Fleet(6, 2))
    with closing(CountingStore(path, connect(path))) as store:
        counts = store.channel_counts()
        assert store.statements == 1
        for (host, epoch), count in counts.items():
            channels = [info for info in store.load_channels(host, epoch).values() if info.is_booked]
            assert (count.booked, count.still_open) == (len(channels), sum(not info.closed for info in channels))
    assert len(counts) == 6
