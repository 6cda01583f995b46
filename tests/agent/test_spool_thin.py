"""Thinning: what stays of many samples, for any masks, boundaries and gaps."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from wattledger_agent import spool_thin
from wattledger_agent.spool_thin import INTERVAL_NANOSECONDS, Piece, Thinner
from wattledger_protos.v1 import telemetry_pb2 as pb

SECOND = 1_000_000_000
BOOT = b"b" * 16

# Values by channel and time, None where a channel was not read.
Rows = list[tuple[int, dict[int, int]]]


def payload_of(rows: Rows, gaps: dict[int, int], *, boot: bytes = BOOT, offset: int = 0) -> pb.Payload:
    """A payload with these samples; gaps: lower bound by channel, the upper one is twice that."""
    times = [time for time, _ in rows]
    payload = pb.Payload(
        boot_id=boot,
        catalog_hash=5,
        clock=pb.ClockPair(boottime_nanoseconds=times[-1], realtime_nanoseconds=times[-1] + offset, synchronised=True),
        first_boottime_nanoseconds=times[0],
        boottime_delta_nanoseconds=[after - before for before, after in itertools.pairwise(times)],
    )
    for channel in sorted({channel for _, values in rows for channel in values} | set(gaps)):
        energies = [values[channel] for _, values in rows if channel in values]
        mask = sum((channel in values) << index for index, (_, values) in enumerate(rows))
        payload.columns.add(
            channel=channel,
            first_energy_microjoules=energies[0] if energies else 0,
            energy_delta_microjoules=[after - before for before, after in itertools.pairwise(energies)],
            present_mask=b"" if len(energies) == len(rows) else mask.to_bytes((len(rows) + 7) // 8, "little"),
            gap_lower_microjoules=gaps.get(channel, 0),
            gap_upper_microjoules=2 * gaps.get(channel, 0),
            gap_unbounded_count=gaps.get(channel, 0) % 7,
        )
    return payload


def rows_of(payload: pb.Payload) -> Rows:
    """The samples of a payload, read by another way than the code under test does."""
    times = list(itertools.accumulate(payload.boottime_delta_nanoseconds, initial=payload.first_boottime_nanoseconds))
    rows: Rows = [(time, {}) for time in times]
    for column in payload.columns:
        bits = int.from_bytes(column.present_mask, "little") if column.present_mask else (1 << len(times)) - 1
        present = [index for index in range(len(times)) if bits >> index & 1]
        energies = itertools.accumulate(column.energy_delta_microjoules, initial=column.first_energy_microjoules)
        for index, energy in zip(present, energies, strict=False):
            rows[index][1][column.channel] = energy
    return rows


@st.composite
def histories(draw: st.DrawFn) -> list[Rows]:
    """Payloads of a boot in order: steps from a second to half an hour, three channels read now and then."""
    payloads: list[Rows] = []
    time = draw(st.integers(0, 2 * INTERVAL_NANOSECONDS))
    energy = {1: 0, 2: 0, 3: 0}
    for size in draw(st.lists(st.integers(1, 6), min_size=1, max_size=8)):
        rows: Rows = []
        for _ in range(size):
            time += draw(
                st.sampled_from([SECOND, 100 * SECOND, INTERVAL_NANOSECONDS - time % INTERVAL_NANOSECONDS, 1800 * SECOND])
            )
            values: dict[int, int] = {}
            for channel in draw(st.sets(st.sampled_from([1, 2, 3]))):
                energy[channel] += draw(st.integers(-5 if channel == 3 else 0, 50))
                values[channel] = energy[channel]
            rows.append((time, values))
        payloads.append(rows)
    return payloads


def series(rows: Rows, channel: int) -> list[tuple[int, int]]:
    """A channel's values in order of time."""
    return [(time, values[channel]) for time, values in rows if channel in values]


@settings(max_examples=300, deadline=None)
@given(histories(), st.integers(-(10**9), 10**9))
def test_what_the_ledger_needs_stays(history: list[Rows], offset: int) -> None:
    """No value is invented or moved; each channel keeps its last, and both sides of every boundary of an interval."""
    payloads = [payload_of(rows, {1: index, 2: 3}, offset=offset) for index, rows in enumerate(history)]
    merged = spool_thin.merge(payloads)
    assert spool_thin.parse(merged.SerializeToString()) == merged
    whole = [row for rows in history for row in rows]
    kept = rows_of(merged)
    assert {time for time, _ in kept} <= {time for time, _ in whole}
    for channel in (1, 2, 3):
        before, after = series(whole, channel), series(kept, channel)
        assert set(after) <= set(before)
        assert after[-1:] == before[-1:]
        for (early, energy), (late, later) in itertools.pairwise(before):
            if (early + offset) // INTERVAL_NANOSECONDS != (late + offset) // INTERVAL_NANOSECONDS:
                assert {(early, energy), (late, later)} <= set(after)
    columns = {column.channel: column for column in merged.columns}
    assert columns[1].gap_lower_microjoules == len(history) - 1
    assert columns[1].gap_upper_microjoules == 2 * (len(history) - 1)
    assert columns[2].gap_unbounded_count == 3


