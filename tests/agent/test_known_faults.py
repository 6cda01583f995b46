"""The registry of known faults: a test named after each entry, and what the registry owes those who ask it."""

from itertools import pairwise

import pytest

from wattledger_agent.known_faults import (
    AMD,
    FAULTS,
    INTEL,
    Action,
    Fault,
    Machine,
    Sensor,
    energy_sentinel,
    faults_of,
    parse_machine,
    power_sentinel,
    with_action,
)

FINE, COARSE = 65712999613 / (2**32 - 1), 262143328850 / (2**32 - 1)

SAPPHIRE_RAPIDS = Machine((INTEL, 6, 143), "Intel(R) Xeon(R) Platinum 8480+", (5, 15))
HASWELL_EP = Machine((INTEL, 6, 63), "Intel(R) Xeon(R) CPU E5-2690 v3 @ 2.60GHz", (5, 15))
ROME = Machine((AMD, 23, 49), "AMD EPYC 7702 64-Core Processor", (6, 1))
UNKNOWN = Machine()


def ids(machine: Machine, sensor: Sensor) -> list[str]:
    """The names of a sensor's faults."""
    return [fault.id for fault in faults_of(machine, sensor)]


def entry(name: str) -> Fault:
    """One entry of the registry."""
    (found,) = (fault for fault in FAULTS if fault.id == name)
    return found


def test_every_entry_has_a_name_of_its_own_a_citation_a_detector_and_a_test() -> None:
    """An entry that nobody can check, that says nothing, or that no test holds, is refused."""
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert "http" in fault.citation or ".rst" in fault.citation, fault.id
        assert fault.sentence[-1] not in ".\n", fault.id
        assert f"test_{fault.id.replace('-', '_')}" in globals(), fault.id
        assert not fault.is_about(UNKNOWN, Sensor("cpu", "busy")), fault.id


