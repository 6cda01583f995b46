"""Energy attribute certificates and contracts: which of them may be claimed, for how much, in which hour.

Values in, exact values out; no clock, no file. Sources of truth: the GHG Protocol Scope 2 Guidance (2015) for the quality
criteria and the hierarchy of market-based factors; EnergyTag's granular certificate scheme for Wh volumes, rounded down,
and intervals of an hour or less; China's notice of 2024-08-26 (a certificate or a CCER for a MWh, not both) and the end of
I-REC(E) for Chinese generation after 2024.

A certificate covers load of its own market alone. Matched by year, volume counts; matched by hour, only the load of the
hours in which it was generated, and what is left over is never carried to another hour. A volume that was claimed for
another period is gone, and the rest of its certificate remains. What the figure is with certificates is said in `market.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from wattledger_collector.records import MICROJOULES_PER_KWH

MICROJOULES_PER_WH = MICROJOULES_PER_KWH // 1000
SECONDS_PER_HOUR = 3600

# From the first hour of 2025 in China's time zone, its generation gets no I-REC(E) any more.
_IREC_CHINA_ENDS_SECONDS = int(datetime(2024, 12, 31, 16, tzinfo=UTC).timestamp())


class Kind(StrEnum):
    """What conveys the claim."""

    REC = "REC"
    GO = "GO"
    I_REC = "I-REC"
    GEC = "GEC"
    # A granular certificate: a Wh volume in an hour or less.
    GRANULAR = "granular"
    PPA = "PPA"
    SUPPLIER = "supplier"


class Refusal(StrEnum):
    """Why a certificate counts for nothing."""

    SERIAL_USED_TWICE = "serial_used_twice"
    OTHER_MARKET = "other_market"
    VINTAGE_OUTSIDE = "vintage_outside"
    HOUR_MISMATCH = "hour_mismatch"
    NOT_RETIRED = "not_retired"
    OTHER_BENEFICIARY = "other_beneficiary"
    OFFSET_FOR_SAME_MWH = "offset_for_same_mwh"
    IREC_CHINA_AFTER_2024 = "irec_china_after_2024"
    NO_EMISSION_RATE = "no_emission_rate"
    VOLUME_ABOVE_SERIALS = "volume_above_serials"
    # Claims for other periods took all of its volume.
    USED_UP = "used_up"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One row of the registry.

    certificate: its name in this registry. serial_prefix, serial_first, serial_last: the range of serials, both ends
    included; contracts without serials have first = last = 0. from_seconds, to_seconds: generation, half-open, UTC.
    volume_wh: whole Wh. grams_per_kwh: the rate that it conveys; None if it conveys none. market: the grid market it is of.
    retired_for: the beneficiary; empty: not retired. offset: registry and project of a credit issued for the same MWh.
    gas, boundary: what its rate counts, in the words of factors; empty: the same as the grid factor of the load.
    """

    certificate: str
    kind: Kind
    registry: str
    serial_prefix: str
    serial_first: int
    serial_last: int
    market: str
    from_seconds: int
    to_seconds: int
    volume_wh: int
    grams_per_kwh: Decimal | None
    retired_for: str
    retired_on: str
    offset: str = ""
    evidence: str = ""
    gas: str = ""
    boundary: str = ""

    @property
    def identity(self) -> tuple[str, str, str, int, int]:
        """What makes it the same certificate in another claim: registry, name and serials."""
        return self.registry, self.certificate, self.serial_prefix, self.serial_first, self.serial_last

    @property
    def has_serials(self) -> bool:
        """Whether it is named by serials, which may be used once."""
        return self.serial_last > 0

    @property
    def microjoules(self) -> int:
        """What it can cover."""
        return self.volume_wh * MICROJOULES_PER_WH

    @property
    def is_hourly(self) -> bool:
        """Whether it was generated within one hour, so that it can be matched by hour."""
        begin = self.from_seconds - self.from_seconds % SECONDS_PER_HOUR
        return self.to_seconds <= begin + SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Claim:
    """For whom and for when certificates are claimed.

    beneficiary: in whose name they have to be retired. markets: in which there is load. from_seconds, to_seconds: the
    period.
    vintage_before_seconds, vintage_after_seconds: generation may lie this much outside of it, when matched by year.
    is_hourly: match by hour. offsets: the credits of the compensation book, as `registry project`.
    """

    beneficiary: str
    markets: frozenset[str]
    from_seconds: int
    to_seconds: int
    vintage_before_seconds: int = 0
    vintage_after_seconds: int = 0
    is_hourly: bool = False
    offsets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refused:
    """A certificate that counts for nothing, and a sentence that says why."""

    certificate: Certificate
    refusal: Refusal
    text: str


