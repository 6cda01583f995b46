"""Accounts of workloads through sampler and spool: durable with the record that holds them, repeated until acknowledged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.agent.metering import SECOND, at, counter, spec
from tests.agent.scripted import Clock, ScriptedSource, opened

from wattledger_agent.readings import IdlePolicy, Reading, Workload, WorkloadKind, WorkloadsReading
from wattledger_agent.sampler import Cadence, Sampler
from wattledger_agent.spool import Spool
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_protos.v1 import telemetry_pb2 as pb

PACKAGE = spec()
CADENCE = Cadence(period_seconds=1.0, flush_seconds=10.0, live_seconds=1000.0)
SETTINGS = WorkloadSettings(IdlePolicy.NODE_ONLY, 50, 60.0, lambda process: None)
POD = WorkloadKind.KUBERNETES_POD


class Quiet:
    """A shipper that does nothing."""

    def appended(self) -> None:
        """See Delivery."""

    def live(self, live: pb.Live) -> None:
        """See Delivery."""


class Agent:
    """An agent on one package of 60 W, on which one pod does all the work until `gone`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.gone = False
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        self.spool = Spool.open(
            self.folder, machine_id="m", dmi_uuid="", opening=at(99), new_epoch=lambda: b"e" * 16, quota_bytes=1 << 24
        )
        inventory = opened(
            ScriptedSource("workloads", self._workloads),
            ScriptedSource("rapl", lambda now: [counter(PACKAGE, 60 * now // 1000)], [PACKAGE]),
        )
        self.sampler = Sampler(inventory.opened, self.spool, Quiet(), self.clock, CADENCE, workloads=SETTINGS)

    def _workloads(self, now: int) -> Sequence[Reading]:
        there = {} if self.gone else {1: Workload(POD, "uid")}
        return [WorkloadsReading((now,), (0,), there, dict.fromkeys(there, now), {}, {}, {}, {}, 0)]

    def tick(self, seconds: int) -> None:
        """One tick a second."""
        for _ in range(seconds):
            self.sampler.step()
            self.clock.seconds += 1

    def record(self, sequence: int) -> pb.Payload:
        """A record of the spool."""
        record = self.spool.find(sequence)
        assert record is not None
        return pb.Payload.FromString(record.payload)

    def holding(self) -> dict[int, dict[str, tuple[int, bool]]]:
        """By record: energy in joules of each account in it, and whether it is frozen."""
        found = {}
        for sequence in range(1, self.spool.next_sequence):
            accounts = self.record(sequence).workload_accounts
            if accounts:
                found[sequence] = {
                    one.id or pb.WorkloadKind.Name(one.kind): (
                        sum(energy.energy_microjoules for energy in one.energies) // 1_000_000,
                        one.frozen,
                    )
                    for one in accounts
                }
        return found


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent before its first tick."""
    agent = Agent(tmp_path / "spool")
    yield agent
    agent.spool.close()


def test_accounts_are_in_a_record_a_minute(agent: Agent) -> None:
    """Each holds what the pod used up to it: 60 W, all of it the pod's."""
    agent.tick(131)
    assert {sequence: accounts["uid"] for sequence, accounts in agent.holding().items() if "uid" in accounts} == {
        7: (60 * 60, False),
        13: (60 * 120, False),
    }


def test_a_restart_goes_on_from_the_last_record(agent: Agent) -> None:
    """What was used since comes back from the counter, and is nobody's, for nobody watched; the first record tells all."""
    agent.tick(76)
    agent.spool.close()
    agent.start()
    agent.tick(1)
    last = agent.spool.next_sequence - 1
    assert agent.holding()[last] == {"uid": (60 * 70, False), "WORKLOAD_KIND_UNATTRIBUTED": (60 * 6, False)}
    (account,) = [one for one in agent.record(last).workload_accounts if one.id == "uid"]
    assert account.cpu_nanoseconds == 70 * SECOND


def test_a_frozen_account_is_in_each_minutes_record_until_it_is_acknowledged(agent: Agent) -> None:
    """Then it is gone from the records, and from the state."""
    agent.tick(71)
    agent.gone = True
    agent.tick(180)
    frozen = [sequence for sequence, accounts in agent.holding().items() if accounts.get("uid", (0, False))[1]]
    assert len(frozen) == 2
    agent.spool.acknowledge(frozen[0])
    agent.tick(60)
    later = [sequence for sequence, accounts in agent.holding().items() if sequence > frozen[1] and "uid" in accounts]
    assert later == []
    agent.spool.close()
    agent.start()
    agent.tick(1)
    assert "uid" not in agent.holding()[agent.spool.next_sequence - 1]


def test_a_frozen_account_survives_a_restart_before_it_is_acknowledged(agent: Agent) -> None:
    """The state of every record has it."""
    agent.tick(71)
    agent.gone = True
    agent.tick(120)
    agent.spool.close()
    agent.start()
    agent.tick(1)
    assert agent.holding()[agent.spool.next_sequence - 1]["uid"] == (60 * 70, True)
