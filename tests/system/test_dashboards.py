"""Every query of every dashboard on a real Prometheus: answered with figures on a fleet's data, and with nothing on none.

No Grafana runs here. The data are two hours of a simulated fleet as /metrics shows them, a scrape a minute.
"""

import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.boards import Target, targets
from tests.collector.fleets import (
    COLLECTOR,
    GPUS,
    MODELLED,
    Part,
    SimulatedFleet,
    SimulatedHost,
    add_details,
    assignments,
    load,
    site_rows,
)
from tests.promql import recorded, substituted
from tests.system.conftest import RequireProgram
from tests.system.prometheus import Prometheus, running

from wattledger_collector.exposition import Exposition
from wattledger_collector.fleet import FleetView
from wattledger_collector.records import Booking, Component, Method, Role
from wattledger_collector.store import open_store
from wattledger_collector.workload_records import IdlePolicy, Workload, WorkloadKind
from wattledger_protos.v1 import telemetry_pb2 as pb

pytestmark = pytest.mark.system

SCRAPE_SECONDS = 60
HOURS = 2
# As Grafana reckons it: four scrapes.
RATE_INTERVAL = "4m"
RANGE_SECONDS = 3600
METER = Part("node", Component.OTHER, Method.INTEGRAL, 800_000, Role.METER, "node", "hwmon")


@dataclass
class FullHost(SimulatedHost):
    """A host with a node meter and with every kind of utilization, whose sources are read."""

    def batch(self, to_seconds: int, *, interval_seconds: int = 900, gap: bool = False) -> Booking:
        """As the ledger: a meter's energy has a cursor, and is not booked."""
        booking = SimulatedHost.batch(self, to_seconds, interval_seconds=interval_seconds, gap=gap)
        meters = {number for number, part in enumerate(self.parts, 1) if part.role is Role.METER}
        energy = tuple(row for row in booking.energy if row.channel not in meters)
        return replace(booking, energy=energy)

    def live(self, factor: float = 1.0) -> pb.Live:
        """Present values, and counters that count."""
        live = SimulatedHost.live(self, factor)
        for kind in (pb.UTILIZATION_KIND_MEMORY, pb.UTILIZATION_KIND_STEAL):
            live.utilizations.append(pb.LiveUtilization(device="cpu", kind=kind, ppm=250_000))
        live.utilizations.append(pb.LiveUtilization(device="gpu/GPU-1", kind=pb.UTILIZATION_KIND_MEMORY, ppm=500_000))
        elapsed = self.at_seconds - self.started_seconds
        for source in live.sources:
            source.reads, source.failures = elapsed, elapsed // 100
        live.agent_cpu_nanoseconds = elapsed * 2_000_000
        if any(part.component is Component.GPU for part in self.parts):
            add_details(live)
            # Counters that count, and the estimate beside a meter.
            live.agent_energy_microjoules, live.agent_wakeups = elapsed * 150_000, elapsed * 12
            live.meter.failed_reads = elapsed // 60
            live.cross_checks.add(
                device="node", source="estimate", domain="estimate", reference_source="hwmon", reference_domain="node",
                disagreement_ratio=0.12, window_seconds=300,
            )  # fmt: skip
        return live


# What the first CPU of host a was spent on; all of its 120 W is divided.
POLICY = IdlePolicy.NODE_ONLY
WORKLOADS = {
    Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "web-0", POLICY): 50_000,
    Workload(WorkloadKind.KUBERNETES_POD, "uid-2", "data", "db-0", POLICY): 20_000,
    Workload(WorkloadKind.SLURM_JOB, "77", "ada", "train", POLICY): 10_000,
    Workload(WorkloadKind.SYSTEMD_UNIT, "ssh.service", "", "ssh.service", POLICY): 4_000,
    Workload(WorkloadKind.OTHER, "", "", "", POLICY): 1_000,
    Workload(WorkloadKind.UNATTRIBUTED, "", "", "", POLICY): 5_000,
    Workload(WorkloadKind.IDLE, "", "", "", POLICY): 30_000,
}
# The host of the Host dashboard has everything: a meter, GPUs, workloads, and a part that is estimated.
HOSTS: tuple[tuple[str, tuple[Part, ...]], ...] = (("a", (*GPUS, METER, *MODELLED)), ("b", MODELLED))
MEASURED_WATTS = sum(p.milliwatts for _, parts in HOSTS for p in parts if p.method != Method.MODEL and p != METER) / 1000
MODELLED_WATTS = sum(p.milliwatts for _, parts in HOSTS for p in parts if p.method == Method.MODEL) / 1000


