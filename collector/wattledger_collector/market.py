"""Scope 2, market based: what certificates cover, what the residual mix counts, and where the grid average stands in.

Values in, exact values out; no clock, no file, no rounding. Sources of truth: the GHG Protocol Scope 2 Guidance (2015) for
the order of factors (certificate or contract, supplier's rate, residual mix, and where none is published the grid average,
which is then said); `certificates.py` for which certificates may be claimed.

The rules:
- Load is the electricity of whole sites, IT energy x PUE, by site, market and time. A market is a holding's, else the zone.
- Certificates cover load of their market: of the whole period where matched by year (volume), of their own hour where
  matched by hour. What they cover is divided among the market's sites by load, and within a site among its times, in parts
  of a microjoule, by largest remainders: the parts sum to what was covered, and no part has more than its load.
- Each covered kWh has its certificate's rate. The rest has the residual mix that holds at its time: declared, else of the
  factor tables (basis residual). Where there is neither, the location-based factor stands in, and is named a stand-in.
- Without certificates and residual mixes all stands in, so that the figure is the location-based one to the last digit.
- Energy without any of these rates is uncovered; it is never zero. A rate of 0 is a value like others.
- Energy outside of scope 2 (a landlord's, a provider's) is covered by nothing and counts as location based.
- Grams are kept apart by what they count (gas, boundary, warming potentials); unlike ones are never added. Bases mix: that
  is what market based means. A declared rate that does not say what it counts counts what the grid factor beside it does.
- Residual mixes and suppliers' rates never enter a location-based figure.
- What statements of other periods or other sites used of a certificate is gone; the remainder stays available.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from wattledger_collector.certificates import SECONDS_PER_HOUR, Certificate, Claim, Matching, match
from wattledger_collector.factors import Factor, FactorKind
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.residual_mixes import Counted, DeclaredMix, Mix, Mixes, counted

_ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class Instruments:
    """What an organisation declares for its market-based figure: certificates in whose name, how matched; residual mixes.

    vintage_before_seconds, vintage_after_seconds, offsets: see Claim.
    """

    certificates: tuple[Certificate, ...] = ()
    beneficiary: str = ""
    is_hourly: bool = False
    vintage_before_seconds: int = 0
    vintage_after_seconds: int = 0
    offsets: frozenset[str] = frozenset()
    mixes: tuple[DeclaredMix, ...] = ()

    def claim(self, markets: Iterable[str], from_seconds: int, to_seconds: int) -> Claim:
        """The claim for a period; markets: in which there is load."""
        return Claim(
            beneficiary=self.beneficiary,
            markets=frozenset(market for market in markets if market),
            from_seconds=from_seconds,
            to_seconds=to_seconds,
            vintage_before_seconds=self.vintage_before_seconds,
            vintage_after_seconds=self.vintage_after_seconds,
            is_hourly=self.is_hourly,
            offsets=self.offsets,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Electricity of one site under one market, time and grid factor; microjoules of the whole site, signed and exact.

    at_seconds: an instant of its time, since 1970-01-01 UTC: any one in which its market has one residual mix, and where
    certificates are matched by hour within its hour. grams_per_kwh and kind: of the location-based factor; None without one.
    is_outside: not of scope 2, as declared.
    """

    site: str
    market: str
    at_seconds: int
    microjoules: Fraction
    grams_per_kwh: Fraction | None
    kind: FactorKind | None
    is_outside: bool = False


class Part(StrEnum):
    """How energy came to its market-based figure."""

    CERTIFICATES = "certificates"
    RESIDUAL_MIX = "residual_mix"
    STAND_IN = "stand_in"
    OUTSIDE_SCOPE_2 = "outside_scope_2"
    UNCOVERED = "uncovered"


