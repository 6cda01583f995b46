"""The host's clocks and identity, beside what the kernel says elsewhere, and on made-up roots."""

import time
import uuid
from pathlib import Path

import pytest

from wattledger_agent.clock import ClockError, HostClock, dmi_uuid, machine_id

BOOT = uuid.UUID("0b7c1b1e-93a5-4b51-8a5c-2a4f6f1c9d10")
# Between two looks at clocks this much may pass on a machine that does other things.
LATE_NANOSECONDS = 5_000_000_000


def proc_with(folder: Path, boot_id: str) -> Path:
    """A procfs root with a boot id."""
    path = folder / "sys/kernel/random/boot_id"
    path.parent.mkdir(parents=True)
    path.write_text(boot_id)
    return folder


def test_an_instant_is_the_kernels() -> None:
    """Both clocks lie between two looks at them, and the boot is that of /proc."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
    now = HostClock().instant()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
    assert before[0] <= now.boottime_nanoseconds <= after[0]
    assert before[1] <= now.realtime_nanoseconds <= after[1]
    assert len(now.boot_id) == 16
    assert str(uuid.UUID(bytes=now.boot_id)) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_boottime_is_the_uptime() -> None:
    """/proc/uptime counts the same clock in hundredths of a second."""
    uptime_nanoseconds = float(Path("/proc/uptime").read_text().split()[0]) * 1e9
    assert 0 <= HostClock().instant().boottime_nanoseconds - uptime_nanoseconds + 10_000_000 <= LATE_NANOSECONDS


def test_suspended_time_is_what_boottime_has_beyond_monotonic_time() -> None:
    """It is never negative, and does not change while the host is awake."""
    clock = HostClock()
    first, second = clock.instant(), clock.instant()
    monotonic = time.monotonic_ns()
    assert first.suspended_nanoseconds >= 0
    assert abs(second.suspended_nanoseconds - first.suspended_nanoseconds) <= 1_000_000
    assert 0 <= monotonic - (second.boottime_nanoseconds - second.suspended_nanoseconds) <= LATE_NANOSECONDS


def test_time_goes_on_from_instant_to_instant() -> None:
    """A meter ignores rows that are not after the last one."""
    clock = HostClock()
    times = [clock.instant().boottime_nanoseconds for _ in range(100)]
    assert times == sorted(set(times))


def test_the_boot_is_read_below_the_root_given(tmp_path: Path) -> None:
    """A container has the host's procfs in another place."""
    assert HostClock(proc_with(tmp_path, f"{BOOT}\n")).instant().boot_id == BOOT.bytes


@pytest.mark.parametrize("content", ["", "no boot id\n", "0b7c1b1e\n"])
def test_a_boot_id_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    """Energy of two boots must not be taken for that of one."""
    with pytest.raises(ClockError, match="--procfs-root"):
        HostClock(proc_with(tmp_path, content))


def test_a_missing_procfs_is_told(tmp_path: Path) -> None:
    """With the path that is missing and what to do."""
    with pytest.raises(ClockError, match=f"{tmp_path}/sys/kernel/random/boot_id.*--procfs-root"):
        HostClock(tmp_path)


def test_the_machine_id_is_that_of_the_root(tmp_path: Path) -> None:
    """Without its line feed; empty where there is none."""
    assert machine_id(tmp_path) == ""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("8d5fca2f33c14bd7b1c5a64d46f5a7a4\n")
    assert machine_id(tmp_path) == "8d5fca2f33c14bd7b1c5a64d46f5a7a4"


@pytest.mark.parametrize("content", [b"uninitialized\n", b"\xff\xfe\n", b""])
def test_a_machine_id_that_is_none_is_empty(tmp_path: Path, content: bytes) -> None:
    """An image that was never booted has a word in its place, and a damaged disk may have anything."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_bytes(content)
    assert machine_id(tmp_path) == ""


def test_the_mainboards_uuid_is_that_of_sysfs(tmp_path: Path) -> None:
    """Empty where only root may read it, and where there is none."""
    assert dmi_uuid(tmp_path) == ""
    path = tmp_path / "class/dmi/id/product_uuid"
    path.parent.mkdir(parents=True)
    path.write_text("4C4C4544-0042-3510-8054-B7C04F4A4D32\n")
    assert dmi_uuid(tmp_path) == "4C4C4544-0042-3510-8054-B7C04F4A4D32"
