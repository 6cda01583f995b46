"""Sleeping, lost and returning GPUs: who is woken (nobody), who is offered, and when the source should be opened anew."""

from collections.abc import Sequence
from pathlib import Path

from tests.agent.fake_nvml import PATIENCE_SECONDS, UNKNOWN, FakeGpu, FakeNvml
from tests.agent.metering import Book, at

from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    CounterReading,
    Gone,
    Method,
    Offer,
    PowerReading,
    Reading,
    TryAgain,
)
from wattledger_agent.sources.nvidia import LOST_READS_MAX, NvidiaSource

SECOND = 1_000_000_000
UUID = "GPU-6f3a2b1c-0000-0000-0000-000000000001"
KEY = ChannelKey(f"gpu/{UUID}", "board", "nvidia")

INFORMATION = """Model: \t\t NVIDIA GeForce RTX 4070 Laptop GPU
IRQ:   \t\t 187
GPU UUID: \t {uuid}
Video BIOS: \t 95.06.22.00.4e
Bus Location: \t 0000:01:00.0
"""


def add_gpu(root: Path, address: str, *, control: str = "on", status: str = "active") -> Path:
    """Put a GPU into a sysfs tree; returns its folder."""
    folder = root / "sys/bus/pci/devices" / address
    (folder / "power").mkdir(parents=True)
    (folder / "vendor").write_text("0x10de\n")
    (folder / "class").write_text("0x030000\n")
    (folder / "power/control").write_text(f"{control}\n")
    (folder / "power/runtime_status").write_text(f"{status}\n")
    bind(root, address)
    return folder


def bind(root: Path, address: str) -> None:
    """Bind a GPU to the driver, anew if it was bound."""
    link = root / "sys/bus/pci/devices" / address / "driver"
    # The kernel never gives a number twice: the old link stays until the new one is made.
    new = link.with_name("driver.new")
    new.symlink_to("../../../drivers/nvidia")
    new.replace(link)


def know(root: Path, address: str, uuid: str) -> None:
    """Let the driver tell who a GPU is."""
    folder = root / "proc/driver/nvidia/gpus" / address
    folder.mkdir(parents=True)
    (folder / "information").write_text(INFORMATION.format(uuid=uuid))


def energy(readings: object) -> list[Reading]:
    """What a read says of channels."""
    assert isinstance(readings, list)
    return [one for one in readings if isinstance(one, CounterReading | PowerReading | TryAgain | Gone)]


def source_of(root: Path, nvml: FakeNvml) -> NvidiaSource:
    """A source on this tree."""
    return NvidiaSource(root / "sys", root / "proc", patience_seconds=PATIENCE_SECONDS, nvml=nvml)


def test_a_gpu_that_sleeps_at_the_start_is_not_woken(tmp_path: Path) -> None:
    """It is offered by what procfs knows, and no call of NVML names it: its handle alone would wake it."""
    folder = add_gpu(tmp_path, "0000:01:00.0", control="auto", status="suspended")
    know(tmp_path, "0000:01:00.0", UUID)
    nvml = FakeNvml([FakeGpu(UUID, bus_id="00000000:01:00.0", persistent=False)])
    source = source_of(tmp_path, nvml)
    (spec,) = source.open()
    assert (spec.key, spec.method) == (KEY, Method.INTEGRAL)
    assert spec.model == "NVIDIA GeForce RTX 4070 Laptop GPU"
    (reading,) = source.read(SECOND)
    assert isinstance(reading, TryAgain)
    assert set(nvml.calls) == {"nvmlInit"}
    (folder / "power/runtime_status").write_text("active\n")
    assert energy(source.read(2 * SECOND)) == [PowerReading(KEY, 350_000_000)]
    source.close()


def test_those_that_are_awake_beside_a_sleeper_are_found_by_their_address(tmp_path: Path) -> None:
    """Going through the GPUs by number would wake the sleeper."""
    add_gpu(tmp_path, "0000:01:00.0", control="auto", status="suspended")
    add_gpu(tmp_path, "0000:3b:00.0")
    know(tmp_path, "0000:01:00.0", UUID)
    sleeper, awake = FakeGpu(UUID, bus_id="00000000:01:00.0"), FakeGpu("GPU-b", bus_id="00000000:3B:00.0")
    nvml = FakeNvml([sleeper, awake])
    source = source_of(tmp_path, nvml)
    assert {(spec.key.device, spec.method) for spec in source.open()} == {
        (f"gpu/{UUID}", Method.INTEGRAL),
        ("gpu/GPU-b", Method.COUNTER),
    }
    assert "nvmlDeviceGetHandleByIndex" not in nvml.calls
    assert nvml.calls["nvmlDeviceGetHandleByPciBusId"] == 1
    source.close()


def test_a_sleeper_that_nobody_knows_yet_is_noted_and_offered_once_it_woke(tmp_path: Path) -> None:
    """Before its first use the driver has question marks for its UUID; the source then asks to be opened anew."""
    folder = add_gpu(tmp_path, "0000:01:00.0", control="auto", status="suspended")
    know(tmp_path, "0000:01:00.0", "GPU-????????-????-????-????-????????????")
    add_gpu(tmp_path, "0000:3b:00.0")
    nvml = FakeNvml([FakeGpu(UUID, bus_id="00000000:01:00.0"), FakeGpu("GPU-b", bus_id="00000000:3B:00.0")])
    source = source_of(tmp_path, nvml)
    assert [spec.key.device for spec in source.open()] == ["gpu/GPU-b"]
    assert any("not known yet" in note for note in source.notes())
    assert not source.wants_reopening()
    (folder / "power/runtime_status").write_text("active\n")
    assert source.wants_reopening()
    assert KEY in {spec.key for spec in source.open()}
    assert not source.wants_reopening()
    source.close()


