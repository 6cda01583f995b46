"""Simulated hardware counters whose truth lives outside the agent, for demos and for tests that kill the agent.

A counter here is a pure function of the seed and of CLOCK_BOOTTIME, as a real one is of the machine: an agent that dies and
starts again finds it where the hardware would have brought it. Nothing is measured, and nothing is random at run time.
The truth of every counter is `truth_microjoules`.
"""

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Method,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)

NAME = "fake"

# The range that the kernel reports for most Intel packages (max_energy_range_uj).
COUNTER_RANGE_MICROJOULES = 262_143_328_850

PERIOD_SECONDS = 300.0

PACKAGES_MAX = 64
GPUS_MAX = 64

CORES_PER_PACKAGE = 32

# Two waves make the load; their shares of it and their periods' ratio have no common measure that an eye would see.
SLOW_WAVE_SHARE_PERCENT = 70
FAST_WAVE_PERIOD_DIVISOR = 7

# Idle and busy watts of each kind of part; a seed moves each by up to a tenth.
WATTS: dict[str, tuple[int, int]] = {"cpu": (60, 270), "memory": (8, 30), "gpu": (70, 700), "node": (120, 180)}
POWER_BOUND_WATTS: dict[str, float] = {"cpu": 400.0, "memory": 60.0, "gpu": 1000.0}
OVERHEAD_BOUND_WATTS = 300.0

PPM = 1_000_000


