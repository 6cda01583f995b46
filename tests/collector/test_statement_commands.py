"""The commands of statements, as an operator, an auditor and a witness run them."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.collector.authorities import Authority
from tests.collector.closed_ledgers import BEGIN, COLUMNS, DAY, MWH, Ledger, row

from wattledger_collector import der
from wattledger_collector.cli import main
from wattledger_collector.signed_note import parse_checkpoint
from wattledger_collector.verify import main as verify_alone

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a ledger with two days of one host; returns exit status, output and complaints."""
    ledger = Ledger(tmp_path)
    ledger.book("a", [row(MWH), row(2 * MWH, BEGIN + DAY)])
    ledger.store.close()

    def run(*words: str, store: bool = True) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*words, *(["--store", str(tmp_path / "ledger.sqlite")] if store else [])])
        out, complaints = capsys.readouterr()
        return int(ended.value.code or 0), out, complaints

    return run


def close(run: Run, begin: str = "2023-04-01", end: str = "2023-04-02") -> tuple[int, str, str]:
    """Close a period."""
    return run("statement", "close", "--from", begin, "--to", end)


def test_a_period_is_closed_shown_bundled_and_verified(run: Run, tmp_path: Path) -> None:
    """The way of the README: what is shown is what is hashed, and a folder and a zip file both verify."""
    status, out, _ = close(run)
    assert status == 0
    assert out.startswith("Statement 1, sha256 ")
    assert close(run)[2] == "nothing has changed since statement 1, which stands\n"
    (listed,) = json.loads(run("statement", "list", "--json")[1])
    shown = run("statement", "show", "1", "--json")[1]
    assert sha256(shown.encode()).hexdigest() == listed["sha256"]
    assert listed["totals"][0]["energy_microjoules"] == str(MWH)
    assert "2023-04-01T00:00" in run("statement", "list")[1]
    for name in ("bundle", "bundle.zip"):
        assert run("statement", "bundle", "--out", str(tmp_path / name))[0] == 0
        status, out, _ = run("verify", str(tmp_path / name), store=False)
        assert (status, out.splitlines()[-1]) == (0, "verified: every figure follows from the leaves")
    (tmp_path / "bundle" / "gaps.json").write_text("[ ]")
    status, out, _ = run("verify", str(tmp_path / "bundle"), store=False)
    assert (status, out.splitlines()[-1]) == (1, "NOT verified")
    assert "FAILED: gaps.json was changed, or manifest.json was" in out


def test_what_is_declared_enters_the_statement(run: Run, tmp_path: Path) -> None:
    """--inventory names it; what covers the load, what does not, and both totals are shown."""
    (tmp_path / "certificates.csv").write_text(
        COLUMNS
        + "wind,GO,AIB,IN,2023-04-01T00:00Z,2023-04-02T00:00Z,400000,0,Example,A,1,1\n"
        + "free,GO,AIB,IN,2023-04-01T00:00Z,2023-04-02T00:00Z,400000,0,,B,1,1\n"
    )
    inventory = tmp_path / "inventory.toml"
    inventory.write_text(
        'organisation = "Example"\napproach = "operational_control"\n'
        '[[holding]]\nsite = "hall"\nsituation = "owned"\nevidence = "deed"\n'
        '[certificates]\nbeneficiary = "Example"\nfiles = ["certificates.csv"]\n'
    )
    words = ("statement", "close", "--from", "2023-04-01", "--to", "2023-04-02", "--inventory", str(inventory))
    status, out, _ = run(*words)
    assert status == 0
    assert "certificate wind covers 400.000 kWh" in out
    assert "certificate free counts for nothing, not_retired" in out
    assert re.search(r"no residual mix for [0-9.,]+ kWh of IN: the grid average stands in for it", out)
    market = json.loads(run("statement", "show", "--json")[1])["market"]
    assert [each["name"] for each in market["files"]] == ["inventory.toml", "certificates.csv"]
    (whole,), (covered,) = market["all"]["location_based"], market["all"]["market_based"]
    assert Fraction(covered["grams"]["exact"]) == Fraction(whole["grams"]["exact"]) * Fraction(6, 10)
    inventory.write_text("organisation = 1\n")
    status, _, complaint = run(*words)
    assert (status, "inventory.toml" in complaint) == (1, True)


