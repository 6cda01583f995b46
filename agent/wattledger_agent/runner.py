"""Runs the agent: finds the sensors, opens the spool, and joins sampler and shipper until told to stop.

Decides nothing about energy or delivery. One function runs on a live host, one replays a recording.
"""

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger_agent import __version__
from wattledger_agent.channels import MeterStateError
from wattledger_agent.clock import HostClock, dmi_uuid, machine_id
from wattledger_agent.config import AgentConfig, ReplayConfig
from wattledger_agent.counters import Instant
from wattledger_agent.delivery_text import delivery_text
from wattledger_agent.inventory import OPEN_SECONDS_MAX, Inventory, Roots, find_sources, replay_source, sensor_named
from wattledger_agent.late import LateSources
from wattledger_agent.meter import Meter
from wattledger_agent.own_cost import ProcessCost
from wattledger_agent.readings import NANOSECONDS_PER_SECOND, Reading, SourceUnavailableError
from wattledger_agent.sampler import Cadence, Sampler
from wattledger_agent.session import Identity
from wattledger_agent.shipper import Shipper
from wattledger_agent.spool import Spool, SpoolError, SpoolLockedError
from wattledger_agent.workload_meter import WorkloadSettings
from wattledger_agent.workload_setup import open_workloads
from wattledger_agent.wraps import shortest_wrap
from wattledger_protos.v1 import telemetry_pb2 as pb

if TYPE_CHECKING:
    from wattledger_agent.sources.replay import ReplaySource

log = logging.getLogger("wattledger.agent")

MEBIBYTE = 1024 * 1024

# At the end of a run this long is spent on sending what is still in the spool; the rest is sent after the next start.
FAREWELL_SECONDS = 2.0

# An agent that was told to stop needs its farewell, and the last write.
LOCK_SECONDS_MAX = FAREWELL_SECONDS + 2.0

# Rows of a recording in one spool record: at an hour a row these are two days, and a record stays small.
REPLAY_ROWS_PER_RECORD = 48

# What was replayed waits no longer than this for its record, however few rows it is.
REPLAY_SECONDS_PER_RECORD = 1.0

# A replay as fast as possible stays this many records ahead of the collector, so that the spool stays small.
REPLAY_RECORDS_AHEAD_MAX = 256


class RunError(Exception):
    """The agent can't run; the text says what happened, where, and what to do."""


def host_id(config: AgentConfig) -> str:
    """The host's id: configured, or empty where the certificate names it, or made once and kept in the state folder.

    Raises RunError if the folder can't be used.
    """
    if config.host or config.collector.uses_tls:
        return config.host
    path = Path(config.state_dir) / "host-id"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_whole(path, f"host-{uuid.uuid4().hex[:12]}\n")
        made = path.read_text().strip()
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(
            f"cannot keep the host's id in {path}: a file is in the folder's place. Move it away, or set `state_dir` to "
            "another folder."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RunError(
            f"cannot keep the host's id in {path}: {reason}. Let the agent's user write to `state_dir`, "
            "or set `host` in the configuration."
        ) from error
    if not made:
        raise RunError(
            f"{path} is empty, so this host has lost its id. Write the one that `wattledger-collector host list` shows into "
            "it, or remove it to go on as a new host."
        )
    return made


def _write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all, also if the power fails: half an id would be another host."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def run(config: AgentConfig, roots: Roots, stopping: threading.Event) -> None:
    """Meter this host until `stopping` is set. Raises RunError, ClockError or ShipperError."""
    if config.sources.replay is not None:
        replay(config, config.sources.replay, stopping)
        return
    clock = HostClock(roots.procfs)
    identity = _identity(config, clock.boot_id)
    spool = _open_spool(config, clock.instant(), machine_id(), dmi_uuid(roots.sysfs))
    try:
        shipper = Shipper(spool, identity, config.collector, clock.instant)
        try:
            # Side by side: drivers that hang one after the other would keep the others from being metered for minutes.
            inventory = find_sources(config.sources, roots, processes=config.workloads.enabled, seconds_max=OPEN_SECONDS_MAX)
            workloads = open_workloads(config, roots, inventory)
            _tell(inventory)
            _check_period(config.period_seconds, inventory)
            if not inventory.opened:
                raise RunError(
                    "no sensor can be read and the estimate is off. Run `wattledger-agent doctor` for the remedies."
                )
            log.info("metering %s for the collector at %s", identity.host or "this host", config.collector.address)
            _meter(config, roots, clock, spool, shipper, inventory, stopping, workloads)
        except SpoolError as error:
            raise RunError(str(error)) from error
        finally:
            _farewell(spool, shipper)
    finally:
        spool.close()


def _meter(
    config: AgentConfig,
    roots: Roots,
    clock: HostClock,
    spool: Spool,
    shipper: Shipper,
    inventory: Inventory,
    stopping: threading.Event,
    workloads: WorkloadSettings | None,
) -> None:
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""), lambda: _delivery(shipper))
    late = LateSources(lambda name: sensor_named(name, config.sources, roots, processes=config.workloads.enabled))
    for missing in inventory.missing:
        late.watch(missing.source, clock.instant().boottime_nanoseconds)
    sampler = Sampler(
        inventory.opened,
        spool,
        shipper,
        clock,
        Cadence(config.period_seconds, config.flush_seconds, config.live_seconds),
        own_cost=ProcessCost(),
        stopping=stopping,
        on_tick=notifier.alive,
        workloads=workloads,
        late=late,
    )
    shipper.on_new_epoch = sampler.renew
    shipper.on_settings = sampler.apply
    shipper.start()
    notifier.ready()
    sampler.run()


