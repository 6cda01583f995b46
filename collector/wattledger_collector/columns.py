"""One channel's column of a batch becomes rows: energy, gaps, evidence, and the cursor's new point.

No clock, no store. Each increment from the cursor's own point ends in exactly one place: booked over intervals, refused as
implausible, or left to what has booked the same time: another epoch, or an import.
"""

from dataclasses import dataclass
from itertools import accumulate

from wattledger_collector.clocks import boot_index
from wattledger_collector.gaps import GapSums, booked_gaps, clamped, detail_row, details_by_channel
from wattledger_collector.hello import MILLIWATT_NANOSECONDS_PER_MICROJOULE, energy_bound_microjoules
from wattledger_collector.imported_time import ImportedTime
from wattledger_collector.plausible import doubt, overflow
from wattledger_collector.records import (
    ENERGY_MICROJOULES_LIMIT,
    NANOSECONDS_PER_SECOND,
    Boot,
    BootedSpan,
    ChannelInfo,
    ChannelPoint,
    EnergyRow,
    EvidenceRow,
    GapReason,
    GapRow,
    Method,
    Role,
)
from wattledger_collector.tally import BRIDGED_SPAN_NANOSECONDS, QUALITY, Tally, without
from wattledger_collector.wire import NANOSECONDS_LIMIT, CheckedBatch
from wattledger_protos.v1 import telemetry_pb2 as pb

# An enumeration's members are looked up for every column; names of the module are found faster.
_LEAF, _RESIDUAL, _COUNTER = Role.LEAF, Role.RESIDUAL, Method.COUNTER


@dataclass(frozen=True, slots=True)
class Sample:
    """A present value of one channel, with its place in time."""

    boottime_nanoseconds: int
    utc_nanoseconds: int
    energy_microjoules: int


@dataclass(slots=True)
class _Run:
    """The way from one instant, a cursor's point, to the batch's last sample. Nanoseconds."""

    boottime: int
    utc: int
    elapsed: int
    covered: int
    end_utc: int
    interval_start_seconds: int
    # All samples come after the point, and lie with it in one interval.
    is_within_interval: bool
    is_bridged: bool
    is_overlapped: bool
    # Whether the boottime is kept for the host's other epochs.
    is_claimed: bool = False