def test_a_witness_signs_and_a_bundle_carries_its_signature(run: Run, tmp_path: Path) -> None:
    """Checkpoint, witness, cosigned, a second statement with a proof; the auditor asks for the witness."""
    close(run)
    log_key = run("statement", "checkpoint", "--keys")[1].strip()
    note = tmp_path / "note"
    note.write_text(run("statement", "checkpoint")[1])
    state = ("--name", "auditor.example/witness", "--state", str(tmp_path / "witness"))
    status, _, complaint = run("statement", "witness", str(note), *state, store=False)
    assert (status, "--log-key" in complaint) == (1, True)
    _, signed, complaint = run("statement", "witness", str(note), *state, "--log-key", log_key, store=False)
    witness_key = complaint.removeprefix("witness key: ").strip()
    note.write_text(signed)
    assert run("statement", "cosigned", str(note))[1] == "1 new signature kept\n"
    assert run("statement", "cosigned", str(note))[1] == "0 new signatures kept\n"
    close(run, "2023-04-02", "2023-04-03")
    request = tmp_path / "request"
    request.write_text(run("statement", "checkpoint", "--since", str(parse_checkpoint(signed).checkpoint.size))[1])
    assert run("statement", "witness", str(request), *state, store=False)[0] == 0
    out = str(tmp_path / "bundle")
    run("statement", "bundle", "1", "--out", out)
    assert verify_alone([out, "--witness", witness_key, "--key", log_key, "--checkpoint", str(note)]) == 0
    assert verify_alone([out, "--witness", log_key]) == 1


def test_a_time_stamp_is_asked_for_kept_and_told(run: Run, tmp_path: Path) -> None:
    """Request, answer, and a bundle by which an auditor who knows the root learns the instant."""
    close(run)
    request, answer, root = tmp_path / "request.tsq", tmp_path / "answer.tsr", tmp_path / "root.pem"
    assert run("statement", "checkpoint", "--time-stamp-request", str(request))[0] == 0
    _, imprint, nonce, _ = der.sequence(der.parse(request.read_bytes()))
    digest = der.sequence(imprint)[1].content
    authority = Authority()
    root.write_bytes(authority.root.public_bytes(Encoding.PEM))
    trusting = ("--tsa-certificate", str(root))
    for false, words in (
        (authority.answer(digest, nonce.integer() + 1), "answers another request"),
        (authority.answer(bytes(32), nonce.integer()), "is of no checkpoint of this ledger"),
        (Authority().answer(digest, nonce.integer()), "does not lead to one"),
    ):
        answer.write_bytes(false)
        status, _, complaint = run("statement", "time-stamped", str(answer), *trusting)
        assert (status, words in complaint, complaint.count("\n")) == (1, True, 1)
    answer.write_bytes(authority.answer(digest, nonce.integer()))
    assert run("statement", "time-stamped", str(answer))[1].endswith("name its certificate to have checked who that is\n")
    assert run("statement", "time-stamped", str(answer), *trusting)[1].startswith(
        "there already: the log of 2 leaves, 2026-"
    )
    bundle = str(tmp_path / "bundle")
    run("statement", "bundle", "--out", bundle)
    status, out, _ = run("verify", bundle, *trusting, store=False)
    assert (status, "was there on 2026-02-03T04:05:06+00:00: time stamp 77 of CN=Clock" in out) == (0, True)


