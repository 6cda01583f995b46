"""Stands for the module `pynvml` in a real agent process: eight simulated GPUs that draw power in real time.

The agent finds it first when this folder leads PYTHONPATH. The real module is loaded beside it, so that its memory counts.
"""

import sys
import time
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tests.agent.fake_nvml import FakeNvmlError, eight_gpus

_installed = PathFinder.find_spec("pynvml", [path for path in sys.path if Path(path) != Path(__file__).parent])
assert _installed is not None
_spec = spec_from_file_location("real_pynvml", _installed.origin)
assert _spec is not None
assert _spec.loader is not None
# It looks itself up while it is loaded.
real_pynvml = sys.modules["real_pynvml"] = module_from_spec(_spec)
_spec.loader.exec_module(real_pynvml)

NVMLError = FakeNvmlError

_nvml = eight_gpus()
_last = time.monotonic()


def nvmlDeviceGetTotalEnergyConsumption(handle: Any) -> int:  # noqa: N802 - the driver's name.
    """Millijoules until now."""
    global _last
    now = time.monotonic()
    _nvml.advance(now - _last)
    _last = now
    return _nvml.nvmlDeviceGetTotalEnergyConsumption(handle)


def __getattr__(name: str) -> Any:
    """Everything else is the simulated driver's."""
    return getattr(_nvml, name)
