"""The Grafana dashboards: fresh, well-formed, and asking only for what is exported.

No Grafana runs here; tests/system/test_dashboards.py evaluates each query on a real Prometheus.
"""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.boards import FOLDER, NAMES, Target, board, panels, targets
from tests.promql import DEPLOY, RULES, exported, faults, result_labels, selectors, substituted

from grafana.generate import texts

TARGETS = list(targets())
# Of Grafana's units those that read well for our quantities; see deploy/grafana/panels.py.
UNITS = {
    *("watt", "kwatth", "joule", "percentunit", "s", "bytes", "short", "celsius", "hertz"),
    *("suffix: kg", "suffix: g/h", "suffix: g/kWh", "suffix: s/kWh"),
}
VARIABLES = {
    "fleet": ["datasource", "site"],
    "host": ["datasource", "site", "host"],
    "workloads": ["datasource", "site", "host", "kind", "namespace", "method"],
    "sensors": ["datasource", "site", "host"],
}
COLUMNS = 24
# Each is one kind of figure alone: the agent's own energy is always an estimate, what a GPU says of itself never is.
WITHOUT_METHOD = {"wattledger_agent_energy_joules_total", "wattledger_device_power_watts"}


def target_id(target: Target) -> str:
    """A test's id."""
    return f"{target.board}-{target.panel}-{target.legend}"


def test_files_are_fresh() -> None:
    """The checked-in files are what the generator makes: run `make dashboards` where this fails."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == texts()


@pytest.mark.parametrize("name", NAMES)
def test_schema(name: str) -> None:
    """A file is what the SDK's types hold, to the last key: parsed into them and written again it is the same."""
    tree = board(name)
    again = json.loads(json.dumps(Dashboard.from_json(tree), cls=JSONEncoder))
    assert again == tree
    assert tree["schemaVersion"] == 41


@pytest.mark.parametrize("name", NAMES)
def test_dashboard_settings(name: str) -> None:
    """Stable address, not edited in the browser, and one crosshair on all panels."""
    tree = board(name)
    assert tree["uid"] == f"wattledger-{name}"
    assert tree["editable"] is False
    assert tree["graphTooltip"] == 1
    assert tree["title"]
    assert tree["description"]
    assert "wattledger" in tree["tags"]
    assert [(link["keepTime"], link["includeVars"]) for link in tree["links"]] == [(True, True)]


@pytest.mark.parametrize("name", NAMES)
def test_variables(name: str) -> None:
    """Each is labelled, and used; those of labels are read again when the time changes, and ask for labels that exist."""
    variables = {variable["name"]: variable for variable in board(name)["templating"]["list"]}
    assert list(variables) == VARIABLES[name]
    expressions = " ".join(target.expr for target in TARGETS if target.board == name)
    used = expressions + " ".join(str(variable["query"]) for variable in variables.values())
    assert all(f"${each}" in used for each in variables if each != "datasource")
    assert variables.pop("datasource")["query"] == "prometheus"
    chosen = variables.pop("method", None)
    for variable in variables.values():
        assert variable["label"]
        assert variable["refresh"] == 2
        assert variable["datasource"]["uid"] == "${datasource}"
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found is not None
        (selector,) = selectors(substituted(found[1]))
        assert {*selector.labels, found[2]} <= exported()[selector.metric]
    # A regular expression that a series without the label would match, too, shows what nobody chose.
    assert variables["site"]["allValue"] == ".+"
    # But a workload may well have no namespace.
    assert "namespace" not in variables or variables["namespace"]["allValue"] == ".*"
    if chosen is not None:
        every = [f"{option['text']} : {option['value']}" for option in chosen["options"]]
        assert chosen["query"] == ", ".join(every)
        assert (chosen["multi"], chosen["includeAll"]) == (False, False)
        # No value is in two choices, or figures of both would be one.
        methods = [method for option in chosen["options"] for method in option["value"].split("|")]
        assert sorted(methods) == ["counter", "integral", "model"]
        assert ["model"] in [option["value"].split("|") for option in chosen["options"]]


