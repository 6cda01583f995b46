"""Measures with codecarbon when told to: run by the Python of codecarbon's own environment, never by the product's.

Reads numbers of measurements from standard input and answers each with what was measured since the start, in kWh. What it
may read of the machine folder it does read there: RAPL through its own class for that, the memory through psutil, and GPUs
through a module `pynvml` that comes first in PYTHONPATH. Outside of the folder it asks this host for its static description.

    python codecarbon_loop.py SYS_ROOT PROC_ROOT
"""

import importlib
import json
import sys
from pathlib import Path

# Its own scheduler must not measure beside what is told.
NEVER_SECONDS = 1e6


def main() -> None:
    """Set up what `EmissionsTracker` has on a machine with RAPL and GPUs, then measure as its scheduler does."""
    sys_root, proc_root = Path(sys.argv[1]), sys.argv[2]
    hardware = importlib.import_module("codecarbon.external.hardware")
    tracker = importlib.import_module("codecarbon").OfflineEmissionsTracker(
        country_iso_code="DEU",
        save_to_file=False,
        log_level="critical",
        measure_power_secs=NEVER_SECONDS,
        allow_multiple_runs=True,
        force_cpu_power=100,
    )
    tracker._ensure_hardware_ready()
    rapl = hardware.CPU("", "intel_rapl", "", 0, rapl_dir=str(sys_root / "class/powercap"), rapl_include_dram=True)
    tracker._hardware = [rapl if isinstance(one, hardware.CPU) else one for one in tracker._hardware]
    tracker._hardware.append(hardware.GPU.from_utils(None))
    tracker.start()
    # Only now: at its start psutil looks for this very process.
    vars(importlib.import_module("psutil"))["PROCFS_PATH"] = proc_root
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            tracker._measure_power_and_energy()
        print(json.dumps({"cpu": tracker._total_cpu_energy.kWh, "gpu": tracker._total_gpu_energy.kWh}), flush=True)


if __name__ == "__main__":
    main()