class FakeSource:
    """Counters of `packages` CPUs with memory, `gpus` GPUs, and with `node_meter` a meter over all of them.

    seed: names the machine; the same seed has the same counters for ever.
    period_seconds: length of the load's slow wave; > 0.
    truth_path: each read appends a line here (see `truth_line`); None: nothing is written.
    counter_range_microjoules: where CPU and memory counters wrap; None: never, as GPU and node counters.
    failure_ratio: share of reads of a channel that fail; in [0, 1].
    regression_from_nanoseconds: from this boottime on the busy share of the power is `regression_ratio` higher; None: never.
    Raises ValueError for arguments outside of their ranges.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        seed: int,
        *,
        period_seconds: float = PERIOD_SECONDS,
        truth_path: Path | None = None,
        packages: int = 2,
        gpus: int = 0,
        node_meter: bool = False,
        counter_range_microjoules: int | None = COUNTER_RANGE_MICROJOULES,
        failure_ratio: float = 0.0,
        regression_from_nanoseconds: int | None = None,
        regression_ratio: float = 0.0,
    ) -> None:
        if not 0 <= packages <= PACKAGES_MAX or not 0 <= gpus <= GPUS_MAX:
            raise ValueError(f"fake: packages={packages}, gpus={gpus}: use at most {PACKAGES_MAX} and {GPUS_MAX}")
        if not 0.0 <= failure_ratio <= 1.0:
            raise ValueError(f"fake: failure_ratio={failure_ratio}: use a share in [0, 1]")
        if counter_range_microjoules is not None and counter_range_microjoules <= 0:
            raise ValueError(f"fake: counter_range_microjoules={counter_range_microjoules}: use a number above 0, or None")
        self._truth = FakeTruth(
            seed,
            packages=packages,
            gpus=gpus,
            period_seconds=period_seconds,
            regression_from_nanoseconds=regression_from_nanoseconds,
            regression_ratio=regression_ratio,
        )
        self._seed = seed
        self._packages = packages
        self._gpus = gpus
        self._node_meter = node_meter
        self._range = counter_range_microjoules
        self._failure_ppm = round(failure_ratio * PPM)
        self._truth_path = truth_path
        self._truth_file: int | None = None
        self._specs: list[ChannelSpec] = []

    def open(self) -> Sequence[ChannelSpec]:
        """Return a spec for each simulated counter.

        Raises SourceUnavailableError if there is nothing to simulate, or the truth can't be written.
        """
        if not self._truth.parts:
            raise SourceUnavailableError(
                "fake: no part is simulated: packages and gpus are both 0.", "Ask for at least one package or GPU."
            )
        if self._truth_path is not None:
            try:
                self._truth_file = os.open(self._truth_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise SourceUnavailableError(
                    f"fake: the truth file {self._truth_path} can't be opened: {error.strerror}.",
                    "Name a file in a folder that the agent may write, or none.",
                ) from error
        self._specs = self._make_specs()
        return list(self._specs)

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every counter at this boottime, which alone decides the values."""
        readings: list[Reading] = []
        truths: dict[ChannelKey, int] = {}
        for spec in self._specs:
            truth = self._truth.microjoules(spec.key.device, now_nanoseconds)
            truths[spec.key] = truth
            if self.fails(spec.key, now_nanoseconds):
                readings.append(
                    TryAgain(spec.key, f"fake: {spec.key.device} was made to fail at {now_nanoseconds} ns; nothing to do")
                )
            else:
                readings.append(CounterReading(spec.key, self._raw(spec, truth)))
        readings.extend(self._utilizations(now_nanoseconds))
        if self._truth_file is not None:
            os.write(self._truth_file, truth_line(now_nanoseconds, truths))
        return readings

    def notes(self) -> Sequence[str]:
        """Say that nothing here is measured."""
        return ["fake: every figure is simulated; nothing of this host is measured."]

    def close(self) -> None:
        """Close the truth file."""
        if self._truth_file is not None:
            os.close(self._truth_file)
            self._truth_file = None

    def truth_microjoules(self, key: ChannelKey, boottime_nanoseconds: int) -> int:
        """Return the exact energy of a channel since boot; microjoules."""
        return self._truth.microjoules(key.device, boottime_nanoseconds)

    def fails(self, key: ChannelKey, boottime_nanoseconds: int) -> bool:
        """Say whether a read of this channel at this boottime is made to fail."""
        return (
            self._failure_ppm > 0
            and _draw(self._seed, f"failure {key.device} {boottime_nanoseconds}", PPM) < self._failure_ppm
        )

    def _raw(self, spec: ChannelSpec, truth_microjoules: int) -> int:
        """Return what the register shows: it was not at 0 when the machine booted, and it wraps if it has a range."""
        if spec.counter_range_microjoules is None:
            return truth_microjoules
        wrap = spec.counter_range_microjoules
        return (_draw(self._seed, f"start {spec.key.device}", wrap) + truth_microjoules) % wrap

    def _make_specs(self) -> list[ChannelSpec]:
        node = ChannelKey("node", "node", NAME)
        parent = node if self._node_meter else None
        specs = []
        for kind, component, domain in (("cpu", Component.CPU, "package"), ("memory", Component.MEMORY, "dram")):
            for index in range(self._packages):
                key = ChannelKey(f"{kind}/{index}", domain, NAME)
                specs.append(_leaf(key, component, POWER_BOUND_WATTS[kind], parent, self._range))
        for index in range(self._gpus):
            key = ChannelKey(f"gpu/{gpu_uuid(self._seed, index)}", "board", NAME)
            specs.append(_leaf(key, Component.GPU, POWER_BOUND_WATTS["gpu"], parent, None))
        if self._node_meter:
            bound_watts = OVERHEAD_BOUND_WATTS + sum(spec.power_bound_watts for spec in specs)
            specs.append(
                ChannelSpec(node, Component.OTHER, Method.COUNTER, Role.METER, bound_watts, model="simulated node meter")
            )
        return specs

    def _utilizations(self, now_nanoseconds: int) -> list[Reading]:
        readings: list[Reading] = []
        if self._packages:
            loads = [self._truth.load_ratio(f"cpu/{index}", now_nanoseconds) for index in range(self._packages)]
            units = self._packages * CORES_PER_PACKAGE
            readings.append(UtilizationReading("cpu", UtilizationKind.BUSY, sum(loads) / len(loads), units))
        for index in range(self._gpus):
            device = f"gpu/{gpu_uuid(self._seed, index)}"
            readings.append(
                UtilizationReading(device, UtilizationKind.BUSY, self._truth.load_ratio(device, now_nanoseconds))
            )
        return readings


