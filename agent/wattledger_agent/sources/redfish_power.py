"""Where a Redfish service tells a server's power, and what the figures mean.

Opens no connection: resources come from a function. The counter EnergykWh is not used: it was seen in steps of 0.1 kWh (six
minutes of a 1 kW server) and is reset at will, so that power every few seconds, integrated, is the finer and the safer one.
Source of truth: DMTF's schemas Chassis, EnvironmentMetrics, Power, PowerSubsystem and PowerSupplyMetrics (DSP8010).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from wattledger_agent.known_faults import power_sentinel
from wattledger_agent.slow import PollError
from wattledger_agent.sources.redfish_session import RedfishError

Resource = Mapping[str, Any]
Get = Callable[[str], Resource]

MICROWATTS_PER_WATT = 1_000_000

# More than any server or enclosure has; a service that lists more is asked no further.
CHASSIS_MAX = 64
SYSTEMS_MAX = 64
SUPPLIES_MAX = 32

# A figure beside one of these is not one of now.
OFF_STATES = frozenset({"Disabled", "Absent", "UnavailableOffline", "StandbyOffline"})

# Power controls of a part of the server; the whole one stands beside them.
_PART = re.compile(r"cpu|processor|memory|dimm|gpu|accelerator|fan|storage|drive|disk|network|voltage", re.IGNORECASE)

# A chassis of these types is a part in the server, such as a tray of GPUs with sensors of its own.
_PART_TYPES = frozenset({"Component", "Module", "Card", "Cartridge", "Zone", "ExpansionChassis", "StorageEnclosure"})

NOT_FOUND = 404


class Where(Enum):
    """Which resource tells the power."""

    ENVIRONMENT = "EnvironmentMetrics"
    CONTROL = "PowerControl"
    SUPPLIES = "PowerSupplies"


@dataclass(frozen=True, slots=True)
class PowerMeter:
    """One chassis' power. path: the resource to ask. index: of the power control. systems: how many servers it feeds."""

    device: str
    where: Where
    path: str
    model: str
    systems: int = 1
    index: int = 0
    supplies: tuple[str, ...] = ()

    @property
    def is_shared(self) -> bool:
        """Whether it is the power of more than this server."""
        return self.systems > 1


@dataclass(slots=True)
class _Chassis:
    path: str
    resource: Resource
    systems: set[str]
    contains: list[str]


