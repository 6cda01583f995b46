"""Records what NVML answers on this host, for `nvml.json` of a fixture machine; see nvml_recorded for the way back.

Changes no setting of a GPU, profiles nothing, and holds no clock. What identifies a machine is replaced by `scrub`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wattledger_agent.sources.nvml import (
    CLOCK_MEMORY,
    CLOCK_SM,
    FIELD_POWER_AVERAGE,
    FIELD_POWER_INSTANT,
    FIELD_POWER_LIMIT_MAX,
    SCOPE_GPU,
    SCOPE_MEMORY,
    SCOPE_MODULE,
    TEMPERATURE_GPU,
    UNSUPPORTED,
    Nvml,
    error_value,
    read_fields,
    text,
)
from wattledger_agent.sources.nvml_recorded import VERSION

Answer = Any
Recording = dict[str, Any]

FIELDS = (
    *((FIELD_POWER_AVERAGE, scope) for scope in (SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY)),
    *((FIELD_POWER_INSTANT, scope) for scope in (SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY)),
    (FIELD_POWER_LIMIT_MAX, SCOPE_MODULE),
)

# Calls with one number or text, with a list of numbers, and with a structure of which these fields are kept.
_VALUES = (
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetBoardPartNumber",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMaxMigDeviceCount",
)
_LISTS = ("nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetMigMode")
_STRUCTURES: dict[str, tuple[str, ...]] = {
    "nvmlDeviceGetPciInfo": ("busId",),
    "nvmlDeviceGetUtilizationRates": ("gpu", "memory"),
    "nvmlDeviceGetMemoryInfo": ("total", "used", "free"),
    "nvmlGpmQueryDeviceSupport": ("isSupportedDevice",),
}
_PROCESS = ("pid", "gpuInstanceId", "computeInstanceId")
_SAMPLE = ("pid", "timeStamp", "smUtil")
_ATTRIBUTES = ("multiprocessorCount", "gpuInstanceSliceCount", "computeInstanceSliceCount")


def record_nvml(nvml: Nvml) -> Recording:
    """Everything that the agent asks, of every GPU. NVML must have been started. Raises NVMLError if it can't count them."""
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:
            continue
        gpus.append(record_answers(nvml, handle))
    system = {"nvmlSystemGetDriverVersion": _asked(nvml, nvml.nvmlSystemGetDriverVersion)}
    return {"version": VERSION, "system": system, "gpus": gpus}


def record_answers(nvml: Nvml, handle: Any) -> dict[str, Answer]:
    """The answers of one GPU, its MIG instances included; what is not supported is left out."""
    answers: dict[str, Answer] = {call: _asked(nvml, getattr(nvml, call), handle) for call in (*_VALUES, *_LISTS)}
    for call, fields in _STRUCTURES.items():
        answers[call] = _asked(nvml, getattr(nvml, call), handle, keep=fields)
    answers["nvmlDeviceGetTemperature"] = _by_argument(nvml, nvml.nvmlDeviceGetTemperature, handle, (TEMPERATURE_GPU,))
    answers["nvmlDeviceGetClockInfo"] = _by_argument(nvml, nvml.nvmlDeviceGetClockInfo, handle, (CLOCK_SM, CLOCK_MEMORY))
    answers["nvmlDeviceGetFieldValues"] = _fields(nvml, handle)
    answers["nvmlDeviceGetComputeRunningProcesses"] = _processes(nvml, handle)
    answers["nvmlDeviceGetProcessUtilization"] = _asked(nvml, nvml.nvmlDeviceGetProcessUtilization, handle, 0, keep=_SAMPLE)
    answers["instances"] = _instances(nvml, handle, answers)
    return {call: answer for call, answer in answers.items() if answer is not None}


def record_again(recording: Recording, nvml: Nvml, seconds: float) -> None:
    """Take the answers once more, so long after the first: what has changed becomes a series."""
    by_uuid = {gpu["nvmlDeviceGetUUID"]: gpu for gpu in recording["gpus"]}
    for gpu in record_nvml(nvml)["gpus"]:
        before = by_uuid.get(gpu["nvmlDeviceGetUUID"])
        if before is not None:
            _extend(before, gpu, seconds)


def scrub(recording: Recording) -> dict[str, str]:
    """Replace UUIDs and serial numbers, the same by the same. Returns what each became, for other files of the machine."""
    replaced: dict[str, str] = {}
    for gpu in recording["gpus"]:
        _replace(gpu, "nvmlDeviceGetUUID", replaced, "GPU-00000000-0000-0000-0000-{:012d}")
        _replace(gpu, "nvmlDeviceGetSerial", replaced, "165000000{:04d}")
        for instance in gpu.get("instances", ()):
            _replace(instance, "nvmlDeviceGetUUID", replaced, "MIG-00000000-0000-0000-0000-{:012d}")
    return replaced


