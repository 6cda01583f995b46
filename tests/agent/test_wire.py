"""The agent's half of the wire: what it builds says what the proto says."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from tests.agent.metering import BOOT, OTHER_BOOT, at, spec

from wattledger_agent import wire
from wattledger_agent.counters import GapDetail, GapReason, open_state
from wattledger_agent.readings import Component, Method, Role
from wattledger_protos.v1 import telemetry_pb2 as pb


@pytest.mark.parametrize(("watts", "expected"), [(1.0, 1000), (0.0001, 1), (250.0004, 250_001), (1e9, 10**12)])
def test_power_bounds_are_rounded_up(watts: float, expected: int) -> None:
    """A bound that is rounded down is none."""
    assert wire.milliwatts(watts) == expected


def test_enums_have_the_numbers_of_the_wire() -> None:
    """The agent's words are sent by number."""
    assert {m.name: m.value for m in Component} == _numbers(pb.Component.items(), "COMPONENT_")
    assert {m.name: m.value for m in Method} == _numbers(pb.Method.items(), "METHOD_")
    assert {m.name: m.value for m in Role} == _numbers(pb.Role.items(), "ROLE_")
    assert {m.name: m.value for m in GapReason} == _numbers(pb.GapReason.items(), "GAP_REASON_")


def _numbers(items: Sequence[tuple[str, int]], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): number for name, number in items if number}


def test_a_channel_carries_its_whole_spec() -> None:
    """The catalog is all that the collector ever learns of a channel."""
    of = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, bound=700.5)
    row = wire.channel(7, of, parent=3, opened=at(2), ended=open_state(at(5)))
    assert (row.channel, row.device, row.domain, row.source, row.parent_channel) == (7, "gpu/0", "board", "nvidia", 3)
    assert (row.component, row.method, row.role) == (pb.COMPONENT_GPU, pb.METHOD_COUNTER, pb.ROLE_LEAF)
    assert (row.power_bound_milliwatts, row.closed) == (700_500, True)
    assert row.end == pb.ChannelEnd(boot_id=BOOT, clock=wire.clock_pair(at(5)))
    assert row.opening == pb.Opening(boot_id=BOOT, clock=wire.clock_pair(at(2)))


def test_a_parts_model_is_cleaned_of_what_the_collector_refuses() -> None:
    """A vendor's odd string must not cost a host its catalog."""
    of = spec()
    dirty = type(of)(**{name: getattr(of, name) for name in of.__slots__} | {"model": "Xeon\n" + "x" * 300})
    row = wire.channel(1, dirty, parent=0, opened=at(0))
    assert row.model == "Xeon" + "x" * 252


def test_the_catalogs_hash_is_that_of_its_channels() -> None:
    """Any changed field changes the hash."""
    rows = [wire.channel(n, spec(f"cpu/{n}"), parent=0, opened=at(0)) for n in (1, 2)]
    catalog = wire.catalog(rows)
    digest = hashlib.sha256(pb.Catalog(channels=rows).SerializeToString(deterministic=True)).digest()
    assert catalog.catalog_hash == int.from_bytes(digest[:8], "big")
    rows[1].closed = True
    assert wire.catalog(rows).catalog_hash != catalog.catalog_hash


@pytest.mark.parametrize(
    ("values", "mask", "rows", "expected"),
    [
        ([5, 7, 7], 0b111, 3, b""),
        ([5, 7], 0b101, 3, b"\x05"),
        ([], 0, 3, b"\x00"),
        ([5], 1 << 8, 9, b"\x00\x01"),
    ],
)
def test_a_mask_says_which_samples_have_a_value(values: list[int], mask: int, rows: int, expected: bytes) -> None:
    """An absent value is never a zero; only a full column has no mask."""
    column = wire.column(3, open_state(at(0)), values, mask, rows)
    assert column.present_mask == expected
    assert column.first_energy_microjoules == (values[0] if values else 0)
    assert list(column.energy_delta_microjoules) == [after - before for before, after in pairwise(values)]


def test_a_gap_names_an_earlier_boot_and_no_other() -> None:
    """An empty boot id is that of the payload."""
    detail = GapDetail(GapReason.REBOOT, OTHER_BOOT, 5, 9, 0, 7, False)
    assert wire.gap_detail(2, detail, BOOT) == pb.GapDetail(
        channel=2,
        reason=pb.GAP_REASON_REBOOT,
        from_boottime_nanoseconds=5,
        to_boottime_nanoseconds=9,
        from_boot_id=OTHER_BOOT,
        upper_microjoules=7,
    )
    assert wire.gap_detail(2, detail, OTHER_BOOT).from_boot_id == b""
