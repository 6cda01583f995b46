"""A real Prometheus scrapes the collector's HTTP side: names are clean, sums are the ledger's, counters are never reset."""

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from tests.collector.fleets import (
    COLLECTOR,
    GPUS,
    MEASURED,
    MODELLED,
    Part,
    SimulatedFleet,
    SimulatedHost,
    assignments,
    load,
    site_rows,
)
from tests.system.conftest import RequireProgram

from wattledger_collector.backup import backup, restore
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.fleet import FleetView
from wattledger_collector.metrics import FAMILIES
from wattledger_collector.records import MICROJOULES_PER_JOULE, NANOSECONDS_PER_SECOND, Booking, Component, Method, Role
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.web.app import make_app

pytestmark = pytest.mark.system

SCRAPE_SECONDS = 0.2
WAIT_SECONDS_MAX = 30.0
RESIDUAL = Part("node", Component.OTHER, Method.INTEGRAL, 5_000, Role.RESIDUAL, "residual", "hwmon")


@dataclass
class Collector:
    """A fleet view over a real database, served on one port for as long as the test wants."""

    path: Path
    port: int
    hosts: list[SimulatedHost]
    now: float
    fleet: SimulatedFleet | None = None
    store: SqliteStore | None = None
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the database, load the view, serve it."""
        self.store = open_store(self.path, create=True)
        if not self.store.sites():
            self.store.add_sites(site_rows())
            self.store.add_assignments(assignments(self.hosts))
        view = FleetView(collector=COLLECTOR, interval_seconds=self.store.interval_seconds)
        load(view, self.store, self.now)
        self.fleet = SimulatedFleet(view, self.hosts, self.store)
        app = make_app(view, store=self.store, catalog=load_catalog(), clock=lambda: self.now)
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server and let go of the database."""
        if self.server is not None and self.thread is not None and self.store is not None:
            self.server.should_exit = True
            self.thread.join(20)
            self.store.close()
        self.server = None

    def step(self, seconds: int = 10) -> None:
        """Time passes; all hosts report."""
        assert self.fleet is not None
        self.now += seconds
        self.fleet.step(int(self.now))

    def text(self, accept: str = "text/plain") -> str:
        """What /metrics says."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def ledger_joules(self) -> float:
        """The whole of the database's energy."""
        assert self.store is not None
        return sum(row.energy_microjoules for row in self.store.rollups(0, 2**40)) / MICROJOULES_PER_JOULE


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector with measured, accelerated and modelled hosts."""
    now = int(time.time()) // 900 * 900 + 10
    hosts = [
        SimulatedHost("gpu", GPUS, now),
        SimulatedHost("web", (*MEASURED, RESIDUAL), now),
        SimulatedHost("vm", MODELLED, now),
    ]
    collector = Collector(tmp_path / "ledger.sqlite", 0, hosts, float(now))
    collector.start()
    assert collector.fleet is not None
    collector.fleet.open(now)
    collector.step()
    yield collector
    collector.stop()


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Result of an instant query."""
        text = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{text}", timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None if there is none."""
        result = self.query(expression)
        assert len(result) <= 1
        return float(result[0]["value"][1]) if result else None

    def wait_for(self, expression: str, wanted: Callable[[float | None], bool]) -> float | None:
        """The first value that is wanted."""
        end = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            value = self.value(expression)
            if wanted(value):
                return value
            assert time.monotonic() < end, f"{expression} stayed {value}"
            time.sleep(SCRAPE_SECONDS)


