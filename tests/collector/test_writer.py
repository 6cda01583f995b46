"""The writer commits in groups, answers after the commit, and never acknowledges what the database did not take."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.collector import batches
from tests.collector.batches import WATT, column, enveloped, hello, info, payload

from wattledger_collector import database
from wattledger_collector.records import AssignmentRow, Booking, ChannelInfo, CommitOutcome, Host, StoreError
from wattledger_collector.session import Book, OpenStream
from wattledger_collector.store import SqliteStore
from wattledger_collector.wire import check_batch, check_hello
from wattledger_collector.writer import Done, Failed, Writer

SECOND = batches.SECOND
CHANNELS = {1: info(1)}


class WatchedStore(SqliteStore):
    """A store that tells what is asked of it, and can be stopped before a commit or made to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, database.open_database(path, create=True, interval_seconds=900))
        self.groups: list[list[str]] = []
        self.loads: list[str] = []
        self.failures: list[Exception] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.committing = threading.Event()

    def load_host(self, host: str) -> Host | None:
        """As the store, and noted."""
        self.loads.append(host)
        return super().load_host(host)

    def commit(self, bookings: Sequence[Booking]) -> list[CommitOutcome]:
        """As the store, once the test lets it."""
        self.committing.set()
        assert self.go_on.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        outcomes = super().commit(bookings)
        self.groups.append([booking.host_after.host for booking in bookings])
        return outcomes

    def energy(self) -> int:
        """All energy in the rows."""
        return sum(row.energy_microjoules for row in self.host_energy(0, 2**40))


def opens(host: str = "a", *, epoch: bytes = batches.EPOCH) -> OpenStream:
    """The work of a Hello."""
    checked = replace(check_hello(hello(epoch=epoch)), host=host, machine_id=host)
    return OpenStream(checked, batches.UTC + SECOND)


def books(
    sequence: int, joules: int, host: str = "a", *, channels: Mapping[int, ChannelInfo] = CHANNELS, new: bool = False
) -> Book:
    """The work of a batch with one sample, taken in the second of its sequence."""
    content = payload([sequence * SECOND], [column(1, [joules * WATT])])
    batch = check_batch(enveloped(content, sequence))
    return Book(host, batches.EPOCH, batch, channels, tuple(channels.values()) if new else ())


async def done(writer: Writer, work: OpenStream | Book) -> CommitOutcome:
    """The outcome of a work that is expected to be done."""
    answer = await writer.submit(work)
    assert isinstance(answer, Done), answer
    return answer.outcome


def run(path: Path, scene: Callable[[WatchedStore, Writer], Awaitable[None]]) -> None:
    """Play a scene with a store and a writer that is started and stopped around it."""

    async def play() -> None:
        store = WatchedStore(path / "ledger.db")
        writer = Writer(store, collector="c1", clock=lambda: 5.0)
        writer.start()
        try:
            await scene(store, writer)
        finally:
            store.go_on.set()
            await writer.stop()
            store.close()

    asyncio.run(play())


def test_a_hello_and_batches_are_committed(tmp_path: Path) -> None:
    """Energy is in the rows when the answer comes, and the rows are read from the database once."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        assert await done(writer, opens()) is CommitOutcome.COMMITTED
        for sequence in (1, 2, 3):
            assert await done(writer, books(sequence, 10 * sequence, new=sequence == 1)) is CommitOutcome.COMMITTED
            assert store.energy() == 10 * sequence * WATT
        assert store.loads == ["a"]
        assert (writer.counts.committed, writer.counts.commits, writer.healthy, writer.waiting) == (4, 4, True, 0)

    run(tmp_path, scene)


def test_accounts_of_workloads_are_booked_from_what_is_stored(tmp_path: Path) -> None:
    """Batches with and without accounts in turn, one of them repeated: each step is booked once, whoever comes between."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        for sequence in (1, 2, 3, 3, 4, 5):
            work = books(sequence, 10 * sequence, new=sequence == 1)
            if sequence != 2:
                accounts = [batches.account(1, 7 * sequence), batches.account(2, 5, frozen=sequence > 3)]
                content = payload([sequence * SECOND], [column(1, [10 * sequence * WATT])], accounts=accounts)
                work = replace(work, batch=check_batch(enveloped(content, sequence)))
            assert await done(writer, work) is CommitOutcome.COMMITTED
        rows = list(store.workload_energy(0, 2**40))
        assert sum(row.energy_microjoules for row in rows) == 7 * 5 + 5
        assert store.energy() == 50 * WATT
        cursor = store.load_workload_cursor("a", batches.EPOCH)
        assert cursor is not None
        assert (list(cursor.accounts), cursor.settled) == ([1], ((2, 2),))

    run(tmp_path, scene)


