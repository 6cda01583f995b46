"""Who signs that a log has one history: notes and keys in one form, a witness that remembers, and keys in files."""

import base64
import random
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wattledger_collector import signed_note
from wattledger_collector.log_border import Border, unpack
from wattledger_collector.merkle import consistency_proof, leaf_hash, root_hash
from wattledger_collector.signed_note import (
    KIND_WITNESS,
    Checkpoint,
    NoteError,
    SignedCheckpoint,
    VerifierKey,
    parse_checkpoint,
    parse_verifier_key,
    verifier_key,
)
from wattledger_collector.signing_keys import KeyFileError, load_key, load_or_make_key, replace_key
from wattledger_collector.witness import Request, Seen, WitnessError, parse_request, read_seen, witness

ORIGIN = "wattledger/0123"
LOG, OTHER, WITNESS = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
LOG_KEY = verifier_key(LOG, ORIGIN)
LEAVES = [leaf_hash(bytes([number])) for number in range(13)]


def signed(leaves: list[bytes], key: Ed25519PrivateKey = LOG) -> SignedCheckpoint:
    """A log's checkpoint of these leaves."""
    return signed_note.sign(Checkpoint(ORIGIN, len(leaves), root_hash(leaves)), [(ORIGIN, key)])


def request(size: int, old_size: int, leaves: list[bytes] = LEAVES) -> Request:
    """What a log asks a witness that saw so many leaves."""
    return Request(old_size, tuple(consistency_proof(leaves[:size], old_size)), signed(leaves[:size]))


def ask(asked: Request, seen: Seen | None) -> tuple[SignedCheckpoint, Seen]:
    """What the witness answers at second 1000."""
    return witness(parse_request(str(asked)), seen, [str(LOG_KEY)] if seen is None else [], "w.example", WITNESS, 1000)


def test_a_checkpoint_is_the_same_text_whoever_writes_it() -> None:
    """The published form: origin, size, root, an empty line, a dash with name, and id with signature."""
    note = str(signed(LEAVES))
    lines = note.split("\n")
    assert lines[:4] == [ORIGIN, "13", base64.b64encode(root_hash(LEAVES)).decode(), ""]
    assert lines[4].startswith(f"\u2014 {ORIGIN} ")
    assert base64.b64decode(lines[4].split()[-1])[:4] == LOG_KEY.id
    assert str(parse_checkpoint(note)) == note
    assert parse_verifier_key(str(LOG_KEY)) == LOG_KEY


def test_no_bit_of_a_checkpoint_can_change() -> None:
    """Each flipped bit is no note, a false signature, or one of nobody that is known."""
    note = str(signed(LEAVES)).encode()
    for bit in range(8 * len(note)):
        spoiled = bytearray(note)
        spoiled[bit // 8] ^= 1 << bit % 8
        try:
            assert parse_checkpoint(spoiled.decode()).signers([LOG_KEY]) == [], bit
        except (NoteError, UnicodeDecodeError):
            continue


@pytest.mark.parametrize(
    "text",
    ["", "a\n1\n", "a\n01\nAA==\n\n\u2014 a AA==\n", "a b\n1\nAA==\n\n\u2014 a AA==\n", f"a\n1\n{'A' * 43}=\n\nhello\n"],
    ids=["empty", "unsigned", "leading zero", "space in the origin", "no dash"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """One sentence, never a crash."""
    with pytest.raises(NoteError):
        parse_checkpoint(text)


def test_a_witness_signs_what_continues_what_it_saw() -> None:
    """Its signature has its time, and it remembers the newest size; the log's own signature stays."""
    first, seen = ask(request(5, 0), None)
    key = verifier_key(WITNESS, "w.example", KIND_WITNESS)
    assert first.signers([LOG_KEY, key]) == [LOG_KEY, key]
    assert first.cosigned_at(key) == 1000
    again = read_seen(seen.tree)
    assert again == seen
    later, seen = ask(request(13, 5), again)
    assert (later.signers([key]), seen.size) == ([key], 13)
    # The same one again is no new history.
    assert ask(request(13, 0), seen)[1] == seen


def test_a_witness_refuses_a_split_view_and_a_shorter_log() -> None:
    """A log that shows another history to somebody else finds no witness for it."""
    _, seen = ask(request(5, 0), None)
    other = [*LEAVES[:4], leaf_hash(b"other"), *LEAVES[5:]]
    with pytest.raises(WitnessError, match="history was rewritten"):
        ask(request(13, 5, other), seen)
    with pytest.raises(WitnessError, match="does not continue"):
        ask(request(5, 0, other), seen)
    with pytest.raises(WitnessError, match="does not continue"):
        ask(request(4, 0), seen)
    with pytest.raises(WitnessError, match="--since 5"):
        ask(request(13, 4), seen)


def test_a_witness_signs_for_a_known_key_alone() -> None:
    """Neither for a stranger's, nor for a log whose key nobody named."""
    stranger = Request(0, (), signed(LEAVES, OTHER))
    with pytest.raises(WitnessError, match="--log-key"):
        ask(stranger, None)
    with pytest.raises(WitnessError, match="no key that is known"):
        witness(request(5, 0), None, [], "w.example", WITNESS, 1000)


def test_a_border_grows_as_the_tree_does() -> None:
    """At any size, packed and unpacked in between, the root is that of all leaves."""
    chance = random.Random(7)
    leaves = [chance.randbytes(32) for _ in range(70)]
    for size in range(70):
        border = Border()
        border.append(leaves[:size])
        assert border.root() == root_hash(leaves[:size])
        again = unpack(size, border.pack())
        again.append(leaves[size:])
        assert (again.size, again.root()) == (70, root_hash(leaves))
    with pytest.raises(ValueError, match="no border"):
        unpack(3, bytes(32))


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 600; one that others can read, or that is none, is refused with the remedy."""
    path = tmp_path / "statement.key"
    key = load_or_make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verifier_key(load_or_make_key(path), "x") == verifier_key(key, "x")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_key(path)
    path.write_text("hello")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="no private key"):
        load_key(path)


def test_a_replaced_key_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    """The old one vouches for the new; a second replacement does not overwrite the first one's key."""
    path = tmp_path / "statement.key"
    first = verifier_key(load_or_make_key(path), "x")
    vouched: list[VerifierKey] = []

    def vouch(old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> None:
        vouched.extend(verifier_key(key, "x") for key in (old, new))

    def fail(old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> None:
        raise RuntimeError("the ledger can't be written")

    with pytest.raises(RuntimeError):
        replace_key(path, fail)
    # Nobody vouched, and nothing has changed.
    assert verifier_key(load_key(path), "x") == first
    replace_key(path, vouch)
    assert vouched[0] == first != vouched[1] == verifier_key(load_key(path), "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeyFileError, match="retired"):
        replace_key(path, vouch)
