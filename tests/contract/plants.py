"""Physics under fixture machines: parts that draw power, and sensors that show what they drew, or fail to.

The truth is here: which part used how much, as integers, and which sensor sees which part. It is reckoned from the fixtures'
files and from what is known of each machine; the agent's sources, topology and meter are not asked.
"""

import errno
import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattledger_agent.machine import RecordedMachine
from wattledger_agent.sources.nvml_recorded import RecordedError, RecordedNvml

Key = tuple[str, str, str]

# Power is a straight line between two knots, so that a sensor that is read at knots and between has the exact integral.
KNOT_MILLISECONDS = 10_000

# Half nanojoules: (microwatts + microwatts) times milliseconds.
HALF_NANOJOULES_A_MICROJOULE = 2_000

GARBAGE = ("empty", "-1", "18446744073447456768", "x")
FILE_FAULTS = ("eio", "enodev", *GARBAGE)
POWER_FAULTS = (*FILE_FAULTS, "4294967295000")


@dataclass
class Part:
    """Something that draws power, in whole steps. from_microwatts, to_microwatts: at the knots around now."""

    name: str
    low_watts: int
    high_watts: int
    step_watts: int = 1
    from_microwatts: int = 0
    to_microwatts: int = 0
    half_nanojoules: int = 0

    def power_microwatts(self, millisecond: int) -> int:
        """Power so long after the last knot."""
        return self.from_microwatts + (self.to_microwatts - self.from_microwatts) * millisecond // KNOT_MILLISECONDS


@dataclass
class Sensor:
    """Something that shows the sum of parts: as power (microwatts) or as a counter (microjoules).

    key: the channel that reads it; None: nothing does. booked: its channel is a leaf or a meter. show: writes the value.
    modulus: the counter is where it was after so much; None: it never wraps. tolerance: what its rounding may cost.
    faults: how it may fail. cadence_seconds: 0, or how often it is polled. reloads: its counter may begin anew at 0.
    write_fault, mend: how another fault than one of files is made and ended. wraps_at: the source gives the counter modulo
    this. leader: the sensor that shows and fails for this one too.
    """

    key: Key | None
    parts: tuple[str, ...]
    counts: bool
    show: Callable[[int], None]
    booked: bool = True
    modulus: int | None = None
    start: int = 0
    tolerance: int = 0
    files: tuple[Path, ...] = ()
    faults: tuple[str, ...] = ()
    cadence_seconds: float = 0.0
    reloads: bool = False
    write_fault: Callable[[str], None] | None = None
    mend: Callable[[], object] = lambda: None
    wraps_at: int | None = None
    leader: "Sensor | None" = None
    base_half_nanojoules: int = 0
    reloading: bool = False
    fault: str = ""


class FaultyNvml(RecordedNvml):
    """A recorded NVML whose GPUs fail on demand. errors: nvmlReturn_t by UUID."""

    def __init__(self, recording: Mapping[str, Any]) -> None:
        super().__init__(recording)
        self.errors: dict[str, int] = {}

    def _answer(self, handle: Any, call: str, argument: str | None = None, *, whole: bool = False) -> Any:
        if handle is not None and handle.answers.get("nvmlDeviceGetUUID") in self.errors:
            raise RecordedError(self.errors[handle.answers["nvmlDeviceGetUUID"]])
        return super()._answer(handle, call, argument, whole=whole)


