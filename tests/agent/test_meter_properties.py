"""The meter over any life of a host: failed reads, resets, suspends, reboots, and an agent that stops anywhere."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agent.metering import BOOT, GAP_SECONDS, SECOND, Book, spec

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, Component, CounterReading, Reading, Role, TryAgain

NODE = spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=1000.0)
# Ten seconds at the bound are a range: an outage makes a wrap ambiguous.
CPU = spec("cpu/0", parent=NODE.key, wrap=1_000_000_000)
GPU = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU, parent=NODE.key)
SPECS = (NODE, CPU, GPU)
OUTAGE = 300 * SECOND

# More energy than any run of these tests can use, and more resets; microjoules.
OUT_OF_REACH = 10**13
RESETS_MAX = 100

NO_FAILURE = (False, False, False)


@dataclass(frozen=True)
class Step:
    """A row and what surrounds it.

    load: energy of cpu, gpu and the rest, in thousandths of 100 W. fails: reads of node, cpu and gpu. event: what happens to
    the host before the row. then: what becomes of the agent after it.
    """

    elapsed: int = SECOND
    load: tuple[int, int, int] = (500, 700, 300)
    fails: tuple[bool, bool, bool] = NO_FAILURE
    event: str = ""
    then: str = "cut"


STEPS = st.lists(
    st.builds(
        Step,
        st.integers(1, 8 * SECOND),
        st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000)),
        st.tuples(*(st.sampled_from([False, False, True]) for _ in range(3))),
        st.sampled_from(["", "", "", "", "reset", "meter reset", "suspend", "outage", "reboot"]),
        st.sampled_from(["", "", "cut", "restart", "crash"]),
    ),
    max_size=25,
)


@dataclass
class World:
    """A host with a node meter and two parts. truth: all energy so far; base: where each counter last began at 0."""

    boot: bytes = BOOT
    boots: int = 0
    time: int = 0
    realtime: int = 0
    suspended: int = 0
    generation: int = 0
    resets: int = 0
    truth: dict[ChannelKey, int] = field(default_factory=lambda: {of.key: 0 for of in SPECS})
    base: dict[ChannelKey, int] = field(
        default_factory=lambda: {NODE.key: -RESETS_MAX * OUT_OF_REACH, CPU.key: 0, GPU.key: 0}
    )

    def go_on(self, step: Step) -> tuple[list[Reading], Instant]:
        """Use energy, let the event happen, and read."""
        elapsed = step.elapsed + (OUTAGE if step.event == "outage" else 0)
        self.time += elapsed
        self.realtime += elapsed
        # 100 W are a tenth of a microjoule in a nanosecond.
        cpu, gpu, rest = (elapsed * load // 10_000 for load in step.load)
        for of, energy in ((NODE, cpu + gpu + rest), (CPU, cpu), (GPU, gpu)):
            self.truth[of.key] += energy
        if step.event == "reset":
            self.generation += 1
            self.base[GPU.key] = self.truth[GPU.key]
        elif step.event == "meter reset":
            # Nobody can tell a reset that the counter has outrun when it is read: each of these shows as a fall.
            self.resets += 1
            self.base[NODE.key] = self.truth[NODE.key] - (RESETS_MAX - self.resets) * OUT_OF_REACH
        elif step.event == "suspend":
            self.suspended += 5 * SECOND
        elif step.event == "reboot":
            self.boots += 1
            self.boot = bytes([self.boots]) * 16
            self.time, self.suspended = 1, 0
            self.base = dict(self.truth)
        readings = [
            self._read(of.key, of.counter_range_microjoules, fails) for of, fails in zip(SPECS, step.fails, strict=True)
        ]
        return readings, Instant(self.boot, self.time, self.realtime, True, self.suspended)

    def _read(self, key: ChannelKey, wrap: int | None, fails: bool) -> Reading:
        if fails:
            return TryAgain(key, "made to fail")
        raw = self.truth[key] - self.base[key]
        return CounterReading(key, raw if wrap is None else raw % wrap, self.generation if key == GPU.key else 0)


def begin(state: bytes | None, now: Instant) -> Meter:
    """A meter as an agent makes it at its start."""
    made = Meter(state=state, integral_gap_seconds_max=GAP_SECONDS)
    made.offer(SPECS, now)
    return made


def live_through(steps: list[Step], world: World) -> tuple[Book, list[tuple[list[Reading], Instant]]]:
    """Let an agent live; return what its records say, and the rows that are in them."""
    book, recorded, pending = Book(), list[tuple[list[Reading], Instant]](), list[tuple[list[Reading], Instant]]()
    state: bytes | None = None
    meter: Meter | None = None
    for step in steps:
        row = world.go_on(step)
        if pending and pending[-1][1].boot_id != world.boot:
            # What was not in a record when the host went down is lost.
            pending, meter = [], None
        meter = meter or begin(state, row[1])
        meter.observe(*row)
        pending.append(row)
        if step.then in ("cut", "restart"):
            if (cut := meter.cut(row[1])) is not None:
                book.add(cut)
                state = cut.state
            recorded += pending
            pending = []
        if step.then in ("restart", "crash"):
            pending, meter = [], None
    return book, recorded


def never_stop(rows: list[tuple[list[Reading], Instant]]) -> Book:
    """What one meter makes of the same rows."""
    book, meter = Book(), begin(None, rows[0][1])
    for readings, now in rows:
        meter.observe(readings, now)
        if (cut := meter.cut(now)) is not None:
            book.add(cut)
    return book


FLOWS = (("node", "board"), ("cpu/0", "package"), ("gpu/0", "board"), ("node", "residual"))


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_cuts_restarts_and_crashes_change_no_total(steps: list[Step]) -> None:
    """A meter that goes on from its last record says the same as one that never stopped, to the last value."""
    book, rows = live_through([Step(), *steps, Step()], World())
    steady = never_stop(rows)
    assert [row.channel for row in book.catalog.channels] == [row.channel for row in steady.catalog.channels]
    for flow in FLOWS:
        one, other = book.account(*flow), steady.account(*flow)
        assert one == other


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_truth_is_booked_exactly_or_lies_within_the_gaps(steps: list[Step]) -> None:
    """Each channel, the residual too: booked + [lower, upper] holds the truth; without a gap it is the truth."""
    world = World()
    world.go_on(Step())
    before = dict(world.truth)
    # The first row has no time, so that the account begins where the truth does.
    book, _ = live_through([Step(elapsed=0), *steps, Step()], world)
    true = {(key.device, key.domain): truth - before[key] for key, truth in world.truth.items()}
    true["node", "residual"] = true["node", "board"] - true["cpu/0", "package"] - true["gpu/0", "board"]
    for flow in FLOWS:
        account = book.account(*flow)
        assert account.energy + account.gap_lower <= true[flow] <= account.energy + account.gap_upper
        assert account.energy == true[flow] or account.details
        # Each gap's detail stands beside the sums.
        assert sum(gap.lower_microjoules for gap in account.details) == account.gap_lower
        assert sum(gap.upper_microjoules for gap in account.details) == account.gap_upper
    if not book.account("node", "board").details:
        booked = [book.account(*flow).energy for flow in FLOWS]
        assert booked[1] + booked[2] + booked[3] == booked[0]


@settings(max_examples=50, deadline=None)
@given(steps=STEPS)
def test_leaves_and_residual_are_the_meter_at_each_joint_reading(steps: list[Step]) -> None:
    """As long as the meter itself has no gap, the sum holds in every row that has a residual."""
    quiet = [step for step in steps if step.event in ("", "reset")]
    book, _ = live_through([Step(), *quiet, Step()], World())
    accounts = [book.account(*flow).values for flow in FLOWS]
    joint = accounts[3]
    assert len(joint) >= 2
    for time, residual in joint.items():
        assert accounts[1][time] + accounts[2][time] + residual == accounts[0][time]
    for time in accounts[0].keys() & accounts[1].keys() & accounts[2].keys():
        assert time in joint
