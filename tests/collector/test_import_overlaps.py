"""Every joule once, whoever brings it and when: imports and an agent in any order, series in any parts, two of one site."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC as UTC_ZONE
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.collector.batches import SECOND, UTC, batch, column, hello, info, opened, payload
from tests.collector.test_writer import WatchedStore, books, done, opens, run

from wattledger_collector.database import connect
from wattledger_collector.facility import Point
from wattledger_collector.hosts import host_replace, host_retire
from wattledger_collector.import_series import Form, Format, Label, SpanLength, parse_series
from wattledger_collector.import_store import import_series, imports, remove_import
from wattledger_collector.imports import Meter, MeterImportError, make_import
from wattledger_collector.ledger import book
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    Booking,
    CommitOutcome,
    Component,
    GapReason,
    Host,
    HostEnergyRow,
    RollupRow,
    SiteRow,
)
from wattledger_collector.session import Book
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.writer import Writer

MINUTE = 60
BEGIN = UTC // SECOND
# Four intervals.
MINUTES = 60
JOULE = 10**6
CPU, GPU = Component.CPU, Component.GPU
CHANNELS = {1: info(1), 2: replace(info(2), component=GPU, device="gpu/0")}
# Each example is a database: to shrink one would take minutes.
QUICK = settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with a site."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    with closing(open_store(path, create=True)) as store:
        store.add_sites([SiteRow("hall", 0, "IN", "1.3", False, 0)])
    return path


@pytest.fixture
def store(tmp_path: Path, template: Path) -> Iterator[SqliteStore]:
    """The database, open."""
    with closing(open_store(shutil.copy(template, tmp_path / "ledger.sqlite"), create=False)) as opened_store:
        yield opened_store


def meter(point: Point = Point.NODE, component: Component = Component.OTHER, host: str = "a") -> Meter:
    """What an operator says of a meter."""
    return Meter(host, "", component, "", point, None, "")


def series_of(rows: Sequence[tuple[datetime, str]]) -> str:
    """A file's text."""
    return "\n".join(["time,value", *(f"{time.isoformat()},{value}" for time, value in rows), ""])


MINUTELY = Format(
    Form.AVERAGE_WATTS, "time", "value", ZoneInfo("UTC"), Label.START, (SpanLength(0, MINUTE),), partial_days=True
)


def bring(
    store: SqliteStore,
    text: str,
    form: Format,
    whose: Meter,
    *,
    beside: bool = False,
    is_another_feed: bool = False,
    name: str = "file",
) -> bool:
    """Import a file's text."""
    series = parse_series(text, name, form)
    made = make_import(
        series,
        form,
        whose,
        file=name,
        content=text.encode(),
        now_seconds=BEGIN + 10**6,
        version="test",
        beside=beside,
        interval_seconds=store.interval_seconds,
    )
    return import_series(store, made, series, is_another_feed=is_another_feed)


def minutes_text(watts: Sequence[int], minutes: Sequence[int]) -> str:
    """Rows of single minutes; those between that are not there are holes."""
    rows = [(datetime.fromtimestamp(BEGIN + each * MINUTE, UTC_ZONE), str(watts[each])) for each in minutes]
    return series_of(rows)


def booked(store: SqliteStore) -> int:
    """All booked energy; the rows of hosts and of sites agree on it."""
    sums = {
        sum(row.energy_microjoules for row in store.rollups(0, 2**40)),
        sum(row.energy_microjoules for row in store.host_energy(0, 2**40) if row.channel.is_booked),
    }
    (whole,) = sums
    return whole