class Page:
    """The rows of one batch while they are written. Filled by `add`, then read.

    boot: that of the payload, with the offset that holds for it. others: spans of the host's other epochs. imported: what
    imports have booked of the host, None if there is none.
    booked_spans: boottime booked by this batch, (from, to] by boot. latest_boottime_nanoseconds: the last point that any of
    the columns had in this boot before, None if none had.
    """

    def __init__(
        self,
        batch: CheckedBatch,
        payload: pb.Payload,
        boot: Boot,
        boots: tuple[Boot, ...],
        others: tuple[BootedSpan, ...],
        interval_seconds: int,
        imported: ImportedTime | None = None,
    ) -> None:
        self.energy: list[EnergyRow] = []
        self.gaps: list[GapRow] = []
        self.evidence: list[EvidenceRow] = []
        self.booked_spans: dict[bytes, tuple[int, int]] = {}
        self.latest_boottime_nanoseconds: int | None = None
        self.boot = boot
        self._batch = batch
        self._payload = payload
        self._boots = boots
        self._others = others
        self._imported = imported
        self._interval_seconds = interval_seconds
        self._width = interval_seconds * NANOSECONDS_PER_SECOND
        self._boot_id = boot.boot_id
        self._offset = boot.offset_nanoseconds
        self._first_boottime = payload.first_boottime_nanoseconds
        self._last_boottime = batch.last_boottime_nanoseconds
        self._longest_step = batch.longest_step_nanoseconds
        self._details = details_by_channel(payload)
        self._times: list[int] = []
        self._run: _Run | None = None

    def add(self, column: pb.Column, info: ChannelInfo, before: ChannelPoint | None) -> ChannelPoint:
        """Book one column from the cursor's point, or from the channel's opening, and return the new point."""
        point = before or self._opening_point(info)
        if point.boot_id == self._boot_id:
            run = self._run
            if run is None or run.boottime != point.boottime_nanoseconds or run.utc != point.utc_nanoseconds:
                run = self._run = self._run_from(point)
                latest = self.latest_boottime_nanoseconds
                if latest is None or point.boottime_nanoseconds > latest:
                    self.latest_boottime_nanoseconds = point.boottime_nanoseconds
            if run.is_within_interval and not column.present_mask and info.channel not in self._details:
                after = self._add_run(column, info, point, run)
                if after is not None:
                    return after
        return self._add_by_samples(column, info, point)

    def merge(self, other: "Page") -> None:
        """Take over the rows of another page of the same booking."""
        self.energy += other.energy
        self.gaps += other.gaps
        self.evidence += other.evidence
        for boot_id, (start, end) in other.booked_spans.items():
            self._extend_span(boot_id, start, end)

    def _opening_point(self, info: ChannelInfo) -> ChannelPoint:
        """The channel's opening at value 0, so that nothing is lost that came before the first batch to arrive."""
        boottime = info.opening_boottime_nanoseconds
        if info.opening_boot_id == self._boot_id:
            utc = boottime + self._offset
        else:
            index = boot_index(self._boots, info.opening_boot_id)
            known = index is not None and not info.opening_synchronised
            utc = boottime + self._boots[index or 0].offset_nanoseconds if known else info.opening_realtime_nanoseconds
        return ChannelPoint(info.opening_boot_id, boottime, utc, 0, 0, 0, 0, 0, 0)

    def _run_from(self, point: ChannelPoint) -> "_Run":
        """What all columns whose point lies at one instant have in common; usually that is all columns of a batch."""
        boottime = point.boottime_nanoseconds
        since = self._first_boottime - boottime
        first_utc = self._first_boottime + self._offset
        utc = self._last_boottime + self._offset
        start_utc = max(point.utc_nanoseconds, first_utc - since)
        is_within = since > 0 and start_utc <= first_utc and start_utc // self._width == (utc - 1) // self._width
        return _Run(
            boottime=boottime,
            utc=point.utc_nanoseconds,
            elapsed=self._last_boottime - boottime,
            covered=utc - start_utc,
            end_utc=utc,
            interval_start_seconds=start_utc // self._width * self._interval_seconds,
            is_within_interval=is_within,
            is_bridged=max(since, self._longest_step) > BRIDGED_SPAN_NANOSECONDS,
            is_overlapped=self.is_overlapped(self._boot_id, boottime, self._last_boottime),
        )

    def _add_run(self, column: pb.Column, info: ChannelInfo, point: ChannelPoint, run: "_Run") -> ChannelPoint | None:
        """The common case, without a look at single samples: all within one interval, nothing unusual. Else None."""
        if (
            point.gap_lower_microjoules != column.gap_lower_microjoules
            or point.gap_upper_microjoules != column.gap_upper_microjoules
            or point.gap_unbounded_count != column.gap_unbounded_count
        ):
            return None
        method, role = info.method, info.role
        is_booked = role is _LEAF or role is _RESIDUAL
        if (run.is_bridged and method is _COUNTER) or (run.is_overlapped and is_booked):
            return None
        if self._imported is not None and self._imported.holds(info, [(run.end_utc - run.covered, run.end_utc)]):
            return None
        deltas, first, before = column.energy_delta_microjoules[:], column.first_energy_microjoules, point.energy_microjoules
        energy = first + sum(deltas)
        falls = first < before or (len(deltas) > 0 and min(deltas) < 0)
        increase = energy - before
        booked = point.booked_microjoules + increase
        is_plain = (
            not falls
            and increase * MILLIWATT_NANOSECONDS_PER_MICROJOULE <= info.power_bound_milliwatts * run.elapsed
            and energy < ENERGY_MICROJOULES_LIMIT
            and -ENERGY_MICROJOULES_LIMIT < booked < ENERGY_MICROJOULES_LIMIT
        )
        if not is_plain and (doubt(info, before, energy, run.elapsed, falls) or overflow(info, point, energy)):
            return None
        if is_booked:
            row = EnergyRow(info.channel, run.interval_start_seconds, QUALITY[method], increase, run.covered)
            self.energy.append(row)
            if not run.is_claimed:
                run.is_claimed = True
                self._extend_span(self._boot_id, run.boottime, self._last_boottime)
        high = point.booked_high_microjoules
        return ChannelPoint(
            self._boot_id,
            self._last_boottime,
            run.end_utc,
            energy,
            point.gap_lower_microjoules,
            point.gap_upper_microjoules,
            point.gap_unbounded_count,
            booked,
            booked if booked > high else high,
        )

    def _add_by_samples(self, column: pb.Column, info: ChannelInfo, point: ChannelPoint) -> ChannelPoint:
        """Any case, sample by sample."""
        samples = self._samples_after(column, point)
        if not samples and self._is_passed(column, point):
            return point
        end_utc = samples[-1].utc_nanoseconds if samples else self._last_boottime + self._offset
        details = self._details_after(info.channel, point)
        sums = GapSums.of(column)
        gaps = booked_gaps(info.channel, point, sums, [self._row(detail, point) for detail in details], end_utc)
        if info.is_booked:
            self.gaps += gaps.rows
        booked = point.booked_microjoules
        boot_id, boottime, utc, energy = (
            point.boot_id,
            point.boottime_nanoseconds,
            point.utc_nanoseconds,
            point.energy_microjoules,
        )
        if samples:
            last = samples[-1]
            boot_id, boottime, utc = self._boot_id, last.boottime_nanoseconds, last.utc_nanoseconds
            energy = clamped(last.energy_microjoules)
            reason = self._doubt(info, point, samples)
            if reason:
                self._refuse(info, point, last, reason)
            elif info.is_booked:
                booked += self._book_samples(info, point, samples, details, gaps.is_complete)
            else:
                booked += energy - point.energy_microjoules
        return ChannelPoint(
            boot_id,
            boottime,
            utc,
            energy,
            sums.lower_microjoules,
            sums.upper_microjoules,
            sums.unbounded_count,
            booked,
            max(booked, point.booked_high_microjoules),
        )

    def _is_passed(self, column: pb.Column, point: ChannelPoint) -> bool:
        """Whether the cursor has passed all that the payload tells, as where a channel was settled to its end before.

        Gap sums alone may grow at an instant; ones that are less than the point's are older than it.
        """
        if point.boot_id != self._boot_id or self._last_boottime > point.boottime_nanoseconds:
            return False
        sums = GapSums.of(column)
        width = sums.upper_microjoules - sums.lower_microjoules
        width_at_point = point.gap_upper_microjoules - point.gap_lower_microjoules
        return (
            self._last_boottime < point.boottime_nanoseconds
            or width < width_at_point
            or sums.unbounded_count < point.gap_unbounded_count
        )

    def _samples_after(self, column: pb.Column, point: ChannelPoint) -> list[Sample]:
        """The column's present values that the cursor has not passed yet.

        In an epoch batches come in order, so that another boot than the point's is a later one. Were it not, booking from
        the point's own value would still double nothing.
        """
        after = point.boottime_nanoseconds if point.boot_id == self._boot_id else -1
        if not self._times:
            steps = self._payload.boottime_delta_nanoseconds
            self._times = list(accumulate(steps, initial=self._first_boottime))
        times = self._times
        if column.present_mask:
            bits = int.from_bytes(column.present_mask, "little")
            times = [time for index, time in enumerate(times) if bits >> index & 1]
        values = accumulate(column.energy_delta_microjoules, initial=column.first_energy_microjoules)
        # An empty mask leaves one value and no time.
        return [Sample(time, time + self._offset, value) for time, value in zip(times, values, strict=False) if time > after]

    def _details_after(self, channel: int, point: ChannelPoint) -> list[pb.GapDetail]:
        """The channel's gap details that the cursor has not passed yet."""
        details = self._details.get(channel, [])
        if point.boot_id != self._boot_id:
            return details
        return [detail for detail in details if detail.to_boottime_nanoseconds > point.boottime_nanoseconds]

    def _row(self, detail: pb.GapDetail, point: ChannelPoint) -> GapRow:
        to_utc = detail.to_boottime_nanoseconds + self._offset
        from_boot_id = detail.from_boot_id or self._boot_id
        if from_boot_id == point.boot_id:
            # As the cursor's point was booked, whatever its boot's offset has become since.
            since = detail.from_boottime_nanoseconds - point.boottime_nanoseconds
            return detail_row(detail, point.utc_nanoseconds + since, to_utc)
        index = boot_index(self._boots, from_boot_id)
        if index is None:
            return detail_row(detail, point.utc_nanoseconds, to_utc)
        return detail_row(detail, detail.from_boottime_nanoseconds + self._boots[index].offset_nanoseconds, to_utc)

    def _elapsed(self, point: ChannelPoint, sample: Sample) -> int | None:
        """Time from the cursor's point; over boots None unless both clocks were trusted, and agree that time went on."""
        if point.boot_id == self._boot_id:
            return sample.boottime_nanoseconds - point.boottime_nanoseconds
        index = boot_index(self._boots, point.boot_id)
        if index is None or not (self._boots[index].trusted and self.boot.trusted):
            return None
        elapsed = sample.utc_nanoseconds - point.utc_nanoseconds
        return elapsed if elapsed > 0 else None

    def _doubt(self, info: ChannelInfo, point: ChannelPoint, samples: list[Sample]) -> str:
        """Why these samples can't be believed; empty if they can."""
        before = point.energy_microjoules
        # Over boots only UTC tells the time, and a clock that calls itself synchronised may have been set by hours between.
        elapsed = self._elapsed(point, samples[0]) if point.boot_id == self._boot_id else None
        for index, sample in enumerate(samples):
            value = sample.energy_microjoules
            reason = doubt(info, before, value, elapsed, value < before)
            if reason:
                return reason
            before = value
            if index + 1 < len(samples):
                elapsed = samples[index + 1].boottime_nanoseconds - sample.boottime_nanoseconds
        return overflow(info, point, before)

    def _refuse(self, info: ChannelInfo, point: ChannelPoint, last: Sample, reason: str) -> None:
        """The cursor moves, the amount is evidence, and what it should have been is a gap."""
        amount = clamped(last.energy_microjoules) - point.energy_microjoules
        # The bytes are kept once for the batch.
        data = b"" if self.evidence else self._batch.payload_bytes
        self.evidence.append(
            EvidenceRow(self._batch.first_sequence, self._batch.last_sequence, info.channel, reason, amount, data)
        )
        if not info.is_booked:
            return
        elapsed = self._elapsed(point, last)
        upper = None
        if elapsed is not None and info.power_bound_milliwatts:
            upper = clamped(energy_bound_microjoules(info.power_bound_milliwatts, elapsed))
        lower = -(upper or 0) if info.role is Role.RESIDUAL else 0
        start = min(point.utc_nanoseconds, last.utc_nanoseconds)
        self.gaps.append(GapRow(info.channel, start, last.utc_nanoseconds, GapReason.IMPLAUSIBLE, lower, upper))

    def _book_samples(
        self,
        info: ChannelInfo,
        point: ChannelPoint,
        samples: list[Sample],
        details: list[pb.GapDetail],
        is_explained: bool,
    ) -> int:
        """Rows for each increment between two samples; returns what was booked."""
        tally = Tally(info, self._interval_seconds)
        holes = [(row.from_utc_nanoseconds, row.to_utc_nanoseconds) for row in (self._row(each, point) for each in details)]
        before_boot, before = (
            point.boot_id,
            Sample(point.boottime_nanoseconds, point.utc_nanoseconds, point.energy_microjoules),
        )
        for sample in samples:
            increase = sample.energy_microjoules - before.energy_microjoules
            start_utc = before.utc_nanoseconds
            if before_boot == self._boot_id:
                # Where the offset has grown meanwhile, the time that it skipped was not metered.
                start_utc = max(
                    start_utc, sample.utc_nanoseconds - (sample.boottime_nanoseconds - before.boottime_nanoseconds)
                )
            pieces = without(holes, start_utc, sample.utc_nanoseconds)
            metered = pieces or [(start_utc, sample.utc_nanoseconds)]
            if self.is_overlapped(before_boot, before.boottime_nanoseconds, sample.boottime_nanoseconds) or (
                self._imported is not None and self._imported.holds(info, metered)
            ):
                tally.leave(increase, start_utc, sample.utc_nanoseconds)
            else:
                # What a lost batch told of gaps was lost too: how much of the time was metered is not known then.
                is_covered = is_explained or sample is not samples[0]
                if increase and not pieces:
                    # A residual was read all the time that one of its parts has a gap.
                    pieces, is_covered = metered, False
                tally.book(increase, pieces, sample.utc_nanoseconds, is_covered=is_covered)
                self._claim(before_boot, before.boottime_nanoseconds, sample.boottime_nanoseconds, increase, details)
            before_boot, before = self._boot_id, sample
        self.energy += tally.rows()
        self.gaps += tally.left
        return tally.booked_microjoules

    def is_overlapped(self, from_boot_id: bytes, from_boottime: int, to_boottime: int) -> bool:
        """Whether another epoch has booked some of this span, which ends in the payload's boot."""
        for other in self._others:
            starts_before = other.from_boottime_nanoseconds < to_boottime
            ends_after = other.to_boottime_nanoseconds > from_boottime
            if from_boot_id == self._boot_id:
                if other.boot_id == self._boot_id and starts_before and ends_after:
                    return True
            elif (other.boot_id == self._boot_id and starts_before) or (other.boot_id == from_boot_id and ends_after):
                return True
        return False

    def _claim(self, from_boot_id: bytes, start: int, end: int, increase: int, details: list[pb.GapDetail]) -> None:
        """Keep the boottime that was booked, for the host's other epochs."""
        if from_boot_id == self._boot_id:
            self._extend_span(self._boot_id, start, end)
        elif increase:
            # The reading that ended the earlier boot, and the one that began this, stand in the gap between them.
            ends = [(each.from_boottime_nanoseconds, each.to_boottime_nanoseconds) for each in details if each.from_boot_id]
            left, entered = ends[0] if ends else (NANOSECONDS_LIMIT, 0)
            self._extend_span(from_boot_id, start, left)
            self._extend_span(self._boot_id, entered, end)

    def _extend_span(self, boot_id: bytes, start: int, end: int) -> None:
        if start < end:
            old_start, old_end = self.booked_spans.get(boot_id, (start, end))
            self.booked_spans[boot_id] = (min(start, old_start), max(end, old_end))
