"""The spool's segment files: found, read, written to, replaced and removed.

Knows no quota and no acknowledgement (spool.py) and not how a record looks (spool_format.py). The folder holds
`<serial>.segment` files; a higher serial is newer, and where two hold the same sequence the newer is believed.
"""

import contextlib
import errno
import logging
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from wattledger_agent import spool_format as fmt
from wattledger_agent.spool_files import Files

log = logging.getLogger("wattledger.agent")

SUFFIX = ".segment"
# A spool that is not this host's, or not of this epoch: kept as evidence until its room is needed.
ASIDE_SUFFIX = ".segment.aside"
_NEW_SUFFIX = ".segment.new"

# What a disk loses at once; unreadable stretches are given up in pieces of this size.
_SECTOR_BYTES = 4096


@dataclass(slots=True)
class Segment:
    """One file. first and last: its sequences; what it holds beyond `last` a newer segment holds as well."""

    name: str
    serial: int
    size: int
    header: fmt.Header | None
    first: int
    last: int
    records: int
    thinned: bool
    damages: int
    end: int
    catalogs: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Open:
    """The segment that is being written to, or the one that was read last, with its table of contents."""

    segment: Segment
    handle: int
    entries: list[fmt.Entry]


class Segments:
    """The files of one folder. Not safe for two threads; the spool locks."""

    def __init__(self, files: Files, directory: Path, segment_bytes: int) -> None:
        self._files = files
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._active: _Open | None = None
        self._read: _Open | None = None
        self._next_serial = 1
        self.all: list[Segment] = []
        self.aside: dict[str, int] = {}  # Name to size.

    def load(self) -> None:
        """Find and read through all segments. Raises OSError, NewerVersionError."""
        for name in sorted(self._files.names(self._directory)):
            if name.endswith(_NEW_SUFFIX):
                self._files.remove(self._directory / name)
            elif name.endswith(ASIDE_SUFFIX):
                self.aside[name] = self._size_of(name)
            elif name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal():
                segment = self._load_one(name)
                self._next_serial = max(self._next_serial, segment.serial + 1)
                if segment.records:
                    self.all.append(segment)
                else:
                    self._files.remove(self._directory / name)
        self.all.sort(key=lambda segment: segment.serial)

    def keep_epoch(self, epoch: bytes) -> None:
        """Set aside what is not of this epoch, and believe the newer of two segments with the same sequences."""
        tag = fmt.tag_of(epoch)
        kept: list[Segment] = []
        for segment in list(self.all):
            if not self._is_of(segment, epoch, tag):
                self.set_aside(segment)
                continue
            while kept and kept[-1].last >= segment.first:
                kept[-1].last = segment.first - 1
                if kept[-1].last < kept[-1].first:
                    self.set_aside(kept.pop())
            kept.append(segment)

    def resume(self) -> None:
        """Go on writing to the newest segment, its torn tail cut off, unless it is damaged further in."""
        newest = self.all[-1] if self.all else None
        if newest is None or newest.damages or newest.thinned or newest.header is None:
            return
        try:
            handle = self._files.open(self._directory / newest.name)
        except OSError:
            return  # A new segment will do.
        try:
            if newest.end < newest.size:
                log.warning("spool: cut %d torn bytes off %s", newest.size - newest.end, newest.name)
                self._files.truncate(handle, newest.end)
                self._files.sync(handle)
                newest.size = newest.end
            self._active = _Open(newest, handle, self._samples(newest, self._scan(handle).entries))
        except OSError:
            self._files.close(handle)

    def entries(self, segment: Segment) -> list[fmt.Entry]:
        """Where the segment's sample records lie, in order of sequence. The last one read stays in memory, no more."""
        if self._active is not None and self._active.segment is segment:
            return self._active.entries
        try:
            return self._reading(segment).entries
        except FileNotFoundError:
            log.warning("spool: %s is gone; its records are lost", segment.name)
            return []

    def read(self, segment: Segment, entry: fmt.Entry) -> tuple[bytes, bytes] | None:
        """Payload and state of one record; None if it is damaged by now. Raises OSError."""
        if self._active is not None and self._active.segment is segment:
            handle = self._active.handle
        else:
            handle = self._reading(segment).handle
        try:
            return fmt.decode_contents(self._files.read(handle, entry.length, entry.offset))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return None

    def catalog(self, catalog_hash: int) -> bytes | None:
        """The newest valid copy of a catalog; None if there is none. Raises OSError."""
        for segment in reversed(self.all):
            if catalog_hash in segment.catalogs:
                try:
                    opened = self._active if self._active is not None and self.is_active(segment) else self._reading(segment)
                except FileNotFoundError:
                    continue  # Someone took it away; every segment has the catalogs of its own records.
                for entry in self._scan(opened.handle).entries:
                    if entry.type == fmt.RecordType.CATALOG and entry.catalog_hash == catalog_hash:
                        contents = self.read(segment, entry)
                        if contents is not None:
                            return contents[0]
        return None

    def find(self, sequence: int) -> int:
        """Index in `all` of the first segment whose last sequence is `sequence` or more."""
        return bisect_left(self.all, sequence, key=lambda segment: segment.last)

    def append(self, record: bytes, entry: fmt.Entry, header: fmt.Header, catalog: bytes) -> None:
        """Write a record of samples, its catalog before it where the segment lacks it; durable on return.

        entry: the record's description; its offset is set here. Raises OSError: then call `seal`, whatever the error, since
        nothing is known of what was written.
        """
        if self._active is not None and self._active.segment.size + len(record) > self._segment_bytes:
            self.seal()
        catalog_hash = entry.catalog_hash
        active = self._active if self._active is not None else self._create()
        segment = active.segment
        preamble = b"" if segment.size else fmt.encode_header(header)
        if catalog_hash not in segment.catalogs:
            preamble += fmt.encode_catalog(header.epoch, catalog_hash, catalog)
        self._files.write(active.handle, preamble + record, segment.size)
        self._files.sync(active.handle)
        if not segment.size:
            self._files.sync_directory(self._directory)
            segment.header, segment.first = header, entry.first_sequence
            self.all.append(segment)
        active.entries.append(_moved(entry, segment.size + len(preamble)))
        segment.size += len(preamble) + len(record)
        segment.end = segment.size
        segment.last = entry.last_sequence
        segment.records += 1
        segment.catalogs.add(catalog_hash)

    def seal(self) -> None:
        """Write no more to the segment under way; the next record begins a new one. Never raises.

        What an unfinished write left behind is cut off, to give its room back and so that it is not read as a record.
        """
        if self._active is None:
            return
        active, self._active = self._active, None
        with contextlib.suppress(OSError):
            if self._files.size(active.handle) > active.segment.size:
                self._files.truncate(active.handle, active.segment.size)
        with contextlib.suppress(OSError):
            self._files.close(active.handle)
        if not active.segment.records:
            with contextlib.suppress(OSError):
                self._files.remove(self._directory / active.segment.name)

    def is_active(self, segment: Segment) -> bool:
        """Whether the segment is being written to."""
        return self._active is not None and self._active.segment is segment

    def replace(self, segment: Segment, data: bytes) -> None:
        """Put other contents in a sealed segment's place, in one step. Raises OSError; then it is as it was."""
        new = self._directory / (segment.name.removesuffix(SUFFIX) + _NEW_SUFFIX)
        try:
            handle = self._files.create(new)
            try:
                self._files.write(handle, data, 0)
                self._files.sync(handle)
            finally:
                self._files.close(handle)
            self._files.rename(new, self._directory / segment.name)
        except OSError:
            with contextlib.suppress(OSError):
                self._files.remove(new)
            raise
        self._forget(segment)
        with contextlib.suppress(OSError):
            self._files.sync_directory(self._directory)  # Were the name lost, the old contents would be back: just as good.
        found = fmt.scan(data)
        segment.size = segment.end = len(data)
        segment.header, segment.thinned, segment.damages = found.header, True, 0
        segment.catalogs = {entry.catalog_hash for entry in found.entries if entry.type == fmt.RecordType.CATALOG}
        samples = self._samples(segment, found.entries)
        segment.records, segment.first, segment.last = len(samples), samples[0].first_sequence, samples[-1].last_sequence

    def remove(self, segment: Segment) -> None:
        """Take a sealed segment away. Raises OSError."""
        self._forget(segment)
        self._files.remove(self._directory / segment.name)
        self.all.remove(segment)

    def set_aside(self, segment: Segment) -> None:
        """Rename a segment so that it is never read again. Raises OSError."""
        self._forget(segment)
        name = segment.name.removesuffix(SUFFIX) + ASIDE_SUFFIX
        self._files.rename(self._directory / segment.name, self._directory / name)
        self.aside[name] = segment.size
        self.all.remove(segment)

    def remove_aside(self) -> bool:
        """Take away all that was set aside; whether there was any. Raises OSError."""
        found = bool(self.aside)
        for name in list(self.aside):
            self._files.remove(self._directory / name)
            del self.aside[name]
        return found

    def close(self) -> None:
        """Let go of all files."""
        self.seal()
        self._forget(None)

    def _create(self) -> _Open:
        serial = self._next_serial
        self._next_serial += 1  # Also after an error: a name is never used twice.
        name = f"{serial:012d}{SUFFIX}"
        handle = self._files.create(self._directory / name)
        self._active = _Open(Segment(name, serial, 0, None, 0, 0, 0, False, 0, 0), handle, [])
        return self._active

    def _load_one(self, name: str) -> Segment:
        handle = self._files.open(self._directory / name)
        try:
            size, found = self._files.size(handle), self._scan(handle)
        finally:
            self._files.close(handle)
        header = found.header
        segment = Segment(name, int(name.removesuffix(SUFFIX)), size, header, 0, 2**64, 0, False, found.damages, found.end)
        samples = self._samples(segment, found.entries)
        segment.records, segment.thinned = len(samples), header is not None and header.thinned
        segment.catalogs = {entry.catalog_hash for entry in found.entries if entry.type == fmt.RecordType.CATALOG}
        if samples:
            segment.first, segment.last = samples[0].first_sequence, samples[-1].last_sequence
        if found.damages:
            log.warning("spool: skipped %d damaged stretches in %s", found.damages, name)
        return segment

    def _reading(self, segment: Segment) -> _Open:
        if self._read is None or self._read.segment is not segment:
            self._forget(None)
            handle = self._files.open(self._directory / segment.name)
            self._read = _Open(segment, handle, [])
            self._read.entries = self._samples(segment, self._scan(handle).entries)
        return self._read

    def _forget(self, segment: Segment | None) -> None:
        """Close the segment that was read last, if it is this one or None is given."""
        if self._read is not None and segment in (None, self._read.segment):
            with contextlib.suppress(OSError):
                self._files.close(self._read.handle)
            self._read = None

    def _scan(self, handle: int) -> fmt.Scan:
        size = self._files.size(handle)
        try:
            return fmt.scan(self._files.read(handle, size, 0))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        return fmt.scan(b"".join(self._read_sector(handle, offset, size) for offset in range(0, size, _SECTOR_BYTES)))

    def _read_sector(self, handle: int, offset: int, size: int) -> bytes:
        length = min(_SECTOR_BYTES, size - offset)
        try:
            return self._files.read(handle, length, offset).ljust(length, b"\0")
        except OSError:
            return bytes(length)

    def _samples(self, segment: Segment, entries: list[fmt.Entry]) -> list[fmt.Entry]:
        samples: list[fmt.Entry] = []
        for entry in entries:
            if entry.type != fmt.RecordType.SAMPLES or entry.last_sequence > segment.last:
                continue
            if segment.header is not None and entry.tag != fmt.tag_of(segment.header.epoch):
                continue
            while samples and samples[-1].last_sequence >= entry.first_sequence:
                samples.pop()
            samples.append(entry)
        return samples

    def _is_of(self, segment: Segment, epoch: bytes, tag: bytes) -> bool:
        if segment.header is not None:
            return segment.header.epoch == epoch
        return all(entry.tag == tag for entry in self.entries(segment))

    def _size_of(self, name: str) -> int:
        handle = self._files.open(self._directory / name)
        try:
            return self._files.size(handle)
        finally:
            self._files.close(handle)


def _moved(entry: fmt.Entry, offset: int) -> fmt.Entry:
    return fmt.Entry(
        offset,
        entry.length,
        entry.type,
        entry.tag,
        entry.first_sequence,
        entry.last_sequence,
        entry.acknowledged_sequence,
        entry.catalog_hash,
    )
