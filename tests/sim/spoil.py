"""Shows that the simulation can fail: each rule is spoiled in a copy of the code, and some seed must catch it.

`python -m tests.sim.spoil` prints a line for each spoil with the seed that caught it; exit status 1 if one went unnoticed or
no longer fits the code.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
AGENT = "agent/wattledger_agent"
COLLECTOR = "collector/wattledger_collector"
SEEDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Spoil:
    """One rule taken away. changes: file, what stands there, and what replaces it.

    first_seed: where to begin, for a rule that few worlds need.
    """

    rule: str
    changes: Sequence[tuple[str, str, str]]
    first_seed: int = 0


SPOILS = [
    Spoil(
        "repeats: energy is booked from the cursor's own point",
        [
            (f"{COLLECTOR}/session.py", "if batch.last_sequence <= self._committed_sequence:", "if False:"),
            (
                f"{COLLECTOR}/ledger.py",
                "if not batch.first_sequence <= cursor.committed_sequence + 1 <= batch.last_sequence:",
                "if False:",
            ),
            (
                f"{COLLECTOR}/columns.py",
                "after = point.boottime_nanoseconds if point.boot_id == self._boot_id else -1",
                "after = -1",
            ),
        ],
    ),
    Spoil(
        "acknowledgement after the commit",
        [
            (
                f"{COLLECTOR}/session.py",
                "        return [self._booking]\n\n    def _again",
                "        self._committed_sequence = batch.last_sequence\n"
                "        return [self._ack(), self._booking]\n\n    def _again",
            )
        ],
    ),
    Spoil(
        "compare of the whole rows, of cursor and host",
        [
            (f"{COLLECTOR}/hot_statements.py", "v.column1 AND epoch_cursor.packed = v.column2", "v.column1"),
            (f"{COLLECTOR}/hot_statements.py", "v.column1 AND host.packed = v.column2", "v.column1"),
        ],
    ),
    Spoil("wraps: a fall of a counter that wraps", [(f"{AGENT}/counters.py", "delta %= wrap", "delta = max(delta, 0)")]),
    Spoil("wraps: too long to be told apart", [(f"{AGENT}/counters.py", "if possible >= wrap:", "if False:")]),
    Spoil(
        "reset: a counter that falls, or whose driver was loaded anew",
        [
            (f"{AGENT}/counters.py", "elif delta < 0:\n        return miss", "elif False:\n        return miss"),
            (f"{AGENT}/counters.py", "generation != state.generation", "False"),
        ],
    ),
    Spoil(
        "remainder in splitting over intervals",
        [
            (
                f"{COLLECTOR}/intervals.py",
                "share = abs(energy_microjoules) * done_nanoseconds // total",
                "share = abs(energy_microjoules) * (done_nanoseconds // 7 * 7) // total",
            )
        ],
    ),
    Spoil(
        "rewind: what a restored collector lacks is sent again",
        [
            (
                f"{AGENT}/session.py",
                "        self._committed = committed\n        self._outbox.acknowledge(committed)\n"
                "        return self._settled(now)\n\n    def _is_forked",
                "        self._committed = max(committed, self._outbox.acknowledged_sequence)\n"
                "        return self._settled(now)\n\n    def _is_forked",
            )
        ],
    ),
    Spoil(
        "presence mask: what was not read is not a value",
        [
            (
                f"{AGENT}/wire.py",
                'present_mask=b"" if len(values) == rows else mask.to_bytes((rows + 7) // 8, "little"),',
                'present_mask=b"",',
            )
        ],
    ),
    Spoil(
        "new epoch where the disk went back in time",
        [
            (
                f"{AGENT}/session.py",
                "if committed > self._sent_sequence:\n            self._begin_anew",
                "if False:\n            self._begin_anew",
            ),
            (f"{AGENT}/session.py", "if self._is_forked(", "if False and self._is_forked("),
        ],
    ),
    Spoil("suspend: counters may have started anew", [(f"{AGENT}/counters.py", "> SUSPEND_NANOSECONDS\n", "> 10**18\n")]),
    Spoil(
        "closed channels are settled with their end",
        [(f"{COLLECTOR}/ledger.py", "if info.end is not None]\n    if not closed", "if False]\n    if not closed")],
    ),
    Spoil(
        "workloads: a step is booked from the cursor's own point",
        [(f"{COLLECTOR}/workload_ledger.py", "values.get(flow, 0), value)", "0, value)")],
    ),
    Spoil(
        "workloads: a frozen account is settled for good",
        [(f"{COLLECTOR}/workload_ledger.py", "if _is_settled(self.settled, number):", "if False:")],
    ),
    Spoil(
        "workloads: what a dropped record told is told again",
        [
            (
                f"{AGENT}/workload_accounts.py",
                "if dropped_records != self._dropped_records or sequence < self._acknowledged:",
                "if False:",
            )
        ],
        first_seed=180,
    ),
    Spoil(
        "workloads: a counter that is shown never falls",
        [
            (
                f"{COLLECTOR}/fleet_workloads.py",
                "if not is_next or any(each.key not in self._known for each in change.seen):",
                "if False:",
            )
        ],
    ),
    Spoil(
        "restore: counters are withheld until the agent has rewound",
        [
            (f"{COLLECTOR}/backup.py", "withheld=True, withheld_until={}", "withheld=False, withheld_until={}"),
            (f"{COLLECTOR}/hello.py", "is_behind = hello", "is_behind = False and hello"),
        ],
    ),
    Spoil(
        "imports: what one has booked is booked by nobody else",
        [
            (
                f"{COLLECTOR}/ledger.py",
                "imported = ImportedTime(host.imported, channels) if host.imported else None",
                "imported = None",
            )
        ],
    ),
]


def main() -> int:
    """Spoil and simulate, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, help="the first seed of each (default: its own)")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parser.add_argument("--only", default="", help="the spoils whose rule contains this")
    arguments = parser.parse_args()
    unnoticed = 0
    for spoil in SPOILS:
        if arguments.only not in spoil.rule:
            continue
        with tempfile.TemporaryDirectory() as folder:
            first = spoil.first_seed if arguments.first is None else arguments.first
            caught = _run(spoil, Path(folder), first, arguments.seeds)
        print(f"{'caught' if caught else 'UNNOTICED'}: {spoil.rule}: {caught or 'no seed failed'}", flush=True)
        unnoticed += not caught
    return int(unnoticed > 0)


def _run(spoil: Spoil, folder: Path, first: int, seeds: int) -> str:
    """The line of the first seed that failed; empty if none did."""
    for part in ("agent", "collector", "protos", "tests/sim"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in spoil.changes:
        text = (folder / file).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{spoil.rule}: `{old}` stands {text.count(old)} times in {file}; bring the spoil up to date")
        (folder / file).write_text(text.replace(old, new))
    paths = os.pathsep.join(str(folder / part) for part in ("agent", "collector", "protos", "."))
    command = [sys.executable, "-m", "tests.sim.soak", "--first", str(first), "--seeds", str(seeds), "--until-failure"]
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    failures = [line for line in result.stdout.splitlines() if line.startswith("seed ")]
    if failures:
        return failures[0]
    return result.stderr.strip().splitlines()[-1] if result.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
