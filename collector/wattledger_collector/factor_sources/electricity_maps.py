"""Electricity Maps: carbon intensity by flow tracing, with the provider's own word on what is estimated.

Pure parse. Source of truth: https://portal.electricitymaps.com/docs/api (v3, carbon-intensity/past-range). A row's
`datetime` is the beginning of its span, whose length `temporalGranularity` tells. Keys of its sandbox are answered with
made-up values, which say so in each row: they are refused.
"""

from functools import partial

from wattledger_collector.factor_sources.provider import (
    AnswerError,
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

ADDRESS = "https://api.electricitymaps.com"

_WHO = "Electricity Maps"
_LENGTHS = {"5_minutes": 300, "15_minutes": 900, "hourly": 3_600, "daily": 86_400}
_SANDBOX = "SANDBOX_MODE_DATA"
_BOUNDARIES = {"lifecycle": Boundary.LIFECYCLE, "direct": Boundary.DIRECT}


def requests(question: Question, key: str, *, factor_type: str) -> list[Request]:
    """One GET; the key is a header."""
    begin, end = text_of_time(question.from_seconds), text_of_time(question.to_seconds)
    query = f"zone={question.area}&start={begin}&end={end}&emissionFactorType={factor_type}"
    return [Request(f"{question.address or ADDRESS}/v3/carbon-intensity/past-range?{query}", {"auth-token": key})]


def parse(text: str, question: Question, *, factor_type: str, source: str) -> Parsed:
    """Factors of an answer; estimated ones are of tier F1, and name the method."""
    tree = Node(read_json(text, _WHO), "", _WHO)
    zone = tree.get("zone")
    if zone.text() != question.area:
        raise zone.error(f"asked for {question.area}")
    granularity = tree.get("temporalGranularity")
    length = _LENGTHS["hourly" if granularity.is_null else granularity.one_of(list(_LENGTHS))]
    rows = tree.get("history") if tree.get("data").is_null else tree.get("data")
    kind = FactorKind(Signal.AVERAGE, _BOUNDARIES[factor_type], Gas.CO2E, Basis.CONSUMPTION)
    series = Series(question, kind, source, "Electricity Maps, by contract", "Electricity Maps")
    factors, missing = [], []
    for row in rows.items():
        begin = row.get("datetime").instant()
        if row.get("estimationMethod").value == _SANDBOX:
            raise AnswerError(
                f"the answer of {_WHO} has made-up values ({_SANDBOX}): the key is one of its sandbox, use one of a contract"
            )
        if row.get("carbonIntensity").is_null:
            missing.append(f"{_WHO} has no value for {question.area} at {text_of_time(begin)}")
            continue
        row.get("emissionFactorType").one_of([factor_type])
        estimated = row.get("isEstimated")
        if not isinstance(estimated.value, bool):
            raise estimated.error("expected true or false")
        method = row.get("estimationMethod")
        how = f"estimated, {'method not told' if method.is_null else method.text()}" if estimated.value else "not estimated"
        document = f"{ADDRESS}/v3/carbon-intensity, {question.area}, {factor_type}, {how}"
        tier = Tier.F1_PROVIDER_ESTIMATED if estimated.value else Tier.F0_MEASURED
        factors.append(series.factor(row.get("carbonIntensity").number(), begin, begin + length, document, tier))
    return Parsed(without_doubles(factors, _WHO), tuple(missing))


def _provider(name: str, factor_type: str) -> Provider:
    return Provider(
        name=name,
        requests=partial(requests, factor_type=factor_type),
        parse=partial(parse, factor_type=factor_type, source=name),
        # Of hourly values it tells ten days at once.
        span_seconds_max=10 * 86_400,
        needs_key=True,
    )


PROVIDERS = (_provider("electricitymaps", "lifecycle"), _provider("electricitymaps-direct", "direct"))
