"""One session with a controller over a real socket: login, expiry, exhaustion, slowness, TLS, and the end."""

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.agent.machines import FIXTURES
from tests.agent.redfish_server import LONG_SECONDS, Controller, serving
from tests.certificates import Authority

from wattledger_agent.slow import LOCKOUT_SECONDS
from wattledger_agent.sources.redfish_session import FolderFetch, RedfishError, RedfishSession, tls_context

FOLDER = FIXTURES / "redfish_server/redfish"
SYSTEMS = "/redfish/v1/Systems"


@pytest.fixture
def controller() -> Iterator[Controller]:
    """A controller that is well."""
    with serving(Controller(FOLDER)) as running:
        yield running


def session(controller: Controller, *, user: str = "reader", password: str = "secret") -> RedfishSession:
    """A session in its first poll."""
    made = RedfishSession(controller.url, user, lambda: password)
    controller.clients.append(made)
    made.begin(LONG_SECONDS)
    return made


def wait(event: threading.Event) -> None:
    """Until the test lets it go on."""
    assert event.wait(LONG_SECONDS)


def test_many_requests_are_one_session_and_the_end_leaves_none(controller: Controller) -> None:
    """Controllers have four to eight sessions in all, for people too (bmc_exporter#28, #35, #60)."""
    asked = session(controller)
    for _ in range(20):
        assert asked.get(SYSTEMS)["Members@odata.count"] == 1
    assert (controller.logins, len(controller.open_sessions)) == (1, 1)
    asked.close()
    assert controller.open_sessions == {}
    assert controller.passwords_seen == 0


def test_the_service_root_needs_no_login(controller: Controller) -> None:
    """So whether there is a service at all can be asked without credentials."""
    assert session(controller).get("/redfish/v1/")["Id"] == "RootService"
    assert controller.logins == 0


def test_a_session_that_the_controller_forgot_is_replaced(controller: Controller) -> None:
    """After its idle time, or a restart; the read does not even fail."""
    asked = session(controller)
    asked.get(SYSTEMS)
    controller.open_sessions.clear()
    assert asked.get(SYSTEMS)["Members@odata.count"] == 1
    assert (controller.logins, controller.sessions_most) == (2, 1)


def test_a_session_that_is_denied_but_open_is_ended_before_another_is_begun(controller: Controller) -> None:
    """Else each such answer would leave one behind, until none is left."""
    asked = session(controller)
    asked.get(SYSTEMS)
    for _ in range(3):
        controller.denials = 1
        asked.get(SYSTEMS)
    assert (controller.logins, controller.sessions_most, len(controller.open_sessions)) == (4, 1, 1)


def test_without_a_session_left_the_password_is_sent_and_login_is_tried_later(controller: Controller) -> None:
    """The meter goes on, and does not knock at each request."""
    controller.sessions_max = 0
    asked = session(controller)
    for _ in range(5):
        assert asked.get(SYSTEMS)["Members@odata.count"] == 1
    assert (controller.logins, controller.passwords_seen) == (1, 5)


def test_after_a_while_a_session_is_tried_again(controller: Controller) -> None:
    """When people have logged out."""
    controller.sessions_max = 0
    now = [0.0]
    asked = RedfishSession(controller.url, "reader", lambda: "secret", monotonic=lambda: now[0])
    controller.clients.append(asked)
    asked.begin(LONG_SECONDS)
    asked.get(SYSTEMS)
    controller.sessions_max = 4
    now[0] = 601.0
    asked.begin(LONG_SECONDS)
    asked.get(SYSTEMS)
    assert (controller.logins, len(controller.open_sessions), controller.passwords_seen) == (2, 1, 1)


def test_a_controller_without_sessions_is_asked_with_the_password(controller: Controller) -> None:
    """Old and small ones have no session service."""
    controller.has_sessions = False
    asked = session(controller)
    asked.get(SYSTEMS)
    asked.get(SYSTEMS)
    assert [method for method, _ in controller.requests] == ["POST", "GET", "GET"]


def test_a_wrong_password_is_final_and_asks_for_a_long_pause(controller: Controller) -> None:
    """A few wrong ones in a row lock the account, for people too."""
    with pytest.raises(RedfishError, match="refuses user `reader`") as caught:
        session(controller, password="wrong").get(SYSTEMS)
    assert caught.value.pause_seconds == LOCKOUT_SECONDS
    assert "wrong" not in str(caught.value).replace("password", "")
    assert controller.logins == 1


def test_a_connection_that_the_controller_closed_is_no_failure(controller: Controller) -> None:
    """It closes idle ones when it likes."""
    asked = session(controller)
    asked.get(SYSTEMS)
    controller.hang_up = True
    before = len(controller.requests)

    def heal(path: str) -> None:
        # The first request on the kept connection is dropped, the second one is answered.
        controller.hang_up = len(controller.requests) == before + 1

    controller.before = heal
    assert asked.get(SYSTEMS)["Members@odata.count"] == 1
    assert controller.logins == 1


