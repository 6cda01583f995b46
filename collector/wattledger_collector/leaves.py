"""The leaves of a statement: the energy of one host on one day (UTC), as bytes that are the same for the same rows.

Arrays in, bytes out; no database, no clock, no chance. Source of truth: the format below, which `verify.py` reads with code
of its own. A leaf is

- 4 bytes, big endian: the length of the header;
- the header, canonical JSON (RFC 8785): `host`, `day`, `first_interval_seconds`, `intervals`, `interval_seconds`, `salt`
  (32 hexadecimal digits), and `series`, a list of objects with `site`, `component`, `quality`, `recorded`, `edition`,
  `sensor` (the source's name) and `lower`, `upper` (half-widths of its 95 % band, relative);
- for each series in that order, signed 64-bit integers, big endian: the energy of each interval in microjoules, then the
  covered time of each interval in nanoseconds, summed over the channels that are alike.

The salt makes it impossible to guess a leaf from its hash, so that one server's figures can be shown without those of
others. It is derived from a secret of the ledger, so that the same rows give the same leaf again.
"""

import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import rfc8785
from numpy.typing import NDArray

from wattledger_collector.records import Component, Quality

SALT_BYTES = 16

Columns = NDArray[np.int64]


class Series(NamedTuple):
    """What a leaf keeps apart; in the order in which series stand in it."""

    host: str
    site: str
    component: Component
    quality: Quality
    recorded: bool
    edition: int
    sensor: str
    lower_ratio: float
    upper_ratio: float


@dataclass(frozen=True, slots=True)
class DayColumns:
    """The energy of all hosts on one day of UTC, or on the part of it that lies in a period.

    first_seconds: the first interval's beginning. series: sorted. energy_microjoules, covered_nanoseconds: a row for each
    series, a column for each interval.
    """

    first_seconds: int
    interval_seconds: int
    series: tuple[Series, ...]
    energy_microjoules: Columns
    covered_nanoseconds: Columns

    @property
    def day(self) -> str:
        """Its date."""
        return datetime.fromtimestamp(self.first_seconds, UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Leaf:
    """One host and day."""

    host: str
    day: str
    entry: bytes


def make_leaves(columns: DayColumns, secret: bytes) -> Iterator[Leaf]:
    """The leaves of a day, by host."""
    intervals = columns.energy_microjoules.shape[1]
    cells = np.stack((columns.energy_microjoules, columns.covered_nanoseconds), axis=1).astype(">i8")
    day = columns.day
    at = 0
    for host, of_host in groupby(columns.series, key=lambda series: series.host):
        series = list(of_host)
        header = _header(
            {
                "day": rfc8785.dumps(day),
                "first_interval_seconds": rfc8785.dumps(columns.first_seconds),
                "host": rfc8785.dumps(host),
                "interval_seconds": rfc8785.dumps(columns.interval_seconds),
                "intervals": rfc8785.dumps(intervals),
                "salt": rfc8785.dumps(make_salt(secret, host, day).hex()),
                "series": b"[" + b",".join(_series_text(*each[1:]) for each in series) + b"]",
            }
        )
        body = cells[at : at + len(series)].tobytes()
        at += len(series)
        yield Leaf(host, day, len(header).to_bytes(4, "big") + header + body)


def make_salt(secret: bytes, host: str, day: str) -> bytes:
    """The salt of a host's day; who does not know the secret can't tell it from chance."""
    return hmac.digest(secret, f"{day} {host}".encode(), "sha256")[:SALT_BYTES]


def _header(values: Mapping[str, bytes]) -> bytes:
    """An object in canonical JSON, of values that are. Names in ASCII are in order of RFC 8785 if they are in any order."""
    return b"{" + b",".join(rfc8785.dumps(name) + b":" + value for name, value in sorted(values.items())) + b"}"


# A fleet has thousands of series and few that differ in more than their host.
@lru_cache(maxsize=4096)
def _series_text(
    site: str,
    component: Component,
    quality: Quality,
    recorded: bool,
    edition: int,
    sensor: str,
    lower_ratio: float,
    upper_ratio: float,
) -> bytes:
    """A series as the header has it, in canonical JSON."""
    return rfc8785.dumps(
        {
            "site": site,
            "component": component.name.lower(),
            "quality": quality.name.lower(),
            "recorded": recorded,
            "edition": edition,
            "sensor": sensor,
            "lower": lower_ratio,
            "upper": upper_ratio,
        }
    )


def exact_sums(columns: Columns) -> list[int]:
    """The sums of the columns over all rows; exact also where they pass 64 bits."""
    # Two halves that can't overflow with fewer than 2^31 rows.
    high = (columns >> 32).sum(axis=0)
    low = (columns & 0xFFFFFFFF).sum(axis=0)
    return [(above << 32) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def sums_by_interval(columns: DayColumns, names: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], list[int], list[int]]]:
    """(key, microjoules, nanoseconds) of the series that are alike in the named fields, each list by interval."""
    for key, places in _alike(columns.series, tuple(names)).items():
        yield key, exact_sums(columns.energy_microjoules[places]), exact_sums(columns.covered_nanoseconds[places])


# Days have mostly the same series, and each is asked for in two ways.
@lru_cache(maxsize=4)
def _alike(series: tuple[Series, ...], names: tuple[str, ...]) -> dict[tuple[Any, ...], list[int]]:
    """Places of the series by their values in the named fields."""
    rows: dict[tuple[Any, ...], list[int]] = {}
    for place, each in enumerate(series):
        rows.setdefault(tuple(getattr(each, name) for name in names), []).append(place)
    return rows
