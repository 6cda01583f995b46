"""The agent's loop: read every source each period, meter, and spool what was metered.

Joins sources, meter, spool and shipper; decides nothing about energy (meter) or delivery (session). The only thread that
touches the meter.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from wattledger_agent.channels import MeterStateError
from wattledger_agent.counters import Instant
from wattledger_agent.meter import Cut, Meter
from wattledger_agent.own_energy import OwnEnergy
from wattledger_agent.readers import Late, Readers
from wattledger_agent.readings import ChannelKey, ChannelSpec, Source
from wattledger_agent.session import Settings
from wattledger_agent.spool import Spool, SpoolError
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_protos.v1 import telemetry_pb2 as pb

log = logging.getLogger("wattledger.agent")

# Trapezoids over more than this hide what happened between; also the least, for periods below 3 s.
INTEGRAL_GAP_PERIODS_MAX = 3.0
INTEGRAL_GAP_SECONDS_MIN = 10.0

# Sources that may hang get this share of a period before the sample is made without them.
DEADLINE_PERIODS = 0.5


class Clock(Protocol):
    """Gives the present on all clocks of the host."""

    def instant(self) -> Instant:
        """Now."""


class Delivery(Protocol):
    """What the sampler tells the shipper."""

    def appended(self) -> None:
        """A record was added to the spool."""

    def live(self, live: pb.Live) -> None:
        """Present values, to be sent if a stream is open, else dropped."""


class OwnCost(Protocol):
    """What the agent itself costs its host."""

    def cpu_nanoseconds(self) -> int:
        """CPU time of all threads since the start."""

    def memory_bytes(self) -> int:
        """Resident memory."""

    def wakeups(self) -> int:
        """Times that a thread went to sleep of its own will since the start."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source that was opened, with the channels that it offered."""

    source: Source
    specs: Sequence[ChannelSpec]


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often the sampler does what; seconds."""

    period_seconds: float
    flush_seconds: float
    live_seconds: float

    @property
    def integral_gap_seconds_max(self) -> float:
        """Longest span that measured power is integrated over."""
        return max(INTEGRAL_GAP_SECONDS_MIN, INTEGRAL_GAP_PERIODS_MAX * self.period_seconds)


class Sampler:
    """One agent's measuring side. `step` is one tick; `run` is ticks until `stopping` is set.

    own_cost: what Live messages tell of the agent itself; None where several agents share a process.
    workloads: how their energy is accounted; None: it is not. late: looks for sources that are not there; None: nobody does.
    """

    def __init__(
        self,
        sources: Sequence[OpenSource],
        spool: Spool,
        delivery: Delivery,
        clock: Clock,
        cadence: Cadence,
        *,
        own_cost: OwnCost | None = None,
        stopping: threading.Event | None = None,
        on_tick: Callable[[], None] = lambda: None,
        workloads: WorkloadSettings | None = None,
        late: Late | None = None,
    ) -> None:
        self._workloads = workloads
        self._readers = Readers(sources, late)
        self._spool = spool
        self._delivery = delivery
        self._clock = clock
        self._cadence = self._own_cadence = cadence
        self._own_cost = own_cost
        self._own_energy = OwnEnergy()
        self._on_tick = on_tick
        self._stopping = stopping or threading.Event()
        self._renewal_wanted = threading.Event()
        self._next_flush_nanoseconds = 0
        self._next_live_nanoseconds = 0
        self._spool_error = ""
        self._unspooled: Cut | None = None
        self._refusals: dict[ChannelKey, str] = {}
        self._meter = self._resume()

    def run(self) -> None:
        """Tick until stopped, then spool what is left. Ticks keep to a grid, so that a slow one does not shift the rest."""
        period_nanoseconds = round(self._cadence.period_seconds * 1e9)
        due = time.monotonic_ns()
        while not self._stopping.wait(max(0.0, (due - time.monotonic_ns()) / 1e9)):
            self.step()
            self._on_tick()
            missed = max(0, (time.monotonic_ns() - due) // period_nanoseconds)
            due += (missed + 1) * period_nanoseconds
        self.flush(self._clock.instant(), is_last=True)
        self._readers.close()

    def renew(self) -> None:
        """Begin a new epoch at the next tick: the spool's disk went back in time. Callable from any thread."""
        self._renewal_wanted.set()

    def apply(self, settings: Settings) -> None:
        """Follow the collector's settings; what it does not set is the agent's own. Callable from any thread."""
        self._cadence = replace(
            self._own_cadence,
            flush_seconds=max(settings.flush_seconds or self._own_cadence.flush_seconds, self._own_cadence.period_seconds),
            live_seconds=settings.live_seconds or self._own_cadence.live_seconds,
        )

    def step(self) -> None:
        """One tick: read all sources, meter, and flush and show what is due."""
        now = self._clock.instant()
        if self._renewal_wanted.is_set():
            self._begin_epoch(now)
        gone = self._readers.take_in(self._meter, now)
        readings, late = self._readers.read(self._meter, now, DEADLINE_PERIODS * self._cadence.period_seconds)
        self._meter.observe([*gone, *readings] if gone else readings, now, late)
        self._readers.mind(self._meter, now)
        if now.boottime_nanoseconds >= self._next_flush_nanoseconds:
            self._next_flush_nanoseconds = now.boottime_nanoseconds + round(self._cadence.flush_seconds * 1e9)
            self.flush(now)
        if now.boottime_nanoseconds >= self._next_live_nanoseconds:
            self._next_live_nanoseconds = now.boottime_nanoseconds + round(self._cadence.live_seconds * 1e9)
            self._delivery.live(self._live(now))

    def flush(self, now: Instant, *, is_last: bool = False) -> None:
        """Make what was metered since the last flush durable, and let the shipper know.

        A record that can't be written is tried again at the next flush, before any other: the next one would hold its
        energy too, but for that of a channel that has closed since. Meanwhile the meter keeps its rows, within its bounds.
        """
        self._tell_refusals()
        accounts = None if self._meter.workloads is None else self._meter.workloads.accounts
        if accounts is not None:
            accounts.acknowledged(self._spool.acknowledged_sequence, self._spool.dropped_records)
        while (cut := self._unspooled or self._meter.cut(now, is_last=is_last)) is not None:
            try:
                sequence = self._spool.append(cut)
            except SpoolError as error:
                self._unspooled = cut
                self._tell_spool_error(str(error))
                return
            if accounts is not None:
                accounts.spooled(sequence)
            self._unspooled = None
            self._spool_error = ""
            self._delivery.appended()

    def _begin_epoch(self, now: Instant) -> None:
        try:
            self._spool.renew(now)
        except SpoolError as error:
            # What is metered meanwhile still belongs to the old epoch; the next tick tries again.
            self._tell_spool_error(str(error))
            return
        self._renewal_wanted.clear()
        log.warning("the spool is older than what the collector has committed: a new epoch begins")
        self._unspooled = None
        self._meter = self._make_meter(None)

    def _make_meter(self, state: bytes | None) -> Meter:
        meter = Meter(
            state=state, integral_gap_seconds_max=self._cadence.integral_gap_seconds_max, workloads=self._workloads
        )
        meter.offer(self._readers.specs, self._clock.instant())
        return meter

    def _resume(self) -> Meter:
        try:
            return self._make_meter(self._spool.last_state)
        except MeterStateError as error:
            log.error("%s; a new epoch begins", error)
            self._spool.set_aside(self._clock.instant())
            return self._make_meter(None)

    def _tell_refusals(self) -> None:
        for key, reason in self._meter.refused.items():
            if self._refusals.get(key) != reason:
                log.error("%s: %s %s is not metered: %s", key.source, key.device, key.domain, reason)
                self._refusals[key] = reason

    def _tell_spool_error(self, error: str) -> None:
        if error != self._spool_error:
            log.error("%s", error)
        self._spool_error = error

    def _live(self, now: Instant) -> pb.Live:
        live = pb.Live(
            clock=pb.ClockPair(
                boottime_nanoseconds=now.boottime_nanoseconds,
                realtime_nanoseconds=now.realtime_nanoseconds,
                synchronised=now.synchronised,
            ),
            powers=self._meter.live(),
            utilizations=self._meter.live_utilizations(),
            gauges=self._meter.live_gauges(),
            cross_checks=self._meter.live_cross_checks(),
            spool_bytes=self._spool.unacknowledged_bytes,
            spool_unacknowledged_records=self._spool.unacknowledged_records,
            spool_thinned_samples=self._spool.thinned_samples,
            meter=self._meter.counts(),
        )
        if self._own_cost is not None:
            live.agent_cpu_nanoseconds = self._own_cost.cpu_nanoseconds()
            live.agent_memory_bytes = self._own_cost.memory_bytes()
            live.agent_wakeups = self._own_cost.wakeups()
            live.agent_energy_microjoules = self._own_energy.observe(
                self._meter.open_channels,
                self._meter.busy_nanoseconds("cpu"),
                live.agent_cpu_nanoseconds,
                now.boottime_nanoseconds,
            )
        for health in self._readers.health:
            live.sources.add(
                source=health.source,
                reads=health.reads,
                failures=health.failures,
                deadline_misses=health.deadline_misses,
                last_error=health.last_error,
                read_nanoseconds=health.read_nanoseconds,
            )
        return live
