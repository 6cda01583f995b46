"""Where the system refuses threads (TasksMax is reached), the agent goes on: told once, counted, tried again.

No thread can have a stack of a pebibyte: asking for one is refused as any other thread is at the limit.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from tests.agent.metering import SECOND, counter, spec
from tests.agent.scripted import ScriptedSource

from wattledger_agent.inventory import Inventory, open_together
from wattledger_agent.kubelet import ASK_SECONDS, KubeletNames
from wattledger_agent.late import BACK_OFF_SECONDS, LateSources
from wattledger_agent.readings import ChannelSpec, SourceUnavailableError
from wattledger_agent.slow import Poller
from wattledger_agent.sources.lanes import Lanes
from wattledger_agent.threads import NoThreadError, start
from wattledger_agent.worker import ThreadedReader

CPU = spec()


@contextmanager
def no_threads() -> Iterator[None]:
    """No thread can be started."""
    usual = threading.stack_size(2**50)
    try:
        yield
    finally:
        threading.stack_size(usual)


def source() -> ScriptedSource:
    """One that may hang."""
    return ScriptedSource("nvidia", lambda now: [counter(CPU, now)], [CPU], may_block=True)


def wait_until_found(late: LateSources, second: int) -> Sequence[ChannelSpec]:
    """What an attempt that is under way finds."""
    for _ in range(2000):
        found = late.found(second * SECOND)
        if found:
            return found[0].specs
        threading.Event().wait(0.005)
    return ()


def test_a_refusal_is_told_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """Each second anew it would fill the journal."""
    caplog.set_level(logging.INFO, "wattledger.agent")
    with no_threads():
        for _ in range(3):
            with pytest.raises(NoThreadError, match="TasksMax"):
                start(lambda: None, "of-a-test")
    start(lambda: None, "of-a-test").join()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "can't start new thread" in caplog.messages[0]
    assert caplog.messages[1] == "the thread of-a-test could be started again"


def test_a_source_that_may_hang_is_not_read_meanwhile_and_then_is() -> None:
    """Each read that could not be begun is counted; the source is not at fault, and is not closed for it."""
    with no_threads():
        reader = ThreadedReader(source())
        for second in range(1, 4):
            reader.begin(second * SECOND)
            assert reader.finish(0.0) == ()
    assert (reader.health.reads, reader.health.failures) == (3, 3)
    assert (reader.health.failing_since_nanoseconds, reader.hung_since_nanoseconds) == (None, None)
    assert "source-nvidia can't be started" in reader.health.last_error
    reader.begin(4 * SECOND)
    assert reader.finish(60.0) == [counter(CPU, 4 * SECOND)]
    assert reader.health.last_error == ""
    reader.close()


def test_a_source_that_was_never_read_is_closed_all_the_same() -> None:
    """There is no thread to close it."""
    never = source()
    with no_threads():
        reader = ThreadedReader(never)
        reader.begin(SECOND)
        reader.close()
    assert never.closed


def test_who_looks_for_sources_tries_again() -> None:
    """It is the agent's main thread that begins the attempt."""
    late = LateSources(lambda name: source())
    late.watch("nvidia", 0)
    first, second = BACK_OFF_SECONDS[0], BACK_OFF_SECONDS[0] + BACK_OFF_SECONDS[1]
    with no_threads():
        assert late.found(first * SECOND) == []
        assert late.found(first * SECOND) == []
    assert late.found((second - 1) * SECOND) == []
    assert wait_until_found(late, second) == [CPU]


def test_a_source_that_can_not_be_opened_at_the_start_is_missing() -> None:
    """The others are opened, and this one is looked for."""
    inventory = Inventory([], [])
    with no_threads():
        open_together([source()], inventory, 60.0)
    (missing,) = inventory.missing
    assert (missing.source, inventory.opened) == ("nvidia", [])
    assert "TasksMax" in missing.reason


def test_a_poller_says_why_its_source_is_not_there() -> None:
    """It is looked for again as any other that could not be opened."""
    poller: Poller[int] = Poller(lambda: 1, name="ipmi", cadence_seconds=10.0, seconds_max=10.0)
    with no_threads(), pytest.raises(SourceUnavailableError) as refusal:
        poller.start()
    assert refusal.value.reason.startswith("ipmi: the thread poll-ipmi can't be started")
    assert "TasksMax" in refusal.value.remedy
    poller.stop()


def test_lanes_lose_no_answer_that_came_late() -> None:
    """What is said by one that hung waits for a run that can be done."""
    lanes: Lanes[str] = Lanes("lane-under-test", 0.1)
    released = threading.Event()
    begun: list[int] = []

    def hang() -> str:
        begun.append(1)
        released.wait()
        return "late" if len(begun) == 1 else "fresh"

    assert lanes.run({"a": hang}) == {"a": None}
    lanes.close()
    released.set()
    while lanes.hanging:
        threading.Event().wait(0.005)
    with no_threads(), pytest.raises(NoThreadError):
        lanes.run({"a": hang, "b": lambda: "b"})
    assert lanes.run({"a": hang, "b": lambda: "b"}) == {"a": "late", "b": "b"}
    lanes.close()


def test_pods_keep_their_uids_until_the_kubelet_can_be_asked() -> None:
    """Names are for people: no reading waits for them."""
    names = KubeletNames(lambda: b'{"items": [{"metadata": {"uid": "u", "name": "web", "namespace": "shop"}}]}')
    with no_threads():
        names.look(SECOND, has_unknown=True)
    assert (dict(names.names), "TasksMax" in names.problem) == ({}, True)
    names.look(round((2 + ASK_SECONDS) * SECOND), has_unknown=True)
    names.wait(60.0)
    assert (set(names.names), names.problem) == ({"u"}, "")
