"""Merges spooled payloads into one with fewer samples, for a disk that is full. Loses resolution in time, never energy.

Opens no file. Of each channel the last value stays, and the two on either side of each boundary of a ledger interval, so
that the ledger books every interval as it would have. Energy and gaps are cumulative in every payload (telemetry.proto,
Column), which is why nothing else is needed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from google.protobuf.message import DecodeError

from wattledger_agent.wire import PAYLOAD_BYTES_MAX
from wattledger_agent.workload_accounts import PAYLOAD_ACCOUNTS_MAX
from wattledger_protos.v1 import telemetry_pb2 as pb

# The ledger's intervals are 15 minutes, or a multiple or divisor that the day's grid shares; finer ones lose resolution.
INTERVAL_NANOSECONDS = 900_000_000_000

# A merge reads this many samples at most: 17 minutes at one a second, so that memory stays small and boundaries apart.
SAMPLES_PER_MERGE_MAX = 1024

# Payloads with clock pairs further apart are not merged: a merged payload has one pair, and its samples are dated by it.
OFFSET_NANOSECONDS_MAX = 1_000_000_000

# Details stand beside the sums that are booked; a host with a gap each minute has this many in four hours.
GAP_DETAILS_MAX = 256


@dataclass(frozen=True, slots=True)
class Piece:
    """One record's contents, under the sequences from first to last."""

    first: int
    last: int
    catalog_hash: int
    payload: bytes
    state: bytes


class Thinner:
    """Takes records in order and gives fewer. taken: samples that are in none of them any more."""

    def __init__(self) -> None:
        self.taken = 0
        self._done: list[Piece] = []
        self._run: list[tuple[Piece, pb.Payload]] = []
        self._samples = 0

    def add(self, piece: Piece, *, keep: bool = False) -> None:
        """Take the next record; `keep` leaves it as it is."""
        payload = None if keep else parse(piece.payload)
        if payload is None:
            self._end_run()
            self._done.append(piece)
            return
        samples = sample_count(payload)
        if self._run and (self._samples + samples > SAMPLES_PER_MERGE_MAX or not can_follow(self._run[-1][1], payload)):
            self._end_run()
        self._run.append((piece, payload))
        self._samples += samples

    def finish(self) -> list[Piece]:
        """All records, merged."""
        self._end_run()
        return self._done

    def _end_run(self) -> None:
        run, self._run = self._run, []
        samples, self._samples = self._samples, 0
        if not run:
            return
        merged = merge([payload for _, payload in run])
        payload = merged.SerializeToString()
        is_larger = len(payload) >= min(PAYLOAD_BYTES_MAX, sum(len(piece.payload) for piece, _ in run))
        if is_larger or len(merged.workload_accounts) > PAYLOAD_ACCOUNTS_MAX:
            self._done.extend(piece for piece, _ in run)
            return
        self.taken += samples - sample_count(merged)
        first, last = run[0][0], run[-1][0]
        # The state is the newest record's: with it the agent would go on, should all after it be damaged.
        self._done.append(Piece(first.first, last.last, last.catalog_hash, payload, last.state))


@dataclass(slots=True)
class _Channel:
    last: pb.Column
    values: dict[int, int] = field(default_factory=dict)  # By row; cumulative microjoules.


def parse(payload: bytes) -> pb.Payload | None:
    """The payload as a message; None if it can't be understood, and so must be left as it is."""
    try:
        message = pb.Payload.FromString(payload)
    except DecodeError:
        return None
    rows = len(message.boottime_delta_nanoseconds) + 1
    for column in message.columns:
        present = len(_present_rows(column, rows))
        # A column without any value has no delta either, and its first value means nothing.
        if len(column.energy_delta_microjoules) != max(0, present - 1):
            return None
    return message


def can_follow(before: pb.Payload, after: pb.Payload) -> bool:
    """Whether both can be one payload: same boot, channels and clock, in order of time."""
    step = offset_nanoseconds(after) - offset_nanoseconds(before)
    return (
        before.boot_id == after.boot_id
        and before.catalog_hash == after.catalog_hash
        and before.clock.synchronised == after.clock.synchronised
        and abs(step) <= OFFSET_NANOSECONDS_MAX
        and _times(before)[-1] < after.first_boottime_nanoseconds
    )


def offset_nanoseconds(payload: pb.Payload) -> int:
    """UTC less boottime, by the payload's own clock pair."""
    return payload.clock.realtime_nanoseconds - payload.clock.boottime_nanoseconds


