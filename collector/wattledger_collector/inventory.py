"""The inventory: in which scope each emission stands, for each way to draw the boundary, and each asset in one scope alone.

Values in, exact values out; no clock, no file. Sources of truth: GHG Protocol Corporate Standard (approaches), Scope 2
Guidance (location and market side by side), Scope 3 Standard categories 1, 2, 3 and 8 (leased assets), ESRS E1 AR 47 (both
totals). Offsets and avoided emissions have no place here; they are in `books.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import floor
from typing import Final

from wattledger_collector.csv_table import TableError, read_table
from wattledger_collector.factors import Gwp

ACTIVITY_COLUMNS = (
    "activity", "unit", "grams_per_unit", "scope", "gas", "gwp", "year", "source", "document", "licence", "attribution",
)  # fmt: skip

# Some thousand activities for some ten years.
ACTIVITY_ROWS_MAX = 100_000


class InventoryError(ValueError):
    """An inventory can't be drawn up; the text says which asset or activity has which value, and what to do."""


class Approach(StrEnum):
    """How the boundary of an organisation is drawn."""

    OPERATIONAL_CONTROL = "operational_control"
    FINANCIAL_CONTROL = "financial_control"


class Situation(StrEnum):
    """How an organisation has its servers."""

    OWNED = "owned"
    LEASED = "leased"
    COLOCATED = "colocated"
    CLOUD = "cloud"


class Stream(StrEnum):
    """What emits at an asset."""

    IT_ELECTRICITY = "it_electricity"
    OVERHEAD_ELECTRICITY = "overhead_electricity"
    FUEL = "fuel"
    REFRIGERANT = "refrigerant"


class Scope(StrEnum):
    """Scopes, and of scope 3 the categories that a data centre meets."""

    ONE = "1"
    TWO = "2"
    PURCHASED_SERVICES = "3.1"
    CAPITAL_GOODS = "3.2"
    FUEL_AND_ENERGY = "3.3"
    LEASED_ASSETS = "3.8"

    @property
    def is_three(self) -> bool:
        """Whether it is a category of scope 3."""
        return self.value.startswith("3")


_OWN: Final = {
    Stream.IT_ELECTRICITY: Scope.TWO,
    Stream.OVERHEAD_ELECTRICITY: Scope.TWO,
    Stream.FUEL: Scope.ONE,
    Stream.REFRIGERANT: Scope.ONE,
}
_LESSOR: Final = dict.fromkeys(Stream, Scope.LEASED_ASSETS)
# A tenant who controls the racks buys their electricity; cooling, generators and refrigerants stay the landlord's.
_TENANT: Final = {**_LESSOR, Stream.IT_ELECTRICITY: Scope.TWO}
_SERVICE: Final = dict.fromkeys(Stream, Scope.PURCHASED_SERVICES)