@pytest.fixture
def prometheus(require_program: RequireProgram, collector: Collector, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that finds the collector by its HTTP service discovery, in two shards."""
    program = require_program("prometheus", package="prometheus")
    targets = f"http://127.0.0.1:{collector.port}/api/v1/prometheus/targets?shards=2"
    configuration = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
        "scrape_configs": [
            {
                "job_name": "wattledger",
                "http_sd_configs": [{"url": targets, "refresh_interval": "1s"}],
                "relabel_configs": [{"source_labels": ["__param_shard"], "target_label": "shard"}],
            }
        ],
    }
    # YAML holds JSON.
    (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = [
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        end = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            try:
                if server.value('count(up{job="wattledger"} == 1)') == 2:
                    break
            except OSError:
                pass
            assert process.poll() is None, (tmp_path / "prometheus.log").read_text()
            assert time.monotonic() < end, (tmp_path / "prometheus.log").read_text()
            time.sleep(SCRAPE_SECONDS)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def test_promtool_has_no_complaint(require_program: RequireProgram, collector: Collector) -> None:
    """`promtool check metrics` accepts the live text, silently."""
    promtool = require_program("promtool", package="prometheus")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=collector.text(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_sums_over_all_labels_are_the_ledgers(prometheus: Prometheus, collector: Collector) -> None:
    """Every energy counter, summed over all its labels, is the database's total within float precision."""
    for _ in range(3):
        collector.step()
    joules = collector.ledger_joules()
    for scope in ("site", "host", "channel"):
        prometheus.wait_for(
            f"sum(wattledger_{scope}_energy_joules_total)", lambda value: value == pytest.approx(joules, rel=1e-12)
        )
    power = sum(part.milliwatts for host in collector.hosts for part in host.parts) / 1000
    assert prometheus.value("sum(wattledger_host_power_watts)") == pytest.approx(power)
    assert prometheus.value("sum(wattledger_agents)") == len(collector.hosts)
    assert prometheus.value("sum(wattledger_covered_seconds) / sum(wattledger_expected_seconds)") == 1
    # Nothing is declared, so that the grid's factor stands in market based; each family counts every gram once.
    for family in ("emissions", "market_based_emissions"):
        grams = prometheus.value(f"sum(wattledger_site_{family}_grams_total)")
        assert grams == pytest.approx(joules / 3.6e6 * 1.25 * 344.13992)
    told = "sum(wattledger_site_quality_energy_joules_total) + sum(wattledger_site_uncovered_energy_joules)"
    assert prometheus.value(told) == pytest.approx(joules, rel=1e-12)


def test_every_exposed_family_is_stored(prometheus: Prometheus, collector: Collector) -> None:
    """Prometheus stores each family of the text, over both shards, with the type of the table."""
    collector.step()
    names = {line.split()[2] for line in collector.text().splitlines() if line.startswith("# TYPE wattledger_")}
    known = {family.name for family in FAMILIES}
    assert len(names & known) > 20
    for name in names & known:
        prometheus.wait_for(f"count({name})", lambda value: value is not None and value >= 1)
    assert prometheus.value("count(count by (shard) (wattledger_host_info))") == 2


def test_gauges_of_a_silent_host_vanish(prometheus: Prometheus, collector: Collector) -> None:
    """The power of a silent host is stale at the next scrape; its energy is still there."""
    collector.step()
    prometheus.wait_for('count(wattledger_host_power_watts{host="web"})', lambda value: value == 3)
    silent = [host for host in collector.hosts if host.name == "web"]
    assert collector.fleet is not None
    collector.fleet.hosts = [host for host in collector.hosts if host not in silent]
    for _ in range(7):
        collector.step()
    prometheus.wait_for('count(wattledger_host_power_watts{host="web"})', lambda value: value is None)
    prometheus.wait_for('wattledger_agents{state="silent"}', lambda value: value == 1)
    assert prometheus.value('count(wattledger_host_energy_joules_total{host="web"})') == 3
    assert prometheus.value("count(wattledger_host_power_watts)") == 5


def resets(prometheus: Prometheus) -> float | None:
    """How often any counter of energy or emissions fell within the test."""
    # The name is no label of a result, so series of different names could be alike: each keeps its name in a label.
    parts = " or ".join(
        f'label_replace(resets({name}[10m]), "counter", "{name}", "", "")'
        for name in (
            "wattledger_site_energy_joules_total",
            "wattledger_host_energy_joules_total",
            "wattledger_channel_energy_joules_total",
            "wattledger_site_emissions_grams_total",
            "wattledger_site_market_based_emissions_grams_total",
            "wattledger_site_quality_energy_joules_total",
        )
    )
    return prometheus.value(f"sum({parts})")


def test_a_restarted_collector_resets_no_counter(prometheus: Prometheus, collector: Collector) -> None:
    """The same counters come back from the database, a residual that had fallen included."""
    web = next(host for host in collector.hosts if host.name == "web")
    web.parts = (*MEASURED, replace(RESIDUAL, milliwatts=-2_000))
    collector.step()
    total = prometheus.wait_for("sum(wattledger_host_energy_joules_total)", lambda value: value is not None and value > 0)
    collector.stop()
    collector.start()
    collector.step()
    prometheus.wait_for(
        "sum(wattledger_host_energy_joules_total)", lambda value: value is not None and total is not None and value > total
    )
    assert resets(prometheus) == 0


def test_a_restored_collector_resets_no_counter(prometheus: Prometheus, collector: Collector, tmp_path: Path) -> None:
    """Counters are withheld after a restore, and come back where they were once the agents have sent again what it lacks."""
    collector.step()
    backup(collector.path, tmp_path / "copy.sqlite")
    for _ in range(3):
        collector.step()
    joules = collector.ledger_joules()
    prometheus.wait_for("sum(wattledger_site_energy_joules_total)", lambda value: value == pytest.approx(joules, rel=1e-12))
    collector.stop()
    restore(tmp_path / "copy.sqlite", collector.path, force=True)
    collector.start()
    assert collector.store is not None
    assert collector.ledger_joules() < joules
    prometheus.wait_for("sum(wattledger_hosts_withheld)", lambda value: value == 3)
    prometheus.wait_for("sum(wattledger_host_energy_joules_total)", lambda value: value is None)
    prometheus.wait_for("sum(wattledger_site_energy_joules_total)", lambda value: value is None)
    assert collector.fleet is not None
    collector.fleet.commit([hello_after_restore(host, collector.store) for host in collector.hosts], collector.now)
    end = int(collector.now)
    for second in (end - 20, end - 10, end):
        assert prometheus.value("sum(wattledger_site_energy_joules_total)") is None
        collector.fleet.step(second)
    prometheus.wait_for("sum(wattledger_site_energy_joules_total)", lambda value: value == pytest.approx(joules, rel=1e-12))
    assert prometheus.value("sum(wattledger_hosts_withheld)") == 0
    assert resets(prometheus) == 0


def hello_after_restore(host: SimulatedHost, store: SqliteStore) -> Booking:
    """The agent says what it has sent, and goes on from what is committed: its counters are withheld until then."""
    assert host.cursor is not None
    sent = host.cursor.committed_sequence
    record = store.load_host(host.name)
    cursor = store.load_cursor(host.name, host.epoch)
    assert record is not None
    assert cursor is not None
    assert record.withheld
    host.host = msgspec.structs.replace(
        record, version=record.version + 1, withheld=False, withheld_until={host.epoch: sent}
    )
    host.cursor = cursor
    host.at_seconds = max(point.utc_nanoseconds for point in cursor.points.values()) // NANOSECONDS_PER_SECOND
    return Booking(record, host.host, cursor, cursor)
