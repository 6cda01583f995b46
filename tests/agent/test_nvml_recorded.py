"""NVML from a recording, and a recording from NVML: what is played is what was recorded."""

import importlib
import json
from typing import Any

import pytest
from tests.agent.fake_nvml import NOT_SUPPORTED, UNKNOWN, FakeGpu, FakeNvml, samples
from tests.agent.machines import FIXTURES

from wattledger_agent.sources.nvml import read_fields
from wattledger_agent.sources.nvml_recorded import RecordedError, RecordedNvml, RecordingError
from wattledger_agent.sources.nvml_recording import record_again, record_answers, record_nvml, scrub

MACHINES = sorted(path.parent.name for path in FIXTURES.glob("*/nvml.json"))


def recording_of(name: str) -> dict[str, object]:
    """A fixture's recording."""
    recording: dict[str, object] = json.loads((FIXTURES / name / "nvml.json").read_text())
    return recording


def gpu(**answers: object) -> RecordedNvml:
    """A recording of one GPU."""
    return RecordedNvml({"version": 1, "gpus": [{"nvmlDeviceGetUUID": "GPU-a", **answers}]})


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_recorded_of_a_fixture_is_the_fixture(name: str) -> None:
    """Playing and recording are each other's inverse, but for the profile, which is not recorded."""
    recording = recording_of(name)
    again = record_nvml(RecordedNvml(recording))
    assert isinstance(recording["gpus"], list)
    for one in recording["gpus"]:
        one.pop("nvmlGpmMetricsGet", None)
    assert again == recording


def test_the_machines_of_the_issue_are_there() -> None:
    """Each board whose answers differ in kind."""
    assert {"dgx_a100_mig", "dgx_h100", "gb200", "gh200", "t4_server"} <= set(MACHINES)


def test_what_was_not_recorded_was_not_supported() -> None:
    """So that a recording holds only what a board has."""
    nvml = gpu()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(RecordedError) as caught:
        nvml.nvmlDeviceGetPowerUsage(handle)
    assert caught.value.value == NOT_SUPPORTED
    assert read_fields(nvml, handle, [(185, 0), (186, 1)]) == {(185, 0): None, (186, 1): None}


def test_an_error_is_played_as_it_was() -> None:
    """Also that of a single field."""
    nvml = gpu(nvmlDeviceGetPowerUsage={"error": UNKNOWN}, nvmlDeviceGetFieldValues={"185/0": {"error": UNKNOWN}})
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(RecordedError) as caught:
        nvml.nvmlDeviceGetPowerUsage(handle)
    assert caught.value.value == UNKNOWN
    (answer,) = read_fields(nvml, handle, [(185, 0)]).values()
    assert isinstance(answer, RecordedError)


def test_a_counter_that_was_recorded_once_goes_on_with_its_power() -> None:
    """A recorded GPU that stood still would have drawn nothing; a superchip's counter goes on with its module."""
    nvml = gpu(nvmlDeviceGetTotalEnergyConsumption=1000, nvmlDeviceGetFieldValues={"186/0": 49_680})
    nvml.advance(2.0)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.gpus[0]) == 1000 + 99_360
    module = gpu(nvmlDeviceGetTotalEnergyConsumption=0, nvmlDeviceGetFieldValues={"186/0": 268_000, "185/1": 412_000})
    module.advance(1.0)
    assert module.nvmlDeviceGetTotalEnergyConsumption(module.gpus[0]) == 412_000


def test_a_series_is_played_in_its_time() -> None:
    """The last value recorded before now counts; before the first one, the first."""
    nvml = gpu(nvmlDeviceGetTotalEnergyConsumption={"series": [[0.0, 5], [1.0, 9], [3.0, 20]]})
    seen = []
    for _ in range(5):
        seen.append(nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.gpus[0]))
        nvml.advance(0.9)
    assert seen == [5, 5, 9, 9, 20]


@pytest.mark.parametrize(
    "recording",
    [{}, {"version": 2, "gpus": []}, {"version": 1}, {"version": 1, "gpus": [{"nvmlDeviceGetName": "T4"}]}],
)
def test_what_is_no_recording_is_refused(recording: dict[str, object]) -> None:
    """With what to do about it."""
    with pytest.raises(RecordingError, match="record the machine again"):
        RecordedNvml(recording)


def test_a_recording_over_time_keeps_what_changed() -> None:
    """Energy and power become series; names do not."""
    nvml = FakeNvml([FakeGpu("GPU-a", fields={"185/0": 350_000})])
    recording = record_nvml(nvml)
    nvml.advance(1.0)
    nvml.gpus[0].fields["185/0"] = 360_000
    record_again(recording, nvml, 1.0)
    nvml.advance(1.0)
    record_again(recording, nvml, 2.0)
    (one,) = recording["gpus"]
    first = 10**9
    assert one["nvmlDeviceGetTotalEnergyConsumption"] == {
        "series": [[0.0, first], [1.0, first + 350_000], [2.0, first + 700_000]]
    }
    assert one["nvmlDeviceGetFieldValues"] == {"185/0": {"series": [[0.0, 350_000], [1.0, 360_000]]}}
    assert one["nvmlDeviceGetName"] == "NVIDIA H100 80GB HBM3"
    assert json.loads(json.dumps(recording)) == recording
    played = RecordedNvml(recording)
    played.advance(2.0)
    assert record_nvml(played)["gpus"][0]["nvmlDeviceGetTotalEnergyConsumption"] == first + 700_000


