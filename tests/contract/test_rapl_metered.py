"""RAPL through the real meter: what reaches the account when reads fail, counters wrap, start anew, or belong to no one.

The truth is what the test added to the machine's counters.
"""

import errno
from pathlib import Path

import pytest
from tests.agent.machines import Machine, machine
from tests.contract.rapl_bench import DRAM_1, JOULE, PACKAGE_0, PACKAGE_1, STEP, ZONES, Bench

from wattledger_agent.readings import ChannelKey, Role
from wattledger_protos.v1 import telemetry_pb2 as pb


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    """Two sockets with memory."""
    return machine("xeon_two_sockets", tmp_path)


def test_a_total_is_what_the_counters_counted(host: Machine) -> None:
    """Every microjoule that passes between the first and the last read is in the account."""
    bench = Bench(host)
    bench.tick()
    for second in range(10):
        for index, zone in enumerate(ZONES.values()):
            host.add_energy(zone, (index + 1) * JOULE * 10 + second)
        bench.tick()
    assert bench.energy == {key: 100 * (index + 1) * JOULE + 45 for index, key in enumerate(ZONES)}
    assert set(bench.gaps.values()) == {(0, 0)}


@pytest.mark.parametrize("fault", [errno.ENODATA, errno.EINVAL, errno.EIO, errno.ENODEV, "", "0x0", "18446744073709551615"])
def test_a_failed_read_changes_the_total_by_nothing(host: Machine, fault: int | str) -> None:
    """With a domain failing for three ticks every total is what it would have been, and nothing is a gap."""
    bench = Bench(host)
    bench.tick()
    before = host.energy("intel-rapl:0")
    for second in range(6):
        for zone in ZONES.values():
            host.add_energy(zone, 66_700_000)
        if 1 <= second <= 3:
            kept = host.energy("intel-rapl:0")
            if isinstance(fault, int):
                host.failing["intel-rapl:0"] = fault
            else:
                host.set_energy("intel-rapl:0", fault)
            bench.tick()
            assert bench.energy[PACKAGE_0] == 66_700_000
            host.failing.clear()
            host.set_energy("intel-rapl:0", kept)
        else:
            bench.tick()
    assert host.energy("intel-rapl:0") - before == 6 * 66_700_000
    assert set(bench.energy.values()) == {6 * 66_700_000}
    assert set(bench.gaps.values()) == {(0, 0)}


def test_a_wrap_is_energy(host: Machine) -> None:
    """A fall within a time too short for two ranges is one wrap, exactly."""
    host.set_energy("intel-rapl:0", 262143328850 - 30 * JOULE)
    bench = Bench(host)
    bench.tick()
    host.add_energy("intel-rapl:0", 100 * JOULE)
    assert host.energy("intel-rapl:0") == 70 * JOULE - STEP
    bench.tick()
    assert bench.energy[PACKAGE_0] == 100 * JOULE
    assert bench.gaps[PACKAGE_0] == (0, 0)


def test_a_wrap_during_failed_reads_is_energy_too(host: Machine) -> None:
    """A counter that wraps while it can't be read is known from the two reads around it."""
    host.set_energy("intel-rapl:1:0", 65712999613 - JOULE)
    bench = Bench(host)
    bench.tick()
    host.failing["intel-rapl:1:0"] = errno.EIO
    bench.tick()
    host.add_energy("intel-rapl:1:0", 5 * JOULE)
    host.failing.clear()
    bench.tick()
    assert bench.energy[DRAM_1] == 5 * JOULE


def test_an_ambiguous_wrap_is_a_gap_that_holds_the_truth(host: Machine) -> None:
    """After longer than range / bound nothing is booked; the bounds contain what passed, with and without wraps."""
    bench = Bench(host)
    bench.tick()
    # 262 kJ at 500 W are 524 s.
    host.add_energy("intel-rapl:0", 40_000 * JOULE)
    host.add_energy("intel-rapl:1", 262143328850 + STEP + 7 * JOULE)
    bench.tick(600)
    assert bench.energy[PACKAGE_0] == bench.energy[PACKAGE_1] == 0
    assert bench.gaps[PACKAGE_0] == (40_000 * JOULE, 40_000 * JOULE)
    lower, upper = bench.gaps[PACKAGE_1]
    assert (lower, upper) == (7 * JOULE, 262143328850 + STEP + 7 * JOULE)
    assert pb.GAP_REASON_WRAP_AMBIGUOUS in bench.reasons
    host.add_energy("intel-rapl:1", 3 * JOULE)
    bench.tick()
    assert bench.energy[PACKAGE_1] == 3 * JOULE


def test_a_counter_that_started_anew_is_a_gap_where_its_range_is_unknown(host: Machine) -> None:
    """Without a range a fall is a reset: nothing is booked, and the bound holds what may have passed."""
    (host.zone("intel-rapl:0") / "max_energy_range_uj").unlink()
    bench = Bench(host)
    bench.tick()
    host.set_energy("intel-rapl:0", 5 * JOULE)
    bench.tick()
    assert bench.energy[PACKAGE_0] == 0
    assert bench.gaps[PACKAGE_0][0] == 0
    assert bench.gaps[PACKAGE_0][1] >= 500 * JOULE
    assert pb.GAP_REASON_RESET in bench.reasons


