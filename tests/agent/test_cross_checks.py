"""Two sources of one quantity: which channels are compared, and how far apart they are told to be."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.agent.metering import OTHER_BOOT, at, counter, spec

from wattledger_agent.cross_checks import sentence
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelSpec,
    Component,
    CounterReading,
    Method,
    PowerReading,
    Reading,
    Role,
    TryAgain,
)
from wattledger_protos.v1 import telemetry_pb2 as pb

WATT = 1_000_000

RAPL = spec()
HSMP = spec(method=Method.INTEGRAL, source="hsmp", domain="socket")
DRAM = spec("memory/0", domain="dram", component=Component.MEMORY, parent=RAPL.key)
NODE = spec("node", role=Role.METER, method=Method.INTEGRAL, source="ipmi", domain="node", component=Component.OTHER)
NODE = replace(NODE, power_bound_watts=2000.0)
REDFISH = replace(NODE, key=replace(NODE.key, source="redfish"))
GPU = spec("gpu/GPU-1", source="nvidia", domain="board", component=Component.GPU, bound=700.0)
ESTIMATE = spec("node", method=Method.MODEL, source="estimate", domain="estimate", component=Component.OTHER)
ESTIMATE = replace(ESTIMATE, excludes=frozenset({Component.GPU}), power_bound_watts=2000.0)


def reading(of: ChannelSpec, watts: float, second: int) -> Reading:
    """What a channel that draws this power says at this second."""
    if of.method is Method.COUNTER:
        return counter(of, round(watts * WATT * second))
    return PowerReading(of.key, round(watts * WATT))


def meter_of(*specs: ChannelSpec) -> Meter:
    """A meter of these channels, opened at second 0."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer(specs, at(0))
    return meter


def run(meter: Meter, watts: Sequence[tuple[ChannelSpec, float]], seconds: range) -> list[pb.LiveCrossCheck]:
    """Let each channel draw so much in these seconds."""
    for second in seconds:
        meter.observe([reading(of, power, second) for of, power in watts], at(second))
    return meter.live_cross_checks()


def test_a_demoted_source_is_compared_with_the_primary_one() -> None:
    """The socket's power by a second interface is 10 % above the counter's, and both are named."""
    (check,) = run(meter_of(RAPL, HSMP), [(RAPL, 50.0), (HSMP, 55.0)], range(1, 122))
    assert check.disagreement_ratio == pytest.approx(0.10)
    assert (check.source, check.domain, check.reference_source, check.reference_domain) == (
        "hsmp", "socket", "rapl", "package",
    )  # fmt: skip
    assert (check.device, check.window_seconds) == ("cpu/0", 120.0)
    assert sentence(check) == "cpu/0: hsmp socket is +10.0% beside rapl package, over 120 s."


def test_less_than_a_minute_says_nothing() -> None:
    """Two sensors that answer at different moments are not apart because of that."""
    meter = meter_of(RAPL, HSMP)
    assert run(meter, [(RAPL, 50.0), (HSMP, 55.0)], range(1, 61)) == []
    assert len(run(meter, [(RAPL, 50.0), (HSMP, 55.0)], range(61, 62))) == 1


def test_what_is_compared_is_told_before_it_was_read() -> None:
    """For a command that runs for seconds, with the disagreement as far as it is known by then."""
    meter = meter_of(RAPL, HSMP, DRAM)
    assert meter.compared() == [(HSMP.key, RAPL.key)]
    assert run(meter, [(RAPL, 50.0), (HSMP, 55.0)], range(1, 4)) == []
    (check,) = meter.live_cross_checks(least_seconds=1.0)
    assert check.disagreement_ratio == pytest.approx(0.10)


def test_the_window_forgets() -> None:
    """Six minutes after a fault was mended it is no more told."""
    meter = meter_of(RAPL, HSMP)
    (faulty,) = run(meter, [(RAPL, 50.0), (HSMP, 100.0)], range(1, 302))
    assert faulty.disagreement_ratio == pytest.approx(1.0)
    (mended,) = run(meter, [(RAPL, 50.0), (HSMP, 50.0)], range(302, 620))
    assert mended.disagreement_ratio == pytest.approx(0.0, abs=1e-9)
    assert 290 <= mended.window_seconds <= 310


def test_a_part_is_never_compared_with_its_whole() -> None:
    """A core domain, and one of two leaves of a device, are less than the package."""
    core = spec(role=Role.SHOWN, domain="core", parent=RAPL.key)
    half, other = (spec(source="hwmon", domain=name, method=Method.INTEGRAL) for name in ("vcore", "soc"))
    watts = [(RAPL, 50.0), (core, 30.0), (half, 30.0), (other, 20.0), (DRAM, 5.0)]
    assert run(meter_of(RAPL, core, half, other, DRAM), watts, range(1, 122)) == []


def test_two_node_meters_are_compared() -> None:
    """What one management interface says beside the other one."""
    (check,) = run(meter_of(NODE, REDFISH), [(NODE, 400.0), (REDFISH, 380.0)], range(1, 122))
    assert (check.source, check.reference_source) == ("redfish", "ipmi")
    assert check.disagreement_ratio == pytest.approx(-0.05)


def test_the_estimates_bias_is_told_without_the_gpus() -> None:
    """The meter sees 900 W of which the GPU draws 500; the model of the rest says 440 W in place of 400 W."""
    (check,) = run(meter_of(NODE, GPU, ESTIMATE), [(NODE, 900.0), (GPU, 500.0), (ESTIMATE, 440.0)], range(1, 122))
    assert (check.device, check.source, check.reference_source) == ("node", "estimate", "ipmi")
    assert check.disagreement_ratio == pytest.approx(0.10)


