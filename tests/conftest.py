"""What every test has: files that it left open are closed after it, and its folder is in memory where there is room.

Sources keep their files open for as long as they live, and most tests of sources make several and drop them. Some thousand
descriptors later, what is made for a thousand (`select`, the limit of a newcomer's shell) fails in tests that did nothing.

The trees of made-up machines are rewritten at each simulated second, and databases wait for their disk at each commit: in
memory the same tests take a third of the time. What is tested does not change, since no test cuts the power of a real disk.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

FIXTURES = str(Path(__file__).parent / "fixtures")

MEMORY = "/dev/shm"

# All folders of a run together take some 700 MiB if none is removed; those of tests that passed are.
MEMORY_BYTES_MIN = 2 * 1024**3


def pytest_configure() -> None:
    """Let pytest make its folders in memory, unless it was told another place."""
    if _is_fit(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


def _is_fit(folder: str) -> bool:
    """Whether a folder has room for a run, and lets programs run that tests write (containers often have `noexec` there)."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    may_run = not disk.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
    return may_run and disk.f_bavail * disk.f_frsize >= MEMORY_BYTES_MIN and os.access(folder, os.W_OK | os.X_OK)


@pytest.fixture(autouse=True)
def _close_sensor_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Close the files of machines, made up or fixtures, that a test opened and left."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    folders = (str(tmp_path_factory.getbasetemp()), FIXTURES)
    for descriptor in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            # A machine's tree alone: a database that is still open would lose its locks.
            if path.startswith(folders) and ("/sys/" in path or "/proc/" in path):
                os.close(int(descriptor))
