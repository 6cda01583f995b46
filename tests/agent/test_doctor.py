"""`doctor` as a whole: what a machine in order looks like, the tree, both forms, and that it changes nothing."""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.agent.doctoring import FAKE, QUICK, fault, faults, instant, of_fixture, of_host, of_machine, recorded
from tests.agent.machines import machine

from wattledger_agent import once
from wattledger_agent.clock import HostClock
from wattledger_agent.commands import Answer
from wattledger_agent.config import AgentConfig, EstimateConfig, IpmiConfig, SourcesConfig
from wattledger_agent.doctor import Finding, Means, Report, as_json, as_text, diagnose, exit_status
from wattledger_agent.doctor_delivery import Connect
from wattledger_agent.doctor_faults import FAULTS
from wattledger_agent.inventory import Inventory, Roots, find_sources, open_together
from wattledger_agent.readings import ChannelSpec, Reading

TESTS = Path(__file__).parent


def test_a_machine_in_order_has_no_fault(tmp_path: Path) -> None:
    """Its sensors are read; what it has no hardware for is a note, and nothing to mend."""
    host = machine("xeon_two_sockets", tmp_path)
    (host.proc / "self").mkdir()
    boot = host.proc / "sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("7d9a3f0e-5f3b-4a6e-9c58-0c7c1d2e3f40\n")
    groups = host.sys / "fs/cgroup"
    groups.mkdir(parents=True)
    (groups / "cgroup.controllers").write_text("cpu memory\n")
    config = AgentConfig(state_dir=str(tmp_path / "state"))
    connection = _answering()
    means = Means(connect=connection, instant=lambda: instant(time.time()), sleep=QUICK.sleep)

    findings = diagnose(config, Roots(host.sys, host.proc, tmp_path / "dev"), means).findings

    assert faults(findings) == set()
    assert exit_status(findings) == 0
    # What a source has to say is asked before it is closed.
    assert [finding for finding in findings if finding.check == "cpu"] == [Finding("cpu", "ok", "utilization")]
    (rapl,) = [finding for finding in findings if finding.check == "rapl"]
    assert rapl == Finding("rapl", "ok", "4 channels")
    assert {finding.check for finding in findings if finding.verdict == "note"} >= {"nvidia", "amd_gpu", "ipmi"}


def test_nothing_to_meter_is_a_failure(tmp_path: Path) -> None:
    """The exit status is 1, and the remedy is the one setting that always helps."""
    nothing = SourcesConfig(estimate=EstimateConfig(enabled=False))
    config = AgentConfig(state_dir=str(tmp_path / "state"), sources=nothing)
    findings = of_host(tmp_path, config, roots=Roots(tmp_path / "sys", tmp_path / "proc", tmp_path / "dev"))

    assert fault(findings, "no-source").remedy == "Follow a remedy above, or enable `sources.estimate`."
    assert exit_status(findings) == 1


def test_an_estimate_in_a_sensors_place_names_the_sensor(tmp_path: Path) -> None:
    """A model looks well from afar; that something could be measured is said where the model is."""
    finding = fault(of_fixture("container_masked", tmp_path), "estimate-over-sensor")

    assert finding.found == "power is MODELLED although rapl is there and can't be used"
    assert finding.remedy == "Follow the remedy of rapl; what it measures then takes the estimate's place by itself."


def test_an_estimate_where_nothing_can_be_measured_says_how_to_better_it(tmp_path: Path) -> None:
    """A machine whose processor has no counter, and no sensor besides."""
    finding = fault(of_fixture("ascend_910", tmp_path), "only-estimate")

    assert finding.remedy == (
        "See the remedies of the sources that were not found, or state the machine's own curve in "
        "`sources.estimate.curve_watts`."
    )


def test_a_clock_without_a_boot_is_a_failure(tmp_path: Path) -> None:
    """Without procfs no energy can be dated, and nothing is read."""
    config = AgentConfig(state_dir=str(tmp_path / "state"), sources=FAKE)
    report = diagnose(config, Roots(procfs=tmp_path), QUICK)

    finding = fault(report.findings, "boot-id")
    assert finding.found == f"cannot read the boot id at {tmp_path}/sys/kernel/random/boot_id: No such file or directory"
    assert finding.remedy == (
        "The agent needs Linux with procfs; in a container mount it and name its place with --procfs-root."
    )
    assert (finding.verdict, report.look) == ("failure", None)


def test_the_tree_says_what_is_booked_and_what_is_folded_and_why(tmp_path: Path) -> None:
    """The node's meter contains its parts; the estimate beside it is compared, and never booked."""
    report = of_machine(recorded("ipmi_node_gpus_excluded", tmp_path))

    text = as_text(report)
    tree = text[text.index("\n\n") :]
    assert re.search(r"^node dcmi +ipmi +[\d.]+ W  \(integral of measured power, meter\)", tree, re.M)
    assert re.search(r"^  node residual +ipmi +[\d.]+ W  \(.*booked, signed\)", tree, re.M)
    assert re.search(r"^  cpu/0 package +rapl +[\d.]+ W  \(counter, booked\)", tree, re.M)
    assert "node: estimate estimate is " in tree


def test_a_folded_channel_has_its_reason_in_the_tree(tmp_path: Path) -> None:
    """Two sources of one module: the one that was there first is booked, and the other says so."""
    report = of_machine(recorded("gh200", tmp_path))

    assert "not booked: hwmon module measures module/0 too, and was there first" in as_text(report)
    tree = json.loads(as_json(report))["tree"]
    (nvidia,) = [one for one in tree["channels"] if (one["device"], one["source"]) == ("module/0", "nvidia")]
    assert nvidia["not_booked_because"] == "hwmon module measures module/0 too, and was there first"
    assert [(one["source"], one["reference_source"]) for one in tree["comparisons"]] == [("nvidia", "hwmon")]


