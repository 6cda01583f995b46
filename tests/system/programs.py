"""Real processes for tests: agent and collector as programs, and what they show over HTTP. Only ends what it started."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

AGENT = "wattledger_agent.cli"
COLLECTOR = "wattledger_collector.cli"

# What a busy machine may need to start a program, or to end one in good order.
PATIENCE_SECONDS = 30.0


class Program:
    """A command in a process of its own; what it says goes to a file. Ended by force at the end of a `with`.

    prefix: a command that runs it, such as a tracer; it has to leave the process its id.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path, *, prefix: Sequence[str] = ()) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def said(self) -> str:
        """All that it, and those that wrote to the same file before it, said so far."""
        return self.log.read_text()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        if self.is_running:
            self._process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; returns the exit status."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """As the kernel does when memory is short: no goodbye."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        started = children(self.pid) if self.is_running else []
        self.kill()
        # Where a test failed, what the program started is not left behind.
        for child in filter(is_alive, started):
            os.kill(child, signal.SIGKILL)


def run(module: str, *arguments: str, seconds: float = PATIENCE_SECONDS) -> tuple[int, str, str]:
    """Run a command to its end; returns exit status, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def get(url: str, seconds: float = 5.0) -> str | None:
    """What is at this address; None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return bytes(answer.read()).decode()
    except (OSError, urllib.error.URLError):
        return None


def metric(text: str, family: str, labels: Mapping[str, str] | None = None) -> float | None:
    """Sum of a family's series that have these labels; None if there are none."""
    wanted = [f'{name}="{value}"' for name, value in (labels or {}).items()]
    values = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.partition("{")[0].partition(" ")[0] == family and all(label in line for label in wanted)
    ]
    return sum(values) if values else None


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait in real time; returns the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"waited in vain for {what}"
        time.sleep(0.02)
    return time.monotonic() - begun


def is_alive(pid: int) -> bool:
    """Whether a process is there that has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if parent == str(pid):
                found.append(int(entry))
    return found
