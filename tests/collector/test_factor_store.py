"""Grid factors in the ledger's database: added and never changed, with what was known at any time."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection

from wattledger_collector.database import connect
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_store import (
    FactorOrderError,
    StoredFactors,
    factors_revision,
    load_factors,
    record_factors,
)
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier, seconds_of_day
from wattledger_collector.store import SqliteStore, open_store

KIND = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.PRODUCTION)
DECEMBER = int(datetime(2024, 12, 15, tzinfo=UTC).timestamp())
NOVEMBER = int(datetime(2025, 11, 20, tzinfo=UTC).timestamp())


def indian(value: str, published: date, document: str) -> Factor:
    """India's fiscal year 2023-24, of one edition of the official database."""
    return Factor(
        zone="IN",
        name="India",
        value=Decimal(value),
        kind=KIND,
        includes_td=False,
        valid_from_seconds=seconds_of_day(date(2023, 4, 1)),
        valid_to_seconds=seconds_of_day(date(2024, 4, 1)),
        published=published,
        source="CEA",
        document=document,
        licence="facts",
        attribution="Central Electricity Authority",
        recorded_at_seconds=0,
        tier=Tier.F5_ANNUAL_COUNTRY,
        document_sha256="a" * 64,
        uncertainty_ratio=Decimal("0.050"),
    )


V20 = indian("727.0", date(2024, 12, 1), "CO2 Baseline Database v20.0")
V21 = indian("729.0", date(2025, 11, 1), "CO2 Baseline Database v21.0")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty ledger."""
    with closing(open_store(tmp_path / "ledger.sqlite", create=True)) as opened:
        yield opened


def test_a_corrected_year_leaves_the_one_known_before(store: SqliteStore) -> None:
    """1,000 MWh of fiscal year 2023-24 are 727.00 t as known in January 2025, and 729.00 t, 0.275 % more, a year later."""
    record_factors(store, [V20], now_seconds=DECEMBER)
    second = record_factors(store, [V21], now_seconds=NOVEMBER)

    tonnes = {}
    for year in (2025, 2026):
        known = load_factors(store, as_of_seconds=seconds_of_day(date(year, 1, 1)))
        factor = FactorCatalog([known]).factor_at("IN", seconds_of_day(date(2023, 7, 1))).factor
        assert factor is not None
        # 1,000 MWh are 1,000,000 kWh, and 1,000,000 g a tonne.
        tonnes[year] = factor.value * 1_000_000 / 1_000_000
    assert tonnes == {2025: Decimal("727.00"), 2026: Decimal("729.00")}
    assert tonnes[2026] - tonnes[2025] == Decimal("2.00")
    assert round((tonnes[2026] / tonnes[2025] - 1) * 100, 3) == Decimal("0.275")
    assert second.superseding == 1
    assert second.added[0].supersedes == replace(V20, recorded_at_seconds=DECEMBER).id


def test_what_is_stored_comes_back_to_the_last_digit(store: SqliteStore) -> None:
    """All fields survive, with the digits of the value and the digest; recorded is the time of the import."""
    exact = replace(V20, value=Decimal("0.10000000000000000000000000000001"))

    record_factors(store, [exact], now_seconds=DECEMBER)

    (loaded,) = load_factors(store)
    assert loaded == replace(exact, recorded_at_seconds=DECEMBER)
    assert str(loaded.value) == str(exact.value)
    assert str(loaded.uncertainty_ratio) == "0.050"


def test_the_same_again_changes_nothing(store: SqliteStore) -> None:
    """Neither a second import, nor the same value from a later answer, nor a superseded old edition adds a row."""
    record_factors(store, [V20, V21], now_seconds=DECEMBER)
    revision = factors_revision(store)

    for again in (V21, replace(V21, published=date(2025, 12, 1), document_sha256="b" * 64), V20):
        recorded = record_factors(store, [again], now_seconds=NOVEMBER)
        assert (recorded.added, recorded.unchanged) == ((), 1)
    assert factors_revision(store) == revision
    assert len(load_factors(store)) == 2


def test_a_change_of_quality_alone_is_a_row_of_its_own(store: SqliteStore) -> None:
    """A provider's estimate that its measurement confirms keeps its number and gets a better tier."""
    record_factors(store, [replace(V20, tier=Tier.F1_PROVIDER_ESTIMATED)], now_seconds=DECEMBER)

    recorded = record_factors(store, [replace(V20, tier=Tier.F0_MEASURED)], now_seconds=NOVEMBER)

    assert [factor.tier for factor in recorded.added] == [Tier.F0_MEASURED]


