"""Writes the dashboards as JSON files for Grafana's file provisioning: `make dashboards`.

Decides nothing about what they show: see `fleet.py`, `host.py`, `workloads.py`, `sensors.py`. The files are checked in,
and a test compares them.
"""

import argparse
import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.fleet import fleet
from grafana.host import host
from grafana.sensors import sensors
from grafana.workloads import workloads

FOLDER = Path(__file__).parent / "dashboards"


def texts() -> dict[str, str]:
    """Each dashboard's file name and text."""
    boards = {"fleet": fleet(), "host": host(), "workloads": workloads(), "sensors": sensors()}
    return {
        f"{name}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for name, board in boards.items()
    }


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where to (default: {FOLDER})")
    folder: Path = parser.parse_args().folder
    for name, text in texts().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
