"""Copies of the database: `backup` while collectors run, `restore` when none does.

A restored copy is older than what agents know: each host in it is withheld until its agent has sent what the copy lacks.
Source of truth: https://www.sqlite.org/backup.html.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from wattledger_collector.database import check_integrity, connect, database_path, explain
from wattledger_collector.records import Host, StoreError

# A second copy may be under way beside the target; the name says whose it is.
_PARTIAL: Final = ".partial"


def backup(url_or_path: str | Path, target: Path) -> int:
    """Copy the database as it is at one instant, checked and on the disk, to `target`; returns its bytes.

    Collectors may run meanwhile. An older backup of that name is replaced only once the new one is whole. StoreError.
    """
    source = database_path(url_or_path)
    if not source.exists():
        raise StoreError(f"no database at {source}: give the path of the collector's database")
    if target.exists() and target.samefile(source):
        raise StoreError(f"{target} is the database itself: name another file for the backup")
    _check_folder(target)
    partial = target.with_name(target.name + _PARTIAL)
    try:
        _copy(source, partial)
        with closing(sqlite3.connect(partial)) as connection:
            check_integrity(connection, partial)
        _put_in_place(partial, target)
    except sqlite3.Error as error:
        raise _explain(error, source, target) from error
    except OSError as error:
        raise StoreError(
            f"cannot write the backup {target} ({error.strerror}): check the folder and its free space"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def restore(backup_path: Path, url_or_path: str | Path, *, force: bool = False) -> int:
    """Put a backup in place of the database, with every host withheld; returns how many hosts there are.

    force: replace a database that exists. One in use is never replaced. StoreError.
    """
    target = database_path(url_or_path)
    if not backup_path.is_file():
        raise StoreError(f"no backup at {backup_path}: give the path of a file made by `backup`")
    if target.exists() and target.samefile(backup_path):
        raise StoreError(f"{target} is the backup itself: name the place of the collector's database")
    if target.exists() and not force:
        raise StoreError(f"there is a database at {target}: move it away, or replace it with --force")
    _check_folder(target)
    partial = target.with_name(target.name + _PARTIAL)
    try:
        _copy(backup_path, partial)
        with closing(sqlite3.connect(partial)) as connection:
            check_integrity(connection, partial)
            hosts = _withhold_all(connection, backup_path)
        with _sole_use(target):
            for suffix in ("-wal", "-shm"):
                # What belongs to the database that is replaced would be played into the new one.
                target.with_name(target.name + suffix).unlink(missing_ok=True)
            _put_in_place(partial, target)
    except sqlite3.Error as error:
        raise _explain(error, backup_path, target) from error
    except OSError as error:
        raise StoreError(f"cannot restore to {target} ({error.strerror}): check the folder and its free space") from error
    finally:
        partial.unlink(missing_ok=True)
    return hosts


def _check_folder(target: Path) -> None:
    if not target.parent.is_dir():
        raise StoreError(f"no folder {target.parent}: make it, writable for this user")


def _explain(error: sqlite3.Error, source: Path, target: Path) -> StoreError:
    """Only the source can be damaged, and only the target can fail to be written."""
    is_of_source = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))
    return explain(error, source if is_of_source else target)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(connect(source, read_only=True)) as reader, closing(sqlite3.connect(target)) as writer:
        # All pages in one step, so that the copy is of one instant; writers go on beside it.
        reader.backup(writer)
        # One file without a log beside it.
        writer.execute("PRAGMA journal_mode = DELETE")
    target.chmod(0o640)


def _withhold_all(connection: sqlite3.Connection, backup_path: Path) -> int:
    try:
        rows = connection.execute("SELECT id, packed FROM host").fetchall()
        hosts = [(key, msgspec.msgpack.decode(packed, type=Host)) for key, packed in rows]
    except (sqlite3.OperationalError, msgspec.DecodeError, TypeError) as error:
        raise StoreError(f"{backup_path} is no backup of a Wattledger database ({error}): give the right file") from error
    with connection:
        for key, host in hosts:
            withheld = msgspec.structs.replace(host, version=host.version + 1, withheld=True, withheld_until={})
            connection.execute("UPDATE host SET packed = ? WHERE id = ?", (msgspec.msgpack.encode(withheld), key))
    return len(rows)


@contextmanager
def _sole_use(path: Path) -> Iterator[None]:
    """Hold the database to be replaced so that nobody else can open it meanwhile; StoreError if somebody has it open."""
    if not path.exists():
        yield
        return
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            # Leaving the write-ahead log needs to be alone with the file.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            # A file that is no database any more is what a restore is for.
            if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreError(f"the database {path} is in use: stop the collector first") from error
        yield


def _put_in_place(partial: Path, target: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
