"""Energy of Intel's discrete GPUs, from the hwmon chips of the drivers i915 and xe.

No utilization: these drivers offer it by perf alone. Source of truth: sysfs-driver-intel-i915-hwmon and
sysfs-driver-intel-xe-hwmon in Documentation/ABI/testing; energyN_input is reckoned by the driver from a register of 32 bits,
at each read.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.known_faults import energy_sentinel
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gauge,
    GaugeReading,
    Gone,
    Method,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.returning import Returning
from wattledger_agent.sources.sensor_files import Chip, SensorFile, SleepWatch, find_chips, gpus_without_chip, read_text

NAME = "intel_gpu"

CHIP = re.compile(r"(i915|xe)(?:_(gt\d+))?")
VENDOR = "0x8086"

# The register's 32 bits in steps of 2^-14 J (the unit in the drivers' own reckoning). The driver adds up what passed since
# the read before and takes a register that fell for one wrap: what passed in more is lost in it unseen. So the value is
# given modulo the register's range, and the meter says where a pause was long enough for that.
RANGE_MICROJOULES = 2**32 * 1_000_000 // 2**14

# Where the driver states no limit: twice the 600 W of a Data Center GPU Max 1550.
POWER_BOUND_WATTS_DEFAULT = 1200.0
POWER_BOUND_FACTOR = 2.0  # Excursions above the limit last milliseconds.

MICROWATTS_PER_WATT = 1_000_000
CARD, PACKAGE = 1, 2
DOMAINS = {CARD: "card", PACKAGE: "package"}


@dataclass(slots=True)
class _Counter:
    """An energy counter of a GPU. limit_watts: the GPU's limit, shown with its leaf."""

    spec: ChannelSpec
    file: SensorFile
    sleep: SleepWatch
    limit_watts: float
    gone: bool = False


class IntelGpuSource:
    """A leaf for each card; what its package and its tiles count of that is shown. A sleeping GPU is not woken.

    opener, pread: how files are opened and read; replaced by tests.
    """

    name = NAME
    may_block = True  # A driver waits for a GPU that resets.

    def __init__(
        self, sysfs_root: Path = Path("/sys"), *, opener: Opener = open_for_reading, pread: Pread = os.pread
    ) -> None:
        self._sysfs_root = sysfs_root
        self._opener = opener
        self._pread = pread
        self._counters: list[_Counter] = []
        self._notes: list[str] = []
        self._returning = Returning(NAME, lambda: _chips(sysfs_root))

    def open(self) -> Sequence[ChannelSpec]:
        """Find the cards' counters. Raises SourceUnavailableError if there are none."""
        self.close()
        self._notes = []
        self._returning.opened()
        chips = _chips(self._sysfs_root)
        # The card's own chip comes before those of its tiles, whatever their numbers.
        for chip in sorted(chips, key=lambda chip: (str(chip.device), chip.name)):
            self._add(chip)
        silent = gpus_without_chip(self._sysfs_root, VENDOR, chips)
        if silent:
            self._notes.append(f"intel_gpu: no driver shows sensors of the GPU at {', '.join(silent)}; it is not metered.")
        if not self._counters and self._notes:
            remedy = "Load i915 of Linux 6.2 or xe of 6.8, or newer ones; a GPU that a guest has is metered there."
            raise SourceUnavailableError(self._notes[0], remedy)
        if not self._counters:
            raise SourceUnavailableError(
                "intel_gpu: no discrete Intel GPU is on this host's PCI bus.",
                "If there should be one, see `lspci -d 8086::0300` and the kernel's log.",
            )
        return [counter.spec for counter in self._counters]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read each counter: one system call, and one more where the GPU may sleep. A removed card is looked for."""
        gone = {counter.spec.key: counter.file.chip for counter in self._counters if counter.gone}
        present = (counter.spec.key for counter in self._counters if not counter.gone)
        readings = self._returning.changes(now_nanoseconds, gone, present, self.open)
        for counter in self._counters:
            if not counter.gone:
                readings.append(self._read(counter))
                if counter.limit_watts and counter.spec.role is Role.LEAF:
                    device = counter.spec.key.device
                    readings.append(GaugeReading(device, Gauge.POWER_LIMIT_WATTS, counter.limit_watts))
        return readings

    def notes(self) -> Sequence[str]:
        """Which GPUs have no counter."""
        return list(self._notes)

    def close(self) -> None:
        """Close all files."""
        for counter in self._counters:
            counter.file.close()
            counter.sleep.close()
        self._counters = []

    def _read(self, counter: _Counter) -> Reading:
        key = counter.spec.key
        if counter.sleep.sleeps():
            return TryAgain(key, f"intel_gpu: {key.device} sleeps (runtime power management); left asleep")
        try:
            value = counter.file.number()
        except (OSError, ValueError) as error:
            outcome = counter.file.failed(key, error)
            counter.gone = isinstance(outcome, Gone)
            return outcome
        fault = energy_sentinel(NAME, value)
        if fault is not None or value < 0:
            return TryAgain(key, f"intel_gpu: {counter.file} shows {value}, which is no energy")
        return CounterReading(key, value % RANGE_MICROJOULES, counter.file.generation)

    def _add(self, chip: Chip) -> None:
        match = CHIP.fullmatch(chip.name)
        numbers = chip.numbers(r"energy(\d+)_input")
        tile = match[2] if match else None
        if not numbers and tile is None:
            self._notes.append(f"intel_gpu: {chip.name} at {chip.device.name} has no energy counter; it is not metered.")
        device = f"gpu/{chip.device.name}"
        leaf = next((c.spec for c in self._counters if c.spec.key.device == device and c.spec.role is Role.LEAF), None)
        limit_watts = _limit_watts(chip)
        for number in numbers:
            domain = tile or chip.text(f"energy{number}_label") or DOMAINS.get(number, f"energy{number}")
            spec = ChannelSpec(
                key=ChannelKey(device, domain, NAME),
                component=Component.GPU,
                method=Method.COUNTER,
                role=Role.LEAF if leaf is None and tile is None else Role.SHOWN,
                power_bound_watts=limit_watts * POWER_BOUND_FACTOR or POWER_BOUND_WATTS_DEFAULT,
                parent=leaf.key if leaf is not None else None,
                counter_range_microjoules=RANGE_MICROJOULES,
                model=f"Intel {read_text(chip.device / 'device')}" if leaf is None and tile is None else "",
            )
            leaf = leaf or (spec if spec.role is Role.LEAF else None)
            file = SensorFile(chip, f"energy{number}_input", self._opener, self._pread)
            self._counters.append(_Counter(spec, file, SleepWatch(chip, self._opener, self._pread), limit_watts))


def _limit_watts(chip: Chip) -> float:
    """The highest limit that the card states, or 0; a limit of 0 is one that is switched off."""
    texts = [chip.text(f"power{number}_{kind}") for number in (CARD, PACKAGE) for kind in ("rated_max", "max")]
    return max((int(text) for text in texts if text.isdecimal()), default=0) / MICROWATTS_PER_WATT


def _chips(sysfs_root: Path) -> list[Chip]:
    return [chip for chip in find_chips(sysfs_root) if CHIP.fullmatch(chip.name)]
