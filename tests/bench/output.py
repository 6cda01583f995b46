"""How every benchmark says what it found: one JSON object a line on standard output.

Measures nothing. The ratio is always the value over that of its comparison, measured in the same run: machines differ, and
a figure without its neighbour says little. `run.py` checks the lines.
"""

import json

# More digits than a benchmark on a shared machine can stand for.
SIGNIFICANT_DIGITS = 5


def report(name: str, value: float, unit: str, comparison: float, compared_with: str) -> None:
    """Print one figure. comparison: what is compared with, in the same unit and not 0; compared_with: what that is."""
    line = {
        "name": name,
        "value": _rounded(value),
        "unit": unit,
        "ratio": _rounded(value / comparison),
        "comparison": f"{compared_with}: {_rounded(comparison)} {unit}",
    }
    print(json.dumps(line), flush=True)


def missing(name: str, reason: str) -> None:
    """Say why there is no figure: what it compares with is not on this machine."""
    print(json.dumps({"name": name, "missing": reason}), flush=True)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
