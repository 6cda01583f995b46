"""A simulated collector: the real sessions, ledger, store and fleet view; a crash can strike between any two steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from tests.sim.agent_process import Stream

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.exposition import Exposition
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_sharing import FleetSharing
from wattledger_collector.hello import Refused
from wattledger_collector.lease import RENEWAL_SECONDS
from wattledger_collector.ledger import book, open_stream
from wattledger_collector.records import Booking, CommitOutcome, Cursor, Host
from wattledger_collector.session import Action, Book, Close, CollectorSession, OpenStream, Send
from wattledger_collector.store import open_store
from wattledger_protos.v1 import telemetry_pb2 as pb

SECOND = 1_000_000_000


class CollectorCrashError(Exception):
    """The process died; nothing of it goes on."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a stream wants committed, and what was computed for it."""

    stream: Stream
    session: CollectorSession
    item: OpenStream | Book
    result: Booking | Refused

    @property
    def host(self) -> str:
        """Whose rows it changes."""
        return self.item.hello.host if isinstance(self.item, OpenStream) else self.item.host

    @property
    def booking(self) -> Booking | None:
        """What is to be committed, if anything."""
        return self.result if isinstance(self.result, Booking) else self.result.booking


class CollectorProcess:
    """One life of a collector. maybe_crash: called between the steps of a commit with their names; may raise."""

    def __init__(self, instance: int, name: str, path: Path, now: int, maybe_crash: Callable[[str], None]) -> None:
        self.instance = instance
        self.name = name
        self.store = open_store(path, create=True)
        self.maybe_crash = maybe_crash
        self.streams: list[tuple[Stream, CollectorSession]] = []
        self.fleet = FleetView(collector=name, interval_seconds=self.store.interval_seconds)
        # No time passes while it reads.
        self.sharing = FleetSharing(self.fleet, self.store, clock=lambda: 0.0)
        self.sharing.start(now / SECOND)
        self.next_renewal = now + round(RENEWAL_SECONDS * SECOND)
        self.fleet.load(self.store, BasisFinder(self.store.sites(), FactorCatalog(())), now / SECOND)
        self.exposition = Exposition(self.fleet, registry=CollectorRegistry(), insecure_transport=False, version="sim")
        self.epochs: dict[Stream, tuple[str, bytes]] = {}
        self.waiting: list[Work] = []
        self.known: dict[str, tuple[Host, dict[bytes, Cursor]]] = {}
        self.stale = 0

    def accept(self, stream: Stream) -> None:
        """A stream was opened."""
        session = CollectorSession(peer_hosts=None, settings=pb.Settings(), durability=pb.DURABILITY_LOCAL)
        self.streams.append((stream, session))

    def step(self, now: int) -> None:
        """Commit what was computed in the step before, then take what has arrived, one message of each stream.

        Between computing and committing another collector may have committed, as between the writer's threads.
        """
        if now >= self.next_renewal:
            self.next_renewal = now + round(RENEWAL_SECONDS * SECOND)
            self.sharing.renew(now / SECOND)
        waiting, self.waiting = self.waiting, []
        self._commit(waiting, now)
        hosts: set[str] = set()
        for stream, session in list(self.streams):
            message = stream.up.due(now)
            if message is None:
                if stream.up.broken and not stream.up.waiting:
                    self.streams.remove((stream, session))
                continue
            for action in session.received(message, now):
                item = self._do(stream, session, action, now)
                if item is None:
                    continue
                work = Work(stream, session, item, self._compute(item))
                if work.host in hosts:
                    self._commit([work], now)
                else:
                    hosts.add(work.host)
                    self.waiting.append(work)

    def end(self) -> None:
        """The process is gone: its streams break, its connection to the database is dropped without a word."""
        for stream, _ in self.streams:
            stream.break_off()
        self.streams.clear()
        self.store.close()

    def _commit(self, works: Sequence["Work"], now: int) -> None:
        if not works:
            return
        self.maybe_crash("before commit")
        bookings = [work.booking for work in works if work.booking is not None]
        outcomes = self.store.commit(bookings)
        self.maybe_crash("after commit")
        for booking, outcome in zip(bookings, outcomes, strict=True):
            self._note(booking, outcome)
        committed = [b for b, outcome in zip(bookings, outcomes, strict=True) if outcome is CommitOutcome.COMMITTED]
        self.fleet.on_committed(committed, now / SECOND)
        left = iter(outcomes)
        for work in works:
            outcome = CommitOutcome.COMMITTED if work.booking is None else next(left)
            if isinstance(work.item, OpenStream):
                actions = work.session.opened(work.result, outcome)
            else:
                assert isinstance(work.result, Booking)
                actions = work.session.booked(work.result, outcome)
            self.maybe_crash("before acknowledgement")
            for action in actions:
                again = self._do(work.stream, work.session, action, now)
                if again is not None:
                    self._commit([Work(work.stream, work.session, again, self._compute(again))], now)

    def _note(self, booking: Booking, outcome: CommitOutcome) -> None:
        """Remember the rows as committed, as the writer does; they may be old, but then the store says so."""
        name = booking.host_after.host
        if outcome is not CommitOutcome.COMMITTED:
            self.stale += outcome is CommitOutcome.STALE
            self.known.pop(name, None)
            return
        _, cursors = self.known.get(name, (None, {}))
        cursors[booking.cursor_after.epoch] = booking.cursor_after
        self.known[name] = booking.host_after, cursors

    def _compute(self, item: OpenStream | Book) -> Booking | Refused:
        self.maybe_crash("before load")
        store = self.store
        if isinstance(item, OpenStream):
            hello = item.hello
            peers = store.load_peer_cursors(hello.host, hello.epoch)
            return open_stream(
                hello,
                store.load_host(hello.host),
                store.load_cursor(hello.host, hello.epoch),
                peers,
                now_utc_nanoseconds=item.received_utc_nanoseconds,
                collector=self.name,
                peer_channels={peer.epoch: store.load_channels(hello.host, peer.epoch) for peer in peers},
            )
        host, cursors = self.known.get(item.host, (None, {}))
        cursor = cursors.get(item.epoch)
        if host is None or cursor is None:
            host, cursor = store.load_host(item.host), store.load_cursor(item.host, item.epoch)
        assert host is not None
        assert cursor is not None
        # After the cursor, which may be old: then the booking is stale.
        payload = item.batch.payload
        has_accounts = payload is not None and len(payload.workload_accounts) > 0
        workloads = store.load_workload_cursor(item.host, item.epoch) if has_accounts else None
        return book(
            item.batch,
            host,
            cursor,
            item.channels,
            interval_seconds=store.interval_seconds,
            collector=self.name,
            new_channels=item.new_channels,
            workloads=workloads,
        )

    def _check_durable(self, stream: Stream, message: pb.CollectorMessage) -> None:
        """An acknowledgement means durable: what it says is in the database already."""
        if message.WhichOneof("message") == "ack" and stream in self.epochs:
            cursor = self.store.load_cursor(*self.epochs[stream])
            committed = cursor.committed_sequence if cursor is not None else 0
            assert message.ack.committed_sequence <= committed, f"acknowledged {message}, committed {committed}"

    def _do(self, stream: Stream, session: CollectorSession, action: Action, now: int) -> OpenStream | Book | None:
        if isinstance(action, OpenStream):
            self.epochs[stream] = action.hello.host, action.hello.epoch
            return action
        if isinstance(action, Book):
            return action
        if isinstance(action, Send):
            self._check_durable(stream, action.message)
            stream.down.send(action.message, now)
        elif isinstance(action, Close):
            stream.break_off()
            self.streams = [pair for pair in self.streams if pair[0] is not stream]
        else:
            self.fleet.on_live(action.host, action.live, now / SECOND)
        return None
