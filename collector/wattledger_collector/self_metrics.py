"""The collector's own metrics: what its writer and its server do, beside the process's CPU, memory and files.

Holds no value: everything is read from writer and server when Prometheus asks.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wattledger_collector.factor_refresh import SourceHealth
from wattledger_collector.writer import Writer


class OwnMetrics(Collector):
    """A prometheus_client collector over the writer, the number of open streams, and the sources of factors."""

    def __init__(self, writer: Writer, streams: Callable[[], int], factors: Callable[[], Sequence[SourceHealth]]) -> None:
        self._writer = writer
        self._streams = streams
        self._factors = factors

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
        yield from self._collect_factors()

    def _collect_factors(self) -> Iterable[Metric]:
        ages = GaugeMetricFamily(
            "wattledger_factor_age_seconds",
            "Time since the end of the newest grid factor of a zone by a source that is asked for it, or since the start "
            "where there is none; shown by the collector that asks. Take the maximum, not the sum.",
            labels=["zone", "source"],
        )
        failures = CounterMetricFamily(
            "wattledger_factor_refresh_failures",
            "Attempts to renew the factors of a source that failed, since this collector's start.",
            labels=["source"],
        )
        by_source: dict[str, int] = {}
        for health in self._factors():
            by_source[health.source] = by_source.get(health.source, 0) + health.failures
            for zone, age in health.ages.items():
                ages.add_metric([zone, health.source], age)
        for source, count in by_source.items():
            failures.add_metric([source], count)
        yield ages
        yield failures


def make_registry(
    writer: Writer, streams: Callable[[], int], factors: Callable[[], Sequence[SourceHealth]] = list
) -> CollectorRegistry:
    """A registry with the collector's own metrics and its process's. factors: how the sources of factors do."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="wattledger_collector", registry=registry)
    registry.register(OwnMetrics(writer, streams, factors))
    return registry
