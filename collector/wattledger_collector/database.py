"""Opens the ledger's SQLite file: settings that make a commit durable, a check for damage, and migrations.

Knows no table but database_info. The source of truth for settings is https://www.sqlite.org/pragma.html.
"""

import os
import sqlite3
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from wattledger_collector import schema
from wattledger_collector.records import StoreError

# A commit of a full group takes tens of milliseconds; an operator's command waits for a few hundred of them at most.
BUSY_SECONDS_MAX: Final = 10.0

# Reading the whole file takes about 2 s/GiB. Above this only the tables that decide what is booked are checked at start.
QUICK_CHECK_BYTES_MAX: Final = 2**30

# 64 MiB of pages hold the rows being added to of about 100,000 hosts.
_CACHE_KIBIBYTES: Final = 65_536

# Pages (of 4 KiB) in the log before they are copied to the main file: a page that changes in each commit is copied once.
_CHECKPOINT_PAGES: Final = 8_192

# CPython keeps this many prepared statements; the hot writes use sixty.
_PREPARED_STATEMENTS_MAX: Final = 128

_SYNCHRONOUS_FULL: Final = 2
_DAY_SECONDS: Final = 86_400

# UPDATE ... FROM and RETURNING.
_SQLITE_VERSION_MIN: Final = (3, 35, 0)


def database_path(url_or_path: str | Path) -> Path:
    """The file that a configured value names: a path, or sqlite:///path. StoreError for anything that cannot be durable."""
    text = str(url_or_path)
    if text.startswith("sqlite:"):
        if not text.startswith("sqlite:///"):
            raise StoreError(f"database {text!r}: write sqlite:///path, or just the path")
        text = text.removeprefix("sqlite:///")
        if "?" in text:
            raise StoreError(f"database {text!r}: settings in the address are not accepted, since they can undo durability")
    elif "://" in text:
        raise StoreError(f"database {text!r}: this version keeps its ledger in SQLite; give the path of a file")
    if text in ("", ":memory:"):
        raise StoreError("a database in memory is lost with the process; give the path of a file")
    return Path(text)


