"""Tables of factors in this product's own columns: the bundled ones, and CSV files that are read again when they change.

Pure parse. Source of truth: the schema in `factors.py`.
"""

from wattledger_collector.factor_sources.provider import AnswerError, Parsed, Provider, Question, Request
from wattledger_collector.factors import FactorFileError, parse_factors

# Where the fetch finds what comes with the product.
BUNDLED_SCHEME = "bundled:"
FILE_SCHEME = "file:"

_YEARS = 100 * 366 * 86_400


def requests_of_bundled(question: Question, _: str) -> list[Request]:
    """The file that the area names."""
    return [Request(f"{BUNDLED_SCHEME}{question.area}")]


def requests_of_csv(question: Question, _: str) -> list[Request]:
    """The file or address that the configuration names."""
    if question.address.startswith(("http://", "https://")):
        return [Request(question.address)]
    return [Request(f"{FILE_SCHEME}{question.address}")]


def parse(text: str, question: Question) -> Parsed:
    """The zone's rows, under the sources that they name themselves. Raises AnswerError with line and column."""
    try:
        rows = parse_factors(text, question.address or question.area, any_unit=True)
    except FactorFileError as error:
        raise AnswerError(str(error)) from error
    factors = tuple(row for row in rows if row.zone == question.zone)
    if factors:
        return Parsed(factors)
    return Parsed((), (f"{question.address or question.area} has no row of zone {question.zone}",))


PROVIDERS = (
    Provider(name="csv", requests=requests_of_csv, parse=parse, span_seconds_max=_YEARS, is_hourly=False),
    Provider(name="bundled", requests=requests_of_bundled, parse=parse, span_seconds_max=_YEARS, is_hourly=False),
)
