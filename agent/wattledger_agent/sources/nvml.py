"""The part of the module `pynvml` that is used, its values, and what to do about its errors.

Calls nothing. Source of truth: nvml.h (nvmlReturn_t, the field identifiers and their scopes); the names are NVML's own.
"""

# ruff: noqa: N802, N815

import ctypes
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Protocol, cast

# The name of the library on Linux; it comes with the driver.
LIBRARY = "libnvidia-ml.so.1"

# Values of nvmlReturn_t.
SUCCESS = 0
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
LIBRARY_MISMATCH = 18
GPU_NOT_FOUND = 28
UNKNOWN = 999

UNSUPPORTED = frozenset({NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND})
LOST = frozenset({GPU_IS_LOST, GPU_NOT_FOUND})

# Fields of nvmlDeviceGetFieldValues with a scope, in milliwatts.
FIELD_POWER_AVERAGE = 185  # Over one second; Ampere (but GA100) and newer.
FIELD_POWER_INSTANT = 186
FIELD_POWER_LIMIT_MAX = 188

# What a power field covers: the GPU with its memory, the module with the CPU on it, the GPU's memory alone.
SCOPE_GPU = 0
SCOPE_MODULE = 1
SCOPE_MEMORY = 2

# A field's identifier and scope.
Field = tuple[int, int]

# nvmlTemperatureSensors_t, nvmlClockType_t.
TEMPERATURE_GPU = 0
CLOCK_SM = 1
CLOCK_MEMORY = 2

# nvmlDeviceArchitecture_t: Ampere covers GA100 and the GA10x chips.
ARCHITECTURE_AMPERE = 7

# Metrics of GPM, in percent.
GPM_SM_UTILIZATION = 2
GPM_TENSOR_UTILIZATION = 5
GPM_METRICS_VERSION = 1

# Members of the union in a field's value, by nvmlValueType_t.
_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class Nvml(Protocol):
    """What is used of the module `pynvml`. Every call may raise NVMLError, whose `value` is an nvmlReturn_t.

    c_nvmlGpmMetricsGet_t: makes the structure that GPM's metrics are asked with.
    """

    NVMLError: type[Exception]
    c_nvmlGpmMetricsGet_t: Any

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str | bytes: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetSerial(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetBoardPartNumber(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetArchitecture(self, handle: Any) -> int: ...
    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetPersistenceMode(self, handle: Any) -> int: ...
    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetFieldValues(self, handle: Any, fields: Sequence[Field]) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int: ...
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...
    def nvmlDeviceGetProcessUtilization(self, handle: Any, last_seen_microseconds: int) -> Sequence[Any]: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...
    def nvmlDeviceGetGpuInstanceId(self, handle: Any) -> int: ...
    def nvmlDeviceGetAttributes(self, handle: Any) -> Any: ...
    def nvmlGpmQueryDeviceSupport(self, handle: Any) -> Any: ...
    def nvmlGpmSampleAlloc(self) -> Any: ...
    def nvmlGpmSampleFree(self, sample: Any) -> None: ...
    def nvmlGpmSampleGet(self, handle: Any, sample: Any) -> Any: ...
    def nvmlGpmMigSampleGet(self, handle: Any, gpu_instance_id: int, sample: Any) -> Any: ...
    def nvmlGpmMetricsGet(self, metrics: Any) -> Any: ...


def load_nvml() -> Nvml:
    """Import pynvml; not before, so that a host without GPUs pays nothing for it."""
    return cast(Nvml, importlib.import_module("pynvml"))


def has_library() -> bool:
    """Say whether NVML can be loaded, as pynvml does it: that module takes four megabytes, also where it finds nothing."""
    if "pynvml" in sys.modules:
        return True
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def error_value(error: Exception) -> int:
    """The nvmlReturn_t that an NVMLError carries."""
    value = getattr(error, "value", UNKNOWN)
    return value if isinstance(value, int) else UNKNOWN


def text(value: str | bytes) -> str:
    """Older versions of the module return bytes."""
    return value.decode() if isinstance(value, bytes) else value


def read_fields(nvml: Nvml, handle: Any, fields: Sequence[Field]) -> dict[Field, int | Exception | None]:
    """Ask several fields in one call: the number of each, None where it is unsupported, its error where it failed.

    Raises NVMLError if the call as a whole fails; None then means nothing for a single field.
    """
    answers: dict[Field, int | Exception | None] = {}
    for field, value in zip(fields, nvml.nvmlDeviceGetFieldValues(handle, fields), strict=True):
        if value.nvmlReturn == SUCCESS and value.valueType < len(_VALUE_MEMBERS):
            answers[field] = int(getattr(value.value, _VALUE_MEMBERS[value.valueType]))
        elif value.nvmlReturn in UNSUPPORTED or value.nvmlReturn == SUCCESS:
            answers[field] = None
        else:
            answers[field] = nvml.NVMLError(value.nvmlReturn)
    return answers


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
