"""Polling in the background: cadence, back-off, age, one at a time, and an end."""

import logging
import threading
from collections.abc import Callable

import pytest
from tests.agent.by_hand import SECOND, ByHand

from wattledger_agent.slow import BACK_OFF_SECONDS_MAX, Pace, Poller, PollError, in_thread

LONG_SECONDS = 30.0


def poller(
    poll: Callable[[], int], time: ByHand, *, cadence_seconds: float = 10.0, seconds_max: float = 60.0
) -> Poller[int]:
    """A started poller in a time by hand."""
    made = Poller(poll, name="bmc", cadence_seconds=cadence_seconds, seconds_max=seconds_max, pace=time.pace)
    made.start()
    return made


def failing(*outcomes: int | Exception) -> Callable[[], int]:
    """A poll with these outcomes, the last one again and again."""
    left = list(outcomes)

    def poll() -> int:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return poll


def test_a_value_is_given_once() -> None:
    """A power that is read twice would stand for two measurements."""
    time = ByHand()
    polled = poller(failing(1, 2), time)
    assert polled.take(time.now_nanoseconds).value == 1
    assert polled.take(time.advance(1)).value is None
    assert polled.take(time.advance(9)).value == 2


def test_the_age_grows_until_the_next_value() -> None:
    """It tells how old the figure beside it is."""
    time = ByHand()
    polled = poller(failing(1), time)
    ages = [polled.take(time.now_nanoseconds).age_seconds, polled.take(time.advance(9)).age_seconds]
    ages.append(polled.take(time.advance(2)).age_seconds)
    assert ages == [0.0, 9.0, 1.0]


def test_before_the_first_value_there_is_neither_value_nor_age() -> None:
    """And the reason is there at once."""
    time = ByHand()
    taken = poller(failing(PollError("bmc: refused")), time).take(time.now_nanoseconds)
    assert (taken.value, taken.age_seconds, taken.problem) == (None, None, "bmc: refused")


def test_the_reason_stays_until_a_poll_succeeds() -> None:
    """The last value's age goes on meanwhile."""
    time = ByHand()
    polled = poller(failing(1, PollError("bmc: away"), 2), time)
    polled.take(time.now_nanoseconds)
    taken = polled.take(time.advance(11))
    assert (taken.value, taken.age_seconds, taken.problem) == (None, 11.0, "bmc: away")
    taken = polled.take(time.advance(9))
    assert (taken.value, taken.problem) == (2, "")


def test_failures_make_the_pauses_grow_up_to_a_limit() -> None:
    """A dead controller is not hammered; one that comes back is polled at its cadence again."""
    time = ByHand()
    down = PollError("bmc: away")
    poller(failing(*[down] * 9, 1), time)
    time.advance(4000)
    assert time.pauses[:6] == [10, 20, 40, 80, 160, 320]
    assert time.pauses[6:10] == [BACK_OFF_SECONDS_MAX, BACK_OFF_SECONDS_MAX, BACK_OFF_SECONDS_MAX, 10]


def test_a_failure_may_ask_for_a_longer_pause() -> None:
    """Wrong credentials tried every ten seconds lock the account."""
    time = ByHand()
    poller(failing(PollError("bmc: wrong password", pause_seconds=900.0)), time)
    assert time.pauses == [900.0]


def test_an_answer_that_breaks_the_parser_is_a_failure_like_any_other() -> None:
    """Whatever a controller writes, the polling goes on."""
    time = ByHand()
    polled = poller(failing(ZeroDivisionError("by 0"), 7), time)
    assert "can't be understood (ZeroDivisionError: by 0)" in polled.take(time.now_nanoseconds).problem
    assert polled.take(time.advance(10)).value == 7


def test_polls_keep_to_their_cadence_whatever_they_take() -> None:
    """Cadence is from beginning to beginning; a poll of 58 s is followed by a rest, so that the controller is left alone."""
    time = ByHand()

    def slow(seconds: int) -> Callable[[], int]:
        def poll() -> int:
            time.now_nanoseconds += seconds * SECOND
            return 1

        return poll

    poller(slow(3), time)
    assert time.pauses == [7.0]
    time.pauses.clear()
    poller(slow(58), time)
    assert time.pauses == [5.0]


def test_a_value_that_nobody_took_in_time_is_dropped() -> None:
    """A power from before a suspend is not the power of now; its age is still told."""
    time = ByHand()
    polled = poller(failing(1, PollError("bmc: away")), time)
    taken = polled.take(time.advance(21))
    assert (taken.value, taken.age_seconds) == (None, 21.0)


def test_a_poll_that_never_returns_is_told_and_stays_the_only_one() -> None:
    """One session at a time: a second one is not begun beside it."""
    time = ByHand()
    begun: list[int] = []
    said: list[str] = []
    polled: list[Poller[int]] = []

    def poll() -> int:
        begun.append(time.now_nanoseconds)
        said.extend(polled[0].take(time.now_nanoseconds + seconds * SECOND).problem for seconds in (59, 61))
        return 1

    polled.append(Poller(poll, name="bmc", cadence_seconds=10.0, seconds_max=60.0, pace=time.pace))
    polled[0].start()
    assert said[0] == ""
    assert said[1].startswith("bmc: a poll has not returned for 61 s and no second one is begun")
    assert len(begun) == 1


def test_a_hanging_poll_delays_nobody() -> None:
    """In its real thread: take returns at once, stop too, and what is open is let go when the poll ends at last."""
    entered, leave, gone = threading.Event(), threading.Event(), threading.Event()

    def poll() -> int:
        entered.set()
        assert leave.wait(LONG_SECONDS)
        return 1

    polled = Poller(poll, name="bmc", cadence_seconds=0.01, seconds_max=1.0, let_go=gone.set)
    polled.start()
    assert entered.wait(LONG_SECONDS)
    assert polled.take(Pace().clock()).value is None
    polled.wait_for_first(0.01)
    leave.set()
    polled.wait_for_first(LONG_SECONDS)
    assert polled.take(Pace().clock()).value == 1
    polled.stop()
    assert gone.wait(LONG_SECONDS)
    polled.stop()


def test_stop_ends_the_thread_in_the_middle_of_a_pause() -> None:
    """An agent that is told to stop does not wait for a cadence."""
    before = set(threading.enumerate())
    polled = Poller(lambda: 1, name="bmc", cadence_seconds=3600.0, seconds_max=1.0)
    polled.start()
    polled.wait_for_first(LONG_SECONDS)
    ours = [thread for thread in threading.enumerate() if thread not in before and thread.name == "poll-bmc"]
    assert len(ours) == 1
    polled.stop()
    assert not ours[0].is_alive()


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_a_peek_takes_nothing_away(seconds: float) -> None:
    """What is looked at when a source is opened is still read afterwards."""
    time = ByHand()
    polled = poller(failing(5), time)
    assert polled.peek() == 5
    assert polled.take(time.advance(seconds)).value == 5


def test_a_farewell_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A session that stays open at the controller is one of the few that it has."""
    caplog.set_level(logging.INFO, "wattledger.agent")

    def fail() -> None:
        raise TimeoutError("the controller says nothing")

    stop = in_thread(lambda: 3600.0, fail, "poll-redfish")
    stop()
    assert caplog.messages == ["poll-redfish: its farewell failed: TimeoutError: the controller says nothing"]
