"""Alert and recording rules under the real promtool: their unit tests pass, and fail when a rule is spoiled.

Starts no server. The cases themselves are in deploy/prometheus/tests/, one file an alert.
"""

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.system.conftest import RequireProgram

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
ALERTS = PROMETHEUS / "rules" / "wattledger.alerts.yml"
RECORDING = PROMETHEUS / "rules" / "wattledger.recording.yml"
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))

pytestmark = pytest.mark.system


def alerts() -> dict[str, dict[str, Any]]:
    """Each alerting rule by its name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def cases_of(alert: str) -> Any:
    """The promtool tests of an alert, as a tree."""
    return yaml.safe_load((PROMETHEUS / "tests" / f"{alert}.yml").read_text())


def promtool(path: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def tool(require_program: RequireProgram) -> str:
    """Path of promtool."""
    return require_program("promtool", package="prometheus")


def test_rules_and_configurations_are_valid(tool: str) -> None:
    """promtool finds no fault in any rule file or scrape configuration."""
    for kind, paths in (("rules", [ALERTS, RECORDING]), ("config", [*PROMETHEUS.glob("*.yml")])):
        done = promtool(tool, "check", kind, *paths)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_hold(tool: str, path: Path) -> None:
    """Each rule fires, or records, as its cases say."""
    done = promtool(tool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_has_a_firing_and_a_silent_case(alert: str) -> None:
    """An alert that was only ever seen in one state is not tested."""
    checks = [check for case in cases_of(alert)["tests"] for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in checks} == {alert}
    assert any(check["exp_alerts"] for check in checks), "no case fires"
    assert any(not check["exp_alerts"] for check in checks), "no case is silent"


def spoiled(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rule with one thing wrong in turn: each comparison turned round, and without patience."""
    opposite = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!="}
    # A comparison operator stands alone; `=~` and `!=` of matchers don't.
    for found in re.finditer(r"(?<= )(>=|<=|==|>|<)(?= )", rule["expr"]):
        turned = rule["expr"][: found.start()] + opposite[found[0]] + rule["expr"][found.end() :]
        yield f"{found[0]} at {found.start()} turned round", {**rule, "expr": turned}
    yield "for: 0s", {**rule, "for": "0s"}
    # What a long patience hides is an alert that never comes.
    yield "for: 10d", {**rule, "for": "10d"}


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_a_spoiled_alert_fails_its_cases(tool: str, tmp_path: Path, alert: str) -> None:
    """Whichever comparison is turned round, or if the alert comes at once or too late, some case fails."""
    cases = copy.deepcopy(cases_of(alert))
    # Recording rules cost a second a run, and one alert needs them.
    cases["rule_files"] = [str(tmp_path / "alert.yml"), *([str(RECORDING)] if len(cases["rule_files"]) > 1 else [])]
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))

    def passes(rule: dict[str, Any]) -> bool:
        group = {"name": "wattledger-efficiency", "rules": [rule]}
        (tmp_path / "alert.yml").write_text(yaml.safe_dump({"groups": [group]}))
        return promtool(tool, "test", "rules", tmp_path / "cases.yml").returncode == 0

    rule = alerts()[alert]
    assert passes(rule)
    survivors = [what for what, wrong in spoiled(rule) if passes(wrong)]
    assert survivors == []
