"""A module like pynvml without a GPU: for tests and for measuring the agent's own cost.

Counts its calls and fails on demand; energy passes only by `advance`. Error values are those of nvml.h.
"""

# ruff: noqa: N802

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wattledger_agent.sources.nvml import Field
from wattledger_agent.sources.nvml_recorded import RecordedError, RecordedNvml

NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
UNKNOWN = 999

GIB = 2**30

# Tests share their machine: nothing of theirs hangs unless they say so, however long it takes.
PATIENCE_SECONDS = 60.0

FakeNvmlError = RecordedError


@dataclass(eq=False)
class FakeGpu:
    """One GPU.

    energy_millijoules: None if there is no counter. power_milliwatts: None if there is no sensor.
    busy_percent: None if unsupported, as it is under MIG. name and uuid may be bytes, as older modules return them.
    fields: milliwatts by "field/scope". more: answers by call, in the form of a recording, before all others.
    """

    uuid: str | bytes
    name: str | bytes = "NVIDIA H100 80GB HBM3"
    energy_millijoules: int | None = 1_000_000_000
    power_milliwatts: int | None = 350_000
    limit_milliwatts: int | None = 700_000
    busy_percent: int | None = 60
    memory_used: int = 20 * GIB
    memory_total: int = 80 * GIB
    mig: bool = False
    persistent: bool = True
    bus_id: str = "00000000:3B:00.0"
    lost: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    instances: list["FakeGpu"] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> Mapping[str, Any]:
        """What it answers to each call, in the form of a recording."""
        limit = self.limit_milliwatts
        return {
            "nvmlDeviceGetUUID": self.uuid,
            "nvmlDeviceGetName": self.name,
            "nvmlDeviceGetArchitecture": 9,
            "nvmlDeviceGetPciInfo": {"busId": self.bus_id},
            "nvmlDeviceGetMigMode": [int(self.mig), int(self.mig)],
            "nvmlDeviceGetPersistenceMode": int(self.persistent),
            "nvmlDeviceGetPowerManagementLimitConstraints": None if limit is None else [100_000, limit],
            "nvmlDeviceGetEnforcedPowerLimit": limit,
            "nvmlDeviceGetTotalEnergyConsumption": self.energy_millijoules,
            "nvmlDeviceGetPowerUsage": self.power_milliwatts,
            "nvmlDeviceGetFieldValues": self.fields or None,
            "nvmlDeviceGetUtilizationRates": (
                None if self.busy_percent is None else {"gpu": self.busy_percent, "memory": 10}
            ),
            "nvmlDeviceGetMemoryInfo": {"used": self.memory_used, "total": self.memory_total},
            "nvmlDeviceGetTemperature": {"0": 45},
            "nvmlDeviceGetClockInfo": {"1": 1755, "2": 2619},
            "nvmlDeviceGetCurrentClocksEventReasons": 4,
            "nvmlDeviceGetComputeRunningProcesses": [],
            **self.more,
        }


class FakeNvml(RecordedNvml):
    """GPUs, and the calls made of them.

    calls: number of calls by name. asked: the fields of each call for fields. fail: name of a call -> function of its
    number (from 1) that returns an error value or 0; this makes "the third read of the energy fails" one line.
    """

    def __init__(self, gpus: list[FakeGpu], fail: dict[str, Callable[[int], int]] | None = None) -> None:
        super().__init__({"version": 1, "gpus": []})
        self.gpus: list[FakeGpu] = gpus
        self.fail: dict[str, Callable[[int], int]] = fail or {}
        self.calls: dict[str, int] = {}
        self.asked: list[list[Field]] = []

    def advance(self, seconds: float) -> None:
        """Let every GPU draw its power for so long."""
        super().advance(seconds)
        for gpu in self.gpus:
            if gpu.energy_millijoules is not None:
                gpu.energy_millijoules += round((gpu.power_milliwatts or 0) * seconds)

    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes:
        """As it is: older modules return bytes."""
        self._answer(handle, "nvmlDeviceGetUUID")
        uuid: str | bytes = handle.uuid
        return uuid

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:
        """As it is: older modules return bytes."""
        self._answer(handle, "nvmlDeviceGetName")
        name: str | bytes = handle.name
        return name

    def nvmlDeviceGetFieldValues(self, handle: Any, fields: Sequence[Field]) -> Any:
        """The fields, and what was asked."""
        self.asked.append(list(fields))
        return super().nvmlDeviceGetFieldValues(handle, fields)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        """The counter, which moves by `advance` alone."""
        return int(self._answer(handle, "nvmlDeviceGetTotalEnergyConsumption"))

    def _answer(self, handle: Any, call: str, argument: str | None = None, *, whole: bool = False) -> Any:
        number = self.calls[call] = self.calls.get(call, 0) + 1
        if handle is not None and handle.lost:
            raise FakeNvmlError(GPU_IS_LOST)
        value = self.fail[call](number) if call in self.fail else 0
        if value:
            raise FakeNvmlError(value)
        return super()._answer(handle, call, argument, whole=whole)


class FailingRecording(RecordedNvml):
    """A recording whose calls are counted and fail on demand; see FakeNvml. lost: UUIDs of GPUs that are off the bus."""

    def __init__(self, recording: Mapping[str, Any]) -> None:
        super().__init__(recording)
        self.calls: dict[str, int] = {}
        self.fail: dict[str, Callable[[int], int]] = {}
        self.lost: set[str] = set()

    def _answer(self, handle: Any, call: str, argument: str | None = None, *, whole: bool = False) -> Any:
        number = self.calls[call] = self.calls.get(call, 0) + 1
        if handle is not None and handle.answers["nvmlDeviceGetUUID"] in self.lost:
            raise RecordedError(GPU_IS_LOST)
        value = self.fail[call](number) if call in self.fail else 0
        if value:
            raise RecordedError(value)
        return super()._answer(handle, call, argument, whole=whole)


def eight_gpus() -> FakeNvml:
    """A server with eight GPUs, each with its own energy."""
    return FakeNvml([FakeGpu(f"GPU-{index:08d}-fake", energy_millijoules=10**9 * (index + 1)) for index in range(8)])


def samples(*percents: tuple[int, int], at_microseconds: int = 1_000_000) -> Sequence[Mapping[str, int]]:
    """Samples of processes as (pid, percent), all of one time."""
    return [{"pid": pid, "timeStamp": at_microseconds, "smUtil": percent} for pid, percent in percents]
