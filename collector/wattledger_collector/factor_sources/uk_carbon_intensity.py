"""The Carbon Intensity API of Great Britain: half-hours with a forecast, and later with what it became.

Pure parse. Source of truth: https://carbon-intensity.github.io/api-definitions and its methodology: CO2 of generation,
imports and losses of transmission and distribution included. A half-hour without `actual` has its forecast, of tier F1,
until the actual value is recorded in its place.
"""

from wattledger_collector.factor_sources.provider import (
    Node,
    Parsed,
    Provider,
    Question,
    Request,
    Series,
    read_json,
    text_of_time,
    without_doubles,
)
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Signal, Tier

ADDRESS = "https://api.carbonintensity.org.uk"
NAME = "uk-carbon-intensity"

_WHO = "Carbon Intensity API"
_HALF_HOUR = 1_800
_KIND = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.CONSUMPTION)


def requests(question: Question, _: str) -> list[Request]:
    """One GET, without a key."""
    begin, end = text_of_time(question.from_seconds), text_of_time(question.to_seconds)
    return [Request(f"{question.address or ADDRESS}/intensity/{begin}/{end}", {"Accept": "application/json"})]


def parse(text: str, question: Question) -> Parsed:
    """Factors of an answer; of a half-hour that begins before the question nothing is taken."""
    tree = Node(read_json(text, _WHO), "", _WHO)
    series = Series(
        question, _KIND, NAME, "CC BY 4.0", "National Energy System Operator, Carbon Intensity API", includes_td=True
    )
    factors, missing = [], []
    for row in tree.get("data").items():
        begin, end = row.get("from").instant(), row.get("to").instant()
        if end - begin != _HALF_HOUR:
            raise row.get("to").error(f"expected half an hour from {row.get('from').value}")
        if begin < question.from_seconds:
            continue
        actual, forecast = row.get("intensity").get("actual"), row.get("intensity").get("forecast")
        if not actual.is_null:
            factors.append(series.factor(actual.number(), begin, end, f"{ADDRESS}/intensity, actual"))
        elif not forecast.is_null:
            document, tier = f"{ADDRESS}/intensity, forecast", Tier.F1_PROVIDER_ESTIMATED
            factors.append(series.factor(forecast.number(), begin, end, document, tier))
        else:
            missing.append(f"{_WHO} has neither a forecast nor an actual value at {text_of_time(begin)}")
    return Parsed(without_doubles(factors, _WHO), tuple(missing))


PROVIDERS = (Provider(name=NAME, requests=requests, parse=parse, span_seconds_max=14 * 86_400, areas={"GB": "GB"}),)
