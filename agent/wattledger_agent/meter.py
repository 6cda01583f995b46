"""Keeps one unbroken account of a host: takes rows of readings, and cuts them into records for the spool.

Reads no sensor, clock or file; what is possible on a channel is in counters, what is summed in topology, and which channels
there are in roster. Source of truth for the records: protos/wattledger_protos/v1/telemetry.proto.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec import structs

from wattledger_agent import wire
from wattledger_agent.channels import Channel, MeterStateError, pack, unpack, unpack_workloads
from wattledger_agent.counters import (
    ChannelState,
    GapDetail,
    Instant,
    advance,
    is_believable,
    is_suspended,
    skip_to,
    span_start,
)
from wattledger_agent.cross_checks import WINDOW_SECONDS_MIN, CrossChecks
from wattledger_agent.gauges import Gauges
from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    CounterReading,
    GaugeReading,
    Gone,
    Offer,
    PowerReading,
    ProcessShares,
    Reading,
    Role,
    SpanReading,
    TryAgain,
    UtilizationReading,
    WorkloadsReading,
)
from wattledger_agent.roster import Joint, Roster
from wattledger_agent.shares import Shares
from wattledger_agent.topology import ZERO, advance_residual, base_of, start_residual
from wattledger_agent.workload_accounts import SavedAccounts
from wattledger_agent.workload_meter import WorkloadMeter, WorkloadSettings
from wattledger_protos.v1 import telemetry_pb2 as pb

# Values that wait for a cut. At 10 bytes at most each, with columns and details they stay below a payload's mebibyte.
PENDING_VALUES_MAX = 65_536

# Details of gaps in one payload, at 64 bytes at most; the sums in the columns hold the gaps of all the others.
GAP_DETAILS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Cut:
    """One spool record's content.

    payload: a serialised Payload. state: what a new Meter goes on from. catalog: the serialised Catalog that the payload's
    catalog_hash names. samples: rows in the payload.
    """

    payload: bytes
    state: bytes
    catalog: bytes
    catalog_hash: int
    samples: int


_IN_TIME: Mapping[ChannelKey, int] = {}


class Meter:
    """The account of one epoch.

    state: that of the spool's last record; None in a new epoch. integral_gap_seconds_max: powers further apart than this are
    not joined, and values older than this are no longer live. workloads: how the energy of workloads is accounted; None: it
    is not, and accounts of the state wait until it is. Raises MeterStateError for a state that can't be read.

    failed_reads, unbelieved_readings, ignored_readings (no such channel, or twice in a row), ignored_rows (not after the
    last), thinned_rows: counts since the start.
    """

    def __init__(
        self, *, state: bytes | None, integral_gap_seconds_max: float, workloads: WorkloadSettings | None = None
    ) -> None:
        self.failed_reads = 0
        self.unbelieved_readings = 0
        self.ignored_readings = 0
        self.ignored_rows = 0
        self.thinned_rows = 0
        self._gap_nanoseconds = round(integral_gap_seconds_max * NANOSECONDS_PER_SECOND)
        self._boot_id, self._boottime = b"", -1
        channels: list[Channel] = []
        self._saved_workloads: SavedAccounts | None = None
        if state is not None:
            self._boot_id, self._boottime, channels = unpack(state, integral_gap_seconds_max)
            self._saved_workloads = unpack_workloads(state)
        self.workloads = _workload_meter(workloads, self._saved_workloads)
        self._roster = Roster(channels, integral_gap_seconds_max)
        self._shares = Shares(self._gap_nanoseconds)
        self._gauges = Gauges(self._gap_nanoseconds)
        self._checks = CrossChecks()
        self._last_row: Instant | None = None
        # Since when the host has run without an interruption.
        self._settled_nanoseconds = 0
        self._serial = 0
        self._times: list[int] = []
        self._details: list[tuple[int, GapDetail]] = []

    @property
    def refused(self) -> dict[ChannelKey, str]:
        """Why a spec is not metered, by key; one sentence each."""
        return self._roster.refused

    def offer(self, specs: Sequence[ChannelSpec], now: Instant) -> None:
        """Register channels, or go on with those that the state knows. Several calls add up; a key's last spec counts."""
        self._roster.offer(specs, now)

    def withdraw(self, keys: Iterable[ChannelKey], now: Instant) -> None:
        """Note that a source is away: its channels stay, and go on when they are offered again; the others go on without."""
        self._roster.withdraw(keys, now)

    @property
    def open_channels(self) -> Iterable[Channel]:
        """The channels that are not closed, for what looks at their sums and changes nothing."""
        return self._roster.open.values()

    def is_past(self, now: Instant) -> bool:
        """Say whether a row at this time is not after the last one of its boot, so that `observe` would ignore it."""
        return now.boot_id == self._boot_id and now.boottime_nanoseconds <= self._boottime

    def observe(
        self, readings: Sequence[Reading], now: Instant, late_nanoseconds: Mapping[ChannelKey, int] = _IN_TIME
    ) -> None:
        """Take one row of readings at this time. A row that is not after the last one of its boot is ignored.

        late_nanoseconds: how long before the row the reads were asked for that returned too late for the row of that moment.
        """
        for reading in readings:
            if type(reading) is Gone and not self._roster.remove(reading.key, now):
                self.ignored_readings += 1
            elif type(reading) is Offer:
                self._roster.offer(reading.specs, now)
        self._roster.arrange()
        if self.is_past(now):
            self.ignored_rows += 1
            return
        self._mark_holes(readings, now)
        bit = self._begin_row(now)
        taken = 0
        for reading in readings:
            if isinstance(reading, UtilizationReading):
                believed = self._shares.observe(reading, now.boottime_nanoseconds)
                taken += believed
                self.unbelieved_readings += not believed
            elif isinstance(reading, GaugeReading):
                self.unbelieved_readings += not self._gauges.observe(reading, now.boottime_nanoseconds)
            elif isinstance(reading, TryAgain):
                self.failed_reads += 1
            elif isinstance(reading, ProcessShares | WorkloadsReading):
                if self.workloads is not None:
                    self.workloads.take(reading)
            elif not isinstance(reading, Gone | Offer):
                taken += self._take(reading, now, bit, late_nanoseconds.get(reading.key, 0))
        for channel in self._roster.open.values():
            if channel.is_fresh and channel.is_offered and channel.spec.role is not Role.RESIDUAL:
                self._roster.start(channel, now, self._serial)
        for joint in self._roster.joints:
            self._join(joint, now, bit)
        self._checks.observe(self._roster.pairs, self._serial)
        if self.workloads is not None:
            self.workloads.end_row()
        if not taken:
            self._times.pop()

    def cut(self, now: Instant, *, is_last: bool = False) -> Cut | None:
        """Return all that was observed since the last cut; None if nothing was. is_last: before the agent stops."""
        self._roster.arrange()
        if not self._times or self._last_row is None:
            return None
        self._roster.reopen_large()
        catalog, catalog_bytes = self._roster.catalog()
        for channel in self._roster.open.values():
            # What the catalog of a record says of an opening is never changed.
            channel.is_fresh = False
        rows, workloads = len(self._times), self.workloads
        payload = pb.Payload(
            boot_id=self._boot_id,
            catalog_hash=catalog.catalog_hash,
            clock=wire.clock_pair(now if now.boot_id == self._boot_id else self._last_row),
            first_boottime_nanoseconds=self._times[0],
            boottime_delta_nanoseconds=[after - before for before, after in pairwise(self._times)],
            columns=[
                wire.column(channel.number, channel.state, channel.values, channel.mask, rows)
                for channel in self._roster.channels
                if channel.values or channel.reported != channel.gap_sums()
            ],
            utilizations=self._shares.cut(),
            gap_details=[wire.gap_detail(number, detail, self._boot_id) for number, detail in self._details],
            workload_accounts=None if workloads is None else workloads.messages(self._boottime, is_last=is_last),
        )
        self._forget_rows()
        for channel in self._roster.channels:
            channel.reported = channel.gap_sums()
        saved = self._saved_workloads if workloads is None else workloads.accounts.save()
        state = pack(self._boot_id, self._boottime, self._roster.channels, saved)
        return Cut(payload.SerializeToString(), state, catalog_bytes, catalog.catalog_hash, rows)

    def catalog(self) -> pb.Catalog:
        """Return all channels of the epoch so far."""
        self._roster.arrange()
        return self._roster.catalog()[0]

    def live(self) -> list[pb.LivePower]:
        """Return the power of each open channel that was read lately and without a gap."""
        powers = []
        for channel in self._roster.open.values():
            state, spec = channel.state, channel.spec
            power = channel.power_milliwatts()
            if power is None or self._boottime - state.boottime_nanoseconds > channel.rule.integral_gap_nanoseconds:
                continue
            powers.append(
                pb.LivePower(
                    device=spec.key.device,
                    domain=spec.key.domain,
                    component=pb.Component.ValueType(int(spec.component)),
                    method=pb.Method.ValueType(int(spec.method)),
                    role=pb.Role.ValueType(int(spec.role)),
                    power_milliwatts=power,
                    uncertainty_lower_ratio=spec.uncertainty_lower_ratio,
                    uncertainty_upper_ratio=spec.uncertainty_upper_ratio,
                )
            )
        return powers

    def live_utilizations(self) -> list[pb.LiveUtilization]:
        """Return the last utilization of each device that was read lately."""
        return self._shares.live(self._boottime)

    def live_gauges(self) -> list[pb.LiveGauge]:
        """Return the last shown value of each device that was read lately."""
        return self._gauges.live(self._boottime)

    def counts(self) -> pb.LiveMeter:
        """Return what could not be used since the start."""
        return pb.LiveMeter(
            failed_reads=self.failed_reads,
            unbelieved_readings=self.unbelieved_readings,
            ignored_readings=self.ignored_readings,
            ignored_rows=self.ignored_rows,
            thinned_rows=self.thinned_rows,
        )

    def compared(self) -> list[tuple[ChannelKey, ChannelKey]]:
        """Return what is compared, whether it was read or not: the shown channel and the booked one."""
        self._roster.arrange()
        return [pair.keys for pair in self._roster.pairs]

    def live_cross_checks(self, least_seconds: float = WINDOW_SECONDS_MIN) -> list[pb.LiveCrossCheck]:
        """Return how far sources of one quantity are apart, where two were read without a gap for so long."""
        return self._checks.live(self._roster.pairs, self._boottime, least_seconds)

    def busy_nanoseconds(self, device: str) -> int:
        """Return the busy time of a device, summed over its units, since the start."""
        return self._shares.busy_nanoseconds(device)

    def _take(self, reading: CounterReading | PowerReading | SpanReading, now: Instant, bit: int, late: int = 0) -> bool:
        """Take one reading into the row; say whether the row has a value of its channel now."""
        channel = self._roster.open.get(reading.key)
        if channel is None or not channel.is_offered or channel.serial == self._serial:
            self.ignored_readings += 1
            return False
        if not is_believable(channel.rule, reading, now) or (late and not self._is_of_now(channel, reading, now, late)):
            self.unbelieved_readings += 1
            return False
        if channel.is_fresh:
            at = span_start(reading, now) if isinstance(reading, SpanReading) else now
            self._roster.start(channel, at, self._serial)
        state, gap = advance(channel.rule, channel.state, reading, now)
        if late:
            state = structs.replace(state, late_nanoseconds=late)
        self._keep(channel, state, [] if gap is None else [gap], bit)
        return True

    def _is_of_now(self, channel: Channel, reading: Reading, now: Instant, late: int) -> bool:
        """Say whether a late value may stand for this row: a counter's may, but for one from before a suspend or a boot.

        It tells what was used up to some moment since the read was asked for, and the next one tells the rest. A power that
        is older than what is integrated over is none of the present.
        """
        if now.boottime_nanoseconds - late < self._settled_nanoseconds:
            return False
        return isinstance(reading, CounterReading) or late <= channel.rule.integral_gap_nanoseconds

    def _keep(self, channel: Channel, state: ChannelState, gaps: list[GapDetail], bit: int) -> None:
        if self.workloads is not None and channel.spec.role is Role.LEAF:
            step = state.energy_microjoules - channel.state.energy_microjoules
            self.workloads.step(channel.number, channel.spec, step, has_gap=bool(gaps))
        channel.take(state, self._serial, bit, has_gap=bool(gaps))
        for gap in gaps:
            if len(self._details) < GAP_DETAILS_MAX:
                self._details.append((channel.number, gap))

    def _join(self, joint: Joint, now: Instant, bit: int) -> None:
        """Reckon a residual, if its meter and all its present parts were read in this row.

        A slow part need only have been read since the joint reading before: it may never come in a row of the meter's. What
        it used since then stands in the residual until the next joint reading, and in no sum twice.
        """
        serial, residual, meter, roster = self._serial, joint.residual, joint.meter, self._roster
        since = residual.serial
        if meter.serial != serial or any(
            part.serial <= since if part.spec.cadence_seconds else part.serial != serial for part in joint.present
        ):
            if residual.is_fresh:
                roster.start(residual, now, serial)
            return
        gaps: list[GapDetail] = []
        state = residual.state
        if not residual.bases:
            members = (meter, *joint.parts)
            # Where all begin in this row, what recorded spans already hold of it counts.
            together = residual.is_fresh and all(member.opened_serial == serial for member in members)
            if residual.is_fresh:
                roster.start(residual, meter.opening if together else now, serial)
                state = residual.state
            if not together:
                rules = [part.rule for part in joint.parts]
                ahead = sum(_ahead_microjoules(part, now) for part in joint.parts)
                state, gaps = start_residual(state, meter.rule, rules, now, ahead_microjoules=ahead)
            residual.bases = {member.number: ZERO if together else base_of(member.state) for member in members}
        meters = {meter.number: meter.state}
        parts = {part.number: part.state for part in joint.parts}
        for number in residual.bases:
            if number != meter.number and number not in parts:
                closed = roster.channels[number - 1]
                (meters if closed.spec.key == meter.spec.key else parts)[number] = closed.state
        state, more = advance_residual(state, meters, parts, residual.bases, now)
        residual.bases = {member.number: base_of(member.state) for member in (meter, *joint.parts)}
        self._keep(residual, state, gaps + more, bit)

    def _mark_holes(self, readings: Sequence[Reading], now: Instant) -> None:
        """Add a row where a recording goes on after a hole, so that what comes then is not spread over the hole."""
        holes: dict[int, list[tuple[Channel, Instant]]] = {}
        for reading in readings:
            if type(reading) is not SpanReading:
                continue
            channel = self._roster.open.get(reading.key)
            if (
                channel is None
                or not channel.is_offered
                or channel.is_fresh
                or not is_believable(channel.rule, reading, now)
            ):
                continue
            start = reading.from_nanoseconds
            is_new = now.boot_id != self._boot_id or start > self._boottime
            if is_new and (channel.state.boot_id != now.boot_id or start > channel.state.boottime_nanoseconds):
                holes.setdefault(start, []).append((channel, span_start(reading, now)))
        for start in sorted(holes):
            bit = self._begin_row(holes[start][0][1])
            for channel, at in holes[start]:
                if channel.serial != self._serial:
                    state, gap = skip_to(channel.rule, channel.state, at)
                    self._keep(channel, state, [] if gap is None else [gap], bit)

    def _begin_row(self, now: Instant) -> int:
        """Add a row, and return its bit in masks."""
        if self._times and now.boot_id != self._boot_id:
            # A payload is of one boot. The sums go on; only the times of these rows are lost.
            self.thinned_rows += len(self._times)
            self._forget_rows()
        elif len(self._times) * len(self._roster.open) >= PENDING_VALUES_MAX:
            self._thin_rows()
        self._serial += 1
        last = self._last_row
        if last is None or last.boot_id != now.boot_id or is_suspended(last, now):
            self._settled_nanoseconds = now.boottime_nanoseconds
        self._last_row = now
        self._boot_id, self._boottime = now.boot_id, now.boottime_nanoseconds
        self._times.append(now.boottime_nanoseconds)
        return 1 << (len(self._times) - 1)

    def _thin_rows(self) -> None:
        """Keep only each channel's last value: energy is cumulative, so that nothing but times is lost."""
        valued = [channel for channel in self._roster.channels if channel.values]
        kept = sorted({channel.mask.bit_length() - 1 for channel in valued})
        place = {row: index for index, row in enumerate(kept)}
        for channel in valued:
            channel.mask = 1 << place[channel.mask.bit_length() - 1]
            channel.values = channel.values[-1:]
        self.thinned_rows += len(self._times) - len(kept)
        self._times = [self._times[row] for row in kept]

    def _forget_rows(self) -> None:
        self._times = []
        self._details = []
        for channel in self._roster.channels:
            if channel.values:
                channel.values = []
                channel.mask = 0


def _workload_meter(settings: WorkloadSettings | None, saved: SavedAccounts | None) -> WorkloadMeter | None:
    if settings is None:
        return None
    try:
        return WorkloadMeter(settings, saved)
    except ValueError as error:
        raise MeterStateError(
            f"the accounts of workloads can't go on from the spool's last record ({error}): "
            "move the spool folder aside, then a new account begins"
        ) from error


def _ahead_microjoules(part: Channel, now: Instant) -> int:
    """Return the most that a part has used since its last reading, where its next one will still tell."""
    state = part.state
    if state.value is None or state.boot_id != now.boot_id:
        return 0
    return part.rule.bound_microjoules(max(0, now.boottime_nanoseconds - state.boottime_nanoseconds))
