"""The runner of benchmarks: what it passes, and what it calls a failure."""

import json
from pathlib import Path

import pytest
from tests.bench.output import missing, report
from tests.bench.run import BENCHMARKS, problem_of, problems_of, run

LINE = {"name": "a", "value": 1.5, "unit": "us", "ratio": 0.5, "comparison": "b: 3 us"}


def test_a_line_that_was_reported_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """The ratio is the value over its comparison, and both are rounded to what can be stood for."""
    report("a", 1.23456789, "us", 2.5, "b")
    line = capsys.readouterr().out.strip()
    assert problem_of(line) == ""
    assert json.loads(line) == {"name": "a", "value": 1.2346, "unit": "us", "ratio": 0.49383, "comparison": "b: 2.5 us"}


@pytest.mark.parametrize("key", ["name", "value", "unit", "ratio"])
@pytest.mark.parametrize("value", [None, "", True, float("nan")])
def test_a_line_without_one_of_its_four_is_named(key: str, value: object) -> None:
    """Missing, empty, or not a number where one is due."""
    assert problem_of(json.dumps(LINE)) == ""
    assert key in problem_of(json.dumps({**LINE, key: value}))
    assert key in problem_of(json.dumps({name: kept for name, kept in LINE.items() if name != key}))


def test_what_is_missing_is_said_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """A program to compare with need not be there; a line without its reason says nothing."""
    missing("a_beside_b", "b is not installed: apt install b")
    line = capsys.readouterr().out.strip()
    assert problem_of(line) == ""
    assert problem_of(json.dumps({**json.loads(line), "missing": ""}))
    assert problem_of(json.dumps({"missing": "b is not installed"}))


@pytest.mark.parametrize("line", ["", "rate: 5", "[1]", "5"])
def test_talk_is_no_figure(line: str) -> None:
    """Standard output is for objects alone."""
    assert problem_of(line)


def test_a_benchmark_that_fails_or_says_nothing_is_a_failure() -> None:
    """Its figures may be right, and still it did not complete."""
    assert problems_of(0, json.dumps(LINE) + "\n") == []
    assert problems_of(3, json.dumps(LINE) + "\n") == ["exit status 3"]
    assert problems_of(0, "") == ["it printed nothing"]


def test_a_benchmark_that_hangs_is_ended() -> None:
    """The others still run."""
    assert run(["timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"], 0.5) == ["it took longer than 0.5 s"]


def test_every_benchmark_is_run() -> None:
    """One that is not in the list would rot."""
    scripts = {path.stem for path in Path(__file__).parent.glob("*.py") if "--small" in path.read_text()}
    assert {f"tests.bench.{script}" for script in scripts - {"run", "test_run"}} == {command[0] for command in BENCHMARKS}
