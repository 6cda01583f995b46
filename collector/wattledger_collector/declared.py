"""What an organisation declares beside its meters: how it has its sites, what it burnt, bought and retired.

Text in, checked values out; no clock, no file, no sums (see `inventory_report.py`). Sources of truth: the GHG Protocol's
Corporate, Scope 2 and Scope 3 standards. Every entry names its evidence, since an auditor asks for it.
"""

import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from wattledger_collector.certificates import Certificate
from wattledger_collector.embodied import SECONDS_PER_SERVICE_YEAR
from wattledger_collector.embodied import Asset as EmbodiedAsset
from wattledger_collector.factors import Boundary, Gas
from wattledger_collector.inventory import (
    Approach,
    Asset,
    InventoryError,
    Losses,
    Situation,
    check_assets,
    leased_amount,
    leased_share,
)
from wattledger_collector.market import Instruments
from wattledger_collector.residual_mixes import ALWAYS_FROM_SECONDS, ALWAYS_TO_SECONDS, Counted, DeclaredMix

SECONDS_PER_DAY = 86_400

# A site for each day of thirty years; more is a list of something else.
ENTRIES_MAX = 10_000


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Holding(_Strict, frozen=True):
    """How a site of the ledger is had, from one day (UTC) to another, the last not included; open ends where left out.

    market: the electricity market that its certificates have to be of; the site's zone where left out.
    """

    site: str
    situation: Situation
    evidence: str
    has_control: bool = False
    market: str = ""
    since: date | None = msgspec.field(name="from", default=None)
    until: date | None = msgspec.field(name="to", default=None)

    @property
    def asset(self) -> Asset:
        """The same as an asset of the inventory."""
        begin = -(2**62) if self.since is None else _seconds(self.since)
        end = 2**62 if self.until is None else _seconds(self.until)
        return Asset(self.site, self.situation, self.has_control, begin, end, self.evidence)


class Building(_Strict, frozen=True):
    """A building of which an organisation has a part: areas in one unit, and the part of the whole that is let.

    rounded_digits: round the part of an amount to so many decimals first, to reproduce a figure that was published so.
    """

    own_area: Decimal
    whole_area: Decimal
    let_ratio: Decimal = Decimal(1)
    rounded_digits: Annotated[int, msgspec.Meta(ge=0, le=6)] | None = None


class Activity(_Strict, frozen=True):
    """So much of an activity at a site, on a day: fuel burnt, refrigerant leaked, water bought.

    building: the amount is that of a whole building, of which this part counts.
    """

    site: str
    activity: str
    amount: Decimal
    on: date
    evidence: str
    building: Building | None = None

    @property
    def used(self) -> Fraction:
        """The organisation's own amount. Raises InventoryError where its area is no part of the building."""
        if self.building is None:
            return Fraction(self.amount)
        own, whole, let = self.building.own_area, self.building.whole_area, self.building.let_ratio
        share = leased_share(Fraction(own), Fraction(whole), Fraction(let))
        return leased_amount(Fraction(self.amount), share, self.building.rounded_digits)

    @property
    def at_seconds(self) -> int:
        """The day's beginning in UTC."""
        return _seconds(self.on)


class Network(_Strict, frozen=True):
    """Losses of transmission and distribution in a grid zone; ratio of what was generated, or of what was delivered."""

    zone: str
    ratio: Decimal
    of: Losses
    evidence: str


class Hardware(_Strict, frozen=True):
    """Machines that were bought: kilograms CO2e of making each, and how long they are to serve."""

    site: str
    name: str
    kilograms_each: Decimal
    count: Annotated[int, msgspec.Meta(ge=1)]
    in_service: date
    service_years: Decimal
    evidence: str

    @property
    def asset(self) -> EmbodiedAsset:
        """The same as an asset with embodied emissions; grams. Raises EmbodiedError."""
        life = int(Fraction(self.service_years) * SECONDS_PER_SERVICE_YEAR)
        return EmbodiedAsset(self.name, Fraction(self.kilograms_each) * 1000 * self.count, _seconds(self.in_service), life)


class Residual(_Strict, frozen=True):
    """The residual mix of a market; g/kWh; from one day (UTC) to another, the last not included; open ends where left out.

    gas, boundary: what it counts; left out: the same as the grid factor of the load.
    """

    market: str
    grams_per_kwh: Decimal
    evidence: str
    since: date | None = msgspec.field(name="from", default=None)
    until: date | None = msgspec.field(name="to", default=None)
    gas: Gas | None = None
    boundary: Boundary | None = None

    @property
    def mix(self) -> DeclaredMix:
        """The same with its time in seconds."""
        begin = ALWAYS_FROM_SECONDS if self.since is None else _seconds(self.since)
        end = ALWAYS_TO_SECONDS if self.until is None else _seconds(self.until)
        counted = Counted(self.boundary or "", self.gas or "")
        return DeclaredMix(self.market, self.grams_per_kwh, self.evidence, begin, end, counted)


class Certificates(_Strict, frozen=True):
    """Which registry files are claimed, in whose name, and how they are matched."""

    beneficiary: str
    files: tuple[str, ...]
    matching: Literal["yearly", "hourly"] = "yearly"
    vintage_before_days: Annotated[int, msgspec.Meta(ge=0, le=366)] = 0
    vintage_after_days: Annotated[int, msgspec.Meta(ge=0, le=366)] = 0
    # Registry and project of credits that are retired in the compensation book, so that a MWh is not claimed twice.
    offsets: tuple[str, ...] = ()


