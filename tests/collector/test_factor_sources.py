"""Answers of providers become factors of the right type; what they lack is missing, never 0."""

import ast
import csv
import re
import sys
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from tests.test_architecture import IMPURE, imports

from wattledger_collector import factor_sources
from wattledger_collector.factor_checks import compare_labels, count_hours
from wattledger_collector.factor_sources import PROVIDERS, watttime
from wattledger_collector.factor_sources.eia930 import hour_of
from wattledger_collector.factor_sources.mix import IPCC_LIFECYCLE, mix_intensity
from wattledger_collector.factor_sources.provider import AnswerError, Parsed, Question
from wattledger_collector.factors import Basis, Boundary, Factor, FactorKind, Gas, Signal, Tier

FIXTURES = Path(__file__).parent.parent / "fixtures/factors"
HOUR = 3600


def at(text: str) -> int:
    """Seconds of an ISO time."""
    return int(datetime.fromisoformat(text).timestamp())


def question(zone: str, area: str, begin: str = "2024-05-01T00:00Z", end: str = "2024-05-02T00:00Z") -> Question:
    """What is asked of a provider."""
    return Question(zone, area, at(begin), at(end), date(2024, 5, 2))


def parse(name: str, path: str, asked: Question) -> Parsed:
    """What a recorded answer says."""
    return PROVIDERS[name].parse((FIXTURES / path).read_text(encoding="utf-8"), asked)


def spans(parsed: Parsed) -> list[tuple[str, int, str, Tier]]:
    """Beginning, length in seconds, value and tier of each factor."""
    return [
        (
            factor.valid_from[11:16] or "00:00",
            factor.valid_to_seconds - factor.valid_from_seconds,
            f"{factor.value:f}",
            factor.tier,
        )
        for factor in parsed.factors
    ]


DE = question("DE", "DE")
CALIFORNIA = question("US-CAL-CISO", "CAISO_NORTH")
GB = question("GB", "GB", "2024-05-01T12:00Z")
FRANCE = question("FR", "FR", "2023-09-21T00:00Z", "2023-09-22T00:00Z")


def test_electricity_maps_keeps_what_is_estimated_and_how() -> None:
    """An estimate is of tier F1 and names its method; 0 is a value, null is missing."""
    parsed = parse("electricitymaps", "electricity_maps/de.json", DE)

    assert spans(parsed) == [
        ("10:00", HOUR, "302", Tier.F0_MEASURED),
        ("11:00", HOUR, "0", Tier.F0_MEASURED),
        ("13:00", HOUR, "314", Tier.F1_PROVIDER_ESTIMATED),
    ]
    assert parsed.missing == ("Electricity Maps has no value for DE at 2024-05-01T12:00Z",)
    assert parsed.factors[2].document.endswith("DE, lifecycle, estimated, TIME_SLICER_AVERAGE")
    assert parsed.factors[0].kind == FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.CONSUMPTION)


def test_electricity_maps_direct_is_a_source_and_a_type_of_its_own() -> None:
    """Asked for direct factors, an answer with those of the life cycle is refused."""
    with pytest.raises(AnswerError, match=r"has data\[0\]\.emissionFactorType 'lifecycle': expected direct"):
        parse("electricitymaps-direct", "electricity_maps/de.json", DE)
    text = (FIXTURES / "electricity_maps/de.json").read_text().replace('"lifecycle"', '"direct"')
    (first, *_) = PROVIDERS["electricitymaps-direct"].parse(text, DE).factors
    assert (first.source, first.kind.boundary) == ("electricitymaps-direct", Boundary.DIRECT)


def test_electricity_maps_is_asked_with_its_key_in_a_header() -> None:
    """The address has no secret, so that it may be logged by proxies."""
    (request,) = PROVIDERS["electricitymaps"].requests(DE, "secret")

    assert "zone=DE&start=2024-05-01T00:00Z&end=2024-05-02T00:00Z&emissionFactorType=lifecycle" in request.url
    assert "secret" not in request.url
    assert request.headers == {"auth-token": "secret"}


