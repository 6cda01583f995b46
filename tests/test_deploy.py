"""What is in deploy/: examples that the real parsers take, and paths, ports, users and anchors that agree.

Starts nothing; tests/system/ runs promtool, Prometheus, systemd-analyze and openssl.
"""

import argparse
import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.promql import DEPLOY, exported

from wattledger_agent.config import AgentConfig, parse_config
from wattledger_collector.commands import add_commands
from wattledger_collector.config import Configuration, check_zones, parse_configuration
from wattledger_collector.factor_files import load_catalog

ROOT = DEPLOY.parent
CONTAINERS = DEPLOY / "containers"
README = (DEPLOY / "README.md").read_text()
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def compose() -> Any:
    """The compose file's tree."""
    return yaml.safe_load((CONTAINERS / "compose.yaml").read_text())


def mounts(service: str) -> dict[str, str]:
    """A service's volumes: place in the container to source."""
    return {volume.split(":")[1]: volume.split(":")[0] for volume in compose()["services"][service]["volumes"]}


def agent_example(folder: str) -> AgentConfig:
    """An example agent.toml, parsed."""
    return parse_config((DEPLOY / folder / "agent.toml").read_text())


def collector_example(folder: str) -> Configuration:
    """An example collector.toml, parsed, with its zones checked."""
    configuration = parse_configuration((DEPLOY / folder / "collector.toml").read_text())
    check_zones(configuration, load_catalog())
    return configuration


def test_examples_for_systemd_agree_with_the_units() -> None:
    """State is in the folders that the units own, both sides have TLS, and the agent calls the collector's port."""
    agent, collector = agent_example("config"), collector_example("config")
    assert agent.state_dir == f"/var/lib/{unit('wattledger-agent')['StateDirectory']}"
    assert str(Path(collector.store.path).parent) == f"/var/lib/{unit('wattledger-collector')['StateDirectory']}"
    assert agent.collector.uses_tls
    assert collector.server.tls is not None
    assert not collector.server.insecure
    assert not collector.http.insecure
    assert agent.collector.address.endswith(f":{collector.server.port}")


def unit(name: str) -> configparser.SectionProxy:
    """A unit's [Service] section; of keys given more than once the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(DEPLOY / "systemd" / f"{name}.service")
    return parser["Service"]


@pytest.mark.parametrize("name", [path.stem for path in UNITS])
def test_units_run_what_is_installed(name: str) -> None:
    """The command exists, its configuration is the example's place, its user is made, and a hung one is started again."""
    service = unit(name)
    program, command, option, configuration = service["ExecStart"].split()
    assert program == f"/opt/wattledger/bin/{name}"
    assert name in SCRIPTS
    assert (command, option) == ({"wattledger-agent": "run", "wattledger-collector": "serve"}[name], "--config")
    assert (DEPLOY / "config" / Path(configuration).name).is_file()
    users = re.findall(r"^u (\S+)", (DEPLOY / "systemd" / "wattledger.sysusers").read_text(), re.MULTILINE)
    assert service["User"] in users
    assert service["Group"] == service["User"]
    assert service["Restart"] == "always"
    assert int(service["WatchdogSec"]) > 0
    assert service["CapabilityBoundingSet"] == ""


def test_the_agents_group_reads_rapl() -> None:
    """The udev rule gives the counters to the group that the unit runs as, and to nobody else."""
    rule = (DEPLOY / "systemd" / "70-wattledger.rules").read_text()
    assert f"chgrp {unit('wattledger-agent')['Group']} " in rule
    assert "chmod 0440" in rule


