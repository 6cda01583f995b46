"""A channel's account in a record's state: small, complete, and refused when it can't be read."""

import zlib
from dataclasses import replace

import msgspec
import pytest
from tests.agent.metering import BOOT, GAP_SECONDS, SECOND, at, counter, spec

from wattledger_agent.channels import MeterStateError, unpack
from wattledger_agent.meter import Cut, Meter
from wattledger_agent.readings import ChannelSpec, Component, Method, Role

NODE = replace(
    spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=12_000.0),
    uncertainty_lower_ratio=0.01,
    uncertainty_upper_ratio=0.02,
    model="BMC",
)


def server() -> list[ChannelSpec]:
    """Two sockets with memory, eight GPUs, and a node meter."""
    specs = [NODE]
    for index in range(2):
        specs.append(spec(f"cpu/{index}", bound=700.0, parent=NODE.key, wrap=262_143_328_850))
        specs.append(spec(f"memory/{index}", domain="dram", bound=200.0, parent=NODE.key, wrap=65_712_999_613))
    for index in range(8):
        device = f"gpu/GPU-9a1f3c5e-7b2d-4e6f-8a0c-1d3e5f70000{index}"
        specs.append(spec(device, source="nvidia", domain="board", component=Component.GPU, bound=1000.0, parent=NODE.key))
    return specs


def ten_samples(specs: list[ChannelSpec]) -> Cut:
    """A record of ten rows of all channels at odd powers."""
    meter = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS)
    meter.offer(specs, at(0))
    for second in range(1, 11):
        readings = [counter(of, second * (300_000_000 + 7_654_321 * index)) for index, of in enumerate(specs)]
        meter.observe(readings, at(second))
    cut = meter.cut(at(10))
    assert cut is not None
    return cut


def test_a_state_makes_the_same_channels() -> None:
    """Everything that accounting or the catalog needs comes back."""
    specs = server()
    cut = ten_samples(specs)
    boot_id, boottime, channels = unpack(cut.state, GAP_SECONDS)
    assert (boot_id, boottime) == (BOOT, 10 * SECOND)
    assert [channel.number for channel in channels] == list(range(1, len(specs) + 2))
    assert [channel.spec for channel in channels[: len(specs)]] == specs
    again = Meter(state=cut.state, integral_gap_seconds_max=GAP_SECONDS)
    assert again.catalog().SerializeToString(deterministic=True) == cut.catalog
    assert unpack(cut.state, GAP_SECONDS)[2][-1].bases.keys() == set(range(1, len(specs) + 1))


def test_a_record_is_small() -> None:
    """Ten samples of a large server, with state: a week of records fits the spool many times over."""
    cut = ten_samples(server())
    # 60,480 such records a week; 256 MiB would hold more than a week at 4,096 bytes each.
    assert len(cut.payload) < 1300
    assert len(cut.state) < 1300


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not a state",
        zlib.compress(b""),
        zlib.compress(msgspec.msgpack.encode([1, BOOT, 5, [["no", "channel"]]])),
        zlib.compress(msgspec.msgpack.encode([2, BOOT, 5, []])),
    ],
)
def test_a_state_that_can_not_be_read_is_refused_with_a_remedy(damaged: bytes) -> None:
    """An account is never gone on from by guess."""
    with pytest.raises(MeterStateError, match="move the spool folder aside"):
        Meter(state=damaged, integral_gap_seconds_max=GAP_SECONDS)


def test_a_shown_or_modelled_channel_keeps_its_kind() -> None:
    """Enums come back as enums: accounting compares them by identity."""
    shown = spec("cpu/0", domain="core", role=Role.SHOWN, method=Method.MODEL, component=Component.ACCELERATOR)
    [channel] = unpack(ten_samples([spec("cpu/1"), shown]).state, GAP_SECONDS)[2][1:]
    assert (channel.spec.role, channel.spec.method, channel.spec.component) == (
        Role.SHOWN,
        Method.MODEL,
        Component.ACCELERATOR,
    )
