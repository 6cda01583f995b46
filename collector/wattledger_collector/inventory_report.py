"""The inventory of a period: metered energy and what is declared become entries in scopes 1, 2 and 3, both ways.

Values in, exact values out; no clock, no file, no database. Sources of truth: `inventory.py` for scopes, `market.py` for the
market-based figure, `accounting.py` for the join of energy and factors, `embodied.py` for hardware.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.certificates import Certificate, Matching
from wattledger_collector.declared import Declared, Holding, instruments_of
from wattledger_collector.facility import Facility
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import FactorKind, Gas, Gwp
from wattledger_collector.inventory import (
    ActivityFactor,
    Entry,
    InventoryError,
    Scope,
    Stream,
    Totals,
    activity_entry,
    network_losses_grams,
    total,
)
from wattledger_collector.market import MarketBased, Part
from wattledger_collector.market_load import LoadSums, MarketReckoning
from wattledger_collector.market_words import market_remarks
from wattledger_collector.records import MICROJOULES_PER_KWH, RollupRow
from wattledger_collector.residual_mixes import Counted, counted

_NO_GWP = Gwp.UNSTATED

# Activities that burn a fuel on the site, by the names under which facility.py knows their energy.
_FUELS = {
    "diesel_mineral": "diesel_litres",
    "diesel_average_blend": "diesel_litres",
    "gas_oil": "diesel_litres",
}

WATER = "water_supply"


@dataclass(slots=True)
class _Electricity:
    """A site's electricity under one holding; exact. grams are location based, of IT and overhead together."""

    it_microjoules: Fraction = Fraction(0)
    facility_microjoules: Fraction = Fraction(0)
    it_grams: Fraction = Fraction(0)
    grams: Fraction = Fraction(0)
    losses_grams: Fraction = Fraction(0)
    uncovered_microjoules: Fraction = Fraction(0)
    # Grams by stream, of energy that has a factor; and the same energy.
    streams: dict[Stream, Fraction] = field(default_factory=dict)
    energy: dict[Stream, Fraction] = field(default_factory=dict)

    def add(self, stream: Stream, microjoules: Fraction, grams: Fraction) -> None:
        """Book electricity under a stream."""
        self.energy[stream] = self.energy.get(stream, Fraction(0)) + microjoules
        self.streams[stream] = self.streams.get(stream, Fraction(0)) + grams


@dataclass(frozen=True, slots=True)
class SiteRatios:
    """What a site used for each kWh of its IT, over the period: PUE, CUE in grams and WUE in litres a kWh of IT energy.

    pue: with the energy of fuels that were burnt. water: None where none was declared. Sites without IT energy have none.
    """

    site: str
    pue: Fraction
    cue_grams_per_kwh: Fraction
    wue_litres_per_kwh: Fraction | None


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """An inventory with all that it rests on.

    market: scope 2, market based, of all that has a holding. uncovered_microjoules: energy without a
    factor, in no figure. undeclared: sites with energy and no holding, in no figure. amortised_grams: the other view of
    hardware, for rates, never added to the total. kinds: of the factors used; remarks: what a reader has to know.
    """

    declared: Declared
    from_seconds: int
    to_seconds: int
    entries: tuple[Entry, ...]
    totals: Totals
    market: MarketBased
    uncovered_microjoules: Fraction
    undeclared: Mapping[str, int]
    amortised_grams: Fraction
    kinds: tuple[FactorKind, ...]
    remarks: tuple[str, ...]
    ratios: tuple[SiteRatios, ...]

    @property
    def matching(self) -> Matching:
        """What certificates cover."""
        return self.market.matching

    @property
    def renewable_ratio(self) -> Fraction | None:
        """REF: certified electricity in all of scope 2; None without any."""
        return self.matching.covered_ratio


