"""The market-based figure: what certificates cover, how it is divided, what the rest counts, and what is never added."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.certificates import MICROJOULES_PER_WH, Certificate, Kind, Refusal
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Gwp, Signal
from wattledger_collector.market import Instruments, Load, MarketBased, Part, Used, divide, reckon, used_by_others
from wattledger_collector.records import MICROJOULES_PER_KWH
from wattledger_collector.residual_mixes import Counted, DeclaredMix, Mixes

DAY = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp())
HOUR = 3600
KWH = MICROJOULES_PER_KWH
LIFECYCLE = FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION, Gwp.AR5)
DIRECT = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.CONSUMPTION)
CO2E, CO2 = Counted("lifecycle", "CO2e", "AR5"), Counted("direct", "CO2")


def load(
    kwh: int | str,
    site: str = "hall",
    *,
    hour: int = 0,
    market: str = "DE",
    rate: int | str | None = 400,
    kind: FactorKind | None = LIFECYCLE,
    is_outside: bool = False,
) -> Load:
    """Electricity of one hour of the day."""
    factor = None if rate is None else Fraction(rate)
    return Load(site, market, DAY + hour * HOUR, Fraction(kwh) * KWH, factor, kind, is_outside)


def solar(kwh: int, *, hour: int = 12, rate: str = "0", number: int = 1, market: str = "DE", gas: str = "") -> Certificate:
    """A certificate of one hour, retired for Example Ltd."""
    begin = DAY + hour * HOUR
    return Certificate(
        f"c{number}", Kind.PPA, "HKN", "", 0, 0, market, begin, begin + HOUR, kwh * 1000, Decimal(rate), "Example Ltd", "",
        gas=gas,
    )  # fmt: skip


def figure(
    loads: Sequence[Load],
    *certificates: Certificate,
    mixes: Sequence[DeclaredMix] = (),
    is_hourly: bool = False,
    used: dict[Certificate, Fraction] | None = None,
) -> MarketBased:
    """The market-based figure of the day."""
    instruments = Instruments(tuple(certificates), "Example Ltd", is_hourly, mixes=tuple(mixes))
    return reckon(loads, instruments, Mixes(mixes), from_seconds=DAY, to_seconds=DAY + 24 * HOUR, used=used)


def grams(made: MarketBased) -> Fraction:
    """All grams, where they count one thing."""
    (total,) = made.total.totals.values()
    return total


RESIDUAL = DeclaredMix("DE", Decimal(700), "AIB")


def test_covered_energy_has_the_certificates_rate_and_the_rest_the_residual_mix() -> None:
    """Of 10 kWh 4 are solar at 0 g, 6 are residual mix at 700 g; the grid factor has no part in it."""
    made = figure([load(10)], solar(4), mixes=[RESIDUAL])
    assert grams(made) == 4200
    assert made.total.energy == {Part.CERTIFICATES: 4 * KWH, Part.RESIDUAL_MIX: 6 * KWH}
    assert made.total.covered_ratio == Fraction(2, 5)
    assert made.total.location_totals == {CO2E: 4000}
    assert [(mix.source, mix.evidence, energy) for mix, energy in made.mixes] == [("declared", "AIB", Fraction(6 * KWH))]
    assert not made.is_location_based


def test_a_certificate_counts_at_the_rate_that_it_conveys() -> None:
    """Biomass at 50 g/kWh is 50 g/kWh, and not 0."""
    assert grams(figure([load(10)], solar(10, rate="50"))) == 500


def test_a_residual_mix_of_zero_is_used_as_zero() -> None:
    """0 is a value; only what is missing is missing."""
    made = figure([load(10)], mixes=[DeclaredMix("DE", Decimal(0), "e")])
    assert grams(made) == 0
    assert not made.stand_ins


def test_the_grid_average_stands_in_and_is_named() -> None:
    """Without a residual mix the part that nothing covers counts as location based, by market and reason."""
    made = figure([load(10)], solar(4))
    assert grams(made) == 2400
    assert made.stand_ins == {("DE", "no residual mix of DE is declared"): 6 * KWH}


PIECES = st.lists(
    st.tuples(
        st.integers(0, 10**16), st.integers(1, 3), st.sampled_from(["a", "b", "c"]), st.integers(0, 23), st.integers(0, 9)
    ),
    max_size=20,
)


def drawn(pieces: Sequence[tuple[int, int, str, int, int]]) -> list[Load]:
    """Loads of odd parts of a microjoule, at odd rates."""
    return [
        Load(site, "DE", DAY + hour * HOUR, Fraction(energy, part), Fraction(rate, 7), LIFECYCLE)
        for energy, part, site, hour, rate in pieces
    ]


@given(PIECES, st.booleans())
def test_without_instruments_and_mixes_it_is_the_location_based_figure_to_the_last_digit(
    pieces: list[tuple[int, int, str, int, int]], is_hourly: bool
) -> None:
    """Per site and in total, whatever the load, its factors and the matching are."""
    made = figure(drawn(pieces), is_hourly=is_hourly)
    for each in (made.total, *made.sites.values()):
        assert each.totals.get(CO2E, Fraction(0)) == each.location_totals.get(CO2E, Fraction(0))
        assert each.microjoules() == each.microjoules(Part.STAND_IN)
    assert made.is_location_based


@given(PIECES, st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 23), st.integers(0, 3)), max_size=6), st.booleans())
def test_no_part_of_a_microjoule_is_lost_or_made_in_the_division(
    pieces: list[tuple[int, int, str, int, int]], made_wh: list[tuple[int, int, int]], is_hourly: bool
) -> None:
    """What certificates cover is divided whole, no site has more than its load, and grams follow from energy."""
    certificates = [
        Certificate(
            f"c{n}", Kind.PPA, "R", "", 0, 0, "DE", DAY + hour * HOUR, DAY + hour * HOUR + HOUR, wh, Decimal(rate),
            "Example Ltd", "",
        )
        for n, (wh, hour, rate) in enumerate(made_wh)
    ]  # fmt: skip
    loads = drawn(pieces)
    made = figure(loads, *certificates, is_hourly=is_hourly)
    assert made.total.microjoules(Part.CERTIFICATES) == made.matching.covered_microjoules
    assert made.total.microjoules() == sum((each.microjoules for each in loads), Fraction(0))
    for site, each in made.sites.items():
        assert each.microjoules() == sum((one.microjoules for one in loads if one.site == site), Fraction(0))
        assert all(energy >= 0 for energy in each.energy.values())
    expected = sum(
        (one.microjoules * Fraction(one.certificate.grams_per_kwh or 0) for one in made.matching.allocated), Fraction(0)
    )
    assert sum(made.total.grams.get(Part.CERTIFICATES, {}).values(), Fraction(0)) == expected / KWH


@given(PIECES, st.integers(1, 10**7), st.booleans())
def test_how_the_load_is_cut_has_no_part_in_the_figure(
    pieces: list[tuple[int, int, str, int, int]], wh: int, is_hourly: bool
) -> None:
    """Halves of each load, in another order, make the same figures to the last digit."""
    loads = drawn(pieces)
    halves = [
        Load(one.site, one.market, one.at_seconds, one.microjoules / 2, one.grams_per_kwh, one.kind)
        for one in reversed(loads)
        for _ in range(2)
    ]
    certificate = solar(wh // 1000 + 1, rate="3")
    whole, cut = (figure(each, certificate, mixes=[], is_hourly=is_hourly) for each in (loads, halves))
    assert whole.sites == cut.sites
    assert whole.total == cut.total


def test_by_year_what_is_covered_is_divided_among_the_sites_by_load() -> None:
    """8 kWh of certificates for loads of 30 and 10 kWh: 6 and 2; each site's rest is reckoned by its own factor."""
    made = figure([load(30, "a", hour=3), load(10, "b", hour=20, rate=100)], solar(8))
    assert {site: each.energy for site, each in made.sites.items()} == {
        "a": {Part.CERTIFICATES: 6 * KWH, Part.STAND_IN: 24 * KWH},
        "b": {Part.CERTIFICATES: 2 * KWH, Part.STAND_IN: 8 * KWH},
    }
    assert grams(made) == 24 * 400 + 8 * 100


