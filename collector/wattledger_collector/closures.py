"""Closed periods: which edition energy of an interval is booked in, and whether a period is closed as a whole.

No clock, no database. Source of truth: the rows of `closure`; a closure freezes all energy of its intervals whose edition is
at most its own, and what is booked later opens the next one. Editions only tell apart: totals are sums over all of them.
A closure of one site raises the edition of all: a host may be said later to have stood elsewhere, and then its rows that
were frozen with one site would be added to as those of another.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# What energy is booked in where nothing is closed.
EDITION_OPEN = 0


@dataclass(frozen=True, slots=True)
class Closure:
    """A period was closed: editions up to `edition` of the intervals that start in [from, to) are frozen.

    site: whose energy is stated; None: that of all. statement: the one made of it; None while it is being made, or if that
    failed.
    """

    closure: int
    from_seconds: int
    to_seconds: int
    site: str | None
    edition: int
    closed_at_seconds: int
    statement: int | None = None

    def holds(self, site: str, start_seconds: int) -> bool:
        """Whether the interval of the site is in it."""
        return self.from_seconds <= start_seconds < self.to_seconds and self.site in (None, site)


class Editions:
    """Which edition is open, from all closures. It is false where nothing is closed, so that asking costs nothing."""

    def __init__(self, closures: Iterable[Closure] = ()) -> None:
        self._closures = tuple(closures)
        self._latest_end = max((closure.to_seconds for closure in self._closures), default=0)

    def __bool__(self) -> bool:
        return bool(self._closures)

    def open_at(self, start_seconds: int) -> int:
        """The edition in which energy of the interval that starts then is booked now."""
        if start_seconds >= self._latest_end:
            # The present, in which nearly all energy is booked.
            return EDITION_OPEN
        editions = (each.edition for each in self._closures if each.from_seconds <= start_seconds < each.to_seconds)
        return max(editions, default=EDITION_OPEN - 1) + 1


def next_edition(closures: Iterable[Closure], from_seconds: int, to_seconds: int) -> int:
    """The edition of a new closure: the highest that is open anywhere in the period, so that all of it is frozen."""
    editions = (
        closure.edition + 1
        for closure in closures
        if closure.from_seconds < to_seconds and from_seconds < closure.to_seconds
    )
    return max(editions, default=EDITION_OPEN)


def closed_by(closures: Iterable[Closure], from_seconds: int, to_seconds: int, site: str | None) -> tuple[Closure, ...]:
    """The closures with a statement that hold the whole period of the site, or of all sites; empty: some of it is open.

    In order of time; where several hold an instant, the newest.
    """
    stated = [closure for closure in closures if closure.statement is not None and closure.site in (None, site)]
    found: list[Closure] = []
    at = from_seconds
    while at < to_seconds:
        holding = [closure for closure in stated if closure.from_seconds <= at < closure.to_seconds]
        if not holding:
            return ()
        newest = max(holding, key=lambda closure: closure.closure)
        found.append(newest)
        later = (each.from_seconds for each in stated if each.closure > newest.closure and each.from_seconds > at)
        at = min([newest.to_seconds, *later])
    return tuple(found)


def is_late(closures: Iterable[Closure], site: str, start_seconds: int, edition: int) -> bool:
    """Whether energy of this edition came after the newest statement of its interval."""
    stated = [
        closure.edition for closure in closures if closure.statement is not None and closure.holds(site, start_seconds)
    ]
    return bool(stated) and edition > max(stated)
