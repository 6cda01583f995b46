"""The registry of sensors that are known to be wrong: how each fault is told, what is done about it, and who found it.

Reads nothing and mends nothing: a source states what it found, and does what the fault's action says. Source of truth: the
citation of each entry. A new fault is one entry here, and one test named after it in tests/agent/test_known_faults.py.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

INTEL, AMD = "GenuineIntel", "AuthenticAMD"

# A unit of energy is told from its nominal size within a tenth: the kernel rounds it, and the next one is four times it.
UNIT_TOLERANCE_RATIO = 0.1

# In nanojoules, as the kernel reckons them (drivers/powercap/intel_rapl_common.c).
FINE_UNIT_NANOJOULES = 15_300
COARSE_UNIT_NANOJOULES = 61_035

_VERSION = re.compile(r"(\d+)\.(\d+)")


class Action(Enum):
    """What a source does about a fault."""

    # This value is no reading: return TryAgain.
    REFUSE_VALUE = "refuse value"
    # Multiply value and range by `scale`, under a generation of their own.
    SCALE = "scale"
    # Do not offer the channel.
    HIDE_DOMAIN = "hide domain"
    # Book as it is; power over a short time is coarse.
    COARSE_STEP = "coarse step"
    # Never a leaf or meter.
    SHOW_ONLY = "show only"
    # Offer the counter as one that never wraps, so that a fall of it is a gap.
    NO_RANGE = "no range"
    # Book as it is, and say so to the operator.
    DISTRUST = "distrust"


@dataclass(frozen=True, slots=True)
class Machine:
    """What tells one make of machine from another; empty or 0 where it is not known.

    cpuid: vendor, family and model of the first CPU. kernel: (major, minor). is_guest: under a hypervisor.
    has_sgx: the CPU's enclaves are switched on.
    """

    cpuid: tuple[str, int, int] = ("", 0, 0)
    model_name: str = ""
    kernel: tuple[int, int] = (0, 0)
    is_guest: bool = False
    has_sgx: bool = False

    @property
    def vendor(self) -> str:
        """The CPU's vendor as CPUID spells it."""
        return self.cpuid[0]


