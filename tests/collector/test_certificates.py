"""Certificates: what may be claimed, hour by hour or by year, and each reason for which one counts for nothing."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.certificate_table import parse_certificates
from wattledger_collector.certificates import (
    MICROJOULES_PER_WH,
    Certificate,
    Claim,
    Kind,
    Refusal,
    carbon_free_share,
    match,
    whole_wh,
)
from wattledger_collector.csv_table import TableError

DAY = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp())
HOUR = 3600
MWH = 1_000_000
CLAIM = Claim("Example Ltd", frozenset({"DE"}), DAY, DAY + 24 * HOUR)
HOURLY = replace(CLAIM, is_hourly=True)


def solar(number: int = 1, wh: int = MWH, hour: int = 12) -> Certificate:
    """A certificate of one hour of solar power, retired for the claim's beneficiary."""
    return Certificate(
        certificate=f"c{number}",
        kind=Kind.GO,
        registry="HKN",
        serial_prefix="DE-",
        serial_first=number,
        serial_last=number,
        market="DE",
        from_seconds=DAY + hour * HOUR,
        to_seconds=DAY + (hour + 1) * HOUR,
        volume_wh=wh,
        grams_per_kwh=Decimal(0),
        retired_for="Example Ltd",
        retired_on="2024-07-01",
    )


def flat(wh_an_hour: int) -> Mapping[tuple[str, int], Fraction]:
    """The same load in each hour of the day."""
    return {("DE", DAY + hour * HOUR): Fraction(wh_an_hour * MICROJOULES_PER_WH) for hour in range(24)}


def sun() -> list[Certificate]:
    """As much as a flat load of 100 Wh an hour uses in a day, made between six and eighteen o'clock."""
    return [solar(hour, 200, hour) for hour in range(6, 18)]


def refusal(certificate: Certificate, claim: Claim = CLAIM) -> Refusal | None:
    """Why one certificate counts for nothing; None if it counts."""
    matching = match([certificate], claim, flat(100))
    return matching.refused[0].refusal if matching.refused else None


def test_by_volume_the_sun_covers_a_flat_load_and_by_hour_half_of_it() -> None:
    """The same certificates are 100 % by year and 50 % by hour; what is over at noon is worth nothing at night."""
    by_year = match(sun(), CLAIM, flat(100))
    assert by_year.covered_ratio == 1
    by_hour = match(sun(), HOURLY, flat(100))
    assert by_hour.covered_ratio == Fraction(1, 2)
    assert sum(over for _, over in by_hour.surplus) == 1200 * MICROJOULES_PER_WH
    assert {each.hour_seconds for each in by_hour.allocated} == {DAY + hour * HOUR for hour in range(6, 18)}


def test_an_accepted_certificate_is_not_refused() -> None:
    """The certificate that all refusals are made from counts, by year and by hour."""
    assert refusal(solar()) is None
    assert refusal(solar(), HOURLY) is None
    # One serial of a granular certificate may be any volume.
    assert refusal(replace(solar(wh=MWH + 1), kind=Kind.GRANULAR)) is None


@pytest.mark.parametrize(
    ("certificate", "claim", "expected"),
    [
        (replace(solar(), retired_for=""), CLAIM, Refusal.NOT_RETIRED),
        (replace(solar(), retired_for="Another Ltd"), CLAIM, Refusal.OTHER_BENEFICIARY),
        (replace(solar(), market="FR"), CLAIM, Refusal.OTHER_MARKET),
        (replace(solar(), from_seconds=DAY - HOUR, to_seconds=DAY), CLAIM, Refusal.VINTAGE_OUTSIDE),
        (replace(solar(), from_seconds=DAY + 24 * HOUR, to_seconds=DAY + 25 * HOUR), CLAIM, Refusal.VINTAGE_OUTSIDE),
        (replace(solar(), to_seconds=DAY + 14 * HOUR), HOURLY, Refusal.HOUR_MISMATCH),
        (replace(solar(), from_seconds=DAY + 1800, to_seconds=DAY + 5400), HOURLY, Refusal.HOUR_MISMATCH),
        (replace(solar(), offset="CCER 7"), replace(CLAIM, offsets=frozenset({"CCER 7"})), Refusal.OFFSET_FOR_SAME_MWH),
        (replace(solar(), grams_per_kwh=None), CLAIM, Refusal.NO_EMISSION_RATE),
        (solar(wh=MWH + 1), CLAIM, Refusal.VOLUME_ABOVE_SERIALS),
    ],
)
def test_each_refusal_has_its_reason(certificate: Certificate, claim: Claim, expected: Refusal) -> None:
    """A certificate that can't be claimed covers nothing, and a code says why."""
    assert refusal(certificate, claim) is expected
    assert match([certificate], claim, flat(100)).covered_microjoules == 0


