"""An hour of every fixture machine, through the real sources and the real meter: what is booked is what was used.

The truth is that of plants.py: parts that draw power, and what each sensor shows of them. A third of the hour nothing fails,
and the sum is compared with what the parts used; then reads fail, drivers are loaded anew, controllers do not answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import pytest
from tests.agent.machines import FIXTURES
from tests.contract.plant_sensors import plant_of
from tests.contract.plants import Plant, Sensor

from wattledger_agent.counters import GapReason
from wattledger_agent.machine_replay import Account, Outcome, Replay
from wattledger_agent.readings import CounterReading, Method, PowerReading, Role

SECOND = 1_000_000_000

MACHINES = sorted(folder.name for folder in FIXTURES.iterdir() if (folder / "sys").is_dir())

HOUR_SECONDS = 3600
CALM_SECONDS = 1200

# A row each five seconds; where a vendor's command is asked each two seconds, the rows keep to that.
ROW_SECONDS = {"gaudi2": 2, "ascend_910": 2}
ROW_SECONDS_DEFAULT = 5

# Rows that a fault lasts: one now and then is longer than the shortest wrap.
FAULT_ROWS = (1, 1, 1, 2, 3, 6, 16)
FAULT_RATIO = 0.01
RELOAD_RATIO = 0.004


@dataclass
class Watched:
    """A sensor's channel as the test sees it. taken: the times of rows with a value, and what was shown then.

    resets: moments at which its counter began anew. fault_rows: how many more rows it fails. faults: how often it did.
    """

    sensor: Sensor
    fault_rows: int = 0
    faults: int = 0
    taken: list[tuple[int, int]] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)


@dataclass
class Hour:
    """A machine's hour. calm: the account after the part without faults. calm_nanoseconds: when that was."""

    plant: Plant
    watched: list[Watched]
    calm: Outcome
    end: Outcome
    begin_nanoseconds: int
    calm_nanoseconds: int
    end_nanoseconds: int
    bounds_watts: dict[tuple[str, str, str], float]
    modelled: list[tuple[int, int]]


def live_through(name: str, folder: Path, *, psys: bool = False, nvml_alone: bool = False) -> Hour:
    """Run a machine's hour. psys: it meters the node. nvml_alone: the kernel shows no sensor of a superchip's modules."""
    plant = plant_of(name, FIXTURES / name, folder / "work")
    machine = plant.machine
    if nvml_alone:
        know_modules_by_nvml(plant)
    if psys:
        rapl = msgspec.structs.replace(machine.config.sources.rapl, psys_is_node_meter=True)
        sources = msgspec.structs.replace(machine.config.sources, rapl=rapl)
        machine.config = msgspec.structs.replace(machine.config, sources=sources)
        for sensor in plant.sensors:
            sensor.booked |= sensor.key == ("node", "psys", "rapl")
    chance = Random(f"faults of {name}")
    row_seconds = ROW_SECONDS.get(name, ROW_SECONDS_DEFAULT)
    replay = Replay(machine, period_seconds=row_seconds)
    watched = [Watched(sensor) for sensor in plant.sensors if sensor.key is not None]
    modelled: list[tuple[int, int]] = []
    plant.note(machine.time.now_nanoseconds)
    replay.step(0.0)
    plant.note(replay.now.boottime_nanoseconds)
    begin = replay.now.boottime_nanoseconds
    take(replay, plant, watched, modelled)
    while replay.seconds < CALM_SECONDS:
        step(replay, plant, row_seconds, watched, modelled)
    calm, calm_nanoseconds = replay.outcome(), replay.now.boottime_nanoseconds
    while replay.seconds < HOUR_SECONDS - 120:
        for each in watched:
            break_or_mend(plant, each, chance, replay.now.boottime_nanoseconds)
        step(replay, plant, row_seconds, watched, modelled)
    for each in watched:
        plant.break_sensor(each.sensor, "")
    while replay.seconds < HOUR_SECONDS:
        step(replay, plant, row_seconds, watched, modelled)
    end = replay.outcome()
    specs = replay.inventory.specs
    replay.close()
    bounds = {(spec.key.device, spec.key.domain, spec.key.source): spec.power_bound_watts for spec in specs}
    return Hour(plant, watched, calm, end, begin, calm_nanoseconds, replay.now.boottime_nanoseconds, bounds, modelled)


