"""What the agent costs its host: 2 sockets, 8 GPUs behind a simulated NVML, 300 control groups; spool and stream included.

CPU is measured back to back in this process, with one simulated second a tick, and at its real pace in a real
`wattledger-agent run`, as are wake-ups and memory. Calls of the simulated NVML cost about a microsecond; what a real driver
takes for them is not in. PSS counts in part what is shared with other processes: where the agent is the only Python program
of its server, it rises to the RSS.

    python -m tests.bench.agent_cost [--small]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from tests.agent.fake_nvml import FakeNvml, eight_gpus
from tests.bench.acknowledger import ROOT, Acknowledger
from tests.bench.machines import MovingMachine
from tests.bench.output import report
from tests.bench.processes import look, memory_megabytes, start_sleeper, threads

from wattledger_agent.config import AgentConfig, CollectorConfig
from wattledger_agent.counters import Instant
from wattledger_agent.own_cost import ProcessCost
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, IdlePolicy, Source
from wattledger_agent.sampler import Cadence, OpenSource, Sampler
from wattledger_agent.session import Identity
from wattledger_agent.shipper import Shipper
from wattledger_agent.sources.cpu import CpuSource
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.spool import Spool
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workloads import WorkloadsSource
from wattledger_protos.v1 import telemetry_pb2 as pb

BOOT = b"boot--0123456789"
NANOSECONDS_PER_MICROSECOND = 1000
WAIT_SECONDS_MAX = 20.0
GROUPS = 300
WARM_UP_TICKS = 50
LIVES_SENT_RATIO_MIN = 0.99

# The targets are stated for the agent's own settings.
CONFIG = AgentConfig()
CADENCE = Cadence(CONFIG.period_seconds, CONFIG.flush_seconds, CONFIG.live_seconds)

AGENT_TOML = """
host = "measured"
state_dir = "{state}"
[collector]
address = "127.0.0.1:{port}"
"""


class SimulatedClock:
    """A host's clocks, moved by hand."""

    def __init__(self) -> None:
        self._nanoseconds = 1000 * NANOSECONDS_PER_SECOND
        self._offset = time.time_ns()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._nanoseconds += round(seconds * NANOSECONDS_PER_SECOND)

    def instant(self) -> Instant:
        """Now."""
        return Instant(BOOT, self._nanoseconds, self._nanoseconds + self._offset, True, 0)


