"""The command `wattledger-collector`: what can't be served is one sentence with the remedy, and nothing is begun."""

import asyncio
import re
import socket
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.certificates import Authority

from wattledger_collector.cli import main
from wattledger_collector.config import Configuration, Http, Server, StoreSettings
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.server import ServerError
from wattledger_collector.service import Service
from wattledger_collector.store import open_store

PERIOD = ("--from", "2026-01-01", "--to", "2026-02-01")


def run(*arguments: str) -> int | str | None:
    """Run the command; returns what it exits with: a status, or the text of an error."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that is refused; returns its sentence, as the user sees it."""
    status = run(*arguments)
    told = status if isinstance(status, str) else capsys.readouterr().err
    assert status == 1 or isinstance(status, str)
    sentences = [line for line in told.splitlines() if not line.startswith("INFO")]
    assert len(sentences) == 1, told
    assert sentences[0].startswith("wattledger-collector: ")
    return sentences[0].removeprefix("wattledger-collector: ")


def configure(folder: Path, more: str = "", *, grpc: int = 0, http: int = 0) -> str:
    """A collector on free ports; returns the path of its configuration."""
    path = folder / "collector.toml"
    path.write_text(f'[store]\npath = "{folder}/ledger.sqlite"\n[server]\nport = {grpc}\n[http]\nport = {http}\n{more}')
    return str(path)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('[[site]]\nnam = "hall"', "unknown key site[0].nam: did you mean site[0].name?"),
        ("[silence", "is not TOML"),
        ('[[site]]\nname = "hall"\nzone = "Germany"', "no factor table has a zone 'Germany': did you mean DE (Germany)"),
        ('[[site]]\nname = "hall"\npue = 0.5', "site[0].pue of site 'hall' is 0.5"),
        ('[factors]\nfiles = ["nothing.csv"]', "nothing.csv"),
    ],
)
def test_a_bad_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, sentence: str
) -> None:
    """With the key, the nearest valid one or the nearest zones; and no ledger is made."""
    assert sentence in refusal(capsys, "serve", "--config", configure(tmp_path, more))
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_factor_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator's own table is checked before anything runs."""
    (tmp_path / "own.csv").write_text("zone,grams\nDE,many\n")
    told = refusal(capsys, "serve", "--config", configure(tmp_path, '[factors]\nfiles = ["own.csv"]'))

    assert f"{tmp_path}/own.csv" in told


def test_a_missing_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the option that names another."""
    told = refusal(capsys, "serve", "--config", str(tmp_path / "nothing.toml"))
    assert told == f"cannot read {tmp_path}/nothing.toml: No such file or directory: name the file with --config"


def test_a_port_in_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of the page, and that for agents; with both ways out."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        told = refusal(capsys, "serve", "--config", configure(tmp_path, http=port))
        assert told == (
            f"cannot listen on 127.0.0.1:{port} for HTTP: Address already in use. End the program that uses the port, or "
            "choose another one (`http.port`, or --http-port with quickstart)."
        )
        # The port is taken first: a second collector by mistake does not touch the ledger.
        assert not (tmp_path / "ledger.sqlite").exists()
        told = refusal(capsys, "serve", "--config", configure(tmp_path, grpc=port))
        assert told.startswith(f"cannot listen on 127.0.0.1:{port} for agents: the port is in use")
        assert "`server.port`, or --grpc-port" in told


def test_an_address_of_another_machine_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its remedy is another address, not another port."""
    path = configure(tmp_path)
    Path(path).write_text(Path(path).read_text() + 'address = "192.0.2.1"\ninsecure = true\n')

    told = refusal(capsys, "serve", "--config", path)
    assert re.match(r"cannot listen on 192\.0\.2\.1:0 for HTTP: .* Give `http\.address` an address of this machine\.", told)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is in its place, or above it."""
    (tmp_path / "file").write_text("")
    for below in ("file/ledger.sqlite", "file/deeper/ledger.sqlite"):
        path = tmp_path / "collector.toml"
        path.write_text(f'[http]\nport = 0\n[server]\nport = 0\n[store]\npath = "{tmp_path}/{below}"\n')
        told = refusal(capsys, "serve", "--config", str(path))
        assert "a file is in its place: move it away, or set `store.path`" in told


def spoil_completely(path: Path) -> None:
    """No database at all."""
    path.write_bytes(b"no database, but long enough to be one" * 200)


def spoil_a_page(path: Path) -> None:
    """A database of which a page was overwritten."""
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 6] = bytes(range(256)) * 80
    path.write_bytes(content)


def make_newer(path: Path) -> None:
    """As a later release would leave it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def make_foreign(path: Path) -> None:
    """Another program's database."""
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_completely, "is damaged.*restore the latest backup"),
        (spoil_a_page, "is damaged.*restore the latest backup"),
        (make_newer, "was written by a newer Wattledger.*install that version, or restore a backup"),
        (make_foreign, "is a database of another program.*a file of its own"),
    ],
)
def test_a_database_that_cannot_be_used_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: str
) -> None:
    """Neither `serve` nor a report goes on with it, and neither changes it."""
    path = tmp_path / "ledger.sqlite"
    open_store(path, create=True).close()
    spoil(path)
    before = path.read_bytes()

    assert re.search(words, refusal(capsys, "serve", "--config", configure(tmp_path)))
    if spoil is not spoil_a_page:  # A report reads no more than it needs.
        assert re.search(words, refusal(capsys, "report", *PERIOD, "--store", str(path)))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "server.key").unlink(), r"cannot read server\.tls\.key .*server\.key: No such file"),
        (lambda folder: (folder / "server.pem").write_bytes(b"no PEM"), "are no certificate with its key"),
        (lambda folder: (folder / "ca.pem").write_bytes(b"no PEM"), "holds no certificates"),
    ],
)
def test_certificate_files_that_cannot_be_used_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], words: str
) -> None:
    """At the start, not at the first handshake."""
    authority = Authority()
    authority.write(tmp_path)
    authority.sign(dns=("localhost",)).write(tmp_path, "server")
    spoil(tmp_path)
    tls = '[server.tls]\ncertificate = "server.pem"\nkey = "server.key"\nca = "ca.pem"\n'

    assert re.search(words, refusal(capsys, "serve", "--config", configure(tmp_path, tls)))


