"""CPU names and /proc/cpuinfo: the same part under all its spellings."""

import pytest

from wattledger_agent.cpus import (
    cpu_key,
    find_family,
    is_desktop,
    is_laptop,
    is_low_power,
    is_server,
    is_virtual,
    parse_cpuinfo,
)
from wattledger_agent.curves import read_table


@pytest.mark.parametrize(
    ("model_name", "key", "family"),
    [
        ("Intel(R) Xeon(R) CPU E5-2660 0 @ 2.20GHz", "xeone5-2660", "Sandy Bridge"),
        ("Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz", "xeone5-2699v4", "Broadwell"),
        ("Intel(R) Xeon(R) CPU           L5420  @ 2.50GHz", "xeonl5420", "Core 2"),
        ("Intel(R) Xeon(R) E-2388G CPU @ 3.20GHz", "xeone-2388g", "Rocket Lake"),
        ("Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz", "xeonplatinum8380", "Ice Lake"),
        ("Intel(R) Xeon(R) Platinum 8480+", "xeonplatinum8480+", "Sapphire Rapids"),
        ("Intel(R) Xeon(R) 6980P", "xeon6980p", "Granite Rapids"),
        ("Intel Xeon Processor (Skylake, IBRS)", "xeon(skylake,ibrs)", "Skylake"),
        ("AMD EPYC 7742 64-Core Processor", "epyc7742", "Rome"),
        ("AMD EPYC 7R13 Processor", "epyc7r13", "Milan"),
        ("AMD EPYC 9R14", "epyc9r14", "Genoa"),
        ("AMD EPYC-Rome Processor", "epyc-rome", "Rome"),
        ("Dual-Core AMD Opteron(tm) Processor 2216 HE", "opteron2216he", "Opteron K8"),
        ("Six-Core AMD Opteron(tm) Processor 2435", "opteron2435", "Opteron K10"),
        ("AMD Opteron(tm) Processor 6276", "opteron6276", "Bulldozer"),
    ],
)
def test_a_server_cpu_is_known_by_its_name(model_name: str, key: str, family: str) -> None:
    """The name in /proc/cpuinfo leads to the key of the table and to the family."""
    found = find_family(cpu_key(model_name))
    assert cpu_key(model_name) == key
    assert found is not None
    assert found.name == family


def test_a_guest_whose_cpu_has_no_number_is_known_by_its_cpuid() -> None:
    """A hypervisor says "AMD EPYC" only; family and model number tell Genoa."""
    found = find_family("epyc", ("AuthenticAMD", 25, 17))
    assert found is not None
    assert found.name == "Genoa"
    assert find_family("epyc", ("AuthenticAMD", 99, 1)) is None
    assert find_family("xeon") is None


@pytest.mark.parametrize(
    ("model_name", "laptop", "desktop"),
    [
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", True, True),
        ("11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", True, True),
        ("Intel(R) Core(TM) Ultra 7 155H", True, True),
        ("AMD Ryzen 7 PRO 5850U with Radeon Graphics", True, True),
        ("AMD Ryzen 7 5800X 8-Core Processor", False, True),
        ("Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz", False, True),
        ("QEMU Virtual CPU version 2.5+", False, False),
        ("", False, False),
    ],
)
def test_what_is_no_server_cpu_has_no_family(model_name: str, laptop: bool, desktop: bool) -> None:
    """Personal computers are told apart, and none is taken for a server, whatever its CPUID."""
    key = cpu_key(model_name)
    assert (is_laptop(key), is_desktop(key), is_server(key)) == (laptop, desktop, False)
    assert find_family(key, ("GenuineIntel", 6, 85)) is None


def test_every_server_cpu_of_the_table_has_a_family() -> None:
    """No curve is left without relatives for want of a pattern, but for the one that SPEC itself does not name."""
    unknown = {curve.server.cpu for curve in read_table() if find_family(curve.server.cpu) is None}
    assert unknown == set()


def test_low_power_variants_are_told() -> None:
    """L before or after the number, HE and EE."""
    assert all(map(is_low_power, ["xeonl5430", "xeone5-2450l", "xeone3-1265lv2", "opteron2376he", "opteron2377ee"]))
    assert not any(map(is_low_power, ["xeonx5670", "xeone5-2660v2", "epyc7742", "xeonplatinum8180"]))


def block(processor: int, chip: int, cores: int, flags: str = "fpu") -> str:
    """Return one processor's block of /proc/cpuinfo."""
    return (
        f"processor\t: {processor}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
        f"model name\t: Intel(R) Xeon(R)  Gold 6252\nphysical id\t: {chip}\ncpu cores\t: {cores}\nflags\t\t: {flags}\n"
    )


def test_chips_and_cores_are_counted_by_physical_id() -> None:
    """Two chips of two cores with two threads each."""
    info = parse_cpuinfo("\n".join(block(number, number % 2, 2) for number in range(8)))
    assert (info.chips, info.cores, info.threads, info.is_guest) == (2, 4, 8, False)
    assert info.model_name == "Intel(R) Xeon(R) Gold 6252"
    assert info.cpuid == ("GenuineIntel", 6, 85)


def test_a_hypervisor_is_told_by_its_flag() -> None:
    """The flag `hypervisor` is set for guests only."""
    assert parse_cpuinfo(block(0, 0, 1, "fpu hypervisor sse")).is_guest


def test_a_cpuinfo_without_names_still_counts_processors() -> None:
    """ARM gives neither model name nor physical id."""
    info = parse_cpuinfo("processor\t: 0\nBogoMIPS\t: 50\n\nprocessor\t: 1\nBogoMIPS\t: 50\n")
    assert (info.model_name, info.cpuid, info.chips, info.cores, info.threads) == ("", None, 1, 2, 2)


def test_a_cpuinfo_without_processors_is_refused() -> None:
    """An empty or foreign file is no machine."""
    with pytest.raises(ValueError, match="lists no processor"):
        parse_cpuinfo("hello: world\n")


def test_arm_names_its_designs_by_number() -> None:
    """Two kinds of cores, each once, and every processor's numbers; the kernel's "ARMv8 Processor" names nothing."""
    blocks = [
        f"processor\t: {number}\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"
        for number, part in enumerate(["0xd05", "0xd05", "0xd0b"])
    ]
    info = parse_cpuinfo("\n".join(blocks))
    assert info.model_name == "Cortex-A55 (small boards) and Cortex-A76 (Raspberry Pi 5)"
    assert info.parts == ((0x41, 0xD05), (0x41, 0xD05), (0x41, 0xD0B))
    assert (info.chips, info.cores, info.threads) == (1, 3, 3)


@pytest.mark.parametrize(
    ("vendor", "product", "virtual"),
    [
        ("QEMU", "KVM Virtual Machine", True),
        ("Amazon EC2", "m6g.large", True),
        ("Amazon EC2", "m6g.metal", False),
        ("Microsoft Corporation", "Virtual Machine", True),
        ("Microsoft Corporation", "C2030 Blade", False),
        ("VMware, Inc.", "VMware20,1", True),
        ("Dell Inc.", "PowerEdge R760", False),
        ("", "", False),
    ],
)
def test_a_virtual_machine_is_told_by_its_dmi_names(vendor: str, product: str, virtual: bool) -> None:
    """Vendors that sell hardware too are told by the product, and a cloud's bare metal is hardware."""
    assert is_virtual(vendor, product) is virtual
