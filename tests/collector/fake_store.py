"""An in-memory records.Store for tests of what reads the ledger; it books nothing."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from wattledger_collector.closures import Closure
from wattledger_collector.records import (
    NANOSECONDS_PER_SECOND,
    AssignmentRow,
    Booking,
    ChannelCount,
    ChannelInfo,
    CommitOutcome,
    Component,
    Cursor,
    EmissionBasis,
    EmissionRun,
    Host,
    HostEnergyRow,
    HostGapRow,
    Method,
    Piece,
    Role,
    RollupRow,
    SiteRow,
)
from wattledger_collector.workload_records import HostWorkload, HostWorkloadRow, HostWorkloads, WorkloadCursor, WorkloadSum


def channel_info(
    channel: int = 1, component: Component = Component.CPU, *, role: Role = Role.LEAF, closed: bool = False
) -> ChannelInfo:
    """A channel for gaps and catalogs."""
    return ChannelInfo(
        channel=channel,
        device=f"cpu/{channel}",
        component=component,
        domain="package",
        source="rapl",
        method=Method.COUNTER,
        role=role,
        parent_channel=0,
        opening_boot_id=bytes(16),
        opening_boottime_nanoseconds=0,
        opening_realtime_nanoseconds=0,
        opening_synchronised=True,
        closed=closed,
        power_bound_milliwatts=500_000,
        uncertainty_lower_ratio=0.0,
        uncertainty_upper_ratio=0.0,
        model="",
    )


@dataclass
class FakeStore:
    """Lists of rows behind the Store protocol."""

    interval_seconds: int = 900
    host_rows: list[Host] = field(default_factory=list)
    cursor_rows: list[Cursor] = field(default_factory=list)
    channel_rows: dict[tuple[str, bytes], dict[int, ChannelInfo]] = field(default_factory=dict)
    rollup_rows: list[RollupRow] = field(default_factory=list)
    gap_rows: list[HostGapRow] = field(default_factory=list)
    site_rows: list[SiteRow] = field(default_factory=list)
    assignment_rows: list[AssignmentRow] = field(default_factory=list)
    basis_rows: list[EmissionBasis] = field(default_factory=list)
    closure_rows: list[Closure] = field(default_factory=list)
    workload_rows: dict[str, HostWorkloads] = field(default_factory=dict)
    workload_energy_rows: list[HostWorkloadRow] = field(default_factory=list)

    def load_host(self, host: str) -> Host | None:
        """The host of that id."""
        return next((row for row in self.host_rows if row.host == host), None)

    def load_cursor(self, host: str, epoch: bytes) -> Cursor | None:
        """The cursor of that epoch."""
        return next((row for row in self.cursor_rows if (row.host, row.epoch) == (host, epoch)), None)

    def load_channels(self, host: str, epoch: bytes) -> dict[int, ChannelInfo]:
        """The epoch's catalog."""
        return self.channel_rows.get((host, epoch), {})

    def load_peer_cursors(self, host: str, epoch: bytes) -> Sequence[Cursor]:
        """The host's other cursors."""
        return [row for row in self.cursor_rows if row.host == host and row.epoch != epoch]

    def load_workload_cursor(self, host: str, epoch: bytes) -> WorkloadCursor | None:
        """None: a reader needs none."""
        return None

    def host_workloads(self, host: str, seen_since_utc_nanoseconds: int) -> HostWorkloads:
        """What was put there, as far as it was seen since."""
        known = self.workload_rows.get(host, HostWorkloads(0, ()))
        seen = (total for total in known.totals if total.last_seen_utc_nanoseconds >= seen_since_utc_nanoseconds)
        return HostWorkloads(known.version, tuple(seen))

    def workload_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostWorkloadRow]:
        """Rows of the span."""
        for row in self.workload_energy_rows:
            if from_seconds <= row.interval_start_seconds < to_seconds and host in (None, row.host):
                yield row

    def workload_sums(self, pieces: Iterable[Piece]) -> Iterator[WorkloadSum]:
        """Each row by itself: sums of one row."""
        for piece in pieces:
            for row in self.workload_energy(*piece):
                source = HostWorkload(row.host, row.recorded, row.workload)
                yield WorkloadSum(source, row.method, piece.from_seconds, row.energy_microjoules)

    def commit(self, bookings: Sequence[Booking]) -> list[CommitOutcome]:
        """Not for readers."""
        raise AssertionError("a reader of the ledger must not book")

    def cursors(self) -> Iterator[Cursor]:
        """All cursors."""
        return iter(self.cursor_rows)

    def hosts(self) -> Iterator[Host]:
        """All hosts."""
        return iter(self.host_rows)

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """Rows of the span, in order of site and interval."""
        rows = [
            row
            for row in self.rollup_rows
            if from_seconds <= row.interval_start_seconds < to_seconds and site in (None, row.site)
        ]
        return iter(sorted(rows, key=lambda row: (row.site, row.interval_start_seconds)))

    def rollup_begin(self) -> int | None:
        """Of the earliest row."""
        return min((row.interval_start_seconds for row in self.rollup_rows), default=None)

    def rollup_sums(
        self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> Iterator[RollupRow]:
        """The rows of each piece added up by all that tells them apart."""
        for piece in pieces:
            sums: dict[RollupRow, tuple[int, int]] = {}
            for row in self.rollups(piece.from_seconds, piece.to_seconds):
                if row.site in without if only is None else row.site not in only:
                    continue
                own = replace(row, interval_start_seconds=piece.from_seconds, energy_microjoules=0, covered_nanoseconds=0)
                energy, covered = sums.get(own, (0, 0))
                sums[own] = (energy + row.energy_microjoules, covered + row.covered_nanoseconds)
            for own, (energy, covered) in sums.items():
                yield replace(own, energy_microjoules=energy, covered_nanoseconds=covered)

    def reading_ahead(self, from_seconds: int, to_seconds: int) -> AbstractContextManager[None]:
        """All is at hand."""
        return nullcontext()

    def channel_counts(self) -> Mapping[tuple[str, bytes], ChannelCount]:
        """By epoch, of those that have a catalog."""
        return {
            epoch: ChannelCount(
                sum(info.is_booked for info in channels.values()),
                sum(info.is_booked and not info.closed for info in channels.values()),
            )
            for epoch, channels in self.channel_rows.items()
        }

    def host_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostEnergyRow]:
        """None: reports are made of roll-ups."""
        return iter(())

    def gaps(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostGapRow]:
        """Gaps that overlap the span."""
        begin, end = from_seconds * NANOSECONDS_PER_SECOND, to_seconds * NANOSECONDS_PER_SECOND
        for row in self.gap_rows:
            is_overlapping = row.gap.from_utc_nanoseconds < end and row.gap.to_utc_nanoseconds > begin
            if is_overlapping and host in (None, row.host):
                yield row

    def add_sites(self, rows: Iterable[SiteRow]) -> None:
        """Add rows."""
        self.site_rows.extend(rows)

    def sites(self) -> Sequence[SiteRow]:
        """By site and time."""
        return sorted(self.site_rows, key=lambda row: (row.site, row.valid_from_seconds, row.recorded_at_seconds))

    def add_assignments(self, rows: Iterable[AssignmentRow]) -> None:
        """Add rows."""
        self.assignment_rows.extend(rows)

    def assignments(self) -> Sequence[AssignmentRow]:
        """By host and time."""
        return sorted(self.assignment_rows, key=lambda row: (row.host, row.valid_from_seconds, row.recorded_at_seconds))

    def closures(self) -> Sequence[Closure]:
        """All closures."""
        return self.closure_rows

    def add_emission_bases(self, rows: Iterable[EmissionBasis]) -> Sequence[EmissionBasis]:
        """Keep what is new."""
        added = {(row.site, row.interval_start_seconds): row for row in rows}
        known = {(row.site, row.interval_start_seconds): row for row in self.basis_rows}
        self.basis_rows.extend(row for key, row in added.items() if key not in known)
        return [known.get(key, row) for key, row in added.items()]

    def emission_bases(self) -> Iterator[EmissionBasis]:
        """All bases."""
        return iter(self.basis_rows)

    def emission_runs(self) -> Iterator[EmissionRun]:
        """A run for each: nothing rests on there being few."""
        return (EmissionRun(row, row.interval_start_seconds + self.interval_seconds) for row in self.basis_rows)

    def close(self) -> None:
        """Nothing to let go of."""
