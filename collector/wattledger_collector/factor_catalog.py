"""Which factor holds: all factors of some tables, and for a zone and an instant the one that figures are made with.

No clock, no files. Sources of truth: the GHG Protocol Scope 2 Guidance (location based); the ladder of tiers for what is
missing is that of the README.

A zone has one default series (zone, type, source), so that a figure never changes its meaning within a report: of the series
with signal average and basis consumption or production, the one whose table comes first. First are the operator's own files,
then what the ledger recorded, in the order in which it came to know the sources, then official national tables, then the
international one; so CN is the ministry's figure, direct CO2, and not the international one, lifecycle CO2e. A ladder of
sources may be asked for instead: each is used where those before it have nothing.

In a series the factor valid at the instant holds; if several are, the one recorded last. After the last one, or in a hole, a
factor of months or years holds on provisionally, until a later one is published; one of hours or days is carried for
CARRY_SECONDS_MAX and no longer. Where nothing holds there is no figure, and kWh are uncovered; 0 is a value like others.
"""

import difflib
import heapq
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from wattledger_collector.factors import Factor, Tier, seconds_of_day, text_of_instant

# What a grid did in the last hours says something of the next few, and nothing of tomorrow.
CARRY_SECONDS_MAX = 6 * 3600

# Before any time that is metered.
BEGINNING_SECONDS = -(2**62)


@dataclass(frozen=True, slots=True)
class FactorChoice:
    """The factor that holds for a zone in [from_seconds, to_seconds), or why there is none.

    provisional: a later period uses the latest earlier value, until its own is published. tier: of this use of the factor.
    to_seconds None: until a factor is added. missing: a sentence without its full stop; empty if there is a factor.
    """

    factor: Factor | None
    provisional: bool
    from_seconds: int
    to_seconds: int | None
    missing: str
    tier: Tier = Tier.F9_NONE


class UnknownZoneError(KeyError):
    """No factor table has the zone; the text lists near matches."""

    def __str__(self) -> str:
        return str(self.args[0])


