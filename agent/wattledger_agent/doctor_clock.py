"""Whether this host's energy can be dated, and whose it is. Part of `doctor`.

Sets no clock. Source of truth: adjtimex(2) by way of clock.py, the kernel's view of the hardware clock (rtc.rst).
"""

from collections.abc import Callable, Iterator

from wattledger_agent.clock import machine_id
from wattledger_agent.config import AgentConfig
from wattledger_agent.counters import Instant
from wattledger_agent.doctor_faults import FAULTS, Finding
from wattledger_agent.doctor_host import Host, read_text
from wattledger_agent.readings import NANOSECONDS_PER_SECOND

RTC_SECONDS_MAX = 60

# Time zones are multiples of this apart: a hardware clock that keeps local time is no fault.
ZONE_SECONDS = 900


def clock_findings(now: Instant, host: Host) -> Iterator[Finding]:
    """Look at the clocks. now: one moment on all clocks of this host."""
    if now.synchronised:
        yield Finding("clock", "ok", "synchronised, says the kernel")
    else:
        yield FAULTS["clock-unsynchronised"].finding()
    hardware = read_text(host.sysfs / "class/rtc/rtc0/since_epoch")
    if hardware.isdecimal():
        seconds = int(hardware) - now.realtime_nanoseconds // NANOSECONDS_PER_SECOND
        beside = abs((seconds + ZONE_SECONDS // 2) % ZONE_SECONDS - ZONE_SECONDS // 2)
        is_local = abs(seconds) >= ZONE_SECONDS and beside <= RTC_SECONDS_MAX
        if abs(seconds) > RTC_SECONDS_MAX and not is_local:
            yield FAULTS["rtc-off"].finding(seconds=seconds)


def identity_findings(config: AgentConfig, machine: Callable[[], str] = machine_id) -> Iterator[Finding]:
    """Say under which id this host stands in the ledger. machine: tells this machine's id."""
    if config.collector.uses_tls:
        yield Finding("identity", "ok", "the host's id is the one in its certificate")
    elif machine():
        yield Finding("identity", "ok", config.host or "an id made at first start and kept in the state folder")
    else:
        yield FAULTS["machine-id"].finding()
