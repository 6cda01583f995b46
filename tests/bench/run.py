"""Runs every benchmark, one after the other, and passes on what they print: one JSON object a line.

Judges no figure; it checks that each benchmark completes and says what it found, with its ratio. Exit status 1 otherwise.

    python tests/bench/run.py [--small]
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BENCHMARKS: tuple[tuple[str, ...], ...] = (
    ("tests.bench.agent_cost",),
    ("tests.bench.exposition",),
    ("tests.bench.ingest",),
    ("tests.bench.ingest", "--soak"),
    ("tests.bench.estimation",),
    ("tests.bench.statements",),
    ("tests.bench.year",),
)

# The longest, 10,000 agents for ten minutes, takes about fifteen with its start and its audit.
SECONDS_MAX = 1800.0


def problem_of(line: str) -> str:
    """What is wrong with a line of a benchmark; empty if nothing is."""
    try:
        found = json.loads(line)
    except ValueError:
        return f"not JSON: {line[:100]!r}"
    if not isinstance(found, dict):
        return f"not an object: {line[:100]!r}"
    if "missing" in found:
        # What it would be compared with can't be run here, and the line says why.
        said = all(isinstance(found.get(key), str) and found[key] for key in ("name", "missing"))
        return "" if said else f"does not say what is missing: {line[:100]!r}"
    problems = [key for key in ("name", "unit") if not (isinstance(found.get(key), str) and found[key])]
    problems += [key for key in ("value", "ratio") if not _is_number(found.get(key))]
    return f"lacks {', '.join(problems)}: {line[:100]!r}" if problems else ""


def problems_of(status: int, output: str) -> list[str]:
    """What is wrong with a benchmark that ended."""
    lines = output.splitlines()
    problems = [problem for line in lines if (problem := problem_of(line))]
    if status:
        problems.append(f"exit status {status}")
    if not lines:
        problems.append("it printed nothing")
    return problems


def run(command: Sequence[str], seconds_max: float) -> list[str]:
    """Run one benchmark, pass on its lines, and return what is wrong."""
    command = [sys.executable, "-m", *command]
    # gRPC tells of every connection that ends, and here thousands end.
    environment = {**os.environ, "GRPC_VERBOSITY": "ERROR"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            return [f"it took longer than {seconds_max:g} s"]
        finally:
            # With the servers and agents that it started, of which none is left if all went well.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    print(output, end="", flush=True)
    return problems_of(process.returncode, output)


def main() -> int:
    """Read the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run every benchmark; each prints one JSON object a line.")
    parser.add_argument("--small", action="store_true", help="short runs that show that all works")
    options = ["--small"] if parser.parse_args().small else []
    failed = False
    for benchmark in BENCHMARKS:
        begun = time.monotonic()
        name = " ".join((*benchmark, *options))
        problems = run([*benchmark, *options], SECONDS_MAX)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
        for problem in problems:
            print(f"{name}: {problem}", file=sys.stderr)
        failed = failed or bool(problems)
    return int(failed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


if __name__ == "__main__":
    sys.exit(main())
