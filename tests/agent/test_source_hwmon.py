"""Power sensors of the hwmon class: what each fixture machine offers, and what becomes of sensors that are wrong."""

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.agent.chips import Files, add_chip, chip, renumber, write
from tests.agent.machines import Machine, machine
from tests.agent.metering import Book, at

from wattledger_agent.config import SourcesConfig
from wattledger_agent.inventory import Roots, close_all, find_sources
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelKey,
    Component,
    CounterReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.hwmon import HwmonSource
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.sources.sensor_files import GONE_READS
from wattledger_agent.topology import resolve

SECOND = 1_000_000_000


def key(device: str, domain: str) -> ChannelKey:
    """A key of this source."""
    return ChannelKey(device, domain, "hwmon")


def watts(readings: Sequence[Reading]) -> dict[str, float]:
    """Power by device."""
    return {r.key.device: r.power_microwatts / 1e6 for r in readings if isinstance(r, PowerReading)}


def refusal(readings: Sequence[Reading], device: str) -> str:
    """Why a device could not be read."""
    (reason,) = (r.reason for r in readings if isinstance(r, TryAgain) and r.key.device == device)
    return reason


def opened(host: Machine, files: Files | None = None) -> HwmonSource:
    """A source on this machine, open."""
    source = HwmonSource(host.sys) if files is None else HwmonSource(host.sys, opener=files.opener, pread=files.pread)
    source.open()
    return source


def notes(host: Machine) -> str:
    """What the source notes on this machine; empty where it finds nothing."""
    source = HwmonSource(host.sys)
    try:
        source.open()
    except SourceUnavailableError as error:
        return error.reason
    found = "\n".join(source.notes())
    source.close()
    return found


def booked_microjoules(host: Machine, seconds: int) -> dict[tuple[str, str], int]:
    """What a meter books in this time of a machine whose powers stand still, by device and domain."""
    source = HwmonSource(host.sys)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(source.open(), at(0))
    for second in range(seconds + 1):
        meter.observe(source.read(second * SECOND), at(second))
    book = Book()
    book.add(meter.cut(at(seconds)))
    source.close()
    booked = (int(Role.LEAF), int(Role.RESIDUAL))
    return {
        (channel.device, channel.domain): book.accounts[channel.channel].energy
        for channel in book.catalog.channels
        if int(channel.role) in booked
    }


def test_grace_is_three_levels_that_contain_each_other(tmp_path: Path) -> None:
    """Module contains Grace contains CPU and SysIO, for each socket its own."""
    specs = {spec.key: spec for spec in HwmonSource(machine("grace", tmp_path).sys).open()}
    assert len(specs) == 8
    for socket in (0, 1):
        module, grace = key(f"module/{socket}", "module"), key(f"grace/{socket}", "grace")
        assert (specs[module].role, specs[module].parent) == (Role.METER, None)
        assert (specs[grace].role, specs[grace].parent) == (Role.METER, module)
        for part in (key(f"cpu/{socket}", "package"), key(f"sysio/{socket}", "sysio")):
            assert (specs[part].role, specs[part].parent) == (Role.LEAF, grace)
            assert specs[part].within == f"grace/{socket}"


def test_what_is_booked_of_grace_is_its_modules_and_nothing_twice(tmp_path: Path) -> None:
    """Four overlapping sensors a socket: their sum would be twice the machine; what is booked is exactly the modules."""
    booked = booked_microjoules(machine("grace", tmp_path), 10)
    assert sum(booked.values()) == 10 * (198_000_000 + 191_000_000)
    # The memory of Grace, and what is lost on the way to it: no sensor of its own.
    assert booked["grace/0", "residual"] == 10 * (171_000_000 - 118_000_000 - 21_000_000)


def test_a_missing_level_of_grace_is_skipped(tmp_path: Path) -> None:
    """Firmware without the Grace meters: CPU and SysIO hang on the module."""
    host = machine("grace", tmp_path)
    for device in ("ACPI000D:01", "ACPI000D:05"):
        write(chip(host, device), {"power1_is_battery": 1})
    specs = {spec.key: spec for spec in HwmonSource(host.sys).open()}
    assert len(specs) == 6
    assert specs[key("cpu/1", "package")].parent == key("module/1", "module")


