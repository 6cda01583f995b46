"""What the ledger keeps, as types: the words in which session, ledger, store, fleet and accounting speak to each other.

No clock, no database, no framework. Energy is integer microjoules, times are integer nanoseconds (intervals: seconds) since
1970-01-01 UTC unless a name says boottime. Structs that are packed into one database column are msgspec structs; their
encoding is compared byte by byte, so field order is part of the schema.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from wattledger_collector.closures import Closure
    from wattledger_collector.imports import EnergyImport
    from wattledger_collector.workload_records import (
        HostWorkloadRow,
        HostWorkloads,
        WorkloadBooking,
        WorkloadCursor,
        WorkloadSum,
    )

MICROJOULES_PER_JOULE = 1_000_000
MICROJOULES_PER_KWH = 3_600_000_000_000
NANOSECONDS_PER_SECOND = 1_000_000_000

# Fixed when a database is created; other lengths divide a day as well, but one store has one length for ever.
INTERVAL_SECONDS_DEFAULT = 900

# Absolute values at or above this are refused, so that sums of two always fit a signed 64-bit integer.
ENERGY_MICROJOULES_LIMIT = 2**62

# An import that covers all of a host, and not one component of it.
IMPORTED_COMPONENT_ALL = 0

# A site for hosts that no rule of the configuration assigns. It has no zone, so its kWh are listed as uncovered.
SITE_UNASSIGNED = "unassigned"


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
    """A channel's place in the accounted cut: only leaves and residuals are booked. The numbers are those of the wire."""

    LEAF = 1
    RESIDUAL = 2
    METER = 3
    SHOWN = 4


class Quality(IntEnum):
    """What an energy row is made of. Modelled energy never shares a row with measured energy."""

    COUNTER = 1
    INTEGRAL = 2
    MODEL = 3
    # A counter spanned a hole: the energy is exact, its spread over time is even by assumption.
    BRIDGED = 4


class GapReason(StrEnum):
    """Why energy may be missing. The first seven come from the agent, the others are the collector's."""

    NOT_MEASURED = "not_measured"
    WRAP_AMBIGUOUS = "wrap_ambiguous"
    RESET = "reset"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    MISSING_IN_RECORDING = "missing_in_recording"
    IMPLAUSIBLE = "implausible"
    # A new epoch began: from the host's latest point in any epoch to the opening.
    EPOCH = "epoch"
    # Another epoch of the host had already booked this boottime.
    OVERLAP = "overlap"
    # The sums moved, but the detail beside them was lost with its batch.
    UNREPORTED = "unreported"


class HostState(StrEnum):
    """How an operator sees a host. Bookings are accepted in all states but `retired`."""

    ACTIVE = "active"
    # Expected to be silent: no silence alert.
    DRAINED = "drained"
    RETIRED = "retired"


class ChannelPoint(msgspec.Struct, array_like=True, frozen=True):
    """A cursor's own point on one channel: what is committed of it.

    energy, gap_lower, gap_upper (microjoules) and gap_unbounded (count) are the agent's cumulative values at the point;
    boot_id and boottime_nanoseconds say when, utc_nanoseconds which time that was booked as.
    booked_microjoules is the committed lifetime total of the channel: what bookings added up to (role LEAF and RESIDUAL go
    into rows; METER and SHOWN are counted here alone). booked_high_microjoules is the highest value it ever had: the same
    but for a residual, which is signed and may fall; counters show it, so that they never do. A booking computes it as
    max(before, booked_microjoules); readers take the larger of both.
    """

    boot_id: bytes
    boottime_nanoseconds: int
    utc_nanoseconds: int
    energy_microjoules: int
    gap_lower_microjoules: int
    gap_upper_microjoules: int
    gap_unbounded_count: int
    booked_microjoules: int
    booked_high_microjoules: int = 0


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """How far one epoch of one host is committed. One packed row per (host, epoch).

    created_utc_nanoseconds: when the epoch was first seen; the created timestamp of its counters.
    recorded: the epoch comes from a recording and never enters live totals.
    collector: id of the collector that wrote the row last; it exposes the host.
    points: by the epoch's channel number, in ascending order.
    committed_checksum: that of the batch that committed_sequence ended with; it tells a forked spool from the true one.
    """

    host: str
    epoch: bytes
    committed_sequence: int
    created_utc_nanoseconds: int
    recorded: bool
    collector: str
    points: dict[int, ChannelPoint]
    committed_checksum: int = 0


