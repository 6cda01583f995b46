"""The agent's spool: what was metered, durable before anything of it is sent, and the state from which the agent goes on.

Holds no figure of its own: the newest valid record is where meter and numbering go on, whatever a crash, a full disk or a
damaged sector took. When room is short it first gives up acknowledged records, then resolution in time, then the oldest
records, whose energy the next ones bridge; an epoch's newest record is never given up. Needs from the disk what fsync(2)
promises.
"""

import contextlib
import errno
import logging
import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger_agent import spool_format as fmt
from wattledger_agent.counters import Instant
from wattledger_agent.spool_files import Files, OsFiles
from wattledger_agent.spool_room import FULL, Freed, Kept, Room
from wattledger_agent.spool_segments import ASIDE_SUFFIX, Segment, Segments

if TYPE_CHECKING:
    from wattledger_agent.meter import Cut

log = logging.getLogger("wattledger.agent")

QUOTA_BYTES_DEFAULT = 256 * 1024 * 1024  # At 2 kB each ten seconds: two weeks.
SEGMENT_BYTES_DEFAULT = 1024 * 1024
SEGMENTS_MIN = 8  # A quota of fewer segments could give up room in coarse steps only.

# A segment's header and a catalog's frame; only a record that begins a segment needs them.
PREAMBLE_BYTES_MAX = 1024

# A disk that fails this often in a row for one record is broken; the record's energy is in the next one.
WRITES_PER_RECORD_MAX = 3

# Segments dropped unsent for one record at most: if another program takes all room at once, more would be in vain.
DROPS_PER_RECORD_MAX = 2


class SpoolError(Exception):
    """The spool can't be used; the text says what happened, where, and what to do."""


class SpoolLockedError(SpoolError):
    """Another agent has the spool open; it may be one that is just ending."""


@dataclass(frozen=True, slots=True)
class Record:
    """One spooled payload, under the sequences from first to last (one, unless it was thinned).

    is_thinned: it may have fewer samples than when it was first written, and so other bytes.
    """

    first_sequence: int
    last_sequence: int
    payload: bytes
    catalog_hash: int
    is_thinned: bool = False


