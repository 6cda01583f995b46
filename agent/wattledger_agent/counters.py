"""Turns what a sensor returned into exact cumulative microjoules, and what it can't have counted into bounds.

Reads no sensor and no clock: time is an argument, and each channel stands alone. Sources of truth: powercap.rst of the Linux
kernel for counters that wrap, NVML's documentation for those that start anew, and the rules of gaps in the README.
"""

from dataclasses import dataclass
from enum import IntEnum

import msgspec

from wattledger_agent.readings import (
    ENERGY_MICROJOULES_LIMIT,
    NANOSECONDS_PER_SECOND,
    CounterReading,
    Method,
    PowerReading,
    SpanReading,
)

# Milliwatts times nanoseconds in a microjoule.
MILLIWATT_NANOSECONDS_PER_MICROJOULE = 1_000_000

# Power is integrated in half microwatt-nanoseconds, so that a trapezoid's mean of two powers stays whole.
HALF_WORK_PER_MICROJOULE = 2 * NANOSECONDS_PER_SECOND

# The two clocks are read one after the other, so that their difference wavers; no machine sleeps for less than this.
SUSPEND_NANOSECONDS = NANOSECONDS_PER_SECOND

# A row has one time, but a slow driver answers late, and some counters move in lumps (NVML: 100 ms; management controllers:
# up to a minute), so that one may show more than the row's own time allows. When in doubt an increase is believed: what a
# sensor counted must not be lost to a check. The collector allows as much.
LATE_READ_NANOSECONDS = 60 * NANOSECONDS_PER_SECOND

# Raw values and generations are kept as signed 64-bit numbers; drivers that are broken return 2^64 - 1 and its multiples.
RAW_LIMIT = 2**63


