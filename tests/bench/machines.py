"""The machine that the agent is measured on: two sockets with package and dram counters that move, and busy CPUs.

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


class MovingMachine:
    """A copy of the fixture in a folder, whose energy passes by `advance` alone.

    counters: paths of the four energy counters.
    """

    def __init__(self, folder: Path) -> None:
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

    def advance(self, seconds: float) -> None:
        """Let energy and CPU time pass."""
        for index, descriptor in enumerate(self._descriptors):
            self._energies[index] = (self._energies[index] + round(self._steps[index] * seconds)) % self._ranges[index]
            # One write of one width: an agent in another process sees the old value or the new one, as of the kernel.
            os.pwrite(descriptor, b"%020d\n" % self._energies[index], 0)
        self._times[0] += round(40 * TICKS_PER_SECOND * seconds)
        self._times[3] += round(88 * TICKS_PER_SECOND * seconds)
        os.pwrite(self._stat, _stat_line(self._times) + self._rest, 0)

    def close(self) -> None:
        """Close the files."""
        for descriptor in (*self._descriptors, self._stat):
            os.close(descriptor)


def _stat_line(times: Sequence[int]) -> bytes:
    return b"cpu  " + b" ".join(b"%d" % time for time in times) + b"\n"
