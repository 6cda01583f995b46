"""All sources of a running agent: reads them each tick, closes what has failed for good, and takes in what is found late.

Decides nothing about energy (meter) and opens nothing (late). A source that is silent for a minute is withdrawn from the
meter: its channels stay and go on where they were, and the residual above them no longer waits for their readings. So is a
leaf that is silent for so long while others of its source answer, such as a GPU that sleeps, and a meter of the node that
was offered and never answers, since while it is offered nothing else is booked for the node.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from wattledger_agent.containment import NODE
from wattledger_agent.counters import Instant
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    CounterReading,
    Gone,
    Offer,
    PowerReading,
    Reading,
    Role,
    Source,
)
from wattledger_agent.worker import Reader, SourceHealth, reader_for

if TYPE_CHECKING:
    from wattledger_agent.sampler import OpenSource

log = logging.getLogger("wattledger.agent")

# Drivers answer errors for some seconds while a device is reset; one that does for a minute needs to be opened anew.
SILENT_SECONDS_MAX = 60

# A meter of the node that has not told anything after a minute and so many of its cadences may never do.
UNANSWERED_CADENCES_MAX = 3


class Late(Protocol):
    """Looks for sources that are not there."""

    @property
    def names(self) -> Collection[str]:
        """The sources that are looked for."""

    def watch(self, name: str, now_nanoseconds: int) -> None:
        """Look for a source until it is found."""

    def found(self, now_nanoseconds: int) -> "Sequence[OpenSource]":
        """Return what was opened since the last call; without waiting."""


class _Running:
    """A source with its reader, its channels, those of them that are gone, and whether the meter goes on without it."""

    def __init__(self, opened: "OpenSource", make_reader: Callable[[Source], Reader]) -> None:
        self.reader: Reader = make_reader(opened.source)
        self.specs = opened.specs
        self.gone: set[ChannelKey] = set()
        self.is_withdrawn = False
        # Meters of the node that have told nothing yet, since when that is so, and which of them the meter goes on without.
        self.unanswered = {spec.key: spec for spec in opened.specs if _is_node_meter(spec)}
        self.since_nanoseconds: int | None = None
        self.withheld: set[ChannelKey] = set()
        # When each leaf has told something last.
        self.told_nanoseconds: dict[ChannelKey, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether all its parts are gone."""
        return bool(self.gone) and all(spec.key in self.gone for spec in self.specs)

    @property
    def present(self) -> list[ChannelSpec]:
        """The channels of parts that are not gone, nor held back for want of an answer."""
        return [spec for spec in self.specs if spec.key not in self.gone and spec.key not in self.withheld]

    def note_answers(self, found: Iterable[Reading], now: Instant) -> bool:
        """Take note of what was told; say whether any of it was held back until now."""
        if self.since_nanoseconds is None:
            self.since_nanoseconds = now.boottime_nanoseconds
        told = {reading.key for reading in found if isinstance(reading, CounterReading | PowerReading)}
        self.told_nanoseconds |= dict.fromkeys(told, now.boottime_nanoseconds)
        for key in told & self.unanswered.keys():
            del self.unanswered[key]
        returned = bool(told & self.withheld)
        self.withheld -= told
        return returned

    def note_parts(self, found: Iterable[Reading]) -> None:
        """Take note of which parts are gone, and of those that came back or appeared."""
        for reading in found:
            if type(reading) is Gone:
                self.gone.add(reading.key)
            elif type(reading) is Offer:
                # All that there is from now on: what came back is else left out when the source is offered anew.
                self.specs = reading.specs
                self.gone.clear()

    def hold_back(self, now: Instant) -> list[ChannelKey]:
        """Return the meters of the node that have just been waited for long enough."""
        if self.since_nanoseconds is None:
            return []
        waited = (now.boottime_nanoseconds - self.since_nanoseconds) / NANOSECONDS_PER_SECOND
        late = [
            key
            for key, spec in self.unanswered.items()
            if key not in self.withheld and waited >= SILENT_SECONDS_MAX + UNANSWERED_CADENCES_MAX * spec.cadence_seconds
        ]
        self.withheld |= set(late)
        return late

    def hold_back_silent(self, now: Instant) -> list[ChannelKey]:
        """Return the leaves that have just been silent for long enough while others of the source may answer."""
        if self.since_nanoseconds is None:
            return []
        silent = []
        for spec in self.specs:
            if spec.role is Role.LEAF and spec.key not in self.withheld and spec.key not in self.gone:
                told = self.told_nanoseconds.get(spec.key, self.since_nanoseconds)
                waited = (now.boottime_nanoseconds - told) / NANOSECONDS_PER_SECOND
                if waited >= SILENT_SECONDS_MAX + UNANSWERED_CADENCES_MAX * spec.cadence_seconds:
                    silent.append(spec.key)
        self.withheld |= set(silent)
        return silent