class Spool:
    """The durable queue of one epoch. Safe for the sampler's and the shipper's threads. Made by `open`."""

    def __init__(
        self,
        segments: Segments,
        files: Files,
        directory: Path,
        unlock: Callable[[], None],
        new_epoch: Callable[[], bytes],
        quota_bytes: int,
        header: fmt.Header,
    ) -> None:
        self._segments = segments
        self._files = files
        self._directory = directory
        self._unlock = unlock
        self._new_epoch = new_epoch
        self._room = Room(segments, files, directory, quota_bytes)
        self._header = header
        self._lock = threading.RLock()
        self._newest: Record | None = None
        self._before_newest = 0  # Last sequence before the newest record's.
        self._newest_catalog: tuple[int, bytes] = (0, b"")
        self._acknowledged = 0
        self._closed = False
        self.last_state: bytes | None = None
        self.recovered_sequence = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        machine_id: str,
        dmi_uuid: str,
        opening: Instant,
        new_epoch: Callable[[], bytes],
        quota_bytes: int = QUOTA_BYTES_DEFAULT,
        segment_bytes: int = SEGMENT_BYTES_DEFAULT,
        files: Files | None = None,
    ) -> "Spool":
        """Lock the folder and find what it holds, or begin a new epoch that opens at `opening`.

        new_epoch: gives 16 random bytes. A spool whose machine id or DMI UUID is another's is set aside, never sent.
        Raises SpoolError.
        """
        files = OsFiles() if files is None else files
        unlock = _lock(files, directory)
        try:
            segments = Segments(files, directory, min(segment_bytes, quota_bytes // SEGMENTS_MIN))
            segments.load()
            ours = fmt.Header(new_epoch(), opening, machine_id, dmi_uuid)
            header = _identify(segments, ours, directory)
            segments.keep_epoch(header.epoch)
            segments.resume()
            spool = cls(segments, files, directory, unlock, new_epoch, quota_bytes, header)
            spool._recover()
            spool._room.keep_reserve()
        except fmt.NewerVersionError as error:
            unlock()
            raise SpoolError(
                f"{directory}: {error}. Install the release of the agent that wrote it, or move the folder away."
            ) from error
        except OSError as error:
            unlock()
            raise _unusable(directory, error) from error
        return spool

    @property
    def epoch(self) -> bytes:
        """The epoch's id, 16 bytes."""
        return self._header.epoch

    @property
    def epoch_opening(self) -> Instant:
        """When the epoch began."""
        return self._header.opening

    @property
    def oldest_sequence(self) -> int:
        """Lowest sequence still held; next_sequence if there is none."""
        with self._lock:
            return self._segments.all[0].first if self._segments.all else self.next_sequence

    @property
    def next_sequence(self) -> int:
        """The sequence of the record to come; the first is 1."""
        newest = self._newest
        return newest.last_sequence + 1 if newest is not None else 1

    @property
    def acknowledged_sequence(self) -> int:
        """Highest sequence that the collector holds, as far as known; 0 if none."""
        return self._acknowledged

    @property
    def unacknowledged_records(self) -> int:
        """Records that wait for their acknowledgement."""
        return self._waiting()[0]

    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes of the records that wait for their acknowledgement."""
        return self._waiting()[1]

    @property
    def stored_bytes(self) -> int:
        """Bytes that the spool takes on the disk."""
        with self._lock:
            return self._room.stored_bytes

    @property
    def thinned_samples(self) -> int:
        """Samples that thinning took away since the start."""
        return self._room.thinned_samples

    @property
    def dropped_records(self) -> int:
        """Records given up unsent since the start."""
        return self._room.dropped_records

    def append(self, cut: "Cut") -> int:
        """Make a record durable and return its sequence.

        Raises SpoolError if the disk takes nothing more; what was metered then is part of the next record that succeeds.
        """
        with self._lock:
            if self._closed:
                raise SpoolError(f"{self._directory}: the spool is closed; open it again.")
            sequence = self.next_sequence
            record = fmt.encode_samples(
                self.epoch, sequence, sequence, self._acknowledged, cut.catalog_hash, cut.payload, cut.state
            )
            if len(record) > fmt.RECORD_BYTES_MAX:
                raise SpoolError(
                    f"{self._directory}: a record of {len(record)} bytes is longer than {fmt.RECORD_BYTES_MAX}; "
                    "meter fewer channels or flush more often."
                )
            entry = fmt.Entry(
                0, len(record), fmt.RecordType.SAMPLES, fmt.tag_of(self.epoch), sequence, sequence, 0, cut.catalog_hash
            )
            self._room.make(len(record) + len(cut.catalog) + PREAMBLE_BYTES_MAX, self._kept())
            self._write(record, entry, cut.catalog)
            self._before_newest = sequence - 1
            self._newest = Record(sequence, sequence, cut.payload, cut.catalog_hash)
            self._newest_catalog = (cut.catalog_hash, cut.catalog)
            self.last_state = cut.state
            return sequence

    def find(self, sequence: int) -> Record | None:
        """The record with the smallest last sequence that is `sequence` or more; None if all are below. Raises OSError."""
        with self._lock:
            newest = self._newest
            if newest is None or sequence > newest.last_sequence:
                return None
            if sequence > self._before_newest:
                return newest
            for segment in self._segments.all[self._segments.find(sequence) :]:
                entries = self._segments.entries(segment)
                for entry in entries[bisect_left(entries, sequence, key=lambda entry: entry.last_sequence) :]:
                    contents = self._segments.read(segment, entry)
                    if contents is not None:
                        return _record(entry, contents[0], segment)
            return newest

    def catalog(self, catalog_hash: int) -> bytes | None:
        """The catalog with this hash, serialised; None if it is lost. Raises OSError."""
        with self._lock:
            if self._newest_catalog[0] == catalog_hash:
                return self._newest_catalog[1]
            return self._segments.catalog(catalog_hash)

    def acknowledge(self, sequence: int) -> None:
        """The collector holds all up to `sequence`; one lower than before means that it was restored and needs the rest."""
        with self._lock:
            self._acknowledged = min(max(sequence, 0), self.next_sequence - 1)

    def renew(self, opening: Instant) -> None:
        """Begin a new epoch that opens at `opening`; what the old one still held is given up, its sequences are taken.

        Raises SpoolError.
        """
        with self._lock:
            # The newest first: a crash half way leaves a spool that is older still, and found out just the same.
            self._begin_anew(opening, list(reversed(self._segments.all)), self._segments.remove)

    def set_aside(self, opening: Instant) -> None:
        """Begin a new epoch that opens at `opening`; what the old one held stays in the folder until its room is needed.

        For records whose state this agent can't go on from: they may still be delivered by one that can. Raises SpoolError.
        """
        with self._lock:
            waiting = self.unacknowledged_records
            self._begin_anew(opening, list(self._segments.all), self._segments.set_aside)
        log.error(
            "spool: %d records that no collector has acknowledged are set aside as %s/*%s, within the quota. To deliver "
            "them, move them to `spool` in an empty folder, without `.aside`, and run there, as `state_dir`, the release of "
            "the agent that wrote them; else remove them",
            waiting,
            self._directory,
            ASIDE_SUFFIX,
        )

    def close(self) -> None:
        """Let go of files and lock; all that was appended is durable already."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._segments.close()
                self._unlock()

    def _begin_anew(self, opening: Instant, segments: list[Segment], take_away: Callable[[Segment], None]) -> None:
        old = self._header
        self._segments.close()
        try:
            for segment in segments:
                take_away(segment)
            self._files.sync_directory(self._directory)
        except OSError as error:
            raise _unusable(self._directory, error) from error
        self._newest, self._before_newest, self._newest_catalog = None, 0, (0, b"")
        self._acknowledged, self.last_state, self.recovered_sequence = 0, None, 0
        # Last: the shipper's thread waits for another epoch, and then takes its numbers.
        self._header = fmt.Header(self._new_epoch(), opening, old.machine_id, old.dmi_uuid)

    def _recover(self) -> None:
        """Take numbering, state and acknowledgement from the newest valid record."""
        if not self._segments.all:
            return
        segment = self._segments.all[-1]
        newest = self._segments.entries(segment)[-1]
        contents = self._segments.read(segment, newest)
        if contents is None:
            raise OSError(errno.EIO, f"{segment.name} changed while it was read")
        self._newest = _record(newest, contents[0], segment)
        self._before_newest = newest.first_sequence - 1
        self.last_state = contents[1]
        self.recovered_sequence = newest.last_sequence
        self._acknowledged = min(newest.acknowledged_sequence, newest.last_sequence)

    def _write(self, record: bytes, entry: fmt.Entry, catalog: bytes) -> None:
        failures = drops = 0
        while True:
            try:
                self._segments.append(record, entry, self._header, catalog)
            except OSError as error:
                # Never a second fsync on a file whose fsync failed: it may report success for data that is gone.
                self._segments.seal()
                if error.errno in FULL:
                    freed = self._room.free(self._kept(), may_drop=drops < DROPS_PER_RECORD_MAX)
                    drops += freed is Freed.DROPPED
                    if freed is not Freed.NOTHING:
                        continue
                    raise SpoolError(
                        f"{self._directory}: the disk is full ({error}), and the spool has no more room to give up. "
                        "Free disk space; metering goes on, and what was counted is kept for the next record."
                    ) from error
                failures += 1
                log.warning("spool: writing to %s failed (%s); going on in a new segment", self._directory, error)
                if failures == WRITES_PER_RECORD_MAX:
                    raise _unusable(self._directory, error) from error
            else:
                return

    def _kept(self) -> Kept:
        return Kept(self._header, self._acknowledged, self.next_sequence - 1)

    def _waiting(self) -> tuple[int, int]:
        """Records and bytes that are not acknowledged; all of a segment's where the disk doesn't tell which."""
        with self._lock:
            records = size = 0
            acknowledged = self._acknowledged
            for segment in self._segments.all:
                if segment.last <= acknowledged:
                    continue
                if segment.first <= acknowledged:
                    # These figures are for people: a disk that fails must not end the sampler, which asks for them.
                    with contextlib.suppress(OSError):
                        entries = self._segments.entries(segment)
                        waiting = entries[bisect_left(entries, acknowledged + 1, key=lambda entry: entry.last_sequence) :]
                        records += len(waiting)
                        size += sum(entry.length for entry in waiting)
                        continue
                records += segment.records
                size += segment.size
            return records, size


def _record(entry: fmt.Entry, payload: bytes, segment: Segment) -> Record:
    return Record(entry.first_sequence, entry.last_sequence, payload, entry.catalog_hash, segment.thinned)


_LOCK = "lock"


def _lock(files: Files, directory: Path) -> Callable[[], None]:
    try:
        files.make_directory(directory)
        files.sync_directory(directory.parent)
        return files.lock(directory / _LOCK)
    except BlockingIOError as error:
        raise SpoolLockedError(
            f"{directory} is in use by another agent. Stop that one, or give this one a state folder of its own."
        ) from error
    except OSError as error:
        raise _unusable(directory, error) from error


def _identify(segments: Segments, ours: fmt.Header, directory: Path) -> fmt.Header:
    """The header to go on with: the newest segment's, unless there is none or it is another machine's."""
    found = next((segment.header for segment in reversed(segments.all) if segment.header is not None), None)
    if found is None:
        return ours
    if _differ(found.machine_id, ours.machine_id) or _differ(found.dmi_uuid, ours.dmi_uuid):
        log.warning(
            "spool: %s was written on another machine (machine id %s, DMI UUID %s); it is set aside and a new epoch begins",
            directory,
            found.machine_id or "unknown",
            found.dmi_uuid or "unknown",
        )
        return ours
    # An unprivileged agent can't read the DMI UUID; what a privileged one knew of this machine stays known.
    return fmt.Header(found.epoch, found.opening, ours.machine_id or found.machine_id, ours.dmi_uuid or found.dmi_uuid)


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and one.casefold() != other.casefold()


def _unusable(directory: Path, error: OSError) -> SpoolError:
    remedy = "Check the disk and the system's log."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "Let the agent's user write to it, or set `state_dir` to a folder that it can write to."
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        remedy = "Move away the file that is in the folder's place, or set `state_dir` to another folder."
    elif error.errno in FULL:
        remedy = "Free disk space."
    return SpoolError(f"{directory}: the spool can't be used: {error}. {remedy}")