def test_both_forms_have_the_same_facts() -> None:
    """A line for each finding and its remedy for people, an object for programs."""
    missing = FAULTS["machine-id"].finding()
    report = Report([Finding("cpu", "ok", "utilization"), missing])

    assert as_text(report).splitlines() == [
        "ok      cpu: utilization",
        f"WARNING identity: {missing.found} [machine-id]",
        "        -> systemd-machine-id-setup",
    ]
    assert json.loads(as_json(report)) == {
        "findings": [
            {"check": "cpu", "verdict": "ok", "found": "utilization", "remedy": "", "id": ""},
            {
                "check": "identity",
                "verdict": "warning",
                "found": missing.found,
                "remedy": "systemd-machine-id-setup",
                "id": "machine-id",
            },
        ],
        "tree": None,
    }


def test_neither_doctor_nor_once_writes_anything(tmp_path: Path) -> None:
    """Not in the state folder, where an agent's spool may be, and nowhere else; times of change included."""
    host = machine("xeon_two_sockets", tmp_path)
    boot = host.proc / "sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("7d9a3f0e-5f3b-4a6e-9c58-0c7c1d2e3f40\n")
    state = tmp_path / "state" / "spool"
    state.mkdir(parents=True)
    (state / "lock").write_text("")
    (state / "0000000000000001.segment").write_bytes(b"no segment")
    before = _everything(tmp_path)
    config = AgentConfig(state_dir=str(tmp_path / "state"))
    roots = Roots(host.sys, host.proc, tmp_path / "dev")

    diagnose(config, roots, QUICK)
    once.look(find_sources(config.sources, roots, seconds_max=2.0), HostClock().instant, QUICK.sleep)

    assert _everything(tmp_path) == before


class HungSource:
    """A source whose driver hangs when it is opened, or when it is read."""

    name = "hung"
    may_block = True

    def __init__(self, specs: Sequence[ChannelSpec] | None) -> None:
        self.specs = specs
        self.released = threading.Event()

    def open(self) -> Sequence[ChannelSpec]:
        """Hang, unless it has channels."""
        if self.specs is None:
            self.released.wait(60)
        return self.specs or []

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Hang."""
        self.released.wait(60)
        return []

    def notes(self) -> Sequence[str]:
        """It has none."""
        return []

    def close(self) -> None:
        """Nothing is kept open."""


def test_sources_that_hang_while_they_are_opened_share_one_deadline() -> None:
    """Ten hung drivers cost as much time as one, and each is said to be left out."""
    inventory = Inventory([], [])
    sources = [HungSource(None) for _ in range(10)]
    begun = time.monotonic()

    open_together(sources, inventory, 0.2)

    assert time.monotonic() - begun < 1.5
    for source in sources:
        source.released.set()
    assert [one.reason for one in inventory.missing] == ["hung: it has not opened within 0 s; the other sources go on."] * 10


def test_a_hung_controller_is_left_out_and_the_rest_is_told_within_seconds(tmp_path: Path) -> None:
    """A program that does not end stands for it; the node's other sensors are read meanwhile."""
    host = machine("xeon_two_sockets", tmp_path)
    boot = host.proc / "sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("7d9a3f0e-5f3b-4a6e-9c58-0c7c1d2e3f40\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").write_text("")
    released = threading.Event()

    def hang(argv: Sequence[str], seconds_max: float) -> Answer:
        released.wait(60)
        raise OSError(5, "it was let go")

    config = AgentConfig(state_dir=str(tmp_path / "state"), sources=SourcesConfig(ipmi=IpmiConfig(cadence_seconds=10.0)))
    roots = Roots(host.sys, host.proc, tmp_path / "dev", commands=hang)
    means = Means(QUICK.connect, sleep=QUICK.sleep, open_seconds_max=0.5)
    begun = time.monotonic()

    report = diagnose(config, roots, means)
    took = time.monotonic() - begun
    released.set()

    assert took < 5.0
    finding = fault(report.findings, "source-left-out")
    assert finding.found == "ipmi was left out: it has not opened within 0 s; the other sources go on."
    assert finding.remedy == (
        "Look for a hung driver with dmesg -T | tail -50; a running agent reads it as soon as it answers."
    )
    assert report.look is not None
    assert [line.key.source for line in report.look.lines] == ["rapl"] * 4


def test_every_fault_is_seeded_by_a_test() -> None:
    """The table of faults holds nothing that no test has seen found."""
    seeded = "".join(path.read_text() for path in sorted(TESTS.glob("test_doctor*.py")))

    assert [name for name in FAULTS if f'"{name}"' not in seeded] == []
    assert len(FAULTS) >= 20


def test_every_fault_has_words_of_its_own() -> None:
    """A remedy is a thing to do, and no two faults are told alike."""
    told = [(one.check, one.what, one.remedy) for one in FAULTS.values()]

    assert len(told) == len(set(told))
    assert all(one.remedy for one in FAULTS.values())


def _everything(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = os.lstat(path)
        found[str(path)] = (
            status.st_mtime_ns,
            status.st_mode,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
    return found


def _answering() -> Connect:
    """Connects to something that answers as a gRPC server does."""

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        here, there = socket.socketpair()
        there.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        there.detach()
        here.settimeout(timeout)
        return here

    return connect
