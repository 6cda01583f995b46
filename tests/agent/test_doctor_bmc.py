"""`doctor` on management controllers: each fault is made in a copy of a fixture machine, or with a server on loopback."""

import json
from pathlib import Path

import pytest
from tests.agent.doctoring import QUICK, USER, fault, faults, of_fixture, of_folder, of_host, spoilt
from tests.agent.machines import FIXTURES, machine
from tests.agent.redfish_server import Controller, serving
from tests.certificates import Authority

from wattledger_agent.config import AgentConfig, RedfishConfig, SourcesConfig
from wattledger_agent.doctor import Finding
from wattledger_agent.doctor_sensors import sensor_findings
from wattledger_agent.doctor_told import recognise
from wattledger_agent.inventory import Inventory, Missing, Roots
from wattledger_agent.readings import SourceUnavailableError
from wattledger_agent.sources.ipmi import IpmiSource


def ipmi(root: Path, *, stdout: str = "", stderr: str = "", exit_status: int = 0) -> None:
    """Let the controller answer so."""
    argv = ["ipmitool", "dcmi", "power", "reading"]
    answer = {"argv": argv, "stdout": stdout, "stderr": stderr, "exit_status": exit_status, "seconds": 0.1}
    (root / "commands.json").write_text(json.dumps([answer]))


def test_a_controller_without_its_driver_names_both_modules(tmp_path: Path) -> None:
    """The firmware's table tells of it."""
    root = spoilt("xeon_two_sockets", tmp_path)
    (root / "sys/firmware/dmi/entries/38-0").mkdir(parents=True)

    finding = fault(of_folder(root), "ipmi-module")

    assert "(DMI type 38)" in finding.found
    assert finding.remedy == (
        "modprobe -a ipmi_si ipmi_devintf && printf 'ipmi_si\\nipmi_devintf\\n' > /etc/modules-load.d/wattledger-ipmi.conf; "
        "in a container: docker run --device /dev/ipmi0"
    )


def test_a_controller_that_may_not_be_opened_has_its_rule(tmp_path: Path) -> None:
    """In the source's own words, since root, who runs this, may open all."""
    (tmp_path / "ipmi0").write_text("")
    with pytest.raises(SourceUnavailableError) as told:
        IpmiSource(tmp_path, access=lambda path: False).open()
    inventory = Inventory([], [Missing("ipmi", told.value.reason, told.value.remedy)])

    finding = fault(sensor_findings(AgentConfig(), Roots(tmp_path, tmp_path), inventory, None), "ipmi-permission")

    assert finding.found == f"{tmp_path}/ipmi0 may not be opened by user id {USER}"
    assert finding.remedy == (
        'echo \'KERNEL=="ipmi*", GROUP="wattledger", MODE="0660"\' > /etc/udev/rules.d/71-wattledger-ipmi.rules && udevadm '
        "control --reload && udevadm trigger; whoever may open it may also configure the controller."
    )


def test_a_controller_without_a_program_names_the_package(tmp_path: Path) -> None:
    """The device is there, and nothing to ask it with."""
    root = spoilt("dead_bmc", tmp_path)
    (root / "commands.json").write_text("[]")

    finding = fault(of_folder(root), "ipmi-tool")

    assert "ipmitool nor ipmi-dcmi are not installed" in finding.found
    assert finding.remedy == "apt-get install ipmitool, or dnf install ipmitool"


def test_a_deactivated_power_reading_has_the_command_that_activates_it(tmp_path: Path) -> None:
    """The watts beside it may be old ones."""
    root = spoilt("dead_bmc", tmp_path)
    ipmi(root, stdout="Instantaneous power reading: 100 Watts\nPower reading state is: deactivated\n")

    finding = fault(of_folder(root), "ipmi-deactivated")

    assert finding.found == "the controller calls its power reading `deactivated`"
    assert finding.remedy == (
        "ipmitool dcmi power activate; if it stays, switch power monitoring on in the controller's settings, or update its "
        "firmware."
    )


def test_a_controller_without_dcmi_is_read_another_way(tmp_path: Path) -> None:
    """Many have Redfish."""
    root = spoilt("dead_bmc", tmp_path)
    ipmi(root, stderr="DCMI request failed because: Invalid command (c1)\n", exit_status=1)

    assert fault(of_folder(root), "ipmi-without-dcmi").remedy == (
        "Read it by Redfish (`sources.redfish.address`), or switch this source off: `sources.ipmi.enabled = false`"
    )


def test_a_dead_controller_has_the_command_that_revives_it(tmp_path: Path) -> None:
    """The host goes on meanwhile."""
    finding = fault(of_fixture("dead_bmc", tmp_path), "ipmi-silent")

    assert finding.found == "the controller does not answer: `ipmitool dcmi power reading` has not ended within 90 s"
    assert finding.remedy == ("ipmitool mc info; if that hangs too: ipmitool mc reset cold (the host goes on meanwhile).")


