"""Known faults of RAPL counters, told by the processor's model and the counter's energy unit.

Mends nothing: a fault is noted, and widens the uncertainty where its size is known. Sources of truth: the energy units in
drivers/powercap/intel_rapl_common.c (rapl_defaults_spr_server, rapl_defaults_hsw_server) and the fixes of them.
"""

from dataclasses import dataclass

from wattledger_agent.sources.powercap import Zone

# The units that kernels have mixed up; a unit shows in max_energy_range_uj.
FINE_UNIT_MICROJOULES = 15.3
COARSE_UNIT_MICROJOULES = 61.0
COARSE_PSYS_UNIT_MICROJOULES = 1_000_000

INTEL_FAMILY = 6
SAPPHIRE_RAPIDS = 143
# Haswell-EP, Broadwell-EP, Skylake-SP and Knights Landing: their dram unit is 15.3 uJ whatever the register says.
FINE_DRAM_MODELS = (63, 79, 85, 87)


@dataclass(frozen=True, slots=True)
class Processor:
    """What /proc/cpuinfo says of the first CPU; empty or 0 where it says nothing."""

    vendor: str = ""
    family: int = 0
    model: int = 0
    model_name: str = ""
    virtual: bool = False


def parse_processor(cpuinfo: str) -> Processor:
    """Parse the first paragraph of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        label, _, value = line.partition(":")
        fields[label.strip()] = value.strip()
    return Processor(
        vendor=fields.get("vendor_id", ""),
        family=_number(fields.get("cpu family", "")),
        model=_number(fields.get("model", "")),
        model_name=fields.get("model name", ""),
        virtual="hypervisor" in fields.get("flags", "").split(),
    )


def dram_reads_low(zone: Zone, processor: Processor) -> bool:
    """Linux before 6.1 (and stable kernels without its fix) takes 15.3 uJ for the 61 uJ of Sapphire Rapids' dram."""
    return (
        zone.kind == "dram"
        and (processor.family, processor.model) == (INTEL_FAMILY, SAPPHIRE_RAPIDS)
        and _near(zone.unit_microjoules, FINE_UNIT_MICROJOULES)
    )


def known_faults(zone: Zone, processor: Processor) -> list[str]:
    """A sentence for each fault that this zone shows."""
    if zone.kind == "psys" and _near(zone.unit_microjoules, COARSE_PSYS_UNIT_MICROJOULES):
        return [f"rapl: {zone.folder} (psys) counts in steps of 1 J; its power over a second is coarse."]
    if dram_reads_low(zone, processor):
        return [
            f"rapl: {zone.folder} counts dram in steps of 15.3 uJ where Sapphire Rapids has 61 uJ: its energy is four times "
            "what is shown. Use Linux 6.1, or a stable kernel that has the same fix."
        ]
    fine_model = processor.family == INTEL_FAMILY and processor.model in FINE_DRAM_MODELS
    if zone.kind == "dram" and fine_model and _near(zone.unit_microjoules, COARSE_UNIT_MICROJOULES):
        return [
            f"rapl: {zone.folder} counts dram in steps of 61 uJ where this processor has 15.3 uJ: it shows four times the "
            "energy. Use a newer kernel."
        ]
    return []


def _near(value: float, expected: float) -> bool:
    """Within a tenth: units are rounded by the kernel, and the next one is at least four times as large."""
    return abs(value - expected) <= expected / 10


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
