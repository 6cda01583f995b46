"""Finds out what each NVIDIA GPU of a host has, once: which channels, which fields, which module it sits on.

Reads no value twice and books nothing. Source of truth: nvml.h; what a board supports differs by product and is asked, never
concluded from a name, but for the superchips' energy counter (below).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wattledger_agent.known_faults import power_sentinel
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, Role
from wattledger_agent.sources.nvidia_pci import PciDevice
from wattledger_agent.sources.nvml import (
    ARCHITECTURE_AMPERE,
    FIELD_POWER_AVERAGE,
    FIELD_POWER_INSTANT,
    FIELD_POWER_LIMIT_MAX,
    SCOPE_GPU,
    SCOPE_MEMORY,
    SCOPE_MODULE,
    UNSUPPORTED,
    Field,
    Nvml,
    error_value,
    read_fields,
    text,
)

NAME = "nvidia"

MILLIWATTS_PER_WATT = 1000
MICROWATTS_PER_MILLIWATT = 1000

# Twice the largest limit that can be set: excursions above the limit last milliseconds. The counter does not wrap, so a
# generous bound costs nothing but wider gaps.
POWER_BOUND_FACTOR = 2.0
# Where NVML states no limit: the largest module of 2025 (GB300) is sold with 1400 W a GPU, and two GPUs to a module.
POWER_BOUND_WATTS_DEFAULT = 3000.0
MODULE_POWER_BOUND_WATTS_DEFAULT = 6000.0

# A field that fails in passing is asked again, so that a board is not taken for one without it.
PROBE_TRIES_MAX = 3

# On a superchip (GH200, GB200, GB10) CPU and GPU share one module. On GH200 the energy counter was seen to count all of it
# (ml-energy/zeus, pull request 172), while nvml.h speaks of the GPU; so it is not booked where there is such a module.
_SUPERCHIP = re.compile(r"\bG[HB]\d+")

# The last chips whose nvmlDeviceGetPowerUsage is of the instant and not of a second: GA100, and all before Ampere.
GA100 = re.compile(r"\b(A100|A30|A800)\b")

GPU_AVERAGE: Field = (FIELD_POWER_AVERAGE, SCOPE_GPU)
GPU_INSTANT: Field = (FIELD_POWER_INSTANT, SCOPE_GPU)
MODULE_LIMIT: Field = (FIELD_POWER_LIMIT_MAX, SCOPE_MODULE)

# An average over the second that a sample stands for has no blind spot; the power of an instant has.
_MODULE = ((FIELD_POWER_AVERAGE, SCOPE_MODULE), (FIELD_POWER_INSTANT, SCOPE_MODULE))
_MEMORY = ((FIELD_POWER_AVERAGE, SCOPE_MEMORY), (FIELD_POWER_INSTANT, SCOPE_MEMORY))
_PROBED = (GPU_AVERAGE, GPU_INSTANT, *_MODULE, *_MEMORY, MODULE_LIMIT)


@dataclass(slots=True)
class Gpu:
    """One GPU, and what is known of it.

    handle: NVML's; None while it has slept since the start. leaf: None if neither energy nor power can be read; leaf_field:
    the field that its power is in, None if it is read by a call of its own. memory, counter: shown channels, if it has them.
    power_fields: average and instant power of the GPU alone, as far as supported. generation: of its counter.
    persistent: its counter goes on while no program has it open. has_mig: it is cut into instances.
    hangs: a call for it has not returned. unsupported: calls that it answered with "not supported"; they are not made again.
    """

    handle: Any
    pci: PciDevice
    device: str
    model: str
    leaf: ChannelSpec | None = None
    leaf_field: Field | None = None
    memory: ChannelSpec | None = None
    memory_field: Field | None = None
    counter: ChannelSpec | None = None
    power_fields: tuple[Field, ...] = ()
    module_field: Field | None = None
    module_bound_watts: float = MODULE_POWER_BOUND_WATTS_DEFAULT
    board: str = ""
    is_superchip: bool = False
    averages_power: bool = True
    generation: int = 0
    persistent: bool = True
    has_mig: bool = False
    unsupported: set[str] = field(default_factory=set)
    lost_reads: int = 0
    gone: bool = False
    hangs: bool = False
    binding: int = 0

    @property
    def specs(self) -> list[ChannelSpec]:
        """Its own channels, the leaf first."""
        return [spec for spec in (self.leaf, self.memory, self.counter) if spec is not None]

    def ask(self, nvml: Nvml, call: str, *arguments: Any) -> Any:
        """The answer of a call, or None where it fails: for what is good to know. What is unsupported is asked once."""
        name = f"{call}{arguments or ''}"
        function = getattr(nvml, call, None)
        if function is None or name in self.unsupported:
            self.unsupported.add(name)  # Older modules have fewer functions.
            return None
        try:
            return function(self.handle, *arguments)
        except nvml.NVMLError as error:
            if error_value(error) in UNSUPPORTED:
                self.unsupported.add(name)
            return None


def probe(nvml: Nvml, handle: Any, pci: PciDevice, notes: list[str]) -> Gpu:
    """Find out what a GPU has. Raises NVMLError if even its name can't be had."""
    uuid, model = text(nvml.nvmlDeviceGetUUID(handle)), text(nvml.nvmlDeviceGetName(handle))
    gpu = Gpu(handle, pci, f"gpu/{uuid}", model, generation=pci.generation())
    gpu.persistent = gpu.ask(nvml, "nvmlDeviceGetPersistenceMode") == 1
    mig = gpu.ask(nvml, "nvmlDeviceGetMigMode")
    gpu.has_mig = mig is not None and mig[0] == 1
    found = _probe_fields(gpu, nvml, notes)
    gpu.power_fields = tuple(field for field in (GPU_AVERAGE, GPU_INSTANT) if field in found)
    gpu.module_field = _first(_MODULE, found)
    gpu.is_superchip = gpu.module_field is not None or _SUPERCHIP.search(model) is not None
    gpu.module_bound_watts = _bound_watts(found.get(MODULE_LIMIT), MODULE_POWER_BOUND_WATTS_DEFAULT)
    gpu.board = _board(gpu, nvml)
    gpu.averages_power = _averages_power(gpu, nvml)
    _add_leaf(gpu, nvml, notes)
    _add_memory(gpu, found)
    if gpu.has_mig:
        notes.append(f"nvidia: {model} {uuid} is cut by MIG; its energy is metered once, for the whole GPU.")
    return gpu


