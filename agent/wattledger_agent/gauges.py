"""Keeps the last shown value of each device: temperatures, clocks, limits. Never touches energy.

Reads no clock and no sensor. Nothing here is in a record: the values are for gauges alone.
"""

from math import isfinite

from wattledger_agent.readings import Gauge, GaugeReading
from wattledger_agent.wire import NAME_CHARACTERS_MAX
from wattledger_protos.v1 import telemetry_pb2 as pb

# 64 GPUs and management controllers with every gauge there is; the collector takes no more in one message.
GAUGES_MAX = 1024


class Gauges:
    """The last shown values. gap_nanoseconds: older values say nothing of the present."""

    def __init__(self, gap_nanoseconds: int) -> None:
        self._gap_nanoseconds = gap_nanoseconds
        self._values: dict[tuple[str, Gauge], tuple[float, int]] = {}

    def observe(self, reading: GaugeReading, boottime_nanoseconds: int) -> bool:
        """Take a reading; False if it can't be believed or kept."""
        key = (reading.device, reading.gauge)
        if not isfinite(reading.value) or not 0 < len(reading.device) <= NAME_CHARACTERS_MAX:
            return False
        if key not in self._values and len(self._values) >= GAUGES_MAX:
            return False
        self._values[key] = (reading.value, boottime_nanoseconds)
        return True

    def live(self, boottime_nanoseconds: int) -> list[pb.LiveGauge]:
        """Return the values that are not too old to tell the present."""
        return [
            pb.LiveGauge(device=device, gauge=pb.Gauge.ValueType(int(gauge)), value=value)
            for (device, gauge), (value, at) in self._values.items()
            if boottime_nanoseconds - at <= self._gap_nanoseconds
        ]