class Readers:
    """The sources that run. late: looks for those that do not; None: nobody does, and none is closed before the end.

    make_reader: how a source is read; where none can hang, no threads are needed.
    """

    def __init__(
        self,
        sources: "Sequence[OpenSource]",
        late: Late | None,
        *,
        make_reader: Callable[[Source], Reader] = reader_for,
    ) -> None:
        self._late = late
        self._make_reader = make_reader
        self._running: list[_Running] = []
        # What is said of sources that were closed: their counts go on when they are found again.
        self._closed: dict[str, SourceHealth] = {}
        self._lost_keys: dict[str, set[ChannelKey]] = {}
        self._removed_keys: dict[str, set[ChannelKey]] = {}
        for opened in sources:
            self._add(opened)

    @property
    def specs(self) -> list[ChannelSpec]:
        """The channels of the sources that run."""
        return [spec for running in self._running if not running.is_withdrawn for spec in running.present]

    @property
    def health(self) -> list[SourceHealth]:
        """Of all sources, those that are looked for again included."""
        return [*(running.reader.health for running in self._running), *self._closed.values()]

    def of(self, name: str) -> Reader | None:
        """Return the reader of a source that runs."""
        return next((running.reader for running in self._running if running.reader.source.name == name), None)

    def take_in(self, meter: Meter, now: Instant) -> list[Reading]:
        """Offer the meter what was found late; return that channels which the source had before are gone."""
        gone: list[Reading] = []
        for opened in () if self._late is None else self._late.found(now.boottime_nanoseconds):
            self._add(opened)
            name = opened.source.name
            meter.offer(opened.specs, now, self._removed_keys.pop(name, ()))
            missing = self._lost_keys.pop(name, set()) - {spec.key for spec in opened.specs}
            gone += [Gone(key, f"{name}: {key.device} was not there when the source was opened again") for key in missing]
        return gone

    def read(self, meter: Meter, now: Instant, deadline_seconds: float) -> tuple[list[Reading], dict[ChannelKey, int]]:
        """Read every source, those that may hang with a deadline in common.

        Returns the readings, and for those that were asked for in an earlier tick how late they are, in nanoseconds.
        """
        for running in self._running:
            running.reader.begin(now.boottime_nanoseconds)
        deadline = time.monotonic() + deadline_seconds
        readings: list[Reading] = []
        late: dict[ChannelKey, int] = {}
        for running in self._running:
            reader = running.reader
            found = reader.finish(deadline - time.monotonic())
            readings.extend(found)
            for reading in found:
                if isinstance(reading, CounterReading | PowerReading) and (behind := _behind(reader, reading)):
                    late[reading.key] = behind
            returned = running.note_answers(found, now)
            if returned or (found and running.is_withdrawn):
                running.is_withdrawn = False
                meter.offer(running.present, now)
            running.note_parts(found)
        return readings, late

    def mind(self, meter: Meter, now: Instant) -> None:
        """Withdraw what is silent, and close and look again for what has failed for good."""
        for running in list(self._running):
            reader = running.reader
            failing = _is_long_ago(reader.health.failing_since_nanoseconds, now)
            if failing or _is_long_ago(reader.hung_since_nanoseconds, now):
                self._withdraw(running, meter, now)
            held_back = running.hold_back(now)
            if held_back:
                meter.withdraw(held_back, now)
                silent = "the node's meter has not answered since it was opened; the account goes on without it"
                log.warning("%s: %s until it does.", reader.source.name, silent)
            # One GPU that sleeps, or one counter that fails, holds up no residual; it goes on when it answers.
            asleep = running.hold_back_silent(now)
            if asleep:
                meter.withdraw(asleep, now)
            if self._late is not None and (failing or running.is_empty):
                self._close(running, self._late, now)
        meter.expect({*(running.reader.source.name for running in self._running), *(self._late.names if self._late else ())})

    def close(self) -> None:
        """Close every source."""
        for running in self._running:
            running.reader.close()

    def _add(self, opened: "OpenSource") -> None:
        running = _Running(opened, self._make_reader)
        health = self._closed.pop(opened.source.name, None)
        if health is not None:
            health.failing_since_nanoseconds = None
            health.tell("")
            running.reader.health = health
        self._running.append(running)
        # Sources in threads come last, so that they read while the others do.
        self._running.sort(key=lambda running: running.reader.source.may_block)

    def _withdraw(self, running: _Running, meter: Meter, now: Instant) -> None:
        if not running.is_withdrawn:
            running.is_withdrawn = True
            meter.withdraw([spec.key for spec in running.specs], now)

    def _close(self, running: _Running, late: Late, now: Instant) -> None:
        source, health = running.reader.source, running.reader.health
        self._running.remove(running)
        try:
            running.reader.close(wait_seconds=0.0)
        except Exception as error:
            # What fails to be read may fail to be closed; the others go on.
            log.warning("%s: it could not be closed: %s: %s", source.name, type(error).__name__, error)
        reason = health.last_error.rstrip(".") or f"{source.name}: all that it metered is gone"
        health.tell(f"{reason}; it is closed, and looked for again, ten minutes apart at most")
        self._closed[source.name] = health
        # All that it metered was removed; a source that fails may have closed channels for other reasons.
        self._removed_keys[source.name] = running.gone if running.is_empty else set()
        self._lost_keys[source.name] = {spec.key for spec in running.specs} - running.gone
        log.warning("%s", health.last_error)
        late.watch(source.name, now.boottime_nanoseconds)


def _behind(reader: Reader, reading: CounterReading | PowerReading) -> int:
    """How late a value is: the whole read was, or one part of several in it."""
    return reader.late_nanoseconds + reading.late_nanoseconds


def _is_node_meter(spec: ChannelSpec) -> bool:
    return spec.key.device == NODE and spec.role is Role.METER


def _is_long_ago(since_nanoseconds: int | None, now: Instant) -> bool:
    silent_nanoseconds = SILENT_SECONDS_MAX * NANOSECONDS_PER_SECOND
    return since_nanoseconds is not None and now.boottime_nanoseconds - since_nanoseconds >= silent_nanoseconds
