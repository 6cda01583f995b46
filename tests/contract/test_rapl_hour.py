"""An hour of every RAPL machine, with failing reads, wraps, restarts and a reboot: the account is the truth, or holds it.

The truth is reckoned here by other means: from the names in the fixture, from what this test added, and from what is
known of each machine; neither the source nor the meter is asked.
"""

import errno
import random
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.agent.machines import Machine, machine
from tests.contract.rapl_bench import JOULE, Bench

from wattledger_agent.readings import ChannelKey, Role

MACHINES = [
    "xeon_two_sockets", "xeon_sapphire_rapids", "xeon_sapphire_rapids_linux_6_8", "xeon_tpmi", "xeon_two_dies",
    "xeon_haswell_dram_unit", "laptop_mmio", "desktop_haswell_igpu", "node_exporter_capture", "threadripper_mirrored_dies",
    "epyc_rome", "epyc_genoa", "kvm_guest_virtual_rapl", "xcp_ng_guest", "powercap_dangling_symlink",
]  # fmt: skip

# Machines on which every die shows its socket's counter.
MIRRORED = {"threadripper_mirrored_dies", "epyc_rome"}

# A joule that this machine's memory uses is so much less in the file: 61.035 uJ are shown as 15.3.
SHOWN_NANOJOULES_A_STEP = {"xeon_sapphire_rapids": (15_300, 61_035)}

TICK_SECONDS = 10


@dataclass
class Flow:
    """One energy flow of a machine: the zones that show it, and what it has used.

    step_nanojoules: of its register, where the file shows another; else 0.
    """

    key: ChannelKey
    zones: list[str]
    watts: int
    step_nanojoules: int
    used_nanojoules: int = 0

    @property
    def used_microjoules(self) -> int:
        """What it has used in whole microjoules."""
        return self.used_nanojoules // 1000


def flows_of(host: Machine, name: str) -> list[Flow]:
    """The flows that a careful person finds in the tree: packages and memory, each once."""
    flows: dict[tuple[str, str], Flow] = {}
    for file in sorted((host.sys / "class" / "powercap").glob("*:*/name")):
        zone, text = file.parent.name, file.read_text().strip()
        parent = host.zone(zone.rpartition(":")[0]) / "name"
        package = re.match(r"package-(\d+)(-die-\d+)?$", text) or (
            re.match(r"package-(\d+)(-die-\d+)?$", parent.read_text().strip()) if text == "dram" else None
        )
        if package is None:
            continue
        socket, die = package[1], package[2] or ""
        place = "-die-0" if name in MIRRORED and die else die
        device, domain = (f"memory/{socket}", "dram") if text == "dram" else (f"cpu/{socket}", "package")
        key = ChannelKey(device, domain + place, "rapl")
        watts = 18 + 3 * int(socket) if text == "dram" else 90 + 7 * int(socket) + (30 if place == "-die-1" else 0)
        _, step = SHOWN_NANOJOULES_A_STEP.get(name, (0, 0))
        flow = Flow(key, [], watts, step if text == "dram" else 0)
        flows.setdefault((device, domain + place), flow).zones.append(zone)
    return list(flows.values())


def let_pass(host: Machine, name: str, flow: Flow, seconds: float, chance: random.Random) -> None:
    """Use energy, and show it in every zone of the flow."""
    microjoules = round(flow.watts * seconds * chance.uniform(0.3, 1.6) * JOULE)
    flow.used_nanojoules += microjoules * 1000
    if flow.step_nanojoules:
        # Whole steps of the register: 15.3 uJ are not whole microjoules, ten of them are.
        shown, _ = SHOWN_NANOJOULES_A_STEP[name]
        tens = microjoules * 100 // flow.step_nanojoules
        flow.used_nanojoules += tens * 10 * flow.step_nanojoules - microjoules * 1000
        microjoules = tens * shown // 100
    for zone in flow.zones:
        host.add_energy(zone, microjoules)


