"""What a provider of factors is: which questions it takes, and how its answers become factors.

Pure: asks nobody and reads no clock; `factor_fetch.py` asks. Each provider has one module beside this one; sources of truth
are the providers' own documentations, which the modules name.

An answer that is not as documented is refused as a whole, with the place in it. A value that is null or left out is missing:
a sentence of its own, and no factor; 0 is a value like others.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from wattledger_collector.factors import GRAMS_PER_KWH_MAX, Factor, FactorKind, Tier

# A week of five-minute values is 2,016; what has more rows is no answer to a question of ours.
ANSWER_ROWS_MAX = 100_000

# An ISO 8601 time has at most 32 characters; what an error quotes is no longer.
_QUOTED_CHARACTERS_MAX = 40


class AnswerError(ValueError):
    """An answer is not as its provider documents it; the text names the place in it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a zone (and the provider's own name of it) in [from_seconds, to_seconds), on a day.

    asked: the day of asking (UTC), as which a value's first appearance is dated. address: another base than the provider's.
    """

    zone: str
    area: str
    from_seconds: int
    to_seconds: int
    asked: date
    address: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A GET. url: with its query, which may hold a key and is told to nobody."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an answer has: factors, and a sentence for each value that it lacks."""

    factors: tuple[Factor, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider. name: also the `source` of its factors. span_seconds_max: the longest question that it takes.

    requests: what to GET for a question; the second argument is the key, or what a login gave for it. login: for providers
    that give a token for a user and a password; token: reads it from the answer. areas: zones that it calls otherwise.
    """

    name: str
    requests: Callable[[Question, str], Sequence[Request]]
    parse: Callable[[str, Question], Parsed]
    span_seconds_max: int
    needs_key: bool = False
    areas: Mapping[str, str] = field(default_factory=dict)
    login: Callable[[str, str], Request] | None = None
    token: Callable[[str], str] | None = None
    # Tables of years don't grow old by the hour.
    is_hourly: bool = True
    # Whether figures may be made with its factors; marginal ones are for other uses.
    is_average: bool = True


def text_of_time(seconds: int, form: str = "%Y-%m-%dT%H:%MZ") -> str:
    """An instant in UTC, as a query has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def basic(user_and_password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return f"Basic {b64encode(user_and_password.encode()).decode('ascii')}"


def read_json(text: str, who: str) -> Any:
    """An answer's tree, numbers with a point as decimals with all their digits. Raises AnswerError."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise AnswerError(
            f"the answer of {who} is not JSON at line {error.lineno} column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise AnswerError(f"the answer of {who} is nested too deeply to be one") from None
    except AnswerError:
        raise
    except ValueError:
        # A whole number of more digits than Python turns into one.
        raise AnswerError(f"the answer of {who} has a number of thousands of digits") from None


def _no_number(text: str) -> Decimal:
    raise AnswerError(f"the answer has {text}, which is no number")


@dataclass(frozen=True, slots=True)
class Node:
    """A place in an answer, and what stands there. path: `data[3].value`."""

    value: Any
    path: str
    who: str

    def error(self, what: str) -> AnswerError:
        """What is wrong at this place."""
        shown = repr(self.value)[:_QUOTED_CHARACTERS_MAX]
        return AnswerError(f"the answer of {self.who} has {self.path or 'as a whole'} {shown}: {what}")

    def get(self, key: str) -> "Node":
        """A member; None stands for one that is left out."""
        if not isinstance(self.value, dict):
            raise self.error("expected an object")
        return Node(self.value.get(key), f"{self.path}.{key}" if self.path else key, self.who)

    def items(self) -> Iterator["Node"]:
        """The items of a list."""
        if not isinstance(self.value, list):
            raise self.error("expected a list")
        if len(self.value) > ANSWER_ROWS_MAX:
            raise AnswerError(
                f"the answer of {self.who} has {len(self.value)} rows in {self.path}: too many for one question"
            )
        for index, item in enumerate(self.value):
            yield Node(item, f"{self.path}[{index}]", self.who)

    @property
    def is_null(self) -> bool:
        """Whether nothing stands there."""
        return self.value is None

    def text(self) -> str:
        """A text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.error("expected a text")
        return self.value

    def number(self) -> Decimal:
        """A finite number, as such or as text, exact."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
            raise self.error("expected a number")
        try:
            number = Decimal(value)
        except ArithmeticError:
            raise self.error("expected a number") from None
        if not number.is_finite():
            raise self.error("expected a finite number")
        return number

    def instant(self) -> int:
        """Seconds since 1970 of an ISO time with its offset."""
        try:
            moment = datetime.fromisoformat(self.text())
        except ValueError:
            raise self.error("expected an ISO time") from None
        if moment.tzinfo is None:
            raise self.error("the time lacks its offset from UTC")
        if moment.microsecond:
            raise self.error("expected whole seconds")
        return int(moment.timestamp())

    def one_of(self, allowed: Sequence[str]) -> str:
        """One of some words."""
        if self.value not in allowed:
            raise self.error(f"expected {' or '.join(allowed)}")
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Series:
    """What all factors of an answer share."""

    question: Question
    kind: FactorKind
    source: str
    licence: str
    attribution: str
    includes_td: bool = False

    def factor(
        self,
        grams_per_kwh: Decimal,
        begin: int,
        end: int,
        document: str,
        tier: Tier = Tier.F0_MEASURED,
        uncertainty_ratio: Decimal | None = None,
    ) -> Factor:
        """A factor. Raises AnswerError for a value that no grid has."""
        if not 0 <= grams_per_kwh <= GRAMS_PER_KWH_MAX:
            raise AnswerError(
                f"{self.source} gives {grams_per_kwh} g/kWh for {self.question.area} at {text_of_time(begin)}: "
                f"no grid has less than 0 or more than {GRAMS_PER_KWH_MAX}"
            )
        return Factor(
            zone=self.question.zone,
            name=self.question.zone,
            value=grams_per_kwh,
            kind=self.kind,
            includes_td=self.includes_td,
            valid_from_seconds=begin,
            valid_to_seconds=end,
            published=self.question.asked,
            source=self.source,
            document=document,
            licence=self.licence,
            attribution=self.attribution,
            # The store says when it was recorded.
            recorded_at_seconds=0,
            tier=tier,
            uncertainty_ratio=uncertainty_ratio,
        )


def without_doubles(factors: Sequence[Factor], who: str) -> tuple[Factor, ...]:
    """The factors by time. Raises AnswerError where two of them differ for one span, as a doubled local hour would."""
    found: dict[tuple[int, int], Factor] = {}
    for factor in factors:
        first = found.setdefault((factor.valid_from_seconds, factor.valid_to_seconds), factor)
        if first.value != factor.value:
            raise AnswerError(
                f"the answer of {who} has {first.value} and {factor.value} g/kWh for {factor.zone} at "
                f"{text_of_time(factor.valid_from_seconds)}: only one can hold"
            )
    return tuple(factor for _, factor in sorted(found.items()))
