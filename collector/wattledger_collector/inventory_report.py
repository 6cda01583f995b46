"""The inventory of a period: metered energy and what is declared become entries in scopes 1, 2 and 3, both ways.

Values in, exact values out; no clock, no file, no database. Sources of truth: `inventory.py` for scopes, `certificates.py`
for the market-based figure, `accounting.py` for the join of energy and factors, `embodied.py` for hardware.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.certificates import (
    SECONDS_PER_HOUR,
    Certificate,
    Claim,
    MarketBased,
    Matching,
    market_based,
    match,
)
from wattledger_collector.declared import Declared, Holding
from wattledger_collector.facility import Facility
from wattledger_collector.factors import FactorKind, Gas, Gwp
from wattledger_collector.inventory import (
    ActivityFactor,
    Asset,
    Entry,
    InventoryError,
    Scope,
    Stream,
    Totals,
    activity_entry,
    network_losses_grams,
    total,
)
from wattledger_collector.records import MICROJOULES_PER_KWH, RollupRow

SECONDS_PER_DAY = 86_400

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
    # Facility energy by market and hour, of what stands in scope 2.
    load: dict[tuple[str, int], Fraction] = field(default_factory=dict)
    scope_two_grams: dict[str, Fraction] = field(default_factory=dict)


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

    matching, market: of all scope 2 electricity; None where nothing is in scope 2. uncovered_microjoules: energy without a
    factor, in no figure. undeclared: sites with energy and no holding, in no figure. amortised_grams: the other view of
    hardware, for rates, never added to the total. kinds: of the factors used; remarks: what a reader has to know.
    """

    declared: Declared
    from_seconds: int
    to_seconds: int
    entries: tuple[Entry, ...]
    totals: Totals
    matching: Matching
    market: MarketBased
    uncovered_microjoules: Fraction
    undeclared: Mapping[str, int]
    amortised_grams: Fraction
    kinds: tuple[FactorKind, ...]
    remarks: tuple[str, ...]
    ratios: tuple[SiteRatios, ...]

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
) -> InventoryReport:
    """Draw up the inventory of a period. rollups: those of the period. Raises InventoryError."""
    factors = {factor.activity: factor for factor in activities}
    electricity, kinds, undeclared = _electricity(declared, rollups, finder, interval_seconds)
    _check_kinds(kinds, declared)
    load: dict[tuple[str, int], int] = {}
    average: dict[str, Fraction] = {}
    for part in electricity.values():
        for key, microjoules in part.load.items():
            load[key] = load.get(key, 0) + int(microjoules)
        for name, grams in part.scope_two_grams.items():
            average[name] = average.get(name, Fraction(0)) + grams
    matching = match(certificates, _claim(declared, load, from_seconds, to_seconds), load)
    residual = {each.market: each.grams_per_kwh for each in declared.residual}
    market = market_based(matching, residual, average)
    entries = [
        *_electric_entries(declared, electricity, market, average),
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
        matching=matching,
        market=market,
        uncovered_microjoules=sum((part.uncovered_microjoules for part in electricity.values()), Fraction(0)),
        undeclared=undeclared,
        amortised_grams=sum((asset.amortised(from_seconds, to_seconds) for asset in assets), Fraction(0)),
        kinds=tuple(sorted(kinds)),
        remarks=tuple(_remarks(declared, matching, market, kinds, undeclared)),
        ratios=tuple(_ratios(declared, electricity, factors, from_seconds, to_seconds)),
    )


def _electricity(
    declared: Declared, rollups: Iterable[RollupRow], finder: BasisFinder, interval_seconds: int
) -> tuple[dict[Holding, _Electricity], set[FactorKind], dict[str, int]]:
    parts: dict[Holding, _Electricity] = {}
    assets = {holding: holding.asset for holding in declared.holding}
    kinds: set[FactorKind] = set()
    undeclared: dict[str, int] = {}
    losses = {each.zone: each for each in declared.network}
    for row in rollups:
        holding = _holding(declared, row.site, row.interval_start_seconds)
        if holding is None:
            undeclared[row.site] = undeclared.get(row.site, 0) + row.energy_microjoules
            continue
        part = parts.setdefault(holding, _Electricity())
        asset, begin = assets[holding], row.interval_start_seconds
        for basis, seconds in finder.split(row.site, begin, begin + interval_seconds):
            energy = Fraction(row.energy_microjoules * seconds, interval_seconds)
            part.it_microjoules += energy
            if basis.factor is None or basis.pue is None:
                part.uncovered_microjoules += energy
                begin += seconds
                continue
            pue, factor = Fraction(basis.pue), basis.factor
            kinds.add(factor.kind)
            grams = energy * Fraction(factor.value) / MICROJOULES_PER_KWH
            part.facility_microjoules += energy * pue
            part.it_grams += grams
            part.grams += grams * pue
            if basis.zone in losses:
                loss = losses[basis.zone]
                part.losses_grams += network_losses_grams(
                    energy * pue / MICROJOULES_PER_KWH,
                    Fraction(factor.value),
                    Fraction(loss.ratio),
                    loss.of,
                    includes_td=factor.includes_td,
                )
            two = _in_scope_two(declared, asset, pue)
            if two:
                key = (holding.market or basis.zone or "", begin - begin % SECONDS_PER_HOUR)
                part.load[key] = part.load.get(key, Fraction(0)) + energy * two
                part.scope_two_grams[key[0]] = part.scope_two_grams.get(key[0], Fraction(0)) + grams * two
            begin += seconds
    return parts, kinds, undeclared