class FactorCatalog:
    """All factors of some tables; a table that comes first wins where several have a series for a zone.

    as_of_seconds: leave out what was recorded later. latest_published_by: use the newest value of a yearly table that was
    published by this day for all time, as some rules of reporting ask; else each time has its own.
    ladders: by zone, the sources to use, best first. own_tables: how many of the tables, the first ones, are the operator's.
    """

    def __init__(
        self,
        tables: Iterable[Sequence[Factor]],
        *,
        as_of_seconds: int | None = None,
        latest_published_by: date | None = None,
        ladders: Mapping[str, Sequence[str]] | None = None,
        own_tables: int = 0,
    ) -> None:
        self._by_zone: dict[str, list[Factor]] = {}
        self._names: dict[str, str] = {}
        self._latest_published_by = latest_published_by
        self._ladders = ladders or {}
        self._as_of_seconds = as_of_seconds
        self._own_tables = own_tables
        self._tables = tuple(tables)
        for table in self._tables:
            for factor in table:
                if as_of_seconds is None or factor.recorded_at_seconds <= as_of_seconds:
                    self._by_zone.setdefault(factor.zone, []).append(factor)
                    self._names.setdefault(factor.zone, factor.name)
        self._segments: dict[str, list[FactorChoice]] = {}
        self._residual_segments: dict[str, list[FactorChoice]] = {}

    def with_recorded(self, factors: Sequence[Factor], *, as_of_seconds: int | None = None) -> "FactorCatalog":
        """Another catalog, which also has what the ledger recorded: after the operator's own tables, before all others.

        as_of_seconds: leave out what was recorded later, of all tables; None: as in this catalog.
        """
        own, others = self._tables[: self._own_tables], self._tables[self._own_tables :]
        return FactorCatalog(
            [*own, factors, *others],
            as_of_seconds=self._as_of_seconds if as_of_seconds is None else as_of_seconds,
            latest_published_by=self._latest_published_by,
            ladders=self._ladders,
            own_tables=self._own_tables,
        )

    @property
    def sources(self) -> frozenset[str]:
        """The names of all sources."""
        return frozenset(factor.source for factors in self._by_zone.values() for factor in factors)

    @property
    def attributions(self) -> Sequence[tuple[str, str, str]]:
        """(source, licence, attribution) of all factors, each once, in order."""
        rows = (factor for factors in self._by_zone.values() for factor in factors)
        return sorted({(factor.source, factor.licence, factor.attribution) for factor in rows})

    @property
    def zones(self) -> Mapping[str, str]:
        """Names by id, in the order of ids."""
        return dict(sorted(self._names.items()))

    def factors(self, zone: str) -> Sequence[Factor]:
        """All factors of a zone, of every series. Raises UnknownZoneError."""
        self.require(zone)
        return sorted(
            self._by_zone[zone],
            key=lambda factor: (factor.source, factor.kind, factor.valid_from_seconds, factor.recorded_at_seconds),
        )

    def series(self, zone: str) -> list[list[Factor]]:
        """The series from which figures of the zone are made, the preferred first; none if the zone has none that may be.

        Raises UnknownZoneError.
        """
        self.require(zone)
        found: dict[tuple[object, str], list[Factor]] = {}
        for factor in self._by_zone[zone]:
            if factor.kind.is_location_based and factor.tier is not Tier.F6_REGION:
                found.setdefault((factor.kind, factor.source), []).append(factor)
        if zone not in self._ladders:
            return [_by_time(each) for each in list(found.values())[:1]]
        return [_by_time(factors) for source in self._ladders[zone] for (_, own), factors in found.items() if own == source]

    def default_series(self, zone: str) -> Sequence[Factor]:
        """The preferred series by time; empty if there is none. Raises UnknownZoneError."""
        return next(iter(self.series(zone)), [])

    def factor_at(self, zone: str, at_seconds: int) -> FactorChoice:
        """The factor for an instant, in seconds since 1970-01-01 UTC. Raises UnknownZoneError."""
        segments = self._segments.get(zone)
        if segments is None:
            segments = self._segments[zone] = self._make_segments(zone)
        index = bisect_right(segments, at_seconds, key=lambda choice: choice.from_seconds)
        return segments[max(index - 1, 0)]

    def residual_at(self, market: str, at_seconds: int) -> FactorChoice:
        """The residual mix of a market for an instant: for market-based figures alone.

        An average factor with basis residual; of several series that whose table comes first. Never raises: a market need
        not be a zone of any table.
        """
        segments = self._residual_segments.get(market)
        if segments is None:
            segments = self._residual_segments[market] = self._make_residual_segments(market)
        index = bisect_right(segments, at_seconds, key=lambda choice: choice.from_seconds)
        return segments[max(index - 1, 0)]

    def _make_residual_segments(self, market: str) -> list[FactorChoice]:
        found: dict[tuple[object, str], list[Factor]] = {}
        for factor in self._by_zone.get(market, ()):
            if factor.kind.is_residual_mix and factor.tier is not Tier.F6_REGION:
                found.setdefault((factor.kind, factor.source), []).append(factor)
        if not found:
            return [FactorChoice(None, False, BEGINNING_SECONDS, None, f"no table has a residual mix of {market}")]
        return self._rung(market, _by_time(next(iter(found.values()))))

    def _make_segments(self, zone: str) -> list[FactorChoice]:
        series = self.series(zone)
        if not series:
            missing = f"zone {zone} has no average factor by production or consumption"
            return [FactorChoice(None, False, BEGINNING_SECONDS, None, missing)]
        rungs = [self._rung(zone, factors) for factors in series]
        merged = rungs[0]
        for rung in rungs[1:]:
            merged = _fill(merged, rung)
        return merged

    def _rung(self, zone: str, series: list[Factor]) -> list[FactorChoice]:
        """A series as the policy sees it: under `latest_published_by`, its newest long value alone, for all time."""
        day = self._latest_published_by
        known = [factor for factor in series if factor.is_long and day is not None and factor.published <= day]
        if not known:
            return _segments(zone, series)
        newest = max(known, key=lambda factor: (factor.valid_to_seconds, factor.recorded_at_seconds))
        return [FactorChoice(newest, False, BEGINNING_SECONDS, None, "", newest.tier)]

    def require(self, zone: str) -> None:
        """Raise UnknownZoneError, with near matches in its text, unless some table has the zone."""
        if zone not in self._by_zone:
            near = self.near_zones(zone)
            hint = f"did you mean {_either(near)}?" if near else "see `wattledger-collector factors list`"
            raise UnknownZoneError(f"no factor table has a zone {zone!r}: {hint}")

    def near_zones(self, text: str, limit: int = 4) -> list[str]:
        """Zones whose id or name is close to the text, nearest first, as `DE (Germany)`."""
        wanted = _HABITS.get(text.casefold(), text.casefold())
        country = wanted.partition("-")[0]
        scores: list[tuple[float, str]] = []
        for zone, name in self._names.items():
            lowered = name.casefold()
            score = max(
                difflib.SequenceMatcher(None, wanted, zone.casefold()).ratio(),
                difflib.SequenceMatcher(None, wanted, lowered).ratio(),
                # A part of a name ("Korea") is a better hint than a few letters in common.
                0.9 if len(wanted) >= 4 and wanted in lowered else 0.0,
                # An area that no table has, in a country that one has.
                0.7 if country == zone.casefold() else 0.0,
            )
            if score >= 0.6:
                scores.append((-score, zone))
        return [f"{zone} ({self._names[zone]})" for _, zone in sorted(scores)[:limit]]


