"""Adds up utilization between two records: means for gauges, busy time for the ledger.

Never touches energy, and keeps nothing over a restart. Ratios become millionths at once; the rest is whole numbers.
"""

from dataclasses import dataclass

from wattledger_agent.readings import UtilizationKind, UtilizationReading
from wattledger_agent.wire import NAME_CHARACTERS_MAX
from wattledger_protos.v1 import telemetry_pb2 as pb

PPM = 1_000_000

# The collector's limit of utilizations in a payload.
SHARES_MAX = 4096


@dataclass(slots=True)
class _Share:
    """One device's share of one kind.

    busy: millionths of nanoseconds, of all units together, since the last cut; told_nanoseconds: what was cut.
    """

    last_ppm: int
    last_boottime_nanoseconds: int
    sum_ppm: int = 0
    count: int = 0
    busy: int = 0
    told_nanoseconds: int = 0


class Shares:
    """All utilizations of a host. gap_nanoseconds: readings further apart than this say nothing of the time between."""

    def __init__(self, gap_nanoseconds: int) -> None:
        self._gap_nanoseconds = gap_nanoseconds
        self._shares: dict[tuple[str, UtilizationKind], _Share] = {}

    def observe(self, reading: UtilizationReading, boottime_nanoseconds: int) -> bool:
        """Take a reading; False if it can't be believed or kept. A share holds since the reading before."""
        if not 0.0 <= reading.ratio <= 1.0 or reading.units < 1 or not 0 < len(reading.device) <= NAME_CHARACTERS_MAX:
            return False
        ppm = round(reading.ratio * PPM)
        key = (reading.device, reading.kind)
        share = self._shares.get(key)
        if share is None:
            if len(self._shares) >= SHARES_MAX:
                return False
            share = self._shares[key] = _Share(ppm, boottime_nanoseconds)
        elapsed = boottime_nanoseconds - share.last_boottime_nanoseconds
        if 0 < elapsed <= self._gap_nanoseconds and reading.kind is not UtilizationKind.MEMORY:
            share.busy += ppm * elapsed * reading.units
        share.last_ppm = ppm
        share.last_boottime_nanoseconds = boottime_nanoseconds
        share.sum_ppm += ppm
        share.count += 1
        return True

    def cut(self) -> list[pb.UtilizationColumn]:
        """Return what came since the last cut. Busy time below a nanosecond is carried."""
        columns = []
        for (device, kind), share in self._shares.items():
            if share.count == 0:
                continue
            busy, share.busy = divmod(share.busy, PPM)
            share.told_nanoseconds += busy
            columns.append(
                pb.UtilizationColumn(
                    device=device,
                    kind=pb.UtilizationKind.ValueType(int(kind)),
                    mean_ppm=share.sum_ppm // share.count,
                    busy_nanoseconds=busy,
                )
            )
            share.sum_ppm = share.count = 0
        return columns

    def busy_nanoseconds(self, device: str) -> int:
        """Return the busy time of a device since the start, cut or not; 0 if it was never read."""
        share = self._shares.get((device, UtilizationKind.BUSY))
        return 0 if share is None else share.told_nanoseconds + share.busy // PPM

    def live(self, boottime_nanoseconds: int) -> list[pb.LiveUtilization]:
        """Return the last shares, less those that are too old to tell the present."""
        return [
            pb.LiveUtilization(device=device, kind=pb.UtilizationKind.ValueType(int(kind)), ppm=share.last_ppm)
            for (device, kind), share in self._shares.items()
            if boottime_nanoseconds - share.last_boottime_nanoseconds <= self._gap_nanoseconds
        ]
