"""How busy the multiprocessors and tensor cores of a GPU really were, by GPM (Hopper and newer).

Off unless the operator allows it: profiling may cost the host power and conflicts with other profilers. Each read compares
the counters with those of the read before. Source of truth: nvml.h (nvmlGpmMetricsGet).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wattledger_agent.readings import UtilizationKind, UtilizationReading
from wattledger_agent.sources.nvidia_gpu import Gpu
from wattledger_agent.sources.nvidia_mig import Instance
from wattledger_agent.sources.nvml import (
    GPM_METRICS_VERSION,
    GPM_SM_UTILIZATION,
    GPM_TENSOR_UTILIZATION,
    SUCCESS,
    UNSUPPORTED,
    Nvml,
    error_value,
)

PERCENT = 100

_METRICS = (
    (GPM_SM_UTILIZATION, UtilizationKind.SM_ACTIVE),
    (GPM_TENSOR_UTILIZATION, UtilizationKind.TENSOR_ACTIVE),
)


@dataclass(slots=True)
class _Pair:
    """Two samples that are taken in turn, and the structure to compare them. is_primed: `before` holds one."""

    before: Any
    after: Any
    metrics: Any = None
    is_primed: bool = False


@dataclass(slots=True)
class GpmReader:
    """Reads the activity of every GPU that has GPM, or of its instances; keeps the samples to compare with."""

    nvml: Nvml
    notes: list[str]
    _pairs: dict[str, _Pair] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    def read(self, gpu: Gpu, instances: Sequence[Instance]) -> list[UtilizationReading]:
        """The activity since the read before; empty at the first read and where there is no GPM."""
        if gpu.device in self._refused:
            return []
        try:
            if gpu.device not in self._pairs and not self._is_supported(gpu):
                return self._refuse(gpu, "it has none (GPM comes with Hopper)")
            self._pairs.setdefault(gpu.device, _Pair(None, None))
            if not gpu.has_mig:
                return self._one(gpu.device, partial(self.nvml.nvmlGpmSampleGet, gpu.handle))
            readings: list[UtilizationReading] = []
            for instance in instances:
                sample = partial(self.nvml.nvmlGpmMigSampleGet, gpu.handle, instance.gpu_instance)
                readings += self._one(instance.device, sample)
            return readings
        except self.nvml.NVMLError as error:
            return self._refuse(gpu, str(error)) if error_value(error) in UNSUPPORTED else []

    def close(self) -> None:
        """Give the samples back."""
        for pair in self._pairs.values():
            for sample in (pair.before, pair.after):
                if sample is not None:
                    try:
                        self.nvml.nvmlGpmSampleFree(sample)
                    except self.nvml.NVMLError as error:
                        self.notes.append(f"nvidia: a GPM sample was not given back ({error}).")
        self._pairs.clear()

    def _is_supported(self, gpu: Gpu) -> bool:
        return bool(self.nvml.nvmlGpmQueryDeviceSupport(gpu.handle).isSupportedDevice)

    def _refuse(self, gpu: Gpu, why: str) -> list[UtilizationReading]:
        self._refused.add(gpu.device)
        self.notes.append(f"nvidia: the activity of {gpu.device} can't be profiled: {why}.")
        return []

    def _one(self, device: str, sample: Callable[[Any], Any]) -> list[UtilizationReading]:
        pair = self._pairs.setdefault(device, _Pair(None, None))
        if pair.before is None:
            pair.before = self.nvml.nvmlGpmSampleAlloc()
        if pair.after is None:
            pair.after = self.nvml.nvmlGpmSampleAlloc()
        sample(pair.after if pair.is_primed else pair.before)
        if not pair.is_primed:
            pair.is_primed = True
            return []
        readings = self._compare(device, pair)
        pair.before, pair.after = pair.after, pair.before
        return readings

    def _compare(self, device: str, pair: _Pair) -> list[UtilizationReading]:
        if pair.metrics is None:
            # Some 20 kB, made once; not shared, for a call for another GPU may still be under way.
            pair.metrics = self.nvml.c_nvmlGpmMetricsGet_t()
        asked = pair.metrics
        asked.version, asked.numMetrics = GPM_METRICS_VERSION, len(_METRICS)
        asked.sample1, asked.sample2 = pair.before, pair.after
        for index, (metric, _) in enumerate(_METRICS):
            asked.metrics[index].metricId = metric
        self.nvml.nvmlGpmMetricsGet(asked)
        readings = []
        for index, (_, kind) in enumerate(_METRICS):
            answer = asked.metrics[index]
            if answer.nvmlReturn == SUCCESS and 0 <= answer.value <= PERCENT:
                readings.append(UtilizationReading(device, kind, answer.value / PERCENT))
        return readings
