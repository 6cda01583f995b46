"""`doctor` on the state folder, the clocks and the host's identity: each fault is made with real files and a given clock."""

import fcntl
import os
import time
from pathlib import Path

from tests.agent.doctoring import QUICK, USER, fault, faults, host_config, instant, of_host
from tests.agent.metering import at, counter
from tests.agent.test_silence import CPU, silent_since
from tests.agent.test_silence import NODE as SILENT

from wattledger_agent.config import AgentConfig
from wattledger_agent.doctor import Finding, Means, exit_status
from wattledger_agent.doctor_clock import clock_findings, identity_findings
from wattledger_agent.doctor_host import Host
from wattledger_agent.doctor_spool import MEBIBYTE, spool_findings
from wattledger_agent.meter import Cut, Meter
from wattledger_agent.spool import Spool

NOW = 1_780_000_000.0


def look(
    folder: Path, *, free_mebibytes: int = 10_000, mounts: str = "", locks: str = "", now: float = NOW
) -> list[Finding]:
    """What is said of the state folder of a host with these mounts and locks."""
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True, exist_ok=True)
    (proc / "self/mountinfo").write_text(mounts)
    (proc / "locks").write_text(locks)
    config = host_config(folder)
    return list(spool_findings(config, Host(folder / "sys", proc), now, lambda path: free_mebibytes * MEBIBYTE))


def mount(place: Path, kind: str, options: str = "rw") -> str:
    """One line of mountinfo."""
    name = str(place).replace(" ", "\\040")
    return f"22 1 0:21 / / rw - ext4 /dev/sda rw\n23 22 0:22 / {name} {options},relatime - {kind} none rw\n"


def test_a_folder_that_can_be_written_is_all_well(tmp_path: Path) -> None:
    """It need not be there yet."""
    (finding,) = look(tmp_path)

    assert finding == Finding("spool", "ok", f"{tmp_path}/state can be written, 10000 MiB free")
    assert not (tmp_path / "state").exists()


def test_a_file_in_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    """The agent would not start."""
    (tmp_path / "state").write_text("")

    finding = fault(look(tmp_path), "state-is-file")

    assert finding.found == f"{tmp_path}/state is a file, no folder"
    assert finding.remedy == "Move it away, or set `state_dir` to another folder."


def test_a_file_above_the_state_folder_is_named_too(tmp_path: Path) -> None:
    """The nearest that is there."""
    (tmp_path / "state").write_text("")
    config = AgentConfig(state_dir=str(tmp_path / "state/deeper/still"))

    (finding,) = spool_findings(config, Host(tmp_path, tmp_path), NOW)

    assert (finding.id, finding.found) == ("state-is-file", f"{tmp_path}/state is a file, no folder")


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    """The kernel's own file systems take none, whoever asks."""
    findings = of_host(tmp_path, AgentConfig(state_dir="/proc/wattledger"))

    finding = fault(findings, "state-unwritable")
    assert finding.found == "cannot write to /proc: proc takes no files"
    assert finding.remedy == f"Let user id {USER} write there, or set `state_dir` to another folder."
    assert exit_status(findings) == 1


def test_a_file_system_that_is_mounted_read_only_is_named(tmp_path: Path) -> None:
    """As after an error of the disk, or in a container with a read-only root."""
    finding = fault(look(tmp_path, mounts=mount(tmp_path, "ext4", "ro")), "state-read-only")

    assert finding.remedy == f"mount -o remount,rw {tmp_path}, or set `state_dir` to another folder."


def test_a_spool_in_memory_is_a_warning(tmp_path: Path) -> None:
    """It works, until the host boots; also where the place has a blank in its name."""
    folder = tmp_path / "a b"
    folder.mkdir()

    finding = fault(look(folder, mounts=mount(folder, "tmpfs")), "state-volatile")

    assert finding.found == f"{folder} is on tmpfs: the spool, and what it has not delivered, are lost at each boot"
    assert finding.remedy == (
        "Set `state_dir` to a folder on a disk, such as /var/lib/wattledger-agent; in a container mount a volume there."
    )


