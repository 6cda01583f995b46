"""What the agent makes of each fixture machine, as text beside it: golden.txt.

`python -m tests.fixtures_golden` writes them anew; look at the difference before it is committed. Every part of a machine
draws a steady power there (tests/contract/plants.py), so that the energies show which watts were counted where.
"""

import tempfile
from pathlib import Path

from tests.agent.machines import FIXTURES
from tests.contract.plant_sensors import plant_of

from wattledger_agent.machine_replay import Replay, as_text

# Long enough for mirrored dies to be told apart, for two polls of a management controller, and for a workload's first scan.
SECONDS = 30


def machines() -> list[str]:
    """The names of all fixture machines."""
    return sorted(folder.name for folder in FIXTURES.iterdir() if (folder / "sys").is_dir())


def golden(name: str, workspace: Path) -> str:
    """What `wattledger-agent replay` says of a machine whose parts draw steady powers."""
    plant = plant_of(name, FIXTURES / name, workspace, steady=True)
    replay = Replay(plant.machine, period_seconds=1.0)
    try:
        replay.step(0.0)
        for _ in range(SECONDS):
            replay.step(1.0)
        return as_text(replay.outcome()) + "\n"
    finally:
        replay.close()


def main() -> None:
    """Write all of them."""
    for name in machines():
        with tempfile.TemporaryDirectory() as workspace:
            (FIXTURES / name / "golden.txt").write_text(golden(name, Path(workspace) / "machine"))


if __name__ == "__main__":
    main()