@dataclass(slots=True)
class Found:
    """What discovery found. notes: one sentence each."""

    meters: list[PowerMeter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def discover(get: Get, *, system: str = "", uuid: str = "") -> Found:
    """Find what tells the power of this server, and of what it shares. Raises RedfishError.

    system: id of the server among several; empty: the only one, or the one with this DMI UUID.
    """
    root = _if_there(get, "/redfish/v1/")
    if not root:
        raise RedfishError("redfish: the controller has no Redfish service; update its firmware, or switch the source off")
    own = _own_system(get, root, system, uuid)
    chassis = {path: _chassis(get, path) for path in _members(get, root, "Chassis", CHASSIS_MAX)}
    found = Found()
    for candidate in _candidates(chassis, own):
        systems = max(1, len(_systems_of(candidate, chassis)))
        meter = _meter(get, candidate, systems, own)
        if meter is None or any(meter.device == other.device for other in found.meters):
            # A second chassis of the server's own is a part of it.
            continue
        found.meters.append(meter)
        if meter.is_shared:
            found.notes.append(
                f"redfish: {meter.device} feeds {meter.systems} servers; its power is shown, and is not this server's meter."
            )
    if not found.meters:
        raise RedfishError(
            "redfish: no chassis of this server tells its power; update the controller's firmware, or switch the source off",
            status=NOT_FOUND,
        )
    return found


def read_power(get: Get, meter: PowerMeter) -> int:
    """The power of a meter; microwatts, above 0. Raises PollError where there is none."""
    if meter.where is Where.SUPPLIES:
        watts = sum(watts for watts in (_supply_watts(get(path), path) for path in meter.supplies) if watts is not None)
    elif meter.where is Where.ENVIRONMENT:
        sensor = _object(get(meter.path), "PowerWatts")
        _check_state(sensor, meter.path)
        watts = _needed(_watts(sensor.get("Reading")), meter.path)
    else:
        controls = _list(get(meter.path), "PowerControl")
        if meter.index >= len(controls):
            raise PollError(f"redfish: {meter.path} has no power control {meter.index} any more; restart the agent")
        control = controls[meter.index]
        _check_state(control, meter.path)
        watts = _needed(_watts(control.get("PowerConsumedWatts")), meter.path)
    microwatts = round(watts * MICROWATTS_PER_WATT)
    fault = power_sentinel("redfish", microwatts)
    if fault is not None or microwatts < 0:
        why = "below 0" if fault is None else fault.sentence
        raise PollError(
            f"redfish: {watts:g} W in {meter.path} is no power: {why}; update the controller's firmware if it stays"
        )
    return microwatts


def _own_system(get: Get, root: Resource, wanted: str, uuid: str) -> str:
    paths = _members(get, root, "Systems", SYSTEMS_MAX)
    if wanted:
        named = [path for path in paths if path.rstrip("/").rpartition("/")[2] == wanted]
        if named:
            return named[0]
    elif len(paths) == 1:
        return paths[0]
    elif uuid:
        for path in paths:
            if str(get(path).get("UUID", "")).lower() == uuid.lower():
                return path
    ids = ", ".join(path.rstrip("/").rpartition("/")[2] for path in paths) or "none"
    raise RedfishError(
        f"redfish: the controller has the systems {ids}, and which of them is this server can't be told; name it in "
        "`sources.redfish.system`",
    )


def _chassis(get: Get, path: str) -> _Chassis:
    resource = get(path)
    links = _object(resource, "Links")
    return _Chassis(path, resource, set(_ids(links, "ComputerSystems")), _ids(links, "Contains"))


def _candidates(chassis: Mapping[str, _Chassis], own: str) -> Iterator[_Chassis]:
    """Chassis of this server, the server's own before parts of it, and then those that contain it."""
    linked = [each for each in chassis.values() if own in each.systems]
    if not linked and len(chassis) == 1:
        linked = list(chassis.values())
    linked.sort(key=lambda each: (len(each.systems), each.resource.get("ChassisType") in _PART_TYPES))
    yield from linked
    paths = {each.path for each in linked}
    for each in chassis.values():
        if each.path not in paths and own in _systems_of(each, chassis):
            yield each


def _systems_of(chassis: _Chassis, every: Mapping[str, _Chassis], seen: frozenset[str] = frozenset()) -> set[str]:
    """All servers in a chassis and in those that it contains; links in a circle end."""
    systems = set(chassis.systems)
    for path in chassis.contains:
        if path in every and path not in seen:
            systems |= _systems_of(every[path], every, seen | {chassis.path, path})
    return systems


def _meter(get: Get, chassis: _Chassis, systems: int, own: str) -> PowerMeter | None:
    """What tells the power of a chassis: EnvironmentMetrics, else Power, else the supplies of PowerSubsystem."""
    model = " ".join(str(chassis.resource.get(key) or "") for key in ("Manufacturer", "Model")).strip()[:80]
    environment = _link(chassis.resource, "EnvironmentMetrics")
    if environment and "PowerWatts" in _if_there(get, environment):
        return PowerMeter(_device(chassis, systems), Where.ENVIRONMENT, environment, model, systems)
    power = _link(chassis.resource, "Power")
    for index, control in enumerate(_list(_if_there(get, power), "PowerControl") if power else []):
        if not _is_whole(control):
            continue
        related = {path for path in _ids(control, "RelatedItem") if "/Systems/" in path}
        if related and own not in related:
            continue
        # An entry that names its systems knows better than the chassis whom it feeds.
        fed = len(related) or systems
        return PowerMeter(_device(chassis, fed), Where.CONTROL, power, model, fed, index)
    subsystem = _link(chassis.resource, "PowerSubsystem")
    supplies = _supplies(get, subsystem) if subsystem else ()
    if supplies:
        return PowerMeter(_device(chassis, systems), Where.SUPPLIES, subsystem, model, systems, supplies=supplies)
    return None


def _device(chassis: _Chassis, systems: int) -> str:
    if systems <= 1:
        return "node"
    for key in ("SerialNumber", "UUID", "Id"):
        name = str(chassis.resource.get(key) or "").strip()
        if name and name.isprintable():
            return f"chassis/{name[:80]}"
    return f"chassis/{chassis.path.rstrip('/').rpartition('/')[2][:80]}"


def _is_whole(control: Resource) -> bool:
    """Whether a power control is of the whole chassis, and has a reading at all."""
    words = f"{control.get('Name') or ''} {control.get('PhysicalContext') or ''}"
    return "PowerConsumedWatts" in control and not _PART.search(words)


def _supplies(get: Get, subsystem: str) -> tuple[str, ...]:
    """The metrics of all supplies, if each tells its input; a sum of some would be too low."""
    paths = []
    for path in _members(get, _if_there(get, subsystem), "PowerSupplies", SUPPLIES_MAX):
        supply = get(path)
        if _object(supply, "Status").get("State") == "Absent":
            continue
        metrics = _link(supply, "Metrics")
        if not metrics or "InputPowerWatts" not in _if_there(get, metrics):
            return ()
        paths.append(metrics)
    return tuple(paths)


def _supply_watts(metrics: Resource, path: str) -> float | None:
    """One supply's input; 0 is right for one that is held in reserve. None for one that was taken out."""
    if _object(metrics, "Status").get("State") in OFF_STATES:
        return None
    return _needed(_watts(_object(metrics, "InputPowerWatts").get("Reading")), path)


def _needed(watts: float | None, path: str) -> float:
    if watts is None:
        raise PollError(f"redfish: {path} tells no power now; see whether the server is on, or update the firmware")
    return watts


def _check_state(resource: Resource, path: str) -> None:
    state = _object(resource, "Status").get("State")
    if state in OFF_STATES:
        raise PollError(
            f"redfish: the state of {path} is {state}, so that its reading is not one of now; see the controller"
        )


def _watts(value: object) -> float | None:
    """A reading; some services write it as text."""
    try:
        watts = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except ValueError:
        return None
    return watts if watts is not None and abs(watts) < float("inf") else None


def _if_there(get: Get, path: str) -> Resource:
    """A resource, empty where the service links to what it does not have."""
    try:
        return get(path)
    except RedfishError as error:
        if error.status == NOT_FOUND:
            return {}
        raise


def _members(get: Get, resource: Resource, name: str, count_max: int) -> Sequence[str]:
    """The paths in a collection that a resource links to."""
    path = _link(resource, name)
    return _ids(_if_there(get, path), "Members")[:count_max] if path else []


def _link(resource: Resource, name: str) -> str:
    path = _object(resource, name).get("@odata.id")
    return path if isinstance(path, str) else ""


def _ids(resource: Resource, name: str) -> list[str]:
    return [path for path in (item.get("@odata.id") for item in _list(resource, name)) if isinstance(path, str)]


def _object(resource: Resource, name: str) -> Resource:
    value = resource.get(name)
    return value if isinstance(value, dict) else {}


def _list(resource: Resource, name: str) -> list[Resource]:
    value = resource.get(name)
    items: Iterable[Any] = value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]
