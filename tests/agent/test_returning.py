"""Parts that are removed while their siblings stay, and come back: found in a minute, with a gap for the time between."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.agent.chips import Files, add_chip, chip, write
from tests.agent.gpu_machines import let_gpus_work, tables
from tests.agent.machines import Machine, machine
from tests.agent.metering import SECOND, Book, at, counter, spec
from tests.agent.scripted import ScriptedSource
from tests.agent.test_readers import Agent, Found, opened

from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelSpec, Component, Gone, Method, Offer, Reading, Role, Source, TryAgain
from wattledger_agent.sources.amd_gpu import AmdGpuSource
from wattledger_agent.sources.hwmon import HwmonSource
from wattledger_agent.sources.intel_gpu import IntelGpuSource
from wattledger_agent.sources.returning import LOOK_SECONDS, Returning
from wattledger_agent.sources.sensor_files import GONE_READS, Chip
from wattledger_protos.v1 import telemetry_pb2 as pb

GPU = spec("gpu/GPU-1", source="nvidia", domain="board", component=Component.GPU, bound=700.0)


def remove(host: Machine, files: Files, device: str) -> Path:
    """Take a part out: its driver's files fail, and its folder is no more. Returns where it is kept."""
    files.gone.add(device)
    folder = chip(host, device).parent.parent
    return folder.rename(folder.with_name("removed"))


def put_back(files: Files, kept: Path, device: str) -> None:
    """Put it in again: all its files are new ones."""
    shutil.copytree(kept, kept.with_name(device), symlinks=True)
    shutil.rmtree(kept)
    files.gone.discard(device)


@dataclass
class Metered:
    """A source on a meter, a row a second."""

    source: Source
    meter: Meter = field(default_factory=lambda: Meter(state=None, integral_gap_seconds_max=10.0))
    second: int = 0
    specs: dict[tuple[str, str], ChannelSpec] = field(default_factory=dict)

    def open(self) -> None:
        """As at the agent's start."""
        self.meter.offer(self.source.open(), at(0))

    def rows(self, count: int) -> list[Reading]:
        """Let so many seconds pass; returns what was read."""
        found: list[Reading] = []
        for _ in range(count):
            readings = list(self.source.read(self.second * SECOND))
            self.meter.observe(readings, at(self.second))
            found += readings
            self.second += 1
        return found

    def book(self) -> Book:
        """What the records say."""
        book = Book()
        book.add(self.meter.cut(at(self.second)))
        return book


def offers(readings: Sequence[Reading]) -> list[Offer]:
    """That a source was opened anew."""
    return [reading for reading in readings if isinstance(reading, Offer)]


def test_a_socket_of_hwmon_is_found_again_with_a_gap_for_its_absence(tmp_path: Path) -> None:
    """It was missing until the agent's next start, and nothing told of that."""
    host, files = machine("epyc_genoa", tmp_path), Files()
    metered = Metered(HwmonSource(host.sys, opener=files.opener, pread=files.pread))
    metered.open()
    metered.rows(10)
    kept = remove(host, files, "AMDI0097:01")
    assert [type(one) for one in metered.rows(GONE_READS)[1::2]] == [TryAgain] * (GONE_READS - 1) + [Gone]
    put_back(files, kept, "AMDI0097:01")
    assert len(offers(metered.rows(LOOK_SECONDS + 1))) == 1
    metered.rows(10)
    book = metered.book()
    first, second = book.numbers("cpu/1")
    back = book.accounts[second]
    (detail,) = back.details
    assert (detail.reason, detail.from_boottime_nanoseconds) == (pb.GAP_REASON_NOT_MEASURED, 9 * SECOND)
    seconds = (detail.to_boottime_nanoseconds - detail.from_boottime_nanoseconds) // SECOND
    assert seconds <= GONE_READS + LOOK_SECONDS + 2
    bound = next(one.power_bound_watts for one in metered.source.open() if one.key.device == "cpu/1")
    assert (back.gap_lower, back.gap_upper) == (0, round(bound * seconds * 1_000_000))
    # The one before is closed as it was, and the sibling has not felt anything.
    assert [channel.closed for channel in book.catalog.channels if channel.device == "cpu/1"] == [True, False]
    assert (first < second, book.accounts[first].details) == (True, [])
    (sibling,) = book.numbers("cpu/0")
    assert book.accounts[sibling].details == []
    assert set(book.accounts[sibling].values) == {second * SECOND for second in range(metered.second)}


