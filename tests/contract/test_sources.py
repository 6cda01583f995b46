"""What every source owes the sampler, whatever it reads: one suite over all of them, failures included.

A source is added by a case in CASES (one that works), and by one in BROKEN for each way in which it can be absent. The
replay is not here: the sampler does not read it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import pytest
from tests.agent.by_hand import ByHand
from tests.agent.fake_nvml import LIBRARY_NOT_FOUND, PATIENCE_SECONDS, UNKNOWN, FakeGpu, FakeNvml, eight_gpus
from tests.agent.gpu_machines import let_gpus_work
from tests.agent.machines import FIXTURES, machine
from tests.agent.nvidia_machines import gpu_machine

from wattledger_agent.commands import RecordedRunner
from wattledger_agent.readings import (
    ENERGY_MICROJOULES_LIMIT,
    ChannelSpec,
    CounterReading,
    GaugeReading,
    Gone,
    Method,
    Offer,
    PowerReading,
    ProcessShares,
    Role,
    Source,
    SourceUnavailableError,
    SpanReading,
    TryAgain,
    UtilizationReading,
    WorkloadsReading,
)
from wattledger_agent.sources import SOURCES
from wattledger_agent.sources.amd_gpu import AmdGpuSource
from wattledger_agent.sources.ascend import ascend_source
from wattledger_agent.sources.cpu import CpuSource
from wattledger_agent.sources.estimate import EstimateSource
from wattledger_agent.sources.fake import FakeSource
from wattledger_agent.sources.gaudi import gaudi_source
from wattledger_agent.sources.hwmon import HwmonSource
from wattledger_agent.sources.intel_gpu import IntelGpuSource
from wattledger_agent.sources.ipmi import IpmiSource
from wattledger_agent.sources.nvidia import NvidiaSource
from wattledger_agent.sources.rapl import RaplSource
from wattledger_agent.sources.redfish import RedfishSource
from wattledger_agent.sources.redfish_session import FolderFetch, RedfishSession
from wattledger_agent.workloads import WorkloadsSource

SECOND = 1_000_000_000

# Device and domain become metric labels; the longest, a GPU's UUID, has 40 characters.
KEY_LENGTH_MAX = 128


@dataclass(frozen=True)
class Case:
    """A source that works. metered: whether it has channels. make: given an empty folder."""

    label: str
    make: Callable[[Path], Source]
    metered: bool = True

    def __str__(self) -> str:
        return self.label


def rapl(name: str, *, meter: bool = False, failing: str = "") -> Callable[[Path], Source]:
    """RAPL on a fixture machine, with one counter that may not be opened if `failing` names it."""

    def make(folder: Path) -> Source:
        host = machine(name, folder)
        if failing:
            host.refused[failing] = 13
        return RaplSource(
            host.sys, host.proc, psys_is_node_meter=meter, opener=host.opener, pread=host.pread, settle=host.settle
        )

    return make


def nvidia_machine(name: str) -> Callable[[Path], Source]:
    """NVIDIA on a fixture machine, with all that can be switched on."""
    return lambda folder: gpu_machine(name, folder, gpm=True, processes=True).source


def shared_rapl(root: Path) -> Source:
    """RAPL from the folder in which a guest's host writes its share."""
    return RaplSource(root / "sys", root / "proc", shared_root=root / "var" / "scaphandre")


def nvidia(nvml: Callable[[], FakeNvml]) -> Callable[[Path], Source]:
    """NVIDIA on a fake NVML."""
    return lambda folder: NvidiaSource(folder, patience_seconds=PATIENCE_SECONDS, nvml=nvml())


def accelerators(make_source: Callable[..., Source], name: str) -> Callable[[Path], Source]:
    """What a vendor's command tells of on a fixture machine; polls are made by hand."""

    def make(folder: Path) -> Source:
        root = machine(name, folder).root
        return make_source(root / "sys", run=RecordedRunner.from_file(root / "commands.json"), pace=ByHand().pace)

    return make


def ipmi(name: str, *, allowed: bool = True) -> Callable[[Path], Source]:
    """IPMI on a fixture machine; polls are made by hand."""

    def make(folder: Path) -> Source:
        root = machine(name, folder).root
        run = RecordedRunner.from_file(root / "commands.json")
        return IpmiSource(root / "dev", run=run, pace=ByHand().pace, access=lambda path: allowed)

    return make


