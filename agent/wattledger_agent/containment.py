"""Says which device lies within which, whatever sources meter them.

Chooses nothing that is booked (see topology) and reads nothing. Source of truth: what sources state as `within` and
`parent`; what nobody states lies in the node.
"""

from collections.abc import Iterable, Mapping

from wattledger_agent.readings import ChannelKey, ChannelSpec

# The device that is the whole host.
NODE = "node"


def containers(specs: Iterable[ChannelSpec]) -> dict[str, str]:
    """Return, by device, the device right around it, for those of which one is stated.

    The first statement counts, `within` before `parent`. A device that would contain itself lies in the node instead, so
    that every way upwards ends.
    """
    known = list(specs)
    found: dict[str, str] = {}
    for spec in known:
        _note(found, spec.key.device, spec.within)
    for spec in known:
        if spec.parent is not None:
            _note(found, spec.key.device, spec.parent.device)
    for device in sorted(found):
        if device in list(ancestors(found[device], found)):
            found[device] = NODE
    return found


def ancestors(device: str, found: Mapping[str, str]) -> Iterable[str]:
    """Yield the device, what contains it, and so on up to the node; each once. found: from `containers`."""
    seen = set()
    while device and device not in seen:
        yield device
        seen.add(device)
        device = "" if device == NODE else found.get(device, NODE)


def without_rings(booked: Mapping[ChannelKey, ChannelSpec]) -> set[ChannelKey]:
    """Return channels that must lose their parent, so that none lies within itself: in a ring nothing would be summed."""
    parents = {key: spec.parent for key, spec in booked.items()}
    cut = set()
    # The node first: what it lies in is surely nonsense.
    for key in sorted(parents, key=lambda key: (key.device != NODE, key)):
        seen, above = {key}, parents[key]
        while above is not None and above not in seen:
            seen.add(above)
            above = parents.get(above)
        if above == key:
            parents[key] = None
            cut.add(key)
    return cut


def _note(found: dict[str, str], device: str, above: str) -> None:
    if above and above != device and device != NODE:
        found.setdefault(device, above)
