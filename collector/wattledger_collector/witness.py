"""A witness of logs: signs a checkpoint only if it continues what it has seen, so that no log shows two histories.

Text and state in, text and state out; no file, no clock. Sources of truth: C2SP tlog-witness for the request (`old SIZE`,
the hashes of the proof, an empty line, the checkpoint) and tlog-cosignature for the signature.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wattledger_collector.merkle import PROOF_HASHES_MAX, ProofError, check_consistency
from wattledger_collector.signed_note import (
    NoteError,
    SignedCheckpoint,
    VerifierKey,
    cosign,
    parse_checkpoint,
    parse_verifier_key,
)


class WitnessError(ValueError):
    """A checkpoint can't be signed; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A log's new checkpoint, and the proof that it continues the one of old_size leaves."""

    old_size: int
    proof: tuple[bytes, ...]
    signed: SignedCheckpoint

    def __str__(self) -> str:
        lines = [f"old {self.old_size}", *(base64.b64encode(each).decode() for each in self.proof)]
        return "\n".join(lines) + f"\n\n{self.signed}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness keeps of one log: its key, and the last checkpoint that it signed; size 0: none yet."""

    log_key: VerifierKey
    size: int
    root: bytes

    @property
    def tree(self) -> dict[str, Any]:
        """As the witness's file has it."""
        return {"key": str(self.log_key), "size": self.size, "root": self.root.hex()}


def read_seen(tree: Mapping[str, Any]) -> Seen:
    """What `tree` wrote. Raises WitnessError."""
    try:
        return Seen(parse_verifier_key(tree["key"]), int(tree["size"]), bytes.fromhex(tree["root"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WitnessError(f"the witness's file is damaged ({error}): restore its last copy") from error


def parse_request(text: str) -> Request:
    """A request, or a checkpoint alone, which stands for one that continues nothing. Raises WitnessError."""
    try:
        if not text.startswith("old "):
            return Request(0, (), parse_checkpoint(text))
        head, _, note = text.partition("\n\n")
        first, *lines = head.split("\n")
        proof = tuple(base64.b64decode(line, validate=True) for line in lines)
        if len(proof) > PROOF_HASHES_MAX:
            raise WitnessError(f"the proof has {len(proof)} hashes, more than any log needs")
        return Request(int(first.removeprefix("old ")), proof, parse_checkpoint(note))
    except (NoteError, binascii.Error, ValueError) as error:
        raise WitnessError(f"this is no request and no checkpoint: {error}") from error


def witness(
    request: Request, seen: Seen | None, log_keys: Sequence[str], name: str, key: Ed25519PrivateKey, at_seconds: int
) -> tuple[SignedCheckpoint, Seen]:
    """The checkpoint with the witness's signature, and what it keeps. Raises WitnessError, with nothing to be kept.

    seen: None for a log that the witness does not know yet; then log_keys has to name its key.
    """
    checkpoint = request.signed.checkpoint
    known = [seen.log_key] if seen else []
    try:
        known += [parse_verifier_key(text) for text in log_keys]
        signers = request.signed.signers([each for each in known if each.name == checkpoint.origin])
    except NoteError as error:
        raise WitnessError(str(error)) from error
    if not signers:
        raise WitnessError(
            f"the checkpoint is signed by no key that is known to be that of {checkpoint.origin}: "
            "name it with --log-key, as the log's operator published it"
        )
    if seen is not None and seen.size:
        _check_continues(request, seen)
    signed = cosign(request.signed, name, key, at_seconds)
    return signed, Seen(signers[-1], checkpoint.size, checkpoint.root)


def _check_continues(request: Request, seen: Seen) -> None:
    checkpoint = request.signed.checkpoint
    if checkpoint.size == seen.size and checkpoint.root == seen.root:
        return
    if checkpoint.size > seen.size and request.old_size != seen.size:
        raise WitnessError(
            f"this witness saw {seen.size} leaves: ask for the proof with `statement checkpoint --since {seen.size}`"
        )
    try:
        check_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, request.proof)
    except ProofError as error:
        raise WitnessError(f"the log does not continue what this witness saw: {error}") from error