class GapReason(IntEnum):
    """Why energy may be missing. The numbers are those of the wire."""

    NOT_MEASURED = 1
    WRAP_AMBIGUOUS = 2
    RESET = 3
    REBOOT = 4
    SUSPEND = 5
    MISSING_IN_RECORDING = 6
    IMPLAUSIBLE = 7


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on the host's clocks.

    boot_id: 16 bytes. boottime_nanoseconds: CLOCK_BOOTTIME; the recorded UTC time in a recording.
    synchronised: whether the kernel calls the realtime clock synchronised.
    suspended_nanoseconds: boottime less monotonic time.
    """

    boot_id: bytes
    boottime_nanoseconds: int
    realtime_nanoseconds: int
    synchronised: bool
    suspended_nanoseconds: int


@dataclass(frozen=True, slots=True)
class GapDetail:
    """A span in which a channel may have missed energy.

    lower_microjoules, upper_microjoules: bounds of what is missing; both 0 where unbounded.
    """

    reason: GapReason
    from_boot_id: bytes
    from_boottime_nanoseconds: int
    to_boottime_nanoseconds: int
    lower_microjoules: int
    upper_microjoules: int
    unbounded: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What is possible on a channel.

    bound_milliwatts: more power than this is impossible; > 0.
    counter_range_microjoules: modulus of the counter; None if it never wraps.
    integral_gap_nanoseconds: two powers further apart than this are not joined.
    """

    method: Method
    bound_milliwatts: int
    counter_range_microjoules: int | None
    integral_gap_nanoseconds: int

    def possible_microjoules(self, elapsed_nanoseconds: int) -> int:
        """Return the most whole microjoules that the channel can count in this time."""
        return self.bound_milliwatts * elapsed_nanoseconds // MILLIWATT_NANOSECONDS_PER_MICROJOULE

    def bound_microjoules(self, elapsed_nanoseconds: int) -> int:
        """Return an upper bound, rounded up, of the energy of this time; microjoules."""
        return -(-self.bound_milliwatts * elapsed_nanoseconds // MILLIWATT_NANOSECONDS_PER_MICROJOULE)


class ChannelState(msgspec.Struct, frozen=True, array_like=True):
    """A channel's account, and the last reading that it goes on from. Kept in spool records: field order is the format.

    value: the last raw counter (microjoules) or power (microwatts); None before the first reading and for residuals.
    energy_microjoules: cumulative since the opening. remainder: half microwatt-nanoseconds, in [0, 2e9).
    gap_*: cumulative bounds of what the channel may have missed. gap_reason: that of the last gap; 0 if there was none.
    late_nanoseconds: the value may have been taken so much before this moment, by a read that returned late.
    has_lapsed: the value is older than this moment, and a gap stands for the time between; see silence.py.
    """

    boot_id: bytes
    boottime_nanoseconds: int
    realtime_nanoseconds: int
    synchronised: bool
    suspended_nanoseconds: int
    generation: int = 0
    value: int | None = None
    energy_microjoules: int = 0
    remainder: int = 0
    gap_lower_microjoules: int = 0
    gap_upper_microjoules: int = 0
    gap_unbounded_count: int = 0
    gap_reason: int = 0
    late_nanoseconds: int = 0
    has_lapsed: bool = False


def open_state(now: Instant) -> ChannelState:
    """Return the state of a channel that opens at this moment, at value 0."""
    return ChannelState(
        now.boot_id, now.boottime_nanoseconds, now.realtime_nanoseconds, now.synchronised, now.suspended_nanoseconds
    )


def continue_anew(state: ChannelState) -> ChannelState:
    """Return the state of a new channel that goes on, at value 0, from the last reading of this one."""
    return msgspec.structs.replace(
        state, energy_microjoules=0, gap_lower_microjoules=0, gap_upper_microjoules=0, gap_unbounded_count=0, gap_reason=0
    )


def is_believable(rule: Rule, reading: CounterReading | PowerReading | SpanReading, now: Instant) -> bool:
    """Say whether a reading can be taken at all; one that can't is as if it had failed.

    A span's power above the bound is for `advance`, since a recording's span never comes again.
    """
    if isinstance(reading, CounterReading):
        last = RAW_LIMIT - 1 if rule.counter_range_microjoules is None else rule.counter_range_microjoules
        return rule.method is Method.COUNTER and 0 <= reading.counter_microjoules <= last
    if rule.method is Method.COUNTER or not 0 <= reading.power_microwatts < RAW_LIMIT:
        return False
    if isinstance(reading, SpanReading):
        return 0 <= reading.from_nanoseconds < now.boottime_nanoseconds
    return reading.power_microwatts <= rule.bound_milliwatts * 1000


def advance(
    rule: Rule, state: ChannelState, reading: CounterReading | PowerReading | SpanReading, now: Instant
) -> tuple[ChannelState, GapDetail | None]:
    """Take a believable reading after the state's point (or at it, if it is the first), and return what became of it.

    Either the energy since the last reading is added exactly, or the reading is a baseline and the gap bounds what is
    missing.
    """
    if isinstance(reading, CounterReading):
        return _take_counter(rule, state, reading, now)
    if isinstance(reading, PowerReading):
        return _take_power(rule, state, reading.power_microwatts, now)
    return _take_span(rule, state, reading, now)


def skip_to(rule: Rule, state: ChannelState, start: Instant) -> tuple[ChannelState, GapDetail | None]:
    """Note that a recording has nothing between the last reading and this moment; no change where it is not later."""
    if state.boot_id != start.boot_id:
        return miss(rule, state, start, GapReason.REBOOT, state.value)
    if start.boottime_nanoseconds <= state.boottime_nanoseconds:
        return state, None
    return miss(rule, state, start, GapReason.MISSING_IN_RECORDING, state.value)


def span_start(reading: SpanReading, now: Instant) -> Instant:
    """Return the moment at which a recorded span begins."""
    return earlier(now, now.boottime_nanoseconds - reading.from_nanoseconds)


def earlier(now: Instant, nanoseconds: int) -> Instant:
    """Return the moment so long before now, in the same boot without a suspend between; now itself for 0."""
    if nanoseconds == 0:
        return now
    return Instant(
        now.boot_id,
        now.boottime_nanoseconds - nanoseconds,
        now.realtime_nanoseconds - nanoseconds,
        now.synchronised,
        now.suspended_nanoseconds,
    )


def elapsed_nanoseconds(state: ChannelState, now: Instant) -> int | None:
    """Return the longest time since the state's value was taken; None if no clock can tell it.

    Boottime within a boot; over boots realtime, if it was synchronised at both ends.
    """
    if state.boot_id == now.boot_id:
        return max(0, now.boottime_nanoseconds - state.boottime_nanoseconds) + state.late_nanoseconds
    elapsed = now.realtime_nanoseconds - state.realtime_nanoseconds
    return elapsed + state.late_nanoseconds if state.synchronised and now.synchronised and elapsed >= 0 else None


def add_gap(
    state: ChannelState, to_boottime_nanoseconds: int, reason: GapReason, lower: int, upper: int | None
) -> tuple[ChannelState, GapDetail]:
    """Add a gap from the state's reading on; bounds in microjoules, upper None where there is no bound.

    The state's point stays. Sums that would leave the wire's range become unbounded: that is still true.
    """
    lower_sum, upper_sum = state.gap_lower_microjoules + lower, state.gap_upper_microjoules + (upper or 0)
    unbounded = upper is None or max(abs(lower_sum), abs(upper_sum)) >= ENERGY_MICROJOULES_LIMIT
    if unbounded:
        lower, upper = 0, 0
        lower_sum, upper_sum = state.gap_lower_microjoules, state.gap_upper_microjoules
    detail = GapDetail(
        reason, state.boot_id, state.boottime_nanoseconds, to_boottime_nanoseconds, lower, upper or 0, unbounded
    )
    after = msgspec.structs.replace(
        state,
        gap_lower_microjoules=lower_sum,
        gap_upper_microjoules=upper_sum,
        gap_unbounded_count=state.gap_unbounded_count + unbounded,
        gap_reason=int(reason),
    )
    return after, detail


def miss(
    rule: Rule, state: ChannelState, now: Instant, reason: GapReason, value: int | None, generation: int = 0
) -> tuple[ChannelState, GapDetail | None]:
    """Book nothing for the time since the last reading: `value` is a baseline, the gap is [0, bound x time]."""
    elapsed = elapsed_nanoseconds(state, now)
    if elapsed == 0 and state.value is None:
        # The first reading, at the opening itself.
        return _at(state, now, value, generation), None
    upper = None if elapsed is None else rule.bound_microjoules(elapsed)
    after, detail = add_gap(state, now.boottime_nanoseconds, reason, 0, upper)
    return _at(after, now, value, generation), detail


def _take_counter(
    rule: Rule, state: ChannelState, reading: CounterReading, now: Instant
) -> tuple[ChannelState, GapDetail | None]:
    raw, generation = reading.counter_microjoules, reading.generation & (RAW_LIMIT - 1)
    reason = _interruption(state, now)
    if reason is None and state.value is not None and generation != state.generation:
        reason = GapReason.RESET
    if reason is not None or state.value is None:
        return miss(rule, state, now, reason or GapReason.NOT_MEASURED, raw, generation)
    # Between two values more time may lie than between their rows, if the first was late; never more than that.
    possible = rule.possible_microjoules(now.boottime_nanoseconds - state.boottime_nanoseconds + state.late_nanoseconds)
    delta = raw - state.value
    wrap = rule.counter_range_microjoules
    if wrap is not None:
        delta %= wrap
        if possible >= wrap:
            upper = delta + (possible - delta) // wrap * wrap
            after, detail = add_gap(state, now.boottime_nanoseconds, GapReason.WRAP_AMBIGUOUS, delta, upper)
            return _at(after, now, raw, generation), detail
    elif delta < 0:
        return miss(rule, state, now, GapReason.RESET, raw, generation)
    energy = state.energy_microjoules + delta
    if delta > possible + rule.possible_microjoules(LATE_READ_NANOSECONDS) or energy >= ENERGY_MICROJOULES_LIMIT:
        return miss(rule, state, now, GapReason.IMPLAUSIBLE, raw, generation)
    return _at(state, now, raw, generation, energy, 0), None


def _take_power(rule: Rule, state: ChannelState, power: int, now: Instant) -> tuple[ChannelState, GapDetail | None]:
    reason = _interruption(state, now)
    elapsed = now.boottime_nanoseconds - state.boottime_nanoseconds
    if reason is not None or state.value is None or state.has_lapsed or elapsed > rule.integral_gap_nanoseconds:
        return miss(rule, state, now, reason or GapReason.NOT_MEASURED, power)
    return _integrate(rule, state, (state.value + power) * elapsed, power, now)


def _take_span(rule: Rule, state: ChannelState, reading: SpanReading, now: Instant) -> tuple[ChannelState, GapDetail | None]:
    power = reading.power_microwatts
    if power > rule.bound_milliwatts * 1000:
        return miss(rule, state, now, GapReason.IMPLAUSIBLE, power)
    state, gap = skip_to(rule, state, span_start(reading, now))
    # A span that begins before the last reading says again what that one said: only the rest of it is new.
    elapsed = now.boottime_nanoseconds - state.boottime_nanoseconds
    after, refused = _integrate(rule, state, 2 * power * elapsed, power, now)
    return after, refused or gap


def _integrate(
    rule: Rule, state: ChannelState, half_work: int, power: int, now: Instant
) -> tuple[ChannelState, GapDetail | None]:
    """Add work in half microwatt-nanoseconds; what is less than a microjoule is carried."""
    delta, remainder = divmod(half_work + state.remainder, HALF_WORK_PER_MICROJOULE)
    energy = state.energy_microjoules + delta
    if energy >= ENERGY_MICROJOULES_LIMIT:
        return miss(rule, state, now, GapReason.IMPLAUSIBLE, power)
    return _at(state, now, power, 0, energy, remainder), None


def is_suspended(before: Instant | ChannelState, now: Instant) -> bool:
    """Say whether the host slept between two moments of a boot."""
    return abs(now.suspended_nanoseconds - before.suspended_nanoseconds) > SUSPEND_NANOSECONDS


def _interruption(state: ChannelState, now: Instant) -> GapReason | None:
    """Name what happened to the whole host since the last reading, if it forbids to go on from there."""
    if state.boot_id != now.boot_id:
        return GapReason.REBOOT
    if is_suspended(state, now):
        return GapReason.SUSPEND
    return None


def _at(
    state: ChannelState,
    now: Instant,
    value: int | None,
    generation: int,
    energy: int | None = None,
    remainder: int | None = None,
) -> ChannelState:
    """Return the state with its point moved to now. Called for each reading, so fields are passed by position."""
    return ChannelState(
        now.boot_id,
        now.boottime_nanoseconds,
        now.realtime_nanoseconds,
        now.synchronised,
        now.suspended_nanoseconds,
        generation,
        value,
        state.energy_microjoules if energy is None else energy,
        state.remainder if remainder is None else remainder,
        state.gap_lower_microjoules,
        state.gap_upper_microjoules,
        state.gap_unbounded_count,
        state.gap_reason,
    )