@dataclass(slots=True)
class Figure:
    """The market-based figure of a site, or of all; exact. energy: microjoules, grams: by what they count; each by part.

    location: location-based grams of the same energy, by type of factor. mixes: microjoules that each residual mix counts,
    by market and beginning; mix_grams: their grams; stand_ins: microjoules for which the grid average stands in, by market
    and reason. Nobody changes one that was handed out.
    """

    energy: dict[Part, Fraction] = field(default_factory=dict)
    grams: dict[Part, dict[Counted, Fraction]] = field(default_factory=dict)
    location: dict[FactorKind, Fraction] = field(default_factory=dict)
    mixes: dict[tuple[str, int], Fraction] = field(default_factory=dict)
    mix_grams: dict[tuple[str, int], dict[Counted, Fraction]] = field(default_factory=dict)
    stand_ins: dict[tuple[str, str], Fraction] = field(default_factory=dict)

    def microjoules(self, *parts: Part) -> Fraction:
        """Energy of some parts; of all if none is named."""
        return sum((self.energy.get(part, _ZERO) for part in parts or Part), _ZERO)

    @property
    def totals(self) -> dict[Counted, Fraction]:
        """Grams of all parts, by what they count."""
        sums: dict[Counted, Fraction] = {}
        for grams in self.grams.values():
            for name, amount in grams.items():
                sums[name] = sums.get(name, _ZERO) + amount
        return dict(sorted(sums.items()))

    @property
    def location_totals(self) -> dict[Counted, Fraction]:
        """Location-based grams, by what they count."""
        sums: dict[Counted, Fraction] = {}
        for kind, amount in self.location.items():
            sums[counted(kind)] = sums.get(counted(kind), _ZERO) + amount
        return dict(sorted(sums.items()))

    @property
    def covered_ratio(self) -> Fraction | None:
        """What certificates cover of the energy in scope 2; None without any."""
        whole = self.microjoules() - self.microjoules(Part.OUTSIDE_SCOPE_2)
        return self.microjoules(Part.CERTIFICATES) / whole if whole else None

    def add(self, part: Part, microjoules: Fraction, grams: Fraction | None = None, of: Counted | None = None) -> None:
        """Book energy under a part, with its grams."""
        self.energy[part] = self.energy.get(part, _ZERO) + microjoules
        if grams is not None and of is not None:
            sums = self.grams.setdefault(part, {})
            sums[of] = sums.get(of, _ZERO) + grams

    @property
    def is_location_based(self) -> bool:
        """Whether no certificate and no residual mix has a part in it, so that it is the location-based figure."""
        return Part.CERTIFICATES not in self.energy and Part.RESIDUAL_MIX not in self.energy

    def add_mix(self, mix: tuple[str, int], microjoules: Fraction, grams: Mapping[Counted, Fraction]) -> None:
        """Book what a residual mix counts, beside the part that it is of."""
        self.mixes[mix] = self.mixes.get(mix, _ZERO) + microjoules
        sums = self.mix_grams.setdefault(mix, {})
        for name, amount in grams.items():
            sums[name] = sums.get(name, _ZERO) + amount

    def add_location(self, kind: FactorKind, grams: Fraction) -> None:
        """Book location-based grams."""
        self.location[kind] = self.location.get(kind, _ZERO) + grams


@dataclass(frozen=True, slots=True)
class MarketBased:
    """The market-based figure of a period with all that it rests on.

    total: of the sites that are told of; all_mixes: the residual mixes of all sites, by market and beginning.
    """

    instruments: Instruments
    matching: Matching
    sites: Mapping[str, Figure]
    total: Figure
    all_mixes: Mapping[tuple[str, int], Mix]

    def of(self, site: str) -> "MarketBased":
        """The same for one site alone: its part of what certificates cover for the sites of its market together."""
        figure = self.sites.get(site, Figure())
        return replace(self, sites={site: figure}, total=figure)

    @property
    def mixes(self) -> list[tuple[Mix, Fraction]]:
        """The residual mixes that were used, each with the microjoules that it counts, in order."""
        return [(self.all_mixes[name], energy) for name, energy in sorted(self.total.mixes.items())]

    @property
    def stand_ins(self) -> dict[tuple[str, str], Fraction]:
        """Microjoules for which the grid average stands in, by market and reason."""
        return dict(sorted(self.total.stand_ins.items()))

    @property
    def is_location_based(self) -> bool:
        """Whether no certificate and no residual mix had a part in it, so that it is the location-based figure."""
        return self.total.is_location_based

    @property
    def used(self) -> dict[Certificate, Fraction]:
        """What this figure uses of certificates, for the claims of other periods; microjoules."""
        sums: dict[Certificate, Fraction] = {}
        for each in self.matching.allocated:
            sums[each.certificate] = sums.get(each.certificate, _ZERO) + each.microjoules
        return sums

    @property
    def factors(self) -> list[Factor]:
        """The rows of factor tables that were used as residual mixes, each once, by id."""
        rows = {mix.factor.id: mix.factor for mix, _ in self.mixes if mix.factor is not None}
        return [rows[name] for name in sorted(rows)]


