"""ENTSO-E's transparency platform: actual generation by type; the intensity is reckoned from the mix.

Pure parse. Source of truth: the platform's API guide (document type A75, process A16) and IEC 62325-451-6 for the XML.
Spans are of 15, 30 or 60 minutes, and may change from one period to the next; with curve type A03 a position that is left
out holds the value before it. The factors of the types are in `mix.py`, so that the boundary is theirs.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from wattledger_collector.factor_sources.mix import IPCC_DOCUMENT, IPCC_LIFECYCLE, Amount, mix_intensity, mixes
from wattledger_collector.factor_sources.provider import (
    ANSWER_ROWS_MAX,
    AnswerError,
    Parsed,
    Provider,
    Question,
    Request,
    Series,
    text_of_time,
    without_doubles,
)
from wattledger_collector.factors import Basis, Boundary, FactorKind, Gas, Signal, Tier

ADDRESS = "https://web-api.tp.entsoe.eu"
NAME = "entsoe"

# The platform's production types; B17 (waste) and B20 (other) have no factor.
TYPES = {
    "B01": "biomass",
    "B02": "coal",
    "B03": "gas",
    "B04": "gas",
    "B05": "coal",
    "B06": "oil",
    "B07": "oil",
    "B09": "geothermal",
    "B11": "hydro",
    "B12": "hydro",
    "B13": "marine",
    "B14": "nuclear",
    "B16": "solar",
    "B18": "wind offshore",
    "B19": "wind",
}

# Storage that gives back what it took, not what was generated.
STORAGE_TYPES = ("B10", "B25")

# Energy identification codes of the bidding zones asked for most.
AREAS = {
    "AT": "10YAT-APG------L",
    "BE": "10YBE----------2",
    "CH": "10YCH-SWISSGRIDZ",
    "CZ": "10YCZ-CEPS-----N",
    "DE": "10Y1001A1001A82H",
    "ES": "10YES-REE------0",
    "FI": "10YFI-1--------U",
    "FR": "10YFR-RTE------C",
    "NL": "10YNL----------L",
    "PL": "10YPL-AREA-----S",
    "PT": "10YPT-REN------W",
}

_WHO = "ENTSO-E"
_LENGTHS = {"PT15M": 900, "PT30M": 1_800, "PT60M": 3_600}
# Of one code are all acknowledgements: that there is nothing, that too much was asked for, that a parameter is wrong.
_NO_DATA = "No matching data found"
# The platform gives a year at most.
_PERIOD_SECONDS_MAX = 366 * 86_400
_KIND = FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION)


def requests(question: Question, key: str) -> list[Request]:
    """One GET. The key is in the query, as this platform asks for."""
    begin, end = (text_of_time(at, "%Y%m%d%H%M") for at in (question.from_seconds, question.to_seconds))
    what = f"documentType=A75&processType=A16&in_Domain={question.area}"
    query = f"securityToken={key}&{what}&periodStart={begin}&periodEnd={end}"
    return [Request(f"{question.address or ADDRESS}/api?{query}")]


def parse(text: str, question: Question) -> Parsed:
    """Factors of an answer. A span that lacks a type of the others has none: its mix is not known."""
    root = _root(text)
    if _name(root) == "Acknowledgement_MarketDocument":
        return _acknowledged(root, question)
    if _name(root) != "GL_MarketDocument":
        raise AnswerError(f"the answer of {_WHO} is a {_name(root)}: expected a GL_MarketDocument")
    amounts, types = [], set()
    for number, series in enumerate(_all(root, "TimeSeries")):
        # What a type took from the grid is in a series of its own, by the domain that it went out of.
        if _find(series, "outBiddingZone_Domain.mRID") is not None:
            continue
        place = f"TimeSeries[{number}]"
        kind = _text(series, "MktPSRType/psrType", place)
        if kind in STORAGE_TYPES:
            continue
        _one_of(_text(series, "quantity_Measure_Unit.name", place), ("MAW",), f"{place}.quantity_Measure_Unit.name")
        types.add(TYPES.get(kind, kind))
        amounts += list(_amounts(series, TYPES.get(kind, kind), place))
    if len(amounts) > ANSWER_ROWS_MAX:
        raise AnswerError(f"the answer of {_WHO} has {len(amounts)} points: too many for one question")
    series_of = Series(question, _KIND, NAME, "ENTSO-E transparency platform, CC BY 4.0", "ENTSO-E Transparency Platform")
    document = f"ENTSO-E actual generation by type, {question.area}; {IPCC_DOCUMENT}"
    factors, missing = [], []
    for (begin, end), mix in mixes(amounts).items():
        lacking = sorted(types - mix.keys())
        intensity = None if lacking else mix_intensity(mix, IPCC_LIFECYCLE)
        if intensity is None:
            why = f"lacks {', '.join(lacking)}" if lacking else "is too much of unknown types"
            missing.append(f"the mix of {_WHO} for {question.area} at {text_of_time(begin)} {why}")
            continue
        value, ratio = intensity.grams_per_kwh, intensity.uncertainty_ratio
        factors.append(series_of.factor(value, begin, end, document, Tier.F0_MEASURED, ratio))
    return Parsed(without_doubles(factors, _WHO), tuple(missing))


def _root(text: str) -> Element:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        # Entities could make megabytes of a line, and no answer of the platform has any.
        raise AnswerError(f"the answer of {_WHO} declares a document type, which its answers do not")
    try:
        return ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        line, column = error.position
        raise AnswerError(f"the answer of {_WHO} is not XML at line {line} column {column + 1}") from None


def _acknowledged(root: Element, question: Question) -> Parsed:
    code, words = _text(root, "Reason/code", "Reason"), _text(root, "Reason/text", "Reason")
    if not words.startswith(_NO_DATA):
        raise AnswerError(f"{_WHO} refused the question: {words} ({code})")
    return Parsed((), (f"{_WHO} has no data for {question.area} from {text_of_time(question.from_seconds)}",))


def _amounts(series: Element, fuel: str, place: str) -> Iterator[Amount]:
    curve = _find(series, "curveType")
    is_stepwise = curve is not None and (curve.text or "").strip() == "A03"
    for number, period in enumerate(_all(series, "Period")):
        here = f"{place}.Period[{number}]"
        begin, end = (_instant(_text(period, f"timeInterval/{name}", here), f"{here}.{name}") for name in ("start", "end"))
        length = _LENGTHS[_one_of(_text(period, "resolution", here), tuple(_LENGTHS), f"{here}.resolution")]
        if not 0 < end - begin <= _PERIOD_SECONDS_MAX:
            raise AnswerError(f"the answer of {_WHO} has {here}.timeInterval of {end - begin} s: expected up to a year")
        points: dict[int, Decimal] = {}
        for at, point in enumerate(_all(period, "Point")):
            spot = f"{here}.Point[{at}]"
            text = _text(point, "position", spot)
            if not text.isdecimal() or not 1 <= int(text) <= (end - begin) // length or int(text) in points:
                raise AnswerError(f"the answer of {_WHO} has {spot}.position {text!r}: it has no place there")
            points[int(text)] = _quantity(_text(point, "quantity", spot), f"{spot}.quantity")
        latest: Decimal | None = None
        for position in range(1, (end - begin) // length + 1):
            latest = points.get(position, latest if is_stepwise else None)
            if latest is not None:
                since = begin + (position - 1) * length
                yield Amount(fuel, since, since + length, latest)


def _quantity(text: str, place: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise AnswerError(f"the answer of {_WHO} has {place} {text!r}: expected a number")
    return value


def _instant(text: str, place: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise AnswerError(f"the answer of {_WHO} has {place} {text!r}: expected a time in UTC")
    return int(moment.timestamp())


def _one_of(text: str, allowed: tuple[str, ...], place: str) -> str:
    if text not in allowed:
        raise AnswerError(f"the answer of {_WHO} has {place} {text!r}: expected {' or '.join(allowed)}")
    return text


def _name(element: Element) -> str:
    """The name without the namespace, whose version changes with the platform's releases."""
    return re.sub(r"^\{[^}]*\}", "", element.tag)


def _all(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _name(child) == name)


def _find(element: Element, path: str) -> Element | None:
    for name in path.split("/"):
        child = next(_all(element, name), None)
        if child is None:
            return None
        element = child
    return element


def _text(element: Element, path: str, place: str) -> str:
    found = _find(element, path)
    text = "" if found is None or found.text is None else found.text.strip()
    if not text:
        raise AnswerError(f"the answer of {_WHO} has no {path.replace('/', '.')} in {place}: every one needs it")
    return text


PROVIDERS = (Provider(name=NAME, requests=requests, parse=parse, span_seconds_max=31 * 86_400, needs_key=True, areas=AREAS),)
