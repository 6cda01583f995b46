"""On a machine with an NVIDIA GPU: counter against power under a load step, MIG, processes, cost, and a recording.

Skipped elsewhere. `WATTLEDGER_HARDWARE_OUT=DIR` keeps the recording and the figures there.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from wattledger_agent.readings import (
    CounterReading,
    Method,
    PowerReading,
    ProcessShares,
    Reading,
    Role,
    SourceUnavailableError,
)
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.nvml import load_nvml
from wattledger_agent.sources.nvml_recorded import RecordedNvml
from wattledger_agent.sources.nvml_recording import record_again, record_nvml, scrub

IDLE_SECONDS, LOAD_SECONDS = 5, 15
# Published comparisons of the counter with integrated power agree within a few percent; a load step adds its edges.
DISAGREEMENT_RATIO_MAX = 0.10
READ_SECONDS_MAX = 0.25


@pytest.fixture
def source() -> Iterator[NvidiaSource]:
    """The host's GPUs; skips where there is none."""
    found = NvidiaSource(processes=True)
    try:
        found.open()
    except SourceUnavailableError as error:
        pytest.skip(f"no NVIDIA GPU: {error.reason}")
    yield found
    found.close()


def read(source: NvidiaSource) -> list[Reading]:
    """One read at the present."""
    return list(source.read(time.clock_gettime_ns(time.CLOCK_BOOTTIME)))


def uuid_of_first(source: NvidiaSource) -> str:
    """The first GPU that is metered by a counter; skips where none is."""
    for reading in read(source):
        if isinstance(reading, CounterReading) and reading.key.domain == "board":
            return reading.key.device.removeprefix("gpu/")
    pytest.skip("no GPU here has an energy counter of its own")


def start_load(uuid: str) -> subprocess.Popen[bytes]:
    """A process that works the GPU."""
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-m", "tests.hardware.gpu_load", uuid, str(LOAD_SECONDS)], cwd=root)


def keep(name: str, content: object) -> None:
    """Write a figure or recording where the operator wants them."""
    folder = os.environ.get("WATTLEDGER_HARDWARE_OUT")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text(json.dumps(content, indent=1) + "\n")


def test_the_counter_agrees_with_integrated_power_under_a_load_step(source: NvidiaSource) -> None:
    """Idle, then load: energy by the counter and by trapezoids over its power differ by a tenth at most."""
    uuid = uuid_of_first(source)
    nvml = load_nvml()
    handle = next(
        handle
        for handle in map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        if nvml.nvmlDeviceGetUUID(handle) in (uuid, uuid.encode())
    )
    load: subprocess.Popen[bytes] | None = None
    started = time.monotonic()
    points: list[tuple[float, int]] = []
    first = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    while (elapsed := time.monotonic() - started) < IDLE_SECONDS + LOAD_SECONDS:
        if load is None and elapsed > IDLE_SECONDS:
            load = start_load(uuid)
        points.append((elapsed, nvml.nvmlDeviceGetPowerUsage(handle)))
        time.sleep(0.05)
    counted_joules = (nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - first) / 1000
    assert load is not None
    load.wait(timeout=60)
    integrated_joules = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 / 1000 for a, b in pairwise(points))
    keep("counter.json", {"counted_joules": counted_joules, "integrated_joules": integrated_joules, "points": points})
    assert load.returncode == 0
    assert max(power for _, power in points) > 1.2 * min(power for _, power in points)
    assert counted_joules == pytest.approx(integrated_joules, rel=DISAGREEMENT_RATIO_MAX)


def test_the_process_that_works_the_gpu_has_its_work(source: NvidiaSource) -> None:
    """Its share is most of what the GPU did; without MIG."""
    uuid = uuid_of_first(source)
    load = start_load(uuid)
    seen: list[float] = []
    for _ in range(LOAD_SECONDS - 3):
        time.sleep(1.0)
        shares = [one.shares for one in read(source) if isinstance(one, ProcessShares) and one.device == f"gpu/{uuid}"]
        seen += [one.get(load.pid, 0.0) for one in shares]
    load.wait(timeout=60)
    keep("shares.json", seen)
    assert load.returncode == 0
    # In a PID namespace of its own the process has another number for the driver.
    if not any(seen):
        pytest.skip("the driver knows the process by another number: a PID namespace")
    assert max(seen) > 0.5


def test_every_channel_is_read_and_a_read_is_short(source: NvidiaSource) -> None:
    """Also under MIG: each leaf has a value, no instance has one, and a read costs milliseconds."""
    leaves = [spec for spec in source.open() if spec.role is Role.LEAF]
    read(source)
    durations, cpus = [], []
    for _ in range(20):
        started, cpu = time.perf_counter(), time.process_time()
        readings = read(source)
        durations.append(time.perf_counter() - started)
        cpus.append(time.process_time() - cpu)
        values = {one.key: one for one in readings if isinstance(one, CounterReading | PowerReading)}
        assert all(spec.key in values for spec in leaves)
        assert all(isinstance(values[s.key], CounterReading) == (s.method is Method.COUNTER) for s in leaves)
        assert not [key for key in values if "MIG" in key.device]
    keep("cost.json", {"read_seconds": durations, "cpu_seconds": cpus, "gpus": len(leaves), "notes": source.notes()})
    assert sorted(durations)[10] < READ_SECONDS_MAX


def test_a_recording_of_this_machine_plays(source: NvidiaSource) -> None:
    """It is scrubbed, and offers what the machine does."""
    nvml = load_nvml()
    recording = record_nvml(nvml)
    for second in (1.0, 2.0):
        time.sleep(1.0)
        record_again(recording, nvml, second)
    replaced = scrub(recording)
    keep("nvml.json", recording)
    assert not [secret for secret in replaced if secret in json.dumps(recording)]
    played = NvidiaSource(Path("/nonexistent"), nvml=RecordedNvml(recording))
    mine = [(spec.key.domain, spec.method) for spec in source.open() if spec.key.domain != "module"]
    assert [(spec.key.domain, spec.method) for spec in played.open() if spec.key.domain != "module"] == mine
    played.close()
