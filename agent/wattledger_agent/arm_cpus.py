"""ARM processor cores, told by the numbers in /proc/cpuinfo, with what a core of such a machine draws.

Reads no file. Numbers are those of the register MIDR_EL1, named as in the kernel's arch/arm64/include/asm/cputype.h and in
util-linux' lscpu-arm.c. The watts are judged, not fitted: nothing is published of these machines in the way that it is of
x86 servers. They are wall power over cores, from makers' design power and, of small boards, from their makers' own figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Numbers of implementer and part.
Part = tuple[int, int]

ARM, BROADCOM, CAVIUM, FUJITSU, HISILICON, NVIDIA, APPLE, AMPERE = 0x41, 0x42, 0x43, 0x46, 0x48, 0x4E, 0x61, 0xC0


@dataclass(frozen=True, slots=True)
class ArmCore:
    """One design of cores.

    idle_watts, full_watts: what a whole machine draws for each core, at no load and at full load. examples: where it is
    sold; may be empty. is_server: in servers, so that a guest's share of one can be told.
    """

    name: str
    idle_watts: float
    full_watts: float
    examples: str = ""
    is_server: bool = False


# A core that is not in the list is one of these: what most machines with ARM cores are that run an agent.
UNKNOWN = ArmCore("ARM core of an unknown design", 0.9, 3.0)

CORES: dict[Part, ArmCore] = {
    (ARM, 0xD03): ArmCore("Cortex-A53", 0.4, 1.0, "small boards"),
    (ARM, 0xD05): ArmCore("Cortex-A55", 0.3, 0.8, "small boards"),
    (ARM, 0xD07): ArmCore("Cortex-A57", 0.6, 1.8, "Jetson TX1 and Nano"),
    (ARM, 0xD08): ArmCore("Cortex-A72", 0.7, 1.7, "Raspberry Pi 4, first Graviton"),
    (ARM, 0xD0B): ArmCore("Cortex-A76", 0.8, 2.2, "Raspberry Pi 5"),
    (ARM, 0xD42): ArmCore("Cortex-A78AE", 0.7, 2.0, "Jetson Orin"),
    (ARM, 0xD0C): ArmCore("Neoverse-N1", 0.9, 3.2, "Ampere Altra, Graviton 2", is_server=True),
    (ARM, 0xD40): ArmCore("Neoverse-V1", 0.9, 3.2, "Graviton 3", is_server=True),
    (ARM, 0xD49): ArmCore("Neoverse-N2", 0.8, 2.8, "Yitian 710, Cobalt 100", is_server=True),
    (ARM, 0xD4F): ArmCore("Neoverse-V2", 1.0, 4.2, "Grace, Graviton 4, Axion", is_server=True),
    (BROADCOM, 0x516): ArmCore("ThunderX2", 1.8, 6.0, "", is_server=True),
    (CAVIUM, 0x0AF): ArmCore("ThunderX2", 1.8, 6.0, "", is_server=True),
    (FUJITSU, 0x001): ArmCore("A64FX", 1.5, 3.8, "", is_server=True),
    (HISILICON, 0xD01): ArmCore("TaiShan-v110", 1.1, 3.6, "Kunpeng 920", is_server=True),
    (NVIDIA, 0x004): ArmCore("Carmel", 0.9, 2.5, "Jetson Xavier"),
    (APPLE, 0x022): ArmCore("Icestorm", 0.7, 3.5, "Apple M1"),
    (APPLE, 0x023): ArmCore("Firestorm", 0.7, 3.5, "Apple M1"),
    (AMPERE, 0xAC3): ArmCore("Ampere-1", 0.7, 2.4, "AmpereOne", is_server=True),
    (AMPERE, 0xAC4): ArmCore("Ampere-1a", 0.7, 2.4, "AmpereOne M", is_server=True),
}


def part_of(fields: dict[str, str]) -> Part | None:
    """Return the numbers in one processor's block of /proc/cpuinfo; None where there are none, as on x86."""
    try:
        return int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
    except (KeyError, ValueError):
        return None


def core_of(part: Part) -> ArmCore:
    """Return the design; UNKNOWN for one that is not in the list."""
    return CORES.get(part, UNKNOWN)


def name_of(parts: Sequence[Part]) -> str:
    """Name the processors of a machine: each of its designs once, with what they are sold as."""
    names = []
    for part in dict.fromkeys(parts):
        core = CORES.get(part)
        if core is None:
            names.append(f"ARM implementer {part[0]:#04x} part {part[1]:#05x}")
        else:
            names.append(f"{core.name} ({core.examples})" if core.examples else core.name)
    return " and ".join(names)
