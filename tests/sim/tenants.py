"""Workloads on a simulated machine: they come, work, share a GPU, are renamed and go. What they do has no truth to be kept.

Their energy's truth is that of the sensors it is divided from. Time is the true time in nanoseconds, given by the machine.
"""

import random
from dataclasses import dataclass, field

from wattledger_agent.readings import ProcessShares, Workload, WorkloadKind, WorkloadsReading

CPUS = 4
TENANTS_MAX = 6


@dataclass(slots=True)
class Tenants:
    """The workloads of one boot of a machine. Numbers are never re-used; a process has its workload's number."""

    rng: random.Random
    device: str
    workloads: dict[int, Workload] = field(default_factory=dict)
    cpu_nanoseconds: dict[int, int] = field(default_factory=dict)
    busy_nanoseconds: int = 0
    idle_nanoseconds: int = 0
    next_number: int = 1

    def reboot(self) -> None:
        """All are gone, and times since boot begin anew."""
        self.workloads, self.cpu_nanoseconds = {}, {}
        self.busy_nanoseconds = self.idle_nanoseconds = 0

    def advance(self, nanoseconds: int) -> None:
        """Let them work: together never more than the CPUs have."""
        left = CPUS * nanoseconds
        for number in self.cpu_nanoseconds:
            used = self.rng.randrange(left // 3 + 1)
            self.cpu_nanoseconds[number] += used
            self.busy_nanoseconds += used
            left -= used
        strangers = self.rng.randrange(left // 10 + 1)
        self.busy_nanoseconds += strangers
        self.idle_nanoseconds += left - strangers
        self._change()

    def readings(self) -> tuple[WorkloadsReading, ProcessShares]:
        """What an agent reads of them."""
        numbers = list(self.workloads)
        shares = {number: self.rng.random() / len(numbers) for number in numbers if self.rng.random() < 0.5}
        reading = WorkloadsReading(
            busy_nanoseconds=(self.busy_nanoseconds,),
            idle_nanoseconds=(self.idle_nanoseconds,),
            workloads=self.workloads,
            cpu_nanoseconds=dict(self.cpu_nanoseconds),
            within={},
            packages={},
            reservations={},
            memory_bytes=dict.fromkeys(numbers, 1 << 20),
            memory_used_bytes=TENANTS_MAX << 20,
        )
        return reading, ProcessShares(self.device, shares)

    def _change(self) -> None:
        if self.rng.random() < 0.05 and len(self.workloads) < TENANTS_MAX:
            # One of a few pods, which may be the one that left a moment ago.
            name = f"pod-{self.rng.randrange(2 * TENANTS_MAX)}"
            if name not in {workload.id for workload in self.workloads.values()}:
                workload = Workload(WorkloadKind.KUBERNETES_POD, name, "sim", "")
                self.workloads = {**self.workloads, self.next_number: workload}
                self.cpu_nanoseconds[self.next_number] = 0
                self.next_number += 1
        if self.workloads and self.rng.random() < 0.03:
            gone = self.rng.choice(list(self.workloads))
            self.workloads = {number: each for number, each in self.workloads.items() if number != gone}
            del self.cpu_nanoseconds[gone]
        if self.workloads and self.rng.random() < 0.02:
            # Its name became known.
            number = self.rng.choice(list(self.workloads))
            known = self.workloads[number]
            named = Workload(known.kind, known.id, known.namespace, f"name-of-{known.id}")
            self.workloads = {**self.workloads, number: named}