def test_a_program_that_fails_is_told_with_its_words() -> None:
    """As where the driver is busy."""
    told = recognise("ipmi", "`ipmi-dcmi` ended with status 1: `Device or resource busy`. Run it by hand.")

    assert told is not None
    assert told.id == "ipmi-silent"
    assert told.found == "the controller does not answer: `ipmi-dcmi` ended with status 1: `Device or resource busy`"


def redfish(folder: Path, address: str, *, user: str = "", password_file: str = "", ca_file: str = "") -> list[Finding]:
    """What doctor says of a machine with a controller on this host."""
    host = machine("xeon_two_sockets", folder)
    boot = host.proc / "sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("7d9a3f0e-5f3b-4a6e-9c58-0c7c1d2e3f40\n")
    config = AgentConfig(
        state_dir=str(folder / "state"),
        sources=SourcesConfig(
            redfish=RedfishConfig(address=address, user=user, password_file=password_file, ca_file=ca_file)
        ),
    )
    return of_host(folder, config, QUICK, roots=Roots(host.sys, host.proc, folder / "dev"))


def test_a_controller_with_a_foreign_certificate_is_not_believed(tmp_path: Path) -> None:
    """Most sign theirs themselves."""
    pair = Authority().sign(dns=("localhost",))
    with serving(_controller(), pair.write(tmp_path, "bmc")) as controller:
        address = controller.url
        findings = redfish(tmp_path, address=address, ca_file=str(Authority("another").write(tmp_path)))

    finding = fault(findings, "redfish-certificate")
    assert finding.found.startswith(f"the certificate of {address} is not trusted (")
    assert finding.remedy == (
        "Write the PEM file of the authority that signed it into `sources.redfish.ca_file`, or the name that is in it into "
        "`sources.redfish.address`."
    )


def test_a_controller_that_is_not_there_has_the_command_that_tells(tmp_path: Path) -> None:
    """Nobody listens at the port of a server that was stopped."""
    with serving(_controller()) as controller:
        address = controller.url

    finding = fault(redfish(tmp_path, address=address), "redfish-silent")

    assert finding.found == f"{address} can't be reached: Connection refused"
    assert finding.remedy == (
        f"curl -k {address}/redfish/v1 from this host; mend `sources.redfish.address` or the firewall, or restart the "
        "controller."
    )


def test_a_controller_whose_name_is_unknown_is_told(tmp_path: Path) -> None:
    """A name of the domain that never exists (RFC 6761)."""
    finding = fault(redfish(tmp_path, address="http://bmc.invalid"), "redfish-name")

    assert finding.found.startswith("the name in http://bmc.invalid can't be resolved (")
    assert finding.remedy == "Mend `sources.redfish.address`, or this host's DNS."


def test_wrong_credentials_are_told_with_what_they_cost(tmp_path: Path) -> None:
    """Controllers lock accounts."""
    (tmp_path / "password").write_text("wrong\n")
    (tmp_path / "password").chmod(0o400)
    with serving(_controller()) as controller:
        address = controller.url
        findings = redfish(tmp_path, address=address, user="reader", password_file=str(tmp_path / "password"))

    finding = fault(findings, "redfish-credentials")
    assert finding.found == f"{address} refuses user `reader` (HTTP 401)"
    assert finding.remedy == (
        "Mend `sources.redfish.user` and its password file, and restart the agent: wrong ones are tried again after 15 "
        "minutes, so as not to lock the account."
    )
    assert "redfish-password-open" not in faults(findings)


def test_a_missing_password_file_is_told(tmp_path: Path) -> None:
    """Nothing is sent then."""
    path = tmp_path / "password"
    with serving(_controller()) as controller:
        findings = redfish(tmp_path, address=controller.url, user="reader", password_file=str(path))

    finding = fault(findings, "redfish-password")
    assert finding.found == f"the password file {path} can't be read (No such file or directory)"
    assert finding.remedy == (
        f"chown wattledger {path} && chmod 0400 {path}; or write LoadCredential=<name>:{path} into the agent's unit, and "
        "the name into `sources.redfish.password_file`."
    )


def test_a_password_that_everybody_may_read_is_told(tmp_path: Path) -> None:
    """Whoever is on this host may have it."""
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o644)
    with serving(_controller()) as controller:
        findings = redfish(tmp_path, address=controller.url, user="reader", password_file=str(path))

    finding = fault(findings, "redfish-password-open")
    assert finding.found == f"the password file {path} can be read by everybody (mode 0644)"
    assert finding.remedy == f"chmod 0400 {path}, and change the password: others may know it."


def _controller() -> Controller:
    return Controller(FIXTURES / "redfish_server/redfish")
