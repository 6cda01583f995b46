"""What a report of a year costs, by the size of the fleet: 35 million rows of energy, three times and ten times as many.

Each command runs in a process of its own, so that its memory is its own; beside its time stands that of one plain SQL sum
over the same roll-ups. Nothing is booked here: the ledger is loaded in bulk (`bulk.py`).

    python -m tests.bench.year [--small] [--hosts 100 300 1000] [--folder DIR]
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.bulk import BEGIN_SECONDS, Fleet, build_ledger
from tests.bench.output import report
from tests.bench.page_cache import forget

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 2**20
WORKLOAD_DAYS = 7
# An upper bound of what one command may take on a machine that has other work.
SECONDS_MAX = 1500.0

# What is measured again with nothing of the ledger in memory.
COLD_TOO = ("report_year", "report_year_json", "report_month")

# What a month's or a year's figures would be summed up with, were there neither factors nor gaps.
PLAIN_SUM = (
    "SELECT site, component, quality, sum(energy_microjoules / 1000000), sum(energy_microjoules % 1000000) FROM rollup "
    "WHERE interval_start_seconds >= ? AND interval_start_seconds < ? GROUP BY 1, 2, 3"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: the wall's seconds, the processor's, and the largest memory in bytes."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int


# A process starts as a copy of its parent, whose memory its resource usage includes; what /proc says is its own.
_RUN = """
import sys
from wattledger_collector.cli import main
status = 0
try:
    status = main()
except SystemExit as end:
    status = end.code or 0
sys.stdout.flush()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stderr.write(peak.split()[1])
sys.exit(status)
"""


def measure(arguments: Sequence[str]) -> Cost:
    """Run a command of the collector, its output thrown away. Raises RuntimeError if it fails or takes too long."""
    command = [sys.executable, "-c", _RUN, *arguments]
    begun = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, cwd=ROOT) as process,
    ):
        waited = begun + SECONDS_MAX
        while True:
            found, status, used = os.wait4(process.pid, os.WNOHANG)
            if found:
                break
            if time.perf_counter() > waited:
                process.kill()
                raise RuntimeError(f"{' '.join(arguments)} took longer than {SECONDS_MAX:g} s")
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        said.seek(0)
        words = said.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with exit status {process.returncode}: {words}")
    return Cost(wall, used.ru_utime + used.ru_stime, int(words.split()[-1]) * 1024)


def plain_sum(path: Path, begin: int, end: int) -> float:
    """Seconds of one SQL sum over the roll-ups of a span."""
    with closing(sqlite3.connect(path)) as connection:
        begun = time.perf_counter()
        rows = connection.execute(PLAIN_SUM, (begin, end)).fetchall()
        assert rows, "there are no roll-ups"
        return time.perf_counter() - begun


def measure_size(path: Path, fleet: Fleet) -> None:
    """Make the ledger, run each command, and print what it took."""
    begun = time.perf_counter()
    rows = build_ledger(path, fleet)
    seconds = time.perf_counter() - begun
    size = path.stat().st_size
    with closing(sqlite3.connect(path)) as connection:
        (rollups,) = connection.execute("SELECT count(*) FROM rollup").fetchone()
        (gaps,) = connection.execute("SELECT count(*) FROM gap").fetchone()
        (workloads,) = connection.execute("SELECT count(*) FROM workload_energy").fetchone()
    name = f"year_{fleet.hosts}_hosts"
    report(f"{name}_rows", rows, "rows", rollups, "roll-ups of them")
    report(f"{name}_gap_rows", gaps, "rows", fleet.hosts, "hosts")
    report(f"{name}_bytes", size, "bytes", rows * 16, "two 64-bit numbers a row")
    report(f"{name}_load", rows / seconds, "rows/s", rows / seconds, "itself")
    ledger = ["--store", str(path)]
    last_month = max(BEGIN_SECONDS, fleet.end_seconds - 31 * 86_400)
    week = fleet.workload_from_seconds
    for part, begin, options in (
        ("report_year", BEGIN_SECONDS, []),
        ("report_year_json", BEGIN_SECONDS, ["--json"]),
        ("report_year_csv", BEGIN_SECONDS, ["--csv"]),
        ("report_year_of_hours_site", BEGIN_SECONDS, ["--site", "hall-d"]),
        ("report_month", last_month, []),
        ("report_month_json", last_month, ["--json"]),
        ("report_week_by_workload", week, ["--by", "workload", "--json"]),
    ):
        span = ["--from", _iso(begin), "--to", _iso(fleet.end_seconds)]
        own = measure(["report", *ledger, *span, *options])
        compared = plain_sum(path, begin, fleet.end_seconds)
        if part == "report_week_by_workload":
            report(f"{name}_{part}_rows", workloads, "rows", fleet.hosts, "hosts")
        report(f"{name}_{part}", own.wall_seconds, "s", compared, "one SQL sum of the same roll-ups")
        report(f"{name}_{part}_cpu", own.cpu_seconds, "s", own.wall_seconds, "by the wall's clock")
        report(f"{name}_{part}_memory", own.memory_bytes, "bytes", 64 * MEBIBYTE, "64 MiB")
        if part in COLD_TOO:
            forget(path)
            cold = measure(["report", *ledger, *span, *options])
            report(f"{name}_{part}_cold", cold.wall_seconds, "s", own.wall_seconds, "the same, warm")
            report(f"{name}_{part}_cold_cpu", cold.cpu_seconds, "s", cold.wall_seconds, "by the wall's clock")
    target = path.with_suffix(".backup")
    own = measure(["backup", *ledger, str(target)])
    report(f"{name}_backup", own.wall_seconds, "s", _copy_seconds(path, target), "a plain copy")
    target.unlink()


def _copy_seconds(path: Path, target: Path) -> float:
    """Seconds of a copy of the file by the system, on the disk at the end."""
    copy = path.with_suffix(".copy")
    begun = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", str(target), str(copy)], check=True)
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    copy.unlink()
    return seconds


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def main() -> int:
    """Read the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure reports of a year over ledgers of several sizes.")
    parser.add_argument("--small", action="store_true", help="a few servers for three days: shows that all works")
    parser.add_argument("--hosts", type=int, nargs="+", default=[100], help="servers of ten channels (default: 100)")
    parser.add_argument("--folder", type=Path, help="where the ledgers are made (default: the system's for temporary files)")
    arguments = parser.parse_args()
    fleets = [Fleet(hosts, 365, WORKLOAD_DAYS) for hosts in arguments.hosts]
    if arguments.small:
        fleets = [Fleet(12, 3, 1)]
    for fleet in fleets:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measure_size(Path(folder) / "ledger.sqlite", fleet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
