"""How a statement writes its values: exact grams with a rounding for people, and what JSON has no number for as text.

Values in, trees out; no clock, no database. Source of truth: `statement.py`, which says why.
"""

from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from enum import Enum
from fractions import Fraction
from typing import Any, Final

GRAMS_DIGITS: Final = 6

Tree = dict[str, Any]


def grams_tree(grams: Fraction) -> Tree:
    """Grams to the last digit, and rounded for people."""
    return {"exact": str(grams), "rounded": rounded(grams, GRAMS_DIGITS)}


def rounded(value: Fraction, digits: int) -> str:
    """A decimal of so many digits, half to even."""
    with localcontext(prec=60):
        quotient = Decimal(value.numerator) / Decimal(value.denominator)
        # Adding nothing takes the sign off a zero.
        return f"{quotient.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN) + 0:f}"


def plain(value: Any) -> Any:
    """A value as JSON has it: decimals, days and large numbers as text."""
    match value:
        case Enum():
            return plain(value.value)
        case Decimal():
            return f"{value:f}"
        case date():
            return value.isoformat()
        case bool() | None | str() | float():
            return value
        case int():
            return value if abs(value) < 2**53 else str(value)
        case dict():
            return {str(name): plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case _:
            raise TypeError(f"{type(value).__name__} has no form in a statement")