def test_a_mean_over_50_ms_is_told_with_the_remedy(tmp_path: Path) -> None:
    """Read each second, it sees a twentieth of the time."""
    host = machine("gh200", tmp_path)
    assert "3 more show means over 50 ms" in notes(host)
    assert f"write 1000 to {host.sys}/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00/power1_average_interval." in notes(host)


def test_altra_shows_the_power_of_each_socket_measured(tmp_path: Path) -> None:
    """As a measurement of this source, and with it no estimate: that one passed for the other was kepler's issue 1615."""
    host = machine("ampere_altra", tmp_path)
    inventory = find_sources(SourcesConfig(), Roots(host.sys, host.proc))
    cpus = [spec for spec in inventory.specs if spec.component is Component.CPU]
    assert {(spec.key.device, spec.key.source, spec.role) for spec in cpus} == {
        ("cpu/0", "hwmon", Role.LEAF),
        ("cpu/1", "hwmon", Role.LEAF),
    }
    assert all(spec.method is not Method.MODEL for spec in inventory.specs)
    close_all(inventory)
    assert watts(opened(host).read(1)) == {"cpu/0": 83.412, "sysio/0": 21.037, "cpu/1": 79.95, "sysio/1": 20.411}


def test_the_socket_of_hsmp_is_that_of_the_firmware(tmp_path: Path) -> None:
    """The hwmon numbers of the fixture run against the sockets; the names of the devices may do so too."""
    host = machine("epyc_genoa", tmp_path)
    assert watts(opened(host).read(1)) == {"cpu/0": 213.512, "cpu/1": 207.044}
    for device, uid in (("AMDI0097:00", "ID01"), ("AMDI0097:01", "ID00")):
        (host.sys / "devices/LNXSYSTM:00/LNXSYBUS:00" / device / "uid").write_text(f"{uid}\n")
    assert watts(opened(host).read(1)) == {"cpu/1": 213.512, "cpu/0": 207.044}


def test_hsmp_beside_rapl_is_shown_and_not_booked(tmp_path: Path) -> None:
    """Both measure the package: the counter is booked, and what HSMP says is there to compare."""
    host = machine("epyc_genoa", tmp_path)
    offered = [*RaplSource(host.sys, host.proc, settle=lambda seconds: None).open(), *HwmonSource(host.sys).open()]
    roles = {(spec.key.device, spec.key.source): spec.role for spec in resolve(offered) if spec.key.domain == "package"}
    assert roles == {
        ("cpu/0", "rapl"): Role.LEAF,
        ("cpu/1", "rapl"): Role.LEAF,
        ("cpu/0", "hwmon"): Role.SHOWN,
        ("cpu/1", "hwmon"): Role.SHOWN,
    }


def test_hsmp_without_acpi_takes_the_order_of_registration(tmp_path: Path) -> None:
    """All chips hang on one platform device then."""
    host = machine("virtual_machine", tmp_path)
    for number, power in ((9, 200_000_000), (10, 100_000_000)):
        folder = host.sys / f"devices/platform/amd_hsmp/hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        write(folder, {"name": "amd_hsmp_hwmon", "power1_input": power})
        (folder / "device").symlink_to(folder.parent.parent)
        (host.sys / "class/hwmon").mkdir(parents=True, exist_ok=True)
        (host.sys / "class/hwmon" / folder.name).symlink_to(folder)
    assert watts(opened(host).read(1)) == {"cpu/0": 200.0, "cpu/1": 100.0}


def amd_energy(host: Machine, cores: int = 2) -> Path:
    """Put in AMD's energy driver, of one socket."""
    files: dict[str, object] = {"name": "amd_energy", "energy9_label": "Esocket0", "energy9_input": 7_000_000}
    for core in range(cores):
        files |= {f"energy{core + 1}_label": f"Ecore{core:03d}", f"energy{core + 1}_input": 1_000_000 + core}
    return add_chip(host, "amd_energy.0", 8, files)


def test_cores_are_shown_and_only_on_demand(tmp_path: Path) -> None:
    """Each costs a read of a register on its own core."""
    host = machine("virtual_machine", tmp_path)
    amd_energy(host)
    assert [spec.key.device for spec in HwmonSource(host.sys).open()] == ["cpu/0"]
    specs = {spec.key.device: spec for spec in HwmonSource(host.sys, per_core=True).open()}
    assert {device: spec.role for device, spec in specs.items()} == {
        "cpu/0": Role.LEAF,
        "core/0": Role.SHOWN,
        "core/1": Role.SHOWN,
    }