def test_compose_mounts_what_exists() -> None:
    """Every relative path is there, every volume is declared, and paths of the machine are the few that are meant."""
    tree = compose()
    used: set[str] = set()
    for name, service in tree["services"].items():
        for source in mounts(name).values():
            if source.startswith("."):
                assert (CONTAINERS / source).exists(), source
            elif source.startswith("/"):
                assert name == "agent"
                assert source in {"/etc/machine-id", "/sys/class", "/sys/devices", "/sys/fs/cgroup", "/sys/module"}
            else:
                used.add(source)
        if "build" in service:
            context = (CONTAINERS / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()
    assert used == set(tree["volumes"])


def test_compose_lets_nobody_in_from_outside() -> None:
    """All ports are published on loopback, no container has a capability, and nothing but state is writable."""
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        for volume in service["volumes"]:
            assert volume.endswith(":ro") or not volume.startswith((".", "/")), volume


def test_compose_services_find_each_other() -> None:
    """Addresses and ports in the mounted files are those of the services; the agent's connection never leaves loopback."""
    services = compose()["services"]
    agent, collector = agent_example("containers"), collector_example("containers")
    assert services["agent"]["network_mode"] == "service:collector"
    assert agent.collector.address == f"{collector.server.address}:{collector.server.port}"
    assert not collector.server.insecure
    assert services["collector"]["ports"] == [f"127.0.0.1:{collector.http.port}:{collector.http.port}"]
    assert f":{collector.http.port}/readyz" in services["collector"]["healthcheck"]["test"][-1]
    scrape = yaml.safe_load((CONTAINERS / "prometheus.yml").read_text())
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": [f"collector:{collector.http.port}"]}]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/wattledger.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


def test_compose_mounts_files_where_they_are_read() -> None:
    """Configurations, state, rules, dashboards and sensors are where the programs look for them."""
    services = compose()["services"]
    assert mounts("collector")[str(Path(collector_example("containers").store.path).parent)] == "collector-state"
    assert mounts("agent")[agent_example("containers").state_dir] == "agent-state"
    for name in ("agent", "collector"):
        command = services[name].get("command") or containerfile_command(name)
        assert mounts(name)[command[command.index("--config") + 1]] == f"./{name}.toml"
    root = Path(services["agent"]["command"][services["agent"]["command"].index("--sysfs-root") + 1])
    for folder in ("class", "devices", "module"):
        assert mounts("agent")[str(root / folder)] == f"/sys/{folder}"
    assert mounts("prometheus")["/etc/prometheus/rules"] == "../prometheus/rules"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/wattledger.yaml").read_text())["providers"][0]
    place = provider["options"]["path"]
    assert mounts("grafana")[place] == "../grafana/dashboards"
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == place
    assert (DEPLOY / "grafana" / "dashboards" / home.name).is_file()


def containerfile_command(name: str) -> list[str]:
    """The CMD of a Containerfile."""
    found = re.search(r"^CMD (\[.*\])$", (CONTAINERS / f"{name}.Containerfile").read_text(), re.MULTILINE)
    assert found is not None
    command: list[str] = yaml.safe_load(found[1])
    return command


@pytest.mark.parametrize("name", ["agent", "collector"])
def test_containerfiles_copy_what_exists(name: str) -> None:
    """What is copied from the checkout is there, and the entry point is an installed command."""
    text = (CONTAINERS / f"{name}.Containerfile").read_text()
    copied = [path for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for path in line.split()[:-1]]
    assert {"pyproject.toml", "agent", "collector", "protos"} <= set(copied)
    assert all((ROOT / path).exists() for path in copied)
    assert f'ENTRYPOINT ["/opt/wattledger/bin/wattledger-{name}"]' in text
    assert f"wattledger-{name}" in SCRIPTS


def test_the_containers_scrape_as_the_machine_does() -> None:
    """The two scrape configurations differ in the collector's address alone."""
    there = yaml.safe_load((CONTAINERS / "prometheus.yml").read_text())
    here = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (there["scrape_configs"][0].pop("static_configs"), here["scrape_configs"][0].pop("static_configs"))
    assert there == here


def alerts() -> dict[str, Any]:
    """Each alerting rule by its name."""
    groups = yaml.safe_load((DEPLOY / "prometheus/rules/wattledger.alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def sections() -> dict[str, str]:
    """The runbook's sections by their anchors, as GitHub makes them from headings."""
    parts = re.split(r"^## (.+)$", RUNBOOK, flags=re.MULTILINE)[1:]
    anchors = [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in parts[::2]]
    return dict(zip(anchors, parts[1::2], strict=True))


@pytest.mark.parametrize("name", sorted(alerts()))
def test_each_alert_leads_to_its_section(name: str) -> None:
    """Summary, description, severity, patience; and a section on what it means, what to do and how to silence it."""
    rule = alerts()[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(len(text) > 20 for text in rule["annotations"].values())
    address, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert address.endswith("/deploy/RUNBOOK.md")
    assert anchor == name.lower()
    section = sections()[anchor]
    assert all(f"**{word}.**" in section for word in ("Means", "Do", "Silence"))


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    """Sections and alerts are the same, and links between sections lead somewhere."""
    assert set(sections()) == {name.lower() for name in alerts()}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= set(sections())


def test_the_runbook_names_what_there_is() -> None:
    """Metrics that it names are exported, and commands that it tells to run are taken."""
    named = set(re.findall(r"wattledger_\w+", RUNBOOK))
    assert named
    assert named <= set(exported())
    actions = set(re.findall(r"(?:`|wattledger-collector )host (\w+)", RUNBOOK))
    assert {"list", "drain", "retire", "activate"} <= actions
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_commands(parser.add_subparsers(required=True))
    for action in actions:
        parser.parse_args(["host", action, *(["HOST"] if action != "list" else [])])


def test_the_readme_names_what_is_there() -> None:
    """Its map lists every entry of the folder, and each path in its commands exists."""
    map_, _, rest = README.partition("\n## ")
    listed = set(re.findall(r"^\| `([^`]+)` \|", map_, re.MULTILINE))
    there = {path.name + ("/" if path.is_dir() else "") for path in DEPLOY.iterdir()} - {"README.md", "__pycache__/"}
    assert listed == there
    boards = set(re.findall(r"^\| `(\w+\.json)` \|", rest, re.MULTILINE))
    assert boards == {path.name for path in (DEPLOY / "grafana" / "dashboards").iterdir()}
    for path in re.findall(r"deploy/[\w./-]+\w", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:grafana|prometheus|containers)/[\w./-]+)`", README):
        assert (DEPLOY / path).exists(), path
    for path in UNITS:
        assert f"/etc/systemd/system/{path.name}" in README