def test_a_gpus_power_is_compared_with_its_counter() -> None:
    """The same source shows the integral of the power beside the booked counter: a second view of the same board."""
    power = replace(
        GPU, key=replace(GPU.key, domain="board_power"), method=Method.INTEGRAL, role=Role.SHOWN
    )  # fmt: skip
    memory = replace(power, key=replace(GPU.key, domain="memory"), parent=GPU.key)
    (check,) = run(meter_of(GPU, power, memory), [(GPU, 300.0), (power, 270.0), (memory, 60.0)], range(1, 122))
    assert check.domain == "board_power"
    assert check.disagreement_ratio == pytest.approx(-0.10)


def test_a_superchips_counter_is_not_its_gpus() -> None:
    """A counter that may cover the CPU beside the GPU, as its bound says, is a whole, and the GPU's power its part."""
    gpu = replace(GPU, method=Method.INTEGRAL)
    whole = replace(GPU, key=replace(GPU.key, domain="counter"), role=Role.SHOWN, power_bound_watts=2000.0)
    assert run(meter_of(gpu, whole), [(gpu, 300.0), (whole, 700.0)], range(1, 122)) == []


def test_a_platform_domain_is_not_a_node_meter() -> None:
    """Nobody knows what psys contains on this platform, so that it is compared with nothing."""
    psys = spec("node", role=Role.SHOWN, domain="psys", component=Component.OTHER)
    assert run(meter_of(RAPL, psys, NODE), [(RAPL, 50.0), (psys, 60.0), (NODE, 90.0)], range(1, 122)) == []


def test_a_gap_of_either_is_left_out() -> None:
    """A driver's reload in one channel leaves the compared time shorter and the figure right."""
    meter = meter_of(GPU, replace(GPU, key=replace(GPU.key, source="dcgm"), method=Method.INTEGRAL))
    power = replace(GPU, key=replace(GPU.key, source="dcgm"), method=Method.INTEGRAL)
    run(meter, [(GPU, 300.0), (power, 330.0)], range(1, 91))
    # The counter begins anew: what it counted since the read before is lost.
    for second in range(91, 121):
        readings: list[Reading] = [
            CounterReading(GPU.key, 300 * WATT * (second - 91), generation=7),
            PowerReading(power.key, 330 * WATT),
        ]
        meter.observe(readings, at(second))
    (check,) = meter.live_cross_checks()
    assert check.disagreement_ratio == pytest.approx(0.10)
    assert check.window_seconds == 118.0


def test_failed_reads_are_bridged_together_or_not_at_all() -> None:
    """Only moments at which both were read are ends of a compared span."""
    meter = meter_of(RAPL, HSMP)
    for second in range(1, 122):
        fails = TryAgain(HSMP.key, "busy")
        both: list[Reading] = [reading(RAPL, 50.0, second), fails if second % 3 else reading(HSMP, 55.0, second)]
        meter.observe(both, at(second))
    (check,) = meter.live_cross_checks()
    assert check.disagreement_ratio == pytest.approx(0.10)


def test_a_slow_reference_is_compared_at_its_own_readings() -> None:
    """What the other source counted since then waits for the next joint reading."""
    meter = meter_of(HSMP, RAPL)
    for second in range(1, 145):
        fails = TryAgain(RAPL.key, "busy")
        row: list[Reading] = [reading(HSMP, 55.0, second), fails if second % 30 != 1 else reading(RAPL, 50.0, second)]
        meter.observe(row, at(second))
    (check,) = meter.live_cross_checks()
    assert check.disagreement_ratio == pytest.approx(0.10)
    assert check.window_seconds == 120.0


def test_a_comparison_that_ended_is_no_more_told() -> None:
    """A source that has been silent for the whole window says nothing of the present."""
    meter = meter_of(RAPL, HSMP)
    assert run(meter, [(RAPL, 50.0), (HSMP, 55.0)], range(1, 122)) != []
    assert run(meter, [(RAPL, 50.0)], range(122, 440)) == []


def test_a_second_counter_of_one_source_is_no_second_view() -> None:
    """A mirrored zone that is shown says nothing of the one that is booked."""
    mirror = spec(role=Role.SHOWN, domain="package-die-1")
    assert run(meter_of(RAPL, mirror), [(RAPL, 50.0), (mirror, 50.0)], range(1, 122)) == []


def test_two_silent_sensors_do_not_disagree() -> None:
    """There is no ratio to zero."""
    assert run(meter_of(RAPL, HSMP), [(RAPL, 0.0), (HSMP, 0.0)], range(1, 122)) == []


def test_a_sensor_that_says_zero_is_told() -> None:
    """Zeros that look like a measurement are 100 % below the other source."""
    (check,) = run(meter_of(RAPL, HSMP), [(RAPL, 50.0), (HSMP, 0.0)], range(1, 122))
    assert check.disagreement_ratio == -1.0


def test_another_boot_begins_anew() -> None:
    """Nothing is compared across a restart of the host."""
    meter = meter_of(RAPL, HSMP)
    run(meter, [(RAPL, 50.0), (HSMP, 55.0)], range(1, 50))
    for second in range(10, 60):
        meter.observe([reading(RAPL, 50.0, second), reading(HSMP, 55.0, second)], at(second, boot=OTHER_BOOT))
    assert all(check.disagreement_ratio == pytest.approx(0.10) for check in meter.live_cross_checks())
