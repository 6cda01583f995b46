"""The collector's own metrics: what its writer and its server do, beside the process's CPU, memory and files.

Holds no value: everything is read from writer and server when Prometheus asks.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wattledger_collector.writer import Writer


class OwnMetrics(Collector):
    """A prometheus_client collector over the writer and the number of open streams."""

    def __init__(self, writer: Writer, streams: Callable[[], int]) -> None:
        self._writer = writer
        self._streams = streams

    def collect(self) -> Iterable[Metric]:
        """Yield the families as they are now."""
        counts = self._writer.counts
        yield CounterMetricFamily(
            "wattledger_collector_commits", "Transactions that the ledger committed.", value=counts.commits
        )
        bookings = CounterMetricFamily(
            "wattledger_collector_bookings", "Bookings by what became of them.", labels=["outcome"]
        )
        for outcome, value in (
            ("committed", counts.committed),
            ("stale", counts.stale),
            ("rejected", counts.rejected),
            ("failed", counts.failed),
        ):
            bookings.add_metric([outcome], value)
        yield bookings
        yield GaugeMetricFamily(
            "wattledger_collector_waiting_bookings", "Bookings that wait for the writer.", value=self._writer.waiting
        )
        yield GaugeMetricFamily(
            "wattledger_collector_store_healthy", "1 if the last transaction went well, else 0.", value=self._writer.healthy
        )
        yield GaugeMetricFamily("wattledger_collector_streams", "Agents connected to this collector.", value=self._streams())


def make_registry(writer: Writer, streams: Callable[[], int]) -> CollectorRegistry:
    """A registry with the collector's own metrics and its process's."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="wattledger_collector", registry=registry)
    registry.register(OwnMetrics(writer, streams))
    return registry
