"""The page in a real Chromium: figures appear and move, charts are not empty, nothing is asked of other machines."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest
import uvicorn
from tests.collector.fake_store import FakeStore
from tests.collector.fleets import (
    COLLECTOR,
    GPUS,
    MEASURED,
    MODELLED,
    SimulatedFleet,
    SimulatedHost,
    assignments,
    load,
    site_rows,
)
from tests.system.browser import Browser, Image
from tests.system.conftest import RequireProgram

from wattledger_collector.factor_files import load_catalog
from wattledger_collector.fleet import FleetView
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.web.app import make_app
from wattledger_collector.workload_records import IdlePolicy, Workload, WorkloadKind

pytestmark = pytest.mark.system

# 2026-06-01T12:00:00Z; the hour before is in the chart.
NOON = 1_780_315_200
# Less than this of a chart's region differs from its ground where only axes and their labels are drawn.
INK_SHARE_MIN = 0.15
# The explanation that is open, if any.
SHOWN = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"


@dataclass
class Served:
    """A running application, the clock it reads, and the fleet that feeds it."""

    url: str
    fleet: SimulatedFleet
    now: list[float]
    server: uvicorn.Server

    def step(self, seconds: int, factor: float = 1.0) -> None:
        """Let time pass; all hosts report."""
        self.now[0] += seconds
        self.fleet.step(int(self.now[0]), factor)


class Serve(Protocol):
    """Starts an application; hosts are committed to the store where there is one."""

    def __call__(self, hosts: list[SimulatedHost], notice: str = "", stored: SqliteStore | None = None) -> Served: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications on free ports; ends them afterwards."""
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(hosts: list[SimulatedHost], notice: str = "", stored: SqliteStore | None = None) -> Served:
        store = stored or FakeStore()
        store.add_sites(site_rows(assumed=True))
        store.add_assignments(assignments(hosts))
        view = FleetView(collector=COLLECTOR, interval_seconds=900)
        load(view, store, NOON - 3600)
        fleet = SimulatedFleet(view, hosts, stored)
        fleet.open(NOON - 3600)
        now = [NOON - 3600.0]
        app = make_app(
            view, store=store, catalog=load_catalog(), clock=lambda: now[0], agent_address="127.0.0.1:9791", notice=notice
        )
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        started.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Served(f"http://127.0.0.1:{listener.getsockname()[1]}/", fleet, now, server)

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(20)
        for socket_server in getattr(server, "servers", []):
            socket_server.close()


@pytest.fixture(scope="module")
def chromium(require_program: RequireProgram) -> Iterator[Browser]:
    """One Chromium for all tests, since starting it takes seconds."""
    with Browser(require_program("chromium", package="chromium")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """An empty page in a light scheme; left again before the application ends."""
    chromium.prefer("light")
    chromium.point_at(1, 1)
    yield chromium
    chromium.leave()


def full_fleet() -> list[SimulatedHost]:
    """Measured, accelerated and modelled hosts."""
    start = NOON - 3600
    return [
        *(SimulatedHost(f"gpu-{number}", GPUS, start) for number in range(2)),
        *(SimulatedHost(f"web-{number}", MEASURED, start) for number in range(3)),
        SimulatedHost("vm-0", MODELLED, start),
    ]


def live_through_an_hour(served: Served) -> None:
    """An hour of steps, with a load that rises and falls."""
    for step in range(300):
        served.step(12, 0.7 + 0.3 * (step % 60) / 60)


def region(browser: Browser, selector: str) -> tuple[int, int, int, int]:
    """Left, top, width, height of an element in the window."""
    box = browser.evaluate(
        f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height].map(Math.round); })()"
    )
    left, top, width, height = box
    return left, top, width, height


def ink_share(browser: Browser, image: Image, selector: str) -> float:
    """Share of an element's pixels that are not its ground."""
    left, top, width, height = region(browser, selector)
    return image.count_unlike(left, top, width, height) / (width * height)


