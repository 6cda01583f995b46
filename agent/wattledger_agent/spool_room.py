"""What the spool gives up when room is short, and in which order.

Writes no new record (spool.py) and knows no encoding (spool_format.py). First what was set aside, then what is acknowledged,
then resolution in time, then the oldest records; never the newest record, for it holds the state to go on from.
"""

import contextlib
import errno
import logging
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from wattledger_agent import spool_format as fmt
from wattledger_agent.spool_files import Files
from wattledger_agent.spool_segments import Segment, Segments
from wattledger_agent.spool_thin import Piece, Thinner

log = logging.getLogger("wattledger.agent")

# Given back when a full disk must be thinned: a thinned segment has to be written before the thick one goes.
RESERVE_BYTES = 64 * 1024

# What a full disk, quota or file size limit says.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_RESERVE = "reserve"


class Freed(Enum):
    """What was given up."""

    NOTHING = 0
    SOMETHING = 1
    DROPPED = 2  # Records that were not acknowledged.


@dataclass(frozen=True, slots=True)
class Kept:
    """What bounds giving up: the epoch's header, the highest acknowledged and the newest sequence."""

    header: fmt.Header
    acknowledged: int
    newest: int


class Room:
    """Keeps the segments within a quota, and finds room on a full disk. Not safe for two threads; the spool locks.

    thinned_samples, dropped_records: given up since the start.
    """

    def __init__(self, segments: Segments, files: Files, directory: Path, quota_bytes: int) -> None:
        self._segments = segments
        self._files = files
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._reserve_bytes = 0
        self.thinned_samples = 0
        self.dropped_records = 0

    @property
    def stored_bytes(self) -> int:
        """Bytes that segments, what was set aside and the reserve take."""
        held = sum(segment.size for segment in self._segments.all)
        return held + sum(self._segments.aside.values()) + self._reserve_bytes

    def make(self, length: int, kept: Kept) -> None:
        """Give up what must go so that `length` more bytes are within the quota."""
        while self.stored_bytes + length > self._quota_bytes:
            if self.free(kept, may_drop=True) is Freed.NOTHING:
                return  # Only the segment under way is left.

    def free(self, kept: Kept, *, may_drop: bool) -> Freed:
        """Give up the least valuable that there is."""
        for give_up in (self._remove_aside, self._remove_acknowledged, self._thin_oldest):
            with contextlib.suppress(OSError):
                if give_up(kept):
                    return Freed.SOMETHING
        with contextlib.suppress(OSError):
            if may_drop and self._drop_oldest():
                return Freed.DROPPED
        return Freed.NOTHING

    def keep_reserve(self) -> None:
        """Take the reserve's room; without it a full disk can only be dropped from, not thinned."""
        path = self._directory / _RESERVE
        if self._reserve_bytes:
            return
        try:
            self._files.remove(path)
            handle = self._files.create(path)
            try:
                self._files.write(handle, b"\xa5" * RESERVE_BYTES, 0)
                self._files.sync(handle)
            finally:
                self._files.close(handle)
            self._reserve_bytes = RESERVE_BYTES
        except OSError:
            with contextlib.suppress(OSError):
                self._files.remove(path)

    def _remove_aside(self, kept: Kept) -> bool:
        return self._segments.remove_aside()

    def _remove_acknowledged(self, kept: Kept) -> bool:
        segments = self._segments.all
        if len(segments) < 2 or segments[0].last > kept.acknowledged:
            return False
        self._segments.remove(segments[0])
        return True

    def _drop_oldest(self) -> bool:
        segments = self._segments.all
        if len(segments) < 2:
            return False  # The epoch's newest record is in it.
        log.warning("spool: no room; dropped sequences %d to %d unsent", segments[0].first, segments[0].last)
        self.dropped_records += segments[0].records
        self._segments.remove(segments[0])
        return True

    def _thin_oldest(self, kept: Kept) -> bool:
        for segment in self._segments.all:
            if not segment.thinned and not self._segments.is_active(segment) and self._thin(segment, kept):
                return True
        return False

    def _thin(self, segment: Segment, kept: Kept) -> bool:
        data, taken = self._thinned(segment, kept)
        if not 0 < len(data) < segment.size:
            segment.thinned = True  # One level, one attempt.
            return False
        try:
            self._segments.replace(segment, data)
        except OSError as error:
            if error.errno not in FULL or not self._reserve_bytes:
                raise
            self._files.remove(self._directory / _RESERVE)
            self._reserve_bytes = 0
            self._segments.replace(segment, data)
        self.thinned_samples += taken
        self.keep_reserve()
        return True

    def _thinned(self, segment: Segment, kept: Kept) -> tuple[bytes, int]:
        """The segment's contents with fewer samples, without what is acknowledged, and how many samples that takes away.

        Empty if nothing in it can be read.
        """
        header = replace(kept.header, thinned=True)
        thinner = Thinner()
        catalogs: set[int] = set()
        for entry in self._segments.entries(segment):
            contents = self._segments.read(segment, entry)
            if contents is None or (entry.last_sequence <= kept.acknowledged and entry.last_sequence != kept.newest):
                continue
            catalogs.add(entry.catalog_hash)
            thinner.add(
                Piece(entry.first_sequence, entry.last_sequence, entry.catalog_hash, *contents),
                keep=entry.last_sequence == kept.newest,
            )
        parts = [fmt.encode_header(header)]
        for catalog_hash in sorted(catalogs):
            catalog = self._segments.catalog(catalog_hash)
            if catalog is not None:
                parts.append(fmt.encode_catalog(header.epoch, catalog_hash, catalog))
        pieces = thinner.finish()
        for piece in pieces:
            parts.append(
                fmt.encode_samples(
                    header.epoch, piece.first, piece.last, kept.acknowledged, piece.catalog_hash, piece.payload, piece.state
                )
            )
        return b"".join(parts) if pieces else b"", thinner.taken