def know_modules_by_nvml(plant: Plant) -> None:
    """Take the kernel's sensors away, so that a module is known by what its GPUs tell of it, each of them the same."""
    sources = plant.machine.config.sources
    sources = msgspec.structs.replace(sources, hwmon=msgspec.structs.replace(sources.hwmon, enabled=False))
    plant.machine.config = msgspec.structs.replace(plant.machine.config, sources=sources)
    boards = [sensor for sensor in plant.sensors if sensor.key is not None and sensor.key[2] == "nvidia"]
    for board in boards:
        # A lost GPU would be asked no more for its module, but the other one.
        board.faults = ("999", "10")
    for sensor in plant.sensors:
        if sensor.key is None or sensor.key[2] != "hwmon":
            continue
        module = sensor.key[0] if sensor.key[1] == "module" else ""
        sensor.key, sensor.booked, sensor.faults = None, False, ()
        if module:
            # The first of its GPUs is asked; while that one fails, so does the module's power.
            first = next(board for board in boards if board.parts[0] in sensor.parts)
            sensor.key, sensor.booked, sensor.leader = (module, "module", "nvidia"), True, first


def step(replay: Replay, plant: Plant, seconds: float, watched: list[Watched], modelled: list[tuple[int, int]]) -> None:
    """One row, and what it took."""
    replay.step(seconds)
    plant.note(replay.now.boottime_nanoseconds)
    take(replay, plant, watched, modelled)


def take(replay: Replay, plant: Plant, watched: list[Watched], modelled: list[tuple[int, int]]) -> None:
    """Note which channels had a value in the row: only then, and only what their sensor showed."""
    now = replay.now.boottime_nanoseconds
    read = {
        (reading.key.device, reading.key.domain, reading.key.source): reading
        for reading in replay.readings
        if isinstance(reading, CounterReading | PowerReading)
    }
    for each in watched:
        sensor = each.sensor
        reading = read.get(sensor.key) if sensor.key is not None else None
        fault = sensor.fault or (sensor.leader.fault if sensor.leader is not None else "")
        if fault:
            assert reading is None, f"{sensor.key} fails ({fault!r}), and {reading} was read"
        if reading is None:
            excused = fault or sensor.cadence_seconds or sensor.reloading or not each.taken or not sensor.booked
            assert excused, f"{sensor.key} was not read"
            continue
        sensor.reloading = False
        each.taken.append((now, shown(plant, sensor)))
        if isinstance(reading, PowerReading):
            assert abs(reading.power_microwatts - each.taken[-1][1]) <= 1, sensor.key
    model = [one for key, one in read.items() if key[2] == "estimate"]
    modelled += [(now, one.power_microwatts) for one in model if isinstance(one, PowerReading)]


def shown(plant: Plant, sensor: Sensor) -> int:
    """What a sensor shows: power now, or what its parts have used so far, in microjoules."""
    if not sensor.counts:
        return plant.value(sensor)
    return plant.half_nanojoules(sensor) // 2000


def break_or_mend(plant: Plant, each: Watched, chance: Random, now: int) -> None:
    """Go on with a sensor's fault, or perhaps begin one."""
    sensor = each.sensor
    if each.fault_rows > 0:
        each.fault_rows -= 1
        if each.fault_rows == 0:
            plant.break_sensor(sensor, "")
    elif sensor.faults and chance.random() < FAULT_RATIO:
        each.fault_rows = chance.choice(FAULT_ROWS)
        fault = chance.choice(sensor.faults)
        if fault == "15":
            # Three such answers in a row mean that a GPU is gone for good.
            each.fault_rows = min(each.fault_rows, 2)
        plant.break_sensor(sensor, fault)
        each.faults += 1
    elif sensor.reloads and chance.random() < RELOAD_RATIO:
        plant.reload(sensor)
        each.resets.append(now)


