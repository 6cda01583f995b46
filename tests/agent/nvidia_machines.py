"""Fixture machines with NVIDIA GPUs: their tree in a temporary folder, and their recorded NVML."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.agent.fake_nvml import PATIENCE_SECONDS, FailingRecording
from tests.agent.machines import Machine, machine

from wattledger_agent.readings import ChannelSpec
from wattledger_agent.sources.nvidia import NvidiaSource

SECOND = 1_000_000_000


@dataclass
class GpuMachine:
    """A machine with its source, opened. specs: what it offered, by device and domain."""

    host: Machine
    nvml: FailingRecording
    source: NvidiaSource
    specs: dict[tuple[str, str], ChannelSpec]


def gpu_machine(name: str, folder: Path, *, gpm: bool = False, processes: bool = False) -> GpuMachine:
    """Open a fixture machine's source."""
    host = machine(name, folder)
    nvml = FailingRecording(json.loads((host.root / "nvml.json").read_text()))
    source = NvidiaSource(
        host.sys,
        host.proc,
        gpm=gpm,
        processes=processes,
        patience_seconds=PATIENCE_SECONDS,
        nvml=nvml,
        opener=host.opener,
        pread=host.pread,
    )
    specs = {(spec.key.device, spec.key.domain): spec for spec in source.open()}
    return GpuMachine(host, nvml, source, specs)
