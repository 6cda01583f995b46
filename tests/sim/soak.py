"""Runs worlds under many seeds and says how many met each fault: `python -m tests.sim.soak --first 0 --seeds 300`."""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.sim.audit import Findings, audit
from tests.sim.world import World

# A file system in memory, where there is one: the simulation loses power by itself, it needs no real fsync.
MEMORY = Path("/dev/shm")


def run_seed(seed: int) -> tuple[World, Findings]:
    """One world from beginning to rest, and its audit. Raises AssertionError where an invariant broke under way."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(seed, Path(folder))
        world.run()
        return world, audit(world)


def main() -> int:
    """Run the seeds; exit status 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--until-failure", action="store_true", help="stop at the first seed that fails")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # Faults are what is simulated.
    met: Counter[str] = Counter()
    failed: list[int] = []
    booked = gaps = epochs = 0
    started = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            world, findings = run_seed(seed)
            problems = findings.problems
        except AssertionError as error:
            problems = [str(error) or "assertion"]
        else:
            met.update(set(world.faults))
            booked += findings.booked_microjoules
            gaps += findings.gap_rows
            epochs += findings.epochs
        if problems:
            failed.append(seed)
            print(f"seed {seed}: {problems[0]}", flush=True)
            if arguments.until_failure:
                return 1
    for fault, seeds in met.most_common():
        print(f"{seeds:6d} seeds met: {fault}")
    print(f"{arguments.seeds - len(failed)} passed, {len(failed)} failed")
    print(
        f"{booked / 1e6:.0f} J booked over {epochs} epochs with {gaps} gaps in {time.monotonic() - started:.0f} s"
        + (f"; failed seeds: {failed}" if failed else "; difference 0 µJ"),
        file=sys.stderr,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
