"""Runs the agent: finds the sensors, opens the spool, and joins sampler and shipper until told to stop.

Decides nothing about energy or delivery. One function runs on a live host, one replays a recording.
"""

import importlib.metadata
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from wattledger_agent.clock import HostClock, dmi_uuid, machine_id
from wattledger_agent.config import AgentConfig, ReplayConfig
from wattledger_agent.counters import Instant
from wattledger_agent.inventory import Inventory, Roots, find_sources, replay_source
from wattledger_agent.meter import Meter
from wattledger_agent.own_cost import ProcessCost
from wattledger_agent.readings import SourceUnavailableError
from wattledger_agent.sampler import Cadence, Sampler
from wattledger_agent.session import Identity
from wattledger_agent.shipper import Shipper
from wattledger_agent.spool import Spool, SpoolError
from wattledger_protos.v1 import telemetry_pb2 as pb

log = logging.getLogger("wattledger.agent")

MEBIBYTE = 1024 * 1024

# At the end of a run this long is spent on sending what is still in the spool; the rest is sent after the next start.
FAREWELL_SECONDS = 2.0

# Rows of a recording in one spool record: at an hour a row these are two days, and a record stays small.
REPLAY_ROWS_PER_RECORD = 48

# A replay as fast as possible stays this many records ahead of the collector, so that the spool stays small.
REPLAY_RECORDS_AHEAD_MAX = 256


class RunError(Exception):
    """The agent can't run; the text says what happened, where, and what to do."""


def version() -> str:
    """The installed release."""
    return importlib.metadata.version("wattledger")


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
            # Written whole or not at all: half an id would be another host.
            partial = path.with_suffix(".partial")
            partial.write_text(f"host-{uuid.uuid4().hex[:12]}\n")
            partial.replace(path)
        return path.read_text().strip()
    except OSError as error:
        raise RunError(
            f"cannot keep the host's id in {path}: {error.strerror}. Let the agent's user write to `state_dir`, "
            "or set `host` in the configuration."
        ) from error


def run(config: AgentConfig, roots: Roots, stopping: threading.Event) -> None:
    """Meter this host until `stopping` is set. Raises RunError."""
    if config.sources.replay is not None:
        replay(config, config.sources.replay, stopping)
        return
    clock = _host_clock(roots)
    inventory = find_sources(config.sources, roots)
    _tell(inventory)
    if not inventory.specs and not inventory.opened:
        raise RunError("no sensor can be read and the estimate is off. Run `wattledger-agent doctor` for the remedies.")
    spool = _open_spool(config, clock.instant(), machine_id(), dmi_uuid(roots.sysfs))
    identity = _identity(config, clock.boot_id)
    shipper = Shipper(spool, identity, config.collector, clock.instant)
    notifier = Notifier()
    sampler = Sampler(
        inventory.opened,
        spool,
        shipper,
        clock,
        Cadence(config.period_seconds, config.flush_seconds, config.live_seconds),
        own_cost=ProcessCost(),
        stopping=stopping,
        on_tick=notifier.alive,
    )
    shipper.on_new_epoch = sampler.renew
    shipper.on_settings = sampler.apply
    shipper.start()
    notifier.ready()
    log.info("metering %s for the collector at %s", identity.host or "this host", config.collector.address)
    try:
        sampler.run()
    finally:
        _farewell(spool, shipper)
        spool.close()


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
    spool = _open_spool(config, opening, machine_id(), "")
    shipper = Shipper(spool, _identity(config, opening.boot_id, pb.TIME_SOURCE_RECORDED), config.collector, lambda: last.now)
    meter = Meter(state=spool.last_state, integral_gap_seconds_max=0.0)
    meter.offer(specs, opening)
    shipper.start()
    try:
        for index, (now, readings) in enumerate(source.rows(), start=1):
            if recording.speed:
                stopping.wait((now.boottime_nanoseconds - last.now.boottime_nanoseconds) / 1e9 / recording.speed)
            if stopping.is_set():
                break
            meter.observe(readings, now)
            last.now = now
            if index % REPLAY_ROWS_PER_RECORD == 0 or recording.speed:
                _spool_replayed(meter, spool, shipper, now, stopping)
        _spool_replayed(meter, spool, shipper, last.now, stopping)
        while spool.unacknowledged_records and not stopping.wait(0.05):
            pass
    finally:
        shipper.stop()
        spool.close()
        source.close()


class LastInstant:
    """The clock of a replay: the time of the row before."""

    def __init__(self, opening: Instant) -> None:
        self.now = opening


class Notifier:
    """Tells systemd that the agent is ready and alive (man sd_notify(3)); silent without it."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._told = 0.0

    def ready(self) -> None:
        """The agent meters."""
        self._tell(b"READY=1")

    def alive(self) -> None:
        """A tick was made; told every ten seconds, since the unit's watchdog waits for minutes."""
        if self._address and time.monotonic() - self._told >= 10.0:
            self._told = time.monotonic()
            self._tell(b"WATCHDOG=1")

    def _tell(self, state: bytes) -> None:
        if self._address:
            address = self._address.replace("@", "\0", 1)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.sendto(state, address)


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


def _host_clock(roots: Roots) -> HostClock:
    try:
        return HostClock(roots.procfs)
    except OSError as error:
        raise RunError(
            f"cannot read the boot id at {error.filename}: {error.strerror}. The agent needs Linux with procfs; in a "
            "container mount it and name its place with --procfs-root."
        ) from error


def _open_spool(config: AgentConfig, opening: Instant, machine: str, dmi: str) -> Spool:
    try:
        return Spool.open(
            Path(config.state_dir) / "spool",
            machine_id=machine,
            dmi_uuid=dmi,
            opening=opening,
            new_epoch=lambda: os.urandom(16),
            quota_bytes=config.spool_quota_mebibytes * MEBIBYTE,
        )
    except SpoolError as error:
        raise RunError(str(error)) from error


def _identity(
    config: AgentConfig, boot_id: bytes, time_source: "pb.TimeSource.ValueType" = pb.TIME_SOURCE_CLOCK
) -> Identity:
    labels = {"hostname": socket.gethostname(), **config.labels}
    return Identity(host_id(config), version(), machine_id(), boot_id, labels, time_source)


def _tell(inventory: Inventory) -> None:
    for missing in inventory.missing:
        log.info("%s %s", missing.reason, missing.remedy)
    for source in inventory.opened:
        for note in source.source.notes():
            log.info("%s", note)


def _farewell(spool: Spool, shipper: Shipper) -> None:
    """Give what was spooled last a moment to be acknowledged."""
    until = time.monotonic() + FAREWELL_SECONDS
    while spool.unacknowledged_records and shipper.status().connected and time.monotonic() < until:
        time.sleep(0.02)
    shipper.stop()