def scrapes(ledger: Path, first_seconds: int, last_seconds: int) -> Iterator[str]:
    """All samples of the fleet's /metrics, and of what the rules record and raise, in OpenMetrics with their times."""
    hosts = [FullHost(name, parts, first_seconds, workloads=WORKLOADS if len(parts) > 1 else {}) for name, parts in HOSTS]
    # A real ledger: what a host's workloads used in all comes from its totals.
    store = open_store(ledger, create=True)
    store.add_sites(site_rows("north", "DE"))
    store.add_assignments(assignments(hosts, "north"))
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(view, store, first_seconds)
    fleet = SimulatedFleet(view, [*hosts], store)
    exposition = Exposition(view, registry=CollectorRegistry(), insecure_transport=True, version="1")
    fleet.open(first_seconds)
    for now in range(first_seconds + SCRAPE_SECONDS, last_seconds + 1, SCRAPE_SECONDS):
        fleet.step(now)
        for line in exposition.render(now).decode().splitlines():
            if not line.startswith("#"):
                yield f"{line} {now}\n"
        # The rules themselves are tested by promtool; here their names are enough.
        for name in recorded():
            for component in ("cpu", "gpu"):
                yield f'{name}{{host="a",site="north",component="{component}"}} 300 {now}\n'
        # The collector's own metrics are not the fleet's.
        yield f'wattledger_factor_age_seconds{{source="eia930",zone="US-CAL-CISO"}} 5400 {now}\n'
        labels = 'alertname="WattledgerInsecureTransport",alertstate="firing",severity="warning",instance="c:9790"'
        yield f"ALERTS{{{labels}}} 1 {now}\n"
    store.close()
    yield "# EOF\n"


@dataclass(frozen=True, slots=True)
class Filled:
    """A Prometheus with data up to an instant."""

    prometheus: Prometheus
    last_seconds: int


