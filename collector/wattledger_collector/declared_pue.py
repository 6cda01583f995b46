"""The PUE that a site declares: its ratio, the time in which it was determined, where IT energy was measured, the evidence.

Values in, values out; no clock, no file. Sources of truth: ISO/IEC 30134-2 for category and the twelve months of a PUE, by
`facility.py`; the dated rows of sites for what holds when.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from wattledger_collector.facility import Category, Pue
from wattledger_collector.factors import seconds_of_day
from wattledger_collector.records import SiteRow

CATEGORY_WORDS: Mapping[Category, str] = {
    Category.UPS_OUTPUT: "IT energy at the output of the UPS",
    Category.PDU_OUTPUT: "IT energy at the output of the PDU",
    Category.IT_INPUT: "IT energy at the IT's input",
}


@dataclass(frozen=True, slots=True)
class DeclaredPue:
    """What a site declares, in [valid_from_seconds, valid_to_seconds), clipped to a period; what is not stated is empty.

    from_day, to_day: ISO days of the time that it describes, the last not included.
    """

    ratio: Decimal
    valid_from_seconds: int
    valid_to_seconds: int
    from_day: str
    to_day: str
    category: Category | None
    evidence: str

    @property
    def name(self) -> str:
        """`PUE`, or `interim PUE` where it was determined over less than twelve months."""
        if not (self.from_day and self.to_day):
            return "PUE"
        begin, end = (seconds_of_day(date.fromisoformat(day)) for day in (self.from_day, self.to_day))
        return Pue(Fraction(self.ratio), begin, end, self.category or Category.IT_INPUT, self.evidence).name

    @property
    def is_interim(self) -> bool:
        """Whether it is of less than twelve months."""
        return self.name != "PUE"

    @property
    def lacks_evidence(self) -> bool:
        """Whether it adds energy to what was metered, and no document is named for it."""
        return self.ratio > 1 and not self.evidence

    @property
    def is_told(self) -> bool:
        """Whether there is more to say than that no overhead was declared."""
        return self.ratio > 1 or bool(self.evidence or self.from_day or self.category)

    @property
    def sentence(self) -> str:
        """All of it in words, without a full stop."""
        told = [f"{self.name} {self.ratio:f} declared"]
        if self.from_day and self.to_day:
            told.append(f"determined from {self.from_day} to {self.to_day}")
        if self.category is not None:
            told.append(f"category {int(self.category)} ({CATEGORY_WORDS[self.category]})")
        if self.evidence:
            told.append(f"evidence: {self.evidence}")
        elif self.lacks_evidence:
            told[0] += " without evidence"
        return ", ".join(told)


def declared_pues(rows: Iterable[SiteRow], from_seconds: int, to_seconds: int) -> dict[str, tuple[DeclaredPue, ...]]:
    """What each site declares in a period, by time; of rows valid from one instant, the one recorded last.

    What says the same as before is told once.
    """
    dated: dict[str, dict[int, SiteRow]] = {}
    for row in sorted(rows, key=lambda row: (row.valid_from_seconds, row.recorded_at_seconds)):
        dated.setdefault(row.site, {})[row.valid_from_seconds] = row
    found: dict[str, tuple[DeclaredPue, ...]] = {}
    for site, by_time in sorted(dated.items()):
        starts = sorted(by_time)
        told: list[DeclaredPue] = []
        for start, end in zip(starts, [*starts[1:], to_seconds], strict=True):
            begin, end = max(start, from_seconds), min(end, to_seconds)
            if begin >= end:
                continue
            made = _declared(by_time[start], begin, end)
            if told and _facts(told[-1]) == _facts(made):
                made = _declared(by_time[start], told.pop().valid_from_seconds, end)
            told.append(made)
        if told:
            found[site] = tuple(told)
    return found


def _declared(row: SiteRow, begin: int, end: int) -> DeclaredPue:
    category = Category(int(row.pue_category)) if row.pue_category else None
    return DeclaredPue(Decimal(row.pue), begin, end, row.pue_from, row.pue_to, category, row.pue_evidence)


def _facts(pue: DeclaredPue) -> tuple[object, ...]:
    return pue.ratio, pue.from_day, pue.to_day, pue.category, pue.evidence
