"""A simulated machine: sensors whose true energy is known, and clocks that can be stepped. Its truth outlives every crash.

Time is the true time in nanoseconds, given by the world; nothing here reads a clock.
"""

import random
from dataclasses import dataclass, field

from tests.sim.tenants import Tenants

from wattledger_agent.counters import Instant
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gone,
    Method,
    Reading,
    Role,
    TryAgain,
)

SECOND = 1_000_000_000

# Small enough that two minutes at the power bound are a whole range: outages then make a wrap ambiguous.
CPU_RANGE_MICROJOULES = 24_000_000_000
POWER_BOUND_WATTS = 200.0


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a sensor at a read: its energy since the world began, its register, and how often it started anew."""

    energy_microjoules: int
    raw_microjoules: int
    generation: int
    resets: int


@dataclass(slots=True)
class Part:
    """One sensor. energy_microjoules: what it has counted since the world began. base: where its counter started anew."""

    spec: ChannelSpec
    power_microwatts: int
    energy_microjoules: int = 0
    remainder: int = 0
    base_microjoules: int = 0
    generation: int = 0
    resets: int = 0
    until_nanoseconds: int = 0

    def advance(self, to_nanoseconds: int, *, powered: bool) -> None:
        """Let time pass at constant power; integer microjoules, the remainder is kept."""
        if powered:
            work = self.power_microwatts * (to_nanoseconds - self.until_nanoseconds) + self.remainder
            joules, self.remainder = divmod(work, SECOND)
            self.energy_microjoules += joules
        self.until_nanoseconds = to_nanoseconds

    def raw(self) -> int:
        """What the register shows."""
        counted = self.energy_microjoules - self.base_microjoules
        wrap = self.spec.counter_range_microjoules
        return counted if wrap is None else counted % wrap

    def start_anew(self) -> None:
        """The counter returns to 0, as at boot or when a driver is loaded."""
        self.base_microjoules = self.energy_microjoules


def _spec(
    device: str, domain: str, component: Component, role: Role, parent: ChannelKey | None, wrap: int | None
) -> ChannelSpec:
    return ChannelSpec(
        key=ChannelKey(device, domain, "sim"),
        component=component,
        method=Method.COUNTER,
        role=role,
        power_bound_watts=POWER_BOUND_WATTS if role is not Role.METER else 4 * POWER_BOUND_WATTS,
        parent=parent,
        counter_range_microjoules=wrap,
    )


@dataclass(slots=True)
class Machine:
    """Sensors and clocks of one host."""

    rng: random.Random
    machine_id: str
    with_node_meter: bool
    now: int = 0
    boot_started: int = 0
    boot_id: bytes = b""
    realtime_error_nanoseconds: int = 0
    synchronised: bool = True
    suspended_nanoseconds: int = 0
    read_failure_ratio: float = 0.0
    parts: list[Part] = field(default_factory=list)
    boots: int = 0
    # Once its GPU is gone it does not come back; the driver lists it all the same.
    is_gpu_gone: bool = False
    tenants: Tenants = field(init=False)

    def __post_init__(self) -> None:
        node = ChannelKey("node", "board", "sim")
        parent = node if self.with_node_meter else None
        specs = [
            _spec("cpu/0", "package", Component.CPU, Role.LEAF, parent, CPU_RANGE_MICROJOULES),
            _spec("memory/0", "dram", Component.MEMORY, Role.LEAF, parent, CPU_RANGE_MICROJOULES),
            _spec("gpu/GPU-1", "board", Component.GPU, Role.LEAF, parent, None),
        ]
        if self.with_node_meter:
            specs.append(_spec("node", "board", Component.OTHER, Role.METER, None, None))
        self.parts = [Part(spec, 0, until_nanoseconds=self.now) for spec in specs]
        # A generator of its own, so that what workloads do changes nothing else.
        self.tenants = Tenants(random.Random(self.machine_id), "gpu/GPU-1")
        self._change_load()
        self.boot()

    @property
    def specs(self) -> list[ChannelSpec]:
        """What the sensors offer."""
        return [part.spec for part in self.parts]

    def boot(self) -> None:
        """A new boot: new id, boottime from 0, all counters from 0."""
        self.boots += 1
        self.boot_id = self.rng.randbytes(16)
        self.boot_started = self.now
        self.suspended_nanoseconds = 0
        for part in self.parts:
            part.start_anew()
            part.generation = 0
        self.tenants.reboot()

    def advance(self, to: int, *, powered: bool = True) -> None:
        """Let time pass; the load changes now and then."""
        for part in self.parts:
            part.advance(to, powered=powered)
        if powered:
            self.tenants.advance(to - self.now)
        self.now = to
        if self.rng.random() < 0.1:
            self._change_load()

    def suspend(self, to: int) -> None:
        """Sleep: boottime goes on, monotonic time does not, the sensors draw nothing and start anew."""
        self.suspended_nanoseconds += to - self.now
        self.advance(to, powered=False)
        for part in self.parts:
            part.start_anew()

    def reload_driver(self, *, silently: bool) -> None:
        """The GPU's counter starts anew; the driver's generation tells it, or its fall alone."""
        part = self.parts[2]
        part.start_anew()
        part.resets += 1
        part.generation += not silently

    def instant(self) -> Instant:
        """The host's clocks now."""
        return Instant(
            boot_id=self.boot_id,
            boottime_nanoseconds=self.now - self.boot_started,
            realtime_nanoseconds=self.now + self.realtime_error_nanoseconds,
            synchronised=self.synchronised,
            suspended_nanoseconds=self.suspended_nanoseconds,
        )

    def read(self) -> tuple[list[Reading], dict[ChannelKey, Truth]]:
        """One reading of every sensor, and the truth of those that worked."""
        readings: list[Reading] = list(self.tenants.readings())
        truth: dict[ChannelKey, Truth] = {}
        for part in self.parts:
            if part.spec.component is Component.GPU and self.is_gpu_gone:
                readings.append(Gone(part.spec.key, "simulated: it fell off the bus"))
                continue
            if self.rng.random() < self.read_failure_ratio:
                readings.append(TryAgain(part.spec.key, "simulated failure"))
                continue
            readings.append(CounterReading(part.spec.key, part.raw(), part.generation))
            truth[part.spec.key] = Truth(part.energy_microjoules, part.raw(), part.generation, part.resets)
        return readings, truth

    def _change_load(self) -> None:
        bound = round(POWER_BOUND_WATTS * 1_000_000 * 0.9)
        leaves = [part for part in self.parts if part.spec.role is Role.LEAF]
        for part in leaves:
            part.power_microwatts = self.rng.randrange(bound // 20, bound)
        for part in self.parts:
            if part.spec.role is Role.METER:
                # Fans and losses on top; now and then a meter that reads below its parts, so that residuals are negative.
                extra = self.rng.randrange(-bound // 10, bound // 2)
                part.power_microwatts = max(0, sum(leaf.power_microwatts for leaf in leaves) + extra)
