"""Accelerators that a vendor's command tells of: what Gaudi and Ascend have in common.

Knows no vendor: `Kind` holds what differs (the command, and how to understand it). The command runs beside the samples, one
at a time, because each takes a good part of a second. Source of truth: the vendor's module.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wattledger_agent.commands import CommandError, CommandMissingError, Runner, SystemRunner
from wattledger_agent.known_faults import power_sentinel
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    Gauge,
    GaugeReading,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.slow import Pace, Poller, PollError

# Eight cards are told of within two seconds; a card that does not answer makes the command wait.
COMMAND_SECONDS_MAX = 15.0

# The largest accelerators of 2025 (two dies on one board) are sold with some 1300 W.
POWER_BOUND_WATTS = 3000.0

MICROWATTS_PER_WATT = 1_000_000

# PCI's class of processing accelerators: the same makers build network adapters and display controllers too.
PCI_CLASS = "0x1200"


@dataclass(frozen=True, slots=True)
class Card:
    """One accelerator, as a command tells of it; None where it does not.

    identity: serial number or bus id. busy_ratio, memory_ratio: in [0, 1]; the first is a mean over `chips`, each of which
    is a device of its own on the PCI bus.
    """

    identity: str
    model: str
    power_watts: float | None = None
    busy_ratio: float | None = None
    memory_ratio: float | None = None
    temperature_celsius: float | None = None
    chips: int = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between vendors.

    name: of the source. make: for people. pci_vendor: as in sysfs. argv: what to run. parse: understands its output; raises
    PollError where there is no card in it. install: the sentence that says how to come by the program.
    """

    name: str
    make: str
    pci_vendor: str
    argv: Sequence[str]
    parse: Callable[[str], Sequence[Card]]
    install: str


