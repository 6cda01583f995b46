"""The shipped Prometheus configurations against a real collector with an agent: all parts are scraped, all rules evaluate.

Only addresses, ports and intervals differ from the files.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.promql import DEPLOY
from tests.system.conftest import RequireProgram
from tests.system.programs import AGENT, COLLECTOR, Program, free_ports, get, metric, wait_until
from tests.system.prometheus import Prometheus, running

pytestmark = pytest.mark.system

SHIPPED = DEPLOY / "prometheus"


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector that has energy of one host."""

    port: int


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector and an agent with simulated counters, as programs."""
    folder = tmp_path_factory.mktemp("collector")
    http, grpc = free_ports(2)
    (folder / "collector.toml").write_text(
        f'server.port = {grpc}\nhttp.port = {http}\nstore.path = "ledger.sqlite"\n[[site]]\nname = "here"\nzone = "DE"\n'
    )
    (folder / "agent.toml").write_text(
        f'host = "a"\nstate_dir = "{folder / "agent"}"\nflush_seconds = 1.0\n'
        f'collector.address = "127.0.0.1:{grpc}"\nsources.fake.gpus = 1\n'
    )

    def has_energy() -> bool:
        text = get(f"http://127.0.0.1:{http}/metrics") or ""
        return bool(metric(text, "wattledger_host_energy_joules_total"))

    with (
        Program(COLLECTOR, ["serve", "--config", str(folder / "collector.toml")], folder / "collector.log"),
        Program(AGENT, ["run", "--config", str(folder / "agent.toml")], folder / "agent.log"),
    ):
        wait_until(has_energy, "energy on /metrics", 60)
        yield Collector(http)


@pytest.mark.parametrize(("name", "parts"), [("prometheus.yml", 1), ("prometheus-http-sd.yml", 4)])
def test_shipped_configurations(
    require_program: RequireProgram, collector: Collector, tmp_path: Path, name: str, parts: int
) -> None:
    """Every part is up under the job that the alerts look for, series do not depend on the parts, and no rule fails."""
    program = require_program("prometheus", package="prometheus")
    text = (SHIPPED / name).read_text()
    for shipped, here in (
        ("127.0.0.1:9790", f"127.0.0.1:{collector.port}"),
        ("_interval: 15s", "_interval: 500ms"),
        ("scrape_timeout: 10s", "scrape_timeout: 500ms"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    (tmp_path / name).write_text(text)
    shutil.copytree(SHIPPED / "rules", tmp_path / "rules")
    with running(program, tmp_path / name, tmp_path) as prometheus:
        wait_until(lambda: count(prometheus, 'up{job="wattledger"} == 1') == parts, "all parts to be up", 60)
        wait_until(lambda: count(prometheus, "wattledger_host_power_watts") >= 1, "the host's power", 60)
        wait_until(lambda: count(prometheus, "wattledger_site_energy_joules_total") >= 1, "the site's energy", 60)
        assert count(prometheus, "wattledger_host_info") == 1
        assert count(prometheus, '{__name__=~"wattledger_.+", shard=~".+"}') == 0
        wait_until(lambda: evaluated(prometheus), "all alerts to be evaluated", 60)
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        assert [rule["name"] for rule in rules if rule.get("lastError")] == []
        assert [alert for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"] == []


def count(prometheus: Prometheus, expr: str) -> int:
    """How many series an expression has."""
    return len(prometheus.query(expr))


def evaluated(prometheus: Prometheus) -> bool:
    """Whether every alert's group was evaluated once; recording rules have intervals of minutes."""
    groups = [group for group in prometheus.get("rules")["groups"] if group["file"].endswith("alerts.yml")]
    return len(groups) >= 3 and all(rule["health"] == "ok" for group in groups for rule in group["rules"])
