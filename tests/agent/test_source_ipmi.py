"""The node's power by DCMI: what counts as power, what each failure becomes, and that nothing ever waits."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.agent.by_hand import SECOND, ByHand
from tests.agent.machines import FIXTURES

from wattledger_agent.commands import Answer, CommandMissingError, CommandTimeoutError, RecordedRunner, Runner
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
)
from wattledger_agent.slow import PollError
from wattledger_agent.sources.ipmi import COMMAND_SECONDS_MAX, COMMANDS, KEY, IpmiSource, parse_power

LONG_SECONDS = 30.0

# As ipmitool 1.8.19 prints it.
IPMITOOL = """
    Instantaneous power reading:                   214 Watts
    Minimum during sampling period:                  2 Watts
    Maximum during sampling period:                468 Watts
    Average power reading over sample period:      184 Watts
    IPMI timestamp:                           05/05/2024 13:06:44 UTC
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated

"""

# As FreeIPMI 1.6 prints it.
FREEIPMI = """Current Power                        : 164 Watts
Minimum Power over sampling duration : 48 watts
Maximum Power over sampling duration : 361 watts
Average Power over sampling duration : 157 watts
Time Stamp                           : 12/29/2023 - 08:58:00
Statistics reporting time period     : 1473439000 milliseconds
Power Measurement                    : Active
"""


class Tool:
    """An ipmitool with these answers, the last one again and again; an exception is raised, a function called first."""

    def __init__(self, *answers: str | Answer | Exception | Callable[[], str]) -> None:
        self._answers = list(answers)
        self.calls: list[Sequence[str]] = []
        self.at_once = 0
        self.at_once_max = 0

    def __call__(self, argv: Sequence[str], seconds_max: float) -> Answer:
        """One answer."""
        self.calls.append(argv)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        try:
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Answer):
                return answer
            return Answer(0, answer if isinstance(answer, str) else answer(), "")
        finally:
            self.at_once -= 1


def source(
    folder: Path, run: Runner, time: ByHand | None = None, *, excludes_gpus: bool = False, allowed: bool = True
) -> IpmiSource:
    """On a host whose kernel drives a controller."""
    (folder / "ipmi0").touch()
    pace = (time or ByHand()).pace
    return IpmiSource(folder, run=run, pace=pace, excludes_gpus=excludes_gpus, access=lambda path: allowed)


def recorded(name: str, time: ByHand) -> tuple[IpmiSource, RecordedRunner]:
    """The controller of a fixture machine."""
    run = RecordedRunner.from_file(FIXTURES / name / "commands.json")
    return IpmiSource(FIXTURES / name / "dev", run=run, pace=time.pace, access=lambda path: True), run


def watts(readings: Sequence[Reading]) -> list[float]:
    """The powers among readings."""
    return [reading.power_microwatts / 1e6 for reading in readings if isinstance(reading, PowerReading)]


def reason(readings: Sequence[Reading]) -> str:
    """Why there is no value."""
    (again,) = [reading for reading in readings if isinstance(reading, TryAgain)]
    return again.reason


def test_both_programs_are_understood() -> None:
    """The instantaneous power, and not the mean of a period that nobody knows."""
    assert parse_power(IPMITOOL) == 214_000_000
    assert parse_power(FREEIPMI) == 164_000_000


@pytest.mark.parametrize(
    "text",
    [
        IPMITOOL.replace("activated", "deactivated"),
        FREEIPMI.replace("Active", "Not Available"),
        FREEIPMI.replace("Active", "not active"),
    ],
)
def test_watts_beside_a_deactivated_state_are_no_power(text: str) -> None:
    """Old values are shown beside that state, and nobody can tell them from new ones (openbmc#3257)."""
    with pytest.raises(PollError, match="the controller calls its power reading"):
        parse_power(text)


def test_zero_watts_are_no_power() -> None:
    """A controller that answers is on (phosphor-host-ipmid#167)."""
    with pytest.raises(PollError, match="0 W is no power"):
        parse_power(IPMITOOL.replace("214", "  0"))


def test_all_ones_are_no_power() -> None:
    """0xFFFF is how a register says that it has no value."""
    with pytest.raises(PollError, match="65535 W is no power: more than any node draws"):
        parse_power(IPMITOOL.replace("214", "65535"))


def test_an_answer_without_power_is_shown_as_it_came() -> None:
    """So that it can be reported."""
    with pytest.raises(PollError, match="no power in the answer `garbled / more`"):
        parse_power("garbled\nmore\n")


def test_the_node_is_one_meter_with_its_cadence(tmp_path: Path) -> None:
    """Not a leaf: its parts are metered finer by other sources."""
    (spec,) = source(tmp_path, Tool(IPMITOOL)).open()
    assert (spec.key, spec.role, spec.method, spec.component) == (KEY, Role.METER, Method.INTEGRAL, Component.OTHER)
    assert spec.cadence_seconds == 10.0
    assert spec.excludes == frozenset()


def test_a_board_whose_reading_excludes_gpus_says_so(tmp_path: Path) -> None:
    """Then GPUs are added to the meter, and are not taken for a part of it."""
    meter = source(tmp_path, Tool(IPMITOOL), excludes_gpus=True)
    (spec,) = meter.open()
    assert spec.excludes == {Component.GPU, Component.ACCELERATOR}
    assert any("exclude GPUs" in note for note in meter.notes())


def test_one_power_comes_once_a_cadence_with_its_age(tmp_path: Path) -> None:
    """Ticks between two polls have an age and no power."""
    time = ByHand()
    meter = source(tmp_path, Tool(IPMITOOL, IPMITOOL.replace("214", "216")), time)
    meter.open()
    seen = [watts(meter.read(time.advance(1))) for _ in range(12)]
    assert seen == [[214.0], *[[]] * 8, [216.0], [], []]
    assert meter.read(time.advance(1)) == [GaugeReading("node", Gauge.READING_AGE_SECONDS, 3.0)]


def test_the_other_program_is_taken_where_the_first_is_missing(tmp_path: Path) -> None:
    """And is the only one asked from then on."""
    time = ByHand()
    tool = Tool(CommandMissingError("ipmitool is not installed"), FREEIPMI)
    meter = source(tmp_path, tool, time)
    meter.open()
    time.advance(10)
    assert tool.calls == [COMMANDS[0], COMMANDS[1], COMMANDS[1]]


def test_without_either_program_the_remedy_names_both(tmp_path: Path) -> None:
    """And nothing is offered."""
    with pytest.raises(SourceUnavailableError, match="Install ipmitool, or FreeIPMI") as caught:
        source(tmp_path, Tool(CommandMissingError("x"))).open()
    assert caught.value.reason == "ipmi: neither ipmitool nor ipmi-dcmi is installed."


def test_without_a_driver_the_modules_are_named(tmp_path: Path) -> None:
    """The usual reason on a server that does have a controller."""
    with pytest.raises(SourceUnavailableError, match="modprobe -a ipmi_si ipmi_devintf"):
        IpmiSource(tmp_path, run=Tool(IPMITOOL)).open()


def test_a_device_that_may_not_be_opened_says_how_to_allow_it(tmp_path: Path) -> None:
    """With what that gives away; no command is run in vain."""
    tool = Tool(IPMITOOL)
    with pytest.raises(SourceUnavailableError, match=r"71-wattledger-ipmi\.rules.*can also configure the controller"):
        source(tmp_path, tool, allowed=False).open()
    assert not tool.calls


def test_a_controller_without_dcmi_is_not_offered(tmp_path: Path) -> None:
    """A meter that can never have a value would be a gap for ever."""
    time = ByHand()
    answer = Answer(1, "", "DCMI request failed because: Invalid command (c1)\n")
    with pytest.raises(SourceUnavailableError, match="has no DCMI power reading"):
        source(tmp_path, Tool(answer), time).open()
    assert time.running == 0


def test_a_controller_that_is_deactivated_is_not_offered_until_it_measures(tmp_path: Path) -> None:
    """A model may stand in meanwhile; opened again, as the agent does every few minutes, it is a meter."""
    time = ByHand()
    meter = source(tmp_path, Tool(IPMITOOL.replace("activated", "deactivated"), IPMITOOL), time)
    with pytest.raises(SourceUnavailableError, match=r"`deactivated`.*Switch power monitoring on"):
        meter.open()
    assert time.running == 0
    meter.open()
    assert watts(meter.read(time.advance(1))) == [214.0]


def test_a_controller_that_is_deactivated_later_is_a_failed_read(tmp_path: Path) -> None:
    """The last power is not repeated."""
    time = ByHand()
    meter = source(tmp_path, Tool(IPMITOOL, IPMITOOL.replace("activated", "deactivated"), IPMITOOL), time)
    meter.open()
    meter.read(time.now_nanoseconds)
    assert "deactivated" in reason(meter.read(time.advance(10)))
    assert watts(meter.read(time.advance(10))) == [214.0]


def test_a_controller_that_resets_is_a_failed_read(tmp_path: Path) -> None:
    """Its last value is not repeated, and what was said is shown."""
    time = ByHand()
    broken = Answer(1, "", "Unable to establish IPMI v2 session\n")
    meter = source(tmp_path, Tool(IPMITOOL, broken), time)
    meter.open()
    meter.read(time.now_nanoseconds)
    readings = meter.read(time.advance(11))
    assert watts(readings) == []
    assert "ended with status 1: `Unable to establish IPMI v2 session`" in reason(readings)


def test_an_answer_after_55_seconds_is_still_an_answer(tmp_path: Path) -> None:
    """Controllers take 25 to 55 s under load (idrac_exporter#79); others give up after 4 or 10 s and never see power."""
    time = ByHand()

    def late() -> str:
        time.now_nanoseconds += 55 * SECOND
        return IPMITOOL

    assert COMMAND_SECONDS_MAX > 55
    meter = source(tmp_path, Tool(late), time)
    meter.open()
    assert watts(meter.read(time.now_nanoseconds)) == [214.0]


def test_a_hanging_controller_delays_no_sample_and_has_one_session(tmp_path: Path) -> None:
    """In a real thread: opening gives up its wait, reads return at once, and no second command is begun."""
    leave = threading.Event()

    def hang() -> str:
        assert leave.wait(LONG_SECONDS)
        return IPMITOOL

    tool = Tool(hang)
    (tmp_path / "ipmi0").touch()
    meter = IpmiSource(tmp_path, run=tool, cadence_seconds=0.01, access=lambda path: True, first_seconds_max=0.01)
    assert len(meter.open()) == 1
    for tick in range(50):
        assert meter.read(tick * SECOND) == []
    assert len(tool.calls) == 1
    leave.set()
    meter.close()
    assert tool.at_once_max == 1


def test_the_dead_controller_of_the_fixture_times_out_and_comes_back() -> None:
    """Time-outs and refusals are reasons; its one late answer is a power; then the pauses grow."""
    time = ByHand()
    meter, run = recorded("dead_bmc", time)
    for words in ("has not ended within 90 s and was killed", "was killed", "Device or resource busy"):
        with pytest.raises(SourceUnavailableError, match=words):
            meter.open()
    assert len(meter.open()) == 1
    assert watts(meter.read(time.advance(1))) == [398.0]
    assert "was killed" in reason(meter.read(time.advance(10)))
    time.advance(3600)
    assert len(run.calls) < 20


def test_the_node_of_the_fixture_is_read() -> None:
    """A meter that is read at its cadence, with the words that a real controller uses."""
    time = ByHand()
    meter, _ = recorded("ipmi_node_gpus_excluded", time)
    meter.open()
    powers = [watts(meter.read(time.now_nanoseconds))]
    powers += [watts(meter.read(time.advance(10))) for _ in range(2)]
    assert powers == [[412.0], [418.0], [409.0]]


def test_a_stuck_tool_is_a_reason(tmp_path: Path) -> None:
    """What the runner says of a process in the kernel reaches the operator."""
    stuck = CommandTimeoutError("ipmitool (process 7) was killed but still hangs in the kernel")
    time = ByHand()
    meter = source(tmp_path, Tool(IPMITOOL, stuck), time)
    meter.open()
    meter.read(time.now_nanoseconds)
    assert reason(meter.read(time.advance(10))).startswith("ipmi: ipmitool (process 7) was killed but still hangs")
