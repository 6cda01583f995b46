"""Folded RAPL counters stay under watch: a fold that proves wrong is told and counted, and costs next to nothing."""

from pathlib import Path

from tests.agent.machines import Machine, machine
from tests.agent.rapl_reading import DIE_0, DIE_1, JOULE, PACKAGE_0, counters, source_of

from wattledger_agent.readings import ChannelKey, Offer
from wattledger_agent.sources.rapl import RaplSource

CORE_0 = ChannelKey("cpu/0", "core-die-0", "rapl")
CORE_1 = ChannelKey("cpu/0", "core-die-1", "rapl")

MINUTE = 60_000_000_000


def folded_threadripper(folder: Path) -> tuple[Machine, RaplSource]:
    """A machine whose second die was found to mirror the first."""
    host = machine("threadripper_mirrored_dies", folder)
    host.watts = {"intel-rapl:0": 68.0, "intel-rapl:1": 68.0}
    source = source_of(host)
    source.open()
    source.read(1)
    return host, source


def test_a_folded_die_that_begins_to_count_on_its_own_is_metered_again(tmp_path: Path) -> None:
    """The pair is named and counted once, and its channel offered with the shown parts below it; the other goes on."""
    host, source = folded_threadripper(tmp_path)
    host.add_energy("intel-rapl:0", 400 * JOULE)
    host.add_energy("intel-rapl:1", 300 * JOULE)
    readings = list(source.read(MINUTE + 1))
    again = list(source.read(2 * MINUTE + 1))
    assert source.divergences == 1
    (note,) = (note for note in source.notes() if "now counts on its own" in note)
    assert "package-0-die-1 was folded into package-0-die-0" in note
    assert "up to 60 s of it are missing" in note
    (offer,) = (reading for reading in readings if isinstance(reading, Offer))
    assert {spec.key for spec in offer.specs} == {DIE_0, DIE_1, CORE_0, CORE_1}
    assert counters(readings) == counters(again)
    assert set(counters(again)) == {DIE_0, DIE_1, CORE_0, CORE_1}
    assert not [reading for reading in again if isinstance(reading, Offer)]
    source.close()


def test_a_folded_die_that_stays_a_mirror_is_never_told(tmp_path: Path) -> None:
    """Over an hour of equal counting, wraps included, nothing is said."""
    host, source = folded_threadripper(tmp_path)
    for tick in range(1, 61):
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            host.add_energy(zone, 4080 * JOULE)
        source.read(tick * MINUTE + 1)
    assert source.divergences == 0
    source.close()


def test_the_watch_costs_three_reads_a_minute(tmp_path: Path) -> None:
    """Between two looks a tick is one read a domain."""
    host, source = folded_threadripper(tmp_path)
    host.preads = 0
    for second in range(60):
        source.read(second * 1_000_000_000 + 2)
    assert host.preads == 2 * 60
    source.read(MINUTE + 2)
    assert host.preads == 2 * 61 + 3
    source.close()


def test_an_unreadable_twin_is_no_divergence(tmp_path: Path) -> None:
    """An error says nothing of a counter; the watch goes on with the next read that succeeds."""
    host, source = folded_threadripper(tmp_path)
    host.failing["intel-rapl:1"] = 5
    source.read(MINUTE + 1)
    host.failing.clear()
    source.read(2 * MINUTE + 1)
    assert source.divergences == 0
    source.close()


def test_two_drivers_that_cease_to_agree_are_told(tmp_path: Path) -> None:
    """MSR and MMIO show one package: where one stands still, one of them is wrong, and the operator must know."""
    host = machine("laptop_mmio", tmp_path)
    source = source_of(host)
    source.open()
    source.read(1)
    for tick in range(1, 5):
        host.add_energy("intel-rapl:0", 900 * JOULE)
        host.add_energy("intel-rapl-mmio:0", 900 * JOULE if tick < 3 else 0)
        # What is booked does not change, so nothing is offered anew.
        assert not [reading for reading in source.read(tick * MINUTE + 1) if isinstance(reading, Offer)]
    assert source.divergences == 1
    (note,) = (note for note in source.notes() if "no longer agree" in note)
    assert "intel-rapl-mmio:0 and intel-rapl:0 no longer agree on package-0" in note
    assert counters(source.read(5 * MINUTE))[PACKAGE_0] == 88123456789 + 3600 * JOULE
    source.close()


def test_closing_closes_what_is_watched(tmp_path: Path) -> None:
    """Twins are open files too."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    _, source = folded_threadripper(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 3
    source.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