@dataclass(frozen=True, slots=True)
class Used:
    """What a statement used of certificates; site None: it is of all sites."""

    from_seconds: int
    to_seconds: int
    site: str | None
    used: Mapping[Certificate, Fraction]


def used_by_others(
    statements: Iterable[Used], from_seconds: int, to_seconds: int, site: str | None
) -> dict[Certificate, Fraction]:
    """What is gone for a period and site (None: all): used by statements of other periods, or of other sites.

    A statement whose period and sites both overlap those that are asked for speaks of the same energy, so that it takes
    nothing away.
    """
    sums: dict[Certificate, Fraction] = {}
    for statement in statements:
        is_same_time = statement.from_seconds < to_seconds and from_seconds < statement.to_seconds
        is_same_site = site is None or statement.site is None or statement.site == site
        if not (is_same_time and is_same_site):
            for certificate, microjoules in statement.used.items():
                sums[certificate] = sums.get(certificate, _ZERO) + microjoules
    return sums


def divide(amount: Fraction, parts: Sequence[Fraction]) -> list[Fraction]:
    """Divide an amount in proportion to parts, exactly in sum: largest remainders, earlier parts first among equal ones.

    amount: in [0, sum of parts], which is above 0. In units of the parts' common denominator, so that sums of thousands of
    results stay short numbers; each result is at most its part where no part is below 0.
    """
    unit = lcm(amount.denominator, *(part.denominator for part in parts))
    whole = int(amount * unit)
    scaled = [int(part * unit) for part in parts]
    total = sum(scaled)
    shares = [whole * part // total for part in scaled]
    rest = whole - sum(shares)
    for place in sorted(range(len(parts)), key=lambda place: (-(whole * scaled[place] % total), place))[:rest]:
        shares[place] += 1
    return [Fraction(share, unit) for share in shares]


_Key = tuple[str, int | None]


class _Name(NamedTuple):
    """What the load of a slice has in common."""

    market: str
    hour: int | None
    site: str
    mix_from_seconds: int
    kind: FactorKind | None
    grams_per_kwh: Fraction | None

    @property
    def order(self) -> tuple[object, ...]:
        """An order in which no two kinds of nothing are compared."""
        kind = () if self.kind is None else (self.kind,)
        return self.market, self.hour or 0, self.site, self.mix_from_seconds, kind, self.grams_per_kwh or _ZERO


@dataclass(slots=True)
class _Slice:
    """Load of one site under one market, hour, residual mix and grid factor."""

    load: Load
    mix: Mix
    microjoules: Fraction = _ZERO


def reckon(
    loads: Iterable[Load],
    instruments: Instruments,
    mixes: Mixes,
    *,
    from_seconds: int,
    to_seconds: int,
    used: Mapping[Certificate, Fraction] | None = None,
) -> MarketBased:
    """The market-based figure of a period. used: what claims for other periods have taken of certificates.

    How callers cut the load has no part in the result: what shares site, market, hour, mix and factor is one.
    """
    slices: dict[_Name, _Slice] = {}
    sites: dict[str, Figure] = {}
    for load in loads:
        figure = sites.setdefault(load.site, Figure())
        if load.grams_per_kwh is not None and load.kind is not None:
            figure.add_location(load.kind, load.microjoules * load.grams_per_kwh / MICROJOULES_PER_KWH)
        if load.is_outside:
            _book_rest(figure, load, load.microjoules, Part.OUTSIDE_SCOPE_2)
            continue
        mix = mixes.at(load.market, load.at_seconds)
        hour = load.at_seconds - load.at_seconds % SECONDS_PER_HOUR if instruments.is_hourly else None
        name = _Name(load.market, hour, load.site, mix.from_seconds, load.kind, load.grams_per_kwh)
        slices.setdefault(name, _Slice(load, mix)).microjoules += load.microjoules
    groups: dict[_Key, dict[str, list[_Slice]]] = {}
    for name in sorted(slices, key=lambda name: name.order):
        groups.setdefault((name.market, name.hour), {}).setdefault(name.site, []).append(slices[name])
    load_sums = {
        (market, hour or 0): sum((each.microjoules for parts in group.values() for each in parts), _ZERO)
        for (market, hour), group in groups.items()
    }
    claim = instruments.claim((market for market, _ in groups), from_seconds, to_seconds)
    matching = match(instruments.certificates, claim, load_sums, used)
    covering = _by_rate(matching)
    for key, group in groups.items():
        for site, (covered, rates) in _cover_sites(group, covering.get(key, {})).items():
            _book_site(sites[site], group[site], covered, rates)
    total = Figure()
    for _, figure in sorted(sites.items()):
        _add_up(total, figure)
    all_mixes = {(each.mix.market, each.mix.from_seconds): each.mix for each in slices.values()}
    return MarketBased(instruments, matching, dict(sorted(sites.items())), total, all_mixes)


_Rate = tuple[Fraction, Counted]


def _by_rate(matching: Matching) -> dict[_Key, dict[_Rate, Fraction]]:
    """What certificates of one rate cover, by market and hour."""
    sums: dict[_Key, dict[_Rate, Fraction]] = {}
    for each in matching.allocated:
        certificate = each.certificate
        rate = (Fraction(certificate.grams_per_kwh or 0), Counted(certificate.boundary, certificate.gas))
        of_key = sums.setdefault((certificate.market, each.hour_seconds), {})
        of_key[rate] = of_key.get(rate, _ZERO) + each.microjoules
    return sums


def _cover_sites(
    group: Mapping[str, Sequence[_Slice]], covering: Mapping[_Rate, Fraction]
) -> dict[str, tuple[Fraction, list[tuple[_Rate, Fraction]]]]:
    """What of each site is covered, in all and by rate: certificates of each rate are divided by the loads still left."""
    names = list(group)
    left = [sum((each.microjoules for each in group[name]), _ZERO) for name in names]
    covered: dict[str, tuple[Fraction, list[tuple[_Rate, Fraction]]]] = {name: (_ZERO, []) for name in names}
    for rate, amount in sorted(covering.items()):
        shares = divide(amount, left)
        left = [before - share for before, share in zip(left, shares, strict=True)]
        for name, share in zip(names, shares, strict=True):
            whole, rates = covered[name]
            covered[name] = (whole + share, [*rates, (rate, share)])
    return covered


def _book_site(
    figure: Figure,
    slices: Sequence[_Slice],
    covered: Fraction,
    rates: Sequence[tuple[_Rate, Fraction]],
) -> None:
    """Book a site's load of one market and hour: what is covered at the certificates' rates, the rest of each slice."""
    shares = divide(covered, [each.microjoules for each in slices]) if covered else [_ZERO] * len(slices)
    # Where a site's grid factors count unlike things within one hour or year, the first says what an untyped rate counts.
    beside = next((counted(each.load.kind) for each in slices if each.load.kind is not None), slices[0].mix.counted)
    for (grams_per_kwh, stated), share in rates:
        if not share:
            continue
        grams = share * grams_per_kwh / MICROJOULES_PER_KWH
        figure.add(Part.CERTIFICATES, share, grams, stated.beside(beside))
    for each, share in zip(slices, shares, strict=True):
        rest, mix, kind = each.microjoules - share, each.mix, each.load.kind
        if not rest:
            continue
        if mix.grams_per_kwh is not None:
            grams = rest * Fraction(mix.grams_per_kwh) / MICROJOULES_PER_KWH
            of = mix.counted.beside(None if kind is None else counted(kind))
            figure.add(Part.RESIDUAL_MIX, rest, grams, of)
            figure.add_mix((mix.market, mix.from_seconds), rest, {of: grams})
        elif _book_rest(figure, each.load, rest, Part.STAND_IN):
            reason = (mix.market, mix.missing)
            figure.stand_ins[reason] = figure.stand_ins.get(reason, _ZERO) + rest


def _book_rest(figure: Figure, load: Load, microjoules: Fraction, part: Part) -> bool:
    """Book energy at its grid factor; without one it is uncovered, and False is returned."""
    if load.grams_per_kwh is None or load.kind is None:
        figure.add(Part.UNCOVERED, microjoules)
        return False
    figure.add(part, microjoules, microjoules * load.grams_per_kwh / MICROJOULES_PER_KWH, counted(load.kind))
    return True


def _add_up(total: Figure, figure: Figure) -> None:
    for part, microjoules in figure.energy.items():
        total.add(part, microjoules)
    for part, sums in figure.grams.items():
        for name, grams in sums.items():
            total.add(part, _ZERO, grams, name)
    for kind, grams in figure.location.items():
        total.add_location(kind, grams)
    for mix, microjoules in figure.mixes.items():
        total.add_mix(mix, microjoules, figure.mix_grams.get(mix, {}))
    for reason, microjoules in figure.stand_ins.items():
        total.stand_ins[reason] = total.stand_ins.get(reason, _ZERO) + microjoules
