"""A collector that acknowledges and keeps nothing, in a process of its own: the other end of an agent that is measured.

Prints its port; when standard input ends it prints what it received as one JSON object.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from pathlib import Path
from typing import cast

import grpc

from wattledger_collector.server import SERVER_OPTIONS
from wattledger_protos.v1 import telemetry_pb2 as pb
from wattledger_protos.v1 import telemetry_pb2_grpc as rpc

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS_MAX = 30.0


class Servicer(rpc.TelemetryServicer):
    """Acknowledges every batch. received: messages, and their bytes, by kind; and samples."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()

    def Stream(  # noqa: N802 - the name is the wire's.
        self, request_iterator: Iterator[pb.AgentMessage] | AsyncIterator[pb.AgentMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.CollectorMessage]:
        """One agent's stream."""
        assert isinstance(request_iterator, Iterator)
        for message in request_iterator:
            kind = message.WhichOneof("message") or "unknown"
            self.received[kind] += 1
            self.received[f"{kind}_bytes"] += message.ByteSize()
            if kind == "hello":
                yield pb.CollectorMessage(welcome=pb.Welcome())
            elif kind == "batch":
                payload = pb.Payload.FromString(message.batch.payload)
                self.received["samples"] += 1 + len(payload.boottime_delta_nanoseconds)
                self.received["values"] += sum(1 + len(column.energy_delta_microjoules) for column in payload.columns)
                yield pb.CollectorMessage(ack=pb.Ack(committed_sequence=message.batch.last_sequence))


class Acknowledger:
    """The process, as its user sees it. port: where it listens."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.bench.acknowledger"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> dict[str, int]:
        """End it; returns what it received."""
        output, _ = self._process.communicate("", STOP_SECONDS_MAX)
        return cast("dict[str, int]", json.loads(output))


def main() -> None:
    """Serve until standard input ends, with the real collector's transport settings: they decide how often it pings."""
    servicer = Servicer()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=SERVER_OPTIONS)
    rpc.add_TelemetryServicer_to_server(servicer, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(1.0).wait()
    print(json.dumps(servicer.received))


if __name__ == "__main__":
    main()
