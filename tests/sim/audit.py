"""What must hold when a world has come to rest, reckoned from the database's rows and the truth outside."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from tests.sim import clerk
from tests.sim.agent_process import Account
from tests.sim.oracle import Oracle
from tests.sim.world import World

from wattledger_collector.records import ChannelInfo, Cursor, GapReason, Role
from wattledger_collector.store import SqliteStore, open_store

FAR_SECONDS = 4_000_000_000


@dataclass(slots=True)
class Findings:
    """What an audit saw. problems: empty if every invariant holds."""

    booked_microjoules: int = 0
    expected_microjoules: int = 0
    epochs: int = 0
    gap_rows: int = 0
    missed_microjoules: int = 0
    overlapped: int = 0
    fallen: int = 0
    workload_microjoules: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ChannelSums:
    """One channel's rows added up."""

    booked: int = 0
    lower: int = 0
    upper: int = 0
    unbounded: int = 0
    overlap_lower: int = 0
    overlap_upper: int = 0
    overlaps: int = 0
    fallen: int = 0

    def add(self, other: "ChannelSums") -> None:
        """Add those of another channel of the same part, as of a device that is listed again after it was gone."""
        for name in ChannelSums.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def audit(world: World) -> Findings:
    """Compare the ledger with the truth, to the microjoule."""
    for collector in world.collectors:
        collector.store.close()
    store = open_store(world.database, create=False)
    findings = Findings()
    sums: dict[tuple[str, bytes, int], ChannelSums] = defaultdict(ChannelSums)
    leaves: dict[str, int] = defaultdict(int)
    for row in store.host_energy(0, FAR_SECONDS):
        sums[row.host, row.epoch, row.channel.channel].booked += row.energy_microjoules
        findings.booked_microjoules += row.energy_microjoules
        if row.channel.role is Role.LEAF:
            leaves[row.host] += row.energy_microjoules
    for gap_row in store.gaps(0, FAR_SECONDS):
        findings.gap_rows += 1
        gap = gap_row.gap
        if gap_row.channel is None or gap.reason is GapReason.EPOCH:
            continue
        channel = sums[gap_row.host, gap_row.epoch, gap.channel]
        if gap.reason is GapReason.OVERLAP:
            channel.overlaps += 1
            channel.overlap_lower += gap.lower_microjoules
            channel.overlap_upper += gap.upper_microjoules or 0
        else:
            channel.lower += gap.lower_microjoules
            channel.upper += gap.upper_microjoules or 0
            channel.unbounded += gap.upper_microjoules is None
    is_forked = bool(world.faults["spool rolled back to an older copy"])
    gone = ("store restored from an older copy", "disk full", "records given up unsent")
    if is_forked and any(world.faults[fault] for fault in gone):
        # Where a spool went back in time, went on by itself and has lost the record that would tell (to a full disk, to its
        # quota while it was cut off, or because the store went back too), its account lies below the ledger's. What the
        # ledger has was counted and stays; what it refuses is signed evidence, and a gap.
        for host, epoch, number, amount in _fallen(world):
            sums[host, epoch, number].fallen += amount
            findings.fallen += 1
    rolled_up = sum(row.energy_microjoules for row in store.rollups(0, FAR_SECONDS))
    if rolled_up != findings.booked_microjoules:
        findings.problems.append(f"roll-ups hold {rolled_up}, rows {findings.booked_microjoules}")
    accounts: dict[str, list[Account]] = defaultdict(list)
    for simulated in world.hosts:
        accounts[simulated.name].append(simulated.account)
    is_even = not any(world.faults[fault] for fault in ("clock stepped by an hour", "clock not synchronised"))
    findings.problems += clerk.problems(store, are_clocks_even=is_even)
    for cursor in store.cursors():
        if clerk.is_imported(cursor):
            continue
        findings.epochs += 1
        oracle = _oracle_of(cursor, accounts[cursor.host])
        if oracle is None:
            if cursor.committed_sequence:
                findings.problems.append(
                    f"{cursor.host}: nobody spooled what is committed up to {cursor.committed_sequence}"
                )
            continue
        _compare(store.load_channels(cursor.host, cursor.epoch), cursor, oracle, sums, findings)
        is_lost = world.may_lack_accounts()
        _compare_workloads(store, cursor, oracle, sums, findings, is_lost=is_lost, is_forked=is_forked)
    _check_workload_rows(store, leaves, findings, is_forked=is_forked)
    _check_reach(world, findings, {(c.host, c.epoch): c for c in store.cursors()})
    store.close()
    return findings


def _fallen(world: World) -> list[tuple[str, bytes, int, int]]:
    """Host, epoch, channel and refused amount of values that fell; accounts of workloads have no channel."""
    with closing(sqlite3.connect(world.database)) as connection:
        return connection.execute(
            "SELECT host.host, c.epoch, e.channel, e.microjoules FROM evidence e JOIN epoch_cursor c ON c.id = e.cursor_id "
            "JOIN host ON host.id = c.host_id WHERE e.channel > 0 AND e.reason LIKE '%fell from%'"
        ).fetchall()


