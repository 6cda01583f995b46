"""Answers as NVML would, from a recording: `nvml.json` of a fixture machine or of another host.

Holds no clock: time passes by `advance`. Loads no driver. The format is in the README of the agent: for each GPU the answer
of each call, `{"error": 3}` where it failed, `{"series": [[0.0, ...], [1.0, ...]]}` where it changed; what is not in the
recording was not supported. The names are NVML's own; source of truth: nvml.h.
"""

# ruff: noqa: N802, N815

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from wattledger_agent.sources.nvml import GPM_SM_UTILIZATION, NOT_FOUND, NOT_SUPPORTED, SUCCESS, Field

VERSION = 1

MICROSECONDS_PER_SECOND = 1_000_000

# nvmlValueType_t of an unsigned 64-bit number.
VALUE_TYPE_UNSIGNED_LONG_LONG = 3

# Where a recorded counter is one number, it goes on with the first power that was recorded: that of the module, where the
# counter is the module's, else the GPU's.
_POWERS = ("185/1", "186/1", "185/0", "186/0")


class RecordedError(Exception):
    """Like pynvml.NVMLError. value: an nvmlReturn_t."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class RecordingError(ValueError):
    """A recording can't be played; the text says what is wrong in it and what to do."""


@dataclass(eq=False)
class Handle:
    """A GPU or a MIG instance of the recording. answers: by call."""

    answers: Mapping[str, Any]
    instances: Sequence["Handle"] = ()


@dataclass
class GpmSample:
    """Stands for a sample of GPM. activity: percent by metric."""

    activity: Mapping[str, float] = field(default_factory=dict)


class GpmMetrics:
    """Stands for c_nvmlGpmMetricsGet_t, with as many places as are used."""

    def __init__(self) -> None:
        self.version = 0
        self.numMetrics = 0
        self.sample1: Any = None
        self.sample2: Any = None
        self.metrics = [SimpleNamespace(metricId=0, nvmlReturn=NOT_SUPPORTED, value=0.0) for _ in range(8)]