def test_certificates_of_several_rates_never_give_a_site_more_than_its_load() -> None:
    """Two rates cover three odd loads wholly; the odd microjoule of the one is not given to the same site by the other."""
    odd = [2_400_000_001, 2_400_000_001, 2_399_999_998]
    by_site = zip("abc", odd, strict=True)
    loads = [Load(site, "DE", DAY, Fraction(energy), Fraction(1), LIFECYCLE) for site, energy in by_site]
    one, other = (replace(solar(1, rate=str(rate), number=rate), volume_wh=1) for rate in (1, 2))
    made = figure(loads, one, other)
    assert [each.energy for each in made.sites.values()] == [{Part.CERTIFICATES: energy} for energy in odd]


def test_by_hour_it_is_divided_among_those_that_used_power_in_the_hour() -> None:
    """Solar of noon is for the site that ran at noon; what is over is lost to the night."""
    made = figure([load(5, "a", hour=12), load(10, "b", hour=23)], solar(8), is_hourly=True)
    assert made.sites["a"].energy == {Part.CERTIFICATES: 5 * KWH}
    assert made.sites["b"].energy == {Part.STAND_IN: 10 * KWH}
    assert [over for _, over in made.matching.surplus] == [3 * KWH]


def test_a_market_is_not_another() -> None:
    """A French certificate covers the site in France alone, and with no load there it is refused."""
    made = figure([load(5, "a"), load(5, "b", market="FR")], solar(9, market="FR"))
    assert made.sites["a"].covered_ratio == 0
    assert made.sites["b"].covered_ratio == 1
    (refused,) = figure([load(5, "a")], solar(9, market="FR")).matching.refused
    assert refused.refusal is Refusal.OTHER_MARKET