def test_two_sensors_of_one_socket_are_booked_once_by_the_counter(tmp_path: Path) -> None:
    """HSMP's power and the energy driver's counter measure the same package."""
    host = machine("epyc_genoa", tmp_path)
    amd_energy(host)
    source = HwmonSource(host.sys)
    roles = {(spec.key.device, spec.key.domain): spec.role for spec in source.open()}
    assert roles == {
        ("cpu/0", "package"): Role.SHOWN,
        ("cpu/0", "package-energy"): Role.LEAF,
        ("cpu/1", "package"): Role.LEAF,
    }
    assert "cpu/0 package is measured as package-energy; shown only." in "\n".join(source.notes())


def test_a_driver_that_is_loaded_anew_is_found_under_its_new_number(tmp_path: Path) -> None:
    """A counter's new life has another generation, so that its fall is no wrap; no other channel is touched."""
    host, files = machine("epyc_genoa", tmp_path), Files()
    amd_energy(host)
    source = opened(host, files)
    before = next(r for r in source.read(1) if isinstance(r, CounterReading))
    files.gone.add("amd_energy.0")
    for tick in range(GONE_READS + 1):
        # Its device is there: the driver may come back after any time.
        assert "can't be read: No such device" in refusal(source.read(tick), "cpu/0")
    files.gone.clear()
    renumber(host, "amd_energy.0", 21)
    write(chip(host, "amd_energy.0"), {"energy9_input": 5})
    after = next(r for r in source.read(3) if isinstance(r, CounterReading))
    assert after.counter_microjoules == 5
    assert after.generation != before.generation


def test_a_part_that_is_removed_is_gone_after_a_few_reads(tmp_path: Path) -> None:
    """The first may be a driver that is loaded anew; once it is gone, nothing more is said of it, and the rest goes on."""
    host, files = machine("epyc_genoa", tmp_path), Files()
    source = opened(host, files)
    source.read(1)
    files.gone.add("AMDI0097:01")
    device = chip(host, "AMDI0097:01").parent.parent
    device.rename(device.with_name("removed"))
    outcomes = [source.read(tick)[1] for tick in range(GONE_READS)]
    assert [type(outcome) for outcome in outcomes] == [TryAgain] * (GONE_READS - 1) + [Gone]
    assert watts(source.read(9)) == {"cpu/0": 213.512}
    assert len(source.read(10)) == 1


def test_a_sensor_is_the_same_whatever_its_number(tmp_path: Path) -> None:
    """kepler 0.9 began with hwmon2; numbers follow the order in which drivers load."""
    host = machine("jetson_orin", tmp_path)
    before = HwmonSource(host.sys).open()
    renumber(host, "1-0041", 6)
    renumber(host, "1-0040", 17)
    assert HwmonSource(host.sys).open() == before


def test_all_ones_of_an_acpi_meter_are_no_power(tmp_path: Path) -> None:
    """kepler's issue 1049: 0xFFFFFFFF x 1000, 4.3 MW; the channel stays, for the value may come."""
    host = machine("acpi_meter_sentinel", tmp_path)
    source = opened(host)
    assert "shows 4294967295000, which is no value" in refusal(source.read(1), "node")
    write(chip(host, "ACPI000D:00"), {"power1_average": 312_000_000})
    assert watts(source.read(2)) == {"node": 312.0}


def test_160_kilowatts_of_one_server_are_not_believed(tmp_path: Path) -> None:
    """kepler's issue 1774."""
    host = machine("acpi_meter_sentinel", tmp_path)
    write(chip(host, "ACPI000D:00"), {"power1_average": 160_000_000_000})
    assert "shows 160000 W, which is impossible" in refusal(opened(host).read(1), "node")


def test_a_power_of_2_to_64_is_not_believed(tmp_path: Path) -> None:
    """xpumanager's issue 130: 3.69e12 W for one interval."""
    host = machine("acpi_meter_sentinel", tmp_path)
    write(chip(host, "ACPI000D:00"), {"power1_average": 2**64 - 1})
    assert "which is no value" in refusal(opened(host).read(1), "node")