@dataclass
class World:
    """A machine of which the test knows every minute, and who has booked which minute of which component."""

    store: SqliteStore
    cpu: list[int]
    gpu: list[int]
    taken: set[tuple[Component, int]] = field(default_factory=set)
    brought: dict[bytes, set[tuple[Component, int]]] = field(default_factory=dict)
    texts: dict[bytes, tuple[str, Component | None]] = field(default_factory=dict)
    # What the agent has booked, by interval: rows do not tell minutes.
    by_agent: set[tuple[Component, int]] = field(default_factory=set)
    left: dict[Component, int] = field(default_factory=lambda: {CPU: 0, GPU: 0})
    sequence: int = 0
    acknowledged: int = 0
    sent: int = 0

    def energy(self, taken: set[tuple[Component, int]]) -> int:
        """What these minutes used, in microjoules."""
        return sum((self.cpu if component is CPU else self.gpu)[minute] * MINUTE * JOULE for component, minute in taken)

    def next_booking(self, length: int, step: int) -> tuple[Booking, list[int]]:
        """The booking of the agent's next samples, a step apart; all before that did not arrive is in the first."""
        ends = list(range(self.sent + step, min(self.sent + length, MINUTES) + 1, step)) or [min(self.sent + 1, MINUTES)]
        host, cursor = self.store.load_host("a"), self.store.load_cursor("a", hello().epoch)
        assert host is not None
        assert cursor is not None
        values = [[sum(watts[:end]) * MINUTE * JOULE for end in ends] for watts in (self.cpu, self.gpu)]
        columns = [column(number, each) for number, each in enumerate(values, 1)]
        content = payload([end * MINUTE * SECOND for end in ends], columns)
        checked = batch(content, cursor.committed_sequence + 1)
        return book(checked, host, cursor, CHANNELS, interval_seconds=900, collector="c", new_channels=()), ends

    def told(self, ends: list[int]) -> None:
        """The agent's samples were booked: keep which minutes count, and what was left."""
        for start, end in pairwise([self.acknowledged, *ends]):
            for component, watts in ((CPU, self.cpu), (GPU, self.gpu)):
                minutes = {(component, each) for each in range(start, end)}
                if any(minutes & own for own in self.brought.values()):
                    self.left[component] += sum(watts[start:end]) * MINUTE * JOULE
                    continue
                assert not minutes & self.taken
                self.taken |= minutes
                self.by_agent |= minutes
        self.acknowledged = self.sent = ends[-1]

    def send(self, length: int, step: int) -> None:
        """A batch arrives."""
        if self.sent < MINUTES:
            booking, ends = self.next_booking(length, step)
            assert self.store.commit([booking]) == [CommitOutcome.COMMITTED]
            self.told(ends)

    def bring(self, minutes: list[int], which: Component | None) -> bool:
        """An import; refused where, and only where, something else has booked of it."""
        own = {(component, each) for each in minutes for component in (CPU, GPU) if which in (None, component)}
        watts = [
            sum(each for component, each in ((CPU, cpu), (GPU, gpu)) if which in (None, component))
            for cpu, gpu in zip(self.cpu, self.gpu, strict=True)
        ]
        by_others = any(own & theirs for theirs in self.brought.values())
        quarters = {(component, each // 15) for component, each in self.by_agent}
        is_refused = by_others or any((component, each // 15) in quarters for component, each in own)
        whose = meter() if which is None else meter(Point.COMPONENT, which)
        text = minutes_text(watts, minutes)
        if (text, which) in self.texts.values():
            assert not bring(self.store, text, MINUTELY, whose)
            return False
        if is_refused:
            with pytest.raises(MeterImportError, match="is booked already"):
                bring(self.store, text, MINUTELY, whose)
            return False
        assert bring(self.store, text, MINUTELY, whose)
        assert not own & self.taken
        epoch = imports(self.store)[-1].epoch
        self.taken |= own
        self.brought[epoch], self.texts[epoch] = own, (text, which)
        return True

    def remove(self, place: int) -> None:
        """One import was wrong."""
        counting = [each for each in imports(self.store) if each.removal is None]
        if counting:
            made = counting[place % len(counting)]
            remove_import(self.store, made, "wrong", now_seconds=BEGIN)
            self.taken -= self.brought.pop(made.epoch)
            del self.texts[made.epoch]

    def check(self) -> None:
        """The ledger has each minute that counts, to the microjoule, and nothing besides; what was left is a gap."""
        assert booked(self.store) == self.energy(self.taken)
        gaps = [each for each in self.store.gaps(0, 2**40) if each.gap.reason is GapReason.OVERLAP]
        for number, component in ((1, CPU), (2, GPU)):
            uppers = [each.gap.upper_microjoules or 0 for each in gaps if each.gap.channel == number]
            assert sum(uppers) == self.left[component]


OPERATIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.just("lose"), st.integers(1, 20), st.just(0)),
    st.tuples(st.just("remove"), st.integers(0, 5), st.just(0)),
    st.tuples(
        st.sampled_from(["import", "race"]),
        st.sampled_from([None, CPU, GPU]),
        st.sets(st.integers(0, MINUTES - 1), min_size=1, max_size=8)
        | st.tuples(st.integers(0, MINUTES - 1), st.integers(1, MINUTES)).map(
            lambda each: set(range(each[0], min(MINUTES, sum(each))))
        ),
    ),
)


@QUICK
@given(
    cpu=st.lists(st.integers(0, 500), min_size=MINUTES, max_size=MINUTES),
    gpu=st.lists(st.integers(0, 500), min_size=MINUTES, max_size=MINUTES),
    operations=st.lists(OPERATIONS, max_size=14),
)
def test_an_agent_and_imports_book_each_instant_at_most_once(
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    cpu: list[int],
    gpu: list[int],
    operations: list[tuple[str, int, int] | tuple[str, Component | None, set[int]]],
) -> None:
    """In any order, with batches lost and late, imports refused, taken back, and made while a batch is on its way."""
    path = Path(shutil.copy(template, tmp_path_factory.mktemp("world") / "ledger.sqlite"))
    with closing(open_store(path, create=False)) as store:
        world = World(store, cpu, gpu)
        start = opened(hello())
        assert store.commit([replace(start, channels=tuple(CHANNELS.values()))]) == [CommitOutcome.COMMITTED]
        for operation in operations:
            match operation:
                case ("send", int(length), int(step)):
                    world.send(length, step)
                case ("lose", int(length), _):
                    world.sent = min(world.sent + length, MINUTES)
                case ("remove", int(place), _):
                    world.remove(place)
                case ("race", which, set(minutes)) if world.sent < MINUTES:
                    booking, ends = world.next_booking(5, 1)
                    is_done = world.bring(sorted(minutes), Component(which) if which else None)
                    (outcome,) = store.commit([booking])
                    assert outcome is (CommitOutcome.STALE if is_done else CommitOutcome.COMMITTED)
                    if not is_done:
                        world.told(ends)
                case (_, which, set(minutes)):
                    world.bring(sorted(minutes), Component(which) if which else None)
            world.check()


@QUICK
@given(
    values=st.lists(st.decimals(0, 100, places=3), min_size=4, max_size=24),
    data=st.data(),
    form=st.sampled_from(["counter", "interval", "watts", "points"]),
)
def test_a_series_is_the_same_in_any_parts_and_order(
    template: Path, tmp_path_factory: pytest.TempPathFactory, values: list[Decimal], data: st.DataObject, form: str
) -> None:
    """Cut into files anywhere, imported in any order: the same rows by site and interval, to the microjoule."""
    # A counter's readings are cut each for itself, so that finer ones than a microjoule telescope as well.
    fine = Decimal({"counter": "0.0000000000003", "interval": "0.00000000007"}.get(form, "0.00001"))
    values = [value + place * fine for place, value in enumerate(values)]
    if form == "counter":
        values.sort()
    step = data.draw(st.sampled_from([60, 900, 1000, 3600]))
    start = datetime(2024, 3, 10, 5, 30, tzinfo=UTC_ZONE)
    rows = [(start + timedelta(seconds=step * place), f"{value:f}") for place, value in enumerate(values)]
    label = Label.INSTANT if form in ("counter", "points") else Label.START
    kind = {"counter": Form.CUMULATIVE_KWH, "interval": Form.INTERVAL_KWH}.get(form, Form.AVERAGE_WATTS)
    how = Format(kind, "time", "value", ZoneInfo("UTC"), label, (SpanLength(0, step),), partial_days=True)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, len(rows) - 2), max_size=4))), len(rows) - 1]
    # A reading that ends one file begins the next; other rows stand in one of them.
    shared = 1 if label is Label.INSTANT else 0
    parts = [rows[first : last + shared] for first, last in pairwise(cuts)]
    if not shared:
        parts[-1].append(rows[-1])

    def rollups(files: Sequence[Sequence[tuple[datetime, str]]]) -> list[RollupRow]:
        path = Path(shutil.copy(template, tmp_path_factory.mktemp("parts") / "ledger.sqlite"))
        with closing(open_store(path, create=False)) as store:
            for each in files:
                assert bring(store, series_of(each), how, meter())
            host = store.load_host("a")
            assert isinstance(host, Host)
            assert len(host.imported) == 1
            return list(store.rollups(0, 2**40))

    whole = rollups([rows])
    assert rollups(data.draw(st.permutations(parts))) == whole
    if form == "counter":
        first, last = (int(Fraction(each) * MICROJOULES_PER_KWH) for each in (values[0], values[-1]))
        assert sum(each.energy_microjoules for each in whole) == last - first