def test_a_dated_mix_counts_what_lies_in_its_time() -> None:
    """Half of the day at 700 g, half at 300 g; covered by year, both halves are covered alike."""
    mixes = [
        DeclaredMix("DE", Decimal(700), "2023", to_seconds=DAY + 12 * HOUR),
        DeclaredMix("DE", Decimal(300), "2024", from_seconds=DAY + 12 * HOUR),
    ]
    loads = [load(10, hour=3), load(10, hour=12)]
    assert grams(figure(loads, mixes=mixes)) == 10_000
    made = figure(loads, solar(10), mixes=mixes)
    assert grams(made) == 5_000
    assert [(mix.evidence, energy) for mix, energy in made.mixes] == [
        ("2023", Fraction(5 * KWH)),
        ("2024", Fraction(5 * KWH)),
    ]


def test_unlike_rates_stay_apart() -> None:
    """A residual mix of direct CO2 beside lifecycle CO2e is a figure of its own; an untyped one is like the grid's."""
    typed = DeclaredMix("FR", Decimal(50), "e", counted=Counted("direct", "CO2"))
    made = figure([load(10), load(10, "b", market="FR")], mixes=[typed])
    assert made.total.totals == {CO2: 500, CO2E: 4000}
    assert made.total.location_totals == {CO2E: 8000}
    untyped = figure([load(10), load(10, "b", market="FR")], mixes=[DeclaredMix("FR", Decimal(50), "e")])
    assert untyped.total.totals == {CO2E: 4500}


def test_a_certificate_may_say_what_its_rate_counts() -> None:
    """50 g of CO2 are not added to grams of CO2e, with which the grid is reckoned."""
    made = figure([load(10)], solar(5, rate="50", gas="CO2"))
    assert made.total.totals == {Counted("lifecycle", "CO2"): 250, CO2E: 2000}