def test_made_up_values_of_a_sandbox_are_refused() -> None:
    """A key that is for trying out is answered with figures of nowhere: one such row, and nothing is taken."""
    with pytest.raises(AnswerError, match=r"made-up values \(SANDBOX_MODE_DATA\): the key is one of its sandbox"):
        parse("electricitymaps", "electricity_maps/sandbox.json", DE)


def test_electricity_maps_recent_history_has_another_name_and_no_granularity() -> None:
    """The list is called `history` there, and its rows are hours."""
    text = (FIXTURES / "electricity_maps/de.json").read_text()
    history = text.replace('"temporalGranularity": "hourly", "data"', '"history"')
    assert history != text
    assert PROVIDERS["electricitymaps"].parse(history, DE) == PROVIDERS["electricitymaps"].parse(text, DE)


def test_watttime_is_marginal_and_exact() -> None:
    """Pounds become grams to the last digit; model and version stay with the value; the type is marginal."""
    parsed = parse("watttime", "watttime/moer.json", CALIFORNIA)

    assert spans(parsed) == [
        ("00:00", 300, "394.625361900", Tier.F1_PROVIDER_ESTIMATED),
        ("00:05", 300, "195.03700802971", Tier.F1_PROVIDER_ESTIMATED),
        ("00:10", 300, "0.00000000", Tier.F1_PROVIDER_ESTIMATED),
    ]
    assert parsed.missing == ("WattTime has no value for CAISO_NORTH at 2024-05-01T00:15Z",)
    (factor, *_) = parsed.factors
    assert factor.kind.signal is Signal.MARGINAL
    assert not factor.kind.is_location_based
    assert factor.document.endswith("CAISO_NORTH, co2_moer, model 2023-03-01, version 3.2")


def test_watttime_says_which_inputs_were_imputed() -> None:
    """Points of v3 may have no version; what the provider says of its inputs stays with the value."""
    text = (FIXTURES / "watttime/moer.json").read_text()
    changed = text.replace('"version": "3.2"', '"imputed_data_used": true', 1).replace("3.2", "3.3")
    first, second, _ = PROVIDERS["watttime"].parse(changed, CALIFORNIA).factors
    assert first.document.endswith("model 2023-03-01, inputs imputed")
    assert second.document.endswith("model 2023-03-01, version 3.3")


def test_watttime_average_is_not_taken_from_a_marginal_answer() -> None:
    """The two signals are different things, and the answer says which it is."""
    with pytest.raises(AnswerError, match=r"has meta\.signal_type 'co2_moer': expected co2_aoer"):
        parse("watttime-average", "watttime/moer.json", CALIFORNIA)
    text = (FIXTURES / "watttime/moer.json").read_text().replace("co2_moer", "co2_aoer")
    (factor, *_) = PROVIDERS["watttime-average"].parse(text, CALIFORNIA).factors
    assert factor.kind.is_location_based


def test_watttime_asks_in_utc_and_logs_in_first() -> None:
    """User and password give a token, and the token the values; times carry Z."""
    request = watttime.login("", "anna:pass")
    assert request.headers == {"Authorization": "Basic YW5uYTpwYXNz"}
    token = watttime.token((FIXTURES / "watttime/login.json").read_text())
    (historical,) = PROVIDERS["watttime"].requests(CALIFORNIA, token)
    assert historical.headers == {"Authorization": "Bearer abc.def.ghi"}
    assert "start=2024-05-01T00:00Z&end=2024-05-02T00:00Z&signal_type=co2_moer" in historical.url


