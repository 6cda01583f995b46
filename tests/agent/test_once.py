"""`once` shows every channel with its place in the sum, and says of each one without a value why."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.agent.metering import SECOND, counter, spec
from tests.agent.scripted import Clock, ScriptedSource, opened

from wattledger_agent import once
from wattledger_agent.inventory import Inventory, Missing
from wattledger_agent.readings import (
    ChannelSpec,
    Component,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)

MODELLED = replace(
    spec("node", source="estimate", domain="estimate", method=Method.MODEL, component=Component.OTHER),
    uncertainty_lower_ratio=0.25,
    uncertainty_upper_ratio=0.5,
    model="Some CPU",
)


def look(inventory: Inventory) -> once.Snapshot:
    """A look in no time."""
    clock = Clock()
    return once.look(inventory, clock.instant, clock.sleep)


def steady(watts: dict[ChannelSpec, int]) -> ScriptedSource:
    """Counters that rise evenly."""
    return ScriptedSource(
        "rapl",
        lambda now: [counter(channel, power * now // 1000) for channel, power in watts.items()],
        list(watts),
    )


def test_a_slow_meter_has_a_power_though_it_tells_one_in_a_look() -> None:
    """A management controller answers every ten seconds; what it saw beyond the parts is shown as well."""
    node = replace(
        spec("node", source="ipmi", domain="dcmi", method=Method.INTEGRAL, role=Role.METER, component=Component.OTHER),
        cadence_seconds=10.0,
    )
    controller = ScriptedSource(
        "ipmi", lambda now: [PowerReading(node.key, 90_000_000)] if len(controller.reads) == 1 else [], [node]
    )

    snapshot = look(opened(steady({spec("cpu/0"): 60}), controller))

    powers = {(line.key.device, line.key.domain): line.power_watts for line in snapshot.lines}
    assert powers["node", "dcmi"] == 90.0
    assert snapshot.booked_watts == pytest.approx(90.0)


def test_an_estimate_has_a_power_though_its_first_read_has_none() -> None:
    """It sees a load between two reads, and a power needs two values: three reads are made."""
    powers: list[Reading] = [TryAgain(MODELLED.key, "estimate: no load yet"), *[PowerReading(MODELLED.key, 9_000_000)] * 2]
    source = ScriptedSource("estimate", lambda now: [powers[len(source.reads) - 1]], [MODELLED])

    snapshot = look(opened(source))

    (line,) = snapshot.lines
    assert (line.power_watts, line.problem) == (9.0, "")
    assert [now / SECOND for now in source.reads] == [100.0, 100.5, 101.0]
    assert source.closed
    text = once.as_text(snapshot)
    assert "9.0 W  (MODELLED, booked, 95 % band -25% +50%) Some CPU" in text


def test_the_tree_shows_what_a_node_meter_saw_beyond_its_parts() -> None:
    """Parts hang below their meter, the residual too; parts and residual are what is booked."""
    node = spec("node", source="rapl", domain="psys", role=Role.METER, bound=500.0, component=Component.OTHER)
    package = spec("cpu/0", parent=node.key)
    core = spec("cpu/0", domain="core", role=Role.SHOWN, parent=package.key)

    snapshot = look(opened(steady({node: 100, package: 60, core: 40})))

    assert snapshot.booked_watts == 100.0
    tree = [line.split("(")[0].rstrip() for line in once.as_text(snapshot).splitlines()]
    rows = [(len(line) - len(line.lstrip()), *line.split()) for line in tree]
    assert rows == [
        (0, "node", "psys", "rapl", "100.0", "W"),
        (2, "cpu/0", "package", "rapl", "60.0", "W"),
        (4, "cpu/0", "core", "rapl", "40.0", "W"),
        (2, "node", "residual", "rapl", "40.0", "W"),
        (0, "booked", "in", "all", "100.0", "W"),
    ]


def test_a_source_that_raises_costs_itself_alone() -> None:
    """Its channels are unread, never zero, with the reason; nothing else suffers."""
    broken = spec("gpu/GPU-1", source="nvidia", domain="board", component=Component.GPU)

    def fail(now: int) -> Sequence[Reading]:
        raise OSError(5, "Input/output error")

    package = spec()
    snapshot = look(opened(steady({package: 60}), ScriptedSource("nvidia", fail, [broken])))

    by_device = {line.key.device: line for line in snapshot.lines}
    assert by_device["cpu/0"].power_watts == 60.0
    assert by_device["gpu/GPU-1"].power_watts is None
    assert by_device["gpu/GPU-1"].problem == "OSError: [Errno 5] Input/output error"
    assert "unread" in once.as_text(snapshot)
    assert snapshot.booked_watts == 60.0


@pytest.mark.parametrize("outcome", [TryAgain, Gone])
def test_an_unread_channel_says_why(outcome: type[TryAgain] | type[Gone]) -> None:
    """The source's reason stands beside it, and with no value at all there is no sum either."""
    package = spec()
    snapshot = look(opened(ScriptedSource("rapl", lambda now: [outcome(package.key, "rapl: energy_uj says no")], [package])))

    (line,) = snapshot.lines
    assert (line.power_watts, line.problem) == (None, "energy_uj says no")
    assert snapshot.booked_watts is None
    assert "booked in all" in once.as_text(snapshot)


def test_json_has_the_same_facts() -> None:
    """Programs find channels, utilization, notes and what is missing, each with its source once."""
    package = spec()
    busy = ScriptedSource("cpu", lambda now: [UtilizationReading("cpu", UtilizationKind.BUSY, 0.25, 4)])
    rapl = steady({package: 60})
    rapl.said = ["rapl: one domain is folded."]
    missing = Missing("nvidia", "nvidia: no driver.", "Install it.")

    tree = json.loads(once.as_json(look(opened(rapl, busy, missing=[missing]))))

    (channel,) = tree["channels"]
    assert (channel["device"], channel["role"], channel["method"], channel["power_watts"]) == (
        "cpu/0",
        "leaf",
        "counter",
        60.0,
    )
    assert tree["utilizations"] == [{"device": "cpu", "kind": "busy", "ratio": 0.25}]
    assert tree["booked_power_watts"] == 60.0
    assert tree["notes"] == [{"source": "rapl", "note": "one domain is folded."}]
    assert tree["missing"] == [{"source": "nvidia", "reason": "no driver.", "remedy": "Install it."}]


class Forgetful(ScriptedSource):
    """Takes everything for missing once it is closed, as a source may."""

    def notes(self) -> Sequence[str]:
        """What it has to say now."""
        return ["rapl: all is missing"] if self.closed else ["rapl: a note"]


def test_notes_are_those_of_an_open_source() -> None:
    """What a closed source would say of itself is not told."""
    package = spec()
    source = Forgetful("rapl", lambda now: [counter(package, 60 * now // 1000)], [package])

    assert look(opened(source)).notes == [("rapl", "a note")]