def asleep_gpu(pci: PciDevice, uuid: str, model: str, notes: list[str]) -> Gpu:
    """A GPU that sleeps at the start. It is not woken to be asked, so its power is integrated in this run."""
    gpu = Gpu(None, pci, f"gpu/{uuid}", model)
    gpu.leaf = _leaf_spec(gpu, Method.INTEGRAL, POWER_BOUND_WATTS_DEFAULT)
    notes.append(
        f"nvidia: {model} {uuid} slept at the start and was not woken; its power is integrated until the next start."
    )
    return gpu


def gpu_channel(device: str) -> ChannelKey:
    """The key of a GPU's energy."""
    return ChannelKey(device, "board", NAME)


def _probe_fields(gpu: Gpu, nvml: Nvml, notes: list[str]) -> dict[Field, int]:
    found: dict[Field, int] = {}
    wanted: Sequence[Field] = _PROBED
    for _ in range(PROBE_TRIES_MAX):
        try:
            answers = read_fields(nvml, gpu.handle, wanted)
        except nvml.NVMLError as error:
            if error_value(error) in UNSUPPORTED:
                return found
            continue
        found |= {field: answer for field, answer in answers.items() if isinstance(answer, int) and _is_power(answer)}
        wanted = [field for field, answer in answers.items() if isinstance(answer, Exception)]
        if not wanted:
            return found
    names = ", ".join(f"{number}/{scope}" for number, scope in wanted)
    notes.append(
        f"nvidia: {gpu.device} did not answer for the power fields {names}; they are left out until the next start."
    )
    return found


