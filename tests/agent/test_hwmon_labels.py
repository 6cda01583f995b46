"""The table of labels: what it owes its readers, and how a row is found."""

import re
from dataclasses import replace

import pytest

from wattledger_agent.readings import Role
from wattledger_agent.sources.hwmon_labels import Row, Subject, find_row, load_rows

SUBJECT = Subject(chip="power_meter", label="", place="ACPI000D:00", measures=(), position=0)


def found(subject: Subject) -> tuple[str, str]:
    """Device and domain by the packaged table; empty where no row fits."""
    match = find_row(load_rows(), subject)
    return (match.device, match.row.domain) if match is not None else ("", "")


@pytest.mark.parametrize("row", load_rows(), ids=lambda row: f"{row.chip} {row.label}")
def test_every_row_can_be_used_and_cites_what_says_so(row: Row) -> None:
    """Whole expressions, a device with a bound where it is read, and a source that a reader can look up."""
    assert len(row.citation) > 20
    for pattern in (row.chip, row.label, row.place, row.measures):
        re.compile(pattern)
    if row.role != "ignored":
        assert Role[row.role.upper()] in (Role.LEAF, Role.METER, Role.SHOWN)
        assert row.device
        assert row.domain
        assert 0 < row.bound_watts <= 20_000
        assert not row.zero_is_power or row.device != "node"


def test_no_label_stands_in_the_code() -> None:
    """A new board is a row, and no release of the code."""
    from wattledger_agent.sources import hwmon, hwmon_sensors

    for module in (hwmon, hwmon_sensors):
        with open(str(module.__file__)) as file:
            text = file.read()
        assert not re.search(r"Power Socket|CPU power|VDD_|Esocket|amd_hsmp|apm_xgene|ina3221", text)


@pytest.mark.parametrize(
    ("subject", "device"),
    [
        (replace(SUBJECT, label="Module Power Socket 3"), "module/3"),
        (replace(SUBJECT, label="Grace Power Socket 12"), "grace/12"),
        (replace(SUBJECT, label="CPU Power Socket 0"), "cpu/0"),
        (replace(SUBJECT, label="SysIO Power Socket 1"), "sysio/1"),
        (Subject("apm_xgene", "CPU power", "HWM1", (), 0), "cpu/1"),
        (Subject("apm_xgene", "IO power", "APMC0D29:00", (), 1), "sysio/1"),
        (Subject("amd_hsmp_hwmon", "", "ID01", (), 0), "cpu/1"),
        (Subject("amd_hsmp_hwmon", "", "amd_hsmp", (), 1), "cpu/1"),
        (Subject("amd_energy", "Esocket1", "amd_energy.0", (), 0), "cpu/1"),
        (Subject("amd_energy", "Ecore017", "amd_energy.0", (), 0), "core/17"),
        (Subject("sbrmi", "", "3-003c", (), 5), "cpu/0"),
        (Subject("sbrmi", "", "3-0038", (), 5), "cpu/1"),
        (Subject("ina3221", "VDD_IN", "1-0040", (), 0), "node"),
        (Subject("ina3221", "VDD_GPU_SOC", "1-0040", (), 0), "gpu/0"),
        (Subject("ina3221", "VDD_CPU_CV", "1-0040", (), 0), "cpu/0"),
        (Subject("ina3221", "VDDQ_VDD2_1V8AO", "1-0041", (), 0), "memory/0"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.chip} {value.label}",
)
def test_a_sensor_is_the_device_that_its_label_or_place_says(subject: Subject, device: str) -> None:
    """The number of the label first, then that of the firmware, then the chip's place among its like."""
    assert found(subject)[0] == device


@pytest.mark.parametrize(
    "subject",
    [
        Subject("ina3221", "VDD_IN_2", "1-0040", (), 0),  # A whole label, not its beginning.
        Subject("ina3221", "", "1-0040", (), 0),
        Subject("nct6775", "CPU power", "x", (), 0),  # Another chip's words.
        Subject("amd_energy", "", "amd_energy.0", (), 0),
        Subject("sbrmi", "", "3-0050", (), 0),
        replace(SUBJECT, label="PSU", measures=("PNP0A08:00",)),
        replace(SUBJECT, label="PSU", measures=("LNXSYBUS:00", "PNP0A08:00")),
    ],
    ids=lambda subject: f"{subject.chip} {subject.label}",
)
def test_what_no_row_describes_has_none(subject: Subject) -> None:
    """Never guessed."""
    assert found(subject) == ("", "")


def test_a_rail_whose_place_in_the_tree_is_not_known_is_shown() -> None:
    """Booked beside the rail that may feed it, it would count twice."""
    match = find_row(load_rows(), Subject("ina3221", "VDDQ_VDD2_1V8AO", "1-0041", (), 0))
    assert match is not None
    assert match.row.role == "shown"


def test_the_first_row_that_fits_holds() -> None:
    """So that a particular row may stand before a general one."""
    rows = [
        Row(chip="a", label="x", role="leaf", device="first/{n}", citation=""),
        Row(chip="a", label=".*", role="leaf", device="{label}/{n}", citation=""),
    ]
    subject = Subject("a", "x", "p", (), 4)
    first, second = find_row(rows, subject), find_row(rows, replace(subject, label="Y"))
    assert first is not None
    assert second is not None
    assert (first.device, second.device) == ("first/4", "y/4")
