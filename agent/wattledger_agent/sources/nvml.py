"""The part of the module `pynvml` that is used, its error values, and what to do about them.

Calls nothing. Source of truth: nvml.h (nvmlReturn_t); the names are NVML's own.
"""

# ruff: noqa: N802

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

# Values of nvmlReturn_t.
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
LIBRARY_MISMATCH = 18
GPU_NOT_FOUND = 28
UNKNOWN = 999

UNSUPPORTED = frozenset({NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND})
LOST = frozenset({GPU_IS_LOST, GPU_NOT_FOUND})


class Nvml(Protocol):
    """What is used of the module `pynvml`. Every call may raise NVMLError, whose `value` is an nvmlReturn_t."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetPersistenceMode(self, handle: Any) -> int: ...
    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...


def load_nvml() -> Nvml:
    """Import pynvml; not before, so that a host without GPUs pays nothing for it."""
    return cast(Nvml, importlib.import_module("pynvml"))


def error_value(error: Exception) -> int:
    """The nvmlReturn_t that an NVMLError carries."""
    value = getattr(error, "value", UNKNOWN)
    return value if isinstance(value, int) else UNKNOWN


def text(value: str | bytes) -> str:
    """Older versions of the module return bytes."""
    return value.decode() if isinstance(value, bytes) else value


def remedy(value: int) -> str:
    """What to do where NVML does not start with this nvmlReturn_t; one sentence."""
    if value == LIBRARY_NOT_FOUND:
        return (
            "If this host has an NVIDIA GPU, install its driver (it brings libnvidia-ml.so.1), or in a container the NVIDIA "
            "container toolkit with NVIDIA_DRIVER_CAPABILITIES=utility."
        )
    if value == DRIVER_NOT_LOADED:
        return "Load the driver: modprobe nvidia."
    if value == NO_PERMISSION:
        return "Let the agent's user read and write /dev/nvidiactl and /dev/nvidia0 ..., often by the group video."
    if value == LIBRARY_MISMATCH:
        return "The driver was upgraded but not reloaded: boot the host anew, or reload the nvidia modules."
    return "See nvidia-smi and the kernel's log."
