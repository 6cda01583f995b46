"""Divides the energy that one channel booked in one step over workloads, idling and what nobody claims, to the microjoule.

Reads nothing, keeps nothing and knows no accounts. Everything is whole numbers, and the parts of a step always sum to it.

The method is the time share: of a step of a CPU package, the part that idled is the step times the idle share of the
package's CPU time, and the rest is divided by CPU time. It needs no model of the processor and no learning, and it states
what can be known without one; since an idle second takes less power than a busy one, it gives idling too much and working
too little on a machine that is little used, and it gives idling nothing on one that is fully used. Memory is divided like
the CPUs that use it, or, where asked for, by how much of it each workload holds. Of an accelerator, work is divided by what
its driver says of processes, and the rest idled.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isfinite

from wattledger_agent.readings import IdlePolicy

# Printed beside every figure, together with the idle policy.
METHOD_NAME = "time-share"

# Shares of accelerators are divided as whole numbers of this; NVML tells whole percents.
SHARE_UNITS = 1_000_000_000


@dataclass(slots=True)
class Usage:
    """What the CPUs of a host did in a span of time, by package. Nanoseconds and bytes, none negative.

    cpu_nanoseconds: by workload; every workload that was there for the whole span or since it appeared, the idle ones too.
    packages: for workloads whose CPUs are all in one package, which.
    reservations, memory_bytes, memory_used_bytes: as they are at the end of the span; see WorkloadsReading.
    """

    busy_nanoseconds: tuple[int, ...]
    idle_nanoseconds: tuple[int, ...]
    cpu_nanoseconds: Mapping[int, int]
    packages: Mapping[int, int] = field(default_factory=dict)
    reservations: Mapping[int, int] = field(default_factory=dict)
    memory_bytes: Mapping[int, int] = field(default_factory=dict)
    memory_used_bytes: int = 0


@dataclass(slots=True)
class Division:
    """One step, divided. parts: microjoules by workload, with what its idle policy gives it; all of them sum to the step."""

    parts: dict[int, int]
    idle_microjoules: int
    unattributed_microjoules: int


def divide(total: int, weights: Iterable[int]) -> list[int]:
    """Divide a whole number >= 0 by weights >= 0 of which one at least is above 0; the parts sum to it exactly.

    Each part is its exact share rounded down or up: part i ends where the exact sum of the first i shares, rounded down,
    ends. So nobody is favoured for their size, a weight of 0 gets nothing, and over many steps the roundings even out.
    """
    weights = list(weights)
    whole = sum(weights)
    parts = []
    weight_before = energy_before = 0
    for weight in weights:
        weight_before += weight
        upto = total * weight_before // whole
        parts.append(upto - energy_before)
        energy_before = upto
    return parts


class Divider:
    """Divides any number of steps of one span. What depends on the span alone is reckoned once."""

    def __init__(self, usage: Usage, policy: IdlePolicy) -> None:
        self._usage = usage
        self._policy = policy
        self._scales: dict[tuple[int | None, bool], _Scale] = {}

    def cpu(self, energy_microjoules: int, package: int | None) -> Division:
        """Divide a step of a CPU package, or of all CPUs (None; so is a package that this host does not list)."""
        return self._by_time(energy_microjoules, package, by_memory=False)

    def memory(self, energy_microjoules: int, package: int | None) -> Division:
        """Divide a step of a package's memory by how much of the host's used memory each workload holds."""
        return self._by_time(energy_microjoules, package, by_memory=self._usage.memory_used_bytes > 0)

    def shares(
        self, energy_microjoules: int, shares: Mapping[int, float], owner_of: Callable[[int], int | None]
    ) -> Division:
        """Divide a step of an accelerator by its processes' shares. owner_of: the workload of a process, if it has one.

        What processes without a workload did is unattributed; what no process did was idle. Idle energy is given, by the
        policy, to the workloads that hold the device, for the others never asked for it.
        """
        worked: dict[int, int] = {}
        unclaimed = 0
        for process, share in shares.items():
            units = round(min(share, 1.0) * SHARE_UNITS) if isfinite(share) and share > 0 else 0
            number = owner_of(process)
            if number is None or number not in self._usage.cpu_nanoseconds:
                unclaimed += units
            else:
                worked[number] = worked.get(number, 0) + units
        claimed = sum(worked.values())
        idle = max(0, SHARE_UNITS - claimed - unclaimed)
        scale = _Scale(list(worked), [*worked.values(), unclaimed], claimed + unclaimed, idle)
        return self._divided(energy_microjoules, scale, worked)

    def _by_time(self, energy_microjoules: int, package: int | None, *, by_memory: bool) -> Division:
        usage = self._usage
        if package is not None and package >= len(usage.busy_nanoseconds):
            package = None
        scale = self._scales.get((package, by_memory))
        if scale is None:
            scale = self._scales[package, by_memory] = (
                _memory_scale(usage, package) if by_memory else _cpu_scale(usage, package)
            )
        return self._divided(energy_microjoules, scale, usage.cpu_nanoseconds)

    def _divided(self, energy: int, scale: "_Scale", candidates: Iterable[int]) -> Division:
        if scale.busy + scale.idle <= 0:
            return Division({}, 0, energy)
        active, idle = divide(energy, (scale.busy, scale.idle))
        division = _by_weights(active, scale)
        division.idle_microjoules = idle
        if self._policy is not IdlePolicy.NODE_ONLY and idle:
            self._give_idle(division, scale, candidates)
        return division

    def _give_idle(self, division: Division, scale: "_Scale", candidates: Iterable[int]) -> None:
        """Hand the idle part on by the policy; where nobody can take it, it stays with the node."""
        idle = division.idle_microjoules
        if self._policy is IdlePolicy.BY_USAGE:
            if not scale.whole:
                return
            # Unclaimed work is work too: else a workload would pay the idling of a host that the kernel keeps busy.
            given = _by_weights(idle, scale)
            division.unattributed_microjoules += given.unattributed_microjoules
            more: Iterable[tuple[int, int]] = given.parts.items()
        else:
            takers = sorted(candidates)
            equal = self._policy is IdlePolicy.EQUAL
            weights = [1 if equal else self._usage.reservations.get(number, 0) for number in takers]
            if not sum(weights):
                return
            more = zip(takers, divide(idle, weights), strict=True)
        division.idle_microjoules = 0
        for number, part in more:
            if part:
                division.parts[number] = division.parts.get(number, 0) + part


class _Scale:
    """How one span of one part of the host is divided.

    numbers: the workloads that have a weight. weights: theirs, and last that of what nobody claims. busy, idle: the part of
    the energy that was spent working and idling, in any common unit.
    """

    __slots__ = ("busy", "ends", "idle", "numbers", "whole")

    def __init__(self, numbers: list[int], weights: Sequence[int], busy: int, idle: int) -> None:
        self.numbers = numbers
        self.busy = busy
        self.idle = idle
        self.ends = list(accumulate(weights))
        self.whole = self.ends[-1] if self.ends else 0


def _by_weights(energy: int, scale: _Scale) -> Division:
    """Divide by the weights, as `divide` does; all is unattributed where nobody has one."""
    if not scale.whole or not energy:
        return Division({}, 0, energy)
    whole, before = scale.whole, 0
    parts = {}
    for number, end in zip(scale.numbers, scale.ends, strict=False):
        upto = energy * end // whole
        if upto != before:
            parts[number] = upto - before
            before = upto
    return Division(parts, 0, energy - before)


def _cpu_scale(usage: Usage, package: int | None) -> _Scale:
    """Weights are CPU times. Where workloads claim more than the host was busy, their own times are the whole: scaled."""
    if package is None or not usage.packages:
        # Where nobody is bound to a package, all of them are divided alike, and only their own idling differs.
        worked = [(number, time) for number, time in usage.cpu_nanoseconds.items() if time > 0]
        weights = [time for _, time in worked]
        unclaimed = max(0, sum(usage.busy_nanoseconds) - sum(weights))
        chosen = slice(None) if package is None else slice(package, package + 1)
        busy, idle = sum(usage.busy_nanoseconds[chosen]), sum(usage.idle_nanoseconds[chosen])
        return _Scale([number for number, _ in worked], [*weights, unclaimed], busy, idle)
    busy = usage.busy_nanoseconds[package]
    free = _free_nanoseconds(usage)
    all_free = sum(free)
    numbers, weights = [], []
    for number, time in usage.cpu_nanoseconds.items():
        home = usage.packages.get(number)
        # A cgroup's counter does not say where it ran. Who may run anywhere ran where the packages were busy.
        weight = time * free[package] if home is None else time * all_free if home == package else 0
        if weight > 0:
            numbers.append(number)
            weights.append(weight)
    return _Scale(numbers, [*weights, max(0, busy * all_free - sum(weights))], busy, usage.idle_nanoseconds[package])


def _free_nanoseconds(usage: Usage) -> list[int]:
    """Busy time of each package that is not of workloads which are bound to it; never 0 in all."""
    free = list(usage.busy_nanoseconds)
    for number, package in usage.packages.items():
        if 0 <= package < len(free):
            free[package] -= usage.cpu_nanoseconds.get(number, 0)
    free = [max(0, time) for time in free]
    return free if any(free) else [1] * len(free)


def _memory_scale(usage: Usage, package: int | None) -> _Scale:
    held = {number: size for number, size in usage.memory_bytes.items() if size > 0 and number in usage.cpu_nanoseconds}
    unclaimed = max(0, usage.memory_used_bytes - sum(held.values()))
    chosen = slice(None) if package is None else slice(package, package + 1)
    busy, idle = sum(usage.busy_nanoseconds[chosen]), sum(usage.idle_nanoseconds[chosen])
    return _Scale(list(held), [*held.values(), unclaimed], busy, idle)