@dataclass(frozen=True, slots=True)
class Allocated:
    """So much of a certificate covers so much load of its market; hour_seconds: of which hour, None when matched by year."""

    certificate: Certificate
    hour_seconds: int | None
    microjoules: Fraction


@dataclass(frozen=True, slots=True)
class Matching:
    """What the certificates of a claim cover.

    load: microjoules by (market, hour). surplus: what accepted certificates had beyond the load; matched by hour it is lost,
    by year it may cover another period. used: what claims for other periods had taken of certificates.
    """

    load: Mapping[tuple[str, int], Fraction]
    allocated: tuple[Allocated, ...]
    refused: tuple[Refused, ...]
    surplus: tuple[tuple[Certificate, Fraction], ...]
    used: Mapping[Certificate, Fraction] = field(default_factory=dict)

    @property
    def load_microjoules(self) -> Fraction:
        """All load."""
        return sum(self.load.values(), Fraction(0))

    @property
    def covered_microjoules(self) -> Fraction:
        """Load that certificates cover."""
        return sum((each.microjoules for each in self.allocated), Fraction(0))

    @property
    def covered_ratio(self) -> Fraction | None:
        """Covered load in all load; None without load."""
        return self.covered_microjoules / self.load_microjoules if self.load_microjoules else None


@dataclass(slots=True)
class _Ranges:
    """Serials that were used, by registry and prefix; each range with the certificate that has it."""

    used: dict[tuple[str, str], list[Certificate]] = field(default_factory=dict)
    earlier: set[tuple[str, str, str, int, int]] = field(default_factory=set)

    def note(self, certificate: Certificate) -> None:
        """An earlier claim used some of it: it may be used again, another one with its serials may not."""
        self.earlier.add(certificate.identity)
        self.used.setdefault((certificate.registry, certificate.serial_prefix), []).append(certificate)

    def take(self, certificate: Certificate) -> str:
        """Note the serials; return the name of an earlier certificate that has one of them, else an empty text."""
        ranges = self.used.setdefault((certificate.registry, certificate.serial_prefix), [])
        for other in ranges:
            if certificate.serial_first <= other.serial_last and other.serial_first <= certificate.serial_last:
                if other.identity == certificate.identity and certificate.identity in self.earlier:
                    continue
                return other.certificate
        ranges.append(certificate)
        # A second row of the same name is another certificate, whatever it says.
        self.earlier.discard(certificate.identity)
        return ""


def match(
    certificates: Iterable[Certificate],
    claim: Claim,
    load: Mapping[tuple[str, int], Fraction],
    used: Mapping[Certificate, Fraction] | None = None,
) -> Matching:
    """Allocate certificates to load, each at most once, in the order of generation and name.

    load: microjoules by (market, start of the UTC hour in seconds); an hour below 0 is covered by nothing. used: microjoules
    that claims for other periods have taken of certificates.
    """
    left: dict[tuple[str, int | None], Fraction] = {}
    for (market, hour), microjoules in load.items():
        key = (market, hour if claim.is_hourly else None)
        left[key] = left.get(key, Fraction(0)) + microjoules
    ranges = _Ranges()
    before: dict[tuple[str, str, str, int, int], Fraction] = {}
    for certificate, taken in (used or {}).items():
        if certificate.identity not in before and certificate.has_serials:
            ranges.note(certificate)
        before[certificate.identity] = before.get(certificate.identity, Fraction(0)) + taken
    allocated: list[Allocated] = []
    refused: list[Refused] = []
    surplus: list[tuple[Certificate, Fraction]] = []
    for certificate in sorted(certificates, key=lambda each: (each.from_seconds, each.certificate)):
        available = certificate.microjoules - before.get(certificate.identity, Fraction(0))
        reason = _refusal(certificate, claim, ranges, available)
        if reason is not None:
            refused.append(Refused(certificate, *reason))
            continue
        begin = certificate.from_seconds - certificate.from_seconds % SECONDS_PER_HOUR if claim.is_hourly else None
        taken = min(max(left.get((certificate.market, begin), Fraction(0)), Fraction(0)), available)
        if taken:
            left[certificate.market, begin] -= taken
            allocated.append(Allocated(certificate, begin, taken))
        if taken < available:
            surplus.append((certificate, available - taken))
    return Matching(dict(load), tuple(allocated), tuple(refused), tuple(surplus), dict(used or {}))


