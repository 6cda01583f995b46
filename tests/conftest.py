"""What every test has: files that it left open are closed after it.

Sources keep their files open for as long as they live, and most tests of sources make several and drop them. Some thousand
descriptors later, what is made for a thousand (`select`, the limit of a newcomer's shell) fails in tests that did nothing.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

FIXTURES = str(Path(__file__).parent / "fixtures")


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