def test_a_controller_that_only_hangs_up_is_a_failure(controller: Controller) -> None:
    """And is not asked in a circle."""
    controller.hang_up = True
    with pytest.raises(RedfishError, match="hung up at"):
        session(controller).get(SYSTEMS)
    assert len(controller.requests) == 1


def test_a_login_is_never_sent_twice(controller: Controller) -> None:
    """Its answer may be lost after the controller made a session of it."""
    asked = session(controller)
    asked.get("/redfish/v1/")
    controller.hang_up = True
    with pytest.raises(RedfishError):
        asked.get(SYSTEMS)
    assert [method for method, _ in controller.requests] == ["GET", "POST"]


def test_connections_that_are_closed_after_each_answer_do(controller: Controller) -> None:
    """Some controllers keep none open."""
    controller.close_each = True
    asked = session(controller)
    assert [asked.get(SYSTEMS)["Members@odata.count"] for _ in range(3)] == [1, 1, 1]
    assert controller.logins == 1


def test_an_answer_that_does_not_come_ends_at_the_polls_deadline(controller: Controller) -> None:
    """The connection is given up, and the next poll has a new one with the old session."""
    asked = session(controller)
    asked.get(SYSTEMS)
    leave = threading.Event()
    controller.before = lambda path: wait(leave)
    asked.begin(0.2)
    with pytest.raises(RedfishError, match="has not answered in time to /redfish/v1/Systems"):
        asked.get(SYSTEMS)
    leave.set()
    asked.begin(LONG_SECONDS)
    assert asked.get(SYSTEMS)["Members@odata.count"] == 1
    assert (controller.logins, controller.sessions_most) == (1, 1)


def test_an_answer_that_drips_ends_at_the_polls_deadline_too(controller: Controller) -> None:
    """Each byte in time is not the answer in time."""
    ticks = count(0.0, 10.0)
    asked = RedfishSession(controller.url, "", lambda: "", monotonic=lambda: next(ticks))
    controller.clients.append(asked)
    controller.overrides["/redfish/v1"] = {"Members": ["x" * 100] * 10_000}
    asked.begin(35.0)
    with pytest.raises(RedfishError, match="has not answered in time"):
        asked.get("/redfish/v1/")


def test_a_refused_connection_says_so(controller: Controller) -> None:
    """Nothing listens at the address of a controller that is off."""
    with serving(Controller(FOLDER)) as gone:
        asked = session(gone)
    with pytest.raises(RedfishError, match=r"can't be reached: Connection refused"):
        asked.get(SYSTEMS)


def test_what_is_no_json_or_no_object_is_refused(controller: Controller) -> None:
    """An answer is checked at the border."""
    controller.overrides[SYSTEMS] = ["a", "list"]
    with pytest.raises(RedfishError, match="is no JSON object"):
        session(controller).get(SYSTEMS)


def test_an_answer_without_end_is_refused(controller: Controller) -> None:
    """A body is bounded."""
    controller.overrides[SYSTEMS] = {"x": "x" * 3_000_000}
    with pytest.raises(RedfishError, match="longer than 2097152 bytes"):
        session(controller).get(SYSTEMS)


def test_a_link_to_another_place_is_not_followed(controller: Controller) -> None:
    """The token is for this controller alone."""
    with pytest.raises(RedfishError, match="which is no path on it"):
        session(controller).get("https://elsewhere.example/redfish/v1")
    assert controller.requests == []


def test_tls_is_verified(tmp_path: Path) -> None:
    """A controller with a certificate of its own making is refused, with the setting that trusts its authority."""
    authority = Authority()
    certificate = authority.sign(ips=("127.0.0.1",)).write(tmp_path, "bmc")
    with serving(Controller(FOLDER), certificate) as controller:
        with pytest.raises(RedfishError, match=r"is not trusted .*sources\.redfish\.ca_file"):
            session(controller).get(SYSTEMS)
        for context in (tls_context(str(authority.write(tmp_path))), tls_context(insecure=True)):
            asked = RedfishSession(controller.url, "reader", lambda: "secret", context=context)
            asked.begin(LONG_SECONDS)
            assert asked.get(SYSTEMS)["Members@odata.count"] == 1
            asked.close()
        assert controller.open_sessions == {}


def test_a_recording_is_asked_like_a_controller() -> None:
    """A file for each resource; what is not there was not there."""
    recorded = FolderFetch(FOLDER)
    assert recorded.get("/redfish/v1/")["Id"] == "RootService"
    with pytest.raises(RedfishError) as caught:
        recorded.get("/redfish/v1/Nothing")
    assert caught.value.status == 404