@dataclass(frozen=True, slots=True)
class Sensor:
    """One channel of a source, as far as faults can be told from it.

    domain: in the source's own words (`dram`; hwmon: the channel's name, as `power1`; BMC: `dcmi`).
    unit_microjoules: energy of one step of a counter; 0 if unknown. has_range: it is known where its counter wraps.
    is_enabled: False where the driver says that the channel is switched off.
    """

    source: str
    domain: str
    unit_microjoules: float = 0.0
    has_range: bool = True
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry. A detector that is empty or None says nothing; all others must agree.

    sentence: what the sensor does wrong and what is done about it; begins in lower case, ends without a stop.
    citation: who found it, or which document says it.
    sources, domains, cpuids: any of them. model_name: a pattern within the CPU's name. kernel_before: (major, minor).
    unit_microjoules: of a counter's step. has_range, is_enabled: as in Sensor.
    microwatts, microjoules: first and last wrong value. An entry with one of them is about a value, not a sensor.
    scale: numerator and denominator for Action.SCALE.
    """

    id: str
    action: Action
    sentence: str
    citation: str
    sources: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    cpuids: tuple[tuple[str, int, int], ...] = ()
    vendor: str = ""
    model_name: str = ""
    kernel_before: tuple[int, int] | None = None
    unit_microjoules: float | None = None
    has_range: bool | None = None
    is_enabled: bool | None = None
    microwatts: tuple[int, int] | None = None
    microjoules: tuple[int, int] | None = None
    scale: tuple[int, int] = (1, 1)

    def scaled(self, microjoules: int) -> int:
        """The true value of what the sensor shows; rounded down, so that differences of it telescope."""
        numerator, denominator = self.scale
        return microjoules * numerator // denominator

    def is_about(self, machine: Machine, sensor: Sensor) -> bool:
        """Whether this sensor of this machine has the fault."""
        if self.microwatts is not None or self.microjoules is not None:
            return False
        return (
            (not self.sources or sensor.source in self.sources)
            and (not self.domains or sensor.domain in self.domains)
            and (not self.cpuids or machine.cpuid in self.cpuids)
            and (not self.vendor or machine.vendor == self.vendor)
            and (not self.model_name or re.search(self.model_name, machine.model_name) is not None)
            and (self.kernel_before is None or (0, 0) < machine.kernel < self.kernel_before)
            and (self.unit_microjoules is None or _near(sensor.unit_microjoules, self.unit_microjoules))
            and (self.has_range is None or sensor.has_range == self.has_range)
            and (self.is_enabled is None or sensor.is_enabled == self.is_enabled)
        )


FAULTS: tuple[Fault, ...] = (
    Fault(
        id="sapphire-rapids-dram-unit",
        action=Action.SCALE,
        sentence="the kernel (before 6.1, or a stable one without its fix) takes steps of 15.3 uJ for this processor's "
        "61 uJ (max_energy_range_uj says so): its energy is four times what is shown, and is booked so",
        citation="https://github.com/RRZE-HPC/likwid/pull/643; Intel SDM volume 4, MSR 619h of the 4th generation; "
        "drivers/powercap/intel_rapl_common.c, rapl_defaults_spr_server",
        sources=("rapl",),
        domains=("dram",),
        cpuids=((INTEL, 6, 143),),
        unit_microjoules=FINE_UNIT_NANOJOULES / 1000,
        scale=(COARSE_UNIT_NANOJOULES, FINE_UNIT_NANOJOULES),
    ),
    Fault(
        id="haswell-dram-unit",
        action=Action.SCALE,
        sentence="the kernel takes steps of 61 uJ where this processor has 15.3 uJ: its energy is a quarter of what is "
        "shown, and is booked so; a newer kernel shows it right",
        citation="https://github.com/TACC/HPCPerfStats/issues/9; drivers/powercap/intel_rapl_common.c, "
        "rapl_defaults_hsw_server",
        sources=("rapl",),
        domains=("dram",),
        # Haswell-EP, Broadwell-EP, Skylake-SP, Knights Landing and Mill: 15.3 uJ whatever the unit register says.
        cpuids=((INTEL, 6, 63), (INTEL, 6, 79), (INTEL, 6, 85), (INTEL, 6, 87), (INTEL, 6, 133)),
        unit_microjoules=COARSE_UNIT_NANOJOULES / 1000,
        scale=(FINE_UNIT_NANOJOULES, COARSE_UNIT_NANOJOULES),
    ),
    Fault(
        id="psys-one-joule-steps",
        action=Action.COARSE_STEP,
        sentence="it counts in steps of 1 J; its power over a second is coarse",
        citation="drivers/powercap/intel_rapl_common.c, rapl_defaults_spr_server.psys_domain_energy_unit; "
        "https://github.com/intel/powertelemetry/issues/3",
        sources=("rapl",),
        domains=("psys",),
        unit_microjoules=1_000_000.0,
    ),
    Fault(
        id="granite-rapids-dram",
        action=Action.DISTRUST,
        sentence="on this processor two like sockets were seen to show 200 W and 6 W of memory, unexplained; compare it "
        "with the other socket and with a meter of the node",
        citation="https://github.com/icl-utk-edu/papi/pull/635",
        sources=("rapl",),
        domains=("dram",),
        cpuids=((INTEL, 6, 173),),
    ),
    Fault(
        id="epyc-7702-core",
        action=Action.HIDE_DOMAIN,
        sentence="its core domain shows aberrant values on this processor; it is not read, and the package, which is "
        "booked, contains it",
        citation="alumet, plugins/rapl/src/consistency.rs (https://github.com/alumet-dev/alumet)",
        sources=("rapl",),
        domains=("core",),
        vendor=AMD,
        model_name=r"EPYC 7702\b",
    ),
    Fault(
        id="amd-core-is-one-core",
        action=Action.SHOW_ONLY,
        sentence="AMD's core counter is that of one core of the package, not of all; it is shown, and never booked",
        citation="https://github.com/cyring/CoreFreq/issues/54 (MSR C001_029A is per core); "
        "drivers/powercap/intel_rapl_msr.c, rapl_msr_priv_amd",
        sources=("rapl",),
        domains=("core",),
        vendor=AMD,
    ),
    Fault(
        id="range-unreadable",
        action=Action.NO_RANGE,
        sentence="max_energy_range_uj can't be read, so that a wrap can't be told from a reset: a fall of it will be a gap",
        citation="https://github.com/mlco2/codecarbon/issues/1309",
        sources=("rapl",),
        has_range=False,
    ),
    Fault(
        id="hwmon-switched-off",
        action=Action.HIDE_DOMAIN,
        sentence="its `_enable` file says 0: the chip does not measure, and what the value file shows is old or nothing",
        citation="Linux, Documentation/hwmon/sysfs-interface.rst, [0-*]_enable",
        sources=("hwmon",),
        is_enabled=False,
    ),
    Fault(
        id="all-ones-milliwatts",
        action=Action.REFUSE_VALUE,
        sentence="0xFFFFFFFF milliwatts are a register's way to say that there is no value",
        citation="https://github.com/sustainable-computing-io/kepler/issues/1049; NVML_VALUE_NOT_AVAILABLE in nvml.h",
        microwatts=(0xFFFF_FFFF * 1000, 0xFFFF_FFFF * 1000),
    ),
    Fault(
        id="all-ones-microwatts",
        action=Action.REFUSE_VALUE,
        sentence="0xFFFFFFFF microwatts are a register's way to say that there is no value",
        citation="https://github.com/sustainable-computing-io/kepler/issues/1049, one unit finer",
        microwatts=(0xFFFF_FFFF, 0xFFFF_FFFF),
    ),
    Fault(
        id="power-beyond-a-megawatt",
        action=Action.REFUSE_VALUE,
        sentence="no machine draws a megawatt: a difference below 0 was taken as unsigned, or an error code as a value",
        citation="https://github.com/intel/xpumanager/issues/130 (3.69e12 W, which is 2^64 uJ over 5 s)",
        microwatts=(10**12, 2**200),
    ),
    Fault(
        id="bmc-zero-watts",
        action=Action.REFUSE_VALUE,
        sentence="a controller that answers 0 W has no value: it draws power itself to answer",
        citation="https://github.com/openbmc/openbmc/issues/3257; https://github.com/openbmc/phosphor-host-ipmid/issues/167",
        sources=("ipmi", "redfish", "bmc"),
        microwatts=(0, 0),
    ),
    Fault(
        id="amd-gpu-zero-watts",
        action=Action.REFUSE_VALUE,
        sentence="a GPU that is awake draws power: 0 W is what a board's second die shows, or a controller that hangs",
        citation="https://github.com/ROCm/rocm_smi_lib/issues/160; aldebaran_is_primary() in "
        "drivers/gpu/drm/amd/pm/swsmu/smu13/aldebaran_ppt.c",
        sources=("amd_gpu",),
        microwatts=(0, 0),
    ),
    Fault(
        id="energy-below-zero-as-unsigned",
        action=Action.REFUSE_VALUE,
        sentence="a counter at 2^63 and more is a difference below 0 taken as unsigned",
        citation="https://github.com/sustainable-computing-io/kepler/issues/53 (18446744073447456768)",
        microjoules=(2**63, 2**200),
    ),
)


def faults_of(machine: Machine, sensor: Sensor) -> list[Fault]:
    """Every fault that this sensor of this machine is known to have, in the registry's order."""
    return [fault for fault in FAULTS if fault.is_about(machine, sensor)]