def agent_quarter(store: SqliteStore, *, seconds: int = 450) -> None:
    """An agent's energy of the CPU in the first seconds of a quarter of an hour."""
    start = opened(hello())
    first = replace(start, channels=tuple(CHANNELS.values()))
    assert store.commit([first]) == [CommitOutcome.COMMITTED]
    content = payload([seconds * SECOND], [column(1, [seconds * JOULE])])
    booking = book(
        batch(content, 1), start.host_after, start.cursor_after, {1: CHANNELS[1]}, interval_seconds=900, collector="c"
    )
    assert store.commit([booking]) == [CommitOutcome.COMMITTED]


def test_a_quarter_that_an_agent_booked_in_part_counts_as_whole(store: SqliteStore) -> None:
    """Rows do not tell minutes: the second half is refused, and the next quarter is not."""
    agent_quarter(store)
    with pytest.raises(MeterImportError, match="by its agent, first at 2027-01-15T08:00:00Z"):
        bring(store, minutes_text([1] * MINUTES, range(8, 30)), MINUTELY, meter())
    assert bring(store, minutes_text([1] * MINUTES, range(15, 30)), MINUTELY, meter())
    assert booked(store) == 450 * JOULE + 15 * 60 * JOULE


def test_another_component_may_be_imported_beside_an_agent(store: SqliteStore) -> None:
    """The agent has a CPU and no GPU in that time: the GPUs' meter is booked, the CPUs' one is refused."""
    agent_quarter(store)
    text = minutes_text([2] * MINUTES, range(15))
    with pytest.raises(MeterImportError, match="by its agent"):
        bring(store, text, MINUTELY, meter(Point.COMPONENT, CPU))
    assert bring(store, text, MINUTELY, meter(Point.COMPONENT, GPU))
    assert booked(store) == 450 * JOULE + 15 * 60 * 2 * JOULE


