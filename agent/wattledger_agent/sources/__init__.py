"""The sources: each module reads one kind of sensor, and `SOURCES` is where it is registered.

Holds no logic. A factory takes the arguments of the source's class (roots and options) and touches nothing before `open`. It
imports the module when it is called: a host with RAPL carries no table of power curves in its memory.
"""

import importlib
from typing import Any, cast

from wattledger_agent.readings import Source, SourceFactory


def _made_by(module: str, name: str) -> SourceFactory:
    def make(*arguments: Any, **options: Any) -> Source:
        source = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return cast(Source, source(*arguments, **options))

    return make


# By the name that configuration, channel keys and metrics use; the order is that in which they are shown.
SOURCES: dict[str, SourceFactory] = {
    "rapl": _made_by("rapl", "RaplSource"),
    "hwmon": _made_by("hwmon", "HwmonSource"),
    "nvidia": _made_by("nvidia", "NvidiaSource"),
    "amd_gpu": _made_by("amd_gpu", "AmdGpuSource"),
    "intel_gpu": _made_by("intel_gpu", "IntelGpuSource"),
    "gaudi": _made_by("gaudi", "gaudi_source"),
    "ascend": _made_by("ascend", "ascend_source"),
    "ipmi": _made_by("ipmi", "IpmiSource"),
    "redfish": _made_by("redfish", "redfish_source"),
    "cpu": _made_by("cpu", "CpuSource"),
    "estimate": _made_by("estimate", "EstimateSource"),
    "fake": _made_by("fake", "FakeSource"),
}
