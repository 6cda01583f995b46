"""From protobuf to checked values: whatever leaves this module has passed every check that needs no knowledge of the ledger.

No clock, no sockets, no store. The source of truth for fields and units is protos/wattledger_protos/v1/telemetry.proto.
"""

from dataclasses import dataclass
from typing import Final

from wattledger_collector.records import NANOSECONDS_PER_SECOND, ChannelInfo
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
GAP_DETAILS_MAX: Final = 65_536  # More do not fit into a payload.
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

    payload_bytes: as they came. last_boottime_nanoseconds, longest_step_nanoseconds: time of the last sample, and the
    longest time between two; 0 without a payload.
    """

    first_sequence: int
    last_sequence: int
    payload_bytes: bytes
    payload: pb.Payload | None
    undecodable: str
    last_boottime_nanoseconds: int = 0
    longest_step_nanoseconds: int = 0


def check_hello(message: pb.Hello) -> CheckedHello:
    """Check a Hello. Raises WireError."""
    raise NotImplementedError


def check_catalog(message: pb.Catalog) -> CheckedCatalog:
    """Check a catalog and its hash. Raises WireError."""
    raise NotImplementedError


def check_batch(message: pb.Batch) -> CheckedBatch:
    """Check a batch. Raises WireError for the envelope alone: a payload that is wrong makes an `undecodable` batch."""
    raise NotImplementedError
