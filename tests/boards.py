"""The generated dashboards as plain values, for the tests that look into them.

Judges nothing. Source of truth: deploy/grafana/dashboards/*.json.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.promql import DEPLOY

FOLDER = DEPLOY / "grafana" / "dashboards"
NAMES = ("fleet", "host", "workloads", "sensors")


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel."""

    board: str
    panel: str
    kind: str
    unit: str
    expr: str
    legend: str
    is_instant: bool


def board(name: str) -> Any:
    """A dashboard's tree."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def panels(name: str) -> list[Any]:
    """A dashboard's panels but rows."""
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


def targets() -> Iterator[Target]:
    """All queries of all dashboards."""
    for name in NAMES:
        for panel in panels(name):
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                yield Target(
                    name,
                    panel["title"],
                    panel["type"],
                    unit,
                    target["expr"],
                    target.get("legendFormat", ""),
                    target["instant"],
                )
