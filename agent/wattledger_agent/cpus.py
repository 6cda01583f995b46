"""Server CPU families, told from what /proc/cpuinfo says of a CPU.

Reads no file and knows no power curve: names in, families out. Model numbers are as Intel and AMD assign them (Intel ARK,
AMD's EPYC and Opteron lists); family and model numbers of CPUID as in the kernel's arch/x86/include/asm/intel-family.h.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from wattledger_agent.arm_cpus import Part, name_of, part_of


@dataclass(frozen=True, slots=True)
class Family:
    """A generation of server CPUs.

    pattern: matches the keys (see `cpu_key`) of its models.
    year: when most of its servers were sold. tdp_watts: a usual thermal design power of one chip.
    cpuids: (vendor, family, model) numbers that name it where a model number doesn't, as under a hypervisor.
    words: matches the name that QEMU gives the family.
    """

    name: str
    pattern: str
    year: int
    tdp_watts: float
    cpuids: tuple[tuple[str, int, int], ...] = ()
    words: str = r"$^"


INTEL, AMD = "GenuineIntel", "AuthenticAMD"

# The first match counts.
FAMILIES: tuple[Family, ...] = (
    Family("Core 2 entry", r"xeon[xel]?3[0-3]\d\d", 2008, 95.0),
    Family("Core 2", r"xeon[xel]?(5[1-4]|7[1-4])\d\d", 2008, 80.0, ((INTEL, 6, 15), (INTEL, 6, 23), (INTEL, 6, 29))),
    Family(
        "Nehalem",
        r"xeon[xelw]?(34|35|55|65|75)\d\d",
        2009,
        95.0,
        ((INTEL, 6, 26), (INTEL, 6, 30), (INTEL, 6, 46)),
        "nehalem",
    ),
    Family(
        "Westmere", r"xeon([xelw]?(36|56)\d\d|e7-[248]8\d\dl?$)", 2010, 95.0, ((INTEL, 6, 44), (INTEL, 6, 47)), "westmere"
    ),
    Family("Sandy Bridge", r"xeone[357]-\d{4}l?$", 2012, 95.0, ((INTEL, 6, 42), (INTEL, 6, 45)), "sandybridge"),
    Family("Ivy Bridge", r"xeone[357]-\d{4}[a-z]?v2", 2013, 95.0, ((INTEL, 6, 58), (INTEL, 6, 62)), "ivybridge"),
    Family("Haswell", r"xeone[357]-\d{4}[a-z]?v3", 2015, 120.0, ((INTEL, 6, 60), (INTEL, 6, 63)), "haswell"),
    Family(
        "Broadwell", r"xeone[357]-\d{4}[a-z]?v4", 2016, 120.0, ((INTEL, 6, 71), (INTEL, 6, 79), (INTEL, 6, 86)), "broadwell"
    ),
    Family("Skylake entry", r"xeone3-\d{4}[a-z]?v[56]", 2016, 80.0),
    Family("Coffee Lake", r"xeone-2[12]\d\d", 2019, 80.0),
    Family("Rocket Lake", r"xeone-23\d\d", 2022, 95.0),
    # CPUID can't tell it from Cascade Lake but by its stepping; their curves differ little.
    Family("Skylake", r"xeon(platinum|gold|silver|bronze)\d1\d\d", 2017, 150.0, (), "skylake"),
    Family("Cascade Lake", r"xeon(platinum|gold|silver|bronze)\d2\d\d", 2019, 150.0, ((INTEL, 6, 85),), "cascadelake"),
    Family(
        "Ice Lake", r"xeon(platinum|gold|silver|bronze)\d3\d\d", 2021, 205.0, ((INTEL, 6, 106), (INTEL, 6, 108)), "icelake"
    ),
    Family(
        "Sapphire Rapids", r"xeon(platinum|gold|silver|bronze)\d4\d\d", 2023, 270.0, ((INTEL, 6, 143),), "sapphirerapids"
    ),
    Family("Emerald Rapids", r"xeon(platinum|gold|silver|bronze)\d5\d\d", 2023, 270.0, ((INTEL, 6, 207),)),
    Family("Granite Rapids", r"xeon6\d{3}p", 2024, 330.0, ((INTEL, 6, 173), (INTEL, 6, 174)), "graniterapids"),
    Family("Sierra Forest", r"xeon6\d{3}e", 2024, 250.0, ((INTEL, 6, 175),), "sierraforest"),
    Family("Bulldozer", r"opteron[346][23]\d\d", 2012, 115.0, ((AMD, 21, 1), (AMD, 21, 2)), "opteron_g[45]"),
    Family("Opteron K8", r"opteron[128]2\d\d", 2007, 80.0),
    Family("Opteron K10", r"opteron[1-8][1-4]\d\d", 2009, 100.0, ((AMD, 16, 2), (AMD, 16, 4), (AMD, 16, 8), (AMD, 16, 9))),
    Family("Naples", r"epyc7\w\w1", 2018, 170.0, ((AMD, 23, 1),), "epyc-naples"),
    Family("Rome", r"epyc7(\w\w2|h12)", 2019, 200.0, ((AMD, 23, 49),), "epyc-rome"),
    Family("Milan", r"epyc7\w\w3", 2021, 250.0, ((AMD, 25, 1),), "epyc-milan"),
    Family("Genoa", r"epyc[89]\w\w4", 2022, 290.0, ((AMD, 25, 17), (AMD, 25, 160)), "epyc-genoa"),
    Family("Turin", r"epyc9\w\w5", 2024, 360.0, ((AMD, 26, 2), (AMD, 26, 17)), "epyc-turin"),
)

_SERVER_BRANDS = re.compile(r"xeon|epyc|opteron")
_LAPTOPS = re.compile(
    r"core(\(tm\))?(2duo)?(m\d)?[im][3579]?-?\d{3,5}(u|y|h|hk|hq|hs|mq|qm|m|g\d|p)\b|ultra\d\d{3}[uhv]|ryzen.*\d{4}(u|h|hs|hx)"
)
_DESKTOPS = re.compile(r"core|ryzen|pentium|celeron|athlon|atom|phenom|threadripper|apple")
_NOISE = re.compile(r"\((r|tm)\)|@.*|\bwith\b.*|\b(intel|amd|cpu|processor|genuine|server)\b|\b(\w+)-core\b")


def cpu_key(model_name: str) -> str:
    """Return the name under which the curves know a CPU: "Intel(R) Xeon(R) CPU E5-2660 0 @ 2.20GHz" is `xeone5-2660`."""
    text = _NOISE.sub(" ", model_name.lower())
    # Sandy Bridge models end in a lone 0 where their successors have v2, v3 and v4.
    words = [word for word in text.split() if word != "0"]
    return "".join(words)


@lru_cache(maxsize=512)
def find_family(key: str, cpuid: tuple[str, int, int] | None = None) -> Family | None:
    """Return the family of a server CPU by its model, else by its CPUID; None if it is not known as a server CPU."""
    if not _SERVER_BRANDS.search(key):
        return None
    for family in FAMILIES:
        if re.match(family.pattern, key) or re.search(family.words, key):
            return family
    return next((family for family in FAMILIES if cpuid in family.cpuids), None)


def is_server(key: str) -> bool:
    """Say whether the name is that of a server brand, of whatever model."""
    return bool(_SERVER_BRANDS.search(key))


def is_laptop(key: str) -> bool:
    """Say whether the name is that of a laptop's CPU."""
    return bool(_LAPTOPS.search(key))


