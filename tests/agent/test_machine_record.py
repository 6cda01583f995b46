"""Recordings of machines: what is played back is what was there, and nothing in them names anybody."""

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from tests.agent.machines import FIXTURES, machine
from tests.contract.plant_sensors import plant_of
from tests.contract.plants import Plant
from tests.fixtures_golden import machines

from wattledger_agent.config import parse_config
from wattledger_agent.inventory import Roots
from wattledger_agent.machine import RecordedMachine, open_machine
from wattledger_agent.machine_record import Recorded, RecordError, record
from wattledger_agent.machine_replay import Outcome, play
from wattledger_agent.sources.nvml_recorded import RecordedNvml

TODAY = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
JOULE = 1_000_000


def recorded(host: RecordedMachine, out: Path, seconds: float, *, etc_root: Path = Path("/nonexistent")) -> Recorded:
    """A recording of a machine in its own time."""
    return record(
        host.config.sources,
        host.roots,
        out,
        duration_seconds=seconds,
        period_seconds=1.0,
        today=TODAY,
        etc_root=etc_root,
        sleep=host.advance,
        monotonic=lambda: host.seconds,
    )


def cut_of(outcome: Outcome) -> list[tuple[str, str, str, str, str]]:
    """What is metered and how, without the names of devices."""
    return sorted(
        (one.key.device.partition("/")[0], one.key.domain, one.key.source, one.method.name, one.role.name)
        for one in outcome.accounts
    )


@pytest.mark.parametrize("name", machines())
def test_a_recording_of_a_machine_is_that_machine(tmp_path: Path, name: str) -> None:
    """Whatever a source reads is in it: the same channels, the same sources missing, the same workloads, the same watts."""
    plant: Plant = plant_of(name, FIXTURES / name, tmp_path / "host", steady=True)
    recorded(plant.machine, tmp_path / "out", 12.0)
    again = play(open_machine(tmp_path / "out", tmp_path / "again"), 12.0)
    original = plant_of(name, FIXTURES / name, tmp_path / "original", steady=True)
    first = play(original.machine, 12.0)
    assert cut_of(again) == cut_of(first)
    # What was not there at the beginning of a recording was not asked for, and stands there as not installed.
    assert {source for source, _, _ in again.missing} == {source for source, _, _ in first.missing}
    assert [kind for kind, _ in again.notes] == [kind for kind, _ in first.notes]
    assert sorted((line.kind, round(line.power_watts)) for line in again.workloads) == sorted(
        (line.kind, round(line.power_watts)) for line in first.workloads
    )
    assert again.booked_microjoules == pytest.approx(first.booked_microjoules, rel=0.06)


def test_changes_are_kept_at_their_time(tmp_path: Path) -> None:
    """The energy of a recorded minute is that of the counters, to the microjoule, however unsteady they were."""
    plant = plant_of("xeon_two_sockets", FIXTURES / "xeon_two_sockets", tmp_path / "host", "unsteady")
    plant.note(0)
    recorded(plant.machine, tmp_path / "out", 60.0)
    plant.note(1)
    again = play(open_machine(tmp_path / "out", tmp_path / "again"))
    assert again.seconds == 60.0
    assert again.booked_microjoules == plant.used_microjoules(plant.metered, 0, 1)


SECRETS = {
    "host": "penguin-frobnicator",
    "domain": "internal.acme-payments.test",
    "machine id": "8d3f6f1be2a94d0cb3b5d1f0a7c6e9b2",
    "system serial": "CZJ9ACME42",
    "board serial": "PFARA1-Q7",
    "system uuid": "31383738-3836-5a43-4a39-acde48001122",
    "gpu serial": "1563921007734",
    "gpu uuid": "GPU-7c1e2b9a-55d0-4f6b-9c3e-a1b2c3d4e5f6",
    "amd unique id": "9bd1f7e2c0aa55e1",
    "arm serial": "1421219087765",
    "user": "uid_53412",
    "job": "job_7764531",
    "pod": "5a7b9c1d-3e5f-4a6b-8c0d-e1f2a3b4c5d6",
    "container": "f1e2d3c4b5a697887766554433221100ffeeddccbbaa99887766554433221100",
    "unit": "acme-billing",
    "guest": "payments-db-7",
    "bmc serial": "BMC77ZX01",
    "asset": "ASSET-00815",
    "mac": "a4:bf:01:5c:7e:19",
    "address": "10.41.7.23",
    "address 6": "fd12:3456:789a::17",
    "mail": "jo.doe@acme-payments.test",
    "accelerator": "AO99887766",
}


