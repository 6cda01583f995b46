"""Energy per workload through the real meter: each joule of a leaf in one account, over any life of workloads and agent."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agent.metering import GAP_SECONDS, SECOND, at, spec

from wattledger_agent.channels import pack, unpack_workloads
from wattledger_agent.counters import Instant
from wattledger_agent.meter import Cut, Meter
from wattledger_agent.readings import (
    Component,
    CounterReading,
    IdlePolicy,
    Method,
    PowerReading,
    ProcessShares,
    Reading,
    Role,
    Workload,
    WorkloadKind,
    WorkloadsReading,
)
from wattledger_agent.usage import SPAN_ROWS_MAX
from wattledger_agent.workload_meter import WorkloadMeter, WorkloadSettings
from wattledger_protos.v1 import telemetry_pb2 as pb

PACKAGE = spec()
DRAM = spec("memory/0", domain="dram", component=Component.MEMORY)
GPU = spec("gpu/0", domain="board", source="nvidia", component=Component.GPU)
LEAVES = (PACKAGE, DRAM, GPU)
POD = WorkloadKind.KUBERNETES_POD


def workload(name: str) -> Workload:
    """A pod of this uid."""
    return Workload(POD, name, "ns", f"pod-{name}")


def policy(
    idle: IdlePolicy = IdlePolicy.NODE_ONLY, accounts_max: int = 50, owners: Mapping[int, int] | None = None
) -> WorkloadSettings:
    """Settings under which each record holds accounts."""
    return WorkloadSettings(idle, accounts_max, 0.0, (owners or {}).get)


def reading(cpu: Mapping[int, int], *, busy: int, idle: int, names: Mapping[int, str] | None = None) -> WorkloadsReading:
    """One package; times in nanoseconds; a workload's id is its number unless named."""
    workloads = {number: workload((names or {}).get(number, str(number))) for number in cpu}
    return WorkloadsReading((busy,), (idle,), workloads, dict(cpu), {}, {}, {}, {}, 0)


@dataclass
class Ledger:
    """What a collector would hold: the last value of each account, and every rule of the wire checked."""

    accounts: dict[int, pb.WorkloadAccount] = field(default_factory=dict)
    leaves: dict[int, int] = field(default_factory=dict)

    def book(self, cut: Cut) -> None:
        """Take a record."""
        payload = pb.Payload.FromString(cut.payload)
        roles = {one.channel: one.role for one in pb.Catalog.FromString(cut.catalog).channels}
        for column in payload.columns:
            if roles[column.channel] == pb.ROLE_LEAF:
                energy = column.first_energy_microjoules + sum(column.energy_delta_microjoules)
                self.leaves[column.channel] = energy
        for account in payload.workload_accounts:
            before = self.accounts.get(account.account)
            if before is not None:
                assert (before.kind, before.id, before.idle_policy) == (account.kind, account.id, account.idle_policy)
                assert account.cpu_nanoseconds >= before.cpu_nanoseconds
                now = flows(account)
                assert all(now[flow] >= energy for flow, energy in flows(before).items())
                assert not before.frozen or (account.frozen and now == flows(before))
            self.accounts[account.account] = account

    @property
    def accounted(self) -> int:
        """All energy in all accounts; microjoules."""
        return sum(sum(flows(account).values()) for account in self.accounts.values())

    def energy(self, kind: WorkloadKind, name: str = "") -> int:
        """Energy of all accounts of a workload."""
        return sum(
            sum(flows(account).values())
            for account in self.accounts.values()
            if (account.kind, account.id) == (int(kind), name)
        )


def flows(account: pb.WorkloadAccount) -> Counter[tuple[int, int]]:
    """An account's energies by component and method."""
    return Counter({(one.component, one.method): one.energy_microjoules for one in account.energies})


