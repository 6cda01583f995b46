"""What a Redfish service says of power: which figure is the server's, which is shared, and which is none."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.agent.machines import FIXTURES

from wattledger_agent.slow import PollError
from wattledger_agent.sources.redfish_power import Found, Where, discover, read_power
from wattledger_agent.sources.redfish_session import FolderFetch, RedfishError

CHASSIS = "/redfish/v1/Chassis/1"
SYSTEM = "/redfish/v1/Systems/1"
Tree = dict[str, dict[str, Any]]


def link(path: str) -> dict[str, str]:
    """A link as Redfish writes it."""
    return {"@odata.id": path}


def tree(chassis: dict[str, Any], more: Mapping[str, dict[str, Any]] | None = None) -> Tree:
    """A service of one server in one chassis."""
    return {
        "/redfish/v1/": {"Systems": link("/redfish/v1/Systems"), "Chassis": link("/redfish/v1/Chassis")},
        "/redfish/v1/Systems": {"Members": [link(SYSTEM)]},
        "/redfish/v1/Chassis": {"Members": [link(CHASSIS)]},
        SYSTEM: {"UUID": "u"},
        CHASSIS: {"Links": {"ComputerSystems": [link(SYSTEM)]}, **chassis},
        **(more or {}),
    }


class Service:
    """Serves a tree."""

    def __init__(self, resources: Tree) -> None:
        self.resources = resources

    def get(self, path: str) -> Mapping[str, Any]:
        """One resource."""
        if path not in self.resources:
            raise RedfishError(f"redfish: no {path}", status=404)
        copy: dict[str, Any] = json.loads(json.dumps(self.resources[path]))
        return copy

    def watts(self) -> float:
        """Power of the first meter."""
        return read_power(self.get, discover(self.get).meters[0]) / 1e6


def of_fixture(name: str, *, system: str = "", uuid: str = "") -> tuple[FolderFetch, Found]:
    """What a fixture machine's controller tells."""
    fetch = FolderFetch(FIXTURES / name / "redfish")
    return fetch, discover(fetch.get, system=system, uuid=uuid)


def with_control(**control: object) -> Service:
    """A server with one power control."""
    return Service(
        tree({"Power": link(f"{CHASSIS}/Power")}, {f"{CHASSIS}/Power": {"PowerControl": [{"MemberId": "0", **control}]}})
    )


def with_environment(**watts: object) -> Service:
    """A server with environment metrics, and a power control beside them."""
    service = with_control(PowerConsumedWatts=300)
    service.resources[CHASSIS]["EnvironmentMetrics"] = link(f"{CHASSIS}/EnvironmentMetrics")
    service.resources[f"{CHASSIS}/EnvironmentMetrics"] = {"PowerWatts": watts, "EnergykWh": {"Reading": 1325675}}
    return service


def with_supplies(*supplies: dict[str, Any] | None) -> Service:
    """A server whose supplies tell their input; None: an empty bay."""
    service = Service(
        tree({"PowerSubsystem": link(f"{CHASSIS}/P")}, {f"{CHASSIS}/P": {"PowerSupplies": link(f"{CHASSIS}/S")}})
    )
    paths = [f"{CHASSIS}/S/{number}" for number in range(len(supplies))]
    service.resources[f"{CHASSIS}/S"] = {"Members": [link(path) for path in paths]}
    for path, metrics in zip(paths, supplies, strict=True):
        state = "Absent" if metrics is None else "Enabled"
        service.resources[path] = {"Status": {"State": state}, "Metrics": link(f"{path}/Metrics")}
        if metrics is not None:
            service.resources[f"{path}/Metrics"] = metrics
    return service


def test_the_systems_power_control_is_taken_and_not_that_of_a_part() -> None:
    """CPU and memory stand beside it, the CPU first: neither they nor a sum of all is the server's power."""
    fetch, found = of_fixture("redfish_server")
    (meter,) = found.meters
    assert (meter.device, meter.where, meter.index, meter.is_shared) == ("node", Where.CONTROL, 1, False)
    assert meter.model == "Example R2U-2"
    assert read_power(fetch.get, meter) == 344_000_000
    assert found.notes == []


def test_environment_metrics_come_before_power() -> None:
    """The newer schema, with a sensor's resolution."""
    service = with_environment(Reading=301.5)
    assert discover(service.get).meters[0].where is Where.ENVIRONMENT
    assert service.watts() == 301.5


def test_the_power_supplies_are_summed_where_nothing_else_tells() -> None:
    """Their input, so that their losses are in it; an empty bay is none, and one in reserve draws nothing."""
    service = with_supplies({"InputPowerWatts": {"Reading": 180.5}}, None, {"InputPowerWatts": {"Reading": 0}})
    assert service.watts() == 180.5


def test_a_supply_that_tells_nothing_spoils_the_sum() -> None:
    """A part of the power is not the power."""
    service = with_supplies({"InputPowerWatts": {"Reading": 180.5}}, {"InputPowerWatts": {"Reading": None}})
    with pytest.raises(PollError, match="tells no power now"):
        service.watts()
    with pytest.raises(RedfishError, match="no chassis of this server tells its power"):
        with_supplies({"InputPowerWatts": {"Reading": 180.5}}, {"FanSpeed": 1}).watts()


def test_zero_and_null_are_no_power() -> None:
    """A controller shows both while it starts, and for a server that is off."""
    for value, words in ((0, "0 W in .* is no power"), (None, "tells no power now"), (-3, "is no power: below 0")):
        with pytest.raises(PollError, match=words):
            with_control(PowerConsumedWatts=value).watts()
        with pytest.raises(PollError, match=words):
            with_environment(Reading=value).watts()


