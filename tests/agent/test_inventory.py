"""Which sources a host is read with: measured before modelled, and whatever is missing says what to do."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.agent.machines import FIXTURES, machine
from tests.agent.scripted import ScriptedSource
from tests.agent.test_worker import wait_for

from wattledger_agent.config import (
    CpuConfig,
    EstimateConfig,
    FakeConfig,
    NvidiaConfig,
    RaplConfig,
    ReplayConfig,
    SourcesConfig,
)
from wattledger_agent.inventory import (
    Inventory,
    Roots,
    close_all,
    find_sources,
    open_source,
    replay_source,
    sensor_named,
    without_name,
)
from wattledger_agent.readings import ChannelSpec, Component, Method, ProcessShares, Role
from wattledger_agent.sources.nvml_recorded import RecordedNvml
from wattledger_agent.topology import resolve

CPUINFO = "".join(
    f"processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\n"
    f"physical id\t: 0\ncore id\t: {number}\ncpu cores\t: 4\nflags\t\t: fpu\n\n"
    for number in range(4)
)


@pytest.fixture
def bare(tmp_path: Path) -> Roots:
    """A host of four CPUs without any sensor."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text(CPUINFO)
    (proc / "meminfo").write_text("MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\n")
    (proc / "stat").write_text("cpu  100 0 100 1000 0 0 0 0 0 0\n" + "cpu0 25 0 25 250 0 0 0 0 0 0\n" * 4)
    (tmp_path / "sys").mkdir()
    return Roots(tmp_path / "sys", proc, tmp_path / "dev")


@pytest.fixture
def metered() -> Roots:
    """A server of two sockets with RAPL."""
    machine = FIXTURES / "xeon_two_sockets"
    return Roots(machine / "sys", machine / "proc")


def names(inventory: Inventory) -> list[str]:
    """Of the sources that were opened."""
    return [source.source.name for source in inventory.opened]


def test_without_a_sensor_the_host_is_estimated(bare: Roots) -> None:
    """And each source that is missing says why, and the remedy."""
    inventory = find_sources(SourcesConfig(), bare)

    assert names(inventory) == ["cpu", "estimate"]
    assert {spec.method for spec in inventory.specs} == {Method.MODEL}
    assert {"rapl", "nvidia", "ipmi"} <= {missing.source for missing in inventory.missing}
    assert all(missing.reason and missing.remedy for missing in inventory.missing)
    close_all(inventory)


def test_a_sensor_that_is_missing_can_be_made_again(metered: Roots) -> None:
    """A new one for each attempt; the estimate is no sensor, and what is off or simulated is not looked for."""
    again = sensor_named("rapl", SourcesConfig(), metered)
    assert again is not None
    assert again.open()
    again.close()
    assert sensor_named("rapl", SourcesConfig(), metered) is not again
    assert sensor_named("estimate", SourcesConfig(), metered) is None
    assert sensor_named("rapl", SourcesConfig(rapl=RaplConfig(enabled=False)), metered) is None
    assert sensor_named("rapl", SourcesConfig(fake=FakeConfig()), metered) is None


def test_measured_cpus_are_not_estimated_as_well(metered: Roots) -> None:
    """The same watts must never stand in the account twice."""
    inventory = find_sources(SourcesConfig(nvidia=NvidiaConfig(enabled=False), cpu=CpuConfig(enabled=False)), metered)

    assert names(inventory) == ["rapl"]
    assert Method.MODEL not in {spec.method for spec in inventory.specs}
    close_all(inventory)


def test_beside_a_meter_of_the_node_the_estimate_is_compared() -> None:
    """It is opened though the CPUs are measured, takes the load that is read anyway, and none of it is booked."""
    machine = FIXTURES / "xeon_sapphire_rapids"
    config = SourcesConfig(nvidia=NvidiaConfig(enabled=False), rapl=RaplConfig(psys_is_node_meter=True))
    inventory = find_sources(config, Roots(machine / "sys", machine / "proc"))
    roles = {spec.key.source: spec.role for spec in resolve(inventory.specs) if spec.key.device == "node"}
    assert roles == {"rapl": Role.METER, "estimate": Role.SHOWN}
    (estimate,) = [opened.source for opened in inventory.opened if opened.source.name == "estimate"]
    with pytest.raises(OSError, match="see the source `cpu`"):
        estimate.read(1)
    assert "none of the estimate is booked" in " ".join(estimate.notes())
    close_all(inventory)


def test_virtual_rapl_stands_in_for_the_estimate() -> None:
    """Where the hypervisor lets a guest see its part of the package, that is believed and nothing is modelled."""
    config = SourcesConfig(nvidia=NvidiaConfig(enabled=False))
    found = {}
    for guest in ("kvm_guest", "kvm_guest_virtual_rapl"):
        inventory = find_sources(config, Roots(FIXTURES / guest / "sys", FIXTURES / guest / "proc"))
        found[guest] = {spec.key.source for spec in inventory.specs}
        close_all(inventory)
    assert found == {"kvm_guest": {"estimate"}, "kvm_guest_virtual_rapl": {"rapl"}}


def test_a_users_curve_reaches_the_estimate(bare: Roots) -> None:
    """As configured, with its band."""
    curve = EstimateConfig(curve_watts=((0.0, 50.0), (1.0, 100.0)), curve_band=(0.1, 0.2))
    inventory = find_sources(SourcesConfig(estimate=curve), bare)
    (spec,) = [spec for spec in inventory.specs if spec.key.source == "estimate"]
    assert [spec.power_bound_watts, spec.uncertainty_lower_ratio] == pytest.approx([120.0, 0.1])
    close_all(inventory)


