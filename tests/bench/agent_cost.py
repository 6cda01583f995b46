"""What the agent costs its host: 2 sockets, 8 GPUs behind a simulated NVML, 300 control groups; spool and stream included.

CPU is measured back to back in this process, with one simulated second a tick, and at its real pace in a real
`wattledger-agent run`, as are wake-ups, memory and system calls. Beside it, on the same folder and in the same run, stand
node_exporter and codecarbon, as far as they read the same. What a real driver takes for NVML's calls is not in any figure,
nor what the kernel takes to sum up a control group. PSS counts in part what is shared with other processes: where the agent
is the only Python program of its server, it rises to the RSS.

    python -m tests.bench.agent_cost [--small]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.acknowledger import ROOT, Acknowledger
from tests.bench.back_to_back import (
    CADENCE,
    GROUPS,
    WAIT_SECONDS_MAX,
    BackToBack,
    naive_microseconds_per_tick,
    simulated_microseconds_per_call,
)
from tests.bench.machines import MovingMachine
from tests.bench.neighbours import Neighbour, NotHereError, codecarbon, cost_of, node_exporter
from tests.bench.output import missing, report
from tests.bench.processes import SystemCallsError, look, memory_megabytes, start_sleeper, system_calls, threads

WARM_UP_TICKS = 50
SYSTEM_CALL_TICKS = 10

AGENT_TOML = """
host = "measured"
state_dir = "{state}"
[collector]
address = "127.0.0.1:{port}"
"""

# What each of the other two programs reads of the folder.
NODE_EXPORTER = "node_exporter, a scrape: RAPL, times of each CPU, memory; no GPUs, no control groups"
CODECARBON = "codecarbon, a measurement: RAPL, energy of the GPUs, memory in use; no control groups; kept nowhere"


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


def measure_back_to_back(folder: Path, ticks: int) -> dict[str, float]:
    """Print CPU a tick and bytes a sample; returns the CPU of each part of the reads, in microseconds a tick."""
    compared = "the sensors alone, read naively: files opened anew, psutil"
    found: dict[str, float] = {}
    for name, gpus, workloads in (
        ("_without_gpus", False, False),
        ("", True, False),
        (f"_with_{GROUPS}_workloads", True, True),
    ):
        agent = BackToBack(folder / f"back{name}", with_gpus=gpus, with_workloads=workloads)
        agent.cpu_microseconds_per_tick(WARM_UP_TICKS)
        agent.nvml.calls.clear()
        own = found[name] = agent.cpu_microseconds_per_tick(ticks)
        calls = sum(agent.nvml.calls.values()) / ticks
        naive = naive_microseconds_per_tick(agent.machine, agent.nvml, max(ticks // 4, 1), with_workloads=workloads)
        simulated = simulated_microseconds_per_call(agent.nvml, ticks)
        received = agent.stop()
        if gpus:
            report(f"agent_cpu_microseconds_per_tick{name}", own, "us", naive, compared)
            value, bare = received["batch_bytes"] / received["samples"], 8 * received["values"] / received["samples"]
            report(f"agent_wire_bytes_per_sample{name}", value, "B", bare, "8 bytes a value")
    report("simulated_nvml_microseconds_per_tick", calls * simulated, "us", own, "the agent's tick, which they are part of")
    return found


def measure_neighbours(folder: Path, ticks: int, own: dict[str, float], own_megabytes: float) -> None:
    """Print what a tick and the memory of the other two programs are to the agent's."""
    machine = MovingMachine(folder / "neighbours", GROUPS)
    neighbours = (
        ("node_exporter", node_exporter(machine), NODE_EXPORTER, "_without_gpus"),
        ("codecarbon", codecarbon(machine, folder / "codecarbon"), CODECARBON, ""),
    )
    for name, running, compared, same_reads in neighbours:
        try:
            with running as neighbour:
                cost = cost_of(neighbour, machine, ticks)
                calls = _calls_per_tick(neighbour, machine)
        except NotHereError as error:
            missing(f"agent_beside_{name}", str(error))
            continue
        cpu_name = "agent_cpu_microseconds_per_tick"
        report(f"{cpu_name}_same_reads_as_{name}", own[same_reads], "us", cost.cpu_microseconds, compared)
        everything = own[f"_with_{GROUPS}_workloads"]
        report(f"{cpu_name}_all_reads_beside_{name}", everything, "us", cost.cpu_microseconds, compared)
        report(f"agent_memory_pss_megabytes_beside_{name}", own_megabytes, "MB", cost.pss_megabytes, compared)
        if calls is not None:
            report(f"{name}_system_calls_per_tick", calls, "calls", GROUPS, "one a control group, which it does not read")
    machine.close()


def measure_at_pace(folder: Path, seconds: float, warm_up_seconds: float) -> float:
    """Print wake-ups, memory and CPU of a real process; returns its PSS in megabytes."""
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
            pss_megabytes = memory_megabytes(pid, "Pss")
            wakeups, floor = own.switches / own.at_seconds, max(bare.switches, 1) / bare.at_seconds
            report("agent_wakeups_per_second", wakeups, "1/s", floor, compared)
            ticks = own.at_seconds / CADENCE.period_seconds
            value, floor = own.cpu_microseconds / ticks, max(bare.cpu_microseconds, 1.0) / ticks
            report("agent_cpu_at_pace_microseconds_per_tick", value, "us", floor, compared)
            report("agent_threads", threads(pid), "threads", threads(sleeper.pid), compared)
        finally:
            sleeper.terminate()
            sleeper.wait()
        # Last, for a process that is traced is slow.
        _report_system_calls(pid)
    return pss_megabytes


def _report_system_calls(pid: int) -> None:
    try:
        calls = system_calls(pid, lambda: time.sleep(SYSTEM_CALL_TICKS * CADENCE.period_seconds))
    except SystemCallsError as error:
        missing("agent_system_calls_per_tick", str(error))
        return
    report("agent_system_calls_per_tick", calls / SYSTEM_CALL_TICKS, "calls", GROUPS, "one a control group")


def _calls_per_tick(neighbour: Neighbour, machine: MovingMachine) -> float | None:
    def tick() -> None:
        for _ in range(SYSTEM_CALL_TICKS):
            machine.advance(CADENCE.period_seconds)
            neighbour.tick()

    try:
        return system_calls(neighbour.pid, tick) / SYSTEM_CALL_TICKS
    except SystemCallsError:
        return None


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a short run that shows that all works")
    small = parser.parse_args().small
    ticks = 300 if small else 2000
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pace").mkdir()
        own = measure_back_to_back(Path(folder), ticks)
        # Whole flushes, which are every ten seconds.
        pss_megabytes = measure_at_pace(Path(folder) / "pace", 10.0 if small else 60.0, 12.0 if small else 30.0)
        measure_neighbours(Path(folder), ticks, own, pss_megabytes)


if __name__ == "__main__":
    main()
