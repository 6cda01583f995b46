"""Messages of an imagined agent for tests of wire, ledger and session. Knows no store and no network."""

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

from wattledger_collector.ledger import open_stream
from wattledger_collector.records import Booking, ChannelInfo, Component, Cursor, Host, Method, Role
from wattledger_collector.wire import CheckedBatch, check_batch, check_hello
from wattledger_protos.v1 import telemetry_pb2 as pb

SECOND = 1_000_000_000
INTERVAL_SECONDS = 900
# A time on an interval's edge, so that offsets within the interval are easy to read.
UTC = 1_800_000_000 * SECOND
EPOCH = b"epoch-0123456789"
OTHER_EPOCH = b"epoch-9876543210"
BOOT = b"boot--0123456789"
NEXT_BOOT = b"boot--9876543210"
WATT = 1_000_000  # Microjoules a second.


def info(
    channel: int = 1,
    role: Role = Role.LEAF,
    method: Method = Method.COUNTER,
    *,
    opening_boottime: int = 0,
    bound_watts: int = 1000,
    boot: bytes = BOOT,
) -> ChannelInfo:
    """A channel that opened at this boottime, whose boot began at UTC."""
    return ChannelInfo(
        channel=channel,
        device=f"cpu/{channel}",
        component=Component.CPU,
        domain="package",
        source="rapl",
        method=method,
        role=role,
        parent_channel=0,
        opening_boot_id=boot,
        opening_boottime_nanoseconds=opening_boottime,
        opening_realtime_nanoseconds=UTC + opening_boottime,
        opening_synchronised=True,
        closed=False,
        power_bound_milliwatts=bound_watts * 1000,
        uncertainty_lower_ratio=0.0,
        uncertainty_upper_ratio=0.0,
        model="",
    )


def clock(boottime: int, *, offset: int = UTC, synchronised: bool = True) -> pb.ClockPair:
    """Both clocks of a host whose boot began at the offset."""
    return pb.ClockPair(boottime_nanoseconds=boottime, realtime_nanoseconds=boottime + offset, synchronised=synchronised)


def hello(
    *,
    epoch: bytes = EPOCH,
    boot: bytes = BOOT,
    opening_boot: bytes | None = None,
    opening: int = 0,
    now: int = SECOND,
    next_sequence: int = 1,
    acknowledged: int = 0,
    offset: int = UTC,
    synchronised: bool = True,
    recorded: bool = False,
) -> pb.Hello:
    """A Hello of host `a`."""
    return pb.Hello(
        protocol_minor=1,
        agent_version="1.0",
        host="a",
        machine_id="machine",
        epoch=epoch,
        epoch_opening=pb.Opening(
            boot_id=opening_boot or boot, clock=clock(opening, offset=offset, synchronised=synchronised)
        ),
        boot_id=boot,
        oldest_retained_sequence=1,
        next_sequence=next_sequence,
        acknowledged_sequence=acknowledged,
        labels={"hostname": "alpha"},
        time_source=pb.TIME_SOURCE_RECORDED if recorded else pb.TIME_SOURCE_CLOCK,
        clock=clock(now, offset=offset, synchronised=synchronised),
    )


def opened(
    message: pb.Hello | None = None,
    host: Host | None = None,
    cursor: Cursor | None = None,
    peers: Sequence[Cursor] = (),
    *,
    now_utc: int = UTC + SECOND,
    peer_channels: Mapping[bytes, Mapping[int, ChannelInfo]] | None = None,
) -> Booking:
    """The booking of a Hello that is served."""
    result = open_stream(
        check_hello(message or hello()),
        host,
        cursor,
        peers,
        now_utc_nanoseconds=now_utc,
        collector="c1",
        peer_channels=peer_channels,
    )
    assert isinstance(result, Booking)
    return result


def column(channel: int, values: Sequence[int | None], *, gap: tuple[int, int, int] = (0, 0, 0)) -> pb.Column:
    """A channel's cumulative microjoules; None: not read. gap: lower, upper, unbounded count."""
    present = [value for value in values if value is not None]
    mask = sum(1 << index for index, value in enumerate(values) if value is not None)
    return pb.Column(
        channel=channel,
        first_energy_microjoules=present[0] if present else 0,
        energy_delta_microjoules=[after - before for before, after in pairwise(present)],
        present_mask=b"" if len(present) == len(values) else mask.to_bytes((len(values) + 7) // 8, "little"),
        gap_lower_microjoules=gap[0],
        gap_upper_microjoules=gap[1],
        gap_unbounded_count=gap[2],
    )


def payload(
    times: Sequence[int],
    columns: Sequence[pb.Column],
    *,
    boot: bytes = BOOT,
    offset: int = UTC,
    synchronised: bool = True,
    details: Sequence[pb.GapDetail] = (),
    utilizations: Sequence[pb.UtilizationColumn] = (),
    accounts: Sequence[pb.WorkloadAccount] = (),
    catalog_hash: int = 7,
) -> pb.Payload:
    """Samples at these boottimes; nanoseconds."""
    return pb.Payload(
        boot_id=boot,
        catalog_hash=catalog_hash,
        clock=clock(times[-1], offset=offset, synchronised=synchronised),
        first_boottime_nanoseconds=times[0],
        boottime_delta_nanoseconds=[after - before for before, after in pairwise(times)],
        columns=columns,
        gap_details=details,
        utilizations=utilizations,
        workload_accounts=accounts,
    )


def account(
    number: int,
    microjoules: int,
    *,
    kind: "pb.WorkloadKind.ValueType" = pb.WORKLOAD_KIND_CONTAINER,
    name: str = "",
    cpu_nanoseconds: int = 0,
    frozen: bool = False,
) -> pb.WorkloadAccount:
    """An account of one workload, with counted CPU energy alone; its id is made of its number."""
    return pb.WorkloadAccount(
        account=number,
        kind=kind,
        id=f"id-{number}",
        name=name or f"name-{number}",
        idle_policy=pb.IDLE_POLICY_NODE_ONLY,
        energies=[pb.WorkloadEnergy(component=pb.COMPONENT_CPU, method=pb.METHOD_COUNTER, energy_microjoules=microjoules)],
        cpu_nanoseconds=cpu_nanoseconds,
        frozen=frozen,
    )


def enveloped(content: pb.Payload | bytes, first: int, last: int | None = None) -> pb.Batch:
    """A batch with this payload under these sequences."""
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return pb.Batch(first_sequence=first, last_sequence=last or first, checksum=zlib.crc32(data), payload=data)


def batch(content: pb.Payload | bytes, first: int, last: int | None = None) -> CheckedBatch:
    """The same, checked."""
    return check_batch(enveloped(content, first, last))
