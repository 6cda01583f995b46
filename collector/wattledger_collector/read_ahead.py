"""Reads parts of the database ahead of who needs them, by threads, so that a cold disk is asked for many pages at a time.

Returns nothing and decides nothing: what is read stays in the system's page cache, and who needs it reads it again, from one
state of the database. Roll-ups of a year lie between the rows of energy that came with them, some twenty thousand pages
apart; a disk in a network that answers one read in milliseconds answers several in the same time.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Final

# Reads at a time. A network disk answers this many several times as fast as one; more would take time from who reports.
_READERS: Final = 8

# Kibibytes of pages that a reader keeps; it needs none of them twice.
_CACHE_KIBIBYTES: Final = 256

# What is read at a time, so that the first parts are there first and an end is not waited for.
_PART_SECONDS: Final = 86_400

# Shorter periods are read at once by who needs them. Longer ones than 20 years are "all of time", most of it empty.
_FROM_SECONDS: Final = 7 * _PART_SECONDS
_TO_SECONDS: Final = 7_320 * _PART_SECONDS

_Part = tuple[str, int, int]


@contextmanager
def reading_ahead(
    open_connection: Callable[[], sqlite3.Connection],
    queries: Sequence[str],
    from_seconds: int,
    to_seconds: int,
    start: Callable[[threading.Thread], None] = threading.Thread.start,
) -> Iterator[None]:
    """Read with some queries, one after the other, while the caller's block runs and not after it.

    queries: each reads the rows of a part, whose ends in seconds are `:from_seconds` and `:to_seconds`: one that reaches
    every page of them and returns next to nothing. Errors are left to the caller's own reading.
    """
    if not _FROM_SECONDS <= to_seconds - from_seconds <= _TO_SECONDS:
        yield
        return
    parts: SimpleQueue[_Part] = SimpleQueue()
    for query in queries:
        for begin in range(from_seconds, to_seconds, _PART_SECONDS):
            parts.put((query, begin, min(begin + _PART_SECONDS, to_seconds)))
    ended = threading.Event()
    readers: list[threading.Thread] = []
    try:
        # Where the system gives no further thread, those that there are do.
        with suppress(RuntimeError):
            for number in range(_READERS):
                reader = threading.Thread(target=_read, args=(open_connection, parts, ended), name=f"ahead-{number}")
                start(reader)
                readers.append(reader)
        yield
    finally:
        ended.set()
        for reader in readers:
            reader.join()


def _read(open_connection: Callable[[], sqlite3.Connection], parts: "SimpleQueue[_Part]", ended: threading.Event) -> None:
    with suppress(sqlite3.Error, Empty), closing(open_connection()) as connection:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        while not ended.is_set():
            query, begin, end = parts.get_nowait()
            connection.execute(query, {"from_seconds": begin, "to_seconds": end}).fetchall()