def test_great_britain_has_forecasts_until_it_has_actual_values() -> None:
    """An actual 0 is 0; where both are null nothing holds; the half-hour before the question is left out."""
    parsed = parse("uk-carbon-intensity", "uk_carbon_intensity/day.json", GB)

    assert spans(parsed) == [
        ("12:00", 1800, "263", Tier.F0_MEASURED),
        ("12:30", 1800, "258", Tier.F1_PROVIDER_ESTIMATED),
        ("13:30", 1800, "0", Tier.F0_MEASURED),
    ]
    assert parsed.missing == ("Carbon Intensity API has neither a forecast nor an actual value at 2024-05-01T13:00Z",)
    assert all(factor.includes_td for factor in parsed.factors)


def test_france_of_a_real_day_is_in_quarters_and_direct() -> None:
    """97 quarters from local 02:00 on, in UTC, none missing and none twice; g/kWh as published."""
    parsed = parse("rte-eco2mix", "rte_eco2mix/2023-09-21.json", FRANCE)

    assert len(parsed.factors) == 97
    assert parsed.factors[0].valid_from == "2023-09-21"
    assert all(one.valid_to_seconds == other.valid_from_seconds for one, other in pairwise(parsed.factors))
    assert [int(factor.value) for factor in parsed.factors[:3]] == [12, 12, 13]
    assert (min(factor.value for factor in parsed.factors), max(factor.value for factor in parsed.factors)) == (
        Decimal(12),
        Decimal(33),
    )
    assert {str(factor.kind) for factor in parsed.factors} == {"average direct CO2, production"}
    assert {factor.document for factor in parsed.factors} == {"eco2mix-national-tr, Données temps réel"}


def test_france_is_read_from_each_form_of_the_address() -> None:
    """The export is a list, the second generation of the records has `results`."""
    row = '{"date_heure": "2023-09-21T00:00:00+00:00", "taux_co2": 12, "nature": null}'
    for text in (f"[{row}]", f'{{"total_count": 1, "results": [{row}]}}'):
        (factor,) = PROVIDERS["rte-eco2mix"].parse(text, FRANCE).factors
        assert (factor.value, factor.document) == (Decimal(12), "eco2mix-national-tr, nature not told")
    (request,) = PROVIDERS["rte-eco2mix"].requests(FRANCE, "")
    assert "where=date_heure%3E%3Ddate%272023-09-21T00:00Z%27%20and%20" in request.url


def test_the_doubled_hour_of_local_time_is_two_hours() -> None:
    """On 2023-10-29 France has 02:00 twice; the offsets tell them apart, and both are kept."""
    rows = ",".join(
        f'{{"date_heure": "2023-10-29T02:00:00{offset}", "taux_co2": {value}, "nature": "x"}}'
        for offset, value in (("+02:00", 20), ("+01:00", 30))
    )

    first, second = PROVIDERS["rte-eco2mix"].parse(f"[{rows}]", FRANCE).factors
    assert (second.valid_from_seconds - first.valid_from_seconds, first.value, second.value) == (
        HOUR,
        Decimal(20),
        Decimal(30),
    )


def test_the_doubled_hour_without_its_offset_is_refused() -> None:
    """Written with one offset, one instant would have two values."""
    rows = ",".join(
        f'{{"date_heure": "2023-10-29T02:00:00+02:00", "taux_co2": {value}, "nature": "x"}}' for value in (20, 30)
    )
    with pytest.raises(AnswerError, match="has 20 and 30 g/kWh for FR at 2023-10-29T00:00Z: only one can hold"):
        PROVIDERS["rte-eco2mix"].parse(f"[{rows}]", FRANCE)


