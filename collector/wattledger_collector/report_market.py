"""Scope 2 of a report for programs, location and market based side by side: parts of its JSON and rows of its CSV.

Reckons nothing but the rounding; exact figures stand beside rounded ones, as fractions. Source of truth: `market.py`.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from wattledger_collector.bands import Estimate
from wattledger_collector.market import Figure, MarketBased, Part
from wattledger_collector.market_words import market_remarks
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.residual_mixes import Counted
from wattledger_collector.rounding import rounded

KWH_DIGITS = 9
GRAM_DIGITS = 6
RATIO_DIGITS = 6

# Columns of the CSV that only these rows fill.
MARKET_COLUMNS = ("facility_microjoules", "market_part", "gwp", "certificate", "refusal", "refusal_reason")


def scope_two_tree(figure: Figure, intervals: Mapping[Counted, Estimate]) -> dict[str, Any]:
    """Both figures of a site or of all, and what the market-based one is made of. intervals: of the market-based totals."""
    return {
        "location_based": _grams_trees(figure.location_totals),
        "market_based": [
            {
                **_grams_tree(counted, grams),
                **({"interval": interval_tree(intervals[counted])} if counted in intervals else {}),
            }
            for counted, grams in figure.totals.items()
        ],
        "market_equals_location": figure.is_location_based,
        "covered_ratio": None if (ratio := figure.covered_ratio) is None else rounded(ratio, RATIO_DIGITS),
        "covered_ratio_exact": None if ratio is None else str(ratio),
        "parts": [
            {
                "part": part,
                "energy_microjoules": str(figure.microjoules(part)),
                "energy_kwh": rounded(figure.microjoules(part) / MICROJOULES_PER_KWH, KWH_DIGITS),
                "emissions": _grams_trees(figure.grams.get(part, {})),
            }
            for part in Part
            if part in figure.energy
        ],
    }


def instruments_tree(market: MarketBased, declared: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What the market-based figure rests on. declared: the files in which instruments stand, with their digests."""
    matching, instruments = market.matching, market.instruments
    return {
        "remarks": list(market_remarks(market)),
        "declared_in": [{"file": name, "sha256": digest} for name, digest in declared],
        "residual_mixes": [
            {
                "market": mix.market,
                "grams_per_kwh": None if mix.grams_per_kwh is None else f"{mix.grams_per_kwh:f}",
                **_counted_tree(mix.counted),
                "source": mix.source,
                "evidence": mix.evidence,
                "factor": None if mix.factor is None else mix.factor.id,
                "provisional": mix.provisional,
                "energy_microjoules": str(energy),
            }
            for mix, energy in market.mixes
        ],
        "stand_ins": [
            {"market": name or None, "reason": reason, "energy_microjoules": str(energy)}
            for (name, reason), energy in market.stand_ins.items()
        ],
        "certificates": {
            "beneficiary": instruments.beneficiary or None,
            "matching": "hourly" if instruments.is_hourly else "yearly",
            "covered_ratio": None if (ratio := matching.covered_ratio) is None else str(ratio),
            "allocated": [
                {
                    "certificate": each.certificate.certificate,
                    "market": each.certificate.market,
                    "hour_seconds": each.hour_seconds,
                    "grams_per_kwh": str(each.certificate.grams_per_kwh),
                    "energy_microjoules": str(each.microjoules),
                }
                for each in matching.allocated
            ],
            "refused": [
                {"certificate": each.certificate.certificate, "reason": each.refusal, "text": each.text}
                for each in matching.refused
            ],
            "surplus": [
                {"certificate": certificate.certificate, "energy_microjoules": str(over)}
                for certificate, over in matching.surplus
            ],
        },
    }


def _grams_trees(totals: Mapping[Counted, Fraction]) -> list[dict[str, str]]:
    return [_grams_tree(counted, grams) for counted, grams in totals.items()]


def _grams_tree(counted: Counted, grams: Fraction) -> dict[str, Any]:
    return {**_counted_tree(counted), "grams": rounded(grams, GRAM_DIGITS), "grams_exact": str(grams)}


def interval_tree(estimate: Estimate) -> dict[str, Any]:
    """The half-widths of 95 %, and which part of the grams has assumed bands; open_sites: where the upper end is open."""
    return {
        "lower_grams": f"{estimate.interval.lower_grams:.{GRAM_DIGITS}f}",
        "upper_grams": f"{estimate.interval.upper_grams:.{GRAM_DIGITS}f}",
        "open_sites": list(estimate.open_sites),
        "assumed_sensors": list(estimate.sensors_assumed),
        "assumed_sensor_grams": f"{estimate.sensors_assumed_grams:.{GRAM_DIGITS}f}",
        "assumed_factors": list(estimate.factors_assumed),
        "assumed_factor_grams": f"{estimate.factors_assumed_grams:.{GRAM_DIGITS}f}",
    }


def _counted_tree(counted: Counted) -> dict[str, str]:
    return {"boundary": counted.boundary, "gas": counted.gas, "gwp": counted.gwp}


def site_rows(figure: Figure) -> Iterator[dict[str, object]]:
    """CSV rows of a site: of each part of the market-based figure, and of both sums."""
    for part in Part:
        if part not in figure.energy:
            continue
        energy = figure.microjoules(part)
        facility = {"facility_microjoules": str(energy), "facility_kwh": rounded(energy / MICROJOULES_PER_KWH, KWH_DIGITS)}
        grams = figure.grams.get(part, {})
        # Energy stands in the first row of a part alone, so that a column adds up.
        for place, (counted, amount) in enumerate(grams.items()):
            yield {"record": "market", "market_part": part, **({} if place else facility), **_grams_cells(counted, amount)}
        if not grams:
            yield {"record": "market", "market_part": part, **facility}
    for record, totals in (("scope2_location", figure.location_totals), ("scope2_market", figure.totals)):
        for counted, amount in totals.items():
            yield {"record": record, **_grams_cells(counted, amount)}


def certificate_rows(market: MarketBased) -> Iterator[dict[str, object]]:
    """CSV rows of the certificates: what each covers in all, what is over, and why it counts for nothing."""
    for certificate, energy in market.used.items():
        yield {"record": "certificate", "certificate": certificate.certificate, "facility_microjoules": str(energy)}
    for certificate, over in market.matching.surplus:
        yield {"record": "surplus", "certificate": certificate.certificate, "facility_microjoules": str(over)}
    for each in market.matching.refused:
        name = each.certificate.certificate
        yield {"record": "refused", "certificate": name, "refusal": each.refusal, "refusal_reason": each.text}


def _grams_cells(counted: Counted, grams: Fraction) -> dict[str, object]:
    return {
        **_counted_tree(counted),
        "emissions_grams": rounded(grams, GRAM_DIGITS),
        "emissions_grams_exact": str(grams),
    }
