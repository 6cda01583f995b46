"""Any tree of devices, any sources and exclusions: every piece of energy that a meter sees is in the sum once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agent.metering import GAP_SECONDS, Book, at, counter, spec

from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelSpec, Component, Gone, Method, Reading, Role, TryAgain
from wattledger_agent.topology import parts_of, resolve

COMPONENTS = (Component.CPU, Component.MEMORY, Component.GPU)
BOARD = Component.OTHER

# A source's sensor of a device: how it measures, and what it does not see.
Sensor = tuple[Method, frozenset[Component]]


@dataclass(frozen=True)
class Device:
    """A device of the truth: the node, a board that holds others, or a leaf, which has another component than a board.

    above: index of the board that it lies in; the node's is its own.
    """

    name: str
    above: int
    component: Component
    sensors: Sequence[Sensor]


Tree = list[Device]

SENSORS = st.lists(
    st.tuples(
        st.sampled_from([Method.COUNTER, Method.INTEGRAL]),
        st.one_of(st.just(frozenset[Component]()), st.frozensets(st.sampled_from(COMPONENTS), max_size=2)),
    ),
    max_size=2,
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A node, up to four boards in it or in each other, and up to six leaves in any of them."""
    tree = [Device("node", 0, BOARD, draw(SENSORS))]
    boards = draw(st.integers(0, 4))
    for index in range(1, boards + 1):
        tree.append(Device(f"module/{index}", draw(st.integers(0, index - 1)), BOARD, draw(SENSORS)))
    for index in range(draw(st.integers(1, 6))):
        above, component = draw(st.integers(0, boards)), draw(st.sampled_from(COMPONENTS))
        tree.append(Device(f"part/{index}", above, component, [(method, frozenset()) for method, _ in draw(SENSORS)]))
    return tree


def offers(tree: Tree) -> list[ChannelSpec]:
    """What the sources say of the tree: a device without a sensor is named by those in it alone."""
    return [
        replace(
            spec(
                device.name,
                source=f"source{number}",
                role=Role.METER if device.component is BOARD else Role.LEAF,
                method=method,
                component=device.component,
            ),
            within="" if device.above == 0 else tree[device.above].name,
            excludes=excludes,
        )
        for device in tree
        for number, (method, excludes) in enumerate(device.sensors)
    ]


def boards_around(tree: Tree, index: int) -> list[int]:
    """The boards that a device is known to lie in, the nearest first: an unmetered one says of none where it is."""
    around = []
    while index:
        index = tree[index].above if tree[index].sensors else 0
        around.append(index)
    return around


def primary(device: Device) -> Sensor:
    """The sensor that counts: the first of the best method."""
    return min(device.sensors, key=lambda sensor: sensor[0])


def seen_by(tree: Tree, board: int) -> set[int]:
    """What a board's meter sees: its own rest, and all in it that it does not exclude."""
    excludes = primary(tree[board])[1]
    inside = {index for index in range(1, len(tree)) if board in boards_around(tree, index)}
    return {board} | {index for index in inside if tree[index].component not in excludes}


def outermost(tree: Tree) -> list[int]:
    """The boards with a meter that lie in no other with one."""
    metered = [index for index, device in enumerate(tree) if device.component is BOARD and device.sensors]
    return [index for index in metered if not set(boards_around(tree, index)) & set(metered)]


def truth_of(tree: Tree) -> set[int]:
    """What must be in the sum: all that the outermost meters see, and every leaf with a sensor of its own."""
    leaves = {index for index, device in enumerate(tree) if device.component is not BOARD and device.sensors}
    return leaves.union(*(seen_by(tree, index) for index in outermost(tree)))


def summed(tree: Tree, specs: list[ChannelSpec]) -> Counter[int]:
    """How often each device's own energy is in the sum of leaves and residuals."""
    index = {device.name: number for number, device in enumerate(tree)}

    def content(of: ChannelSpec) -> set[int]:
        number = index[of.key.device]
        return seen_by(tree, number) if of.role is Role.METER else {number}

    total: Counter[int] = Counter()
    for booked in specs:
        if booked.role in (Role.LEAF, Role.METER):
            total.update(content(booked))
        if booked.role is Role.METER:
            for part in parts_of(booked.key, specs):
                total.subtract(content(part))
    return total


@settings(max_examples=300, deadline=None)
@given(tree=trees())
def test_each_piece_of_energy_that_is_seen_is_summed_once(tree: Tree) -> None:
    """And what no meter and no sensor of its own sees is not."""
    total = summed(tree, resolve(offers(tree)))
    assert {index: times for index, times in total.items() if times} == dict.fromkeys(truth_of(tree), 1)


@dataclass(frozen=True)
class Row:
    """One second: joules by device, the devices of which no sensor can be read, and what else happens, each to a device.

    toggled: a leaf that goes or comes again. away: one whose first source is away from now on, or no longer.
    restarts: the agent starts again before it.
    """

    joules: Sequence[int]
    fails: frozenset[int] = frozenset()
    toggled: int = 0
    away: int = -1
    restarts: bool = False


