"""Superchips: whose power is whose, on recorded machines, through the real meter and topology."""

from pathlib import Path

from tests.agent.metering import Book, at
from tests.agent.nvidia_machines import SECOND, GpuMachine, gpu_machine

from wattledger_agent.meter import Meter
from wattledger_agent.readings import (
    ChannelKey,
    Component,
    CounterReading,
    Gone,
    Method,
    PowerReading,
    Role,
    TryAgain,
)
from wattledger_agent.sources.hwmon import HwmonSource
from wattledger_agent.sources.nvidia import LOST_READS_MAX

GPUS = [f"gpu/GPU-{index:08d}-0000-0000-0000-{index:012d}" for index in range(4)]
COUNTED = ("leaf", "residual")


def power_of(machine: GpuMachine, device: str, domain: str, tick: int = 1) -> list[float]:
    """Watts that a read gives for a channel."""
    key = ChannelKey(device, domain, "nvidia")
    readings = machine.source.read(tick * SECOND)
    return [one.power_microwatts / 1e6 for one in readings if isinstance(one, PowerReading) and one.key == key]


def test_gb200_reports_its_module_once_for_each_gpu_and_it_is_metered_once(tmp_path: Path) -> None:
    """Two GPUs of one board serial say 467.17 W and 460.15 W of one module: one meter, with both GPUs as its parts."""
    machine = gpu_machine("gb200", tmp_path)
    modules = {device: spec for (device, domain), spec in machine.specs.items() if domain == "module"}
    assert set(modules) == {"module/0", "module/1"}
    assert {(spec.role, spec.method) for spec in modules.values()} == {(Role.METER, Method.INTEGRAL)}
    leaves = [machine.specs[gpu, "board"] for gpu in GPUS]
    assert [leaf.parent for leaf in leaves] == [modules[f"module/{number}"].key for number in (0, 0, 1, 1)]
    assert [leaf.within for leaf in leaves] == ["module/0", "module/0", "module/1", "module/1"]
    assert power_of(machine, "module/0", "module") == [467.17]
    assert [power_of(machine, gpu, "board") for gpu in GPUS] == [[165.93], [168.57], [156.48], [171.99]]
    assert any("one board serial" in note for note in machine.source.notes())


def test_the_modules_bound_is_its_own_limit(tmp_path: Path) -> None:
    """GB200 states 2500 W for a module; the bound is twice that, and not the sum of what its GPUs may draw."""
    assert gpu_machine("gb200", tmp_path).specs["module/0", "module"].power_bound_watts == 5000.0


def test_the_sibling_reports_the_module_when_one_gpu_is_lost(tmp_path: Path) -> None:
    """A GPU off the bus costs its own channels; the module is read from the other one, and goes on."""
    machine = gpu_machine("gb200", tmp_path)
    module = ChannelKey("module/0", "module", "nvidia")
    machine.nvml.lost.add(GPUS[0].removeprefix("gpu/"))
    gone = set()
    for tick in range(1, LOST_READS_MAX + 1):
        readings = machine.source.read(tick * SECOND)
        gone |= {one.key.device for one in readings if isinstance(one, Gone)}
        (said,) = [one for one in readings if isinstance(one, PowerReading | TryAgain) and one.key == module]
        assert said == PowerReading(module, 460_150_000)
    assert gone == {GPUS[0]}
    assert power_of(machine, "module/0", "module", 9) == [460.15]


def test_a_module_whose_gpus_are_all_gone_is_gone(tmp_path: Path) -> None:
    """Nobody is left to report it; the other module is untouched."""
    machine = gpu_machine("gb200", tmp_path)
    machine.nvml.lost |= {gpu.removeprefix("gpu/") for gpu in GPUS[:2]}
    gone: list[str] = []
    for tick in range(1, LOST_READS_MAX + 4):
        gone += [one.key.device for one in machine.source.read(tick * SECOND) if isinstance(one, Gone)]
    assert sorted(gone) == sorted([*GPUS[:2] * 3, "module/0"])
    assert power_of(machine, "module/1", "module", 99) == [459.8]


def test_the_energy_counter_of_gh200_is_never_taken_for_the_gpus(tmp_path: Path) -> None:
    """It counts the whole module; it is shown, and the GPU's leaf integrates the power of the GPU alone."""
    machine = gpu_machine("gh200", tmp_path)
    leaf, counter = machine.specs[GPUS[0], "board"], machine.specs[GPUS[0], "counter"]
    assert (leaf.method, leaf.role) == (Method.INTEGRAL, Role.LEAF)
    assert (counter.method, counter.role) == (Method.COUNTER, Role.SHOWN)
    readings = machine.source.read(SECOND)
    assert PowerReading(leaf.key, 268_400_000) in readings
    assert [one.key for one in readings if isinstance(one, CounterReading)] == [counter.key]
    assert any("Grace CPU" in note for note in machine.source.notes())


