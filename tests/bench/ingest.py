"""How fast a collector takes in batches, durably, beside an empty gRPC stream that answers the same messages.

Both servers run in a process of their own, one after the other, under the same client. With
--soak many agents send at their true pace instead, and the ledger is compared with what they sent.

    python -m tests.bench.ingest [--small] [--soak]
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
from grpc import aio
from tests.bench.output import report

from wattledger_collector.records import NANOSECONDS_PER_SECOND
from wattledger_collector.server import SERVER_OPTIONS, TelemetryServer, tune_interpreter
from wattledger_collector.store import open_store
from wattledger_collector.wire import catalog_hash_of
from wattledger_collector.writer import Writer
from wattledger_protos.v1 import telemetry_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 10
CHANNELS = 12
METHOD = "/wattledger_protos.v1.Telemetry/Stream"
BOOT = b"boot--0123456789"
# Agents open while the collector is busy with others; nothing is timed then.
START_SECONDS_MAX = 120.0
# A server that is told to end finishes its commits first.
STOP_SECONDS_MAX = 60.0


@dataclass
class Script:
    """What every agent sends: the same catalog and batches, as bytes; only Hello differs."""

    opening: pb.Opening
    catalog: bytes
    batches: list[bytes] = field(default_factory=list)
    # Cumulative energy of all channels together at the end of each batch; microjoules.
    totals: list[int] = field(default_factory=list)

    @classmethod
    def make(cls, batches: int, started_nanoseconds: int) -> "Script":
        """Batches of one second's samples, beginning at a time on CLOCK_REALTIME."""
        offset = started_nanoseconds - 1000 * NANOSECONDS_PER_SECOND
        opening = pb.Opening(boot_id=BOOT, clock=_clock(1000 * NANOSECONDS_PER_SECOND, offset))
        catalog = pb.Catalog(channels=[_channel(number, opening) for number in range(1, CHANNELS + 1)])
        catalog.catalog_hash = catalog_hash_of(catalog)
        script = cls(opening, pb.AgentMessage(catalog=catalog).SerializeToString())
        energies = [0] * CHANNELS
        for sequence in range(1, batches + 1):
            batch = _batch(sequence, energies, catalog.catalog_hash, offset)
            script.batches.append(pb.AgentMessage(batch=batch).SerializeToString())
            script.totals.append(sum(energies))
        return script

    def hello(self, number: int) -> bytes:
        """The first message of one agent."""
        hello = pb.Hello(
            protocol_minor=1,
            agent_version="bench",
            host=f"host-{number:05}",
            machine_id=f"machine-{number:05}",
            epoch=number.to_bytes(16, "big"),
            epoch_opening=self.opening,
            boot_id=BOOT,
            oldest_retained_sequence=1,
            next_sequence=1,
            labels={"hostname": f"host-{number:05}"},
            time_source=pb.TIME_SOURCE_CLOCK,
            clock=self.opening.clock,
        )
        return pb.AgentMessage(hello=hello).SerializeToString()


def _clock(boottime: int, offset: int) -> pb.ClockPair:
    return pb.ClockPair(boottime_nanoseconds=boottime, realtime_nanoseconds=boottime + offset, synchronised=True)


def _channel(number: int, opening: pb.Opening) -> pb.Channel:
    return pb.Channel(
        channel=number,
        device=f"gpu/GPU-{number:02}" if number > 4 else f"cpu/{number}",
        component=pb.COMPONENT_GPU if number > 4 else pb.COMPONENT_CPU,
        domain="board" if number > 4 else "package",
        source="nvidia" if number > 4 else "rapl",
        method=pb.METHOD_COUNTER,
        role=pb.ROLE_LEAF,
        opening=opening,
        power_bound_milliwatts=1_000_000,
    )


