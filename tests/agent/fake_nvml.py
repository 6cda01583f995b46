"""A module like pynvml without a GPU: for tests and for measuring the agent's own cost.

Counts its calls and fails on demand; energy passes only by `advance`. Error values are those of nvml.h.
"""

# ruff: noqa: N802

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED = 3
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
UNKNOWN = 999

GIB = 2**30


class FakeNvmlError(Exception):
    """Like pynvml.NVMLError: `value` is an nvmlReturn_t."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class FakeGpu:
    """One GPU.

    energy_millijoules: None if there is no counter. power_milliwatts: None if there is no sensor.
    busy_percent: None if unsupported, as it is under MIG. name and uuid may be bytes, as older modules return them.
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


@dataclass
class FakeNvml:
    """GPUs, and the calls made of them.

    calls: number of calls by name. fail: name of a call -> function of its number (from 1) that returns an error value
    or 0; this makes "the third read of the energy fails" one line.
    """

    gpus: list[FakeGpu]
    fail: dict[str, Callable[[int], int]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    NVMLError: type[Exception] = FakeNvmlError

    def advance(self, seconds: float) -> None:
        """Let every GPU draw its power for so long."""
        for gpu in self.gpus:
            if gpu.energy_millijoules is not None:
                gpu.energy_millijoules += round((gpu.power_milliwatts or 0) * seconds)

    def nvmlInit(self) -> None:
        self._count("nvmlInit")

    def nvmlShutdown(self) -> None:
        self._count("nvmlShutdown")

    def nvmlDeviceGetCount(self) -> int:
        self._count("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        self._count("nvmlDeviceGetHandleByIndex", self.gpus[index])
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes:
        return self._gpu("nvmlDeviceGetUUID", handle).uuid

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:
        return self._gpu("nvmlDeviceGetName", handle).name

    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any:
        return SimpleNamespace(busId=self._gpu("nvmlDeviceGetPciInfo", handle).bus_id)

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        mig = int(self._gpu("nvmlDeviceGetMigMode", handle).mig)
        return [mig, mig]

    def nvmlDeviceGetPersistenceMode(self, handle: Any) -> int:
        return int(self._gpu("nvmlDeviceGetPersistenceMode", handle).persistent)

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any) -> list[int]:
        gpu = self._gpu("nvmlDeviceGetPowerManagementLimitConstraints", handle)
        return [100_000, _supported(gpu.limit_milliwatts)]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        return _supported(self._gpu("nvmlDeviceGetEnforcedPowerLimit", handle).limit_milliwatts)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        return _supported(self._gpu("nvmlDeviceGetTotalEnergyConsumption", handle).energy_millijoules)

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        return _supported(self._gpu("nvmlDeviceGetPowerUsage", handle).power_milliwatts)

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        gpu = self._gpu("nvmlDeviceGetUtilizationRates", handle)
        return SimpleNamespace(gpu=_supported(gpu.busy_percent), memory=10)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        gpu = self._gpu("nvmlDeviceGetMemoryInfo", handle)
        return SimpleNamespace(used=gpu.memory_used, total=gpu.memory_total, free=gpu.memory_total - gpu.memory_used)

    def _gpu(self, call: str, handle: Any) -> FakeGpu:
        assert isinstance(handle, FakeGpu)
        self._count(call, handle)
        return handle

    def _count(self, call: str, gpu: FakeGpu | None = None) -> None:
        number = self.calls[call] = self.calls.get(call, 0) + 1
        if gpu is not None and gpu.lost:
            raise FakeNvmlError(GPU_IS_LOST)
        value = self.fail[call](number) if call in self.fail else 0
        if value:
            raise FakeNvmlError(value)


def eight_gpus() -> FakeNvml:
    """A server with eight GPUs, each with its own energy."""
    return FakeNvml([FakeGpu(f"GPU-{index:08d}-fake", energy_millijoules=10**9 * (index + 1)) for index in range(8)])


def _supported(value: int | None) -> int:
    if value is None:
        raise FakeNvmlError(NOT_SUPPORTED)
    return value
