"""Commands with a deadline: real small processes, and recorded answers."""

import json
import os
import time
from pathlib import Path
from signal import SIGKILL

import pytest

from wattledger_agent.commands import (
    OUTPUT_BYTES_MAX,
    CommandError,
    CommandMissingError,
    CommandTimeoutError,
    RecordedCommand,
    RecordedRunner,
    SystemRunner,
)

ENOUGH_SECONDS = 30.0


def script(folder: Path, body: str, name: str = "tool") -> str:
    """A program in a folder."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return name


def runner(folder: Path) -> SystemRunner:
    """Finds the folder's programs first."""
    return SystemRunner(f"{folder}:{os.environ['PATH']}")


def stays(process: int) -> bool:
    """Whether a process exists, is no zombie, and stays; one that was killed may need a moment."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.05)
    return True


def test_an_answer_has_both_outputs_and_the_exit_status(tmp_path: Path) -> None:
    """What a program says is kept apart from what it complains of."""
    tool = script(tmp_path, 'echo "$1 watts"; echo trouble >&2; exit 3')
    answer = runner(tmp_path)([tool, "70"], ENOUGH_SECONDS)
    assert (answer.exit_status, answer.stdout, answer.stderr) == (3, "70 watts\n", "trouble\n")


def test_answers_are_in_no_national_language(tmp_path: Path) -> None:
    """Tools translate their words and write decimal commas elsewhere, and a parser must know one form."""
    tool = script(tmp_path, "echo $LC_ALL; echo ${LANG-none}; read line || echo no input")
    assert runner(tmp_path)([tool], ENOUGH_SECONDS).stdout == "C\nnone\nno input\n"


def test_a_missing_program_is_told_from_a_failing_one(tmp_path: Path) -> None:
    """A source then tries the other program that gives the same."""
    with pytest.raises(CommandMissingError, match="no-such-tool is not installed"):
        runner(tmp_path)(["no-such-tool"], ENOUGH_SECONDS)


def test_a_program_that_may_not_be_run_says_so(tmp_path: Path) -> None:
    """Not as a missing one: the remedy differs."""
    (tmp_path / "tool").mkdir()
    with pytest.raises(CommandError, match="can't be started") as caught:
        SystemRunner(str(tmp_path))(["tool"], ENOUGH_SECONDS)
    assert not isinstance(caught.value, CommandMissingError)


def test_a_hanging_program_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """At its deadline its whole process group goes, also the part that holds the pipe open."""
    tool = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; sleep 600")
    begun = time.monotonic()
    with pytest.raises(CommandTimeoutError, match="has not ended within 1 s and was killed"):
        runner(tmp_path)([tool], 1.0)
    assert time.monotonic() - begun < 20
    for name in ("child", "self"):
        assert not stays(int((tmp_path / name).read_text()))


def test_655_stuck_processes_can_not_come_to_be(tmp_path: Path) -> None:
    """However often a hanging tool is polled, no process of it is left (lovoo/ipmi_exporter#31)."""
    tool = script(tmp_path, f"echo $$ >> {tmp_path}/all; sleep 600")
    run = runner(tmp_path)
    for _ in range(3):
        with pytest.raises(CommandTimeoutError):
            run([tool], 0.3)
    assert not any(stays(int(line)) for line in (tmp_path / "all").read_text().split())


def test_a_process_that_can_not_be_killed_stays_the_only_one(tmp_path: Path) -> None:
    """While one hangs in the kernel its program is not started again, and afterwards it is."""
    tool = script(tmp_path, f"echo x >> {tmp_path}/starts; exec sleep 600")
    groups: list[int] = []
    run = SystemRunner(f"{tmp_path}:{os.environ['PATH']}", kill=lambda group, signal: groups.append(group))
    with pytest.raises(CommandTimeoutError, match="has not ended"):
        run([tool], 0.3)
    for again in (run, runner(tmp_path)):
        # Another runner too: sources are closed and opened anew.
        with pytest.raises(CommandTimeoutError, match="still hangs in the kernel, so it is not run again"):
            again([tool], 0.3)
    assert (tmp_path / "starts").read_text() == "x\n"
    os.killpg(groups[0], SIGKILL)
    assert not stays(groups[0])
    script(tmp_path, "echo well")
    assert run([tool], ENOUGH_SECONDS).stdout == "well\n"


def test_a_program_that_never_stops_talking_is_stopped(tmp_path: Path) -> None:
    """Its output is bounded, so that it can't take the agent's memory."""
    tool = script(tmp_path, "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")
    with pytest.raises(CommandError, match=f"more than {OUTPUT_BYTES_MAX} bytes"):
        runner(tmp_path)([tool], ENOUGH_SECONDS)


def test_bytes_that_are_no_text_do_not_lose_the_rest(tmp_path: Path) -> None:
    """A serial number of 0xFF bytes stands in the output of many a BMC."""
    tool = script(tmp_path, r"printf 'serial \377\377\nwatts 70\n'")
    assert "watts 70" in runner(tmp_path)([tool], ENOUGH_SECONDS).stdout


def test_a_recording_plays_its_answers_in_order_and_repeats_the_last() -> None:
    """So a fixture can show a fault that comes and goes."""
    run = RecordedRunner([RecordedCommand(["t"], stdout="1"), RecordedCommand(["t"], 1), RecordedCommand(["t"], stdout="3")])
    assert [run(["t"], 1.0).stdout for _ in range(4)] == ["1", "", "3", "3"]
    assert run.calls == [("t",)] * 4


def test_a_recorded_hang_times_out_without_waiting() -> None:
    """What took longer than it may is a timeout, at once."""
    run = RecordedRunner([RecordedCommand(["t"], seconds=600.0)])
    with pytest.raises(CommandTimeoutError):
        run(["t"], 10.0)


def test_a_recording_tells_missing_programs_from_missing_answers(tmp_path: Path) -> None:
    """What was not installed is no fault of the recording."""
    (tmp_path / "commands.json").write_text(json.dumps([{"argv": ["t", "-a"], "stdout": "x"}]))
    run = RecordedRunner.from_file(tmp_path / "commands.json")
    assert run(["t", "-a"], 1.0).stdout == "x"
    with pytest.raises(CommandError, match="not in the recording"):
        run(["t", "-b"], 1.0)
    with pytest.raises(CommandMissingError):
        run(["u"], 1.0)
    with pytest.raises(CommandMissingError):
        RecordedRunner.from_file(tmp_path / "none.json")(["t"], 1.0)


def test_a_recording_that_is_none_is_refused(tmp_path: Path) -> None:
    """With the file's name and what is wrong with it."""
    (tmp_path / "commands.json").write_text('[{"argv": "t"}]')
    with pytest.raises(ValueError, match=r"commands\.json is no list of recorded commands"):
        RecordedRunner.from_file(tmp_path / "commands.json")
