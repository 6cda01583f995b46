"""The agent's vocabulary: what a source is, and what it returns.

No clock, no files, no sockets: only the types in which sources, meter and topology speak to each other. The words are
those of the kernel's powercap documentation (Documentation/power/powercap/powercap.rst) and of NVML.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

MICROJOULES_PER_JOULE = 1_000_000
NANOSECONDS_PER_SECOND = 1_000_000_000

# Values at or above this are refused on the wire, so that sums of two always fit a signed 64-bit integer.
ENERGY_MICROJOULES_LIMIT = 2**62


class Component(IntEnum):
    """What a device is for accounting. The numbers are those of the wire."""

    CPU = 1
    MEMORY = 2
    GPU = 3
    ACCELERATOR = 4
    OTHER = 5


class Method(IntEnum):
    """How a channel's energy is made. The numbers are those of the wire."""

    COUNTER = 1
    INTEGRAL = 2
    MODEL = 3


class Role(IntEnum):
    """A channel's place in the accounted cut: only leaves and residuals are summed. The numbers are those of the wire."""

    LEAF = 1
    RESIDUAL = 2
    METER = 3
    SHOWN = 4


class UtilizationKind(IntEnum):
    """Which share a utilization is. The numbers are those of the wire."""

    BUSY = 1
    MEMORY = 2
    STEAL = 3
    SM_ACTIVE = 4
    TENSOR_ACTIVE = 5


class Gauge(IntEnum):
    """A value of a device that is shown and never booked; the unit is the last word. The numbers are those of the wire."""

    TEMPERATURE_CELSIUS = 1
    CLOCK_HERTZ = 2
    MEMORY_CLOCK_HERTZ = 3
    POWER_LIMIT_WATTS = 4
    THROTTLE_REASONS_MASK = 5
    AVERAGE_POWER_WATTS = 6
    INSTANT_POWER_WATTS = 7
    PROCESSES_COUNT = 8
    READING_AGE_SECONDS = 9


class WorkloadKind(IntEnum):
    """What energy was spent on. The numbers are those of the wire."""

    IDLE = 1
    UNATTRIBUTED = 2
    OTHER = 3
    KUBERNETES_POD = 4
    SLURM_JOB = 5
    SYSTEMD_UNIT = 6
    CONTAINER = 7
    VIRTUAL_MACHINE = 8


class IdlePolicy(IntEnum):
    """To whom the energy of idling hardware is given. The numbers are those of the wire."""

    NODE_ONLY = 1
    EQUAL = 2
    BY_USAGE = 3
    BY_RESERVATION = 4


@dataclass(frozen=True, slots=True, order=True)
class ChannelKey:
    """Names one metered energy flow on this host, for as long as the host exists.

    device: stable id of the part: `cpu/0`, `memory/0`, `gpu/GPU-<uuid>`, `node`.
    domain: the quantity: a RAPL domain (`package`, `core`, `uncore`, `dram`, `psys`), `board`, `estimate`, `residual`.
    source: name of the source that reads it.
    """

    device: str
    domain: str
    source: str


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """What a source says of a channel when it first offers it.

    role: LEAF, METER or SHOWN; residuals are made by the topology.
    parent: the channel of the same source that contains this one, if any; a LEAF whose parent is a METER is one of the
        meter's parts.
    within: the device that contains this one, whichever source meters that: `module/0`, `node`; used where parent is None.
        Empty: the node, which contains every device.
    excludes: components that this METER is known not to see; parts of them are summed beside it.
    cadence_seconds: how often a slow source (a management controller) has a new value; 0: at each sample.
    power_bound_watts: more than this is impossible for the part; > 0. Decides whether a wrap is ambiguous, and bounds gaps.
    counter_range_microjoules: the counter counts modulo this value; None if it never wraps (then a fall is a reset).
        Meaningful for Method.COUNTER only.
    uncertainty_lower_ratio, uncertainty_upper_ratio: 95 % band of the energy relative to its value; 0 if unknown.
    model: the part's name for people; may be empty.
    """

    key: ChannelKey
    component: Component
    method: Method
    role: Role
    power_bound_watts: float
    parent: ChannelKey | None = None
    counter_range_microjoules: int | None = None
    uncertainty_lower_ratio: float = 0.0
    uncertainty_upper_ratio: float = 0.0
    model: str = ""
    within: str = ""
    excludes: frozenset[Component] = frozenset()
    cadence_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CounterReading:
    """A raw hardware counter.

    counter_microjoules: as read, in [0, range].
    generation: changes when the counter may have started anew for a known reason (driver load); else 0.
    late_nanoseconds: how long before the time of the read it was asked for, where the answer came late; else 0.
    """

    key: ChannelKey
    counter_microjoules: int
    generation: int = 0
    late_nanoseconds: int = 0


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Power at the time of the read; the meter integrates it by trapezoids.

    power_microwatts: >= 0. late_nanoseconds: as of CounterReading.
    """

    key: ChannelKey
    power_microwatts: int
    late_nanoseconds: int = 0


@dataclass(frozen=True, slots=True)
class SpanReading:
    """Mean power over a span that a recording states: it holds from `from_nanoseconds` to the time of the read.

    from_nanoseconds: on the same clock as the time of the read, and before it.
    power_microwatts: >= 0.
    """

    key: ChannelKey
    from_nanoseconds: int
    power_microwatts: int


@dataclass(frozen=True, slots=True)
class UtilizationReading:
    """A share in [0, 1] of a device (`cpu`, `memory`, `gpu/GPU-<uuid>`), with the number of units that it is a mean of."""

    device: str
    kind: UtilizationKind
    ratio: float
    units: int = 1


@dataclass(frozen=True, slots=True)
class GaugeReading:
    """A value of a device that is shown and never booked; finite, in the unit that the gauge's name ends with."""

    device: str
    gauge: Gauge
    value: float


