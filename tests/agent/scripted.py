"""Sources and clocks that do what a test says: nothing is read, and no time passes by itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.agent.metering import at

from wattledger_agent.counters import Instant
from wattledger_agent.inventory import Inventory, Missing
from wattledger_agent.readings import ChannelSpec, Reading
from wattledger_agent.sampler import OpenSource

Read = Callable[[int], Sequence[Reading]]


@dataclass
class ScriptedSource:
    """A source whose reads are a function of the boottime in nanoseconds."""

    name: str
    script: Read
    specs: Sequence[ChannelSpec] = ()
    said: Sequence[str] = ()
    may_block: bool = False
    reads: list[int] = field(default_factory=list)
    closed: bool = False

    def open(self) -> Sequence[ChannelSpec]:
        """The specs."""
        return self.specs

    def read(self, now_nanoseconds: int) -> Sequence[Reading]:
        """What the script says."""
        self.reads.append(now_nanoseconds)
        return self.script(now_nanoseconds)

    def notes(self) -> Sequence[str]:
        """What it has to say."""
        return self.said

    def close(self) -> None:
        """Note it."""
        self.closed = True


@dataclass
class Clock:
    """Seconds after boot, moved by tests."""

    seconds: float = 100.0

    def instant(self) -> Instant:
        """Now."""
        return at(self.seconds)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


def opened(*sources: ScriptedSource, missing: Sequence[Missing] = ()) -> Inventory:
    """What `find_sources` would have found."""
    return Inventory([OpenSource(source, source.open()) for source in sources], list(missing))
