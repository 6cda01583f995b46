"""A declared PUE with its period, category and evidence, and what it lacks."""

from datetime import date
from decimal import Decimal

from wattledger_collector.declared_pue import DeclaredPue, declared_pues
from wattledger_collector.facility import Category
from wattledger_collector.factors import seconds_of_day
from wattledger_collector.records import SiteRow

FROM, TO = seconds_of_day(date(2025, 1, 1)), seconds_of_day(date(2026, 1, 1))
JUNE = seconds_of_day(date(2025, 6, 1))


def row(pue: str = "1.3", since: int = 0, recorded: int = 0, **facts: str) -> SiteRow:
    """A row of the site hall."""
    return SiteRow("hall", since, "DE", pue, False, recorded, **facts)


def told(*rows: SiteRow) -> list[str]:
    """The sentences of 2025."""
    return [pue.sentence for pue in declared_pues(rows, FROM, TO).get("hall", ())]


def test_all_that_is_declared_is_told() -> None:
    """Ratio, time, category and document in one sentence."""
    full = row(pue_from="2024-01-01", pue_to="2025-01-01", pue_category="2", pue_evidence="audit 7")
    assert told(full) == [
        "PUE 1.3 declared, determined from 2024-01-01 to 2025-01-01, category 2 (IT energy at the output of the PDU), "
        "evidence: audit 7"
    ]


def test_of_less_than_twelve_months_it_is_interim() -> None:
    """A day less than a year is interim; a leap year has a day more."""
    for begin, end, name in (
        ("2023-01-01", "2024-01-01", "PUE"),
        ("2023-01-01", "2023-12-31", "interim PUE"),
        ("2024-01-01", "2024-12-31", "interim PUE"),
        ("2024-02-29", "2025-02-28", "PUE"),
    ):
        (pue,) = declared_pues([row(pue_from=begin, pue_to=end, pue_evidence="e")], FROM, TO)["hall"]
        assert pue.name == name
        assert pue.is_interim == (name != "PUE")


def test_overhead_without_evidence_is_named() -> None:
    """A PUE above 1 adds energy that nobody metered; one of 1 adds nothing, and needs no document."""
    assert told(row()) == ["PUE 1.3 declared without evidence"]
    (one,) = declared_pues([row("1")], FROM, TO)["hall"]
    assert not one.lacks_evidence
    assert not one.is_told
    (with_document,) = declared_pues([row("1", pue_evidence="no cooling")], FROM, TO)["hall"]
    assert with_document.is_told


def test_each_time_has_what_was_declared_for_it() -> None:
    """Rows from another instant hold from there; of one instant the one recorded last; what repeats is told once."""
    later = (row("1.2", JUNE + since, 9, pue_evidence="audit") for since in (0, 900))
    rows = [row(), row("1.4", JUNE), *later]
    assert declared_pues(rows, FROM, TO)["hall"] == (
        DeclaredPue(Decimal("1.3"), FROM, JUNE, "", "", None, ""),
        DeclaredPue(Decimal("1.2"), JUNE, TO, "", "", None, "audit"),
    )
    assert declared_pues([row(since=TO)], FROM, TO) == {}
    (category,) = declared_pues([row(pue_category="3")], FROM, TO)["hall"]
    assert category.category is Category.IT_INPUT
