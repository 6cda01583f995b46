"""The one thread that writes: it gathers what streams want committed, commits it as a group, and then answers all of them.

Decides nothing about energy or protocol: ledger.py computes bookings, the store decides whether they hold, session.py says
what an agent is told. An answer is given after the commit has returned, never before.

Batches are computed in the event loop as they come, from the rows that were committed last, and a commit's statements are
run there as well: two threads that compute would only take the interpreter's lock from each other. The thread waits for the
disk and for other writers, and reads what is not known.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from wattledger_collector.ledger import Refused, book, open_stream
from wattledger_collector.records import Booking, ChannelInfo, CommitOutcome, Cursor, Host, Store, StoreError
from wattledger_collector.session import Book, OpenStream
from wattledger_collector.store import run_at_once
from wattledger_collector.workload_records import WorkloadCursor

# One group. At 0.1 ms a booking it is ready in 50 ms, and a wait for the disk is shared by as many agents as gain from it.
COMMIT_BOOKINGS_MAX: Final = 512

# How long a small group gathers before it is committed: the wait for the disk and a transaction's own work are shared by
# more. A group that is large already is not held up.
GATHER_SECONDS: Final = 0.01
GATHER_BOOKINGS_MAX: Final = 32

# A batch larger than this, of a backlog that was thinned or merged, is computed in the thread: 64 KiB take about 10 ms, and
# the event loop has others to serve.
LOOP_PAYLOAD_BYTES_MAX: Final = 65_536

# One work a stream, since a stream waits for its answer: as many as there may be streams. At about 2 kB each, 40 MB.
WORKS_MAX: Final = 20_000

# Hosts whose rows are remembered from the last commit, at about 8 kB for twelve channels: 160 MB. Others are read again.
KNOWN_HOSTS_MAX: Final = 20_000

# After the database failed, the next group would fail as well: it waits for so long.
RETRY_SECONDS: Final = 1.0

Work = OpenStream | Book
# Told of committed bookings, in order, with the time in seconds since 1970-01-01 UTC; runs in the writer's thread.
Listener = Callable[[Sequence[Booking], float], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """A work's booking was given to the store; outcome says what became of it. A plain Refused counts as committed."""

    result: Booking | Refused
    outcome: CommitOutcome


@dataclass(frozen=True, slots=True)
class Failed:
    """A work was not done, and nothing of it is known to be committed: the agent has to come again later."""

    reason: str


Answer = Done | Failed


@runtime_checkable
class _RunsStatements(Protocol):
    """A store that lets others run its statements; see SqliteStore."""

    run_statements: Callable[[Callable[[], None]], None]


@dataclass(slots=True)
class WriterCounts:
    """What happened since the start."""

    commits: int = 0
    committed: int = 0
    stale: int = 0
    rejected: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Known:
    """A host's rows as this writer committed them last; the store compares them, so they may be old but never harm."""

    host: Host
    cursors: dict[bytes, Cursor] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    work: Work
    future: asyncio.Future[Answer]
    result: Booking | Refused | None = None

    @property
    def host(self) -> str:
        return self.work.hello.host if isinstance(self.work, OpenStream) else self.work.host

    @property
    def booking(self) -> Booking | None:
        return self.result.booking if isinstance(self.result, Refused) else self.result


