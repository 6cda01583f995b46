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

from wattledger_agent.known_faults import Action, Fault, Machine, Sensor, faults_of, parse_machine, with_action
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    CounterReading,
    Gone,
    Offer,
    Reading,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.mirrors import MirrorWatch, Verdict
from wattledger_agent.sources.powercap import SHARED, Zone, find_zones
from wattledger_agent.sources.rapl_counter import PERMISSION_REMEDY, Counter, why
from wattledger_agent.sources.rapl_folding import FoldedPairs, Pair, duplicate_pair, mirror_pair
from wattledger_agent.sources.rapl_machine import SHARED_REMEDY, machine_notes, remedy_without_powercap, shared_note
from wattledger_agent.sources.rapl_specs import NAME, SCALED_GENERATION, key_of, spec_of

# Dies that show equal values are watched for up to this long at the start: 50 J, which decide, take 1 s at 50 W. Longer
# is not waited for: the verdict then comes during the reads.
SETTLE_STEPS_MAX = 20
SETTLE_SECONDS = 0.1


@dataclass(slots=True)
class _Channel:
    """One offered channel. scale: the fault that its values are mended of.

    pair: set while it is not known whether its counter mirrors another die's. is_folded: it does, and is taken out.
    """

    spec: ChannelSpec
    counter: Counter
    scale: Fault | None
    pair: Pair | None = None
    is_folded: bool = False

    @property
    def zone(self) -> Zone:
        return self.counter.zone


