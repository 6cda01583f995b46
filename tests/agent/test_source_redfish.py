"""The node's power by Redfish: the source over a real socket and over recordings; nothing of it ever waits in a read."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.agent.by_hand import SECOND, ByHand
from tests.agent.machines import FIXTURES
from tests.agent.redfish_server import LONG_SECONDS, Controller, serving

from wattledger_agent.readings import (
    Component,
    Gauge,
    GaugeReading,
    Gone,
    Method,
    PowerReading,
    Reading,
    Role,
    SourceUnavailableError,
    TryAgain,
)
from wattledger_agent.sources.redfish import NODE, RedfishSource, read_password
from wattledger_agent.sources.redfish_session import FolderFetch, RedfishError, RedfishSession

POWER = "/redfish/v1/Chassis/Chassis.1/Power"


def of_fixture(
    name: str, time: ByHand, *, system: str = "", excludes_gpus: bool = False, first_seconds_max: float = 10.0
) -> RedfishSource:
    """The source of a fixture machine."""
    folder = FIXTURES / name / "redfish"
    return RedfishSource(
        lambda: FolderFetch(folder),
        system=system,
        pace=time.pace,
        excludes_gpus=excludes_gpus,
        first_seconds_max=first_seconds_max,
    )


def of_controller(controller: Controller, time: ByHand, *, password: str = "secret") -> RedfishSource:
    """The source of a running controller, polled by hand."""
    source = RedfishSource(lambda: RedfishSession(controller.url, "reader", lambda: password), pace=time.pace)
    controller.clients.append(source)
    return source


def watts(readings: Sequence[Reading]) -> list[float]:
    """The powers among readings."""
    return [reading.power_microwatts / 1e6 for reading in readings if isinstance(reading, PowerReading)]


def reason(readings: Sequence[Reading]) -> str:
    """Why there is no value."""
    (again,) = [reading for reading in readings if isinstance(reading, TryAgain)]
    return again.reason


def test_the_server_is_one_meter() -> None:
    """Polled at its cadence, integrated by the meter."""
    time = ByHand()
    source = of_fixture("redfish_server", time)
    (spec,) = source.open()
    assert (spec.key, spec.role, spec.method, spec.component) == (NODE, Role.METER, Method.INTEGRAL, Component.OTHER)
    assert (spec.model, spec.cadence_seconds) == ("Example R2U-2", 10.0)
    assert source.read(time.advance(4)) == [
        GaugeReading("node", Gauge.READING_AGE_SECONDS, 4.0),
        PowerReading(NODE, 344_000_000),
    ]
    assert watts(source.read(time.advance(1))) == []
    assert watts(source.read(time.advance(5))) == [344.0]


def test_a_shared_enclosure_is_shown_and_is_no_meter() -> None:
    """Under its own serial number, the same on each of its servers."""
    time = ByHand()
    source = of_fixture("shared_chassis", time, system="Node2", excludes_gpus=True)
    (spec,) = source.open()
    assert (spec.key.device, spec.role, spec.excludes) == ("chassis/EN7700042", Role.SHOWN, frozenset())
    assert watts(source.read(time.advance(1))) == [1610.75]
    assert any("feeds 4 servers" in note for note in source.notes())


def test_a_meter_that_excludes_gpus_says_so() -> None:
    """As configured."""
    source = of_fixture("redfish_server", ByHand(), excludes_gpus=True)
    (spec,) = source.open()
    assert spec.excludes == {Component.GPU, Component.ACCELERATOR}


def test_a_hundred_polls_are_one_session_which_the_end_closes() -> None:
    """Over a real socket (bmc_exporter#28, #35, #60)."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish")) as controller:
        source = of_controller(controller, time)
        source.open()
        powers = [watts(source.read(time.advance(10))) for _ in range(100)]
        assert powers == [[344.0]] * 100
        assert (controller.logins, len(controller.open_sessions)) == (1, 1)
        # After discovery each poll is one request.
        assert [path for _, path in controller.requests[-100:]] == [POWER] * 100
        source.close()
        assert controller.open_sessions == {}


def test_sessions_that_are_all_taken_stop_no_metering() -> None:
    """People's sessions may fill the controller."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish", sessions_max=0)) as controller:
        source = of_controller(controller, time)
        source.open()
        assert watts(source.read(time.advance(1))) == [344.0]
        assert controller.logins == 1


def test_a_controller_that_drops_sessions_is_read_on() -> None:
    """At each poll another session, and never two at once."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish")) as controller:
        source = of_controller(controller, time)
        source.open()
        for _ in range(3):
            controller.open_sessions.clear()
            assert watts(source.read(time.advance(10))) == [344.0]
        assert (controller.logins, controller.sessions_most) == (4, 1)


def test_a_wrong_password_is_missing_and_tried_once() -> None:
    """Somebody must mend it; trying on would lock the account."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish")) as controller:
        with pytest.raises(SourceUnavailableError, match="refuses user `reader`") as caught:
            of_controller(controller, time, password="wrong").open()
        assert caught.value.remedy.startswith("Mend `sources.redfish.user`")
        with pytest.raises(SourceUnavailableError, match="refuses user `reader`"):
            of_controller(controller, time, password="wrong").open()
        assert (controller.logins, time.running) == (1, 0)
        assert len(of_controller(controller, time).open()) == 1


def test_a_password_that_is_changed_later_is_asked_for_rarely() -> None:
    """The account is not locked by the agent."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish")) as controller:
        source = of_controller(controller, time)
        source.open()
        controller.password = "another"
        controller.open_sessions.clear()
        source.read(time.advance(10))
        assert "refuses user" in reason(source.read(time.advance(1)))
        time.advance(3600)
        assert controller.logins <= 1 + 1 + 4