def test_a_card_whose_counter_began_anew_has_a_gap_and_not_a_wrap(tmp_path: Path) -> None:
    """Intel's counter is in a new file then: the fall is no energy, and its tiles come back with it."""
    host, files = machine("intel_gpu_max", tmp_path), Files()
    metered = Metered(IntelGpuSource(host.sys, opener=files.opener, pread=files.pread))
    metered.open()
    metered.rows(10)
    kept = remove(host, files, "0000:3d:00.0")
    metered.rows(GONE_READS)
    put_back(files, kept, "0000:3d:00.0")
    write(chip(host, "0000:3d:00.0"), {"energy1_input": 5, "energy2_input": 1})
    metered.rows(LOOK_SECONDS + 10)
    book = metered.book()
    for domain in ("card", "pkg"):
        before, back = book.numbers("gpu/0000:3d:00.0", domain)
        assert [detail.reason for detail in book.accounts[back].details] == [pb.GAP_REASON_RESET]
        assert (book.accounts[back].energy, book.accounts[before].details) == (0, [])
    assert len(book.numbers("gpu/0000:29:00.0", "card")) == 1


def amd(host: Machine, files: Files, *, works: list[bool]) -> AmdGpuSource:
    """A source whose trials let accumulators go on as long as they work."""

    def settle(seconds: float) -> None:
        let_gpus_work(host, seconds, 1.0 if works[0] else 0.0)

    return AmdGpuSource(host.sys, smi=lambda: None, opener=files.opener, pread=files.pread, settle=settle)


def test_siblings_are_metered_as_before_when_a_gpu_is_back(tmp_path: Path) -> None:
    """A trial of theirs that fails, or finds them asleep, would close the channels of GPUs that nobody touched."""
    host, files, works = machine("mi300x", tmp_path), Files(), [True]
    metered = Metered(amd(host, files, works=works))
    metered.open()
    metered.rows(5)
    kept = remove(host, files, "0000:0c:00.0")
    metered.rows(GONE_READS)
    put_back(files, kept, "0000:0c:00.0")
    works[0] = False
    metered.rows(LOOK_SECONDS + 5)
    book = metered.book()
    gpus = {channel.device for channel in book.catalog.channels}
    assert len(gpus) == 8
    back = "gpu/6f0a1c3e00001000"
    assert [len(book.numbers(device)) for device in sorted(gpus - {back})] == [1] * 7
    # That of the one that is back is tried anew, and it does not move: its power is read.
    methods = [channel.method for channel in book.catalog.channels if channel.device == back]
    assert methods == [int(Method.COUNTER), int(Method.INTEGRAL)]
    assert book.account(back).gap_upper > 0


def test_another_gpu_in_the_same_slot_is_no_return(tmp_path: Path) -> None:
    """It has a number of its own: nothing of the first one's time is missing at it."""
    host, files = machine("mi300x", tmp_path), Files()
    metered = Metered(amd(host, files, works=[True]))
    metered.open()
    metered.rows(5)
    kept = remove(host, files, "0000:0c:00.0")
    metered.rows(GONE_READS)
    put_back(files, kept, "0000:0c:00.0")
    write(chip(host, "0000:0c:00.0"), {"unique_id": "00000000000000aa"})
    metered.rows(LOOK_SECONDS + 5)
    book = metered.book()
    assert len(book.numbers("gpu/6f0a1c3e00001000")) == 1
    assert book.account("gpu/00000000000000aa").details == []


def test_a_gpu_in_another_slot_is_found_too(tmp_path: Path) -> None:
    """By its own number it is the same one, and the time between is its gap."""
    host, files = machine("mi300x", tmp_path), Files()
    metered = Metered(amd(host, files, works=[True]))
    metered.open()
    metered.rows(5)
    place = chip(host, "0000:0c:00.0").name
    kept = remove(host, files, "0000:0c:00.0")
    metered.rows(GONE_READS)
    put_back(files, kept, "0000:f1:00.0")
    link = host.sys / "class/hwmon" / place
    link.unlink()
    link.symlink_to(chip(host, "0000:f1:00.0"))
    metered.rows(LOOK_SECONDS + 5)
    assert len(metered.book().numbers("gpu/6f0a1c3e00001000")) == 2
    assert len(tables(host)) == 8


def test_a_sibling_that_is_lost_while_the_source_opens_anew_is_gone(tmp_path: Path) -> None:
    """What it offered before and does not find now has said so: else its channel would stay open for ever."""
    host, files = machine("mi300x", tmp_path), Files()
    metered = Metered(amd(host, files, works=[True]))
    metered.open()
    metered.rows(5)
    kept = remove(host, files, "0000:0c:00.0")
    metered.rows(GONE_READS)
    put_back(files, kept, "0000:0c:00.0")
    (host.sys / "class/hwmon" / chip(host, "0000:38:00.0").name).unlink()
    # Its files stay open, and are read until the look.
    found = metered.rows(LOOK_SECONDS + 1)
    assert len(offers(found)) == 1
    (lost,) = [reading for reading in found if isinstance(reading, Gone)]
    assert "was not there when the source was opened again" in lost.reason


