"""The whole node's power by its management controller's DCMI reading, asked for with ipmitool or FreeIPMI.

Talks to no network and changes nothing in the controller; one command at a time, at its own cadence, never while a sample
waits. Source of truth: DCMI specification 1.5, section 6.6.1 (Get Power Reading), and the words of both programs.
"""

import os
import re
from collections.abc import Callable, Sequence
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
)
from wattledger_agent.slow import Pace, Poller, PollError, unavailable

NAME = "ipmi"
DEVICE = "node"
KEY = ChannelKey(DEVICE, "dcmi", NAME)

# Whichever is installed; both ask the controller the same.
COMMANDS = (("ipmitool", "dcmi", "power", "reading"), ("ipmi-dcmi", "--get-system-power-statistics"))

# The kernel's driver, by the names that both programs look for.
DEVICE_FILES = ("ipmi0", "ipmi/0", "ipmidev/0")

# Controllers under load were seen to answer after 25 to 55 s; nothing waits for them but the thread that asks.
COMMAND_SECONDS_MAX = 90.0

# How long `open` waits for the first answer, to tell a controller without DCMI from a slow one.
FIRST_SECONDS_MAX = 5.0

# The largest single nodes of 2025, with eight 1400 W GPUs, have power supplies of 18 kW and more.
POWER_BOUND_WATTS = 30_000.0

MICROWATTS_PER_WATT = 1_000_000

# What a controller without the command answers: completion codes C1h, C2h and D6h, in the programs' words.
UNSUPPORTED = re.compile(
    r"invalid command|command invalid|not supported|illegal command|\((?:0x)?(?:c1|d6)\)", re.IGNORECASE
)

_POWER = re.compile(r"^\s*(?:Instantaneous power reading|Current Power)\s*:\s*(\d+(?:\.\d+)?)\s*watts", re.IGNORECASE | re.M)
_STATE = re.compile(r"^\s*(?:Power reading state is|Power Measurement)\s*:\s*(\S.*?)\s*$", re.IGNORECASE | re.M)
_ACTIVE = frozenset({"activated", "active"})


def may_open(path: Path) -> bool:
    """Whether this process may read and write a device file."""
    return os.access(path, os.R_OK | os.W_OK)


