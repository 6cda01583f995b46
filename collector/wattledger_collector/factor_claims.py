"""Claims: whether a document has the factor that somebody says is from it, and what energy emits by each.

No files, no database, no clock. Sources of truth: the rows of factors, each with its document; ISO 14064-3 for what is asked
of a figure: that its source shows it, and that it can be worked out again. Tonnes are exact; where they are told, they are
rounded half up to ten kilograms.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from wattledger_collector.factors import Factor, FactorFileError

# How many rows are told in place of a value that is not there: the figure beside the right one is often the one meant.
NEAREST_ROWS_MAX = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says: a factor in g/kWh, from a document, of a zone (None: of any).

    document: a part of its title or address, or its numbers, such as `2024-33` for announcement 2024 no. 33. megawatt_hours:
    what the factor was applied to, if that is to be worked out again. other_tonnes: what stands beside it in the sum.
    """

    document: str
    grams_per_kwh: Decimal
    zone: str | None = None
    megawatt_hours: Decimal | None = None
    other_tonnes: Decimal = Decimal(0)

    def tonnes_by(self, grams_per_kwh: Decimal) -> Fraction:
        """The sum by a factor, exact: g/kWh are kg/MWh."""
        return Fraction(self.megawatt_hours or 0) * Fraction(grams_per_kwh) / 1000 + Fraction(self.other_tonnes)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a document says of a claim. rows: those with the value; none: it is not there. nearest: others, best first."""

    claim: Claim
    rows: tuple[Factor, ...]
    nearest: tuple[Factor, ...]
    document_rows: int

    @property
    def refusal(self) -> str | None:
        """Why the claim is refused; None where the document has the value."""
        if self.rows:
            return None
        of_zone = "" if self.claim.zone is None else f" of zone {self.claim.zone}"
        near = self.nearest[0]
        return (
            f"{self.claim.document!r} has no row{of_zone} with {_plain(self.claim.grams_per_kwh)} g/kWh among its "
            f"{self.document_rows}: the nearest is {_plain(near.value)} of {near.zone}, {near.vintage}; "
            "ask for the page that the value is from"
        )


def check_claim(factors: Iterable[Factor], claim: Claim) -> Finding:
    """Look for a claim in the rows of its document. Raises FactorFileError if no row is from such a document."""
    if not claim.document.strip():
        raise FactorFileError("a claim names its document: give --document a part of the title, or its numbers")
    of_document = [factor for factor in factors if _is_document(claim.document, factor.document)]
    if not of_document:
        raise FactorFileError(
            f"no factor is from a document {claim.document!r}: `wattledger-collector factors show ZONE` names them"
        )
    rows = [factor for factor in of_document if claim.zone in (None, factor.zone)]
    if not rows:
        raise FactorFileError(
            f"{claim.document!r} has no row of zone {claim.zone!r} among its {len(of_document)}: "
            "correct --zone, or leave it out"
        )
    found = tuple(factor for factor in rows if factor.value == claim.grams_per_kwh)
    others = sorted(
        rows, key=lambda factor: (abs(factor.value - claim.grams_per_kwh), factor.zone, factor.valid_from_seconds)
    )
    return Finding(claim, found, () if found else tuple(others[:NEAREST_ROWS_MAX]), len(rows))


def claim_lines(finding: Finding) -> list[str]:
    """The rows of a finding as text, and what the energy emits by each, and as claimed."""
    claim = finding.claim
    lines = [] if claim.megawatt_hours is None else [f"as claimed: {_sum(claim, claim.grams_per_kwh)}"]
    for factor in finding.rows or finding.nearest:
        told = f"{factor.zone} {factor.vintage}: {factor.value:f} g/kWh, {factor.kind}; {factor.document}"
        lines.append(told)
        if claim.megawatt_hours is not None and not finding.rows:
            off = claim.tonnes_by(factor.value) - claim.tonnes_by(claim.grams_per_kwh)
            lines.append(f"  by it: {_sum(claim, factor.value)}, {_rounded(abs(off))} t {'more' if off > 0 else 'less'}")
    return lines


def _sum(claim: Claim, grams_per_kwh: Decimal) -> str:
    beside = f" + {_plain(claim.other_tonnes)} t" if claim.other_tonnes else ""
    energy = _plain(claim.megawatt_hours or Decimal(0))
    return f"{energy} MWh x {_plain(grams_per_kwh / 1000)} t/MWh{beside} = {_rounded(claim.tonnes_by(grams_per_kwh))} t"


def _rounded(tonnes: Fraction) -> str:
    """Of what is not below 0, half up."""
    return f"{Decimal(int(tonnes * 100 + Fraction(1, 2))) / 100:.2f}"


def _plain(value: Decimal) -> str:
    """Without zeros at the end, and without an exponent."""
    return f"{value.normalize():f}"


def _is_document(asked: str, document: str) -> bool:
    """A number is meant whole: `no. 3` is not no. 33."""
    words = asked.strip()
    begin, end = (r"(?<!\d)" if words[0].isdigit() else ""), (r"(?!\d)" if words[-1].isdigit() else "")
    if re.search(begin + re.escape(words) + end, document, re.IGNORECASE):
        return True
    numbers, of_document = re.findall(r"\d+", words), re.findall(r"\d+", document)
    return len(numbers) >= 2 and _contains(of_document, numbers)


def _contains(row: Sequence[str], part: Sequence[str]) -> bool:
    return any(row[at : at + len(part)] == part for at in range(len(row)))
