"""A simulated collector: the real sessions, ledger, store and fleet view; a crash can strike between any two steps."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry
from tests.sim.agent_process import Stream

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.exposition import Exposition
from wattledger_collector.factors import FactorCatalog
from wattledger_collector.fleet import FleetView
from wattledger_collector.hello import Refused
from wattledger_collector.ledger import book, open_stream
from wattledger_collector.records import Booking, CommitOutcome
from wattledger_collector.session import Action, Book, Close, CollectorSession, OpenStream, Send
from wattledger_collector.store import open_store
from wattledger_protos.v1 import telemetry_pb2 as pb

SECOND = 1_000_000_000


class CollectorCrashError(Exception):
    """The process died; nothing of it goes on."""


class CollectorProcess:
    """One life of a collector. maybe_crash: called between the steps of a commit with their names; may raise."""

    def __init__(self, instance: int, name: str, path: Path, now: int, maybe_crash: Callable[[str], None]) -> None:
        self.instance = instance
        self.name = name
        self.store = open_store(path, create=True)
        self.maybe_crash = maybe_crash
        self.streams: list[tuple[Stream, CollectorSession]] = []
        self.fleet = FleetView(collector=name, interval_seconds=self.store.interval_seconds)
        self.fleet.load(self.store, BasisFinder(self.store.sites(), FactorCatalog(())), now / SECOND)
        self.exposition = Exposition(self.fleet, registry=CollectorRegistry(), insecure_transport=False, version="sim")
        self.epochs: dict[Stream, tuple[str, bytes]] = {}
        self.stale = 0

    def accept(self, stream: Stream) -> None:
        """A stream was opened."""
        session = CollectorSession(peer_hosts=None, settings=pb.Settings(), durability=pb.DURABILITY_LOCAL)
        self.streams.append((stream, session))

    def step(self, now: int) -> None:
        """Take what has arrived, one message of each stream, and commit it together, as the writer does."""
        work: list[tuple[Stream, CollectorSession, OpenStream | Book]] = []
        hosts: set[str] = set()
        for stream, session in list(self.streams):
            message = stream.up.due(now)
            if message is None:
                if stream.up.broken and not stream.up.waiting:
                    self.streams.remove((stream, session))
                continue
            for action in session.received(message, now):
                item = self._do(stream, session, action, now)
                if item is not None:
                    host = item.hello.host if isinstance(item, OpenStream) else item.host
                    if host in hosts:
                        self._execute([(stream, session, item)], now)
                    else:
                        hosts.add(host)
                        work.append((stream, session, item))
        self._execute(work, now)

    def end(self) -> None:
        """The process is gone: its streams break, its connection to the database is dropped without a word."""
        for stream, _ in self.streams:
            stream.break_off()
        self.streams.clear()
        self.store.close()

    def _execute(self, work: Sequence[tuple[Stream, CollectorSession, OpenStream | Book]], now: int) -> None:
        if not work:
            return
        self.maybe_crash("before load")
        results = [self._compute(item) for _, _, item in work]
        self.maybe_crash("before commit")
        bookings = [booking for booking in map(_booking_of, results) if booking is not None]
        outcomes = self.store.commit(bookings)
        self.maybe_crash("after commit")
        committed = [b for b, outcome in zip(bookings, outcomes, strict=True) if outcome is CommitOutcome.COMMITTED]
        self.fleet.on_committed(committed, now / SECOND)
        left = iter(outcomes)
        for (stream, session, item), result in zip(work, results, strict=True):
            booking = _booking_of(result)
            outcome = CommitOutcome.COMMITTED if booking is None else next(left)
            self.stale += outcome is CommitOutcome.STALE
            if isinstance(item, OpenStream):
                actions = session.opened(result, outcome)
            else:
                assert isinstance(result, Booking)
                actions = session.booked(result, outcome)
            self.maybe_crash("before acknowledgement")
            for action in actions:
                again = self._do(stream, session, action, now)
                if again is not None:
                    self._execute([(stream, session, again)], now)

    def _compute(self, item: OpenStream | Book) -> Booking | Refused:
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
        host, cursor = store.load_host(item.host), store.load_cursor(item.host, item.epoch)
        assert host is not None
        assert cursor is not None
        return book(
            item.batch,
            host,
            cursor,
            item.channels,
            interval_seconds=store.interval_seconds,
            collector=self.name,
            new_channels=item.new_channels,
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


def _booking_of(result: Booking | Refused) -> Booking | None:
    return result if isinstance(result, Booking) else result.booking
