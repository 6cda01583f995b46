"""A recorded machine: a folder that stands for a host, with time that passes when it is told to.

Reads nothing of the host that it runs on: no sensor, library, program or controller of it, and no link that leads out of the
folder. Decides nothing about energy. Source of truth for the format: the section on recordings in the agent's README.
"""

import base64
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from wattledger_agent.commands import Answer, CommandError, CommandTimeoutError, RecordedCommand, RecordedRunner
from wattledger_agent.config import AgentConfig, ConfigError, SourcesConfig, parse_config
from wattledger_agent.counters import Instant
from wattledger_agent.inventory import Played, Roots
from wattledger_agent.readings import NANOSECONDS_PER_SECOND
from wattledger_agent.slow import Pace
from wattledger_agent.sources.nvml import LIBRARY_NOT_FOUND
from wattledger_agent.sources.nvml_recorded import VERSION, RecordedNvml, RecordingError

CONFIG, COMMANDS, NVML, SAMPLES, REDFISH, KUBELET = (
    "agent.toml",
    "commands.json",
    "nvml.json",
    "samples.jsonl",
    "redfish",
    "kubelet/pods.json",
)

# What a recording of an hour of a large server has, several times over.
FILES_MAX = 200_000
SAMPLE_LINES_MAX = 1_000_000

# The one boot that a recording is of; real ids name a machine and are not recorded.
BOOT_ID_TEXT = "00000000-0000-4000-8000-000000000001"
BOOT_ID = bytes.fromhex(BOOT_ID_TEXT.replace("-", ""))

# Recorded time begins here: a while after boot, and at a time of the wall clock that nobody takes for a real one.
BOOTTIME_NANOSECONDS = 1000 * NANOSECONDS_PER_SECOND
REALTIME_NANOSECONDS = 946_684_800 * NANOSECONDS_PER_SECOND


class MachineError(Exception):
    """A folder can't be played; the text says what is wrong, where, and what to do."""


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What changed at one moment. seconds: since the recording began.

    files: new content by path in the folder: text, `{"base64": ...}` for what is no text, null for a file that is gone.
    commands: the answers from now on. resources: Redfish resources by path; null for one that is gone.
    """

    seconds: float
    files: dict[str, str | dict[str, str] | None] = {}
    commands: list[RecordedCommand] = []
    resources: dict[str, Any] = {}


@dataclass(slots=True)
class _Poll:
    """A poller that is driven by recorded time."""

    step: Callable[[], float]
    due_nanoseconds: int


class RecordedTime:
    """Time that passes when it is told to, in one thread: pollers are driven by it, and `at` is called at each moment.

    now_nanoseconds: CLOCK_BOOTTIME of the recorded machine.
    """

    def __init__(self) -> None:
        self.now_nanoseconds = BOOTTIME_NANOSECONDS
        self._polls: list[_Poll] = []

    @property
    def pace(self) -> Pace:
        """What drives pollers."""
        return Pace(self._start, lambda: self.now_nanoseconds)

    def next_due(self) -> int | None:
        """When the next poll is due; None if nothing polls."""
        return min((poll.due_nanoseconds for poll in self._polls), default=None)

    def run_due(self) -> None:
        """Poll what is due now."""
        for poll in list(self._polls):
            if poll in self._polls and poll.due_nanoseconds <= self.now_nanoseconds:
                self._run(poll)

    def _start(self, step: Callable[[], float], farewell: Callable[[], None], name: str) -> Callable[[], None]:
        poll = _Poll(step, self.now_nanoseconds)
        self._polls.append(poll)
        self._run(poll)

        def stop() -> None:
            if poll in self._polls:
                self._polls.remove(poll)
                farewell()

        return stop

    def _run(self, poll: _Poll) -> None:
        pause_seconds = poll.step()
        # A pause of nothing would never let time pass.
        poll.due_nanoseconds = self.now_nanoseconds + max(1_000_000, round(pause_seconds * NANOSECONDS_PER_SECOND))


class TimedRunner:
    """Plays a machine's commands: those of commands.json in their order, and from a sample on what that sample says."""

    def __init__(self, first: RecordedRunner) -> None:
        self._first = first
        self._newer: dict[tuple[str, ...], RecordedCommand] = {}

    def __call__(self, argv: Sequence[str], seconds_max: float) -> Answer:
        """Play a command's answer; see Runner."""
        newer = self._newer.get(tuple(argv))
        if newer is None:
            return self._first(argv, seconds_max)
        if newer.seconds > seconds_max:
            raise CommandTimeoutError(f"`{' '.join(argv)}` has not ended within {seconds_max:.0f} s and was killed")
        return Answer(newer.exit_status, newer.stdout, newer.stderr)

    def change(self, commands: Sequence[RecordedCommand]) -> None:
        """Answer so from now on."""
        for command in commands:
            if not command.argv:
                raise CommandError("a recorded command has no program")
            self._newer[tuple(command.argv)] = command


