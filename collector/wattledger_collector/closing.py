"""Closes a period: freezes its edition, reads what is frozen, and puts a statement of it into the log.

Decides no figure; `accounting.py` reckons, `statement.py` writes down. Source of truth: the frozen rows, and the sites,
assignments, factors and gaps as they are known at the closing, all of which the statement names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wattledger_collector.accounting import BasisFinder, account, summarise_gaps
from wattledger_collector.closing_market import market_facts, used_before
from wattledger_collector.closing_replaced import is_same, replaced_tree
from wattledger_collector.closing_sums import Progress as Progress
from wattledger_collector.closing_sums import Reading, Sums
from wattledger_collector.closures import Closure
from wattledger_collector.declared_files import Declaration
from wattledger_collector.energy_columns import Span
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import seconds_of_day
from wattledger_collector.freezing import freeze
from wattledger_collector.import_store import imports, meter_rows
from wattledger_collector.imports import Place
from wattledger_collector.leaves import Leaf, make_leaves
from wattledger_collector.merkle import root_hash
from wattledger_collector.records import RollupRow, SiteRow
from wattledger_collector.report import Period, channel_counts, check_site, make_report
from wattledger_collector.statement import (
    Heading,
    SiteFacts,
    canonical,
    gap_tree,
    statement_tree,
)
from wattledger_collector.statement_imports import imports_tree, named
from wattledger_collector.statement_load import energy_of
from wattledger_collector.statement_market import UsedBefore
from wattledger_collector.statement_store import (
    Draft,
    OvertakenError,
    Stored,
    append,
    last_assignment_id,
    leaf_secret,
    newest_of,
)
from wattledger_collector.statement_values import Tree
from wattledger_collector.store import SqliteStore

# Each time, somebody else has closed the same period meanwhile; more often than that, nobody waits for a figure.
CLOSINGS_MAX = 3


class ClosingError(ValueError):
    """A period can't be closed as asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes a statement: the key that signs it, the software and its version, and what the organisation declares."""

    key: Ed25519PrivateKey
    software: str
    declaration: Declaration | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """What a closing made. is_new False: nothing has changed since the statement, which stands."""

    statement: Stored
    is_new: bool


def close_period(
    store: SqliteStore,
    catalog: FactorCatalog,
    period: Period,
    maker: Maker,
    *,
    now_seconds: int,
    site: str | None = None,
    progress: Progress = lambda seconds: None,
) -> Closed:
    """Close a period, or restate it if it was closed before and something has changed.

    site: that one alone. progress: is told up to which instant rows were read. Where another command states the same
    period meanwhile, it begins anew. Raises ClosingError, ReportError, StoreError.
    """
    if period.to_seconds > now_seconds:
        raise ClosingError(
            f"the period ends on {period.show(period.to_seconds)}, which is still to come: close it after that"
        )
    for _ in range(CLOSINGS_MAX - 1):
        try:
            return _close(store, catalog, period, maker, now_seconds, site, progress)
        except OvertakenError:
            # What the other one froze and stated is what this one has to differ from now.
            continue
    return _close(store, catalog, period, maker, now_seconds, site, progress)


def _close(
    store: SqliteStore,
    catalog: FactorCatalog,
    period: Period,
    maker: Maker,
    now_seconds: int,
    site: str | None,
    progress: Progress,
) -> Closed:
    sites = store.sites()
    check_site(sites, site)
    before = newest_of(store, period.from_seconds, period.to_seconds, site)
    closure = freeze(store, period.from_seconds, period.to_seconds, site, now_seconds=now_seconds)
    last_id = last_assignment_id(store)
    reading = Reading(store, Span(period.from_seconds, period.to_seconds, closure.edition, site), progress)
    sums = reading.sums(last_id)
    claims = UsedBefore()
    if maker.declaration is not None and maker.declaration.certificates:
        claims = used_before(store, period.from_seconds, period.to_seconds, site)
    tree, gaps = _tree(store, catalog, period, maker, closure, sites, sums, claims, now_seconds)
    root = root_hash(sums.leaf_hashes)
    if before is not None:
        if is_same(before, tree, root):
            return Closed(before, is_new=False)
        tree["replaces"] = replaced_tree(before, reading, last_id, sums, catalog, tree)
    else:
        tree["replaces"] = None
    claims_after = claims.newest if tree["market"]["claimed"] else None
    draft = Draft(tree, closure.closure, gaps, last_id, sums.leaf_hashes, root, claims_after)
    return Closed(append(store, draft, maker.key), is_new=True)


def leaves_of(
    store: SqliteStore, statement: Stored, progress: Progress = lambda seconds: None, only: date | None = None
) -> Iterator[list[Leaf]]:
    """The leaves of a statement, made again from the frozen rows, a day at a time. only: of this day (UTC) alone."""
    period, boundary = statement.tree["period"], statement.tree["boundary"]
    begin, end = period["from_seconds"], period["to_seconds"]
    if only is not None:
        begin, end = max(begin, seconds_of_day(only)), min(end, seconds_of_day(only + timedelta(days=1)))
        if begin >= end:
            return
    span = Span(begin, end, statement.tree["edition"], boundary["site"])
    reading = Reading(store, span, progress)
    secret = leaf_secret(store)
    for columns in reading.days(statement.assignments_last_id):
        yield list(make_leaves(columns, secret))


