"""Agent and collector are killed again and again, and the ledger equals what the hardware counted, to the microjoule.

The hardware is simulated: its counters are a closed form of CLOCK_BOOTTIME, and what it showed at each read is written to a
file that belongs to no process under test.
"""

import json
import random
import signal
import time
from pathlib import Path

from tests.system.programs import AGENT, COLLECTOR, Program, free_ports, get, metric, wait_until

from wattledger_agent.sources.fake import FakeTruth
from wattledger_collector.records import ChannelInfo, ChannelPoint, Cursor, Role
from wattledger_collector.store import open_store

SEED = 20
KILLS = 50
# The kills take no longer than this, whatever the machine has to do besides.
KILLS_SECONDS = 45.0
MACHINE_SEED = 7
PACKAGES = 2
GPUS = 2
# Small enough that package counters wrap while the test runs, large enough that no outage hides a whole turn at 400 W.
COUNTER_RANGE_JOULES = 16_000


class Pair:
    """An agent and a collector that are started anew whenever they are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        grpc, self.http = free_ports(2)
        self.truth_path = folder / "truth.jsonl"
        self.ledger = folder / "ledger.sqlite"
        (folder / "collector.toml").write_text(
            f'[server]\nport = {grpc}\n[http]\nport = {self.http}\n[store]\npath = "{self.ledger}"\n'
            '[[site]]\nname = "hall"\nzone = "DE"\n'
        )
        (folder / "agent.toml").write_text(
            f'host = "killed"\nstate_dir = "{folder}/agent"\nperiod_seconds = 0.1\nflush_seconds = 0.2\n'
            f'[collector]\naddress = "127.0.0.1:{grpc}"\n'
            f"[sources.fake]\nseed = {MACHINE_SEED}\npackages = {PACKAGES}\ngpus = {GPUS}\nnode_meter = true\n"
            f'truth_path = "{self.truth_path}"\ncounter_range_joules = {COUNTER_RANGE_JOULES}\n'
        )
        self.programs: dict[str, Program] = {}
        # Committed times seen, and the highest energy counter: neither may ever fall.
        self.committed_seconds: set[float] = set()
        self.energy_joules = 0.0
        self._lines_at_start = 0
        self._committed_at_start = 0.0

    def start(self, name: str) -> None:
        """Start one of the two."""
        if name == "agent":
            self._lines_at_start = self._lines()
            command = AGENT, ["run", "--config", str(self.folder / "agent.toml")]
        else:
            self._committed_at_start = max(self.committed_seconds, default=0.0)
            command = COLLECTOR, ["serve", "--config", str(self.folder / "collector.toml")]
        self.programs[name] = Program(*command, self.folder / f"{name}.log")

    def has_worked(self, name: str) -> bool:
        """Whether it has done, since its start, what a kill could spoil: read and spooled, or booked."""
        if name == "agent":
            return self._lines() > self._lines_at_start + 3
        return self.newest_seconds > self._committed_at_start

    @property
    def newest_seconds(self) -> float:
        """Time of the newest committed sample seen; seconds since 1970-01-01 UTC."""
        self.look()
        return max(self.committed_seconds, default=0.0)

    def look(self) -> None:
        """See what `/metrics` shows now, if anyone is there to show it."""
        text = get(f"http://127.0.0.1:{self.http}/metrics", 0.5)
        if text is None:
            return
        committed = metric(text, "wattledger_host_last_sample_timestamp_seconds")
        energy = metric(text, "wattledger_host_energy_joules_total")
        if committed is not None:
            self.committed_seconds.add(committed)
        if energy is not None:
            assert energy >= self.energy_joules, "an energy counter fell"
            self.energy_joules = energy

    def truth_lines(self) -> list[dict[str, int]]:
        """Boottime and microjoules of each read, as the hardware wrote them."""
        lines = []
        for line in self.truth_path.read_text().splitlines():
            tree = json.loads(line)
            lines.append({"boottime": tree["boottime_nanoseconds"], **tree["microjoules"]})
        return lines

    def _lines(self) -> int:
        return self.truth_path.read_bytes().count(b"\n") if self.truth_path.exists() else 0


def truth_of(truth: FakeTruth, info: ChannelInfo, boottime_nanoseconds: int) -> int:
    """What a channel's hardware has counted since boot; a residual is what the node has beyond its parts."""
    energy = truth.microjoules(info.device, boottime_nanoseconds)
    if info.role is Role.RESIDUAL:
        energy -= sum(truth.microjoules(part, boottime_nanoseconds) for part in truth.parts)
    return energy