class RecordedNvml:
    """Stands for the module `pynvml`. recording: the content of nvml.json. Raises RecordingError if it is none."""

    NVMLError: type[Exception] = RecordedError
    c_nvmlGpmMetricsGet_t: Any = GpmMetrics

    def __init__(self, recording: Mapping[str, Any]) -> None:
        if recording.get("version") != VERSION or not isinstance(recording.get("gpus"), list):
            raise RecordingError(f"nvml.json: `version` must be {VERSION} and `gpus` a list; record the machine again.")
        self._system: Mapping[str, Any] = recording.get("system", {})
        self.gpus: list[Any] = [_handle(gpu) for gpu in recording["gpus"]]
        self.seconds = 0.0

    @property
    def recorded_seconds(self) -> float:
        """When the last change was recorded; 0 if nothing changed."""
        return max((_last_change(gpu.answers) for gpu in self.gpus), default=0.0)

    def advance(self, seconds: float) -> None:
        """Let time pass: series go on, and counters that were recorded once go on with their power."""
        self.seconds += seconds

    def nvmlInit(self) -> None:
        self._answer(None, "nvmlInit")

    def nvmlShutdown(self) -> None:
        self._answer(None, "nvmlShutdown")

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return str(self._answer(None, "nvmlSystemGetDriverVersion"))

    def nvmlDeviceGetCount(self) -> int:
        self._answer(None, "nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        handle = self.gpus[index]
        self._answer(handle, "nvmlDeviceGetHandleByIndex")
        return handle

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> Any:
        for handle in self.gpus:
            recorded = handle.answers.get("nvmlDeviceGetPciInfo", {}).get("busId", "")
            if recorded.lower().endswith(bus_id.lower()):
                self._answer(handle, "nvmlDeviceGetHandleByPciBusId")
                return handle
        raise RecordedError(NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes:
        return str(self._answer(handle, "nvmlDeviceGetUUID"))

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:
        return str(self._answer(handle, "nvmlDeviceGetName"))

    def nvmlDeviceGetSerial(self, handle: Any) -> str | bytes:
        return str(self._answer(handle, "nvmlDeviceGetSerial"))

    def nvmlDeviceGetBoardPartNumber(self, handle: Any) -> str | bytes:
        return str(self._answer(handle, "nvmlDeviceGetBoardPartNumber"))

    def nvmlDeviceGetArchitecture(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetArchitecture"))

    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any:
        return self._answer(handle, "nvmlDeviceGetPciInfo")

    def nvmlDeviceGetPersistenceMode(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetPersistenceMode"))

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any) -> Sequence[int]:
        return list(self._answer(handle, "nvmlDeviceGetPowerManagementLimitConstraints"))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetEnforcedPowerLimit"))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        millijoules = int(self._answer(handle, "nvmlDeviceGetTotalEnergyConsumption"))
        if _is_series(handle.answers["nvmlDeviceGetTotalEnergyConsumption"]):
            return millijoules
        return millijoules + round(self._milliwatts(handle) * self.seconds)

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetPowerUsage"))

    def nvmlDeviceGetFieldValues(self, handle: Any, fields: Sequence[Field]) -> Any:
        self._answer(handle, "nvmlDeviceGetFieldValues", whole=True)
        return [self._field(handle, number, scope) for number, scope in fields]

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        return self._answer(handle, "nvmlDeviceGetUtilizationRates")

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        return self._answer(handle, "nvmlDeviceGetMemoryInfo")

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        return int(self._answer(handle, "nvmlDeviceGetTemperature", str(sensor)))

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        return int(self._answer(handle, "nvmlDeviceGetClockInfo", str(kind)))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetCurrentClocksEventReasons"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetCurrentClocksThrottleReasons"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:
        return list(self._answer(handle, "nvmlDeviceGetComputeRunningProcesses"))

    def nvmlDeviceGetProcessUtilization(self, handle: Any, last_seen_microseconds: int) -> Sequence[Any]:
        samples = list(self._answer(handle, "nvmlDeviceGetProcessUtilization"))
        for sample in samples:
            sample.timeStamp += round(self.seconds * MICROSECONDS_PER_SECOND)
        newer = [sample for sample in samples if sample.timeStamp > last_seen_microseconds]
        if not newer:
            raise RecordedError(NOT_FOUND)
        return newer

    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]:
        return list(self._answer(handle, "nvmlDeviceGetMigMode"))

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetMaxMigDeviceCount"))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:
        self._answer(handle, "nvmlDeviceGetMigDeviceHandleByIndex", whole=True)
        if index >= len(handle.instances):
            raise RecordedError(NOT_FOUND)
        return handle.instances[index]

    def nvmlDeviceGetGpuInstanceId(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetGpuInstanceId"))

    def nvmlDeviceGetAttributes(self, handle: Any) -> Any:
        return self._answer(handle, "nvmlDeviceGetAttributes")

    def nvmlGpmQueryDeviceSupport(self, handle: Any) -> Any:
        return self._answer(handle, "nvmlGpmQueryDeviceSupport")

    def nvmlGpmSampleAlloc(self) -> Any:
        return GpmSample()

    def nvmlGpmSampleFree(self, sample: Any) -> None:
        sample.activity = {}

    def nvmlGpmSampleGet(self, handle: Any, sample: Any) -> Any:
        sample.activity = vars(self._answer(handle, "nvmlGpmMetricsGet"))
        return sample

    def nvmlGpmMigSampleGet(self, handle: Any, gpu_instance_id: int, sample: Any) -> Any:
        for instance in handle.instances:
            if instance.answers.get("nvmlDeviceGetGpuInstanceId") == gpu_instance_id:
                return self.nvmlGpmSampleGet(instance, sample)
        raise RecordedError(NOT_FOUND)

    def nvmlGpmMetricsGet(self, metrics: Any) -> Any:
        for metric in metrics.metrics[: metrics.numMetrics]:
            value = metrics.sample2.activity.get(str(metric.metricId))
            metric.nvmlReturn = NOT_SUPPORTED if value is None else SUCCESS
            metric.value = value or 0.0
        return metrics

    def _answer(self, handle: Any, call: str, argument: str | None = None, *, whole: bool = False) -> Any:
        """The recorded answer of a call. whole: only whether it failed as a whole. Raises RecordedError as recorded."""
        answers = self._system if handle is None else handle.answers
        answer = self._now(answers.get(call))
        if isinstance(answer, Mapping) and "error" in answer:
            raise RecordedError(answer["error"])
        if whole:
            return None
        if argument is not None:
            answer = self._now(answer.get(argument)) if isinstance(answer, Mapping) else None
        if answer is None and handle is not None and call not in _HANDLES:
            raise RecordedError(NOT_SUPPORTED)
        return _played(answer)

    def _field(self, handle: Any, number: int, scope: int) -> Any:
        answer = self._now((handle.answers.get("nvmlDeviceGetFieldValues") or {}).get(f"{number}/{scope}"))
        if isinstance(answer, int):
            return SimpleNamespace(
                fieldId=number,
                scopeId=scope,
                nvmlReturn=SUCCESS,
                valueType=VALUE_TYPE_UNSIGNED_LONG_LONG,
                value=SimpleNamespace(ullVal=answer),
            )
        error = answer["error"] if isinstance(answer, Mapping) and "error" in answer else NOT_SUPPORTED
        return SimpleNamespace(fieldId=number, scopeId=scope, nvmlReturn=error, valueType=0, value=None)

    def _milliwatts(self, handle: Handle) -> float:
        powers = handle.answers.get("nvmlDeviceGetFieldValues") or {}
        recorded = [powers.get(name) for name in _POWERS] + [handle.answers.get("nvmlDeviceGetPowerUsage")]
        return next((float(power) for power in recorded if isinstance(power, int)), 0.0)

    def _now(self, answer: Any) -> Any:
        """The value that a series has now: the last that was recorded before."""
        if not _is_series(answer):
            return answer
        current = answer["series"][0][1]
        for seconds, value in answer["series"]:
            if seconds > self.seconds:
                break
            current = value
        return current


# Calls that give a handle: that the GPU is recorded is their answer.
_HANDLES = frozenset({"nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByPciBusId"})

# Percent of the time that the multiprocessors worked, under the name that it has in a recording.
GPM_SM = str(GPM_SM_UTILIZATION)


def _handle(gpu: Mapping[str, Any]) -> Handle:
    if not isinstance(gpu, Mapping) or "nvmlDeviceGetUUID" not in gpu:
        raise RecordingError("nvml.json: each GPU and instance needs `nvmlDeviceGetUUID`; record the machine again.")
    return Handle(gpu, [_handle(instance) for instance in gpu.get("instances", [])])


def _is_series(answer: Any) -> bool:
    return isinstance(answer, Mapping) and "series" in answer


def _last_change(answer: Any) -> float:
    if _is_series(answer):
        return float(answer["series"][-1][0])
    inner = answer.values() if isinstance(answer, Mapping) else answer if isinstance(answer, list) else ()
    return max((_last_change(one) for one in inner), default=0.0)


def _played(answer: Any) -> Any:
    """A structure of NVML from its recorded fields, or a list of them."""
    if isinstance(answer, Mapping):
        return SimpleNamespace(**answer)
    if isinstance(answer, list):
        return [_played(one) for one in answer]
    return answer
