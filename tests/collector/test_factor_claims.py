"""Claims of factors: published corrections of verifiers, with the document's rows, to the hundredth of a tonne."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

from wattledger_collector.factor_claims import NEAREST_ROWS_MAX, Claim, Finding, check_claim, claim_lines
from wattledger_collector.factor_files import bundled_tables
from wattledger_collector.factors import Factor, FactorFileError

BUNDLED = [row for table in bundled_tables() for row in table]
NATIONAL = next(row for row in BUNDLED if (row.zone, row.vintage, row.kind.basis) == ("CN", "2022", "consumption"))


def table(*values: str) -> list[Factor]:
    """A document with rows of these values in t/MWh, as an auditor has it in a file of factors."""
    return [
        replace(NATIONAL, zone=f"CN-{number}", value=Decimal(value) * 1000, document="the regional table of 2012")
        for number, value in enumerate(values)
    ]


def claim(factor: str, energy: str, other: str = "0", document: str = "regional table") -> Claim:
    """A factor in t/MWh, applied to MWh, with other tonnes in the sum."""
    return Claim(document, Decimal(factor) * 1000, None, Decimal(energy), Decimal(other))


def told(finding: Finding) -> str:
    """All lines."""
    return "\n".join(claim_lines(finding))


def test_a_value_that_a_document_does_not_have_is_refused() -> None:
    """0.5633 was signed off as from announcement 2024 no. 33, which has no such row; its national figure is 0.5366."""
    finding = check_claim(BUNDLED, Claim("2024-33", Decimal("563.3")))
    assert finding.refusal is not None
    assert finding.refusal.startswith("'2024-33' has no row with 563.3 g/kWh among its 39: the nearest is 562.6 of ")
    assert len(finding.nearest) == NEAREST_ROWS_MAX

    accepted = check_claim(BUNDLED, Claim("2024-33", Decimal("536.6"), "CN"))
    assert accepted.refusal is None
    assert [(row.vintage, row.document[:34]) for row in accepted.rows] == [("2022", "MEE and NBS announcement 2024 no. ")]
    assert accepted.nearest == ()


def test_a_refused_figure_is_shown_beside_those_of_the_document() -> None:
    """173.502 MWh by the 0.5633 that nobody published are 97.73 t, and by the national 0.5366 93.10 t."""
    text = told(check_claim(BUNDLED, Claim("公告2024年第33号", Decimal("563.3"), "CN", Decimal("173.502"))))
    assert text.startswith("as claimed: 173.502 MWh x 0.5633 t/MWh = 97.73 t\n")
    assert "  by it: 173.502 MWh x 0.5366 t/MWh = 93.10 t, 4.63 t less" in text

    right = told(check_claim(BUNDLED, Claim("2024-33", Decimal("536.6"), "CN", Decimal("173.502"))))
    assert right.startswith("as claimed: 173.502 MWh x 0.5366 t/MWh = 93.10 t\n")
    assert "by it" not in right


def test_a_factor_of_another_year_is_corrected_as_the_verifier_did() -> None:
    """8,157 MWh by 0.7921 are 6,461.16 t (6461.1597 exactly), and by the table's 0.7035 5,738.45 t."""
    wrong = claim("0.7921", "8157")
    finding = check_claim(table("0.7035"), wrong)
    assert finding.refusal is not None
    assert wrong.tonnes_by(wrong.grams_per_kwh) == Fraction("6461.1597")
    assert told(finding).startswith("as claimed: 8157 MWh x 0.7921 t/MWh = 6461.16 t")
    assert "  by it: 8157 MWh x 0.7035 t/MWh = 5738.45 t, 722.71 t less" in told(finding)


def test_what_stands_beside_the_electricity_stays_in_the_sum() -> None:
    """2,129.4 MWh by 0.7035 and 10.16 t of fuels are 1,508.19 t; by 0.64 they are 1,372.98 t."""
    finding = check_claim(table("0.64"), claim("0.7035", "2129.4", "10.16"))
    assert told(finding).startswith("as claimed: 2129.4 MWh x 0.7035 t/MWh + 10.16 t = 1508.19 t")
    assert "  by it: 2129.4 MWh x 0.64 t/MWh + 10.16 t = 1372.98 t, 135.22 t less" in told(finding)


def test_a_row_above_the_claim_is_more() -> None:
    """A claim may be too low as well; half a hundredth is rounded up."""
    finding = check_claim(table("0.7"), claim("0.6", "0.0125"))
    assert told(finding).startswith("as claimed: 0.0125 MWh x 0.6 t/MWh = 0.01 t")
    assert "= 0.01 t, 0.00 t more" in told(finding)


def test_values_of_two_years_are_not_taken_for_each_other() -> None:
    """0.5568 is of 2021 and of another announcement."""
    swapped = check_claim(BUNDLED, Claim("2024-33", Decimal("556.8"), "CN"))
    assert swapped.refusal is not None
    assert "has no row of zone CN with 556.8 g/kWh among its 2" in swapped.refusal
    assert check_claim(BUNDLED, Claim("2024-12", Decimal("556.8"), "CN")).refusal is None


@pytest.mark.parametrize(
    ("document", "zone", "sentence"),
    [
        ("2024-34", None, "no factor is from a document '2024-34'"),
        ("announcement 2024 no. 3", None, "no factor is from a document"),
        (" ", None, "a claim names its document"),
        ("2024-33", "DE", "'2024-33' has no row of zone 'DE' among its 39"),
    ],
)
def test_what_cannot_be_looked_for_is_told(document: str, zone: str | None, sentence: str) -> None:
    """An unknown document, or none at all, proves nothing; nor does a zone that the document is silent on."""
    with pytest.raises(FactorFileError) as caught:
        check_claim(BUNDLED, Claim(document, Decimal("536.6"), zone))
    assert sentence in str(caught.value)