def test_figures_appear_and_move(browser: Browser, serve: Serve) -> None:
    """Power, energy, emissions and the chart follow what the agents send, without a reload."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.getElementById('power').textContent === '2.092'")
    figures = "['power', 'energy', 'emissions', 'factor'].map((id) => document.getElementById(id).textContent)"
    before = browser.evaluate(figures)
    assert before[3] == "344.1"
    chart = browser.evaluate("document.querySelector('#chart .total').getAttribute('d')")
    served.step(12, 0.5)
    served.step(12, 0.5)
    browser.wait_for(f"document.getElementById('power').textContent !== {before[0]!r}")
    after = browser.evaluate(figures)
    assert after[0] == "1.051"
    assert float(after[1]) > float(before[1])
    assert float(after[2]) > float(before[2])
    assert browser.evaluate("document.querySelector('#chart .total').getAttribute('d')") != chart
    rows = browser.evaluate("[...document.querySelectorAll('#hosts tr')].map((row) => row.firstChild.textContent)")
    assert rows[:2] == ["gpu-0.example", "gpu-1.example"]
    assert len(rows) == 6
    assert browser.complaints == []


def test_modelled_and_assumed_figures_say_so(browser: Browser, serve: Serve) -> None:
    """A modelled share has its band, a proposed zone is marked, explanations come on hover and on keyboard focus."""
    served = serve(full_fleet(), "Six hosts are simulated.")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.getElementById('hosts').childElementCount === 6")
    assert "modelled ±15 %" in browser.evaluate("document.getElementById('energy-sub').textContent")
    assert "assumed" in browser.evaluate("document.getElementById('factor-sub').textContent")
    assert "assumed" in browser.evaluate("document.getElementById('emissions-sub').textContent")
    assert "Six hosts are simulated." in browser.evaluate("document.getElementById('notices').textContent")
    left, top, width, height = region(browser, "#card-emissions")
    browser.point_at(left + width / 2, top + height / 2)
    assert "IT energy × PUE × grid factor" in browser.wait_for(SHOWN)
    browser.point_at(1, 1)
    browser.wait_for("document.getElementById('tip').hidden")
    browser.evaluate("document.getElementById('card-energy').focus()")
    assert "is modelled; its 95 % band is ±15 %" in browser.wait_for(SHOWN)
    browser.press("Tab")
    assert "PUE" in browser.wait_for(SHOWN)
    browser.press("Escape")
    browser.wait_for("document.getElementById('tip').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screenshot_shows_a_chart(browser: Browser, serve: Serve, tmp_path: Path, scheme: str) -> None:
    """The chart's region is full of the components' colours, on a ground that follows the preferred scheme."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    browser.prefer(scheme)
    browser.open(served.url)
    browser.wait_for("document.querySelectorAll('#chart .area').length > 3")
    image = browser.screenshot(tmp_path / f"page-{scheme}.png")
    assert ink_share(browser, image, "#chart") > INK_SHARE_MIN
    colours = image.colours(*region(browser, "#chart"))
    area = image.width * 272
    assert colours[(0xE6, 0x9F, 0x00)] > area / 20
    assert colours[(0x00, 0x72, 0xB2) if scheme == "light" else (0x2B, 0x8F, 0xCC)] > area / 50
    ground = image.rows[5][:3]
    assert (sum(ground) > 600) is (scheme == "light")


def test_an_empty_chart_is_caught(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    """The screenshot's measure fails where a chart draws no area although there are figures."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.querySelectorAll('#chart .area').length > 3")
    browser.evaluate("document.querySelectorAll('#chart .area, #chart .band').forEach((path) => path.remove())")
    image = browser.screenshot(tmp_path / "empty-chart.png")
    assert ink_share(browser, image, "#chart") < INK_SHARE_MIN / 2


def test_an_unknown_power_is_not_a_zero(browser: Browser, serve: Serve) -> None:
    """When all hosts fall silent the power is unknown, and the energy stays."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    served.now[0] += 300
    browser.open(served.url)
    browser.wait_for("document.getElementById('power').textContent === 'unknown'")
    assert float(browser.evaluate("document.getElementById('energy').textContent")) > 1
    states = browser.evaluate("[...document.querySelectorAll('#hosts .state')].map((state) => state.textContent)")
    assert states == ["silent"] * 6


def test_without_agents_the_page_explains_itself(browser: Browser, serve: Serve) -> None:
    """No empty charts and zeros, but how to add the first agent."""
    served = serve([], "")
    browser.open(served.url)
    browser.wait_for("!document.getElementById('empty').hidden")
    text = browser.evaluate("document.querySelector('main').innerText")
    assert "No agent has reported yet" in text
    assert "wattledger-agent run --config agent.toml" in text
    assert "127.0.0.1:9791" in text
    assert "Power now" not in text


def test_simulated_hosts_say_so(browser: Browser, serve: Serve) -> None:
    """Made-up counters are marked on the figures and in the table."""
    parts = [replace(part, source="fake") for part in MEASURED]
    served = serve([SimulatedHost("show", parts, NOON - 3600)], "")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.getElementById('hosts').innerText.includes('simulated')")
    assert "1 simulated" in browser.evaluate("document.getElementById('power-sub').textContent")
    assert "with simulated hosts" in browser.evaluate("document.getElementById('emissions-sub').textContent")


def test_the_page_asks_no_other_machine(browser: Browser, serve: Serve) -> None:
    """Every request of the page goes to the collector it came from."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.getElementById('hosts').childElementCount === 6")
    assert browser.requests
    assert all(url.startswith((served.url, "data:")) for url in browser.requests), browser.requests
    assert browser.complaints == []


def test_a_lost_collector_is_said(browser: Browser, serve: Serve) -> None:
    """When the collector ends, the page says so and keeps the figures with their time."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.getElementById('hosts').childElementCount === 6")
    served.server.should_exit = True
    browser.wait_for("document.getElementById('notices').textContent.includes('does not answer')", 20)
    assert "Not live" in browser.evaluate("document.getElementById('status').textContent")
    assert browser.evaluate("document.getElementById('power').textContent") == "2.092"


