"""Reads RAPL on a fixture machine: what the tests of that source share."""

from pathlib import Path

from tests.agent.machines import Machine

from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    CounterReading,
    Gone,
    Reading,
    TryAgain,
)
from wattledger_agent.sources.rapl import RaplSource

JOULE = 1_000_000

PACKAGE_0 = ChannelKey("cpu/0", "package", "rapl")
PACKAGE_1 = ChannelKey("cpu/1", "package", "rapl")
DRAM_0 = ChannelKey("memory/0", "dram", "rapl")
DRAM_1 = ChannelKey("memory/1", "dram", "rapl")
PSYS = ChannelKey("node", "psys", "rapl")
DIE_0 = ChannelKey("cpu/0", "package-die-0", "rapl")
DIE_1 = ChannelKey("cpu/0", "package-die-1", "rapl")


def source_of(host: Machine, *, psys_is_node_meter: bool = False, shared_root: Path | None = None) -> RaplSource:
    """A source on this machine."""
    return RaplSource(
        host.sys,
        host.proc,
        psys_is_node_meter=psys_is_node_meter,
        shared_root=shared_root,
        opener=host.opener,
        pread=host.pread,
        settle=host.settle,
    )


def counters(readings: object) -> dict[ChannelKey, int]:
    """The values that were read."""
    assert isinstance(readings, list)
    return {reading.key: reading.counter_microjoules for reading in readings if isinstance(reading, CounterReading)}


def outcome(readings: object, key: ChannelKey) -> Reading:
    """The one reading of a channel."""
    assert isinstance(readings, list)
    (reading,) = (each for each in readings if each.key == key)
    assert isinstance(reading, CounterReading | TryAgain | Gone)
    return reading


def by_key(specs: object) -> dict[ChannelKey, ChannelSpec]:
    """The specs by channel; no key comes twice."""
    assert isinstance(specs, list)
    found = {spec.key: spec for spec in specs}
    assert len(found) == len(specs)
    return found


def tree(specs: object) -> list[str]:
    """One line for each channel: key, role, component, parent, bound and range."""
    lines = []
    for spec in by_key(specs).values():
        parent = f" in {spec.parent.device} {spec.parent.domain}" if spec.parent else ""
        lines.append(
            f"{spec.key.device} {spec.key.domain} {spec.role.name} {spec.component.name}{parent} "
            f"{spec.power_bound_watts:g} W {spec.counter_range_microjoules}"
        )
    return lines
