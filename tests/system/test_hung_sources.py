"""What hangs delays nothing else: a real agent whose controllers and driver stop answering, by the times of its samples."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from tests.agent.redfish_server import Controller, serving
from tests.bench.machines import MovingMachine
from tests.system.programs import Program, free_ports, wait_until

from wattledger_agent.clock import HostClock, dmi_uuid, machine_id
from wattledger_agent.spool import Spool
from wattledger_protos.v1 import telemetry_pb2 as pb

ROOT = Path(__file__).parents[2]
REDFISH = ROOT / "tests/fixtures/redfish_server/redfish"

PERIOD_SECONDS = 0.5

# Every channel that does not hang has a value at least so often: one period, and one of delay.
GAP_SECONDS_MAX = 2 * PERIOD_SECONDS

# A controller answers within a minute, or never; the test is over before.
HUNG_SECONDS = 60.0

WELL_SECONDS = 3.0
WATCHED_SECONDS = 6.0

CONFIGURATION = """
host = "measured"
state_dir = "{folder}/state"
period_seconds = {period}
flush_seconds = 1.0
[collector]
address = "127.0.0.1:{port}"
[sources.ipmi]
cadence_seconds = 1.0
[sources.redfish]
address = "{redfish}"
user = "reader"
password_file = "{folder}/password"
insecure = true
cadence_seconds = 1.0
"""

IPMITOOL = """#!/bin/sh
[ -e {folder}/hang ] && exec sleep {seconds:.0f}
echo '    Instantaneous power reading:                   420 Watts'
echo '    Power reading state is:                   activated'
"""

# Two GPUs behind one driver; a call for the first does not return.
DRIVER = """
import time
from pathlib import Path

from tests.agent.fake_nvml import FakeGpu, FakeNvml
from tests.agent.fake_nvml import FakeNvmlError as NVMLError

_nvml = FakeNvml([FakeGpu("GPU-hangs"), FakeGpu("GPU-answers")])


def nvmlDeviceGetTotalEnergyConsumption(handle):
    if handle.uuid == "GPU-hangs" and Path("{folder}/hang").exists():
        time.sleep({seconds})
    return _nvml.nvmlDeviceGetTotalEnergyConsumption(handle)


def __getattr__(name):
    return getattr(_nvml, name)
"""


def test_what_hangs_delays_no_other_channel_by_more_than_a_period(tmp_path: Path) -> None:
    """A command of IPMI and a controller that answer after a minute, and a GPU in a hung driver, all at once."""
    let_go = threading.Event()
    controller = Controller(REDFISH, before=lambda path: _hang(tmp_path, let_go))
    with serving(controller), moving_machine(tmp_path / "machine"):
        with agent(tmp_path, controller.url) as program:
            wait_until(lambda: "metering" in program.said, "the agent meters")
            time.sleep(WELL_SECONDS)
            hung_at = time.clock_gettime(time.CLOCK_BOOTTIME)
            (tmp_path / "hang").touch()
            time.sleep(WATCHED_SECONDS)
            assert program.stop() == 0
        let_go.set()
    times = times_by_channel(tmp_path)
    after = {name: [at for at in found if at > hung_at] for name, found in times.items()}
    # They answered before, and all three do hang.
    for name in ("ipmi node", "redfish node", "nvidia gpu/GPU-hangs"):
        assert any(at < hung_at for at in times[name])
        assert not [at for at in after[name] if at > hung_at + GAP_SECONDS_MAX + 1.0], name
    others = [f"rapl {device}" for device in ("cpu/0", "cpu/1", "memory/0", "memory/1")]
    for name in (*others, "nvidia gpu/GPU-answers"):
        watched = [hung_at, *after[name], hung_at + WATCHED_SECONDS]
        assert len(after[name]) >= WATCHED_SECONDS / PERIOD_SECONDS / 2
        assert max(late - early for early, late in pairwise(watched)) <= GAP_SECONDS_MAX, name


def _hang(folder: Path, let_go: threading.Event) -> None:
    if (folder / "hang").exists():
        let_go.wait(HUNG_SECONDS)


def agent(folder: Path, redfish: str) -> Program:
    """Start it; the collector is away, so that all it meters stays in its spool."""
    (folder / "password").write_text("secret\n")
    (folder / "bin").mkdir()
    ipmitool = folder / "bin/ipmitool"
    ipmitool.write_text(IPMITOOL.format(folder=folder, seconds=HUNG_SECONDS))
    ipmitool.chmod(0o755)
    (folder / "driver").mkdir()
    (folder / "driver/pynvml.py").write_text(DRIVER.format(folder=folder, seconds=HUNG_SECONDS))
    # Loaded at once: an agent that finds no library of NVIDIA's does not look for the module.
    (folder / "driver/sitecustomize.py").write_text("import pynvml\n")
    (port,) = free_ports(1)
    configuration = folder / "agent.toml"
    configuration.write_text(CONFIGURATION.format(folder=folder, period=PERIOD_SECONDS, port=port, redfish=redfish))
    paths = f"PATH={folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    modules = f"PYTHONPATH={folder / 'driver'}{os.pathsep}{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    arguments = [str(configuration), str(folder / "machine")]
    return Program("tests.system.machine_agent", arguments, folder / "log", prefix=("env", paths, modules))


@contextmanager
def moving_machine(folder: Path) -> Iterator[None]:
    """Two sockets whose counters move in real time, and the device file of a management controller."""
    machine = MovingMachine(folder)
    (folder / "dev").mkdir()
    (folder / "dev/ipmi0").touch()
    stopping = threading.Event()

    def move() -> None:
        while not stopping.wait(PERIOD_SECONDS / 5):
            machine.advance(PERIOD_SECONDS / 5)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        stopping.set()
        mover.join()
        machine.close()


def times_by_channel(folder: Path) -> Mapping[str, list[float]]:
    """When each channel had a value, in seconds of boottime, by its source and device;"""
    found: dict[str, list[float]] = defaultdict(list)
    clock = HostClock(folder / "machine/proc")
    spool = Spool.open(
        folder / "state/spool",
        machine_id=machine_id(),
        dmi_uuid=dmi_uuid(folder / "machine/sys"),
        opening=clock.instant(),
        new_epoch=lambda: b"e" * 16,
    )
    for sequence in range(1, spool.next_sequence):
        record = spool.find(sequence)
        assert record is not None
        catalog = pb.Catalog.FromString(spool.catalog(record.catalog_hash) or b"")
        names = {channel.channel: f"{channel.source} {channel.device}" for channel in catalog.channels}
        payload = pb.Payload.FromString(record.payload)
        times = [payload.first_boottime_nanoseconds]
        for delta in payload.boottime_delta_nanoseconds:
            times.append(times[-1] + delta)
        for column in payload.columns:
            mask = int.from_bytes(column.present_mask, "little") if column.present_mask else (1 << len(times)) - 1
            found[names[column.channel]] += [at / 1e9 for row, at in enumerate(times) if mask >> row & 1]
    spool.close()
    return found
