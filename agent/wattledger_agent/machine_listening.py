"""Listens to this host's sensors for a recording: files that change, answers of commands, controllers and NVML.

Keeps everything as it came, names included, in memory; writes nothing. Which files there are is recorded_files.py's.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wattledger_agent.commands import Answer, CommandTimeoutError, RecordedCommand, Runner, SystemRunner
from wattledger_agent.config import SourcesConfig
from wattledger_agent.inventory import Missing, Roots, try_open
from wattledger_agent.readings import Source
from wattledger_agent.recorded_files import Tree, take_groups
from wattledger_agent.sources import SOURCES
from wattledger_agent.sources.nvidia_pci import find_gpus
from wattledger_agent.sources.nvml import Nvml, load_nvml
from wattledger_agent.sources.nvml_recording import record_again, record_nvml

# Sources try counters when they are opened: whether an accumulator moves as power says, whether two dies mirror each other.
FIRST_SECONDS = 3.0
FIRST_PERIOD_SECONDS = 0.2

# What NVML needs at most for eight GPUs without persistence mode; then the rest is recorded without it.
NVML_SECONDS_MAX = 60.0


@dataclass(slots=True)
class Moment:
    """What changed at a moment; raw."""

    seconds: float
    files: dict[str, bytes | None]


@dataclass(slots=True)
class Take:
    """All that was recorded, before it is scrubbed. asked: commands with the time of each answer. resources: likewise."""

    asked: list[tuple[float, RecordedCommand]] = field(default_factory=list)
    resources: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    nvml: dict[str, Any] | None = None
    devices: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class AskingRunner:
    """Runs commands, and notes what they answered and when."""

    def __init__(self, run: Runner, take: Take, seconds: Callable[[], float]) -> None:
        self._run = run
        self._take = take
        self._seconds = seconds

    def __call__(self, argv: Sequence[str], seconds_max: float) -> Answer:
        """Run a command; see Runner."""
        began = self._seconds()
        try:
            answer = self._run(argv, seconds_max)
        except CommandTimeoutError:
            # Longer than any deadline: played, it times out again.
            self._note(began, RecordedCommand(list(argv), seconds=10 * seconds_max))
            raise
        took = round(self._seconds() - began, 3)
        self._note(began, RecordedCommand(list(argv), answer.exit_status, answer.stdout, answer.stderr, took))
        return answer

    def _note(self, seconds: float, command: RecordedCommand) -> None:
        self._take.asked.append((seconds, command))


class TappedFetch:
    """A session with a controller, of which each answer is noted."""

    def __init__(self, fetch: Any, take: Take, seconds: Callable[[], float]) -> None:
        self._fetch = fetch
        self._take = take
        self._seconds = seconds

    def begin(self, seconds_max: float) -> None:
        """See Fetch."""
        self._fetch.begin(seconds_max)

    def get(self, path: str) -> Mapping[str, Any]:
        """See Fetch."""
        resource: Mapping[str, Any] = self._fetch.get(path)
        self._take.resources.append((self._seconds(), path, resource))
        return resource

    def close(self) -> None:
        """See Fetch."""
        self._fetch.close()


class NvmlRecorder:
    """NVML's answers, taken in a thread: a GPU that hangs costs its own recording alone."""

    def __init__(self, roots: Roots, config: SourcesConfig, take: Take) -> None:
        self._roots = roots
        self._take = take
        self._is_wanted = config.nvidia.enabled and not self._sleeps()
        self._nvml: Nvml | None = roots.nvml

    def take(self, seconds: float) -> None:
        """Ask everything once; what changed since the first time becomes a series."""
        if not self._is_wanted:
            return
        outcome: list[str] = []
        thread = threading.Thread(target=lambda: outcome.append(self._ask(seconds)), name="record-nvml", daemon=True)
        thread.start()
        thread.join(NVML_SECONDS_MAX)
        if not outcome or outcome[0]:
            self._is_wanted = False
            self._take.notes.append(outcome[0] if outcome else "NVML did not answer; its GPUs are not in the recording.")

    def _sleeps(self) -> bool:
        """Whether a GPU sleeps, which recording would wake."""
        for address in find_gpus(self._roots.sysfs):
            status = self._roots.sysfs / "bus/pci/devices" / address / "power/runtime_status"
            with contextlib.suppress(OSError):
                if status.read_text().startswith("suspend"):
                    self._take.notes.append("A GPU sleeps, and NVML was not asked, so as not to wake it.")
                    return True
        return False

    def _ask(self, seconds: float) -> str:
        """Ask; returns why nothing came, or an empty text."""
        try:
            if self._take.nvml is None:
                self._nvml = load_nvml() if self._nvml is None else self._nvml
                self._nvml.nvmlInit()
                self._take.nvml = record_nvml(self._nvml)
            elif self._nvml is not None:
                record_again(self._take.nvml, self._nvml, round(seconds, 3))
        except Exception as error:
            # Whatever a binding raises, everything else is recorded.
            return "" if not find_gpus(self._roots.sysfs) else f"NVML was not recorded: {type(error).__name__}: {error}."
        return ""


