"""Two other programs that read energy on servers, on the same machine folder as the agent: node_exporter and codecarbon.

Judges neither: says what a tick of each costs, and what it read. node_exporter is Debian's `prometheus-node-exporter`;
codecarbon comes from PyPI into an environment of its own in the user's cache folder, never into the product's.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.acknowledger import ROOT
from tests.bench.machines import MovingMachine
from tests.bench.processes import look, memory_megabytes

CODECARBON = "codecarbon==3.3.2"
INSTALL_SECONDS_MAX = 300.0
START_SECONDS_MAX = 60.0
WARM_UP_TICKS = 30

# What an agent reads here beside GPUs and control groups, which it can't read.
COLLECTORS = ("rapl", "cpu", "meminfo")


class NotHereError(Exception):
    """A program can't be run on this machine; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A running program. tick: lets it read everything once."""

    pid: int
    tick: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program costs. cpu_microseconds: a tick, of all its threads. pss_megabytes: of its processes."""

    cpu_microseconds: float
    pss_megabytes: float


def cost_of(neighbour: Neighbour, machine: MovingMachine, ticks: int) -> Cost:
    """Let it tick, with a second of the machine's time before each."""
    for _ in range(WARM_UP_TICKS):
        machine.advance(1.0)
        neighbour.tick()
    before = look(neighbour.pid)
    for _ in range(ticks):
        machine.advance(1.0)
        neighbour.tick()
    spent = look(neighbour.pid).since(before)
    return Cost(spent.cpu_microseconds / ticks, memory_megabytes(neighbour.pid, "Pss"))


@contextmanager
def node_exporter(machine: MovingMachine) -> Iterator[Neighbour]:
    """One scrape is a tick. Raises NotHereError."""
    program = shutil.which("prometheus-node-exporter")
    if program is None:
        raise NotHereError("node_exporter is not installed: apt install prometheus-node-exporter")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--collector.disable-defaults", *(f"--collector.{name}" for name in COLLECTORS)]
    command += [f"--path.sysfs={machine.sys}", f"--path.procfs={machine.proc}", "--web.disable-exporter-metrics"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS_MAX)
    try:
        _wait_for(process, port)

        def scrape() -> bytes:
            # Not compressed, though Prometheus asks for that: it would cost more than the reads.
            connection.request("GET", "/metrics")
            return connection.getresponse().read()

        told = scrape().decode()
        missing = [name for name in COLLECTORS if f'node_scrape_collector_success{{collector="{name}"}} 1' not in told]
        if missing or "node_rapl_package_joules_total" not in told:
            raise NotHereError(f"node_exporter can't read {', '.join(missing) or 'RAPL'} of the machine folder")
        yield Neighbour(process.pid, lambda: _expect(bool(scrape()), "node_exporter answers nothing"))
    finally:
        connection.close()
        process.terminate()
        process.wait()


@contextmanager
def codecarbon(machine: MovingMachine, folder: Path) -> Iterator[Neighbour]:
    """One measurement of its tracker is a tick. folder: for files that it writes. Raises NotHereError."""
    folder.mkdir()
    python = _codecarbon_python()
    paths = os.pathsep.join(map(str, (Path(__file__).parent / "driver", ROOT, ROOT / "agent")))
    command = [str(python), str(Path(__file__).parent / "codecarbon_loop.py"), str(machine.sys), str(machine.proc)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths, "HOME": str(folder)},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout

    def measure() -> str:
        asked.write("1\n")
        asked.flush()
        return answers.readline()

    try:
        if answers.readline() != "ready\n":
            raise NotHereError("codecarbon does not start on the machine folder")
        machine.advance(1.0)
        found = json.loads(measure() or "{}")
        if not found.get("cpu") or not found.get("gpu"):
            raise NotHereError(f"codecarbon read {found} of the machine folder")
        yield Neighbour(process.pid, lambda: _expect(bool(measure()), "codecarbon has ended"))
    finally:
        with contextlib.suppress(OSError):
            asked.close()
        process.terminate()
        process.wait()


def _codecarbon_python() -> Path:
    """The Python of an environment with codecarbon, made if there is none yet. Raises NotHereError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wattledger-bench"
    folder = cache / f"{CODECARBON.replace('==', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    # Written last: an environment that was half made is made again.
    done = folder / "complete"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", CODECARBON]
    for command in ([sys.executable, "-m", "venv", str(folder)], pip):
        try:
            subprocess.run(command, check=True, stdout=sys.stderr, timeout=INSTALL_SECONDS_MAX)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotHereError(f"{CODECARBON} can't be installed into {folder}: {error}") from error
    done.touch()
    return python


def _wait_for(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise NotHereError(f"node_exporter does not listen on port {port}; it ended with {process.poll()}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"neighbours: {otherwise}")
