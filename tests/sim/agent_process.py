"""A simulated agent process: the real meter, spool and session on a simulated machine, disk and network."""

import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.fake_disk import FakeDisk
from tests.sim.hardware import SECOND, Machine
from tests.sim.network import Pipe
from tests.sim.oracle import Oracle

from wattledger_agent.meter import Cut, Meter
from wattledger_agent.readings import IdlePolicy
from wattledger_agent.session import AgentSession, Identity
from wattledger_agent.spool import Spool, SpoolError
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_protos.v1 import telemetry_pb2 as pb

SPOOL = Path("/spool")
QUOTA_BYTES = 256 * 1024  # About as much as a long outage spools, so that it is met.
SEGMENT_BYTES = 16 * 1024
INTEGRAL_GAP_SECONDS_MAX = 10.0
ACCOUNTS_MAX = 3  # Fewer than there are workloads, so that they contend for them.
ACCOUNTS_FLUSH_SECONDS = 20.0  # In every second record.


@dataclass(slots=True, eq=False)
class Stream:
    """One gRPC stream: two pipes and the collector at the other end."""

    up: Pipe[pb.AgentMessage]
    down: Pipe[pb.CollectorMessage]
    collector: str

    def break_off(self) -> None:
        """Both directions end."""
        self.up.break_off()
        self.down.break_off()


@dataclass(slots=True)
class Account:
    """What is known outside the agent of one host's spools: the oracle at each record that was ever written."""

    at_record: dict[tuple[bytes, int, int], Oracle] = field(default_factory=dict)
    at_sequence: dict[tuple[bytes, int], Oracle] = field(default_factory=dict)

    def keep(self, epoch: bytes, sequence: int, payload: bytes, oracle: Oracle) -> None:
        """Remember the lineage's account at a record. A fork may use the sequence again: the checksum tells them apart."""
        copy = oracle.copy()
        self.at_record[epoch, sequence, zlib.crc32(payload)] = copy
        self.at_sequence[epoch, sequence] = copy

    def find(self, epoch: bytes, sequence: int, checksum: int) -> Oracle | None:
        """The account at a record; a thinned record has another checksum, but ends with the same sample."""
        return self.at_record.get((epoch, sequence, checksum)) or self.at_sequence.get((epoch, sequence))


class AgentProcess:
    """One life of an agent. A crash is: this object is dropped, and the disk told."""

    def __init__(self, rng: random.Random, host: str, machine: Machine, disk: FakeDisk, account: Account) -> None:
        self.rng = rng
        self.machine = machine
        self.account = account
        self.spool = Spool.open(
            SPOOL,
            machine_id=machine.machine_id,
            dmi_uuid="",
            opening=machine.instant(),
            new_epoch=lambda: rng.randbytes(16),
            quota_bytes=QUOTA_BYTES,
            segment_bytes=SEGMENT_BYTES,
            files=disk,
        )
        identity = Identity(host, "simulated", machine.machine_id, machine.boot_id)
        self.session = AgentSession(self.spool, identity, jitter=rng.random)
        self.stream: Stream | None = None
        self.oracle = self._recall()
        self.meter = self._make_meter(self.spool.last_state)
        self.unspooled: tuple[Cut, Oracle] | None = None
        self.lost_records = 0

    def sample(self) -> None:
        """Read all sensors once."""
        readings, truth = self.machine.read()
        now = self.machine.instant()
        self.meter.observe(readings, now)
        self.oracle.observe(truth, now)

    def flush(self, now_seconds: float) -> None:
        """Spool what was metered, and let the session send it. A record that can't be written is tried again first."""
        accounts = self.meter.workloads.accounts if self.meter.workloads is not None else None
        if accounts is not None:
            accounts.acknowledged(self.spool.acknowledged_sequence, self.spool.dropped_records)
        while (pending := self.unspooled or self._cut()) is not None:
            self.unspooled = pending
            cut, oracle = pending
            # Kept before the write: a crash within it may leave the record whole.
            self.account.keep(self.spool.epoch, self.spool.next_sequence, cut.payload, oracle)
            try:
                sequence = self.spool.append(cut)
            except SpoolError:
                self.lost_records += 1
                return
            if accounts is not None:
                accounts.spooled(sequence)
            self.unspooled = None
            stored = self.spool.stored_bytes
            assert stored <= QUOTA_BYTES, f"the spool holds {stored} bytes, its quota is {QUOTA_BYTES}"
            self._send(self.session.appended(now_seconds))

    def _cut(self) -> tuple[Cut, Oracle] | None:
        cut = self.meter.cut(self.machine.instant())
        if cut is None:
            return None
        told = pb.Payload.FromString(cut.payload).workload_accounts
        self.oracle.hear((each.account, sum(flow.energy_microjoules for flow in each.energies)) for each in told)
        return cut, self.oracle.copy()

    def step(self, now_seconds: float) -> None:
        """Receive what has arrived, and do what the session wants."""
        stream = self.stream
        if stream is not None:
            while (message := stream.down.due(self.machine.now)) is not None:
                self._send(self.session.received(message, now_seconds))
            self._send(self.session.tick(now_seconds))
            ended = stream.down.broken and not stream.down.waiting
            if self.session.wants_disconnect or ended:
                stream.break_off()
                self.stream = None
                self.session.disconnected(now_seconds)
        if self.session.wants_new_epoch:
            self.spool.renew(self.machine.instant())
            self.oracle = Oracle(self.machine.specs)
            self.meter = self._make_meter(None)
            self.unspooled = None

    def connect(self, stream: Stream, now_seconds: float) -> None:
        """A stream is open."""
        self.stream = stream
        now = self.machine.instant()
        clock = pb.ClockPair(
            boottime_nanoseconds=now.boottime_nanoseconds,
            realtime_nanoseconds=now.realtime_nanoseconds,
            synchronised=now.synchronised,
        )
        self._send(self.session.connected(now_seconds, clock))

    def end(self) -> None:
        """The process is gone; what it had sent may still arrive."""
        if self.stream is not None:
            self.stream.break_off()

    def is_settled(self) -> bool:
        """Whether all that is spooled is acknowledged."""
        return self.session.state.value == "idle" and self.spool.unacknowledged_records == 0

    def _send(self, messages: list[pb.AgentMessage]) -> None:
        if self.stream is None:
            return
        for message in messages:
            self.stream.up.send(message, self.machine.now)

    def _recall(self) -> Oracle:
        newest = self.spool.next_sequence - 1
        if self.spool.last_state is None:
            return Oracle(self.machine.specs)
        record = self.spool.find(newest)
        checksum = zlib.crc32(record.payload) if record is not None else 0
        found = self.account.find(self.spool.epoch, newest, checksum)
        assert found is not None, "a spool holds a record that no agent wrote"
        return found.copy()

    def _make_meter(self, state: bytes | None) -> Meter:
        workloads = WorkloadSettings(IdlePolicy.BY_USAGE, ACCOUNTS_MAX, ACCOUNTS_FLUSH_SECONDS, lambda process: process)
        meter = Meter(state=state, integral_gap_seconds_max=INTEGRAL_GAP_SECONDS_MAX, workloads=workloads)
        meter.offer(self.machine.specs, self.machine.instant())
        return meter


def seconds(nanoseconds: int) -> float:
    """Virtual nanoseconds as the sessions' monotonic seconds."""
    return nanoseconds / SECOND