def piece(sequence: int, payload: pb.Payload) -> Piece:
    """A record of one payload."""
    return Piece(sequence, sequence, payload.catalog_hash, payload.SerializeToString(), b"state %d" % sequence)


def test_records_are_merged_within_one_boot_clock_and_catalog_alone() -> None:
    """A run ends where a merged payload could not say the truth about all its samples."""
    times = itertools.count(SECOND, SECOND)

    def record(boot: bytes = BOOT, offset: int = 0) -> pb.Payload:
        return payload_of([(next(times), {1: 7})] * 1, {}, boot=boot, offset=offset)

    payloads = [record(), record(), record(b"c" * 16), record(b"c" * 16), record(b"c" * 16, 2 * SECOND)]
    payloads += [record(b"c" * 16, 2 * SECOND), record(b"c" * 16, 2 * SECOND), record(b"c" * 16, 2 * SECOND)]
    payloads[6].catalog_hash = payloads[7].catalog_hash = 6
    thinner = Thinner()
    for sequence, payload in enumerate(payloads, 1):
        thinner.add(piece(sequence, payload))
    pieces = thinner.finish()
    assert [(each.first, each.last, each.state) for each in pieces] == [
        (1, 2, b"state 2"), (3, 4, b"state 4"), (5, 6, b"state 6"), (7, 8, b"state 8"),
    ]  # fmt: skip
    assert thinner.taken == 4


def test_what_is_not_understood_stays_as_it_is() -> None:
    """A payload of a later release, or one that contradicts itself, keeps its place among the others."""
    good = payload_of([(SECOND, {1: 7})], {})
    broken = payload_of([(2 * SECOND, {1: 7})], {})
    broken.columns[0].energy_delta_microjoules.append(5)
    thinner = Thinner()
    thinner.add(piece(1, good))
    thinner.add(piece(2, broken))
    thinner.add(Piece(3, 3, 5, b"\xff\xff", b"state 3"))
    assert [each.last for each in thinner.finish()] == [1, 2, 3]
    assert thinner.taken == 0


def test_utilization_is_weighed_by_samples() -> None:
    """Busy time adds up, and a mean is the mean of all samples."""
    first, second = payload_of([(SECOND, {})], {}), payload_of([(n * SECOND, {}) for n in (2, 3, 4)], {})
    for payload, ppm in ((first, 400_000), (second, 800_000)):
        payload.utilizations.add(device="cpu", kind=pb.UTILIZATION_KIND_BUSY, mean_ppm=ppm, busy_nanoseconds=ppm)
    (column,) = spool_thin.merge([first, second]).utilizations
    assert (column.device, column.mean_ppm, column.busy_nanoseconds) == ("cpu", 700_000, 1_200_000)


def test_gap_details_are_kept_up_to_their_maximum() -> None:
    """They are beside the sums that are booked."""
    payloads = [payload_of([(n * SECOND, {1: n})], {}) for n in range(1, 4)]
    for payload in payloads:
        payload.gap_details.extend([pb.GapDetail(channel=1)] * 100)
    assert len(spool_thin.merge(payloads).gap_details) == spool_thin.GAP_DETAILS_MAX


def test_merged_payloads_keep_the_last_value_of_each_workload() -> None:
    """Accounts of workloads are cumulative, and a frozen one is told by few records: a merge loses none."""
    first, second = payload_of([(SECOND, {1: 1})], {}), payload_of([(2 * SECOND, {1: 2})], {})
    first.workload_accounts.add(account=1, cpu_nanoseconds=5)
    first.workload_accounts.add(account=2, cpu_nanoseconds=7, frozen=True)
    second.workload_accounts.add(account=1, cpu_nanoseconds=6)
    merged = spool_thin.merge([first, second])
    assert [(one.account, one.cpu_nanoseconds) for one in merged.workload_accounts] == [(1, 6), (2, 7)]