@dataclass(slots=True)
class RecordedMachine:
    """A machine that is played from a working copy of its folder.

    config: defaults, with what the folder's agent.toml says of sources. seconds: recorded time since the beginning.
    on_advance: called with the seconds of each step of time, before anything is polled; for who moves counters himself.
    """

    root: Path
    config: AgentConfig
    roots: Roots
    samples: Sequence[Sample]
    time: RecordedTime
    nvml: RecordedNvml
    commands: TimedRunner
    seconds: float = 0.0
    on_advance: Callable[[float], None] = field(default=lambda seconds: None)
    _next_sample: int = 0

    @property
    def recorded_seconds(self) -> float:
        """How long the recording is; 0 if it is of a single moment."""
        return max((sample.seconds for sample in self.samples), default=self.nvml.recorded_seconds)

    def instant(self) -> Instant:
        """Now, on the machine's clocks."""
        now = self.time.now_nanoseconds
        return Instant(BOOT_ID, now, REALTIME_NANOSECONDS + now, True, 0)

    def advance(self, seconds: float) -> None:
        """Let time pass: files and answers change as recorded, and what polls polls, each at its moment."""
        time = self.time
        end = time.now_nanoseconds + round(seconds * NANOSECONDS_PER_SECOND)
        while time.now_nanoseconds < end:
            due = time.next_due()
            sample = self._sample_nanoseconds()
            moments = [moment for moment in (due, sample) if moment is not None]
            moment = min([end, *(max(moment, time.now_nanoseconds) for moment in moments)])
            passed = (moment - time.now_nanoseconds) / NANOSECONDS_PER_SECOND
            time.now_nanoseconds = moment
            self.seconds = (moment - BOOTTIME_NANOSECONDS) / NANOSECONDS_PER_SECOND
            if passed > 0:
                self.nvml.advance(passed)
                self.on_advance(passed)
            self.apply_samples()
            time.run_due()

    def apply_samples(self) -> None:
        """Let what was recorded up to now be so."""
        while self._next_sample < len(self.samples) and self.samples[self._next_sample].seconds <= self.seconds:
            sample = self.samples[self._next_sample]
            self._next_sample += 1
            for name, content in sample.files.items():
                write_file(self.root, name, content)
            self.commands.change(sample.commands)
            for name, resource in sample.resources.items():
                text = None if resource is None else msgspec.json.encode(resource).decode()
                write_file(self.root, resource_place(name), text)

    def _sample_nanoseconds(self) -> int | None:
        if self._next_sample >= len(self.samples):
            return None
        return BOOTTIME_NANOSECONDS + round(self.samples[self._next_sample].seconds * NANOSECONDS_PER_SECOND)