class Host:
    """A host whose counters go on whatever happens to the agent. seconds: since boot."""

    def __init__(self, settings: WorkloadSettings, leaves: tuple[int, ...] = (0,)) -> None:
        self.seconds = 100
        self.settings = settings
        self.counters = [0] * len(LEAVES)
        self.busy = self.idle = 0
        self.cpu: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.leaves = leaves
        self.ledger = Ledger()
        self.start(None)

    @property
    def now(self) -> Instant:
        """The present."""
        return at(self.seconds)

    def start(self, state: bytes | None) -> None:
        """Start the agent."""
        self.meter = Meter(state=state, integral_gap_seconds_max=GAP_SECONDS, workloads=self.settings)
        self.meter.offer([LEAVES[leaf] for leaf in self.leaves], self.now)

    def tick(
        self,
        energies: Mapping[int, int],
        cpu: Mapping[int, int] | None = None,
        *,
        busy: int = SECOND,
        idle: int = SECOND,
        shares: Mapping[int, float] | None = None,
        read_workloads: bool = True,
        unread: tuple[int, ...] = (),
    ) -> None:
        """Let a second pass: microjoules by leaf, nanoseconds by workload."""
        self.seconds += 1
        self.busy += busy
        self.idle += idle
        for number, time in (cpu or {}).items():
            self.cpu[number] = self.cpu.get(number, 0) + time
        readings: list[Reading] = []
        if read_workloads:
            readings.append(reading(self.cpu, busy=self.busy, idle=self.idle, names=self.names))
        if shares is not None:
            readings.append(ProcessShares("gpu/0", shares))
        for leaf in self.leaves:
            self.counters[leaf] += energies.get(leaf, 0)
            if leaf not in unread:
                readings.append(CounterReading(LEAVES[leaf].key, self.counters[leaf]))
        self.meter.observe(readings, self.now)

    def cut(self) -> Cut:
        """Cut a record, and let the ledger have it."""
        cut = self.meter.cut(self.now)
        assert cut is not None
        self.ledger.book(cut)
        return cut


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "tick", "tick", "appear", "vanish", "again", "cut", "cut", "restart", "acknowledge"]),
        st.dictionaries(st.integers(0, 2), st.integers(0, 90_000_000)),  # Energy by leaf.
        st.dictionaries(st.integers(0, 9), st.integers(0, SECOND)),  # CPU time by place among the workloads.
        st.tuples(st.integers(0, SECOND), st.integers(0, SECOND)),  # Busy and idle time.
        st.none() | st.dictionaries(st.integers(0, 12), st.floats(0, 1), max_size=4),  # GPU shares by process.
        st.booleans(),  # Whether the workloads can be read.
        st.lists(st.integers(0, 2), max_size=1),  # Leaves that can't be read.
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, idle=st.sampled_from(IdlePolicy), accounts_max=st.integers(0, 4))
def test_all_accounts_together_hold_what_the_leaves_booked(
    steps: list[
        tuple[
            str,
            dict[int, int],
            dict[int, int],
            tuple[int, int],
            dict[int, float] | None,
            bool,
            list[int],
        ]
    ],
    idle: IdlePolicy,
    accounts_max: int,
) -> None:
    """Over workloads that appear, move and vanish, failing reads, and restarts from any record: exact, and none falls."""
    host = Host(policy(idle, accounts_max, {pid: pid for pid in range(10)}), leaves=(0, 1, 2))
    state: bytes | None = None
    sequence = number = 0
    for action, energies, times, (busy, free), shares, is_read, unread in steps:
        if action == "appear":
            number += 1
            host.cpu[number] = 0
            host.names[number] = f"w{number % 7}"
        elif action == "vanish" and host.cpu:
            del host.cpu[sorted(host.cpu)[sum(times) % len(host.cpu)]]
        elif action == "again" and host.cpu:
            # A group made anew under its name: its counter begins again.
            host.cpu[sorted(host.cpu)[sum(times) % len(host.cpu)]] = 0
        elif action == "acknowledge":
            assert host.meter.workloads is not None
            host.meter.workloads.accounts.acknowledged(sequence)
        elif action == "restart":
            host.ledger = ledger_up_to(host.ledger, state)
            host.start(state)
            # Another run of the agent numbers them anew.
            host.names = {number + 100 + old: name for old, name in host.names.items() if old in host.cpu}
            host.cpu = {number + 100 + old: time for old, time in host.cpu.items()}
            number = max(host.cpu, default=number)
        elif action == "cut":
            cut = host.meter.cut(host.now)
            if cut is not None:
                host.ledger.book(cut)
                state = cut.state
                sequence += 1
                assert host.meter.workloads is not None
                host.meter.workloads.accounts.spooled(sequence)
                assert host.ledger.accounted == sum(host.ledger.leaves.values())
        present = sorted(host.cpu)
        cpu = {present[place]: time for place, time in times.items() if place < len(present)}
        host.tick(energies, cpu, busy=busy, idle=free, shares=shares, read_workloads=is_read, unread=tuple(unread))
    host.tick({})
    host.cut()
    assert host.ledger.accounted == sum(host.ledger.leaves.values())


def ledger_up_to(ledger: Ledger, state: bytes | None) -> Ledger:
    """What stays of a ledger when the agent begins again from a record: all of it, or nothing where there is no record."""
    return ledger if state is not None else Ledger()


