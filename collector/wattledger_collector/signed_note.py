"""Signed notes and the checkpoints in them: the text forms in which logs publish what they contain.

Bytes and text in, values out; no file, no clock, no chance. Sources of truth: C2SP signed-note, tlog-checkpoint and
tlog-cosignature (https://c2sp.org). A checkpoint is a note whose text is the log's origin, its size, and the root of its
tree; a log signs the text, a witness signs the text with the time at which it saw it.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# What a key is for stands in its id: a log's key can't be passed off as a witness's.
KIND_LOG: Final = 1
KIND_WITNESS: Final = 4

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_TIME_BYTES: Final = 8
_ID_BYTES: Final = 4
_DASH: Final = "\u2014 "
_NEXT_KEY: Final = "next-key "

# A log with two keys and a dozen witnesses; more is no checkpoint.
SIGNATURES_MAX: Final = 64


class NoteError(ValueError):
    """A note, key or signature is not what it should be; the text says which."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name of who signs with it. kind: KIND_LOG or KIND_WITNESS."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes by which a signature says which key it was made with."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_encode(bytes([self.kind]) + self.public)}"

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is of this key over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One line under a note. payload: what follows the key's id."""

    name: str
    key_id: bytes
    payload: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {_encode(self.key_id + self.payload)}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's whole state: who it is, how many leaves it has, and the root of their tree.

    next_key: the key that takes the place of the one that signs, in a line of its own; empty: none does. It stands in what
    is signed, since anybody can put a signature of their own beside the log's.
    """

    origin: str
    size: int
    root: bytes
    next_key: str = ""

    @property
    def text(self) -> str:
        """The lines that are signed."""
        extension = f"{_NEXT_KEY}{self.next_key}\n" if self.next_key else ""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n{extension}"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and who signed it."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.checkpoint.text + "\n" + "".join(map(str, self.signatures))

    def signers(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """The keys among these that signed it. Raises NoteError for a signature under one of them that is false."""
        found = []
        for key in keys:
            for signature in self.signatures:
                if (signature.name, signature.key_id) == (key.name, key.id):
                    if not key.verify(*_signed(self.checkpoint, key, signature)):
                        raise NoteError(f"the signature of {key.name} is false: the checkpoint was changed")
                    found.append(key)
        return found

    def cosigned_at(self, key: VerifierKey) -> int | None:
        """When a witness saw it, in seconds since 1970-01-01 UTC; None if it did not sign."""
        for signature in self.signatures:
            if (signature.name, signature.key_id) == (key.name, key.id) and key.kind == KIND_WITNESS:
                return int.from_bytes(signature.payload[:_TIME_BYTES], "big")
        return None


def verifier_key(private: Ed25519PrivateKey, name: str, kind: int = KIND_LOG) -> VerifierKey:
    """The public half. Raises NoteError for a name that can't stand in a note."""
    _check_name(name)
    return VerifierKey(name, kind, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def sign(checkpoint: Checkpoint, keys: Sequence[tuple[str, Ed25519PrivateKey]]) -> SignedCheckpoint:
    """A checkpoint signed by the log's keys; two while one takes the other's place."""
    message = checkpoint.text.encode()
    signatures = [Signature(name, verifier_key(private, name).id, private.sign(message)) for name, private in keys]
    return SignedCheckpoint(checkpoint, tuple(signatures))


def cosign(signed: SignedCheckpoint, name: str, private: Ed25519PrivateKey, at_seconds: int) -> SignedCheckpoint:
    """The checkpoint with a witness's signature, which replaces an earlier one of the same key."""
    key = verifier_key(private, name, KIND_WITNESS)
    payload = at_seconds.to_bytes(_TIME_BYTES, "big")
    payload += private.sign(_witnessed(signed.checkpoint, at_seconds))
    others = tuple(each for each in signed.signatures if (each.name, each.key_id) != (name, key.id))
    return SignedCheckpoint(signed.checkpoint, (*others, Signature(name, key.id, payload)))


def parse_verifier_key(text: str) -> VerifierKey:
    """A key from its text, `name+id+key`. Raises NoteError."""
    # The last part may itself contain plus signs; names must not.
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise NoteError(f"{text[:80]!r} is no key: it has the form name+id+key")
    name, key_id, encoded = parts
    _check_name(name)
    decoded = _decode(encoded, "key")
    if len(decoded) != 1 + _KEY_BYTES or decoded[0] not in (KIND_LOG, KIND_WITNESS):
        raise NoteError(f"the key of {name} is no Ed25519 key of a log or a witness")
    key = VerifierKey(name, decoded[0], decoded[1:])
    if key.id.hex() != key_id:
        raise NoteError(f"the key of {name} does not have the id {key_id}: it was changed")
    return key


def parse_checkpoint(text: str) -> SignedCheckpoint:
    """A signed checkpoint from its text; whether signatures are true is asked by `signers`. Raises NoteError."""
    body, divider, lines = text.partition("\n\n")
    parts = body.split("\n")
    if not divider or len(parts) not in (3, 4) or not lines.endswith("\n"):
        raise NoteError("this is no checkpoint: it has three lines, or a fourth with a key, an empty one, and signatures")
    origin, size, root = parts[:3]
    _check_name(origin)
    if not size.isascii() or not size.isdigit() or (size != "0" and size.startswith("0")):
        raise NoteError(f"the checkpoint's size is {size[:40]!r}: it has to be a whole number")
    digest = _decode(root, "root")
    if len(digest) != _KEY_BYTES:
        raise NoteError(f"the checkpoint's root has {len(digest)} bytes: it has to have {_KEY_BYTES}")
    signatures = [_parse_signature(line) for line in lines[:-1].split("\n")]
    if not 0 < len(signatures) <= SIGNATURES_MAX:
        raise NoteError(f"the checkpoint has {len(signatures)} signatures: 1 to {SIGNATURES_MAX} are allowed")
    next_key = _parse_next_key(origin, parts[3]) if len(parts) == 4 else ""
    return SignedCheckpoint(Checkpoint(origin, int(size), digest, next_key), tuple(signatures))


def _parse_next_key(origin: str, line: str) -> str:
    text = line.removeprefix(_NEXT_KEY)
    key = parse_verifier_key(text)
    if not line.startswith(_NEXT_KEY) or str(key) != text or (key.name, key.kind) != (origin, KIND_LOG):
        raise NoteError(f"{line[:80]!r} does not name the log's next key")
    return text


def _parse_signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH):
        raise NoteError(f"{line[:80]!r} is no signature: it begins with a dash and a name")
    _check_name(name)
    decoded = _decode(encoded, f"signature of {name}")
    payload = decoded[_ID_BYTES:]
    if len(payload) not in (_SIGNATURE_BYTES, _TIME_BYTES + _SIGNATURE_BYTES):
        raise NoteError(f"the signature of {name} has {len(payload)} bytes, which no kind of ours has")
    return Signature(name, decoded[:_ID_BYTES], payload)


def _signed(checkpoint: Checkpoint, key: VerifierKey, signature: Signature) -> tuple[bytes, bytes]:
    """What was signed, and the signature of it."""
    if key.kind == KIND_LOG:
        return checkpoint.text.encode(), signature.payload
    at_seconds = int.from_bytes(signature.payload[:_TIME_BYTES], "big")
    return _witnessed(checkpoint, at_seconds), signature.payload[_TIME_BYTES:]


def _witnessed(checkpoint: Checkpoint, at_seconds: int) -> bytes:
    return f"cosignature/v1\ntime {at_seconds}\n{checkpoint.text}".encode()


def _check_name(name: str) -> None:
    if not name or "+" in name or not name.isprintable() or any(character.isspace() for character in name):
        raise NoteError(f"{name[:80]!r} is no name of a key or log: use no spaces and no plus sign")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError(f"the {what} is not base64: {error}") from error
    # The last letter may hide bits that mean nothing; a text has one form only.
    if _encode(data) != text:
        raise NoteError(f"the {what} is not base64 in its one form: it was changed")
    return data
