"""Each way not to be booked has its own words, and what is booked has none."""

from dataclasses import replace

from tests.agent.metering import spec

from wattledger_agent.folding import why_shown
from wattledger_agent.readings import ChannelSpec, Component, Method, Role
from wattledger_agent.topology import resolve

PACKAGE = spec()
MODULE = spec("module/0", domain="module", source="hwmon", role=Role.METER, method=Method.INTEGRAL)


def reasons(*offered: ChannelSpec) -> dict[str, str]:
    """By source, as the real topology resolves them."""
    roles = {resolved.key: resolved.role for resolved in resolve(offered)}
    return {key.source: reason for key, reason in why_shown(offered, roles).items()}


def test_what_is_booked_and_what_never_was_to_be_has_no_reason() -> None:
    """A domain within a package is shown by its own source's will."""
    assert reasons(PACKAGE, spec(domain="core", source="rapl", role=Role.SHOWN, parent=PACKAGE.key)) == {}


def test_a_worse_method_gives_way_to_a_better_one() -> None:
    """A counter misses nothing between two reads."""
    assert reasons(spec(source="hwmon", method=Method.INTEGRAL), PACKAGE) == {
        "hwmon": "rapl package measures cpu/0 too, by an energy counter, which misses less than integrated power"
    }


def test_of_two_alike_the_first_is_booked() -> None:
    """For the whole boot."""
    assert reasons(MODULE, replace(MODULE, key=replace(MODULE.key, source="nvidia"))) == {
        "nvidia": "hwmon module measures module/0 too, and was there first"
    }


def test_a_model_of_the_node_gives_way_to_measured_cpus() -> None:
    """It is one of their load."""
    model = spec("node", domain="estimate", source="estimate", method=Method.MODEL, component=Component.OTHER)
    assert reasons(PACKAGE, model) == {"estimate": "sensors measure the CPUs, and a model never stands beside them"}


def test_what_lies_within_a_leaf_is_contained_in_it() -> None:
    """A GPU on a module that is metered as one part."""
    whole = replace(MODULE, role=Role.LEAF)
    gpu = replace(spec("gpu/GPU-1", domain="board", source="nvidia", component=Component.GPU), parent=MODULE.key)
    assert reasons(whole, gpu) == {"nvidia": "it lies within module/0 module, whose energy contains it"}
