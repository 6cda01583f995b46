"""The node's power by its management controller's Redfish service, polled beside the samples.

Changes nothing in the controller and reads no event. One session, one request at a time, at its own cadence. What a chassis
shares with other servers is shown, never taken for this server's meter. Source of truth: those of redfish_power.py and of
redfish_session.py.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wattledger_agent.clock import dmi_uuid
from wattledger_agent.readings import (
    ChannelKey,
    ChannelSpec,
    Component,
    Gauge,
    GaugeReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.slow import Pace, Poller, PollError, unavailable
from wattledger_agent.sources.redfish_power import NOT_FOUND, Found, PowerMeter, discover, read_power
from wattledger_agent.sources.redfish_session import Fetch, FolderFetch, RedfishError, RedfishSession, tls_context

NAME = "redfish"
NODE = ChannelKey("node", "input", NAME)

# A poll asks for one to ten resources; a controller that needs a minute for the first shall still give power.
POLL_SECONDS_MAX = 120.0

# How long `open` waits to learn what the controller has; a slow one is offered as the node's meter, and corrected later.
FIRST_SECONDS_MAX = 10.0

# The largest single nodes of 2025, with eight 1400 W GPUs, have power supplies of 18 kW and more; an enclosure has several.
NODE_BOUND_WATTS = 30_000.0
CHASSIS_BOUND_WATTS = 300_000.0

# A poll's outcome: power in microwatts, or why there is none, by device.
Powers = Mapping[str, int | str]


class RedfishSource:
    """A meter of the whole node, and what is shown of an enclosure that it shares.

    fetch: makes the session with the controller, when the source is opened. system: this server's id among several; empty:
    found by itself. uuid: tells this server's DMI UUID; empty where it is not readable. excludes_gpus: as in IpmiSource.
    pace: how polls are driven; replaced by tests.
    """

    name = NAME
    may_block = False

    def __init__(
        self,
        fetch: Callable[[], Fetch],
        *,
        cadence_seconds: float = 10.0,
        excludes_gpus: bool = False,
        system: str = "",
        uuid: Callable[[], str] = lambda: "",
        pace: Pace | None = None,
        first_seconds_max: float = FIRST_SECONDS_MAX,
    ) -> None:
        self._make_fetch = fetch
        self._cadence_seconds = cadence_seconds
        self._excludes_gpus = excludes_gpus
        self._system = system
        self._uuid = uuid
        self._pace = pace
        self._first_seconds_max = first_seconds_max
        self._poller: Poller[Powers] | None = None
        self._found: Found | None = None
        self._keys: list[ChannelKey] = []
        self._notes: list[str] = []

    def open(self) -> Sequence[ChannelSpec]:
        """Begin to poll. Offers what told its power, or has not answered yet. Raises SourceUnavailableError."""
        self.close()
        self._found = None
        try:
            fetch = self._make_fetch()
        except OSError as error:
            raise SourceUnavailableError(
                f"redfish: the file of the authority can't be used: {error}.",
                "Mend `sources.redfish.ca_file`: it is a PEM file that the agent's user may read.",
            ) from error
        self._poller = Poller(
            lambda: self._poll(fetch),
            name=NAME,
            cadence_seconds=self._cadence_seconds,
            seconds_max=POLL_SECONDS_MAX,
            pace=self._pace,
            let_go=fetch.close,
        )
        self._poller.start()
        self._poller.wait_for_first(self._first_seconds_max)
        problem = self._poller.problem()
        if problem:
            # Not offered, so that a model may stand in; the agent opens it again until the controller tells its power.
            self.close()
            raise unavailable(problem, "See whether the controller is well.")
        if self._found is None:
            self._notes = ["redfish: the controller has not answered yet; it is waited for in the background."]
        else:
            self._notes = list(self._found.notes)
        if self._excludes_gpus:
            self._notes.append(
                "redfish: as configured, the reading is taken to exclude GPUs and accelerators; they are added to it."
            )
        meters = self._found.meters if self._found is not None else [None]
        specs = [self._spec(meter) for meter in meters]
        self._keys = [spec.key for spec in specs]
        return specs

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """The powers, once after each poll; their age; and why there are no newer ones. Never waits."""
        assert self._poller is not None
        taken = self._poller.take(now_nanoseconds)
        readings: list[Reading] = []
        for key in list(self._keys):
            if taken.age_seconds is not None:
                readings.append(GaugeReading(key.device, Gauge.READING_AGE_SECONDS, taken.age_seconds))
            if taken.value is not None:
                readings.append(self._outcome(key, taken.value))
            elif taken.problem:
                readings.append(TryAgain(key, taken.problem))
        return readings

    def notes(self) -> Sequence[str]:
        """What is shared, what is configured, and that the controller did not answer at the start."""
        return list(self._notes)

    def close(self) -> None:
        """End the polling; the session is ended by the thread that used it."""
        if self._poller is not None:
            self._poller.stop()
        self._poller = None
        self._keys = []

    def _poll(self, fetch: Fetch) -> Powers:
        fetch.begin(POLL_SECONDS_MAX)
        if self._found is None:
            self._found = discover(fetch.get, system=self._system, uuid=self._uuid())
        powers: dict[str, int | str] = {}
        for meter in self._found.meters:
            try:
                powers[meter.device] = read_power(fetch.get, meter)
            except RedfishError as error:
                # Not of this meter alone. What is gone is looked for anew: an update may have moved it.
                if error.status == NOT_FOUND:
                    self._found = None
                raise
            except PollError as error:
                powers[meter.device] = str(error)
        if all(isinstance(power, str) for power in powers.values()):
            raise PollError(" ".join(str(power) for power in powers.values()))
        return powers

    def _outcome(self, key: ChannelKey, powers: Powers) -> Reading:
        power = powers.get(key.device)
        if power is None:
            # Offered before the controller was understood, and then found to be an enclosure that others share.
            self._keys.remove(key)
            return Gone(
                key,
                f"redfish: the controller tells the power of {', '.join(powers)} alone, which other servers share; restart "
                "the agent to have it shown",
            )
        return PowerReading(key, power) if isinstance(power, int) else TryAgain(key, power)

    def _spec(self, meter: PowerMeter | None) -> ChannelSpec:
        """meter: None before the controller was understood."""
        is_shared = meter is not None and meter.is_shared
        excluded = {Component.GPU, Component.ACCELERATOR} if self._excludes_gpus and not is_shared else set[Component]()
        return ChannelSpec(
            key=NODE if meter is None else ChannelKey(meter.device, "input", NAME),
            component=Component.OTHER,
            method=Method.INTEGRAL,
            role=Role.SHOWN if is_shared else Role.METER,
            power_bound_watts=CHASSIS_BOUND_WATTS if is_shared else NODE_BOUND_WATTS,
            excludes=frozenset(excluded),
            cadence_seconds=self._cadence_seconds,
            model="" if meter is None else meter.model,
        )


def redfish_source(
    address: str,
    *,
    user: str = "",
    password_file: str = "",
    ca_file: str = "",
    insecure: bool = False,
    recording: Path | None = None,
    sysfs_root: Path = Path("/sys"),
    cadence_seconds: float = 10.0,
    excludes_gpus: bool = False,
    system: str = "",
    pace: Pace | None = None,
    tap: Callable[[Fetch], Fetch] = lambda fetch: fetch,
) -> RedfishSource:
    """The source of the controller at an address, or of its recorded answers (a folder).

    pace: as of RedfishSource. tap: puts something that listens before the session.
    """

    def password() -> str:
        return read_password(password_file, os.environ.get("CREDENTIALS_DIRECTORY", ""))

    def fetch() -> Fetch:
        if recording is not None:
            return tap(FolderFetch(recording))
        context = tls_context(ca_file, insecure=insecure) if address.startswith("https") else None
        return tap(RedfishSession(address, user, password, context=context))

    return RedfishSource(
        fetch,
        cadence_seconds=cadence_seconds,
        excludes_gpus=excludes_gpus,
        system=system,
        uuid=lambda: dmi_uuid(sysfs_root),
        pace=pace,
    )


def read_password(path: str, credentials_directory: str) -> str:
    """The first line of a file; a bare name is one of systemd's credentials, if there are any. Raises RedfishError."""
    is_credential = bool(credentials_directory) and "/" not in path
    place = Path(credentials_directory) / path if is_credential else Path(path)
    try:
        return place.read_text().split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RedfishError(
            f"redfish: the password file {place} can't be read ({reason}); let the agent's user read it, or hand it in with "
            "systemd's LoadCredential",
        ) from error
