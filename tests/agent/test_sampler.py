"""The loop between sources, meter, spool and shipper: nothing metered is lost to a flush, a restart or a full disk."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.agent.metering import SECOND, at, counter, spec
from tests.agent.scripted import Clock, ScriptedSource, opened
from tests.agent.test_readers import Found

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Cut
from wattledger_agent.readings import (
    CounterReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.sampler import Cadence, Sampler
from wattledger_agent.session import Settings
from wattledger_agent.spool import Spool, SpoolError
from wattledger_protos.v1 import telemetry_pb2 as pb

PACKAGE = spec()
CADENCE = Cadence(period_seconds=1.0, flush_seconds=10.0, live_seconds=2.0)


class Delivered:
    """A shipper that only takes note."""

    def __init__(self) -> None:
        self.appends = 0
        self.lives: list[pb.Live] = []

    def appended(self) -> None:
        """Count it."""
        self.appends += 1

    def live(self, live: pb.Live) -> None:
        """Keep it."""
        self.lives.append(live)


class FragileSpool(Spool):
    """A spool whose disk fails for as long as a test says."""

    broken = False

    def append(self, cut: Cut) -> int:
        """As a spool, or the error of a full disk."""
        if self.broken:
            raise SpoolError("the disk is full. Free space.")
        return super().append(cut)

    def renew(self, opening: Instant) -> None:
        """As a spool, or the error."""
        if self.broken:
            raise SpoolError("the folder can't be written. Mend it.")
        super().renew(opening)


MakeSpool = Callable[[], FragileSpool]


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    """Opens the one spool of the test, again after a close."""
    made: list[Spool] = []
    epochs = iter(range(1, 100))

    def make() -> FragileSpool:
        spool = FragileSpool.open(
            tmp_path / "spool",
            machine_id="m",
            dmi_uuid="",
            opening=at(99),
            new_epoch=lambda: next(epochs).to_bytes(16, "big"),
        )
        made.append(spool)
        assert isinstance(spool, FragileSpool)
        return spool

    yield make
    for spool in made:
        spool.close()


def rising(watts: int = 60) -> ScriptedSource:
    """A counter of so many watts since boot."""
    return ScriptedSource("rapl", lambda now: [counter(PACKAGE, watts * now // 1000)], [PACKAGE])


def make(
    spool: Spool, clock: Clock, *sources: ScriptedSource, cadence: Cadence = CADENCE, stopping: threading.Event | None = None
) -> tuple[Sampler, Delivered]:
    """A sampler and what it delivers."""
    delivered = Delivered()
    return Sampler(opened(*sources).opened, spool, delivered, clock, cadence, stopping=stopping), delivered


def tick(sampler: Sampler, clock: Clock, seconds: int) -> None:
    """One tick a second."""
    for _ in range(seconds):
        sampler.step()
        clock.seconds += 1.0


def energy(spool: Spool) -> int:
    """Cumulative microjoules of the newest record's one channel."""
    record = spool.find(spool.next_sequence - 1)
    assert record is not None
    (column,) = pb.Payload.FromString(record.payload).columns
    return column.first_energy_microjoules + sum(column.energy_delta_microjoules)


def test_samples_are_flushed_each_cadence(make_spool: MakeSpool) -> None:
    """The first at once, then one record for ten samples; the shipper is told of each."""
    spool, clock = make_spool(), Clock()
    sampler, delivered = make(spool, clock, rising())

    tick(sampler, clock, 21)

    assert (spool.next_sequence - 1, delivered.appends) == (3, 3)
    assert energy(spool) == 20 * 60_000_000


def test_an_agent_that_starts_again_goes_on_with_the_account(make_spool: MakeSpool) -> None:
    """The spool is the state: what the counter counted between two agents is booked by the second."""
    clock = Clock()
    first = make_spool()
    sampler, _ = make(first, clock, rising())
    tick(sampler, clock, 1)
    first.close()
    clock.seconds += 30.0
    second = make_spool()
    sampler, _ = make(second, clock, rising())
    tick(sampler, clock, 1)

    assert second.epoch == first.epoch
    assert energy(second) == 31 * 60_000_000


def test_a_spool_that_went_back_in_time_begins_a_new_epoch(make_spool: MakeSpool) -> None:
    """Told by the shipper's thread, done at the next tick; a disk that fails then is asked again, and nothing is lost."""
    spool, clock = make_spool(), Clock()
    sampler, _ = make(spool, clock, rising())
    tick(sampler, clock, 2)
    before = spool.epoch
    sampler.renew()
    spool.broken = True
    tick(sampler, clock, 1)
    assert spool.epoch == before
    spool.broken = False
    tick(sampler, clock, 11)

    assert spool.epoch != before
    # A new account: it begins at the first sample of the new epoch.
    assert energy(spool) % 60_000_000 == 0
    assert energy(spool) < 12 * 60_000_000


