"""Finds the sensors of this host: which source can be read, which can't, and what to do about it.

Reads no sensor's value. The estimate of the whole server is booked only where no sensor measures its CPUs, so that modelled
and measured energy never stand for the same watts; where a sensor meters the node, it is read beside that to be compared.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattledger_agent.commands import Runner
from wattledger_agent.config import EstimateConfig, FakeConfig, ReplayConfig, SourcesConfig
from wattledger_agent.containment import NODE
from wattledger_agent.readings import (
    ChannelSpec,
    Component,
    Method,
    Role,
    Source,
    SourceUnavailableError,
)
from wattledger_agent.sampler import OpenSource
from wattledger_agent.slow import Pace
from wattledger_agent.sources import SOURCES
from wattledger_agent.sources.nvml import Nvml
from wattledger_agent.threads import NoThreadError, start

if TYPE_CHECKING:
    from wattledger_agent.sources.replay import ReplaySource

log = logging.getLogger("wattledger.agent")

# A driver that is well answers in a second or two, eight GPUs without persistence mode in ten.
OPEN_SECONDS_MAX = 30.0


@dataclass(slots=True)
class Played:
    """What stands for time and the kernel where a recorded machine is played.

    pace: drives pollers. kubelet: file with the answer of the recorded kubelet. settle: lets time pass (seconds).
    opener, pread: how files are opened and read. patience_seconds: nothing hangs in a recording, so nothing is late.
    """

    pace: Pace
    kubelet: Path
    settle: Callable[[float], None] = time.sleep
    opener: Callable[[Path], int] = field(default=lambda path: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    pread: Callable[[int, int, int], bytes] = os.pread
    patience_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Roots:
    """Where sysfs, procfs and device files are, and who answers in place of this host's programs (commands), NVIDIA's
    library (nvml) and management controller (redfish: a folder of recorded resources); None: they do themselves. played:
    this is a recorded machine; nothing of this host's is asked.
    """

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")
    devices: Path = Path("/dev")
    commands: Runner | None = None
    nvml: Nvml | None = None
    redfish: Path | None = None
    played: Played | None = None

    @property
    def files(self) -> dict[str, Any]:
        """How a source opens and reads files, if not as ever."""
        return {} if self.played is None else {"opener": self.played.opener, "pread": self.played.pread}

    @property
    def settling(self) -> dict[str, Any]:
        """How a source waits while it is opened, if not as ever."""
        return {} if self.played is None else {"settle": self.played.settle}

    @property
    def pacing(self) -> dict[str, Any]:
        """How a source's polls are driven, if not as ever."""
        return {} if self.played is None else {"pace": self.played.pace}


@dataclass(frozen=True, slots=True)
class Missing:
    """A source that can't be read here. reason and remedy: one sentence each."""

    source: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What can be read on this host, and what can't."""

    opened: list[OpenSource]
    missing: list[Missing]

    @property
    def specs(self) -> list[ChannelSpec]:
        """All channels, in the order of their sources."""
        return [spec for source in self.opened for spec in source.specs]


def find_sources(
    config: SourcesConfig, roots: Roots, *, processes: bool = False, seconds_max: float | None = None
) -> Inventory:
    """Open every enabled source. Never raises: what can't be opened is missing.

    processes: let GPUs tell which processes used them, for the energy of workloads. seconds_max: open all sources side by
    side, and leave out those that take longer; None: wait for each in its turn.
    """
    inventory = Inventory([], [])
    if config.fake is not None:
        open_source(_fake(config.fake), inventory)
        return inventory
    sensors = _sensors(config, roots, processes=processes)
    # Recorded time passes in one thread.
    if seconds_max is not None and roots.played is None:
        open_together(list(sensors), inventory, seconds_max)
    else:
        for source in sensors:
            open_source(source, inventory)
    beside_meter = has_node_meter(inventory.specs)
    if config.estimate.enabled and (beside_meter or not _measures_cpus(inventory.specs)):
        open_source(_estimate(config.estimate, roots, inventory, beside_meter=beside_meter), inventory)
    return inventory


