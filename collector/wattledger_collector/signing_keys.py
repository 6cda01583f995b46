"""The files that hold signing keys: made where there is none, readable by their owner alone.

Signs nothing. Source of truth: the file, PKCS#8 in PEM; who can read it can sign in the ledger's name.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

KEY_FILE_NAME: Final = "statement.key"


class KeyFileError(ValueError):
    """A key file can't be used; the text names it and says what to do."""


def load_or_make_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file, made if there is none. Raises KeyFileError."""
    try:
        if not path.exists():
            _make(path)
        return load_key(path)
    except OSError as error:
        raise KeyFileError(f"cannot use the signing key {path} ({error.strerror}): give this user access to it") from error


def load_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file. Raises KeyFileError."""
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read the signing key {path} ({error.strerror}): name another file") from error
    if mode & 0o077:
        raise KeyFileError(f"the signing key {path} can be read by others: chmod 600 it, and make a new one if it leaked")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path} is no private key in PEM without a password ({error}): name the right file") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"the key in {path} is not Ed25519: make one with `openssl genpkey -algorithm ed25519`")
    return key


def replace_key(
    path: Path,
    vouch: Callable[[Ed25519PrivateKey, Ed25519PrivateKey], None],
    is_vouched: Callable[[Ed25519PrivateKey], bool] = lambda key: False,
) -> None:
    """Put a new key in the file's place, and keep the old one beside it. Raises KeyFileError, and what vouch raises.

    vouch: is given the old and the new key, to sign with both. It is called before the new key takes effect, so that no key
    is ever in use that nobody vouched for. is_vouched: whether that was done for a key already; a rotation that was cut off
    after it is only finished.
    """
    retired, coming = (path.with_name(path.name + suffix) for suffix in (".retired", ".new"))
    try:
        if not (coming.exists() and is_vouched(load_key(coming))):
            old = load_key(path)
            _refuse(retired)
            # Of a rotation that was cut off before anybody vouched.
            coming.unlink(missing_ok=True)
            _make(coming)
            vouch(old, load_key(coming))
        if path.exists():
            _refuse(retired)
            path.rename(retired)
        coming.rename(path)
        _keep(path.parent)
    except OSError as error:
        raise KeyFileError(f"cannot replace the signing key {path} ({error.strerror}): give this user the folder") from error


def _refuse(retired: Path) -> None:
    if retired.exists():
        raise KeyFileError(f"there is a retired key at {retired}: move it to a safe place first, or delete it")


def _make(path: Path) -> None:
    """Make a key, unless there is one by now."""
    key = Ed25519PrivateKey.generate()
    # Never readable by others, not even for a moment; whole at its first sight, and never in the place of another.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            # Another command made one at the same moment, and may have signed with it.
            return
        _keep(path.parent)
    finally:
        Path(name).unlink()


def _keep(folder: Path) -> None:
    """Let the folder's names outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