def test_the_chart_can_be_read_without_seeing_it(browser: Browser, serve: Serve) -> None:
    """A table holds the chart's figures; the arrow keys step through its points; pictures have names."""
    served = serve(full_fleet(), "")
    live_through_an_hour(served)
    browser.open(served.url)
    browser.wait_for("document.querySelectorAll('#chart .area').length > 3")
    browser.evaluate("document.getElementById('chart-table').open = true")
    browser.wait_for("document.querySelectorAll('#chart-body tr').length >= 12")
    head = browser.evaluate("[...document.querySelectorAll('#chart-head th')].map((cell) => cell.textContent)")
    assert head == ["Time", "CPU", "Memory", "GPU", "Other, modelled", "Total", "Hosts"]
    browser.evaluate("document.getElementById('chart').focus()")
    browser.press("ArrowLeft")
    assert "GPU" in browser.wait_for(
        "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
    )
    nameless = (
        "[...document.querySelectorAll('[role=img], [role=region], table, input')].filter((node) => !node.ariaLabel &&"
        " !node.closest('label') && !node.closest('[aria-label]')).length"
    )
    assert browser.evaluate(nameless) == 0


def test_workloads_of_a_host_are_listed(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    """The largest first, with their energy and the idle policy; another host is chosen by its name; without any no panel."""
    pod = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.BY_USAGE)
    idle = Workload(WorkloadKind.IDLE, "", "", "", IdlePolicy.BY_USAGE)
    job = Workload(WorkloadKind.SLURM_JOB, "4711", "physics", "train", IdlePolicy.NODE_ONLY)
    hosts = full_fleet()
    hosts[0].workloads, hosts[2].workloads = {idle: 20_000, pod: 100_000}, {job: 50_000}
    store = open_store(tmp_path / "ledger.db", create=True)
    served = serve(hosts, "", store)
    for _ in range(60):
        served.step(60)
    browser.open(served.url)
    browser.wait_for("document.getElementById('workloads').childElementCount === 2")
    cells = "[...document.querySelectorAll('#workloads tr')].map((row) => [...row.children].map((c) => c.textContent))"
    first, second = browser.evaluate(cells)
    assert first == ["db-0", "pod", "shop", "100.0 Wh", "", "measured", "900 s", "by usage", "0 s ago"]
    assert [second[0], second[3]] == ["idle", "20.00 Wh"]
    assert browser.evaluate("[...document.querySelectorAll('#workloads-host option')].map((each) => each.textContent)") == [
        "gpu-0.example", "web-0.example"
    ]  # fmt: skip
    browser.evaluate(
        "(() => { const box = document.getElementById('workloads-host'); box.value = 'web-0';"
        " box.dispatchEvent(new Event('change')); })()"
    )
    browser.wait_for("document.getElementById('workloads').firstChild.firstChild.textContent === '4711'")
    assert browser.evaluate(cells)[0][7] == "stays with the host"
    served.now[0] += 1000
    browser.wait_for("document.getElementById('workloads-panel').hidden")
    assert browser.complaints == []
    store.close()


def test_nothing_widens_a_narrow_page(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    """On a phone tables scroll within their panels, and a container's long id leaves room for its figures on any screen."""
    hosts = full_fleet()
    hosts[0].workloads = {Workload(WorkloadKind.CONTAINER, "a" * 64, "", "", IdlePolicy.NODE_ONLY): 100_000}
    store = open_store(tmp_path / "ledger.db", create=True)
    served = serve(hosts, "", store)
    for _ in range(10):
        served.step(60)
    try:
        for width in (400, 1280):
            browser.resize(width, 900)
            browser.open(served.url)
            browser.wait_for("document.getElementById('workloads').childElementCount === 1")
            assert browser.evaluate("document.documentElement.scrollWidth") == width
        table = "document.querySelector('#workloads-panel .scroll')"
        assert browser.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")
        assert browser.evaluate("document.querySelector('#workloads th').dataset.tip") == "a" * 64
    finally:
        browser.resize(1280, 1000)
        store.close()


def test_a_large_fleet_stays_quick(browser: Browser, serve: Serve) -> None:
    """Two thousand hosts: the table shows the first hundred, a host is found by its name, a refresh is quick."""
    start = NOON - 3600
    served = serve([SimulatedHost(f"rack-{number:04d}", MEASURED, start) for number in range(2000)], "")
    for _ in range(3):
        served.step(10)
    browser.open(served.url)
    browser.wait_for("document.getElementById('hosts').childElementCount === 100")
    assert browser.evaluate("document.getElementById('hosts-count').textContent") == "the first 100 of 2,000"
    browser.evaluate(
        "(() => { const box = document.getElementById('search'); box.value = 'rack-1234';"
        " box.dispatchEvent(new Event('input')); })()"
    )
    browser.wait_for("document.getElementById('hosts').childElementCount === 1")
    begun = time.monotonic()
    assert browser.evaluate("fetch('/api/v1/fleet').then((r) => r.json()).then((f) => f.power.hosts)") == 2000
    assert time.monotonic() - begun < 5