def replay_source(config: ReplayConfig) -> "ReplaySource":
    """The source of a recording, not opened yet."""
    # Imported here, as all sources are where they are made: see sources/__init__.py.
    from wattledger_agent.sources.replay import ReplaySource

    return ReplaySource(
        Path(config.path),
        time_column=config.time_column,
        power_column=config.power_column,
        time_zone=config.time_zone,
        label=config.label,
        span_seconds=config.span_seconds,
        device=config.device,
        component=Component[config.component.upper()],
        power_bound_watts=config.power_bound_watts or None,
        skip_invalid_rows=config.skip_invalid_rows,
    )


def has_node_meter(specs: Iterable[ChannelSpec]) -> bool:
    """Say whether a sensor meters the whole node."""
    return any(spec.key.device == NODE and spec.role is Role.METER and spec.method is not Method.MODEL for spec in specs)


def without_name(source: str, text: str) -> str:
    """A source's sentence without the source's name before it, for where that stands already."""
    return text.removeprefix(f"{source}: ")


def close_all(inventory: Inventory) -> None:
    """Close every opened source."""
    for source in inventory.opened:
        source.source.close()


def _sensors(config: SourcesConfig, roots: Roots, *, processes: bool) -> Iterable[Source]:
    if config.rapl.enabled:
        yield SOURCES["rapl"](
            roots.sysfs,
            roots.procfs,
            psys_is_node_meter=config.rapl.psys_is_node_meter,
            shared_root=Path(config.rapl.shared_root) if config.rapl.shared_root else None,
            **roots.files,
            **roots.settling,
        )
    if config.hwmon.enabled:
        yield SOURCES["hwmon"](
            roots.sysfs,
            acpi_meter_is_node=config.hwmon.acpi_meter_is_node,
            per_core=config.hwmon.per_core,
            **roots.files,
        )
    if config.amd_gpu.enabled:
        # The maker's library knows this host's GPUs alone.
        library = {} if roots.played is None else {"smi": lambda: None}
        yield SOURCES["amd_gpu"](roots.sysfs, **library, **roots.files, **roots.settling)
    if config.intel_gpu.enabled:
        yield SOURCES["intel_gpu"](roots.sysfs, **roots.files)
    if config.nvidia.enabled:
        patience = {} if roots.played is None else {"patience_seconds": roots.played.patience_seconds}
        yield SOURCES["nvidia"](
            roots.sysfs,
            roots.procfs,
            gpm=config.nvidia.gpm,
            processes=processes,
            nvml=roots.nvml,
            **roots.files,
            **patience,
        )
    for name, table in (("gaudi", config.gaudi), ("ascend", config.ascend)):
        if table.enabled:
            yield SOURCES[name](roots.sysfs, cadence_seconds=table.cadence_seconds, run=roots.commands, **roots.pacing)
    if config.ipmi.enabled:
        yield SOURCES["ipmi"](
            roots.devices,
            cadence_seconds=config.ipmi.cadence_seconds,
            excludes_gpus=config.ipmi.excludes_gpus,
            run=roots.commands,
            **roots.pacing,
        )
    if config.redfish.address:
        yield SOURCES["redfish"](
            config.redfish.address,
            user=config.redfish.user,
            password_file=config.redfish.password_file,
            ca_file=config.redfish.ca_file,
            insecure=config.redfish.insecure,
            recording=roots.redfish,
            sysfs_root=roots.sysfs,
            cadence_seconds=config.redfish.cadence_seconds,
            excludes_gpus=config.redfish.excludes_gpus,
            system=config.redfish.system,
            **roots.pacing,
        )
    if config.cpu.enabled:
        yield SOURCES["cpu"](roots.procfs, **roots.files)


def _estimate(config: EstimateConfig, roots: Roots, inventory: Inventory, *, beside_meter: bool) -> Source:
    # Imported here, as all sources are where they are made: see sources/__init__.py.
    from wattledger_agent.sources.cpu import CpuSource
    from wattledger_agent.sources.estimate import SharedLoad

    cpu = next((opened.source for opened in inventory.opened if isinstance(opened.source, CpuSource)), None)
    return SOURCES["estimate"](
        roots.procfs,
        sysfs_root=roots.sysfs,
        cpu_model=config.cpu_model,
        curve_watts=config.curve_watts,
        curve_band=config.curve_band,
        beside_meter=beside_meter,
        load=None if cpu is None else SharedLoad(cpu),
    )