def merge(payloads: Sequence[pb.Payload]) -> pb.Payload:
    """One payload for a run of payloads of which each can follow the one before; at least one."""
    times: list[int] = []
    channels: dict[int, _Channel] = {}
    for payload in payloads:
        rows = _times(payload)
        for column in payload.columns:
            channel = channels.setdefault(column.channel, _Channel(column))
            channel.last = column
            channel.values.update(_values(column, len(rows), len(times)))
        times.extend(rows)
    kept = _kept_rows(times, (channel.values for channel in channels.values()), offset_nanoseconds(payloads[-1]))
    last = payloads[-1]
    merged = pb.Payload(
        boot_id=last.boot_id,
        catalog_hash=last.catalog_hash,
        clock=last.clock,
        first_boottime_nanoseconds=times[kept[0]],
        boottime_delta_nanoseconds=[times[b] - times[a] for a, b in pairwise(kept)],
        columns=[_column(channels[number], kept) for number in sorted(channels)],
        utilizations=_merge_utilizations(payloads),
        workload_accounts=_last_accounts(payloads),
    )
    for payload in payloads:
        merged.gap_details.extend(payload.gap_details[: GAP_DETAILS_MAX - len(merged.gap_details)])
    return merged


def sample_count(payload: pb.Payload) -> int:
    """How many samples the payload has."""
    return len(payload.boottime_delta_nanoseconds) + 1


def _times(payload: pb.Payload) -> list[int]:
    times = [payload.first_boottime_nanoseconds]
    for delta in payload.boottime_delta_nanoseconds:
        times.append(times[-1] + delta)
    return times


def _present_rows(column: pb.Column, rows: int) -> list[int]:
    mask = column.present_mask
    if not mask:
        return list(range(rows))
    return [row for row in range(min(rows, 8 * len(mask))) if mask[row >> 3] >> (row & 7) & 1]


def _values(column: pb.Column, rows: int, base: int) -> dict[int, int]:
    values: dict[int, int] = {}
    energy = column.first_energy_microjoules
    for index, row in enumerate(_present_rows(column, rows)):
        energy += column.energy_delta_microjoules[index - 1] if index else 0
        values[base + row] = energy
    return values


def _kept_rows(times: Sequence[int], channels: Iterable[dict[int, int]], offset: int) -> list[int]:
    kept = {len(times) - 1}
    intervals = [(time + offset) // INTERVAL_NANOSECONDS for time in times]
    for values in channels:
        rows = list(values)
        kept.update(rows[-1:])
        for before, after in pairwise(rows):
            if intervals[before] != intervals[after]:
                kept.update((before, after))
    return sorted(kept)


def _column(channel: _Channel, kept: Sequence[int]) -> pb.Column:
    present = [index for index, row in enumerate(kept) if row in channel.values]
    energies = [channel.values[kept[index]] for index in present]
    mask = bytearray((len(kept) + 7) // 8)
    for index in present:
        mask[index >> 3] |= 1 << (index & 7)
    return pb.Column(
        channel=channel.last.channel,
        first_energy_microjoules=energies[0] if energies else channel.last.first_energy_microjoules,
        energy_delta_microjoules=[b - a for a, b in pairwise(energies)],
        present_mask=b"" if len(present) == len(kept) else bytes(mask),
        gap_lower_microjoules=channel.last.gap_lower_microjoules,
        gap_upper_microjoules=channel.last.gap_upper_microjoules,
        gap_unbounded_count=channel.last.gap_unbounded_count,
    )


def _last_accounts(payloads: Sequence[pb.Payload]) -> list[pb.WorkloadAccount]:
    """The last value of each account: they are cumulative."""
    return list({account.account: account for payload in payloads for account in payload.workload_accounts}.values())


def _merge_utilizations(payloads: Sequence[pb.Payload]) -> list[pb.UtilizationColumn]:
    merged: dict[tuple[str, int], list[int]] = {}  # Samples, ppm x samples, busy nanoseconds.
    for payload in payloads:
        samples = sample_count(payload)
        for column in payload.utilizations:
            sums = merged.setdefault((column.device, column.kind), [0, 0, 0])
            sums[0] += samples
            sums[1] += column.mean_ppm * samples
            sums[2] += column.busy_nanoseconds
    columns = []
    for (device, kind), (samples, weighted, busy) in merged.items():
        column = pb.UtilizationColumn(device=device, mean_ppm=weighted // samples, busy_nanoseconds=busy)
        column.kind = pb.UtilizationKind.ValueType(kind)
        columns.append(column)
    return columns
