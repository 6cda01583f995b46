"""Figures for people: kilowatt-hours, masses, and decimals rounded half up.

No figure is reckoned here but by rounding, on display alone.
"""

from fractions import Fraction

from wattledger_collector.records import MICROJOULES_PER_KWH


def rounded(value: Fraction, digits: int) -> str:
    """A fraction as decimal text, rounded half up (away from zero), with exactly so many digits after the point."""
    scaled = (abs(value) * 10**digits * 2 + 1) // 2
    whole, part = divmod(scaled, 10**digits)
    sign = "-" if value < 0 and scaled else ""
    return f"{sign}{whole}.{part:0{digits}d}" if digits else f"{sign}{whole}"


def kwh(microjoules: int) -> Fraction:
    """Exact kilowatt-hours."""
    return Fraction(microjoules, MICROJOULES_PER_KWH)


def mass_text(grams: Fraction) -> str:
    """A mass for people: in g, kg or t, with three digits after the point."""
    for unit, size in (("t", 1_000_000), ("kg", 1_000)):
        if abs(grams) >= size:
            return f"{rounded(grams / size, 3)} {unit}"
    return f"{rounded(grams, 3)} g"
