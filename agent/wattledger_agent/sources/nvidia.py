"""Energy and utilization of NVIDIA GPUs by NVML.

Never per process, and never a GPU twice: a GPU that is cut into MIG instances is metered once, as a whole. The total-energy
counter comes first; where a GPU has none, its power is read and the meter integrates it. Source of truth: nvml.h
(nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was last reloaded; Volta and newer).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.nvml import LOST, UNSUPPORTED, Nvml, error_value, load_nvml, remedy, text

NAME = "nvidia"

MICROJOULES_PER_MILLIJOULE = 1000
MICROWATTS_PER_MILLIWATT = 1000
MILLIWATTS_PER_WATT = 1000

# A GPU that NVML calls lost has fallen off the bus and stays so until a reset or a reboot; a few reads more are given for an
# answer that was wrong, then its channel is closed, so that it is not a gap for ever.
LOST_READS_MAX = 3

# Twice the largest limit that can be set: excursions above the limit last milliseconds, and a superchip's counter covers its
# CPU too. The counter does not wrap, so a generous bound costs nothing but wider gaps.
POWER_BOUND_FACTOR = 2.0
# Where NVML states no limit: the largest module of 2025 (GB300) is sold with 1400 W.
POWER_BOUND_WATTS_DEFAULT = 3000.0

GENERATION_MASK = 2**63 - 1

READ_BYTES = 16


@dataclass(slots=True)
class _Gpu:
    """One GPU. `spec` is None if neither energy nor power can be read; `runtime_status` is -1 if it never sleeps.

    persistent: its counter goes on while no program has it open. unsupported: fields that it does not have.
    """

    handle: Any
    device: str
    spec: ChannelSpec | None
    persistent: bool
    runtime_status: int
    unsupported: set[UtilizationKind] = field(default_factory=set)
    lost_reads: int = 0
    gone: bool = False


class NvidiaSource:
    """A leaf for each GPU, with its busy share and the share of its memory in use.

    nvml: stands for the module `pynvml`; None: that module. opener, pread: how files are opened and read; replaced by tests.
    """

    name = NAME
    may_block = True  # A driver call hangs when its GPU does.

    def __init__(
        self,
        sysfs_root: Path = Path("/sys"),
        *,
        nvml: Nvml | None = None,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._nvml = nvml
        self._opener = opener
        self._pread = pread
        self._gpus: list[_Gpu] = []
        self._notes: list[str] = []
        self._driver_generation = 0
        self._run_generation = 0
        self._started = False

    def open(self) -> Sequence[ChannelSpec]:
        """Start NVML and probe every GPU. Raises SourceUnavailableError if there is none."""
        self.close()
        self._notes = []
        nvml = self._start()
        self._driver_generation = self._module_inode()
        self._run_generation = 0
        for index in range(self._count(nvml)):
            try:
                self._gpus.append(self._probe(nvml, nvml.nvmlDeviceGetHandleByIndex(index)))
            except nvml.NVMLError as error:
                self._notes.append(f"nvidia: GPU number {index} can't be opened ({error}); it is not metered. Reset it.")
        if not self._gpus:
            notes = " ".join(self._notes)
            self.close()
            raise SourceUnavailableError(
                f"nvidia: NVML finds no GPU. {notes}".strip(), "See nvidia-smi and the kernel's log."
            )
        return [gpu.spec for gpu in self._gpus if gpu.spec is not None]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every GPU: three calls of NVML each, fewer where fields are unsupported, none while it sleeps."""
        if self._run_generation == 0:
            self._run_generation = now_nanoseconds
        readings: list[Reading] = []
        for gpu in self._gpus:
            if not gpu.gone:
                self._read(gpu, readings)
        return readings

    def notes(self) -> Sequence[str]:
        """Which GPUs are cut by MIG, lack a field, or could not be opened."""
        return list(self._notes)

    def close(self) -> None:
        """Close the files and NVML."""
        for gpu in self._gpus:
            if gpu.runtime_status >= 0:
                os.close(gpu.runtime_status)
        if self._started and self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                self._notes.append(f"nvidia: NVML did not shut down ({error}).")
        self._gpus = []
        self._started = False

    def _start(self) -> Nvml:
        if self._nvml is None:
            self._nvml = load_nvml()
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise SourceUnavailableError(f"nvidia: NVML does not start: {error}.", remedy(error_value(error))) from error
        self._started = True
        return self._nvml

    def _count(self, nvml: Nvml) -> int:
        try:
            return nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self._notes.append(f"nvidia: the GPUs can't be counted: {error}.")
            return 0

    def _probe(self, nvml: Nvml, handle: Any) -> _Gpu:
        """Find out what a GPU has. Raises NVMLError if even its name can't be had."""
        uuid, model = text(nvml.nvmlDeviceGetUUID(handle)), text(nvml.nvmlDeviceGetName(handle))
        gpu = _Gpu(
            handle,
            device=f"gpu/{uuid}",
            spec=None,
            persistent=self._ask(nvml.nvmlDeviceGetPersistenceMode, handle) == 1,
            runtime_status=self._open_runtime_status(nvml, handle),
        )
        method = self._method(nvml, handle)
        if method is None:
            self._notes.append(
                f"nvidia: {model} {uuid} has neither an energy counter nor a power sensor; it is not metered."
            )
        else:
            gpu.spec = ChannelSpec(
                key=ChannelKey(gpu.device, "board", NAME),
                component=Component.GPU,
                method=method,
                role=Role.LEAF,
                power_bound_watts=self._power_bound_watts(nvml, handle),
                model=model,
            )
        mig = self._ask(nvml.nvmlDeviceGetMigMode, handle)
        if mig is not None and mig[0] == 1:
            self._notes.append(f"nvidia: {model} {uuid} is cut by MIG; its energy is metered once, for the whole GPU.")
        if "GH200" in model:
            self._notes.append(
                f"nvidia: the energy counter of {model} {uuid} covers its module, Grace CPU and memory included."
            )
        return gpu

    def _method(self, nvml: Nvml, handle: Any) -> Method | None:
        """Counter, else integral. A passing error is no proof that the counter is missing."""
        for method, call in (
            (Method.COUNTER, nvml.nvmlDeviceGetTotalEnergyConsumption),
            (Method.INTEGRAL, nvml.nvmlDeviceGetPowerUsage),
        ):
            try:
                call(handle)
            except nvml.NVMLError as error:
                if error_value(error) in UNSUPPORTED:
                    continue
            return method
        return None

    def _power_bound_watts(self, nvml: Nvml, handle: Any) -> float:
        constraints = self._ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
        limit = constraints[1] if constraints else self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return limit / MILLIWATTS_PER_WATT * POWER_BOUND_FACTOR if limit else POWER_BOUND_WATTS_DEFAULT

    def _ask(self, call: Any, handle: Any) -> Any:
        """The answer of a call, or None where it fails: for what is good to know, but not needed."""
        assert self._nvml is not None
        try:
            return call(handle)
        except self._nvml.NVMLError:
            return None

    def _read(self, gpu: _Gpu, readings: list[Reading]) -> None:
        nvml = self._nvml
        assert nvml is not None
        if gpu.runtime_status >= 0 and self._sleeps(gpu):
            if gpu.spec is not None:
                readings.append(
                    TryAgain(gpu.spec.key, f"nvidia: {gpu.device} sleeps (runtime power management); left asleep")
                )
            return
        if gpu.spec is not None:
            try:
                readings.append(self._energy(nvml, gpu, gpu.spec))
                gpu.lost_reads = 0
            except nvml.NVMLError as error:
                readings.append(self._failed(gpu, gpu.spec, error))
                # A GPU that does not answer this is not asked more: each call may take its time to fail.
                return
        self._read_utilization(nvml, gpu, readings)

    def _energy(self, nvml: Nvml, gpu: _Gpu, spec: ChannelSpec) -> Reading:
        if spec.method is Method.INTEGRAL:
            return PowerReading(spec.key, nvml.nvmlDeviceGetPowerUsage(gpu.handle) * MICROWATTS_PER_MILLIWATT)
        millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        return CounterReading(spec.key, millijoules * MICROJOULES_PER_MILLIJOULE, self._generation(gpu))

    def _generation(self, gpu: _Gpu) -> int:
        """Changes with each load of the driver; without persistence mode with each start of the agent too.

        Without it the driver takes a GPU down, and its counter with it, when the last program lets go of it. While the agent
        holds NVML neither can happen.
        """
        if gpu.persistent:
            return self._driver_generation
        return (self._driver_generation ^ self._run_generation) & GENERATION_MASK

    def _failed(self, gpu: _Gpu, spec: ChannelSpec, error: Exception) -> Reading:
        if error_value(error) in LOST:
            gpu.lost_reads += 1
            if gpu.lost_reads >= LOST_READS_MAX:
                gpu.gone = True
                return Gone(spec.key, f"nvidia: {gpu.device} fell off the bus ({error}); reset it or boot the host anew")
        return TryAgain(spec.key, f"nvidia: {gpu.device} can't be read: {error}; if this stays, see nvidia-smi -q")

    def _read_utilization(self, nvml: Nvml, gpu: _Gpu, readings: list[Reading]) -> None:
        if UtilizationKind.BUSY not in gpu.unsupported:
            try:
                ratio = nvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu / 100
                readings.append(UtilizationReading(gpu.device, UtilizationKind.BUSY, min(ratio, 1.0)))
            except nvml.NVMLError as error:
                self._utilization_failed(gpu, UtilizationKind.BUSY, error)
        if UtilizationKind.MEMORY not in gpu.unsupported:
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu.handle)
                if memory.total > 0:
                    readings.append(
                        UtilizationReading(gpu.device, UtilizationKind.MEMORY, min(memory.used / memory.total, 1.0))
                    )
            except nvml.NVMLError as error:
                self._utilization_failed(gpu, UtilizationKind.MEMORY, error)

    def _utilization_failed(self, gpu: _Gpu, kind: UtilizationKind, error: Exception) -> None:
        if error_value(error) in UNSUPPORTED:
            gpu.unsupported.add(kind)
            self._notes.append(f"nvidia: {gpu.device} has no {kind.name.lower()} utilization ({error}).")

    def _module_inode(self) -> int:
        """A number that is another after each load of the driver; 0 where sysfs does not show the driver.

        The kernel gives each folder in sysfs a new inode number; its times are those of the first look at it.
        """
        try:
            return (self._sysfs_root / "module" / "nvidia").stat().st_ino & GENERATION_MASK
        except OSError:
            return 0

    def _open_runtime_status(self, nvml: Nvml, handle: Any) -> int:
        """The file that says whether the GPU sleeps, or -1 if runtime power management is off for it, as on most servers."""
        pci = self._ask(nvml.nvmlDeviceGetPciInfo, handle)
        if pci is None:
            return -1
        domain, _, rest = text(pci.busId).lower().partition(":")
        try:
            power = self._sysfs_root / "bus/pci/devices" / f"{int(domain, 16):04x}:{rest}" / "power"
            if (power / "control").read_text().strip() != "auto":
                return -1
            return self._opener(power / "runtime_status")
        except (OSError, ValueError):
            return -1

    def _sleeps(self, gpu: _Gpu) -> bool:
        try:
            return self._pread(gpu.runtime_status, READ_BYTES, 0).startswith(b"suspended")
        except OSError:
            return False
