"""Energy, utilization and gauges of AMD GPUs, from the files of the kernel's driver amdgpu.

Needs no library of the maker: the energy accumulator is in the driver's table (amd_metrics.py). Where that is of no known
kind, the library is asked if it is there (amd_smi.py), and else power is read. A board of two dies is metered once. Source
of truth: drivers/gpu/drm/amd/pm/amdgpu_pm.c.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from wattledger_agent.known_faults import power_sentinel
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
)
from wattledger_agent.sources.amd_gpu_files import MICROWATTS_PER_WATT, AmdGpu
from wattledger_agent.sources.amd_metrics import TABLE_BYTES, energy_microjoules, is_known
from wattledger_agent.sources.amd_smi import AmdSmi, SmiCounters, load_amdsmi
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.returning import Returning
from wattledger_agent.sources.sensor_files import Chip, find_chips, gpus_without_chip, read_text

NAME = "amd_gpu"
CHIP = "amdgpu"
VENDOR = "0x1002"


# Excursions above the limit last milliseconds. Where none is stated: twice the 1400 W of an MI355X.
POWER_BOUND_FACTOR = 2.0
POWER_BOUND_WATTS_DEFAULT = 2800.0

# An accumulator is believed if it moves at the start, by what power says within this factor: some stand still (rocm_smi_lib
# issue 180), some count in another unit (amdsmi issue 38). In 0.2 s an idle GPU of 40 W counts half a million steps.
TRIAL_SECONDS = 0.2
TRIAL_FACTOR = 3.0

# Each read asks the GPU's controller, and gauges are only shown.
GAUGE_PERIOD_NANOSECONDS = 5_000_000_000

# PCI devices of boards of which one die alone has power data: MI250X and MI250 (aldebaran_is_primary() in aldebaran_ppt.c).
TWO_DIE_MODELS = ("0x7408", "0x740c")


class AmdGpuSource:
    """A leaf for each board, with the busy share and the share of memory of each of its dies. A sleeping GPU is not woken.

    smi: makes the module `amdsmi`, or None where it is not installed. opener, pread, settle: how files are opened and read,
    and how to wait (seconds). All are replaced by tests.
    """

    name = NAME
    may_block = True  # A GPU whose controller hangs answers after seconds.

    def __init__(
        self,
        sysfs_root: Path = Path("/sys"),
        *,
        smi: Callable[[], AmdSmi | None] = load_amdsmi,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
        settle: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._opener = opener
        self._pread = pread
        self._settle = settle
        self._load_smi = smi
        self._smi: SmiCounters | None = None
        self._gpus: list[AmdGpu] = []
        self._notes: list[str] = []
        self._next_gauges_nanoseconds = 0
        self._returning = Returning(NAME, lambda: _chips(sysfs_root))
        # How the GPUs that stay are metered, while one that is back is taken in.
        self._kept: dict[str, bool] = {}

    def open(self) -> Sequence[ChannelSpec]:
        """Find the GPUs, and how each is metered best. Raises SourceUnavailableError if there is none."""
        self.close()
        self._notes = []
        self._next_gauges_nanoseconds = 0
        self._returning.opened()
        chips = _chips(self._sysfs_root)
        for chip in sorted(chips, key=lambda chip: chip.device.name):
            self._gpus.append(AmdGpu(chip, self._device(chip), self._opener, self._pread))
        silent = gpus_without_chip(self._sysfs_root, VENDOR, chips)
        told = f"amd_gpu: no driver shows sensors of the AMD GPU at {', '.join(silent)}"
        if not self._gpus and silent:
            raise SourceUnavailableError(f"{told}.", "Load it: modprobe amdgpu; a GPU that a guest has is metered there.")
        if not self._gpus:
            raise SourceUnavailableError(
                "amd_gpu: no AMD GPU is on this host's PCI bus.",
                "If there should be one, see `lspci -d 1002:` and the kernel's log.",
            )
        if silent:
            self._notes.append(f"{told}; it is not metered.")
        awake = [gpu for gpu in self._gpus if gpu.device not in self._kept and not gpu.sleep.sleeps()]
        if any(not _has_known_table(gpu) for gpu in awake):
            self._open_smi()
        powers = {gpu.device: gpu.power_microwatts() for gpu in awake}
        counted = self._counting(awake, powers)
        for gpu in self._gpus:
            self._decide(gpu, powers, self._kept.get(gpu.device, gpu.device in counted))
        return [gpu.spec for gpu in self._gpus if gpu.spec is not None]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every GPU: three system calls each, more each few seconds for what is only shown, one while it sleeps."""
        with_gauges = now_nanoseconds >= self._next_gauges_nanoseconds
        if with_gauges:
            self._next_gauges_nanoseconds = now_nanoseconds + GAUGE_PERIOD_NANOSECONDS
        gone = {gpu.spec.key: gpu.chip for gpu in self._gpus if gpu.spec is not None and gpu.gone}
        present = (gpu.spec.key for gpu in self._gpus if gpu.spec is not None and not gpu.gone)
        readings = self._returning.changes(now_nanoseconds, gone, present, self._open_anew)
        for gpu in self._gpus:
            if not gpu.gone:
                self._read(gpu, readings, with_gauges)
        return readings

    def notes(self) -> Sequence[str]:
        """Which boards have two dies, which accumulators are not believed, what is not metered."""
        return list(self._notes)

    def close(self) -> None:
        """Close all files."""
        for gpu in self._gpus:
            gpu.close()
        self._gpus = []
        if self._smi is not None:
            self._smi.close()
            self._smi = None

    def _open_anew(self) -> Sequence[ChannelSpec]:
        """Take in a GPU that is back. The others are metered as before: a trial may fail, or find one asleep."""
        present = [gpu.spec for gpu in self._gpus if gpu.spec is not None and not gpu.gone]
        self._kept = {spec.key.device: spec.method is Method.COUNTER for spec in present}
        try:
            return self.open()
        finally:
            self._kept = {}

    def _read(self, gpu: AmdGpu, readings: list[Reading], with_gauges: bool) -> None:
        if gpu.sleep.sleeps():
            if gpu.spec is not None:
                reason = f"amd_gpu: {gpu.device} sleeps (runtime power management); left asleep"
                readings.append(TryAgain(gpu.spec.key, reason))
            return
        if gpu.spec is not None:
            readings.append(self._energy(gpu, gpu.spec))
            if not isinstance(readings[-1], CounterReading | PowerReading):
                # A GPU that does not answer this is not asked more: each call may take its time to fail.
                return
        readings.extend(gpu.shown(with_gauges=with_gauges))

    def _energy(self, gpu: AmdGpu, spec: ChannelSpec) -> Reading:
        file = gpu.table if spec.method is Method.COUNTER or gpu.power is None else gpu.power
        try:
            if spec.method is Method.COUNTER:
                energy = self._accumulated(gpu)
                if energy is None:
                    return TryAgain(spec.key, f"amd_gpu: {file} has no energy accumulator now; see the kernel's log")
                return CounterReading(spec.key, energy, file.generation)
            power = file.number()
        except (OSError, ValueError) as error:
            outcome = file.failed(spec.key, error)
            gpu.gone = isinstance(outcome, Gone)
            return outcome
        fault = power_sentinel(NAME, power)
        if fault is not None:
            return TryAgain(spec.key, f"amd_gpu: {file} shows {power}, which is no value: {fault.sentence}")
        if not 0 < power <= spec.power_bound_watts * MICROWATTS_PER_WATT:
            return TryAgain(spec.key, f"amd_gpu: {file} shows {power} microwatts, which is impossible")
        return PowerReading(spec.key, power)

    def _device(self, chip: Chip) -> str:
        """By the GPU's own number, which stays when it is put into another slot; without one, by its place on the bus."""
        unique = read_text(chip.device / "unique_id")
        taken = {gpu.device for gpu in self._gpus}
        device = f"gpu/{unique}"
        return device if unique.strip("0") and device not in taken else f"gpu/{chip.device.name}"

    def _counting(self, gpus: Sequence[AmdGpu], powers: dict[str, int | None]) -> set[str]:
        """The GPUs whose accumulator is there and moves as power says. Waits once for all of them."""
        before = {gpu.device: self._tried(gpu) for gpu in gpus}
        if all(value is None for value in before.values()):
            return set()
        self._settle(TRIAL_SECONDS)
        counting, doubted = set(), list[str]()
        for gpu in gpus:
            first, last, power = before[gpu.device], self._tried(gpu), powers[gpu.device]
            if first is None or last is None or power == 0:
                continue
            passed, expected = last - first, (power or 0) * TRIAL_SECONDS
            if passed > 0 and (power is None or expected / TRIAL_FACTOR <= passed <= expected * TRIAL_FACTOR):
                counting.add(gpu.device)
            else:
                doubted.append(f"{gpu.device} went on by {passed / 1e6:.1f} J where power says {expected / 1e6:.1f} J")
        if doubted:
            more = f" (and {len(doubted) - 1} more like it)" if len(doubted) > 1 else ""
            self._notes.append(
                f"amd_gpu: an energy accumulator is not believed, and power is read: that of {doubted[0]}{more}."
            )
        return counting

    def _decide(self, gpu: AmdGpu, powers: dict[str, int | None], counts: bool) -> None:
        """Give a GPU its channel, unless another die reports for it or it reports nothing."""
        is_silent = gpu.power is None or powers.get(gpu.device) == 0
        if is_silent and not counts:
            primary = self._primary(gpu, powers)
            if primary is not None:
                self._notes.append(
                    f"amd_gpu: {gpu.device} reports no power: it is a second die; {primary.device} reports for the board."
                )
                return
        if gpu.power is None and not counts:
            self._notes.append(f"amd_gpu: {gpu.device} has neither an energy accumulator nor power; it is not metered.")
            return
        spec = ChannelSpec(
            key=ChannelKey(gpu.device, "board", NAME),
            component=Component.GPU,
            method=Method.INTEGRAL,
            role=Role.LEAF,
            power_bound_watts=_limit_watts(gpu.chip) * POWER_BOUND_FACTOR or POWER_BOUND_WATTS_DEFAULT,
            model=read_text(gpu.chip.device / "product_name"),
        )
        gpu.spec = replace(spec, method=Method.COUNTER) if counts else spec

    def _primary(self, gpu: AmdGpu, powers: dict[str, int | None]) -> AmdGpu | None:
        """The die that reports for a board of two: the one before this on the bus, else after it; None for other models."""
        if gpu.model not in TWO_DIE_MODELS:
            return None
        alike = [other for other in self._gpus if powers.get(other.device) and other.model == gpu.model]
        before = [other for other in alike if other.chip.device.name < gpu.chip.device.name]
        return next(iter(before[-1:] or alike), None)

    def _open_smi(self) -> None:
        """Load the maker's library, if it is there."""
        module = self._load_smi()
        if module is None:
            return
        try:
            self._smi = SmiCounters(module)
        except module.AmdSmiException as error:
            self._notes.append(f"amd_gpu: the library amdsmi is installed, but does not start ({error}); it is not used.")

    def _accumulated(self, gpu: AmdGpu) -> int | None:
        """The GPU's energy by its driver's table, else by the library; None without either. Raises OSError."""
        energy = energy_microjoules(gpu.table.read(TABLE_BYTES))
        if energy is None and self._smi is not None:
            return self._smi.microjoules(gpu.chip.device.name)
        return energy

    def _tried(self, gpu: AmdGpu) -> int | None:
        try:
            return self._accumulated(gpu)
        except OSError:
            return None


def _chips(sysfs_root: Path) -> list[Chip]:
    return [chip for chip in find_chips(sysfs_root) if chip.name == CHIP]


def _has_known_table(gpu: AmdGpu) -> bool:
    try:
        return is_known(gpu.table.read(TABLE_BYTES))
    except OSError:
        # It may come yet; the library reads the same file.
        return True


def _limit_watts(chip: Chip) -> float:
    """The highest limit that can be set, or 0 where none is stated."""
    text = chip.text("power1_cap_max")
    return int(text) / MICROWATTS_PER_WATT if text.isdecimal() else 0.0