def test_watts_of_what_is_switched_off_are_no_power() -> None:
    """Old values stay beside such a state."""
    for state in ("Disabled", "Absent", "UnavailableOffline", "StandbyOffline"):
        with pytest.raises(PollError, match=f"is {state}"):
            with_control(PowerConsumedWatts=300, Status={"State": state}).watts()
    assert with_control(PowerConsumedWatts=300, Status={"State": "Enabled"}).watts() == 300


def test_numbers_as_text_are_understood_and_words_are_not() -> None:
    """Some services quote their figures."""
    assert with_control(PowerConsumedWatts="344").watts() == 344
    for word in ("N/A", True, "inf", "nan"):
        with pytest.raises(PollError):
            with_control(PowerConsumedWatts=word).watts()


def test_power_supplies_that_feed_several_servers_are_shown_under_the_enclosures_serial() -> None:
    """Four nodes would else each count the whole enclosure (xbat, issue 57)."""
    fetch, found = of_fixture("shared_chassis", system="Node2")
    (meter,) = found.meters
    assert (meter.device, meter.systems, meter.is_shared) == ("chassis/EN7700042", 4, True)
    assert read_power(fetch.get, meter) == round((812.5 + 798.25) * 1e6)
    assert found.notes == ["redfish: chassis/EN7700042 feeds 4 servers; its power is shown, and is not this server's meter."]


def test_a_power_control_that_names_several_systems_is_shared() -> None:
    """Also where its chassis links to one alone."""
    service = with_control(PowerConsumedWatts=900, RelatedItem=[link(SYSTEM), link("/redfish/v1/Systems/2"), link(CHASSIS)])
    service.resources[CHASSIS]["SerialNumber"] = "C42"
    (meter,) = discover(service.get).meters
    assert (meter.device, meter.is_shared) == ("chassis/C42", True)


def test_a_power_control_of_another_system_is_not_taken() -> None:
    """Each sled has its own, in one list."""
    service = with_control(PowerConsumedWatts=900, RelatedItem=[link("/redfish/v1/Systems/2")])
    mine = {"MemberId": "1", "PowerConsumedWatts": 450, "RelatedItem": [link(SYSTEM)]}
    service.resources[f"{CHASSIS}/Power"]["PowerControl"].append(mine)
    service.resources[CHASSIS]["Links"]["ComputerSystems"].append(link("/redfish/v1/Systems/2"))
    (meter,) = discover(service.get).meters
    assert (meter.device, meter.index) == ("node", 1)


def test_a_sled_with_a_meter_of_its_own_has_both() -> None:
    """Its own books; the enclosure's is shown beside it."""
    service = with_control(PowerConsumedWatts=450)
    enclosure = "/redfish/v1/Chassis/E"
    service.resources["/redfish/v1/Chassis"]["Members"] = [link(enclosure), link(CHASSIS), link("/redfish/v1/Chassis/2")]
    service.resources["/redfish/v1/Chassis/2"] = {"Links": {"ComputerSystems": [link("/redfish/v1/Systems/2")]}}
    service.resources[enclosure] = {
        "Id": "E",
        "EnvironmentMetrics": link(f"{enclosure}/M"),
        "Links": {"Contains": [link(CHASSIS), link("/redfish/v1/Chassis/2"), link(enclosure)]},
    }
    service.resources[f"{enclosure}/M"] = {"PowerWatts": {"Reading": 1000}}
    meters = discover(service.get).meters
    assert [(meter.device, meter.is_shared) for meter in meters] == [("node", False), ("chassis/E", True)]
    assert [read_power(service.get, meter) for meter in meters] == [450_000_000, 1_000_000_000]


def test_a_tray_of_gpus_is_not_the_server() -> None:
    """A part with sensors of its own links to the same system; the server's chassis comes first, wherever it is listed."""
    service = with_control(PowerConsumedWatts=5000)
    tray = "/redfish/v1/Chassis/0"
    service.resources["/redfish/v1/Chassis"]["Members"].insert(0, link(tray))
    service.resources[tray] = {
        "ChassisType": "Module",
        "EnvironmentMetrics": link(f"{tray}/M"),
        "Links": {"ComputerSystems": [link(SYSTEM)]},
    }
    service.resources[f"{tray}/M"] = {"PowerWatts": {"Reading": 700}}
    assert len(discover(service.get).meters) == 1
    assert service.watts() == 5000


def test_this_server_is_found_among_several_by_its_uuid() -> None:
    """As its own firmware tells it, in whatever case."""
    _, found = of_fixture("shared_chassis", uuid="03000200-0400-0500-0006-000700080003".upper())
    assert found.meters[0].is_shared
    with pytest.raises(RedfishError, match=r"systems Node1, Node2, Node3, Node4, .*`sources\.redfish\.system`"):
        of_fixture("shared_chassis", uuid="another")
    with pytest.raises(RedfishError, match="can't be told"):
        of_fixture("shared_chassis", system="Node9")


def test_links_to_what_is_not_there_are_passed_over() -> None:
    """Services link to resources that a model lacks."""
    service = with_control(PowerConsumedWatts=300)
    service.resources[CHASSIS]["EnvironmentMetrics"] = link(f"{CHASSIS}/Nothing")
    assert service.watts() == 300


def test_a_service_without_power_says_so() -> None:
    """For good: nothing is offered."""
    with pytest.raises(RedfishError, match="no chassis of this server tells its power"):
        discover(Service(tree({})).get)


def test_resources_of_any_form_raise_nothing_else() -> None:
    """Lists for objects, numbers for links, and nulls."""
    for odd in (None, 7, "text", [], [None, 7], {"@odata.id": 7}, {"Members": 7}):
        for key in ("Links", "Power", "EnvironmentMetrics", "PowerSubsystem"):
            with pytest.raises(RedfishError):
                discover(Service(tree({key: odd})).get)