def _fake(config: FakeConfig) -> Source:
    return SOURCES["fake"](
        config.seed,
        truth_path=Path(config.truth_path) if config.truth_path else None,
        packages=config.packages,
        gpus=config.gpus,
        node_meter=config.node_meter,
        counter_range_microjoules=config.counter_range_joules * 1_000_000 or None,
        failure_ratio=config.failure_ratio,
    )


def open_source(source: Source, inventory: Inventory, seconds_max: float = OPEN_SECONDS_MAX) -> None:
    """Open a source, one that may block with a deadline: a hung driver must not keep the agent from the other sensors."""
    if source.may_block:
        open_together([source], inventory, seconds_max)
    else:
        _settle(source, try_open(source), inventory)


def open_together(sources: Sequence[Source], inventory: Inventory, seconds_max: float) -> None:
    """Open sources side by side, and leave out those that have not opened by a deadline that they have in common."""
    outcomes: list[list[Sequence[ChannelSpec] | Missing]] = []
    threads: list[threading.Thread | None] = []
    deciding = threading.Lock()
    for source in sources:
        outcome: list[Sequence[ChannelSpec] | Missing] = []
        try:
            threads.append(start(partial(_open_into, source, outcome, deciding), f"open-{source.name}"))
        except NoThreadError as error:
            outcome.append(Missing(source.name, f"{source.name}: {error}.", "A running agent tries again."))
            threads.append(None)
        outcomes.append(outcome)
    deadline = time.monotonic() + seconds_max
    for source, opener, outcome in zip(sources, threads, outcomes, strict=True):
        if opener is not None:
            opener.join(max(0.0, deadline - time.monotonic()))
        with deciding:
            if not outcome:
                outcome.append(_overdue(source, seconds_max))
        _settle(source, outcome[0], inventory)


def _open_into(source: Source, outcome: list[Sequence[ChannelSpec] | Missing], deciding: threading.Lock) -> None:
    found = try_open(source)
    with deciding:
        is_left_out = bool(outcome)
        if not is_left_out:
            outcome.append(found)
    if is_left_out and not isinstance(found, Missing):
        # Nobody reads it, and another one is made: two would hold the driver, and poll the controller twice.
        try:
            source.close()
        except Exception as error:
            log.warning("%s: it could not be closed: %s: %s", source.name, type(error).__name__, error)


def _overdue(source: Source, seconds_max: float) -> Missing:
    reason = f"{source.name}: it has not opened within {seconds_max:.0f} s; the other sources go on."
    return Missing(source.name, reason, "Look for a hung driver (dmesg); a running agent tries again.")


def _settle(source: Source, outcome: Sequence[ChannelSpec] | Missing, inventory: Inventory) -> None:
    if isinstance(outcome, Missing):
        inventory.missing.append(outcome)
    else:
        inventory.opened.append(OpenSource(source, outcome))


def sensor_named(name: str, config: SourcesConfig, roots: Roots, *, processes: bool = False) -> Source | None:
    """Return a new source of this name, not opened yet; None if none such is enabled. The estimate is no sensor."""
    if config.fake is not None:
        return None
    return next((source for source in _sensors(config, roots, processes=processes) if source.name == name), None)


def try_open(source: Source) -> Sequence[ChannelSpec] | Missing:
    """Open a source, and return its specs, or why it can't be read. Never raises."""
    try:
        return source.open()
    except SourceUnavailableError as error:
        return Missing(source.name, error.reason, error.remedy)
    except Exception as error:
        # Whatever a driver's binding raises, the other sensors are metered.
        reason = f"{source.name}: it can't be opened: {type(error).__name__}: {error}."
        return Missing(source.name, reason, "Mend its driver or library, or switch the source off in the configuration.")


def _measures_cpus(specs: Iterable[ChannelSpec]) -> bool:
    return any(
        spec.method is not Method.MODEL
        and (spec.role is Role.METER or (spec.component is Component.CPU and spec.role is Role.LEAF))
        for spec in specs
    )