def test_quickstart_refuses_what_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown zone, a file in the folder's place, a port in use; each with the option that mends it."""
    told = refusal(capsys, "quickstart", "--zone", "Germany", "--state-dir", str(tmp_path / "state"))
    assert "did you mean DE (Germany)" in told
    assert not (tmp_path / "state").exists()

    (tmp_path / "file").write_text("")
    told = refusal(capsys, "quickstart", "--zone", "DE", "--state-dir", str(tmp_path / "file"))
    assert told.endswith("there is a file of that name. Name one that you can write to with --state-dir.")

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = str(listener.getsockname()[1])
        for option in ("--http-port", "--grpc-port"):
            other = {"--http-port": "--grpc-port", "--grpc-port": "--http-port"}[option]
            told = refusal(
                capsys, "quickstart", "--zone", "DE", "--state-dir", str(tmp_path / "state"), option, port, other, "0"
            )
            assert option in told


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_that_is_none_has_status_2(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is an argument, so the usage is shown too."""
    assert run("quickstart", f"--http-port={port}") == 2
    assert f"{port!r} is no port: write 1 to 65535, or 0 for any free one" in capsys.readouterr().err


def test_copies_refuse_what_they_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No ledger to copy, no folder to copy to, and what is no copy."""
    ledger = tmp_path / "ledger.sqlite"
    assert "no database at" in refusal(capsys, "backup", str(tmp_path / "copy"), "--store", str(ledger))
    open_store(ledger, create=True).close()
    assert "no folder" in refusal(capsys, "backup", str(tmp_path / "none" / "copy"), "--store", str(ledger))
    (tmp_path / "junk").write_bytes(b"junk" * 2000)
    assert "is damaged" in refusal(capsys, "restore", str(tmp_path / "junk"), "--store", str(tmp_path / "new.sqlite"))
    assert not (tmp_path / "new.sqlite").exists()


def test_a_copy_is_made_and_put_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their commands, which say what they did."""
    config = configure(tmp_path)
    open_store(tmp_path / "ledger.sqlite", create=True).close()

    assert run("backup", str(tmp_path / "copy"), "--config", config) == 0
    assert re.search(r"copy: \d+ bytes, checked", capsys.readouterr().out)
    assert run("restore", str(tmp_path / "copy"), "--config", config, "--force") == 0
    assert "the counters of 0 hosts are withheld" in capsys.readouterr().out


def test_an_unknown_host_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is to be done with it."""
    ledger = tmp_path / "ledger.sqlite"
    open_store(ledger, create=True).close()
    for action in (["retire", "web-1"], ["rename", "web-1", "x"], ["replace", "web-1", "web-2"]):
        assert "web-1" in refusal(capsys, "host", *action, "--store", str(ledger))


def test_a_service_that_cannot_start_lets_go_of_everything(tmp_path: Path) -> None:
    """Its threads end, and the next attempt finds port and ledger free."""
    threads = set(threading.enumerate())
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        http = free.getsockname()[1]
        free.close()
        configuration = Configuration(
            server=Server(port=listener.getsockname()[1]),
            http=Http(port=http),
            store=StoreSettings(path=str(tmp_path / "ledger.sqlite")),
        )

        async def attempt() -> None:
            service = Service(configuration, load_catalog())
            with pytest.raises(ServerError, match="cannot listen"):
                await service.start()
            await service.stop()

        asyncio.run(attempt())
        socket.create_server(("127.0.0.1", http)).close()
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name in ("writer", "http")]
