"""A source that fails for good is closed and found again, and the account goes on as if it had been away."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.agent.metering import Account, Book, at, counter, spec
from tests.agent.scripted import Read, ScriptedSource
from tests.agent.test_worker import wait_for

from wattledger_agent.meter import Meter
from wattledger_agent.readers import Readers
from wattledger_agent.readings import ChannelKey, Component, Gone, Method, Offer, PowerReading, Reading, Role, TryAgain
from wattledger_agent.sampler import OpenSource
from wattledger_agent.worker import ThreadedReader
from wattledger_protos.v1 import telemetry_pb2 as pb

NODE = spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=1000.0)
GPU = spec("gpu/GPU-1", source="nvidia", domain="board", component=Component.GPU, bound=700.0)
OTHER_GPU = replace(GPU, key=ChannelKey("gpu/GPU-2", "board", "nvidia"))


class Found:
    """Finds a source when a test says so. watched: what was asked for, and when."""

    def __init__(self) -> None:
        self.watched: list[tuple[str, float]] = []
        self.next: list[OpenSource] = []

    @property
    def names(self) -> set[str]:
        """What was asked for."""
        return {name for name, _ in self.watched}

    def watch(self, name: str, now_nanoseconds: int) -> None:
        """Note it."""
        self.watched.append((name, now_nanoseconds / 1e9))

    def found(self, now_nanoseconds: int) -> Sequence[OpenSource]:
        """Hand over what a test has put here."""
        found, self.next = self.next, []
        return found


def bmc() -> ScriptedSource:
    """A node of 900 W."""
    return ScriptedSource("bmc", lambda now: [counter(NODE, 900 * now // 1000)], [NODE])


def gpus(read: Read, *, may_block: bool = False) -> ScriptedSource:
    """A source of GPUs."""
    return ScriptedSource("nvidia", read, [GPU], may_block=may_block)


def counting(now: int) -> Sequence[Reading]:
    """A GPU of 500 W."""
    return [counter(GPU, 500 * now // 1000)]


def failing(now: int) -> Sequence[Reading]:
    """A driver that was taken away."""
    raise OSError(19, "No such device")


class Agent:
    """A meter and its readers, with a tick a second."""

    def __init__(self, *sources: ScriptedSource, late: Found | None = None) -> None:
        self.readers = Readers([OpenSource(source, source.open()) for source in sources], late)
        self.meter = Meter(state=None, integral_gap_seconds_max=10.0)
        self.meter.offer(self.readers.specs, at(0))
        self.second = 0

    def tick(self, times: int = 1, deadline_seconds: float = 1.0) -> None:
        """As the sampler does."""
        for _ in range(times):
            now = at(self.second)
            gone = self.readers.take_in(self.meter, now)
            readings, late = self.readers.read(self.meter, now, deadline_seconds)
            self.meter.observe([*gone, *readings], now, late)
            self.readers.mind(self.meter, now)
            self.second += 1

    def book(self) -> Book:
        """What its records say."""
        book = Book()
        book.add(self.meter.cut(at(self.second)))
        return book


def opened(source: ScriptedSource) -> OpenSource:
    """As the inventory opens it."""
    return OpenSource(source, source.open())


def test_a_source_that_raises_for_a_minute_is_closed_and_looked_for() -> None:
    """Not sooner: a device that is being reset is back in seconds."""
    late = Found()
    broken = gpus(failing)
    agent = Agent(bmc(), broken, late=late)
    agent.tick(60)
    assert (late.watched, broken.closed) == ([], False)
    agent.tick()
    assert (late.watched, broken.closed) == ([("nvidia", 60.0)], True)
    reads = len(broken.reads)
    agent.tick(5)
    assert len(broken.reads) == reads
    (health,) = [health for health in agent.readers.health if health.source == "nvidia"]
    assert health.failures == 61
    assert "No such device; it is closed, and looked for again" in health.last_error


class Stuck(ScriptedSource):
    """A source that can't be closed either."""

    def close(self) -> None:
        """As a library whose driver is gone."""
        raise OSError(19, "No such device")


