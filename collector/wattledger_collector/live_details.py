"""What a Live message tells of devices, cross-checks and the agent itself: checked, bounded, and never part of a sum.

Reads no clock and books nothing. What can't be true is left out and counted, since no stream is closed for a gauge. Source
of truth for the fields is protos/wattledger_protos/v1/telemetry.proto.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from wattledger_protos.v1 import telemetry_pb2 as pb

# A server with 16 GPUs of 7 instances each has 9 gauges of each GPU and few of an instance; the rest is cut.
GAUGES_MAX: Final = 512
CROSS_CHECKS_MAX: Final = 128
NAME_CHARACTERS_MAX: Final = 256

# What a gauge may be; beyond it, the value is none. A device's clock stays below 1 THz, and a rack's power below 1 MW.
_RANGES: Final[Mapping[int, tuple[float, float]]] = {
    pb.GAUGE_TEMPERATURE_CELSIUS: (-273.15, 1000.0),
    pb.GAUGE_CLOCK_HERTZ: (0.0, 1e12),
    pb.GAUGE_MEMORY_CLOCK_HERTZ: (0.0, 1e12),
    pb.GAUGE_POWER_LIMIT_WATTS: (0.0, 1e6),
    pb.GAUGE_THROTTLE_REASONS_MASK: (0.0, 2.0**53),
    pb.GAUGE_AVERAGE_POWER_WATTS: (0.0, 1e6),
    pb.GAUGE_INSTANT_POWER_WATTS: (0.0, 1e6),
    pb.GAUGE_PROCESSES_COUNT: (0.0, 1e9),
    pb.GAUGE_READING_AGE_SECONDS: (0.0, 1e9),
}

# By bit of NVML's nvmlClocksEventReasons, as in nvml.h; all others together are called other.
THROTTLE_REASONS: Final = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
)
THROTTLE_REASON_OTHER: Final = "other"

# A source that is off by more than this has another unit; the ratio itself is no less telling for being cut.
DISAGREEMENT_RATIO_MAX: Final = 1e6


@dataclass(frozen=True, slots=True)
class GaugeColumn:
    """One gauge of some devices."""

    devices: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CrossCheckName:
    """Two sources of one quantity: the one that is not booked, and the booked one that it is compared with."""

    device: str
    source: str
    domain: str
    reference_source: str
    reference_domain: str


@dataclass(frozen=True, slots=True)
class MeterCounts:
    """What an agent's meter could not use since the agent's start."""

    failed_reads: int
    unbelieved_readings: int
    ignored_readings: int
    ignored_rows: int
    thinned_rows: int


@dataclass(frozen=True, slots=True)
class LiveDetails:
    """gauges: by the number on the wire; the mask of throttle reasons is in throttles, (device, reason) of active ones.

    meter: None where the agent does not tell; agent_energy_microjoules, agent_wakeups: 0 where it does not. ignored: how
    many values were left out.
    """

    gauges: Mapping[int, GaugeColumn]
    throttles: tuple[tuple[str, str], ...]
    cross_checks: tuple[CrossCheckName, ...]
    disagreement_ratios: tuple[float, ...]
    meter: MeterCounts | None
    agent_energy_microjoules: int
    agent_wakeups: int
    ignored: int


NO_DETAILS: Final = LiveDetails({}, (), (), (), None, 0, 0, 0)


def read_details(live: pb.Live) -> LiveDetails:
    """Take over what is told and can be true."""
    kinds, ignored = _gauges(live.gauges[:GAUGES_MAX])
    checks = {}
    for check in live.cross_checks[:CROSS_CHECKS_MAX]:
        name = CrossCheckName(check.device, check.source, check.domain, check.reference_source, check.reference_domain)
        words = (name.device, name.source, name.domain, name.reference_source, name.reference_domain)
        if all(map(_is_name, words)) and abs(check.disagreement_ratio) <= DISAGREEMENT_RATIO_MAX:
            checks[name] = check.disagreement_ratio
        else:
            ignored += 1
    ignored += max(0, len(live.gauges) - GAUGES_MAX) + max(0, len(live.cross_checks) - CROSS_CHECKS_MAX)
    masks = kinds.pop(pb.GAUGE_THROTTLE_REASONS_MASK, {})
    return LiveDetails(
        gauges={kind: GaugeColumn(tuple(column), tuple(column.values())) for kind, column in kinds.items()},
        throttles=tuple((device, reason) for device, mask in masks.items() for reason in throttle_reasons(int(mask))),
        cross_checks=tuple(checks),
        disagreement_ratios=tuple(checks.values()),
        meter=_meter(live.meter) if live.HasField("meter") else None,
        agent_energy_microjoules=live.agent_energy_microjoules,
        agent_wakeups=live.agent_wakeups,
        ignored=ignored,
    )


def throttle_reasons(mask: int) -> list[str]:
    """The names of a mask's bits."""
    named = [reason for bit, reason in enumerate(THROTTLE_REASONS) if mask >> bit & 1]
    return [*named, THROTTLE_REASON_OTHER] if mask >> len(THROTTLE_REASONS) else named


def _gauges(entries: Iterable[pb.LiveGauge]) -> tuple[dict[int, dict[str, float]], int]:
    # Dicts, so that a device named twice can't make two series of one name.
    kinds: dict[int, dict[str, float]] = {}
    ignored = 0
    for entry in entries:
        low, high = _RANGES.get(entry.gauge, (math.inf, -math.inf))
        # False for NaN as well, and for a gauge that a newer agent knows alone.
        if low <= entry.value <= high and _is_name(entry.device):
            kinds.setdefault(entry.gauge, {})[entry.device] = entry.value
        else:
            ignored += 1
    return kinds, ignored


def _is_name(text: str) -> bool:
    return 0 < len(text) <= NAME_CHARACTERS_MAX and text.isprintable()


def _meter(meter: pb.LiveMeter) -> MeterCounts:
    return MeterCounts(
        meter.failed_reads, meter.unbelieved_readings, meter.ignored_readings, meter.ignored_rows, meter.thinned_rows
    )
