"""Looks again for sources that could not be opened, or that have failed for good: a driver may be loaded hours later.

Reads no sensor and waits for nothing: each attempt has a thread of its own, and one that hangs is the last of its source.
Which sources there are is the inventory's knowledge.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from wattledger_agent.inventory import OPEN_SECONDS_MAX, Missing, try_open
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, ChannelSpec, Source
from wattledger_agent.sampler import OpenSource
from wattledger_agent.threads import NoThreadError, start

log = logging.getLogger("wattledger.agent")

# A driver that is being loaded or a controller that starts anew is found soon; what is never there costs 144 looks a day.
BACK_OFF_SECONDS = (60, 120, 300, 600)

# Runs a function beside the caller, under a name.
Beside = Callable[[Callable[[], None], str], None]


@dataclass(slots=True)
class _Watched:
    """A source that is looked for.

    due_nanoseconds: of the next attempt, or of the one under way. source, outcome: that one, and what came of it.
    """

    due_nanoseconds: int
    attempts: int = 0
    source: Source | None = None
    outcome: list[Sequence[ChannelSpec] | Missing] = field(default_factory=list)
    is_overdue: bool = False


def in_thread(run: Callable[[], None], name: str) -> None:
    """Run in a daemon thread, which is left behind if it never returns. Raises NoThreadError."""
    start(run, name)


class LateSources:
    """The sources that are looked for.

    make: a source by its name, not opened yet; None if there is none such to look for. beside: runs an attempt.
    """

    def __init__(self, make: Callable[[str], Source | None], beside: Beside = in_thread) -> None:
        self._make = make
        self._beside = beside
        self._watched: dict[str, _Watched] = {}
        self._next_look_nanoseconds = 0

    @property
    def names(self) -> Collection[str]:
        """The sources that are looked for."""
        return self._watched.keys()

    def watch(self, name: str, now_nanoseconds: int) -> None:
        """Look for a source from now on until it is found."""
        self._watched[name] = _Watched(_later(now_nanoseconds, 0))
        self._next_look_nanoseconds = 0

    def found(self, now_nanoseconds: int) -> list[OpenSource]:
        """Return what has been opened since the last call, and begin the attempts that are due. Never waits."""
        if now_nanoseconds < self._next_look_nanoseconds or not self._watched:
            return []
        found = []
        for name, watched in list(self._watched.items()):
            if watched.outcome:
                opened = self._settle(name, watched, now_nanoseconds)
                found += [opened] if opened is not None else []
            elif watched.source is not None:
                _tell_overdue(name, watched, now_nanoseconds)
            elif now_nanoseconds >= watched.due_nanoseconds:
                self._begin(name, watched)
        waiting = [watched for watched in self._watched.values() if watched.source is None]
        # While an attempt is under way each tick looks for its end.
        is_idle = len(waiting) == len(self._watched)
        self._next_look_nanoseconds = min((each.due_nanoseconds for each in waiting), default=0) if is_idle else 0
        return found

    def _begin(self, name: str, watched: _Watched) -> None:
        source = self._make(name)
        if source is None:
            del self._watched[name]
            return
        watched.source, watched.outcome, watched.is_overdue = source, [], False
        outcome = watched.outcome
        try:
            self._beside(lambda: outcome.append(try_open(source)), f"open-{name}")
        except NoThreadError as error:
            outcome.append(Missing(name, f"{name}: {error}.", ""))

    def _settle(self, name: str, watched: _Watched, now_nanoseconds: int) -> OpenSource | None:
        source, outcome = watched.source, watched.outcome[0]
        watched.source, watched.outcome = None, []
        if source is None or isinstance(outcome, Missing):
            watched.attempts += 1
            watched.due_nanoseconds = _later(now_nanoseconds, watched.attempts)
            return None
        del self._watched[name]
        log.info("%s: it can be read now", name)
        for note in source.notes():
            log.info("%s", note)
        return OpenSource(source, outcome)


def _tell_overdue(name: str, watched: _Watched, now_nanoseconds: int) -> None:
    late = now_nanoseconds - watched.due_nanoseconds > OPEN_SECONDS_MAX * NANOSECONDS_PER_SECOND
    if late and not watched.is_overdue:
        watched.is_overdue = True
        log.warning(
            "%s: it has not opened within %.0f s; the other sources go on. Look for a hung driver (dmesg).",
            name,
            OPEN_SECONDS_MAX,
        )


def _later(now_nanoseconds: int, attempts: int) -> int:
    return now_nanoseconds + BACK_OFF_SECONDS[min(attempts, len(BACK_OFF_SECONDS) - 1)] * NANOSECONDS_PER_SECOND