def draw_up(
    declared: Declared,
    certificates: Sequence[Certificate],
    activities: Iterable[ActivityFactor],
    rollups: Iterable[RollupRow],
    finder: BasisFinder,
    *,
    from_seconds: int,
    to_seconds: int,
    interval_seconds: int,
    catalog: FactorCatalog | None = None,
    used: Mapping[Certificate, Fraction] | None = None,
) -> InventoryReport:
    """Draw up the inventory of a period. Raises InventoryError.

    rollups: those of the period, or their sums by pieces that end at the edges of the load. catalog: where residual mixes
    that are not declared are looked up. used: what claims for other periods have taken of certificates; microjoules.
    """
    factors = {factor.activity: factor for factor in activities}
    instruments = instruments_of(declared, certificates)
    reckoning = MarketReckoning(declared, instruments, finder, catalog, interval_seconds)
    electricity, kinds, undeclared = _electricity(declared, rollups, finder, interval_seconds, reckoning.sums)
    market = reckoning.reckon(from_seconds, to_seconds, used)
    _check_counted({counted(kind) for kind in kinds}.union(market.total.totals), declared)
    entries = [
        *_electric_entries(declared, electricity, market),
        *_activity_entries(declared, factors, from_seconds, to_seconds),
    ]
    assets = [each.asset for each in declared.hardware]
    for asset in assets:
        if grams := asset.purchased(from_seconds, to_seconds):
            entries.append(_plain(asset.asset, Scope.CAPITAL_GOODS, "hardware bought", grams))
    return InventoryReport(
        declared=declared,
        from_seconds=from_seconds,
        to_seconds=to_seconds,
        entries=tuple(entries),
        totals=total(entries),
        market=market,
        uncovered_microjoules=sum((part.uncovered_microjoules for part in electricity.values()), Fraction(0)),
        undeclared=undeclared,
        amortised_grams=sum((asset.amortised(from_seconds, to_seconds) for asset in assets), Fraction(0)),
        kinds=tuple(sorted(kinds)),
        remarks=tuple(_remarks(market, kinds, undeclared)),
        ratios=tuple(_ratios(declared, electricity, factors, from_seconds, to_seconds)),
    )


def _electricity(
    declared: Declared, rollups: Iterable[RollupRow], finder: BasisFinder, interval_seconds: int, sums: LoadSums
) -> tuple[dict[Holding, _Electricity], set[FactorKind], dict[str, int]]:
    parts: dict[Holding, _Electricity] = {}
    kinds: set[FactorKind] = set()
    undeclared: dict[str, int] = {}
    losses = {each.zone: each for each in declared.network}
    for row in rollups:
        holding = _holding(declared, row.site, row.interval_start_seconds)
        if holding is None:
            undeclared[row.site] = undeclared.get(row.site, 0) + row.energy_microjoules
            continue
        sums.add(row)
        part = parts.setdefault(holding, _Electricity())
        begin = row.interval_start_seconds
        for basis, seconds in finder.split(row.site, begin, begin + interval_seconds):
            energy = Fraction(row.energy_microjoules * seconds, interval_seconds)
            part.it_microjoules += energy
            if basis.factor is None or basis.pue is None:
                part.uncovered_microjoules += energy
                if basis.pue is not None:
                    # Certificates and residual mixes have rates of their own.
                    part.add(Stream.IT_ELECTRICITY, energy, Fraction(0))
                    part.add(Stream.OVERHEAD_ELECTRICITY, energy * (Fraction(basis.pue) - 1), Fraction(0))
                begin += seconds
                continue
            pue, factor = Fraction(basis.pue), basis.factor
            kinds.add(factor.kind)
            grams = energy * Fraction(factor.value) / MICROJOULES_PER_KWH
            part.facility_microjoules += energy * pue
            part.it_grams += grams
            part.grams += grams * pue
            part.add(Stream.IT_ELECTRICITY, energy, grams)
            part.add(Stream.OVERHEAD_ELECTRICITY, energy * (pue - 1), grams * (pue - 1))
            if basis.zone in losses:
                loss = losses[basis.zone]
                part.losses_grams += network_losses_grams(
                    energy * pue / MICROJOULES_PER_KWH,
                    Fraction(factor.value),
                    Fraction(loss.ratio),
                    loss.of,
                    includes_td=factor.includes_td,
                )
            begin += seconds
    return parts, kinds, undeclared


def _holding(declared: Declared, site: str, at_seconds: int) -> Holding | None:
    for holding in declared.holding:
        if holding.site == site and holding.asset.from_seconds <= at_seconds < holding.asset.to_seconds:
            return holding
    return None


def _electric_entries(
    declared: Declared, electricity: Mapping[Holding, _Electricity], market: MarketBased
) -> Iterable[Entry]:
    """Entries of electricity; a site's market-based figure is divided among its entries by their location-based grams.

    Where those are all 0 (energy without a grid factor that certificates cover, say) it is divided by energy.
    """
    entries = [
        (holding, holding.asset.scope(declared.approach, stream), stream, part.streams[stream], part.energy[stream])
        for holding, part in electricity.items()
        for stream in part.streams
    ]
    whole: dict[str, Fraction] = {}
    energy: dict[str, Fraction] = {}
    for holding, scope, _, grams, microjoules in entries:
        if scope is Scope.TWO:
            whole[holding.site] = whole.get(holding.site, Fraction(0)) + grams
            energy[holding.site] = energy.get(holding.site, Fraction(0)) + microjoules
    for holding, scope, stream, grams, microjoules in entries:
        told = grams
        if scope is Scope.TWO:
            in_scope = _scope_two_grams(market, holding.site)
            if whole[holding.site]:
                told = in_scope * grams / whole[holding.site]
            elif energy[holding.site]:
                told = in_scope * microjoules / energy[holding.site]
        if grams or told:
            yield Entry(holding.site, scope, stream, grams, told, _NO_GWP, "metered energy x factor")
    for holding, part in electricity.items():
        if part.losses_grams:
            yield _plain(holding.site, Scope.FUEL_AND_ENERGY, "network losses", part.losses_grams)


