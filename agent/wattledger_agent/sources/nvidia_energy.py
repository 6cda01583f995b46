"""Reads the energy channels of one NVIDIA GPU: its leaf, its memory, its superchip's counter, and its module's power.

Decides nothing about wraps or sums, and finds no channels (see nvidia_gpu). Source of truth: nvml.h.
"""

from collections.abc import Mapping, Sequence

from wattledger_agent.known_faults import energy_sentinel, power_sentinel
from wattledger_agent.readings import ChannelKey, ChannelSpec, CounterReading, Method, PowerReading, Reading, TryAgain
from wattledger_agent.sources.nvidia_gpu import Gpu
from wattledger_agent.sources.nvidia_module import Module
from wattledger_agent.sources.nvidia_pci import GENERATION_MASK
from wattledger_agent.sources.nvml import LOST, Field, Nvml, error_value, read_fields

MICROJOULES_PER_MILLIJOULE = 1000
MICROWATTS_PER_MILLIWATT = 1000

Answers = Mapping[Field, int | Exception | None]


def read_energy(
    nvml: Nvml, gpu: Gpu, module: Module | None, run_generation: int, readings: list[Reading], *, with_powers: bool
) -> Answers:
    """Read all channels of a GPU, and its module's if this GPU is asked for it. Returns the answers of its power fields.

    with_powers: ask for the GPU's average and instant power too. Raises NVMLError, with nothing read, if the leaf fails.
    """
    said: list[Reading] = []
    if gpu.leaf is not None and gpu.leaf_field is None:
        said.append(_leaf(nvml, gpu, gpu.leaf, run_generation))
    wanted = {gpu.leaf_field: None, gpu.memory_field if gpu.memory else None: None}
    wanted |= {gpu.module_field if module is not None else None: None}
    wanted |= dict.fromkeys(gpu.power_fields if with_powers else ())
    answers = _fields(nvml, gpu, [field for field in wanted if field is not None])
    if gpu.leaf is not None and gpu.leaf_field is not None:
        answer = answers[gpu.leaf_field]
        if isinstance(answer, Exception):
            raise answer
        said.append(_power(gpu.leaf.key, answer))
    if gpu.memory is not None and gpu.memory_field is not None:
        said.append(_power(gpu.memory.key, answers[gpu.memory_field]))
    if gpu.counter is not None:
        said.append(_shown_counter(nvml, gpu, gpu.counter, run_generation))
    if module is not None and gpu.module_field is not None:
        said.append(_power(module.spec.key, answers[gpu.module_field]))
    readings.extend(said)
    return answers


def _fields(nvml: Nvml, gpu: Gpu, fields: Sequence[Field]) -> Answers:
    if not fields:
        return {}
    try:
        return read_fields(nvml, gpu.handle, fields)
    except nvml.NVMLError as error:
        if error_value(error) in LOST:
            raise
        return dict.fromkeys(fields, error)


def _leaf(nvml: Nvml, gpu: Gpu, leaf: ChannelSpec, run_generation: int) -> Reading:
    if leaf.method is Method.INTEGRAL:
        return _power(leaf.key, nvml.nvmlDeviceGetPowerUsage(gpu.handle))
    return _counter(nvml, gpu, leaf.key, run_generation)


def _shown_counter(nvml: Nvml, gpu: Gpu, spec: ChannelSpec, run_generation: int) -> Reading:
    try:
        return _counter(nvml, gpu, spec.key, run_generation)
    except nvml.NVMLError as error:
        return TryAgain(spec.key, f"nvidia: the energy counter of {gpu.device} can't be read: {error}")


def _counter(nvml: Nvml, gpu: Gpu, key: ChannelKey, run_generation: int) -> Reading:
    microjoules = nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle) * MICROJOULES_PER_MILLIJOULE
    fault = energy_sentinel(key.source, microjoules)
    if fault is not None:
        return TryAgain(key, f"nvidia: {gpu.device} counts {microjoules} uJ: {fault.sentence}")
    return CounterReading(key, microjoules, _generation(gpu, run_generation))


def _generation(gpu: Gpu, run_generation: int) -> int:
    """Changes with each load of the driver; without persistence mode with each start of the agent too.

    Without it the driver takes a GPU down, and its counter with it, when the last program lets go of it. While the agent
    holds NVML neither can happen.
    """
    return gpu.generation if gpu.persistent else (gpu.generation ^ run_generation) & GENERATION_MASK


def _power(key: ChannelKey, milliwatts: int | Exception | None) -> Reading:
    if not isinstance(milliwatts, int):
        why = "it is not supported any more" if milliwatts is None else str(milliwatts)
        return TryAgain(key, f"nvidia: the power of {key.device} can't be read: {why}; if this stays, see nvidia-smi -q")
    if milliwatts == 0:
        return TryAgain(key, f"nvidia: {key.device} says that it draws 0 W, which nothing that answers does")
    microwatts = milliwatts * MICROWATTS_PER_MILLIWATT
    fault = power_sentinel(key.source, microwatts)
    if fault is not None:
        return TryAgain(key, f"nvidia: {key.device} says that it draws {milliwatts} mW: {fault.sentence}")
    return PowerReading(key, microwatts)
