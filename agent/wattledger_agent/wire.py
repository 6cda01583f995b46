"""Builds the agent's parts of the wire: instants, channels with their catalog, columns and gaps.

Sends nothing and keeps nothing. The source of truth is protos/wattledger_protos/v1/telemetry.proto.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

from wattledger_agent.counters import ChannelState, GapDetail, Instant
from wattledger_agent.readings import ChannelSpec
from wattledger_protos.v1 import telemetry_pb2 as pb

# 8 sockets, 16 GPUs with 7 instances each, and their domains, ten times over; the collector takes no more.
CHANNELS_MAX = 4096

# The collector's limit for every name; longer than any DNS name (253).
NAME_CHARACTERS_MAX = 256

# The collector refuses larger payloads. The meter bounds its rows, devices and details so that none comes near.
PAYLOAD_BYTES_MAX = 1 << 20


def milliwatts(watts: float) -> int:
    """Return a power bound in whole milliwatts, rounded up so that it stays a bound."""
    return -int(-watts * 1000 // 1)


def clock_pair(now: Instant) -> pb.ClockPair:
    """Return the moment on both clocks."""
    return pb.ClockPair(
        boottime_nanoseconds=now.boottime_nanoseconds,
        realtime_nanoseconds=now.realtime_nanoseconds,
        synchronised=now.synchronised,
    )


def opening(at: Instant) -> pb.Opening:
    """Return the moment at which an epoch or a channel was at 0."""
    return pb.Opening(boot_id=at.boot_id, clock=clock_pair(at))


def channel(
    number: int, spec: ChannelSpec, *, parent: int, opened: Instant, ended: ChannelState | None = None
) -> pb.Channel:
    """Return a channel's row of the catalog. parent: number of the channel above it; 0 for none.

    ended: the last state of a channel that is closed; None while it is open.
    """
    return pb.Channel(
        channel=number,
        device=spec.key.device,
        component=pb.Component.ValueType(int(spec.component)),
        domain=spec.key.domain,
        source=spec.key.source,
        method=pb.Method.ValueType(int(spec.method)),
        role=pb.Role.ValueType(int(spec.role)),
        parent_channel=parent,
        opening=opening(opened),
        closed=ended is not None,
        power_bound_milliwatts=milliwatts(spec.power_bound_watts),
        uncertainty_lower_ratio=spec.uncertainty_lower_ratio,
        uncertainty_upper_ratio=spec.uncertainty_upper_ratio,
        # A vendor's string; the collector refuses control characters and long names.
        model="".join(filter(str.isprintable, spec.model))[:NAME_CHARACTERS_MAX],
        end=None if ended is None else channel_end(ended),
    )


def channel_end(state: ChannelState) -> pb.ChannelEnd:
    """Return where a closed channel ended: without it, a lost record with its last values would lose their energy."""
    return pb.ChannelEnd(
        boot_id=state.boot_id,
        clock=pb.ClockPair(
            boottime_nanoseconds=state.boottime_nanoseconds,
            realtime_nanoseconds=state.realtime_nanoseconds,
            synchronised=state.synchronised,
        ),
        energy_microjoules=state.energy_microjoules,
        gap_lower_microjoules=state.gap_lower_microjoules,
        gap_upper_microjoules=state.gap_upper_microjoules,
        gap_unbounded_count=state.gap_unbounded_count,
    )


def catalog(channels: Sequence[pb.Channel]) -> pb.Catalog:
    """Return the catalog of these channels with its hash."""
    return pb.Catalog(catalog_hash=catalog_hash(channels), channels=channels)


def catalog_hash(channels: Sequence[pb.Channel]) -> int:
    """Return the hash that names these channels; never 0. See Catalog in the proto."""
    digest = sha256(pb.Catalog(channels=channels).SerializeToString(deterministic=True)).digest()
    return int.from_bytes(digest[:8], "big") or 1


def column(number: int, state: ChannelState, values: Sequence[int], mask: int, rows: int) -> pb.Column:
    """Return a channel's column. values: cumulative microjoules; bit i of mask says that row i of `rows` has one."""
    return pb.Column(
        channel=number,
        first_energy_microjoules=values[0] if values else state.energy_microjoules,
        energy_delta_microjoules=[after - before for before, after in pairwise(values)],
        present_mask=b"" if len(values) == rows else mask.to_bytes((rows + 7) // 8, "little"),
        gap_lower_microjoules=state.gap_lower_microjoules,
        gap_upper_microjoules=state.gap_upper_microjoules,
        gap_unbounded_count=state.gap_unbounded_count,
    )


def gap_detail(number: int, detail: GapDetail, boot_id: bytes) -> pb.GapDetail:
    """Return a gap of a channel; boot_id: the payload's."""
    return pb.GapDetail(
        channel=number,
        reason=pb.GapReason.ValueType(int(detail.reason)),
        from_boottime_nanoseconds=detail.from_boottime_nanoseconds,
        to_boottime_nanoseconds=detail.to_boottime_nanoseconds,
        from_boot_id=b"" if detail.from_boot_id == boot_id else detail.from_boot_id,
        lower_microjoules=detail.lower_microjoules,
        upper_microjoules=detail.upper_microjoules,
        unbounded=detail.unbounded,
    )
