"""Keeps one unbroken account of a host: takes rows of readings, and cuts them into records for the spool.

Reads no sensor, clock or file; what is possible on a channel is in counters, what is summed in topology, which channels
there are in roster, which rows wait in rows, how a residual is reckoned in joining. Source of truth for the records:
protos/wattledger_protos/v1/telemetry.proto.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
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
    earlier,
    is_believable,
    skip_to,
    span_start,
)
from wattledger_agent.cross_checks import WINDOW_SECONDS_MIN, CrossChecks
from wattledger_agent.gauges import Gauges
from wattledger_agent.joining import join
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
from wattledger_agent.roster import Roster
from wattledger_agent.rows import Rows
from wattledger_agent.shares import Shares
from wattledger_agent.silence import LAPSE_NANOSECONDS, has_lapsed, lapse
from wattledger_agent.workload_accounts import SavedAccounts
from wattledger_agent.workload_meter import WorkloadSettings, workload_meter
from wattledger_protos.v1 import telemetry_pb2 as pb


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

# How often in the time of a lapse it is looked for silent meters, so that most rows cost one comparison.
LAPSE_LOOKS = 5


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
        self._gap_nanoseconds = round(integral_gap_seconds_max * NANOSECONDS_PER_SECOND)
        boot_id, boottime = b"", -1
        channels: list[Channel] = []
        self._saved_workloads: SavedAccounts | None = None
        if state is not None:
            boot_id, boottime, channels = unpack(state, integral_gap_seconds_max)
            self._saved_workloads = unpack_workloads(state)
        try:
            self.workloads = None if workloads is None else workload_meter(workloads, self._saved_workloads)
        except ValueError as error:
            raise MeterStateError(str(error)) from error
        self._rows = Rows(boot_id, boottime)
        self._roster = Roster(channels, integral_gap_seconds_max)
        self._shares = Shares(self._gap_nanoseconds)
        self._gauges = Gauges(self._gap_nanoseconds)
        self._checks = CrossChecks()
        self._expected: Container[str] = ()
        self._next_lapse_nanoseconds = 0

    @property
    def refused(self) -> dict[ChannelKey, str]:
        """Why a spec is not metered, by key; one sentence each."""
        return self._roster.refused

    def offer(self, specs: Sequence[ChannelSpec], now: Instant, returned: Iterable[ChannelKey] = ()) -> None:
        """Register channels, or go on with those that the state knows. Several calls add up; a key's last spec counts.

        returned: parts that were gone and are back; see Offer.
        """
        self._roster.offer(specs, now, returned)

    def withdraw(self, keys: Iterable[ChannelKey], now: Instant) -> None:
        """Note that a source is away: its channels stay, and go on when they are offered again; the others go on without."""
        self._roster.withdraw(keys, now)

    def expect(self, sources: Container[str]) -> None:
        """Note which sources are to tell, present or not: the silence of their meters is a gap. Before, nobody's is."""
        self._expected = sources

    @property
    def thinned_rows(self) -> int:
        """Rows whose times were lost since the start."""
        return self._rows.thinned

    @property
    def open_channels(self) -> Iterable[Channel]:
        """The channels that are not closed, for what looks at their sums and changes nothing."""
        return self._roster.open.values()

    def is_past(self, now: Instant) -> bool:
        """Say whether a row at this time is not after the last one of its boot, so that `observe` would ignore it."""
        return self._rows.is_past(now)

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
                self._roster.offer(reading.specs, now, reading.returned)
        self._roster.arrange()
        if self.is_past(now):
            self.ignored_rows += 1
            return
        self._mark_holes(readings, now)
        bit = self._begin_row(now)
        serial = self._rows.serial
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
                self._roster.start(channel, now, serial)
        if now.boottime_nanoseconds >= self._next_lapse_nanoseconds:
            taken += self._note_silence(now, bit)
        for joint in self._roster.joints:
            joined = join(joint, self._roster, now, serial)
            if joined is not None:
                self._keep(joint.residual, *joined, bit)
        self._checks.observe(self._roster.pairs, serial)
        if self.workloads is not None:
            self.workloads.end_row()
        if not taken:
            self._rows.drop_last()

    def cut(self, now: Instant, *, is_last: bool = False) -> Cut | None:
        """Return all that was observed since the last cut; None if nothing was. is_last: before the agent stops."""
        self._roster.arrange()
        waiting = self._rows
        if not waiting.times or waiting.last is None:
            return None
        self._roster.reopen_large()
        catalog, catalog_bytes = self._roster.catalog()
        for channel in self._roster.open.values():
            # What the catalog of a record says of an opening is never changed.
            channel.is_fresh = False
        boot_id, boottime = waiting.boot_id, waiting.boottime_nanoseconds
        rows, workloads = len(waiting.times), self.workloads
        payload = pb.Payload(
            boot_id=boot_id,
            catalog_hash=catalog.catalog_hash,
            clock=wire.clock_pair(now if now.boot_id == boot_id else waiting.last),
            first_boottime_nanoseconds=waiting.times[0],
            boottime_delta_nanoseconds=[after - before for before, after in pairwise(waiting.times)],
            columns=[
                wire.column(channel.number, channel.state, channel.values, channel.mask, rows)
                for channel in self._roster.channels
                if channel.values or channel.reported != channel.gap_sums()
            ],
            utilizations=self._shares.cut(),
            gap_details=[wire.gap_detail(number, detail, boot_id) for number, detail in waiting.details],
            workload_accounts=None if workloads is None else workloads.messages(boottime, is_last=is_last),
        )
        waiting.forget(self._roster.channels)
        for channel in self._roster.channels:
            channel.reported = channel.gap_sums()
        saved = self._saved_workloads if workloads is None else workloads.accounts.save()
        state = pack(boot_id, boottime, self._roster.channels, saved)
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
            power, age = channel.power_milliwatts(), self._rows.boottime_nanoseconds - state.boottime_nanoseconds
            if power is None or age > channel.rule.integral_gap_nanoseconds:
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
        return self._shares.live(self._rows.boottime_nanoseconds)

    def live_gauges(self) -> list[pb.LiveGauge]:
        """Return the last shown value of each device that was read lately."""
        return self._gauges.live(self._rows.boottime_nanoseconds)

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
        return self._checks.live(self._roster.pairs, self._rows.boottime_nanoseconds, least_seconds)

    def busy_nanoseconds(self, device: str) -> int:
        """Return the busy time of a device, summed over its units, since the start."""
        return self._shares.busy_nanoseconds(device)

    def _take(self, reading: CounterReading | PowerReading | SpanReading, now: Instant, bit: int, late: int = 0) -> bool:
        """Take one reading into the row; say whether the row has a value of its channel now."""
        channel = self._roster.open.get(reading.key)
        if channel is None or not channel.is_offered or channel.serial == self._rows.serial:
            self.ignored_readings += 1
            return False
        if not is_believable(channel.rule, reading, now) or (late and not self._is_of_now(channel, reading, now, late)):
            self.unbelieved_readings += 1
            return False
        # A power is of the moment for which it was asked; what came after it comes with the next one.
        taken = earlier(now, late) if isinstance(reading, PowerReading) else now
        if channel.is_fresh:
            at = span_start(reading, now) if isinstance(reading, SpanReading) else taken
            self._roster.start(channel, at, self._rows.serial)
        state, gap = advance(channel.rule, channel.state, reading, taken)
        if late and taken is now:
            state = structs.replace(state, late_nanoseconds=late)
        self._keep(channel, state, [] if gap is None else [gap], bit)
        return True

    def _is_of_now(self, channel: Channel, reading: Reading, now: Instant, late: int) -> bool:
        """Say whether a late value may stand for this row: a counter's may, but for one from before a suspend or a boot.

        It tells what was used up to some moment since the read was asked for, and the next one tells the rest. A power that
        is older than what is integrated over is none of the present, and one from before the channel's last is no news.
        """
        if now.boottime_nanoseconds - late < self._rows.settled_nanoseconds:
            return False
        if isinstance(reading, CounterReading):
            return True
        since_last = now.boottime_nanoseconds - late - channel.state.boottime_nanoseconds
        is_first = channel.state.value is None and since_last == 0
        return (channel.is_fresh or is_first or since_last > 0) and late <= channel.rule.integral_gap_nanoseconds

    def _note_silence(self, now: Instant, bit: int) -> int:
        """Tell the gaps of meters that are silent for long; return how many there were."""
        self._next_lapse_nanoseconds = now.boottime_nanoseconds + LAPSE_NANOSECONDS // LAPSE_LOOKS
        silent = [each for each in self._roster.open.values() if has_lapsed(each, self._expected, now)]
        for channel in silent:
            state, gap = lapse(channel.rule, channel.state, now)
            self._keep(channel, state, [] if gap is None else [gap], bit)
        return len(silent)

    def _keep(self, channel: Channel, state: ChannelState, gaps: list[GapDetail], bit: int) -> None:
        if self.workloads is not None and channel.spec.role is Role.LEAF:
            step = state.energy_microjoules - channel.state.energy_microjoules
            self.workloads.step(channel.number, channel.spec, step, has_gap=bool(gaps))
        channel.take(state, self._rows.serial, bit, has_gap=bool(gaps))
        self._rows.note(channel.number, gaps)

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
            is_new = now.boot_id != self._rows.boot_id or start > self._rows.boottime_nanoseconds
            if is_new and (channel.state.boot_id != now.boot_id or start > channel.state.boottime_nanoseconds):
                holes.setdefault(start, []).append((channel, span_start(reading, now)))
        for start in sorted(holes):
            bit = self._begin_row(holes[start][0][1])
            for channel, at in holes[start]:
                if channel.serial != self._rows.serial:
                    state, gap = skip_to(channel.rule, channel.state, at)
                    self._keep(channel, state, [] if gap is None else [gap], bit)

    def _begin_row(self, now: Instant) -> int:
        """Add a row, and return its bit in masks."""
        return self._rows.begin(now, self._roster.channels, len(self._roster.open))
