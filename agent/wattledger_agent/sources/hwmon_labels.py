"""The table of what hwmon's power and energy sensors measure: hwmon_labels.toml, parsed and asked.

Opens no sensor. A sensor that no row describes is never guessed. Each row cites what says so.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

TABLE = Path(__file__).with_name("hwmon_labels.toml")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sensors of one kind measure. chip, label, place and measures are whole regular expressions.

    label: of the sensor. place: the ACPI _UID of its device, else its folder's name. In
    `device` and `within`, `n` is what a group of that name found in either, else the chip's place among those of its name,
    and `label` is the label in small letters.
    measures: every device that the firmware says the sensor measures, where it says so.
    only: the row holds only if it describes a single sensor of this host. detail: read only where details are asked for.
    zero_is_power: whether the part can draw nothing while the host runs; where it can't, 0 is no value.
    """

    chip: str
    role: Literal["leaf", "meter", "shown", "ignored"]
    citation: str
    label: str = ""
    place: str = ".*"
    measures: str = ".*"
    device: str = ""
    domain: str = ""
    component: Literal["cpu", "memory", "gpu", "accelerator", "other"] = "other"
    within: str = ""
    bound_watts: float = 0.0
    zero_is_power: bool = False
    only: bool = False
    detail: bool = False


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sensor: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a sensor says of itself. position: of its chip among those of its name, from 0."""

    chip: str
    label: str
    place: str
    measures: Sequence[str]
    position: int


@dataclass(frozen=True, slots=True)
class Match:
    """A row, and the number and label that stand for `n` and `label` in its devices."""

    row: Row
    number: int
    label: str

    @property
    def device(self) -> str:
        """The device that is measured."""
        return self.row.device.format(n=self.number, label=self.label)

    @property
    def within(self) -> str:
        """The device that contains it; empty: the node."""
        return self.row.within.format(n=self.number, label=self.label)


def load_rows(path: Path = TABLE) -> tuple[Row, ...]:
    """The table's rows. Raises msgspec.ValidationError or TOMLDecodeError: the table is part of the package."""
    return msgspec.convert(tomllib.loads(path.read_text()), _Table).sensor


def find_row(rows: Sequence[Row], subject: Subject) -> Match | None:
    """The first row that describes a sensor."""
    for row in rows:
        label, place = re.fullmatch(row.label, subject.label), re.fullmatch(row.place, subject.place)
        measured = all(re.fullmatch(row.measures, device) for device in subject.measures)
        if label and place and measured and re.fullmatch(row.chip, subject.chip):
            groups = {**place.groupdict(), **label.groupdict()}
            return Match(row, int(groups.get("n") or subject.position), subject.label.lower())
    return None
