"""Plays recorded power: each row of a table is a mean power that held for its span, at the time that the recording says.

Reads no sensor, and is not asked by the sampler: whoever plays it takes `rows` as fast as wanted. The table is CSV (comma or
semicolon) or TSV in UTF-8, with or without byte order mark, with a header, and may be packed by gzip; two of its columns
are used, in either order of time. Times are ISO 8601, those without an offset in a given IANA time zone: a local hour that
comes twice is taken as the first, unless it was taken already; one that does not exist is an error. Rows that are missing,
or have no power, are gaps.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from wattledger_agent.counters import Instant
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    Method,
    Reading,
    Role,
    SourceUnavailableError,
    SpanReading,
)
from wattledger_agent.recording import (
    MICROWATTS_PER_WATT,
    SKIPPED_TOLD_MAX,
    Format,
    Recording,
    RecordingError,
    Span,
    parse_recording,
)

NAME = "replay"

# A year of minutes with fourteen columns is 45 MiB; all of it is held in memory.
RECORDING_BYTES_MAX = 128 * 2**20

# A mean can be exceeded within its span, but by what is anyone's guess; half as much again is ours.
POWER_BOUND_RATIO = 1.5

_GZIP_MAGIC = b"\x1f\x8b"


class ReplaySource:
    """One recorded channel.

    time_column, power_column (watts), time_zone, label, span_seconds, skip_invalid_rows: see recording.Format.
    device, component: what the power is of. power_bound_watts: bounds what a missing row can hide; None: half as much again
    as the recording's highest value.
    """

    name = NAME

    def __init__(
        self,
        path: Path,
        *,
        time_column: str = "timestamp",
        power_column: str = "power_watts",
        time_zone: str = "UTC",
        label: Literal["start", "end"] = "start",
        span_seconds: int = 3600,
        device: str = "node",
        component: Component = Component.OTHER,
        power_bound_watts: float | None = None,
        skip_invalid_rows: bool = False,
    ) -> None:
        self._path = path
        self._format = Format(time_column, power_column, time_zone, label, span_seconds, skip_invalid_rows)
        self._key = ChannelKey(device, "recorded", NAME)
        self._component = component
        self._power_bound_watts = power_bound_watts
        self._recording = Recording((), (), 0)
        self._boot_id = bytes(16)

    def open(self) -> Sequence[ChannelSpec]:
        """Read and check the whole recording, and return its channel. Raises SourceUnavailableError."""
        try:
            content = _read(self._path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceUnavailableError(
                f"replay: the recording {self._path} is no whole gzip file: {error}.", "Fetch or compress it again."
            ) from error
        except OSError as error:
            raise SourceUnavailableError(
                f"replay: the recording {self._path} can't be read: {error.strerror}.",
                "Name a file that the agent may read.",
            ) from error
        try:
            self._recording = parse_recording(_decode(content, str(self._path)), self._format, origin=str(self._path))
        except RecordingError as error:
            raise SourceUnavailableError(f"replay: {error}", "Nothing of it was booked.") from error
        self._check_bound()
        # A device's recorded time is one boot whatever file tells of it: read again, or from a longer file, it is known what
        # was metered before, so that nothing is booked twice.
        self._boot_id = sha256(f"recorded {self._key.device}".encode()).digest()[:16]
        return [self._spec()]

    def opening(self) -> Instant:
        """Return the moment at which the channel's value is 0: the start of the first span. Only after `open`."""
        return self._instant(self._recording.spans[0].from_nanoseconds)

    def rows(self) -> Iterator[tuple[Instant, list[Reading]]]:
        """Yield each sample row with its time, from first to last. Only after `open`."""
        for span in self._recording.spans:
            start, middle, end = span.from_nanoseconds, span.finer_until_nanoseconds, span.to_nanoseconds
            if middle > start:
                yield self._instant(middle), [SpanReading(self._key, start, span.microwatts + 1)]
            if end > middle:
                yield self._instant(end), [SpanReading(self._key, middle, span.microwatts)]

    def notes(self) -> Sequence[str]:
        """Tell what was left out, and what was taken for the bound."""
        notes = list(self._recording.skipped[:SKIPPED_TOLD_MAX])
        further = len(self._recording.skipped) - SKIPPED_TOLD_MAX
        if further > 0:
            notes.append(f"{self._path}: {further} further rows were skipped.")
        if self._recording.rows_without_power:
            notes.append(f"{self._path}: {self._recording.rows_without_power} rows have no power; they are gaps.")
        if self._power_bound_watts is None and self._recording.spans:
            notes.append(
                f"{self._path}: gaps are bounded by {self._bound_watts():g} W, half as much again as the highest mean; "
                "set power_bound_watts to what the device can draw."
            )
        return notes

    def close(self) -> None:
        """Let go of the rows."""
        self._recording = Recording((), (), 0)

    def _spec(self) -> ChannelSpec:
        return ChannelSpec(
            self._key,
            self._component,
            Method.INTEGRAL,
            Role.LEAF,
            self._bound_watts(),
            model=f"recorded in {self._path.name}",
        )

    def _check_bound(self) -> None:
        """Refuse a bound that the recording itself goes beyond: the meter would believe none of those rows."""
        bound_watts = self._power_bound_watts
        if bound_watts is not None and self._highest_watts() > bound_watts:
            raise SourceUnavailableError(
                f"replay: {self._path}: the highest mean is {self._highest_watts():g} W, "
                f"above power_bound_watts {bound_watts:g}.",
                "Set power_bound_watts to what the device can draw, or leave it out.",
            )

    def _bound_watts(self) -> float:
        if self._power_bound_watts is not None:
            return self._power_bound_watts
        return POWER_BOUND_RATIO * self._highest_watts()

    def _highest_watts(self) -> float:
        return max(_ceiling(span) for span in self._recording.spans) / MICROWATTS_PER_WATT

    def _instant(self, nanoseconds: int) -> Instant:
        return Instant(self._boot_id, nanoseconds, nanoseconds, True, 0)


def _read(path: Path) -> bytes:
    """Return the table's bytes, one more than allowed if it is too large. Raises OSError, EOFError and zlib.error."""
    with path.open("rb") as file:
        if file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC:
            file.seek(0)
            with gzip.open(file) as unpacked:
                return unpacked.read(RECORDING_BYTES_MAX + 1)
        file.seek(0)
        return file.read(RECORDING_BYTES_MAX + 1)


def _ceiling(span: Span) -> int:
    """Return the highest of a span's whole microwatts."""
    return span.microwatts + (span.finer_until_nanoseconds > span.from_nanoseconds)


def _decode(content: bytes, origin: str) -> str:
    if len(content) > RECORDING_BYTES_MAX:
        raise RecordingError(f"{origin}: is larger than {RECORDING_BYTES_MAX // 2**20} MiB; split the recording.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecordingError(f"{origin}, line {line}: byte {error.start} is not UTF-8; save the table as UTF-8.") from error