@dataclass
class Plant:
    """A machine with what is under it. history: energy of each part (half nanojoules) at noted moments, nanoseconds."""

    name: str
    machine: RecordedMachine
    nvml: FaultyNvml
    chance: random.Random
    parts: dict[str, Part] = field(default_factory=dict)
    sensors: list[Sensor] = field(default_factory=list)
    history: dict[int, dict[str, int]] = field(default_factory=dict)
    failing: dict[Path, int] = field(default_factory=dict)
    steady: bool = False
    _milliseconds: int = 0
    _files: dict[int, Path] = field(default_factory=dict)
    _dead: set[int] = field(default_factory=set)
    _groups: dict[Path, int] = field(default_factory=dict)

    # Building.

    def part(self, name: str, low_watts: int, high_watts: int, step_watts: int = 1) -> str:
        """Add a part, or find it."""
        self.parts.setdefault(name, Part(name, low_watts, high_watts, step_watts))
        return name

    def begin(self) -> None:
        """Draw the first powers, show them, and let time pass with the machine's."""
        for part in self.parts.values():
            part.from_microwatts = part.to_microwatts = self._draw(part)
        self._turn()
        self._find_groups()
        played = self.machine.roots.played
        assert played is not None
        played.opener, played.pread = self._open, self._pread
        self.machine.on_advance = self.advance
        self.show()

    @property
    def metered(self) -> set[str]:
        """The parts that some booked channel sees: each of their watts is to be booked once."""
        return {name for sensor in self.sensors if sensor.booked for name in sensor.parts}

    # Time.

    def advance(self, seconds: float) -> None:
        """Let parts use energy for so long, and show it."""
        left = round(seconds * 1000)
        while left > 0:
            place = self._milliseconds % KNOT_MILLISECONDS
            step = min(left, KNOT_MILLISECONDS - place)
            for part in self.parts.values():
                part.half_nanojoules += (part.power_microwatts(place) + part.power_microwatts(place + step)) * step
            self._milliseconds += step
            left -= step
            if self._milliseconds % KNOT_MILLISECONDS == 0:
                self._turn()
        self._count_cpu_time(seconds)
        self.show()

    def note(self, nanoseconds: int) -> None:
        """Keep what every part has used up to now."""
        self.history[nanoseconds] = {name: part.half_nanojoules for name, part in self.parts.items()}

    def used_microjoules(self, parts: Iterable[str], start: int, end: int) -> int:
        """What parts have used between two noted moments, rounded down."""
        first, last = self.history[start], self.history[end]
        return sum(last[name] - first[name] for name in parts) // HALF_NANOJOULES_A_MICROJOULE

    def value(self, sensor: Sensor) -> int:
        """What a sensor would show now if it did not fail: microwatts, or microjoules."""
        if not sensor.counts:
            return self.power_microwatts(sensor.parts)
        total = self.half_nanojoules(sensor) - sensor.base_half_nanojoules
        count = sensor.start + total // HALF_NANOJOULES_A_MICROJOULE
        return count if sensor.modulus is None else count % sensor.modulus

    def power_microwatts(self, parts: Iterable[str]) -> int:
        """What parts draw now."""
        place = self._milliseconds % KNOT_MILLISECONDS
        return sum(self.parts[name].power_microwatts(place) for name in parts)

    def half_nanojoules(self, sensor: Sensor) -> int:
        """What a sensor's parts have used since the beginning."""
        return sum(self.parts[name].half_nanojoules for name in sensor.parts)

    def show(self) -> None:
        """Write what the sensors show now."""
        for sensor in self.sensors:
            if sensor.fault and sensor.write_fault is not None:
                sensor.write_fault(sensor.fault)
            elif sensor.fault in GARBAGE or sensor.fault.isdigit():
                for file in sensor.files[:1]:
                    file.write_text("" if sensor.fault == "empty" else f"{sensor.fault}\n")
            else:
                sensor.show(self.value(sensor))

    def break_sensor(self, sensor: Sensor, fault: str) -> None:
        """Let a sensor fail from now on; empty: mend it."""
        for file in sensor.files:
            self.failing.pop(file, None)
        sensor.mend()
        sensor.fault = fault
        if fault in ("eio", "enodev"):
            self.failing[sensor.files[0]] = errno.EIO if fault == "eio" else errno.ENODEV
        self.show()

    def reload(self, sensor: Sensor) -> None:
        """Let a sensor's driver be loaded anew: its counter begins at 0, in a file that is another one."""
        sensor.base_half_nanojoules, sensor.start = self.half_nanojoules(sensor), 0
        sensor.reloading = bool(sensor.files)
        for file in sensor.files:
            self._dead |= {descriptor for descriptor, path in self._files.items() if path == file}
            fresh = file.with_name(f"{file.name}.new")
            fresh.write_bytes(file.read_bytes())
            fresh.replace(file)
        self.show()

    def _turn(self) -> None:
        """A knot: from here on another straight line."""
        for part in self.parts.values():
            part.from_microwatts = part.to_microwatts
            if not self.steady:
                part.to_microwatts = self._draw(part)

    def _draw(self, part: Part) -> int:
        if self.steady:
            return (part.low_watts + part.high_watts) // 2 * 1_000_000
        return self.chance.randrange(part.low_watts, part.high_watts + 1, part.step_watts) * 1_000_000

    def _count_cpu_time(self, seconds: float) -> None:
        """Two fifths of a CPU's time are used, on all CPUs alike; each innermost control group has a hundredth of one."""
        stat = self.machine.root / "proc/stat"
        if not stat.exists():
            return
        lines = stat.read_text().splitlines()
        cpus = [number for number, line in enumerate(lines) if line.startswith("cpu")]
        for number in cpus:
            name, *fields = lines[number].split()
            times = [int(field) for field in fields]
            share = 1 if name == "cpu" else 1 / max(1, len(cpus) - 1)
            times[0] += round(40 * seconds * share)
            times[3] += round(60 * seconds * share)
            lines[number] = " ".join([name, *map(str, times)])
        stat.write_text("\n".join(lines) + "\n")
        for place, count in self._groups.items():
            text = place.read_text()
            used = int(text.split()[1] if place.name == "cpu.stat" else text)
            unit = 1_000_000 if place.name == "cpu.stat" else 1_000_000_000
            used += round(seconds * count * unit / 100)
            rest = text.partition("\n")[2]
            place.write_text(f"usage_usec {used}\n{rest}" if place.name == "cpu.stat" else f"{used}\n")

    def _find_groups(self) -> None:
        """The files with the CPU time of control groups, and how many innermost groups each contains."""
        root = self.machine.root / "sys/fs/cgroup"
        files = [file for name in ("cpu.stat", "cpuacct.usage") for file in root.rglob(name)]
        folders = {file.parent for file in files}
        innermost = {folder for folder in folders if not any(folder in other.parents for other in folders)}
        self._groups = {file: sum(file.parent in (one, *one.parents) for one in innermost) for file in files}

    # Files.

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files[descriptor] = path.resolve()
        self._dead.discard(descriptor)
        return descriptor

    def _pread(self, descriptor: int, size: int, offset: int) -> bytes:
        error = errno.ENODEV if descriptor in self._dead else self.failing.get(self._files.get(descriptor, Path()))
        if error is not None:
            raise OSError(error, os.strerror(error))
        return os.pread(descriptor, size, offset)
