"""A real Prometheus for tests: on a free port of loopback, with a configuration and data of the test's own.

Ends only what it started. Source of truth for the answers: Prometheus' HTTP API, version 1.
"""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.programs import free_ports

# What a busy machine may need to start it.
START_SECONDS_MAX = 60.0


class QueryError(Exception):
    """Prometheus refuses an expression, or can't evaluate it."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def query(self, expr: str, at_seconds: float | None = None) -> list[Any]:
        """Series of an instant query, at an instant or now. Raises QueryError."""
        at = {} if at_seconds is None else {"time": str(at_seconds)}
        return self._result("query", {"query": expr, **at})

    def query_range(self, expr: str, from_seconds: int, to_seconds: int, step_seconds: int) -> list[Any]:
        """Series of a range query. Raises QueryError."""
        span = {"start": str(from_seconds), "end": str(to_seconds), "step": str(step_seconds)}
        return self._result("query_range", {"query": expr, **span})

    def get(self, path: str) -> Any:
        """`data` of an answer of the API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]

    def _result(self, path: str, parameters: dict[str, str]) -> list[Any]:
        try:
            result: list[Any] = self.get(f"{path}?{urllib.parse.urlencode(parameters)}")["result"]
        except urllib.error.HTTPError as error:
            raise QueryError(f"{parameters['query']}: {error.read().decode()}") from error
        return result


@contextmanager
def running(program: str, configuration: Path, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on the data in folder/tsdb until the end of the block."""
    (port,) = free_ports(1)
    arguments = [
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
    try:
        _wait(process, port, log)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
