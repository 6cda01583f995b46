"""How the check of a statement reads and writes values: whole numbers, exact fractions, and floats that are near enough.

No file and nothing of what made the statement. Source of truth: the form of a statement, as the README has it.
"""

from fractions import Fraction
from typing import Any, Final

# Half-widths of intervals are floating point, printed with six digits.
TOLERANCE_GRAMS: Final = 2e-6
TOLERANCE_RATIO: Final = 1e-9
# No decimal of a factor or PUE comes near; a larger power of ten would be reckoned for hours.
EXPONENT_MAX: Final = 400

Tree = dict[str, Any]


def integer(value: object) -> int:
    """A whole number as it is; a text would be repeated where it is multiplied. Raises ValueError."""
    if type(value) is not int:
        raise ValueError(f"{value!r:.80} stands where a whole number belongs")
    return value


def exact(text: str) -> Fraction:
    """A decimal or a fraction, exactly. Raises ValueError."""
    exponent = text.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > EXPONENT_MAX:
        raise ValueError(f"{text[:80]!r} has a power of ten beyond {EXPONENT_MAX}")
    return Fraction(text)


def grams_tree(grams: Fraction) -> Tree:
    """Grams as a statement has them: exact, and rounded to six digits, half to even."""
    millionths = round(grams * 10**6)
    sign = "-" if millionths < 0 else ""
    return {"exact": str(grams), "rounded": f"{sign}{abs(millionths) // 10**6}.{abs(millionths) % 10**6:06}"}


def is_near(stated: str, value: float) -> bool:
    """Whether a half-width is the one that was reckoned; what is no number is near to nothing."""
    return abs(float(stated) - value) <= TOLERANCE_GRAMS + TOLERANCE_RATIO * abs(value)