def test_a_step_is_divided_by_what_was_used_in_it() -> None:
    """Half of the time idled, one workload did the rest."""
    host = Host(policy())
    host.tick({}, {1: 0})
    host.tick({0: 80}, {1: SECOND})
    host.cut()
    assert host.ledger.energy(POD, "1") == 40
    assert host.ledger.energy(WorkloadKind.IDLE) == 40


def test_the_first_step_of_an_agent_is_nobodys() -> None:
    """What its counter recovers of the time before is booked, but nobody saw who used it."""
    host = Host(policy())
    host.tick({}, {1: 0})
    host.tick({0: 10}, {1: SECOND}, idle=0)
    state = host.cut().state
    host.start(state)
    host.tick({0: 1000}, {1: SECOND}, idle=0)
    host.tick({0: 10}, {1: SECOND}, idle=0)
    host.cut()
    assert host.ledger.energy(POD, "1") == 20
    assert host.ledger.energy(WorkloadKind.UNATTRIBUTED) == 1000


def test_a_channel_that_could_not_be_read_is_divided_by_all_that_was_done_meanwhile() -> None:
    """Two seconds' energy, two seconds' work: one workload worked in the first, another in the second."""
    host = Host(policy())
    host.tick({}, {1: 0, 2: 0})
    host.tick({0: 60}, {1: SECOND}, idle=0, unread=(0,))
    host.tick({0: 20}, {2: SECOND}, idle=0)
    host.cut()
    assert (host.ledger.energy(POD, "1"), host.ledger.energy(POD, "2")) == (40, 40)


def test_a_row_without_cpu_times_is_nobodys() -> None:
    """And so is nothing else: the next row goes on."""
    host = Host(policy())
    host.tick({}, {1: 0})
    host.tick({0: 50}, {1: SECOND}, idle=0, read_workloads=False)
    host.tick({0: 30}, {1: SECOND}, idle=0)
    host.cut()
    assert host.ledger.energy(WorkloadKind.UNATTRIBUTED) == 50
    assert host.ledger.energy(POD, "1") == 30


def test_a_step_beside_a_gap_is_nobodys() -> None:
    """Who used the energy of a span that was not seen whole can't be told."""
    meter = WorkloadMeter(policy(), None)
    for second in range(3):
        meter.take(reading({1: second * SECOND}, busy=second * SECOND, idle=0))
        meter.step(7, PACKAGE, 10 * second, has_gap=second == 2)
        meter.end_row()
    assert {account.workload.kind: sum(account.energies.values()) for account in meter.all()} == {
        POD: 10,
        WorkloadKind.UNATTRIBUTED: 20,
    }


def test_a_channel_that_is_away_for_long_begins_anew() -> None:
    """Spans are not kept for ever; its next step is nobody's."""
    host = Host(policy(), leaves=(0, 2))
    host.tick({}, {1: 0})
    for _ in range(SPAN_ROWS_MAX + 2):
        host.tick({2: 1}, {1: SECOND}, idle=0, unread=(0,), shares={})
    host.tick({0: 100}, {1: SECOND}, idle=0, shares={})
    host.cut()
    assert host.ledger.energy(WorkloadKind.UNATTRIBUTED) == 100


def test_a_host_whose_packages_change_begins_anew() -> None:
    """What went before can't be compared."""
    meter = WorkloadMeter(policy(), None)
    for second in range(3):
        times = reading({1: second * SECOND}, busy=second * SECOND, idle=0)
        if second == 2:
            times = WorkloadsReading((0, 0), (0, 0), times.workloads, times.cpu_nanoseconds, {}, {}, {}, {}, 0)
        meter.take(times)
        meter.step(7, PACKAGE, 10, has_gap=False)
        meter.end_row()
    energies = {account.workload.kind: sum(account.energies.values()) for account in meter.all()}
    assert energies == {POD: 10, WorkloadKind.UNATTRIBUTED: 20}


