"""Cuts a period into pieces in which nothing changes, so that the store can add up the intervals of each by itself.

No clock, no database, no figure. What changes at an edge (zone, PUE, factor, the edition that a closure opens) changes for
none of the intervals of a piece: their sum is accounted like one interval, exactly, since in whole numbers a sum times a
factor is the sum of the products. An interval that an edge cuts is a piece by itself.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.records import Piece

# A database sorts the rows of a piece to add them up; a day's fit its memory, and longer ones would gain nothing.
PIECE_SECONDS_MAX = 86_400

# A site with more changes than this in a period has a factor for each hour or so, and is read apart from the others: these
# are added up a day at a time, and not an hour.
FEW_EDGES_MAX = 64


class Reading(NamedTuple):
    """Pieces to read of some sites alone (only), or of all (None) but some (without)."""

    pieces: Sequence[Piece]
    only: Collection[str] | None
    without: Collection[str]


def plan_readings(
    finder: BasisFinder, sites: Iterable[str], span: Piece, edges: Collection[int], interval_seconds: int
) -> list[Reading]:
    """What to read of a period so that each row can be accounted as one; all sites, those without a row included.

    sites: those that have dated rows. edges: further instants at which something changes for all.
    """
    own = {site: basis_edges(finder, [site], *span) for site in set(sites)}
    fine = sorted(site for site, of_site in own.items() if len(of_site) > FEW_EDGES_MAX)
    few = set().union(edges, *(of_site for site, of_site in own.items() if site not in fine))
    readings = [Reading(cut_pieces(*span, few, interval_seconds), None, fine)]
    if fine:
        many = set().union(edges, *(own[site] for site in fine))
        readings.append(Reading(cut_pieces(*span, many, interval_seconds), fine, ()))
    return readings


def basis_edges(finder: BasisFinder, sites: Iterable[str], from_seconds: int, to_seconds: int) -> set[int]:
    """The instants within the period at which some site has another basis."""
    edges: set[int] = set()
    for site in sites:
        at = from_seconds
        while (end := finder.find(site, at).to_seconds) is not None and end < to_seconds:
            edges.add(end)
            at = end
    return edges


def cut_pieces(from_seconds: int, to_seconds: int, edges: Iterable[int], interval_seconds: int) -> Sequence[Piece]:
    """Cut a period, whose ends are those of intervals, at all edges within; in order, none longer than a day."""
    cuts = {from_seconds, to_seconds}
    for edge in edges:
        begin = edge - (edge - from_seconds) % interval_seconds
        cuts.update((begin, begin if begin == edge else begin + interval_seconds))
    inner = sorted(cut for cut in cuts if from_seconds <= cut <= to_seconds)
    # Intervals divide a day, so that each part of a long piece is one of whole intervals.
    return [
        Piece(begin, min(begin + PIECE_SECONDS_MAX, end))
        for first, end in pairwise(inner)
        for begin in range(first, end, PIECE_SECONDS_MAX)
    ]