class CountedDelivery:
    """Hands on to the shipper, and counts."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper
        self.lives = 0

    def appended(self) -> None:
        """See sampler.Delivery."""
        self._shipper.appended()

    def live(self, live: pb.Live) -> None:
        """See sampler.Delivery."""
        self.lives += 1
        self._shipper.live(live)


class BackToBack:
    """One agent in this process, ticking as fast as it can; all but its sensors and clock are real.

    groups: so many workloads; 0: they are not read.
    """

    def __init__(self, folder: Path, groups: int) -> None:
        folder.mkdir()
        self.machine = MovingMachine(folder / "machine", groups)
        self.nvml: FakeNvml = eight_gpus()
        self.clock = SimulatedClock()
        self._collector = Acknowledger()
        self._spool = Spool.open(
            folder / "spool",
            machine_id="m",
            dmi_uuid="",
            opening=self.clock.instant(),
            new_epoch=lambda: os.urandom(16),
        )
        identity = Identity("measured", "0", "m", BOOT)
        address = CollectorConfig(address=f"127.0.0.1:{self._collector.port}")
        self._shipper = Shipper(self._spool, identity, address, self.clock.instant, jitter=lambda: 0.0)
        self._delivery = CountedDelivery(self._shipper)
        sources: list[Source] = [
            RaplSource(self.machine.sys, self.machine.proc),
            NvidiaSource(self.machine.sys, nvml=self.nvml),
            CpuSource(self.machine.proc),
        ]
        opened = [OpenSource(source, source.open()) for source in sources]
        settings = None
        if groups:
            workloads = WorkloadsSource(self.machine.sys / "fs/cgroup", self.machine.proc, self.machine.sys)
            opened.append(OpenSource(workloads, workloads.open()))
            accounts = CONFIG.workloads.accounts_max, CONFIG.workloads.flush_seconds
            settings = WorkloadSettings(IdlePolicy.NODE_ONLY, *accounts, workloads.owner_of)
        self._sampler = Sampler(
            opened, self._spool, self._delivery, self.clock, CADENCE, own_cost=ProcessCost(), workloads=settings
        )
        self._shipper.start()
        _wait(lambda: self._shipper.status().connected, "the agent does not connect")

    def cpu_microseconds_per_tick(self, ticks: int) -> float:
        """CPU time of all threads, less that of moving the machine and waiting for the collector."""
        outside = 0
        begun = time.process_time_ns()
        for _ in range(ticks):
            mark = time.thread_time_ns()
            self._advance()
            outside += time.thread_time_ns() - mark
            self._sampler.step()
            mark = time.thread_time_ns()
            # A real tick has a second for this; a shipper that falls behind would send less and look cheaper.
            _wait(lambda: self._spool.acknowledged_sequence == self._spool.next_sequence - 1, "no acknowledgement")
            outside += time.thread_time_ns() - mark
        return (time.process_time_ns() - begun - outside) / ticks / NANOSECONDS_PER_MICROSECOND

    def stop(self) -> dict[str, int]:
        """End all; returns what the collector received. Raises SystemExit if that is less than was sent."""
        self._shipper.stop()
        received = self._collector.stop()
        batches, lives = self._spool.next_sequence - 1, self._delivery.lives
        # Live messages may be left out where the machine is busy; with more than a few the figures were not of all work.
        if received["batch"] != batches or received["live"] < lives * LIVES_SENT_RATIO_MIN:
            raise SystemExit(f"agent_cost: the collector received {received} of {batches} batches and {lives} live messages")
        self._spool.close()
        self.machine.close()
        return received

    def _advance(self) -> None:
        self.machine.advance(CADENCE.period_seconds)
        self.nvml.advance(CADENCE.period_seconds)
        self.clock.advance(CADENCE.period_seconds)


def naive_microseconds_per_tick(machine: MovingMachine, nvml: FakeNvml, ticks: int) -> float:
    """CPU time of reading the same sensors as a script would: each file opened anew, psutil, and a call a GPU and value."""
    gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    begun = time.process_time_ns()
    for _ in range(ticks):
        for path in machine.counters:
            int(path.read_text())
        for path in machine.groups:
            int(path.read_text().split(maxsplit=2)[1])
        psutil.cpu_times_percent()
        psutil.virtual_memory()
        for gpu in gpus:
            nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
            nvml.nvmlDeviceGetUtilizationRates(gpu)
            nvml.nvmlDeviceGetMemoryInfo(gpu)
    return (time.process_time_ns() - begun) / ticks / NANOSECONDS_PER_MICROSECOND


@contextmanager
def real_agent(folder: Path) -> Iterator[int]:
    """A real agent process on a machine that moves in real time; gives its process id."""
    collector = Acknowledger()
    machine = MovingMachine(folder / "machine", GROUPS)
    config = folder / "agent.toml"
    config.write_text(AGENT_TOML.format(state=folder / "state", port=collector.port))
    command = [sys.executable, "-m", "wattledger_agent.cli", "run", "--config", str(config)]
    command += ["--sysfs-root", str(machine.sys), "--procfs-root", str(machine.proc)]
    paths = os.pathsep.join((str(Path(__file__).parent / "driver"), str(ROOT)))
    stopping = threading.Event()
    mover = threading.Thread(target=_move, args=(machine, stopping))
    mover.start()
    agent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL)
    try:
        yield agent.pid
    finally:
        agent.terminate()
        status = agent.wait(WAIT_SECONDS_MAX)
        stopping.set()
        mover.join()
        machine.close()
        received = collector.stop()
    if status or not received.get("batch"):
        raise SystemExit(f"agent_cost: the real agent ended with {status}; the collector received {received}")


def _move(machine: MovingMachine, stopping: threading.Event) -> None:
    while not stopping.wait(CADENCE.period_seconds / 4):
        machine.advance(CADENCE.period_seconds / 4)


def measure_back_to_back(folder: Path, ticks: int) -> None:
    """Print CPU a tick, without workloads and with them, and bytes a sample."""
    compared = "the sensors alone, read naively: files opened anew, psutil"
    for name, groups in (("", 0), (f"_with_{GROUPS}_workloads", GROUPS)):
        agent = BackToBack(folder / f"back{groups}", groups)
        agent.cpu_microseconds_per_tick(WARM_UP_TICKS)
        own = agent.cpu_microseconds_per_tick(ticks)
        naive = naive_microseconds_per_tick(agent.machine, agent.nvml, max(ticks // 4, 1))
        received = agent.stop()
        report(f"agent_cpu_microseconds_per_tick{name}", own, "us", naive, compared)
        value, bare = received["batch_bytes"] / received["samples"], 8 * received["values"] / received["samples"]
        report(f"agent_wire_bytes_per_sample{name}", value, "B", bare, "8 bytes a value")


def measure_at_pace(folder: Path, seconds: float, warm_up_seconds: float) -> None:
    """Print wake-ups, memory and CPU of a real process."""
    with real_agent(folder) as pid:
        sleeper = start_sleeper()
        try:
            time.sleep(warm_up_seconds)
            before, sleeper_before = look(pid), look(sleeper.pid)
            time.sleep(seconds)
            own, bare = look(pid).since(before), look(sleeper.pid).since(sleeper_before)
            compared = "a bare loop that sleeps for a second"
            for kind in ("Pss", "Rss"):
                value, floor = memory_megabytes(pid, kind), memory_megabytes(sleeper.pid, kind)
                report(f"agent_memory_{kind.lower()}_megabytes", value, "MB", floor, compared)
            wakeups, floor = own.switches / own.at_seconds, max(bare.switches, 1) / bare.at_seconds
            report("agent_wakeups_per_second", wakeups, "1/s", floor, compared)
            ticks = own.at_seconds / CADENCE.period_seconds
            value, floor = own.cpu_microseconds / ticks, max(bare.cpu_microseconds, 1.0) / ticks
            report("agent_cpu_at_pace_microseconds_per_tick", value, "us", floor, compared)
            report("agent_threads", threads(pid), "threads", threads(sleeper.pid), compared)
        finally:
            sleeper.terminate()
            sleeper.wait()


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"agent_cost: {otherwise}")
        time.sleep(0.0005)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a short run that shows that all works")
    small = parser.parse_args().small
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pace").mkdir()
        measure_back_to_back(Path(folder), 300 if small else 2000)
        # Whole flushes, which are every ten seconds.
        measure_at_pace(Path(folder) / "pace", 10.0 if small else 60.0, 12.0 if small else 30.0)


if __name__ == "__main__":
    main()
