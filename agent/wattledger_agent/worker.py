"""Reads one source with a deadline, so that a hung driver or management controller can't stop the others.

A source that may block is read in a thread of its own; a read that misses its deadline leaves the source out until it
returns. It is then asked anew: after one slow read the fresh answer counts. If that one is late too, the answer before is
passed on with how late it is, so that a source which always needs more than its share of a period is metered, a row behind.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wattledger_agent.readings import Gone, Offer, Reading, Source, TryAgain
from wattledger_agent.threads import NoThreadError, start

ERROR_CHARACTERS_MAX = 512  # As many as the wire carries for a source's last error.


@dataclass(slots=True)
class SourceHealth:
    """What every source gets for free: counts since the agent's start, the last error, the duration of the last read."""

    source: str
    reads: int = 0
    failures: int = 0
    deadline_misses: int = 0
    last_error: str = ""
    read_nanoseconds: int = 0
    # Since when every read has raised; None if the last one did not.
    failing_since_nanoseconds: int | None = None

    def tell(self, error: str) -> None:
        """Set the last error; empty for none."""
        self.last_error = _line(error)

    def succeeded(self, readings: Sequence[Reading], read_nanoseconds: int) -> None:
        """Count a read that returned; a channel that it could not read is its last error, not a failure of the source."""
        self.reads += 1
        self.failing_since_nanoseconds = None
        self.read_nanoseconds = read_nanoseconds
        self.last_error = next((_line(r.reason) for r in readings if isinstance(r, TryAgain)), "")

    def refused(self, error: str) -> None:
        """Count a read that could not be begun, for a reason that is not the source's."""
        self.reads += 1
        self.failures += 1
        self.last_error = _line(error)

    def failed(self, error: str, now_nanoseconds: int) -> None:
        """Count a read that raised."""
        if self.failing_since_nanoseconds is None:
            self.failing_since_nanoseconds = now_nanoseconds
        self.reads += 1
        self.failures += 1
        self.last_error = _line(error)


class InlineReader:
    """Reads a source in the caller's thread: for sources that never block."""

    late_nanoseconds = 0
    hung_since_nanoseconds: int | None = None

    def __init__(self, source: Source, timer: Callable[[], int] = time.perf_counter_ns) -> None:
        self.source = source
        self.health = SourceHealth(source.name)
        self._timer = timer

    def begin(self, now_nanoseconds: int) -> None:
        """Start a read at the time that its readings will have."""
        self._now_nanoseconds = now_nanoseconds

    def finish(self, deadline_seconds: float) -> Sequence[Reading]:
        """The readings; empty if the source failed."""
        return _read(self.source, self._now_nanoseconds, self.health, self._timer)

    def close(self, wait_seconds: float = 1.0) -> None:
        """Close the source."""
        self.source.close()


class ThreadedReader:
    """Reads a source in a daemon thread of its own, which is left behind if it never returns.

    late_nanoseconds: how long before the last `begin` the readings that `finish` returned were asked for; 0: in time.
    """

    def __init__(self, source: Source, timer: Callable[[], int] = time.perf_counter_ns) -> None:
        self.source = source
        self.health = SourceHealth(source.name)
        self._timer = timer
        self._wanted = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._busy = False
        self._begun = False
        self._stopping = False
        self._now_nanoseconds = 0
        self._readings: Sequence[Reading] = ()
        self._late: Sequence[Reading] = ()
        self._late_asked_nanoseconds = 0
        self.late_nanoseconds = 0
        self._started = self._returned = 0
        self._thread: threading.Thread | None = None

    def begin(self, now_nanoseconds: int) -> None:
        """Start a read, unless the one before still hangs, or no thread may be had for it."""
        if self._thread is None:
            try:
                self._thread = start(self._run, f"source-{self.source.name}")
            except NoThreadError as error:
                # Nothing is wrong with the source, so that it stays open; the next read tries again.
                self._begun = False
                self.health.refused(f"{self.source.name}: {error}")
                return
        self._begun = not self._busy or self._done.acquire(blocking=False)
        if not self._begun:
            return
        if self._busy:
            self._late, self._late_asked_nanoseconds = self._readings, self._now_nanoseconds
        self._busy = True
        self._now_nanoseconds = now_nanoseconds
        self._started += 1
        self._wanted.release()

    def finish(self, deadline_seconds: float) -> Sequence[Reading]:
        """The readings, if the read begun returns within the deadline; else those of the one before, if that was late too.

        Waits once for each read: while one hangs, later ticks go on without a wait.
        """
        self.late_nanoseconds = 0
        if not self._begun:
            return ()
        self._begun = False
        late, self._late = self._late, ()
        if not self._done.acquire(timeout=max(deadline_seconds, 0.0)):
            self.health.deadline_misses += 1
            self.health.last_error = (
                f"{self.source.name}: a read has not returned within {deadline_seconds:.1f} s; the other sources go on, "
                "and its answer is used when it comes. "
                "Look for a hung driver (dmesg) or management controller."
            )
            self.late_nanoseconds = self._now_nanoseconds - self._late_asked_nanoseconds if late else 0
            return late
        self._busy = False
        # That a part is gone, or came back, is said once.
        once = [reading for reading in late if isinstance(reading, Gone | Offer)]
        return [*once, *self._readings] if once else self._readings

    @property
    def is_reading(self) -> bool:
        """Whether a read is under way."""
        return self._started != self._returned

    @property
    def hung_since_nanoseconds(self) -> int | None:
        """When the read under way was asked for; None if there is none."""
        return self._now_nanoseconds if self.is_reading else None

    def close(self, wait_seconds: float = 1.0) -> None:
        """Let the thread end after the read under way; it closes the source then. wait_seconds: for its end."""
        self._stopping = True
        self._wanted.release()
        if self._thread is None:
            self.source.close()
        elif not self._busy:
            self._thread.join(timeout=wait_seconds)

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._stopping:
                self.source.close()
                return
            self._readings = _read(self.source, self._now_nanoseconds, self.health, self._timer)
            self._done.release()
            self._returned += 1


Reader = InlineReader | ThreadedReader


def reader_for(source: Source) -> Reader:
    """The reader that fits the source."""
    return ThreadedReader(source) if source.may_block else InlineReader(source)


def _line(error: str) -> str:
    """An error as the wire takes it: a path or a driver's text may hold bytes that are no text."""
    return error[:ERROR_CHARACTERS_MAX].encode(errors="backslashreplace").decode()[:ERROR_CHARACTERS_MAX]


def _read(source: Source, now_nanoseconds: int, health: SourceHealth, timer: Callable[[], int]) -> Sequence[Reading]:
    started = timer()
    try:
        readings = source.read(now_nanoseconds)
    except Exception as error:
        # Whatever a driver's binding raises, the other sources go on: the failure is counted and told, never a number.
        health.failed(f"{source.name}: {type(error).__name__}: {error}", now_nanoseconds)
        return ()
    health.succeeded(readings, timer() - started)
    return readings
