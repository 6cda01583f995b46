"""RAPL on fixture machines: which channels each one has, what is folded, and what every failure becomes."""

import errno
from pathlib import Path

import pytest
from tests.agent.machines import FIXTURES, machine
from tests.agent.rapl_reading import (
    DIE_0,
    DIE_1,
    DRAM_0,
    DRAM_1,
    JOULE,
    PACKAGE_0,
    PACKAGE_1,
    PSYS,
    by_key,
    counters,
    outcome,
    source_of,
    tree,
)

from wattledger_agent.readings import (
    ChannelKey,
    Component,
    CounterReading,
    Gone,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.rapl import RaplSource


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "xeon_two_sockets",
            [
                "cpu/0 package LEAF CPU 500 W 262143328911",
                "cpu/1 package LEAF CPU 500 W 262143328911",
                "memory/0 dram LEAF MEMORY 500 W 65712999628",
                "memory/1 dram LEAF MEMORY 500 W 65712999628",
            ],
        ),
        (
            "xeon_sapphire_rapids",
            [
                "node psys SHOWN OTHER 12000 W 4294967296000000",
                "cpu/0 package LEAF CPU 1528 W 262143328911",
                "cpu/1 package LEAF CPU 1528 W 262143328911",
                # As the kernel shows them 65712999628; they are mended.
                "memory/0 dram LEAF MEMORY 500 W 262143328908",
                "memory/1 dram LEAF MEMORY 500 W 262143328908",
            ],
        ),
        (
            "laptop_mmio",
            [
                "node psys SHOWN OTHER 12000 W 262143328911",
                "cpu/0 package LEAF CPU 500 W 262143328911",
                "cpu/0 core SHOWN CPU in cpu/0 package 1000 W 262143328911",
                "cpu/0 uncore SHOWN CPU in cpu/0 package 1000 W 262143328911",
            ],
        ),
        (
            "node_exporter_capture",
            [
                "cpu/0 package LEAF CPU 500 W 262143328911",
                "cpu/0 core SHOWN CPU in cpu/0 package 1000 W 262143328911",
            ],
        ),
        (
            "xeon_tpmi",
            [
                "cpu/0 package LEAF CPU 840 W 262143328911",
                "cpu/1 package LEAF CPU 840 W 262143328911",
                "memory/0 dram LEAF MEMORY 500 W 262143328911",
                "memory/1 dram LEAF MEMORY 500 W 262143328911",
            ],
        ),
        (
            "threadripper_mirrored_dies",
            [
                "cpu/0 package-die-0 LEAF CPU 1000 W 65532611002",
                "cpu/0 core-die-0 SHOWN CPU in cpu/0 package-die-0 1000 W 65532611002",
            ],
        ),
        (
            "xeon_two_dies",
            [
                "cpu/0 package-die-0 LEAF CPU 700 W 262143328911",
                "cpu/0 package-die-1 LEAF CPU 700 W 262143328911",
                "memory/0 dram-die-0 LEAF MEMORY 500 W 65712999628",
                "memory/0 dram-die-1 LEAF MEMORY 500 W 65712999628",
            ],
        ),
        (
            "xeon_sapphire_rapids_linux_6_8",
            [
                "node psys SHOWN OTHER 12000 W 4294967296000000",
                "cpu/0 package LEAF CPU 1528 W 262143328911",
                "cpu/1 package LEAF CPU 1528 W 262143328911",
                "memory/0 dram LEAF MEMORY 500 W 262143328911",
                "memory/1 dram LEAF MEMORY 500 W 262143328911",
            ],
        ),
        (
            "epyc_rome",
            [
                "cpu/0 package-die-0 LEAF CPU 1000 W 65532611002",
                "cpu/1 package-die-0 LEAF CPU 1000 W 65532611002",
            ],
        ),
        (
            "epyc_genoa",
            [
                "cpu/0 package LEAF CPU 1000 W 65532611002",
                "cpu/1 package LEAF CPU 1000 W 65532611002",
                "cpu/0 core SHOWN CPU in cpu/0 package 1000 W 65532611002",
                "cpu/1 core SHOWN CPU in cpu/1 package 1000 W 65532611002",
            ],
        ),
        (
            "xeon_haswell_dram_unit",
            [
                "cpu/0 package LEAF CPU 500 W 262143328911",
                "cpu/1 package LEAF CPU 500 W 262143328911",
                "memory/0 dram LEAF MEMORY 500 W 65712999628",
                "memory/1 dram LEAF MEMORY 500 W 65712999628",
            ],
        ),
        (
            "desktop_haswell_igpu",
            [
                "cpu/0 package LEAF CPU 500 W 262143999999",
                "cpu/0 core SHOWN CPU in cpu/0 package 1000 W 262143999999",
                "cpu/0 uncore SHOWN CPU in cpu/0 package 1000 W 262143999999",
                "memory/0 dram LEAF MEMORY 500 W 262143999999",
            ],
        ),
        ("kvm_guest_virtual_rapl", ["cpu/0 package LEAF CPU 500 W 262143328911"]),
        (
            "xcp_ng_guest",
            [
                "cpu/15 package LEAF CPU 1000 W 262143328911",
                "memory/15 dram LEAF MEMORY 500 W 65712999628",
            ],
        ),
        (
            "powercap_dangling_symlink",
            [
                "cpu/0 package LEAF CPU 500 W 262143328911",
                "memory/0 dram LEAF MEMORY 500 W 65712999628",
            ],
        ),
    ],
)
def test_each_machine_has_its_tree(tmp_path: Path, name: str, expected: list[str]) -> None:
    """Domains are known by name; packages and memory are summed, all else is shown, duplicates and mirrors are not there."""
    host = machine(name, tmp_path)
    mirrors = {"threadripper_mirrored_dies": 2, "epyc_rome": 4}.get(name, 0)
    host.watts = {f"intel-rapl:{index}": 68.0 for index in range(mirrors)}
    assert tree(source_of(host).open()) == expected