def test_a_mix_is_the_published_intensity_where_the_factors_are_the_publishers() -> None:
    """Real hours of California and PJM: with the factors that their publisher used, the same figure to nine digits."""
    theirs = {"WND": 11, "SUN": 41, "WAT": 24, "OIL": 650, "NG": 490, "COL": 820, "NUC": 12, "OTH": 230}
    factors = {fuel: Decimal(value) for fuel, value in theirs.items()}
    checked = 0
    for name in ("ciso_mix.csv", "pjm_mix.csv"):
        with (FIXTURES / "eia930" / name).open() as lines:
            for row in csv.DictReader(lines):
                if row["avg_CI"]:
                    mix = mix_intensity({fuel: Decimal(row[fuel]) for fuel in theirs}, factors)
                    assert mix is not None
                    assert float(mix.grams_per_kwh) == pytest.approx(float(row["avg_CI"]), abs=1e-6)
                    checked += 1
    assert checked == 13


def test_what_has_no_factor_is_stated_as_uncertainty() -> None:
    """A tenth of unknown fuel beside wind may be anything up to coal; a quarter is too much, and all wind is sure."""
    wind = {"wind": Decimal(90), "OTH": Decimal(10)}

    mix = mix_intensity(wind, IPCC_LIFECYCLE)

    assert mix is not None
    assert mix.grams_per_kwh == Decimal(11)
    # A tenth of (820 - 11), relative to 11.
    assert mix.uncertainty_ratio == Decimal("7.354545")
    assert mix_intensity({"wind": Decimal(3), "OTH": Decimal(1)}, IPCC_LIFECYCLE) is None
    sure = mix_intensity({"wind": Decimal(3)}, IPCC_LIFECYCLE)
    assert sure is not None
    assert sure.uncertainty_ratio is None


def test_a_plant_that_takes_power_does_not_generate() -> None:
    """Solar fields at night are slightly below 0; nothing generated is no mix, and not 0 g/kWh."""
    mix = mix_intensity({"gas": Decimal(100), "solar": Decimal(-3)}, IPCC_LIFECYCLE)

    assert mix is not None
    assert mix.grams_per_kwh == Decimal(490)
    assert mix_intensity({"solar": Decimal(-3)}, IPCC_LIFECYCLE) is None
    assert mix_intensity({}, IPCC_LIFECYCLE) is None


def california(begin: str, end: str) -> Question:
    """Asked of EIA-930."""
    return question("US-CAL-CISO", "CISO", begin, end)


def test_eia_hours_end_at_their_label_but_for_california_before_its_change() -> None:
    """The rule has a date and an authority."""
    change = at("2022-06-16T00:00Z")

    assert hour_of("CISO", change - HOUR) == (change - HOUR, change)
    assert hour_of("CISO", change) == (change - HOUR, change)
    assert hour_of("PJM", change - HOUR) == (change - 2 * HOUR, change - HOUR)


def test_eia_of_real_hours_across_the_change_has_no_hour_twice() -> None:
    """Hours before the change begin at their label, those since end there; the hour that both name is the newer's."""
    parsed = parse("eia930", "eia930/ciso.json", california("2022-06-13T16:00Z", "2022-06-16T04:00Z"))

    begins = [factor.valid_from for factor in parsed.factors]
    assert begins == sorted(set(begins))
    # Labels 20 to 23 of June 15 begin there, but for the last, whose hour label 0 of June 16 has as its end.
    assert begins[3:] == [
        *(f"2022-06-15T{hour}:00:00Z" for hour in (20, 21, 22, 23)),
        "2022-06-16",
        "2022-06-16T01:00:00Z",
        "2022-06-16T02:00:00Z",
    ]
    with (FIXTURES / "eia930/ciso_mix.csv").open() as lines:
        (row,) = (row for row in csv.DictReader(lines) if row["timestamp"].startswith("2022-06-16 00"))
    names = {"COL": "coal", "NG": "gas", "NUC": "nuclear", "OIL": "oil", "SUN": "solar", "WAT": "hydro", "WND": "wind"}
    newer = mix_intensity({names.get(fuel, fuel): Decimal(row[fuel]) for fuel in (*names, "OTH")}, IPCC_LIFECYCLE)
    assert newer is not None
    assert parsed.factors[6].value == newer.grams_per_kwh
    assert parsed.missing == (
        "the mix of EIA-930 for CISO at 2022-06-13T18:00Z lacks COL, NG, NUC, OIL, OTH, SUN, WAT, WND",
    )


