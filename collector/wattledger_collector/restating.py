"""What a restatement differs by, split by cause, so that the parts add up to the whole difference to the last digit.

Values in, exact fractions out; no database. Source of truth: the GHG Protocol's causes of recalculation. One thing is
changed after the other, and each step's difference is told as its own:

1. method: the energy, sites and factors of the old statement, reckoned by this software;
2. activity: with the energy that came later;
3. factor: with the factors that are known now, for the zones of then;
4. boundary: with the sites, zones, PUE and assignments of now.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from wattledger_collector.records import MICROJOULES_PER_KWH

CAUSES = ("activity", "factor", "boundary", "method")

# (site, beginning of the interval, recorded): microjoules.
Cells = Mapping[tuple[str, int, bool], int]
# (kind of factor, recorded): grams.
Grams = dict[tuple[str, bool], Fraction]


@dataclass(frozen=True, slots=True)
class Segment:
    """What turns a site's energy into grams in [from_seconds, to_seconds); kind None: nothing does."""

    from_seconds: int
    to_seconds: int
    grams_per_microjoule: Fraction
    kind: str | None


Segments = Mapping[str, Sequence[Segment]]


@dataclass(frozen=True, slots=True)
class Difference:
    """How the total of one kind changed; parts: grams by cause, which sum to after - before."""

    kind: str
    recorded: bool
    before: Fraction
    after: Fraction
    parts: Mapping[str, Fraction]


def segments_of(bases: Iterable[Mapping[str, Any]]) -> list[Segment]:
    """Segments of a site from a statement's `bases`."""
    return [
        Segment(
            base["from_seconds"],
            base["to_seconds"],
            Fraction(base["pue"]) * Fraction(base["grams_per_kwh"]) / MICROJOULES_PER_KWH
            if base["kind"] is not None and base["pue"] is not None
            else Fraction(0),
            base["kind"] if base["pue"] is not None else None,
        )
        for base in bases
    ]


def grams_of(cells: Cells, segments: Segments, fallback: Segments, interval_seconds: int) -> Grams:
    """Grams by kind, each interval joined with its segments by overlap. fallback: for sites that segments lack."""
    sums: dict[tuple[str, int, bool], int] = {}
    for (site, start, recorded), energy in cells.items():
        own = segments.get(site) or fallback.get(site, ())
        place = max(bisect_right(own, start, key=lambda segment: segment.from_seconds) - 1, 0)
        while place < len(own) and own[place].from_seconds < start + interval_seconds:
            segment = own[place]
            seconds = min(segment.to_seconds, start + interval_seconds) - max(segment.from_seconds, start)
            sums[site, place, recorded] = sums.get((site, place, recorded), 0) + energy * seconds
            place += 1
    grams: Grams = {}
    for (site, place, recorded), microjoule_seconds in sums.items():
        segment = (segments.get(site) or fallback[site])[place]
        if segment.kind is not None:
            key = (segment.kind, recorded)
            grams[key] = grams.get(key, Fraction(0)) + microjoule_seconds * segment.grams_per_microjoule / interval_seconds
    return grams


def split(stated: Grams, method: Grams, activity: Grams, factor: Grams, boundary: Grams) -> list[Difference]:
    """The differences. stated: the old statement's; the others: after each step, the last the new statement's."""
    kinds = sorted({*stated, *method, *activity, *factor, *boundary})
    differences = []
    for kind, recorded in kinds:
        old, one, two, three, new = (
            each.get((kind, recorded), Fraction(0)) for each in (stated, method, activity, factor, boundary)
        )
        parts = {"method": one - old, "activity": two - one, "factor": three - two, "boundary": new - three}
        differences.append(Difference(kind, recorded, old, new, parts))
    return differences
