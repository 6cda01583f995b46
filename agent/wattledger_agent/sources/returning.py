"""Looks for parts that were removed while their siblings stay: a card that is plugged in again, a driver that is bound anew.

Opens nothing itself and waits for nothing. A source whose parts are all gone is closed, and looked for as a whole (late.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from wattledger_agent.readings import (
    NANOSECONDS_PER_SECOND,
    ChannelKey,
    ChannelSpec,
    Gone,
    Offer,
    Reading,
    SourceUnavailableError,
)
from wattledger_agent.sources.sensor_files import Chip

# As often as a source that can't be opened is looked for at first. Only where a part is gone does a look cost anything.
LOOK_SECONDS = 60

# A chip's device folder, name and place among its like.
_Identity = tuple[str, str, int]
_NOWHERE: _Identity = ("", "", 0)


class Returning:
    """Watches over the removed parts of one source. find: the chips that it would find now, wanted or not."""

    def __init__(self, name: str, find: Callable[[], Iterable[Chip]]) -> None:
        self._name = name
        self._find = find
        self._seen: set[_Identity] = set()
        # Until they are back, however often the source is opened meanwhile.
        self._removed: dict[ChannelKey, _Identity] = {}
        self._due_nanoseconds: int | None = None

    def opened(self) -> None:
        """Note what is there when the source is opened."""
        self._seen = {_identity(chip) for chip in self._find()}

    def changes(
        self,
        now_nanoseconds: int,
        gone: Mapping[ChannelKey, Chip],
        present: Iterable[ChannelKey],
        open_source: Callable[[], Sequence[ChannelSpec]],
    ) -> list[Reading]:
        """Open the source anew if there is a chip which is not read, in its old place or in another; say what changed.

        gone: channels of removed parts, with their chips. present: the others.
        """
        if gone:
            self._removed |= {key: _identity(chip) for key, chip in gone.items()}
        if not self._removed or not self._has_come(now_nanoseconds):
            return []
        before = list(present)
        try:
            specs = tuple(open_source())
        except SourceUnavailableError as error:
            return [Gone(key, error.reason) for key in before]
        keys = {spec.key for spec in specs}
        returned = frozenset(self._removed.keys() & keys)
        for key in returned:
            del self._removed[key]
        lost = [key for key in before if key not in keys]
        # Where they were was not there to be seen.
        self._removed |= dict.fromkeys(lost, _NOWHERE)
        reason = "was not there when the source was opened again"
        return [*(Gone(key, f"{self._name}: {key.device} {reason}") for key in lost), Offer(specs, returned)]

    def _has_come(self, now_nanoseconds: int) -> bool:
        is_due = self._due_nanoseconds is not None and now_nanoseconds >= self._due_nanoseconds
        if is_due or self._due_nanoseconds is None:
            self._due_nanoseconds = now_nanoseconds + LOOK_SECONDS * NANOSECONDS_PER_SECOND
        return is_due and bool({_identity(chip) for chip in self._find()} - (self._seen - {*self._removed.values()}))


def _identity(chip: Chip) -> _Identity:
    return str(chip.device), chip.name, chip.ordinal