def test_eia_of_another_authority_reports_its_missing_hours() -> None:
    """PJM has no figures from 2022-03-13T07 on: two hours have a factor, two are told."""
    parsed = parse("eia930", "eia930/pjm.json", question("US-MIDA-PJM", "PJM", "2022-03-13T05:00Z", "2022-03-13T09:00Z"))

    assert [factor.valid_from for factor in parsed.factors] == ["2022-03-13T04:00:00Z", "2022-03-13T05:00:00Z"]
    assert len(parsed.missing) == 2
    # The publisher's own figure, which counts `other` as biomass, lies within the stated uncertainty.
    first = parsed.factors[0]
    assert first.uncertainty_ratio is not None
    assert abs(first.value - Decimal("340.467563")) <= first.value * first.uncertainty_ratio
    assert first.kind == FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION)


def test_an_hour_without_one_of_its_fuels_has_no_factor() -> None:
    """Gas that was not told is not gas that did not burn."""
    text = (FIXTURES / "eia930/pjm.json").read_text()
    lines = [line for line in text.splitlines() if not ('"2022-03-13T06"' in line and '"NG"' in line)]
    text = "\n".join(lines).replace('"total": "32"', '"total": "31"')

    parsed = PROVIDERS["eia930"].parse(text, question("US-MIDA-PJM", "PJM"))

    assert len(parsed.factors) == 1
    assert "the mix of EIA-930 for PJM at 2022-03-13T05:00Z lacks NG" in parsed.missing


def test_eia_storage_is_no_generation_and_kinds_of_the_sun_are_added() -> None:
    """4,000 MWh out of batteries are left out; fields with batteries beside those without, which take power at night."""
    (factor,) = parse("eia930", "eia930/storage.json", question("US-TEX-ERCO", "ERCO")).factors

    # (1000 x 820 + 2000 x 490 + 1000 x 38 + 1000 x 48) / 5000
    assert factor.value == Decimal("377.2")
    assert factor.uncertainty_ratio is None


def real_june(first_day: int, last_day: int, *, moved_days: int, source: str) -> list[Factor]:
    """Real hours of California in June 2022, with labels taken for beginnings, moved by some days.

    The value is solar generation, whose rhythm is that of the sun and changes little in two weeks.
    """
    pattern = parse("eia930", "eia930/pjm.json", question("US-MIDA-PJM", "PJM")).factors[0]
    rows = []
    with (FIXTURES / "eia930/ciso_june_2022.csv").open() as lines:
        for row in csv.DictReader(lines):
            moment = datetime.fromisoformat(row["timestamp"])
            if first_day <= moment.day <= last_day and row["SUN"]:
                begin = int(moment.timestamp()) + moved_days * 86_400
                rows.append(
                    replace(
                        pattern,
                        zone="US-CAL-CISO",
                        source=source,
                        value=Decimal(row["SUN"]),
                        valid_from_seconds=begin,
                        valid_to_seconds=begin + HOUR,
                    )
                )
    return rows


def test_the_real_change_of_california_is_seen_by_comparing_labels() -> None:
    """Days from June 17 on, laid over those before, are an hour late where both labels are taken for beginnings."""
    before = real_june(8, 13, moved_days=0, source="before")
    since = real_june(17, 22, moved_days=-9, source="since")

    finding = compare_labels(since, before)

    assert finding is not None
    assert finding.startswith("US-CAL-CISO since is 1 h late against before")
    right = [
        replace(row, valid_from_seconds=row.valid_from_seconds - HOUR, valid_to_seconds=row.valid_to_seconds - HOUR)
        for row in since
    ]
    assert compare_labels(right, before) is None
    assert [count.text for count in count_hours(before)] == ["US-CAL-CISO before 2022: 143 of 144 hours"]