def test_zero_of_a_node_that_runs_is_no_reading(tmp_path: Path) -> None:
    """Zeros that look like measurements: kepler's issues 1345, 1346 and 1653."""
    host = machine("acpi_meter_sentinel", tmp_path)
    write(chip(host, "ACPI000D:00"), {"power1_average": 0})
    assert "shows 0 W of a part that is on" in refusal(opened(host).read(1), "node")


def test_zero_of_a_rail_is_a_power(tmp_path: Path) -> None:
    """A power-gated rail draws nothing."""
    host = machine("jetson_orin", tmp_path)
    write(chip(host, "1-0040"), {"curr3_input": 0})
    assert watts(opened(host).read(1))["rail/vdd_soc"] == 0.0


def test_rails_are_voltage_times_current(tmp_path: Path) -> None:
    """The monitor shows no power; its fourth channel is of shunts, and the carrier's rails are not in the table."""
    host = machine("jetson_orin", tmp_path)
    assert watts(opened(host).read(1)) == {
        "node": 5.064 * 1184 / 1000,
        "rail/vdd_cpu_gpu_cv": 1.053312,
        "rail/vdd_soc": 1.742016,
    }
    assert "in3_input (CARRIER_5V) of ina3221 at 1-0041 is not in the table of labels; it is not metered." in notes(host)
    assert notes(host).count("not in the table") == 1


def test_what_a_board_books_is_its_input(tmp_path: Path) -> None:
    """jetson_stats' issue 51: the rails were added to the input that feeds them."""
    booked = booked_microjoules(machine("jetson_orin", tmp_path), 10)
    assert sum(booked.values()) == 10 * 5064 * 1184


def test_current_that_flows_backwards_is_no_consumption(tmp_path: Path) -> None:
    """A sign must not become a huge number, nor take energy away."""
    host = machine("jetson_orin", tmp_path)
    write(chip(host, "1-0040"), {"curr2_input": -12})
    assert "shows -12" in refusal(opened(host).read(1), "rail/vdd_cpu_gpu_cv")


def test_a_sensor_that_is_switched_off_is_told_and_not_read(tmp_path: Path) -> None:
    """Its files are there, and read as old values or as an error."""
    host = machine("jetson_orin", tmp_path)
    assert "in2_input (VDD_CPU_CV) of ina3221 at 1-0041" in notes(host)
    assert "/1-0041/hwmon/hwmon2/in2_enable to meter it." in notes(host)
    write(chip(host, "1-0041"), {"in2_enable": 1})
    assert "VDD_CPU_CV" not in notes(host)


def test_an_unknown_label_is_never_guessed(tmp_path: Path) -> None:
    """Even of a chip that is known: firmware may measure what it likes."""
    host = machine("ampere_altra", tmp_path)
    write(chip(host, "APMC0D29:01"), {"power1_label": "DIMM power"})
    assert sorted(watts(opened(host).read(1))) == ["cpu/0", "sysio/0", "sysio/1"]
    assert "power1_input (DIMM power) of apm_xgene at APMC0D29:01 is not in the table" in notes(host)


def test_a_missing_label_is_never_guessed(tmp_path: Path) -> None:
    """A counter without a name could be a core or a socket."""
    host = machine("virtual_machine", tmp_path)
    (amd_energy(host) / "energy9_label").unlink()
    assert "energy9_input of amd_energy at amd_energy.0 is not in the table" in notes(host)


def test_several_acpi_meters_without_a_known_label_are_not_added(tmp_path: Path) -> None:
    """Two power supplies, two zones, or the same twice: nobody says, but for the one that says that it measures all."""
    host = machine("acpi_meter_sentinel", tmp_path)
    files = {"name": "power_meter", "power1_average": 1_000_000, "power1_oem_info": "PSU 2", "power1_is_battery": 0}
    add_chip(host, "ACPI000D:01", 4, files)
    assert [spec.model for spec in HwmonSource(host.sys).open()] == ["Intel Node Manager"]
    (host.sys / "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00/measures/LNXSYBUS:00").unlink()
    assert "is one of 2 and does not say what it measures; not metered." in notes(host)
    with pytest.raises(SourceUnavailableError):
        HwmonSource(host.sys).open()


def test_an_acpi_meter_of_a_part_is_not_the_nodes(tmp_path: Path) -> None:
    """The firmware says by _PMD what it measures: here a PCI bridge."""
    host = machine("acpi_meter_sentinel", tmp_path)
    measures = host.sys / "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00/measures"
    (measures / "LNXSYBUS:00").rename(measures / "PNP0A08:00")
    assert "is not in the table of labels" in notes(host)