def test_chinese_generation_has_no_irec_after_2024() -> None:
    """The last hour of 2024 in Beijing still has one, the first of 2025 none."""
    begin = int(datetime(2024, 12, 31, 15, tzinfo=UTC).timestamp())
    claim = replace(CLAIM, markets=frozenset({"CN-GRID-NORTH"}), from_seconds=begin, to_seconds=begin + 2 * HOUR)
    last = replace(solar(), kind=Kind.I_REC, market="CN-GRID-NORTH", from_seconds=begin, to_seconds=begin + HOUR)
    assert refusal(last, claim) is None
    first = replace(last, from_seconds=begin + HOUR, to_seconds=begin + 2 * HOUR)
    assert refusal(first, claim) is Refusal.IREC_CHINA_AFTER_2024
    assert refusal(replace(first, kind=Kind.GEC), claim) is None


def test_a_serial_counts_once() -> None:
    """Ranges that share a serial are refused but for the first, also where an earlier claim used it."""
    wide = replace(solar(1), serial_first=5, serial_last=9)
    again = replace(solar(2), serial_first=9, serial_last=12)
    matching = match([wide, again], CLAIM, flat(10_000))
    assert [(each.certificate.certificate, each.refusal) for each in matching.refused] == [("c2", Refusal.SERIAL_USED_TWICE)]
    assert "used by c1" in matching.refused[0].text
    earlier = {wide: Fraction(1)}
    assert match([again], CLAIM, flat(100), used=earlier).refused[0].refusal is Refusal.SERIAL_USED_TWICE
    other_registry = replace(again, registry="REGO")
    assert match([wide, other_registry], CLAIM, flat(10_000)).refused == ()


def test_a_certificate_that_was_used_partly_has_the_rest() -> None:
    """Of 300 Wh an earlier claim took 120: 180 cover load, or stay; when all is taken it is used up."""
    part = solar(1, 300)
    matching = match([part], CLAIM, flat(100), used={part: Fraction(120 * MICROJOULES_PER_WH)})
    assert matching.covered_microjoules == 180 * MICROJOULES_PER_WH
    little = match([part], CLAIM, flat(1), used={part: Fraction(120 * MICROJOULES_PER_WH)})
    assert little.surplus == ((part, Fraction((180 - 24) * MICROJOULES_PER_WH)),)
    all_of_it = match([part], CLAIM, flat(100), used={part: Fraction(300 * MICROJOULES_PER_WH)})
    assert [each.refusal for each in all_of_it.refused] == [Refusal.USED_UP]
    assert "300 Wh were claimed for other periods" in all_of_it.refused[0].text


def test_a_used_certificate_is_known_by_its_name_and_serials_alone() -> None:
    """A row whose evidence or volume was mended since is the same certificate; a second row of its name is not."""
    before = solar(1, 300)
    mended = replace(before, evidence="scan", volume_wh=400)
    used = {before: Fraction(250 * MICROJOULES_PER_WH)}
    assert match([mended], CLAIM, flat(100), used=used).covered_microjoules == 150 * MICROJOULES_PER_WH
    twice = match([mended, mended], CLAIM, flat(100), used=used)
    assert [each.refusal for each in twice.refused] == [Refusal.SERIAL_USED_TWICE]


def test_an_hour_in_which_load_is_below_zero_is_covered_by_nothing() -> None:
    """A signed residual may outweigh an hour's leaves; no certificate is spent on it, and none is given back."""
    load = {("DE", DAY + 12 * HOUR): Fraction(-5)}
    matching = match([solar()], HOURLY, load)
    assert matching.allocated == ()
    assert matching.surplus == ((solar(), Fraction(MWH * MICROJOULES_PER_WH)),)


def test_a_refused_certificate_does_not_use_up_its_serials() -> None:
    """The same serials, rightly entered, count after a wrong entry."""
    wrong = replace(solar(1), market="FR")
    right = replace(solar(1), certificate="again")
    matching = match([wrong, right], CLAIM, flat(100))
    assert [each.refusal for each in matching.refused] == [Refusal.OTHER_MARKET]
    assert matching.covered_microjoules > 0


def test_contracts_without_serials_stand_beside_each_other() -> None:
    """Two power purchase agreements have no serials to share."""
    one = replace(solar(1, 100), kind=Kind.PPA, serial_first=0, serial_last=0)
    assert match([one, replace(one, certificate="c2")], CLAIM, flat(100)).refused == ()


def test_a_declared_vintage_window_is_kept() -> None:
    """Generation half a year before counts where the claim says so, and only when matched by year."""
    early = replace(solar(), from_seconds=DAY - 100 * HOUR, to_seconds=DAY - 99 * HOUR)
    wide = replace(CLAIM, vintage_before_seconds=100 * HOUR)
    assert refusal(early, wide) is None
    assert refusal(early, replace(wide, vintage_before_seconds=99 * HOUR)) is Refusal.VINTAGE_OUTSIDE
    assert refusal(early, replace(wide, is_hourly=True)) is Refusal.VINTAGE_OUTSIDE


