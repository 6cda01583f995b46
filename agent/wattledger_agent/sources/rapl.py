"""Energy counters of CPU packages and memory, from the kernel's powercap class (RAPL; Intel, and AMD since Zen).

Decides nothing about wraps and resets: raw counters go to the meter. Finding zones is powercap.py's. Every counter's file
stays open and costs one system call a read. Source of truth: Documentation/power/powercap/powercap.rst; what is summed:
package and dram, for a package's counter excludes its dram (https://github.com/powercap/powercap/issues/3).
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gone,
    Method,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.powercap import (
    MirrorWatch,
    Verdict,
    Zone,
    find_zones,
    power_bound_watts,
)
from wattledger_agent.sources.rapl_faults import Processor, dram_reads_low, known_faults, parse_processor

NAME = "rapl"

NODE = "node"

READ_BYTES = 32  # A 64-bit number has at most 20 digits.

# Dies that show equal values are watched for up to this long at the start: 50 J, which decide, take 1 s at 50 W. Longer
# is not waited for: the verdict then comes during the reads.
SETTLE_STEPS_MAX = 20
SETTLE_SECONDS = 0.1

PERMISSION_REMEDY = (
    "Only root may read it since CVE-2020-8694: install the udev rule deploy/systemd/70-wattledger.rules and run the agent "
    "in the group wattledger, or give it CAP_DAC_READ_SEARCH."
)


@dataclass(slots=True)
class _Counter:
    """One open counter. `watch` is set while it is not known whether it mirrors `leader`; `folded` once it is taken out."""

    zone: Zone
    spec: ChannelSpec
    descriptor: int
    leader: "_Counter | None" = None
    watch: MirrorWatch | None = None
    folded: bool = False


class RaplSource:
    """RAPL by powercap: a leaf for each package and each dram; core, uncore and psys are shown.

    psys_is_node_meter: psys meters the whole node on this platform, and packages and memory are its parts. Off by default:
        what psys covers is the platform maker's choice.
    opener, pread, settle: how files are opened and read, and how to wait (seconds); replaced by tests.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        sysfs_root: Path = Path("/sys"),
        procfs_root: Path = Path("/proc"),
        *,
        psys_is_node_meter: bool = False,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
        settle: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._procfs_root = procfs_root
        self._psys_is_node_meter = psys_is_node_meter
        self._opener = opener
        self._pread = pread
        self._settle = settle
        self._counters: list[_Counter] = []
        self._notes: list[str] = []
        self._processor = Processor()

    def open(self) -> Sequence[ChannelSpec]:
        """Find the zones and open their counters. Raises SourceUnavailableError if none can be read."""
        self.close()
        self._processor = self._read_processor()
        try:
            groups, self._notes = find_zones(self._sysfs_root)
        except OSError as error:
            raise self._unavailable(f"{self._sysfs_root / 'class/powercap'} can't be listed ({error.strerror}).") from error
        if not groups:
            hint = f" {self._notes[0]}" if self._notes else ""
            raise self._unavailable(f"{self._sysfs_root / 'class/powercap'} has no RAPL zone that can be used.{hint}")
        meter = self._node_meter(groups)
        errors: list[OSError] = []
        for group in groups:
            zone, descriptor = self._best(group, errors)
            self._counters.append(_Counter(zone, self._spec(zone, meter), descriptor))
        if all(counter.descriptor < 0 for counter in self._counters):
            self.close()
            raise _unreadable(errors)
        self._note_unreadable()
        for counter in self._counters:
            self._notes.extend(known_faults(counter.zone, self._processor))
        if self._processor.virtual:
            self._notes.append("rapl: this is a virtual machine; the counters are what its hypervisor lets it see.")
        self._find_mirrors()
        return [counter.spec for counter in self._counters]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every counter: one system call each. A counter that can't be read is a TryAgain, and alone in it."""
        # A copy: a verdict takes counters out, those of the mirror's parts after it in the list too.
        return [self._read(counter) for counter in list(self._counters)]

    def notes(self) -> Sequence[str]:
        """What was folded, can't be read, or is known to be wrong on this processor."""
        return list(self._notes)

    def close(self) -> None:
        """Close all counters."""
        for counter in self._counters:
            if counter.descriptor >= 0:
                os.close(counter.descriptor)
        self._counters = []

    def _read(self, counter: _Counter) -> Reading:
        if counter.watch is not None and self._observe(counter) is Verdict.UNDECIDED:
            # Withheld until it is known: a TryAgain loses nothing, a mirror that is summed doubles.
            reason = f"rapl: {counter.zone.folder} may mirror another die; more energy must pass to know"
            return TryAgain(counter.spec.key, reason)
        if counter.folded:
            return Gone(counter.spec.key, f"rapl: {counter.zone.folder} mirrors another die, and is counted there")
        try:
            return CounterReading(counter.spec.key, self._value(counter), counter.zone.generation)
        except OSError as error:
            if error.errno == errno.ENODEV and counter.descriptor >= 0:
                # The driver was unloaded; its next life has a new file at the same place, which the next read opens.
                os.close(counter.descriptor)
                counter.descriptor = -1
            return TryAgain(counter.spec.key, f"rapl: {counter.zone.energy_path} can't be read: {_why(error)}")
        except ValueError as error:
            return TryAgain(counter.spec.key, f"rapl: {counter.zone.energy_path} is not believed: {error}")

    def _value(self, counter: _Counter) -> int:
        """The counter in microjoules. Raises OSError, or ValueError for a value that can't be."""
        if counter.descriptor < 0:
            counter.descriptor = self._opener(counter.zone.energy_path)
        text = self._pread(counter.descriptor, READ_BYTES, 0)
        value = int(text)
        limit = counter.zone.range_microjoules
        if value < 0 or (limit is not None and value > limit):
            raise ValueError(f"{value} is not within 0 and max_energy_range_uj ({limit})")
        return value

    def _observe(self, counter: _Counter) -> Verdict:
        """Read the leader, its possible mirror and the leader again, and do what that says; an error says nothing."""
        if counter.leader is None or counter.watch is None:
            return Verdict.DISTINCT
        try:
            before, twin, after = (self._value(each) for each in (counter.leader, counter, counter.leader))
        except (OSError, ValueError):
            return Verdict.UNDECIDED
        verdict = counter.watch.observe(before, twin, after)
        if verdict is Verdict.DISTINCT:
            counter.watch = None
        elif verdict is Verdict.MIRRORED:
            self._fold(counter, counter.leader)
        return verdict

    def _fold(self, mirror: _Counter, leader: _Counter) -> None:
        """Take a mirror out, with the shown parts of its package."""
        self._notes.append(
            f"rapl: {mirror.zone.name} mirrors {leader.zone.name}: one counter shown on each die; it is counted once."
        )
        for each in self._counters:
            if each is mirror or each.spec.parent == mirror.spec.key:
                each.folded, each.watch = True, None
                if each.descriptor >= 0:
                    os.close(each.descriptor)
                    each.descriptor = -1
        self._counters = [each for each in self._counters if not each.folded]

    def _find_mirrors(self) -> None:
        """Watch every further die of a package; where the first values are equal, wait for the verdict."""
        leaders: dict[tuple[str, int | None], _Counter] = {}
        for counter in list(self._counters):
            zone = counter.zone
            if zone.die is None or zone.kind not in ("package", "dram"):
                continue
            leader = leaders.setdefault((zone.kind, zone.package), counter)
            if leader is not counter:
                counter.leader, counter.watch = leader, MirrorWatch(zone.modulus_microjoules)
        self._settle_mirrors()

    def _settle_mirrors(self) -> None:
        for _ in range(SETTLE_STEPS_MAX):
            for counter in [each for each in self._counters if each.watch is not None]:
                self._observe(counter)
            if not any(each.watch is not None and each.watch.equal_at_first for each in self._counters):
                return
            self._settle(SETTLE_SECONDS)

    def _best(self, group: list[Zone], errors: list[OSError]) -> tuple[Zone, int]:
        """The first zone of a group that can be read, with its open file; else the first, with -1."""
        chosen, descriptor = group[0], -1
        for zone in group:
            try:
                descriptor = self._opener(zone.energy_path)
                self._pread(descriptor, READ_BYTES, 0)
            except OSError as error:
                errors.append(OSError(error.errno, error.strerror, str(zone.energy_path)))
                if descriptor >= 0:
                    os.close(descriptor)
                    descriptor = -1
                continue
            chosen = zone
            break
        for zone in group:
            if zone is not chosen:
                self._notes.append(
                    f"rapl: {zone.folder.name} measures {zone.name} like {chosen.folder.name} does; only the latter is read."
                )
        return chosen, descriptor

    def _node_meter(self, groups: list[list[Zone]]) -> ChannelKey | None:
        """The key of the psys zone that meters the node, if the operator says that one does."""
        psys = [group[0] for group in groups if group[0].kind == "psys"]
        if not self._psys_is_node_meter:
            return None
        if not psys:
            self._notes.append("rapl: psys_is_node_meter is set, but there is no psys zone here; the node has no meter.")
            return None
        if len(psys) > 1:
            self._notes.append(f"rapl: there are {len(psys)} psys zones; {psys[0].name} is taken as the node's meter.")
        return _key(psys[0])

    def _spec(self, zone: Zone, meter: ChannelKey | None) -> ChannelSpec:
        key = _key(zone)
        component = {"package": Component.CPU, "dram": Component.MEMORY, "psys": Component.OTHER}.get(
            zone.kind, Component.CPU
        )
        role, parent = Role.SHOWN, None
        if zone.kind in ("package", "dram"):
            role, parent = Role.LEAF, meter
        elif key == meter:
            role = Role.METER
        elif zone.kind != "psys":
            suffix = "" if zone.die is None else f"-die-{zone.die}"
            parent = ChannelKey(key.device, f"package{suffix}", NAME)
        return ChannelSpec(
            key=key,
            component=component,
            method=Method.COUNTER,
            role=role,
            power_bound_watts=power_bound_watts(zone),
            parent=parent,
            # Without a range the meter can't tell a wrap from a reset, and takes a fall as a gap.
            counter_range_microjoules=zone.modulus_microjoules,
            # The fault is known, but not mended: the true value is four times what is read.
            uncertainty_upper_ratio=3.0 if dram_reads_low(zone, self._processor) else 0.0,
            model=self._processor.model_name if zone.kind == "package" else "",
        )

    def _note_unreadable(self) -> None:
        for counter in self._counters:
            if counter.descriptor < 0:
                self._notes.append(
                    f"rapl: {counter.zone.energy_path} ({counter.zone.name}) can't be read yet; it is tried at each read."
                )
            if counter.zone.range_microjoules is None:
                self._notes.append(
                    f"rapl: {counter.zone.folder / 'max_energy_range_uj'} can't be read; a fall of it will be a gap."
                )

    def _read_processor(self) -> Processor:
        try:
            return parse_processor((self._procfs_root / "cpuinfo").read_text())
        except OSError:
            return Processor()

    def _unavailable(self, reason: str) -> SourceUnavailableError:
        if self._processor.virtual:
            remedy = (
                "In a virtual machine only the hypervisor can offer RAPL (QEMU 9.1: -accel kvm,rapl=true); "
                "without it, power is estimated."
            )
        elif self._processor.vendor in ("GenuineIntel", "AuthenticAMD"):
            remedy = "Load the driver: modprobe intel_rapl_msr (for AMD too, since Linux 5.11)."
        else:
            remedy = "Nothing can be done: RAPL is in x86 processors of Intel and AMD only."
        return SourceUnavailableError(f"rapl: {reason}", remedy)


def _key(zone: Zone) -> ChannelKey:
    """The zone's key, made of its name alone, so that neither driver nor kernel changes it."""
    if zone.kind == "psys":
        return ChannelKey(NODE, zone.name, NAME)
    part = "memory" if zone.kind == "dram" else "cpu"
    suffix = "" if zone.die is None else f"-die-{zone.die}"
    return ChannelKey(f"{part}/{zone.package}", f"{zone.kind}{suffix}", NAME)


def _why(error: OSError) -> str:
    remedy = f" {PERMISSION_REMEDY}" if isinstance(error, PermissionError) else ""
    return f"{error.strerror or error}.{remedy}"


def _unreadable(errors: list[OSError]) -> SourceUnavailableError:
    """None of the counters can be read: say why, permission first, for that has a remedy."""
    denied = [error for error in errors if error.errno in (errno.EACCES, errno.EPERM)]
    error = (denied or errors)[0]
    remedy = PERMISSION_REMEDY if denied else "The driver answers, but has no value: see the kernel's log for intel_rapl."
    return SourceUnavailableError(f"rapl: {error.filename} can't be read: {error.strerror}.", remedy)
