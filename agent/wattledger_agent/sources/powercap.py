"""Finds RAPL zones in sysfs and says what each one measures, and how much power is possible there.

Reads no energy and holds no file open. A zone is known by its `name` file and its parent's, never by the number in its path:
on two-socket Sapphire Rapids `intel-rapl:1` is psys and package 1 is `intel-rapl:2`. Sources of truth:
Documentation/power/powercap/powercap.rst and rapl_init_domains() in drivers/powercap/intel_rapl_common.c.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.readings import MICROJOULES_PER_JOULE

# Every driver of RAPL registers a control type of this stem: by MSR `intel-rapl` (AMD too), by memory-mapped registers
# `intel-rapl-mmio`, by TPMI `intel-rapl` or `intel-rapl-tpmi`. Zones are `<control type>:<n>[:<n>]`.
STEM = "intel-rapl"

# Where several measure one domain, the first is read. By MSR all domains are present; MMIO has the package alone. The place
# in the list is the generation of its counters, so that a change of driver within a boot never looks like a wrap.
INTERFACES = ("intel-rapl", "intel-rapl-tpmi", "intel-rapl-mmio")

# The name of what is no driver's: zones in a shared folder, which have no name of their own.
SHARED = "shared"

PACKAGE_NAME = re.compile(r"package-(\d+)(?:-die-(\d+))?")
PSYS_NAME = re.compile(r"psys(?:-(\d+))?")
PARTS = ("core", "uncore", "dram")

# A counter is 32 bits wide, times the energy unit.
COUNTER_STEPS = 2**32 - 1

CONSTRAINTS_MAX = 3  # long_term, short_term, peak_power: the kernel has no more (NR_POWER_LIMITS).

# Power bounds. More must be impossible as a mean over a tick, for what is above is refused; and a lower bound is better,
# for a counter of range R is ambiguous after R / bound without a reading (AMD: 65.5 kJ at 1000 W are 65 s).
# Package: the largest server packages of 2025 are sold with 500 W and hold short_term, about 1.2 times that, for seconds;
# peak_power (about 2 times) for milliseconds. So twice the largest limit that the kernel states, at least 500 W (a laptop's
# 15 W part may be set to 65 W and more by its firmware), and 1000 W where none is stated, as on AMD.
PACKAGE_LIMIT_FACTOR = 2.0
PACKAGE_BOUND_WATTS_MIN = 500.0
PACKAGE_BOUND_WATTS_DEFAULT = 1000.0
PACKAGE_BOUND_WATTS_MAX = 2000.0
# Memory of one socket: 12 channels with two modules each of at most 20 W (DDR5 of 256 GB, multiplexed ranks) are 480 W.
# Limits that are stated for dram are firmware's leftovers (3408 W on a desktop Haswell), so they are not used.
DRAM_BOUND_WATTS = 500.0
# Psys: the supplies of the largest eight-GPU servers deliver 12 kW.
PSYS_BOUND_WATTS = 12_000.0
# A guest's share of its host, whose processors it may use up alone: two packages.
SHARED_BOUND_WATTS = 2 * PACKAGE_BOUND_WATTS_MAX


@dataclass(frozen=True, slots=True)
class Zone:
    """One RAPL zone.

    folder: its folder in sysfs. interface: its control type. name: the content of its `name` file.
    kind: package, core, uncore, dram or psys. package: the socket's number, None for psys without one. die: or None.
    range_microjoules: the counter's range; None if it can't be read.
    limit_watts: the largest power limit that the kernel states; None if it states none.
    """

    folder: Path
    interface: str
    name: str
    kind: str
    package: int | None
    die: int | None
    range_microjoules: int | None
    limit_watts: float | None

    @property
    def identity(self) -> tuple[str, int, int]:
        """What is measured; two zones with one identity measure the same."""
        return self.kind, -1 if self.package is None else self.package, -1 if self.die is None else self.die

    @property
    def generation(self) -> int:
        """The interface's place in INTERFACES, or the number after the last."""
        return INTERFACES.index(self.interface) if self.interface in INTERFACES else len(INTERFACES)

    @property
    def energy_path(self) -> Path:
        """The counter's file."""
        return self.folder / "energy_uj"

    @property
    def modulus_microjoules(self) -> int | None:
        """After how much the counter is where it was: the kernel states its highest value, and 0 is one step more."""
        if self.range_microjoules is None:
            return None
        return self.range_microjoules + round(self.unit_microjoules)

    @property
    def unit_microjoules(self) -> float:
        """Energy of one step of the counter; 0 if the range is not known."""
        return (self.range_microjoules or 0) / COUNTER_STEPS