@pytest.fixture(scope="module")
def filled(require_program: RequireProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A Prometheus that holds the fleet's data."""
    folder = tmp_path_factory.mktemp("filled")
    last = int(time.time()) // 60 * 60 - 60
    with (folder / "data").open("w") as file:
        file.writelines(scrapes(folder / "ledger.sqlite", last - HOURS * 3600, last))
    tool = require_program("promtool", package="prometheus")
    imported = ["tsdb", "create-blocks-from", "openmetrics", str(folder / "data"), str(folder / "tsdb")]
    done = subprocess.run([tool, *imported], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "prometheus.yml").write_text("{}")
    with running(require_program("prometheus", package="prometheus"), folder / "prometheus.yml", folder) as prometheus:
        yield Filled(prometheus, last)


@pytest.fixture(scope="module")
def empty(require_program: RequireProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus without any data."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "prometheus.yml").write_text("{}")
    with running(require_program("prometheus", package="prometheus"), folder / "prometheus.yml", folder) as prometheus:
        yield prometheus


def as_sent(target: Target) -> str:
    """The expression with the variables as Grafana would fill them in for these data."""
    return substituted(target.expr.replace("$__rate_interval", RATE_INTERVAL))


def target_id(target: Target) -> str:
    """A test's id."""
    return f"{target.board}-{target.panel}-{target.legend}"


@pytest.mark.parametrize("target", list(targets()), ids=target_id)
def test_each_query_has_figures(filled: Filled, target: Target) -> None:
    """No query is empty or not a number, each series has the labels of its legend, and none stands for another's."""
    expr, last = as_sent(target), filled.last_seconds
    if target.is_instant:
        series = filled.prometheus.query(expr, last)
        values = [each["value"][1] for each in series]
    else:
        series = filled.prometheus.query_range(expr, last - RANGE_SECONDS, last, SCRAPE_SECONDS)
        values = [value for each in series for _, value in each["values"]]
        assert all(len(each["values"]) > 50 for each in series)
    assert series
    assert all(math.isfinite(float(value)) for value in values)
    names = []
    for each in series:
        labels = each["metric"]
        assert all(labels.get(label) for label in re.findall(r"\{\{(\w+)\}\}", target.legend))
        names.append(re.sub(r"\{\{(\w+)\}\}", "{\\1}", target.legend).format(**labels))
    assert target.kind == "table" or len(names) == len(set(names))


@pytest.mark.parametrize("target", list(targets()), ids=target_id)
def test_each_query_is_empty_without_data(empty: Prometheus, target: Target) -> None:
    """No error, and no zero where nothing is known: the panel shows its word for no data."""
    assert empty.query(as_sent(target)) == []


def value(filled: Filled, board: str, panel: str, legend: str = "") -> float:
    """What a panel with one number shows."""
    (target,) = [t for t in targets() if (t.board, t.panel, t.legend) == (board, panel, legend)]
    (series,) = filled.prometheus.query(as_sent(target), filled.last_seconds)
    return float(series["value"][1])


def test_shown_figures_are_true(filled: Filled) -> None:
    """Power, energy and emissions of the strip are what the fleet drew, reckoned here by hand."""
    hours = RANGE_SECONDS / 3600
    for legend, watts in (("measured", MEASURED_WATTS), ("modelled", MODELLED_WATTS)):
        kwh = watts / 1000 * hours
        assert value(filled, "fleet", "Power now", legend) == pytest.approx(watts)
        assert value(filled, "fleet", "Energy", legend) == pytest.approx(kwh, rel=0.02)
        # PUE 1.25 and the bundled factor of Germany.
        assert value(filled, "fleet", "Emissions (CO2e)", legend) == pytest.approx(kwh * 1.25 * 0.34413992, rel=0.02)
    assert value(filled, "fleet", "Coverage") == pytest.approx(1, abs=0.02)
    assert value(filled, "fleet", "Agents", "reporting") == 2
    assert value(filled, "fleet", "Open problems") == 1
    assert value(filled, "host", "Fresh in this range") == 1
    gpu = sum(part.milliwatts for part in GPUS if part.component is Component.GPU) / 1000
    assert value(filled, "workloads", "Energy of workloads") == pytest.approx(0.084, rel=0.02)
    assert value(filled, "workloads", "Energy a day") == pytest.approx(0.084 * 24, rel=0.02)
    assert value(filled, "workloads", "Idle") == pytest.approx(30 / 120, rel=1e-6)
    assert value(filled, "workloads", "Unattributed") == pytest.approx(5 / 120, rel=1e-6)
    assert value(filled, "workloads", "Workloads shown", "shown") == 4
    assert value(filled, "sensors", "Largest disagreement") == pytest.approx(0.031)
    assert value(filled, "sensors", "Mean bias of the estimate") == pytest.approx(0.12)
    assert value(filled, "sensors", "GPUs held down") == 1
    # Two GPUs, each 43 % busy.
    assert value(filled, "host", "Energy per busy second, GPU", "energy per busy second") == pytest.approx(
        gpu / 0.86, rel=0.01
    )


def test_variables_have_values(filled: Filled) -> None:
    """The labels that the variables list are there."""
    assert filled.prometheus.get("label/site/values?match[]=wattledger_site_info") == ["north"]
    assert filled.prometheus.get("label/host/values?match[]=wattledger_host_info") == ["a", "b"]
