"""The instances that a GPU is cut into by MIG, and which part of the GPU each one is.

Meters nothing: NVML knows energy of the whole GPU only, and no instance has a channel. Source of truth: nvml.h (a MIG device
is a compute instance; its slices are out of those that nvmlDeviceGetMaxMigDeviceCount states for the GPU).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wattledger_agent.sources.nvidia_gpu import Gpu
from wattledger_agent.sources.nvml import UNSUPPORTED, Nvml, error_value, text


@dataclass(slots=True)
class Instance:
    """One MIG device. device: `gpu/GPU-.../MIG-...`. gpu_instance: its number. part: of the GPU's slices, in [0, 1]."""

    handle: Any
    device: str
    gpu_instance: int
    part: float
    unsupported: set[str] = field(default_factory=set)

    def ask(self, nvml: Nvml, call: str) -> Any:
        """The answer of a call, or None where it fails; what is unsupported is asked once."""
        if call in self.unsupported:
            return None
        try:
            return getattr(nvml, call)(self.handle)
        except nvml.NVMLError as error:
            if error_value(error) in UNSUPPORTED:
                self.unsupported.add(call)
            return None


def find_instances(nvml: Nvml, gpu: Gpu) -> Sequence[Instance]:
    """The instances that exist now; they come and go while the GPU works on."""
    slices = gpu.ask(nvml, "nvmlDeviceGetMaxMigDeviceCount")
    found: list[Instance] = []
    for index in range(slices or 0):
        instance = _instance(nvml, gpu, index, slices)
        if instance is not None:
            found.append(instance)
    return found


def _instance(nvml: Nvml, gpu: Gpu, index: int, slices: int) -> Instance | None:
    try:
        handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, index)
        uuid = text(nvml.nvmlDeviceGetUUID(handle))
        attributes = nvml.nvmlDeviceGetAttributes(handle)
        number = nvml.nvmlDeviceGetGpuInstanceId(handle)
    except nvml.NVMLError:
        # No instance has this index, or it has just gone.
        return None
    return Instance(handle, f"{gpu.device}/{uuid}", number, min(attributes.computeInstanceSliceCount / slices, 1.0))
