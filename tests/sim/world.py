"""The whole system under one seed: machines, disks, network, collectors and a database, with everything that goes wrong.

The conserved quantity is joules, and the truth lives outside of all that is killed. Time is virtual nanoseconds.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim import clerk
from tests.sim.agent_process import Account, AgentProcess, Stream, seconds
from tests.sim.collector_process import CollectorCrashError, CollectorProcess
from tests.sim.fake_disk import DiskCrashError, FakeDisk, Snapshot
from tests.sim.hardware import CPU_RANGE_MICROJOULES, POWER_BOUND_WATTS, SECOND, Machine
from tests.sim.network import LINGER_SECONDS_MAX, Pipe

from wattledger_collector.backup import backup, restore
from wattledger_collector.lease import RENEWAL_SECONDS

START_NANOSECONDS = 1_790_000_000 * SECOND  # A date in 2026, so that intervals are ordinary ones.
HOUR = 3600 * SECOND
DISK_BYTES = 64 * 1024 * 1024

FAULT_SECONDS = 900  # Of virtual time in which faults strike.
HEALING_SECONDS_MAX = 7200  # After which all must be at rest; back-off reaches two minutes, a refusal's retry longer.
FLUSH_SECONDS = 10

# How long two collectors may show one host: while late words of the old stream still make its collector the last to write,
# and until the one that the host left has looked at the store, which steps of time delay.
DOUBLED_SECONDS_MAX = RENEWAL_SECONDS + LINGER_SECONDS_MAX + 5

# Long enough that the counters may have wrapped unseen.
AMBIGUOUS_SECONDS = CPU_RANGE_MICROJOULES / (POWER_BOUND_WATTS * 1_000_000)


@dataclass(slots=True)
class SimulatedHost:
    """One host: the machine and its disk outlive the agent's lives."""

    name: str
    machine: Machine
    disk: FakeDisk
    account: Account = field(default_factory=Account)
    agent: AgentProcess | None = None
    off_until: int = 0
    snapshot: Snapshot | None = None
    is_clone: bool = False
    next_flush: int = 0
    isolated_until: int = 0