def _batch(sequence: int, energies: list[int], catalog_hash: int, offset: int) -> pb.Batch:
    """Ten seconds at 10 Hz would be the same size; the energies are moved on."""
    first = (1001 + (sequence - 1) * SAMPLES) * NANOSECONDS_PER_SECOND
    columns = []
    for index in range(CHANNELS):
        steps = [
            200_000_000 + 1_000_003 * index + (sequence * 7919 + sample * 104_729) % 1_000_000 for sample in range(SAMPLES)
        ]
        columns.append(
            pb.Column(
                channel=index + 1,
                first_energy_microjoules=energies[index] + steps[0],
                energy_delta_microjoules=steps[1:],
            )
        )
        energies[index] += sum(steps)
    payload = pb.Payload(
        boot_id=BOOT,
        catalog_hash=catalog_hash,
        clock=_clock(first + (SAMPLES - 1) * NANOSECONDS_PER_SECOND, offset),
        first_boottime_nanoseconds=first,
        boottime_delta_nanoseconds=[NANOSECONDS_PER_SECOND] * (SAMPLES - 1),
        columns=columns,
        utilizations=[
            pb.UtilizationColumn(device="cpu", kind=pb.UTILIZATION_KIND_BUSY, mean_ppm=500_000, busy_nanoseconds=5)
        ],
    ).SerializeToString()
    return pb.Batch(first_sequence=sequence, last_sequence=sequence, checksum=zlib.crc32(payload), payload=payload)


@dataclass
class Agent:
    """One agent: sends the script, one batch at a time, and keeps how far it was acknowledged."""

    number: int
    script: Script
    call: Any
    acknowledged: int = 0
    longest_wait_seconds: float = 0.0

    async def open(self) -> None:
        """Say Hello, send the catalog and the first batch."""
        await self.call.write(self.script.hello(self.number))
        welcome = pb.CollectorMessage.FromString(await self.call.read())
        assert welcome.WhichOneof("message") == "welcome", welcome
        await self.call.write(self.script.catalog)
        await self.send_next()

    async def send_next(self) -> None:
        """Send a batch and wait for its Ack."""
        begun = time.perf_counter()
        await self.call.write(self.script.batches[self.acknowledged])
        answer = pb.CollectorMessage.FromString(await self.call.read())
        assert answer.ack.committed_sequence == self.acknowledged + 1, answer
        self.acknowledged += 1
        self.longest_wait_seconds = max(self.longest_wait_seconds, time.perf_counter() - begun)

    async def send_until(self, end: float) -> None:
        """Send as fast as Acks come."""
        while time.perf_counter() < end and self.acknowledged < len(self.script.batches):
            await self.send_next()

    async def send_paced(self, first: float, period_seconds: float) -> None:
        """Send each batch at its time."""
        while self.acknowledged < len(self.script.batches):
            await asyncio.sleep(max(0.0, first + self.acknowledged * period_seconds - time.perf_counter()))
            await self.send_next()


