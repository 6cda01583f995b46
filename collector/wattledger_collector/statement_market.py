"""The part of a statement that tells scope 2 market based beside location based, with all that it was made of.

Values in, trees out and back; no clock, no database. Source of truth: `market.py` for the figure; `verify_market.py` reckons
it anew from the leaves and from what stands here. Microjoules and grams are exact fractions as text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from wattledger_collector.certificates import Certificate, Kind
from wattledger_collector.market import Figure, Instruments, MarketBased, Used
from wattledger_collector.market_load import Tenures
from wattledger_collector.market_words import market_remarks
from wattledger_collector.residual_mixes import Counted, DeclaredMix, Mix, Mixes
from wattledger_collector.statement_load import Span, Tenure
from wattledger_collector.statement_values import Tree, grams_tree

# What names a certificate in all statements.
Identity = tuple[str, str, str, int, int]


@dataclass(frozen=True, slots=True)
class UsedBefore:
    """What statements of other periods or sites used of certificates. by: their numbers, by the certificate's identity.

    newest: the newest statement when this was looked up; 0: there was none.
    """

    microjoules: Mapping[Certificate, Fraction] = field(default_factory=dict)
    by: Mapping[Identity, Sequence[int]] = field(default_factory=dict)
    newest: int = 0


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """The figure and what it was made of. files: of the declaration, with the digest of each. mixes: of all markets."""

    market: MarketBased
    files: Sequence[tuple[str, str]]
    tenures: Mapping[str, Sequence[Tenure]]
    mixes: Sequence[Mix]
    before: UsedBefore


def tenures_of(site: str, spans: Sequence[Span], declared: Tenures) -> list[Tenure]:
    """How a site is had over the spans of its bases; what is not declared is scope 2, in the market that is the zone."""
    edges = {edge for span in spans for edge in (span.from_seconds, span.to_seconds)}
    begin, end = min(edges), max(edges)
    edges |= {edge for edge in declared.edges() if begin < edge < end}
    tenures: list[Tenure] = []
    for since, until in pairwise(sorted(edges)):
        zone = next(span.zone for span in spans if span.from_seconds <= since < span.to_seconds)
        holding = declared.at(site, since)
        it, overhead = declared.shares(holding)
        told = ("", "") if holding is None else (str(holding.situation), holding.evidence)
        tenure = Tenure(site, since, until, declared.market(holding, zone), int(it), int(overhead), *told)
        if tenures and _is_alike(tenures[-1], tenure):
            tenure = Tenure(**{**asdict(tenure), "from_seconds": tenures.pop().from_seconds})
        tenures.append(tenure)
    return tenures


def _is_alike(one: Tenure, other: Tenure) -> bool:
    names = ("market", "it", "overhead", "situation", "evidence")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def mixes_of(markets: Iterable[str], mixes: Mixes, from_seconds: int, to_seconds: int) -> list[Mix]:
    """The residual mixes of markets over a period, in order; without holes, also where there is none."""
    found = []
    for market in sorted(set(markets)):
        at = from_seconds
        while at < to_seconds:
            mix = mixes.at(market, at)
            found.append(mix)
            at = mix.to_seconds
    return found


def market_tree(facts: MarketFacts, from_seconds: int, to_seconds: int) -> Tree:
    """The section."""
    market, instruments = facts.market, facts.market.instruments
    matching = market.matching
    return {
        "method": "GHG Protocol Scope 2 Guidance (2015)",
        "is_location_based": market.is_location_based,
        "remarks": list(market_remarks(market)),
        "files": [{"name": name, "sha256": digest} for name, digest in facts.files],
        "claim": {
            "beneficiary": instruments.beneficiary,
            "matching": "hourly" if instruments.is_hourly else "yearly",
            "vintage_before_seconds": instruments.vintage_before_seconds,
            "vintage_after_seconds": instruments.vintage_after_seconds,
            "offsets": sorted(instruments.offsets),
        },
        "tenures": [asdict(tenure) for _, own in sorted(facts.tenures.items()) for tenure in own],
        "mixes": [_mix_tree(mix, from_seconds, to_seconds) for mix in facts.mixes],
        "load": [
            {"market": name, "hour_seconds": hour if instruments.is_hourly else None, "microjoules": str(energy)}
            for (name, hour), energy in sorted(matching.load.items())
            if energy
        ],
        "claimed": [
            {
                "certificate": each.certificate.certificate,
                "hour_seconds": each.hour_seconds,
                "microjoules": str(each.microjoules),
            }
            for each in matching.allocated
        ],
        "used_before": _used_trees(facts),
        "refused": [
            {"certificate": each.certificate.certificate, "code": str(each.refusal), "text": each.text}
            for each in matching.refused
        ],
        "stand_ins": [
            {"market": name, "reason": reason, "microjoules": str(energy)}
            for (name, reason), energy in sorted(market.stand_ins.items())
        ],
        "all": _figure_tree(market.total),
        "sites": [{"site": site, **_figure_tree(figure)} for site, figure in sorted(market.sites.items())],
    }


def _mix_tree(mix: Mix, from_seconds: int, to_seconds: int) -> Tree:
    return {
        "market": mix.market,
        "from_seconds": max(mix.from_seconds, from_seconds),
        "to_seconds": min(mix.to_seconds, to_seconds),
        "grams_per_kwh": None if mix.grams_per_kwh is None else f"{mix.grams_per_kwh:f}",
        **_counted_tree(mix.counted),
        "source": mix.source,
        "evidence": mix.evidence,
        "factor": None if mix.factor is None else mix.factor.id,
        "provisional": mix.provisional,
        "missing": mix.missing,
    }


def _counted_tree(counted: Counted) -> Tree:
    return {"boundary": str(counted.boundary), "gas": str(counted.gas), "gwp": str(counted.gwp)}


def _used_trees(facts: MarketFacts) -> list[Tree]:
    """What was used before of the certificates that are claimed now, and of those that share serials with them."""
    own = facts.market.instruments.certificates
    identities = {each.identity for each in own}
    registries = {(each.registry, each.serial_prefix) for each in own if each.has_serials}
    sums: dict[Identity, Fraction] = {}
    for certificate, microjoules in facts.before.microjoules.items():
        is_near = certificate.has_serials and (certificate.registry, certificate.serial_prefix) in registries
        if certificate.identity in identities or is_near:
            sums[certificate.identity] = sums.get(certificate.identity, Fraction(0)) + microjoules
    return [
        {
            "registry": identity[0],
            "certificate": identity[1],
            "serial_prefix": identity[2],
            "serial_first": str(identity[3]),
            "serial_last": str(identity[4]),
            "microjoules": str(microjoules),
            "statements": sorted(facts.before.by.get(identity, ())),
        }
        for identity, microjoules in sorted(sums.items())
    ]


def _figure_tree(figure: Figure) -> Tree:
    # A certificate of which nothing fell to a site has no part there.
    parts = [
        (part, energy, figure.grams.get(part, {}))
        for part, energy in sorted(figure.energy.items())
        if energy or any(figure.grams.get(part, {}).values())
    ]
    totals: dict[Counted, Fraction] = {}
    for _, _, grams in parts:
        for counted, amount in grams.items():
            totals[counted] = totals.get(counted, Fraction(0)) + amount
    return {
        "parts": [{"part": str(part), "microjoules": str(energy), "grams": _sums(grams)} for part, energy, grams in parts],
        "market_based": _sums(totals),
        "location_based": _sums(figure.location_totals),
    }


def _sums(grams: Mapping[Counted, Fraction]) -> list[Tree]:
    return [{**_counted_tree(counted), "grams": grams_tree(amount)} for counted, amount in sorted(grams.items())]


# -- Back from a statement


def certificates_of_tree(statement: Tree) -> tuple[Certificate, ...]:
    """The certificates that a statement was made with."""
    return tuple(
        Certificate(
            **{
                **row,
                "kind": Kind(row["kind"]),
                **{name: int(row[name]) for name in ("serial_first", "serial_last", "volume_wh")},
                "grams_per_kwh": None if row["grams_per_kwh"] is None else Decimal(row["grams_per_kwh"]),
            }
        )
        for row in statement["instruments"]["rows"]
    )


def used_of_tree(statement: Tree) -> Used:
    """What a statement used of certificates; those of the first form used none."""
    period = statement["period"]
    used: dict[Certificate, Fraction] = {}
    claimed = statement.get("market", {}).get("claimed", ())
    if claimed:
        by_name = {each.certificate: each for each in certificates_of_tree(statement)}
        for each in claimed:
            certificate = by_name[each["certificate"]]
            used[certificate] = used.get(certificate, Fraction(0)) + Fraction(each["microjoules"])
    return Used(period["from_seconds"], period["to_seconds"], statement["boundary"]["site"], used)


def instruments_of_tree(statement: Tree) -> Instruments:
    """What a statement's market-based figure was made with; its residual mixes as declared ones."""
    market = statement["market"]
    claim = market["claim"]
    return Instruments(
        certificates=certificates_of_tree(statement),
        beneficiary=claim["beneficiary"],
        is_hourly=claim["matching"] == "hourly",
        vintage_before_seconds=claim["vintage_before_seconds"],
        vintage_after_seconds=claim["vintage_after_seconds"],
        offsets=frozenset(claim["offsets"]),
        mixes=tuple(
            DeclaredMix(
                row["market"],
                Decimal(row["grams_per_kwh"]),
                row["evidence"],
                row["from_seconds"],
                row["to_seconds"],
                Counted(row["boundary"], row["gas"], row["gwp"]),
            )
            for row in market["mixes"]
            if row["grams_per_kwh"] is not None
        ),
    )


def used_before_of_tree(statement: Tree) -> dict[Certificate, Fraction]:
    """What was used of a statement's certificates before it."""
    by_identity = {each.identity: each for each in certificates_of_tree(statement)}
    used: dict[Certificate, Fraction] = {}
    for row in statement["market"]["used_before"]:
        names = (row["registry"], row["certificate"], row["serial_prefix"])
        certificate = by_identity.get((*names, int(row["serial_first"]), int(row["serial_last"])))
        if certificate is not None:
            used[certificate] = Fraction(row["microjoules"])
    return used


def tenures_of_tree(statement: Tree) -> dict[str, list[Tenure]]:
    """How a statement's sites were had."""
    tenures: dict[str, list[Tenure]] = {}
    for row in statement["market"]["tenures"]:
        tenures.setdefault(row["site"], []).append(Tenure(**row))
    return tenures
