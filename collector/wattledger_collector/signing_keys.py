"""The files that hold signing keys: made where there is none, readable by their owner alone.

Signs nothing. Source of truth: the file, PKCS#8 in PEM; who can read it can sign in the ledger's name.
"""

import os
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
        return load_key(path) if path.exists() else _make(path)
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


def replace_key(path: Path, vouch: Callable[[Ed25519PrivateKey, Ed25519PrivateKey], None]) -> None:
    """Put a new key in the file's place, and keep the old one beside it. Raises KeyFileError, and what vouch raises.

    vouch: is given the old and the new key, to sign with both. It is called before the new key takes effect, so that no key
    is ever in use that nobody vouched for.
    """
    old = load_key(path)
    retired, coming = (path.with_name(path.name + suffix) for suffix in (".retired", ".new"))
    if retired.exists():
        raise KeyFileError(f"there is a retired key at {retired}: move it to a safe place first, or delete it")
    try:
        # Of a rotation that was cut off.
        coming.unlink(missing_ok=True)
        new = _make(coming)
        vouch(old, new)
        path.rename(retired)
        coming.rename(path)
    except OSError as error:
        raise KeyFileError(f"cannot replace the signing key {path} ({error.strerror}): give this user the folder") from error


def _make(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    # Never readable by others, not even for a moment; and never in the place of a file that appeared meanwhile.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    return key