def test_a_source_that_can_not_be_closed_is_told_and_looked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure ends nothing, and is no secret."""
    late = Found()
    Agent(bmc(), Stuck("nvidia", failing, [GPU]), late=late).tick(61)
    assert late.watched == [("nvidia", 60.0)]
    assert "nvidia: it could not be closed: OSError: [Errno 19] No such device" in caplog.messages


def test_one_read_that_works_begins_the_minute_anew() -> None:
    """What fails now and then is not broken."""
    late = Found()
    agent = Agent(bmc(), gpus(lambda now: counting(now) if now == at(50).boottime_nanoseconds else failing(now)), late=late)
    agent.tick(111)
    assert late.watched == []
    agent.tick(1)
    assert late.watched == [("nvidia", 111.0)]


def test_the_account_goes_on_when_the_source_is_found_again() -> None:
    """The residual does not wait for what is away; the counter tells later what it was, and no joule is booked twice."""
    late = Found()
    agent = Agent(bmc(), gpus(lambda now: counting(now) if now < at(10).boottime_nanoseconds else failing(now)), late=late)
    agent.tick(100)
    away = agent.book()
    # While the GPU was silent the residual waited for a minute, and has gone on since.
    assert max(away.account("node", "residual").values) == at(99).boottime_nanoseconds
    late.next = [opened(gpus(counting))]
    agent.tick(10)
    book = agent.book()
    gpu, residual = book.account("gpu/GPU-1"), book.account("node", "residual")
    assert (gpu.energy, residual.energy) == (109 * 500_000_000, 109 * 400_000_000)
    assert book.numbers("gpu/GPU-1") == [1 + book.numbers("node", "board")[0]]
    (health,) = [health for health in agent.readers.health if health.source == "nvidia"]
    # From the first read on, and without what is over.
    assert (health.reads, health.last_error) == (10 + 61 + 10, "")


def test_a_part_that_was_not_found_again_is_gone() -> None:
    """Its channel is closed: open, it would stand in the tree for ever."""
    late = Found()

    def read_once(now: int) -> Sequence[Reading]:
        return failing(now) if now else [*counting(now), counter(OTHER_GPU, 0)]

    agent = Agent(bmc(), ScriptedSource("nvidia", read_once, [GPU, OTHER_GPU]), late=late)
    agent.tick(70)
    late.next = [opened(gpus(counting))]
    agent.tick(5)
    book = agent.book()
    closed = {channel.device for channel in book.catalog.channels if channel.closed}
    assert closed == {"gpu/GPU-2"}
    assert book.account("node", "residual").energy == 74 * 400_000_000


def test_a_source_of_which_all_is_gone_is_looked_for_at_once() -> None:
    """A GPU that is bound to its driver again is found; what is gone is not offered to a new account either."""
    late = Found()
    agent = Agent(bmc(), gpus(lambda now: [Gone(GPU.key, "off the bus")] if now else counting(now)), late=late)
    agent.tick(2)
    assert late.watched == [("nvidia", 1.0)]
    assert agent.readers.specs == [NODE]
    late.next = [opened(gpus(counting))]
    agent.tick(3)
    assert len(agent.book().numbers("gpu/GPU-1")) == 2


def test_a_source_that_never_had_a_channel_is_left_alone() -> None:
    """Utilization alone has none to be gone."""
    late = Found()
    agent = Agent(bmc(), ScriptedSource("cpu", lambda now: ()), late=late)
    agent.tick(5)
    assert late.watched == []


def test_without_one_who_looks_nothing_is_closed() -> None:
    """In a simulation of many hosts, say; but its residual goes on all the same."""
    broken = gpus(failing)
    agent = Agent(bmc(), broken)
    agent.tick(100)
    assert not broken.closed
    assert max(agent.book().account("node", "residual").values) == at(99).boottime_nanoseconds


def test_a_source_that_hangs_for_a_minute_is_withdrawn_until_it_answers() -> None:
    """It can't be closed, but the node's residual goes on, and the counter tells all when the driver is back."""
    release = threading.Event()

    def hang(now: int) -> Sequence[Reading]:
        if now == at(5).boottime_nanoseconds:
            release.wait(60.0)
        return counting(now)

    agent = Agent(bmc(), gpus(hang, may_block=True))
    agent.tick(5, deadline_seconds=30.0)
    agent.tick(80, deadline_seconds=0.01)
    assert max(agent.book().account("node", "residual").values) == at(84).boottime_nanoseconds
    release.set()
    reader = agent.readers.of("nvidia")
    assert isinstance(reader, ThreadedReader)
    wait_for(lambda: not reader.is_reading)
    agent.tick(5, deadline_seconds=30.0)
    book = agent.book()
    assert book.account("gpu/GPU-1").energy == 89 * 500_000_000
    assert book.account("node", "residual").energy == 89 * 400_000_000
    agent.readers.close()


def test_a_source_that_can_not_be_closed_costs_nothing_else() -> None:
    """A binding that fails in reads may fail in this too."""
    late = Found()
    agent = Agent(bmc(), StuckSource("nvidia", failing, [GPU]), late=late)
    agent.tick(70)
    assert late.watched == [("nvidia", 60.0)]


class StuckSource(ScriptedSource):
    """A source that raises when it is closed."""

    def close(self) -> None:
        """Fail."""
        raise OSError(19, "No such device")


SLOW_NODE = replace(
    spec(
        "node", source="ipmi", domain="dcmi", method=Method.INTEGRAL, role=Role.METER, component=Component.OTHER, bound=900.0
    ),
    cadence_seconds=10.0,
)
MODEL = spec("node", source="estimate", domain="estimate", method=Method.MODEL, component=Component.OTHER, bound=900.0)


def controller(answers_from_second: int) -> ScriptedSource:
    """A controller that is asked each second, and tells its power from some second on."""

    def read(now: int) -> Sequence[Reading]:
        if now < at(answers_from_second).boottime_nanoseconds:
            return [TryAgain(SLOW_NODE.key, "ipmi: no answer yet")]
        return [PowerReading(SLOW_NODE.key, 300_000_000)]

    return ScriptedSource("ipmi", read, [SLOW_NODE])


def estimate() -> ScriptedSource:
    """A model that says 200 W."""
    return ScriptedSource("estimate", lambda now: [PowerReading(MODEL.key, 200_000_000)], [MODEL])


def booked(book: Book) -> dict[str, float]:
    """What is in the sum, by source; joules."""
    found: dict[str, float] = {}
    for channel in book.catalog.channels:
        if channel.role in (pb.ROLE_LEAF, pb.ROLE_RESIDUAL):
            energy = book.accounts.get(channel.channel, Account()).energy / 1e6
            found[channel.source] = found.get(channel.source, 0.0) + energy
    return {source: energy for source, energy in found.items() if energy}


def test_a_node_meter_that_never_answers_does_not_keep_the_estimate_out_for_ever() -> None:
    """After a minute and three cadences the model is booked: 90 s here, and not sooner, for controllers may be slow."""
    agent = Agent(controller(10**6), estimate())
    agent.tick(91)
    book = agent.book()
    assert booked(book) == {}

    agent.tick(101)
    book.add(agent.meter.cut(at(agent.second)))

    assert booked(book) == {"estimate": pytest.approx(100 * 200, rel=0.02)}


def test_the_wait_for_a_node_meter_that_never_answers_is_a_gap() -> None:
    """At each start: the model that was booked up to it stands back for a minute and a half, and nothing else is booked."""
    agent = Agent(controller(10**6), estimate())
    agent.tick(201)
    cut = agent.meter.cut(at(agent.second))
    assert cut is not None
    again = Agent(controller(10**6), estimate())
    again.meter = Meter(state=cut.state, integral_gap_seconds_max=10.0)
    again.meter.offer(again.readers.specs, at(201))
    again.second = 201
    again.tick(200)

    book = Book()
    book.add(cut)
    book.add(again.meter.cut(at(again.second)))
    models = [channel for channel in book.catalog.channels if (channel.source, channel.role) == ("estimate", pb.ROLE_LEAF)]
    energy = sum(book.accounts[channel.channel].energy for channel in models) / 1e6
    upper = sum(book.accounts[channel.channel].gap_upper for channel in models) / 1e6
    assert energy < 400 * 200 <= energy + upper
    assert upper == pytest.approx((91 + 92) * 900, rel=0.02)


def test_a_node_meter_that_answers_late_takes_its_place() -> None:
    """From then on what it says is booked, and the model is shown beside it."""
    agent = Agent(controller(200), estimate())
    agent.tick(200)
    book = agent.book()
    modelled = booked(book)["estimate"]
    assert modelled == pytest.approx(108 * 200, rel=0.02)

    agent.tick(101)
    book.add(agent.meter.cut(at(agent.second)))

    assert booked(book) == {"estimate": pytest.approx(modelled, rel=0.02), "ipmi": pytest.approx(100 * 300, rel=0.02)}


def test_a_node_meter_that_has_answered_once_keeps_its_place() -> None:
    """A controller that restarts is away for minutes; the account waits for it, and no model steps in."""

    def read(now: int) -> Sequence[Reading]:
        if now > at(20).boottime_nanoseconds:
            return [TryAgain(SLOW_NODE.key, "ipmi: no answer")]
        return [PowerReading(SLOW_NODE.key, 300_000_000)]

    agent = Agent(ScriptedSource("ipmi", read, [SLOW_NODE]), estimate())
    agent.tick(300)

    assert SLOW_NODE in agent.readers.specs
    assert set(booked(agent.book())) == {"ipmi"}


def returning(now: int) -> Sequence[Reading]:
    """Two GPUs of 500 W: one falls off the bus at 3 s and is back at 6 s; both are silent from 10 to 80 s."""
    if at(10).boottime_nanoseconds <= now < at(80).boottime_nanoseconds:
        raise OSError(19, "No such device")
    other: list[Reading] = [counter(OTHER_GPU, 500 * now // 1000)]
    if now == at(3).boottime_nanoseconds:
        other = [Gone(OTHER_GPU.key, "off the bus")]
    elif at(3).boottime_nanoseconds < now < at(6).boottime_nanoseconds:
        other = []
    elif now == at(6).boottime_nanoseconds:
        other = [Offer((GPU, OTHER_GPU)), *other]
    return [*counting(now), *other]


def test_a_part_that_came_back_is_metered_again_after_its_source_was_silent() -> None:
    """What a source has offered since it was opened is what it is withdrawn from, and comes back with."""
    agent = Agent(ScriptedSource("nvidia", returning, [GPU, OTHER_GPU]))
    agent.tick(101)
    energies = {channel.spec.key: channel.state.energy_microjoules for channel in agent.meter.open_channels}
    assert energies == {GPU.key: 100 * 500_000_000, OTHER_GPU.key: 94 * 500_000_000}


def test_a_part_that_came_back_is_offered_to_a_new_account() -> None:
    """A new epoch's meter gets all that is there now, not what there was when the source was opened."""
    agent = Agent(ScriptedSource("nvidia", returning, [GPU, OTHER_GPU]))
    agent.tick(4)
    assert agent.readers.specs == [GPU]
    agent.tick(4)
    assert agent.readers.specs == [GPU, OTHER_GPU]