def _scope_two_grams(market: MarketBased, site: str) -> Fraction:
    """A site's market-based grams in scope 2; what they count was checked to be alike."""
    figure = market.sites.get(site)
    parts = {} if figure is None else figure.grams
    outside = Part.OUTSIDE_SCOPE_2
    return sum((sum(grams.values(), Fraction(0)) for part, grams in parts.items() if part is not outside), Fraction(0))


def _activity_entries(
    declared: Declared, factors: Mapping[str, ActivityFactor], from_seconds: int, to_seconds: int
) -> Iterable[Entry]:
    for activity in declared.activity:
        factor = factors.get(activity.activity)
        if factor is None:
            raise InventoryError(
                f"there is no factor for the activity {activity.activity!r}: the table has {', '.join(sorted(factors))}"
            )
        holding = _holding(declared, activity.site, activity.at_seconds)
        if holding is None:
            raise InventoryError(
                f"{activity.activity} on {activity.on}: the site {activity.site!r} was not held on that day"
            )
        if from_seconds <= activity.at_seconds < to_seconds:
            yield activity_entry(holding.asset, activity.used, factor, declared.approach)


def _ratios(
    declared: Declared,
    electricity: Mapping[Holding, _Electricity],
    factors: Mapping[str, ActivityFactor],
    from_seconds: int,
    to_seconds: int,
) -> Iterable[SiteRatios]:
    """The ratios of ISO/IEC 30134 of each site whose energy all has a factor."""
    sites: dict[str, list[_Electricity]] = {}
    for holding, part in electricity.items():
        sites.setdefault(holding.site, []).append(part)
    for site, parts in sorted(sites.items()):
        it = sum((part.it_microjoules for part in parts), Fraction(0))
        if it <= 0 or any(part.uncovered_microjoules for part in parts):
            continue
        used = [each for each in declared.activity if each.site == site and from_seconds <= each.at_seconds < to_seconds]
        fuels: dict[str, Fraction] = {}
        grams = sum((part.grams for part in parts), Fraction(0))
        for each in used:
            if each.activity in _FUELS:
                fuel = _FUELS[each.activity]
                fuels[fuel] = fuels.get(fuel, Fraction(0)) + each.used
                grams += each.used * Fraction(factors[each.activity].grams_per_unit)
        cubic_metres = [each.used for each in used if each.activity == WATER]
        facility = Facility(
            electricity_microjoules=round(sum((part.facility_microjoules for part in parts), Fraction(0))),
            it_microjoules=round(it),
            fuels=fuels,
            water_litres=sum(cubic_metres, Fraction(0)) * 1000,
        )
        water = facility.wue_litres_per_kwh if cubic_metres else None
        yield SiteRatios(site, facility.pue, facility.cue_grams_per_kwh(grams), water)


def _check_counted(found: set[Counted], declared: Declared) -> None:
    """Raise InventoryError where the rates that were used, of the grid and of residual mixes, count unlike things."""
    types = {(each.boundary, each.gwp) for each in found if each.boundary or each.gas}
    if len(types) > 1:
        names = "; ".join(sorted(map(str, found)))
        raise InventoryError(f"factors of unlike types can't be added ({names}): choose one type for all sites and mixes")
    if any(each.gas == Gas.CO2 for each in found) and not declared.co2_as_co2e:
        raise InventoryError(
            "a grid factor is of CO2 alone and the inventory is in CO2e: choose a factor in CO2e, or declare "
            "`co2_as_co2e = true`, which the result then says"
        )


def _remarks(market: MarketBased, kinds: set[FactorKind], undeclared: Mapping[str, int]) -> Iterable[str]:
    yield from market_remarks(market)
    if any(kind.gas is Gas.CO2 for kind in kinds):
        yield "grid factors of CO2 alone stand for CO2e, as declared"
    for site in sorted(undeclared):
        yield f"site {site} has no [[holding]]: its energy is in no figure"
    for refused in market.matching.refused:
        yield f"certificate {refused.certificate.certificate} refused, {refused.refusal}: {refused.text}"


def _plain(asset: str, scope: Scope, stream: str, grams: Fraction) -> Entry:
    return Entry(asset, scope, stream, grams, grams, _NO_GWP, "declared")
