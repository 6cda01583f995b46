"""What is summed counts each joule once; residuals are exact, and their gaps mirror those of their parts."""

from dataclasses import replace

import pytest
from tests.agent.metering import GAP_SECONDS, at, spec

from wattledger_agent.channels import rule_of
from wattledger_agent.counters import ChannelState, GapReason, open_state
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, Role
from wattledger_agent.topology import (
    Base,
    advance_residual,
    base_of,
    parts_of,
    residual_spec,
    resolve,
    start_residual,
)

NODE = spec("node", role=Role.METER, domain="psys", component=Component.OTHER, bound=1000.0)
PACKAGE = spec("cpu/0", parent=NODE.key)
DRAM = spec("memory/0", domain="dram", component=Component.MEMORY, bound=50.0, parent=NODE.key)
CORE = spec("cpu/0", domain="core", role=Role.SHOWN, parent=PACKAGE.key)
ESTIMATE = spec("node", source="estimate", domain="estimate", method=Method.MODEL, component=Component.OTHER)


def roles(specs: list[ChannelSpec]) -> dict[ChannelKey, Role]:
    """Each channel's role."""
    return {spec.key: spec.role for spec in specs}


def test_a_plain_tree_stays_as_it_is() -> None:
    """One source alone has nothing to resolve."""
    assert resolve([NODE, PACKAGE, CORE, DRAM]) == [NODE, PACKAGE, CORE, DRAM]


def test_the_better_method_is_primary_whatever_the_order() -> None:
    """A counter of a device goes before an integral, and that before a model."""
    counted = spec("gpu/0", source="a")
    integrated = spec("gpu/0", source="b", method=Method.INTEGRAL)
    modelled = spec("gpu/0", source="c", method=Method.MODEL)
    for offered in ([counted, integrated, modelled], [modelled, integrated, counted]):
        found = roles(resolve(offered))
        assert found == {counted.key: Role.LEAF, integrated.key: Role.SHOWN, modelled.key: Role.SHOWN}


def test_an_incumbent_goes_before_its_equals_even_while_it_is_away() -> None:
    """A counter recovers what it missed: another source must not book that meanwhile."""
    incumbent, newcomer = spec("gpu/0", source="b"), spec("gpu/0", source="a")
    assert roles(resolve([newcomer], [incumbent])) == {newcomer.key: Role.SHOWN}
    assert roles(resolve([newcomer, incumbent], [incumbent]))[incumbent.key] is Role.LEAF


def test_a_better_method_replaces_an_incumbent() -> None:
    """Measured figures need not wait for a reboot once an operator has allowed them."""
    modelled = spec("cpu/0", source="estimate", method=Method.MODEL)
    assert roles(resolve([modelled, spec("cpu/0")], [modelled])) == {
        modelled.key: Role.SHOWN,
        spec("cpu/0").key: Role.LEAF,
    }


def test_an_incumbent_that_is_now_only_shown_holds_nothing() -> None:
    """A source may withdraw its claim."""
    withdrawn = spec("gpu/0", source="b")
    newcomer = spec("gpu/0", source="a")
    assert roles(resolve([newcomer, replace(withdrawn, role=Role.SHOWN)], [withdrawn]))[newcomer.key] is Role.LEAF


def test_parts_of_a_second_meter_belong_to_the_primary_one() -> None:
    """Two meters of a node leave one residual."""
    board = spec("node", source="bmc", domain="board", role=Role.METER, method=Method.INTEGRAL)
    found = {spec.key: spec for spec in resolve([board, NODE, replace(PACKAGE, parent=board.key)])}
    assert found[board.key].role is Role.SHOWN
    assert found[PACKAGE.key].parent == NODE.key
    twice = resolve([NODE, replace(NODE, key=ChannelKey("node", "second", "rapl"))])
    assert [spec.role for spec in twice] == [Role.METER, Role.SHOWN]


def test_what_lies_within_a_leaf_is_shown() -> None:
    """A core's energy is in its package's already."""
    core = replace(CORE, key=ChannelKey("cpu/0/core/1", "core", "rapl"), role=Role.LEAF)
    assert roles(resolve([PACKAGE, core]))[core.key] is Role.SHOWN


def test_a_ring_of_parents_ends() -> None:
    """A source's nonsense must not hang the agent."""
    ring = [
        replace(NODE, parent=PACKAGE.key, role=Role.METER),
        replace(PACKAGE, parent=NODE.key, role=Role.METER),
    ]
    assert len(resolve(ring)) == 2


