"""What a peer sends is checked once, and every refusal says what is wrong."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.collector.batches import BOOT, SECOND, UTC, batch, clock, column, enveloped, hello, payload

from wattledger_collector.records import Component, Method, Role
from wattledger_collector.wire import (
    LIVE_VALUES_MAX,
    PAYLOAD_BYTES_MAX,
    WireError,
    catalog_hash_of,
    check_batch,
    check_catalog,
    check_hello,
    check_live,
)
from wattledger_protos.v1 import telemetry_pb2 as pb


def pb_channel(number: int = 1) -> pb.Channel:
    """A channel that is in order."""
    return pb.Channel(
        channel=number,
        device="cpu/0",
        component=pb.COMPONENT_CPU,
        domain="package",
        source="rapl",
        method=pb.METHOD_COUNTER,
        role=pb.ROLE_LEAF,
        opening=pb.Opening(boot_id=BOOT, clock=clock(5)),
        power_bound_milliwatts=400_000,
        uncertainty_lower_ratio=0.1,
        uncertainty_upper_ratio=0.2,
    )


def catalog(*channels: pb.Channel) -> pb.Catalog:
    """A catalog with its hash."""
    message = pb.Catalog(channels=channels)
    message.catalog_hash = catalog_hash_of(message)
    return message


def test_hello_becomes_a_value() -> None:
    """A Hello in order keeps what it says."""
    checked = check_hello(hello(next_sequence=9))

    assert (checked.host, checked.next_sequence, checked.recorded) == ("a", 9, False)
    assert checked.clock.realtime_nanoseconds == UTC + SECOND
    assert checked.labels == {"hostname": "alpha"}
    assert check_hello(hello(recorded=True)).recorded


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda m: m.ClearField("host"), "names no host", id="no host"),
        pytest.param(lambda m: setattr(m, "host", "x" * 257), "257 characters", id="long host"),
        pytest.param(lambda m: setattr(m, "host", "a\nb"), "control characters", id="host with a line feed"),
        pytest.param(lambda m: setattr(m, "epoch", b"short"), "epoch has 5 bytes", id="epoch"),
        pytest.param(lambda m: setattr(m, "boot_id", b""), "boot_id has 0 bytes", id="boot"),
        pytest.param(lambda m: m.ClearField("epoch_opening"), "opening boot_id", id="opening"),
        pytest.param(lambda m: m.ClearField("time_source"), "time_source", id="time source"),
        pytest.param(lambda m: setattr(m, "next_sequence", 0), "sequences", id="next sequence"),
        pytest.param(lambda m: setattr(m, "acknowledged_sequence", 1), "sequences", id="acknowledged beyond next"),
        pytest.param(lambda m: setattr(m, "next_sequence", 2**63), "sequences", id="sequence too large"),
        pytest.param(lambda m: setattr(m.clock, "boottime_nanoseconds", -1), "no time", id="boottime"),
        pytest.param(lambda m: setattr(m.clock, "realtime_nanoseconds", 2**62), "set the host's clock", id="realtime"),
        pytest.param(lambda m: m.labels.update({str(n): "" for n in range(33)}), "labels, more than 32", id="labels"),
        pytest.param(lambda m: m.labels.update({"a": "x" * 300}), "label a has 300", id="long label"),
        pytest.param(lambda m: setattr(m, "protocol_minor", 9), "upgrade the collector", id="protocol"),
    ],
)
def test_hello_out_of_range(spoil: Callable[[pb.Hello], None], words: str) -> None:
    """Each field of a Hello that is out of range is named."""
    message = hello()
    spoil(message)

    with pytest.raises(WireError) as raised:
        check_hello(message)

    assert words in raised.value.reason


def test_an_agent_that_is_too_new_is_told_so() -> None:
    """Only the protocol's version gives the reason PROTOCOL."""
    with pytest.raises(WireError) as raised:
        check_hello(pb.Hello(protocol_minor=99))

    assert raised.value.refusal == pb.REFUSAL_REASON_PROTOCOL


def test_catalog_becomes_channels_in_order() -> None:
    """Channels come by number, with the words of the ledger."""
    checked = check_catalog(catalog(pb_channel(3), pb_channel(2)))

    assert list(checked.channels) == [2, 3]
    info = checked.channels[2]
    assert (info.component, info.method, info.role) == (Component.CPU, Method.COUNTER, Role.LEAF)
    assert (info.opening_boot_id, info.opening_realtime_nanoseconds) == (BOOT, UTC + 5)
    assert info.power_bound_milliwatts == 400_000


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda c: setattr(c, "channel", 0), "number 0", id="number"),
        pytest.param(lambda c: setattr(c, "device", ""), "no device", id="device"),
        pytest.param(lambda c: setattr(c, "role", 0), "not a valid Role", id="role"),
        pytest.param(lambda c: setattr(c, "method", 77), "not a valid Method", id="method of a newer agent"),
        pytest.param(lambda c: setattr(c, "uncertainty_lower_ratio", float("nan")), "uncertainty of nan", id="nan"),
        pytest.param(lambda c: c.opening.ClearField("boot_id"), "opening boot_id", id="opening"),
        pytest.param(lambda c: setattr(c, "power_bound_milliwatts", 2**63), "power bound", id="bound"),
    ],
)
def test_catalog_out_of_range(spoil: Callable[[pb.Channel], None], words: str) -> None:
    """Each field of a channel that is out of range is named."""
    channel = pb_channel()
    spoil(channel)

    with pytest.raises(WireError, match=words):
        check_catalog(catalog(channel))


