"""Chips and files of the hwmon class: found by what stays, read with one call, found again after the driver was away."""

import errno
import os
from pathlib import Path

import pytest
from tests.agent.chips import Files, add_chip, chip, renumber, write
from tests.agent.machines import Machine, machine

from wattledger_agent.readings import ChannelKey, Gone, TryAgain
from wattledger_agent.sources.sensor_files import GONE_READS, SensorFile, SleepWatch, find_chips, natural

KEY = ChannelKey("cpu/0", "package", "hwmon")


def file_of(host: Machine, files: Files, name: str = "power1_input") -> SensorFile:
    """A file of the first chip."""
    return SensorFile(find_chips(host.sys)[0], name, files.opener, files.pread)


def test_chips_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """10 after 9, so that registration can be told where nothing else tells."""
    for name in ("hwmon10", "hwmon9", "hwmon1"):
        (tmp_path / name).mkdir()
    assert [path.name for path in natural(tmp_path)] == ["hwmon1", "hwmon9", "hwmon10"]
    assert natural(tmp_path / "none") == []


def test_an_old_drivers_files_are_found_in_its_devices_folder(tmp_path: Path) -> None:
    """The ACPI power meter has none in its hwmon folder, not even a name."""
    (found,) = (chip for chip in find_chips(machine("acpi_meter_sentinel", tmp_path).sys) if chip.name == "power_meter")
    assert found.locate("power1_average").parent == found.device
    assert found.text("power1_oem_info") == "Meter measures total domain"
    assert found.numbers(r"power(\d+)_average") == [1]


def test_a_chip_without_a_name_is_left_out(tmp_path: Path) -> None:
    """It could not be known again."""
    host = machine("ampere_altra", tmp_path)
    (chip(host, "APMC0D29:00") / "name").unlink()
    assert [found.device.name for found in find_chips(host.sys)] == ["APMC0D29:01"]


def test_without_the_class_there_are_no_chips(tmp_path: Path) -> None:
    """A kernel without hwmon, or a masked folder."""
    assert find_chips(tmp_path) == []


def test_a_file_is_opened_once_and_read_with_one_call(tmp_path: Path) -> None:
    """Opening costs five times a read."""
    files = Files()
    file = file_of(machine("ampere_altra", tmp_path), files)
    assert [file.number() for _ in range(3)] == [83_412_000] * 3
    assert files.reads == {"power1_input": 3}
    file.close()
    file.close()
    assert file.number() == 83_412_000


def test_a_file_is_found_again_under_another_number(tmp_path: Path) -> None:
    """Of two chips on one device the same one is."""
    host, files = machine("virtual_machine", tmp_path), Files()
    add_chip(host, "amd_hsmp", 3, {"name": "amd_hsmp_hwmon", "power1_input": 1})
    folder = host.sys / "devices/platform/amd_hsmp/hwmon/hwmon4"
    folder.mkdir()
    write(folder, {"name": "amd_hsmp_hwmon", "power1_input": 2})
    (folder / "device").symlink_to(folder.parent.parent)
    (host.sys / "class/hwmon/hwmon4").symlink_to(folder)
    second = SensorFile(find_chips(host.sys)[1], "power1_input", files.opener, files.pread)
    assert second.number() == 2
    generation = second.generation
    files.gone.add("hwmon4")
    with pytest.raises(OSError, match="No such device"):
        second.number()
    files.gone.clear()
    for old, new in (("hwmon3", "hwmon8"), ("hwmon4", "hwmon12")):
        (folder.parent / old).rename(folder.parent / new)
    path = folder.parent / "hwmon12/power1_input"
    path.rename(path.with_name("old"))
    path.write_text("7\n")
    assert second.number() == 7
    assert second.generation != generation
    assert str(second).endswith("hwmon12/power1_input")


def test_what_failed_for_another_reason_stays_open(tmp_path: Path) -> None:
    """A chip that answers late is the same chip."""
    host, files = machine("ampere_altra", tmp_path), Files()
    file = file_of(host, files)
    file.number()
    generation = file.generation
    files.failing["APMC0D29:00"] = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        file.number()
    files.failing.clear()
    assert file.number() == 83_412_000
    assert file.generation == generation


def test_a_device_that_comes_back_in_time_is_not_gone(tmp_path: Path) -> None:
    """A driver that is loaded anew takes the folder away for a moment; then the count begins at 0."""
    host, files = machine("ampere_altra", tmp_path), Files()
    file = file_of(host, files)
    device = host.sys / "devices/platform/APMC0D29:00"
    for _ in range(2):
        device.rename(device.with_name("away"))
        file.close()
        for _ in range(GONE_READS - 1):
            with pytest.raises(OSError, match="No such file"):
                file.number()
            assert isinstance(file.failed(KEY, OSError(errno.ENOENT, "x")), TryAgain)
        device.with_name("away").rename(device)
        assert file.number() == 83_412_000
    device.rename(device.with_name("away"))
    file.close()
    for _ in range(GONE_READS):
        with pytest.raises(OSError, match="No such file"):
            file.number()
    assert isinstance(file.failed(KEY, OSError(errno.ENOENT, "x")), Gone)


def test_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    """What, where, why, and the remedy."""
    file = file_of(machine("ampere_altra", tmp_path), Files())
    outcome = file.failed(KEY, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert outcome.reason.startswith("hwmon: ")
    assert "power1_input can't be read: Permission denied; run the agent with CAP_DAC_READ_SEARCH" in outcome.reason


@pytest.mark.parametrize(
    ("control", "status", "sleeps"),
    [
        ("auto", "suspended", True),
        ("auto", "suspending", True),
        ("auto", "active", False),
        ("auto", "unsupported", False),
        ("on", "suspended", False),
    ],
)
def test_a_device_sleeps_if_it_may_and_does(tmp_path: Path, control: str, status: str, sleeps: bool) -> None:
    """With `on` the kernel keeps it awake, whatever it was."""
    host, files = machine("intel_gpu_max", tmp_path), Files()
    write(chip(host, "0000:3d:00.0").parent.parent / "power", {"control": control, "runtime_status": status})
    (xe,) = (found for found in find_chips(host.sys) if found.name == "xe")
    watch = SleepWatch(xe, files.opener, files.pread)
    assert watch.sleeps() is sleeps
    assert files.reads.total() == (control == "auto")
    watch.close()


def test_a_renumbered_fixture_is_one_chip(tmp_path: Path) -> None:
    """What the tests' own renumbering promises."""
    host = machine("epyc_genoa", tmp_path)
    before = [(found.name, found.device) for found in find_chips(host.sys)]
    renumber(host, "AMDI0097:01", 31)
    assert sorted((found.name, found.device) for found in find_chips(host.sys)) == sorted(before)