def _add_leaf(gpu: Gpu, nvml: Nvml, notes: list[str]) -> None:
    bound_watts = _gpu_bound_watts(gpu, nvml)
    has_counter = _answers(gpu, nvml, "nvmlDeviceGetTotalEnergyConsumption")
    if has_counter and not gpu.is_superchip:
        gpu.leaf = _leaf_spec(gpu, Method.COUNTER, bound_watts)
        return
    gpu.leaf_field = gpu.power_fields[0] if gpu.is_superchip and gpu.power_fields else None
    if gpu.leaf_field is not None or _answers(gpu, nvml, "nvmlDeviceGetPowerUsage"):
        gpu.leaf = _leaf_spec(gpu, Method.INTEGRAL, bound_watts)
    else:
        notes.append(
            f"nvidia: {gpu.model} {gpu.device} has neither an energy counter nor a power sensor; it is not metered."
        )
    if has_counter:
        gpu.counter = ChannelSpec(
            key=ChannelKey(gpu.device, "counter", NAME),
            component=Component.GPU,
            method=Method.COUNTER,
            role=Role.SHOWN,
            power_bound_watts=gpu.module_bound_watts + bound_watts,
            model=gpu.model,
        )
        notes.append(
            f"nvidia: the energy counter of {gpu.model} {gpu.device} may cover its module, Grace CPU and memory included; "
            "it is shown and not booked, and the GPU's own power is integrated."
        )


def _add_memory(gpu: Gpu, found: dict[Field, int]) -> None:
    gpu.memory_field = _first(_MEMORY, found)
    if gpu.memory_field is None or gpu.leaf is None:
        return
    gpu.memory = ChannelSpec(
        key=ChannelKey(gpu.device, "memory", NAME),
        component=Component.GPU,
        method=Method.INTEGRAL,
        role=Role.SHOWN,
        power_bound_watts=gpu.leaf.power_bound_watts,
        parent=gpu.leaf.key,
        model=gpu.model,
    )


def _leaf_spec(gpu: Gpu, method: Method, bound_watts: float) -> ChannelSpec:
    return ChannelSpec(
        key=gpu_channel(gpu.device),
        component=Component.GPU,
        method=method,
        role=Role.LEAF,
        power_bound_watts=bound_watts,
        model=gpu.model,
    )


def _answers(gpu: Gpu, nvml: Nvml, call: str) -> bool:
    """Whether the GPU has this call. A passing error is no proof that it has not."""
    gpu.ask(nvml, call)
    return call not in gpu.unsupported


def _gpu_bound_watts(gpu: Gpu, nvml: Nvml) -> float:
    constraints = gpu.ask(nvml, "nvmlDeviceGetPowerManagementLimitConstraints")
    limit = constraints[1] if constraints else gpu.ask(nvml, "nvmlDeviceGetEnforcedPowerLimit")
    return _bound_watts(limit, POWER_BOUND_WATTS_DEFAULT)


def _bound_watts(limit_milliwatts: int | None, default: float) -> float:
    return limit_milliwatts / MILLIWATTS_PER_WATT * POWER_BOUND_FACTOR if limit_milliwatts else default


def _averages_power(gpu: Gpu, nvml: Nvml) -> bool:
    architecture = gpu.ask(nvml, "nvmlDeviceGetArchitecture")
    return architecture is not None and architecture >= ARCHITECTURE_AMPERE and GA100.search(gpu.model) is None


def _board(gpu: Gpu, nvml: Nvml) -> str:
    """The serial number of the GPU's board; both GPUs of a GB200 module have the same. Empty if there is none."""
    serial = gpu.ask(nvml, "nvmlDeviceGetSerial") if gpu.is_superchip else None
    return text(serial).strip() if serial else ""


def _is_power(milliwatts: int) -> bool:
    """Whether a part that answers so is there: one that draws nothing is none, nor is one without a value."""
    return milliwatts > 0 and power_sentinel(NAME, milliwatts * MICROWATTS_PER_MILLIWATT) is None


def _first(fields: Sequence[Field], found: dict[Field, int]) -> Field | None:
    return next((field for field in fields if field in found), None)