def _tree(
    store: SqliteStore,
    catalog: FactorCatalog,
    period: Period,
    maker: Maker,
    closure: Closure,
    sites: Sequence[SiteRow],
    sums: Sums,
    claims: UsedBefore,
    now_seconds: int,
) -> tuple[Tree, bytes]:
    """The statement without its place in the log, and its gaps as bytes."""
    finder = BasisFinder(sites, catalog)
    lines = account(_rollups(sums), finder, store.interval_seconds)
    report = make_report(store, catalog, period, now_seconds=now_seconds, site=closure.site)
    known = {site.site: site for site in report.sites}
    no_gaps = summarise_gaps((), period.from_seconds, period.to_seconds)
    gap_rows = [row for site in report.sites for row in site.gap_rows]
    counts = channel_counts(store, gap_rows)
    gaps = [gap_tree(row, counts.get((row.host, row.epoch), 1) if row.channel is None else 1) for row in gap_rows]
    facts = [
        SiteFacts(
            site=name,
            rows=tuple(row for row in sites if row.site == name),
            bases=tuple(finder.split(name, period.from_seconds, period.to_seconds)),
            gaps=known[name].gaps if name in known else no_gaps,
            gaps_by_recorded={
                recorded: summarise_gaps(
                    (row for row in (known[name].gap_rows if name in known else ()) if row.recorded == recorded),
                    period.from_seconds,
                    period.to_seconds,
                )
                for recorded in (False, True)
            },
            silent=tuple(
                (host.host, host.since_seconds, host.missing_nanoseconds)
                for host in (known[name].silent if name in known else ())
            ),
        )
        for name in sorted({*known, *(line.basis.site for line in lines)})
    ]
    heading = Heading(
        number=0,
        database_id=store.database_id,
        from_seconds=period.from_seconds,
        to_seconds=period.to_seconds,
        time_zone=period.time_zone.key,
        site=closure.site,
        interval_seconds=store.interval_seconds,
        edition=closure.edition,
        closed_at_seconds=now_seconds,
        software=maker.software,
    )
    moved = _reallocated(store, closure, sums)
    market = market_facts(
        maker.declaration,
        catalog,
        energy_of((key, energy) for key, (energy, _) in sums.cells.items()),
        {each.site: each.bases for each in facts},
        claims,
        from_seconds=period.from_seconds,
        to_seconds=period.to_seconds,
        interval_seconds=store.interval_seconds,
    )
    imported = _imports_tree(store, period, closure, sums)
    tree = statement_tree(heading, facts, lines, sums.sensors, market, imported, gaps, reallocated=moved)
    return tree, canonical(gaps)


def _imports_tree(store: SqliteStore, period: Period, closure: Closure, sums: Sums) -> Tree:
    """Which energy came from other meters' files, with the files."""
    begin, end = period.from_seconds, period.to_seconds
    made = named(imports(store), sums.imported, begin, end, closure.site)
    beside = {
        digest: sum(row.energy_microjoules for row in meter_rows(store, digest, begin, end))
        for digest in (each.provenance.digest for each in made if each.place is not Place.BOOKED)
    }
    return imports_tree(made, sums.imported, beside)


def _rollups(sums: Sums) -> list[RollupRow]:
    """The sums as rows for accounting; all editions of a cell in one, so that none of its parts is rounded alone."""
    merged: dict[tuple[Any, ...], list[int]] = {}
    for (*key, _), (energy, covered) in sums.cells.items():
        total = merged.setdefault(tuple(key), [0, 0])
        total[0] += energy
        total[1] += covered
    rows = []
    for (site, start, component, quality, recorded), (energy, covered) in sorted(merged.items()):
        # What a later edition took back, as an import that was wrong, is no figure.
        if energy or covered:
            rows.append(RollupRow(site, start, component, quality, recorded, energy, covered))
    return rows


def _reallocated(store: SqliteStore, closure: Closure, sums: Sums) -> list[tuple[str, int]]:
    """Energy by site that hosts' assignments of today place elsewhere than where it was booked; they sum to 0.

    Only an assignment that was added later for an earlier time does so. Raises ClosingError if energy is lost in between.
    """
    differences: dict[str, int] = {}
    for (site, *_), (energy, _) in sums.cells.items():
        differences[site] = differences.get(site, 0) + energy
    for row in store.rollups(closure.from_seconds, closure.to_seconds, closure.site):
        if row.edition <= closure.edition:
            differences[row.site] = differences.get(row.site, 0) - row.energy_microjoules
    whole: int = sum(differences.values())
    if closure.site is None and whole:
        raise ClosingError(
            f"the rows of hosts and of sites differ by {whole} microjoules: the database was changed by other means, "
            f"restore the latest backup"
        )
    return sorted((site, energy) for site, energy in differences.items() if energy)