def hwmon(name: str) -> Callable[[Path], Source]:
    """hwmon on a fixture machine."""
    return lambda folder: HwmonSource(machine(name, folder).sys)


def amd_gpu(name: str, *, counting: bool = False) -> Callable[[Path], Source]:
    """AMD GPUs on a fixture machine, whose accumulators go on with the time that the source waits, if `counting`."""

    def make(folder: Path) -> Source:
        host = machine(name, folder)
        return AmdGpuSource(host.sys, settle=lambda seconds: let_gpus_work(host, seconds) if counting else None)

    return make


def redfish(name: str, *, system: str = "") -> Callable[[Path], Source]:
    """Redfish as a fixture machine's controller answered; polls are made by hand."""
    folder = FIXTURES / name / "redfish"
    return lambda empty: RedfishSource(lambda: FolderFetch(folder), system=system, pace=ByHand().pace)


def redfish_dead(folder: Path) -> Source:
    """Nothing listens at the controller's address."""
    session = RedfishSession("http://127.0.0.1:1", "reader", lambda: "secret")
    return RedfishSource(lambda: session, pace=ByHand().pace)


def ipmi_bare(folder: Path) -> Source:
    """A controller, and nothing installed that could ask it."""
    (folder / "ipmi0").touch()
    return IpmiSource(folder, run=RecordedRunner(()), pace=ByHand().pace, access=lambda path: True)


def workloads(name: str) -> Callable[[Path], Source]:
    """Workloads on a fixture machine."""

    def make(folder: Path) -> Source:
        host = machine(name, folder)
        return WorkloadsSource(host.sys / "fs/cgroup", host.proc, host.sys, with_memory=True, with_reservations=True)

    return make


def cpu(folder: Path) -> Source:
    """CPU on a fixture machine."""
    return CpuSource(machine("virtual_machine", folder).proc)


CASES = [
    *(
        Case(f"rapl {name}", rapl(name))
        for name in ("xeon_two_sockets", "xeon_sapphire_rapids", "xeon_two_dies", "xeon_tpmi")
    ),
    *(Case(f"rapl {name}", rapl(name)) for name in ("laptop_mmio", "node_exporter_capture", "threadripper_mirrored_dies")),
    *(Case(f"rapl {name}", rapl(name)) for name in ("epyc_rome", "epyc_genoa", "xeon_haswell_dram_unit", "xcp_ng_guest")),
    *(Case(f"rapl {name}", rapl(name)) for name in ("xeon_sapphire_rapids_linux_6_8", "desktop_haswell_igpu")),
    *(Case(f"rapl {name}", rapl(name)) for name in ("kvm_guest_virtual_rapl", "powercap_dangling_symlink")),
    Case("rapl in a shared folder", lambda folder: shared_rapl(machine("scaphandre_guest", folder).root)),
    Case("rapl with the node's meter", rapl("xeon_sapphire_rapids", meter=True)),
    Case("rapl with one failing domain", rapl("xeon_two_sockets", failing="intel-rapl:1:0")),
    Case("nvidia with eight GPUs", nvidia(eight_gpus)),
    Case("nvidia without counter", nvidia(lambda: FakeNvml([FakeGpu("GPU-a", energy_millijoules=None)]))),
    Case("nvidia that always fails", nvidia(lambda: failing_nvml("nvmlDeviceGetTotalEnergyConsumption"))),
    Case("nvidia without utilization", nvidia(lambda: failing_nvml("nvmlDeviceGetUtilizationRates"))),
    *(Case(f"nvidia {name}", nvidia_machine(name)) for name in ("dgx_a100_mig", "dgx_h100", "gb200", "gh200", "t4_server")),
    Case("gaudi", accelerators(gaudi_source, "gaudi2")),
    Case("ascend", accelerators(ascend_source, "ascend_910")),
    Case("ipmi", ipmi("ipmi_node_gpus_excluded")),
    Case("redfish", redfish("redfish_server")),
    Case("redfish with a shared enclosure", redfish("shared_chassis", system="Node2")),
    *(Case(f"hwmon {name}", hwmon(name)) for name in ("grace", "gh200", "gb200", "ampere_altra", "epyc_genoa")),
    *(Case(f"hwmon {name}", hwmon(name)) for name in ("jetson_orin", "acpi_meter_sentinel")),
    *(Case(f"amd_gpu {name}", amd_gpu(name)) for name in ("mi300x", "mi250_dual_die")),
    Case("amd_gpu with accumulators", amd_gpu("mi300x", counting=True)),
    Case("intel_gpu intel_gpu_max", lambda folder: IntelGpuSource(machine("intel_gpu_max", folder).sys)),
    Case("cpu", cpu, metered=False),
    Case("workloads kubernetes_cgroup_v2", workloads("kubernetes_cgroup_v2"), metered=False),
    Case("workloads slurm_cgroup_v1", workloads("slurm_cgroup_v1"), metered=False),
    Case("estimate", lambda folder: EstimateSource(machine("xeon_two_sockets", folder).proc)),
    Case("fake", lambda folder: FakeSource(1, packages=2, gpus=8, node_meter=True)),
    Case("fake that always fails", lambda folder: FakeSource(1, packages=1, failure_ratio=1.0)),
]