def accounts_of(outcome: Outcome, sensor: Sensor) -> list[Account]:
    """A sensor's channels, one after the other."""
    return [one for one in outcome.accounts if (one.key.device, one.key.domain, one.key.source) == sensor.key]


def expected_gaps(hour: Hour, each: Watched) -> Iterator[tuple[int, int]]:
    """The spans of which a careful person says that nobody knows what was used in them.

    Between two values of a counter: it began anew, or may have wrapped unseen. Between two powers: they lie too far apart.
    """
    sensor = each.sensor
    assert sensor.key is not None
    row_seconds = ROW_SECONDS.get(hour.plant.name, ROW_SECONDS_DEFAULT)
    limit = max(10.0, 3.0 * row_seconds, 3.0 * sensor.cadence_seconds)
    modulus = sensor.modulus or sensor.wraps_at
    for (start, _), (end, _) in pairwise(each.taken):
        seconds = (end - start) / SECOND
        if sensor.counts:
            wraps = modulus is not None and hour.bounds_watts[sensor.key] * 1_000_000 * seconds >= modulus
            if wraps or any(start <= reset < end for reset in each.resets):
                yield start, end
        elif seconds > limit:
            yield start, end


def trapezoid(each: Watched, spans: set[tuple[int, int]]) -> float:
    """The integral of what was shown, without these spans; microjoules."""
    total = 0
    for (start, power), (end, after) in pairwise(each.taken):
        if (start, end) not in spans:
            total += (power + after) * (end - start)
    return total / (2 * SECOND)


def check_channel(hour: Hour, each: Watched) -> None:
    """Booked is exactly what was counted outside of the gaps, gaps are where they must be, and hold the truth."""
    sensor, plant = each.sensor, hour.plant
    # A channel that comes under a meter that was found late goes on under another number.
    energy_microjoules = sum(account.energy_microjoules for account in accounts_of(hour.end, sensor))
    gaps = [
        gap
        for gap in hour.end.gaps
        if (gap.key.device, gap.key.domain, gap.key.source) == sensor.key and gap.to_seconds > gap.from_seconds
    ]
    first = each.taken[0][0]
    begin = hour.begin_nanoseconds
    spans = {(begin + round(gap.from_seconds * SECOND), begin + round(gap.to_seconds * SECOND)) for gap in gaps}
    inner = {span for span in spans if span[0] >= first}
    assert inner == set(expected_gaps(hour, each)), sensor.key
    for gap in gaps:
        start, end = begin + round(gap.from_seconds * SECOND), begin + round(gap.to_seconds * SECOND)
        used = plant.used_microjoules(sensor.parts, start, end)
        assert not gap.unbounded
        lower, upper = gap.lower_microjoules - sensor.tolerance, gap.upper_microjoules + sensor.tolerance
        assert lower <= used <= upper, (sensor.key, gap)
        assert gap.reason in (GapReason.NOT_MEASURED, GapReason.WRAP_AMBIGUOUS, GapReason.RESET)
    if sensor.counts:
        known = each.taken[-1][1] - each.taken[0][1]
        missed = [hour_used(each, span) for span in inner]
        assert abs(energy_microjoules - (known - sum(missed))) <= sensor.tolerance * (1 + len(inner)), sensor.key
    else:
        assert abs(energy_microjoules - trapezoid(each, inner)) <= 1, sensor.key


def hour_used(each: Watched, span: tuple[int, int]) -> int:
    """What a counter's parts used between two of its values."""
    used = dict(each.taken)
    return used[span[1]] - used[span[0]]


def booked(outcome: Outcome) -> int:
    """What is summed of measured channels; models stand for machines without sensors, and are looked at for themselves."""
    return sum(
        account.energy_microjoules
        for account in outcome.accounts
        if account.role in (Role.LEAF, Role.RESIDUAL) and account.method is not Method.MODEL
    )