class Server:
    """A server in a process of its own."""

    def __init__(self, role: str, database: Path, profile: str = "") -> None:
        command = [
            sys.executable,
            "-m",
            "tests.bench.ingest",
            "--role",
            role,
            "--database",
            str(database.resolve()),
            "--profile",
            profile,
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> dict[str, float]:
        """End it; returns its CPU seconds and what else it tells of itself."""
        output, _ = self._process.communicate("", STOP_SECONDS_MAX)
        return cast("dict[str, float]", json.loads(output))

    def cpu_seconds(self) -> float:
        """CPU time used until now."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100


async def connect(port: int, agents: int, connections: int, script: Script) -> tuple[list[aio.Channel], list[Agent]]:
    """Open all streams, up to the first Ack of each."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(connections)]
    # Bytes in both directions: what the client costs is the same for both servers, and little.
    calls: list[Any] = [channel.stream_stream(METHOD) for channel in channels]
    all_agents = [Agent(number, script, calls[number % connections]()) for number in range(agents)]
    for at in range(0, agents, 500):
        await asyncio.wait_for(asyncio.gather(*(agent.open() for agent in all_agents[at : at + 500])), START_SECONDS_MAX)
    return channels, all_agents


async def disconnect(channels: Sequence[aio.Channel], agents: Sequence[Agent]) -> None:
    """End all streams."""
    await asyncio.gather(*(agent.call.done_writing() for agent in agents))
    await asyncio.gather(*(channel.close() for channel in channels))


def acknowledged_microjoules(agents: Sequence[Agent]) -> int:
    """Energy of all batches that were acknowledged."""
    return sum(agent.script.totals[agent.acknowledged - 1] for agent in agents)


def check_ledger(database: Path, agents: Sequence[Agent]) -> int:
    """Microjoules by which the ledger differs from what was acknowledged, over roll-up, rows and cursors; 0 is right."""
    truth = acknowledged_microjoules(agents)
    store = open_store(database, create=False)
    try:
        rolled_up = sum(row.energy_microjoules for row in store.rollups(0, 2**40))
        rows = sum(row.energy_microjoules for row in store.host_energy(0, 2**40))
        lifetime = sum(point.booked_microjoules for cursor in store.cursors() for point in cursor.points.values())
        gaps = sum(1 for _ in store.gaps(0, 2**40))
    finally:
        store.close()
    return abs(rolled_up - truth) + abs(rows - truth) + abs(lifetime - truth) + gaps


@dataclass(frozen=True)
class Round:
    """What one server did under the client's load."""

    batches_per_second: float
    cpu_microseconds_per_batch: float
    longest_wait_seconds: float
    acknowledged_microjoules: int
    difference_microjoules: int = 0


async def run_round(role: str, folder: Path, agents: int, seconds: float, profile: str = "") -> Round:
    """Start a server, load it for some seconds, and stop it."""
    database = folder / f"{time.monotonic_ns()}.sqlite"
    server = Server(role, database, profile)
    # More than the echo can answer: an agent that has nothing left to send would make it look slower.
    script = Script.make(int(seconds * 16_000 / agents) + 20, time.time_ns())
    channels, all_agents = await connect(server.port, agents, agents, script)
    before, cpu_before, begun = sum(agent.acknowledged for agent in all_agents), server.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(agent.send_until(begun + seconds) for agent in all_agents))
    elapsed = time.perf_counter() - begun
    cpu = server.cpu_seconds() - cpu_before
    done = sum(agent.acknowledged for agent in all_agents) - before
    await disconnect(channels, all_agents)
    await asyncio.to_thread(server.stop)
    difference = check_ledger(database, all_agents) if role == "collector" else 0
    longest = max(agent.longest_wait_seconds for agent in all_agents)
    return Round(done / elapsed, cpu / done * 1e6, longest, acknowledged_microjoules(all_agents), difference)


async def compare(folder: Path, agents: int, seconds: float, rounds: int, profile: str) -> None:
    """Print the rate of the collector beside that of the echo, by turns so that both meet the same machine."""
    # The first round pays for cold caches.
    await run_round("echo", folder, agents, seconds / 4)
    results: dict[str, list[Round]] = {"echo": [], "collector": []}
    for _ in range(rounds):
        for role, found in results.items():
            found.append(await run_round(role, folder, agents, seconds, profile if role == "collector" else ""))
    rate = {role: statistics.median(each.batches_per_second for each in found) for role, found in results.items()}
    cpu = {role: statistics.median(each.cpu_microseconds_per_batch for each in found) for role, found in results.items()}
    echo = f"empty gRPC echo of the same messages, {agents} streams"
    report("ingest_batches_per_second", rate["collector"], "batches/s", rate["echo"], echo)
    report("ingest_cpu_microseconds_per_batch", cpu["collector"], "us", cpu["echo"], echo)
    longest = max(each.longest_wait_seconds for each in results["collector"])
    echo_longest = max(each.longest_wait_seconds for each in results["echo"])
    report("ingest_longest_ack_seconds", longest, "s", echo_longest, echo)
    difference = sum(each.difference_microjoules for each in results["collector"])
    acknowledged = sum(each.acknowledged_microjoules for each in results["collector"])
    report("ingest_difference_microjoules", difference, "uJ", acknowledged, "what was acknowledged")
    if difference:
        raise SystemExit("the ledger differs from what was acknowledged")


