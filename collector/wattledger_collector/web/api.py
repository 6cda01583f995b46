"""The JSON API: one table of endpoints, from which the routes and the API page are made.

Read only; reads no clock itself. What lies in memory is answered from the fleet view, history from the store. Source of
truth for every figure: the ledger; microjoules are text.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Protocol
from zoneinfo import ZoneInfo

from wattledger_collector.accounting import Line, account
from wattledger_collector.closures import closed_by
from wattledger_collector.exposition import SHARDS_MAX
from wattledger_collector.factor_catalog import UnknownZoneError
from wattledger_collector.factors import Factor
from wattledger_collector.fleet import FleetView, RecentGap
from wattledger_collector.fleet_host import HostEntry
from wattledger_collector.records import Store
from wattledger_collector.report import Period, noting_late, read_sums, reasons_of_closing
from wattledger_collector.web import figures, host_figures
from wattledger_collector.web.figures import Tree

# What one answer holds at most; more has to be asked for in parts.
HOSTS_MAX = 1000
GAPS_MAX = 1000
# A year and a day of intervals of every site; more is a report's work.
SPAN_SECONDS_MAX = 367 * 86_400

_UTC = ZoneInfo("UTC")

# The beginning of the year 2200. Nanoseconds of later times pass 64 bits from 2262 on, and datetime ends with 9999.
TIME_SECONDS_END = 7_258_118_400


class BadRequestError(ValueError):
    """A parameter can't be used; the text says which, its value, and what to write."""


class NotFoundError(LookupError):
    """There is no such thing; the text says what was asked for."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request's parameters, and the time at which it came (seconds since 1970-01-01 UTC)."""

    now_seconds: float
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    # The address under which the asker reached this collector, host:port.
    authority: str = ""
    scheme: str = "http"

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise BadRequestError(f"{name}={text} can't be used: write a whole number from {low} to {high}")
        return value

    def seconds(self, name: str, default: float) -> float:
        """An instant: ISO 8601 (UTC where it names no offset) or seconds since 1970."""
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                moment = None
            if moment is None:
                raise BadRequestError(
                    f"{name}={text} is no time: write 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970"
                ) from None
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if not (math.isfinite(value) and 0 <= value < TIME_SECONDS_END):
            raise BadRequestError(f"{name}={text} is out of range: choose a time from 1970 to 2199")
        return value


class FactorsOfZones(Protocol):
    """Who knows the grid factors: a catalog, or what follows the ledger."""

    def factors(self, zone: str) -> Sequence[Factor]:
        """All factors of a zone. Raises UnknownZoneError."""
        ...


class Api:
    """Answers questions.

    store: for history; without one its endpoints say that there is none. catalog: all grid factors. zone: where a day
    begins and in which times are shown.
    """

    def __init__(self, view: FleetView, *, store: Store | None, catalog: FactorsOfZones | None, zone: tzinfo) -> None:
        self._view = view
        self._store = store
        self._catalog = catalog
        self._zone = zone

    def fleet(self, question: Question) -> Tree:
        """Present power, today's energy and emissions, sites, agents, data quality."""
        return figures.fleet(self._view, question.now_seconds, self._zone)

    def power(self, question: Question) -> Tree:
        """The last hour of fleet power."""
        return figures.history(self._view, question.now_seconds, question.seconds("after", 0.0))

    def hosts(self, question: Question) -> Tree:
        """Hosts, those that draw most first."""
        limit = question.integer("limit", 100, 1, HOSTS_MAX)
        offset = question.integer("offset", 0, 0, 10**9)
        wanted = question.query.get("search", "").casefold()
        site = question.query.get("site")
        found = [
            entry
            for entry in self._view.hosts()
            if (not wanted or wanted in entry.host.casefold() or wanted in entry.record.shown_name.casefold())
            and site in (None, entry.site)
        ]
        now = question.now_seconds

        def drawn(entry: HostEntry) -> int:
            live = entry.fresh_live(now, self._view.staleness_seconds)
            return -(2**62) if live is None else sum(live.milliwatts)

        found.sort(key=lambda entry: (-drawn(entry), entry.host))
        rows = [host_figures.host_row(self._view, entry, now, self._zone) for entry in found[offset : offset + limit]]
        return {"total": len(found), "offset": offset, "hosts": rows}

    def host(self, question: Question) -> Tree:
        """One host with its channels."""
        name = question.path["host"]
        entry = self._view.host(name)
        if entry is None:
            raise NotFoundError(f"no host {name!r} was ever seen: /api/v1/hosts lists all")
        return host_figures.host(self._view, entry, question.now_seconds, self._zone)

    def sites(self, question: Question) -> Tree:
        """Sites with zone, PUE and factor."""
        return {"sites": figures.fleet(self._view, question.now_seconds, self._zone)["sites"]}

    def factors(self, question: Question) -> Tree:
        """Factors in use, or all of a zone."""
        zone = question.query.get("zone")
        if zone is None:
            now = question.now_seconds
            return {"in_use": [figures.basis(self._view.basis(site, now)) for site in self._view.sites()]}
        if self._catalog is None:
            raise NotFoundError("this collector has no factor tables: see its configuration")
        try:
            return {"zone": zone, "factors": [figures.factor(factor) for factor in self._catalog.factors(zone)]}
        except UnknownZoneError as error:
            raise NotFoundError(str(error)) from error

    def energy(self, question: Question) -> Tree:
        """Energy and emissions of a span by site; whether statements hold all of it, and if not, why."""
        store = self._need_store()
        begin, end = self._span(question, self._view.interval_seconds)
        site, finder, closures = question.query.get("site"), self._view.finder, store.closures()
        closed = closed_by(closures, begin, end, site)
        late: dict[str, int] = {}
        sums = noting_late(read_sums(store, finder, Period(begin, end, _UTC), site), closures, late)
        lines = account(sums, finder, store.interval_seconds)
        reasons = [*reasons_of_closing(closed, late), *_stand_ins(lines)]
        return {
            "from": figures.iso(begin, self._zone),
            "to": figures.iso(end, self._zone),
            "provisional": bool(reasons),
            "reasons": reasons,
            "statements": [closure.statement for closure in closed],
            "live": figures.energy([line for line in lines if not line.recorded]),
            "recorded": figures.energy([line for line in lines if line.recorded]),
            "sites": [
                {"site": site, "live": figures.energy(live), "recorded": figures.energy(recorded)}
                for site, live, recorded in _by_site(lines)
            ],
        }

    def gaps(self, question: Question) -> Tree:
        """Gaps of a span, with bounds."""
        store = self._need_store()
        begin, end = self._span(question, 1)
        limit = question.integer("limit", 100, 1, GAPS_MAX)
        rows = list(islice(store.gaps(begin, end, question.query.get("host")), limit + 1))
        return {
            "from": figures.iso(begin, self._zone),
            "to": figures.iso(end, self._zone),
            "is_cut_off": len(rows) > limit,
            "gaps": [
                figures.recent_gap(RecentGap(row.host, row.site, row.channel, row.gap), self._zone) for row in rows[:limit]
            ],
        }

    def targets(self, question: Question) -> Sequence[Tree]:
        """Scrape targets for Prometheus' HTTP service discovery."""
        shards = question.integer("shards", 1, 1, SHARDS_MAX)
        common = {"__scheme__": question.scheme, "__metrics_path__": "/metrics"}
        if shards == 1:
            return [{"targets": [question.authority], "labels": common}]
        return [
            {"targets": [question.authority], "labels": {**common, "__param_shard": str(index), "__param_of": str(shards)}}
            for index in range(shards)
        ]

    def _need_store(self) -> Store:
        if self._store is None:
            raise NotFoundError("this collector keeps no history: ask /api/v1/fleet for the present")
        return self._store

    def _span(self, question: Question, width: int) -> tuple[int, int]:
        """All steps of a width that begin between the ends asked for; seconds."""
        begin = question.seconds("from", figures.day_start_seconds(question.now_seconds, self._zone))
        end = question.seconds("to", question.now_seconds)
        if not begin < end:
            raise BadRequestError("from has to lie before to: exchange them")
        if end - begin > SPAN_SECONDS_MAX:
            raise BadRequestError("from and to are more than a year apart: ask for a year at a time")
        return math.ceil(begin / width) * width, math.ceil(end / width) * width


