"""A source that hangs or fails costs itself alone."""

import threading
import time
from collections.abc import Callable, Sequence

from wattledger_agent.readings import ChannelKey, ChannelSpec, CounterReading, Gone, Offer, Reading, TryAgain
from wattledger_agent.worker import InlineReader, ThreadedReader, reader_for
from wattledger_protos.v1 import telemetry_pb2 as pb

KEY = ChannelKey("cpu/0", "package", "scripted")


class ScriptedSource:
    """A source whose reads are given as functions of the time."""

    name = "scripted"

    def __init__(self, read: Callable[[int], Sequence[Reading]], *, may_block: bool = False) -> None:
        self.may_block = may_block
        self._read = read
        self.closed = threading.Event()

    def open(self) -> Sequence[ChannelSpec]:
        return ()

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        return self._read(now_nanoseconds)

    def notes(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        self.closed.set()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds, for a minute at most."""
    until = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def first_readings(reader: ThreadedReader, now: int) -> tuple[Sequence[Reading], int]:
    """Read until something is told; that, and the time of the read after it."""
    readings: Sequence[Reading] = ()
    while not readings:
        reader.begin(now)
        readings = reader.finish(5.0)
        now += 1
    return readings, now


def test_a_reading_comes_through_with_the_time_of_its_begin() -> None:
    """Both readers give the source the time at which the read was begun."""
    for may_block in (False, True):
        reader = reader_for(ScriptedSource(lambda now: [CounterReading(KEY, now)], may_block=may_block))
        reader.begin(42)
        assert reader.finish(5.0) == [CounterReading(KEY, 42)]
        assert (reader.health.reads, reader.health.failures) == (1, 0)
        reader.close()


def test_a_source_that_raises_is_counted_and_yields_no_reading() -> None:
    """A failed read is no reading, never a zero, and its error is told."""

    def fail(now: int) -> Sequence[Reading]:
        raise OSError(5, "Input/output error")

    reader = InlineReader(ScriptedSource(fail))
    reader.begin(1)
    assert reader.finish(1.0) == ()
    assert (reader.health.reads, reader.health.failures) == (1, 1)
    assert "Input/output error" in reader.health.last_error


def test_an_error_that_is_no_text_can_be_sent() -> None:
    """What a driver or a path says goes into Live, which takes nothing but text."""
    reader = InlineReader(ScriptedSource(lambda now: [TryAgain(KEY, "no data in \udcff")]))
    reader.begin(1)
    reader.finish(1.0)
    live = pb.LiveSource(last_error=reader.health.last_error)
    assert live.last_error == "no data in \\udcff"


def test_a_channel_that_could_not_be_read_is_the_last_error_until_it_can() -> None:
    """The last error is that of the last read, so a repaired channel clears it."""
    answers: list[Sequence[Reading]] = [[TryAgain(KEY, "no data")], [CounterReading(KEY, 1)]]
    reader = InlineReader(ScriptedSource(lambda now: answers.pop(0)))
    reader.begin(1)
    reader.finish(1.0)
    assert reader.health.last_error == "no data"
    reader.begin(2)
    reader.finish(1.0)
    assert reader.health.last_error == ""


def test_a_hung_source_is_waited_for_once_and_comes_back() -> None:
    """One missed deadline for a hung read, no further waits, and reads go on when it returns."""
    release = threading.Event()
    returned = threading.Event()

    def hang(now: int) -> Sequence[Reading]:
        if now == 1:
            release.wait()
            returned.set()
        return [CounterReading(KEY, now)]

    source = ScriptedSource(hang, may_block=True)
    reader = ThreadedReader(source)
    reader.begin(1)
    assert reader.finish(0.01) == ()
    assert reader.health.deadline_misses == 1
    reader.begin(2)
    assert reader.finish(60.0) == ()  # Would take a minute if it waited for the read that hangs.
    assert reader.health.deadline_misses == 1
    release.set()
    returned.wait()
    readings, now = first_readings(reader, 3)
    assert readings == [CounterReading(KEY, now - 1)]
    reader.close()
    assert source.closed.wait(5.0)


def test_a_source_that_always_needs_longer_is_read_a_period_behind() -> None:
    """Each answer comes too late for its own tick and in time for the next, with how late it is."""
    asked: list[threading.Event] = [threading.Event() for _ in range(6)]

    def slow(now: int) -> Sequence[Reading]:
        asked[now // 10].wait()
        return [CounterReading(KEY, now)]

    reader = ThreadedReader(ScriptedSource(slow, may_block=True))
    found = []
    for now in range(0, 50, 10):
        reader.begin(now)
        found.append((list(reader.finish(0.01)), reader.late_nanoseconds))
        asked[now // 10].set()
        wait_for(lambda: not reader.is_reading)
    assert found[0] == ([], 0)
    assert found[1:] == [([CounterReading(KEY, now)], 10) for now in range(0, 40, 10)]
    assert reader.health.deadline_misses == 5
    reader.close()


def test_after_one_late_read_the_fresh_answer_counts() -> None:
    """A value of a minute ago is no news where one of now is there."""
    release = threading.Event()

    def hang_once(now: int) -> Sequence[Reading]:
        if now == 1:
            release.wait()
        return [CounterReading(KEY, now)]

    reader = ThreadedReader(ScriptedSource(hang_once, may_block=True))
    reader.begin(1)
    assert reader.finish(0.01) == ()
    release.set()
    wait_for(lambda: not reader.is_reading)
    reader.begin(60)
    assert reader.finish(5.0) == [CounterReading(KEY, 60)]
    assert reader.late_nanoseconds == 0
    reader.close()


def test_a_part_that_went_during_a_late_read_is_gone_all_the_same() -> None:
    """A source says it once, as it does what came back; kept open, the channel would keep its meter's residual waiting."""
    release, returned = threading.Event(), threading.Event()
    gone = Gone(ChannelKey("gpu/GPU-1", "board", "scripted"), "it fell off the bus")
    offer = Offer(())

    def hang(now: int) -> Sequence[Reading]:
        if now > 1:
            return [CounterReading(KEY, now)]
        release.wait()
        returned.set()
        return [CounterReading(KEY, now), gone, offer]

    reader = ThreadedReader(ScriptedSource(hang, may_block=True))
    reader.begin(1)
    assert reader.finish(0.01) == ()
    release.set()
    returned.wait()
    readings, now = first_readings(reader, 2)
    assert readings == [gone, offer, CounterReading(KEY, now - 1)]
    reader.begin(now)
    assert reader.finish(5.0) == [CounterReading(KEY, now)]
    reader.close()
