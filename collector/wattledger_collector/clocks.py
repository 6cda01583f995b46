"""The boots of a host and their clocks: UTC = boottime + offset(host, boot).

No clock is read here. A clock that the kernel calls synchronised is trusted; without one, the collector's time at Hello is.
"""

from wattledger_collector.records import BOOTS_MAX, Boot, Host
from wattledger_collector.wire import CheckedHello, Clock


def offset_of(clock: Clock) -> int:
    """What this pair of clocks adds to boottime; nanoseconds."""
    return clock.realtime_nanoseconds - clock.boottime_nanoseconds


def boot_index(boots: tuple[Boot, ...], boot_id: bytes) -> int | None:
    """Place of a boot in the order of the host's boots; None if it is not known (any more)."""
    for index in range(len(boots) - 1, -1, -1):
        if boots[index].boot_id == boot_id:
            return index
    return None


def is_left_behind(host: Host, boot_id: bytes) -> bool:
    """Whether a later Hello of this host has named another boot than this known one."""
    index = boot_index(host.boots, boot_id)
    return index is not None and index != len(host.boots) - 1


def boots_after_hello(boots: tuple[Boot, ...], hello: CheckedHello, now_utc_nanoseconds: int) -> tuple[Boot, ...]:
    """The host's boots once this Hello has named the running one; newest last.

    A Hello without a synchronised clock does not take the trust from a boot that had one: boottime runs on evenly.
    """
    if hello.clock.synchronised:
        running = Boot(hello.boot_id, offset_of(hello.clock), True)
    else:
        running = Boot(hello.boot_id, now_utc_nanoseconds - hello.clock.boottime_nanoseconds, False)
    index = boot_index(boots, hello.boot_id)
    if index is None:
        return (*boots, running)[-BOOTS_MAX:]
    if boots[index].trusted and not running.trusted:
        running = boots[index]
    return (*boots[:index], running, *boots[index + 1 :])


def boots_after_batch(boots: tuple[Boot, ...], boot_id: bytes, clock: Clock) -> tuple[tuple[Boot, ...], Boot]:
    """The host's boots, and the one in which a batch was taken, once its clock pair is known.

    A boot that no Hello has named (the collector was out of reach for all of it) lies before the one that runs now.
    """
    index = boot_index(boots, boot_id)
    if index is None:
        boot = Boot(boot_id, offset_of(clock), clock.synchronised)
        return (*boots[:-1], boot, *boots[-1:])[-BOOTS_MAX:], boot
    boot = boots[index]
    offset = offset_of(clock)
    if not clock.synchronised or (boot.trusted and boot.offset_nanoseconds == offset):
        return boots, boot
    boot = Boot(boot_id, offset, True)
    return (*boots[:index], boot, *boots[index + 1 :]), boot
