"""The few file operations that the spool is made of, and their real implementation.

No formats and no policy. What is durable when follows POSIX and fsync(2): data after `sync`, names after
`sync_directory`; after a failed `sync` nothing is known of what was written since the last good one.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """One folder's files. Every method raises OSError as the operating system does."""

    def make_directory(self, directory: Path) -> None:
        """Make the folder and its parents where they are missing; private to the user."""

    def names(self, directory: Path) -> list[str]:
        """Names of the files in the folder, in any order."""

    def lock(self, path: Path) -> Callable[[], None]:
        """Make the file where it is missing and lock it until the returned function is called or the process ends.

        Raises BlockingIOError if another process holds it.
        """

    def create(self, path: Path) -> int:
        """Make a file that must not exist, open for reading and writing; returns its handle."""

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing; returns its handle."""

    def size(self, handle: int) -> int:
        """Length of the file in bytes."""

    def read(self, handle: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file."""

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; on an error any part of it may be there."""

    def sync(self, handle: int) -> None:
        """Return when data and length are durable."""

    def truncate(self, handle: int, length: int) -> None:
        """Cut the file to `length` bytes."""

    def close(self, handle: int) -> None:
        """Let go of the handle."""

    def rename(self, old: Path, new: Path) -> None:
        """Give the file a new name, replacing what has it, in one step."""

    def remove(self, path: Path) -> None:
        """Take the file away; no error if it is gone already."""

    def sync_directory(self, directory: Path) -> None:
        """Return when the names in the folder are durable."""


class OsFiles:
    """The operating system's files."""

    def make_directory(self, directory: Path) -> None:
        """See Files."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, directory: Path) -> list[str]:
        """See Files."""
        return os.listdir(directory)

    def lock(self, path: Path) -> Callable[[], None]:
        """See Files."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return lambda: os.close(handle)

    def create(self, path: Path) -> int:
        """See Files."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """See Files."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def size(self, handle: int) -> int:
        """See Files."""
        return os.fstat(handle).st_size

    def read(self, handle: int, length: int, offset: int) -> bytes:
        """See Files."""
        data = os.pread(handle, length, offset)
        while len(data) < length and (more := os.pread(handle, length - len(data), offset + len(data))):
            data += more
        return data

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """See Files."""
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, handle: int) -> None:
        """See Files."""
        os.fdatasync(handle)  # Writes the length too, for without it the data could not be read back (fdatasync(2)).

    def truncate(self, handle: int, length: int) -> None:
        """See Files."""
        os.ftruncate(handle, length)

    def close(self, handle: int) -> None:
        """See Files."""
        os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """See Files."""
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        """See Files."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def sync_directory(self, directory: Path) -> None:
        """See Files."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
