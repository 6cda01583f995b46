"""How the spool's records lie in a segment file, and how they are found again in a damaged one.

Opens no file. All numbers are little endian. A segment is records alone: its header twice (so that one bad byte can't take
a whole segment with it), then catalogs and samples. A record is a marker, its length, a CRC-32 (zlib) of length and body,
and the body: type, epoch tag, sequences and contents.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from wattledger_agent.counters import Instant

VERSION = 1

# A record's payload is at most 1 MiB (telemetry.proto, Batch); with a catalog of 4096 channels and their states it stays
# below this. A greater length is damage, not a record.
RECORD_BYTES_MAX = 8 * 1024 * 1024

_MAGIC = b"WATTLEDGER-SPOOL"
_MARKER = b"\xabWLr"  # Not valid UTF-8 and rare in varints, so that a search for the next record seldom stops in vain.
_FRAME = struct.Struct("<4sII")  # Marker, length of the body, CRC-32 of length and body.
_LENGTH = struct.Struct("<I")
_BODY = struct.Struct("<B8sQQQQII")  # Type, epoch tag, first, last, acknowledged, catalog hash, payload and state lengths.
_HEADER = struct.Struct("<16sHB16s16sqqBqHH")


class RecordType(IntEnum):
    """What a record holds."""

    HEADER = 1
    CATALOG = 2
    SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself.

    thinned: the segment was rewritten with fewer samples. machine_id, dmi_uuid: whose spool this is; empty if unknown.
    """

    epoch: bytes
    opening: Instant
    machine_id: str
    dmi_uuid: str
    thinned: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one valid record lies in its segment, and what it is; its contents are read when needed."""

    offset: int
    length: int
    type: int
    tag: bytes
    first_sequence: int
    last_sequence: int
    acknowledged_sequence: int
    catalog_hash: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment's bytes hold. end: behind the last valid record. damages: stretches before `end` that are no record."""

    header: Header | None
    entries: list[Entry]
    end: int
    damages: int


def encode_samples(
    epoch: bytes, first: int, last: int, acknowledged: int, catalog_hash: int, payload: bytes, state: bytes
) -> bytes:
    """A record of samples under the sequences first to last, with the highest sequence acknowledged when it was written."""
    return _frame(RecordType.SAMPLES, epoch, first, last, acknowledged, catalog_hash, payload, state)


def encode_catalog(epoch: bytes, catalog_hash: int, catalog: bytes) -> bytes:
    """A record of a channel catalog."""
    return _frame(RecordType.CATALOG, epoch, 0, 0, 0, catalog_hash, catalog, b"")


def encode_header(header: Header) -> bytes:
    """The two header records with which a segment begins. Raises ValueError if an id is longer than 65,535 bytes."""
    opening, machine, dmi = header.opening, header.machine_id.encode(), header.dmi_uuid.encode()
    if max(len(machine), len(dmi)) > 0xFFFF:
        raise ValueError(f"machine id of {len(machine)} bytes or DMI UUID of {len(dmi)} bytes is longer than 65535")
    fixed = _HEADER.pack(
        _MAGIC,
        VERSION,
        header.thinned,
        header.epoch,
        opening.boot_id,
        opening.boottime_nanoseconds,
        opening.realtime_nanoseconds,
        opening.synchronised,
        opening.suspended_nanoseconds,
        len(machine),
        len(dmi),
    )
    return 2 * _frame(RecordType.HEADER, header.epoch, 0, 0, 0, 0, fixed + machine + dmi, b"")


def decode_contents(record: bytes) -> tuple[bytes, bytes] | None:
    """Payload and state of a whole record's bytes; None if they are not valid (any more)."""
    if _entry_at(record, 0) is None:
        return None
    payload_length, state_length = _BODY.unpack_from(record, _FRAME.size)[-2:]
    start = _FRAME.size + _BODY.size
    return record[start : start + payload_length], record[start + payload_length : start + payload_length + state_length]


def scan(data: bytes) -> Scan:
    """Find every valid record in a segment's bytes, past any damage. Never raises on bad bytes, whatever they are.

    Raises NewerVersionError if a header was written by a later release.
    """
    header: Header | None = None
    entries: list[Entry] = []
    end = damages = 0
    for entry in _entries(data):
        damages += entry.offset != end
        end = entry.offset + entry.length
        if entry.type == RecordType.HEADER:
            header = header or _decode_header(data[entry.offset : end])
        else:
            entries.append(entry)
    return Scan(header, entries, end, damages)


class NewerVersionError(Exception):
    """A segment was written by a later release, in a format that this one can't read."""


def _frame(
    kind: RecordType, epoch: bytes, first: int, last: int, acknowledged: int, catalog_hash: int, payload: bytes, state: bytes
) -> bytes:
    numbers = _BODY.pack(kind, tag_of(epoch), first, last, acknowledged, catalog_hash, len(payload), len(state))
    length = len(numbers) + len(payload) + len(state)
    checksum = _LENGTH.pack(length)
    crc = zlib.crc32(checksum)
    for part in (numbers, payload, state):
        crc = zlib.crc32(part, crc)
    return b"".join((_FRAME.pack(_MARKER, length, crc), numbers, payload, state))


def tag_of(epoch: bytes) -> bytes:
    """The part of an epoch's id that every record bears, so that a segment without its header is not taken for another's."""
    return epoch[:8]


def _entries(data: bytes) -> Iterator[Entry]:
    offset = 0
    while True:
        offset = data.find(_MARKER, offset)
        if offset < 0:
            return
        entry = _entry_at(data, offset)
        if entry is None:
            offset += 1
        else:
            yield entry
            offset += entry.length


def _entry_at(data: bytes, offset: int) -> Entry | None:
    if len(data) - offset < _FRAME.size + _BODY.size:
        return None
    marker, length, crc = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if marker != _MARKER or not _BODY.size <= length <= min(RECORD_BYTES_MAX, len(data) - start):
        return None
    body = memoryview(data)[start : start + length]
    if zlib.crc32(body, zlib.crc32(_LENGTH.pack(length))) != crc:
        return None
    kind, tag, first, last, acknowledged, catalog_hash, payload_length, state_length = _BODY.unpack_from(body)
    if length != _BODY.size + payload_length + state_length:
        return None
    return Entry(offset, _FRAME.size + length, kind, tag, first, last, acknowledged, catalog_hash)


def _decode_header(record: bytes) -> Header | None:
    contents = decode_contents(record)
    if contents is None or len(contents[0]) < len(_MAGIC) + 2 or not contents[0].startswith(_MAGIC):
        return None
    data = contents[0]
    version = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
    if version > VERSION:
        raise NewerVersionError(f"format {version} is newer than {VERSION}, the newest that this release reads")
    if len(data) < _HEADER.size:
        return None
    _, _, thinned, epoch, boot, boottime, realtime, synchronised, suspended, machine_length, _ = _HEADER.unpack_from(data)
    names = data[_HEADER.size :]
    machine, dmi = names[:machine_length], names[machine_length:]
    opening = Instant(
        boot_id=boot,
        boottime_nanoseconds=boottime,
        realtime_nanoseconds=realtime,
        synchronised=bool(synchronised),
        suspended_nanoseconds=suspended,
    )
    return Header(epoch, opening, machine.decode(errors="replace"), dmi.decode(errors="replace"), bool(thinned))