def test_an_import_may_fill_the_holes_of_another(store: SqliteStore) -> None:
    """Holes are nobody's: another meter's rows go there, to the second, and no further."""
    assert bring(store, minutes_text([1] * MINUTES, [0, 1, 5, 6]), MINUTELY, meter())
    with pytest.raises(MeterImportError, match="first at 2027-01-15T08:05:00Z"):
        bring(store, minutes_text([9] * MINUTES, [2, 3, 4, 5]), MINUTELY, meter())
    assert bring(store, minutes_text([9] * MINUTES, [2, 3, 4]), MINUTELY, meter())
    host = store.load_host("a")
    assert host is not None
    assert [(each.from_seconds, each.to_seconds) for each in host.imported] == [(BEGIN, BEGIN + 7 * MINUTE)]
    assert booked(store) == (4 + 27) * 60 * JOULE


def test_hosts_that_are_gone_get_no_imports_and_their_successors_do(store: SqliteStore) -> None:
    """A retired host is refused; the machine in its place is another one, whose own time is free."""
    agent_quarter(store)
    assert bring(store, minutes_text([1] * MINUTES, [20]), MINUTELY, meter(host="b"))
    host_replace(store, "a", "b", now_utc_nanoseconds=UTC + 3600 * SECOND)

    with pytest.raises(MeterImportError, match="host a is retired"):
        bring(store, minutes_text([1] * MINUTES, [30]), MINUTELY, meter())
    assert bring(store, minutes_text([1] * MINUTES, range(10)), MINUTELY, meter(host="b"))
    host_retire(store, "b", now_utc_nanoseconds=UTC)
    with pytest.raises(MeterImportError, match="host b is retired"):
        bring(store, minutes_text([1] * MINUTES, [40]), MINUTELY, meter(host="b"))


