"""The system's page cache in benchmarks: a file is forgotten, so that the next reading of it comes from the disk.

What lies beneath (a hypervisor's cache, the disk's own) can't be emptied from here and may still answer.
"""

import os
import time
from pathlib import Path

_BYTES_AT_ONCE = 2**20


def forget(path: Path) -> None:
    """Drop what the system keeps of a file in memory, after it is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(path: Path) -> float:
    """Seconds of a plain reading of a whole file from its beginning to its end."""
    begun = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(_BYTES_AT_ONCE):
            pass
    return time.perf_counter() - begun