class Writer:
    """Commits the works of all streams of one event loop.

    collector: this collector's id. listeners: told of what was committed, after the answers. place_hosts: called with hosts
    whose streams are about to open, before their agents are answered, to give them their sites.
    """

    def __init__(
        self,
        store: Store,
        *,
        collector: str,
        listeners: Iterable[Listener] = (),
        place_hosts: Callable[[Sequence[Host]], None] | None = None,
        clock: Callable[[], float] = time.time,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self.counts = WriterCounts()
        self.healthy = True
        self.last_error = ""
        self.listeners = list(listeners)
        self._store = store
        self._collector = collector
        self._place_hosts = place_hosts
        self._clock = clock
        self._gather_seconds = gather_seconds
        self._works: deque[_Pending] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        # By host, oldest first; touched by the event loop alone.
        self._known: dict[str, _Known] = {}
        # How many works of a host are not answered yet; as the above.
        self._under_way: dict[str, int] = {}
        self._interval_seconds = store.interval_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many works are not taken up yet."""
        return len(self._works)

    def start(self) -> None:
        """Start the thread; answers go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        if isinstance(self._store, _RunsStatements):
            self._store.run_statements = self._run_in_loop
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> asyncio.Future[Answer]:
        """Have a work done. From the event loop only. The answer comes after the commit; it is never an exception."""
        assert self._loop is not None, "the writer was not started"
        pending = _Pending(work, self._loop.create_future())
        if len(self._works) >= WORKS_MAX or self._stopping:
            reason = "the collector is stopping" if self._stopping else "too many batches wait for the disk"
            pending.future.set_result(Failed(reason))
            return pending.future
        if isinstance(work, Book) and _is_for_loop(work):
            # While another work of the host is under way, the rows that will hold are not known yet.
            known = None if work.host in self._under_way else self._known.get(work.host)
            cursor = None if known is None else known.cursors.get(work.epoch)
            if known is not None and cursor is not None:
                try:
                    pending.result = self._book(work, known.host, cursor)
                except Exception as error:
                    pending.future.set_result(_fault(pending, error))
                    return pending.future
        self._under_way[pending.host] = self._under_way.get(pending.host, 0) + 1
        with self._wake:
            self._works.append(pending)
            self._wake.notify()
        return pending.future

    async def stop(self) -> None:
        """Finish all that was submitted, answer it, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if isinstance(self._store, _RunsStatements):
            self._store.run_statements = run_at_once
        # The last answers were given to the event loop before the thread ended.
        await asyncio.sleep(0)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._works and not self._stopping:
                    self._wake.wait()
            if not self._stopping and len(self._works) < GATHER_BOOKINGS_MAX:
                time.sleep(self._gather_seconds)
            group = self._take()
            if not group:
                return
            try:
                self._do(group)
            except Exception as error:
                # A fault of ours must cost one group of answers, not the collector.
                _log.exception("a group of %d bookings failed", len(group))
                self._fail(group, f"fault in the collector: {error!r}")

    def _take(self) -> list[_Pending]:
        """The next group: the oldest works, but one of each host; the others keep their order."""
        group: list[_Pending] = []
        later: list[_Pending] = []
        hosts: set[str] = set()
        while self._works and len(group) < COMMIT_BOOKINGS_MAX:
            pending = self._works.popleft()
            if pending.host in hosts:
                later.append(pending)
            else:
                hosts.add(pending.host)
                group.append(pending)
        self._works.extendleft(reversed(later))
        return group

    def _do(self, group: list[_Pending]) -> None:
        answers: list[tuple[_Pending, Answer]] = []
        ready: list[_Pending] = []
        try:
            for pending in group:
                try:
                    pending.result = pending.result or self._compute(pending.work)
                except _GoneError as error:
                    answers.append((pending, Failed(str(error))))
                except StoreError:
                    raise
                except Exception as error:
                    answers.append((pending, _fault(pending, error)))
                else:
                    ready.append(pending)
            self._place(ready)
            bookings = [pending.booking for pending in ready if pending.booking is not None]
            outcomes = iter(self._store.commit(bookings))
        except StoreError as error:
            self._suffer(group, error)
            return
        self._recover()
        self.counts.commits += 1
        committed: list[Booking] = []
        for pending in ready:
            assert pending.result is not None
            outcome = CommitOutcome.COMMITTED if pending.booking is None else next(outcomes)
            answers.append((pending, Done(pending.result, outcome)))
            if pending.booking is not None:
                self._count(outcome)
                if outcome is CommitOutcome.COMMITTED:
                    committed.append(pending.booking)
        self._answer(answers)
        self._tell(committed)

    def _run_in_loop(self, statements: Callable[[], None]) -> None:
        """Between the thread's BEGIN and COMMIT; waits until it is done, and raises what it raised."""
        if threading.current_thread() is not self._thread:
            statements()
            return
        done: Future[None] = Future()

        def run() -> None:
            try:
                statements()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(run)
        done.result()

    def _compute(self, work: Work) -> Booking | Refused:
        """What could not be computed from known rows."""
        if isinstance(work, OpenStream):
            return self._open(work)
        host, cursor = self._store.load_host(work.host), self._store.load_cursor(work.host, work.epoch)
        if host is None or cursor is None:
            raise _GoneError(
                f"host {work.host} or its epoch is not in the database any more: its agent has to say Hello again"
            )
        # After the cursor: what is newer than that makes the booking stale, and nothing can be older.
        workloads = self._store.load_workload_cursor(work.host, work.epoch) if _has_accounts(work) else None
        return self._book(work, host, cursor, workloads)

    def _book(self, work: Book, host: Host, cursor: Cursor, workloads: WorkloadCursor | None = None) -> Booking:
        return book(
            work.batch,
            host,
            cursor,
            work.channels,
            interval_seconds=self._interval_seconds,
            collector=self._collector,
            new_channels=work.new_channels,
            workloads=workloads,
        )

    def _open(self, work: OpenStream) -> Booking | Refused:
        hello = work.hello
        cursor = self._store.load_cursor(hello.host, hello.epoch)
        peers = self._store.load_peer_cursors(hello.host, hello.epoch)
        catalogs: Mapping[bytes, Mapping[int, ChannelInfo]] | None = None
        if cursor is None:
            catalogs = {peer.epoch: self._store.load_channels(hello.host, peer.epoch) for peer in peers}
        return open_stream(
            hello,
            self._store.load_host(hello.host),
            cursor,
            peers,
            now_utc_nanoseconds=work.received_utc_nanoseconds,
            collector=self._collector,
            peer_channels=catalogs,
        )

    def _place(self, group: Iterable[_Pending]) -> None:
        """Give hosts their sites before any of their energy can be booked."""
        if self._place_hosts is not None:
            opened = (each.booking for each in group if isinstance(each.work, OpenStream))
            hosts = [booking.host_after for booking in opened if booking is not None]
            if hosts:
                self._place_hosts(hosts)

    def _count(self, outcome: CommitOutcome) -> None:
        if outcome is CommitOutcome.COMMITTED:
            self.counts.committed += 1
        elif outcome is CommitOutcome.STALE:
            self.counts.stale += 1
        else:
            self.counts.rejected += 1

    def _suffer(self, group: list[_Pending], error: StoreError) -> None:
        """The database can't be used now: nothing is acknowledged, agents keep their data and come again later."""
        if self.last_error != str(error):
            _log.error("nothing can be committed: %s", error)
        self.healthy, self.last_error = False, str(error)
        self._fail(group, str(error))
        with self._wake:
            if not self._stopping:
                self._wake.wait_for(lambda: self._stopping, RETRY_SECONDS)

    def _recover(self) -> None:
        if not self.healthy:
            _log.warning("commits work again")
            self.healthy, self.last_error = True, ""

    def _fail(self, group: list[_Pending], reason: str) -> None:
        self.counts.failed += len(group)
        self._answer([(pending, Failed(reason)) for pending in group])

    def _answer(self, answers: list[tuple[_Pending, Answer]]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._settle, answers)

    def _settle(self, answers: Iterable[tuple[_Pending, Answer]]) -> None:
        """In the event loop: remember what is committed now, and wake the streams."""
        for pending, answer in answers:
            others = self._under_way.pop(pending.host, 1) - 1
            if others:
                self._under_way[pending.host] = others
            if isinstance(answer, Done) and answer.outcome is CommitOutcome.COMMITTED:
                if pending.booking is not None:
                    self._remember(pending.host, pending.booking)
            else:
                self._known.pop(pending.host, None)
            # The stream may have ended meanwhile, and its future with it.
            if not pending.future.done():
                pending.future.set_result(answer)

    def _remember(self, host: str, booking: Booking) -> None:
        known = self._known.get(host)
        if known is None:
            known = self._known[host] = _Known(booking.host_after)
            if len(self._known) > KNOWN_HOSTS_MAX:
                del self._known[next(iter(self._known))]
        known.host = booking.host_after
        known.cursors[booking.cursor_after.epoch] = booking.cursor_after
        if len(known.cursors) > _CURSORS_MAX:
            known.cursors = {booking.cursor_after.epoch: booking.cursor_after}

    def _tell(self, committed: list[Booking]) -> None:
        if not committed:
            return
        now_seconds = self._clock()
        for listener in self.listeners:
            try:
                listener(committed, now_seconds)
            except Exception:
                # What was committed stays committed, whatever a view makes of it.
                _log.exception("a listener failed")


# Epochs of one host that book at the same time: one, or two while an old spool drains.
_CURSORS_MAX: Final = 4


def _has_accounts(work: Book) -> bool:
    """Whether a batch tells of workloads."""
    return work.batch.payload is not None and len(work.batch.payload.workload_accounts) > 0


def _is_for_loop(work: Book) -> bool:
    """Whether a batch is computed as it comes. Points of workloads are not kept in memory, since they are many: for those
    of 300 containers on each host of a large fleet it would take as much as all the rest.
    """
    return len(work.batch.payload_bytes) <= LOOP_PAYLOAD_BYTES_MAX and not _has_accounts(work)


class _GoneError(Exception):
    """The rows that a batch is to be booked on are not in the store."""


def _fault(pending: _Pending, error: Exception) -> Failed:
    """A fault of ours: what one agent sent must not cost the others their answers."""
    _log.error("what host %s sent could not be computed", pending.host, exc_info=error)
    return Failed(f"fault in the collector: {error!r}")