def replay(config: AgentConfig, recording: ReplayConfig, stopping: threading.Event) -> None:
    """Meter a recording and deliver all of it; returns when the collector has acknowledged it. Raises RunError."""
    source = replay_source(recording)
    try:
        specs = source.open()
    except SourceUnavailableError as error:
        raise RunError(str(error)) from error
    for note in source.notes():
        log.info("%s", note)
    opening = source.opening()
    last = LastInstant(opening)
    # A folder of its own: in this host's own account recorded energy would pass for metered.
    spool = _open_spool(config, opening, machine_id(), "", folder="recorded")
    try:
        meter = Meter(state=spool.last_state, integral_gap_seconds_max=0.0)
    except MeterStateError as error:
        spool.close()
        raise RunError(f"{config.state_dir}/recorded: {error}") from error
    # The host name of whoever replays is none of the recorded machine's.
    identity = Identity(config.host, __version__, machine_id(), opening.boot_id, config.labels, pb.TIME_SOURCE_RECORDED)
    shipper = Shipper(spool, identity, config.collector, lambda: last.now)
    outdated = threading.Event()

    def give_up() -> None:
        outdated.set()
        stopping.set()

    shipper.on_new_epoch = give_up
    meter.offer(specs, opening)
    shipper.start()
    try:
        rows, paused = 0, 0.0
        for now, readings in unplayed_rows(source, meter, last):
            pause = pause_seconds(last.now, now, recording.speed)
            if rows >= REPLAY_ROWS_PER_RECORD or paused + pause >= REPLAY_SECONDS_PER_RECORD:
                _spool_replayed(meter, spool, shipper, last.now, stopping)
                rows, paused = 0, 0.0
            stopping.wait(pause)
            if stopping.is_set():
                break
            meter.observe(readings, now)
            last.now = now
            rows, paused = rows + 1, paused + pause
        _spool_replayed(meter, spool, shipper, last.now, stopping)
        while spool.unacknowledged_records and not stopping.wait(0.05):
            pass
    finally:
        shipper.stop()
        spool.close()
        source.close()
    if outdated.is_set():
        raise RunError(
            f"the collector holds more of {config.host or 'this host'} than {config.state_dir} knows of: the folder is an "
            "older copy. Put the newer one back, or replay under another `host` with a `state_dir` of its own."
        )
    if not stopping.is_set():
        log.info("%s is in the ledger up to %s", recording.path, _recorded_time(last.now))


def unplayed_rows(source: "ReplaySource", meter: Meter, last: "LastInstant") -> Iterator[tuple[Instant, list[Reading]]]:
    """The rows after those that the spool has from before a restart, or from an earlier recording of the device."""
    played = 0
    for now, readings in source.rows():
        if meter.is_past(now):
            played += 1
            last.now = now
            continue
        if played:
            log.info("going on after %s: the %d rows up to there were metered before", _recorded_time(last.now), played)
            played = 0
        yield now, readings
    if played:
        log.info("nothing is new: all %d rows up to %s were metered before", played, _recorded_time(last.now))


def pause_seconds(before: Instant, now: Instant, speed: float) -> float:
    """How long to wait for a row; 0 at speed 0, which is as fast as possible."""
    recorded = (now.boottime_nanoseconds - before.boottime_nanoseconds) / NANOSECONDS_PER_SECOND
    return recorded / speed if speed else 0.0


