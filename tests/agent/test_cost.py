"""The agent's cost, counted and not timed: calls a tick, threads, bytes, fsyncs and modules on a server with 8 GPUs.

What is timed is in tests/bench/agent_cost.py; a count is the same on every machine, and fails when somebody adds to it.
"""

import contextlib
import ctypes
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import pytest
from tests.agent.fake_nvml import PATIENCE_SECONDS, FakeNvml, eight_gpus
from tests.agent.machines import Machine, machine

from wattledger_agent import __version__
from wattledger_agent.counters import Instant
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, Source
from wattledger_agent.sampler import Cadence, OpenSource, Sampler
from wattledger_agent.sources.cpu import CpuSource
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.nvidia_gauges import GAUGES_SECONDS
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.spool import Spool
from wattledger_agent.spool_files import OsFiles
from wattledger_protos.v1 import telemetry_pb2 as pb

BOOT = b"boot--0123456789"
GPUS = 8
COUNTERS = 4  # Two packages, each with its dram.
CHANNELS = COUNTERS + GPUS
ZONES = ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0")
CADENCE = Cadence(period_seconds=1.0, flush_seconds=10.0, live_seconds=2.0)


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000

    def instant(self) -> Instant:
        """Now."""
        boottime = self.seconds * NANOSECONDS_PER_SECOND
        return Instant(BOOT, boottime, boottime + 1_700_000_000 * NANOSECONDS_PER_SECOND, True, 0)


class CountingFiles(OsFiles):
    """The real files; counts what waits for the disk."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def sync(self, handle: int) -> None:
        """See Files."""
        self.counts["sync"] += 1
        super().sync(handle)

    def sync_directory(self, directory: Path) -> None:
        """See Files."""
        self.counts["sync_directory"] += 1
        super().sync_directory(directory)

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """See Files."""
        self.counts["write"] += 1
        super().write(handle, data, offset)


class CountingCost:
    """Stands for the agent's look at itself."""

    def __init__(self) -> None:
        self.looks = 0

    def cpu_nanoseconds(self) -> int:
        """See OwnCost."""
        return 1_000_000

    def memory_bytes(self) -> int:
        """See OwnCost."""
        self.looks += 1
        return 45_000_000

    def wakeups(self) -> int:
        """See OwnCost."""
        return 7