def test_a_modelled_node_never_stands_beside_measured_cpus() -> None:
    """The model is one of the CPUs' load; GPUs are in none of its curves."""
    gpu = spec("gpu/0", source="nvidia", component=Component.GPU)
    assert roles(resolve([ESTIMATE, gpu]))[ESTIMATE.key] is Role.LEAF
    assert roles(resolve([ESTIMATE, gpu, spec("cpu/0")]))[ESTIMATE.key] is Role.SHOWN
    assert roles(resolve([ESTIMATE, gpu], [spec("cpu/0")]))[ESTIMATE.key] is Role.SHOWN


def test_parts_are_leaves_and_lesser_meters() -> None:
    """What is only shown is no part."""
    module = spec("module/0", role=Role.METER, parent=NODE.key)
    assert parts_of(NODE.key, [NODE, PACKAGE, CORE, DRAM, module]) == [PACKAGE, DRAM, module]


def test_a_residual_is_no_better_made_than_its_worst_part() -> None:
    """Modelled and measured figures never share a series."""
    residual = residual_spec(NODE, [PACKAGE, replace(DRAM, method=Method.MODEL)])
    assert (residual.method, residual.role, residual.component) == (Method.MODEL, Role.RESIDUAL, Component.OTHER)
    assert (residual.key, residual.parent) == (ChannelKey("node", "residual", "rapl"), NODE.key)
    assert residual.power_bound_watts == 1150.0
    assert residual_spec(NODE, []).method is Method.COUNTER


def sums(energy: int = 0, lower: int = 0, upper: int = 0, unbounded: int = 0, reason: int = 0) -> ChannelState:
    """A channel's state with these sums."""
    now = at(0)
    return ChannelState(now.boot_id, 0, 0, True, 0, 0, 1, energy, 0, lower, upper, unbounded, reason)


def test_a_residual_is_what_the_meter_saw_beyond_its_parts_and_may_be_negative() -> None:
    """Since the last joint reading, exactly."""
    bases = {1: Base(100), 2: Base(10)}
    state, gaps = advance_residual(open_state(at(0)), {1: sums(150)}, {2: sums(30), 3: sums(50)}, bases, at(1))
    assert (state.energy_microjoules, gaps) == (50 - 20 - 50, [])
    assert state.boottime_nanoseconds == at(1).boottime_nanoseconds


@pytest.mark.parametrize("unbounded", [0, 1])
def test_a_parts_gap_is_negated_in_the_residual(unbounded: int) -> None:
    """The leaf lacks what the residual then has too much of."""
    bases = {1: base_of(sums()), 2: base_of(sums(lower=1, upper=5))}
    part = sums(30, 3, 25, unbounded, GapReason.RESET)
    state, [gap] = advance_residual(open_state(at(0)), {1: sums(100)}, {2: part}, bases, at(1))
    assert state.energy_microjoules == 70
    assert (gap.reason, gap.unbounded) == (GapReason.RESET, bool(unbounded))
    expected = (0, 0) if unbounded else (-20, -2)
    assert (gap.lower_microjoules, gap.upper_microjoules) == expected
    assert (state.gap_lower_microjoules, state.gap_upper_microjoules) == expected
    assert state.gap_unbounded_count == unbounded


def test_a_gap_of_the_meter_starts_the_residual_anew() -> None:
    """Nothing is booked; the bounds are what the meter may have seen less what the parts may have used."""
    bases = {1: Base(100), 2: Base(10)}
    meter, part = sums(120, 5, 60, 0, GapReason.REBOOT), sums(40, 0, 7, 0, GapReason.REBOOT)
    state, [gap] = advance_residual(open_state(at(0)), {1: meter}, {2: part}, bases, at(1))
    assert (state.energy_microjoules, gap.reason) == (0, GapReason.REBOOT)
    assert (gap.lower_microjoules, gap.upper_microjoules) == (20 + 5 - 30 - 7, 20 + 60 - 30)
    state, [gap] = advance_residual(open_state(at(0)), {1: meter}, {2: sums(40, 0, 0, 1)}, bases, at(1))
    assert (gap.unbounded, state.gap_unbounded_count) == (True, 1)


def test_a_first_joint_reading_after_the_opening_is_bounded_by_power_and_time() -> None:
    """Nothing is known of the time before: the parts' bounds below, the meter's above."""
    meter, parts = rule_of(NODE, GAP_SECONDS), [rule_of(PACKAGE, GAP_SECONDS), rule_of(DRAM, GAP_SECONDS)]
    state, gaps = start_residual(open_state(at(4)), meter, parts, at(4))
    assert gaps == []
    state, [gap] = start_residual(open_state(at(4)), meter, parts, at(6))
    assert (gap.lower_microjoules, gap.upper_microjoules) == (-300_000_000, 2_000_000_000)
    assert (state.energy_microjoules, state.boottime_nanoseconds) == (0, at(6).boottime_nanoseconds)
