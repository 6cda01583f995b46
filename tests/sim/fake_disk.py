"""A disk in memory that forgets what was not synced, tears writes, fills up, fails, and goes back in time; seeded.

It is stricter than most file systems: a file that was synced is lost with a crash if its folder was not, and after a failed
sync the data can still be read but is never written by a later sync (as Linux does: fsync(2), "EIO").
"""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


class DiskCrashError(Exception):
    """The simulated machine died within a disk operation. Not an OSError, so that no code under test handles it."""


@dataclass(slots=True)
class _Change:
    """A write, or a cut to `offset` bytes if `data` is None."""

    offset: int
    data: bytes | None


@dataclass(slots=True)
class _File:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the disk held durably at one time."""

    files: dict[Path, bytes]


class FakeDisk:
    """Implements the spool's Files. One per simulated host; it outlives the agent's crashes.

    capacity_bytes: the disk's size. Counters: operations, syncs, failed_syncs, torn_writes, full_errors, crashes.
    """

    def __init__(self, seed: int = 0, capacity_bytes: int = 2**40) -> None:
        self._random = random.Random(seed)
        self.capacity_bytes = capacity_bytes
        self.operations = self.syncs = self.failed_syncs = self.torn_writes = self.full_errors = self.crashes = 0
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._renames: list[Callable[[dict[Path, _File]], None]] = []  # Changes of names that are not durable yet.
        self._handles: dict[int, _File] = {}
        self._next_handle = 3
        self._locked: set[Path] = set()
        self._filled_bytes = 0
        self._sync_failures = 0
        self._sync_errno = errno.EIO
        self._write_failures = 0
        self._write_errno = errno.EIO
        self._crash_after: int | None = None
        self._crashed = False

    # What a simulation does to the disk.

    def crash(self) -> None:
        """The machine loses power and starts again: of what was not synced, any part may be there, torn anywhere."""
        self.crashes += 1
        for change in self._renames[: self._random.randint(0, len(self._renames))]:
            change(self._durable_names)
        for file in self._durable_names.values():
            self._settle(file)
        self._restart()

    def kill(self) -> None:
        """The process alone dies: the operating system keeps all that was written, synced or not."""
        self._handles.clear()
        self._locked.clear()
        self._crash_after, self._crashed = None, False

    def crash_after(self, operations: int | None) -> None:
        """After so many operations raise DiskCrashError, from then on always, until `crash` or `kill`; None: never."""
        self._crash_after = operations

    def snapshot(self) -> Snapshot:
        """Copy what is durable."""
        return Snapshot({path: bytes(file.durable) for path, file in self._durable_names.items()})

    def roll_back(self, snapshot: Snapshot) -> None:
        """The machine starts again from an older copy of its disk."""
        self._durable_names = {}
        for path, data in snapshot.files.items():
            self._durable_names[path] = _File(bytearray(data), bytearray(data))
        self._renames.clear()
        self._restart()

    def fill(self, size: int) -> None:
        """Other programs take `size` bytes of the disk in all; 0 gives everything back."""
        self._filled_bytes = size

    @property
    def used_bytes(self) -> int:
        """What is taken, other programs' share included."""
        files = {id(file): file for file in (*self._names.values(), *self._handles.values())}
        return self._filled_bytes + sum(len(file.cached) for file in files.values())

    @property
    def free_bytes(self) -> int:
        """What is left; may be negative after `fill`."""
        return self.capacity_bytes - self.used_bytes

    def fail_syncs(self, times: int, number: int = errno.EIO) -> None:
        """The next syncs of files fail, and what they were to write never becomes durable."""
        self._sync_failures, self._sync_errno = times, number

    def fail_writes(self, times: int, number: int = errno.EIO) -> None:
        """The next writes fail, with any part of their data written."""
        self._write_failures, self._write_errno = times, number

    def flip(self, path: Path, offset: int, mask: int = 1) -> None:
        """Damage one byte of a file, on the disk and in the cache."""
        file = self._names[path]
        file.cached[offset] ^= mask
        file.durable[offset] ^= mask

    def contents(self, path: Path) -> bytes:
        """A file as a program sees it."""
        return bytes(self._names[path].cached)

    def paths(self) -> list[Path]:
        """All files as a program sees them, in order of name."""
        return sorted(self._names)

    # What the spool does to the disk.

    def make_directory(self, directory: Path) -> None:
        """See Files; folders need not be made here."""
        self._step()

    def names(self, directory: Path) -> list[str]:
        """See Files."""
        self._step()
        return [path.name for path in self._names if path.parent == directory]

    def lock(self, path: Path) -> Callable[[], None]:
        """See Files."""
        self._step()
        if path in self._locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable", str(path))
        self._locked.add(path)
        return lambda: self._locked.discard(path)

    def create(self, path: Path) -> int:
        """See Files."""
        self._step()
        if path in self._names:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        file = _File()
        self._rename_step(lambda names: names.__setitem__(path, file))
        return self._hand_out(file)

    def open(self, path: Path) -> int:
        """See Files."""
        self._step()
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self._hand_out(self._names[path])

    def size(self, handle: int) -> int:
        """See Files."""
        self._step()
        return len(self._file(handle).cached)

    def read(self, handle: int, length: int, offset: int) -> bytes:
        """See Files."""
        self._step()
        return bytes(self._file(handle).cached[offset : offset + length])

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """See Files."""
        file = self._file(handle)
        try:
            self._step()
        except DiskCrashError:
            self._put(file, data[: self._random.randint(0, len(data))], offset)
            self.torn_writes += 1
            raise
        if self._write_failures:
            self._write_failures -= 1
            self._put(file, data[: self._random.randint(0, len(data))], offset)
            raise OSError(self._write_errno, os.strerror(self._write_errno))
        growth = offset + len(data) - len(file.cached)
        missing = growth - max(0, self.free_bytes)
        if growth > 0 and missing > 0:
            self._put(file, data[: max(0, len(data) - missing)], offset)
            self.full_errors += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._put(file, data, offset)

    def sync(self, handle: int) -> None:
        """See Files."""
        file = self._file(handle)
        self._step()
        self.syncs += 1
        if self._sync_failures:
            self._sync_failures -= 1
            self.failed_syncs += 1
            file.pending.clear()
            raise OSError(self._sync_errno, os.strerror(self._sync_errno))
        for change in file.pending:
            _apply(file.durable, change)
        file.pending.clear()

    def truncate(self, handle: int, length: int) -> None:
        """See Files."""
        file = self._file(handle)
        self._step()
        change = _Change(length, None)
        _apply(file.cached, change)
        file.pending.append(change)

    def close(self, handle: int) -> None:
        """See Files."""
        if not self._crashed:
            self._file(handle)
        self._handles.pop(handle, None)

    def rename(self, old: Path, new: Path) -> None:
        """See Files."""
        self._step()
        if old not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(old))
        self._rename_step(lambda names: _move(names, old, new))

    def remove(self, path: Path) -> None:
        """See Files."""
        self._step()
        self._rename_step(lambda names: _drop(names, path))

    def sync_directory(self, directory: Path) -> None:
        """See Files."""
        self._step()
        for change in self._renames:
            change(self._durable_names)
        self._renames.clear()

    def _step(self) -> None:
        if self._crashed:
            raise DiskCrashError("the machine is down")
        self.operations += 1
        if self._crash_after is not None:
            self._crash_after -= 1
            if self._crash_after < 0:
                self._crashed = True
                raise DiskCrashError("the machine lost power")

    def _hand_out(self, file: _File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = file
        return self._next_handle

    def _file(self, handle: int) -> _File:
        if handle not in self._handles:
            if self._crashed:
                raise DiskCrashError("the machine is down")
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._handles[handle]

    def _rename_step(self, change: Callable[[dict[Path, _File]], None]) -> None:
        change(self._names)
        self._renames.append(change)

    def _put(self, file: _File, data: bytes, offset: int) -> None:
        change = _Change(offset, data)
        _apply(file.cached, change)
        file.pending.append(change)

    def _settle(self, file: _File) -> None:
        """Decide what became of the changes that were not synced: some first ones whole, perhaps one torn, the rest gone."""
        whole = self._random.randint(0, len(file.pending))
        for change in file.pending[:whole]:
            _apply(file.durable, change)
        if whole < len(file.pending):
            torn = file.pending[whole]
            if torn.data is not None:
                self.torn_writes += 1
                cut = self._random.randint(0, len(torn.data))
                # The length may have reached the disk before the data: then there are zeros.
                tail = bytes(len(torn.data) - cut) if self._random.random() < 0.3 else b""
                _apply(file.durable, _Change(torn.offset, torn.data[:cut] + tail))

    def _restart(self) -> None:
        self._names = dict(self._durable_names)
        self._renames.clear()
        for file in self._names.values():
            file.cached = bytearray(file.durable)
            file.pending = []
        self.kill()


def _apply(data: bytearray, change: _Change) -> None:
    if change.data is None:
        del data[change.offset :]
        return
    if len(data) < change.offset:
        data.extend(bytes(change.offset - len(data)))
    data[change.offset : change.offset + len(change.data)] = change.data


def _move(names: dict[Path, _File], old: Path, new: Path) -> None:
    if old in names:
        names[new] = names.pop(old)


def _drop(names: dict[Path, _File], path: Path) -> None:
    names.pop(path, None)