# What people write for a country whose id is another.
_HABITS = {"uk": "gb", "great britain": "gb", "england": "gb", "usa": "us", "america": "us", "eire": "ie", "prc": "cn"}


def _by_time(series: Iterable[Factor]) -> list[Factor]:
    return sorted(series, key=lambda factor: (factor.valid_from_seconds, factor.recorded_at_seconds, factor.published))


def _segments(zone: str, series: Sequence[Factor]) -> list[FactorChoice]:
    """The choices of all time, in order, the first from the beginning. series: by time, not empty."""
    edges = sorted({edge for factor in series for edge in (factor.valid_from_seconds, factor.valid_to_seconds)})
    missing = f"zone {zone} has no factor before {text_of_instant(edges[0])}"
    choices = [FactorChoice(None, False, BEGINNING_SECONDS, edges[0], missing)]
    ends = sorted(series, key=lambda factor: (factor.valid_to_seconds, factor.recorded_at_seconds))
    begun, ended = 0, 0
    # Of the factors that hold, the one recorded last is on top; those that no longer hold are taken off when they come up.
    holding: list[tuple[int, int, int, Factor]] = []
    for index, edge in enumerate(edges):
        until = edges[index + 1] if index + 1 < len(edges) else None
        while begun < len(series) and series[begun].valid_from_seconds <= edge:
            factor = series[begun]
            heapq.heappush(holding, (-factor.recorded_at_seconds, -seconds_of_day(factor.published), begun, factor))
            begun += 1
        while holding and holding[0][3].valid_to_seconds <= edge:
            heapq.heappop(holding)
        while ended < len(ends) and ends[ended].valid_to_seconds <= edge:
            ended += 1
        if holding:
            factor = holding[0][3]
            choices.append(FactorChoice(factor, False, edge, until, "", factor.tier))
        else:
            choices.extend(_after(zone, ends[ended - 1], edge, until))
    return choices


def _after(zone: str, factor: Factor, edge: int, until: int | None) -> Iterable[FactorChoice]:
    """What holds from the end of a factor on, where no other does."""
    if factor.is_long:
        yield FactorChoice(factor, True, edge, until, "", factor.tier)
        return
    carried_to = factor.valid_to_seconds + CARRY_SECONDS_MAX
    if edge < carried_to:
        end = carried_to if until is None else min(until, carried_to)
        yield FactorChoice(factor, True, edge, end, "", Tier.F2_CARRIED)
        edge = end
    if until is None or edge < until:
        missing = f"zone {zone} has no factor between {text_of_instant(factor.valid_to_seconds)} and the next one"
        yield FactorChoice(None, False, edge, until, missing)


def _fill(better: Sequence[FactorChoice], worse: Sequence[FactorChoice]) -> list[FactorChoice]:
    """One line of choices from two: the worse where the better has no factor. Both are whole and in order."""
    filled: list[FactorChoice] = []
    edges = sorted({choice.from_seconds for choice in (*better, *worse)})
    one, other = 0, 0
    for index, edge in enumerate(edges):
        while one + 1 < len(better) and better[one + 1].from_seconds <= edge:
            one += 1
        while other + 1 < len(worse) and worse[other + 1].from_seconds <= edge:
            other += 1
        choice = better[one] if better[one].factor is not None or worse[other].factor is None else worse[other]
        until = edges[index + 1] if index + 1 < len(edges) else None
        filled.append(FactorChoice(choice.factor, choice.provisional, edge, until, choice.missing, choice.tier))
    return filled


def _either(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def zone_of_time_zone(time_zone: str, zone_table: str, links: str, catalog: FactorCatalog) -> str | None:
    """Propose a grid zone for an IANA time zone: its country, if the catalog has it; else None.

    zone_table: text of tzdata's zone.tab. links: text of tzdata.zi, whose lines `L target name` give old names.
    """
    countries: dict[str, str] = {}
    for line in zone_table.splitlines():
        cells = line.split("\t")
        if not line.startswith("#") and len(cells) >= 3:
            countries.setdefault(cells[2], cells[0])
    targets: dict[str, str] = {}
    for line in links.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "L":
            targets[words[2]] = words[1]
    country = countries.get(time_zone) or countries.get(targets.get(time_zone, ""))
    return country if country in catalog.zones else None
