"""Energy and utilization of NVIDIA GPUs by NVML, and of the modules that carry them.

Never a GPU twice: one that is cut into MIG instances is metered once, as a whole, and a module with two GPUs once. The
total-energy counter comes first; where a GPU has none that is its own, its power is read and the meter integrates it. Source
of truth: nvml.h (nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was last reloaded; Volta and newer).

Calls of NVML at each sample, for each GPU: energy, utilization and memory; one more where it has power by field (memory,
module, superchip), one for its processes and two for GPM where these are switched on. Every five seconds, at a second of
its own for each GPU, at most eight more for the gauges and MIG. A GPU with MIG adds for each instance one call at each
sample for its processes, and five every five seconds.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    CounterReading,
    GaugeReading,
    Gone,
    Offer,
    PowerReading,
    Reading,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.lanes import Lanes
from wattledger_agent.sources.nvidia_energy import read_energy
from wattledger_agent.sources.nvidia_find import Finder
from wattledger_agent.sources.nvidia_gauges import GAUGES_SECONDS, read_gauges
from wattledger_agent.sources.nvidia_gpm import GpmReader
from wattledger_agent.sources.nvidia_gpu import NAME, Gpu
from wattledger_agent.sources.nvidia_mig import Instance, find_instances
from wattledger_agent.sources.nvidia_module import Module, find_modules
from wattledger_agent.sources.nvidia_pci import PciDevice
from wattledger_agent.sources.nvidia_shares import ProcessReader
from wattledger_agent.sources.nvml import (
    LIBRARY,
    LIBRARY_NOT_FOUND,
    LOST,
    Nvml,
    error_value,
    has_library,
    load_nvml,
    remedy,
)

# A GPU that NVML calls lost has fallen off the bus and stays so until a reset or a reboot; a few reads more are given for an
# answer that was wrong, then its channels are closed, so that they are not a gap for ever.
LOST_READS_MAX = 3

# Eight GPUs answer in milliseconds. A GPU that hangs costs the others up to twice this once; with so small a part of the
# time between two reads they are still in the same sample, which waits for half of it.
PATIENCE_SECONDS = 0.25
PATIENCE_PERIODS = 0.2

# How often sysfs is looked at for a GPU that came back. Only where one is gone does it cost a system call.
LOOK_SECONDS = 5


class NvidiaSource:
    """A leaf for each GPU, with its busy share and the share of its memory in use; a meter for each module of a superchip.

    gpm: profile the activity of multiprocessors and tensor cores, where the GPU can. processes: tell which processes used
    each GPU. nvml: stands for the module `pynvml`; None: that module. opener, pread: how files are opened and read.
    patience_seconds: after one to two times as long the other GPUs are read without one that hangs; None: as long as the
    time between two reads allows.
    """

    name = NAME
    may_block = True  # A driver call hangs when its GPU does.

    def __init__(
        self,
        sysfs_root: Path = Path("/sys"),
        procfs_root: Path = Path("/proc"),
        *,
        gpm: bool = False,
        processes: bool = False,
        nvml: Nvml | None = None,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
        patience_seconds: float | None = None,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._procfs_root = procfs_root
        self._wants_gpm = gpm
        self._wants_processes = processes
        self._nvml = nvml
        self._opener = opener
        self._pread = pread
        self._gpus: list[Gpu] = []
        self._modules: list[Module] = []
        self._strangers: list[PciDevice] = []
        self._instances: dict[str, Sequence[Instance]] = {}
        self._gauges_due: dict[str, int] = {}
        self._gpm: GpmReader | None = None
        self._processes: ProcessReader | None = None
        self._notes: list[str] = []
        self._run_generation = 0
        self._started = False
        self._is_lost = False
        self._removed: set[ChannelKey] = set()
        self._look_nanoseconds = 0
        self._patience_seconds = patience_seconds
        self._read_nanoseconds = 0
        self._lanes: Lanes[_Answer] = Lanes(f"read-{NAME}", PATIENCE_SECONDS)

    def open(self) -> Sequence[ChannelSpec]:
        """Start NVML and probe every GPU that is awake. Raises SourceUnavailableError if there is none."""
        self.close()
        self._notes = []
        nvml = self._start()
        self._run_generation = 0
        finder = Finder(nvml, self._sysfs_root, self._procfs_root, self._opener, self._pread, self._notes)
        self._gpus, self._strangers = finder.find()
        if not self._gpus:
            notes = " ".join(self._notes)
            self.close()
            raise SourceUnavailableError(
                f"nvidia: NVML finds no GPU. {notes}".strip(), "See nvidia-smi and the kernel's log."
            )
        self._modules = find_modules(self._gpus, self._notes)
        self._gpm = GpmReader(nvml, self._notes) if self._wants_gpm else None
        self._processes = ProcessReader(nvml, self._notes) if self._wants_processes else None
        return [spec for gpu in self._gpus for spec in gpu.specs] + [module.spec for module in self._modules]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every GPU that is awake; the calls are counted in the module's docstring."""
        readings: list[Reading] = []
        if now_nanoseconds >= self._look_nanoseconds:
            self._look_nanoseconds = now_nanoseconds + LOOK_SECONDS * NANOSECONDS_PER_SECOND
            if self.wants_reopening():
                readings += self._open_anew()
        if self._run_generation == 0:
            self._run_generation = now_nanoseconds
        self._lanes.patience_seconds = self._patience(now_nanoseconds)
        # That a GPU is gone may be what it answered late.
        hanging, late = self._lanes.hanging, self._lanes.late
        present = [(number, gpu) for number, gpu in enumerate(self._gpus) if not gpu.gone or gpu.device in late]
        for gpu in self._gpus:
            # What answered late is not asked in this read: another one is, for their module.
            gpu.hangs = gpu.device in hanging or gpu.device in late
        found = self._lanes.run({gpu.device: partial(self._asked, gpu, number, now_nanoseconds) for number, gpu in present})
        said: set[ChannelKey] = set()
        # Late answers come last: another one may have been asked for the same module since.
        for _, gpu in sorted(present, key=lambda one: _is_late(found[one[1].device], now_nanoseconds)):
            for reading in _told(gpu, found[gpu.device], now_nanoseconds):
                key = reading.key if isinstance(reading, CounterReading | PowerReading | TryAgain | Gone) else None
                if key is None or key not in said:
                    readings.append(reading)
                said |= {key} if key is not None else set()
        readings += [_unreported(one) for one in self._modules if not one.gone and one.spec.key not in said]
        return readings

    def notes(self) -> Sequence[str]:
        """Which GPUs are cut by MIG, share a module, lack a field, sleep, or could not be opened."""
        return list(self._notes)

    def wants_reopening(self) -> bool:
        """Whether opening anew would offer more: a GPU that was gone is bound to its driver anew, or a sleeper woke.

        Looks at sysfs alone. NVML finds a GPU that came back only after it was shut down and started again; its channel is
        then offered under the same UUID, hence the same key.
        """
        if self._lanes.hanging:
            return False  # NVML can't be shut down while a call of it has not returned.
        returned = any(gpu.gone and gpu.pci.binding() not in (0, gpu.binding) for gpu in self._gpus)
        return self._is_lost or returned or any(not device.sleeps() for device in self._strangers)

    def _open_anew(self) -> list[Reading]:
        """Start NVML again and offer what it finds then; what is not there any more is gone."""
        before = [spec.key for gpu in self._gpus if not gpu.gone for spec in gpu.specs]
        before += [module.spec.key for module in self._modules if not module.gone]
        # Until they are back, however often NVML is started meanwhile.
        self._removed |= {spec.key for gpu in self._gpus if gpu.gone for spec in gpu.specs}
        self._removed |= {module.spec.key for module in self._modules if module.gone}
        reason = "nvidia: NVML was started anew, and does not find it"
        try:
            specs = tuple(self.open())
        except SourceUnavailableError as error:
            # Tried again at the next look.
            self._is_lost = True
            self._removed |= set(before)
            self._notes.append(error.reason)
            return [Gone(key, reason) for key in before]
        keys = {spec.key for spec in specs}
        returned = frozenset(self._removed & keys)
        self._removed = (self._removed | set(before)) - keys
        return [*(Gone(key, reason) for key in before if key not in keys), Offer(specs, returned)]

    def close(self) -> None:
        """Close the files and NVML."""
        for device in (*(gpu.pci for gpu in self._gpus), *self._strangers):
            device.close()
        if self._gpm is not None:
            self._gpm.close()
        self._lanes.close()
        if self._started and self._nvml is not None and not self._lanes.hanging:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                self._notes.append(f"nvidia: NVML did not shut down ({error}).")
        self._gpus, self._modules, self._strangers = [], [], []
        self._instances, self._gauges_due = {}, {}
        self._gpm, self._processes = None, None
        self._started = False
        self._is_lost = False

    def _start(self) -> Nvml:
        if self._nvml is None:
            if not has_library():
                raise SourceUnavailableError(f"nvidia: there is no {LIBRARY} on this host.", remedy(LIBRARY_NOT_FOUND))
            self._nvml = load_nvml()
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise SourceUnavailableError(f"nvidia: NVML does not start: {error}.", remedy(error_value(error))) from error
        self._started = True
        return self._nvml

    def _patience(self, now_nanoseconds: int) -> float:
        if self._patience_seconds is not None:
            return self._patience_seconds
        period_seconds = (now_nanoseconds - self._read_nanoseconds) / NANOSECONDS_PER_SECOND
        self._read_nanoseconds = now_nanoseconds
        return min(PATIENCE_SECONDS, PATIENCE_PERIODS * period_seconds) if period_seconds > 0 else PATIENCE_SECONDS

    def _asked(self, gpu: Gpu, number: int, now_nanoseconds: int) -> "_Answer":
        """What a GPU says, with the time at which it was asked: the answer may come reads later."""
        return now_nanoseconds, self._read(gpu, number, now_nanoseconds)

    def _read(self, gpu: Gpu, number: int, now_nanoseconds: int) -> list[Reading]:
        readings: list[Reading] = []
        nvml = self._nvml
        assert nvml is not None
        if gpu.pci.sleeps():
            asleep = f"nvidia: {gpu.device} sleeps (runtime power management); left asleep"
            return [TryAgain(spec.key, asleep) for spec in gpu.specs]
        gauges_due = now_nanoseconds >= self._gauges_due.get(gpu.device, 0)
        module = next((module for module in self._modules if module.field_of(gpu) is not None), None)
        try:
            if gpu.handle is None:
                gpu.handle = nvml.nvmlDeviceGetHandleByPciBusId(gpu.pci.address)
            answers = read_energy(nvml, gpu, module, self._run_generation, readings, with_powers=gauges_due)
        except nvml.NVMLError as error:
            # A GPU that does not answer this is not asked more: each call may take its time to fail.
            self._failed(gpu, error, readings)
            return readings
        gpu.lost_reads = 0
        busy_ratio = self._read_utilization(nvml, gpu, readings)
        if gauges_due:
            # A second of its own for each GPU, so that no sample has all the calls.
            first = gpu.device not in self._gauges_due
            wait = GAUGES_SECONDS - number % GAUGES_SECONDS if first else GAUGES_SECONDS
            self._gauges_due[gpu.device] = now_nanoseconds + wait * NANOSECONDS_PER_SECOND
            readings.extend(read_gauges(nvml, gpu, answers))
            readings.extend(self._look_at_instances(nvml, gpu))
        instances = self._instances.get(gpu.device, ())
        profiled = self._gpm.read(gpu, instances) if self._gpm is not None else []
        readings.extend(profiled)
        if self._processes is not None:
            activity = {one.device: one.ratio for one in profiled if one.kind is UtilizationKind.SM_ACTIVE}
            shares = self._processes.read(gpu, busy_ratio, instances, activity)
            if shares is not None:
                readings.append(shares)
        return readings

    def _failed(self, gpu: Gpu, error: Exception, readings: list[Reading]) -> None:
        if error_value(error) in LOST:
            gpu.lost_reads += 1
            if gpu.lost_reads >= LOST_READS_MAX:
                gpu.gone = True
                gpu.binding = gpu.pci.binding()
                off = f"nvidia: {gpu.device} fell off the bus ({error}); reset it or boot the host anew"
                readings.extend(Gone(spec.key, off) for spec in gpu.specs)
                return
        failed = f"nvidia: {gpu.device} can't be read: {error}; if this stays, see nvidia-smi -q"
        readings.extend(TryAgain(spec.key, failed) for spec in gpu.specs)

    def _read_utilization(self, nvml: Nvml, gpu: Gpu, readings: list[Reading]) -> float | None:
        """Read busy share and memory; returns the busy share, None if it is unknown."""
        busy_ratio = None
        rates = self._noted(nvml, gpu, "nvmlDeviceGetUtilizationRates", UtilizationKind.BUSY)
        if rates is not None:
            busy_ratio = min(rates.gpu / 100, 1.0)
            readings.append(UtilizationReading(gpu.device, UtilizationKind.BUSY, busy_ratio))
        memory = self._noted(nvml, gpu, "nvmlDeviceGetMemoryInfo", UtilizationKind.MEMORY)
        if memory is not None and memory.total > 0:
            readings.append(UtilizationReading(gpu.device, UtilizationKind.MEMORY, min(memory.used / memory.total, 1.0)))
        return busy_ratio

    def _noted(self, nvml: Nvml, gpu: Gpu, call: str, kind: UtilizationKind) -> Any:
        was_supported = call not in gpu.unsupported
        answer = gpu.ask(nvml, call)
        if was_supported and call in gpu.unsupported:
            self._notes.append(f"nvidia: {gpu.device} has no {kind.name.lower()} utilization: it is not supported.")
        return answer

    def _look_at_instances(self, nvml: Nvml, gpu: Gpu) -> list[UtilizationReading]:
        """Find the instances of a GPU anew, for they come and go; returns the share of its memory that each one uses."""
        mig = gpu.ask(nvml, "nvmlDeviceGetMigMode")
        has_mig = gpu.has_mig if mig is None else mig[0] == 1
        if has_mig != gpu.has_mig:
            # What the GPU has depends on it.
            gpu.has_mig = has_mig
            gpu.unsupported.clear()
        instances = self._instances[gpu.device] = find_instances(nvml, gpu) if gpu.has_mig else ()
        readings = []
        for instance in instances:
            memory = instance.ask(nvml, "nvmlDeviceGetMemoryInfo")
            if memory is not None and memory.total > 0:
                ratio = min(memory.used / memory.total, 1.0)
                readings.append(UtilizationReading(instance.device, UtilizationKind.MEMORY, ratio))
        return readings


