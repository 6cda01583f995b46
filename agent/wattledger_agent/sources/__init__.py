"""The sources: each module reads one kind of sensor, and `SOURCES` is where it is registered.

Holds no logic. A factory is the source's class: roots and options are its arguments, and nothing is touched before `open`.
"""

from wattledger_agent.readings import SourceFactory
from wattledger_agent.sources.cpu import CpuSource
from wattledger_agent.sources.estimate import EstimateSource
from wattledger_agent.sources.fake import FakeSource
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.rapl import RaplSource

# By the name that configuration, channel keys and metrics use; the order is that in which they are shown.
SOURCES: dict[str, SourceFactory] = {
    "rapl": RaplSource,
    "nvidia": NvidiaSource,
    "cpu": CpuSource,
    "estimate": EstimateSource,
    "fake": FakeSource,
}
