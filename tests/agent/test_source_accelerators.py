"""Gaudi and Ascend: what their commands print, what it becomes, and what every failure is."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.agent.by_hand import ByHand
from tests.agent.machines import FIXTURES

from wattledger_agent.commands import RecordedCommand, RecordedRunner
from wattledger_agent.readings import (
    Component,
    Gauge,
    GaugeReading,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
    UtilizationKind,
    UtilizationReading,
)
from wattledger_agent.slow import PollError
from wattledger_agent.sources import ascend, gaudi
from wattledger_agent.sources.accelerators import AcceleratorSource, count_on_bus

MACHINES: dict[str, Callable[..., AcceleratorSource]] = {
    "gaudi2": gaudi.gaudi_source,
    "ascend_910": ascend.ascend_source,
}


def recorded(name: str, time: ByHand) -> AcceleratorSource:
    """The source of a fixture machine."""
    root = FIXTURES / name
    return MACHINES[name](root / "sys", run=RecordedRunner.from_file(root / "commands.json"), pace=time.pace)


def of_gaudi(time: ByHand, *answers: RecordedCommand | str) -> AcceleratorSource:
    """Eight Gaudi on the bus, and these answers of hl-smi."""
    argv = list(gaudi.GAUDI.argv)
    commands = [RecordedCommand(argv, stdout=answer) if isinstance(answer, str) else answer for answer in answers]
    return gaudi.gaudi_source(FIXTURES / "gaudi2/sys", run=RecordedRunner(commands), pace=time.pace)


def row(serial: str, bus: str = "19", watts: str = "93") -> str:
    """One card in hl-smi's answer."""
    return f"HL-225, {serial}, 0000:{bus}:00.0, {watts}, 0, 768, 98304, 26\n"


def watts(readings: Sequence[Reading]) -> list[float]:
    """The powers among readings."""
    return [reading.power_microwatts / 1e6 for reading in readings if isinstance(reading, PowerReading)]


def test_each_gaudi_is_a_leaf() -> None:
    """Named by its serial number, so that it keeps its name in another slot."""
    specs = recorded("gaudi2", ByHand()).open()
    assert len(specs) == 8
    assert {(spec.role, spec.method, spec.component) for spec in specs} == {
        (Role.LEAF, Method.INTEGRAL, Component.ACCELERATOR)
    }
    assert specs[0].key.device == "accelerator/AO12000001"
    assert specs[0].model == "Gaudi HL-225"


def test_gaudi_tells_power_utilization_memory_and_temperature() -> None:
    """Each with its unit: watts to microwatts, percent to a share, MiB of MiB to a share."""
    time = ByHand()
    source = recorded("gaudi2", time)
    key = source.open()[0].key
    source.read(time.now_nanoseconds)
    assert source.read(time.advance(2))[:4] == [
        PowerReading(key, 412_000_000),
        UtilizationReading(key.device, UtilizationKind.BUSY, 0.97),
        UtilizationReading(key.device, UtilizationKind.MEMORY, 91234 / 98304),
        GaugeReading(key.device, Gauge.TEMPERATURE_CELSIUS, 58.0),
    ]


def test_units_beside_the_numbers_do_no_harm() -> None:
    """Versions that do not know `nounits` print them."""
    (card,) = gaudi.parse_cards("HL-325L, AX1, 0000:19:00.0, 230 W, 5 %, 672 MiB, 131072 MiB, 31 C\n")
    assert (card.power_watts, card.busy_ratio, card.temperature_celsius) == (230.0, 0.05, 31.0)


def test_cards_without_a_serial_number_of_their_own_are_named_by_their_bus() -> None:
    """Two of one name would be one channel."""
    cards = gaudi.parse_cards(row("N/A", "19") + row("AO1", "1A") + row("AO1", "33") + row("0000", "34"))
    assert [card.identity for card in cards] == ["0000:19:00.0", "0000:1a:00.0", "0000:33:00.0", "0000:34:00.0"]


def test_warnings_between_the_rows_are_no_cards() -> None:
    """Libraries write to the same output."""
    assert len(gaudi.parse_cards("[warn] no log folder, going on\n" + row("AO1"))) == 1
    with pytest.raises(PollError, match="no card in the answer"):
        gaudi.parse_cards("[warn] no log folder, going on\n")


def test_no_power_is_not_zero_watts() -> None:
    """Neither where the card shows none, nor where it shows 0 W."""
    time = ByHand()
    source = of_gaudi(time, row("AO1"), row("AO1", watts="N/A"), row("AO1", watts="0"))
    source.open()
    source.read(time.now_nanoseconds)
    reasons = []
    for _ in range(2):
        readings = source.read(time.advance(2))
        assert watts(readings) == []
        reasons += [reading.reason for reading in readings if isinstance(reading, TryAgain)]
    assert [reason.split(";")[0] for reason in reasons] == [
        "gaudi: `hl-smi` tells no power of accelerator/AO1",
        "gaudi: 0 W of accelerator/AO1 is no power",
    ]


def test_a_card_that_leaves_the_answer_is_not_read() -> None:
    """The others are."""
    time = ByHand()
    source = of_gaudi(time, row("AO1") + row("AO2", "1a"), row("AO2", "1a", "95"))
    source.open()
    source.read(time.now_nanoseconds)
    readings = source.read(time.advance(2))
    assert watts(readings) == [95.0]
    assert [reading.reason for reading in readings if isinstance(reading, TryAgain)] == [
        "gaudi: accelerator/AO1 is not in the answer of `hl-smi`; see the kernel's log"
    ]