class AcceleratorSource:
    """A leaf for each accelerator: its power, how busy it and its memory are, and its temperature.

    run, pace: how commands are run and polls are driven; replaced by tests.
    """

    may_block = False

    def __init__(
        self,
        kind: Kind,
        sysfs_root: Path = Path("/sys"),
        *,
        cadence_seconds: float = 2.0,
        run: Runner | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.name = kind.name
        self._kind = kind
        self._sysfs_root = sysfs_root
        self._cadence_seconds = cadence_seconds
        self._run: Runner = SystemRunner() if run is None else run
        self._pace = pace
        self._poller: Poller[Mapping[str, Card]] | None = None
        self._keys: list[ChannelKey] = []
        self._notes: list[str] = []
        self._telling: set[str] = set()

    def open(self) -> Sequence[ChannelSpec]:
        """Begin to poll, and offer each card that the first answer has power of. Raises SourceUnavailableError."""
        self.close()
        name, make = self._kind.name, self._kind.make
        present = count_on_bus(self._sysfs_root, self._kind.pci_vendor)
        if not present:
            raise SourceUnavailableError(
                f"{name}: no {make} is on this host's PCI bus.",
                f"If there should be one, see `lspci -d {self._kind.pci_vendor.removeprefix('0x')}:` and the kernel's log.",
            )
        self._poller = Poller(
            self._ask,
            name=name,
            cadence_seconds=self._cadence_seconds,
            seconds_max=COMMAND_SECONDS_MAX,
            pace=self._pace,
        )
        self._poller.start()
        self._poller.wait_for_first(COMMAND_SECONDS_MAX + 1.0)
        cards = self._poller.peek()
        if cards is None:
            problem = self._poller.problem() or f"{name}: `{self._kind.argv[0]}` has not answered"
            self.close()
            raise SourceUnavailableError(f"{problem}.", self._kind.install)
        # What told its power once is metered, also if it is opened again while it does not.
        self._telling |= {card.identity for card in cards.values() if card.power_watts is not None}
        metered = [card for card in cards.values() if card.identity in self._telling]
        self._keys = [self._key(card) for card in metered]
        self._notes = [
            f"{name}: {card.model} {card.identity} tells no power; it is not metered."
            for card in cards.values()
            if card.identity not in self._telling
        ]
        told = sum(card.chips for card in cards.values())
        if told < present:
            self._notes.append(
                f"{name}: {present} {make} are on the PCI bus, and `{self._kind.argv[0]}` tells of {told}; the others "
                "are not metered. See the kernel's log."
            )
        return [self._spec(card) for card in metered]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """What each card told since the read before; else nothing, or why. Never waits."""
        assert self._poller is not None
        taken = self._poller.take(now_nanoseconds)
        if taken.value is not None:
            return [reading for key in self._keys for reading in self._of(key, taken.value)]
        if not taken.problem:
            return []
        age = taken.age_seconds or 0.0
        return [
            reading
            for key in self._keys
            for reading in (TryAgain(key, taken.problem), GaugeReading(key.device, Gauge.READING_AGE_SECONDS, age))
        ]

    def notes(self) -> Sequence[str]:
        """Which cards are on the bus, or in the answer, and not metered."""
        return list(self._notes)

    def close(self) -> None:
        """End the polling."""
        if self._poller is not None:
            self._poller.stop()
        self._poller = None
        self._keys = []

    def _ask(self) -> Mapping[str, Card]:
        name, argv = self._kind.name, self._kind.argv
        try:
            answer = self._run(argv, COMMAND_SECONDS_MAX)
        except CommandMissingError as error:
            raise PollError(f"{name}: {error}") from error
        except CommandError as error:
            raise PollError(f"{name}: {error}; look for a hung driver (dmesg)") from error
        if answer.exit_status != 0:
            said = " / ".join((answer.stderr or answer.stdout).strip().splitlines())[:200]
            raise PollError(
                f"{name}: `{argv[0]}` ended with status {answer.exit_status}: `{said}`; "
                f"run it by hand as user id {os.getuid()}"
            )
        return {card.identity: card for card in self._kind.parse(answer.stdout)}

    def _of(self, key: ChannelKey, cards: Mapping[str, Card]) -> list[Reading]:
        card = cards.get(key.device.partition("/")[2])
        if card is None:
            problem = f"{self.name}: {key.device} is not in the answer of `{self._kind.argv[0]}`; see the kernel's log"
            return [TryAgain(key, problem)]
        readings: list[Reading] = [self._power(key, card)]
        if card.busy_ratio is not None:
            readings.append(UtilizationReading(key.device, UtilizationKind.BUSY, card.busy_ratio, card.chips))
        if card.memory_ratio is not None:
            readings.append(UtilizationReading(key.device, UtilizationKind.MEMORY, card.memory_ratio))
        if card.temperature_celsius is not None:
            readings.append(GaugeReading(key.device, Gauge.TEMPERATURE_CELSIUS, card.temperature_celsius))
        return readings

    def _power(self, key: ChannelKey, card: Card) -> Reading:
        watts = card.power_watts
        if watts is None:
            return TryAgain(key, f"{self.name}: `{self._kind.argv[0]}` tells no power of {key.device}; see its health there")
        microwatts = round(watts * MICROWATTS_PER_WATT)
        if watts <= 0 or power_sentinel(self.name, microwatts) is not None:
            return TryAgain(key, f"{self.name}: {watts:g} W of {key.device} is no power; reset the card if it stays")
        return PowerReading(key, microwatts)

    def _key(self, card: Card) -> ChannelKey:
        return ChannelKey(f"accelerator/{card.identity}", "board", self.name)

    def _spec(self, card: Card) -> ChannelSpec:
        return ChannelSpec(
            key=self._key(card),
            component=Component.ACCELERATOR,
            method=Method.INTEGRAL,
            role=Role.LEAF,
            power_bound_watts=POWER_BOUND_WATTS,
            cadence_seconds=self._cadence_seconds,
            model=card.model,
        )


def count_on_bus(sysfs_root: Path, vendor: str) -> int:
    """How many processing accelerators of a vendor (`0x1da3`) the PCI bus has."""
    found = 0
    for device in (sysfs_root / "bus/pci/devices").glob("*"):
        try:
            is_ours = (device / "vendor").read_text().strip() == vendor
            found += is_ours and (device / "class").read_text().startswith(PCI_CLASS)
        except OSError:
            continue
    return found


def number(text: str) -> float | None:
    """The number that a cell begins with, whatever its unit; None for `N/A`, `NA`, `-` and the like."""
    words = text.split()
    try:
        value = float(words[0]) if words else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < float("inf") else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """A share in [0, 1]; None where either is unknown or the whole is nothing."""
    if part is None or whole is None or whole <= 0 or part < 0:
        return None
    return min(part / whole, 1.0)
