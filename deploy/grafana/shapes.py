"""The shapes that panels repeat: tiles, measured beside modelled, the largest series of a range, failing reads.

Knows metrics only by the names that it is given, but for those of sources' health. Built from the parts in `panels.py`.
"""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import stat, table, timeseries

from grafana.panels import (
    COMPONENT_COLOURS,
    KIND_COLOURS,
    KWH,
    RATIO,
    TO_KWH,
    WATTS,
    Frame,
    Query,
    stat_panel,
    table_panel,
    time_panel,
)

TILE_HEIGHT = 5

# The two halves of every figure: what was measured, and what a model says.
MEASURED = 'method!="model"'
MODELLED = 'method="model"'

HOST_POWER = "wattledger_host_power_watts"


def tile(
    title: str,
    description: str,
    unit: str,
    no_value: str,
    queries: Sequence[Query],
    *,
    width: int,
    decimals: int | None = None,
    shows_name: bool = False,
) -> stat.Panel:
    """A panel of the strip at the top: a number or two. Coloured where it is measured and modelled."""
    colours = KIND_COLOURS if {query.legend for query in queries} == set(KIND_COLOURS) else None
    frame = Frame(title, description, unit, no_value, width, TILE_HEIGHT, decimals, colours)
    return stat_panel(frame, *queries, shows_name=shows_name)


def both(expr: str, selector: str) -> tuple[Query, Query]:
    """The same figure measured and modelled, as two queries. expr: has %s in place of the matchers; selector: the others."""
    return Query(expr % f"{selector}, {MEASURED}", "measured"), Query(expr % f"{selector}, {MODELLED}", "modelled")


def power_now(selector: str) -> tuple[Query, Query]:
    """Present power of hosts, measured and modelled."""
    return both(f"sum({HOST_POWER}{{%s}})", selector)


def energy_in_range(metric: str, selector: str) -> tuple[Query, Query]:
    """Increase of a counter of joules over the range shown, in kWh, measured and modelled."""
    return both(f"sum(increase({metric}{{%s}}[$__range])) {TO_KWH}", selector)


def power_by_component(
    selector: str, described: Sequence[str], no_values: Sequence[str], widths: Sequence[int], height: int = 8
) -> tuple[timeseries.Panel, timeseries.Panel]:
    """Power by component, measured and, dashed, modelled. described, no_values, widths: of each of the two."""
    by_component = f"sum by (component) ({HOST_POWER}{{%s}})"
    measured, modelled = (
        time_panel(
            Frame(f"Power by component, {query.legend}", text, WATTS, no_value, width, height, colours=COMPONENT_COLOURS),
            Query(query.expr, "{{component}}"),
            stacked=True,
            is_model=query.legend == "modelled",
        )
        for query, text, no_value, width in zip(both(by_component, selector), described, no_values, widths, strict=True)
    )
    return measured, modelled


def ratio_over_time(
    title: str,
    description: str,
    no_value: str,
    *queries: Query,
    width: int,
    is_difference: bool = False,
    least_step: str | None = None,
) -> timeseries.Panel:
    """Lines of shares, from 0 to 1. is_difference: relative differences, which have a sign and no limits."""
    least, most = (None, None) if is_difference else (0, 1)
    frame = Frame(title, description, RATIO, no_value, width, min_value=least, max_value=most, least_step=least_step)
    return time_panel(frame, *queries)


def over_time(title: str, description: str, unit: str, no_value: str, *queries: Query, width: int) -> timeseries.Panel:
    """Lines of a quantity that is never below zero."""
    return time_panel(Frame(title, description, unit, no_value, width, min_value=0), *queries)


def top_hosts(kind: str, description: str, expr: str, no_value: str) -> table.Panel:
    """A table of hosts by energy, from which each leads to its own dashboard. kind: measured or modelled."""
    frame = Frame(f"Top hosts by {kind} energy", description, KWH, no_value, width=12, height=10)
    columns = {"host": "host", "site": "site", "Value": "Energy"}
    return table_panel(frame, [Query(expr)], columns, sort_by="Energy", links_to_host=True)


def failing_reads(selector: str, by: str) -> Query:
    """Share of the reads of each source that failed or hung. by: `sum by (...) ` where hosts are added up, else empty."""
    failures, misses, reads = (
        f"rate(wattledger_agent_source_{name}_total{{{selector}}}[$__rate_interval])"
        for name in ("failures", "deadline_misses", "reads")
    )
    if by:
        return Query(f"{by}({failures} + {misses}) / ({by}({reads} + {misses}) > 0)", "{{source}}")
    return Query(f"({failures} + {misses}) / ({reads} + {misses} > 0)", "{{source}}")
