"""A Hello registers hosts, epochs, boots and clocks, or is refused."""

import msgspec
import pytest
from tests.collector.batches import (
    BOOT,
    EPOCH,
    NEXT_BOOT,
    OTHER_EPOCH,
    SECOND,
    UTC,
    WATT,
    hello,
    info,
    opened,
)

from wattledger_collector.hello import Refused, open_stream
from wattledger_collector.records import (
    BOOTS_MAX,
    Boot,
    ChannelPoint,
    Cursor,
    GapReason,
    GapRow,
    Host,
    HostState,
    Role,
)
from wattledger_collector.wire import check_hello
from wattledger_protos.v1 import telemetry_pb2 as pb


def refused(message: pb.Hello, host: Host, cursor: Cursor | None = None) -> Refused:
    """The answer to a Hello that is not served."""
    result = open_stream(check_hello(message), host, cursor, (), now_utc_nanoseconds=UTC, collector="c1")
    assert isinstance(result, Refused)
    return result


def point(boottime: int, boot: bytes = BOOT) -> ChannelPoint:
    """A cursor's point at this boottime; seconds."""
    return ChannelPoint(boot, boottime * SECOND, UTC + boottime * SECOND, 5, 0, 0, 0, 5, 5)


def peer(*points: ChannelPoint, recorded: bool = False) -> Cursor:
    """The cursor of another epoch."""
    return Cursor("a", OTHER_EPOCH, 3, UTC, recorded, "c1", dict(enumerate(points, 1)))


def known_host(**changes: object) -> Host:
    """A host whose other epoch ran in BOOT."""
    return msgspec.structs.replace(opened(hello(epoch=OTHER_EPOCH)).host_after, **changes)


def test_new_host() -> None:
    """The first Hello of a host makes its row and the epoch's cursor."""
    booking = opened()

    host, cursor = booking.host_after, booking.cursor_after
    assert (booking.host_before, booking.cursor_before) == (None, None)
    assert (host.host, host.version, host.state, host.epochs) == ("a", 1, HostState.ACTIVE, (EPOCH,))
    assert (host.machine_id, host.labels) == ("machine", {"hostname": "alpha"})
    assert host.boots == (Boot(BOOT, UTC, True),)
    assert (cursor.committed_sequence, cursor.created_utc_nanoseconds, cursor.points) == (0, UTC + SECOND, {})
    assert booking.gaps == ()


def test_known_epoch_goes_on() -> None:
    """A reconnect keeps the cursor, names this collector, and makes the epoch the newest."""
    first = opened()
    host = msgspec.structs.replace(first.host_after, epochs=(EPOCH, OTHER_EPOCH))
    cursor = msgspec.structs.replace(first.cursor_after, committed_sequence=8, collector="c0")

    booking = opened(hello(next_sequence=20), host, cursor)

    assert booking.cursor_before is cursor
    assert (booking.cursor_after.committed_sequence, booking.cursor_after.collector) == (8, "c1")
    assert booking.host_after.epochs == (OTHER_EPOCH, EPOCH)
    assert booking.host_after.version == 2


def test_retired_host_is_refused() -> None:
    """An operator's word stands, and the agent is told."""
    answer = refused(hello(), known_host(state=HostState.RETIRED))

    assert answer.reason == pb.REFUSAL_REASON_RETIRED
    assert "retired" in answer.message
    assert answer.booking is None


def test_second_machine_is_refused() -> None:
    """A boot that a later Hello left behind is another machine; the conflict is kept, and once."""
    host = known_host(boots=(Boot(BOOT, UTC, True), Boot(NEXT_BOOT, UTC, True)))

    answer = refused(hello(boot=BOOT), host)

    assert answer.reason == pb.REFUSAL_REASON_SECOND_MACHINE
    assert "two machines use host id a" in answer.message
    assert answer.booking is not None
    marked = answer.booking.host_after
    assert (marked.conflict, marked.boots, marked.epochs) == (answer.message, host.boots, host.epochs)
    assert refused(hello(boot=BOOT), marked).booking is None
    # The newcomer goes on, and the conflict stays for people to see.
    assert opened(hello(boot=NEXT_BOOT), marked).host_after.conflict == answer.message


def test_recording_is_no_second_machine() -> None:
    """A recording may name any boot."""
    host = known_host(boots=(Boot(BOOT, UTC, True), Boot(NEXT_BOOT, UTC, True)))

    assert opened(hello(boot=BOOT, recorded=True), host).host_after.boots == host.boots


def test_boots_are_bounded() -> None:
    """Only the newest boots are kept."""
    boots = tuple(Boot(bytes([number]) * 16, 0, True) for number in range(BOOTS_MAX))

    host = opened(hello(boot=NEXT_BOOT), known_host(boots=boots)).host_after

    assert len(host.boots) == BOOTS_MAX
    assert host.boots[-1].boot_id == NEXT_BOOT
    assert host.boots[0] == boots[1]