def test_a_gpu_that_appears_later_is_no_part_of_a_recording() -> None:
    """Its first answers would be missing."""
    nvml = FakeNvml([FakeGpu("GPU-a")])
    recording = record_nvml(nvml)
    nvml.gpus.append(FakeGpu("GPU-b"))
    record_again(recording, nvml, 1.0)
    assert len(recording["gpus"]) == 1


def test_scrubbing_keeps_what_is_the_same_the_same() -> None:
    """Two GPUs of one board still have one serial number, and nothing of the machine is left."""
    recording: dict[str, Any] = {
        "version": 1,
        "gpus": [
            {"nvmlDeviceGetUUID": "GPU-secret-1", "nvmlDeviceGetSerial": "1652922010000"},
            {
                "nvmlDeviceGetUUID": "GPU-secret-2",
                "nvmlDeviceGetSerial": "1652922010000",
                "instances": [{"nvmlDeviceGetUUID": "MIG-secret"}],
            },
        ],
    }
    replaced = scrub(recording)
    assert set(replaced) == {"GPU-secret-1", "GPU-secret-2", "1652922010000", "MIG-secret"}
    text = json.dumps(recording)
    assert not [secret for secret in replaced if secret in text]
    first, second = recording["gpus"]
    assert first["nvmlDeviceGetSerial"] == second["nvmlDeviceGetSerial"]
    assert first["nvmlDeviceGetUUID"] != second["nvmlDeviceGetUUID"]


def test_recording_asks_what_the_source_asks_and_changes_nothing() -> None:
    """Only calls that get; those that fail in passing are recorded with their error."""
    more = {"nvmlDeviceGetProcessUtilization": samples((7, 40)), "nvmlDeviceGetPowerUsage": {"error": UNKNOWN}}
    nvml = FakeNvml([FakeGpu(b"GPU-a", name=b"Tesla T4", more=more)])
    answers = record_answers(nvml, nvml.gpus[0])
    assert answers["nvmlDeviceGetUUID"] == "GPU-a"
    assert answers["nvmlDeviceGetPowerUsage"] == {"error": UNKNOWN}
    assert answers["nvmlDeviceGetProcessUtilization"] == samples((7, 40))
    assert all("Get" in call or call == "nvmlGpmQueryDeviceSupport" for call in nvml.calls)


def test_structures_of_the_real_module_are_recorded() -> None:
    """The names of their fields are those of pynvml's structures."""
    pynvml = importlib.import_module("pynvml")
    fields = {
        "nvmlPciInfo_t": {"busId"},
        "c_nvmlUtilization_t": {"gpu", "memory"},
        "c_nvmlMemory_t": {"total", "used", "free"},
        "c_nvmlProcessUtilizationSample_t": {"pid", "timeStamp", "smUtil"},
        "c_nvmlDeviceAttributes": {"multiprocessorCount", "gpuInstanceSliceCount", "computeInstanceSliceCount"},
        "c_nvmlProcessInfo_v3_t": {"pid", "gpuInstanceId", "computeInstanceId"},
        "c_nvmlFieldValue_t": {"fieldId", "scopeId", "valueType", "nvmlReturn", "value"},
        "c_nvmlGpmMetricsGet_t": {"version", "numMetrics", "sample1", "sample2", "metrics"},
        "c_nvmlGpmSupport_t": {"isSupportedDevice"},
    }
    for name, expected in fields.items():
        assert expected <= {field[0] for field in getattr(pynvml, name)._fields_}, name
    values = {name for name, _ in pynvml.c_nvmlValue_t._fields_}
    assert values == {"dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal"}
    assert pynvml.NVML_FI_DEV_POWER_AVERAGE == 185
    assert pynvml.NVML_FI_DEV_POWER_INSTANT == 186
    assert pynvml.NVML_FI_DEV_POWER_MAX_LIMIT == 188
    assert (pynvml.NVML_POWER_SCOPE_GPU, pynvml.NVML_POWER_SCOPE_MODULE, pynvml.NVML_POWER_SCOPE_MEMORY) == (0, 1, 2)
    assert pynvml.NVML_GPM_METRIC_SM_UTIL == 2
    assert pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL == 5
    assert pynvml.NVML_DEVICE_ARCH_AMPERE == 7
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM, pynvml.NVML_TEMPERATURE_GPU) == (1, 2, 0)