def _recorded_time(now: Instant) -> str:
    return datetime.fromtimestamp(now.realtime_nanoseconds // NANOSECONDS_PER_SECOND, UTC).isoformat()


class LastInstant:
    """The clock of a replay: the time of the row before."""

    def __init__(self, opening: Instant) -> None:
        self.now = opening


def _delivery(shipper: Shipper) -> str:
    status = shipper.status()
    return delivery_text(
        connected=status.connected,
        refusal=status.refusal,
        error=status.error,
        collector_clock_seconds=status.collector_clock_seconds,
    )


class Notifier:
    """Tells systemd that the agent is ready and alive, and how delivery stands (man sd_notify(3)).

    address: what systemd put into NOTIFY_SOCKET; empty: silent. status: one line, which `systemctl status` shows.
    """

    def __init__(self, address: str, status: Callable[[], str] = lambda: "") -> None:
        self._status = status
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._told = 0.0

    def ready(self) -> None:
        """The agent meters."""
        self._tell(b"READY=1")

    def alive(self) -> None:
        """A tick was made; told every ten seconds, since the unit's watchdog waits for minutes."""
        if self._address and time.monotonic() - self._told >= 10.0:
            self._told = time.monotonic()
            status = self._status()
            self._tell(b"WATCHDOG=1" + (f"\nSTATUS={status}".encode() if status else b""))

    def _tell(self, state: bytes) -> None:
        if self._address:
            # A supervisor that does not listen is no reason not to meter; if it is there, its watchdog decides.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.sendto(state, self._address)


def _spool_replayed(meter: Meter, spool: Spool, shipper: Shipper, now: Instant, stopping: threading.Event) -> None:
    cut = meter.cut(now)
    if cut is None:
        return
    try:
        spool.append(cut)
    except SpoolError as error:
        raise RunError(str(error)) from error
    shipper.appended()
    while spool.unacknowledged_records > REPLAY_RECORDS_AHEAD_MAX and not stopping.wait(0.02):
        pass


def _open_spool(config: AgentConfig, opening: Instant, machine: str, dmi: str, *, folder: str = "spool") -> Spool:
    """The spool, once it is free: an agent whose supervisor died is just ending when the next one starts."""
    until = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            return Spool.open(
                Path(config.state_dir) / folder,
                machine_id=machine,
                dmi_uuid=dmi,
                opening=opening,
                new_epoch=lambda: os.urandom(16),
                quota_bytes=config.spool_quota_mebibytes * MEBIBYTE,
            )
        except SpoolLockedError as error:
            if time.monotonic() >= until:
                raise RunError(str(error)) from error
            time.sleep(0.1)
        except SpoolError as error:
            raise RunError(str(error)) from error


def _identity(
    config: AgentConfig, boot_id: bytes, time_source: "pb.TimeSource.ValueType" = pb.TIME_SOURCE_CLOCK
) -> Identity:
    labels = {"hostname": socket.gethostname(), **config.labels}
    return Identity(host_id(config), __version__, machine_id(), boot_id, labels, time_source)


def _tell(inventory: Inventory) -> None:
    for missing in inventory.missing:
        log.info("%s %s", missing.reason, missing.remedy)
    for source in inventory.opened:
        for note in source.source.notes():
            log.info("%s", note)


def _check_period(period_seconds: float, inventory: Inventory) -> None:
    """Warn of a period that is near the shortest wrap. Raises RunError if nothing of that counter could ever be booked."""
    wrap = shortest_wrap(inventory.specs)
    if wrap is None or not wrap.is_risky(period_seconds):
        return
    remedy = f"Set `period_seconds` to at most {wrap.period_seconds_max:.1f}."
    if wrap.is_hopeless(period_seconds):
        raise RunError(
            f"`period_seconds` is {period_seconds:g}, but {wrap.sentence()}: no reading could be booked. {remedy}"
        )
    log.warning(
        "`period_seconds` is %g, and %s: a few failed reads leave a gap. %s", period_seconds, wrap.sentence(), remedy
    )


def _farewell(spool: Spool, shipper: Shipper) -> None:
    """Give what was spooled last a moment to be acknowledged."""
    until = time.monotonic() + FAREWELL_SECONDS
    while spool.unacknowledged_records and shipper.status().connected and time.monotonic() < until:
        time.sleep(0.02)
    shipper.stop()
