"""The machine that the agent is measured on: two sockets with package and dram counters that move, busy CPUs, workloads.

The files are those of a fixture, written in place while the agent keeps them open.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "xeon_two_sockets"
ZONES = {"intel-rapl:0": 180.0, "intel-rapl:0:0": 25.0, "intel-rapl:1": 160.0, "intel-rapl:1:0": 22.0}
MICROJOULES_PER_JOULE = 1_000_000
TICKS_PER_SECOND = 100

# Threads of two sockets, of which 40 work.
CPUS, BUSY_CPUS = 128, 40


class MovingMachine:
    """A copy of the fixture in a folder, whose energy passes by `advance` alone.

    counters: paths of the four energy counters. groups: those of so many control groups, four fifths of them pods, the rest
    services, of which every one works.
    """

    def __init__(self, folder: Path, groups: int = 0) -> None:
        shutil.copytree(FIXTURE, folder, symlinks=True)
        self.sys, self.proc = folder / "sys", folder / "proc"
        # A real agent in this root asks for the boot as well; it is this machine's.
        boot_id = self.proc / "sys/kernel/random/boot_id"
        boot_id.parent.mkdir(parents=True)
        boot_id.write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
        self.counters = [self.sys / "class/powercap" / zone / "energy_uj" for zone in ZONES]
        self._energies = [int(path.read_text()) for path in self.counters]
        self._ranges = [int((path.parent / "max_energy_range_uj").read_text()) for path in self.counters]
        self._steps = [round(watts * MICROJOULES_PER_JOULE) for watts in ZONES.values()]
        self._descriptors = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in self.counters]
        self._stat = os.open(self.proc / "stat", os.O_RDWR | os.O_CLOEXEC)
        first, _, self._rest = os.read(self._stat, 1 << 20).partition(b"\n")
        self._times = [int(field) for field in first.split()[1:]]
        self._used_microseconds = 0.0
        self.groups = [_make_group(self.sys / "fs/cgroup", number) for number in range(groups)]
        self._group_descriptors = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in self.groups]
        if groups:
            (self.sys / "fs/cgroup/cgroup.controllers").write_text("cpu memory\n")
            for cpu in range(CPUS):
                topology = self.sys / f"devices/system/cpu/cpu{cpu}/topology"
                topology.mkdir(parents=True)
                (topology / "physical_package_id").write_text(f"{2 * cpu // CPUS}\n")
            self.advance(0.0)

    def advance(self, seconds: float) -> None:
        """Let energy and CPU time pass."""
        for index, descriptor in enumerate(self._descriptors):
            self._energies[index] = (self._energies[index] + round(self._steps[index] * seconds)) % self._ranges[index]
            # One write of one width: an agent in another process sees the old value or the new one, as of the kernel.
            os.pwrite(descriptor, b"%020d\n" % self._energies[index], 0)
        self._times[0] += round(BUSY_CPUS * TICKS_PER_SECOND * seconds)
        self._times[3] += round((CPUS - BUSY_CPUS) * TICKS_PER_SECOND * seconds)
        if self.groups:
            each = b" ".join(b"%d" % (time // CPUS) for time in self._times)
            self._rest = b"".join(b"cpu%d %s\n" % (cpu, each) for cpu in range(CPUS))
            self._used_microseconds += 1e6 * BUSY_CPUS * seconds / len(self.groups)
            text = b"usage_usec %020d\nuser_usec 0\nsystem_usec 0\n" % round(self._used_microseconds)
            for descriptor in self._group_descriptors:
                os.pwrite(descriptor, text, 0)
        os.pwrite(self._stat, _stat_line(self._times) + self._rest, 0)

    def close(self) -> None:
        """Close the files."""
        for descriptor in (*self._descriptors, *self._group_descriptors, self._stat):
            os.close(descriptor)


def _make_group(root: Path, number: int) -> Path:
    """The CPU counter of a group, as the kubelet's systemd driver and systemd lay them."""
    uid = f"{number:08x}_1111_4222_8333_{number:012x}"
    pod = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"
    folder = root / (f"system.slice/unit-{number}.service" if number % 5 == 0 else pod)
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("usage_usec 0\n")
    return folder / "cpu.stat"


def _stat_line(times: Sequence[int]) -> bytes:
    return b"cpu  " + b" ".join(b"%d" % time for time in times) + b"\n"
