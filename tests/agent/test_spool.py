"""The spool on a fake disk that crashes, fills up, fails and rots; and on the real one."""

import errno
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.fake_disk import DiskCrashError, FakeDisk

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Cut
from wattledger_agent.spool import Record, Spool, SpoolError
from wattledger_agent.spool_files import Files, OsFiles
from wattledger_agent.spool_room import RESERVE_BYTES
from wattledger_protos.v1 import telemetry_pb2 as pb

FOLDER = Path("/state/spool")
BOOT = b"b" * 16
SECOND = 1_000_000_000
OPENING = Instant(BOOT, 5, 7, True, 0)


def epochs() -> Callable[[], bytes]:
    """Epoch ids that differ."""
    numbers = itertools.count(1)
    return lambda: next(numbers).to_bytes(16, "big")


EPOCHS = epochs()


def open_spool(
    files: Files, *, quota: int = 2**30, segment: int = 4096, machine: str = "m1", dmi: str = "d1", folder: Path = FOLDER
) -> Spool:
    """A spool of one machine with small segments."""
    return Spool.open(
        folder,
        machine_id=machine,
        dmi_uuid=dmi,
        opening=OPENING,
        new_epoch=EPOCHS,
        quota_bytes=quota,
        segment_bytes=segment,
        files=files,
    )


def cut(number: int, *, rows: int = 10, catalog_hash: int = 77) -> Cut:
    """A record's content: `rows` samples, one a second, of one channel that counts 3 J a sample; the n-th of its kind."""
    start = (number - 1) * rows
    payload = pb.Payload(
        boot_id=BOOT,
        catalog_hash=catalog_hash,
        clock=pb.ClockPair(boottime_nanoseconds=0, realtime_nanoseconds=0, synchronised=True),
        first_boottime_nanoseconds=(start + 1) * SECOND,
        boottime_delta_nanoseconds=[SECOND] * (rows - 1),
        columns=[
            pb.Column(channel=1, first_energy_microjoules=(start + 1) * 3, energy_delta_microjoules=[3] * (rows - 1)),
        ],
    )
    return Cut(payload.SerializeToString(), b"state %d" % number, b"catalog %d" % catalog_hash, catalog_hash, rows)


def records(spool: Spool) -> list[Record]:
    """All that the spool would send, in order."""
    found = []
    sequence = 1
    while (record := spool.find(sequence)) is not None:
        found.append(record)
        sequence = record.last_sequence + 1
    return found


def sequences(spool: Spool) -> list[int]:
    """The last sequences of all that the spool would send."""
    return [record.last_sequence for record in records(spool)]


@pytest.fixture(params=["fake", "os"])
def disk_and_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Files, Path]]:
    """Each implementation of Files."""
    if request.param == "fake":
        yield FakeDisk(), FOLDER
    else:
        yield OsFiles(), tmp_path / "state" / "spool"


def test_what_was_appended_is_found_again_after_a_restart(disk_and_folder: tuple[Files, Path]) -> None:
    """Epoch, opening, numbering, state, records and catalogs are those of before, over many segments."""
    files, folder = disk_and_folder
    spool = open_spool(files, folder=folder)
    for number in range(1, 101):
        assert spool.append(cut(number)) == number
    spool.acknowledge(40)
    spool.append(cut(101))
    before = records(spool)
    spool.close()

    again = open_spool(files, folder=folder)

    assert (again.epoch, again.epoch_opening) == (spool.epoch, OPENING)
    assert (again.oldest_sequence, again.next_sequence, again.acknowledged_sequence) == (1, 102, 40)
    assert (again.recovered_sequence, again.last_state) == (101, b"state 101")
    assert records(again) == before
    assert [record.payload for record in before] == [cut(number).payload for number in range(1, 102)]
    assert again.catalog(77) == b"catalog 77"
    assert again.unacknowledged_records == 61
    assert 61 * len(before[0].payload) < again.unacknowledged_bytes < 61 * 400
    again.close()


def test_a_second_agent_is_kept_out(disk_and_folder: tuple[Files, Path]) -> None:
    """The folder is locked until it is closed, and the error says what to do."""
    files, folder = disk_and_folder
    spool = open_spool(files, folder=folder)
    with pytest.raises(SpoolError, match=r"in use by another agent\. Stop that one"):
        open_spool(files, folder=folder)
    spool.close()
    open_spool(files, folder=folder).close()