def test_a_controller_that_is_off_at_the_start_is_metered_when_it_comes() -> None:
    """A model may stand in meanwhile; opened again, as the agent does every few minutes, it is a meter."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish", hang_up=True)) as controller:
        source = of_controller(controller, time)
        with pytest.raises(SourceUnavailableError, match="hung up"):
            source.open()
        assert time.running == 0
        controller.hang_up = False
        assert [spec.key for spec in source.open()] == [NODE]
        assert watts(source.read(time.advance(1))) == [344.0]


def test_a_controller_that_is_slow_at_the_start_is_metered_when_it_answers() -> None:
    """It is offered as the node's meter, with a note."""
    time = ByHand(is_late=True)
    source = of_fixture("redfish_server", time, first_seconds_max=0.0)
    assert [spec.key for spec in source.open()] == [NODE]
    assert any("has not answered yet" in note for note in source.notes())
    assert watts(source.read(time.advance(1))) == [344.0]


def test_an_enclosure_that_is_understood_late_is_not_taken_for_the_node() -> None:
    """What was offered in good faith leaves without a single joule."""
    time = ByHand(is_late=True)
    source = of_fixture("shared_chassis", time, system="Node2", first_seconds_max=0.0)
    assert [spec.key for spec in source.open()] == [NODE]
    readings = source.read(time.advance(10))
    assert watts(readings) == []
    (gone,) = [reading for reading in readings if isinstance(reading, Gone)]
    assert "chassis/EN7700042 alone, which other servers share" in gone.reason
    assert source.read(time.advance(10)) == []


def test_a_refused_connection_is_a_reason() -> None:
    """Nothing listens there (any more)."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish", close_each=True)) as controller:
        source = of_controller(controller, time)
        source.open()
        controller.clients.clear()
    assert watts(source.read(time.advance(5))) == [344.0]
    readings = source.read(time.advance(10))
    assert "can't be reached: Connection refused" in reason(readings)
    assert GaugeReading("node", Gauge.READING_AGE_SECONDS, 15.0) in readings
    source.close()


def test_a_controller_that_answers_after_a_minute_delays_nothing(tmp_path: Path) -> None:
    """In a real thread: reads return at once with nothing, one request is under way, and the late answer is a power."""
    leave, asked = threading.Event(), threading.Event()

    def hold(path: str) -> None:
        asked.set()
        assert leave.wait(LONG_SECONDS)

    with serving(Controller(FIXTURES / "redfish_server/redfish", before=hold)) as controller:
        source = RedfishSource(
            lambda: RedfishSession(controller.url, "reader", lambda: "secret"), cadence_seconds=3600, first_seconds_max=0.01
        )
        controller.clients.append(source)
        assert [spec.key for spec in source.open()] == [NODE]
        assert asked.wait(LONG_SECONDS)
        for tick in range(50):
            assert source.read(tick * SECOND) == []
        assert len(controller.requests) == 1
        leave.set()
        poller = source._poller
        assert poller is not None
        poller.wait_for_first(LONG_SECONDS)
        assert poller.peek() == {"node": 344_000_000}
        assert controller.sessions_most == 1


def test_zero_watts_are_a_reason() -> None:
    """And the next figure is a power again."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish")) as controller:
        source = of_controller(controller, time)
        source.open()
        source.read(time.advance(1))
        good = controller.resource(POWER)
        controller.overrides[POWER] = {"PowerControl": [{}, {"PowerConsumedWatts": 0}]}
        assert "0 W in /redfish/v1/Chassis/Chassis.1/Power is no power" in reason(source.read(time.advance(10)))
        controller.overrides[POWER] = good
        assert watts(source.read(time.advance(10))) == [344.0]


def test_what_an_update_moved_is_found_again() -> None:
    """The resource is gone, and the next poll looks for it anew."""
    time = ByHand()
    with serving(Controller(FIXTURES / "redfish_server/redfish")) as controller:
        source = of_controller(controller, time)
        source.open()
        source.read(time.advance(1))
        power = controller.resource(POWER)
        chassis = controller.resource("/redfish/v1/Chassis/Chassis.1")
        moved = "/redfish/v1/Chassis/Chassis.1/Moved"
        controller.overrides |= {
            POWER: None,
            moved: power,
            "/redfish/v1/Chassis/Chassis.1": {**chassis, "Power": {"@odata.id": moved}},
        }
        assert "answers HTTP 404" in reason(source.read(time.advance(10)))
        assert watts(source.read(time.advance(10))) == [344.0]


def test_passwords_come_from_files_and_credentials(tmp_path: Path) -> None:
    """The first line, without its end; what can't be read says what to do, and never shows the password."""
    (tmp_path / "bmc").write_text("s e cret\r\nmore\n")
    assert read_password(str(tmp_path / "bmc"), "") == "s e cret"
    assert read_password("bmc", str(tmp_path)) == "s e cret"
    with pytest.raises(RedfishError, match=r"can't be read \(No such file or directory\).*LoadCredential"):
        read_password("none", str(tmp_path))