def test_energy_without_any_rate_is_uncovered_and_never_zero() -> None:
    """Without a grid factor a certificate or a residual mix gives a rate; the rest has none, and is in no figure."""
    bare = load(10, rate=None, kind=None)
    made = figure([bare], solar(4))
    assert made.total.energy == {Part.CERTIFICATES: 4 * KWH, Part.UNCOVERED: 6 * KWH}
    assert sum(made.total.totals.values()) == 0
    assert Part.UNCOVERED not in made.total.grams
    assert not made.stand_ins
    mixed = figure([bare], solar(4), mixes=[RESIDUAL])
    assert mixed.total.energy == {Part.CERTIFICATES: 4 * KWH, Part.RESIDUAL_MIX: 6 * KWH}


def test_what_is_outside_of_scope_2_is_covered_by_nothing() -> None:
    """A landlord's cooling stays location based, and takes no certificate from the rest."""
    made = figure([load(10), load(5, is_outside=True)], solar(12), mixes=[RESIDUAL])
    assert made.total.energy == {Part.CERTIFICATES: 10 * KWH, Part.OUTSIDE_SCOPE_2: 5 * KWH}
    assert grams(made) == 2000
    assert made.total.covered_ratio == 1


def test_what_a_certificate_gave_to_another_period_is_gone() -> None:
    """Of 10 kWh 7 were used before: 3 cover load now, and are what this figure uses."""
    made = figure([load(10)], solar(10), used={solar(10): Fraction(7 * KWH)})
    assert made.used == {solar(10): 3 * KWH}


def test_other_statements_are_those_of_another_time_or_other_sites() -> None:
    """A statement of the same time and site speaks of the same energy; one beside it in time or place has used its part."""
    one = {solar(10): Fraction(MICROJOULES_PER_WH)}
    month = (DAY, DAY + 24 * HOUR)

    def left(*statements: Used, site: str | None = None) -> Fraction:
        return sum(used_by_others(statements, *month, site).values(), Fraction(0))

    assert left(Used(*month, None, one)) == 0
    assert left(Used(DAY - HOUR, DAY, None, one)) == MICROJOULES_PER_WH
    assert left(Used(DAY - HOUR, DAY + 1, None, one)) == 0
    assert left(Used(*month, "a", one), site="b") == MICROJOULES_PER_WH
    assert left(Used(*month, "a", one), site="a") == 0
    assert left(Used(*month, "a", one)) == 0
    assert left(Used(*month, None, one), site="a") == 0
    assert left(Used(month[1], month[1] + 1, None, one), Used(DAY - 9, DAY, "a", one)) == 2 * MICROJOULES_PER_WH


def test_an_amount_is_divided_by_largest_remainders() -> None:
    """One indivisible part goes to the larger remainder, of equal ones to the first; the sum is the amount."""
    assert divide(Fraction(1), [Fraction(1), Fraction(2)]) == [0, 1]
    assert divide(Fraction(1), [Fraction(1), Fraction(1)]) == [1, 0]
    assert divide(Fraction(1), [Fraction(1, 2), Fraction(3, 2)]) == [Fraction(1, 2), Fraction(1, 2)]
    assert divide(Fraction(7, 3), [Fraction(7, 3)]) == [Fraction(7, 3)]


def test_a_site_whose_parts_outweigh_each_other_is_covered_in_sum() -> None:
    """Signed parts of one site, as a node meter's residual has them, are covered like the sum that they make."""
    made = figure([load(6), load(-1, hour=2, rate=100), load(5, "b")], solar(4))
    assert made.total.microjoules() == 10 * KWH
    assert made.sites["hall"].microjoules(Part.CERTIFICATES) == made.sites["b"].microjoules(Part.CERTIFICATES) == 2 * KWH