def test_an_older_edition_cannot_follow_a_newer_one(store: SqliteStore) -> None:
    """What is recorded last holds, so that an old book must not win by being found late; nothing of the import stays."""
    record_factors(store, [V21], now_seconds=DECEMBER)
    other = replace(V20, zone="BT", name="Bhutan")

    with pytest.raises(FactorOrderError, match="the one of 2024-12-01 is older: import editions in the order"):
        record_factors(store, [other, V20], now_seconds=NOVEMBER)
    assert [factor.zone for factor in load_factors(store)] == ["IN"]


def test_a_clock_that_was_set_back_does_not_reorder_what_was_known(store: SqliteStore) -> None:
    """A correction is recorded after what it corrects, whatever the clock says."""
    record_factors(store, [V20], now_seconds=NOVEMBER)

    recorded = record_factors(store, [V21], now_seconds=DECEMBER)

    assert recorded.added[0].recorded_at_seconds == NOVEMBER + 1
    factor = FactorCatalog([load_factors(store)]).factor_at("IN", seconds_of_day(date(2023, 7, 1))).factor
    assert factor is not None
    assert factor.value == Decimal("729.0")


def test_recorded_times_of_another_ledger_are_taken_over_on_demand_alone(store: SqliteStore) -> None:
    """Else the import's time counts; a time that is still to come is refused."""
    known = replace(V20, recorded_at_seconds=DECEMBER)

    record_factors(store, [known], now_seconds=NOVEMBER, keep_recorded=True)

    assert load_factors(store)[0].recorded_at_seconds == DECEMBER
    with pytest.raises(FactorOrderError, match="which is later than now"):
        record_factors(store, [replace(V21, recorded_at_seconds=NOVEMBER + 1)], now_seconds=NOVEMBER, keep_recorded=True)


def test_a_dry_run_tells_and_writes_nothing(store: SqliteStore) -> None:
    """The counts are those of the import itself."""
    recorded = record_factors(store, [V20, V21], now_seconds=DECEMBER, dry_run=True)

    assert (len(recorded.added), recorded.superseding) == (2, 1)
    assert load_factors(store) == []
    assert factors_revision(store) == 0


class Overtaken(SqliteStore):
    """A ledger in which another program records a factor just before the first transaction of this one."""

    is_overtaken = False

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One writing transaction, after the other program's."""
        if not self.is_overtaken:
            self.is_overtaken = True
            with closing(open_store(self.path, create=False)) as other:
                record_factors(other, [V20], now_seconds=DECEMBER)
        with super().writing() as connection:
            yield connection


def test_rows_of_a_plan_that_another_import_overtook_are_planned_again(store: SqliteStore) -> None:
    """Of two imports at once the second sees what the first added, so that no row is there twice."""
    with closing(Overtaken(store.path, connect(store.path))) as late:
        recorded = record_factors(late, [V20], now_seconds=NOVEMBER)

    assert recorded.unchanged == 1
    assert len(load_factors(store)) == 1


def test_rows_are_read_on_and_only_when_something_changed(store: SqliteStore) -> None:
    """A collector's copy follows imports by other programs; a list handed out before stays as it was."""
    stored = StoredFactors(store)
    assert not stored.renew()
    record_factors(store, [V20], now_seconds=DECEMBER)

    assert stored.renew()
    before = stored.rows
    assert not stored.renew()
    record_factors(store, [V21], now_seconds=NOVEMBER)
    assert stored.renew()
    assert [len(rows) for rows in (before, stored.rows)] == [1, 2]