def test_every_fixture_machine_states_its_provenance() -> None:
    """A fixture says whether it was recorded, published, or built from a document."""
    machines = [folder for folder in FIXTURES.iterdir() if (folder / "proc").is_dir()]
    assert len(machines) >= 9
    for folder in machines:
        text = (folder / "PROVENANCE.md").read_text().lower()
        assert any(word in text for word in ("built from", "recorded", "published")), folder


def test_values_are_those_of_the_named_domain(tmp_path: Path) -> None:
    """On Sapphire Rapids `intel-rapl:1` is psys: package 1 is read from `intel-rapl:2`, and its memory below it."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    source = source_of(host)
    source.open()
    values = counters(source.read(1))
    assert values == {
        PSYS: 60293987000000,
        PACKAGE_0: 165465468984,
        PACKAGE_1: 201546879312,
        DRAM_0: 48132465798 * 61035 // 15300,
        DRAM_1: 51324687984 * 61035 // 15300,
    }


def test_psys_is_the_nodes_meter_only_where_the_operator_says_so(tmp_path: Path) -> None:
    """As a meter psys contains packages and memory; the operator knows whether it does."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    specs = by_key(source_of(host, psys_is_node_meter=True).open())
    assert specs[PSYS].role is Role.METER
    assert {specs[key].parent for key in (PACKAGE_0, PACKAGE_1, DRAM_0, DRAM_1)} == {PSYS}
    assert {specs[key].role for key in (PACKAGE_0, PACKAGE_1, DRAM_0, DRAM_1)} == {Role.LEAF}
    assert specs[PSYS].component is Component.OTHER