def test_trust_is_not_lost_to_an_unsynchronised_hello() -> None:
    """A boot whose clock was synchronised once keeps that offset."""
    host = known_host()

    kept = opened(hello(synchronised=False, offset=9), host).host_after
    renewed = opened(hello(offset=UTC + 9), host).host_after

    assert kept.boots == (Boot(BOOT, UTC, True),)
    assert renewed.boots == (Boot(BOOT, UTC + 9, True),)


# The gap before a new epoch

PEER_CHANNELS = {OTHER_EPOCH: {1: info(1, bound_watts=100), 2: info(2, Role.METER), 3: info(3, bound_watts=50)}}


def test_new_epoch_in_the_same_boot() -> None:
    """From the latest point of any epoch to the opening, up to the bounds of all booked channels."""
    message = hello(opening=30 * SECOND, now=31 * SECOND)

    booking = opened(message, known_host(), None, [peer(point(10), point(20))], peer_channels=PEER_CHANNELS)

    assert booking.gaps == (GapRow(0, UTC + 20 * SECOND, UTC + 30 * SECOND, GapReason.EPOCH, 0, 10 * 150 * WATT),)
    assert booking.host_after.epochs == (OTHER_EPOCH, EPOCH)


@pytest.mark.parametrize(
    ("synchronised", "trusted", "upper"),
    [(True, True, 100 * 150 * WATT), (False, True, None), (True, False, None)],
)
def test_new_epoch_over_boots(synchronised: bool, trusted: bool, upper: int | None) -> None:
    """Over boots the bound needs both clocks synchronised; else it is unknown, never a number."""
    host = known_host(boots=(Boot(BOOT, UTC, trusted),))
    message = hello(boot=NEXT_BOOT, opening=0, now=0, offset=UTC + 120 * SECOND, synchronised=synchronised)

    booking = opened(message, host, None, [peer(point(20))], peer_channels=PEER_CHANNELS, now_utc=UTC + 120 * SECOND)

    assert booking.gaps == (GapRow(0, UTC + 20 * SECOND, UTC + 120 * SECOND, GapReason.EPOCH, 0, upper),)


def test_new_epoch_without_known_bounds() -> None:
    """Without the peers' catalogs the bound is unknown."""
    booking = opened(hello(opening=30 * SECOND, now=31 * SECOND), known_host(), None, [peer(point(20))])

    assert [gap.upper_microjoules for gap in booking.gaps] == [None]


@pytest.mark.parametrize(
    "peers",
    [
        pytest.param([], id="no other epoch"),
        pytest.param([peer()], id="another epoch without points"),
        pytest.param([peer(point(40))], id="another epoch that runs beside"),
        pytest.param([peer(point(20), recorded=True)], id="a recording"),
    ],
)
def test_new_epoch_without_gap(peers: list[Cursor]) -> None:
    """Nothing is missing where no epoch ended before this one began."""
    assert opened(hello(opening=30 * SECOND, now=31 * SECOND), known_host(), None, peers).gaps == ()


# After a restore


def test_first_hello_after_a_restore_sets_the_target() -> None:
    """The host's counters stay withheld until the agent has rewound to where it was."""
    first = opened()
    host = msgspec.structs.replace(first.host_after, withheld=True)

    booking = opened(hello(next_sequence=20), host, first.cursor_after)

    assert (booking.host_after.withheld, booking.host_after.withheld_until) == (False, {EPOCH: 19})
    # A reconnect keeps the target, though the agent has more by now.
    again = opened(hello(next_sequence=30), booking.host_after, booking.cursor_after)
    assert again.host_after.withheld_until == {EPOCH: 19}


def test_an_agent_that_had_more_acknowledged_tells_of_a_restore() -> None:
    """Also where nobody marked the copy, or the copy is so old that it lacks the host: counters wait for the rewind."""
    fresh = opened(hello(acknowledged=12, next_sequence=20))
    assert fresh.host_after.withheld_until == {EPOCH: 19}
    host, cursor = fresh.host_after, fresh.cursor_after
    known = msgspec.structs.replace(host, withheld_until={})
    assert opened(hello(acknowledged=1, next_sequence=20), known, cursor).host_after.withheld_until == {EPOCH: 19}
    assert opened(hello(acknowledged=0, next_sequence=20), known, cursor).host_after.withheld_until == {}


def test_restore_that_lost_nothing_withholds_nothing() -> None:
    """An agent without anything beyond the restored cursor is shown at once."""
    first = opened()
    host = msgspec.structs.replace(first.host_after, withheld=True)
    cursor = msgspec.structs.replace(first.cursor_after, committed_sequence=19)

    booking = opened(hello(next_sequence=20), host, cursor)

    assert (booking.host_after.withheld, booking.host_after.withheld_until) == (False, {})


def test_new_epoch_ends_the_waiting_for_an_old_one() -> None:
    """If the spool is lost as well, what the old epoch lacked never comes."""
    host = known_host(withheld_until={OTHER_EPOCH: 50})

    assert opened(hello(), host, None, [peer(point(1))]).host_after.withheld_until == {}