def open_polled(config: SourcesConfig, roots: Roots, take: Take, seconds: Callable[[], float]) -> list[Source]:
    """Open what is asked by commands or over a network; each polls at its own cadence until it is closed."""

    def run() -> Runner:
        return AskingRunner(SystemRunner() if roots.commands is None else roots.commands, take, seconds)

    made: list[Source] = []
    for name, table in (("gaudi", config.gaudi), ("ascend", config.ascend)):
        if table.enabled:
            made.append(SOURCES[name](roots.sysfs, cadence_seconds=table.cadence_seconds, run=run(), **roots.pacing))
    if config.ipmi.enabled:
        made.append(SOURCES["ipmi"](roots.devices, cadence_seconds=config.ipmi.cadence_seconds, run=run(), **roots.pacing))
    if config.redfish.address:
        made.append(
            SOURCES["redfish"](
                config.redfish.address,
                user=config.redfish.user,
                password_file=config.redfish.password_file,
                ca_file=config.redfish.ca_file,
                insecure=config.redfish.insecure,
                recording=roots.redfish,
                sysfs_root=roots.sysfs,
                cadence_seconds=config.redfish.cadence_seconds,
                system=config.redfish.system,
                tap=lambda fetch: TappedFetch(fetch, take, seconds),
                **roots.pacing,
            )
        )
    opened = []
    for source in made:
        specs = try_open(source)
        if isinstance(specs, Missing):
            continue
        take.devices += [spec.key.device for spec in specs]
        opened.append(source)
    return opened


def watch(
    take: Take,
    trees: Mapping[str, Tree],
    nvml: NvmlRecorder,
    duration_seconds: float,
    period_seconds: float,
    sleep: Callable[[float], None],
    seconds: Callable[[], float],
) -> None:
    """Look again each period, more often at the beginning, and keep what changed."""
    last = {name: dict(tree.found.files) for name, tree in trees.items()}
    due = min(period_seconds, FIRST_PERIOD_SECONDS)
    while due <= duration_seconds + 1e-9:
        sleep(max(0.0, due - seconds()))
        now = round(seconds(), 3)
        take_groups(trees["sys"])
        changed: dict[str, bytes | None] = {}
        for name, tree in trees.items():
            fresh = tree.again()
            moving = {path for path in last[name] if path in fresh or not (tree.root / path).exists()}
            for path in sorted(moving | fresh.keys()):
                content = fresh.get(path)
                # What can't be read is an empty file, as when it was recorded first; what is gone is none.
                shown = None if path not in fresh else content or b""
                if path not in last[name] or (last[name][path] or b"") != shown:
                    changed[f"{name}/{path}"] = shown
                    last[name][path] = shown
        nvml.take(now)
        if changed:
            take.moments.append(Moment(now, changed))
        pause = min(period_seconds, FIRST_PERIOD_SECONDS) if now < FIRST_SECONDS - 0.01 else period_seconds
        due = max(due + pause, seconds())


def take_processes(procfs: Tree, nvml: Mapping[str, Any] | None) -> None:
    """The control groups of processes on GPUs."""
    for process in sorted({found for gpu in (nvml or {}).get("gpus", ()) for found in _processes(gpu)}):
        procfs.take(f"{process}/cgroup")


def _processes(answer: Any) -> Iterable[int]:
    if isinstance(answer, Mapping):
        if isinstance(answer.get("pid"), int):
            yield answer["pid"]
        for inner in answer.values():
            yield from _processes(inner)
    elif isinstance(answer, list):
        for inner in answer:
            yield from _processes(inner)
