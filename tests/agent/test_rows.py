"""The rows that wait for a record: bounded, of one boot, and never a value in another row's place."""

from msgspec import structs
from tests.agent.metering import BOOT, OTHER_BOOT, SECOND, at, spec

from wattledger_agent.channels import Channel, rule_of
from wattledger_agent.counters import GapDetail, GapReason, open_state
from wattledger_agent.rows import GAP_DETAILS_MAX, PENDING_VALUES_MAX, Rows

SPEC = spec("cpu/0")


def channels(count: int) -> list[Channel]:
    """Open channels without a value."""
    return [Channel(n + 1, SPEC, at(0), open_state(at(0)), rule_of(SPEC, 10.0), is_fresh=False) for n in range(count)]


def take(rows: Rows, channel: Channel, bit: int, microjoules: int) -> None:
    """Let a channel have a value in the row of this bit."""
    channel.take(structs.replace(channel.state, energy_microjoules=microjoules), rows.serial, bit, has_gap=False)


def test_each_row_has_a_bit_and_a_serial_of_its_own() -> None:
    """A row that is dropped gives its bit to the next one, but its serial to none."""
    rows = Rows(b"", -1)
    assert [rows.begin(at(second), [], 1) for second in (1, 2, 3)] == [1, 2, 4]
    rows.drop_last()
    assert rows.begin(at(4), [], 1) == 4
    assert (rows.times, rows.serial) == ([SECOND, 2 * SECOND, 4 * SECOND], 4)


def test_a_row_is_past_up_to_the_last_one_of_its_boot() -> None:
    """Also where that is known from the state alone."""
    rows = Rows(BOOT, 5 * SECOND)
    assert rows.is_past(at(5))
    assert not rows.is_past(at(5.1))
    assert not rows.is_past(at(1, boot=OTHER_BOOT))


def test_rows_of_another_boot_are_let_go_with_their_values() -> None:
    """A payload is of one boot; the sums go on in the channels' states."""
    rows, (one, other) = Rows(b"", -1), channels(2)
    for second in (1, 2):
        take(rows, one, rows.begin(at(second), [one, other], 2), second)
    assert rows.begin(at(1, boot=OTHER_BOOT), [one, other], 2) == 1
    assert (one.values, one.mask, one.state.energy_microjoules) == ([], 0, 2)
    assert (rows.times, rows.thinned) == ([SECOND], 2)


def test_what_waits_too_long_is_thinned_to_the_last_value_of_each_channel() -> None:
    """One was last read in the first row, one in the last: two rows are left."""
    rows, (one, other) = Rows(b"", -1), channels(2)
    take(rows, one, rows.begin(at(1), [one, other], 2), 7)
    count = PENDING_VALUES_MAX // 2
    for second in range(2, count + 1):
        take(rows, other, rows.begin(at(second), [one, other], 2), second)
    assert rows.thinned == 0
    assert rows.begin(at(count + 1), [one, other], 2) == 4
    assert (one.values, one.mask, other.values, other.mask) == ([7], 1, [count], 2)
    assert rows.times == [SECOND, count * SECOND, (count + 1) * SECOND]
    assert rows.thinned == count - 2


def test_the_host_is_settled_since_its_start_or_its_last_suspend() -> None:
    """What was asked for before that tells nothing of the time since."""
    rows = Rows(b"", -1)
    for now in (at(1), at(2)):
        rows.begin(now, [], 1)
    assert rows.settled_nanoseconds == SECOND
    rows.begin(at(100, suspended=90.0), [], 1)
    assert rows.settled_nanoseconds == 100 * SECOND
    rows.begin(at(3, boot=OTHER_BOOT), [], 1)
    assert rows.settled_nanoseconds == 3 * SECOND


def test_details_of_gaps_have_room_for_so_many() -> None:
    """The sums of bounds are in the channels; only reasons and times are lost."""
    rows = Rows(b"", -1)
    gap = GapDetail(GapReason.RESET, BOOT, 0, 1, 0, 1, False)
    for number in range(1, GAP_DETAILS_MAX):
        rows.note(number, [gap])
    rows.note(7, [gap, gap])
    assert len(rows.details) == GAP_DETAILS_MAX
    assert rows.details[-1] == (7, gap)
    rows.forget([])
    assert (rows.details, rows.times) == ([], [])