def test_a_new_spool_is_empty() -> None:
    """Nothing is held, the first sequence is 1, and the meter begins anew."""
    spool = open_spool(FakeDisk())
    assert (spool.oldest_sequence, spool.next_sequence, spool.acknowledged_sequence) == (1, 1, 0)
    assert (spool.last_state, spool.find(1), spool.catalog(5), spool.recovered_sequence) == (None, None, None, 0)
    assert spool.unacknowledged_records == 0


def test_an_epoch_without_a_record_begins_anew() -> None:
    """A start that died before its first record leaves nothing to go on from."""
    disk = FakeDisk()
    first = open_spool(disk)
    disk.crash()
    assert open_spool(disk).epoch != first.epoch


@pytest.mark.parametrize("seed", range(40))
def test_what_append_returned_for_survives_any_crash(seed: int) -> None:
    """Whatever operation the machine dies in, all durable records are there, and at most the one under way besides."""
    disk = FakeDisk(seed)
    done = 0
    for start in range(12):
        spool = open_spool(disk)
        assert spool.next_sequence - 1 in (done, done + 1)
        assert sequences(spool) == list(range(1, spool.next_sequence))
        done = spool.next_sequence - 1
        disk.crash_after((seed * 7 + start * 5) % 31)
        try:
            while True:
                spool.append(cut(done + 1))
                done += 1
        except DiskCrashError:
            disk.crash()
    assert disk.torn_writes > 0


def small_spool() -> tuple[FakeDisk, Path, bytes]:
    """One segment with five records; the second begins with another catalog."""
    disk = FakeDisk()
    spool = open_spool(disk)
    for number in range(1, 6):
        spool.append(cut(number, catalog_hash=77 if number < 3 else 78))
    spool.close()
    path = FOLDER / "000000000001.segment"
    return disk, path, disk.contents(path)


def test_truncation_at_every_byte_loses_only_what_was_cut() -> None:
    """The spool goes on from the last whole record before the cut, and takes the next one."""
    disk, path, data = small_spool()
    whole = disk.snapshot()
    found = set()
    for length in range(len(data)):
        disk.roll_back(whole)
        disk.truncate(disk.open(path), length)
        spool = open_spool(disk)
        kept = sequences(spool)
        assert kept == list(range(1, len(kept) + 1))
        assert spool.next_sequence == len(kept) + 1
        assert spool.last_state == (b"state %d" % len(kept) if kept else None)
        spool.append(cut(len(kept) + 1))
        spool.close()
        assert sequences(open_spool(disk)) == [*kept, len(kept) + 1]
        found.add(len(kept))
    assert found == {0, 1, 2, 3, 4}


def test_a_flipped_bit_at_every_byte_loses_at_most_one_record() -> None:
    """All records before and behind the damage are recovered, under the same epoch, and the spool goes on."""
    disk, path, data = small_spool()
    whole = disk.snapshot()
    epoch = open_spool(disk).epoch
    for offset in range(len(data)):
        disk.roll_back(whole)
        disk.flip(path, offset, 1 << offset % 8)
        spool = open_spool(disk)
        kept = sequences(spool)
        assert len(kept) >= 4
        assert set(kept) <= {1, 2, 3, 4, 5}
        assert spool.epoch == epoch
        assert all(record.payload == cut(record.last_sequence, catalog_hash=record.catalog_hash).payload
                   for record in records(spool))  # fmt: skip
        assert spool.append(cut(9)) == kept[-1] + 1
        spool.close()
        assert sequences(open_spool(disk)) == [*kept, kept[-1] + 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=300)), max_size=6))
