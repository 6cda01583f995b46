"""From protobuf to checked values: whatever leaves this module has passed every check that needs no knowledge of the ledger.

No clock, no sockets, no store. The source of truth for fields and units is protos/wattledger_protos/v1/telemetry.proto.
"""

import hashlib
import math
import zlib
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from wattledger_collector.records import NANOSECONDS_PER_SECOND, ChannelEnd, ChannelInfo, Component, Method, Role
from wattledger_protos.v1 import telemetry_pb2 as pb

# This collector's own protocol minor. It serves agents up to one minor ahead: collectors are upgraded first, but a
# rolled-back collector must not strand the agents that were upgraded in between.
PROTOCOL_MINOR: Final = 1
PROTOCOL_MINOR_MAX: Final = PROTOCOL_MINOR + 1

ID_BYTES: Final = 16  # Kernel boot ids and epochs.
NAME_CHARACTERS_MAX: Final = 256  # Longer than any DNS name (253).
LABELS_MAX: Final = 32
CHANNELS_MAX: Final = 4096  # 8 sockets, 16 GPUs with 7 instances each, and their domains, ten times over.
PAYLOAD_BYTES_MAX: Final = 1 << 20  # The agent bounds a record when it is spooled; gRPC's own limit is 4 MiB.
UTILIZATIONS_MAX: Final = 4096
LIVE_VALUES_MAX: Final = 4096

# Sequences and nanoseconds below 2^62 can be added pairwise in a signed 64-bit column; in nanoseconds that is the year 2116.
SEQUENCE_LIMIT: Final = 1 << 62
NANOSECONDS_LIMIT: Final = 1 << 62

# A sample further ahead of its payload's own clock than this is a fault of the agent: believed, it would push the cursor so
# far that true samples were ignored. A day leaves room for payloads that were thinned and merged in the spool.
SAMPLE_AHEAD_NANOSECONDS_MAX: Final = 86_400 * NANOSECONDS_PER_SECOND