@pytest.mark.parametrize("name", MACHINES)
def test_an_hour_without_a_doubt_is_booked_to_the_microjoule(tmp_path: Path, name: str) -> None:
    """Reads fail, counters wrap and the agent is replaced, all within what a counter bridges: nothing is missing."""
    chance = random.Random(name)
    host = machine(name, tmp_path)
    flows = flows_of(host, name)
    for flow in flows:
        flow_zones = dict.fromkeys(flow.zones, float(flow.watts))
        host.watts |= flow_zones if len(flow.zones) > 1 else {}
    bench = Bench(host)
    assert {spec.key for spec in bench.specs if spec.role is Role.LEAF} == {flow.key for flow in flows}
    host.watts = {}
    for _ in range(2):
        # Dies of their own are withheld until it is known that they are, and begin then.
        bench.tick()
        for flow in flows:
            let_pass(host, name, flow, 1.0, chance)
    bench.tick()
    began = dict(bench.energy)
    gaps = dict(bench.gaps)
    for flow in flows:
        flow.used_nanojoules = 0
    for tick in range(1, 3600 // TICK_SECONDS):
        host.failing = {zone: errno.EIO for flow in flows for zone in flow.zones if chance.random() < 0.03}
        for flow in flows:
            let_pass(host, name, flow, TICK_SECONDS, chance)
        if tick % 90 == 0:
            host.failing = {}
            host.watts = {zone: float(flow.watts) for flow in flows if len(flow.zones) > 1 for zone in flow.zones}
            before = {flow.key: host.energy(flow.zones[0]) for flow in flows}
            bench = bench.restarted(seconds=TICK_SECONDS)
            for flow in flows:
                # What passed while dies were watched at the start.
                flow.used_nanojoules += 1000 * (host.energy(flow.zones[0]) - before[flow.key])
            host.watts = {}
        bench.tick(0 if tick % 90 == 0 else TICK_SECONDS)
    host.failing = {}
    bench.tick(TICK_SECONDS)
    for flow in flows:
        # A mended counter is rounded once at its beginning and once at a wrap.
        tolerance = 130 if flow.step_nanojoules else 0
        booked = bench.energy[flow.key] - began[flow.key]
        assert booked == pytest.approx(flow.used_microjoules, abs=tolerance), flow
        assert bench.gaps[flow.key] == gaps[flow.key]


@pytest.mark.parametrize("name", MACHINES)
def test_an_hour_with_doubts_stands_within_its_gaps(tmp_path: Path, name: str) -> None:
    """A reboot, an outage longer than a wrap and values that are none: the bounds of the gaps contain the truth."""
    chance = random.Random(name)
    host = machine(name, tmp_path)
    flows = flows_of(host, name)
    mirrors = {zone: float(flow.watts) for flow in flows if len(flow.zones) > 1 for zone in flow.zones}
    bench = Bench(host)
    bench.tick()
    for tick in range(1, 120):
        seconds: float = TICK_SECONDS
        for flow in flows:
            if tick == 40:
                # Three times the usual power: AMD's counters wrap once or more, unseen.
                seconds = 400
                let_pass(host, name, flow, 2 * seconds, chance)
            let_pass(host, name, flow, seconds, chance)
        if tick == 80:
            for flow in flows:
                for zone in flow.zones:
                    host.set_energy(zone, 0)
            host.watts = mirrors
            bench = bench.restarted(boot_id=bytes(range(1, 17)))
            host.watts = {}
        kept = {zone: host.energy(zone) for flow in flows for zone in flow.zones}
        if chance.random() < 0.05:
            for zone in kept:
                host.set_energy(zone, chance.choice(["", "18446744073447456768", "-1", "rapl"]))
        bench.tick(seconds)
        for zone, energy in kept.items():
            host.set_energy(zone, energy)
    bench.tick(0.5)
    for flow in flows:
        lower, upper = bench.gaps[flow.key]
        booked = bench.energy[flow.key]
        assert upper > 0, flow
        # The settling of dies after the reboot, and the rounding of mended counters.
        slack = 20 * flow.watts * JOULE // 10 if len(flow.zones) > 1 else 200
        assert booked + lower - slack <= flow.used_microjoules <= booked + upper + slack, flow
