"""Fixture machines that move: a copy of a recorded or built tree whose counters a test sets, and whose files it can break.

Tests run as root, whom no file mode stops: a refusal is made by the opener.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"


@dataclass
class Machine:
    """A machine in a temporary folder.

    refused: zone -> errno that opening its counter gives. failing: zone -> errno that reading it gives.
    preads: number of reads of counters since the test last set it to 0. waited_seconds: what the source wanted to wait.
    on_settle: called with the seconds of each wait, to let energy pass meanwhile.
    """

    root: Path
    refused: dict[str, int] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    preads: int = 0
    opens: int = 0
    waited_seconds: float = 0.0
    watts: dict[str, float] = field(default_factory=dict)
    _zones: dict[int, str] = field(default_factory=dict)

    @property
    def sys(self) -> Path:
        """Its sysfs."""
        return self.root / "sys"

    @property
    def proc(self) -> Path:
        """Its procfs."""
        return self.root / "proc"

    def zone(self, zone: str) -> Path:
        """A zone's folder, as `intel-rapl:0:0`."""
        return self.sys / "class" / "powercap" / zone

    def energy(self, zone: str) -> int:
        """A zone's counter in microjoules."""
        return int((self.zone(zone) / "energy_uj").read_text())

    def set_energy(self, zone: str, microjoules: int | str) -> None:
        """Write a zone's counter, in place: open files stay those of the zone."""
        (self.zone(zone) / "energy_uj").write_text(f"{microjoules}\n")

    def add_energy(self, zone: str, microjoules: int) -> None:
        """Let a zone's counter go on, over its range as the hardware does."""
        highest = int((self.zone(zone) / "max_energy_range_uj").read_text())
        # The register has 32 bits; the file states its highest value, and one step more is 0 again.
        step = highest / (2**32 - 1)
        self.set_energy(zone, (self.energy(zone) + microjoules) % round(highest + step))

    def opener(self, path: Path) -> int:
        """Opens a file as the source would, unless it is refused."""
        zone = path.parent.name
        if zone in self.refused:
            raise OSError(self.refused[zone], os.strerror(self.refused[zone]), str(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.opens += 1
        self._zones[descriptor] = zone
        return descriptor

    def pread(self, descriptor: int, count: int, offset: int) -> bytes:
        """Reads a file as the source would, unless it fails."""
        self.preads += 1
        zone = self._zones.get(descriptor, "")
        if zone in self.failing:
            raise OSError(self.failing[zone], os.strerror(self.failing[zone]))
        return os.pread(descriptor, count, offset)

    def settle(self, seconds: float) -> None:
        """Waits in the machine's own time: `watts` of each zone pass."""
        self.waited_seconds += seconds
        for zone, watts in self.watts.items():
            self.add_energy(zone, round(watts * seconds * 1_000_000))


def machine(name: str, folder: Path) -> Machine:
    """Copy a fixture machine to a folder; see tests/fixtures/<name>/PROVENANCE.md."""
    root = folder / name
    shutil.copytree(FIXTURES / name, root, symlinks=True)
    return Machine(root)