BROKEN = [
    Case("rapl without powercap", rapl("virtual_machine")),
    Case("rapl masked in a container", rapl("container_masked")),
    Case("rapl in a guest without it", rapl("kvm_guest")),
    Case("rapl in a shared folder that is not mounted", lambda folder: shared_rapl(folder)),
    Case("rapl without anything", lambda folder: RaplSource(folder, folder)),
    Case("nvidia without its library", nvidia(lambda: failing_nvml("nvmlInit", LIBRARY_NOT_FOUND))),
    Case("nvidia without GPUs", nvidia(lambda: FakeNvml([]))),
    Case("gaudi without a card", accelerators(gaudi_source, "virtual_machine")),
    Case("ascend without a card", accelerators(ascend_source, "virtual_machine")),
    Case("ascend without its program", lambda folder: ascend_source(FIXTURES / "ascend_910/sys", run=RecordedRunner(()))),
    Case("ipmi without a controller", ipmi("virtual_machine")),
    Case("ipmi with a dead controller", ipmi("dead_bmc")),
    Case("redfish with a dead controller", redfish_dead),
    Case("redfish without power", redfish("virtual_machine")),
    Case("redfish with an unnamed node", redfish("shared_chassis")),
    Case("ipmi without permission", ipmi("dead_bmc", allowed=False)),
    Case("ipmi without a program", ipmi_bare),
    Case("hwmon without a power sensor", hwmon("xeon_two_sockets")),
    Case("hwmon with GPUs alone", hwmon("mi300x")),
    Case("amd_gpu without a GPU", amd_gpu("epyc_genoa")),
    Case("intel_gpu without a GPU", lambda folder: IntelGpuSource(folder)),
    Case("cpu without procfs", lambda folder: CpuSource(folder), metered=False),
    Case("workloads without groups", workloads("xeon_two_sockets")),
    Case("estimate without procfs", lambda folder: EstimateSource(folder)),
    Case("fake that can't write", lambda folder: FakeSource(1, truth_path=folder / "none" / "truth")),
]


