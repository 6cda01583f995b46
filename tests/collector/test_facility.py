"""PUE and its sisters: by measurement, never applied twice, and overhead that sums exactly."""

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.facility import (
    Category,
    Facility,
    FacilityError,
    Point,
    Pue,
    allocate_overhead,
    facility_microjoules,
)

KWH = 3_600_000_000_000
SITE = Facility(1300 * KWH, 1000 * KWH, {})


def pue(ratio: str, begin: datetime, end: datetime, *, partial: bool = False) -> Pue:
    """A declared PUE."""
    return Pue(Fraction(ratio), int(begin.timestamp()), int(end.timestamp()), Category.PDU_OUTPUT, "audit", partial)


def test_pue_and_cue_are_measured() -> None:
    """1,300 kWh for 1,000 kWh of IT: PUE 1.30; at 530.6 g/kWh a CUE of 0.68978 kg/kWh."""
    assert SITE.pue == Fraction("1.3")
    assert SITE.cue_grams_per_kwh(1300 * Fraction("530.6")) == Fraction("689.78")


def test_diesel_is_energy_of_the_site() -> None:
    """100 litres add 990 kWh to what the site used, and with it to the PUE."""
    site = Facility(1300 * KWH, 1000 * KWH, {"diesel_litres": Fraction(100)})
    assert site.total_microjoules == 2290 * KWH
    assert site.pue == Fraction("2.29")


def test_water_renewables_and_reuse_are_ratios() -> None:
    """WUE in litres a kWh of IT, REF and ERF as parts of all energy."""
    site = Facility(
        2000 * KWH,
        1000 * KWH,
        {},
        renewable_microjoules=500 * KWH,
        reused_microjoules=200 * KWH,
        water_litres=Fraction(1800),
    )
    assert site.wue_litres_per_kwh == Fraction("1.8")
    assert site.renewable_ratio == Fraction(1, 4)
    assert site.reused_ratio == Fraction(1, 10)


def test_each_tenant_bears_its_part_of_the_overhead() -> None:
    """300 kWh of overhead over three tenants sum to 300 kWh, to the microjoule."""
    shares = allocate_overhead(1300 * KWH, {"a": 333 * KWH + 1, "b": 333 * KWH + 1, "c": 334 * KWH - 2})
    assert sum(shares.values()) == 300 * KWH
    assert shares["a"] == shares["b"] < shares["c"]


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 2**62), min_size=1, max_size=8),
    st.integers(0, 2**70),
)
def test_overhead_is_divided_exactly_and_fairly(it: dict[str, int], overhead: int) -> None:
    """The parts sum to the whole; none is a microjoule or more off its exact share; the order of hosts changes nothing."""
    whole = sum(it.values())
    if whole == 0:
        with pytest.raises(FacilityError):
            allocate_overhead(overhead, it)
        return
    shares = allocate_overhead(whole + overhead, it)
    assert sum(shares.values()) == overhead
    assert all(abs(share - Fraction(overhead * it[host], whole)) < 1 for host, share in shares.items())
    assert allocate_overhead(whole + overhead, dict(reversed(list(it.items())))) == shares


def test_energy_of_the_facility_has_no_pue() -> None:
    """A reading that holds the overhead already is refused; others are multiplied."""
    year = pue("1.3", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    assert facility_microjoules(10, Point.NODE, year) == 13
    with pytest.raises(FacilityError, match="count it twice"):
        facility_microjoules(10, Point.FACILITY, year)


def test_a_pue_of_less_than_a_year_is_interim() -> None:
    """Twelve months, leap years included, are a PUE; a day less is an interim one; of a part of the site, a partial one."""
    begin = datetime(2024, 2, 29, tzinfo=UTC)
    assert pue("1.3", begin, datetime(2025, 2, 28, tzinfo=UTC)).name == "PUE"
    assert pue("1.3", begin, datetime(2025, 2, 27, tzinfo=UTC)).name == "interim PUE"
    assert pue("1.3", begin, datetime(2024, 3, 31, tzinfo=UTC), partial=True).name == "interim pPUE"


def test_impossible_figures_are_refused() -> None:
    """A PUE below 1, a site that uses less than its IT, no IT at all, unknown fuels: each says so."""
    day = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(FacilityError, match="impossible"):
        pue("0.99", day, datetime(2025, 1, 1, tzinfo=UTC))
    with pytest.raises(FacilityError, match="end after it begins"):
        pue("1.1", day, day)
    with pytest.raises(FacilityError, match="a part of the site only"):
        _ = Facility(9, 10, {}).pue
    with pytest.raises(FacilityError, match="no energy in the period"):
        _ = Facility(9, 0, {}).pue
    with pytest.raises(FacilityError, match="nothing can be divided"):
        _ = Facility(9, 0, {}).wue_litres_per_kwh
    with pytest.raises(FacilityError, match="'coal_tonnes'"):
        _ = Facility(9, 1, {"coal_tonnes": Fraction(1)}).total_microjoules
    with pytest.raises(FacilityError, match="hosts of another site"):
        allocate_overhead(9, {"a": 10})