def test_short_lived_processes_count_because_their_group_does() -> None:
    """No process is looked at: what ran and ended between two reads is in its group's counter (kepler#312)."""
    host = Host(policy())
    host.tick({}, {1: 5 * SECOND})
    host.tick({0: 100}, {1: SECOND // 2}, busy=SECOND // 2, idle=SECOND // 2)
    host.cut()
    assert host.ledger.energy(POD, "1") == 50


def test_a_workload_that_appears_counts_from_its_first_reading() -> None:
    """What it used before that is nobody's, however much its counter holds by then."""
    host = Host(policy())
    host.tick({}, {})
    host.tick({0: 100}, {1: 100 * SECOND}, idle=0)
    host.tick({0: 100}, {1: SECOND}, idle=0)
    host.cut()
    assert host.ledger.energy(POD, "1") == 100
    assert host.ledger.energy(WorkloadKind.UNATTRIBUTED) == 100


def test_what_contains_a_workload_has_only_its_own_rest() -> None:
    """A pod inside a container that plays a node (kind): the container's counter holds the pod's time too."""
    host = Host(policy())
    for seconds in (0, 1):
        host.seconds += 1
        host.counters[0] += 90 * seconds
        times = reading({1: 3 * SECOND * seconds, 2: SECOND * seconds}, busy=3 * SECOND * seconds, idle=0)
        inside = WorkloadsReading(
            times.busy_nanoseconds, (0,), times.workloads, times.cpu_nanoseconds, {2: 1}, {}, {}, {}, 0
        )
        host.meter.observe([inside, CounterReading(PACKAGE.key, host.counters[0])], host.now)
    host.cut()
    assert (host.ledger.energy(POD, "1"), host.ledger.energy(POD, "2")) == (60, 30)


def test_a_gpu_without_an_answer_is_nobodys_and_one_without_processes_idles() -> None:
    """No answer is no zero; an empty answer is one."""
    host = Host(policy(owners={7: 1}), leaves=(2,))
    host.tick({}, {1: 0}, shares={})
    host.tick({2: 30}, shares=None)
    host.tick({2: 50}, shares={})
    host.tick({2: 70}, shares={7: 1.0})
    host.cut()
    assert host.ledger.energy(WorkloadKind.UNATTRIBUTED) == 30
    assert host.ledger.energy(WorkloadKind.IDLE) == 50
    assert host.ledger.energy(POD, "1") == 70


def test_residuals_and_shown_channels_are_not_divided() -> None:
    """A node meter's energy is its parts' and its residual's: only the parts are leaves."""
    meter = spec("node", role=Role.METER, domain="board", component=Component.OTHER)
    part = spec(parent=meter.key)
    agent = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS, workloads=policy())
    agent.offer([meter, part], at(0))
    for second in range(3):
        agent.observe(
            [
                reading({}, busy=second * SECOND, idle=0),
                CounterReading(meter.key, 50 * second),
                CounterReading(part.key, 30 * second),
            ],
            at(second),
        )
    ledger, cut = Ledger(), agent.cut(at(3))
    assert cut is not None
    ledger.book(cut)
    assert ledger.accounted == 60


def test_a_modelled_node_is_divided_like_its_cpus() -> None:
    """Its model is one of their load; the method travels with the account, so that no figure passes for measured."""
    node = spec("node", method=Method.MODEL, domain="estimate", component=Component.OTHER, source="estimate")
    agent = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS, workloads=policy())
    agent.offer([node], at(0))
    for second in range(2):
        times = reading({1: second * SECOND}, busy=second * SECOND, idle=0)
        agent.observe([times, PowerReading(node.key, 1_000_000)], at(second))
    assert agent.workloads is not None
    (account,) = agent.workloads.all()
    assert account.energies == {(Component.OTHER, Method.MODEL): 1_000_000}
    assert account.workload.id == "1"


def test_an_older_state_has_no_accounts() -> None:
    """Records of before workloads were accounted load as they are."""
    assert unpack_workloads(pack(b"b" * 16, 1, [])) is None


def test_accounts_wait_while_workloads_are_switched_off() -> None:
    """Switched off and on again, the account goes on under its number; meanwhile the state carries it."""
    host = Host(policy())
    host.tick({}, {1: 0})
    host.tick({0: 10}, {1: SECOND}, idle=0)
    off = Meter(state=host.cut().state, integral_gap_seconds_max=GAP_SECONDS)
    off.offer([PACKAGE], host.now)
    off.observe([CounterReading(PACKAGE.key, 500)], at(200))
    cut = off.cut(at(200))
    assert cut is not None
    assert not pb.Payload.FromString(cut.payload).workload_accounts
    saved = unpack_workloads(cut.state)
    assert saved is not None
    assert [(account.id, account.number) for account in saved.accounts] == [("1", 1)]


def test_accounts_are_sent_at_their_own_pace_and_at_the_end() -> None:
    """Every minute, though a record is cut every ten seconds; and in the last record of a run."""
    host = Host(WorkloadSettings(IdlePolicy.NODE_ONLY, 50, 60.0, lambda _: None))
    holding = []
    for second in range(1, 131):
        host.tick({0: 10}, {1: SECOND})
        if second % 10 == 0:
            cut = host.meter.cut(host.now)
            assert cut is not None
            if pb.Payload.FromString(cut.payload).workload_accounts:
                holding.append(second)
    assert holding == [10, 70, 130]
    host.tick({0: 10}, {1: SECOND})
    last = host.meter.cut(host.now, is_last=True)
    assert last is not None
    assert pb.Payload.FromString(last.payload).workload_accounts
