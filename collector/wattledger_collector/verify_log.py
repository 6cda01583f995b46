"""Checks what a bundle shows of the log: its checkpoints, who signed them, and that it only grew.

Reads no leaf and reckons no figure. Sources of truth: RFC 6962 for the tree, C2SP tlog-checkpoint and tlog-cosignature for
the notes, and what the reader knows from elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from wattledger_collector.bundle_files import Files
from wattledger_collector.merkle import ProofError, check_consistency
from wattledger_collector.signed_note import (
    KIND_LOG,
    KIND_WITNESS,
    SignedCheckpoint,
    VerifierKey,
    parse_checkpoint,
    parse_verifier_key,
)
from wattledger_collector.time_stamps import TimeStampError, check_authority, load_trusted, read_time_stamp
from wattledger_collector.verdict import Verdict

TIME_STAMP_SUFFIX: Final = ".tsr"


@dataclass(frozen=True, slots=True)
class Trust:
    """What the reader knows from elsewhere.

    earlier: a checkpoint of the same log that was published before. keys: of the log, `name+id+key`; without one the
    bundle's own first key is believed, and said. witnesses: keys of witnesses, all of which must have signed. authorities:
    certificates (PEM) of time-stamping authorities or their roots, to one of which a time stamp must lead.
    """

    earlier: str | None = None
    keys: Sequence[str] = ()
    witnesses: Sequence[str] = ()
    authorities: Sequence[bytes] = ()


class LogCheck:
    """The steps of a check; each adds to the verdict what it finds. Raises NoteError, ProofError, ValueError, KeyError."""

    def __init__(self, files: Files, verdict: Verdict, trust: Trust, log: Mapping[str, Any]) -> None:
        """log: what log.json says."""
        self._files = files
        self._verdict = verdict
        self._trust = trust
        self._rotations: Sequence[str] = log["rotations"]
        self._proofs: Sequence[Mapping[str, Any]] = log["proofs"]
        # Bundles of earlier releases have none.
        self._time_stamps: Mapping[str, str] = log.get("time_stamps", {})
        self.own = parse_checkpoint(files.read("checkpoint.txt").decode())
        self._latest = parse_checkpoint(files.read("latest.txt").decode())

    def run(self, origin: str) -> None:
        """Check the checkpoints of the log of this name."""
        if not self.own.checkpoint.origin == self._latest.checkpoint.origin == origin:
            self._verdict.complain(f"the checkpoints are not of the log {origin}")
        for signed in (self.own, self._latest):
            self._check_keys(signed)
        self._check_witnesses()
        self._check_grown(self.own)
        if self._trust.earlier is not None:
            before = parse_checkpoint(self._trust.earlier)
            if before.checkpoint.origin != origin:
                self._verdict.complain(
                    f"the earlier checkpoint is of the log {before.checkpoint.origin}, and not of {origin}"
                )
            self._check_keys(before)
            self._check_grown(before)
        self._check_time_stamps(origin)

    def _check_keys(self, signed: SignedCheckpoint) -> None:
        keys = [parse_verifier_key(line) for line in self._files.read("keys.txt").decode().splitlines()]
        known = [parse_verifier_key(text) for text in self._trust.keys] or keys[:1]
        known = [key for key in known if key.kind == KIND_LOG]
        for note in map(parse_checkpoint, self._rotations):
            # What a known key signed names the next one; who else signed beside it says nothing.
            if note.checkpoint.next_key and note.signers(known):
                known.append(parse_verifier_key(note.checkpoint.next_key))
        signers = signed.signers(known)
        if not signers:
            self._verdict.complain(
                f"the checkpoint of {signed.checkpoint.size} leaves is signed by no key that is known to be the log's"
            )
            return
        how = (
            "which is named as the log's, or vouched for by it"
            if self._trust.keys
            else "the bundle's own: compare it with the one that was published"
        )
        self._verdict.tell(f"checkpoint of {signed.checkpoint.size} leaves signed with {signers[-1]}, {how}")

    def _check_witnesses(self) -> None:
        for text in self._trust.witnesses:
            key: VerifierKey = parse_verifier_key(text)
            if key.kind != KIND_WITNESS:
                self._verdict.complain(f"{key.name} is a key of a log, and not of a witness")
            seen = [signed.checkpoint.size for signed in (self.own, self._latest) if signed.signers([key])]
            if not seen:
                self._verdict.complain(f"the witness {key.name} did not sign the checkpoint")
            else:
                self._verdict.tell(f"the witness {key.name} saw the log with {min(seen)} leaves")

    def _check_time_stamps(self, origin: str) -> None:
        """Who stamped a state of the log that has the statement, and when."""
        files = {name for name in self._files.names if name.endswith(TIME_STAMP_SUFFIX)}
        for name in sorted(files ^ set(self._time_stamps)):
            self._verdict.complain(f"{name} and log.json do not know each other")
        trusted = [each for pem in self._trust.authorities for each in load_trusted(pem)]
        found = 0
        for name in sorted(files & set(self._time_stamps)):
            signed = parse_checkpoint(self._time_stamps[name])
            checkpoint = signed.checkpoint
            if checkpoint.origin != origin or checkpoint.size < self.own.checkpoint.size:
                self._verdict.complain(f"{name} is of a state of the log that does not have the statement")
            self._check_keys(signed)
            self._check_grown(signed)
            try:
                stamp = read_time_stamp(self._files.read(name), sha256(checkpoint.text.encode()).digest())
                known = check_authority(stamp, trusted) if trusted else None
            except TimeStampError as error:
                self._verdict.complain(f"{name}: {error}")
                continue
            found += 1
            who = (
                "by what calls itself that: name its certificate, or its root's, with --tsa-certificate"
                if known is None
                else f"trusted by the certificate of {known.subject.rfc4514_string()} that you named"
            )
            self._verdict.tell(
                f"the log of {checkpoint.size} leaves was there on {stamp.at.isoformat()}: time stamp {stamp.serial} of "
                f"{stamp.authority}, {who}"
            )
        if trusted and not found:
            self._verdict.complain("there is no time stamp of an authority that is named as trusted")

    def _check_grown(self, before: SignedCheckpoint) -> None:
        """Whether the newest checkpoint continues this one."""
        sizes = (before.checkpoint.size, self._latest.checkpoint.size)
        found = [proof for proof in self._proofs if (proof["from"], proof["to"]) == sizes]
        if not found:
            self._verdict.complain(
                f"the bundle does not show that the log of {sizes[0]} leaves is the beginning of the one of {sizes[1]}: "
                f"history was rewritten, or the bundle is older than the checkpoint; ask for a new bundle"
            )
            return
        steps = [bytes.fromhex(each) for each in found[0]["hashes"]]
        try:
            check_consistency(sizes[0], before.checkpoint.root, sizes[1], self._latest.checkpoint.root, steps)
        except ProofError as error:
            self._verdict.complain(f"from {sizes[0]} to {sizes[1]} leaves: {error}")
            return
        if sizes[0] != sizes[1]:
            self._verdict.tell(f"the log of {sizes[1]} leaves has grown out of the one of {sizes[0]}")