def test_what_is_off_is_not_opened(metered: Roots) -> None:
    """Not read, and not missing either."""
    tables = msgspec.structs.asdict(SourcesConfig())
    off = {
        name: msgspec.structs.replace(table, enabled=False) for name, table in tables.items() if hasattr(table, "enabled")
    }
    nothing = msgspec.structs.replace(SourcesConfig(), **off)

    assert find_sources(nothing, metered) == Inventory([], [])


def test_simulated_counters_stand_alone(metered: Roots) -> None:
    """Beside real ones they would pass for this host's energy."""
    inventory = find_sources(SourcesConfig(fake=FakeConfig(packages=1, gpus=1, node_meter=True)), metered)

    assert names(inventory) == ["fake"]
    assert [spec.component for spec in inventory.specs] == [
        Component.CPU,
        Component.MEMORY,
        Component.GPU,
        Component.OTHER,
    ]
    close_all(inventory)


def test_a_source_without_a_host_is_missing(tmp_path: Path) -> None:
    """Where procfs is not mounted nothing can be read, and nothing raises."""
    inventory = find_sources(SourcesConfig(), Roots(tmp_path / "sys", tmp_path / "proc", tmp_path / "dev"))

    assert names(inventory) == []
    assert {"rapl", "nvidia", "ipmi", "cpu", "estimate"} <= {missing.source for missing in inventory.missing}


def test_a_recording_is_made_with_what_is_configured(tmp_path: Path) -> None:
    """Names of columns and of the device go to the source."""
    path = tmp_path / "recording.csv"
    path.write_text("at,watts\n2024-01-01T00:00:00Z,5\n2024-01-01T01:00:00Z,7\n")
    source = replay_source(
        ReplayConfig(path=str(path), time_column="at", power_column="watts", device="gpu/0", component="gpu")
    )

    (spec,) = source.open()
    assert (spec.key.device, spec.component) == ("gpu/0", Component.GPU)
    source.close()


def test_a_sources_name_is_said_once() -> None:
    """Sentences begin with it, for logs; beside a name they don't."""
    assert without_name("rapl", "rapl: no folder.") == "no folder."
    assert without_name("cpu", "rapl: no folder.") == "rapl: no folder."


class BrokenSource(ScriptedSource):
    """A source whose opening raises what no source should, or hangs. closing: what else its end does."""

    def __init__(self, opening: Callable[[], object], closing: Callable[[], object] = lambda: None) -> None:
        super().__init__("broken", lambda now: (), may_block=True)
        self._opening = opening
        self._closing = closing

    def open(self) -> Sequence[ChannelSpec]:
        self._opening()
        return ()

    def close(self) -> None:
        super().close()
        self._closing()


def test_a_source_that_fails_to_open_in_any_way_is_missing() -> None:
    """A broken binding costs its own sensors alone, and what it said is told."""

    def fail() -> None:
        raise ImportError("libnvidia-ml.so.1: file too short")

    inventory = Inventory([], [])
    open_source(BrokenSource(fail), inventory)
    (missing,) = inventory.missing
    assert "file too short" in missing.reason
    assert missing.remedy


def test_a_source_that_hangs_while_opening_is_missing() -> None:
    """A driver that never answers keeps the agent from its other sensors for the deadline, not for ever."""
    release = threading.Event()
    inventory = Inventory([], [])
    open_source(BrokenSource(release.wait), inventory, seconds_max=0.05)
    release.set()
    (missing,) = inventory.missing
    assert "has not opened within" in missing.reason


def test_a_source_that_opens_after_it_was_left_out_is_closed() -> None:
    """The agent makes another one: two would hold the driver, so that it is never let go of, or poll a controller twice."""
    release, closed = threading.Event(), threading.Event()
    source = BrokenSource(release.wait, closed.set)
    open_source(source, Inventory([], []), seconds_max=0.01)
    assert not closed.is_set()
    release.set()
    assert closed.wait(10.0)


def test_a_source_that_was_left_out_and_can_not_be_closed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Its driver may be held until the agent ends, and somebody will look for who holds it."""
    release = threading.Event()

    def fail() -> None:
        raise OSError(19, "No such device")

    source = BrokenSource(release.wait, fail)
    open_source(source, Inventory([], []), seconds_max=0.01)
    release.set()
    wait_for(lambda: f"{source.name}: it could not be closed: OSError: [Errno 19] No such device" in caplog.messages)


def test_a_recorded_nvml_stands_for_the_driver(tmp_path: Path) -> None:
    """GPUs are found through it, and tell their processes only where workloads are accounted."""
    host = machine("t4_server", tmp_path)
    recording = json.loads((host.root / "nvml.json").read_text())
    for processes in (False, True):
        nvml = RecordedNvml(recording)
        inventory = find_sources(SourcesConfig(), Roots(host.sys, host.proc, nvml=nvml), processes=processes)
        (gpus,) = [opened for opened in inventory.opened if opened.source.name == "nvidia"]
        assert len(gpus.specs) == 2
        shares = [reading for reading in gpus.source.read(1) if isinstance(reading, ProcessShares)]
        assert bool(shares) == processes
        close_all(inventory)