class Declared(_Strict, frozen=True):
    """The whole file.

    co2_as_co2e: let factors of CO2 alone stand for CO2e in sums, as national rules with no other factor ask; said on the
    result. Without it, unlike gases are an error.
    """

    organisation: str
    approach: Approach
    holding: tuple[Holding, ...]
    activity: tuple[Activity, ...] = ()
    network: tuple[Network, ...] = ()
    hardware: tuple[Hardware, ...] = ()
    residual: tuple[Residual, ...] = ()
    certificates: Certificates | None = None
    co2_as_co2e: bool = False


def parse_declared(text: str, where: str) -> Declared:
    """Check a TOML text whole. where: its name, for messages. Raises InventoryError."""
    try:
        declared = msgspec.convert(tomllib.loads(text, parse_float=Decimal), Declared)
    except tomllib.TOMLDecodeError as error:
        raise InventoryError(f"{where} is not valid TOML: {error}; mend that line") from error
    except msgspec.ValidationError as error:
        raise InventoryError(f"{where}: {error}; see the section on inventories in README.md") from error
    _check(declared, where)
    return declared


def instruments_of(declared: Declared | None, certificates: Iterable[Certificate]) -> Instruments:
    """What is declared for the market-based figure. certificates: of the registry files that are named."""
    if declared is None:
        return Instruments()
    mixes, claimed = tuple(residual.mix for residual in declared.residual), declared.certificates
    if claimed is None:
        return Instruments(mixes=mixes)
    return Instruments(
        certificates=tuple(certificates),
        beneficiary=claimed.beneficiary,
        is_hourly=claimed.matching == "hourly",
        vintage_before_seconds=claimed.vintage_before_days * SECONDS_PER_DAY,
        vintage_after_seconds=claimed.vintage_after_days * SECONDS_PER_DAY,
        offsets=frozenset(claimed.offsets),
        mixes=mixes,
    )


def _check(declared: Declared, where: str) -> None:
    lists = (declared.holding, declared.activity, declared.network, declared.hardware, declared.residual)
    if sum(map(len, lists)) > ENTRIES_MAX:
        raise InventoryError(f"{where} has more than {ENTRIES_MAX} entries: split it by organisation")
    if not declared.holding:
        raise InventoryError(f"{where} has no [[holding]]: say for each site how it is had")
    try:
        check_assets(holding.asset for holding in declared.holding)
    except InventoryError as error:
        raise InventoryError(f"{where}: {error}") from error
    sites = {holding.site for holding in declared.holding}
    for site in (*(each.site for each in declared.activity), *(each.site for each in declared.hardware)):
        if site not in sites:
            raise InventoryError(f"{where}: the site {site!r} has no [[holding]], so that its scope is unknown; add one")
    for activity in declared.activity:
        _check_activity(activity, f"{where}: {activity.activity} on {activity.on}")
    for hardware in declared.hardware:
        _at_least_zero(hardware.kilograms_each, f"{where}: {hardware.name}")
        if not 0 < hardware.service_years <= 50:
            raise InventoryError(
                f"{where}: {hardware.name} serves {hardware.service_years} years; write more than 0, up to 50"
            )
    for network in declared.network:
        if not (network.ratio.is_finite() and 0 <= network.ratio < 1):
            raise InventoryError(f"{where}: the losses of {network.zone} are {network.ratio}; write a share in [0, 1)")
    for residual in declared.residual:
        _at_least_zero(residual.grams_per_kwh, f"{where}: the residual mix of {residual.market}")
    names = [each.zone for each in declared.network]
    for name in names:
        if names.count(name) > 1:
            raise InventoryError(f"{where}: {name} is declared twice; keep one")
    _check_mixes([residual.mix for residual in declared.residual], where)


def _check_mixes(mixes: Sequence[DeclaredMix], where: str) -> None:
    """A market has one residual mix at any time."""
    for mix in mixes:
        if mix.to_seconds <= mix.from_seconds:
            raise InventoryError(f"{where}: the residual mix of {mix.market}: its time has to end after it begins")
    for one, other in pairwise(sorted(mixes, key=lambda mix: (mix.market, mix.from_seconds))):
        if one.market == other.market and other.from_seconds < one.to_seconds:
            raise InventoryError(
                f"{where}: the residual mix of {one.market} is declared twice for one time: end one where the other begins"
            )


def _check_activity(activity: Activity, where: str) -> None:
    _at_least_zero(activity.amount, where)
    if activity.building is None:
        return
    for name in ("own_area", "whole_area", "let_ratio"):
        _at_least_zero(getattr(activity.building, name), f"{where}: {name}")
    if activity.building.let_ratio > 1:
        raise InventoryError(f"{where}: let_ratio is {activity.building.let_ratio}: no more than all of a building is let")
    try:
        _ = activity.used
    except InventoryError as error:
        raise InventoryError(f"{where}: {error}") from error


def _at_least_zero(value: Decimal, where: str) -> None:
    if not value.is_finite() or value < 0:
        raise InventoryError(f"{where} is {value}: write a number of at least 0")


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