def _stand_ins(lines: Iterable[Line]) -> Iterable[str]:
    zones = {line.basis.zone or "" for line in lines if line.basis.provisional and line.basis.factor}
    for zone in sorted(zones):
        yield f"zone {zone} has no factor for all of the period yet: an earlier one stands in"


def _by_site(lines: Iterable[Line]) -> list[tuple[str, list[Line], list[Line]]]:
    sites: dict[str, tuple[list[Line], list[Line]]] = {}
    for line in lines:
        sites.setdefault(line.basis.site, ([], []))[line.recorded].append(line)
    return [(site, *parts) for site, parts in sorted(sites.items())]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of the API. parameters: name and meaning; example: an address that works."""

    path: str
    summary: str
    answer: Callable[[Api, Question], Tree | Sequence[Tree]]
    parameters: tuple[tuple[str, str], ...] = ()
    example: str = ""


_SPAN = (
    ("from", "first instant; ISO 8601 or seconds since 1970; default: when today began"),
    ("to", "first instant after; default: now"),
)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/api/v1/fleet", "Present power, today's energy and emissions, sites, agents, data quality.", Api.fleet),
    Endpoint(
        "/api/v1/power",
        "Power of the last hour, one point in five seconds; no point while no host reports.",
        Api.power,
        (("after", "only points later than this, in seconds since 1970"),),
    ),
    Endpoint(
        "/api/v1/hosts",
        "Hosts with present power, utilization and committed energy; those that draw most first.",
        Api.hosts,
        (
            ("search", "part of a host's id or name"),
            ("site", "only hosts of this site"),
            ("limit", f"how many, at most {HOSTS_MAX}; default 100"),
            ("offset", "how many to skip"),
        ),
        "/api/v1/hosts?limit=10",
    ),
    Endpoint("/api/v1/hosts/{host}", "One host with its channel tree, live values and sources.", Api.host),
    Endpoint("/api/v1/sites", "Sites with zone, PUE, factor, power and today's figures.", Api.sites),
    Endpoint(
        "/api/v1/factors",
        "Grid factors in use, or those of one zone; of a series of hours the newest 672.",
        Api.factors,
        (("zone", "id of a grid zone"),),
        "/api/v1/factors?zone=DE",
    ),
    Endpoint(
        "/api/v1/energy",
        "Energy and emissions of a span by site, from the ledger; provisional, and why, until statements hold all of it.",
        Api.energy,
        (*_SPAN, ("site", "only this site")),
    ),
    Endpoint(
        "/api/v1/gaps",
        "What sensors may have missed, and why, with lower and upper bounds.",
        Api.gaps,
        (*_SPAN, ("host", "only this host"), ("limit", f"how many, at most {GAPS_MAX}; default 100")),
    ),
    Endpoint(
        "/api/v1/prometheus/targets",
        "Scrape targets for Prometheus' HTTP service discovery.",
        Api.targets,
        (("shards", "into how many parts /metrics is cut; default 1"),),
        "/api/v1/prometheus/targets?shards=2",
    ),
)