class WireError(Exception):
    """The peer sent something that can't be served: an error of the peer, answered and counted, never ours.

    reason: one sentence: what is wrong, with which value, and what to do. refusal: the reason for a Refusal.
    """

    def __init__(self, reason: str, refusal: "pb.RefusalReason.ValueType" = pb.REFUSAL_REASON_MALFORMED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Clock:
    """One instant on both clocks of a host; see ClockPair in the proto."""

    boottime_nanoseconds: int
    realtime_nanoseconds: int
    synchronised: bool


@dataclass(frozen=True, slots=True)
class CheckedHello:
    """A Hello whose every field is in range. epoch, boot_id, opening_boot_id: 16 bytes."""

    protocol_minor: int
    agent_version: str
    host: str
    machine_id: str
    epoch: bytes
    opening_boot_id: bytes
    opening_clock: Clock
    boot_id: bytes
    oldest_retained_sequence: int
    next_sequence: int
    acknowledged_sequence: int
    labels: dict[str, str]
    recorded: bool
    clock: Clock


@dataclass(frozen=True, slots=True)
class CheckedCatalog:
    """A catalog whose hash is that of its channels. channels: by channel number, ascending."""

    catalog_hash: int
    channels: dict[int, ChannelInfo]


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """A batch whose envelope is sound. Either payload is set, or undecodable says in one sentence why it can't be.

    payload_bytes: as they came. checksum: as the envelope says it. last_boottime_nanoseconds, longest_step_nanoseconds: time
    of the last sample, and the longest time between two; 0 without a payload.
    """

    first_sequence: int
    last_sequence: int
    checksum: int
    payload_bytes: bytes
    payload: pb.Payload | None
    undecodable: str
    last_boottime_nanoseconds: int = 0
    longest_step_nanoseconds: int = 0


def check_hello(message: pb.Hello) -> CheckedHello:
    """Check a Hello. Raises WireError."""
    if message.protocol_minor > PROTOCOL_MINOR_MAX:
        raise WireError(
            f"protocol {message.protocol_minor} is newer than {PROTOCOL_MINOR_MAX}, the newest that this collector serves: "
            "upgrade the collector",
            pb.REFUSAL_REASON_PROTOCOL,
        )
    _check_name("host", message.host)
    if not message.host:
        raise WireError("Hello names no host: set `host` in the agent's configuration, or give it a certificate")
    _check_name("machine_id", message.machine_id)
    _check_name("agent_version", message.agent_version)
    _check_id("epoch", message.epoch)
    _check_id("boot_id", message.boot_id)
    _check_id("the epoch's opening boot_id", message.epoch_opening.boot_id)
    if message.time_source not in (pb.TIME_SOURCE_CLOCK, pb.TIME_SOURCE_RECORDED):
        raise WireError(f"time_source is {message.time_source}, neither clock nor recorded: upgrade the agent")
    _check_sequences(message)
    return CheckedHello(
        protocol_minor=message.protocol_minor,
        agent_version=message.agent_version,
        host=message.host,
        machine_id=message.machine_id,
        epoch=message.epoch,
        opening_boot_id=message.epoch_opening.boot_id,
        opening_clock=_checked_clock("the epoch's opening", message.epoch_opening.clock),
        boot_id=message.boot_id,
        oldest_retained_sequence=message.oldest_retained_sequence,
        next_sequence=message.next_sequence,
        acknowledged_sequence=message.acknowledged_sequence,
        labels=_checked_labels(message),
        recorded=message.time_source == pb.TIME_SOURCE_RECORDED,
        clock=_checked_clock("Hello", message.clock),
    )


def catalog_hash_of(message: pb.Catalog) -> int:
    """The hash that a catalog with these channels must carry; never 0."""
    channels = pb.Catalog(channels=message.channels).SerializeToString(deterministic=True)
    return int.from_bytes(hashlib.sha256(channels).digest()[:8], "big") or 1


def check_catalog(message: pb.Catalog) -> CheckedCatalog:
    """Check a catalog and its hash. Raises WireError."""
    if len(message.channels) > CHANNELS_MAX:
        raise WireError(f"the catalog has {len(message.channels)} channels, more than {CHANNELS_MAX}: meter fewer parts")
    if message.catalog_hash != catalog_hash_of(message):
        raise WireError(f"the catalog's hash {message.catalog_hash:016x} is not that of its channels: it was damaged")
    channels: dict[int, ChannelInfo] = {}
    for channel in sorted(message.channels, key=lambda each: each.channel):
        if channel.channel in channels:
            raise WireError(f"the catalog has channel {channel.channel} twice: this is a fault of the agent")
        channels[channel.channel] = _checked_channel(channel)
    return CheckedCatalog(message.catalog_hash, channels)


def check_batch(message: pb.Batch) -> CheckedBatch:
    """Check a batch. Raises WireError for the envelope alone: a payload that is wrong makes an `undecodable` batch."""
    first, last = message.first_sequence, message.last_sequence
    if not 1 <= first <= last < SEQUENCE_LIMIT:
        raise WireError(f"a batch has sequences {first} to {last}: they must rise from 1: this is a fault of the agent")
    data = message.payload
    try:
        payload, last_boottime, longest_step = _checked_payload(data, message.checksum)
    except WireError as error:
        return CheckedBatch(first, last, message.checksum, data[:PAYLOAD_BYTES_MAX], None, error.reason)
    return CheckedBatch(first, last, message.checksum, data, payload, "", last_boottime, longest_step)


def check_live(message: pb.Live) -> None:
    """Check that present values are few enough to be kept, and take out powers whose band is none. Raises WireError."""
    values = len(message.powers) + len(message.utilizations) + len(message.sources)
    if values > LIVE_VALUES_MAX:
        raise WireError(f"Live has {values} values, more than {LIVE_VALUES_MAX}: meter fewer parts")
    # One NaN would make the band of the whole fleet one, and no stream is closed for a gauge.
    for index in range(len(message.powers) - 1, -1, -1):
        power = message.powers[index]
        if not (_is_ratio(power.uncertainty_lower_ratio) and _is_ratio(power.uncertainty_upper_ratio)):
            del message.powers[index]


def _checked_payload(data: bytes, checksum: int) -> tuple[pb.Payload, int, int]:
    """The payload, the time of its last sample and the longest time between two. Raises WireError."""
    if len(data) > PAYLOAD_BYTES_MAX:
        raise WireError(f"the payload has {len(data)} bytes, more than {PAYLOAD_BYTES_MAX}")
    if zlib.crc32(data) != checksum:
        raise WireError(f"the payload's checksum is {zlib.crc32(data):08x}, not {checksum:08x}")
    payload = pb.Payload()
    try:
        payload.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"the payload is no Payload message ({error})") from error
    _check_id("the payload's boot_id", payload.boot_id)
    _checked_clock("the payload", payload.clock)
    steps = payload.boottime_delta_nanoseconds
    if steps and min(steps) == 0:
        raise WireError("the payload's sample times do not rise")
    last_boottime = payload.first_boottime_nanoseconds + sum(steps)
    if payload.first_boottime_nanoseconds < 0 or last_boottime >= NANOSECONDS_LIMIT:
        raise WireError(f"samples run from {payload.first_boottime_nanoseconds} to {last_boottime} ns of boottime")
    if last_boottime > payload.clock.boottime_nanoseconds + SAMPLE_AHEAD_NANOSECONDS_MAX:
        raise WireError(f"the last sample, at {last_boottime} ns, is far ahead of {payload.clock.boottime_nanoseconds}, now")
    _check_columns(payload, 1 + len(steps))
    _check_details(payload)
    return payload, last_boottime, max(steps, default=0)


