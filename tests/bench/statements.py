"""What closing, bundling and verifying a month costs, by the number of servers: time, memory and bytes.

Judges no figure. The ledger is made by bulk load; each command is a process of its own, as an operator runs it. Growth is
told against the smallest ledger: a ratio of 1 is as much for each row as there.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.ledgers import BEGIN_SECONDS, DAY_SECONDS, build_ledger
from tests.bench.output import report
from tests.bench.page_cache import forget, read_seconds

from wattledger_collector.verify import verify

# A tenth, a third and the whole of a thousand servers, whose month has 28.8 million rows.
SERVERS = (100, 333, 1000)
DAYS = 30
SMALL_SERVERS, SMALL_DAYS = (5, 10), 3

# Of a small bundle, whose every file has its share of them; and of the largest, of which a check takes seconds: as many
# anywhere in it as in its files by turns, most of which are small.
BITS, SMALL_BITS = 1000, 40
BITS_OF_LARGEST, SMALL_BITS_OF_LARGEST = 40, 4
FLIPPED_SERVERS, FLIPPED_DAYS = 3, 2


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a short run that shows that all works")
    parser.add_argument("--folder", type=Path, help="where to put the ledgers (default: the system's temporary folder)")
    parser.add_argument("--servers", type=int, nargs="+", help="servers of ten channels (default: 100 333 1000)")
    arguments = parser.parse_args()
    sizes, days = (SMALL_SERVERS, SMALL_DAYS) if arguments.small else (SERVERS, DAYS)
    smallest: dict[str, float] = {}
    for servers in arguments.servers or sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            bits = 0
            if servers == sizes[-1]:
                bits = SMALL_BITS_OF_LARGEST if arguments.small else BITS_OF_LARGEST
            _measure(Path(folder), servers, days, smallest, bits)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        _flip(Path(folder), SMALL_BITS if arguments.small else BITS)
    return 0


def _flip(folder: Path, bits: int) -> None:
    """Flip so many random bits of a bundle, one at a time; how many of them the check notices."""
    ledger, bundle = folder / "ledger.sqlite", folder / "bundle"
    build_ledger(ledger, FLIPPED_SERVERS, FLIPPED_DAYS)
    begin, end = (_date(BEGIN_SECONDS + day * DAY_SECONDS) for day in (0, FLIPPED_DAYS))
    _run(("statement", "close", "--store", str(ledger), "--from", begin, "--to", end))
    _run(("statement", "bundle", "--store", str(ledger), "--out", str(bundle)))
    files = sorted(bundle.iterdir())
    chance = random.Random(bits)
    turns = [files[number % len(files)] for number in range(bits)]
    places = [(path, chance.randrange(8 * path.stat().st_size)) for path in turns]
    report("statement_flipped_bits_noticed", _noticed(bundle, places), "bits", bits, "all bits that were flipped")


def _flip_largest(bundle: Path, bits: int) -> None:
    """Likewise of a whole bundle: half the bits anywhere in it, half in its files by turns."""
    files = sorted(bundle.iterdir())
    chance = random.Random(bits)
    sizes = [path.stat().st_size for path in files]
    places = []
    for number, anywhere in enumerate(chance.choices(files, sizes, k=bits)):
        path = anywhere if number % 2 else chance.choice(files)
        places.append((path, chance.randrange(8 * path.stat().st_size)))
    noticed = _noticed(bundle, places)
    report("statement_flipped_bits_noticed_of_largest", noticed, "bits", bits, f"all, in {sum(sizes)} bytes")


def _noticed(bundle: Path, places: Sequence[tuple[Path, int]]) -> int:
    """How many of these bits, flipped one at a time, the check notices. Raises RuntimeError if it fails without."""
    noticed = 0
    for path, bit in places:
        data = path.read_bytes()
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoiled)
        noticed += not verify(bundle).is_good
        path.write_bytes(data)
    if not verify(bundle).is_good:
        raise RuntimeError("the bundle does not verify as it is")
    return noticed


def _measure(folder: Path, servers: int, days: int, smallest: dict[str, float], bits: int) -> None:
    ledger, bundle = folder / "ledger.sqlite", folder / "bundle"
    rows = build_ledger(ledger, servers, days)
    begin, end = (_date(BEGIN_SECONDS + day * DAY_SECONDS) for day in (0, days))

    def tell(name: str, value: float, unit: str) -> None:
        per_row = smallest.setdefault(name, value / rows)
        report(
            f"{name}_{servers}_servers", value, unit, per_row * rows, f"{rows} rows at the smallest ledger's cost of a row"
        )

    tell("statement_ledger_bytes", ledger.stat().st_size, "bytes")
    close = ("statement", "close", "--store", str(ledger), "--from", begin, "--to", end)
    forget(ledger)
    tell("statement_plain_reading_cold_seconds", read_seconds(ledger), "seconds")
    forget(ledger)
    for name, command in (
        ("statement_close_cold", close),
        # It reads and hashes all rows again, to find that nothing has changed.
        ("statement_close_again", close),
        ("statement_bundle", ("statement", "bundle", "--store", str(ledger), "--out", str(bundle))),
        ("statement_verify", ("verify", str(bundle))),
    ):
        seconds, cpu_seconds, bytes_max = _run(command)
        tell(f"{name}_seconds", seconds, "seconds")
        # On a machine that others use too, this is what it takes.
        tell(f"{name}_cpu_seconds", cpu_seconds, "seconds")
        tell(f"{name}_memory_bytes", bytes_max, "bytes")
    tell("statement_bundle_bytes", sum(each.stat().st_size for each in bundle.iterdir()), "bytes")
    if bits:
        _flip_largest(bundle, bits)
    shutil.rmtree(bundle)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _run(command: Sequence[str]) -> tuple[float, float, int]:
    """Run the collector's command; its wall and CPU time in seconds, and the most memory that it held in bytes."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "wattledger_collector.cli", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    # Linux counts in kibibytes.
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
