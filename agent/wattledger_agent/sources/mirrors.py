"""Tells counters that show one register from counters of their own, by how both move; names do not tell.

Reads nothing. Two watches: one is exact and decides whether two dies are one, the other allows for drivers that refresh or
round apart. Seen in the field: https://github.com/mlco2/codecarbon/issues/1274 (dies), prometheus/procfs#396 (drivers).
"""

from enum import Enum
from typing import Protocol

from wattledger_agent.readings import MICROJOULES_PER_JOULE

# Two reads of one register can differ by what is used in the kernel's or the chip's update period, about 1 ms: 1 J at 1 kW.
MIRROR_TOLERANCE_MICROJOULES = MICROJOULES_PER_JOULE
# Equal values that stay equal over 50 J: counters of their own that met by chance would part by a joule when their powers
# differ by 2 %, and to meet at all is a chance of 2 J in 65 kJ.
MIRROR_ADVANCE_EQUAL_MICROJOULES = 50 * MICROJOULES_PER_JOULE
# Unlike values with a constant difference need more: 1 J in 2000 J is 0.05 %, far below the spread between two dies.
MIRROR_ADVANCE_OFFSET_MICROJOULES = 2000 * MICROJOULES_PER_JOULE

# Two drivers of one domain may reckon with units that are rounded apart: 61 for 61.035 uJ are 0.06 %.
DUPLICATE_TOLERANCE_RATIO = 0.005


class Verdict(Enum):
    """Whether two counters are one."""

    UNDECIDED = 0
    MIRRORED = 1
    DISTINCT = 2


class Watch(Protocol):
    """Watches a counter and its possible twin."""

    def observe(self, before: int, twin: int, after: int) -> Verdict:
        """Take the leading counter, its possible twin, and the leading counter again, read in this order; microjoules.

        Reading the leader on both sides makes the result independent of how long the three reads took.
        """


class MirrorWatch:
    """Decides whether a die's counter is its own or mirrors another die's.

    On Zen 1 and 2 every die shows the socket's counter; on Cascade Lake-AP each die has its own.
    """

    def __init__(self, modulus_microjoules: int | None) -> None:
        self._modulus = modulus_microjoules or 2**63
        self._reference: int | None = None
        self._equal_at_first = False
        self._lowest = -self._modulus
        self._highest = self._modulus
        self._last = 0
        self._advance = 0

    @property
    def equal_at_first(self) -> bool:
        """Whether the first values were equal, which makes a mirror likely."""
        return self._equal_at_first

    def observe(self, before: int, twin: int, after: int) -> Verdict:
        """See Watch. Once they have parted they are distinct for good."""
        if self._reference is None:
            self._reference = before - twin
            self._last = before
            self._equal_at_first = (
                -MIRROR_TOLERANCE_MICROJOULES <= twin - before <= after - before + MIRROR_TOLERANCE_MICROJOULES
            )
        self._advance += (before - self._last) % self._modulus
        self._last = before
        # Were both one counter, the difference would lie within this span at every observation.
        self._lowest = max(self._lowest, self._drift(before - twin) - MIRROR_TOLERANCE_MICROJOULES)
        self._highest = min(self._highest, self._drift(after - twin) + MIRROR_TOLERANCE_MICROJOULES)
        if self._lowest > self._highest:
            return Verdict.DISTINCT
        needed = MIRROR_ADVANCE_EQUAL_MICROJOULES if self._equal_at_first else MIRROR_ADVANCE_OFFSET_MICROJOULES
        return Verdict.MIRRORED if self._advance >= needed else Verdict.UNDECIDED

    def _drift(self, difference: int) -> int:
        """The change of the difference since the first observation, the shorter way around the counter."""
        half = self._modulus // 2
        return (difference - (self._reference or 0) + half) % self._modulus - half


class DuplicateWatch:
    """Tells whether two drivers' counters of one domain go on counting the same energy.

    leader_modulus_microjoules, twin_modulus_microjoules: of the two counters; None: they never wrap. Observed more often
    than the shorter wraps, else a wrap is missed and they seem to part.
    """

    def __init__(self, leader_modulus_microjoules: int | None, twin_modulus_microjoules: int | None) -> None:
        self._moduli = leader_modulus_microjoules or 2**63, twin_modulus_microjoules or 2**63
        self._last: tuple[int, int] | None = None
        self._leader = 0
        self._twin = 0

    @property
    def advances_microjoules(self) -> tuple[int, int]:
        """What leader and twin have counted since the first observation."""
        return self._leader, self._twin

    def observe(self, before: int, twin: int, after: int) -> Verdict:
        """See Watch. An observation during which the leader moved by more than the tolerance is not one."""
        if not 0 <= after - before <= MIRROR_TOLERANCE_MICROJOULES:
            return Verdict.UNDECIDED
        if self._last is not None:
            self._leader += (before - self._last[0]) % self._moduli[0]
            self._twin += (twin - self._last[1]) % self._moduli[1]
        self._last = before, twin
        apart = abs(self._leader - self._twin)
        # Two tolerances: one for the first observation, one for this.
        if apart > 2 * MIRROR_TOLERANCE_MICROJOULES + DUPLICATE_TOLERANCE_RATIO * max(self._leader, self._twin):
            return Verdict.DISTINCT
        return Verdict.MIRRORED if self._leader >= MIRROR_ADVANCE_OFFSET_MICROJOULES else Verdict.UNDECIDED