def test_one_hosts_day_is_disclosed_and_verified(run: Run, tmp_path: Path) -> None:
    """The tenant of a server checks its figures with the statement that everybody has."""
    close(run)
    statement = tmp_path / "statement.json"
    statement.write_text(run("statement", "show", "--json")[1])
    out = str(tmp_path / "leaf.zip")
    status, told, _ = run("statement", "disclose", "1", "--host", "a", "--day", "2023-04-01", "--out", out)
    assert (status, told.startswith(f"{out}: host a on 2023-04-01 of statement 1, ")) == (0, True)
    status, told, _ = run("verify", out, "--statement", str(statement), store=False)
    assert (status, told.splitlines()[-1]) == (0, "verified: the leaf is in the log as it was signed")
    assert "host a on 2023-04-01 at hall: cpu 1000.000000 kWh" in told
    status, _, complaint = run("statement", "disclose", "--host", "b", "--day", "2023-04-01", "--out", str(tmp_path / "b"))
    assert (status, "has no leaf of host b" in complaint) == (1, True)


def test_a_key_is_rotated_and_later_statements_verify_by_the_first(run: Run, tmp_path: Path) -> None:
    """The old key is kept beside the new one, and an auditor who knows it needs no other."""
    close(run)
    first = run("statement", "checkpoint", "--keys")[1].strip()
    second = run("statement", "rotate-key")[1].strip()
    assert second != first
    close(run, "2023-04-02", "2023-04-03")
    out = str(tmp_path / "bundle")
    run("statement", "bundle", "--out", out)
    assert verify_alone([out, "--key", first]) == 0
    assert (tmp_path / "statement.key.retired").exists()


def test_the_key_that_is_configured_signs(run: Run, tmp_path: Path) -> None:
    """Its path is relative to the configuration's folder; --key wins over it, and one that others can read is refused."""
    (tmp_path / "keys").mkdir()
    configuration = tmp_path / "collector.toml"
    configuration.write_text('[store]\npath = "ledger.sqlite"\n[statements]\nkey = "keys/log.pem"\n')
    span = ("--from", "2023-04-01", "--to", "2023-04-02")
    assert run("statement", "close", *span, "--config", str(configuration), store=False)[0] == 0
    assert [each.name for each in (tmp_path / "keys").iterdir()] == ["log.pem"]
    assert not (tmp_path / "statement.key").exists()
    assert run("statement", "rotate-key", "--config", str(configuration), store=False)[0] == 0
    assert sorted(each.name for each in (tmp_path / "keys").iterdir()) == ["log.pem", "log.pem.retired"]
    (tmp_path / "keys" / "log.pem").chmod(0o644)
    span = ("--from", "2023-04-02", "--to", "2023-04-03")
    status, _, complaint = run("statement", "close", *span, "--config", str(configuration), store=False)
    assert (status, "chmod 600" in complaint) == (1, True)
    retired = ("--key", str(tmp_path / "keys" / "log.pem.retired"))
    complaint = run("statement", "close", *span, *retired, "--config", str(configuration), store=False)[2]
    assert "signing key was replaced by" in complaint


def test_a_lost_key_is_not_replaced_in_silence(run: Run, tmp_path: Path) -> None:
    """As after a restore without it, or a rotation that was cut off: nobody would have vouched for a new one."""
    close(run)
    (tmp_path / "statement.key").rename(tmp_path / "kept")
    status, _, complaints = close(run, "2023-04-02", "2023-04-03")
    assert status == 1
    assert "the log was signed with a key that is not at" in complaints
    assert not (tmp_path / "statement.key").exists()
    (tmp_path / "kept").rename(tmp_path / "statement.key")
    assert close(run, "2023-04-02", "2023-04-03")[0] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("show",), "no period is closed yet"),
        (("show", "7"), "there is no statement 7"),
        (("checkpoint",), "the log is empty"),
        (("rotate-key",), "no statement was signed yet"),
        (("cosigned", "/nowhere"), "cannot read /nowhere"),
        (("close", "--from", "2023-04-01", "--to", "2999-01-01"), "outside the years"),
        (("close", "--from", "2023-04-01", "--to", "2199-01-01"), "still to come"),
    ],
    ids=["none", "number", "empty log", "no key", "no file", "year", "future"],
)
def test_what_cannot_be_done_is_one_sentence(run: Run, words: tuple[str, ...], complaint: str) -> None:
    """Each with its remedy, on standard error, and exit status 1."""
    status, out, told = run("statement", *words)
    assert (status, out) == (1, "")
    assert complaint in told
    assert told.count("\n") == 1
