"""Intel GPUs by the energy counters of i915 and xe: cards once, registers that wrap unseen, sleepers left asleep."""

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.agent.chips import Files, add_pci_device, chip, write
from tests.agent.machines import Machine, machine
from tests.agent.metering import Account, Book, at

from wattledger_agent.counters import GapReason
from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelKey,
    CounterReading,
    Gauge,
    GaugeReading,
    Method,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.intel_gpu import RANGE_MICROJOULES, IntelGpuSource

I915, XE = "gpu/0000:29:00.0", "gpu/0000:3d:00.0"
SECOND = 1_000_000_000


def source_of(host: Machine, files: Files) -> IntelGpuSource:
    """A source on this machine, not open."""
    return IntelGpuSource(host.sys, opener=files.opener, pread=files.pread)


def card(host: Machine) -> Path:
    """The folder of the i915 card's own chip, beside those of its tiles."""
    (found,) = (path for path in (host.sys / "devices").rglob("hwmon6") if not path.is_symlink())
    return found


def counters(readings: Sequence[Reading]) -> dict[tuple[str, str], int]:
    """Counters by device and domain."""
    return {(r.key.device, r.key.domain): r.counter_microjoules for r in readings if isinstance(r, CounterReading)}


def metered(host: Machine, steps: Sequence[tuple[float, int]]) -> Account:
    """What a meter makes of the i915 card at these seconds, at which its counter shows so much more than at the start."""
    source = IntelGpuSource(host.sys)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(source.open(), at(0))
    start = int((card(host) / "energy1_input").read_text())
    for seconds, microjoules in steps:
        write(card(host), {"energy1_input": start + microjoules})
        meter.observe(source.read(round(seconds * SECOND)), at(seconds))
    book = Book()
    book.add(meter.cut(at(steps[-1][0])))
    source.close()
    return book.account(I915, "card")


def test_a_card_is_booked_once(tmp_path: Path) -> None:
    """i915 has a chip for the card and one for each tile, xe a counter for card and package: only the cards are booked."""
    specs = IntelGpuSource(machine("intel_gpu_max", tmp_path).sys).open()
    roles = {(spec.key.device, spec.key.domain): spec.role for spec in specs}
    assert roles == {
        (I915, "card"): Role.LEAF,
        (I915, "gt0"): Role.SHOWN,
        (I915, "gt1"): Role.SHOWN,
        (XE, "card"): Role.LEAF,
        (XE, "pkg"): Role.SHOWN,
    }
    assert all(spec.method is Method.COUNTER for spec in specs)
    parents = {(spec.key.device, spec.key.domain): spec.parent for spec in specs if spec.role is Role.SHOWN}
    assert parents == {(device, domain): ChannelKey(device, "card", "intel_gpu") for device, domain in parents}


def test_a_gpu_without_a_card_counter_is_booked_by_its_package(tmp_path: Path) -> None:
    """xe has the package alone on some models."""
    host = machine("intel_gpu_max", tmp_path)
    (chip(host, "0000:3d:00.0") / "energy1_input").unlink()
    specs = {spec.key.device: spec for spec in IntelGpuSource(host.sys).open() if spec.role is Role.LEAF}
    assert specs[XE].key.domain == "pkg"


def test_power_files_are_not_needed(tmp_path: Path) -> None:
    """btop's issue 1457: there is no power1_input."""
    host = machine("intel_gpu_max", tmp_path)
    assert list((host.sys / "devices").rglob("power1_input")) == []
    found = counters(IntelGpuSource(host.sys).read(1))
    assert found == {}
    source = IntelGpuSource(host.sys)
    source.open()
    assert counters(source.read(1))[I915, "card"] == 933_410_007_112 % RANGE_MICROJOULES


def test_energy_over_the_registers_range_is_exact_while_it_is_read(tmp_path: Path) -> None:
    """The driver adds wraps up as long as somebody reads: no joule is lost over three times the range."""
    steps = [(float(second), second * 600_000_000) for second in range(0, 1400, 100)]
    account = metered(machine("intel_gpu_max", tmp_path), steps)
    assert account.energy == 1300 * 600_000_000 > 2.9 * RANGE_MICROJOULES
    assert account.details == []


