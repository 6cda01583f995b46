"""RTE's éCO2mix: the direct CO2 of generation in France, every quarter of an hour.

Pure parse. Source of truth: https://odre.opendatasoft.com, data set eco2mix-national-tr: `taux_co2` is g/kWh of CO2 at the
stack, without imports; `date_heure` is the beginning of the quarter, with its offset. What RTE calls its value (`nature`:
real time, consolidated, definitive) stays in the document, so that a consolidated one is a row of its own.
"""

from collections.abc import Iterator

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
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Signal

ADDRESS = "https://odre.opendatasoft.com"
NAME = "rte-eco2mix"

_WHO = "RTE eCO2mix"
_QUARTER = 900
_PATH = "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/exports/json"
_KIND = FactorKind(Signal.AVERAGE, Boundary.DIRECT, Gas.CO2, Basis.PRODUCTION)


def requests(question: Question, _: str) -> list[Request]:
    """One GET, without a key; %20 and so on are spaces, comparison signs and quotes of its query language."""
    begin, end = text_of_time(question.from_seconds), text_of_time(question.to_seconds)
    where = f"date_heure%3E%3Ddate%27{begin}%27%20and%20date_heure%3Cdate%27{end}%27"
    query = f"where={where}&select=date_heure,taux_co2,nature&order_by=date_heure&timezone=UTC"
    return [Request(f"{question.address or ADDRESS}{_PATH}?{query}")]


def parse(text: str, question: Question) -> Parsed:
    """Factors of an answer: of the export, which is a list, or of either generation of the records' addresses."""
    attribution = "RTE, eCO2mix, by ODRÉ"
    series = Series(question, _KIND, NAME, "Licence Ouverte 2.0 (Etalab)", attribution)
    factors, missing = [], []
    for row in _rows(Node(read_json(text, _WHO), "", _WHO)):
        begin = row.get("date_heure").instant()
        if begin % _QUARTER:
            raise row.get("date_heure").error("expected a quarter of an hour")
        value = row.get("taux_co2")
        if value.is_null:
            missing.append(f"{_WHO} has no value at {text_of_time(begin)}")
            continue
        nature = row.get("nature")
        document = f"eco2mix-national-tr, {'nature not told' if nature.is_null else nature.text()}"
        factors.append(series.factor(value.number(), begin, begin + _QUARTER, document))
    return Parsed(without_doubles(factors, _WHO), tuple(missing))


def _rows(tree: Node) -> Iterator[Node]:
    if isinstance(tree.value, list):
        yield from tree.items()
    elif not tree.get("results").is_null:
        yield from tree.get("results").items()
    elif not tree.get("records").is_null:
        for record in tree.get("records").items():
            yield record.get("fields")
    else:
        raise AnswerError(f"the answer of {_WHO} has neither rows, results nor records: is the address right?")


PROVIDERS = (Provider(name=NAME, requests=requests, parse=parse, span_seconds_max=31 * 86_400, areas={"FR": "FR"}),)
