"""GPUs that MIG has cut into instances: energy of the whole, memory and processes of each instance."""

from pathlib import Path

import pytest
from tests.agent.nvidia_machines import SECOND, gpu_machine

from wattledger_agent.readings import (
    CounterReading,
    Gone,
    PowerReading,
    ProcessShares,
    Role,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)

SEVENTHS = "gpu/GPU-00000006-0000-0000-0000-000000000006"
MIXED = "gpu/GPU-00000007-0000-0000-0000-000000000007"


def test_mig_multiplies_no_watts(tmp_path: Path) -> None:
    """Ten instances on two GPUs have no energy of their own: eight GPUs, eight channels, eight readings."""
    machine = gpu_machine("dgx_a100_mig", tmp_path, processes=True)
    assert len(machine.specs) == 8
    assert {spec.role for spec in machine.specs.values()} == {Role.LEAF}
    readings = machine.source.read(SECOND)
    energy = [one for one in readings if isinstance(one, CounterReading | PowerReading | TryAgain | Gone)]
    assert [type(one) for one in energy] == [CounterReading] * 8
    assert all("MIG" not in one.key.device for one in energy)


def test_each_instance_shows_its_own_memory(tmp_path: Path) -> None:
    """NVML gives it per instance; the whole GPU's busy share it does not give, and that is asked once."""
    machine = gpu_machine("dgx_a100_mig", tmp_path)
    readings = machine.source.read(SECOND)
    memory = {one.device: one.ratio for one in readings if isinstance(one, UtilizationReading)}
    assert len([device for device in memory if device.startswith(f"{SEVENTHS}/MIG-")]) == 7
    assert memory[f"{MIXED}/MIG-00000007-0000-0000-0000-000000000070"] == pytest.approx(9000 / 19968)
    kinds = {(one.device, one.kind) for one in readings if isinstance(one, UtilizationReading)}
    assert (SEVENTHS, UtilizationKind.BUSY) not in kinds
    before = machine.nvml.calls["nvmlDeviceGetUtilizationRates"]
    machine.source.read(2 * SECOND)
    assert machine.nvml.calls["nvmlDeviceGetUtilizationRates"] - before == 6


def test_a_process_has_at_most_its_instances_part(tmp_path: Path) -> None:
    """Three sevenths for two processes, two for one, a seventh idle: what is left over belongs to nobody."""
    machine = gpu_machine("dgx_a100_mig", tmp_path, processes=True)
    shares = {one.device: one.shares for one in machine.source.read(SECOND) if isinstance(one, ProcessShares)}
    assert shares[MIXED] == {4301: pytest.approx(3 / 14), 4302: pytest.approx(3 / 14), 4303: pytest.approx(2 / 7)}
    assert sum(shares[SEVENTHS].values()) == pytest.approx(3 / 7)
    assert "nvmlDeviceGetProcessUtilization" in machine.nvml.calls


def test_process_utilization_is_never_asked_of_a_gpu_with_mig(tmp_path: Path) -> None:
    """It is not supported there; only the six whole GPUs are asked."""
    machine = gpu_machine("dgx_a100_mig", tmp_path, processes=True)
    machine.source.read(SECOND)
    assert machine.nvml.calls["nvmlDeviceGetProcessUtilization"] == 6


def test_instances_that_come_and_go_are_followed(tmp_path: Path) -> None:
    """They are looked for anew every five seconds; the processes of one that went are gone with it."""
    machine = gpu_machine("dgx_a100_mig", tmp_path, processes=True)
    machine.source.read(SECOND)
    gpu = machine.nvml.gpus[7]
    gpu.instances = [one for one in gpu.instances if one.answers["nvmlDeviceGetGpuInstanceId"] != 3]
    for second in range(2, 8):
        readings = machine.source.read(second * SECOND)
    (shares,) = [one.shares for one in readings if isinstance(one, ProcessShares) and one.device == MIXED]
    assert set(shares) == {4301, 4302}


def test_mig_that_is_switched_on_while_the_agent_runs(tmp_path: Path) -> None:
    """The energy goes on under the same key; processes are told by instance from then on."""
    machine = gpu_machine("dgx_a100_mig", tmp_path, processes=True)
    first = machine.source.read(SECOND)
    gpu, device = machine.nvml.gpus[5], "gpu/GPU-00000005-0000-0000-0000-000000000005"
    gpu.answers["nvmlDeviceGetMigMode"] = [1, 1]
    gpu.answers["nvmlDeviceGetMaxMigDeviceCount"] = 7
    gpu.instances = machine.nvml.gpus[7].instances
    del gpu.answers["nvmlDeviceGetUtilizationRates"]
    for second in range(2, 9):
        readings = machine.source.read(second * SECOND)
    (shares,) = [one.shares for one in readings if isinstance(one, ProcessShares) and one.device == device]
    assert set(shares) == {4301, 4302, 4303}
    keys = [one.key for one in first if isinstance(one, CounterReading)]
    assert [one.key for one in readings if isinstance(one, CounterReading)] == keys