def test_no_damage_whatever_makes_the_spool_unusable(damages: list[tuple[int, bytes]]) -> None:
    """Bytes overwritten anywhere, over several segments: no record is changed, and the next one is taken."""
    disk = FakeDisk()
    spool = open_spool(disk, segment=700)
    for number in range(1, 9):
        spool.append(cut(number))
    spool.close()
    paths = [path for path in disk.paths() if path.suffix == ".segment"]
    assert len(paths) > 3
    for place, data in damages:
        handle = disk.open(paths[place % len(paths)])
        disk.write(handle, data, place // len(paths) % disk.size(handle))
        disk.sync(handle)
        disk.close(handle)
    spool = open_spool(disk, segment=700)
    payloads = [cut(number).payload for number in range(1, 9)]
    assert all(record.payload == payloads[record.last_sequence - 1] for record in records(spool))
    spool.append(cut(9))
    assert spool.find(spool.next_sequence - 1) is not None


def test_a_record_that_rots_while_the_spool_is_open_is_skipped() -> None:
    """Contents are checked again when they are read."""
    disk = FakeDisk()
    spool = open_spool(disk)
    for number in range(1, 6):
        spool.append(cut(number))
    path = FOLDER / "000000000001.segment"
    disk.flip(path, disk.contents(path).index(cut(3).payload))
    assert sequences(spool) == [1, 2, 4, 5]


def test_a_failed_sync_goes_on_in_a_new_segment() -> None:
    """The record is durable on return although a sync failed, and no file is synced again after its failure."""
    disk = FakeDisk()
    spool = open_spool(disk)
    spool.append(cut(1))
    disk.fail_syncs(1)
    assert spool.append(cut(2)) == 2
    assert [path.name for path in disk.paths() if path.suffix == ".segment"] == [
        "000000000001.segment",
        "000000000002.segment",
    ]
    spool.append(cut(3))
    disk.crash()
    again = open_spool(disk)
    assert sequences(again) == [1, 2, 3]
    assert again.last_state == b"state 3"


def test_a_disk_that_fails_always_is_an_error_that_metering_survives() -> None:
    """The error names folder and remedy; when the disk works again the same sequence is taken."""
    disk = FakeDisk()
    spool = open_spool(disk)
    spool.append(cut(1))
    disk.fail_syncs(100)
    with pytest.raises(SpoolError, match=r"/state/spool: .*Check the disk"):
        spool.append(cut(2))
    disk.fail_syncs(0)
    disk.fail_writes(100, errno.EROFS)
    with pytest.raises(SpoolError, match=r"state_dir"):
        spool.append(cut(3))
    disk.fail_writes(0)
    assert spool.append(cut(4)) == 2
    disk.crash()
    again = open_spool(disk)
    assert (sequences(again), again.last_state) == ([1, 2], b"state 4")


def test_the_newer_of_two_records_with_one_sequence_is_believed() -> None:
    """A record whose sync failed may be there all the same; the one that was made durable instead of it holds."""
    disk = FakeDisk()
    spool = open_spool(disk)
    spool.append(cut(1))
    before = disk.snapshot()
    spool.append(cut(2))
    stale = disk.snapshot()
    disk.roll_back(before)
    spool = open_spool(disk)
    disk.fail_syncs(1)
    spool.append(cut(5))
    spool.append(cut(6))
    newer = disk.snapshot()
    disk.roll_back(
        type(newer)({**stale.files, FOLDER / "000000000002.segment": newer.files[FOLDER / "000000000002.segment"]})
    )
    again = open_spool(disk)
    assert [record.payload for record in records(again)] == [cut(number).payload for number in (1, 5, 6)]


def test_another_machines_spool_is_set_aside() -> None:
    """A cloned image never sends its original's records: a new epoch begins."""
    disk = FakeDisk()
    spool = open_spool(disk)
    spool.append(cut(1))
    spool.close()
    clone = open_spool(disk, dmi="d2")
    assert clone.epoch != spool.epoch
    assert (clone.find(1), clone.last_state, clone.next_sequence) == (None, None, 1)
    assert [path.name for path in disk.paths() if "aside" in path.name] == ["000000000001.segment.aside"]
    clone.append(cut(1))
    clone.close()
    assert sequences(open_spool(disk, dmi="d2")) == [1]


def test_an_unknown_machine_id_does_not_part_a_spool_from_its_machine() -> None:
    """An agent without the right to read the DMI UUID goes on, and what was known stays known."""
    disk = FakeDisk()
    spool = open_spool(disk)
    spool.append(cut(1))
    spool.close()
    unprivileged = open_spool(disk, machine="", dmi="")
    assert unprivileged.epoch == spool.epoch
    disk.fail_syncs(1)  # So that a new segment begins.
    unprivileged.append(cut(2))
    unprivileged.close()
    assert open_spool(disk, machine="", dmi="d2").epoch != spool.epoch


def test_renewal_begins_an_epoch_that_survives() -> None:
    """What the old epoch held is gone, the first sequence is 1 again, and a restart finds the new epoch."""
    disk = FakeDisk()
    spool = open_spool(disk)
    for number in range(1, 41):
        spool.append(cut(number))
    old = spool.epoch
    later = Instant(BOOT, 9, 11, True, 0)
    spool.renew(later)
    assert (spool.next_sequence, spool.acknowledged_sequence, spool.last_state) == (1, 0, None)
    assert spool.append(cut(1)) == 1
    disk.crash()
    again = open_spool(disk)
    assert (again.epoch, again.epoch_opening) == (spool.epoch, later)
    assert again.epoch != old
    assert sequences(again) == [1]


def test_records_that_can_not_be_gone_on_from_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Set aside under a new epoch, with what to do; nothing of them is sent, and a restart leaves them where they are."""
    disk = FakeDisk()
    spool = open_spool(disk)
    for number in range(1, 41):
        spool.append(cut(number))
    spool.acknowledge(30)
    held = {disk.contents(path) for path in disk.paths() if path.suffix == ".segment"}
    old = spool.epoch
    with caplog.at_level(logging.ERROR):
        spool.set_aside(Instant(BOOT, 9, 11, True, 0))
    assert (spool.next_sequence, spool.last_state, spool.find(1)) == (1, None, None)
    spool.append(cut(1))
    disk.crash()
    again = open_spool(disk)
    assert again.epoch == spool.epoch != old
    assert sequences(again) == [1]
    assert {disk.contents(path) for path in disk.paths() if path.name.endswith(".segment.aside")} == held
    (told,) = caplog.messages
    assert "10 records that no collector has acknowledged are set aside as" in told
    assert "*.segment.aside" in told


def test_what_was_set_aside_gives_way_to_new_records() -> None:
    """It is within the quota, and goes first."""
    disk = FakeDisk()
    spool = open_spool(disk, quota=RESERVE_BYTES + 40_000)
    for number in range(1, 41):
        spool.append(cut(number))
    spool.set_aside(OPENING)
    for number in range(1, 1000):
        spool.append(cut(number))
        assert spool.stored_bytes <= RESERVE_BYTES + 40_000
    assert not [path for path in disk.paths() if "aside" in path.name]


def test_a_folder_that_can_not_be_set_aside_is_told() -> None:
    """In the words of a spool that can't be used, and nothing has changed."""
    disk = ReadOnlyDisk()
    spool = open_spool(disk)
    spool.append(cut(1))
    epoch = spool.epoch
    disk.read_only = True
    with pytest.raises(SpoolError, match="Let the agent's user write to it"):
        spool.set_aside(OPENING)
    assert (spool.epoch, spool.next_sequence) == (epoch, 2)


class ReadOnlyDisk(FakeDisk):
    """A disk on which nothing may be renamed, once a test says so."""

    read_only = False

    def rename(self, old: Path, new: Path) -> None:
        """As a disk, or the error."""
        if self.read_only:
            raise OSError(errno.EROFS, "Read-only file system")
        super().rename(old, new)


def test_whoever_sees_a_new_epoch_sees_its_numbers() -> None:
    """The shipper's thread may look at any moment of a renewal: no Hello of the new epoch with the old one's sequences."""
    opened: list[Spool] = []
    seen: list[tuple[int, int, int]] = []

    def epoch() -> bytes:
        seen.extend((spool.next_sequence, spool.acknowledged_sequence, spool.recovered_sequence) for spool in opened)
        return bytes([len(seen)]) * 16

    disk = FakeDisk()
    opened.append(Spool.open(FOLDER, machine_id="m", dmi_uuid="", opening=OPENING, new_epoch=epoch, files=disk))
    for number in range(1, 4):
        opened[0].append(cut(number))
    opened[0].acknowledge(2)
    before = opened[0].epoch
    opened[0].renew(OPENING)
    assert opened[0].epoch != before
    assert seen == [(1, 0, 0)]


class ClosedDisk(FakeDisk):
    """A disk that may open no more files."""

    closed = False

    def open(self, path: Path) -> int:
        """As a disk, or the error."""
        if self.closed:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return super().open(path)


def test_what_waits_is_told_even_where_the_disk_fails() -> None:
    """Counted in whole segments then: the sampler asks for it at each Live, and must not end of it."""
    disk = ClosedDisk()
    spool = open_spool(disk)
    for number in range(1, 101):
        spool.append(cut(number))
    spool.acknowledge(3)
    exact = spool.unacknowledged_records, spool.unacknowledged_bytes
    assert exact[0] == 97
    spool.find(50)  # The segment that was read last is another one now.
    disk.closed = True
    assert spool.unacknowledged_records == 100
    assert spool.unacknowledged_bytes > exact[1]


def test_a_segment_that_someone_took_away_costs_itself_alone() -> None:
    """What the others hold is found, and so are their catalogs."""
    disk = FakeDisk()
    spool = open_spool(disk)
    for number in range(1, 101):
        spool.append(cut(number, catalog_hash=77 if number <= 40 else 78))
    spool.find(1)
    disk.remove(FOLDER / "000000000002.segment")  # The newest that has catalog 77.
    taken = spool.find(22)
    assert taken is not None
    assert taken.last_sequence == 43
    assert spool.catalog(77) == b"catalog 77"
    assert spool.catalog(78) == b"catalog 78"


def test_the_quota_takes_acknowledged_records_first() -> None:
    """While there are any, nothing is thinned or dropped, and the spool stays within its quota."""
    spool = open_spool(FakeDisk(), quota=RESERVE_BYTES + 40_000, segment=4096)
    for number in range(1, 1001):
        spool.append(cut(number))
        spool.acknowledge(number - 60)
        assert spool.stored_bytes <= RESERVE_BYTES + 40_000
    assert (spool.thinned_samples, spool.dropped_records) == (0, 0)
    assert spool.oldest_sequence > 1
    assert sequences(spool)[-5:] == [996, 997, 998, 999, 1000]


def energy_at(found: list[Record]) -> dict[int, int]:
    """Cumulative energy by time, over all samples of these records."""
    energies: dict[int, int] = {}
    for record in found:
        payload = pb.Payload.FromString(record.payload)
        time, energy = payload.first_boottime_nanoseconds, payload.columns[0].first_energy_microjoules
        energies[time] = energy
        column = payload.columns[0]
        assert not column.present_mask
        for step, delta in zip(payload.boottime_delta_nanoseconds, column.energy_delta_microjoules, strict=True):
            time, energy = time + step, energy + delta
            energies[time] = energy
    return energies


def test_a_full_quota_thins_before_it_drops() -> None:
    """Unsent records lose samples, not energy: every value kept is true, those around interval boundaries are kept."""
    spool = open_spool(FakeDisk(), quota=RESERVE_BYTES + 60_000, segment=6000)
    for number in range(1, 501):
        spool.append(cut(number))
        assert spool.stored_bytes <= RESERVE_BYTES + 60_000
    assert spool.thinned_samples > 0
    assert spool.dropped_records == 0
    found = records(spool)
    assert [record.first_sequence for record in found] == [1, *(record.last_sequence + 1 for record in found[:-1])]
    energies = energy_at(found)
    assert all(energy * SECOND == 3 * time for time, energy in energies.items())
    assert len(energies) == 5000 - spool.thinned_samples
    for boundary in range(900, 5000, 900):
        assert {boundary - 1, boundary} <= {time // SECOND for time in energies}
    assert spool.unacknowledged_records == len(found)
    assert max(energies) == 5000 * SECOND


def test_a_record_that_was_thinned_alone_says_so() -> None:
    """Its sequence is what it was and its bytes are not: no sign of another history."""
    disk = FakeDisk()
    spool = open_spool(disk, quota=RESERVE_BYTES + 60_000, segment=6000)
    for number in range(1, 61):
        spool.append(cut(number, rows=1000))
    for _ in range(2):
        first, newest = spool.find(1), spool.find(60)
        assert first is not None
        assert newest is not None
        assert (first.first_sequence, first.last_sequence) == (1, 1)
        assert first.payload != cut(1, rows=1000).payload
        assert first.is_thinned
        assert not newest.is_thinned
        disk.kill()
        spool = open_spool(disk, quota=RESERVE_BYTES + 60_000, segment=6000)


def test_a_quota_too_small_for_thinned_records_drops_the_oldest() -> None:
    """The newest record always stays, and with it the state to go on from."""
    spool = open_spool(FakeDisk(), quota=RESERVE_BYTES + 5000, segment=10**6)
    for number in range(1, 3001):
        spool.append(cut(number))
    assert spool.dropped_records > 0
    assert spool.last_state == b"state 3000"
    assert spool.oldest_sequence > 1
    assert sequences(spool)[-1] == 3000


@pytest.mark.parametrize("seed", range(8))
def test_a_full_disk_thins_with_the_room_of_the_reserve(seed: int) -> None:
    """Other programs take all room at any time: appending goes on, and nothing is dropped while thinning gives room."""
    disk = FakeDisk(seed, capacity_bytes=400_000)
    spool = open_spool(disk, segment=6000)
    for number in range(1, 101):
        spool.append(cut(number))
    disk.fill(disk.free_bytes)
    for number in range(101, 141):
        assert spool.append(cut(number)) == number
    assert disk.full_errors > 0
    assert spool.thinned_samples > 0
    assert spool.dropped_records == 0
    assert all(energy * SECOND == 3 * time for time, energy in energy_at(records(spool)).items())
    disk.crash()
    again = open_spool(disk, segment=6000)
    assert again.last_state == b"state 140"
    assert max(energy_at(records(again))) == 1400 * SECOND


def test_a_disk_without_any_room_is_an_error_that_keeps_the_newest_record() -> None:
    """Nothing is left to give up but the state to go on from; with room again the same sequence is taken."""
    disk = FakeDisk(capacity_bytes=200_000)
    spool = open_spool(disk)
    spool.append(cut(1))
    disk.fill(10**9)
    with pytest.raises(SpoolError, match=r"disk is full .*Free disk space"):
        spool.append(cut(2))
    assert sequences(spool) == [1]
    disk.fill(0)
    assert spool.append(cut(3)) == 2
    assert sequences(spool) == [1, 2]


def test_another_program_that_eats_all_room_does_not_cost_the_backlog() -> None:
    """Where giving up records frees nothing, a record is refused rather than every segment dropped for it."""
    disk = FakeDisk(capacity_bytes=400_000)
    spool = open_spool(disk, segment=2000)
    for number in range(1, 201):
        spool.append(cut(number))
    disk.fill(10**9)
    for _ in range(3):
        with pytest.raises(SpoolError):
            spool.append(cut(201))
    assert len(sequences(spool)) > 10


@pytest.mark.parametrize("seed", range(30))
def test_crashes_while_the_disk_is_full_lose_no_durable_record(seed: int) -> None:
    """Thinning replaces a segment in one step, so that a crash within it leaves the old contents or the new."""
    disk = FakeDisk(seed, capacity_bytes=300_000)
    spool = open_spool(disk, segment=4000)
    for number in range(1, 61):
        spool.append(cut(number))
    disk.fill(disk.free_bytes)
    done = 60
    for start in range(6):
        disk.crash_after(3 + (seed * 11 + start * 7) % 40)
        try:
            while True:
                spool.append(cut(done + 1))
                done += 1
        except DiskCrashError:
            disk.crash()
        spool = open_spool(disk, segment=4000)
        assert spool.next_sequence - 1 in (done, done + 1)
        assert spool.oldest_sequence == 1
        done = spool.next_sequence - 1
        energies = energy_at(records(spool))
        assert all(energy * SECOND == 3 * time for time, energy in energies.items())
        assert max(energies) == 10 * done * SECOND


def test_the_newest_record_is_found_without_the_disk() -> None:
    """The common case, a record sent as soon as it is spooled, costs no system call."""
    disk = FakeDisk()
    spool = open_spool(disk)
    for number in range(1, 4):
        spool.append(cut(number))
    before = disk.operations
    assert spool.find(3) == Record(3, 3, cut(3).payload, 77)
    assert spool.find(4) is None
    assert disk.operations == before


def test_a_backlog_is_read_with_few_operations_a_record() -> None:
    """A segment's table of contents is made once, not for each of its records."""
    disk = FakeDisk()
    spool = open_spool(disk, segment=20_000)
    for number in range(1, 401):
        spool.append(cut(number))
    before = disk.operations
    assert len(records(spool)) == 400
    assert disk.operations - before < 400 * 2


def test_an_append_costs_two_operations() -> None:
    """One write and one sync a record is all that the disk sees."""
    disk = FakeDisk()
    spool = open_spool(disk, segment=10**6)
    spool.append(cut(1))
    before = disk.operations
    spool.append(cut(2))
    assert disk.operations - before == 2


def test_a_newer_format_is_refused_with_its_remedy() -> None:
    """An older agent does not touch what a newer one wrote."""
    disk, path, _ = small_spool()
    from wattledger_agent import spool_format

    data = disk.contents(path)
    header = spool_format.scan(data).header
    assert header is not None
    start = data.index(b"WATTLEDGER-SPOOL")
    contents = bytearray(data[start : data.index(b"\xabWLr", start)])
    contents[16] += 1
    newer = spool_format._frame(spool_format.RecordType.HEADER, header.epoch, 0, 0, 0, 0, bytes(contents), b"")
    handle = disk.open(path)
    disk.truncate(handle, 0)
    disk.write(handle, newer, 0)
    with pytest.raises(SpoolError, match=r"newer than 1.* Install the release"):
        open_spool(disk)


def test_an_unwritable_folder_names_the_remedy(tmp_path: Path) -> None:
    """The first words of an agent that can't write say where and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"the spool can't be used"):
        open_spool(OsFiles(), folder=tmp_path / "file" / "spool")