def _check_columns(payload: pb.Payload, samples: int) -> None:
    """Every column must have as many values as its mask, or the payload, has samples. Raises WireError."""
    before = 0
    for column in payload.columns:
        channel = column.channel
        if channel <= before:
            raise WireError(f"column {channel} comes after {before}: channels must rise from 1")
        before = channel
        deltas = len(column.energy_delta_microjoules)
        mask = column.present_mask
        if not mask:
            if deltas != samples - 1:
                raise WireError(f"column {channel} has {deltas + 1} values for {samples} samples")
            continue
        bits = int.from_bytes(mask, "little")
        if bits >> samples:
            raise WireError(f"column {channel} has a mask beyond its {samples} samples")
        # A column whose gap alone has changed has an empty mask and no values.
        if deltas != max(bits.bit_count() - 1, 0):
            raise WireError(f"column {channel} has {deltas + 1} values for {bits.bit_count()} present samples")


def _check_details(payload: pb.Payload) -> None:
    if len(payload.utilizations) > UTILIZATIONS_MAX:
        raise WireError(f"the payload has {len(payload.utilizations)} utilizations, more than {UTILIZATIONS_MAX}")
    for utilization in payload.utilizations:
        _check_name("a utilization's device", utilization.device)
        if utilization.busy_nanoseconds >= NANOSECONDS_LIMIT:
            raise WireError(f"{utilization.device} was busy for {utilization.busy_nanoseconds} ns, which can't be")
    for detail in payload.gap_details:
        if detail.from_boot_id:
            _check_id("a gap's from_boot_id", detail.from_boot_id)
        if not (
            0 <= detail.from_boottime_nanoseconds < NANOSECONDS_LIMIT
            and 0 <= detail.to_boottime_nanoseconds < NANOSECONDS_LIMIT
        ):
            raise WireError(f"a gap of channel {detail.channel} has ends that are no times")