def test_a_part_that_appears_later_is_no_reason_to_wait_when_its_source_is_silent() -> None:
    """The node's residual goes on without it, as without those that were there at the start."""

    def appearing(now: int) -> Sequence[Reading]:
        if now >= at(10).boottime_nanoseconds:
            raise OSError(19, "No such device")
        offers: list[Reading] = [Offer((GPU, OTHER_GPU))] if now == at(5).boottime_nanoseconds else []
        others = [counter(OTHER_GPU, 100 * now // 1000)] if now >= at(5).boottime_nanoseconds else []
        return [*offers, *counting(now), *others]

    agent = Agent(bmc(), gpus(appearing))
    agent.tick(100)
    assert max(agent.book().account("node", "residual").values) == at(99).boottime_nanoseconds


def test_a_part_that_sleeps_for_long_holds_up_no_residual() -> None:
    """A minute is waited for it, while others of its source answer; its counter then tells what it used meanwhile."""

    def sleeping(now: int) -> Sequence[Reading]:
        sleeps = at(10).boottime_nanoseconds <= now < at(200).boottime_nanoseconds
        other = TryAgain(OTHER_GPU.key, "sleeps") if sleeps else counter(OTHER_GPU, 100 * now // 1000)
        return [*counting(now), other]

    agent = Agent(bmc(), ScriptedSource("nvidia", sleeping, [GPU, OTHER_GPU]))
    agent.tick(150)
    book = agent.book()
    assert max(book.account("node", "residual").values) == at(149).boottime_nanoseconds
    agent.tick(100)
    book.add(agent.meter.cut(at(agent.second)))
    assert book.account("gpu/GPU-2").energy == 249 * 100_000_000
    assert book.account("node", "residual").energy == 249 * 300_000_000
