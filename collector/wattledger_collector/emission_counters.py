"""Emission counters of sites: each interval counts with the factor and PUE known when its first energy came.

No clock, no database. Unlike a report, a counter is never restated: a corrected factor changes reports alone, so that
what Prometheus has seen does not jump. Where several factors share an interval, each counts for its part of the time; what
none covers, or one of another type, counts for nothing. Recorded energy is left out. Source of truth: the rows in the
store's emission bases.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from wattledger_collector.accounting import BasisFinder, SiteBasis
from wattledger_collector.factors import FactorKind, kind_of_id
from wattledger_collector.records import MICROJOULES_PER_KWH, EmissionBasis, RollupRow


@dataclass(frozen=True, slots=True)
class _Multiplier:
    """What one kWh of a site counts as, from some interval on. grams_per_kwh: a decimal, or a fraction such as `65/3`."""

    factor: str
    grams_per_kwh: str
    pue: str


@dataclass(slots=True)
class _Run:
    """Adjacent intervals with one multiplier, half-open [from, to): a site that is always on is one run a year."""

    from_seconds: int
    to_seconds: int
    multiplier: _Multiplier


class EmissionCounters:
    """Grams by site and type of factor, kept up as energy is booked.

    The sum is signed: a falling residual can lower it for a while; who exposes it shows the high-water mark.
    """

    def __init__(self, finder: BasisFinder, bases: Iterable[EmissionBasis], *, interval_seconds: int) -> None:
        """bases: all rows of the store."""
        self._finder = finder
        self._interval_seconds = interval_seconds
        self._runs: dict[str, list[_Run]] = {}
        self._energy_microjoules: dict[tuple[str, _Multiplier], int] = {}
        self._new: list[EmissionBasis] = []
        for basis in bases:
            multiplier = _Multiplier(basis.factor, basis.factor_grams_per_kwh, basis.pue)
            self._remember(basis.site, basis.interval_start_seconds, multiplier)

    def add(self, rows: Iterable[RollupRow]) -> None:
        """Count energy: at start all of the store's roll-up rows, then what each commit adds."""
        for row in rows:
            if not row.recorded:
                self.add_energy(row.site, row.interval_start_seconds, row.energy_microjoules)

    def add_energy(self, site: str, interval_start_seconds: int, energy_microjoules: int) -> None:
        """Count live energy of one interval; signed microjoules."""
        multiplier = self._known(site, interval_start_seconds) or self._first_use(site, interval_start_seconds)
        if multiplier is not None:
            key = (site, multiplier)
            self._energy_microjoules[key] = self._energy_microjoules.get(key, 0) + energy_microjoules

    def take_new_bases(self) -> list[EmissionBasis]:
        """The bases of intervals used first since the last call: to be added to the store before the counters are shown."""
        new, self._new = self._new, []
        return new

    def keep(self, basis: EmissionBasis) -> None:
        """Count an interval that was not used here yet as others have counted it, since one basis is kept of it."""
        if self._known(basis.site, basis.interval_start_seconds) is None:
            multiplier = _Multiplier(basis.factor, basis.factor_grams_per_kwh, basis.pue)
            self._remember(basis.site, basis.interval_start_seconds, multiplier)

    def grams(self) -> Mapping[tuple[str, FactorKind], Fraction]:
        """Exact grams so far by site and type of factor."""
        totals: dict[tuple[str, FactorKind], Fraction] = {}
        for (site, multiplier), energy in self._energy_microjoules.items():
            part = energy * Fraction(multiplier.pue) * Fraction(multiplier.grams_per_kwh) / MICROJOULES_PER_KWH
            key = (site, kind_of_id(multiplier.factor))
            totals[key] = totals.get(key, Fraction(0)) + part
        return totals

    def _known(self, site: str, interval_start_seconds: int) -> _Multiplier | None:
        runs = self._runs.get(site, [])
        index = bisect_right(runs, interval_start_seconds, key=lambda run: run.from_seconds) - 1
        if index >= 0 and interval_start_seconds < runs[index].to_seconds:
            return runs[index].multiplier
        return None

    def _first_use(self, site: str, interval_start_seconds: int) -> _Multiplier | None:
        parts = self._finder.split(site, interval_start_seconds, interval_start_seconds + self._interval_seconds)
        multiplier = _joined(parts, self._interval_seconds)
        if multiplier is None:
            return None
        self._remember(site, interval_start_seconds, multiplier)
        self._new.append(
            EmissionBasis(site, interval_start_seconds, multiplier.grams_per_kwh, multiplier.factor, multiplier.pue)
        )
        return multiplier

    def _remember(self, site: str, interval_start_seconds: int, multiplier: _Multiplier) -> None:
        runs = self._runs.setdefault(site, [])
        end = interval_start_seconds + self._interval_seconds
        index = bisect_right(runs, interval_start_seconds, key=lambda run: run.from_seconds)
        if index > 0 and runs[index - 1].to_seconds == interval_start_seconds and runs[index - 1].multiplier == multiplier:
            runs[index - 1].to_seconds = end
        else:
            runs.insert(index, _Run(interval_start_seconds, end, multiplier))


def _joined(parts: Sequence[tuple[SiteBasis, int]], interval_seconds: int) -> _Multiplier | None:
    """One multiplier for an interval: what its bases count as by their seconds; None if none of them has a factor."""
    covered = [
        (basis.factor, basis.pue, seconds) for basis, seconds in parts if basis.factor is not None and basis.pue is not None
    ]
    if not covered:
        return None
    first, pue, seconds = covered[0]
    if seconds == interval_seconds:
        return _Multiplier(first.id, f"{first.value:f}", f"{pue:f}")
    grams = sum(
        (
            Fraction(factor.value) * Fraction(each) * seconds
            for factor, each, seconds in covered
            if factor.kind == first.kind
        ),
        Fraction(0),
    )
    # The PUE may change within the interval too, so that it is in the grams.
    return _Multiplier(first.id, str(grams / interval_seconds), "1")
