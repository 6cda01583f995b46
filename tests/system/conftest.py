"""What system tests need from the machine: found, or the test is skipped with the name of the Debian package.

It installs nothing. With WATTLEDGER_REQUIRE_SYSTEM=1, as in CI, a missing program is a failure instead of a skip.
"""

import os
import shutil
from typing import Protocol

import pytest


class RequireProgram(Protocol):
    """Finds a program that a test can't do without."""

    def __call__(self, program: str, *, package: str) -> str:
        """Return the path of a program on PATH, else skip the test (or fail it) and name the package that brings it."""


@pytest.fixture(scope="session")
def require_program() -> RequireProgram:
    """A function that finds a program or ends the test with the name of its Debian package."""

    def require(program: str, *, package: str) -> str:
        path = shutil.which(program)
        if path is not None:
            return path
        message = f"{program} is not installed: run `apt-get install {package}`"
        if os.environ.get("WATTLEDGER_REQUIRE_SYSTEM") == "1":
            pytest.fail(f"{message} (WATTLEDGER_REQUIRE_SYSTEM=1)")
        pytest.skip(message)

    return require