def connect(path: Path, *, create: bool = False, read_only: bool = False) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return. Raises sqlite3.Error or StoreError."""
    mode = "ro" if read_only else "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS_MAX,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_PREPARED_STATEMENTS_MAX,
    )
    try:
        if not read_only:
            _make_durable(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_database(path: Path, *, create: bool, interval_seconds: int) -> sqlite3.Connection:
    """A checked, migrated database, made first if there is none and `create` says so. StoreError with a remedy."""
    if sqlite3.sqlite_version_info < _SQLITE_VERSION_MIN:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: use a Python built with 3.35 or newer")
    if interval_seconds <= 0 or _DAY_SECONDS % interval_seconds:
        raise StoreError(f"interval of {interval_seconds} s: a day of 86400 s must be a whole number of intervals")
    exists = path.exists()
    if not exists and not create:
        raise StoreError(f"no database at {path}: start the collector once, or give the path of an existing one")
    if not exists and not path.parent.is_dir():
        raise StoreError(f"no folder {path.parent} for the database: make it, owned by the collector's user")
    try:
        if exists:
            _refuse_others(path)
        connection = connect(path, create=create)
        try:
            if exists:
                # A collector, which may make its database, has the time; a report reads on, and stops at what is damaged.
                check_integrity(connection, path, whole=create)
            _migrate(connection, path, interval_seconds)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return connection


def make_engine(path: Path) -> Engine:
    """SQLAlchemy's engine over connections with the same settings; for queries and rare writes.

    A transaction that will write has the execution option `writes`.
    """
    engine = create_engine("sqlite://", creator=lambda: connect(path), poolclass=QueuePool, pool_size=4, max_overflow=12)

    # The driver begins none by itself, so that each transaction says what it is. One that first read and then asked to
    # write could find that another has written since, and fail.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def explain(error: BaseException, path: Path) -> StoreError:
    """The StoreError that tells an operator what a driver's error means and what to do."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return StoreError(f"the disk that holds {path} is full: free space there; agents keep their data meanwhile")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return StoreError(f"the database {path} is damaged ({error}): move it away and restore the latest backup")
    if name.startswith("SQLITE_READONLY") or (name.startswith("SQLITE_CANTOPEN") and path.exists()):
        return StoreError(
            f"cannot write the database {path} ({error}): give the collector's user write access to the file and its folder"
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError(f"cannot make a database in {path.parent} ({error}): give the collector's user write access to it")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(
            f"the database {path} was locked for {BUSY_SECONDS_MAX:.0f} s by another program: end it, or let it finish"
        )
    if name.startswith("SQLITE_IOERR"):
        return StoreError(
            f"reading or writing {path} failed ({error}): check the disk, then restore the latest backup if needed"
        )
    return StoreError(f"the database {path} cannot be used ({error}); restart the collector, and report this if it stays")


def check_integrity(connection: sqlite3.Connection, path: Path, *, whole: bool = True) -> None:
    """Raises StoreError if the file is damaged; a large file is read in part only, as is one not asked for as a whole."""
    if whole and path.stat().st_size <= QUICK_CHECK_BYTES_MAX:
        checks = ["PRAGMA quick_check(1)"]
    else:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name IN ('database_info', 'host', 'epoch_cursor')")
        checks = [f"PRAGMA quick_check({name})" for (name,) in tables.fetchall()]
    for check in checks:
        (result,) = connection.execute(check).fetchone()
        if result != "ok":
            what = " ".join(result.split())
            raise StoreError(f"the database {path} is damaged ({what}): move it away and restore the latest backup")


def _refuse_others(path: Path) -> None:
    """Raises StoreError for another program's or a later release's database, before any setting of ours is written to it."""
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=BUSY_SECONDS_MAX)) as look:
        _revision(look, path)


def _make_durable(connection: sqlite3.Connection, path: Path) -> None:
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    check_durability(connection, path)
    if journal != "wal":
        raise StoreError(f"the file system of {path} cannot keep a write-ahead log (got {journal!r}): use a local disk")


def check_durability(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StoreError if a commit on this connection could return before it is on the disk."""
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if synchronous < _SYNCHRONOUS_FULL:
        raise StoreError(
            f"the database {path} would acknowledge before data is on the disk (synchronous = {synchronous}, needs 2): "
            "use a Python whose SQLite honours PRAGMA synchronous"
        )


def _revision(connection: sqlite3.Connection, path: Path) -> str:
    """The schema's revision; empty for a new database. Raises StoreError for one that this release can't use."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "alembic_version" not in tables:
        if tables:
            raise StoreError(f"{path} is a database of another program: give Wattledger a file of its own")
        return ""
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    revision = str(row[0]) if row else ""
    if revision > schema.REVISION:
        raise StoreError(
            f"the database {path} was written by a newer Wattledger (schema {revision}, this one knows {schema.REVISION}): "
            "install that version, or restore a backup made before the upgrade"
        )
    return revision


def _migrate(connection: sqlite3.Connection, path: Path, interval_seconds: int) -> None:
    if _revision(connection, path) == schema.REVISION:
        return
    _upgrade(path, interval_seconds)


def _upgrade(path: Path, interval_seconds: int) -> None:
    # Imported here: it takes a third of a second, and a database that is up to date needs none of it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # In an alembic configuration a lone % starts an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    engine = make_engine(path)
    try:
        # One transaction over all steps: a crash in between leaves the database as it was. A second collector that starts at
        # the same moment waits here, and finds nothing left to do.
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.exec_driver_sql(
                "INSERT INTO database_info VALUES (1, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
                (uuid.uuid4().hex, interval_seconds, time.time_ns()),
            )
    finally:
        engine.dispose()
    if os.name == "posix":
        # Every joule is in this file; its figures are for the collector's user and group.
        path.chmod(0o640)