def _oracle_of(cursor: Cursor, accounts: list[Account]) -> Oracle | None:
    for account in accounts:
        found = account.find(cursor.epoch, cursor.committed_sequence, cursor.committed_checksum)
        if found is not None:
            return found
    return None


def _compare(
    channels: dict[int, ChannelInfo],
    cursor: Cursor,
    oracle: Oracle,
    sums: dict[tuple[str, bytes, int], ChannelSums],
    findings: Findings,
) -> None:
    expected = oracle.expected()
    found: dict[tuple[str, str], ChannelSums] = {}
    for number, info in channels.items():
        if info.role in (Role.LEAF, Role.RESIDUAL):
            found.setdefault((info.device, info.domain), ChannelSums()).add(sums[cursor.host, cursor.epoch, number])
            point = cursor.points.get(number)
            if sums[cursor.host, cursor.epoch, number].booked != (point.booked_microjoules if point else 0):
                findings.problems.append(f"{cursor.host} {info.device}: rows and cursor disagree")
    for name, microjoules in expected.items():
        findings.expected_microjoules += microjoules
        channel = found.get(name, ChannelSums())
        findings.overlapped += channel.overlaps
        short = microjoules - channel.booked - channel.fallen
        where = f"{cursor.host} epoch {cursor.epoch.hex()[:6]} {'/'.join(name)}"
        if not channel.overlap_lower <= short <= channel.overlap_upper:
            findings.problems.append(f"{where}: booked {channel.booked}, counted {microjoules}: {short} too few")
        missed = next((a.missed_microjoules for key, a in oracle.accounts.items() if (key.device, key.domain) == name), None)
        if missed is None:
            continue
        findings.missed_microjoules += missed
        if channel.lower > missed or (missed > channel.upper and not channel.unbounded):
            findings.problems.append(f"{where}: missed {missed} outside of [{channel.lower}, {channel.upper}]")


def _compare_workloads(
    store: SqliteStore,
    cursor: Cursor,
    oracle: Oracle,
    sums: dict[tuple[str, bytes, int], ChannelSums],
    findings: Findings,
    *,
    is_lost: bool,
    is_forked: bool,
) -> None:
    """All that records told of workloads is booked, and it is what the leaves had counted.

    is_lost: records may be gone from both sides. is_forked: a spool went on from an older copy, whose accounts of workloads
    are not those that the ledger had; the energy of the leaves is, since that is told by counters.
    """
    told = sum(oracle.told.values())
    where = f"{cursor.host} epoch {cursor.epoch.hex()[:6]}"
    if told != oracle.divided_microjoules:
        findings.problems.append(f"{where}: workloads have {told}, the leaves counted {oracle.divided_microjoules}")
    workloads = store.load_workload_cursor(cursor.host, cursor.epoch)
    booked = workloads.booked_microjoules if workloads else 0
    findings.workload_microjoules += booked
    of_epoch = [each for (host, epoch, _), each in sums.items() if (host, epoch) == (cursor.host, cursor.epoch)]
    if any(each.fallen for each in of_epoch):
        return
    # What another epoch has booked of the same time is not booked again, for channels and workloads alike.
    short = told - booked
    is_excused = is_lost or is_forked or any(each.overlaps for each in of_epoch)
    if (short < 0 and not is_forked) or (short > 0 and not is_excused):
        findings.problems.append(f"{where}: workloads have booked {booked}, records told {told}")


def _check_workload_rows(store: SqliteStore, leaves: Mapping[str, int], findings: Findings, *, is_forked: bool) -> None:
    """Rows, lifetime totals and cursors say the same of each host, and no more than its leaves have booked.

    is_forked: a spool that went on from an older copy divides again what was divided before.
    """
    rows: dict[str, int] = defaultdict(int)
    for row in store.workload_energy(0, FAR_SECONDS):
        rows[row.host] += row.energy_microjoules
    cursors: dict[str, int] = defaultdict(int)
    for cursor in store.cursors():
        workloads = store.load_workload_cursor(cursor.host, cursor.epoch)
        cursors[cursor.host] += workloads.booked_microjoules if workloads else 0
    for host, booked in cursors.items():
        totals = sum(sum(total.energies.values()) for total in store.host_workloads(host, 0).totals)
        if not rows[host] == booked == totals:
            findings.problems.append(f"{host}: workloads have {rows[host]} in rows, {booked} in cursors, {totals} in totals")
        if booked > leaves[host] and not is_forked:
            findings.problems.append(f"{host}: workloads have booked {booked}, the leaves {leaves[host]}")


def _check_reach(world: World, findings: Findings, cursors: dict[tuple[str, bytes], Cursor]) -> None:
    """Every batch of every agent that is served has arrived."""
    for host in world.hosts:
        assert host.agent is not None
        if host.agent.session.refusal:
            continue
        cursor = cursors.get((host.name, host.agent.spool.epoch))
        reached = cursor.committed_sequence if cursor is not None else 0
        if reached != host.agent.spool.next_sequence - 1:
            findings.problems.append(f"{host.name}: committed {reached} of {host.agent.spool.next_sequence - 1}")
