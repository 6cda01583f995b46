"""Fixture machines with AMD GPUs whose energy accumulators go on as the tables of the driver would show."""

from pathlib import Path

from tests.agent.machines import Machine

from wattledger_agent.sources.amd_metrics import ACCUMULATOR, HEADER, OFFSETS, UNIT_DENOMINATOR, UNIT_NUMERATOR


def tables(host: Machine) -> list[Path]:
    """The `gpu_metrics` of each GPU, in the order of the bus."""
    return sorted((host.sys / "devices").rglob("gpu_metrics"))


def accumulate(table: Path, microjoules: float) -> None:
    """Let a GPU's accumulator go on, in whole steps of its unit, in place: open files stay those of the GPU."""
    data = bytearray(table.read_bytes())
    offset = OFFSETS[HEADER.unpack_from(data)[2]]
    steps = ACCUMULATOR.unpack_from(data, offset)[0] + round(microjoules * UNIT_DENOMINATOR / UNIT_NUMERATOR)
    ACCUMULATOR.pack_into(data, offset, max(0, steps))
    table.write_bytes(data)


def let_gpus_work(host: Machine, seconds: float, factor: float = 1.0) -> None:
    """Let every GPU's accumulator go on by `factor` times what its power says for these seconds."""
    for table in tables(host):
        power = next(iter([*table.parent.glob("hwmon/*/power1_input"), *table.parent.glob("hwmon/*/power1_average")]))
        accumulate(table, int(power.read_text()) * seconds * factor)
