"""The poll floor: how long a counter may go unread, by its range and by what power is possible."""

import threading
from pathlib import Path

import pytest
from tests.agent.machines import machine

from wattledger_agent.config import AgentConfig, CollectorConfig, CpuConfig, NvidiaConfig, SourcesConfig
from wattledger_agent.doctor import examine
from wattledger_agent.inventory import Roots
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, Role
from wattledger_agent.runner import RunError, run
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.wraps import Wrap, shortest_wrap


def channel(domain: str, bound_watts: float, range_microjoules: int | None, role: Role = Role.LEAF) -> ChannelSpec:
    """A CPU's counter."""
    key = ChannelKey("cpu/0", domain, "rapl")
    return ChannelSpec(key, Component.CPU, Method.COUNTER, role, bound_watts, counter_range_microjoules=range_microjoules)


def wrap_of(name: str, folder: Path) -> Wrap:
    """The shortest wrap of a fixture machine."""
    host = machine(name, folder)
    source = RaplSource(host.sys, host.proc, opener=host.opener, pread=host.pread, settle=host.settle)
    wrap = shortest_wrap(source.open())
    source.close()
    assert wrap is not None
    return wrap


def config(folder: Path, period_seconds: float) -> AgentConfig:
    """An agent that reads RAPL and sends to nobody."""
    return AgentConfig(
        state_dir=str(folder / "state"),
        period_seconds=period_seconds,
        flush_seconds=max(10.0, period_seconds),
        sources=SourcesConfig(nvidia=NvidiaConfig(enabled=False), cpu=CpuConfig(enabled=False)),
        collector=CollectorConfig(address="127.0.0.1:1"),
    )


def test_amd_wraps_in_about_a_minute_at_its_bound(tmp_path: Path) -> None:
    """15.3 uJ steps hold 65.5 kJ: 131 s at 500 W (kepler#575, codecarbon#322), and half of that at 1000 W."""
    wrap = wrap_of("threadripper_mirrored_dies", tmp_path)
    assert wrap.key == ChannelKey("cpu/0", "package-die-0", "rapl")
    assert wrap.seconds == pytest.approx(65.53, abs=0.01)
    assert wrap.range_joules / 500 == pytest.approx(131, abs=0.1)
    assert wrap.period_seconds_max == pytest.approx(16.38, abs=0.01)


def test_the_floor_is_that_of_the_domain_which_wraps_first(tmp_path: Path) -> None:
    """On one machine memory in 15.3 uJ steps wraps in a quarter of the package's time."""
    assert wrap_of("xeon_two_sockets", tmp_path).key.domain == "dram"


def test_what_is_only_shown_does_not_count() -> None:
    """A shown counter books nothing, so its wraps lose nothing; a counter without a range never wraps."""
    shown = channel("core", 1000, 10_000_000, Role.SHOWN)
    booked = channel("package", 500, 50_000_000)
    assert shortest_wrap([shown, booked, channel("uncore", 1000, None)]) == Wrap(booked.key, 0.1, 50.0, 500.0)
    assert shortest_wrap([shown]) is None


def test_a_quarter_of_a_wrap_is_the_longest_period_without_a_warning() -> None:
    """At exactly a quarter all is well; above it is risky, and from a whole wrap on it is hopeless."""
    wrap = Wrap(ChannelKey("cpu/0", "package", "rapl"), 64.0, 64_000.0, 1000.0)
    assert not wrap.is_risky(16.0)
    assert wrap.is_risky(16.1)
    assert not wrap.is_hopeless(63.9)
    assert wrap.is_hopeless(64.0)


@pytest.mark.parametrize(
    ("period_seconds", "verdict", "words"),
    [(1.0, "ok", "away for longer leaves a gap"), (20.0, "warning", "a few failed reads"), (70.0, "failure", "be booked")],
)
def test_doctor_reckons_the_period(tmp_path: Path, period_seconds: float, verdict: str, words: str) -> None:
    """With the exact numbers: what the counter holds, when it may wrap, and the longest period that is safe."""
    host = machine("epyc_genoa", tmp_path)
    findings = examine(config(tmp_path, period_seconds), Roots(host.sys, host.proc))
    (finding,) = (finding for finding in findings if finding.check == "period")
    assert finding.verdict == verdict
    assert "package holds 65533 J, and may wrap in 65.5 s at 1000 W" in finding.found
    assert words in finding.found
    assert finding.remedy == ("" if verdict == "ok" else "Set `period_seconds` to at most 16.4.")


def test_an_agent_whose_every_reading_would_be_ambiguous_does_not_start(tmp_path: Path) -> None:
    """It would meter nothing for weeks, and look well."""
    host = machine("epyc_genoa", tmp_path)
    stopping = threading.Event()
    # One that starts none the less ends at once.
    stopping.set()
    with pytest.raises(RunError, match=r"`period_seconds` is 70, but .*65\.5 s at 1000 W.*at most 16\.4"):
        run(config(tmp_path, 70.0), Roots(host.sys, Path("/proc")), stopping)
