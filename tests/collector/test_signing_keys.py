"""Keys that several commands want at once, and rotations that are cut off."""

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wattledger_collector.signed_note import VerifierKey, verifier_key
from wattledger_collector.signing_keys import KeyFileError, load_key, load_or_make_key, replace_key


def wanted(path: Path, barrier: threading.Barrier) -> VerifierKey:
    """The key that a command gets that begins together with others."""
    barrier.wait()
    return verifier_key(load_or_make_key(path), "x")


def test_commands_that_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    """None reads half a file, none signs with a key that another's then takes the place of, and nothing else is left."""
    barrier = threading.Barrier(4)
    for number in range(20):
        path = tmp_path / f"{number}.key"
        with ThreadPoolExecutor(4) as threads:
            found = [threads.submit(wanted, path, barrier) for _ in range(4)]
        assert [each.result() for each in found] == [verifier_key(load_key(path), "x")] * 4
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 20


def test_a_rotation_that_was_cut_off_is_finished_and_not_begun_anew(tmp_path: Path) -> None:
    """The log has vouched for the coming key: it is put in place, at either of the two renamings."""
    for cut in ("before", "between"):
        path = tmp_path / cut
        old = verifier_key(load_or_make_key(path), "x")
        new = verifier_key(load_or_make_key(path.with_name(f"{cut}.new")), "x")
        if cut == "between":
            path.rename(path.with_name(f"{cut}.retired"))

        def vouch(one: Ed25519PrivateKey, other: Ed25519PrivateKey) -> None:
            raise AssertionError("the log would name a second heir")

        def is_vouched(key: Ed25519PrivateKey, new: VerifierKey = new) -> bool:
            return verifier_key(key, "x") == new

        replace_key(path, vouch, is_vouched)
        assert verifier_key(load_key(path), "x") == new
        assert verifier_key(load_key(path.with_name(f"{cut}.retired")), "x") == old


def test_a_coming_key_that_nobody_vouched_for_is_made_anew(tmp_path: Path) -> None:
    """What a rotation left that was cut off before it signed is not used."""
    path = tmp_path / "key"
    load_or_make_key(path)
    left = verifier_key(load_or_make_key(tmp_path / "key.new"), "x")
    replace_key(path, lambda old, new: None)
    assert verifier_key(load_key(path), "x") != left


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """One sentence."""
    with pytest.raises(KeyFileError, match=r"cannot use the signing key .*nowhere/key"):
        load_or_make_key(tmp_path / "nowhere" / "key")
