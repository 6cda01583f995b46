"""Keeps grid factors in the ledger's database with both their times: when they hold, and when this ledger came to know them.

Reads no file and asks no provider. Rows are only added: a value that changed is a row of its own, which names the one it
supersedes, so that `as_of` gives again what was known at any time. Source of truth: the rows.

A row is known by its key: zone, type, source, and the span in which it holds. What comes again and says the same (value,
document, tier, uncertainty) changes nothing, also if it comes from a later answer of the same document. `recorded` is set
here: now, and always later than the newest row of the key, so that the order of rows is the order in which they were known
even if the clock was set back. An edition published before the one already recorded is refused where it says another thing:
recorded last, it would win.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, select, update
from sqlalchemy.dialects import sqlite as sqlite_dialect

from wattledger_collector import schema
from wattledger_collector.database import connect
from wattledger_collector.factors import (
    Basis,
    Boundary,
    Factor,
    FactorKind,
    Gas,
    Gwp,
    Signal,
    Tier,
    text_of_instant,
)
from wattledger_collector.records import StoreError
from wattledger_collector.store import SqliteStore

# Each attempt fails only if another import was committed since it began.
_ATTEMPTS_MAX = 8

# Bounds what is handed to the driver at once; 8,784 hours are nine of them.
_ROWS_AT_ONCE = 1_000

Key = tuple[str, FactorKind, str, int, int]
_Document = tuple[str, str, str, str, str]


class FactorOrderError(ValueError):
    """An edition can't be recorded after a later one; the text names the row and what to do."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of some factors: rows added, by whether they supersede one, and those that say nothing new."""

    added: tuple[Factor, ...]
    unchanged: int

    @property
    def superseding(self) -> int:
        """How many of the added rows correct one that was there before."""
        return sum(1 for factor in self.added if factor.supersedes)


def record_factors(
    store: SqliteStore,
    factors: Iterable[Factor],
    *,
    now_seconds: int,
    retrieved_at_seconds: int | None = None,
    keep_recorded: bool = False,
    dry_run: bool = False,
) -> Recorded:
    """Add what is new, all in one transaction or nothing.

    now_seconds: since 1970-01-01 UTC. retrieved_at_seconds: when the document was fetched, if not now. keep_recorded: take
    over the recorded times of another ledger's export, none later than now. dry_run: only say what would be done.
    Raises FactorOrderError and StoreError.
    """
    rows = list(factors)
    for _ in range(_ATTEMPTS_MAX):
        # Planned outside of the transaction that writes: comparing a year of rows must not make bookings wait.
        revision = factors_revision(store)
        added = _plan(_newest(store, rows), rows, now_seconds, keep_recorded=keep_recorded)
        recorded = Recorded(tuple(added), len(rows) - len(added))
        if dry_run or not added:
            return recorded
        retrieved = now_seconds if retrieved_at_seconds is None else retrieved_at_seconds
        if _write(store, added, revision, now_seconds, retrieved):
            return recorded
    raise StoreError("factors could not be recorded, since others record some without a pause: try again")


def load_factors(
    store: SqliteStore, *, zone: str | None = None, as_of_seconds: int | None = None, after_id: int = 0
) -> list[Factor]:
    """Rows in the order in which they were recorded here. as_of_seconds: leave out what was recorded later."""
    return [factor for _, factor in _load(store, zone, as_of_seconds, after_id)]


def factors_revision(store: SqliteStore) -> int:
    """A number that is higher after each change of the factors."""
    for (revision,) in store.rows(select(schema.factor_revisions.c.revision)):
        return int(revision)
    return 0