GERMANY = question("DE", "10Y1001A1001A82H")


def test_entsoe_spans_follow_the_answers_lengths() -> None:
    """An hour, then quarters, then halves; the quarter without wind has none; storage is no generation."""
    parsed = parse("entsoe", "entsoe/de.xml", GERMANY)

    assert [(begin, seconds) for begin, seconds, _, _ in spans(parsed)] == [
        ("10:00", 3600), ("11:00", 900), ("11:15", 900), ("11:30", 900), ("12:00", 1800), ("12:30", 1800),
    ]  # fmt: skip
    assert parsed.missing == ("the mix of ENTSO-E for 10Y1001A1001A82H at 2024-05-01T11:45Z lacks wind",)
    # (1000 x 820 + 3000 x 11) / 4000; waste, 100 of 4100, has no factor.
    assert parsed.factors[0].value == Decimal("213.25")
    assert parsed.factors[0].uncertainty_ratio == Decimal("0.069396")


def test_entsoe_curve_types_tell_what_a_left_out_point_means() -> None:
    """In a stepwise curve (A03) it holds the value before; in a plain one it is missing."""
    text = (FIXTURES / "entsoe/de.xml").read_text()
    parsed = PROVIDERS["entsoe"].parse(text.replace("<curveType>A03", "<curveType>A01"), GERMANY)

    assert [begin for begin, *_ in spans(parsed)] == ["10:00", "11:00", "12:00"]
    assert len(parsed.missing) == 4


def test_entsoe_without_data_is_no_error_and_a_refusal_is() -> None:
    """Both have the code 999: the words tell that there is nothing yet from a question that was not answered."""
    parsed = parse("entsoe", "entsoe/no_data.xml", GERMANY)
    assert parsed.factors == ()
    assert parsed.missing == ("ENTSO-E has no data for 10Y1001A1001A82H from 2024-05-01T00:00Z",)
    with pytest.raises(AnswerError, match=r"refused the question: The number of instances \(149\) exceeds .* \(999\)"):
        parse("entsoe", "entsoe/refused.xml", GERMANY)


def test_tables_are_sources_like_others() -> None:
    """A zone of a bundled file, in any unit of a CSV file; a zone that it lacks is missing."""
    china = Path(factor_sources.__file__).parent.parent / "bundled_factors/china.csv"
    text = china.read_text(encoding="utf-8")

    assert len(PROVIDERS["bundled"].parse(text, question("CN", "china.csv")).factors) >= 3
    kilograms = text.replace("536.6000,g/kWh", "0.5366,t/MWh")
    rows = PROVIDERS["csv"].parse(kilograms, replace(question("CN", "CN"), address="/etc/china.csv")).factors
    assert Decimal("536.6") in {row.value for row in rows}
    assert PROVIDERS["bundled"].parse(text, question("FR", "china.csv")).missing == ("china.csv has no row of zone FR",)
    with pytest.raises(AnswerError, match=r"china\.csv line 2 has unit 'Mt/MWh'"):
        PROVIDERS["csv"].parse(text.replace("g/kWh", "Mt/MWh", 1), question("CN", "china.csv"))


EM = "electricity_maps/de.json"
WT = "watttime/moer.json"
UK = "uk_carbon_intensity/day.json"
XML = "entsoe/de.xml"


