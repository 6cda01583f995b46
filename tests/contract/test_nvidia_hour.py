"""An hour of every machine with recorded GPUs, with failing calls and resets: the account is the truth, or holds it.

The truth is what this test lets each GPU and module use; neither the source nor the meter is asked for it.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.agent.fake_nvml import UNKNOWN
from tests.agent.metering import Book, at
from tests.agent.nvidia_machines import SECOND, GpuMachine, gpu_machine

from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, Reading, Role, TryAgain

COUNTED = ("dgx_a100_mig", "dgx_h100", "t4_server")
INTEGRATED = ("gb200", "gh200")

TICK_SECONDS = 10
TICKS = 360
FAILING = 0.03
RESETS = 0.002

CALLS = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues", "nvmlDeviceGetUtilizationRates")
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


@dataclass
class Gpu:
    """What a GPU really did.

    used_millijoules: from its first read that succeeded to its last. certain_millijoules: of that, what lies between reads
    between which its counter did not begin anew. unread_millijoules: since its last read that succeeded.
    """

    device: str
    used_millijoules: int = 0
    certain_millijoules: int = 0
    unread_millijoules: int = 0
    was_reset: bool = False
    is_begun: bool = False


def failing(machine: GpuMachine, chance: random.Random) -> None:
    """Let each of the calls fail now and then, from now on."""
    for call in CALLS:
        machine.nvml.fail[call] = lambda number: UNKNOWN if chance.random() < FAILING else 0


def read_devices(readings: list[Reading]) -> set[str]:
    """Devices whose leaf was read."""
    return {
        reading.key.device
        for reading in readings
        if hasattr(reading, "key") and reading.key.domain == "board" and not isinstance(reading, TryAgain)
    }


@pytest.mark.parametrize("name", COUNTED)
def test_an_hour_of_counters_is_booked_to_the_microjoule_or_stands_in_a_gap(name: str, tmp_path: Path) -> None:
    """Calls fail, and counters begin anew with a GPU's reset: what is certain is booked, the rest is within the gap."""
    chance = random.Random(name)
    machine = gpu_machine(name, tmp_path, gpm=True, processes=True)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(list(machine.specs.values()), at(0))
    failing(machine, chance)
    gpus = [Gpu(device) for device, domain in machine.specs if domain == "board"]
    for tick in range(1, TICKS + 1):
        for gpu, handle in zip(gpus, machine.nvml.gpus, strict=True):
            used = round(chance.uniform(0, 0.9) * 1000 * machine.specs[gpu.device, "board"].power_bound_watts) * TICK_SECONDS
            gpu.unread_millijoules += used
            handle.answers[ENERGY] += used
            if chance.random() < RESETS:
                handle.answers[ENERGY] = used // 2
                gpu.was_reset = True
        readings = list(machine.source.read(tick * TICK_SECONDS * SECOND))
        meter.observe(readings, at(tick * TICK_SECONDS))
        seen = read_devices(readings)
        for gpu in gpus:
            if gpu.device in seen:
                gpu.used_millijoules += gpu.unread_millijoules if gpu.is_begun else 0
                gpu.certain_millijoules += gpu.unread_millijoules if gpu.is_begun and not gpu.was_reset else 0
                gpu.unread_millijoules, gpu.was_reset, gpu.is_begun = 0, False, True
    book = Book()
    book.add(meter.cut(at(TICKS * TICK_SECONDS + 1)))
    channels = {(one.device, one.domain): one.channel for one in book.catalog.channels}
    assert any(gpu.certain_millijoules < gpu.used_millijoules for gpu in gpus) or name == "t4_server"
    for gpu in gpus:
        account = book.accounts[channels[gpu.device, "board"]]
        truth, certain = gpu.used_millijoules * 1000, gpu.certain_millijoules * 1000
        assert certain <= account.energy <= truth
        assert account.energy + account.gap_lower <= truth <= account.energy + account.gap_upper
        if certain == truth:
            assert account.energy == truth
            assert account.gap_upper == 0


@pytest.mark.parametrize("name", INTEGRATED)
def test_an_hour_of_superchips_is_the_power_of_their_modules(name: str, tmp_path: Path) -> None:
    """Calls fail; what is summed is each module's energy once, and each GPU's is that of its own power."""
    chance = random.Random(name)
    machine = gpu_machine(name, tmp_path, processes=True)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer(list(machine.specs.values()), at(0))
    failed: set[ChannelKey] = set()
    for tick in range(1, TICKS + 1):
        # The first and the last read succeed, so that all channels have one span.
        machine.nvml.fail.clear()
        if 1 < tick < TICKS:
            failing(machine, chance)
        readings = machine.source.read(tick * TICK_SECONDS * SECOND)
        meter.observe(readings, at(tick * TICK_SECONDS))
        failed |= {reading.key for reading in readings if isinstance(reading, TryAgain)}
    assert failed == {spec.key for spec in machine.specs.values()}
    book = Book()
    book.add(meter.cut(at(TICKS * TICK_SECONDS + 1)))
    seconds = (TICKS - 1) * TICK_SECONDS
    modules: dict[str, int] = {}
    for gpu in machine.nvml.gpus:
        modules.setdefault(gpu.answers["nvmlDeviceGetSerial"], gpu.answers["nvmlDeviceGetFieldValues"]["185/1"])
    summed = {
        (one.device, one.domain): book.accounts[one.channel].energy
        for one in book.catalog.channels
        if one.role in (int(Role.LEAF), int(Role.RESIDUAL))
    }
    assert sum(summed.values()) == sum(modules.values()) * 1000 * seconds
    for gpu in machine.nvml.gpus:
        own = gpu.answers["nvmlDeviceGetFieldValues"]["185/0"] * 1000 * seconds
        assert summed[f"gpu/{gpu.answers['nvmlDeviceGetUUID']}", "board"] == own
    assert len(summed) == len(machine.nvml.gpus) + len(modules)