@dataclass(frozen=True, slots=True)
class ProcessShares:
    """Which processes used a GPU or accelerator since the read before, for the energy of workloads.

    device: that of the leaf whose energy is divided. shares: by process id (of the root PID namespace), its part of the
    device's work in [0, 1]; together at most 1; what is left over was idle. A process that holds an instance of the device
    has at most that instance's part.
    """

    device: str
    shares: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload of this host, from its appearance to its end.

    id: what names it on this host: pod uid, job id, unit, container id, machine. namespace, name: for people; may be empty.
    """

    kind: WorkloadKind
    id: str
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadsReading:
    """CPU times of this host and of its workloads, read together. Workloads are named by numbers that are never re-used.

    busy_nanoseconds, idle_nanoseconds: time since boot that the CPUs of each package worked and did not, in ascending order
        of packages; time that a hypervisor gave to others is in neither.
    workloads: all that are there now. cpu_nanoseconds: CPU time of each since it began, what it contains included.
    within: for a workload inside of another one, that one. packages: for those whose CPUs are all in one package, which.
    reservations: each one's part of the CPUs if all wanted them, in any common unit; empty if not asked for.
    memory_bytes: memory of each; memory_used_bytes: of all of the host; empty and 0 if not asked for.
    """

    busy_nanoseconds: tuple[int, ...]
    idle_nanoseconds: tuple[int, ...]
    workloads: Mapping[int, Workload]
    cpu_nanoseconds: Mapping[int, int]
    within: Mapping[int, int]
    packages: Mapping[int, int]
    reservations: Mapping[int, int]
    memory_bytes: Mapping[int, int]
    memory_used_bytes: int


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The channel could not be read this time. `reason` says what, where, with which value, and what to do."""

    key: ChannelKey
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The channel will not come back by itself: its part was removed. It is closed, and leaves the sums."""

    key: ChannelKey
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The source has opened itself anew, because a part came back or appeared: these are all its channels from now on.

    What it offered before and does not offer now it has said to be Gone, in the same read or earlier.
    returned: those that were removed and are back, the same part as before; what they used meanwhile stands in a gap.
    """

    specs: tuple[ChannelSpec, ...]
    returned: frozenset[ChannelKey] = frozenset()


Reading = (
    CounterReading
    | PowerReading
    | SpanReading
    | UtilizationReading
    | GaugeReading
    | ProcessShares
    | WorkloadsReading
    | TryAgain
    | Gone
    | Offer
)


class SourceUnavailableError(Exception):
    """A source can't meter anything on this host.

    reason: one sentence: what is missing, where.
    remedy: one sentence: the exact thing to do, or that nothing can be done.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy


class Source(Protocol):
    """Reads one kind of sensor. Constructed with its roots (`sysfs_root`, ...) as arguments; opened by `open`.

    name: the word in configuration, channel keys and metrics.
    may_block: whether a read may hang (a driver, a BMC); the sampler then reads in a worker thread with a deadline.
    notes: what the source folded, left out or distrusts, one sentence each, for `doctor` and `once`.
    """

    name: str
    may_block: bool

    def open(self) -> Sequence[ChannelSpec]:
        """Find the sensors, keep what is needed open, and return a spec for each channel.

        Returns an empty sequence for a source of utilization alone. Raises SourceUnavailableError.
        """

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every channel once. `now_nanoseconds` (CLOCK_BOOTTIME) is the time that the sampler gives the readings.

        Never raises for one unreadable channel: that is a TryAgain. May raise OSError if the source as a whole fails.
        """

    def notes(self) -> Sequence[str]:
        """What an operator should know of what was found; empty if nothing is unusual."""

    def close(self) -> None:
        """Let go of what `open` opened."""


# Makes a source from the agent's configuration; see sources/__init__.py.
SourceFactory = Callable[..., Source]
