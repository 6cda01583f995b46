"""The certificate commands of deploy/README.md, run as they stand there, and a real mutual TLS connection by their files.

The commands are not copied here: a change of the README changes this test.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.promql import DEPLOY
from tests.system.conftest import RequireProgram
from tests.system.programs import AGENT, COLLECTOR, Program, free_ports, get, metric, wait_until

pytestmark = pytest.mark.system

# A name that is this machine everywhere.
COLLECTOR_NAME = "localhost"

# How an agent tells that it was sent away.
REFUSED = "the collector refused the stream"


def commands(block: str) -> str:
    """A block of shell commands of the README."""
    found = re.search(rf"<!-- tested: {block} -->\n```sh\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    assert found is not None, block
    return found[1]


def run(block: str, folder: Path, **names: str) -> None:
    """Run a block in a folder, with other names than the README's examples."""
    text = commands(block)
    for name, value in names.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1
    done = subprocess.run(["sh", "-e", "-c", text], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(require_program: RequireProgram, tmp_path: Path) -> Path:
    """A folder with an authority, the collector's certificate, and those of two hosts."""
    require_program("openssl", package="openssl")
    run("authority", tmp_path)
    run("collector", tmp_path, COLLECTOR=COLLECTOR_NAME)
    for host in ("server-0001", "server-0002"):
        run("host", tmp_path, HOST=host)
        for suffix in ("pem", "key"):
            shutil.move(tmp_path / f"host.{suffix}", tmp_path / f"{host}.{suffix}")
    return tmp_path


def agent(folder: Path, host: str, grpc: int, *, configured: str = "") -> Program:
    """An agent with a host's certificate. configured: the host that its configuration names."""
    path = folder / f"{host}.toml"
    path.write_text(
        f"host = {json.dumps(configured)}\nstate_dir = {json.dumps(str(folder / f'agent-{host}'))}\nflush_seconds = 1.0\n"
        "sources.fake.gpus = 0\n[collector]\n"
        f'address = "{COLLECTOR_NAME}:{grpc}"\nca_file = "{folder}/ca.pem"\n'
        f'certificate_file = "{folder}/{host}.pem"\nkey_file = "{folder}/{host}.key"\n'
    )
    return Program(AGENT, ["run", "--config", str(path)], folder / f"{host}.log")


def test_the_commands_make_certificates_that_work(folder: Path) -> None:
    """An agent is the host that its certificate names, and can't book for another one."""
    http, grpc = free_ports(2)
    (folder / "collector.toml").write_text(
        f'[server]\nport = {grpc}\ntls = {{ certificate = "collector.pem", key = "collector.key", ca = "ca.pem" }}\n'
        f'[http]\nport = {http}\n[store]\npath = "ledger.sqlite"\n[[site]]\nname = "here"\n'
    )

    def energy(host: str) -> float | None:
        text = get(f"http://127.0.0.1:{http}/metrics") or ""
        return metric(text, "wattledger_host_energy_joules_total", {"host": host})

    with (
        Program(COLLECTOR, ["serve", "--config", str(folder / "collector.toml")], folder / "collector.log"),
        agent(folder, "server-0001", grpc) as honest,
        agent(folder, "server-0002", grpc, configured="server-0003") as liar,
    ):
        wait_until(lambda: bool(energy("server-0001")), "the energy of the host in the certificate", 60)
        wait_until(lambda: REFUSED in liar.said, "the refusal of a host that is not in the certificate", 60)
        assert REFUSED not in honest.said
        assert energy("server-0003") is None
        assert (get(f"http://127.0.0.1:{http}/metrics") or "").count("wattledger_insecure_transport 0") == 1
