"""Reads the roll-ups of a ledger for the fleet view: the recent ones as they are, older ones added up by the database.

Keeps nothing and reads no clock. What is added up has one site, component and quality, and for emissions one multiplier, so
that sums are those of single rows to the last digit; see `pieces.py`. A year of ten sites is some thousand rows instead of
two millions. Source of truth: the store's roll-ups and emission bases.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final, Protocol

from wattledger_collector.emission_counters import EmissionCounters
from wattledger_collector.fleet_sites import RECENT_SECONDS
from wattledger_collector.pieces import FEW_EDGES_MAX, Reading, cut_pieces
from wattledger_collector.records import NANOSECONDS_PER_SECOND, Piece, RollupRow

# No reader sees a roll-up later than this; the year 2262 is the end of 64-bit nanoseconds.
_END_OF_TIME_SECONDS: Final = 2**63 // NANOSECONDS_PER_SECOND


class Rollups(Protocol):
    """The roll-ups of a ledger: a store, or one state of it."""

    def rollup_begin(self) -> int | None:
        """The earliest interval that has a row; None if none has."""

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """Rows whose interval starts in [from, to)."""

    def rollup_sums(
        self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> Iterator[RollupRow]:
        """For each piece its rows added up, dated by its beginning."""


def read_rollups(
    ledger: Rollups, emissions: EmissionCounters, now_seconds: float, interval_seconds: int
) -> Iterator[RollupRow]:
    """All roll-up rows, older ones as sums, which are noted in the emission counters as they pass.

    Rows of less than RECENT_SECONDS before now are never added up.
    """
    begin = ledger.rollup_begin()
    if begin is None:
        return
    recent = max(begin, int(now_seconds - RECENT_SECONDS) // interval_seconds * interval_seconds)
    single: list[tuple[str, int, int]] = []
    for reading in _plan(emissions, begin, recent, interval_seconds):
        ends = {piece.from_seconds: piece.to_seconds for piece in reading.pieces}
        yield from emissions.passing(_alike(ledger, emissions, reading, ends, single))
    for site, start, end in sorted(set(single)):
        yield from emissions.passing(ledger.rollups(start, end, site))
    yield from emissions.passing(ledger.rollups(recent, _END_OF_TIME_SECONDS))


def _plan(emissions: EmissionCounters, begin: int, recent: int, interval_seconds: int) -> list[Reading]:
    """The pieces to read; sites that change each hour apart, so that others are added up a day at a time."""
    own = {site: {edge for edge in edges if begin < edge < recent} for site, edges in emissions.edges().items()}
    fine = sorted(site for site, edges in own.items() if len(edges) > FEW_EDGES_MAX)
    few: set[int] = set().union(*(edges for site, edges in own.items() if site not in fine))
    readings = [Reading(cut_pieces(begin, recent, few, interval_seconds), None, fine)]
    if fine:
        many: set[int] = set().union(*(own[site] for site in fine))
        readings.append(Reading(cut_pieces(begin, recent, many, interval_seconds), fine, ()))
    return readings


def _alike(
    ledger: Rollups,
    emissions: EmissionCounters,
    reading: Reading,
    ends: dict[int, int],
    single: list[tuple[str, int, int]],
) -> Iterator[RollupRow]:
    """The sums whose rows count alike; the others are put on the list of what is to be read row by row."""
    for row in ledger.rollup_sums(reading.pieces, reading.only, reading.without):
        start, end = row.interval_start_seconds, ends[row.interval_start_seconds]
        # What a recording used is in no emission counter, and needs no basis.
        if row.recorded or emissions.is_alike(row.site, start, end):
            yield row
        else:
            single.append((row.site, start, end))
