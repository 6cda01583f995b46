"""A meter that has answered and is silent since: what it does not tell stands in gaps while it lasts, not at its return."""

from collections.abc import Sequence
from dataclasses import replace

from tests.agent.metering import OTHER_BOOT, SECOND, Book, at, counter, spec
from tests.agent.scripted import ScriptedSource
from tests.agent.test_readers import Agent, Found, opened

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, PowerReading, Reading, Role, TryAgain
from wattledger_protos.v1 import telemetry_pb2 as pb

CPU = spec()
NODE = ChannelSpec(
    key=ChannelKey("node", "input", "redfish"),
    component=Component.OTHER,
    method=Method.INTEGRAL,
    role=Role.METER,
    power_bound_watts=1000.0,
    cadence_seconds=10.0,
)
COUNTED = replace(NODE, method=Method.COUNTER, cadence_seconds=0.0)
WATT_SECOND = 1_000_000


def rapl() -> ScriptedSource:
    """A CPU of 50 W."""
    return ScriptedSource("rapl", lambda now: [counter(CPU, 50 * now // 1000)], [CPU])


def redfish(*silent: tuple[int, int]) -> ScriptedSource:
    """A node of 200 W, which is told each ten seconds but in these spans (seconds, half-open)."""

    def read(now: int) -> Sequence[Reading]:
        second = now // SECOND
        if any(start <= second < end for start, end in silent):
            return [TryAgain(NODE.key, "redfish: the controller has not answered in time")]
        return [PowerReading(NODE.key, 200 * WATT_SECOND)] if second % 10 == 0 else []

    return ScriptedSource("redfish", read, [NODE])


def total(book: Book, device: str, domain: str) -> tuple[int, int, int]:
    """A channel's energy and the sums of its gaps."""
    account = book.account(device, domain)
    return account.energy, account.gap_lower, account.gap_upper


def test_a_silent_node_meter_leaves_a_gap_while_it_is_silent() -> None:
    """Nothing would be said of what it does not tell, until the reboot: neither in its channel nor in the residual."""
    agent = Agent(rapl(), redfish((1, 10_000)))
    agent.tick(300)
    assert total(agent.book(), "node", "input") == (0, 0, 0)
    agent.tick(330)
    book = agent.book()
    energy, lower, upper = total(book, "node", "input")
    seconds = upper // (1000 * WATT_SECOND)
    assert (energy, lower) == (0, 0)
    assert 300 < seconds < 630
    # Of what the meter may have seen, the CPU's part is booked at its leaf.
    used = 50 * seconds * WATT_SECOND
    assert total(book, "node", "residual") == (0, -used, upper - used)
    reasons = {detail.reason for account in book.accounts.values() for detail in account.details}
    assert reasons == {pb.GAP_REASON_NOT_MEASURED}
    assert book.account("cpu/0").energy == 629 * 50 * WATT_SECOND


def test_gaps_of_a_silence_are_seamless_and_end_with_it() -> None:
    """The first power after it is where the integral goes on from, and no second stands in two gaps."""
    agent = Agent(rapl(), redfish((101, 1000)))
    agent.tick(1101)
    book = agent.book()
    assert total(book, "node", "input") == (200 * 200 * WATT_SECOND, 0, 900 * 1000 * WATT_SECOND)
    spans = [(gap.from_boottime_nanoseconds, gap.to_boottime_nanoseconds) for gap in book.account("node", "input").details]
    assert (spans[0][0], spans[-1][1]) == (100 * SECOND, 1000 * SECOND)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    # 150 W beside the CPU, where both were read; in the silence what the node may have used, less what the CPU has.
    used = 50 * 900 * WATT_SECOND
    assert total(book, "node", "residual") == (200 * 150 * WATT_SECOND, -used, 900 * 1000 * WATT_SECOND - used)


def test_a_power_soon_after_a_gap_was_told_is_not_joined_with_that_before_the_silence() -> None:
    """The gap's end is no reading: a value that is minutes old says nothing of the seconds since."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer([NODE, CPU], at(0))
    meter.expect({"redfish"})
    meter.observe([PowerReading(NODE.key, 200 * WATT_SECOND), counter(CPU, 0)], at(0))
    meter.observe([counter(CPU, 1)], at(400))
    meter.observe([PowerReading(NODE.key, 200 * WATT_SECOND), counter(CPU, 2)], at(405))
    book = Book()
    book.add(meter.cut(at(405)))
    assert total(book, "node", "input") == (0, 0, 405 * 1000 * WATT_SECOND)


def silent_since(moment: Instant, node: ChannelSpec = NODE) -> bytes:
    """The state of an agent that has read everything at a moment, and stops."""
    meter = Meter(state=None, integral_gap_seconds_max=10.0)
    meter.offer([node, CPU], moment)
    value = PowerReading(node.key, 200 * WATT_SECOND) if node.method is Method.INTEGRAL else counter(node, 0)
    meter.observe([value, counter(CPU, 0)], moment)
    cut = meter.cut(moment)
    assert cut is not None
    return cut.state


def restarted(state: bytes, expected: set[str], *moments: Instant, offered: Sequence[ChannelSpec] = (CPU,)) -> Book:
    """What an agent books from there on that opens the CPU's source alone."""
    meter = Meter(state=state, integral_gap_seconds_max=10.0)
    meter.offer(offered, moments[0])
    meter.expect(expected)
    for number, moment in enumerate(moments, 1):
        meter.observe([counter(CPU, number)], moment)
    book = Book()
    book.add(meter.cut(moments[-1]))
    return book


def test_a_controller_that_does_not_open_after_a_restart_is_as_silent() -> None:
    """Its source is looked for; the account says meanwhile what it may miss."""
    book = restarted(silent_since(at(0)), {"rapl", "redfish"}, at(350), at(700))
    assert total(book, "node", "input") == (0, 0, 700 * 1000 * WATT_SECOND)
    assert book.account("node", "residual").gap_upper == 700 * 1000 * WATT_SECOND - 2


def test_what_is_switched_off_is_not_silent() -> None:
    """Who takes the controller out of the configuration does not want to hear of it until the reboot."""
    book = restarted(silent_since(at(0)), {"rapl"}, at(350), at(700))
    assert [gap for payload in book.payloads for gap in payload.gap_details] == []
    assert total(book, "node", "input") == (0, 0, 0)


def test_a_counter_that_is_silent_misses_nothing_yet() -> None:
    """It tells all when it is back."""
    book = restarted(silent_since(at(0), COUNTED), {"rapl", "redfish"}, at(350), at(700), offered=[CPU, COUNTED])
    assert total(book, "node", "input") == (0, 0, 0)


def test_what_was_told_in_an_earlier_boot_takes_no_place_in_this_one() -> None:
    """A gap up to now would be a reading of this boot, and keep the node from a model that stands in."""
    book = restarted(silent_since(at(0)), {"rapl", "redfish"}, at(350, boot=OTHER_BOOT), at(700, boot=OTHER_BOOT))
    assert total(book, "node", "input") == (0, 0, 0)


def test_a_meter_whose_source_was_closed_leaves_gaps_too() -> None:
    """A driver that fails for a minute is closed and looked for; its silence is no less one."""

    def read(now: int) -> Sequence[Reading]:
        if now:
            raise OSError(5, "Input/output error")
        return [PowerReading(NODE.key, 200 * WATT_SECOND)]

    late = Found()
    agent = Agent(rapl(), ScriptedSource("redfish", read, [NODE]), late=late)
    agent.tick(700)
    assert late.names == {"redfish"}
    before = agent.book()
    upper = total(before, "node", "input")[2]
    assert upper > 300 * 1000 * WATT_SECOND
    assert total(before, "node", "residual")[2] == upper - 50 * (upper // 1000)
    late.next = [opened(redfish())]
    agent.tick(101)
    # Seamless again, and from there on the residual is reckoned as ever.
    book = agent.book()
    assert total(book, "node", "input") == (100 * 200 * WATT_SECOND, 0, 700 * 1000 * WATT_SECOND)
    assert book.account("node", "residual").energy == 100 * 150 * WATT_SECOND