class FakeTruth:
    """The energy of a simulated machine at any boottime, in closed form; pure.

    Arguments as of FakeSource. Power is idle + busy x load. Load is a sum of triangle waves, whose integral is exact
    in integers.
    """

    def __init__(
        self,
        seed: int,
        *,
        packages: int,
        gpus: int,
        period_seconds: float = PERIOD_SECONDS,
        regression_from_nanoseconds: int | None = None,
        regression_ratio: float = 0.0,
    ) -> None:
        # Half a period, so that a wave's turning points are whole nanoseconds.
        self._half_nanoseconds = round(period_seconds * NANOSECONDS_PER_SECOND / 2)
        if self._half_nanoseconds < FAST_WAVE_PERIOD_DIVISOR:
            raise ValueError(f"fake: period_seconds={period_seconds}: use a time above 0")
        if not 0.0 <= regression_ratio <= 0.25:
            # The power bounds leave room for a quarter more.
            raise ValueError(f"fake: regression_ratio={regression_ratio}: use a share in [0, 0.25]")
        self._seed = seed
        self._regression_from = regression_from_nanoseconds
        self._regression_ppm = round(regression_ratio * PPM)
        self.parts = [f"{kind}/{index}" for kind in ("cpu", "memory") for index in range(packages)]
        self.parts += [f"gpu/{gpu_uuid(seed, index)}" for index in range(gpus)]
        devices = [*self.parts, "node"]
        self._watts = {device: self._part_microwatts(device) for device in devices}
        self._waves = {device: self._make_waves(device) for device in devices}

    def microjoules(self, device: str, boottime_nanoseconds: int) -> int:
        """Return the energy of a device since boot; the node's is that of its parts, fans and losses. Raises KeyError."""
        own = self._own_microjoules(device, boottime_nanoseconds)
        if device != "node":
            return own
        return own + sum(self._own_microjoules(part, boottime_nanoseconds) for part in self.parts)

    def load_ratio(self, device: str, boottime_nanoseconds: int) -> float:
        """Return the share of full work that the device does at this moment; in [0, 1]."""
        total = 0.0
        for share_percent, half, phase in self._waves[device]:
            position = (boottime_nanoseconds + phase) % (2 * half)
            total += share_percent / 100 * min(position, 2 * half - position) / half
        return total

    def _own_microjoules(self, device: str, nanoseconds: int) -> int:
        idle_microwatts, busy_microwatts = self._watts[device]
        energy = idle_microwatts * nanoseconds + self._busy(device, busy_microwatts, nanoseconds)
        if self._regression_from is not None and nanoseconds > self._regression_from:
            extra_microwatts = busy_microwatts * self._regression_ppm // PPM
            energy += self._busy(device, extra_microwatts, nanoseconds) - self._busy(
                device, extra_microwatts, self._regression_from
            )
        return energy // NANOSECONDS_PER_SECOND

    def _busy(self, device: str, microwatts: int, nanoseconds: int) -> int:
        """Integrate the waves' power from boot; microwatts x nanoseconds."""
        total = 0
        for share_percent, half, phase in self._waves[device]:
            integral = _triangle_integral(nanoseconds + phase, half) - _triangle_integral(phase, half)
            # A triangle's integral is kept as twice its height in nanoseconds, hence the 2 x half.
            total += share_percent * microwatts * integral // (200 * half)
        return total

    def _make_waves(self, device: str) -> list[tuple[int, int, int]]:
        """Return (share in percent, half period, phase) of each wave of the device's load; nanoseconds."""
        # Memory works when its CPU works.
        driver = device.replace("memory/", "cpu/")
        slow, fast = self._half_nanoseconds, self._half_nanoseconds // FAST_WAVE_PERIOD_DIVISOR
        return [
            (SLOW_WAVE_SHARE_PERCENT, slow, _draw(self._seed, f"slow {driver}", 2 * slow)),
            (100 - SLOW_WAVE_SHARE_PERCENT, fast, _draw(self._seed, f"fast {driver}", 2 * fast)),
        ]

    def _part_microwatts(self, device: str) -> tuple[int, int]:
        idle_watts, full_watts = WATTS[device.partition("/")[0]]
        scale_ppm = 900_000 + _draw(self._seed, f"scale {device}", 200_000)
        return idle_watts * scale_ppm, (full_watts - idle_watts) * scale_ppm


def gpu_uuid(seed: int, index: int) -> str:
    """Return the stable id of a simulated GPU, in NVML's form."""
    text = sha256(f"{seed} gpu {index}".encode()).hexdigest()
    return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


def truth_line(boottime_nanoseconds: int, truths: dict[ChannelKey, int]) -> bytes:
    """Return one JSON line: the boottime of a read and the true microjoules since boot of each `device/domain`."""
    microjoules = {f"{key.device}/{key.domain}": truth for key, truth in truths.items()}
    return json.dumps({"boottime_nanoseconds": boottime_nanoseconds, "microjoules": microjoules}).encode() + b"\n"


def _leaf(
    key: ChannelKey, component: Component, bound_watts: float, parent: ChannelKey | None, wrap: int | None
) -> ChannelSpec:
    return ChannelSpec(
        key,
        component,
        Method.COUNTER,
        Role.LEAF,
        bound_watts,
        parent=parent,
        counter_range_microjoules=wrap,
        model=f"simulated {component.name.lower()}",
    )


def _triangle_integral(nanoseconds: int, half: int) -> int:
    """Return twice the integral of a triangle wave of height `half` that rises from 0 for `half`, then falls; ns²."""
    cycles, position = divmod(nanoseconds, 2 * half)
    if position <= half:
        part = position * position
    else:
        part = 2 * half * half - (2 * half - position) ** 2
    return cycles * 2 * half * half + part


def _draw(seed: int, what: str, below: int) -> int:
    """Return a number in [0, below) that depends on nothing but the seed and the word."""
    return int.from_bytes(sha256(f"{seed} {what}".encode()).digest()[:8]) % below