@pytest.mark.parametrize(
    ("name", "path", "change", "sentence"),
    [
        ("electricitymaps", EM, ('"data": [', '"data": ['[:-1]), "is not JSON at line 4 column 3: Expecting"),
        ("electricitymaps", EM, ("302", '"302 g"'), "has data[0].carbonIntensity '302 g': expected a number"),
        ("electricitymaps", EM, ("302", "-1"), "gives -1 g/kWh for DE at 2024-05-01T10:00Z: no grid has less than 0"),
        ("electricitymaps", EM, ("302", "302000"), "no grid has less than 0 or more than 5000"),
        ("electricitymaps", EM, ("302", "NaN"), "has NaN, which is no number"),
        ("electricitymaps", EM, ("302", "true"), "has data[0].carbonIntensity True: expected a number"),
        ("electricitymaps", EM, ('"zone": "DE", "t', '"zone": "FR", "t'), "has zone 'FR': asked for DE"),
        ("electricitymaps", EM, ("hourly", "weekly"), "has temporalGranularity 'weekly': expected 5_minutes or 15_minutes"),
        (
            "electricitymaps",
            EM,
            ("10:00:00.000Z", "10:00:00"),
            "datetime '2024-05-01T10:00:00': the time lacks its",
        ),
        (
            "electricitymaps",
            EM,
            ("2024-05-01T10", "yesterday"),
            "datetime 'yesterday:00:00.000Z': expected an ISO",
        ),
        ("electricitymaps", EM, ("false", "null"), "has data[0].isEstimated None: expected true or false"),
        ("electricitymaps", EM, ('"data"', '"rows"'), "has history None: expected a list"),
        ("electricitymaps", EM, ("302", '"Infinity"'), "has data[0].carbonIntensity 'Infinity': expected a finite number"),
        ("electricitymaps", EM, ("10:00:00.000Z", "10:00:00.500Z"), "00.500Z': expected whole seconds"),
        ("electricitymaps", EM, ('"data": [', '"data": [302, '), "has data[0] 302: expected an object"),
        ("electricitymaps", EM, ('"data": [', '"data": [' + "0," * 100_000), "has 100004 rows in data: too many for one"),
        ("electricitymaps", EM, ("302", "9" * 5_000), "has a number of thousands of digits"),
        ("electricitymaps", EM, ('"temporal', '"x": ' + "[" * 99_999 + '"'), "is nested too deeply"),
        ("watttime", WT, ("lbs_co2_per_mwh", "kg_co2_per_mwh"), "has meta.units 'kg_co2_per_mwh': expected lbs_co2_per_mwh"),
        ("watttime", WT, ("300", "0"), "has meta.data_point_period_seconds 0: expected 1 to 3600 seconds"),
        ("watttime", WT, ('"date": "2023-03-01"', ""), "has meta.model.date None: expected a text"),
        ("watttime", WT, ("CAISO_NORTH", "ERCOT"), "has meta.region 'ERCOT': expected CAISO_NORTH"),
        (
            "uk-carbon-intensity",
            UK,
            ("T12:30Z", "T13:30Z"),
            "to '2024-05-01T13:30Z': expected half an hour from",
        ),
        ("uk-carbon-intensity", UK, ('{"data"', '{"error"'), "has data None: expected a list"),
        ("entsoe", XML, ("</GL_", "</XX_"), "is not XML at line"),
        ("entsoe", XML, ("<GL_MarketDocument", "<!DOCTYPE a><GL_MarketDocument"), "declares a document type"),
        ("entsoe", XML, ("PT60M", "P1D"), "has TimeSeries[0].Period[0].resolution 'P1D': expected PT15M or PT30M or PT60M"),
        ("entsoe", XML, ("MAW", "MWH"), "has TimeSeries[0].quantity_Measure_Unit.name 'MWH': expected MAW"),
        ("entsoe", XML, ("<quantity>1000", "<quantity>many"), "Point[0].quantity 'many': expected a number"),
        (
            "entsoe",
            XML,
            ("<position>1", "<position>2"),
            "Period[0].Point[0].position '2': it has no place",
        ),
        ("entsoe", XML, ("<psrType>B05</psrType>", ""), "has no MktPSRType.psrType in TimeSeries[0]: every one needs it"),
        ("entsoe", XML, ("2024-05-01T11:00Z</end>", "9999-05-01T11:00Z</end>"), "expected up to a year"),
        ("eia930", "eia930/pjm.json", ('"total": "32"', '"total": "6000"'), "has 32 of 6000 rows: ask for a shorter span"),
        ("entsoe", XML, ("2024-05-01T10:00Z</start>", "then</start>"), "Period[0].start 'then': expected a time in UTC"),
        ("eia930", "eia930/pjm.json", ('"2022-03-13T05"', "null"), "has response.data[0].period None: expected a text"),
        ("eia930", "eia930/pjm.json", ("T05", "T5h"), "has response.data[0].period '2022-03-13T5h': expected an hour"),
        (
            "eia930",
            "eia930/pjm.json",
            ('"NG"', '"COL"'),
            "data[1].fueltype 'COL': given twice for 2022-03-13T05",
        ),
        (
            "eia930",
            "eia930/pjm.json",
            ("megawatthours", "MW"),
            "data[0].value-units 'MW': expected megawatthours",
        ),
        ("rte-eco2mix", "rte_eco2mix/2023-09-21.json", ('"records"', '"rows"'), "has neither rows, results nor records"),
        ("rte-eco2mix", "rte_eco2mix/2023-09-21.json", ("02:45:00", "02:50:00"), "expected a quarter of an hour"),
    ],
)
def test_each_malformed_answer_is_one_sentence(name: str, path: str, change: tuple[str, str], sentence: str) -> None:
    """It names the provider, the place and the value, and nothing of the answer is used."""
    asked = {"electricitymaps": DE, "watttime": CALIFORNIA, "uk-carbon-intensity": GB, "entsoe": GERMANY,
             "rte-eco2mix": FRANCE, "eia930": question("US-MIDA-PJM", "PJM")}[name]  # fmt: skip
    text = (FIXTURES / path).read_text(encoding="utf-8")
    assert change[0] in text
    with pytest.raises(AnswerError) as caught:
        PROVIDERS[name].parse(text.replace(*change, 1), asked)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_document_of_another_kind_is_named() -> None:
    """Prices, say, are answered to another question."""
    text = (FIXTURES / XML).read_text().replace("GL_MarketDocument", "Publication_MarketDocument")
    with pytest.raises(AnswerError, match="is a Publication_MarketDocument: expected a GL_MarketDocument"):
        PROVIDERS["entsoe"].parse(text, GERMANY)