def _checked_channel(channel: pb.Channel) -> ChannelInfo:
    where = f"channel {channel.channel}"
    if not channel.channel:
        raise WireError("a channel of the catalog has number 0: numbers begin at 1")
    for name, value in (("device", channel.device), ("domain", channel.domain), ("source", channel.source)):
        _check_name(f"{name} of {where}", value)
        if not value:
            raise WireError(f"{where} has no {name}: this is a fault of the agent")
    _check_name(f"model of {where}", channel.model)
    _check_id(f"the opening boot_id of {where}", channel.opening.boot_id)
    clock = _checked_clock(f"the opening of {where}", channel.opening.clock)
    if channel.power_bound_milliwatts >= NANOSECONDS_LIMIT:
        raise WireError(f"{where} has a power bound of {channel.power_bound_milliwatts} mW, which can't be")
    for ratio in (channel.uncertainty_lower_ratio, channel.uncertainty_upper_ratio):
        if not _is_ratio(ratio):
            raise WireError(f"{where} has an uncertainty of {ratio}: it must be 0 or more")
    try:
        component, method, role = Component(channel.component), Method(channel.method), Role(channel.role)
    except ValueError as error:
        raise WireError(f"{where}: {error}: upgrade the collector") from error
    return ChannelInfo(
        channel=channel.channel,
        device=channel.device,
        component=component,
        domain=channel.domain,
        source=channel.source,
        method=method,
        role=role,
        parent_channel=channel.parent_channel,
        opening_boot_id=channel.opening.boot_id,
        opening_boottime_nanoseconds=clock.boottime_nanoseconds,
        opening_realtime_nanoseconds=clock.realtime_nanoseconds,
        opening_synchronised=clock.synchronised,
        closed=channel.closed,
        power_bound_milliwatts=channel.power_bound_milliwatts,
        uncertainty_lower_ratio=channel.uncertainty_lower_ratio,
        uncertainty_upper_ratio=channel.uncertainty_upper_ratio,
        model=channel.model,
        end=_end(channel),
    )


def _end(channel: pb.Channel) -> ChannelEnd | None:
    """Where a closed channel ended; one that is no place in time is as if it had not been told: records have its values."""
    if not (channel.closed and channel.HasField("end")):
        return None
    end = channel.end
    try:
        _check_id("the end's boot_id", end.boot_id)
        clock = _checked_clock("the end", end.clock)
    except WireError:
        return None
    return ChannelEnd(
        boot_id=end.boot_id,
        boottime_nanoseconds=clock.boottime_nanoseconds,
        realtime_nanoseconds=clock.realtime_nanoseconds,
        synchronised=clock.synchronised,
        energy_microjoules=end.energy_microjoules,
        gap_lower_microjoules=end.gap_lower_microjoules,
        gap_upper_microjoules=end.gap_upper_microjoules,
        gap_unbounded_count=end.gap_unbounded_count,
    )


def _is_ratio(value: float) -> bool:
    """Whether an uncertainty can be one; false for NaN as well."""
    return 0 <= value < math.inf


def _checked_clock(where: str, clock: pb.ClockPair) -> Clock:
    if not 0 <= clock.boottime_nanoseconds < NANOSECONDS_LIMIT:
        raise WireError(f"{where} has boottime {clock.boottime_nanoseconds} ns, which is no time")
    if not 0 <= clock.realtime_nanoseconds < NANOSECONDS_LIMIT:
        raise WireError(f"{where} has realtime {clock.realtime_nanoseconds} ns, which is no time: set the host's clock")
    return Clock(clock.boottime_nanoseconds, clock.realtime_nanoseconds, clock.synchronised)


def _check_sequences(message: pb.Hello) -> None:
    oldest, following, acknowledged = (
        message.oldest_retained_sequence,
        message.next_sequence,
        message.acknowledged_sequence,
    )
    if not 1 <= oldest <= following < SEQUENCE_LIMIT or acknowledged >= following:
        raise WireError(
            f"Hello has sequences oldest {oldest}, next {following}, acknowledged {acknowledged}, which can't be: "
            "move the agent's spool aside and start it again"
        )


def _checked_labels(message: pb.Hello) -> dict[str, str]:
    if len(message.labels) > LABELS_MAX:
        raise WireError(
            f"Hello has {len(message.labels)} labels, more than {LABELS_MAX}: remove some from the configuration"
        )
    for key, value in message.labels.items():
        _check_name("a label's name", key)
        _check_name(f"label {key}", value)
    return dict(sorted(message.labels.items()))


def _check_id(name: str, value: bytes) -> None:
    if len(value) != ID_BYTES:
        raise WireError(f"{name} has {len(value)} bytes, not {ID_BYTES}: this is a fault of the agent")


def _check_name(name: str, value: str) -> None:
    if len(value) > NAME_CHARACTERS_MAX:
        raise WireError(f"{name} has {len(value)} characters, more than {NAME_CHARACTERS_MAX}: shorten it")
    # One line of printable text: names go into labels, logs and pages.
    if not value.isprintable():
        raise WireError(f"{name} is {value!r}: control characters are not allowed")