def _in_scope_two(declared: Declared, asset: Asset, pue: Fraction) -> Fraction:
    """How much electricity is in scope 2 for one unit of IT energy."""
    parts = ((Stream.IT_ELECTRICITY, Fraction(1)), (Stream.OVERHEAD_ELECTRICITY, pue - 1))
    return sum((amount for stream, amount in parts if asset.scope(declared.approach, stream) is Scope.TWO), Fraction(0))


def _holding(declared: Declared, site: str, at_seconds: int) -> Holding | None:
    for holding in declared.holding:
        if holding.site == site and holding.asset.from_seconds <= at_seconds < holding.asset.to_seconds:
            return holding
    return None


def _claim(declared: Declared, load: Mapping[tuple[str, int], int], from_seconds: int, to_seconds: int) -> Claim:
    markets = frozenset(market for market, _ in load)
    claimed = declared.certificates
    if claimed is None:
        return Claim("", markets, from_seconds, to_seconds)
    return Claim(
        beneficiary=claimed.beneficiary,
        markets=markets,
        from_seconds=from_seconds,
        to_seconds=to_seconds,
        vintage_before_seconds=claimed.vintage_before_days * SECONDS_PER_DAY,
        vintage_after_seconds=claimed.vintage_after_days * SECONDS_PER_DAY,
        is_hourly=claimed.matching == "hourly",
        offsets=frozenset(claimed.offsets),
    )


def _electric_entries(
    declared: Declared,
    electricity: Mapping[Holding, _Electricity],
    market: MarketBased,
    average: Mapping[str, Fraction],
) -> Iterable[Entry]:
    """Entries of electricity; scope 2's market-based figure is one for all sites, divided by their location-based ones."""
    whole = sum(average.values(), Fraction(0))
    ratio = market.grams / whole if whole else Fraction(1)
    for holding, part in electricity.items():
        asset = holding.asset
        streams = (
            (Stream.IT_ELECTRICITY, part.it_grams),
            (Stream.OVERHEAD_ELECTRICITY, part.grams - part.it_grams),
        )
        for stream, grams in streams:
            scope = asset.scope(declared.approach, stream)
            told = grams * ratio if scope is Scope.TWO else grams
            if grams:
                yield Entry(holding.site, scope, stream, grams, told, _NO_GWP, "metered energy x factor")
        if part.losses_grams:
            yield _plain(holding.site, Scope.FUEL_AND_ENERGY, "network losses", part.losses_grams)


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
            yield activity_entry(holding.asset, Fraction(activity.amount), factor, declared.approach)


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
                fuels[fuel] = fuels.get(fuel, Fraction(0)) + Fraction(each.amount)
                grams += Fraction(each.amount) * Fraction(factors[each.activity].grams_per_unit)
        cubic_metres = [Fraction(each.amount) for each in used if each.activity == WATER]
        facility = Facility(
            electricity_microjoules=round(sum((part.facility_microjoules for part in parts), Fraction(0))),
            it_microjoules=round(it),
            fuels=fuels,
            water_litres=sum(cubic_metres, Fraction(0)) * 1000,
        )
        water = facility.wue_litres_per_kwh if cubic_metres else None
        yield SiteRatios(site, facility.pue, facility.cue_grams_per_kwh(grams), water)


def _check_kinds(kinds: set[FactorKind], declared: Declared) -> None:
    types = {(kind.boundary, kind.gwp) for kind in kinds}
    if len(types) > 1:
        names = "; ".join(sorted(map(str, kinds)))
        raise InventoryError(f"factors of unlike types can't be added ({names}): choose one type for all sites")
    if any(kind.gas is Gas.CO2 for kind in kinds) and not declared.co2_as_co2e:
        raise InventoryError(
            "a grid factor is of CO2 alone and the inventory is in CO2e: choose a factor in CO2e, or declare "
            "`co2_as_co2e = true`, which the result then says"
        )


def _remarks(
    declared: Declared,
    matching: Matching,
    market: MarketBased,
    kinds: set[FactorKind],
    undeclared: Mapping[str, int],
) -> Iterable[str]:
    if not matching.allocated and not declared.residual:
        yield "no instruments and no residual mix: the market-based figure is the location-based one"
    elif market.stand_ins:
        yield f"no residual mix for {', '.join(market.stand_ins)}: the grid average stands in for it"
    if any(kind.gas is Gas.CO2 for kind in kinds):
        yield "grid factors of CO2 alone stand for CO2e, as declared"
    for site in sorted(undeclared):
        yield f"site {site} has no [[holding]]: its energy is in no figure"
    for refused in matching.refused:
        yield f"certificate {refused.certificate.certificate} refused, {refused.refusal}: {refused.text}"


def _plain(asset: str, scope: Scope, stream: str, grams: Fraction) -> Entry:
    return Entry(asset, scope, stream, grams, grams, _NO_GWP, "declared")