ROWS = st.lists(
    st.builds(
        Row,
        st.lists(st.integers(0, 50), min_size=11, max_size=11),
        st.frozensets(st.integers(0, 10), max_size=4),
        st.integers(0, 20),
        st.integers(-10, 10),
        st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=12,
)


class Host:
    """The machine of a tree, and what is true of it. Each sensor is a counter, so that late reads lose nothing."""

    def __init__(self, tree: Tree, excludes: frozenset[Component]) -> None:
        self.tree = [
            replace(
                device,
                sensors=[(Method.COUNTER, excludes if device.component is BOARD else frozenset())] * len(device.sensors),
            )
            for device in tree
        ]
        self.specs = [replace(offered, power_bound_watts=1e6) for offered in offers(self.tree)]
        self.used = [0] * len(tree)
        self.gone: set[int] = set()
        self.away: set[int] = set()
        whole = set().union(*(seen_by(self.tree, index) for index in outermost(self.tree)))
        self.whole = whole
        # Leaves that no meter sees: what each had used at its last reading, and what was read of it.
        self.alone = {
            index: 0
            for index, device in enumerate(self.tree)
            if device.component is not BOARD and device.sensors and index not in whole
        }
        self.read_alone = 0

    @property
    def truth(self) -> int:
        """What the sensors have told since the first row; microjoules."""
        return sum(self.used[index] for index in self.whole) + self.read_alone

    def of(self, device: int) -> list[ChannelSpec]:
        """The specs of one device."""
        return [offered for offered in self.specs if offered.key.device == self.tree[device].name]

    @property
    def offered(self) -> list[ChannelSpec]:
        """What the sources offer that are there."""
        return [offered for device in range(len(self.tree)) if device not in self.gone for offered in self.running(device)]

    def running(self, device: int) -> list[ChannelSpec]:
        """The specs of one device whose sources run."""
        return self.of(device)[1 if device in self.away else 0 :]

    def move(self, device: int, meter: Meter, second: int) -> None:
        """Take the first source of a device away, or bring it back. It keeps its device: a second one books nothing."""
        if not 0 <= device < len(self.tree) or device in self.gone:
            return
        self.away ^= {device}
        first = self.of(device)[:1]
        if device in self.away:
            meter.withdraw([offered.key for offered in first], at(second))
        else:
            meter.offer(first, at(second))

    def row(self, row: Row, meter: Meter, second: int) -> list[Reading]:
        """Use energy, and read."""
        readings: list[Reading] = []
        self.move(row.away, meter, second)
        leaves = {index for index, device in enumerate(self.tree) if device.component is not BOARD}
        toggled = row.toggled if row.toggled in leaves - self.away else 0
        for device in range(len(self.tree)):
            self.used[device] += row.joules[device] * 1_000_000
        if toggled in self.gone:
            self.gone.remove(toggled)
            meter.offer(self.of(toggled), at(second))
            self.alone.update({toggled: self.used[toggled]} if toggled in self.alone else {})
        elif toggled:
            self.gone.add(toggled)
            readings += [Gone(offered.key, "taken out") for offered in self.of(toggled)]
        for device in range(len(self.tree)):
            if device in self.gone:
                continue
            if device in row.fails and device != toggled:
                readings += [TryAgain(offered.key, "made to fail") for offered in self.running(device)]
                continue
            readings += [self._read(device, offered) for offered in self.running(device)]
            if device in self.alone and device not in self.away:
                self.read_alone += self.used[device] - self.alone[device]
                self.alone[device] = self.used[device]
        return readings

    def _read(self, device: int, offered: ChannelSpec) -> Reading:
        held = seen_by(self.tree, device) if self.tree[device].component is BOARD else {device}
        return counter(offered, sum(self.used[index] for index in held))


QUIET = Row([1] * 11)


@settings(max_examples=100, deadline=None)
@given(tree=trees(), excludes=st.frozensets(st.sampled_from(COMPONENTS), max_size=2), rows=ROWS)
def test_the_booked_sum_is_what_the_sensors_told(tree: Tree, excludes: frozenset[Component], rows: list[Row]) -> None:
    """With reads that fail, parts that go and come, sources that are away, and an agent that starts again.

    To the microjoule and without a gap, once all that is there could be read again: what was away has counted on.
    """
    host, book = Host(tree, excludes), Book()
    meter = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS)
    meter.offer(host.specs, at(0))
    meter.observe(host.row(replace(QUIET, joules=[0] * 11), meter, 0), at(0))
    for second, row in enumerate(rows, 1):
        meter.observe(host.row(row, meter, second), at(second))
        if (cut := meter.cut(at(second))) is not None:
            book.add(cut)
            if row.restarts:
                meter = Meter(state=cut.state, integral_gap_seconds_max=GAP_SECONDS)
                meter.offer(host.offered, at(second))
    for device in list(host.away):
        host.move(device, meter, len(rows) + 1)
    meter.observe(host.row(QUIET, meter, len(rows) + 1), at(len(rows) + 1))
    if (cut := meter.cut(at(len(rows) + 1))) is not None:
        book.add(cut)
    booked = {channel.channel for channel in book.catalog.channels if channel.role in (int(Role.LEAF), int(Role.RESIDUAL))}
    accounts = [account for number, account in book.accounts.items() if number in booked]
    assert sum(account.energy for account in accounts) == host.truth
    assert not any(account.details for account in accounts)
