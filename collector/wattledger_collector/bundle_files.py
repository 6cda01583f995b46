"""The files of a bundle, from a folder or a zip file, none read beyond a bound.

Judges no contents. Source of truth: the README's table of a bundle's files; `strict_zip.py` for the container.
"""

from pathlib import Path
from typing import Final, Protocol

from wattledger_collector.strict_zip import BYTES_MAX, ENTRIES_MAX, ZipReader

# The leaves of half a million servers on one day.
FILE_BYTES_MAX: Final = BYTES_MAX
# The index of 10,000 servers in a year has 370 MB; a larger text would take more memory than a verifier has.
JSON_BYTES_MAX: Final = 2**29


class Files(Protocol):
    """A bundle's files."""

    @property
    def names(self) -> list[str]:
        """All that is there."""

    def read(self, name: str) -> bytes:
        """One file's contents."""

    def is_damaged(self, name: str) -> bool:
        """Whether what holds the file says that it was changed."""


class Folder:
    """A bundle in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def names(self) -> list[str]:
        """All that is there; what is no plain file has a slash, so that it is in no manifest. Raises ValueError."""
        names = []
        for each in self._path.iterdir():
            names.append(each.name if each.is_file() and not each.is_symlink() else f"{each.name}/")
            if len(names) > ENTRIES_MAX:
                raise ValueError(f"the folder has more than {ENTRIES_MAX} files, which no bundle has")
        return names

    def read(self, name: str) -> bytes:
        """One file's contents. Raises OSError and ValueError; a link could lead to what never ends."""
        path = self._path / name
        if path.parent != self._path or path.is_symlink() or (path.exists() and not path.is_file()):
            raise ValueError(f"{name[:80]} is no plain file of the bundle")
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ValueError(f"{name[:80]} has more than {FILE_BYTES_MAX} bytes, which no file of a bundle has")
        return path.read_bytes()

    def is_damaged(self, name: str) -> bool:
        """A folder says nothing of its files."""
        return False


def open_files(path: Path) -> Files:
    """The files of the bundle that is there. Raises OSError and ZipError."""
    return Folder(path) if path.is_dir() else ZipReader(path)