def failing_nvml(call: str, value: int = UNKNOWN) -> FakeNvml:
    """One GPU, of which one call always fails."""
    return FakeNvml([FakeGpu("GPU-a")], fail={call: lambda number: value})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_offered_makes_one_tree(case: Case, tmp_path: Path) -> None:
    """Keys are unique and carry the source's name, parents are offered too, and bounds and ranges can be used."""
    source = case.make(tmp_path)
    specs = list(source.open())
    keys = {spec.key for spec in specs}
    assert bool(specs) == case.metered
    assert len(keys) == len(specs)
    for spec in specs:
        assert spec.key.source == source.name
        assert 0 < len(spec.key.device + spec.key.domain) <= KEY_LENGTH_MAX
        assert spec.key.device.isprintable()
        assert spec.role is not Role.RESIDUAL
        assert 0 < spec.power_bound_watts < float("inf")
        assert spec.parent is None or spec.parent in keys
        assert spec.parent != spec.key
        assert spec.counter_range_microjoules is None or 0 < spec.counter_range_microjoules < ENERGY_MICROJOULES_LIMIT
        assert spec.uncertainty_lower_ratio >= 0
        assert spec.uncertainty_upper_ratio >= 0
        assert 0 <= spec.cadence_seconds < float("inf")
    source.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_leaf_stands_in_a_leaf(case: Case, tmp_path: Path) -> None:
    """Only a meter may contain what is summed, else energy would be summed twice."""
    source = case.make(tmp_path)
    specs = {spec.key: spec for spec in source.open()}
    for spec in specs.values():
        if spec.role is Role.LEAF and spec.parent is not None:
            assert specs[spec.parent].role is Role.METER
    source.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_read_speaks_once_of_each_channel_and_of_no_other(case: Case, tmp_path: Path) -> None:
    """Each channel that is not gone has one outcome a read, of its method's type, within its limits; a slow one may wait."""
    source = case.make(tmp_path)
    specs = {spec.key: spec for spec in source.open()}
    open_keys = set(specs)
    for tick in range(1, 6):
        spoken = set()
        for reading in source.read(tick * SECOND):
            if isinstance(reading, UtilizationReading):
                assert 0.0 <= reading.ratio <= 1.0
                assert reading.units >= 1
                continue
            if isinstance(reading, GaugeReading):
                assert isfinite(reading.value)
                continue
            if isinstance(reading, ProcessShares):
                assert all(share >= 0 for share in reading.shares.values())
                assert sum(reading.shares.values()) <= 1.0 + 1e-9
                continue
            if isinstance(reading, WorkloadsReading):
                assert reading.cpu_nanoseconds.keys() == reading.workloads.keys()
                assert min(*reading.busy_nanoseconds, *reading.idle_nanoseconds, *reading.cpu_nanoseconds.values()) >= 0
                assert len(reading.busy_nanoseconds) == len(reading.idle_nanoseconds)
                continue
            if isinstance(reading, Offer):
                continue
            assert reading.key in open_keys
            assert reading.key not in spoken
            spoken.add(reading.key)
            _check_value(reading, specs[reading.key])
        assert spoken | {key for key in open_keys if specs[key].cadence_seconds > 0} == open_keys
        open_keys -= {reading.key for reading in source.read(tick * SECOND + 1) if isinstance(reading, Gone)}
    source.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_counters_do_not_change_their_generation_while_the_source_is_open(case: Case, tmp_path: Path) -> None:
    """A generation that changed without cause would lose the energy between two reads."""
    source = case.make(tmp_path)
    source.open()
    seen: dict[object, set[int]] = {}
    for tick in range(1, 5):
        for reading in source.read(tick * SECOND):
            if isinstance(reading, CounterReading):
                seen.setdefault(reading.key, set()).add(reading.generation)
    assert all(len(generations) == 1 for generations in seen.values())
    assert all(0 <= generation < 2**63 for generations in seen.values() for generation in generations)
    source.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_opening_again_offers_the_same(case: Case, tmp_path: Path) -> None:
    """Keys hold for as long as the host exists: a source that is closed and opened again offers the same tree."""
    source = case.make(tmp_path)
    first = list(source.open())
    source.close()
    assert list(source.open()) == first
    source.close()
    source.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_notes_are_sentences(case: Case, tmp_path: Path) -> None:
    """A note is one line for people, and reading does not make notes without end."""
    source = case.make(tmp_path)
    source.open()
    source.read(SECOND)
    notes = list(source.notes())
    for tick in range(2, 10):
        source.read(tick * SECOND)
    assert list(source.notes()) == notes
    assert all(note.endswith(".") and "\n" not in note for note in notes)
    source.close()


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_an_absent_source_says_what_is_missing_and_what_to_do(case: Case, tmp_path: Path) -> None:
    """SourceUnavailableError and nothing else, reason and remedy each a sentence; closing it is harmless."""
    source = case.make(tmp_path)
    with pytest.raises(SourceUnavailableError) as caught:
        source.open()
    for sentence in (caught.value.reason, caught.value.remedy):
        assert sentence.endswith(".")
        assert "\n" not in sentence
    assert caught.value.reason.startswith(f"{source.name}: ")
    source.close()


def test_every_registered_source_is_under_this_contract() -> None:
    """Whoever registers a source adds it here; a name is the same in register, class and channel keys."""
    for name in set(SOURCES) - {"replay"}:
        cases = [case for case in (*CASES, *BROKEN) if case.label.split()[0] == name]
        assert cases, f"{name} has no case in this file"
    assert {"rapl", "nvidia", "cpu"} <= set(SOURCES)


def _check_value(reading: CounterReading | PowerReading | SpanReading | TryAgain | Gone, spec: ChannelSpec) -> None:
    if isinstance(reading, TryAgain | Gone):
        assert reading.reason
        return
    assert isinstance(reading, CounterReading) == (spec.method is Method.COUNTER)
    if isinstance(reading, CounterReading):
        assert 0 <= reading.counter_microjoules <= (spec.counter_range_microjoules or ENERGY_MICROJOULES_LIMIT)
    else:
        assert reading.power_microwatts >= 0
