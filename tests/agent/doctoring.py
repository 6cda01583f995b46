"""For tests of `doctor`: hosts to look at, means that neither wait nor go out, and how a finding is found."""

import os
import shutil
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.agent.machines import FIXTURES

from wattledger_agent.commands import Answer, CommandMissingError
from wattledger_agent.config import AgentConfig, CollectorConfig, FakeConfig, SourcesConfig
from wattledger_agent.counters import Instant
from wattledger_agent.doctor import Means, Report, diagnose
from wattledger_agent.doctor_faults import Finding
from wattledger_agent.inventory import Roots
from wattledger_agent.machine import RecordedMachine, open_machine

FAKE = SourcesConfig(fake=FakeConfig(packages=1))

USER = os.getuid()


def no_connection(address: tuple[str, int], timeout: float) -> socket.socket:
    """A host on which no collector runs."""
    raise ConnectionRefusedError(111, "Connection refused")


def no_command(argv: Sequence[str], seconds_max: float) -> Answer:
    """A host without systemd."""
    raise CommandMissingError(argv[0])


# Nothing is waited for, and nobody is asked.
QUICK = Means(connect=no_connection, sleep=lambda seconds: None, run=no_command)


def recorded(name: str, folder: Path) -> RecordedMachine:
    """A fixture machine in a working copy that a test may spoil; its samples are not played yet."""
    return open_machine(FIXTURES / name, folder / name)


def spoilt(name: str, folder: Path) -> Path:
    """A copy of a fixture machine's folder, to be changed before it is opened."""
    root = folder / f"{name}-spoilt"
    shutil.copytree(FIXTURES / name, root, symlinks=True)
    return root


def of_machine(machine: RecordedMachine, config: AgentConfig | None = None) -> Report:
    """What doctor says of a recorded machine, in recorded time."""
    config = machine.config if config is None else config
    means = Means(connect=no_connection, instant=machine.instant, sleep=machine.advance, run=no_command)
    return diagnose(config, machine.roots, means)


def of_folder(root: Path) -> list[Finding]:
    """What doctor says of a machine's folder."""
    return of_machine(open_machine(root, root.parent / f"{root.name}-played")).findings


def put(root: Path, name: str, text: str) -> None:
    """Write one file of a machine, and the folders that it is in."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def of_fixture(name: str, folder: Path) -> list[Finding]:
    """What doctor says of a fixture machine."""
    return of_machine(recorded(name, folder)).findings


def of_host(
    folder: Path, config: AgentConfig | None = None, means: Means = QUICK, roots: Roots | None = None
) -> list[Finding]:
    """What doctor says of a simulated host whose state folder is in `folder`."""
    config = AgentConfig(state_dir=str(folder / "state"), sources=FAKE) if config is None else config
    return diagnose(config, Roots() if roots is None else roots, means).findings


def host_config(
    folder: Path, *, collector: CollectorConfig | None = None, host: str = "", quota_mebibytes: int = 256
) -> AgentConfig:
    """A simulated host with these settings."""
    return AgentConfig(
        host=host,
        state_dir=str(folder / "state"),
        spool_quota_mebibytes=quota_mebibytes,
        sources=FAKE,
        collector=CollectorConfig() if collector is None else collector,
    )


def fault(findings: Iterable[Finding], name: str) -> Finding:
    """The only finding of a fault."""
    findings = list(findings)
    found = [finding for finding in findings if finding.id == name]
    assert len(found) == 1, f"{name}: {len(found)} times in {[(one.check, one.id) for one in findings]}"
    return found[0]


def faults(findings: Iterable[Finding]) -> set[str]:
    """The faults that were found, notes left out."""
    return {finding.id for finding in findings if finding.verdict in ("warning", "failure")}


def instant(utc_seconds: float, *, synchronised: bool = True) -> Instant:
    """A moment on a host's clocks."""
    return Instant(bytes(16), 10**12, round(utc_seconds * 1e9), synchronised, 0)
