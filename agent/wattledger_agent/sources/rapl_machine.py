"""What an operator should know of RAPL on this machine as a whole: guests, sockets, energy filtering, and remedies.

Reads no counter. Energy filtering blurs an Intel processor's counters on purpose, sums staying right (INTEL-SA-00389,
"Running Average Power Limit Energy Reporting"). It is on where SGX is switched on, and that is seen: as a CPU flag, or as
the driver's device. It may also be switched on without SGX, by bit 0 of MSR 0xBC (MISC_PACKAGE_CTLS), which root alone may
read: that is not seen here.
"""

from collections.abc import Iterator
from pathlib import Path

from wattledger_agent.known_faults import AMD, INTEL, Machine

SHARED_REMEDY = "Mount the folder that the host writes (9p or virtiofs), or correct `sources.rapl.shared_root`."


def machine_notes(machine: Machine, sysfs_root: Path, cpuinfo: str, packages: set[int]) -> Iterator[str]:
    """Sentences on the machine. packages: the numbers of the packages that are metered."""
    sockets = _sockets(cpuinfo)
    for package in sorted(packages - sockets if sockets else ()):
        known = ", ".join(str(socket) for socket in sorted(sockets))
        yield (
            f"rapl: package-{package} is none of the sockets that /proc/cpuinfo knows ({known}); it is metered, but can't "
            "be tied to CPUs."
        )
    if machine.is_guest:
        yield (
            "rapl: this is a virtual machine; the counters are what its hypervisor lets it see (virtual RAPL), and an agent "
            "on its host counts the same energy."
        )
    has_driver = (sysfs_root / "class" / "misc" / "sgx_enclave").exists()
    if machine.vendor == INTEL and (machine.has_sgx or has_driver):
        yield (
            "rapl: SGX is switched on, and with it energy filtering (INTEL-SA-00389): the counters are blurred on purpose; "
            "energy over minutes is right, power over single seconds is not exact."
        )


def shared_note(folder: Path) -> str:
    """A sentence on a folder with the guest's share of its host."""
    return (
        f"rapl: {folder} holds what this virtual machine's host reckons to be its share; an agent on the host counts the "
        "same energy."
    )


def remedy_without_powercap(machine: Machine) -> str:
    """What to do where there are no zones."""
    if machine.is_guest:
        return (
            "In a virtual machine only the hypervisor can offer RAPL (QEMU 9.1: -accel kvm,rapl=true); "
            "without it, power is estimated."
        )
    if machine.vendor in (INTEL, AMD):
        return "Load the driver: modprobe intel_rapl_msr (for AMD too, since Linux 5.11)."
    return "Nothing can be done: RAPL is in x86 processors of Intel and AMD only."


def _sockets(cpuinfo: str) -> set[int]:
    """The physical ids in /proc/cpuinfo; empty where it has none (some virtual machines, ARM)."""
    found = set()
    for line in cpuinfo.splitlines():
        label, _, value = line.partition(":")
        if label.strip() == "physical id" and value.strip().isdecimal():
            found.add(int(value))
    return found