def plant_secrets(root: Path) -> dict[str, str]:
    """Put a name into each place where a machine may have one. Returns a Redfish configuration for it."""
    sys, proc = root / "sys", root / "proc"
    for name, text in (
        ("product_serial", SECRETS["system serial"]),
        ("board_serial", SECRETS["board serial"]),
        ("product_uuid", SECRETS["system uuid"]),
        ("sys_vendor", f"Example of {SECRETS['host']}"),
        ("product_name", f"R1 {SECRETS['system serial']}"),
    ):
        write(sys / "class/dmi/id" / name, text)
    write(proc / "sys/kernel/hostname", SECRETS["host"])
    write(proc / "sys/kernel/osrelease", f"6.8.0-{SECRETS['host']}")
    cpuinfo = (proc / "cpuinfo").read_text()
    write(proc / "cpuinfo", f"{cpuinfo}\nSerial\t\t: {SECRETS['arm serial']}\n")
    card = sys / "bus/pci/devices/0000:0f:00.0"
    for name, text in (("vendor", "0x1002"), ("class", "0x120000"), ("unique_id", SECRETS["amd unique id"])):
        write(card / name, text)
    write(card / "hwmon/hwmon9/name", "amdgpu")
    write(card / "hwmon/hwmon9/power1_input", "90000000")
    (card / "hwmon/hwmon9/device").symlink_to("../..")
    (sys / "class/hwmon").mkdir(exist_ok=True)
    (sys / "class/hwmon/hwmon9").symlink_to("../../bus/pci/devices/0000:0f:00.0/hwmon/hwmon9")
    groups = sys / "fs/cgroup"
    write(groups / "cgroup.controllers", "cpu memory")
    for group in (
        f"system.slice/{SECRETS['unit']}.service",
        "user.slice/user-53412.slice",
        f"kubepods.slice/kubepods-pod{SECRETS['pod'].replace('-', '_')}.slice/cri-containerd-{SECRETS['container']}.scope",
        f"machine.slice/machine-qemu\\x2d3\\x2d{SECRETS['guest'].replace('-', chr(92) + 'x2d')}.scope",
        f"system.slice/slurmstepd.scope/{SECRETS['job']}",
        f"slurm/{SECRETS['user']}/{SECRETS['job']}",
    ):
        write(groups / group / "cpu.stat", "usage_usec 5000000\nuser_usec 5000000\n")
        write(groups / group / "memory.current", "4096")
    write(proc / "4242/cgroup", f"0::/system.slice/{SECRETS['unit']}.service\n")
    nvml = {
        "version": 1,
        "gpus": [
            {
                "nvmlDeviceGetUUID": SECRETS["gpu uuid"],
                "nvmlDeviceGetSerial": SECRETS["gpu serial"],
                "nvmlDeviceGetName": f"NVIDIA X of {SECRETS['host']}",
                "nvmlDeviceGetTotalEnergyConsumption": 1000,
                "nvmlDeviceGetComputeRunningProcesses": [{"pid": 4242}],
            }
        ],
    }
    write(root / "nvml.json", json.dumps(nvml))
    write(proc / "driver/nvidia/gpus/0000:3b:00.0/information", f"Model: X\nGPU UUID: {SECRETS['gpu uuid']}\nIRQ: 1\n")
    plant_controller(root)
    return {"address": f"https://{SECRETS['address']}", "system": "1"}


