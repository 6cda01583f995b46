"""Whole machines with a management controller, through the real meter: nothing is counted twice, and nothing waits."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.agent.by_hand import SECOND, ByHand
from tests.agent.machines import Machine, machine
from tests.agent.metering import at
from tests.agent.redfish_server import LONG_SECONDS, Controller, serving

from wattledger_agent.commands import Answer, RecordedRunner
from wattledger_agent.config import parse_config
from wattledger_agent.inventory import Roots, close_all, find_sources
from wattledger_agent.meter import Meter
from wattledger_agent.readings import Component, Role, Source, SourceUnavailableError
from wattledger_agent.sources.ipmi import IpmiSource
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.nvml_recorded import RecordedNvml
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.sources.redfish import RedfishSource
from wattledger_agent.sources.redfish_session import FolderFetch, RedfishSession

ZONES = ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0")
ZONE_WATTS = 50
TICKS = 90
MEMORY_CPU_WATTS = len(ZONES) * ZONE_WATTS


@dataclass
class Booked:
    """Mean watts over a run, by role: of what is summed, and of each channel."""

    total: float
    channels: dict[tuple[str, str], float]


def rapl(host: Machine) -> RaplSource:
    """The machine's RAPL."""
    return RaplSource(host.sys, host.proc, opener=host.opener, pread=host.pread, settle=host.settle)


def run(host: Machine, sources: Sequence[Source], time: ByHand, nvml: RecordedNvml | None = None) -> Booked:
    """A minute and a half of a second a tick; each RAPL zone draws 50 W, NVML what it recorded."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    begun = time.now_nanoseconds
    for source in sources:
        meter.offer(source.open(), at(begun / SECOND))
    for _ in range(TICKS):
        now = time.advance(1)
        for zone in ZONES:
            host.add_energy(zone, ZONE_WATTS * 1_000_000)
        if nvml is not None:
            nvml.advance(1)
        meter.observe([reading for source in sources for reading in source.read(now)], at(now / SECOND))
    live = {(power.device, power.domain): power.power_milliwatts / 1000 for power in meter.live()}
    summed = {
        (channel.device, channel.domain)
        for channel in meter.catalog().channels
        if Role(channel.role) in (Role.LEAF, Role.RESIDUAL) and not channel.closed
    }
    for source in sources:
        source.close()
    return Booked(sum(watts for key, watts in live.items() if key in summed), live)


def test_gpus_that_the_controller_does_not_see_are_added_to_it(tmp_path: Path) -> None:
    """The node's 409 W and both GPUs, each once: CPUs and memory are inside the node's figure."""
    host = machine("ipmi_node_gpus_excluded", tmp_path)
    config = parse_config((host.root / "agent.toml").read_text()).sources.ipmi
    nvml = RecordedNvml(json.loads((host.root / "nvml.json").read_text()))
    time = ByHand()
    ipmi = IpmiSource(
        host.root / "dev",
        excludes_gpus=config.excludes_gpus,
        run=RecordedRunner.from_file(host.root / "commands.json"),
        pace=time.pace,
        access=lambda path: True,
    )
    booked = run(host, [rapl(host), NvidiaSource(host.sys, host.proc, nvml=nvml), ipmi], time, nvml)
    assert booked.channels["node", "dcmi"] == pytest.approx(409, abs=0.1)
    assert booked.total == pytest.approx(409 + 251 + 248, abs=1.0)


def test_gpus_that_the_controller_sees_are_not_added(tmp_path: Path) -> None:
    """Were the setting off, the GPUs would be parts of the node, and what is left of it below 0: it shows at once."""
    host = machine("ipmi_node_gpus_excluded", tmp_path)
    nvml = RecordedNvml(json.loads((host.root / "nvml.json").read_text()))
    time = ByHand()
    run_commands = RecordedRunner.from_file(host.root / "commands.json")
    ipmi = IpmiSource(host.root / "dev", run=run_commands, pace=time.pace, access=lambda path: True)
    booked = run(host, [rapl(host), NvidiaSource(host.sys, host.proc, nvml=nvml), ipmi], time, nvml)
    assert booked.total == pytest.approx(409, abs=1.0)
    assert booked.channels["node", "residual"] == pytest.approx(409 - MEMORY_CPU_WATTS - 251 - 248, abs=1.0)


def test_a_server_with_redfish_books_its_meters_watts(tmp_path: Path) -> None:
    """CPUs, memory, and what the controller saw beyond them: together what it says."""
    host = machine("redfish_server", tmp_path)
    time = ByHand()
    redfish = RedfishSource(lambda: FolderFetch(host.root / "redfish"), pace=time.pace)
    booked = run(host, [rapl(host), redfish], time)
    assert booked.total == pytest.approx(344, abs=0.5)
    assert booked.channels["node", "residual"] == pytest.approx(344 - MEMORY_CPU_WATTS, abs=0.5)


def test_a_shared_enclosure_adds_nothing_to_its_servers(tmp_path: Path) -> None:
    """Its 1610.75 W are shown; booked is what this server's own sensors see."""
    host = machine("shared_chassis", tmp_path)
    time = ByHand()
    redfish = RedfishSource(lambda: FolderFetch(host.root / "redfish"), system="Node2", pace=time.pace)
    booked = run(host, [rapl(host), redfish], time)
    assert booked.channels["chassis/EN7700042", "input"] == pytest.approx(1610.75, abs=0.1)
    assert booked.total == pytest.approx(MEMORY_CPU_WATTS, abs=0.1)


