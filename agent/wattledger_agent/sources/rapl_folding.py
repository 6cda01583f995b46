"""Pairs of RAPL counters that are one register, and the watch over them for as long as the agent runs.

Decides nothing on its own (mirrors.py does) and removes no channel (the source does): it reads pairs and tells verdicts.
"""

import logging
from dataclasses import dataclass

from wattledger_agent.readings import MICROJOULES_PER_JOULE, NANOSECONDS_PER_SECOND
from wattledger_agent.sources.mirrors import DuplicateWatch, MirrorWatch, Verdict
from wattledger_agent.sources.rapl_counter import Counter

log = logging.getLogger("wattledger.agent")

# Folded pairs are looked at this often: three reads a pair. Shorter than the shortest wrap, 65 s of 1000 W on AMD.
WATCH_SECONDS = 60


@dataclass(slots=True)
class Pair:
    """A counter and its possible twin."""

    leader: Counter
    twin: Counter
    watch: MirrorWatch | DuplicateWatch

    def observe(self) -> Verdict:
        """Read the leader, its twin and the leader again; an error says nothing."""
        try:
            before, twin, after = (each.value() for each in (self.leader, self.twin, self.leader))
        except (OSError, ValueError):
            return Verdict.UNDECIDED
        return self.watch.observe(before, twin, after)


def mirror_pair(leader: Counter, twin: Counter) -> Pair:
    """Two dies of a package, which may show one counter."""
    return Pair(leader, twin, MirrorWatch(twin.zone.modulus_microjoules))


def duplicate_pair(leader: Counter, twin: Counter) -> Pair:
    """One domain by two drivers."""
    return Pair(leader, twin, DuplicateWatch(leader.zone.modulus_microjoules, twin.zone.modulus_microjoules))


class FoldedPairs:
    """Pairs of which one counter is booked. The twin stays open: a fold that proves wrong is told, counted and undone.

    divergences: pairs that have parted since the start.
    """

    def __init__(self) -> None:
        self.divergences = 0
        self.notes: list[str] = []
        self._pairs: list[Pair] = []
        self._next_nanoseconds = 0

    def add(self, pair: Pair) -> None:
        """Watch a pair from now on."""
        self._pairs.append(pair)

    def check(self, now_nanoseconds: int) -> list[Pair]:
        """Look at all pairs, if it is time, and return those that have parted. now_nanoseconds: CLOCK_BOOTTIME."""
        if not self._pairs or now_nanoseconds < self._next_nanoseconds:
            return []
        is_first = self._next_nanoseconds == 0
        self._next_nanoseconds = now_nanoseconds + WATCH_SECONDS * NANOSECONDS_PER_SECOND
        if is_first:
            return []
        parted = [pair for pair in self._pairs if pair.observe() is Verdict.DISTINCT]
        for pair in parted:
            self._part(pair)
        return parted

    def close(self) -> None:
        """Close the twins; their leaders belong to the source."""
        for pair in self._pairs:
            pair.twin.close()
        self._pairs = []

    def _part(self, pair: Pair) -> None:
        self.divergences += 1
        twin, leader = pair.twin.zone, pair.leader.zone
        if isinstance(pair.watch, DuplicateWatch):
            shown, other = (microjoules // MICROJOULES_PER_JOULE for microjoules in pair.watch.advances_microjoules)
            note = (
                f"rapl: {twin.folder.name} and {leader.folder.name} no longer agree on {leader.name}: {other} J by the one, "
                f"{shown} J by the other, which is booked; one of the drivers is wrong (parted pairs: {self.divergences})."
            )
        else:
            note = (
                f"rapl: {twin.name} was folded into {leader.name}, and now counts on its own: both are metered from now on, "
                f"and up to {WATCH_SECONDS} s of it are missing (parted pairs: {self.divergences})."
            )
        self.notes.append(note)
        log.warning("%s", note)
        self._pairs.remove(pair)
        if isinstance(pair.watch, DuplicateWatch):
            pair.twin.close()