def test_another_drivers_counter_is_not_taken_for_a_wrap(tmp_path: Path) -> None:
    """When the agent comes back and finds the package by another driver, its counter is a baseline with a gap."""
    laptop = machine("laptop_mmio", tmp_path)
    bench = Bench(laptop)
    bench.tick()
    laptop.refused["intel-rapl:0"] = errno.EACCES
    again = bench.restarted()
    again.tick()
    assert again.energy[PACKAGE_0] == 0
    assert again.gaps[PACKAGE_0] == (0, 500 * JOULE)


def test_energy_during_an_agents_restart_is_recovered(host: Machine) -> None:
    """The counter went on while no agent ran: the next run books it from the last record's state."""
    bench = Bench(host)
    bench.tick()
    host.add_energy("intel-rapl:0", 77 * JOULE)
    again = bench.restarted(seconds=20)
    again.tick()
    assert again.energy[PACKAGE_0] == 77 * JOULE
    assert again.gaps[PACKAGE_0] == (0, 0)


def test_after_a_reboot_the_first_value_is_a_baseline(host: Machine) -> None:
    """Another boot is another counter: what it shows at first was not counted by this account."""
    bench = Bench(host)
    bench.tick()
    host.set_energy("intel-rapl:0", 12 * JOULE)
    again = bench.restarted(boot_id=bytes(16), seconds=60)
    again.tick()
    assert again.energy[PACKAGE_0] == 0
    assert again.gaps[PACKAGE_0][1] == 61 * 500 * JOULE
    assert pb.GAP_REASON_REBOOT in again.reasons


def test_mirrored_dies_are_booked_once(tmp_path: Path) -> None:
    """Whether the verdict falls at the start or while reading, the account holds the socket's energy once."""
    for is_idle in (False, True):
        folder = tmp_path / str(is_idle)
        folder.mkdir()
        threadripper = machine("threadripper_mirrored_dies", folder)
        threadripper.watts = {} if is_idle else {"intel-rapl:0": 68.0, "intel-rapl:1": 68.0}
        bench = Bench(threadripper)
        bench.tick()
        for _ in range(10):
            for zone in ("intel-rapl:0", "intel-rapl:1"):
                threadripper.add_energy(zone, 68 * JOULE)
            bench.tick()
        leaves = {spec.key for spec in bench.specs if spec.role is Role.LEAF}
        assert sum(energy for key, energy in bench.energy.items() if key in leaves) == 680 * JOULE


def test_dies_of_their_own_lose_nothing_while_they_are_watched(tmp_path: Path) -> None:
    """Reads that are withheld until the verdict are made up by the first that is given, back to the last run's."""
    xeon = machine("xeon_two_dies", tmp_path)
    die_1 = ChannelKey("cpu/0", "package-die-1", "rapl")

    def pass_energy() -> None:
        xeon.add_energy("intel-rapl:0", 100 * JOULE)
        xeon.add_energy("intel-rapl:1", 98 * JOULE)

    bench = Bench(xeon)
    for _ in range(3):
        bench.tick()
        pass_energy()
    bench.tick()
    booked = bench.energy[die_1]
    again = bench.restarted()
    for _ in range(5):
        pass_energy()
        again.tick()
    assert again.energy[die_1] == booked + 5 * 98 * JOULE
    assert set(again.gaps.values()) <= {(0, 0), bench.gaps[die_1]}


def test_a_mirror_that_parts_is_booked_from_then_on(tmp_path: Path) -> None:
    """Folded for ten minutes, then counters of their own: nothing before is doubled, and nothing after is lost."""
    host = machine("threadripper_mirrored_dies", tmp_path)
    host.watts = {"intel-rapl:0": 68.0, "intel-rapl:1": 68.0}
    bench = Bench(host)
    die_0, die_1 = (ChannelKey("cpu/0", f"package-die-{die}", "rapl") for die in (0, 1))
    bench.tick()
    for _ in range(60):
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            host.add_energy(zone, 680 * JOULE)
        bench.tick(10)
    assert die_1 not in bench.energy
    for _ in range(20):
        host.add_energy("intel-rapl:0", 680 * JOULE)
        host.add_energy("intel-rapl:1", 500 * JOULE)
        bench.tick(10)
    assert bench.energy[die_0] == 80 * 680 * JOULE
    # At most six intervals passed before it was seen, and the one of the offer is its baseline.
    assert bench.energy[die_1] >= (20 - 7) * 500 * JOULE
    before = bench.energy[die_1]
    host.add_energy("intel-rapl:1", 500 * JOULE)
    bench.tick(10)
    assert bench.energy[die_1] == before + 500 * JOULE
    assert bench.gaps[die_0] == (0, 0)