def test_a_dead_controller_costs_nothing_of_the_rest(tmp_path: Path) -> None:
    """RAPL is booked as if there were none; one value in that time makes no energy."""
    host = machine("dead_bmc", tmp_path)
    time = ByHand()
    run_commands = RecordedRunner.from_file(host.root / "commands.json")
    ipmi = IpmiSource(host.root / "dev", run=run_commands, pace=time.pace, access=lambda path: True)
    for _ in range(3):
        with pytest.raises(SourceUnavailableError):
            ipmi.open()
    booked = run(host, [rapl(host), ipmi], time)
    assert booked.total == pytest.approx(MEMORY_CPU_WATTS, abs=0.1)
    assert ("node", "residual") not in booked.channels


def test_a_controller_that_answers_after_a_minute_delays_no_channel(tmp_path: Path) -> None:
    """Real threads, a command and a connection that both hang: fifty rows of RAPL are read meanwhile, none late."""
    host = machine("dead_bmc", tmp_path)
    leave = threading.Event()

    def hanging(argv: Sequence[str], seconds_max: float) -> Answer:
        leave.wait(LONG_SECONDS)
        return Answer(1, "", "timeout")

    with serving(Controller(host.root / "none", before=lambda path: assert_waited(leave))) as controller:
        ipmi = IpmiSource(host.root / "dev", run=hanging, access=lambda path: True, first_seconds_max=0.01)
        redfish = RedfishSource(lambda: RedfishSession(controller.url, "reader", lambda: "secret"), first_seconds_max=0.01)
        controller.clients += [ipmi, redfish]
        packages = rapl(host)
        sources: list[Source] = [packages, ipmi, redfish]
        controller.clients.append(packages)
        for source in sources:
            source.open()
        rows = 0
        for tick in range(50):
            readings = [reading for source in sources for reading in source.read(tick * SECOND)]
            rows += len(readings)
        assert rows == 50 * len(ZONES)
        assert not leave.is_set()
        leave.set()


def assert_waited(event: threading.Event) -> None:
    """Until the test lets the controller go on."""
    assert event.wait(LONG_SECONDS)


def test_machines_are_found_by_what_the_configuration_and_the_roots_say(tmp_path: Path) -> None:
    """Recorded commands and resources stand for programs and controllers; each machine's own settings are valid."""
    found = {}
    for name in ("gaudi2", "ascend_910", "ipmi_node_gpus_excluded", "redfish_server", "shared_chassis"):
        host = machine(name, tmp_path)
        toml = host.root / "agent.toml"
        config = parse_config(toml.read_text() if toml.exists() else "").sources
        inventory = find_sources(
            config,
            Roots(
                host.sys,
                host.proc,
                host.root / "dev",
                commands=RecordedRunner.from_file(host.root / "commands.json"),
                redfish=host.root / "redfish",
            ),
        )
        found[name] = {
            opened.source.name: len(opened.specs)
            for opened in inventory.opened
            if opened.source.name in ("gaudi", "ascend", "ipmi", "redfish")
        }
        excluded = {component for spec in inventory.specs for component in spec.excludes if spec.key.source == "ipmi"}
        assert excluded == ({Component.GPU, Component.ACCELERATOR} if name == "ipmi_node_gpus_excluded" else set())
        close_all(inventory)
    assert found == {
        "gaudi2": {"gaudi": 8},
        "ascend_910": {"ascend": 8},
        "ipmi_node_gpus_excluded": {"ipmi": 1},
        "redfish_server": {"redfish": 1},
        "shared_chassis": {"redfish": 1},
    }