def test_what_a_long_pause_may_have_lost_in_the_driver_is_a_gap(tmp_path: Path) -> None:
    """In 300 s the card may have wrapped its register twice, of which the driver sees one: a plain difference would lie."""
    account = metered(machine("intel_gpu_max", tmp_path), [(0, 0), (1, 500_000_000), (301, 10_500_000_000)])
    assert account.energy == 500_000_000
    (gap,) = account.details
    assert gap.reason == int(GapReason.WRAP_AMBIGUOUS)
    assert gap.lower_microjoules == 10_000_000_000
    assert gap.upper_microjoules == 10_000_000_000 + RANGE_MICROJOULES


def test_a_sleeping_card_is_not_woken(tmp_path: Path) -> None:
    """The driver wakes a card for each read of its energy."""
    host, files = machine("intel_gpu_max", tmp_path), Files()
    source = source_of(host, files)
    source.open()
    write(card(host).parent.parent / "power", {"runtime_status": "suspended"})
    files.reads.clear()
    readings = source.read(1)
    assert sum(isinstance(r, TryAgain) and "left asleep" in r.reason for r in readings) == 3
    assert set(counters(readings)) == {(XE, "card"), (XE, "pkg")}
    assert files.reads == {"runtime_status": 5, "energy1_input": 1, "energy2_input": 1}


def test_one_counter_that_fails_is_alone_in_that(tmp_path: Path) -> None:
    """The other card goes on."""
    host, files = machine("intel_gpu_max", tmp_path), Files(failing={"0000:29:00.0": errno.ENODATA})
    source = source_of(host, files)
    source.open()
    readings = source.read(1)
    assert set(counters(readings)) == {(XE, "card"), (XE, "pkg")}
    assert sum(isinstance(r, TryAgain) for r in readings) == 3


def test_a_counter_of_all_ones_is_no_energy(tmp_path: Path) -> None:
    """A card off the bus answers with ones; modulo the range they would pass for a value."""
    host = machine("intel_gpu_max", tmp_path)
    write(card(host), {"energy1_input": 2**64 - 1})
    source = IntelGpuSource(host.sys)
    source.open()
    assert (I915, "card") not in counters(source.read(1))


def test_a_limit_of_0_is_one_that_is_off(tmp_path: Path) -> None:
    """Then the rated limit bounds what is possible."""
    host = machine("intel_gpu_max", tmp_path)
    source = IntelGpuSource(host.sys)
    assert {spec.power_bound_watts for spec in source.open()} == {1200.0}
    limits = [r for r in source.read(1) if isinstance(r, GaugeReading)]
    assert limits == [GaugeReading(device, Gauge.POWER_LIMIT_WATTS, 600.0) for device in (I915, XE)]


def test_a_card_without_a_counter_is_told(tmp_path: Path) -> None:
    """Old cards and old kernels have none."""
    host = machine("intel_gpu_max", tmp_path)
    for number in (1, 2):
        (chip(host, "0000:3d:00.0") / f"energy{number}_input").unlink()
    source = IntelGpuSource(host.sys)
    assert {spec.key.device for spec in source.open()} == {I915}
    assert source.notes() == ["intel_gpu: xe at 0000:3d:00.0 has no energy counter; it is not metered."]


def test_a_card_without_its_driver_is_told(tmp_path: Path) -> None:
    """Graphics in the processor have no energy counter, and are in its package."""
    host = machine("virtual_machine", tmp_path)
    add_pci_device(host, "0000:00:02.0", "0x8086", "0x030000")
    with pytest.raises(SourceUnavailableError, match="no discrete Intel GPU is on this host's PCI bus"):
        IntelGpuSource(host.sys).open()
    add_pci_device(host, "0000:f1:00.0", "0x8086")
    with pytest.raises(SourceUnavailableError, match=r"the GPU at 0000:f1:00\.0; it is not metered\. Load i915"):
        IntelGpuSource(host.sys).open()