def test_an_acpi_meter_that_an_operator_distrusts_is_shown(tmp_path: Path) -> None:
    """kepler's issue 1349: some see less than a meter at the socket."""
    host = machine("acpi_meter_sentinel", tmp_path)
    (spec,) = HwmonSource(host.sys, acpi_meter_is_node=False).open()
    assert (spec.key, spec.role, spec.model) == (key("node", "node"), Role.SHOWN, "Intel Node Manager")


def test_a_battery_is_no_consumer(tmp_path: Path) -> None:
    """An ACPI power meter may be that of a backup battery."""
    host = machine("acpi_meter_sentinel", tmp_path)
    write(chip(host, "ACPI000D:00"), {"power1_is_battery": 1})
    assert "is a battery's; it is not metered." in notes(host)


def test_a_mean_over_minutes_is_told(tmp_path: Path) -> None:
    """What it shows now was drawn up to 300 s ago."""
    assert "shows means over 300 s" in notes(machine("acpi_meter_sentinel", tmp_path))


def test_one_sensor_that_fails_is_alone_in_that(tmp_path: Path) -> None:
    """kepler lost the energy of all zones with one (energy_zone.go)."""
    host, files = machine("ampere_altra", tmp_path), Files(failing={"APMC0D29:00": errno.EIO})
    readings = opened(host, files).read(1)
    assert watts(readings) == {"cpu/1": 79.95, "sysio/1": 20.411}
    assert "can't be read: Input/output error; if this stays, see the kernel's log" in refusal(readings, "cpu/0")


def test_a_file_that_may_not_be_read_has_its_remedy(tmp_path: Path) -> None:
    """amd_energy's counters are root's since CVE-2020-12912."""
    host, files = machine("ampere_altra", tmp_path), Files(failing={"APMC0D29:00": errno.EACCES})
    assert "CAP_DAC_READ_SEARCH" in refusal(opened(host, files).read(1), "cpu/0")


def test_a_value_that_is_no_number_is_a_failed_read(tmp_path: Path) -> None:
    """An empty file is not 0."""
    host = machine("ampere_altra", tmp_path)
    chip_folder = chip(host, "APMC0D29:00")
    (chip_folder / "power1_input").write_text("")
    assert "can't be read" in refusal(opened(host).read(1), "cpu/0")


@pytest.mark.parametrize(("name", "reads"), [("grace", 8), ("jetson_orin", 6), ("epyc_genoa", 2)])
def test_a_read_is_one_system_call_a_file(tmp_path: Path, name: str, reads: int) -> None:
    """Files stay open; a rail has two."""
    host, files = machine(name, tmp_path), Files()
    source = opened(host, files)
    source.read(1)
    files.reads.clear()
    source.read(2)
    assert files.reads.total() == reads


def test_chips_of_others_are_passed_over_in_silence(tmp_path: Path) -> None:
    """GPUs have their own sources, batteries are no consumers, and thermometers measure no power."""
    host = machine("mi300x", tmp_path)
    add_chip(host, "PNP0C0A:00", 30, {"name": "BAT0", "power1_input": 12_000_000, "in0_input": 12000})
    with pytest.raises(SourceUnavailableError) as caught:
        HwmonSource(host.sys).open()
    assert caught.value.reason == f"hwmon: {host.sys}/class/hwmon has no power sensor that is known."


def test_a_dangling_chip_is_passed_over(tmp_path: Path) -> None:
    """A masked folder of /sys leaves links to nothing (home-assistant's issue 4931, there of powercap)."""
    host = machine("ampere_altra", tmp_path)
    (host.sys / "class/hwmon/hwmon7").symlink_to(tmp_path / "nothing")
    assert len(HwmonSource(host.sys).open()) == 4


def test_a_spec_says_what_more_is_impossible(tmp_path: Path) -> None:
    """Gaps are bounded by it: a CPU's is not a module's."""
    bounds = {spec.key.device: spec.power_bound_watts for spec in HwmonSource(machine("gb200", tmp_path).sys).open()}
    assert bounds["cpu/0"] < bounds["module/0"] < 10_000
    assert replace(HwmonSource(machine("gh200", tmp_path).sys).open()[0], model="").model == ""