def _asked(nvml: Nvml, call: Callable[..., Any], *arguments: Any, keep: tuple[str, ...] | None = None) -> Answer:
    """An answer as it is recorded: None where unsupported, an error's value where it failed."""
    try:
        answer = call(*arguments)
    except nvml.NVMLError as error:
        return None if error_value(error) in UNSUPPORTED else {"error": error_value(error)}
    return _plain(answer, keep)


def _plain(answer: Any, keep: tuple[str, ...] | None) -> Answer:
    if isinstance(answer, bytes | str):
        return text(answer)
    if isinstance(answer, Sequence):
        return [_plain(one, keep) for one in answer]
    if keep is None:
        return answer
    return {name: _plain(getattr(answer, name), None) for name in keep if hasattr(answer, name)}


def _by_argument(nvml: Nvml, call: Callable[..., Any], handle: Any, arguments: Sequence[int]) -> Answer:
    answers = {str(argument): _asked(nvml, call, handle, argument) for argument in arguments}
    return {argument: answer for argument, answer in answers.items() if answer is not None} or None


def _fields(nvml: Nvml, handle: Any) -> Answer:
    try:
        answers = read_fields(nvml, handle, FIELDS)
    except nvml.NVMLError as error:
        return None if error_value(error) in UNSUPPORTED else {"error": error_value(error)}
    recorded: dict[str, Answer] = {}
    for (number, scope), answer in answers.items():
        if answer is not None:
            recorded[f"{number}/{scope}"] = {"error": error_value(answer)} if isinstance(answer, Exception) else answer
    return recorded or None


def _processes(nvml: Nvml, handle: Any) -> Answer:
    return _asked(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle, keep=_PROCESS)


def _instances(nvml: Nvml, handle: Any, answers: Mapping[str, Answer]) -> list[dict[str, Answer]] | None:
    mig, count = answers.get("nvmlDeviceGetMigMode"), answers.get("nvmlDeviceGetMaxMigDeviceCount")
    if not isinstance(mig, list) or mig[0] != 1 or not isinstance(count, int):
        return None
    found = []
    for index in range(count):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue
        recorded = {
            "nvmlDeviceGetUUID": _asked(nvml, nvml.nvmlDeviceGetUUID, instance),
            "nvmlDeviceGetGpuInstanceId": _asked(nvml, nvml.nvmlDeviceGetGpuInstanceId, instance),
            "nvmlDeviceGetAttributes": _asked(nvml, nvml.nvmlDeviceGetAttributes, instance, keep=_ATTRIBUTES),
            "nvmlDeviceGetMemoryInfo": _asked(
                nvml, nvml.nvmlDeviceGetMemoryInfo, instance, keep=_STRUCTURES["nvmlDeviceGetMemoryInfo"]
            ),
            "nvmlDeviceGetComputeRunningProcesses": _processes(nvml, instance),
        }
        found.append({call: answer for call, answer in recorded.items() if answer is not None})
    return found


def _extend(before: dict[str, Answer], now: Mapping[str, Answer], seconds: float) -> None:
    for call, answer in now.items():
        if call == "instances":
            by_uuid = {instance["nvmlDeviceGetUUID"]: instance for instance in before.get("instances", ())}
            for instance in answer:
                if instance["nvmlDeviceGetUUID"] in by_uuid:
                    _extend(by_uuid[instance["nvmlDeviceGetUUID"]], instance, seconds)
        elif call in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature"):
            if isinstance(before.get(call), dict) and "error" not in answer:
                _extend(before[call], answer, seconds)
        elif call in before:
            _append(before, call, answer, seconds)


def _append(before: dict[str, Answer], call: str, answer: Answer, seconds: float) -> None:
    old = before[call]
    if isinstance(old, dict) and "series" in old:
        if old["series"][-1][1] != answer:
            old["series"].append([seconds, answer])
    elif old != answer:
        before[call] = {"series": [[0.0, old], [seconds, answer]]}


def _replace(answers: dict[str, Answer], call: str, replaced: dict[str, str], pattern: str) -> None:
    value = answers.get(call)
    if isinstance(value, str) and value:
        answers[call] = replaced.setdefault(value, pattern.format(len(replaced)))