def plant_controller(root: Path) -> None:
    """A controller and a command that name what they can."""
    write(root / "dev/ipmi0", "")
    said = f"no such host {SECRETS['host']} {SECRETS['address']} {SECRETS['mac']} {SECRETS['address 6']}"
    power = f"Instantaneous power reading : 300 Watts\nasked by {SECRETS['mail']} of {SECRETS['bmc serial']}\n{said}\n"
    card = f"HL-225, {SECRETS['accelerator']}, 0000:19:00.0, 93, 0, 768, 98304, 26\n"
    gaudi = ["hl-smi", "-Q", "name,serial,bus_id,power.draw,utilization.aip,memory.used,memory.total,temperature.aip"]
    commands = [
        {"argv": ["ipmitool", "dcmi", "power", "reading"], "stdout": power, "stderr": said},
        {"argv": [*gaudi, "-f", "csv,noheader,nounits"], "stdout": card},
    ]
    write(root / "commands.json", json.dumps(commands))
    for name, text in (("vendor", "0x1da3"), ("class", "0x120000")):
        write(root / "sys/bus/pci/devices/0000:19:00.0" / name, text)
    system = {
        "@odata.id": "/redfish/v1/Systems/1",
        "Id": "1",
        "UUID": SECRETS["system uuid"],
        "SerialNumber": SECRETS["bmc serial"],
        "AssetTag": SECRETS["asset"],
        "HostName": f"{SECRETS['host']}.{SECRETS['domain']}",
        "Oem": {"Owner": SECRETS["mail"]},
        "Links": {"Chassis": [{"@odata.id": f"/redfish/v1/Chassis/{SECRETS['bmc serial']}"}]},
    }
    chassis = {
        "@odata.id": f"/redfish/v1/Chassis/{SECRETS['bmc serial']}",
        "Id": SECRETS["bmc serial"],
        "Name": f"Rack of {SECRETS['host']} at {SECRETS['address']}",
        "Location": {"Info": SECRETS["mail"]},
        "Links": {"ComputerSystems": [{"@odata.id": "/redfish/v1/Systems/1"}]},
        "Power": {"@odata.id": f"/redfish/v1/Chassis/{SECRETS['bmc serial']}/Power"},
    }
    control = {"MemberId": "0", "PowerConsumedWatts": 300, "RelatedItem": [{"@odata.id": "/redfish/v1/Systems/1"}]}
    members = {"Systems": "/redfish/v1/Systems/1", "Chassis": f"/redfish/v1/Chassis/{SECRETS['bmc serial']}"}
    for path, resource in (
        ("v1", {name: {"@odata.id": f"/redfish/v1/{name}"} for name in members}),
        *((f"v1/{name}", {"Members": [{"@odata.id": member}]}) for name, member in members.items()),
        ("v1/Systems/1", system),
        (f"v1/Chassis/{SECRETS['bmc serial']}", chassis),
        (f"v1/Chassis/{SECRETS['bmc serial']}/Power", {"PowerControl": [control], "MAC": SECRETS["mac"]}),
    ):
        write(root / "redfish" / f"{path}.json", json.dumps(resource))


def write(path: Path, text: str) -> None:
    """Write a file as sysfs has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.endswith("\n") else f"{text}\n")


def machine_with_secrets(folder: Path) -> RecordedMachine:
    """A server with all kinds of sensors, each of which names something."""
    root = machine("xeon_two_sockets", folder).root
    redfish = plant_secrets(root)
    config = f'[sources.redfish]\naddress = "{redfish["address"]}"\nuser = "jo"\npassword_file = "secret"\nsystem = "1"\n'
    write(root / "agent.toml", config)
    return open_machine(root, folder / "host")


def test_no_name_is_left_in_a_recording(tmp_path: Path) -> None:
    """No serial, id, address, host, user or workload that was planted is in a file's content, its name, or a link."""
    host = machine_with_secrets(tmp_path)
    etc = tmp_path / "etc"
    write(etc / "hostname", f"{SECRETS['host']}.{SECRETS['domain']}")
    write(etc / "machine-id", SECRETS["machine id"])
    result = recorded(host, tmp_path / "out", 30.0, etc_root=etc)
    everything = [result.as_text().replace(str(tmp_path), "")]
    for path in (tmp_path / "out").rglob("*"):
        everything.append(str(path.relative_to(tmp_path / "out")))
        everything.append(str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else "")
    text = "\n".join(everything).lower()
    planted = {kind: secret.lower() for kind, secret in SECRETS.items()}
    spelled = {**planted, **{f"{kind} with underscores": secret.replace("-", "_") for kind, secret in planted.items()}}
    assert [kind for kind, secret in spelled.items() if secret in text] == []
    assert "4242" in text
    # All of it was there to be found: what was recorded is still a machine with these parts.
    again = play(open_machine(tmp_path / "out", tmp_path / "again"), 20.0)
    sources = {one.key.source for one in again.accounts}
    assert sources >= {"rapl", "nvidia", "amd_gpu", "gaudi", "ipmi", "redfish"}
    assert len(list((tmp_path / "out/sys/fs/cgroup").rglob("cpu.stat"))) == 6