class IpmiSource:
    """A meter of the whole node, from a controller that answers when it likes.

    excludes_gpus: the controller sees no GPUs and accelerators, as on boards whose GPUs have power supplies of their own.
    run, pace, access: how commands are run, polls are driven and device files are looked at; replaced by tests.
    first_seconds_max: how long `open` waits for the first answer.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        devices_root: Path = Path("/dev"),
        *,
        cadence_seconds: float = 10.0,
        excludes_gpus: bool = False,
        run: Runner | None = None,
        pace: Pace | None = None,
        access: Callable[[Path], bool] = may_open,
        first_seconds_max: float = FIRST_SECONDS_MAX,
    ) -> None:
        self._devices_root = devices_root
        self._cadence_seconds = cadence_seconds
        self._excludes_gpus = excludes_gpus
        self._run: Runner = SystemRunner() if run is None else run
        self._pace = pace
        self._access = access
        self._first_seconds_max = first_seconds_max
        self._argv: Sequence[str] | None = None
        self._poller: Poller[int] | None = None
        self._notes: list[str] = []

    def open(self) -> Sequence[ChannelSpec]:
        """Begin to poll. Offers the meter if it told its power, or has not answered yet. Raises SourceUnavailableError."""
        self.close()
        self._check_device()
        self._poller = Poller(
            self._ask,
            name=NAME,
            cadence_seconds=self._cadence_seconds,
            seconds_max=len(COMMANDS) * COMMAND_SECONDS_MAX,
            pace=self._pace,
        )
        self._poller.start()
        self._poller.wait_for_first(self._first_seconds_max)
        problem = self._poller.problem()
        if problem:
            # Not offered, so that a model may stand in; the agent opens it again until the controller tells its power.
            self.close()
            raise unavailable(problem, "See whether the controller is well: `ipmitool mc info`.")
        self._notes = self._first_notes(self._poller)
        excludes = frozenset({Component.GPU, Component.ACCELERATOR}) if self._excludes_gpus else frozenset[Component]()
        return [
            ChannelSpec(
                key=KEY,
                component=Component.OTHER,
                method=Method.INTEGRAL,
                role=Role.METER,
                power_bound_watts=POWER_BOUND_WATTS,
                excludes=excludes,
                cadence_seconds=self._cadence_seconds,
                model="DCMI",
            )
        ]

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """The power, once after each poll; its age; and why there is no newer one. Never waits."""
        assert self._poller is not None
        taken = self._poller.take(now_nanoseconds)
        readings: list[Reading] = []
        if taken.age_seconds is not None:
            readings.append(GaugeReading(DEVICE, Gauge.READING_AGE_SECONDS, taken.age_seconds))
        if taken.value is not None:
            readings.append(PowerReading(KEY, taken.value))
        elif taken.problem:
            readings.append(TryAgain(KEY, taken.problem))
        return readings

    def notes(self) -> Sequence[str]:
        """That the controller had no value at the start, and that GPUs are taken to be excluded."""
        return list(self._notes)

    def close(self) -> None:
        """End the polling; a command under way ends at its own deadline."""
        if self._poller is not None:
            self._poller.stop()
        self._poller = None

    def _check_device(self) -> None:
        paths = [self._devices_root / name for name in DEVICE_FILES]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise SourceUnavailableError(
                f"ipmi: {paths[0]} does not exist: the kernel drives no management controller.",
                "If this machine has one: modprobe -a ipmi_si ipmi_devintf, and write both names to "
                "/etc/modules-load.d/ipmi.conf for the next boot; in a container pass the device in.",
            )
        if not self._access(path):
            raise SourceUnavailableError(
                f"ipmi: {path} may not be opened by user id {os.getuid()}.",
                'Allow it to the agent\'s group: echo \'KERNEL=="ipmi*", GROUP="wattledger", MODE="0660"\' > '
                "/etc/udev/rules.d/71-wattledger-ipmi.rules; udevadm trigger. Whoever may open it can also configure the "
                "controller; where that is too much, read it by Redfish with an account that may only read.",
            )

    def _first_notes(self, poller: Poller[int]) -> list[str]:
        notes = []
        if poller.peek() is None:
            notes.append("ipmi: the controller has not answered yet; it is waited for in the background.")
        if self._excludes_gpus:
            notes.append("ipmi: as configured, the reading is taken to exclude GPUs and accelerators; they are added to it.")
        return notes

    def _ask(self) -> int:
        """Ask the controller; microwatts. Raises PollError."""
        missing: list[str] = []
        for argv in COMMANDS if self._argv is None else (self._argv,):
            try:
                answer = self._run(argv, COMMAND_SECONDS_MAX)
            except CommandMissingError:
                missing.append(argv[0])
                continue
            except CommandError as error:
                raise PollError(f"ipmi: {error}") from error
            self._argv = argv
            if answer.exit_status != 0 and not _POWER.search(answer.stdout):
                raise _refusal(argv, answer.exit_status, answer.stderr or answer.stdout)
            return parse_power(answer.stdout)
        raise PollError(
            f"ipmi: neither {' nor '.join(missing)} is installed; install ipmitool, or FreeIPMI (freeipmi-tools)"
        )


def parse_power(text: str) -> int:
    """The power in the output of either program; microwatts, above 0. Raises PollError where there is none."""
    power, state = _POWER.search(text), _STATE.search(text)
    if power is None:
        raise PollError(f"ipmi: no power in the answer {_line(text)}; report it with the controller's make")
    if state is not None and state[1].lower() not in _ACTIVE:
        # Valid watts beside this were seen too, and nobody can tell them from old ones.
        raise PollError(
            f"ipmi: the controller calls its power reading `{state[1]}` (beside {power[1]} W); switch power monitoring on "
            "in its settings, or update its firmware"
        )
    microwatts = round(float(power[1]) * MICROWATTS_PER_WATT)
    fault = power_sentinel(NAME, microwatts)
    if fault is not None or microwatts > POWER_BOUND_WATTS * MICROWATTS_PER_WATT:
        why = "more than any node draws" if fault is None else fault.sentence
        raise PollError(f"ipmi: {power[1]} W is no power: {why}; update the controller's firmware if it stays")
    return microwatts


def _refusal(argv: Sequence[str], status: int, text: str) -> PollError:
    said = f"ipmi: `{' '.join(argv)}` ended with status {status}: {_line(text)}"
    if UNSUPPORTED.search(text):
        return PollError(
            f"{said}; this controller has no DCMI power reading: read it by Redfish, or switch this source off "
            "(`sources.ipmi.enabled = false`)"
        )
    return PollError(f"{said}; run it by hand, and if it fails there too, reset the controller (`ipmitool mc reset cold`)")


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"`{' / '.join(lines)[:200]}`"
