"""A small fleet for tests of what is shown: hosts whose power is known, booked and shown as the real writer does it.

Uses no ledger: the bookings are made here, so that the truth is independent of it. Energy of a step is power x time, exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from wattledger_collector.accounting import BasisFinder
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.fleet import FleetView
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    AssignmentRow,
    Booking,
    ChannelInfo,
    ChannelPoint,
    CommitOutcome,
    Component,
    Cursor,
    EnergyRow,
    GapReason,
    GapRow,
    Host,
    HostState,
    Method,
    Quality,
    Role,
    SiteRow,
    Store,
)
from wattledger_collector.workload_records import (
    Workload,
    WorkloadBooking,
    WorkloadCursor,
    WorkloadEnergyRow,
    WorkloadTimeRow,
)
from wattledger_protos.v1 import telemetry_pb2 as pb

COLLECTOR = "collector"
BOOT = b"boot--0123456789"
QUALITIES = {Method.COUNTER: Quality.COUNTER, Method.INTEGRAL: Quality.INTEGRAL, Method.MODEL: Quality.MODEL}


@dataclass(frozen=True, slots=True)
class Part:
    """One channel of a host and its constant power; milliwatts, negative for a residual that falls."""

    device: str
    component: Component
    method: Method
    milliwatts: int
    role: Role = Role.LEAF
    domain: str = "package"
    source: str = "rapl"


MEASURED = (
    Part("cpu/0", Component.CPU, Method.COUNTER, 120_000),
    Part("memory/0", Component.MEMORY, Method.COUNTER, 18_500, domain="dram"),
)
GPUS = (
    *MEASURED,
    Part("gpu/GPU-1", Component.GPU, Method.COUNTER, 310_000, domain="board", source="nvidia"),
    Part("gpu/GPU-2", Component.GPU, Method.INTEGRAL, 290_000, domain="board", source="nvidia"),
)
MODELLED = (Part("node", Component.OTHER, Method.MODEL, 210_000, domain="estimate", source="estimate"),)


@dataclass
class SimulatedHost:
    """A host whose agent sends a batch and a Live message at each step."""

    name: str
    parts: Sequence[Part]
    started_seconds: int
    recorded: bool = False
    epoch: bytes = b"epoch-0123456789"
    busy_ppm: int = 430_000
    # What the host's first part was spent on, in milliwatts; the rest of its power is not attributed.
    workloads: Mapping[Workload, int] = field(default_factory=dict)
    host: Host | None = None
    cursor: Cursor | None = None
    at_seconds: int = 0

    def __post_init__(self) -> None:
        self.at_seconds = self.started_seconds

    def channels(self) -> tuple[ChannelInfo, ...]:
        """The catalog."""
        band = {Method.MODEL: 0.15}
        return tuple(
            ChannelInfo(
                channel=number,
                device=part.device,
                component=part.component,
                domain=part.domain,
                source=part.source,
                method=part.method,
                role=part.role,
                parent_channel=0,
                opening_boot_id=BOOT,
                opening_boottime_nanoseconds=0,
                opening_realtime_nanoseconds=self.started_seconds * NANOSECONDS_PER_SECOND,
                opening_synchronised=True,
                closed=False,
                power_bound_milliwatts=1_000_000,
                uncertainty_lower_ratio=band.get(part.method, 0.02),
                uncertainty_upper_ratio=band.get(part.method, 0.02),
                model="",
            )
            for number, part in enumerate(self.parts, 1)
        )

    def hello(self) -> Booking:
        """The booking of the stream's opening."""
        before = self.host
        epochs = (*(before.epochs if before else ()), self.epoch)
        version = before.version + 1 if before else 1
        self.host = Host(
            self.name, version, "m", HostState.ACTIVE, {"hostname": f"{self.name}.example"}, (), (), epochs, False, {}, ""
        )
        self.cursor = Cursor(
            self.name, self.epoch, 0, self.started_seconds * NANOSECONDS_PER_SECOND, self.recorded, COLLECTOR, {}
        )
        return Booking(before, self.host, None, self.cursor, channels=self.channels())

    def batch(self, to_seconds: int, *, interval_seconds: int = 900, gap: bool = False) -> Booking:
        """The booking of all energy up to an instant; it all lies in the interval of the step's beginning."""
        assert self.host is not None
        assert self.cursor is not None
        span = to_seconds - self.at_seconds
        start = self.at_seconds // interval_seconds * interval_seconds
        host_before, cursor_before = self.host, self.cursor
        points = dict(cursor_before.points)
        rows = []
        for number, part in enumerate(self.parts, 1):
            microjoules = part.milliwatts * 1000 * span
            old = points.get(number, ChannelPoint(BOOT, 0, 0, 0, 0, 0, 0, 0))
            booked = old.booked_microjoules + microjoules
            points[number] = msgspec.structs.replace(
                old,
                utc_nanoseconds=to_seconds * NANOSECONDS_PER_SECOND,
                booked_microjoules=booked,
                booked_high_microjoules=max(booked, old.booked_high_microjoules),
            )
            rows.append(EnergyRow(number, start, QUALITIES[part.method], microjoules, span * NANOSECONDS_PER_SECOND))
        gaps = (
            (
                GapRow(
                    1,
                    self.at_seconds * NANOSECONDS_PER_SECOND,
                    to_seconds * NANOSECONDS_PER_SECOND,
                    GapReason.REBOOT,
                    0,
                    5_000_000,
                ),
            )
            if gap
            else ()
        )
        workloads = self._workloads(start, span, to_seconds) if self.workloads else None
        self.at_seconds = to_seconds
        self.host = msgspec.structs.replace(host_before, version=host_before.version + 1)
        self.cursor = msgspec.structs.replace(
            cursor_before, committed_sequence=cursor_before.committed_sequence + 1, points=points
        )
        return Booking(
            host_before, self.host, cursor_before, self.cursor, energy=tuple(rows), gaps=gaps, workloads=workloads
        )

    def _workloads(self, start: int, span: int, to_seconds: int) -> WorkloadBooking:
        flow = (self.parts[0].component, self.parts[0].method)
        return WorkloadBooking(
            WorkloadCursor(BOOT, 0, 0, {}, (), 0, 0),
            tuple(self.workloads),
            to_seconds * NANOSECONDS_PER_SECOND,
            tuple(WorkloadEnergyRow(each, start, *flow, power * 1000 * span) for each, power in self.workloads.items()),
            tuple(WorkloadTimeRow(each, start, span * NANOSECONDS_PER_SECOND // 4) for each in self.workloads),
        )

    def live(self, factor: float = 1.0) -> pb.Live:
        """The present values; factor scales all powers."""
        powers = [
            pb.LivePower(
                device=part.device,
                domain=part.domain,
                component=pb.Component.Value(f"COMPONENT_{part.component.name}"),
                method=pb.Method.Value(f"METHOD_{part.method.name}"),
                role=pb.Role.Value(f"ROLE_{part.role.name}"),
                power_milliwatts=round(part.milliwatts * factor),
                uncertainty_lower_ratio=0.15 if part.method is Method.MODEL else 0.02,
                uncertainty_upper_ratio=0.15 if part.method is Method.MODEL else 0.02,
            )
            for part in self.parts
        ]
        gpus = [part.device for part in self.parts if part.component is Component.GPU]
        utilizations = [
            pb.LiveUtilization(device=device, kind=pb.UtilizationKind.UTILIZATION_KIND_BUSY, ppm=self.busy_ppm)
            for device in ("cpu", *gpus)
        ]
        sources = [pb.LiveSource(source=source, reads=10) for source in sorted({part.source for part in self.parts})]
        return pb.Live(
            clock=pb.ClockPair(realtime_nanoseconds=self.at_seconds * NANOSECONDS_PER_SECOND),
            powers=powers,
            utilizations=utilizations,
            sources=sources,
            spool_bytes=2048,
            agent_cpu_nanoseconds=1_500_000_000,
            agent_memory_bytes=45_000_000,
        )


@dataclass
class SimulatedFleet:
    """Hosts that report to one view, and are committed to its store where it has one."""

    view: FleetView
    hosts: list[SimulatedHost]
    store: Store | None = None
    booked_microjoules: int = field(default=0)

    def commit(self, bookings: Sequence[Booking], now_seconds: float) -> None:
        """As the writer: first the store, then the listeners."""
        if self.store is not None:
            assert all(outcome is CommitOutcome.COMMITTED for outcome in self.store.commit(bookings))
        self.view.on_committed(bookings, now_seconds)

    def open(self, now_seconds: float) -> None:
        """All agents connect."""
        self.commit([host.hello() for host in self.hosts], now_seconds)

    def step(self, now_seconds: int, factor: float = 1.0) -> None:
        """All agents send a batch and their present values."""
        bookings = [host.batch(now_seconds) for host in self.hosts]
        self.commit(bookings, now_seconds)
        for host, booking in zip(self.hosts, bookings, strict=True):
            if not host.recorded:
                self.booked_microjoules += sum(row.energy_microjoules for row in booking.energy)
            self.view.on_live(host.name, host.live(factor), now_seconds)


def add_details(live: pb.Live, device: str = "gpu/GPU-1") -> pb.Live:
    """The message with all that an agent may tell beside power and health."""
    gauges = {
        pb.GAUGE_TEMPERATURE_CELSIUS: 61.5,
        pb.GAUGE_CLOCK_HERTZ: 1.98e9,
        pb.GAUGE_MEMORY_CLOCK_HERTZ: 2.6e9,
        pb.GAUGE_POWER_LIMIT_WATTS: 700.0,
        pb.GAUGE_THROTTLE_REASONS_MASK: 0x44,
        pb.GAUGE_AVERAGE_POWER_WATTS: 420.25,
        pb.GAUGE_INSTANT_POWER_WATTS: 433.0,
        pb.GAUGE_PROCESSES_COUNT: 3,
        pb.GAUGE_READING_AGE_SECONDS: 12.5,
    }
    live.gauges.extend(pb.LiveGauge(device=device, gauge=gauge, value=value) for gauge, value in gauges.items())
    live.cross_checks.add(
        device="node", source="ipmi", domain="node", reference_source="redfish", reference_domain="node",
        disagreement_ratio=-0.031, window_seconds=600,
    )  # fmt: skip
    live.meter.CopyFrom(
        pb.LiveMeter(failed_reads=1, unbelieved_readings=2, ignored_readings=3, ignored_rows=4, thinned_rows=5)
    )
    live.agent_energy_microjoules = 2_500_000
    live.agent_wakeups = 77
    kinds = pb.UtilizationKind.values()[2:]
    live.utilizations.extend(pb.LiveUtilization(device=device, kind=kind, ppm=250_000) for kind in kinds)
    return live


def site_rows(site: str = "hall", zone: str | None = "DE", *, pue: str = "1.25", assumed: bool = False) -> list[SiteRow]:
    """One site for all time."""
    return [SiteRow(site, 0, zone, pue, assumed, 0)]


def assignments(hosts: Sequence[SimulatedHost], site: str = "hall") -> list[AssignmentRow]:
    """All hosts in one site for all time."""
    return [AssignmentRow(host.name, 0, site, 0) for host in hosts]


def load(view: FleetView, store: Store, now_seconds: float) -> BasisFinder:
    """Load the view from the store, with the bundled factors."""
    finder = BasisFinder(store.sites(), load_catalog())
    view.load(store, finder, now_seconds)
    return finder