def kill_in_turn(pair: Pair, rng: random.Random) -> int:
    """Kill and restart until all kills are done; returns how many hit a program that had worked since its start."""
    begun = time.monotonic()
    effective = 0
    for number in range(KILLS):
        victim = rng.choice(("agent", "collector"))
        at_once, delay = rng.random() < 0.2, rng.random() * 0.25
        share = (begun + KILLS_SECONDS - time.monotonic()) / (KILLS - number)
        until = time.monotonic() + share - delay
        # Some die while they start; the others when they have something to lose.
        while not at_once and time.monotonic() < until and not pair.has_worked(victim):
            time.sleep(0.03)
        time.sleep(delay)
        effective += pair.has_worked(victim)
        pair.programs[victim].kill()
        pair.start(victim)
    return effective


def drain(pair: Pair) -> None:
    """Let all that was read be booked, then stop both in good order."""
    wait_until(lambda: get(f"http://127.0.0.1:{pair.http}/readyz") is not None, "the collector")
    # An agent that starts connects at once; one that has been refused waits for a while.
    assert pair.programs["agent"].stop() == 0
    pair.start("agent")
    wait_until(lambda: pair.has_worked("agent"), "the last samples")
    now_seconds = time.time()
    wait_until(lambda: pair.newest_seconds > now_seconds, "samples of now")
    assert pair.programs["agent"].stop() == 0
    assert pair.programs["collector"].stop(signal.SIGINT) == 0


def read_ledger(pair: Pair) -> tuple[Cursor, dict[int, ChannelInfo], dict[int, int]]:
    """The one cursor, its catalog, and the energy rows summed by channel; there must be no gap."""
    store = open_store(pair.ledger, create=False)
    try:
        (cursor,) = store.cursors()
        channels = store.load_channels(cursor.host, cursor.epoch)
        sums: dict[int, int] = {}
        for row in store.host_energy(0, 2**40):
            sums[row.channel.channel] = sums.get(row.channel.channel, 0) + row.energy_microjoules
        assert [gap.gap for gap in store.gaps(0, 2**40)] == []
    finally:
        store.close()
    return cursor, channels, sums


def test_killed_fifty_times_the_ledger_equals_the_truth(tmp_path: Path) -> None:
    """SIGKILL of agent and collector in random order: each channel's booked energy is its hardware's, to the microjoule."""
    pair = Pair(tmp_path)
    try:
        pair.start("collector")
        pair.start("agent")
        wait_until(lambda: pair.has_worked("collector"), "the first commit")
        effective = kill_in_turn(pair, random.Random(SEED))
        drain(pair)
    finally:
        for program in pair.programs.values():
            program.kill()
    assert not any("Traceback" in program.said for program in pair.programs.values())
    cursor, channels, sums = read_ledger(pair)
    lines = pair.truth_lines()
    truth = FakeTruth(MACHINE_SEED, packages=PACKAGES, gpus=GPUS)
    # The last line is the last sample: nothing that was read is missing at the end.
    assert {point.boottime_nanoseconds for point in cursor.points.values()} == {lines[-1]["boottime"]}
    assert set(channels) == set(cursor.points)
    for number, point in cursor.points.items():
        info = channels[number]
        expected = _expected(truth, info, point)
        assert point.booked_microjoules == expected, f"{info.device} {info.domain}"
        if info.is_booked:
            assert sums[number] == expected, f"{info.device} {info.domain}"
        if info.role is not Role.RESIDUAL:
            first = next(line for line in lines if line["boottime"] == info.opening_boottime_nanoseconds)
            flow = f"{info.device}/{info.domain}"
            assert lines[-1][flow] - first[flow] == expected
    by_role = {
        role: sum(cursor.points[n].booked_microjoules for n, i in channels.items() if i.role is role) for role in Role
    }
    assert by_role[Role.LEAF] + by_role[Role.RESIDUAL] == by_role[Role.METER]
    assert by_role[Role.LEAF] == sum(sums[number] for number, info in channels.items() if info.role is Role.LEAF)
    print(
        f"{KILLS} kills, {effective} of a program at work; {len(pair.committed_seconds)} committed times seen, "
        f"{cursor.committed_sequence} records, {len(lines)} samples, {by_role[Role.METER] / 1e6:.0f} J, difference 0"
    )
    # Else the kills would have met programs that had nothing to lose.
    assert effective >= KILLS // 5
    assert len(pair.committed_seconds) >= KILLS // 10


def _expected(truth: FakeTruth, info: ChannelInfo, point: ChannelPoint) -> int:
    """The closed form from the channel's first sample to its last committed one."""
    return truth_of(truth, info, point.boottime_nanoseconds) - truth_of(truth, info, info.opening_boottime_nanoseconds)
