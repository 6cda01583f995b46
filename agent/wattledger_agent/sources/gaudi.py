"""Intel Gaudi accelerators by `hl-smi`.

Reads no counter: hl-smi has none, so the meter integrates power. One project states that power.draw is that of the 54 V
rail alone (github.com/AgentMulder404/AluminatAI); the maker's documents do not say. Source of truth: the chapter System
Management Interface Tool of the Gaudi documentation (docs.habana.ai, hl-smi -Q).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wattledger_agent.commands import Runner
from wattledger_agent.slow import Pace, PollError
from wattledger_agent.sources.accelerators import AcceleratorSource, Card, Kind, number, ratio

FIELDS = ("name", "serial", "bus_id", "power.draw", "utilization.aip", "memory.used", "memory.total", "temperature.aip")


def parse_cards(text: str) -> Sequence[Card]:
    """Understand rows of FIELDS, with units or without. Raises PollError where there is none."""
    # Imported where there is something to read: a host without cards carries no reader of tables in its memory.
    import csv

    # Warnings of the library stand between the rows of some versions.
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if len(row) == len(FIELDS)]
    if not rows:
        raise PollError(f"gaudi: no card in the answer of hl-smi: `{text.strip()[:200]}`; run it by hand")
    serials = Counter(row[1] for row in rows)
    return [_card(row, is_unique=serials[row[1]] == 1) for row in rows]


def _card(row: Sequence[str], *, is_unique: bool) -> Card:
    name, serial, bus_id, power, busy, used, total, temperature = row
    # Engineering samples show no serial number, or all the same one.
    has_serial = is_unique and serial.isascii() and serial.isalnum() and serial.upper() != "NA" and bool(serial.strip("0"))
    return Card(
        identity=serial if has_serial else bus_id.lower(),
        model=f"Gaudi {name}",
        power_watts=number(power),
        busy_ratio=ratio(number(busy), 100.0),
        memory_ratio=ratio(number(used), number(total)),
        temperature_celsius=number(temperature),
    )


GAUDI = Kind(
    name="gaudi",
    make="Gaudi",
    pci_vendor="0x1da3",
    argv=("hl-smi", "-Q", ",".join(FIELDS), "-f", "csv,noheader,nounits"),
    parse=parse_cards,
    install="Install hl-smi (package habanalabs-firmware-tools) and load the driver habanalabs; where it complains of its "
    "logs, set HABANA_LOGS to a folder that the agent may write.",
)


def gaudi_source(
    sysfs_root: Path = Path("/sys"),
    *,
    cadence_seconds: float = 2.0,
    run: Runner | None = None,
    pace: Pace | None = None,
) -> AcceleratorSource:
    """The source of this host's Gaudi cards."""
    return AcceleratorSource(GAUDI, sysfs_root, cadence_seconds=cadence_seconds, run=run, pace=pace)
