"""Says in words why a channel is shown and not booked though its source offered it for booking.

Decides nothing: topology does, by the rules of the accounted cut; these are the reasons that those rules leave.
"""

from collections.abc import Mapping, Sequence

from wattledger_agent.containment import NODE, ancestors, containers
from wattledger_agent.readings import ChannelKey, ChannelSpec, Method, Role

_BOOKED = (Role.LEAF, Role.METER)
_METHODS = {Method.COUNTER: "an energy counter", Method.INTEGRAL: "integrated power", Method.MODEL: "a model"}


def why_shown(offered: Sequence[ChannelSpec], roles: Mapping[ChannelKey, Role]) -> dict[ChannelKey, str]:
    """Return the reason for each channel that was offered as a leaf or a meter and is only shown.

    roles: what the open channels came to be.
    """
    found = containers(offered)
    booked = [spec for spec in offered if roles.get(spec.key) in _BOOKED]
    return {
        spec.key: _reason(spec, booked, found)
        for spec in offered
        if spec.role in _BOOKED and roles.get(spec.key) is Role.SHOWN
    }


def _reason(spec: ChannelSpec, booked: Sequence[ChannelSpec], found: Mapping[str, str]) -> str:
    rival = next((other for other in booked if other.key.device == spec.key.device), None)
    if rival is not None and rival.method is not spec.method:
        return (
            f"{rival.key.source} {rival.key.domain} measures {spec.key.device} too, by {_METHODS[rival.method]}, which "
            f"misses less than {_METHODS[spec.method]}"
        )
    if rival is not None:
        return f"{rival.key.source} {rival.key.domain} measures {spec.key.device} too, and was there first"
    if spec.key.device == NODE and spec.method is Method.MODEL:
        return "sensors measure the CPUs, and a model never stands beside them"
    above = set(ancestors(spec.key.device, found))
    leaf = next((other for other in booked if other.role is Role.LEAF and _holds(other, spec, above)), None)
    if leaf is not None:
        return f"it lies within {leaf.key.device} {leaf.key.domain}, whose energy contains it"
    return "it can't be told apart from what is booked around it"


def _holds(leaf: ChannelSpec, spec: ChannelSpec, above: set[str]) -> bool:
    return spec.parent == leaf.key or leaf.key.device in above
