"""WattTime: marginal operating emissions (`co2_moer`), and the average (`co2_aoer`), each typed as what it is.

Pure parse. Source of truth: https://docs.watttime.org (v3, historical). Values are pounds of CO2 a megawatt-hour, converted
exactly; `point_time` is the beginning of a span of `meta.data_point_period_seconds`. The model's date and the points'
version stay with each value, since a new model restates the past, and so does its word that inputs were imputed.
"""

from functools import partial

from wattledger_collector.factor_sources.provider import (
    Node,
    Parsed,
    Provider,
    Question,
    Request,
    Series,
    basic,
    read_json,
    text_of_time,
    without_doubles,
)
from wattledger_collector.factor_units import grams_per_kwh
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Signal, Tier

ADDRESS = "https://api.watttime.org"

_WHO = "WattTime"
_SIGNALS = {"co2_moer": Signal.MARGINAL, "co2_aoer": Signal.AVERAGE}


def login(address: str, key: str) -> Request:
    """A GET that gives a token for half an hour. key: `user:password`."""
    return Request(f"{address or ADDRESS}/login", {"Authorization": basic(key)})


def token(text: str) -> str:
    """The token in the login's answer. Raises AnswerError."""
    return Node(read_json(text, _WHO), "", _WHO).get("token").text()


def requests(question: Question, key: str, *, signal_type: str) -> list[Request]:
    """One GET; the key is the token."""
    begin = text_of_time(question.from_seconds, "%Y-%m-%dT%H:%MZ")
    end = text_of_time(question.to_seconds, "%Y-%m-%dT%H:%MZ")
    query = f"region={question.area}&start={begin}&end={end}&signal_type={signal_type}"
    return [Request(f"{question.address or ADDRESS}/v3/historical?{query}", {"Authorization": f"Bearer {key}"})]


def parse(text: str, question: Question, *, signal_type: str, source: str) -> Parsed:
    """Factors of an answer."""
    tree = Node(read_json(text, _WHO), "", _WHO)
    meta = tree.get("meta")
    meta.get("units").one_of(["lbs_co2_per_mwh"])
    meta.get("signal_type").one_of([signal_type])
    meta.get("region").one_of([question.area])
    period = meta.get("data_point_period_seconds")
    length = int(period.number())
    if not 0 < length <= 3_600:
        raise period.error("expected 1 to 3600 seconds")
    model = meta.get("model").get("date").text()
    kind = FactorKind(_SIGNALS[signal_type], Boundary.DIRECT, Gas.CO2, Basis.PRODUCTION)
    series = Series(question, kind, source, "WattTime, by contract", "WattTime")
    factors, missing = [], []
    for row in tree.get("data").items():
        begin = row.get("point_time").instant()
        value = row.get("value")
        if value.is_null:
            missing.append(f"{_WHO} has no value for {question.area} at {text_of_time(begin)}")
            continue
        version = row.get("version")
        told = "" if version.is_null else f", version {version.text()}"
        told += ", inputs imputed" if row.get("imputed_data_used").value is True else ""
        document = f"{ADDRESS}/v3/historical, {question.area}, {signal_type}, model {model}{told}"
        grams = grams_per_kwh(value.number(), "lb/MWh", "CO2")
        # All its values are modelled, by itself.
        factors.append(series.factor(grams, begin, begin + length, document, Tier.F1_PROVIDER_ESTIMATED))
    return Parsed(without_doubles(factors, _WHO), tuple(missing))


def _provider(name: str, signal_type: str) -> Provider:
    return Provider(
        name=name,
        requests=partial(requests, signal_type=signal_type),
        parse=partial(parse, signal_type=signal_type, source=name),
        # It takes 32 days; a week is 2,016 rows.
        span_seconds_max=7 * 86_400,
        needs_key=True,
        is_average=_SIGNALS[signal_type] is Signal.AVERAGE,
        areas={"US-CAL-CISO": "CAISO_NORTH"},
        login=login,
        token=token,
    )


PROVIDERS = (_provider("watttime", "co2_moer"), _provider("watttime-average", "co2_aoer"))
