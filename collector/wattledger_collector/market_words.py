"""Says in sentences what a market-based figure rests on: instruments, residual mixes, and what stands in for them.

Reckons nothing but the rounding; sentences without their full stop. Source of truth: `market.py`.
"""

from collections.abc import Iterator
from fractions import Fraction

from wattledger_collector.market import MarketBased, Part
from wattledger_collector.records import MICROJOULES_PER_KWH

NOTHING_DECLARED = "no instruments and no residual mix: the market-based figure is the location-based one"
NOTHING_COUNTS = "no instrument counts and there is no residual mix: the market-based figure is the location-based one"


def market_remarks(market: MarketBased) -> Iterator[str]:
    """What a reader of the figure has to know, refused certificates excepted."""
    if market.is_location_based:
        is_bare = not market.instruments.certificates and not market.instruments.mixes
        yield NOTHING_DECLARED if is_bare else NOTHING_COUNTS
    elif market.stand_ins:
        markets = sorted({name or "an unknown market" for name, _ in market.stand_ins})
        yield f"no residual mix for {', '.join(markets)}: the grid average stands in for it"
    for mix, _ in market.mixes:
        if mix.provisional and mix.factor is not None:
            yield f"the residual mix of {mix.market} is that of {mix.factor.vintage}, until its own is published"


def kwh_words(microjoules: Fraction) -> str:
    """Kilowatt-hours for people."""
    scaled = round(microjoules * 1000 / MICROJOULES_PER_KWH)
    return f"{scaled // 1000}.{scaled % 1000:03d}"


def part_name(part: Part) -> str:
    """A part in words."""
    return part.replace("_", " ")