def test_a_module_of_an_unknown_package_is_shown_and_its_gpus_are_booked(tmp_path: Path) -> None:
    """Without its NUMA node nobody knows which CPU is on it: a residual would be wrong, so there is none."""
    first = gpu_machine("gh200", tmp_path)
    (first.host.sys / "bus/pci/devices/0009:01:00.0/numa_node").write_text("-1\n")
    first.source.close()
    specs = {spec.key.device: spec for spec in first.source.open() if spec.role is not Role.SHOWN}
    assert set(specs) == {GPUS[0]}
    assert specs[GPUS[0]].parent is None
    assert specs[GPUS[0]].within == ""
    (module,) = [spec for spec in first.source.open() if spec.key.domain == "module"]
    assert (module.key.device, module.role) == ("module/1650000000001", Role.SHOWN)
    assert any("shown and not booked" in note for note in first.source.notes())


def test_a_numa_node_without_cpus_names_no_package(tmp_path: Path) -> None:
    """The memory of a Grace GPU is a node of its own, without CPUs."""
    machine = gpu_machine("gh200", tmp_path)
    (machine.host.sys / "bus/pci/devices/0009:01:00.0/numa_node").write_text("1\n")
    machine.source.close()
    assert all(spec.key.device != "module/0" for spec in machine.source.open())


def test_sensors_of_the_kernel_and_of_nvml_make_one_module(tmp_path: Path) -> None:
    """Grace's ACPI meters and NVML both meter module/0; what is summed is the module's energy, once, to the microjoule."""
    machine = gpu_machine("gb200", tmp_path)
    hwmon = HwmonSource(machine.host.sys)
    meter = Meter(state=None, integral_gap_seconds_max=60.0)
    meter.offer([*hwmon.open(), *machine.specs.values()], at(0))
    for second in range(1, 12):
        machine.nvml.advance(1.0)
        meter.observe([*hwmon.read(second * SECOND), *machine.source.read(second * SECOND)], at(second))
    book = Book()
    book.add(meter.cut(at(12)))
    summed: dict[str, int] = {}
    for channel in book.catalog.channels:
        if channel.role in (int(Role.LEAF), int(Role.RESIDUAL)) and channel.channel in book.accounts:
            summed[f"{channel.device} {channel.domain} {channel.source}"] = book.accounts[channel.channel].energy
    # Ten seconds at what the meters of the two modules say, however many sensors lie within them.
    assert sum(summed.values()) == 10 * (467_170_000 + 460_150_000)
    assert sum(energy for name, energy in summed.items() if name.startswith("gpu/")) == 10 * (
        165_930_000 + 168_570_000 + 156_480_000 + 171_990_000
    )
    hwmon.close()


def test_gb10_has_the_power_of_the_gpu_alone(tmp_path: Path) -> None:
    """No module and no memory power: one leaf, integrated, without a meter around it."""
    machine = gpu_machine("gh200", tmp_path)
    answers = machine.nvml.gpus[0].answers
    answers["nvmlDeviceGetName"] = "NVIDIA GB10"
    answers["nvmlDeviceGetFieldValues"] = {"185/0": 41_000, "186/0": 40_500}
    machine.source.close()
    specs = machine.source.open()
    assert [(spec.key.domain, spec.role) for spec in specs] == [("board", Role.LEAF), ("counter", Role.SHOWN)]
    assert specs[0].component is Component.GPU
    assert PowerReading(specs[0].key, 41_000_000) in machine.source.read(SECOND)


def test_a_superchip_of_an_old_driver_without_fields_integrates_its_power(tmp_path: Path) -> None:
    """Drivers before 535 know no scopes; the GPU's power is read as on any GPU, and it still lies within its module."""
    machine = gpu_machine("gh200", tmp_path)
    del machine.nvml.gpus[0].answers["nvmlDeviceGetFieldValues"]
    machine.source.close()
    leaf = machine.source.open()[0]
    assert (leaf.method, leaf.within, leaf.parent) == (Method.INTEGRAL, "module/0", None)
    assert PowerReading(leaf.key, 268_400_000) in machine.source.read(SECOND)


def test_a_part_that_draws_nothing_is_none(tmp_path: Path) -> None:
    """A driver that answers 0 W for the module says that there is none."""
    machine = gpu_machine("dgx_h100", tmp_path)
    for gpu in machine.nvml.gpus:
        gpu.answers["nvmlDeviceGetFieldValues"] |= {"185/1": 0, "186/1": 0}
    machine.source.close()
    specs = machine.source.open()
    assert {spec.key.domain for spec in specs} == {"board", "memory"}
    assert {spec.method for spec in specs if spec.role is Role.LEAF} == {Method.COUNTER}


def test_packages_with_numbers_of_the_firmware_are_counted_from_0(tmp_path: Path) -> None:
    """ARM kernels gave 36 and 3180 to two sockets; NVML's modules are those of hwmon's labels all the same."""
    machine = gpu_machine("gb200", tmp_path)
    cpus = machine.host.sys / "devices/system/cpu"
    (cpus / "cpu0/topology/physical_package_id").write_text("36\n")
    (cpus / "cpu72/topology/physical_package_id").write_text("3180\n")

    specs = machine.source.open()

    modules = {spec.key.device for spec in specs if spec.key.domain == "module"}
    measured = {spec.key.device for spec in HwmonSource(machine.host.sys).open() if spec.key.domain == "module"}
    assert modules == measured == {"module/0", "module/1"}
    assert [spec.within for spec in specs if spec.key.domain == "board"] == ["module/0"] * 2 + ["module/1"] * 2
