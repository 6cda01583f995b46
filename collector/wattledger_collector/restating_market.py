"""What a restatement's market-based figure differs by, split by cause, so that the parts add up to the last digit.

Values in, exact fractions out; no clock, no database. Sources of truth: `restating.py` for the order of causes; `market.py`
for the figure. After method, activity, factor and boundary, which are changed as there (published residual mixes with the
factors), come the instruments: certificates, for whom they are claimed, what others use of them, and declared mixes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from wattledger_collector.certificates import Certificate
from wattledger_collector.market import Instruments, reckon
from wattledger_collector.residual_mixes import Counted, Mixes
from wattledger_collector.statement_load import Energy, Span, Tenure, loads_of
from wattledger_collector.statement_values import Tree, grams_tree

# In the order in which they are changed.
STEPS: Final = ("method", "activity", "factor", "boundary", "instruments")

Grams = dict[Counted, Fraction]


@dataclass(frozen=True, slots=True)
class State:
    """All that a market-based figure is made of at one step. used: what other statements took of certificates."""

    energy: Energy
    spans: Mapping[str, Sequence[Span]]
    tenures: Mapping[str, Sequence[Tenure]]
    mixes: Mixes
    instruments: Instruments
    used: Mapping[Certificate, Fraction]


def grams_of_state(state: State, from_seconds: int, to_seconds: int, interval_seconds: int) -> Grams:
    """Grams by what they count."""
    loads = loads_of(
        state.energy,
        state.spans,
        state.tenures,
        state.mixes,
        interval_seconds,
        is_hourly=state.instruments.is_hourly,
    )
    figure = reckon(loads, state.instruments, state.mixes, from_seconds=from_seconds, to_seconds=to_seconds, used=state.used)
    return figure.total.totals


def stated_grams(statement: Tree) -> Grams:
    """A statement's market-based total."""
    return {
        Counted(row["boundary"], row["gas"], row["gwp"]): Fraction(row["grams"]["exact"])
        for row in statement["market"]["all"]["market_based"]
    }


def split_market(stated: Grams, steps: Sequence[Grams]) -> list[Tree]:
    """The differences. stated: the old statement's; steps: after each of STEPS, the last the new statement's."""
    states = [stated, *steps]
    trees = []
    for counted in sorted({name for state in states for name in state}):
        amounts = [state.get(counted, Fraction(0)) for state in states]
        parts = [after - before for before, after in pairwise(amounts)]
        trees.append(
            {
                "boundary": str(counted.boundary),
                "gas": str(counted.gas),
                "gwp": str(counted.gwp),
                "before": grams_tree(amounts[0]),
                "after": grams_tree(amounts[-1]),
                "difference": grams_tree(amounts[-1] - amounts[0]),
                "causes": {cause: grams_tree(part) for cause, part in zip(STEPS, parts, strict=True)},
            }
        )
    return trees