def test_of_two_mounts_at_one_place_the_later_one_counts(tmp_path: Path) -> None:
    """It hides the one before."""
    mounts = mount(tmp_path, "tmpfs") + mount(tmp_path, "ext4")

    assert not faults(look(tmp_path, mounts=mounts))


def test_a_disk_that_is_nearly_full_is_a_warning(tmp_path: Path) -> None:
    """With what it will cost, in order."""
    finding = fault(look(tmp_path, free_mebibytes=63), "disk-full")

    assert finding.found == f"63 MiB free at {tmp_path}"
    assert finding.remedy == "Make room: a full disk costs time resolution first, and then the oldest records."


def test_a_quota_beyond_the_disk_is_a_warning(tmp_path: Path) -> None:
    """What the spool has already counts as its room."""
    (tmp_path / "state/spool").mkdir(parents=True)
    (tmp_path / "state/spool/0000000000000001.segment").write_bytes(bytes(MEBIBYTE))

    finding = fault(look(tmp_path, free_mebibytes=100), "quota-over-disk")

    assert finding.found == f"`spool_quota_mebibytes` is 256, but {tmp_path}/state has 101 MiB for it"
    assert finding.remedy == "Set `spool_quota_mebibytes` to at most 101, or make room."
    assert "quota-over-disk" not in faults(look(tmp_path, free_mebibytes=255))


def test_a_process_that_holds_the_spool_is_named_with_its_command(tmp_path: Path) -> None:
    """This very process holds it, by the kernel's list; the lock itself is not touched."""
    lock = tmp_path / "state/spool/lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        findings = of_host(tmp_path, host_config(tmp_path))

    finding = fault(findings, "spool-locked")
    assert finding.found.startswith(f"process {os.getpid()} (")
    assert finding.remedy == (
        f"If it is not the agent that you want: kill {os.getpid()}; a second agent needs a `state_dir` of its own."
    )
    assert "spool-locked" not in faults(of_host(tmp_path, host_config(tmp_path)))


def test_the_agent_of_the_unit_may_hold_its_spool(tmp_path: Path) -> None:
    """Who asks doctor beside a running agent is told no fault."""
    lock = tmp_path / "state/spool/lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/cgroup").write_text("0::/system.slice/wattledger-agent.service\n")

    findings = look(tmp_path, locks=f"1: FLOCK  ADVISORY  WRITE 77 08:01:{lock.stat().st_ino} 0 EOF\n")

    assert "spool-locked" not in faults(findings)
    assert Finding("spool", "ok", "the agent of wattledger-agent.service (process 77) has it open") in findings


def spool_of(folder: Path, state: bytes) -> None:
    """A state folder whose newest record has this state."""
    spool = Spool.open(folder / "state/spool", machine_id="", dmi_uuid="", opening=instant(NOW), new_epoch=lambda: bytes(16))
    for last in (b"older", state):
        spool.append(Cut(b"payload", last, b"catalog", 1, 1))
    spool.close()


def test_a_meter_whose_silence_stands_in_gaps_is_named(tmp_path: Path) -> None:
    """The agent that runs knows it: doctor itself asks once, and a controller may answer just then."""
    meter = Meter(state=silent_since(at(0)), integral_gap_seconds_max=10.0)
    meter.offer([SILENT, CPU], at(0))
    meter.expect({"redfish"})
    meter.observe([counter(CPU, 1)], at(400))
    cut = meter.cut(at(400))
    assert cut is not None
    spool_of(tmp_path, cut.state)

    finding = fault(look(tmp_path), "meter-silent")

    assert finding.found.startswith("node is metered by redfish, which has told nothing for five minutes or more")
    assert finding.verdict == "warning"


