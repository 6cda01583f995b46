"""The canonical statement: what a closed period used and emitted, with all that the figures were made of.

Values in, a tree and its canonical bytes out (RFC 8785); no clock, no database. Sources of truth: `accounting.py` for the
arithmetic, ISO 14064-3 for what a verifier asks for. Microjoules and nanoseconds are text, since JSON's numbers end at 2^53;
grams are exact fractions as text, `rounded` beside them is for people. `verify.py` reads it with code of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import sha256
from typing import Any, Final

import rfc8785

from wattledger_collector.accounting import GapSummary, Line, SiteBasis, coverage
from wattledger_collector.factors import Factor
from wattledger_collector.records import HostGapRow, SiteRow
from wattledger_collector.statement_market import MarketFacts, market_tree
from wattledger_collector.statement_uncertainty import (
    SensorKey,
    assumed_tree,
    market_uncertainty_trees,
    uncertainty_trees,
)
from wattledger_collector.statement_values import GRAMS_DIGITS, grams_tree, plain, rounded

FORMAT: Final = "wattledger statement 2"
BOUNDARY: Final = (
    "purchased electricity of the servers metered with their site's overhead, scope 2: location based in lines and totals, "
    "market based beside it; what is declared to be another's electricity is told apart"
)

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heading:
    """What a statement is of and who made it. number: counted from 1 in its ledger."""

    number: int
    database_id: str
    from_seconds: int
    to_seconds: int
    time_zone: str
    site: str | None
    interval_seconds: int
    edition: int
    closed_at_seconds: int
    software: str


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """A site's dated rows, which basis held when, and what is not known of it.

    gaps_by_recorded: the same gaps, those of recordings apart.
    """

    site: str
    rows: tuple[SiteRow, ...]
    bases: tuple[tuple[SiteBasis, int], ...]
    gaps: GapSummary
    gaps_by_recorded: Mapping[bool, GapSummary]
    silent: tuple[tuple[str, int, int], ...]


def canonical(tree: Any) -> bytes:
    """The one form of a tree in bytes. Raises ValueError for what has none."""
    return rfc8785.dumps(tree)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return sha256(data).hexdigest()


def statement_tree(
    heading: Heading,
    sites: Sequence[SiteFacts],
    lines: Sequence[Line],
    sensors: Mapping[SensorKey, int],
    market: MarketFacts,
    imported: Tree,
    gaps: Sequence[Tree],
    *,
    reallocated: Sequence[tuple[str, int]] = (),
) -> Tree:
    """All of a statement but its place in the log, and what it replaces."""
    used = {factor.id: factor for line in lines for factor in line.factors}
    # Residual mixes of factor tables count market based alone.
    used |= {mix.factor.id: mix.factor for mix in market.mixes if mix.factor is not None}
    factor_rows = [factor_tree(factor) for _, factor in sorted(used.items())]
    instrument_rows = [plain(asdict(each)) for each in market.market.instruments.certificates]
    merged = merge_lines(lines)
    site_gaps = {(each.site, recorded): gap for each in sites for recorded, gap in each.gaps_by_recorded.items()}
    silent = {each.site for each in sites if each.silent}
    return {
        "format": FORMAT,
        "number": heading.number,
        "database": heading.database_id,
        "software": heading.software,
        "closed_at": _iso(heading.closed_at_seconds),
        "period": {
            "from": _iso(heading.from_seconds),
            "to": _iso(heading.to_seconds),
            "from_seconds": heading.from_seconds,
            "to_seconds": heading.to_seconds,
            "time_zone": heading.time_zone,
        },
        "boundary": {"text": BOUNDARY, "site": heading.site},
        "interval_seconds": heading.interval_seconds,
        "edition": heading.edition,
        "sites": [_site_tree(site, heading, lines) for site in sites],
        "lines": merged,
        "totals": totals(merged),
        "sensors": _sensor_trees(sensors),
        "assumed_ratios": assumed_tree(),
        "uncertainty": uncertainty_trees(lines, sensors, site_gaps, silent),
        "factors": {"rows": factor_rows, "sha256": digest(canonical(factor_rows))},
        "instruments": {"rows": instrument_rows, "sha256": digest(canonical(instrument_rows))},
        "imports": imported,
        "market": {
            **market_tree(market, heading.from_seconds, heading.to_seconds),
            "uncertainty": market_uncertainty_trees(market.market, lines, sensors, site_gaps, silent),
        },
        "gaps": {"count": len(gaps), "sha256": digest(canonical(list(gaps)))},
        "reallocated": [{"site": site, "energy_microjoules": str(energy)} for site, energy in reallocated],
    }


def merge_lines(lines: Iterable[Line]) -> list[Tree]:
    """Lines that differ in nothing that is told, as one; in order."""
    sums: dict[tuple[Any, ...], list[Any]] = {}
    for line in lines:
        basis = line.basis
        kind = str(basis.factor.kind) if line.emissions is not None and basis.factor is not None else ""
        pue = "" if basis.pue is None else f"{basis.pue:f}"
        # Series of two sources in one zone are not off together.
        source = basis.factor.source if kind and basis.factor is not None else ""
        key = (basis.site, basis.zone or "", pue, str(basis.tier), kind, source, line.recorded, line.component, line.quality)
        total = sums.setdefault(key, [0, 0, Fraction(0)])
        total[0] += line.energy_microjoules
        total[1] += line.covered_nanoseconds
        total[2] += line.grams or 0
    return [_line_tree(key, *total) for key, total in sorted(sums.items())]


def _line_tree(key: tuple[Any, ...], energy: int, covered: int, grams: Fraction) -> Tree:
    site, zone, pue, tier, kind, source, recorded, component, quality = key
    return {
        "site": site,
        "zone": zone or None,
        "pue": pue or None,
        "tier": tier,
        "kind": kind or None,
        "source": source or None,
        "recorded": recorded,
        "component": component.name.lower(),
        "quality": quality.name.lower(),
        "energy_microjoules": str(energy),
        "covered_nanoseconds": str(covered),
        "grams": grams_tree(grams) if kind else None,
    }


def totals(lines: Iterable[Tree]) -> Tree:
    """Sums of lines: of all, and by site, component, quality and tier of the factor; recorded energy apart."""
    rows = list(lines)
    return {
        "all": _totals_by(rows, None),
        "by_site": _totals_by(rows, "site"),
        "by_component": _totals_by(rows, "component"),
        "by_quality": _totals_by(rows, "quality"),
        "by_tier": _totals_by(rows, "tier"),
    }


def _totals_by(lines: Iterable[Tree], name: str | None) -> list[Tree]:
    groups: dict[tuple[str, bool], list[Tree]] = {}
    for line in lines:
        groups.setdefault((line[name] if name else "", line["recorded"]), []).append(line)
    return [
        {
            "name": group,
            "recorded": recorded,
            "energy_microjoules": str(sum(int(line["energy_microjoules"]) for line in own)),
            "covered_nanoseconds": str(sum(int(line["covered_nanoseconds"]) for line in own)),
            "uncovered_microjoules": str(sum(int(line["energy_microjoules"]) for line in own if line["kind"] is None)),
            "emissions": _emission_trees(own),
        }
        for (group, recorded), own in sorted(groups.items())
    ]


def _emission_trees(lines: Iterable[Tree]) -> list[Tree]:
    grams: dict[str, Fraction] = {}
    for line in lines:
        if line["kind"] is not None:
            grams[line["kind"]] = grams.get(line["kind"], Fraction(0)) + Fraction(line["grams"]["exact"])
    return [{"kind": kind, "grams": grams_tree(each)} for kind, each in sorted(grams.items())]


def factor_tree(factor: Factor) -> Tree:
    """A factor with all its fields."""
    tree = {field.name: plain(getattr(factor, field.name)) for field in fields(factor) if field.name != "kind"}
    return {**tree, "id": factor.id, "kind": str(factor.kind), "type": plain(asdict(factor.kind))}


def gap_tree(row: HostGapRow, channels: int) -> Tree:
    """A gap as the statement's sums take it. channels: how many it stands for; above 1 for one of a whole host."""
    gap = row.gap
    upper = gap.upper_microjoules
    return {
        "host": row.host,
        "site": row.site,
        "epoch": row.epoch.hex(),
        "channel": gap.channel,
        "channels": channels,
        "recorded": row.recorded,
        "reason": str(gap.reason),
        "from_nanoseconds": str(gap.from_utc_nanoseconds),
        "to_nanoseconds": str(gap.to_utc_nanoseconds),
        "lower_microjoules": str(gap.lower_microjoules),
        "upper_microjoules": None if upper is None else str(upper),
    }


