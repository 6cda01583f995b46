"""Folders that stand for machines: what is in them is played in recorded time, and nothing of this host is read."""

import json
from pathlib import Path

import pytest
from tests.agent.machines import FIXTURES, machine

from wattledger_agent.machine import BOOT_ID, MachineError, open_machine
from wattledger_agent.machine_replay import Outcome, as_json, as_text, play
from wattledger_agent.readings import Role

SECOND = 1_000_000_000
JOULE = 1_000_000


def write_samples(root: Path, *samples: dict[str, object]) -> None:
    """Give a machine's folder its samples.jsonl."""
    (root / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))


def replayed(root: Path, folder: Path, seconds: float | None = None) -> Outcome:
    """What a replay of a folder comes to."""
    return play(open_machine(root, folder / "work"), seconds)


def energy(outcome: Outcome, device: str, domain: str) -> int:
    """A channel's booked energy; microjoules."""
    (found,) = (one for one in outcome.accounts if (one.key.device, one.key.domain) == (device, domain))
    return found.energy_microjoules


def test_what_changed_is_played_at_its_time(tmp_path: Path) -> None:
    """A counter that was written twice is booked to the microjoule, once its second value is due."""
    root = machine("xeon_two_sockets", tmp_path).root
    file = "sys/class/powercap/intel-rapl:0/energy_uj"
    write_samples(root, {"seconds": 0.0, "files": {file: "1000000\n"}}, {"seconds": 4.0, "files": {file: "1500001\n"}})
    assert energy(replayed(root, tmp_path / "early", 3.0), "cpu/0", "package") == 0
    assert energy(replayed(root, tmp_path / "late", 5.0), "cpu/0", "package") == 500_001


def test_a_file_that_went_is_no_reading(tmp_path: Path) -> None:
    """What vanished between two samples stands in a gap until it is there again, and nothing is booked as 0."""
    root = machine("ampere_altra", tmp_path).root
    file = next(path for path in (root / "sys/devices").rglob("power1_input"))
    name = str(file.relative_to(root))
    write_samples(root, {"seconds": 2.0, "files": {name: "x\n"}}, {"seconds": 30.0, "files": {name: file.read_text()}})
    outcome = replayed(root, tmp_path, 40.0)
    (gap,) = outcome.gaps
    assert (gap.from_seconds, gap.to_seconds) == (1.0, 30.0)
    assert gap.lower_microjoules == 0


def test_a_recording_is_played_as_long_as_it_is(tmp_path: Path) -> None:
    """Without a number of seconds the last sample ends the replay."""
    root = machine("xeon_two_sockets", tmp_path).root
    write_samples(root, {"seconds": 7.0, "files": {"proc/stat": "cpu 1 1 1 1 1 1 1 1 0 0\n"}})
    assert replayed(root, tmp_path).seconds == 7.0


def test_answers_of_commands_change_with_time(tmp_path: Path) -> None:
    """A controller's power is that of the newest sample."""
    root = machine("ipmi_node_gpus_excluded", tmp_path).root
    answer = {"argv": ["ipmitool", "dcmi", "power", "reading"], "stdout": "Instantaneous power reading : 500 Watts\n"}
    first = {"seconds": 0.0, "commands": [answer]}
    write_samples(root, first)
    assert energy(replayed(root, tmp_path, 30.0), "node", "dcmi") == 30 * 500 * JOULE


def test_two_replays_are_the_same(tmp_path: Path) -> None:
    """Nothing of a replay hangs on threads, clocks or this host."""
    texts = {as_text(replayed(FIXTURES / "dgx_h100", tmp_path / str(number))) for number in range(2)}
    assert len(texts) == 1
    assert str(tmp_path) not in texts.pop()


def test_json_tells_the_same_as_the_text(tmp_path: Path) -> None:
    """The sum of the accounted cut is in both."""
    outcome = replayed(FIXTURES / "gh200", tmp_path)
    told = json.loads(as_json(outcome))
    assert told["booked_energy_microjoules"] == str(outcome.booked_microjoules)
    assert f"{outcome.booked_microjoules / JOULE:.6f} J" in as_text(outcome)
    booked = [Role.LEAF.name.lower(), Role.RESIDUAL.name.lower()]
    assert sum(int(one["energy_microjoules"]) for one in told["channels"] if one["role"] in booked) == int(
        told["booked_energy_microjoules"]
    )


def test_no_library_of_this_host_is_asked(tmp_path: Path) -> None:
    """A machine without NVML's answers has no driver, whatever this host has; without commands none is installed."""
    outcome = replayed(FIXTURES / "kvm_guest", tmp_path)
    missing = {source: reason for source, reason, _ in outcome.missing}
    assert "NVML error 12" in missing["nvidia"]
    assert "ipmi0 does not exist" in missing["ipmi"]


def test_recorded_time_has_a_boot_of_its_own(tmp_path: Path) -> None:
    """The boot id is made up, and clocks stand still until time is let pass."""
    played = open_machine(FIXTURES / "kvm_guest", tmp_path / "work")
    before = played.instant()
    assert before.boot_id == BOOT_ID
    played.advance(2.5)
    assert played.instant().boottime_nanoseconds - before.boottime_nanoseconds == 2.5 * SECOND
    assert (played.root / "proc/sys/kernel/random/boot_id").read_text().startswith("00000000-")


def refusal(root: Path, folder: Path) -> str:
    """Why a folder is not played; one sentence of reason, one of remedy."""
    with pytest.raises(MachineError) as error:
        open_machine(root, folder / "work").advance(3600)
    text = str(error.value)
    assert text[-1] in ".?"
    return text


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """It would read the host that plays."""
    root = machine("kvm_guest", tmp_path).root
    (root / "proc/secret").symlink_to("/etc/passwd")
    assert "leads out of the folder" in refusal(root, tmp_path / "a")
    (root / "proc/secret").unlink()
    (root / "proc/secret").symlink_to("../../../../outside")
    assert "leads out of the folder" in refusal(root, tmp_path / "b")


def test_a_sample_that_writes_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A recording comes from strangers."""
    root = machine("kvm_guest", tmp_path).root
    write_samples(root, {"seconds": 1.0, "files": {"../../outside": "x"}})
    assert "leads out of the folder" in refusal(root, tmp_path)
    assert not (tmp_path / "outside").exists()


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    """A folder without a machine's files, samples that are no JSON or out of order, settings that are not of sensors."""
    assert "no folder" in refusal(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "neither sys/ nor proc/" in refusal(tmp_path / "empty", tmp_path)
    for number, (name, text, told) in enumerate(
        (
            ("samples.jsonl", "{", "line 1"),
            ("samples.jsonl", '{"seconds": 2}\n{"seconds": 1}\n', "line 2"),
            ("nvml.json", "[]", "nvml.json"),
            ("nvml.json", '{"version": 9}', "version"),
            ("commands.json", "{}", "commands.json"),
            ("agent.toml", "[sources.rapl]\nshared_root = '../../etc'\n", "shared_root"),
            ("agent.toml", "[sources.fake]\n", "fake"),
            ("agent.toml", "nonsense = 1\n", "nonsense"),
        )
    ):
        root = machine("kvm_guest", tmp_path / f"case{number}").root
        (root / name).write_text(text)
        assert told in refusal(root, tmp_path / f"work{number}")
