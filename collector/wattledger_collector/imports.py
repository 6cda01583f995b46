"""Another meter's series as one booking: an epoch of its own in the same ledger, or a series beside it.

Values in, values out: no file, no clock, no database. What the file says is read in `import_series.py`, who keeps it is
`import_store.py`. Source of truth: the ledger's contract in `records.py`.

A series is kept in one of three places. BOOKED: it is the energy of a host, as an epoch that is recorded, so that it is in
reports and never in live counters. BESIDE: it covers time of a host that is booked already (a node's meter over the agent's
parts, say): it is kept and shown, and in no sum; a residual is not reckoned from it, since nobody read both together.
FACILITY: it is the energy of a whole site, from which a PUE is measured.

What is booked stands in the way of all later bookings of its time: the host's row keeps the spans, and the ledger looks at
them. An import that was wrong is taken back by the exact opposite, and its row stays, with why.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256

import msgspec

from wattledger_collector.facility import Point
from wattledger_collector.import_series import Form, Format, Label, Series, utc_text
from wattledger_collector.imported_time import is_kept_out, without_holes
from wattledger_collector.intervals import split
from wattledger_collector.records import (
    ENERGY_MICROJOULES_LIMIT,
    IMPORTED_COMPONENT_ALL,
    NANOSECONDS_PER_SECOND,
    Booking,
    ChannelInfo,
    ChannelPoint,
    Component,
    Cursor,
    EnergyRow,
    GapReason,
    GapRow,
    Host,
    HostEnergyRow,
    HostState,
    ImportedSpan,
    Method,
    Quality,
    Role,
)

# The one channel of an import's epoch.
CHANNEL = 1

# What a cursor names as its collector: none that runs, so that none shows the epoch as live.
COLLECTOR = "import"

SOURCE = "import"

# Longer texts are no names.
TEXT_CHARACTERS_MAX = 1_000


class MeterImportError(ValueError):
    """A series can't be imported so; the text says why and what to do."""


class Place(StrEnum):
    """Where a series is kept."""

    BOOKED = "booked"
    BESIDE = "beside"
    FACILITY = "facility"


@dataclass(frozen=True, slots=True)
class Meter:
    """What was metered and how well. host: empty for a whole site. uncertainty_ratio: half-width of 95 %; None: unstated.

    power_bound_milliwatts: the most that it can measure; 0: unknown.
    """

    host: str
    site: str
    component: Component
    meter: str
    point: Point
    uncertainty_ratio: Decimal | None
    evidence: str
    power_bound_milliwatts: int = 0

    @property
    def kept_component(self) -> int:
        """Whose energy a booked series stands for: its component's, or that of the whole host (IMPORTED_COMPONENT_ALL)."""
        return int(self.component) if self.point is Point.COMPONENT else IMPORTED_COMPONENT_ALL


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a series comes from. digest: names the import, the file with all that was said of it; it is kept once."""

    digest: str
    file: str
    sha256: str
    rows: int
    imported_at_seconds: int
    version: str
    form: Form
    label: Label
    time_zone: str
    value_column: str
    from_seconds: int
    to_seconds: int
    energy_microjoules: int
    missing_seconds: int


@dataclass(frozen=True, slots=True)
class Removal:
    """An import was taken back. replacement: the digest of the one in its place; empty: none."""

    removed_at_seconds: int
    reason: str
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class EnergyImport:
    """One import. rows: of a series that is kept beside the ledger, by interval; empty where the ledger has them.

    removal: None while it holds; an import that was taken back counts nowhere.
    """

    meter: Meter
    place: Place
    provenance: Provenance
    rows: tuple[EnergyRow, ...] = ()
    removal: Removal | None = None

    @property
    def epoch(self) -> bytes:
        """The epoch under which a host's series is booked."""
        return bytes.fromhex(self.provenance.digest)[:16]