def test_catalog_must_be_the_one_it_says() -> None:
    """A hash that is not that of the channels, and a number given twice, are refused."""
    with pytest.raises(WireError, match="damaged"):
        check_catalog(pb.Catalog(catalog_hash=1, channels=[pb_channel()]))
    with pytest.raises(WireError, match="twice"):
        check_catalog(catalog(pb_channel(1), pb_channel(1)))


def test_batch_becomes_a_payload() -> None:
    """A batch in order has its payload, and what the ledger needs of its times."""
    checked = batch(payload([10, 20, 50], [column(1, [1, None, 2])]), 4, 6)

    assert checked.payload is not None
    assert (checked.undecodable, checked.first_sequence, checked.last_sequence) == ("", 4, 6)
    assert (checked.last_boottime_nanoseconds, checked.longest_step_nanoseconds) == (50, 30)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (5, 4), (1, 2**62)])
def test_envelope_that_has_no_place(first: int, last: int) -> None:
    """Only the envelope of a batch can be refused."""
    with pytest.raises(WireError, match="sequences"):
        check_batch(pb.Batch(first_sequence=first, last_sequence=last))


def _mask(mask: bytes, deltas: list[int]) -> pb.Column:
    return pb.Column(channel=1, present_mask=mask, energy_delta_microjoules=deltas)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"\xff\xff", "no Payload message", id="no message"),
        pytest.param(b"x" * (PAYLOAD_BYTES_MAX + 1), "bytes, more than", id="too large"),
        pytest.param(payload([1], [], boot=b"x"), "boot_id", id="boot"),
        pytest.param(payload([5, 5], []), "do not rise", id="times stand still"),
        pytest.param(payload([2**61, 2**62], []), "boottime", id="times out of range"),
        pytest.param(payload([1, 2], [column(1, [1])]), "1 values for 2 samples", id="short column"),
        pytest.param(payload([1], [column(1, [1, 2])]), "2 values for 1 samples", id="long column"),
        pytest.param(payload([1, 2], [_mask(b"\x04", [])]), "mask beyond", id="mask beyond the samples"),
        pytest.param(payload([1, 2], [_mask(b"\x03", [])]), "1 values for 2 present", id="mask with too few values"),
        pytest.param(payload([1], [column(2, [1]), column(1, [1])]), "must rise", id="columns out of order"),
        pytest.param(payload([1], [column(1, [1]), column(1, [1])]), "must rise", id="column twice"),
        pytest.param(payload([1], [column(0, [1])]), "must rise", id="column without a channel"),
        pytest.param(
            payload([1], [], utilizations=[pb.UtilizationColumn(device="cpu", busy_nanoseconds=2**63)]), "busy", id="busy"
        ),
        pytest.param(
            payload([1], [], details=[pb.GapDetail(channel=1, from_boottime_nanoseconds=-1)]), "gap of channel 1", id="gap"
        ),
    ],
)
def test_undecodable(content: pb.Payload | bytes, words: str) -> None:
    """A payload that can't be true is kept with the reason, and keeps its place in the sequence."""
    checked = batch(content, 3)

    assert checked.payload is None
    assert words in checked.undecodable
    assert checked.last_sequence == 3
    assert (
        checked.payload_bytes == (content if isinstance(content, bytes) else content.SerializeToString())[:PAYLOAD_BYTES_MAX]
    )


def test_samples_far_ahead_of_the_clock_are_undecodable() -> None:
    """A time that would push the cursor beyond all true samples is not believed."""
    content = payload([2**60], [column(1, [1])])
    content.clock.boottime_nanoseconds = 10

    assert "far ahead" in batch(content, 1).undecodable


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_flipped_byte_is_seen(position: int, flip: int) -> None:
    """Damage under way never reaches the ledger."""
    message = enveloped(payload([10, 20], [column(1, [1, 2]), column(2, [7, None])]), 1)
    data = bytearray(message.payload)
    data[position % len(data)] ^= flip
    message.payload = bytes(data)

    checked = check_batch(message)

    assert checked.payload is None
    assert "checksum" in checked.undecodable


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    """Whatever a payload holds, it is checked or undecodable, never an exception."""
    checked = batch(data, 1)

    assert (checked.payload is None) == bool(checked.undecodable)


def test_live_is_bounded() -> None:
    """More present values than can be kept are refused."""
    check_live(pb.Live(powers=[pb.LivePower()]))
    with pytest.raises(WireError, match="more than"):
        check_live(pb.Live(powers=[pb.LivePower()] * (LIVE_VALUES_MAX + 1)))


@pytest.mark.parametrize("ratio", [math.nan, math.inf, -0.1])
def test_a_live_power_without_a_sound_band_is_not_shown(ratio: float) -> None:
    """One agent's NaN must not become the band of the fleet; its other values stay."""
    sound = pb.LivePower(device="gpu/0", uncertainty_lower_ratio=0.1)
    live = pb.Live(powers=[pb.LivePower(uncertainty_lower_ratio=ratio), sound, pb.LivePower(uncertainty_upper_ratio=ratio)])
    check_live(live)
    assert list(live.powers) == [sound]
