"""Which sensors each fixture machine has, and which parts each of them sees: what a careful person finds in its files.

Reads fixtures alone; the agent's sources are not asked. Sources of truth: each fixture's PROVENANCE.md and what it cites.
"""

import json
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.contract.plants import FILE_FAULTS, POWER_FAULTS, FaultyNvml, Key, Plant, Sensor

from wattledger_agent.commands import RecordedCommand
from wattledger_agent.machine import open_machine
from wattledger_agent.sources.nvml_recorded import RecordedNvml

# Machines on which every die shows its socket's counter.
MIRRORED = {"threadripper_mirrored_dies", "epyc_rome"}

# A step of the register is 61.035 uJ, and this kernel shows it as 15.3.
SHOWN_A_STEP = {"xeon_sapphire_rapids": (15.3, 61.035)}

# The unit of AMD's accumulators is 2^-16 J; struct gpu_metrics_v1_3 and v1_7 have theirs at this place.
AMD_STEP_MICROJOULES = (15_625, 1_024)
AMD_ACCUMULATOR = (24, struct.Struct("<Q"))

NVML_ENERGY, NVML_POWER, NVML_FIELDS = (
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetFieldValues",
)

# GPUs on one module: their energy counter and the power of scope 1 are the module's.
GPUS_A_MODULE = {"gh200": 1, "gb200": 2}

TIMED_OUT, REFUSED, NO_POWER = "timed out", "refused", "no power"
COMMAND_FAULTS = (TIMED_OUT, REFUSED, NO_POWER)


def plant_of(name: str, fixture: Path, workspace: Path, seed: str = "", *, steady: bool = False) -> Plant:
    """A fixture machine with its physics. steady: powers stay, for outputs that are compared as text."""
    made: list[FaultyNvml] = []

    def make(recording: Any) -> RecordedNvml:
        made.append(FaultyNvml(recording))
        return made[-1]

    machine = open_machine(fixture, workspace, make_nvml=make)
    plant = Plant(name, machine, made[-1], Random(seed or name), steady=steady)
    _add_rapl(plant, machine.root / "sys/class/powercap", keyed=name)
    if name == "scaphandre_guest":
        _add_shared(plant)
    _add_acpi_meters(plant)
    _add_hwmon(plant)
    _add_amd(plant)
    _add_intel(plant)
    _add_nvidia(plant)
    _add_commands(plant)
    _add_redfish(plant)
    plant.begin()
    return plant


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _writer(*files: Path) -> Callable[[int], None]:
    def write(value: int) -> None:
        for file in files:
            file.write_text(f"{value}\n")

    return write


def _add_rapl(plant: Plant, powercap: Path, *, keyed: str) -> None:
    """Packages and memory of each die, each once, with all zones that show them."""
    zones: dict[tuple[str, str, str], list[Path]] = {}
    # What the memory-mapped registers show is the same once more.
    for file in sorted(powercap.glob("*:*/name"), key=lambda file: ("mmio" in file.parent.name, file)):
        zone, text = file.parent, _text(file)
        parent = _text(powercap / zone.name.rpartition(":")[0] / "name")
        package = re.match(r"package-(\d+)(-die-\d+)?$", text if text.startswith("package") else parent)
        if package is not None:
            kind = "package" if text.startswith("package") else text
            zones.setdefault((kind, package[1], package[2] or ""), []).append(zone.resolve())
        elif text.startswith("psys"):
            zones.setdefault(("psys", "", ""), []).append(zone.resolve())
    everything: list[str] = []
    shown: set[tuple[str, str]] = set()
    for (kind, socket, die), folders in sorted(zones.items(), key=lambda item: (item[0][0] != "package", item[0])):
        place = "" if keyed in MIRRORED else die
        name = f"cpu{socket}{place}"
        if kind == "package":
            # Dies of their own never draw the same.
            more = 20 if place == "-die-1" else 0
            parts: tuple[str, ...] = (plant.part(f"{name}.core", 20 + more, 90 + more), plant.part(f"{name}.rest", 20, 60))
            key: Key | None = (f"cpu/{socket}", f"package{'-die-0' if keyed in MIRRORED and die else die}", "rapl")
        elif kind == "dram":
            parts = (plant.part(f"memory{socket}{place}", 4, 40 if place == "-die-1" else 30),)
            key = (f"memory/{socket}", f"dram{'-die-0' if keyed in MIRRORED and die else die}", "rapl")
        elif kind == "psys":
            parts, key = (*everything, plant.part("platform", 10, 50)), ("node", "psys", "rapl")
        else:
            parts, key = (f"{name}.core",), None
        everything += [part for part in parts if part not in everything]
        for index, folder in enumerate(folders):
            _add_zone(plant, kind, folder, parts, key if index == 0 and (kind, str(key)) not in shown else None)
            shown.add((kind, str(key)))