def open_machine(
    folder: Path, workspace: Path, *, make_nvml: Callable[[Any], RecordedNvml] = RecordedNvml
) -> RecordedMachine:
    """Make a machine of a folder, in a working copy (`workspace`, empty or not there). Raises MachineError.

    make_nvml: makes what stands for NVML of the content of nvml.json.
    """
    if not folder.is_dir():
        raise MachineError(f"{folder} is no folder. Name one that `wattledger-agent record` has written.")
    if not (folder / "sys").is_dir() and not (folder / "proc").is_dir():
        raise MachineError(f"{folder} has neither sys/ nor proc/: it is no recording. Name one that `record` has written.")
    _check_tree(folder)
    try:
        shutil.copytree(folder, workspace, symlinks=True, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise MachineError(
            f"{folder} can't be copied to {workspace}: {error}. Make room, or name another folder."
        ) from error
    _fill(workspace)
    time = RecordedTime()
    commands, nvml, config = _commands(folder), _nvml(folder, make_nvml), _config(folder, workspace)
    played = Played(pace=time.pace, kubelet=workspace / KUBELET)
    roots = Roots(workspace / "sys", workspace / "proc", workspace / "dev", commands, nvml, workspace / REDFISH, played)
    machine = RecordedMachine(workspace, config, roots, _samples(folder / SAMPLES), time, nvml, commands)
    played.settle = machine.advance
    machine.apply_samples()
    return machine


def write_file(root: Path, name: str, content: str | Mapping[str, str] | None) -> None:
    """Write one file of a machine, in place, so that open files stay those of the sensor. Raises MachineError."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise MachineError(f"samples.jsonl: `{name}` leads out of the folder. Record the machine again.")
    try:
        if content is None:
            _remove(path, root)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else base64.b64decode(content["base64"], validate=True)
        path.write_bytes(data)
    except (OSError, KeyError, ValueError) as error:
        raise MachineError(f"samples.jsonl: `{name}` can't be written: {error}. Record the machine again.") from error


def resource_place(path: str) -> str:
    """Where a Redfish resource (`/redfish/v1/Chassis/1`) lies in a machine's folder."""
    return f"{REDFISH}/{path.strip('/').removeprefix('redfish/')}.json"


def _remove(path: Path, root: Path) -> None:
    """Take a file away, and the folders that are empty then: a control group goes with its last file."""
    path.unlink(missing_ok=True)
    for folder in path.parents if path.parent.is_dir() else ():
        if folder in (root, root / "sys", root / "proc") or any(folder.iterdir()):
            return
        folder.rmdir()


def _check_tree(folder: Path) -> None:
    """Refuse what would read the host that plays, and what is too large to be a recording."""
    root = folder.resolve()
    for count, path in enumerate(folder.rglob("*")):
        if count >= FILES_MAX:
            raise MachineError(f"{folder} has more than {FILES_MAX} files: it is no recording. Name another folder.")
        if path.is_symlink() and (path.readlink().is_absolute() or not path.resolve().is_relative_to(root)):
            raise MachineError(f"{path} leads out of the folder, to {path.readlink()}. Remove that link.")
        if not path.is_symlink() and not path.is_dir() and not path.is_file():
            raise MachineError(f"{path} is neither file nor folder. Remove it.")


def _fill(workspace: Path) -> None:
    """Make what every machine has and a recording need not hold."""
    for name in ("sys", "proc", "dev"):
        (workspace / name).mkdir(exist_ok=True)
    boot_id = workspace / "proc/sys/kernel/random/boot_id"
    if not boot_id.exists():
        boot_id.parent.mkdir(parents=True, exist_ok=True)
        boot_id.write_text(f"{BOOT_ID_TEXT}\n")


def _config(folder: Path, workspace: Path) -> AgentConfig:
    path = folder / CONFIG
    try:
        config = parse_config(path.read_text() if path.exists() else "", origin=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{path} can't be read: {error}. Save it as UTF-8 text.") from error
    except ConfigError as error:
        raise MachineError(str(error)) from error
    return msgspec.structs.replace(config, sources=_at_home(config.sources, path, workspace))


def _at_home(sources: SourcesConfig, origin: Path, workspace: Path) -> SourcesConfig:
    """Paths of the recorded machine, where they lie in its folder."""
    if sources.fake is not None or sources.replay is not None:
        raise MachineError(f"{origin}: a recorded machine has no `fake` and no `replay`. Remove their tables.")
    shared = sources.rapl.shared_root
    if not shared:
        return sources
    place = workspace / shared.lstrip("/")
    if not place.resolve().is_relative_to(workspace.resolve()):
        raise MachineError(f"{origin}: `shared_root` {shared} leads out of the folder. Mend it.")
    return msgspec.structs.replace(sources, rapl=msgspec.structs.replace(sources.rapl, shared_root=str(place)))


def _commands(folder: Path) -> TimedRunner:
    try:
        return TimedRunner(RecordedRunner.from_file(folder / COMMANDS))
    except (OSError, ValueError) as error:
        raise MachineError(f"{error}.") from error


def _nvml(folder: Path, make_nvml: Callable[[Any], RecordedNvml]) -> RecordedNvml:
    path = folder / NVML
    if not path.exists():
        # Never this host's own library.
        return make_nvml({"version": VERSION, "system": {"nvmlInit": {"error": LIBRARY_NOT_FOUND}}, "gpus": []})
    try:
        return make_nvml(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except (OSError, msgspec.DecodeError, RecordingError) as error:
        raise MachineError(f"{path} can't be played: {str(error).rstrip('.')}. Record the machine again.") from error


def _samples(path: Path) -> list[Sample]:
    samples: list[Sample] = []
    if not path.exists():
        return samples
    decoder = msgspec.json.Decoder(Sample)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number > SAMPLE_LINES_MAX:
                    raise MachineError(f"{path} has more than {SAMPLE_LINES_MAX} lines. Cut it.")
                sample = decoder.decode(line)
                if samples and sample.seconds < samples[-1].seconds:
                    raise MachineError(f"{path}, line {number}: {sample.seconds} s comes after later ones. Sort the lines.")
                samples.append(sample)
    except OSError as error:
        raise MachineError(f"{path} can't be read: {error.strerror}. Let this user read it.") from error
    except msgspec.DecodeError as error:
        raise MachineError(f"{path}, line {len(samples) + 1}: {error}. Record the machine again.") from error
    return samples