def carbon_free_share(matching: Matching, grid_share: Mapping[tuple[str, int], Fraction]) -> Fraction | None:
    """The carbon-free energy score: contracted supply of the hour, and the grid's carbon-free share of the rest.

    grid_share: in [0, 1] by (market, hour); an hour without one counts as 0, so that the score is never too good. Hours
    weigh by their energy, and surplus of one hour is worth nothing in another. None without load. The matching has to be by
    hour. Formula: Google, "24/7 by 2030", 2021.
    """
    taken: dict[tuple[str, int], Fraction] = {}
    for each in matching.allocated:
        if each.hour_seconds is None:
            raise ValueError("a score needs certificates that were matched by hour")
        key = (each.certificate.market, each.hour_seconds)
        taken[key] = taken.get(key, Fraction(0)) + each.microjoules
    free = Fraction(0)
    for key, microjoules in matching.load.items():
        contracted = min(taken.get(key, Fraction(0)), microjoules)
        free += contracted + (microjoules - contracted) * grid_share.get(key, Fraction(0))
    return free / matching.load_microjoules if matching.load_microjoules else None


def whole_wh(watt_hours: Decimal) -> int:
    """A certificate's volume: Wh rounded down, so that fractions of a certificate are never claimed."""
    return int(watt_hours // 1)


def _refusal(certificate: Certificate, claim: Claim, ranges: _Ranges, available: Fraction) -> tuple[Refusal, str] | None:
    """Why a certificate may not be claimed; None if it may, and its serials are used then."""
    for check in (_of_retirement, _of_market, _of_time, _of_claims):
        reason = check(certificate, claim)
        if reason is not None:
            return reason
    if available <= 0:
        return Refusal.USED_UP, f"all of its {certificate.volume_wh} Wh were claimed for other periods"
    # Last, so that a certificate that is refused for another reason does not use up its serials.
    if certificate.has_serials and (before := ranges.take(certificate)):
        span = f"{certificate.serial_prefix}{certificate.serial_first} to {certificate.serial_last}"
        return Refusal.SERIAL_USED_TWICE, f"serials of {span} in {certificate.registry} are used by {before} already"
    return None


def _of_retirement(certificate: Certificate, claim: Claim) -> tuple[Refusal, str] | None:
    if not certificate.retired_for:
        return Refusal.NOT_RETIRED, "it is not retired, so that it could still be sold"
    if certificate.retired_for != claim.beneficiary:
        return Refusal.OTHER_BENEFICIARY, f"it was retired for {certificate.retired_for}, not for {claim.beneficiary}"
    return None


def _of_market(certificate: Certificate, claim: Claim) -> tuple[Refusal, str] | None:
    if certificate.market in claim.markets:
        return None
    known = ", ".join(sorted(claim.markets)) or "none"
    return Refusal.OTHER_MARKET, f"it is of the market {certificate.market}; the load is in {known}"


def _of_time(certificate: Certificate, claim: Claim) -> tuple[Refusal, str] | None:
    if claim.is_hourly and not certificate.is_hourly:
        return Refusal.HOUR_MISMATCH, "it was generated over more than one hour, so that no hour can be said to have it"
    before = 0 if claim.is_hourly else claim.vintage_before_seconds
    after = 0 if claim.is_hourly else claim.vintage_after_seconds
    if claim.from_seconds - before <= certificate.from_seconds and certificate.to_seconds <= claim.to_seconds + after:
        return None
    return Refusal.VINTAGE_OUTSIDE, "it was generated outside of the time for which it may be claimed"


def _of_claims(certificate: Certificate, claim: Claim) -> tuple[Refusal, str] | None:
    if certificate.offset and certificate.offset in claim.offsets:
        return Refusal.OFFSET_FOR_SAME_MWH, f"credits of {certificate.offset} are claimed for the same MWh"
    is_late = certificate.to_seconds > _IREC_CHINA_ENDS_SECONDS
    if certificate.kind is Kind.I_REC and certificate.market.partition("-")[0] == "CN" and is_late:
        return Refusal.IREC_CHINA_AFTER_2024, "I-REC(E) are not issued for Chinese generation after 2024-12-31"
    if certificate.grams_per_kwh is None:
        return Refusal.NO_EMISSION_RATE, "it conveys no emission rate"
    count = certificate.serial_last - certificate.serial_first + 1
    if certificate.has_serials and certificate.kind is not Kind.GRANULAR and certificate.volume_wh > count * 1_000_000:
        return Refusal.VOLUME_ABOVE_SERIALS, f"{count} serials of a MWh each can't be {certificate.volume_wh} Wh"
    return None