def make_import(
    series: Series,
    form: Format,
    meter: Meter,
    *,
    file: str,
    content: bytes,
    now_seconds: int,
    version: str,
    beside: bool,
    interval_seconds: int,
) -> EnergyImport:
    """Check what is said of a series, and name it. content: the file's very bytes. Raises MeterImportError."""
    check_meter(meter, beside=beside)
    if series.to_seconds > now_seconds:
        raise MeterImportError(
            f"{file} ends at {utc_text(series.to_seconds)}, and it is {utc_text(now_seconds)}: check --time-zone and --label"
        )
    place = Place.FACILITY if meter.point is Point.FACILITY else Place.BESIDE if beside else Place.BOOKED
    if place is not Place.FACILITY and series.energy_microjoules >= ENERGY_MICROJOULES_LIMIT:
        raise MeterImportError(
            f"{file} holds {series.energy_microjoules // 3_600_000_000_000} kWh for one host: check the unit of its values"
        )
    rows = interval_rows(series, form.form, interval_seconds)
    for row in rows:
        if row.energy_microjoules >= ENERGY_MICROJOULES_LIMIT:
            raise MeterImportError(
                f"{file} has more than a GWh in an interval, at {utc_text(row.interval_start_seconds)}: check the unit"
            )
    file_digest = sha256(content).hexdigest()
    # All that gives the file its meaning: said differently, it is another import, and overlaps the first.
    said = (
        file_digest, meter.host, "" if meter.host else meter.site,
        meter.component.name, meter.meter, meter.point, form.form, form.label,
        form.time_zone.key, form.time_column, form.value_column, place, str(form.rollover_kwh),
        *(f"{length.seconds}@{length.from_seconds}" for length in form.lengths),
    )  # fmt: skip
    provenance = Provenance(
        digest=sha256("\0".join(said).encode()).hexdigest(),
        file=file,
        sha256=file_digest,
        rows=series.rows,
        imported_at_seconds=now_seconds,
        version=version,
        form=form.form,
        label=form.label,
        time_zone=form.time_zone.key,
        value_column=form.value_column,
        from_seconds=series.from_seconds,
        to_seconds=series.to_seconds,
        energy_microjoules=series.energy_microjoules,
        missing_seconds=sum(end - start for start, end in series.holes),
    )
    return EnergyImport(meter, place, provenance, () if place is Place.BOOKED else rows)


def check_meter(meter: Meter, *, beside: bool) -> None:
    """Refuse what contradicts itself. Raises MeterImportError."""
    texts = {"--host": meter.host, "--site": meter.site, "--meter": meter.meter, "--evidence": meter.evidence}
    for option, text in texts.items():
        if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
            raise MeterImportError(f"{option} {text[:40]!r}: use at most {TEXT_CHARACTERS_MAX} printable characters")
    if meter.point is Point.FACILITY:
        if meter.host or not meter.site:
            raise MeterImportError("a meter of the facility is of a site and not of a host: give --site, leave out --host")
        if beside:
            raise MeterImportError("a meter of the facility enters no sum of hosts anyway: leave out --beside")
    elif not meter.host:
        raise MeterImportError(
            f"a meter at point {meter.point} measures some machines of a site and not all of it: give --host with an id for "
            "what it measures, or --point facility"
        )
    ratio = meter.uncertainty_ratio
    if ratio is not None and not (ratio.is_finite() and 0 <= ratio <= 1):
        raise MeterImportError(f"--uncertainty-ratio {ratio}: write the half-width of the 95 % interval, 0.01 for ±1 %")


def interval_rows(series: Series, form: Form, interval_seconds: int) -> tuple[EnergyRow, ...]:
    """The series by the ledger's intervals: exact, the remainder of a microjoule to the later one."""
    quality = Quality.INTEGRAL if form is Form.AVERAGE_WATTS else Quality.COUNTER
    sums: dict[tuple[int, Quality], tuple[int, int]] = {}
    for span in series.spans:
        start, end = span.from_seconds * NANOSECONDS_PER_SECOND, span.to_seconds * NANOSECONDS_PER_SECOND
        made_of = Quality.BRIDGED if span.is_bridged else quality
        for at, energy, covered in split(span.microjoules, start, end, interval_seconds):
            before_energy, before_covered = sums.get((at, made_of), (0, 0))
            sums[at, made_of] = (before_energy + energy, before_covered + covered)
    return tuple(EnergyRow(CHANNEL, at, made_of, *amounts) for (at, made_of), amounts in sorted(sums.items()))


def named_anew(made: EnergyImport, known: Iterable[EnergyImport]) -> EnergyImport | None:
    """The import under a digest of its own, as it may have been kept before and taken back; None if it is kept now."""
    removals = {each.provenance.digest: each.removal for each in known}
    while (digest := made.provenance.digest) in removals:
        if removals[digest] is None:
            return None
        made = replace(made, provenance=replace(made.provenance, digest=sha256(digest.encode()).hexdigest()))
    return made


def book_import(made: EnergyImport, series: Series, interval_seconds: int) -> Booking:
    """The booking of a host's series, as if the host had no row yet; on_host gives it the one that it has."""
    source, epoch = made.provenance, made.epoch
    is_booked = made.place is Place.BOOKED
    gaps = tuple(_gaps(series, made.meter.power_bound_milliwatts)) if is_booked else ()
    point = ChannelPoint(
        boot_id=bytes(16),
        boottime_nanoseconds=source.to_seconds * NANOSECONDS_PER_SECOND,
        utc_nanoseconds=source.to_seconds * NANOSECONDS_PER_SECOND,
        energy_microjoules=source.energy_microjoules,
        gap_lower_microjoules=0,
        gap_upper_microjoules=sum(gap.upper_microjoules or 0 for gap in gaps),
        gap_unbounded_count=sum(gap.upper_microjoules is None for gap in gaps),
        booked_microjoules=source.energy_microjoules,
        booked_high_microjoules=source.energy_microjoules,
    )
    cursor = Cursor(
        host=made.meter.host,
        epoch=epoch,
        committed_sequence=1,
        created_utc_nanoseconds=source.imported_at_seconds * NANOSECONDS_PER_SECOND,
        recorded=True,
        collector=COLLECTOR,
        points={CHANNEL: point},
    )
    return Booking(
        host_before=None,
        host_after=_host_after(made.meter.host, None, epoch, ()),
        cursor_before=None,
        cursor_after=cursor,
        channels=(_channel(made),),
        energy=interval_rows(series, source.form, interval_seconds) if is_booked else (),
        gaps=gaps,
        imported=made,
    )