class Boot(msgspec.Struct, array_like=True, frozen=True):
    """One boot of a host, in the order in which the Hellos named them.

    offset_nanoseconds: UTC = boottime + offset. trusted: from a clock that the kernel called synchronised.
    """

    boot_id: bytes
    offset_nanoseconds: int
    trusted: bool


class BootedSpan(msgspec.Struct, array_like=True, frozen=True):
    """The boottime of one boot that one epoch has booked, half-open (from, to]; nanoseconds."""

    epoch: bytes
    boot_id: bytes
    from_boottime_nanoseconds: int
    to_boottime_nanoseconds: int


class ImportedSpan(msgspec.Struct, array_like=True, frozen=True):
    """Time of a host that an import has booked: a half-open span of UTC, in seconds.

    component: whose energy, as in Component; IMPORTED_COMPONENT_ALL: that of the whole host.
    """

    component: int
    from_seconds: int
    to_seconds: int


class Host(msgspec.Struct, array_like=True, frozen=True):
    """One metered machine. Each booking of any of its epochs replaces the packed row where it still equals the one read.

    version: +1 with each replacement. boots: the newest last, at most BOOTS_MAX. spans: at most SPANS_MAX, newest last.
    epochs: all epochs seen, newest last, at most EPOCHS_MAX; the newest is the one whose Hello came last.
    withheld_until: after a restore, the sequence (by epoch) that the agent must reach before the host's counters are
    exposed again; empty if nothing is withheld. withheld: set by `restore` until the first Hello fills withheld_until.
    name: what the operator calls the host; empty: its id. A Hello's labels never change it.
    imported: what imports of other meters have booked, by component and time, none overlapping; see imported_time.py.
    """

    host: str
    version: int
    machine_id: str
    state: str
    labels: dict[str, str]
    boots: tuple[Boot, ...]
    spans: tuple[BootedSpan, ...]
    epochs: tuple[bytes, ...]
    withheld: bool
    withheld_until: dict[bytes, int]
    conflict: str
    name: str = ""
    imported: tuple[ImportedSpan, ...] = ()

    @property
    def shown_name(self) -> str:
        """What people call the host: the operator's name, else the machine's own; empty if it has neither."""
        return self.name or self.labels.get("hostname", "")


BOOTS_MAX = 16  # A host that boots daily keeps two weeks of offsets; older boots are only met in a longer backlog.
SPANS_MAX = 64  # 16 boots by 4 epochs.
EPOCHS_MAX = 32  # An epoch is made when a spool is lost or copied: a handful in a machine's life.


@dataclass(frozen=True, slots=True)
class ChannelEnd:
    """Where a closed channel ended: its last cumulative values, as in ChannelPoint, and when, as the agent gave it."""

    boot_id: bytes
    boottime_nanoseconds: int
    realtime_nanoseconds: int
    synchronised: bool
    energy_microjoules: int
    gap_lower_microjoules: int
    gap_upper_microjoules: int
    gap_unbounded_count: int


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """One channel of an epoch's catalog, checked. Times of the opening are as the agent gave them.

    end: of a closed channel whose agent tells; booked once, and not kept: stores leave it out.
    """

    channel: int
    device: str
    component: Component
    domain: str
    source: str
    method: Method
    role: Role
    parent_channel: int
    opening_boot_id: bytes
    opening_boottime_nanoseconds: int
    opening_realtime_nanoseconds: int
    opening_synchronised: bool
    closed: bool
    power_bound_milliwatts: int
    uncertainty_lower_ratio: float
    uncertainty_upper_ratio: float
    model: str
    end: ChannelEnd | None = None

    @property
    def is_booked(self) -> bool:
        """Whether the channel is in the accounted cut."""
        return self.role in (Role.LEAF, Role.RESIDUAL)


# A dozen are made for each batch; a frozen dataclass takes six times as long to make.
class EnergyRow(msgspec.Struct, frozen=True, gc=False):
    """Energy to be added to (channel, interval, quality). interval_start_seconds is a multiple of the interval."""

    channel: int
    interval_start_seconds: int
    quality: Quality
    energy_microjoules: int
    covered_nanoseconds: int


