"""A host's clock against the collector's, from its Live message to /metrics."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.collector.fleets import COLLECTOR, MEASURED, SimulatedFleet, SimulatedHost

from wattledger_collector.exposition import Exposition
from wattledger_collector.fleet import FleetView

T = 1_700_000_000


def shown(realtime_nanoseconds: int) -> list[float]:
    """The metric of one host whose clock shows this when the collector's shows T."""
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    host = SimulatedHost("a", MEASURED, T)
    SimulatedFleet(view, [host]).open(T)
    live = host.live()
    live.clock.realtime_nanoseconds = realtime_nanoseconds
    view.on_live("a", live, T)
    text = Exposition(view, registry=CollectorRegistry(), insecure_transport=False, version="0").render(T).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [sample.value for sample in samples if sample.name == "wattledger_agent_clock_offset_seconds"]


@pytest.mark.parametrize("ahead_seconds", [0, 3600, -12.5])
def test_a_clock_that_differs_is_shown(ahead_seconds: float) -> None:
    """Ahead is positive, behind is negative."""
    assert shown(int((T + ahead_seconds) * 1_000_000_000)) == [ahead_seconds]


def test_a_clock_that_is_not_told_is_not_shown() -> None:
    """Unknown is not zero."""
    assert shown(0) == []
