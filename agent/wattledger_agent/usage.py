"""Turns cumulative CPU times of workloads into what each used in the very spans over which channels counted energy.

Divides nothing and reads nothing. A channel that was read in every row has a span of one row; one that is slow, or could not
be read for a while, has the sum of the rows since it was.
"""

from collections.abc import Mapping
from dataclasses import replace

from wattledger_agent.attribution import Usage
from wattledger_agent.readings import WorkloadsReading

# A channel that was not read for this many rows begins anew: its next step is nobody's. At a row a second these are ten
# minutes, twenty cadences of a slow management controller.
SPAN_ROWS_MAX = 600


class Usages:
    """The spans of one host. tick: readings so far.

    A workload's time counts from the first reading that has it; one that is gone has its time up to its last reading, in
    spans that began before.
    """

    def __init__(self) -> None:
        self.tick = 0
        self._last: WorkloadsReading | None = None
        self._since: dict[int, int] = {}
        self._spans: dict[int, Usage] = {}

    def advance(self, reading: WorkloadsReading) -> Usage | None:
        """Take the row's reading; return what was used since the one before, None if that is not known."""
        last, self._last = self._last, reading
        usage = None if last is None else _between(last, reading)
        if usage is None:
            # Nothing joins what was before: a package came or went, or this is the first.
            self._spans.clear()
        else:
            for since, span in self._spans.items():
                self._spans[since] = _joined(span, usage)
            self._spans[self.tick] = usage
        self.tick += 1
        return usage

    def span(self, channel: int) -> Usage | None:
        """Return what was used since the channel's step before, now that it has another; None if nothing of it is known.

        Equal spans are one object.
        """
        since = self._since.get(channel)
        self._since[channel] = self.tick
        return None if since is None else self._spans.get(since)

    def forget(self) -> None:
        """Let go of spans that no channel waits for; once a row, after its steps."""
        if any(self.tick - since > SPAN_ROWS_MAX for since in self._since.values()):
            self._since = {channel: since for channel, since in self._since.items() if self.tick - since <= SPAN_ROWS_MAX}
        wanted = set(self._since.values())
        self._spans = {since: span for since, span in self._spans.items() if since in wanted}


def _between(before: WorkloadsReading, after: WorkloadsReading) -> Usage | None:
    if len(before.busy_nanoseconds) != len(after.busy_nanoseconds):
        return None
    used = {}
    earlier = before.cpu_nanoseconds
    for number, time in after.cpu_nanoseconds.items():
        # Without an earlier value, or with one that fell (a group made anew under its name), time begins here.
        delta = time - earlier.get(number, time)
        used[number] = delta if delta > 0 else 0
    return Usage(
        _grown(before.busy_nanoseconds, after.busy_nanoseconds),
        _grown(before.idle_nanoseconds, after.idle_nanoseconds),
        _exclusive(used, after.within),
        after.packages,
        after.reservations,
        _exclusive(after.memory_bytes, after.within),
        after.memory_used_bytes,
    )


def _exclusive(values: Mapping[int, int], within: Mapping[int, int]) -> Mapping[int, int]:
    """Return what each has beside the workloads inside of it, so that nothing counts twice."""
    if not within or not values:
        return values
    rest = dict(values)
    for inner, outer in within.items():
        if outer in rest:
            rest[outer] -= values.get(inner, 0)
    return {number: max(0, value) for number, value in rest.items()}


def _grown(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    # The kernel's documentation says that some states may fall; such a state has not advanced.
    return tuple(max(0, late - early) for early, late in zip(before, after, strict=True))


def _joined(span: Usage, usage: Usage) -> Usage:
    """Return both, one after the other; what is not a time is as it was last."""
    return replace(
        usage,
        busy_nanoseconds=tuple(a + b for a, b in zip(span.busy_nanoseconds, usage.busy_nanoseconds, strict=True)),
        idle_nanoseconds=tuple(a + b for a, b in zip(span.idle_nanoseconds, usage.idle_nanoseconds, strict=True)),
        cpu_nanoseconds=_sums(span.cpu_nanoseconds, usage.cpu_nanoseconds),
    )


def _sums(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    sums = dict(one)
    for number, time in other.items():
        sums[number] = sums.get(number, 0) + time
    return sums