def test_sapphire_rapids_dram_unit() -> None:
    """The range tells the fault whatever the kernel's number, for stable kernels have its fix too."""
    sensor = Sensor("rapl", "dram", FINE)
    assert ids(SAPPHIRE_RAPIDS, sensor) == ["sapphire-rapids-dram-unit"]
    assert ids(SAPPHIRE_RAPIDS, Sensor("rapl", "dram", COARSE)) == []
    assert ids(HASWELL_EP, sensor) == []
    assert ids(SAPPHIRE_RAPIDS, Sensor("rapl", "package", FINE)) == []
    fault = with_action(faults_of(SAPPHIRE_RAPIDS, sensor), Action.SCALE)
    assert fault is not None
    # One joule is 2^14 steps of the register, which the kernel takes for 15.3 uJ each.
    assert fault.scaled(2**14 * 15_300 // 1000) == pytest.approx(1_000_000, rel=1e-4)


def test_haswell_dram_unit() -> None:
    """On Haswell-EP and its like 15.3 uJ are right, and 61 uJ are four times too much."""
    assert ids(HASWELL_EP, Sensor("rapl", "dram", COARSE)) == ["haswell-dram-unit"]
    assert ids(HASWELL_EP, Sensor("rapl", "dram", FINE)) == []
    assert entry("haswell-dram-unit").scaled(61_035) == 15_300


def test_psys_one_joule_steps() -> None:
    """Told by its range on any processor; a laptop's psys in fine steps is well."""
    assert ids(SAPPHIRE_RAPIDS, Sensor("rapl", "psys", 1e6)) == ["psys-one-joule-steps"]
    assert ids(UNKNOWN, Sensor("rapl", "psys", 1e6)) == ["psys-one-joule-steps"]
    assert ids(SAPPHIRE_RAPIDS, Sensor("rapl", "psys", COARSE)) == []


def test_granite_rapids_dram() -> None:
    """Told by the processor alone: nothing that the counter shows gives it away."""
    granite = Machine((INTEL, 6, 173))
    assert [fault.action for fault in faults_of(granite, Sensor("rapl", "dram", COARSE))] == [Action.DISTRUST]
    assert ids(granite, Sensor("rapl", "package", COARSE)) == []


def test_epyc_7702_core() -> None:
    """The one model that it was seen on, with its one-socket sibling's letter told apart."""
    core = Sensor("rapl", "core", FINE)
    assert with_action(faults_of(ROME, core), Action.HIDE_DOMAIN) == entry("epyc-7702-core")
    assert "epyc-7702-core" not in ids(Machine(ROME.cpuid, "AMD EPYC 7702P 64-Core Processor"), core)
    assert "epyc-7702-core" not in ids(Machine(ROME.cpuid, "AMD EPYC 7742 64-Core Processor"), core)
    assert ids(ROME, Sensor("rapl", "package", FINE)) == []


def test_amd_core_is_one_core() -> None:
    """On any AMD, and on no Intel, where core is all cores."""
    core = Sensor("rapl", "core", FINE)
    assert ids(Machine((AMD, 25, 17)), core) == ["amd-core-is-one-core"]
    assert ids(HASWELL_EP, core) == []


def test_range_unreadable() -> None:
    """Without max_energy_range_uj no fall is a wrap."""
    assert ids(UNKNOWN, Sensor("rapl", "package", has_range=False)) == ["range-unreadable"]
    assert entry("range-unreadable").action is Action.NO_RANGE


def test_hwmon_switched_off() -> None:
    """Of hwmon alone: RAPL's zones count with `enabled` 0, which is about power limits."""
    assert ids(UNKNOWN, Sensor("hwmon", "power1", is_enabled=False)) == ["hwmon-switched-off"]
    assert ids(UNKNOWN, Sensor("hwmon", "power1")) == []
    assert ids(UNKNOWN, Sensor("rapl", "package", is_enabled=False)) == []


def test_all_ones_milliwatts() -> None:
    """4294967295000 uW, which ACPI's meters and NVML give where they have no value; its neighbours may be values."""
    assert power_sentinel("hwmon", 4294967295000) == entry("all-ones-milliwatts")
    assert power_sentinel("nvidia", 4294967295000) == entry("all-ones-milliwatts")


def test_all_ones_microwatts() -> None:
    """The same in microwatts would look like 4.3 kW, which a server may draw: only the exact value is refused."""
    assert power_sentinel("hwmon", 4294967295) == entry("all-ones-microwatts")
    assert power_sentinel("hwmon", 4294967294) is None
    assert power_sentinel("hwmon", 4294967296) is None


def test_power_beyond_a_megawatt() -> None:
    """3.69e12 W were seen; 160 kW, seen elsewhere, are for the channel's own bound to refuse."""
    assert power_sentinel("intel_gpu", 3_690_000_000_000_000_000) == entry("power-beyond-a-megawatt")
    assert power_sentinel("hwmon", 2**64 - 1) == entry("power-beyond-a-megawatt")
    assert power_sentinel("hwmon", 160_000_000_000) is None


def test_bmc_zero_watts() -> None:
    """Zero is a value of a sensor that can be 0, as a GPU's rail, and none of a whole server."""
    assert power_sentinel("ipmi", 0) == entry("bmc-zero-watts")
    assert power_sentinel("redfish", 0) == entry("bmc-zero-watts")
    assert power_sentinel("hwmon", 0) is None
    assert power_sentinel("ipmi", 1_000_000) is None


def test_amd_gpu_zero_watts() -> None:
    """Of this source alone: a rail of another board may well be off."""
    assert power_sentinel("amd_gpu", 0) == entry("amd-gpu-zero-watts")
    assert power_sentinel("amd_gpu", 1) is None


def test_energy_below_zero_as_unsigned() -> None:
    """The value of the report, and the largest that may still be one."""
    assert energy_sentinel("rapl", 18446744073447456768) == entry("energy-below-zero-as-unsigned")
    assert energy_sentinel("rapl", 2**63 - 1) is None
    assert energy_sentinel("rapl", 0) is None


def test_a_kernels_number_is_read_from_its_release() -> None:
    """Distributions add to it; what is no release is unknown."""
    assert parse_machine("", "5.15.0-91-generic\n").kernel == (5, 15)
    assert parse_machine("", "6.1.0\n").kernel == (6, 1)
    assert parse_machine("", "").kernel == (0, 0)


def test_an_unknown_kernel_is_not_an_old_one() -> None:
    """A detector by kernel needs a kernel."""
    fault = Fault("x", Action.DISTRUST, "x", "http", kernel_before=(6, 1))
    assert fault.is_about(Machine(kernel=(5, 15)), Sensor("rapl", "dram"))
    assert not fault.is_about(Machine(kernel=(6, 1)), Sensor("rapl", "dram"))
    assert not fault.is_about(UNKNOWN, Sensor("rapl", "dram"))


def test_a_machine_is_read_from_cpuinfo() -> None:
    """The first CPU stands for all; flags are whole words."""
    text = (
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R)\n"
        "flags\t\t: fpu sgx hypervisor\n\nprocessor\t: 1\nmodel\t\t: 1\n"
    )
    machine = parse_machine(text, "6.8.0")
    assert machine == Machine((INTEL, 6, 143), "Intel(R) Xeon(R)", (6, 8), is_guest=True, has_sgx=True)
    assert machine.vendor == INTEL
    assert not parse_machine(text.replace("sgx hypervisor", "sgx_lc")).has_sgx
    assert parse_machine("model\t: unknown\n") == UNKNOWN


def test_scaled_differences_telescope() -> None:
    """Ever so many scaled reads end where one would have: rounding never adds up."""
    fault = entry("sapphire-rapids-dram-unit")
    shown = [step * 1_234_567 for step in range(1000)]
    steps = [fault.scaled(after) - fault.scaled(before) for before, after in pairwise(shown)]
    assert sum(steps) == fault.scaled(shown[-1])
    assert with_action([fault], Action.REFUSE_VALUE) is None
