"""Emission counters of sites: each interval counts with the factor and PUE known when its first energy came.

No clock, no database. Unlike a report, a counter is never restated: a corrected factor changes reports alone, so that
what Prometheus has seen does not jump. Recorded energy is left out. Source of truth: the rows in the store's emission bases.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.factors import FactorKind, kind_of_id
from wattledger_collector.records import MICROJOULES_PER_KWH, EmissionBasis, RollupRow


@dataclass(frozen=True, slots=True)
class _Multiplier:
    """What one kWh of a site counts as, from some interval on."""

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
        self._uncovered_microjoules: dict[str, int] = {}
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
        if multiplier is None:
            self._uncovered_microjoules[site] = self._uncovered_microjoules.get(site, 0) + energy_microjoules
            return
        key = (site, multiplier)
        self._energy_microjoules[key] = self._energy_microjoules.get(key, 0) + energy_microjoules

    def take_new_bases(self) -> list[EmissionBasis]:
        """The bases of intervals used first since the last call: to be added to the store before the counters are shown."""
        new, self._new = self._new, []
        return new

    def grams(self) -> Mapping[tuple[str, FactorKind], Fraction]:
        """Exact grams so far by site and type of factor."""
        totals: dict[tuple[str, FactorKind], Fraction] = {}
        for (site, multiplier), energy in self._energy_microjoules.items():
            part = (
                energy
                * Fraction(Decimal(multiplier.pue))
                * Fraction(Decimal(multiplier.grams_per_kwh))
                / MICROJOULES_PER_KWH
            )
            key = (site, kind_of_id(multiplier.factor))
            totals[key] = totals.get(key, Fraction(0)) + part
        return totals

    def uncovered_microjoules(self) -> Mapping[str, int]:
        """Energy by site that no factor covered when it came."""
        return dict(self._uncovered_microjoules)

    def _known(self, site: str, interval_start_seconds: int) -> _Multiplier | None:
        runs = self._runs.get(site, [])
        index = bisect_right(runs, interval_start_seconds, key=lambda run: run.from_seconds) - 1
        if index >= 0 and interval_start_seconds < runs[index].to_seconds:
            return runs[index].multiplier
        return None

    def _first_use(self, site: str, interval_start_seconds: int) -> _Multiplier | None:
        basis = self._finder.find(site, interval_start_seconds)
        if basis.factor is None or basis.pue is None:
            return None
        multiplier = _Multiplier(basis.factor.id, f"{basis.factor.value:f}", f"{basis.pue:f}")
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
