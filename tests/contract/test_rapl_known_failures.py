"""Failures that other agents had with RAPL, one test each, through the real source and meter.

The truth is what a test adds to the machine's counters; a sum is that of the accounted cut.
"""

import errno
from pathlib import Path

import pytest
from tests.agent.machines import Machine, machine
from tests.contract.rapl_bench import DRAM_0, DRAM_1, JOULE, PACKAGE_0, PACKAGE_1, STEP, ZONES, Bench

from wattledger_agent.readings import ChannelKey, Role, SourceUnavailableError
from wattledger_agent.sources.rapl import RaplSource
from wattledger_protos.v1 import telemetry_pb2 as pb

INTEL_RANGE = 262143328850
AMD_RANGE = 65532610987


@pytest.fixture
def xeon(tmp_path: Path) -> Machine:
    """Two sockets with memory."""
    return machine("xeon_two_sockets", tmp_path)


def zones_of(host: Machine, name: str) -> list[str]:
    """The zones of one name."""
    folders = sorted((host.sys / "class" / "powercap").iterdir())
    return [
        folder.name for folder in folders if (folder / "name").exists() and (folder / "name").read_text().strip() == name
    ]


def under_load(host: Machine, zone: str, joules: int, seconds: float, reads: int) -> Bench:
    """What is booked of a zone that uses so much between any two of these reads."""
    bench = Bench(host)
    bench.tick()
    for _ in range(reads):
        host.add_energy(zone, joules * JOULE)
        bench.tick(seconds)
    return bench


# Wraps, resets and failed reads.


def test_kepler_575_many_wraps_in_an_hour_are_each_counted_once(tmp_path: Path) -> None:
    """128 busy cores wrapped every ten minutes; AMD's finer steps wrap in two. An hour at 500 W has 27 wraps."""
    bench = under_load(machine("epyc_genoa", tmp_path), "intel-rapl:0", 5000, 10, 360)
    assert bench.energy[PACKAGE_0] == 1_800_000 * JOULE
    assert set(bench.gaps.values()) == {(0, 0)}


def test_codecarbon_322_a_wrap_within_a_minute_of_heavy_load(tmp_path: Path) -> None:
    """At 980 W, close to the bound, and one read a minute, each fall is still one wrap."""
    bench = under_load(machine("epyc_genoa", tmp_path), "intel-rapl:1", 58_800, 60, 10)
    assert bench.energy[PACKAGE_1] == 588_000 * JOULE


def test_kepler_53_a_difference_below_zero_as_unsigned_is_no_energy(xeon: Machine) -> None:
    """18446744073447456768 uJ was booked; here it is refused, with and without a known range, and nothing is lost."""
    (xeon.zone("intel-rapl:1") / "max_energy_range_uj").unlink()
    bench = Bench(xeon)
    bench.tick()
    kept = {zone: xeon.energy(zone) for zone in ("intel-rapl:0", "intel-rapl:1")}
    for zone in kept:
        xeon.set_energy(zone, 18446744073447456768)
    bench.tick()
    for zone, energy in kept.items():
        xeon.set_energy(zone, energy + 7 * JOULE)
    bench.tick()
    assert (bench.energy[PACKAGE_0], bench.energy[PACKAGE_1]) == (7 * JOULE, 7 * JOULE)
    assert set(bench.gaps.values()) == {(0, 0)}


def test_kepler_1279_an_impossible_leap_is_not_booked(xeon: Machine) -> None:
    """100 kJ in a second is no consumption of a package: it stands in a gap, within what was possible."""
    bench = Bench(xeon)
    bench.tick()
    xeon.add_energy("intel-rapl:0", 100_000 * JOULE)
    bench.tick()
    xeon.add_energy("intel-rapl:0", 9 * JOULE)
    bench.tick()
    assert bench.energy[PACKAGE_0] == 9 * JOULE
    assert bench.gaps[PACKAGE_0] == (0, 500 * JOULE)
    assert pb.GAP_REASON_IMPLAUSIBLE in bench.reasons