def stored_names(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The zones and sources of which a ledger has factors; none if it can't be read now, which who opens it will tell."""
    if not path.exists():
        return frozenset(), frozenset()
    try:
        with closing(connect(path, read_only=True)) as connection:
            pairs = connection.execute("SELECT DISTINCT zone, source FROM factor").fetchall()
    except sqlite3.Error:
        return frozenset(), frozenset()
    return frozenset(zone for zone, _ in pairs), frozenset(source for _, source in pairs)


def newest_end(store: SqliteStore, zone: str, source: str) -> int | None:
    """When the last factor of a zone by a source ends, in seconds since 1970 UTC; None if there is none."""
    columns = schema.factors.c
    query = (
        select(columns.valid_to_seconds)
        .where(columns.zone == zone, columns.source == source)
        .order_by(columns.valid_from_seconds.desc())
        .limit(1)
    )
    for (end,) in store.rows(query):
        return int(end)
    return None


class StoredFactors:
    """The store's rows in memory, read on from where the last reading ended."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._revision = -1
        self._last_id = 0
        self.rows: list[Factor] = []

    def renew(self) -> bool:
        """Read what was added since; whether there was anything. StoreError."""
        revision = factors_revision(self._store)
        if revision == self._revision:
            return False
        new = list(_load(self._store, None, None, self._last_id))
        # A list of its own, since catalogs hold on to the one they were made with.
        self.rows = [*self.rows, *(factor for _, factor in new)]
        self._last_id = new[-1][0] if new else self._last_id
        is_first, self._revision = self._revision < 0, revision
        return bool(new) or not is_first


def _key(factor: Factor) -> Key:
    return factor.zone, factor.kind, factor.source, factor.valid_from_seconds, factor.valid_to_seconds


def _says(factor: Factor) -> tuple[object, ...]:
    """What a row says of its key; the digest and the day of publication are evidence of it, and not part of it."""
    return (
        factor.value,
        factor.includes_td,
        factor.tier,
        factor.uncertainty_ratio,
        factor.document,
        factor.licence,
        factor.attribution,
        factor.name,
    )


def _plan(
    known: Mapping[Key, Sequence[Factor]], rows: Iterable[Factor], now_seconds: int, *, keep_recorded: bool
) -> list[Factor]:
    """The rows to add, ready to be stored. known: what the store has, by key, the newest last."""
    histories: dict[Key, list[Factor]] = {key: list(of_key) for key, of_key in known.items()}
    added: list[Factor] = []
    fresh: set[Factor] = set()
    # Stable: what was recorded first comes first, and among equals the order of the file holds.
    order = (lambda row: (row.recorded_at_seconds, row.published)) if keep_recorded else (lambda row: (0, row.published))
    for row in sorted(rows, key=order):
        history = histories.setdefault(_key(row), [])
        newest = history[-1] if history else None
        if newest is not None and _says(newest) == _says(row):
            continue
        if newest is not None and row.published < newest.published:
            if any(_says(before) == _says(row) for before in history):
                continue
            raise FactorOrderError(
                f"zone {row.zone} has from {row.valid_from} a value of {row.source} published on {newest.published}, and "
                f"the one of {row.published} is older: import editions in the order of their publication"
            )
        if not keep_recorded and newest is not None and newest in fresh and newest.published == row.published:
            raise FactorOrderError(
                f"zone {row.zone} has two values from {row.valid_from} of {row.source}, published on {row.published}: "
                "keep one"
            )
        factor = replace(
            row,
            recorded_at_seconds=_recorded_at(row, newest, now_seconds, keep_recorded=keep_recorded),
            supersedes="" if newest is None else newest.id,
        )
        history.append(factor)
        fresh.add(factor)
        added.append(factor)
    return added


def _recorded_at(row: Factor, newest: Factor | None, now_seconds: int, *, keep_recorded: bool) -> int:
    """When the row counts as known: never before the newest of its key, or the order of knowing would be lost."""
    at = now_seconds
    if keep_recorded:
        if row.recorded_at_seconds > now_seconds:
            raise FactorOrderError(
                f"zone {row.zone} from {row.valid_from} was recorded at {text_of_instant(row.recorded_at_seconds)}, which "
                f"is later than now: correct the clock, or the file"
            )
        at = row.recorded_at_seconds
    return at if newest is None else max(at, newest.recorded_at_seconds + 1)


def _newest(store: SqliteStore, rows: Sequence[Factor]) -> dict[Key, list[Factor]]:
    """What the store has for the spans that the rows are in, by key, in order of recording."""
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        begin, end = spans.get((row.zone, row.source), (row.valid_from_seconds, row.valid_from_seconds))
        spans[row.zone, row.source] = min(begin, row.valid_from_seconds), max(end, row.valid_from_seconds)
    found: dict[Key, list[Factor]] = {}
    columns = schema.factors.c
    for (zone, source), (begin, end) in spans.items():
        query = _query().where(
            columns.zone == zone,
            columns.source == source,
            columns.valid_from_seconds >= begin,
            columns.valid_from_seconds <= end,
        )
        for _, factor in _read(store, query.order_by(columns.recorded_at_seconds, columns.id)):
            found.setdefault(_key(factor), []).append(factor)
    return found


def _write(store: SqliteStore, added: Sequence[Factor], revision: int, now_seconds: int, retrieved: int) -> bool:
    """Add the rows unless the factors have changed since the revision; whether they were added."""
    # All that takes time is made ready before the transaction, for which bookings may have to wait.
    documents = {document: number for number, document in enumerate(dict.fromkeys(map(_document, added)))}
    values = [(documents[_document(factor)], _values(factor, now_seconds)) for factor in added]
    table = schema.factor_revisions
    with store.writing() as connection:
        raised = connection.execute(
            update(table).where(table.c.revision == revision).values(revision=table.c.revision + 1)
        ).rowcount
        if not raised:
            return False
        ids = [_document_id(connection, document, retrieved) for document in documents]
        for at in range(0, len(values), _ROWS_AT_ONCE):
            part = values[at : at + _ROWS_AT_ONCE]
            connection.exec_driver_sql(_INSERT, [(ids[number], *rest) for number, rest in part])
    return True


_INSERTED = (
    "document_id",
    "zone",
    "name",
    "source",
    "grams_per_kwh",
    "signal",
    "boundary",
    "gas",
    "basis",
    "gwp",
    "includes_td",
    "valid_from_seconds",
    "valid_to_seconds",
    "published",
    "recorded_at_seconds",
    "imported_at_seconds",
    "tier",
    "supersedes",
    "uncertainty_ratio",
)
# As the hot writes do: SQLAlchemy's own insert takes five times as long, in which a booking would wait.
_INSERT = f"INSERT INTO factor ({', '.join(_INSERTED)}) VALUES ({', '.join('?' * len(_INSERTED))})"


def _values(factor: Factor, now_seconds: int) -> tuple[object, ...]:
    """What _INSERTED names, but for the document."""
    kind = factor.kind
    return (
        factor.zone,
        factor.name,
        factor.source,
        f"{factor.value:f}",
        kind.signal,
        kind.boundary,
        kind.gas,
        kind.basis,
        kind.gwp,
        factor.includes_td,
        factor.valid_from_seconds,
        factor.valid_to_seconds,
        factor.published.isoformat(),
        factor.recorded_at_seconds,
        now_seconds,
        factor.tier,
        factor.supersedes,
        None if factor.uncertainty_ratio is None else f"{factor.uncertainty_ratio:f}",
    )


def _document(factor: Factor) -> _Document:
    return factor.source, factor.document, factor.document_sha256, factor.licence, factor.attribution


def _document_id(connection: Connection, document: _Document, retrieved: int) -> int:
    names = ("source", "document", "sha256", "licence", "attribution")
    columns = schema.factor_documents.c
    values = dict(zip(names, document, strict=True))
    insert = sqlite_dialect.insert(schema.factor_documents).on_conflict_do_nothing()
    connection.execute(insert, {**values, "retrieved_at_seconds": retrieved})
    query = select(columns.id).where(*(columns[name] == value for name, value in values.items()))
    return int(connection.execute(query).scalar_one())


def _query() -> Select[Any]:
    columns = schema.factors.c
    return select(
        columns.id,
        columns.zone,
        columns.name,
        columns.grams_per_kwh,
        columns.signal,
        columns.boundary,
        columns.gas,
        columns.basis,
        columns.gwp,
        columns.includes_td,
        columns.valid_from_seconds,
        columns.valid_to_seconds,
        columns.published,
        columns.source,
        columns.document_id,
        columns.recorded_at_seconds,
        columns.tier,
        columns.supersedes,
        columns.uncertainty_ratio,
    )


def _load(store: SqliteStore, zone: str | None, as_of_seconds: int | None, after_id: int) -> Iterable[tuple[int, Factor]]:
    columns = schema.factors.c
    query = _query().where(columns.id > after_id).order_by(columns.id)
    if zone is not None:
        query = query.where(columns.zone == zone)
    if as_of_seconds is not None:
        query = query.where(columns.recorded_at_seconds <= as_of_seconds)
    return _read(store, query)


def _read(store: SqliteStore, query: Select[Any]) -> Iterable[tuple[int, Factor]]:
    # A year of hours repeats its few texts in every row; each is kept once.
    texts: dict[str, str] = {}
    kinds: dict[tuple[str, ...], FactorKind] = {}
    days: dict[str, date] = {}
    documents: dict[int, tuple[str, str, str, str]] = {}
    for row in store.rows(query):
        (number, zone, name, value, *words, includes_td, begin, end, published, source, document_id, recorded, tier,
         supersedes, ratio) = row  # fmt: skip
        key = tuple(words)
        if key not in kinds:
            signal, boundary, gas, basis, gwp = key
            kinds[key] = FactorKind(Signal(signal), Boundary(boundary), Gas(gas), Basis(basis), Gwp(gwp))
        if published not in days:
            days[published] = date.fromisoformat(published)
        if document_id not in documents:
            documents[document_id] = _document_of(store, document_id)
        document, licence, attribution, sha256 = documents[document_id]
        yield (
            number,
            Factor(
                zone=texts.setdefault(zone, zone),
                name=texts.setdefault(name, name),
                value=Decimal(value),
                kind=kinds[key],
                includes_td=bool(includes_td),
                valid_from_seconds=begin,
                valid_to_seconds=end,
                published=days[published],
                source=texts.setdefault(source, source),
                document=document,
                licence=licence,
                attribution=attribution,
                recorded_at_seconds=recorded,
                tier=_TIERS[tier],
                supersedes=supersedes,
                document_sha256=sha256,
                uncertainty_ratio=None if ratio is None else Decimal(ratio),
            ),
        )


_TIERS: Mapping[str, Tier] = {str(tier): tier for tier in Tier}


def _document_of(store: SqliteStore, document_id: int) -> tuple[str, str, str, str]:
    """Title, licence, attribution and digest. Documents are never changed, so that they may be read beside their rows."""
    columns = schema.factor_documents.c
    query = select(columns.document, columns.licence, columns.attribution, columns.sha256).where(columns.id == document_id)
    for row in store.rows(query):
        return row[0], row[1], row[2], row[3]
    raise StoreError(f"the database lacks document {document_id} of its factors: restore the latest backup")
