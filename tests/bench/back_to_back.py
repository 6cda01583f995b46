"""One agent in this process, back to back: its sensors and clock are simulated, all else is real.

Says what a tick costs in CPU time of all threads, delivery included, and what reading the same sensors naively costs.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from tests.agent.fake_nvml import FakeNvml, eight_gpus
from tests.bench.acknowledger import Acknowledger
from tests.bench.machines import MovingMachine

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
LIVES_SENT_RATIO_MIN = 0.99

# As many control groups has the machine, whether they are read or not.
GROUPS = 300

# The targets are stated for the agent's own settings.
CONFIG = AgentConfig()
CADENCE = Cadence(CONFIG.period_seconds, CONFIG.flush_seconds, CONFIG.live_seconds)


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

    with_gpus, with_workloads: whether it reads these beside RAPL, CPUs and memory.
    """

    def __init__(self, folder: Path, *, with_gpus: bool, with_workloads: bool) -> None:
        folder.mkdir()
        self.machine = MovingMachine(folder / "machine", GROUPS)
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
        sources: list[Source] = [RaplSource(self.machine.sys, self.machine.proc), CpuSource(self.machine.proc)]
        if with_gpus:
            sources.append(NvidiaSource(self.machine.sys, nvml=self.nvml))
        opened = [OpenSource(source, source.open()) for source in sources]
        settings = None
        if with_workloads:
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


def naive_microseconds_per_tick(machine: MovingMachine, nvml: FakeNvml, ticks: int, *, with_workloads: bool) -> float:
    """CPU time of reading the same sensors as a script would: each file opened anew, psutil, and a call a GPU and value."""
    gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    begun = time.process_time_ns()
    for _ in range(ticks):
        for path in machine.counters:
            int(path.read_text())
        for path in machine.groups if with_workloads else ():
            int(path.read_text().split(maxsplit=2)[1])
        psutil.cpu_times_percent()
        psutil.virtual_memory()
        for gpu in gpus:
            nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
            nvml.nvmlDeviceGetUtilizationRates(gpu)
            nvml.nvmlDeviceGetMemoryInfo(gpu)
    return (time.process_time_ns() - begun) / ticks / NANOSECONDS_PER_MICROSECOND


def simulated_microseconds_per_call(nvml: FakeNvml, calls: int) -> float:
    """CPU time of one call of the simulated NVML: it is in the agent's figure, and a real driver's is not."""
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    begun = time.process_time_ns()
    for _ in range(calls):
        nvml.nvmlDeviceGetMemoryInfo(gpu)
    return (time.process_time_ns() - begun) / calls / NANOSECONDS_PER_MICROSECOND


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"agent_cost: {otherwise}")
        time.sleep(0.0005)
