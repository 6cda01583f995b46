"""The power and energy sensors of a hwmon chip, as it shows them: files, labels, and where it sits.

Knows no chip and no label, and opens nothing for good. Source of truth: Documentation/hwmon/sysfs-interface.rst.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wattledger_agent.readings import Method
from wattledger_agent.sources.sensor_files import Chip, read_text


@dataclass(frozen=True, slots=True)
class HwmonSensor:
    """A sensor as the chip shows it. names: the file of its value, or those whose product is its power."""

    chip: Chip
    method: Method
    number: int
    label: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        label = f" ({self.label})" if self.label else ""
        return f"{self.names[0]}{label} of {self.chip.name} at {self.chip.device.name}"


def sensors_of(chip: Chip) -> Iterator[HwmonSensor]:
    """Energy counters, powers, and rails of which voltage and current are measured and no power."""
    for number in chip.numbers(r"energy(\d+)_input"):
        yield HwmonSensor(chip, Method.COUNTER, number, chip.text(f"energy{number}_label"), (f"energy{number}_input",))
    powers = set(chip.numbers(r"power(\d+)_input"))
    averages = set(chip.numbers(r"power(\d+)_average"))
    for number in sorted(powers | averages):
        # A mean misses nothing of its window; an instant value stands for the moment alone.
        name = f"power{number}_average" if number in averages else f"power{number}_input"
        label = chip.text(f"power{number}_label") or chip.text(f"power{number}_oem_info")
        yield HwmonSensor(chip, Method.INTEGRAL, number, label, (name,))
    currents = set(chip.numbers(r"curr(\d+)_input"))
    for number in chip.numbers(r"in(\d+)_input"):
        # Voltages without a label are of shunts, or of nothing.
        label = chip.text(f"in{number}_label")
        if number in currents - powers - averages and label:
            yield HwmonSensor(chip, Method.INTEGRAL, number, label, (f"in{number}_input", f"curr{number}_input"))


def place_of(chip: Chip) -> str:
    """The number that the firmware gives the chip's device, else the name of its folder."""
    return read_text(chip.device / "firmware_node" / "uid") or read_text(chip.device / "uid") or chip.device.name


def measured_by(chip: Chip) -> list[str]:
    """What an ACPI power meter says that it measures."""
    folder = chip.device / "measures"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def position_of(chip: Chip, chips: Sequence[Chip]) -> int:
    """The chip's place among those of its name: by device, then in the order of registration. Never by its number alone."""
    alike = [other for other in chips if other.name == chip.name]
    return sorted(alike, key=lambda other: (str(other.device), other.ordinal)).index(chip)