async def soak(folder: Path, agents: int, minutes: float, connections: int) -> None:
    """Let many agents send ten samples of one second every ten seconds, and compare the ledger with what they sent."""
    database = folder / "soak.sqlite"
    server = Server("collector", database)
    period = float(SAMPLES)
    script = Script.make(max(2, int(minutes * 60 / period)), time.time_ns())
    begun = time.perf_counter()
    channels, all_agents = await connect(server.port, agents, min(connections, agents), script)
    report("soak_connect_seconds", time.perf_counter() - begun, "s", period, f"{agents} agents' time between two batches")
    for agent in all_agents:
        agent.longest_wait_seconds = 0.0
    cpu_before, begun = server.cpu_seconds(), time.perf_counter()
    starts = (begun + period * agent.number / agents - period for agent in all_agents)
    await asyncio.gather(*(agent.send_paced(start, period) for agent, start in zip(all_agents, starts, strict=True)))
    elapsed = time.perf_counter() - begun
    cpu = server.cpu_seconds() - cpu_before
    await disconnect(channels, all_agents)
    told = await asyncio.to_thread(server.stop)
    difference = check_ledger(database, all_agents)
    sent = sum(agent.acknowledged for agent in all_agents)
    waits = sorted(agent.longest_wait_seconds for agent in all_agents)
    what = f"{agents} agents, {elapsed / 60:.1f} minutes"
    report("soak_batches", sent, "batches", len(script.batches) * agents, f"due of {what}")
    report("soak_cpu_cores", cpu / elapsed, "cores", os.cpu_count() or 1, "this machine")
    report("soak_longest_ack_seconds", waits[-1], "s", waits[len(waits) // 2], "the median agent's longest")
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    report("soak_memory_bytes", told["memory_bytes"], "B", machine_bytes, "this machine")
    sent_bytes = sum(map(len, script.batches)) * agents
    report("soak_database_bytes", database.stat().st_size, "B", sent_bytes, "batches on the wire")
    report("soak_difference_microjoules", difference, "uJ", acknowledged_microjoules(all_agents), "what was acknowledged")
    if difference:
        raise SystemExit("the ledger differs from what was acknowledged")


async def serve_echo() -> None:
    """The least that can answer the same messages: read, and send an Ack of the same size."""

    async def stream(
        _: AsyncIterator[pb.AgentMessage], context: aio.ServicerContext[pb.AgentMessage, pb.CollectorMessage]
    ) -> None:
        while isinstance(message := await context.read(), pb.AgentMessage):
            kind = message.WhichOneof("message")
            if kind == "hello":
                await context.write(pb.CollectorMessage(welcome=pb.Welcome()))
            elif kind == "batch":
                await context.write(pb.CollectorMessage(ack=pb.Ack(committed_sequence=message.batch.last_sequence)))

    handler = grpc.stream_stream_rpc_method_handler(
        cast("Any", stream),
        request_deserializer=pb.AgentMessage.FromString,
        response_serializer=pb.CollectorMessage.SerializeToString,
    )
    server = aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("wattledger_protos.v1.Telemetry", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)
    _tell_usage()


async def serve_collector(database: Path) -> None:
    """The collector's real path from the socket to the disk."""
    store = open_store(database, create=True)
    writer = Writer(store, collector="bench")
    writer.start()
    server = TelemetryServer(writer, address="127.0.0.1:0", tls=None)
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(1.0)
    await writer.stop()
    store.close()
    print(writer.counts, file=sys.stderr)
    _tell_usage()


def _tell_usage() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"memory_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}))


def _serve(role: str, database: Path, profile: str) -> None:
    tune_interpreter()
    main = serve_collector(database) if role == "collector" else serve_echo()
    if not profile:
        asyncio.run(main)
        return
    import cProfile

    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(main)
    profiler.disable()
    profiler.dump_stats(profile)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a short run that shows that all works")
    parser.add_argument("--soak", action="store_true", help="many agents at their true pace")
    parser.add_argument("--agents", type=int, default=0, help="streams; 200, or 10,000 with --soak")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of --soak")
    parser.add_argument("--connections", type=int, default=1000, help="connections that the agents of --soak share")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where databases are made; a temporary folder if not given"
    )
    parser.add_argument("--profile", default="", help="write a profile of the collector's event loop to this file")
    parser.add_argument("--role", choices=["echo", "collector"], help=argparse.SUPPRESS)
    parser.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        _serve(arguments.role, arguments.database, arguments.profile)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.soak:
            agents = arguments.agents or (50 if arguments.small else 10_000)
            minutes = 0.5 if arguments.small else arguments.minutes
            asyncio.run(soak(Path(folder), agents, minutes, arguments.connections))
        elif arguments.small:
            asyncio.run(compare(Path(folder), arguments.agents or 20, 1.0, 1, arguments.profile))
        else:
            compared = compare(Path(folder), arguments.agents or 200, arguments.seconds, arguments.rounds, arguments.profile)
            asyncio.run(compared)


if __name__ == "__main__":
    main()