def test_scaphandre_280_a_wrap_of_one_socket_hides_nothing(xeon: Machine) -> None:
    """There the interval of a wrap was 0 for the socket, and none for the host; here every domain has its energy."""
    xeon.set_energy("intel-rapl:1", INTEL_RANGE - JOULE)
    bench = Bench(xeon)
    bench.tick()
    for zone in ZONES.values():
        xeon.add_energy(zone, 40 * JOULE)
    bench.tick()
    assert bench.energy == dict.fromkeys(ZONES, 40 * JOULE)
    assert bench.booked_microjoules == 160 * JOULE


def test_codecarbon_1309_a_fall_without_a_known_range_is_never_negative(xeon: Machine) -> None:
    """max_energy_range_uj could not be read, and -1.19e-3 kWh were booked; here it is a gap from 0 up."""
    (xeon.zone("intel-rapl:0") / "max_energy_range_uj").unlink()
    # Right below the usual range: whoever assumes that one books a wrap.
    xeon.set_energy("intel-rapl:0", INTEL_RANGE - JOULE)
    bench = Bench(xeon)
    bench.tick()
    xeon.set_energy("intel-rapl:0", 3 * JOULE)
    bench.tick()
    assert bench.energy[PACKAGE_0] == 0
    assert bench.gaps[PACKAGE_0] == (0, 500 * JOULE)


def test_codecarbon_one_failed_read_adds_no_range(xeon: Machine) -> None:
    """Six intervals of 1000 J with one unreadable counter were 268 143 J there; they are 6000 J."""
    bench = Bench(xeon)
    bench.tick()
    for sample in range(6):
        xeon.add_energy("intel-rapl:0", 1000 * JOULE)
        xeon.failing = {"intel-rapl:0": errno.ENOENT} if sample == 2 else {}
        bench.tick(15)
    assert bench.energy[PACKAGE_0] == 6000 * JOULE
    assert bench.gaps[PACKAGE_0] == (0, 0)


def test_zeus_91_wraps_that_nobody_saw_are_a_gap_that_holds_them(tmp_path: Path) -> None:
    """Away for five minutes at 700 W an AMD package wraps three times: none is guessed, and the bounds hold the truth."""
    genoa = machine("epyc_genoa", tmp_path)
    bench = Bench(genoa)
    bench.tick()
    truth = 300 * 700 * JOULE
    genoa.add_energy("intel-rapl:0", truth)
    again = bench.restarted(seconds=300)
    again.tick(0)
    assert again.energy[PACKAGE_0] == 0
    lower, upper = again.gaps[PACKAGE_0]
    assert lower <= truth <= upper <= 300 * 1000 * JOULE
    assert pb.GAP_REASON_WRAP_AMBIGUOUS in again.reasons


def test_zeus_91_a_wrap_during_a_restart_is_counted(xeon: Machine) -> None:
    """Nobody polled while the agent was replaced, and the package wrapped meanwhile: within the bound that is one wrap."""
    xeon.set_energy("intel-rapl:0", INTEL_RANGE - 500 * JOULE)
    bench = Bench(xeon)
    bench.tick()
    xeon.add_energy("intel-rapl:0", 30_000 * JOULE)
    again = bench.restarted(seconds=120)
    again.tick()
    assert again.energy[PACKAGE_0] == 30_000 * JOULE


@pytest.mark.parametrize("fall_at", [0, 1])
def test_zeus_a_wrap_exactly_at_the_range(xeon: Machine, fall_at: int) -> None:
    """The highest value and 0 are one step apart, on whichever of the two a read falls."""
    xeon.set_energy("intel-rapl:0", INTEL_RANGE)
    bench = Bench(xeon)
    bench.tick()
    xeon.set_energy("intel-rapl:0", fall_at)
    bench.tick()
    assert bench.energy[PACKAGE_0] == STEP + fall_at