@given(st.lists(st.tuples(st.integers(0, 23), st.integers(1, 500)), max_size=30), st.booleans())
def test_no_certificate_and_no_load_is_used_twice(made: list[tuple[int, int]], is_hourly: bool) -> None:
    """Each watt-hour of a certificate is allocated or surplus; no hour has more than its load."""
    certificates = [solar(number, wh, hour) for number, (hour, wh) in enumerate(made, 1)]
    matching = match(certificates, replace(CLAIM, is_hourly=is_hourly), flat(100))
    over = sum(microjoules for _, microjoules in matching.surplus)
    assert matching.covered_microjoules + over == sum(each.microjoules for each in certificates)
    assert matching.covered_microjoules <= matching.load_microjoules
    if is_hourly:
        by_hour: dict[int | None, Fraction] = {}
        for each in matching.allocated:
            by_hour[each.hour_seconds] = by_hour.get(each.hour_seconds, Fraction(0)) + each.microjoules
        assert all(taken <= 100 * MICROJOULES_PER_WH for taken in by_hour.values())


def test_the_carbon_free_score_weighs_hours_by_energy() -> None:
    """Contracted hours are free, the rest is as free as the grid; an hour of which nothing is known counts as not free."""
    by_hour = match(sun(), HOURLY, flat(100))
    assert carbon_free_share(by_hour, {}) == Fraction(1, 2)
    grid = {("DE", DAY + hour * HOUR): Fraction(2, 5) for hour in range(24)}
    assert carbon_free_share(by_hour, grid) == Fraction(1, 2) + Fraction(1, 2) * Fraction(2, 5)
    assert carbon_free_share(match([], HOURLY, {}), {}) is None
    with pytest.raises(ValueError, match="matched by hour"):
        carbon_free_share(match(sun(), CLAIM, flat(100)), {})


HEADER = (
    "certificate,kind,registry,serial_prefix,serial_first,serial_last,market,from,to,volume_wh,grams_per_kwh,retired_for"
)
ROW = "c1,granular,HKN,DE-,7,9,DE,2024-06-01T12:00+02:00,2024-06-01T13:00+02:00,1234.9,0,Example Ltd"


def test_a_registry_file_is_read() -> None:
    """Each cell lands in its field; a volume of 1,234.9 Wh is 1,234 Wh; an empty rate is none, and 0 is 0."""
    (certificate,) = parse_certificates(f"{HEADER}\n{ROW}\n", "f.csv")
    assert certificate.volume_wh == 1234 == whole_wh(Decimal("1234.9"))
    assert certificate.kind is Kind.GRANULAR
    assert (certificate.serial_first, certificate.serial_last) == (7, 9)
    assert certificate.from_seconds == DAY + 10 * HOUR
    assert certificate.grams_per_kwh == 0
    (without,) = parse_certificates(f"{HEADER}\n{ROW.replace(',0,Example', ',,Example')}\n", "f.csv")
    assert without.grams_per_kwh is None
    assert (certificate.gas, certificate.boundary) == ("", "")
    (typed,) = parse_certificates(f"{HEADER},gas,boundary\n{ROW},CO2,direct\n", "f.csv")
    assert (typed.gas, typed.boundary) == ("CO2", "direct")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "f.csv is empty"),
        (HEADER.replace("market", "place") + "\n", "column 'place' that is not in the schema"),
        (HEADER.replace(",registry", "") + "\n", "lacks the column 'registry'"),
        (f"{HEADER}\n{ROW},x\n", "line 2 has 13 cells"),
        (f"{HEADER}\n{ROW.replace('granular', 'token')}\n", "line 2 has kind 'token'"),
        (f"{HEADER}\n{ROW.replace(',7,9,', ',9,7,')}\n", "line 2 has serials from 9 to 7"),
        (f"{HEADER}\n{ROW.replace(',7,9,', ',x,9,')}\n", "line 2 has serial_first 'x'"),
        (f"{HEADER}\n{ROW.replace('T12:00+02:00', 'T12:00')}\n", "a time in whole seconds with its offset"),
        (f"{HEADER}\n{ROW.replace('T13:00', 'T12:00')}\n", "the end has to be later"),
        (f"{HEADER}\n{ROW.replace('1234.9', '0.9')}\n", "line 2 has volume_wh 0.9"),
        (f"{HEADER}\n{ROW.replace('1234.9', '1,234.9')}\n", "line 2 has 13 cells"),
        (f"{HEADER}\n{ROW.replace('1234.9', '1e20')}\n", "line 2 has volume_wh 1e20"),
        (f"{HEADER}\n{ROW.replace(',DE,', ',,')}\n", "line 2 has no market"),
        (f"{HEADER},gas\n{ROW},methane\n", "line 2 has gas 'methane'"),
        (f"{HEADER}\n{ROW}\n{ROW}\n", "line 3 has the certificate 'c1' again"),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, says: str) -> None:
    """File, line, column and value are named, and nothing is taken from it."""
    with pytest.raises(TableError, match=r"f\.csv") as caught:
        parse_certificates(text, "f.csv")
    assert says in str(caught.value)