def test_a_hanging_command_is_a_reason_for_each_card_and_a_growing_age() -> None:
    """The last power is not repeated."""
    time = ByHand()
    source = of_gaudi(time, row("AO1"), RecordedCommand(list(gaudi.GAUDI.argv), seconds=600))
    (spec,) = source.open()
    source.read(time.now_nanoseconds)
    again, age = source.read(time.advance(3))
    assert isinstance(again, TryAgain)
    assert "has not ended within 15 s and was killed; look for a hung driver" in again.reason
    assert age == GaugeReading(spec.key.device, Gauge.READING_AGE_SECONDS, 3.0)


def test_a_command_that_fails_shows_what_it_said() -> None:
    """With its status, and as whom to try it."""
    failed = RecordedCommand(list(gaudi.GAUDI.argv), exit_status=4, stderr="driver is not loaded\n")
    with pytest.raises(SourceUnavailableError, match="ended with status 4: `driver is not loaded`"):
        of_gaudi(ByHand(), failed).open()


def test_cards_on_the_bus_that_the_command_leaves_out_are_noted() -> None:
    """A dead card would else be missed by nobody."""
    source = of_gaudi(ByHand(), row("AO1"))
    source.open()
    assert any("8 Gaudi are on the PCI bus, and `hl-smi` tells of 1" in note for note in source.notes())


def test_without_a_card_no_command_is_run(tmp_path: Path) -> None:
    """Most hosts have none, and shall not pay for it."""
    run = RecordedRunner(())
    with pytest.raises(SourceUnavailableError, match="no Gaudi is on this host's PCI bus"):
        gaudi.gaudi_source(tmp_path, run=run).open()
    assert run.calls == []


def test_a_missing_program_says_where_it_comes_from() -> None:
    """The card is there, so that somebody wants it metered."""
    with pytest.raises(SourceUnavailableError) as caught:
        gaudi.gaudi_source(FIXTURES / "gaudi2/sys", run=RecordedRunner(()), pace=ByHand().pace).open()
    assert caught.value.remedy.startswith("Install hl-smi")


def test_other_devices_of_the_same_maker_are_no_accelerators() -> None:
    """Huawei builds network adapters and display controllers too."""
    assert count_on_bus(FIXTURES / "ascend_910/sys", "0x19e5") == 8
    assert count_on_bus(FIXTURES / "ascend_910/sys", "0x1da3") == 0


def test_the_published_table_of_eight_ascend_is_understood() -> None:
    """Values of a real capture."""
    time = ByHand()
    source = recorded("ascend_910", time)
    specs = source.open()
    assert [spec.key.device for spec in specs][:2] == ["accelerator/0000:c1:00.0", "accelerator/0000:81:00.0"]
    assert source.notes() == []
    readings = source.read(time.now_nanoseconds)
    assert watts(readings) == [70.0, 66.9, 69.8, 67.2, 68.9, 66.3, 70.1, 65.6]
    assert readings[1:4] == [
        UtilizationReading(specs[0].key.device, UtilizationKind.BUSY, 0.0),
        UtilizationReading(specs[0].key.device, UtilizationKind.MEMORY, 1365 / 32768),
        GaugeReading(specs[0].key.device, Gauge.TEMPERATURE_CELSIUS, 34.0),
    ]


# In the form of npu-smi 25.5 on a server of the A3 series.
TWO_CHIPS = """
| NPU     Name                | Health      | Power(W)  Temp(C)        Hugepages-Usage(page)|
| Chip    Phy-Id              | Bus-Id      | AICore(%) Memory-Usage(MB)     HBM-Usage(MB)   |
+============================+==============+============================+=================+
| 0     Ascend910            | OK          | 171.3       41                0    /   0        |
| 0     0                    | 0000:9D:00.0 |   10         0      /   0      46904 / 65536   |
+------------------------------------------------------------------------------------+
| 0     Ascend910            | OK          | -          43                0    /   0        |
| 1     1                    | 0000:9F:00.0 |   30         0      /   0      46582 / 65536   |
"""


def test_two_chips_of_one_npu_are_one_power() -> None:
    """The first row shows that of both; utilization is the mean of two, and the hotter one is shown."""
    (card,) = ascend.parse_cards(TWO_CHIPS)
    assert (card.identity, card.model, card.chips) == ("0000:9d:00.0", "Ascend910", 2)
    assert (card.power_watts, card.busy_ratio, card.temperature_celsius) == (171.3, 0.2, 43.0)
    assert card.memory_ratio == (46904 + 46582) / (2 * 65536)


def test_an_npu_without_power_is_noted_and_not_metered() -> None:
    """Cards of the 310P series show `NA`."""
    table = TWO_CHIPS.replace("171.3", "NA   ")
    run = RecordedRunner([RecordedCommand(list(ascend.ASCEND.argv), stdout=table)])
    source = ascend.ascend_source(FIXTURES / "ascend_910/sys", run=run, pace=ByHand().pace)
    assert source.open() == []
    assert source.notes()[0] == "ascend: Ascend910 0000:9d:00.0 tells no power; it is not metered."


def test_a_table_without_npus_is_a_reason() -> None:
    """Such as the driver's complaint."""
    with pytest.raises(PollError, match=r"no NPU in the answer of npu-smi: `dcmi / model / initialized / failed"):
        ascend.parse_cards("dcmi model initialized failed, because the device is used. ret is -8020")
