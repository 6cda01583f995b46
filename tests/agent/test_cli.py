"""The command `wattledger-agent`: data on standard output, one sentence with the remedy on standard error, and a status."""

import json
from pathlib import Path

import pytest

from wattledger_agent.cli import main

FAKE = "[sources.fake]\npackages = 1\nnode_meter = true\n"


def run(*arguments: str) -> int | str | None:
    """Run the command; returns what it exits with: a status, or the text of an error."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A configuration of a simulated host."""
    path = tmp_path / "agent.toml"
    path.write_text(f'state_dir = "{tmp_path}/state"\n[collector]\naddress = "127.0.0.1:1"\n{FAKE}')
    return path


def test_once_shows_the_tree(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for programs, from a simulated node of one package."""
    assert run("once", "--config", str(configured)) == 0
    out = capsys.readouterr().out
    assert "booked in all" in out
    assert "every figure is simulated" in out

    assert run("once", "--json", "--config", str(configured)) == 0
    channels = json.loads(capsys.readouterr().out)["channels"]
    assert {channel["role"] for channel in channels} == {"leaf", "meter", "residual"}
    assert all(channel["power_watts"] for channel in channels)


def test_once_without_a_channel_has_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a script notices; what is missing is told all the same."""
    config = tmp_path / "agent.toml"
    config.write_text("[sources.estimate]\nenabled = false\n[sources.cpu]\nenabled = false\n")

    assert run("once", "--config", str(config), "--sysfs-root", str(tmp_path)) == 1
    assert "rapl: not read:" in capsys.readouterr().out


def test_doctor_says_what_it_found(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for programs; a collector that is away is no failure."""
    assert run("doctor", "--config", str(configured)) == 0
    assert "ok      fake:" in capsys.readouterr().out
    assert run("doctor", "--json", "--config", str(configured)) == 0
    assert {finding["check"] for finding in json.loads(capsys.readouterr().out)["findings"]} >= {
        "clock",
        "spool",
        "collector",
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"perod_seconds = 1", "unknown key `perod_seconds`. Did you mean `period_seconds`?"),
        (b"[sources.rapl]\nenable = true", "unknown key `sources.rapl.enable`. Did you mean `sources.rapl.enabled`?"),
        (b"host = ", "is not valid TOML"),
        (b"period_seconds = -1", "Expected `float` >= 0.02"),
        (b"host = '\xff'", "is not UTF-8 text"),
        (b"[collector]\naddress = 'collector'", "write it as host:port"),
    ],
)
def test_a_bad_configuration_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    """It names the file, the place and the remedy, and nothing was begun."""
    config = tmp_path / "agent.toml"
    config.write_bytes(content)

    told = run("run", "--config", str(config))

    assert isinstance(told, str)
    assert sentence in told
    assert str(config) in told
    assert "\n" not in told


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    """With the option that names another."""
    told = run("doctor", "--config", str(tmp_path / "nothing.toml"))

    assert (
        told
        == f"cannot read the configuration {tmp_path}/nothing.toml: No such file or directory. Name another with --config."
    )


def test_a_host_without_procfs_is_one_sentence(configured: Path, tmp_path: Path) -> None:
    """Its boot can't be told."""
    told = run("once", "--config", str(configured), "--procfs-root", str(tmp_path))

    assert isinstance(told, str)
    assert "--procfs-root" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "--hosts", "0"], "invalid choice: 0"),
        (["simulate", "--hosts", "many"], "invalid int value"),
        (["measure"], "invalid choice: 'measure'"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments_have_status_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the usage."""
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "usage: wattledger-agent" in err


def test_simulated_hosts_need_a_sound_address_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A malformed address and a file in the folder's place are told, not traced."""
    told = run("simulate", "--hosts", "1", "--collector", "nowhere", "--state-dir", str(tmp_path))
    assert "write it as host:port" in str(told)

    (tmp_path / "file").write_text("")
    assert run("simulate", "--hosts", "1", "--state-dir", str(tmp_path / "file")) == 1
    assert "Move away the file" in capsys.readouterr().err