def test_psys_that_is_not_there_meters_nothing_and_is_noted(tmp_path: Path) -> None:
    """The setting on a machine without psys makes no parent that does not exist."""
    source = source_of(machine("xeon_two_sockets", tmp_path), psys_is_node_meter=True)
    assert all(spec.parent is None for spec in source.open())
    assert any("no psys zone" in note for note in source.notes())


def test_the_second_of_two_psys_zones_is_shown(tmp_path: Path) -> None:
    """Linux names further sockets' psys `psys-1`; the node has one meter."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    (host.zone("intel-rapl:2") / "name").write_text("psys-1\n")
    specs = by_key(source_of(host, psys_is_node_meter=True).open())
    assert specs[PSYS].role is Role.METER
    assert specs[ChannelKey("node", "psys-1", "rapl")].role is Role.SHOWN


def test_sapphire_rapids_memory_on_an_old_kernel_is_booked_fourfold(tmp_path: Path) -> None:
    """The kernel shows a quarter of its energy (RRZE-HPC/likwid#642): value and range are mended, and it is said."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    source = source_of(host)
    specs = by_key(source.open())
    before = counters(source.read(1))
    host.add_energy("intel-rapl:0:0", 15_300_000)
    after = counters(source.read(2))
    assert after[DRAM_0] - before[DRAM_0] == pytest.approx(61_035_000, abs=1)
    assert after[PACKAGE_0] == before[PACKAGE_0]
    assert specs[DRAM_0].counter_range_microjoules == pytest.approx(2**32 * 61.035, rel=1e-6)
    assert [note for note in source.notes() if "four times what is shown" in note and "intel-rapl:0:0" in note]


def test_a_mended_counter_never_continues_one_that_was_not(tmp_path: Path) -> None:
    """Scaled values are another generation: after an upgrade of the agent the first is a baseline, no leap of energy."""
    host = machine("xeon_sapphire_rapids", tmp_path)
    source = source_of(host)
    source.open()
    mended = outcome(source.read(1), DRAM_0)
    plain = outcome(source.read(1), PACKAGE_0)
    assert isinstance(mended, CounterReading)
    assert isinstance(plain, CounterReading)
    assert mended.generation != plain.generation


def test_psys_in_steps_of_a_joule_is_noted(tmp_path: Path) -> None:
    """Its range of 2^32 - 1 joules gives it away (intel/powertelemetry#3)."""
    source = source_of(machine("xeon_sapphire_rapids", tmp_path))
    source.open()
    assert [note for note in source.notes() if "steps of 1 J" in note and "psys" in note]


def test_a_known_fault_of_haswell_memory_is_mended(tmp_path: Path) -> None:
    """On Haswell-EP steps of 61 uJ are four times too large; on the Ice Lake of the fixture 15.3 uJ are right."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    source.open()
    assert source.notes() == []
    cpuinfo = host.proc / "cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("model\t\t: 106", "model\t\t: 63"))
    (host.zone("intel-rapl:0:0") / "max_energy_range_uj").write_text("262143328850\n")
    source = source_of(host)
    source.open()
    assert [note for note in source.notes() if "a quarter of what is shown" in note] == source.notes()
    before = counters(source.read(1))[DRAM_0]
    host.add_energy("intel-rapl:0:0", 61_035_000)
    assert counters(source.read(2))[DRAM_0] - before == pytest.approx(15_300_000, abs=1)


def test_an_mmio_duplicate_is_not_read(tmp_path: Path) -> None:
    """One package by two drivers is one channel; by MSR it has its core and uncore too, so that one is read."""
    host = machine("laptop_mmio", tmp_path)
    source = source_of(host)
    source.open()
    assert counters(source.read(1))[PACKAGE_0] == 88123456789
    assert any("intel-rapl-mmio:0 measures package-0" in note for note in source.notes())


def test_another_driver_is_another_generation(tmp_path: Path) -> None:
    """Where MMIO alone is left, the channel is the same, but its counter never continues that by MSR."""
    host = machine("laptop_mmio", tmp_path)
    source = source_of(host)
    source.open()
    by_msr = outcome(source.read(1), PACKAGE_0)
    host.refused["intel-rapl:0"] = errno.EACCES
    source = source_of(host)
    source.open()
    by_mmio = outcome(source.read(2), PACKAGE_0)
    assert isinstance(by_msr, CounterReading)
    assert isinstance(by_mmio, CounterReading)
    assert by_mmio.counter_microjoules == 12345678901
    assert by_msr.generation != by_mmio.generation


def test_one_system_call_for_each_domain_and_tick(tmp_path: Path) -> None:
    """Files stay open: a tick costs one pread a domain, and no open."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    source.open()
    host.preads = host.opens = 0
    for now in range(1, 11):
        source.read(now)
    assert host.preads == 4 * 10
    assert host.opens == 0


def test_counters_move_in_the_open_file(tmp_path: Path) -> None:
    """What the kernel writes next is read next, through the same descriptor."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    source.open()
    before = counters(source.read(1))
    host.add_energy("intel-rapl:1:0", 12 * JOULE)
    after = counters(source.read(2))
    assert {key: after[key] - before[key] for key in after if after[key] != before[key]} == {DRAM_1: 12 * JOULE}


@pytest.mark.parametrize("code", [errno.ENODATA, errno.EINVAL, errno.EIO, errno.EACCES])
def test_one_failed_read_among_good_ones(tmp_path: Path, code: int) -> None:
    """A domain that fails tries again; the others are read, and it is read as soon as it answers."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    source.open()
    host.failing["intel-rapl:0:0"] = code
    readings = source.read(1)
    assert set(counters(readings)) == {PACKAGE_0, PACKAGE_1, DRAM_1}
    failure = outcome(readings, DRAM_0)
    assert isinstance(failure, TryAgain)
    assert "intel-rapl:0:0/energy_uj" in failure.reason
    host.failing.clear()
    assert DRAM_0 in counters(source.read(2))


@pytest.mark.parametrize("content", ["", "garbage", "-5", "65712999614", "0x10"])
def test_a_value_that_cannot_be_is_not_believed(tmp_path: Path, content: str) -> None:
    """Empty, negative, no number, or beyond the range: no reading, and above all no zero."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    source.open()
    host.set_energy("intel-rapl:0:0", content)
    assert isinstance(outcome(source.read(1), DRAM_0), TryAgain)


def test_a_driver_that_was_reloaded_is_opened_again(tmp_path: Path) -> None:
    """ENODEV means that the old file is dead: it is closed, and the next read opens the new one."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    source.open()
    host.failing["intel-rapl:0"] = errno.ENODEV
    opens = host.opens
    assert isinstance(outcome(source.read(1), PACKAGE_0), TryAgain)
    host.failing.clear()
    assert PACKAGE_0 in counters(source.read(2))
    assert host.opens == opens + 1
    source.close()


def test_all_unreadable_counters_are_one_error_with_the_remedy(tmp_path: Path) -> None:
    """As an ordinary user: the reason names the file, the remedy the udev rule and the capability."""
    host = machine("xeon_two_sockets", tmp_path)
    host.refused = {f"intel-rapl:{index}": errno.EACCES for index in ("0", "1", "0:0", "1:0")}
    with pytest.raises(SourceUnavailableError) as caught:
        source_of(host).open()
    assert "intel-rapl:0/energy_uj can't be read: Permission denied." in caught.value.reason
    assert "70-wattledger.rules" in caught.value.remedy
    assert "CAP_DAC_READ_SEARCH" in caught.value.remedy


def test_some_unreadable_counters_are_noted_and_tried_again(tmp_path: Path) -> None:
    """One refused file does not hide the others; once it may be read it is."""
    host = machine("xeon_two_sockets", tmp_path)
    host.refused = {"intel-rapl:1:0": errno.EACCES}
    source = source_of(host)
    assert len(source.open()) == 4
    assert any("intel-rapl:1:0/energy_uj" in note for note in source.notes())
    readings = source.read(1)
    assert set(counters(readings)) == {PACKAGE_0, PACKAGE_1, DRAM_0}
    failure = outcome(readings, DRAM_1)
    assert isinstance(failure, TryAgain)
    assert "70-wattledger.rules" in failure.reason
    host.refused.clear()
    assert DRAM_1 in counters(source.read(2))


def test_counters_that_never_answer_are_an_error_without_a_permission_remedy(tmp_path: Path) -> None:
    """Some virtual machines list zones whose counters give EINVAL."""
    host = machine("node_exporter_capture", tmp_path)
    host.failing = {"intel-rapl:0": errno.EINVAL, "intel-rapl:0:0": errno.EINVAL}
    with pytest.raises(SourceUnavailableError) as caught:
        source_of(host).open()
    assert "Invalid argument" in caught.value.reason
    assert "udev" not in caught.value.remedy


def test_a_masked_container_is_told_what_to_mount(tmp_path: Path) -> None:
    """Dangling links are a container's masked folder, not a machine without RAPL."""
    with pytest.raises(SourceUnavailableError) as caught:
        source_of(machine("container_masked", tmp_path)).open()
    assert "mount /sys/devices/virtual/powercap" in caught.value.reason


@pytest.mark.parametrize(
    ("name", "cpuinfo", "remedy"),
    [
        ("virtual_machine", None, "hypervisor"),
        ("virtual_machine", "vendor_id\t: GenuineIntel\n", "modprobe intel_rapl_msr"),
        ("virtual_machine", "CPU implementer\t: 0x41\n", "Nothing can be done"),
    ],
)
def test_without_powercap_the_remedy_fits_the_machine(tmp_path: Path, name: str, cpuinfo: str | None, remedy: str) -> None:
    """A guest, a host without the driver, and a processor without RAPL are told different things."""
    host = machine(name, tmp_path)
    if cpuinfo is not None:
        (host.proc / "cpuinfo").write_text(cpuinfo)
    with pytest.raises(SourceUnavailableError) as caught:
        source_of(host).open()
    assert remedy in caught.value.remedy


def test_an_unknown_range_leaves_no_way_to_take_a_fall_for_a_wrap(tmp_path: Path) -> None:
    """Without max_energy_range_uj the channel is offered as one that never wraps, and that is noted."""
    host = machine("xeon_two_sockets", tmp_path)
    (host.zone("intel-rapl:0") / "max_energy_range_uj").unlink()
    source = source_of(host)
    assert by_key(source.open())[PACKAGE_0].counter_range_microjoules is None
    assert any("a fall of it will be a gap" in note for note in source.notes())


def test_a_difference_below_zero_is_refused_where_no_range_refuses_it(tmp_path: Path) -> None:
    """A counter without a range is held against what the registry knows to be no energy; the reason says which."""
    host = machine("xeon_two_sockets", tmp_path)
    (host.zone("intel-rapl:0") / "max_energy_range_uj").unlink()
    source = source_of(host)
    source.open()
    host.set_energy("intel-rapl:0", 18446744073447456768)
    refused = outcome(source.read(1), PACKAGE_0)
    assert isinstance(refused, TryAgain)
    assert "taken as unsigned" in refused.reason
    source.close()


def test_an_unknown_domain_is_noted_and_not_metered(tmp_path: Path) -> None:
    """A name that no kernel had so far is left out in words."""
    host = machine("xeon_two_sockets", tmp_path)
    (host.zone("intel-rapl:1:0") / "name").write_text("hbm\n")
    source = source_of(host)
    assert DRAM_1 not in by_key(source.open())
    assert any("'hbm'" in note for note in source.notes())


def test_mirrored_dies_are_counted_once(tmp_path: Path) -> None:
    """Equal counters that move alike are one: found at the start, in the time that 50 J take."""
    host = machine("threadripper_mirrored_dies", tmp_path)
    host.watts = {"intel-rapl:0": 68.0, "intel-rapl:1": 68.0}
    source = source_of(host)
    assert DIE_1 not in by_key(source.open())
    assert 0.5 < host.waited_seconds < 1.0
    assert any("package-0-die-1 mirrors package-0-die-0" in note for note in source.notes())
    host.preads = 0
    assert set(counters(source.read(1))) == {DIE_0, ChannelKey("cpu/0", "core-die-0", "rapl")}
    assert host.preads == 2


def test_mirrors_on_an_idle_machine_are_withheld_until_it_is_known(tmp_path: Path) -> None:
    """No energy, no verdict: the possible mirror is never read before, and is gone after."""
    host = machine("threadripper_mirrored_dies", tmp_path)
    source = source_of(host)
    assert DIE_1 in by_key(source.open())
    assert isinstance(outcome(source.read(1), DIE_1), TryAgain)
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        host.add_energy(zone, 60 * JOULE)
    readings = source.read(2)
    assert isinstance(outcome(readings, DIE_1), Gone)
    assert isinstance(outcome(readings, ChannelKey("cpu/0", "core-die-1", "rapl")), Gone)
    assert isinstance(outcome(readings, DIE_0), CounterReading)
    assert all(reading.key != DIE_1 for reading in source.read(3) if isinstance(reading, CounterReading | TryAgain | Gone))


def test_mirrors_with_an_offset_are_found_by_how_they_move(tmp_path: Path) -> None:
    """Counters that differ, but by the same amount over 2000 J and a wrap, are one too."""
    host = machine("threadripper_mirrored_dies", tmp_path)
    host.set_energy("intel-rapl:0", 65532610987 - 500 * JOULE)
    host.set_energy("intel-rapl:1", 1000 * JOULE)
    source = source_of(host)
    source.open()
    assert host.waited_seconds <= 0.1
    seen = []
    for now in range(1, 42):
        seen.append(type(outcome(source.read(now), DIE_1)))
        if seen[-1] is Gone:
            break
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            host.add_energy(zone, 68 * JOULE)
    assert set(seen[:-1]) == {TryAgain}
    assert seen[-1] is Gone
    assert len(seen) > 2000 // 68


def test_dies_with_counters_of_their_own_are_both_read(tmp_path: Path) -> None:
    """Two dies that draw 2 % more or less part by a joule in seconds; nothing is lost while they were watched."""
    host = machine("xeon_two_dies", tmp_path)
    source = source_of(host)
    source.open()
    for now in range(1, 6):
        readings = source.read(now)
        host.add_energy("intel-rapl:0", 100 * JOULE)
        host.add_energy("intel-rapl:1", 98 * JOULE)
    assert counters(readings)[DIE_1] == 51987654321 + 4 * 98 * JOULE
    assert all("mirrors package" not in note for note in source.notes())


def test_reads_that_took_long_do_not_part_a_mirror(tmp_path: Path) -> None:
    """The leader is read on both sides: some joules between the reads, by pauses of the process, prove nothing."""
    host = machine("threadripper_mirrored_dies", tmp_path)

    def slow_pread(descriptor: int, count: int, offset: int) -> bytes:
        text = host.pread(descriptor, count, offset)
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            host.add_energy(zone, host.preads % 5 * JOULE)
        return text

    source = RaplSource(host.sys, host.proc, opener=host.opener, pread=slow_pread, settle=host.settle)
    assert DIE_1 not in by_key(source.open())


def test_closing_closes_every_file(tmp_path: Path) -> None:
    """After close no descriptor is left; closing twice is harmless, and opening again works."""
    host = machine("xeon_two_sockets", tmp_path)
    source = source_of(host)
    before = len(list(Path("/proc/self/fd").iterdir()))
    source.open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 4
    source.close()
    source.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(source.open()) == 4
    source.close()