def with_action(faults: Iterable[Fault], action: Action) -> Fault | None:
    """The first of these faults that asks for this action."""
    return next((fault for fault in faults if fault.action is action), None)


def power_sentinel(source: str, microwatts: int) -> Fault | None:
    """The fault by which this power is no power; None if it may be one."""
    return _sentinel(source, microwatts, [(fault, fault.microwatts) for fault in _POWER_SENTINELS])


def energy_sentinel(source: str, microjoules: int) -> Fault | None:
    """The fault by which this counter's value is no energy; None if it may be one."""
    return _sentinel(source, microjoules, [(fault, fault.microjoules) for fault in _ENERGY_SENTINELS])


def parse_machine(cpuinfo: str, osrelease: str = "") -> Machine:
    """Read the texts of /proc/cpuinfo (its first paragraph) and /proc/sys/kernel/osrelease; never raises."""
    fields: dict[str, str] = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        label, _, value = line.partition(":")
        fields[label.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    version = _VERSION.match(osrelease.strip())
    return Machine(
        cpuid=(fields.get("vendor_id", ""), _number(fields.get("cpu family", "")), _number(fields.get("model", ""))),
        model_name=fields.get("model name", ""),
        kernel=(int(version[1]), int(version[2])) if version else (0, 0),
        is_guest="hypervisor" in flags,
        has_sgx="sgx" in flags,
    )


_POWER_SENTINELS = [fault for fault in FAULTS if fault.microwatts is not None]
_ENERGY_SENTINELS = [fault for fault in FAULTS if fault.microjoules is not None]


def _sentinel(source: str, value: int, entries: list[tuple[Fault, tuple[int, int] | None]]) -> Fault | None:
    for fault, span in entries:
        if span is not None and span[0] <= value <= span[1] and (not fault.sources or source in fault.sources):
            return fault
    return None


def _near(value: float, expected: float) -> bool:
    return abs(value - expected) <= expected * UNIT_TOLERANCE_RATIO


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