def test_kepler_a_fall_after_a_suspend_is_no_wrap(xeon: Machine) -> None:
    """A package that lost its power lost its counter: no range is added, and the gap says why (GMT PR#1229)."""
    bench = Bench(xeon)
    bench.tick()
    xeon.set_energy("intel-rapl:0", 2 * JOULE)
    bench.suspended_seconds = 30.0
    bench.tick(40)
    xeon.add_energy("intel-rapl:0", 5 * JOULE)
    bench.tick()
    assert bench.energy[PACKAGE_0] == 5 * JOULE
    assert pb.GAP_REASON_SUSPEND in bench.reasons


# Zones: duplicates, hierarchy, names.


def test_zeus_psys_is_no_third_processor(tmp_path: Path) -> None:
    """On Sapphire Rapids intel-rapl:1 is psys (powertelemetry#3): it was listed as CPU 1 and summed."""
    host = machine("xeon_sapphire_rapids_linux_6_8", tmp_path)
    bench = Bench(host)
    bench.tick()
    for zone, joules in {"intel-rapl:0": 300, "intel-rapl:1": 900, "intel-rapl:2": 310}.items():
        host.add_energy(zone, joules * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 610 * JOULE
    assert bench.energy[PACKAGE_1] == 310 * JOULE


def test_scaphandre_a_names_line_end_is_no_part_of_it(tmp_path: Path) -> None:
    """The name was compared with its newline, so that psys was taken for a socket; a name without one is the same."""
    host = machine("xeon_sapphire_rapids_linux_6_8", tmp_path)
    (host.zone("intel-rapl:1") / "name").write_text("psys")
    (host.zone("intel-rapl:0") / "name").write_text("package-0 \n")
    bench = Bench(host)
    assert {spec.key.device for spec in bench.specs if spec.role is Role.LEAF} == {"cpu/0", "cpu/1", "memory/0", "memory/1"}


def test_powertelemetry_3_a_zone_that_is_not_enabled_counts(tmp_path: Path) -> None:
    """`enabled` is about power limits: dram and psys say 0 and count."""
    host = machine("xeon_sapphire_rapids_linux_6_8", tmp_path)
    bench = Bench(host)
    bench.tick()
    host.add_energy("intel-rapl:2:0", 44 * JOULE)
    bench.tick()
    assert (host.zone("intel-rapl:2:0") / "enabled").read_text().strip() == "0"
    assert bench.energy[DRAM_1] == 44 * JOULE


def test_procfs_396_msr_and_mmio_of_one_package_are_counted_once(tmp_path: Path) -> None:
    """Both have index 0 and the name package-0 (node_exporter#2147)."""
    laptop = machine("laptop_mmio", tmp_path)
    bench = Bench(laptop)
    bench.tick()
    for zone in ("intel-rapl:0", "intel-rapl-mmio:0"):
        laptop.add_energy(zone, 30 * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 30 * JOULE


def test_kepler_dram_by_msr_and_mmio_is_counted_once(tmp_path: Path) -> None:
    """`dram` has no number in its name, so both copies survived as two; it is that of its package, by whichever driver."""
    xeon = machine("xeon_two_sockets", tmp_path)
    for index, package in enumerate(("package-0", "package-1")):
        for zone, name in ((f"intel-rapl-mmio:{index}", package), (f"intel-rapl-mmio:{index}:0", "dram")):
            folder = xeon.zone(zone)
            folder.mkdir()
            for file, text in {"name": name, "energy_uj": "5", "max_energy_range_uj": str(INTEL_RANGE)}.items():
                (folder / file).write_text(f"{text}\n")
    bench = Bench(xeon)
    bench.tick()
    for zone in (*ZONES.values(), "intel-rapl-mmio:0", "intel-rapl-mmio:0:0", "intel-rapl-mmio:1", "intel-rapl-mmio:1:0"):
        xeon.add_energy(zone, 10 * JOULE)
    bench.tick()
    assert bench.energy == dict.fromkeys(ZONES, 10 * JOULE)


def test_codecarbon_950_psys_package_core_and_uncore_are_not_summed(tmp_path: Path) -> None:
    """14.44 W were shown for 9.61 W: parts of the package, and what contains it, are shown and never summed."""
    laptop = machine("laptop_mmio", tmp_path)
    bench = Bench(laptop)
    bench.tick()
    for name, joules in {"psys": 961, "package-0": 378, "core": 84, "uncore": 21}.items():
        for zone in zones_of(laptop, name):
            laptop.add_energy(zone, joules * JOULE)
    bench.tick(100)
    assert bench.booked_microjoules == 378 * JOULE


def test_codecarbon_1274_dies_that_mirror_one_counter_are_counted_once_a_socket(tmp_path: Path) -> None:
    """68 and 68 W were 137 W (codecarbon#1379): on two sockets with two die zones each, four zones are two counters."""
    rome = machine("epyc_rome", tmp_path)
    watts = {"intel-rapl:0": 68.0, "intel-rapl:1": 68.0, "intel-rapl:2": 75.0, "intel-rapl:3": 75.0}
    rome.watts = watts
    bench = Bench(rome)
    bench.tick()
    for _ in range(20):
        for zone, power in watts.items():
            rome.add_energy(zone, round(power * JOULE))
        bench.tick()
    assert bench.booked_microjoules == 20 * (68 + 75) * JOULE
    notes = [note for note in bench.source.notes() if "mirrors" in note]
    assert len(notes) == 2


def test_codecarbon_emi_1263_cores_are_not_added_to_their_package(tmp_path: Path) -> None:
    """Package and fifteen cores were 265 W: AMD's core zone, one core's, is shown and never booked."""
    genoa = machine("epyc_genoa", tmp_path)
    bench = Bench(genoa)
    bench.tick()
    for zone, joules in {"intel-rapl:0": 150, "intel-rapl:0:0": 8, "intel-rapl:1": 115, "intel-rapl:1:0": 7}.items():
        genoa.add_energy(zone, joules * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 265 * JOULE


def test_codecarbon_dram_below_its_package_is_booked_for_both_sockets(xeon: Machine) -> None:
    """There it was skipped as contained; a package's counter excludes it (powercap#3, carbontracker#93, kepler PR#156)."""
    bench = Bench(xeon)
    bench.tick()
    for zone, joules in {"intel-rapl:0": 200, "intel-rapl:0:0": 30, "intel-rapl:1": 180, "intel-rapl:1:0": 25}.items():
        xeon.add_energy(zone, joules * JOULE)
    bench.tick()
    assert (bench.energy[DRAM_0], bench.energy[DRAM_1]) == (30 * JOULE, 25 * JOULE)
    assert bench.booked_microjoules == 435 * JOULE


def test_kepler_package_0_die_0_is_a_package(tmp_path: Path) -> None:
    """The name was not known as one, so that whatever asked for `package` was empty."""
    bench = Bench(machine("xeon_two_dies", tmp_path))
    leaves = {spec.key.domain for spec in bench.specs if spec.role is Role.LEAF and spec.key.device == "cpu/0"}
    assert leaves == {"package-die-0", "package-die-1"}


def test_kepler_a_failing_socket_costs_the_others_nothing(xeon: Machine) -> None:
    """One failed read lost the interval of the sockets that were read before it; each domain stands alone."""
    bench = Bench(xeon)
    bench.tick()
    for tick in range(4):
        for zone in ZONES.values():
            xeon.add_energy(zone, 50 * JOULE)
        xeon.failing = {"intel-rapl:1": errno.EIO} if tick in (1, 2) else {}
        bench.tick()
    assert bench.energy == dict.fromkeys(ZONES, 200 * JOULE)


def test_scaphandre_85_each_sockets_domains_are_its_own(tmp_path: Path) -> None:
    """Memory below intel-rapl:2 is that of package 1, since intel-rapl:2 is package 1."""
    host = machine("xeon_sapphire_rapids_linux_6_8", tmp_path)
    bench = Bench(host)
    bench.tick()
    host.add_energy("intel-rapl:2:0", 11 * JOULE)
    bench.tick()
    assert (bench.energy[DRAM_0], bench.energy[DRAM_1]) == (0, 11 * JOULE)


def test_pyjoules_14_the_number_in_the_path_is_no_socket(xeon: Machine) -> None:
    """intel-rapl:0 may be package 1: the name says which socket it is."""
    (xeon.zone("intel-rapl:0") / "name").write_text("package-1\n")
    (xeon.zone("intel-rapl:1") / "name").write_text("package-0\n")
    bench = Bench(xeon)
    bench.tick()
    xeon.add_energy("intel-rapl:0", 12 * JOULE)
    xeon.add_energy("intel-rapl:0:0", 3 * JOULE)
    bench.tick()
    assert (bench.energy[PACKAGE_1], bench.energy[DRAM_1]) == (12 * JOULE, 3 * JOULE)


def test_node_exporter_1808_package_15_is_metered(tmp_path: Path) -> None:
    """A guest of XCP-ng with one socket called 15 made the exporter panic."""
    guest = machine("xcp_ng_guest", tmp_path)
    bench = Bench(guest)
    bench.tick()
    guest.add_energy("intel-rapl:0", 6 * JOULE)
    bench.tick()
    assert bench.energy[ChannelKey("cpu/15", "package", "rapl")] == 6 * JOULE


def test_node_exporter_2269_einval_in_a_guest_hides_no_other_domain(tmp_path: Path) -> None:
    """There one counter that gave EINVAL ended the whole collector."""
    guest = machine("xcp_ng_guest", tmp_path)
    guest.failing = {"intel-rapl:0:0": errno.EINVAL}
    bench = Bench(guest)
    bench.tick()
    guest.add_energy("intel-rapl:0", 6 * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 6 * JOULE
    assert any("intel-rapl:0:0/energy_uj" in note for note in bench.source.notes())


def test_powertelemetry_5_zones_by_tpmi_are_metered(tmp_path: Path) -> None:
    """Granite Rapids has no RAPL by MSR; its control type may have a name of its own."""
    granite = machine("xeon_tpmi", tmp_path)
    bench = Bench(granite)
    bench.tick()
    for zone in ("intel-rapl-tpmi:0", "intel-rapl-tpmi:1", "intel-rapl-tpmi:0:0", "intel-rapl-mmio:0", "intel-rapl-mmio:1"):
        granite.add_energy(zone, 100 * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 300 * JOULE


# Units.


def test_likwid_642_memory_of_sapphire_rapids_has_steps_of_61_microjoules(tmp_path: Path) -> None:
    """An old kernel shows 15.3 J for 61.035 J; on a mended one nothing is scaled."""
    booked = []
    for name, shown in (("xeon_sapphire_rapids", 15_300_000), ("xeon_sapphire_rapids_linux_6_8", 61_035_000)):
        host = machine(name, tmp_path)
        bench = Bench(host)
        bench.tick()
        host.add_energy("intel-rapl:0:0", shown)
        bench.tick()
        booked.append(bench.energy[DRAM_0])
    assert booked == [pytest.approx(61_035_000, abs=1), 61_035_000]


def test_likwid_642_a_mended_counter_wraps_as_exactly(tmp_path: Path) -> None:
    """The range is scaled with the values: a wrap is off by no more than the rounding of one step."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    host.set_energy("intel-rapl:0:0", 65712999613 - 5_000_000)
    bench = Bench(host)
    bench.tick()
    for _ in range(5):
        host.add_energy("intel-rapl:0:0", 15_300_000)
        bench.tick()
    assert bench.energy[DRAM_0] == pytest.approx(5 * 61_035_000, abs=70)
    assert bench.gaps[DRAM_0] == (0, 0)


def test_hpcperfstats_9_memory_of_haswell_has_steps_of_15_microjoules(tmp_path: Path) -> None:
    """On Haswell-EP that is right and no fault: the figures stay as they are, and nothing is said."""
    haswell = machine("xeon_haswell_dram_unit", tmp_path)
    bench = Bench(haswell)
    bench.tick()
    haswell.add_energy("intel-rapl:0:0", 21 * JOULE)
    bench.tick()
    assert bench.energy[DRAM_0] == 21 * JOULE
    assert list(bench.source.notes()) == []


def test_papi_635_memory_of_granite_rapids_is_distrusted(tmp_path: Path) -> None:
    """200 W on one socket and 6 W on its like are unexplained: booked, and said."""
    source = Bench(machine("xeon_tpmi", tmp_path)).source
    (note,) = (note for note in source.notes() if "compare it" in note)
    assert note.startswith("rapl: intel-rapl-tpmi:0:0, intel-rapl-tpmi:1:0 (dram): ")


def test_alumet_the_core_domain_of_an_epyc_7702_is_not_read(tmp_path: Path) -> None:
    """Its values are aberrant there, so that it is not even shown; on another EPYC it is."""
    rome = Bench(machine("epyc_rome", tmp_path))
    genoa = Bench(machine("epyc_genoa", tmp_path))
    assert not [spec for spec in rome.specs if "core" in spec.key.domain]
    (note,) = (note for note in rome.source.notes() if "aberrant" in note)
    assert note.startswith("rapl: intel-rapl:0:0, intel-rapl:1:0, intel-rapl:2:0, intel-rapl:3:0 (core): ")
    assert len([spec for spec in genoa.specs if "core" in spec.key.domain]) == 2


def test_kepler_1466_a_platform_below_its_packages_makes_no_energy(tmp_path: Path) -> None:
    """Where psys is said to meter the node and shows less than the packages, the residual is negative: the sum is psys."""
    host = machine("xeon_sapphire_rapids_linux_6_8", tmp_path)
    bench = Bench(host, psys_is_node_meter=True)
    bench.tick()
    for zone, joules in {"intel-rapl:0": 300, "intel-rapl:1": 500, "intel-rapl:2": 310}.items():
        host.add_energy(zone, joules * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 500 * JOULE
    assert bench.energy[ChannelKey("node", "residual", "rapl")] == -110 * JOULE


# Permissions and containers.


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_node_exporter_2092_no_permission_is_never_silence(xeon: Machine, code: int) -> None:
    """Without permission there was simply nothing (codecarbon#232, telegraf#9324, scaphandre#373); here it has a remedy."""
    xeon.refused = dict.fromkeys(ZONES.values(), code)
    with pytest.raises(SourceUnavailableError) as caught:
        RaplSource(xeon.sys, xeon.proc, opener=xeon.opener, pread=xeon.pread, settle=xeon.settle).open()
    assert "energy_uj can't be read" in caught.value.reason
    assert "CAP_DAC_READ_SEARCH" in caught.value.remedy


def test_zeus_118_a_masked_container_is_told_which_folder_to_mount(tmp_path: Path) -> None:
    """Docker hides /sys/devices/virtual/powercap, and the class's links then dangle (home-assistant#4931)."""
    host = machine("container_masked", tmp_path)
    with pytest.raises(SourceUnavailableError, match="mount /sys/devices/virtual/powercap"):
        RaplSource(host.sys, host.proc).open()


def test_home_assistant_4931_a_dangling_link_hides_no_other_socket(tmp_path: Path) -> None:
    """What can be read is metered, and what can't is named with its remedy."""
    host = machine("powercap_dangling_symlink", tmp_path)
    bench = Bench(host)
    bench.tick()
    host.add_energy("intel-rapl:0", 13 * JOULE)
    bench.tick()
    assert bench.booked_microjoules == 13 * JOULE
    dangling = [note for note in bench.source.notes() if "points to nothing" in note]
    assert ["intel-rapl:1 " in dangling[0], "intel-rapl:1:0 " in dangling[1]] == [True, True]
    assert "mount /sys/devices/virtual/powercap" in dangling[0]


def test_kepler_2262_a_kernel_without_powercap_is_told_what_to_load(tmp_path: Path) -> None:
    """Talos has no such class, kind shows none (kepler#2265): the reason names the folder, the remedy the module."""
    host = machine("xeon_two_sockets", tmp_path)
    for link in (host.sys / "class" / "powercap").iterdir():
        link.unlink()
    (host.sys / "class" / "powercap").rmdir()
    with pytest.raises(SourceUnavailableError) as caught:
        RaplSource(host.sys, host.proc).open()
    assert "class/powercap can't be listed" in caught.value.reason
    assert "modprobe intel_rapl_msr" in caught.value.remedy