def _site_tree(facts: SiteFacts, heading: Heading, lines: Iterable[Line]) -> Tree:
    covered = sum(line.covered_nanoseconds for line in lines if line.basis.site == facts.site)
    gaps = facts.gaps
    silent = sum(missing for _, _, missing in facts.silent)
    share = coverage(covered, gaps.missing_nanoseconds + silent)
    return {
        "site": facts.site,
        "rows": [plain(asdict(row)) for row in facts.rows],
        "bases": basis_trees(facts.bases, heading.from_seconds),
        "gaps": {
            "count": gaps.count,
            "lower_microjoules": str(gaps.lower_microjoules),
            "upper_microjoules": None if gaps.upper_microjoules is None else str(gaps.upper_microjoules),
            "missing_nanoseconds": str(gaps.missing_nanoseconds),
            "reasons": {str(reason): count for reason, count in gaps.reasons.items()},
        },
        "silent": [
            {"host": host, "since_seconds": since, "missing_nanoseconds": str(missing)}
            for host, since, missing in facts.silent
        ],
        "coverage": None if share is None else {"exact": str(share), "rounded": rounded(share, GRAMS_DIGITS)},
    }


def basis_trees(bases: Iterable[tuple[SiteBasis, int]], from_seconds: int) -> list[Tree]:
    """Which zone, PUE and factor held in which part of the period, in order and without holes."""
    trees = []
    for basis, seconds in bases:
        trees.append(
            {
                "from_seconds": from_seconds,
                "to_seconds": from_seconds + seconds,
                "zone": basis.zone,
                "pue": None if basis.pue is None else f"{basis.pue:f}",
                "factor": None if basis.factor is None else basis.factor.id,
                "grams_per_kwh": None if basis.factor is None else f"{basis.factor.value:f}",
                "kind": None if basis.factor is None else str(basis.factor.kind),
                "tier": str(basis.tier),
                "provisional": basis.provisional,
                "assumed": basis.assumed,
                "missing": basis.missing,
            }
        )
        from_seconds += seconds
    return trees


def _sensor_trees(sensors: Mapping[SensorKey, int]) -> list[Tree]:
    return [
        {
            "site": site,
            "component": component.name.lower(),
            "quality": quality.name.lower(),
            "recorded": recorded,
            "sensor": sensor,
            "lower": lower,
            "upper": upper,
            "energy_microjoules": str(energy),
        }
        for (site, component, quality, recorded, sensor, lower, upper), energy in sorted(sensors.items())
    ]


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
