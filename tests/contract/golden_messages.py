"""Makes the messages of a release, by the real agent on a scripted machine.

`python -m tests.contract.golden_messages 0.1.0` writes them.
"""

import sys
import zlib
from pathlib import Path

from google.protobuf import text_format

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gone,
    IdlePolicy,
    Method,
    PowerReading,
    ProcessShares,
    Reading,
    Role,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
    Workload,
    WorkloadKind,
    WorkloadsReading,
)
from wattledger_agent.session import AgentSession, Identity
from wattledger_agent.spool import Record
from wattledger_agent.wire import clock_pair
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_protos.v1 import telemetry_pb2 as pb

GOLDEN = Path(__file__).parent.parent / "golden/wire"
SECOND = 1_000_000_000
OFFSET_NANOSECONDS = 1_790_000_000 * SECOND
NOW_NANOSECONDS = OFFSET_NANOSECONDS + 20 * SECOND
BOOT = bytes(range(16))

# What the batch adds to each domain: the node's residual is what its meter saw beyond package and GPU.
CHANNELS = {"package": 1_000_000_123, "board": 80_000_000, "residual": 19_999_877}

# What the accounts of 0.2.0 hold: all that the leaves booked.
ACCOUNTED_MICROJOULES = CHANNELS["package"] + CHANNELS["board"]

PACKAGE = ChannelKey("cpu/0", "package", "rapl")
GPU = ChannelKey("gpu/GPU-0", "board", "nvidia")
NODE = ChannelKey("node", "meter", "ipmi")


class _Outbox:
    """A spool of one record."""

    epoch = bytes(range(16, 32))
    epoch_opening = Instant(BOOT, 10 * SECOND, OFFSET_NANOSECONDS + 10 * SECOND, True, 0)
    oldest_sequence, next_sequence, acknowledged_sequence, recovered_sequence = 1, 2, 0, 1

    def __init__(self, payload: bytes, catalog: bytes, catalog_hash: int) -> None:
        self._record = Record(1, 1, payload, catalog_hash)
        self._catalog = catalog

    def find(self, sequence: int) -> Record | None:
        """The record."""
        return self._record if sequence <= 1 else None

    def catalog(self, catalog_hash: int) -> bytes | None:
        """The catalog."""
        return self._catalog

    def acknowledge(self, sequence: int) -> None:
        """Nothing to do."""


def messages(release: str) -> dict[str, pb.AgentMessage]:
    """What the agent sends now of what it could tell in a release, by name.

    0.1.0: counters and power, a read that failed, a residual, utilization. 0.2.0: a GPU that goes and comes to its end,
    accounts of workloads, and present values of devices.
    """
    if release == "0.1.0":
        return _sent(_metered())
    meter = _metered(WorkloadSettings(IdlePolicy.BY_USAGE, 8, 60.0, lambda process: process))
    meter.observe([Gone(GPU, "it fell off the bus")], _at(15))
    found = _sent(meter)
    live = found["live"].live
    live.gauges.add(device="gpu/GPU-0", gauge=pb.GAUGE_TEMPERATURE_CELSIUS, value=61.5)
    live.gauges.add(device="gpu/GPU-0", gauge=pb.GAUGE_THROTTLE_REASONS_MASK, value=4)
    live.cross_checks.add(
        device="node", source="ipmi", domain="meter", reference_source="redfish", reference_domain="node",
        disagreement_ratio=0.02, window_seconds=600,
    )  # fmt: skip
    live.meter.CopyFrom(meter.counts())
    live.agent_energy_microjoules, live.agent_wakeups = 1_000_000, 15
    return found


def _sent(meter: Meter) -> dict[str, pb.AgentMessage]:
    cut = meter.cut(_at(14))
    assert cut is not None
    session = AgentSession(_Outbox(cut.payload, cut.catalog, cut.catalog_hash), _identity(), lambda: 0.0)
    (hello,) = session.connected(0.0, clock_pair(_at(15)))
    catalog, batch = session.received(pb.CollectorMessage(welcome=pb.Welcome()), 0.0)
    assert zlib.crc32(batch.batch.payload) == batch.batch.checksum
    live = pb.Live(clock=clock_pair(_at(15)), powers=meter.live(), utilizations=meter.live_utilizations(), spool_bytes=123)
    live.sources.add(source="rapl", reads=5, failures=1, last_error="no data", read_nanoseconds=12_345)
    return {"hello": hello, "catalog": catalog, "batch": batch, "live": pb.AgentMessage(live=live)}


def _identity() -> Identity:
    return Identity("golden", "0.1.0", "0123456789abcdef", BOOT, {"hostname": "golden-1"})


def _at(seconds: int) -> Instant:
    boottime = seconds * SECOND
    return Instant(BOOT, boottime, OFFSET_NANOSECONDS + boottime, True, 0)


def _workloads(ticks: int) -> WorkloadsReading:
    """A pod and a unit on two CPUs: a half, a quarter, and the rest idle."""
    pod = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0")
    unit = Workload(WorkloadKind.SYSTEMD_UNIT, "cron.service")
    return WorkloadsReading(
        busy_nanoseconds=(ticks * SECOND * 3 // 2,),
        idle_nanoseconds=(ticks * SECOND // 2,),
        workloads={1: pod, 2: unit},
        cpu_nanoseconds={1: ticks * SECOND, 2: ticks * SECOND // 2},
        within={},
        packages={},
        reservations={},
        memory_bytes={},
        memory_used_bytes=0,
    )


def _metered(workloads: WorkloadSettings | None = None) -> Meter:
    meter = Meter(state=None, integral_gap_seconds_max=10.0, workloads=workloads)
    meter.offer(
        [
            ChannelSpec(NODE, Component.OTHER, Method.COUNTER, Role.METER, 2000.0, model="meter"),
            ChannelSpec(
                PACKAGE, Component.CPU, Method.COUNTER, Role.LEAF, 500.0, NODE, counter_range_microjoules=262_143_328_911
            ),
            ChannelSpec(GPU, Component.GPU, Method.INTEGRAL, Role.LEAF, 1400.0, NODE, uncertainty_upper_ratio=0.05),
        ],
        _at(10),
    )
    for second in range(10, 15):
        ticks = second - 10
        more: list[Reading] = []
        if workloads is not None:
            more = [_workloads(ticks), ProcessShares(GPU.device, {1: 0.5})]
        package = CounterReading(PACKAGE, 262_143_328_000 + 250_000_000 * ticks + 123 * (ticks == 4))
        meter.observe(
            [
                # One read fails, and the counter wraps at its modulus.
                TryAgain(PACKAGE, "no data")
                if ticks == 2
                else CounterReading(PACKAGE, package.counter_microjoules % 262_143_328_911),
                PowerReading(GPU, 20_000_000),
                CounterReading(NODE, 275_000_000 * ticks),
                UtilizationReading("cpu", UtilizationKind.BUSY, 0.25, units=4),
                *more,
            ],
            _at(second),
        )
    return meter


def main() -> None:
    """Write the messages of a release; refuses to change one that is there."""
    folder = GOLDEN / sys.argv[1]
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is there already: the messages of a release never change")
    folder.mkdir(parents=True, exist_ok=True)
    for name, message in messages(sys.argv[1]).items():
        (folder / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))
        (folder / f"{name}.txtpb").write_text(text_format.MessageToString(message))


if __name__ == "__main__":
    main()