def check_sum(hour: Hour) -> None:
    """No watt twice: while nothing failed, all channels that are summed hold what the parts used, each part once."""
    plant = hour.plant
    firsts = [each.taken[0][0] for each in hour.watched if each.sensor.booked]
    if not firsts:
        assert booked(hour.end) == 0
        return
    start = hour.begin_nanoseconds
    late = sum(
        plant.used_microjoules(each.sensor.parts, start, each.taken[0][0])
        for each in hour.watched
        if each.sensor.booked and each.sensor.counts
    )
    assert late == 0
    truth = plant.used_microjoules(plant.metered, start, hour.calm_nanoseconds)
    slack = sum(each.sensor.tolerance for each in hour.watched) + 2 * len(hour.end.accounts)
    assert abs(booked(hour.calm) - truth) <= slack, (booked(hour.calm), truth)


def check_bounds(hour: Hour) -> None:
    """The hour's sum with the gaps of what is summed holds what the parts used, but for what powers between reads hide."""
    plant = hour.plant
    if not any(each.sensor.booked for each in hour.watched):
        return
    summed = [one for one in hour.end.accounts if one.role in (Role.LEAF, Role.RESIDUAL) and one.method is not Method.MODEL]
    truth = plant.used_microjoules(plant.metered, hour.begin_nanoseconds, hour.end_nanoseconds)
    hidden = 0.0
    for each in hour.watched:
        if each.sensor.booked and not each.sensor.counts:
            spans = set(expected_gaps(hour, each))
            for (start, power), (end, after) in pairwise(each.taken):
                if (start, end) not in spans:
                    used = plant.used_microjoules(each.sensor.parts, start, end)
                    hidden += abs(used - (power + after) * (end - start) / (2 * SECOND))
    slack = hidden + sum(each.sensor.tolerance for each in hour.watched) + 2 * len(hour.end.accounts)
    lower = booked(hour.end) + sum(one.gap_lower_microjoules for one in summed)
    upper = booked(hour.end) + sum(one.gap_upper_microjoules for one in summed)
    assert lower - slack <= truth <= upper + slack


def check(hour: Hour) -> None:
    """All that is to hold of a machine's hour."""
    for each in hour.watched:
        if each.sensor.booked or each.taken:
            check_channel(hour, each)
    check_sum(hour)
    check_bounds(hour)
    devices = {each.sensor.key[0] for each in hour.watched if each.sensor.key is not None and each.sensor.booked}
    if any(device.startswith(("cpu/", "node")) for device in devices):
        # A model stands beside no measurement of the same watts.
        assert all(one.role is Role.SHOWN for one in hour.end.accounts if one.method is Method.MODEL)
    # An hour in which nothing happened would prove nothing.
    assert sum(each.faults for each in hour.watched) >= sum(bool(each.sensor.faults) for each in hour.watched)


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_booked_is_what_was_used(tmp_path: Path, name: str) -> None:
    """Each channel has what its sensor showed, to the microjoule; what nobody knows stands in gaps; no watt counts twice."""
    hour = live_through(name, tmp_path)
    check(hour)
    models = [one for one in hour.end.accounts if one.method is Method.MODEL and one.role is Role.LEAF]
    if models:
        points = hour.modelled
        pairs = list(pairwise(points))
        integral = sum((power + after) * (end - start) for (start, power), (end, after) in pairs) / (2 * SECOND)
        assert models[0].energy_microjoules == pytest.approx(integral, abs=2)


def test_a_module_that_each_of_its_gpus_tells_of_counts_once(tmp_path: Path) -> None:
    """Two GPUs with one board serial tell the same power of their module: it is metered once, and holds both of them."""
    hour = live_through("gb200", tmp_path, nvml_alone=True)
    assert "regulators0" in hour.plant.metered
    check(hour)


def test_psys_as_the_nodes_meter_counts_no_package_twice(tmp_path: Path) -> None:
    """What psys sees beyond packages and memory is a residual, so that the sum is what psys counted."""
    hour = live_through("xeon_sapphire_rapids_linux_6_8", tmp_path, psys=True)
    assert "platform" in hour.plant.metered
    check(hour)
