"""Huawei Ascend accelerators by the table of `npu-smi info`.

Reads no counter: npu-smi has none, so the meter integrates power. A card is an NPU of the table: where one holds several
chips and only the first row shows power, that is the power of all. Source of truth: the npu-smi command reference
(hiascend.com), and published outputs of versions 23 to 25 (tests/fixtures/ascend_910/PROVENANCE.md).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wattledger_agent.commands import Runner
from wattledger_agent.slow import Pace, PollError
from wattledger_agent.sources.accelerators import AcceleratorSource, Card, Kind, number, ratio

_BUS_ID = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
_NPU = re.compile(r"(\d+)\s+(\S.*)")
_PAIR = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)")


@dataclass(slots=True)
class _Npu:
    """One NPU while its rows are read. The lists have one value a chip."""

    model: str
    bus_ids: list[str] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    celsius: list[float] = field(default_factory=list)
    busy_percent: list[float] = field(default_factory=list)
    used: float = 0.0
    total: float = 0.0


def parse_cards(text: str) -> Sequence[Card]:
    """Understand the table: two rows a chip. Raises PollError where there is none."""
    npus: dict[str, _Npu] = {}
    current: _Npu | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3:
            continue
        if _BUS_ID.fullmatch(cells[1]):
            if current is not None:
                _take_second_row(current, cells[1], cells[2])
            current = None
        elif (match := _NPU.fullmatch(cells[0])) is not None:
            current = npus.setdefault(match[1], _Npu(match[2]))
            _take_first_row(current, cells[2])
    cards = [_card(npu) for npu in npus.values() if npu.bus_ids]
    if not cards:
        raise PollError(f"ascend: no NPU in the answer of npu-smi: `{' / '.join(text.split())[:200]}`; run it by hand")
    return cards


def _take_first_row(npu: _Npu, values: str) -> None:
    """Power, temperature and huge pages: `70.0  34  0 / 0`."""
    words = [*values.split(), "", ""]
    npu.watts += [watts for watts in (number(words[0]),) if watts is not None]
    npu.celsius += [celsius for celsius in (number(words[1]),) if celsius is not None]


def _take_second_row(npu: _Npu, bus_id: str, values: str) -> None:
    """Busy share and one or two memories, the card's own last: `0  1197 / 13553  1365 / 32768`."""
    npu.bus_ids.append(bus_id)
    npu.busy_percent += [busy for busy in (number(values),) if busy is not None]
    memories = [(float(used), float(total)) for used, total in _PAIR.findall(values) if float(total) > 0]
    if memories:
        npu.used += memories[-1][0]
        npu.total += memories[-1][1]


def _card(npu: _Npu) -> Card:
    busy = sum(npu.busy_percent) / len(npu.busy_percent) if npu.busy_percent else None
    return Card(
        identity=npu.bus_ids[0].lower(),
        model=npu.model if npu.model.startswith("Ascend") else f"Ascend {npu.model}",
        power_watts=sum(npu.watts) if npu.watts else None,
        busy_ratio=ratio(busy, 100.0),
        memory_ratio=ratio(npu.used, npu.total),
        temperature_celsius=max(npu.celsius, default=None),
        chips=len(npu.bus_ids),
    )


ASCEND = Kind(
    name="ascend",
    make="Ascend NPU",
    pci_vendor="0x19e5",
    argv=("npu-smi", "info"),
    parse=parse_cards,
    install="Install Huawei's NPU driver (it brings npu-smi) and let the agent's user be in its group HwHiAiUser.",
)


def ascend_source(
    sysfs_root: Path = Path("/sys"),
    *,
    cadence_seconds: float = 2.0,
    run: Runner | None = None,
    pace: Pace | None = None,
) -> AcceleratorSource:
    """The source of this host's Ascend NPUs."""
    return AcceleratorSource(ASCEND, sysfs_root, cadence_seconds=cadence_seconds, run=run, pace=pace)
