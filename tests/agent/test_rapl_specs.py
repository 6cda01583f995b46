"""A zone's channel: what a known fault makes of its role and range."""

from pathlib import Path

import pytest

from wattledger_agent.known_faults import Action, Fault
from wattledger_agent.readings import ChannelKey, Role
from wattledger_agent.sources.powercap import Zone
from wattledger_agent.sources.rapl_specs import spec_of

PACKAGE = Zone(Path("intel-rapl:0"), "intel-rapl", "package-0", "package", 0, None, 262143328850, None)
PSYS = Zone(Path("intel-rapl:1"), "intel-rapl", "psys", "psys", None, None, 262143328850, None)


def fault(action: Action, scale: tuple[int, int] = (1, 1)) -> Fault:
    """A fault that asks for this action."""
    return Fault("x", action, "x", "http", scale=scale)


@pytest.mark.parametrize(
    ("action", "role", "range_microjoules"),
    [
        (Action.SHOW_ONLY, Role.SHOWN, 262143328911),
        (Action.NO_RANGE, Role.LEAF, None),
        (Action.SCALE, Role.LEAF, 131071664455),
        (Action.DISTRUST, Role.LEAF, 262143328911),
        (Action.COARSE_STEP, Role.LEAF, 262143328911),
    ],
)
def test_an_action_of_the_registry_is_obeyed(action: Action, role: Role, range_microjoules: int | None) -> None:
    """An entry that is added later needs no code here."""
    spec = spec_of(PACKAGE, None, [fault(action, (1, 2))], "")
    assert (spec.role, spec.counter_range_microjoules) == (role, range_microjoules)


def test_a_node_meter_that_may_only_be_shown_meters_nothing() -> None:
    """Whatever the operator says of psys."""
    meter = ChannelKey("node", "psys", "rapl")
    assert spec_of(PSYS, meter, [], "").role is Role.METER
    assert spec_of(PSYS, meter, [fault(Action.SHOW_ONLY)], "").role is Role.SHOWN