@dataclass
class Agent:
    """One agent up to the stream: real sampler, meter and spool. lives: what would be sent."""

    host: Machine
    nvml: FakeNvml
    files: CountingFiles
    spool: Spool
    cost: CountingCost = field(default_factory=CountingCost)
    lives: list[pb.Live] = field(default_factory=list)
    appends: int = 0
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        host = self.host
        sources: list[Source] = [
            RaplSource(host.sys, host.proc, opener=host.opener, pread=host.pread, settle=host.settle),
            NvidiaSource(host.sys, patience_seconds=PATIENCE_SECONDS, nvml=self.nvml, opener=host.opener, pread=host.pread),
            CpuSource(host.proc, opener=host.opener, pread=host.pread),
        ]
        self.sources = [OpenSource(source, source.open()) for source in sources]
        self.sampler = Sampler(self.sources, self.spool, self, self.clock, CADENCE, own_cost=self.cost)

    def appended(self) -> None:
        """See Delivery."""
        self.appends += 1

    def live(self, live: pb.Live) -> None:
        """See Delivery."""
        self.lives.append(live)

    def tick(self, ticks: int) -> None:
        """Let seconds pass, each with energy on every counter."""
        for _ in range(ticks):
            self.clock.seconds += 1
            for index, zone in enumerate(ZONES):
                self.host.add_energy(zone, 150_000_000 + 1_234_567 * index)
            self.nvml.advance(1.0)
            self._pass_cpu_time()
            self.sampler.step()

    def _pass_cpu_time(self) -> None:
        path = self.host.proc / "stat"
        sums, _, rest = path.read_text().partition("\n")
        user, *others = map(int, sums.split()[1:])
        path.write_text(f"cpu  {' '.join(map(str, (user + 6400, *others)))}\n{rest}")

    def forget(self) -> None:
        """Begin to count here."""
        self.host.preads = self.host.opens = self.cost.looks = self.appends = 0
        self.nvml.calls.clear()
        self.files.counts.clear()
        self.lives.clear()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent after its first flush, at which files are made and channels registered."""
    files, clock = CountingFiles(), Clock()
    spool = Spool.open(
        tmp_path / "spool", machine_id="m", dmi_uuid="", opening=clock.instant(), new_epoch=lambda: b"e" * 16, files=files
    )
    agent = Agent(machine("xeon_two_sockets", tmp_path), eight_gpus(), files, spool)
    agent.tick(11)
    agent.forget()
    yield agent
    for source in agent.sources:
        source.source.close()
    spool.close()


def test_a_tick_reads_each_file_once_and_opens_none(agent: Agent) -> None:
    """Four energy counters, the sums of /proc/stat, and the head of /proc/meminfo: six system calls."""
    agent.tick(20)
    assert agent.host.preads == 20 * (COUNTERS + 2)
    assert agent.host.opens == 0


def test_a_tick_asks_each_gpu_three_questions(agent: Agent) -> None:
    """Energy, busy share and memory; what a GPU is was asked at the start, and eight more questions follow every 5 s."""
    agent.tick(20)
    every_tick = {
        "nvmlDeviceGetTotalEnergyConsumption": 20 * GPUS,
        "nvmlDeviceGetUtilizationRates": 20 * GPUS,
        "nvmlDeviceGetMemoryInfo": 20 * GPUS,
    }
    assert {call: agent.nvml.calls.pop(call) for call in every_tick} == every_tick
    assert sum(agent.nvml.calls.values()) == 20 // GAUGES_SECONDS * 8 * GPUS


def test_a_flush_is_one_write_and_one_fsync(agent: Agent) -> None:
    """Every ten seconds; the folder waits for the disk only when a segment is made."""
    agent.tick(100)
    assert agent.appends == 10
    assert agent.files.counts == {"write": 10, "sync": 10}


def test_a_live_message_is_made_every_other_tick(agent: Agent) -> None:
    """And the agent looks at itself no more often; 12 channels, 19 shares, 3 sources and 56 gauges take some 3 kB."""
    agent.tick(20)
    assert len(agent.lives) == agent.cost.looks == 10
    live = agent.lives[-1]
    assert (len(live.powers), len(live.utilizations), len(live.sources)) == (CHANNELS, 2 * GPUS + 3, 3)
    assert (live.agent_cpu_nanoseconds, live.agent_memory_bytes) == (1_000_000, 45_000_000)
    assert len(live.gauges) == 7 * GPUS
    assert pb.AgentMessage(live=live).ByteSize() <= 3100


def test_a_sample_takes_150_bytes_on_the_wire(agent: Agent) -> None:
    """Twelve values of 5 bytes, and a tenth of what a batch carries once: 19 shares with the names of their devices."""
    # Sums of months are long numbers; what is sent of them stays short.
    agent.clock.seconds += 90 * 86_400
    agent.nvml.advance(90 * 86_400.0)
    agent.tick(30)
    record = agent.spool.find(agent.spool.next_sequence - 1)
    assert record is not None
    payload = pb.Payload.FromString(record.payload)
    assert len(payload.columns) == CHANNELS
    assert [1 + len(column.energy_delta_microjoules) for column in payload.columns] == [10] * CHANNELS
    batch = pb.AgentMessage(batch=pb.Batch(first_sequence=2, last_sequence=2, checksum=2**32 - 1, payload=record.payload))
    assert batch.ByteSize() / 10 <= 150


_THREADS_AND_MODULES = """
import sys, threading
from pathlib import Path
from tests.agent.fake_nvml import eight_gpus
sys.modules["pynvml"] = eight_gpus()
from wattledger_agent import cli, runner
from wattledger_agent.config import AgentConfig
from wattledger_agent.inventory import Roots
root, state = Path(sys.argv[1]), sys.argv[2]
stopping = threading.Event()
class Looked(threading.Event):
    def wait(self, timeout=None):
        self.ticks = getattr(self, "ticks", 0) + 1
        if self.ticks > 3:
            stopping.set()
        names.update(thread.name for thread in threading.enumerate())
        return stopping.wait(timeout)