def find_zones(powercap: Path, *, is_shared: bool = False) -> tuple[list[list[Zone]], list[str]]:
    """Return the zones grouped by what they measure, each group's best first, and notes of what was left out.

    powercap: the folder of the powercap class. is_shared: it is no sysfs, but a folder in which a virtual machine's host
        writes the guest's share, where a zone may have nothing but its counter.
    Groups are in the order of kind, package, die. Raises OSError if the folder can't be listed.
    """
    notes: list[str] = []
    zones: dict[str, Zone] = {}
    for entry in sorted(powercap.iterdir(), key=lambda entry: _natural(entry.name)):
        interface, _, index = entry.name.partition(":")
        if not interface.startswith(STEM) or not index:
            continue
        if is_shared and not (entry / "name").exists():
            if index.isdigit() and (entry / "energy_uj").exists():
                zones[entry.name] = Zone(entry, SHARED, f"package-{int(index)}", "package", int(index), None, None, None)
            continue
        # The parent comes first in this order: its name is a prefix.
        zone = _zone(entry, interface, zones.get(entry.name.rpartition(":")[0]), notes)
        if zone is not None:
            zones[entry.name] = zone
    groups: dict[tuple[str, int, int], list[Zone]] = {}
    for zone in sorted(zones.values(), key=lambda zone: zone.generation):
        groups.setdefault(zone.identity, []).append(zone)
    order = ("psys", "package", *PARTS)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[1], key[2]))
    return [groups[key] for key in keys], notes


def power_bound_watts(zone: Zone) -> float:
    """More than this is impossible for the zone; see the constants."""
    if zone.interface == SHARED:
        return SHARED_BOUND_WATTS
    if zone.kind == "psys":
        return PSYS_BOUND_WATTS
    if zone.kind == "dram":
        return DRAM_BOUND_WATTS
    if zone.limit_watts is None:
        return PACKAGE_BOUND_WATTS_DEFAULT
    return min(max(zone.limit_watts * PACKAGE_LIMIT_FACTOR, PACKAGE_BOUND_WATTS_MIN), PACKAGE_BOUND_WATTS_MAX)


def _zone(folder: Path, interface: str, parent: Zone | None, notes: list[str]) -> Zone | None:
    try:
        name = (folder / "name").read_text().strip()
    except OSError as error:
        if folder.is_symlink() and not folder.exists():
            # Container runtimes hide the target since CVE-2020-8694.
            notes.append(
                f"rapl: {folder} points to nothing that can be seen here; "
                "mount /sys/devices/virtual/powercap into the container."
            )
        else:
            notes.append(f"rapl: {folder / 'name'} can't be read ({error.strerror}); the zone is not metered.")
        return None
    place = _place(name, parent)
    if place is None:
        notes.append(f"rapl: {folder} is named {name!r}, which is no RAPL domain that is known; it is not metered.")
        return None
    kind, package, die = place
    return Zone(
        folder=folder,
        interface=interface,
        name=name,
        kind=kind,
        package=package,
        die=die,
        range_microjoules=_positive(folder / "max_energy_range_uj"),
        limit_watts=_limit_watts(folder),
    )


def _place(name: str, parent: Zone | None) -> tuple[str, int | None, int | None] | None:
    """Kind, package and die of a zone; None if the name says nothing."""
    if match := PACKAGE_NAME.fullmatch(name):
        return "package", int(match[1]), _number(match[2] or "")
    if match := PSYS_NAME.fullmatch(name):
        return "psys", _number(match[1] or ""), None
    if name in PARTS and parent is not None and parent.kind == "package":
        return name, parent.package, parent.die
    return None


def _limit_watts(folder: Path) -> float | None:
    paths = (folder / f"constraint_{number}_max_power_uw" for number in range(CONSTRAINTS_MAX))
    return _largest(_positive(path) for path in paths)


def _largest(microwatts: Iterable[int | None]) -> float | None:
    known = [value for value in microwatts if value is not None]
    return max(known) / MICROJOULES_PER_JOULE if known else None


def _positive(path: Path) -> int | None:
    """A number above 0 in a file; None if it is missing, empty, unreadable (often ENODATA), 0 or no number."""
    try:
        number = _number(path.read_text().strip())
    except OSError:
        return None
    return number if number else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `intel-rapl:10` after `intel-rapl:9`, and a parent before its children."""
    return [(len(piece), piece) for piece in name.split(":")]