def test_many_batches_with_accounts_at_once(tmp_path: Path) -> None:
    """Two streams of one host's agent race with the same batches; the loser is stale or repeats, and nothing doubles."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        await done(writer, books(1, 10, new=True))
        for sequence in range(2, 8):
            content = payload(
                [sequence * SECOND], [column(1, [10 * sequence * WATT])], accounts=[batches.account(1, 3 * sequence)]
            )
            work = replace(books(sequence, 0), batch=check_batch(enveloped(content, sequence)))
            await asyncio.gather(*(writer.submit(work) for _ in range(3)))
        assert sum(row.energy_microjoules for row in store.workload_energy(0, 2**40)) == 3 * 7

    run(tmp_path, scene)


def test_no_answer_before_the_commit_has_returned(tmp_path: Path) -> None:
    """While the database waits for the disk, the agent waits too."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        store.go_on.clear()
        store.committing.clear()
        future = writer.submit(books(1, 10, new=True))
        assert await asyncio.to_thread(store.committing.wait, 10)
        await asyncio.sleep(0.05)
        assert not future.done()
        store.go_on.set()
        assert isinstance(await future, Done)
        assert store.energy() == 10 * WATT

    run(tmp_path, scene)


def test_what_waits_is_committed_together_but_one_of_each_host(tmp_path: Path) -> None:
    """Works that come while the disk is busy share the next commit; a host's second work waits for its first."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        store.go_on.clear()
        first = writer.submit(opens("z"))
        await asyncio.to_thread(store.committing.wait, 10)
        rest = [writer.submit(opens(host)) for host in ("a", "b", "a", "c", "b")]
        store.go_on.set()
        outcomes = [await future for future in (first, *rest)]
        assert [answer.outcome for answer in outcomes if isinstance(answer, Done)] == [CommitOutcome.COMMITTED] * 6
        assert store.groups == [["z"], ["a", "b", "c"], ["a", "b"]]

    run(tmp_path, scene)


def test_a_stale_stream_is_told_and_reads_anew(tmp_path: Path) -> None:
    """Another collector booked for the host: the outcome is STALE, and the same work again meets the rows as they are."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        other = WatchedStore(tmp_path / "ledger.db")
        other_writer = Writer(other, collector="c2")
        other_writer.start()
        assert await done(other_writer, books(1, 10, new=True)) is CommitOutcome.COMMITTED
        await other_writer.stop()
        other.close()
        work = books(1, 10, new=True)
        assert await done(writer, work) is CommitOutcome.STALE
        assert await done(writer, work) is CommitOutcome.COMMITTED
        assert store.energy() == 10 * WATT
        assert await done(writer, books(2, 15)) is CommitOutcome.COMMITTED
        assert store.energy() == 15 * WATT
        assert (writer.counts.stale, writer.healthy) == (1, True)

    run(tmp_path, scene)


def test_a_failing_database_acknowledges_nothing_and_recovers(tmp_path: Path) -> None:
    """A full disk: every stream is told to come later, health says why, and the next success ends it."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        store.failures = [StoreError("the disk is full: free space")]
        answer = await writer.submit(books(1, 10, new=True))
        assert answer == Failed("the disk is full: free space")
        assert (writer.healthy, writer.last_error, writer.counts.failed) == (False, "the disk is full: free space", 1)
        assert await done(writer, books(1, 10, new=True)) is CommitOutcome.COMMITTED
        assert (writer.healthy, writer.last_error) == (True, "")
        assert store.energy() == 10 * WATT

    run(tmp_path, scene)


def test_a_fault_in_one_work_spares_the_others(tmp_path: Path) -> None:
    """A work that can't be computed is answered as failed; its neighbours in the group are committed."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens("a"))
        await done(writer, opens("b"))
        store.go_on.clear()
        held = writer.submit(opens("z"))
        await asyncio.to_thread(store.committing.wait, 10)
        broken = replace(books(1, 10), channels={1: msgspec.convert(None, None)})
        futures = [writer.submit(broken), writer.submit(books(1, 10, "b", new=True))]
        store.go_on.set()
        await held
        bad, good = [await future for future in futures]
        assert isinstance(bad, Failed)
        assert "fault in the collector" in bad.reason
        assert isinstance(good, Done)
        assert store.energy() == 10 * WATT
        assert await done(writer, books(1, 10, new=True)) is CommitOutcome.COMMITTED

    run(tmp_path, scene)


