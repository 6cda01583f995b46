"""What RAPL tells of a machine as a whole: guests and shared folders, energy filtering, sockets, and the fitting remedy."""

from pathlib import Path

import pytest
from tests.agent.machines import Machine, machine
from tests.agent.rapl_reading import JOULE, PACKAGE_0, by_key, counters, outcome, source_of, tree

from wattledger_agent.config import CpuConfig, NvidiaConfig, RaplConfig, SourcesConfig
from wattledger_agent.inventory import Inventory, Roots, close_all, find_sources
from wattledger_agent.readings import Method, TryAgain


def notes_of(host: Machine) -> list[str]:
    """What the source tells of this machine."""
    source = source_of(host)
    source.open()
    source.close()
    return list(source.notes())


def inventory_of(host: Machine, rapl: RaplConfig | None = None) -> Inventory:
    """What the agent would open there: RAPL, and the estimate where it is needed."""
    config = SourcesConfig(rapl=rapl or RaplConfig(), nvidia=NvidiaConfig(enabled=False), cpu=CpuConfig(enabled=False))
    inventory = find_sources(config, Roots(host.sys, host.proc))
    close_all(inventory)
    return inventory


def test_a_guest_with_virtual_rapl_is_metered_and_its_estimate_stands_aside(tmp_path: Path) -> None:
    """What QEMU gives is a counter, with a note that an agent on the host counts the same energy."""
    host = machine("kvm_guest_virtual_rapl", tmp_path)
    inventory = inventory_of(host)
    assert {spec.method for spec in inventory.specs} == {Method.COUNTER}
    assert [source.source.name for source in inventory.opened][:1] == ["rapl"]
    assert all(source.source.name != "estimate" for source in inventory.opened)
    (note,) = notes_of(host)
    assert "virtual RAPL" in note
    assert "on its host counts the same energy" in note


@pytest.mark.parametrize("name", ["kvm_guest", "virtual_machine"])
def test_a_guest_without_rapl_is_estimated_and_told_what_its_host_can_do(tmp_path: Path, name: str) -> None:
    """kepler#2280: no zones in a KVM guest are no reason to end; the class may be missing or empty."""
    inventory = inventory_of(machine(name, tmp_path))
    assert [source.source.name for source in inventory.opened if source.specs] == ["estimate"]
    (missing,) = (missing for missing in inventory.missing if missing.source == "rapl")
    assert "QEMU 9.1: -accel kvm,rapl=true" in missing.remedy


def test_a_share_that_the_host_writes_is_metered(tmp_path: Path) -> None:
    """scaphandre's tree has a counter and nothing else: one package that never wraps, and an empty folder beside it."""
    host = machine("scaphandre_guest", tmp_path)
    shared = host.root / "var" / "scaphandre"
    source = source_of(host, shared_root=shared)
    assert tree(source.open()) == ["cpu/0 package LEAF CPU 4000 W None"]
    assert counters(source.read(1)) == {PACKAGE_0: 12345678901}
    (note,) = source.notes()
    assert "an agent on the host counts the same energy" in note
    source.close()


def test_a_share_that_is_just_being_written_is_tried_again(tmp_path: Path) -> None:
    """The exporter empties its file before it writes: nothing is no zero."""
    host = machine("scaphandre_guest", tmp_path)
    counter = host.root / "var" / "scaphandre" / "intel-rapl:0" / "energy_uj"
    source = source_of(host, shared_root=counter.parent.parent)
    source.open()
    counter.write_text("")
    assert isinstance(outcome(source.read(1), PACKAGE_0), TryAgain)
    counter.write_text(str(12345678901 + 5 * JOULE))
    assert counters(source.read(2)) == {PACKAGE_0: 12345678901 + 5 * JOULE}
    source.close()


def test_a_shared_folder_is_a_setting(tmp_path: Path) -> None:
    """With it the guest is metered; where the folder is not mounted the remedy says so, and the estimate takes over."""
    host = machine("scaphandre_guest", tmp_path)
    rapl = RaplConfig(shared_root=str(host.root / "var" / "scaphandre"))
    assert [spec.key for spec in inventory_of(host, rapl).specs] == [PACKAGE_0]
    unmounted = inventory_of(host, RaplConfig(shared_root=str(host.root / "nowhere")))
    (missing,) = (missing for missing in unmounted.missing if missing.source == "rapl")
    assert "9p or virtiofs" in missing.remedy
    assert {spec.method for spec in unmounted.specs} == {Method.MODEL}


def test_a_shared_counter_never_continues_the_kernels(tmp_path: Path) -> None:
    """Switched on within a boot, the first value is a baseline: the two count from different beginnings."""
    host = machine("kvm_guest_virtual_rapl", tmp_path)
    shared = tmp_path / "shared" / "intel-rapl:0"
    shared.mkdir(parents=True)
    (shared / "energy_uj").write_text("5")
    by_kernel, by_folder = source_of(host), source_of(host, shared_root=shared.parent)
    by_kernel.open()
    by_folder.open()
    assert outcome(by_kernel.read(1), PACKAGE_0) != outcome(by_folder.read(1), PACKAGE_0)
    generations = {getattr(outcome(source.read(1), PACKAGE_0), "generation", None) for source in (by_kernel, by_folder)}
    assert len(generations) == 2
    by_kernel.close()
    by_folder.close()


def test_energy_filtering_is_told_by_the_cpus_flag(tmp_path: Path) -> None:
    """SGX in cpuinfo means that it is switched on, and the filter with it."""
    host = machine("xeon_two_sockets", tmp_path)
    cpuinfo = host.proc / "cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("tsc msr", "tsc msr sgx sgx_lc"))
    (note,) = notes_of(host)
    assert "energy filtering (INTEL-SA-00389)" in note
    assert "single seconds" in note


def test_energy_filtering_is_told_by_the_driver(tmp_path: Path) -> None:
    """Some kernels hide the flag; the driver's device can still be there."""
    host = machine("xeon_two_sockets", tmp_path)
    (host.sys / "class" / "misc" / "sgx_enclave").mkdir(parents=True)
    assert any("energy filtering" in note for note in notes_of(host))


def test_without_sgx_nothing_is_said_of_filtering(tmp_path: Path) -> None:
    """Neither on Intel without it, nor on AMD, which has no such filter."""
    assert notes_of(machine("xeon_two_sockets", tmp_path)) == []
    genoa = machine("epyc_genoa", tmp_path)
    (genoa.sys / "class" / "misc" / "sgx_enclave").mkdir(parents=True)
    assert not any("filtering" in note for note in notes_of(genoa))


def test_a_package_that_is_no_socket_is_noted(tmp_path: Path) -> None:
    """Its energy is metered, but CPU time can't be tied to it."""
    host = machine("xeon_two_sockets", tmp_path)
    (host.zone("intel-rapl:1") / "name").write_text("package-7\n")
    source = source_of(host)
    assert {spec.key.device for spec in by_key(source.open()).values()} == {"cpu/0", "cpu/7", "memory/0", "memory/7"}
    assert any("package-7 is none of the sockets that /proc/cpuinfo knows (0, 1)" in note for note in source.notes())
    source.close()