@dataclass(frozen=True, slots=True)
class GapRow:
    """What a channel may have missed: the truth lies in [lower, upper]; upper None: unknown. Half-open UTC span."""

    channel: int
    from_utc_nanoseconds: int
    to_utc_nanoseconds: int
    reason: GapReason
    lower_microjoules: int
    upper_microjoules: int | None


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """Something not booked, kept for people: an undecodable batch, or an implausible amount.

    channel 0: the whole batch. microjoules: the signed amount refused, None if unknown. payload: the bytes as they came.
    """

    first_sequence: int
    last_sequence: int
    channel: int
    reason: str
    microjoules: int | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class UtilizationRow:
    """Busy time of a device to be added to (device, kind, interval); nanoseconds. Shares of time, never energy."""

    device: str
    kind: int
    interval_start_seconds: int
    busy_nanoseconds: int


@dataclass(frozen=True, slots=True)
class Booking:
    """All that one Hello or one batch changes, to be committed whole or not at all.

    cursor_before is None for an epoch that is not in the store yet; host_before likewise. cursor_after and host_after
    replace them only where the stored rows still equal the ones before. channels: catalog rows to insert or to update.
    workloads: None where the batch has no accounts. Their cursor changes with the epoch's cursor alone, so that comparing
    that one suffices for both, provided that it was read first. imported: where an import's energy comes from.
    """

    host_before: Host | None
    host_after: Host
    cursor_before: Cursor | None
    cursor_after: Cursor
    channels: tuple[ChannelInfo, ...] = ()
    energy: tuple[EnergyRow, ...] = ()
    gaps: tuple[GapRow, ...] = ()
    evidence: tuple[EvidenceRow, ...] = ()
    utilization: tuple[UtilizationRow, ...] = ()
    workloads: "WorkloadBooking | None" = None
    imported: "EnergyImport | None" = None


class CommitOutcome(IntEnum):
    """What became of one booking of a commit."""

    COMMITTED = 1
    # The stored host or cursor was no longer the one the booking was computed from: read again, and start from a Welcome.
    STALE = 2
    # The data of this booking can't be stored; the others of the commit were.
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class RollupRow:
    """Energy of a site in one interval, or in a piece of several; kept as energy is booked: reports never scan hosts.

    recorded: from recordings; never part of live totals. edition: see closures.py; sums are over all of them.
    """

    site: str
    interval_start_seconds: int
    component: Component
    quality: Quality
    recorded: bool
    energy_microjoules: int
    covered_nanoseconds: int
    edition: int = 0


class Piece(NamedTuple):
    """A half-open span of whole intervals in which nothing changes that figures are made with; see pieces.py. Seconds."""

    from_seconds: int
    to_seconds: int


@dataclass(frozen=True, slots=True)
class ChannelCount:
    """How many channels of an epoch are in the accounted cut; still_open: those of them that are not closed."""

    booked: int
    still_open: int


@dataclass(frozen=True, slots=True)
class HostEnergyRow:
    """Energy of one channel of one host in one interval."""

    host: str
    epoch: bytes
    interval_start_seconds: int
    channel: ChannelInfo
    quality: Quality
    recorded: bool
    energy_microjoules: int
    covered_nanoseconds: int


