"""Runs a vendor's command with a deadline, and plays recorded answers in its place.

Understands no answer: the source that gives the command parses what comes back. Source of truth for the recorded form:
tests/README.md, `commands.json`.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec

# The longest answers known (a table of 16 accelerators, a BMC's whole sensor list) have some 20 kB.
OUTPUT_BYTES_MAX = 256 * 1024

# A process that is killed ends at once, unless it waits for a device in the kernel, which nothing can end.
REAP_SECONDS_MAX = 0.5

READ_BYTES = 65_536

# Daemons often have no sbin in their path, and that is where the management tools are.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What vendors' commands need of the agent's environment: libraries outside the system's folders, and where to log.
PASSED_ON = ("HOME", "LD_LIBRARY_PATH", "HABANA_LOGS")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command answered. exit_status: 0 to 255, or minus the number of the signal that ended it."""

    exit_status: int
    stdout: str
    stderr: str


class CommandError(Exception):
    """A command gave no answer; the text says which, why, and what to do. It is one sentence without a full stop."""


class CommandMissingError(CommandError):
    """The program is not installed."""


class CommandTimeoutError(CommandError):
    """The program did not end in time, and was killed; or one that was killed before still hangs in the kernel."""


class Runner(Protocol):
    """The one way in which a source runs a command."""

    def __call__(self, argv: Sequence[str], seconds_max: float) -> Answer:
        """Run argv[0] with its arguments, without a shell, and wait at most seconds_max. Raises CommandError."""


class SystemRunner:
    """Runs the programs of this host, each one at a time, whichever source asks.

    A program whose last process can't be killed, because it waits for a device in the kernel, is not started again before
    that process has ended: a hung management controller costs one process, not one at each poll. Sources are closed and
    opened anew, so that this is known to the whole agent and not to one runner.

    search_path: where programs are looked for first; empty: as for the agent. kill: sends a signal to a process group.
    """

    # By program: its process that could not be killed; None while it runs.
    _busy: ClassVar[dict[str, "subprocess.Popen[bytes] | None"]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, search_path: str = "", *, kill: Callable[[int, int], None] = os.killpg) -> None:
        self._environment = {
            "LC_ALL": "C",
            "PATH": search_path or f"{os.environ.get('PATH', '')}:{SEARCH_PATH}".strip(":"),
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        }
        self._kill = kill

    def __call__(self, argv: Sequence[str], seconds_max: float) -> Answer:
        """Run a command; see Runner."""
        self._claim(argv[0])
        try:
            return self._run(argv, seconds_max)
        finally:
            with self._lock:
                if self._busy[argv[0]] is None:
                    del self._busy[argv[0]]

    def _run(self, argv: Sequence[str], seconds_max: float) -> Answer:
        deadline = time.monotonic() + seconds_max
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd="/",
                # Its own group, so that what it starts is killed with it.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise CommandMissingError(f"{argv[0]} is not installed (searched {self._environment['PATH']})") from error
        except OSError as error:
            raise CommandError(f"{argv[0]} can't be started: {error.strerror}; let the agent's user run it") from error
        try:
            stdout, stderr = _collect(process, argv, deadline)
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise CommandTimeoutError(f"{_line(argv)} has not ended within {seconds_max:.0f} s and was killed") from None
        finally:
            self._end(argv[0], process)
        return Answer(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    def _claim(self, program: str) -> None:
        with self._lock:
            process = self._busy.get(program)
            if process is not None and process.poll() is None:
                raise CommandTimeoutError(
                    f"{program} (process {process.pid}) was killed but still hangs in the kernel, so it is not run again: "
                    "its driver or device does not answer (see dmesg); reset the device, or boot the host anew"
                )
            if process is None and program in self._busy:
                raise CommandTimeoutError(f"{program} still runs from the attempt before; it is killed at its deadline")
            self._busy[program] = None

    def _end(self, program: str, process: subprocess.Popen[bytes]) -> None:
        """Leave nothing of it behind: kill its group if it has not ended by itself, and reap it."""
        if process.returncode is None:
            # Not reaped yet, so the number of its group is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._kill(process.pid, signal.SIGKILL)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(REAP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            with self._lock:
                self._busy[program] = process


class RecordedCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One recorded answer. seconds: how long the command took; one longer than its deadline has timed out."""

    argv: list[str]
    exit_status: int = 0
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


class RecordedRunner:
    """Plays the answers of a recording, without waiting.

    Several answers to one command are played in their order, and the last one is repeated. A program that is nowhere in the
    recording was not installed. calls: the commands asked for so far.
    """

    def __init__(self, commands: Sequence[RecordedCommand]) -> None:
        self._answers: dict[tuple[str, ...], list[RecordedCommand]] = {}
        for command in commands:
            self._answers.setdefault(tuple(command.argv), []).append(command)
        self._programs = {command.argv[0] for command in commands if command.argv}
        self.calls: list[tuple[str, ...]] = []

    @classmethod
    def from_file(cls, path: Path) -> "RecordedRunner":
        """Read `commands.json`; where there is none, nothing was installed. Raises ValueError with the place."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return cls(())
        try:
            return cls(msgspec.json.decode(text, type=list[RecordedCommand]))
        except msgspec.DecodeError as error:
            raise ValueError(f"{path} is no list of recorded commands: {error}; record it anew") from error

    def __call__(self, argv: Sequence[str], seconds_max: float) -> Answer:
        """Play a command's next answer; see Runner."""
        key = tuple(argv)
        self.calls.append(key)
        answers = self._answers.get(key)
        if not answers:
            if argv[0] in self._programs:
                raise CommandError(f"{_line(argv)} is not in the recording; record it with this version")
            raise CommandMissingError(f"{argv[0]} was not installed on the recorded machine")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.seconds > seconds_max:
            raise CommandTimeoutError(f"{_line(argv)} has not ended within {seconds_max:.0f} s and was killed")
        return Answer(answer.exit_status, answer.stdout, answer.stderr)


def _collect(process: subprocess.Popen[bytes], argv: Sequence[str], deadline: float) -> tuple[bytes, bytes]:
    """Read both pipes until the process closes them. Raises TimeoutExpired, or CommandError where it never stops talking."""
    assert process.stdout is not None
    assert process.stderr is not None
    parts: dict[int, list[bytes]] = {process.stdout.fileno(): [], process.stderr.fileno(): []}
    size = 0
    with selectors.DefaultSelector() as selector:
        for descriptor in parts:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            ready = selector.select(remaining) if remaining > 0 else []
            if not ready:
                raise subprocess.TimeoutExpired(list(argv), 0)
            for key, _ in ready:
                part = os.read(key.fd, READ_BYTES)
                parts[key.fd].append(part)
                size += len(part)
                if not part:
                    selector.unregister(key.fd)
            if size > OUTPUT_BYTES_MAX:
                raise CommandError(f"{_line(argv)} answered more than {OUTPUT_BYTES_MAX} bytes and was killed")
    return b"".join(parts[process.stdout.fileno()]), b"".join(parts[process.stderr.fileno()])


def _line(argv: Sequence[str]) -> str:
    return "`" + " ".join(argv) + "`"