class World:
    """Steps everything; `faults` counts what struck. Raises AssertionError when an invariant breaks under way."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.now = START_NANOSECONDS
        self.folder = folder
        self.database = folder / "ledger.sqlite"
        self.faults: Counter[str] = Counter()
        self.healing = False
        self.collectors: list[CollectorProcess] = []
        self.lives = 0
        self.crash_at: str | None = None
        self.exposed: dict[tuple[int, bytes], float] = {}
        self.doubled_since: dict[str, int] = {}
        self.backups = 0
        self.hosts = [self._make_host(index) for index in range(self.rng.choice((1, 2, 3)))]
        self._start_collector()

    def _copy_now_and_then(self) -> None:
        """Old copies of disks and of the database, for the faults that put them back."""
        for host in self.hosts:
            if self.rng.random() < 0.02:
                host.snapshot = host.disk.snapshot()
        if self.rng.random() < 0.01:
            backup(self.database, self.folder / "backup.sqlite")

    # Time.

    def run(self) -> None:
        """Faults, then healing, until all is at rest."""
        end = self.now + FAULT_SECONDS * SECOND
        faults = self._choose_faults()
        while self.now < end:
            self.step(self.rng.randrange(SECOND // 2, 2 * SECOND))
            self._copy_now_and_then()
            if self.rng.random() < 0.06:
                self._strike(self.rng.choice(faults))
        self._heal()
        deadline = self.now + HEALING_SECONDS_MAX * SECOND
        # Two more records after the last fault, so that what it left is told.
        quiet = self.now + 3 * FLUSH_SECONDS * SECOND
        while self.now < quiet or not self.is_at_rest():
            assert self.now < deadline, f"the system does not come to rest: {self._unrest()}"
            self.step(self.rng.randrange(SECOND, 3 * SECOND))
        self.check_exposed()

    def step(self, nanoseconds: int) -> None:
        """Let time pass, and everybody do what is due."""
        self.now += nanoseconds
        for host in self.hosts:
            self._step_host(host)
        for collector in list(self.collectors):
            try:
                collector.step(self.now)
            except CollectorCrashError:
                self.faults["collector crash within a commit"] += 1
                self._replace_collector(collector)
        self.check_shared()
        if self.rng.random() < 0.05:
            self.check_exposed()

    def is_at_rest(self) -> bool:
        """Whether every agent that is served has nothing left to send."""
        return all(host.agent is not None and (host.agent.is_settled() or self._is_refused(host)) for host in self.hosts)

    def check_shared(self) -> None:
        """One collector at most shows the sites, and no host is shown twice for longer than a look at the store takes."""
        exposers = [c.name for c in self.collectors if c.fleet.is_site_exposer(self.now / SECOND)]
        assert len(exposers) <= 1, f"{exposers} show the sites"
        shown = Counter(entry.host for c in self.collectors for entry in c.fleet.hosts() if entry.is_exposed)
        # The two machines of a cloned identity may stream to one collector each, and take the host from each other.
        names = [host.name for host in self.hosts]
        doubled = {host for host, collectors in shown.items() if collectors > 1 and names.count(host) == 1}
        self.doubled_since = {host: self.doubled_since.get(host, self.now) for host in doubled}
        for host, since in self.doubled_since.items():
            self.faults["host shown twice for a moment"] += since == self.now
            assert self.now - since <= DOUBLED_SECONDS_MAX * SECOND, f"{host} is shown twice since {since}"

    def check_exposed(self) -> None:
        """No counter on a collector's `/metrics` ever falls."""
        for collector in self.collectors:
            for line in collector.exposition.render(self.now / SECOND).splitlines():
                if line.startswith(b"#") or b"_total" not in line or b"energy_joules" not in line:
                    continue
                series, _, value = line.rpartition(b" ")
                # Prometheus knows an instance by its address: a restarted collector goes on with its series.
                key = (collector.instance, series)
                if float(value) < self.exposed.get(key, float("-inf")):
                    may_begin = self.may_lack_accounts() if b"_workload_" in series else self._may_begin_anew()
                    assert may_begin, f"{key} fell to {value!r}"
                    self.faults["counter began anew"] += 1
                self.exposed[key] = float(value)

    def _may_begin_anew(self) -> bool:
        """Whether energy may be gone from both sides: the store went back in time, and so did a spool, or a cloned host
        whose second machine is refused holds what the store has lost.
        """
        lost = self.faults["spool rolled back to an older copy"] + self.faults["identity cloned"]
        return bool(self.faults["store restored from an older copy"] and lost)

    def may_lack_accounts(self) -> bool:
        """Whether what records told of workloads may be gone from both sides: the store went back in time, and a full disk
        or its quota had made a spool give up records. A channel's later records have its energy, but an account that was
        frozen and acknowledged is not told again.
        """
        given_up = self.faults["disk full"] + self.faults["records given up unsent"]
        return self._may_begin_anew() or bool(self.faults["store restored from an older copy"] and given_up)

    # Hosts.

    def _make_host(self, index: int) -> SimulatedHost:
        machine = Machine(
            random.Random(self.rng.random()), f"machine-{index}", with_node_meter=self.rng.random() < 0.5, now=self.now
        )
        machine.read_failure_ratio = self.rng.choice((0.0, 0.0, 0.05))
        return SimulatedHost(f"host-{index}", machine, FakeDisk(self.rng.randrange(2**32), DISK_BYTES))

    def _step_host(self, host: SimulatedHost) -> None:
        powered = host.off_until <= self.now
        host.machine.advance(self.now, powered=powered)
        if not powered:
            return
        if host.off_until:
            host.off_until = 0
            host.machine.boot()
        if host.agent is None:
            self._start_agent(host)
            return
        try:
            self._step_agent(host, host.agent)
        except DiskCrashError:
            self.faults["power lost within a disk operation"] += 1
            self._lose_power(host, 0)

    def _step_agent(self, host: SimulatedHost, agent: AgentProcess) -> None:
        now = seconds(self.now)
        agent.sample()
        if self.now >= host.next_flush:
            host.next_flush = self.now + FLUSH_SECONDS * SECOND
            agent.flush(now)
            if agent.spool.dropped_records:
                self.faults["records given up unsent"] = 1
        agent.step(now)
        if agent.session.wants_connection(now) and self.collectors and host.isolated_until <= self.now:
            collector = self.rng.choice(self.collectors)
            stream = Stream(Pipe(self.rng), Pipe(self.rng), collector.name)
            collector.accept(stream)
            agent.connect(stream, now)

    def _start_agent(self, host: SimulatedHost) -> None:
        host.disk.kill()
        try:
            host.agent = AgentProcess(self.rng, host.name, host.machine, host.disk, host.account)
        except DiskCrashError:
            host.disk.crash()

    def _kill_agent(self, host: SimulatedHost) -> None:
        if host.agent is not None:
            host.agent.end()
            host.agent = None
        host.disk.kill()

    def _lose_power(self, host: SimulatedHost, off_seconds: int) -> None:
        if host.agent is not None:
            host.agent.end()
            host.agent = None
        host.disk.crash()
        host.off_until = self.now + off_seconds * SECOND

    # Collectors.

    def _start_collector(self) -> None:
        self.lives += 1
        instance = min({0, 1} - {collector.instance for collector in self.collectors})
        # The name is the machine's; it stays over restarts, as the address does.
        name = f"collector-{instance}"
        self.collectors.append(CollectorProcess(instance, name, self.database, self.now, self._maybe_crash))

    def _replace_collector(self, collector: CollectorProcess) -> None:
        collector.end()
        self.collectors.remove(collector)
        if not self.collectors:
            self._start_collector()

    def _maybe_crash(self, point: str) -> None:
        if self.crash_at == point:
            self.crash_at = None
            raise CollectorCrashError(point)

    # Faults.

    def _choose_faults(self) -> list[Callable[[SimulatedHost], None]]:
        """A few kinds for each seed, so that each seed has a character and rare pairs meet."""
        every: list[Callable[[SimulatedHost], None]] = [
            self._break_stream,
            self._stall_stream,
            self._partition,
            self._kill_agent_briefly,
            self._keep_agent_down,
            self._cut_power,
            self._crash_in_disk_operation,
            self._roll_spool_back,
            self._fill_disk,
            self._fail_syncs,
            self._step_clock,
            self._lose_synchronisation,
            self._suspend,
            self._reload_driver,
            self._crash_collector,
            self._crash_collector_in_commit,
            self._restore_store,
            self._join_second_collector,
            self._clone_host,
            self._remove_gpu,
            self._import_meter,
        ]
        return self.rng.sample(every, self.rng.randrange(4, 11))

    def _strike(self, fault: Callable[[SimulatedHost], None]) -> None:
        fault(self.rng.choice(self.hosts))

    def _break_stream(self, host: SimulatedHost) -> None:
        if host.agent is not None and host.agent.stream is not None:
            self.faults["stream broken, messages lost or late"] += 1
            host.agent.stream.break_off()

    def _stall_stream(self, host: SimulatedHost) -> None:
        if host.agent is not None and host.agent.stream is not None:
            self.faults["stream stalled"] += 1
            stream = host.agent.stream
            self.rng.choice((stream.up, stream.down)).stalled = True

    def _kill_agent_briefly(self, host: SimulatedHost) -> None:
        if host.agent is not None:
            self.faults["agent killed"] += 1
            self._kill_agent(host)

    def _keep_agent_down(self, host: SimulatedHost) -> None:
        """Down for so long that counters may have wrapped unseen; the machine runs on."""
        self.faults["agent down past a counter's wrap"] += 1
        self._kill_agent(host)
        length = round(AMBIGUOUS_SECONDS * self.rng.uniform(0.3, 2.5)) * SECOND
        self._pass_without(host, length)

    def _pass_without(self, host: SimulatedHost, nanoseconds: int) -> None:
        """Let time pass for all but one host, whose machine runs without its agent."""
        end = self.now + nanoseconds
        others = [other for other in self.hosts if other is not host]
        everybody, self.hosts = self.hosts, others
        while self.now < end:
            self.step(SECOND)
        self.hosts = everybody
        host.machine.advance(self.now)

    def _cut_power(self, host: SimulatedHost) -> None:
        self.faults["host rebooted"] += 1
        self._lose_power(host, self.rng.randrange(0, 200))

    def _crash_in_disk_operation(self, host: SimulatedHost) -> None:
        host.disk.crash_after(self.rng.randrange(1, 12))

    def _roll_spool_back(self, host: SimulatedHost) -> None:
        """The disk is copied back from an older copy, as from a virtual machine's snapshot."""
        if host.snapshot is None:
            return
        self.faults["spool rolled back to an older copy"] += 1
        self._lose_power(host, 0)
        host.disk.roll_back(host.snapshot)
        host.snapshot = None
        if self.rng.random() < 0.5:
            # It meters on by itself for a while, so that its sequences pass those that the collector holds.
            self._partition(host)

    def _partition(self, host: SimulatedHost) -> None:
        self.faults["host cut off from the network"] += 1
        host.isolated_until = self.now + self.rng.randrange(30, 300) * SECOND
        if host.agent is not None and host.agent.stream is not None:
            host.agent.stream.break_off()

    def _fill_disk(self, host: SimulatedHost) -> None:
        if host.disk.free_bytes:
            self.faults["disk full"] += 1
            host.disk.fill(host.disk.free_bytes)
        else:
            host.disk.fill(0)

    def _fail_syncs(self, host: SimulatedHost) -> None:
        self.faults["fsync failed"] += 1
        host.disk.fail_syncs(self.rng.randrange(1, 4))

    def _step_clock(self, host: SimulatedHost) -> None:
        self.faults["clock stepped by an hour"] += 1
        host.machine.realtime_error_nanoseconds += self.rng.choice((-HOUR, HOUR))

    def _lose_synchronisation(self, host: SimulatedHost) -> None:
        self.faults["clock not synchronised"] += 1
        host.machine.synchronised = not host.machine.synchronised

    def _suspend(self, host: SimulatedHost) -> None:
        self.faults["host suspended"] += 1
        host.machine.suspend(self.now + self.rng.randrange(5, 60) * SECOND)
        self.now = host.machine.now
        for other in self.hosts:
            other.machine.advance(self.now)
        self.doubled_since.clear()  # Time went on in one step, in which no collector could look at the store.

    def _reload_driver(self, host: SimulatedHost) -> None:
        silently = self.rng.random() < 0.5 and host.agent is not None
        self.faults["counter reset " + ("silently" if silently else "by a driver reload")] += 1
        host.machine.reload_driver(silently=silently)

    def _remove_gpu(self, host: SimulatedHost) -> None:
        """The GPU falls off the bus; sometimes while the host is cut off, for so long that its disk has no room for records,
        so that those with the GPU's last samples are given up before they were sent.

        Where a node meter has seen the GPU too, what of it is in the residual is not the oracle's to say.
        """
        if host.machine.with_node_meter or host.machine.is_gpu_gone:
            return
        self.faults["GPU gone"] += 1
        host.machine.is_gpu_gone = True
        if self.rng.random() < 0.7:
            self._partition(host)
            host.isolated_until += 400 * SECOND
            host.disk.fill(host.disk.free_bytes)

    def _import_meter(self, host: SimulatedHost) -> None:
        start = self.now // SECOND + self.rng.randrange(-300, 300)
        if self.rng.random() < 0.3:
            self.faults["import taken back"] += clerk.take_back(self.database, host.name, self.now // SECOND)
        elif clerk.bring(self.database, host.name, start, self.rng.choice((5, 60, 900))):
            self.faults["meter imported"] += 1
        else:
            self.faults["import refused"] += 1

    def _crash_collector(self, host: SimulatedHost) -> None:
        self.faults["collector killed"] += 1
        self._replace_collector(self.rng.choice(self.collectors))

    def _crash_collector_in_commit(self, host: SimulatedHost) -> None:
        self.crash_at = self.rng.choice(("before load", "before commit", "after commit", "before acknowledgement"))

    def _restore_store(self, host: SimulatedHost) -> None:
        """The database is replaced by an older copy of itself, while no collector runs."""
        copy = self.folder / "backup.sqlite"
        if not copy.exists():
            return
        self.faults["store restored from an older copy"] += 1
        for collector in list(self.collectors):
            collector.end()
        self.collectors.clear()
        restore(copy, self.database, force=True)
        self._start_collector()

    def _join_second_collector(self, host: SimulatedHost) -> None:
        """Another collector on the same database; streams at the first go on as zombies while agents come to the second."""
        if len(self.collectors) < 2:
            self.faults["second collector on one store"] += 1
            self._start_collector()
        if host.agent is not None and host.agent.stream is not None:
            # The agent's side breaks at once, what it had just sent arrives late at the collector that it left.
            host.next_flush = self.now
            self._step_host(host)
        if host.agent is not None and host.agent.stream is not None:
            self.faults["zombie stream"] += 1
            host.agent.stream.down.break_off()
            host.agent.stream.down.waiting.clear()
            host.agent.stream.up.delay(self.rng.randrange(1, 40) * SECOND)

    def _clone_host(self, host: SimulatedHost) -> None:
        """The disk's image, spool and identity included, is booted on another machine."""
        if host.is_clone or any(other.is_clone for other in self.hosts):
            return
        self.faults["identity cloned"] += 1
        machine = Machine(random.Random(self.rng.random()), "machine-clone", host.machine.with_node_meter, now=self.now)
        disk = FakeDisk(self.rng.randrange(2**32), DISK_BYTES)
        disk.roll_back(host.disk.snapshot())
        self.hosts.append(SimulatedHost(host.name, machine, disk, is_clone=True))

    # Healing.

    def _heal(self) -> None:
        self.healing = True
        self.crash_at = None
        for host in self.hosts:
            host.disk.fill(0)
            host.disk.fail_syncs(0)
            host.disk.crash_after(None)
            host.machine.realtime_error_nanoseconds = 0
            host.machine.synchronised = True
            host.off_until = min(host.off_until, self.now)
            host.isolated_until = 0
        for collector in self.collectors[1:]:
            self._replace_collector(collector)

    def _is_refused(self, host: SimulatedHost) -> bool:
        """A host whose identity was cloned may be refused until an operator decides; it meters on."""
        names = [other.name for other in self.hosts]
        return host.agent is not None and bool(host.agent.session.refusal) and names.count(host.name) > 1

    def _unrest(self) -> list[str]:
        return [
            f"{host.name}{' (clone)' if host.is_clone else ''}: "
            + ("off" if host.agent is None else f"{host.agent.session.state} {host.agent.spool.unacknowledged_records} "
               f"records wait; {host.agent.session.reason} {host.agent.session.refusal}")
            for host in self.hosts
        ]  # fmt: skip