# By approach, situation and whether control is claimed with evidence.
_SCOPES: Final[Mapping[tuple[Approach, Situation, bool], Mapping[Stream, Scope]]] = {
    (Approach.OPERATIONAL_CONTROL, Situation.OWNED, True): _OWN,
    (Approach.OPERATIONAL_CONTROL, Situation.OWNED, False): _OWN,
    (Approach.OPERATIONAL_CONTROL, Situation.LEASED, True): _OWN,
    (Approach.OPERATIONAL_CONTROL, Situation.LEASED, False): _LESSOR,
    (Approach.OPERATIONAL_CONTROL, Situation.COLOCATED, True): _TENANT,
    (Approach.OPERATIONAL_CONTROL, Situation.COLOCATED, False): _LESSOR,
    (Approach.OPERATIONAL_CONTROL, Situation.CLOUD, True): _SERVICE,
    (Approach.OPERATIONAL_CONTROL, Situation.CLOUD, False): _SERVICE,
    (Approach.FINANCIAL_CONTROL, Situation.OWNED, True): _OWN,
    (Approach.FINANCIAL_CONTROL, Situation.OWNED, False): _OWN,
    # A finance lease is on the balance sheet, an operating lease is not.
    (Approach.FINANCIAL_CONTROL, Situation.LEASED, True): _OWN,
    (Approach.FINANCIAL_CONTROL, Situation.LEASED, False): _LESSOR,
    (Approach.FINANCIAL_CONTROL, Situation.COLOCATED, True): _LESSOR,
    (Approach.FINANCIAL_CONTROL, Situation.COLOCATED, False): _LESSOR,
    (Approach.FINANCIAL_CONTROL, Situation.CLOUD, True): _SERVICE,
    (Approach.FINANCIAL_CONTROL, Situation.CLOUD, False): _SERVICE,
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A site or part of one, as an organisation has it in a half-open time; has_control: claimed with this evidence."""

    asset: str
    situation: Situation
    has_control: bool
    from_seconds: int
    to_seconds: int
    evidence: str

    def scope(self, approach: Approach, stream: Stream) -> Scope:
        """Where a stream of the asset stands; each has one scope for an approach."""
        return _SCOPES[approach, self.situation, self.has_control][stream]

    def share_of(self, from_seconds: int, to_seconds: int) -> Fraction:
        """The part of a period in which the asset was held: of a lease for part of a year, only its months count."""
        held = min(self.to_seconds, to_seconds) - max(self.from_seconds, from_seconds)
        return Fraction(max(held, 0), to_seconds - from_seconds)


def check_assets(assets: Iterable[Asset]) -> None:
    """Raise InventoryError if an asset is had in two ways at once, or claims control without evidence."""
    rows: dict[str, list[Asset]] = {}
    for asset in assets:
        if asset.to_seconds <= asset.from_seconds:
            raise InventoryError(f"asset {asset.asset}: its time has to end after it begins")
        if asset.has_control and not asset.evidence:
            raise InventoryError(f"asset {asset.asset}: control is claimed; name the contract that gives it as evidence")
        for other in rows.setdefault(asset.asset, []):
            if asset.from_seconds < other.to_seconds and other.from_seconds < asset.to_seconds:
                raise InventoryError(
                    f"asset {asset.asset} is both {other.situation} and {asset.situation} at one time: each asset stands in "
                    "one scope, so end one row where the other begins"
                )
        rows[asset.asset].append(asset)


@dataclass(frozen=True, slots=True)
class ActivityFactor:
    """Grams CO2e for a unit of what was used or leaked."""

    activity: str
    unit: str
    grams_per_unit: Decimal
    scope: Scope
    gwp: Gwp
    year: int
    source: str
    document: str
    licence: str
    attribution: str


def parse_activities(text: str, where: str) -> list[ActivityFactor]:
    """Read a table of activity factors, with the columns ACTIVITY_COLUMNS. Raises TableError."""
    factors = []
    for row in read_table(text, where, ACTIVITY_COLUMNS, ACTIVITY_ROWS_MAX):
        if row.cells["gas"] != "CO2e":
            raise TableError(f"{row.place} has gas {row.cells['gas']!r}: only CO2e can stand beside other activities")
        factors.append(
            ActivityFactor(
                activity=row.text("activity"),
                unit=row.text("unit"),
                grams_per_unit=row.decimal("grams_per_unit"),
                scope=row.choice("scope", Scope),
                gwp=row.choice("gwp", Gwp),
                year=row.whole("year"),
                source=row.text("source"),
                document=row.text("document"),
                licence=row.text("licence"),
                attribution=row.text("attribution"),
            )
        )
    return factors


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the inventory.

    location_grams, market_grams: equal but in scope 2, where contracts may differ from the grid. gwp: the set of warming
    potentials that is in the figure.
    """

    asset: str
    scope: Scope
    stream: str
    location_grams: Fraction
    market_grams: Fraction
    gwp: Gwp
    how: str


def activity_entry(asset: Asset, amount: Fraction, factor: ActivityFactor, approach: Approach) -> Entry:
    """Emissions of fuel that was burnt, refrigerant that leaked (by mass balance), or what lies upstream of them.

    The scope is the asset's; of what is upstream or bought, the factor's. Raises InventoryError for an amount below 0.
    """
    if amount < 0:
        raise InventoryError(f"asset {asset.asset}: {factor.activity} is {amount} {factor.unit}, below 0")
    scope = factor.scope
    if scope is Scope.ONE:
        stream = Stream.REFRIGERANT if factor.unit == "kilogram" else Stream.FUEL
        scope = asset.scope(approach, stream)
    grams = amount * Fraction(factor.grams_per_unit)
    how = f"{amount} {factor.unit} x {factor.grams_per_unit} g ({factor.source})"
    return Entry(asset.asset, scope, factor.activity, grams, grams, factor.gwp, how)


class Losses(StrEnum):
    """What a loss ratio is a ratio of."""

    GENERATED = "generated"
    DELIVERED = "delivered"


def network_losses_grams(
    energy_kwh: Fraction, generation_grams_per_kwh: Fraction, losses_ratio: Fraction, of: Losses, *, includes_td: bool
) -> Fraction:
    """Scope 3.3: what was generated to be lost on the way to a socket where `energy_kwh` arrived.

    generation_grams_per_kwh: of what was generated. Raises InventoryError where the factor holds losses already.
    """
    if includes_td:
        raise InventoryError("the grid factor includes network losses already: a second row would count them twice")
    if not 0 <= losses_ratio < 1:
        raise InventoryError(f"a loss of {float(losses_ratio):g} is no share of the whole in [0, 1)")
    if of is Losses.GENERATED:
        return energy_kwh * generation_grams_per_kwh * losses_ratio / (1 - losses_ratio)
    return energy_kwh * generation_grams_per_kwh * losses_ratio


def losses_of(generation_grams_per_kwh: Fraction, losses_grams_per_kwh: Fraction) -> Fraction:
    """The losses, as a share of what was generated, that are in a published factor for them."""
    return losses_grams_per_kwh / (generation_grams_per_kwh + losses_grams_per_kwh)


def leased_share(area: Fraction, building_area: Fraction, occupied_ratio: Fraction) -> Fraction:
    """A tenant's part of a building: its area over what is let. Raises InventoryError if that is more than all of it."""
    let = building_area * occupied_ratio
    if not let > 0 or not 0 <= area <= let:
        raise InventoryError(f"an area of {area} is no part of the {let} that are let")
    return area / let


def leased_amount(amount: Fraction, share: Fraction, published_digits: int | None = None) -> Fraction:
    """A tenant's part of what a whole building used or leaked, exact.

    published_digits: round it half up to so many decimals first, as worked examples do. That is for reproducing a figure
    that was published so, and for nothing else: one hundredth of a kilogram of refrigerant is kilograms of CO2e.
    """
    part = amount * share
    if published_digits is None:
        return part
    scale = 10**published_digits
    return Fraction(floor(part * scale + Fraction(1, 2)), scale)


@dataclass(frozen=True, slots=True)
class Totals:
    """An inventory's sums; grams CO2e, exact. by_scope: scope 2 as location-based."""

    by_scope: Mapping[Scope, Fraction]
    location_grams: Fraction
    market_grams: Fraction
    scope_two_market_grams: Fraction


def total(entries: Sequence[Entry]) -> Totals:
    """Sum an inventory, both ways. Raises InventoryError if unlike warming potentials would be added."""
    potentials = {entry.gwp for entry in entries if entry.gwp}
    if len(potentials) > 1:
        names = ", ".join(sorted(potentials))
        raise InventoryError(f"figures by {names} can't be added: use factors of one set of warming potentials")
    by_scope: dict[Scope, Fraction] = {}
    for entry in entries:
        by_scope[entry.scope] = by_scope.get(entry.scope, Fraction(0)) + entry.location_grams
        if entry.scope is not Scope.TWO and entry.location_grams != entry.market_grams:
            raise InventoryError(f"{entry.asset}, {entry.stream}: only scope 2 is told by contracts")
    zero = Fraction(0)
    return Totals(
        dict(sorted(by_scope.items())),
        sum((entry.location_grams for entry in entries), zero),
        sum((entry.market_grams for entry in entries), zero),
        sum((entry.market_grams for entry in entries if entry.scope is Scope.TWO), zero),
    )
