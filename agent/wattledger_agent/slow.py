"""Polls what is slow in the background, so that a sample never waits for a management controller or a vendor's command.

Knows nothing of what is polled, and keeps no queue: only the newest value counts. One poll is under way at a time, whatever
happens, and after failures the pauses grow.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from wattledger_agent.readings import NANOSECONDS_PER_SECOND, SourceUnavailableError
from wattledger_agent.threads import NoThreadError, start

log = logging.getLogger("wattledger.agent")

Value = TypeVar("Value")

# A management controller that restarts is away for some five minutes; found again within ten, little is lost, and one that
# is broken for good is asked 144 times a day.
BACK_OFF_SECONDS_MAX = 600.0

# After wrong credentials: controllers lock an account after a few tries within some minutes.
LOCKOUT_SECONDS = 900.0

# How long `stop` waits for the thread. One that hangs in a poll is left behind: it is a daemon.
FAREWELL_SECONDS = 3.0


class PollError(Exception):
    """A poll gave no value; the text says what happened, where, with which value, and what to do. No full stop at its end.

    pause_seconds: at least this long until the next poll; 0: as the back-off says.
    """

    def __init__(self, reason: str, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


def unavailable(problem: str, remedy: str) -> SourceUnavailableError:
    """Why a source whose first poll failed is not offered. remedy: a sentence, where the problem names none after `; `."""
    reason, _, told = problem.partition("; ")
    return SourceUnavailableError(f"{reason}.", f"{told[:1].upper()}{told[1:]}." if told else remedy)


class Background(Protocol):
    """Something that runs a step again and again beside the caller."""

    def __call__(self, step: Callable[[], float], farewell: Callable[[], None], name: str) -> Callable[[], None]:
        """Run step now, then each time after as many seconds as it returned, until the function that is returned is called.

        farewell is run after the last step, in the same thread.
        """


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> int:
        """Nanoseconds of CLOCK_BOOTTIME."""


def in_thread(step: Callable[[], float], farewell: Callable[[], None], name: str) -> Callable[[], None]:
    """Run in a daemon thread; see Background. Raises SourceUnavailableError where none can be started."""
    stopping = threading.Event()

    def run() -> None:
        pause = step()
        while not stopping.wait(pause):
            pause = step()
        try:
            farewell()
        except Exception as error:
            # Nothing depends on it any more: the controller lets go of a session that nobody uses.
            log.info("%s: its farewell failed: %s: %s", name, type(error).__name__, error)

    try:
        thread = start(run, name)
    except NoThreadError as error:
        raise unavailable(f"{name.removeprefix('poll-')}: {error}", "") from error

    def stop() -> None:
        stopping.set()
        thread.join(FAREWELL_SECONDS)

    return stop


def boottime_nanoseconds() -> int:
    """The time that the sampler gives its readings."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Pace:
    """How time passes for a poller: what drives it, and its clock. Tests put their own in the place of both."""

    background: Background = in_thread
    clock: Clock = boottime_nanoseconds


@dataclass(frozen=True, slots=True)
class Taken(Generic[Value]):
    """What there is to say at a read.

    value: the newest value, if it came since the read before; else None. age_seconds: of the newest value; None before the
    first. problem: why there is no newer one, if the last poll failed or does not return; else empty.
    """

    value: Value | None
    age_seconds: float | None
    problem: str


class Poller(Generic[Value]):
    """Polls on its own cadence and keeps the last value.

    poll: returns a value or raises PollError (what else it raises is a failure too), and ends by itself within seconds_max.
    let_go: ends what the polls keep open, after the last one. cadence_seconds: from the beginning of a poll to that of the
    next; where a poll takes longer, the next begins half a cadence after its end.
    """

    def __init__(
        self,
        poll: Callable[[], Value],
        *,
        name: str,
        cadence_seconds: float,
        seconds_max: float,
        pace: Pace | None = None,
        let_go: Callable[[], None] = lambda: None,
    ) -> None:
        self._poll = poll
        self._name = name
        self._cadence_seconds = cadence_seconds
        self._seconds_max = seconds_max
        pace = Pace() if pace is None else pace
        self._background = pace.background
        self._clock = pace.clock
        self._let_go = let_go
        self._news = threading.Condition()
        self._stop: Callable[[], None] | None = None
        self._value: Value | None = None
        self._value_nanoseconds = 0
        self._is_new = False
        self._problem = ""
        self._failures = 0
        self._polls = 0
        self._begun_nanoseconds: int | None = None

    def start(self) -> None:
        """Begin to poll."""
        self._stop = self._background(self.step, self._let_go, f"poll-{self._name}")

    def stop(self) -> None:
        """End; harmless if it was not begun. A poll under way is waited for shortly."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def step(self) -> float:
        """Poll once; returns the seconds until the next poll."""
        begun = self._clock()
        with self._news:
            self._begun_nanoseconds = begun
        pause_seconds = 0.0
        value: Value | None = None
        problem = ""
        try:
            value = self._poll()
        except PollError as error:
            problem, pause_seconds = str(error), error.pause_seconds
        except Exception as error:
            # A poll reads what foreign programs and controllers write: no answer of theirs may end the polling.
            problem = f"{self._name}: the answer can't be understood ({type(error).__name__}: {error}); report it"
        ended = self._clock()
        with self._news:
            self._begun_nanoseconds = None
            self._polls += 1
            self._problem = problem
            if problem:
                self._failures += 1
            else:
                self._failures = 0
                self._value, self._value_nanoseconds, self._is_new = value, ended, True
            self._news.notify_all()
            return self._pause(max(0, ended - begun) / NANOSECONDS_PER_SECOND, pause_seconds)

    def wait_for_first(self, seconds_max: float) -> None:
        """Wait until the first poll has ended, but not longer than this."""
        with self._news:
            self._news.wait_for(lambda: self._polls > 0, seconds_max)

    def peek(self) -> Value | None:
        """The newest value, which stays new for `take`; None before the first."""
        with self._news:
            return self._value

    def problem(self) -> str:
        """Why the last poll failed; empty if it did not."""
        with self._news:
            return self._problem

    def take(self, now_nanoseconds: int) -> Taken[Value]:
        """What has come since the last call. A value older than two cadences is dropped: it is no power of now."""
        with self._news:
            age = None
            if self._value is not None:
                age = max(0, now_nanoseconds - self._value_nanoseconds) / NANOSECONDS_PER_SECOND
            value = self._value if self._is_new and age is not None and age <= 2 * self._cadence_seconds else None
            self._is_new = False
            return Taken(value, age, self._problem or self._overdue(now_nanoseconds))

    def _overdue(self, now_nanoseconds: int) -> str:
        """Why there is no value where a poll has not returned though it should have."""
        if self._begun_nanoseconds is None:
            return ""
        seconds = (now_nanoseconds - self._begun_nanoseconds) / NANOSECONDS_PER_SECOND
        if seconds <= max(self._cadence_seconds, self._seconds_max):
            return ""
        return f"{self._name}: a poll has not returned for {seconds:.0f} s and no second one is begun; see dmesg"

    def _pause(self, took_seconds: float, least_seconds: float) -> float:
        if self._failures == 0:
            return max(self._cadence_seconds - took_seconds, self._cadence_seconds / 2, least_seconds)
        # The first failure may be chance; the exponent is bounded so that no number grows without end.
        doubled = self._cadence_seconds * 2.0 ** min(self._failures - 1, 30)
        return max(min(doubled, max(BACK_OFF_SECONDS_MAX, self._cadence_seconds)), least_seconds)