def on_host(booking: Booking, host: Host | None, imported: tuple[ImportedSpan, ...]) -> Booking:
    """The booking on the host's row as stored, None if it has none yet.

    imported: all that imports have booked of the host, this one's part with it.
    """
    after = _host_after(booking.cursor_after.host, host, booking.cursor_after.epoch, imported)
    return replace(booking, host_before=host, host_after=after)


def _host_after(name: str, host: Host | None, epoch: bytes, imported: tuple[ImportedSpan, ...]) -> Host:
    if host is not None:
        # The epochs stay as they are: the newest is the one whose Hello came last, and an import says no Hello.
        return msgspec.structs.replace(host, version=host.version + 1, imported=imported)
    return Host(
        host=name,
        version=1,
        machine_id="",
        state=HostState.ACTIVE,
        labels={},
        boots=(),
        spans=(),
        epochs=(epoch,),
        withheld=False,
        withheld_until={},
        conflict="",
        imported=imported,
    )


def _channel(made: EnergyImport) -> ChannelInfo:
    meter, source = made.meter, made.provenance
    role = Role.LEAF
    if made.place is Place.BESIDE:
        role = Role.SHOWN if meter.point is Point.COMPONENT else Role.METER
    ratio = float(meter.uncertainty_ratio or 0)
    return ChannelInfo(
        channel=CHANNEL,
        device=f"meter/{meter.meter}" if meter.meter else "meter",
        component=meter.component,
        domain=meter.point,
        source=SOURCE,
        method=Method.INTEGRAL if source.form is Form.AVERAGE_WATTS else Method.COUNTER,
        role=role,
        parent_channel=0,
        opening_boot_id=bytes(16),
        opening_boottime_nanoseconds=source.from_seconds * NANOSECONDS_PER_SECOND,
        opening_realtime_nanoseconds=source.from_seconds * NANOSECONDS_PER_SECOND,
        opening_synchronised=True,
        closed=True,
        power_bound_milliwatts=meter.power_bound_milliwatts,
        uncertainty_lower_ratio=ratio,
        uncertainty_upper_ratio=ratio,
        model=f"{source.file} sha256 {source.sha256[:16]}",
    )


def _gaps(series: Series, power_bound_milliwatts: int) -> Iterable[GapRow]:
    """Rows that are missing: nobody knows what they would have said, but for what the meter can measure at most."""
    for start, end in series.holes:
        times = (start * NANOSECONDS_PER_SECOND, end * NANOSECONDS_PER_SECOND)
        upper = power_bound_milliwatts * (end - start) * 1000 if power_bound_milliwatts else None
        yield GapRow(CHANNEL, *times, GapReason.MISSING_IN_RECORDING, 0, upper)


def series_spans(series: Series) -> list[tuple[int, int]]:
    """The time that a series covers; seconds."""
    return without_holes(series.from_seconds, series.to_seconds, series.holes)


def overlap_with_import(
    meter: Meter, spans: Sequence[tuple[int, int]], others: Iterable[tuple[str, int, Iterable[tuple[int, int]]]]
) -> tuple[int, str] | None:
    """The first instant that another import of the host has booked already, and which.

    spans: in order. others: each one's file, component and spans; meters of two components may be read at one time.
    """
    own = meter.kept_component
    ends = [end for _, end in spans]
    found: list[tuple[int, str]] = []
    for name, component, times in others:
        if own != component and IMPORTED_COMPONENT_ALL not in (own, component):
            continue
        for start, end in times:
            place = bisect_right(ends, start)
            if place < len(spans) and spans[place][0] < end:
                found.append((max(start, spans[place][0]), name))
    return min(found, default=None)


def overlap_with_agent(meter: Meter, rows: Iterable[EnergyRow], booked: Iterable[HostEnergyRow]) -> int | None:
    """The first interval that a series has and an epoch of the host has booked already for what the meter measures.

    booked: in order of time, those of imports left out. Rows tell no seconds: an interval that was booked in part counts as
    whole. That a component had no row in an interval means that a residual holds it, whatever the catalog says by now.
    """
    starts = {row.interval_start_seconds for row in rows}
    return next(
        (
            row.interval_start_seconds
            for row in booked
            if row.interval_start_seconds in starts and is_kept_out(meter.kept_component, row.channel, frozenset())
        ),
        None,
    )
