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
    Method,
    PowerReading,
    Role,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.session import AgentSession, Identity
from wattledger_agent.spool import Record
from wattledger_agent.wire import clock_pair
from wattledger_protos.v1 import telemetry_pb2 as pb

GOLDEN = Path(__file__).parent.parent / "golden/wire"
SECOND = 1_000_000_000
OFFSET_NANOSECONDS = 1_790_000_000 * SECOND
NOW_NANOSECONDS = OFFSET_NANOSECONDS + 20 * SECOND
BOOT = bytes(range(16))

# What the batch adds to each domain: the node's residual is what its meter saw beyond package and GPU.
CHANNELS = {"package": 1_000_000_123, "board": 80_000_000, "residual": 19_999_877}

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


def messages() -> dict[str, pb.AgentMessage]:
    """What the agent sends now, by name: counters and power, a read that failed, a residual, utilization."""
    meter = _metered()
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


def _metered() -> Meter:
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
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
    for name, message in messages().items():
        (folder / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))
        (folder / f"{name}.txtpb").write_text(text_format.MessageToString(message))


if __name__ == "__main__":
    main()