def is_desktop(key: str) -> bool:
    """Say whether the name is that of a personal computer's CPU."""
    return bool(_DESKTOPS.search(key))


def is_low_power(key: str) -> bool:
    """Say whether the model is its family's low-power variant (L5430, E5-2450L, 2376 HE)."""
    return bool(re.match(r"xeonl\d|.*\d(l|he|ee|lv\d)$", key))


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What /proc/cpuinfo says.

    model_name: empty where it names none; on ARM, where it has numbers alone, what they stand for. chips, cores, threads: of
    all that this system sees; each >= 1. is_guest: under a hypervisor. parts: on ARM, the numbers of each processor.
    """

    model_name: str
    cpuid: tuple[str, int, int] | None
    chips: int
    cores: int
    threads: int
    is_guest: bool
    parts: tuple[Part, ...] = ()


# Who makes a machine that is none, as its DMI table says: vendor, and a part of the product's name where the vendor sells
# hardware too.
_VIRTUAL_VENDORS = (
    "alibaba cloud", "bochs", "digitalocean", "google", "innotek gmbh", "nutanix", "openstack", "ovirt", "parallels", "qemu",
    "red hat", "tencent cloud", "vmware", "xen",
)  # fmt: skip
_VIRTUAL_PRODUCTS = (
    ("amazon ec2", ""),
    ("microsoft", "virtual machine"),
    ("apple", "virtualization"),
    ("hetzner", "vserver"),
)


def is_virtual(vendor: str, product: str) -> bool:
    """Say whether the DMI names of a machine are those of a virtual one. A cloud's bare metal is told by its product."""
    vendor, product = vendor.lower(), product.lower()
    if "metal" in product:
        return False
    return vendor.startswith(_VIRTUAL_VENDORS) or any(
        vendor.startswith(maker) and name in product for maker, name in _VIRTUAL_PRODUCTS
    )


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read the text of /proc/cpuinfo. Raises ValueError if it lists no processor."""
    first: dict[str, str] = {}
    cores_of_chip: dict[str, int] = {}
    parts: list[Part] = []
    threads = 0
    for block in text.split("\n\n"):
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}
        if "processor" not in fields:
            continue
        first = first or fields
        threads += 1
        part = part_of(fields)
        if part is not None:
            parts.append(part)
        if "physical id" in fields and fields.get("cpu cores", "").isdigit():
            cores_of_chip[fields["physical id"]] = int(fields["cpu cores"])
    if threads == 0:
        raise ValueError("it lists no processor")
    numbers = first.get("cpu family", ""), first.get("model", "")
    cpuid = None
    if all(number.isdigit() for number in numbers):
        cpuid = (first.get("vendor_id", ""), int(numbers[0]), int(numbers[1]))
    return CpuInfo(
        # "ARMv7 Processor rev 3 (v7l)" names no design; the numbers do.
        model_name=name_of(parts) if parts else " ".join(first.get("model name", "").split()),
        cpuid=cpuid,
        chips=max(1, len(cores_of_chip)),
        cores=sum(cores_of_chip.values()) or threads,
        threads=threads,
        is_guest="hypervisor" in first.get("flags", "").split(),
        parts=tuple(parts),
    )