def test_a_year_of_quarters_of_many_types_is_too_much_for_one_answer() -> None:
    """A stepwise curve makes 35,040 points of one: what an answer may unfold to is bounded."""
    period = (
        "<Period><timeInterval><start>2023-01-01T00:00Z</start><end>2024-01-01T00:00Z</end></timeInterval>"
        "<resolution>PT15M</resolution><Point><position>1</position><quantity>1</quantity></Point></Period>"
    )
    series = (
        "<TimeSeries><quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>A03</curveType>"
        f"<MktPSRType><psrType>B16</psrType></MktPSRType>{period}</TimeSeries>"
    )
    with pytest.raises(AnswerError, match="has 105120 points: too many for one question"):
        PROVIDERS["entsoe"].parse(f"<GL_MarketDocument>{series * 3}</GL_MarketDocument>", GERMANY)


def test_every_provider_says_where_its_answers_are_from() -> None:
    """A module beside the table, with recorded answers and their provenance."""
    folder = Path(factor_sources.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "provider", "mix", "tables"}

    assert {path.parent.name for path in FIXTURES.glob("*/PROVENANCE.md")} == modules
    for name, provider in PROVIDERS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert provider.name == name


def test_no_provider_module_does_anything_but_reckon() -> None:
    """Questions and answers are text; who fetches is elsewhere."""
    for path in Path(factor_sources.__file__).parent.glob("*.py"):
        modules = {module.partition(".")[0] for module in imports(path)}
        assert not modules & IMPURE, path
        assert modules <= sys.stdlib_module_names | {"wattledger_collector"}
        assert ast.get_docstring(ast.parse(path.read_text()))
