"""Copies of the database: `backup` while collectors run, `restore` when none does.

A restored copy is older than what agents know: each host in it is withheld until its agent has sent what the copy lacks. It
is older than what was stated, too: the log of the ledger that it replaces is carried over, since a log can't go back.
Source of truth: https://www.sqlite.org/backup.html.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from wattledger_collector.database import check_integrity, connect, database_path, explain, open_database
from wattledger_collector.log_carrying import carry_log, is_ahead
from wattledger_collector.records import INTERVAL_SECONDS_DEFAULT, Host, StoreError

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


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    hosts: how many are withheld. carried: the numbers of the statements that the backup lacked and the ledger that was
    replaced had; they stay in the log. log_size: how many leaves the log has. is_log_unknown: what was replaced could not be
    read, so that it may have had a longer log.
    """

    hosts: int
    carried: tuple[int, ...]
    log_size: int
    is_log_unknown: bool


def restore(backup_path: Path, url_or_path: str | Path, *, force: bool = False, forget_statements: bool = False) -> Restored:
    """Put a backup in place of the database, with every host withheld, and with the log of statements as it was last.

    force: replace a database that exists. One in use is never replaced. forget_statements: also where its log has statements
    that the backup lacks and can't go on to. StoreError.
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
        with _sole_use(target) as old:
            carried, is_unknown = _carry(old, partial, forget_statements=forget_statements)
            size = _log_size(partial)
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
    return Restored(hosts, carried, size, is_unknown)


def _carry(old: sqlite3.Connection | None, partial: Path, *, forget_statements: bool) -> tuple[tuple[int, ...], bool]:
    """Carry the log of the ledger that is replaced over; the statements that were, and whether its log can't be read."""
    if old is None:
        return (), False
    with closing(sqlite3.connect(partial)) as new:
        try:
            if not is_ahead(old, new):
                return (), False
        except sqlite3.DatabaseError:
            return (), True
        is_older = _revision(new) != _revision(old)
    if is_older:
        # The log's tables may have come since.
        open_database(partial, create=False, interval_seconds=INTERVAL_SECONDS_DEFAULT).close()
    with closing(sqlite3.connect(partial)) as new:
        new.execute("PRAGMA journal_mode = DELETE")
        try:
            return carry_log(old, new), False
        except StoreError:
            if not forget_statements:
                raise
            return (), False


def _revision(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _log_size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_checkpoint'").fetchone():
            return 0
        return int(connection.execute("SELECT coalesce(max(size), 0) FROM log_checkpoint").fetchone()[0])


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
def _sole_use(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Hold the database to be replaced so that nobody else can open it meanwhile; StoreError if somebody has it open.

    None: there is none.
    """
    if not path.exists():
        yield None
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
        yield connection


def _put_in_place(partial: Path, target: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