class Busy(SqliteStore):
    """A store into which somebody books each time that a host's energy was read."""

    def __init__(self, path: Path, bookings: list[Booking]) -> None:
        super().__init__(path, connect(path))
        self.bookings = bookings

    def host_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostEnergyRow]:
        """The rows as they were, and then another booking."""
        rows = list(super().host_energy(from_seconds, to_seconds, host))
        if self.bookings:
            assert self.commit([self.bookings.pop(0)]) == [CommitOutcome.COMMITTED]
        return iter(rows)


def test_what_is_booked_while_an_import_is_checked_is_seen(store: SqliteStore) -> None:
    """The agent's batch comes between the look at its energy and the import's commit: the import looks again."""
    start = opened(hello())
    assert store.commit([replace(start, channels=tuple(CHANNELS.values()))]) == [CommitOutcome.COMMITTED]
    content = payload([450 * SECOND], [column(1, [450 * JOULE])])
    late = book(
        batch(content, 1), start.host_after, start.cursor_after, {1: CHANNELS[1]}, interval_seconds=900, collector="c"
    )
    with closing(Busy(store.path, [late])) as busy, pytest.raises(MeterImportError, match="by its agent"):
        bring(busy, minutes_text([1] * MINUTES, range(15)), MINUTELY, meter())
    assert booked(store) == 450 * JOULE

    meanwhile = msgspec.structs.replace(late.host_after, version=late.host_after.version + 1)
    renamed = replace(late, host_before=late.host_after, host_after=meanwhile, energy=(), gaps=())
    unchanged = replace(renamed, cursor_before=late.cursor_after, cursor_after=late.cursor_after)
    with closing(Busy(store.path, [unchanged])) as busy:
        assert bring(busy, minutes_text([1] * MINUTES, range(15, 30)), MINUTELY, meter())
    assert booked(store) == 450 * JOULE + 900 * JOULE


def test_a_running_collector_learns_of_an_import_by_another_process(tmp_path: Path) -> None:
    """What it knows of the host is old: the batch is stale, is reckoned anew, and its energy is left to the import."""

    def sample(sequence: int, seconds: int) -> Book:
        content = payload([seconds * SECOND], [column(1, [seconds * JOULE])])
        return replace(books(sequence, 0, new=sequence == 1), batch=batch(content, sequence))

    async def scene(known: WatchedStore, writer: Writer) -> None:
        assert await done(writer, opens()) is CommitOutcome.COMMITTED
        assert await done(writer, sample(1, 900)) is CommitOutcome.COMMITTED
        with closing(open_store(known.path, create=False)) as elsewhere:
            assert bring(elsewhere, minutes_text([1] * MINUTES, [15]), MINUTELY, meter())
        assert await done(writer, sample(2, 930)) is CommitOutcome.STALE
        assert await done(writer, sample(2, 930)) is CommitOutcome.COMMITTED
        assert await done(writer, sample(3, 960)) is CommitOutcome.COMMITTED
        assert await done(writer, sample(4, 970)) is CommitOutcome.COMMITTED
        assert booked(known) == (900 + 60 + 10) * JOULE

    run(tmp_path, scene)