def test_nothing_is_looked_at_while_nothing_is_gone() -> None:
    """A look lists all chips of the host: once a minute, and only for who misses one."""
    gone = Chip("amdgpu", Path("/hwmon1"), Path("/0000:01:00.0"), 0)
    stays = Chip("amdgpu", Path("/hwmon2"), Path("/0000:02:00.0"), 0)
    looks: list[int] = []

    def find() -> list[Chip]:
        looks.append(len(looks))
        return [stays, gone] if len(looks) in (1, 4) else [stays]

    returning = Returning("amd_gpu", find)
    returning.opened()
    assert not any(returning.changes(second * SECOND, {}, [], list) for second in range(1000))
    assert len(looks) == 1
    away = {GPU.key: gone}
    come = [second for second in range(1000, 1200) if returning.changes(second * SECOND, away, [], list)]
    assert come == [1000 + 3 * LOOK_SECONDS]
    assert len(looks) == 4


def test_a_source_all_of_which_was_removed_has_gaps_too_when_it_is_found_again() -> None:
    """It is closed and looked for as a whole; its channels go on from their last readings all the same."""
    late = Found()
    agent = Agent(
        ScriptedSource("nvidia", lambda now: [Gone(GPU.key, "off")] if now > 5 * SECOND else [counter(GPU, now)], [GPU]),
        late=late,
    )
    agent.tick(30)
    late.next = [opened(ScriptedSource("nvidia", lambda now: [counter(GPU, now // 10, 1)], [GPU]))]
    agent.tick(10)
    book = agent.book()
    first, second = book.numbers("gpu/GPU-1")
    assert (book.accounts[first].energy, book.accounts[first].details) == (5 * SECOND, [])
    (detail,) = book.accounts[second].details
    assert (detail.from_boottime_nanoseconds, detail.to_boottime_nanoseconds) == (5 * SECOND, 30 * SECOND)
    assert book.accounts[second].energy == 9 * SECOND // 10


def test_a_counter_that_counted_on_tells_what_it_was_away() -> None:
    """The same rules as after any silence: same life of the counter, and no joule is missing."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    node = spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=1000.0)
    meter.offer([GPU, node], at(0))
    for second in range(3):
        meter.observe([counter(GPU, 100 * second), counter(node, 300 * second)], at(second))
    meter.observe([Gone(GPU.key, "off"), counter(node, 900)], at(3))
    for second in range(4, 20):
        meter.observe([counter(node, 300 * second)], at(second))
    meter.observe([Offer((GPU,), frozenset({GPU.key})), counter(GPU, 2000), counter(node, 6000)], at(20))
    book = Book()
    book.add(meter.cut(at(20)))
    assert sum(book.accounts[number].energy for number in book.numbers("gpu/GPU-1")) == 2000
    assert book.account("node", "residual").energy == 4000
    assert [account.details for account in book.accounts.values()] == [[], [], [], []]


def test_a_channel_that_was_closed_for_another_reason_begins_anew() -> None:
    """A counter that was counted elsewhere meanwhile would count that time twice."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer([GPU], at(0))
    for second in range(3):
        meter.observe([counter(GPU, 100 * second)], at(second))
    meter.observe([Gone(GPU.key, "mirrors another")], at(3))
    meter.observe([Offer((GPU,)), counter(GPU, 2000)], at(20))
    meter.observe([counter(GPU, 2100)], at(21))
    book = Book()
    book.add(meter.cut(at(21)))
    assert book.account("gpu/GPU-1").energy == 100


def test_an_unknown_chip_that_is_plugged_in_costs_one_look(tmp_path: Path) -> None:
    """A sensor of something else opens the source once, not each minute, and the part that stays away is not forgotten."""
    host, files = machine("epyc_genoa", tmp_path), Files()
    metered = Metered(HwmonSource(host.sys, opener=files.opener, pread=files.pread))
    metered.open()
    metered.rows(3)
    kept = remove(host, files, "AMDI0097:01")
    metered.rows(GONE_READS)
    add_chip(host, "stick", 77, {"name": "stick", "temp1_input": 30_000})
    assert len(offers(metered.rows(5 * LOOK_SECONDS))) == 1
    put_back(files, kept, "AMDI0097:01")
    metered.rows(LOOK_SECONDS + 2)
    assert metered.book().account("cpu/1").gap_upper > 0