@pytest.mark.parametrize("name", NAMES)
def test_panels_explain_themselves(name: str) -> None:
    """Title, description, unit, a word for no data that says what to do, and a query, on each panel."""
    for panel in panels(name):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"], panel
        assert len(panel["description"]) > 20, panel["title"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert len(defaults["noValue"]) > 10, panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        # A fixed point keeps Grafana from showing three decimals of a kilogram as five.
        if defaults["unit"].startswith("suffix:"):
            assert "decimals" in defaults, panel["title"]
    titles = [panel["title"] for panel in panels(name)]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("name", NAMES)
def test_layout(name: str) -> None:
    """Panels lie inside of 24 columns, none over another, with ids of their own."""
    every = board(name)["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    boxes = [(panel["title"], panel["gridPos"]) for panel in every]
    for title, box in boxes:
        assert box["x"] >= 0, title
        assert box["w"] > 0, title
        assert box["h"] > 0, title
        assert box["x"] + box["w"] <= COLUMNS, title
    for (title, a), (other, b) in combinations(boxes, 2):
        apart = (
            a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{title} lies over {other}"


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_queries_ask_for_what_is_exported(target: Target) -> None:
    """Each query parses, and each metric, matcher and grouping exists; a legend names labels that the result has."""
    expr = substituted(target.expr)
    assert faults(expr) == []
    assert set(re.findall(r"\{\{(\w+)\}\}", target.legend)) <= result_labels(expr)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_ranges_follow_the_screen(target: Target) -> None:
    """Rates look back as far as Grafana says the scrape interval needs, totals over the range shown."""
    for function, span in re.findall(r"\b(rate|increase|deriv|delta)\([^\[]*\[([^\]]+)\]", target.expr):
        assert span == {"rate": "$__rate_interval", "increase": "$__range"}.get(function), target.expr
    counters = [s.metric for s in selectors(substituted(target.expr)) if s.metric.endswith("_total")]
    # How many there are is no value of theirs.
    counted = re.search(r"count by \([^)]*\) \(wattledger_\w+\{[^}]*\}\)", target.expr)
    assert not counters or counted or re.search(r"\b(rate|increase)\(", target.expr), "a counter is shown raw"


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_a_fleet_draws_few_lines(target: Target) -> None:
    """Lines by host are those of the largest hosts, and over a time range the same ones at every instant."""
    lines = target.kind == "timeseries" and not target.is_instant
    if lines and "{{host}}" in target.legend:
        assert "topk(" in target.expr
    if lines and "topk(" in target.expr:
        assert re.search(r"and (?:on \([^)]*\) )?topk\(\d+, .*@ end\(\)", target.expr)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_measured_and_modelled_are_never_one_series(target: Target) -> None:
    """A query of energy, power or emissions takes one of them, or keeps the label that tells them apart.

    A table keeps it as a column.
    """
    for metric in re.findall(r"wattledger_\w+_(?:joules_total|power_watts|grams_total)", target.expr):
        label = "metering" if "metering" in exported()[metric] else "method"
        if metric in WITHOUT_METHOD:
            assert label not in exported()[metric]
            continue
        chosen = re.search(rf'{metric}\{{[^}}]*\b{label}(?:!?="|=~"\$method")', target.expr)
        kept = label in result_labels(substituted(target.expr))
        kept &= f"{{{{{label}}}}}" in target.legend or target.kind == "table"
        assert chosen or kept, target.expr


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """Each link of a cell names a dashboard that exists, keeps time and data source, and uses columns that the table has."""
    for panel in panels(name):
        for url in re.findall(r'"url": "(/d/[^"]+)"', json.dumps(panel)):
            assert url.split("?")[0].removeprefix("/d/") in {board(other)["uid"] for other in NAMES}
            assert "${__url_time_range}" in url
            assert "var-datasource=${datasource}" in url
            shown = panel["transformations"][-1]["options"]
            for column in re.findall(r"__data\.fields\.(\w+)", url):
                assert column in shown["includeByName"]
                # Grafana finds a field by the name that is shown.
                assert column not in shown["renameByName"]


def test_tables_show_columns_that_exist() -> None:
    """Each column of a table is a label of all its queries, or one's value; a heading with a unit of its own is there."""
    for name in NAMES:
        for panel in panels(name):
            if panel["type"] == "table":
                *merged, organized = panel["transformations"]
                shown = set(organized["options"]["includeByName"])
                letters = [target["refId"] for target in panel["targets"]]
                assert [each["id"] for each in merged] == (["merge"] if len(letters) > 1 else [])
                values = {f"Value #{letter}" for letter in letters} if merged else {"Value"}
                assert values <= shown or not merged
                for target in panel["targets"]:
                    assert shown - values <= result_labels(substituted(target["expr"])), panel["title"]
                    assert target["format"] == "table"
                headings = {organized["options"]["renameByName"].get(column, column) for column in shown}
                named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
                assert named <= headings, panel["title"]


def rule_expressions() -> dict[str, str]:
    """Every rule's expression by alert or record and place."""
    found = {}
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for index, rule in enumerate(group["rules"]):
                found[f"{rule.get('alert', rule.get('record'))}-{index}"] = rule["expr"]
    return found


@pytest.mark.parametrize("name", sorted(rule_expressions()))
def test_rules_ask_for_what_is_exported(name: str) -> None:
    """A rule on a metric or a label that nothing exports would be silent for ever."""
    assert faults(rule_expressions()[name]) == []


def test_provisioning() -> None:
    """Nothing is changed in the browser, and the data source has the scrape configuration's interval."""

    def tree(path: Path) -> Any:
        return yaml.safe_load(path.read_text())

    folder = DEPLOY / "grafana" / "provisioning"
    (provider,) = tree(folder / "dashboards" / "wattledger.yaml")["providers"]
    assert provider["allowUiUpdates"] is False
    assert provider["disableDeletion"] is True
    (source,) = tree(folder / "datasources" / "wattledger.yaml")["datasources"]
    assert source["uid"] == "wattledger-prometheus"
    interval = tree(DEPLOY / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