class RaplSource:
    """RAPL by powercap: a leaf for each package and each dram; core, uncore and psys are shown.

    psys_is_node_meter: psys meters the whole node on this platform, and packages and memory are its parts. Off by default:
        what psys covers is the platform maker's choice.
    shared_root: in place of sysfs, a folder in which a virtual machine's host writes the guest's share, laid out as the
        powercap class.
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
        shared_root: Path | None = None,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
        settle: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._procfs_root = procfs_root
        self._psys_is_node_meter = psys_is_node_meter
        self._powercap = shared_root or sysfs_root / "class" / "powercap"
        self._is_shared = shared_root is not None
        self._opener = opener
        self._pread = pread
        self._settle = settle
        self._channels: list[_Channel] = []
        self._mirrors: list[_Channel] = []
        self._notes: list[str] = []
        self._folded = FoldedPairs()
        self._machine = Machine()

    @property
    def divergences(self) -> int:
        """How many folded pairs of counters have parted since the source was opened."""
        return self._folded.divergences

    def open(self) -> Sequence[ChannelSpec]:
        """Find the zones and open their counters. Raises SourceUnavailableError if none can be read."""
        self.close()
        self._folded = FoldedPairs()
        cpuinfo = _text(self._procfs_root / "cpuinfo")
        self._machine = parse_machine(cpuinfo, _text(self._procfs_root / "sys" / "kernel" / "osrelease"))
        try:
            groups, self._notes = find_zones(self._powercap, is_shared=self._is_shared)
        except OSError as error:
            raise self._unavailable(f"{self._powercap} can't be listed ({error.strerror}).") from error
        if not groups:
            hint = f" {self._notes[0]}" if self._notes else ""
            raise self._unavailable(f"{self._powercap} has no RAPL zone that can be used.{hint}")
        meter = self._node_meter(groups)
        errors: list[OSError] = []
        faulty: dict[str, list[Zone]] = {}
        for group in groups:
            hidden = with_action(self._faults(group[0]), Action.HIDE_DOMAIN)
            if hidden is not None:
                faulty.setdefault(hidden.sentence, []).append(group[0])
                continue
            counter = self._best(group, errors)
            faults = self._faults(counter.zone)
            for fault in faults:
                faulty.setdefault(fault.sentence, []).append(counter.zone)
            spec = spec_of(counter.zone, meter, faults, self._machine.model_name)
            self._channels.append(_Channel(spec, counter, with_action(faults, Action.SCALE)))
        self._notes += [
            f"rapl: {', '.join(zone.folder.name for zone in zones)} ({zones[0].kind}): {sentence}."
            for sentence, zones in faulty.items()
        ]
        if not self._channels:
            raise self._unavailable(f"{self._powercap} has no RAPL zone that can be believed. {self._notes[-1]}")
        if all(channel.counter.descriptor < 0 for channel in self._channels):
            self.close()
            raise _unreadable(errors)
        self._note_unreadable()
        packages = {channel.zone.package for channel in self._channels if channel.zone.package is not None}
        if self._is_shared:
            self._notes.append(shared_note(self._powercap))
        else:
            self._notes += machine_notes(self._machine, self._sysfs_root, cpuinfo, packages)
        self._find_mirrors()
        return [channel.spec for channel in self._channels]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every counter: one system call each. A counter that can't be read is a TryAgain, and alone in it."""
        parted = self._folded.check(now_nanoseconds)
        offers = [self._unfold(parted)] if any(isinstance(pair.watch, MirrorWatch) for pair in parted) else []
        # A copy: a verdict takes channels out, those of the mirror's parts after it in the list too.
        return [*offers, *(self._read(channel) for channel in list(self._channels))]

    def notes(self) -> Sequence[str]:
        """What was folded, can't be read, or is known to be wrong on this processor."""
        return [*self._notes, *self._folded.notes]

    def close(self) -> None:
        """Close all counters."""
        for channel in self._channels:
            channel.counter.close()
        self._channels, self._mirrors = [], []
        self._folded.close()

    def _read(self, channel: _Channel) -> Reading:
        key, zone = channel.spec.key, channel.zone
        if channel.pair is not None and self._judge(channel, channel.pair) is Verdict.UNDECIDED:
            # Withheld until it is known: a TryAgain loses nothing, a mirror that is summed doubles.
            return TryAgain(key, f"rapl: {zone.folder} may mirror another die; more energy must pass to know")
        if channel.is_folded:
            return Gone(key, f"rapl: {zone.folder} mirrors another die, and is counted there")
        try:
            value = channel.counter.value()
        except (OSError, ValueError) as error:
            return TryAgain(key, why(zone.energy_path, error))
        if channel.scale is None:
            return CounterReading(key, value, zone.generation)
        return CounterReading(key, channel.scale.scaled(value), zone.generation + SCALED_GENERATION)

    def _judge(self, channel: _Channel, pair: Pair) -> Verdict:
        """Observe a possible mirror once, and do what the verdict says."""
        verdict = pair.observe()
        if verdict is Verdict.DISTINCT:
            channel.pair = None
        elif verdict is Verdict.MIRRORED:
            self._fold(channel, pair)
        return verdict

    def _fold(self, mirror: _Channel, pair: Pair) -> None:
        """Take a mirror out, with the shown parts of its package; its counter stays under watch."""
        self._notes.append(
            f"rapl: {mirror.zone.name} mirrors {pair.leader.zone.name}: one counter shown on each die; it is counted once."
        )
        mirror.pair, mirror.is_folded = None, True
        for part in self._channels:
            if part.spec.parent == mirror.spec.key:
                part.is_folded = True
                part.counter.close()
        self._mirrors += [each for each in self._channels if each.is_folded]
        self._channels = [each for each in self._channels if not each.is_folded]
        self._folded.add(pair)

    def _unfold(self, parted: list[Pair]) -> Offer:
        """Take up the counters that are no mirrors any more, with the shown parts of their packages."""
        twins = {id(pair.twin) for pair in parted}
        keys = {mirror.spec.key for mirror in self._mirrors if id(mirror.counter) in twins}
        back = [each for each in self._mirrors if each.spec.key in keys or each.spec.parent in keys]
        self._mirrors = [each for each in self._mirrors if each not in back]
        for each in back:
            each.is_folded = False
        self._channels += back
        return Offer(tuple(channel.spec for channel in self._channels))

    def _find_mirrors(self) -> None:
        """Watch every further die of a package; where the first values are equal, wait for the verdict."""
        leaders: dict[tuple[str, int | None], _Channel] = {}
        for channel in self._channels:
            zone = channel.zone
            if zone.die is None or zone.kind not in ("package", "dram"):
                continue
            leader = leaders.setdefault((zone.kind, zone.package), channel)
            if leader is not channel:
                channel.pair = mirror_pair(leader.counter, channel.counter)
        for _ in range(SETTLE_STEPS_MAX):
            for channel in list(self._channels):
                if channel.pair is not None:
                    self._judge(channel, channel.pair)
            if not any(_is_likely(channel.pair) for channel in self._channels):
                return
            self._settle(SETTLE_SECONDS)

    def _best(self, group: list[Zone], errors: list[OSError]) -> Counter:
        """The first zone of a group that can be read, open; else the first, closed. The others are watched."""
        counters = [Counter(zone, self._opener, self._pread) for zone in group]
        readable: list[Counter] = []
        for counter in counters:
            try:
                counter.probe()
                readable.append(counter)
            except OSError as error:
                errors.append(error)
        chosen = (readable or counters)[0]
        for counter in counters:
            if counter is not chosen:
                self._notes.append(
                    f"rapl: {counter.zone.folder.name} measures {counter.zone.name} like {chosen.zone.folder.name} does; "
                    "only the latter is booked."
                )
        for twin in readable[1:]:
            self._folded.add(duplicate_pair(chosen, twin))
        return chosen

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
        return key_of(psys[0])

    def _faults(self, zone: Zone) -> list[Fault]:
        """What is known to be wrong with a zone."""
        # Counters in a shared folder are 64 bits wide: they never wrap, and have no range.
        has_range = zone.range_microjoules is not None or zone.interface == SHARED
        return faults_of(self._machine, Sensor(NAME, zone.kind, zone.unit_microjoules, has_range=has_range))

    def _note_unreadable(self) -> None:
        for channel in self._channels:
            zone = channel.zone
            if channel.counter.descriptor < 0:
                self._notes.append(f"rapl: {zone.energy_path} ({zone.name}) can't be read yet; it is tried at each read.")

    def _unavailable(self, reason: str) -> SourceUnavailableError:
        remedy = SHARED_REMEDY if self._is_shared else remedy_without_powercap(self._machine)
        return SourceUnavailableError(f"rapl: {reason}", remedy)


def _is_likely(pair: Pair | None) -> bool:
    """Whether a pair is undecided, but began with equal values."""
    return pair is not None and isinstance(pair.watch, MirrorWatch) and pair.watch.equal_at_first


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _unreadable(errors: list[OSError]) -> SourceUnavailableError:
    """None of the counters can be read: say why, permission first, for that has a remedy."""
    denied = [error for error in errors if error.errno in (errno.EACCES, errno.EPERM)]
    error = (denied or errors)[0]
    remedy = PERMISSION_REMEDY if denied else "The driver answers, but has no value: see the kernel's log for intel_rapl."
    return SourceUnavailableError(f"rapl: {error.filename} can't be read: {error.strerror}.", remedy)
