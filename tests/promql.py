"""What PromQL expressions ask for, against what is exported: for the tests of dashboards and rules.

Evaluates nothing. Sources of truth: the collector's metrics, and the recording rules in deploy/prometheus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import promql_parser
import yaml
from tests.readme_tables import metric_rows

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules"

# What Prometheus adds to every series that it scrapes; `shard` only to its own.
TARGET_LABELS = frozenset({"job", "instance"})

# Prometheus' own series that rules and dashboards may use.
PROMETHEUS_SERIES = {
    "up": frozenset({"shard"}),
    # Labels of the alert are labels of its series.
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "site", "host", "source", "component"}),
}

# Grafana's variables, as they would be on an overview of all sites with a scrape interval of 15 s.
GRAFANA_VARIABLES = {
    "$__rate_interval": "1m",
    "$__range_s": "3600",
    "$__range": "1h",
    "$site": ".+",
    "$host": "a",
    "$kind": ".+",
    "$namespace": ".*",
    "$method": "counter|integral",
}


@dataclass(frozen=True, slots=True)
class Selector:
    """One series selector of an expression. labels: those that its matchers name."""

    metric: str
    labels: frozenset[str]


@cache
def exported() -> dict[str, frozenset[str]]:
    """Every metric that an expression may use, with its labels."""
    known = {name: frozenset(labels) | TARGET_LABELS for name, _, labels, _ in metric_rows()}
    known |= {name: labels | TARGET_LABELS for name, labels in PROMETHEUS_SERIES.items()}
    return known | recorded()


@cache
def recorded() -> dict[str, frozenset[str]]:
    """The metrics of the recording rules: level:metric:operations, with the level's labels and the site."""
    groups = yaml.safe_load((RULES / "wattledger.recording.yml").read_text())["groups"]
    names = [rule["record"] for group in groups for rule in group["rules"]]
    return {name: frozenset(name.split(":")[0].split("_")) | {"site"} for name in names}


def substituted(expr: str) -> str:
    """An expression with Grafana's variables filled in, as Grafana sends it. Raises ValueError where one is unknown."""
    for name, value in GRAFANA_VARIABLES.items():
        expr = expr.replace(name, value)
    if "$" in expr:
        raise ValueError(f"unknown variable in {expr}")
    return expr


def selectors(expr: str) -> list[Selector]:
    """All series selectors of an expression. Raises ValueError for a syntax error."""
    found: list[Selector] = []
    for node in _nodes(expr):
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name is not None, f"a selector without a metric in {expr}"
            found.append(Selector(node.name, frozenset(matcher.name for matcher in node.matchers.matchers)))
    return found


def grouping_labels(expr: str) -> set[str]:
    """The labels that aggregations and matchings of an expression name."""
    labels: set[str] = set()
    for node in _nodes(expr):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels |= set(node.modifier.labels)
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            labels |= set(node.modifier.group_labels or ())
            if node.modifier.matching is not None:
                labels |= set(node.modifier.matching.labels)
    return labels


def result_labels(expr: str) -> frozenset[str]:
    """The labels that an expression's series may have."""
    return _result_labels(promql_parser.parse(expr))


def faults(expr: str) -> list[str]:
    """What an expression asks for that nothing exports: metrics, and labels that a metric does not have."""
    used = selectors(expr)
    problems = [f"{each.metric} is not exported" for each in used if each.metric not in exported()]
    if problems:
        return problems
    for each in used:
        problems += [f"{each.metric} has no label {label}" for label in sorted(each.labels - exported()[each.metric])]
    there = frozenset().union(*(exported()[each.metric] for each in used))
    return problems + [f"no metric here has the label {label}" for label in sorted(grouping_labels(expr) - there)]


def _result_labels(node: promql_parser.Expr) -> frozenset[str]:
    if isinstance(node, promql_parser.VectorSelector):
        return exported()[node.name or ""]
    if isinstance(node, promql_parser.MatrixSelector):
        return _result_labels(node.vector_selector)
    if isinstance(node, promql_parser.AggregateExpr):
        if node.prettify().startswith(("topk", "bottomk")):
            return _result_labels(node.expr)
        return frozenset(node.modifier.labels) if node.modifier is not None else frozenset()
    if isinstance(node, promql_parser.BinaryExpr):
        modifier = node.modifier
        joined = frozenset(modifier.group_labels or ()) if modifier is not None else frozenset()
        return (_result_labels(node.lhs) or _result_labels(node.rhs)) | joined
    if isinstance(node, promql_parser.Call):
        return frozenset().union(*(_result_labels(argument) for argument in node.args))
    if isinstance(node, promql_parser.ParenExpr | promql_parser.SubqueryExpr | promql_parser.UnaryExpr):
        return _result_labels(node.expr)
    return frozenset()


def _nodes(expr: str) -> Iterator[promql_parser.Expr]:
    nodes: list[promql_parser.Expr] = []
    # A visitor that returns False would end the walk.
    promql_parser.walk(promql_parser.parse(expr), lambda node: nodes.append(node))
    return iter(nodes)
