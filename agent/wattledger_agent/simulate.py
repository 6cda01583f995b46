"""`wattledger-agent simulate`: many simulated hosts in one process, labelled so, for a first look at a fleet.

Everything but the sensors is real: each host has its own spool, session and stream. One host becomes less efficient a few
minutes after the start: the same work then costs more energy.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from wattledger_agent import __version__
from wattledger_agent.clock import HostClock
from wattledger_agent.config import CollectorConfig
from wattledger_agent.inventory import Roots
from wattledger_agent.runner import FAREWELL_SECONDS
from wattledger_agent.sampler import Cadence, OpenSource, Sampler
from wattledger_agent.session import Identity
from wattledger_agent.shipper import Shipper
from wattledger_agent.sources.fake import FakeSource
from wattledger_agent.spool import Spool

# Samples less often than a real agent: forty hosts in one process must not load the machine that is looked at.
CADENCE = Cadence(period_seconds=2.0, flush_seconds=10.0, live_seconds=2.0)

SPOOL_BYTES = 8 * 1024 * 1024

# The planted regression: which host, when, and how much more of its busy power the same work costs.
REGRESSION_HOST = 7
REGRESSION_AFTER_SECONDS = 180
REGRESSION_RATIO = 0.2

GPU_HOSTS_EVERY = 4  # Every fourth host has GPUs.


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """One host's parts that have to be stopped."""

    sampler: Sampler
    spool: Spool
    shipper: Shipper


def simulate(count: int, collector: CollectorConfig, state_dir: Path, roots: Roots, stopping: threading.Event) -> None:
    """Run `count` hosts until stopped. Raises SpoolError where the state folder can't be used."""
    clock = HostClock(roots.procfs)
    hosts = list(_hosts(count, collector, state_dir, clock))
    try:
        due = time.monotonic()
        while not stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + CADENCE.period_seconds, time.monotonic())
            for host in hosts:
                host.sampler.step()
        for host in hosts:
            host.sampler.flush(clock.instant())
        until = time.monotonic() + FAREWELL_SECONDS
        while any(host.spool.unacknowledged_records for host in hosts) and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        for host in hosts:
            host.shipper.stop(0.5)
            host.spool.close()


def _hosts(count: int, collector: CollectorConfig, state_dir: Path, clock: HostClock) -> Iterator[SimulatedHost]:
    now = clock.instant()
    for number in range(1, count + 1):
        name = f"simulated-{number:02d}"
        has_gpus = number % GPU_HOSTS_EVERY == 0
        source = FakeSource(
            number,
            packages=2,
            gpus=8 if has_gpus else 0,
            regression_from_nanoseconds=(
                now.boottime_nanoseconds + REGRESSION_AFTER_SECONDS * 1_000_000_000 if number == REGRESSION_HOST else None
            ),
            regression_ratio=REGRESSION_RATIO if number == REGRESSION_HOST else 0.0,
        )
        machine = sha256(name.encode()).hexdigest()[:32]
        spool = Spool.open(
            state_dir / name,
            machine_id=machine,
            dmi_uuid="",
            opening=now,
            new_epoch=lambda: os.urandom(16),
            quota_bytes=SPOOL_BYTES,
        )
        labels = {"hostname": name, "simulated": "true", "kind": "gpu" if has_gpus else "cpu"}
        shipper = Shipper(spool, Identity(name, __version__, machine, clock.boot_id, labels), collector, clock.instant)
        sampler = Sampler([OpenSource(source, source.open())], spool, shipper, clock, CADENCE)
        shipper.on_new_epoch = sampler.renew
        shipper.start()
        yield SimulatedHost(sampler, spool, shipper)