# When a GPU was asked (CLOCK_BOOTTIME), and what it said.
_Answer = tuple[int, list[Reading]]


def _is_late(answer: _Answer | None, now_nanoseconds: int) -> bool:
    return answer is not None and answer[0] != now_nanoseconds


def _told(gpu: Gpu, answer: _Answer | None, now_nanoseconds: int) -> Iterator[Reading]:
    """What there is to pass on of an answer. A late one tells energy, with how late it is, and that a GPU is gone.

    What it shows is none of now.
    """
    if answer is None:
        yield from _hung(gpu)
        return
    asked, readings = answer
    late = now_nanoseconds - asked
    for reading in readings:
        if isinstance(reading, CounterReading | PowerReading):
            yield replace(reading, late_nanoseconds=late) if late else reading
        elif not late or not isinstance(reading, UtilizationReading | GaugeReading):
            yield reading


def _hung(gpu: Gpu) -> list[Reading]:
    hung = f"nvidia: a call for {gpu.device} has not returned; the other GPUs go on. Look for a hung driver (dmesg)"
    return [TryAgain(spec.key, hung) for spec in gpu.specs]


def _unreported(module: Module) -> Reading:
    if module.reporter() is None:
        module.gone = True
        return Gone(module.spec.key, f"nvidia: all GPUs that report {module.spec.key.device} are gone")
    return TryAgain(module.spec.key, f"nvidia: the GPU that reports {module.spec.key.device} did not answer")
