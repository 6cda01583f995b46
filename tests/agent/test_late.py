"""Sources that are not there are looked for again: more and more seldom, beside the sampler, and one attempt at a time."""

import logging
from collections.abc import Callable, Sequence

import pytest
from tests.agent.metering import SECOND, counter, spec
from tests.agent.scripted import ScriptedSource

from wattledger_agent.late import LateSources
from wattledger_agent.readings import ChannelSpec, Reading, Source, SourceUnavailableError
from wattledger_agent.sampler import OpenSource

GPU = spec("gpu/GPU-1", source="nvidia", domain="board")
MINUTE = 60 * SECOND


class AbsentSource(ScriptedSource):
    """A source that can be opened from some attempt on. opened: how often one was tried."""

    def __init__(self, opened: list[int], works_from: int) -> None:
        super().__init__("nvidia", self._one, [GPU], said=["one GPU has no counter"])
        self._opened = opened
        self._works_from = works_from

    def open(self) -> Sequence[ChannelSpec]:
        """The specs, or an error."""
        self._opened.append(len(self._opened))
        if len(self._opened) < self._works_from:
            raise SourceUnavailableError("no driver.", "Load it.")
        return super().open()

    def _one(self, now: int) -> Sequence[Reading]:
        return [counter(GPU, 1)]


class Beside:
    """Attempts that end when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, run: Callable[[], None], name: str) -> None:
        """Keep it."""
        assert name == "open-nvidia"
        self.waiting.append(run)

    def end(self) -> None:
        """Let the oldest attempt end."""
        self.waiting.pop(0)()


def at_once(run: Callable[[], None], name: str) -> None:
    """An attempt that takes no time."""
    run()


def attempts(late: LateSources, until: int, opened: list[int]) -> tuple[list[int], list[OpenSource]]:
    """At which seconds an attempt was begun, with a tick a second, and what was found."""
    begun: list[int] = []
    found: list[OpenSource] = []
    for second in range(until):
        before = len(opened)
        found += late.found(second * SECOND)
        begun += [second] * (len(opened) - before)
    return begun, found


def test_attempts_grow_rarer_up_to_ten_minutes() -> None:
    """One, two and five minutes after the failure before, then each ten."""
    opened: list[int] = []
    late = LateSources(lambda name: AbsentSource(opened, 100), at_once)
    late.watch("nvidia", 0)
    begun, found = attempts(late, 2500, opened)
    assert not found
    # A failure is seen a tick after it.
    assert begun == [60, 181, 482, 1083, 1684, 2285]


def test_what_is_found_is_handed_over_once_with_its_notes(caplog: pytest.LogCaptureFixture) -> None:
    """A new source is made for each attempt, and none after that."""
    opened: list[int] = []
    made: list[Source] = []

    def make(name: str) -> Source:
        made.append(AbsentSource(opened, 2))
        return made[-1]

    late = LateSources(make, at_once)
    late.watch("nvidia", 0)
    with caplog.at_level(logging.INFO):
        begun, found = attempts(late, 2000, opened)
    assert begun == [60, 181]
    assert [(one.source, list(one.specs)) for one in found] == [(made[1], [GPU])]
    assert caplog.messages == ["nvidia: it can be read now", "one GPU has no counter"]


def test_an_attempt_that_hangs_is_the_only_one(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, costs no tick anything, and counts if it ends after all."""
    opened: list[int] = []
    beside = Beside()
    late = LateSources(lambda name: AbsentSource(opened, 1), beside)
    late.watch("nvidia", 0)
    with caplog.at_level(logging.WARNING):
        assert not any(late.found(second * SECOND) for second in range(4000))
    assert len(beside.waiting) == 1
    assert ["has not opened within 30 s" in message for message in caplog.messages] == [True]
    beside.end()
    assert [one.source.name for one in late.found(4000 * SECOND)] == ["nvidia"]
    assert late.found(9000 * SECOND) == []


def test_what_can_not_be_made_is_not_looked_for() -> None:
    """The estimate stands in for sensors, and is none."""
    asked: list[str] = []
    late = LateSources(lambda name: asked.append(name), at_once)
    late.watch("estimate", 0)
    for second in range(1000):
        assert late.found(second * SECOND) == []
    assert asked == ["estimate"]


def test_attempts_run_in_threads_of_their_own() -> None:
    """As the agent does: the tick that begins one does not wait for it."""
    opened: list[int] = []
    late = LateSources(lambda name: AbsentSource(opened, 1))
    late.watch("nvidia", 0)
    found: list[OpenSource] = []
    tick = 0
    while not found:
        tick += 1
        found = late.found(MINUTE + tick)
    assert opened == [0]
