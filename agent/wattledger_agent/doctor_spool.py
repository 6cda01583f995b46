"""Whether the state folder can hold the spool, and whose spool is there. Part of `doctor`.

Writes nothing, not even for a test, and takes no lock. Source of truth: access(2), statvfs(3), proc_locks(5), the headers of
the spool's segments, and their newest record.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from wattledger_agent import spool_format
from wattledger_agent.channels import Channel, MeterStateError, unpack
from wattledger_agent.clock import dmi_uuid, machine_id
from wattledger_agent.config import AgentConfig
from wattledger_agent.doctor_faults import FAULTS, Finding
from wattledger_agent.doctor_host import Host, mount_of, read_text

MEBIBYTE = 1024 * 1024
DISK_FREE_BYTES_MIN = 64 * MEBIBYTE

# A file's time may be ahead of a look at the clock by what a network file system's server is.
AHEAD_SECONDS_MAX = 60.0

UNIT = "wattledger-agent.service"

# The header of a segment lies in its first bytes.
HEADER_BYTES_MAX = 64 * 1024

_VOLATILE = frozenset({"tmpfs", "ramfs"})
_NO_FILES = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "securityfs", "bpf", "tracefs"})


def free_bytes_of(path: Path) -> int:
    """Room on a path's disk for who is not root."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def spool_findings(
    config: AgentConfig, host: Host, utc_seconds: float, free_bytes: Callable[[Path], int] = free_bytes_of
) -> Iterator[Finding]:
    """Look at the state folder, or where it would be made. utc_seconds: this host's clock. free_bytes: on a path's disk."""
    folder = Path(config.state_dir)
    # os.path: a folder that may not be looked into is no error there, but one that does not exist.
    existing = next(path for path in (folder, *folder.resolve().parents) if os.path.lexists(path))
    if not os.path.isdir(existing):
        yield FAULTS["state-is-file"].finding(path=existing)
        return
    hindrance = _hindrance(existing, host)
    if hindrance is not None:
        yield hindrance
        return
    mount = mount_of(existing.resolve(), host.mounts())
    if mount is not None and mount.kind in _VOLATILE:
        yield FAULTS["state-volatile"].finding(path=existing, kind=mount.kind)
    spool = folder / "spool"
    segments = sorted(spool.glob("*.segment")) if os.access(spool, os.R_OK) else []
    yield _room(config, folder, existing, segments, free_bytes(existing))
    yield from _holder(spool / "lock", host)
    yield from _owner(spool, segments, host)
    yield from _silent_meters(segments)
    yield from _date(segments, utc_seconds)


def _hindrance(folder: Path, host: Host) -> Finding | None:
    """Why no file can be made in a folder; None if one can."""
    mount = mount_of(folder.resolve(), host.mounts())
    if mount is not None and mount.kind in _NO_FILES:
        return FAULTS["state-unwritable"].finding(path=folder, reason=f"{mount.kind} takes no files", user=os.getuid())
    if mount is not None and "ro" in mount.options:
        return FAULTS["state-read-only"].finding(path=folder, mount=mount.place)
    # By the effective ids, as the agent would.
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return FAULTS["state-unwritable"].finding(path=folder, reason="Permission denied", user=os.getuid())
    return None


def _room(config: AgentConfig, folder: Path, existing: Path, segments: list[Path], free: int) -> Finding:
    if free < DISK_FREE_BYTES_MIN:
        return FAULTS["disk-full"].finding(free=free // MEBIBYTE, path=existing)
    room = (free + sum(_size(segment) for segment in segments)) // MEBIBYTE
    if room < config.spool_quota_mebibytes:
        return FAULTS["quota-over-disk"].finding(quota=config.spool_quota_mebibytes, path=existing, room=room)
    return Finding("spool", "ok", f"{folder} can be written, {free // MEBIBYTE} MiB free")


def _holder(lock: Path, host: Host) -> Iterator[Finding]:
    """Who has the spool open. The kernel's list is read, since taking the lock would be in the way of an agent."""
    try:
        inode = lock.stat().st_ino
    except OSError:
        return
    for line in read_text(host.procfs / "locks").splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or fields[5].rpartition(":")[2] != str(inode):
            continue
        process = fields[4]
        command = read_text(host.procfs / process / "cmdline").replace("\0", " ").strip() or "unknown"
        if UNIT in read_text(host.procfs / process / "cgroup"):
            yield Finding("spool", "ok", f"the agent of {UNIT} (process {process}) has it open")
        else:
            yield FAULTS["spool-locked"].finding(process=process, command=command[:80], path=lock.parent)


def _owner(spool: Path, segments: list[Path], host: Host) -> Iterator[Finding]:
    header = next((found for path in reversed(segments) if (found := _header(path)) is not None), None)
    if header is None:
        return
    pairs = ((header.machine_id, machine_id()), (header.dmi_uuid, dmi_uuid(host.sysfs)))
    for theirs, ours in pairs:
        if theirs and ours and theirs.casefold() != ours.casefold():
            yield FAULTS["spool-foreign"].finding(path=spool, theirs=theirs, ours=ours)
            return


def _silent_meters(segments: list[Path]) -> Iterator[Finding]:
    """The meters whose silence stands in gaps, by the newest record of the agent that runs, or ran last."""
    for channel in _channels(segments[-1]) if segments else ():
        if channel.state.has_lapsed and not channel.is_closed:
            yield FAULTS["meter-silent"].finding(device=channel.spec.key.device, source=channel.spec.key.source)


def _channels(segment: Path) -> list[Channel]:
    """The channels of a segment's newest record; none where it can't be read: the agent begins anew there, and says so."""
    try:
        data = segment.read_bytes()
        samples = [one for one in spool_format.scan(data).entries if one.type == spool_format.RecordType.SAMPLES]
    except (OSError, spool_format.NewerVersionError):
        return []
    for newest in samples[-1:]:
        contents = spool_format.decode_contents(data[newest.offset : newest.offset + newest.length])
        with contextlib.suppress(MeterStateError):
            return [] if contents is None else unpack(contents[1], 0.0)[2]
    return []


def _date(segments: list[Path], utc_seconds: float) -> Iterator[Finding]:
    written = max((segment.stat().st_mtime for segment in segments), default=0.0)
    if written > utc_seconds + AHEAD_SECONDS_MAX:
        yield FAULTS["clock-before-spool"].finding(now=_time(utc_seconds), written=_time(written))


def _header(segment: Path) -> spool_format.Header | None:
    try:
        with segment.open("rb") as file:
            return spool_format.scan(file.read(HEADER_BYTES_MAX)).header
    except (OSError, spool_format.NewerVersionError):
        return None


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _time(utc_seconds: float) -> str:
    return datetime.fromtimestamp(utc_seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
