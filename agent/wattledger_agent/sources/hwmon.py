"""Power and energy from the kernel's hwmon class: ACPI power meters, NVIDIA Grace, Ampere Altra, AMD HSMP, Jetson rails.

Knows no label: what a sensor measures stands in hwmon_labels.toml; one that does not stand there is named, never guessed.
GPUs are read by the sources amd_gpu and intel_gpu. Source of truth: Documentation/hwmon/sysfs-interface.rst.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wattledger_agent.known_faults import (
    Action,
    Machine,
    Sensor,
    energy_sentinel,
    faults_of,
    power_sentinel,
    with_action,
)
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    CounterReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.cpu import Opener, Pread, open_for_reading
from wattledger_agent.sources.hwmon_labels import Match, Row, Subject, find_row, load_rows
from wattledger_agent.sources.hwmon_sensors import HwmonSensor, measured_by, place_of, position_of, sensors_of
from wattledger_agent.sources.returning import Returning
from wattledger_agent.sources.sensor_files import Chip, SensorFile, find_chips, read_text

NAME = "hwmon"

MICROWATTS_PER_WATT = 1_000_000

# Means over less hide what happens between two reads; means over more come late.
WINDOW_MILLISECONDS = (1000, 10_000)

NOTES_MAX = 32


@dataclass(slots=True)
class _Channel:
    """An offered sensor with its open files. zero_is_power: see hwmon_labels.Row."""

    spec: ChannelSpec
    files: tuple[SensorFile, ...]
    zero_is_power: bool
    gone: bool = False


class HwmonSource:
    """A leaf or meter for each sensor that the table of labels describes.

    acpi_meter_is_node: a single ACPI power meter of no known label meters the whole node. per_core: read what the table
    calls a detail. opener, pread: how files are opened and read; replaced by tests.
    """

    name = NAME
    may_block = True  # ACPI methods and mailboxes wait for firmware, I2C for a bus.

    def __init__(
        self,
        sysfs_root: Path = Path("/sys"),
        *,
        acpi_meter_is_node: bool = True,
        per_core: bool = False,
        opener: Opener = open_for_reading,
        pread: Pread = os.pread,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._acpi_meter_is_node = acpi_meter_is_node
        self._per_core = per_core
        self._opener = opener
        self._pread = pread
        self._channels: list[_Channel] = []
        self._notes: list[str] = []
        self._returning = Returning(NAME, lambda: find_chips(sysfs_root))

    def open(self) -> Sequence[ChannelSpec]:
        """Find the sensors that the table describes. Raises SourceUnavailableError if there are none."""
        self.close()
        self._notes = []
        self._returning.opened()
        rows = load_rows()
        found = self._described(find_chips(self._sysfs_root), rows)
        self._note_windows([sensor for sensor, _ in found])
        # By all rows, so that what hangs in a level that is not metered here hangs in the next.
        levels = [Match(row, match.number, match.label) for _, match in found for row in rows if row.within]
        within = {level.device: level.within for level in levels}
        specs = self._without_doubles([self._spec(match, sensor) for sensor, match in found])
        meters = {spec.key.device: spec.key for spec in specs if spec.role is Role.METER}
        for spec, (sensor, match) in zip(specs, found, strict=True):
            parent = _container(match.within, meters, within) if spec.role is not Role.SHOWN else None
            files = tuple(SensorFile(sensor.chip, name, self._opener, self._pread) for name in sensor.names)
            self._channels.append(_Channel(replace(spec, parent=parent), files, match.row.zero_is_power))
        if not self._channels:
            hint = f" {self._notes[0]}" if self._notes else ""
            raise SourceUnavailableError(
                f"hwmon: {self._sysfs_root / 'class/hwmon'} has no power sensor that is known.{hint}",
                "Where the firmware has a power meter: modprobe acpi_power_meter (on Grace with force_cap_on=y); AMD EPYC: "
                "modprobe hsmp_acpi; else nothing can be done.",
            )
        return [channel.spec for channel in self._channels]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """Read every sensor once; one that can't be read is alone in that, and one that was removed is looked for."""
        gone = {channel.spec.key: channel.files[0].chip for channel in self._channels if channel.gone}
        present = (channel.spec.key for channel in self._channels if not channel.gone)
        changes = self._returning.changes(now_nanoseconds, gone, present, self.open)
        return [*changes, *(self._read(channel) for channel in self._channels if not channel.gone)]

    def notes(self) -> Sequence[str]:
        """What is switched off, unknown, doubled, or averaged over an unusual time."""
        more = len(self._notes) - NOTES_MAX
        return [*self._notes[:NOTES_MAX], *([f"hwmon: {more} more notes like these are left out."] if more > 0 else [])]

    def close(self) -> None:
        """Close all files."""
        for channel in self._channels:
            for file in channel.files:
                file.close()
        self._channels = []

    def _read(self, channel: _Channel) -> Reading:
        key, file = channel.spec.key, channel.files[0]
        value = 1
        try:
            # Millivolts times milliamperes are microwatts.
            for file in channel.files:
                factor = file.number()
                if factor < 0:
                    return TryAgain(key, f"hwmon: {file} shows {factor}; what flows backwards is no consumption")
                value *= factor
        except (OSError, ValueError) as error:
            outcome = file.failed(key, error)
            channel.gone = isinstance(outcome, Gone)
            return outcome
        counts = channel.spec.method is Method.COUNTER
        fault = energy_sentinel(NAME, value) if counts else power_sentinel(NAME, value)
        if fault is not None:
            return TryAgain(key, f"hwmon: {file} shows {value}, which is no value: {fault.sentence}")
        if counts:
            return CounterReading(key, value, file.generation)
        if value == 0 and not channel.zero_is_power:
            return TryAgain(key, f"hwmon: {file} shows 0 W of a part that is on; see its firmware")
        if value > channel.spec.power_bound_watts * MICROWATTS_PER_WATT:
            return TryAgain(key, f"hwmon: {file} shows {value / MICROWATTS_PER_WATT:.0f} W, which is impossible")
        return PowerReading(key, value)

    def _described(self, chips: Sequence[Chip], rows: Sequence[Row]) -> list[tuple[HwmonSensor, Match]]:
        """The sensors that are to be read, with what they measure; the rest is noted."""
        found: list[tuple[HwmonSensor, Match]] = []
        for chip in sorted(chips, key=lambda chip: (str(chip.device), chip.ordinal)):
            subject = Subject(chip.name, "", place_of(chip), measured_by(chip), position_of(chip, chips))
            for sensor in self._sensors(chip):
                match = find_row(rows, replace(subject, label=sensor.label))
                if match is None:
                    self._notes.append(f"hwmon: {sensor} is not in the table of labels; it is not metered.")
                elif match.row.detail and not self._per_core:
                    continue
                elif match.row.role != "ignored":
                    found.append((sensor, match))
        return self._single(found)

    def _sensors(self, chip: Chip) -> Iterator[HwmonSensor]:
        """A chip's sensors that are switched on."""
        for sensor in sensors_of(chip):
            kind = sensor.names[0].partition("_")[0]
            switch = chip.locate(f"{kind}_enable")
            fault = with_action(
                faults_of(Machine(), Sensor(NAME, kind, is_enabled=read_text(switch) != "0")), Action.HIDE_DOMAIN
            )
            if fault is not None:
                self._notes.append(f"hwmon: {sensor}: {fault.sentence}; write 1 to {switch} to meter it.")
            elif chip.text(f"{kind}_is_battery") == "1":
                self._notes.append(f"hwmon: {sensor} is a battery's; it is not metered.")
            else:
                yield sensor

    def _note_windows(self, sensors: Sequence[HwmonSensor]) -> None:
        """Say once what is averaged over an unusual time."""
        shortest, longest = WINDOW_MILLISECONDS
        windows: dict[int, list[HwmonSensor]] = {}
        for sensor in sensors:
            text = sensor.chip.text(f"power{sensor.number}_average_interval") if "average" in sensor.names[0] else ""
            windows.setdefault(int(text) if text.isdecimal() else shortest, []).append(sensor)
        for window, alike in windows.items():
            which = f"hwmon: {alike[0]}" + (f" and {len(alike) - 1} more show means" if len(alike) > 1 else " shows means")
            if 0 < window < shortest:
                path = alike[0].chip.locate(f"power{alike[0].number}_average_interval")
                self._notes.append(f"{which} over {window} ms; bursts between reads are missed: write {shortest} to {path}.")
            elif window > longest:
                self._notes.append(f"{which} over {window // 1000} s; they follow the load so much later.")

    def _single(self, found: list[tuple[HwmonSensor, Match]]) -> list[tuple[HwmonSensor, Match]]:
        """Of a row that holds for a single sensor: that one, or the one of several that says what it measures."""
        kept = []
        for sensor, match in found:
            alike = [other for other, theirs in found if theirs.row is match.row]
            telling = [other for other in alike if measured_by(other.chip)]
            if match.row.only and len(alike) > 1 and telling != [sensor]:
                self._notes.append(f"hwmon: {sensor} is one of {len(alike)} and does not say what it measures; not metered.")
            else:
                kept.append((sensor, match))
        return kept

    def _spec(self, match: Match, sensor: HwmonSensor) -> ChannelSpec:
        row = match.row
        role = Role[row.role.upper()]
        if row.only and not self._acpi_meter_is_node:
            role = Role.SHOWN
        return ChannelSpec(
            key=ChannelKey(match.device, row.domain, NAME),
            component=Component[row.component.upper()],
            method=sensor.method,
            role=role,
            power_bound_watts=row.bound_watts,
            within=match.within,
            model=_model(sensor, row),
        )

    def _without_doubles(self, specs: list[ChannelSpec]) -> list[ChannelSpec]:
        """Each device is booked once: by its counter, else by its first sensor; keys are made distinct."""
        best: dict[str, ChannelSpec] = {}
        for spec in sorted(specs, key=lambda spec: spec.method):
            if spec.role is not Role.SHOWN:
                best.setdefault(spec.key.device, spec)
        kept: list[ChannelSpec] = []
        taken: set[ChannelKey] = set()
        for spec in specs:
            if spec.role is not Role.SHOWN and best[spec.key.device] is not spec:
                other = best[spec.key.device].key
                self._notes.append(f"hwmon: {spec.key.device} {spec.key.domain} is measured as {other.domain}; shown only.")
                spec = replace(spec, role=Role.SHOWN)
            count = sum(key.device == spec.key.device and key.domain.startswith(spec.key.domain) for key in taken)
            if spec.key in taken:
                spec = replace(spec, key=replace(spec.key, domain=f"{spec.key.domain}-{count + 1}"))
            taken.add(spec.key)
            kept.append(spec)
        return kept


def _container(device: str, meters: dict[str, ChannelKey], within: dict[str, str]) -> ChannelKey | None:
    """The nearest meter of this source that contains a device, going up where a level is not metered."""
    for _ in range(len(within) + 1):
        if not device or device in meters:
            break
        device = within.get(device, "")
    return meters.get(device)


def _model(sensor: HwmonSensor, row: Row) -> str:
    """What the firmware calls an ACPI meter; for the rest the row says enough."""
    return sensor.chip.text("power1_model_number") if row.only else ""
