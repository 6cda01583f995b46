"""Tasks in a helper thread: one that hangs is left behind, the others go on, and its answer is not lost."""

import threading
from collections.abc import Callable

import pytest

from wattledger_agent.sources.lanes import Lanes

PATIENCE_SECONDS = 0.25


def helpers() -> int:
    """How many helper threads there are."""
    return sum(thread.name == "lane-under-test" for thread in threading.enumerate())


@pytest.fixture
def lanes() -> Lanes[str]:
    """Lanes that lose patience soon."""
    return Lanes("lane-under-test", PATIENCE_SECONDS)


def answering(answer: str) -> Callable[[], str]:
    """A task that returns this."""
    return lambda: answer


def held(event: threading.Event, answer: str = "late") -> Callable[[], str]:
    """A task that hangs until the event."""

    def wait() -> str:
        event.wait()
        return answer

    return wait


def test_tasks_are_done_in_their_order_in_one_thread() -> None:
    """None of them hangs: one helper does them all, run after run."""
    lanes: Lanes[str] = Lanes("lane-under-test", 60.0)
    done: list[tuple[str, int]] = []

    def task(name: str) -> Callable[[], str]:
        def note() -> str:
            done.append((name, threading.get_ident()))
            return name

        return note

    for _ in range(3):
        assert lanes.run({name: task(name) for name in "abc"}) == {"a": "a", "b": "b", "c": "c"}
    assert [name for name, _ in done] == list("abcabcabc")
    assert len({thread for _, thread in done} - {threading.get_ident()}) == 1
    assert lanes.hanging == frozenset()
    lanes.close()


def test_a_task_that_hangs_costs_itself_alone(lanes: Lanes[str]) -> None:
    """Those after it are done in the same run, and in the next one it is not begun again."""
    released = threading.Event()
    begun = []

    def hang() -> str:
        begun.append(1)
        released.wait()
        return "late"

    tasks = {"a": answering("a"), "b": hang, "c": answering("c")}
    for _ in range(3):
        assert lanes.run(tasks) == {"a": "a", "b": None, "c": "c"}
        assert lanes.hanging == {"b"}
    assert begun == [1]
    assert helpers() == 2
    released.set()
    _wait(lambda: not lanes.hanging)
    # Its answer is that of the next run; then it is begun anew.
    assert lanes.run(tasks) == {"a": "a", "b": "late", "c": "c"}
    assert begun == [1]
    assert lanes.run(tasks) == {"a": "a", "b": "late", "c": "c"}
    assert begun == [1, 1]
    lanes.close()
    _wait(lambda: helpers() == 0)


def test_what_came_late_is_forgotten_when_the_lanes_are_closed(lanes: Lanes[str]) -> None:
    """What is opened anew is not told of what was before."""
    released = threading.Event()
    assert lanes.run({"a": held(released)}) == {"a": None}
    released.set()
    _wait(lambda: not lanes.hanging)
    lanes.close()
    assert lanes.run({"a": answering("fresh")}) == {"a": "fresh"}
    lanes.close()


def test_all_tasks_may_hang_and_no_more_threads_than_that_are_left_behind(lanes: Lanes[str]) -> None:
    """A driver that holds everything costs one thread for each device, however long it lasts."""
    released = threading.Event()
    tasks = {name: held(released) for name in "ab"}
    for _ in range(4):
        assert lanes.run(tasks) == dict.fromkeys("ab")
    assert helpers() <= 3
    released.set()
    _wait(lambda: not lanes.hanging)
    assert lanes.run(tasks) == dict.fromkeys("ab", "late")
    lanes.close()
    _wait(lambda: helpers() == 0)


def test_what_a_task_raises_comes_through_after_the_others_were_done(lanes: Lanes[str]) -> None:
    """Nobody waits for it, and the lanes can be used again."""
    done = []

    def fail() -> str:
        raise OSError(5, "Input/output error")

    def note() -> str:
        done.append(1)
        return "b"

    with pytest.raises(OSError, match="Input/output"):
        lanes.run({"a": fail, "b": note})
    assert done == [1]
    assert lanes.run({"b": note}) == {"b": "b"}
    lanes.close()


def test_nothing_to_do_is_done_at_once(lanes: Lanes[str]) -> None:
    """And a late task that fails is simply begun anew."""
    assert lanes.run({}) == {}
    released = threading.Event()

    def fail_late() -> str:
        released.wait()
        raise OSError(5, "Input/output error")

    assert lanes.run({"a": fail_late}) == {"a": None}
    released.set()
    _wait(lambda: not lanes.hanging)
    assert lanes.run({"a": answering("a")}) == {"a": "a"}
    lanes.close()


def _wait(condition: Callable[[], bool]) -> None:
    """Wait until it holds, for a minute at most."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it has not come to that")