def test_a_host_that_was_imported_first_is_metered_by_its_agent_later(store: SqliteStore) -> None:
    """The agent's first Hello keeps what was imported; its spool's old samples are left, and the new ones booked."""
    assert bring(store, minutes_text([1] * MINUTES, range(10)), MINUTELY, meter())
    start = opened(hello(), store.load_host("a"))
    assert store.commit([replace(start, channels=tuple(CHANNELS.values()))]) == [CommitOutcome.COMMITTED]
    content = payload([each * MINUTE * SECOND for each in (5, 10, 15)], [column(1, [300 * JOULE, 600 * JOULE, 900 * JOULE])])
    booking = book(
        batch(content, 1), start.host_after, start.cursor_after, {1: CHANNELS[1]}, interval_seconds=900, collector="c"
    )
    assert store.commit([booking]) == [CommitOutcome.COMMITTED]

    assert booked(store) == 600 * JOULE + 300 * JOULE
    (gap,) = [each.gap for each in store.gaps(0, 2**40)]
    assert (gap.reason, gap.lower_microjoules, gap.upper_microjoules) == (GapReason.OVERLAP, 0, 600 * JOULE)


def test_a_declared_overlap_keeps_nothing_out(store: SqliteStore) -> None:
    """What is kept beside is in no sum: what the agent sends later for that time is booked."""
    start = opened(hello())
    assert store.commit([replace(start, channels=tuple(CHANNELS.values()))]) == [CommitOutcome.COMMITTED]
    assert bring(store, minutes_text([1] * MINUTES, range(10)), MINUTELY, meter(), beside=True)
    host, cursor = store.load_host("a"), start.cursor_after
    assert host is not None
    content = payload([300 * SECOND], [column(1, [300 * JOULE])])
    booking = book(batch(content, 1), host, cursor, {1: CHANNELS[1]}, interval_seconds=900, collector="c")
    assert store.commit([booking]) == [CommitOutcome.COMMITTED]

    assert booked(store) == 300 * JOULE


def facility(name: str) -> Meter:
    """A meter of the whole hall."""
    return Meter("", "hall", Component.OTHER, name, Point.FACILITY, None, "")


def test_two_meters_of_a_site_add_up_only_if_that_is_said(store: SqliteStore) -> None:
    """A second meter of one time may lie behind the first; of other times it goes on where the first one ended."""
    text = minutes_text([1] * MINUTES, range(10))
    assert bring(store, text, MINUTELY, facility("feed A"))
    with pytest.raises(
        MeterImportError, match="of another meter of site hall, from 2027-01-15T08:05:00Z on: say --another-feed"
    ):
        bring(store, minutes_text([1] * MINUTES, range(5, 15)), MINUTELY, facility("feed B"))
    assert bring(store, minutes_text([1] * MINUTES, range(10, 15)), MINUTELY, facility("feed B"))
    with pytest.raises(MeterImportError, match="which is of the same meter"):
        bring(store, minutes_text([2] * MINUTES, range(10)), MINUTELY, facility("feed A"), is_another_feed=True)
    assert bring(store, text, MINUTELY, facility("feed C"), is_another_feed=True)
    with pytest.raises(MeterImportError, match="leave it out for a host"):
        bring(store, text, MINUTELY, meter(), is_another_feed=True)


def test_the_same_file_under_another_name_is_the_same_import(store: SqliteStore) -> None:
    """Its bytes name it, and what was said of it."""
    text = minutes_text([1] * MINUTES, range(10))
    assert bring(store, text, MINUTELY, meter(), name="a.csv")
    assert not bring(store, text, MINUTELY, meter(), name="b.csv")
    assert [each.provenance.file for each in imports(store)] == ["a.csv"]
    assert booked(store) == 600 * JOULE
