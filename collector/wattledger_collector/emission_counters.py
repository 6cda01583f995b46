"""Emission counters of sites: each interval counts with the factors, PUE and scopes known when its first energy came.

No clock, no database. Unlike a report, a counter is never restated: a corrected factor or an edited declaration changes
reports alone, so that what Prometheus has seen does not jump. Certificates are retired later and enter reports, never a
counter. Recorded energy is left out. Source of truth: the rows in the store's emission bases.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.emission_bases import (
    Multiplier,
    PlainTerms,
    Runs,
    Share,
    SiteTerms,
    first_basis,
    first_factor,
)
from wattledger_collector.factors import FactorKind
from wattledger_collector.records import EmissionBasis, EmissionRun, Quality, RollupRow

# Stores bases and returns what stands for each.
Keep = Callable[[Sequence[EmissionBasis]], Iterable[EmissionBasis]]


class Metering(StrEnum):
    """How energy became known."""

    MEASURED = "measured"
    # Counted by hardware over a time without samples: the amount is known, its place in time is not.
    BRIDGED = "bridged"
    MODELLED = "modelled"


_METERING = {
    Quality.COUNTER: Metering.MEASURED,
    Quality.INTEGRAL: Metering.MEASURED,
    Quality.BRIDGED: Metering.BRIDGED,
    Quality.MODEL: Metering.MODELLED,
}


class EmissionSeries(NamedTuple):
    """One emission counter. is_market: by the market's residual mix, else by the grid's factor."""

    site: str
    is_market: bool
    scope: str
    kind: FactorKind
    is_modelled: bool


class TierSeries(NamedTuple):
    """One counter of energy by quality. tier: of the factor that it was first used with, or empty if that was not kept."""

    site: str
    metering: Metering
    tier: str


class Superseded(NamedTuple):
    """Whose factors were replaced. is_long: by one of months or years, and not by one of a series of hours."""

    site: str
    is_long: bool


@dataclass(slots=True)
class _Sum:
    """An exact sum as a quotient of whole numbers, and its high-water mark, which has the same denominator."""

    numerator: int = 0
    denominator: int = 1
    high: int = 0

    def add(self, numerator: int, denominator: int) -> None:
        if self.denominator % denominator:
            self.widen(denominator)
        self.numerator += numerator * (self.denominator // denominator)

    def widen(self, denominator: int) -> None:
        """Make the denominator a multiple of another one. Decimals have few, so that it soon stays as it is."""
        factor = lcm(self.denominator, denominator) // self.denominator
        self.numerator, self.denominator, self.high = (
            self.numerator * factor, self.denominator * factor, self.high * factor
        )  # fmt: skip

    def mark(self) -> None:
        self.high = max(self.high, self.numerator)

    def mark_at_least(self, other: "_Sum") -> None:
        """Take over another one's mark."""
        self.widen(other.denominator)
        self.high = max(self.high, other.high * (self.denominator // other.denominator))


class EmissionCounters:
    """Grams by site, method, scope and type of factor, kept up as energy is booked.

    Sums are signed, since a residual may fall. Counters show their high-water marks, taken at each `settle` and not when
    somebody looks, so that they do not depend on how often they are read.
    """

    def __init__(
        self,
        finder: BasisFinder,
        runs: Iterable[EmissionRun],
        *,
        interval_seconds: int,
        site_terms: SiteTerms | None = None,
    ) -> None:
        """runs: all bases of the store."""
        self._finder = finder
        self._interval_seconds = interval_seconds
        self._site_terms = site_terms or PlainTerms()
        self._known: Runs[Multiplier] = Runs()
        self._uncovered: Runs[bool] = Runs()
        # Whether energy that was uncovered when it came has a factor now: all has to be counted anew.
        self.is_outdated = False
        self._shares: dict[Multiplier, list[Share]] = {}
        self._passed: dict[tuple[str, int, Quality], int] = {}
        self._pending: dict[tuple[str, Multiplier, Metering], int] = {}
        self._grams: dict[EmissionSeries, _Sum] = {}
        self._tiers: dict[TierSeries, _Sum] = {}
        self._uncovered_microjoules: dict[tuple[str, Metering], int] = {}
        for run in runs:
            self._put(run)

    # What feeds it.

    def remember(self, bases: Iterable[EmissionBasis]) -> None:
        """Take over bases as they stand in the store; an interval that has one keeps it."""
        for basis in bases:
            if self._known.at(basis.site, basis.interval_start_seconds) is None:
                self._put(EmissionRun(basis, basis.interval_start_seconds + self._interval_seconds))

    def first_bases(self, intervals: Iterable[tuple[str, int]]) -> list[EmissionBasis]:
        """Bases for the intervals, by site and beginning, that have none yet and for which a factor holds.

        They have to be in the store, and remembered as they stand there, before energy of these intervals is added: another
        collector may have been first, and one basis is kept of an interval.
        """
        bases = []
        for site, begin in intervals:
            if self._known.at(site, begin) is None:
                basis = first_basis(self._finder, self._site_terms, site, begin, self._interval_seconds)
                if basis is not None:
                    bases.append(basis)
                    self.is_outdated |= self._uncovered.at(site, begin) is not None
        return bases

    def edges(self) -> Mapping[str, set[int]]:
        """By site, the instants at which it begins or ends to count in another way."""
        return {
            site: {edge for run in runs for edge in (run.from_seconds, run.to_seconds)}
            for site, runs in self._known.by_site().items()
        }

    def is_alike(self, site: str, from_seconds: int, to_seconds: int) -> bool:
        """Whether all intervals of a span, in which no edge of the site lies, count as its first one does.

        Else they have no basis yet, though a factor holds, and are to be read one by one.
        """
        if self._known.at(site, from_seconds) is not None:
            return True
        if first_factor(self._finder, site, from_seconds, to_seconds) is not None:
            return False
        if self._uncovered.at(site, from_seconds) is None:
            self._uncovered.put(site, from_seconds, to_seconds, True)
        return True

    def passing(self, rows: Iterable[RollupRow]) -> Iterator[RollupRow]:
        """Give all roll-up rows on and note them, recorded ones left out; they are counted by `count_passed`."""
        for row in rows:
            if not row.recorded:
                key = (row.site, row.interval_start_seconds, row.quality)
                self._passed[key] = self._passed.get(key, 0) + row.energy_microjoules
            yield row

    def count_passed(self, keep: Keep) -> None:
        """Count what has passed. keep: asked once, for all intervals that have no basis yet."""
        passed, self._passed = self._passed, {}
        new = self.first_bases(dict.fromkeys((site, begin) for site, begin, _ in passed))
        if new:
            self.remember(keep(new))
        for (site, begin, quality), energy in passed.items():
            self.add_energy(site, begin, quality, energy)
        self.settle()

    def add_energy(self, site: str, interval_start_seconds: int, quality: Quality, energy_microjoules: int) -> None:
        """Count live energy of one interval; signed microjoules. It is shown after `settle`."""
        metering = _METERING[quality]
        multiplier = self._known.at(site, interval_start_seconds)
        if multiplier is not None:
            key = (site, multiplier, metering)
            self._pending[key] = self._pending.get(key, 0) + energy_microjoules
            return
        if self._uncovered.at(site, interval_start_seconds) is None:
            end = interval_start_seconds + self._interval_seconds
            self._uncovered.put(site, interval_start_seconds, end, True)
        before = self._uncovered_microjoules.get((site, metering), 0)
        self._uncovered_microjoules[site, metering] = before + energy_microjoules

    def _put(self, run: EmissionRun) -> None:
        basis = run.basis
        self._known.put(basis.site, basis.interval_start_seconds, run.to_seconds, Multiplier.of(basis))

    def settle(self) -> None:
        """Show what was added: whole commits only, since a residual comes after the parts that it lowers."""
        touched: list[_Sum] = []
        for (site, multiplier, metering), energy in self._pending.items():
            shares = self._shares.get(multiplier)
            if shares is None:
                shares = self._shares[multiplier] = multiplier.shares()
            is_modelled = metering is Metering.MODELLED
            for share in shares:
                series = EmissionSeries(site, share.is_market, share.scope, share.kind, is_modelled)
                grams = self._grams.setdefault(series, _Sum())
                grams.add(energy * share.numerator, share.denominator)
                touched.append(grams)
            tier = self._tiers.setdefault(TierSeries(site, metering, multiplier.tier), _Sum())
            tier.add(energy, 1)
            touched.append(tier)
        self._pending.clear()
        for each in touched:
            each.mark()

    def keep_marks(self, before: "EmissionCounters") -> None:
        """Go on from counters that were shown: none shows less than they did."""
        for series, grams in before._grams.items():
            self._grams.setdefault(series, _Sum()).mark_at_least(grams)
        for tier, energy in before._tiers.items():
            self._tiers.setdefault(tier, _Sum()).mark_at_least(energy)

    def factors_changed(self) -> None:
        """The finder knows other factors: see whether they cover what nothing covered."""
        for site, runs in self._uncovered.by_site().items():
            for run in runs:
                if first_factor(self._finder, site, run.from_seconds, run.to_seconds) is not None:
                    self.is_outdated = True
                    return

    # What reads it.

    def grams(self) -> Mapping[EmissionSeries, Fraction]:
        """Exact grams so far, as they are: a residual may have lowered them."""
        return {series: Fraction(each.numerator, each.denominator) for series, each in self._grams.items()}

    def counters(self) -> Mapping[EmissionSeries, Fraction]:
        """The same as counters, which never fall; exact grams."""
        return {series: Fraction(each.high, each.denominator) for series, each in self._grams.items()}

    def energy_by_tier(self) -> Mapping[TierSeries, int]:
        """The energy that is in the counters, by quality, as counters; microjoules."""
        return {series: each.high for series, each in self._tiers.items()}

    def uncovered_microjoules(self) -> Mapping[tuple[str, Metering], int]:
        """Energy that no factor covers, by site; in no counter."""
        return self._uncovered_microjoules

    def superseded_seconds(self) -> dict[Superseded, int]:
        """Time whose energy is in the counters by a factor for which another one holds now.

        Takes as long as there are changes of factors: ask when they have changed, and not for each reader.
        """
        seconds: dict[Superseded, int] = {}
        for site, runs in self._known.by_site().items():
            for run in runs:
                self._compare(site, run.from_seconds, run.to_seconds, run.value.factor, seconds)
        return seconds

    def _compare(self, site: str, begin: int, end: int, used: str, seconds: dict[Superseded, int]) -> None:
        at, step = begin, self._interval_seconds
        while at < end:
            basis = first_factor(self._finder, site, at, at + step)
            upto = at + step
            if basis is not None and basis.factor is not None:
                # Intervals that begin before the factor ends have it as their first one.
                last = end if basis.to_seconds is None else min(end, basis.to_seconds)
                upto = max(upto, at + -(-(last - at) // step) * step)
                if basis.factor.id != used:
                    key = Superseded(site, basis.factor.is_long)
                    seconds[key] = seconds.get(key, 0) + upto - at
            at = upto
