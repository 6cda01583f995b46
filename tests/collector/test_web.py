"""The HTTP side: every endpoint, its errors, and that nothing on it needs or names another machine."""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser
from tests.collector.fake_store import FakeStore
from tests.collector.fleets import (
    COLLECTOR,
    GPUS,
    MEASURED,
    MODELLED,
    SimulatedFleet,
    SimulatedHost,
    add_details,
    assignments,
    load,
    site_rows,
)

from wattledger_collector.closures import Closure
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_sites import Amount, RecentKey
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    NANOSECONDS_PER_SECOND,
    Component,
    GapReason,
    GapRow,
    HostGapRow,
    Method,
    Piece,
    Quality,
    RollupRow,
    StoreError,
)
from wattledger_collector.web import figures
from wattledger_collector.web.api import ENDPOINTS, Api, Question
from wattledger_collector.web.app import make_app
from wattledger_collector.workload_records import HostWorkloads, IdlePolicy, WorkloadKey, WorkloadKind, WorkloadTotal

# 2026-06-01T12:00:00Z.
NOON = 1_780_315_200
T = NOON - 600
CATALOG = load_catalog()
# prometheus-client does not say what this takes and returns.
parse_openmetrics: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families


@dataclass
class Site:
    """An application under test and what feeds it."""

    fleet: SimulatedFleet
    store: FakeStore
    client: httpx.AsyncClient
    ready: list[str]


class Clock:
    """A clock that is set."""

    now = float(NOON)

    def __call__(self) -> float:
        return self.now


async def fetch(site: Site, path: str, **headers: str) -> httpx.Response:
    """One answer."""
    return await site.client.get(path, headers=headers)


def get(site: Site, path: str, **headers: str) -> httpx.Response:
    """One answer, outside of any event loop."""
    return asyncio.run(fetch(site, path, **headers))


