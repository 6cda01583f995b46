"""The systemd units under the real systemd-analyze, and their system call filters against what the programs really call.

No unit is started: that needs systemd as the first process. The programs run under strace, on loopback.
"""

import re
import subprocess
from functools import partial
from pathlib import Path

import pytest
from tests.promql import DEPLOY
from tests.system.conftest import RequireProgram
from tests.system.programs import AGENT, COLLECTOR, Program, free_ports, get, metric, wait_until

pytestmark = pytest.mark.system

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
# The agent has most of it from the network, and from what it must see: GPUs, the kernel's clock state, and for GPUs the
# processes of others (ProtectProc=default alone is 0.2).
EXPOSURE_MAX = 2.1

# Called only as root, which the units are not: SQLite gives a new file to its folder's owner.
ROOT_ALONE = {"fchown"}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def analyze(require_program: RequireProgram) -> str:
    """Path of systemd-analyze."""
    return require_program("systemd-analyze", package="systemd")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_valid(analyze: str, tmp_path: Path, unit: Path) -> None:
    """systemd understands every line. The program itself is not installed here, so another one stands for it."""
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    done = run(analyze, "verify", copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_expose_little(analyze: str, unit: Path) -> None:
    """systemd's own score, from 0 (best) to 10, is at most 2.1."""
    done = run(analyze, "security", "--offline=true", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE_MAX


def test_users_are_made(require_program: RequireProgram) -> None:
    """systemd-sysusers takes the file, and would make both users."""
    tool = require_program("systemd-sysusers", package="systemd")
    done = run(tool, "--dry-run", DEPLOY / "systemd" / "wattledger.sysusers")
    assert done.returncode == 0, done.stderr
    for user in ("wattledger", "wattledger-collector"):
        assert f"user '{user}'" in done.stdout + done.stderr


def allowed(analyze: str, unit: Path) -> set[str]:
    """The system calls that a unit's SystemCallFilter lines leave, read in their order (man systemd.exec(5))."""
    calls = _members(analyze, "@default")
    for line in re.findall(r"^SystemCallFilter=(.+)$", unit.read_text(), re.MULTILINE):
        named = set().union(*(_members(analyze, name) for name in line.removeprefix("~").split()))
        calls = calls - named if line.startswith("~") else calls | named
    return calls | _members(analyze, "@default")


def _members(analyze: str, name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = run(analyze, "syscall-filter", name).stdout.splitlines()[1:]
    words = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
    return set().union(*(_members(analyze, word) for word in words))


def called(trace: Path) -> set[str]:
    """The names of the system calls in strace's output."""
    return set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


def ended(trace: Path, pid: int) -> bool:
    """Whether strace has written the end of a process."""
    # Process ids are padded to a column.
    return re.search(rf"^{pid} +\+\+\+ exited", trace.read_text(), re.MULTILINE) is not None


def test_filters_admit_what_the_programs_call(analyze: str, require_program: RequireProgram, tmp_path: Path) -> None:
    """From start to a clean end, with energy metered, delivered and shown, neither program calls what its filter refuses."""
    strace = require_program("strace", package="strace")
    http, grpc = free_ports(2)
    (tmp_path / "collector.toml").write_text(
        f'server.port = {grpc}\nhttp.port = {http}\nstore.path = "ledger.sqlite"\n[[site]]\nname = "here"\n'
    )
    (tmp_path / "agent.toml").write_text(
        f'host = "a"\nstate_dir = "{tmp_path / "agent"}"\nflush_seconds = 1.0\n'
        f'collector.address = "127.0.0.1:{grpc}"\nsources.fake.gpus = 1\n'
    )

    def traced(name: str, module: str, command: str) -> Program:
        # As a grandchild, so that signals reach the program.
        trace = [strace, "--daemonize", "--follow-forks", f"--output={tmp_path / name}.strace"]
        arguments = [command, "--config", str(tmp_path / f"{name}.toml")]
        return Program(module, arguments, tmp_path / f"{name}.log", prefix=trace)

    def is_shown() -> bool:
        text = get(f"http://127.0.0.1:{http}/metrics") or ""
        return bool(metric(text, "wattledger_host_energy_joules_total", {"host": "a"}))

    with traced("collector", COLLECTOR, "serve") as collector, traced("agent", AGENT, "run") as agent:
        wait_until(is_shown, "the host's energy on /metrics", 60)
        programs = {"agent": agent, "collector": collector}
        for program in programs.values():
            assert program.stop() == 0, program.said
    for name, program in programs.items():
        trace = tmp_path / f"{name}.strace"
        wait_until(partial(ended, trace, program.pid), "the end of the trace")
        calls = called(trace)
        assert {"futex", "epoll_wait"} <= calls
        assert calls - allowed(analyze, DEPLOY / "systemd" / f"wattledger-{name}.service") - ROOT_ALONE == set()
