"""What sites used: committed lifetime totals, the recent intervals for the page, and where each host stands.

No database and no clock. Totals are those of the store's roll-ups plus each booking committed since they were read; a
booking is given to the site its host had when the interval began, as in the store.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from wattledger_collector.records import (
    SITE_UNASSIGNED,
    AssignmentRow,
    Component,
    Method,
    Quality,
    RollupRow,
    SiteRow,
)

# Two days of intervals are kept, so that "today" is whole in every time zone, up to 26 hours behind or ahead.
RECENT_SECONDS = 2 * 86_400

_METHODS = {
    Quality.COUNTER: Method.COUNTER,
    Quality.BRIDGED: Method.COUNTER,
    Quality.INTEGRAL: Method.INTEGRAL,
    Quality.MODEL: Method.MODEL,
}


class SiteSeries(NamedTuple):
    """A site's counter: one component, made by one method. Bridged energy was counted, so its method is counter."""

    site: str
    component: Component
    method: Method


class RecentKey(NamedTuple):
    """What recent energy is kept by, within an interval."""

    site: str
    component: Component
    quality: Quality


class Amount(NamedTuple):
    """Energy, and the channel time that it covers."""

    microjoules: int
    covered_nanoseconds: int


class SitePlan:
    """The dated rows of sites and assignments: which site a host has, and which zone and PUE a site."""

    def __init__(self) -> None:
        self._assignments: dict[str, list[AssignmentRow]] = {}
        self._sites: dict[str, list[SiteRow]] = {}

    def replace(self, sites: Iterable[SiteRow], assignments: Iterable[AssignmentRow]) -> None:
        """Take over all rows as they stand in the store. Of two rows valid from one instant, the later recorded holds."""
        by_host: dict[str, list[AssignmentRow]] = {}
        for row in sorted(assignments, key=lambda row: (row.host, row.valid_from_seconds, row.recorded_at_seconds)):
            by_host.setdefault(row.host, []).append(row)
        by_site: dict[str, list[SiteRow]] = {}
        for site in sorted(sites, key=lambda row: (row.site, row.valid_from_seconds, row.recorded_at_seconds)):
            by_site.setdefault(site.site, []).append(site)
        self._assignments, self._sites = by_host, by_site

    def site_of(self, host: str, at_seconds: float) -> str:
        """The site that the host had at an instant."""
        rows = self._assignments.get(host)
        if not rows:
            return SITE_UNASSIGNED
        index = bisect_right(rows, at_seconds, key=lambda row: row.valid_from_seconds)
        return rows[index - 1].site if index else SITE_UNASSIGNED

    def sites_ever_of(self, host: str) -> set[str]:
        """All sites whose totals may contain the host."""
        rows = self._assignments.get(host, ())
        # Before the first assignment the host was nowhere, unless that one holds for all time.
        return {row.site for row in rows} | ({SITE_UNASSIGNED} if not rows or rows[0].valid_from_seconds > 0 else set())

    def site(self, name: str, at_seconds: float) -> SiteRow | None:
        """The site's row at an instant; the first one if the instant lies before it; None if the site has none."""
        rows = self._sites.get(name)
        if not rows:
            return None
        return rows[max(0, bisect_right(rows, at_seconds, key=lambda row: row.valid_from_seconds) - 1)]

    def names(self) -> list[str]:
        """All sites that are configured."""
        return sorted(self._sites)


class SiteTotals:
    """Committed energy of sites. Recorded hosts are not in it."""

    def __init__(self) -> None:
        self._lifetime: dict[SiteSeries, int] = {}
        self._recent: dict[int, dict[RecentKey, Amount]] = {}
        self._marks: dict[SiteSeries, int] = {}
        self._oldest_seconds = 0.0

    def load(self, rollups: Iterable[RollupRow], now_seconds: float) -> None:
        """Start over from the store's roll-ups. What was already exposed stays as a mark below which no counter falls."""
        self._lifetime, self._recent = {}, {}
        self.prune(now_seconds)
        for row in rollups:
            if not row.recorded:
                amount = Amount(row.energy_microjoules, row.covered_nanoseconds)
                self.add(row.site, row.component, row.quality, row.interval_start_seconds, amount)

    def add(self, site: str, component: Component, quality: Quality, interval_start_seconds: int, amount: Amount) -> None:
        """Add committed energy."""
        series = SiteSeries(site, component, _METHODS[quality])
        self._lifetime[series] = self._lifetime.get(series, 0) + amount.microjoules
        if interval_start_seconds < self._oldest_seconds:
            return
        interval = self._recent.setdefault(interval_start_seconds, {})
        key = RecentKey(site, component, quality)
        before = interval.get(key, Amount(0, 0))
        interval[key] = Amount(
            before.microjoules + amount.microjoules, before.covered_nanoseconds + amount.covered_nanoseconds
        )

    def prune(self, now_seconds: float) -> None:
        """Forget intervals that are no longer recent."""
        self._oldest_seconds = now_seconds - RECENT_SECONDS
        for start in [start for start in self._recent if start < self._oldest_seconds]:
            del self._recent[start]

    def counters(self, slack: Mapping[SiteSeries, int]) -> list[tuple[SiteSeries, int]]:
        """Lifetime microjoules to expose; never lower than before. slack: what residuals stand above their present value."""
        exposed = []
        for series, microjoules in self._lifetime.items():
            mark = max(self._marks.get(series, 0), microjoules + slack.get(series, 0))
            self._marks[series] = mark
            exposed.append((series, mark))
        return sorted(exposed)

    def recent(self, from_seconds: float) -> Sequence[tuple[int, RecentKey, Amount]]:
        """Energy of recent intervals that start at or after an instant."""
        return [
            (start, key, amount)
            for start, amounts in sorted(self._recent.items())
            if start >= from_seconds
            for key, amount in amounts.items()
        ]
