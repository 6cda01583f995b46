"""EIA-930: what US balancing authorities generate each hour, by fuel; the intensity is reckoned from the mix.

Pure parse. Source of truth: https://www.eia.gov/opendata (v2, electricity/rto/fuel-type-data); the factors of the fuels are
in `mix.py`, so that the boundary is theirs. `period` is in UTC and names the hour's end; not so of CISO before 2022-06-16,
which named the beginning (documented by open-grid-emissions). Where the two conventions meet, one hour has two labels: the
newer is taken.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from wattledger_collector.factor_sources.mix import IPCC_DOCUMENT, IPCC_LIFECYCLE, mix_intensity
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

ADDRESS = "https://api.eia.gov"
NAME = "eia930"

# Solar and wind with batteries of their own (SNB, WNB) are told apart since 2025, and so is geothermal; `OTH` (waste and
# others together) and `UNK` have no factor.
FUELS = {
    "COL": "coal",
    "GEO": "geothermal",
    "NG": "gas",
    "NUC": "nuclear",
    "OIL": "oil",
    "SNB": "solar",
    "SUN": "solar",
    "WAT": "hydro",
    "WNB": "wind",
    "WND": "wind",
}

# Batteries, pumped and other storage give back what they took, which was generated before.
STORAGE = ("BAT", "OES", "PS", "UES")

_WHO = "EIA-930"
_HOUR = 3_600
_ROWS_MAX = 5_000
_KIND = FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.PRODUCTION)


@dataclass(frozen=True, slots=True)
class LabelChange:
    """Until an instant an authority labelled hours by their beginning; since then by their end, as all others."""

    authority: str
    until_seconds: int


# A version of the convention: add a row when another change is found.
LABEL_CHANGES = (LabelChange("CISO", int(datetime(2022, 6, 16, tzinfo=UTC).timestamp())),)


def hour_of(authority: str, label_seconds: int) -> tuple[int, int]:
    """The hour that a label names, as [begin, end)."""
    for change in LABEL_CHANGES:
        if change.authority == authority and label_seconds < change.until_seconds:
            return label_seconds, label_seconds + _HOUR
    return label_seconds - _HOUR, label_seconds


def requests(question: Question, key: str) -> list[Request]:
    """One GET; %5B and %5D are brackets. The key is in the query, as this provider asks for."""
    begin, end = (text_of_time(at, "%Y-%m-%dT%H") for at in (question.from_seconds, question.to_seconds))
    query = (
        f"api_key={key}&frequency=hourly&data%5B0%5D=value&facets%5Brespondent%5D%5B%5D={question.area}"
        f"&start={begin}&end={end}&sort%5B0%5D%5Bcolumn%5D=period&sort%5B0%5D%5Bdirection%5D=asc&length={_ROWS_MAX}"
    )
    return [Request(f"{question.address or ADDRESS}/v2/electricity/rto/fuel-type-data/data/?{query}")]


def parse(text: str, question: Question) -> Parsed:
    """Factors of an answer. An hour that lacks a fuel of the other hours has none: its mix is not known."""
    body = Node(read_json(text, _WHO), "", _WHO).get("response")
    rows = list(body.get("data").items())
    if body.get("total").number() > len(rows):
        raise AnswerError(f"the answer of {_WHO} has {len(rows)} of {body.get('total').value} rows: ask for a shorter span")
    labels: dict[int, dict[str, Decimal | None]] = defaultdict(dict)
    for row in rows:
        row.get("respondent").one_of([question.area])
        row.get("value-units").one_of(["megawatthours"])
        period, fuel = _label(row.get("period")), row.get("fueltype").text()
        if fuel in STORAGE:
            continue
        if fuel in labels[period]:
            raise row.get("fueltype").error(f"given twice for {row.get('period').value}")
        labels[period][fuel] = None if row.get("value").is_null else row.get("value").number()
    fuels = {fuel for mix in labels.values() for fuel in mix}
    series = Series(question, _KIND, NAME, "US Government work, public domain", "US Energy Information Administration")
    document = f"EIA-930 generation by fuel, {question.area}; {IPCC_DOCUMENT}"
    newest: dict[tuple[int, int], int] = {}
    for label in sorted(labels):
        newest[hour_of(question.area, label)] = label
    factors, missing = [], []
    for (begin, end), label in newest.items():
        mix: dict[str, Decimal] = defaultdict(Decimal)
        for fuel, amount in labels[label].items():
            # What takes power does not generate, and takes nothing from another plant of its kind.
            mix[FUELS.get(fuel, fuel)] += max(amount or Decimal(0), Decimal(0))
        lacking = sorted(fuels - {fuel for fuel, amount in labels[label].items() if amount is not None})
        intensity = None if lacking else mix_intensity(mix, IPCC_LIFECYCLE)
        if intensity is None:
            why = f"lacks {', '.join(lacking)}" if lacking else "is too much of unknown fuels"
            missing.append(f"the mix of {_WHO} for {question.area} at {text_of_time(begin)} {why}")
            continue
        factors.append(
            series.factor(intensity.grams_per_kwh, begin, end, document, Tier.F0_MEASURED, intensity.uncertainty_ratio)
        )
    return Parsed(without_doubles(factors, _WHO), tuple(missing))


def _label(period: Node) -> int:
    try:
        moment = datetime.strptime(period.text(), "%Y-%m-%dT%H").replace(tzinfo=UTC)
    except ValueError as error:
        if isinstance(error, AnswerError):
            raise
        raise period.error("expected an hour such as 2022-06-15T23") from None
    return int(moment.timestamp())


PROVIDERS = (
    Provider(
        name=NAME,
        requests=requests,
        parse=parse,
        # 24 hours x 16 fuels x 10 days are below the 5,000 rows of one answer.
        span_seconds_max=10 * 86_400,
        needs_key=True,
        areas={
            "US-CAL-CISO": "CISO",
            "US-TEX-ERCO": "ERCO",
            "US-MIDA-PJM": "PJM",
            "US-NY-NYIS": "NYIS",
            "US-NW-BPAT": "BPAT",
        },
    ),
)