def _add_zone(plant: Plant, kind: str, folder: Path, parts: tuple[str, ...], key: Key | None) -> None:
    file = folder / "energy_uj"
    highest = int(_text(folder / "max_energy_range_uj") or 0)
    step = highest / (2**32 - 1)
    booked = key is not None and kind in ("package", "dram")
    sensor = Sensor(
        key if booked or kind == "psys" else None,
        parts,
        True,
        _writer(file),
        booked=booked,
        modulus=round(highest + step) if highest else None,
        # Near the end of the range, so that it wraps within minutes.
        start=max(0, highest - 3_000_000_000) if booked else int(_text(file) or 0),
        files=(file,),
        faults=FILE_FAULTS if booked else (),
    )
    if kind == "psys":
        sensor.show = lambda microjoules: _writer(file)(microjoules // 1_000_000 * 1_000_000)
        sensor.tolerance = 1_000_000
    scaled = SHOWN_A_STEP.get(plant.name)
    if scaled is not None and kind == "dram":
        shown, real = scaled
        sensor.modulus, sensor.start, sensor.tolerance = None, 0, 200
        sensor.show = lambda microjoules: _writer(file)(int(microjoules / real) * 153 // 10 % round(highest + shown))
    plant.sensors.append(sensor)


def _add_shared(plant: Plant) -> None:
    file = (plant.machine.root / "var/scaphandre/intel-rapl:0/energy_uj").resolve()
    parts = (plant.part("share", 5, 60),)
    key = ("cpu/0", "package", "rapl")
    start = int(_text(file))
    # Written without a line's end, as its host does.
    plant.sensors.append(
        Sensor(
            key, parts, True, lambda value: _put(file, str(value)), start=start, files=(file,), faults=("eio", "empty", "x")
        )
    )


def _put(file: Path, text: str) -> None:
    file.write_text(text)


def _add_acpi_meters(plant: Plant) -> None:
    """ACPI power meters: superchips by their labels, else a meter of the whole node."""
    for file in sorted((plant.machine.root / "sys/devices").rglob("power1_average")):
        label = re.fullmatch(r"(Module|Grace|CPU|SysIO) Power Socket (\d+)", _text(file.parent / "power1_oem_info"))
        if "ACPI000D" not in file.parent.name:
            continue
        if label is None:
            parts: tuple[str, ...] = (plant.part("node", 200, 700),)
            key: Key = ("node", "node", "hwmon")
        else:
            kind, n = label[1], label[2]
            cpu, sysio = plant.part(f"cpu{n}", 30, 200), plant.part(f"sysio{n}", 5, 30)
            grace = (cpu, sysio, plant.part(f"lpddr{n}", 5, 40))
            gpus = [plant.part(f"gpu{number}", 80, 900) for number in _gpus_of_module(plant, int(n))]
            module = (*grace, plant.part(f"regulators{n}", 10, 40), *gpus)
            parts = {"CPU": (cpu,), "SysIO": (sysio,), "Grace": grace, "Module": module}[kind]
            device = {"CPU": "cpu", "SysIO": "sysio", "Grace": "grace", "Module": "module"}[kind]
            key = (f"{device}/{n}", {"cpu": "package"}.get(device, device), "hwmon")
        place = file.resolve()
        plant.sensors.append(Sensor(key, parts, False, _writer(place), files=(place,), faults=(*POWER_FAULTS, "0")))


def _gpus_of_module(plant: Plant, module: int) -> list[int]:
    """GH200 has one GPU on its module, GB200 two."""
    each = GPUS_A_MODULE.get(plant.name, 0)
    return list(range(module * each, (module + 1) * each))


def _add_hwmon(plant: Plant) -> None:
    """Ampere's, AMD's and the Jetson's chips."""
    for folder in sorted((plant.machine.root / "sys/class/hwmon").glob("hwmon*")):
        chip, place = _text(folder / "name"), folder.resolve()
        if chip == "apm_xgene":
            socket = folder.name[-1]
            for number, part, key in (
                (1, plant.part(f"cpu{socket}", 40, 200), (f"cpu/{socket}", "package", "hwmon")),
                (2, plant.part(f"io{socket}", 10, 40), (f"sysio/{socket}", "sysio", "hwmon")),
            ):
                file = place / f"power{number}_input"
                plant.sensors.append(Sensor(key, (part,), False, _writer(file), files=(file,), faults=(*POWER_FAULTS, "0")))
        elif chip == "amd_hsmp_hwmon":
            # The same packages that RAPL counts: shown beside it. The numbers run against the sockets.
            socket = {"hwmon4": "1", "hwmon5": "0"}[folder.name]
            parts = (f"cpu{socket}.core", f"cpu{socket}.rest")
            key = (f"cpu/{socket}", "package", "hwmon")
            plant.sensors.append(
                Sensor(key, parts, False, _writer(place / "power1_input"), booked=False, files=(place / "power1_input",))
            )
        elif chip == "ina3221" and _text(place / "in1_label") == "VDD_IN":
            rails = [plant.part("cpu_gpu_cv", 1, 12), plant.part("soc", 1, 5)]
            board = (*rails, plant.part("carrier", 1, 6))
            _add_rail(plant, place, 1, board, ("node", "node", "hwmon"))
            _add_rail(plant, place, 2, (rails[0],), ("rail/vdd_cpu_gpu_cv", "rail", "hwmon"))
            _add_rail(plant, place, 3, (rails[1],), ("rail/vdd_soc", "rail", "hwmon"))


def _add_rail(plant: Plant, folder: Path, number: int, parts: tuple[str, ...], key: Key) -> None:
    """A rail shows millivolts, here 5000, and milliamperes."""
    volts, amperes = folder / f"in{number}_input", folder / f"curr{number}_input"

    def show(microwatts: int) -> None:
        volts.write_text("5000\n")
        amperes.write_text(f"{microwatts // 5000}\n")

    faults = ("eio", "enodev", "empty", "-1", "x")
    plant.sensors.append(Sensor(key, parts, False, show, files=(amperes,), faults=faults))


def _add_amd(plant: Plant) -> None:
    """AMD GPUs: the accumulator in the driver's table, in steps, and power beside it. A second die shows nothing."""
    numerator, denominator = AMD_STEP_MICROJOULES
    for number, table in enumerate(sorted((plant.machine.root / "sys/devices").rglob("gpu_metrics"))):
        power = next(iter([*table.parent.glob("hwmon/*/power1_input"), *table.parent.glob("hwmon/*/power1_average")]))
        if int(_text(power)) == 0:
            continue
        sensor = Sensor(
            (f"gpu/{_text(table.parent / 'unique_id')}", "board", "amd_gpu"),
            (plant.part(f"gpu{number}", 90, 500),),
            True,
            lambda value: None,
            start=1_000_000,
            tolerance=numerator // denominator + 1,
            files=(table.resolve(),),
            faults=("eio", "enodev"),
            reloads=True,
        )
        sensor.show = partial(_show_amd, plant, sensor, table, power)
        plant.sensors.append(sensor)


def _show_amd(plant: Plant, sensor: Sensor, table: Path, power: Path, microjoules: int) -> None:
    numerator, denominator = AMD_STEP_MICROJOULES
    offset, accumulator = AMD_ACCUMULATOR
    data = bytearray(table.read_bytes())
    accumulator.pack_into(data, offset, max(1, microjoules * denominator // numerator))
    table.write_bytes(data)
    power.write_text(f"{plant.power_microwatts(sensor.parts)}\n")


def _add_intel(plant: Plant) -> None:
    """Intel GPUs: the card's own counter; what its package and its tiles count is within."""
    for folder in sorted((plant.machine.root / "sys/class/hwmon").glob("hwmon*")):
        chip, place = _text(folder / "name"), folder.resolve()
        if chip not in ("i915", "xe", "i915_gt0", "i915_gt1"):
            continue
        address = (place / "device").resolve().name
        tiles = (plant.part(f"{address}.gt0", 20, 200), plant.part(f"{address}.gt1", 20, 200))
        if "_" in chip:
            tile = (f"{address}.{chip[-3:]}",)
            plant.sensors.append(Sensor(None, tile, True, _writer(place / "energy1_input"), booked=False))
            continue
        file = place / "energy1_input"
        key = (f"gpu/{address}", "card", "intel_gpu")
        parts = (*tiles, plant.part(f"{address}.rest", 20, 150))
        # The driver's register has 32 bits of 2^-14 J.
        modulus = 2**32 * 1_000_000 // 2**14
        sensor = Sensor(key, parts, True, _writer(file), files=(file,), faults=("eio", "enodev", "empty", "x"), reloads=True)
        sensor.start, sensor.wraps_at = 5 * modulus - 40_000_000_000, modulus
        plant.sensors.append(sensor)
        if (place / "energy2_input").exists():
            plant.sensors.append(Sensor(None, tiles, True, _writer(place / "energy2_input"), booked=False))


def _add_nvidia(plant: Plant) -> None:
    """NVIDIA GPUs: energy of the board, or of the module where there is one; then the board's power is its own."""
    for number, handle in enumerate(plant.nvml.gpus):
        answers = handle.answers
        device = f"gpu/{answers['nvmlDeviceGetUUID']}"
        board = (plant.part(f"gpu{number}", 80, 390 if "A100" in answers["nvmlDeviceGetName"] else 600),)
        if plant.name == "t4_server":
            board = (plant.part(f"t4gpu{number}", 10, 68),)
        each = GPUS_A_MODULE.get(plant.name)
        counted = board if each is None else _module(plant, number // each)
        alone, key = each is None, (device, "board", "nvidia")
        energy = Sensor(key if alone else None, counted, True, lambda value: None, booked=alone)
        energy.start = 2_000_000_000_000
        energy.show = partial(_show_energy, answers)
        power = Sensor(None if alone else key, board, False, lambda value: None, booked=not alone)
        power.show = partial(_show_power, answers, "0")
        for sensor in (energy, power):
            sensor.faults, sensor.reloads = ("999", "15", "10"), sensor is energy and alone
            sensor.write_fault = partial(_fail_nvml, plant.nvml, answers["nvmlDeviceGetUUID"])
            sensor.mend = partial(plant.nvml.errors.pop, answers["nvmlDeviceGetUUID"], None)
        plant.sensors += [energy, power]
        if not alone:
            module = Sensor(None, counted, False, partial(_show_power, answers, "1"), booked=False)
            plant.sensors.append(module)


def _module(plant: Plant, number: int) -> tuple[str, ...]:
    """What is on a superchip's module, as its ACPI meter has it."""
    return next(sensor.parts for sensor in plant.sensors if sensor.key == (f"module/{number}", "module", "hwmon"))


def _show_energy(answers: dict[str, Any], microjoules: int) -> None:
    # A series of one value: a recording's single number would go on by itself.
    answers[NVML_ENERGY] = {"series": [[0.0, microjoules // 1000]]}


def _show_power(answers: dict[str, Any], scope: str, microwatts: int) -> None:
    fields = answers.get(NVML_FIELDS) or {}
    for field in (f"185/{scope}", f"186/{scope}"):
        if field in fields:
            fields[field] = microwatts // 1000
    if scope == "0" and NVML_POWER in answers:
        answers[NVML_POWER] = microwatts // 1000


def _fail_nvml(nvml: FaultyNvml, uuid: str, fault: str) -> None:
    nvml.errors[uuid] = int(fault)


def _add_commands(plant: Plant) -> None:
    """What a controller and accelerators answer to programs."""
    recorded = plant.machine.root / "commands.json"
    answers = json.loads(recorded.read_text()) if recorded.exists() else []
    argv = answers[0]["argv"] if answers else []
    if plant.name == "ipmi_node_gpus_excluded":
        seen = {name for sensor in plant.sensors if sensor.key and sensor.key[2] == "rapl" for name in sensor.parts}
        node = (*sorted(seen), plant.part("fans", 80, 200))
        sensor = Sensor(("node", "dcmi", "ipmi"), node, False, lambda value: None, faults=COMMAND_FAULTS)
        sensor.cadence_seconds = 10.0
        texts = {answer["stdout"] for answer in answers}
        plant.sensors.append(_commanded(plant, [sensor], argv, lambda watts: _ipmi_text(next(iter(texts)), watts[0])))
    elif plant.name in ("gaudi2", "ascend_910"):
        text = answers[0]["stdout"]
        name = "gaudi" if plant.name == "gaudi2" else "ascend"
        bus = re.findall(r"\b(AO\d+)\b" if name == "gaudi" else r"\b(\w{4}:\w\w:\w\w\.\d)\b", text)
        cards = [
            Sensor(
                (f"accelerator/{identity.lower() if name == 'ascend' else identity}", "board", name),
                (plant.part(f"card{number}", 60, 400, 5),),
                False,
                lambda value: None,
                cadence_seconds=2.0,
            )
            for number, identity in enumerate(bus)
        ]
        fill = _gaudi_text if name == "gaudi" else _ascend_text
        plant.sensors += cards[1:]
        cards[0].faults = COMMAND_FAULTS
        plant.sensors.append(_commanded(plant, cards, argv, partial(fill, text)))


def _commanded(plant: Plant, sensors: list[Sensor], argv: list[str], text: Callable[[list[int]], str]) -> Sensor:
    """The first of sensors that one command tells of: it shows, and fails, for all of them."""

    def answer(**how: Any) -> None:
        plant.machine.commands.change([RecordedCommand(argv, **how)])

    def show(value: int) -> None:
        answer(stdout=text([plant.value(sensor) // 1_000_000 for sensor in sensors]))

    def fail(fault: str) -> None:
        if fault == TIMED_OUT:
            answer(seconds=600.0)
        elif fault == REFUSED:
            answer(exit_status=1, stderr="the driver is busy")
        else:
            answer(stdout=text([0 for _ in sensors]))

    sensors[0].show, sensors[0].write_fault = show, fail
    for sensor in sensors[1:]:
        sensor.leader = sensors[0]
    return sensors[0]


def _ipmi_text(text: str, watts: int) -> str:
    return re.sub(r"(Instantaneous power reading:\s+)\d+", rf"\g<1>{watts}", text)


def _gaudi_text(text: str, watts: list[int]) -> str:
    rows = [line.split(", ") for line in text.strip().splitlines()]
    return "".join(", ".join([*row[:3], str(number), *row[4:]]) + "\n" for row, number in zip(rows, watts, strict=True))


def _ascend_text(text: str, watts: list[int]) -> str:
    left = list(watts)

    def put(match: re.Match[str]) -> str:
        return f"{match[1]}{left.pop(0):<6.1f}"

    return re.sub(r"(\| OK\s+\| )\d+\.\d\s*", lambda match: f"{put(match)}        ", text)


def _add_redfish(plant: Plant) -> None:
    """What a controller's resources tell: this server's power, or that of an enclosure with others in it."""
    root = plant.machine.root / "redfish/v1/Chassis"
    everything = sorted(plant.metered)
    if plant.name == "redfish_server":
        place = root / "Chassis.1/Power.json"
        key: Key = ("node", "input", "redfish")
        parts = (*everything, plant.part("fans", 60, 160))
        sensor = Sensor(key, parts, False, partial(_show_control, place), cadence_seconds=10.0, faults=("gone", NO_POWER))
        sensor.write_fault = partial(_fail_control, place)
        plant.sensors.append(sensor)
    elif plant.name == "shared_chassis":
        supplies = [root / f"Enclosure/PowerSubsystem/PowerSupplies/Bay{bay}/Metrics.json" for bay in (1, 2)]
        parts = (*everything, plant.part("other nodes", 500, 1500))
        key = ("chassis/EN7700042", "input", "redfish")
        show = partial(_show_supplies, supplies)
        plant.sensors.append(Sensor(key, parts, False, show, booked=False, cadence_seconds=10.0))


def _show_control(place: Path, microwatts: int) -> None:
    recorded = json.loads(place.with_suffix(".kept").read_text()) if place.with_suffix(".kept").exists() else None
    resource = recorded or json.loads(place.read_text())
    place.with_suffix(".kept").write_text(json.dumps(resource))
    resource["PowerControl"][1]["PowerConsumedWatts"] = microwatts / 1_000_000
    place.write_text(json.dumps(resource))


def _fail_control(place: Path, fault: str) -> None:
    if fault == "gone":
        place.unlink(missing_ok=True)
    else:
        _show_control(place, 0)


def _show_supplies(places: list[Path], microwatts: int) -> None:
    for place in places:
        resource = json.loads(place.read_text())
        resource["InputPowerWatts"]["Reading"] = microwatts / 1_000_000 / len(places)
        place.write_text(json.dumps(resource))