def test_a_state_that_cannot_be_read_begins_a_new_epoch(make_spool: MakeSpool, caplog: pytest.LogCaptureFixture) -> None:
    """Better a gap than an agent that never starts again; what was spooled is kept for one that can read it."""
    spool, clock = make_spool(), Clock()
    spool.append(Cut(payload=b"", state=b"nonsense", catalog=b"", catalog_hash=1, samples=1))
    before = spool.epoch
    with caplog.at_level(logging.ERROR):
        sampler, _ = make(spool, clock, rising())
    tick(sampler, clock, 1)

    assert spool.epoch != before
    assert "a new epoch begins" in caplog.text
    assert "1 records that no collector has acknowledged are set aside" in caplog.text


def test_a_full_disk_is_told_once_and_loses_no_energy(make_spool: MakeSpool, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be flushed is written as soon as it can be."""
    spool, clock = make_spool(), Clock()
    sampler, delivered = make(spool, clock, rising(), cadence=Cadence(1.0, 1.0, 100.0))
    tick(sampler, clock, 1)
    spool.broken = True
    with caplog.at_level(logging.ERROR):
        tick(sampler, clock, 5)
    spool.broken = False
    tick(sampler, clock, 1)

    assert energy(spool) == 6 * 60_000_000
    assert delivered.appends == 3
    assert [record.message for record in caplog.records] == ["the disk is full. Free space."]


def test_a_full_disk_keeps_the_last_energy_of_a_part_that_goes(make_spool: MakeSpool) -> None:
    """Its channel has no further value that could tell what the record that failed had told."""
    spool, clock = make_spool(), Clock()
    gpu = spec("gpu/GPU-1", source="nvidia", domain="board")

    def fall_off(now: int) -> Sequence[Reading]:
        return [counter(gpu, 500 * now // 1000)] if now < 104 * SECOND else [Gone(gpu.key, "it fell off the bus")]

    sampler, _ = make(spool, clock, ScriptedSource("nvidia", fall_off, [gpu]), rising(), cadence=Cadence(1.0, 1.0, 100.0))
    tick(sampler, clock, 1)
    spool.broken = True
    tick(sampler, clock, 8)
    spool.broken = False
    tick(sampler, clock, 1)

    told = 0
    for sequence in range(1, spool.next_sequence):
        record = spool.find(sequence)
        assert record is not None
        for column in pb.Payload.FromString(record.payload).columns:
            if column.channel == 1:
                told = column.first_energy_microjoules + sum(column.energy_delta_microjoules)
    assert told == 3 * 500_000_000


def test_a_channel_that_is_not_metered_is_told_once(make_spool: MakeSpool, caplog: pytest.LogCaptureFixture) -> None:
    """With the reason: what is silently left out would be missed by nobody until the bill comes."""
    spool, clock = make_spool(), Clock()
    endless = spec("gpu/GPU-1", source="nvidia", domain="board", bound=0.0)
    source = ScriptedSource("nvidia", lambda now: [counter(endless, now)], [endless])
    with caplog.at_level(logging.ERROR):
        sampler, _ = make(spool, clock, source, rising(), cadence=Cadence(1.0, 1.0, 100.0))
        tick(sampler, clock, 3)

    (told,) = caplog.records
    assert "nvidia: gpu/GPU-1 board is not metered: gpu/GPU-1: the power bound 0.0 W must be above 0" in told.message


def test_a_hung_source_leaves_the_others_alone(make_spool: MakeSpool) -> None:
    """The tick goes on without it, and Live says so."""
    spool, clock, release = make_spool(), Clock(), threading.Event()
    gpu = spec("gpu/GPU-1", source="nvidia", domain="board")

    def hang(now: int) -> Sequence[Reading]:
        release.wait(30.0)
        return [CounterReading(gpu.key, 1)]

    hung = ScriptedSource("nvidia", hang, [gpu], may_block=True)
    sampler, delivered = make(spool, clock, hung, rising(), cadence=Cadence(0.1, 0.1, 0.1))
    tick(sampler, clock, 3)
    release.set()

    health = {source.source: source for source in delivered.lives[-1].sources}
    assert (health["rapl"].reads, health["nvidia"].deadline_misses) == (3, 1)
    assert "has not returned within" in health["nvidia"].last_error
    assert [power.power_milliwatts for power in delivered.lives[-1].powers] == [60_000]


def test_a_source_that_always_needs_longer_is_metered(make_spool: MakeSpool) -> None:
    """Eight tenths of a period for each read, as some drivers need: every second is booked, and no other source is late."""
    spool, clock = make_spool(), Clock()
    gpu = spec("gpu/GPU-1", source="nvidia", domain="board")

    def slow(now: int) -> Sequence[Reading]:
        time.sleep(0.08)
        return [counter(gpu, 50 * now // 1000)]

    slow_source, quick = ScriptedSource("nvidia", slow, [gpu], may_block=True), rising()
    sampler, _ = make(spool, clock, slow_source, quick, cadence=Cadence(0.1, 100.0, 0.1))
    for _ in range(10):
        begun = time.monotonic()
        sampler.step()
        clock.seconds += 1.0
        time.sleep(max(0.0, begun + 0.1 - time.monotonic()))
    sampler.flush(clock.instant())

    record = spool.find(spool.next_sequence - 1)
    assert record is not None
    columns = {column.channel: column for column in pb.Payload.FromString(record.payload).columns}
    # Ten ticks, of which the first waits for the first answer; on a busy machine a few more may.
    told = {number: sum(column.energy_delta_microjoules) for number, column in columns.items()}
    assert told.keys() == {1, 2}
    assert told[2 if told[1] == 9 * 60_000_000 else 1] >= 4 * 50_000_000
    assert len(quick.reads) == 10


def test_a_hung_source_delays_the_others_by_half_a_period_once(make_spool: MakeSpool) -> None:
    """A controller that answers after a minute is waited for in the tick that asks it, and in none after that."""
    spool, clock, release = make_spool(), Clock(), threading.Event()
    gpu = spec("gpu/GPU-1", source="nvidia", domain="board")

    def hang(now: int) -> Sequence[Reading]:
        release.wait(60.0)
        return [CounterReading(gpu.key, 1)]

    quick = rising()
    hung = ScriptedSource("nvidia", hang, [gpu], may_block=True)
    sampler, _ = make(spool, clock, hung, quick, cadence=Cadence(1.0, 100.0, 100.0))
    begun = time.monotonic()
    tick(sampler, clock, 20)
    waited = time.monotonic() - begun
    release.set()

    assert len(quick.reads) == 20
    # Half a second, once; were each tick to wait, ten.
    assert 0.5 <= waited < 5.0


def test_a_source_that_is_found_late_is_metered_from_then_on(make_spool: MakeSpool) -> None:
    """Its channel begins at the row in which it is found, also in the account of a new epoch."""
    spool, clock, late = make_spool(), Clock(), Found()
    gpu = spec("gpu/GPU-1", source="nvidia", domain="board")
    sampler = Sampler(opened(rising()).opened, spool, Delivered(), clock, CADENCE, late=late)
    tick(sampler, clock, 5)
    late.next = opened(ScriptedSource("nvidia", lambda now: [counter(gpu, 50 * now // 1000)], [gpu])).opened
    tick(sampler, clock, 10)
    sampler.flush(clock.instant())
    assert columns_of(spool)[2] == 9 * 50_000_000
    sampler.renew()
    tick(sampler, clock, 5)
    sampler.flush(clock.instant())
    assert columns_of(spool)[2] > 0


def columns_of(spool: Spool) -> dict[int, int]:
    """Cumulative microjoules of the newest record, by channel."""
    record = spool.find(spool.next_sequence - 1)
    assert record is not None
    columns = pb.Payload.FromString(record.payload).columns
    return {column.channel: column.first_energy_microjoules + sum(column.energy_delta_microjoules) for column in columns}


def test_live_says_what_is_now(make_spool: MakeSpool) -> None:
    """Power, clock, health of the sources and what waits in the spool, each two seconds."""
    spool, clock = make_spool(), Clock()
    sampler, delivered = make(spool, clock, rising())
    tick(sampler, clock, 5)

    assert len(delivered.lives) == 3
    live = delivered.lives[-1]
    assert live.clock.boottime_nanoseconds == 104 * SECOND
    assert [(power.device, power.power_milliwatts) for power in live.powers] == [("cpu/0", 60_000)]
    assert live.spool_unacknowledged_records == 1
    assert live.agent_memory_bytes == 0


class Working:
    """An agent that works for 10 ms and is woken twice each time that it is looked at."""

    looks = 0

    def cpu_nanoseconds(self) -> int:
        """See OwnCost."""
        self.looks += 1
        return self.looks * SECOND // 100

    def memory_bytes(self) -> int:
        """See OwnCost."""
        return 1

    def wakeups(self) -> int:
        """See OwnCost."""
        return 2 * self.looks


def test_live_compares_sources_and_tells_the_agents_own_part(make_spool: MakeSpool) -> None:
    """A second meter of the package says 66 W beside 60 W; of 60 W and half a busy second a second, 5 ms are the agent's."""
    spool, clock, delivered = make_spool(), Clock(), Delivered()
    second = spec(method=Method.INTEGRAL, source="hsmp", domain="socket")
    sources = (
        rising(),
        ScriptedSource("hsmp", lambda now: [PowerReading(second.key, 66_000_000)], [second]),
        ScriptedSource("cpu", lambda now: [UtilizationReading("cpu", UtilizationKind.BUSY, 0.5)], []),
    )
    sampler = Sampler(opened(*sources).opened, spool, delivered, clock, CADENCE, own_cost=Working())
    tick(sampler, clock, 121)

    live = delivered.lives[-1]
    (check,) = live.cross_checks
    assert (check.source, check.reference_source, check.window_seconds) == ("hsmp", "rapl", 120.0)
    assert check.disagreement_ratio == pytest.approx(0.1)
    assert live.agent_wakeups == 122
    assert live.agent_energy_microjoules == 72_000_000
    assert delivered.lives[30].cross_checks[:] != []
    assert delivered.lives[29].cross_checks[:] == []


def test_live_says_what_the_meter_could_not_use(make_spool: MakeSpool) -> None:
    """Counts since the start: a failed read, one that can't be believed, one of no channel."""
    spool, clock = make_spool(), Clock()
    odd: list[Reading] = [TryAgain(PACKAGE.key, "made to fail"), counter(PACKAGE, -1), counter(spec("cpu/9"), 1)]
    sampler, delivered = make(spool, clock, ScriptedSource("rapl", lambda now: odd, [PACKAGE]))
    tick(sampler, clock, 3)

    assert delivered.lives[-1].meter == pb.LiveMeter(failed_reads=3, unbelieved_readings=3, ignored_readings=3)


def test_the_collectors_settings_are_followed_and_forgotten(make_spool: MakeSpool) -> None:
    """A flush period of the collector's replaces the agent's own for as long as it is set, but is no shorter than a tick."""
    spool, clock = make_spool(), Clock()
    sampler, _ = make(spool, clock, rising())
    tick(sampler, clock, 1)
    sampler.apply(Settings(flush_seconds=0.1))
    tick(sampler, clock, 10)
    often = spool.next_sequence
    tick(sampler, clock, 5)
    assert spool.next_sequence == often + 5
    sampler.apply(Settings())
    tick(sampler, clock, 20)
    assert spool.next_sequence <= often + 8


def test_what_is_left_at_the_end_is_flushed(make_spool: MakeSpool) -> None:
    """In real time: ticks come, and a stop writes what no flush has."""
    spool, clock, stopping = make_spool(), Clock(), threading.Event()

    def count(now: int) -> Sequence[Reading]:
        clock.seconds += 0.02
        if len(source.reads) == 5:
            stopping.set()
        return [counter(PACKAGE, 60 * now // 1000)]

    source = ScriptedSource("rapl", count, [PACKAGE])
    sampler, delivered = make(spool, clock, source, cadence=Cadence(0.02, 10.0, 10.0), stopping=stopping)
    sampler.run()

    assert (len(source.reads), delivered.appends) == (5, 2)
    assert source.closed


def test_a_node_meter_that_never_answers_gives_way_to_the_estimate(make_spool: MakeSpool) -> None:
    """Through the loop as it runs: from some 90 s on the records have the model as what is booked for the node."""
    node = replace(spec("node", source="ipmi", domain="dcmi", method=Method.INTEGRAL, role=Role.METER), cadence_seconds=10.0)
    model = spec("node", source="estimate", domain="estimate", method=Method.MODEL)
    dead = ScriptedSource("ipmi", lambda now: [TryAgain(node.key, "ipmi: no answer")], [node])
    estimate = ScriptedSource("estimate", lambda now: [PowerReading(model.key, 50_000_000)], [model])
    spool, clock = make_spool(), Clock()
    sampler, _ = make(spool, clock, dead, estimate)

    roles = []
    for seconds in (85, 35):
        tick(sampler, clock, seconds)
        record = spool.find(spool.next_sequence - 1)
        assert record is not None
        catalog = pb.Catalog.FromString(spool.catalog(record.catalog_hash) or b"")
        roles.append({channel.source: channel.role for channel in catalog.channels if not channel.closed})

    assert [one["estimate"] for one in roles] == [pb.ROLE_SHOWN, pb.ROLE_LEAF]