def test_a_meter_that_tells_and_a_state_that_can_not_be_read_are_no_silence(tmp_path: Path) -> None:
    """What is wrong with the state is told by the agent when it starts."""
    spool_of(tmp_path / "telling", silent_since(at(0)))
    spool_of(tmp_path / "unread", b"none")

    for folder in ("telling", "unread"):
        assert "meter-silent" not in [finding.id for finding in look(tmp_path / folder)]


def test_a_spool_of_another_machine_is_told(tmp_path: Path) -> None:
    """As on a copied disk: it would be set aside at the next start."""
    spool = Spool.open(
        tmp_path / "state/spool",
        machine_id="another",
        dmi_uuid="4c4c4544-0000",
        opening=instant(NOW),
        new_epoch=lambda: bytes(16),
    )
    _fill(spool)
    spool.close()
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/product_uuid").write_text("4c4c4544-1111\n")

    finding = fault(look(tmp_path), "spool-foreign")

    assert finding.found.startswith(f"{tmp_path}/state/spool was written on another machine (")
    assert finding.remedy == (
        f"After copying a disk: rm -r {tmp_path}/state/spool on the copy. After a new mainboard nothing is to be done."
    )


def test_a_clock_that_was_set_back_behind_the_spool_is_told(tmp_path: Path) -> None:
    """What is metered now would be dated before what was metered then."""
    (tmp_path / "state/spool").mkdir(parents=True)
    segment = tmp_path / "state/spool/0000000000000001.segment"
    segment.write_bytes(b"")
    os.utime(segment, (NOW + 3600, NOW + 3600))

    finding = fault(look(tmp_path), "clock-before-spool")

    assert finding.found == (
        "the clock says 2026-05-28 20:26:40Z, but the spool was written at 2026-05-28 21:26:40Z: it was set back"
    )
    assert finding.remedy == "timedatectl set-ntp true, and compare with: chronyc tracking"
    assert "clock-before-spool" not in faults(look(tmp_path, now=NOW + 3590))


def test_a_clock_that_nobody_sets_is_a_warning(tmp_path: Path) -> None:
    """The kernel says so."""
    means = Means(QUICK.connect, instant=lambda: instant(time.time(), synchronised=False), sleep=QUICK.sleep)

    finding = fault(of_host(tmp_path, means=means), "clock-unsynchronised")

    assert finding.found == "not synchronised: the collector's clock dates this host's energy"
    assert finding.remedy == "systemctl enable --now systemd-timesyncd, or: systemctl enable --now chronyd"


def rtc(folder: Path, seconds: int) -> list[Finding]:
    """What is said of a hardware clock that is so far off."""
    (folder / "sys/class/rtc/rtc0").mkdir(parents=True, exist_ok=True)
    (folder / "sys/class/rtc/rtc0/since_epoch").write_text(f"{round(NOW) + seconds}\n")
    return list(clock_findings(instant(NOW), Host(folder / "sys", folder)))


def test_a_hardware_clock_that_is_off_is_told_before_the_next_boot(tmp_path: Path) -> None:
    """Which begins with its time; one that keeps local time is whole quarters of an hour off, and no fault."""
    finding = fault(rtc(tmp_path, -400), "rtc-off")

    assert finding.found == ("the hardware clock is -400 s off the system's, so that the next boot begins with a wrong time")
    assert finding.remedy == "hwclock --systohc"
    assert not faults(rtc(tmp_path, 59))
    assert not faults(rtc(tmp_path, 19_803))
    assert faults(rtc(tmp_path, 19_803 + 200)) == {"rtc-off"}


def test_a_machine_without_an_id_is_told() -> None:
    """Its disk can't be told from a copy."""
    (finding,) = identity_findings(AgentConfig(), lambda: "")

    assert (finding.id, finding.remedy) == ("machine-id", "systemd-machine-id-setup")


def _fill(spool: Spool) -> None:
    from wattledger_agent.meter import Cut

    spool.append(Cut(b"payload", b"state", b"catalog", 1, 1))
