"""Zip files in one form only: the same files give the same bytes, and a file with any other byte is refused.

Any program can unpack them. Source of truth: PKWARE's APPNOTE for the layout; entries are stored as they are, one after the
other in order of names, without dates, comments or room in between. Reading builds the bytes around the contents anew and
compares them, so that nothing can hide there.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Final

# Beyond these the format needs 64-bit fields; a folder has no such limit.
BYTES_MAX: Final = 2**32 - 2**24
ENTRIES_MAX: Final = 65_000

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
# Version 2.0, names in UTF-8, stored, midnight of 1980-01-01.
_FIXED: Final = (20, 0x0800, 0, 0, 0x21)
_COPY_BYTES: Final = 1 << 20


class ZipError(ValueError):
    """A zip file is not in its one form, or can't be; the text says where."""


class ZipWriter:
    """Writes entries in order of their names, then the directory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._entries: list[tuple[bytes, int, int, int]] = []
        self._at = 0

    def add(self, name: str, data: bytes) -> None:
        """Add a file. Raises ZipError where it does not fit or is not next in order."""
        encoded = name.encode()
        if self._entries and encoded <= self._entries[-1][0]:
            raise ZipError(f"{name} comes after {self._entries[-1][0].decode()}: entries are in order of their names")
        if self._at + len(data) > BYTES_MAX or len(self._entries) >= ENTRIES_MAX:
            raise ZipError("a zip file holds at most 4 GiB: write to a folder instead")
        entry = (encoded, zlib.crc32(data), len(data), self._at)
        header = _local(entry)
        self._file.write(header)
        self._file.write(data)
        self._entries.append(entry)
        self._at += len(header) + len(data)

    def close(self) -> None:
        """Write the directory."""
        self._file.write(_directory(self._entries, self._at))


class ZipReader:
    """Reads a file that ZipWriter wrote. Raises ZipError for any other."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise ZipError(f"{path} is no file and no folder")
        self._path = path
        self._entries = {}
        with path.open("rb") as file:
            size = path.stat().st_size
            entries = list(islice(_entries(file, size), ENTRIES_MAX + 1))
            if len(entries) > ENTRIES_MAX:
                raise ZipError(f"{path} has more than {ENTRIES_MAX} files, which no bundle has")
            at = entries[-1][3] + len(_local(entries[-1])) + entries[-1][2] if entries else 0
            file.seek(at)
            directory = _directory(entries, at)
            # No more than that: the rest of a file that is no bundle may be larger than memory.
            if file.read(len(directory) + 1) != directory:
                raise ZipError(f"the directory of {path} is not what its contents say: it was changed")
        for entry in entries:
            self._entries[entry[0].decode()] = entry

    @property
    def names(self) -> list[str]:
        """The names of all files."""
        return list(self._entries)

    def read(self, name: str) -> bytes:
        """A file's contents, as they are. Raises ZipError if they are not those that were put in."""
        entry = self._entries[name]
        with self._path.open("rb") as file:
            file.seek(entry[3] + len(_local(entry)))
            return file.read(entry[2])

    def is_damaged(self, name: str) -> bool:
        """Whether the check sum beside a file is not that of its contents."""
        return zlib.crc32(self.read(name)) != self._entries[name][1]


def _entries(file: IO[bytes], size: int) -> Iterator[tuple[bytes, int, int, int]]:
    at = 0
    last = b""
    while True:
        file.seek(at)
        header = file.read(_LOCAL.size)
        if header[:4] != b"PK\x03\x04":
            return
        if len(header) < _LOCAL.size:
            raise ZipError(f"the file ends within a header at byte {at}")
        *_, crc, length, _, name_length, _ = _LOCAL.unpack(header)
        name = file.read(name_length)
        entry = (name, crc, length, at)
        if header + name != _local(entry) or name <= last or at + length > size:
            raise ZipError(f"the header at byte {at} is not in its one form: it was changed")
        try:
            name.decode()
        except UnicodeDecodeError as error:
            raise ZipError(f"the name at byte {at} is not UTF-8: it was changed") from error
        yield entry
        last = name
        at += len(header) + len(name) + length


def _local(entry: tuple[bytes, int, int, int]) -> bytes:
    name, crc, size, _ = entry
    return _LOCAL.pack(b"PK\x03\x04", *_FIXED, crc, size, size, len(name), 0) + name


def _directory(entries: list[tuple[bytes, int, int, int]], at: int) -> bytes:
    rows = [
        _CENTRAL.pack(b"PK\x01\x02", 20, *_FIXED, crc, size, size, len(name), 0, 0, 0, 0, 0, offset) + name
        for name, crc, size, offset in entries
    ]
    body = b"".join(rows)
    return body + _END.pack(b"PK\x05\x06", 0, 0, len(rows), len(rows), len(body), at, 0)
