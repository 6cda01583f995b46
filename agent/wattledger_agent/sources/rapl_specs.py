"""What a RAPL zone is in the tree of channels: its key, role, parent, range.

Reads nothing. Source of truth: Documentation/power/powercap/powercap.rst; a package's counter excludes its dram
(https://github.com/powercap/powercap/issues/3).
"""

from collections.abc import Sequence

from wattledger_agent.known_faults import Action, Fault, with_action
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, Role
from wattledger_agent.sources.powercap import Zone, power_bound_watts

NAME = "rapl"

NODE = "node"

# Added to a counter's generation where it is scaled: an agent that does not scale it leaves other raw values.
SCALED_GENERATION = 8

COMPONENTS = {"dram": Component.MEMORY, "psys": Component.OTHER}


def key_of(zone: Zone) -> ChannelKey:
    """Return the zone's key, made of its name alone, so that neither driver nor kernel changes it."""
    if zone.kind == "psys":
        return ChannelKey(NODE, zone.name, NAME)
    part = "memory" if zone.kind == "dram" else "cpu"
    suffix = "" if zone.die is None else f"-die-{zone.die}"
    return ChannelKey(f"{part}/{zone.package}", f"{zone.kind}{suffix}", NAME)


def spec_of(zone: Zone, meter: ChannelKey | None, faults: Sequence[Fault], model_name: str) -> ChannelSpec:
    """Return the zone's channel. meter: the psys zone that contains the node. faults: what is known of the zone."""
    key = key_of(zone)
    role, parent = Role.SHOWN, None
    if zone.kind in ("package", "dram"):
        role, parent = Role.LEAF, meter
    elif key == meter:
        role = Role.METER
    elif zone.kind != "psys":
        suffix = "" if zone.die is None else f"-die-{zone.die}"
        parent = ChannelKey(key.device, f"package{suffix}", NAME)
    if with_action(faults, Action.SHOW_ONLY) is not None:
        role = Role.SHOWN
    # Without a range the meter can't tell a wrap from a reset, and takes a fall as a gap.
    modulus = None if with_action(faults, Action.NO_RANGE) is not None else zone.modulus_microjoules
    scale = with_action(faults, Action.SCALE)
    return ChannelSpec(
        key=key,
        component=COMPONENTS.get(zone.kind, Component.CPU),
        method=Method.COUNTER,
        role=role,
        power_bound_watts=power_bound_watts(zone),
        parent=parent,
        counter_range_microjoules=scale.scaled(modulus) if scale is not None and modulus is not None else modulus,
        model=model_name if zone.kind == "package" else "",
    )