@dataclass(frozen=True, slots=True)
class HostGapRow:
    """A gap of one host, with the site that the host belonged to when it began."""

    host: str
    site: str
    epoch: bytes
    channel: ChannelInfo | None
    recorded: bool
    gap: GapRow


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site's zone and PUE from an instant on. zone None: emissions are not reckoned. pue: a decimal as text, >= 1.

    pue_from, pue_to: the days, in ISO form, between which it was determined, the last not included; pue_category: where IT
    energy was measured, 1 to 3 of ISO/IEC 30134-2; pue_evidence: the document. Each is empty where it was not stated.
    """

    site: str
    valid_from_seconds: int
    zone: str | None
    pue: str
    assumed: bool
    recorded_at_seconds: int
    pue_from: str = ""
    pue_to: str = ""
    pue_category: str = ""
    pue_evidence: str = ""


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """The site of a host from an instant on."""

    host: str
    valid_from_seconds: int
    site: str
    recorded_at_seconds: int


@dataclass(frozen=True, slots=True)
class EmissionBasis:
    """The factor and PUE with which an interval of a site first entered the emission counters; never changed after.

    factor_grams_per_kwh and pue: decimals as text, or fractions such as `65/3`. factor: id of the factor row.
    market_grams_per_kwh, market_factor: the same, market based; empty: as location based. scope, overhead_scope: where the
    electricity of IT and that of the rest of the site stand; empty: 2. factor_tier: how good the factor was, or empty.
    """

    site: str
    interval_start_seconds: int
    factor_grams_per_kwh: str
    factor: str
    pue: str
    market_grams_per_kwh: str = ""
    market_factor: str = ""
    scope: str = ""
    overhead_scope: str = ""
    factor_tier: str = ""


class EmissionRun(NamedTuple):
    """Adjacent intervals of a site, half-open [its basis's interval, to_seconds), that have one basis but for the time."""

    basis: EmissionBasis
    to_seconds: int


class Store(Protocol):
    """The database. It decides: any collector may take any agent. Every method opens and ends its own transaction.

    Raises StoreError, with a remedy in the text, when the database can't be used.
    """

    @property
    def interval_seconds(self) -> int:
        """Length of the ledger's intervals, fixed when the database was created."""

    def load_host(self, host: str) -> Host | None:
        """The host's row as committed; None if never seen."""

    def load_cursor(self, host: str, epoch: bytes) -> Cursor | None:
        """The epoch's row as committed; None if never seen."""

    def load_channels(self, host: str, epoch: bytes) -> dict[int, ChannelInfo]:
        """The epoch's catalog, by channel number."""

    def load_peer_cursors(self, host: str, epoch: bytes) -> Sequence[Cursor]:
        """The cursors of the host's other epochs."""

    def load_workload_cursor(self, host: str, epoch: bytes) -> "WorkloadCursor | None":
        """How far the epoch's workloads are committed; None if it never had any. To be read after the cursor."""

    def host_workloads(self, host: str, seen_since_utc_nanoseconds: int) -> "HostWorkloads":
        """Lifetime totals under the keys of all workloads that were seen since then, and the host's version with them."""

    def workload_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> "Iterator[HostWorkloadRow]":
        """Energy of workloads in intervals that start in [from, to), by interval and host."""

    def workload_sums(self, pieces: Iterable[Piece]) -> "Iterator[WorkloadSum]":
        """For each piece, in order, the energy of workloads in the intervals that start in it, added up.

        Components are added together; all sums are of one state of the ledger.
        """

    def commit(self, bookings: Sequence[Booking]) -> list[CommitOutcome]:
        """Commit all bookings in one transaction, durable on return. At most one for each host.

        If one is stale or can't be stored, the others are committed all the same.
        """

    def cursors(self) -> Iterator[Cursor]:
        """All cursors."""

    def hosts(self) -> Iterator[Host]:
        """All hosts."""

    def rollups(self, from_seconds: int, to_seconds: int, site: str | None = None) -> Iterator[RollupRow]:
        """Roll-up rows whose interval starts in [from, to), in order of site and interval."""

    def rollup_begin(self) -> int | None:
        """The earliest interval that has a row; None if none has."""

    def rollup_sums(
        self, pieces: Iterable[Piece], only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> Iterator[RollupRow]:
        """For each piece, in order, the roll-up rows whose interval starts in it, added up; they are dated by its beginning.

        only: of these sites; None: of all but those of `without`. All rows are of one state of the ledger; editions stay
        apart.
        """

    def reading_ahead(self, from_seconds: int, to_seconds: int) -> AbstractContextManager[None]:
        """While the block runs, what a report of a long period needs may be fetched from the disk; changes no answer."""

    def channel_counts(self) -> Mapping[tuple[str, bytes], ChannelCount]:
        """How many channels are booked, by (host, epoch); one query for all."""

    def host_energy(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostEnergyRow]:
        """Energy rows whose interval starts in [from, to)."""

    def gaps(self, from_seconds: int, to_seconds: int, host: str | None = None) -> Iterator[HostGapRow]:
        """Gaps that overlap [from, to)."""

    def add_sites(self, rows: Iterable[SiteRow]) -> None:
        """Add dated site rows; rows are never changed."""

    def sites(self) -> Sequence[SiteRow]:
        """All site rows, by site and time."""

    def add_assignments(self, rows: Iterable[AssignmentRow]) -> None:
        """Add dated assignments; rows are never changed."""

    def assignments(self) -> Sequence[AssignmentRow]:
        """All assignments, by host and time."""

    def closures(self) -> "Sequence[Closure]":
        """All closures, in the order in which they were made."""

    def add_emission_bases(self, rows: Iterable[EmissionBasis]) -> "Sequence[EmissionBasis]":
        """Keep the basis of intervals that have none yet; an existing one stays. Returns what now stands for each."""

    def emission_bases(self) -> Iterator[EmissionBasis]:
        """All bases."""

    def emission_runs(self) -> Iterator[EmissionRun]:
        """All bases, by site and time, as few runs as they make."""

    def close(self) -> None:
        """Let go of the database."""


class StoreError(Exception):
    """The database can't be used; the text says what happened, where, and what to do."""
