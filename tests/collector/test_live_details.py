"""What an agent tells of devices and itself: taken over where it can be true, counted where it can't."""

import math

import pytest
from tests.collector.fleets import add_details

from wattledger_collector.live_details import (
    CROSS_CHECKS_MAX,
    GAUGES_MAX,
    NO_DETAILS,
    CrossCheckName,
    GaugeColumn,
    MeterCounts,
    read_details,
    throttle_reasons,
)
from wattledger_protos.v1 import telemetry_pb2 as pb


def test_all_that_can_be_true_is_taken_over() -> None:
    """Gauges in columns, the mask as names, the rest as told."""
    details = read_details(add_details(pb.Live(), "gpu/1"))
    assert details.gauges[pb.GAUGE_TEMPERATURE_CELSIUS] == GaugeColumn(("gpu/1",), (61.5,))
    assert pb.GAUGE_THROTTLE_REASONS_MASK not in details.gauges
    assert details.throttles == (("gpu/1", "sw_power_cap"), ("gpu/1", "hw_thermal_slowdown"))
    assert details.cross_checks == (CrossCheckName("node", "ipmi", "node", "redfish", "node"),)
    assert details.disagreement_ratios == (-0.031,)
    assert details.meter == MeterCounts(1, 2, 3, 4, 5)
    assert (details.agent_energy_microjoules, details.agent_wakeups, details.ignored) == (2_500_000, 77, 0)


def test_an_agent_that_tells_nothing_has_no_details() -> None:
    """As one of an older release."""
    assert read_details(pb.Live()) == NO_DETAILS


@pytest.mark.parametrize(
    ("gauge", "device", "value"),
    [
        (pb.GAUGE_TEMPERATURE_CELSIUS, "gpu/1", math.nan),
        (pb.GAUGE_TEMPERATURE_CELSIUS, "gpu/1", math.inf),
        (pb.GAUGE_TEMPERATURE_CELSIUS, "gpu/1", -300.0),
        (pb.GAUGE_CLOCK_HERTZ, "gpu/1", -1.0),
        (pb.GAUGE_POWER_LIMIT_WATTS, "gpu/1", 1e7),
        (pb.GAUGE_THROTTLE_REASONS_MASK, "gpu/1", 2.0**60),
        (pb.GAUGE_PROCESSES_COUNT, "", 1.0),
        (pb.GAUGE_PROCESSES_COUNT, "gpu/1\n", 1.0),
        (pb.GAUGE_PROCESSES_COUNT, "x" * 257, 1.0),
        (pb.GAUGE_UNSPECIFIED, "gpu/1", 1.0),
        (99, "gpu/1", 1.0),
    ],
)
def test_a_gauge_that_cannot_be_is_left_out_and_counted(gauge: int, device: str, value: float) -> None:
    """The others of the message are taken over."""
    live = pb.Live()
    for device_name, number in ((device, value), ("gpu/2", 5.0)):
        wire = pb.Gauge.ValueType(gauge) if device_name == device else pb.GAUGE_PROCESSES_COUNT
        live.gauges.add(device=device_name, gauge=wire, value=number)
    details = read_details(live)
    assert details.gauges == {pb.GAUGE_PROCESSES_COUNT: GaugeColumn(("gpu/2",), (5.0,))}
    assert (details.throttles, details.ignored) == ((), 1)


@pytest.mark.parametrize(("source", "ratio"), [("", 0.1), ("a\tb", 0.1), ("ipmi", math.nan), ("ipmi", -math.inf)])
def test_a_cross_check_that_cannot_be_is_left_out_and_counted(source: str, ratio: float) -> None:
    """A name that is none, or a ratio that is no number."""
    live = pb.Live()
    live.cross_checks.add(
        device="node", source=source, domain="node", reference_source="redfish", reference_domain="node",
        disagreement_ratio=ratio,
    )  # fmt: skip
    details = read_details(live)
    assert (details.cross_checks, details.disagreement_ratios, details.ignored) == ((), (), 1)


def test_too_many_are_cut_and_counted() -> None:
    """An agent gone wild can't fill the collector's memory."""
    live = pb.Live()
    for number in range(GAUGES_MAX + 3):
        live.gauges.add(device=f"gpu/{number}", gauge=pb.GAUGE_PROCESSES_COUNT, value=1)
    for number in range(CROSS_CHECKS_MAX + 4):
        live.cross_checks.add(device=f"gpu/{number}", source="a", domain="b", reference_source="c", reference_domain="d")
    details = read_details(live)
    assert len(details.gauges[pb.GAUGE_PROCESSES_COUNT].devices) == GAUGES_MAX
    assert len(details.cross_checks) == CROSS_CHECKS_MAX
    assert details.ignored == 3 + 4


def test_a_device_named_twice_is_one() -> None:
    """Two series of one name would cost the whole scrape."""
    live = pb.Live()
    for value in (1.0, 2.0):
        live.gauges.add(device="gpu/1", gauge=pb.GAUGE_PROCESSES_COUNT, value=value)
        live.cross_checks.add(
            device="n", source="a", domain="b", reference_source="c", reference_domain="d", disagreement_ratio=value
        )
    details = read_details(live)
    assert details.gauges[pb.GAUGE_PROCESSES_COUNT] == GaugeColumn(("gpu/1",), (2.0,))
    assert details.disagreement_ratios == (2.0,)


def test_reasons_that_have_no_name_are_one_other() -> None:
    """A newer driver's bits are told, and bounded."""
    assert throttle_reasons(0) == []
    assert throttle_reasons(0x101) == ["gpu_idle", "display_clock_setting"]
    assert throttle_reasons(0x600) == ["other"]
    assert len(throttle_reasons(2**53 - 1)) == 10
