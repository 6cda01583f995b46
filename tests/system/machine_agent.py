"""A real agent on a machine folder that has device files too, which no option of the command names.

python -m tests.system.machine_agent CONFIGURATION MACHINE_FOLDER
"""

import logging
import signal
import sys
import threading
from pathlib import Path

from wattledger_agent import runner
from wattledger_agent.config import parse_config
from wattledger_agent.inventory import Roots


def main() -> None:
    """Run until it is told to stop."""
    logging.basicConfig(level=logging.INFO)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    root = Path(sys.argv[2])
    runner.run(parse_config(Path(sys.argv[1]).read_text()), Roots(root / "sys", root / "proc", root / "dev"), stopping)


if __name__ == "__main__":
    main()