def test_the_same_name_becomes_the_same(tmp_path: Path) -> None:
    """A GPU's id in NVML's answers and in procfs is still one GPU, and a process is still in its unit."""
    recorded(machine_with_secrets(tmp_path), tmp_path / "out", 0.0)
    out = tmp_path / "out"
    uuid = json.loads((out / "nvml.json").read_text())["gpus"][0]["nvmlDeviceGetUUID"]
    assert uuid.startswith("GPU-00000000-")
    assert uuid in (out / "proc/driver/nvidia/gpus/0000:3b:00.0/information").read_text()
    group = (out / "proc/4242/cgroup").read_text().strip().removeprefix("0::/")
    assert (out / "sys/fs/cgroup" / group / "cpu.stat").exists()


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    """What lies elsewhere on the host is no sensor, whatever a link says."""
    root = machine("xeon_two_sockets", tmp_path).root
    (tmp_path / "private").write_text("private")
    host = open_machine(root, tmp_path / "host")
    file = host.root / "sys/class/powercap/intel-rapl:0/name"
    file.unlink()
    file.symlink_to("../../../../../../../../private")
    other = host.root / "sys/class/powercap/intel-rapl:1/name"
    other.unlink()
    other.symlink_to(tmp_path / "private")
    recorded(host, tmp_path / "out", 1.0)
    assert not any("private" in path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Nothing is overwritten, and nothing is written over a link."""
    host = open_machine(FIXTURES / "kvm_guest", tmp_path / "host")
    full = tmp_path / "full"
    write(full / "mine", "mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for out, told in ((full, "not an empty folder"), (tmp_path / "link", "not an empty folder"), (full / "mine", "empty")):
        with pytest.raises(RecordError, match=told):
            recorded(host, out, 0.0)
    with pytest.raises(RecordError, match="can't be made"):
        recorded(host, full / "mine" / "below", 0.0)
    assert [path.name for path in full.iterdir()] == ["mine"]


def test_what_vanishes_and_comes_is_in_the_recording(tmp_path: Path) -> None:
    """A group that ends and one that begins, a counter that can't be read for a while."""
    host = open_machine(FIXTURES / "kubernetes_cgroup_v2", tmp_path / "host")
    unit = host.root / "sys/fs/cgroup/system.slice/kubelet.service"
    counter = host.root / "sys/class/powercap/intel-rapl:0/energy_uj"
    chance = Random(1)

    def move(seconds: float) -> None:
        if round(host.seconds) == 3 and unit.exists():
            for file in unit.iterdir():
                file.unlink()
            unit.rmdir()
            write(host.root / "sys/fs/cgroup/system.slice/new.service/cpu.stat", "usage_usec 1\n")
        counter.write_text("" if round(host.seconds) == 5 else f"{10**9 + chance.randrange(10**6)}\n")

    host.on_advance = move
    recorded(host, tmp_path / "out", 8.0)
    assert not unit.exists()
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    changes = [(name, content) for line in lines for name, content in line["files"].items()]
    assert any(content is None and "cpu.stat" in name for name, content in changes)
    assert any(content == "usage_usec 1\n" for _, content in changes)
    files = {line["seconds"]: line["files"] for line in lines}
    assert [content for name, content in files[5.0].items() if name.endswith("intel-rapl:0/energy_uj")] == [""]
    play(open_machine(tmp_path / "out", tmp_path / "again"))


def test_a_sleeping_gpu_is_not_woken_to_be_recorded(tmp_path: Path) -> None:
    """NVML is not asked at all, and the recording says so."""
    host = open_machine(FIXTURES / "t4_server", tmp_path / "host")
    device = next(path.parent for path in (host.root / "sys/devices").rglob("vendor") if "0x10de" in path.read_text())
    write(device / "power/runtime_status", "suspended")
    result = recorded(host, tmp_path / "out", 0.0)
    assert any("sleeps" in note for note in result.notes)
    assert not (tmp_path / "out/nvml.json").exists()


def test_a_host_without_anything_is_told(tmp_path: Path) -> None:
    """Roots that hold no file make no empty recording."""
    roots = Roots(tmp_path / "no-sys", tmp_path / "no-proc", tmp_path, nvml=RecordedNvml({"version": 1, "gpus": []}))
    with pytest.raises(RecordError, match="hold nothing"):
        record(parse_config("").sources, roots, tmp_path / "out", duration_seconds=0, period_seconds=1, today=TODAY)


def test_the_recording_says_how_it_was_made(tmp_path: Path) -> None:
    """When, for how long, which kernel and version, and what a person is to add."""
    recorded(open_machine(FIXTURES / "kvm_guest", tmp_path / "host"), tmp_path / "out", 2.0)
    text = (tmp_path / "out/PROVENANCE.md").read_text()
    assert text.startswith("Recorded: by `wattledger-agent record`")
    assert "2026-03-04 05:06 UTC" in text
    assert "for 2 s" in text
    assert "To be written by hand" in text
