"""Says in sentences what a market-based figure rests on: instruments, residual mixes, and what stands in for them.

Reckons nothing but the rounding; sentences without their full stop. Source of truth: `market.py`.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction

from wattledger_collector.bands import Estimate, assumed_text
from wattledger_collector.market import Figure, MarketBased, Part
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.residual_mixes import Counted, Mix
from wattledger_collector.rounding import mass_text, rounded

NOTHING_DECLARED = "no instruments and no residual mix: the market-based figure is the location-based one"
NOTHING_COUNTS = "no instrument counts and there is no residual mix: the market-based figure is the location-based one"

PART_WORDS: Mapping[Part, str] = {
    Part.CERTIFICATES: "covered by certificates",
    Part.RESIDUAL_MIX: "at the residual mix",
    Part.STAND_IN: "at the grid average, which stands in",
    Part.OUTSIDE_SCOPE_2: "outside of scope 2, as declared",
    Part.UNCOVERED: "without any rate, in no figure",
}


def market_remarks(market: MarketBased) -> Iterator[str]:
    """What a reader of the figure has to know, refused certificates excepted."""
    if market.is_location_based:
        is_bare = not market.instruments.certificates and not market.instruments.mixes
        yield NOTHING_DECLARED if is_bare else NOTHING_COUNTS
    elif market.stand_ins:
        sums: dict[str, Fraction] = {}
        for (name, _), energy in market.stand_ins.items():
            sums[name] = sums.get(name, Fraction(0)) + energy
        told = ", ".join(
            f"{kwh_words(energy)} kWh of {name or 'an unknown market'}" for name, energy in sorted(sums.items())
        )
        yield f"no residual mix for {told}: the grid average stands in for it"
    for mix, _ in market.mixes:
        if mix.provisional and mix.factor is not None:
            yield f"the residual mix of {mix.market} is that of {mix.factor.vintage}, until its own is published"


def mix_sentences(market: MarketBased) -> Iterator[str]:
    """Each residual mix that was used, who says so, and how much it counts."""
    for mix, energy in market.mixes:
        yield f"residual mix of {mix.market}: {mix_text(mix)}; it counts {kwh_words(energy)} kWh"


def mix_text(mix: Mix) -> str:
    """The value of a residual mix, what it counts if that is stated, and its source."""
    if mix.grams_per_kwh is None:
        return mix.missing
    what = "" if mix.counted == Counted() else f" {mix.counted}"
    vintage = "" if mix.factor is None else f" {mix.factor.vintage}"
    return f"{mix.grams_per_kwh:f} g/kWh{what}, {mix.source}{vintage} ({mix.evidence})"


def certificate_sentences(market: MarketBased) -> Iterator[str]:
    """What certificates cover, in whose name and how matched; what is left over, and each that counts for nothing."""
    matching, instruments = market.matching, market.instruments
    if not instruments.certificates:
        return
    how = "hour" if instruments.is_hourly else "year"
    count = len({each.certificate for each in matching.allocated})
    share = "nothing" if (ratio := matching.covered_ratio) is None else f"{rounded(ratio * 100, 1)} %"
    yield (
        f"{count} of {len(instruments.certificates)} certificates, retired for {instruments.beneficiary} and matched by "
        f"{how}, cover {kwh_words(matching.covered_microjoules)} kWh, {share} of scope 2 electricity"
    )
    if over := sum((energy for _, energy in matching.surplus), Fraction(0)):
        fate = "lost, as no hour's surplus covers another" if instruments.is_hourly else "not used in this period"
        yield f"surplus: {kwh_words(over)} kWh of certificates are {fate}"
    for refused in matching.refused:
        yield f"certificate {refused.certificate.certificate} refused, {refused.refusal}: {refused.text}"


def shares_text(figure: Figure) -> str:
    """Of what parts a figure is made, in percent of its energy."""
    whole = figure.microjoules()
    if not whole:
        return "no electricity"
    told = [
        f"{rounded(energy * 100 / whole, 1)} % {PART_WORDS[part]}" for part in Part if (energy := figure.microjoules(part))
    ]
    return ", ".join(told)


def totals_text(totals: Mapping[Counted, Fraction]) -> str:
    """Masses by what they count; a dash where there is no figure."""
    return " and ".join(f"{mass_text(grams)} {counted.gas}".rstrip() for counted, grams in totals.items()) or "–"


def kinds_text(totals: Mapping[Counted, Fraction]) -> str:
    """What masses count."""
    return " and ".join(map(str, totals))


def kwh_words(microjoules: Fraction) -> str:
    """Kilowatt-hours for people: three digits after the point, six below 1 kWh."""
    return rounded(microjoules / MICROJOULES_PER_KWH, 3 if abs(microjoules) >= MICROJOULES_PER_KWH else 6)


def interval_text(estimate: Estimate) -> str:
    """A total's interval with what it rests on, for people."""
    interval = estimate.interval
    lower = mass_text(interval.grams - Fraction(interval.lower_grams))
    upper = "no known bound" if estimate.is_open else mass_text(interval.grams + Fraction(interval.upper_grams))
    return f"{lower} to {upper} ({assumed_text(estimate)})"