names = set()
runner.run(AgentConfig(state_dir=state), Roots(root / "sys", root / "proc"), Looked())
print(sorted(names))
print(sorted(sys.modules))
"""


def test_an_agent_has_four_threads_and_nothing_of_other_commands(tmp_path: Path) -> None:
    """Sampler, shipper, two for NVML, which may hang (one waits for the other), and the poller of gRPC's asyncio.

    Threads that gRPC's core makes come on top. The modules that are named here took three megabytes together.
    """
    host = machine("xeon_two_sockets", tmp_path)
    boot_id = host.proc / "sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    command = [sys.executable, "-c", _THREADS_AND_MODULES, str(host.root), str(tmp_path / "state")]
    root = Path(__file__).parents[2]
    output = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    threads, modules = (set(line.strip("[]").replace("'", "").split(", ")) for line in output.splitlines())
    assert {name for name in threads if "_poll_wrapper" not in name} == {
        "MainThread",
        "shipper",
        "source-nvidia",
        "read-nvidia",
    }
    assert len(threads) <= 5
    others = {f"wattledger_agent.{name}" for name in ("doctor", "once", "simulate", "curves", "estimates", "recording")}
    others |= {f"wattledger_agent.sources.{name}" for name in ("estimate", "fake", "replay")}
    assert not modules & (others | {"csv", "difflib", "email", "http", "importlib.metadata", "multiprocessing", "zoneinfo"})


_WITHOUT_GPUS = """
import sys
from pathlib import Path
from wattledger_agent.inventory import Roots, find_sources
from wattledger_agent.config import SourcesConfig
root = Path(sys.argv[1])
inventory = find_sources(SourcesConfig(), Roots(root / "sys", root / "proc", root / "dev"))
print([source.source.name for source in inventory.opened])
print([missing.reason + missing.remedy for missing in inventory.missing if missing.source == "nvidia"])
print(sorted(sys.modules))
"""


def test_a_host_without_gpus_carries_nothing_of_theirs(tmp_path: Path) -> None:
    """pynvml alone takes four megabytes, and it is not loaded where there is no library for it."""
    host = machine("xeon_two_sockets", tmp_path)
    command = [sys.executable, "-c", _WITHOUT_GPUS, str(host.root)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    opened, missing, modules = output.splitlines()
    assert opened == "['rapl', 'cpu']"
    with contextlib.suppress(OSError):
        ctypes.CDLL("libnvidia-ml.so.1")
        pytest.skip("NVIDIA's library is installed here")
    assert "there is no libnvidia-ml.so.1" in missing
    assert "install its driver" in missing
    loaded = set(modules.strip("[]").replace("'", "").split(", "))
    assert {name for name in ("pynvml", "amdsmi", "csv", "http.client", "ssl", "asyncio", "grpc") if name in loaded} == set()


def test_a_tick_makes_no_spec_and_no_key(agent: Agent) -> None:
    """What a channel is was said when its source was opened; readings carry the keys that were made then."""
    made: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "__init__":
            made[type(frame.f_locals.get("self")).__name__] += 1

    agent.tick(1)
    sys.setprofile(watch)
    try:
        agent.tick(20)
    finally:
        sys.setprofile(None)
    assert made["CounterReading"] >= 20 * COUNTERS
    assert not made.keys() & {"ChannelKey", "ChannelSpec", "Rule", "Channel"}


def test_the_release_is_the_packages() -> None:
    """It is written down twice, for the package's metadata costs a running agent a megabyte."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__