def tree(site: Site, path: str) -> Any:
    """The JSON of a good answer."""
    response = get(site, path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


@pytest.fixture
def site() -> Site:
    """Two hosts in a hall, one without a site, one recording; ten minutes of data."""
    hosts = [
        SimulatedHost("gpu-1", GPUS, T),
        SimulatedHost("vm-1", MODELLED, T),
        SimulatedHost("lost", MEASURED, T),
        SimulatedHost("old", MEASURED, T, recorded=True),
    ]
    store = FakeStore()
    store.add_sites(site_rows(assumed=True))
    store.add_assignments(assignments(hosts[:2]))
    store.rollup_rows = [
        RollupRow("hall", T - 600, Component.CPU, Quality.COUNTER, False, MICROJOULES_PER_KWH, 600 * NANOSECONDS_PER_SECOND)
    ]
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(view, store, T)
    fleet = SimulatedFleet(view, hosts, None)
    fleet.open(T)
    for second in (T + 300, NOON - 10, NOON - 5, NOON):
        fleet.step(second)
    ready: list[str] = []
    app = make_app(
        view,
        store=store,
        catalog=CATALOG,
        clock=Clock(),
        time_zone="Europe/Berlin",
        readiness=lambda: ready[0] if ready else "",
        agent_address="collector.example:9791",
        notice="</script><b>",
    )
    transport = httpx.ASGITransport(app=app)
    return Site(fleet, store, httpx.AsyncClient(transport=transport, base_url="http://collector.example:9790"), ready)


def test_the_fleets_figures(site: Site) -> None:
    """Present power, today's energy and emissions, as sums of what was booked and shown."""
    fleet = tree(site, "/api/v1/fleet")
    assert fleet["now"] == "2026-06-01T14:00:00+02:00"
    assert fleet["power"]["watts"] == 738.5 + 210 + 138.5
    assert fleet["power"]["modelled_watts"] == 210
    assert fleet["power"]["components"]["gpu"] == {"measured_watts": 600, "modelled_watts": 0}
    today = fleet["today"]
    assert today["from"] == "2026-06-01T00:00:00+02:00"
    assert int(today["energy_microjoules"]) == site.fleet.booked_microjoules + MICROJOULES_PER_KWH
    assert int(today["energy_microjoules_by_quality"]["model"]) == 210 * 600 * 10**6
    assert int(today["uncovered_microjoules"]) == 138_500 * 1000 * 600
    hall = next(row for row in fleet["sites"] if row["site"] == "hall")
    kwh = int(hall["today"]["energy_microjoules"]) / MICROJOULES_PER_KWH
    expected = kwh * 1.25 * float(hall["factor"]["grams_per_kwh"])
    assert today["emissions"][0]["grams"] == pytest.approx(expected)
    assert hall["assumed"] is True
    unassigned = next(row for row in fleet["sites"] if row["site"] == "unassigned")
    assert unassigned["factor"] is None
    assert unassigned["missing"] == "no rule assigns these hosts to a site"
    assert fleet["agents"] == {"reporting": 3, "recorded": 1}
    assert fleet["quality"]["coverage_ratio"] == 1.0


class CountedList(list[tuple[int, RecentKey, Amount]]):
    """A list that counts how many of its items were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[tuple[int, RecentKey, Amount]]:
        for item in super().__iter__():
            self.looks += 1
            yield item


class CountingView(FleetView):
    """A view that keeps what it tells of recent energy."""

    def __init__(self) -> None:
        super().__init__(collector=COLLECTOR, interval_seconds=900)
        self.told: list[CountedList] = []

    def recent_energy(self, from_seconds: float) -> CountedList:
        """The same, counted."""
        self.told.append(CountedList(super().recent_energy(from_seconds)))
        return self.told[-1]


def test_many_sites_are_summed_in_one_pass() -> None:
    """The work grows with the energy rows, not with their number times that of the sites."""
    store = FakeStore()
    names = [f"hall-{number}" for number in range(8)]
    for name in names:
        store.add_sites(site_rows(name))
    store.rollup_rows = [RollupRow(name, T - 900, Component.CPU, Quality.COUNTER, False, 7, 1) for name in names]
    view = CountingView()
    load(view, store, T)

    sites = figures.fleet(view, T, UTC)["sites"]

    assert [(each["site"], each["today"]["energy_microjoules"]) for each in sites] == [(name, "7") for name in names]
    assert view.told[0].looks == len(names)


def test_an_unknown_power_is_null(site: Site) -> None:
    """While all are silent the power is null, not zero."""
    Clock.now = NOON + 61.0
    try:
        assert tree(site, "/api/v1/fleet")["power"] == {"watts": None, "hosts": 0, "components": {}}
    finally:
        Clock.now = float(NOON)


def test_the_hours_power(site: Site) -> None:
    """Columns of equal length; `after` leaves out what the asker has."""
    power = tree(site, "/api/v1/power")
    assert power["seconds"] == [NOON - 5, NOON]
    assert power["hosts"] == [3, 3]
    assert power["components"]["gpu"]["measured_watts"] == [600, 600]
    assert tree(site, f"/api/v1/power?after={NOON - 5}")["seconds"] == [NOON]


def test_hosts_are_listed_by_power(site: Site) -> None:
    """Those that draw most first; found by name and site; in parts."""
    hosts = tree(site, "/api/v1/hosts")
    assert [host["host"] for host in hosts["hosts"]] == ["gpu-1", "vm-1", "lost", "old"]
    assert hosts["hosts"][0]["energy_microjoules"] == str(738_500 * 1000 * 600)
    assert hosts["hosts"][3]["recorded_microjoules"] == str(138_500 * 1000 * 600)
    part = tree(site, "/api/v1/hosts?limit=1&offset=1")
    assert (part["total"], [host["host"] for host in part["hosts"]]) == (4, ["vm-1"])
    assert [host["host"] for host in tree(site, "/api/v1/hosts?search=GPU")["hosts"]] == ["gpu-1"]
    assert [host["host"] for host in tree(site, "/api/v1/hosts?site=unassigned")["hosts"]] == ["lost", "old"]


def test_a_host_is_shown_by_the_name_that_an_operator_gave(site: Site) -> None:
    """And found by it; before it is renamed, by its machine's name."""
    assert tree(site, "/api/v1/hosts/gpu-1")["name"] == "gpu-1.example"
    renamed = site.fleet.hosts[0]
    assert renamed.host is not None
    renamed.host = msgspec.structs.replace(renamed.host, name="Rack 7")
    site.fleet.step(NOON + 5)

    assert [(host["host"], host["name"]) for host in tree(site, "/api/v1/hosts?search=rack")["hosts"]] == [
        ("gpu-1", "Rack 7")
    ]


def test_one_host_has_its_channels(site: Site) -> None:
    """Channel tree, live values and totals of each flow."""
    host = tree(site, "/api/v1/hosts/gpu-1")
    assert [channel["device"] for channel in host["channels"]] == ["cpu/0", "memory/0", "gpu/GPU-1", "gpu/GPU-2"]
    assert sum(int(total["energy_microjoules"]) for total in host["totals"]) == int(host["energy_microjoules"])
    assert [channel["watts"] for channel in host["live"]] == [120, 18.5, 310, 290]
    assert host["sources"][0] == {"source": "nvidia", "reads": 10, "failures": 0, "deadline_misses": 0, "last_error": ""}


def test_one_host_has_its_gauges(site: Site) -> None:
    """What is shown of devices and never summed, by name; none for a host that tells of none."""
    assert tree(site, "/api/v1/hosts/gpu-1")["gauges"] == []
    site.fleet.view.on_live("gpu-1", add_details(site.fleet.hosts[0].live()), NOON)
    host = tree(site, "/api/v1/hosts/gpu-1")
    gauges = {(each["gauge"], each["value"]) for each in host["gauges"] if each["device"] == "gpu/GPU-1"}
    assert gauges >= {("temperature_celsius", 61.5), ("clock_hertz", 1.98e9), ("throttle_reason", "sw_power_cap")}
    assert host["cross_checks"][0]["disagreement_ratio"] == -0.031
    assert {each["kind"] for each in host["utilizations"]} >= {"sm_active", "tensor_active"}


def test_one_host_has_its_workloads(site: Site) -> None:
    """The largest first; microjoules as text, with the idle policy that they were made by."""
    assert tree(site, "/api/v1/hosts/gpu-1")["workloads"] == []
    pod = WorkloadKey(WorkloadKind.KUBERNETES_POD, "shop", "db-0", IdlePolicy.EQUAL)
    idle = WorkloadKey(WorkloadKind.IDLE, "", "idle", IdlePolicy.EQUAL)
    flows = {(Component.CPU, Method.COUNTER): 2**53 + 1, (Component.GPU, Method.MODEL): MICROJOULES_PER_KWH}
    totals = (
        WorkloadTotal(idle, NOON * NANOSECONDS_PER_SECOND, 0, {(Component.CPU, Method.COUNTER): 5}),
        WorkloadTotal(pod, (NOON - 30) * NANOSECONDS_PER_SECOND, 1_500_000_000, flows),
    )
    entry = site.fleet.view.host("gpu-1")
    assert entry is not None
    entry.workloads.read(HostWorkloads(9, totals), NOON)
    host = tree(site, "/api/v1/hosts/gpu-1")
    assert host["workloads"][0] == {
        "kind": "kubernetes_pod",
        "namespace": "shop",
        "workload": "db-0",
        "idle_policy": "equal",
        "energy_microjoules": str(2**53 + 1 + MICROJOULES_PER_KWH),
        "energy_kwh": (2**53 + 1) / MICROJOULES_PER_KWH + 1,
        "energy_microjoules_by_component": {"cpu": str(2**53 + 1), "gpu": str(MICROJOULES_PER_KWH)},
        "energy_microjoules_by_method": {"counter": str(2**53 + 1), "model": str(MICROJOULES_PER_KWH)},
        "cpu_seconds": 1.5,
        "last_seen_age_seconds": 30.0,
    }
    assert [each["workload"] for each in host["workloads"]] == ["db-0", "idle"]
    assert (host["workloads_left_out"], host["workload_count"]) == (0, 2)
    assert {each["host"]: each["workload_count"] for each in tree(site, "/api/v1/hosts")["hosts"]}["vm-1"] == 0


def test_factors_in_use_and_of_a_zone(site: Site) -> None:
    """Each factor comes with its provenance; values are exact text."""
    used = tree(site, "/api/v1/factors")["in_use"]
    assert {row["site"]: row["zone"] for row in used} == {"hall": "DE", "unassigned": None}
    factors = tree(site, "/api/v1/factors?zone=US-CAMX")["factors"]
    assert any(factor["grams_per_kwh"].startswith("195.03700802971") for factor in factors)
    assert all(factor["attribution"] and factor["licence"] for factor in factors)


def test_energy_of_a_span_comes_from_the_store(site: Site) -> None:
    """By site, with exact microjoules; provisional."""
    energy = tree(site, "/api/v1/energy?from=2026-06-01&to=2026-06-02")
    assert (energy["provisional"], energy["statements"]) == (True, [])
    assert energy["reasons"][0] == "the period is not closed: energy that arrives later still enters it"
    assert energy["live"]["energy_microjoules"] == str(MICROJOULES_PER_KWH)
    assert [row["site"] for row in energy["sites"]] == ["hall"]
    assert tree(site, "/api/v1/energy?from=2026-06-02&to=2026-06-03")["live"]["energy_microjoules"] == "0"
    # An interval that began before the span is not in it, and the answer says from where on it counts.
    later = tree(site, f"/api/v1/energy?from={T - 599}&to={NOON}")
    assert (later["live"]["energy_microjoules"], later["from"]) == ("0", "2026-06-01T13:45:00+02:00")


def test_energy_of_a_closed_span_is_not_provisional(site: Site) -> None:
    """Where one statement or several hold all of it; what came after them, and a factor that stands in, are told."""
    day = 1_780_272_000
    site.store.closure_rows = [
        Closure(1, day - 86_400, day + 43_200, None, 0, day + 90_000, 7),
        Closure(2, day + 43_200, day + 86_400, None, 0, day + 90_000, 8),
        Closure(3, day + 86_400, day + 2 * 86_400, None, 0, day + 90_000),
    ]
    path = "/api/v1/energy?from=2026-06-01&to=2026-06-02"
    stand_in = "zone DE has no factor for all of the period yet: an earlier one stands in"
    closed = tree(site, path)
    assert (closed["statements"], closed["reasons"]) == ([7, 8], [stand_in])
    empty = tree(site, "/api/v1/energy?from=2026-05-31&to=2026-06-01")
    assert (empty["provisional"], empty["statements"], empty["reasons"]) == (False, [7], [])
    # Part of it is open, and a closing without a statement holds nothing.
    for end in ("2026-06-02T01:00", "2026-06-03"):
        longer = tree(site, f"/api/v1/energy?from=2026-06-01&to={end}")
        assert (longer["statements"], len(longer["reasons"])) == ([], 2)
    late = RollupRow("hall", T - 600, Component.CPU, Quality.COUNTER, False, MICROJOULES_PER_KWH // 2, 0, edition=1)
    site.store.rollup_rows.append(late)
    assert tree(site, path)["reasons"] == [
        "0.500 kWh of site hall came after the statement of their time: close the period again to state them",
        stand_in,
    ]
    assert tree(site, path)["live"]["energy_microjoules"] == str(MICROJOULES_PER_KWH * 3 // 2)


def test_energy_of_a_span_is_read_as_sums(site: Site) -> None:
    """A site's intervals come as one row for each piece in which nothing changes, and none by itself."""
    asked: list[Piece] = []

    class Counting(FakeStore):
        def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
            raise AssertionError("intervals are not to be read one by one")

        def rollup_sums(
            self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
        ) -> Iterator[RollupRow]:
            asked.extend(pieces)
            return iter(())

    api = Api(site.fleet.view, store=Counting(), catalog=CATALOG, zone=UTC)
    api.energy(Question(NOON, query={"from": "2026-01-01", "to": "2026-05-01"}))
    assert len(asked) == 120


def test_gaps_of_a_span_have_bounds(site: Site) -> None:
    """An unknown upper bound is null; what is cut off says so."""
    for upper in (5, None):
        row = GapRow(1, T * NANOSECONDS_PER_SECOND, NOON * NANOSECONDS_PER_SECOND, GapReason.RESET, 0, upper)
        site.store.gap_rows.append(HostGapRow("gpu-1", "hall", b"", None, False, row))
    gaps = tree(site, f"/api/v1/gaps?from={T}&to={NOON}&limit=1")
    assert gaps["is_cut_off"] is True
    assert gaps["gaps"][0]["upper_microjoules"] == "5"
    gaps = tree(site, f"/api/v1/gaps?from={T}&to={NOON}")
    assert gaps["gaps"][1]["upper_microjoules"] is None
    assert gaps["is_cut_off"] is False


def test_prometheus_finds_its_targets(site: Site) -> None:
    """Service discovery answers with the address that was asked, once for each shard."""
    assert tree(site, "/api/v1/prometheus/targets") == [
        {"targets": ["collector.example:9790"], "labels": {"__scheme__": "http", "__metrics_path__": "/metrics"}}
    ]
    shards = tree(site, "/api/v1/prometheus/targets?shards=3")
    assert [row["labels"]["__param_shard"] for row in shards] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/v1/hosts/none", 404, "no host 'none' was ever seen"),
        ("/api/v1/hosts?limit=0", 400, "limit=0 can't be used: write a whole number from 1 to 1000"),
        ("/api/v1/hosts?offset=x", 400, "offset=x can't be used"),
        ("/api/v1/power?after=soon", 400, "after=soon is no time"),
        ("/api/v1/power?after=nan", 400, "after=nan is out of range"),
        ("/api/v1/energy?from=2026-06-02&to=2026-06-01", 400, "from has to lie before to"),
        ("/api/v1/energy?from=1970-01-01", 400, "more than a year apart"),
        ("/api/v1/gaps?from=1e300", 400, "out of range"),
        ("/api/v1/gaps?from=2270-01-01&to=2270-01-02", 400, "choose a time from 1970 to 2199"),
        ("/api/v1/energy?from=253402300000&to=253402300799", 400, "choose a time from 1970 to 2199"),
        ("/api/v1/factors?zone=DEE", 404, "DEE"),
        ("/api/v1/prometheus/targets?shards=9999", 400, "from 1 to 1024"),
        ("/metrics?shard=2&of=2", 400, "is no shard"),
        ("/metrics?shard=x", 400, "is no shard: write whole numbers"),
    ],
)
def test_a_bad_question_is_answered_with_the_remedy(site: Site, path: str, status: int, message: str) -> None:
    """One sentence that names the parameter, its value and what to write."""
    response = get(site, path)
    assert response.status_code == status
    assert message in response.json()["error"]


class LockedStore(FakeStore):
    """A store that can't be read."""

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """No rows."""
        raise StoreError("the database is locked: end the other program")


def test_a_database_that_cannot_be_read_is_answered_with_the_remedy() -> None:
    """As any other trouble: JSON, one sentence, and a status that says try again."""
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(view, FakeStore(), T)
    app = make_app(view, store=LockedStore(), clock=Clock())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://collector.example:9790")

    response = asyncio.run(client.get("/api/v1/energy"))

    assert (response.status_code, response.json()) == (503, {"error": "the database is locked: end the other program"})


def test_health_and_readiness(site: Site) -> None:
    """Alive is not ready: readiness says what is missing."""
    assert get(site, "/healthz").text == "ok\n"
    assert get(site, "/readyz").status_code == 200
    site.ready.append("the database is locked: stop the other collector\n")
    response = get(site, "/readyz")
    assert (response.status_code, response.text) == (503, site.ready[0])


def test_metrics_are_compressed_and_negotiated(site: Site) -> None:
    """gzip and OpenMetrics where they are asked for, neither otherwise."""
    plain = get(site, "/metrics", **{"accept-encoding": "identity"})
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in plain.headers
    accept = "application/openmetrics-text;version=1.0.0"
    packed = get(site, "/metrics", **{"accept": accept, "accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert "wattledger_host_energy_joules" in {family.name for family in parse_openmetrics(packed.text)}


def test_the_page_is_one_file_that_asks_no_one_else(site: Site) -> None:
    """No address of another machine is in the page; its policy forbids what is not in it."""
    response = get(site, "/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert set(re.findall(r"https?://[^\s\"'<>)]+", response.text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", response.text)
    assert "/* " not in re.sub(r"<script>.*?</script>|<style>.*?</style>", "", response.text, flags=re.DOTALL)


def test_settings_can_not_break_out_of_their_place(site: Site) -> None:
    """A notice with markup stays text."""
    text = get(site, "/").text
    data = re.findall(r'<script type="application/json" id="settings">(.*?)</script>', text, flags=re.DOTALL)
    assert len(data) == 1
    assert json.loads(data[0])["notice"] == "</script><b>"
    assert json.loads(data[0])["timeZone"] == "Europe/Berlin"


def test_the_api_page_names_every_endpoint(site: Site) -> None:
    """One table makes the routes and the page; each example on it works."""
    page = get(site, "/api/v1").text
    for endpoint in ENDPOINTS:
        assert endpoint.path in page
        if "{" not in endpoint.path:
            assert get(site, endpoint.example or endpoint.path).status_code == 200


def test_nothing_can_be_changed(site: Site) -> None:
    """Every address answers GET alone."""
    for path in ("/", "/metrics", *(endpoint.path for endpoint in ENDPOINTS)):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert asyncio.run(site.client.request(method, path)).status_code == 405