def test_a_batch_without_its_rows_is_sent_back_to_hello(tmp_path: Path) -> None:
    """After a restore under a running stream the epoch may be gone."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        answer = await writer.submit(books(1, 10))
        assert isinstance(answer, Failed)
        assert "has to say Hello again" in answer.reason

    run(tmp_path, scene)


def test_a_refused_hello_commits_its_mark(tmp_path: Path) -> None:
    """A second machine is refused, and the conflict that people must see is in the database."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        second = OpenStream(check_hello(hello(boot=batches.NEXT_BOOT, now=2 * SECOND)), batches.UTC + 2 * SECOND)
        await done(writer, second)
        answer = await writer.submit(opens())
        assert isinstance(answer, Done)
        assert not isinstance(answer.result, Booking)
        host = store.load_host("a")
        assert host is not None
        assert "two machines use host id a" in host.conflict

    run(tmp_path, scene)


def test_listeners_hear_of_what_was_committed(tmp_path: Path) -> None:
    """In order, with the time, after the answers; one that fails harms nobody."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        heard: list[tuple[str, int, float]] = []

        def hear(bookings: Sequence[Booking], now_seconds: float) -> None:
            heard.extend((each.host_after.host, each.cursor_after.committed_sequence, now_seconds) for each in bookings)

        def fail(bookings: Sequence[Booking], now_seconds: float) -> None:
            raise RuntimeError("a view is broken")

        writer.listeners[:] = [fail, hear]
        await done(writer, opens())
        await done(writer, books(1, 10, new=True))
        store.failures = [StoreError("full")]
        await writer.submit(books(2, 15))
        await writer.stop()
        assert heard == [("a", 0, 5.0), ("a", 1, 5.0)]

    run(tmp_path, scene)


def test_a_new_host_has_its_site_before_its_first_energy(tmp_path: Path) -> None:
    """Hosts are placed before their Hello is answered."""

    async def play() -> None:
        store = WatchedStore(tmp_path / "ledger.db")

        def place(hosts: Sequence[Host]) -> None:
            store.add_assignments([AssignmentRow(host.host, 0, host.labels["hostname"], 0) for host in hosts])

        writer = Writer(store, collector="c1", place_hosts=place)
        writer.start()
        await done(writer, opens())
        await done(writer, books(1, 10, new=True))
        await writer.stop()
        assert [(row.site, row.energy_microjoules) for row in store.rollups(0, 2**40)] == [("alpha", 10 * WATT)]
        store.close()

    asyncio.run(play())


def test_a_stopping_writer_finishes_what_it_took(tmp_path: Path) -> None:
    """All that was submitted before is committed and answered; what comes later is told to come later."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        futures = [writer.submit(opens(f"h{number}")) for number in range(20)]
        await writer.stop()
        assert all(future.done() for future in futures)
        assert len(list(store.hosts())) == 20
        assert await writer.submit(opens()) == Failed("the collector is stopping")

    run(tmp_path, scene)


def test_a_stream_that_ended_does_not_mind_its_answer(tmp_path: Path) -> None:
    """The agent was cut off while its batch was committed; its energy is in the ledger all the same."""

    async def scene(store: WatchedStore, writer: Writer) -> None:
        await done(writer, opens())
        store.go_on.clear()
        store.committing.clear()
        future = writer.submit(books(1, 10, new=True))
        await asyncio.to_thread(store.committing.wait, 10)
        future.cancel()
        store.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert await done(writer, books(2, 15)) is CommitOutcome.COMMITTED
        assert store.energy() == 15 * WATT

    run(tmp_path, scene)
