"""What an agent costs its host, from its Live message to /metrics."""

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.collector.fleets import COLLECTOR, MEASURED, SimulatedFleet, SimulatedHost

from wattledger_collector.exposition import Exposition
from wattledger_collector.fleet import FleetView

T = 1_700_000_000


def shown(cpu_nanoseconds: int, memory_bytes: int) -> dict[str, float]:
    """The two metrics of a host whose agent tells this of itself."""
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    host = SimulatedHost("a", MEASURED, T)
    SimulatedFleet(view, [host]).open(T)
    live = host.live()
    live.agent_cpu_nanoseconds, live.agent_memory_bytes = cpu_nanoseconds, memory_bytes
    view.on_live("a", live, T)
    exposition = Exposition(view, registry=CollectorRegistry(), insecure_transport=False, version="0")
    text = exposition.render(T).decode()
    names = ("wattledger_agent_cpu_seconds_total", "wattledger_agent_memory_bytes")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.name in names and sample.labels["host"] == "a"}


def test_an_agents_cost_is_shown() -> None:
    """Nanoseconds become seconds, bytes stay bytes."""
    assert shown(12_345_678_900, 41_000_960) == {
        "wattledger_agent_cpu_seconds_total": 12.3456789,
        "wattledger_agent_memory_bytes": 41_000_960,
    }


def test_a_cost_that_is_not_told_is_not_shown() -> None:
    """Agents of older releases and simulated hosts: unknown, not zero."""
    assert shown(0, 0) == {}
