"""Profiled activity: off unless allowed, of the span between two reads, per instance under MIG."""

from pathlib import Path

from tests.agent.fake_nvml import PATIENCE_SECONDS, UNKNOWN, FakeGpu, FakeNvml
from tests.agent.nvidia_machines import SECOND, gpu_machine

from wattledger_agent.readings import ProcessShares, UtilizationKind, UtilizationReading
from wattledger_agent.sources.nvidia import NvidiaSource

HOPPER = {"nvmlGpmQueryDeviceSupport": {"isSupportedDevice": 1}, "nvmlGpmMetricsGet": {"2": 40.0, "5": 12.5}}
PROFILED = (UtilizationKind.SM_ACTIVE, UtilizationKind.TENSOR_ACTIVE)


def activity(readings: object) -> dict[tuple[str, UtilizationKind], float]:
    """What was profiled."""
    assert isinstance(readings, list)
    found = [one for one in readings if isinstance(one, UtilizationReading) and one.kind in PROFILED]
    return {(one.device, one.kind): one.ratio for one in found}


def test_nothing_is_profiled_unless_it_is_allowed(tmp_path: Path) -> None:
    """By default not even the question whether it could be is asked."""
    machine = gpu_machine("dgx_h100", tmp_path)
    for second in (1, 2):
        assert activity(machine.source.read(second * SECOND)) == {}
    assert not [call for call in machine.nvml.calls if "Gpm" in call]


def test_activity_needs_two_reads(tmp_path: Path) -> None:
    """It is what happened between them: the first read says nothing, not zero."""
    machine = gpu_machine("dgx_h100", tmp_path, gpm=True)
    assert activity(machine.source.read(SECOND)) == {}
    shown = activity(machine.source.read(2 * SECOND))
    busy = "gpu/GPU-00000001-0000-0000-0000-000000000001"
    assert shown[busy, UtilizationKind.SM_ACTIVE] == 0.4
    assert shown[busy, UtilizationKind.TENSOR_ACTIVE] == 0.125
    assert len(shown) == 16
    machine.source.close()


def test_a_gpu_before_hopper_is_noted_and_asked_once(tmp_path: Path) -> None:
    """It has no GPM; that is remembered for the run."""
    machine = gpu_machine("t4_server", tmp_path, gpm=True)
    for second in (1, 2, 3):
        assert activity(machine.source.read(second * SECOND)) == {}
    assert machine.nvml.calls["nvmlGpmQueryDeviceSupport"] == 2
    assert sum("can't be profiled" in note for note in machine.source.notes()) == 2


def test_a_passing_error_costs_one_value() -> None:
    """The question whether the GPU has GPM is asked again after it failed in passing."""
    nvml = FakeNvml([FakeGpu("GPU-a", more=HOPPER)])
    nvml.fail["nvmlGpmQueryDeviceSupport"] = lambda number: UNKNOWN if number == 1 else 0
    source = NvidiaSource(Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=nvml, gpm=True)
    source.open()
    shown = [activity(source.read(second * SECOND)) for second in (1, 2, 3)]
    assert [bool(one) for one in shown] == [False, False, True]


def test_under_mig_each_instance_has_its_own_activity_and_its_processes_share_that() -> None:
    """An instance of half the GPU that worked for half the time gives its two processes an eighth each."""
    instances = [
        FakeGpu(
            f"MIG-{number}",
            more={
                "nvmlDeviceGetGpuInstanceId": number,
                "nvmlDeviceGetAttributes": {"computeInstanceSliceCount": 2},
                "nvmlDeviceGetComputeRunningProcesses": [{"pid": 10 * number}, {"pid": 10 * number + 1}],
                "nvmlGpmMetricsGet": {"2": 50.0 * number, "5": 0.0},
            },
        )
        for number in (1, 2)
    ]
    more = {"nvmlDeviceGetMaxMigDeviceCount": 4, "nvmlGpmQueryDeviceSupport": {"isSupportedDevice": 1}}
    gpu = FakeGpu("GPU-a", mig=True, busy_percent=None, instances=instances, more=more)
    source = NvidiaSource(
        Path("/nonexistent"), patience_seconds=PATIENCE_SECONDS, nvml=FakeNvml([gpu]), gpm=True, processes=True
    )
    source.open()
    source.read(SECOND)
    readings = source.read(2 * SECOND)
    shown = activity(readings)
    assert shown["gpu/GPU-a/MIG-1", UtilizationKind.SM_ACTIVE] == 0.5
    assert shown["gpu/GPU-a/MIG-2", UtilizationKind.SM_ACTIVE] == 1.0
    (shares,) = [one for one in readings if isinstance(one, ProcessShares)]
    assert dict(shares.shares) == {10: 0.125, 11: 0.125, 20: 0.25, 21: 0.25}
    source.close()
