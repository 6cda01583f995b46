"""How much CPU `/metrics` costs with 100,000 series of hosts, beside prometheus-client with the same series.

All turn values that lie in memory into the same text, in one process, in turn: the fleet
view by our encoder; prometheus-client's own metric objects with a child for each series, as the library is meant to be used;
and, as the least that it could cost, the library's encoder over families that are ready made.

    python -m tests.bench.exposition [--small]
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.bench.output import report
from tests.collector.fleets import COLLECTOR, GPUS, SimulatedFleet, SimulatedHost

from wattledger_collector.exposition import Exposition
from wattledger_collector.fleet import FleetView

NOW = 1_700_000_000
HOST_PREFIXES = ("wattledger_host_", "wattledger_channel_", "wattledger_utilization_", "wattledger_agent_")


class Ready:
    """A collector of prometheus-client whose families are made already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """The families."""
        return self._families


def children(families: Iterable[Metric]) -> CollectorRegistry:
    """The same series as objects of prometheus-client."""
    registry = CollectorRegistry()
    for family in families:
        names = tuple(family.samples[0].labels)
        # A gauge for counters too: they cost the library more, by a second series that says when each began.
        metric = Gauge(family.samples[0].name, family.documentation, names, registry=registry)
        for sample in family.samples:
            child = metric.labels(**sample.labels) if names else metric
            child.set(sample.value)
    return registry


def make_view(hosts: int) -> tuple[FleetView, SimulatedFleet]:
    """A fleet of two-GPU servers that all report."""
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    fleet = SimulatedFleet(view, [SimulatedHost(f"host-{number:06d}", GPUS, NOW - 10) for number in range(hosts)])
    fleet.open(NOW)
    fleet.step(NOW)
    return view, fleet


def cpu_seconds(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median process time of each work; they take turns, so that a busy machine slows them alike."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, own in zip(works, times, strict=True):
            begun = time.process_time()
            work()
            own.append(time.process_time() - begun)
    return [statistics.median(own) for own in times]


def main() -> int:
    """Run; returns 0 when the texts are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="5,000 series in place of 100,000")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    arguments = parser.parse_args()
    view, fleet = make_view(5_000 // 27 if arguments.small else 100_000 // 27 + 1)
    exposition = Exposition(view, registry=CollectorRegistry(), insecure_transport=False, version="0")
    ours = exposition.render(NOW)
    families = list(text_string_to_metric_families(ours.decode()))
    series = sum(len(family.samples) for family in families if family.name.startswith(HOST_PREFIXES))
    ready = CollectorRegistry()
    ready.register(Ready(families))
    objects = children(families)
    fleet.step(NOW + 10)
    # What all of them keep in memory is not to be searched for garbage while one of them is timed.
    gc.collect()
    gc.freeze()
    own, library, encoder = cpu_seconds(
        [lambda: exposition.render(NOW + 10), lambda: generate_latest(objects), lambda: generate_latest(ready)],
        arguments.rounds,
    )
    for comparison, theirs in ((f"prometheus-client, {series} metric objects", library), ("its encoder alone", encoder)):
        report("metrics_cpu_microseconds_per_series", own / series * 1e6, "us", theirs / series * 1e6, comparison)
    again = list(text_string_to_metric_families(generate_latest(ready).decode()))
    return 0 if again == families else 1


if __name__ == "__main__":
    sys.exit(main())
