"""The agent's own energy: its part of the busy CPU time, of what the CPUs drew."""

from tests.agent.metering import at, counter, spec

from wattledger_agent.meter import Meter
from wattledger_agent.own_energy import OwnEnergy
from wattledger_agent.readings import (
    ChannelSpec,
    Component,
    Method,
    PowerReading,
    Reading,
    UtilizationKind,
    UtilizationReading,
)

SECOND = 1_000_000_000
JOULE = 1_000_000

CPU = spec()
GPU = spec("gpu/1", component=Component.GPU, source="nvidia")


def run(meter: Meter, own: OwnEnergy, seconds: range, busy_ratio: float = 0.5, own_ratio: float = 0.01) -> list[int]:
    """A host of 8 threads whose package draws 80 W: what is told each second."""
    told = []
    for second in seconds:
        readings: list[Reading] = [
            counter(CPU, 80 * JOULE * second),
            counter(GPU, 90 * JOULE * second),
            UtilizationReading("cpu", UtilizationKind.BUSY, busy_ratio, 8),
        ]
        meter.observe(readings, at(second))
        own_nanoseconds = round(own_ratio * SECOND * second)
        told.append(own.observe(meter.open_channels, meter.busy_nanoseconds("cpu"), own_nanoseconds, second * SECOND))
    return told


def meter_of(*specs: ChannelSpec) -> Meter:
    """A meter of these channels."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer(specs, at(0))
    return meter


def test_the_agents_part_is_that_of_its_cpu_time() -> None:
    """10 ms of 4 busy seconds a second is 0.25 % of 80 W: 0.2 W. The GPU's energy is not the agent's."""
    told = run(meter_of(CPU, GPU), OwnEnergy(), range(1, 102))
    assert told[-1] == 20 * JOULE
    assert told == sorted(told)


def test_a_cut_between_changes_nothing() -> None:
    """Busy time goes on over records."""
    meter, own = meter_of(CPU, GPU), OwnEnergy()
    run(meter, own, range(1, 48))
    meter.cut(at(47))
    assert run(meter, own, range(48, 102))[-1] == 20 * JOULE


def test_the_agent_has_never_more_than_all() -> None:
    """On a host that the kernel calls idle, the agent was what worked: all of it is the agent's, and no more."""
    assert run(meter_of(CPU), OwnEnergy(), range(1, 12), busy_ratio=0.0)[-1] == 800 * JOULE


def test_without_measured_cpus_there_is_no_figure() -> None:
    """A model of a node is not divided: a model of a model would pass for a measurement."""
    node = spec("node", method=Method.MODEL, source="estimate", component=Component.OTHER)
    cpu = spec("cpu/1", method=Method.MODEL, source="estimate")
    meter, own = meter_of(node, cpu), OwnEnergy()
    for second in range(1, 40):
        meter.observe([PowerReading(node.key, 90 * JOULE), PowerReading(cpu.key, 90 * JOULE)], at(second))
        assert own.observe(meter.open_channels, second * SECOND, second * SECOND, second * SECOND) == 0


def test_a_new_account_goes_on_from_the_old_figure() -> None:
    """A new epoch's meter begins at 0; the agent's own sum does not, and the span between is left out."""
    own = OwnEnergy()
    before = run(meter_of(CPU, GPU), own, range(1, 46))[-1]
    after = run(meter_of(CPU, GPU), own, range(46, 106))
    assert after == sorted(after)
    assert before == 8 * JOULE
    # From 41 on, where a span began, to 51, where the next one did, nothing is known.
    assert after[-1] == 18 * JOULE