def with_one_lost(root: Path) -> tuple[FakeNvml, NvidiaSource, tuple[ChannelSpec, ...], Sequence[Reading]]:
    """A source of two GPUs of which the first fell off the bus: NVML, the source, what it offered, and its last read."""
    add_gpu(root, "0000:3b:00.0")
    nvml = FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b", bus_id="00000000:5E:00.0")])
    source = source_of(root, nvml)
    first = tuple(source.open())
    nvml.gpus[0].lost = True
    readings: Sequence[Reading] = ()
    for second in range(1, LOST_READS_MAX + 1):
        readings = source.read(second * SECOND)
    return nvml, source, first, readings


def test_a_gpu_that_was_bound_anew_is_offered_again_under_its_uuid(tmp_path: Path) -> None:
    """Gone once, it stays gone in this run of NVML; bound to its driver again, the source asks to be opened anew."""
    nvml, source, first, readings = with_one_lost(tmp_path)
    assert isinstance(readings[0], Gone)
    assert not source.wants_reopening()
    nvml.gpus[0].lost = False
    assert energy(source.read(9 * SECOND)) == [CounterReading(first[1].key, 10**12, 0)]
    bind(tmp_path, "0000:3b:00.0")
    assert source.wants_reopening()
    readings = source.read(20 * SECOND)
    assert isinstance(readings, list)
    assert readings[0] == Offer(first, frozenset({first[0].key}))
    assert nvml.calls["nvmlShutdown"] == 1
    assert [one.key for one in energy(readings) if isinstance(one, CounterReading)] == [spec.key for spec in first]
    assert not [one for one in source.read(30 * SECOND) if isinstance(one, Offer)]
    source.close()


def test_a_gpu_that_came_back_is_metered_again_and_the_other_one_went_on(tmp_path: Path) -> None:
    """Its channel is closed and a new one opened at 0; what it used meanwhile stands in a gap, and in no figure."""
    add_gpu(tmp_path, "0000:3b:00.0")
    nvml = FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b", bus_id="00000000:5E:00.0")])
    source = source_of(tmp_path, nvml)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(source.open(), at(0))
    for second in range(1, 41):
        nvml.advance(1.0)
        nvml.gpus[0].lost = 10 <= second < 30
        if second == 29:
            bind(tmp_path, "0000:3b:00.0")
        meter.observe(source.read(second * SECOND), at(second))
    book = Book()
    book.add(meter.cut(at(41)))
    energies = sorted((channel.device, book.accounts[channel.channel].energy) for channel in book.catalog.channels)
    # From 1 s to 9 s, and from the look after 30 s to 40 s; the other one all the time.
    assert energies[0][1] + energies[1][1] in {(8 + seconds) * 350_000_000 for seconds in range(5, 11)}
    assert energies[2] == ("gpu/GPU-b", 39 * 350_000_000)
    (gap,) = book.account("gpu/GPU-a").details
    assert gap.from_boottime_nanoseconds == 9 * SECOND
    assert 30 * SECOND <= gap.to_boottime_nanoseconds <= 35 * SECOND
    source.close()


def test_where_nvml_finds_nothing_when_it_is_started_anew_it_is_tried_again(tmp_path: Path) -> None:
    """All that was metered is gone; the next look that finds GPUs offers them."""
    nvml, source, first, _ = with_one_lost(tmp_path)
    bind(tmp_path, "0000:3b:00.0")
    nvml.fail["nvmlInit"] = lambda number: UNKNOWN if number == 2 else 0
    gone = source.read(20 * SECOND)
    assert [one.key for one in gone if isinstance(one, Gone)] == [first[1].key]
    assert len(gone) == 1
    assert source.read(21 * SECOND) == []
    nvml.gpus[0].lost = False
    assert source.read(30 * SECOND)[0] == Offer(first, frozenset({first[0].key, first[1].key}))
    source.close()


def test_a_gpu_that_was_bound_anew_has_another_generation(tmp_path: Path) -> None:
    """Its counter began anew with it, though the driver's module stayed loaded."""
    add_gpu(tmp_path, "0000:3b:00.0")
    generations = set()
    for _ in range(2):
        source = source_of(tmp_path, FakeNvml([FakeGpu("GPU-a")]))
        source.open()
        generations |= {one.generation for one in energy(source.read(SECOND)) if isinstance(one, CounterReading)}
        source.close()
        bind(tmp_path, "0000:3b:00.0")
    assert len(generations) == 2


def test_an_unreadable_gpu_beside_a_sleeper_is_noted_by_its_address(tmp_path: Path) -> None:
    """A GPU that NVML does not find at its address costs nobody else a channel."""
    add_gpu(tmp_path, "0000:01:00.0", control="auto", status="suspended")
    know(tmp_path, "0000:01:00.0", UUID)
    add_gpu(tmp_path, "0000:99:00.0")
    source = source_of(tmp_path, FakeNvml([FakeGpu(UUID, bus_id="00000000:01:00.0")]))
    assert [spec.key for spec in source.open()] == [KEY]
    assert any("0000:99:00.0 can't be opened" in note for note in source.notes())
    source.close()
