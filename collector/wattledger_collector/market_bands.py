"""The 95 % intervals of market-based totals, of each site and of all, by what their grams count.

Values in, values out; no clock, no database, no rounding. Reports and statements share it; `verify` has code of its own.
Sources of truth: `bands.py` for sensors, factors and gaps; `market.py` for what the totals are made of.

The rules:
- A certificate's rate is a term of its contract and is taken as it stands: its own band is 0, by convention.
- A residual mix is off by what its row states, else by the ratio that is assumed for official years; all energy under one
  mix (market and beginning) is off together.
- Where the grid factor stands in, and outside of scope 2, its band holds as location based: such grams are divided among the
  site's lines that count the same in proportion to their grams.
- Nobody knows which server a certificate or mix is for, so that their grams are divided among all of a site's sensors in
  proportion to energy. Sensors of one source are off together, over all parts and sites.
- What gaps may hide counts at the site's mean market-based intensity: its grams by the IT energy of the lines that count the
  same location based, or of all lines where none does.

Without instruments and residual mixes, the interval is the location-based one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from wattledger_collector.accounting import Line
from wattledger_collector.bands import (
    FACTOR_RATIO_ASSUMED,
    Estimate,
    FactorBands,
    Sensors,
    SiteGaps,
    Tally,
    sensors_of_line,
)
from wattledger_collector.factors import Tier
from wattledger_collector.market import Figure, MarketBased, Part
from wattledger_collector.residual_mixes import Counted, Mix, counted

MIX_RATIO_ASSUMED = FACTOR_RATIO_ASSUMED[Tier.F4_ANNUAL_ZONE]

# Totals by site, None for all of them, and what their grams count.
MarketEstimates = Mapping[str | None, Mapping[Counted, Estimate]]

_ZERO = Fraction(0)


def market_estimates(
    market: MarketBased, lines: Iterable[Line], sensors: Sensors, bands: FactorBands, gaps: Iterable[SiteGaps]
) -> dict[str | None, dict[Counted, Estimate]]:
    """The intervals of all totals. lines: of the same energy; bands: of the grid factors; gaps: of all sites."""
    by_site: dict[str, list[Line]] = {}
    for line in lines:
        by_site.setdefault(line.basis.site, []).append(line)
    gaps = list(gaps)
    sites = market.sites
    totals = {site: _totals(figure) for site, figure in sites.items()}

    def of(names: Iterable[str], name: Counted, left_open: Iterable[SiteGaps]) -> Estimate:
        tally, total, rates = Tally(), _ZERO, {}
        for site in names:
            own, grams = by_site.get(site, []), totals[site][name]
            _add_site(tally, sites[site], name, own, market.all_mixes, sensors, bands)
            total += grams
            if energy := _energy(own, name):
                rates[site] = grams / energy
        return tally.estimate(total, rates, left_open)

    told = {site for site, own in totals.items() if own}
    found: dict[str | None, dict[Counted, Estimate]] = {None: {}}
    for name in sorted({name for of_site in totals.values() for name in of_site}):
        own = [site for site in sites if name in totals[site]]
        # A site without any figure may belong to each total.
        found[None][name] = of(own, name, [gap for gap in gaps if gap.site in own or gap.site not in told])
    for site in sites:
        found[site] = {name: of([site], name, [gap for gap in gaps if gap.site == site]) for name in totals[site]}
    return found


def _totals(figure: Figure) -> dict[Counted, Fraction]:
    """A site's totals; what has neither energy nor grams is in none."""
    sums: dict[Counted, Fraction] = {}
    for part, grams in figure.grams.items():
        if figure.energy.get(part) or any(grams.values()):
            for name, amount in grams.items():
                sums[name] = sums.get(name, _ZERO) + amount
    return dict(sorted(sums.items()))


def mix_band(mix: Mix) -> tuple[float, bool]:
    """Half-width of 95 % of a residual mix, relative; and whether its row states it."""
    stated = None if mix.factor is None else mix.factor.uncertainty_ratio
    return (MIX_RATIO_ASSUMED, False) if stated is None else (float(stated), True)


def _add_site(
    tally: Tally,
    figure: Figure,
    name: Counted,
    lines: Sequence[Line],
    mixes: Mapping[tuple[str, int], Mix],
    sensors: Sensors,
    bands: FactorBands,
) -> None:
    """Add a site's grams of one kind."""
    grid = [line for line in lines if _counts(line) == name]
    left = sum((figure.grams.get(part, {}).get(name, _ZERO) for part in (Part.STAND_IN, Part.OUTSIDE_SCOPE_2)), _ZERO)
    for line, grams in _divided(left, grid, [line.grams or _ZERO for line in grid]):
        tally.add_line(grams, line, sensors, bands)
    energies = [Fraction(line.energy_microjoules) for line in lines]
    if certified := figure.grams.get(Part.CERTIFICATES, {}).get(name):
        for line, grams in _divided(certified, lines, energies):
            tally.add(grams, sensors_of_line(line, sensors), "certificates", 0.0)
    for key, sums in figure.mix_grams.items():
        mix = mixes[key]
        ratio, is_stated = mix_band(mix)
        told = f"{mix.market} residual mix {mix.source}"
        for line, grams in _divided(sums.get(name, _ZERO), lines, energies):
            own = sensors_of_line(line, sensors)
            # The beginning keeps mixes of one source apart.
            tally.add(grams, own, f"{told} {mix.from_seconds}", ratio, "" if is_stated else told)


def _counts(line: Line) -> Counted | None:
    return None if (part := line.emissions) is None or not line.factors else counted(part.kind)


def _energy(lines: Sequence[Line], name: Counted) -> int:
    """IT energy of which a site's grams are, microjoules."""
    own = [line for line in lines if _counts(line) == name] or lines
    return sum(line.energy_microjoules for line in own)


def _divided(amount: Fraction, lines: Sequence[Line], weights: Sequence[Fraction]) -> Iterator[tuple[Line, float]]:
    """What each line has of an amount, in proportion to weights; to their sizes where they sum to nothing."""
    if not (whole := sum(weights, _ZERO)):
        weights = [abs(weight) for weight in weights]
        whole = sum(weights, _ZERO)
    if amount and whole:
        rate = amount / whole
        for line, weight in zip(lines, weights, strict=True):
            yield line, float(weight * rate)
